/** Logs of several hosts in one: the host that a line names is the record's, and each host has episodes of its own. */
import { writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { afterEach, describe, expect, test } from 'vitest'
import { HOSTS_MAX, type HostsOptions, OTHER_HOSTS, TableFullOfHosts } from '../src/detectors/table-full-hosts.js'
import { TableFull } from '../src/detectors/table-full.js'
import { type Alert, type KernelEvent, timeOf } from '../src/event.js'
import { recordsOf } from './harness.js'
import { cleanUp, output, program, type Record_, run, scratch, start } from './process-harness.js'

afterEach(cleanUp)

const FULL = 'nf_conntrack: nf_conntrack: table full, dropping packet'
const suppressed = (count: number): string => `net_ratelimit: ${count} callbacks suppressed`
const at = (second: number): string => `2026-07-08T10:03:${String(second).padStart(2, '0')}.000000Z`
const syslog = (second: number, host: string, text: string): string => `Jul  8 10:03:${String(second).padStart(2, '0')} ${host} kernel: ${text}\n`

const ofType = (records: readonly Record_[], type: string): Record_[] => records.filter((record) => record['type'] === type)
const hostsOf = (records: readonly Record_[], type: string): unknown[] => ofType(records, type).map(({ host }) => host as unknown)
/** The last notice of each episode: host, logged, suppressed, estimate. */
function episodes(records: readonly Record_[]): unknown[][] {
  const last = new Map(ofType(records, 'alert').map((alert) => [alert['episode'], alert]))
  return [...last.values()].map(({ host, drops }) => [host, drops.logged, drops.suppressed, drops.estimate])
}

describe('a line names its host', () => {
  const journal = (host: string, second: number): Record<string, string> => ({
    __CURSOR: `s=a${second};i=${second}`,
    __REALTIME_TIMESTAMP: String(Date.parse(at(second)) * 1000),
    _TRANSPORT: 'kernel',
    SYSLOG_FACILITY: '0',
    _HOSTNAME: host,
    MESSAGE: FULL,
  })
  const forms: Readonly<Record<string, (second: number, host: string) => string>> = {
    'RFC 3164': (second, host) => syslog(second, host, FULL),
    'RFC 3164, day with one blank': (second, host) => syslog(second, host, FULL).replace('Jul  8', 'Jul 8'),
    'RFC 5424': (second, host) => `<4>1 ${at(second)} ${host} kernel - - - ${FULL}\n`,
    'ISO stamps': (second, host) => `${at(second)} ${host} kernel: [  525.051587] ${FULL}\n`,
    BusyBox: (second, host) => `Jul  8 10:03:0${second} ${host} kern.warn kernel: ${FULL}\n`,
    'journalctl -o short-monotonic': (second, host) => `[    ${second}.000000] ${host} kernel: ${FULL}\n`,
    'journalctl -o json': (second, host) => `${JSON.stringify(journal(host, second))}\n`,
    'journalctl -o export': (second, host) => `${Object.entries(journal(host, second)).map(([key, value]) => `${key}=${value}\n`).join('')}\n`,
    'a shipper, host as text': (second, host) => `${JSON.stringify({ timestamp: at(second), host, message: FULL })}\n`,
    'a shipper, host as an object': (second, host) => `${JSON.stringify({ '@timestamp': at(second), host: { name: host }, message: FULL })}\n`,
    'a syslog within a shipper\'s JSON: the inner one wins': (second, host) => `${JSON.stringify({ '@timestamp': at(second), host: 'relay', message: syslog(second, host, FULL).trimEnd() })}\n`,
  }

  test.each(Object.keys(forms))('%s', async (name) => {
    const records = await recordsOf(forms[name]!(1, 'centos8') + forms[name]!(2, 'centos6') + forms[name]!(3, 'centos8'))
    expect(hostsOf(records, 'kernel')).toEqual(['centos8', 'centos6', 'centos8'])
    expect(episodes(records).map(([host, logged]) => [host, logged])).toEqual([
      ['centos8', 2],
      ['centos6', 1],
    ])
  })

  test.each(['-', '?', '(none)', 'unknown', 'localhost', 'localhost.localdomain'])('but %s is none', async (host) => {
    const records = await recordsOf(`<4>1 ${at(1)} ${host} kernel - - - ${FULL}\n`)
    expect(records.map((record) => record['host'] as unknown)).toEqual([undefined, undefined, undefined])
  })

  test('what a logger lost is lost on that host', async () => {
    const records = await recordsOf(`${syslog(1, 'gw1', FULL)}Jul  8 10:03:02 gw2 rsyslogd: imklog: 5 messages lost due to rate-limiting\nJul  8 10:03:02 gw2 systemd-journald[12]: Missed 81 kernel messages\n`)
    expect(hostsOf(records, 'gap')).toEqual(['gw2', 'gw2'])
  })

  test('a host with its domain and without is one; two domains are two', async () => {
    const records = await recordsOf(['gw1', 'gw1.example.com', 'GW1', 'gw2.example.com', 'gw2.example.org', 'gw', '10.0.0.1', '10.0.0.2'].map((host, i) => syslog(i, host, FULL)).join(''))
    expect(episodes(records).map(([host, logged]) => [host, logged])).toEqual([
      ['gw1', 3],
      ['gw2.example.com', 1],
      ['gw2.example.org', 1],
      ['gw', 1],
      ['10.0.0.1', 1],
      ['10.0.0.2', 1],
    ])
  })
})

test('each host has a rate limiter of its own', async () => {
  const records = await recordsOf(
    [
      ...[syslog(0, 'gw1', FULL), syslog(1, 'gw2', FULL), syslog(2, 'gw1', FULL)],
      ...[syslog(6, 'gw1', suppressed(100)), syslog(6, 'gw1', FULL), syslog(7, 'gw2', suppressed(7)), syslog(7, 'gw2', FULL)],
    ].join(''),
  )
  expect(episodes(records)).toEqual([
    ['gw1', 3, 100, 103],
    ['gw2', 2, 7, 9],
  ])
})

test('a logger\'s "last message repeated" is of the host that it names', async () => {
  const records = await recordsOf(`${syslog(0, 'gw1', FULL)}${syslog(1, 'gw2', FULL)}Jul  8 10:03:02 gw2 last message repeated 4 times\n`)
  expect(episodes(records).map(([host, logged]) => [host, logged])).toEqual([
    ['gw1', 1],
    ['gw2', 5],
  ])
})

test('beside the log of one host, events that name none are of the same story', async () => {
  const sec = Date.parse(at(0)) / 1000
  const flow = (event: string, second: number, rest: string): string => `[${sec + second}.000000]\t${event} udp      17 ${rest} src=10.66.1.9 dst=10.66.2.2 sport=1 dport=53 [UNREPLIED] src=10.66.2.2 dst=10.66.2.1 sport=53 dport=1\n`
  const records = await recordsOf(flow('    [NEW]', 1, '30') + syslog(2, 'gw1', FULL) + syslog(2, 'gw2', FULL) + flow('[DESTROY]', 4, '25'))
  const [own, other] = ofType(records, 'alert')
  expect(own).toMatchObject({ host: 'gw1', top: [{ by: 'src', value: '10.66.1.9' }, {}, {}, {}] })
  expect(other).toMatchObject({ host: 'gw2' })
  expect(other).not.toHaveProperty('top')
  expect(ofType(records, 'flow').map(({ host, end }) => [host, end?.reason])).toEqual([
    [undefined, undefined],
    [undefined, 'evicted'],
  ])
})

describe('run', () => {
  async function told(text: string, ...more: string[]): Promise<Record_[]> {
    const path = scratch('messages')
    writeFileSync(path, text)
    const found = await output(start(process.execPath, [program, 'run', '--once', '--timezone', 'UTC', '-i', path, ...more], ['ignore', 'pipe', 'ignore']))
    return found.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record_)
  }

  test('records of this host keep its name, whatever of it a line says', async () => {
    const own = ['gw1', 'gw1.example.com', 'localhost', hostname()]
    const records = await told([...own, 'gw2'].map((host, i) => syslog(i, host, FULL)).join(''), '--host', 'gw1')
    expect(hostsOf(records, 'kernel')).toEqual(['gw1', 'gw1', 'gw1', 'gw1', 'gw2'])
    expect(episodes(records).map(([host, logged]) => [host, logged])).toEqual([
      ['gw1', 4],
      ['gw2', 1],
    ])
    expect(new Set(records.map(({ rid }) => rid as string)).size).toBe(records.length)
  })

  test('host= sees it', async () => {
    const records = await told(syslog(0, 'gw1', FULL) + syslog(1, 'gw2', FULL), '--where', 'host=gw2')
    expect(records.map(({ type, host }) => [type as string, host as string])).toEqual([['kernel', 'gw2'], ['alert', 'gw2'], ['alert', 'gw2']])
  })

  test('and of flows that another line carries', async () => {
    const event = (host: string): string => `${at(1)} ${host} conntrack[12]:     [NEW] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1\n`
    const records = await told(event('gw1') + event('gw2'), '--where', 'host=gw2')
    expect(hostsOf(records, 'flow')).toEqual(['gw2'])
  })

  test('a summary says which of them', async () => {
    const { stderr } = await run(['--summary'], syslog(0, 'gw1', FULL) + syslog(1, 'gw2', FULL))
    expect(stderr).toMatch(/^ {2}gw1: conntrack table full.*\n {2}gw2: conntrack table full/m)
  })
})

