/**
 * Expectations that helpers announced, and the new flows that fit them. The kernel destroys a one-shot expectation before it reports the flow, and two tools in
 * one pipe come in any order, so an expectation counts for a second around its end, and a flow that came first is looked up again.
 */
import { type ExpectEvent, type ExpectTuple, type FlowEvent, DESTROY, KEYS_ICMP } from '../../event.js'
import { FLAG_ANSWERED, FLAG_BEGIN_NEW, FLAG_RELATED, type FlowTable } from './table.js'

/** Recent unanswered flows kept for expectations that come late. */
const RECENT = 1024
/** Expectations kept at most; the kernel's own default is 4 x buckets / 256, 4,096 at the most usual size. The oldest goes. */
const EXPECTATIONS_MAX = 16_384
/** Microseconds around its destruction in which an expectation still counts. */
const AROUND_USEC = 1_000_000

interface Expectation {
  readonly family: 4 | 6
  readonly protocol: number
  readonly tuple: ExpectTuple
  readonly mask: ExpectTuple | null
  readonly permanent: boolean
  deadline: number
  /** microseconds since the epoch, or -1 while it lives */
  destroyed: number
  claimed: boolean
}

export class Expectations {
  /** how many are kept; 0 lets the tracker skip the look */
  known = 0
  readonly #kept = new Map<string, Expectation>()
  readonly #recentRef = new Int32Array(RECENT)
  readonly #recentLife = new Int32Array(RECENT)
  #recentAt = 0

  /** A new flow that waits for its answer. */
  remember(ref: number, life: number): void {
    const at = this.#recentAt++ & (RECENT - 1)
    this.#recentRef[at] = ref
    this.#recentLife[at] = life
  }

  /** Does an expectation fit this new flow? A one-shot one is used up by it. */
  claim(event: FlowEvent): boolean {
    const now = event.sec * 1e6 + event.usec
    for (const [key, kept] of this.#kept) {
      if (this.#isOver(kept, now)) {
        this.#kept.delete(key)
        this.known = this.#kept.size
        continue
      }
      if ((kept.claimed && !kept.permanent) || kept.protocol !== event.protocol || kept.family !== event.family || !fits(kept, event)) continue
      if (kept.destroyed >= 0 && Math.abs(now - kept.destroyed) >= AROUND_USEC) continue
      kept.claimed = true
      return true
    }
    return false
  }

  /** The clock was set, `by` microseconds forward. */
  clockStepped(by: number): void {
    for (const kept of this.#kept.values()) {
      kept.deadline += by
      if (kept.destroyed >= 0) kept.destroyed += by
    }
  }

  learn(event: ExpectEvent, table: FlowTable): void {
    const key = [event.protocol, event.tuple.words, event.tuple.k1, event.tuple.k2, event.tuple.k3, event.master?.words, event.master?.k1, event.master?.k2].join(' ')
    const now = event.sec * 1e6 + event.usec
    let kept = this.#kept.get(key)
    if (event.event === DESTROY) {
      // one that ran out by itself was never met
      if (event.timeout <= 0 && (event.timeout === 0 || kept === undefined || kept.deadline <= now)) {
        this.#kept.delete(key)
        this.known = this.#kept.size
        return
      }
      kept ??= this.#keep(key, event, now)
      kept.destroyed = now
    } else {
      kept = this.#keep(key, event, now)
    }
    if (!kept.claimed || kept.permanent) this.#lookBack(kept, now, table)
  }

  #keep(key: string, event: ExpectEvent, now: number): Expectation {
    if (this.#kept.size >= EXPECTATIONS_MAX) this.#kept.delete(this.#kept.keys().next().value!)
    const kept: Expectation = {
      family: event.family,
      protocol: event.protocol,
      tuple: event.tuple,
      mask: event.mask,
      permanent: event.flags.includes('permanent'),
      deadline: event.timeout < 0 ? Infinity : now + event.timeout * 1e6,
      destroyed: -1,
      claimed: false,
    }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    this.known = this.#kept.size
    return kept
  }

  #isOver(kept: Expectation, now: number): boolean {
    return kept.destroyed >= 0 ? now - kept.destroyed >= AROUND_USEC : now > kept.deadline
  }

  #lookBack(kept: Expectation, now: number, table: FlowTable): void {
    for (let n = 1; n <= Math.min(RECENT, this.#recentAt); n++) {
      const at = (this.#recentAt - n) & (RECENT - 1)
      const ref = this.#recentRef[at]
      if (table.kind(ref) < 0 || table.life(ref) !== this.#recentLife[at]) continue
      const flags = table.flags(ref)
      if ((flags & FLAG_ANSWERED) !== 0 || (table.kind(ref) & 255) !== kept.protocol || (ref & 1) !== (kept.family === 6 ? 1 : 0)) continue
      if ((flags & FLAG_BEGIN_NEW) !== 0 && Math.abs(now - table.beginSec(ref) * 1e6 - table.beginUsec(ref)) >= AROUND_USEC) continue
      if ((flags & FLAG_RELATED) !== 0 || !fitsRecord(kept, table, ref)) continue
      table.setFlags(ref, FLAG_RELATED, 0)
      kept.claimed = true
      if (!kept.permanent) return
    }
  }
}

/** The kernel compares through the mask: net/netfilter/nf_conntrack_expect.c, nf_ct_tuple_mask_cmp. Without a printed mask the addresses and the destination key count. */
function fits(kept: Expectation, event: FlowEvent): boolean {
  const o = event.orig
  const t = kept.tuple
  const m = kept.mask
  const address = [o.s0, o.s1, o.s2, o.s3, o.d0, o.d1, o.d2, o.d3]
  return address.every((part, i) => maskedEqual(part, t.words[i]!, m === null ? -1 : m.words[i]!)) && keysFit(kept, o.k1, o.k2, o.k3)
}

function fitsRecord(kept: Expectation, table: FlowTable, ref: number): boolean {
  const t = kept.tuple
  const m = kept.mask
  for (let i = 0; i < 8; i++) if (!maskedEqual(table.addressWord(ref, i), t.words[i]!, m === null ? -1 : m.words[i]!)) return false
  const keys = table.keys(ref)
  return t.keys === KEYS_ICMP ? keysFit(kept, keys >>> 24, (keys >>> 16) & 255, keys & 0xffff) : keysFit(kept, keys >>> 16, keys & 0xffff, 0)
}

function keysFit(kept: Expectation, k1: number, k2: number, k3: number): boolean {
  const t = kept.tuple
  const m = kept.mask
  return maskedEqual(k1, t.k1, m === null ? 0 : m.k1) && maskedEqual(k2, t.k2, m === null ? -1 : m.k2) && maskedEqual(k3, t.k3, m === null ? 0 : m.k3)
}

function maskedEqual(a: number, b: number, mask: number): boolean {
  return ((a ^ b) & mask) === 0
}
