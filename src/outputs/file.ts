/**
 * `file:PATH`: appended to, whole lines only, made with mode 0640. When the disk refuses in the middle of a page the file is cut back to its last whole line, and
 * the page is tried again until it fits: nothing is lost, and nothing more is read meanwhile. Full or old files are put aside under the time of that, compressed,
 * and in the end removed.
 */
import { close, closeSync, createReadStream, createWriteStream, fdatasync, fstatSync, ftruncateSync, openSync, readdirSync, readSync, renameSync, rmSync, statSync, write } from 'node:fs'
import { open, rename, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import * as zlib from 'node:zlib'
import type { Output } from '../stage.js'

const LF = 10
const BLOCK_BYTES = 1 << 16
const MODE = 0o640
/** A disk that is full is asked again so soon, and at last so seldom. */
const RETRY_MS = 100
const RETRY_MS_MAX = 5000
const SYNC_EVERY_MS = 1000
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
  size: number
  /** so many bytes stay: behind them is the page that is being written, of which half a line may be taken back */
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
  #isClosed = false
  /** what has failed last time and was told */
  #isUnsafe = false
  #cannotRotate = false
  #syncing: Promise<void> = Promise.resolve()
  #housekeeping: Promise<void> = Promise.resolve()
  readonly #timers: NodeJS.Timeout[] = []

  constructor(options: FileOptions) {
    this.#options = options
    this.name = options.name
    const { rotate, path, fsync } = options
    this.#file = openAtEnd(path)
    const found = fstatSync(this.#file.fd)
    this.#isFile = found.isFile()
    this.#period = this.#periodOf(found.size > 0 ? found.mtimeMs : Date.now())
    if (!this.#isFile) return
    if (fsync === 'interval') this.#timers.push(setInterval(() => void this.sync().catch(() => {}), SYNC_EVERY_MS).unref())
    if (rotate === null) return
    if (rotate.maxAge !== null) this.#timers.push(setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS).unref())
    this.#keepHouse()
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    this.#isWriting = true
    try {
      this.#rotateIfDue(bytes.length)
      await this.#writeAll(bytes)
      this.#file.settled = this.#file.size
      if (this.#options.fsync === 'always') await this.#untilSafe()
      return true
    } finally {
      this.#isWriting = false
      this.#reopenIfDue()
    }
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    let wait = RETRY_MS
    let isTold = false
    for (let from = 0; from < bytes.length; ) {
      // between two lines it may go on in another file
      if (from === 0 || bytes[from - 1] === LF) this.#reopenIfDue()
      try {
        const { bytesWritten } = await promisify(write)(this.#file.fd, bytes, from, bytes.length - from, null)
        from += bytesWritten
        this.#file.size += bytesWritten
      } catch (error) {
        const { code = '', message } = error as NodeJS.ErrnoException
        if (this.#isFile) from = this.#dropTail(bytes, from)
        if (!this.#isFile || !PASSING.has(code) || this.#isClosed) throw error
        if (!isTold) this.#options.report(`output ${this.name}: ${message}; nothing is lost: it is tried again until it fits`)
        isTold = true
        await new Promise((resolve) => setTimeout(resolve, wait))
        this.attempts++
        wait = Math.min(RETRY_MS_MAX, wait * 2)
      }
    }
    if (isTold) this.#options.report(`output ${this.name}: writes again`)
  }

  /** With `fsync: never` safe means handed to the kernel. Calls take turns: each resolves when all that was written before it is safe. */
  sync(): Promise<void> {
    if (!this.#isFile || this.#options.fsync === 'never') return Promise.resolve()
    const turn = this.#syncing.then(() => this.#sync())
    this.#syncing = turn.catch(() => {})
    return turn
  }

  async #sync(): Promise<void> {
    if (this.#isClosed) return
    try {
      for (const old of [...this.#left]) {
        await makeSafe(old)
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
  }

  async #untilSafe(): Promise<void> {
    for (let wait = RETRY_MS; ; wait = Math.min(RETRY_MS_MAX, wait * 2)) {
      try {
        return await this.sync()
      } catch (error) {
        if (this.#isClosed) throw error
        await new Promise((resolve) => setTimeout(resolve, wait))
        this.attempts++
      }
    }
  }

  /** Another program has moved the file away. A line that is being written goes on where it began. */
  reopen(): void {
    if (!this.#isFile) return
    this.#isReopenDue = true
    if (!this.#isWriting) this.#reopenIfDue()
  }

  #reopenIfDue(): void {
    if (!this.#isReopenDue || this.#isClosed) return
    this.#isReopenDue = false
    try {
      this.#goOnIn(openAtEnd(this.#options.path))
    } catch (error) {
      this.#options.report(`output ${this.name} cannot be opened anew: ${(error as Error).message}; it goes on in the file that it has`)
    }
  }

  #goOnIn(file: Opened): void {
    this.#file.settled = this.#file.size
    this.#left.push(this.#file)
    this.#file = file
    if (this.#options.fsync !== 'never') return void this.sync().catch(() => {})
    for (const { fd } of this.#left.splice(0)) closeSync(fd)
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    await this.sync().catch(() => {})
    this.#isClosed = true
    await this.#housekeeping
    for (const { fd } of [...this.#left, this.#file]) closeSync(fd)
  }

  #periodOf(milliseconds: number): number {
    const every = this.#options.rotate?.every ?? null
    return every === null ? 0 : Math.floor(milliseconds / every)
  }

  #rotateIfDue(bytes: number): void {
    const { rotate, path, report } = this.#options
    if (rotate === null || !this.#isFile) return
    const { size } = this.#file
    const period = this.#periodOf(Date.now())
    const isDue = size > 0 && ((rotate.size !== null && size + bytes > rotate.size) || period !== this.#period)
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
        for (const file of await putAside(path)) if (!this.#isClosed && !file.isCompressed) await compress(file.path, rotate!.compress)
        await removeOld(path, rotate!, this.#file.size)
      })
      .catch((error: unknown) => report(`output ${this.name}: what is put aside cannot be kept in order: ${(error as Error).message}`))
  }

  /** `written` bytes of the page are in the file: takes back those behind the last LF, and gives how many stay. */
  #dropTail(bytes: Uint8Array, written: number): number {
    const whole = written === 0 ? 0 : bytes.lastIndexOf(LF, written - 1) + 1
    if (written > whole) {
      const file = this.#file
      file.size -= written - whole
      ftruncateSync(file.fd, file.size)
    }
    return whole
  }
}

/** What is there already counts as safe: an earlier run's is not ours to doubt. */
function openAtEnd(path: string): Opened {
  mendTail(path)
  const fd = openSync(path, 'a', MODE)
  const { size } = fstatSync(fd)
  return { fd, size, settled: size, safe: size, isDoubtful: false }
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
async function compress(path: string, kind: 'gzip' | 'zstd'): Promise<void> {
  const target = `${path}${endings[kind]}`
  const part = `${target}.part`
  const through = kind === 'gzip' ? zlib.createGzip() : (zlib as unknown as { createZstdCompress: () => zlib.Gzip }).createZstdCompress()
  try {
    await pipeline(createReadStream(path), through, createWriteStream(part, { mode: MODE }))
    const written = await open(part, 'r')
    await written.datasync().finally(() => written.close())
    await rename(part, target)
  } catch (error) {
    await unlink(part).catch(() => {})
    throw error
  }
  await unlink(path)
}

async function removeOld(path: string, rotate: Rotation, currentBytes: number): Promise<void> {
  const files = await putAside(path)
  const sized = await Promise.all(files.map(async (file) => ({ ...file, ...(await stat(file.path).then(({ size, mtimeMs }) => ({ size, mtimeMs }))) })))
  const now = Date.now()
  let total = currentBytes + sized.reduce((sum, file) => sum + file.size, 0)
  for (const [i, file] of sized.entries()) {
    const tooMany = rotate.keep !== null && sized.length - i > rotate.keep
    const tooOld = rotate.maxAge !== null && now - file.mtimeMs > rotate.maxAge
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
