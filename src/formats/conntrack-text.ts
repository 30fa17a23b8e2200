/**
 * The text of `conntrack -E` and `-L` in all versions and of /proc/net/nf_conntrack and ip_conntrack, which differ only in what stands where.
 * Grammar: libnetfilter_conntrack src/conntrack/snprintf_default.c, conntrack-tools src/conntrack.c, net/netfilter/nf_conntrack_standalone.c.
 *
 * One pass in the order in which the fields are printed, on four bytes at a time; behind the second tuple any order, because old kernels had others.
 * Runs of blanks are allowed everywhere: old kernels printed two, and people paste.
 */
import {
  type FlowEvent,
  type Tuple,
  DESTROY,
  ENTRY,
  HAS_DELTA_TIME,
  HAS_HELPER,
  HAS_ID,
  HAS_LABELS,
  HAS_MARK,
  HAS_SECCTX,
  HAS_SECMARK,
  HAS_START,
  HAS_STOP,
  HAS_USE,
  HAS_ZONE,
  KEYS_GRE,
  KEYS_ICMP,
  KEYS_NONE,
  KEYS_PORTS,
  NEW,
  page,
  pageView,
  TIME_OWN,
  TIME_RECEIVED,
  UPDATE,
} from '../event.js'
import { PROTO_GRE, PROTO_ICMP, PROTO_ICMPV6, RECORD_LINE_BYTES_MAX } from '../kernel.js'
import type { LineContext, LocalClock } from '../stage.js'
import { monthNumber } from './local-time.js'
import { readUserspace } from './by.js'
import { CR, got, isAt, isBlank, isLineEnd, latin1, LF, readAddress, readAddress4, readCounter, readHex, readNumber, sameBytes, skipBlanks, skipSpaces, SPACE, TAB, toScratch, word } from './scan.js'
import { readState, stateWord } from './state-words.js'
import { readVendorWord } from './vendor-words.js'

const bytes = page
const view = pageView

/** Times are kept in 32 bits: to February 2106. */
const SEC_MAX = 0xffffffff

/** What `parseText` says instead of the offset of the next line. */
export const NOT_OURS = 0
export const REJECTED = -1
/** The row ends before its second tuple, and with it the batch: the next line may bring the rest. */
export const UNFINISHED = -2
/** A stamp or tag, and behind it an expectation. */
export const EXPECTATION = -3

const SRC = word('src=')
const DST = word('dst=')
const SPOR = word('spor')
const DPOR = word('dpor')
const TYPE = word('type')
const CODE = word('code')
const SRCK = word('srck')
const DSTK = word('dstk')
const ZONE = word('zone')
const PACK = word('pack')
const BYTE = word('byte')
const UNRE = word('[UNR')
const ASSU = word('[ASS')
const OFFL = word('[OFF')
const HWOF = word('[HW_')
const MARK = word('mark')
const SECM = word('secm')
const SECC = word('secc')
const DELT = word('delt')
const STAR = word('[sta')
const STOP = word('[sto')
const HELP = word('help')
const USE_ = word('use=')
const LABE = word('labe')
const USER = word('[USE')
const NEW_ = word('[NEW')
const UPDA = word('[UPD')
const DEST = word('[DES')
const FOUR_SPACES = word('    ')
const TCP_ = word('tcp ')
const UDP_ = word('udp ')
const UNKN = word('unkn')
const IPV4 = word('ipv4')
const IPV6 = word('ipv6')
const ID_EQUALS = 0x3d6469 // three bytes
const ATE_ = word('ATE]')
const TROY = word('TROY')
const URED = word('URED')
const REPL = word('EPLI') // [UNR EPLI ED]
const TWO_ = word(' 2  ') & 0xffffff
const TEN_ = word(' 10 ')
const ETS_ = word('ets=')

/**
 * Reads the line at `at` into `event`. Gives the offset behind its LF, or one of the words above.
 * `end` is behind the batch's last LF.
 */
