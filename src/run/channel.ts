/**
 * From printed records to outputs. Outputs that want the same records are one channel. The first channel's records are printed where they stay until they are
 * written, in a ring of pages; of the others' records copies are taken, which costs only where someone asks for a selection of his own.
 */
import { out, Pages, pen, type PrintedPage } from '../printers/pages.js'
import type { JsonRecord } from '../conditions.js'
import type { Time } from '../event.js'
import type { Route } from '../route.js'
import { isShedFirst, timeOf, typeOf } from '../spool/lines.js'
import { messageOf, type Output } from '../stage.js'

/** A copied page is handed on at this size; while so much is on its way nothing more is read. */
const COPY_BYTES = 1 << 16
const COPIES_BYTES_MAX = 1 << 20

/** `{"time":"2026-11-22T09:58:32.390102Z",`: all of a shed record that is kept. */
const TIME_BYTES = 39

/** How an output stands; records and bytes since it is there. offered = wanted + filtered, and of the wanted those that are not written are on the way. */
export interface OutputCounts {
  readonly output: Output
  readonly offered: number
  readonly filtered: number
  readonly wanted: number
  /** taken by the output, and in the end written where it has a spool */
  readonly written: number
  readonly bytes: number
  /** what it failed with for good, '' when it did not */
  readonly failure: string
}

/** Records of one output: written; of one with a spool also turned down for good by the receiver, lost, and those that still wait. */
export interface Fate {
  readonly written: number
  readonly spooled: { readonly refused: number; readonly lost: number; readonly waiting: number } | null
}

/** Outputs that get the same records. */
export interface ChannelParts {
  readonly route: Route
  readonly outputs: readonly Output[]
  /** of what the route lets through, only what goes to no channel with conditions of its own */
  readonly isUnmatched?: boolean
  readonly hasConditions?: boolean
}

export class Channels {
  #channels: readonly Channel[]
  /** what became of the records of outputs that are no longer there */
  readonly #retired = new Map<string, Fate>()
  readonly #onGone: () => void
  readonly #pages = new Pages()
  /** records that were there to be written, wanted or not */
  offered = 0
  /** something is printed that no page was free to take */
  #overdue = false
  readonly #waiting: (() => void)[] = []
  readonly #copied = (): void => this.#madeRoom()
  /** every channel takes all flow records or none, and the first takes them: they are printed without asking, see `flow` */
  allFlows = false
  /** flow records that were printed so since the last other record: how many, where the first and the last of them begin */
  #flows = 0
  #flowsFrom = 0
  #lastFlow = 0

  /** `onGone`: an output's reader has gone away, or it failed for good. */
  constructor(parts: readonly ChannelParts[], onGone: () => void) {
    this.#onGone = onGone
    this.#channels = []
    this.#take(parts, new Map())
  }

  /** Other channels from now on, between two batches and when all that is printed is written. Outputs that stay keep their place. */
  replace(parts: readonly ChannelParts[]): void {
    const old = this.#channels.flatMap((channel) => channel.queues.map((queue) => ({ queue, channel })))
    for (const { queue, channel } of old) queue.leave(channel)
    this.#take(parts, new Map(old.map(({ queue }) => [queue.output, queue])))
    const outputs = new Set(parts.flatMap((each) => each.outputs))
    for (const { queue } of old) if (!outputs.has(queue.output)) this.#retired.set(queue.output.name, this.#fateOf(queue))
  }

