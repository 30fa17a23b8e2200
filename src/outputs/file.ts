/**
 * `file:PATH`: appended to, whole lines only, made with mode 0640. When the disk refuses in the middle of a page the file is cut back to its last whole line, and
 * the page is tried again until it fits: nothing is lost, and nothing more is read meanwhile. Full or old files are put aside under the time of that, compressed,
 * and in the end removed. What another program moves away or removes without a signal is noticed, and made anew.
 */
import { close, closeSync, createWriteStream, fdatasync, fstatSync, ftruncateSync, openSync, read, readdirSync, readSync, renameSync, rmSync, statSync, write, writeSync } from 'node:fs'
import { open, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import { hostClock, nowMicroseconds } from '../clock.js'
import type { Output } from '../stage.js'

const LF = 10
const BLOCK_BYTES = 1 << 16
const COMPRESS_BLOCK_BYTES = 1 << 18
const MODE = 0o640
/** A disk that is full is asked again so soon, and at last so seldom. */
const RETRY_MS = 100
const RETRY_MS_MAX = 5000
const SYNC_EVERY_MS = 1000
/** So many looks in a row find nothing at the path of a file that was moved away: by then whoever moved it would have made another, or signalled. */
const ABSENT_LOOKS = 2
/** Of a file that was removed so much may wait in memory for a disk that is full. */
const OWED_BYTES_MAX = 1 << 24
const NOTHING = new Uint8Array(0)
/** What is too old goes, though nothing is written. */
const HOUSEKEEPING_MS = 60_000
/** What an administrator can mend while we wait; other errors are for good. */
const PASSING = new Set(['ENOSPC', 'EDQUOT', 'EIO', 'EAGAIN', 'ENOMEM'])

export interface FileOptions {
  /** how it is named in the sums: as on the command line, or in the configuration */
  readonly name: string
  readonly path: string
  readonly rotate: Rotation | null
  /** when what is written is made safe from a crash of the machine: with every page, once a second, or when the kernel pleases */
  readonly fsync: 'always' | 'interval' | 'never'
  readonly report: (message: string) => void
}

/** null: no limit. */
export interface Rotation {
  /** bytes at which, and milliseconds (by the clock, of UTC) after which a file is put aside */
  readonly size: number | null
  readonly every: number | null
  /** how many files are kept, for how many milliseconds, and how many bytes they may have together with the current one */
  readonly keep: number | null
  readonly maxAge: number | null
  readonly maxTotal: number | null
  readonly compress: 'none' | 'gzip' | 'zstd'
}

const endings = { none: '', gzip: '.gz', zstd: '.zst' } as const

/** Can this Node compress so? zstd came with 22.15. */
export function canCompress(kind: Rotation['compress']): boolean {
  return kind !== 'zstd' || 'createZstdCompress' in zlib
}

/** Throws what opening met. */
export function openFile(options: FileOptions): Output {
  return new FileOutput(options)
}

/** A file that is written to, or was. */
interface Opened {
  readonly fd: number
  readonly dev: bigint
  readonly ino: bigint
  size: number
  /** so many bytes were at its path at the last look */
  seen: number
  /** so many bytes stay: behind them may be half a line, which may be taken back */
  settled: number
  /** so many bytes are safe from a crash of the machine */
  safe: number
  /** making it safe has failed, after which the kernel counts as written what is not: it must be written again */
  isDoubtful: boolean
}

class FileOutput implements Output {
  readonly name: string
  readonly #options: FileOptions
  #file: Opened
  /** put aside or moved away, and not known to be safe yet */
  #left: Opened[] = []
  /** a device or a pipe has no end to mend, and is not put aside */
  readonly #isFile: boolean
  /** number of the period of `every` that the file is of */
  #period: number
  attempts = 0
  #isReopenDue = false
  #isWriting = false
  /** a page is being written */
  #isMidPage = false
  #onPageEnd: () => void = nothing
  #closing: Promise<void> | null = null
  /** looks in a row that have found nothing at the path */
  #absent = 0
  /** it was removed: nothing that is written to it now counts as safe */
  #isAstray = false
  #cannotGoOn = false
  /** whole lines of a file that was removed, which come first when the disk takes them */
  #owed = NOTHING
  /** what is compressed goes through it; kept, for a new one with each file would be freed late */
  #block: Uint8Array | null = null
  /** so long was waited before the last try of what the disk refuses; 0 it refuses nothing */
  #retryMs = 0
  /** what has failed last time and was told */
  #isUnsafe = false
  #cannotRotate = false
  #syncing: Promise<void> = Promise.resolve()
  #housekeeping: Promise<void> = Promise.resolve()
  readonly #timers: NodeJS.Timeout[] = []

  constructor(options: FileOptions) {
    this.#options = options
    this.name = options.name
    const { rotate, path } = options
    this.#file = openAtEnd(path)
    const found = fstatSync(this.#file.fd)
    this.#isFile = found.isFile()
    this.#period = this.#periodOf(found.size > 0 ? found.mtimeMs : nowMicroseconds() / 1000)
    if (!this.#isFile) return
    this.#timers.push(setInterval(() => void this.sync().catch(() => {}), SYNC_EVERY_MS).unref())
    if (rotate === null) return
    if (rotate.maxAge !== null) this.#timers.push(setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS).unref())
    this.#keepHouse()
  }

  /** One asynchronous function for the usual case, in which all is taken at once: it is done for every page. */
  async write(bytes: Uint8Array): Promise<boolean> {
    if (this.#isClosing) throw new Error(`${this.#options.path} is closed`)
    this.#isWriting = true
    try {
      this.#rotateIfDue(bytes.length)
      this.#isMidPage = true
      for (let from = 0; from < bytes.length; ) {
        // between two lines it may go on in another file
        if (from === 0 || bytes[from - 1] === LF) {
          this.#reopenIfDue()
          if (this.#owed.length > 0) {
            bytes = Buffer.concat([this.#owed, bytes.subarray(from)])
            from = 0
            this.#owed = NOTHING
          }
        }
        try {
          const written = await writeSome(this.#file.fd, bytes, from)
          from += written
          this.#file.size += written
          if (bytes[from - 1] === LF) this.#file.settled = this.#file.size
        } catch (error) {
          from = await this.#refused(error as NodeJS.ErrnoException, bytes, from)
        }
      }
      if (this.#retryMs > 0) this.#options.report(`output ${this.name}: writes again`)
      this.#retryMs = 0
      this.#file.settled = this.#file.size
      this.#pageEnds()
      if (this.#isAstray) this.#look(true)
      if (this.#options.fsync === 'always') await this.#untilSafe()
      return true
    } finally {
      this.#isWriting = false
      this.#pageEnds()
      this.#reopenIfDue()
    }
  }

  #pageEnds(): void {
    this.#isMidPage = false
    this.#onPageEnd()
  }

  /** Waits for what can be mended, and gives where to go on. */
  async #refused(error: NodeJS.ErrnoException, bytes: Uint8Array, from: number): Promise<number> {
    const { code = '', message } = error
    const whole = this.#isFile ? this.#dropTail(bytes, from) : from
    if (!this.#isFile || !PASSING.has(code) || this.#isClosing) throw error
    if (this.#retryMs === 0) this.#options.report(`output ${this.name}: ${message}; nothing is lost: it is tried again until it fits`)
    this.#retryMs = this.#retryMs === 0 ? RETRY_MS : Math.min(RETRY_MS_MAX, this.#retryMs * 2)
    // it may have been removed to make room
    this.#look(true)
    await new Promise((resolve) => setTimeout(resolve, this.#retryMs))
    this.attempts++
    return whole
  }

  /**
   * With `fsync: never` safe means handed to the kernel. Calls take turns: each resolves when all that was written before it is safe, and stands in a file that has
   * a name.
   */
  sync(): Promise<void> {
    if (!this.#isFile) return Promise.resolve()
    return this.#closing === null ? this.#inTurn(() => this.#sync()) : this.#closing.then(() => this.#checkSafe())
  }

  /** One after the other: what closes descriptors is never among those that use them. */
  #inTurn(what: () => Promise<void>): Promise<void> {
    const turn = this.#syncing.then(what)
    this.#syncing = turn.catch(() => {})
    return turn
  }

  async #sync(): Promise<void> {
    this.#look(!this.#isMidPage)
    if (this.#options.fsync === 'never') return this.#checkName()
    try {
      for (const old of [...this.#left]) {
        await makeSafe(old)
        // its number may be another's as soon as it is closed, and so nobody's here before
        this.#left = this.#left.filter((one) => one !== old)
        await promisify(close)(old.fd)
      }
      // never closed before its turn in `left` has come
      await makeSafe(this.#file)
    } catch (error) {
      if (!this.#isUnsafe) this.#options.report(`output ${this.name}: ${(error as Error).message}; what was written since it was last safe is written again until it is`)
      this.#isUnsafe = true
      throw error
    }
    if (this.#isUnsafe) this.#options.report(`output ${this.name}: is safe again`)
    this.#isUnsafe = false
    this.#checkName()
  }

  #checkSafe(): void {
    if (this.#isUnsafe) throw new Error(`${this.#options.path} could not be made safe`)
    this.#checkName()
  }

  #checkName(): void {
    if (this.#isAstray || this.#owed.length > 0) throw new Error(`${this.#options.path} was removed`)
  }

  async #untilSafe(): Promise<void> {
    for (let wait = RETRY_MS; ; wait = Math.min(RETRY_MS_MAX, wait * 2)) {
      try {
        return await this.sync()
      } catch (error) {
        if (this.#isClosing) throw error
        await new Promise((resolve) => setTimeout(resolve, wait))
        this.attempts++
      }
    }
  }

  /** Is the file still where others look for it? If not it goes on in another, when it ends with a whole line. */
  #look(endsWhole: boolean): void {
    const file = this.#file
    try {
      const there = statSync(this.#options.path, { bigint: true, throwIfNoEntry: false })
      if (there?.ino === file.ino && there.dev === file.dev) {
        this.#isThere(Number(there.size))
        return
      }
      this.#isAstray = fstatSync(file.fd).nlink === 0
      if (!endsWhole || (there === undefined && !this.#isAstray && ++this.#absent < ABSENT_LOOKS)) return
      if (there?.isFile() === false) throw new Error(`${this.#options.path} is no regular file any more`)
      const what = this.#isAstray ? 'removed' : 'moved away without a signal'
      this.#goOnAnew()
      this.#options.report(`output ${this.name}: ${this.#options.path} was ${what}; it goes on in a new file, and nothing is lost`)
    } catch (error) {
      this.#cannotOpen(error as Error)
    }
  }

  #isThere(size: number): void {
    const file = this.#file
    this.#absent = 0
    this.#isAstray = false
    file.seen = file.settled
    if (this.#isMidPage) return
    this.#pay()
    // another program may have cut it (copytruncate): then it is appended to
    if (size >= file.size) return
    const { settled, safe } = file
    Object.assign(file, { size, seen: size, settled: Math.min(settled, size), safe: Math.min(safe, size) })
  }

  /** In what is at the path now, or in a new file. What was written since the old one was last seen goes there too, if that was removed. */
  #goOnAnew(): void {
    const old = this.#file
    const next = openAtEnd(this.#options.path)
    try {
      if (fstatSync(old.fd).nlink === 0) this.#rescue(old, next)
    } catch (error) {
      closeSync(next.fd)
      throw error
    }
    this.#absent = 0
    this.#isAstray = false
    this.#cannotGoOn = false
    this.#goOnIn(next)
  }

  /** A disk that is full is so with what was removed, until that is closed: then it waits in memory. */
  #rescue(old: Opened, next: Opened): void {
    try {
      rescue(old, next)
    } catch (error) {
      if (!PASSING.has((error as NodeJS.ErrnoException).code ?? '') || old.size - old.seen > OWED_BYTES_MAX) throw error
      this.#owed = Buffer.concat([...piecesOf(old)])
    }
  }

  #pay(): void {
    const { fd, size } = this.#file
    try {
      for (let from = 0; from < this.#owed.length; ) from += writeSync(fd, this.#owed, from)
      this.#file.size += this.#owed.length
      this.#file.settled = this.#file.size
      this.#owed = NOTHING
    } catch {
      // it is tried again with each look, and before the next page
      ftruncateSync(fd, size)
    }
  }

  #cannotOpen(error: Error): void {
    if (!this.#cannotGoOn) this.#options.report(`output ${this.name} cannot be opened anew: ${error.message}; it goes on in the file that it has${this.#isAstray ? ', which was removed' : ''}`)
    this.#cannotGoOn = true
  }

  /** Another program has moved the file away. A line that is being written goes on where it began. */
  reopen(): void {
    if (!this.#isFile) return
    this.#isReopenDue = true
    if (!this.#isWriting) this.#reopenIfDue()
  }

  #reopenIfDue(): void {
    if (!this.#isReopenDue || this.#isClosing) return
    this.#isReopenDue = false
    // asked for by name, it is told each time
    this.#cannotGoOn = false
    try {
      this.#goOnAnew()
    } catch (error) {
      this.#cannotOpen(error as Error)
    }
  }

  #goOnIn(file: Opened): void {
    this.#file.settled = this.#file.size
    this.#left.push(this.#file)
    this.#file = file
    if (this.#options.fsync !== 'never') return void this.sync().catch(() => {})
    for (const { fd } of this.#left.splice(0)) closeSync(fd)
  }

  /** The last turn: from the moment it is asked for, nothing is opened anew, and what goes on with the descriptors comes to its end first. */
  close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
    this.#closing ??= this.#inTurn(async () => {
      if (this.#isMidPage) await new Promise<void>((resolve) => (this.#onPageEnd = resolve))
      if (this.#isFile) await this.#sync().catch(() => {})
      await this.#housekeeping
      for (const { fd } of [...this.#left.splice(0), this.#file]) closeSync(fd)
    })
    return this.#closing
  }

  get #isClosing(): boolean {
    return this.#closing !== null
  }

  #periodOf(milliseconds: number): number {
    const every = this.#options.rotate?.every ?? null
    return every === null ? 0 : Math.floor(milliseconds / every)
  }

  #rotateIfDue(bytes: number): void {
    const { rotate, path, report } = this.#options
    if (rotate === null || !this.#isFile) return
    const { size } = this.#file
    const period = this.#periodOf(nowMicroseconds() / 1000)
    const isDue = size > 0 && ((rotate.size !== null && size + bytes > rotate.size) || period > this.#period)
    if (!isDue) {
      this.#period = period
      return
    }
    try {
      this.#goOnIn(putAsideAndOpen(path))
      this.#cannotRotate = false
      this.#period = period
    } catch (error) {
      if (!this.#cannotRotate) report(`output ${this.name} cannot be put aside: ${(error as Error).message}; it goes on in the file that it has`)
      this.#cannotRotate = true
      return
    }
    this.#keepHouse()
  }

  /** What is put aside is compressed, and removed when there is too much of it; one after the other, beside the writing. */
  #keepHouse(): void {
    const { rotate, path, report } = this.#options
    this.#housekeeping = this.#housekeeping
      .then(async () => {
        // first, for compressing needs room
        await removeOld(path, rotate!, this.#file.size)
        if (rotate!.compress === 'none') return
        for (const file of await putAside(path)) {
          if (this.#isClosing || file.isCompressed) continue
          this.#block ??= new Uint8Array(COMPRESS_BLOCK_BYTES)
          await compress(file.path, rotate!.compress, this.#block)
        }
        await removeOld(path, rotate!, this.#file.size)
      })
      .catch((error: unknown) => report(`output ${this.name}: what is put aside cannot be kept in order: ${(error as Error).message}`))
  }

  /** `written` bytes of the page are in the file: takes back those behind the last LF, and gives how many stay. */
  #dropTail(bytes: Uint8Array, written: number): number {
    const whole = written === 0 ? 0 : bytes.lastIndexOf(LF, written - 1) + 1
    if (written > whole) {
      const file = this.#file
      // as it is: another program may have cut it
      file.size = Math.max(0, fstatSync(file.fd).size - (written - whole))
      ftruncateSync(file.fd, file.size)
      file.settled = file.size
    }
    return whole
  }
}

/** How many bytes were written. (`promisify` makes a function anew at each call, and there is one for every page.) */
function writeSome(fd: number, bytes: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, fail) => write(fd, bytes, from, bytes.length - from, null, (error, written) => (error === null ? resolve(written) : fail(error))))
}

/** What is there already counts as safe: an earlier run's is not ours to doubt. */
function openAtEnd(path: string): Opened {
  mendTail(path)
  const fd = openSync(path, 'a', MODE)
  const { dev, ino, size: bytes } = fstatSync(fd, { bigint: true })
  const size = Number(bytes)
  return { fd, dev, ino, size, seen: size, settled: size, safe: size, isDoubtful: false }
}

/** Whole lines: what was written to a file since it was last seen at its path goes into the one that takes its place. Throws what the disk said, and then nothing has. */
function rescue(old: Opened, next: Opened): void {
  let { size } = next
  try {
    for (const piece of piecesOf(old)) {
      for (let from = 0; from < piece.length; ) from += writeSync(next.fd, piece, from)
      size += piece.length
    }
  } catch (error) {
    ftruncateSync(next.fd, next.size)
    throw error
  }
  next.size = size
  next.settled = size
}

function* piecesOf({ fd, seen, size }: Opened): Generator<Uint8Array> {
  // a descriptor for appending cannot be read from
  const file = openSync(`/proc/self/fd/${fd}`, 'r')
  try {
    for (let at = seen, n = -1; n !== 0; at += n) {
      const block = new Uint8Array(Math.min(BLOCK_BYTES, size - at))
      n = readSync(file, block, 0, block.length, at)
      if (n > 0) yield block.subarray(0, n)
    }
  } finally {
    closeSync(file)
  }
}

/** Where another program has moved it away already there is only a new one to open. */
function putAsideAndOpen(path: string): Opened {
  const aside = asideName(path)
  let isAside = true
  try {
    renameSync(path, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    isAside = false
  }
  try {
    return openAtEnd(path)
  } catch (error) {
    if (isAside) renameSync(aside, path)
    throw error
  }
}

/** Throws what the disk said. */
async function makeSafe(file: Opened): Promise<void> {
  const { settled } = file
  if (file.safe === settled) return
  if (file.isDoubtful) await writeAnew(file, settled)
  try {
    await promisify(fdatasync)(file.fd)
  } catch (error) {
    file.isDoubtful = true
    throw error
  }
  file.safe = settled
  file.isDoubtful = false
}

/**
 * When fdatasync fails the kernel drops the error, and the pages count as clean though the disk has not got them: asking again would succeed and prove nothing.
 * They are still in memory, so they are read and written once more.
 */
async function writeAnew({ fd, safe }: Opened, to: number): Promise<void> {
  // a descriptor for appending can write nowhere else
  const file = await open(`/proc/self/fd/${fd}`, 'r+')
  try {
    const block = new Uint8Array(BLOCK_BYTES)
    for (let at = safe; at < to; ) {
      const { bytesRead } = await file.read(block, 0, Math.min(BLOCK_BYTES, to - at), at)
      if (bytesRead === 0) return
      await file.write(block, 0, bytesRead, at)
      at += bytesRead
    }
  } finally {
    await file.close()
  }
}

/** `records.ndjson.20261122T101443Z`, with a number behind it where there is one of that second. Its name is the last by order too, when the clock was set back. */
function asideName(path: string): string {
  const now = stampOf(new Date())
  const last = asideNames(path).reduce<AsideName | null>((last, one) => (last === null || isOlder(last, one) ? one : last), null)
  if (last === null || last.stamp < now) return `${path}.${now}`
  return `${path}.${last.stamp}.${last.number + 1}`
}

function stampOf(date: Date): string {
  return date.toISOString().replace(/[-:]|\.\d+/g, '')
}

interface AsideName {
  readonly path: string
  readonly stamp: string
  /** of those of one second */
  readonly number: number
  readonly isCompressed: boolean
  /** the half that a crash left of compressing */
  readonly isPart: boolean
}

function asideNames(path: string): AsideName[] {
  const folder = dirname(path)
  const prefix = `${basename(path)}.`
  return readdirSync(folder).flatMap((name) => {
    const parts = name.startsWith(prefix) ? /^(\d{8}T\d{6}Z)(?:\.(\d+))?(\.gz|\.zst)?(\.part)?$/.exec(name.slice(prefix.length)) : null
    if (parts === null) return []
    return [{ path: join(folder, name), stamp: parts[1]!, number: Number(parts[2] ?? 0), isCompressed: parts[3] !== undefined, isPart: parts[4] !== undefined }]
  })
}

function isOlder(a: AsideName, b: AsideName): boolean {
  return a.stamp < b.stamp || (a.stamp === b.stamp && a.number < b.number)
}

/** The files put aside, oldest first; halves are removed. */
async function putAside(path: string): Promise<AsideName[]> {
  const all = asideNames(path)
  for (const { path: half } of all.filter(({ isPart }) => isPart)) await unlink(half)
  return all.filter(({ isPart }) => !isPart).sort((a, b) => (isOlder(a, b) ? -1 : 1))
}

/** The file is there whole, in one form or the other, at every moment. */
async function compress(path: string, kind: 'gzip' | 'zstd', block: Uint8Array): Promise<void> {
  const target = `${path}${endings[kind]}`
  const part = `${target}.part`
  const through = kind === 'gzip' ? zlib.createGzip() : (zlib as unknown as { createZstdCompress: () => zlib.Gzip }).createZstdCompress()
  try {
    await pipeline(pieces(path, block), through, createWriteStream(part, { mode: MODE }))
    const written = await open(part, 'r')
    await written.datasync().finally(() => written.close())
    await rename(part, target)
  } catch (error) {
    await unlink(part).catch(() => {})
    throw error
  }
  await unlink(path)
}

/**
 * The file through one block, which is free again when the next piece is asked for: it is more than a stream takes without waiting until it is worked through; only
 * the last piece is shorter. A read stream makes a new block for each piece, and 100 MB of garbage beside the heap make V8 collect all of it several times, with a
 * young generation that has grown to its limit.
 */
async function* pieces(path: string, block: Uint8Array): AsyncGenerator<Uint8Array> {
  const fd = openSync(path, 'r')
  try {
    for (let filled = block.length; filled === block.length; ) {
      filled = 0
      for (let n = -1; n !== 0 && filled < block.length; filled += n) n = await readSome(fd, block, filled)
      if (filled > 0) yield block.subarray(0, filled)
    }
  } finally {
    closeSync(fd)
  }
}

/** How many bytes were read, 0 at the end. (`FileHandle.read` costs kilobytes a call.) */
function readSome(fd: number, block: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, fail) => read(fd, block, from, block.length - from, null, (error, n) => (error === null ? resolve(n) : fail(error))))
}

async function removeOld(path: string, rotate: Rotation, currentBytes: number): Promise<void> {
  const files = await putAside(path)
  const sized = await Promise.all(files.map(async (file) => ({ ...file, ...(await stat(file.path).then(({ size, mtimeMs }) => ({ size, mtimeMs }))) })))
  let total = currentBytes + sized.reduce((sum, file) => sum + file.size, 0)
  for (const [i, file] of sized.entries()) {
    const tooMany = rotate.keep !== null && sized.length - i > rotate.keep
    const tooOld = rotate.maxAge !== null && hostClock.ageMs(file.mtimeMs) > rotate.maxAge
    const tooMuch = rotate.maxTotal !== null && total > rotate.maxTotal
    if (!tooMany && !tooOld && !tooMuch) continue
    total -= file.size
    rmSync(file.path, { force: true })
  }
}

/** A run that was killed may have left half a line: it goes, so that the first record does not hang on it. */
function mendTail(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return
  const fd = openSync(path, 'r+')
  try {
    const size = fstatSync(fd).size
    const block = new Uint8Array(BLOCK_BYTES)
    for (let end = size; end > 0; end -= BLOCK_BYTES) {
      const from = Math.max(0, end - BLOCK_BYTES)
      const n = readSync(fd, block, 0, end - from, from)
      const lf = block.subarray(0, n).lastIndexOf(LF)
      if (lf < 0 && from > 0) continue
      if (from + lf + 1 < size) ftruncateSync(fd, from + lf + 1)
      return
    }
  } finally {
    closeSync(fd)
  }
}

function nothing(): void {}