export function parseText(at: number, end: number, event: FlowEvent, context: LineContext): number {
  const next = readRow(at, end, event, context)
  return next > 0 ? next : readAgain(at, end, event, context, next)
}

/**
 * A line is read as the tool writes it, with a TAB behind the stamp and blanks elsewhere. One that has TABs for blanks, or is indented before its stamp (copied out
 * of a terminal, by another program's log), is read once more with blanks alone; what is no row even so stands as it did.
 */
function readAgain(at: number, end: number, event: FlowEvent, context: LineContext, said: number): number {
  const from = skipBlanks(at)
  if (!mayBeRow(from)) return said
  let to = from
  let hasTab = false
  while (bytes[to] !== LF) if (bytes[to++] === TAB) hasTab = true
  const next = skipBlanks(to + 1)
  // a row that an editor broke, and indented
  if (next < end && view.getInt32(next, true) === SRC) {
    for (to++; bytes[to] !== LF; to++) if (bytes[to] === TAB) hasTab = true
  }
  if ((!hasTab && from === at) || to - from > RECORD_LINE_BYTES_MAX) return said
  const stood = bytes.slice(from, to)
  const plain = latin1(from, to).replace(TAB_OR_NAMES, (whole, names?: string) => names ?? whole.replace('\t', ' '))
  for (let i = 0; i < plain.length; i++) bytes[from + i] = plain.charCodeAt(i)
  const read = readRow(from, end, event, context)
  const done = read > 0 ? Math.min(read, to) : from
  bytes.set(stood.subarray(done - from), done)
  return read === NOT_OURS ? said : read
}

/** Names may hold TABs of their own. */
const TAB_OR_NAMES = /\t|(labels=[^\n]*?(?=[ \t]\[USERSPACE\]|\n|$)|progname=[^\n]*)/g

/** A stamp, a tag, or the first letter of a protocol's name. */
function mayBeRow(at: number): boolean {
  const c = bytes[at]
  if (c !== 91) return c === 116 || c === 117 || c === 115 || c === 100 || c === 103 || c === 105
  const next = bytes[at + 1]
  return (next - 48) >>> 0 <= 9 || next === 78 || next === 85 || next === 68
}

