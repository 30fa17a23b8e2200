/**
 * Table-full episodes: one for each rule and namespace, opened by the first kernel line or counter that tells of it, written again while it grows, closed after
 * quiet time. Lines are a sample of the drops and may be anyone's; counters are exact and come once a second: each waits for the other where it must.
 *
 * Times are event time and only move forward. Memory is bounded by what is open and what is watched.
 */
import { type Alert, type AlertRule, type KernelEvent, type KernelKind, type RecordTime, type Severity, type TableRecord, type Time, TIME_ESTIMATED, TIME_OWN, timeOf } from '../event.js'
import type { FullTable, TopHolders } from '../stage.js'
import { countSpans, type Episode, type EpisodeRule, EPISODES_MAX, logged, makeAlert, mix64, moveEpisode, OTHERS } from './table-full/episode.js'
import { fuller, isWhole } from './table-full/fullest.js'
import { addOwner, noWindow, renameOwner, type Window, windowOf } from './table-full/limiter.js'
import { beginWatch, isWatched, knownFrom, levelUntil, moveWatch, nextSample, type Span, type Watch, watchedUntil } from './table-full/watch.js'

/** Two of the limiter's windows: a window is reported only in the next. */
export const QUIET_SEC_MIN = 10

/** The collector follows a full table for so long. */
const FULL_LASTS_SEC = 90
/** Above this level the collector evicts (net/netfilter/nf_conntrack_core.c, gc_worker). */
const EVICTION_LEVEL = 0.94
/** Evictions come just before the line that tells of the full table. */
const FULL_BEFORE_SEC = 2
/** Lines so much older than the clock are old ones that are read on purpose. */
const LATE = 5e6
/** A line whose clock tells whole seconds, or that was written late, and the sample that saw its drop. */
const LINE_LAG = 1e6
/** Counters that rise within two of the limiter's windows after a line without a namespace tell of the same flood. */
const SAME_FLOOD = 10e6
/** Without a sample the table of an open episode is looked at so often, and so long after the last evidence; then only a level at which the kernel would drop tells of the episode. */
const LOOK_EVERY = 1e6
const LOOK_UNTIL = 10e6
const FULL_LEVEL = 0.9
/** What is not heard of for so long is forgotten. */
const FORGET = 600e6
const PRUNE_EVERY = 60e6
const NAMED_MAX = 4096

/** Other messages that net_ratelimit counts with those about full tables: net/ipv4/tcp_input.c, net/core/neighbour.c, net/netfilter/nfnetlink_queue.c. */
const rateLimited: ReadonlySet<KernelKind> = new Set(['syn_flood', 'neighbour_overflow', 'queue_full'])
/** Of the helpers' messages these: nf_conntrack_irc.c, nf_conntrack_amanda.c, nf_conntrack_h323_main.c of 2.6. */
const rateLimitedHelper = /^(Forged DCC|amanda_help|nf_ct_(h245|q931|ras): packet dropped)/

export interface RuleSettings {
  /** seconds without evidence that close an episode; 10 at least */
  readonly quietSec: number
  /** seconds between two notices that only say that numbers have grown */
  readonly repeatSec: number
  readonly severity: Severity
}

/** What is not set has the defaults of the contract: 60 s, 30 s, critical (expectations: warning), 90 %. */
export interface TableFullOptions extends Partial<RuleSettings> {
  /** part of the maximum, 0 to 1, below which an episode closes */
  readonly clearBelow?: number
  /** for `expect_table_full`; quiet and repeat default to those of `table_full` */
  readonly expectations?: Partial<RuleSettings>
  /**
   * Seconds of event time that a line without a namespace waits for the samples that tell whose it is, before its episode is told without one; 1, so that the
   * alert of a live input is out within a second. Where nobody waits (files), more gives the namespace to the first notice even where samples are sparse.
   */
  readonly patienceSec?: number
  readonly emit: (alert: Alert) => void
  readonly holders: TopHolders | null
  /** Do flow events of that namespace come as they happen? Then a first notice waits for those of the evidence, until `flowsCame`. */
  readonly followsFlows?: (netns: number) => boolean
  /** boot id, '' where not known: part of an episode's id */
  readonly boot: string
  /** its lines' clock is only estimated */
  readonly isEstimated?: boolean
  /** said of each table, where it is one of no single host; '' nothing */
  readonly where?: string
}

export interface KernelSource {
  /** do this kernel's lines name every namespace but the initial one (6.18)? null: not known, then a line that does tells it */
  readonly namesNamespaces: boolean | null
  /** inode of the initial namespace, 0 not known */
  readonly initialNetns: number
}

/** An episode that is open, for metrics and a status page. */
export interface OpenEpisode {
  readonly rule: AlertRule
  readonly netns: number
  readonly netnsName: string
  readonly episode: string
  readonly started: Time
}

