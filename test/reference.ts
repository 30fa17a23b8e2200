/**
 * A slow, obvious reference: connection tracking text in, the records of the contract out.
 *
 * The tests compare the program with it (captures, random streams, mutated lines). It shares no code
 * with the program, keeps everything in memory and prefers plain regular expressions to speed.
 * `flow` is a label such as "life-17": which records share one counts, not how it is spelled.
 */
import { isIPv4, isIPv6 } from 'node:net'

export interface ReferenceOptions {
  /** RFC 3339 with microseconds: the time of lines that have none. */
  readonly received: string
  /** IANA name of the zone of wall clocks without one; default UTC. */
  readonly timezone?: string
}

export interface ReferenceResult {
  readonly records: Record<string, unknown>[]
  readonly sums: {
    lines: number
    bytes: number
    flows: number
    expects: number
    kernel: number
    notes: number
    ignored: number
    rejected: number
    gaps: number
  }
  readonly rejects: { line: number; reason: string; text: string }[]
  /** For each record the line that it began in, counted from 1. */
  readonly places: number[]
  /** Flows that have not ended. */
  live: number
}

type Family = 'ipv4' | 'ipv6'
type Event = 'new' | 'update' | 'destroy' | 'entry'
type TimeSource = 'local' | 'received' | undefined

/** Microseconds since the epoch, and where they come from. */
interface Moment {
  readonly us: bigint
  readonly source: TimeSource
}

interface Tuple {
  src: string
  dst: string
  sport?: number
  dport?: number
  type?: number
  code?: number
  id?: number
  srckey?: string
  dstkey?: string
  zone?: number
  packets?: bigint
  bytes?: bigint
}

interface FlowLine {
  readonly kind: 'flow'
  readonly event: Event
  readonly at: Moment
  readonly family: Family
  readonly protocol: number
  readonly orig: Tuple
  readonly reply: Tuple
  timeout?: number
  state?: string
  unreplied: boolean
  assured: boolean
  offload?: 'sw' | 'hw'
  mark?: number
  zone?: number
  secmark?: number
  secctx?: string
  helper?: string
  labels?: string[]
  use?: number
  id?: number
  start?: bigint
  stop?: bigint
  /** `start` came in nanoseconds, not in whole seconds. */
  exactStart: boolean
  deltaTime?: number
  by?: { portid?: number; progname?: string }
  /** Words of a vendor's kernel. */
  extra?: Map<string, string | true>
  /** The EXPECTED bit, where the form shows the status bits. */
  expected?: boolean
}

interface ExpectLine {
  readonly kind: 'expect'
  readonly event: Event
  readonly at: Moment
  readonly family: Family
  readonly protocol: number
  readonly tuple: Tuple
  mask?: Tuple
  master?: Tuple
  timeout?: number
  zone?: number
  flags?: string[]
  class?: number
  helper?: string
}

/** The line begins like one of our formats and breaks its grammar. */
class Broken extends Error {}

/** Broken, unless the next line brings the reply tuple of a wrapped row. */
class Unfinished extends Broken {}

const MAX_LINE = 1024 * 1024
const MAX_REJECT_TEXT = 1024
const U16 = 65_535
const U32 = 4_294_967_295
const U64 = 18_446_744_073_709_551_615n
const SECOND = 1_000_000n
const END_OF_YEAR_9999 = 253_402_300_800n * SECOND

const TCP = 6
const DCCP = 33
const GRE = 47
const SCTP = 132

const PROTOCOLS: Record<number, string> = {
  1: 'icmp', 6: 'tcp', 17: 'udp', 33: 'dccp', 47: 'gre', 58: 'icmpv6', 132: 'sctp', 136: 'udplite',
}
const TUPLE_KEYS: Record<number, string[]> = {
  1: ['type', 'code', 'id'],
  58: ['type', 'code', 'id'],
  6: ['sport', 'dport'],
  17: ['sport', 'dport'],
  33: ['sport', 'dport'],
  132: ['sport', 'dport'],
  136: ['sport', 'dport'],
  47: ['srckey', 'dstkey'],
}
const TRACKED = [TCP, SCTP, DCCP]
const XML_STATES: Record<number, string[]> = {
  6: ['NONE', 'SYN_SENT', 'SYN_RECV', 'ESTABLISHED', 'FIN_WAIT', 'CLOSE_WAIT', 'LAST_ACK', 'TIME_WAIT', 'CLOSE', 'SYN_SENT2'],
  132: ['NONE', 'CLOSED', 'COOKIE_WAIT', 'COOKIE_ECHOED', 'ESTABLISHED', 'SHUTDOWN_SENT', 'SHUTDOWN_RECD', 'SHUTDOWN_ACK_SENT', 'HEARTBEAT_SENT', 'HEARTBEAT_ACKED'],
  33: ['NONE', 'REQUEST', 'RESPOND', 'PARTOPEN', 'OPEN', 'CLOSEREQ', 'CLOSING', 'TIMEWAIT', 'IGNORE', 'INVALID'],
}
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const EXPECT_FLAGS = /^(?:PERMANENT|INACTIVE|USERSPACE)(?:,(?:PERMANENT|INACTIVE|USERSPACE))*$/

export function reference(input: Uint8Array, options: ReferenceOptions): ReferenceResult {
  const result: ReferenceResult = {
    records: [],
    sums: { lines: 0, bytes: input.length, flows: 0, expects: 0, kernel: 0, notes: 0, ignored: 0, rejected: 0, gaps: 0 },
    rejects: [],
    places: [],
    live: 0,
  }
  const { records, sums, rejects, places } = result
  const received: Moment = { us: rfc3339(options.received), source: 'received' }
  const zone = options.timezone ?? 'UTC'
  const tracker = new Tracker()
  const lines = splitLines(input)
  sums.lines = lines.length

  const begins = lines.map((_, index) => index + 1)
  const gap = (index: number, cause: string, amount: Record<string, number>): void => {
    places.push(begins[index]!)
    records.push({ ...head(received, 'gap'), cause, ...amount, time_source: 'received' })
    sums.gaps += 1
  }
  const reject = (index: number, reason: string): void => {
    rejects.push({ line: index + 1, reason, text: decode(lines[index]!.subarray(0, MAX_REJECT_TEXT)) })
    sums.rejected += 1
  }
  const accept = (index: number, line: FlowLine | ExpectLine): void => {
    places.push(begins[index]!)
    if (line.kind === 'flow') {
      records.push(tracker.flow(line))
      sums.flows += 1
    } else {
      records.push(tracker.expect(line))
      sums.expects += 1
    }
  }

  for (let index = 0; index < lines.length; index += 1) {
    if (lines[index]!.length > MAX_LINE) {
      reject(index, 'line too long')
      gap(index, 'line_too_long', { count: 1 })
      continue
    }
    // stdout is buffered and stderr is not: the closing sum may stand in the middle of a row, whose rest is the next line
    const torn = /^(.+?)conntrack v\S+ \(conntrack-tools\): (\d+) [a-z ]+ ha(?:ve|s) been shown\.$/.exec(Buffer.from(lines[index]!).toString('latin1'))
    if (torn !== null && beginsLikeRow(torn[1]!) && index + 1 < lines.length && lines[index]!.length <= 16_384) {
      lines[index + 1] = Buffer.concat([Buffer.from(torn[1]!, 'latin1'), lines[index + 1]!])
      begins[index + 1] = begins[index]!
      sums.ignored += 1
      tracker.dumpShown(Number(torn[2]))
      continue
    }
    const spread = xmlSpread(lines, index)
    const text = spread === undefined ? trim(decode(lines[index]!)) : spread.text
    if (text === 'WARNING: We have hit ENOBUFS! We are losing events.') {
      gap(index, 'netlink_overrun', { at_least: 1 })
      sums.notes += 1
      continue
    }
    const shown = /^conntrack v\S+ \(conntrack-tools\): (\d+) flow entries ha(?:ve|s) been shown\.$/.exec(text)
    if (shown !== null) tracker.dumpShown(Number(shown[1]))
    if (text.startsWith('</conntrack>')) tracker.dumpEnds()
    const first = index
    if (spread !== undefined) {
      sums.ignored += spread.further
      index += spread.further
    }
    try {
      const line = parse(text, received, zone)
      if (line === undefined) sums.ignored += 1
      else accept(first, line)
    } catch (error) {
      if (!(error instanceof Broken)) throw error
      if (spread !== undefined) {
        reject(first, error.message)
        continue
      }
      const next = lines[index + 1]
      const continued = error instanceof Unfinished && next !== undefined && next.length <= MAX_LINE && /^[ \t]*src=/.test(decode(next))
      if (!continued) {
        reject(index, error.message)
        continue
      }
      try {
        accept(index, parse(`${text} ${trim(decode(next))}`, received, zone)!)
      } catch (joinedError) {
        if (!(joinedError instanceof Broken)) throw joinedError
        reject(index, joinedError.message)
      }
      sums.ignored += 1
      index += 1
    }
  }
  result.live = tracker.live
  return result
}

