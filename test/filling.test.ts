/** When will a table be full: said while it is heading there, with about the right number, and not for what only comes and goes. */
import { describe, expect, test } from 'vitest'
import { Levels } from '../src/detectors/levels.js'
import type { TableSample } from '../src/event.js'
import { random, recordsOf } from './harness.js'

const MAX = 65_536

function sample(second: number, count: number, max = MAX): TableSample {
  const whole = Math.floor(second)
  return { sec: 1000 + whole, usec: Math.round((second - whole) * 1e6), timeSource: 0, netns: 1, netnsName: '', count, max, buckets: -1, total: null, cpus: null }
}

/** What is said at each second. */
function forecasts(counts: readonly number[], everySec = 1, max = MAX): number[] {
  const levels = new Levels()
  return counts.map((count, i) => levels.sample(sample(i * everySec, Math.round(count), max)).fullIn)
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i)

describe('a table that fills', () => {
  test('as in the record that the schema shows: 61,873 of 65,536, 231.5 a second', () => {
    const counts = upTo(4).map((i) => 61_873 - 231.5 * (3 - i))
    expect(forecasts(counts)).toEqual([-1, -1, -1, 15.8])
  })

  test.each([0.2, 1, 2])('steadily, sampled every %f s: right to a tenth, to the end', (everySec) => {
    const counts = upTo(160).map((i) => Math.min(MAX, 1000 + 2000 * i * everySec))
    const found = forecasts(counts, everySec)
    expect(found.filter((seconds) => seconds >= 0).length).toBeGreaterThan(5)
    found.forEach((seconds, i) => {
      if (seconds >= 0) expect(Math.abs(seconds - (MAX - counts[i]!) / 2000)).toBeLessThan(0.1)
      if (counts[i] === MAX) expect(seconds, 'it is full').toBe(-1)
    })
  })

  test('all at once after a quiet time: within three seconds, and not far off', () => {
    const found = forecasts([...upTo(30).map(() => 20_000), ...upTo(8).map((i) => 20_000 + 3000 * (i + 1))])
    expect(found.slice(0, 30)).toEqual(Array(30).fill(-1))
    const [first] = found.slice(32)
    expect(first).toBeCloseTo((MAX - 29_000) / 3000, 0)
  })

  test('slowly, while entries come and go', () => {
    const next = random(3)
    const found = forecasts(upTo(120).map((i) => 40_000 + 100 * i + (next() - 0.5) * 200)).slice(10)
    const said = found.map((seconds, i) => ({ seconds, truth: (MAX - 40_000 - 100 * (i + 10)) / 100 })).filter(({ seconds }) => seconds >= 0)
    expect(said.length).toBeGreaterThan(90)
    const off = said.map(({ seconds, truth }) => Math.abs(seconds - truth) / truth).sort((a, b) => a - b)
    expect(off[off.length >> 1]).toBeLessThan(0.15)
  })
})

describe('a table that is not heading there', () => {
  test.each([1, 2, 3, 4, 5])('that strays about where it is by less than a hundredth, seed %i', (seed) => {
    const next = random(seed)
    const found = forecasts(upTo(600).map(() => 60_000 + (next() - 0.5) * 600))
    expect(found.filter((seconds) => seconds >= 0)).toEqual([])
  })

  test('that falls, stands still, is full, or whose limit is not known', () => {
    expect(forecasts(upTo(30).map((i) => 60_000 - 100 * i))).toEqual(Array(30).fill(-1))
    expect(forecasts(Array(30).fill(60_000))).toEqual(Array(30).fill(-1))
    expect(forecasts(Array(30).fill(MAX))).toEqual(Array(30).fill(-1))
    expect(forecasts(upTo(30).map((i) => 1000 * i), 1, -1)).toEqual(Array(30).fill(-1))
  })

  test('that will not be full within the hour', () => {
    expect(forecasts(upTo(30).map((i) => 100 * i), 1, 1_000_000)).toEqual(Array(30).fill(-1))
  })
})

test('a clock that is set back begins anew, and a checkpoint does not', () => {
  const levels = new Levels()
  for (const i of upTo(6)) levels.sample(sample(i, 10_000 + 1000 * i))
  const again = new Levels()
  again.restore(structuredClone(levels.save()))
  const next = sample(6, 16_000)
  expect(again.sample(next)).toEqual(levels.sample(next))
  expect(again.sample(sample(7, 17_000)).fullIn).toBeGreaterThan(0)
  expect(levels.sample(sample(2, 17_000)).fullIn).toBe(-1)
})

test('it stands in the record', async () => {
  const samples = upTo(4).map((i) => sample(i, 61_873 - 231 * (3 - i)))
  expect((await recordsOf('', { emit: ['table'], samples })).map((record) => record['full_in'])).toEqual([undefined, undefined, undefined, 15.9])
})
