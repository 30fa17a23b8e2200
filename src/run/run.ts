/**
 * The loop: what one read returned goes through framing, parsing, tracking, detection, routing and printing in one synchronous go; only the two ends are waited
 * for. Live inputs are taken as they come, one batch after the other, and once a second the clock of the world enters as a batch of its own. Inputs that end are
 * merged by time, so that the same files give the same bytes in every run.
 */
import { type Time, timeOf } from '../event.js'
import { type Feed, type Input, InputError, messageOf, NOTICES_ONLY } from '../stage.js'
import type { Channels } from './channel.js'
import type { Records } from './records.js'
import type { Source } from './source.js'

const TICK_MS = 1000
/** The greatest lateness of the last minute or so is what counts. */
const LATENESS_FADES = 0.95
/** A line that waits for its second half waits so long. */
const WAIT_MS = 1000
/** A feed that has neither opened nor failed after so long is taken as one that opens late, as it is at the start. */
const OPENING_MS = 5000
/** A first alert waits so long for the flow events that show who filled the table: conntrack -E is some 10 to 100 ms behind the kernel's log. */
const FLOWS_MS = 250

export interface RunParts {
  readonly feeds: readonly FeedParts[]
  readonly records: Records
  readonly channels: Channels
  readonly sourceOf: (input: Input) => Source
  /** all inputs end: merge them by time */
  readonly once: boolean
  readonly now: () => Time
  /** Microseconds by which the host's clock was set forward or back since the last call that gave any. */
  readonly takeStep: () => number
  /** Tells of it: what the clock said just before, and says now. */
  readonly tellStep: (from: Time, to: Time) => void
  /** Something failed, and the rest goes on. */
  readonly report: (message: string) => void
  /** Called between batches, once a second. */
  readonly onTick?: () => void
  /** Resolves when a cut that is taken between batches after this call is remembered, or cannot be. */
  readonly remember?: () => Promise<void>
}

export interface FeedParts {
  readonly feed: Feed
  /** the user asked for it by name: without it there is no run */
  readonly isNamed: boolean
}

export interface RunResult {
  /** what an input or an output failed with for good, as a sentence; '' when nothing did */
  readonly failure: string
  /** what was not there or not permitted from the start, though asked for by name; '' when all was */
  readonly missing: string
}

/** A feed that has been opened, and none of whose inputs is read yet. */
export interface Prepared {
  /** They are read from now on. */
  begin(): void
  /** As if it had never been opened. */
  drop(): void
}

/** Something to do for the loop. */
type Turn = () => Promise<boolean> | boolean

export class Run {
  readonly #parts: RunParts
  readonly #sources: Source[] = []
  readonly #ended: Source[] = []
  readonly #injected: (() => void | Promise<void>)[] = []
  readonly #turns: Turn[] = []
  #wake: (() => void) | null = null
  /** what inputs have handed over, and what of it is worked through; how late the tick was at most lately, in milliseconds */
  taken = 0
  settled = 0
  latenessMs = 0
  #tickedAt = 0
  #isWaitingForFlows = false
  readonly #feeds: Set<Feed>
  readonly #feedOf = new WeakMap<Source, Feed>()
  /** of which is remembered where they begin */
  readonly #remembered = new WeakSet<Feed>()
  #onRemoved: (() => void)[] = []
  #openFeeds = 0
  #failure = ''
  #missing = ''
  #missed = 0
  #isStopped = false

  constructor(parts: RunParts) {
    this.#parts = parts
    this.#feeds = new Set(parts.feeds.map(({ feed }) => feed))
  }

