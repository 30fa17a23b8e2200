/**
 * Our own records, read back: every record that the captures give comes out byte for byte and is filtered as it was when it was made; what is no record of ours is one reject,
 * and nothing is concluded a second time.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { parseCondition } from '../src/conditions.js'
import { recordTypes } from '../src/event.js'
import { byteByByte, type Options, randomCuts, runInputs, runPieces, runText } from './harness.js'
import { cleanUp, fixture, run, scratch, shell } from './process-harness.js'
import { seeded } from './seed.js'

const chance = seeded('archives')
const emit = [...recordTypes]
const fixtures = new URL('../fixtures/', import.meta.url)
const contents = [
  ...readdirSync(fixtures)
    .filter((name) => name.endsWith('.in'))
    .map((name) => readFileSync(new URL(name, fixtures))),
  Buffer.from('udp      17 30 src=10.10.1.2 dst=\n'),
]
/** of these every condition is tried */
const SMALL_BYTES = 12_000
const nameOfType = ({ type }: { type: string }): string => type
/** every record of every capture */
let all = ''
let few = ''

/** What the captures give, one after the other: a process has one loop. */
async function printed(captures: readonly Uint8Array[], route: Options['route'] = {}): Promise<string> {
  let text = ''
  for (const bytes of captures) text += (await runPieces([bytes], { emit, rid: true, route })).text
  return text
}

beforeAll(async () => {
  all = await printed(contents)
  few = await printed(contents.filter((bytes) => bytes.length <= SMALL_BYTES))
})
afterEach(cleanUp)

describe('every record that was printed', () => {
  test('is of every type', () => {
    expect([...new Set(all.split('\n').slice(0, -1).map((line) => (JSON.parse(line) as { type: string }).type))].sort()).toEqual([...recordTypes].sort())
  })

  test('comes out as it went in, however the stream is cut', async () => {
    const bytes = Buffer.from(all)
    const whole = await runPieces([bytes], { emit })
    expect(whole.text === all, 'the same bytes').toBe(true)
    const { lines, flows, expects, kernel, notes, ignored, rejected } = whole.tally
    expect({ lines: flows + expects + kernel + notes, ignored, rejected }).toEqual({ lines, ignored: 0, rejected: 0 })
    for (const mean of [40, 900, 50_000]) expect((await runPieces(randomCuts(bytes, chance, mean), { emit })).text === all, `pieces of ${mean} bytes`).toBe(true)
    const some = bytes.subarray(0, bytes.indexOf(10, 60_000) + 1)
    expect((await runPieces(byteByByte(some), { emit })).text).toBe(some.toString())
  })

  test('through the built program: from a file and a pipe; counted by type', async () => {
    const lines = all.split('\n').slice(0, -1)
    const count = (...types: string[]): number => lines.filter((line) => types.includes(nameOfType(JSON.parse(line) as { type: string }))).length
    const sums = { lines: lines.length, flows: count('flow'), expects: count('expect'), kernel: count('kernel'), notes: count('alert', 'gap', 'table', 'reject'), alerts: count('alert'), gaps: count('gap'), ignored: 0, rejected: 0, written: lines.length }
    for (const through of ['file', 'pipe'] as const) {
      const result = await run(['--emit', emit.join()], all, through)
      expect(result.stdout.equals(Buffer.from(all)), through).toBe(true)
      expect(result.done).toMatchObject(sums)
    }
    const path = scratch('records.ndjson')
    writeFileSync(path, all)
    // what a run adds to records of its own it does not add to these
    const again = await shell('"$@"', 'run', '--once', '-i', path, '--emit', emit.join())
    expect(again.stdout.equals(Buffer.from(all))).toBe(true)
  })

  test.each([
    'event=destroy',
    'event=destroy reason=evicted,expired',
    'event=new,update protocol=tcp dport=80,443',
    'state=TIME_WAIT',
    'from=SYN_RECV to=ESTABLISHED',
    'ctstate=RELATED',
    'src=10.10.1.0/24 dst=10.10.2.2',
    'address=fd00::/8',
    'port=1-1024',
    'family=ipv6',
    'transition=true',
    'transition=false event=update',
    'zone=0',
    'kind=table_full',
    'cause=netlink_overrun',
    'status=firing severity=critical',
    'netns=4026532246',
    'type=gap,alert',
    'protocol=17',
    'sport=0-65535 reason=deleted',
  ])('is filtered as it was when it was made: %s', async (expression) => {
    const where = [parseCondition(expression)]
    expect((await runText(few, { emit, route: { where } })).text).toBe(await printed(contents.filter((bytes) => bytes.length <= SMALL_BYTES), { where }))
  })

  test('by type, by time, by transition', async () => {
    const lines = all.split('\n').slice(0, -1)
    const records = lines.map((line) => JSON.parse(line) as Record<string, any>)
    const fitting = (fits: (record: Record<string, any>) => boolean): string[] => lines.filter((_, i) => fits(records[i]!))
    expect((await runText(all, { emit: ['kernel', 'table'] })).lines).toEqual(fitting(({ type }) => type === 'kernel' || type === 'table'))
    expect((await runText(all, { emit: ['flow'], route: { transitionsOnly: true } })).lines).toEqual(fitting(({ type, transition }) => type === 'flow' && transition !== undefined))
    const [since, until] = ['2026-11-22T10:14:50.000000Z', '2026-11-22T10:15:00.500000Z']
    const window = { since: Date.parse(since) * 1000, until: Date.parse(until) * 1000 }
    expect((await runText(all, { emit, route: window })).lines).toEqual(fitting(({ time }) => time >= since && time < until))
  })

  test('an archive of evicted flows, by the command line', async () => {
    const evicted = '{"time":"2026-11-22T10:15:00.000000Z","type":"flow","v":1,"event":"destroy","family":"ipv4","protocol":"udp","protocol_number":17,"end":{"reason":"evicted","idle":3}}'
    const other = evicted.replace('evicted', 'expired')
    const { lines } = await run(['--where', 'event=destroy reason=evicted'], `${other}\n${evicted}\n${other}\n`)
    expect(lines).toEqual([evicted])
  })
})

