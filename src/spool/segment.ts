/** A piece of the spool: a file, or memory that behaves like one, and what must be known of it without reading it. */
import type { FileHandle } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { BLOCK_BYTES } from './frame.js'
import type { Span } from './lines.js'

/** Of a segment in memory. */
const PIECE_BYTES = 1 << 16
const PIECE_BYTES_MIN = 1 << 12

/** Bytes that only grow at the end. */
export interface Bytes {
  /** Throws what the disk says; then any part may be there. */
  write(parts: readonly Uint8Array[], at: number): Promise<void>
  /** Fewer only at the end. */
  read(at: number, bytes: number): Promise<Buffer>
  sync(): Promise<void>
  truncate(bytes: number): Promise<void>
  close(): Promise<void>
}

/** A frame that is not known to be safe, to be written again elsewhere when the disk lets go of it. */
export interface Held {
  readonly end: number
  readonly parts: readonly Uint8Array[]
  /** its records; a hole may come before them */
  readonly firstSeq: number
  readonly seq: number
  readonly count: number
}

export class Segment {
  readonly id: number
  bytes: Bytes
  size = 0
  /** bytes that are safe */
  synced = 0
  held: Held[] = []
  /** numbers from here up to `nextSeq`, holes included */
  readonly firstSeq: number
  nextSeq: number
  /** records that wait */
  live = 0
  /** when the first and the last frame were taken, milliseconds; 0: not yet */
  firstTime = 0
  lastTime = 0
  /** of its records */
  span: Span = { from: null, to: null }
  /** it has nothing more that is shed first */
  isShed = false
  /** there is a file of this name; else it lives in memory for now */
  isOnDisk: boolean

  constructor(id: number, bytes: Bytes, firstSeq: number, isOnDisk: boolean) {
    this.id = id
    this.bytes = bytes
    this.firstSeq = firstSeq
    this.nextSeq = firstSeq
    this.isOnDisk = isOnDisk
  }
}

export class FileBytes implements Bytes {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async write(parts: readonly Uint8Array[], at: number): Promise<void> {
    const total = parts.reduce((sum, part) => sum + part.length, 0)
    let { bytesWritten: done } = await this.#handle.writev(parts, at)
    // a disk that fills up takes a part first, and says why with the next call
    if (done < total) {
      const rest = Buffer.concat(parts)
      while (done < total) done += (await this.#handle.write(rest, done, total - done, at + done)).bytesWritten
    }
  }

  async read(at: number, bytes: number): Promise<Buffer> {
    const block = Buffer.allocUnsafeSlow(bytes)
    let got = 0
    while (got < bytes) {
      const { bytesRead } = await this.#handle.read(block, got, bytes - got, at + got)
      if (bytesRead === 0) break
      got += bytesRead
    }
    return block.subarray(0, got)
  }

  sync(): Promise<void> {
    return this.#handle.datasync()
  }

  truncate(bytes: number): Promise<void> {
    return this.#handle.truncate(bytes)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

/** In pieces, so that it takes what it holds: one block that doubles took up to three times that while it grew. */
export class MemoryBytes implements Bytes {
  readonly #pieces: Buffer[] = []
  #size = 0

  write(parts: readonly Uint8Array[], at: number): Promise<void> {
    this.#size = at
    for (const part of parts) this.#add(part)
    return Promise.resolve()
  }

  #add(part: Uint8Array): void {
    for (let done = 0; done < part.length; ) {
      const index = Math.floor(this.#size / PIECE_BYTES)
      const within = this.#size - index * PIECE_BYTES
      const piece = this.#pieceFor(index, Math.min(PIECE_BYTES, within + part.length - done))
      const some = part.subarray(done, done + Math.min(part.length - done, PIECE_BYTES - within))
      piece.set(some, within)
      done += some.length
      this.#size += some.length
    }
  }

  /** With room for so many bytes. The first one grows: a spool that holds little is small. */
  #pieceFor(index: number, bytes: number): Buffer {
    const piece = this.#pieces[index]
    if (piece !== undefined && piece.length >= bytes) return piece
    const room = index > 0 ? PIECE_BYTES : Math.min(PIECE_BYTES, Math.max(bytes, 2 * (piece?.length ?? PIECE_BYTES_MIN / 2)))
    // what was read keeps the old one
    const fresh = Buffer.allocUnsafeSlow(room)
    if (piece !== undefined) fresh.set(piece)
    this.#pieces[index] = fresh
    return fresh
  }

  /** What is worked through block by block lets others have their turn between two, as a disk would. */
  async read(at: number, bytes: number): Promise<Buffer> {
    if (bytes >= BLOCK_BYTES) await setImmediate()
    const to = Math.min(at + bytes, this.#size)
    const parts: Buffer[] = []
    for (let from = at; from < to; ) {
      const index = Math.floor(from / PIECE_BYTES)
      const within = from - index * PIECE_BYTES
      const some = this.#pieces[index]!.subarray(within, Math.min(PIECE_BYTES, within + to - from))
      parts.push(some)
      from += some.length
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  sync(): Promise<void> {
    return Promise.resolve()
  }

  truncate(bytes: number): Promise<void> {
    this.#size = bytes
    this.#pieces.length = Math.ceil(bytes / PIECE_BYTES)
    return Promise.resolve()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
