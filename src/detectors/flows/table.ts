/**
 * The table of live flows: records of fixed size in two typed arrays (IPv4 40 bytes, IPv6 64), and an index of 64-byte lines that say where the record of a
 * tuple is.
 *
 * With many live flows a line of input costs what it waits for memory: at a million neither records nor index are in a near cache, and a touch of either that
 * waits for the one before costs 100 to 170 ns (measured; a line of input without them 660 ns). So a look-up reads one line of the index, and the one record
 * that it wants: an entry of the index is a record's reference and, in the bits that are left, the upper bits of its hash, so other flows' records are not
 * looked at but for those, one in a thousand, whose bits are the same by chance (at the default limit). A tuple that is not there costs the index line alone.
 * Records chained from one-word heads, one and a half of them a look-up, cost a line of input 90 ns more, and while the table grows 190 ns more.
 * IPv4 records of 48 or 64 bytes, which straddle fewer cache lines or none, measured no faster: both halves are fetched at once.
 *
 * All arrays are laid out for the limit at the start; the kernel gives pages only where they are written, so the memory grows with the flows, and records are
 * never moved. The index doubles by linear hashing: each new flow splits one line in two, so there is no moment at which everything moves.
 * A reference to a record is its place times two, plus one for IPv6; 0 is none.
 */
import type { FlowEvent, Tuple } from '../../event.js'

/** Offsets of 32-bit words within a record. */
/** protocol in the low 8 bits, scope (namespace and zone) above; -1: freed */
const KIND = 0
const KEYS = 1
/** of a freed record: the next freed one */
const ID = 2
/** which life it is: a counter, or the kernel's id for lives that are named by the kernel's start time */
const LIFE = 3
/** first packet: seconds, and microseconds << 12 with flags below */
const BEGIN_SEC = 4
const BEGIN_USEC = 5
/** last change of state (for flows known from rows only: when their timeout runs out): seconds, and microseconds << 12 with state and more flags below */
const LAST_SEC = 6
const LAST_USEC = 7
/** source words, then destination words */
const ADDRESSES = 8

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
/** it stands in the index by tuple and id, which never changes: found only by its id, and not counted among `others` */
export const FLAG_BY_ID = 2048
export const FLAGS_BEGIN = FLAG_BEGIN_NEW | FLAG_BEGIN_START | FLAG_BEGIN_NANOSECONDS

const FREE = -1

/**
 * A line of the index is 16 words, the processor's 64 bytes: how many entries it has, and above that the line with the older ones, 0 for none; then the
 * entries, the most recent last.
 */
const LINE_WORDS = 16
const LINE_SHIFT = 4
const ENTRIES = LINE_WORDS - 1
const COUNT = 15
const LINK_SHIFT = 4
/** Entries a line, on average, at which the index begins to double. One line in a hundred overflows then. */
const LOAD = 8
/** A thousand flows then share few lines: what a look-up passes over costs some 5 ns an entry. */
const FIRST_LINES = 1024
export const FLOWS_MAX_LIMIT = 1 << 24

export class FlowTable {
  readonly limit: number
  /** live flows */
  size = 0
  /** of them, known from rows only */
  rowsOnly = 0
  /** scopes are below it */
  scopes = 0
  /** live flows by scope */
  #sizes = new Int32Array(64)
  /** how many records of the tuple the last `find` passed over because their id is another */
  others = 0
  /** records with FLAG_BY_ID */
  #byId = 0
  readonly #four: Int32Array
  readonly #six: Int32Array
  readonly #index: Int32Array
  readonly #seed: number
  /** the bits of an entry that are the record's reference; those above are of the hash */
  readonly #refMask: number
  /** `level` lines, of which those below `split` are already split in two; never more than `linesMax`, behind which lines with older entries lie */
  readonly #linesMax: number
  #level: number
  #split = 0
  /** lists of freed records and lines, and how far each array is in use */
  #free4 = 0
  #free6 = 0
  #used4 = 1
  #used6 = 1
  #freeLine = 0
  #usedLines: number
  /** the entry that the last `find` returned: what ends was found just before */
  #found = 1
  readonly #splitEntries: number[] = []
  readonly #splitHashes: number[] = []

