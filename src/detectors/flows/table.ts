/**
 * The table of live flows: records of fixed size in two typed arrays (IPv4 44 bytes, IPv6 68), chained from 4-byte heads.
 *
 * Both arrays are laid out for the limit at the start; the kernel gives pages only where they are written, so the memory grows with the flows and nothing is
 * ever copied. The heads grow by linear hashing: each new flow splits one chain, so there is no moment at which everything moves.
 * A reference to a record is its index times two, plus one for IPv6; 0 is none.
 */
import type { FlowEvent, Tuple } from '../../event.js'

/** Offsets of 32-bit words within a record. */
const NEXT = 0
/** protocol in the low 8 bits, scope (namespace and zone) above */
const KIND = 1
const ID = 2
/** which life it is: a counter, or the kernel's id for lives that are named by the kernel's start time */
const LIFE = 3
/** first packet: seconds, and microseconds << 12 with flags below */
const BEGIN_SEC = 4
const BEGIN_USEC = 5
/** last change of state (for flows known from rows only: when their timeout runs out): seconds, and microseconds << 12 with state and more flags below */
const LAST_SEC = 6
const LAST_USEC = 7
const KEYS = 8
/** source words, then destination words */
const ADDRESSES = 9

const WORDS4 = ADDRESSES + 2
const WORDS6 = ADDRESSES + 8

/** Flags in the low twelve bits of BEGIN_USEC. */
export const FLAG_HAS_ID = 1
/** known from rows of a dump alone: the kernel will not tell when it ends */
export const FLAG_ROWS_ONLY = 2
export const FLAG_RELATED = 4
export const FLAG_ANSWERED = 8
/** the beginning is known: from the time of NEW, from the kernel in whole seconds, or in nanoseconds */
export const FLAG_BEGIN_NEW = 16
export const FLAG_BEGIN_START = 32
export const FLAG_BEGIN_NANOSECONDS = 64
/** the flow's number is made of the kernel's start time instead of a counter */
export const FLAG_NAMED_BY_START = 128
/** the time of the last change of state is known */
export const FLAG_LAST_KNOWN = 256
/** the dump that is going on has shown the flow */
export const FLAG_DUMP = 512
export const FLAGS_BEGIN = FLAG_BEGIN_NEW | FLAG_BEGIN_START | FLAG_BEGIN_NANOSECONDS

const FREE = -1
const FIRST_BUCKETS = 4096
export const FLOWS_MAX_LIMIT = 1 << 24

export class FlowTable {
  readonly limit: number
  /** live flows */
  size = 0
  /** of them, known from rows only */
  rowsOnly = 0
  /** how many records of the tuple the last `find` passed over because their id is another */
  others = 0
  readonly #four: Int32Array
  readonly #six: Int32Array
  readonly #heads: Int32Array
  readonly #seed: number
  /** linear hashing: `level` buckets, of which those below `split` are already split in two */
  #level = FIRST_BUCKETS
  #split = 0
  /** lists of freed records, and how far each array is in use */
  #free4 = 0
  #free6 = 0
  #used4 = 1
  #used6 = 1

  /** `seed` keeps a sender of chosen addresses from filling one chain; it changes no result. */
  constructor(limit: number, seed: number) {
    this.limit = limit
    this.#seed = seed | 0
    this.#four = new Int32Array((limit + 2) * WORDS4)
    this.#six = new Int32Array((limit + 2) * WORDS6)
    let heads = FIRST_BUCKETS
    while (heads < limit) heads *= 2
    this.#heads = new Int32Array(heads)
  }

