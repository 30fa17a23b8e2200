/**
 * Conditions on records, the words of `--where` and `when:`: one table of keys, with what each is on, which values it takes and where in a record it looks. The
 * command line, the configuration, its schema and the filter all read this table, so that none accepts what another does not know.
 *
 * A condition sees what the printed record shows. Flow records are the many: they are looked at as events, before they are printed; every other record as JSON.
 */
import { isIn, type Network, parseAddress, parseNetwork } from './address.js'
import {
  type FlowEvent,
  type RecordOrigin,
  type RecordType,
  type Tuple,
  alertRules,
  alertStatuses,
  ctstateNames,
  DESTROY,
  endReasons,
  eventNames,
  FROM_NONE,
  gapCauses,
  kernelKinds,
  KEYS_PORTS,
  laterAlertRules,
  recordTypes,
  severities,
} from './event.js'
import { protocolNames, states } from './kernel.js'
import { meantOrExpected, nearest } from './nearest.js'

/** One --where or one entry of `when`: all of its keys must fit. Of several conditions one is enough. A record that has not got a key does not fit. */
export interface Condition {
  /** what can fit */
  readonly types: ReadonlySet<RecordType>
  /** it asks for nothing but types */
  readonly isOfTypes: boolean
  /** names of the inputs that it asks for */
  readonly inputs: readonly string[]
  readonly flow: (event: FlowEvent, origin: RecordOrigin) => boolean
  readonly record: (record: JsonRecord) => boolean
}

/** A record as it is printed, read back. */
export type JsonRecord = Readonly<Record<string, unknown>>

/** A value as it stands in a configuration or on the command line, checked: words as the records write them. Plain data. */
export type ConditionValue = string | number | boolean | Range | Network
interface Range {
  readonly from: number
  readonly to: number
}

/** Keys with their values, checked: of one key "or". */
export type ConditionData = Readonly<Record<string, readonly ConditionValue[]>>

export interface ConditionKey {
  readonly name: string
  /** in a line */
  readonly says: string
  /** what a value must be */
  readonly expected: string
  /** the words that it may be, and all where nothing else is taken; null: they cannot be counted */
  readonly words: readonly string[] | null
  /** what else than a text a value may be in a configuration */
  readonly also: 'number' | 'boolean' | null
  /** types of record that it is on */
  readonly types: readonly RecordType[]
  /** null: that is none */
  readonly read: (value: unknown) => ConditionValue | null
  /** a word that no record of this release has */
  readonly isLater: (value: unknown) => boolean
  /** for flow events, where it is on them, and for records as printed */
  readonly onFlow: (wanted: readonly ConditionValue[]) => (event: FlowEvent, origin: RecordOrigin) => boolean
  readonly onRecord: (wanted: readonly ConditionValue[]) => (record: JsonRecord) => boolean
}

type Rest = Omit<ConditionKey, 'name' | 'says' | 'types' | 'onFlow' | 'onRecord'>

const never = (): false => false

function at(record: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => (typeof value === 'object' && value !== null ? (value as JsonRecord)[key] : undefined), record)
}

/* Kinds of values. */

/** Words in any case. */
function wordsOf(words: readonly string[], expected = words.length === 2 ? words.join(' or ') : `one of ${words.join(', ')}`, later: readonly string[] = []): Rest {
  const inAnyCase = (all: readonly string[], value: unknown): string | undefined => all.find((word) => typeof value === 'string' && word.toLowerCase() === value.toLowerCase())
  return { expected, words, also: null, read: (value) => inAnyCase(words, value) ?? null, isLater: (value) => inAnyCase(later, value) !== undefined }
}

function namesOf(expected: string): Rest {
  return { expected, words: null, also: null, read: (value) => (typeof value === 'string' && /^[^\x00-\x1f\x7f]+$/.test(value) ? value : null), isLater: never }
}

/** An inode number, or a name. */
function namespacesOf(expected: string): Rest {
  const names = namesOf(expected)
  const read = (value: unknown): ConditionValue | null => {
    if (typeof value !== 'number' && !/^\d+$/.test(String(value))) return names.read(value)
    const number = Number(value)
    return Number.isInteger(number) && number >= 1 && number <= 0xffffffff ? String(number) : null
  }
  return { ...names, also: 'number', read }
}