function readRow(at: number, end: number, event: FlowEvent, context: LineContext): number {
  let p = at
  let ours = false
  event.has = 0
  event.zone = 0
  event.timeSource = TIME_RECEIVED
  event.event = ENTRY

  if (bytes[p] === 91 /* [ */ && (bytes[p + 1] - 48) >>> 0 <= 9) {
    p = readStamp(p, event)
    if (p < 0) return NOT_OURS
    // dmesg's stamp looks the same, but for the blank behind it
    ours = bytes[p - 1] === TAB
    if (event.sec > SEC_MAX) return ours ? reject(context, 'a time stamp beyond the year 2105') : notOurs(event)
  }
  if (view.getInt32(p, true) === FOUR_SPACES) p += 4
  else if (bytes[p] === SPACE) p++
  if (bytes[p] === SPACE) p = skipSpaces(p)
  if (bytes[p] === 91) {
    const tag = view.getInt32(p, true)
    if (tag === UPDA && view.getInt32(p + 4, true) === ATE_ && bytes[p + 8] === SPACE) {
      event.event = UPDATE
      p += 9
    } else if (tag === NEW_ && bytes[p + 4] === 93 && bytes[p + 5] === SPACE) {
      event.event = NEW
      p += 6
    } else if (tag === DEST && view.getInt32(p + 4, true) === TROY && bytes[p + 8] === 93 && bytes[p + 9] === SPACE) {
      event.event = DESTROY
      p += 10
    } else {
      return ours ? reject(context, 'no event tag behind the time stamp') : notOurs(event)
    }
    ours = true
    if (bytes[p] === SPACE) p = skipSpaces(p)
  }
  if (!ours && bytes[p] === LF) return notOurs(event)

  // layer 3: `ipv4     2 `, only with -o extended and in /proc
  let family = 0
  const first = view.getInt32(p, true)
  if (first === IPV4 && view.getInt32(p + 4, true) === FOUR_SPACES && (view.getInt32(p + 8, true) & 0xffffff) === TWO_) {
    family = 4
    ours = true
    p += 11
  } else if (first === IPV6 && view.getInt32(p + 4, true) === FOUR_SPACES && view.getInt32(p + 8, true) === TEN_) {
    family = 6
    ours = true
    p += 12
  } else if (first === IPV4 || first === IPV6) {
    const behind = readNumberColumn(p + 4)
    if (behind < 0) return ours ? reject(context, 'no number behind the layer 3 name') : notOurs(event)
    ours = true
    family = first === IPV4 ? 4 : 6
    if (got.value !== (family === 4 ? 2 : 10)) return reject(context, 'layer 3 name and number disagree')
    p = skipSpaces(behind)
  }

  // layer 4: `tcp      6 `
  const layer4 = view.getInt32(p, true)
  let protocol: number
  if (layer4 === TCP_ && view.getInt32(p + 4, true) === FOUR_SPACES && bytes[p + 8] === SPACE && bytes[p + 9] === 54 && bytes[p + 10] === SPACE) {
    protocol = 6
    p += 11
  } else if (layer4 === UDP_ && view.getInt32(p + 4, true) === FOUR_SPACES && bytes[p + 9] === 49 && bytes[p + 10] === 55 && bytes[p + 11] === SPACE) {
    protocol = 17
    p += 12
  } else {
    const name = p
    let c: number
    while (((c = bytes[p]) >= 97 && c <= 122) || (p > name && (c - 48) >>> 0 <= 9)) p++
    const behind = p === name || bytes[p] !== SPACE ? -1 : readNumberColumn(p)
    if (behind < 0 || got.value > 255 || !isProtocolName(name, p)) {
      context.bodyAt = name
      if (ours ? (bytes[name] - 48) >>> 0 <= 9 || isAt(name, 'proto=') : event.timeSource === TIME_OWN && beginsExpectation(name)) return EXPECTATION
      return ours ? reject(context, 'no protocol name and number') : notOurs(event)
    }
    protocol = got.value
    p = behind
  }
  event.protocol = protocol
  const named = layer4 !== UNKN

  // timeout and state, both optional
  event.timeout = -1
  event.timeoutLen = 0
  event.state = -1
  let c = bytes[p]
  if (c === SPACE) c = bytes[(p = skipSpaces(p))]
  if ((c - 48) >>> 0 <= 9) {
    const from = p
    p = readNumber(p)
    if (p < 0 || got.value > 0xffffffff || bytes[p] !== SPACE) return reject(context, 'timeout is not a 32-bit number')
    event.timeout = got.value
    event.timeoutAt = from
    event.timeoutLen = p - from
    c = bytes[++p]
    if (c === SPACE) c = bytes[(p = skipSpaces(p))]
  }
  if (c >= 65 && c <= 90) {
    p = readState(p, protocol)
    if (p < 0) return reject(context, 'unknown state of this protocol')
    event.state = stateWord.state
    if (bytes[p] === SPACE) p = skipSpaces(p)
  } else if (protocol === PROTO_GRE && c === 116 /* t */) {
    // /proc prints the two timeouts of a GRE flow: `timeout=30, stream_timeout=180`
    if (!isAt(p, 'timeout=') || (p = readNumber(p + 8)) < 0 || bytes[p] !== 44 || !isAt((p = skipSpaces(p + 1)), 'stream_timeout=') || (p = readNumber(p + 15)) < 0) {
      return reject(context, 'GRE timeouts are not numbers')
    }
    p = skipSpaces(p)
  }

  event.unreplied = false
  event.assured = false
  event.offload = 0
  event.expected = -1
  const orig = event.orig
  const reply = event.reply
  p = readTuple(p, orig, null, protocol)
  if (p < 0) return reject(context, 'no original tuple')
  if (family !== 0 && family !== got.family) return reject(context, 'addresses are not of the layer 3 family')
  family = got.family
  event.family = family
  p = readBetween(p, event, orig, 'orig')
  if (p < 0) return reject(context, 'broken field behind the original tuple')

  context.extraLines = 0
  if (isLineEnd(p)) {
    // an editor or a web page broke the row here: the next line goes on with `src=`
    const next = skipSpaces(p + (bytes[p] === CR ? 2 : 1))
    if (next >= end) return UNFINISHED
    if (view.getInt32(next, true) !== SRC) return reject(context, 'no reply tuple')
    context.extraLines = 1
    p = next
  }
  p = readTuple(p, reply, orig, protocol)
  if (p < 0) return reject(context, 'no reply tuple')
  if (got.family !== family) return reject(context, 'the two tuples are of different families')
  if (reply.keys !== orig.keys || (named && orig.keys === KEYS_NONE)) return reject(context, 'ports, keys or ICMP type missing')
  p = readBetween(p, event, reply, 'reply')
  if (p < 0) return reject(context, 'broken field behind the reply tuple')

  p = readTail(p, event, context)
  if (p < 0) return REJECTED
  if (p - at > RECORD_LINE_BYTES_MAX) return reject(context, 'longer than any record of conntrack')
  if (event.timeSource === TIME_RECEIVED) {
    event.sec = context.receivedSec
    event.usec = context.receivedUsec
  }
  return p
}