describe('the detectors', () => {
  const line = (host: string, second: number, more: Partial<KernelEvent> = {}): KernelEvent => ({
    ...{ ...timeOf(1.78e15 + second * 1e6), timeSource: 0, kind: 'table_full', host, netns: 0, priority: 4, facility: 0, seq: -1, monotonic: -1 },
    ...{ message: FULL, repeat: 0, count: -1, buckets: -1, max: -1, packet: null, position: '', trusted: false },
    ...more,
  })
  const UNKNOWN = { namesNamespaces: null, initialNetns: 0 }

  function begin(hosts: Partial<HostsOptions> = {}): { readonly of: TableFullOfHosts; readonly alerts: Alert[]; readonly hear: (event: KernelEvent) => void } {
    const alerts: Alert[] = []
    const of = new TableFullOfHosts({ emit: (alert) => alerts.push(alert), holders: null, boot: 'boot' }, { names: ['gw1'], adopts: false, ...hosts })
    return { of, alerts, hear: (event) => (of.advance(event), of.kernel(event, UNKNOWN)) }
  }

  test.each([false, true])('open episodes of several hosts go on over a restart; the own one is taken from what is read: %s', (adopts) => {
    const before = begin({ adopts })
    before.hear(line('gw1', 0))
    before.hear(line('gw2', 1))
    const after = begin({ adopts })
    after.of.restore(JSON.parse(JSON.stringify(before.of.save())))
    expect(after.of.openEpisodes).toEqual(before.of.openEpisodes)
    after.hear(line('gw2.example.com', 2))
    after.hear(line('gw1', 3))
    after.of.advance(timeOf(1.78e15 + 90e6))
    expect(after.alerts.map(({ host, status, episode, drops }) => [host, status, episode, drops?.logged])).toEqual(
      before.alerts.map(({ host, episode }) => [host, 'resolved', episode, 2]),
    )
    expect(new Set(before.alerts.map(({ episode }) => episode)).size).toBe(2)
  })

  test('a checkpoint of a release that knew no hosts is this host\'s', () => {
    const alerts: Alert[] = []
    const old = new TableFull({ emit: (alert) => alerts.push(alert), holders: null, boot: 'boot' })
    old.advance(line('', 0))
    old.kernel(line('', 0), UNKNOWN)
    const { of } = begin()
    of.restore(old.save())
    expect(of.openEpisodes.map(({ host, episode }) => [host, episode])).toEqual([['', alerts[0]!.episode]])
  })

  test('new rules hold for every host, also for one that comes later', () => {
    const { of, alerts, hear } = begin()
    hear(line('gw2', 0))
    of.setRules({ quietSec: 10 })
    hear(line('gw3', 1))
    of.advance(timeOf(1.78e15 + 15e6))
    expect(alerts.filter(({ status }) => status === 'resolved').map(({ host }) => host)).toEqual(['gw2', 'gw3'])
  })

  test('a clock that was set is set for all of them', () => {
    const { of, alerts, hear } = begin()
    hear(line('gw2', 0))
    of.clockStepped(3600e6)
    of.advance(timeOf(1.78e15 + 3630e6))
    expect(of.openEpisodes.map(({ host }) => host)).toEqual(['gw2'])
    of.advance(timeOf(1.78e15 + 3661e6))
    expect(alerts.at(-1)).toMatchObject({ host: 'gw2', status: 'resolved' })
  })

  test('a hundred thousand hosts that somebody made up: so many have a detector, the others share one that says so, and every line counts', () => {
    const { of, alerts, hear } = begin()
    for (let i = 0; i < 100_000; i++) hear(line(`forged-${i}`, i / 10_000))
    expect(of.openEpisodes).toHaveLength(HOSTS_MAX + 1)
    expect(JSON.stringify(of.save()).length).toBeLessThan(HOSTS_MAX * 2048)
    of.finish()
    const last = alerts.filter(({ final }) => final)
    expect(last.map(({ drops }) => drops!.logged).reduce((a, b) => a + b)).toBe(100_000)
    expect(last.at(-1)!).toMatchObject({ host: OTHER_HOSTS, drops: { logged: 100_000 - HOSTS_MAX } })
    expect(last.at(-1)!.summary).toContain(`on further hosts (only ${HOSTS_MAX} are told apart at once)`)
  })

  test('of many hosts those that have nothing open make room', () => {
    const { of, hear } = begin()
    for (let i = 0; i < 3 * HOSTS_MAX; i++) hear(line(`gw-${i}`, 100 * i))
    expect(of.openEpisodes.map(({ host }) => host)).toEqual([`gw-${3 * HOSTS_MAX - 1}`])
  })
})