/** Whole numbers, ranges of them (`8000-8080`), and what else `other` knows. */
function numbersOf(max: number, expected: string, other: (value: string) => number | null = () => null): Rest {
  const read = (value: unknown): Range | null => {
    if (typeof value !== 'number' && typeof value !== 'string') return null
    const [, first, last = first] = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(String(value)) ?? []
    const [from, to] = first === undefined ? [other(String(value)), other(String(value))] : [Number(first), Number(last)]
    return from === null || to === null || from > to || to > max ? null : { from, to }
  }
  return { expected, words: null, also: 'number', read, isLater: never }
}

const NETWORK_EXPECTED = 'an address or network such as 10.0.0.0/8 or fd00::/8'
const networks: Rest = { expected: NETWORK_EXPECTED, words: null, also: null, read: (value) => (typeof value === 'string' ? parseNetwork(value) : null), isLater: never }

const yesOrNo: Rest = {
  expected: 'true or false',
  words: ['true', 'false'],
  also: 'boolean',
  read: (value) => (typeof value === 'boolean' ? value : typeof value === 'string' && /^(?:true|false)$/i.test(value) ? value.toLowerCase() === 'true' : null),
  isLater: never,
}

/* How values are compared. */

type FlowTest = ConditionKey['onFlow']
type RecordTest = ConditionKey['onRecord']

const flowWord =
  (of: (event: FlowEvent, origin: RecordOrigin) => string | undefined): FlowTest =>
  (wanted) =>
  (event, origin) => {
    const word = of(event, origin)
    return word !== undefined && word !== '' && wanted.includes(word)
  }

const recordWord =
  (of: (record: JsonRecord) => unknown): RecordTest =>
  (wanted) =>
  (record) =>
    wanted.includes(of(record) as ConditionValue)

const isWithin = (wanted: readonly Range[], number: unknown): boolean => typeof number === 'number' && wanted.some(({ from, to }) => number >= from && number <= to)

const flowNumbers =
  (of: (event: FlowEvent) => readonly number[]): FlowTest =>
  (wanted) =>
  (event) =>
    of(event).some((number) => isWithin(wanted as readonly Range[], number))

const recordNumbers =
  (of: (record: JsonRecord) => readonly unknown[]): RecordTest =>
  (wanted) =>
  (record) =>
    of(record).some((number) => isWithin(wanted as readonly Range[], number))

const isSource = (network: Network, family: number, { s0, s1, s2, s3 }: Tuple): boolean => isIn(network, family, s0, s1, s2, s3)
const isDestination = (network: Network, family: number, { d0, d1, d2, d3 }: Tuple): boolean => isIn(network, family, d0, d1, d2, d3)

const flowAddresses =
  (fits: (network: Network, event: FlowEvent) => boolean): FlowTest =>
  (wanted) =>
  (event) =>
    (wanted as readonly Network[]).some((network) => fits(network, event))

const recordAddresses =
  (of: (record: JsonRecord) => readonly unknown[]): RecordTest =>
  (wanted) =>
  (record) =>
    of(record).some((text) => {
      const words = typeof text === 'string' ? parseAddress(text) : null
      return words !== null && (wanted as readonly Network[]).some((network) => isIn(network, (text as string).includes(':') ? 6 : 4, words[0]!, words[1]!, words[2]!, words[3]!))
    })

/* Where a record has what is asked for. */

const FLOW = ['flow'] as const
/** They have a protocol, addresses and ports in common: a flow's original direction, the connection that is expected, the packet that the kernel logged. */
const WITH_PACKET = ['flow', 'expect', 'kernel'] as const
const FLOW_AND_EXPECT = ['flow', 'expect'] as const

/** In a record of each type `key` of the tuple that counts. */
const ofTuple = (key: string) => (record: JsonRecord): readonly unknown[] => [at(record, 'orig', key), at(record, 'tuple', key), at(record, 'packet', key)]
const ofAll = (keys: readonly string[]) => (record: JsonRecord): readonly unknown[] =>
  ['orig', 'reply', 'tuple', 'master', 'packet'].flatMap((part) => keys.map((key) => at(record, part, key)))

