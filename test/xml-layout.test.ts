/** XML as editors and XML tools lay it out: however an element is spread over lines, its record is that of the tool's one line. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { byteByByte, random, randomCuts, runPieces, runText } from './harness.js'

const captures = ['rich.E-xml', 'rich.L-xml', 'nat.E-xml-timestamp-ktimestamp', 'protocols.E-xml', 'zones.L-xml', 'labels.E-xml-labels', 'labels.L-xml-labels', 'ftp.E-expect-xml', 'protocols.E-expect-xml', 'ftp.L-expect-xml', 'ftp6.E-xml-timestamp-ktimestamp']
const linesOf = (name: string): string[] => readFileSync(new URL(`../fixtures/${name}.linux-6.18.conntrack-1.4.7.in`, import.meta.url), 'utf8').split('\n').slice(0, -1)

interface Layout {
  readonly indent: string
  readonly lineEnd?: string
  readonly tag?: (tag: string, margin: string) => string
  /** values have lines of their own */
  readonly spread?: boolean
  readonly empty?: 'closed' | 'open'
  readonly blankLines?: boolean
}

/** The tool's line laid out. Names of labels may hold anything, so they are no tags. */
function laidOut(line: string, { indent, lineEnd = '\n', tag = (text) => text, spread = false, empty, blankLines = false }: Layout): string {
  if (!line.includes('<')) return `${line}${lineEnd}`
  const close = line.indexOf('</flow>')
  const [element, suffix] = close < 0 ? [line, ''] : [line.slice(0, close + 7), line.slice(close + 7)]
  const parts = element
    .replace(/<(\w[\w-]*)((?: [^<>]*)?)><\/\1>/g, (whole, name: string, attributes: string) => (empty === 'closed' ? `<${name}${attributes}/>` : whole))
    .replace(/<([\w-]+)\/>/g, (whole, name: string) => (empty === 'open' ? `<${name}></${name}>` : whole))
    .match(/<label>.*?<\/label>|<[^>]*>|[^<]+/g)!
  const lines: string[] = []
  let depth = 0
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!
    const margin = indent.repeat(Math.max(0, depth))
    if (part.startsWith('</')) {
      lines.push(indent.repeat(Math.max(0, --depth)) + part)
    } else if (!part.startsWith('<') || part.endsWith('/>') || /^<[?]|<label>/.test(part)) {
      lines.push(margin + (part.endsWith('/>') ? tag(part, margin) : part))
    } else if (!spread && parts[i + 1]?.startsWith('<') !== true && parts[i + 2]?.startsWith('</')) {
      lines.push(margin + part + parts[i + 1]! + parts[i + 2]!)
      i += 2
    } else {
      lines.push(margin + tag(part, margin))
      depth++
    }
    if (blankLines && i < parts.length - 1) lines.push('')
  }
  return lines.map((text, i) => text + (i === lines.length - 1 ? suffix : '') + lineEnd).join('')
}

const layouts: readonly (readonly [string, Layout])[] = [
  ['three blanks', { indent: '   ' }],
  ['TABs', { indent: '\t' }],
  ['no indentation', { indent: '' }],
  ['CR and LF', { indent: '  ', lineEnd: '\r\n' }],
  ['values in lines of their own, blank lines between', { indent: '\t', spread: true, blankLines: true }],
  ['attributes the other way round, in single quotes', { indent: ' ', tag: (tag) => tag.replace(/ (\w+)="(\w+)"(?: (\w+)="(\w+)")?/, (_, a, b, c, d) => (c === undefined ? ` ${a}='${b}'` : `  ${c}='${d}'  ${a} = "${b}"`)) }],
  ['attributes in lines of their own', { indent: '  ', tag: (tag, margin) => tag.replace(/ (\w+="\w+")/g, `\n${margin}     $1`) }],
  ['empty elements close themselves', { indent: '  ', empty: 'closed' }],
  ['empty elements have an end', { indent: '  ', empty: 'open' }],
  ['blanks before the end of a tag', { indent: '  ', empty: 'closed', tag: (tag) => tag.replace(/(\/?>)$/, ' $1') }],
]

