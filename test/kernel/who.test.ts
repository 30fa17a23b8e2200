/**
 * Three quiet clients and one who floods the table and stops long before the episode is over: every notice names him, to the end, whatever it is told by. The
 * Alertmanager is a real one; all receivers are beside the program, over a loopback that is not tracked.
 */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import type { Record_ } from '../process-harness.js'
import { A, kernelTests, type Lab, required, run, until, withLab } from './namespaces.js'
import { quietKernel, ROOM, SOCKET_BYTES, Watching, withSetting } from './watching.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
/** The lock of the machine may be someone else's for long. */
const TIMEOUT = 400_000
const hasAlertmanager = spawnSync('sh', ['-c', 'command -v prometheus-alertmanager && command -v amtool']).status === 0
const isPossible = (kernelTests === 'run' && hasAlertmanager) || required
const LIMIT = 400
const FLOODER = '10.66.1.9'
const QUIET = ['10.66.1.21', '10.66.1.22', '10.66.1.23']
/** Flows that each of these has all the time. */
const QUIET_FLOWS = 6
const [AM, SLACK, TOLD] = [9093, 8080, 8081]
const LINKS = { runbook_url: 'https://wiki.example/conntrack', generator_url: 'http://gw1.example:9469/status' }

/** Prints the body of each request on a line of its own. */
const RECEIVER = `require('node:http').createServer((request, response) => {
  let body = ''
  request.setEncoding('utf8').on('data', (text) => (body += text)).on('end', () => {
    console.log(JSON.stringify(body))
    response.writeHead(200).end()
  })
}).listen(+process.argv[1], '127.0.0.1', () => console.log('ready'))`

/** One datagram from one port of an address to each of so many ports; with a pause, again and again until its stdin ends. */
const SENDER = `const [from, to, first, n, pause] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
let i = 0
const next = () => i < n ? socket.send('x', +first + i++, to, () => setImmediate(next)) : +pause ? setTimeout(() => { i = 0; next() }, +pause) : socket.close()
socket.bind(0, from, next)
if (+pause) process.stdin.on('end', () => process.exit()).resume()`

const send = (from: string, n: number, pause = 0): string[] => [process.execPath, '-e', SENDER, from, A.server, '20000', String(n), String(pause)]

interface Posted {
  readonly labels: Record<string, string>
  readonly annotations: Record<string, string>
  readonly status: string
  readonly fingerprint: string
  readonly generatorURL: string
}

async function receiver(lab: Lab, port: number): Promise<string[]> {
  const bodies: string[] = []
  const lines = createInterface({ input: lab.startIn('router', process.execPath, '-e', RECEIVER, String(port)).stdout })
  await once(lines, 'line')
  lines.on('line', (line) => bodies.push(JSON.parse(line) as string))
  return bodies
}

