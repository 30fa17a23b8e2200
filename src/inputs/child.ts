/**
 * A program that an input has started and keeps running: no shell reads its arguments, its stdout comes as bytes, its stderr line by line, and it is started again
 * with back-off when it dies.
 *
 * It lives in a process group of its own beside a guard, which holds the other end of a pipe that only this program has open: when the child has ended, or this
 * program has (kill -9 and crashes of it included), the guard kills what is left of the group. The kernel's own way (PR_SET_PDEATHSIG) is forgotten for programs
 * with file capabilities, as `setcap cap_net_admin+ep conntrack` makes them, does not reach a child's children, and waits while the child is stopped.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import split2 from 'split2'
import { CHUNK_BYTES_MAX } from '../event.js'
import { type BootTime, type Input, InputError, messageOf, type Notice, NOTICES_ONLY } from '../stage.js'
import { nowMicroseconds } from '../clock.js'

const LF = 10
const SHELL = '/bin/sh'
/** `sh -c LAUNCH GUARD PROGRAM ARGS`: the shell becomes the program, whose process id is therefore the one that is reported. */
const LAUNCH = `exec 3<&0; ${SHELL} -c "$0" conntrail-guard <&3 3<&- >/dev/null 2>&1 & exec "$@" </dev/null 3<&-`
const GUARD = 'trap "" HUP INT TERM; read -r end; kill -KILL 0'

/** The first restart comes within so long, each further one within twice that, at the most within BACK_OFF_MAX_MS. */
const BACK_OFF_MS = 500
const BACK_OFF_MAX_MS = 30_000
/** After so long the next restart counts as the first again. */
const SETTLED_MS = 60_000
/** Between SIGTERM and SIGKILL. */
const KILL_AFTER_MS = 2000
/** Between the end of its stdout and its own. */
const MUTE_MS = 2000
/** An input that is stopped reads what its child still writes for so long. */
const STOP_MS = 1000
/** A longer line of stderr becomes several. */
const STDERR_LINE_BYTES_MAX = 8192
const SAY_AGAIN_MS = 10_000
/** So many texts are remembered for not being said again. */
const SAID_MAX = 256
/** Where administrators' programs are, which the PATH of others lacks. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export type Environment = Readonly<Record<string, string | undefined>>

export interface ChildOptions {
  /** Program and arguments, asked at every start. The program is looked for in PATH, then where administrators' programs are. */
  argv(): readonly string[]
  readonly env: Environment
  /** where the program comes from, for whoever does not have it: `the package conntrack (Debian) or conntrack-tools (RHEL)` */
  readonly comesFrom: string
  /** A piece of stdout, of 64 KiB at most, owned by the callee. Never called between `pause` and `resume`. */
  onBytes(bytes: Uint8Array<ArrayBuffer>): void
  /** a line of stderr without its LF */
  onStderr(line: string): void
  onStart?(pid: number): void
  /** It has closed its stdout a while ago and lives on, so that nothing will come any more: it is killed, which is an end like others. */
  onMute?(): void
  /** It has ended, and all that it wrote was given. True: start it again after a while. Behind `stop` the answer counts for nothing, behind `kill` it is not called. */
  onEnd(end: ChildEnd): boolean
  /** 0 <= n < 1, for the back-off; Math.random */
  readonly random?: () => number
}

/** How a run of the program ended. */
export interface ChildEnd {
  /** exit status, -1 where a signal ended it or it could not be started */
  readonly status: number
  /** 'SIGTERM', say, else '' */
  readonly signal: string
  /** why it could not be started (again), as a sentence, else '' */
  readonly failure: string
  /** the last line that it wrote to stderr, or '' */
  readonly lastWords: string
  /** it was told to, by `stop` */
  readonly isStopped: boolean
}

/** `exited with status 1`, `was ended by SIGKILL`, or why it was not started. */
export function howItEnded(end: ChildEnd): string {
  return end.failure !== '' ? `could not be started: ${end.failure}` : end.signal !== '' ? `was ended by ${end.signal}` : `exited with status ${end.status}`
}

