/** The reference itself, held to lines whose records were written by hand from the contract. */
import { describe, expect, test } from 'vitest'
import { reference, type ReferenceResult } from './reference.js'

const RECEIVED = '2026-11-22T12:00:00.000000Z'

function run(text: string | Uint8Array, timezone = 'UTC'): ReferenceResult {
  const input = typeof text === 'string' ? new TextEncoder().encode(text) : text
  const result = reference(input, { received: RECEIVED, timezone })
  const { lines, flows, expects, kernel, notes, ignored, rejected } = result.sums
  expect(flows + expects + kernel + notes + ignored + rejected).toBe(lines)
  expect(result.rejects.length).toBe(rejected)
  expect(result.sums.bytes).toBe(input.length)
  return result
}

function records(...lines: string[]): Record<string, unknown>[] {
  const result = run(`${lines.join('\n')}\n`)
  expect(result.rejects).toEqual([])
  return result.records
}

/** Equal, and with the keys in the same order. */
function same(actual: unknown, wanted: unknown): void {
  expect(actual).toEqual(wanted)
  const text = (value: unknown): string => JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part))
  expect(text(actual)).toBe(text(wanted))
}

const HEAD = { time: RECEIVED, type: 'flow', v: 1 }
const IPV4_TCP = { family: 'ipv4', protocol: 'tcp', protocol_number: 6 }

