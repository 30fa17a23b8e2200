/**
 * What a receiver refused for good: kept beside the spool, one letter a line, to be looked at and sent again. The running output alone adds letters and
 * removes the oldest; whoever asks for one to be sent again (another process, or the same later) writes its record into the folder `replay`, and notes that
 * the letter is done with. So no file has two writers, and a crash anywhere means a record that is sent twice under its own `rid`, never one that is gone.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fdatasyncSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs'
import { type FileHandle, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { DeadLetters, Loss, Refusal } from './stage.js'

const FILE = /^letters\.(\d+)\.ndjson$/
const REPLAY = 'replay'
const REPLAYED = 'replayed'
const BODY_BYTES_MAX = 1024
/** the limit is held by removing one of so many files */
const FILES = 8
const LF = 10
const RECORD_KEY = Buffer.from(',"record":')
const FOLDER_MODE = 0o750
const FILE_MODE = 0o640

export interface DeadLetterOptions {
  /** of this output alone; null: there is no place, and each refusal counts as lost */
  readonly folder: string | null
  readonly output: string
  /** scheme, host and port of the receiver; never its path or query, which may be secret */
  readonly origin: string
  readonly maxBytes: number
  readonly report: (message: string) => void
  /** for a gap record */
  readonly onLost: (loss: Loss) => void
  /** milliseconds since the epoch */
  readonly now?: () => number
}

/** A letter as it is listed. */
export interface Letter {
  readonly id: number
  readonly time: string
  readonly output: string
  readonly url: string
  /** 0: no answer */
  readonly status: number
  readonly reason: string
  readonly body: string
  /** the record's bytes, as they were to be sent */
  readonly record: Buffer
}

/** The store of a running output. */
export class DeadLetterStore implements DeadLetters {
  readonly #options: DeadLetterOptions
  /** the file that is added to: always one of this run's own, so that a tail cut off by a crash stays alone */
  #file: FileHandle | null = null
  #number = 0
  #size = 0
  #nextId = 1
  #isRefused = false
  #isReplayRefused = false
  #last: Promise<void> = Promise.resolve()
  #replaying: Promise<void> = Promise.resolve()

  private constructor(options: DeadLetterOptions) {
    this.#options = options
  }

  /** Throws when the folder cannot be used. */
  static async open(options: DeadLetterOptions): Promise<DeadLetterStore> {
    const store = new DeadLetterStore(options)
    const { folder } = options
    if (folder === null) return store
    mkdirSync(join(folder, REPLAY), { recursive: true, mode: FOLDER_MODE })
    // a number is not given again when its letter is gone
    store.#nextId = [...readLetters(folder).map(({ id }) => id), ...replayedIds(folder)].reduce((most, id) => Math.max(most, id), 0) + 1
    store.#number = letterFiles(folder).at(-1)?.number ?? 0
    await store.#trim(folder)
    await store.#forgetReplayed(folder)
    return store
  }

  add(refusals: readonly Refusal[]): Promise<boolean> {
    const { folder, onLost, report, output } = this.#options
    return this.#alone(async () => {
      if (refusals.length === 0) return true
      try {
        if (folder === null) throw new Error('there is no place for them: name a state directory')
        await this.#write(folder, Buffer.concat(refusals.map((refusal) => this.#letter(refusal))))
        if (this.#isRefused) report(`output ${output}: dead letters are written again`)
        this.#isRefused = false
        await this.#trim(folder)
        return true
      } catch (error) {
        if (!this.#isRefused) report(`output ${output}: dead letters cannot be kept: ${(error as Error).message}; what is refused is lost until that is mended`)
        this.#isRefused = true
        const count = refusals.filter(({ record }) => !this.#tellsOwnLoss(record)).length
        if (count > 0) onLost({ count, reason: 'refused', from: null, to: null })
        return false
      }
    })
  }

  takeReplays(take: (lines: Uint8Array) => Promise<void>): Promise<void> {
    const { folder, output, report } = this.#options
    if (folder === null) return Promise.resolve()
    // not in line with `add`: taking may wait for room in the spool, and that for letters that are added
    // a look that failed is no reason not to look again
    this.#replaying = this.#replaying.catch(() => {}).then(async () => {
      for (const name of replayFiles(folder)) {
        const path = join(folder, REPLAY, name)
        try {
          await take(await readFile(path))
          await rm(path, { force: true })
          this.#isReplayRefused = false
        } catch (error) {
          if (!this.#isReplayRefused) report(`output ${output}: ${path} cannot be sent again now: ${(error as Error).message}; it is tried again`)
          this.#isReplayRefused = true
          return
        }
      }
    })
    return this.#replaying
  }

