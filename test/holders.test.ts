/** Who holds the entries of a table, against a plain count of the same flows. */
import { describe, expect, test } from 'vitest'
import { Holders } from '../src/detectors/flows/holders.js'
import { FlowTable } from '../src/detectors/flows/table.js'
import { FlowEvent, type Holder, KEYS_ICMP, KEYS_NONE, KEYS_PORTS } from '../src/event.js'
import { STATE_UNREPLIED, tcpState } from '../src/kernel.js'

interface Flow {
  readonly src?: readonly number[]
  readonly dst?: readonly number[]
  readonly sport?: number
  readonly dport?: number
  readonly protocol?: number
  readonly scope?: number
  readonly state?: number
}

const TCP = 6
const UDP = 17
const ESTABLISHED = tcpState('ESTABLISHED')
/** One word is an IPv4 address, four are IPv6. */
const v4 = (text: string): number[] => [text.split('.').reduce((word, part) => (word << 8) | Number(part), 0)]
const CLIENT = v4('10.10.1.2')
const SERVER = v4('10.10.2.2')
/** fd00::n */
const v6 = (n: number): number[] => [0xfd00_0000 | 0, 0, 0, n]

function tableOf(flows: readonly Flow[], seed = 1): FlowTable {
  const table = new FlowTable(flows.length + 1, seed)
  const event = new FlowEvent()
  flows.forEach(({ src = CLIENT, dst = SERVER, sport = 0, dport = 53, protocol = UDP, scope = 0, state = STATE_UNREPLIED }, life) => {
    const { orig } = event
    const six = src.length === 4
    event.family = six ? 6 : 4
    event.protocol = protocol
    event.scope = scope
    ;[orig.s0, orig.s1, orig.s2, orig.s3] = six ? (src as [number, number, number, number]) : [0, 0, 0, src[0]!]
    ;[orig.d0, orig.d1, orig.d2, orig.d3] = six ? (dst as [number, number, number, number]) : [0, 0, 0, dst[0]!]
    orig.keys = protocol === 1 ? KEYS_ICMP : protocol === 50 ? KEYS_NONE : KEYS_PORTS
    ;[orig.k1, orig.k2, orig.k3] = protocol === 1 ? [8, 0, sport] : protocol === 50 ? [0, 0, 0] : [sport, dport, 0]
    table.find(event, false)
    table.setLast(table.insert(event, life, 0), 1, 1, state)
  })
  return table
}

const netnsOf = (scope: number): number => [0, 100, 200][scope] ?? 200
const at = { sec: 1_795_342_492, usec: 0 }
const top = (flows: readonly Flow[], netns = 0): readonly Holder[] => new Holders(tableOf(flows), netnsOf, 5).top(netns, at)
const short = (holders: readonly Holder[]): string[] => holders.map(({ by, value, entries, share }) => `${by} ${value} ${entries} ${share}`)
const many = (times: number, flow: Flow | ((i: number) => Flow)): Flow[] => Array.from({ length: times }, (_, i) => ({ sport: 1024 + i, ...(typeof flow === 'function' ? flow(i) : flow) }))

