/**
 * What a condition lets through, against the records as they are printed: every key, on every type of record. The oracle reads the JSON, with paths of its own.
 */
import { BlockList } from 'node:net'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { completeConfig, ConfigErrors } from '../src/config.js'
import { type Condition, ConditionError, conditionKeys, parseCondition } from '../src/conditions.js'
import { alertRules, endReasons, gapCauses, kernelKinds, recordTypes } from '../src/event.js'
import { protocolNames, states } from '../src/kernel.js'
import { runText } from './harness.js'

type Json = Record<string, any>

const T = '[1763805512.390102]'
const flows = [
  `${T}\t    [NEW] tcp      6 120 SYN_SENT src=10.10.1.2 dst=10.10.2.2 sport=53476 dport=443 [UNREPLIED] src=10.10.2.2 dst=10.10.2.1 sport=443 dport=53476 mark=7 id=11`,
  `${T}\t [UPDATE] tcp      6 60 SYN_RECV src=10.10.1.2 dst=10.10.2.2 sport=53476 dport=443 src=10.10.2.2 dst=10.10.2.1 sport=443 dport=53476 mark=7 id=11`,
  `${T}\t [UPDATE] tcp      6 432000 ESTABLISHED src=10.10.1.2 dst=10.10.2.2 sport=53476 dport=443 src=10.10.2.2 dst=10.10.2.1 sport=443 dport=53476 [ASSURED] id=11`,
  `${T}\t [UPDATE] tcp      6 432000 ESTABLISHED src=10.10.1.2 dst=10.10.2.2 sport=53476 dport=443 src=10.10.2.2 dst=10.10.2.1 sport=443 dport=53476 [ASSURED] id=11`,
  `${T}\t[DESTROY] tcp      6 10 CLOSE src=10.10.1.3 dst=10.10.2.2 sport=1024 dport=80 [UNREPLIED] src=10.10.2.2 dst=10.10.1.3 sport=80 dport=1024 id=12`,
  `${T}\t[DESTROY] tcp      6 TIME_WAIT src=10.10.1.2 dst=10.10.2.2 sport=53476 dport=443 src=10.10.2.2 dst=10.10.2.1 sport=443 dport=53476 [ASSURED] id=11`,
  `${T}\t    [NEW] udp      17 30 src=fd00::1 dst=2001:db8::35 sport=65535 dport=53 [UNREPLIED] src=2001:db8::35 dst=fd00::1 sport=53 dport=65535 zone=5 id=13`,
  `${T}\t    [NEW] udp      17 30 src=::ffff:10.10.1.9 dst=2001:db8::35 sport=1 dport=53 [UNREPLIED] src=2001:db8::35 dst=::ffff:10.10.1.9 sport=53 dport=1 id=20`,
  `${T}\t    [NEW] icmp     1 30 src=192.0.2.1 dst=192.0.2.2 type=8 code=0 id=443 zone-orig=9 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 type=0 code=0 id=443 id=14`,
  `${T}\t    [NEW] gre      47 30 src=192.0.2.1 dst=192.0.2.2 srckey=0x50 dstkey=0x1bb [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 srckey=0x1bb dstkey=0x50 id=15`,
  `${T}\t    [NEW] unknown  50 600 src=192.0.2.7 dst=192.0.2.2 [UNREPLIED] src=192.0.2.2 dst=192.0.2.7 id=16`,
  `${T}\t[DESTROY] udp      17 src=10.10.1.4 dst=10.10.2.2 sport=5 dport=6 src=10.10.2.2 dst=10.10.1.4 sport=6 dport=5 id=17 [USERSPACE] portid=7 progname=conntrack`,
  'sctp     132 3600 ESTABLISHED src=10.10.1.5 dst=10.10.2.2 sport=7 dport=8 src=10.10.2.2 dst=10.10.1.5 sport=8 dport=7 [ASSURED] mark=0 zone=5 use=1',
]
const others = [
  `${T}\t    [NEW] 300 proto=6 src=10.66.1.2 dst=10.66.2.2 sport=0 dport=20010 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.66.1.2 master-dst=10.66.2.2 sport=50466 dport=21 PERMANENT class=0 helper=ftp`,
  `${T}\t[DESTROY] 300 proto=17 src=fd00::7 dst=fd00::8 sport=0 dport=5060 mask-src=ffff:: mask-dst=ffff:: sport=0 dport=65535 master-src=fd00::7 master-dst=fd00::8 sport=5060 dport=5060 class=0 helper=sip`,
  '4,337,525051587,-;nf_conntrack: nf_conntrack: table full in netns 4026532246, dropping packet',
  '4,338,525051588,-;net_ratelimit: 5 callbacks suppressed',
  '4,339,525051589,-;nf_ct_proto_6: invalid packet ignored in state SYN_SENT IN= OUT= SRC=10.10.1.2 DST=10.10.2.2 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=53476 DPT=443 SEQ=1 ACK=0 WINDOW=1 RES=0x00 SYN URGP=0',
  '4,340,525051590,-;fw: IN=eth0 OUT=eth1 SRC=2001:db8:0000:0000:0000:0000:0000:0035 DST=fd00:0000:0000:0000:0000:0000:0000:0001 LEN=60 TC=0 HOPLIMIT=63 FLOWLBL=0 PROTO=UDP SPT=53 DPT=65535 LEN=20',
  '4,341,525051591,-;fw: IN=eth0 OUT= SRC=192.0.2.7 DST=192.0.2.2 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ESP SPI=0x1',
  '4,342,525051592,-;nf_conntrack version 0.5.0 (65536 buckets, 262144 max)',
  'WARNING: We have hit ENOBUFS! We are losing events.',
  'cpu=0   	found=0 invalid=1 insert=0 insert_failed=0 drop=3 early_drop=4 error=0 search_restart=0',
  'udp      17 30 src=10.10.1.2 dst=',
]
const text = `${[...flows, ...others].join('\n')}\n`
const boot = { microseconds: 1763805000e6, source: 3 } as const

