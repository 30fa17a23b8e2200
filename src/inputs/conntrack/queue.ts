/**
 * What was read of the tool and the loop has not asked for yet, in the order of reading: lines of events, rows of dumps, and notices.
 *
 * Events cannot wait in the kernel, so they wait here, up to a number of bytes. Beyond it whole flows are shed: lines whose original tuple has a hash of the wrong
 * residue, first half of the flows, then three quarters, and so on; what waits already is thinned out by the same rule, some blocks at a time, so that no read
 * pays for all of it. Rows are asked for, so they are never shed: their reader stops reading.
 */
import type { Notice } from '../../stage.js'

const LF = 10
const BLANK = 32
const BLOCK_BYTES = 1 << 16
/** Blocks that are thinned out with each read, until all of them are. */
const THIN_BLOCKS = 8
/** Of 2 to the power of this, one flow is kept at least. */
const LEVEL_MAX = 8

interface Block {
  notice: Notice | null
  bytes: Uint8Array
  /** what is left is from here to `end` */
  from: number
  end: number
  isRows: boolean
  /** of the read */
  readonly at: number
}

/** Lines that were shed since it was last told, and from when to when. */
export interface Shed {
  readonly lines: number
  readonly fromMs: number
  readonly toMs: number
}

export interface Taken {
  readonly bytes: number
  readonly notices: readonly Notice[]
  readonly isRows: boolean
  /** when the first of the bytes was read */
  readonly at: number
}

export class LineQueue {
  /** bytes of events, and of rows, that wait */
  eventBytes = 0
  rowBytes = 0
  readonly #max: number
  readonly #clock: () => number
  #blocks: Block[] = []
  #head = 0
  /** one flow in 2^level is kept; 0: all are */
  #level = 0
  /** the block to be thinned out next; none from the end on */
  #thinAt = Infinity
  #shed = 0
  #shedFrom = 0
  #shedTo = 0

  /** `max`: bytes of events at most. `clock` gives milliseconds that go on evenly, and so do all moments here. */
  constructor(max: number, clock: () => number) {
    this.#max = max
    this.#clock = clock
  }

  get isEmpty(): boolean {
    return this.#head === this.#blocks.length
  }

  /** Are lines being shed? Until three quarters of the queue are free again. */
  get isShedding(): boolean {
    return this.#level > 0
  }

  addNotice(notice: Notice): void {
    this.#blocks.push({ notice, bytes: NOTHING, from: 0, end: 0, isRows: false, at: this.#clock() })
  }

  /** Whole lines of rows, owned by the queue from here on. */
  addRows(bytes: Uint8Array, at: number): void {
    this.rowBytes += bytes.length
    this.#blocks.push({ notice: null, bytes, from: 0, end: bytes.length, isRows: true, at })
  }