describe('top holders', () => {
  test.each<[string, Flow[], number, string[]]>([
    ['of nothing', [], 0, []],
    ['of one flow', [{}], 0, ['src 10.10.1.2 1 1', 'dst 10.10.2.2:53/udp 1 1', 'state udp UNREPLIED 1 1']],
    [
      'of both families, with and without ports',
      [
        ...many(4, { src: v6(1), dst: v6(0x10), protocol: TCP, dport: 443, state: ESTABLISHED }),
        ...many(3, { protocol: 1, dst: v4('255.255.255.255') }),
        ...many(2, { src: v4('192.0.2.1'), protocol: 50, state: -1 }),
      ],
      0,
      [
        'src fd00::1 4 0.4444',
        'src 10.10.1.2 3 0.3333',
        'src 192.0.2.1 2 0.2222',
        'dst [fd00::10]:443/tcp 4 0.4444',
        'dst 255.255.255.255/icmp 3 0.3333',
        'dst 10.10.2.2/50 2 0.2222',
        'state tcp ESTABLISHED 4 0.4444',
        'state icmp UNREPLIED 3 0.3333',
        'state 50 2 0.2222',
      ],
    ],
    [
      'tells ports and protocols of one address apart, and one address in both places',
      [...many(3, { dport: 53 }), ...many(2, { dport: 53, protocol: TCP }), ...many(1, { dport: 54 }), ...many(1, { src: SERVER, dst: CLIENT })],
      0,
      [
        'src 10.10.1.2 6 0.8571',
        'src 10.10.2.2 1 0.1429',
        'dst 10.10.2.2:53/udp 3 0.4286',
        'dst 10.10.2.2:53/tcp 2 0.2857',
        'dst 10.10.1.2:53/udp 1 0.1429',
        'state udp UNREPLIED 5 0.7143',
        'state tcp UNREPLIED 2 0.2857',
      ],
    ],
    [
      'of one namespace, with the flows of none',
      [...many(5, { scope: 1 }), ...many(9, { scope: 2, src: SERVER }), ...many(1, { src: SERVER })],
      100,
      ['src 10.10.1.2 5 0.8333', 'src 10.10.2.2 1 0.1667', 'dst 10.10.2.2:53/udp 6 1', 'state udp UNREPLIED 6 1'],
    ],
    ['of many scopes', many(3000, (i) => ({ scope: i })), 100, ['src 10.10.1.2 2 1', 'dst 10.10.2.2:53/udp 2 1', 'state udp UNREPLIED 2 1']],
  ])('%s', (_, flows, netns, told) => {
    expect(short(top(flows, netns))).toEqual(told)
  })

  test('leave out what was removed', () => {
    const table = tableOf([...many(5, {}), ...many(3, { src: SERVER })])
    table.remove(table.at(1))
    expect(short(new Holders(table, netnsOf).top(0, at))[0]).toBe('src 10.10.1.2 4 0.5714')
  })

  /** Two hundred thousand flows; how many each of so many addresses has falls off, or is the same. */
  test.each([
    ['a few hold most', (i: number) => Math.floor(Math.abs(Math.sin(i) * Math.sin(i * 7.1)) ** 4 * 40_000)],
    ['one leads a crowd', (i: number) => (i % 5 === 0 ? 7 : i)],
    ['all alike', (i: number) => i % 300],
    ['each its own', (i: number) => i],
  ])('are those of a plain count, or as near as anybody can be: %s', (_, who) => {
    const flows = many(200_000, (i) => (who(i) % 3 === 0 ? { src: v6(who(i)), dst: v6(who(i) >>> 3), sport: i & 0xffff } : { src: [who(i)], dst: [who(i) >>> 3], sport: i & 0xffff, dport: i >>> 16 }))
    const exact = new Map<string, number>()
    for (const { src } of flows) exact.set(src!.join(), (exact.get(src!.join()) ?? 0) + 1)
    const counts = [...exact.values()].sort((a, b) => b - a).slice(0, 3)
    const found = top(flows).filter(({ by }) => by === 'src')
    // nobody is told with more than he has, and nobody with 0.02 % of the table more than the last told is left out
    found.forEach(({ entries }, i) => {
      expect(entries).toBeLessThanOrEqual(counts[i]!)
      expect(counts[i]! - entries).toBeLessThanOrEqual(flows.length * 0.0002)
    })
    expect(found).toHaveLength(3)
    if (counts[0]! > 1000) expect(found.map(({ entries }) => entries).slice(0, 1)).toEqual(counts.slice(0, 1))
  })

  test('look at a large table once a second at most for a million places', () => {
    const holders = new Holders(tableOf(many(100_000, { scope: 1 })), netnsOf)
    const first = holders.top(100, at)
    expect(first[0]!.entries).toBe(100_000)
    expect(holders.top(100, { sec: at.sec, usec: 50_000 })).toBe(first)
    expect(holders.top(200, { sec: at.sec, usec: 50_000 })).toEqual([])
    expect(holders.top(0, { sec: at.sec, usec: 110_000 })[0]!.entries).toBe(100_000)
  })
})
