/**
 * The JSON Schema of records against what the program writes: every golden file, and runs that mix every kind of line. Closed, so that a key or a word that the
 * schema does not know fails too; open, as it is printed, it lets pass what later releases may add.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { afterEach, describe, expect, test } from 'vitest'
import { recordSchema } from '../src/record-schema.js'
import { recordTypes } from '../src/event.js'
import { cleanUp, fixture, program, type Record_, run } from './process-harness.js'

afterEach(cleanUp)

const fixtures = new URL('../fixtures/', import.meta.url)
const goldens = readdirSync(fixtures).filter((name) => name.endsWith('.want.ndjson'))

const compile = (schema: object): ValidateFunction => new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true, formats: { 'date-time': true } }).compile(schema)

/** Only what is known now: known words alone, and no further key. */
const closed = JSON.parse(JSON.stringify(recordSchema), (_key, value: unknown) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const { examples, ...rest } = value as { examples?: string[]; type?: unknown; additionalProperties?: unknown }
  const words = examples === undefined ? {} : { enum: Array.isArray(rest.type) ? [...examples, null] : examples }
  return { ...rest, ...words, ...(rest.type === 'object' ? { additionalProperties: false } : {}), ...('additionalProperties' in rest ? { additionalProperties: rest.additionalProperties } : {}) }
}) as { properties: object; additionalProperties?: boolean }
// what the whole has not got, the type has
delete closed.additionalProperties
const isKnown = compile(closed)
const isRecord = compile(recordSchema)

/** '' or what is wrong with the first record that is wrong. */
function faults(records: readonly Record_[]): string {
  for (const record of records) {
    for (const validate of [isKnown, isRecord]) if (!validate(record)) return `${JSON.stringify(validate.errors?.map(({ instancePath, message, params }) => [instancePath, message, params]))} in ${JSON.stringify(record)}`
  }
  return ''
}

const parse = (text: string): Record_[] => text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record_)

describe('fits the schema', () => {
  test('there is something to look at', () => {
    expect(goldens.length).toBeGreaterThan(20)
  })

  test.each(goldens)('%s', (name) => {
    expect(faults(parse(readFileSync(new URL(name, fixtures), 'utf8')))).toBe('')
  })

  test('what every kind of line becomes, in one pipe', async () => {
    const kinds = ['incident.E-timestamp-id', 'incident.table', 'kernel-log.incident.kmsg', 'kernel-log.rich.kmsg', 'kernel-log.journal.journalctl-export', 'ftp.E-expect-timestamp', 'quiet.proc-stat', 'invented']
    const broken = `udp      17 30 src=10.10.1.2 dst=\n[NEW] ${'x'.repeat(2000)}\n`
    const loaded = '{"time":"2026-11-22T10:00:00.000000Z","type":"kernel","v":1,"kind":"loaded","message":"nf_conntrack version 0.5.0 (16384 buckets, 65536 max)","buckets":16384,"max":65536}\n'
    const { records, done } = await run(['--rid', '--host', 'gw1', '--boot-time', '2026-11-22T09:50:00Z', '--emit', recordTypes.join()], Buffer.concat([...kinds.map(fixture), Buffer.from(broken + loaded)]))
    expect(faults(records)).toBe('')
    expect(records.some(({ truncated }) => truncated === true)).toBe(true)
    expect([...new Set(records.map(({ type }) => type as string))].sort()).toEqual([...recordTypes].sort())
    expect(done!.written).toBe(records.length)
  })

  test('what several inputs become, merged by time', async () => {
    const names = ['incident.E-timestamp-id.linux-6.18.conntrack-1.4.7.in', 'incident.table.linux-6.18.in', 'kernel-log.incident.kmsg.linux-6.18.in']
    const { records } = await run(['run', '--once', ...names.flatMap((name) => ['-i', new URL(name, fixtures).pathname]), '--boot-time', '2026-11-22T09:50:20Z'], '')
    expect(faults(records)).toBe('')
    expect(records.some(({ type, drops, top }) => type === 'alert' && drops !== undefined && top !== undefined)).toBe(true)
    expect(new Set(records.map(({ rid }) => rid as string)).size).toBe(records.length)
    // the samples are records of ours, read back: which host they are of is not known
    expect(records.every(({ type, host }) => (host === undefined) === (type === 'table'))).toBe(true)
  })
})

describe('the schema', () => {
  test('is what the program prints', () => {
    const { stdout, status } = spawnSync(process.execPath, [program, 'schema', 'record'], { encoding: 'utf8' })
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toEqual(JSON.parse(JSON.stringify(recordSchema)))
  })

  test('knows every type of record', () => {
    expect(Object.keys(recordSchema['$defs'] as object)).toEqual(recordTypes)
  })

  test('says of every key what it is', () => {
    const bare: string[] = []
    let keys = 0
    const look = (schema: Record_, path: string): void => {
      for (const [key, property] of Object.entries((schema['properties'] ?? {}) as Record<string, Record_>)) {
        keys++
        if (property['type'] === undefined || typeof property['description'] !== 'string') bare.push(`${path}.${key}`)
        look(property, `${path}.${key}`)
      }
      if (schema['items'] !== undefined) look(schema['items'] as Record_, `${path}[]`)
    }
    for (const [type, schema] of Object.entries(recordSchema['$defs'] as Record<string, Record_>)) look(schema, type)
    expect(bare).toEqual([])
    expect(keys).toBeGreaterThan(200)
  })

  const flow = parse(readFileSync(new URL(goldens.find((name) => name.startsWith('nat.E-timestamp-id.linux'))!, fixtures), 'utf8'))[0]!

  test.each<[string, Record_]>([
    ['a later key', { ...flow, later: { key: 1 } }],
    ['a key within', { ...flow, orig: { ...flow['orig'], later: 1 } }],
    ['a later word', { ...flow, event: 'destroy', end: { reason: 'later' } }],
    ['a later type', { time: flow['time'], type: 'later', v: 1 }],
  ])('lets %s pass', (_, record) => {
    expect(isRecord(record)).toBe(true)
    expect(isKnown(record)).toBe(false)
  })

  test.each<[string, Record_]>([
    ['no version', { ...flow, v: undefined }],
    ['another version', { ...flow, v: 2 }],
    ['a time without zone', { ...flow, time: '2026-11-22T10:00:00.000000' }],
    ['milliseconds', { ...flow, time: '2026-11-22T10:00:00.000Z' }],
    ['a port as a text', { ...flow, orig: { ...flow['orig'], sport: '443' } }],
    ['an address that is missing', { ...flow, reply: { dst: '10.10.1.2' } }],
    ['an event that is none', { ...flow, event: 'later' }],
    ['null for absent', { ...flow, mark: null }],
    ['a count below 0', { ...flow, timeout: -1 }],
  ])('refuses %s', (_, record) => {
    expect(isRecord(JSON.parse(JSON.stringify(record)))).toBe(false)
  })
})
