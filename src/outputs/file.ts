/**
 * `file:PATH`: appended to, whole lines only, made with mode 0640. When the disk refuses in the middle of a page the file is cut back to its last whole line, and
 * the page is tried again until it fits: nothing is lost, and nothing more is read meanwhile. Full or old files are put aside under the time of that, compressed,
 * and in the end removed.
 */
import { close, closeSync, createReadStream, createWriteStream, fdatasync, fstatSync, ftruncateSync, openSync, readSync, renameSync, rmSync, statSync, write } from 'node:fs'
import { open, readdir, rename, stat, unlink } from 'node:fs/promises'
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

class FileOutput implements Output {
  readonly name: string
  readonly #options: FileOptions
  #fd: number
  #size: number
  /** a device or a pipe has no end to mend, and is not put aside */
  readonly #isFile: boolean
  /** number of the period of `every` that the file is of */
  #period: number
  #unsynced = false
  attempts = 0
  #isClosed = false
  #housekeeping: Promise<void> = Promise.resolve()
  readonly #syncTimer: NodeJS.Timeout | undefined

  constructor(options: FileOptions) {
    this.#options = options
    this.name = options.name
    mendTail(options.path)
    this.#fd = openSync(options.path, 'a', MODE)
    const found = fstatSync(this.#fd)
    this.#isFile = found.isFile()
    this.#size = found.size
    this.#period = this.#periodOf(found.size > 0 ? found.mtimeMs : Date.now())
    if (options.fsync === 'interval' && this.#isFile) this.#syncTimer = setInterval(() => void this.sync().catch(() => {}), SYNC_EVERY_MS).unref()
    if (options.rotate !== null && this.#isFile) this.#keepHouse()
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    this.#rotateIfDue(bytes.length)
    let wait = RETRY_MS
    let isTold = false
    for (let from = 0; from < bytes.length; ) {
      try {
        const { bytesWritten } = await promisify(write)(this.#fd, bytes, from, bytes.length - from, null)
        from += bytesWritten
        this.#size += bytesWritten
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
    this.#unsynced = true
    if (this.#options.fsync === 'always') await this.sync()
    return true
  }

  async sync(): Promise<void> {
    if (!this.#unsynced || !this.#isFile || this.#isClosed) return
    this.#unsynced = false
    try {
      await promisify(fdatasync)(this.#fd)
    } catch (error) {
      this.#unsynced = true
      throw error
    }
  }

  /** Another program has moved the file away. */
  reopen(): void {
    if (!this.#isFile) return
    const old = this.#fd
    mendTail(this.#options.path)
    this.#fd = openSync(this.#options.path, 'a', MODE)
    this.#size = fstatSync(this.#fd).size
    // a write may be under way: the descriptor lives until it is done
    close(old, () => {})
  }

  async close(): Promise<void> {
    clearInterval(this.#syncTimer)
    if (this.#options.fsync !== 'never') await this.sync().catch(() => {})
    this.#isClosed = true
    await this.#housekeeping
    closeSync(this.#fd)
  }

  #periodOf(milliseconds: number): number {
    const every = this.#options.rotate?.every ?? null
    return every === null ? 0 : Math.floor(milliseconds / every)
  }

  #rotateIfDue(bytes: number): void {
    const { rotate, path, report } = this.#options
    if (rotate === null || !this.#isFile) return
    const period = this.#periodOf(Date.now())
    const isDue = this.#size > 0 && ((rotate.size !== null && this.#size + bytes > rotate.size) || period !== this.#period)
    this.#period = period
    if (!isDue) return
    try {
      renameSync(path, asideName(path))
      const old = this.#fd
      this.#fd = openSync(path, 'a', MODE)
      this.#size = 0
      if (this.#options.fsync === 'never') close(old, () => {})
      else fdatasync(old, () => close(old, () => {}))
    } catch (error) {
      // it goes on in the file that it has
      report(`output ${this.name} cannot be put aside: ${(error as Error).message}`)
      return
    }
    this.#keepHouse()
  }

  /** What is put aside is compressed, and removed when there is too much of it; one after the other, beside the writing. */
  #keepHouse(): void {
    const { rotate, path, report } = this.#options
    this.#housekeeping = this.#housekeeping
      .then(async () => {
        if (rotate!.compress !== 'none') for (const file of await putAside(path)) if (!this.#isClosed && !file.isCompressed) await compress(file.path, rotate!.compress)
        await removeOld(path, rotate!, this.#size)
      })
      .catch((error: unknown) => report(`output ${this.name}: what is put aside cannot be kept in order: ${(error as Error).message}`))
  }

  /** `written` bytes of the page are in the file: takes back those behind the last LF, and gives how many stay. */
  #dropTail(bytes: Uint8Array, written: number): number {
    const whole = written === 0 ? 0 : bytes.lastIndexOf(LF, written - 1) + 1
    if (written > whole) {
      this.#size -= written - whole
      ftruncateSync(this.#fd, fstatSync(this.#fd).size - (written - whole))
    }
    return whole
  }
}

/** `records.ndjson.20261122T101443Z`, with a number behind it where there is one of that second. */
function asideName(path: string): string {
  const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  for (let n = 0; ; n++) {
    const name = `${path}.${stamp}${n === 0 ? '' : `.${n}`}`
    if (Object.values(endings).every((ending) => statSync(`${name}${ending}`, { throwIfNoEntry: false }) === undefined)) return name
  }
}

interface Aside {
  readonly path: string
  readonly isCompressed: boolean
  /** of the same second, by number */
  readonly key: string
}

/** The files put aside, oldest first; the halves that a crash left of compressing are removed. */
async function putAside(path: string): Promise<Aside[]> {
  const folder = dirname(path)
  const prefix = `${basename(path)}.`
  const found: Aside[] = []
  for (const name of await readdir(folder)) {
    const parts = name.startsWith(prefix) ? /^(\d{8}T\d{6}Z)(?:\.(\d+))?(\.gz|\.zst)?(\.part)?$/.exec(name.slice(prefix.length)) : null
    if (parts === null) continue
    if (parts[4] !== undefined) await unlink(join(folder, name))
    else found.push({ path: join(folder, name), isCompressed: parts[3] !== undefined, key: `${parts[1]!}.${(parts[2] ?? '0').padStart(6, '0')}` })
  }
  return found.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** The file is there whole, in one form or the other, at every moment. */
async function compress(path: string, kind: 'gzip' | 'zstd'): Promise<void> {
  const target = `${path}${endings[kind]}`
  const part = `${target}.part`
  const through = kind === 'gzip' ? zlib.createGzip() : (zlib as unknown as { createZstdCompress: () => zlib.Gzip }).createZstdCompress()
  await pipeline(createReadStream(path), through, createWriteStream(part, { mode: MODE }))
  const written = await open(part, 'r')
  await written.datasync()
  await written.close()
  await rename(part, target)
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
