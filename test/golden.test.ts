/**
 * Golden pairs: for each fixtures/NAME.in its fixtures/NAME.want.ndjson, byte for byte, and the slow reference agrees.
 * Together they hold every key of flow, expect and gap records, every reason of an end and every source of a time; a test counts them.
 * Written anew by: UPDATE_GOLDEN=1 npx vitest run test/golden.test.ts
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { differences, formCases } from './compare.js'
import { type Options, runPieces } from './harness.js'

const fixtures = new URL('../fixtures/', import.meta.url)
const read = (name: string): Buffer => readFileSync(new URL(name, fixtures))

const captured = [
  'enobufs-after.E-timestamp-id-stderr',
  'ftp.E-expect-xml',
  'ftp.E-save',
  'ftp.E-timestamp-id-and-E-expect-timestamp-one-pipe',
  'ftp.E-timestamp-id-extended',
  'ftp.L-id-extended',
  'ftp.proc-expect',
  'labels.E-timestamp-id-labels',
  'labels.E-xml-labels',
  'nat.E-timestamp-id',
  'nat.E-xml-timestamp-ktimestamp',
  'nat.L-full',
  'port-reuse.E-timestamp-id',
  'protocols.E-expect-timestamp',
  'protocols.E-timestamp-id-extended',
  'protocols.E-xml',
  'protocols.L-save',
  'protocols.proc',
  'reset.E-timestamp-id-ktimestamp-extended',
  'stderr.E-timestamp-id-buffer-size',
  'stderr.L-few-xml',
  'stderr.L-unprivileged',
  'zones.E-timestamp-id',
  'zones.L-xml',
  'zones.proc',
].map((name) => `${name}.linux-6.18.conntrack-1.4.7`)

/** Examples of other kernels and tools, made by hand after their sources. */
const invented = 'invented'

/** Inputs that people posted, beside those that the reference knows. */
const otherCases = readdirSync(fixtures)
  .filter((name) => /^case\..*\.in$/.test(name))
  .map((name) => name.slice(0, -3))
  .filter((name) => !formCases.includes(name) && existsSync(new URL(`${name}.want.ndjson`, fixtures)))

/** What a limit on live flows costs; the reference knows no limit. */
const limited = { name: 'nat.E-timestamp-id.linux-6.18.conntrack-1.4.7', want: 'nat.E-timestamp-id.flows-max-4', options: { flowsMax: 4 } }

const wants: string[] = []

async function golden(name: string, want: string, options: Options): Promise<void> {
  const got = (await runPieces([read(`${name}.in`)], options)).text
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(new URL(`${want}.want.ndjson`, fixtures), got)
  const wanted = read(`${want}.want.ndjson`).toString('utf8')
  wants.push(wanted)
  expect(got).toBe(wanted)
}

describe('the records are, byte for byte, those of', () => {
  test.each([...captured, ...formCases, invented])('%s', async (name) => {
    expect(await differences(read(`${name}.in`))).toBe('')
    await golden(name, name, {})
  })

  test.each(otherCases)('%s', async (name) => {
    await golden(name, name, {})
  })

  test(limited.want, async () => {
    await golden(limited.name, limited.want, limited.options)
  })
})

describe('the golden records hold', () => {
  const tuple = ['src', 'dst', 'sport', 'dport', 'type', 'code', 'id', 'srckey', 'dstkey', 'zone', 'packets', 'bytes']
  const flow = [
    ...['time', 'type', 'v', 'event=new', 'event=update', 'event=destroy', 'event=entry', 'family=ipv4', 'family=ipv6', 'protocol', 'protocol_number', 'timeout', 'state'],
    ...['tcp', 'udp', 'udplite', 'sctp', 'dccp', 'gre', 'icmp', 'icmpv6', 'unknown'].map((name) => `protocol=${name}`),
    ...['NEW', 'ESTABLISHED', 'RELATED'].map((word) => `ctstate=${word}`),
    ...['orig', 'reply'].flatMap((side) => tuple.map((key) => `${side}.${key}`)),
    ...['unreplied=true', 'assured=true', 'offload=sw', 'offload=hw', 'mark', 'zone', 'secmark', 'secctx', 'helper', 'labels=[]', 'labels', 'use', 'id', 'start', 'stop', 'delta_time', 'flow'],
    ...['extra.l7proto', 'extra.attrs=', 'extra.slan=true', 'extra.RTCACHE', 'by={}', 'by.portid', 'by.progname', 'transition.from=null', 'transition.from', 'transition.to', 'transition.after', 'time_source=local', 'time_source=received'],
    ...['snat', 'dnat', 'both'].map((kind) => `nat.kind=${kind}`),
    ...['src', 'sport', 'dst', 'dport', 'id', 'srckey', 'dstkey'].map((key) => `nat.${key}`),
    ...['snat.src', 'snat.sport', 'dnat.dst', 'dnat.dport', 'both.src', 'both.sport', 'both.dst', 'both.dport'].map((key) => `nat:${key}`),
    // `evicted` needs word of a full table from another input
    ...['deleted', 'refused', 'reset', 'closed', 'unknown', 'expired', 'removed'].map((reason) => `end.reason=${reason}`),
    ...['end.duration', 'end.idle'],
  ]
  const expectation = [
    ...['time', 'type', 'v', 'event=new', 'event=destroy', 'event=entry', 'family=ipv4', 'family=ipv6', 'protocol', 'protocol_number', 'timeout', 'zone'],
    ...['flags', 'class', 'helper', 'time_source=local', 'time_source=received'],
    ...['tuple', 'mask', 'master'].flatMap((part) => ['src', 'dst', 'sport', 'dport'].map((key) => `${part}.${key}`)),
    ...['tuple.srckey', 'tuple.dstkey'],
  ]
  const gap = ['time', 'type', 'v', 'cause=netlink_overrun', 'cause=tracker_limit', 'count', 'at_least', 'from', 'to', 'time_source=received']

  test.each([
    ['flow', flow],
    ['expect', expectation],
    ['gap', gap],
  ])('every key of %s records', (type, keys) => {
    const found = new Set<string>()
    for (const line of wants.join('').split('\n')) {
      if (line === '') continue
      const record = JSON.parse(line) as Record<string, unknown>
      if (record['type'] !== type) continue
      count(record, '', found)
      const nat = record['nat'] as Record<string, unknown> | undefined
      if (nat !== undefined) for (const key of Object.keys(nat)) found.add(`nat:${String(nat['kind'])}.${key}`)
    }
    expect(keys.filter((key) => !found.has(key))).toEqual([])
  })

  function count(part: object, prefix: string, found: Set<string>): void {
    for (const [key, value] of Object.entries(part) as [string, unknown][]) {
      found.add(prefix + key).add(`${prefix}${key}=${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) count(value, `${prefix}${key}.`, found)
    }
  }
})
