/** What was lost, summed until it is told: one report for a burst, and while it lasts seldomer and seldomer. */
import { evenMilliseconds } from '../clock.js'
import type { Loss } from '../stage.js'
import { type Span, spanOfBoth } from './lines.js'

const FIRST_MS = 1000
const LATER_MS_MAX = 60_000
/** A report is as safe as the checkpoint that follows the record made of it; by the second one it is. */
const SYNCS = 2

export class Losses {
  readonly #tell: (loss: Loss) => void
  #untold = new Map<string, Loss>()
  #told: { readonly loss: Loss; syncs: number }[] = []
  #timer: NodeJS.Timeout | null = null
  #wait = FIRST_MS
  #toldAt = 0
  #isEnding = false
  /** all there was, by reason */
  readonly sums: Record<string, number> = {}
  /** something changed since it was saved */
  isUnsaved = false

  constructor(tell: (loss: Loss) => void) {
    this.#tell = tell
  }

  add(count: number, reason: string, span: Span): void {
    if (count === 0) return
    this.sums[reason] = (this.sums[reason] ?? 0) + count
    merge(this.#untold, { count, reason, from: span.from, to: span.to })
    this.isUnsaved = true
    if (this.#timer !== null || this.#isEnding) return
    this.#wait = evenMilliseconds() - this.#toldAt > 2 * this.#wait ? FIRST_MS : Math.min(LATER_MS_MAX, this.#wait * 2)
    this.#timer = setTimeout(() => this.tell(), this.#wait).unref()
  }

  /** Hands on all that is not told yet. */
  tell(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#toldAt = evenMilliseconds()
    const losses = [...this.#untold.values()]
    this.#untold = new Map()
    for (const loss of losses) {
      this.#told.push({ loss, syncs: 0 })
      this.#tell(loss)
    }
  }

  /** The same for the last time: a record made of what comes later would not reach every output any more, and the next start tells it. */
  tellLast(): void {
    this.#isEnding = true
    this.tell()
  }

  /** What must be told again after a crash now, by reason. */
  get unsafe(): Loss[] {
    const all = new Map<string, Loss>()
    for (const { loss } of this.#told) merge(all, loss)
    for (const loss of this.#untold.values()) merge(all, loss)
    return [...all.values()]
  }

  synced(): void {
    const before = this.#told.length
    for (const told of this.#told) told.syncs++
    this.#told = this.#told.filter(({ syncs }) => syncs < SYNCS)
    if (this.#told.length < before) this.isUnsaved = true
  }

  /** Nothing is told any more; what was told is taken to be safe. */
  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#told = []
  }
}

function merge(into: Map<string, Loss>, loss: Loss): void {
  const before = into.get(loss.reason)
  into.set(loss.reason, before === undefined ? loss : { ...loss, count: before.count + loss.count, ...spanOfBoth(before, loss) })
}
