/**
 * Standard input, whatever it is. A regular file is read in large pieces. A pipe or socket is read in two ways: while it is quiet the event loop says when
 * there is something, which costs least; while reads come back full it is read at once when the last piece is done, for the writer has filled it again meanwhile.
 *
 * A pipe is opened anew through /proc, so that making it non-blocking concerns nobody else who has it open, and no thread ever hangs in a read.
 */
import { constants, fstatSync, openSync, readSync, type Stats } from 'node:fs'
import { Socket } from 'node:net'
import { ReadStream } from 'node:tty'
import { CHUNK_BYTES_MAX, TIME_BOOT } from '../event.js'
import { type BootTime, type Feed, type Input, InputError, type KernelBoots, messageOf } from '../stage.js'
import { nowMicroseconds } from '../clock.js'
import { STANDARD_INPUT } from './boot.js'
import { DecompressedInput } from './decompressed.js'
import { positionOf } from './descriptor.js'

const FILE_CHUNK_BYTES = CHUNK_BYTES_MAX
/** What a pipe holds by default; a read that brings less than a quarter of it means that the writer is not ahead of us. */
const PIPE_CHUNK_BYTES = 1 << 16
const BUSY_BYTES = PIPE_CHUNK_BYTES / 4
/** Lines that come one by one faster than this are taken together: at 10,000 events a second this halves the CPU time and costs two milliseconds. */
const GATHER_MS = 2
/** After a stop a pipe is read on for so long, and for so much, at most. */
const STOP_MS = 1000
const STOP_BYTES = 1 << 20

export interface StdinOptions {
  readonly isTerminal: boolean
  /** what record ids begin with where there are no offsets */
  readonly random: string
  readonly hash: (text: string) => string
  /** CLOCK_MONOTONIC in microseconds */
  readonly monotonic: () => number
  readonly boots: KernelBoots
}

/** Standard input as the one input of its feed. */
export function stdinFeed(options: StdinOptions): Feed {
  let input: Input | null = null
  return {
    name: '-',
    open: async (add) => {
      try {
        input = new DecompressedInput(openStdin(options))
      } catch (error) {
        throw new InputError('broken', `standard input cannot be read: ${messageOf(error)}`)
      }
      add(input)
    },
    // the input is asked itself
    stop: () => {},
    abort: () => {},
  }
}

/** What standard input is, by fstat. */
function openStdin(options: StdinOptions): Input {
  const stat = fstatSync(0)
  if (stat.isFile()) return new FileInput(stat, options)
  if (options.isTerminal) return new StreamInput(new ReadStream(0), options)
  return stat.isFIFO() || stat.isSocket() ? new PipeInput(stat, options) : new FileInput(stat, options)
}

/** `< file`, and devices such as /dev/null. */
class FileInput implements Input {
  readonly name = '-'
  readonly notices = []
  readonly isDump = false
  readonly isBusy = true
  readonly isLive = false
  readonly netns = 0
  readonly netnsName = ''
  readonly ridBy = 'offset'
  readonly ridPrefix: string
  readonly offset = positionOf(0)
  onIdle = (): void => {}
  readonly #buffer = new Uint8Array(FILE_CHUNK_BYTES)
  #chunk = this.#buffer.subarray(0, 0)
  readonly #modified: number
  readonly #boots: KernelBoots
  #stopped = false

  constructor(stat: Stats, { hash, boots }: StdinOptions) {
    this.#modified = stat.mtimeMs * 1000
    this.#boots = boots
    if (stat.isFile()) boots.add(STANDARD_INPUT)
    this.ridPrefix = `${hash(`${stat.dev} ${stat.ino} ${stat.birthtimeMs}`)}.0`
  }

  boot(): BootTime | null {
    return this.#boots.of({ path: STANDARD_INPUT, modified: this.#modified })
  }

  position(): null {
    return null
  }

  get chunk(): Uint8Array {
    return this.#chunk
  }

