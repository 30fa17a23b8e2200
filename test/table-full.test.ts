/**
 * Table-full episodes: kernel lines and samples by hand in, alerts out. An alert in short: which episode (#1 is the first that appeared) and notice, namespace,
 * status, seconds after T, then what it cost.
 */
import { describe, expect, test } from 'vitest'
import { EPISODES_MAX } from '../src/detectors/table-full/episode.js'
import { QUIET_SEC_MIN, TableFull, type TableFullOptions } from '../src/detectors/table-full.js'
import { type Alert, type KernelEvent, type KernelKind, type TableRecord, type Time, TIME_ESTIMATED } from '../src/event.js'
import type { HoldersLook, TopHolders } from '../src/stage.js'

const T = Date.parse('2026-11-22T10:14:43Z') / 1000
const A = 4026532246
const B = 4026532333
const INITIAL = 4026531840

const timeOf = (seconds: number): Time => {
  const usec = Math.round((T + seconds) * 1e6)
  return { sec: Math.floor(usec / 1e6), usec: usec % 1e6 }
}
const since = ({ sec, usec }: Time): number => Math.round((sec - T) * 1e6 + usec) / 1e6

/** What happens, at so many seconds after T. */
type Step = { readonly at: number; readonly line?: Partial<KernelEvent> & { readonly kind: KernelKind }; readonly sample?: Sample }
interface Sample {
  readonly netns: number
  readonly drop: number
  readonly early?: number
  readonly failed?: number
  readonly count?: number
  readonly name?: string
}

const full = (at: number, netns = 0, more: Partial<KernelEvent> = {}): Step => ({ at, line: { kind: 'table_full', netns, ...more } })
const fulls = (at: number, times: number, netns = 0): Step[] => Array.from({ length: times }, (_, i) => full(at + i / 1e4, netns))
const suppressed = (at: number, count: number): Step => ({ at, line: { kind: 'suppressed', count } })
/** The table holds 400 at most, and is full unless said. */
const sample = (at: number, netns: number, drop: number, more: Partial<Sample> = {}): Step => ({ at, sample: { netns, drop, ...more } })
const samples = (from: number, to: number, netns: number, drop: number, more: Partial<Sample> = {}): Step[] =>
  Array.from({ length: to - from + 1 }, (_, i) => sample(from + i, netns, drop, more))
const tick = (at: number): Step => ({ at })
const ticks = (from: number, to: number): Step[] => Array.from({ length: to - from + 1 }, (_, i) => tick(from + i))
const byTime = (...steps: (Step | Step[])[]): Step[] => steps.flat().sort((a, b) => a.at - b.at)

function kernelEvent({ at, line }: Step): KernelEvent {
  return {
    ...timeOf(at),
    timeSource: 0,
    host: '',
    netns: 0,
    priority: 4,
    facility: 0,
    seq: -1,
    monotonic: Math.round(at * 1e6) + 5e8,
    message: '',
    repeat: 0,
    count: -1,
    buckets: -1,
    max: -1,
    packet: null,
    position: '',
    trusted: true,
    ...line!,
  }
}

function tableRecord({ at, sample: { netns, drop, early = 0, failed = 0, count = 400, name = '' } = { netns: 0, drop: 0 } }: Step): TableRecord {
  return {
    ...timeOf(at),
    timeSource: 0,
    netns,
    netnsName: name,
    count,
    max: 400,
    buckets: 1024,
    total: { drop, early_drop: early, insert_failed: failed },
    cpus: null,
    usage: count / 400,
    drop: -1,
    earlyDrop: -1,
    insertFailed: -1,
    rateNew: -1,
    rateDestroy: -1,
    rateDrop: -1,
    fullIn: -1,
  }
}

interface Given extends Partial<TableFullOptions> {
  readonly names?: boolean | null
  readonly initial?: number
  readonly finish?: boolean
}

/** Feeds steps as the loop does: the clock first. */
class Play {
  readonly alerts: Alert[] = []
  detector: TableFull
  readonly #given: Given

  constructor(given: Given = {}) {
    this.#given = given
    this.detector = this.#make()
  }

