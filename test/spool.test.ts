/**
 * The spool: what is appended comes out once, in order, through restarts and kills; its limits hold under every policy and what they cost is counted exactly; damage
 * anywhere costs what was damaged, and is counted.
 */
import { execFileSync, spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { behindSpool } from '../src/spool/behind.js'
import { type Disk, realDisk } from '../src/spool/disk.js'
import { Losses } from '../src/spool/losses.js'
import { type FullPolicy, Spool, type SpoolOptions } from '../src/spool/spool.js'
import type { Entry, Loss } from '../src/stage.js'
import { random } from './harness.js'
import { seeded } from './seed.js'

const chance = seeded('spool')

const isLong = process.env['CONNTRAIL_LONG_TESTS'] !== undefined
let root = ''
let folders = 0

beforeAll(() => {
  // in memory where that can be had: hundreds of syncs, whose order is what counts here
  root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'conntrail-spool-'))
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

const fresh = (): string => join(root, `${++folders}`)

interface Opened {
  readonly spool: Spool
  readonly lost: Loss[]
  readonly said: string[]
}

async function open(options: Partial<SpoolOptions> & { folder: string | null }): Promise<Opened> {
  const lost: Loss[] = []
  const said: string[] = []
  const spool = await Spool.open({ maxBytes: 1 << 20, whenFull: 'block', report: (message) => said.push(message), onLost: (loss) => lost.push(loss), ...options })
  return { spool, lost, said }
}

/** A record as it is printed: number, type, filler. */
function line(n: number, type = 'flow', filler = 100): string {
  const time = `2026-11-22T09:58:${String(Math.floor(n / 1e6) % 60).padStart(2, '0')}.${String(n % 1e6).padStart(6, '0')}Z`
  return `{"time":"${time}","type":"${type}","v":1,"n":${n},"text":"${'x'.repeat(filler)}"}\n`
}

const lines = (from: number, to: number, type = 'flow', filler = 100): Buffer =>
  Buffer.from(Array.from({ length: to - from }, (_, i) => line(from + i, type, filler)).join(''))

const textOf = (entry: Entry): string => Buffer.from(entry.bytes).toString()
const numberOf = (entry: Entry): number => (JSON.parse(textOf(entry)) as { n: number }).n
const countOf = (lost: readonly Loss[], reason?: string): number => lost.filter((loss) => reason === undefined || loss.reason === reason).reduce((sum, { count }) => sum + count, 0)

/** Everything that waits, acknowledged as it is taken. */
async function drain(spool: Spool, records = 1000): Promise<Entry[]> {
  const all: Entry[] = []
  for (;;) {
    const found = await spool.peek(records, 1 << 20)
    if (found.length === 0) return all
    all.push(...found)
    spool.ack(found.at(-1)!.seq)
  }
}

const bytesIn = (folder: string): number => readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)