describe('forms: text of the tool', () => {
  test('a whole TCP life with time stamps and ids', () => {
    const tuple = 'src=10.77.0.2 dst=10.78.0.2 sport=50510 dport=80'
    const back = 'src=10.78.0.2 dst=10.77.0.2 sport=80 dport=50510'
    const [first, second, , last] = records(
      `[1795341562.324145]\t    [NEW] tcp      6 120 SYN_SENT ${tuple} [UNREPLIED] ${back} id=77`,
      `[1795341562.324245]\t [UPDATE] tcp      6 60 SYN_RECV ${tuple} ${back} id=77`,
      `[1795341563.324245]\t [UPDATE] tcp      6 120 TIME_WAIT ${tuple} ${back} [ASSURED] id=77`,
      `[1795341683.324345]\t[DESTROY] tcp      6 TIME_WAIT ${tuple} packets=6 bytes=323 ${back} packets=4 bytes=18446744073709551615 [ASSURED] delta-time=121 id=77`,
    )
    const orig = { src: '10.77.0.2', dst: '10.78.0.2', sport: 50510, dport: 80 }
    const reply = { src: '10.78.0.2', dst: '10.77.0.2', sport: 80, dport: 50510 }
    same(first, {
      time: '2026-11-22T09:59:22.324145Z', type: 'flow', v: 1, event: 'new', ...IPV4_TCP, timeout: 120,
      state: 'SYN_SENT', ctstate: 'NEW', orig, reply, unreplied: true, id: 77, flow: first!['flow'],
      transition: { from: null, to: 'SYN_SENT' },
    })
    same(second!['transition'], { from: 'SYN_SENT', to: 'SYN_RECV', after: 0.0001 })
    expect(second!['ctstate']).toBe('ESTABLISHED')
    same(last, {
      time: '2026-11-22T10:01:23.324345Z', type: 'flow', v: 1, event: 'destroy', ...IPV4_TCP,
      state: 'TIME_WAIT', ctstate: 'ESTABLISHED',
      orig: { ...orig, packets: 6n, bytes: 323n }, reply: { ...reply, packets: 4n, bytes: 18446744073709551615n },
      assured: true, id: 77, delta_time: 121, flow: first!['flow'],
      end: { reason: 'closed', duration: 121.0002, idle: 120.0001 },
    })
  })

  test('microseconds without leading zeros', () => {
    const line = 'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1'
    const [one, two] = records(`[1795341562.5     ]\t    [NEW] ${line}`, `[1795341562.3458  ]\t [UPDATE] ${line}`)
    expect([one!['time'], two!['time']]).toEqual(['2026-11-22T09:59:22.000005Z', '2026-11-22T09:59:22.003458Z'])
  })

  test('a row with everything: start, both ids, labels with blanks', () => {
    const [record] = records(
      'ipv4     2 tcp      6 431998 ESTABLISHED src=10.77.0.2 dst=10.78.0.2 sport=33124 dport=21 packets=9 bytes=512 src=10.78.0.2 dst=10.77.0.2 sport=21 dport=33124 packets=6 bytes=396 [ASSURED] mark=42 delta-time=1 [start=Sun Nov  1 10:00:17 2026] helper=ftp use=1 id=928971134 labels=eth0-out,spaced name',
    )
    same(record, {
      ...HEAD, event: 'entry', ...IPV4_TCP, timeout: 431998, state: 'ESTABLISHED', ctstate: 'ESTABLISHED',
      orig: { src: '10.77.0.2', dst: '10.78.0.2', sport: 33124, dport: 21, packets: 9n, bytes: 512n },
      reply: { src: '10.78.0.2', dst: '10.77.0.2', sport: 21, dport: 33124, packets: 6n, bytes: 396n },
      assured: true, mark: 42, helper: 'ftp', labels: ['eth0-out', 'spaced name'], use: 1, id: 928971134,
      start: '2026-11-01T10:00:17.000000Z', delta_time: 1, flow: record!['flow'], time_source: 'received',
    })
  })

  test('labels without names, and the suffix of a process', () => {
    const tuples = 'src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1'
    const [bare, named, unresolved, old] = records(
      `[DESTROY] udp      17 29 ${tuples} id=5 labels [USERSPACE] portid=12203 progname=my tool`,
      `[DESTROY] udp      17 29 ${tuples} labels=a b,c [USERSPACE] portid=3555610587`,
      `[DESTROY] udp      17 29 ${tuples} [USERSPACE] portid=7`,
      `[DESTROY] udp      17 29 ${tuples} [USERSPACE]`,
    )
    expect(bare).toMatchObject({ id: 5, labels: [], by: { portid: 12203, progname: 'my tool' }, end: { reason: 'deleted' } })
    expect(named).toMatchObject({ labels: ['a b', 'c'], by: { portid: 3555610587 } })
    expect(unresolved!['by']).toEqual({ portid: 7 })
    expect(old!['by']).toEqual({})
  })

  test('ICMP: an id in either tuple and one of the flow', () => {
    const [record] = records('icmp     1 27 src=10.77.0.2 dst=10.78.0.2 type=8 code=0 id=10890 src=10.78.0.2 dst=10.78.0.1 type=0 code=0 id=7 id=149219317')
    same(record, {
      ...HEAD, event: 'entry', family: 'ipv4', protocol: 'icmp', protocol_number: 1, timeout: 27, state: 'REPLIED', ctstate: 'ESTABLISHED',
      orig: { src: '10.77.0.2', dst: '10.78.0.2', type: 8, code: 0, id: 10890 },
      reply: { src: '10.78.0.2', dst: '10.78.0.1', type: 0, code: 0, id: 7 },
      id: 149219317, flow: record!['flow'], nat: { kind: 'snat', src: '10.78.0.1', id: 7 }, time_source: 'received',
    })
  })

  test('GRE, ESP, SCTP, and zones of one direction', () => {
    const [gre, esp, sctp, zoned, both] = records(
      'gre      47 28 src=10.77.0.2 dst=10.78.0.2 srckey=0x0 dstkey=0x1f [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 srckey=0x1f dstkey=0x0 mark=0 use=1',
      'unknown  50 598 src=10.77.0.2 dst=10.78.0.2 [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 mark=0 use=1',
      'sctp     132 99 ESTABLISHED src=10.9.9.1 dst=10.9.9.2 sport=1 dport=2 packets=0 bytes=0 [UNREPLIED] src=10.9.9.2 dst=10.9.9.1 sport=2 dport=1 packets=0 bytes=0 mark=0 delta-time=0 use=1',
      'ipv4     2 tcp      6 118 SYN_SENT src=10.77.0.2 dst=10.78.0.2 sport=41224 dport=83 packets=1 bytes=60 [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 sport=83 dport=41224 zone-reply=11 packets=0 bytes=0 mark=0 delta-time=1 use=1 id=544863582',
      'tcp      6 118 SYN_SENT src=10.77.0.2 dst=10.78.0.2 sport=1 dport=83 zone-orig=9 [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 sport=83 dport=1 zone=7 secmark=3',
    )
    same(gre!['orig'], { src: '10.77.0.2', dst: '10.78.0.2', srckey: '0x0', dstkey: '0x1f' })
    expect(gre).toMatchObject({ protocol: 'gre', state: 'UNREPLIED', ctstate: 'NEW', unreplied: true })
    expect(gre).not.toHaveProperty('mark')
    expect(gre).not.toHaveProperty('nat')
    expect(esp).toMatchObject({ protocol: 'unknown', protocol_number: 50, state: 'UNREPLIED', orig: { src: '10.77.0.2', dst: '10.78.0.2' } })
    expect(sctp).toMatchObject({ protocol: 'sctp', state: 'ESTABLISHED', ctstate: 'NEW', delta_time: 0 })
    same(zoned!['reply'], { src: '10.78.0.2', dst: '10.77.0.2', sport: 83, dport: 41224, zone: 11, packets: 0n, bytes: 0n })
    expect(both).toMatchObject({ orig: { zone: 9 }, zone: 7, secmark: 3 })
  })

  test('invented: offloaded flows, a security context, DCCP', () => {
    const [software, hardware, context, dccp] = records(
      'tcp      6 src=10.0.0.5 dst=192.0.2.7 sport=51000 dport=443 packets=10 bytes=5200 src=192.0.2.7 dst=10.0.0.5 sport=443 dport=51000 packets=9 bytes=4700 [OFFLOAD] mark=0 use=2',
      'tcp      6 src=10.0.0.5 dst=192.0.2.7 sport=51002 dport=443 src=192.0.2.7 dst=10.0.0.5 sport=443 dport=51002 [HW_OFFLOAD] mark=0 use=2',
      'tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=40000 dport=22 src=10.0.0.1 dst=10.0.0.5 sport=22 dport=40000 [ASSURED] mark=0 secctx=system_u:object_r:unlabeled_t:s0 use=1',
      'dccp     33 239 REQUEST src=10.0.0.5 dst=10.0.0.1 sport=4000 dport=5001 [UNREPLIED] src=10.0.0.1 dst=10.0.0.5 sport=5001 dport=4000 mark=0 use=1',
    )
    same(software, {
      ...HEAD, event: 'entry', ...IPV4_TCP, ctstate: 'ESTABLISHED',
      orig: { src: '10.0.0.5', dst: '192.0.2.7', sport: 51000, dport: 443, packets: 10n, bytes: 5200n },
      reply: { src: '192.0.2.7', dst: '10.0.0.5', sport: 443, dport: 51000, packets: 9n, bytes: 4700n },
      offload: 'sw', use: 2, flow: software!['flow'], time_source: 'received',
    })
    expect(hardware).toMatchObject({ offload: 'hw' })
    expect(context).toMatchObject({ secctx: 'system_u:object_r:unlabeled_t:s0', assured: true })
    expect(dccp).toMatchObject({ protocol: 'dccp', protocol_number: 33, state: 'REQUEST', ctstate: 'NEW' })
  })
})