/** The time of a stamp that was none of ours is not kept. */
function notOurs(event: FlowEvent): number {
  event.timeSource = TIME_RECEIVED
  return NOT_OURS
}

/** `300 proto=`, or that without a timeout. */
function beginsExpectation(at: number): boolean {
  let p = at
  while ((bytes[p] - 48) >>> 0 <= 9) p++
  return isAt(skipSpaces(p), 'proto=')
}

function reject(context: LineContext, reason: string): number {
  context.reason = reason
  return REJECTED
}

/** The last stamp's seconds, as the ten bytes that stood there: most lines of a busy stream have the same. */
const lastStamp = { a: 0, b: 0, c: 0, sec: 0 }

/**
 * `[1795341562.324145]` TAB; before 1.4.2, and for expectations, `.3458  ` with blanks behind the digits, and short seconds padded too. Where blanks have taken
 * the TAB's place the last one that was read is one. -1: something else.
 */
function readStamp(at: number, event: FlowEvent): number {
  if (bytes[at + 11] !== 46 || bytes[at + 18] !== 93 || bytes[at + 19] !== TAB) return readPaddedStamp(at, event)
  const four = view.getInt32(at + 12, true) ^ 0x30303030
  const two = view.getUint16(at + 16, true) ^ 0x3030
  const isDigits = (((four + 0x76767676) | four) & 0x80808080) === 0 && (((two + 0x7676) | two) & 0x8080) === 0
  const a = view.getInt32(at + 1, true)
  const b = view.getInt32(at + 5, true)
  const c = view.getInt16(at + 9, true)
  if (!isDigits || a !== lastStamp.a || b !== lastStamp.b || c !== lastStamp.c) {
    const p = readPaddedStamp(at, event)
    if (p >= 0 && isDigits) {
      lastStamp.a = a
      lastStamp.b = b
      lastStamp.c = c
      lastStamp.sec = event.sec
    }
    return p
  }
  event.sec = lastStamp.sec
  event.usec = (four & 15) * 100_000 + ((four >>> 8) & 15) * 10_000 + ((four >>> 16) & 15) * 1000 + (four >>> 24) * 100 + (two & 15) * 10 + (two >>> 8)
  event.timeSource = TIME_OWN
  return at + 20
}

function readPaddedStamp(at: number, event: FlowEvent): number {
  let p = at + 1
  let sec = 0
  let c: number
  while ((c = bytes[p] - 48) >>> 0 <= 9) {
    sec = sec * 10 + c
    p++
  }
  if (p - at > 13) return -1
  p = skipSpaces(p)
  if (bytes[p] !== 46) return -1
  const dot = p++
  let usec = 0
  while ((c = bytes[p] - 48) >>> 0 <= 9) {
    usec = usec * 10 + c
    p++
  }
  if (p === dot + 1 || p > dot + 7) return -1
  p = skipSpaces(p)
  if (bytes[p] !== 93 || !isBlank(bytes[p + 1])) return -1
  event.sec = sec
  event.usec = usec
  event.timeSource = TIME_OWN
  return p + 2
}

