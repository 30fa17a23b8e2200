/**
 * Random streams of valid lines: few tuples, so that they are used again, ids that several flows share or that change under one tuple, late ends, rows in
 * between, zones, NAT, every form, expectations near their flows. Program and reference agree on every byte, and on how many flows are left.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { describeDifferences } from './compare.js'
import { random, randomCuts, RECEIVED, runPieces } from './harness.js'
import { reference } from './reference.js'

const long = process.env['CONNTRAIL_LONG_TESTS'] !== undefined
const numRuns = long ? 6000 : 120
const BEGIN = Date.parse(RECEIVED) * 1000

const FORMS = ['text', 'timestamp', 'extended', 'everything', 'save', 'xml', 'xml-when'] as const
type Form = (typeof FORMS)[number]
/** Forms that may stand in one stream without time going back; where time stands still, all. */
const CLOCKS: Readonly<Record<string, readonly Form[]>> = { own: ['timestamp', 'everything'], received: ['text', 'extended', 'save', 'xml'], local: ['xml-when'], still: FORMS }
const STATES: Readonly<Record<string, readonly string[]>> = {
  tcp: ['SYN_SENT', 'SYN_RECV', 'ESTABLISHED', 'FIN_WAIT', 'LAST_ACK', 'TIME_WAIT', 'CLOSE'],
  sctp: ['COOKIE_WAIT', 'ESTABLISHED', 'SHUTDOWN_ACK_SENT', 'CLOSED'],
  dccp: ['REQUEST', 'OPEN', 'TIMEWAIT'],
}
/** The library prints TCP's word of the state's number. */
const XML_STATES: Readonly<Record<string, string>> = {
  COOKIE_WAIT: 'SYN_RECV', 'sctp ESTABLISHED': 'FIN_WAIT', SHUTDOWN_ACK_SENT: 'TIME_WAIT', CLOSED: 'SYN_SENT', REQUEST: 'SYN_SENT', OPEN: 'FIN_WAIT', TIMEWAIT: 'TIME_WAIT',
}
const NUMBERS: Readonly<Record<string, number>> = { icmp: 1, tcp: 6, udp: 17, dccp: 33, gre: 47, unknown: 50, icmpv6: 58, sctp: 132, udplite: 136 }

interface Pair {
  readonly protocol: string
  readonly src: string
  readonly dst: string
  /** address and first and last key of the other end's answer, where translated */
  readonly nat?: { readonly src?: string; readonly dst?: string; readonly sport?: number; readonly dport?: number }
}
const PAIRS: readonly Pair[] = [
  { protocol: 'tcp', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'tcp', src: '10.0.0.1', dst: '192.0.2.7', nat: { dst: '203.0.113.9', sport: 4000 } },
  { protocol: 'tcp', src: 'fd00::1', dst: 'fd00:0:0:1::2' },
  { protocol: 'udp', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'udp', src: '10.0.0.3', dst: '192.0.2.7', nat: { src: '10.9.9.9', dport: 5300 } },
  { protocol: 'udp', src: 'fd00::1', dst: '2001:db8::2' },
  { protocol: 'icmp', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'icmpv6', src: 'fd00::1', dst: 'fd00:0:0:1::2' },
  { protocol: 'gre', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'sctp', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'dccp', src: 'fd00::1', dst: 'fd00:0:0:1::2' },
  { protocol: 'udplite', src: '10.0.0.1', dst: '10.0.0.2' },
  { protocol: 'unknown', src: '10.0.0.1', dst: '10.0.0.2', nat: { dst: '203.0.113.9' } },
]

