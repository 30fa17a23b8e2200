/**
 * `conntrack -o save`: each record as the options that would make it. No time, id, mark or counters; status bits in words.
 * Grammar: conntrack-tools src/conntrack.c (-o save, since 1.4.7), extensions/libct_proto_*.c.
 */
import { type FlowEvent, type Tuple, DESTROY, ENTRY, HAS_SECMARK, HAS_ZONE, KEYS_GRE, KEYS_ICMP, KEYS_NONE, KEYS_PORTS, NEW, page, TIME_RECEIVED, UPDATE } from '../event.js'
import { PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, protocolNames, RECORD_LINE_BYTES_MAX } from '../kernel.js'
import { FLOW, type LineContext, type LineFormat, type Outcome, REJECTED_LINE } from '../stage.js'
import { readUserspace } from './by.js'
import { clearEvent, hasWholeKeys, setAddress, setTupleKey } from './fill.js'
import { got, isAt, isBlank, isLineEnd, latin1, readAddress, readNumber, skipBlanks, toScratch, utf8 } from './scan.js'
import { stateNumber } from './state-words.js'
import { addExtra, readVendorWord } from './vendor-words.js'

const numberOf = new Map(Object.entries(protocolNames).map(([number, name]) => [name, Number(number)]))
const statusWords = new Set(['EXPECTED', 'SEEN_REPLY', 'ASSURED', 'FIXED_TIMEOUT', 'UNSET'])

/** Options with an address, by tuple and end: `-g` and `-n` are `-r` and `-q` of a translated flow. */
const addressOptions: Readonly<Record<string, readonly ['orig' | 'reply', 'src' | 'dst']>> = {
  '-s': ['orig', 'src'],
  '-d': ['orig', 'dst'],
  '-r': ['reply', 'src'],
  '-g': ['reply', 'src'],
  '-q': ['reply', 'dst'],
  '-n': ['reply', 'dst'],
}

/** Options with a key of a tuple: what kind of keys, of which tuple, which of the three, the largest value. */
const keyOptions: Readonly<Record<string, readonly [keys: number, tuple: 'orig' | 'reply', key: 1 | 2 | 3, max: number]>> = {
  '--sport': [KEYS_PORTS, 'orig', 1, 0xffff],
  '--dport': [KEYS_PORTS, 'orig', 2, 0xffff],
  '--reply-port-src': [KEYS_PORTS, 'reply', 1, 0xffff],
  '--reply-port-dst': [KEYS_PORTS, 'reply', 2, 0xffff],
  '--srckey': [KEYS_GRE, 'orig', 1, 0xffff],
  '--dstkey': [KEYS_GRE, 'orig', 2, 0xffff],
  '--reply-key-src': [KEYS_GRE, 'reply', 1, 0xffff],
  '--reply-key-dst': [KEYS_GRE, 'reply', 2, 0xffff],
  '--icmp-type': [KEYS_ICMP, 'orig', 1, 255],
  '--icmp-code': [KEYS_ICMP, 'orig', 2, 255],
  '--icmp-id': [KEYS_ICMP, 'orig', 3, 0xffff],
  '--icmpv6-type': [KEYS_ICMP, 'orig', 1, 255],
  '--icmpv6-code': [KEYS_ICMP, 'orig', 2, 255],
  '--icmpv6-id': [KEYS_ICMP, 'orig', 3, 0xffff],
}

/** All of them; the values of `--orig-vtag`, `--reply-vtag` and `--role` are in no record. */
const options = new Set([
  ...Object.keys(addressOptions),
  ...Object.keys(keyOptions),
  ...['-p', '-t', '-u', '--state', '-w', '--orig-zone', '--reply-zone', '-c', '--orig-vtag', '--reply-vtag', '--role'],
])

export const conntrackSave: LineFormat = {
  name: 'conntrack-save',
  mayBeIndented: true,

  begins(at) {
    const command = page[at + 1]
    return page[at] === 45 && (command === 65 || command === 85 || command === 68) && isBlank(page[at + 2]) && page[skipBlanks(at + 3)] === 45
  },

  read(at, lineEnd, event, context) {
    if (lineEnd - at > RECORD_LINE_BYTES_MAX) return reject(context, 'longer than any record of conntrack')
    clearEvent(event)
    event.timeSource = TIME_RECEIVED
    event.sec = context.receivedSec
    event.usec = context.receivedUsec
    // until -u says otherwise
    event.unreplied = true
    event.expected = 0
    return readOptions(at, event, context)
  },
}