  async close(): Promise<void> {
    await this.#alone(async () => {
      await this.#file?.close()
      this.#file = null
    })
  }

  /** One at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work)
    this.#last = result.then(
      () => {},
      () => {},
    )
    return result
  }

  /** A gap record that tells a receiver what it has missed. One about its own loss would be refused as well, and so on for ever; the other outputs have it. */
  #tellsOwnLoss(record: Uint8Array): boolean {
    try {
      const { type, output } = JSON.parse(Buffer.from(record).toString('utf8')) as { type?: unknown; output?: unknown }
      return type === 'gap' && output === this.#options.output
    } catch {
      return false
    }
  }

  #letter({ record, status, reason, body }: Refusal): Buffer {
    const { output, origin, now = Date.now } = this.#options
    const head = JSON.stringify({
      id: this.#nextId++,
      time: new Date(now()).toISOString(),
      output,
      url: origin,
      status,
      reason,
      body: Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, BODY_BYTES_MAX)).toString('utf8'),
    })
    return Buffer.concat([Buffer.from(head.slice(0, -1)), RECORD_KEY, record, Buffer.from('}\n')])
  }

  async #write(folder: string, lines: Buffer): Promise<void> {
    if (this.#file !== null && this.#size + lines.length > this.#options.maxBytes / FILES) {
      await this.#file.close()
      this.#file = null
    }
    if (this.#file === null) {
      this.#file = await open(join(folder, nameOf(++this.#number)), 'ax', FILE_MODE)
      this.#size = 0
      syncFolder(folder)
    }
    const file = this.#file
    try {
      await file.writeFile(lines)
      await file.datasync()
      this.#size += lines.length
    } catch (error) {
      // a file that refused once is not asked again; what stands in it in part goes
      this.#file = null
      await file.truncate(this.#size).catch(() => {})
      await file.close().catch(() => {})
      throw error
    }
  }

  /** Files whose letters are all sent again go; then, where it is too much, the oldest, but never what was just written. */
  async #trim(folder: string): Promise<void> {
    const files = letterFiles(folder)
    let total = files.reduce((sum, { size }) => sum + size, 0)
    const replayed = replayedIds(folder)
    for (const { name, size, number } of files) {
      if (this.#file !== null && number === this.#number) return
      const isTooMuch = total > this.#options.maxBytes
      if (!isTooMuch && replayed.size === 0) return
      const kept = idsIn(await readFile(join(folder, name))).filter((id) => !replayed.has(id)).length
      if (!isTooMuch && kept > 0) continue
      await rm(join(folder, name))
      total -= size
      if (kept === 0) continue
      this.#options.report(`output ${this.#options.output}: the oldest ${kept} dead letters had to go, the limit is ${this.#options.maxBytes} bytes`)
      this.#options.onLost({ count: kept, reason: 'dead_letters_full', from: null, to: null })
    }
  }

  /** Notes of letters that are in no file any more; the newest stays, for the numbers to go on from. */
  async #forgetReplayed(folder: string): Promise<void> {
    const firstFile = letterFiles(folder)[0]
    const firstId = firstFile === undefined ? Infinity : (idsIn(await readFile(join(folder, firstFile.name)))[0] ?? 0)
    const notes = notesOf(folder).map((note) => ({ ...note, last: note.ids.reduce((most, id) => Math.max(most, id), 0) }))
    const newest = notes.reduce((most, { last }) => Math.max(most, last), 0)
    for (const { path, last } of notes) if (last < firstId && last < newest) await rm(path, { force: true })
  }
}

