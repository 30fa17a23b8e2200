/**
 * From pieces of a byte stream to whole lines: lays what was left over and the new piece into `page` and says how far the lines in it are whole. The line that is
 * cut off is kept until its rest comes. (After ripgrep's line buffer: one search for the last LF of a piece, none for each line.)
 */
import { BATCH_AT, page } from './event.js'

const LF = 10
/** Of an over-long line so much is kept to show. */
const SHOWN_BYTES = 1024

export interface LongLine {
  readonly text: Uint8Array
  readonly bytes: number
}

export class Frame {
  /** whole lines are in `page` from here to `end` */
  readonly at = BATCH_AT
  end = BATCH_AT
  /** bytes of the stream before `page[at]` */
  offset: number
  /** an over-long line that ended in the last piece, for one batch */
  longLine: LongLine | null = null
  /** where in `page` what follows the whole lines ends */
  #filled = BATCH_AT
  /** made when first needed: of thousands of followed files few are cut in the middle of a line */
  #carry = new Uint8Array(0)
  #carried = 0
  #skipped: { text: Uint8Array; bytes: number } | null = null

  readonly #lineBytesMax: number

  constructor(offset: number, lineBytesMax: number) {
    this.offset = offset
    this.#lineBytesMax = lineBytesMax
  }

  /** Lays the next piece. Its bytes may be overwritten afterwards. */
  lay(piece: Uint8Array): void {
    this.longLine = null
    let from = 0
    if (this.#skipped !== null) {
      const lf = piece.indexOf(LF)
      if (lf < 0) {
        this.#skipped.bytes += piece.length
        this.#nothing()
        return
      }
      this.longLine = { text: this.#skipped.text, bytes: this.#skipped.bytes + lf }
      this.offset += this.longLine.bytes + 1
      this.#skipped = null
      from = lf + 1
    }
    page.set(this.#carry.subarray(0, this.#carried), BATCH_AT)
    page.set(from === 0 ? piece : piece.subarray(from), BATCH_AT + this.#carried)
    this.#filled = BATCH_AT + this.#carried + piece.length - from
    this.#carried = 0
    this.end = lastLineEnd(this.#filled)
    if (this.end === BATCH_AT && this.#filled - BATCH_AT > this.#lineBytesMax) this.#skip()
  }

  /** The batch is done up to `from` (`end`, or the beginning of a line that waits for the next): keeps the rest. */
  keep(from: number): void {
    const length = this.#filled - from
    if (length > this.#carry.length) this.#carry = new Uint8Array(Math.max(length, this.#carry.length * 2, 4096))
    this.#carry.set(page.subarray(from, this.#filled), 0)
    this.#carried = length
    this.offset += from - BATCH_AT
    this.end = BATCH_AT
    this.#filled = BATCH_AT
    this.longLine = null
  }

  /** The stream has ended: what is left becomes the last line, with the LF that it lacks. */
  finish(): void {
    this.longLine = null
    if (this.#skipped !== null) {
      this.longLine = { text: this.#skipped.text, bytes: this.#skipped.bytes }
      this.offset += this.longLine.bytes + 1
      this.#skipped = null
      this.#nothing()
      return
    }
    page.set(this.#carry.subarray(0, this.#carried), BATCH_AT)
    this.#filled = BATCH_AT + this.#carried
    this.#carried = 0
    if (this.#filled > BATCH_AT && page[this.#filled - 1] !== LF) page[this.#filled++] = LF
    this.end = this.#filled
  }

  /** The stream has ended, and what is left of it is not to be read. */
  drop(): void {
    this.longLine = null
    this.#skipped = null
    this.#carried = 0
    this.#nothing()
  }

  /** Nothing but a line without an end, longer than allowed: from here on it is only counted. */
  #skip(): void {
    this.#skipped = { text: page.slice(BATCH_AT, BATCH_AT + SHOWN_BYTES), bytes: this.#filled - BATCH_AT }
    this.#nothing()
  }

  #nothing(): void {
    this.end = BATCH_AT
    this.#filled = BATCH_AT
  }
}

function lastLineEnd(filled: number): number {
  return filled === BATCH_AT ? BATCH_AT : Math.max(page.lastIndexOf(LF, filled - 1) + 1, BATCH_AT)
}