  /** Until all inputs are at their end, or a reader has gone away, and all of it is written. */
  async toEnd(): Promise<RunResult> {
    const { channels, records, feeds } = this.#parts
    if (this.#parts.once) await this.#merged()
    else await this.#live()
    await this.#takeInjected()
    if (!channels.isGone) records.finish()
    await channels.drained()
    // what an output could not keep is told at any time, and so also meanwhile
    while (this.#injected.length > 0) {
      await this.#takeInjected()
      await channels.drained()
    }
    for (const source of this.#sources) source.input.close()
    if (this.#missed === feeds.length && this.#missed > 0 && this.#missing === '') this.#missing = 'no input can be opened'
    return { failure: channels.failure || this.#failure, missing: this.#missing }
  }

  /** No more input than what is there, within a moment. */
  stop(): void {
    this.#isStopped = true
    for (const feed of this.#feeds) feed.stop()
    for (const source of this.#sources) source.input.stop()
  }

  /** Something that is not of an input comes in between two batches. */
  inject(what: () => void | Promise<void>): void {
    this.#injected.push(what)
    this.#push(async () => {
      await this.#takeInjected()
      return true
    })
  }

  async #takeInjected(): Promise<void> {
    for (const what of this.#injected.splice(0)) await what()
  }

  /** No more input at all. */
  abort(): void {
    this.#isStopped = true
    for (const feed of this.#feeds) feed.abort()
    for (const source of this.#sources) source.input.abort()
    this.#push(() => false)
  }

  /** Inputs that are at their end and still have a position to remember. */
  get ended(): readonly Source[] {
    return this.#ended
  }

  /** Milliseconds since the loop's last tick of a second. */
  get sinceTickMs(): number {
    return this.#tickedAt === 0 ? 0 : performance.now() - this.#tickedAt
  }

  /** Feeds that have given an input, have no more to give, or have failed with the sentence given. */
  readonly opened = new Map<Feed, string>()

  /** What sources that have ended had brought, by the name of the input. */
  readonly finished = new Map<string, { readonly lines: number; readonly bytes: number; readonly restarts: number }>()

  get sources(): readonly Source[] {
    return this.#sources
  }

  /** Positions of inputs that were taken out of the run, by name, until another of that name has looked. */
  readonly moved = new Map<string, readonly unknown[]>()

  /** Names of the inputs of which a checkpoint says all there is to say, be it nothing. */
  get looked(): readonly string[] {
    return [...this.#feeds].filter((feed) => feed.hasLooked === true).map((feed) => feed.name)
  }

  async #live(): Promise<void> {
    void this.#openAll((source) => this.#begin(source))
    const ticker = setInterval(() => this.#push(() => this.#tick()), TICK_MS)
    await this.#turnByTurn()
    clearInterval(ticker)
  }

  async #turnByTurn(): Promise<void> {
    const { channels } = this.#parts
    while ((this.#openFeeds > 0 || this.#sources.length > 0) && !channels.isGone) {
      const turn = this.#turns.shift()
      if (turn === undefined) await new Promise<void>((resolve) => (this.#wake = resolve))
      else if (await turn()) channels.flush()
    }
  }

  #push(turn: Turn): void {
    this.#turns.push(turn)
    const wake = this.#wake
    this.#wake = null
    wake?.()
  }

  #openAll(onSource: (source: Source) => void): Promise<unknown> {
    return Promise.all(this.#parts.feeds.map((parts) => this.#open(parts, onSource)))
  }

  /** Opens a feed. One that fails is told of, and ends the run when it was asked for by name. */
  async #open({ feed, isNamed }: FeedParts, onSource: (source: Source) => void, open: Feed['open'] = (add) => feed.open(add)): Promise<void> {
    const { records, sourceOf, report, channels } = this.#parts
    this.#openFeeds++
    feed.onLooked = () => void this.#parts.remember?.()
    try {
      await open((input) => {
        input.onIdle = () => channels.flush()
        this.opened.set(feed, '')
        const source = sourceOf(input)
        this.#sources.push(source)
        this.#feedOf.set(source, feed)
        records.add(source)
        // it may have been asked to stop before it was there
        if (this.#isStopped) input.stop()
        onSource(source)
      })
    } catch (error) {
      if (!(error instanceof InputError)) this.#fail(`input ${feed.name} failed: ${messageOf(error)}`)
      else if (isNamed) this.#missing ||= error.message
      else report(error.message)
      this.#missed++
      this.opened.set(feed, messageOf(error))
      if (isNamed) this.abort()
    }
    if (!this.opened.has(feed)) this.opened.set(feed, '')
    this.#openFeeds--
    this.#push(() => false)
  }

  /** The loop goes on without any input until what this gives is called. */
  hold(): () => void {
    this.#openFeeds++
    return () => {
      this.#openFeeds--
      this.#push(() => false)
    }
  }

  /** Takes a further feed while the loop goes on; one that cannot be opened is told of, and the rest goes on. */
  add(feed: Feed): void {
    this.#feeds.add(feed)
    void this.#open({ feed, isNamed: false }, (source) => this.#begin(source))
  }

  /** Opens a further feed while the loop goes on, which takes it with `begin`. Throws what opening met. */
  async prepare(feed: Feed): Promise<Prepared> {
    const inputs: Input[] = []
    let take = (input: Input): void => void inputs.push(input)
    let isReady = (): void => {}
    const ready = new Promise<void>((resolve) => (isReady = resolve))
    feed.onLooked = isReady
    const opening = feed.open((input) => {
      take(input)
      isReady()
    })
    const drop = (): void => {
      take = (input) => {
        input.abort()
        input.close()
      }
      feed.abort()
      for (const input of inputs.splice(0)) take(input)
      opening.catch(() => {})
    }
    let timer: NodeJS.Timeout | undefined
    try {
      await Promise.race([opening, ready, new Promise<void>((resolve) => (timer = setTimeout(resolve, OPENING_MS)))])
    } catch (error) {
      drop()
      throw error
    } finally {
      clearTimeout(timer)
    }
    const open: Feed['open'] = (add) => {
      take = add
      for (const input of inputs.splice(0)) add(input)
      return opening
    }
    const begin = (): void => {
      this.#feeds.add(feed)
      void this.#open({ feed, isNamed: false }, (source) => this.#begin(source), open)
      if (feed.hasLooked === true) feed.onLooked?.()
    }
    return { begin, drop }
  }

  /** Ends a feed's inputs while the loop goes on. Resolves with the positions that they had reached, when all they had read is worked through. */
  async take(feed: Feed): Promise<readonly unknown[]> {
    this.#feeds.delete(feed)
    const mine = this.#sources.filter((source) => this.#feedOf.get(source) === feed)
    feed.stop()
    for (const source of mine) source.input.stop()
    await new Promise<void>((resolve) => {
      const look = (): void => (this.#sources.some((source) => this.#feedOf.get(source) === feed) ? void this.#onRemoved.push(look) : resolve())
      look()
    })
    const ended = this.#ended.filter((source) => this.#feedOf.get(source) === feed)
    for (const source of ended) this.#ended.splice(this.#ended.indexOf(source), 1)
    this.opened.delete(feed)
    const positions = ended.map((source) => source.input.position(source.offset)).filter((position) => position !== null)
    this.moved.set(feed.name, positions)
    return positions
  }

  /** Where an input begins is remembered before its first byte is read: a run that dies at once, again and again, has passed over nothing. */
  #begin(source: Source): void {
    const { remember } = this.#parts
    const { input } = source
    const feed = this.#feedOf.get(source)!
    const isRemembered = input.position(source.offset) === null || (input.beginsTheSame === true && this.#remembered.has(feed))
    if (remember === undefined || isRemembered) return this.#ask(source)
    void remember().then(() => {
      this.#remembered.add(feed)
      this.#ask(source)
    })
  }

  /** Has the input read; what it brings is the loop's next turn. */
  #ask(source: Source): void {
    source.input.next().then(
      (n) => {
        this.taken++
        this.#push(async () => {
          const flushes = await this.#work(source, n)
          this.settled++
          return flushes
        })
      },
      (error: unknown) => this.#push(() => this.#broke(source, error)),
    )
  }

  /** True when what was printed should go out now: the input has nothing more at hand. */
  async #work(source: Source, n: number): Promise<boolean> {
    if (n === 0) {
      await source.finish()
      this.#remove(source)
      return true
    }
    this.#followClock()
    source.take(n)
    // an input whose position is that of its last record must not run ahead of what is worked through
    const mayReadAhead = source.input.ridBy !== 'position'
    if (mayReadAhead) this.#ask(source)
    if (n !== NOTICES_ONLY) await source.batch(false)
    if (!mayReadAhead) this.#ask(source)
    if (source.waits) this.#giveTime(source)
    if (this.#parts.records.waitsForFlows) this.#waitForFlows()
    return !source.input.isBusy
  }

  #waitForFlows(): void {
    const { records } = this.#parts
    records.flowsCame(false)
    if (this.#isWaitingForFlows || !records.waitsForFlows) return
    this.#isWaitingForFlows = true
    setTimeout(() => {
      this.#push(() => {
        this.#isWaitingForFlows = false
        records.flowsCame(true)
        return true
      })
    }, FLOWS_MS)
  }

  #giveTime(source: Source): void {
    const { batches } = source
    setTimeout(() => {
      this.#push(async () => {
        // the second half may have come meanwhile, or the input's end
        if (!source.waits || source.batches !== batches || !this.#sources.includes(source)) return false
        await source.giveUpWaiting()
        return true
      })
    }, WAIT_MS)
  }

  async #broke(source: Source, error: unknown): Promise<boolean> {
    this.#fail(source.input.name === '-' ? `standard input failed: ${messageOf(error)}` : `input ${source.input.name} failed: ${messageOf(error)}`)
    await source.finish()
    this.#remove(source)
    return true
  }

  #fail(message: string): void {
    if (this.#failure === '') this.#failure = message
    else this.#parts.report(message)
  }

  #remove(source: Source): void {
    const { name } = source.input
    const { lines, bytes, restarts } = this.finished.get(name) ?? { lines: 0, bytes: 0, restarts: 0 }
    this.finished.set(name, { lines: lines + source.linesSoFar, bytes: bytes + source.bytes, restarts: restarts + (source.input.restarts ?? 0) })
    this.#sources.splice(this.#sources.indexOf(source), 1)
    this.#parts.records.remove(source)
    if (source.input.position(source.offset) !== null) this.#ended.push(source)
    source.input.close()
    const looks = this.#onRemoved
    this.#onRemoved = []
    for (const look of looks) look()
  }

