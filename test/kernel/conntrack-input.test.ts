/**
 * The input `conntrack` on the real kernel: what it says was lost is what the kernel counted, and after that the program's flows are the kernel's, id by id.
 */
import { readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { FlowTracker } from '../../src/detectors/flows/tracker.js'
import { BATCH_AT, FlowEvent, type Gap, page } from '../../src/event.js'
import { parseText } from '../../src/formats/conntrack-text.js'
import { localClock } from '../../src/formats/local-time.js'
import { conntrackFeed, type ConntrackOptions } from '../../src/inputs/conntrack.js'
import { type Input, InputError, newLineContext, NOTICES_ONLY } from '../../src/stage.js'
import { A, kernelTests, required, run, until, withLab, type Lab } from './namespaces.js'
import { ROOM, SOCKET_BYTES, withSetting } from './watching.js'

/** Sends one datagram from one port to each of the server's ports in a range. */
const SEND = `const [from, n, port] = process.argv.slice(1).map(Number)
const socket = require('node:dgram').createSocket('udp4')
socket.on('error', () => {})
socket.bind(port, () => { let left = n; for (let k = 0; k < n; k++) socket.send('x', from + k, '${A.server}', () => { if (--left === 0) socket.close() }) })`

/** Connections one after the other, each opened, answered and closed. */
const SERVE = `require('node:net').createServer((socket) => { socket.on('error', () => {}); socket.end('x') }).listen(8080, '${A.server}')`
const CONNECT = `let left = Number(process.argv[1])
const next = () => { if (left-- > 0) require('node:net').connect(8080, '${A.server}').on('error', () => {}).on('close', () => setTimeout(next, 10)).resume() }
for (let n = 0; n < 3; n++) next()`

class Followed {
  readonly input: Input
  readonly tracker = new FlowTracker({ flowsMax: 100_000, seed: 1, fullTable: { wasFull: () => false } })
  readonly gaps: Gap[] = []
  dumps = 0
  /** events whose state is another than that of the flow's event before, and whether they say so */
  readonly changes = { told: 0, silent: 0 }
  readonly #states = new Map<string, number>()
  readonly end: Promise<void>
  readonly #context = newLineContext(localClock('UTC'), () => null)
  readonly #event = new FlowEvent()

  constructor(input: Input) {
    this.input = input
    this.end = this.#follow()
  }

  static async in(lab: Lab, more: Partial<ConntrackOptions> = {}): Promise<Followed> {
    const inputs: Input[] = []
    const name = lab.name('router')
    await conntrackFeed({ name: 'conntrack', env: { PATH: process.env.PATH }, netns: { name, path: `/run/netns/${name}` }, random: 'r', ...more }).open((input) => inputs.push(input))
    return new Followed(inputs[0]!)
  }

  async #follow(): Promise<void> {
    const { input, tracker } = this
    for (let n = await input.next(); n !== 0; n = await input.next()) {
      for (const { gap, dump } of input.notices) {
        if (gap !== undefined) this.gaps.push(gap)
        if (dump === 'begins') tracker.dumpBegins(input.netns)
        else if (dump !== undefined) tracker.dumpEnded(input.netns, dump === 'ends')
        if (dump === 'ends') this.dumps++
      }
      if (n === NOTICES_ONLY) continue
      const at = input.receivedMicroseconds()
      this.#context.receivedSec = Math.floor(at / 1e6)
      page.set(input.chunk, BATCH_AT)
      for (let p = BATCH_AT; p < BATCH_AT + n; ) {
        const next = parseText(p, BATCH_AT + n, this.#event, this.#context)
        if (next <= 0) throw new Error(`not understood: ${Buffer.from(input.chunk).toString('latin1').slice(p - BATCH_AT, p - BATCH_AT + 300)}`)
        this.#event.netns = input.netns
        tracker.track(this.#event)
        if (!input.isDump) this.#judge(this.#event)
        p = next
      }
    }
  }

  #judge({ flowHigh, flowLow, state, from }: FlowEvent): void {
    const flow = `${flowHigh} ${flowLow}`
    const before = this.#states.get(flow)
    if (before !== undefined && before !== state) this.changes[from === before ? 'told' : 'silent']++
    this.#states.set(flow, state)
  }

  get ids(): number[] {
    const { table } = this.tracker
    return inOrder(Array.from({ length: table.places }, (_, place) => table.at(place)).filter((ref) => ref !== 0).map((ref) => table.id(ref) >>> 0))
  }

  async stop(): Promise<void> {
    this.input.stop()
    await this.end
    this.input.close()
  }
}

const CONNECTIONS = process.env['CONNTRAIL_LONG_TESTS'] === '1' ? 1000 : 400

/** The lock of the machine may be someone else's for long. */
const TIMEOUT = 400_000

const inOrder = (ids: number[]): number[] => ids.sort((a, b) => a - b)

async function kernelIds(lab: Lab): Promise<number[]> {
  const rows = [await lab.exec('router', 'conntrack', '-L', '-o', 'id', '-f', 'ipv4'), await lab.exec('router', 'conntrack', '-L', '-o', 'id', '-f', 'ipv6')].join('')
  return inOrder([...rows.matchAll(/ id=(\d+)$/gm)].map(([, id]) => Number(id)))
}

/** Flows of one port of the client's to so many of the server's. */
const send = (lab: Lab, from: number, n: number, port: number): Promise<string> => lab.exec('client', process.execPath, '-e', SEND, String(from), String(n), String(port))

async function tool(lab: Lab): Promise<number> {
  const pids = (await lab.pids('router')).filter((pid) => readFileSync(`/proc/${pid}/comm`, 'latin1').trim() === 'conntrack')
  expect(pids.length).toBe(1)
  return pids[0]!
}

/** What the kernel has dropped for the one listener in the router. */
async function drops(lab: Lab): Promise<number> {
  const listening = (await lab.exec('router', 'cat', '/proc/net/netlink')).split('\n').map((line) => line.trim().split(/\s+/)).filter((words) => words[1] === '12' && words[3] !== '00000000')
  expect(listening.length).toBe(1)
  return Number(listening[0]![8])
}

async function tracked(lab: Lab): Promise<void> {
  await lab.nft('router', 'table inet t {\n chain c {\n type filter hook forward priority 0\n ct state new counter\n }\n }')
  await lab.exec('router', 'sh', '-c', 'echo 300 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout; echo 1 >/proc/sys/net/netfilter/nf_conntrack_timestamp')
}

test.runIf(kernelTests === 'run' || required)('a stopped tool: the gap is what the kernel dropped, and then the flows are the kernel\'s', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    // as flows are that begin before anybody listens: the kernel sends nothing about them, not even their end
    await lab.exec('router', 'sh', '-c', 'echo 0 >/proc/sys/net/netfilter/nf_conntrack_events')
    await send(lab, 10_000, 50, 4000)
    await lab.exec('router', 'sh', '-c', 'echo 2 >/proc/sys/net/netfilter/nf_conntrack_events')
    const followed = await Followed.in(lab)
    await until('the first dump', 20, async () => followed.dumps === 1)
    expect(followed.ids).toEqual(await kernelIds(lab))
    expect(followed.ids.length).toBeGreaterThanOrEqual(50)

    // opened before, closed now
    await lab.exec('router', 'conntrack', '-D', '-p', 'udp', '--sport', '4000')
    await until('the ends', 10, async () => String(followed.ids) === String(await kernelIds(lab)))
    expect([followed.gaps, followed.tracker.forgotten]).toEqual([[], 50])

    const pid = await tool(lab)
    process.kill(pid, 'SIGSTOP')
    await send(lab, 20_000, 3000, 4001)
    // of these some ends are lost too
    await lab.exec('router', 'conntrack', '-D', '-p', 'udp', '--dport', '20001')
    await sleep(300)
    const lost = await drops(lab)
    expect(lost).toBeGreaterThan(1000)
    process.kill(pid, 'SIGCONT')
    const resumed = Date.now()
    await until('the gap', 10, async () => followed.gaps.length > 0)
    await until('a dump', 10, async () => followed.dumps >= 3)
    await until('the same flows', 10 - (Date.now() - resumed) / 1000, async () => String(followed.ids) === String(await kernelIds(lab)))
    expect(followed.gaps.map(({ cause, count }) => [cause, count])).toEqual([['netlink_overrun', lost]])
    expect(followed.ids.length).toBeGreaterThanOrEqual(2999)

    // ends only, of which most are lost
    process.kill(pid, 'SIGSTOP')
    await lab.exec('router', 'conntrack', '-F')
    await sleep(300)
    const more = (await drops(lab)) - lost
    process.kill(pid, 'SIGCONT')
    await until('the same flows', 10, async () => followed.gaps.length === 2 && String(followed.ids) === String(await kernelIds(lab)))
    expect(followed.gaps[1]!.count).toBe(more)
    expect(followed.tracker.forgotten).toBeGreaterThan(1000)

    // died and came back: what happened meanwhile is seen in the table
    process.kill(pid, 'SIGKILL')
    await send(lab, 30_000, 20, 4002)
    await until('the gap', 10, async () => followed.gaps.length === 3)
    await until('the same flows', 10, async () => String(followed.ids) === String(await kernelIds(lab)))
    expect(followed.gaps[2]!.cause).toBe('input_restart')
    expect(followed.ids.length).toBeGreaterThanOrEqual(20)

    await followed.stop()
    expect((await lab.pids('router')).length).toBe(0)
  })
})

