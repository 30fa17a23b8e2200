/** Metrics and health: the text that Prometheus reads, sums that close, when the program calls itself ready, and who is let in to ask. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type HttpServer, ListenError, openHttp } from '../src/http.js'
import { type InputNumbers, liveness, metricsText, type MetricsSnapshot, type OutputNumbers, readiness, statNames, statusOf, unaccounted, unaccountedLines } from '../src/metrics.js'
import { freePort } from './process-harness.js'

const hasPromtool = spawnSync('promtool', ['--version']).status === 0
const nodeExporter = ['prometheus-node-exporter', 'node_exporter'].find((name) => spawnSync(name, ['--version']).status === 0) ?? ''

const kernelInput: InputNumbers = {
  ...{ name: 'kernel', type: 'kmsg', isOpen: true, isOptional: false, reason: '' },
  ...{ lines: 60, bytes: 6000, lagSeconds: -1, unreadBytes: -1, restarts: 0, lost: [{ cause: 'kmsg_overrun', isExact: true, count: 81 }] },
}
const pager: OutputNumbers = {
  ...{ name: 'pager "ü"\\', type: 'webhook', sums: { read: 100, written: 50, filtered: 20, rejected: 3, held: 7, lost: 20 } },
  ...{ bytes: 5000, lostBy: { spool_full: 15, max_age: 5 }, failures: 4, lastFailure: 'answered 503', spool: { bytes: 4096, limitBytes: 256e6, isWritable: true }, circuit: 'open', oldestUnackedSeconds: 12.5, certificateExpiresAt: 1_800_000_000 },
}

const snapshot: MetricsSnapshot = {
  ...{ version: '0.1.0', node: '20.20.2', now: 1_795_342_000.25, startedAt: 1_795_341_000, sinceTurnSeconds: 0.4, eventLoopLagSeconds: 0.012 },
  process: { cpuSeconds: 1.25, residentBytes: 71_303_168, openFiles: 31 },
  config: { path: '/etc/conntrail/conntrail.yaml', loadedAt: 1_795_341_000, reloads: 3, failedReloads: 1, fault: '' },
  lines: { lines: 100, bytes: 20_000, flows: 60, expects: 2, kernel: 10, notes: 1, ignored: 20, rejected: 5, held: 2, alerts: 4, gaps: 2 },
  flows: { live: 61_000, limit: 1_048_576, forgotten: 0, displaced: 3 },
  inputs: [
    kernelInput,
    { ...kernelInput, name: 'flows', type: 'conntrack', lagSeconds: 0.02, restarts: 1, lost: [{ cause: 'netlink_overrun', isExact: false, count: 1 }] },
    { ...kernelInput, name: 'logs', type: 'file', unreadBytes: 4096, lost: [] },
  ],
  outputs: [pager, { ...pager, name: 'all', type: 'file', sums: { read: 100, written: 100, filtered: 0, rejected: 0, held: 0, lost: 0 }, lostBy: {}, spool: null, circuit: null, oldestUnackedSeconds: 0 }],
  tables: [
    { netns: 4026531833, netnsName: '', isOwn: true, count: 61_873, max: 65_536, fullInSeconds: 15.8, stats: { drop: 1868, early_drop: 33, found: 4_294_967_301, ignore: 0, insert: 0, insert_failed: 2, invalid: 7, search_restart: 9 }, total: { drop: 4_294_969_164, early_drop: 33, insert_failed: 2 } },
    { netns: 4026532246, netnsName: 'blue\n', isOwn: false, count: 5, max: 400, fullInSeconds: -1, stats: { drop: 11 }, total: { drop: 11 } },
  ],
  episodes: [
    { rule: 'table_full', netns: 4026531833, netnsName: '', host: '', isActive: true, begun: 2 },
    { rule: 'table_full', netns: 0, netnsName: '', host: '', isActive: false, begun: 1 },
  ],
  checkpoint: { ageSeconds: 0.7, hasFailed: false },
}

/** Series by name and labels. */
const series = (text: string): Record<string, number> =>
  Object.fromEntries(text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))

