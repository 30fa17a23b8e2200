/**
 * Mutated lines: of the captures, of what people posted, of our own records and of the reference's own examples, some bytes or words are flipped, taken out, doubled,
 * swapped, cut off or spliced. Whatever they are, the sums close, the output is JSON in UTF-8, the lines between them are not disturbed, and of flows and expectations
 * the reference thinks the same. 20,000 lines; with CONNTRAIL_LONG_TESTS a million. CONNTRAIL_SEED plays a run again.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { describeDifferences, formCases } from './compare.js'
import { random, randomCuts, RECEIVED, type Result, runPieces } from './harness.js'
import { reference } from './reference.js'
import { newSeed } from './seed.js'

const long = process.env['CONNTRAIL_LONG_TESTS'] !== undefined
const LINES = long ? 1_000_000 : 20_000
const SLICE = 1000
const slices = Array.from({ length: LINES / SLICE }, (_, i) => i)
const timeout = long ? 3_600_000 : 60_000
const emit = ['flow', 'expect', 'kernel', 'gap', 'reject'] as const
type Random = () => number

const fixtures = new URL('../fixtures/', import.meta.url)
const names = readdirSync(fixtures).filter((name) => name.endsWith('.in'))
const linesOf = (some: readonly string[]): string[] => some.flatMap((name) => readFileSync(new URL(name, fixtures)).toString('latin1').split('\n'))
const captured = linesOf(names.filter((name) => !/^(kernel-log|incident\.(S|table)|quiet|case)/.test(name) || formCases.includes(name.slice(0, -3))))
/** What the reference does not know: the kernel's log in all its carriers, counters, our own records. */
const others = linesOf([...names, ...readdirSync(fixtures).filter((name) => name.endsWith('.want.ndjson'))])
const written = [...readFileSync(new URL('reference.test.ts', import.meta.url), 'latin1').matchAll(/'((?:[^'\\\n]|\\.)+)'/g)].map(([, text]) => text!).filter((text) => text.length > 20)
/** What attackers have sent. */
const hostile = [
  'Nov 22 10:14:49 gw kernel: nf_conntrack: nf_conntrack: table full in netns 4026532246, dropping packet',
  '<4>[ 1469.934876] nf_conntrack: nf_conntrack: table full in netns 18446744073709551615, dropping packet',
  '{"time":"2026-11-22T10:14:45.000000Z","type":"table","v":1,"netns":4026531833,"count":61873,"max":65536,"drop":18446744073709551615,"total":{"drop":18446744073709551615,"early_drop":9007199254740993}}',
  '4,384,1469934876,-;nf_conntrack: nf_conntrack: table full, dropping packet',
  'conntrack v1.4.7 (conntrack-tools): failed to received netlink event: No buffer space available',
]
/**
 * One time for all and long timeouts: when a row known from a dump alone runs out is for other tests. Each shape of line weighs the same, however often it was captured.
 */
