/**
 * The shippers' files: each is read by its own program where that is installed (promtool, rsyslogd, syslog-ng), which then carries our records; the others by a
 * parser of their language, and held against what matters: the record under the key conntrail, rid as the id, few labels, columns that our records have.
 */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { recordSchema } from '../src/record-schema.js'
import { cleanUp, fixture, freePort, program, type Record_, run, scratch, sleep, start, until } from './process-harness.js'

const folder = fileURLToPath(new URL('../fixtures/shippers/', import.meta.url))
const text = (name: string): string => readFileSync(folder + name, 'utf8')
const yaml = (name: string): Record_ => parse(text(name)) as Record_
const isThere = (command: string): boolean => spawnSync(command, ['--version']).status === 0

const SHIPPED = '/var/log/conntrail/records.ndjson'
const types = recordSchema['$defs'] as Record<string, Record_>

afterEach(cleanUp)

test('all read the file that the configuration writes', () => {
  const { status, stderr } = spawnSync(process.execPath, [program, 'check', `${folder}conntrail.yaml`], { encoding: 'utf8' })
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  expect(yaml('conntrail.yaml')['outputs'].records.path).toBe(SHIPPED)
  const readers = readdirSync(folder).filter((name) => !/^(conntrail|prometheus)/.test(name))
  expect(readers.length).toBeGreaterThan(5)
  for (const name of readers) expect(text(name)).toContain(SHIPPED)
})

describe('Vector', () => {
  test.each(['vector.yaml', 'vector-loki.yaml'])('%s takes whole lines, keeps what is no record, and puts nothing of a record at the root', (name) => {
    const { sources, transforms, sinks } = yaml(name)
    expect(sources.conntrail_file).toMatchObject({ type: 'file', include: [`${SHIPPED}*`], exclude: expect.arrayContaining(['/var/log/conntrail/*.gz']) })
    expect(sources.conntrail_file.max_line_bytes).toBeGreaterThan(2 ** 20)
    const { source, ...remap } = transforms.conntrail_record
    expect(remap).toEqual({ type: 'remap', inputs: ['conntrail_file'], drop_on_error: true, reroute_dropped: true })
    const [, event] = /^\. = (\{.*\})$/m.exec(source as string)!
    expect([...event!.matchAll(/"(\w+)":/g)].map(([, key]) => key).filter((key) => key !== 'message' && key !== 'timestamp')).toEqual(['conntrail'])
    expect(Object.values(sinks as Record<string, Record_>).map(({ inputs }) => inputs[0] as string).sort()).toEqual(['conntrail_record', 'conntrail_record.dropped'])
  })

  test('gives Elasticsearch the rid as the id', () => {
    expect(yaml('vector.yaml')['sinks'].elasticsearch).toMatchObject({ id_key: 'conntrail.rid', bulk: { action: 'index' } })
  })

  test('gives Loki two labels, and the line as it is', () => {
    const { labels, encoding } = yaml('vector-loki.yaml')['sinks'].loki
    expect(labels).toEqual({ host: '{{ conntrail.host }}', type: '{{ conntrail.type }}' })
    expect(encoding).toEqual({ codec: 'text' })
  })
})

test('Filebeat puts the record under its key, with the rid as the id', () => {
  const { 'filebeat.inputs': inputs, processors } = yaml('filebeat.yml')
  expect(inputs).toHaveLength(1)
  expect(inputs[0].parsers).toEqual([{ ndjson: { target: 'conntrail', document_id: 'rid', add_error_key: true } }])
  expect(inputs[0]['prospector.scanner.exclude_files'].some((pattern: string) => new RegExp(pattern).test(`${SHIPPED}.20261122T101443Z.gz`))).toBe(true)
  expect(processors[0].timestamp.field).toBe('conntrail.time')
})

test('Fluent Bit puts the record under its key, with the rid as the id', () => {
  const { parsers, pipeline } = yaml('fluent-bit.yaml')
  expect(parsers).toMatchObject([{ name: 'conntrail', format: 'json', time_key: 'time', time_keep: true }])
  expect(pipeline.inputs).toMatchObject([{ name: 'tail', parser: 'conntrail', tag: 'conntrail' }])
  expect(pipeline.filters).toEqual([{ name: 'nest', match: 'conntrail', operation: 'nest', wildcard: '*', nest_under: 'conntrail' }])
  expect(pipeline.outputs).toMatchObject([{ match: 'conntrail', id_key: "$conntrail['rid']" }])
})