describe.each(['disk', 'memory'] as const)('%s', (where) => {
  const place = (): string | null => (where === 'disk' ? fresh() : null)

  test('gives what was appended, in order, once', async () => {
    const { spool, lost } = await open({ folder: place() })
    for (let n = 0; n < 2000; n += 20) await spool.append(lines(n, n + 20))
    expect(spool.length).toBe(2000)
    const all = await drain(spool, 7)
    expect(all.map(numberOf)).toEqual(Array.from({ length: 2000 }, (_, n) => n))
    expect(all.every(({ seq }, i) => i === 0 || seq > all[i - 1]!.seq)).toBe(true)
    expect(all.every(({ type }) => type === 'flow')).toBe(true)
    expect(textOf(all[5]!)).toBe(line(5).slice(0, -1))
    expect([spool.length, spool.oldestAt, lost.length]).toEqual([0, null, 0])
    await spool.close()
  })

  test('peeks within its bounds, behind a number, and again what was put back', async () => {
    const { spool } = await open({ folder: place() })
    await spool.append(lines(0, 100))
    const bytes = line(10).length
    const first = await spool.peek(10, 1 << 20)
    expect(first.map(numberOf)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect((await spool.peek(10, 3 * bytes, first.at(-1)!.seq)).map(numberOf)).toEqual([10, 11, 12])
    expect((await spool.peek(10, 1, 0)).map(numberOf)).toEqual([0])
    expect((await spool.peek(2, 1 << 20)).map(numberOf)).toEqual([0, 1])
    spool.ack([first[1]!.seq, first[3]!.seq])
    expect((await spool.peek(4, 1 << 20)).map(numberOf)).toEqual([0, 2, 4, 5])
    expect([spool.length, spool.ackedSeq]).toEqual([98, first[0]!.seq - 1])
    spool.ack(first[2]!.seq)
    expect([spool.length, spool.ackedSeq]).toEqual([96, first[3]!.seq])
    await spool.close()
  })
})

describe('over restarts', () => {
  test('what waits comes again under the same numbers, and the numbers go on', async () => {
    const folder = fresh()
    const first = await open({ folder })
    await first.spool.append(lines(0, 50))
    const before = await first.spool.peek(50, 1 << 20)
    first.spool.ack(before[9]!.seq)
    await first.spool.close()
    const second = await open({ folder })
    expect(second.spool.length).toBe(40)
    const again = await second.spool.peek(50, 1 << 20)
    expect(again.map((entry) => [entry.seq, textOf(entry)])).toEqual(before.slice(10).map((entry) => [entry.seq, textOf(entry)]))
    await second.spool.append(lines(50, 60))
    expect((await drain(second.spool)).map(numberOf)).toEqual(Array.from({ length: 50 }, (_, n) => n + 10))
    await second.spool.append(lines(60, 61))
    const last = (await second.spool.peek(1, 1))[0]!
    expect(last.seq).toBe(before.at(-1)!.seq + 11)
    expect([first.lost, second.lost]).toEqual([[], []])
    await second.spool.close()
  })

  test('a lost cursor means again, not less', async () => {
    const folder = fresh()
    const first = await open({ folder })
    await first.spool.append(lines(0, 50))
    const before = await first.spool.peek(50, 1 << 20)
    first.spool.ack(before[9]!.seq)
    await first.spool.close()
    rmSync(join(folder, 'cursor'))
    const second = await open({ folder })
    expect((await drain(second.spool)).map(({ seq }) => seq)).toEqual(before.map(({ seq }) => seq))
    await second.spool.append(lines(50, 51))
    expect((await second.spool.peek(1, 1))[0]!.seq).toBeGreaterThan(before.at(-1)!.seq)
    await second.spool.close()
  })

  test.each(['block', 'drop_oldest', 'drop_newest', 'summarize'] as const)(
    'kill -9 at any moment, %s: what was synced is there, once, under its number, or told as lost',
    async (whenFull) => {
      const maxBytes = whenFull === 'block' ? 8 << 20 : 1 << 16
      const folder = fresh()
      const child = join(root, 'child.mjs')
      writeFileSync(
        child,
        `import { Spool } from ${JSON.stringify(new URL('../dist/spool/spool.js', import.meta.url).href)}
        const chance = (${random})(Number(process.argv[4]))
        const spool = await Spool.open({ folder: process.argv[2], maxBytes: ${maxBytes}, segmentBytes: 1 << 15, whenFull: '${whenFull}', report: () => {}, onLost: (loss) => process.stdout.write('lost ' + JSON.stringify(loss) + '\\n') })
        const send = (async () => {
          for (;;) {
            const found = await spool.peek(5, 1 << 20)
            for (const { seq, bytes } of found) process.stdout.write('seen ' + seq + ' ' + JSON.parse(Buffer.from(bytes).toString()).n + '\\n')
            if (found.length > 0 && chance() < ${whenFull === 'block' ? 0.7 : 0.1}) spool.ack(found.at(-1).seq)
            await new Promise((resolve) => setTimeout(resolve, 1))
          }
        })()
        for (let n = Number(process.argv[3]); ; ) {
          const count = 1 + Math.floor(chance() * 40)
          let page = ''
          for (let i = 0; i < count; i++, n++) page += JSON.stringify({ time: '2026-11-22T09:58:32.390102Z', type: n % 10 === 0 ? 'alert' : 'flow', n, text: 'x'.repeat(100) }) + '\\n'
          await spool.append(Buffer.from(page))
          await spool.sync()
          process.stdout.write('safe ' + n + '\\n')
        }`,
      )
      const seen = new Map<number, number>()
      const safe: [number, number][] = []
      let told = 0
      for (let round = 0, start = 0; round < (isLong ? 200 : 6); round++, start += 100_000) {
        const started = spawn(process.execPath, [child, folder, String(start), String(Math.floor(chance() * 2 ** 31))], { stdio: ['ignore', 'pipe', 'inherit'] })
        let text = ''
        started.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
        const isClosed = new Promise((resolve) => started.on('close', resolve))
        while (!text.includes('safe')) await new Promise((resolve) => setTimeout(resolve, 5))
        await new Promise((resolve) => setTimeout(resolve, chance() * 60))
        started.kill('SIGKILL')
        await isClosed
        let last = -1
        for (const [, what, a, b] of text.matchAll(/^(\w+) (\S+)(?: (\d+))?\n/gm)) {
          if (what === 'lost') told += (JSON.parse(a!) as Loss).count
          if (what === 'safe') safe[round] = [start, Number(a)]
          if (what !== 'seen') continue
          const [seq, n] = [Number(a), Number(b)]
          expect(seen.get(seq) ?? n, 'a number is one record').toBe(n)
          if (!seen.has(seq)) expect(n).toBeGreaterThan(last)
          last = n
          seen.set(seq, n)
        }
      }
      const { spool, lost } = await open({ folder, maxBytes })
      for (const entry of await drain(spool)) seen.set(entry.seq, numberOf(entry))
      spool.reportLosses()
      await spool.close()
      told += countOf(lost)
      const numbers = new Set(seen.values())
      expect(numbers.size).toBe(seen.size)
      const missing = safe.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i)).filter((n) => !numbers.has(n))
      // a kill may come between telling a loss and knowing that it was written down: then it is told again
      expect(missing.length).toBeLessThanOrEqual(told)
      if (whenFull === 'block') expect([missing, told]).toEqual([[], 0])
      else expect(missing.length).toBeGreaterThan(0)
    },
    isLong ? 300_000 : 60_000,
  )

  test('a tail torn at any byte: whole frames stay, the rest goes', async () => {
    const folder = fresh()
    const made = await open({ folder })
    for (let n = 0; n < 6; n++) await made.spool.append(lines(n, n + 1))
    await made.spool.sync()
    const copy = fresh()
    cpSync(folder, copy, { recursive: true })
    await made.spool.close()
    const name = readdirSync(copy).find((each) => each.endsWith('.segment'))!
    const size = statSync(join(copy, name)).size
    const frame = size / 6
    for (let cut = size - 1; cut > frame; cut -= isLong ? 1 : 7) {
      const torn = fresh()
      cpSync(copy, torn, { recursive: true })
      truncateSync(join(torn, name), cut)
      const { spool, said } = await open({ folder: torn })
      const whole = Math.floor(cut / frame)
      expect(await drain(spool)).toHaveLength(whole)
      if (cut % frame !== 0) expect(said.join()).toContain('cut off')
      await spool.append(lines(90, 91))
      expect((await drain(spool)).map(numberOf)).toEqual([90])
      await spool.close()
      rmSync(torn, { recursive: true })
    }
  })

  test.each([
    ['as appended', {}],
    ['with holes', { maxBytes: 1 << 15, whenFull: 'summarize' }],
  ] as const)('one flipped bit anywhere, %s: what comes is whole, what does not is counted, once, and set aside', async (_, options) => {
    const folder = fresh()
    const made = await open({ folder, segmentBytes: 4096, ...options })
    for (let n = 0; n < 450; n += 5) await made.spool.append(Buffer.concat([lines(n, n + 3), lines(n + 3, n + 5, 'alert')]))
    made.spool.reportLosses()
    await made.spool.sync()
    await made.spool.sync()
    await made.spool.close()
    const there = made.spool.length
    expect(there + countOf(made.lost)).toBe(450)
    const segments = readdirSync(folder).filter((each) => each.endsWith('.segment'))
    expect(segments.length).toBeGreaterThan(2)
    const whole = new Set(Array.from({ length: 450 }, (_, n) => line(n, n % 5 < 3 ? 'flow' : 'alert').slice(0, -1)))
    await fc.assert(
      fc.asyncProperty(fc.nat(segments.length - 1), fc.double({ min: 0, max: 0.999999, noNaN: true }), fc.nat(7), fc.boolean(), async (which, part, bit, whileOpen) => {
        const flipped = fresh()
        cpSync(folder, flipped, { recursive: true })
        const path = join(flipped, segments[which]!)
        const flip = (): void => {
          const bytes = readFileSync(path)
          bytes[Math.floor(part * bytes.length)]! ^= 1 << bit
          writeFileSync(path, bytes)
        }
        if (!whileOpen) flip()
        const first = await open({ folder: flipped })
        if (whileOpen) flip()
        const all = await drain(first.spool, 13)
        first.spool.reportLosses()
        expect(all.every((entry) => whole.has(textOf(entry)))).toBe(true)
        expect(all.length + countOf(first.lost, 'damaged')).toBe(there)
        expect(all.length).toBeGreaterThanOrEqual(there - 5)
        expect(first.spool.length).toBe(0)
        await first.spool.sync()
        await first.spool.sync()
        await first.spool.close()
        const second = await open({ folder: flipped })
        second.spool.reportLosses()
        expect([second.spool.length, second.lost]).toEqual([0, []])
        await second.spool.close()
        rmSync(flipped, { recursive: true })
      }),
      { numRuns: isLong ? 1000 : 40 },
    )
  }, 300_000)

  test('damage is kept for whoever looks, and the start does not fail whatever lies there', async () => {
    const folder = fresh()
    const made = await open({ folder, segmentBytes: 4096 })
    for (let n = 0; n < 90; n += 3) await made.spool.append(lines(n, n + 3))
    await made.spool.close()
    const segments = readdirSync(folder).filter((each) => each.endsWith('.segment'))
    writeFileSync(join(folder, segments[1]!), Buffer.alloc(3000, 0xa5))
    rmSync(join(folder, segments[3]!))
    writeFileSync(join(folder, '9999.segment'), 'not ours')
    writeFileSync(join(folder, 'notes.txt'), 'not ours either')
    const { spool, lost, said } = await open({ folder })
    const all = await drain(spool)
    spool.reportLosses()
    expect(all.length + countOf(lost, 'damaged')).toBe(90)
    expect(readdirSync(folder).filter((name) => name.endsWith('.corrupt')).length).toBeGreaterThan(0)
    expect(said.join()).toContain('set aside')
    await spool.append(lines(90, 91))
    expect((await drain(spool)).map(numberOf)).toEqual([90])
    await spool.close()
  })
})