/** Lines that wait for the samples around them: whose they are, or (from a syslog file) whether they are the kernel's. Plain data. */
interface Waiting {
  readonly n: number
  /** -1: whose they are is the question */
  readonly netns: number
  /** the kernel names the others' lines, so these are of a namespace that no line has named */
  readonly initial: boolean
  readonly trusted: boolean
  /** microseconds since the epoch */
  from: number
  to: number
  count: number
  /** what an episode that they open is made from */
  readonly seed: string
  /** a sample came since: no more lines are added */
  sealed: boolean
  /** number of the episode that they were told in meanwhile, 0 none */
  told: number
  suppressed: number
  reported: boolean
  shared: boolean
}

/** That a table was full at that time. */
interface Evidence {
  readonly rule: EpisodeRule
  readonly netns: number
  readonly at: number
  /** when an episode that it opens began, if not then; what its id is made from */
  readonly started?: number
  readonly seed: string
  /** beginning of the time that it speaks of */
  readonly since?: number
  /** a line, with the number where `netns` is not 0 */
  readonly isLine?: boolean
}

/** Seconds between which a table is known to be full. */
interface Full {
  from: number
  to: number
}

/** What a checkpoint holds. */
interface State {
  readonly now: number
  readonly source: number
  readonly logs: boolean
  readonly names: boolean
  readonly named: readonly number[]
  readonly next: number
  readonly pruneAt: number
  readonly wake: number | null
  readonly window: Window
  readonly episodes: readonly Episode[]
  readonly waiting: readonly Waiting[]
  readonly watches: readonly Watch[]
  readonly full: readonly (readonly [number, Full])[]
  readonly estimated?: State
}

/** Nothing is known of who fills the table. */
const unseen = { fullest: null } as const

const keyOf = (rule: EpisodeRule, netns: number): string => `${rule} ${netns}`

export class TableFull implements FullTable {
  readonly #options: TableFullOptions
  #rules: Readonly<Record<EpisodeRule, RuleSettings>>
  #clearBelow: number
  readonly #patience: number
  /** microseconds; what moved the clock last (TIME_*) */
  #now = 0
  #source = TIME_OWN
  /** nothing is to be done before */
  #wake = Infinity
  #pruneAt = 0
  #logs = false
  #names = false
  #next = 1
  #window = noWindow()
  readonly #named = new Set<number>()
  readonly #episodes = new Map<string, Episode>()
  #waiting: Waiting[] = []
  /** episodes whose first notice waits for flow events that are on their way */
  readonly #untold = new Set<Episode>()
  readonly #watches = new Map<number, Watch>()
  /** by namespace, 0 where not known; -1 for any */
  readonly #full = new Map<number, Full>()
  /**
   * For lines whose clock is only estimated: when they were written is a guess, and by it they say nothing of what other inputs saw, nor those of them. They have
   * episodes and a clock of their own, without samples, holders and evictions; only a tick moves both clocks.
   */
  #estimated: TableFull | null = null

  constructor(options: TableFullOptions) {
    this.#rules = rulesOf(options)
    this.#options = options
    this.#clearBelow = options.clearBelow ?? 0.9
    this.#patience = (options.patienceSec ?? 1) * 1e6
  }