/** An element that an editor laid out over several lines, as the tool prints it. */
function xmlSpread(lines: readonly Uint8Array[], index: number): { text: string; further: number } | undefined {
  let text = trim(decode(lines[index]!))
  if (!text.startsWith('<flow') || text.includes('</flow>')) return undefined
  for (let further = 1; index + further < lines.length; further += 1) {
    const line = trim(decode(lines[index + further]!))
    const inTag = text.lastIndexOf('<') > text.lastIndexOf('>')
    const goesOn = inTag
      ? /^(?:[\w:-]+\s*=|\/?>)/.test(line)
      : line === '' || (/^</.test(line) ? !/^<(?:flow(?:[\s>]|$)|[?!]|\/?conntrack>|\/?expect>)/.test(line) : text.endsWith('>') && /^[\w.:\/,-]+(?:<\/.*)?$/.test(line))
    if (line !== '' && !goesOn) return undefined
    text += inTag ? ` ${line}` : line
    if (text.length > 16_384) return undefined
    if (!line.includes('</flow>')) continue
    const canonical = text
      .replace(/\s*([<>])\s*/g, '$1')
      .replace(/<([a-z][\w-]*)((?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>/g, (_, name: string, attributes: string, slash: string) => {
        const found = new Map([...attributes.matchAll(/([\w:-]+)\s*=\s*["']([^"']*)["']/g)].map(([, key, value]) => [key!, value!]))
        const ordered = ['type', 'direction', 'protonum', 'protoname'].filter((key) => found.has(key)).map((key) => ` ${key}="${found.get(key)}"`)
        return slash === '/' && /^(layer4|labels)$/.test(name) ? `<${name}${ordered.join('')}></${name}>` : `<${name}${ordered.join('')}${slash}>`
      })
      .replace(/<(assured|unreplied|permanent|inactive|userspace)><\/\1>/g, '<$1/>')
      .replace(/(<\/flow>)\[/, '$1 [')
    return { text: canonical, further }
  }
  return undefined
}

/** Of a row that may be cut off anywhere. */
function beginsLikeRow(head: string): boolean {
  const layer4 = ['tcp      6 ', 'udp      17 ', 'udplite  136 ', 'sctp     132 ', 'dccp     33 ', 'gre      47 ', 'icmp     1 ', 'icmpv6   58 ', 'unknown  ']
  const starts = [...layer4, ...layer4.map((name) => `ipv4     2 ${name}`), ...layer4.map((name) => `ipv6     10 ${name}`), '-A -', '<flow><meta ']
  return starts.some((start) => head.startsWith(start) || start.startsWith(head))
}

// ---------------------------------------------------------------------------------------------- lines

/** Without the LF and a CR before it; a last line without LF is a line. */
function splitLines(input: Uint8Array): Uint8Array[] {
  const lines: Uint8Array[] = []
  for (let from = 0; from < input.length; ) {
    const lf = input.indexOf(0x0a, from)
    const end = lf === -1 ? input.length : lf
    lines.push(input.subarray(from, end > from && input[end - 1] === 0x0d ? end - 1 : end))
    from = end + 1
  }
  return lines
}

function decode(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
}

function trim(text: string): string {
  return text.replace(/^[ \t]+/, '').replace(/(?<![ \t])[ \t]+$/, '')
}

/** Undefined: none of our business. */
function parse(text: string, received: Moment, zone: string): FlowLine | ExpectLine | undefined {
  if (text.startsWith('{')) {
    if (text !== '{') checkJson(text)
    return undefined
  }
  if (text.startsWith('<flow')) return parseXml(text, received, zone)
  if (/^-[AUD][ \t]+-/.test(text)) return parseSave(text, received)
  const old = /^EXPECTING:[ \t]+/.exec(text)
  if (old !== null) return parseExpect(text.slice(old[0].length), 'entry', received)

  const stamp = /^\[(\d+) *\.(\d{1,6}) *\][ \t]+/.exec(text)
  const unstamped = text.slice(stamp?.[0].length ?? 0)
  const tag = /^\[(NEW|UPDATE|DESTROY)\]/.exec(unstamped)
  const body = trim(unstamped.slice(tag?.[0].length ?? 0))
  const isExpect = /^(?:(?:\d+|-)[ \t]+)?(?:l3proto = \d+[ \t]+)?proto=\d/.test(body)
  const isFlow = /^(?:ipv4|ipv6|tcp|udp|udplite|sctp|dccp|gre|icmp|icmpv6|unknown)[ \t]+\d+(?:[ \t]|$)/.test(body)
  if (tag === null && !isExpect && !isFlow) return undefined

  if (tag !== null && !/^[ \t]/.test(unstamped.slice(tag[0].length))) throw new Broken('no blank after the event tag')
  // Tools before 1.4.2, and expectations always, print microseconds without leading zeros.
  const at = stamp === null ? received : { us: instant(BigInt(stamp[1]!) * SECOND + BigInt(stamp[2]!)), source: undefined }
  const event = (tag?.[1]?.toLowerCase() ?? 'entry') as Event
  return isExpect ? parseExpect(body, event, at) : parseText(body, event, at, zone)
}

function checkJson(text: string): void {
  try {
    JSON.parse(text)
  } catch {
    throw new Broken('not valid JSON')
  }
}

/** The `[USERSPACE]` suffix, which any form but /proc can carry. */
function splitUserspace(text: string): { body: string; by?: { portid?: number; progname?: string } } {
  const at = text.search(/[ \t]\[USERSPACE\]/)
  if (at === -1) return { body: text }
  const match = /^\[USERSPACE\](?:[ \t]+portid=(\d+)(?:[ \t]+progname=(.*))?)?$/s.exec(trim(text.slice(at)))
  if (match === null) throw new Broken('bad [USERSPACE]')
  return {
    body: trim(text.slice(0, at)),
    by: tidy({ portid: optional(match[1], (value) => integer(value, U32)), progname: match[2] }),
  }
}

/** `conntrack -E` and `-L` text, /proc/net/nf_conntrack and ip_conntrack. */
function parseText(text: string, event: Event, at: Moment, zone: string): FlowLine {
  const { body, by } = splitUserspace(text)
  // Names of labels may hold blanks, so they reach to the end.
  const labelled = /^(.*?)[ \t]labels(?:=(.*))?$/s.exec(body)
  const labels = labelled === null ? undefined : (labelled[2] ?? '') === '' ? [] : labelled[2]!.split(',')
  const words = new Words((labelled?.[1] ?? body).match(/\[[^\]]*\](?=[ \t]|$)|[^ \t]+/g) ?? [])

  let declared: Family | undefined
  let name = words.next('no protocol')
  if (name === 'ipv4' || name === 'ipv6') {
    declared = name
    if (words.next('no protocol') !== (name === 'ipv4' ? '2' : '10')) throw new Broken('bad family')
    name = words.next('no protocol')
  }
  if (name !== 'unknown' && !Object.values(PROTOCOLS).includes(name)) throw new Broken('no protocol')
  const protocol = integer(words.next('no protocol number'), 255)
  const timeout = optional(words.take(/^\d+$/), (value) => integer(value, U32))
  const state = TRACKED.includes(protocol) ? optional(words.take(/^[A-Z]/), (name) => knownState(name, protocol)) : undefined
  if (protocol === GRE && words.take(/^timeout=\d+,$/) !== undefined && words.take(/^stream_timeout=\d+$/) === undefined) {
    throw new Broken('no stream timeout')
  }

  const keys = TUPLE_KEYS[protocol] ?? []
  const direction = (zoneName: string): Tuple => {
    const tuple = words.tuple('', keys, name === 'unknown')
    const tupleZone = nonZero(words.value(zoneName), U16)
    const packets = words.value('packets')
    const bytes = packets === undefined ? undefined : words.required('bytes')
    return tidy({ ...tuple, zone: tupleZone, packets: optional(packets, counter), bytes: optional(bytes, counter) }) as Tuple
  }
  const orig = direction('zone-orig')
  const early = words.take(/^\[UNREPLIED\]$/) !== undefined
  if (words.atEnd()) throw new Unfinished('no reply tuple')
  const reply = direction('zone-reply')

  // Kernels have had these in several orders, [UNREPLIED] among them.
  const rest = new Map<string, string>()
  const extra: Extra = new Map()
  for (let word = words.any(); word !== undefined; word = words.any()) {
    const match =
      /^\[(UNREPLIED|ASSURED|OFFLOAD|HW_OFFLOAD)()\]$/.exec(word) ??
      /^\[(start|stop)=([^\]]*)\]$/.exec(word) ??
      /^(mark|secmark|secctx|zone|delta-time|helper|use|id)=(.+)$/s.exec(word)
    if (match === null) {
      // a vendor's word may stand before what belongs to the tuple
      const own = /^(zone-reply|packets)=(.*)$/.exec(word)
      if (own?.[1] === 'zone-reply') Object.assign(reply, tidy({ zone: nonZero(own[2], U16) }))
      else if (own?.[1] === 'packets' && orig.packets !== undefined && reply.packets === undefined) Object.assign(reply, { packets: counter(own[2]!), bytes: counter(words.required('bytes')) })
      else vendorWord(word, extra)
      continue
    }
    if (rest.has(match[1]!) || (early && match[1] === 'UNREPLIED')) throw new Broken('twice the same word')
    rest.set(match[1]!, match[2]!)
  }
  return tidy({
    kind: 'flow', event, at, protocol, orig, reply, timeout, state,
    family: oneFamily(declared, orig, reply),
    unreplied: early || rest.has('UNREPLIED'),
    assured: rest.has('ASSURED'),
    offload: rest.has('HW_OFFLOAD') ? 'hw' : rest.has('OFFLOAD') ? 'sw' : undefined,
    mark: optional(rest.get('mark'), markOf),
    zone: nonZero(rest.get('zone'), U16),
    secmark: nonZero(rest.get('secmark'), U32),
    secctx: rest.get('secctx'),
    helper: rest.get('helper'),
    labels,
    use: optional(rest.get('use'), (value) => integer(value, U32)),
    id: optional(rest.get('id'), (value) => integer(value, U32)),
    start: optional(rest.get('start'), (value) => ctime(value, zone)),
    stop: optional(rest.get('stop'), (value) => ctime(value, zone)),
    exactStart: false,
    deltaTime: optional(rest.get('delta-time'), (value) => integer(value, U32)),
    extra: extra.size === 0 ? undefined : extra,
    by,
  }) as FlowLine
}

type Extra = Map<string, string | true>

const KNOWN_WORDS =
  'src dst sport dport type code srckey dstkey zone-orig zone-reply zone mark secmark secctx delta-time helper use id labels UNREPLIED ASSURED OFFLOAD HW_OFFLOAD USERSPACE start stop NEW UPDATE DESTROY'.split(' ')

/** `key=value`, a bare word, `[FLAG]`, `[FLAG text]`, that no kernel of kernel.org prints there. */
function vendorWord(word: string, extra: Extra): void {
  const inner = /^\[([^\]]*)\]$/.exec(word)
  if (inner !== null) {
    const [, name, text] = /^([A-Za-z_][^\s=]*)(?:[\s=]+(.*))?$/s.exec(inner[1]!.trim()) ?? []
    if (name === undefined || KNOWN_WORDS.includes(name)) throw new Broken('broken flag')
    extra.set(name, text ?? true)
    return
  }
  const pair = /^(\w[\w.-]*)=(.*)$/s.exec(word)
  if (KNOWN_WORDS.includes(pair?.[1] ?? word)) throw new Broken('broken word')
  if (pair === null && !/^\w([\w.:/+%@-]*\w)?$/.test(word)) throw new Broken('no word')
  extra.set(pair?.[1] ?? word, pair?.[2] ?? true)
}