const head = '{"time":"2026-11-22T10:14:45.000000Z","type":"table","v":1'
describe('what later versions and other tools may have done to a record', () => {
  test.each([
    ['numbers of 64 bits', `${head},"total":{"found":18446744073709551615,"drop":9007199254740993}}`],
    ['unknown keys', `${head},"novel":{"deep":[1,2,{"x":[null,true,-1.5e-7]}]},"netns":4026531833}`],
    ['unknown kinds', '{"time":"2026-11-22T10:14:45.000000Z","type":"kernel","v":1,"kind":"novel","message":"x"}'],
    ['unknown causes', '{"time":"2026-11-22T10:14:45.000000Z","type":"gap","v":1,"cause":"novel","count":3}'],
    ['another order of keys', '{"v":1,"type":"flow","event":"new","time":"2026-11-22T10:14:45.000000Z"}'],
    ['blanks', `{ "time": "2026-11-22T10:14:45.000000Z", "type": "alert",\t"v": 1, "episode": "x" }`],
    ['blanks behind the first brace alone', '{"time": "2026-11-22T10:14:45Z", "v": 1, "type": "reject"}'],
    ['escapes, in a key too', `${head},"host":"a\\"\\u0062\\\\","\\u006eetns":1}`],
    ['texts in UTF-8', `${head},"host":"köln-ü-\u{1f600}"}`],
    ['many keys', `${head}${Array.from({ length: 200 }, (_, i) => `,"k${i}":${i}`).join('')}}`],
  ])('%s', async (_, line) => {
    const { lines, tally } = await runText(`${line}\n`, { emit })
    expect(lines).toEqual([line])
    expect(tally).toMatchObject({ lines: 1, ignored: 0, rejected: 0 })
  })

  test('a condition sees keys wherever they stand', async () => {
    const lines = [`${head},"\\u006eetns":7}`, `${head}${Array.from({ length: 200 }, (_, i) => `,"k${i}":${i}`).join('')},"netns":7}`, '{"netns":7,"v":1,"type":"gap","time":"2026-11-22T10:14:45Z","cause":"restart"}', `${head},"netns":7,"netns":8}`]
    expect((await runText(`${lines.join('\n')}\n`, { emit, route: { where: [parseCondition('netns=7')] } })).lines).toEqual(lines.slice(0, 3))
  })

  test('laid out over several lines it comes out on one, with every digit', async () => {
    const line = `${head},"host":"a \\" b: {","total":{"found":18446744073709551615}}`
    const text = line.replace('{"time"', '{\n  "time"').replaceAll(',"', ',\n  "').replace('{"found":', '{\n    "found": ').replace('}}', '\n  }\n}')
    expect(text.split('\n').length).toBeGreaterThan(7)
    const { lines, tally } = await runText(`${text}\n${line}\n`, { emit })
    expect(lines).toEqual([line, line])
    expect(tally.notes).toBe(2)
  })

  test('in an array that is laid out, as jq -s makes it, each is read for itself', async () => {
    const records = few.split('\n').slice(0, -1).map((line) => JSON.parse(line) as object)
    expect(records.length).toBeGreaterThan(50)
    const once = await runText(records.map((record) => `${JSON.stringify(record)}\n`).join(''), { emit })
    for (const indent of [1, 2, '\t']) {
      const text = `${JSON.stringify(records, null, indent)}\n`
      const { lines, tally } = await runText(text, { emit })
      expect(lines).toEqual(once.lines)
      expect(tally).toMatchObject({ lines: text.split('\n').length - 1, rejected: once.tally.rejected })
      const after = await runText(`${text}${head},"count":1}\n`, { emit })
      expect(after.lines).toEqual([...once.lines, `${head},"count":1}`])
    }
  })

  test('an array that breaks off is one reject, and what follows is read', async () => {
    const text = JSON.stringify([JSON.parse(`${head}}`), JSON.parse(`${head}}`)], null, 2)
    const row = 'udp      17 30 src=10.10.1.2 dst=10.10.2.2 sport=1 dport=2 [UNREPLIED] src=10.10.2.2 dst=10.10.1.2 sport=2 dport=1\n'
    const { lines, tally } = await runText(`${text.slice(0, text.lastIndexOf(',') + 1)}\n${head}}\n${row}   ${row}`, { emit })
    expect(lines.map((line) => (JSON.parse(line) as { type: string }).type)).toEqual(['table', 'reject', 'table', 'flow', 'flow'])
    expect(tally).toMatchObject({ rejected: 1, flows: 2 })
  })

  test('a run adds its id behind the version where there is none, and takes the record as it is where there is one', async () => {
    const own = head.replace(',"v":1', ',"v":1,"rid":"a:1"')
    const odd = `{${Array.from({ length: 70 }, (_, i) => `"k${i}":${i},`).join('')}${head.slice(1)}}`
    const { lines } = await runText(`${head},"count":1}\n${own},"count":2}\n${odd}\n`, { emit, rid: true })
    const ids = lines.map((line) => (JSON.parse(line) as { rid: string }).rid)
    expect(lines[0]).toBe(`${head},"rid":"${ids[0]}","count":1}`)
    expect(lines[1]).toBe(`${own},"count":2}`)
    expect(lines[2]).toBe(`{"rid":"${ids[2]}",${odd.slice(1)}`)
    expect(new Set(ids).size).toBe(3)
  })

  test('CR LF, and a last line without an end', async () => {
    expect((await runText(`${head}}\r\n${head},"count":1}`, { emit })).lines).toEqual([`${head}}`, `${head},"count":1}`])
  })
})

