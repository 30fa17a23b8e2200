/** A piece of the spool: a file, or memory that behaves like one, and what must be known of it without reading it. */
import type { FileHandle } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { BLOCK_BYTES } from './frame.js'
import type { Span } from './lines.js'

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

export class MemoryBytes implements Bytes {
  #block = Buffer.allocUnsafeSlow(4096)
  #size = 0

  write(parts: readonly Uint8Array[], at: number): Promise<void> {
    const size = at + parts.reduce((sum, part) => sum + part.length, 0)
    if (size > this.#block.length) {
      // what was read keeps the old one
      const block = Buffer.allocUnsafeSlow(Math.max(size, this.#block.length * 2))
      block.set(this.#block.subarray(0, at))
      this.#block = block
    }
    for (let o = at, i = 0; i < parts.length; o += parts[i++]!.length) this.#block.set(parts[i]!, o)
    this.#size = size
    return Promise.resolve()
  }

  /** What is worked through block by block lets others have their turn between two, as a disk would. */
  async read(at: number, bytes: number): Promise<Buffer> {
    if (bytes >= BLOCK_BYTES) await setImmediate()
    return this.#block.subarray(at, Math.min(at + bytes, this.#size))
  }

  sync(): Promise<void> {
    return Promise.resolve()
  }

  truncate(bytes: number): Promise<void> {
    this.#size = bytes
    return Promise.resolve()
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