const headers = (text: string): string[] => text.split('\n').filter((line) => /^# \w+ node_nf_conntrack_/.test(line)).sort()

describe('the metrics', () => {
  test('hold every number of the snapshot under its name', () => {
    expect(series(metricsText(snapshot))).toMatchObject({
      node_nf_conntrack_entries: 61_873,
      node_nf_conntrack_entries_limit: 65_536,
      node_nf_conntrack_stat_drop: 1868,
      node_nf_conntrack_stat_found: 4_294_967_301,
      'conntrail_table_entries{netns="4026532246",netns_name="blue\\n"}': 5,
      'conntrail_table_full_in_seconds{netns="4026531833",netns_name=""}': 15.8,
      'conntrail_drops_total{netns="4026531833",netns_name=""}': 4_294_969_164,
      'conntrail_drops_total{netns="4026532246",netns_name="blue\\n"}': 11,
      'conntrail_episode_active{rule="table_full",netns="4026531833",netns_name=""}': 1,
      'conntrail_episode_active{rule="table_full",netns="",netns_name=""}': 0,
      'conntrail_input_lost_total{input="kernel",cause="kmsg_overrun",bound="exact"}': 81,
      'conntrail_input_lost_total{input="flows",cause="netlink_overrun",bound="at_least"}': 1,
      'conntrail_input_lag_seconds{input="flows",type="conntrack"}': 0.02,
      'conntrail_output_spool_bytes{output="pager \\"ü\\"\\\\",type="webhook"}': 4096,
      'conntrail_output_circuit_state{output="pager \\"ü\\"\\\\",type="webhook",state="open"}': 1,
      'conntrail_output_circuit_state{output="pager \\"ü\\"\\\\",type="webhook",state="closed"}': 0,
      'conntrail_output_oldest_unacked_seconds{output="all",type="file"}': 0,
      'conntrail_output_certificate_expiry_timestamp_seconds{output="pager \\"ü\\"\\\\",type="webhook"}': 1_800_000_000,
      'conntrail_output_discarded_records_total{output="pager \\"ü\\"\\\\",type="webhook",reason="spool_full"}': 15,
      'conntrail_build_info{version="0.1.0",node="20.20.2"}': 1,
      conntrail_config_reload_success: 1,
      'conntrail_config_reloads_total{result="failure"}': 1,
      conntrail_checkpoint_age_seconds: 0.7,
      conntrail_eventloop_lag_seconds: 0.012,
      conntrail_flows_live: 61_000,
      conntrail_flows_forgotten_total: 0,
    })
  })

  test('leave out what is not known, headers and all', () => {
    const found = series(metricsText({ ...snapshot, eventLoopLagSeconds: -1, checkpoint: null, tables: [snapshot.tables[1]!] }))
    const names = Object.keys(found)
    for (const absent of ['node_nf_conntrack', 'conntrail_table_full_in_seconds', 'conntrail_early_drops_total', 'conntrail_checkpoint', 'conntrail_eventloop_lag_seconds']) {
      expect(names.filter((name) => name.startsWith(absent))).toEqual([])
    }
    expect(names.filter((name) => name.startsWith('conntrail_input_lag_seconds'))).toEqual(['conntrail_input_lag_seconds{input="flows",type="conntrack"}'])
    expect(names.filter((name) => name.startsWith('conntrail_output_spool_bytes'))).toHaveLength(1)
    expect(Object.values(found)).not.toContain(-1)
    expect(metricsText({ ...snapshot, tables: [] })).not.toMatch(/# (HELP|TYPE) (node_nf_conntrack|conntrail_table)/)
  })

  test('never have the same series twice', () => {
    const text = metricsText({ ...snapshot, tables: [...snapshot.tables, { ...snapshot.tables[0]!, count: 1 }], inputs: [kernelInput, kernelInput] })
    const rows = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    expect(new Set(rows.map((row) => row.slice(0, row.lastIndexOf(' ')))).size).toBe(rows.length)
    expect(series(text)['node_nf_conntrack_entries']).toBe(61_873)
  })

  test.skipIf(!hasPromtool)('have no complaint of promtool', () => {
    for (const text of [metricsText(snapshot), metricsText({ ...snapshot, inputs: [], outputs: [], tables: [], episodes: [], checkpoint: null })]) {
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
      expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' })
    }
    const faulty = spawnSync('promtool', ['check', 'metrics'], { input: metricsText(snapshot).replaceAll('conntrail_drops_total', 'conntrail_drops'), encoding: 'utf8' })
    expect(faulty.stdout + faulty.stderr).toContain('conntrail_drops')
  })

  test.skipIf(nodeExporter === '')('have names, types and words of node_exporter where it has them', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'conntrail-exporter-'))
    const port = await freePort()
    const exporter: ChildProcess = spawn(nodeExporter, ['--collector.disable-defaults', '--collector.textfile', `--collector.textfile.directory=${folder}`, '--collector.conntrack', `--web.listen-address=127.0.0.1:${port}`], { stdio: 'ignore' })
    try {
      let theirs = ''
      while (theirs === '') theirs = await fetch(`http://127.0.0.1:${port}/metrics`).then((answer) => answer.text(), () => '')
      // where the machine tracks connections they all are there; elsewhere none is, and ours are what they would be
      const all = ['node_nf_conntrack_entries', 'node_nf_conntrack_entries_limit', ...statNames.map((name) => `node_nf_conntrack_stat_${name}`)]
      const names = (lines: readonly string[]): string[] => [...new Set(lines.map((line) => line.split(' ')[2]!))].sort()
      expect(names(headers(metricsText(snapshot)))).toEqual(all.sort())
      if (headers(theirs).length > 0) expect(headers(metricsText(snapshot))).toEqual(headers(theirs))
    } finally {
      exporter.kill('SIGKILL')
      rmSync(folder, { recursive: true })
    }
  })
})