const flowOp = fc.record({
  kind: fc.constant('flow' as const),
  passed: fc.constantFrom(0, 1, 999, 400_000, 999_999, 1_000_000, 1_000_001, 2_500_000),
  pair: fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 0, max: 2 }) }, fc.nat(PAIRS.length - 1)),
  port: fc.constantFrom(1000, 1000, 1001),
  zone: fc.constantFrom('', '', '', 'zone=7', 'zone-orig=7', 'zone-orig=9', 'zone-reply=7'),
  event: fc.constantFrom('NEW', 'NEW', 'UPDATE', 'UPDATE', 'UPDATE', 'DESTROY', 'DESTROY', '') as fc.Arbitrary<'NEW' | 'UPDATE' | 'DESTROY' | ''>,
  form: fc.nat(27),
  id: fc.constantFrom(-1, 77, 77, 78, 4294967295),
  state: fc.nat(7),
  unreplied: fc.boolean(),
  assured: fc.boolean(),
  expected: fc.boolean(),
  offload: fc.constantFrom('', '', '', '', 'OFFLOAD', 'HW_OFFLOAD'),
  timeout: fc.boolean(),
  counted: fc.constantFrom('', '', '7', '18446744073709551615'),
  started: fc.boolean(),
  mark: fc.constantFrom(-1, 0, 42, 4294967295),
  by: fc.constantFrom('', '', '', '', '', ' [USERSPACE]', ' [USERSPACE] portid=7', ' [USERSPACE] portid=7 progname=my tool'),
})
const expectOp = fc.record({
  kind: fc.constant('expect' as const),
  passed: fc.constantFrom(0, 1, 400_000, 1_000_000),
  pair: fc.nat(5),
  port: fc.constantFrom(0, 1000, 1001),
  event: fc.constantFrom('NEW', 'NEW', 'DESTROY', 'DESTROY', ''),
  form: fc.nat(27),
  timeout: fc.constantFrom(0, 1, 300, 300) as fc.Arbitrary<number>,
})
const noteOp = fc.record({
  kind: fc.constant('note' as const),
  passed: fc.constant(0),
  text: fc.constantFrom(
    '</conntrack>', '', 'free text', '{"a":1}', 'NOTICE: Netlink socket buffer size has been set to 16777216 bytes.',
    'conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.', 'WARNING: We have hit ENOBUFS! We are losing events.',
  ),
})
const stream = fc.array(fc.oneof({ weight: 16, arbitrary: flowOp }, { weight: 4, arbitrary: expectOp }, { weight: 1, arbitrary: noteOp }), { minLength: 1, maxLength: 120, size: 'max' })
const clock = fc.constantFrom(...Object.keys(CLOCKS))
type Formed<T> = T extends { form: number } ? Omit<T, 'form'> & { form: Form } : T
type Op = typeof stream extends fc.Arbitrary<(infer T)[]> ? T : never
type FlowOp = Formed<Extract<Op, { kind: 'flow' }>>
type ExpectOp = Formed<Extract<Op, { kind: 'expect' }>>

const stampOf = (us: number): string => `[${Math.floor(us / 1e6)}.${String(us % 1e6).padStart(6, '0')}]\t`
const column = (name: string, number: number): string => `${name.padEnd(8)} ${number} `
const familyOf = ({ src }: Pair): readonly [string, number] => (src.includes(':') ? ['ipv6', 10] : ['ipv4', 2])
const whenOf = (us: number): string => {
  const at = new Date(us / 1000)
  const part = { hour: at.getUTCHours(), min: at.getUTCMinutes(), sec: at.getUTCSeconds(), wday: at.getUTCDay() + 1, day: at.getUTCDate(), month: at.getUTCMonth() + 1, year: at.getUTCFullYear() }
  return `<when>${Object.entries(part).map(([name, value]) => `<${name}>${value}</${name}>`).join('')}</when>`
}

/** Both directions as pairs of name and value. */
function tuplesOf(pair: Pair, port: number): readonly (readonly (readonly [string, string | number])[])[] {
  const { protocol, src, dst, nat = {} } = pair
  const back = { src: nat.src ?? dst, dst: nat.dst ?? src, sport: nat.dport ?? 80, dport: nat.sport ?? port }
  const keys = (from: number, to: number, isReply: boolean): (readonly [string, string | number])[] => {
    if (protocol === 'unknown') return []
    if (protocol === 'gre') return [['srckey', `0x${from.toString(16)}`], ['dstkey', `0x${to.toString(16)}`]]
    if (protocol === 'icmp') return [['type', isReply ? 0 : 8], ['code', 0], ['id', port]]
    if (protocol === 'icmpv6') return [['type', isReply ? 129 : 128], ['code', 0], ['id', port]]
    return [['sport', from], ['dport', to]]
  }
  return [
    [['src', src], ['dst', dst], ...keys(port, 80, false)],
    [['src', back.src], ['dst', back.dst], ...keys(back.sport, back.dport, true)],
  ]
}