  #make(): TableFull {
    return new TableFull({ emit: (alert) => this.alerts.push(alert), holders: null, boot: 'boot', ...this.#given })
  }

  step(step: Step): void {
    const { at } = step
    if (step.line !== undefined) {
      const event = kernelEvent(step)
      this.detector.advance(event)
      this.detector.kernel(event, { namesNamespaces: this.#given.names ?? null, initialNetns: this.#given.initial ?? 0 })
    } else if (step.sample !== undefined) {
      const record = tableRecord(step)
      this.detector.advance(record)
      this.detector.sample(record)
    } else {
      this.detector.advance(timeOf(at))
    }
  }

  /** Stopped here, and started again from what was saved. */
  restart(): void {
    const saved = JSON.parse(JSON.stringify(this.detector.save())) as unknown
    this.detector = this.#make()
    this.detector.restore(saved)
  }
}

function play(steps: readonly Step[], given: Given = {}): Alert[] {
  const playing = new Play(given)
  for (const step of steps) playing.step(step)
  if (given.finish !== false) playing.detector.finish()
  return playing.alerts
}

function short(alerts: readonly Alert[]): string[] {
  const ids = [...new Set(alerts.map(({ episode }) => episode))]
  const names: Record<number, string> = { 0: '-', [A]: 'A', [B]: 'B', [INITIAL]: 'init' }
  return alerts.map((alert) => {
    const { logged, suppressed: held, atLeast, estimate, counted, early, races, since: from } = alert.drops!
    const has = (name: string, value: number): string => (value < 0 ? '' : ` ${name} ${value}`)
    const status = alert.status === 'resolved' ? `resolved ended ${since(alert.ended!)}` : alert.final ? 'final' : 'firing'
    return (
      `#${ids.indexOf(alert.episode) + 1}.${alert.seq} ${names[alert.netns] ?? alert.netns} ${status}${alert.unconfirmed ? ' unconfirmed' : ''} @${since(alert)} from ${since(alert.started)}:` +
      has('logged', logged) + has('suppressed', held) + has('least', atLeast) + has('estimate', estimate) + has('counted', counted) + has('early', early) + has('races', races) +
      (from === null ? '' : ` since ${since(from)}`)
    )
  })
}

const played = (steps: readonly Step[], given: Given = {}): string[] => short(play(steps, given))

/** The lines of captures of a real incident: four windows of ten, and what each window's first line says of the one before. */
const incident = [
  suppressed(-0.065, 289),
  ...fulls(-0.065, 10, A),
  suppressed(6.324, 1857),
  ...fulls(6.324, 10, A),
  suppressed(15.95, 2324),
  ...fulls(15.95, 10, A),
  suppressed(22.22, 39),
  ...fulls(22.22, 10, A),
]
/** `conntrack -S` after each flood of the same incident. */
const incidentSamples = [
  sample(-2, A, 4489, { early: 35, failed: 1723, count: 0 }),
  sample(-1, A, 4489, { early: 35, failed: 1723, count: 300 }),
  sample(5, A, 6356, { early: 68, failed: 1723 }),
  sample(8, A, 7818, { early: 69, failed: 1723 }),
  sample(15.9, A, 8690, { early: 72, failed: 1723 }),
  sample(21.9, A, 8739, { early: 72, failed: 1723 }),
  sample(23.5, A, 9426, { early: 72, failed: 1723 }),
]

describe('the incident', () => {
  test('from its kernel lines alone', () => {
    expect(played(incident)).toEqual([
      '#1.1 A firing @-0.065 from -0.065: logged 1 suppressed 0 least 1',
      '#1.2 A final @22.2209 from -0.065: logged 40 suppressed 4220 least 40 estimate 4260',
    ])
    expect(play(incident).at(-1)!.summary).toBe('conntrack table full in netns 4026532246: at least 40 packets dropped since 10:14:42 (UTC); the kernel held back 4,220 more messages of whatever kind')
  })

  test('with the counters beside them', () => {
    const alerts = play(byTime(incident, incidentSamples))
    expect(short(alerts)).toEqual([
      '#1.1 A firing @-0.065 from -0.065: logged 1 suppressed 0 least 1',
      '#1.2 A final @23.5 from -0.065: logged 40 suppressed 4220 least 40 estimate 4260 counted 4937 early 37 races 0',
    ])
    expect(alerts[1]!.summary).toBe('conntrack table full in netns 4026532246: 4,937 packets dropped since 10:14:42 (UTC)')
    expect(alerts[1]!.table).toEqual({ count: 400, max: 400 })
  })

  test.each([
    ['lines alone', incident],
    ['lines and counters', byTime(incident, incidentSamples)],
  ])('resolved before what lines of two minutes later cause, which never reopen it: %s', (_, steps) => {
    expect(played([...steps, suppressed(142, 77), full(142.00001, A)]).map((text) => text.split(':')[0])).toEqual([
      '#1.1 A firing @-0.065 from -0.065',
      `#1.2 A resolved ended ${steps === incident ? 22.2209 : 23.5} @142 from -0.065`,
      '#2.1 A firing @142.00001 from 142.00001',
      '#2.2 A final @142.00001 from 142.00001',
    ])
    // the suppression line is of the window before the new episode
    expect(play([...steps, suppressed(142, 77), full(142.00001, A)]).at(-1)!.drops!.suppressed).toBe(0)
  })

  test('read twice, the same alerts; read with another wall clock, the same episode', () => {
    const steps = byTime(incident, incidentSamples)
    expect(play(steps)).toEqual(play(steps))
    const later = incident.map((step) => ({ ...step, at: step.at + 0.25, line: { ...step.line!, monotonic: kernelEvent(step).monotonic } }))
    expect(play(later)[0]!.episode).toBe(play(incident)[0]!.episode)
    expect(play(incident, { boot: 'another' })[0]!.episode).not.toBe(play(incident)[0]!.episode)
    expect(play(incident)[0]!.episode).toMatch(/^[0-9a-f]{16}$/)
  })
})

describe('an episode', () => {
  test.each<[string, Step[], string[]]>([
    [
      'closes 60 s after its last line, at what moves the clock then',
      [full(0, A), full(20, A), ...ticks(70, 81)],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A firing @70 from 0: logged 2 suppressed 0 least 2', '#1.3 A resolved ended 20 @80 from 0: logged 2 suppressed 0 least 2'],
    ],
    [
      'is written again every 30 s at most, and only when its numbers have grown',
      [full(0, A), ...ticks(1, 40), ...[41, 42, 50].map((at) => full(at, A)), ...ticks(51, 90)],
      [
        '#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1',
        '#1.2 A firing @41 from 0: logged 2 suppressed 0 least 2',
        '#1.3 A firing @71 from 0: logged 4 suppressed 0 least 4',
        '#1.4 A final @90 from 0: logged 4 suppressed 0 least 4',
      ],
    ],
    [
      'is opened by counters alone, and stays open while the level is at 90 % of the maximum',
      [sample(0, A, 5, { count: 100 }), sample(1, A, 5), sample(2, A, 25, { early: 3 }), ...samples(3, 99, A, 25, { early: 3 }), sample(100, A, 25, { early: 3, count: 359 })],
      ['#1.1 A firing @2 from 2: counted 20 early 3 races 0', '#1.2 A resolved ended 2 @100 from 2: counted 20 early 3 races 0'],
    ],
    [
      'is not opened by lost insertion races, nor far below the maximum, nor by early drops',
      [sample(0, A, 5), sample(1, A, 9, { failed: 4 }), sample(2, A, 9, { failed: 4, early: 7 }), sample(3, A, 9, { count: 100, failed: 4 }), sample(4, A, 20, { count: 100, failed: 4 })],
      [],
    ],
    [
      'counts copies that a logger folded',
      [full(0, A), full(1, A, { repeat: 9 })],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A final @1 from 0: logged 10 suppressed 0 least 10'],
    ],
    [
      'is one for each namespace and rule; with two open nobody knows whose the suppressed are',
      [full(0, A), full(0.1, B), { at: 0.2, line: { kind: 'expect_table_full' } }, suppressed(6, 50), full(6.1, A)],
      [
        '#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1',
        '#2.1 B firing @0.1 from 0.1: logged 1 suppressed 0 least 1',
        '#3.1 - firing @0.2 from 0.2: logged 1 suppressed 0 least 1',
        '#1.2 A final @6.1 from 0: logged 2 suppressed 50 least 2',
        '#2.2 B final @6.1 from 0.1: logged 1 suppressed 50 least 1',
        '#3.2 - final @6.1 from 0.2: logged 1 suppressed 50 least 1',
      ],
    ],
    [
      'gives no estimate when other messages shared the window',
      [full(0, A), { at: 0.1, line: { kind: 'neighbour_overflow' } }, suppressed(6, 50), full(6.1, A)],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A final @6.1 from 0: logged 2 suppressed 50 least 2'],
    ],
    [
      'takes what a window held back though it is told long after, and not what windows of others held back',
      [full(0, A), suppressed(50, 7), { at: 50.1, line: { kind: 'syn_flood' } }, suppressed(56, 9), full(56.1, A)],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A firing @50 from 0: logged 1 suppressed 7 least 1 estimate 8', '#1.3 A final @56.1 from 0: logged 2 suppressed 7 least 2 estimate 9'],
    ],
    [
      'tells when the watching began inside',
      [full(0, A), sample(2, A, 1000), sample(3, A, 1500)],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A final @3 from 0: logged 1 suppressed 0 least 1 counted 500 early 0 races 0 since 2'],
    ],
    [
      'counts from the last sample before it, also when the line came after the sample that saw its drops',
      [sample(0, A, 10), sample(1, A, 30), sample(2, A, 30), full(0.9, A), sample(3, A, 30)],
      ['#1.1 A firing @1 from 1: counted 20 early 0 races 0', '#1.2 A final @3 from 1: logged 1 suppressed 0 least 1 counted 20 early 0 races 0'],
    ],
    [
      'is opened where the table was full at the sample before',
      [sample(0, A, 0), sample(1, A, 20, { count: 100 })],
      ['#1.1 A firing @1 from 1: counted 20 early 0 races 0', '#1.2 A final @1 from 1: counted 20 early 0 races 0'],
    ],
    [
      'counts drops of a sample just before its first line, by another clock',
      [sample(0, A, 0, { count: 100 }), sample(1, A, 20, { count: 100 }), full(1.2, A)],
      ['#1.1 A firing @1.2 from 1.2: logged 1 suppressed 0 least 1 counted 20 early 0 races 0', '#1.2 A final @1.2 from 1.2: logged 1 suppressed 0 least 1 counted 20 early 0 races 0'],
    ],
    [
      'is not confused by samples out of order',
      [sample(0, A, 100), full(0.5, A), sample(2, A, 150), sample(1, A, 120), sample(3, A, 160)],
      ['#1.1 A firing @0.5 from 0.5: logged 1 suppressed 0 least 1', '#1.2 A final @3 from 0.5: logged 1 suppressed 0 least 1 counted 60 early 0 races 0'],
    ],
    [
      'knows that a window begins where nothing was held back before',
      [full(0, A), { at: 0.1, line: { kind: 'neighbour_overflow' } }, full(7, A), suppressed(13, 5)],
      ['#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 A final @13 from 0: logged 2 suppressed 5 least 2 estimate 7'],
    ],
    [
      'survives that the counters begin anew, and that samples come twice',
      [sample(0, A, 100), full(0.5, A), sample(1, A, 150), sample(1, A, 150), sample(2, A, 3), sample(3, A, 10)],
      ['#1.1 A firing @0.5 from 0.5: logged 1 suppressed 0 least 1', '#1.2 A final @3 from 0.5: logged 1 suppressed 0 least 1 counted 57 early 0 races 0'],
    ],
    [
      'of old lines that are read late ends where they pause',
      [tick(10_000), full(0, A), full(1, A), full(300, A), full(301, A), ...ticks(10_001, 10_070)],
      [
        '#1.1 A firing @10000 from 0: logged 1 suppressed 0 least 1',
        '#1.2 A resolved ended 1 @10000 from 0: logged 2 suppressed 0 least 2',
        '#2.1 A firing @10000 from 300: logged 1 suppressed 0 least 1',
        '#2.2 A firing @10030 from 300: logged 2 suppressed 0 least 2',
        '#2.3 A resolved ended 301 @10060 from 300: logged 2 suppressed 0 least 2',
      ],
    ],
    [
      'ends by quiet alone when its samples have stopped at a high level',
      [sample(0, A, 0), sample(1, A, 9), tick(50), tick(61), tick(62)],
      ['#1.1 A firing @1 from 1: counted 9 early 0 races 0', '#1.2 A resolved ended 1 @62 from 1: counted 9 early 0 races 0'],
    ],
  ])('%s', (_, steps, alerts) => {
    expect(played(steps)).toEqual(alerts)
  })

  test('settings: a short quiet time is refused; severity and quiet of each rule', () => {
    expect(() => new Play({ quietSec: QUIET_SEC_MIN - 0.001 })).toThrow(RangeError)
    expect(() => new Play({ expectations: { quietSec: 9 } })).toThrow(/at least 10 s/)
    const alerts = play([full(0, A), { at: 0, line: { kind: 'expect_table_full' } }, ...ticks(1, 30)], { quietSec: 10, severity: 'info', expectations: { quietSec: 20 } })
    expect(alerts.map(({ rule, severity, status, sec }) => [rule, severity, status, sec - T])).toEqual([
      ['table_full', 'info', 'firing', 0],
      ['expect_table_full', 'warning', 'firing', 0],
      ['table_full', 'info', 'resolved', 10],
      ['expect_table_full', 'warning', 'resolved', 20],
    ])
    expect(alerts[3]).toMatchObject({ table: null, summary: 'conntrack expectation table was full: logged 1 time from 10:14:43 to 10:14:43 (UTC)', drops: { counted: -1 } })
  })

  test('says when the clock has work for it, and nothing before', () => {
    const playing = new Play()
    expect(playing.detector.due).toBeNull()
    playing.step(full(0, A))
    const due = playing.detector.due!
    expect(since(due)).toBeLessThanOrEqual(60)
    playing.step(tick(59.999))
    expect(since(playing.detector.due!)).toBe(60)
    expect(playing.alerts).toHaveLength(1)
    playing.step(tick(60))
    expect(playing.alerts).toHaveLength(2)
    expect(playing.detector.openEpisodes).toEqual([])
  })

  test('says when races are among the drops, and the day when it is another', () => {
    const alerts = play([sample(0, A, 0), sample(1, A, 1500, { failed: 12 }), ...Array.from({ length: 1900 }, (_, i) => sample(31 + i * 30, A, 1501 + i, { failed: 12 }))])
    expect(alerts[0]!.summary).toBe('conntrack table full in netns 4026532246: 1,500 packets dropped since 10:14:44 (UTC) (up to 12 of them lost insertion races)')
    expect(alerts.at(-1)!.summary).toContain('3,400 packets dropped since 2026-11-22 10:14:44 (UTC)')
  })
})

describe('a flood of A, one of B in the same five seconds, A once more', () => {
  const log = [...fulls(0, 10, A), suppressed(6, 10 + 2500), full(6.0001, A)]

  test('with both watched: nothing of B is said of A', () => {
    const counters = byTime(samples(-1, 0, A, 0), samples(-1, 0, B, 0), samples(1, 6, A, 20), sample(7, A, 21), sample(0.9, B, 0), samples(1, 7, B, 2500))
    const alerts = play(byTime(log, counters))
    expect(short(alerts)).toEqual([
      '#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1',
      '#2.1 B firing @1 from 1: logged 0 suppressed 0 least 0 counted 2500 early 0 races 0',
      '#1.2 A final @7 from 0: logged 11 suppressed 2510 least 11 counted 21 early 0 races 0',
      '#2.2 B final @7 from 1: logged 0 suppressed 0 least 0 counted 2500 early 0 races 0',
    ])
    expect(alerts[2]!.summary).toContain(': 21 packets dropped')
  })

  test('with A alone watched its own counters disprove the estimate', () => {
    const alerts = play(byTime(log, samples(-1, 0, A, 0), samples(1, 6, A, 20), sample(7, A, 21)))
    expect(alerts.at(-1)!.drops).toMatchObject({ logged: 11, atLeast: 11, suppressed: 2510, estimate: -1, counted: 21 })
    expect(alerts.at(-1)!.summary).toContain(': 21 packets dropped')
  })

  test('with nothing watched the bound is the log', () => {
    expect(play(log).at(-1)!.drops).toMatchObject({ logged: 11, atLeast: 11, counted: -1 })
  })
})

describe('a line without a namespace', () => {
  const quiet = (netns: number, from = -3, to = 9): Step[] => samples(from, to, netns, 7, { count: 100 })
  /** It drops so many at a time, and one more at 6.1 s. */
  const flooded = (netns: number, at: number, drops: number, from = -3, to = 9): Step[] =>
    samples(from, to, netns, 0).map((step) => sample(step.at, netns, step.at < at ? 0 : drops + (step.at > 6.1 ? 1 : 0), { count: step.at < at ? 100 : 400 }))

  test.each<[string, Step[], Given, string[]]>([
    ['is of nobody where nothing is watched', [full(0)], {}, ['#1.1 - firing @0 from 0: logged 1 suppressed 0 least 1', '#1.2 - final @0 from 0: logged 1 suppressed 0 least 1']],
    [
      'is of the initial namespace where the kernel names the others',
      [full(0), full(1, A)],
      { names: true, initial: INITIAL },
      [
        '#1.1 init firing @0 from 0: logged 1 suppressed 0 least 1',
        '#2.1 A firing @1 from 1: logged 1 suppressed 0 least 1',
        '#1.2 init final @1 from 0: logged 1 suppressed 0 least 1',
        '#2.2 A final @1 from 1: logged 1 suppressed 0 least 1',
      ],
    ],
    [
      'belongs to the watched namespace whose drop rose: one episode (kernel 6.12, two watched)',
      byTime(quiet(B), flooded(A, 0.2, 1500), fulls(0.2, 10), suppressed(6.1, 1480), full(6.1)),
      { names: false, initial: INITIAL },
      [
        '#1.1 A firing @1 from 0.2: logged 10 suppressed 0 least 10 counted 1500 early 0 races 0',
        '#1.2 A final @9 from 0.2: logged 11 suppressed 1480 least 11 estimate 1491 counted 1501 early 0 races 0',
      ],
    ],
    [
      'the same, when the flooded one is sampled first',
      byTime(flooded(A, 0.2, 1500), quiet(B), fulls(0.2, 10), suppressed(6.1, 1480), full(6.1)),
      {},
      [
        '#1.1 A firing @1 from 0.2: logged 0 suppressed 0 least 0 counted 1500 early 0 races 0',
        '#1.2 A final @9 from 0.2: logged 11 suppressed 1480 least 11 estimate 1491 counted 1501 early 0 races 0',
      ],
    ],
    [
      'whose sample came just before the line by another clock',
      byTime(quiet(B), samples(-3, -1, A, 0), samples(0, 9, A, 12), full(0.002)),
      {},
      ['#1.1 A firing @0 from 0: counted 12 early 0 races 0', '#1.2 A final @9 from 0: logged 1 suppressed 0 least 1 counted 12 early 0 races 0'],
    ],
    [
      'is of nobody when two rose with it',
      byTime(flooded(B, 0.2, 30), flooded(A, 0.2, 1500), fulls(0.2, 2)),
      {},
      [
        '#1.1 B firing @1 from 0.2: logged 0 suppressed 0 least 0 counted 30 early 0 races 0',
        '#2.1 - firing @1 from 0.2: logged 2 suppressed 0 least 2',
        '#3.1 A firing @1 from 1: logged 0 suppressed 0 least 0 counted 1500 early 0 races 0',
        '#1.2 B final @9 from 0.2: logged 0 suppressed 0 least 0 counted 31 early 0 races 0',
        '#2.2 - final @9 from 0.2: logged 2 suppressed 0 least 2',
        '#3.2 A final @9 from 1: logged 0 suppressed 0 least 0 counted 1501 early 0 races 0',
      ],
    ],
    [
      'is of nobody when none rose, and is told within a second',
      byTime(quiet(A), quiet(B), fulls(0.2, 2)),
      {},
      ['#1.1 - firing @1 from 0.2: logged 2 suppressed 0 least 2', '#1.2 - final @9 from 0.2: logged 2 suppressed 0 least 2'],
    ],
    [
      'is told when samples are late, and the episode finds its namespace',
      byTime([-12, -6, 0, 6].map((at) => sample(at, B, 7, { count: 100 })), [-12, -6, 0, 6].map((at) => sample(at, A, at > 0 ? 50 : 0)), full(1), full(1.2), ticks(1, 6).map(({ at }) => tick(at + 0.5))),
      {},
      ['#1.1 - firing @2.5 from 1: logged 2 suppressed 0 least 2', '#1.2 A firing @6 from 1: logged 2 suppressed 0 least 2 counted 50 early 0 races 0', '#1.3 A final @6.5 from 1: logged 2 suppressed 0 least 2 counted 50 early 0 races 0'],
    ],
    [
      'bounds no more than the counters rose, for an unwatched namespace may have been full too',
      byTime(flooded(A, 0.2, 3), fulls(0.2, 10)),
      {},
      ['#1.1 A firing @1 from 0.2: logged 10 suppressed 0 least 3 counted 3 early 0 races 0', '#1.2 A final @9 from 0.2: logged 10 suppressed 0 least 4 counted 4 early 0 races 0'],
    ],
    [
      'is not of a namespace that the kernel names',
      byTime(quiet(INITIAL), flooded(A, 0.2, 30), full(0.2, A), full(0.3)),
      {},
      [
        '#1.1 A firing @0.2 from 0.2: logged 1 suppressed 0 least 1',
        '#2.1 - firing @2 from 0.3: logged 1 suppressed 0 least 1',
        '#1.2 A final @9 from 0.2: logged 1 suppressed 0 least 1 counted 31 early 0 races 0',
        '#2.2 - final @9 from 0.3: logged 1 suppressed 0 least 1',
      ],
    ],
    [
      'finds the initial namespace by its counters where the kernel names the others',
      byTime(flooded(INITIAL, 0.2, 30), flooded(A, 0.2, 30), full(0.2, A), full(0.3)),
      {},
      [
        '#1.1 A firing @0.2 from 0.2: logged 1 suppressed 0 least 1',
        '#2.1 init firing @1 from 0.3: logged 1 suppressed 0 least 1 counted 30 early 0 races 0',
        '#1.2 A final @9 from 0.2: logged 1 suppressed 0 least 1 counted 31 early 0 races 0',
        '#2.2 init final @9 from 0.3: logged 1 suppressed 0 least 1 counted 31 early 0 races 0',
      ],
    ],
    [
      'does not become a namespace that the kernel names',
      [full(0, A), tick(60), sample(99, A, 0), full(100), sample(100.5, A, 9)],
      { names: true },
      [
        '#1.1 A firing @0 from 0: logged 1 suppressed 0 least 1',
        '#1.2 A resolved ended 0 @60 from 0: logged 1 suppressed 0 least 1',
        '#2.1 - firing @100 from 100: logged 1 suppressed 0 least 1',
        '#3.1 A firing @100.5 from 100.5: logged 0 suppressed 0 least 0 counted 9 early 0 races 0',
        '#2.2 - final @100.5 from 100: logged 1 suppressed 0 least 1',
        '#3.2 A final @100.5 from 100.5: logged 0 suppressed 0 least 0 counted 9 early 0 races 0',
      ],
    ],
    [
      'is the same flood as counters that are watched from then on',
      byTime(fulls(0, 10), suppressed(6, 100), full(6), sample(6.5, A, 110), sample(7.5, A, 150), sample(8.5, A, 150)),
      {},
      [
        '#1.1 - firing @0 from 0: logged 1 suppressed 0 least 1',
        '#1.2 A firing @7.5 from 0: logged 11 suppressed 100 least 0 counted 40 early 0 races 0 since 6.5',
        '#1.3 A final @8.5 from 0: logged 11 suppressed 100 least 0 counted 40 early 0 races 0 since 6.5',
      ],
    ],
    [
      'and counters without a namespace speak of the one whose lines are there',
      byTime(samples(-1, 0, 0, 0), samples(1, 3, 0, 30), fulls(0.2, 3, A)),
      {},
      ['#1.1 A firing @0.2 from 0.2: logged 1 suppressed 0 least 1', '#1.2 A final @3 from 0.2: logged 3 suppressed 0 least 3 counted 30 early 0 races 0'],
    ],
  ])('%s', (_, steps, given, alerts) => {
    expect(played(steps, given)).toEqual(alerts)
  })

  test('waits as long as it may for samples that are far apart: the incident as a kernel before 6.18 tells it', () => {
    const unnamed = incident.map((step) => ({ ...step, line: { ...step.line!, netns: 0 } }))
    const steps = byTime(unnamed, incidentSamples, incidentSamples.map(({ at }) => sample(at, B, 99, { count: 100 })))
    expect(played(steps, { patienceSec: 30 })).toEqual([
      '#1.1 A firing @5 from -0.065: logged 0 suppressed 0 least 0 counted 1867 early 33 races 0',
      '#1.2 A final @23.5 from -0.065: logged 40 suppressed 4220 least 40 estimate 4260 counted 4937 early 37 races 0',
    ])
    // told after a second it has no namespace yet, and is the same episode
    const early = play(steps)
    expect(new Set(early.map(({ episode }) => episode)).size).toBe(1)
    expect(early.map(({ netns }) => netns)).toEqual([0, A, A])
    expect(early.at(-1)!.drops).toMatchObject({ logged: 40, suppressed: 4220, counted: 4937 })
  })

  test('waits for a sample and says so', () => {
    const playing = new Play()
    for (const step of byTime(quiet(A, -2, 0), quiet(B, -2, 0), full(0.4))) playing.step(step)
    expect(playing.detector.waitsForSample).toBe(true)
    expect(playing.alerts).toEqual([])
    expect(since(playing.detector.due!)).toBeLessThanOrEqual(1.400001)
    playing.step(tick(1.400001))
    expect(playing.alerts).toHaveLength(1)
  })
})

describe('a line of a syslog file', () => {
  const told = { trusted: false }
  const moves = [...samples(-3, 0, A, 7, { count: 100 }), ...samples(1, 5, A, 30)]
  const still = samples(-3, 5, A, 7, { count: 100 })

  test.each<[string, Step[], string[]]>([
    ['is believed where nothing is watched', [full(0.2, A, told)], ['#1.1 A firing @0.2 from 0.2: logged 1 suppressed 0 least 1', '#1.2 A final @0.2 from 0.2: logged 1 suppressed 0 least 1']],
    [
      'is confirmed by the next sample',
      byTime(moves, full(0.2, A, told)),
      ['#1.1 A firing @1 from 0.2: logged 1 suppressed 0 least 1 counted 23 early 0 races 0', '#1.2 A final @5 from 0.2: logged 1 suppressed 0 least 1 counted 23 early 0 races 0'],
    ],
    [
      'is unconfirmed after two samples that did not move, and proves nothing',
      byTime(still, full(0.2, A, told), full(0.3, A, told)),
      [
        '#1.1 A firing unconfirmed @2 from 0.2: logged 2 suppressed 0 least 0 counted 0 early 0 races 0',
        '#1.2 A final unconfirmed @5 from 0.2: logged 2 suppressed 0 least 0 counted 0 early 0 races 0',
      ],
    ],
    [
      'without a namespace likewise',
      byTime(still, full(0.2, 0, told)),
      ['#1.1 - firing unconfirmed @2 from 0.2: logged 1 suppressed 0 least 0', '#1.2 - final unconfirmed @5 from 0.2: logged 1 suppressed 0 least 0'],
    ],
    [
      'is confirmed later, when the counters do move',
      byTime(still, full(0.2, A, told), sample(6, A, 9)),
      ['#1.1 A firing unconfirmed @2 from 0.2: logged 1 suppressed 0 least 0 counted 0 early 0 races 0', '#1.2 A final @6 from 0.2: logged 1 suppressed 0 least 0 counted 2 early 0 races 0'],
    ],
    [
      'of a time before the watching is believed',
      [...samples(-3, 0, A, 7), full(-100, A, told)],
      ['#1.1 A firing @0 from -100: logged 1 suppressed 0 least 1 counted 0 early 0 races 0 since -3', '#1.2 A final @0 from -100: logged 1 suppressed 0 least 1 counted 0 early 0 races 0 since -3'],
    ],
  ])('%s', (_, steps, alerts) => {
    expect(played(steps)).toEqual(alerts)
  })

  test('says in words that nothing confirms it', () => {
    expect(play(byTime(still, full(0.2, A, told)))[0]!.summary).toBe('conntrack table full in netns 4026532246: 1 line says so since 10:14:43 (UTC), but no counter confirms it')
  })
})

describe('a table was full', () => {
  const wasFull = (steps: Step[], netns: number, at: number): boolean => {
    const playing = new Play()
    for (const step of steps) playing.step(step)
    return playing.detector.wasFull(netns, T + at)
  }

  test.each<[string, Step[], number, number, boolean]>([
    ['never', [], A, 0, false],
    ['a line, just before', [full(10, A)], A, 9, true],
    ['a line, long before', [full(10, A)], A, 2, false],
    ['a line, 90 s ago', [full(10, A)], A, 100, true],
    ['a line, longer ago', [full(10, A)], A, 101, false],
    ['lines, the last not long ago', [full(10, A), full(95, A)], A, 180, true],
    ['of another namespace', [full(10, A)], B, 11, false],
    ['asked for any', [full(10, A)], 0, 11, true],
    ['of an unknown one', [full(10)], B, 11, true],
    ['a rise of drop', [sample(9, A, 0, { count: 10 }), sample(10, A, 1, { count: 10 })], A, 11, true],
    ['a rise of early_drop', [sample(9, A, 0, { count: 10 }), sample(10, A, 0, { count: 10, early: 1 })], A, 11, true],
    ['no rise', [sample(9, A, 5, { count: 10 }), sample(10, A, 5, { count: 10 })], A, 11, false],
    ['above 94 %', [sample(10, A, 0, { count: 377 })], A, 11, true],
    ['94 %', [sample(10, A, 0, { count: 376 })], A, 11, false],
  ])('%s', (_, steps, netns, at, was) => {
    expect(wasFull(steps, netns, at)).toBe(was)
  })
})

describe('a log that names more namespaces than anybody has', () => {
  const named = Array.from({ length: 5000 }, (_, i) => 4_026_540_000 + i)
  const steps = named.map((netns, i) => full(i / 1000, netns))

  test('the first are told apart, the others share one episode, which says so; each line is counted once', () => {
    const playing = new Play()
    for (const step of steps) playing.step(step)
    expect(playing.detector.openEpisodes).toHaveLength(EPISODES_MAX + 1)
    playing.detector.finish()
    const last = new Map(playing.alerts.map((alert) => [alert.episode, alert]))
    expect(last.size).toBe(EPISODES_MAX + 1)
    expect([...last.values()].reduce((sum, { drops }) => sum + drops!.logged, 0)).toBe(named.length)
    const others = [...last.values()].filter(({ netns }) => netns === 0)
    expect(others).toMatchObject([{ status: 'firing', drops: { logged: named.length - EPISODES_MAX, atLeast: named.length - EPISODES_MAX } }])
    expect(others[0]!.summary).toContain(`in further namespaces (only ${EPISODES_MAX} are told apart at once): at least 4,744 packets dropped`)
  })

  test('they all end, and what comes then has its own again; also behind a checkpoint', () => {
    const playing = new Play()
    for (const step of steps) playing.step(step)
    const saved = JSON.parse(JSON.stringify(playing.detector.save())) as unknown
    const anew = new Play()
    anew.detector.restore(saved)
    for (const each of [playing, anew]) {
      for (const step of ticks(5, 80)) each.step(step)
      expect(each.detector.openEpisodes).toEqual([])
      expect(each.alerts.filter(({ status }) => status === 'resolved')).toHaveLength(EPISODES_MAX + 1)
      each.step(full(90, A))
      expect(each.alerts.at(-1)).toMatchObject({ netns: A, status: 'firing', seq: 1 })
    }
  })
})

/** A machine with several namespaces, its limiter, its log and its counters. */
interface World {
  readonly steps: Step[]
  readonly drops: Map<number, number>
}

function random(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 1
  return (below) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) ^ 0x5bd1e995
    state ^= state >>> 13
    return (state >>> 0) % below
  }
}

function world(seed: number, names: boolean): World {
  const next = random(seed)
  const spaces = [A, B, INITIAL]
  const watched = spaces.filter(() => next(4) !== 0)
  const counters = new Map(spaces.map((netns) => [netns, { drop: next(1000), failed: 0, early: 0, count: 100 }]))
  const before = new Map(spaces.map((netns) => [netns, counters.get(netns)!.drop]))
  const steps: Step[] = []
  let begin = -10
  let passed = 0
  let missed = 0
  const warn = (at: number, line: Step): void => {
    if (at - begin >= 5) {
      if (missed > 0) steps.push(suppressed(at, missed))
      begin = at
      passed = missed = 0
    }
    if (passed++ < 10) steps.push(line)
    else missed++
  }
  for (let at = 0; at < 300; at += 0.25) {
    const flood = Math.floor(at / 40) % 3 === 0 ? next(8) : 99
    if (flood < 3) {
      const netns = spaces[flood]!
      const counter = counters.get(netns)!
      counter.count = 400
      for (let i = next(40); i > 0; i--) {
        counter.drop++
        warn(at + 0.01 + i / 1e5, full(at + 0.01 + i / 1e5, names && netns !== INITIAL ? netns : 0))
      }
      counter.early += next(3)
    } else if (flood === 4) {
      warn(at + 0.01, { at: at + 0.01, line: { kind: 'neighbour_overflow' } })
    } else if (flood > 4) {
      for (const counter of counters.values()) counter.count = Math.max(100, counter.count - 20)
    }
    if (next(50) === 0) {
      const counter = counters.get(spaces[next(3)]!)!
      counter.drop++
      counter.failed++
    }
    if (at % 1 === 0) for (const netns of watched) steps.push(sample(at + 0.5, netns, counters.get(netns)!.drop, counters.get(netns)!))
  }
  for (const netns of watched) steps.push(sample(301, netns, counters.get(netns)!.drop, counters.get(netns)!))
  return { steps: byTime(steps), drops: new Map(spaces.map((netns) => [netns, counters.get(netns)!.drop - before.get(netns)! - counters.get(netns)!.failed])) }
}

describe('any interleaving', () => {
  const seeds = Array.from({ length: 40 }, (_, seed) => seed + 1)
  const given = (seed: number): Given & { names: boolean } => ({ names: seed % 2 === 0, initial: INITIAL, quietSec: seed % 3 === 0 ? 10 : 60, patienceSec: seed % 5 === 0 ? 20 : 1 })

  test.each(seeds)('%i: bounds hold, counts are the counters\', one episode at a time, in order', (seed) => {
    const { steps, drops } = world(seed, given(seed).names)
    const alerts = play(steps, given(seed))
    expect(alerts.length).toBeGreaterThan(0)
    const open = new Map<string, Alert>()
    const least = new Map<number, number>()
    const ended = new Set<string>()
    let clock = -Infinity
    for (const alert of alerts) {
      const key = `${alert.rule} ${alert.netns}`
      const last = [...open.values()].find(({ episode }) => episode === alert.episode)
      expect(alert.seq).toBe((last?.seq ?? 0) + 1)
      expect(ended).not.toContain(alert.episode)
      if (last === undefined) expect(open.has(key)).toBe(false)
      else expect([0, alert.netns]).toContain(last.netns)
      if (last !== undefined) open.delete(`${last.rule} ${last.netns}`)
      open.set(key, alert)
      if (last !== undefined) expect(alert.started).toEqual(last.started)
      expect(since(alert)).toBeGreaterThanOrEqual(clock)
      expect(since(alert)).toBeGreaterThanOrEqual(since(alert.started))
      clock = since(alert)
      if (alert.status === 'resolved') {
        expect(last).toBeDefined()
        open.delete(key)
        ended.add(alert.episode)
      }
      if (alert.status === 'resolved' || alert.final) least.set(alert.netns, (least.get(alert.netns) ?? 0) + alert.drops!.atLeast)
      expect(alert.drops!.atLeast).toBeLessThanOrEqual(alert.drops!.logged)
    }
    const all = [...drops.values()].reduce((sum, drop) => sum + drop, 0)
    for (const [netns, bound] of least) expect(bound).toBeLessThanOrEqual(drops.get(netns) ?? all)
    // from the last sample before it to its last one
    for (const alert of alerts.filter(({ status, final, drops }) => (status === 'resolved' || final) && drops!.counted >= 0)) {
      // a sample that comes as the clock closes the episode is no more of it
      const told = steps.filter((step) => step.sample?.netns === alert.netns && (step.at < since(alert) || (step.at === since(alert) && alert.final)))
      const base = told.filter((step) => (alert.drops!.since === null ? step.at < since(alert.started) : step.at <= since(alert.drops!.since))).at(-1)!
      expect(alert.drops!.counted).toBe(told.at(-1)!.sample!.drop - base.sample!.drop)
      expect(alert.drops!.races).toBe(told.at(-1)!.sample!.failed! - base.sample!.failed!)
    }
  })

  test('the same again, and the same however often it was stopped', () => {
    for (const seed of seeds.slice(0, 6)) {
      const { steps } = world(seed, given(seed).names)
      const alerts = play(steps, given(seed))
      expect(play(steps, given(seed))).toEqual(alerts)
      const stopped = new Play(given(seed))
      for (const step of steps) {
        stopped.step(step)
        stopped.restart()
      }
      stopped.detector.finish()
      expect(stopped.alerts).toEqual(alerts)
    }
  })

  test('thousands of namespaces come and go', () => {
    const playing = new Play()
    for (let i = 0; i < 5000; i++) {
      playing.step(sample(i, 1e6 + i, 0))
      playing.step(full(i + 0.5, 1e6 + i))
    }
    for (const step of ticks(5001, 6000)) playing.step(step)
    const { episodes, watches, full: marks } = playing.detector.save() as { episodes: unknown[]; watches: unknown[]; full: unknown[] }
    expect(episodes).toEqual([])
    expect(watches.length + marks.length).toBeLessThan(10)
    expect(playing.alerts.filter(({ status }) => status === 'resolved')).toHaveLength(5000)
  })
})

/** A flow table by hand: who holds how many. */
class Table implements TopHolders {
  readonly asked: number[] = []
  held: Record<string, number> = {}
  /** as a large one does that was looked at just before */
  isBusy = false

