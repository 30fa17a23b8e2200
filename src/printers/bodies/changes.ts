/** Which notices of an episode are worth a message to people: the first, each tenfold rise of the drops, and the end. */
import { isMap, type RecordValue, textOr } from './record.js'

/** What was told last. */
export interface Told {
  /** packets dropped, or lines lost, when it was told */
  readonly count: number
  /** milliseconds since the epoch */
  readonly at: number
}

/** A gap of the same kind is told anew after so long. */
const GAP_QUIET_MS = 3_600_000
const RISE = 10

/** What `told` is kept under: the episode, or the kind of gap. */
export function subjectOf(record: RecordValue): string {
  if (record['type'] !== 'gap') return textOr(record['episode'], '')
  return `gap ${textOr(record['cause'], '')} ${textOr(record['input'], '')} ${textOr(record['output'], '')}`
}

/** Is it to be told, and what is told then? null: not. `told` is what was told of the subject before, null for nothing; `now` in milliseconds. */
export function change(record: RecordValue, told: Told | null, now: number): Told | null {
  if (record['type'] === 'gap') {
    const count = Number(record['count'] ?? record['at_least'] ?? 1)
    if (told === null || now - told.at > GAP_QUIET_MS || count >= RISE * Math.max(1, told.count)) return { count, at: now }
    return null
  }
  const count = dropped(record)
  if (told === null || record['status'] === 'resolved' || count >= RISE * Math.max(1, told.count)) return { count, at: now }
  return null
}

/** The best number there is. */
function dropped(record: RecordValue): number {
  const drops = record['drops']
  if (!isMap(drops)) return 0
  return Number(drops['counted'] ?? drops['estimate'] ?? drops['at_least'] ?? drops['logged'] ?? 0)
}
