/**
 * Reading single values out of `page`: the small scanners that the formats share. Each takes the offset where the value begins and gives the offset behind it,
 * or -1. A line always ends in LF, which no value contains, so none of them looks at a bound. Results lie in `got`, which the next call overwrites.
 */
import { formatAddress6 } from '../address.js'
import { page, pageView, SCRATCH_AT, SCRATCH_END } from '../event.js'

const bytes = page
const view = pageView

export const LF = 10
export const CR = 13
export const SPACE = 32
export const TAB = 9

/** What the scanner found: the number, or the address in words and where its canonical text stands. */
export const got = { value: 0, family: 0, w0: 0, w1: 0, w2: 0, w3: 0, at: 0, len: 0 }

/** The first four bytes of a word as the number that `pageView.getInt32(at, true)` gives. */
export function word(text: string): number {
  return text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)
}

/** Are the bytes at `at` this text? For the places that are not hot. */
export function isAt(at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false
  return true
}

export function skipSpaces(at: number): number {
  while (bytes[at] === SPACE) at++
  return at
}

/** Where the tools write a TAB or a run of blanks, people paste any run of either. */
export function skipBlanks(at: number): number {
  while (bytes[at] === SPACE || bytes[at] === TAB) at++
  return at
}

export function isBlank(c: number): boolean {
  return c === SPACE || c === TAB
}

/** Offset of the LF that ends the line, or of the CR before it. */
export function isLineEnd(at: number): boolean {
  const c = bytes[at]
  return c === LF || (c === CR && bytes[at + 1] === LF)
}

/** Digits without a leading zero, at most 9,007,199,254,740,991 in `got.value`; longer ones go through `readCounter`. */
export function readNumber(at: number): number {
  let c = bytes[at] - 48
  if (c >>> 0 > 9) return -1
  if (c === 0) {
    got.value = 0
    return (bytes[at + 1] - 48) >>> 0 > 9 ? at + 1 : -1
  }
  let value = c
  let p = at + 1
  while ((c = bytes[p] - 48) >>> 0 <= 9) {
    value = value * 10 + c
    p++
  }
  if (p - at > 15) return -1
  got.value = value
  return p
}

/** An unsigned 64-bit counter, only checked: it is copied as it stands and has no number. */
export function readCounter(at: number): number {
  let p = at
  while ((bytes[p] - 48) >>> 0 <= 9) p++
  const length = p - at
  if (length === 0 || (length > 1 && bytes[at] === 48) || length > 20) return -1
  if (length === 20 && latin1(at, p) > '18446744073709551615') return -1
  return p
}

/** `0x` and lower-case hex, up to 32 bits. */
export function readHex(at: number): number {
  if (bytes[at] !== 48 || bytes[at + 1] !== 120) return -1
  let p = at + 2
  let value = 0
  while (hexValue[bytes[p]] >= 0) value = (value << 4) | hexValue[bytes[p++]]
  if (p === at + 2 || p > at + 10) return -1
  got.value = value >>> 0
  return p
}

/** Text of a range as a string of its own; what outlives the batch is decoded so, never sliced. */
export function latin1(from: number, to: number): string {
  let text = ''
  for (let i = from; i < to; i++) text += String.fromCharCode(bytes[i])
  return text
}

export function utf8(from: number, to: number): string {
  return decoder.decode(bytes.subarray(from, to))
}

/** Lays rewritten text into the scratch and gives its offset. */
export function toScratch(text: string): number {
  if (scratch.at + text.length > SCRATCH_END) scratch.at = SCRATCH_AT
  const at = scratch.at
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i)
  scratch.at += text.length
  return at
}

/** The same of bytes. */
export function bytesToScratch(from: Uint8Array): number {
  if (scratch.at + from.length > SCRATCH_END) scratch.at = SCRATCH_AT
  const at = scratch.at
  bytes.set(from, at)
  scratch.at += from.length
  return at
}

/** The scratch is used round and round: it holds many times what one line can ask for. */
const scratch = { at: SCRATCH_AT }

/** For a record that is put aside: from here on the scratch holds its text alone, and so much of it. */
export function useScratchAfresh(): void {
  scratch.at = SCRATCH_AT
}

export function scratchUsed(): number {
  return scratch.at - SCRATCH_AT
}

/** A dotted quad into `got.w3` alone, for the common case; -1 for everything else, which `readAddress` may know. */
export function readAddress4(at: number): number {
  let p = at
  let value = 0
  for (let i = 0; ; i++) {
    let c = bytes[p] - 48
    if (c >>> 0 > 9) return -1
    let part = c
    const from = p++
    if ((c = bytes[p] - 48) >>> 0 <= 9) {
      part = part * 10 + c
      p++
      if ((c = bytes[p] - 48) >>> 0 <= 9) {
        part = part * 10 + c
        p++
      }
      if (bytes[from] === 48 || part > 255) return -1
    }
    value = (value << 8) | part
    if (i === 3) break
    if (bytes[p] !== 46) return -1
    p++
  }
  got.w3 = value
  return p
}

