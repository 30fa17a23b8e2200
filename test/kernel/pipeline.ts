/** `conntrack -E ... | node dist/main.js` on a lab's router, with a copy of the raw lines for the messages of failures. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { until, type Lab } from './namespaces.js'
import { ROOM, SOCKET_BYTES, withSetting } from './watching.js'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

export interface Tuple { src: string; dst: string; sport?: number; dport?: number; id?: number }
export interface Nat { kind: 'snat' | 'dnat' | 'both'; src?: string; sport?: number; dst?: string; dport?: number; id?: number }
export interface Flow {
  type: string; event: 'new' | 'update' | 'destroy'; protocol: string; state?: string; ctstate: string
  orig: Tuple; reply: Tuple; unreplied?: true; id?: number; flow: string; time: string
  transition?: { from: string | null; to: string; after?: number }; nat?: Nat; end?: { reason: string; duration?: number; idle?: number }
}
export type Sums = Record<'lines' | 'flows' | 'expects' | 'kernel' | 'notes' | 'ignored' | 'rejected' | 'written', number>
export interface Result { records: Flow[]; raw: string[]; sums: Sums }

export class Pipeline {
  #lab; #tools; #ended?: Promise<unknown[]>; #out = ''; #err = ''

  constructor(lab: Lab, tools: string[]) { this.#lab = lab; this.#tools = tools }

  /** Starts everything; back when each tool is subscribed to its events. */
  start(): Promise<void> {
    return withSetting(SOCKET_BYTES, ROOM, () => this.#start())
  }

  async #start(): Promise<void> {
    const tools = this.#tools.map((t) => `ip netns exec ${this.#lab.name('router')} conntrack ${t} &`).join(' ')
    const child = this.#lab.start('sh', ['-c', `{ ${tools} wait; } 2>"$0/err" | tee "$0/raw" | "$1" "$2"`, this.#lab.dir, process.execPath, main])
    child.stdout.setEncoding('utf8').on('data', (d: string) => (this.#out += d))
    child.stderr.setEncoding('utf8').on('data', (d: string) => (this.#err += d))
    this.#ended = once(child, 'close')
    await until('conntrack -E listens', 20, async () => (await this.#sockets()).length === this.#tools.length)
  }

  /** The event sockets in the router: netlink family 12 with a group. */
  async #sockets(): Promise<{ queued: number; drops: number }[]> {
    const rows = (await this.#lab.exec('router', 'cat', '/proc/net/netlink')).split('\n').map((r) => r.trim().split(/\s+/))
    return rows.filter((r) => r[1] === '12' && /[1-9a-f]/.test(r[3] ?? '')).map((r) => ({ queued: Number(r[4]), drops: Number(r[8]) }))
  }

  /** Ends the tools when they have printed all, and waits for the program's end. */
  async stop(): Promise<Result> {
    await until('conntrack -E has read all events (else the program does not read on)', 10, async () => (await this.#sockets()).every((s) => s.queued === 0))
    await sleep(200) // the last one read is being printed
    const lost = (await this.#sockets()).map((s) => s.drops)
    for (const pid of await this.#lab.pids('router')) process.kill(pid, 'SIGTERM')
    const [status] = (await Promise.race([this.#ended!, sleep(15_000, ['none 15 s after the end of its input'], { ref: false })])) as [number | string | null]
    const raw = (await readFile(join(this.#lab.dir, 'raw'), 'utf8')).split('\n').slice(0, -1)
    const err = await readFile(join(this.#lab.dir, 'err'), 'utf8')
    if (lost.some(Boolean)) throw new Error(`this machine is too busy: the kernel lost ${lost.join(' and ')} events before conntrack read them\n${err}`)
    if (status !== 0) throw new Error(`the program's exit status: ${status}\n${this.#err}`)
    const done = this.#err.split('\n').filter((l) => l.startsWith('{')).map((l) => JSON.parse(l) as Sums & { msg?: string }).find((l) => l.msg === 'done')
    if (done === undefined) throw new Error(`no sums on stderr: ${this.#err}`)
    return { records: this.#out.split('\n').slice(0, -1).map((l) => JSON.parse(l) as Flow), raw, sums: done }
  }
}
