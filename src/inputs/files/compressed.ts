/** A rotated and compressed file, read once from beginning to end. Record ids count the bytes within. */
import { type BigIntStats, createReadStream } from 'node:fs'
import type { Duplex, Readable } from 'node:stream'
import type { BootTime, Input, LocalClock, Notice } from '../../stage.js'
import { NOTICES_ONLY } from '../../stage.js'
import { unpackerFor, unpackerOf } from '../decompressed.js'
import type { FileTail } from './follow.js'
import { gapOf } from './follow.js'
import { ANCHOR_BYTES, hashOf, identityOf, NO_ANCHOR, NO_HEAD, pathBytes, type Position, savedPath, shown } from './identity.js'

const COMPRESSED = /\.(gz|zst|bz2|xz|lz4|lzma|zip|Z)$/
const CHUNK_BYTES = 1 << 16
const NOTHING = new Uint8Array(0)

export function isCompressed(path: string): boolean {
  return COMPRESSED.test(path)
}

/** A stream that decompresses, by the name's ending, else by how the file begins; null where this Node has none for it. */
export function decompressorOf(path: string, head: Uint8Array): Duplex | null {
  return isCompressed(path) ? unpackerOf(path.slice(path.lastIndexOf('.') + 1)) : (unpackerFor(head) ?? null)
}

const tools: Readonly<Record<string, readonly [name: string, tool: string]>> = {
  xz: ['xz', 'xzcat'],
  lzma: ['xz (lzma)', 'xzcat'],
  bz2: ['bzip2', 'bzcat'],
  zst: ['zstd', 'zstdcat'],
  lz4: ['lz4', 'lz4cat'],
  zip: ['zip', 'unzip -p'],
  Z: ['compress', 'zcat'],
}

/** What a file is that cannot be read here, and how it can, as the end of a sentence. */
export function unpackingOf(path: string): string {
  const [name, tool] = tools[path.slice(path.lastIndexOf('.') + 1)]!
  return `it is ${name}-compressed: ${tool} ${shown(path)} | conntrail${name === 'zstd' ? ' (Node.js reads zstd from 22.15 on)' : ''}`
}

/** The name before compression. */
export function unpackedName(path: string): string {
  return path.replace(COMPRESSED, '')
}

/** Does it hold a content of this beginning, and with these bytes before a place in it? Read no further than needed; what cannot be read is none. */
export async function holds(path: string, { head, anchor }: Pick<Position, 'head' | 'anchor'>): Promise<boolean> {
  const stream = decompressorOf(path, NOTHING)
  if (stream === null || head.length === 0) return false
  const source = createReadStream(pathBytes(path), { highWaterMark: CHUNK_BYTES })
  source.on('error', (error) => stream.destroy(error))
  source.pipe(stream)
  let first: Uint8Array = NOTHING
  let last: Uint8Array = NOTHING
  let end = 0
  try {
    for await (const bytes of stream as AsyncIterable<Uint8Array>) {
      if (first.length < head.length) first = Buffer.concat([first, bytes]).subarray(0, head.length)
      if (first.length === head.length && hashOf(first) !== head.hash) return false
      last = Buffer.concat([last.subarray(-ANCHOR_BYTES), bytes])
      end += bytes.length
      if (first.length < head.length || end < anchor.at) continue
      const to = last.length - (end - anchor.at)
      return hashOf(last.subarray(to - anchor.length, to)) === anchor.hash
    }
  } catch {
    // it is damaged, or not written to its end yet
  } finally {
    source.destroy()
    stream.destroy()
  }
  return false
}

export interface CompressedFile {
  readonly name: string
  readonly path: string
  readonly stat: BigIntStats
  /** how it begins, where its name does not say what it is */
  readonly head: Uint8Array
  readonly id: string
  /** of the file that was compressed, where that was read before */
  readonly generation: number
  /** where to begin, in bytes within */
  readonly offset: number
  readonly once: boolean
  readonly boot: (file: FileTail) => BootTime | null
  /** what no stamp in it is after; what its last line lacks */
  readonly stampsEnd: (clock: LocalClock) => number | null
  readonly rest: Uint8Array | undefined
  readonly onEnd: (input: CompressedInput) => void
}