describe('forms: XML', () => {
  const layers = (src: string, dst: string, protocol: string, keys: string): string =>
    `<layer3 protonum="2" protoname="ipv4"><src>${src}</src><dst>${dst}</dst></layer3><layer4 ${protocol}>${keys}</layer4>`
  const when = '<when><hour>9</hour><min>59</min><sec>25</sec><wday>1</wday><day>22</day><month>11</month><year>2026</year></when>'
  const udp = 'protonum="17" protoname="udp"'
  const destroy =
    `<flow type="destroy"><meta direction="original">${layers('10.77.0.2', '10.78.0.2', udp, '<sport>45083</sport><dport>5353</dport>')}</meta>` +
    `<meta direction="reply">${layers('10.78.0.2', '10.78.0.1', udp, '<sport>5353</sport><dport>45083</dport>')}</meta>` +
    `<meta direction="independent"><timeout>27</timeout><id>3270202232</id></meta>${when}</flow> [USERSPACE] portid=3555610587`

  test('header, an event with the stray suffix, footer', () => {
    const result = run(`<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n${destroy}\n</conntrack>\n`)
    expect(result.sums).toMatchObject({ lines: 4, flows: 1, ignored: 3 })
    same(result.records, [
      {
        time: '2026-11-22T09:59:25.000000Z', type: 'flow', v: 1, event: 'destroy', family: 'ipv4', protocol: 'udp', protocol_number: 17,
        timeout: 27, state: 'REPLIED', ctstate: 'ESTABLISHED',
        orig: { src: '10.77.0.2', dst: '10.78.0.2', sport: 45083, dport: 5353 },
        reply: { src: '10.78.0.2', dst: '10.78.0.1', sport: 5353, dport: 45083 },
        id: 3270202232, flow: result.records[0]!['flow'], by: { portid: 3555610587 },
        nat: { kind: 'snat', src: '10.78.0.1', sport: 45083 }, end: { reason: 'deleted' }, time_source: 'local',
      },
    ])
  })

  test('wall clocks are read in the zone', () => {
    expect(run(destroy, 'Europe/Berlin').records[0]!['time']).toBe('2026-11-22T08:59:25.000000Z')
    const row = 'udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [start=Wed Jul 15 10:00:17 2026]'
    expect(run(row, 'America/New_York').records[0]!['start']).toBe('2026-07-15T14:00:17.000000Z')
  })

  test('SCTP bears the names of TCP; nanoseconds, labels, zones, counters', () => {
    const sctp = 'protonum="132" protoname="sctp"'
    const [record] = records(
      `<flow><meta direction="original">${layers('10.9.9.1', '10.9.9.2', sctp, '<sport>1</sport><dport>2</dport>')}<zone>9</zone><counters><packets>3</packets><bytes>400</bytes></counters></meta>` +
        `<meta direction="reply">${layers('10.9.9.2', '10.9.9.1', sctp, '<sport>2</sport><dport>1</dport>')}<counters><packets>2</packets><bytes>300</bytes></counters></meta>` +
        '<meta direction="independent"><state>FIN_WAIT</state><timeout>99</timeout><mark>0</mark><labels><label>a & b</label><label>c</label></labels><secctx>u:r:t</secctx><use>1</use><id>5</id><assured/>' +
        '<timestamp><start>1795346597936549539</start></timestamp><deltatime>4</deltatime></meta><helper>ftp</helper></flow>',
    )
    same(record, {
      ...HEAD, event: 'entry', family: 'ipv4', protocol: 'sctp', protocol_number: 132, timeout: 99, state: 'ESTABLISHED', ctstate: 'ESTABLISHED',
      orig: { src: '10.9.9.1', dst: '10.9.9.2', sport: 1, dport: 2, zone: 9, packets: 3n, bytes: 400n },
      reply: { src: '10.9.9.2', dst: '10.9.9.1', sport: 2, dport: 1, packets: 2n, bytes: 300n },
      assured: true, secctx: 'u:r:t', helper: 'ftp', labels: ['a & b', 'c'], use: 1, id: 5,
      start: '2026-11-22T11:23:17.936549Z', delta_time: 4, flow: record!['flow'], time_source: 'received',
    })
  })

  test('an element that is cut off is one reject', () => {
    const result = run(`${destroy.slice(0, 300)}\n${destroy}\n`)
    expect(result.sums).toMatchObject({ flows: 1, rejected: 1 })
    expect(result.rejects[0]).toMatchObject({ line: 1, text: destroy.slice(0, 300) })
  })
})