  known(): number {
    return Object.values(this.held).reduce((sum, n) => sum + n, 0)
  }

  look(netns: number): HoldersLook | null {
    if (this.isBusy) return null
    this.asked.push(netns)
    const rows = Object.entries(this.held).map(([value, entries]) => ({ by: 'src', value, entries, unreplied: Math.floor(entries / 2), new: 3 }))
    return { known: this.known(), rows: rows.sort((a, b) => b.entries - a.entries) }
  }
}

describe('who held the table at its fullest', () => {
  /** Steps, and in between what becomes of the table of flows. */
  function story(steps: readonly (Step | ((table: Table) => void) | 'restart')[], given: Given = {}): { readonly told: string[]; readonly alerts: readonly Alert[]; readonly table: Table } {
    const table = new Table()
    const playing = new Play({ holders: table, ...given })
    for (const step of steps) {
      if (step === 'restart') playing.restart()
      else if (typeof step === 'function') step(table)
      else playing.step(step)
    }
    playing.detector.finish()
    const told = playing.alerts.map(({ status, topAt, top }) => `${status} ${topAt === null ? '-' : since(topAt)} ${top.map(({ value, entries, share, known }) => `${value} ${entries} ${share}${known === undefined ? '' : ` of ${known}`}`).join(', ')}`.trim())
    return { told, alerts: playing.alerts, table }
  }
  const holds = (held: Record<string, number>) => (table: Table): void => void (table.held = held)
  const FLOODED = { '10.10.1.9': 380, '10.10.1.2': 20 }
  const QUIET = { '10.10.1.2': 18 }

  test('the flooder has gone by the second notice, and is named to the end', () => {
    const { told, alerts, table } = story([sample(0, A, 0, { name: 'blue', count: 300 }), holds(FLOODED), sample(1, A, 1), holds(QUIET), ...samples(2, 40, A, 2, { count: 18 }), ...samples(41, 130, A, 2, { count: 18 })])
    expect(told).toEqual(['firing', 'firing', 'resolved'].map((status) => `${status} 1 10.10.1.9 380 0.95, 10.10.1.2 20 0.05`))
    expect(alerts.map(({ summary }) => summary)).toEqual([
      'conntrack table full in netns 4026532246 (blue): 1 packet dropped since 10:14:44 (UTC); 10.10.1.9 held 95 %',
      'conntrack table full in netns 4026532246 (blue): 2 packets dropped since 10:14:44 (UTC); 10.10.1.9 held 95 %',
      'conntrack table was full in netns 4026532246 (blue): 2 packets dropped from 10:14:44 to 10:14:45 (UTC); 10.10.1.9 held 95 %',
    ])
    expect(alerts[0]!.top[0]).toEqual({ by: 'src', value: '10.10.1.9', entries: 380, share: 0.95, new: 3, unreplied: 190 })
    expect(table.asked).toEqual([A])
  })

  test('flow events that come after the line improve later notices; fewer never', () => {
    const { told } = story([sample(0, A, 0, { count: 300 }), holds({ '10.10.1.2': 1 }), full(0.5, A), holds(FLOODED), tick(1.6), holds(QUIET), tick(3), sample(31, A, 1, { count: 18 }), tick(100)], { finish: false })
    expect(told[0]).toBe('firing 0.5 10.10.1.2 1 0.0025')
    expect(told.slice(1)).toEqual(['firing', 'resolved'].map((status) => `${status} 1.6 10.10.1.9 380 0.95, 10.10.1.2 20 0.05`))
  })

  test('one known entry is not the whole of a full table, with a count or without', () => {
    const one = holds({ '10.10.1.2': 1 })
    const counted = story([sample(0, A, 0), one, full(0.5, A), tick(100)])
    expect(counted.told).toEqual(['firing', 'resolved'].map((status) => `${status} 0.5 10.10.1.2 1 0.0025`))
    const uncounted = story([one, full(0.5, A), tick(100)])
    expect(uncounted.told).toEqual(['firing', 'resolved'].map((status) => `${status} 0.5 10.10.1.2 1 1 of 1`))
    for (const { summary } of [...counted.alerts, ...uncounted.alerts]) expect(summary).not.toContain('held')
  })

  test('without a count shares are of what is known, and say so', () => {
    const { told, alerts } = story([holds(FLOODED), full(0.5, A), holds(QUIET), tick(100)])
    expect(told).toEqual(['firing', 'resolved'].map((status) => `${status} 0.5 10.10.1.9 380 0.95 of 400, 10.10.1.2 20 0.05 of 400`))
    expect(alerts[1]!.summary).toContain('; 10.10.1.9 held 380 of 400 known entries')
  })

  test("entries never exceed the kernel's count, though ends of flows were lost", () => {
    const { alerts } = story([sample(0, A, 0, { count: 300 }), holds({ '10.10.1.9': 900, '10.10.1.2': 30 }), sample(1, A, 1), full(1.5, A), tick(100)])
    for (const { top } of alerts) expect(top.map(({ entries, share, new: opened, unreplied }) => [entries, share, opened, unreplied])).toEqual([[400, 1, 3, 400], [30, 0.075, 3, 15]])
  })

  test('a table as full again is told as it is then, when there is new evidence', () => {
    const { told } = story([sample(0, A, 0), holds({ '10.10.1.9': 400 }), sample(1, A, 1), holds({ '10.10.1.7': 400 }), ...samples(2, 31, A, 1), sample(32, A, 9), tick(200)])
    expect(told).toEqual(['firing 1 10.10.1.9 400 1', 'firing 32 10.10.1.7 400 1', 'resolved 32 10.10.1.7 400 1'])
  })

  test('lines of long ago tell nothing of the table now, nor does a table that is no longer full', () => {
    const old = story([holds(QUIET), tick(100), full(1, A), sample(101, A, 0, { count: 18 }), tick(200)])
    expect(old.told).toEqual(['firing -', 'resolved -'])
    const late = story([sample(0, A, 0, { count: 390 }), full(0.5, A), holds(QUIET), ...samples(1, 30, A, 1, { count: 18 }), tick(200)])
    expect(late.told.every((text) => text.endsWith(' -'))).toBe(true)
  })

  test('an estimated clock tells nothing of what other inputs saw', () => {
    const { told } = story([sample(0, A, 0), holds(FLOODED), full(0.5, A, { timeSource: TIME_ESTIMATED }), sample(1, A, 0), tick(100)])
    expect(told).toEqual(['firing -', 'resolved -'])
    // what the counters tell is an episode of its own
    const alerts = play([sample(0, A, 0), full(0.5, A, { timeSource: TIME_ESTIMATED }), sample(1, A, 50), tick(100)])
    const drops = new Map(alerts.map((alert) => [alert.timeSource, [alert.drops!.logged, alert.drops!.counted]]))
    expect([...drops]).toEqual([[TIME_ESTIMATED, [1, -1]], [0, [-1, 50]]])
  })

  test('is kept over a restart, and a checkpoint from before has none', () => {
    const { told } = story([sample(0, A, 0), holds(FLOODED), sample(1, A, 1), 'restart', holds({}), tick(100)])
    expect(told).toEqual(['firing', 'resolved'].map((status) => `${status} 1 10.10.1.9 380 0.95, 10.10.1.2 20 0.05`))
    const playing = new Play({ holders: new Table() })
    for (const step of [sample(0, A, 0), sample(1, A, 1)]) playing.step(step)
    const old = JSON.parse(JSON.stringify(playing.detector.save(), (key, value: unknown) => (key === 'fullest' ? undefined : value))) as unknown
    const next = new Play({ holders: new Table() })
    next.detector.restore(old)
    next.step(tick(100))
    expect(next.alerts.map(({ status, seq, topAt }) => [status, seq, topAt])).toEqual([['resolved', 2, null]])
  })

  test('a large table that was looked at just before is looked at later', () => {
    const { told, table } = story([sample(0, A, 0), holds(FLOODED), (busy) => (busy.isBusy = true), sample(1, A, 1), (free) => (free.isBusy = false), sample(2, A, 1), tick(100)])
    expect(told).toEqual(['firing -', 'resolved 2 10.10.1.9 380 0.95, 10.10.1.2 20 0.05'])
    expect(table.asked).toEqual([A])
  })

  test('a flood of lines costs no further looks while nothing more is known', () => {
    const { table } = story([sample(0, A, 0), holds(FLOODED), ...fulls(0.5, 500, A), ...samples(1, 20, A, 1), tick(100)])
    expect(table.asked).toEqual([A])
  })

  test('the first notice waits for flow events that are on their way, and no longer than it is let', () => {
    const table = new Table()
    const playing = new Play({ holders: table, followsFlows: () => true })
    for (const step of [sample(0, A, 0), full(0.5, A)]) playing.step(step)
    expect([playing.detector.waitsForFlows, playing.alerts.length]).toEqual([true, 0])
    table.held = { '10.10.1.9': 200 }
    playing.detector.flowsCame(false)
    expect(playing.alerts).toEqual([])
    table.held = FLOODED
    playing.detector.flowsCame(false)
    expect([playing.detector.waitsForFlows, playing.alerts.map(({ seq, top }) => [seq, top[0]!.value])]).toEqual([false, [[1, '10.10.1.9']]])
    playing.step(full(200, B))
    playing.detector.flowsCame(true)
    expect(playing.alerts.map(({ seq, status, netns }) => [seq, status, netns])).toEqual([[1, 'firing', A], [2, 'resolved', A], [1, 'firing', B]])
    // an end that comes meanwhile comes second
    playing.step(full(300, A))
    playing.step(tick(400))
    expect(playing.alerts.slice(-2).map(({ seq, status, netns }) => [seq, status, netns])).toEqual([[1, 'firing', A], [2, 'resolved', A]])
  })
})
