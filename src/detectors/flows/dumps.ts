/**
 * Dumps of a namespace's whole table that the program asks for while it follows the events: which flows were seen since the dump began, in a row or an event, and
 * which have ended since.
 *
 * Each namespace has a mark, a bit that all its flows carry alike. A dump begins by turning the mark over, and whatever is seen gets the new one; so there is
 * nothing to reset, and new flows that come while the table is swept for the others are right from the start. The sweep goes in pieces.
 */
import { type FlowEvent, HAS_ID } from '../../event.js'
import type { FlowTable } from './table.js'

/** In the flags of a record, beside those of the table: the mark. */
export const FLAG_MARK = 1024

/** Ends that are remembered while a dump goes on; a row behind it may bring back a flow until the next dump. */
const ENDED_MAX = 1 << 18
const ID_KEY = 1 << 21

interface Sweep {
  readonly netns: number
  /** flows not seen are gone; else they only get the mark */
  readonly whole: boolean
  place: number
}

export class Dumps {
  /** Is there a dump or a sweep of any namespace? */
  isBusy = false
  readonly #table: FlowTable
  readonly #forget: (ref: number) => void
  /** mark of a namespace; of a scope, and its namespace */
  readonly #marks = new Map<number, number>()
  readonly #scopeMarks: number[] = []
  readonly #scopeNetns: number[] = []
  /** keys of flows that ended since the namespace's dump began */
  readonly #open = new Map<number, Set<number>>()
  readonly #sweeps: Sweep[] = []

  /** `forget` takes a flow that is gone out of the table. */
  constructor(table: FlowTable, forget: (ref: number) => void) {
    this.#table = table
    this.#forget = forget
  }

  /** Scopes are numbered as they come. */
  addScope(netns: number): void {
    this.#scopeNetns.push(netns)
    this.#scopeMarks.push(this.#marks.get(netns) ?? 0)
  }

  /** The mark that a new flow of this scope must carry. */
  markOf(scope: number): number {
    return this.#scopeMarks[scope]!
  }

  begin(netns: number): void {
    if (this.#open.has(netns)) this.end(netns, false)
    // an unfinished sweep knows its flows by the mark that is turned over now
    while (this.#sweeps.some((sweep) => sweep.netns === netns)) this.sweep(Infinity)
    this.#turn(netns)
    this.#open.set(netns, new Set())
    this.isBusy = true
  }

  /** `whole`: flows that were not seen since it began are gone. */
  end(netns: number, whole: boolean): void {
    if (!this.#open.delete(netns)) return
    this.#sweeps.push({ netns, whole, place: 0 })
  }

  isOpen(scope: number): boolean {
    return this.#open.has(this.#scopeNetns[scope]!)
  }

  /** An event of a flow with an open dump: it wins over rows that come later. */
  sawEvent(event: FlowEvent, ref: number, hasEnded: boolean): void {
    if (ref !== 0) this.saw(ref, event.scope)
    if (!hasEnded) return
    const ended = this.#open.get(this.#scopeNetns[event.scope]!)!
    if (ended.size < ENDED_MAX) ended.add(keyOf(event))
  }

  saw(ref: number, scope: number): void {
    this.#table.setFlags(ref, this.#scopeMarks[scope]!, FLAG_MARK)
  }

  wasSeen(ref: number): boolean {
    return (this.#table.flags(ref) & FLAG_MARK) === this.#scopeMarks[this.#table.kind(ref) >>> 8]
  }

  /** Has the flow of this row ended since the dump began? */
  hasEnded(row: FlowEvent): boolean {
    return this.#open.get(this.#scopeNetns[row.scope]!)!.has(keyOf(row))
  }

  /** Looks at so many places of the table. True when there is more to do. */
  sweep(places: number): boolean {
    const sweep = this.#sweeps[0]
    if (sweep !== undefined) {
      const table = this.#table
      for (const end = sweep.place + places; sweep.place < end && sweep.place < table.places; sweep.place++) {
        const ref = table.at(sweep.place)
        if (ref === 0 || this.#scopeNetns[table.kind(ref) >>> 8] !== sweep.netns || this.wasSeen(ref)) continue
        if (sweep.whole) this.#forget(ref)
        else this.saw(ref, table.kind(ref) >>> 8)
      }
      if (sweep.place >= table.places) this.#sweeps.shift()
    }
    this.isBusy = this.#open.size > 0 || this.#sweeps.length > 0
    return this.#sweeps.length > 0
  }

  #turn(netns: number): void {
    const mark = (this.#marks.get(netns) ?? 0) ^ FLAG_MARK
    this.#marks.set(netns, mark)
    for (const [scope, of] of this.#scopeNetns.entries()) if (of === netns) this.#scopeMarks[scope] = mark
  }
}

/** Tuple and id: the hash that the table has just computed, and as much of the id as a number holds exactly. */
function keyOf(event: FlowEvent): number {
  return (event.hash >>> 0) * ID_KEY + ((event.has & HAS_ID) === 0 ? 0 : event.id & (ID_KEY - 1))
}
