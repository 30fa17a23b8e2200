/**
 * File outputs that come, go and change their names by SIGHUP every few milliseconds while records flow: each descriptor is closed once and by whoever has it, and the
 * output that stays has every record. A number that is closed twice is another file's by the second time, so every close of what is closed already counts.
 */
import { spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, scratch, sleep } from './process-harness.js'
import { comes, expectMarks, isLong, Life, line, range, Written } from './run-harness.js'

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
const RELOADS = isLong ? 400 : 60

afterEach(cleanUp)

describe('outputs that come and go under load', () => {
  test.runIf(has('strace'))('close each descriptor once, and take no record from the one that stays', { timeout: 240_000 }, async () => {
    const folder = scratch('coming')
    mkdirSync(folder)
    const calls = `${folder}/calls`
    const config = (others: string): void => {
      writeFileSync(`${folder}/next.yaml`, `state: ${folder}/state\ninputs:\n  logs: { type: file, path: ${folder}/a.log, from: start, poll: 20ms }\noutputs:\n  all: { type: file, path: ${folder}/all.ndjson }\n${others}`)
      // a reload never finds half of it
      renameSync(`${folder}/next.yaml`, `${folder}/c.yaml`)
    }
    const also = (name: string, path = name, more = ''): string => `  ${name}: { type: file, path: ${folder}/${path}.ndjson${more} }\n`
    // added; under another name; at another path; with other options; behind a spool; and none
    const turns = [also('one'), also('two', 'one'), also('two'), also('two', 'two', ', fsync: always'), also('two', 'one') + also('one', 'two'), also('one', 'one', ', when_full: drop_oldest'), '']
    config('')
    const life = new Life(['run', '-c', `${folder}/c.yaml`], { under: ['strace', '-D', '-f', '-qq', '-e', 'trace=close', '-e', 'status=failed', '-o', calls] })
    const out = new Written(`${folder}/all.ndjson`)
    let written = 0
    const write = (): void => appendFileSync(`${folder}/a.log`, Array.from({ length: 20 }, () => line(++written)).join(''))
    write()
    await comes('the first records', () => out.marks.length > 0, life)
    for (let i = 0; i < RELOADS; i++) {
      config(turns[i % turns.length]!)
      life.signal('SIGHUP')
      write()
      await sleep(20)
    }
    await comes('every record', () => out.marks.length >= written, life)
    life.signal('SIGTERM')
    expect(await life.ended(), life.stderr).toBe(0)
    out.checkEnd()
    expectMarks(out.marks, range(1, written))
    expect(readFileSync(calls, 'latin1').split('\n').filter((call) => call.includes('EBADF'))).toEqual([])
    expect(life.messages).toEqual([])
    for (const name of ['one', 'two']) {
      if (!existsSync(`${folder}/${name}.ndjson`)) continue
      const other = new Written(`${folder}/${name}.ndjson`)
      other.look()
      other.checkEnd()
    }
  })
})