/** Milliseconds to wait before restart number `restarts`, counted from 0: anything up to the limit, so that many hosts do not start at the same moment. */
export function backOffMs(restarts: number, random: number): number {
  return random * Math.min(BACK_OFF_MAX_MS, BACK_OFF_MS * 2 ** Math.min(restarts, 16))
}

export class Child {
  readonly #options: ChildOptions
  #child: ChildProcess | null = null
  #timer: NodeJS.Timeout | undefined
  #restarts = 0
  /** how often the program was started */
  starts = 0
  #isPaused = false
  #isStopping = false
  #isKilled = false
  #ended: () => void = () => {}

  constructor(options: ChildOptions) {
    this.#options = options
  }

  /** Process id of the run at hand, 0 between two. */
  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Throws InputError where the program is not there (`missing`) or must not be run (`denied`). Later on that is an end like others, with `failure`. */
  start(): void {
    const [name = '', ...args] = this.#options.argv()
    this.#spawn(programPath(name, this.#options), args)
    this.starts++
  }

  /** What the program writes waits in the pipe, and then the program does. */
  pause(): void {
    this.#isPaused = true
    this.#child?.stdout?.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#child?.stdout?.resume()
  }

  /** SIGTERM, after 2 s SIGKILL, and no restart. Resolves when it has ended and its output was given, so not before a `resume`; at once where nothing runs. */
  stop(): Promise<void> {
    clearTimeout(this.#timer)
    const child = this.#child
    this.#isStopping = true
    if (child === null) return Promise.resolve()
    child.kill('SIGTERM')
    const timer = setTimeout(() => killGroup(child), KILL_AFTER_MS)
    return new Promise((resolve) => {
      const before = this.#ended
      this.#ended = () => {
        clearTimeout(timer)
        before()
        resolve()
      }
    })
  }