/** Too large a one is left out. */
function extraOf(extra: Extra | undefined): Record<string, string | true> | undefined {
  const object = extra === undefined ? undefined : Object.fromEntries(extra)
  return Buffer.byteLength(JSON.stringify(object) ?? '') > 1024 ? undefined : object
}

/** SCTP, DCCP, GRE and UDP-Lite: modules, or gone from newer kernels. */
const OPTIONAL_TRACKERS = [SCTP, DCCP, GRE, 136]

const SAVE_OPTIONS = [
  '-t', '-u', '-c', '-w', '--orig-zone', '--reply-zone', '-s', '-d', '-r', '-g', '-q', '-n', '-p',
  '--sport', '--dport', '--reply-port-src', '--reply-port-dst', '--state', '--orig-vtag', '--reply-vtag', '--role',
  '--srckey', '--dstkey', '--reply-key-src', '--reply-key-dst',
  '--icmp-type', '--icmp-code', '--icmp-id', '--icmpv6-type', '--icmpv6-code', '--icmpv6-id',
]

/** `-o save`: one line of options. */
function parseSave(text: string, at: Moment): FlowLine {
  const { body, by } = splitUserspace(text)
  const [command, ...words] = body.match(/\[[^\]]*\](?=[ \t]|$)|[^ \t]+/g)!
  const given = new Map<string, string>()
  const extra: Extra = new Map()
  while (words.length > 0) {
    const option = words.shift()!
    if (SAVE_OPTIONS.includes(option)) {
      const value = words.shift()
      if (value === undefined || given.has(option)) throw new Broken('bad option')
      given.set(option, value)
      continue
    }
    const has = (...options: string[]): boolean => options.some((known) => given.has(known))
    if (!(has('-p') && has('-s') && has('-d') && has('-r', '-g') && has('-q', '-n'))) throw new Broken('bad option')
    if (!option.startsWith('-')) vendorWord(option, extra)
    else extra.set(option.replace(/^-+/, ''), /^[^-[]/.test(words[0] ?? '-') ? words.shift()! : true)
  }
  const need = (...options: string[]): string => {
    const found = options.filter((option) => given.has(option))
    if (found.length !== 1) throw new Broken(`not one ${options.join(' or ')}`)
    return given.get(found[0]!)!
  }

  const flags = (given.get('-u') ?? 'UNSET').split(',')
  if (!flags.every((flag) => /^(?:UNSET|EXPECTED|SEEN_REPLY|ASSURED|FIXED_TIMEOUT)$/.test(flag))) throw new Broken('bad flags')
  const name = need('-p')
  const protocol = Number(Object.entries(PROTOCOLS).find(([, known]) => known === name)?.[0] ?? integer(name, 255))
  const orig: Tuple = { src: address(need('-s')), dst: address(need('-d')) }
  const reply: Tuple = { src: address(need('-r', '-g')), dst: address(need('-q', '-n')) }
  // None after a protocol's number, nor from a kernel without the protocol's tracker.
  const bare = /^\d+$/.test(name) || (OPTIONAL_TRACKERS.includes(protocol) && !given.has('--sport') && !given.has('--srckey'))
  const kind = bare ? undefined : TUPLE_KEYS[protocol]![0]
  if (kind === 'sport') {
    orig.sport = integer(need('--sport'), U16)
    orig.dport = integer(need('--dport'), U16)
    reply.sport = integer(need('--reply-port-src'), U16)
    reply.dport = integer(need('--reply-port-dst'), U16)
  } else if (kind === 'srckey') {
    const hex = (option: string): string => `0x${integer(need(option), U32).toString(16)}`
    orig.srckey = hex('--srckey')
    orig.dstkey = hex('--dstkey')
    reply.srckey = hex('--reply-key-src')
    reply.dstkey = hex('--reply-key-dst')
  } else if (kind === 'type') {
    // The form says nothing about the reply's type, code and id.
    orig.type = integer(need(`--${name}-type`), 255)
    orig.code = integer(need(`--${name}-code`), 255)
    orig.id = integer(need(`--${name}-id`), U16)
  }
  // the tool prints `(null)` for a state that it has no word for
  const state = given.get('--state') === '(null)' ? undefined : given.get('--state')
  if (state !== undefined) knownState(state, protocol)
  const seenReply = flags.includes('SEEN_REPLY')
  return tidy({
    kind: 'flow', at, protocol, state,
    event: command === '-D' ? 'destroy' : command === '-U' ? 'update' : seenReply ? 'entry' : 'new',
    family: oneFamily(undefined, orig, reply),
    orig: tidy({ ...orig, zone: nonZero(given.get('--orig-zone'), U16) }),
    reply: tidy({ ...reply, zone: nonZero(given.get('--reply-zone'), U16) }),
    timeout: optional(given.get('-t'), (value) => integer(value, U32)),
    unreplied: !seenReply,
    assured: flags.includes('ASSURED'),
    expected: flags.includes('EXPECTED'),
    zone: nonZero(given.get('-w'), U16),
    secmark: nonZero(given.get('-c'), U32),
    exactStart: false,
    extra: extra.size === 0 ? undefined : extra,
    by,
  }) as FlowLine
}

