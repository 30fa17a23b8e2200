/**
 * What the counters of one namespace said lately: its level, and the rises between its last samples. Plain data, so that a checkpoint can hold it.
 */
import type { TableRecord } from '../../event.js'

/** Of the maximum: from here on a rise of `drop` is the table's doing. */
const FULL_LEVEL = 0.9
/** Rises that are kept for an episode that turns out to have begun before them. */
const SPANS_KEPT = 4
/** Time between samples where only one has been seen, and the longest that is waited for. */
const EVERY_FIRST = 2e6
const EVERY_MAX = 60e6
/** So many intervals without a sample, and the watching has stopped. */
const MISSED_INTERVALS = 2.5
/** A level is taken to hold for so long at least. */
const LEVEL_HOLDS = 60e6

/** From one sample to the next, in microseconds since the epoch, and how far the counters rose. */
export interface Span {
  readonly from: number
  readonly to: number
  readonly drop: number
  readonly early: number
  readonly failed: number
  /** evidence of a full table: packets found no room, and the level was at 90 % at one of the two ends */
  readonly full: boolean
  /** an episode has counted it */
  claimed: boolean
}

export interface Watch {
  readonly netns: number
  name: string
  /** of the last sample, and the time between the last two; microseconds */
  at: number
  every: number
  /** the kernel's counters; -1 not known */
  drop: number
  early: number
  failed: number
  count: number
  max: number
  /** count / max, -1 not known */
  level: number
  /** oldest first */
  spans: Span[]
}

export function beginWatch(record: TableRecord, at: number): Watch {
  const watch: Watch = { netns: record.netns, name: record.netnsName, at, every: EVERY_FIRST, drop: -1, early: -1, failed: -1, count: -1, max: -1, level: -1, spans: [] }
  take(watch, record)
  return watch
}

/** A further sample of the namespace. Null for one that was there before, and for one that begins anew (the number was given to another namespace). */
export function nextSample(watch: Watch, record: TableRecord, at: number): Span | null {
  if (at <= watch.at) return null
  const level = watch.level
  const before = watch.at
  const drop = rise(watch.drop, record.total?.drop, record.drop)
  const early = rise(watch.early, record.total?.early_drop, record.earlyDrop)
  const failed = rise(watch.failed, record.total?.insert_failed, record.insertFailed)
  const renamed = record.netnsName !== '' && watch.name !== '' && record.netnsName !== watch.name
  take(watch, record)
  watch.every = Math.min(EVERY_MAX, at - before)
  watch.at = at
  if (renamed || drop < 0 || early < 0 || failed < 0) {
    watch.spans = []
    return null
  }
  const span: Span = { from: before, to: at, drop, early, failed, full: drop > failed && (level >= FULL_LEVEL || watch.level >= FULL_LEVEL), claimed: false }
  watch.spans.push(span)
  if (watch.spans.length > SPANS_KEPT) watch.spans.shift()
  return span
}

/** The clock was set, `by` microseconds forward. */
export function moveWatch(watch: Watch, by: number): void {
  watch.at += by
  watch.spans = watch.spans.map((span) => ({ ...span, from: span.from + by, to: span.to + by }))
}

function take(watch: Watch, record: TableRecord): void {
  if (record.netnsName !== '') watch.name = record.netnsName
  watch.drop = record.total?.drop ?? -1
  watch.early = record.total?.early_drop ?? -1
  watch.failed = record.total?.insert_failed ?? -1
  watch.count = record.count
  watch.max = record.max
  watch.level = record.usage >= 0 ? record.usage : record.count >= 0 && record.max > 0 ? record.count / record.max : -1
}

/** By the totals, which hold where records are missing; else as the record says. Negative where the counting began anew. */
function rise(before: number, total: number | undefined, said: number): number {
  return before >= 0 && total !== undefined ? total - before : Math.max(0, said)
}

/** From then on its rises are known. */
export const knownFrom = (watch: Watch): number => watch.spans[0]?.from ?? watch.at

/** Samples of it still come. `patience`: how long is waited for one at least. */
export function isWatched(watch: Watch, now: number, patience: number): boolean {
  return now <= watchedUntil(watch, patience)
}

export function watchedUntil(watch: Watch, patience: number): number {
  return watch.at + Math.max(MISSED_INTERVALS * watch.every, patience)
}

/** From then on its level is not known. */
export function levelUntil(watch: Watch): number {
  return watch.at + Math.max(LEVEL_HOLDS, 2 * watch.every)
}
