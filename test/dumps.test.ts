/**
 * Dumps that the program asks for while it follows the events of a namespace: what lives afterwards is what the kernel has, whatever was lost before, and in
 * whatever order rows and events come.
 */
import { describe, expect, test } from 'vitest'
import { FlowTracker } from '../src/detectors/flows/tracker.js'
import { DESTROY, ENTRY, FlowEvent, FROM_NONE, FROM_NULL, HAS_ID, KEYS_PORTS, NEW, UPDATE } from '../src/event.js'
import { tcpState } from '../src/kernel.js'
import { random } from './harness.js'

const T = Date.parse('2026-11-22T12:00:00Z') / 1000
const NETNS = 4026531833
const OTHER = 4026532246
const [SYN_SENT, ESTABLISHED, FIN_WAIT, TIME_WAIT] = (['SYN_SENT', 'ESTABLISHED', 'FIN_WAIT', 'TIME_WAIT'] as const).map(tcpState) as [number, number, number, number]

interface Line {
  port: number
  event: number
  state?: number
  id?: number
  netns?: number
  zone?: number
  six?: boolean
  sec?: number
}

const trackerOf = (flowsMax = 10_000): FlowTracker => new FlowTracker({ flowsMax, seed: 1, fullTable: { wasFull: () => false } })

function track(tracker: FlowTracker, { port, event, state = ESTABLISHED, id = port, netns = NETNS, zone = 0, six = false, sec = 0 }: Line): FlowEvent {
  const e = new FlowEvent()
  const answered = state !== SYN_SENT
  Object.assign(e, { event, netns, zone, family: six ? 6 : 4, protocol: 6, sec: T + sec, usec: 0, state, unreplied: !answered, timeout: 60, has: HAS_ID, id })
  const [a, b] = [1, 2]
  Object.assign(e.orig, { s3: a, d3: b, keys: KEYS_PORTS, k1: port & 0xffff, k2: 80 + (port >>> 16) })
  Object.assign(e.reply, { s3: b, d3: a, keys: KEYS_PORTS, k1: 80 + (port >>> 16), k2: port & 0xffff })
  tracker.track(e)
  return e
}

/** Ids of the flows that live in a namespace. */
function live(tracker: FlowTracker, netns = NETNS): number[] {
  const { table } = tracker
  const ids: number[] = []
  for (let place = 0; place < table.places; place++) {
    const ref = table.at(place)
    if (ref !== 0 && tracker.netnsOf(table.kind(ref) >>> 8) === netns) ids.push(table.id(ref) >>> 0)
  }
  return ids.sort((a, b) => a - b)
}

function dump(tracker: FlowTracker, rows: readonly Line[], whole = true): void {
  tracker.dumpBegins(NETNS)
  for (const row of rows) track(tracker, row)
  tracker.dumpEnded(NETNS, whole)
}

const row = (port: number, state = ESTABLISHED, more: Partial<Line> = {}): Line => ({ port, event: ENTRY, state, ...more })
const begun = (port: number, more: Partial<Line> = {}): Line => ({ port, event: NEW, state: SYN_SENT, ...more })
const changed = (port: number, state: number, more: Partial<Line> = {}): Line => ({ port, event: UPDATE, state, ...more })
const ended = (port: number, more: Partial<Line> = {}): Line => ({ port, event: DESTROY, state: TIME_WAIT, ...more })

describe('rows', () => {
  test('make flows known, without a transition, and the next event goes on from there', () => {
    const tracker = trackerOf()
    tracker.dumpBegins(NETNS)
    expect(track(tracker, row(1000)).from).toBe(FROM_NONE)
    tracker.dumpEnded(NETNS, true)
    expect(live(tracker)).toEqual([1000])
    const update = track(tracker, changed(1000, FIN_WAIT))
    expect([update.from, update.after]).toEqual([ESTABLISHED, -1])
  })

  test('make flows known that no timeout ends: the kernel says when they end', () => {
    const tracker = trackerOf()
    dump(tracker, [row(1000)])
    track(tracker, begun(1001, { sec: 3600 }))
    expect(live(tracker)).toEqual([1000, 1001])
  })

  test('mend the state of a flow whose event was lost, and the time of the change is not known', () => {
    const tracker = trackerOf()
    track(tracker, begun(1000))
    track(tracker, changed(1000, ESTABLISHED, { sec: 1 }))
    dump(tracker, [row(1000, FIN_WAIT, { sec: 1 })])
    const update = track(tracker, changed(1000, TIME_WAIT, { sec: 5 }))
    expect([update.from, update.after]).toEqual([FIN_WAIT, -1])
  })

  test('of the same state change nothing: the time since the last change stays known', () => {
    const tracker = trackerOf()
    track(tracker, begun(1000))
    track(tracker, changed(1000, ESTABLISHED, { sec: 1 }))
    dump(tracker, [row(1000, ESTABLISHED, { sec: 3 })])
    expect(track(tracker, changed(1000, FIN_WAIT, { sec: 5 })).after).toBe(4e6)
  })

  test('show the life that there is: one of another id, whose end was lost, is forgotten', () => {
    const tracker = trackerOf()
    track(tracker, begun(1000, { id: 7 }))
    dump(tracker, [row(1000, ESTABLISHED, { id: 8 })])
    expect(live(tracker)).toEqual([8])
    expect(tracker.forgotten).toBe(1)
  })
})

