/** Words of vendors' kernels behind the tuples: whatever they are and wherever they stand, what is known is read as always, and they go to `extra`. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { recordsOf, runText } from './harness.js'

type Record_ = Record<string, any>
const linesOf = (name: string): string[] =>
  readFileSync(new URL(`../fixtures/${name}.in`, import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => /src=.*src=|^-[AUD] /.test(line))

const words: readonly (readonly [string, string, string | true])[] = [
  ['nmark=0', 'nmark', '0'],
  ['slan', 'slan', true],
  ['attrs=', 'attrs', ''],
  ['mac=00:00:5e:00:53:6e', 'mac', '00:00:5e:00:53:6e'],
  ['[FASTNAT]', 'FASTNAT', true],
  ['[RTCACHE o33/r11]', 'RTCACHE', 'o33/r11'],
  ['[swan  to\tlan]', 'swan', 'to\tlan'],
  ['l7-proto=a=b', 'l7-proto', 'a=b'],
  ['__proto__=x', '__proto__', 'x'],
  ['constructor', 'constructor', true],
  ['url=http://[2001:db8::1]/"\\', 'url', 'http://[2001:db8::1]/"\\'],
  ['ssid=café', 'ssid', 'café'],
]

/** Where blanks behind the reply tuple stand, up to what reaches to the end of the line. */
function gapsOf(line: string): number[] {
  const from = line.startsWith('-') ? / -p \S+/.exec(line)! : /src=.*src=\S+ +dst=\S+(?: +(?:[sd]port|type|code|id|[sd]..key)=\S+)*/.exec(line)!
  const end = line.search(/ labels| \[USERSPACE\]/)
  const to = end < 0 ? line.length : end
  const gaps: number[] = []
  for (let at = from.index + from[0].length; at <= to; at++) if (at === line.length || (line[at] === ' ' && line[at - 1] !== ' ')) gaps.push(at)
  // within a time there is no gap, nor between an option and its value
  return gaps.filter((at) => !/\[st(art|op)=[^\]]*$/.test(line.slice(0, at)) && !(line.startsWith('-') && / -[-\w]+$/.test(line.slice(0, at))) && !/packets=\d+$/.test(line.slice(0, at)))
}

describe('in every place of the rows and events of', () => {
  test.each(['rich.E-full', 'rich.E-plain', 'rich.L-full', 'rich.proc', 'nat.L', 'zones.proc', 'protocols.L', 'rich.L-save', 'rich.E-save', 'labels.L-labels-id', 'reset.E-timestamp-id-ktimestamp-extended'].map((name) => `${name}.linux-6.18.conntrack-1.4.7`))('%s', async (name) => {
    const lines = [...new Map(linesOf(name).map((line) => [line.replace(/[\da-f:.]+/g, '0'), line])).values()]
    expect(lines.length).toBeGreaterThan(5)
    const plain: string[] = []
    const changed: string[] = []
    const wanted: Record_[] = []
    let n = 0
    for (const line of lines) {
      for (const at of gapsOf(line)) {
        const few = Array.from({ length: 1 + (n % 3) }, () => words[n++ % words.length]!)
        plain.push(line)
        changed.push(`${line.slice(0, at)} ${few.map(([word]) => word).join(' ')}${line.slice(at)}`)
        wanted.push(Object.fromEntries(few.map(([, key, value]) => [key, value])))
      }
    }
    const without = await recordsOf(plain.join('\n'))
    const withWords = await recordsOf(changed.join('\n'))
    expect(withWords).toHaveLength(changed.length)
    for (const [i, record] of withWords.entries()) {
      const { extra, ...rest } = record
      expect([changed[i], rest]).toEqual([changed[i], without[i]])
      expect([changed[i], JSON.stringify(extra)]).toEqual([changed[i], JSON.stringify(wanted[i])])
    }
  })
})

const ROW = 'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1'
const extraOf = async (line: string): Promise<unknown> => (await recordsOf(`${line}\n`))[0]?.['extra']

test('they follow the flow’s number, before what caused the event', async () => {
  const { lines } = await runText(`[DESTROY] ${ROW} slan [USERSPACE] portid=7\n`)
  expect(lines[0]).toMatch(/"flow":"[0-9a-f]{16}","extra":\{"slan":true\},"by":\{"portid":7\}/)
})

test('those of one line are not those of the next', async () => {
  const [first, second, third] = await recordsOf(`${ROW} a=1\n${ROW} b\n${ROW}\n`)
  expect([first!['extra'], second!['extra'], third!['extra']]).toEqual([{ a: '1' }, { b: true }, undefined])
})

