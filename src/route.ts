/** Which records are written: the types of --emit, --transitions, the window of --since and --until, and the conditions of --where and `when`. */
import type { Condition, JsonRecord } from './conditions.js'
import { type FlowEvent, type RecordOrigin, type RecordType, type Time, FROM_NONE } from './event.js'

export const defaultTypes: readonly RecordType[] = ['flow', 'expect', 'kernel', 'alert', 'gap', 'table']

export interface RouteOptions {
  readonly emit: readonly RecordType[]
  readonly transitionsOnly: boolean
  /** microseconds since the epoch; -Infinity, Infinity: no bound */
  readonly since: number
  readonly until: number
  readonly where: readonly Condition[]
  /** of what is wanted, what this output gets: as `where`; empty: all */
  readonly when?: readonly Condition[]
}

export class Route {
  readonly #types: ReadonlySet<string>
  readonly #options: RouteOptions
  /** of the flow records: all, none, or some, for which each must be looked at */
  readonly flows: 'all' | 'none' | 'some'

  constructor(options: RouteOptions) {
    this.#options = options
    this.#types = new Set(options.emit)
    const { transitionsOnly, since, until, where, when = [] } = options
    const isFree = !transitionsOnly && since === -Infinity && until === Infinity
    if (!this.#types.has('flow') || takesFlows(where) === 'none' || takesFlows(when) === 'none') this.flows = 'none'
    else this.flows = isFree && takesFlows(where) === 'all' && takesFlows(when) === 'all' ? 'all' : 'some'
  }

  /** What is asked for together no record can have. */
  get isEmpty(): boolean {
    const { since, until, where, when = [] } = this.#options
    const takes = (conditions: readonly Condition[], type: RecordType): boolean => conditions.length === 0 || conditions.some(({ types }) => types.has(type))
    return since >= until || !this.#options.emit.some((type) => takes(where, type) && takes(when, type))
  }

  wantsFlow(event: FlowEvent, origin: RecordOrigin): boolean {
    const { transitionsOnly, where, when = [] } = this.#options
    if (this.flows === 'none' || (transitionsOnly && event.from === FROM_NONE) || !this.#inWindow(event)) return false
    return fitsFlow(where, event, origin) && fitsFlow(when, event, origin)
  }

  /** `look` gives the record as it is printed; it is asked only where a condition wants to know. */
  wants(type: RecordType, time: Time, look: () => JsonRecord): boolean {
    const { where, when = [] } = this.#options
    if (!this.#types.has(type) || !this.#inWindow(time)) return false
    return fits(where, type, look) && fits(when, type, look)
  }

  /** The same for a record that is read back, which may be a flow: `--transitions` looks at it too. */
  wantsPrinted(type: RecordType, time: Time, look: () => JsonRecord): boolean {
    if (type === 'flow' && (this.flows === 'none' || (this.#options.transitionsOnly && look()['transition'] === undefined))) return false
    return this.wants(type, time, look)
  }

  #inWindow(time: Time): boolean {
    const at = time.sec * 1e6 + time.usec
    return at >= this.#options.since && at < this.#options.until
  }
}

/** One of several conditions is enough. */
function takesFlows(conditions: readonly Condition[]): Route['flows'] {
  const withFlows = conditions.filter(({ types }) => types.has('flow'))
  if (conditions.length === 0 || withFlows.some(({ isOfTypes }) => isOfTypes)) return 'all'
  return withFlows.length === 0 ? 'none' : 'some'
}

function fitsFlow(conditions: readonly Condition[], event: FlowEvent, origin: RecordOrigin): boolean {
  return conditions.length === 0 || conditions.some((condition) => condition.types.has('flow') && condition.flow(event, origin))
}

function fits(conditions: readonly Condition[], type: RecordType, look: () => JsonRecord): boolean {
  if (conditions.length === 0) return true
  const fitting = conditions.filter(({ types }) => types.has(type))
  return fitting.some(({ isOfTypes }) => isOfTypes) || fitting.some(({ record }) => record(look()))
}