/** All that are kept and not sent again yet, oldest first. A line that a crash cut off is no letter. Throws what reading the folder met. */
export function readLetters(folder: string): Letter[] {
  const replayed = replayedIds(folder)
  return letterFiles(folder)
    .flatMap(({ name }) => lettersIn(join(folder, name)))
    .filter(({ id }) => !replayed.has(id))
}

/**
 * Has these records sent again, by the output when it runs next, or within seconds when it runs now. In this order a crash leaves a letter listed that is on
 * its way, never one that is neither. Throws what writing met; then nothing has changed but perhaps that.
 */
export function replayLetters(folder: string, letters: readonly Letter[]): void {
  if (letters.length === 0) return
  mkdirSync(join(folder, REPLAY), { recursive: true, mode: FOLDER_MODE })
  const unique = `${String(letters[0]!.id).padStart(12, '0')}.${randomBytes(6).toString('hex')}`
  writeWhole(join(folder, REPLAY), `${unique}.ndjson`, Buffer.concat(letters.flatMap(({ record }) => [record, Buffer.of(LF)])))
  // a file for each replay: two that run at once do not overwrite each other's
  mkdirSync(join(folder, REPLAYED), { recursive: true, mode: FOLDER_MODE })
  writeWhole(join(folder, REPLAYED), `${unique}.ids`, Buffer.from(letters.map(({ id }) => `${id}\n`).join('')))
}

/** Every line begins with its number. */
function idsIn(bytes: Buffer): number[] {
  return Array.from(bytes.toString('latin1').matchAll(/^\{"id":(\d+),.*\n/gm), ([, id]) => Number(id))
}

interface LetterFile {
  readonly name: string
  readonly number: number
  readonly size: number
}

function nameOf(number: number): string {
  return `letters.${String(number).padStart(8, '0')}.ndjson`
}

function letterFiles(folder: string): LetterFile[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const number = FILE.exec(name)?.[1]
      // the running output may have removed it just now
      const size = number === undefined ? undefined : statSync(join(folder, name), { throwIfNoEntry: false })?.size
      return size === undefined ? [] : [{ name, number: Number(number), size }]
    })
    .sort((a, b) => a.number - b.number)
}

function lettersIn(path: string): Letter[] {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  const found: Letter[] = []
  for (let from = 0, to = bytes.indexOf(LF); to >= 0; from = to + 1, to = bytes.indexOf(LF, from)) {
    const letter = letterOf(bytes.subarray(from, to))
    if (letter !== null) found.push(letter)
  }
  return found
}

/** Quotes inside the values before it are escaped, so the first such key is the record's. */
function letterOf(line: Buffer): Letter | null {
  const at = line.indexOf(RECORD_KEY)
  if (at < 0) return null
  try {
    const head = JSON.parse(`${line.toString('utf8', 0, at)}}`) as Omit<Letter, 'record'>
    return { ...head, record: line.subarray(at + RECORD_KEY.length, line.length - 1) }
  } catch {
    return null
  }
}

function replayFiles(folder: string): string[] {
  return readdirSync(join(folder, REPLAY))
    .filter((name) => name.endsWith('.ndjson'))
    .sort()
}

function replayedIds(folder: string): Set<number> {
  return new Set(notesOf(folder).flatMap(({ ids }) => ids))
}

/** Which letters were sent again: a file for each time. */
function notesOf(folder: string): { readonly path: string; readonly ids: readonly number[] }[] {
  let names: string[]
  try {
    names = readdirSync(join(folder, REPLAYED)).filter((name) => name.endsWith('.ids'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  return names.map((name) => {
    const path = join(folder, REPLAYED, name)
    return { path, ids: readFileSync(path, 'latin1').split('\n').filter(Boolean).map(Number) }
  })
}

/** It is there whole, and safe, or not at all. */
function writeWhole(folder: string, name: string, bytes: Buffer): void {
  const part = join(folder, `${name}.part`)
  const fd = openSync(part, 'w', FILE_MODE)
  try {
    for (let from = 0; from < bytes.length; ) from += writeSync(fd, bytes, from)
    fdatasyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(part, join(folder, name))
  syncFolder(folder)
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