const origins: readonly { readonly host: string; readonly input: string; readonly netns: number; readonly netnsName: string }[] = [
  { host: 'gw1', input: 'flows', netns: 4026531833, netnsName: 'blue' },
  { host: '', input: '', netns: 0, netnsName: '' },
]

async function linesOf(origin: (typeof origins)[number], where: readonly Condition[]): Promise<string[]> {
  return (await runText(text, { emit: recordTypes, route: { where }, boot, context: origin })).lines
}

const get = (record: Json, path: string): any => path.split('.').reduce<any>((value, key) => value?.[key], record)
const packetNumbers: Json = { ...Object.fromEntries(Object.entries(protocolNames).map(([number, name]) => [name, Number(number)])), esp: 50 }
const parts = ['orig', 'reply', 'tuple', 'master', 'packet']

/** All values of a key that a record shows, as texts. */
const shown: Record<string, (record: Json) => unknown[]> = {
  ...Object.fromEntries(['type', 'host', 'input', 'netns_name', 'event', 'family', 'state', 'ctstate', 'rule', 'severity', 'status', 'kind', 'cause'].map((key) => [key, (record: Json) => [record[key]]])),
  netns: (record) => [record['netns'], record['netns_name']],
  protocol: (record) => [record['protocol_number'] ?? packetNumbers[get(record, 'packet.protocol')]],
  transition: (record) => (record['type'] === 'flow' ? ['transition' in record] : []),
  from: (record) => (record['type'] === 'flow' ? [get(record, 'transition.from') ?? undefined] : []),
  to: (record) => (record['type'] === 'flow' ? [get(record, 'transition.to')] : []),
  reason: (record) => [get(record, 'end.reason')],
  src: (record) => ['orig', 'tuple', 'packet'].map((part) => get(record, `${part}.src`)),
  dst: (record) => ['orig', 'tuple', 'packet'].map((part) => get(record, `${part}.dst`)),
  address: (record) => parts.flatMap((part) => [get(record, `${part}.src`), get(record, `${part}.dst`)]),
  sport: (record) => ['orig', 'tuple', 'packet'].map((part) => get(record, `${part}.sport`)),
  dport: (record) => ['orig', 'tuple', 'packet'].map((part) => get(record, `${part}.dport`)),
  port: (record) => parts.flatMap((part) => [get(record, `${part}.sport`), get(record, `${part}.dport`)]),
  zone: (record) => {
    if (record['type'] !== 'flow' && record['type'] !== 'expect') return []
    const zones = [record['zone'], get(record, 'orig.zone'), get(record, 'reply.zone')].filter((zone) => zone !== undefined)
    return zones.length === 0 ? [0] : zones
  },
}

