/** Lines of conntrack's and the kernel's within the lines of others: containers' files, kubectl, journals, syslogs, shippers' JSON, and these around each other. */
import { describe, expect, test } from 'vitest'
import { byteByByte, random, randomCuts, recordsOf, runPieces, runText } from './harness.js'

const tuple = (sport: number): string => `src=10.0.0.1 dst=10.0.0.2 sport=${sport} dport=443 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=443 dport=${sport}`
const NEW = `    [NEW] tcp      6 120 SYN_SENT ${tuple(1)}`
const ROW = `udp      17 30 ${tuple(2)} mark=0 use=1`
const XML = '<flow type="new"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum="17" protoname="udp"><sport>3</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum="17" protoname="udp"><sport>443</sport><dport>3</dport></layer4></meta><meta direction="independent"><timeout>30</timeout><unreplied/></meta></flow>'
const SAVE = '-A -t 30 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --sport 4 --dport 443 --reply-port-src 443 --reply-port-dst 4'
const EXPECT = `    [NEW] 300 proto=6 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=20010 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.1 master-dst=10.0.0.2 sport=50466 dport=21 class=0 helper=ftp`
const FULL = '[  525.051587] nf_conntrack: nf_conntrack: table full, dropping packet'
const STAMP = '2024-04-09T11:33:24.573225123Z'
const AT = '2024-04-09T11:33:24.573225Z'

const docker = (line: string): string => JSON.stringify({ log: `${line}\n`, stream: 'stdout', time: STAMP })
const carriers: Readonly<Record<string, (line: string) => string>> = {
  'kubectl --timestamps': (line) => `${STAMP} ${line}`,
  CRI: (line) => `${STAMP} stdout F ${line}`,
  'podman, k8s-file': (line) => `2024-04-09T13:33:24.573225123+02:00 stderr F ${line}`,
  'Docker json-file': docker,
  'Fluent Bit': (line) => JSON.stringify({ date: 1712662404.573225, log: line, stream: 'stdout' }),
  Vector: (line) => JSON.stringify({ message: line, host: 'gw', timestamp: STAMP, source_type: 'file' }),
  Elastic: (line) => JSON.stringify({ '@timestamp': STAMP, message: line, host: { name: 'gw' } }),
  'logcli, jsonl': (line) => JSON.stringify({ labels: { host: 'gw' }, line, timestamp: STAMP }),
  GELF: (line) => JSON.stringify({ version: '1.1', host: 'gw', short_message: line, timestamp: 1712662404.573225 }),
  'Docker in CRI': (line) => `2024-04-10T00:00:00Z stdout F ${docker(line)}`,
}
const speaking: typeof carriers = {
  'a journal of a unit': (line) => JSON.stringify({ _TRANSPORT: 'stdout', SYSLOG_IDENTIFIER: 'conntrack', _HOSTNAME: 'gw', __REALTIME_TIMESTAMP: '1712662404573225', MESSAGE: line }),
  'RFC 5424': (line) => `<30>1 2024-04-09T11:33:24.573225Z gw conntrack 12 - - ${line}`,
  'a high-precision syslog': (line) => `2024-04-09T11:33:24.573225+00:00 gw conntrack[1234]: ${line}`,
  'journalctl -o short-unix': (line) => `1712662404.573225 gw conntrack[1234]: ${line}`,
  'a syslog in Elastic': (line) => JSON.stringify({ '@timestamp': '2024-04-10T00:00:00Z', message: `2024-04-09T11:33:24.573225+00:00 gw conntrack[1234]: ${line}` }),
}

/** With a key or a place for the host. */
const namesHost: ReadonlySet<string> = new Set(['Vector', 'Elastic', 'GELF', ...Object.keys(speaking)])

describe('is read as if it stood alone, at its carrier\'s time', () => {
  test.each(Object.keys({ ...carriers, ...speaking }))('%s', async (name) => {
    const carry = { ...carriers, ...speaking }[name]!
    const text = [NEW, ROW, XML, SAVE, EXPECT].map((line) => `${carry(line)}\n`).join('')
    const strip = ({ time: _, time_source: __, flow: ___, host: ____, ...rest }: Record<string, unknown>): unknown => rest
    const alone = await recordsOf([NEW, ROW, XML, SAVE, EXPECT].map((line) => `${line}\n`).join(''))
    const records = await recordsOf(text)
    expect(records.map(strip)).toEqual(alone.map(strip))
    expect(new Set(records.map(({ host }) => host))).toEqual(new Set([namesHost.has(name) ? 'gw' : undefined]))
    expect(records.map(({ time, time_source: source }) => [time, source])).toEqual(records.map(() => [AT, undefined]))
    const { tally } = await runText(text)
    expect([tally.lines, tally.flows, tally.expects, tally.ignored, tally.rejected]).toEqual([5, 4, 1, 0, 0])
  })

  test.each(Object.keys(carriers))('the kernel\'s line too: %s', async (name) => {
    const [kernel] = await recordsOf(`${carriers[name]!(FULL)}\n`, { emit: ['kernel'] })
    expect(kernel).toMatchObject({ time: AT, kind: 'table_full', monotonic: 525.051587 })
  })

  test.each(Object.keys(speaking))('but not where another program speaks: %s', async (name) => {
    expect(await recordsOf(`${speaking[name]!('nf_conntrack: table full, dropping packet')}\n`, { emit: ['kernel'] })).toEqual([])
  })
})

