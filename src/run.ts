/**
 * The loop: what one read returned goes through framing, parsing, tracking, routing and printing in one synchronous go; only the two ends are waited for.
 */
import {
  type FlowEvent as Event,
  type Gap,
  type Reject,
  DESTROY,
  FlowEvent,
  LINE_BYTES_MAX,
  page,
} from './event.js'
import { Frame, type LongLine } from './frame.js'
import { EXPECTATION, NOT_OURS, parseText, UNFINISHED } from './formats/conntrack-text.js'
import { tornRow } from './formats/conntrack-notice.js'
import { expectation, readExpectation } from './formats/expectation.js'
import type { FlowTracker } from './detectors/flows/tracker.js'
import { type NdjsonPrinter } from './printers/ndjson.js'
import { out, Pages, type PrintedPage } from './printers/pages.js'
import type { Route } from './route.js'
import { EXPECT, FLOW, IGNORED, type Input, type LineContext, type LineFormat, NOTE, type Output, REJECTED_LINE } from './stage.js'
import type { Tally } from './tally.js'

const LF = 10
/** Of a rejected line so much is shown. */
const SHOWN_BYTES = 1024
/** A line that waits for its second half waits so long. */
const HELD_MS = 1000
const HELD = -1
const NOTHING = new Uint8Array(0)

export interface RunParts {
  readonly input: Input
  readonly outputs: readonly Output[]
  readonly printer: NdjsonPrinter
  readonly tracker: FlowTracker
  readonly route: Route
  readonly tally: Tally
  readonly context: LineContext
  /** whether flows in conntrack's text are wanted, and the other formats that are */
  readonly text: boolean
  readonly formats: readonly LineFormat[]
  readonly diagnose: (message: string) => void
}

export interface RunResult {
  /** records written to each output */
  readonly written: Readonly<Record<string, number>>
  /** what the input or an output failed with for good, as a sentence; '' when nothing did */
  readonly failure: string
}

export class Run {
  readonly #parts: RunParts
  readonly #event: Event = new FlowEvent()
  readonly #frame: Frame
  readonly #pages = new Pages()
  readonly #queues: OutputQueue[]
  #lineAt = 0
  /** something is printed that no page was free to take */
  #overdue = false
  /** counter for record ids where there is no offset */
  #records = 0
  #turned: (() => void) | null = null

