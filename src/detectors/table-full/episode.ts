/**
 * One episode: what has been counted of it, and the notice that says so.
 */
import { type Alert, type Drops, type Severity, TIME_ESTIMATED, timeOf } from '../../event.js'
import { leaderOf, number, partText } from '../../leader.js'
import { type Fullest, topAt } from './fullest.js'
import { knownFrom, type Span, type Watch } from './watch.js'

/** Rules that follow from rate-limited kernel lines. */
export type EpisodeRule = 'table_full' | 'expect_table_full'

/** A sample so shortly before the first line (the two clocks are compared through an offset that was measured) may have seen its drops. */
const CLOCKS_DIFFER = 250_000
const DAY = 86_400e6
/** The lines' clock counts from boot, and when that was is only guessed. */
const GUESSED = '; its times are a guess, --boot-time makes them right'

/** Open at once, of both rules. A log can name any number of namespaces, forged ones too: those beyond share one episode for each rule. */
export const EPISODES_MAX = 256
/** `netns` of that one. */
export const OTHERS = -2


/** Plain data: a checkpoint holds it. Times are microseconds since the epoch. */
export interface Episode {
  /** names it within this run */
  readonly n: number
  readonly rule: EpisodeRule
  /** 0 not known (yet), or OTHERS */
  netns: number
  netnsName: string
  readonly id: string
  readonly severity: Severity
  /** notices so far */
  seq: number
  started: number
  /** last evidence */
  ended: number
  /** the same for the closing: late lines hold the episode open from when they came */
  held: number
  noticed: number
  /** numbers have grown since the last notice */
  grown: boolean
  /** lines that are this namespace's; that are by what its counters did; that may be another's or nobody's */
  sure: number
  attributed: number
  doubtful: number
  suppressed: number
  /** a suppression line was seen; and one that was not for this episode alone */
  reported: boolean
  shared: boolean
  /** rises of drop, early_drop and insert_failed; -1 not known */
  counted: number
  early: number
  races: number
  /** when the watching began, where that was inside; -1 it was before */
  since: number
  unconfirmed: boolean
  /** without a namespace: its lines are known to be none of the watched ones', or several's */
  foreign: boolean
  /** null: not looked at yet */
  fullest: Fullest | null
}

/** What a notice needs beside the episode. */
export interface NoticeContext {
  readonly status: Alert['status']
  readonly final: boolean
  /** microseconds; TIME_* */
  readonly now: number
  readonly timeSource: number
  /** other episodes are open */
  readonly crowded: boolean
  /** kernel lines are among the inputs */
  readonly logs: boolean
  readonly watch: Watch | null
  /** said of each table */
  readonly where: string
}

export const logged = (episode: Episode): number => episode.sure + episode.attributed + episode.doubtful

/** What holds whatever else was held back: counters show that attributed lines are this namespace's only as far as they rose. */
function atLeast(episode: Episode): number {
  if (episode.counted < 0) return episode.sure + episode.attributed
  return episode.sure + Math.max(0, Math.min(episode.attributed, episode.counted - episode.sure))
}

/** Adds the rises that belong to the episode: from the last sample before it on. */
export function countSpans(episode: Episode, watch: Watch): void {
  const mine = watch.spans.filter((span) => !span.claimed && isOf(span, episode))
  if (episode.counted < 0) {
    const from = knownFrom(watch)
    const inside = from > episode.started
    if (mine.length === 0 && !inside) return
    episode.since = inside ? from : -1
    episode.counted = episode.early = episode.races = 0
  }
  for (const span of mine) {
    span.claimed = true
    if (span.drop + span.early + span.failed > 0) episode.grown = true
    episode.counted += span.drop
    episode.early += span.early
    episode.races += span.failed
  }
}

function isOf(span: Span, { started }: Episode): boolean {
  return span.to >= started || (span.to >= started - CLOCKS_DIFFER && span.drop > span.failed)
}

/** The clock was set, `by` microseconds forward. */
export function moveEpisode(episode: Episode, by: number): void {
  episode.started += by
  episode.ended += by
  episode.held += by
  episode.noticed += by
  if (episode.since >= 0) episode.since += by
  if (episode.fullest !== null) episode.fullest = { ...episode.fullest, at: episode.fullest.at + by }
}

export function makeAlert(episode: Episode, context: NoticeContext): Alert {
  const drops = dropsOf(episode, context)
  const { watch } = context
  return {
    ...timeOf(context.now),
    timeSource: context.timeSource,
    // whoever has detectors for several hosts knows whose this is
    host: '',
    netns: Math.max(0, episode.netns),
    netnsName: episode.netnsName,
    rule: episode.rule,
    status: context.status,
    final: context.final,
    unconfirmed: episode.unconfirmed,
    episode: episode.id,
    seq: episode.seq,
    severity: episode.severity,
    started: timeOf(episode.started),
    ended: context.status === 'resolved' ? timeOf(episode.ended) : null,
    summary: summaryOf(episode, drops, context),
    drops,
    table: watch === null || watch.count < 0 || watch.max < 0 ? null : { count: watch.count, max: watch.max },
    topAt: topAt(episode.fullest),
    top: episode.fullest?.top ?? [],
  }
}