describe('an event that came during the dump', () => {
  const during = (...lines: readonly Line[]): { tracker: FlowTracker; events: FlowEvent[] } => {
    const tracker = trackerOf()
    track(tracker, begun(1000))
    track(tracker, changed(1000, ESTABLISHED))
    tracker.dumpBegins(NETNS)
    const events = lines.map((line) => track(tracker, line))
    tracker.dumpEnded(NETNS, true)
    return { tracker, events }
  }

  test('is not set back by an older row', () => {
    const { tracker, events } = during(changed(1000, FIN_WAIT), row(1000, ESTABLISHED), changed(1000, TIME_WAIT))
    expect(events.map((event) => event.from)).toEqual([ESTABLISHED, FROM_NONE, FIN_WAIT])
    expect(live(tracker)).toEqual([1000])
  })

  test('keeps a flow that the dump has passed by', () => {
    const { tracker } = during(changed(1000, FIN_WAIT), begun(1001), changed(1002, ESTABLISHED))
    expect(live(tracker)).toEqual([1000, 1001, 1002])
    expect(tracker.forgotten).toBe(0)
  })

  test('keeps the end of a flow ended, though an older row shows it, known before or not', () => {
    const { tracker, events } = during(ended(1000), ended(1001), row(1000), row(1001))
    expect(live(tracker)).toEqual([])
    expect(events[2]!.flowLow).not.toBe(events[0]!.flowLow)
  })

  test('keeps the next life of a tuple, though an older row shows the life before', () => {
    expect(live(during(ended(1000, { id: 7 }), begun(1000, { id: 8 }), row(1000, ESTABLISHED, { id: 7 })).tracker)).toEqual([8])
    expect(live(during(begun(1000, { id: 8 }), row(1000, ESTABLISHED, { id: 1000 })).tracker)).toEqual([8, 1000])
    expect(live(during(begun(1000, { id: 8 }), row(1000, ESTABLISHED, { id: 9 })).tracker)).toEqual([8])
  })

  test('and then the next life under the same id and name begins, and its row is taken', () => {
    const { tracker, events } = during(ended(1000), begun(1000), row(1000, SYN_SENT), changed(1000, ESTABLISHED))
    expect(live(tracker)).toEqual([1000])
    expect(events.map((event) => event.from)).toEqual([ESTABLISHED, FROM_NULL, FROM_NONE, SYN_SENT])
    expect(events[3]!.flowLow).toBe(events[1]!.flowLow)
  })

  test('ends count for their dump alone: the next one may show the same tuple and id', () => {
    const { tracker } = during(ended(1000))
    dump(tracker, [row(1000)])
    expect(live(tracker)).toEqual([1000])
  })
})

