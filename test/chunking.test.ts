/**
 * However the stream is cut into pieces, the same bytes come out and the same sums: every capture, and all of them in one shuffled stream. CONNTRAIL_LONG_TESTS=1
 * cuts each of them in more ways, and shuffles all lines instead of a part of them.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { byteByByte, random, randomCuts, type Result, runPieces } from './harness.js'

const fixtures = new URL('../fixtures/', import.meta.url)
const captures = readdirSync(fixtures).filter((name) => name.endsWith('.in'))
const contents = new Map(captures.map((name) => [name, readFileSync(new URL(name, fixtures))]))
const emit = ['flow', 'expect', 'kernel', 'gap', 'reject'] as const
const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
const BYTE_BY_BYTE_MAX = 16_384
const PIECES_MAX = isLong ? 100_000 : 6000
const MEAN_LENGTHS = isLong ? [1, 7, 60, 300, 5000] : [1, 7, 300]
const SHUFFLED_SHARE = isLong ? 1 : 0.2

const outcome = ({ text, tally }: Result): unknown => ({ text, ...tally })

/** Whole first, then in each of the cuts; a difference is shown as the first line that differs. */
async function expectSame(bytes: Uint8Array, cuts: Iterable<readonly [string, Uint8Array[]]>, rid = false): Promise<void> {
  const whole = await runPieces([bytes], { emit, rid })
  for (const [name, pieces] of cuts) {
    const cut = await runPieces(pieces, { emit, rid })
    const at = whole.lines.findIndex((line, i) => line !== cut.lines[i])
    expect([name, at, cut.lines[at]]).toEqual([name, at, whole.lines[at]])
    expect(outcome(cut)).toEqual(outcome(whole))
  }
}

function* cutsOf(bytes: Uint8Array, seeds: readonly number[], meanLengths: readonly number[]): Generator<readonly [string, Uint8Array[]]> {
  for (const seed of seeds) {
    for (const mean of meanLengths) {
      if (bytes.length / mean < PIECES_MAX) yield [`seed ${seed}, mean length ${mean}`, randomCuts(bytes, random(seed * 7919 + mean), mean)]
    }
  }
}

/** Lines of all captures in a seeded order: all of them, or as many as there is time for. */
function shuffled(seed: number): Buffer {
  const lines = [...contents.values()].flatMap((bytes) => bytes.toString('latin1').split('\n').slice(0, -1))
  const next = random(seed)
  for (let i = lines.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1))
    ;[lines[i], lines[j]] = [lines[j]!, lines[i]!]
  }
  return Buffer.from(`${lines.slice(0, lines.length * SHUFFLED_SHARE).join('\n')}\n`, 'latin1')
}

/** The first of these, or all. */
function some<T>(all: readonly T[]): readonly T[] {
  return isLong ? all : all.slice(0, 1)
}

describe('the cuts of the stream change nothing', () => {
  test.each(captures)('in %s', async (name) => {
    const bytes = contents.get(name)!
    if (bytes.length <= BYTE_BY_BYTE_MAX) await expectSame(bytes, [['byte by byte', byteByByte(bytes)]])
    await expectSame(bytes, cutsOf(bytes, some([1, 2, 3]), MEAN_LENGTHS), true)
  })

  test('in all captures one after the other', async () => {
    const bytes = Buffer.concat([...contents.values()])
    await expectSame(bytes, cutsOf(bytes, some([4, 5]), isLong ? [100, 1000, 5000] : [300, 5000]))
  })

  test.each([11, 12, 13])('in the lines of all captures, shuffled with seed %i', async (seed) => {
    const bytes = shuffled(seed)
    await expectSame(bytes, cutsOf(bytes, some([seed, seed + 1]), [100, 1500, 5000]), true)
  })

  test('in lines that end in CR LF, and in a last line without an end', async () => {
    const bytes = Buffer.from(shuffled(14).subarray(0, 60_000).toString('latin1').replaceAll('\n', '\r\n'), 'latin1')
    await expectSame(bytes, cutsOf(bytes, some([15, 16, 17]), MEAN_LENGTHS))
  })
})
