/**
 * What the loop does with everything that was read: moves the clock, asks the trackers and detectors, counts, and prints for whoever wants it. What follows from a
 * record is printed behind it; what its time alone brings about (an episode that ends) is printed before.
 */
import {
  type Alert,
  type Counters,
  type ExpectEvent,
  type FlowEvent,
  type Gap,
  type KernelEvent,
  type RecordTime,
  type Reject,
  type TableRecord,
  type TableSample,
  type Time,
  DESTROY,
  TIME_ESTIMATED,
} from '../event.js'
import { type FlowCounts, type Levels, sumOverCpus } from '../detectors/levels.js'
import { OTHER_HOSTS, type TableFullOfHosts } from '../detectors/table-full-hosts.js'
import { Copies } from '../detectors/table-full/copies.js'
import type { FlowTracker } from '../detectors/flows/tracker.js'
import type { NdjsonPrinter, RecordContext } from '../printers/ndjson.js'
import type { Input, KernelFacts, OwnRecord } from '../stage.js'
import type { Tally } from '../tally.js'
import type { Channels } from './channel.js'

/** Live lines may be of the next moment, by clocks that differ; what is of later still does not move the clock. */
const AHEAD_SEC = 5
/** What was on its way while the clock was set (in a pipe, in a queue) is stamped by the clock before, and comes within so long. */
const ON_ITS_WAY_SEC = 30
/** A saved log is no older than its last line, but for clocks that differ. */
const AHEAD_SAVED_SEC = 86_400
const TABLES_MAX = 1024
/** So far apart may what we hold for alive and the kernel's count be, and for so long; a few are always on the way. */
const APART = 0.02
const APART_FREE = 8
const APART_SEC = 60

/** What the records of one input have in common. */
export interface Origin {
  readonly input: Input
  readonly context: RecordContext
  readonly kernelFacts: KernelFacts
  /** seconds since the epoch when the lines at hand were read */
  readonly receivedSec: number
  /** flow events so far, by kind; and something was lost since they were last asked for */
  readonly events: number[]
  hasGap: boolean
  /** what is at hand are rows of a dump that the program asked for */
  readonly isDump: boolean
  /** they are written too */
  readonly writesDumps: boolean
  /** The number in a flow record's id, and the id of another record; `position` where the event has one of its own. */
  rid(): number
  ridOf(position: string): string
  /** Flow events since the last call. */
  takeFlows(): FlowCounts
}

export interface Detectors {
  readonly tracker: FlowTracker
  readonly levels: Levels
  readonly tableFull: TableFullOfHosts
}

export interface RecordsParts extends Detectors {
  readonly channels: Channels
  readonly printer: NdjsonPrinter
  readonly tally: Tally
  /** of records that come from no single input */
  readonly own: RecordContext
}

export class Records {
  readonly channels: Channels
  readonly printer: NdjsonPrinter
  readonly tally: Tally
  readonly tracker: FlowTracker
  readonly #parts: RecordsParts
  /** the last sample of each namespace, and its counters as the kernel has them; what was lost, by input, cause and whether the number is exact; episodes so far, by rule, namespace and host */
  readonly tables = new Map<number, { readonly record: TableRecord; readonly now: Counters }>()
  readonly lost = new Map<string, { readonly input: string; readonly cause: string; readonly isExact: boolean; count: number }>()
  readonly begun = new Map<string, { readonly rule: string; readonly netns: number; readonly netnsName: string; readonly host: string; count: number }>()
  /** the latest time of any record, by which episodes go on */
  clockSec = 0
  /** who tells of the flows of a namespace as they come */
  readonly #origins: Origin[] = []
  /** when the counters of a namespace were last looked at out of turn, in microseconds; and those that this batch has looked at */
  readonly #looked = new Map<number, number>()
  readonly #lookedInBatch = new Set<number>()
  /** since when live flows and the kernel's count differ, in seconds; -1 they do not */
  #apartSince = -1
  /** the last step of the host's clock, in seconds; 0 when everything that was stamped before it has come */
  #stepSec = 0
  #steppedAt = 0
  readonly #copies = new Copies()
  /** whose records are being printed */
  #source: Origin | null = null

  constructor(parts: RecordsParts) {
    this.#parts = parts
    this.channels = parts.channels
    this.printer = parts.printer
    this.tally = parts.tally
    this.tracker = parts.tracker
  }

  add(source: Origin): void {
    this.#origins.push(source)
  }

  remove(source: Origin): void {
    this.#origins.splice(this.#origins.indexOf(source), 1)
  }