/** Of GRE and ICMP the keys are no ports. */
const portsOf = (...ports: readonly ((event: FlowEvent) => number)[]) => (event: FlowEvent): readonly number[] => (event.orig.keys === KEYS_PORTS ? ports.map((port) => port(event)) : [])

const zonesOf = (zones: readonly unknown[]): readonly unknown[] => {
  const given = zones.filter((zone) => zone !== undefined && zone !== 0)
  // records leave out a zone of 0
  return given.length === 0 ? [0] : given
}

const numberByName = new Map(Object.entries(protocolNames).map(([number, name]) => [name, Number(number)]))
/** What the kernel's log target names beside them (net/netfilter/nf_log_syslog.c). */
const loggedNames = new Map([...numberByName, ['esp', 50], ['ah', 51]])

const protocolOf = (record: JsonRecord): unknown => {
  const logged = at(record, 'packet', 'protocol')
  return record['protocol_number'] ?? (typeof logged === 'string' ? (loggedNames.get(logged) ?? Number(logged)) : undefined)
}

const STATE_EXPECTED = 'a state such as ESTABLISHED or TIME_WAIT'
const stateWords = [...new Set(states)]
const ctstateWords = [...ctstateNames, 'INVALID']
const PORT_EXPECTED = 'a port, or two joined by -, up to 65535'
const PROTOCOL_EXPECTED = `a protocol's name (${Object.values(protocolNames).join(', ')}), or a number up to 255, or two joined by -`

const portKey = { ...numbersOf(0xffff, PORT_EXPECTED), types: WITH_PACKET }