/** Blanks, a number, at least one blank. */
function readNumberColumn(at: number): number {
  const p = readNumber(skipSpaces(at))
  return p < 0 || bytes[p] !== SPACE ? -1 : p + 1
}

const layer4Names = new Set(['icmp', 'tcp', 'udp', 'dccp', 'gre', 'icmpv6', 'sctp', 'udplite', 'unknown'])

function isProtocolName(from: number, to: number): boolean {
  return to - from <= 7 && layer4Names.has(latin1(from, to))
}

/** Addresses and keys. The reply's addresses are mostly the original's the other way round: then they are compared, not read again. */
function readTuple(at: number, tuple: Tuple, orig: Tuple | null, protocol: number): number {
  if (view.getInt32(at, true) !== SRC) return -1
  let p = at + 4
  if (orig !== null && bytes[p + orig.dstLen] === SPACE && sameBytes(p, orig.dstAt, orig.dstLen)) {
    tuple.s0 = orig.d0
    tuple.s1 = orig.d1
    tuple.s2 = orig.d2
    tuple.s3 = orig.d3
    tuple.srcAt = p
    tuple.srcLen = orig.dstLen
    p += orig.dstLen
  } else {
    const from = p
    p = readAddress4(p)
    if (p > 0 && bytes[p] === SPACE) {
      tuple.s0 = 0
      tuple.s1 = 0
      tuple.s2 = 0
      tuple.s3 = got.w3
      tuple.srcAt = from
      tuple.srcLen = p - from
      got.family = 4
    } else {
      p = readAddress(from)
      if (p < 0 || bytes[p] !== SPACE) return -1
      tuple.s0 = got.w0
      tuple.s1 = got.w1
      tuple.s2 = got.w2
      tuple.s3 = got.w3
      tuple.srcAt = got.at
      tuple.srcLen = got.len
    }
  }
  const family = got.family
  if (bytes[++p] === SPACE) p = skipSpaces(p)
  if (view.getInt32(p, true) !== DST) return -1
  p += 4
  if (orig !== null && bytes[p + orig.srcLen] <= SPACE && sameBytes(p, orig.srcAt, orig.srcLen)) {
    tuple.d0 = orig.s0
    tuple.d1 = orig.s1
    tuple.d2 = orig.s2
    tuple.d3 = orig.s3
    tuple.dstAt = p
    tuple.dstLen = orig.srcLen
    p += orig.srcLen
  } else {
    const from = p
    p = readAddress4(p)
    if (p > 0 && bytes[p] === SPACE) {
      if (family !== 4) return -1
      tuple.d0 = 0
      tuple.d1 = 0
      tuple.d2 = 0
      tuple.d3 = got.w3
      tuple.dstAt = from
      tuple.dstLen = p - from
    } else {
      p = readAddress(from)
      if (p < 0 || got.family !== family || (bytes[p] !== SPACE && !isLineEnd(p))) return -1
      tuple.d0 = got.w0
      tuple.d1 = got.w1
      tuple.d2 = got.w2
      tuple.d3 = got.w3
      tuple.dstAt = got.at
      tuple.dstLen = got.len
    }
  }
  tuple.zone = 0
  tuple.packetsLen = 0
  tuple.bytesLen = 0
  if (bytes[p] === SPACE && bytes[++p] === SPACE) p = skipSpaces(p)
  const key = view.getInt32(p, true)
  if (key === SPOR) {
    if (bytes[p + 4] !== 116 || bytes[p + 5] !== 61) return -1
    tuple.keys = KEYS_PORTS
    p += 6
    let end = readPort(p)
    if (end < 0 || bytes[end] !== SPACE) return -1
    tuple.k1 = got.value
    tuple.k1At = p
    tuple.k1Len = end - p
    p = end + 1
    if (bytes[p] === SPACE) p = skipSpaces(p)
    if (view.getInt32(p, true) !== DPOR || bytes[p + 4] !== 116 || bytes[p + 5] !== 61) return -1
    p += 6
    end = readPort(p)
    if (end < 0) return -1
    tuple.k2 = got.value
    tuple.k2At = p
    tuple.k2Len = end - p
    p = end
  } else if (key === TYPE) {
    p = readIcmpKeys(p, tuple)
    if (p < 0) return -1
  } else if (key === SRCK) {
    p = readGreKeys(p, tuple)
    if (p < 0) return -1
  } else {
    tuple.keys = KEYS_NONE
    tuple.k1 = 0
    tuple.k2 = 0
    tuple.k3 = 0
    return bytes[p - 1] === SPACE || isLineEnd(p) ? p : -1
  }
  if (tuple.keys === KEYS_ICMP && protocol !== PROTO_ICMP && protocol !== PROTO_ICMPV6) return -1
  if (bytes[p] !== SPACE) return isLineEnd(p) ? p : -1
  return bytes[++p] === SPACE ? skipSpaces(p) : p
}

