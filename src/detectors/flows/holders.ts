/**
 * Who holds the entries of a table: by source address, by destination address, by destination address with port and protocol, by protocol and state. Found by
 * looking at the table of live flows when somebody asks, so that no flow and no event costs anything for it.
 *
 * Two passes. The first adds up entries in cells that many addresses share, chosen by hash: whoever holds many is in a heavy cell. The second counts exactly, address
 * by address, what is in the heaviest cells. Memory is fixed, however many addresses there are. Who is left out holds no more than the heaviest cell left out has
 * entries, so the leaders are exact wherever somebody leads.
 */
import { addressText } from '../../address.js'
import { PROTO_DCCP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, protocolNames, states } from '../../kernel.js'
import type { Held, HoldersLook, TopHolders } from '../../stage.js'
import { FLAG_ANSWERED, FLAGS_BEGIN, type FlowTable } from './table.js'

/** Of each kind are told. */
const TOLD = 3
const CELLS = 1 << 16
/** Cells that are looked into. At a million sources of one entry each a cell has fifteen. */
const HEAVY = 64
/** Addresses that are counted one by one, a power of two; what finds no room is not told. */
const SLOTS = 1 << 13
const SLOTS_USED = SLOTS / 2
/** Words of a slot: kind (protocol, and the family's bit), port, address, then entries, and of these the unreplied and the new ones. */
const SLOT_WORDS = 9
const ENTRIES = 6
const UNREPLIED = 7
const OPENED = 8
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
  readonly #service = new Cells()
  /** by protocol and state: entries, unreplied and new ones */
  readonly #states = new Uint32Array(256 * STATES)
  readonly #statesUnreplied = new Uint32Array(256 * STATES)
  readonly #statesOpened = new Uint32Array(256 * STATES)
  /** by scope: 1 asked for, 2 not, 0 not looked at yet */
  #scopes = new Uint8Array(1024)
  #asked = 0
  #sinceSec = 0
  #sinceUsec = 0
  /** when a large table was looked at last, and before when it is not looked at again, in microseconds */
  #lookedAt = -Infinity
  #notBefore = -Infinity

  /** `netnsOf`: inode of the namespace of a scope as the table numbers them, 0 where not known. `seed` keeps chosen addresses from meeting in one cell. */
  constructor(table: FlowTable, netnsOf: (scope: number) => number, seed = 0) {
    this.#table = table
    this.#netnsOf = netnsOf
    this.#seed = seed | 0
  }

  known(netns: number): number {
    const table = this.#table
    if (netns === 0) return table.size
    let known = 0
    for (let scope = 0; scope < table.scopes; scope++) {
      const size = table.sizeOf(scope)
      if (size !== 0 && this.#isOf(netns, scope)) known += size
    }
    return known
  }

  /**
   * The first three of each kind: `src` and `dst` (an address), `service` (`10.0.0.1:443/tcp`, `[fd00::1]:53/udp`, `10.0.0.1/icmp`), `state` (`tcp ESTABLISHED`).
   * Flows without a namespace count for every one. When a large table is asked about again at once, null.
   */
  look(netns: number, now: number, since: number): HoldersLook | null {
    const { places } = this.#table
    if (places > PLACES_FREE) {
      // a clock that was set back does not make it wait
      if (now >= this.#lookedAt && now < this.#notBefore) return null
      this.#lookedAt = now
      this.#notBefore = now + places * MICROSECONDS_FOR_A_PLACE
    }
    this.#asked = netns
    this.#sinceSec = Math.floor(since / 1e6)
    this.#sinceUsec = since % 1e6
    return { known: this.known(netns), rows: this.#rows(Math.ceil(places / PLACES_MAX)) }
  }

  #rows(step: number): readonly Held[] {
    const { size, rowsOnly } = this.#table
    this.#scopes.fill(0)
    for (const counts of [this.#states, this.#statesUnreplied, this.#statesOpened]) counts.fill(0)
    for (const cells of [this.#src, this.#dst, this.#service]) cells.clear()
    if (this.#addUp(step) === 0) return []
    for (const cells of [this.#src, this.#dst, this.#service]) cells.chooseHeavy()
    this.#count(step)
    // rows of a dump do not tell when their flows began
    const knowsNew = rowsOnly < size
    const held = (by: string, value: string, entries: number, unreplied: number, opened: number): Held => ({
      ...{ by, value, entries: entries * step, unreplied: unreplied * step },
      ...(knowsNew ? { new: opened * step } : {}),
    })
    const leaders = (by: string, cells: Cells, text: (slot: number) => string): Held[] =>
      cells.leaders().map((slot) => held(by, text(slot), cells.number(slot, ENTRIES), cells.number(slot, UNREPLIED), cells.number(slot, OPENED)))
    return [
      ...leaders('src', this.#src, (slot) => this.#src.address(slot)),
      ...leaders('dst', this.#dst, (slot) => this.#dst.address(slot)),
      ...leaders('service', this.#service, (slot) => this.#service.endpoint(slot)),
      ...this.#leadingStates().map(({ value, index }) => held('state', value, this.#states[index]!, this.#statesUnreplied[index]!, this.#statesOpened[index]!)),
    ]
  }

  /** First pass. How many flows there are. */
  #addUp(step: number): number {
    const table = this.#table
    const src = this.#src.cells
    const dst = this.#dst.cells
    const service = this.#service.cells
    let all = 0
    for (let place = 0, places = table.places; place < places; place += step) {
      const ref = table.at(place)
      if (ref === 0) continue
      const kind = table.kind(ref)
      if (!this.#isAsked(kind >>> 8)) continue
      all++
      const protocol = kind & 255
      const state = protocol * STATES + table.state(ref) + 1
      this.#states[state]!++
      const flags = table.flags(ref)
      if ((flags & FLAG_ANSWERED) === 0) this.#statesUnreplied[state]!++
      if ((flags & FLAGS_BEGIN) !== 0 && this.#isNew(ref)) this.#statesOpened[state]!++
      src[this.#addressHash(ref, 0) & (CELLS - 1)]!++
      const address = this.#addressHash(ref, 4)
      dst[address & (CELLS - 1)]!++
      service[this.#serviceHash(ref, protocol, address) & (CELLS - 1)]!++
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
      const six = (ref & 1) * SLOT_SIX
      const flags = table.flags(ref)
      const unreplied = (flags & FLAG_ANSWERED) === 0 ? 1 : 0
      const opened = (flags & FLAGS_BEGIN) !== 0 && this.#isNew(ref) ? 1 : 0
      const src = this.#addressHash(ref, 0)
      if (this.#src.isHeavy(src)) this.#src.add(table, ref, src, 0, six, 0, unreplied, opened)
      const dst = this.#addressHash(ref, 4)
      if (this.#dst.isHeavy(dst)) this.#dst.add(table, ref, dst, 4, six, 0, unreplied, opened)
      const protocol = kind & 255
      const service = this.#serviceHash(ref, protocol, dst)
      if (this.#service.isHeavy(service)) this.#service.add(table, ref, service, 4, six + protocol, this.#port(ref, protocol), unreplied, opened)
    }
  }

  #isAsked(scope: number): boolean {
    if (this.#asked === 0) return true
    if (scope >= this.#scopes.length) {
      const more = new Uint8Array(Math.max(scope + 1, this.#scopes.length * 2))
      more.set(this.#scopes)
      this.#scopes = more
    }
    if (this.#scopes[scope] === 0) this.#scopes[scope] = this.#isOf(this.#asked, scope) ? 1 : 2
    return this.#scopes[scope] === 1
  }

  #isOf(netns: number, scope: number): boolean {
    const own = this.#netnsOf(scope)
    return own === 0 || own === netns
  }

  #isNew(ref: number): boolean {
    const sec = this.#table.beginSec(ref)
    return sec > this.#sinceSec || (sec === this.#sinceSec && this.#table.beginUsec(ref) >= this.#sinceUsec)
  }

  #port(ref: number, protocol: number): number {
    return hasPorts[protocol] === 1 ? this.#table.keys(ref) & 0xffff : 0
  }

  /** Of address words `from` to `from + 3`. */
  #addressHash(ref: number, from: number): number {
    const table = this.#table
    const last = mix(this.#seed, table.addressWord(ref, from + 3))
    if ((ref & 1) === 0) return mix(last, 0)
    return mix(mix(mix(mix(last, table.addressWord(ref, from + 2)), table.addressWord(ref, from + 1)), table.addressWord(ref, from)), 1)
  }

  /** `address`: the hash of the destination. */
  #serviceHash(ref: number, protocol: number, address: number): number {
    return mix(mix(address, (this.#port(ref, protocol) << 8) | protocol), 2)
  }

  #leadingStates(): { value: string; index: number }[] {
    const counts = this.#states
    const found: { value: string; index: number }[] = []
    counts.forEach((entries, index) => {
      if (entries === 0) return
      const state = (index % STATES) - 1
      const protocol = protocolText(Math.floor(index / STATES))
      found.push({ value: state < 0 ? protocol : `${protocol} ${states[state]}`, index })
    })
    return found.sort((a, b) => counts[b.index]! - counts[a.index]! || (a.value < b.value ? -1 : 1)).slice(0, TOLD)
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
    if (this.#used !== 0) this.#slots.fill(0)
    this.#used = 0
  }

  /** Marks the cells with the most entries, of equal ones the first. A sort of all cells would cost more than the look at a table of 100,000 flows. */
  chooseHeavy(): void {
    const { cells } = this
    const chosen: number[] = []
    let least = 0
    for (let cell = 0; cell < CELLS; cell++) {
      const entries = cells[cell]!
      if (entries <= least) continue
      if (chosen.length === HEAVY) chosen.pop()
      let at = chosen.length
      while (at > 0 && cells[chosen[at - 1]!]! < entries) at--
      chosen.splice(at, 0, cell)
      if (chosen.length === HEAVY) least = cells[chosen[HEAVY - 1]!]!
    }
    for (const cell of chosen) this.#heavy[cell] = 1
  }

  isHeavy(hash: number): boolean {
    return this.#heavy[hash & (CELLS - 1)] === 1
  }

  /** Counts the flow for its address: words `from` to `from + 3` of the table's. */
  add(table: FlowTable, ref: number, hash: number, from: number, kind: number, port: number, unreplied: number, opened: number): void {
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
        slots[at + ENTRIES] = 1
        slots[at + UNREPLIED] = unreplied
        slots[at + OPENED] = opened
        return
      }
      if (slots[at] === (kind | SLOT_USED) && slots[at + 1] === port && slots[at + 5] === w3 && slots[at + 4] === w2 && slots[at + 3] === w1 && slots[at + 2] === w0) {
        slots[at + ENTRIES]!++
        slots[at + UNREPLIED]! += unreplied
        slots[at + OPENED]! += opened
        return
      }
    }
  }

  /** Slots with the most entries; of equals the lower address first, so that the same table always gives the same. */
  leaders(): number[] {
    const found: number[] = []
    for (let slot = 0; slot < SLOTS; slot++) if (this.#slots[slot * SLOT_WORDS] !== 0) found.push(slot)
    return found.sort((a, b) => this.number(b, ENTRIES) - this.number(a, ENTRIES) || this.#order(a, b)).slice(0, TOLD)
  }

  /** One of the three numbers of a slot. */
  number(slot: number, which: typeof ENTRIES | typeof UNREPLIED | typeof OPENED): number {
    return this.#slots[slot * SLOT_WORDS + which]!
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

/** A round for each word: with the seed not to be guessed, and a third of the cost of the table's own hash. */
function mix(hash: number, word: number): number {
  const h = Math.imul(hash ^ word, 0x9e3779b1)
  return h ^ (h >>> 15)
}

/** The number where it has no name. */
const protocolText = (protocol: number): string => protocolNames[protocol] ?? String(protocol)