describe('the end of the dump', () => {
  test('forgets every flow of the namespace that it did not show, from events or rows, of either family and any zone', () => {
    const tracker = trackerOf()
    for (const more of [{}, { zone: 7 }, { six: true }]) for (const port of [1, 2]) track(tracker, begun(port, more))
    dump(tracker, [row(1), row(2, ESTABLISHED, { zone: 7 }), row(3)])
    expect(live(tracker)).toEqual([1, 2, 3])
    dump(tracker, [row(3)])
    expect(live(tracker)).toEqual([3])
    expect(tracker.forgotten).toBe(6)
  })

  test('leaves the flows of other namespaces', () => {
    const tracker = trackerOf()
    track(tracker, begun(1, { netns: OTHER }))
    track(tracker, begun(2, { netns: 0 }))
    track(tracker, begun(3))
    dump(tracker, [])
    expect([live(tracker), live(tracker, OTHER), live(tracker, 0)]).toEqual([[], [1], [2]])
  })

  test('forgets nothing when the dump was not whole, nor later because of it', () => {
    const tracker = trackerOf()
    for (const port of [1, 2, 3]) track(tracker, begun(port))
    dump(tracker, [row(1)], false)
    expect(live(tracker)).toEqual([1, 2, 3])
    track(tracker, begun(4))
    dump(tracker, [row(2), row(4)])
    expect(live(tracker)).toEqual([2, 4])
    dump(tracker, [row(4)])
    expect(live(tracker)).toEqual([4])
  })

  test('a dump that begins while another is going on makes that one unfinished', () => {
    const tracker = trackerOf()
    for (const port of [1, 2, 3]) track(tracker, begun(port))
    tracker.dumpBegins(NETNS)
    track(tracker, row(1))
    dump(tracker, [row(2)])
    expect(live(tracker)).toEqual([2])
  })

  test('two namespaces are dumped at once', () => {
    const tracker = trackerOf()
    for (const port of [1, 2, 3]) for (const netns of [NETNS, OTHER]) track(tracker, begun(port, { netns }))
    tracker.dumpBegins(NETNS)
    track(tracker, row(1))
    tracker.dumpBegins(OTHER)
    track(tracker, row(2, ESTABLISHED, { netns: OTHER }))
    tracker.dumpEnded(NETNS, true)
    track(tracker, row(3, ESTABLISHED, { netns: OTHER }))
    tracker.dumpEnded(OTHER, true)
    expect([live(tracker), live(tracker, OTHER)]).toEqual([[1], [2, 3]])
  })

  test('a large table is looked through in pieces, while new flows come and the next dump begins', () => {
    const flows = 700_000
    const tracker = trackerOf(2 * flows)
    for (let port = 0; port < flows; port++) track(tracker, begun(port, { six: port % 2 === 1 }))
    dump(tracker, [row(0)])
    expect(tracker.table.size).toBeGreaterThan(1)
    for (let port = flows; port < flows + 1000; port++) track(tracker, begun(port, { six: port % 2 === 1 }))
    let ticks = 0
    while (tracker.sweepGone()) ticks++
    expect(ticks).toBeGreaterThan(0)
    expect(tracker.table.size).toBe(1001)
    expect(tracker.forgotten).toBe(flows - 1)

    dump(tracker, [row(0)])
    dump(tracker, [row(flows)])
    while (tracker.sweepGone());
    expect(live(tracker)).toEqual([flows])
  })
})

/**
 * A kernel that makes, changes and ends flows, a listener that loses events, comes behind, and a dump that walks the table meanwhile. When nothing was lost since
 * the last dump began, what lives is what the kernel has.
 */
test.each(Array.from({ length: 40 }, (_, n) => n + 1))('any course of events and losses is mended by a dump (%i)', (seed) => {
  const next = random(seed)
  const pick = (n: number): number => Math.floor(next() * n)
  const kernel = new Map<number, { id: number; state: number }>()
  const tracker = trackerOf()
  const pipe: Line[] = []
  let ids = 1
  const happen = (lossy: boolean): void => {
    const port = 1 + pick(60)
    const flow = kernel.get(port)
    let line: Line
    if (flow === undefined) {
      // the kernel's id is often that of the life before
      const id = next() < 0.5 ? port : 1000 + ids++
      kernel.set(port, { id, state: SYN_SENT })
      line = begun(port, { id })
    } else if (next() < 0.4) {
      kernel.delete(port)
      line = ended(port, { id: flow.id })
    } else {
      flow.state = [ESTABLISHED, FIN_WAIT, TIME_WAIT][pick(3)]!
      line = changed(port, flow.state, { id: flow.id })
    }
    if (!lossy || next() < 0.5) pipe.push(line)
  }
  const hear = (most: number): void => {
    for (const line of pipe.splice(0, most)) track(tracker, line)
  }
  for (let round = 0; round < 10; round++) {
    for (let n = 0; n < 200; n++) {
      happen(true)
      if (next() < 0.5) hear(1 + pick(3))
    }
    // what is older than the loss has been read
    hear(Infinity)
    tracker.dumpBegins(NETNS)
    const rows: Line[] = []
    for (let port = 1; port <= 60; port++) {
      for (let n = pick(4); n > 0; n--) happen(false)
      const flow = kernel.get(port)
      // a row is given when the events before it have been, and often later than that
      if (flow !== undefined) rows.push(row(port, flow.state, { id: flow.id }))
      hear(Infinity)
      for (const given of rows.splice(0, pick(4))) track(tracker, given)
    }
    hear(Infinity)
    for (const given of rows) track(tracker, given)
    tracker.dumpEnded(NETNS, next() < 0.9 || round === 9)
  }
  expect(live(tracker)).toEqual([...kernel.values()].map(({ id }) => id).sort((a, b) => a - b))
  const states = [...kernel].map(([port, { id, state }]) => [port, state, track(tracker, changed(port, FIN_WAIT, { id })).from])
  expect(states.filter(([, state, from]) => from !== (state === FIN_WAIT ? FROM_NONE : state))).toEqual([])
})
