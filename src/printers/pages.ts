/**
 * The pages that records are printed into: a ring in one constant buffer. A page is full when it holds PAGE_BYTES; it goes to the outputs as it lies, and is
 * printed into again when the last of them has released it. While none is free nothing is printed, and so nothing is read.
 */
import { RECORD_BYTES_MAX } from '../event.js'

/** A page is handed on at this size. 64 KiB is what a pipe holds. */
const PAGE_BYTES = 1 << 16
/** Behind it there is room for the record that fills it. */
const STRIDE = PAGE_BYTES + RECORD_BYTES_MAX
const PAGES = 8
const SLACK = 16

export const out = new Uint8Array(SLACK + PAGES * STRIDE + SLACK)
export const outView = new DataView(out.buffer)

/** Where the next byte goes. In a field of its own object: the printer reads and writes it for every record. */
export const pen = { at: SLACK }

/** A run of whole lines in `out`. */
export interface PrintedPage {
  readonly index: number
  readonly from: number
  readonly to: number
}

export class Pages {
  #index = 0
  readonly #holders = new Int32Array(PAGES)

  constructor() {
    pen.at = SLACK
  }

  get isFull(): boolean {
    return pen.at - this.#base >= PAGE_BYTES
  }

  get isEmpty(): boolean {
    return pen.at === this.#base
  }

  /** May the current page be taken, that is, is there another to go on with? */
  get canTurn(): boolean {
    return this.#holders[(this.#index + 1) % PAGES] === 0
  }

  /** Takes what is printed so far, to be released `holders` times, and goes on with the next page. */
  turn(holders: number): PrintedPage {
    const page = { index: this.#index, from: this.#base, to: pen.at }
    this.#holders[this.#index] = holders
    this.#index = (this.#index + 1) % PAGES
    pen.at = this.#base
    return page
  }

  release(page: PrintedPage): void {
    this.#holders[page.index]--
  }

  get #base(): number {
    return SLACK + this.#index * STRIDE
  }
}