  /** Everything until the next call comes from there. */
  from(source: Origin): void {
    this.#source = source
    this.#lookedInBatch.clear()
    this.printer.use(source.context)
  }

  /** May flow records be printed without asking who wants them? */
  get allFlows(): boolean {
    return this.channels.allFlows && this.#source?.isDump !== true
  }

  /** Tracks a flow and counts what became of it. */
  follow(event: FlowEvent, source: Origin): void {
    if (this.#stepSec !== 0) return this.#followOverStep(event, source)
    if (event.sec > this.clockSec) this.#advance(event, source)
    this.#track(event, source)
  }

  #track(event: FlowEvent, source: Origin): void {
    this.tracker.track(event)
    this.tally.events[event.event]++
    if (event.event === DESTROY) this.tally.ends[event.reason]++
    source.events[event.event]++
    if (this.tracker.limitGapIsDue) this.#limitGap()
  }

  /** `host`: that the line names which carries it, '' none. */
  flow(event: FlowEvent, source: Origin, host = ''): void {
    if (source.isDump && !source.writesDumps) return
    const name = this.#nameOf(host, source)
    if (name === '') return this.#printFlow(event, source, source.context)
    const context = { ...source.context, host: name }
    this.printer.use(context)
    this.#printFlow(event, source, context)
    this.printer.use(source.context)
  }

