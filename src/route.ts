/** Which records are written: the types of --emit, --transitions, the window of --since and --until, and the conditions of --where. Compiled once. */
import { type FlowEvent, type Time, alertRules, ctstateNames, DESTROY, endReasons, eventNames, FROM_NONE, gapCauses, kernelKinds, KEYS_PORTS } from './event.js'
import { protocolNames, states } from './kernel.js'

export const recordTypes = ['flow', 'expect', 'kernel', 'alert', 'gap', 'table', 'reject'] as const
export type RecordType = (typeof recordTypes)[number]
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

/** One --where: all of its keys must fit. Several: one of them. A record that has not got a key does not fit. */
export interface Condition {
  readonly types: ReadonlySet<string> | null
  /** it asks for nothing but types */
  readonly isOfTypes: boolean
  readonly flow: (event: FlowEvent) => boolean
  /** `input` is the name of the input that it is from, '' for none */
  readonly other: (record: OtherRecord, input: string) => boolean
}

/** Any record but a flow: an alert, a gap, a line of the kernel, a sample, an expectation, a reject. */
export type OtherRecord = Time & { readonly [key: string]: unknown }

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

  wantsFlow(event: FlowEvent): boolean {
    const { transitionsOnly, where, when = [] } = this.#options
    if (!this.#types.has('flow') || (transitionsOnly && event.from === FROM_NONE) || !this.#inWindow(event)) return false
    return fitsFlow(where, event) && fitsFlow(when, event)
  }

  wants(type: RecordType, record: Time, input: string): boolean {
    const { where, when = [] } = this.#options
    if (!this.#types.has(type) || !this.#inWindow(record)) return false
    return fits(where, type, record as OtherRecord, input) && fits(when, type, record as OtherRecord, input)
  }

  #inWindow(time: Time): boolean {
    const at = time.sec * 1e6 + time.usec
    return at >= this.#options.since && at < this.#options.until
  }
}

/** One of several conditions is enough. */
function takesFlows(conditions: readonly Condition[]): Route['flows'] {
  const withFlows = conditions.filter(({ types }) => types === null || types.has('flow'))
  if (conditions.length === 0 || withFlows.some(({ isOfTypes }) => isOfTypes)) return 'all'
  return withFlows.length === 0 ? 'none' : 'some'
}

function fitsFlow(conditions: readonly Condition[], event: FlowEvent): boolean {
  return conditions.length === 0 || conditions.some((c) => (c.types === null || c.types.has('flow')) && c.flow(event))
}

function fits(conditions: readonly Condition[], type: RecordType, record: OtherRecord, input: string): boolean {
  return conditions.length === 0 || conditions.some((c) => (c.types === null || c.types.has(type)) && c.other(record, input))
}

type Address = readonly [number, number, number, number]

/** Keys of other records than flows, with the values that they can have. */
const otherKeys: Readonly<Record<string, readonly string[]>> = {
  rule: alertRules,
  severity: ['info', 'warning', 'critical'],
  status: ['firing', 'resolved'],
  kind: kernelKinds,
  cause: gapCauses,
}

/** What each key of an expression is compared with; the value is checked when the expression is read. */
const keys: Readonly<Record<string, (value: string, key: string) => (event: FlowEvent) => boolean>> = {
  event: (value, key) => named(key, eventNames, value, (event) => event.event),
  family: (value) => {
    if (value !== 'ipv4' && value !== 'ipv6') throw new ConditionError('family', value, 'ipv4 or ipv6')
    return (event) => event.family === (value === 'ipv4' ? 4 : 6)
  },
  protocol: (value) => {
    const number = Number(Object.keys(protocolNames).find((key) => protocolNames[Number(key)] === value) ?? value)
    if (!Number.isInteger(number) || number < 0 || number > 255) throw new ConditionError('protocol', value, 'a name such as tcp, or a number up to 255')
    return (event) => event.protocol === number
  },
  state: (value, key) => namedStates(key, value, (event) => event.state),
  ctstate: (value, key) => named(key, ctstateNames, value, (event) => event.ctstate),
  from: (value, key) => namedStates(key, value, (event) => event.from),
  to: (value, key) => namedStates(key, value, (event) => (event.from === FROM_NONE ? -1 : event.state)),
  reason: (value, key) => named(key, endReasons, value, (event) => (event.event === DESTROY ? event.reason : -1)),
  src: (value, key) => network(key, value, (e) => [[e.orig.s0, e.orig.s1, e.orig.s2, e.orig.s3]]),
  dst: (value, key) => network(key, value, (e) => [[e.orig.d0, e.orig.d1, e.orig.d2, e.orig.d3]]),
  address: (value, key) => network(key, value, (e) => [e.orig, e.reply].flatMap((t): Address[] => [[t.s0, t.s1, t.s2, t.s3], [t.d0, t.d1, t.d2, t.d3]])),
  sport: (value, key) => port(key, value, (event) => [event.orig.k1]),
  dport: (value, key) => port(key, value, (event) => [event.orig.k2]),
  port: (value, key) => port(key, value, ({ orig, reply }) => [orig.k1, orig.k2, reply.k1, reply.k2]),
  zone: (value, key) => whole(key, value, 0xffff, (event) => (event.zone === 0 ? event.orig.zone : event.zone)),
  transition: (value, key) => {
    if (value !== 'true' && value !== 'false') throw new ConditionError(key, value, 'true or false')
    return (event) => (event.from !== FROM_NONE) === (value === 'true')
  },
}

export class ConditionError extends Error {
  constructor(key: string, value: string, expected: string) {
    super(`${key}=${value}: expected ${expected}`)
  }
}