/** Expectations: text of the tool, and the three /proc forms, which end after the tuple, flags and helper. */
function parseExpect(text: string, event: Event, at: Moment): ExpectLine {
  const words = new Words(text.replace(/\[(active|expires)[ \t]+(since|in)[ \t]+/g, '[$1 $2 ').match(/\[(?:active since|expires in) [^\]]*\]|[^ \t]+/g) ?? [])
  const timeout = words.take(/^(?:\d+|-)$/)
  words.value('use')
  let declared: Family | undefined
  if (words.take(/^l3proto$/) !== undefined) {
    words.take(/^=$/)
    const number = words.next('no family')
    if (number !== '2' && number !== '10') throw new Broken('bad family')
    declared = number === '2' ? 'ipv4' : 'ipv6'
  }
  const protocol = integer(words.required('proto'), 255)
  const tuple = words.tuple('', words.keysAhead(2), true)
  const line: ExpectLine = {
    kind: 'expect', event, at, protocol, tuple,
    family: oneFamily(declared, tuple),
  }
  if (timeout !== undefined && timeout !== '-') line.timeout = integer(timeout, U32)

  const flags = (): void => {
    const word = words.take(EXPECT_FLAGS)
    if (word !== undefined) line.flags = word.toLowerCase().split(',')
  }
  if (words.peek()?.startsWith('mask-src=')) {
    line.mask = words.tuple('mask-', words.keysAhead(2), true)
    line.master = words.tuple('master-', words.keysAhead(2), true)
    oneFamily(line.family, line.mask, line.master)
    const zone = nonZero(words.value('zone'), U16)
    if (zone !== undefined) line.zone = zone
    flags()
    const number = words.value('class')
    if (number !== undefined) line.class = integer(number, U32)
    const helper = words.value('helper')
    if (helper !== undefined) line.helper = helper
    // conntrackd: how long it has had the entry, and how long it will keep it
    while (words.take(/^\[(?:active since|expires in) -?\d+s\]$/) !== undefined);
  } else {
    if (event !== 'entry') throw new Broken('no mask')
    flags()
    const helper = words.take(/^[^=[\]]+$/)
    if (helper !== undefined) line.helper = helper.split('/')[0]!
  }
  if (!words.atEnd()) throw new Broken('unknown word')
  return line
}

const XML_WHEN =
  '(?:<when><hour>(?<hour>\\d+)</hour><min>(?<min>\\d+)</min><sec>(?<sec>\\d+)</sec><wday>\\d</wday>' +
  '<day>(?<day>\\d+)</day><month>(?<month>\\d+)</month><year>(?<year>\\d+)</year></when>)?'

const xmlNumber = (tag: string): string => `(?:<${tag}>(?<${tag}>\\d+)</${tag}>)?`

const xmlDirection = (direction: string): string =>
  `<meta direction="${direction}">` +
  `<layer3 protonum="(?<${direction}Family>\\d+)" protoname="[^"]*"><src>(?<${direction}Src>[^<]*)</src><dst>(?<${direction}Dst>[^<]*)</dst></layer3>` +
  `<layer4 protonum="(?<${direction}Protocol>\\d+)" protoname="[^"]*">(?<${direction}Keys>.*?)</layer4>` +
  `(?:<zone>(?<${direction}Zone>\\d+)</zone>)?` +
  `(?:<counters><packets>(?<${direction}Packets>\\d+)</packets><bytes>(?<${direction}Bytes>\\d+)</bytes></counters>)?</meta>`

// Texts are not escaped, so they reach to their own first closing tag whatever they hold.
const XML_FLOW = new RegExp(
  `^<flow(?: type="(?<type>new|update|destroy)")?>${xmlDirection('original')}${xmlDirection('reply')}` +
    '(?:<meta direction="independent">(?:<state>(?<state>[A-Z0-9_]+)</state>)?' +
    `${xmlNumber('timeout')}${xmlNumber('mark')}(?:<labels>(?<labels>.*?)</labels>)?${xmlNumber('secmark')}` +
    `(?:<secctx>(?<secctx>(?:(?!</secctx>).)*)</secctx>)?${xmlNumber('zone')}${xmlNumber('use')}${xmlNumber('id')}` +
    '(?<assured><assured/>)?(?<unreplied><unreplied/>)?' +
    `(?:<timestamp>${xmlNumber('start')}${xmlNumber('stop')}</timestamp>)?${xmlNumber('deltatime')}</meta>)?` +
    `${XML_WHEN}(?:<helper>(?<helper>(?:(?!</helper>).)*)</helper>)?</flow>$`,
  's',
)

const xmlThree = (name: string, content: string): string =>
  ['expected', 'mask', 'master'].map((part) => `<${part}>${content.replaceAll('@', part + name)}</${part}>`).join('')

