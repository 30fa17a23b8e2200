/**
 * Starts the built program as users do: real pipes (Node's own would be sockets), real files, real signals. Whatever a run wrote is checked here for what holds of
 * every run: whole lines of valid UTF-8 and JSON, sums that close, no stack trace.
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { closeSync, constants, createReadStream, mkdtempSync, openSync, read, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'

const LF = 10
export const program = fileURLToPath(new URL('../dist/main.js', import.meta.url))
const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))

export type Record_ = Record<string, any>

/** The sums of the done line. */
export interface Sums {
  readonly lines: number
  readonly bytes: number
  readonly flows: number
  readonly expects: number
  readonly kernel: number
  readonly notes: number
  readonly ignored: number
  readonly rejected: number
  readonly alerts: number
  readonly gaps: number
  readonly written: number
  readonly outputs: Record<string, number>
}

export interface Ended {
  /** 128 and the signal's number where one killed it, as the shell says it */
  readonly status: number
  readonly stderr: string
  /** what stderr says in NDJSON, without the sums */
  readonly diagnostics: Record_[]
  readonly done: Sums | null
}

export interface Result extends Ended {
  readonly stdout: Buffer
  readonly lines: string[]
  readonly records: Record_[]
}

export class Program {
  readonly pid: number
  readonly ended: Promise<Ended>
  readonly #child: ChildProcess