test.runIf(isPossible)('who filled the table is named by every notice, though he stopped before its end', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await lab.nft('router', 'table inet own { chain output { type filter hook output priority raw; oif lo notrack; }\nchain forward { type filter hook forward priority 0; ct state invalid drop; }\n}')
    await lab.nft('server', 'table inet filter { chain input { type filter hook input priority 0; udp dport 10000-60000 drop; }\n}')
    for (const address of [FLOODER, ...QUIET]) await run('ip', ['-n', lab.name('client'), 'addr', 'add', `${address}/24`, 'dev', 'c0'])
    const [slack, told] = [await receiver(lab, SLACK), await receiver(lab, TOLD)]
    const route = { receiver: 'test', group_by: ['...'], group_wait: '50ms', group_interval: '200ms', repeat_interval: '1h' }
    writeFileSync(join(lab.dir, 'am.yml'), JSON.stringify({ route, receivers: [{ name: 'test', webhook_configs: [{ url: `http://127.0.0.1:${TOLD}/`, send_resolved: true }] }] }))
    const api = `http://127.0.0.1:${AM}`
    const am = lab.start('ip', ['netns', 'exec', lab.name('router'), 'prometheus-alertmanager', `--config.file=${join(lab.dir, 'am.yml')}`, `--storage.path=${join(lab.dir, 'am')}`, `--web.listen-address=127.0.0.1:${AM}`, '--cluster.listen-address='])
    am.stderr.resume()
    const amtool = (...args: string[]): Promise<string> => lab.exec('router', 'amtool', `--alertmanager.url=${api}`, ...args)
    await until('the Alertmanager', 20, () => amtool('config', 'show').then(() => true, () => false))

    await withSetting(SOCKET_BYTES, ROOM, () => withSetting(MAX, LIMIT, async () => {
      const path = join(lab.dir, 'who.json')
      const when = { type: 'alert' }
      writeFileSync(path, JSON.stringify({
        version: 1,
        host: 'gw1',
        inputs: { kmsg: { type: 'kmsg', from: 'now' }, table: { type: 'table' }, conntrack: { type: 'conntrack' } },
        rules: { table_full: { quiet: '10s', repeat: '1s' } },
        outputs: {
          out: { type: 'stdout' },
          slack: { type: 'webhook', url: `http://127.0.0.1:${SLACK}/`, body: 'slack', notify: 'all', when, runbook_url: LINKS.runbook_url },
          pager: { type: 'webhook', url: `${api}/api/v2/alerts`, body: 'alertmanager', when, ...LINKS },
        },
      }))
      const watching = await new Watching(lab, 'router', '-c', path).isOpen(['kmsg', 'table', 'conntrack'])
      for (const address of QUIET) lab.startIn('client', ...send(address, QUIET_FLOWS, 1000))
      await until('the quiet clients', 20, () => Promise.resolve(watching.counters()['entries']! >= QUIET.length * QUIET_FLOWS))
      await quietKernel()
      const from = Date.now()
      await lab.exec('client', ...send(FLOODER, 3000))
      const over = Date.now()
      const alerts = (): Record_[] => watching.of('alert')
      await until('the first notice', 10, () => Promise.resolve(alerts().length > 0))
      await until('it is at the Alertmanager', 10, async () => (await amtool('alert', 'query', 'alertname=ConntrackTableFull', '-o', 'extended')).includes(FLOODER))
      // his flows end by themselves within five seconds, long before the episode does
      await until('only quiet clients are left', 30, async () => (await lab.exec('router', 'conntrack', '-L', '-s', FLOODER)).trim() === '')
      await until('the end', 60, () => Promise.resolve(alerts().at(-1)?.['status'] === 'resolved'))
      await until('it is told', 20, () => Promise.resolve(told.some((body) => body.includes('"status":"resolved"'))))
      expect((await watching.stop()).status).toBe(0)

      expect(alerts().map(({ status }) => status as string)).toEqual([...Array.from({ length: alerts().length - 1 }, () => 'firing'), 'resolved'])
      expect(alerts().length).toBeGreaterThanOrEqual(2)
      for (const alert of alerts()) {
        const top = alert['top'] as Record_[]
        expect(new Set(top.map(({ by }) => by as string))).toEqual(new Set(['src', 'dst', 'service', 'state']))
        expect(top[0]).toMatchObject({ by: 'src', value: FLOODER })
        expect(top.find(({ by }) => by === 'dst')).toMatchObject({ value: A.server })
        expect(top.find(({ by }) => by === 'service')!['value']).toMatch(/^10\.66\.2\.2:2\d{4}\/udp$/)
        for (const row of top) {
          expect(row['entries']).toBeLessThanOrEqual(LIMIT + cpus().length)
          // the kernel's count at that moment
          expect(row['entries'] / row['share']).toBeLessThanOrEqual((LIMIT + cpus().length) * (1 + 0.00005 / row['share']))
          expect(row).toMatchObject({ unreplied: row['entries'], new: expect.any(Number) as number })
          expect(row).not.toHaveProperty('known')
        }
        expect(top[0]!['share']).toBeGreaterThan(0.5)
        expect(alert['summary']).toMatch(new RegExp(`; ${FLOODER} held \\d+ %$`))
        // by the clock of the event, a little after which it was read
        expect(Date.parse(alert['top_at'] as string)).toBeGreaterThan(from - 1000)
        expect(Date.parse(alert['top_at'] as string)).toBeLessThan(over + 5000)
      }

      expect(slack).toHaveLength(alerts().length)
      for (const body of slack) {
        const { text, blocks } = JSON.parse(body) as { text: string; blocks: object[] }
        expect(text).toContain(`${FLOODER} held`)
        expect(JSON.stringify(blocks.at(-1))).toContain(`from ${FLOODER} `)
        expect(JSON.stringify(blocks.at(-1))).toContain(LINKS.runbook_url)
      }

      const posted = told.flatMap((body) => (JSON.parse(body) as { alerts: Posted[] }).alerts)
      expect([...new Set(posted.map(({ status }) => status))]).toEqual(['firing', 'resolved'])
      expect(new Set(posted.map(({ fingerprint }) => fingerprint)).size).toBe(1)
      const netns = alerts()[0]!['netns'] as number
      for (const { labels, annotations, generatorURL } of posted) {
        expect(labels).toEqual({ alertname: 'ConntrackTableFull', severity: 'critical', instance: 'gw1', netns_name: lab.name('router') })
        expect(annotations).toMatchObject({ netns: String(netns), runbook_url: LINKS.runbook_url })
        for (const key of ['summary', 'description', 'top']) expect(annotations[key]).toContain(FLOODER)
        expect(generatorURL).toBe(LINKS.generator_url)
        // what it says to look at can be looked at
        const [, command] = /Look at its entries: (.*?)\. If/.exec(annotations['description']!)!
        await run('sh', ['-ec', command!])
        expect(command).toBe(`ip netns exec ${lab.name('router')} conntrack -L -s ${FLOODER}`)
      }
      console.info(`${alerts().length} notices, the first ${Math.round(Date.parse(alerts()[0]!['time'] as string) - from)} ms after the flood began: ${alerts().at(-1)!['summary'] as string}\n${posted.at(-1)!.annotations['top']}\n${posted.at(-1)!.annotations['description']}`)
    }))
    expect(readFileSync(MAX, 'utf8').trim()).not.toBe(String(LIMIT))
  })
})