describe.each(layouts)('%s:', (_, layout) => {
  test.each(captures)('%s', async (name) => {
    const lines = linesOf(name)
    const whole = await runText(`${lines.join('\n')}\n`)
    const text = lines.map((line) => laidOut(line, layout)).join('')
    expect(text.split('\n').length).toBeGreaterThan(lines.length * 5)
    const got = await runText(text)
    expect(got.lines).toEqual(whole.lines)
    const { flows, expects, rejected, lines: count, ignored } = got.tally
    expect({ flows, expects, rejected }).toEqual({ flows: whole.tally.flows, expects: whole.tally.expects, rejected: 0 })
    expect(count).toBe(text.split('\n').length - 1)
    expect(flows + expects + ignored).toBe(count)
  })
})

test('however the stream is cut into pieces', async () => {
  const bytes = Buffer.from(linesOf('nat.E-xml-timestamp-ktimestamp').slice(0, 8).map((line) => laidOut(line, { indent: '\t', lineEnd: '\r\n' })).join(''))
  const whole = await runPieces([bytes], { rid: true })
  expect(whole.tally.flows).toBe(6)
  for (const pieces of [byteByByte(bytes), randomCuts(bytes, random(1), 30), randomCuts(bytes, random(2), 700)]) expect(await runPieces(pieces, { rid: true })).toMatchObject({ text: whole.text, tally: whole.tally })
  expect((await runPieces([bytes], { rid: true, once: true })).text).toBe(whole.text)
})

describe('an element that breaks off', () => {
  const element = laidOut(linesOf('rich.E-xml').find((line) => line.startsWith('<flow'))!, { indent: '  ' })
  const half = element.split('\n').slice(0, 7).join('\n')
  const row = 'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n'

  test.each([
    ['before the next one', `${half}\n${element}`, 2],
    ['before a row', `${half}\n${row}${element}`, 4],
    ['before the end of all', `${half}\n</conntrack>\n${element}`, 3],
    ['before a line of the kernel', `${half}\n[12345.678901] nf_conntrack: table full, dropping packet\n${element}`, 4],
  ])('%s is one reject, and what follows is whole', async (_, text) => {
    const { tally, lines } = await runText(text, { emit: ['flow', 'reject'] })
    const rejects = lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter((record) => record['type'] === 'reject')
    expect(rejects).toMatchObject([{ line: 1, reason: 'the element is cut off', text: '<flow type="new">' }])
    expect(tally.flows).toBe(text.includes('udp') ? 2 : 1)
    expect(tally.lines).toBe(text.split('\n').length - 1)
  })

  test('at the end of the input is one reject', async () => {
    const { tally } = await runText(half)
    expect(tally).toMatchObject({ lines: 7, rejected: 1, ignored: 6 })
  })

  test('has the number of its first line where it is whole and broken', async () => {
    const { lines, tally } = await runText(`${row}${element.replace(/<src>[^<]*/, '<src>nowhere')}${row}`, { emit: ['reject'] })
    expect(JSON.parse(lines[0]!)).toMatchObject({ line: 2, reason: '<src> holds no such value' })
    expect(tally).toMatchObject({ rejected: 1, flows: 2 })
  })

  test('and a document of JSON that breaks off have the numbers of their own lines', async () => {
    const { lines } = await runText(`${row}{\n  "a": 1,\n${half}\n{"b"\n`, { emit: ['reject'] })
    // the document may go on until another begins
    expect(lines.map((line) => (JSON.parse(line) as { line: number }).line)).toEqual([4, 2, 11])
  })

  test('without an end in sight is given up', async () => {
    const { tally } = await runText(`${half}\n${'    <dst>10.0.0.1</dst>\n'.repeat(5000)}${row}`)
    expect(tally).toMatchObject({ rejected: 1, flows: 1 })
  })
})
