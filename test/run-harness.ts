/**
 * Keeps `conntrail run` going on followed files, as a service does: started, stopped, killed and started again, under other programs where a case wants that, with
 * its output looked at while it grows. Lines are conntrack's events; the number that a line stands for is its mark.
 */
import { type ChildProcess, execFileSync } from 'node:child_process'
import { appendFileSync, closeSync, existsSync, openSync, readSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { expect } from 'vitest'
import { program, type Record_, scratch, sleep, start, type Sums } from './process-harness.js'

const LF = 10
/** What a run with state says when it finds none. */
export const FIRST_START = 'has no checkpoint, as before a first start'
/** Long enough for a busy machine: what is waited for either comes or something is wrong. */
const PATIENCE_MS = process.env['CONNTRAIL_LONG_TESTS'] === '1' ? 240_000 : 55_000

export const isLong = process.env['CONNTRAIL_LONG_TESTS'] !== undefined

/** One line, with `mark` from 1, in its own connection. `pad`: bytes that make it longer. */
export function line(mark: number, pad = 0): string {
  const port = 1024 + (mark % 60_000)
  const text = `[1795342488.859837]\t    [NEW] udp      17 30 src=10.1.1.2 dst=10.1.2.2 sport=${port} dport=53 [UNREPLIED] src=10.1.2.2 dst=10.1.2.1 sport=53 dport=${port} mark=${mark}`
  return `${text}${pad === 0 ? '' : ` helper=${'h'.repeat(pad)}`}\n`
}

export function lines(from: number, to: number, pad = 0): string {
  return Array.from({ length: to - from + 1 }, (_, i) => line(from + i, pad)).join('')
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

export function add(path: string, ...marks: number[]): void {
  appendFileSync(path, marks.map((mark) => line(mark)).join(''))
}

const faketime = execFileSync('sh', ['-c', 'ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 2>/dev/null | head -n 1'], { encoding: 'utf8' }).trim()
/** Is faketime there? Where it is required and missing that is a failure. */
export const clockIsSettable = faketime !== ''
if (!clockIsSettable && process.env['CONNTRAIL_REQUIRE_KERNEL_TESTS'] === '1') throw new Error('faketime is missing')

/** A clock for a program, and only for it, that is set while it runs: what it starts has it too, as on a host whose clock is set. Not the one that goes on evenly. */
export class SettableClock {
  readonly #path: string
  readonly env: NodeJS.ProcessEnv

  /** `path`: of a file that holds what it says. */
  constructor(path: string) {
    this.#path = path
    this.env = { LD_PRELOAD: faketime, FAKETIME_TIMESTAMP_FILE: path, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1', NO_FAKE_STAT: '1' }
    this.set('+0')
  }

  /** Against the machine's: `-1d`, `+3600`. Never read half written. */
  set(offset: string): void {
    writeFileSync(`${this.#path}.next`, offset)
    renameSync(`${this.#path}.next`, this.#path)
  }
}

export interface RunOptions {
  /** what starts it, before the program's own words: `strace ...` */
  readonly under?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly stdout?: number | 'ignore'
}

/** One life of the program. */
export class Life {
  readonly pid: number
  stderr = ''
  isOver = false
  readonly #child: ChildProcess
  readonly #end: Promise<number>

  constructor(args: readonly string[], { under = [], env = {}, stdout = 'ignore' }: RunOptions = {}) {
    const [command, ...rest] = [...under, process.execPath, program, ...args]
    this.#child = start(command!, rest, ['ignore', stdout, 'pipe'], env)
    this.pid = this.#child.pid!
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
    this.#end = new Promise((resolve) =>
      this.#child.on('close', (code, signal) => {
        this.isOver = true
        resolve(code ?? (signal === 'SIGKILL' ? 137 : 128))
      }),
    )
  }

  /** What it has said so far, without the sums. */
  get said(): Record_[] {
    return this.#json.filter(({ msg }) => msg !== 'done')
  }

  /** ... beside that it is its first start. */
  get messages(): string[] {
    return this.said.map(({ msg }) => msg as string).filter((message) => !message.includes(FIRST_START))
  }

  get done(): Sums | undefined {
    return this.#json.find(({ msg }) => msg === 'done') as Sums | undefined
  }

  get #json(): Record_[] {
    return wholeIn(this.stderr).filter((one) => one.startsWith('{')).map((one) => JSON.parse(one) as Record_)
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Its status at the end, whatever ends it. */
  async ended(): Promise<number> {
    const status = await this.#end
    expect(this.stderr).not.toMatch(/^\s+at .*[:(]\d+/m)
    return status
  }

  /** As a service manager does. Everything read is written then. */
  async stop(): Promise<void> {
    this.signal('SIGTERM')
    expect(await this.ended(), this.stderr).toBe(0)
    const { lines, flows, expects, kernel, notes, ignored, rejected } = this.done!
    expect(flows + expects + kernel + notes + ignored + rejected, 'the sum of the kinds of lines').toBe(lines)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.#end
  }

  /** MiB */
  memory(which: 'VmRSS' | 'VmHWM' = 'VmRSS'): number {
    return Number(new RegExp(`^${which}:\\s+(\\d+) kB`, 'm').exec(execFileSync('cat', [`/proc/${this.pid}/status`], { encoding: 'utf8' }))![1]) / 1024
  }

  /** Paths of its open files. */
  get open(): string[] {
    return execFileSync('sh', ['-c', `ls -l /proc/${this.pid}/fd 2>/dev/null | sed -n 's/.* -> //p'`], { encoding: 'utf8' }).split('\n').slice(0, -1)
  }

  /** Seconds of processor time that it has used. */
  get cpu(): number {
    const fields = execFileSync('cat', [`/proc/${this.pid}/stat`], { encoding: 'latin1' }).split(') ')[1]!.split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
  }
}

/** Records of a file as they come to be in it. A reader may come at any moment: what stands there whole must be whole. */
export class Written {
  readonly path: string
  readonly records: Record_[] = []
  readonly texts: string[] = []
  #at = 0

  constructor(path: string) {
    this.path = path
  }

  look(): Record_[] {
    if (!existsSync(this.path)) return this.records
    const size = statSync(this.path).size
    const bytes = Buffer.alloc(Math.max(0, size - this.#at))
    const fd = openSync(this.path, 'r')
    const n = readSync(fd, bytes, 0, bytes.length, this.#at)
    closeSync(fd)
    const whole = bytes.subarray(0, n).lastIndexOf(LF) + 1
    const added = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, whole)).split('\n').slice(0, -1)
    this.#at += whole
    for (const text of added) {
      this.texts.push(text)
      this.records.push(JSON.parse(text) as Record_)
    }
    return this.records
  }

  /** Of the flows, in their order. */
  get marks(): number[] {
    return this.look().flatMap((record) => (record['type'] === 'flow' ? [record['mark'] as number] : []))
  }

  get gaps(): Record_[] {
    return this.look().filter(({ type }) => type === 'gap')
  }

  /** Nothing but whole lines, now that nobody writes. */
  checkEnd(): void {
    this.look()
    if (existsSync(this.path)) expect(statSync(this.path).size, `bytes of ${this.path} that are whole lines`).toBe(this.#at)
  }
}

/** A configuration in a file of its own. */
export function configured(name: string, config: object): string {
  const path = scratch(name)
  writeFileSync(path, JSON.stringify({ version: 1, host: 'gw1', ...config }))
  return path
}

/** These numbers in this order and no others; says in short what differs. */
export function expectMarks(found: readonly number[], wanted: readonly number[]): void {
  const [has, should] = [new Set(found), new Set(wanted)]
  const at = found.findIndex((mark, i) => mark !== wanted[i])
  expect({
    missing: wanted.filter((mark) => !has.has(mark)).slice(0, 10),
    unwanted: found.filter((mark) => !should.has(mark)).slice(0, 10),
    twice: found.length - has.size,
    outOfOrder: at < 0 ? [] : found.slice(Math.max(0, at - 2), at + 3),
  }).toEqual({ missing: [], unwanted: [], twice: 0, outOfOrder: [] })
}

/** Waits until it comes true; says what it waited for when it does not. */
export async function comes(what: string, holds: () => boolean, life?: Life, ms = PATIENCE_MS): Promise<void> {
  const end = performance.now() + ms
  while (!holds()) {
    if (life?.isOver === true) throw new Error(`waiting for ${what}, and the program has ended: ${life.stderr}`)
    if (performance.now() > end) throw new Error(`waited in vain for ${what}: ${life?.stderr ?? ''}`)
    await sleep(20)
  }
}

/** Record ids that came more than once must be of the same record; gives the marks of the first arrivals, in order. */
export function firstArrivals(records: readonly Record_[]): Record_[] {
  const byRid = new Map<string, Record_>()
  for (const record of records) {
    const before = byRid.get(record['rid'] as string)
    if (before === undefined) byRid.set(record['rid'] as string, record)
    else expect(same(record), `a record that came twice as ${record['rid']}`).toEqual(same(before))
  }
  return [...byRid.values()]
}

/** Without what the tracker's memory decides. */
function same({ transition, end, flow, ...rest }: Record_): Record_ {
  return rest
}

function wholeIn(text: string): string[] {
  return text.split('\n').slice(0, -1)
}
