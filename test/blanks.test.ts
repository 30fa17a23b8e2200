/**
 * Where the tool or the kernel writes a TAB or a run of blanks, any run of either is taken: what terminals, `expand`, editors, logs of other programs and mail make
 * of a capture gives the records of the capture itself, byte for byte.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Result, runText } from './harness.js'

const captures = [
  ...['rich.E-tsx', 'rich.E-plain', 'rich.E-full', 'rich.E-save', 'rich.E-xml', 'rich.L-save', 'rich.proc', 'nat.L-full', 'ftp.E-expect-timestamp', 'ftp.E-expect-xml', 'ftp.L-expect', 'ftp.proc-expect'],
  ...['ftp.E-timestamp-id-and-E-expect-timestamp-one-pipe', 'protocols.proc', 'reset.E-timestamp-id-ktimestamp-extended', 'stderr.L-few-xml', 'stderr.E-xml', 'zones.proc', 'incident.S-after', 'quiet.S'],
].map((name) => `${name}.linux-6.18.conntrack-1.4.7`)
const others = ['invented', 'quiet.proc-stat.linux-6.18', 'case.events-blanks', 'case.rows-indented', 'case.conntrack-S-blanks', 'case.conntrackd-expect', 'case.sctp-no-state']
const text = (name: string): string => readFileSync(new URL(`../fixtures/${name}.in`, import.meta.url), 'utf8')

/** Blanks that belong to a value: names of labels and of programs, and free text. */
const ownBlanks = /labels=|progname=|<|^(?!EXPECTING)[A-Z]|^conntrack v/
const lines = (change: (line: string) => string) => (input: string): string => input.replace(/[^\n]+/g, (line) => (ownBlanks.test(line) ? line : change(line)))
const indented = (blanks: string) => (input: string): string => input.replace(/[^\n]+/g, (line) => `${blanks}${line}`)
const changes: readonly (readonly [string, (input: string) => string])[] = [
  ['TABs are blanks', lines((line) => line.replaceAll('\t', '        '))],
  ['blanks are TABs', lines((line) => line.replace(/ +/g, '\t'))],
  ['runs are one blank', lines((line) => line.replace(/[ \t]+/g, ' '))],
  ['runs are one TAB', lines((line) => line.replace(/[ \t]+/g, '\t'))],
  ['every blank is a run of both', lines((line) => line.replace(/[ \t]/g, ' \t '))],
  ['indented by blanks', indented('    ')],
  ['indented by a TAB', indented('\t')],
  ['indented by both', indented(' \t  ')],
  ['blanks at the end', lines((line) => `${line}  \t `)],
  ['CR and LF', (input) => input.replaceAll('\n', '\r\n')],
  ['TABs and CR and LF, indented', (input) => indented('\t')(lines((line) => line.replace(/[ \t]+/g, '\t'))(input)).replaceAll('\n', '\r\n')],
]

/** Without what is seen of a line as it stands: a reject's text. */
const outcome = ({ text, tally }: Result): unknown => ({ text, ...tally, bytes: 0 })

describe.each(changes)('%s in', (_, change) => {
  test.each([...captures, ...others])('%s', async (name) => {
    const whole = text(name)
    const changed = change(whole)
    expect(outcome(await runText(changed))).toEqual(outcome(await runText(whole)))
  })
})

describe('what only looks like a stamp of the tool', () => {
  test.each([
    '[12345.678901] nf_conntrack: nf_conntrack: table full, dropping packet',
    '   [12345.678901] nf_conntrack: nf_conntrack: table full, dropping packet',
  ])('belongs to the kernel: %s', async (line) => {
    const { tally } = await runText(`${line}\n`)
    expect(tally).toMatchObject({ rejected: 0, flows: 0 })
  })

  test('with other words behind it is nobody’s', async () => {
    const { tally } = await runText('[1338987414.526260] tcp is not a row\n[12345.678901] udp: 5 packets\n[1338987414.526260] [NEWS] of the day\n\tudp is indented\n')
    expect(tally).toMatchObject({ ignored: 4 })
  })
})

test('a line that breaks its grammar is shown as it stood', async () => {
  const line = '\tudp      17\t30 src=10.0.0.1 dst=10.0.0.2 sport=1\tdport=2 [UNREPLIED] nothing'
  const { lines } = await runText(`${line}\n`, { emit: ['reject'] })
  expect((JSON.parse(lines[0]!) as { text: string }).text).toBe(line)
})

test('a row that an editor broke and indented is one', async () => {
  const { tally } = await runText('\tudp      17\t30 src=10.0.0.1 dst=10.0.0.2 sport=1\tdport=2 [UNREPLIED]\n\t\tsrc=10.0.0.2 dst=10.0.0.1\tsport=2 dport=1 mark=0 use=1\n')
  expect(tally).toMatchObject({ lines: 2, flows: 1, ignored: 1 })
})