const XML_EXPECT = new RegExp(
  '^<flow(?: type="(?<type>new|update|destroy)")?>' +
    `<layer3 protonum="(?<family>\\d+)" protoname="[^"]*">${xmlThree('', '<src>(?<@Src>[^<]*)</src><dst>(?<@Dst>[^<]*)</dst>')}</layer3>` +
    `<layer4 protonum="(?<protocol>\\d+)" protoname="[^"]*">(?:${xmlThree('Keys', '(?<@>.*?)')})?</layer4>` +
    `<meta>(?:<helper-name>(?<helper>(?:(?!</helper-name>).)*)</helper-name>)?${xmlNumber('timeout')}${xmlNumber('class')}${xmlNumber('zone')}${XML_WHEN}` +
    '(?<permanent><permanent/>)?(?<inactive><inactive/>)?(?<userspace><userspace/>)?</meta></flow>$',
  's',
)

type Groups = Record<string, string | undefined>

function parseXml(text: string, received: Moment, zone: string): FlowLine | ExpectLine {
  // The suffix follows the end of the element; the same words inside it are part of a text.
  const end = text.lastIndexOf('</flow>')
  if (end === -1) throw new Broken('no end of the element')
  const element = text.slice(0, end + '</flow>'.length)
  const suffix = text.slice(element.length)
  const { body, by } = splitUserspace(suffix)
  if (body !== '') throw new Broken('text after the element')

  const expect = XML_EXPECT.exec(element)?.groups as Groups | undefined
  if (expect !== undefined) return xmlExpect(expect, xmlMoment(expect, received, zone))
  const flow = XML_FLOW.exec(element)?.groups as Groups | undefined
  if (flow === undefined) throw new Broken('bad element')
  return xmlFlow(flow, xmlMoment(flow, received, zone), by)
}

function xmlFlow(g: Groups, at: Moment, by: FlowLine['by']): FlowLine {
  if (g['originalFamily'] !== g['replyFamily'] || g['originalProtocol'] !== g['replyProtocol']) throw new Broken('two protocols')
  const protocol = integer(g['originalProtocol']!, 255)
  const direction = (name: string): Tuple =>
    tidy({
      ...xmlTuple(g[`${name}Src`]!, g[`${name}Dst`]!, g[`${name}Keys`]!),
      zone: nonZero(g[`${name}Zone`], U16),
      packets: optional(g[`${name}Packets`], counter),
      bytes: optional(g[`${name}Bytes`], counter),
    }) as Tuple
  const orig = direction('original')
  const reply = direction('reply')
  return tidy({
    kind: 'flow', at, protocol, orig, reply,
    event: (g['type'] ?? 'entry') as Event,
    family: oneFamily(xmlFamily(g['originalFamily']!), orig, reply),
    timeout: optional(g['timeout'], (value) => integer(value, U32)),
    state: optional(g['state'], (name) => xmlState(name, protocol)),
    unreplied: g['unreplied'] !== undefined,
    assured: g['assured'] !== undefined,
    mark: nonZero(g['mark'], U32),
    zone: nonZero(g['zone'], U16),
    secmark: nonZero(g['secmark'], U32),
    secctx: g['secctx'],
    helper: g['helper'],
    labels: optional(g['labels'], xmlLabels),
    use: optional(g['use'], (value) => integer(value, U32)),
    id: optional(g['id'], (value) => integer(value, U32)),
    start: optional(g['start'], (value) => instant(BigInt(value) / 1000n)),
    stop: optional(g['stop'], (value) => instant(BigInt(value) / 1000n)),
    exactStart: g['start'] !== undefined,
    deltaTime: optional(g['deltatime'], (value) => integer(value, U32)),
    by,
  }) as FlowLine
}

function xmlExpect(g: Groups, at: Moment): ExpectLine {
  const part = (name: string): Tuple => xmlTuple(g[`${name}Src`]!, g[`${name}Dst`]!, g[`${name}Keys`] ?? '')
  const [tuple, mask, master] = [part('expected'), part('mask'), part('master')]
  const flags = ['permanent', 'inactive', 'userspace'].filter((flag) => g[flag] !== undefined)
  return tidy({
    kind: 'expect', at, tuple, mask, master,
    event: (g['type'] ?? 'entry') as Event,
    family: oneFamily(xmlFamily(g['family']!), tuple, mask, master),
    protocol: integer(g['protocol']!, 255),
    timeout: optional(g['timeout'], (value) => integer(value, U32)),
    zone: nonZero(g['zone'], U16),
    flags: flags.length === 0 ? undefined : flags,
    class: optional(g['class'], (value) => integer(value, U32)),
    helper: g['helper'],
  }) as ExpectLine
}

function xmlTuple(src: string, dst: string, keys: string): Tuple {
  const tuple: Tuple = { src: address(src), dst: address(dst) }
  if (keys === '') return tuple
  const ports = /^<sport>(\d+)<\/sport><dport>(\d+)<\/dport>$/.exec(keys)
  if (ports !== null) return { ...tuple, sport: integer(ports[1]!, U16), dport: integer(ports[2]!, U16) }
  const greKeys = /^<srckey>(.*)<\/srckey><dstkey>(.*)<\/dstkey>$/.exec(keys)
  if (greKeys !== null) return { ...tuple, srckey: hexKey(greKeys[1]!), dstkey: hexKey(greKeys[2]!) }
  throw new Broken('bad layer 4')
}

function xmlFamily(number: string): Family {
  if (number === '2') return 'ipv4'
  if (number === '10') return 'ipv6'
  throw new Broken('bad family')
}

/** The library prints the TCP name of the state's number, whatever the protocol. */
function xmlState(name: string, protocol: number): string {
  const index = name === 'LISTEN' ? 9 : XML_STATES[TCP]!.indexOf(name)
  const known = protocol === TCP || index === -1 ? name : XML_STATES[protocol]?.[index]
  return knownState(known ?? name, protocol)
}

function knownState(name: string, protocol: number): string {
  if (XML_STATES[protocol]?.includes(name) !== true && !(protocol === TCP && name === 'LISTEN')) throw new Broken('unknown state')
  return name
}

function xmlLabels(text: string): string[] {
  const names = [...text.matchAll(/<label>(.*?)<\/label>/gs)]
  if (names.map(([whole]) => whole).join('') !== text) throw new Broken('bad labels')
  return names.map(([, name]) => name!)
}

function xmlMoment(g: Groups, received: Moment, zone: string): Moment {
  if (g['year'] === undefined) return received
  return { us: wallClock([g['year'], g['month'], g['day'], g['hour'], g['min'], g['sec']].map(Number), zone), source: 'local' }
}

// --------------------------------------------------------------------------------------------- values

/** A line's words, taken from the left. */
class Words {
  private position = 0
  constructor(private readonly words: readonly string[]) {}

  peek(): string | undefined {
    return this.words[this.position]
  }

  atEnd(): boolean {
    return this.peek() === undefined
  }

  any(): string | undefined {
    const word = this.peek()
    if (word !== undefined) this.position += 1
    return word
  }

  next(reason: string): string {
    const word = this.any()
    if (word === undefined) throw new Broken(reason)
    return word
  }

  take(pattern: RegExp): string | undefined {
    return pattern.test(this.peek() ?? '') ? this.any() : undefined
  }

  /** The value of `name=value`, when that is the next word. */
  value(name: string): string | undefined {
    return this.peek()?.startsWith(`${name}=`) ? this.next('').slice(name.length + 1) : undefined
  }

  required(name: string): string {
    const value = this.value(name)
    if (value === undefined) throw new Broken(`no ${name}`)
    return value
  }

