/**
 * How records lie in a segment: `u32 len | u32 crc32 | u64 seq | u32 count | payload`, little endian; `len` is the payload's, the checksum is of everything
 * behind it. The payload is when it was taken (u64, milliseconds) and `count` lines, numbered from `seq`. A payload without lines is a hole: numbers that
 * belong to no record any more. So the numbers of a segment have no gap but where it is damaged.
 */
import { crc32 } from 'node:zlib'

const HEAD_BYTES = 20
const TIME_BYTES = 8
/** what a frame needs beside its lines */
export const FRAME_BYTES = HEAD_BYTES + TIME_BYTES
const CHECKED_FROM = 8
/** read at once; also what is searched in one go for the next whole frame */
export const BLOCK_BYTES = 1 << 18
/** skipped where the disk cannot read */
const SECTOR_BYTES = 4096

export interface Frame {
  readonly at: number
  readonly end: number
  readonly seq: number
  readonly count: number
  /** milliseconds since the epoch */
  readonly time: number
  /** with their LFs; empty for a hole */
  readonly lines: Uint8Array
}

/** Bytes that are no frame. */
export interface Broken {
  readonly at: number
  readonly end: number
  readonly lines: null
}

/** The beginning of a frame; the lines follow it. */
export function frameHead(seq: number, count: number, time: number, lines: Uint8Array): Buffer {
  const head = Buffer.allocUnsafe(FRAME_BYTES)
  head.writeUInt32LE(TIME_BYTES + lines.length, 0)
  head.writeBigUInt64LE(BigInt(seq), 8)
  head.writeUInt32LE(count, 16)
  head.writeBigUInt64LE(BigInt(Math.max(0, Math.trunc(time))), HEAD_BYTES)
  head.writeUInt32LE(crc32(lines, crc32(head.subarray(CHECKED_FROM))), 4)
  return head
}

/** Everything from `from` to `to`, in order: frames, and what lies between them. `read` gives fewer bytes only at the end; it may throw what the disk says. */
export async function* scan(read: (at: number, bytes: number) => Promise<Buffer>, from: number, to: number): AsyncGenerator<Frame | Broken> {
  let block: Buffer = Buffer.alloc(0)
  let blockAt = from
  let brokenAt = -1
  /** Has the block these bytes of the file, or can it have them? */
  const has = async (at: number, bytes: number): Promise<boolean> => {
    blockAt = at
    block = bytes > to - at ? block.subarray(0, 0) : await read(at, Math.min(to - at, Math.max(bytes, BLOCK_BYTES))).catch(() => Buffer.alloc(0))
    return bytes <= block.length
  }
  const hasNow = (at: number, bytes: number): boolean => at >= blockAt && at + bytes <= blockAt + block.length
  for (let at = from; at < to; ) {
    let frame: Frame | null = null
    if (hasNow(at, HEAD_BYTES) || (await has(at, HEAD_BYTES))) {
      const whole = wholeBytes(block, at - blockAt, to - at)
      if (whole > 0 && (hasNow(at, whole) || (await has(at, whole)))) frame = frameAt(block, at - blockAt, whole, at)
    }
    if (frame === null) {
      if (brokenAt < 0) brokenAt = at
      at = hasNow(at, 1) || to - at < HEAD_BYTES ? at + 1 : Math.min(to, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES)
      continue
    }
    if (brokenAt >= 0) yield { at: brokenAt, end: at, lines: null }
    brokenAt = -1
    yield frame
    at = frame.end
  }
  if (brokenAt >= 0) yield { at: brokenAt, end: to, lines: null }
}

/** Length of the frame that may begin here; 0 where none can. */
function wholeBytes(block: Buffer, o: number, room: number): number {
  const length = block.readUInt32LE(o)
  const count = block.readUInt32LE(o + 16)
  if (length < TIME_BYTES || length > room - HEAD_BYTES || count === 0 || block.readUInt32LE(o + 12) >= 1 << 21) return 0
  return length > TIME_BYTES && count > length - TIME_BYTES ? 0 : HEAD_BYTES + length
}

function frameAt(block: Buffer, o: number, bytes: number, at: number): Frame | null {
  if (crc32(block.subarray(o + CHECKED_FROM, o + bytes)) !== block.readUInt32LE(o + 4)) return null
  return {
    at,
    end: at + bytes,
    seq: Number(block.readBigUInt64LE(o + 8)),
    count: block.readUInt32LE(o + 16),
    time: Number(block.readBigUInt64LE(o + HEAD_BYTES)),
    lines: block.subarray(o + FRAME_BYTES, o + bytes),
  }
}

/** Was a write cut off here, by a crash? Else these bytes were once whole. */
export function isTorn(bytes: Buffer): boolean {
  return bytes.length < HEAD_BYTES || bytes.readUInt32LE(0) > bytes.length - HEAD_BYTES || bytes.every((byte) => byte === 0)
}
