/**
 * The clock of the host and what happens when it is set: by a clock that the test sets, in the midst of a flood. The same on the real kernel: kernel/clock.test.ts.
 */
import { describe, expect, test } from 'vitest'
import { HostClock, notedAt } from '../src/clock.js'
import { type TableSample, timeOf } from '../src/event.js'
import { type Input, type Notice, NOTICES_ONLY } from '../src/stage.js'
import { runInputs } from './harness.js'

const T = Date.parse('2026-11-22T10:00:00Z')
const HOUR = 3_600_000
const DAY = 24 * HOUR

/** A host: its even clock and its wall clock, in milliseconds. */
class Host {
  evenMs = 5_000_000
  wallMs = T
  readonly clock = new HostClock(
    () => Math.trunc(this.wallMs),
    () => this.evenMs,
    T - 5_000_000,
  )

  pass(ms: number): void {
    this.evenMs += ms
    this.wallMs += ms
  }
}

describe('the clock of the host', () => {
  test('tells microseconds, and follows when it is set', () => {
    const host = new Host()
    host.pass(0.125)
    expect(host.clock.now()).toBe(T * 1000 + 125)
    host.wallMs += HOUR
    host.pass(1000)
    expect(host.clock.now()).toBe((T + HOUR + 1000) * 1000)
    host.wallMs -= 2 * HOUR
    expect(host.clock.now()).toBe((T - HOUR + 1000) * 1000)
  })

  test.each([
    ['a step forward', 3600_000],
    ['a step back', -20_000],
    ['a machine that was paused', 1001],
  ])('%s is told once, by how much', (_, by) => {
    const host = new Host()
    expect(host.clock.takeStep()).toBe(0)
    host.wallMs += by
    host.pass(50)
    expect(Math.abs(host.clock.takeStep() - by * 1000)).toBeLessThan(1000)
    expect(host.clock.takeStep()).toBe(0)
  })

  test('what is no more than a second is followed and not told, until it adds up', () => {
    const host = new Host()
    host.wallMs += 700
    expect(host.clock.takeStep()).toBe(0)
    expect(host.clock.now()).toBe((T + 700) * 1000)
    host.wallMs += 700
    expect(host.clock.takeStep()).toBe(1_400_000)
  })

  test('the age of a file is not what the clock was set by', () => {
    const host = new Host()
    const long = T - 30 * DAY
    const written = host.wallMs
    host.pass(2 * HOUR)
    host.wallMs += 400 * DAY
    expect(host.clock.ageMs(written)).toBe(2 * HOUR)
    expect(host.clock.ageMs(long)).toBe(30 * DAY + 2 * HOUR)
    const later = host.wallMs
    host.pass(HOUR)
    host.wallMs -= 20_000 * DAY
    expect(host.clock.ageMs(later)).toBe(HOUR)
    expect(host.clock.ageMs(written)).toBe(3 * HOUR)
  })

  test('a time that an earlier run noted is believed but where it is to come, or of decades ago', () => {
    expect(notedAt(T - 3 * DAY, T)).toBe(T - 3 * DAY)
    expect(notedAt(T + 400 * DAY, T)).toBe(T)
    expect(notedAt(0, T)).toBe(T)
  })
})

const NETNS = 4026531840
/** What comes `at` so many seconds: bytes of conntrack or of the kernel's log, or a sample. */
interface Coming {
  readonly at: number
  readonly text?: (wallSec: number) => string
  readonly drop?: number
  readonly count?: number
  /** read when the clock has been set already, stamped before */
  readonly readAt?: number
}

/** A live input that gives one thing after the other, and moves the host's clocks to when it comes. `setAt`: the clock is set then, by so many seconds. */
function comingFrom(host: Host, coming: readonly Coming[], setAt: number, by: number): Input {
  let chunk: Uint8Array = new Uint8Array(0)
  let notices: Notice[] = []
  const began = host.evenMs
  const wallAt = (at: number): number => T + at * 1000 + (at >= setAt ? by * 1000 : 0)
  const rest = [...coming].sort((a, b) => (a.readAt ?? a.at) - (b.readAt ?? b.at))
  return {
    ...{ name: 'live', isDump: false, isBusy: false, isLive: true, netns: NETNS, netnsName: '', ridPrefix: 'r', ridBy: 'counter', offset: 0 },
    get chunk() {
      return chunk
    },
    get notices() {
      return notices
    },
    onIdle: () => {},
    boot: () => ({ microseconds: host.clock.now() - host.evenMs * 1000, source: 3 }),
    position: () => null,
    receivedMicroseconds: () => host.clock.now(),
    next: async () => {
      const next = rest.shift()
      if (next === undefined) return 0
      const readAt = next.readAt ?? next.at
      host.evenMs = began + readAt * 1000
      host.wallMs = wallAt(readAt)
      notices = []
      if (next.text !== undefined) {
        chunk = Buffer.from(next.text(wallAt(next.at) / 1000))
        return chunk.length
      }
      const sample: TableSample = {
        ...timeOf(wallAt(next.at) * 1000),
        ...{ timeSource: 0, netns: NETNS, netnsName: '', count: next.count ?? 400, max: 400, buckets: 400, cpus: null },
        total: { drop: next.drop!, early_drop: next.drop!, insert_failed: 0 },
      }
      notices = [{ sample }]
      return NOTICES_ONLY
    },
    stop: () => {},
    abort: () => {},
    close: () => {},
  }
}