describe('forms: -o save', () => {
  test('the commands, NAT, and what the bits say', () => {
    const [udp, update, esp, icmp] = records(
      '-A -t 30 -u UNSET -s 10.77.0.2 -d 10.78.0.2 -r 10.78.0.2 -n 10.78.0.1 -p udp --sport 45083 --dport 5353 --reply-port-src 5353 --reply-port-dst 45083',
      '-U -t 432000 -u SEEN_REPLY,ASSURED -s 10.77.0.2 -d 10.78.0.2 -r 10.78.0.2 -q 10.77.0.2 -p tcp --sport 50510 --dport 80 --reply-port-src 80 --reply-port-dst 50510 --state ESTABLISHED',
      '-A -t 600 -u SEEN_REPLY -w 7 -s 10.77.0.2 -d 10.78.0.2 -r 10.78.0.2 -q 10.77.0.2 -p 50',
      '-D -t 27 -u SEEN_REPLY -s 10.77.0.2 -d 10.78.0.2 -r 10.78.0.2 -q 10.77.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 10890 [USERSPACE] portid=10969 progname=conntrack',
    )
    same(udp, {
      ...HEAD, event: 'new', family: 'ipv4', protocol: 'udp', protocol_number: 17, timeout: 30, state: 'UNREPLIED', ctstate: 'NEW',
      orig: { src: '10.77.0.2', dst: '10.78.0.2', sport: 45083, dport: 5353 },
      reply: { src: '10.78.0.2', dst: '10.78.0.1', sport: 5353, dport: 45083 },
      unreplied: true, flow: udp!['flow'], transition: { from: null, to: 'UNREPLIED' },
      nat: { kind: 'snat', src: '10.78.0.1', sport: 45083 }, time_source: 'received',
    })
    expect(update).toMatchObject({ event: 'update', state: 'ESTABLISHED', ctstate: 'ESTABLISHED', assured: true })
    expect(esp).toMatchObject({ event: 'entry', protocol_number: 50, zone: 7, state: 'REPLIED' })
    expect(icmp).toMatchObject({ event: 'destroy', orig: { type: 8, code: 0, id: 10890 }, end: { reason: 'deleted' } })
  })

  test('GRE keys are decimal here; EXPECTED is RELATED', () => {
    const [gre, related] = records(
      '-A -t 30 -u EXPECTED -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p gre --srckey 0 --dstkey 99 --reply-key-src 99 --reply-key-dst 0',
      '-U -t 30 -u EXPECTED,SEEN_REPLY -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p gre --srckey 0 --dstkey 99 --reply-key-src 99 --reply-key-dst 0',
    )
    expect(gre).toMatchObject({ ctstate: 'RELATED', orig: { srckey: '0x0', dstkey: '0x63' }, reply: { srckey: '0x63', dstkey: '0x0' } })
    expect(related).toMatchObject({ ctstate: 'ESTABLISHED', transition: { from: 'UNREPLIED', to: 'REPLIED' } })
  })
})