describe('limits', () => {
  test('block waits for room, and nothing is lost', async () => {
    const { spool, lost } = await open({ folder: fresh(), maxBytes: 1 << 16 })
    let isTaken = false
    const all = spool.append(lines(0, 1000)).then(() => (isTaken = true))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(isTaken).toBe(false)
    const found: number[] = []
    while (!isTaken || spool.length > 0) {
      const entries = await spool.peek(50, 1 << 20)
      found.push(...entries.map(numberOf))
      if (entries.length > 0) spool.ack(entries.at(-1)!.seq)
      else await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await all
    expect(found).toEqual(Array.from({ length: 1000 }, (_, n) => n))
    spool.reportLosses()
    expect(lost).toEqual([])
    await spool.close()
  })

  test('drop_newest keeps the first, drop_oldest the last; the times of the loss are theirs', async () => {
    for (const [whenFull, first] of [['drop_newest', true], ['drop_oldest', false]] as const) {
      const { spool, lost } = await open({ folder: fresh(), maxBytes: 1 << 16, whenFull })
      for (let n = 0; n < 2000; n += 5) await spool.append(lines(n, n + 5))
      spool.reportLosses()
      const found = (await drain(spool)).map(numberOf)
      expect(found.length + countOf(lost, 'spool_full')).toBe(2000)
      expect(found.length).toBeGreaterThan(200)
      expect(first ? found[0] : found.at(-1)).toBe(first ? 0 : 1999)
      expect(found.every((n, i) => i === 0 || n === found[i - 1]! + 1)).toBe(true)
      expect(lost).toHaveLength(1)
      expect([lost[0]!.from!.usec, lost[0]!.to!.usec]).toEqual(first ? [found.length, 1999] : [0, found[0]! - 1])
      await spool.close()
    }
  })

  test('summarize keeps alerts, gaps and samples, before and behind the flows that it sheds', async () => {
    for (const folder of [fresh(), null]) {
      const { spool, lost } = await open({ folder, maxBytes: 1 << 17, whenFull: 'summarize' })
      let n = 0
      const append = async (count: number, type: string): Promise<void> => {
        await spool.append(lines(n, n + count, type))
        n += count
      }
      for (let round = 0; round < 100; round++) {
        await append(30, 'flow')
        await append(1, ['alert', 'gap', 'table'][round % 3]!)
        await append(1, 'kernel')
      }
      // so many that all the flows must go for them
      await append(350, 'alert')
      spool.reportLosses()
      const found = await drain(spool)
      expect(found.filter(({ type }) => type !== 'flow' && type !== 'kernel')).toHaveLength(450)
      expect(found.length + countOf(lost, 'spool_full')).toBe(n)
      expect(found.map(numberOf)).toEqual(found.map(numberOf).sort((a, b) => a - b))
      await spool.close()
    }
  })

  test('any run of appends, peeks and acknowledgements: counts close, the limit holds, disk and memory do the same, what is handed out stays', async () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ append: fc.integer({ min: 1, max: 60 }), type: fc.constantFrom('flow', 'flow', 'alert', 'table', 'kernel', 'mixed'), filler: fc.integer({ min: 0, max: 400 }) }) },
      { weight: 2, arbitrary: fc.record({ peek: fc.integer({ min: 1, max: 40 }) }) },
      { weight: 1, arbitrary: fc.record({ more: fc.integer({ min: 1, max: 40 }) }) },
      { weight: 2, arbitrary: fc.record({ ack: fc.double({ min: 0, max: 1, noNaN: true }), single: fc.boolean() }) },
      { weight: 1, arbitrary: fc.constantFrom({ restart: true } as const, { peek: 1 }, { peek: 1 }) },
    )
    await fc.assert(
      fc.asyncProperty(fc.constantFrom<FullPolicy>('drop_oldest', 'drop_newest', 'summarize'), fc.array(step, { minLength: 20, maxLength: 80 }), async (whenFull, steps) => {
        const folder = fresh()
        const options = { maxBytes: 1 << 15, whenFull, durability: 'os' as const, now: () => 5000 }
        const both = [await open({ ...options, folder }), await open({ ...options, folder: null })]
        const lost = [0, 0]
        const told = (i: number): void => {
          both[i]!.spool.reportLosses()
          lost[i]! += countOf(both[i]!.lost.splice(0))
        }
        const delivered = both.map(() => [] as number[])
        const handed = both.map(() => [] as Entry[])
        let n = 0
        let isExact = true
        const doSame = !steps.some((each) => 'restart' in each)
        for (const each of steps) {
          const count = 'append' in each ? each.append : 0
          for (const [i, { spool }] of both.entries()) {
            if ('append' in each) {
              const types = each.type === 'mixed' ? ['flow', 'alert'] : [each.type]
              await spool.append(Buffer.from(Array.from({ length: count }, (_, k) => line(n + k, types[k % types.length]!, each.filler)).join('')))
            } else if ('peek' in each) handed[i] = [...(await spool.peek(each.peek, 1 << 20))]
            else if ('more' in each) handed[i]!.push(...(await spool.peek(each.more, 1 << 20, handed[i]!.at(-1)?.seq)))
            else if ('ack' in each) {
              const upTo = Math.floor(each.ack * handed[i]!.length)
              const done = each.single ? handed[i]!.splice(upTo, 1) : handed[i]!.splice(0, upTo)
              if (each.single) spool.ack(done.map(({ seq }) => seq))
              else if (done.length > 0) spool.ack(done.at(-1)!.seq)
              delivered[i]!.push(...done.map(numberOf))
            } else if (i === 0) {
              told(0)
              await spool.sync()
              await spool.sync()
              await spool.close()
              // records acknowledged out of order come again
              isExact &&= !steps.some((other) => 'single' in other && other.single)
              both[0] = await open({ ...options, folder })
              handed[0] = []
              handed[1] = []
              await both[1]!.spool.peek(1, 1)
            }
          }
          n += count
          if (doSame) expect(handed[0]!.map(numberOf)).toEqual(handed[1]!.map(numberOf))
          const { found, taken, lostBy, length } = both[1]!.spool
          expect(found + taken).toBe(delivered[1]!.length + Object.values(lostBy).reduce((sum, more) => sum + more, 0) + length)
          expect(bytesIn(folder)).toBeLessThanOrEqual(options.maxBytes)
          expect(both[0]!.spool.bytes).toBeLessThanOrEqual(options.maxBytes)
        }
        for (const [i, { spool }] of both.entries()) {
          const waiting = spool.length
          // what an earlier life left counts as found by the next
          if (i === 1 || doSame) expect([spool.found, spool.taken]).toEqual([0, n])
          const rest = (await drain(spool)).map(numberOf)
          told(i)
          expect(rest).toHaveLength(waiting)
          expect(rest).toEqual([...rest].sort((a, b) => a - b))
          expect(rest).toEqual(expect.arrayContaining(handed[i]!.map(numberOf)))
          const all = new Set([...delivered[i]!, ...rest])
          if (i === 1 || isExact) {
            expect(all.size).toBe(delivered[i]!.length + rest.length)
            expect(all.size + lost[i]!).toBe(n)
          } else expect(all.size + lost[i]!).toBeGreaterThanOrEqual(n)
          await spool.close()
        }
        rmSync(folder, { recursive: true })
      }),
      { numRuns: isLong ? 1000 : 40 },
    )
  }, 300_000)

  test('a record that no segment holds is lost alone, and says why', async () => {
    const { spool, lost } = await open({ folder: fresh(), maxBytes: 1 << 16 })
    await spool.append(Buffer.concat([lines(0, 1), lines(1, 2, 'kernel', 10_000), lines(2, 3)]))
    spool.reportLosses()
    expect((await drain(spool)).map(numberOf)).toEqual([0, 2])
    expect(lost.map(({ count, reason }) => [count, reason])).toEqual([[1, 'too_large']])
    await spool.close()
  })

  test('what is too old goes, by whole segments, and is counted', async () => {
    let now = 1_000_000
    const { spool, lost } = await open({ folder: fresh(), maxAgeMs: 16_000, now: () => now })
    for (let n = 0; n < 40; n++) {
      await spool.append(lines(n, n + 1))
      now += 1000
    }
    const found = (await spool.peek(100, 1 << 20)).map(numberOf)
    spool.reportLosses()
    expect(found.length).toBeGreaterThanOrEqual(15)
    expect(found.length).toBeLessThanOrEqual(18)
    expect(found.at(-1)).toBe(39)
    expect(countOf(lost, 'too_old')).toBe(40 - found.length)
    await spool.close()
  })

  test.each([
    ['is to come', 400],
    ['was decades ago', -20_000],
  ])('what an earlier run kept by a clock that %s is not too old, and ages from now on', async (_, days) => {
    const day = 86_400_000
    const folder = fresh()
    let now = Date.now()
    const before = await open({ folder, now: () => now + days * day })
    await before.spool.append(lines(0, 20))
    await before.spool.close()
    const { spool, lost } = await open({ folder, maxAgeMs: day, now: () => now })
    expect((await spool.peek(100, 1 << 20)).map(numberOf)).toHaveLength(20)
    expect(spool.oldestAt).toBe(now)
    now += day + 1
    expect(await spool.peek(100, 1 << 20)).toEqual([])
    spool.reportLosses()
    expect(countOf(lost, 'too_old')).toBe(20)
    await spool.close()
  })

  test('leaves the volume what it must', async () => {
    let free = 1 << 20
    let now = 0
    const { spool, lost } = await open({ folder: fresh(), whenFull: 'drop_newest', minFreeBytes: 1 << 19, disk: { ...realDisk, free: () => Promise.resolve(free) }, now: () => (now += 2000) })
    await spool.append(lines(0, 10))
    free = 1 << 18
    await spool.append(lines(10, 20))
    free = 1 << 20
    await spool.append(lines(20, 30))
    spool.reportLosses()
    expect((await drain(spool)).map(numberOf)).toEqual([...Array(10).keys(), ...Array.from({ length: 10 }, (_, n) => n + 20)])
    expect(countOf(lost)).toBe(10)
    await spool.close()
  })
})