  /** Which keys a tuple of an expectation has: its master's protocol may be another than its own. */
  keysAhead(distance: number): string[] {
    const name = this.words[this.position + distance]?.split('=')[0]
    return Object.values(TUPLE_KEYS).find((keys) => keys[0] === name) ?? []
  }

  tuple(prefix: string, keys: string[], keysMayMiss: boolean): Tuple {
    const tuple: Record<string, unknown> = { src: address(this.required(`${prefix}src`)), dst: address(this.required(`${prefix}dst`)) }
    if (keysMayMiss && keys.length > 0 && !this.peek()?.startsWith(`${keys[0]}=`)) return tuple as unknown as Tuple
    for (const key of keys) {
      const value = this.required(key)
      tuple[key] = key.endsWith('key') ? hexKey(value) : integer(value, key === 'type' || key === 'code' ? 255 : U16)
    }
    return tuple as unknown as Tuple
  }
}

function optional<A, B>(value: A | undefined, convert: (value: A) => B): B | undefined {
  return value === undefined ? undefined : convert(value)
}

/** Some forms print the zero and some do not, so it is left out. */
function nonZero(value: string | undefined, max: number): number | undefined {
  return optional(value, (text) => integer(text, max) || undefined)
}

function integer(text: string, max: number): number {
  if (!/^(?:0|[1-9]\d*)$/.test(text) || BigInt(text) > BigInt(max)) throw new Broken('bad number')
  return Number(text)
}

function counter(text: string): bigint {
  if (!/^(?:0|[1-9]\d*)$/.test(text) || BigInt(text) > U64) throw new Broken('bad number')
  return BigInt(text)
}

/** Linux 2.4 printed the mark as a signed number. */
function markOf(text: string): number | undefined {
  if (!text.startsWith('-')) return nonZero(text, U32)
  const value = integer(text.slice(1), 2 ** 31)
  return value === 0 ? undefined : 2 ** 32 - value
}

function hexKey(text: string): string {
  if (!/^0x[0-9a-f]{1,8}$/.test(text)) throw new Broken('bad key')
  return text
}

/** An object without its undefined keys. */
function tidy<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> }
}

function familyOf(text: string): Family {
  return text.includes(':') ? 'ipv6' : 'ipv4'
}

function oneFamily(declared: Family | undefined, ...tuples: Tuple[]): Family {
  const families = new Set(tuples.flatMap((tuple) => [familyOf(tuple.src), familyOf(tuple.dst)]))
  if (declared !== undefined) families.add(declared)
  if (families.size !== 1) throw new Broken('two families')
  return [...families][0]!
}

/** Canonical text: /proc prints IPv6 with all its zeros. */
function address(text: string): string {
  if (isIPv4(text)) return text
  if (!isIPv6(text) || text.includes('%')) throw new Broken('bad address')
  return formatIPv6(groupsOf(text))
}

function groupsOf(text: string): number[] {
  const hex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(':'),
  )
  const [left, right] = hex.split('::').map((part) => (part === '' ? [] : part.split(':').map((group) => parseInt(group, 16))))
  if (right === undefined) return left!
  return [...left!, ...new Array<number>(8 - left!.length - right.length).fill(0), ...right]
}

/** RFC 5952, with the dotted quads that inet_ntop prints. */
function formatIPv6(groups: number[]): string {
  let best = { from: -1, length: 1 }
  for (let from = 0; from < 8; from += 1) {
    let length = 0
    while (from + length < 8 && groups[from + length] === 0) length += 1
    if (length > best.length) best = { from, length }
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':')
  if (best.from === 0 && (best.length === 6 || (best.length === 5 && groups[5] === 0xffff))) {
    const quad = groups.slice(6).flatMap((group) => [group >> 8, group & 255]).join('.')
    return best.length === 6 ? `::${quad}` : `::ffff:${quad}`
  }
  if (best.from === -1) return hex(groups)
  return `${hex(groups.slice(0, best.from))}::${hex(groups.slice(best.from + best.length))}`
}

/** The address as a number, for masks. */
function addressBits(text: string): bigint {
  const groups = isIPv4(text) ? text.split('.').map(Number) : groupsOf(text)
  const width = isIPv4(text) ? 8n : 16n
  return groups.reduce((bits, group) => (bits << width) | BigInt(group), 0n)
}

// ---------------------------------------------------------------------------------------------- times

/** Times that RFC 3339 cannot write are no times. */
function instant(us: bigint): bigint {
  if (us < 0n || us >= END_OF_YEAR_9999) throw new Broken('bad time')
  return us
}

function rfc3339(text: string): bigint {
  const fraction = (/\.(\d+)/.exec(text)?.[1] ?? '').padEnd(6, '0').slice(0, 6)
  return BigInt(Date.parse(text.replace(/\.\d+/, ''))) * 1000n + BigInt(fraction)
}

function formatTime(us: bigint): string {
  const fraction = (us % SECOND).toString().padStart(6, '0')
  return `${new Date(Number(us / SECOND) * 1000).toISOString().slice(0, 19)}.${fraction}Z`
}

/** `Sun Nov 22 10:00:17 2026` */
function ctime(text: string, zone: string): bigint {
  const match = /^[A-Z][a-z]{2}[ \t]+([A-Z][a-z]{2})[ \t]+(\d{1,2})[ \t]+(\d\d):(\d\d):(\d\d)[ \t]+(\d{4})$/.exec(text)
  if (match === null) throw new Broken('bad time')
  const [, month, day, hour, minute, second, year] = match
  return wallClock([Number(year), MONTHS.indexOf(month!) + 1, Number(day), Number(hour), Number(minute), Number(second)], zone)
}

function wallClock(parts: number[], zone: string): bigint {
  const [year, month, day, hour, minute, second] = parts as [number, number, number, number, number, number]
  const wall = Date.UTC(year, month - 1, day, hour, minute, second)
  const back = new Date(wall)
  const same = [back.getUTCFullYear(), back.getUTCMonth() + 1, back.getUTCDate(), back.getUTCHours(), back.getUTCMinutes(), back.getUTCSeconds()]
  if (same.join() !== parts.join()) throw new Broken('bad time')
  instant(BigInt(wall) * 1000n)
  const day24 = 86_400_000
  const offsets = [zoneOffset(wall - day24, zone), zoneOffset(wall + day24, zone)]
  const fitting = offsets.map((offset) => wall - offset).filter((time, i) => zoneOffset(time, zone) === offsets[i])
  // An hour that comes twice means its first; one that is skipped is read with the offset before.
  const time = fitting.length > 0 ? Math.min(...fitting) : wall - offsets[0]!
  return instant(BigInt(time) * 1000n)
}

function zoneOffset(ms: number, zone: string): number {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric',
  })
  const part = Object.fromEntries(format.formatToParts(ms).map(({ type, value }) => [type, Number(value)]))
  return Date.UTC(part['year']!, part['month']! - 1, part['day']!, part['hour']!, part['minute']!, part['second']!) - ms
}

/** Seconds with at most six decimals, never negative. */
function seconds(us: bigint): number {
  return us < 0n ? 0 : Number(us) / 1e6
}

function between(from: bigint, to: bigint): bigint {
  return from < to ? to - from : from - to
}

// -------------------------------------------------------------------------------------------- tracker

/** One life of a connection. */
interface Life {
  readonly label: string
  readonly number: number
  /** By what the kernel's start time names it. */
  readonly byStart: string | undefined
  readonly line: FlowLine
  id: number | undefined
  state: string | undefined
  /** When an event gave it this state; undefined when a row did. */
  changed: Moment | undefined
  /** When an event gave it this state. */
  stateAt: bigint | undefined
  /** Its `new`. */
  began: Moment | undefined
  exactStart: bigint | undefined
  roughStart: bigint | undefined
  unreplied: boolean
  related: boolean
  /** Its `new` showed whether it was expected. */
  bitSeen: boolean
  /** Known from rows alone: the kernel will not tell when it ends. */
  rowsOnly: boolean
  /** When the timeout of its last row runs out, in seconds. */
  deadline: bigint | undefined
  /** The dump that showed it last. */
  dump: number
}

