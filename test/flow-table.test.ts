/** The table of live flows against a list that is searched from its end: no entry is lost or mistaken while lines fill, move away, split and run empty. */
import { describe, expect, test } from 'vitest'
import { FLAG_BY_ID, FLAG_HAS_ID, FlowTable } from '../src/detectors/flows/table.js'
import { FlowEvent, KEYS_PORTS } from '../src/event.js'

interface Known {
  readonly tuple: number
  readonly id: number
  readonly ref: number
}

const LIMIT = 30_000

function eventOf(tuple: number): FlowEvent {
  const event = new FlowEvent()
  event.family = tuple % 3 === 0 ? 6 : 4
  event.protocol = 6
  const { orig } = event
  orig.keys = KEYS_PORTS
  orig.k1 = tuple & 0xffff
  orig.k2 = 443
  orig.s3 = 0x0a000001
  orig.d3 = tuple >>> 16
  if (event.family === 6) orig.s0 = orig.d0 = 0x20010db8
  return event
}

/** Numbers below `n`, the same in every run. */
function numbers(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0
    return Math.floor(((state >>> 0) / 2 ** 32) * n)
  }
}

describe('the table of live flows', () => {
  // many tuples split the index's lines; few tuples of many lives fill lines and chains of them
  test.each([
    { tuples: 100_000, seed: 1 },
    { tuples: 20_000, seed: 2 },
    { tuples: 400, seed: 3 },
    { tuples: 30, seed: 4 },
  ])('finds what a plain list finds, $tuples tuples', ({ tuples, seed }) => {
    const below = numbers(seed)
    const table = new FlowTable(LIMIT, seed)
    const lives = new Map<number, Known[]>()
    const all: Known[] = []
    let ids = 0
    // the oldest lives are ended less often than the most recent, so that lines with older entries stay and lose some
    const most = tuples < 1000 ? tuples * 60 : LIMIT
    for (let step = 0; step < 60_000; step++) {
      const filling = step % 30_000 < 22_000
      const wantsMore = below(100) < (filling ? 85 : 25)
      const tuple = below(tuples)
      const event = eventOf(tuple)
      const known = lives.get(tuple) ?? []
      if (wantsMore && all.length < Math.min(most, LIMIT)) {
        event.id = ++ids
        expect(table.find(event, true)).toBe(0)
        expect(table.others).toBe(known.length)
        const ref = table.insert(event, ids, FLAG_HAS_ID)
        const life = { tuple, id: ids, ref }
        lives.set(tuple, [...known, life])
        all.push(life)
      } else if (known.length > 0) {
        const ended = known[below(3) === 0 ? below(known.length) : known.length - 1]!
        // by its id, as its end comes; or without, as one that is given up
        event.id = ended.id
        if (below(2) === 0) expect(table.find(event, true)).toBe(ended.ref)
        else expect(table.find(event, false)).toBe(known.at(-1)!.ref)
        expect(table.oldestLife(event)).toBe(known[0]!.ref)
        expect(table.id(ended.ref)).toBe(ended.id)
        table.remove(ended.ref)
        lives.set(tuple, known.filter((life) => life !== ended))
        const at = all.indexOf(ended)
        all[at] = all.at(-1)!
        all.pop()
      }
    }
    expect(table.size).toBe(all.length)
    const places = new Set<number>()
    for (let place = 0; place < table.places; place++) if (table.at(place) !== 0) places.add(table.at(place))
    expect(places).toEqual(new Set(all.map((life) => life.ref)))
    for (const life of all) table.remove(life.ref)
    expect(table.size).toBe(0)
    for (let tuple = 0; tuple < Math.min(tuples, 1000); tuple++) expect(table.find(eventOf(tuple), false)).toBe(0)
  })

  test.each([1, 20_000])('finds those that stand by their ids, %i tuples', (tuples) => {
    const below = numbers(9)
    const table = new FlowTable(LIMIT, 9)
    const lives = new Map<number, { readonly tuple: number; readonly ref: number }>()
    for (let step = 0; step < 60_000; step++) {
      const event = eventOf(below(tuples))
      event.id = below(50_000) | 0x80000000
      const known = lives.get(event.id)
      if (known === undefined && lives.size < LIMIT) {
        expect(table.find(event, true)).toBe(0)
        lives.set(event.id, { tuple: event.orig.k1 | (event.orig.d3 << 16), ref: table.insert(event, step, FLAG_HAS_ID | FLAG_BY_ID) })
      } else if (known !== undefined) {
        const same = eventOf(known.tuple)
        same.id = event.id
        expect(table.find(same, true)).toBe(known.ref)
        if (below(2) === 0) continue
        // given up without a look, or as one that was found just before
        if (below(2) === 0) table.find(eventOf(below(tuples)), false)
        table.remove(known.ref)
        lives.delete(event.id)
        expect(table.find(same, true)).toBe(0)
      }
    }
    expect(table.size).toBe(lives.size)
    expect(table.size).toBeGreaterThan(10_000)
    expect(table.others).toBe(0)
    for (const { ref } of lives.values()) table.remove(ref)
    expect(table.size).toBe(0)
  })

  test('one flow at most', () => {
    const table = new FlowTable(1, 7)
    const event = eventOf(4)
    for (let n = 1; n < 50; n++) {
      expect(table.find(event, false)).toBe(0)
      const ref = table.insert(event, n, 0)
      expect(table.find(event, false)).toBe(ref)
      table.remove(ref)
    }
    expect(table.places).toBe(3)
  })
})