  /**
   * With each record before it is handed over, and with each tick: moves the clock and closes what is due. Cheap where nothing is. Records are taken to be no
   * later than the clock, so whoever calls decides which times are to be believed.
   */
  advance(at: Time | RecordTime): void {
    if (this.#options.isEstimated !== true) {
      const isEstimated = 'timeSource' in at && at.timeSource === TIME_ESTIMATED
      if (isEstimated || !('timeSource' in at)) this.#estimated?.advance(at)
      if (isEstimated) return
    }
    const now = at.sec * 1e6 + at.usec
    if (now < this.#now) return
    if ('timeSource' in at) this.#source = at.timeSource
    else if (now > this.#now) this.#source = TIME_OWN
    this.#now = now
    if (now >= this.#wake) this.#run()
  }

  /** What it takes for now. */
  get clock(): RecordTime {
    return { ...timeOf(this.#now), timeSource: this.#source }
  }

  /** When `advance` has something to do even if no record comes; null: never. Live inputs may have a tick then, and a sample taken early settles waiting lines. */
  get due(): Time | null {
    return this.#wake === Infinity ? null : timeOf(this.#wake)
  }

  /** Something is open, or waits, that goes on with time. */
  get isOpen(): boolean {
    return this.#episodes.size !== 0 || this.#waiting.length !== 0 || this.#estimated?.isOpen === true
  }

  /** Lines wait for the next sample: one taken at once tells sooner whose they are. */
  get waitsForSample(): boolean {
    return this.#waiting.length !== 0
  }

  /** A first notice waits for flow events: to be called with each batch that came meanwhile, and with `isEnough` when it has waited long enough. */
  get waitsForFlows(): boolean {
    return this.#untold.size !== 0
  }

  flowsCame(isEnough: boolean): void {
    for (const episode of this.#untold) {
      this.#lookBetween(episode)
      if (isEnough || isWhole(episode.fullest)) this.#notice(episode, 'firing', false)
    }
  }

  /** From now on these hold, for open episodes too; their severity stays. Throws RangeError as the constructor does. */
  setRules(options: Partial<RuleSettings> & Pick<TableFullOptions, 'clearBelow' | 'expectations'>): void {
    this.#rules = rulesOf(options)
    this.#clearBelow = options.clearBelow ?? 0.9
    this.#estimated?.setRules(options)
    // what is open may be due sooner by them
    this.#soon(this.#now)
  }

  get openEpisodes(): readonly OpenEpisode[] {
    const own = [...this.#episodes.values()].map(({ rule, netns, netnsName, id, started }) => ({ rule, netns, netnsName, episode: id, started: timeOf(started) }))
    return this.#estimated === null ? own : [...own, ...this.#estimated.openEpisodes]
  }

  /** A kernel line of any kind; those that have nothing to do with the rate limiter are passed over. */
  kernel(event: KernelEvent, source: KernelSource): void {
    if (event.timeSource === TIME_ESTIMATED && this.#options.isEstimated !== true) return this.#lineOfEstimated(event, source)
    this.#logs = true
    const at = this.#timeOf(event)
    switch (event.kind) {
      case 'suppressed':
        this.#report(event.count * Math.max(1, event.repeat), at)
        break
      case 'table_full':
        this.#line(event, at, source)
        break
      case 'expect_table_full':
        this.#count(this.#evidence({ rule: 'expect_table_full', netns: event.netns, at, seed: seedOf(event) }), at, Math.max(1, event.repeat))
        break
      default:
        if (!rateLimited.has(event.kind) && !(event.kind === 'helper' && rateLimitedHelper.test(event.message))) return
        this.#window = windowOf(this.#window, at)
        this.#window.others = true
    }
  }

  /** A sample of a namespace's counters. `isArchived`: an alert was made of it when it was taken, if one was due; it opens no episode, and tells more of one that is open. */
  sample(record: TableRecord, isArchived = false): void {
    const at = this.#timeOf(record)
    let watch = this.#watches.get(record.netns)
    let span: Span | null = null
    if (watch === undefined) {
      watch = beginWatch(record, at)
      this.#watches.set(record.netns, watch)
      this.#soon(at + FORGET)
    } else {
      span = nextSample(watch, record, at)
    }
    if ((span !== null && span.drop + span.early > 0) || watch.level > EVICTION_LEVEL) this.#isFull(record.netns, Math.floor(at / 1e6))
    for (const waiting of this.#waiting) waiting.sealed = true
    this.#settle()
    if (span?.full === true && (!isArchived || this.#fedBy(watch) !== undefined || this.#waiting.length > 0)) this.#counted(watch, span)
    const episode = this.#fedBy(watch)
    if (episode === undefined) return
    if (watch.name !== '' && episode.netns === watch.netns) episode.netnsName = watch.name
    countSpans(episode, watch)
    this.#look(episode, watch.count)
    this.#tell(episode)
    this.#closeIfOver(episode)
  }

  /** An archived line says so. */
  knowFull(netns: number, sec: number): void {
    this.#isFull(netns, sec)
  }

  wasFull(netns: number, sec: number): boolean {
    return isFullAt(this.#full.get(netns === 0 ? -1 : netns), sec) || (netns !== 0 && isFullAt(this.#full.get(0), sec))
  }

  /** The clock by which lines and samples come was set, `by` microseconds forward: what is held in times of before is moved along. */
  clockStepped(by: number): void {
    this.#estimated?.clockStepped(by)
    this.#now += by
    this.#wake += by
    this.#pruneAt += by
    if (this.#window.begin >= 0) this.#window.begin += by
    for (const episode of this.#episodes.values()) moveEpisode(episode, by)
    for (const waiting of this.#waiting) {
      waiting.from += by
      waiting.to += by
    }
    for (const watch of this.#watches.values()) moveWatch(watch, by)
    for (const full of this.#full.values()) {
      full.from += Math.round(by / 1e6)
      full.to += Math.round(by / 1e6)
    }
  }

  /** The end of all input: what waits is settled by what is known, and each open episode is written once more. */
  finish(): void {
    this.#settle(true)
    for (const episode of this.#episodes.values()) this.#notice(episode, 'firing', true)
    this.#estimated?.finish()
  }

  /** Plain data from which `restore` goes on as if nothing had been. */
  save(): unknown {
    const state: State = {
      now: this.#now,
      source: this.#source,
      logs: this.#logs,
      names: this.#names,
      named: [...this.#named],
      next: this.#next,
      pruneAt: this.#pruneAt,
      wake: this.#wake === Infinity ? null : this.#wake,
      window: { ...this.#window, owners: [...this.#window.owners] },
      episodes: [...this.#episodes.values()].map((episode) => ({ ...episode })),
      waiting: this.#waiting.map((waiting) => ({ ...waiting })),
      watches: [...this.#watches.values()].map((watch) => ({ ...watch, spans: watch.spans.map((span) => ({ ...span })) })),
      full: [...this.#full].map(([netns, full]) => [netns, { ...full }]),
      ...(this.#estimated === null ? {} : { estimated: this.#estimated.save() as State }),
    }
    return state
  }

  /**
   * What `save` gave, in this run or an earlier one. Into a detector that has seen nothing yet. Where its clock is ahead of `now` (microseconds), the clock was set
   * back since.
   */
  restore(saved: unknown, now = Infinity): void {
    const state = saved as State
    this.#now = state.now
    this.#source = state.source
    this.#logs = state.logs
    this.#names = state.names
    this.#next = state.next
    this.#pruneAt = state.pruneAt
    this.#wake = state.wake ?? Infinity
    this.#window = { ...state.window, owners: [...state.window.owners] }
    for (const netns of state.named) this.#named.add(netns)
    // of a version that knew less
    for (const episode of state.episodes) this.#episodes.set(keyOf(episode.rule, episode.netns), { ...unseen, ...episode })
    this.#waiting = state.waiting.map((waiting) => ({ ...waiting }))
    for (const watch of state.watches) this.#watches.set(watch.netns, { ...watch, spans: watch.spans.map((span) => ({ ...span })) })
    for (const [netns, full] of state.full) this.#full.set(netns, { ...full })
    if (state.estimated !== undefined) this.#ofEstimated().restore(state.estimated)
    if (this.#now > now + LATE) this.clockStepped(now - this.#now)
  }

  #lineOfEstimated(event: KernelEvent, source: KernelSource): void {
    const estimated = this.#ofEstimated()
    // it may be the first
    estimated.advance(event)
    estimated.kernel(event, source)
  }

  #ofEstimated(): TableFull {
    if (this.#estimated === null) {
      this.#estimated = new TableFull({ ...this.#options, holders: null, isEstimated: true })
      this.#estimated.#rules = this.#rules
      this.#estimated.#clearBelow = this.#clearBelow
    }
    return this.#estimated
  }

  // ---- lines

  #line(event: KernelEvent, at: number, source: KernelSource): void {
    if (event.netns !== 0) this.#hasName(event.netns)
    const names = source.namesNamespaces ?? this.#names
    const netns = event.netns !== 0 ? event.netns : names ? source.initialNetns : 0
    this.#isFull(netns, Math.floor(at / 1e6))
    const question = netns !== 0 ? -1 : this.#candidates(names, at).some((watch) => watch.netns !== 0) ? 0 : -1
    const watch = this.#watches.get(netns)
    if (question === 0 || (!event.trusted && watch !== undefined && this.#tells(watch, at))) {
      this.#wait(event, at, question === 0 ? -1 : netns, question === 0 && names)
      return
    }
    const episode = this.#evidence({ rule: 'table_full', netns, at, seed: seedOf(event), isLine: true })
    episode.unconfirmed = false
    this.#lookAtFull(episode, at)
    this.#count(episode, at, Math.max(1, event.repeat))
  }

  /** Lines that are this episode's, at once. */
  #count(episode: Episode, at: number, count: number): void {
    this.#window = windowOf(this.#window, at)
    addOwner(this.#window, episode.n)
    episode.sure += count
    episode.grown = true
    this.#tell(episode)
  }

  #wait(event: KernelEvent, at: number, netns: number, initial: boolean): void {
    const count = Math.max(1, event.repeat)
    let last = this.#waiting.at(-1)
    const isAlike = last?.netns === netns && last.initial === initial && last.trusted === event.trusted
    if (last !== undefined && isAlike && !last.sealed && at >= last.from && at - last.from < LINE_LAG) {
      last.to = Math.max(last.to, at)
      last.count += count
      const told = last.told === 0 ? undefined : this.#byNumber(last.told)
      if (told !== undefined) this.#addTold(told, at, count)
    } else {
      const { trusted } = event
      const limiter = { suppressed: 0, reported: false, shared: false }
      last = { n: this.#next++, netns, initial, trusted, from: at, to: at, count, seed: seedOf(event), sealed: false, told: 0, ...limiter }
      this.#waiting.push(last)
      // one microsecond on: the sample of exactly then may tell
      this.#soon(Math.max(at, this.#now) + this.#patience + 1)
      for (const watch of this.#watches.values()) this.#soon(watchedUntil(watch, this.#patience) + 1)
    }
    this.#window = windowOf(this.#window, at)
    addOwner(this.#window, last.n)
  }

  /** The limiter tells how many messages the window before held back. */
  #report(count: number, at: number): void {
    const window = this.#window
    this.#window = { begin: at, owners: [], others: false }
    const alone = window.owners.length === 1 && !window.others && this.#episodes.size + this.#waiting.length <= 1
    for (const n of window.owners) {
      const owner = this.#byNumber(n) ?? this.#waiting.find((waiting) => waiting.n === n)
      if (owner === undefined) continue
      owner.suppressed += count
      owner.reported = true
      if (!alone) owner.shared = true
      if (!('id' in owner)) continue
      owner.grown = true
      this.#tell(owner)
    }
  }

  // ---- whose lines

  /** Watched namespaces that a line of that time without a name can be about. */
  #candidates(initial: boolean, at: number): Watch[] {
    return [...this.#watches.values()].filter((watch) => this.#tells(watch, at) && !(initial && this.#named.has(watch.netns)))
  }

  /** Its samples reach back to that time, and still come. */
  #tells(watch: Watch, at: number): boolean {
    return isWatched(watch, this.#now, this.#patience) && knownFrom(watch) <= at + LINE_LAG
  }

  /** Gives waiting lines to their episodes, as far as the samples tell; all of them at the end. */
  #settle(end = false): void {
    if (this.#waiting.length === 0) return
    this.#waiting = this.#waiting.filter((waiting) => !this.#decide(waiting, end))
  }

  /** False while the samples that tell have not come. */
  #decide(waiting: Waiting, end: boolean): boolean {
    const watches = this.#candidates(waiting.initial, waiting.from).filter(({ netns }) => waiting.netns < 0 || netns === waiting.netns)
    if (!end && watches.some((watch) => watch.at < waiting.to)) return this.#overdue(waiting)
    const first = theFull(watches.map((watch) => rose(watch, waiting.from, waiting.to, 1)))
    if (first.length !== 0) return this.#settleWith(waiting, watches, first, true)
    // the sample after the next may be the one that saw it
    const isEarly = watches.some((watch) => watch.spans.filter((span) => span.to >= waiting.to).length < 2)
    if (isEarly && !end) return waiting.trusted ? this.#tellEarly(waiting) : this.#overdue(waiting)
    const near = theFull(watches.map((watch) => rose(watch, waiting.from - LINE_LAG, waiting.to, 2)))
    return this.#settleWith(waiting, watches, near, !isEarly && watches.length !== 0)
  }

  /** `isWhole`: the samples of all watched namespaces were there. */
  #settleWith(waiting: Waiting, watches: readonly Watch[], found: readonly Watch[], isWhole: boolean): boolean {
    const told = waiting.told === 0 ? undefined : this.#byNumber(waiting.told)
    // told in an episode that has ended since
    if (waiting.told !== 0 && told === undefined) return true
    const mine = found.length === 1 ? found[0]! : null
    const netns = mine?.netns ?? Math.max(0, waiting.netns)
    const evidence = { rule: 'table_full', netns, at: waiting.to, started: waiting.from, seed: waiting.seed } as const
    const episode = told !== undefined && (told.netns !== 0 || netns === 0) ? told : this.#evidence(evidence)
    // a namespace that had an episode of its own by then: the lines stay where they were told
    if (told !== undefined && told !== episode) {
      this.#tell(episode)
      return true
    }
    if (told !== undefined) {
      if (told.netns === 0) told.sure -= waiting.count
      else told.doubtful -= waiting.count
    }
    const unconfirmed = !waiting.trusted && found.length === 0 && isWhole
    if (unconfirmed || episode.netns !== netns) episode.doubtful += waiting.count
    else if (mine !== null) episode.attributed += waiting.count
    else episode.sure += waiting.count
    if (episode.seq === 0 || !unconfirmed) episode.unconfirmed = unconfirmed
    if (netns === 0 && isWhole && watches.length !== 0) episode.foreign = true
    if (told === undefined) episode.grown = true
    this.#inherit(episode, waiting)
    if (mine !== null) countSpans(episode, mine)
    if (!unconfirmed) this.#lookAtFull(episode, waiting.to)
    this.#tell(episode)
    return true
  }

  #inherit(episode: Episode, waiting: Waiting): void {
    renameOwner(this.#window, waiting.n, episode.n)
    episode.suppressed += waiting.suppressed
    episode.reported ||= waiting.reported
    episode.shared ||= waiting.shared
    waiting.suppressed = 0
  }

  /** The alert may wait no longer. */
  #overdue(waiting: Waiting): false {
    return waiting.trusted && this.#now > waiting.from + this.#patience ? this.#tellEarly(waiting) : false
  }

  /** If nothing tells of a full table yet, an episode without a namespace does; it turns out to be the namespace's whose counters rose. */
  #tellEarly(waiting: Waiting): false {
    if (waiting.told !== 0 || [...this.#episodes.values()].some(({ rule, netns }) => rule === 'table_full' && netns !== 0)) return false
    const episode = this.#evidence({ rule: 'table_full', netns: 0, at: waiting.to, started: waiting.from, seed: waiting.seed })
    if (episode.foreign) return false
    this.#lookAtFull(episode, waiting.to)
    waiting.told = episode.n
    this.#inherit(episode, waiting)
    this.#addTold(episode, waiting.to, waiting.count)
    return false
  }

  #addTold(episode: Episode, at: number, count: number): void {
    if (episode.netns === 0) episode.sure += count
    else episode.doubtful += count
    episode.grown = true
    episode.ended = Math.max(episode.ended, at)
    this.#hold(episode, at)
    this.#tell(episode)
  }

  /** Evidence by the counters alone. */
  #counted(watch: Watch, span: Span): void {
    const fed = this.#fedBy(watch)
    const first = this.#waiting.find(({ netns, to }) => (netns < 0 || netns === watch.netns) && to > span.from && to <= span.to)
    const started = first?.from ?? span.to
    const episode = this.#evidence({ rule: 'table_full', netns: fed?.netns ?? watch.netns, at: span.to, started, seed: first?.seed ?? `${span.to}`, since: span.from })
    episode.unconfirmed = false
  }

  /** The episode that a namespace's counters speak of; counters of an unknown namespace speak of the only one that is open. */
  #fedBy(watch: Watch): Episode | undefined {
    const own = this.#find('table_full', watch.netns)
    if (own !== undefined || watch.netns !== 0) return own
    const open = [...this.#episodes.values()].filter(({ rule }) => rule === 'table_full')
    return open.length === 1 && !this.#watches.has(open[0]!.netns) ? open[0] : undefined
  }

  #watchOf(episode: Episode): Watch | null {
    if (episode.rule !== 'table_full') return null
    const own = this.#watches.get(episode.netns)
    if (own !== undefined) return own
    const unnamed = this.#watches.get(0)
    return unnamed !== undefined && this.#fedBy(unnamed) === episode ? unnamed : null
  }

  #rename(episode: Episode, netns: number): Episode {
    this.#episodes.delete(keyOf(episode.rule, episode.netns))
    episode.netns = netns
    episode.netnsName = this.#watches.get(netns)?.name ?? ''
    // what was seen is of all namespaces
    const { holders } = this.#options
    if (holders !== null && holders.known(0) !== holders.known(netns)) episode.fullest = null
    // whose its lines were is not known, but for those that still wait
    episode.doubtful += episode.sure
    episode.sure = 0
    // whoever was told of it without the namespace is told at once
    episode.grown = true
    episode.noticed = 0
    this.#episodes.set(keyOf(episode.rule, netns), episode)
    return episode
  }

  // ---- episodes

  #find(rule: EpisodeRule, netns: number): Episode | undefined {
    return this.#episodes.get(keyOf(rule, netns))
  }

  #byNumber(n: number): Episode | undefined {
    for (const episode of this.#episodes.values()) if (episode.n === n) return episode
    return undefined
  }

  /** The open episode that evidence belongs to, or a new one. */
  #evidence(evidence: Evidence): Episode {
    const { rule, at } = evidence
    const netns = this.#placeOf(rule, evidence.netns)
    let episode = this.#find(rule, netns)
    // old lines that are read on purpose: the clock is far ahead, so the pause between two episodes shows only here
    if (episode !== undefined && at < this.#now - LATE && at - episode.ended >= this.#rules[rule].quietSec * 1e6) {
      this.#notice(episode, 'resolved', false)
      episode = undefined
    }
    episode ??= (netns === OTHERS ? undefined : this.#unnamedOf(evidence)) ?? this.#open(rule, netns, evidence.started ?? at, evidence.seed)
    episode.ended = Math.max(episode.ended, at)
    this.#hold(episode, at)
    return episode
  }

  /** Where the namespace has no episode and there is no room for one: that of all others. */
  #placeOf(rule: EpisodeRule, netns: number): number {
    return netns === 0 || this.#episodes.size < EPISODES_MAX || this.#find(rule, netns) !== undefined ? netns : OTHERS
  }

  /** An open episode without a namespace that turns out to be this namespace's. */
  #unnamedOf({ rule, netns, at, since, isLine }: Evidence): Episode | undefined {
    const episode = rule === 'table_full' && netns !== 0 ? this.#find(rule, 0) : undefined
    if (episode === undefined || episode.foreign || episode.ended < (since ?? at) - SAME_FLOOD) return undefined
    // a line with a number says nothing of lines without one; but counters of an unknown namespace may be its
    if (isLine === true) return logged(episode) === 0 ? this.#rename(episode, netns) : undefined
    return logged(episode) === 0 || this.#watches.has(0) || this.#named.has(netns) ? undefined : this.#rename(episode, netns)
  }

  #open(rule: EpisodeRule, netns: number, started: number, seed: string): Episode {
    const episode: Episode = {
      n: this.#next++,
      rule,
      netns,
      netnsName: this.#watches.get(netns)?.name ?? '',
      id: mix64(`${rule} ${netns} ${this.#options.boot} ${seed}`),
      severity: this.#rules[rule].severity,
      seq: 0,
      started,
      ended: started,
      held: started,
      noticed: 0,
      grown: true,
      sure: 0,
      attributed: 0,
      doubtful: 0,
      suppressed: 0,
      reported: false,
      shared: false,
      counted: -1,
      early: -1,
      races: -1,
      since: -1,
      unconfirmed: false,
      foreign: false,
      ...unseen,
    }
    this.#episodes.set(keyOf(rule, netns), episode)
    const watch = this.#watchOf(episode)
    if (watch !== null) countSpans(episode, watch)
    return episode
  }

  /** With a line: the kernel says that there is no room. Lines that are read later on purpose tell nothing of the table as it is now. */
  #lookAtFull(episode: Episode, at: number): void {
    if (at < this.#now - LATE) return
    const watch = this.#watchOf(episode)
    this.#look(episode, watch === null ? -1 : Math.max(watch.count, watch.max))
  }

  /** Between samples: what is known now came since the last of them, and the kernel counts it too. */
  #lookBetween(episode: Episode, isTold = false): void {
    const watch = this.#watchOf(episode)
    const isLevel = watch !== null && watch.count >= 0 && this.#now <= levelUntil(watch)
    const known = this.#options.holders?.known(episode.netns) ?? 0
    this.#look(episode, isLevel ? Math.max(watch.count, Math.min(known, watch.max)) : -1, isTold)
  }

  /** Who holds the table, if it is as full as never before in this episode. `count`: the kernel's, -1 not known. */
  #look(episode: Episode, count: number, isTold = false): void {
    const { holders } = this.#options
    if (episode.rule !== 'table_full' || holders === null) return
    const isOver = this.#now > episode.ended + LOOK_UNTIL
    if (!isOver) this.#soon(this.#now + LOOK_EVERY)
    if (isOver && count < FULL_LEVEL * (this.#watchOf(episode)?.max ?? Infinity)) return
    // evidence that came since is of the table as it is now
    const isFresh = isTold && episode.seq > 0 && episode.ended > (episode.fullest?.at ?? 0)
    episode.fullest = fuller(episode.fullest, { at: this.#now, count, isTold, isFresh }, holders, episode.netns, episode.started)
  }

  #hold(episode: Episode, at: number): void {
    episode.held = Math.max(episode.held, at < this.#now - LATE ? this.#now : at)
    this.#soon(this.#closesAt(episode))
  }

  #closesAt(episode: Episode): number {
    return episode.held + this.#rules[episode.rule].quietSec * 1e6
  }

  /** The first notice at once, further ones when numbers have grown and the last is old enough. */
  #tell(episode: Episode): void {
    if (!episode.grown) return
    const next = episode.noticed + this.#rules[episode.rule].repeatSec * 1e6
    if (episode.seq === 0 && this.#mayWait(episode)) this.#untold.add(episode)
    else if (episode.seq === 0 || this.#now >= next) this.#notice(episode, 'firing', false)
    else this.#soon(next)
  }

  /** The kernel's line comes before the events of the flows that filled the table: without them it is not known who did. */
  #mayWait({ rule, netns, ended, fullest }: Episode): boolean {
    if (rule !== 'table_full' || isWhole(fullest) || ended < this.#now - LATE) return false
    return this.#options.holders !== null && this.#options.followsFlows?.(netns) === true
  }

  #closeIfOver(episode: Episode): void {
    const at = this.#closesAt(episode)
    if (this.#now < at) {
      this.#soon(at)
      return
    }
    const watch = this.#watchOf(episode)
    const heldUntil = watch === null || watch.level < this.#clearBelow ? 0 : levelUntil(watch)
    if (this.#now <= heldUntil) this.#soon(heldUntil + 1)
    else this.#notice(episode, 'resolved', false)
  }

  #notice(episode: Episode, status: Alert['status'], final: boolean): void {
    if (status === 'resolved' && this.#untold.has(episode)) this.#notice(episode, 'firing', false)
    this.#untold.delete(episode)
    if (status === 'firing' && !final) this.#lookBetween(episode, true)
    episode.seq++
    episode.grown = false
    episode.noticed = this.#now
    const alert = makeAlert(episode, {
      status,
      final,
      now: this.#now,
      timeSource: this.#options.isEstimated === true ? TIME_ESTIMATED : this.#source,
      crowded: this.#episodes.size > 1,
      logs: this.#logs,
      watch: this.#watchOf(episode),
      where: this.#options.where ?? '',
    })
    if (status === 'resolved') this.#episodes.delete(keyOf(episode.rule, episode.netns))
    this.#options.emit(alert)
  }

  // ---- time

  #timeOf(at: Time): number {
    return Math.min(this.#now, at.sec * 1e6 + at.usec)
  }

  #soon(at: number): void {
    if (at < this.#wake) this.#wake = at
  }

  /** Something may be due: what waits, what is over, what has grown, what is forgotten. Finds out when it is to be called next. */
  #run(): void {
    this.#wake = Infinity
    this.#settle()
    for (const { from, told } of this.#waiting) {
      if (told === 0) this.#soonAfterNow(from + this.#patience + 1)
      for (const watch of this.#watches.values()) this.#soonAfterNow(watchedUntil(watch, this.#patience) + 1)
    }
    for (const episode of this.#episodes.values()) this.#lookBetween(episode)
    for (const episode of [...this.#episodes.values()]) this.#closeIfOver(episode)
    for (const episode of this.#episodes.values()) this.#tell(episode)
    if (this.#now >= this.#pruneAt) this.#prune()
    if (this.#watches.size + this.#full.size !== 0) this.#soon(this.#pruneAt)
  }

  #soonAfterNow(at: number): void {
    if (at > this.#now) this.#soon(at)
  }

  /** Namespaces come and go by the thousand. */
  #prune(): void {
    this.#pruneAt = this.#now + PRUNE_EVERY
    for (const [netns, watch] of this.#watches) {
      if (watch.at < this.#now - FORGET && this.#find('table_full', netns) === undefined) this.#watches.delete(netns)
    }
    for (const [netns, { to }] of this.#full) if (to * 1e6 < this.#now - FORGET) this.#full.delete(netns)
  }

  // ---- what is known of tables and lines

  #isFull(netns: number, sec: number): void {
    for (const key of [netns, -1]) {
      const full = this.#full.get(key)
      if (full === undefined) {
        if (this.#full.size >= NAMED_MAX) this.#full.delete([...this.#full.keys()].find((known) => known > 0)!)
        this.#full.set(key, { from: sec, to: sec })
        this.#soon(this.#now + PRUNE_EVERY)
      } else if (sec > full.to + FULL_LASTS_SEC || sec < full.from - FULL_LASTS_SEC) {
        full.from = full.to = sec
      } else {
        full.from = Math.min(full.from, sec)
        full.to = Math.max(full.to, sec)
      }
    }
  }

  #hasName(netns: number): void {
    this.#names = true
    if (this.#named.has(netns)) return
    this.#named.add(netns)
    if (this.#named.size > NAMED_MAX) this.#named.delete(this.#named.values().next().value!)
  }
}


/** What an episode's id is made from: the kernel's own clock and the place in its log, for the wall clock is computed anew at each reading. */
function seedOf(event: KernelEvent): string {
  const at = event.monotonic >= 0 ? `${event.monotonic}` : `${event.sec}.${event.usec}`
  return `${at} ${event.position}`
}

function isFullAt(full: Full | undefined, sec: number): boolean {
  return full !== undefined && sec >= full.from - FULL_BEFORE_SEC && sec <= full.to + FULL_LASTS_SEC
}

/** Did packets find no room between samples that reach over the time, and over `further` samples behind it? With whether the level says so too. */
function rose(watch: Watch, from: number, to: number, further: number): { readonly watch: Watch; readonly rose: boolean; readonly full: boolean } {
  let behind = 0
  let found = false
  let full = false
  for (const span of watch.spans) {
    if (span.to < from || behind >= further) continue
    if (span.to >= to) behind++
    if (span.drop > span.failed) found = true
    if (span.full) full = true
  }
  return { watch, rose: found, full }
}

/** Those whose counters rose; where some of them were full, these. */
function theFull(all: readonly { readonly watch: Watch; readonly rose: boolean; readonly full: boolean }[]): Watch[] {
  const full = all.filter((one) => one.full)
  return (full.length !== 0 ? full : all.filter((one) => one.rose)).map(({ watch }) => watch)
}

function rulesOf(options: Partial<RuleSettings> & Pick<TableFullOptions, 'expectations'>): Readonly<Record<EpisodeRule, RuleSettings>> {
  const { quietSec = 60, repeatSec = 30, severity = 'critical' } = options
  const rules = { table_full: { quietSec, repeatSec, severity }, expect_table_full: { quietSec, repeatSec, severity: 'warning' as const, ...options.expectations } }
  for (const rule of Object.values(rules)) {
    if (!(rule.quietSec >= QUIET_SEC_MIN)) {
      const why = "the kernel's rate limiter speaks in windows of 5 s and reports a window only in the next"
      throw new RangeError(`quiet is ${rule.quietSec} s, at least ${QUIET_SEC_MIN} s are needed: ${why}`)
    }
  }
  return rules
}