  /** Its ends of the pipes are its own from then on. */
  constructor(args: readonly string[], stdin: Pipe | number | 'ignore', stdout: Pipe | 'ignore', env: NodeJS.ProcessEnv = {}) {
    this.#child = start(process.execPath, [program, ...args], [stdin instanceof Pipe ? stdin.readEnd : stdin, stdout instanceof Pipe ? stdout.writeEnd : stdout, 'pipe'], env)
    if (stdin instanceof Pipe) stdin.closeRead()
    if (stdout instanceof Pipe) stdout.closeWrite()
    this.pid = this.#child.pid!
    let stderr = ''
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    this.ended = new Promise((resolve) => this.#child.on('close', (code, signal) => resolve(endedWith(code ?? 128 + signalNumbers[signal!]!, stderr))))
  }

  /** Only while it has not ended. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal)
  }

  /** MiB in memory, now or at its highest. */
  memory(which: 'VmRSS' | 'VmHWM' = 'VmRSS'): number {
    const found = new RegExp(`^${which}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))
    return Number(found![1]) / 1024
  }

  /** Bytes it has read since it began, its own files included. */
  bytesRead(): number {
    return Number(/^rchar: (\d+)/m.exec(readFileSync(`/proc/${this.pid}/io`, 'utf8'))![1])
  }
}

const signalNumbers: Record<string, number> = { SIGINT: 2, SIGKILL: 9, SIGPIPE: 13, SIGTERM: 15, SIGABRT: 6, SIGSEGV: 11 }

const started: ChildProcess[] = []
const opened = new Set<number>()
let directory = ''

/** A pipe as the shell makes them: two ends to hand to children, or to use. */
export class Pipe {
  readonly readEnd: number
  readonly writeEnd: number
  #head: Buffer[] = []

  private constructor(path: string) {
    this.readEnd = openSync(path, constants.O_RDONLY)
    this.writeEnd = openSync(path, constants.O_WRONLY)
    opened.add(this.readEnd).add(this.writeEnd)
  }

  /** Node makes no pipes without a name: a shell makes one, and both ends of it are opened anew. */
  static async open(): Promise<Pipe> {
    const holder = start('bash', ['-c', 'exec sleep 60 < <(:)'], ['ignore', 'ignore', 'ignore'])
    const path = `/proc/${holder.pid}/fd/0`
    await until(() => readlinkSync(path).startsWith('pipe:'))
    const pipe = new Pipe(path)
    holder.kill('SIGKILL')
    return pipe
  }

  closeRead(): void {
    close(this.readEnd)
  }

  closeWrite(): void {
    close(this.writeEnd)
  }

  /** Waits for the first byte, and reads no more: whoever wrote it has started for good. */
  async begins(): Promise<void> {
    const byte = Buffer.alloc(1)
    const n = await new Promise<number>((resolve, fail) => read(this.readEnd, byte, 0, 1, null, (error, n) => (error === null ? resolve(n) : fail(error))))
    expect(n, 'bytes at the beginning').toBe(1)
    this.#head.push(byte)
  }

  /** Reads to the end, and waits as often and as long as `pace` says. */
  async readAll(pace: (pieces: number) => Promise<void> | null = () => null): Promise<Buffer> {
    opened.delete(this.readEnd)
    const pieces = this.#head
    for await (const piece of createReadStream('', { fd: this.readEnd })) {
      pieces.push(piece as Buffer)
      const pause = pace(pieces.length)
      if (pause !== null) await pause
    }
    return Buffer.concat(pieces)
  }
}
export function close(fd: number): void {
  if (opened.delete(fd)) closeSync(fd)
}

/** A path in a directory that is gone after the test. */
export function scratch(name: string): string {
  if (directory === '') directory = mkdtempSync(join(tmpdir(), 'conntrail-test-'))
  return join(directory, name)
}

/** Ends what the test started and left. */
export function cleanUp(): void {
  for (const child of started.splice(0)) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  for (const fd of [...opened]) close(fd)
  if (directory !== '') rmSync(directory, { recursive: true })
  directory = ''
}

/** Any other program. */
export function start(command: string, args: readonly string[], stdio: StdioOptions, env: NodeJS.ProcessEnv = {}): ChildProcess {
  const child = spawn(command, args, { stdio, env: { ...process.env, TZ: 'UTC', ...env } })
  started.push(child)
  child.stdin?.on('error', () => {})
  return child
}

/** What a program prints, to its end. */
export async function output(child: ChildProcess): Promise<string> {
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (piece: string) => (text += piece))
  await new Promise((resolve) => child.on('close', resolve))
  return text
}

/** `yes LINE | head -n COUNT`, or without an end. */
export function feed(line: string, to: Pipe, count = Infinity): ChildProcess {
  const script = count === Infinity ? 'exec yes "$1"' : 'yes "$1" | head -n "$2"'
  const child = start('sh', ['-c', script, 'sh', line, String(count)], ['ignore', to.writeEnd, 'ignore'])
  to.closeWrite()
  return child
}

let inputs = 0

/** A whole run: input from a file, or through a pipe; output through a pipe. */
export async function run(args: readonly string[], input: string | Uint8Array, through: 'file' | 'pipe' | 'socket' = 'file', env: NodeJS.ProcessEnv = {}): Promise<Result> {
  const path = scratch(`input${++inputs}`)
  writeFileSync(path, input)
  if (through === 'socket') {
    // Node's own pipes are sockets
    const child = start(process.execPath, [program, ...args], ['pipe', 'pipe', 'pipe'], env)
    createReadStream(path).pipe(child.stdin!)
    return collect(child)
  }
  let stdin: number | Pipe
  if (through === 'pipe') {
    stdin = await Pipe.open()
    start('cat', [path], ['ignore', stdin.writeEnd, 'ignore'])
    stdin.closeWrite()
  } else {
    stdin = openSync(path, 'r')
    opened.add(stdin)
  }
  const out = await Pipe.open()
  const running = new Program(args, stdin, out, env)
  if (typeof stdin === 'number') close(stdin)
  const stdout = await out.readAll()
  return resultOf(await running.ended, stdout)
}

/** A line of the shell, in which "$@" starts the program. */
export function shell(script: string, ...args: string[]): Promise<Result> {
  return collect(start('bash', ['-c', script, 'bash', process.execPath, program, ...args], ['ignore', 'pipe', 'pipe']))
}

async function collect(child: ChildProcess): Promise<Result> {
  let stderr = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const pieces: Buffer[] = []
  child.stdout!.on('data', (piece: Buffer) => pieces.push(piece))
  const status = await new Promise<number>((resolve) => child.on('close', (code, signal) => resolve(code ?? 128 + signalNumbers[signal!]!)))
  return resultOf(endedWith(status, stderr), Buffer.concat(pieces))
}

/** Checks what must hold of every output. */
export function resultOf(ended: Ended, stdout: Buffer): Result {
  const lines = wholeLines(stdout)
  return { ...ended, stdout, lines, records: lines.map((line) => JSON.parse(line) as Record_) }
}

/** Valid UTF-8, the last line ended. */
export function wholeLines(bytes: Uint8Array): string[] {
  if (bytes.length > 0) expect(bytes.at(-1), 'the last byte').toBe(LF)
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes).split('\n').slice(0, -1)
}

function endedWith(status: number, stderr: string): Ended {
  expect(stderr).not.toMatch(/^\s+at .*[:(]\d+/m)
  expect(stderr).not.toContain('node:internal')
  const said = stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record_)
  const done = (said.find((line) => line['msg'] === 'done') as Sums | undefined) ?? null
  if (done !== null) {
    const { lines, flows, expects, kernel, notes, ignored, rejected, written, outputs } = done
    expect(flows + expects + kernel + notes + ignored + rejected, 'the sum of the kinds of lines').toBe(lines)
    expect(Object.values(outputs).reduce((sum, n) => sum + n, 0), 'the sum of the outputs').toBe(written)
  }
  return { status, stderr, diagnostics: said.filter((line) => line['msg'] !== 'done'), done }
}

/** The content of the one fixture whose name begins so. */
export function fixture(beginning: string): Buffer {
  const names = readdirSync(fixtures).filter((name) => name.startsWith(`${beginning}.`) && name.endsWith('.in'))
  expect(names).toHaveLength(1)
  return readFileSync(join(fixtures, names[0]!))
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Asks every 10 ms. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10)
}

/** Of the machine's; for a program that cannot choose its own and say so. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