/** Up to five digits without a leading zero, at most 65535, in `got.value`. */
function readPort(at: number): number {
  let c = bytes[at] - 48
  if (c >>> 0 > 9) return -1
  let value = c
  let p = at + 1
  while ((c = bytes[p] - 48) >>> 0 <= 9) {
    value = value * 10 + c
    p++
  }
  if (value > 0xffff || p - at > 5 || (p - at > 1 && bytes[at] === 48)) return -1
  got.value = value
  return p
}

function readIcmpKeys(at: number, tuple: Tuple): number {
  tuple.keys = KEYS_ICMP
  let p = at + 5
  if (bytes[p - 1] !== 61) return -1
  let end = readNumber(p)
  if (end < 0 || got.value > 255) return -1
  tuple.k1 = got.value
  tuple.k1At = p
  tuple.k1Len = end - p
  p = skipSpaces(end)
  if (view.getInt32(p, true) !== CODE || bytes[p + 4] !== 61) return -1
  p += 5
  end = readNumber(p)
  if (end < 0 || got.value > 255) return -1
  tuple.k2 = got.value
  tuple.k2At = p
  tuple.k2Len = end - p
  p = skipSpaces(end)
  if ((view.getInt32(p, true) & 0xffffff) !== ID_EQUALS) return -1
  p += 3
  end = readNumber(p)
  if (end < 0 || got.value > 0xffff) return -1
  tuple.k3 = got.value
  tuple.k3At = p
  tuple.k3Len = end - p
  return end
}

function readGreKeys(at: number, tuple: Tuple): number {
  tuple.keys = KEYS_GRE
  let p = at + 7
  if (!isAt(at, 'srckey=')) return -1
  let end = readHex(p)
  if (end < 0 || got.value > 0xffff) return -1
  tuple.k1 = got.value
  tuple.k1At = p
  tuple.k1Len = end - p
  p = skipSpaces(end)
  if (view.getInt32(p, true) !== DSTK || !isAt(p, 'dstkey=')) return -1
  p += 7
  end = readHex(p)
  if (end < 0 || got.value > 0xffff) return -1
  tuple.k2 = got.value
  tuple.k2At = p
  tuple.k2Len = end - p
  return end
}