interface Expectation {
  readonly line: ExpectLine
  readonly identity: string
  readonly permanent: boolean
  expires: bigint | undefined
  used: boolean
  gone: boolean
  /** Set when it was destroyed with time left, which is how the kernel uses one up. */
  destroyed: bigint | undefined
}

class Tracker {
  /** The lives of one tuple, the latest last. */
  private readonly table = new Map<string, Life[]>()
  private readonly expectations: Expectation[] = []
  private readonly protocolsWithStates = new Set<number>()
  private oldKernel = false
  private count = 0
  private readonly labels = new Map<string, string>()
  private readonly ended = new Set<string>()
  /** The latest time of any flow's line: rows run out by it. */
  private now = 0n
  private dump = 1
  private dumpRows = 0
  private dumpWanted: number | undefined
  private footerRows: number | undefined
  private readonly dumpKinds = new Set<string>()

  get live(): number {
    return [...this.table.values()].flat().filter((life) => !this.ranOut(life)).length
  }

  private ranOut({ rowsOnly, deadline }: Life): boolean {
    return rowsOnly && deadline !== undefined && deadline < this.now / SECOND
  }

  /** The tool's closing sum may come before its last rows, by what one buffer of 4,096 bytes holds. */
  dumpShown(rows: number): void {
    // In XML the rows' end comes first.
    if (this.dumpRows === 0 && rows === this.footerRows) return
    const missing = rows - this.dumpRows
    if (missing > 0 && missing <= 128) this.dumpWanted = rows
    else this.dumpOver(missing === 0)
  }

  dumpEnds(): void {
    this.footerRows = this.dumpRows
    this.dumpOver(true)
  }

  private dumpRow(): void {
    this.footerRows = undefined
    this.dumpRows += 1
    if (this.dumpRows === this.dumpWanted) this.dumpOver(true)
  }

  /** Flows known from rows alone that a later whole dump of their kind does not show are gone. */
  private dumpOver(whole: boolean): void {
    if (whole) {
      for (const [key, lives] of this.table) {
        this.table.set(key, lives.filter((life) => !life.rowsOnly || life.dump === this.dump || !this.dumpKinds.has(kindOf(life.line))))
      }
    }
    this.dump += 1
    this.dumpRows = 0
    this.dumpWanted = undefined
    this.dumpKinds.clear()
  }

  flow(line: FlowLine): Record<string, unknown> {
    if (line.state !== undefined) this.protocolsWithStates.add(line.protocol)
    // The word for offloading stands where the state would.
    if (line.event === 'destroy' && line.protocol === TCP && line.state === undefined && line.offload === undefined) this.oldKernel = true

    if (line.at.us > this.now) this.now = line.at.us
    const key = flowKey(line)
    let lives = (this.table.get(key) ?? []).filter((life) => !this.ranOut(life))
    const found = line.event === 'new' ? undefined : findLife(lives, line.id)
    const life = found ?? this.begin(line)
    if (line.event === 'new') lives = lives.filter((other) => differ(other.id, line.id))
    // The dump shows which life is there now, but XML has one tuple for all pings between two hosts.
    const manyPings = (line.protocol === 1 || line.protocol === 58) && line.orig.id === undefined
    if (line.event === 'entry' && found === undefined && !manyPings) lives = lives.slice(1)
    if (line.event !== 'destroy' && found === undefined) lives = [...lives, life]
    if (line.event === 'destroy') lives = lives.filter((other) => other !== life)
    this.table.set(key, lives)

    life.id ??= line.id
    life.unreplied = line.unreplied
    if (line.exactStart) life.exactStart = line.start
    else life.roughStart = line.start ?? life.roughStart
    life.bitSeen ||= line.event === 'new' && line.expected !== undefined
    if (line.expected !== undefined) life.related = line.expected
    else if (line.event === 'new' && this.expected(life)) life.related = true

    life.rowsOnly = line.event === 'entry' && (found === undefined || life.rowsOnly)
    if (line.event === 'entry') {
      life.dump = this.dump
      if (life.rowsOnly) life.deadline = optional(line.timeout, (timeout) => line.at.us / SECOND + BigInt(timeout))
      this.dumpKinds.add(kindOf(line))
    }
    // A row without an answer is `new` in -o save, the form that shows the bit.
    if (line.event === 'entry' || (line.event === 'new' && line.expected !== undefined)) this.dumpRow()
    if (line.event === 'destroy' && life.byStart !== undefined) this.ended.add(life.byStart)

    const state = this.stateOf(line, life)
    const transition = change(line, life, found !== undefined, state)
    return tidy({
      ...head(line.at, 'flow'),
      event: line.event,
      family: line.family,
      protocol: PROTOCOLS[line.protocol] ?? 'unknown',
      protocol_number: line.protocol,
      timeout: line.timeout,
      state,
      ctstate: !line.unreplied ? 'ESTABLISHED' : life.related ? 'RELATED' : 'NEW',
      orig: line.orig,
      reply: line.reply,
      unreplied: line.unreplied || undefined,
      assured: line.assured || undefined,
      offload: line.offload,
      mark: line.mark,
      zone: line.zone,
      secmark: line.secmark,
      secctx: line.secctx,
      helper: line.helper,
      labels: line.labels,
      use: line.use,
      id: line.id,
      start: optional(line.start, formatTime),
      stop: optional(line.stop, formatTime),
      delta_time: line.deltaTime,
      flow: life.label,
      extra: extraOf(line.extra),
      by: line.by,
      transition,
      nat: natOf(line),
      end: line.event === 'destroy' ? this.endOf(line, life, state) : undefined,
      time_source: line.at.source,
    })
  }

  expect(line: ExpectLine): Record<string, unknown> {
    const identity = JSON.stringify([line.family, line.protocol, line.tuple, line.mask, line.master])
    const known = this.expectations.findLast((other) => other.identity === identity && !other.gone)
    if (known !== undefined && line.event === 'new') known.gone = true
    const expectation =
      known !== undefined && line.event !== 'new'
        ? known
        : { line, identity, permanent: line.flags?.includes('permanent') ?? false, expires: undefined, used: false, gone: false, destroyed: undefined }
    if (expectation !== known) this.expectations.push(expectation)
    if (line.event === 'destroy') {
      expectation.gone = true
      if (line.timeout !== undefined && line.timeout > 0) expectation.destroyed = line.at.us
    } else {
      expectation.expires = optional(line.timeout, (timeout) => line.at.us + BigInt(timeout) * SECOND)
    }
    this.markEarlier(expectation, line.at.us)
    return tidy({
      ...head(line.at, 'expect'),
      event: line.event,
      family: line.family,
      protocol: PROTOCOLS[line.protocol] ?? 'unknown',
      protocol_number: line.protocol,
      timeout: line.timeout,
      tuple: line.tuple,
      mask: line.mask,
      master: line.master,
      zone: line.zone,
      flags: line.flags,
      class: line.class,
      helper: line.helper,
      time_source: line.at.source,
    })
  }