  constructor(parts: RunParts) {
    this.#parts = parts
    this.#frame = new Frame(parts.input.offset)
    this.#queues = parts.outputs.map(
      (output) =>
        new OutputQueue(output, (printed, gone) => {
          if (gone) parts.input.abort()
          this.#released(printed)
        }),
    )
  }

  /** Until the input is at its end, or a reader has gone away, and all of it is written. */
  async toEnd(): Promise<RunResult> {
    let failure = ''
    try {
      await this.#readAll()
    } catch (error) {
      failure = `standard input failed: ${error instanceof Error ? error.message : String(error)}`
      this.#flush()
    }
    await Promise.all(this.#queues.map((queue) => queue.drained()))
    return {
      written: this.written,
      failure: this.#queues.find((queue) => queue.failure !== '')?.failure ?? failure,
    }
  }

  /** Records written so far, by output. */
  get written(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#queues.map((queue) => [queue.output.name, queue.written]))
  }

  async #readAll(): Promise<void> {
    const { input, tally } = this.#parts
    const frame = this.#frame
    input.onIdle = () => this.#flush()
    let next = input.next()
    let waits = false
    for (;;) {
      const n = waits ? await orHeld(next) : await next
      if (n === 0 || this.#isGone) break
      if (n === HELD) {
        // the second half did not come: what is held is a line of its own
        frame.lay(NOTHING)
      } else {
        tally.bytes += n
        frame.lay(input.chunk)
        this.#received()
        next = input.next()
        // awaited in the next round; until then a failure is nobody's
        next.catch(() => {})
      }
      waits = await this.#batch(n === HELD)
      if (!input.isBusy || n === HELD) this.#flush()
    }
    if (!this.#isGone) {
      frame.finish()
      this.#received()
      await this.#batch(true)
      this.#limitGap()
      this.#flush()
      if (this.#overdue) await this.#room().then(() => this.#flush())
    }
  }

  get #isGone(): boolean {
    return this.#queues.some((queue) => queue.isGone)
  }

  /** Works through the lines in the frame. True when the last of them waits for the next line. */
  async #batch(final: boolean): Promise<boolean> {
    const frame = this.#frame
    // named by the place of its LF
    this.#lineAt = frame.at - 1
    if (frame.longLine !== null) this.#longLine(frame.longLine)
    this.#lineAt = frame.at
    let waits = false
    while (this.#lineAt < frame.end && !waits) {
      waits = this.#lines(frame.end, final)
      if (this.#pages.isFull) {
        if (!this.#pages.canTurn) await this.#room()
        this.#turn()
        if (this.#isGone) break
      }
    }
    frame.keep(this.#lineAt)
    return waits
  }

  /** Lines up to `end`, or until a page is full. True when the line at hand waits for the next one. */
  #lines(end: number, final: boolean): boolean {
    const { printer, route, context, text } = this.#parts
    const event = this.#event
    const pages = this.#pages
    const allFlows = route.allFlows
    let p = this.#lineAt
    let flows = 0
    let printed = 0
    let waits = false
    while (p < end) {
      const next = parseText(p, end, event, context)
      if (next > 0 && text) {
        flows++
        if (context.extraLines !== 0) this.#extraLines()
        this.#lineAt = p
        this.#follow(event)
        p = next
        if (allFlows || route.wantsFlow(event)) {
          printer.flow(event, this.#rid())
          printed++
          if (pages.isFull) break
        }
      } else if (next === UNFINISHED && !final) {
        waits = true
        break
      } else {
        this.#lineAt = p
        this.#countFlows(flows, printed)
        flows = 0
        printed = 0
        const mended = this.#mend(p, end, final)
        if (mended === UNFINISHED) {
          waits = true
          break
        }
        p = mended === p ? this.#otherLine(p, end, next) : mended
        if (pages.isFull) break
      }
    }
    this.#lineAt = p
    this.#countFlows(flows, printed)
    return waits
  }

  /** A row with the tool's closing sum in its middle becomes whole: its first part is moved up to the second. Gives where the line begins then. */
  #mend(at: number, end: number, final: boolean): number {
    const lineEnd = page.indexOf(LF, at)
    const torn = tornRow(at, lineEnd)
    if (torn === null) return at
    if (lineEnd + 1 >= end) return final ? at : UNFINISHED
    const { tally, tracker } = this.#parts
    tally.lines++
    tally.ignored++
    tracker.dumpShown(torn.shown)
    page.copyWithin(lineEnd + 1 - torn.headBytes, at, at + torn.headBytes)
    return lineEnd + 1 - torn.headBytes
  }

  /** A line that is no flow in conntrack's text. Gives the offset behind it. */
  #otherLine(at: number, end: number, said: number): number {
    const { tracker, printer, route, tally, context, text, formats, diagnose } = this.#parts
    const event = this.#event
    const lineEnd = page.indexOf(LF, at)
    const next = Math.min(lineEnd + 1, end)
    tally.lines++
    if (lineEnd - at > LINE_BYTES_MAX) {
      tally.lines--
      this.#longLine({ text: page.slice(at, at + SHOWN_BYTES), bytes: lineEnd - at })
      return next
    }
    clear(context)
    let outcome: number = said === NOT_OURS || !text ? IGNORED : REJECTED_LINE
    if (said > 0) {
      outcome = IGNORED
    } else if (said === EXPECTATION) {
      outcome = !formats.includes(expectation) ? IGNORED : readExpectation(context.bodyAt, lineEnd, event, context)
    } else if (said === NOT_OURS) {
      for (const format of formats) {
        if (format.begins(at)) {
          outcome = format.read(at, lineEnd, event, context)
          break
        }
      }
    } else if (said === UNFINISHED) {
      context.reason = 'no reply tuple'
    }
    switch (outcome) {
      case FLOW:
        tally.flows++
        this.#follow(event)
        if (route.wantsFlow(event)) {
          printer.flow(event, this.#rid())
          this.#count(1)
        }
        break
      case EXPECT:
        tally.expects++
        tracker.expect(context.expect!)
        if (route.wants('expect', context.expect!)) {
          printer.expect(context.expect!, String(this.#rid()))
          this.#count(1)
        }
        break
      case NOTE:
        tally.notes++
        if (context.gap !== null) this.#gap(context.gap, 'g')
        break
      case IGNORED:
        tally.ignored++
        break
      default:
        tally.rejected++
        this.#reject({ ...this.#receivedTime(), line: tally.lines, reason: context.reason, text: cut(at, lineEnd), bytes: lineEnd - at > SHOWN_BYTES ? lineEnd - at : -1 })
    }
    if (context.dumpEnd === true) tracker.dumpEnds()
    else if (context.dumpEnd !== false) tracker.dumpShown(context.dumpEnd)
    if (context.diagnostic !== '') diagnose(context.diagnostic)
    return next
  }

  /** Tracks a flow and counts what became of it. */
  #follow(event: Event): void {
    const { tracker, tally } = this.#parts
    tracker.track(event)
    tally.events[event.event]++
    if (event.event === DESTROY) tally.ends[event.reason]++
    if (tracker.limitGapIsDue) this.#limitGap()
  }

  #limitGap(): void {
    const gap = this.#parts.tracker.takeLimitGap()
    if (gap !== null) this.#gap(gap, 'l')
  }

  #extraLines(): void {
    this.#parts.tally.lines += this.#parts.context.extraLines
    this.#parts.tally.ignored += this.#parts.context.extraLines
  }

  /** One reject and one gap. */
  #longLine(line: LongLine): void {
    const { tally } = this.#parts
    tally.lines++
    tally.rejected++
    this.#reject({ ...this.#receivedTime(), line: tally.lines, reason: `longer than ${LINE_BYTES_MAX} bytes`, text: line.text, bytes: line.bytes })
    this.#gap({ ...this.#receivedTime(), timeSource: 2, cause: 'line_too_long', count: 1, atLeast: -1, from: null, to: null }, 'g')
  }

  #reject(reject: Reject): void {
    if (!this.#parts.route.wants('reject', reject)) return
    this.#parts.printer.reject(reject, `${this.#rid()}r`)
    this.#count(1)
  }

  #gap(gap: Gap, suffix: string): void {
    this.#parts.tally.gaps++
    if (!this.#parts.route.wants('gap', gap)) return
    this.#parts.printer.gap(gap, `${this.#rid()}${suffix}`)
    this.#count(1)
  }

  #countFlows(flows: number, printed: number): void {
    const { tally } = this.#parts
    tally.lines += flows
    tally.flows += flows
    tally.printed += printed
  }

  #count(records: number): void {
    this.#parts.tally.printed += records
  }

  #rid(): number {
    return this.#parts.input.ridByOffset ? this.#frame.offset + this.#lineAt - this.#frame.at : ++this.#records
  }

  #received(): void {
    const { input, context } = this.#parts
    const at = input.receivedMicroseconds()
    context.receivedSec = Math.floor(at / 1e6)
    context.receivedUsec = Math.floor(at - context.receivedSec * 1e6)
  }

  #receivedTime(): { sec: number; usec: number } {
    return { sec: this.#parts.context.receivedSec, usec: this.#parts.context.receivedUsec }
  }

  #flush(): void {
    this.#overdue = !this.#pages.isEmpty && !this.#pages.canTurn
    if (!this.#pages.isEmpty && !this.#overdue) this.#turn()
  }

  /** The printed page to every output; the next one is free. */
  #turn(): void {
    const printed = this.#pages.turn(this.#queues.length)
    for (const queue of this.#queues) queue.add(printed, this.#parts.tally.printed)
  }

  #room(): Promise<void> {
    return new Promise((resolve) => (this.#turned = resolve))
  }

  #released(printed: PrintedPage): void {
    this.#pages.release(printed)
    if (this.#turned !== null && this.#pages.canTurn) {
      const turned = this.#turned
      this.#turned = null
      turned()
    } else if (this.#overdue) {
      this.#flush()
    }
  }
}