function readOptions(at: number, event: FlowEvent, context: LineContext): Outcome {
  const command = page[at + 1]
  let family = 0
  let stateText = ''
  let hasProtocol = false
  let p = skipBlanks(at + 2)
  while (!isLineEnd(p)) {
    if (isAt(p, '[USERSPACE]')) {
      p = readUserspace(p, event)
      if (p < 0) return reject(context, 'broken [USERSPACE] suffix')
      break
    }
    const nameEnd = endOfWord(p)
    const name = latin1(p, nameEnd)
    if (!options.has(name) && hasProtocol && hasAddresses(event)) {
      p = skipBlanks(name.startsWith('-') ? readVendorOption(p, nameEnd, event) : readVendorWord(p, event))
      if (p < 0) return reject(context, `${name} is no option`)
      continue
    }
    const value = skipBlanks(nameEnd)
    const valueEnd = endOfWord(value)
    if (valueEnd === value) return reject(context, `${name} has no value`)
    const address = addressOptions[name]
    const key = keyOptions[name]
    if (address !== undefined) {
      if (readAddress(value) !== valueEnd || (family !== 0 && family !== got.family)) return reject(context, `${name} is not an address of the flow's family`)
      family = got.family
      setAddress(event[address[0]], address[1])
    } else if (key !== undefined) {
      if (readNumber(value) !== valueEnd || got.value > key[3]) return reject(context, `${name} is not a number in its range`)
      setKey(event[key[1]], key[0], key[2], value, valueEnd)
    } else if (name === '-p') {
      const protocol = latin1(value, valueEnd)
      hasProtocol = true
      event.protocol = numberOf.get(protocol) ?? (/^(0|[1-9][0-9]{0,2})$/.test(protocol) ? Number(protocol) : -1)
      if (event.protocol < 0 || event.protocol > 255) return reject(context, '-p is no protocol')
    } else if (name === '-t') {
      if (readNumber(value) !== valueEnd || got.value > 0xffffffff) return reject(context, '-t is not a 32-bit number')
      event.timeout = got.value
      event.timeoutAt = value
      event.timeoutLen = valueEnd - value
    } else if (name === '-u') {
      const bits = latin1(value, valueEnd).split(',')
      if (!bits.every((bit) => statusWords.has(bit))) return reject(context, '-u has an unknown status bit')
      event.unreplied = !bits.includes('SEEN_REPLY')
      event.assured = bits.includes('ASSURED')
      event.expected = bits.includes('EXPECTED') ? 1 : 0
    } else if (name === '--state') {
      stateText = latin1(value, valueEnd)
    } else if (name === '-w' || name === '--orig-zone' || name === '--reply-zone' || name === '-c') {
      if (readNumber(value) !== valueEnd || got.value > (name === '-c' ? 0xffffffff : 0xffff)) return reject(context, `${name} is not a number in its range`)
      if (name === '--orig-zone') event.orig.zone = got.value
      else if (name === '--reply-zone') event.reply.zone = got.value
      else if (name === '-w' && got.value !== 0) {
        event.zone = got.value
        event.has |= HAS_ZONE
      } else if (name === '-c' && got.value !== 0) {
        event.secmarkAt = value
        event.secmarkLen = valueEnd - value
        event.has |= HAS_SECMARK
      }
    } else if (!options.has(name)) {
      return reject(context, `unknown option ${name}`)
    }
    p = skipBlanks(valueEnd)
  }
  if (!hasProtocol) return reject(context, 'no protocol')
  if (event.orig.srcLen === 0 || event.orig.dstLen === 0) return reject(context, 'no original tuple')
  if (event.reply.srcLen === 0 || event.reply.dstLen === 0) return reject(context, 'no reply tuple')
  const icmp = event.protocol === PROTO_ICMP || event.protocol === PROTO_ICMPV6
  const needsKeys = icmp || event.protocol === PROTO_TCP || event.protocol === PROTO_UDP
  const sameKeys = event.reply.keys === (icmp ? KEYS_NONE : event.orig.keys)
  if (!hasWholeKeys(event.orig) || !hasWholeKeys(event.reply) || !sameKeys || (needsKeys && event.orig.keys !== (icmp ? KEYS_ICMP : KEYS_PORTS))) {
    return reject(context, 'ports, keys or ICMP type missing')
  }
  // what the tool prints for a state that it has no word for (SCTP's HEARTBEAT_SENT in 1.4.7)
  if (stateText !== '' && stateText !== '(null)') {
    event.state = stateNumber(stateText, event.protocol)
    if (event.state < 0) return reject(context, 'unknown state of this protocol')
  }
  event.family = family
  event.event = command === 85 ? UPDATE : command === 68 ? DESTROY : event.unreplied ? NEW : ENTRY
  return FLOW
}

function reject(context: LineContext, reason: string): Outcome {
  context.reason = reason
  return REJECTED_LINE
}

function hasAddresses({ orig, reply }: FlowEvent): boolean {
  return orig.srcLen !== 0 && orig.dstLen !== 0 && reply.srcLen !== 0 && reply.dstLen !== 0
}

/** An option that a vendor adds, with the word behind it unless that is an option too. Gives the offset behind it. */
function readVendorOption(at: number, nameEnd: number, event: FlowEvent): number {
  const value = skipBlanks(nameEnd)
  const isAlone = isLineEnd(value) || page[value] === 45 || page[value] === 91
  const end = isAlone ? nameEnd : endOfWord(value)
  addExtra(event, utf8(at, nameEnd).replace(/^-+/, ''), isAlone ? true : utf8(value, end))
  return end
}

function endOfWord(at: number): number {
  let p = at
  while (!isBlank(page[p]) && !isLineEnd(p)) p++
  return p
}

/** From `got.value`; GRE keys are decimal here and hex everywhere else. */
function setKey(tuple: Tuple, keys: number, key: 1 | 2 | 3, from: number, to: number): void {
  let at = from
  let length = to - from
  if (keys === KEYS_GRE) {
    const text = `0x${got.value.toString(16)}`
    at = toScratch(text)
    length = text.length
  }
  tuple.keys = keys
  setTupleKey(tuple, key, got.value, at, length)
}