function dropsOf(episode: Episode, { crowded, logs }: NoticeContext): Drops {
  const lines = logged(episode)
  const known = logs || lines > 0
  const estimate = lines + episode.suppressed
  // counters that were there all the time show what the estimate has of others
  const disproved = episode.counted >= 0 && episode.since < 0 && estimate > episode.counted
  return {
    logged: known ? lines : -1,
    suppressed: known ? episode.suppressed : -1,
    atLeast: known ? atLeast(episode) : -1,
    estimate: episode.reported && !episode.shared && !crowded && !disproved && episode.doubtful === 0 ? estimate : -1,
    counted: episode.counted,
    early: episode.early,
    races: episode.races,
    since: episode.counted >= 0 && episode.since >= 0 ? timeOf(episode.since) : null,
  }
}

function summaryOf(episode: Episode, drops: Drops, context: NoticeContext): string {
  const table = episode.rule === 'table_full' ? 'conntrack table' : 'conntrack expectation table'
  const name = episode.netnsName === '' ? '' : ` (${episode.netnsName})`
  const where = episode.netns === OTHERS ? ` in further namespaces (only ${EPISODES_MAX} are told apart at once)` : episode.netns === 0 ? '' : ` in netns ${episode.netns}${name}`
  const full = context.status === 'resolved' ? 'was full' : 'full'
  return `${table} ${full}${context.where}${where}: ${amount(episode, drops, context)}${heldBack(episode, drops)}${who(episode)}${context.timeSource === TIME_ESTIMATED ? GUESSED : ''}`
}

function who(episode: Episode): string {
  const leader = leaderOf(episode.fullest?.top ?? [])
  return leader === null ? '' : `; ${leader.by === 'src' ? leader.value : `flows to ${leader.value}`} held ${partText(leader)}`
}

function amount(episode: Episode, drops: Drops, context: NoticeContext): string {
  if (episode.unconfirmed) return `${lines(drops.logged)} ${drops.logged === 1 ? 'says' : 'say'} so ${period(episode, context, episode.started)}, but no counter confirms it`
  // some helpers drop the packet whose expectation found no room, others let it go
  if (episode.rule === 'expect_table_full') return `logged ${times(drops.logged)} ${period(episode, context, episode.started)}`
  // right after the first line there is no sample that has seen its drop
  if (isCounted(drops)) {
    const races = drops.races === 0 ? '' : ` (up to ${number(drops.races)} of them lost insertion races)`
    return `${packets(drops.counted)} dropped ${period(episode, context, drops.since === null ? episode.started : episode.since)}${races}`
  }
  const least = Math.max(drops.atLeast, drops.counted, 0)
  return `at least ${packets(least)} dropped ${period(episode, context, episode.started)}`
}

/** Where only the log speaks: what its limiter kept to itself is one number for every message of every namespace, so it is said, and added to nothing. */
function heldBack(episode: Episode, drops: Drops): string {
  if (episode.unconfirmed || isCounted(drops) || drops.suppressed <= 0) return ''
  return `; the kernel held back ${number(drops.suppressed)} more ${drops.suppressed === 1 ? 'message' : 'messages'} of whatever kind`
}

function isCounted(drops: Drops): boolean {
  return drops.counted > 0 && drops.counted >= drops.atLeast
}

/** `since 10:14:43 (UTC)`, with the date where that is another day. */
function period(episode: Episode, { status, now }: NoticeContext, from: number): string {
  const end = status === 'resolved' ? Math.max(from, episode.ended) : now
  const dated = Math.floor(from / DAY) !== Math.floor(end / DAY)
  return status === 'resolved' ? `from ${clock(from, dated)} to ${clock(end, dated)} (UTC)` : `since ${clock(from, dated)} (UTC)`
}

function clock(microseconds: number, dated: boolean): string {
  const text = new Date(Math.floor(microseconds / 1000)).toISOString()
  return `${dated ? `${text.slice(0, 10)} ` : ''}${text.slice(11, 19)}`
}

const packets = (value: number): string => `${number(value)} ${value === 1 ? 'packet' : 'packets'}`
const times = (value: number): string => `${number(value)} ${value === 1 ? 'time' : 'times'}`
const lines = (value: number): string => `${number(value)} ${value === 1 ? 'line' : 'lines'}`

/** Sixteen hex digits of a text: two of Murmur3's 32-bit walks with different beginnings. */
export function mix64(text: string): string {
  return walk(text, 0x9747b28c) + walk(text, 0x3c6ef372)
}

function walk(text: string, seed: number): string {
  let h = seed
  for (let i = 0; i < text.length; i++) {
    let k = Math.imul(text.charCodeAt(i), 0xcc9e2d51)
    k = (k << 15) | (k >>> 17)
    h ^= Math.imul(k, 0x1b873593)
    h = (h << 13) | (h >>> 19)
    h = (Math.imul(h, 5) + 0xe6546b64) | 0
  }
  h ^= text.length
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return ((h ^ (h >>> 16)) >>> 0).toString(16).padStart(8, '0')
}
