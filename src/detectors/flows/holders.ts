/**
 * Who holds the entries of a table: by source address, by destination address and port, by protocol and state. Found by looking at the table of live flows when
 * somebody asks, so that no flow and no event costs anything for it.
 *
 * Two passes. The first adds up entries in cells that many addresses share, chosen by hash: whoever holds many is in a heavy cell. The second counts exactly, address
 * by address, what is in the heaviest cells. Memory is fixed, however many addresses there are. Who is left out holds no more than the heaviest cell left out has
 * entries, so the leaders are exact wherever somebody leads.
 */
import type { Holder, Time } from '../../event.js'
import { addressText } from '../../address.js'
import { PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, protocolNames, states } from '../../kernel.js'
import type { TopHolders } from '../../stage.js'
import { type FlowTable, hashWords } from './table.js'

/** Of each kind are told. */
const TOLD = 3
const CELLS = 1 << 16
/** Cells that are looked into. At a million sources of one entry each a cell has fifteen. */
const HEAVY = 64
/** Addresses that are counted one by one, a power of two; what finds no room is not told. */
const SLOTS = 1 << 13
const SLOTS_USED = SLOTS / 2
/** Words of a slot: kind (protocol, and the family's bit), port, address, entries. */
const SLOT_WORDS = 7
const SLOT_SIX = 1 << 8
const SLOT_USED = 1 << 9
/** Of a larger table every second, third … place is looked at, so that the loop is never held up for longer. */
const PLACES_MAX = 1 << 21
/** Places for which it is no matter how often they are looked at; beyond, a million of them once a second. */
const PLACES_FREE = 1 << 14
const MICROSECONDS_FOR_A_PLACE = 1
/** States of a protocol, and none. */
const STATES = states.length + 1

const PROTO_UDPLITE = 136
const portProtocols: ReadonlySet<number> = new Set([PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, PROTO_SCTP, PROTO_DCCP])
const hasPorts = new Uint8Array(256)
for (const protocol of portProtocols) hasPorts[protocol] = 1

export class Holders implements TopHolders {
  readonly #table: FlowTable
  readonly #netnsOf: (scope: number) => number
  readonly #seed: number
  readonly #src = new Cells()
  readonly #dst = new Cells()
  readonly #states = new Uint32Array(256 * STATES)
  /** by scope: 1 asked for, 2 not, 0 not looked at yet */
  #scopes = new Uint8Array(1024)
  #asked = 0
  /** the last answer, and the moment (microseconds) before which a large table is not looked at again */
  #lastNetns = -1
  #last: readonly Holder[] = []
  #notBefore = -Infinity

  /** `netnsOf`: inode of the namespace of a scope as the table numbers them, 0 where not known. `seed` keeps chosen addresses from meeting in one cell. */
  constructor(table: FlowTable, netnsOf: (scope: number) => number, seed = 0) {
    this.#table = table
    this.#netnsOf = netnsOf
    this.#seed = seed | 0
  }

  /**
   * The first three of each kind: `src` (an address), `dst` (`10.0.0.1:443/tcp`, `[fd00::1]:53/udp`, `10.0.0.1/icmp`), `state` (`tcp ESTABLISHED`). Flows without a
   * namespace count for every one. Empty when no flow is known. When a large table is asked about again at once, the last answer or none.
   */
  top(netns: number, at: Time): readonly Holder[] {
    const now = at.sec * 1e6 + at.usec
    const places = this.#table.places
    if (places > PLACES_FREE) {
      if (now < this.#notBefore) return netns === this.#lastNetns ? this.#last : []
      this.#notBefore = now + places * MICROSECONDS_FOR_A_PLACE
    }
    this.#lastNetns = netns
    this.#last = this.#look(netns, Math.ceil(places / PLACES_MAX))
    return this.#last
  }

  #look(netns: number, step: number): readonly Holder[] {
    this.#asked = netns
    this.#scopes.fill(0)
    this.#states.fill(0)
    this.#src.clear()
    this.#dst.clear()
    const all = this.#addUp(step)
    if (all === 0) return []
    this.#src.chooseHeavy()
    this.#dst.chooseHeavy()
    this.#count(step)
    const holder = (by: string, value: string, entries: number): Holder => ({ by, value, entries: entries * step, share: Math.round((entries / all) * 1e4) / 1e4 })
    return [
      ...this.#src.leaders().map(({ slot, entries }) => holder('src', this.#src.address(slot), entries)),
      ...this.#dst.leaders().map(({ slot, entries }) => holder('dst', this.#dst.endpoint(slot), entries)),
      ...this.#leadingStates().map(({ value, entries }) => holder('state', value, entries)),
    ]
  }