describe('forms: /proc', () => {
  test('IPv6 is compressed, zero zones are left out', () => {
    const [record] = records(
      'ipv6     10 icmpv6   58 27 src=fd77:0000:0000:0000:0000:0000:0000:0002 dst=fd77:0001:0000:0000:0000:0000:0000:0002 type=128 code=0 id=10897 src=fd77:0001:0000:0000:0000:0000:0000:0002 dst=fd77:0000:0000:0000:0000:0000:0000:0002 type=129 code=0 id=10897 mark=0 zone=0 use=2',
    )
    same(record, {
      ...HEAD, event: 'entry', family: 'ipv6', protocol: 'icmpv6', protocol_number: 58, timeout: 27, state: 'REPLIED', ctstate: 'ESTABLISHED',
      orig: { src: 'fd77::2', dst: 'fd77:1::2', type: 128, code: 0, id: 10897 },
      reply: { src: 'fd77:1::2', dst: 'fd77::2', type: 129, code: 0, id: 10897 },
      use: 2, flow: record!['flow'], time_source: 'received',
    })
  })

  test.each([
    ['0000:0000:0000:0000:0000:0000:0000:0000', '::'],
    ['0000:0000:0000:0000:0000:0000:0000:0001', '::1'],
    ['2001:0db8:0000:0000:0001:0000:0000:0001', '2001:db8::1:0:0:1'],
    ['2001:0db8:0000:0001:0001:0001:0001:0001', '2001:db8:0:1:1:1:1:1'],
    ['fe80:0000:0000:0000:0000:0000:0000:0000', 'fe80::'],
    ['0000:0000:0000:0000:0000:ffff:0102:0304', '::ffff:1.2.3.4'],
  ])('%s is %s', (long, short) => {
    const [record] = records(`ipv6     10 unknown  50 598 src=${long} dst=fe80::1 src=fe80::1 dst=${long} mark=0 use=2`)
    expect(record).toMatchObject({ orig: { src: short }, reply: { dst: short } })
    expect(record).not.toHaveProperty('nat')
  })

  test("GRE's two timeouts, a protocol without its tracker, an offloaded flow", () => {
    const [gre, dccp, offload] = records(
      'ipv4     2 gre      47 28 timeout=30, stream_timeout=180 src=10.77.0.2 dst=10.78.0.2 srckey=0x0 dstkey=0x1 [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 srckey=0x1 dstkey=0x0 mark=0 zone=0 use=2',
      'ipv4     2 unknown  33 598 src=10.77.0.2 dst=10.78.0.2 [UNREPLIED] src=10.78.0.2 dst=10.77.0.2 mark=0 zone=0 use=2',
      'ipv4     2 tcp      6 src=10.0.0.5 dst=192.0.2.7 sport=51000 dport=443 src=192.0.2.7 dst=10.0.0.5 sport=443 dport=51000 [OFFLOAD] mark=0 zone=0 use=3',
    )
    expect(gre).toMatchObject({ timeout: 28, protocol: 'gre' })
    same(dccp, {
      ...HEAD, event: 'entry', family: 'ipv4', protocol: 'dccp', protocol_number: 33, timeout: 598, state: 'UNREPLIED', ctstate: 'NEW',
      orig: { src: '10.77.0.2', dst: '10.78.0.2' }, reply: { src: '10.78.0.2', dst: '10.77.0.2' },
      unreplied: true, use: 2, flow: dccp!['flow'], time_source: 'received',
    })
    expect(offload).toMatchObject({ offload: 'sw', use: 3 })
  })

  test('invented: ip_conntrack of Linux 2.4 and 2.6.18, el6 and el7', () => {
    const [linux24, udp, linux26, el6, el7] = records(
      'tcp      6 431990 ESTABLISHED src=192.168.1.2 dst=192.168.1.1 sport=1025 dport=22 src=192.168.1.1 dst=192.168.1.2 sport=22 dport=1025 [ASSURED] use=1 mark=0 ',
      'udp      17 25 src=192.168.1.2 dst=192.168.1.1 sport=1025 dport=53 [UNREPLIED] src=192.168.1.1 dst=192.168.1.2 sport=53 dport=1025 use=1 ',
      'tcp      6 431990 ESTABLISHED src=192.168.1.2 dst=192.168.1.1 sport=1026 dport=22 packets=12 bytes=1200 src=192.168.1.1 dst=192.168.1.2 sport=22 dport=1026 packets=10 bytes=1400 [ASSURED] mark=0 secmark=0 use=1',
      'ipv4     2 tcp      6 431990 ESTABLISHED src=192.168.1.2 dst=192.168.1.1 sport=1027 dport=22 packets=12 bytes=1200 src=192.168.1.1 dst=192.168.1.2 sport=22 dport=1027 packets=10 bytes=1400 [ASSURED] mark=0 secmark=0 use=2',
      'ipv4     2 udp      17 29 src=10.0.0.2 dst=10.0.0.1 sport=1025 dport=53 src=10.0.0.1 dst=10.0.0.2 sport=53 dport=1025 mark=0 secctx=system_u:object_r:unlabeled_t:s0 zone=0 use=2',
    )
    same(linux24, {
      ...HEAD, event: 'entry', ...IPV4_TCP, timeout: 431990, state: 'ESTABLISHED', ctstate: 'ESTABLISHED',
      orig: { src: '192.168.1.2', dst: '192.168.1.1', sport: 1025, dport: 22 },
      reply: { src: '192.168.1.1', dst: '192.168.1.2', sport: 22, dport: 1025 },
      assured: true, use: 1, flow: linux24!['flow'], time_source: 'received',
    })
    expect(udp).toMatchObject({ state: 'UNREPLIED', ctstate: 'NEW', use: 1 })
    expect(linux26).toMatchObject({ orig: { packets: 12n, bytes: 1200n }, reply: { packets: 10n, bytes: 1400n }, use: 1 })
    expect(linux26).not.toHaveProperty('secmark')
    expect(el6).toMatchObject({ use: 2 })
    expect(el7).toMatchObject({ secctx: 'system_u:object_r:unlabeled_t:s0', state: 'REPLIED' })
  })

  test('two blanks, the flag behind the second tuple, and a row that was broken in two', () => {
    const first = 'ipv4     2 tcp      6 89  SYN_SENT src=101.81.225.225 dst=112.74.99.130 sport=33952 dport=80'
    const second = 'src=112.74.99.130 dst=101.81.225.225 sport=80 dport=33952 [UNREPLIED] mark=0 secmark=0 use=2'
    const [whole] = records(`${first} ${second}`)
    same(whole, {
      ...HEAD, event: 'entry', ...IPV4_TCP, timeout: 89, state: 'SYN_SENT', ctstate: 'NEW',
      orig: { src: '101.81.225.225', dst: '112.74.99.130', sport: 33952, dport: 80 },
      reply: { src: '112.74.99.130', dst: '101.81.225.225', sport: 80, dport: 33952 },
      unreplied: true, use: 2, flow: whole!['flow'], time_source: 'received',
    })
    const wrapped = run(`${first}\r\n   ${second}\r\n`)
    same(wrapped.records, [whole])
    expect(wrapped.sums).toMatchObject({ lines: 2, flows: 1, ignored: 1 })
    expect(run(`${first}\nsomething else\n`).sums).toMatchObject({ flows: 0, rejected: 1, ignored: 1 })
    expect(run(first).sums).toMatchObject({ lines: 1, rejected: 1 })
  })
})

