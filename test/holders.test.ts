/** Who holds the entries of a table, against a plain count of the same flows. */
import { describe, expect, test } from 'vitest'
import { Holders } from '../src/detectors/flows/holders.js'
import { FLAG_ANSWERED, FLAG_BEGIN_NEW, FLAG_ROWS_ONLY, FlowTable } from '../src/detectors/flows/table.js'
import { FlowEvent, KEYS_ICMP, KEYS_NONE, KEYS_PORTS } from '../src/event.js'
import { STATE_UNREPLIED, tcpState } from '../src/kernel.js'
import type { Held } from '../src/stage.js'

interface Flow {
  readonly src?: readonly number[]
  readonly dst?: readonly number[]
  readonly sport?: number
  readonly dport?: number
  readonly protocol?: number
  readonly scope?: number
  readonly state?: number
  readonly isAnswered?: boolean
  /** seconds; opened then */
  readonly began?: number
  readonly isRow?: boolean
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
  flows.forEach(({ src = CLIENT, dst = SERVER, sport = 0, dport = 53, protocol = UDP, scope = 0, state = STATE_UNREPLIED, isAnswered = false, began, isRow = false }, life) => {
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
    const ref = table.insert(event, life, (isAnswered ? FLAG_ANSWERED : 0) | (isRow ? FLAG_ROWS_ONLY : 0))
    if (began !== undefined) table.setBegin(ref, Math.floor(began), Math.round((began % 1) * 1e6), FLAG_BEGIN_NEW)
    table.setLast(ref, 1, 1, state)
  })
  return table
}

const netnsOf = (scope: number): number => [0, 100, 200][scope] ?? 200
const NOW = 1_795_342_492e6
const look = (flows: readonly Flow[], netns = 0, since = NOW): readonly Held[] => new Holders(tableOf(flows), netnsOf, 5).look(netns, NOW, since)!.rows
const short = (rows: readonly Held[]): string[] => rows.map(({ by, value, entries }) => `${by} ${value} ${entries}`)
const many = (times: number, flow: Flow | ((i: number) => Flow)): Flow[] => Array.from({ length: times }, (_, i) => ({ sport: 1024 + i, ...(typeof flow === 'function' ? flow(i) : flow) }))

describe('top holders', () => {
  test.each<[string, Flow[], number, string[]]>([
    ['of nothing', [], 0, []],
    ['of one flow', [{}], 0, ['src 10.10.1.2 1', 'dst 10.10.2.2 1', 'service 10.10.2.2:53/udp 1', 'state udp UNREPLIED 1']],
    [
      'of both families, with and without ports',
      [
        ...many(4, { src: v6(1), dst: v6(0x10), protocol: TCP, dport: 443, state: ESTABLISHED }),
        ...many(3, { protocol: 1, dst: v4('255.255.255.255') }),
        ...many(2, { src: v4('192.0.2.1'), protocol: 50, state: -1 }),
      ],
      0,
      [
        ...['src fd00::1 4', 'src 10.10.1.2 3', 'src 192.0.2.1 2'],
        ...['dst fd00::10 4', 'dst 255.255.255.255 3', 'dst 10.10.2.2 2'],
        ...['service [fd00::10]:443/tcp 4', 'service 255.255.255.255/icmp 3', 'service 10.10.2.2/50 2'],
        ...['state tcp ESTABLISHED 4', 'state icmp UNREPLIED 3', 'state 50 2'],
      ],
    ],
    [
      'tells ports and protocols of one address apart, and one address in both places',
      [...many(3, { dport: 53 }), ...many(2, { dport: 53, protocol: TCP }), ...many(1, { dport: 54 }), ...many(1, { src: SERVER, dst: CLIENT })],
      0,
      [
        ...['src 10.10.1.2 6', 'src 10.10.2.2 1'],
        ...['dst 10.10.2.2 6', 'dst 10.10.1.2 1'],
        ...['service 10.10.2.2:53/udp 3', 'service 10.10.2.2:53/tcp 2', 'service 10.10.1.2:53/udp 1'],
        ...['state udp UNREPLIED 5', 'state tcp UNREPLIED 2'],
      ],
    ],
    [
      'of one namespace, with the flows of none',
      [...many(5, { scope: 1 }), ...many(9, { scope: 2, src: SERVER }), ...many(1, { src: SERVER })],
      100,
      ['src 10.10.1.2 5', 'src 10.10.2.2 1', 'dst 10.10.2.2 6', 'service 10.10.2.2:53/udp 6', 'state udp UNREPLIED 6'],
    ],
    ['of many scopes', many(3000, (i) => ({ scope: i })), 100, ['src 10.10.1.2 2', 'dst 10.10.2.2 2', 'service 10.10.2.2:53/udp 2', 'state udp UNREPLIED 2']],
  ])('%s', (_, flows, netns, told) => {
    expect(short(look(flows, netns))).toEqual(told)
  })

  test('leave out what was removed', () => {
    const table = tableOf([...many(5, {}), ...many(3, { src: SERVER })])
    table.remove(table.at(1))
    expect(short(new Holders(table, netnsOf).look(0, NOW, NOW)!.rows)[0]).toBe('src 10.10.1.2 4')
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
    const found = look(flows).filter(({ by }) => by === 'src')
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
    expect(holders.look(100, NOW, NOW)!.rows[0]!.entries).toBe(100_000)
    for (const netns of [100, 200]) expect(holders.look(netns, NOW + 50_000, NOW)).toBeNull()
    expect(holders.look(0, NOW + 110_000, NOW)!.rows[0]!.entries).toBe(100_000)
  })

  test('of a row so many are unreplied, and so many began since', () => {
    const sec = NOW / 1e6
    const flows = [
      ...many(4, (i) => ({ began: sec - 1 + i / 2 })),
      ...many(3, { src: SERVER, dst: CLIENT, isAnswered: true, protocol: TCP, began: sec - 60 }),
      ...many(1, { src: v6(1), dst: v6(2), began: sec + 0.000001, isAnswered: true }),
    ]
    const told = look(flows).map(({ by, value, unreplied, new: opened }) => `${by} ${value} ${unreplied} ${opened}`)
    expect(told).toEqual([
      ...['src 10.10.1.2 4 2', 'src 10.10.2.2 0 0', 'src fd00::1 0 1'],
      ...['dst 10.10.2.2 4 2', 'dst 10.10.1.2 0 0', 'dst fd00::2 0 1'],
      ...['service 10.10.2.2:53/udp 4 2', 'service 10.10.1.2:53/tcp 0 0', 'service [fd00::2]:53/udp 0 1'],
      ...['state udp UNREPLIED 4 3', 'state tcp UNREPLIED 0 0'],
    ])
  })

  test('rows of a dump alone do not tell when flows began', () => {
    expect(look(many(2, { isRow: true })).map((row) => 'new' in row)).toEqual([false, false, false, false])
    expect(look([...many(2, { isRow: true }), {}])[0]).toMatchObject({ entries: 3, new: 0 })
  })

  test('how many are known of a namespace, without a look', () => {
    const table = tableOf([...many(5, { scope: 1 }), ...many(9, { scope: 2 }), ...many(1, { src: SERVER }), ...many(70, { scope: 70 })])
    const holders = new Holders(table, netnsOf)
    expect([0, 100, 200, 300].map((netns) => holders.known(netns))).toEqual([85, 6, 80, 1])
    table.remove(table.at(1))
    expect(holders.known(100)).toBe(5)
  })
})