test('a time of its own wins', async () => {
  const own = `[1712662400.000001]\t${NEW}`
  const text = Object.values({ ...carriers, ...speaking }).map((carry) => `${carry(own)}\n`).join('')
  const records = await recordsOf(text)
  expect(records.length).toBe(15)
  expect(new Set(records.map(({ time }) => time))).toEqual(new Set(['2024-04-09T11:33:20.000001Z']))
})

test('parts of a line are joined, each stream\'s for itself', async () => {
  const records = await recordsOf(
    [`${STAMP} stdout P ${NEW.slice(0, 30)}`, `${STAMP} stderr P ${ROW.slice(0, 9)}`, `${STAMP} stdout P ${NEW.slice(30, 60)}`, `${STAMP} stderr F ${ROW.slice(9)}`, `${STAMP} stdout F ${NEW.slice(60)}`, ''].join('\n'),
  )
  expect(records.map(({ orig }) => orig.sport)).toEqual([2, 1])
})

test('parts of other lines, as long as a runtime makes them, are none of ours, and neither is what they end in', async () => {
  const long = `${STAMP} stdout P ${'x'.repeat(16_384)}`
  const { lines, tally } = await runText([long, long, `${STAMP} stdout F ${ROW}`, `${STAMP} stdout F ${ROW}`, ''].join('\n'))
  expect([lines.length, tally.lines, tally.flows, tally.ignored, tally.held, tally.rejected]).toEqual([1, 4, 1, 3, 0, 0])
})

test.each(['RFC 5424', 'a high-precision syslog', 'a journal of a unit', 'CRI', 'Docker json-file'])('counters of all CPUs are one sample: %s', async (name) => {
  const carry = { ...carriers, ...speaking }[name]!
  const tool = [0, 1, 2].map((cpu) => `cpu=${cpu}   \tfound=0 invalid=1 insert=0 insert_failed=0 drop=4 early_drop=0 error=0 search_restart=0`)
  const header = 'entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart'
  const proc = [header, ...['1', '2'].map((drop) => `00000023  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 0000000${drop} 00000000 00000000  00000000 00000000 00000000 00000000`)]
  const records = await recordsOf([...tool, ...proc, 'WARNING: We have hit ENOBUFS! We are losing events.'].map((line) => `${carry(line)}\n`).join(''))
  expect(records.map(({ type, total, cause }) => [type, total?.drop ?? cause])).toEqual([['table', 12], ['table', 3], ['gap', 'netlink_overrun']])
})

test('stopped between parts, a run goes on later with the first of them', async () => {
  const lines = [`${STAMP} stderr F ${ROW}`, `${STAMP} stdout P ${NEW.slice(0, 30)}`, `${STAMP} stderr P ${ROW.slice(0, 9)}`, `${STAMP} stderr F ${ROW.slice(9)}`, `${STAMP} stdout P ${NEW.slice(30, 60)}`]
  const text = lines.map((line) => `${line}\n`).join('')
  let at = -1
  const { lines: before, tally } = await runText(text, { stoppedAt: (offset) => (at = offset) })
  expect(at).toBe(lines[0]!.length + 1)
  expect([before.length, tally.lines, tally.flows, tally.held, tally.rejected]).toEqual([2, 2, 2, 0, 0])
  const { lines: after } = await runText(`${text.slice(at)}${STAMP} stdout F ${NEW.slice(60)}\n`)
  expect(after.map((line) => (JSON.parse(line) as any).orig.sport)).toEqual([2, 1])
})

test('a part whose rest never comes is said, and shown', async () => {
  const part = `${STAMP} stdout P ${NEW.slice(0, 60)}`
  const { lines, tally } = await runText(`${STAMP} stderr F ${ROW}\n${part}\n`, { emit: ['reject'] })
  expect(lines.map((line) => JSON.parse(line) as unknown)).toMatchObject([{ line: 2, reason: 'a line in parts whose last is missing', text: part }])
  expect([tally.lines, tally.flows, tally.rejected, tally.held]).toEqual([2, 1, 1, 0])
  const { tally: others } = await runText(`${STAMP} stdout P of another program\n`)
  expect([others.ignored, others.rejected, others.held]).toEqual([1, 0, 0])
})

test('without end, no more of them are kept than may belong together', async () => {
  const { tally } = await runText(`${STAMP} stdout P lost\n${`${STAMP} stderr P ${ROW.slice(0, 9)}\n${STAMP} stderr F ${ROW.slice(9)}\n`.repeat(3000)}`)
  expect([tally.lines, tally.flows, tally.ignored, tally.held]).toEqual([6001, 3000, 3001, 0])
})

test('what breaks its grammar is one reject, and shows the whole line', async () => {
  const line = `${STAMP} stdout F     [NEW] tcp      6 120 SYN_SENT src=broken`
  expect((await recordsOf(`${line}\n`, { emit: ['reject'] })).map(({ text, line: at }) => [text, at])).toEqual([[line, 1]])
})

test('cuts of the stream, and a merge by time, change nothing', async () => {
  const text = Object.values({ ...carriers, ...speaking }).flatMap((carry) => [NEW, ROW, XML, SAVE, FULL].map((line) => `${carry(line)}\r\n`)).join('')
  const bytes = Buffer.from(text)
  const whole = (await runPieces([bytes])).text
  expect((await runPieces(byteByByte(bytes))).text).toBe(whole)
  const next = random(7)
  for (let i = 0; i < 5; i++) expect((await runPieces(randomCuts(bytes, next, 80))).text).toBe(whole)
  const flows = (all: string): string[] => all.split('\n').filter((line) => line.includes('"type":"flow"')).map((line) => line.replace(/"flow":"\w+"/, ''))
  expect(flows((await runPieces([bytes], { once: true })).text)).toEqual(flows(whole))
})