function flowLine(op: FlowOp, us: number): string {
  const pair = PAIRS[op.pair]!
  const { protocol } = pair
  const number = NUMBERS[protocol]!
  const states = STATES[protocol]
  const state = states === undefined || op.state === 7 ? undefined : states[op.state % states.length]!
  const offload = op.event === 'NEW' || op.form === 'save' || op.form.startsWith('xml') ? '' : op.offload
  const timeout = op.event === 'DESTROY' ? op.timeout : offload === ''
  const [orig, reply] = tuplesOf(pair, op.port) as [readonly [string, string | number][], readonly [string, string | number][]]
  const start = BEGIN - 3_000_000
  if (op.form === 'save') return saveLine(op, pair, orig, reply, state)
  if (op.form.startsWith('xml')) {
    const layer = (name: string, tuple: typeof orig, direction: string): string =>
      `<meta direction="${name}"><layer3 protonum="${familyOf(pair)[1]}" protoname="${familyOf(pair)[0]}"><src>${tuple[0]![1]}</src><dst>${tuple[1]![1]}</dst></layer3>` +
      `<layer4 protonum="${number}" protoname="${protocol}">${/icmp|unknown/.test(protocol) ? '' : tuple.slice(2).map(([key, value]) => `<${key}>${value}</${key}>`).join('')}</layer4>` +
      `${op.zone.startsWith(`zone-${direction}=`) ? `<zone>${op.zone.split('=')[1]}</zone>` : ''}` +
      `${op.counted === '' ? '' : `<counters><packets>1</packets><bytes>${op.counted}</bytes></counters>`}</meta>`
    const word = state === undefined ? '' : (XML_STATES[`${protocol} ${state}`] ?? XML_STATES[state] ?? state)
    return (
      `<flow${op.event === '' ? '' : ` type="${op.event.toLowerCase()}"`}>${layer('original', orig, 'orig')}${layer('reply', reply, 'reply')}<meta direction="independent">` +
      `${word === '' ? '' : `<state>${word}</state>`}${timeout ? '<timeout>100000</timeout>' : ''}${op.mark < 0 ? '' : `<mark>${op.mark}</mark>`}` +
      `${op.zone.startsWith('zone=') ? '<zone>7</zone>' : ''}${op.id < 0 ? '' : `<id>${op.id}</id>`}${op.assured ? '<assured/>' : ''}${op.unreplied ? '<unreplied/>' : ''}` +
      `${op.started ? `<timestamp><start>${start}123456</start>${op.event === 'DESTROY' ? `<stop>${us}000</stop>` : ''}</timestamp>`.replace(/(\d{16})123456/, (_, digits: string) => `${digits.slice(0, 10)}123456789`) : ''}</meta>` +
      `${op.form === 'xml-when' ? whenOf(us) : ''}</flow>${op.by}`
    )
  }
  const full = op.form === 'everything'
  const stamp = op.form === 'timestamp' || full ? stampOf(us) : ''
  const tag = op.event === '' ? '' : `${`[${op.event}]`.padStart(9)} `
  const family = op.form === 'extended' || full ? column(...familyOf(pair)) : ''
  const side = (tuple: typeof orig, name: string): string =>
    [...tuple.map(([key, value]) => `${key}=${value}`), ...(op.zone.startsWith(`zone-${name}=`) ? [op.zone] : []), ...(op.counted === '' ? [] : ['packets=1', `bytes=${op.counted}`])].join(' ')
  const ctime = new Date(start / 1000).toUTCString().replace(/(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT/, '$1 $3 $2 $5 $4')
  return [
    `${stamp}${tag}${family}${column(protocol, number)}${timeout ? '100000 ' : ''}${state === undefined || offload !== '' ? '' : `${state} `}${side(orig, 'orig')}`,
    ...(op.unreplied ? ['[UNREPLIED]'] : []),
    side(reply, 'reply'),
    ...(offload !== '' ? [`[${offload}]`] : op.assured ? ['[ASSURED]'] : []),
    ...(op.mark < 0 ? [] : [`mark=${op.mark}`]),
    ...(op.zone.startsWith('zone=') ? [op.zone] : []),
    ...(op.started && full ? ['delta-time=3', `[start=${ctime}]`] : []),
    ...(op.id < 0 ? [] : [`id=${op.id}`]),
    ...(full && op.assured ? ['labels=eth0-out,spaced name'] : []),
  ].join(' ') + (op.event === '' ? '' : op.by)
}

function saveLine(op: FlowOp, { protocol, nat }: Pair, orig: readonly (readonly [string, string | number])[], reply: typeof orig, state: string | undefined): string {
  const rename: Record<string, readonly [string, string]> = { sport: ['--sport', '--reply-port-src'], dport: ['--dport', '--reply-port-dst'], srckey: ['--srckey', '--reply-key-src'], dstkey: ['--dstkey', '--reply-key-dst'] }
  const decimal = (value: string | number): number => Number(value)
  const keys = orig.slice(2).flatMap(([key, value], i) =>
    protocol.startsWith('icmp') ? [`--${protocol}-${key} ${value}`] : [`${rename[key]![0]} ${decimal(value)}`, `${rename[key]![1]} ${decimal(reply[i + 2]![1])}`],
  )
  const bits = [...(op.expected ? ['EXPECTED'] : []), ...(op.unreplied ? [] : ['SEEN_REPLY']), ...(op.assured ? ['ASSURED'] : [])]
  return [
    `-${op.event === 'UPDATE' ? 'U' : op.event === 'DESTROY' ? 'D' : 'A'}`,
    ...(op.event !== 'DESTROY' || op.timeout ? ['-t 100000'] : []),
    `-u ${bits.length === 0 ? 'UNSET' : bits.join(',')}`,
    ...(op.zone.startsWith('zone=') ? ['-w 7'] : []),
    ...(op.zone.startsWith('zone-') ? [`--${op.zone.startsWith('zone-o') ? 'orig' : 'reply'}-zone ${op.zone.split('=')[1]}`] : []),
    `-s ${orig[0]![1]} -d ${orig[1]![1]} ${nat?.src === undefined ? '-r' : '-g'} ${reply[0]![1]} ${nat?.dst === undefined ? '-q' : '-n'} ${reply[1]![1]}`,
    `-p ${protocol === 'unknown' ? 50 : protocol}`,
    ...keys,
    ...(state === undefined ? [] : [`--state ${state}`]),
  ].join(' ') + op.by
}

function expectLine(op: ExpectOp, us: number): string {
  const pair = PAIRS[op.pair]!
  const [family, familyNumber] = familyOf(pair)
  const ones = family === 'ipv4' ? '255.255.255.255' : 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
  const zeros = family === 'ipv4' ? '0.0.0.0' : '::'
  const number = NUMBERS[pair.protocol]!
  // mask and flags belong to the expectation
  const flags = ['', '', 'PERMANENT', 'PERMANENT,INACTIVE'][(op.pair * 3 + op.port) % 4]!
  const wide = ['ports', 'host', 'none'][(op.pair + op.port) % 3]!
  const tuple = { src: pair.src, dst: pair.dst, sport: op.port, dport: 80 }
  const mask = { src: wide === 'none' ? zeros : ones, dst: wide === 'none' ? zeros : ones, sport: wide === 'ports' && op.port !== 0 ? 65535 : 0, dport: wide === 'ports' ? 65535 : 0 }
  const master = { src: pair.src, dst: pair.dst, sport: 33124, dport: 21 }
  const parts = [['expected', tuple], ['mask', mask], ['master', master]] as const
  if (op.form.startsWith('xml')) {
    return (
      `<flow${op.event === '' ? '' : ` type="${op.event.toLowerCase()}"`}><layer3 protonum="${familyNumber}" protoname="${family}">` +
      `${parts.map(([name, { src, dst }]) => `<${name}><src>${src}</src><dst>${dst}</dst></${name}>`).join('')}</layer3><layer4 protonum="${number}" protoname="${pair.protocol}">` +
      `${parts.map(([name, { sport, dport }]) => `<${name}><sport>${sport}</sport><dport>${dport}</dport></${name}>`).join('')}</layer4>` +
      `<meta><helper-name>ftp</helper-name><timeout>${op.timeout}</timeout><class>0</class>${op.form === 'xml-when' ? whenOf(us) : ''}${flags.split(',').filter(Boolean).map((flag) => `<${flag.toLowerCase()}/>`).join('')}</meta></flow>`
    )
  }
  const side = (prefix: string, { src, dst, sport, dport }: typeof master): string => `${prefix}src=${src} ${prefix}dst=${dst} sport=${sport} dport=${dport}`
  return (
    `${op.form === 'timestamp' || op.form === 'everything' ? stampOf(us) : ''}${op.event === '' ? '' : `${`[${op.event}]`.padStart(9)} `}${op.timeout} proto=${number} ` +
    `${side('', tuple)} ${side('mask-', mask)} ${side('master-', master)}${flags === '' ? '' : ` ${flags}`} class=0 helper=ftp`
  )
}

function textOf(clockName: string, ops: readonly Op[]): string {
  const forms = CLOCKS[clockName]!
  const [answered, announced, ended] = [new Set<string>(), new Set<string>(), new Set<string>()]
  let us = BEGIN
  return ops
    .map((op) => {
      if (clockName !== 'still') us += op.passed
      if (op.kind === 'note') return `${op.text}\n`
      const form = forms[op.form % forms.length]!
      if (op.kind === 'expect') {
        // each expectation once: how the next one of the same tuple follows within a second, and which of two that fit is used up, is not laid down
        const key = `${op.pair} ${op.port}`
        const brief = op.port === 1001
        if (ended.has(key) || (announced.has(key) && op.event !== 'DESTROY')) return ''
        const timeout = op.event !== 'DESTROY' ? (brief ? 1 : 300) : brief ? 0 : op.timeout
        ;(op.event === 'DESTROY' ? ended : announced).add(key)
        return `${expectLine({ ...op, form, timeout }, us)}\n`
      }
      const port = /^(?:tcp|udp|sctp|dccp|gre)/.test(PAIRS[op.pair]!.protocol) ? op.port : 0
      const tuple = `${op.pair} ${port} ${/^zone(?:-orig)?=(\d)/.exec(op.zone)?.[1]}`
      const unreplied = op.event === 'NEW' || (op.unreplied && !answered.has(tuple))
      if (!unreplied) answered.add(tuple)
      // the kernel says when a flow began in rows and at its end; in one stream to the second or to the nanosecond
      const started = op.started && (op.event === 'DESTROY' || (op.event === '' && /own|received/.test(clockName))) && (clockName !== 'still' || form.startsWith('xml'))
      return `${flowLine({ ...op, form, unreplied, started }, us)}\n`
    })
    .join('')
}

async function compare(text: string, pieces: readonly Uint8Array[]): Promise<void> {
  const input = Buffer.from(text)
  const got = await runPieces(pieces)
  const want = reference(input, { received: RECEIVED })
  const found = describeDifferences(got, want)
  expect(found === '' ? '' : `${found}\nof\n${text}`).toBe('')
  expect(want.rejects).toEqual([])
  expect(got.tracker.table.size, text).toBe(want.live)
  const seen = new Set<string>()
  for (const line of got.lines) {
    const { type, event, flow } = JSON.parse(line) as Record<string, string>
    if (type !== 'flow') continue
    if (event === 'new') expect(seen).not.toContain(flow)
    seen.add(flow!)
  }
}

describe('a random stream of valid lines gives what the reference gives', () => {
  test('in one piece', async () => {
    await fc.assert(
      fc.asyncProperty(clock, stream, async (clockName, ops) => {
        const text = textOf(clockName, ops)
        await compare(text, [Buffer.from(text)])
      }),
      { numRuns, seed: 1 },
    )
  }, long ? 1_200_000 : 60_000)

  test('cut anywhere', async () => {
    await fc.assert(
      fc.asyncProperty(clock, stream, fc.nat(), fc.constantFrom(1, 40, 400), async (clockName, ops, seed, mean) => {
        const text = textOf(clockName, ops)
        await compare(text, randomCuts(Buffer.from(text), random(seed), mean))
      }),
      { numRuns: numRuns / 3, seed: 2 },
    )
  }, long ? 1_200_000 : 60_000)
})
