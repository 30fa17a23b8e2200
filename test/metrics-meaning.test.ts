/**
 * Metrics against their HELP texts: the built program is driven into a situation, and the series that moved are those whose text says so. And the sums at the end: of
 * an output behind a spool they count what it has written, not what the spool has taken.
 */
import { spawn } from 'node:child_process'
import { appendFileSync, chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
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

  constructor(port: number, more: object, env: NodeJS.ProcessEnv = {}) {
    this.#port = port
    writeFileSync(this.path, '')
    rmSync(scratch('out.ndjson'), { force: true })
    const inputs = { in: { type: 'file', path: this.path, from: 'start', poll: '10ms' } }
    this.life = new Life(['run', '-c', configured('meaning.json', { http: { listen: `127.0.0.1:${port}` }, inputs, outputs: { out: { type: 'file', path: scratch('out.ndjson') } }, ...more })], { env })
  }

  async series(): Promise<Series> {
    const text = await fetch(`http://127.0.0.1:${this.#port}/metrics`).then((answer) => answer.text(), () => '')
    return Object.fromEntries(text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
  }

  async when(isSo: (series: Series) => boolean): Promise<Series> {
    for (;;) {
      const series = await this.series()
      if (isSo(series)) return series
      if (this.life.isOver) throw new Error(this.life.stderr)
      await sleep(10)
    }
  }

  /** Writes that, and gives the series that have moved when all its lines are read, and the rest has come. */
  async moved(text: string, hasCome: (series: Series) => boolean = () => true): Promise<Series> {
    const before = await this.when((series) => 'conntrail_read_lines_total' in series)
    appendFileSync(this.path, text)
    const lines = before['conntrail_read_lines_total']! + text.split('\n').length - 1
    const after = await this.when((series) => series['conntrail_read_lines_total'] === lines && hasCome(series))
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

/** Counters of what came in and what was made of it, without those of the outputs. */
const incoming = (series: Series): Series =>
  Object.fromEntries(Object.entries(series).flatMap(([name, value]) => (/^conntrail_(?!output).*_total\b/.test(name) ? [[name.replace(/netns="\d*"/, 'netns=ANY'), value]] : [])))

/** As of now, or of so many seconds ago: what is of long ago is over. */
const tableFull = (ago = 0): string => `${new Date(Date.now() - ago * 1000).toISOString().replace('Z', '000+00:00')} gw1 kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n`

test.each([
  { line: begun(1), fate: 'flow', more: {} },
  { line: '300 proto=6 src=10.10.1.2 dst=10.10.2.2 sport=0 dport=47263 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.10.1.2 master-dst=10.10.2.2 sport=57430 dport=21 class=0 helper=ftp\n', fate: 'expect', more: {} },
  { line: tableFull(), fate: 'kernel', more: { conntrail_alerts_total: 1, 'conntrail_episodes_total{rule="table_full",netns=ANY,netns_name=""}': 1 } },
  { line: 'WARNING: We have hit ENOBUFS! We are losing events.\n', fate: 'note', more: { conntrail_gaps_total: 1, 'conntrail_input_lost_total{input="in",cause="netlink_overrun",bound="at_least"}': 1 } },
  { line: 'nothing of ours\n', fate: 'ignored', more: {} },
  { line: begun(1).replace('src=10.0.0.1', 'src=10.0.0.'), fate: 'rejected', more: {} },
  { line: `${'x'.repeat(5000)}\n`, fate: 'rejected', more: { conntrail_gaps_total: 1, 'conntrail_input_lost_total{input="in",cause="line_too_long",bound="exact"}': 1 } },
])('a line that becomes $fate moves the counters of that, and no other', async ({ line, fate, more }) => {
  const watched = new Watched(await freePort(), { max_line: '4KiB' })
  const moved = await watched.moved(line, (series) => Object.keys(more).every((name) => (incoming(series)[name] ?? 0) > 0))
  const bytes = Buffer.byteLength(line)
  expect(incoming(moved)).toEqual({
    ...{ conntrail_read_lines_total: 1, conntrail_read_bytes_total: bytes, [`conntrail_lines_total{fate="${fate}"}`]: 1 },
    ...{ 'conntrail_input_received_lines_total{input="in",type="file"}': 1, 'conntrail_input_received_bytes_total{input="in",type="file"}': bytes, ...more },
  })
  await watched.life.stop()
})

test('a flow that ends is tracked no more, and neither forgotten nor displaced', async () => {
  const watched = new Watched(await freePort(), {})
  expect(await watched.moved(begun(1) + begun(2))).toMatchObject({ conntrail_flows_live: 2 })
  const moved = await watched.moved(begun(1).replace('    [NEW]', '[DESTROY]').replace(' 30 src', ' src').replace('[UNREPLIED] ', ''))
  expect(moved).toMatchObject({ conntrail_flows_live: -1, 'conntrail_lines_total{fate="flow"}': 1 })
  expect(Object.keys(moved).filter((name) => /forgotten|displaced/.test(name))).toEqual([])
  await watched.life.stop()
})

test('an episode is active from its first line to its end, and counts once however long it is', async () => {
  const rules = (quiet: string): object => ({ rules: { table_full: { quiet } } })
  const watched = new Watched(await freePort(), rules('1h'))
  const named = (series: Series, name: string): number | undefined => Object.entries(series).find(([key]) => key.startsWith(`conntrail_${name}{rule="table_full"`))?.[1]
  const begins = await watched.moved(tableFull(9), (series) => named(series, 'episode_active') === 1 && series['conntrail_alerts_total'] === 1)
  expect(named(begins, 'episodes_total')).toBe(1)
  const goesOn = await watched.moved(tableFull(9).repeat(5))
  expect(Object.keys(goesOn).filter((name) => /episode/.test(name))).toEqual([])
  writeFileSync(scratch('meaning.json'), JSON.stringify({ ...(JSON.parse(readFileSync(scratch('meaning.json'), 'utf8')) as object), ...rules('10s') }))
  watched.life.signal('SIGHUP')
  const ended = await watched.when((series) => named(series, 'episode_active') === 0)
  expect(named(ended, 'episodes_total')).toBe(1)
  const again = await watched.moved(tableFull(), (series) => named(series, 'episodes_total') === 2)
  expect(named(again, 'episodes_total')).toBe(1)
  await watched.life.stop()
})

describe('outputs', () => {
  const NAMES = ['read_records', 'written_records', 'filtered_records', 'rejected_records', 'lost_records', 'failures', 'written_bytes'] as const
  /** What an output's own series say; the sum of the fates is checked with each look. */
  const of = (series: Series, output: string): Record<string, number> => {
    const type = output === 'out' ? 'file' : 'webhook'
    const value = (name: string): number => series[`conntrail_output_${name}{output="${output}",type="${type}"}`] ?? NaN
    const found = { ...Object.fromEntries(NAMES.map((name) => [name, value(`${name}_total`)])), held: value('held_records'), spool: value('spool_bytes'), unacked: value('oldest_unacked_seconds') } as Record<string, number>
    expect(found['written_records']! + found['filtered_records']! + found['rejected_records']! + found['held']! + found['lost_records']!).toBe(found['read_records'])
    return found
  }
  const withHook = async (hook: object, answer: (text: string) => number): Promise<Watched> => {
    const receiver = await receive()
    receiver.usual = ({ text }, response) => void response.writeHead(answer(text)).end()
    const usual = { type: 'webhook', url: receiver.url(), when: { type: 'flow' }, batch: { records: 1, bytes: '1MB', every: '0s' }, retry: { first: '10ms', max: '20ms', circuit_after: 3 } }
    return new Watched(await freePort(), { emit: ['flow', 'kernel'], state: scratch(`state-${++states}`), outputs: { out: { type: 'file', path: scratch('out.ndjson'), when: { type: 'kernel' } }, hook: { ...usual, ...hook } } })
  }
  let states = 0

  test('what is written, what is not for an output, and the bytes of it', async () => {
    const watched = await withHook({}, () => 204)
    await watched.moved([1, 2, 3].map(begun).join('') + tableFull().repeat(2), (series) => of(series, 'hook')['written_records'] === 3 && of(series, 'out')['written_records'] === 2 && series['conntrail_alerts_total'] === 1)
    const series = await watched.series()
    // with the alert, which emit leaves out
    expect(of(series, 'out')).toMatchObject({ read_records: 6, written_records: 2, filtered_records: 4, failures: 0, written_bytes: readFileSync(scratch('out.ndjson')).length, held: 0 })
    expect(of(series, 'hook')).toMatchObject({ read_records: 6, written_records: 3, filtered_records: 3, rejected_records: 0, lost_records: 0, failures: 0, held: 0, unacked: 0 })
    await watched.life.stop()
  })

  test('a receiver that is down: attempts that failed, records held, the circuit; then all is written', async () => {
    let isDown = true
    const watched = await withHook({}, () => (isDown ? 503 : 204))
    const state = (name: string): string => `conntrail_output_circuit_state{output="hook",type="webhook",state="${name}"}`
    await watched.moved([1, 2, 3].map(begun).join(''), (series) => of(series, 'hook')['failures']! >= 4 && series[state('open')]! + series[state('half_open')]! === 1)
    const down = await watched.series()
    expect(of(down, 'hook')).toMatchObject({ read_records: 3, written_records: 0, rejected_records: 0, lost_records: 0, held: 3 })
    expect(of(down, 'hook')['spool']).toBeGreaterThan(0)
    expect(of(down, 'hook')['unacked']).toBeGreaterThan(0)
    expect(down['conntrail_output_spool_writable{output="hook",type="webhook"}']).toBe(1)
    isDown = false
    const up = await watched.when((series) => of(series, 'hook')['written_records'] === 3 && of(series, 'hook')['held'] === 0)
    expect(up[state('closed')]).toBe(1)
    expect(of(up, 'hook')).toMatchObject({ read_records: 3, lost_records: 0, rejected_records: 0, unacked: 0 })
    await watched.life.stop()
  })

  test('what the receiver refuses for good is rejected, and no failure', async () => {
    const watched = await withHook({}, (text) => (text.includes('10.0.0.2') ? 422 : 204))
    const moved = await watched.moved([1, 2, 3].map(begun).join(''), (series) => of(series, 'hook')['held'] === 0 && of(series, 'hook')['read_records'] === 3)
    expect(of(await watched.series(), 'hook')).toMatchObject({ written_records: 2, rejected_records: 1, lost_records: 0, failures: 0 })
    expect(Object.keys(moved).filter((name) => name.startsWith('conntrail_output_discarded'))).toEqual([])
    await watched.life.stop()
  })

  test('what a full spool sheds is lost, by reason, and nothing else is', async () => {
    const watched = await withHook({ spool: '1MiB', when_full: 'drop_newest' }, () => 503)
    const lines = Array.from({ length: 6000 }, (_, i) => begun(1 + (i % 250))).join('')
    await watched.moved(lines, (series) => of(series, 'hook')['lost_records']! > 0 && of(series, 'hook')['read_records'] === 6000)
    const series = await watched.series()
    const found = of(series, 'hook')
    expect(found).toMatchObject({ written_records: 0, rejected_records: 0, filtered_records: 0 })
    expect(series['conntrail_output_discarded_records_total{output="hook",type="webhook",reason="spool_full"}']).toBe(found['lost_records'])
    expect(found['spool']).toBeLessThanOrEqual(series['conntrail_output_spool_limit_bytes{output="hook",type="webhook"}']!)
    await watched.life.kill()
  })
})

test('reloads count by their result', async () => {
  const port = await freePort()
  const watched = new Watched(port, {})
  await watched.when((series) => series['conntrail_config_reload_success'] === 1)
  const path = scratch('meaning.json')
  const text = readFileSync(path, 'utf8')
  writeFileSync(path, '{')
  watched.life.signal('SIGHUP')
  const failed = await watched.when((series) => series['conntrail_config_reloads_total{result="failure"}'] === 1)
  expect(failed).toMatchObject({ conntrail_config_reload_success: 0, 'conntrail_config_reloads_total{result="success"}': 0 })
  writeFileSync(path, text)
  watched.life.signal('SIGHUP')
  const taken = await watched.when((series) => series['conntrail_config_reloads_total{result="success"}'] === 1)
  expect(taken).toMatchObject({ conntrail_config_reload_success: 1, 'conntrail_config_reloads_total{result="failure"}': 1 })
  await watched.life.stop()
})

describe('live inputs', () => {
  /** Programs by these names come first. */
  const withPrograms = (programs: Record<string, string>): NodeJS.ProcessEnv => {
    const bin = scratch('bin')
    mkdirSync(bin, { recursive: true })
    for (const [name, text] of Object.entries(programs)) {
      writeFileSync(`${bin}/${name}`, `#!/bin/sh\n${text}\n`)
      chmodSync(`${bin}/${name}`, 0o755)
    }
    return { PATH: `${bin}:${process.env['PATH']}` }
  }
  const HOUR = 3600
  const entry = (n: number): string =>
    `{"SYSLOG_IDENTIFIER":"kernel","__REALTIME_TIMESTAMP":"${(Date.now() - HOUR * 1000) * 1000 + n}","__CURSOR":"s=292925b5a9824c7292fd90cfc91a49b7;i=${n};b=0f5b6a2e6f0a4f0e9a3a4c3f0d1e2f30;m=1;t=1;x=${n}","SYSLOG_FACILITY":"0","PRIORITY":"4","MESSAGE":"nf_conntrack: nf_conntrack: table full, dropping packet","_TRANSPORT":"kernel"}`

  test('the journal: how old its last entry was; a journalctl that was started again and lost nothing counts as a restart, and as no loss', async () => {
    const path = scratch('runs')
    const env = withPrograms({ journalctl: `case "$*" in *--show-cursor*) echo '-- No entries --'; exit 0;; esac
echo run >> ${path}
echo '${entry(1)}'
[ $(wc -l < ${path}) -gt 2 ] && { echo '${entry(2)}'; exec sleep 1000; }
kill -9 $$` })
    const watched = new Watched(await freePort(), { inputs: { log: { type: 'journal', from: 'start' } } }, env)
    const restarts = 'conntrail_input_restarts_total{input="log",type="journal"}'
    const series = await watched.when((found) => found[restarts] === 2 && found['conntrail_lines_total{fate="kernel"}'] === 2)
    expect(series['conntrail_input_lag_seconds{input="log",type="journal"}']).toBeGreaterThanOrEqual(HOUR)
    expect(Object.keys(series).filter((name) => name.startsWith('conntrail_input_lost'))).toEqual([])
    expect(series['conntrail_gaps_total']).toBe(0)
    await watched.life.stop()
  })

  test('a program that ends and is started again: a restart each, and at least one line lost each', async () => {
    const watched = new Watched(await freePort(), { inputs: { tool: { type: 'command', program: ['sh', '-c', `echo x >> ${scratch('starts')}; echo '${begun(1).trim().replace('\t', ' ')}'; [ $(wc -l < ${scratch('starts')}) -gt 2 ] && exec sleep 1000`] } } })
    const series = await watched.when((found) => found['conntrail_input_restarts_total{input="tool",type="command"}'] === 2 && found['conntrail_lines_total{fate="flow"}'] === 3)
    expect(series['conntrail_input_lost_total{input="tool",cause="input_restart",bound="at_least"}']).toBe(2)
    expect(series['conntrail_gaps_total']).toBe(2)
    await watched.life.stop()
  })

  test.runIf(existsSync('/proc/sys/net/netfilter/nf_conntrack_count'))('the table: its samples are of now', async () => {
    const watched = new Watched(await freePort(), { inputs: { level: { type: 'table', every: '1s' } } })
    const lag = 'conntrail_input_lag_seconds{input="level",type="table"}'
    const series = await watched.when((found) => lag in found)
    expect(series[lag]).toBeGreaterThanOrEqual(0)
    expect(series).toHaveProperty('node_nf_conntrack_entries')
    expect(Object.keys(series).filter((name) => name.startsWith('conntrail_input_unread_bytes'))).toEqual([])
    await watched.life.stop()
  })
})