const table: Readonly<Record<string, Omit<ConditionKey, 'name'>>> = {
  type: { says: 'type of record', types: recordTypes, ...wordsOf(recordTypes), onFlow: flowWord(() => 'flow'), onRecord: recordWord((record) => record['type']) },
  host: {
    says: 'name of the host, where records carry it',
    types: recordTypes,
    ...namesOf('the name of a host'),
    onFlow: flowWord((_, { host }) => host),
    onRecord: recordWord((record) => record['host']),
  },
  input: {
    says: 'name of the input that the record is from, where records carry it',
    types: recordTypes,
    ...namesOf('the name of an input'),
    onFlow: flowWord((_, { input }) => input),
    onRecord: recordWord((record) => record['input']),
  },
  netns: {
    says: 'network namespace, by inode number or name',
    types: recordTypes,
    ...namespacesOf('the inode number or the name of a network namespace'),
    onFlow: (wanted) => {
      const numbers = wanted.map(Number)
      return (_, { netns, netnsName }) => (netns !== 0 && numbers.includes(netns)) || (netnsName !== '' && wanted.includes(netnsName))
    },
    onRecord: (wanted) => (record) => wanted.includes(String(record['netns'] ?? '')) || wanted.includes(record['netns_name'] as string),
  },
  netns_name: {
    says: 'network namespace, by name',
    types: recordTypes,
    ...namesOf('the name of a network namespace'),
    onFlow: flowWord((_, { netnsName }) => netnsName),
    onRecord: recordWord((record) => record['netns_name']),
  },
  event: {
    says: 'event of a flow or an expectation; entry: a row of the table',
    types: FLOW_AND_EXPECT,
    ...wordsOf(eventNames),
    onFlow: flowWord((event) => eventNames[event.event as 0]),
    onRecord: recordWord((record) => record['event']),
  },
  family: {
    says: 'address family of a flow or an expectation',
    types: FLOW_AND_EXPECT,
    ...wordsOf(['ipv4', 'ipv6']),
    onFlow: flowWord(({ family }) => (family === 4 ? 'ipv4' : 'ipv6')),
    onRecord: recordWord((record) => record['family']),
  },
  protocol: {
    says: 'protocol, by name, number or range of numbers',
    types: WITH_PACKET,
    ...numbersOf(0xff, PROTOCOL_EXPECTED, (value) => numberByName.get(value.toLowerCase()) ?? null),
    words: [...numberByName.keys()],
    onFlow: flowNumbers(({ protocol }) => [protocol]),
    onRecord: recordNumbers((record) => [protocolOf(record)]),
  },
  state: {
    says: 'state of a flow',
    types: FLOW,
    ...wordsOf(stateWords, STATE_EXPECTED),
    onFlow: flowWord(({ state }) => states[state]),
    onRecord: recordWord((record) => record['state']),
  },
  ctstate: {
    says: 'what a firewall rule would match; INVALID: packets that the kernel logged',
    types: ['flow', 'kernel'],
    ...wordsOf(ctstateWords),
    onFlow: flowWord(({ ctstate }) => ctstateNames[ctstate as 0]),
    onRecord: recordWord((record) => record['ctstate']),
  },
  transition: {
    says: 'true: flow records in which the state changes; false: the others',
    types: FLOW,
    ...yesOrNo,
    onFlow: (wanted) => (event) => wanted.includes(event.from !== FROM_NONE),
    onRecord: (wanted) => (record) => wanted.includes(record['transition'] !== undefined),
  },
  from: {
    says: 'state that a flow leaves',
    types: FLOW,
    ...wordsOf(stateWords, STATE_EXPECTED),
    onFlow: flowWord(({ from }) => states[from]),
    onRecord: recordWord((record) => at(record, 'transition', 'from')),
  },
  to: {
    says: 'state that a flow enters',
    types: FLOW,
    ...wordsOf(stateWords, STATE_EXPECTED),
    onFlow: flowWord(({ from, state }) => (from === FROM_NONE ? undefined : states[state])),
    onRecord: recordWord((record) => at(record, 'transition', 'to')),
  },
  reason: {
    says: 'why a flow ended',
    types: FLOW,
    ...wordsOf(endReasons),
    onFlow: flowWord(({ event, reason }) => (event === DESTROY ? endReasons[reason] : undefined)),
    onRecord: recordWord((record) => at(record, 'end', 'reason')),
  },
  src: {
    says: 'source address or network: original, of what is expected, or of the packet that the kernel logged',
    types: WITH_PACKET,
    ...networks,
    onFlow: flowAddresses((network, { family, orig }) => isSource(network, family, orig)),
    onRecord: recordAddresses(ofTuple('src')),
  },
  dst: {
    says: 'destination address or network, of the same',
    types: WITH_PACKET,
    ...networks,
    onFlow: flowAddresses((network, { family, orig }) => isDestination(network, family, orig)),
    onRecord: recordAddresses(ofTuple('dst')),
  },
  address: {
    says: 'any address of either direction, or network',
    types: WITH_PACKET,
    ...networks,
    onFlow: flowAddresses((network, { family, orig, reply }) => [orig, reply].some((tuple) => isSource(network, family, tuple) || isDestination(network, family, tuple))),
    onRecord: recordAddresses(ofAll(['src', 'dst'])),
  },
  sport: { says: 'source port, or a range such as 1024-65535', ...portKey, onFlow: flowNumbers(portsOf(({ orig }) => orig.k1)), onRecord: recordNumbers(ofTuple('sport')) },
  dport: { says: 'destination port or range', ...portKey, onFlow: flowNumbers(portsOf(({ orig }) => orig.k2)), onRecord: recordNumbers(ofTuple('dport')) },
  port: {
    says: 'any port of either direction, or range',
    ...portKey,
    onFlow: flowNumbers(portsOf(({ orig }) => orig.k1, ({ orig }) => orig.k2, ({ reply }) => reply.k1, ({ reply }) => reply.k2)),
    onRecord: recordNumbers(ofAll(['sport', 'dport'])),
  },
  zone: {
    says: 'connection tracking zone or range, of either direction; 0: none',
    types: FLOW_AND_EXPECT,
    ...numbersOf(0xffff, 'a whole number from 0 to 65535, or two joined by -'),
    onFlow: flowNumbers(({ zone, orig, reply }) => zonesOf([zone, orig.zone, reply.zone]) as readonly number[]),
    onRecord: recordNumbers((record) => zonesOf([record['zone'], at(record, 'orig', 'zone'), at(record, 'reply', 'zone')])),
  },
  rule: {
    says: 'rule of an alert',
    types: ['alert'],
    ...wordsOf(alertRules, undefined, laterAlertRules),
    onFlow: () => never,
    onRecord: recordWord((record) => record['rule']),
  },
  severity: { says: 'severity of an alert', types: ['alert'], ...wordsOf(severities), onFlow: () => never, onRecord: recordWord((record) => record['severity']) },
  status: { says: 'status of an alert', types: ['alert'], ...wordsOf(alertStatuses), onFlow: () => never, onRecord: recordWord((record) => record['status']) },
  kind: { says: 'kind of a kernel record', types: ['kernel'], ...wordsOf(kernelKinds), onFlow: () => never, onRecord: recordWord((record) => record['kind']) },
  cause: { says: 'cause of a gap', types: ['gap'], ...wordsOf(gapCauses), onFlow: () => never, onRecord: recordWord((record) => record['cause']) },
}

