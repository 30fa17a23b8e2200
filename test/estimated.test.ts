/**
 * A saved dmesg counts from boot, and when that was its file does not say: by a guess nothing is taken from other inputs, and it is said everywhere. Where another
 * file, or the same, has a line that it has too, nothing is guessed.
 */
import { utimesSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { TIME_BOOT, TIME_ESTIMATED } from '../src/event.js'
import { localClock } from '../src/formats/local-time.js'
import { Boots } from '../src/inputs/boot.js'
import { cleanUp, output, program, type Record_, scratch, start } from './process-harness.js'

afterEach(cleanUp)

const FULL = 'nf_conntrack: nf_conntrack: table full, dropping packet'
const LOADED = 'nf_conntrack version 0.5.0 (65536 buckets, 262144 max)'
/** When the kernel's clock was 0, in truth; and when the file was copied, which the guess takes for its end. */
const BOOT = Date.parse('2025-11-27T21:42:22.106800Z') * 1000 + 0
const COPIED = new Date('2026-02-23T17:00:00Z')
const MONOTONIC = 7_584_134_393_200
const dmesg = (...lines: readonly (readonly [number, string])[]): string => lines.map(([us, text]) => `[${Math.floor(us / 1e6)}.${String(us % 1e6).padStart(6, '0')}] ${text}\n`).join('')
const SAVED = dmesg([3_200_000, LOADED], [MONOTONIC, FULL], [MONOTONIC + 700_000, FULL])
const isoOf = (us: number): string => `${new Date(Math.floor(us / 1000)).toISOString().slice(0, -1)}${String(us % 1000).padStart(3, '0')}Z`

let files = 0
function saved(text: string | Uint8Array, modified = COPIED): string {
  const path = scratch(`log${++files}`)
  writeFileSync(path, text)
  utimesSync(path, modified, modified)
  return path
}

async function told(paths: readonly string[], ...more: string[]): Promise<{ readonly records: Record_[]; readonly said: string }> {
  const child = start(process.execPath, [program, 'run', '--once', '--timezone', 'UTC', ...paths.flatMap((path) => ['-i', path]), ...more], ['ignore', 'pipe', 'pipe'])
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text))
  const text = await output(child)
  return { records: text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record_), said }
}

/** Flows that the kernel threw out at the moment that the guess takes the lines to be of. */
const guessedSec = COPIED.getTime() / 1000 - 1
const events = Array.from({ length: 4 }, (_, i) => `[${guessedSec - 5 + i}.000000]\t    [NEW] udp      17 30 src=10.66.1.9 dst=10.66.2.2 sport=${i} dport=53 [UNREPLIED] src=10.66.2.2 dst=10.66.2.1 sport=53 dport=${i}\n`)
const thrownOut = `[${guessedSec + 2}.000000]\t[DESTROY] udp      17 25 src=10.66.1.9 dst=10.66.2.2 sport=0 dport=53 [UNREPLIED] src=10.66.2.2 dst=10.66.2.1 sport=53 dport=0\n`
describe('a clock that is only estimated', () => {
  test('takes nothing from another input, and its alerts and the end say that times are a guess, and what mends it', async () => {
    const { records, said } = await told([saved(dmesg([MONOTONIC, FULL], [MONOTONIC + 700_000, FULL])), saved(events.join('') + thrownOut)], '--summary')
    const alerts = records.filter(({ type }) => type === 'alert')
    expect(alerts.length).toBeGreaterThan(0)
    for (const alert of alerts) {
      expect(alert).toMatchObject({ time_source: 'estimated', drops: { logged: expect.any(Number) as number } })
      expect(alert['summary']).toMatch(/times are a guess.*--boot-time/)
      expect(alert).not.toHaveProperty('top')
      expect(alert).not.toHaveProperty('table')
    }
    expect(records.filter(({ event }) => event === 'destroy').map(({ end }) => end.reason as string)).toEqual(['removed'])
    const [warning, done] = said.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Record_).slice(-2)
    expect(warning!['msg']).toMatch(/^times are a guess: 2 records of .*log\d+.*--boot-time/)
    expect(done!['msg']).toBe('done')
    expect(said.split('\n').filter((line) => line.startsWith('times are a guess'))).toHaveLength(1)
  })

  test('with --boot-time it is known', async () => {
    const { records, said } = await told([saved(SAVED)], '--boot-time', isoOf(BOOT))
    expect(records.filter(({ type }) => type === 'kernel').map(({ time, time_source }) => [time, time_source])).toEqual([3_200_000, MONOTONIC, MONOTONIC + 700_000].map((us) => [isoOf(BOOT + us), 'boot']))
    expect(said + records.map((record) => String(record['summary'])).join('')).not.toContain('guess')
  })
})

