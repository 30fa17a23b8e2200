/**
 * One input on its way through the loop: its lines whole, each given to the format that knows it, and what came out handed on in one synchronous go. A batch is
 * what one read returned. Where inputs are merged by time a source goes record by record instead, and holds the next one until it is the oldest.
 */
import { type FlowEvent as Event, type Gap, type RecordTime, type Time, DESTROY, FlowEvent, NEW, page, SCRATCH_AT, SCRATCH_END, TIME_RECEIVED } from '../event.js'
import { Frame, type LongLine } from '../frame.js'
import { EXPECTATION, NOT_OURS, parseText, UNFINISHED } from '../formats/conntrack-text.js'
import { tornRow } from '../formats/conntrack-notice.js'
import { joinElement, NOT_WHOLE } from '../formats/xml-layout.js'
import { expectation, readExpectation } from '../formats/expectation.js'
import { bytesToScratch, CR, scratchUsed, skipBlanks, useScratchAfresh } from '../formats/scan.js'
import type { FlowCounts } from '../detectors/levels.js'
import type { RecordContext } from '../printers/ndjson.js'
import { CARRIED, EXPECT, FLOW, HELD, IGNORED, type Input, KERNEL, type KernelFacts, type LineContext, type LineFormat, NOTE, type Notice, type Outcome, RECORD, REJECTED_LINE } from '../stage.js'
import { Recognition } from './recognition.js'
import type { Origin, Records } from './records.js'

const LF = 10
/** Of a rejected line so much is shown. */
const SHOWN_BYTES = 1024
/** A line that is as old as its reading is of now; then the clock of the world may go on for the stream. */
const LIVE_SEC = 10
const LAST_PASSES_SEC = 86_400
const NOTHING = new Uint8Array(0)
const encoder = new TextEncoder()

export interface SourceParts {
  readonly input: Input
  readonly context: RecordContext
  readonly lines: LineContext
  /** whether flows in conntrack's text are wanted, and the other formats that are */
  readonly text: boolean
  readonly formats: readonly LineFormat[]
  /** longest accepted line */
  readonly lineBytesMax: number
  /** new in each run: for ids of records that have no position in an input that has positions */
  readonly random: string
  /** what is known of the kernel whose log it may be */
  readonly kernelFacts: KernelFacts
  /** rows of a dump that the program asked for are written too */
  readonly writesDumps: boolean
  readonly diagnose: (message: string) => void
}

/** A record that waits for its turn among several inputs. */
interface WaitingRecord {
  readonly time: Time
  readonly handOn: () => void
}

export class Source implements Origin {
  readonly input: Input
  readonly context: RecordContext
  readonly lines: LineContext
  readonly kernelFacts: KernelFacts
  readonly writesDumps: boolean
  readonly #parts: SourceParts
  readonly #records: Records
  readonly #event: Event = new FlowEvent()
  readonly #recognition = new Recognition()
  readonly #frame: Frame
  /** flow events by kind, for rates */
  readonly events = [0, 0, 0, 0]
  /** something was lost since the last sample */
  hasGap = false
  /** the batch at hand holds rows of a dump that the program asked for */
  isDump = false
  /** the last batch ended in a line that waits for the next, or a format holds some back */
  waits = false
  /** its lines are of now */
  seemsLive = false
  /** batches and bytes so far */
  batches = 0
  bytes = 0
  #lineAt = 0
  /** how many further lines were joined to the one at hand */
  #joined = 0
  #lineNumber = 0
  /** counter for record ids where there is no offset */
  #counter = 0
  /** the lines that formats hold back, oldest first */
  readonly #heldLines: { readonly number: number; readonly offset: number }[] = []
  #lastEvents = [0, 0]
  /** time of the last record that is no flow; 0 there was none with a time of its own */
  #otherSec = 0
  /** where the last line lies that another carried; -1 the line stands alone; and the host that is named there, '' none */
  #carriedAt = -1
  #host = ''
  /** the format that took the line at hand */
  #reader: LineFormat | null = null
  /** what the last line said that was asked how late it is */
  #passed: RecordTime | null = null
  /** the number of the record of a held line that is being handed on, beside the first line's offset; -1 none is */
  #settling = -1
  #settlingFrom = 0
  /** merged: the piece that was read last, how far it is used, and the records that wait for their turn */
  #isMerged = false
  #piece: Uint8Array = NOTHING
  #used = 0
  readonly #waiting: WaitingRecord[] = []
  #ended = false