  /** `seed` keeps a sender of chosen addresses from filling one line; it changes no result. */
  constructor(limit: number, seed: number) {
    this.limit = limit
    this.#seed = seed | 0
    this.#refMask = -1 >>> Math.clz32((limit + 2) * 2)
    let lines = 1
    while (lines * LOAD < limit) lines *= 2
    this.#linesMax = lines
    this.#level = Math.min(FIRST_LINES, lines)
    this.#usedLines = lines
    this.#four = alignedWords((limit + 2) * WORDS4)
    this.#six = alignedWords((limit + 2) * WORDS6)
    // lines with older entries are full
    this.#index = alignedWords((lines + Math.ceil(limit / ENTRIES) + 1) * LINE_WORDS)
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
    const hash = hashTuple(orig, event.protocol, event.scope, six, this.#seed)
    event.hash = hash
    const kind = event.protocol | (event.scope << 8)
    const keys = keysOf(orig)
    const index = this.#index
    const words = six ? this.#six : this.#four
    const stride = six ? WORDS6 : WORDS4
    const refMask = this.#refMask
    // in an entry's reference only the family is known yet
    const wanted = (hash & ~refMask) | (six ? 1 : 0)
    const mask = ~refMask | 1
    this.others = 0
    let line = this.#line(hash)
    do {
      const at = line << LINE_SHIFT
      const head = index[at]
      for (let i = at + (head & COUNT); i > at; i--) {
        const entry = index[i]
        if (((entry ^ wanted) & mask) !== 0) continue
        const ref = entry & refMask
        const base = (ref >>> 1) * stride
        if (words[base + KIND] === kind && words[base + KEYS] === keys && sameAddresses(words, base + ADDRESSES, orig, six)) {
          if (!hasId || (words[base + BEGIN_USEC] & FLAG_HAS_ID) === 0 || words[base + ID] === event.id) {
            this.#found = i
            return ref
          }
          this.others++
        }
      }
      line = head >>> LINK_SHIFT
    } while (line !== 0)
    return hasId && this.#byId !== 0 ? this.#findById(event, six, kind, keys) : 0
  }

  #findById(event: FlowEvent, six: boolean, kind: number, keys: number): number {
    const index = this.#index
    const words = six ? this.#six : this.#four
    let line = this.#line(hashOfId(event.hash, event.id))
    do {
      const at = line << LINE_SHIFT
      const head = index[at]
      for (let i = at + (head & COUNT); i > at; i--) {
        const ref = index[i] & this.#refMask
        const base = this.#base(ref)
        if ((ref & 1) !== (six ? 1 : 0) || (words[base + BEGIN_USEC] & FLAG_BY_ID) === 0 || words[base + ID] !== event.id) continue
        if (words[base + KIND] === kind && words[base + KEYS] === keys && sameAddresses(words, base + ADDRESSES, event.orig, six)) {
          this.#found = i
          return ref
        }
      }
      line = head >>> LINK_SHIFT
    } while (line !== 0)
    return 0
  }

  /** The record of this original tuple that is oldest, whatever its id, but for those with FLAG_BY_ID; 0 when there is none. */
  oldestLife(event: FlowEvent): number {
    const orig = event.orig
    const six = event.family === 6
    const kind = event.protocol | (event.scope << 8)
    const keys = keysOf(orig)
    const words = six ? this.#six : this.#four
    let oldest = 0
    let line = this.#line(event.hash)
    do {
      const at = line << LINE_SHIFT
      const head = this.#index[at]
      for (let i = at + (head & COUNT); i > at; i--) {
        const ref = this.#index[i] & this.#refMask
        const base = this.#base(ref)
        if ((ref & 1) !== (six ? 1 : 0) || (words[base + BEGIN_USEC] & FLAG_BY_ID) !== 0) continue
        if (words[base + KIND] === kind && words[base + KEYS] === keys && sameAddresses(words, base + ADDRESSES, orig, six)) oldest = ref
      }
      line = head >>> LINK_SHIFT
    } while (line !== 0)
    return oldest
  }

