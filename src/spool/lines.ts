/** What the spool must know of records, found in their bytes: where they end, of which type they are, their time. */
import type { Time } from '../event.js'

const LF = 10
const QUOTE = 34
const TYPE_KEY = Buffer.from('"type":"')
/** as printed, `{"time":"2026-11-22T09:58:32.390102Z","type":"`: the type is always here */
const TYPE_AT = 46
const TIME_AT = 9
const SECONDS_CHARS = 19

/** Records whose number makes them what is shed first: what they say in sum is in the samples, alerts and gap records. */
const SHED = new Set(['flow', 'kernel', 'expect', 'reject'])

export function isShedFirst(type: string): boolean {
  return SHED.has(type)
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** What ends without an LF gets one. */
export function wholeLines(bytes: Uint8Array): Buffer {
  return bytes.length === 0 || bytes[bytes.length - 1] === LF ? asBuffer(bytes) : Buffer.concat([bytes, Buffer.of(LF)])
}

/** Calls with the range of each line, LF excluded. */
export function eachLine(lines: Buffer, call: (from: number, to: number) => void): void {
  for (let from = 0; from < lines.length; ) {
    const to = lines.indexOf(LF, from)
    call(from, to)
    from = to + 1
  }
}

export function countLines(lines: Buffer): number {
  let count = 0
  for (let at = lines.indexOf(LF); at >= 0; at = lines.indexOf(LF, at + 1)) count++
  return count
}

/** Ranges of whole lines of at most `bytes`; a longer line is a range of its own. */
export function pieces(lines: Buffer, bytes: number): Buffer[] {
  const found: Buffer[] = []
  for (let from = 0; from < lines.length; ) {
    const fitting = lines.length - from <= bytes ? lines.length - 1 : lines.lastIndexOf(LF, from + bytes - 1)
    const end = (fitting >= from ? fitting : lines.indexOf(LF, from)) + 1
    found.push(lines.subarray(from, end))
    from = end
  }
  return found
}

/** The record's type, '' where there is none. Known names are not made anew for each. */
export function typeOf(lines: Buffer, from: number, to: number): string {
  let at = from + TYPE_AT
  if (at >= to || !isTypeKey(lines, at - TYPE_KEY.length)) {
    const found = lines.subarray(from, to).indexOf(TYPE_KEY)
    if (found < 0) return ''
    at = from + found + TYPE_KEY.length
  }
  // 'f' 'l', and the quote behind `flow`
  if (lines[at] === 102 && lines[at + 1] === 108 && lines[at + 4] === QUOTE) return 'flow'
  const end = lines.indexOf(QUOTE, at)
  return end < 0 || end > to ? '' : lines.toString('latin1', at, end)
}

function isTypeKey(lines: Buffer, at: number): boolean {
  for (let i = 0; i < TYPE_KEY.length; i++) if (lines[at + i] !== TYPE_KEY[i]) return false
  return true
}

/** The record's time, null where it does not begin with one. */
export function timeOf(lines: Buffer, from: number): Time | null {
  if (lines[from + 1] !== QUOTE || lines.toString('latin1', from, from + TIME_AT) !== '{"time":"') return null
  const at = from + TIME_AT
  const milliseconds = Date.parse(`${lines.toString('latin1', at, at + SECONDS_CHARS)}Z`)
  const usec = Number(lines.toString('latin1', at + SECONDS_CHARS + 1, at + SECONDS_CHARS + 7))
  return Number.isNaN(milliseconds) || Number.isNaN(usec) ? null : { sec: milliseconds / 1000, usec }
}

/** Times of the first and the last line. */
export function spanOf(lines: Buffer): Span {
  if (lines.length === 0) return { from: null, to: null }
  return { from: timeOf(lines, 0), to: timeOf(lines, lines.length < 2 ? 0 : lines.lastIndexOf(LF, lines.length - 2) + 1) }
}

export interface Span {
  readonly from: Time | null
  readonly to: Time | null
}

/** Both together. */
export function spanOfBoth(a: Span, b: Span): Span {
  return {
    from: a.from === null || b.from === null ? (a.from ?? b.from) : isBefore(a.from, b.from) ? a.from : b.from,
    to: a.to === null || b.to === null ? (a.to ?? b.to) : isBefore(a.to, b.to) ? b.to : a.to,
  }
}

function isBefore(a: Time, b: Time): boolean {
  return a.sec < b.sec || (a.sec === b.sec && a.usec < b.usec)
}
