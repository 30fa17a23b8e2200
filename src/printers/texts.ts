/**
 * Prepared texts: everything constant in a record lies in one buffer and is copied eight bytes at a time, past its end into the slack. A text is named by one
 * number, offset and length. Copying through getFloat64 is safe because a text is ASCII and so is never the bits of a NaN; bytes of the input are copied by four
 * as integers. (Native copies cost 4 to 6 times as much for ranges this short, single bytes 1.6 times.)
 */
import { pageView } from '../event.js'
import { outView } from './pages.js'

/** The most that a name has bits for. All heads of records (events, families and protocols) with the longest host name take less than half of it. */
const TEXT_BYTES = 1 << 21
const LENGTH_BITS = 11

const store = new Uint8Array(TEXT_BYTES + 16)
const storeView = new DataView(store.buffer)
const target = outView
const source = pageView
const end = { at: 0 }
const known = new Map<string, number>()

/** A number that names this ASCII text from now on. */
export function prepare(text: string): number {
  let name = known.get(text)
  if (name !== undefined) return name
  if (text.length >= 1 << LENGTH_BITS || end.at + text.length > TEXT_BYTES) throw new RangeError(`no room for the prepared text ${text.slice(0, 80)}`)
  name = (end.at << LENGTH_BITS) | text.length
  for (let i = 0; i < text.length; i++) store[end.at + i] = text.charCodeAt(i)
  end.at += (text.length + 8) & ~7
  known.set(text, name)
  return name
}

/** A text that changes but keeps its length, for what stays the same over many records. */
export function prepareSlot(text: string): number {
  const name = (end.at << LENGTH_BITS) | text.length
  end.at += (text.length + 8) & ~7
  rewrite(name, text)
  return name
}

export function rewrite(name: number, text: string): void {
  for (let i = 0; i < text.length; i++) store[(name >>> LENGTH_BITS) + i] = text.charCodeAt(i)
}

/** Copies a prepared text to `at` and gives the offset behind it. */
export function put(at: number, name: number): number {
  const from = name >>> LENGTH_BITS
  const length = name & ((1 << LENGTH_BITS) - 1)
  for (let i = 0; i < length; i += 8) target.setFloat64(at + i, storeView.getFloat64(from + i, true), true)
  return at + length
}

/** Copies bytes of the batch as they stand. */
export function copy(at: number, from: number, length: number): number {
  for (let i = 0; i < length; i += 4) target.setInt32(at + i, source.getInt32(from + i, true), true)
  return at + length
}

/** A prepared text and bytes of the batch behind it, in one go: most of a record is such pairs, and the call costs as much as a short copy. */
export function putCopy(at: number, name: number, from: number, length: number): number {
  const text = name >>> LENGTH_BITS
  const textLength = name & ((1 << LENGTH_BITS) - 1)
  for (let i = 0; i < textLength; i += 8) target.setFloat64(at + i, storeView.getFloat64(text + i, true), true)
  const p = at + textLength
  for (let i = 0; i < length; i += 4) target.setInt32(p + i, source.getInt32(from + i, true), true)
  return p + length
}

/** A whole number up to 2^53. */
export function putInteger(at: number, value: number): number {
  if (value < 10) {
    target.setInt32(at, 48 + value, true)
    return at + 1
  }
  if (value < 1000) {
    const digits = threeDigits[value]
    if (value >= 100) {
      target.setInt32(at, digits, true)
      return at + 3
    }
    target.setInt32(at, digits >>> 8, true)
    return at + 2
  }
  const thousands = Math.floor(value / 1000)
  const p = putInteger(at, thousands)
  target.setInt32(p, threeDigits[value - thousands * 1000], true)
  return p + 3
}

/** 0 to 999 as three digits, in the low bytes of a word. */
const threeDigits = new Int32Array(1000)
for (let i = 0; i < 1000; i++) threeDigits[i] = (48 + Math.floor(i / 100)) | ((48 + (Math.floor(i / 10) % 10)) << 8) | ((48 + (i % 10)) << 16)

/** Microseconds as six digits. */
export function putMicroseconds(at: number, usec: number): number {
  const thousands = (usec / 1000) | 0
  target.setInt32(at, threeDigits[thousands], true)
  target.setInt32(at + 3, threeDigits[usec - thousands * 1000], true)
  return at + 6
}

/** Microseconds as seconds with at most six digits behind the point, without trailing zeros. */
export function putSeconds(at: number, microseconds: number): number {
  const sec = Math.floor(microseconds / 1e6)
  let usec = microseconds - sec * 1e6
  let p = putInteger(at, sec)
  if (usec === 0) return p
  target.setUint8(p, 46)
  p = putMicroseconds(p + 1, usec)
  while (usec % 10 === 0) {
    usec /= 10
    p--
  }
  return p
}

const hexPairs = new Uint16Array(256)
for (let i = 0; i < 256; i++) hexPairs[i] = '0123456789abcdef'.charCodeAt(i >>> 4) | ('0123456789abcdef'.charCodeAt(i & 15) << 8)

/** 64 bits in two halves as sixteen hex digits. */
export function putHex(at: number, high: number, low: number): number {
  target.setInt32(at, hexPairs[high >>> 24] | (hexPairs[(high >>> 16) & 255] << 16), true)
  target.setInt32(at + 4, hexPairs[(high >>> 8) & 255] | (hexPairs[high & 255] << 16), true)
  target.setInt32(at + 8, hexPairs[low >>> 24] | (hexPairs[(low >>> 16) & 255] << 16), true)
  target.setInt32(at + 12, hexPairs[(low >>> 8) & 255] | (hexPairs[low & 255] << 16), true)
  return at + 16
}