/** An IPv4 or IPv6 address: words in `got.w0..w3` (IPv4 in w3), family in `got.family`, canonical text at `got.at`, `got.len`. */
export function readAddress(at: number): number {
  let value = 0
  let part = 0
  let digits = 0
  let dots = 0
  let p = at
  for (;;) {
    const c = bytes[p]
    const digit = c - 48
    if (digit >>> 0 <= 9) {
      if (digits !== 0 && part === 0) return dots === 0 ? readAddress6(at) : -1
      part = part * 10 + digit
      digits++
    } else if (c === 46) {
      if (digits === 0 || part > 255) return -1
      value = (value << 8) | part
      part = 0
      digits = 0
      dots++
    } else if (dots === 0 && (c === 58 || hexValue[c] >= 0)) {
      return readAddress6(at)
    } else {
      break
    }
    p++
  }
  if (dots !== 3 || digits === 0 || part > 255) return -1
  got.family = 4
  got.w0 = 0
  got.w1 = 0
  got.w2 = 0
  got.w3 = (value << 8) | part
  got.at = at
  got.len = p - at
  return p
}

function readAddress6(at: number): number {
  let p = at
  let count = 0
  let gap = -1
  let canonical = true
  if (bytes[p] === 58) {
    if (bytes[p + 1] !== 58) return -1
    gap = 0
    p += 2
  }
  for (;;) {
    const from = p
    let value = 0
    let digit: number
    while ((digit = hexValue[bytes[p]]) >= 0) {
      value = (value << 4) | digit
      p++
    }
    const length = p - from
    if (length === 0) {
      if (gap === count) break
      return -1
    }
    if (bytes[p] === 46) {
      if (count > 6 || (p = readAddress4(from)) < 0) return -1
      groups[count++] = got.w3 >>> 16
      groups[count++] = got.w3 & 0xffff
      canonical = false
      break
    }
    if (length > 4) return -1
    // a written zero group, or a leading zero, may or may not be how inet_ntop puts it: the slow way decides
    if (bytes[from] === 48) canonical = false
    groups[count++] = value
    if (count === 8 || bytes[p] !== 58) break
    if (bytes[p + 1] === 58) {
      if (gap >= 0) return -1
      gap = count
      p += 2
    } else {
      p++
    }
  }
  if (hasUpperCase(at, p)) canonical = false
  if (gap < 0) {
    if (count !== 8) return -1
  } else {
    if (count > 7) return -1
    // `::1.2.3.4` and `::ffff:1.2.3.4` are how inet_ntop writes these; a single zero group is never shortened
    if (count === 7 || (gap === 0 && count <= 3)) canonical = false
    const shift = 8 - count
    for (let i = count - 1; i >= gap; i--) groups[i + shift] = groups[i]
    for (let i = gap; i < gap + shift; i++) groups[i] = 0
  }
  got.family = 6
  got.w0 = (groups[0] << 16) | groups[1]
  got.w1 = (groups[2] << 16) | groups[3]
  got.w2 = (groups[4] << 16) | groups[5]
  got.w3 = (groups[6] << 16) | groups[7]
  got.at = at
  got.len = p - at
  if (!canonical) {
    const text = formatAddress6(got.w0, got.w1, got.w2, got.w3)
    if (text.length !== got.len || !isAt(at, text)) {
      got.at = toScratch(text)
      got.len = text.length
    }
  }
  return p
}

const groups = new Int32Array(8)

function hasUpperCase(from: number, to: number): boolean {
  for (let i = from; i < to; i++) if ((bytes[i] & 0xe0) === 0x40) return true
  return false
}

const hexValue = new Int8Array(256).fill(-1)
for (let i = 0; i < 16; i++) {
  hexValue['0123456789abcdef'.charCodeAt(i)] = i
  hexValue['0123456789ABCDEF'.charCodeAt(i)] = i
}

/** Are the `length` bytes at `at` those at `like`? Four at a time: the two ranges may overshoot into each other's neighbours only where they agree. */
export function sameBytes(at: number, like: number, length: number): boolean {
  let i = 0
  for (; i + 4 <= length; i += 4) if (view.getInt32(at + i, true) !== view.getInt32(like + i, true)) return false
  for (; i < length; i++) if (bytes[at + i] !== bytes[like + i]) return false
  return true
}

const decoder = new TextDecoder('utf-8')