describe('sums', () => {
  test('close, and tell what is missing', () => {
    expect(unaccounted(pager.sums)).toBe(0)
    expect(unaccounted({ ...pager.sums, lost: 19 })).toBe(1)
    expect(unaccountedLines(snapshot.lines)).toBe(0)
    expect(unaccountedLines({ ...snapshot.lines, lines: 103 })).toBe(3)
    expect(statusOf(snapshot)).toMatchObject({ unaccounted: { lines: 0, records: { all: 0, [pager.name]: 0 } } })
  })

  test('close in the metrics by their names', () => {
    const found = series(metricsText(snapshot))
    const of = (name: string): number => found[`conntrail_output_${name}{output="pager \\"ü\\"\\\\",type="webhook"}`]!
    expect(of('read_records_total')).toBe(
      of('written_records_total') + of('filtered_records_total') + of('rejected_records_total') + of('held_records') + of('lost_records_total'),
    )
    expect(of('read_records_total')).toBe(100)
    const fates = Object.entries(found).filter(([name]) => name.startsWith('conntrail_lines_total'))
    expect(fates.reduce((sum, [, count]) => sum + count, found['conntrail_held_lines']!)).toBe(found['conntrail_read_lines_total'])
  })
})

describe('health', () => {
  test('is well', () => {
    expect([liveness(snapshot), readiness(snapshot)]).toEqual([
      { ok: true, reasons: [] },
      { ok: true, reasons: [] },
    ])
  })

  test('a receiver that is down is no fault of the program', () => {
    const down = { ...pager, circuit: 'open' as const, failures: 1e6, oldestUnackedSeconds: 1e6, sums: { ...pager.sums, lost: 1e6 } }
    expect(readiness({ ...snapshot, outputs: [down] }).ok).toBe(true)
  })

  test.each<[string, Partial<MetricsSnapshot>, string]>([
    ['a configuration that was refused', { config: { ...snapshot.config, fault: 'x.yaml:1:1: no' } }, 'the configuration was not reloaded: x.yaml:1:1: no'],
    ['an input that is not open', { inputs: [{ ...kernelInput, isOpen: false, reason: 'it needs CAP_SYSLOG' }] }, 'input kernel is not open: it needs CAP_SYSLOG'],
    ['a spool that cannot be written', { outputs: [{ ...pager, name: 'pager', spool: { ...pager.spool!, isWritable: false } }] }, 'the spool of output pager cannot be written'],
    ['a checkpoint that cannot be written', { checkpoint: { ageSeconds: 90, hasFailed: true } }, 'the checkpoint cannot be written'],
  ])('%s makes it unready and no less alive', (_, more, reason) => {
    expect(readiness({ ...snapshot, ...more })).toEqual({ ok: false, reasons: [reason] })
    expect(liveness({ ...snapshot, ...more }).ok).toBe(true)
  })

  test('an input that nobody named may be missing', () => {
    expect(readiness({ ...snapshot, inputs: [{ ...kernelInput, isOpen: false, isOptional: true }] }).ok).toBe(true)
  })

  test('a loop that stands is neither', () => {
    expect(liveness({ ...snapshot, sinceTurnSeconds: 11.5 })).toEqual({ ok: false, reasons: ['the loop has not turned for 11 s'] })
    expect(readiness({ ...snapshot, sinceTurnSeconds: 11.5 }).ok).toBe(false)
  })
})

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