describe('expectations', () => {
  const tuple = { src: '10.78.0.2', dst: '10.77.0.2', sport: 0, dport: 20001 }
  const mask = { src: '255.255.255.255', dst: '255.255.255.255', sport: 0, dport: 65535 }
  const master = { src: '10.77.0.2', dst: '10.78.0.2', sport: 33124, dport: 21 }
  const text =
    'proto=6 src=10.78.0.2 dst=10.77.0.2 sport=0 dport=20001 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.77.0.2 master-dst=10.78.0.2 sport=33124 dport=21 class=0 helper=ftp'
  const flow = 'src=10.78.0.2 dst=10.77.0.2 sport=20 dport=20001 [UNREPLIED] src=10.77.0.2 dst=10.78.0.2 sport=20001 dport=20'
  const at = (second: string, line: string): string => `[17953416${second}]\t${line}`

  test('text, with flags, and XML', () => {
    const [event, sip, xml] = records(
      at('17.3458  ', `    [NEW] 300 ${text}`),
      '300 proto=17 src=0.0.0.0 dst=10.0.0.1 sport=0 dport=5060 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.9 master-dst=10.0.0.1 sport=5060 dport=5060 PERMANENT,INACTIVE class=1 helper=sip',
      '<flow type="new"><layer3 protonum="2" protoname="ipv4"><expected><src>10.78.0.2</src><dst>10.77.0.2</dst></expected><mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask><master><src>10.77.0.2</src><dst>10.78.0.2</dst></master></layer3>' +
        '<layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>20001</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>33124</sport><dport>21</dport></master></layer4>' +
        '<meta><helper-name>ftp</helper-name><timeout>300</timeout><class>0</class><permanent/></meta></flow>',
    )
    same(event, {
      time: '2026-11-22T10:00:17.003458Z', type: 'expect', v: 1, event: 'new', ...IPV4_TCP, timeout: 300, tuple, mask, master, class: 0, helper: 'ftp',
    })
    expect(sip).toMatchObject({ event: 'entry', protocol: 'udp', flags: ['permanent', 'inactive'], class: 1, helper: 'sip', time_source: 'received' })
    same(xml, {
      time: RECEIVED, type: 'expect', v: 1, event: 'new', ...IPV4_TCP, timeout: 300, tuple, mask, master, flags: ['permanent'], class: 0, helper: 'ftp', time_source: 'received',
    })
  })

  test('the three /proc forms', () => {
    const [now, permanent, older, oldest] = records(
      '298 l3proto = 2 proto=6 src=10.77.0.2 dst=10.78.0.2 sport=0 dport=5001 ftp',
      '- l3proto = 10 proto=17 src=fd77:0000:0000:0000:0000:0000:0000:0002 dst=fd77::3 sport=0 dport=5060 PERMANENT sip/audio',
      '298 proto=6 src=10.77.0.2 dst=10.78.0.2 sport=0 dport=5001 ',
      'EXPECTING: 120 use=1 proto=6 src=192.168.1.2 dst=192.168.1.1 sport=0 dport=20001 ',
    )
    same(now, {
      time: RECEIVED, type: 'expect', v: 1, event: 'entry', ...IPV4_TCP, timeout: 298,
      tuple: { src: '10.77.0.2', dst: '10.78.0.2', sport: 0, dport: 5001 }, helper: 'ftp', time_source: 'received',
    })
    expect(permanent).toMatchObject({ family: 'ipv6', tuple: { src: 'fd77::2' }, flags: ['permanent'], helper: 'sip' })
    expect(permanent).not.toHaveProperty('timeout')
    expect(older).not.toHaveProperty('helper')
    expect(oldest).toMatchObject({ timeout: 120, tuple: { src: '192.168.1.2', dport: 20001 } })
  })

  const ctstates = (...lines: string[]): unknown[] => records(...lines).filter(({ type }) => type === 'flow').map(({ ctstate }) => ctstate)

  test('a flow that matches a live one is RELATED until it is answered', () => {
    expect(
      ctstates(
        at('17.1', `    [NEW] 300 ${text}`),
        at('18.1', `    [NEW] tcp      6 120 SYN_SENT ${flow}`),
        at('18.2', `    [NEW] tcp      6 120 SYN_SENT ${flow.replaceAll('=20 ', '=21 ').replace(/=20$/, '=21')}`),
        at('18.3', ` [UPDATE] tcp      6 60 SYN_RECV ${flow.replace(' [UNREPLIED]', '')}`),
      ),
    ).toEqual(['RELATED', 'NEW', 'ESTABLISHED'])
  })

  test('one that was used up less than a second before counts, one that ran out does not', () => {
    const start = at('17.1', `    [NEW] 300 ${text}`)
    expect(ctstates(start, at('18.1', `[DESTROY] 299 ${text}`), at('19.0', `    [NEW] tcp      6 120 SYN_SENT ${flow}`))).toEqual(['RELATED'])
    expect(ctstates(start, at('18.1', `[DESTROY] 299 ${text}`), at('19.2', `    [NEW] tcp      6 120 SYN_SENT ${flow}`))).toEqual(['NEW'])
    expect(ctstates(start, at('18.1', `[DESTROY] 0 ${text}`), at('18.2', `    [NEW] tcp      6 120 SYN_SENT ${flow}`))).toEqual(['NEW'])
    expect(ctstates(start, `[1795342000.1     ]\t    [NEW] tcp      6 120 SYN_SENT ${flow}`)).toEqual(['NEW'])
  })

  test('a flow written as NEW stays so, what follows is RELATED', () => {
    expect(
      ctstates(
        at('18.1', `    [NEW] tcp      6 120 SYN_SENT ${flow}`),
        at('18.2', `[DESTROY] 299 ${text}`),
        at('19.0', `[DESTROY] tcp      6 119 CLOSE ${flow}`),
      ),
    ).toEqual(['NEW', 'RELATED'])
  })
})

