/**
 * The JSON Schema of our records, as data: what `conntrail schema record` prints, and what the tests hold everything that is written against.
 *
 * Releases to come may add keys, types of records and, where a value's known words stand under `examples`, words: the schema lets all of them pass. A key that has
 * `enum` or `const` is closed until `v` changes.
 */
import { alertRules, type CounterName, counterNames, ctstateNames, endReasons, eventNames, gapCauses, kernelKinds, timeSourceNames } from './event.js'
import { protocolNames, states } from './kernel.js'

/** As in JSON Schema, draft 2020-12. */
export type JsonSchema = { readonly [keyword: string]: unknown }
type Properties = Readonly<Record<string, JsonSchema>>

const text = (description: string, more: JsonSchema = {}): JsonSchema => ({ type: 'string', description, ...more })
const word = (description: string, words: readonly string[]): JsonSchema => text(description, { enum: words })
/** Further words may come in any release. */
const openWord = (description: string, words: readonly string[]): JsonSchema => text(description, { examples: words })
const count = (description: string, more: JsonSchema = {}): JsonSchema => ({ type: 'integer', minimum: 0, description, ...more })
const number = (description: string, more: JsonSchema = {}): JsonSchema => ({ type: 'number', minimum: 0, description, ...more })
const yes = (description: string): JsonSchema => ({ type: 'boolean', const: true, description })
const time = (description: string): JsonSchema =>
  text(`${description}, RFC 3339 in UTC with microseconds`, { format: 'date-time', pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}Z$' })
const object = (description: string, properties: Properties, required: readonly string[] = []): JsonSchema => ({
  type: 'object',
  description,
  properties,
  ...(required.length === 0 ? {} : { required }),
})
const list = (description: string, items: JsonSchema): JsonSchema => ({ type: 'array', description, items })

const stateWords = [...new Set(states)]
const protocolWords = [...Object.values(protocolNames), 'unknown']
const number64 = ' (64 bits: not to be read as a double)'

const netns = count('inode number of the network namespace; it identifies one only together with its name and the time', { minimum: 1, maximum: 0xffffffff })
const netnsName = text('name of the network namespace')

/** On every record, in this order, and where they apply. */
const common: Properties = {
  time: time('when it happened'),
  type: text('type of record'),
  v: { type: 'integer', const: 1, description: 'version of this schema; it changes when something is taken away or changes its meaning' },
  rid: text('id of the record: the same when the same input is read again or a delivery is repeated, never the same for two different records', { minLength: 1, maxLength: 40 }),
  host: text('name of the host: that the line names, else of the one that this runs on; (others): of several beyond those that are told apart'),
  input: text('name of the input'),
  netns,
  netns_name: netnsName,
}

const timeSource: Properties = {
  time_source: openWord(
    "where the time comes from if not from the line: local (a wall clock without zone or year), boot (the kernel's clock, and this host's boot), estimated (the kernel's clock, and the file's age), received (of the read, or of the file), neighbour (of the line before or behind: its own cannot be read)",
    timeSourceNames.filter((name) => name !== ''),
  ),
}

const keys: Properties = {
  sport: count('source port', { maximum: 0xffff }),
  dport: count('destination port', { maximum: 0xffff }),
  type: count('ICMP type', { maximum: 0xff }),
  code: count('ICMP code', { maximum: 0xff }),
  id: count('ICMP id', { maximum: 0xffff }),
  srckey: text('GRE source key, hex', { pattern: '^0x[0-9a-f]+$' }),
  dstkey: text('GRE destination key, hex', { pattern: '^0x[0-9a-f]+$' }),
}

const ends: Properties = { src: text('source address'), dst: text('destination address') }
const zone = count('connection tracking zone', { minimum: 1, maximum: 0xffff })

const tuple = (description: string): JsonSchema =>
  object(
    description,
    { ...ends, ...keys, zone: { ...zone, description: 'connection tracking zone of this direction alone' }, packets: count(`packets${number64}`), bytes: count(`bytes${number64}`) },
    ['src', 'dst'],
  )

const family = word('address family', ['ipv4', 'ipv6'])
const protocol = openWord('name of the protocol', protocolWords)
const protocolNumber = count('IANA number of the protocol', { maximum: 0xff })
const timeout = count('seconds left')
const helper = text('name of the connection tracking helper')

const flow: Properties = {
  event: word('what happened to the flow; entry: a row of the table', eventNames),
  family,
  protocol,
  protocol_number: protocolNumber,
  timeout,
  state: openWord("the protocol's state, or UNREPLIED, REPLIED, ASSURED where it has none", stateWords),
  ctstate: word('what a firewall rule would match', ctstateNames),
  orig: tuple('the direction of the first packet'),
  reply: tuple('the direction of the answers'),
  unreplied: yes('no answer was seen'),
  assured: yes('not removed early when the table is full'),
  offload: word('handled by a flow table: in software, in hardware', ['sw', 'hw']),
  mark: count('mark of the connection', { maximum: 0xffffffff }),
  zone,
  secmark: count('security mark', { maximum: 0xffffffff }),
  secctx: text('security context'),
  helper,
  labels: list('names of the labels that are set; empty where they have no names', text('name of a label')),
  use: count("the kernel's references to the entry"),
  id: count("the kernel's id of the entry, which it uses again at once: join on flow", { maximum: 0xffffffff }),
  start: time('when the entry was made'),
  stop: time('when the entry was removed'),
  delta_time: count('seconds from start to stop or to the row'),
  flow: text('the same on all records of one life of a connection', { pattern: '^[0-9a-f]{16}$' }),
  extra: {
    type: 'object',
    description: "what a vendor's kernel adds behind the tuples: words with a value, and true for those without; at most 1,024 bytes, else it is left out",
    additionalProperties: { anyOf: [{ type: 'string' }, { const: true }] },
  },
  by: object('the process that caused the event; empty where only that there was one is known', { portid: count('its netlink port id', { maximum: 0xffffffff }), progname: text('its name') }),
  transition: object(
    'the change of state that this event is',
    {
      from: { type: ['string', 'null'], description: 'state before; null: the flow was not seen before', examples: stateWords },
      to: openWord('state now', stateWords),
      after: number('seconds since the change of state before'),
    },
    ['from', 'to'],
  ),
  nat: object(
    'the translation: what the other side sees',
    { kind: word('which ends are translated', ['snat', 'dnat', 'both']), ...Object.fromEntries(Object.entries({ ...ends, ...keys }).filter(([key]) => key !== 'type' && key !== 'code')) },
    ['kind'],
  ),
  end: object(
    'how the flow ended',
    {
      reason: openWord('why, the first that fits', endReasons),
      duration: number('seconds from the first packet to the removal, with the time that the entry was idle at the end'),
      idle: number('seconds since the last change of state'),
    },
    ['reason'],
  ),
  ...timeSource,
}

const expectTuple = (description: string): JsonSchema => object(description, { ...ends, ...keys }, ['src', 'dst'])

const expectation: Properties = {
  event: word('what happened to the expectation; entry: a row of the table', eventNames),
  family,
  protocol,
  protocol_number: protocolNumber,
  timeout,
  tuple: expectTuple('the connection that is expected'),
  mask: expectTuple('which bits of it count'),
  master: expectTuple('the connection that it belongs to'),
  zone,
  flags: list('flags, in lower case', text('flag')),
  class: count("the helper's class"),
  helper,
  ...timeSource,
}

const packetNumbers: Readonly<Record<string, string>> = {
  type: 'ICMP type',
  code: 'ICMP code',
  vid: 'VLAN id',
  len: 'length of the packet',
  tos: 'type of service',
  prec: 'precedence',
  ttl: 'time to live',
  id: 'id of the packet',
  tc: 'traffic class',
  hoplimit: 'hop limit',
  flowlbl: 'flow label',
  payload_len: 'length behind the IP header',
  seq: 'TCP sequence number, or that of an ICMP echo',
  ack: 'TCP acknowledgement number',
  window: 'TCP window',
  res: 'reserved TCP bits',
  urgp: 'TCP urgent pointer',
  icmp_id: 'ICMP id',
  parameter: 'ICMP parameter',
  mtu: 'MTU that an ICMP error tells',
  uid: 'user that sent it',
  gid: 'group that sent it',
  mark: 'mark of the packet',
}

const packetTexts: Readonly<Record<string, string>> = {
  physin: 'bridge port that it came in by',
  physout: 'bridge port that it leaves by',
  mac: 'link-layer header',
  macsrc: 'link-layer source',
  macdst: 'link-layer destination',
  macproto: 'link-layer protocol',
  vproto: 'VLAN protocol',
  frag: 'fragment offset',
  options: 'IP options, hex',
  tcp_options: 'TCP options, hex',
  gateway: 'gateway that an ICMP redirect tells',
  spi: 'IPsec SPI',
}

const mapped = (names: Readonly<Record<string, string>>, make: (description: string) => JsonSchema): Properties =>
  Object.fromEntries(Object.entries(names).map(([name, description]) => [name, make(description)]))

const packet: Properties = {
  reason: text('why it is invalid'),
  prefix: text('prefix of the log rule'),
  in: text('interface that it came in by'),
  out: text('interface that it leaves by'),
  ...ends,
  protocol: text('protocol, in lower case; its number where it has no name here'),
  sport: keys['sport']!,
  dport: keys['dport']!,
  flags: list('TCP flags', text('flag')),
  ...mapped(packetNumbers, count),
  ...mapped(packetTexts, text),
  ...mapped({ ce: 'congestion experienced', df: 'must not be fragmented', mf: 'more fragments follow' }, yes),
  inner: object('the packet that an ICMP error is about, with the same keys', {}),
}

const kernelLine: Properties = {
  kind: openWord('what the line says', kernelKinds),
  priority: count('syslog priority: 0 emergency to 7 debug', { maximum: 7 }),
  facility: count('syslog facility: 0 is the kernel'),
  seq: count("sequence number of the kernel's log"),
  monotonic: number("seconds of the kernel's clock since boot"),
  message: text('the message as it stands'),
  repeat: count('copies, where a logger folded them', { minimum: 1 }),
  count: count('messages that the rate limiter held back, of all kinds and namespaces'),
  buckets: count('buckets of the hash table'),
  max: count('entries that the table may have'),
  packet: object('the packet that the line is about', packet),
  ctstate: word('of invalid packets', ['INVALID']),
  ...timeSource,
}

const alert: Properties = {
  rule: openWord('what was found', alertRules),
  status: word('whether the episode goes on', ['firing', 'resolved']),
  final: yes('the input ended while the episode was open'),
  unconfirmed: yes('only a file that any program can write says so, and the counters do not'),
  episode: text('the same for all notices of an episode', { pattern: '^[0-9a-f]{16}$' }),
  seq: count('number of the notice within its episode, from 1', { minimum: 1 }),
  severity: word('the same throughout an episode', ['info', 'warning', 'critical']),
  started: time('first evidence'),
  ended: time('last evidence; with status resolved'),
  summary: text('the same for people'),
  drops: object('what the episode cost', {
    logged: count('lines of a full table'),
    suppressed: count("what the kernel's rate limiter says that it held back, of all kinds and namespaces: never proof"),
    at_least: count('the bound that holds'),
    estimate: count('logged and suppressed; absent where that cannot be right'),
    counted: count("packets that the kernel's own counter says were dropped"),
    early: count('entries that the kernel removed early to make room'),
    races: count('insertions that failed; counted includes them'),
    since: time('where the counters were not watched from the start: since when'),
  }),
  table: object('the table at that moment', { count: count('entries'), max: count('entries that it may have') }, ['count', 'max']),
  top_at: time('when the table was fullest in this episode, as far as it was seen: `top` is of then'),
  top: list(
    'who held most of the entries then',
    object(
      'one holder',
      {
        by: openWord('what is counted: source address, destination address, destination address with port and protocol, protocol and state', ['src', 'dst', 'service', 'state']),
        value: text('which one'),
        entries: count('how many entries'),
        share: number("of the kernel's count then; where that is not known, of the entries that were known", { maximum: 1 }),
        known: count('entries that were known, where share is of these'),
        new: count('of the entries: opened since the episode began; where a flow input runs'),
        unreplied: count('of the entries: without an answer'),
      },
      ['by', 'value', 'entries', 'share', 'unreplied'],
    ),
  ),
  ...timeSource,
}

const gap: Properties = {
  cause: openWord('how it was lost', gapCauses),
  count: count('how many, exactly'),
  at_least: count('how many at least, where no exact number is known'),
  from: time('begin of the time in which it was lost'),
  to: time('end of that time'),
  output: text('name of the output that lost it'),
  reason: text('why that output lost it'),
  ...timeSource,
}

const counters: Readonly<Record<CounterName, string>> = {
  drop: 'packets dropped: table full, or a lost race of an insertion',
  early_drop: 'entries removed early to make room',
  insert_failed: 'insertions that failed',
  chaintoolong: 'packets dropped because a hash chain was too long',
  invalid: 'packets that cannot be tracked',
  error: 'ICMP errors that belong to nothing',
  found: 'lookups that found an entry',
  clash_resolve: 'races of an insertion that were resolved',
  search_restart: 'lookups that had to begin anew',
  expect_new: 'connections that were expected',
  expect_create: 'expectations made',
  expect_delete: 'expectations removed',
}

const table: Properties = {
  count: count('entries'),
  max: count('entries that the table may have'),
  usage: number('count / max'),
  buckets: count('buckets of the hash table'),
  drop: count('packets dropped since the sample before'),
  early_drop: count('entries removed early since the sample before'),
  insert_failed: count('insertions that failed since the sample before'),
  rate: object('a second, since the sample before', {
    new: number('flows that began'),
    destroy: number('flows that ended'),
    drop: number('packets dropped'),
  }),
  full_in: number('seconds until the table is full, only while it is heading there'),
  total: object(
    "the kernel's own counters, summed over CPUs and unwrapped since the watching began",
    Object.fromEntries(counterNames.map((name) => [name, count(counters[name])])),
  ),
  ...timeSource,
}

const reject: Properties = {
  line: count('number of the line in its input, from 1', { minimum: 1 }),
  reason: text('what is wrong with it'),
  text: text('its first 1,024 bytes'),
  truncated: yes('text is not the whole line'),
  bytes: count('length of the whole line'),
  ...timeSource,
}

/** By type: what stands behind the common keys, and which keys are always there. */
const types: Readonly<Record<string, { readonly description: string; readonly properties: Properties; readonly required: readonly string[] }>> = {
  flow: {
    description: 'one connection tracking event or row of the table',
    properties: flow,
    required: ['event', 'family', 'protocol', 'protocol_number', 'ctstate', 'orig', 'reply', 'flow'],
  },
  expect: { description: 'one event or row of the expectations of helpers', properties: expectation, required: ['event', 'family', 'protocol', 'protocol_number', 'tuple'] },
  kernel: { description: 'one line of the kernel log about connection tracking', properties: kernelLine, required: ['kind', 'message'] },
  alert: { description: 'an episode opened, changed or closed', properties: alert, required: ['rule', 'status', 'episode', 'seq', 'severity', 'started', 'summary'] },
  gap: { description: 'input or output known to be lost', properties: gap, required: ['cause'] },
  table: { description: "a sample of the kernel's own numbers", properties: table, required: [] },
  reject: { description: 'a line that begins like one of ours and breaks its grammar', properties: reject, required: ['line', 'reason', 'text'] },
}

/** One record: `$defs` has each type whole, the common keys included. */
export const recordSchema: JsonSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'conntrail record',
  description: 'One line of the output. Skip keys, types and words that are not known here: later releases may add some.',
  type: 'object',
  properties: { ...common, type: openWord('type of record', Object.keys(types)) },
  required: ['time', 'type', 'v'],
  allOf: Object.keys(types).map((type) => ({ if: { properties: { type: { const: type } } }, then: { $ref: `#/$defs/${type}` } })),
  $defs: Object.fromEntries(
    Object.entries(types).map(([type, { description, properties, required }]) => [
      type,
      {
        type: 'object',
        description,
        properties: { ...common, type: { ...common['type'], const: type }, ...properties },
        required: ['time', 'type', 'v', ...required],
      },
    ]),
  ),
}