  /** SIGKILL for the run at hand, which is then an end like others. */
  giveUp(): void {
    if (this.#child !== null) killGroup(this.#child)
  }

  /** SIGKILL for the whole group, and nothing of it is given any more. */
  kill(): void {
    clearTimeout(this.#timer)
    this.#isStopping = true
    this.#isKilled = true
    const child = this.#child
    this.#child = null
    if (child !== null) {
      killGroup(child)
      child.stdout?.destroy()
      child.stderr?.destroy()
    }
    this.#ended()
  }

  #spawn(path: string, args: readonly string[]): void {
    const startedAt = performance.now()
    const child = spawn(SHELL, ['-c', LAUNCH, GUARD, path, ...args], { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: this.#options.env as NodeJS.ProcessEnv })
    let failure = ''
    let lastWords = ''
    const end = (status: number | null, signal: string | null): void => {
      if (this.#child !== child) return
      this.#child = null
      if (performance.now() - startedAt >= SETTLED_MS) this.#restarts = 0
      this.#end({ status: failure === '' ? (status ?? -1) : -1, signal: signal ?? '', failure, lastWords, isStopped: this.#isStopping })
    }
    this.#child = child
    child.on('error', (error) => {
      failure = error.message
      // too many open files or processes: there is neither a process nor its pipes
      if (child.pid === undefined) end(null, null)
    })
    if (child.pid === undefined) return
    child.stdin.on('error', () => {})
    child.stdout.on('error', () => {})
    child.stderr.on('error', () => {})
    child.stdout.on('data', (bytes: Buffer<ArrayBuffer>) => this.#options.onBytes(bytes))
    if (this.#isPaused) child.stdout.pause()
    const { onMute } = this.#options
    if (onMute !== undefined) {
      child.stdout.on('end', () => {
        const timer = setTimeout(() => {
          if (this.#child !== child || this.#isStopping) return
          onMute.call(this.#options)
          killGroup(child)
        }, MUTE_MS)
        child.on('close', () => clearTimeout(timer))
      })
    }
    const lines = stderrLines(child.stderr, (line) => {
      if (this.#isKilled) return
      lastWords = line
      this.#options.onStderr(line)
    })
    child.on('close', (status, signal) => void lines.then(() => end(status, signal)))
    this.#options.onStart?.(child.pid)
  }

  #end(end: ChildEnd): void {
    const again = this.#options.onEnd(end)
    if (this.#isStopping) this.#ended()
    else if (again) this.#timer = setTimeout(() => this.#startAgain(), backOffMs(this.#restarts++, (this.#options.random ?? Math.random)()))
  }

  #startAgain(): void {
    try {
      this.start()
    } catch (error) {
      this.#end({ status: -1, signal: '', failure: messageOf(error), lastWords: '', isStopped: false })
    }
  }
}

/** Closes the pipe at which the guard waits; should somebody have killed the guard, the program itself at least. */
function killGroup(child: ChildProcess): void {
  child.stdin?.destroy()
  child.kill('SIGKILL')
}

/** Lines of stderr; resolves behind the last. An LF is put into lines that are too long, so that nothing of them is lost and none grows for ever. */
function stderrLines(stderr: NodeJS.ReadableStream, onLine: (line: string) => void): Promise<void> {
  const splitter = split2('\n')
  let length = 0
  stderr.on('data', (bytes: Buffer) => {
    splitter.write(bytes)
    const lf = bytes.lastIndexOf(LF)
    length = lf < 0 ? length + bytes.length : bytes.length - lf - 1
    if (length > STDERR_LINE_BYTES_MAX) {
      splitter.write('\n')
      length = 0
    }
  })
  stderr.on('close', () => splitter.end())
  splitter.on('data', (line: string) => {
    for (let at = 0; at < line.length; at += STDERR_LINE_BYTES_MAX) onLine(line.slice(at, at + STDERR_LINE_BYTES_MAX))
  })
  return new Promise((resolve) => splitter.on('end', resolve))
}

export interface ChildInputFacts extends Pick<Input, 'name' | 'isLive' | 'ridPrefix' | 'ridBy'> {
  boot(): BootTime | null
  position(offset: number): unknown
  /** before the child is told to end */
  onStop?(): void
}

/**
 * An input whose child can wait: while more is here than one chunk holds, the child is paused. Whoever makes it says what becomes of the child's stdout and
 * stderr, and passes on what the loop is to see with `bytes`, `notice` and `end`.
 */
export class ChildInput implements Input {
  readonly name: string
  readonly isDump = false
  readonly isLive: boolean
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy: Input['ridBy']
  readonly offset = 0
  chunk: Uint8Array = new Uint8Array(0)
  notices: readonly Notice[] = []
  /** further bytes are here already */
  isBusy = false
  onIdle = (): void => {}
  readonly #facts: ChildInputFacts
  readonly #child: Child
  /** notices, and the bytes behind them */
  readonly #pieces: { readonly notices: Notice[]; bytes: Uint8Array | null }[] = []
  #waitingBytes = 0
  #ended = false
  #failure: Error | null = null
  #isStopping = false
  #timer: NodeJS.Timeout | undefined
  #deliver: ((n: number) => void) | null = null
  #refuse: (error: Error) => void = () => {}

  /** Starts the child. Throws InputError, as `Child.start` does. */
  constructor(facts: ChildInputFacts, options: (input: ChildInput) => ChildOptions) {
    this.name = facts.name
    this.isLive = facts.isLive
    this.ridPrefix = facts.ridPrefix
    this.ridBy = facts.ridBy
    this.#facts = facts
    this.#child = new Child(options(this))
    this.#child.start()
  }

  next(): Promise<number> {
    return new Promise((resolve, refuse) => {
      this.#deliver = resolve
      this.#refuse = refuse
      // the event loop has its turn, and the child with it
      setImmediate(() => this.#give())
    })
  }

  get restarts(): number {
    return this.#child.starts - 1
  }

  receivedMicroseconds(): number {
    return nowMicroseconds()
  }

  boot(): BootTime | null {
    return this.#facts.boot()
  }

  position(offset: number): unknown {
    return this.#facts.position(offset)
  }

  /** The child is told to end, and what it has written by then is read. */
  stop(): void {
    if (this.#isStopping) return
    this.#isStopping = true
    this.#facts.onStop?.()
    this.#timer = setTimeout(() => {
      this.#child.kill()
      this.end()
    }, STOP_MS)
    void this.#child.stop().then(() => this.end())
  }

  abort(): void {
    this.close()
    this.#pieces.length = 0
    this.#failure = null
    this.#ended = true
    this.#give()
  }

  close(): void {
    this.#isStopping = true
    clearTimeout(this.#timer)
    this.#child.kill()
  }

  /** Further bytes of the input, of any number. */
  bytes(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.#ended; at += CHUNK_BYTES_MAX) {
      const piece = bytes.subarray(at, at + CHUNK_BYTES_MAX)
      const last = this.#pieces.at(-1)
      if (last !== undefined && last.bytes === null) last.bytes = piece
      else this.#pieces.push({ notices: [], bytes: piece })
      this.#waitingBytes += piece.length
    }
    if (this.#waitingBytes >= CHUNK_BYTES_MAX) this.#child.pause()
    this.#give()
  }

  /** Comes before the bytes that follow. */
  notice(notice: Notice): void {
    if (this.#ended) return
    const last = this.#pieces.at(-1)
    if (last !== undefined && last.bytes === null) last.notices.push(notice)
    else this.#pieces.push({ notices: [notice], bytes: null })
    this.#give()
  }

  /** Nothing more will come, and why where it failed for good. What is here is given before. */
  end(failure: Error | null = null): void {
    if (this.#ended) return
    this.#ended = true
    this.#failure = failure
    this.#give()
  }

  #give(): void {
    if (this.#deliver === null) return
    const piece = this.#pieces.shift()
    if (piece !== undefined) {
      const { notices, bytes } = piece
      this.notices = notices
      if (bytes !== null) this.chunk = bytes
      this.#waitingBytes -= bytes?.length ?? 0
      this.isBusy = this.#waitingBytes > 0
      if (!this.isBusy) this.#child.resume()
      this.#settle(bytes?.length ?? NOTICES_ONLY)
    } else if (this.#failure !== null) {
      this.#deliver = null
      this.#refuse(this.#failure)
      this.#failure = null
    } else if (this.#ended) {
      this.notices = []
      this.#settle(0)
    } else if (this.isBusy) {
      this.isBusy = false
      this.onIdle()
    }
  }

  #settle(n: number): void {
    const deliver = this.#deliver
    this.#deliver = null
    deliver?.(n)
  }
}

/** Where the program is. */
function programPath(name: string, { env, comesFrom }: ChildOptions): string {
  const candidates = name.includes('/') ? [name] : `${env['PATH'] ?? ''}:${SYSTEM_PATH}`.split(':').filter((directory) => directory !== '').map((directory) => `${directory}/${name}`)
  let denied = ''
  for (const path of candidates) {
    try {
      if (!statSync(path).isFile()) continue
      accessSync(path, constants.X_OK)
      return path
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') denied ||= path
    }
  }
  if (denied !== '') throw new InputError('denied', `${denied} may not be run: it must be executable for this user (chmod +x), and on a file system that is not mounted noexec`)
  throw new InputError('missing', `the program ${name} is not there: it comes from ${comesFrom}`)
}

/** Passes texts on, the same one not again within 10 s; then with how often it came meanwhile. */
export function saidOnce(say: (text: string) => void): (text: string) => void {
  const said = new Map<string, { at: number; silent: number }>()
  return (text) => {
    const now = performance.now()
    const before = said.get(text)
    if (before !== undefined && now - before.at < SAY_AGAIN_MS) {
      before.silent++
      return
    }
    said.delete(text)
    if (said.size >= SAID_MAX) said.delete(said.keys().next().value!)
    said.set(text, { at: now, silent: 0 })
    say(before === undefined || before.silent === 0 ? text : `${text} (and ${before.silent} times more before)`)
  }
}
