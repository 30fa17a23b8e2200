/** Pieces of a child's stdout cut into whole lines: the part behind the last LF waits for the next piece. */
import { LINE_BYTES_MAX } from '../../event.js'

const LF = 10
const SHOWN_BYTES = 1024

export class WholeLines {
  #carry: Uint8Array = new Uint8Array(0)
  /** of a line that became too long: its beginning and how long it is so far */
  #skipped: { readonly text: Uint8Array; bytes: number } | null = null
  readonly #onLong: (line: { readonly text: Uint8Array; readonly bytes: number }) => void

  constructor(onLong: (line: { readonly text: Uint8Array; readonly bytes: number }) => void) {
    this.#onLong = onLong
  }

  /** The whole lines there are now, in an array of their own or a part of `piece`; may be empty. */
  push(piece: Uint8Array): Uint8Array {
    let rest = piece
    if (this.#skipped !== null) {
      const lf = piece.indexOf(LF)
      this.#skipped.bytes += lf < 0 ? piece.length : lf
      if (lf < 0) return piece.subarray(0, 0)
      this.#onLong(this.#skipped)
      this.#skipped = null
      rest = piece.subarray(lf + 1)
    }
    const end = rest.lastIndexOf(LF) + 1
    if (end === 0) {
      this.#carry = joined(this.#carry, rest)
      if (this.#carry.length > LINE_BYTES_MAX) {
        this.#skipped = { text: this.#carry.slice(0, SHOWN_BYTES), bytes: this.#carry.length }
        this.#carry = new Uint8Array(0)
      }
      return piece.subarray(0, 0)
    }
    const lines = this.#carry.length === 0 ? rest.subarray(0, end) : joined(this.#carry, rest.subarray(0, end))
    this.#carry = rest.slice(end)
    return lines
  }

  /** Gives up a line that was cut off. True when there was one. */
  drop(): boolean {
    const had = this.#carry.length > 0 || this.#skipped !== null
    this.#carry = new Uint8Array(0)
    this.#skipped = null
    return had
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}