describe('the server', () => {
  let folder: string
  let servers: HttpServer[]
  let said: string[]
  let now: MetricsSnapshot
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'conntrail-http-'))
    servers = []
    said = []
    now = snapshot
  })
  afterEach(async () => {
    for (const server of servers) await server.close()
    rmSync(folder, { recursive: true })
  })

  async function open(listen: Partial<{ host: string; port: number; socket: string }> = {}, take = (): MetricsSnapshot => now): Promise<HttpServer> {
    const server = await openHttp({ listen: { host: '127.0.0.1', port: 0, socket: '', ...listen }, snapshot: take, report: (message) => said.push(message) })
    servers.push(server)
    return server
  }

  function ask(server: HttpServer, path: string, { method = 'GET', host, body = '' }: { method?: string; host?: string; body?: string } = {}): Promise<Answer> {
    const where = server.address.startsWith('unix:') ? { socketPath: server.address.slice(5) } : { host: new URL(server.address).hostname.replace(/^\[|\]$/g, ''), port: new URL(server.address).port }
    return new Promise((resolve, fail) => {
      const sent = request({ ...where, path, method, agent: false, headers: host === undefined ? {} : { Host: host } }, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }))
      })
      sent.on('error', fail)
      sent.end(body)
    })
  }

  /** Bytes as they are; what comes back until the end. */
  function raw(server: HttpServer, bytes: string): Promise<string> {
    return new Promise((resolve) => {
      let text = ''
      const { hostname, port } = new URL(server.address)
      const socket = connect(Number(port), hostname, () => socket.write(bytes, 'latin1'))
      socket.setEncoding('latin1').on('data', (piece: string) => (text += piece))
      socket.on('error', () => {})
      socket.on('close', () => resolve(text))
    })
  }

  test('answers each path', async () => {
    const server = await open()
    const metrics = await ask(server, '/metrics')
    expect(metrics).toMatchObject({ status: 200, body: metricsText(snapshot), headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8', 'cache-control': 'no-store' } })
    expect(await ask(server, '/livez')).toMatchObject({ status: 200, body: 'ok\n' })
    expect(await ask(server, '/readyz?verbose')).toMatchObject({ status: 200, body: 'ok\n' })
    const status = await ask(server, 'http://proxy.example/status')
    expect(status.headers['content-type']).toBe('application/json')
    expect(JSON.parse(status.body)).toEqual(JSON.parse(JSON.stringify(statusOf(snapshot))))
    expect(await ask(server, '/')).toMatchObject({ status: 200, body: 'conntrail\n/metrics\n/livez\n/readyz\n/status\n' })
    expect(await ask(server, '/metrics/')).toMatchObject({ status: 404, body: 'not here; there is /metrics, /livez, /readyz, /status\n' })
  })

  test('asks anew each time', async () => {
    const server = await open()
    now = { ...snapshot, sinceTurnSeconds: 60, checkpoint: { ageSeconds: 60, hasFailed: true } }
    expect(await ask(server, '/livez')).toMatchObject({ status: 503, body: 'the loop has not turned for 60 s\n' })
    expect(await ask(server, '/readyz')).toMatchObject({ status: 503, body: 'the loop has not turned for 60 s\nthe checkpoint cannot be written\n' })
    now = snapshot
    expect((await ask(server, '/readyz')).status).toBe(200)
  })

  test('HEAD is GET without the body', async () => {
    const server = await open()
    const { status, headers: head, body } = await ask(server, '/metrics', { method: 'HEAD' })
    expect([status, head['content-length'], body]).toEqual([200, String(Buffer.byteLength(metricsText(snapshot))), ''])
  })

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('%s is refused', async (method) => {
    const server = await open()
    expect(await ask(server, '/metrics', { method, body: 'x'.repeat(100_000) })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' }, body: 'only GET and HEAD\n' })
  })

  test.each(['127.0.0.1', '127.0.0.1:9469', 'localhost', 'LocalHost.:1', '[::1]:9469', 'x.localhost', '10.1.2.3'])('on loopback Host %j is let in', async (host) => {
    expect((await ask(await open(), '/metrics', { host })).status).toBe(200)
  })

  test.each(['attacker.example', 'attacker.example:9469', '127.0.0.1.attacker.example', 'localhost.attacker.example', 'a@127.0.0.1', '[::1].x'])('on loopback Host %j is refused', async (host) => {
    const answer = await ask(await open(), '/metrics', { host })
    expect(answer.status).toBe(403)
    expect(answer.body).not.toContain('conntrail_')
  })

  test('where others are let in, names are too', async () => {
    expect((await ask(await open({ host: '0.0.0.0' }), '/metrics', { host: 'gw1.example:9469' })).status).toBe(200)
  })

  test('a request of HTTP/1.0 has no Host; one of HTTP/1.1 must', async () => {
    const server = await open()
    expect(await raw(server, 'GET /livez HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 /)
    expect(await raw(server, 'GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
    expect(await raw(server, 'GET /livez HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 403 /)
  })

  test('what is no request, or too large, is ended', async () => {
    const server = await open()
    expect(await raw(server, 'hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
    expect(await raw(server, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /)
    expect((await ask(server, '/livez')).status).toBe(200)
  })

  test('a snapshot that fails is a 500 and is reported once', async () => {
    const server = await open({}, () => {
      throw new Error('a bug')
    })
    expect((await ask(server, '/metrics')).status).toBe(500)
    expect((await ask(server, '/status')).status).toBe(500)
    expect(said).toEqual(['http: a request was answered with 500: a bug'])
  })

  test('a place that is taken is told with what mends it', async () => {
    const { address } = await open()
    const port = Number(new URL(address).port)
    const error = await open({ port }).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ListenError)
    expect((error as Error).message).toBe(`http: listen 127.0.0.1:${port}: another program listens there (ss -ltnp 'sport = :${port}' shows which); stop it, or name another port`)
  })

  test.each([
    [{ host: '192.0.2.77' }, 'this machine does not have that address'],
    [{ host: 'no-such-host.invalid' }, 'the name is not known'],
    [{ socket: '/nowhere/at/all' }, 'its directory is not there'],
    [{ socket: `/tmp/${'x'.repeat(200)}` }, 'expected a path of at most 107 bytes'],
  ])('%j cannot be listened at', async (listen, says) => {
    const error = await open(listen).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ListenError)
    expect((error as Error).message).toContain(says)
  })

  test('a UNIX socket takes any Host, and is gone behind it', async () => {
    const path = join(folder, 'http')
    const server = await open({ socket: path })
    expect(server.address).toBe(`unix:${path}`)
    expect((await ask(server, '/livez', { host: 'anything.example' })).status).toBe(200)
    expect(statSync(path).mode & 0o777).toBe(0o660)
    await server.close()
    expect(existsSync(path)).toBe(false)
  })

  test('a UNIX socket that was left behind is taken over; one in use, or a file, is not', async () => {
    const path = join(folder, 'http')
    const left = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`])
    await new Promise((resolve) => left.on('exit', resolve))
    expect(existsSync(path)).toBe(true)
    const server = await open({ socket: path })
    expect((await ask(server, '/livez')).status).toBe(200)
    await expect(open({ socket: path })).rejects.toThrow('something is there already')
    expect((await ask(server, '/livez')).status).toBe(200)
    writeFileSync(join(folder, 'file'), 'mine')
    await expect(open({ socket: join(folder, 'file') })).rejects.toThrow('something is there already')
    expect(existsSync(join(folder, 'file'))).toBe(true)
  })

  test('closing ends connections that are kept', async () => {
    const server = await open()
    const { hostname, port } = new URL(server.address)
    const socket = connect(Number(port), hostname)
    const ended = new Promise((resolve) => socket.on('close', resolve))
    await new Promise((resolve) => {
      socket.once('data', resolve)
      socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
    })
    await server.close()
    await ended
  })
})