  /** The record's array and the index of its first word. */
  #words(ref: number): Int32Array {
    return (ref & 1) === 0 ? this.#four : this.#six
  }

  #base(ref: number): number {
    return (ref & 1) === 0 ? (ref >>> 1) * WORDS4 : (ref >>> 1) * WORDS6
  }

  flags(ref: number): number {
    return this.#words(ref)[this.#base(ref) + BEGIN_USEC] & 0xfff
  }

  setFlags(ref: number, on: number, off: number): void {
    const words = this.#words(ref)
    const at = this.#base(ref) + BEGIN_USEC
    const before = words[at]
    const after = (before & ~off) | on
    words[at] = after
    if (((before ^ after) & FLAG_ROWS_ONLY) !== 0) this.rowsOnly += (after & FLAG_ROWS_ONLY) === 0 ? -1 : 1
  }

  id(ref: number): number {
    return this.#words(ref)[this.#base(ref) + ID]
  }

  setId(ref: number, id: number): void {
    this.#words(ref)[this.#base(ref) + ID] = id
    this.setFlags(ref, FLAG_HAS_ID, 0)
  }

  life(ref: number): number {
    return this.#words(ref)[this.#base(ref) + LIFE]
  }

  /** Index into `states`, or -1. */
  state(ref: number): number {
    return (this.#words(ref)[this.#base(ref) + LAST_USEC] & 63) - 1
  }

  beginSec(ref: number): number {
    return this.#words(ref)[this.#base(ref) + BEGIN_SEC] >>> 0
  }

  beginUsec(ref: number): number {
    return this.#words(ref)[this.#base(ref) + BEGIN_USEC] >>> 12
  }

  lastSec(ref: number): number {
    return this.#words(ref)[this.#base(ref) + LAST_SEC] >>> 0
  }

  lastUsec(ref: number): number {
    return this.#words(ref)[this.#base(ref) + LAST_USEC] >>> 12
  }

  setBegin(ref: number, sec: number, usec: number, kind: number): void {
    const words = this.#words(ref)
    const base = this.#base(ref)
    words[base + BEGIN_SEC] = sec
    words[base + BEGIN_USEC] = (usec << 12) | (words[base + BEGIN_USEC] & 0xfff & ~FLAGS_BEGIN) | kind
  }

  setLast(ref: number, sec: number, usec: number, state: number): void {
    const words = this.#words(ref)
    const base = this.#base(ref)
    words[base + LAST_SEC] = sec
    words[base + LAST_USEC] = (usec << 12) | (state + 1)
  }

  /** The record of this original tuple whose id does not contradict, most recent first; 0 when there is none. The event keeps its hash. */
  find(event: FlowEvent, hasId: boolean): number {
    const orig = event.orig
    const six = event.family === 6
    event.hash = hashTuple(orig, event.protocol, event.scope, six, this.#seed)
    let ref = this.#heads[this.#bucket(event.hash)]
    const kind = event.protocol | (event.scope << 8)
    const keys = keysOf(orig)
    const words = six ? this.#six : this.#four
    const stride = six ? WORDS6 : WORDS4
    const parity = six ? 1 : 0
    this.others = 0
    while (ref !== 0) {
      if ((ref & 1) === parity) {
        const base = (ref >>> 1) * stride
        if (words[base + KIND] === kind && words[base + KEYS] === keys && sameAddresses(words, base + ADDRESSES, orig, six)) {
          if (!hasId || (words[base + BEGIN_USEC] & FLAG_HAS_ID) === 0 || words[base + ID] === event.id) return ref
          this.others++
        }
        ref = words[base + NEXT]
      } else {
        ref = this.#words(ref)[this.#base(ref) + NEXT]
      }
    }
    return 0
  }

  /** The record of this original tuple that is oldest, whatever its id; 0 when there is none. */
  oldestLife(event: FlowEvent): number {
    const orig = event.orig
    const six = event.family === 6
    const kind = event.protocol | (event.scope << 8)
    const keys = keysOf(orig)
    let oldest = 0
    let ref = this.#heads[this.#bucket(event.hash)]
    while (ref !== 0) {
      const words = this.#words(ref)
      const base = this.#base(ref)
      if ((ref & 1) === (six ? 1 : 0) && words[base + KIND] === kind && words[base + KEYS] === keys && sameAddresses(words, base + ADDRESSES, orig, six)) {
        oldest = ref
      }
      ref = words[base + NEXT]
    }
    return oldest
  }

  /** A new record at the head of its chain. The caller has made room below the limit. */
  insert(event: FlowEvent, life: number, flags: number): number {
    const orig = event.orig
    const six = event.family === 6
    const ref = six ? this.#take6() : this.#take4()
    const words = six ? this.#six : this.#four
    const base = six ? (ref >>> 1) * WORDS6 : (ref >>> 1) * WORDS4
    const bucket = this.#bucket(event.hash)
    words[base + NEXT] = this.#heads[bucket]
    words[base + KIND] = event.protocol | (event.scope << 8)
    words[base + ID] = event.id
    words[base + LIFE] = life
    words[base + BEGIN_SEC] = 0
    words[base + BEGIN_USEC] = flags
    words[base + LAST_SEC] = 0
    words[base + LAST_USEC] = 0
    words[base + KEYS] = keysOf(orig)
    if (six) {
      words[base + ADDRESSES] = orig.s0
      words[base + ADDRESSES + 1] = orig.s1
      words[base + ADDRESSES + 2] = orig.s2
      words[base + ADDRESSES + 3] = orig.s3
      words[base + ADDRESSES + 4] = orig.d0
      words[base + ADDRESSES + 5] = orig.d1
      words[base + ADDRESSES + 6] = orig.d2
      words[base + ADDRESSES + 7] = orig.d3
    } else {
      words[base + ADDRESSES] = orig.s3
      words[base + ADDRESSES + 1] = orig.d3
    }
    this.#heads[bucket] = ref
    this.size++
    if ((flags & FLAG_ROWS_ONLY) !== 0) this.rowsOnly++
    if (this.size > this.#level + this.#split) this.#splitOne()
    return ref
  }

  remove(ref: number): void {
    const words = this.#words(ref)
    const base = this.#base(ref)
    const bucket = this.#bucket(this.#hashOf(ref))
    const next = words[base + NEXT]
    if (this.#heads[bucket] === ref) {
      this.#heads[bucket] = next
    } else {
      let before = this.#heads[bucket]
      // a record that is in no chain would be searched for ever
      while (this.#words(before)[this.#base(before) + NEXT] !== ref) {
        if (before === 0) throw new Error('flow table: a record is missing from its chain')
        before = this.#words(before)[this.#base(before) + NEXT]
      }
      this.#words(before)[this.#base(before) + NEXT] = next
    }
    if ((words[base + BEGIN_USEC] & FLAG_ROWS_ONLY) !== 0) this.rowsOnly--
    words[base + KIND] = FREE
    if ((ref & 1) === 0) {
      words[base + NEXT] = this.#free4
      this.#free4 = ref
    } else {
      words[base + NEXT] = this.#free6
      this.#free6 = ref
    }
    this.size--
  }

  /** Places for records in use or freed; `at(place)` gives a reference, 0 for a free place. For sweeps, which go in pieces. */
  get places(): number {
    return this.#used4 + this.#used6
  }

  at(place: number): number {
    const ref = place < this.#used4 ? place * 2 : (place - this.#used4) * 2 + 1
    return ref < 2 || this.#words(ref)[this.#base(ref) + KIND] === FREE ? 0 : ref
  }

  /** Protocol and scope, as `protocol | scope << 8`. */
  kind(ref: number): number {
    return this.#words(ref)[this.#base(ref) + KIND]
  }

  keys(ref: number): number {
    return this.#words(ref)[this.#base(ref) + KEYS]
  }

  /** Address word `index` (0 to 3 source, 4 to 7 destination), IPv4 in the last of each four. */
  addressWord(ref: number, index: number): number {
    const base = this.#base(ref) + ADDRESSES
    if ((ref & 1) === 1) return this.#six[base + index]
    return (index & 3) !== 3 ? 0 : this.#four[base + (index >>> 2)]
  }

  #take4(): number {
    const ref = this.#free4
    if (ref === 0) return this.#used4++ * 2
    this.#free4 = this.#four[(ref >>> 1) * WORDS4 + NEXT]
    return ref
  }

  #take6(): number {
    const ref = this.#free6
    if (ref === 0) return this.#used6++ * 2 + 1
    this.#free6 = this.#six[(ref >>> 1) * WORDS6 + NEXT]
    return ref
  }

  #bucket(hash: number): number {
    const bucket = hash & (this.#level - 1)
    return bucket < this.#split ? hash & (this.#level * 2 - 1) : bucket
  }

  #hashOf(ref: number): number {
    const words = this.#words(ref)
    const base = this.#base(ref)
    const a = base + ADDRESSES
    if ((ref & 1) === 0) return hashWords(words[base + KIND], words[base + KEYS], words[a], words[a + 1], this.#seed)
    return hashWords(
      words[base + KIND],
      words[base + KEYS],
      fold(words[a], words[a + 1], words[a + 2], words[a + 3]),
      fold(words[a + 4], words[a + 5], words[a + 6], words[a + 7]),
      this.#seed,
    )
  }

  #splitOne(): void {
    if (this.#level * 2 > this.#heads.length) return
    const from = this.#split
    const mask = this.#level * 2 - 1
    let ref = this.#heads[from]
    // both chains keep their order: the most recent life of a tuple must stay first
    let lowTail = 0
    let highTail = 0
    this.#heads[from] = 0
    while (ref !== 0) {
      const words = this.#words(ref)
      const next = words[this.#base(ref) + NEXT]
      words[this.#base(ref) + NEXT] = 0
      if ((this.#hashOf(ref) & mask) === from) {
        if (lowTail === 0) this.#heads[from] = ref
        else this.#words(lowTail)[this.#base(lowTail) + NEXT] = ref
        lowTail = ref
      } else {
        if (highTail === 0) this.#heads[from + this.#level] = ref
        else this.#words(highTail)[this.#base(highTail) + NEXT] = ref
        highTail = ref
      }
      ref = next
    }
    if (++this.#split === this.#level) {
      this.#level *= 2
      this.#split = 0
    }
  }
}

/** Ports, or ICMP type, code and id, or GRE keys in one word: what makes two tuples of one protocol and pair of hosts different. */
function keysOf(tuple: Tuple): number {
  return tuple.keys === 2 ? (tuple.k1 << 24) | (tuple.k2 << 16) | tuple.k3 : (tuple.k1 << 16) ^ tuple.k2
}

function sameAddresses(words: Int32Array, at: number, orig: Tuple, six: boolean): boolean {
  if (!six) return words[at] === orig.s3 && words[at + 1] === orig.d3
  return (
    words[at + 3] === orig.s3 &&
    words[at + 7] === orig.d3 &&
    words[at] === orig.s0 &&
    words[at + 1] === orig.s1 &&
    words[at + 2] === orig.s2 &&
    words[at + 4] === orig.d0 &&
    words[at + 5] === orig.d1 &&
    words[at + 6] === orig.d2
  )
}

/** Of an original tuple with its protocol and scope. With seed 0 the same in every run. */
export function hashTuple(orig: Tuple, protocol: number, scope: number, six: boolean, seed: number): number {
  const kind = protocol | (scope << 8)
  return six
    ? hashWords(kind, keysOf(orig), fold(orig.s0, orig.s1, orig.s2, orig.s3), fold(orig.d0, orig.d1, orig.d2, orig.d3), seed)
    : hashWords(kind, keysOf(orig), orig.s3, orig.d3, seed)
}

function fold(a: number, b: number, c: number, d: number): number {
  let h = Math.imul(a ^ (b >>> 16), 0x85ebca6b) ^ b
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) ^ c
  h = Math.imul(h ^ (h >>> 16), 0x27d4eb2f) ^ d
  return h
}

/** Murmur3's mixing steps over the four words. */
export function hashWords(kind: number, keys: number, src: number, dst: number, seed: number): number {
  let h = Math.imul(src ^ seed, 0xcc9e2d51)
  h = (h << 15) | (h >>> 17)
  h = Math.imul(h ^ dst, 0x1b873593)
  h = (h << 13) | (h >>> 19)
  h = Math.imul(h ^ keys, 0x85ebca6b)
  h ^= h >>> 13
  h = Math.imul(h ^ kind, 0xc2b2ae35)
  return h ^ (h >>> 16)
}