test.runIf(kernelTests === 'run' || required)('busy traffic between dumps: every event keeps its transition', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    await withSetting(SOCKET_BYTES, ROOM, async () => {
      const followed = await Followed.in(lab, { redumpMs: 100 })
      lab.startIn('server', process.execPath, '-e', SERVE)
      await sleep(500)
      await lab.exec('client', process.execPath, '-e', CONNECT, String(CONNECTIONS))
      await until('several dumps', 20, async () => followed.dumps >= 3)
      await until('the same flows', 20, async () => String(followed.ids) === String(await kernelIds(lab)))
      expect(followed.changes.told).toBeGreaterThan(3 * CONNECTIONS)
      expect([followed.changes.silent, followed.gaps, followed.tracker.forgotten]).toEqual([0, [], 0])
      await followed.stop()
    })
  })
})

test.runIf(kernelTests === 'run' || required)('a namespace that is gone is let go, and one that comes back by its name is followed', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    const followed = await Followed.in(lab)
    await until('the first dump', 20, async () => followed.dumps === 1)
    const pid = await tool(lab)
    await run('ip', ['netns', 'del', lab.name('router')])
    await sleep(1500)
    expect(() => readFileSync(`/proc/${pid}/comm`)).toThrow()
    await run('ip', ['netns', 'add', lab.name('router')])
    await until('the child is another', 20, async () => (await lab.pids('router')).some((id) => id !== pid))
    await until('a dump', 20, async () => followed.dumps >= 2)
    expect(followed.input.netns).toBe(statSync(`/run/netns/${lab.name('router')}`).ino)
    expect(followed.gaps.map(({ cause }) => cause)).toEqual(['input_restart'])
    await followed.stop()
  })
})

test.runIf(kernelTests === 'run' || required)('a namespace that is not there is named', async () => {
  const refused = await conntrackFeed({ name: 'conntrack', env: { PATH: process.env.PATH }, netns: { name: 'nowhere', path: '/run/netns/nowhere' }, random: 'r' })
    .open(() => {})
    .catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(InputError)
  expect(refused).toMatchObject({ kind: 'missing', message: expect.stringContaining('/run/netns/nowhere') as string })
})