  /** First pass. How many flows there are. */
  #addUp(step: number): number {
    const table = this.#table
    const src = this.#src.cells
    const dst = this.#dst.cells
    const counts = this.#states
    let all = 0
    for (let place = 0, places = table.places; place < places; place += step) {
      const ref = table.at(place)
      if (ref === 0) continue
      const kind = table.kind(ref)
      if (!this.#isAsked(kind >>> 8)) continue
      all++
      counts[(kind & 255) * STATES + table.state(ref) + 1]!++
      src[this.#srcHash(ref) & (CELLS - 1)]!++
      dst[this.#dstHash(ref, kind & 255) & (CELLS - 1)]!++
    }
    return all
  }

  /** Second pass, over the flows in heavy cells. */
  #count(step: number): void {
    const table = this.#table
    for (let place = 0, places = table.places; place < places; place += step) {
      const ref = table.at(place)
      if (ref === 0) continue
      const kind = table.kind(ref)
      if (!this.#isAsked(kind >>> 8)) continue
      const six = ref & 1
      const srcHash = this.#srcHash(ref)
      if (this.#src.isHeavy(srcHash)) this.#src.add(table, ref, srcHash, 0, six * SLOT_SIX, 0)
      const protocol = kind & 255
      const dstHash = this.#dstHash(ref, protocol)
      if (this.#dst.isHeavy(dstHash)) this.#dst.add(table, ref, dstHash, 4, six * SLOT_SIX + protocol, this.#port(ref, protocol))
    }
  }

  #isAsked(scope: number): boolean {
    if (this.#asked === 0) return true
    if (scope >= this.#scopes.length) {
      const more = new Uint8Array(Math.max(scope + 1, this.#scopes.length * 2))
      more.set(this.#scopes)
      this.#scopes = more
    }
    if (this.#scopes[scope] === 0) {
      const netns = this.#netnsOf(scope)
      this.#scopes[scope] = netns === 0 || netns === this.#asked ? 1 : 2
    }
    return this.#scopes[scope] === 1
  }

  #port(ref: number, protocol: number): number {
    return hasPorts[protocol] === 1 ? this.#table.keys(ref) & 0xffff : 0
  }

  #srcHash(ref: number): number {
    const table = this.#table
    return (ref & 1) === 0
      ? hashWords(0, 0, table.addressWord(ref, 3), 0, this.#seed)
      : hashWords(hashWords(table.addressWord(ref, 0), table.addressWord(ref, 1), table.addressWord(ref, 2), table.addressWord(ref, 3), this.#seed), 0, 0, 1, this.#seed)
  }

  #dstHash(ref: number, protocol: number): number {
    const table = this.#table
    const port = this.#port(ref, protocol)
    return (ref & 1) === 0
      ? hashWords(protocol, port, table.addressWord(ref, 7), 0, this.#seed)
      : hashWords(hashWords(table.addressWord(ref, 4), table.addressWord(ref, 5), table.addressWord(ref, 6), table.addressWord(ref, 7), this.#seed), port, protocol, 1, this.#seed)
  }

  #leadingStates(): { value: string; entries: number }[] {
    const found: { value: string; entries: number }[] = []
    this.#states.forEach((entries, index) => {
      if (entries === 0) return
      const state = (index % STATES) - 1
      const protocol = protocolText(Math.floor(index / STATES))
      found.push({ value: state < 0 ? protocol : `${protocol} ${states[state]}`, entries })
    })
    return found.sort((a, b) => b.entries - a.entries || (a.value < b.value ? -1 : 1)).slice(0, TOLD)
  }
}

/** Entries by hash of an address (and port), and one by one for the heaviest. */
class Cells {
  readonly cells = new Uint32Array(CELLS)
  readonly #heavy = new Uint8Array(CELLS)
  readonly #slots = new Int32Array(SLOTS * SLOT_WORDS)
  #used = 0

  clear(): void {
    this.cells.fill(0)
    this.#heavy.fill(0)
    this.#slots.fill(0)
    this.#used = 0
  }

  /** Marks the cells with the most entries. */
  chooseHeavy(): void {
    const sorted = this.cells.slice().sort()
    const least = Math.max(1, sorted[CELLS - HEAVY]!)
    // of those that are equal to the last, as many as there is room for
    let equal = HEAVY - sorted.subarray(CELLS - HEAVY).filter((entries) => entries > least).length
    this.cells.forEach((entries, cell) => {
      if (entries > least || (entries === least && equal-- > 0)) this.#heavy[cell] = 1
    })
  }

  isHeavy(hash: number): boolean {
    return this.#heavy[hash & (CELLS - 1)] === 1
  }

  /** Counts the flow for its address: words `from` to `from + 3` of the table's. */
  add(table: FlowTable, ref: number, hash: number, from: number, kind: number, port: number): void {
    const slots = this.#slots
    const w0 = table.addressWord(ref, from)
    const w1 = table.addressWord(ref, from + 1)
    const w2 = table.addressWord(ref, from + 2)
    const w3 = table.addressWord(ref, from + 3)
    // the cell has used the low bits
    for (let slot = (hash >>> 16) ^ (hash & (CELLS - 1)); ; slot++) {
      const at = (slot & (SLOTS - 1)) * SLOT_WORDS
      if (slots[at] === 0) {
        if (this.#used === SLOTS_USED) return
        this.#used++
        slots[at] = kind | SLOT_USED
        slots[at + 1] = port
        slots[at + 2] = w0
        slots[at + 3] = w1
        slots[at + 4] = w2
        slots[at + 5] = w3
        slots[at + 6] = 1
        return
      }
      if (slots[at] === (kind | SLOT_USED) && slots[at + 1] === port && slots[at + 5] === w3 && slots[at + 4] === w2 && slots[at + 3] === w1 && slots[at + 2] === w0) {
        slots[at + 6]!++
        return
      }
    }
  }

  /** Those with the most entries; of equals the lower address first, so that the same table always gives the same. */
  leaders(): { readonly slot: number; readonly entries: number }[] {
    const slots = this.#slots
    const found: { slot: number; entries: number }[] = []
    for (let slot = 0; slot < SLOTS; slot++) if (slots[slot * SLOT_WORDS] !== 0) found.push({ slot, entries: slots[slot * SLOT_WORDS + 6]! })
    return found.sort((a, b) => b.entries - a.entries || this.#order(a.slot, b.slot)).slice(0, TOLD)
  }

  #order(a: number, b: number): number {
    for (const word of [0, 2, 3, 4, 5, 1]) {
      const difference = (this.#slots[a * SLOT_WORDS + word]! >>> 0) - (this.#slots[b * SLOT_WORDS + word]! >>> 0)
      if (difference !== 0) return difference
    }
    return 0
  }

  address(slot: number): string {
    const at = slot * SLOT_WORDS
    const slots = this.#slots
    return addressText(slots[at + 2]!, slots[at + 3]!, slots[at + 4]!, slots[at + 5]!, (slots[at]! & SLOT_SIX) === 0 ? 4 : 6)
  }

  endpoint(slot: number): string {
    const kind = this.#slots[slot * SLOT_WORDS]!
    const protocol = kind & 255
    const address = this.address(slot)
    if (hasPorts[protocol] === 0) return `${address}/${protocolText(protocol)}`
    const host = (kind & SLOT_SIX) === 0 ? address : `[${address}]`
    return `${host}:${this.#slots[slot * SLOT_WORDS + 1]}/${protocolText(protocol)}`
  }
}

/** The number where it has no name. */
const protocolText = (protocol: number): string => protocolNames[protocol] ?? String(protocol)
