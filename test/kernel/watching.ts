/** The whole program, built, as it runs in one of a lab's namespaces: its records as they come, what it says, and how it ends. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { program, type Record_ } from '../process-harness.js'
import { type Lab, type Role, until } from './namespaces.js'

/** What a new socket may hold: by default 166 events, which is not enough on a machine that does much else. */
export const SOCKET_BYTES = '/proc/sys/net/core/rmem_default'
export const ROOM = 16 << 20

export interface Ended {
  readonly status: number
  readonly done: Record_
}

export class Watching {
  readonly records: Record_[] = []
  /** when each of them was read here, in milliseconds of performance.now() */
  readonly readAt: number[] = []
  /** NDJSON on stderr */
  readonly said: Record_[] = []
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>

  constructor(lab: Lab, role: Role, ...args: string[]) {
    const child = lab.start('ip', ['netns', 'exec', lab.name(role), process.execPath, program, 'run', ...args])
    this.#child = child
    this.#closed = once(child, 'close')
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.readAt.push(performance.now())
      this.records.push(JSON.parse(line) as Record_)
    })
    createInterface({ input: child.stderr }).on('line', (line) => this.said.push(JSON.parse(line) as Record_))
  }

  /** `ip netns exec` becomes the program. */
  get pid(): number {
    return this.#child.pid!
  }

  /** Its inputs are open: it has the kernel's log, and the tool that it started listens. */
  async isOpen(inputs: readonly ('kmsg' | 'table' | 'conntrack')[]): Promise<this> {
    if (inputs.includes('kmsg')) await until('the program has the kernel\'s log', 20, () => Promise.resolve(this.#has('/dev/kmsg')))
    if (inputs.includes('conntrack')) await until('its conntrack listens', 20, () => Promise.resolve(this.socket() !== null))
    if (inputs.includes('table')) await until('its first sample', 20, () => Promise.resolve(this.of('table').length > 0))
    return this
  }

  of(type: string): Record_[] {
    return this.records.filter((record) => record['type'] === type)
  }

  /** Process id of the `conntrack -E` that it started. */
  tool(): number {
    const group = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(name) === this.pid)
    const tool = group.find((pid) => /^(.*\/)?conntrack\0-E/.test(textOf(`/proc/${pid}/cmdline`)))
    if (tool === undefined) throw new Error('the program has no conntrack -E among its children')
    return Number(tool)
  }

  /** What the kernel says of the one socket of its namespace that listens to flow events. */
  socket(): { readonly queued: number; readonly drops: number } | null {
    const rows = readFileSync(`/proc/${this.pid}/net/netlink`, 'latin1').split('\n').map((row) => row.trim().split(/\s+/))
    const row = rows.find((row) => row[1] === '12' && /[1-9a-f]/.test(row[3] ?? ''))
    return row === undefined ? null : { queued: Number(row[4]), drops: Number(row[8]) }
  }

  /** Entries in the table of its namespace, and its counters by the kernel's names, added up over the CPUs. */
  counters(): Record<string, number> {
    const [header = [], ...cpus] = readFileSync(`/proc/${this.pid}/net/stat/nf_conntrack`, 'latin1').trim().split('\n').map((row) => row.trim().split(/\s+/))
    const sum = (i: number): number => cpus.reduce((all, cpu) => all + Number.parseInt(cpu[i]!, 16), 0)
    // every CPU's row has the entries of all
    return Object.fromEntries(header.map((name, i) => [name, name === 'entries' ? Number.parseInt(cpus[0]![i]!, 16) : sum(i)]))
  }

  /** The ids of its live flows, as it says when asked. */
  async liveIds(): Promise<number[]> {
    const from = this.said.length
    const told = (): Record_[] => this.said.slice(from).filter(({ msg }) => msg === 'live flows')
    process.kill(this.pid, 'SIGUSR2')
    await until('it tells its live flows', 5, () => Promise.resolve(told().at(-1)?.['left'] === 0))
    return told().flatMap(({ ids }) => ids as number[]).sort((a, b) => a - b)
  }

  async stop(): Promise<Ended> {
    process.kill(this.pid, 'SIGTERM')
    const [code, signal] = (await this.#closed) as [number | null, string | null]
    const done = this.said.find(({ msg }) => msg === 'done')
    if (code === null || done === undefined) throw new Error(`the program ended by ${signal ?? code} without its sums: ${JSON.stringify(this.said)}`)
    return { status: code, done }
  }

  #has(path: string): boolean {
    return readdirSync(`/proc/${this.pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${this.pid}/fd/${fd}`) === path
      } catch {
        return false // closed meanwhile
      }
    })
  }
}

/** The kernel's budget of messages is ten in five seconds for everybody. */
const QUIET_MS = 6000

/** Waits until the kernel has said nothing for so long that its budget is whole. */
export async function quietKernel(): Promise<void> {
  for (let left = QUIET_MS - quietMs(); left > 0; left = QUIET_MS - quietMs()) await sleep(left)
}

/** How long the kernel has said nothing, by the clock of its log: a line of our own, which is not the kernel's, asks for the time. */
function quietMs(): number {
  const fd = openSync('/dev/kmsg', constants.O_RDWR | constants.O_NONBLOCK)
  try {
    const mark = `conntrail-test-${process.pid}-${Math.random()}`
    writeSync(fd, `<12>${mark}\n`)
    const record = Buffer.alloc(1 << 14)
    for (let last = 0; ; ) {
      const [head, text] = readRecord(fd, record)
      if (text.startsWith(mark)) return (head[2]! - last) / 1000
      // facility 0 is the kernel
      if (head[0]! >> 3 === 0) last = head[2]!
    }
  } finally {
    closeSync(fd)
  }
}

/** Priority, sequence number and microseconds of the next record, and its text. */
function readRecord(fd: number, record: Buffer): [head: number[], text: string] {
  for (;;) {
    try {
      const [, head, text] = /^(.*?);(.*)/.exec(record.toString('latin1', 0, readSync(fd, record)))!
      return [head!.split(',').map(Number), text!]
    } catch (error) {
      // overwritten before it was read: the next read begins with what there is
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
    }
  }
}

/** Runs with a setting of this machine changed, and puts it back. */
export async function withSetting<T>(path: string, value: number, use: () => Promise<T>): Promise<T> {
  const before = readFileSync(path, 'latin1')
  writeFileSync(path, String(value))
  try {
    return await use()
  } finally {
    writeFileSync(path, before)
  }
}

/** '' where the process has ended. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

const parentOf = (pid: string): number => Number(/\) \S (\d+)/.exec(textOf(`/proc/${pid}/stat`))?.[1])