/** `src=10.0.0.0/8 dport=443,8443 event=destroy`: keys are "and", values separated by commas are "or". Throws ConditionError. */
export function parseCondition(text: string): Condition {
  const parts = text
    .trim()
    .split(/\s+/)
    .map((part): readonly [string, readonly string[]] => {
      const equals = part.indexOf('=')
      const values = part.slice(equals + 1).split(',')
      if (equals < 1 || values.includes('')) throw new ConditionError(part, '', 'key=value')
      return [part.slice(0, equals), values]
    })
  return makeCondition(parts)
}

/** The same of keys, each with its values. Throws ConditionError. */
export function makeCondition(parts: readonly (readonly [key: string, values: readonly string[]])[]): Condition {
  let types: Set<string> | null = null
  const flow: ((event: FlowEvent) => boolean)[] = []
  const other: ((record: OtherRecord, input: string) => boolean)[] = []
  for (const [key, values] of parts) {
    if (key === 'type') {
      const unknown = values.find((value) => !(recordTypes as readonly string[]).includes(value))
      if (unknown !== undefined) throw new ConditionError('type', unknown, recordTypes.join(', '))
      types = new Set(values)
      continue
    }
    if (key === 'input') {
      flow.push((event) => values.includes(event.input))
      other.push((_record, input) => values.includes(input))
      continue
    }
    if (key === 'netns') {
      flow.push((event) => (event.netns !== 0 && values.includes(String(event.netns))) || (event.netnsName !== '' && values.includes(event.netnsName)))
      other.push((record) => (record['netns'] !== 0 && values.includes(String(record['netns']))) || values.includes(String(record['netnsName'])))
      continue
    }
    const known = otherKeys[key]
    if (known !== undefined) {
      const unknown = values.find((value) => !known.includes(value))
      if (unknown !== undefined) throw new ConditionError(key, unknown, known.join(', '))
      other.push((record) => values.includes(record[key] as string))
      flow.push(() => false)
      continue
    }
    const make = keys[key]
    if (make === undefined) throw new ConditionError(key, values.join(','), `one of the keys type, input, netns, ${[...Object.keys(keys), ...Object.keys(otherKeys)].join(', ')}`)
    const alternatives = values.map((value) => make(value, key))
    flow.push((event) => alternatives.some((test) => test(event)))
    other.push(() => false)
  }
  return { types, isOfTypes: flow.length === 0, flow: (event) => flow.every((test) => test(event)), other: (record, input) => other.every((test) => test(record, input)) }
}

function named(key: string, names: readonly string[], value: string, of: (event: FlowEvent) => number): (event: FlowEvent) => boolean {
  const index = names.indexOf(value)
  if (index < 0) throw new ConditionError(key, value, names.join(', '))
  return (event) => of(event) === index
}

/** A word such as NONE or ESTABLISHED is a state of several protocols. */
function namedStates(key: string, value: string, of: (event: FlowEvent) => number): (event: FlowEvent) => boolean {
  if (!states.includes(value)) throw new ConditionError(key, value, 'a state such as ESTABLISHED or TIME_WAIT')
  return (event) => states[of(event)] === value
}

function port(key: string, value: string, of: (event: FlowEvent) => readonly number[]): (event: FlowEvent) => boolean {
  const [from, to = from] = value.split('-').map(Number)
  if (!(from! >= 0 && to! <= 0xffff && from! <= to!)) throw new ConditionError(key, value, 'a port, or two joined by -, up to 65535')
  return (event) => event.orig.keys === KEYS_PORTS && of(event).some((number) => number >= from! && number <= to!)
}

function whole(key: string, value: string, max: number, of: (event: FlowEvent) => number): (event: FlowEvent) => boolean {
  const number = Number(value)
  if (!Number.isInteger(number) || number < 0 || number > max) throw new ConditionError(key, value, `a whole number up to ${max}`)
  return (event) => of(event) === number
}

function network(key: string, value: string, of: (event: FlowEvent) => readonly Address[]): (event: FlowEvent) => boolean {
  const [text, length] = value.split('/') as [string, string | undefined]
  const address = parseAddress(text)
  const bits = length === undefined ? (address?.family === 6 ? 128 : 32) : /^\d+$/.test(length) ? Number(length) : NaN
  if (address === null || !(bits <= (address.family === 6 ? 128 : 32))) throw new ConditionError(key, value, 'an address or network such as 10.0.0.0/8 or fd00::/8')
  const prefix = address.family === 6 ? bits : bits + 96
  return (event) => event.family === address.family && of(event).some((words) => words.every((part, i) => ((part ^ address.words[i]!) & maskWord(prefix - i * 32)) === 0))
}

function maskWord(bits: number): number {
  return bits >= 32 ? -1 : bits <= 0 ? 0 : -1 << (32 - bits)
}

function parseAddress(text: string): { family: 4 | 6; words: Address } | null {
  const four = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)
  if (four !== null) {
    const parts = four.slice(1).map(Number)
    return parts.some((part) => part > 255) ? null : { family: 4, words: [0, 0, 0, parts.reduce((sum, part) => (sum << 8) | part, 0)] }
  }
  if (!/^[0-9a-f:]+$/i.test(text) || !text.includes(':')) return null
  const halves = text.split('::')
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')))
  const given = groups.flat()
  if (halves.length > 2 || given.some((group) => !/^[0-9a-f]{1,4}$/i.test(group)) || (halves.length === 1 ? given.length !== 8 : given.length > 7)) return null
  const all = [...groups[0]!, ...Array<string>(8 - given.length).fill('0'), ...(groups[1] ?? [])].map((group) => parseInt(group, 16))
  const word = (i: number): number => (all[i * 2]! << 16) | all[i * 2 + 1]!
  return { family: 6, words: [word(0), word(1), word(2), word(3)] }
}