describe('ClickHouse', () => {
  const sql = text('clickhouse.sql')
  const columns = [...sql.matchAll(/^ {4}`(\w+)` (.*?),?$/gm)].map(([, name, type]) => ({ name: name!, type: type! }))
  const inTypes = (name: string): Record_[] => Object.values(types).flatMap(({ properties }) => (properties[name] === undefined ? [] : [properties[name] as Record_]))
  const kindOf = ({ type }: Record_): string => (Array.isArray(type) ? (type[0] as string) : (type as string))
  const fits = (type: string, key: Record_): boolean => {
    if (type.startsWith('Map(')) return kindOf(key) === 'object'
    if (type.startsWith('Array(')) return kindOf(key) === 'array'
    if (type.includes('DateTime64(6')) return key['format'] === 'date-time'
    if (/\bU?Int\d+\b/.test(type)) return kindOf(key) === 'integer'
    if (type.includes('Float64')) return kindOf(key) === 'number'
    return kindOf(key) === 'string' && key['format'] === undefined
  }

  test('keeps one row of each rid', () => {
    expect(sql).toMatch(/^ENGINE = ReplacingMergeTree\nORDER BY rid$/m)
    expect(sql).toContain('--date_time_input_format best_effort')
  })

  test('has columns that records have, of the type that they have there', () => {
    expect(columns.length).toBeGreaterThan(50)
    expect(new Set(columns.map(({ name }) => name)).size).toBe(columns.length)
    for (const { name, type } of columns) {
      const keys = inTypes(name)
      expect([name, keys.length > 0]).toEqual([name, true])
      if (!type.startsWith('Tuple(')) {
        expect([name, type, keys.every((key) => fits(type, key))]).toEqual([name, type, true])
        continue
      }
      const members = [...type.slice(6, -1).matchAll(/`?(\w+)`? (Nullable\(\w+\))/g)].map(([, member, its]) => ({ member: member!, its: its! }))
      expect(members.length).toBeGreaterThan(2)
      const own = keys.filter((key) => kindOf(key) === 'object')
      for (const { member, its } of members) expect([name, member, own.some((key) => key['properties'][member] !== undefined && fits(its, key['properties'][member] as Record_))]).toEqual([name, member, true])
    }
  })
})

describe('Prometheus', () => {
  test('asks for metrics that the program has', () => {
    const { groups } = yaml('prometheus-rules.yaml')
    const expressions = (groups as Record_[]).flatMap(({ rules }) => (rules as Record_[]).map(({ expr }) => expr as string))
    const names = new Set(expressions.flatMap((expression) => [...expression.matchAll(/\bconntrail_\w+/g)].map(([name]) => name)))
    const source = readFileSync(new URL('../src/metrics.ts', import.meta.url), 'utf8')
    expect(names.size).toBeGreaterThan(6)
    for (const name of names) expect(source).toContain(`'${name}'`)
  })

  test.runIf(isThere('promtool')).each([
    ['rules', ['check', 'rules', 'prometheus-rules.yaml']],
    ['configuration', ['check', 'config', 'prometheus.yaml']],
    ['alerts, firing and silent as they should be', ['test', 'rules', 'prometheus-rules.test.yaml']],
  ])('has good %s', (_, args) => {
    const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: folder, encoding: 'utf8' })
    expect({ status, said: status === 0 ? '' : stdout + stderr }).toEqual({ status: 0, said: '' })
  })
})

