/**
 * Our own NDJSON records, read back: one pass over the bytes checks that the line is JSON and notes where the values lie. Nothing is made anew of it: numbers of 64 bits
 * keep their digits, and keys of later versions stay. A value is parsed only when a condition asks for it.
 */
import { RECORD_BYTES_MAX, recordTypes, type RecordType, type Time, timeSourceNames } from '../event.js'
import { fraction } from './kernel-log/clock.js'

const QUOTE = 34
const BACKSLASH = 92
const BRACE = 123
const SECONDS_CHARS = 19
/** Nothing of ours goes deeper than three. */
const DEPTH_MAX = 64
/** A run adds its id to a record that has none: that must fit too. */
const ID_BYTES = 64
/** The longest of ours, a flow, has about 30. */
const MEMBERS_MAX = 64
/** where a key begins, its length, where its value begins, its length */
const KEY_AT = 0
const KEY_LEN = 1
const VALUE_AT = 2
const VALUE_LEN = 3
const SIZE = 4

/** One record at a time; what it gives is good as long as the bytes are. */
export class ReadBack {
  bytes: Uint8Array = new Uint8Array(0)
  from = 0
  to = 0
  sec = 0
  usec = 0
  type: RecordType = 'flow'
  readonly #members = new Int32Array(MEMBERS_MAX * SIZE)
  #count = 0
  /** a key with an escape in it, or more members than are noted: then only JSON.parse finds them all */
  #isOdd = false
  #hasHighBytes = false
  #parsed: Readonly<Record<string, unknown>> | null = null
  /** its keys, each parsed when it is looked at; large numbers lose digits there */
  readonly keys: Readonly<Record<string, unknown>> = new Proxy({}, { get: (_, key) => this.value(key as string), has: (_, key) => this.value(key as string) !== undefined })
  /** the last time as text up to the second, for records come in the order of time */
  #secondText = ''
  #second = 0

  /** Is this a record of ours? Behind it stands an LF or a blank. */
  read(bytes: Uint8Array, from: number, to: number): boolean {
    return this.#isObject(bytes, from, to) && this.#isRecord()
  }

  get idAt(): number {
    if (this.value('rid') !== undefined) return -1
    const at = this.#find('v')
    return at < 0 ? this.from : this.#members[at + VALUE_AT]! + this.#members[at + VALUE_LEN]!
  }

  get timeSource(): number {
    return Math.max(0, timeSourceNames.indexOf(this.value('time_source') as (typeof timeSourceNames)[number]))
  }

