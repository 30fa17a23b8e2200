/**
 * What is remembered from run to run, in one file: how far each input was worked through, and the episodes that were open at exactly that point. It is replaced as a
 * whole, and the one before is kept: a damaged file costs the time since the last but one, never the start.
 */
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { evenMilliseconds, notedAt } from './clock.js'

const VERSION = 1
const MAGIC = 'conntrail-checkpoint'
const CURRENT = 'checkpoint'
const PREVIOUS = 'checkpoint.previous'
const NEXT = 'checkpoint.next'
const LOCK = 'lock'

/** One consistent cut. */
export interface Checkpoint {
  /** microseconds since the epoch */
  readonly written: number
  readonly bootId: string
  /** what each open input says of its position, by the input's name */
  readonly inputs: Readonly<Record<string, readonly unknown[]>>
  /** of the detectors, as each of them saves it */
  readonly detectors: Readonly<Record<string, unknown>>
}

/** The state directory cannot be used; the sentence says why, and what mends it. */
export class StateError extends Error {}

export class CheckpointStore {
  readonly #folder: string
  readonly #report: (message: string) => void
  #hasFailed = false
  /** when it was written, by the clock for ages; NaN there is none */
  #savedAtMs = NaN

  /** Makes the directory where it is missing, and takes it for this process alone. Throws StateError. */
  constructor(folder: string, pid: number, report: (message: string) => void) {
    this.#folder = folder
    this.#report = report
    try {
      mkdirSync(folder, { recursive: true, mode: 0o750 })
    } catch (error) {
      throw new StateError(`state directory ${folder} cannot be made: ${(error as Error).message}`)
    }
    this.#lock(pid)
  }

  /** What the last run left; 'none' before a first start, 'damaged' where nothing of what is there can be used. Throws StateError for the work of a newer version. */
  load(): Checkpoint | 'none' | 'damaged' {
    let isThere = false
    for (const name of [CURRENT, PREVIOUS]) {
      const path = join(this.#folder, name)
      let text: string
      try {
        text = readFileSync(path, 'utf8')
      } catch (error) {
        const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
        if (!isMissing) this.#report(`checkpoint ${path} cannot be read: ${(error as Error).message}`)
        isThere ||= !isMissing
        continue
      }
      isThere = true
      const found = decode(text)
      if (typeof found === 'number') {
        throw new StateError(`checkpoint ${path} has format ${found}, this version knows ${VERSION}: run the version that wrote it, or name another state directory`)
      }
      if (found !== null) {
        this.#savedAtMs = notedAt(found.written / 1000, evenMilliseconds())
        return found
      }
      this.#report(`checkpoint ${path} is damaged${name === CURRENT ? '; the one before it is used, if that is whole' : ''}`)
    }
    if (isThere) return 'damaged'
    this.#report(`state directory ${this.#folder} has no checkpoint, as before a first start: each input begins as configured`)
    return 'none'
  }

  /** Replaces the checkpoint; `inputs` is text already. False when that failed: it is reported once, and again when it is over; the old one stays. */
  async save(checkpoint: Omit<Checkpoint, 'inputs'> & { readonly inputs: string }): Promise<boolean> {
    const path = (name: string): string => join(this.#folder, name)
    try {
      const file = await open(path(NEXT), 'w', 0o640)
      try {
        await file.writeFile(encode(checkpoint))
        await file.datasync()
      } finally {
        await file.close()
      }
      await rename(path(CURRENT), path(PREVIOUS)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
      })
      await rename(path(NEXT), path(CURRENT))
      const folder = await open(this.#folder, 'r')
      await folder.sync().finally(() => folder.close())
      if (this.#hasFailed) this.#report(`checkpoint ${path(CURRENT)} is written again`)
      this.#hasFailed = false
      this.#savedAtMs = evenMilliseconds()
      return true
    } catch (error) {
      if (!this.#hasFailed) this.#report(`checkpoint ${path(CURRENT)} cannot be written: ${(error as Error).message}; the last one is kept, and everything else goes on`)
      this.#hasFailed = true
      return false
    }
  }

  /** How old the last checkpoint is; -1 there is none. */
  get ageSeconds(): number {
    return Number.isNaN(this.#savedAtMs) ? -1 : (evenMilliseconds() - this.#savedAtMs) / 1000
  }

  /** No checkpoint could be written lately. */
  get hasFailed(): boolean {
    return this.#hasFailed
  }

  release(): void {
    rmSync(join(this.#folder, LOCK), { force: true })
  }

  /** A file with the process's number and start: one that is left by a process that is gone counts for nothing. */
  #lock(pid: number): void {
    const path = join(this.#folder, LOCK)
    for (let tries = 0; ; tries++) {
      try {
        const fd = openSync(path, 'wx', 0o640)
        writeSync(fd, `${pid} ${startOf(pid)}\n`)
        closeSync(fd)
        return
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException
        if (code !== 'EEXIST' || tries > 2) throw new StateError(`state directory ${this.#folder} cannot be used: ${message}`)
        const [owner = '', start = ''] = readFileSync(path, 'latin1').trim().split(' ')
        if (owner !== '' && start !== '' && startOf(Number(owner)) === start && Number(owner) !== pid) {
          throw new StateError(`state directory ${this.#folder} is in use by process ${owner}: each conntrail needs one of its own`)
        }
        rmSync(path, { force: true })
      }
    }
  }
}

/** When a process was started, in clock ticks since boot, with the boot's id; '' where there is no such process. /proc/PID/stat, field 22. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()}.${start}`
  } catch {
    return ''
  }
}

/** One buffer: with ten thousands of files it has megabytes. */
function encode({ inputs, ...rest }: Omit<Checkpoint, 'inputs'> & { readonly inputs: string }): Uint8Array {
  const body = Buffer.from(`${JSON.stringify(rest).slice(0, -1)},"inputs":${inputs}}\n`)
  const bytes = body.length - 1
  const head = Buffer.from(`${MAGIC} ${VERSION} ${crc32(body.subarray(0, bytes)).toString(16).padStart(8, '0')} ${bytes}\n`)
  return Buffer.concat([head, body])
}

/** The checkpoint; its version where that is newer; null for what is damaged. */
function decode(text: string): Checkpoint | number | null {
  const head = /^conntrail-checkpoint (\d+) ([0-9a-f]{8}) (\d+)\n/.exec(text)
  if (head === null) return null
  const body = text.slice(head[0].length, -1)
  if (Buffer.byteLength(body) !== Number(head[3]) || crc32(body).toString(16).padStart(8, '0') !== head[2] || !text.endsWith('\n')) return null
  // what a newer version wrote is whole
  const version = Number(head[1])
  if (version > VERSION) return version
  if (version < VERSION) return null
  const checkpoint = parsed(body)
  return isCheckpoint(checkpoint) ? checkpoint : null
}

function parsed(body: string): Partial<Checkpoint> | null {
  try {
    return JSON.parse(body) as Partial<Checkpoint> | null
  } catch {
    return null
  }
}

function isCheckpoint(value: Partial<Checkpoint> | null): value is Checkpoint {
  const { written, bootId, inputs, detectors } = value ?? {}
  if (!Number.isSafeInteger(written) || typeof bootId !== 'string' || !isObject(inputs) || !isObject(detectors)) return false
  return Object.values(inputs).every((positions) => Array.isArray(positions))
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
