/** Setting an event's parts one by one, for the forms that name each. */
import { type FlowEvent, type Tuple, KEYS_ICMP, KEYS_NONE } from '../event.js'
import { got } from './scan.js'

/** An event of which nothing is known yet. */
export function clearEvent(event: FlowEvent): void {
  event.has = 0
  event.zone = 0
  event.timeout = -1
  event.timeoutLen = 0
  event.state = -1
  event.assured = false
  event.unreplied = false
  event.offload = 0
  event.expected = -1
  event.protocol = 0
  clearTuple(event.orig)
  clearTuple(event.reply)
}

function clearTuple(tuple: Tuple): void {
  tuple.srcLen = 0
  tuple.dstLen = 0
  tuple.keys = KEYS_NONE
  tuple.k1 = 0
  tuple.k2 = 0
  tuple.k3 = 0
  tuple.k1Len = 0
  tuple.k2Len = 0
  tuple.k3Len = 0
  tuple.zone = 0
  tuple.packetsLen = 0
  tuple.bytesLen = 0
}

/** From `got`. */
export function setAddress(tuple: Tuple, end: 'src' | 'dst'): void {
  if (end === 'src') {
    tuple.s0 = got.w0
    tuple.s1 = got.w1
    tuple.s2 = got.w2
    tuple.s3 = got.w3
    tuple.srcAt = got.at
    tuple.srcLen = got.len
  } else {
    tuple.d0 = got.w0
    tuple.d1 = got.w1
    tuple.d2 = got.w2
    tuple.d3 = got.w3
    tuple.dstAt = got.at
    tuple.dstLen = got.len
  }
}

export function setTupleKey(tuple: Tuple, key: 1 | 2 | 3, value: number, at: number, length: number): void {
  if (key === 1) {
    tuple.k1 = value
    tuple.k1At = at
    tuple.k1Len = length
  } else if (key === 2) {
    tuple.k2 = value
    tuple.k2At = at
    tuple.k2Len = length
  } else {
    tuple.k3 = value
    tuple.k3At = at
    tuple.k3Len = length
  }
}

/** Has the tuple all keys of its kind, or none? */
export function hasWholeKeys(tuple: Tuple): boolean {
  if (tuple.keys === KEYS_NONE) return true
  return tuple.k1Len !== 0 && tuple.k2Len !== 0 && (tuple.keys !== KEYS_ICMP || tuple.k3Len !== 0)
}