describe('tracking', () => {
  const line = (tag: string, rest: string, stamp = '1795341600.000000'): string =>
    `[${stamp}]\t${tag} ${rest}`
  const tuples = 'src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000'
  const unanswered = tuples.replace(' src=10.0.0.2', ' [UNREPLIED] src=10.0.0.2')

  test('the reasons of an end', () => {
    const reason = (...lines: string[]): unknown => records(...lines).at(-1)!['end']
    expect(reason(`[DESTROY] tcp      6 9 CLOSE ${unanswered}`)).toMatchObject({ reason: 'refused' })
    expect(reason(`[DESTROY] tcp      6 9 CLOSE ${tuples}`)).toMatchObject({ reason: 'reset' })
    expect(reason(`[DESTROY] tcp      6 LAST_ACK ${tuples}`)).toMatchObject({ reason: 'closed' })
    expect(reason(`[DESTROY] tcp      6 ESTABLISHED ${tuples}`)).toMatchObject({ reason: 'expired' })
    expect(reason(`[DESTROY] tcp      6 9 ESTABLISHED ${tuples}`)).toMatchObject({ reason: 'removed' })
    expect(reason(`[DESTROY] tcp      6 ${tuples}`)).toMatchObject({ reason: 'unknown' })
    expect(reason(`[DESTROY] tcp      6 ${tuples}`, `[DESTROY] udp      17 ${tuples}`)).toMatchObject({ reason: 'unknown' })
    expect(reason(` [UPDATE] tcp      6 9 TIME_WAIT ${tuples}`, `[DESTROY] tcp      6 ${tuples}`)).toMatchObject({ reason: 'closed' })
    expect(reason(`[DESTROY] udp      17 ${tuples}`)).toMatchObject({ reason: 'expired' })
    expect(reason(`[DESTROY] tcp      6 9 CLOSE ${unanswered} [USERSPACE] portid=1`)).toMatchObject({ reason: 'deleted' })
    expect(reason(`[DESTROY] sctp     132 SHUTDOWN_ACK_SENT ${tuples}`)).toMatchObject({ reason: 'closed' })
    expect(reason(`[DESTROY] dccp     33 TIMEWAIT ${tuples}`)).toMatchObject({ reason: 'closed' })
  })

  test('NAT of either kind', () => {
    const nat = (reply: string): unknown => records(`tcp      6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 ${reply}`)[0]!['nat']
    expect(nat('src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000')).toBeUndefined()
    same(nat('src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1001'), { kind: 'snat', src: '10.0.0.1', sport: 1001 })
    same(nat('src=192.168.0.9 dst=10.0.0.1 sport=8080 dport=1000'), { kind: 'dnat', dst: '192.168.0.9', dport: 8080 })
    same(nat('src=192.168.0.9 dst=203.0.113.1 sport=8080 dport=4000'), { kind: 'both', src: '203.0.113.1', sport: 4000, dst: '192.168.0.9', dport: 8080 })
  })

  test('the next life of a tuple, with another id, with the same and without', () => {
    const lives = (...lines: string[]): unknown[] => {
      const seen = records(...lines).map(({ flow }) => flow)
      return seen.map((flow) => seen.indexOf(flow))
    }
    const start = `tcp      6 120 SYN_SENT ${unanswered}`
    const end = `tcp      6 CLOSE ${unanswered}`
    expect(lives(`[NEW] ${start} id=1`, `[DESTROY] ${end} id=1`, `[NEW] ${start} id=1`)).toEqual([0, 0, 2])
    expect(lives(`[NEW] ${start} id=1`, `[NEW] ${start} id=2`, `[DESTROY] ${end} id=1`, `[DESTROY] ${end} id=2`)).toEqual([0, 1, 0, 1])
    expect(lives(`[NEW] ${start}`, `[NEW] ${start}`, `[DESTROY] ${end}`)).toEqual([0, 1, 1])
    expect(lives(`[NEW] ${start} id=1`, `[DESTROY] ${end} id=9`, `[UPDATE] ${start} id=1`)).toEqual([0, 1, 0])
    expect(lives(start, `[UPDATE] ${start} id=4`, `[DESTROY] ${end} id=5`, `[DESTROY] ${end}`)).toEqual([0, 0, 2, 0])
    expect(lives(`${start} id=1`, `${start} id=2`, `[UPDATE] ${start} id=2`)).toEqual([0, 1, 1])
    expect(lives(`[NEW] ${start} zone=1`, `[NEW] ${start} zone=2`, `[DESTROY] ${end} zone=1`)).toEqual([0, 1, 0])
  })

  test('a first sight, a row, and an end without its beginning', () => {
    const [update, row, destroy] = records(
      line(' [UPDATE]', `tcp      6 60 SYN_RECV ${tuples}`),
      `tcp      6 9 ESTABLISHED ${tuples}`,
      line('[DESTROY]', `tcp      6 TIME_WAIT ${tuples} delta-time=9`, '1795341700.500000'),
    )
    same(update!['transition'], { from: null, to: 'SYN_RECV' })
    expect(row).not.toHaveProperty('transition')
    same(destroy!['transition'], { from: 'ESTABLISHED', to: 'TIME_WAIT' })
    same(destroy!['end'], { reason: 'closed', duration: 9, idle: 0 })
    const [unknown] = records(line('[DESTROY]', `tcp      6 TIME_WAIT ${tuples}`))
    expect(unknown).not.toHaveProperty('transition')
    same(unknown!['end'], { reason: 'closed' })
  })

  test('protocols without states; offloading changes none', () => {
    const [, replied, offloaded, assured] = records(
      line('    [NEW]', `udp      17 30 ${unanswered}`),
      line(' [UPDATE]', `udp      17 30 ${tuples}`, '1795341602.500000'),
      line(' [UPDATE]', `udp      17 ${tuples} [OFFLOAD]`, '1795341603.000000'),
      line(' [UPDATE]', `udp      17 180 ${tuples} [ASSURED]`, '1795341604.000000'),
    )
    same(replied!['transition'], { from: 'UNREPLIED', to: 'REPLIED', after: 2.5 })
    expect(offloaded).toMatchObject({ state: 'REPLIED', offload: 'sw' })
    expect(offloaded).not.toHaveProperty('transition')
    same(assured!['transition'], { from: 'REPLIED', to: 'ASSURED', after: 1.5 })
  })
})

