/**
 * Flows that end without an event. The kernel gives a flow what events are kept in only if somebody listens when it begins (net.netfilter.nf_conntrack_events=2,
 * the default since 5.19; nf_conntrack_ecache.c nf_ct_ecache_ext_add), so of flows that are older than the first listener nothing is heard, not even their end.
 * What they leave behind is a difference: the kernel's number of entries falls, and no DESTROY tells why.
 */
import { readFileSync } from 'node:fs'

const LF = 10
const TAB = 9
const BRACKET = 91
const N = 78
const D = 68
/** Where the TAB behind a stamp is, of releases from 1.4.2 on, and at the most. */
const TAB_AT = 19
const TAB_AT_MAX = 32
/** So many looks in a row must find entries missing: an event that is on its way comes by the next. */
const LOOKS = 3
/** While events come, some are always on their way: then so many must be missing, and this share of the table. */
const BUSY_MISSING = 5
const BUSY_SHARE = 0.01

/** Entries of the table by the kernel's own count, in the namespace of a process and, where that is `own`, also by sysctl; -1 where it does not tell. */
export function entriesOf(proc: string, pid: number, own: boolean): number {
  const [header = '', first = ''] = textOf(`${proc}/${pid}/net/stat/nf_conntrack`).split('\n')
  const entries = Number.parseInt(first.trim().split(/\s+/)[header.trim().split(/\s+/).indexOf('entries')] ?? '', 16)
  if (!Number.isNaN(entries)) return entries
  const count = own ? Number.parseInt(textOf(`${proc}/sys/net/netfilter/nf_conntrack_count`), 10) : NaN
  return Number.isNaN(count) ? -1 : count
}

export class Balance {
  /** entries that there should be; -1: not known */
  #expected = -1
  #heard = false
  #short = 0

  /** Whole lines of events. */
  hear(lines: Uint8Array): void {
    this.#heard = true
    if (this.#expected < 0) return
    for (let at = 0; at < lines.length; at = lines.indexOf(LF, at) + 1 || lines.length) {
      let tab = at + TAB_AT
      if (lines[tab] !== TAB) for (tab = at; tab < at + TAB_AT_MAX && lines[tab] !== TAB; tab++);
      if (lines[tab + 1] === BRACKET && lines[tab + 2] === D) this.#expected--
      else if (lines[tab + 5] === BRACKET && lines[tab + 6] === N) this.#expected++
    }
  }

  /** The table is about to be read: its flows will be the kernel's entries, so many. */
  settle(entries: number): void {
    this.#expected = entries
    this.#short = 0
  }

  /** A look at the kernel's number. True when entries went without a word. */
  isShort(entries: number): boolean {
    const heard = this.#heard
    this.#heard = false
    if (entries < 0 || this.#expected < 0) return false
    const missing = this.#expected - entries
    // more than expected were on their way when it was settled
    if (missing < 0 && !heard) this.#expected = entries
    this.#short = missing >= (heard ? Math.max(BUSY_MISSING, entries * BUSY_SHARE) : 1) ? this.#short + 1 : 0
    return this.#short >= LOOKS
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