/** A disk whose handles do as told. */
function playing(play: Partial<Record<'write' | 'datasync', (path: string) => Error | null>>): Disk {
  const failing = (method: 'write' | 'datasync', path: string, real: (...args: never[]) => unknown) => (...args: never[]): unknown => {
    const error = play[method]?.(path) ?? null
    return error === null ? real(...args) : Promise.reject(error)
  }
  return {
    ...realDisk,
    open: async (path, flags, mode) => {
      const handle = await realDisk.open(path, flags, mode)
      return new Proxy(handle, {
        get(target, key) {
          const real = Reflect.get(target, key, target) as unknown
          if (typeof real !== 'function') return real
          const bound = (real as (...args: never[]) => unknown).bind(target)
          if (key === 'writev' || key === 'write' || key === 'writeFile') return failing('write', path, bound)
          return key === 'datasync' ? failing('datasync', path, bound) : bound
        },
      }) as FileHandle
    },
  }
}

const errno = (code: string): Error => Object.assign(new Error(`${code}: as played`), { code })

describe('a disk that fails', () => {
  test('a failed sync: nothing is asked of that file again, everything is written anew, and comes once', async () => {
    const folder = fresh()
    const synced: string[] = []
    let fails = 0
    const disk = playing({
      datasync: (path) => {
        if (!path.includes('.segment')) return null
        synced.push(path.replace('.next', ''))
        return fails-- > 0 ? errno('EIO') : null
      },
    })
    const { spool, said } = await open({ folder, disk, segmentBytes: 2048 })
    await spool.append(lines(0, 5))
    await spool.sync()
    await spool.append(lines(5, 40))
    const first = await spool.peek(10, 1 << 20)
    spool.ack(first[7]!.seq)
    const before = synced.length
    fails = 1
    await spool.sync()
    expect(new Set(synced.slice(before)).size).toBe(synced.length - before)
    expect(said.join()).toContain('EIO')
    await spool.append(lines(40, 50))
    await spool.sync()
    const copy = fresh()
    cpSync(folder, copy, { recursive: true })
    expect(spool.length).toBe(42)
    expect((await drain(spool)).map(numberOf)).toEqual(Array.from({ length: 42 }, (_, n) => n + 8))
    await spool.close()
    const after = await open({ folder: copy })
    const numbers = (await drain(after.spool)).map(numberOf)
    expect(numbers.slice(-42)).toEqual(Array.from({ length: 42 }, (_, n) => n + 8))
    after.spool.reportLosses()
    expect(after.lost).toEqual([])
    await after.spool.close()
  })

  test('a disk that syncs nothing any more: sync says so, delivery goes on, and it mends itself', async () => {
    let isBroken = false
    const folder = fresh()
    const { spool, said } = await open({ folder, disk: playing({ datasync: (path) => (isBroken && path.includes('segment') ? errno('EIO') : null) }) })
    await spool.append(lines(0, 10))
    isBroken = true
    await expect(spool.sync()).rejects.toThrow('EIO')
    await spool.append(lines(10, 20))
    await expect(spool.sync()).rejects.toThrow('EIO')
    expect((await spool.peek(100, 1 << 20)).map(numberOf)).toEqual([...Array(20).keys()])
    isBroken = false
    await spool.sync()
    expect(said.join()).toContain('takes records again')
    await spool.close()
    const after = await open({ folder })
    expect((await drain(after.spool)).map(numberOf)).toEqual([...Array(20).keys()])
    await after.spool.close()
  })

  test.each(['drop_oldest', 'drop_newest', 'summarize'] as const)('a full disk under %s: counted, survived, gone on', async (whenFull) => {
    let isFull = false
    const folder = fresh()
    const { spool, lost } = await open({ folder, whenFull, disk: playing({ write: () => (isFull ? errno('ENOSPC') : null) }) })
    await spool.append(lines(0, 100))
    isFull = true
    await spool.append(lines(100, 200))
    await spool.append(lines(200, 210, 'alert'))
    isFull = false
    await spool.append(lines(210, 300))
    await spool.sync()
    spool.reportLosses()
    const found = (await drain(spool)).map(numberOf)
    expect(found.length + countOf(lost)).toBe(300)
    expect(found.slice(-90)).toEqual(Array.from({ length: 90 }, (_, n) => n + 210))
    if (whenFull === 'drop_newest') expect(found).toHaveLength(190)
    await spool.close()
  })

  test('a full disk under block: waits, and nothing is lost', async () => {
    let isFull = true
    const { spool, lost } = await open({ folder: fresh(), disk: playing({ write: (path) => (isFull && path.includes('segment') ? errno('ENOSPC') : null) }) })
    const appended = spool.append(lines(0, 10))
    setTimeout(() => (isFull = false), 20)
    await appended
    expect((await drain(spool)).map(numberOf)).toEqual([...Array(10).keys()])
    spool.reportLosses()
    expect(lost).toEqual([])
    await spool.close()
  })

  test('a failing disk does not cost what it holds', async () => {
    let fails = false
    const { spool, lost } = await open({ folder: fresh(), whenFull: 'drop_oldest', disk: playing({ write: (path) => (fails && path.includes('segment') ? errno('EIO') : null) }) })
    await spool.append(lines(0, 10))
    fails = true
    await spool.append(lines(10, 20))
    fails = false
    await spool.append(lines(20, 30))
    spool.reportLosses()
    expect((await drain(spool)).map(numberOf)).toEqual([...Array(10).keys(), ...Array.from({ length: 10 }, (_, n) => n + 20)])
    expect(lost.map(({ count, reason }) => [count, reason])).toEqual([[10, 'disk_failed']])
    await spool.close()
  })

  test.skipIf(process.getuid?.() !== 0)('a real volume that is full', async () => {
    const folder = fresh()
    mkdirSync(folder)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'conntrail-test', folder])
    try {
      const { spool, lost } = await open({ folder: join(folder, 'spool'), whenFull: 'summarize', maxBytes: 1 << 20 })
      let n = 0
      for (let round = 0; round < 100; round++) {
        await spool.append(lines(n, n + 40))
        await spool.append(lines(n + 40, n + 42, 'alert'))
        n += 42
      }
      await spool.sync().catch(() => {})
      spool.reportLosses()
      const found = await drain(spool)
      expect(found.length + countOf(lost)).toBe(n)
      expect(found.filter(({ type }) => type === 'alert')).toHaveLength(200)
      await spool.close()
    } finally {
      execFileSync('umount', [folder])
    }
  })
})