const shapesOf = (lines: readonly string[]): string[] => [
  ...new Map(
    lines
      .filter((line) => line !== '')
      .map((line) =>
        line
          .replace(/^\[1795\d{6}\./, '[1795348800.')
          .replace(/<hour>\d+<\/hour><min>\d+<\/min><sec>\d+</, '<hour>12</hour><min>0</min><sec>0<')
          .replace(/^((?:ipv[46] +\d+ )?\w+ +\d+ +)(\d+ )/, '$199$2')
          .replace(/^(-A -t )/, '$199')
          .replace(/^(<flow>.*<timeout>)/, '$199'),
      )
      .map((line) => [line.replace(/[0-9a-f:.]*\d[0-9a-f:.]*/g, '0'), line]),
  ).values(),
]
const known = shapesOf([...captured, ...written])
const all = shapesOf([...captured, ...written, ...others, ...hostile])
const WORDS = [
  '\0', '\xff', '\xc3', '\xed\xa0\x80', '\xf4\x90\x80\x80', '\r', '\t', '"', '\\', '\x1b', '\x7f', '  ', ' ', '=', '-', '[', ']', '<', '>', '</flow>', '{', '}',
  '18446744073709551615', '18446744073709551616', '4294967295', '4294967296', '65535', '65536', '255', '256', '-1', '00', '0', '9'.repeat(30), '1e9', '0x', '::', '::ffff:1.2.3.4', '1.2.3.4',
  '[UNREPLIED]', '[ASSURED]', '[OFFLOAD]', '[USERSPACE]', ' [USERSPACE] portid=1 progname=a"b\\c', 'src=', 'labels=a b', ' id=5', ' zone=3', ' secctx=\xff"\\', ' helper=\xe2\x82', '[NEW] ', '\u0000'.repeat(40),
]

/** One mutation of a line, as latin1 text: a character is a byte. */
const mutations: readonly ((line: string, next: Random, seeds: readonly string[]) => string)[] = [
  (line, next) => edit(line, next, 1, (c) => String.fromCharCode(c.charCodeAt(0) ^ (1 << Math.floor(next() * 8)))),
  (line, next) => edit(line, next, 1, () => String.fromCharCode(Math.floor(next() * 256))),
  (line, next) => edit(line, next, 1 + Math.floor(next() * 8), () => ''),
  (line, next) => edit(line, next, 0, () => pick(WORDS, next)),
  (line, next) => edit(line, next, 1 + Math.floor(next() * 12), (part) => part + part),
  (line, next) => edit(line, next, 2, (part) => `${part[1] ?? ''}${part[0] ?? ''}`),
  (line, next) => line.slice(0, Math.floor(next() * line.length)),
  (line, next) => line.slice(Math.floor(next() * line.length)),
  (line, next, seeds) => line.slice(0, Math.floor(next() * line.length)) + from(pick(seeds, next), next),
  (line, next) => line.replace(/\d+(?!.*\d)|\d+/, (number) => (next() < 0.5 ? pick(WORDS.slice(22, 35), next) : number)),
  (line, next) => tokens(line, next, (parts, i) => parts.splice(i, 1)),
  (line, next) => tokens(line, next, (parts, i) => parts.splice(i, 0, parts[i]!)),
  (line, next) => tokens(line, next, (parts, i, j) => ([parts[i], parts[j]] = [parts[j]!, parts[i]!])),
  (line, next) => tokens(line, next, (parts, i) => (parts[i] = parts[i]!.replace(/\d+/, () => pick(WORDS.slice(22, 35), next)))),
  (line, next, seeds) => tokens(line, next, (parts, i) => parts.splice(i, 0, from(pick(seeds, next), next).split(' ')[0]!)),
  (line, next) => line.replace(/ /g, (blank) => (next() < 0.2 ? pick(['  ', '\t', ' \t', ''], next) : blank)),
  (line) => `${line}\r`,
  (line, next) => `${pick(['\t', '    ', ' \t '], next)}${line}`,
]

function pick<T>(from: readonly T[], next: Random): T {
  return from[Math.floor(next() * from.length)]!
}

function from(line: string, next: Random): string {
  return line.slice(Math.floor(next() * line.length))
}

function edit(line: string, next: Random, length: number, change: (part: string) => string): string {
  const at = Math.floor(next() * (line.length + (length === 0 ? 1 : 0)))
  return line.slice(0, at) + change(line.slice(at, at + length)) + line.slice(at + length)
}

function tokens(line: string, next: Random, change: (parts: string[], i: number, j: number) => unknown): string {
  const parts = line.split(/(?<=>)(?=<)|(?<= )/)
  change(parts, Math.floor(next() * parts.length), Math.floor(next() * parts.length))
  return parts.join('')
}

function mutated(next: Random, seeds: readonly string[]): string {
  let line = pick(seeds, next)
  // mostly one change, so that much of what is left is still near the grammar
  for (let n = next() < 0.7 ? 1 : 1 + Math.floor(next() * 4); n > 0 && line !== ''; n--) line = pick(mutations, next)(line, next, seeds)
  return line.replaceAll('\n', ' ')
}

/** Lines of flows with addresses of their own, whose records no other line has a say in: nothing here waits for an answer or ends for a reason that depends. */
function neighbour(index: number): string {
  const i = 1000 + index - (index % 6)
  const [a, b] = [`198.18.${i >> 8}.${i & 255}`, '198.19.0.1']
  const tuples = `src=${a} dst=${b} sport=${i} dport=443 src=${b} dst=${a} sport=443 dport=${i}`
  const six = `src=2001:db8:ffff::${i} dst=2001:db8:fffe::1 src=2001:db8:fffe::1 dst=2001:db8:ffff::${i}`
  return [
    `[1795348800.000001]\t    [NEW] tcp      6 120 SYN_RECV ${tuples} id=${i}`,
    `[1795348800.500001]\t [UPDATE] tcp      6 432000 ESTABLISHED ${tuples} [ASSURED] id=${i}`,
    `[1795348801.000001]\t[DESTROY] tcp      6 TIME_WAIT ${tuples} packets=1 bytes=18446744073709551615 [ASSURED] id=${i}`,
    `    [NEW] unknown  50 600 ${six}`,
    `-U -t 600 -u SEEN_REPLY -s ${a} -d ${b} -r ${b} -q ${a} -p udp --sport ${i} --dport 53 --reply-port-src 53 --reply-port-dst ${i}`,
    `[DESTROY] unknown  50 ${six} [USERSPACE] portid=7 progname=a b`,
  ][index % 6]!
}

/** The records of neighbours, flows by the order in which they come first. */
function neighboursOf(lines: readonly string[]): string[] {
  const flows = new Map<string, number>()
  return lines
    .filter((line) => /"198\.1[89]\.|"2001:db8:fff[ef]:/.test(line) && line.includes('"type":"flow"'))
    .map((line) => line.replace(/"flow":"([0-9a-f]{16})"/, (_, flow: string) => `"flow":${flows.get(flow) ?? (flows.set(flow, flows.size), flows.size - 1)}`))
}

/** The tool's closing sum in the middle of a row: the next line is its rest, so what follows is no neighbour. */
const TORN = /.conntrack v\S+ \(conntrack-tools\): \d+ [a-z ]+ ha(?:ve|s) been shown\.\r?$/

function keysIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  const parts = Object.values(value).reduce((sum: number, part) => sum + keysIn(part), 0)
  return Array.isArray(value) ? parts : parts + Object.keys(value).length
}

