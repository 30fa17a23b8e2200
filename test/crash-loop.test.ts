/**
 * A service that dies within moments of each start loses nothing: where its files begin is remembered before the first byte of them is read. Killed at random moments
 * of the first second and a half, from the very first start on, while a writer writes and rotates.
 */
import { appendFileSync, existsSync, mkdirSync, renameSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, scratch, sleep } from './process-harness.js'
import { comes, configured, firstArrivals, isLong, Life, line, range, Written } from './run-harness.js'
import { seeded } from './seed.js'

const KILLS = isLong ? 200 : 10
const FIRST_MS = 1500
/** So many that none is removed before a start lives long enough to read it. */
const KEPT = 30

afterEach(cleanUp)

describe('a run that is killed within moments of each start', () => {
  test.each(['end', 'start'] as const)('loses nothing at any output (from: %s)', { timeout: isLong ? 1_800_000 : 120_000 }, async (from) => {
    const random = seeded(`crash loop, from ${from}`)
    const between = (least: number, most: number): number => least + Math.floor(random() * (most - least + 1))
    const folder = scratch('loop')
    mkdirSync(folder)
    const outs = ['one', 'two'].map((name) => new Written(`${folder}/${name}.ndjson`))
    const config = configured('loop.json', {
      state: `${folder}/state`,
      inputs: { logs: { type: 'file', path: `${folder}/a.log*`, from, poll: '10ms', rescan: '100ms' } },
      outputs: Object.fromEntries(outs.map(({ path }, i) => [`out${i}`, { type: 'file', path, ...(i === 0 ? {} : { when: { type: 'flow' } }) }])),
    })
    const begin = (): Life => new Life(['run', '-c', config])
    const log = `${folder}/a.log`
    let written = 0
    const write = (): void => appendFileSync(log, Array.from({ length: between(1, 40) }, () => line(++written)).join(''))
    const rotate = (): void => {
      for (let i = KEPT - 1; i > 0; i--) if (existsSync(`${log}.${i}`)) renameSync(`${log}.${i}`, `${log}.${i + 1}`)
      renameSync(log, `${log}.1`)
    }
    write()
    const old = from === 'end' ? written : 0
    // what is there when it is first opened is no part of it
    let life = begin()
    await comes('the first checkpoint', () => existsSync(`${folder}/state/checkpoint`), life)
    for (let kill = 0; kill < KILLS; kill++) {
      const end = performance.now() + between(0, FIRST_MS)
      while (performance.now() < end && !life.isOver) {
        write()
        if (between(1, 25) === 1) rotate()
        if (!existsSync(log)) write()
        await sleep(between(5, 40))
      }
      await life.kill()
      write()
      life = begin()
    }
    const marks = (out: Written): Set<number> => new Set(out.marks)
    await comes('every line', () => outs.every((out) => marks(out).has(written)), life)
    await sleep(300)
    await life.stop()
    for (const out of outs) {
      out.checkEnd()
      const found = marks(out)
      expect(range(old + 1, written).filter((mark) => !found.has(mark)), `lines that are missing`).toEqual([])
      const flows = firstArrivals(out.records.filter(({ type }) => type === 'flow'))
      expect(flows.length - found.size, `lines under two ids`).toBe(0)
    }
  })
})
