/** What editors and XML tools make of the tool's one line for each `<flow>`: an element over many lines, attributes in another order, tags that close themselves. */
import { page } from '../event.js'
import { RECORD_LINE_BYTES_MAX } from '../kernel.js'
import { CR, isAt, latin1, LF, skipBlanks, SPACE } from './scan.js'

/** What `joinElement` says of an element whose end is not there yet. */
export const NOT_WHOLE = -1

/** What begins in a line of its own, never within an element. */
const BEGINS_ANEW = /^<(?:flow[\s>]|flow$|\?|!|\/?conntrack>|\/?expect>)/
/** A value alone in its line, and what may follow it. */
const VALUE = /^[\w.:/,-]+(?:<\/.*)?$/
/** Attributes that have lines of their own, or the end of their tag. */
const REST_OF_TAG = /^(?:[\w:-]+\s*=|\/?>)/

/**
 * Makes one line of a `<flow>` that begins at `at` and ends some lines below, by blanks for the ends of the lines. Gives how many further lines it takes: 0 where it
 * stands in one, or breaks off; NOT_WHOLE where the lines up to `end` may be the beginning of one.
 */
export function joinElement(at: number, end: number): number {
  const from = skipBlanks(at)
  if (page[from] !== 60 || !isAt(from, '<flow')) return 0
  let lineEnd = page.indexOf(LF, from)
  if (lineEnd - at > RECORD_LINE_BYTES_MAX) return 0
  let text = latin1(from, lineEnd).trimEnd()
  let lines = 0
  while (!text.includes('</flow>')) {
    const next = lineEnd + 1
    if (next >= end) return NOT_WHOLE
    lineEnd = page.indexOf(LF, next)
    if (lineEnd - at > RECORD_LINE_BYTES_MAX) return 0
    const line = latin1(next, lineEnd).trim()
    if (!goesOn(text, line)) return 0
    text += line
    lines++
  }
  for (let p = from, left = lines; left > 0; p++) {
    if (page[p] === LF) left--
    if (page[p] === LF || (page[p] === CR && page[p + 1] === LF)) page[p] = SPACE
  }
  return lines
}

function goesOn(text: string, line: string): boolean {
  if (line === '') return true
  if (text.lastIndexOf('<') > text.lastIndexOf('>')) return REST_OF_TAG.test(line)
  return line.startsWith('<') ? !BEGINS_ANEW.test(line) : text.endsWith('>') && VALUE.test(line)
}

/** The value of an attribute among those of a tag. */
export function attributeOf(attributes: string, name: string): string | undefined {
  const found = new RegExp(`(?:^|\\s)${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`).exec(attributes)
  return found?.[1] ?? found?.[2]
}