  /** A new record, from now on the most recent one of its tuple. The caller has made room below the limit. */
  insert(event: FlowEvent, life: number, flags: number): number {
    if (event.scope >= this.scopes) this.#addScopes(event.scope)
    this.#sizes[event.scope]!++
    const byId = (flags & FLAG_BY_ID) !== 0
    const hash = byId ? hashOfId(event.hash, event.id) : event.hash
    const orig = event.orig
    const six = event.family === 6
    const ref = six ? this.#take6() : this.#take4()
    const words = six ? this.#six : this.#four
    const base = six ? (ref >>> 1) * WORDS6 : (ref >>> 1) * WORDS4
    words[base + KIND] = event.protocol | (event.scope << 8)
    words[base + KEYS] = keysOf(orig)
    words[base + ID] = event.id
    words[base + LIFE] = life
    words[base + BEGIN_SEC] = 0
    words[base + BEGIN_USEC] = flags
    words[base + LAST_SEC] = 0
    words[base + LAST_USEC] = 0
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
    this.#push(this.#line(hash), (hash & ~this.#refMask) | ref)
    this.size++
    if (byId) this.#byId++
    if ((flags & FLAG_ROWS_ONLY) !== 0) this.rowsOnly++
    if (this.#split !== 0 || this.size > this.#level * LOAD) this.#splitOne()
    return ref
  }

  remove(ref: number): void {
    const found = this.#found
    const isFound = found >>> LINE_SHIFT < this.#linesMax && (this.#index[found] & this.#refMask) === ref
    this.#drop(isFound ? found >>> LINE_SHIFT : this.#line(this.#hashOf(ref)), ref)
    const words = this.#words(ref)
    const base = this.#base(ref)
    if ((words[base + BEGIN_USEC] & FLAG_ROWS_ONLY) !== 0) this.rowsOnly--
    if ((words[base + BEGIN_USEC] & FLAG_BY_ID) !== 0) this.#byId--
    this.#sizes[words[base + KIND]! >>> 8]!--
    words[base + KIND] = FREE
    if ((ref & 1) === 0) {
      words[base + ID] = this.#free4
      this.#free4 = ref
    } else {
      words[base + ID] = this.#free6
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

  /** Live flows of a scope. */
  sizeOf(scope: number): number {
    return this.#sizes[scope] ?? 0
  }

  #addScopes(scope: number): void {
    this.scopes = scope + 1
    if (scope < this.#sizes.length) return
    const more = new Int32Array(this.scopes * 2)
    more.set(this.#sizes)
    this.#sizes = more
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
    this.#free4 = this.#four[(ref >>> 1) * WORDS4 + ID]
    return ref
  }

  #take6(): number {
    const ref = this.#free6
    if (ref === 0) return this.#used6++ * 2 + 1
    this.#free6 = this.#six[(ref >>> 1) * WORDS6 + ID]
    return ref
  }

  #line(hash: number): number {
    const line = hash & (this.#level - 1)
    return line < this.#split ? hash & (this.#level * 2 - 1) : line
  }

  #hashOf(ref: number): number {
    const words = this.#words(ref)
    const base = this.#base(ref)
    const a = base + ADDRESSES
    const hash =
      (ref & 1) === 0
        ? hashWords(words[base + KIND], words[base + KEYS], words[a], words[a + 1], this.#seed)
        : hashWords(
            words[base + KIND],
            words[base + KEYS],
            fold(words[a], words[a + 1], words[a + 2], words[a + 3]),
            fold(words[a + 4], words[a + 5], words[a + 6], words[a + 7]),
            this.#seed,
          )
    return (words[base + BEGIN_USEC] & FLAG_BY_ID) === 0 ? hash : hashOfId(hash, words[base + ID])
  }

  /** Puts an entry behind the others of its line. A full line moves away first, to be the one with the older entries. */
  #push(line: number, entry: number): void {
    const index = this.#index
    const at = line << LINE_SHIFT
    if ((index[at] & COUNT) === ENTRIES) {
      const older = this.#takeLine()
      index.copyWithin(older << LINE_SHIFT, at, at + LINE_WORDS)
      index.fill(0, at, at + LINE_WORDS)
      index[at] = older << LINK_SHIFT
    }
    const head = ++index[at]
    index[at + (head & COUNT)] = entry
  }

  /** Takes a record's entry out of its line or of one with older entries, which stay full: each hands its oldest entry on to the next. */
  #drop(line: number, ref: number): void {
    const index = this.#index
    const refMask = this.#refMask
    const first = line << LINE_SHIFT
    let at = first
    let handed = 0
    for (;;) {
      const head = index[at]
      const last = at + (head & COUNT)
      const oldest = index[at + 1]
      let i = last
      while (i > at && (index[i] & refMask) !== ref) i--
      const isHere = i > at
      if (!isHere) i++
      for (; i < last; i++) index[i] = index[i + 1]
      // a slot that is not in use holds 0: `remove` may still look at it
      index[last] = handed
      if (isHere) break
      // a record that is in no line would be searched for ever
      if (head >>> LINK_SHIFT === 0) throw new Error('flow table: a record is missing from the index')
      handed = oldest
      at = (head >>> LINK_SHIFT) << LINE_SHIFT
    }
    const older = --index[first] >>> LINK_SHIFT
    if ((index[first] & COUNT) === 0 && older !== 0) {
      index.copyWithin(first, older << LINE_SHIFT, (older + 1) << LINE_SHIFT)
      this.#giveLine(older)
    }
  }

  #takeLine(): number {
    const line = this.#freeLine
    if (line === 0) return this.#usedLines++
    this.#freeLine = this.#index[line << LINE_SHIFT]
    return line
  }

