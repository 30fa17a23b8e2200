/** Lines that wait for others before it is known what they are: each comes out once, the first as what the record became, the others as understood. */
import type { Gap, KernelEvent, TableSample } from '../../event.js'
import { IGNORED, KERNEL, type LineContext, NOTE, type Outcome, type OwnRecord, type RECORD, REJECTED_LINE, type Settled } from '../../stage.js'

/** Of a rejected line so much is shown. */
const SHOWN_CHARACTERS = 1024

/** What a record became. */
export interface Finding {
  readonly outcome: typeof KERNEL | typeof NOTE | typeof RECORD | typeof IGNORED
  readonly kernel: KernelEvent | null
  readonly gap: Gap | null
  readonly sample: TableSample | null
  readonly record: OwnRecord | null
}

export const NOTHING: Finding = { outcome: IGNORED, kernel: null, gap: null, sample: null, record: null }

const UNDERSTOOD: Settled = { ...NOTHING, reason: '', text: '' }

/** Puts a finding about the line at hand into the context. */
export function give(found: Finding, context: LineContext): Outcome {
  context.kernel = found.kernel
  context.gap = found.gap
  context.sample = found.sample
  context.record = found.record
  return found.outcome
}

export class HeldLines {
  #first = ''
  /** lines held */
  count = 0

  hold(line: string): void {
    if (this.count === 0) this.#first = line.slice(0, SHOWN_CHARACTERS)
    this.count++
  }

  /** The record is whole, or none of ours. */
  settle(context: LineContext, found: Finding = NOTHING): void {
    if (this.count === 0) return
    context.settled.push(found === NOTHING ? UNDERSTOOD : { ...found, reason: '', text: '' })
    this.#rest(context)
  }

  /** The record breaks its grammar, or is cut off. */
  reject(context: LineContext, reason: string): void {
    if (this.count === 0) return
    context.settled.push({ ...NOTHING, outcome: REJECTED_LINE, reason, text: this.#first })
    this.#rest(context)
  }

  #rest(context: LineContext): void {
    for (let i = 1; i < this.count; i++) context.settled.push(UNDERSTOOD)
    this.count = 0
  }
}