export class CompressedInput implements Input {
  readonly name: string
  readonly isDump = false
  readonly isBusy = true
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy = 'offset'
  readonly offset: number
  readonly path: string
  onIdle: () => void = () => {}
  notices: readonly Notice[] = []
  chunk: Uint8Array = NOTHING
  isCutOff = false
  waitsFor: object | null = null
  isDone = false
  readonly #file: CompressedFile
  #source: Readable | null = null
  #stream: Readable | null = null
  /** bytes that were worked through in an earlier run */
  #skip: number
  #end: number
  #failure = ''
  #isEnded = false
  #waiting: ((n: number) => void) | null = null

  constructor(file: CompressedFile) {
    this.#file = file
    this.name = file.name
    this.path = file.path
    this.ridPrefix = `${file.id}.${file.generation}`
    this.offset = file.offset
    this.#skip = file.offset
    this.#end = file.offset
  }

  get isLive(): boolean {
    return !this.#file.once
  }

  next(): Promise<number> {
    this.notices = []
    if (this.isDone) return Promise.resolve(0)
    return new Promise((resolve) => {
      this.#waiting = resolve
      this.wake()
    })
  }

  wake(): void {
    const waiting = this.#waiting
    if (waiting === null || this.waitsFor !== null) return
    const stream = (this.#stream ??= this.#open())
    let bytes = stream.read() as Buffer | null
    while (bytes !== null && bytes.length <= this.#skip) {
      this.#skip -= bytes.length
      bytes = stream.read() as Buffer | null
    }
    if (bytes !== null) {
      this.chunk = bytes.subarray(this.#skip)
      this.#skip = 0
      this.#end += this.chunk.length
      this.#waiting = null
      waiting(this.chunk.length)
    } else if (this.#failure !== '') {
      this.notices = [{ gap: gapOf('file_vanished', this.#failure), diagnostic: this.#failure }]
      this.#failure = ''
      this.#waiting = null
      this.#finish()
      waiting(NOTICES_ONLY)
    } else if (this.#isEnded) {
      this.#waiting = null
      this.#finish()
      waiting(0)
    }
  }

  receivedMicroseconds(): number {
    return this.modified
  }

  get modified(): number {
    return Number(this.#file.stat.mtimeNs / 1000n)
  }

  boot(): BootTime | null {
    return this.#file.boot(this)
  }

  stampsEnd(clock: LocalClock): number | null {
    return this.#file.stampsEnd(clock)
  }

  get lineRest(): Uint8Array | undefined {
    return this.#file.rest
  }

  position(offset: number): Position | null {
    if (this.isDone && !this.isCutOff && offset >= this.#end) return null
    const { path, stat, id, generation } = this.#file
    return { ...savedPath(path), ...identityOf(stat), id, generation, offset, size: offset, head: NO_HEAD, anchor: NO_ANCHOR, compressed: true }
  }

  stop(): void {
    if (this.isDone) return
    this.isCutOff = true
    this.#finish()
    const waiting = this.#waiting
    this.#waiting = null
    waiting?.(0)
  }

  abort(): void {
    this.stop()
  }

  close(): void {
    this.#source?.destroy()
    this.#stream?.destroy()
  }

  #open(): Readable {
    const source = createReadStream(pathBytes(this.path), { highWaterMark: CHUNK_BYTES })
    const stream = decompressorOf(this.path, this.#file.head)!
    const fails = (error: Error): void => {
      this.#failure = `${shown(this.path)} is read no further than ${this.#end} bytes: ${error.message}`
      this.wake()
    }
    source.on('error', fails)
    stream.on('error', fails)
    stream.on('readable', () => this.wake())
    stream.on('end', () => {
      this.#isEnded = true
      this.wake()
    })
    source.pipe(stream)
    this.#source = source
    return stream
  }

  #finish(): void {
    if (this.isDone) return
    this.isDone = true
    this.close()
    this.#file.onEnd(this)
  }
}