test('losses of a burst are told together, and again after a kill that came too soon to know that they were written down', async () => {
  const folder = fresh()
  const { spool, lost } = await open({ folder, maxBytes: 1 << 16, whenFull: 'drop_oldest' })
  for (let n = 0; n < 2000; n += 5) await spool.append(lines(n, n + 5))
  expect(lost).toEqual([])
  await spool.sync()
  const killed = fresh()
  cpSync(folder, killed, { recursive: true })
  spool.reportLosses()
  expect(lost).toHaveLength(1)
  const after = await open({ folder: killed })
  after.spool.reportLosses()
  expect(after.lost).toEqual(lost)
  expect(after.spool.length).toBe(spool.length)
  await after.spool.close()
  await spool.close()
})

test.each(['block', 'drop_oldest', 'drop_newest', 'summarize'] as const)('%s: appended, synced, delivered and acknowledged at the same time, on a disk that fails now and then: every record once, or counted', async (whenFull) => {
  for (const folder of [fresh(), null]) {
    let turn = 0
    const disk = playing({ datasync: (path) => (path.includes('.segment') && ++turn % 11 === 0 ? errno('EIO') : null), write: (path) => (path.includes('.segment') && ++turn % 37 === 0 ? errno('ENOSPC') : null) })
    const { spool, lost } = await open({ folder, disk, maxBytes: 1 << 16, whenFull })
    let n = 0
    let isDone = false
    const append = async (): Promise<void> => {
      for (let page = 0; page < 150; page++) {
        const count = 1 + ((page * 7) % 23)
        n += count
        await spool.append(lines(n - count, n, page % 9 === 0 ? 'alert' : 'flow'))
        if (page % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
      }
      isDone = true
    }
    const sync = async (): Promise<void> => {
      while (!isDone) {
        await spool.sync().catch(() => {})
        await new Promise((resolve) => setTimeout(resolve, 3))
      }
    }
    const delivered: number[] = []
    const deliver = async (): Promise<void> => {
      for (let round = 0; !isDone || spool.length > 0; round++) {
        const first = await spool.peek(1 + (round % 13), 1 << 20)
        const second = first.length === 0 ? [] : await spool.peek(3, 1 << 20, first.at(-1)!.seq)
        const both = [...first, ...second]
        // not in line with the spool's own work
        await new Promise((resolve) => (round % 3 === 0 ? setTimeout(resolve, 1) : setImmediate(resolve)))
        delivered.push(...both.map(numberOf))
        if (round % 2 === 0) spool.ack(both.map(({ seq }) => seq))
        else if (both.length > 0) spool.ack(both.at(-1)!.seq)
      }
    }
    await Promise.all([append(), sync(), deliver()])
    spool.reportLosses()
    expect(delivered).toEqual([...new Set(delivered)].sort((a, b) => a - b))
    expect(delivered.length + countOf(lost)).toBe(n)
    if (whenFull === 'block') expect(lost).toEqual([])
    expect([spool.length, spool.oldestAt]).toEqual([0, null])
    await spool.close()
  }
})

test('what is lost after the last telling is told by the next start, once, and by no timer', () => {
  vi.useFakeTimers()
  try {
    const told: Loss[] = []
    const losses = new Losses((loss) => told.push(loss))
    const span = { from: null, to: null }
    losses.add(3, 'spool_full', span)
    vi.advanceTimersByTime(1000)
    losses.add(4, 'spool_full', span)
    losses.tellLast()
    losses.add(5, 'spool_full', span)
    vi.advanceTimersByTime(600_000)
    expect(told.map(({ count }) => count)).toEqual([3, 4])
    losses.synced()
    losses.synced()
    expect(losses.unsafe.map(({ count }) => count)).toEqual([5])
  } finally {
    vi.useRealTimers()
  }
})

test('what was told before a clean end is not told by the next start', async () => {
  const folder = fresh()
  const first = await open({ folder, maxBytes: 1 << 16, whenFull: 'drop_newest' })
  for (let n = 0; n < 1000; n += 50) await first.spool.append(lines(n, n + 50))
  first.spool.reportLosses()
  await first.spool.close()
  const second = await open({ folder, maxBytes: 1 << 16, whenFull: 'drop_newest' })
  second.spool.reportLosses()
  expect([countOf(first.lost) + second.spool.length, second.lost]).toEqual([1000, []])
  await second.spool.close()
})

test('what a memory spool could not deliver is told to the operator too', async () => {
  const { spool, lost, said } = await open({ folder: null })
  await spool.append(lines(0, 7))
  spool.ack((await spool.peek(2, 1 << 20)).at(-1)!.seq)
  await spool.close()
  expect(lost.map(({ count, reason }) => [count, reason])).toEqual([[5, 'not_delivered']])
  expect(said).toEqual([expect.stringContaining('5 records were not delivered')])
})

describe('an output behind a spool', () => {
  /** Takes pages while `isOpen`; holds on to one else. */
  function slow() {
    const taken: number[] = []
    let release = (): void => {}
    const output = {
      name: 'all',
      isOpen: false,
      isGone: false,
      fault: null as Error | null,
      async write(bytes: Uint8Array): Promise<boolean> {
        if (output.fault !== null) throw output.fault
        while (!output.isOpen) await new Promise<void>((resolve) => (release = resolve))
        if (output.isGone) return false
        for (const text of Buffer.from(bytes).toString().split('\n').slice(0, -1)) taken.push((JSON.parse(text) as { n: number }).n)
        return true
      },
      close: () => {
        output.isOpen = true
        output.isGone = true
        release()
        return Promise.resolve()
      },
    }
    const openUp = (): void => {
      output.isOpen = true
      release()
    }
    return { output, taken, openUp }
  }
  const until = async (isTrue: () => boolean): Promise<void> => {
    while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 2))
  }

  test('holds up nobody, keeps the order, and every record arrives or is counted', async () => {
    for (const folder of [fresh(), null]) {
      const { spool, lost } = await open({ folder, maxBytes: 1 << 16, whenFull: 'drop_newest' })
      const { output, taken, openUp } = slow()
      const behind = behindSpool(output, spool, 1000)
      for (let n = 0; n < 2000; n += 50) expect(await behind.write(lines(n, n + 50))).toBe(true)
      await behind.sync!()
      expect(taken).toEqual([])
      // what it has taken is not written yet, and what was dropped never will be
      const before = behind.status!()
      expect(before).toMatchObject({ sent: 0, refused: 0, taken: 2000, queueRecords: spool.length })
      expect(before.lostBy['spool_full']).toBe(2000 - spool.length)
      openUp()
      await until(() => spool.length === 0)
      expect(behind.status!()).toMatchObject({ sent: taken.length, queueRecords: 0, oldestUnacked: null })
      await behind.write(lines(2000, 2010))
      await until(() => taken.at(-1) === 2009)
      spool.reportLosses()
      await behind.close()
      expect(taken).toEqual([...taken].sort((a, b) => a - b))
      expect(new Set(taken).size + countOf(lost, 'spool_full')).toBe(2010)
      if (folder !== null) expect(await (await open({ folder })).spool.peek(1, 1)).toEqual([])
    }
  })

  test('one that takes nothing at the end leaves what waits for the next start', async () => {
    const folder = fresh()
    const first = await open({ folder, whenFull: 'drop_oldest' })
    const stuck = behindSpool(slow().output, first.spool, 20)
    await stuck.write(lines(0, 30))
    await stuck.close()
    const second = await open({ folder, whenFull: 'drop_oldest' })
    const { output, taken, openUp } = slow()
    openUp()
    const behind = behindSpool(output, second.spool, 1000)
    await until(() => taken.length === 30)
    await behind.close()
    expect(taken).toEqual(Array.from({ length: 30 }, (_, n) => n))
    expect([...first.lost, ...second.lost]).toEqual([])
  })

  test('that its reader has gone, or that it failed for good, is known with the next page', async () => {
    const gone = slow()
    const first = behindSpool(gone.output, (await open({ folder: null, whenFull: 'drop_oldest' })).spool, 20)
    gone.output.isGone = true
    gone.openUp()
    await first.write(lines(0, 1))
    await until(() => gone.output.isGone)
    while (await first.write(lines(1, 2))) await new Promise((resolve) => setTimeout(resolve, 2))
    await first.close()
    const broken = slow()
    broken.output.fault = new Error('EROFS: as played')
    const second = behindSpool(broken.output, (await open({ folder: null, whenFull: 'drop_oldest' })).spool, 20)
    let said = ''
    while (said === '') await second.write(lines(0, 1)).catch((error: Error) => (said = error.message))
    expect(said).toContain('EROFS')
    await second.close()
  })
})
