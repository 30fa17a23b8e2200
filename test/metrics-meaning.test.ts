/**
 * Metrics against their HELP texts: the built program is driven into a situation, and the series that moved are those whose text says so. And the sums at the end: of
 * an output behind a spool they count what it has written, not what the spool has taken.
 */
import { spawn } from 'node:child_process'
import { appendFileSync, closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, freePort, program, scratch, sleep } from './process-harness.js'
import { configured, Life } from './run-harness.js'
import { receive, stopReceivers } from './webhook-harness.js'

afterEach(async () => {
  cleanUp()
  await stopReceivers()
})

const begun = (n: number): string => `[1795342488.859837]\t    [NEW] udp      17 30 src=10.0.0.${n} dst=10.1.2.2 sport=5 dport=53 [UNREPLIED] src=10.1.2.2 dst=10.0.0.${n} sport=53 dport=5 id=${n}\n`
const row = (n: number, timeout = 30): string => `udp      17 ${timeout} src=10.9.0.${n} dst=10.1.2.2 sport=5 dport=53 src=10.1.2.2 dst=10.9.0.${n} sport=53 dport=5 use=1\n`

type Series = Readonly<Record<string, number>>

class Watched {
  readonly #port: number
  readonly life: Life
  readonly path = scratch('in.log')

  constructor(port: number, more: object) {
    this.#port = port
    writeFileSync(this.path, '')
    const inputs = { in: { type: 'file', path: this.path, from: 'start', poll: '10ms' } }
    this.life = new Life(['run', '-c', configured('meaning.json', { http: { listen: `127.0.0.1:${port}` }, inputs, outputs: { out: { type: 'file', path: scratch('out.ndjson') } }, ...more })])
  }

  async series(): Promise<Series> {
    const text = await fetch(`http://127.0.0.1:${this.#port}/metrics`).then((answer) => answer.text(), () => '')
    return Object.fromEntries(text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
  }

  async #when(isSo: (series: Series) => boolean): Promise<Series> {
    for (;;) {
      const series = await this.series()
      if (isSo(series)) return series
      if (this.life.isOver) throw new Error(this.life.stderr)
      await sleep(10)
    }
  }

  /** Writes that, and gives the series that have moved when all its lines are read. */
  async moved(text: string): Promise<Series> {
    const before = await this.#when((series) => 'conntrail_read_lines_total' in series)
    appendFileSync(this.path, text)
    const lines = before['conntrail_read_lines_total']! + text.split('\n').length - 1
    const after = await this.#when((series) => series['conntrail_read_lines_total'] === lines)
    return Object.fromEntries(Object.entries(after).flatMap(([name, value]) => (value === before[name] ? [] : [[name, value - (before[name] ?? 0)]])))
  }
}

test('flows that are given up at the limit, and rows that a later dump does not show, move their own series', async () => {
  const watched = new Watched(await freePort(), { flows_max: 4 })
  const limit = await watched.moved([1, 2, 3, 4, 5, 6].map(begun).join(''))
  expect(limit).toMatchObject({ conntrail_flows_displaced_total: 2, conntrail_flows_live: 4, 'conntrail_lines_total{fate="flow"}': 6 })
  expect(limit).not.toHaveProperty('conntrail_flows_forgotten_total')
  await watched.life.stop()

  const roomy = new Watched(await freePort(), { flows_max: 100 })
  const dump = (rows: readonly number[]): string => `${rows.map((n) => row(n)).join('')}conntrack v1.4.7 (conntrack-tools): ${rows.length} flow entries have been shown.\n`
  await roomy.moved(dump([1, 2, 3]))
  const later = await roomy.moved(dump([1]))
  expect(later).toMatchObject({ conntrail_flows_forgotten_total: 2 })
  expect(later).not.toHaveProperty('conntrail_flows_displaced_total')
  await roomy.life.stop()
})

test('an input that has read says how old it is and what is left of its files', async () => {
  const watched = new Watched(await freePort(), {})
  await watched.moved('2026-11-22T09:58:32.000000+00:00 gw1 kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n')
  const series = await watched.series()
  // a line of the kernel alone: there was no flow
  expect(Object.keys(series).filter((name) => name.startsWith('conntrail_input_lag_seconds'))).toHaveLength(1)
  expect(Object.entries(series).find(([name]) => name.startsWith('conntrail_input_unread_bytes'))?.[1]).toBe(0)
  await watched.life.stop()
})

test('standard output behind a spool counts what it wrote, what it dropped and what waits', async () => {
  const lines = 60_000
  const config = configured('behind.json', { emit: ['flow'], once: true, inputs: { in: { type: 'file', path: scratch('many.log'), from: 'start' } }, outputs: { out: { type: 'stdout', when_full: 'drop_newest', spool: '64KiB' } } })
  writeFileSync(scratch('many.log'), Array.from({ length: lines }, (_, i) => begun(i % 250)).join(''))
  const errors = openSync(scratch('stderr'), 'w+')
  const child = spawn(process.execPath, [program, 'run', '-c', config], { stdio: ['ignore', 'pipe', errors] })
  const ended = new Promise((resolve) => child.on('close', resolve))
  let got = ''
  child.stdout!.on('data', (piece: Buffer) => (got += piece.toString()))
  await ended
  closeSync(errors)
  const done = JSON.parse(readFileSync(scratch('stderr'), 'utf8').split('\n').find((line) => line.includes('"msg":"done"'))!) as { outputs: Record<string, number>; lost: Record<string, number>; spool: Record<string, number>; written: number }
  const written = got.split('\n').length - 1
  expect(done.outputs).toEqual({ out: written })
  expect(done.written).toBe(written)
  expect(written + done.lost['out']! + done.spool['out']!).toBe(lines)
  expect(done.lost['out']).toBeGreaterThan(0)
})

test('what a receiver turns down is refused in the sums, by output, and not written', async () => {
  const receiver = await receive()
  receiver.usual = ({ text }, response) => void response.writeHead(/"mark":[1-3]\b/.test(text) ? 422 : 204).end('no such mark')
  const outputs = { hook: { type: 'webhook', url: receiver.url(), when: { type: 'flow' }, batch: { records: 1, bytes: '1KB', every: '0s' } }, all: { type: 'file', path: scratch('all.ndjson') } }
  writeFileSync(scratch('in.log'), Array.from({ length: 8 }, (_, i) => begun(i).replace('id=', `mark=${i + 1} id=`)).join(''))
  const life = new Life(['run', '-c', configured('refused.json', { once: true, emit: ['flow'], inputs: { in: { type: 'file', path: scratch('in.log'), from: 'start' } }, outputs })])
  expect(await life.ended()).toBe(0)
  expect(life.done).toMatchObject({ written: 8 + 5, outputs: { hook: 5, all: 8 }, refused: { hook: 3 }, lost: { hook: 0 }, spool: { hook: 0 } })
  expect(life.messages.filter((message) => message.includes('refuses'))).toEqual([expect.stringContaining('with 422: no such mark')])
})