describe('what is no record of ours', () => {
  const good = `${head},"count":1}`

  test.each([
    ['cut off', good.slice(0, -1), 'not valid JSON'],
    ['a number that is none', `${head},"count":01}`, 'not valid JSON'],
    ['a control character', `${head},"host":"a\tb"}`, 'not valid JSON'],
    ['text behind it', `${good} x`, 'not valid JSON'],
    ['two on a line', `${good}${good}`, 'not valid JSON'],
    ['without a time', '{"time":"yesterday","type":"table","v":1}', 'without a time'],
    ['too long', `${head},"x":"${'a'.repeat(1 << 17)}"}`, 'longer'],
    ['too deep', `${head},"x":${'['.repeat(500)}${']'.repeat(500)}}`, 'deeper'],
  ])('%s: one reject', async (_, line, reason) => {
    const { lines, tally } = await runText(`${good}\n${line}\n${good}\n`, { emit })
    expect(tally).toMatchObject({ lines: 3, notes: 2, rejected: 1 })
    expect([lines[0], lines[2]]).toEqual([good, good])
    expect(JSON.parse(lines[1]!)).toMatchObject({ type: 'reject', line: 2, reason: expect.stringContaining(reason) })
  })

  test('bytes that are not UTF-8', async () => {
    const { tally, bytes } = await runPieces([Buffer.concat([Buffer.from(`${head},"host":"`), Buffer.of(0xff, 0xfe), Buffer.from('"}\n')])], { emit: ['table'] })
    expect([tally.rejected, bytes.length]).toEqual([1, 0])
  })

  test.each(['{"time":"2026-11-22T10:14:45.000000Z","type":"novel","v":1}', '{"time":"2026-11-22T10:14:45.000000Z","type":"flow","v":2}', '{"time":"2026-11-22T10:14:45.123Z","level":"INFO","msg":"x"}', '{"type":"flow","v":1}'])(
    'ignored: %s',
    async (line) => expect((await runText(`${line}\n`, { emit })).tally).toMatchObject({ lines: 1, ignored: 1, rejected: 0 }),
  )

  test('records with bytes flipped, taken out and put in: passed on where they are JSON, else one reject each, and their neighbours stay', async () => {
    const lines = all.split('\n').slice(0, -1)
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.from(lines[Math.floor(chance() * lines.length)]!)
      for (let i = 0; i <= chance() * 3; i++) bytes[Math.floor(chance() * bytes.length)] = [34, 44, 58, 92, 123, 125, 48, 101, 32, 0xff, 0, Math.floor(chance() * 256)][Math.floor(chance() * 12)]!
      const line = bytes.toString('latin1').replaceAll('\n', ' ')
      const { tally, lines: out } = await runPieces([Buffer.from(`${good}\n${line}\n${good}\n`, 'latin1')], { emit: ['table', 'flow', 'expect', 'kernel', 'alert', 'gap'] })
      const about = JSON.stringify(line)
      expect(tally.rejected, about).toBeLessThanOrEqual(1)
      expect([out[0], out.at(-1)], about).toEqual([good, good])
      for (const each of out) JSON.parse(each)
    }
  })
})