/** The input's next piece, or HELD when it does not come in time for a line that waits for it. */
function orHeld(next: Promise<number>): Promise<number> {
  return new Promise((resolve, fail) => {
    const timer = setTimeout(() => resolve(HELD), HELD_MS)
    next.then(
      (n) => {
        clearTimeout(timer)
        resolve(n)
      },
      (error: unknown) => {
        clearTimeout(timer)
        fail(error)
      },
    )
  })
}

function clear(context: LineContext): void {
  context.expect = null
  context.gap = null
  context.diagnostic = ''
  context.dumpEnd = false
}

function cut(from: number, to: number): Uint8Array {
  return page.slice(from, Math.min(to, from + SHOWN_BYTES))
}

/** Pages on their way to one output, in order, one at a time. */
class OutputQueue {
  readonly output: Output
  isGone = false
  failure = ''
  written = 0
  readonly #release: (page: PrintedPage, gone: boolean) => void
  #last: Promise<void> = Promise.resolve()

  constructor(output: Output, release: (page: PrintedPage, gone: boolean) => void) {
    this.output = output
    this.#release = release
  }

  add(printed: PrintedPage, recordsSoFar: number): void {
    this.#last = this.#last.then(async () => {
      try {
        if (!this.isGone) {
          if (await this.output.write(out.subarray(printed.from, printed.to))) this.written = recordsSoFar
          else this.isGone = true
        }
      } catch (error) {
        const { name } = this.output
        this.failure = `output ${name === '-' ? 'to standard output' : name} failed: ${error instanceof Error ? error.message : String(error)}`
        this.isGone = true
      } finally {
        this.#release(printed, this.isGone)
      }
    })
  }

  drained(): Promise<void> {
    return this.#last
  }
}
