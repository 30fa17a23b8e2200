/**
 * When the kernel was started whose log a saved file holds. Another file of the run, or the same, may tell it by a line that both carry; else the last line that
 * shows the kernel's clock is taken to be as old as the file.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { TIME_BOOT, TIME_ESTIMATED } from '../event.js'
import { lastMonotonic } from '../formats/kernel-log/last-monotonic.js'
import { BootTie, type KernelLine, kernelLines } from '../formats/kernel-log/tie.js'
import type { BootTime, KernelBoots, LocalClock } from '../stage.js'

/**
 * Of a file's end so much is looked at: for the last line; of the log that is to be tied (four times the largest ring that distributions set); and of each that may
 * tie it. Two microseconds a line.
 */
const TAIL_BYTES = 1 << 16
const OWN_BYTES = 1 << 22
const LOG_BYTES = 1 << 25
const GZIP_MAGIC = 0x8b1f
/** In place of a path: standard input, where it is a regular file. */
export const STANDARD_INPUT = ''

interface LogFile {
  readonly path: string
  /** microseconds since the epoch */
  readonly modified: number
}

/** The regular files of a run, each of which may say when another's kernel was started. */
export class Boots implements KernelBoots {
  readonly #localClock: LocalClock
  readonly #paths = new Set<string>()
  /** by path: what was found, and among how many files */
  readonly #known = new Map<string, { readonly boot: BootTime | null; readonly among: number }>()

  /** by path: what the end of the file says, when it was last written to at that time; each line asks */
  readonly #guesses = new Map<string, { readonly modified: number; readonly boot: BootTime | null }>()

  constructor(localClock: LocalClock) {
    this.#localClock = localClock
  }

  add(path: string): void {
    this.#paths.add(path)
  }

  /** Null where the end of the file shows no kernel's clock, or cannot be read. */
  of(file: LogFile): BootTime | null {
    const known = this.#known.get(file.path)
    const isLooked = known !== undefined && (known.boot !== null || known.among === this.#paths.size)
    const tied = isLooked ? known.boot : this.#tied(file.path)
    if (!isLooked) this.#known.set(file.path, { boot: tied, among: this.#paths.size })
    if (tied !== null) return tied
    const guess = this.#guesses.get(file.path)
    if (guess?.modified === file.modified) return guess.boot
    const boot = readOf(file.path, TAIL_BYTES, ({ bytes }) => guessed(bytes, file.modified))
    this.#guesses.set(file.path, { modified: file.modified, boot })
    return boot
  }

  #tied(path: string): BootTime | null {
    const own = [...this.#linesOf(path, OWN_BYTES)]
    const tie = new BootTie(own)
    tie.compare(own)
    for (const other of this.#paths) if (other !== path) tie.compare(this.#linesOf(other, LOG_BYTES))
    return tie.boot === null ? null : { microseconds: tie.boot, source: TIME_BOOT }
  }

  #linesOf(path: string, most: number): Iterable<KernelLine> {
    const read = readOf(path, most, (found) => found)
    return read === null ? [] : kernelLines(linesOf(read.bytes), { localClock: this.#localClock, receivedSec: read.modifiedSec })
  }
}

function guessed(tail: Uint8Array, modified: number): BootTime | null {
  const last = lastMonotonic(tail.subarray(-TAIL_BYTES))
  return last < 0 ? null : { microseconds: modified - last, source: TIME_ESTIMATED }
}

/** The end of a file, the whole of one that gzip has packed; null where it cannot be read, or is none. */
function readOf<T>(path: string, most: number, use: (read: { readonly bytes: Buffer; readonly modifiedSec: number }) => T): T | null {
  try {
    const fd = path === STANDARD_INPUT ? 0 : openSync(path, 'r')
    try {
      const stat = fstatSync(fd)
      if (!stat.isFile()) return null
      const head = Buffer.alloc(2)
      const isPacked = readSync(fd, head, 0, 2, 0) === 2 && head.readUInt16LE(0) === GZIP_MAGIC
      const bytes = Buffer.alloc(Math.min(isPacked ? LOG_BYTES : most, stat.size))
      const read = bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, stat.size - bytes.length))
      return use({ bytes: isPacked ? unpacked(read) : read, modifiedSec: Math.floor(stat.mtimeMs / 1000) })
    } finally {
      if (fd !== 0) closeSync(fd)
    }
  } catch {
    return null
  }
}

function unpacked(bytes: Buffer): Buffer {
  try {
    return gunzipSync(bytes, { maxOutputLength: LOG_BYTES })
  } catch {
    return Buffer.alloc(0)
  }
}

function* linesOf(bytes: Buffer): Generator<string> {
  for (let from = 0; from < bytes.length; ) {
    const lf = bytes.indexOf(10, from)
    const to = lf < 0 ? bytes.length : lf
    yield bytes.toString('utf8', from, to).trimEnd()
    from = to + 1
  }
}