  /** Synchronous reads: handing a read to the thread pool and waking for it costs more than the copy. The event loop has its turn between them. */
  next(): Promise<number> {
    return new Promise((resolve, fail) => {
      setImmediate(() => {
        if (this.#stopped) return resolve(0)
        try {
          const n = readSync(0, this.#buffer, 0, this.#buffer.length, null)
          this.#chunk = this.#buffer.subarray(0, n)
          resolve(n)
        } catch (error) {
          fail(error)
        }
      })
    })
  }

  receivedMicroseconds(): number {
    return this.#modified
  }

  stop(): void {
    this.#stopped = true
  }

  abort(): void {
    this.#stopped = true
  }

  close(): void {}
}

/** What pipes and terminals have in common: lines without a time are as old as the read, and a stop waits for the end of the stream for a moment. */
abstract class LiveInput implements Input {
  readonly name = '-'
  readonly notices = []
  readonly isDump = false
  readonly isLive = false
  readonly netns = 0
  readonly netnsName = ''
  readonly ridBy = 'counter'
  readonly offset = 0
  readonly ridPrefix: string
  onIdle = (): void => {}
  protected current = new Uint8Array(0)
  protected stopped = false
  protected deliver: ((n: number) => void) | null = null
  #left = STOP_BYTES
  #ended = false
  readonly #monotonic: () => number

  constructor({ random, monotonic }: StdinOptions) {
    this.ridPrefix = random
    this.#monotonic = monotonic
  }

  /** A pipe is taken to bring the log of the kernel that runs now. */
  boot(): BootTime {
    return { microseconds: this.receivedMicroseconds() - this.#monotonic(), source: TIME_BOOT }
  }

  position(): null {
    return null
  }

  abstract readonly isBusy: boolean
  abstract close(): void
  protected abstract wait(): void

  get chunk(): Uint8Array {
    return this.current
  }

  next(): Promise<number> {
    if (this.#ended || (this.stopped && this.#left <= 0)) return Promise.resolve(0)
    return new Promise((resolve, fail) => {
      this.deliver = resolve
      this.fail = fail
      this.wait()
    })
  }

  receivedMicroseconds(): number {
    return nowMicroseconds()
  }

  stop(): void {
    if (this.stopped) return
    this.stopped = true
    setTimeout(() => this.abort(), STOP_MS)
  }

  protected fail: (error: Error) => void = () => {}

  protected give(bytes: Uint8Array<ArrayBuffer>): void {
    this.current = bytes
    if (this.stopped) this.#left -= bytes.length
    const deliver = this.deliver
    this.deliver = null
    deliver?.(bytes.length)
  }

  abort(): void {
    this.#ended = true
    const deliver = this.deliver
    this.deliver = null
    deliver?.(0)
  }
}

class PipeInput extends LiveInput {
  readonly #fd: number
  readonly #buffer = new Uint8Array(PIPE_CHUNK_BYTES)
  readonly #quietBuffer = new Uint8Array(PIPE_CHUNK_BYTES)
  readonly #socket: Socket
  #busy = true
  /** A read has found nothing, so there is a writer. Until then it is read at once: of a named pipe whose writer has ended, the event loop would never hear. */
  #hasWriter = false
  #lastRead = 0

  constructor(stat: Stats, options: StdinOptions) {
    super(options)
    this.#fd = stat.isFIFO() ? reopened() : 0
    this.#socket = new Socket({
      fd: this.#fd,
      readable: true,
      writable: false,
      // not in the types of Socket's own options, but read by its constructor
      onread: { buffer: this.#quietBuffer, callback: (n: number) => this.#onQuietRead(n) },
    } as ConstructorParameters<typeof Socket>[0])
    this.#socket.pause()
    this.#socket.on('end', () => this.abort())
    this.#socket.on('error', (error) => (this.deliver === null ? this.abort() : this.fail(error)))
  }

  get isBusy(): boolean {
    return this.#busy
  }

  close(): void {
    this.#socket.destroy()
  }

  protected wait(): void {
    if (this.#busy) {
      this.#readNow()
      return
    }
    const now = performance.now()
    const early = now - this.#lastRead < GATHER_MS && !this.stopped
    this.#lastRead = now
    if (early) setTimeout(() => this.#socket.resume(), GATHER_MS)
    else this.#socket.resume()
  }

  /** Called by the event loop with what there is. False: no more until asked. */
  #onQuietRead(n: number): boolean {
    this.#busy = n >= BUSY_BYTES
    this.give(this.#quietBuffer.subarray(0, n))
    return false
  }

  #readNow(): void {
    setImmediate(() => {
      try {
        const n = readSync(this.#fd, this.#buffer, 0, this.#buffer.length, null)
        if (n === 0) return this.abort()
        this.#busy = n >= BUSY_BYTES || !this.#hasWriter
        this.give(this.#buffer.subarray(0, n))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return this.fail(error as Error)
        this.#busy = false
        this.#hasWriter = true
        this.onIdle()
        this.#socket.resume()
      }
    })
  }
}

/** A terminal, on which someone types or pastes. */
class StreamInput extends LiveInput {
  readonly isBusy = false
  readonly #stream: ReadStream

  constructor(stream: ReadStream, options: StdinOptions) {
    super(options)
    this.#stream = stream
    stream.pause()
    stream.on('data', (bytes: Buffer) => {
      stream.pause()
      this.give(new Uint8Array(bytes.subarray(0, CHUNK_BYTES_MAX)))
    })
    stream.on('end', () => this.abort())
    stream.on('error', (error) => this.fail(error))
  }

  close(): void {
    this.#stream.destroy()
  }

  protected wait(): void {
    this.#stream.resume()
  }
}

/** Standard input with flags of its own; itself where /proc or permission is missing. */
function reopened(): number {
  try {
    return openSync('/proc/self/fd/0', constants.O_RDONLY | constants.O_NONBLOCK)
  } catch {
    return 0
  }
}