/** All keys, in the order in which they are explained. */
export const conditionKeys: readonly ConditionKey[] = Object.entries(table).map(([name, key]) => ({ name, ...key }))

/** What is wrong with a key or a value of a condition. */
export class ConditionError extends Error {}

/** What a word is that a later release may make. */
export const LATER = 'no record has it: nothing in this release makes it'

/** `src=10.0.0.0/8 dport=443,8000-8080 event=destroy`: keys are "and", values separated by commas are "or". Throws ConditionError. */
export function parseCondition(text: string): Condition {
  return compiled(
    text
      .trim()
      .split(/\s+/)
      .map((part): readonly [string, readonly ConditionValue[]] => {
        const equals = part.indexOf('=')
        const values = part.slice(equals + 1).split(',')
        if (equals < 1 || values.includes('')) throw new ConditionError(`${part}: expected key=value`)
        const name = part.slice(0, equals).toLowerCase()
        const key = conditionKeys.find((each) => each.name === name)
        if (key === undefined) {
          throw new ConditionError(`${part}: there is no key ${name}; ${meantOrExpected(name, conditionKeys.map((each) => each.name))}`)
        }
        return [name, values.map((value) => readValue(key, value))]
      }),
  )
}

function readValue(key: ConditionKey, value: string): ConditionValue {
  if (key.isLater(value)) throw new ConditionError(`${key.name}=${value}: ${LATER}; expected ${key.expected}`)
  const read = key.read(value)
  if (read === null) {
    const meant = nearest(value, key.words ?? [])
    throw new ConditionError(`${key.name}=${value}: expected ${key.expected}${meant === undefined ? '' : `; did you mean "${meant}"?`}`)
  }
  return read
}

/** Compiles keys with their values, which are checked. Throws ConditionError where no record can fit. */
export function makeCondition(data: ConditionData): Condition {
  return compiled(Object.entries(data))
}

function compiled(parts: readonly (readonly [name: string, wanted: readonly ConditionValue[]])[]): Condition {
  const asked = parts.map(([name, wanted]) => ({ key: table[name]!, name, wanted }))
  const types = recordTypes.filter((type) => asked.every(({ name, key, wanted }) => (name === 'type' ? wanted.includes(type) : key.types.includes(type))))
  if (types.length === 0) {
    const needs = asked.filter(({ key }) => key.types.length < recordTypes.length).map(({ name, key }) => `${name} is on ${key.types.join(', ')}`)
    const given = asked.filter(({ name }) => name === 'type').map(({ wanted }) => `type is ${wanted.join(', ')}`)
    throw new ConditionError(`no record fits: ${[...given, ...needs].join('; ')}`)
  }
  const flows = asked.map(({ key, wanted }) => key.onFlow(wanted))
  const records = asked.map(({ key, wanted }) => key.onRecord(wanted))
  return {
    types: new Set(types),
    isOfTypes: asked.every(({ name }) => name === 'type'),
    inputs: asked.flatMap(({ name, wanted }) => (name === 'input' ? wanted.map(String) : [])),
    flow: (event, origin) => flows.every((fits) => fits(event, origin)),
    record: (record) => (types as readonly unknown[]).includes(record['type']) && records.every((fits) => fits(record)),
  }
}