/** Values that no record of the text has. */
const absent: Record<string, readonly string[]> = {
  host: ['gw2', 'undefined'],
  input: ['undefined', '-'],
  netns: ['undefined', '1', 'red'],
  netns_name: ['undefined', '4026531833'],
  family: ['ipv4', 'ipv6'],
  protocol: ['7'],
  state: states,
  from: states,
  to: states,
  ctstate: ['RELATED'],
  reason: endReasons,
  kind: kernelKinds,
  cause: gapCauses,
  rule: alertRules,
  severity: ['info'],
  status: ['resolved'],
  zone: ['0', '77'],
  port: ['0', '77'],
  transition: ['true', 'false'],
  address: ['203.0.113.1', '::ffff:10.10.1.2', 'fd00:0:0:0:0:0:0:1'],
  src: ['203.0.113.1', '::'],
  type: recordTypes,
}

describe('a condition sees what the printed record shows', () => {
  test.each(origins)('with %o, for every key and every type', async (origin) => {
    const all = await linesOf(origin, [])
    const records = all.map((line) => JSON.parse(line) as Json)
    expect([...new Set(records.map(({ type }) => type as string))].sort()).toEqual([...recordTypes].sort())
    expect(Object.keys(shown).sort()).toEqual(conditionKeys.map(({ name }) => name).sort())
    let compared = 0
    for (const { name, types } of conditionKeys) {
      const values = new Set([...records.flatMap((record) => shown[name]!(record)).filter((value) => value !== undefined).map(String), ...(absent[name] ?? [])])
      for (const value of values) {
        const mapped = /^::ffff:(.*\..*)$/.exec(value)?.[1]
        const same = (found: unknown): boolean =>
          found !== undefined && (String(found) === value || (/address|src|dst/.test(name) && (found === mapped || `::ffff:${String(found)}` === value || found === `::ffff:${value}`)) || (value === 'fd00:0:0:0:0:0:0:1' && found === 'fd00::1'))
        const wanted = all.filter((_, i) => shown[name]!(records[i]!).some(same))
        const condition = parseCondition(`${name}=${value}`)
        expect([name, value, await linesOf(origin, [condition])]).toEqual([name, value, wanted])
        // the same of a record that is read back, for which only its JSON is there
        expect(all.filter((_, i) => condition.record(records[i]!))).toEqual(wanted)
        for (const line of wanted) expect([...types, name]).toContain((JSON.parse(line) as Json)['type'])
        compared += wanted.length
      }
    }
    expect(compared).toBeGreaterThan(200)
  })

  test('networks are those of node:net', async () => {
    const all = (await linesOf(origins[0]!, [])).map((line) => JSON.parse(line) as Json)
    for (const network of ['10.10.1.0/24', '10.10.1.2/8', '0.0.0.0/0', '::/0', 'fd00::/8', '2001:db8::35/127', '::ffff:10.10.0.0/112', '192.0.2.0/30', '10.10.1.2/31', '2001:db8::/1']) {
      const [address, bits] = network.split('/') as [string, string]
      const list = new BlockList()
      const mapped = address.replace('::ffff:', '')
      if (mapped.includes(':')) list.addSubnet(address, Number(bits), 'ipv6')
      else list.addSubnet(mapped, mapped === address ? Number(bits) : Number(bits) - 96, 'ipv4')
      for (const key of ['src', 'dst', 'address']) {
        const fits = (value: unknown): boolean => typeof value === 'string' && (value.includes(':') || !mapped.includes(':')) && list.check(value, value.includes(':') ? 'ipv6' : 'ipv4')
        const wanted = all.filter((record) => shown[key]!(record).some(fits))
        const found = (await linesOf(origins[0]!, [parseCondition(`${key}=${network}`)])).map((line) => JSON.parse(line) as Json)
        expect([key, network, found]).toEqual([key, network, wanted])
      }
    }
  })

  test.each([
    ['dport=1024-65535', (record: Json) => shown['dport']!(record).some((port) => Number(port) >= 1024)],
    ['sport=0-1023,65535', (record: Json) => shown['sport']!(record).some((port) => port !== undefined && (Number(port) < 1024 || port === 65535))],
    ['protocol=6-17', (record: Json) => shown['protocol']!(record).some((number) => Number(number) >= 6 && Number(number) <= 17)],
    ['zone=1-10', (record: Json) => shown['zone']!(record).some((zone) => Number(zone) >= 1 && Number(zone) <= 10)],
    ['STATE=established Protocol=TCP event=UPDATE', (record: Json) => record['state'] === 'ESTABLISHED' && record['protocol'] === 'tcp' && record['event'] === 'update'],
    ['ctstate=invalid', (record: Json) => record['ctstate'] === 'INVALID'],
    ['type=Gap,ALERT', (record: Json) => record['type'] === 'gap' || record['type'] === 'alert'],
    ['transition=TRUE', (record: Json) => record['type'] === 'flow' && 'transition' in record],
  ] as const)('%s', async (expr, wanted) => {
    const all = await linesOf(origins[0]!, [])
    const fitting = all.filter((line) => wanted(JSON.parse(line) as Json))
    expect(fitting.length).toBeGreaterThan(0)
    expect(await linesOf(origins[0]!, [parseCondition(expr)])).toEqual(fitting)
  })
})