/** What may stand behind a tuple: its own zone, its counters, and the flag (old kernels printed it behind the second). */
function readBetween(at: number, event: FlowEvent, tuple: Tuple, direction: 'orig' | 'reply'): number {
  let p = at
  for (;;) {
    const key = view.getInt32(p, true)
    if (key === UNRE) {
      if (view.getInt32(p + 4, true) !== REPL || bytes[p + 8] !== 69 || bytes[p + 9] !== 68 || bytes[p + 10] !== 93) return -1
      event.unreplied = true
      p += 11
    } else if (key === PACK) {
      if (view.getInt32(p + 4, true) !== ETS_) return -1
      const from = p + 8
      p = readCounter(from)
      if (p < 0) return -1
      tuple.packetsAt = from
      tuple.packetsLen = p - from
      p = skipSpaces(p)
      if (view.getInt32(p, true) !== BYTE || bytes[p + 4] !== 115 || bytes[p + 5] !== 61) return -1
      const bytesAt = p + 6
      p = readCounter(bytesAt)
      if (p < 0) return -1
      tuple.bytesAt = bytesAt
      tuple.bytesLen = p - bytesAt
    } else if (key === ZONE && bytes[p + 4] === 45) {
      const name = direction === 'orig' ? 'zone-orig=' : 'zone-reply='
      if (!isAt(p, name)) return -1
      p = readNumber(p + name.length)
      if (p < 0 || got.value > 0xffff) return -1
      tuple.zone = got.value
    } else {
      return p
    }
    if (bytes[p] === SPACE) p = skipSpaces(p)
    else if (!isLineEnd(p)) return -1
  }
}

/** Everything behind the reply tuple, in any order. Gives the offset behind the LF. */
function readTail(at: number, event: FlowEvent, context: LineContext): number {
  let p = at
  for (;;) {
    const c = bytes[p]
    if (c === LF) return p + 1
    if (c === CR && bytes[p + 1] === LF) return p + 2
    const key = view.getInt32(p, true)
    if (key === ASSU && view.getInt32(p + 4, true) === URED && bytes[p + 8] === 93) {
      event.assured = true
      p += 9
    } else if ((key & 0xffffff) === ID_EQUALS) {
      const from = p + 3
      p = readNumber(from)
      if (p < 0 || got.value > 0xffffffff) return reject(context, 'id is not a 32-bit number')
      event.id = got.value | 0
      event.idAt = from
      event.idLen = p - from
      event.has |= HAS_ID
    } else if (key === MARK && bytes[p + 4] === 61) {
      p = readMark(p + 5, event)
      if (p < 0) return reject(context, 'mark is not a 32-bit number')
    } else if (key === USE_) {
      const from = p + 4
      p = readNumber(from)
      if (p < 0) return reject(context, 'use is not a number')
      event.useAt = from
      event.useLen = p - from
      event.has |= HAS_USE
    } else if (key === ZONE && bytes[p + 4] === 61) {
      p = readNumber(p + 5)
      if (p < 0 || got.value > 0xffff) return reject(context, 'zone is not a 16-bit number')
      if (got.value !== 0) {
        event.zone = got.value
        event.has |= HAS_ZONE
      }
    } else if (key === DELT && isAt(p, 'delta-time=')) {
      const from = p + 11
      p = readNumber(from)
      if (p < 0) return reject(context, 'delta-time is not a number')
      event.deltaTime = got.value
      event.deltaTimeAt = from
      event.deltaTimeLen = p - from
      event.has |= HAS_DELTA_TIME
    } else if (key === STAR && isAt(p, '[start=')) {
      p = readCtime(p + 7, context.localClock)
      if (p < 0) return reject(context, 'start is not a time')
      event.startSec = got.value
      event.startUsec = 0
      event.has |= HAS_START
    } else if (key === STOP && isAt(p, '[stop=')) {
      p = readCtime(p + 6, context.localClock)
      if (p < 0) return reject(context, 'stop is not a time')
      event.stopSec = got.value
      event.stopUsec = 0
      event.has |= HAS_STOP
    } else if (key === OFFL && isAt(p, '[OFFLOAD]')) {
      event.offload = 1
      p += 9
    } else if (key === HWOF && isAt(p, '[HW_OFFLOAD]')) {
      event.offload = 2
      p += 12
    } else if (key === UNRE && isAt(p, '[UNREPLIED]')) {
      event.unreplied = true
      p += 11
    } else if (key === HELP && isAt(p, 'helper=')) {
      event.helperAt = p + 7
      p = wordEnd(p + 7)
      event.helperLen = p - event.helperAt
      event.has |= HAS_HELPER
    } else if (key === SECC && isAt(p, 'secctx=')) {
      event.secctxAt = p + 7
      p = wordEnd(p + 7)
      event.secctxLen = p - event.secctxAt
      event.has |= HAS_SECCTX
    } else if (key === SECM && isAt(p, 'secmark=')) {
      const from = p + 8
      p = readNumber(from)
      if (p < 0 || got.value > 0xffffffff) return reject(context, 'secmark is not a 32-bit number')
      if (got.value !== 0) {
        event.secmarkAt = from
        event.secmarkLen = p - from
        event.has |= HAS_SECMARK
      }
    } else if (key === LABE && isAt(p, 'labels')) {
      p = readLabels(p + 6, event)
      if (p < 0) return reject(context, 'broken labels')
    } else if (key === USER) {
      p = readUserspace(p, event)
      if (p < 0) return reject(context, 'broken [USERSPACE] suffix')
    } else if ((key === PACK && event.reply.packetsLen === 0 && event.orig.packetsLen !== 0) || (key === ZONE && bytes[p + 4] === 45)) {
      // a vendor's word came before them
      p = readBetween(p, event, event.reply, 'reply')
      if (p < 0) return reject(context, 'broken field behind the reply tuple')
      continue
    } else {
      p = readVendorWord(p, event)
      if (p < 0) return reject(context, 'broken field behind the reply tuple')
    }
    if (bytes[p] === SPACE) p = bytes[p + 1] === SPACE ? skipSpaces(p) : p + 1
    else if (!isLineEnd(p)) return reject(context, 'a value is followed by something else than a blank')
  }
}