function parsed(line: string): Record<string, unknown> | null {
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return null
  }
}

function expectSound({ bytes, text, lines, tally }: Result, input: Uint8Array, lineCount: number): void {
  expect(tally).toMatchObject({ lines: lineCount, bytes: input.length })
  expect(tally.flows + tally.expects + tally.kernel + tally.notes + tally.ignored + tally.rejected).toBe(tally.lines)
  expect(Buffer.from(text).equals(bytes), 'output is UTF-8').toBe(true)
  expect(text === '' || text.endsWith('\n')).toBe(true)
  const given = new Set(Buffer.from(input).toString('utf8').split(/\r?\n/).map((line) => line.trim()))
  const rejected = new Set<number>()
  const written = new Map<unknown, number>()
  for (const line of lines) {
    const record = parsed(line)
    if (record === null) expect.fail(`no JSON: ${line}`)
    // our own records are passed on as they stand
    const keys = given.has(line) ? keysIn(record) : [...line.matchAll(/"(?:[^"\\]|\\.)*"(:?)/g)].filter(([, colon]) => colon !== '').length
    if (keys !== keysIn(record)) expect.fail(`a key stands twice in ${line}`)
    written.set(record['type'], (written.get(record['type']) ?? 0) + 1)
    if (record['type'] !== 'reject') continue
    if (rejected.has(record['line'] as number)) expect.fail(`two rejects of one line: ${line}`)
    rejected.add(record['line'] as number)
  }
  expect(rejected.size).toBe(tally.rejected)
  const { flow = 0, expect: expected = 0, kernel = 0, gap = 0, reject = 0 } = Object.fromEntries(written) as Record<string, number>
  expect({ flow, expected, gap, reject }).toEqual({ flow: tally.flows, expected: tally.expects, gap: tally.gaps, reject: tally.rejected })
  // one line may hold several, and counts once
  expect(kernel).toBeGreaterThanOrEqual(tally.kernel)
}

/** Line number, from 1, of each record, from the offset in its id. */
function placesOf({ lines }: Result, input: Uint8Array): number[] {
  const starts = [0]
  for (let at = input.indexOf(10); at >= 0; at = input.indexOf(10, at + 1)) starts.push(at + 1)
  return lines.map((line) => {
    const offset = Number(/"rid":"r:(\d+)/.exec(line)![1])
    let [low, high] = [0, starts.length - 1]
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (starts[middle]! <= offset) low = middle
      else high = middle - 1
    }
    return low + 1
  })
}

