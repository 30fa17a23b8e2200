/**
 * Who held the table's entries at the moment of an episode at which it was fullest. Events of flows come some milliseconds after the kernel's word that the table is
 * full, and are gone when whoever filled it has stopped: so it is looked at with each piece of evidence and each sample, and kept where more is known than before.
 */
import { type Holder, type Time, timeOf } from '../../event.js'
import type { HoldersLook, TopHolders } from '../../stage.js'

/**
 * Up to so many entries any further one is worth a look (a millisecond). Above, a part of them, or a notice that tells it: a table of 400,000 that fills under
 * evidence is so looked at three or four times, at 40 ms each, and not with each line.
 */
const LOOKS_FREE = 4096
const FURTHER = 1 / 2
/** Below this part of the fullest level it is another moment, however many entries are known by then. */
const SAME_LEVEL = 0.9

/** Plain data: a checkpoint holds it. */
export interface Fullest {
  /** microseconds since the epoch */
  readonly at: number
  /** of the entries then, as many as were known; and the most that the kernel counted at any moment of the episode, -1 not known */
  readonly known: number
  readonly level: number
  readonly top: readonly Holder[]
}

/** The level at a moment. */
export interface Moment {
  /** microseconds since the epoch */
  readonly at: number
  /** the kernel's count, -1 not known */
  readonly count: number
  /** a notice is due: any further entry is worth a look, */
  readonly isTold: boolean
  /** and an equal moment takes the place of the last, for there is new evidence */
  readonly isFresh: boolean
}

/** The fuller one of `before` and the table as it is now. `since`: from when on a flow is new. */
export function fuller(before: Fullest | null, { at, count, isTold, isFresh }: Moment, holders: TopHolders, netns: number, since: number): Fullest | null {
  // entries whose end was lost are known beyond the kernel's count
  const limit = count < 0 ? Infinity : count
  const known = Math.min(holders.known(netns), limit)
  if (before !== null) {
    if (count >= 0 && count < before.level * SAME_LEVEL) return before
    const more = isFresh ? 0 : isTold || known <= LOOKS_FREE ? 1 : before.known * FURTHER
    if (known < before.known + more) return count > before.level ? { ...before, level: count } : before
  }
  const look = known === 0 ? NOTHING : holders.look(netns, at, since)
  if (look === null) return before
  return { at, known, level: Math.max(count, before?.level ?? -1), top: topOf(look, count) }
}

const NOTHING: HoldersLook = { known: 0, rows: [] }

function topOf({ known, rows }: HoldersLook, count: number): Holder[] {
  const all = count < 0 ? known : count
  const part = (entries: number): number => Math.min(entries, all)
  return rows.map(({ by, value, entries, unreplied, new: opened }) => ({
    ...{ by, value, entries: part(entries), share: Math.round((part(entries) / all) * 1e4) / 1e4 },
    ...(count < 0 ? { known } : {}),
    ...(opened === undefined ? {} : { new: part(opened) }),
    unreplied: part(unreplied),
  }))
}

/** As good as all that the kernel counts is known. */
export const isWhole = (fullest: Fullest | null): boolean => fullest !== null && fullest.level >= 0 && fullest.known >= fullest.level * SAME_LEVEL

/** When that was, as a record says it. */
export const topAt = (fullest: Fullest | null): Time | null => (fullest === null || fullest.top.length === 0 ? null : timeOf(fullest.at))