/** Unsigned 32 bits in decimal; kernel 2.4 printed it signed. */
function readMark(at: number, event: FlowEvent): number {
  if (bytes[at] === 45) {
    const p = readNumber(at + 1)
    if (p < 0 || got.value > 0x80000000 || got.value === 0) return -1
    const text = String(-got.value >>> 0)
    event.markAt = toScratch(text)
    event.markLen = text.length
    event.has |= HAS_MARK
    return p
  }
  const p = readNumber(at)
  if (p < 0 || got.value > 0xffffffff) return -1
  if (got.value !== 0) {
    event.markAt = at
    event.markLen = p - at
    event.has |= HAS_MARK
  }
  return p
}

function wordEnd(at: number): number {
  let p = at
  while (bytes[p] !== SPACE && !isLineEnd(p)) p++
  return p
}

/** `labels=one,spaced name` to the end of the record; bare `labels` where no set bit has a name. Names may hold blanks, so only the suffix ends them. */
function readLabels(at: number, event: FlowEvent): number {
  event.has |= HAS_LABELS
  event.labelsLen = 0
  if (bytes[at] !== 61) return at
  let p = at + 1
  event.labelsAt = p
  while (!isLineEnd(p) && !(isBlank(bytes[p]) && isAt(p + 1, '[USERSPACE]'))) p++
  let to = p
  while (to > event.labelsAt && isBlank(bytes[to - 1])) to--
  event.labelsLen = to - event.labelsAt
  return p
}

/** `Sun Nov 22 10:00:17 2026]`, local time, the day padded with a blank, which may have gone. */
const CTIME = /^[A-Z][a-z]{2} +([A-Z][a-z]{2}) +(\d{1,2}) +(\d\d):(\d\d):(\d\d) +(\d{4})\]/
const CTIME_BYTES_MAX = 40

function readCtime(at: number, localClock: LocalClock): number {
  const found = CTIME.exec(latin1(at, at + CTIME_BYTES_MAX))
  if (found === null) return -1
  const [whole, month, day, hour, minute, second, year] = found
  got.value = localClock(Number(year), monthNumber(month!), Number(day), Number(hour), Number(minute), Number(second))
  return Number.isNaN(got.value) ? -1 : at + whole.length
}