describe('what is counted', () => {
  test("the tool's own words", () => {
    const result = run(
      'WARNING: We have hit ENOBUFS! We are losing events.\nThis message means that the current netlink socket buffer size is too small.\nPlease, check --buffer-size in conntrack(8) manpage.\n' +
        'conntrack v1.4.7 (conntrack-tools): 2101 flow events have been shown.\nNOTICE: Netlink socket buffer size has been set to 16777216 bytes.\n' +
        "mnl_socket_bind: Operation not permitted\nconntrack v1.4.7 (conntrack-tools): Can't open netlink socket\n",
    )
    expect(result.sums).toEqual({ lines: 7, bytes: result.sums.bytes, flows: 0, expects: 0, kernel: 0, notes: 1, ignored: 6, rejected: 0, gaps: 1 })
    same(result.records, [{ time: RECEIVED, type: 'gap', v: 1, cause: 'netlink_overrun', at_least: 1, time_source: 'received' }])
  })

  test.each([
    '', '   ', 'free text', '{', '{"a":1}', '<conntrack>', '</conntrack>', '12', '[  525.051587] nf_conntrack: table full, dropping packet',
    'cpu=0   \tfound=3 invalid=7 insert=0 ', '-A INPUT -j DROP', 'tcpdump: listening', 'src=1.2.3.4 dst=1.2.3.5',
  ])('ignored: %j', (line) => {
    expect(run(`${line}\n`).sums).toMatchObject({ lines: 1, ignored: 1, rejected: 0 })
  })

  test.each([
    '{"a":', '<flow>', '-D -x', '[NEW] nonsense', 'udp      17 nonsense', '    [NEW] tcp      6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dp',
    'udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=65536 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1',
    'udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=fe80::1 sport=2 dport=1',
    'udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 packets=1 bytes=18446744073709551616 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1',
  ])('rejected: %j', (line) => {
    const result = run(`${line}\n`)
    expect(result.sums).toMatchObject({ lines: 1, ignored: 0, rejected: 1 })
    expect(result.rejects[0]).toMatchObject({ line: 1, text: line })
  })

  test('CRLF, no newline at the end, bytes that are no UTF-8', () => {
    const row = 'tcp      6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 helper='
    const result = run(Buffer.concat([Buffer.from(`${row}ftp\r\n\r\n${row}a`), Buffer.from([0xff])]))
    expect(result.sums).toMatchObject({ lines: 3, flows: 2, ignored: 1 })
    expect(result.records.map(({ helper }) => helper)).toEqual(['ftp', 'a\ufffd'])
  })

  test('a line over 1 MiB is a reject and a gap, its neighbours are untouched', () => {
    const row = 'unknown  50 598 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1'
    const result = run(`${row}\n${'x'.repeat(1024 * 1024 + 1)}\n${row}\n${'y'.repeat(1024 * 1024)}\n`)
    expect(result.sums).toMatchObject({ lines: 4, flows: 2, rejected: 1, gaps: 1, ignored: 1 })
    expect(result.rejects).toEqual([{ line: 2, reason: 'line too long', text: 'x'.repeat(1024) }])
    same(result.records[1], { time: RECEIVED, type: 'gap', v: 1, cause: 'line_too_long', count: 1, time_source: 'received' })
  })

  test('an empty input', () => {
    expect(run('')).toMatchObject({ records: [], rejects: [], sums: { lines: 0, bytes: 0 } })
  })
})