  #isObject(bytes: Uint8Array, from: number, to: number): boolean {
    this.bytes = bytes
    this.from = from
    this.to = to
    this.#count = 0
    this.#isOdd = false
    this.#hasHighBytes = false
    this.#parsed = null
    return bytes[from] === BRACE && this.#object(from, 0) === to && (!this.#hasHighBytes || isUtf8(bytes.subarray(from, to)))
  }

  /** Of a type and version that this release writes. */
  #isRecord(): boolean {
    if (this.to - this.from >= RECORD_BYTES_MAX - ID_BYTES || this.value('v') !== 1) return false
    const type = this.value('type')
    const time = this.value('time')
    const known = recordTypes.find((name) => name === type)
    if (known === undefined || typeof time !== 'string') return false
    this.type = known
    return this.#readTime(time)
  }

  /** One of its keys, as JSON.parse gives it; undefined where it has not got it. */
  value(key: string): unknown {
    if (this.#isOdd) return this.#whole()[key]
    const at = this.#find(key)
    if (at < 0) return undefined
    const { bytes } = this
    const from = this.#members[at + VALUE_AT]!
    const to = from + this.#members[at + VALUE_LEN]!
    if (bytes[from] !== QUOTE) return this.#parse(from, to)
    let text = ''
    for (let i = from + 1; i < to - 1; i++) {
      const c = bytes[i]!
      if (c === BACKSLASH || c >= 128) return this.#parse(from, to)
      text += String.fromCharCode(c)
    }
    return text
  }

  #whole(): Readonly<Record<string, unknown>> {
    return (this.#parsed ??= this.#parse(this.from, this.to) as Record<string, unknown>)
  }

  #parse(from: number, to: number): unknown {
    return JSON.parse(decoder.decode(this.bytes.subarray(from, to)))
  }

  #readTime(text: string): boolean {
    const second = text.slice(0, SECONDS_CHARS)
    if (second !== this.#secondText) {
      const time = timeOf(text)
      if (time === null) return false
      this.#secondText = second
      this.#second = time.sec
      this.usec = time.usec
    } else {
      const rest = /^(?:\.(\d+))?Z$/.exec(text.slice(SECONDS_CHARS))
      if (rest === null) return false
      this.usec = fraction(rest[1])
    }
    this.sec = this.#second
    return true
  }

  /** Of several with one name the last, as JSON.parse has it. */
  #find(key: string): number {
    const { bytes } = this
    const members = this.#members
    for (let at = (this.#count - 1) * SIZE; at >= 0; at -= SIZE) {
      if (members[at + KEY_LEN] !== key.length) continue
      const from = members[at + KEY_AT]!
      let i = 0
      while (i < key.length && bytes[from + i] === key.charCodeAt(i)) i++
      if (i === key.length) return at
    }
    return -1
  }

  // Each of these takes the offset where something begins and gives the one behind it, -1 where it is none. A control character ends every string, so none looks at a bound.

  #object(at: number, depth: number): number {
    const { bytes } = this
    let p = this.#blanks(at + 1)
    if (bytes[p] === 125) return p + 1
    for (;;) {
      const key = p + 1
      p = bytes[p] === QUOTE ? this.#string(p, depth === 0) : -1
      if (p < 0) return -1
      const keyLen = p - 1 - key
      p = this.#blanks(p)
      if (bytes[p] !== 58) return -1
      const value = this.#blanks(p + 1)
      p = this.#value(value, depth + 1)
      if (p < 0) return -1
      if (depth === 0) this.#note(key, keyLen, value, p - value)
      p = this.#blanks(p)
      if (bytes[p] === 125) return p + 1
      if (bytes[p] !== 44) return -1
      p = this.#blanks(p + 1)
    }
  }

  #note(key: number, keyLen: number, value: number, valueLen: number): void {
    if (this.#count === MEMBERS_MAX) {
      this.#isOdd = true
      return
    }
    const at = this.#count++ * SIZE
    this.#members[at + KEY_AT] = key
    this.#members[at + KEY_LEN] = keyLen
    this.#members[at + VALUE_AT] = value
    this.#members[at + VALUE_LEN] = valueLen
  }

  #array(at: number, depth: number): number {
    const { bytes } = this
    let p = this.#blanks(at + 1)
    if (bytes[p] === 93) return p + 1
    for (;;) {
      p = this.#value(p, depth + 1)
      if (p < 0) return -1
      p = this.#blanks(p)
      if (bytes[p] === 93) return p + 1
      if (bytes[p] !== 44) return -1
      p = this.#blanks(p + 1)
    }
  }

  #value(at: number, depth: number): number {
    const c = this.bytes[at]!
    if (c === QUOTE) return this.#string(at, false)
    if (c === 45 || (c >= 48 && c <= 57)) return this.#number(at)
    if (depth > DEPTH_MAX) return -1
    if (c === BRACE) return this.#object(at, depth)
    if (c === 91) return this.#array(at, depth)
    return c === 116 ? this.#word(at, 'true') : c === 102 ? this.#word(at, 'false') : c === 110 ? this.#word(at, 'null') : -1
  }

  #string(at: number, isKey: boolean): number {
    const { bytes } = this
    let p = at + 1
    for (;;) {
      const c = bytes[p]!
      if (c === QUOTE) return p + 1
      // a control character; behind the end of a shorter array nothing stands
      if (!(c >= 32)) return -1
      if (c >= 128) this.#hasHighBytes = true
      if (c === BACKSLASH) {
        if (isKey) this.#isOdd = true
        const next = bytes[++p]!
        if (next === 117) {
          for (let i = 1; i <= 4; i++) if (!isHex(bytes[p + i]!)) return -1
          p += 4
        } else if (!ESCAPED.includes(next)) return -1
      }
      p++
    }
  }

  #number(at: number): number {
    const { bytes } = this
    let p = bytes[at] === 45 ? at + 1 : at
    if (bytes[p] === 48) p++
    else if ((p = this.#digits(p)) < 0) return -1
    if (bytes[p] === 46 && (p = this.#digits(p + 1)) < 0) return -1
    if (bytes[p] !== 101 && bytes[p] !== 69) return p
    p++
    return this.#digits(bytes[p] === 43 || bytes[p] === 45 ? p + 1 : p)
  }

  #digits(at: number): number {
    const { bytes } = this
    let p = at
    while (bytes[p]! >= 48 && bytes[p]! <= 57) p++
    return p === at ? -1 : p
  }

  #word(at: number, text: string): number {
    for (let i = 0; i < text.length; i++) if (this.bytes[at + i] !== text.charCodeAt(i)) return -1
    return at + text.length
  }

  /** Within a line: an LF is none. */
  #blanks(at: number): number {
    const { bytes } = this
    let p = at
    while (bytes[p] === 32 || bytes[p] === 9 || bytes[p] === 13) p++
    return p
  }
}

/** Of a document that is laid out over several lines: on one, every value as it stands. */
export function onOneLine(text: string): string {
  return text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, '$1')
}

/** `"\/bfnrt` */
const ESCAPED = [34, 92, 47, 98, 102, 110, 114, 116]
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
const strict = new TextDecoder('utf-8', { fatal: true })

function isHex(c: number): boolean {
  return (c >= 48 && c <= 57) || (c >= 65 && c <= 70) || (c >= 97 && c <= 102)
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    strict.decode(bytes)
    return true
  } catch {
    return false
  }
}

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/

/** null for what is no time. */
function timeOf(text: string): Time | null {
  const found = RFC3339.exec(text)
  const sec = found === null ? NaN : Date.parse(`${found[1]}Z`) / 1000
  return found === null || Number.isNaN(sec) ? null : { sec, usec: fraction(found[2]) }
}
