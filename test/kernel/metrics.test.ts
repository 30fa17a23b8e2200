/**
 * /metrics beside the real programs: node_exporter in the same namespace at the same moment, while nothing moves, has the same numbers under the same names; promtool has
 * no complaint; and a Prometheus scrapes both.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { A, kernelTests, type Lab, required, until, withLab } from './namespaces.js'
import { Watching, withSetting } from './watching.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
const LIMIT = 200
/** The lock of the machine may be someone else's for long. */
const TIMEOUT = 400_000
const OURS = '127.0.0.1:9469'
const THEIRS = '127.0.0.1:9100'
const PROMETHEUS = '127.0.0.1:9090'
const PREFIX = 'node_nf_conntrack_'

const isPossible = kernelTests === 'run' || required
const absent = ['prometheus', 'promtool', 'prometheus-node-exporter'].filter((name) => spawnSync(name, ['--version']).status !== 0)
if (absent.length > 0) console.warn(`metrics beside the real programs are left out: ${absent.join(', ')} missing (Debian: prometheus prometheus-node-exporter)`)

/** Prints the pages as soon as two looks at them, one after the other, show the same of connection tracking. */
const SCRAPE = `const get = () => Promise.all(process.argv.slice(1).map(async (host) => (await fetch('http://' + host + '/metrics')).text()))
const look = async (before) => {
  const texts = await get()
  const now = JSON.stringify(texts.map((text) => text.split('\\n').filter((line) => line.includes('${PREFIX}'))))
  if (now === before) console.log(JSON.stringify(texts))
  else setTimeout(() => void look(now), 100)
}
void look('')`

/** What an address answers to each of the paths. */
const ASK = `const [host, ...paths] = process.argv.slice(1)
void Promise.all(paths.map(async (path) => (await fetch('http://' + host + path)).json())).then((all) => console.log(JSON.stringify(all)), () => console.log('null'))`

const FLOOD = `const socket = require('node:dgram').createSocket('udp4')
let i = 0
const next = () => i < 600 ? socket.send('x', 10000 + i++, '${A.server}', () => setImmediate(next)) : socket.close()
socket.bind(0, next)`

interface Family {
  readonly type: string
  readonly value: number
}

/** Those of a page that node_exporter's collector for connection tracking gives. */
function families(text: string): Record<string, Family> {
  const types = new Map(Array.from(text.matchAll(/^# TYPE (\S+) (\S+)$/gm), ([, name, type]) => [name!, type!]))
  return Object.fromEntries(Array.from(text.matchAll(new RegExp(`^(${PREFIX}\\S+) (\\S+)$`, 'gm')), ([, name, value]) => [name!, { type: types.get(name!) ?? '', value: Number(value) }]))
}

/** A table that was full: dropped packets, entries that made room, one that a process made; they stay for minutes, and what asks for pages is not tracked. */
async function busy(lab: Lab): Promise<void> {
  await lab.nft('router', `table inet filter {
    chain before { type filter hook prerouting priority -300; iif lo notrack; }
    chain own { type filter hook output priority -300; oif lo notrack; }
    chain forward { type filter hook forward priority 0; ct state invalid drop; }
  }`)
  await lab.nft('server', 'table inet filter { chain input { type filter hook input priority 0; udp dport 10000-60000 drop; }\n}')
  await lab.exec('router', 'sh', '-ec', 'cd /proc/sys/net/netfilter; echo 600 >nf_conntrack_udp_timeout; echo 600 >nf_conntrack_udp_timeout_stream')
  await lab.exec('router', 'conntrack', '-I', '-p', 'udp', '-s', A.client, '-d', A.server, '--sport', '7', '--dport', '7', '-t', '600')
  // only meanwhile: above 95 % of its limit the kernel goes on throwing entries out
  await withSetting(MAX, LIMIT, () => lab.exec('client', process.execPath, '-e', FLOOD))
}

test.runIf(isPossible && absent.length === 0)('node_exporter has the same numbers, promtool no complaint, and Prometheus takes them', { timeout: TIMEOUT }, async () => {
  expect(kernelTests).toBe('run')
  await withLab(async (lab) => {
    const config = join(lab.dir, 'c.json')
    writeFileSync(config, JSON.stringify({ version: 1, inputs: { level: { type: 'table' } }, outputs: { out: { type: 'stdout' } }, http: { listen: OURS } }))
    const watching = await new Watching(lab, 'router', '-c', config).isOpen(['table'])
    lab.startIn('router', 'prometheus-node-exporter', '--collector.disable-defaults', '--collector.conntrack', `--web.listen-address=${THEIRS}`, '--log.level=error')
    await until('node_exporter listens', 60, async () => (await lab.exec('router', 'ss', '-Hltn', `src ${THEIRS}`)).trim() !== '')
    await busy(lab)

    const [ours, theirs] = JSON.parse(await lab.exec('router', process.execPath, '-e', SCRAPE, OURS, THEIRS)) as [string, string]
    const [own, wanted] = [families(ours), families(theirs)]
    expect(Object.keys(wanted).length).toBeGreaterThanOrEqual(10)
    expect(own).toEqual(wanted)
    // and there was something to compare
    for (const name of ['entries', 'entries_limit', 'stat_drop', 'stat_early_drop', 'stat_insert']) expect(own[PREFIX + name]!.value, name).toBeGreaterThan(0)
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: ours, encoding: 'utf8' })
    expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' })

    await scrapedByPrometheus(lab, own)
    expect((await watching.stop()).status).toBe(0)
  })
})

async function scrapedByPrometheus(lab: Lab, own: Readonly<Record<string, Family>>): Promise<void> {
  const config = join(lab.dir, 'prometheus.yml')
  const jobs = { conntrail: OURS, node: THEIRS }
  const data = join(lab.dir, 'prometheus')
  mkdirSync(data)
  // YAML takes JSON
  writeFileSync(config, JSON.stringify({ global: { scrape_interval: '1s', scrape_timeout: '1s' }, scrape_configs: Object.entries(jobs).map(([name, target]) => ({ job_name: name, static_configs: [{ targets: [target] }] })) }))
  lab.startIn('router', 'prometheus', `--config.file=${config}`, `--storage.tsdb.path=${data}`, `--web.listen-address=${PROMETHEUS}`, '--log.level=error')
  const query = (text: string): string => `/api/v1/query?query=${encodeURIComponent(text)}`
  interface Vector {
    readonly data: { readonly result: readonly { readonly metric: Record<string, string>; readonly value: readonly [number, string] }[] }
  }
  let answers: readonly [Vector, Vector, Vector] | null = null
  const isUp = (job: string): boolean => answers?.[0].data.result.some(({ metric, value }) => metric['job'] === job && value[1] === '1') === true
  await until('Prometheus has scraped both', 60, async () => {
    answers = JSON.parse(await lab.exec('router', process.execPath, '-e', ASK, PROMETHEUS, query('up'), query(`{__name__=~"${PREFIX}.+"}`), query('conntrail_table_entries'))) as typeof answers
    return Object.keys(jobs).every(isUp) && answers![2].data.result.length > 0
  })
  const values = (job: string): Record<string, number> =>
    Object.fromEntries(answers![1].data.result.filter(({ metric }) => metric['job'] === job).map(({ metric, value }) => [metric['__name__']!, Number(value[1])]))
  expect(values('conntrail')).toEqual(Object.fromEntries(Object.entries(own).map(([name, { value }]) => [name, value])))
  expect(values('node')).toEqual(values('conntrail'))
  expect(answers![2].data.result.map(({ value }) => Number(value[1]))).toEqual([own[`${PREFIX}entries`]!.value])
}