const event = (kind: string, port: number) => (wallSec: number): string =>
  `[${wallSec.toFixed(6)}]\t${kind} udp      17 ${kind.includes('DESTROY') ? '' : '30 '}${kind.includes('DESTROY') ? '25 ' : ''}src=10.66.1.9 dst=10.66.2.2 sport=${port} dport=53 [UNREPLIED] src=10.66.2.2 dst=10.66.2.1 sport=53 dport=${port}\n`
/** The kernel's clock is the even one. */
const tableFull = (at: number, seq: number) => (): string => `4,${seq},${(5_000 + at) * 1e6},-;nf_conntrack: nf_conntrack: table full, dropping packet\n`

const STEP_AT = 6.5
/** A flood from 3 to 10; of ten flows one is thrown out each second; then the table is as good as empty. */
const flood: readonly Coming[] = [
  ...Array.from({ length: 85 }, (_, at): Coming => ({ at, drop: 100 * Math.min(7, Math.max(0, at - 3)), count: at >= 3 && at <= 10 ? 400 : 40 })),
  ...Array.from({ length: 10 }, (_, i): Coming => ({ at: 1 + i / 100, text: event('   [NEW]', 1000 + i) })),
  { at: 3.1, text: tableFull(3.1, 1) },
  { at: 8.6, text: tableFull(8.6, 2) },
  ...Array.from({ length: 7 }, (_, i): Coming => ({ at: 3.5 + i, text: event('[DESTROY]', 1000 + i) })),
  // in a pipe while the clock is set
  { at: STEP_AT - 0.1, readAt: STEP_AT + 0.2, text: event('[DESTROY]', 1007) },
  { at: STEP_AT - 0.05, readAt: STEP_AT + 0.3, drop: 345 },
  { at: 80.5, text: event('[DESTROY]', 1008) },
]

describe.each([-3600, -20, -2, 0, 2, 20, 3600])('the clock is set by %d s in the midst of a flood', (by) => {
  const records = async (): Promise<Record<string, any>[]> => {
    const host = new Host()
    const { lines } = await runInputs([], { host: { clock: host.clock, inputs: [comingFrom(host, flood, STEP_AT, by)] } })
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  }
  const sinceT = (time: string): number => (Date.parse(time) - T) / 1000

  test('that is one gap, with what it said before and after', async () => {
    const gaps = (await records()).filter(({ type }) => type === 'gap')
    expect(gaps.map(({ cause }) => cause)).toEqual(by === 0 ? [] : ['clock_jump'])
    for (const { from, to, time } of gaps) {
      expect(sinceT(to) - sinceT(from)).toBeCloseTo(by, 2)
      expect(time).toBe(to)
      expect(sinceT(from)).toBeGreaterThanOrEqual(STEP_AT)
      expect(sinceT(from)).toBeLessThan(STEP_AT + 0.5)
    }
  })

  test('it stays one episode, and ends a minute after its last evidence', async () => {
    const alerts = (await records()).filter(({ type }) => type === 'alert')
    expect(new Set(alerts.map(({ episode }) => episode as string)).size).toBe(1)
    const last = alerts.at(-1)!
    expect(last).toMatchObject({ status: 'resolved', netns: NETNS, drops: { logged: 2, counted: 700, early: 700 } })
    expect(sinceT(last['started']) - by).toBeCloseTo(3.1, 2)
    expect(sinceT(last['ended']) - by).toBeCloseTo(10, 2)
    expect(sinceT(last['time']) - by).toBeGreaterThanOrEqual(70)
    expect(sinceT(last['time']) - by).toBeLessThanOrEqual(71)
  })

  test('who was thrown out is told so, and what ends later lasted as long as it did', async () => {
    const ends = (await records()).filter(({ type, event }) => type === 'flow' && event === 'destroy')
    expect(ends.map(({ end }) => end.reason as string)).toEqual([...Array.from({ length: 8 }, () => 'evicted'), 'evicted'])
    expect(ends.find(({ orig }) => orig.sport === 1008)!['end']).toMatchObject({ duration: 79.42 })
    expect(ends.find(({ orig }) => orig.sport === 1007)!['end'].duration).toBeCloseTo(STEP_AT - 0.1 - 1.07, 3)
  })

  test('samples go on in the new time, with rates that are none of the step', async () => {
    const tables = (await records()).filter(({ type }) => type === 'table')
    expect(sinceT(tables.at(-1)!['time']) - by).toBeCloseTo(84, 2)
    for (const { rate, drop } of tables) {
      if (rate?.drop > 0) expect(rate.drop).toBeLessThan(250)
      expect(drop ?? 0).toBeLessThanOrEqual(100)
    }
  })
})
