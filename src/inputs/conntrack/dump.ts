/**
 * One reading of the whole table with `conntrack -L`, family after family. It is whole when the tool has ended well and shown as many rows as it says.
 *
 * Rows wait a moment before they are given: the events that made them what they are come through a pipe of their own, and must come first.
 */
import { evenMilliseconds } from '../../clock.js'
import { messageOf } from '../../stage.js'
import { Child, type ChildEnd, type Environment, howItEnded } from '../child.js'
import { WholeLines } from './lines.js'
import { isChatter, rowsShown } from './tool.js'

const LF = 10
/** Rows that wait here and in the queue; beyond it the tool is not read on. */
const ROWS_BYTES_MAX = 4 << 20
/** Without `-f` some old releases show IPv4 alone. */
const FAMILIES = ['ipv4', 'ipv6'] as const

export interface DumpOptions {
  argv(family: 'ipv4' | 'ipv6'): readonly string[]
  readonly env: Environment
  readonly comesFrom: string
  /** milliseconds without a byte, or an end, after which it is given up */
  readonly answerMs: number
  /** milliseconds; 0 gives rows at once */
  readonly holdMs: number
  /** whole rows, and when they were read by the even clock */
  onRows(rows: Uint8Array, at: number): void
  /** bytes of rows that wait for the loop */
  rowsWaiting(): number
  onLongLine(line: { readonly text: Uint8Array; readonly bytes: number }): void
  /** Not called behind `kill`. */
  onOver(over: DumpOver): void
}

export interface DumpOver {
  /** why it is not whole, behind `conntrack -L`; '' when it is */
  readonly failure: string
  /** how the tool ended; null where it was not started */
  readonly end: ChildEnd | null
  /** what the tool said about it, or '' */
  readonly words: string
}

export class TableDump {
  readonly #options: DumpOptions
  #child: Child | null = null
  #isOver = false
  #isPaused = false
  #held: { readonly rows: Uint8Array; readonly at: number }[] = []
  #heldBytes = 0
  #silence: NodeJS.Timeout | undefined

  constructor(options: DumpOptions) {
    this.#options = options
  }

  start(): void {
    this.#start(0)
  }

  /** The loop has taken some rows: there may be room for more. */
  readOn(): void {
    if (!this.#isPaused || this.#heldBytes + this.#options.rowsWaiting() > ROWS_BYTES_MAX / 2) return
    this.#isPaused = false
    this.#child?.resume()
    this.#awaitMore()
  }

  kill(): void {
    this.#isOver = true
    clearTimeout(this.#silence)
    this.#child?.kill()
  }

  #start(index: number): void {
    const { argv, env, comesFrom, onLongLine } = this.#options
    const lines = new WholeLines(onLongLine)
    let rows = 0
    let shown = -1
    let words = ''
    this.#child = new Child({
      argv: () => argv(FAMILIES[index]!),
      env,
      comesFrom,
      onBytes: (bytes) => {
        this.#awaitMore()
        const whole = lines.push(bytes)
        for (let at = whole.indexOf(LF); at >= 0; at = whole.indexOf(LF, at + 1)) rows++
        if (whole.length > 0) this.#hold(whole)
      },
      onStderr: (line) => {
        const n = rowsShown(line)
        if (n >= 0) shown = n
        else if (!isChatter(line)) words = line
      },
      onEnd: (end) => {
        clearTimeout(this.#silence)
        const isCut = lines.drop()
        let failure = ''
        if (end.status !== 0) failure = `${howItEnded(end)}${words === '' ? '' : `, saying: ${words}`}`
        else if (isCut) failure = 'ended within a row, which is cut off'
        else if (shown !== rows) failure = `showed ${rows} rows and says ${shown < 0 ? 'not how many' : shown}`
        // the last rows come before its end
        setTimeout(() => {
          if (this.#isOver) return
          this.#release(Infinity)
          if (failure === '' && index + 1 < FAMILIES.length) this.#start(index + 1)
          else this.#over({ failure, end, words })
        }, this.#options.holdMs)
        return false
      },
    })
    try {
      this.#child.start()
      this.#awaitMore()
    } catch (error) {
      this.#over({ failure: messageOf(error), end: null, words: '' })
    }
  }

  /** A tool that hangs is killed. While it is not read on it has to wait itself. */
  #awaitMore(): void {
    const { answerMs } = this.#options
    clearTimeout(this.#silence)
    if (this.#isPaused || this.#isOver) return
    this.#silence = setTimeout(() => {
      this.#child?.kill()
      this.#over({ failure: `has given nothing for ${answerMs / 1000} s and is killed`, end: null, words: '' })
    }, answerMs)
  }

  #over(over: DumpOver): void {
    this.#isOver = true
    this.#options.onOver(over)
  }

  #hold(rows: Uint8Array): void {
    const { holdMs, onRows, rowsWaiting } = this.#options
    if (holdMs === 0) {
      onRows(rows, evenMilliseconds())
    } else {
      this.#held.push({ rows, at: evenMilliseconds() })
      this.#heldBytes += rows.length
      if (this.#held.length === 1) this.#releaseLater()
    }
    if (!this.#isPaused && this.#heldBytes + rowsWaiting() > ROWS_BYTES_MAX) {
      this.#isPaused = true
      this.#child?.pause()
      clearTimeout(this.#silence)
    }
  }

  #releaseLater(): void {
    const { holdMs } = this.#options
    setTimeout(() => {
      if (this.#isOver) return
      this.#release(evenMilliseconds() - holdMs)
      if (this.#held.length > 0) this.#releaseLater()
    }, holdMs / 2)
  }

  /** Rows read until then go to the loop. */
  #release(until: number): void {
    const n = this.#held.findIndex(({ at }) => at > until)
    for (const { rows, at } of this.#held.splice(0, n < 0 ? this.#held.length : n)) {
      this.#heldBytes -= rows.length
      this.#options.onRows(rows, at)
    }
  }
}