  /** Whole lines of events; they are copied. */
  addEvents(lines: Uint8Array): void {
    let bytes = this.#level === 0 ? lines : this.#thinned(lines)
    for (let n = 0; n < THIN_BLOCKS && this.#thinAt < this.#blocks.length; n++) this.#thinNext()
    while (this.eventBytes + bytes.length > this.#max) {
      if (this.#level > 0 && this.#thinAt < this.#blocks.length) {
        this.#thinNext()
      } else if (this.#level < LEVEL_MAX) {
        this.#level++
        this.#thinAt = this.#head
        bytes = this.#thinned(bytes)
      } else {
        this.#count(linesIn(bytes))
        return
      }
    }
    this.#append(bytes)
  }

  /** The notices that come next, and behind them as many whole lines of one kind as there are and fit in. */
  take(into: Uint8Array): Taken {
    const notices: Notice[] = []
    while (!this.isEmpty && this.#blocks[this.#head]!.notice !== null) notices.push(this.#next().notice!)
    const first = this.#blocks[this.#head]
    let filled = 0
    while (first !== undefined && !this.isEmpty) {
      const block = this.#blocks[this.#head]!
      if (block.notice !== null || block.isRows !== first.isRows) break
      const n = this.#fitting(block, into.length - filled, filled === 0)
      if (n === 0 && block.from < block.end) break
      into.set(block.bytes.subarray(block.from, block.from + n), filled)
      filled += n
      block.from += n
      if (block.isRows) this.rowBytes -= n
      else this.eventBytes -= n
      if (block.from < block.end) break
      this.#next()
    }
    if (this.#level > 0 && this.eventBytes <= this.#max / 4) {
      this.#level = 0
      this.#thinAt = Infinity
    }
    return { bytes: filled, notices, isRows: first?.isRows ?? false, at: first?.at ?? 0 }
  }

  /** What was shed since the last call; null when nothing. */
  takeShed(): Shed | null {
    if (this.#shed === 0) return null
    const shed = { lines: this.#shed, fromMs: this.#shedFrom, toMs: this.#shedTo }
    this.#shed = 0
    return shed
  }

  /** When the first of the lines was shed that were not told yet; 0 when there are none. */
  get shedSince(): number {
    return this.#shed === 0 ? 0 : this.#shedFrom
  }

  #next(): Block {
    const block = this.#blocks[this.#head++]!
    if (this.#head === this.#blocks.length || this.#head >= 1024) {
      this.#blocks = this.#blocks.slice(this.#head)
      this.#thinAt = Math.max(0, this.#thinAt - this.#head)
      this.#head = 0
    }
    return block
  }

  #append(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.eventBytes += bytes.length
    const last = this.#head < this.#blocks.length ? this.#blocks[this.#blocks.length - 1]! : null
    if (last !== null && last.notice === null && !last.isRows && last.bytes.length - last.end >= bytes.length) {
      last.bytes.set(bytes, last.end)
      last.end += bytes.length
      return
    }
    const block = new Uint8Array(Math.max(BLOCK_BYTES, bytes.length))
    block.set(bytes)
    this.#blocks.push({ notice: null, bytes: block, from: 0, end: bytes.length, isRows: false, at: this.#clock() })
  }

  /** How much of the block fits: whole lines, unless a line is longer than all the room there is. */
  #fitting(block: Block, room: number, isFirst: boolean): number {
    const left = block.end - block.from
    if (left <= room) return left
    const lf = block.bytes.lastIndexOf(LF, block.from + room - 1)
    return lf >= block.from ? lf + 1 - block.from : isFirst ? room : 0
  }

  #thinNext(): void {
    if (this.#thinAt < this.#head) this.#thinAt = this.#head
    const block = this.#blocks[this.#thinAt++]
    if (block === undefined || block.notice !== null || block.isRows) return
    const before = block.end - block.from
    const kept = this.#thinned(block.bytes.subarray(block.from, block.end))
    if (kept.length === before) return
    // of just its size: a block that is half empty would keep its memory
    block.bytes = kept.slice()
    block.from = 0
    block.end = kept.length
    this.eventBytes -= before - kept.length
  }

  /** Without the lines of the flows that are shed at this level, which are counted. */
  #thinned(lines: Uint8Array): Uint8Array {
    const kept = new Uint8Array(lines.length)
    const mask = (1 << this.#level) - 1
    let filled = 0
    let shed = 0
    for (let at = 0; at < lines.length; ) {
      const lf = lines.indexOf(LF, at)
      const end = lf < 0 ? lines.length : lf + 1
      if ((flowHash(lines, at, end) & mask) === 0) {
        kept.set(lines.subarray(at, end), filled)
        filled += end - at
      } else {
        shed++
      }
      at = end
    }
    this.#count(shed)
    return kept.subarray(0, filled)
  }

  #count(lines: number): void {
    if (lines === 0) return
    this.#shedTo = this.#clock()
    if (this.#shed === 0) this.#shedFrom = this.#shedTo
    this.#shed += lines
  }
}

const NOTHING = new Uint8Array(0)

function linesIn(bytes: Uint8Array): number {
  let lines = 0
  for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) lines++
  return lines
}

/** Of the line's original tuple, the same on all lines of a flow: from `src=` to a counter, a flag in brackets or the second `src=`. */
function flowHash(bytes: Uint8Array, from: number, end: number): number {
  let at = from
  while (at < end && !isSrc(bytes, at)) at++
  let hash = 0x811c9dc5
  for (; at < end; at++) {
    const c = bytes[at]!
    // ` [UNREPLIED]`, ` packets=`, ` src=`; not ` sport=`
    if (c === BLANK && (bytes[at + 1] === 91 || bytes[at + 1] === 112 || isSrc(bytes, at + 1))) break
    hash = Math.imul(hash ^ c, 0x01000193)
  }
  // the low bits of this hash alone are poor
  hash ^= hash >>> 15
  hash = Math.imul(hash, 0x85ebca6b)
  return hash ^ (hash >>> 13)
}

function isSrc(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 115 && bytes[at + 1] === 114 && bytes[at + 2] === 99 && bytes[at + 3] === 61
}
