/**
 * A steady stream through the built program for a long time: 20,000 lines a second in and out with rotation, 5,000 flows live throughout. Half an hour in the long
 * run, where memory may grow by 5 % at most; in the short one files, sums and retention are looked at.
 */
import { once } from 'node:events'
import { createWriteStream, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, Pipe, Program, scratch, sleep } from './process-harness.js'

const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
const SECONDS = isLong ? Number(process.env['CONNTRAIL_SOAK_SECONDS'] ?? 1800) : 8
const LINES_A_SECOND = 20_000
const FLOWS = 5000
const PIECE_MS = 50
const KEPT = 3
const ROTATE_BYTES = isLong ? 100e6 : 10e6

afterEach(cleanUp)

/** Flow `n` of the stream, each of three lines; the oldest ends when a new one comes. */
function* lines(): Generator<string> {
  const tuple = (n: number): string => `src=10.10.${(n >>> 8) & 255}.${n & 255} dst=10.20.0.1 sport=${1024 + (n % 60000)} dport=443`
  const back = (n: number): string => `src=10.20.0.1 dst=10.10.${(n >>> 8) & 255}.${n & 255} sport=443 dport=${1024 + (n % 60000)}`
  for (let n = 0; ; n++) {
    const at = `[${Math.floor(Date.now() / 1000)}.${String((n % 1000) * 1000).padStart(6, '0')}]`
    yield `${at}\t    [NEW] tcp      6 120 SYN_SENT ${tuple(n)} [UNREPLIED] ${back(n)} id=${n}\n`
    yield `${at}\t [UPDATE] tcp      6 432000 ESTABLISHED ${tuple(n)} ${back(n)} [ASSURED] id=${n}\n`
    if (n >= FLOWS) yield `${at}\t[DESTROY] tcp      6 CLOSE ${tuple(n - FLOWS)} ${back(n - FLOWS)} [ASSURED] id=${n - FLOWS}\n`
  }
}

test('a steady stream keeps its memory, its files and its disk', { timeout: (SECONDS + 120) * 1000 }, async () => {
  const folder = scratch('soak')
  mkdirSync(folder)
  writeFileSync(`${folder}/c.yaml`, `inputs: { in: { type: stdin } }\noutputs:\n  all: { type: file, path: ${folder}/all.ndjson, rotate: { size: ${ROTATE_BYTES / 1e6}MB, keep: ${KEPT}, compress: gzip } }\n`)
  const into = await Pipe.open()
  const sink = createWriteStream('', { fd: into.writeEnd, autoClose: false })
  const program = new Program(['run', '-c', `${folder}/c.yaml`, '--state', `${folder}/state`], into, 'ignore')
  const stream = lines()
  const samples: { readonly second: number; readonly memory: number; readonly files: number }[] = []
  const began = Date.now()
  let written = 0
  for (let sampled = 0; ; ) {
    const elapsed = (Date.now() - began) / 1000
    if (elapsed >= SECONDS) break
    let piece = ''
    for (const due = elapsed * LINES_A_SECOND; written < due; written++) piece += stream.next().value
    if (!sink.write(piece)) await once(sink, 'drain')
    if (elapsed >= sampled + 1) {
      sampled = Math.floor(elapsed)
      samples.push({ second: sampled, memory: program.memory(), files: readdirSync(`/proc/${program.pid}/fd`).length })
    }
    await sleep(PIECE_MS)
  }
  sink.end()
  await once(sink, 'finish')
  into.closeWrite()
  const { status, done } = await program.ended
  expect(status).toBe(0)
  expect(done!.lines).toBe(written)
  expect(done!.written).toBe(written)
  const kept = readdirSync(folder).filter((name) => name.startsWith('all.ndjson.'))
  expect(kept.length).toBeLessThanOrEqual(KEPT)
  expect(kept.length).toBeGreaterThan(0)
  expect(kept.every((name) => name.endsWith('.gz') || statSync(`${folder}/${name}`).size > 0)).toBe(true)
  const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
  // a rotation under way has two more files open, for the time of compressing
  expect(median(samples.slice(-60).map(({ files }) => files))).toBeLessThanOrEqual(median(samples.slice(0, 60).map(({ files }) => files)) + 2)
  if (!isLong) return
  const early = median(samples.filter(({ second }) => second >= 300 && second < 600).map(({ memory }) => memory))
  const late = median(samples.filter(({ second }) => second >= SECONDS - 300).map(({ memory }) => memory))
  console.log(`resident memory, MiB: minutes 5 to 10 ${early.toFixed(1)}, last five ${late.toFixed(1)}; ${written} lines`)
  expect(late / early).toBeLessThan(1.05)
})
