/**
 * Whoever holds most of a full table: a sender; where no one sender does, the service or the host to which most flows go. Null where nobody stands out, or so
 * little of the table is known that it says nothing.
 */
import type { Holder } from './event.js'

/** A holder with less of the table is not worth a word. */
const SHARE_TOLD = 0.1
/** Nor is one of so few entries, where nobody knows how many there are. */
const KNOWN_TOLD = 10
const BY = ['src', 'service', 'dst'] as const

export function leaderOf(top: readonly Holder[], kinds: readonly string[] = BY): Holder | null {
  const leaders = kinds.map((by) => top.find((holder) => holder.by === by)).filter((holder) => holder !== undefined)
  return leaders.find(({ share, known = KNOWN_TOLD }) => share >= SHARE_TOLD && known >= KNOWN_TOLD) ?? null
}

/** `98 %`, or `98 of 120 known entries`. */
export function partText({ entries, share, known }: Holder): string {
  return known === undefined ? percent(share) : `${number(entries)} of ${number(known)} known entries`
}

/** Only all is 100 %, and only nothing is 0 %. */
function percent(share: number): string {
  const rounded = share < 1 ? Math.min(99, Math.round(share * 100)) : 100
  return rounded === 0 && share > 0 ? 'under 1 %' : `${rounded} %`
}

export const number = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ',')
