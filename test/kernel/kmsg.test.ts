/** The input kmsg on the real device: what is written into /dev/kmsg comes out in order, and what the ring has overwritten is counted to the record. */
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Gap } from '../../src/event.js'
import { kmsgFeed, type KmsgOptions } from '../../src/inputs/kmsg.js'
import { type Input, NOTICES_ONLY } from '../../src/stage.js'
import { kernelTests, required, withLab } from './namespaces.js'

const LIMIT = '/proc/sys/kernel/printk_devkmsg'
/** So many at once, until the ring has lost the first. */
const FLOOD = 10_000

const marker = (): string => `conntrail-test-${process.pid}-${Math.random().toString(36).slice(2)}`

async function open(more: Partial<KmsgOptions>): Promise<Input> {
  const inputs: Input[] = []
  const monotonicMicroseconds = (): number => Number(process.hrtime.bigint() / 1000n)
  await kmsgFeed({ name: 'kmsg', from: 'now', once: false, saved: null, monotonicMicroseconds, ...more }).open((input) => inputs.push(input))
  return inputs[0]!
}

interface Seen {
  readonly records: string[]
  readonly gaps: { readonly gap: Gap; readonly before: number }[]
  bytes: number
}

/** Asks until a record with that text has come, or the input is at its end. */
async function read(input: Input, last: string | null): Promise<Seen> {
  const seen: Seen = { records: [], gaps: [], bytes: 0 }
  for (;;) {
    const n = await input.next()
    if (n === 0) return seen
    for (const { gap } of input.notices) if (gap !== undefined) seen.gaps.push({ gap, before: seen.records.length })
    if (n === NOTICES_ONLY) continue
    seen.bytes += n
    // continuation lines begin with a blank
    seen.records.push(...Buffer.from(input.chunk).toString('latin1').slice(0, -1).split(/\n(?! )/))
    if (last !== null && seen.records.some((record) => record.endsWith(last))) return seen
  }
}

const seqOf = (record: string): number => Number(record.split(',')[1])

function oldestSeq(): number {
  const fd = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK)
  const record = Buffer.alloc(1 << 14)
  readSync(fd, record)
  closeSync(fd)
  return seqOf(record.toString('latin1'))
}

const textsOf = (records: readonly string[], mark: string): string[] => records.filter((record) => record.includes(mark)).map((record) => record.slice(record.indexOf(';') + 1))

describe.skipIf(kernelTests !== 'run' && !required)('/dev/kmsg', () => {
  let writer = -1
  let limit = ''

  // without its LF a record is open for more, and nobody can read it before the next one
  const log = (text: string): void => {
    writeSync(writer, `<4>${text}\n`)
  }

  beforeAll(() => {
    limit = readFileSync(LIMIT, 'latin1')
    // else ten lines in five seconds are all that one writer may write; without the LF it is refused
    writeFileSync(LIMIT, 'on\n')
    writer = openSync('/dev/kmsg', constants.O_WRONLY)
  })

  afterAll(() => {
    writeFileSync(LIMIT, limit)
    closeSync(writer)
  })

  test('is read from now on, in order, at the time of the writing', async () => {
    const mark = marker()
    log(`${mark} before`)
    const input = await open({ from: 'now' })
    const before = Date.now()
    for (let i = 0; i < 200; i++) log(`${mark} ${i}`)
    const after = Date.now()
    const { records, gaps } = await read(input, `${mark} 199`)
    expect(textsOf(records, mark)).toEqual(Array.from({ length: 200 }, (_, i) => `${mark} ${i}`))
    expect(gaps).toEqual([])
    const at = (Number(records.find((record) => record.includes(mark))!.split(',')[2]) + input.boot()!.microseconds) / 1000
    // printk's clock has drifted since the boot; a look in every 200 ms says how far
    expect(at).toBeGreaterThan(before - 250)
    expect(at).toBeLessThan(after + 250)
    input.close()
  })

  test('is read from the start with once, and to its end', async () => {
    const mark = marker()
    log(`${mark} before`)
    const input = await open({ from: 'start', once: true })
    log(`${mark} after`)
    const { records, gaps } = await read(input, null)
    expect(textsOf(records, mark)).toEqual([`${mark} before`, `${mark} after`])
    expect(gaps).toEqual([])
    input.close()
  })

  test('goes on where an earlier run was', async () => {
    const mark = marker()
    const first = await open({ from: 'now' })
    log(`${mark} 1`)
    const { bytes } = await read(first, `${mark} 1`)
    const saved = first.position(bytes)
    first.close()
    log(`${mark} 2`)
    const second = await open({ from: 'last', once: true, saved })
    const { records } = await read(second, null)
    expect(textsOf(records, mark)).toEqual([`${mark} 2`])
    expect(records.map(seqOf)[0]).toBe((saved as { seq: number }).seq + 1)
    second.close()
  })

  test('that was overwritten is a gap with the exact number of records, before what follows it', async () => {
    await withLab(async () => {
      const mark = marker()
      const input = await open({ from: 'now' })
      log(`${mark} begin`)
      const begin = await read(input, `${mark} begin`)
      const first = seqOf(begin.records.at(-1)!) + 1
      let written = 0
      while (oldestSeq() <= first) for (const until = written + FLOOD; written < until; written++) log(`${mark} flood ${written}`)
      log(`${mark} end`)
      const { records, gaps } = await read(input, `${mark} end`)
      expect(gaps).toHaveLength(1)
      const [{ gap, before }] = gaps as [{ gap: Gap; before: number }]
      expect(before).toBe(0)
      expect(gap).toMatchObject({ cause: 'kmsg_overrun', atLeast: -1 })
      expect(gap.count).toBe(seqOf(records[0]!) - first)
      // each record is either here or counted, whoever wrote it
      expect(records.map(seqOf)).toEqual(records.map((_, i) => seqOf(records[0]!) + i))
      const flood = textsOf(records, `${mark} flood`)
      expect(flood.at(-1)).toBe(`${mark} flood ${written - 1}`)
      expect(gap.count).toBeGreaterThanOrEqual(written - flood.length)
      expect(gap.count - (written - flood.length)).toBeLessThan(100)
      expect(gap.from!.sec * 1e6 + gap.from!.usec).toBeLessThanOrEqual(gap.to!.sec * 1e6 + gap.to!.usec)
      input.close()
    })
  })

  test('that is idle ends at once when asked', async () => {
    const input = await open({ from: 'now' })
    const all = read(input, null)
    input.stop()
    await all
    input.close()
  })
})