/** Times behind 2106 have more than 32 bits; nobody's clock shows them. */
const FAR = /^[ \t]*\[\d{11}|^[ \t]*\[[5-9]\d{9}|^[ \t]*\[4[2-9]\d{8}|[<=].*?(?:year>|:\d\d )(?:2[1-9]|[3-9]\d)\d\d|<(?:start|stop)>(?:\d{20}|[5-9])/

/** Ends of dumps decide which rows are forgotten; among mutated rows there is no saying which dump was whole. */
const DUMP_ENDS = /flow entries ha|<\/conntrack>/

/** A time hours away decides which rows have run out, and that is for other tests. */
const OTHER_TIME = /^[ \t]*\[(?!17953488\d\d\.)\d|<when>(?!<hour>12<\/hour><min>0<\/min><sec>0<\/sec><wday>1<\/wday><day>22<\/day><month>11<\/month><year>2026<\/year>)/

const bytesOf = (lines: readonly string[]): Buffer => Buffer.from(lines.map((line) => `${line}\n`).join(''), 'latin1')

/**
 * The share of lines that only one of the two may take for a record. The contract is silent on most that no tool prints: tabs for blanks, a word given twice,
 * strange attributes of an element.
 */
const DISAGREEMENTS_MAX = 0.05
/** Records of one line that are not the same: none in the lines of every day, of a million a few that the contract is silent on. */
const DIFFERENCES_MAX = long ? LINES / 20_000 : 0

describe('mutated lines', () => {
  test('give whole records or one reject, and leave their neighbours alone', async () => {
    const seed = newSeed('mutated lines')
    for (const slice of slices) {
      const next = random(seed + slice)
      const lines: string[] = []
      const good: string[] = []
      for (let i = 1; i <= SLICE; i++) {
        const line = mutated(next, all)
        lines.push(line)
        if (TORN.test(line)) continue
        good.push(neighbour(good.length))
        lines.push(good.at(-1)!)
      }
      const input = bytesOf(lines)
      const got = await runPieces(slice % 4 === 0 ? randomCuts(input, next, 500) : [input], { emit })
      expectSound(got, input, lines.length)
      const alone = neighboursOf((await runPieces([bytesOf(good)])).lines)
      expect(alone.length).toBe(good.length)
      const among = neighboursOf(got.lines)
      const at = alone.findIndex((line, i) => line !== among[i])
      if (at >= 0 || among.length !== alone.length) expect.fail(`seed ${seed + slice}: neighbour ${at}\n  alone ${alone[at]}\n  among ${among[at]}\n  behind ${JSON.stringify(lines[lines.indexOf(good[at]!) - 1])}`)
    }
  }, timeout)

  test('are what the reference thinks they are', async () => {
    let disagreements = 0
    const differing: string[] = []
    // whether a name may end in a blank is not laid down, so no line does
    const shown: string[] = []
    for (const slice of slices) {
      const next = random(Number(process.env['CONNTRAIL_SEED'] ?? 1_000_000) + slice)
      let lines = Array.from({ length: SLICE }, () => mutated(next, known).replace(/[ \t]+(\r?)$/, '$1')).filter((line) => !FAR.test(line) && !DUMP_ENDS.test(line) && !OTHER_TIME.test(line))
      // lines that only one of the two takes for a record are set aside, until the streams are such that the records can be compared one by one
      for (;;) {
        const input = bytesOf(lines)
        const got = await runPieces([input], { emit: emit.filter((type) => type !== 'reject'), rid: true })
        const want = reference(input, { received: RECEIVED })
        const [program, other] = [new Set(placesOf(got, input)), new Set(want.places)]
        const apart = lines.flatMap((_, i) => (program.has(i + 1) === other.has(i + 1) ? [] : [i]))
        if (apart.length === 0) {
          const plain = await runPieces([input])
          const found = describeDifferences({ ...plain, tally: { ...plain.tally, ignored: want.sums.ignored, rejected: want.sums.rejected } as never }, want)
          if (found === '') break
          const at = (want.places[Number(/^record (\d+)/m.exec(found)?.[1] ?? 0) - 1] ?? 0) - 1
          if (at < 0) expect.fail(`slice ${slice}: ${found}`)
          differing.push(`slice ${slice}: ${JSON.stringify(lines[at])}\n${found}`)
          lines = lines.filter((_, i) => i !== at)
          continue
        }
        disagreements += apart.length
        for (const i of apart) shown.push(`${program.has(i + 1) ? 'only program ' : 'only reference '}${JSON.stringify(lines[i])}`)
        lines = lines.filter((_, i) => !apart.includes(i))
      }
    }
    expect(differing.length, differing.join('\n')).toBeLessThanOrEqual(DIFFERENCES_MAX)
    expect(disagreements / LINES, shown.slice(0, 20).join('\n')).toBeLessThanOrEqual(DISAGREEMENTS_MAX)
  }, timeout)
})