  constructor(parts: SourceParts, records: Records) {
    this.#parts = parts
    this.#records = records
    this.input = parts.input
    this.context = parts.context
    this.lines = parts.lines
    this.kernelFacts = parts.kernelFacts
    this.writesDumps = parts.writesDumps
    this.#frame = new Frame(parts.input.offset, parts.lineBytesMax)
    this.#event.netns = parts.input.netns
  }

  get linesSoFar(): number {
    return this.#lineNumber
  }

  /** How old the last record was when it was read, in seconds; -1 where lines have no time of their own, or there was none. */
  get lagSeconds(): number {
    const { sec, timeSource } = this.#event
    const last = timeSource === TIME_RECEIVED ? this.#otherSec : Math.max(sec, this.#otherSec)
    return last === 0 ? -1 : Math.max(0, this.lines.receivedSec - last)
  }

  /** Byte offset of the first byte that is not worked through. */
  get offset(): number {
    return this.#heldLines[0]?.offset ?? this.#frame.offset
  }

  /** Takes what the input has just read. The input may read on then. */
  take(n: number): void {
    this.#frame.lay(this.#taken(n))
  }

  /** What was read, and what came with it. */
  #taken(n: number): Uint8Array {
    const { input } = this
    this.isDump = input.isDump
    this.#received()
    this.#records.from(this)
    for (const notice of input.notices) this.#notice(notice)
    if (n <= 0) return NOTHING
    this.#records.tally.bytes += n
    this.bytes += n
    return input.chunk.subarray(0, n)
  }

  /** Works through what is laid. `final`: no line waits for the next one any longer. */
  async batch(final: boolean): Promise<void> {
    const frame = this.#frame
    const { channels } = this.#records
    this.batches++
    this.#records.from(this)
    // named by the place of its LF
    this.#lineAt = frame.at - 1
    if (frame.longLine !== null) this.#longLine(frame.longLine)
    this.#lineAt = frame.at
    let waits = false
    while (this.#lineAt < frame.end && !waits) {
      waits = this.#lines(frame.end, final)
      // the loop works through one batch at a time: nobody else lays anything meanwhile
      if (channels.isFull) {
        const turn = channels.turn()
        if (turn !== null) await turn
        if (channels.isGone) break
      }
    }
    frame.keep(this.#lineAt)
    if (final) this.#settle()
    this.waits = waits || this.#heldLines.length > 0
  }

  /** The second half of what waits did not come in time. */
  giveUpWaiting(): Promise<void> {
    this.isDump = false
    this.#frame.lay(NOTHING)
    return this.batch(true)
  }

  /** The input is at its end: what is left is a line. */
  async finish(): Promise<void> {
    const { isCutOff = false } = this.input
    const goesOn = isCutOff && this.input.position(this.#frame.offset) !== null
    this.#endFrame()
    this.#received()
    if (goesOn) this.#leaveHeld()
    else await this.batch(true)
    this.#passLast()
    this.#tellUnknown()
  }

  /** What waits for lines that are read later is read again with them, and is no line yet. */
  #leaveHeld(): void {
    const { tally } = this.#records
    tally.lines -= this.#heldLines.length
    tally.held -= this.#heldLines.length
  }

  #tellUnknown(): void {
    const sentence = this.#recognition.sentence([...(this.#parts.text ? ['conntrack-text'] : []), ...this.#parts.formats.map(({ name }) => name)])
    if (sentence !== '') this.#parts.diagnose(sentence)
  }

  /** What is left is a line, unless its rest is known to be missing. */
  #endFrame(): void {
    const { lineRest: rest, isCutOff } = this.input
    if (isCutOff === true) this.#frame.drop()
    else if (rest === undefined) this.#frame.finish()
    else {
      this.#frame.lay(rest)
      this.#records.tally.bytes += rest.length
    }
  }

  /** The time of the next record, of an input that ends; null at the end. What has no time is handed on at once. */
  async peek(): Promise<Time | null> {
    const { channels } = this.#records
    this.#isMerged = true
    while (this.#waiting.length === 0 && !this.#ended) {
      if (channels.isFull) await channels.turn()
      if (channels.isGone) return null
      if (this.#used === this.#piece.length && !(await this.#nextPiece())) continue
      this.#records.from(this)
      const lf = this.#piece.indexOf(LF, this.#used)
      const to = lf < 0 ? this.#piece.length : lf + 1
      this.#frame.lay(this.#piece.subarray(this.#used, to))
      this.#used = to
      this.#toNextRecord(false)
    }
    return this.#waiting[0]?.time ?? null
  }

  /** Hands on the record whose time `peek` gave. */
  handOn(): void {
    this.#records.from(this)
    this.#waiting.shift()!.handOn()
  }

  /** False when there is no piece to look at: notices alone, or the end. */
  async #nextPiece(): Promise<boolean> {
    const n = await this.input.next()
    this.#piece = this.#taken(n)
    this.#used = 0
    if (n === 0) {
      this.#ended = true
      this.#endFrame()
      this.#toNextRecord(true)
      this.#passLast()
      this.#tellUnknown()
    }
    return n > 0
  }

  /** Works through what is laid; the records wait. */
  #toNextRecord(final: boolean): void {
    const frame = this.#frame
    this.#lineAt = frame.at - 1
    if (frame.longLine !== null) this.#longLine(frame.longLine)
    this.#lineAt = frame.at
    while (this.#lineAt < frame.end) {
      useScratchAfresh()
      const at = this.#lineAt
      const next = parseText(at, frame.end, this.#event, this.lines)
      if (next === UNFINISHED && !final) break
      if (next > 0 && this.#parts.text) {
        this.#records.tally.lines++
        this.#lineNumber++
        if (this.lines.extraLines !== 0) this.#extraLines()
        this.#carriedAt = -1
        this.#host = ''
        this.#recognition.understood()
        this.#wait(FLOW, this.#event, at, next)
        this.#lineAt = next
        continue
      }
      const mended = this.#mend(at, frame.end, final)
      if (mended === UNFINISHED) break
      this.#lineAt = mended
      if (mended !== at) continue
      const { outcome, behind } = this.#otherLine(at, frame.end, next)
      const { expect, kernel, gap, sample, record } = this.lines
      const time = outcome === FLOW ? this.#event : outcome === EXPECT ? expect : outcome === KERNEL ? kernel : outcome === NOTE ? (gap ?? sample) : outcome === RECORD ? record : null
      if (time === null) this.#handle(outcome, at, behind)
      else this.#wait(outcome, time, at, behind)
      this.#lineAt = behind
    }
    frame.keep(this.#lineAt)
    if (final) this.#settle()
  }

  /**
   * The one event, its context and the page serve every line: what this record needs of them is kept until its turn. A piece is a line, so a second flow waits
   * only where the end of the input let go of two at once; it is read again then.
   */
  #wait(outcome: Outcome, at: Time | RecordTime, lineAt: number, behind: number): void {
    const bytes = page.slice(lineAt, behind)
    const scratch = page.slice(SCRATCH_AT, SCRATCH_AT + scratchUsed())
    const { expect, kernel, gap, sample, record, dumpEnd, diagnostic } = this.lines
    const { from = 0, to = 0 } = record ?? {}
    const offset = this.#frame.offset + lineAt - this.#frame.at
    const { isDump } = this
    const isOnly = this.#waiting.length === 0
    const carriedAt = outcome === FLOW ? this.#carriedAt : -1
    const host = this.#host
    const time = { sec: at.sec, usec: at.usec, ...('timeSource' in at ? { timeSource: at.timeSource } : {}) }
    const { tally } = this.#records
    tally.held++
    this.#waiting.push({
      time,
      handOn: () => {
        tally.held--
        page.set(bytes, lineAt)
        page.set(scratch, SCRATCH_AT)
        if (outcome === FLOW && !isOnly) {
          if (carriedAt < 0) parseText(lineAt, behind, this.#event, this.lines)
          else parseText(carriedAt, SCRATCH_END, this.#event, this.lines)
          Object.assign(this.#event, time)
        }
        record?.read(page, from, to)
        Object.assign(this.lines, { expect, kernel, gap, sample, record, dumpEnd, diagnostic })
        this.isDump = isDump
        this.#host = host
        // its id is made of the offset that it had
        this.#lineAt = offset - this.#frame.offset + this.#frame.at
        this.#handle(outcome, lineAt, behind)
      },
    })
  }

  /** Lines up to `end`, or until a page is full. True when the line at hand waits for the next one. */
  #lines(end: number, final: boolean): boolean {
    const records = this.#records
    const { text } = this.#parts
    const { channels, printer, tally, allFlows } = records
    const context = this.lines
    const event = this.#event
    let p = this.#lineAt
    let held = this.#heldLines.length > 0
    let flows = 0
    let waits = false
    while (p < end) {
      const next = parseText(p, end, event, context)
      if (next > 0 && text) {
        flows++
        this.#lineAt = p
        if (context.extraLines !== 0) this.#extraLines()
        if (held) {
          this.#settleBefore(null)
          held = false
        }
        records.follow(event, this)
        p = next
        if (allFlows) {
          channels.flow()
          printer.flow(event, this.rid())
          if (channels.isFull) break
        } else {
          records.flow(event, this)
          if (channels.isFull) break
        }
      } else if (next === UNFINISHED && !final) {
        waits = true
        break
      } else {
        this.#lineAt = p
        tally.lines += flows
        tally.flows += flows
        this.#lineNumber += flows
        if (flows > 0) this.#recognition.understood()
        flows = 0
        const mended = this.#mend(p, end, final)
        if (mended === UNFINISHED) {
          waits = true
          break
        }
        if (mended === p) {
          const { outcome, behind } = this.#otherLine(p, end, next)
          this.#handle(outcome, p, behind)
          p = behind
          held = this.#heldLines.length > 0
        } else {
          p = mended
        }
        if (channels.isFull) break
      }
    }
    this.#lineAt = p
    tally.lines += flows
    tally.flows += flows
    this.#lineNumber += flows
    if (flows > 0) this.#recognition.understood()
    channels.endFlows()
    return waits
  }

  /**
   * A row with the tool's closing sum in its middle becomes whole: its first part is moved up to the second; and a `<flow>` over many lines becomes one line. Gives
   * where the line begins then.
   */
  #mend(at: number, end: number, final: boolean): number {
    const lineEnd = page.indexOf(LF, at)
    const torn = tornRow(at, lineEnd)
    this.#joined = 0
    if (torn === null) {
      const joined = joinElement(at, end)
      if (joined === NOT_WHOLE) return final ? at : UNFINISHED
      this.#joined = joined
      return at
    }
    if (lineEnd + 1 >= end) return final ? at : UNFINISHED
    const { tally, tracker } = this.#records
    tally.lines++
    tally.ignored++
    this.#lineNumber++
    tracker.dumpShown(torn.shown)
    page.copyWithin(lineEnd + 1 - torn.headBytes, at, at + torn.headBytes)
    return lineEnd + 1 - torn.headBytes
  }

  /** A line that is no flow in conntrack's text: what it is, counted among the lines, and the offset behind it. */
  #otherLine(at: number, end: number, said: number): { outcome: Outcome; behind: number } {
    const { text, formats } = this.#parts
    const context = this.lines
    const event = this.#event
    const lineEnd = page.indexOf(LF, at)
    const behind = Math.min(lineEnd + 1, end)
    clear(context)
    context.asksTime = this.#records.asksTime
    this.#carriedAt = -1
    this.#host = ''
    if (lineEnd - at > this.#parts.lineBytesMax) {
      this.#longLine({ text: page.slice(at, at + SHOWN_BYTES), bytes: lineEnd - at })
      return { outcome: LONG_LINE, behind }
    }
    this.#records.tally.lines += 1 + this.#joined
    this.#records.tally.ignored += this.#joined
    this.#lineNumber += 1 + this.#joined
    let outcome: Outcome = said === NOT_OURS || !text ? IGNORED : REJECTED_LINE
    this.#reader = null
    if (said > 0) {
      outcome = IGNORED
    } else if (said === EXPECTATION) {
      outcome = !formats.includes(expectation) ? IGNORED : readExpectation(context.bodyAt, lineEnd, event, context)
    } else if (said === NOT_OURS) {
      outcome = this.#byFormat(at, lineEnd)
      if (outcome === CARRIED) outcome = this.#carried()
    } else if (said === UNFINISHED) {
      context.reason = 'no reply tuple'
    }
    // the last format takes whatever comes
    const isKnown = outcome !== REJECTED_LINE && (outcome !== IGNORED || said !== NOT_OURS || (this.#reader !== null && this.#reader !== formats.at(-1)))
    if (isKnown) this.#recognition.understood()
    else this.#recognition.unknown(this.#lineNumber, page, at, lineEnd)
    if (context.settled.length > 0) this.#settled()
    if (context.passed !== null) this.#pass(context.passed)
    if (outcome === HELD) {
      this.#records.tally.held++
      this.#heldLines.push({ number: this.#lineNumber - this.#joined, offset: this.#frame.offset + at - this.#frame.at })
    }
    return { outcome, behind }
  }

  #byFormat(at: number, lineEnd: number): Outcome {
    const indented = skipBlanks(at)
    for (const format of this.#parts.formats) {
      const from = format.mayBeIndented === true ? indented : at
      if (!format.begins(from)) continue
      this.#reader = format
      const outcome = format.read(from, lineEnd, this.#event, this.lines)
      // what is carried says itself whose it is
      if (this.#heldLines.length > 0 && outcome !== CARRIED) {
        const own = this.lines.settled.splice(0)
        this.#settleBefore(format)
        this.lines.settled.push(...own)
      }
      return outcome
    }
    return IGNORED
  }

  /** A line within a line, and one within that: each is laid into the scratch and read as if it stood alone, at the time of the innermost that has one. */
  #carried(): Outcome {
    const context = this.lines
    const event = this.#event
    const { text, formats } = this.#parts
    const { receivedSec, receivedUsec } = context
    let time: RecordTime | null = null
    let outcome: Outcome = CARRIED
    for (let depth = 0; outcome === CARRIED && depth < CARRIERS_MAX; depth++) {
      const carried = context.carried!
      context.carried = null
      time = carried.time ?? time
      if (carried.host !== '') context.host = carried.host
      if (time !== null) {
        context.receivedSec = time.sec
        context.receivedUsec = time.usec
        context.within = time
      }
      const bytes = encoder.encode(`${carried.text}\n`)
      const at = bytesToScratch(bytes)
      const lineEnd = at + bytes.length - 1
      const said = parseText(at, lineEnd + 1, event, context)
      this.#carriedAt = at
      if (said > 0) outcome = text ? FLOW : IGNORED
      else if (said === EXPECTATION) outcome = formats.includes(expectation) ? readExpectation(context.bodyAt, lineEnd, event, context) : IGNORED
      else if (said === NOT_OURS) outcome = this.#byFormat(at, lineEnd)
      else {
        if (said === UNFINISHED) context.reason = 'no reply tuple'
        outcome = text ? REJECTED_LINE : IGNORED
      }
    }
    context.receivedSec = receivedSec
    context.receivedUsec = receivedUsec
    context.within = null
    this.#ofCarriersHost()
    if (time !== null) this.#atCarriersTime(outcome, time)
    if (outcome === IGNORED && context.asksTime) context.passed ??= time
    return outcome === CARRIED ? IGNORED : outcome
  }

  /** Kernel lines have asked for it themselves. */
  #ofCarriersHost(): void {
    const context = this.lines
    this.#host = context.host
    context.host = ''
    const { sample, gap } = context
    if (this.#host === '') return
    if (sample !== null) context.sample = { ...sample, host: sample.host || this.#host }
    if (gap !== null) context.gap = { ...gap, host: gap.host || this.#host }
  }

  /** A time of the line's own wins over its carrier's. Kernel lines have asked for it themselves. */
  #atCarriersTime(outcome: Outcome, time: RecordTime): void {
    const context = this.lines
    const event = this.#event
    const { expect, gap, sample } = context
    if (outcome === FLOW && event.timeSource === TIME_RECEIVED) {
      event.sec = time.sec
      event.usec = time.usec
      event.timeSource = time.timeSource
    }
    if (expect?.timeSource === TIME_RECEIVED) context.expect = { ...expect, ...time }
    if (gap?.timeSource === TIME_RECEIVED) context.gap = { ...gap, ...time }
    if (sample?.timeSource === TIME_RECEIVED) context.sample = { ...sample, ...time }
  }

  #hasTime({ sec, timeSource }: RecordTime): void {
    if (timeSource !== TIME_RECEIVED) this.#otherSec = sec
  }

  /** Counts what a line became, and hands it on. */
  #handle(outcome: Outcome, at: number, behind: number): void {
    const { tally, tracker } = this.#records
    const context = this.lines
    switch (outcome) {
      case FLOW:
        tally.flows++
        this.#records.follow(this.#event, this)
        this.#records.flow(this.#event, this, this.#host)
        break
      case EXPECT:
        tally.expects++
        this.#records.expect(context.expect!, this, this.#host)
        this.#hasTime(context.expect!)
        break
      case KERNEL:
        tally.kernel++
        this.#records.kernel(context.kernel!, this)
        this.#hasTime(context.kernel!)
        break
      case NOTE:
        tally.notes++
        if (context.gap !== null) this.#records.gap(context.gap, this, 'g')
        if (context.sample !== null) {
          this.#records.sample(context.sample, this)
          this.#hasTime(context.sample)
        }
        break
      case RECORD:
        tally.own(context.record!.type, context.record!.keys)
        this.#records.passOn(context.record!, context.kernel, context.sample, this)
        break
      case IGNORED:
        tally.ignored++
        break
      case REJECTED_LINE: {
        tally.rejected++
        // an LF ends it, or CR and LF
        const length = behind - (page[behind - 2] === CR ? 2 : 1) - at
        this.#records.reject(
          { ...this.#receivedTime(), line: this.#lineNumber - this.#joined, reason: context.reason, text: page.slice(at, at + Math.min(length, SHOWN_BYTES)), bytes: length > SHOWN_BYTES ? length : -1 },
          this,
        )
      }
    }
    if (context.dumpEnd === true) tracker.dumpEnds()
    else if (context.dumpEnd !== false) tracker.dumpShown(context.dumpEnd)
    if (context.diagnostic !== '') this.#parts.diagnose(context.diagnostic)
    this.#tellTime()
  }

  /** Lines that a format held back and has made up its mind about; their records come before the line at hand. */
  #settled(): void {
    const { tally } = this.#records
    const lines = this.lines.settled.splice(0)
    tally.held -= lines.length
    const heldFrom = this.offset
    for (const [i, line] of lines.entries()) {
      const number = this.#heldLines.shift()?.number ?? this.#lineNumber
      const time = line.outcome === KERNEL ? line.kernel : line.outcome === NOTE ? (line.gap ?? line.sample) : line.record
      if (line.record !== null) tally.own(line.record.type, line.record.keys)
      else if (line.outcome === KERNEL) tally.kernel++
      else if (line.outcome === NOTE) tally.notes++
      if (time !== null) {
        const handOn = (): void => {
          this.#settling = i
          this.#settlingFrom = heldFrom
          if (line.record !== null) this.#records.passOn(line.record, line.kernel, line.sample, this)
          else if (line.outcome === KERNEL) this.#records.kernel(line.kernel!, this)
          else if (line.gap !== null) this.#records.gap(line.gap, this, 'g')
          else this.#records.sample(line.sample!, this)
          this.#settling = -1
        }
        if (this.#isMerged) this.#waiting.push({ time: { sec: time.sec, usec: time.usec }, handOn })
        else handOn()
      } else if (line.outcome === REJECTED_LINE) {
        tally.rejected++
        this.#records.reject({ ...this.#receivedTime(), line: number, reason: line.reason, text: encoder.encode(line.text.replace(/\r$/, '')).subarray(0, SHOWN_BYTES), bytes: -1 }, this)
      } else {
        tally.ignored++
      }
    }
  }

  #settle(): void {
    for (const format of this.#parts.formats) format.settle?.(this.lines)
    if (this.lines.settled.length > 0) this.#settled()
    if (this.lines.passed !== null) this.#pass(this.lines.passed)
    this.#heldLines.length = 0
  }

  /** One stamp may be wrong: time goes on as far as two lines say, one behind the other. */
  #pass(time: RecordTime): void {
    const before = this.#passed
    this.lines.passed = null
    this.#passed = time
    if (before !== null) this.#passTo(before.sec < time.sec || (before.sec === time.sec && before.usec < time.usec) ? before : time)
  }

  /** Behind the last line comes none that could say so too: it is believed for a day. */
  #passLast(): void {
    const last = this.#passed
    this.#passed = null
    if (last !== null && last.sec <= this.#records.clockSec + LAST_PASSES_SEC) this.#passTo(last)
  }

  #passTo(time: RecordTime): void {
    if (!this.#isMerged) this.#records.pass(time, this)
    else if (time.sec > this.#records.clockSec) this.#waiting.push({ time, handOn: () => this.#records.pass(time, this) })
  }

  /** A line of another format makes whole what some of them hold. */
  #settleBefore(format: LineFormat | null): void {
    for (const other of this.#parts.formats) if (other.endsAtOthers === true && other !== format) other.settle?.(this.lines)
    if (this.lines.settled.length > 0) this.#settled()
  }

  #notice(notice: Notice): void {
    if (notice.gap !== undefined) this.#records.gap(notice.gap, this, 'g')
    if (notice.sample !== undefined) {
      this.#records.sample(notice.sample, this)
      this.#hasTime(notice.sample)
    }
    if (notice.dump === 'begins') this.#records.tracker.dumpBegins(this.input.netns)
    else if (notice.dump !== undefined) this.#records.tracker.dumpEnded(this.input.netns, notice.dump === 'ends')
    if (notice.longLine !== undefined) this.#longLine(notice.longLine)
    if (notice.diagnostic !== undefined) this.#parts.diagnose(notice.diagnostic)
  }

  #extraLines(): void {
    this.#records.tally.lines += this.lines.extraLines
    this.#records.tally.ignored += this.lines.extraLines
    this.#lineNumber += this.lines.extraLines
  }

  /** One reject and one gap. */
  #longLine(line: LongLine): void {
    const { tally } = this.#records
    tally.lines++
    tally.rejected++
    this.#lineNumber++
    this.#records.reject({ ...this.#receivedTime(), line: this.#lineNumber, reason: `longer than ${this.#parts.lineBytesMax} bytes`, text: line.text, bytes: line.bytes }, this)
    const gap: Gap = { ...this.#receivedTime(), timeSource: TIME_RECEIVED, cause: 'line_too_long', count: 1, atLeast: -1, from: null, to: null }
    this.#records.gap(gap, this, 'g')
  }

  /** The number in a record's id: the offset of its line, or one more than the last. */
  rid(): number {
    return this.input.ridBy === 'offset' ? this.#frame.offset + this.#lineAt - this.#frame.at : ++this.#counter
  }

  /** As text, for records that a line held back may give; `position` where the event has one of its own. */
  ridOf(position: string): string {
    if (this.input.ridBy === 'position') return position === '' ? `${this.#parts.random}.${++this.#counter}` : position
    if (this.#settling < 0 || this.input.ridBy !== 'offset') return String(this.rid())
    return this.#settling === 0 ? String(this.#settlingFrom) : `${this.#settlingFrom}.${this.#settling}`
  }

  /** New flows and ended ones of the namespace since the last call, where this input is the one that tells of them. */
  takeFlows(): FlowCounts {
    const [news, destroys] = [this.events[NEW]!, this.events[DESTROY]!]
    const taken = { new: news - this.#lastEvents[0]!, destroy: destroys - this.#lastEvents[1]!, whole: !this.hasGap }
    this.#lastEvents = [news, destroys]
    this.hasGap = false
    return taken
  }

  get receivedSec(): number {
    return this.lines.receivedSec
  }

  #received(): void {
    const at = this.input.receivedMicroseconds()
    this.lines.receivedSec = Math.floor(at / 1e6)
    this.lines.receivedUsec = Math.floor(at - this.lines.receivedSec * 1e6)
  }

  #receivedTime(): Time {
    return { sec: this.lines.receivedSec, usec: this.lines.receivedUsec }
  }

  #tellTime(): void {
    this.seemsLive = Math.abs(this.lines.receivedSec - this.#records.clockSec) <= LIVE_SEC
  }
}

/** A service's JSON in a unit's journal in a central syslog in a container's file. */
const CARRIERS_MAX = 6

/** The line is counted already. */
const LONG_LINE = 0 as Outcome

function clear(context: LineContext): void {
  context.expect = null
  context.gap = null
  context.kernel = null
  context.sample = null
  context.record = null
  context.carried = null
  context.passed = null
  context.diagnostic = ''
  context.dumpEnd = false
}