  #take(parts: readonly ChannelParts[], kept: ReadonlyMap<Output, OutputQueue>): void {
    const order = [...parts].sort((a, b) => Number(b.route.flows === 'all') - Number(a.route.flows === 'all'))
    this.#channels = order.map((each) => new Channel(each, this.offered, this.#onGone, kept))
    this.allFlows = order[0]?.route.flows === 'all' && order.every(({ route, isUnmatched }) => route.flows !== 'some' && isUnmatched !== true)
  }

  /** A flow record is printed next, without asking; `allFlows` says so. In the end `endFlows` hands them on. */
  flow(): void {
    if (this.#flows === 0) this.#flowsFrom = pen.at
    this.#lastFlow = pen.at
    this.#flows++
  }

  endFlows(): void {
    const flows = this.#flows
    if (flows === 0) return
    this.#flows = 0
    this.offered += flows
    for (const [i, channel] of this.#channels.entries()) {
      if (channel.route.flows === 'none') {
        channel.filtered += flows
        continue
      }
      channel.printed += flows
      if (i > 0) channel.copyFlows(this.#flowsFrom, pen.at, flows, this.#lastFlow, this.#copied)
    }
  }

  /** Prints a record for the channels that want it; to know that, they may look at it. */
  print(wants: (route: Route, look: () => JsonRecord) => boolean, print: () => void): void {
    this.endFlows()
    const channels = this.#channels
    const first = channels[0]!
    this.offered++
    const from = pen.at
    let shown: JsonRecord | null = null
    const look = (): JsonRecord => {
      if (shown === null) {
        print()
        shown = JSON.parse(printed.toString('utf8', from, pen.at)) as JsonRecord
      }
      return shown
    }
    if (channels.length === 1) {
      if (wants(first.route, look)) {
        if (shown === null) print()
        first.printed++
      } else {
        pen.at = from
        first.filtered++
      }
      return
    }
    let isWanted = false
    let isMatched = false
    for (const channel of channels) {
      channel.isWanting = wants(channel.route, look)
      if (!channel.isWanting) continue
      isWanted = true
      if (channel.hasConditions) isMatched = true
    }
    if (!isWanted) {
      pen.at = from
      for (const channel of channels) channel.filtered++
      return
    }
    if (shown === null) print()
    let isForFirst = false
    for (const channel of channels) {
      if (!channel.isWanting || (isMatched && channel.isUnmatched)) {
        channel.filtered++
        continue
      }
      channel.printed++
      if (channel === first) isForFirst = true
      else channel.copy(from, pen.at, this.#copied)
    }
    if (!isForFirst) pen.at = from
  }

  get isFull(): boolean {
    return this.#pages.isFull || this.#channels.some((channel) => channel.isStuck)
  }

  get isGone(): boolean {
    return this.#channels.some((channel) => channel.queues.some((queue) => queue.isGone))
  }

  /** What an output failed with for good, '' when none did. */
  get failure(): string {
    return this.#channels.flatMap((channel) => channel.queues).find((queue) => queue.failure !== '')?.failure ?? ''
  }

  /** What became of the records so far, by output. */
  get fates(): ReadonlyMap<string, Fate> {
    return new Map([...this.#retired, ...this.#channels.flatMap(({ queues }) => queues.map((queue) => [queue.output.name, this.#fateOf(queue)] as const))])
  }

  /** With that of an output of the same name before it. */
  #fateOf(queue: OutputQueue): Fate {
    const before = this.#retired.get(queue.output.name)
    const status = queue.output.status?.()
    const written = queue.total + (before?.written ?? 0)
    if (status === undefined) return { written, spooled: before?.spooled ?? null }
    // refused records that could not be kept as dead letters are lost by that reason
    const { refused: unkept = 0, ...others } = status.lostBy
    const lost = Object.values(others).reduce((sum, count) => sum + count, 0)
    return { written, spooled: { refused: status.refused + unkept + (before?.spooled?.refused ?? 0), lost: lost + (before?.spooled?.lost ?? 0), waiting: status.queueRecords } }
  }

  get numbers(): readonly OutputCounts[] {
    return this.#channels.flatMap((channel) => channel.queues.map((queue) => queue.countsIn(channel, this.offered)))
  }

  /** Hands on the full page, when there is another to go on with: now, which gives null, or when what it gives resolves. */
  turn(): Promise<void> | null {
    if (!this.#canGoOn && !this.isGone) return this.#turnLater()
    if (this.#pages.canTurn) this.#turn()
    return null
  }

  async #turnLater(): Promise<void> {
    while (!this.#canGoOn && !this.isGone) await this.#room()
    if (this.#pages.canTurn) this.#turn()
  }

  /** Hands on what is printed, now or as soon as there is a page to go on with. */
  flush(): void {
    for (const channel of this.#channels) channel.flush(this.#copied)
    this.#overdue = !this.#pages.isEmpty && !this.#pages.canTurn
    if (!this.#pages.isEmpty && !this.#overdue) this.#turn()
  }

  /** Everything printed so far is handed on and written. */
  async drained(): Promise<void> {
    this.flush()
    while (this.#overdue && !this.isGone) await this.#room()
    await Promise.all(this.#channels.flatMap((channel) => channel.queues.map((queue) => queue.drained())))
  }

  /** ... and safe from a crash of the machine. Throws when it cannot be made so. */
  async safe(): Promise<void> {
    await this.drained()
    await Promise.all(this.#channels.flatMap((channel) => channel.queues.map((queue) => queue.output.sync?.())))
  }

  #room(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  get #canGoOn(): boolean {
    return this.#pages.canTurn && !this.#channels.some((channel) => channel.isStuck)
  }

  #turn(): void {
    const first = this.#channels[0]!
    for (const channel of this.#channels) channel.tellShed()
    const printed = this.#pages.turn(first.queues.length)
    for (const queue of first.queues) queue.add(out.subarray(printed.from, printed.to), first.printed, () => this.#released(printed))
  }

  #released(printed: PrintedPage): void {
    this.#pages.release(printed)
    if (this.#overdue && this.#pages.canTurn) this.flush()
    this.#madeRoom()
  }

  #madeRoom(): void {
    if (!this.#canGoOn && !this.isGone) return
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

class Channel {
  readonly route: Route
  readonly isUnmatched: boolean
  readonly hasConditions: boolean
  readonly queues: readonly OutputQueue[]
  /** records for its outputs, and the others */
  printed = 0
  filtered = 0
  /** of the record at hand */
  isWanting = false
  #copied = new Uint8Array(0)
  #filled = 0
  #onTheWay = 0
  /** all outputs would throw away what is shed first */
  #isShedding = false
  /** so many were not copied for that; the beginnings of the first and the last of them */
  #shed = 0
  readonly #firstShed = Buffer.alloc(TIME_BYTES)
  readonly #lastShed = Buffer.alloc(TIME_BYTES)

  constructor({ route, outputs, isUnmatched = false, hasConditions = false }: ChannelParts, offered: number, onGone: () => void, kept: ReadonlyMap<Output, OutputQueue>) {
    this.route = route
    this.isUnmatched = isUnmatched
    this.hasConditions = hasConditions
    this.queues = outputs.map((output) => kept.get(output) ?? new OutputQueue(output, offered, onGone))
  }

  get isStuck(): boolean {
    return this.#onTheWay >= COPIES_BYTES_MAX
  }

  copy(from: number, to: number, released: () => void): void {
    if (this.#isShedding && isShedFirst(typeOf(printed, from, to))) this.#leaveOut(from, 1, from)
    else this.#copy(from, to, released)
  }

  /** So many flow records in a row; the last begins at `last`. */
  copyFlows(from: number, to: number, count: number, last: number, released: () => void): void {
    if (this.#isShedding) this.#leaveOut(from, count, last)
    else this.#copy(from, to, released)
  }

  #leaveOut(first: number, count: number, last: number): void {
    if (this.#shed === 0) this.#firstShed.set(out.subarray(first, first + TIME_BYTES))
    this.#lastShed.set(out.subarray(last, last + TIME_BYTES))
    this.#shed += count
  }

  #copy(from: number, to: number, released: () => void): void {
    if (this.#filled + to - from > this.#copied.length) {
      this.flush(released)
      this.#copied = new Uint8Array(Math.max(COPY_BYTES, to - from))
    }
    this.#copied.set(out.subarray(from, to), this.#filled)
    this.#filled += to - from
  }

  flush(released: () => void): void {
    this.tellShed()
    if (this.#filled === 0) return
    const page = this.#copied.subarray(0, this.#filled)
    this.#copied = new Uint8Array(0)
    this.#filled = 0
    let holders = this.queues.length
    this.#onTheWay += page.length
    for (const queue of this.queues) {
      queue.add(page, this.printed, () => {
        if (--holders > 0) return
        this.#onTheWay -= page.length
        released()
      })
    }
  }

  /** Once for each page, for to ask costs as much as to copy a record. */
  tellShed(): void {
    this.#isShedding = this.queues.every(({ output }) => output.isShedding === true)
    if (this.#shed === 0) return
    const from = timeOf(this.#firstShed, 0)
    const to = timeOf(this.#lastShed, 0)
    for (const queue of this.queues) queue.shed(this.#shed, from, to, this.printed)
    this.#shed = 0
  }
}

/** `out`, for what reads texts of it. */
const printed = Buffer.from(out.buffer)

/** Pages on their way to one output, in order, one at a time. */
class OutputQueue {
  readonly output: Output
  isGone = false
  failure = ''
  /** of this channel's printed records, those that are written; and what was in the channels before it */
  written = 0
  #before = { wanted: 0, filtered: 0, written: 0 }
  bytes = 0
  /** records that were offered before it was there */
  readonly #offeredBefore: number
  readonly #onGone: () => void
  #last: Promise<void> = Promise.resolve()

  constructor(output: Output, offered: number, onGone: () => void) {
    this.output = output
    this.#offeredBefore = offered
    this.#onGone = onGone
  }

  add(page: Uint8Array, recordsSoFar: number, release: () => void): void {
    this.#last = this.#last.then(async () => {
      try {
        if (!this.isGone) {
          if (!(await this.output.write(page))) return this.#gone()
          this.written = recordsSoFar
          this.bytes += page.length
        }
      } catch (error) {
        const { name } = this.output
        this.failure = `output ${name === '-' ? 'to standard output' : name} failed: ${messageOf(error)}`
        this.#gone()
      } finally {
        release()
      }
    })
  }

  /** taken by the output */
  get taken(): number {
    return this.#before.written + this.written
  }

  /** ... and written, which is later where it has a spool */
  get total(): number {
    return this.output.status?.().sent ?? this.taken
  }

  countsIn({ printed, filtered }: Channel, offered: number): OutputCounts {
    const { output, bytes, failure } = this
    return { output, bytes, failure, offered: offered - this.#offeredBefore, filtered: this.#before.filtered + filtered, wanted: this.#before.wanted + printed, written: this.total }
  }

  /** For another channel, which counts from 0. */
  leave({ printed, filtered }: Channel): void {
    const { wanted, filtered: before, written } = this.#before
    this.#before = { wanted: wanted + printed, filtered: before + filtered, written: written + this.written }
    this.written = 0
  }

  shed(count: number, from: Time | null, to: Time | null, recordsSoFar: number): void {
    this.#last = this.#last.then(() => {
      if (this.isGone) return
      this.output.shed?.(count, from, to)
      this.written = recordsSoFar
    })
  }

  drained(): Promise<void> {
    return this.#last
  }

  #gone(): void {
    this.isGone = true
    this.#onGone()
  }
}