test.runIf(isThere('prometheus'))('Prometheus scrapes the program, and fires while a table is full', async () => {
  const [own, its] = [await freePort(), await freePort()]
  const log = scratch('kmsg.txt')
  writeFileSync(log, fixture('kernel-log.incident.kmsg'))
  // its last line, 1,493 s after boot, is of just now
  const config = { boot_time: new Date(Date.now() - 1_494_000).toISOString(), inputs: { log: { type: 'file', path: log, from: 'start' } }, outputs: { out: { type: 'file', path: scratch('out.ndjson') } }, http: { listen: `127.0.0.1:${own}` } }
  writeFileSync(scratch('conntrail.json'), JSON.stringify(config))
  start(process.execPath, [program, 'run', '-c', scratch('conntrail.json')], 'ignore')
  writeFileSync(scratch('prometheus.yaml'), `global: { scrape_interval: 1s, evaluation_interval: 1s }\n${text('prometheus.yaml').replace('127.0.0.1:9469', `127.0.0.1:${own}`)}`)
  writeFileSync(scratch('prometheus-rules.yaml'), text('prometheus-rules.yaml'))
  const prometheus = start('prometheus', [`--config.file=${scratch('prometheus.yaml')}`, `--storage.tsdb.path=${scratch('tsdb')}`, `--web.listen-address=127.0.0.1:${its}`], 'ignore')
  const alerts = async (): Promise<Record_[]> => {
    const answer = await fetch(`http://127.0.0.1:${its}/api/v1/alerts`).catch(() => null)
    return answer?.ok === true ? ((await answer.json()) as Record_)['data'].alerts : []
  }
  let firing: Record_[] = []
  while ((firing = (await alerts()).filter(({ state }) => state === 'firing')).length === 0) await sleep(200)
  expect(firing.map(({ labels }) => labels as Record_)).toEqual([{ alertname: 'ConntrackTableFull', severity: 'critical', instance: `127.0.0.1:${own}`, netns: '4026532246' }])
  // it writes until it is gone, into what is cleaned up then
  prometheus.kill('SIGKILL')
  await new Promise((resolve) => prometheus.on('close', resolve))
})

describe('carries every record, under its key, as it is:', () => {
  let records: string[] = []

  beforeEach(async () => {
    const kinds = ['kernel-log.incident.kmsg', 'incident.table', 'ftp.E-expect-timestamp', 'invented', 'stderr.E-labels-no-names'].map(fixture)
    records = (await run(['--rid', '--host', 'gw1', '--boot-time', '2026-11-22T09:50:20Z'], Buffer.concat(kinds))).lines
    mkdirSync(scratch('log/conntrail'), { recursive: true })
  })

  /** The shipper's file with its paths below the test's directory. */
  function configured(name: string): string {
    const path = scratch(name)
    writeFileSync(path, text(name).replaceAll('/var/log/', `${scratch('log')}/`).replaceAll('/var/spool/rsyslog', scratch('')))
    return path
  }

  const shipped = (): string[] => (existsSync(scratch('log/conntrail-shipped.ndjson')) ? readFileSync(scratch('log/conntrail-shipped.ndjson'), 'utf8').split('\n').slice(0, -1) : [])

  async function carries(shipper: ChildProcess): Promise<void> {
    const said: Buffer[] = []
    shipper.stderr!.on('data', (piece: Buffer) => said.push(piece))
    shipper.stdout!.resume()
    // half of it is there at the start, the rest comes
    const half = records.length >> 1
    await until(() => shipped().length >= half || shipper.exitCode !== null)
    writeFileSync(scratch('log/conntrail/records.ndjson'), records.slice(half).map((line) => `${line}\n`).join(''), { flag: 'a' })
    await until(() => shipped().length >= records.length || shipper.exitCode !== null)
    expect(Buffer.concat(said).toString()).toBe('')
    expect(shipped()).toEqual(records.map((line) => `{"conntrail":${line}}`))
  }

  const begin = (): void => writeFileSync(scratch('log/conntrail/records.ndjson'), records.slice(0, records.length >> 1).map((line) => `${line}\n`).join(''))

  test.runIf(isThere('rsyslogd') || spawnSync('rsyslogd', ['-v']).status === 0)('rsyslog', async () => {
    begin()
    const path = configured('rsyslog.conf')
    const { status, stderr } = spawnSync('rsyslogd', ['-N1', '-f', path], { encoding: 'utf8' })
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' })
    await carries(start('rsyslogd', ['-n', '-f', path, '-i', scratch('rsyslog.pid')], ['ignore', 'pipe', 'pipe']))
  })

  test.runIf(isThere('syslog-ng'))('syslog-ng', async () => {
    begin()
    const path = configured('syslog-ng.conf')
    const { status, stderr } = spawnSync('syslog-ng', ['-s', '-f', path], { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    await carries(start('syslog-ng', ['-F', '-f', path, '--persist-file', scratch('persist'), '-p', scratch('syslog-ng.pid'), '-c', scratch('syslog-ng.ctl')], ['ignore', 'pipe', 'pipe']))
  })
})