test('a word that comes twice counts as it stood last', async () => {
  expect(await extraOf(`${ROW} a=1 a=2 a`)).toEqual({ a: true })
})

test('up to 1,024 bytes of JSON; beyond that the row is there without them', async () => {
  const value = (bytes: number): string => 'x'.repeat(bytes - '{"a":""}'.length)
  expect(await extraOf(`${ROW} a=${value(1024)}`)).toEqual({ a: value(1024) })
  expect(await recordsOf(`${ROW} a=${value(1025)} mark=7\n`)).toMatchObject([{ type: 'flow', mark: 7 }])
  expect(await extraOf(`${ROW} a=${value(1025)}`)).toBeUndefined()
  expect(await extraOf(`${ROW} a=${'é'.repeat(509)}`)).toBeUndefined()
  expect(await extraOf(`${ROW} ${Array.from({ length: 2000 }, (_, i) => `w${i}`).join(' ')}`)).toBeUndefined()
})

test('elements of XML that nobody knows are words too', async () => {
  const side = (direction: string, from: string, to: string): string =>
    `<meta direction="${direction}"><layer3 protonum="2" protoname="ipv4"><src>${from}</src><dst>${to}</dst></layer3><layer4 protonum="50" protoname="unknown"></layer4></meta>`
  const flow = `<flow>${side('original', '10.0.0.1', '10.0.0.2')}${side('reply', '10.0.0.2', '10.0.0.1')}<meta direction="independent"><timeout>9</timeout><nmark>5</nmark><id>3</id><fastnat/></meta><l7proto>sip</l7proto></flow>`
  expect(await extraOf(flow)).toEqual({ nmark: '5', fastnat: true, l7proto: 'sip' })
})

describe('a reject stays', () => {
  test.each([
    ...['mark=x', 'mark=', 'mark', 'mark=4294967296', 'id=-1', 'id', 'use=many', 'zone=65536', 'zone-reply=x', 'zone-orig=5', 'secmark=', 'zone', 'zone-', 'delta-time=soon', 'helper', 'secctx'],
    ...['[ASSURED', '[ASSURED x]', '[ASSURED]mark=5', '[UNREPLIED', '[OFFLOAD ]x', '[start=yesterday]', '[stop]', '[NEW]', '[]', '[=5]', '[7]', '[FASTNAT]]', '[FASTNAT'],
    ...['src=10.0.0.9', 'dst=10.0.0.9', 'sport=5', 'type=8', 'dstkey=0x1', '=5', '(conntrack-tools):', 'full,', 'nf_conntrack:', '"quoted"', '<flow>', '{}'],
  ])('of a row with %s', async (word) => {
    const { tally } = await runText(`${ROW} nmark=1 ${word} slan\n`)
    expect(tally).toMatchObject({ lines: 1, rejected: 1 })
  })

  test.each([
    'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 nmark=1 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1',
    'udp      17 30 slan src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1',
    'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 slan dst=10.0.0.1 sport=2 dport=1',
    '-A -t 30 --nmark 5 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1',
    '-A -t 30 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --sport 1 --dport 2 --reply-port-src 2 --nmark 5',
    '-A -t 30 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --nmark 5 --sport 1 --dport x --reply-port-src 2 --reply-port-dst 1',
  ])('before both tuples are whole: %s', async (line) => {
    const { tally } = await runText(`${line}\n`)
    expect(tally).toMatchObject({ lines: 1, rejected: 1 })
  })
})

test('options of -o save that nobody knows, with and without a value', async () => {
  const save = '-A -t 30 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udp --nmark 5 --sport 1 --dport 2 --fast --reply-port-src 2 --reply-port-dst 1 -x [HW on] sc=0 slan'
  expect(await recordsOf(`${save}\n`)).toMatchObject([{ orig: { sport: 1, dport: 2 }, extra: { nmark: '5', fast: true, x: true, HW: 'on', sc: '0', slan: true } }])
})

test('conntrackd’s rows say how long it has had them', async () => {
  const row = 'tcp      6 ESTABLISHED src=192.168.2.100 dst=192.0.2.20 sport=58491 dport=993 src=192.0.2.20 dst=192.168.2.100 sport=993 dport=58491 [ASSURED] mark=0 secmark=0 [expires in 32s] [active since 536s]'
  expect(await recordsOf(`${row}\n`)).toMatchObject([{ event: 'entry', state: 'ESTABLISHED', assured: true, extra: { expires: 'in 32s', active: 'since 536s' } }])
})
