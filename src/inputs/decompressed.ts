/**
 * Standard input that may be compressed: gzip, and zstd where this Node has it, told by how the stream begins. Decompressed piece by piece as it is asked for, so that no
 * input takes more memory than another, whatever it unfolds to. What is not compressed is handed through.
 */
import type { Duplex } from 'node:stream'
import zlib, { createGunzip } from 'node:zlib'
import { timeOf, TIME_RECEIVED } from '../event.js'
import { type BootTime, type Input, type Notice, NOTICES_ONLY } from '../stage.js'

const PIECE_BYTES = 1 << 16
const magics = { gz: [0x1f, 0x8b], zst: [0x28, 0xb5, 0x2f, 0xfd] } as const
/** so much of a file tells */
export const MAGIC_BYTES = 4
const NOTHING = new Uint8Array(0)

/** By the ending of a file's name; null for what this Node has nothing for. */
export function unpackerOf(ending: string): Duplex | null {
  // in Node from 22.15
  const { createZstdDecompress } = zlib as { createZstdDecompress?: (options: object) => Duplex }
  const options = { chunkSize: PIECE_BYTES }
  return ending === 'gz' ? createGunzip(options) : ending === 'zst' ? (createZstdDecompress?.(options) ?? null) : null
}

/** By how it begins: null for what is not compressed, or not in a way that this Node knows; undefined while too little of it is there to tell. */
export function unpackerFor(head: Uint8Array): Duplex | null | undefined {
  for (const [ending, magic] of Object.entries(magics)) {
    if (!magic.every((byte, i) => i >= head.length || head[i] === byte)) continue
    const unpacker = unpackerOf(ending)
    if (unpacker !== null) return head.length < magic.length ? undefined : unpacker
  }
  return null
}

export class DecompressedInput implements Input {
  readonly #inner: Input
  /** null until the beginning of the stream is known */
  #isPlain: boolean | null = null
  #head: Uint8Array = NOTHING
  #chunk: Uint8Array = NOTHING
  #stream: Duplex | null = null
  #notices: readonly Notice[] = []
  #isWriting = false
  #isRead = false
  #isEnded = false
  #failure = ''
  #given = 0
  #wake: () => void = () => {}

  constructor(inner: Input) {
    this.#inner = inner
  }

  get name(): string {
    return this.#inner.name
  }
  get notices(): readonly Notice[] {
    return this.#notices
  }
  get chunk(): Uint8Array {
    return this.#isPlain === true && this.#chunk.length === 0 ? this.#inner.chunk : this.#chunk
  }
  get isDump(): boolean {
    return this.#inner.isDump
  }
  get isBusy(): boolean {
    return this.#inner.isBusy
  }
  get isLive(): boolean {
    return this.#inner.isLive
  }
  get netns(): number {
    return this.#inner.netns
  }
  get netnsName(): string {
    return this.#inner.netnsName
  }
  get ridPrefix(): string {
    return this.#inner.ridPrefix
  }
  get ridBy(): Input['ridBy'] {
    return this.#inner.ridBy
  }
  get offset(): number {
    return this.#inner.offset
  }
  set onIdle(call: () => void) {
    this.#inner.onIdle = call
  }

  next(): Promise<number> {
    this.#chunk = NOTHING
    return this.#isPlain === true ? this.#inner.next() : this.#isPlain === null ? this.#begin() : this.#unpacked()
  }

  receivedMicroseconds(): number {
    return this.#inner.receivedMicroseconds()
  }

  boot(): BootTime | null {
    return this.#inner.boot()
  }

  position(offset: number): unknown {
    return this.#inner.position(offset)
  }

  stop(): void {
    this.#inner.stop()
  }

  abort(): void {
    this.#inner.abort()
  }

  close(): void {
    this.#inner.close()
    this.#stream?.destroy()
  }

  /** Reads until the beginning tells: a pipe may bring it byte by byte. */
  async #begin(): Promise<number> {
    for (;;) {
      const n = await this.#inner.next()
      if (n < 0) return n
      this.#head = n === 0 ? this.#head : this.#head.length === 0 ? this.#inner.chunk.subarray(0, n) : Buffer.concat([this.#head, this.#inner.chunk.subarray(0, n)])
      const found = n === 0 ? null : unpackerFor(this.#head)
      if (found === undefined) {
        this.#head = this.#head.slice()
        continue
      }
      const head = this.#head
      this.#head = NOTHING
      this.#isPlain = found === null
      if (found === null) {
        this.#chunk = head
        return head.length
      }
      this.#open(found)
      this.#write(head)
      return this.#unpacked()
    }
  }

  #open(stream: Duplex): void {
    this.#stream = stream
    stream.on('readable', () => this.#wake())
    stream.on('end', () => {
      this.#isEnded = true
      this.#wake()
    })
    stream.on('error', (error) => {
      this.#failure = error.message
      this.#wake()
    })
  }

  #write(bytes: Uint8Array): void {
    this.#isWriting = true
    // the input reads into the same buffer again
    this.#stream!.write(Uint8Array.from(bytes), () => {
      this.#isWriting = false
      this.#wake()
    })
  }

  async #unpacked(): Promise<number> {
    this.#notices = []
    const stream = this.#stream!
    for (;;) {
      const bytes = stream.read() as Buffer | null
      if (bytes !== null) {
        this.#chunk = bytes
        this.#given += bytes.length
        return bytes.length
      }
      if (this.#failure !== '') return this.#broken()
      if (this.#isEnded) return 0
      if (this.#isWriting || this.#isRead) {
        await new Promise<void>((resolve) => (this.#wake = resolve))
        continue
      }
      const n = await this.#inner.next()
      this.#isRead = n === 0
      if (this.#isRead) stream.end()
      else if (n > 0) this.#write(this.#inner.chunk.subarray(0, n))
    }
  }

  #broken(): number {
    const diagnostic = `standard input is read no further than ${this.#given} bytes of what it unpacks to: ${this.#failure}`
    const gap = { ...timeOf(this.receivedMicroseconds()), timeSource: TIME_RECEIVED, cause: 'file_vanished' as const, count: -1, atLeast: 1, from: null, to: null, reason: diagnostic }
    this.#notices = [{ gap, diagnostic }]
    this.#failure = ''
    this.#isEnded = true
    return NOTICES_ONLY
  }
}