describe('nothing is concluded a second time', () => {
  test('an archive of an incident gives no alert but its own', async () => {
    const log = fixture('kernel-log.incident')
    const made = (await runInputs([[log], [fixture('incident.table')]], { emit, boot: { microseconds: Date.parse('2026-11-22T09:50:20.173Z') * 1000, source: 3 } })).text
    const { text, tally } = await runText(made, { emit })
    expect(text === made).toBe(true)
    expect(tally.alerts).toBe(made.split('"type":"alert"').length - 1)
    // without its alerts too: whoever left them out does not want them
    const withoutAlerts = made.split('\n').filter((line) => !line.includes('"type":"alert"')).join('\n')
    expect((await runText(withoutAlerts, { emit })).tally.alerts).toBe(0)
  })

  test('archived samples tell an alert of a log beside them how many were dropped', async () => {
    const boot = { microseconds: Date.parse('2026-11-22T09:50:20.173550Z') * 1000, source: 3 as const }
    const { lines } = await runInputs([[fixture('kernel-log.incident')], [fixture('incident.table')]], { emit: ['alert'], boot })
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ drops: { logged: 40, counted: 4937, early: 37 } })
  })

  test('two archives are merged by time', async () => {
    const lines = Array.from({ length: 40 }, (_, i) => `{"time":"2026-11-22T10:14:${String(10 + i)}.000000Z","type":"table","v":1,"count":${i}}\n`)
    const inputs = [0, 1].map((part) => [Buffer.from(lines.filter((_, i) => i % 2 === part || i % 7 === 0).join(''))])
    expect((await runInputs(inputs, { emit })).lines).toEqual(lines.flatMap((line, i) => (i % 7 === 0 ? [line.trim(), line.trim()] : [line.trim()])))
  })

  test('an episode of a log ends when an archive beside it goes on', async () => {
    const log = 'Nov 22 11:00:00 gw kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n'
    const archive = '{"time":"2026-11-22T11:05:00.000000Z","type":"flow","v":1,"event":"new"}\n'
    const { lines } = await runInputs([[Buffer.from(log)], [Buffer.from(archive)]], { emit: ['alert'] })
    expect(lines.map((line) => (JSON.parse(line) as { status: string }).status)).toEqual(['firing', 'resolved'])
  })
})
