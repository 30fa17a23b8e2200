/** A record on its way into a body: the line as it was written, and the few of its keys that every body needs. */

/** Values are as JSON.parse gives them: counters above 2^53 lose digits, so a body that must keep them copies `bytes`. */
export type RecordValue = Readonly<Record<string, unknown>>

export interface BodyRecord {
  /** one JSON object, without the newline */
  readonly bytes: Uint8Array
  /** flow, alert, gap …; '' where the line has none */
  readonly type: string
  /** '' where the line has none */
  readonly rid: string
}

const LF = 10
const decoder = new TextDecoder()
const encoder = new TextEncoder()
/** Longest head that is looked at: `time`, `type`, `v` and `rid` stand first in every record that the program writes. */
const HEAD_BYTES = 192
const HEAD = /^\{(?:"time":"[^"\\]*",)?"type":"(\w+)","v":\d+,"rid":"([^"\\]*)"/

/** A line without its newline. `type` and `rid` are read from its head, where every record of the program has them. */
export function recordOf(bytes: Uint8Array): BodyRecord {
  const [, type, rid] = HEAD.exec(decoder.decode(bytes.subarray(0, HEAD_BYTES))) ?? []
  if (type !== undefined && rid !== undefined) return { bytes, type, rid }
  const value = valueOf({ bytes })
  return { bytes, type: textOr(value['type'], ''), rid: textOr(value['rid'], '') }
}

/** The lines of a page, as views into it, without their newlines. Empty lines are left out. */
export function linesOf(page: Uint8Array): Uint8Array[] {
  const lines: Uint8Array[] = []
  for (let at = 0; at < page.length; ) {
    const lf = page.indexOf(LF, at)
    const end = lf < 0 ? page.length : lf
    if (end > at) lines.push(page.subarray(at, end))
    at = end + 1
  }
  return lines
}

/** The record as an object; an empty one where the line is no JSON object. */
export function valueOf({ bytes }: Pick<BodyRecord, 'bytes'>): RecordValue {
  try {
    const value: unknown = JSON.parse(decoder.decode(bytes))
    return isMap(value) ? value : {}
  } catch {
    return {}
  }
}

export function isMap(value: unknown): value is RecordValue {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function textOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise
}

/** What a gap record says is missing. A clock that was set loses nothing by itself. */
export function lossOf(record: RecordValue): string {
  if (record['cause'] === 'clock_jump') return `the clock was set from ${textOr(record['from'], '?')} to ${textOr(record['to'], '?')}`
  return `${typeof record['count'] === 'number' ? String(record['count']) : `at least ${String(record['at_least'] ?? 1)}`} lost`
}

export function encode(text: string): Uint8Array {
  return encoder.encode(text)
}

export function decode(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/** `open`, the parts with `between` between them, `close`. */
export function joined(parts: readonly Uint8Array[], open: string, between: string, close: string): Uint8Array {
  const [first, gap, last] = [encode(open), encode(between), encode(close)]
  const length = parts.reduce((sum, part) => sum + part.length, first.length + last.length + gap.length * Math.max(0, parts.length - 1))
  const bytes = new Uint8Array(length)
  let at = 0
  const put = (part: Uint8Array): void => {
    bytes.set(part, at)
    at += part.length
  }
  put(first)
  parts.forEach((part, i) => {
    if (i > 0) put(gap)
    put(part)
  })
  put(last)
  return bytes
}