describe('the command line and a configuration take the same', () => {
  const pool = [
    ...['established', 'ESTABLISHED', 'TCP', 'tcp', '6', '0', '-1', '255', '256', '65535', '65536', '1024-65535', '5-4', '1-', '-5', '4294967295', '4294967296', 'new', 'NEW', 'Entry', 'ipv4', 'IPV6'],
    ...['10.0.0.0/8', '010.0.0.1', '::ffff:10.0.0.1', '::ffff:10.0.0.0/104', 'fe80::1%eth0', 'fd00::/129', '10.0.0.1/33', '10.0.0.1/', 'true', 'FALSE', 'yes', 'table_full', 'table_pressure'],
    ...['Table_Filling', 'kmsg_overrun', 'gap', 'firing', 'Critical', 'blue', 'INVALID', 'refused', 'unreplied', 'x-y', 'undefined', 'null', '1e3', '0x10', '6-17'],
  ]

  test.each(conditionKeys.map(({ name }) => name))('as %s', async (name) => {
    const refused = pool.map((value) => messageOf(() => parseCondition(`${name}=${value}`), ConditionError) !== '')
    for (const where of [pool.map((value) => ({ [name]: value })), pool.map((value) => ({ [name]: [value] }))]) {
      const errors = await completeConfig({ where, inputs: Object.fromEntries(pool.map((value) => [value, { type: 'file', path: '/x' }])) }, 'x', () => '', {}).then(
        () => [],
        (error: Error) => (error instanceof ConfigErrors ? error.errors : Promise.reject(error)),
      )
      expect(pool.filter((_, i) => errors.some(({ path }) => path.startsWith(`where[${i}]`)))).toEqual(pool.filter((_, i) => refused[i]))
    }
  })

  test.each([
    ['type=gap event=new', 'no record fits: type is gap; event is on flow, expect'],
    ['rule=table_full cause=restart', 'no record fits: rule is on alert; cause is on gap'],
    ['rule=table_pressure', 'rule=table_pressure: no record has it: nothing in this release makes it; expected table_full or expect_table_full'],
    ['stat=NEW', 'stat=NEW: there is no key stat; did you mean "state"?'],
    ['state=ESTABLISED', 'state=ESTABLISED: expected a state such as ESTABLISHED or TIME_WAIT; did you mean "ESTABLISHED"?'],
    ['dport', 'dport: expected key=value'],
    ['dport=443,', 'dport=443,: expected key=value'],
    ['netns=0', 'netns=0: expected the inode number or the name of a network namespace'],
    ['src=fe80::1%eth0', 'src=fe80::1%eth0: expected an address or network such as 10.0.0.0/8 or fd00::/8'],
  ])('%s is refused', (expr, says) => {
    expect(messageOf(() => parseCondition(expr), ConditionError)).toBe(says)
  })

  /** Where the words of a list are made: every one of them in some source that is not the list. */
  test('each word is one that something makes', () => {
    const src = new URL('../src/', import.meta.url)
    const code = (readdirSync(src, { recursive: true }) as string[])
      .filter((name) => name.endsWith('.ts') && !/^(event|conditions|record-schema)\.ts$|^config\//.test(name))
      .map((name) => readFileSync(new URL(name, src), 'utf8'))
      .join('\n')
    const unmade = [...alertRules, ...gapCauses, ...kernelKinds].filter((word) => !code.includes(`'${word}'`))
    expect(unmade).toEqual([])
  })
})

function messageOf(run: () => unknown, kind: typeof ConditionError): string {
  try {
    run()
    return ''
  } catch (error) {
    if (error instanceof kind) return error.message
    throw error
  }
}