  private begin(line: FlowLine): Life {
    this.count += 1
    // The kernel's own time names a life, so that it is the same again after a restart.
    const name = `${flowKey(line)} ${line.id} ${line.start}`
    const byStart = line.event === 'new' || line.start === undefined || this.ended.has(name) ? undefined : name
    const label = (byStart === undefined ? undefined : this.labels.get(byStart)) ?? `life-${this.count}`
    if (byStart !== undefined) this.labels.set(byStart, label)
    return {
      label, number: this.count, byStart, line, id: line.id, state: undefined, changed: undefined, stateAt: undefined,
      began: line.event === 'new' ? line.at : undefined,
      exactStart: undefined, roughStart: undefined, unreplied: line.unreplied, related: false, bitSeen: false, rowsOnly: false, deadline: undefined, dump: 0,
    }
  }

  private stateOf(line: FlowLine, life: Life): string | undefined {
    if (line.state !== undefined) return line.state
    const fromReply = line.unreplied ? 'UNREPLIED' : 'REPLIED'
    // [OFFLOAD] hides [ASSURED].
    const fromFlags = line.offload === undefined ? (line.assured ? 'ASSURED' : fromReply) : (life.state ?? fromReply)
    if (!TRACKED.includes(line.protocol)) return fromFlags
    if (line.protocol === TCP || line.protocol === SCTP || this.protocolsWithStates.has(line.protocol)) return life.state
    return fromFlags
  }

  private endOf(line: FlowLine, life: Life, state: string | undefined): Record<string, unknown> {
    const now = timed(line.at)
    const begin = life.exactStart ?? timed(life.began) ?? life.roughStart
    const end = line.stop ?? now
    const changed = timed(life.changed)
    return tidy({
      reason: this.reasonOf(line, state),
      duration: begin !== undefined && end !== undefined ? seconds(end - begin) : line.deltaTime,
      idle: changed !== undefined && now !== undefined ? seconds(now - changed) : undefined,
    })
  }

  private reasonOf(line: FlowLine, state: string | undefined): string {
    if (line.by !== undefined) return 'deleted'
    if (line.protocol === TCP && state === 'CLOSE') return line.unreplied ? 'refused' : 'reset'
    const closed: Record<number, string[]> = { [TCP]: ['TIME_WAIT', 'LAST_ACK'], [SCTP]: ['SHUTDOWN_ACK_SENT'], [DCCP]: ['TIMEWAIT'] }
    if (state !== undefined && closed[line.protocol]?.includes(state)) return 'closed'
    if (this.oldKernel) return 'unknown'
    return line.timeout === undefined ? 'expired' : 'removed'
  }

  /** Whether a new flow is one that a helper waited for; uses the expectation up. */
  private expected(life: Life): boolean {
    const now = life.line.at.us
    const match = this.expectations.find((expectation) => {
      const live = !expectation.gone && (expectation.expires === undefined || now <= expectation.expires)
      const justUsed = expectation.destroyed !== undefined && between(now, expectation.destroyed) < SECOND
      return (live || justUsed) && canMark(expectation, life)
    })
    if (match !== undefined) match.used = true
    return match !== undefined
  }

  /** The flow's `new` may come before the lines of its expectation. */
  private markEarlier(expectation: Expectation, now: bigint): void {
    const latestFirst = [...this.table.values()].flat().sort((one, other) => other.number - one.number)
    for (const life of latestFirst) {
      if (life.began === undefined || life.bitSeen || !life.unreplied || life.related || !canMark(expectation, life)) continue
      const near = expectation.gone
        ? expectation.destroyed !== undefined && between(life.began.us, expectation.destroyed) < SECOND
        : now - life.began.us < SECOND
      if (!near) continue
      life.related = true
      expectation.used = true
    }
  }
}

function head(at: Moment, type: string): { time: string; type: string; v: number } {
  return { time: formatTime(at.us), type, v: 1 }
}

/** A time that says when something happened, not when it was read. */
function timed(at: Moment | undefined): bigint | undefined {
  return at === undefined || at.source === 'received' ? undefined : at.us
}

function flowKey({ orig, zone, protocol }: FlowLine): string {
  // Where a form prints no ports, types or keys, they are 0.
  const keys = [orig.sport ?? orig.type ?? orig.srckey ?? 0, orig.dport ?? orig.code ?? orig.dstkey ?? 0, orig.id ?? 0].map(Number)
  return JSON.stringify([orig.zone ?? zone ?? 0, protocol, orig.src, orig.dst, ...keys])
}

function kindOf({ family, protocol }: FlowLine): string {
  return `${family} ${protocol}`
}

function differ(one: number | undefined, other: number | undefined): boolean {
  return one !== undefined && other !== undefined && one !== other
}

function findLife(lives: Life[], id: number | undefined): Life | undefined {
  return lives.findLast((life) => id !== undefined && life.id === id) ?? lives.findLast((life) => !differ(life.id, id))
}

/** Moves the life to the line's state; gives the transition to write. */
function change(line: FlowLine, life: Life, known: boolean, state: string | undefined): Record<string, unknown> | undefined {
  const { state: from, changed } = life
  if (state === undefined || state === from) return undefined
  if (line.event === 'entry') {
    // A dump is read slowly: just after an event the row may be the older news.
    if (life.stateAt === undefined || line.at.us / SECOND - life.stateAt / SECOND >= 2n) {
      life.state = state
      life.changed = undefined
      life.stateAt = undefined
    }
    return undefined
  }
  if (line.event === 'destroy' && !known) return undefined
  life.state = state
  life.changed = line.at
  life.stateAt = line.at.us
  const [before, now] = [timed(changed), timed(line.at)]
  const after = from !== undefined && before !== undefined && now !== undefined ? seconds(now - before) : undefined
  return tidy({ from: from ?? null, to: state, after })
}

function natOf({ protocol, orig, reply }: FlowLine): Record<string, unknown> | undefined {
  const gre = protocol === GRE
  const [origFrom, origTo] = gre ? [orig.srckey, orig.dstkey] : [orig.sport, orig.dport]
  const [replyFrom, replyTo] = gre ? [reply.srckey, reply.dstkey] : [reply.sport, reply.dport]
  const idChanged = reply.id !== undefined && reply.id !== orig.id
  const differs = (one: string | number | undefined, other: string | number | undefined): boolean => (one === undefined || other === undefined ? one !== other : Number(one) !== Number(other))
  const snat = reply.dst !== orig.src || differs(replyTo, origFrom) || idChanged
  const dnat = reply.src !== orig.dst || differs(replyFrom, origTo)
  if (!snat && !dnat) return undefined
  return tidy({
    kind: snat && dnat ? 'both' : snat ? 'snat' : 'dnat',
    ...(snat ? { src: reply.dst, [gre ? 'srckey' : 'sport']: replyTo } : {}),
    ...(dnat ? { dst: reply.src, [gre ? 'dstkey' : 'dport']: replyFrom } : {}),
    id: reply.id,
  })
}

function canMark(expectation: Expectation, life: Life): boolean {
  const { line } = expectation
  if (expectation.used && !expectation.permanent) return false
  // The /proc forms print no mask: what they wait for cannot be known.
  if (line.mask === undefined || line.family !== life.line.family || line.protocol !== life.line.protocol) return false
  const mask = line.mask
  return (['src', 'dst', 'sport', 'dport', 'srckey', 'dstkey'] as const).every((field) => {
    const bits = fieldBits(mask, field) ?? 0n
    const [wanted, is] = [fieldBits(line.tuple, field), fieldBits(life.line.orig, field)]
    if (bits === 0n) return true
    return wanted !== undefined && is !== undefined && (wanted & bits) === (is & bits)
  })
}

function fieldBits(tuple: Tuple, field: 'src' | 'dst' | 'sport' | 'dport' | 'srckey' | 'dstkey'): bigint | undefined {
  if (field === 'src' || field === 'dst') return addressBits(tuple[field])
  return optional(tuple[field], (value) => BigInt(value))
}
