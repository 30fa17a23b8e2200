/** Whether an input is understood: one of which nothing is, or nothing any more from some line on, says so to a person. Ignored lines of other matters are understood. */
import { isLogLine, looksLike } from '../formats/look-alike.js'

/** Of the first line so much is kept, and so much shown. */
const KEPT_BYTES = 1024
const SHOWN_CHARACTERS = 120
/** A few lines that nobody knows are a footer, or what somebody wrote below. */
const LINES_LEAST = 20
const NOTHING = new Uint8Array(0)
const decoder = new TextDecoder('utf-8')

export class Recognition {
  /** since the last line that was understood: how many were not, where the first of them is, and what it says */
  #unknown = 0
  #from = 0
  #first: Uint8Array = NOTHING
  #hasUnderstood = false

  understood(): void {
    this.#hasUnderstood = true
    this.#unknown = 0
  }

  /** A line that nobody knew. Empty ones tell nothing. */
  unknown(lineNumber: number, bytes: Uint8Array, at: number, lineEnd: number): void {
    if (this.#unknown === 0) {
      if (lineEnd - at < 2) return
      this.#from = lineNumber
      this.#first = bytes.slice(at, Math.min(lineEnd, at + KEPT_BYTES))
    }
    this.#unknown++
  }

  /** One sentence at the end of the input; '' where there is nothing to say. */
  sentence(formats: readonly string[]): string {
    if (this.#unknown === 0 || (this.#hasUnderstood && this.#unknown < LINES_LEAST)) return ''
    const line = decoder.decode(this.#first).trimEnd()
    if (isLogLine(line)) return ''
    const likely = looksLike(this.#first, line)
    const shown = JSON.stringify(line.slice(0, SHOWN_CHARACTERS)).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    const lines = `${this.#unknown.toLocaleString('en-US')} ${this.#unknown === 1 ? 'line' : 'lines'}`
    const what = this.#hasUnderstood ? `from line ${this.#from} on nothing is understood (${lines})` : `nothing is understood (${lines})`
    return `${what}; the first of them: ${shown}${likely === '' ? '' : `; it looks like ${likely}`}; looked for: ${formats.join(', ')}`
  }
}