const wall = BOOT + MONOTONIC
const syslogStamp = (us: number): string => {
  const [, month, day, clock] = /^\w+, (\d\d) (\w+) \d+ ([\d:]+)/.exec(new Date(us / 1000).toUTCString())!.map(String)
  return `${day} ${month!.replace(/^0/, ' ')} ${clock}`
}
const entry = { __REALTIME_TIMESTAMP: String(wall + 100_000), __MONOTONIC_TIMESTAMP: String(MONOTONIC + 100_000), _SOURCE_MONOTONIC_TIMESTAMP: String(MONOTONIC), _TRANSPORT: 'kernel', PRIORITY: '4', MESSAGE: FULL }

describe('a line that another file carries too', () => {
  test.each<readonly [string, string, number | null]>([
    ['syslog with both clocks', `${syslogStamp(wall)} gw kernel: [${MONOTONIC / 1e6}] ${FULL}\n`.replace(/\[(\d+\.\d+)\]/, (_, n: string) => `[${Number(n).toFixed(6)}]`), 1_000_000],
    ['syslog without the kernel\'s', `${isoOf(BOOT + 3_200_000)} gw kernel: ${LOADED}\n${isoOf(wall)} gw kernel: ${FULL}\n${isoOf(wall + 700_000)} gw kernel: ${FULL}\n`, 1],
    ['a `loaded` line alone', `${isoOf(BOOT + 3_200_000)} gw kernel: ${LOADED}\n`, 1],
    ['lines of which one says this and another that', `${isoOf(BOOT + 3_200_000)} gw kernel: ${LOADED}\n${isoOf(wall - 9e9)} gw kernel: ${FULL}\n`, null],
    ['the journal in JSON', `${JSON.stringify(entry)}\n`, 1],
    ['the journal\'s export format', `__CURSOR=s=1;i=1\n${Object.entries(entry).map(([key, value]) => `${key}=${value}\n`).join('')}\n`, 1],
    ['our own records', `${JSON.stringify({ time: isoOf(wall), type: 'kernel', v: 1, kind: 'table_full', monotonic: MONOTONIC / 1e6, message: FULL })}\n`, 1],
  ])('%s', async (_, other, within) => {
    const path = saved(other)
    const { records, said } = await told([saved(SAVED), path])
    const mine = records.filter(({ type, input }) => type === 'kernel' && input !== undefined && input !== path)
    if (within === null) {
      // neither is believed
      expect(mine.every(({ time_source }) => time_source === 'estimated')).toBe(true)
      return
    }
    expect(mine).toHaveLength(3)
    for (const [i, us] of [3_200_000, MONOTONIC, MONOTONIC + 700_000].entries()) {
      expect(mine[i]).toMatchObject({ time_source: 'boot' })
      const at = Date.parse(mine[i]!['time'] as string) * 1000
      expect(Math.abs(at - (BOOT + us))).toBeLessThanOrEqual(within + 1000)
    }
    expect(said).not.toContain('guess')
  })

  test('a compressed one too', () => {
    const boots = new Boots(localClock('UTC'))
    const file = { path: saved(SAVED), modified: COPIED.getTime() * 1000 }
    expect(boots.of(file)).toEqual({ microseconds: COPIED.getTime() * 1000 - MONOTONIC - 700_000, source: TIME_ESTIMATED })
    // a file that comes later is looked at as well
    boots.add(saved(gzipSync(`${isoOf(wall)} gw kernel: [${(MONOTONIC / 1e6).toFixed(6)}] ${FULL}\n`)))
    expect(boots.of(file)).toEqual({ microseconds: BOOT, source: TIME_BOOT })
  })

  test('then holders and evictions are taken as well', async () => {
    const other = `${isoOf(wall)} gw kernel: [${(MONOTONIC / 1e6).toFixed(6)}] ${FULL}\n`
    const at = Math.floor(wall / 1e6)
    const flows = events.map((line, i) => line.replace(/^\[\d+/, `[${at - 5 + i}`)).join('') + thrownOut.replace(/^\[\d+/, `[${at + 2}`)
    const { records } = await told([saved(dmesg([MONOTONIC, FULL])), saved(other), saved(flows)])
    expect(records.filter(({ event }) => event === 'destroy').map(({ end }) => end.reason as string)).toEqual(['evicted'])
    expect(records.find(({ type }) => type === 'alert')!['top'][0]).toMatchObject({ by: 'src', value: '10.66.1.9' })
  })

  test('of another boot ties nothing, and in one file with it too', async () => {
    const dull = dmesg([MONOTONIC, FULL])
    const { records } = await told([saved(dull), saved(`${isoOf(wall)} gw kernel: [    5.000000] ${FULL}\n`)])
    expect(records.find(({ monotonic }) => monotonic === MONOTONIC / 1e6)).toMatchObject({ time_source: 'estimated' })
    const { records: mixed } = await told([saved(`${dull}${isoOf(wall)} gw kernel: [${(MONOTONIC / 1e6).toFixed(6)}] ${FULL}\n`)])
    expect(mixed.filter(({ type }) => type === 'kernel').map(({ time }) => time as string)).toEqual([isoOf(wall), isoOf(wall)])
  })
})