  #printFlow(event: FlowEvent, source: Origin, context: RecordContext): void {
    this.channels.print((route) => route.wantsFlow(event, context), () => this.printer.flow(event, source.rid()))
  }

  expect(event: ExpectEvent, source: Origin, host = ''): void {
    if (event.sec > this.clockSec) this.#advance(event, source)
    this.tracker.expect(event)
    const name = this.#nameOf(host, source)
    this.channels.print((route, look) => route.wants('expect', event, look), () => this.printer.expect(event, source.ridOf(''), name))
  }

  kernel(event: KernelEvent, source: Origin): void {
    const sec = this.#secNow(event.sec, source)
    const host = this.#nameOf(event.host, source)
    const heard = sec === event.sec && !isOfHost(source) ? event : { ...event, sec, host }
    if (event.timeSource === TIME_ESTIMATED) this.tally.guess(source.input.name)
    this.#advance(heard, source)
    this.channels.print((route, look) => route.wants('kernel', event, look), () => this.printer.kernel(event, source.ridOf(event.position), host))
    if (!this.#copies.isCopy(heard, source)) this.#parts.tableFull.kernel(heard, source.kernelFacts)
  }

  sample(taken: TableSample, source: Origin): void {
    const sec = this.#secNow(taken.sec, source)
    const sample = sec === taken.sec ? taken : { ...taken, sec }
    // one that waited in its input while the counters were looked at out of turn
    if (source.input.look !== undefined && sample.sec * 1e6 + sample.usec < (this.#looked.get(sample.netns) ?? 0)) return
    this.#advance(sample, source)
    const teller = this.#origins.find(({ input }) => input.resync !== undefined && input.netns === sample.netns)
    if (teller !== undefined) this.#compare(sample, teller)
    const flows = teller?.takeFlows()
    const host = this.#nameOf(sample.host ?? '', source)
    const record = this.#parts.levels.sample(sample, flows, inputOf(source, host))
    this.channels.print((route, look) => route.wants('table', record, look), () => this.printer.table(record, source.ridOf(''), host))
    if (host === '') this.#keepTable(record, sumOverCpus(sample))
    this.#parts.tableFull.sample(record)
  }

  /**
   * Is the table of that namespace known to be full? Where nothing says so yet and its counters can be looked at, they are, once in each batch: flows that were
   * thrown out come faster than the next sample, and the kernel counts before it tells.
   */
  wasFull(netns: number, sec: number): boolean {
    const { tableFull } = this.#parts
    if (tableFull.wasFull(netns, sec)) return true
    if (this.#lookedInBatch.has(netns)) return false
    this.#lookedInBatch.add(netns)
    const found = this.#source?.input.isLive === true ? this.#look(netns) : null
    if (found === null) return false
    const { sample, sampler } = found
    const during = this.#source!
    this.#source = sampler
    this.printer.use(sampler.context)
    this.sample(sample, sampler)
    this.#looked.set(netns, sample.sec * 1e6 + sample.usec)
    this.#source = during
    this.printer.use(during.context)
    return tableFull.wasFull(netns, sec)
  }

  gap(gap: Gap, source: Origin, suffix: string): void {
    this.tally.gaps++
    if (gap.timeSource === TIME_ESTIMATED) this.tally.guess(source.input.name)
    this.#countLost(gap, source.input.name)
    source.hasGap = true
    const host = this.#nameOf(gap.host ?? '', source)
    this.channels.print((route, look) => route.wants('gap', gap, look), () => this.printer.gap(gap, `${source.ridOf('')}${suffix}`, { host }))
  }

  /** Of no single input; `rid` is the whole of its id. */
  ownGap(gap: Gap, rid: string): void {
    this.tally.gaps++
    this.#countLost(gap, '')
    this.printer.use(this.#parts.own)
    this.channels.print((route, look) => route.wants('gap', gap, look), () => this.printer.gap(gap, rid, { isWhole: true }))
    if (this.#source !== null) this.printer.use(this.#source.context)
  }

  /**
   * A record that is read back is passed on, and nothing is made of it a second time: what it brought about is in the archive too, if it was wanted. What it tells of a
   * table goes to the detectors where inputs end, for the sake of what the others bring; to a run of now it is of another time.
   */
  passOn(record: OwnRecord, kernel: KernelEvent | null, sample: TableSample | null, source: Origin): void {
    if (record.sec >= this.clockSec) this.#advance(record, source)
    this.channels.print((route) => route.wantsPrinted(record.type, record, () => record.keys), () => this.printer.copy(record, () => source.ridOf('')))
    if (source.input.isLive) return
    if (kernel !== null) this.#parts.tableFull.knowFull(kernel)
    if (sample !== null) this.#parts.tableFull.sample(this.#parts.levels.sample(sample, undefined, inputOf(source, sample.host ?? '')), true)
  }

  /** An episode is open that time closes. */
  get asksTime(): boolean {
    return this.#parts.tableFull.isOpen
  }

  /** So late it is by lines of which no record is made. */
  pass(at: RecordTime, source: Origin): void {
    if (at.sec <= source.receivedSec + AHEAD_SAVED_SEC) this.#advance(at, source)
  }

  reject(reject: Reject, source: Origin): void {
    this.channels.print((route, look) => route.wants('reject', reject, look), () => this.printer.reject(reject, `${source.ridOf('')}r`))
  }

  alert(alert: Alert): void {
    this.tally.alert(alert.episode, alert.host === '' ? alert.summary : `${alert.host}: ${alert.summary}`)
    if (alert.seq === 1) {
      const own = episodeKey(alert)
      // namespaces and hosts come and go: those behind the first are counted with those that have no name
      const isOne = this.begun.has(own) || this.begun.size < TABLES_MAX
      const { rule } = alert
      const { netns, netnsName, host } = isOne ? alert : { netns: 0, netnsName: '', host: alert.host === '' ? '' : OTHER_HOSTS }
      const key = isOne ? own : episodeKey({ rule, netns, host })
      const begun = this.begun.get(key) ?? { rule, netns, netnsName, host, count: 0 }
      begun.count++
      this.begun.set(key, begun)
    }
    this.printer.use(this.#parts.own)
    this.channels.print((route, look) => route.wants('alert', alert, look), () => this.printer.alert(alert))
    if (this.#source !== null) this.printer.use(this.#source.context)
  }

  /** A table at this very moment: its entries, their limit, and its counters as the kernel has them; null where no input samples it, or it cannot be had at once. */
  tableNow(netns: number): { readonly count: number; readonly max: number; readonly now: Counters } | null {
    const sample = this.#look(netns)?.sample
    return sample === undefined ? null : { count: sample.count, max: sample.max, now: sumOverCpus(sample) }
  }

  /** Do flow events of that namespace come as they happen? */
  followsFlows(netns: number): boolean {
    return this.#origins.some(({ input }) => input.resync !== undefined && (netns === 0 || input.netns === 0 || input.netns === netns))
  }

  /** An alert waits for flow events that are on their way. */
  get waitsForFlows(): boolean {
    return this.#parts.tableFull.waitsForFlows
  }

  /** They are worked through, or will not be waited for. */
  flowsCame(isEnough: boolean): void {
    this.#parts.tableFull.flowsCame(isEnough)
  }

  /** The clock of the world: live episodes end though nothing is read. */
  tick(now: Time): void {
    if (now.sec > this.clockSec) this.clockSec = now.sec
    this.#parts.tableFull.advance(now)
    this.tracker.sweepGone()
  }

  /**
   * The host's clock was set, `by` microseconds forward. What follows is in its new times: what is held is moved along, so that nothing ages and nothing lies in the
   * future for it.
   */
  clockStepped(by: number, now: Time): void {
    this.clockSec += Math.round(by / 1e6)
    if (this.#apartSince >= 0) this.#apartSince += Math.round(by / 1e6)
    for (const [netns, at] of this.#looked) this.#looked.set(netns, at + by)
    this.#parts.tableFull.clockStepped(by)
    this.#parts.levels.clockStepped(by)
    this.tracker.clockStepped(by)
    this.#stepSec = Math.round(by / 1e6)
    this.#steppedAt = now.sec
  }

  /** A flow that may have been stamped before the clock was set is tracked by the time that it has now, and keeps its stamp. */
  #followOverStep(event: FlowEvent, source: Origin): void {
    const { sec } = event
    event.sec = this.#secNow(sec, source)
    if (event.sec > this.clockSec) this.#advance(event, source)
    this.#track(event, source)
    event.sec = sec
  }

  /** A time by the clock as it is now: one that lies nearer to what the clock would have said before it was set was read from it then. */
  #secNow(sec: number, source: Origin): number {
    if (this.#stepSec === 0) return sec
    if (source.receivedSec - this.#steppedAt > ON_ITS_WAY_SEC) this.#stepSec = 0
    const since = source.receivedSec - sec
    const sinceThen = Math.abs(since - this.#stepSec)
    return sinceThen < Math.abs(since) && sinceThen <= ON_ITS_WAY_SEC ? sec + this.#stepSec : sec
  }

  /** The inputs are at their end. */
  finish(): void {
    this.#limitGap()
    this.#parts.tableFull.finish()
  }

  /** Live flows against the kernel's count: when they differ for a minute, the input reads the table anew. With several namespaces each input looks after itself. */
  #compare(sample: TableSample, teller: Origin): void {
    const isOnly = this.#origins.filter(({ input }) => input.resync !== undefined).length === 1
    const apart = Math.abs(this.tracker.table.size - sample.count)
    if (!isOnly || sample.count < 0 || apart <= Math.max(APART_FREE, sample.count * APART)) this.#apartSince = -1
    else if (this.#apartSince < 0) this.#apartSince = sample.sec
    else if (sample.sec - this.#apartSince >= APART_SEC) {
      this.#apartSince = -1
      teller.input.resync!()
    }
  }

  /** Namespaces come and go: of many, the one that was sampled longest ago goes. */
  #keepTable(record: TableRecord, now: Counters): void {
    this.tables.delete(record.netns)
    this.tables.set(record.netns, { record, now })
    if (this.tables.size > TABLES_MAX) this.tables.delete(this.tables.keys().next().value!)
  }

  #countLost({ cause, count, atLeast }: Gap, input: string): void {
    const key = `${input} ${cause} ${count >= 0}`
    const lost = this.lost.get(key) ?? { input, cause, isExact: count >= 0, count: 0 }
    lost.count += count >= 0 ? count : Math.max(0, atLeast)
    this.lost.set(key, lost)
  }

  #look(netns: number): { readonly sample: TableSample; readonly sampler: Origin } | null {
    const sampler = this.#origins.find(({ input }) => input.look !== undefined)
    const sample = sampler?.input.look!(netns) ?? null
    return sample === null ? null : { sample, sampler: sampler! }
  }

  /** How records name the host that a line names. What this host's kernel or journal says is its own, whatever its name was then. */
  #nameOf(named: string, source: Origin): string {
    return named === '' || isOfHost(source) ? '' : this.#parts.tableFull.nameOf(named)
  }

  #advance(at: RecordTime, source: Origin): void {
    if (source.input.isLive && at.sec > source.receivedSec + AHEAD_SEC) return
    if (at.sec > this.clockSec && at.timeSource !== TIME_ESTIMATED) this.clockSec = at.sec
    this.#parts.tableFull.advance(at)
  }

  #limitGap(): void {
    const gap = this.tracker.takeLimitGap()
    if (gap !== null && this.#source !== null) this.gap(gap, this.#source, 'l')
  }
}

/** Which episodes are told apart. */
export function episodeKey({ rule, netns, host }: { readonly rule: string; readonly netns: number; readonly host: string }): string {
  return `${rule} ${netns} ${host}`
}

const isOfHost = ({ input }: Origin): boolean => input.ridBy === 'position'

/** Samples of two hosts have as little to do with each other as those of two inputs. */
const inputOf = ({ input }: Origin, host: string): string => (host === '' ? input.name : `${input.name} ${host}`)