  #tick(): boolean {
    const at = performance.now()
    if (this.#tickedAt !== 0) this.latenessMs = Math.max(0, at - this.#tickedAt - TICK_MS, this.latenessMs * LATENESS_FADES)
    this.#tickedAt = at
    const { records, now, onTick } = this.#parts
    this.#followClock()
    if (this.#sources.some((source) => source.input.isLive || source.seemsLive)) records.tick(now())
    onTick?.()
    return true
  }

  /** When the clock was set: what follows is in its new times, and so what is held must be. A followed file may be another host's: it counts where its lines are of now. */
  #followClock(): void {
    const { records, takeStep, tellStep, now } = this.#parts
    const step = takeStep()
    if (step === 0 || !this.#sources.some(({ input, seemsLive }) => seemsLive || (input.isLive && input.ridBy !== 'offset'))) return
    const to = now()
    tellStep(timeOf(to.sec * 1e6 + to.usec - step), to)
    records.clockStepped(step, to)
  }

  async #merged(): Promise<void> {
    const { channels } = this.#parts
    const waiting: { source: Source; time: Time }[] = []
    await this.#openAll(() => {})
    if (this.#missing !== '') return
    const all = [...this.#sources]
    // a single one needs no comparing
    if (all.length === 1) {
      this.#ask(all[0]!)
      return this.#turnByTurn()
    }
    for (const source of all) await this.#refill(source, waiting, all)
    while (waiting.length > 0 && !channels.isGone) {
      const [oldest] = waiting
      waiting.shift()
      oldest!.source.handOn()
      await this.#refill(oldest!.source, waiting, all)
    }
  }

  /** Puts the source's next record in its place: by time, and of one time in the order in which the inputs were given. */
  async #refill(source: Source, waiting: { source: Source; time: Time }[], all: readonly Source[]): Promise<void> {
    let time: Time | null
    try {
      time = await source.peek()
    } catch (error) {
      this.#fail(`input ${source.input.name} failed: ${messageOf(error)}`)
      time = null
    }
    if (time === null) {
      this.#remove(source)
      return
    }
    const found = time
    const order = all.indexOf(source)
    const at = waiting.findIndex((other) => isBefore(found, other.time) || (!isBefore(other.time, found) && order < all.indexOf(other.source)))
    waiting.splice(at < 0 ? waiting.length : at, 0, { source, time: found })
  }
}

function isBefore(a: Time, b: Time): boolean {
  return a.sec < b.sec || (a.sec === b.sec && a.usec < b.usec)
}