  #giveLine(line: number): void {
    this.#index.fill(0, line << LINE_SHIFT, (line + 1) << LINE_SHIFT)
    this.#index[line << LINE_SHIFT] = this.#freeLine
    this.#freeLine = line
  }

  /** Doubling, one line at a time. The entries do not hold enough of the hash, so each record is touched: 125 ns for each new flow while the table grows. */
  #splitOne(): void {
    if (this.#level * 2 > this.#linesMax) return
    const index = this.#index
    const entries = this.#splitEntries
    const hashes = this.#splitHashes
    const from = this.#split
    let n = 0
    for (let line = from; ; ) {
      const at = line << LINE_SHIFT
      const head = index[at]
      for (let i = at + (head & COUNT); i > at; i--) {
        entries[n] = index[i]
        hashes[n++] = this.#hashOf(index[i] & this.#refMask)
      }
      if (line === from) index.fill(0, at, at + LINE_WORDS)
      else this.#giveLine(line)
      line = head >>> LINK_SHIFT
      if (line === 0) break
    }
    // both lines keep their order: the most recent life of a tuple must stay last
    while (--n >= 0) this.#push((hashes[n] & this.#level) === 0 ? from : from + this.#level, entries[n])
    if (++this.#split === this.#level) {
      this.#level *= 2
      this.#split = 0
    }
  }
}

/**
 * Words whose first one begins a cache line. A large block comes from the system's allocator as pages of its own, whose first 16 bytes are the allocator's:
 * without the 48 bytes of room each line of the index, and each IPv6 record, would straddle two cache lines. Where an allocator does otherwise it costs only time.
 */
function alignedWords(words: number): Int32Array {
  return new Int32Array(new ArrayBuffer(48 + words * 4), 48, words)
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

/** Of a record with FLAG_BY_ID, from the hash of its tuple. */
function hashOfId(hash: number, id: number): number {
  return hashWords(hash, id, 0, 0, 0)
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
