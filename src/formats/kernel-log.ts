/**
 * Lines of a kernel's log in any carrier, told apart line by line: /dev/kmsg, /proc/kmsg, dmesg, journalctl's text forms, syslog files. JSON and the journal's
 * export format have files of their own. It takes every line that is offered, so it is asked last.
 */
import { type KernelEvent, page, type RecordTime, TIME_ESTIMATED, TIME_LOCAL, TIME_NEIGHBOUR, TIME_RECEIVED } from '../event.js'
import { CARRIED, HELD, IGNORED, KERNEL, type LineContext, type LineFormat, NOTE, type Outcome, REJECTED_LINE } from '../stage.js'
import { behindUnread, type Carrier, hostOf, KERNEL_PROGRAM, type KmsgRecord, LINE_MAX, readCarrier, readKmsg } from './kernel-log/carrier.js'
import { Carriers } from './kernel-log/carried.js'
import { bootTime, receivedTime, timeOf, wallTime } from './kernel-log/clock.js'
import { type Finding, give, HeldLines, NOTHING } from './kernel-log/held.js'
import { journalEntry } from './kernel-log/journal-entry.js'
import { isBeginning, isInteresting, kernelMessage, lossNotice, mayBeCut, type Origin } from './kernel-log/message.js'
import { CR, isAt, skipBlanks, SPACE, utf8 } from './scan.js'

const LAST_REPEATED = /^last message repeated (\d{1,9}) times?/
/** dmesg's relative times, behind colours and a decoded priority: each line counts, whatever it says. */
const RELATIVE = /^(?:\x1b\[[0-9;]*m)*(?:[a-z0-9]+ *:[a-z]+ *: )?(?:\x1b\[[0-9;]*m)*\[(?: *\+\d|[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d\])/
/** The header of a record of /dev/kmsg that is whole in itself: almost all are, and most are none of ours. */
const WHOLE_KMSG = /^\d{1,4},\d{1,20},\d{1,16}(?:,-[^;]*)?;/
const QUOTE = 62
/** Of a line that is too long so much is looked at. */
const BEGINNING_CHARACTERS = 256
const FIELD_INDENT = '    '
/** journalctl indents the further lines of a program's message to behind its head, which is a date, a host and a name. */
const CONTINUATION_INDENT = 16
/** How mail programs mark what they quote. */
const QUOTED = /^(?:> ?)+/
/** So many lines may wait for one whose time is known, and so many lines of whatever kind long. */
const UNDATED_MAX = 16
const UNDATED_LINES_MAX = 64
/** A priority and a date with its time to the second: lines that begin alike for so long are of the same moment. */
const STAMP_CHARACTERS = 25

/** One for each input. */
export function kernelLog(): LineFormat {
  return new KernelLog()
}

class KernelLog implements LineFormat {
  readonly name = 'kernel-log'
  /** microseconds since the epoch of the last line with a relative time; NaN before the first whole one */
  #relative = NaN
  /** the line before, where it was ours: loggers fold what follows into `last message repeated` */
  #last: { readonly event: KernelEvent; readonly host: string } | null = null
  /** pieces of one line that the kernel printed in several records, put together */
  #fragments: KmsgRecord | null = null
  readonly #fragmentLines = new HeldLines()
  /** an entry in the journal's verbose form */
  #entry: Map<string, string> | null = null
  #entryCarrier: Carrier | null = null
  readonly #entryLines = new HeldLines()
  readonly #carriers = new Carriers()
  /** the beginning of a message that a line break cut */
  #begun: Carrier | null = null
  /** the last time that a line told, and what the kernel's clock said then, -1 not known */
  #neighbour: { readonly time: RecordTime; readonly monotonic: number } | null = null
  /** lines before the first such */
  #undated: KernelEvent[] = []
  #linesSinceUndated = 0
  /** how the last line began that was asked for its time */
  #askedHead = '\n'

  begins(): boolean {
    return true
  }

  read(at: number, lineEnd: number, _event: unknown, context: LineContext): Outcome {
    const first = page[at]
    if (this.#entry !== null) {
      if (first === SPACE && isAt(at, FIELD_INDENT)) return this.#entryField(at, lineEnd)
      this.#settleEntry(context)
    }
    // the second: of the journal's export format, whose entry began before the stream did
    if (lineEnd - at > LINE_MAX) return this.#carriers.findLong(utf8(at, at + BEGINNING_CHARACTERS), context) === 'part' ? HELD : this.#otherLine('', context)
    if (isAt(at, 'MESSAGE=')) return this.#otherLine('', context)
    const from = skipBlanks(at)
    const whole = utf8(from, page[lineEnd - 1] === CR ? lineEnd - 1 : lineEnd)
    const line = first === QUOTE ? whole.replace(QUOTED, '') : whole
    if (this.#undated.length !== 0 && ++this.#linesSinceUndated > UNDATED_LINES_MAX) this.#date(context)
    if (this.#begun !== null) {
      const outcome = this.#goOn(line, context)
      if (outcome !== null) return outcome
    }
    // the further lines of a record, kmsg's keys, blank lines
    if (line === '') return IGNORED
    if (first! >= 48 && first! <= 57) {
      if (this.#fragments === null && WHOLE_KMSG.test(line) && !isInteresting(line)) return this.#otherLine(line, context)
      const record = readKmsg(line)
      if (record === 'broken') {
        context.reason = 'breaks the grammar of a /dev/kmsg record'
        this.#last = null
        return REJECTED_LINE
      }
      if (record !== null) return this.#kmsg(record, line, context)
    }
    const carried = this.#carriers.find(line, context)
    if (carried === 'part') return HELD
    if (carried === 'rest') return this.#otherLine('', context)
    if (carried !== null) {
      context.carried = carried
      return CARRIED
    }
    if (RELATIVE.test(line)) this.#follow(readCarrier(line), context)
    if (page[lineEnd - 1] === 93 && line.includes(' [s=') && this.#beginEntry(line)) return HELD
    if (!isInteresting(line) && !mayBeCut(line) && (this.#last === null || !line.includes('last message '))) return this.#otherLine(line, context)
    const carrier = readCarrier(line)
    if (from - at >= CONTINUATION_INDENT && carrier.text === line) return this.#otherLine('', context)
    return this.#give(carrier, context)
  }

  settle(context: LineContext): void {
    this.#giveUpBegun(context)
    this.#settleFragments(context)
    this.#settleEntry(context)
    this.#date(context)
    this.#carriers.settle(context)
  }

  #otherLine(line: string, context: LineContext): Outcome {
    this.#last = null
    if (context.asksTime && !line.startsWith(this.#askedHead)) this.#pass(line, context)
    return IGNORED
  }

  /** How late it is by a line that is none of ours. Those with the same stamp are asked once. */
  #pass(line: string, context: LineContext): void {
    this.#askedHead = line.slice(0, STAMP_CHARACTERS)
    const kmsg = readKmsg(line)
    if (kmsg === 'broken') return
    const carrier = kmsg ?? readCarrier(line)
    if (carrier.stamp === null && carrier.monotonic < 0 && context.within === null) return
    const time = this.#timeOf(carrier, context)
    if (time.timeSource !== TIME_RECEIVED && time.timeSource !== TIME_NEIGHBOUR) context.passed = time
  }

  #give(carrier: Carrier, context: LineContext): Outcome {
    const found = this.#find(carrier, context)
    const { kernel } = found
    this.#last = kernel === null ? null : { event: kernel, host: carrier.host }
    if (kernel === null && found.outcome === IGNORED && isKernels(carrier) && isBeginning(carrier.text)) {
      this.#begun = carrier
      return HELD
    }
    if (kernel !== null && this.#waitsForTime(kernel, carrier)) return HELD
    if (kernel !== null && this.#undated.length !== 0) this.#date(context)
    return give(found, context)
  }

  /** The line behind the beginning of a message: null when it is another. The message counts at its first line. */
  #goOn(line: string, context: LineContext): Outcome | null {
    const begun = this.#begun!
    // quoted-printable marks a soft break so
    const head = begun.text.trimEnd().replace(/=$/, '')
    for (const text of [`${head} ${line}`, head + line]) {
      const found = this.#find({ ...begun, text }, context)
      if (found.kernel !== null) {
        this.#begun = null
        this.#last = { event: found.kernel, host: begun.host }
        if (!this.#waitsForTime(found.kernel, begun)) {
          this.#date(context)
          context.settled.push({ ...found, reason: '', text: '' })
        }
        return IGNORED
      }
      if (line !== '' && isBeginning(text)) {
        this.#begun = { ...begun, text }
        return IGNORED
      }
    }
    this.#giveUpBegun(context)
    return null
  }

  #giveUpBegun(context: LineContext): void {
    if (this.#begun === null) return
    // the lines that are held come out in their order
    this.#date(context)
    context.settled.push({ ...NOTHING, reason: '', text: '' })
    this.#begun = null
  }

  /** A line without a time of its own takes that of its neighbours: of the next that has one, where none was before. */
  #waitsForTime(kernel: KernelEvent, { unread, monotonic, stamp }: Carrier): boolean {
    const isUntold = kernel.timeSource === TIME_RECEIVED || kernel.timeSource === TIME_ESTIMATED
    if (!isUntold || !(unread || monotonic >= 0 || stamp !== null) || this.#neighbour !== null || this.#undated.length >= UNDATED_MAX) return false
    this.#undated.push(kernel)
    return true
  }

  /** Lets go of those lines. */
  #date(context: LineContext): void {
    for (const kernel of this.#undated) {
      const near = this.#neighbour
      const time = near === null ? null : neighbourTime(near, kernel.monotonic)
      context.settled.push({ ...NOTHING, outcome: KERNEL, kernel: time === null ? kernel : { ...kernel, ...time }, reason: '', text: '' })
    }
    this.#undated = []
    this.#linesSinceUndated = 0
  }

  #find(carrier: Carrier, context: LineContext): Finding {
    const { program, host, facility, trusted } = carrier
    const repeated = LAST_REPEATED.exec(carrier.text)
    if (repeated !== null) return this.#last === null || this.#last.host !== host ? NOTHING : this.#again(this.#last.event, Number(repeated[1]), carrier, context)
    // a process wrote it into /dev/kmsg; what a logger wrote has any facility, for some forward the kernel as `user` or `local0`
    if (isKernels(carrier) && facility > 0 && trusted) return NOTHING
    const time = this.#timeOf(carrier, context)
    // where nothing stands before the text, any logger may have said it
    const speaker = program !== '' || (carrier.stamp === null && carrier.monotonic < 0) ? program : KERNEL_PROGRAM
    const kernel = isKernels(carrier) ? kernelMessage(carrier.text, originOf(carrier, time, context)) : null
    if (kernel !== null) {
      if (time.timeSource !== TIME_NEIGHBOUR && time.timeSource !== TIME_RECEIVED && time.timeSource !== TIME_ESTIMATED) this.#neighbour = { time, monotonic: carrier.monotonic }
      return { ...NOTHING, outcome: KERNEL, kernel }
    }
    const gap = lossNotice(speaker, carrier.text, { time, host: hostOf(host, context) })
    if (gap !== null) return { ...NOTHING, outcome: NOTE, gap }
    return program === '' && carrier.seq < 0 ? this.#findBehind(carrier, context) : NOTHING
  }

  /** What stands before the kernel's text is none of the forms that are known: the line counts all the same. */
  #findBehind(carrier: Carrier, context: LineContext): Finding {
    for (const each of behindUnread(carrier)) {
      const kernel = kernelMessage(each.text, originOf(each, this.#timeOf(each, context), context))
      // a log rule's prefix may hold anything, and so does not tell where the kernel begins
      if (kernel === null || (kernel.kind === 'packet_log' && each.program !== KERNEL_PROGRAM)) continue
      Object.assign(carrier, each)
      return { ...NOTHING, outcome: KERNEL, kernel }
    }
    return NOTHING
  }

  /** The line before, so many times more. */
  #again(event: KernelEvent, repeat: number, carrier: Carrier, context: LineContext): Finding {
    const kernel = { ...event, ...this.#timeOf(carrier, context), repeat, seq: -1, monotonic: -1, position: '' }
    return { ...NOTHING, outcome: KERNEL, kernel }
  }

  /** The line's own absolute time before the kernel's clock, and that before the time of receipt. */
  #timeOf(carrier: Carrier, context: LineContext): RecordTime {
    const { stamp, monotonic, unread } = carrier
    let time: RecordTime | null = null
    if (stamp?.kind === 'wall') time = wallTime(stamp.clock, context)
    else if (stamp?.kind === 'unix') time = timeOf(stamp.microseconds, stamp.source)
    else if (stamp !== null && !Number.isNaN(this.#relative)) time = timeOf(this.#relative, TIME_LOCAL)
    time ??= context.within
    if (time === null && monotonic >= 0) time = bootTime(monotonic, context)
    // a line with both clocks knows more of the kernel's than the age of a file
    if ((time === null || time.timeSource === TIME_ESTIMATED) && (unread || stamp !== null || monotonic >= 0) && this.#neighbour !== null) {
      time = neighbourTime(this.#neighbour, monotonic)
    }
    return time ?? receivedTime(context)
  }

  /** dmesg says the minute, then how much later each line is. */
  #follow({ stamp }: Carrier, context: LineContext): void {
    if (stamp?.kind === 'minute') {
      const time = wallTime(stamp.clock, context)
      this.#relative = time === null ? NaN : time.sec * 1e6
    } else if (stamp?.kind === 'plus') {
      this.#relative += stamp.microseconds
    }
  }

  /**
   * To 4.9 `c` begins a line that is printed in pieces and `+` goes on with it; since then every piece that could not be joined has `c`. So a `c` behind a `c`
   * begins anew only where what is there is whole.
   */
  #kmsg(record: KmsgRecord, line: string, context: LineContext): Outcome {
    const before = this.#fragments
    if (before !== null && record.flag !== '-' && record.caller === before.caller && record.facility === before.facility && before.text.length < LINE_MAX) {
      if (record.flag === '+' || kernelMessage(before.text.trimEnd(), originOf(before, receivedTime(context), context)) === null) {
        before.text += record.text
        this.#fragmentLines.hold(line)
        return HELD
      }
    }
    this.#settleFragments(context)
    if (record.flag === 'c') {
      this.#fragments = record
      this.#fragmentLines.hold(line)
      return HELD
    }
    if (!isInteresting(record.text)) return this.#otherLine(line, context)
    return this.#give(record, context)
  }

  #settleFragments(context: LineContext): void {
    if (this.#fragments === null) return
    this.#fragmentLines.settle(context, this.#find(this.#fragments, context))
    this.#fragments = null
  }

  #beginEntry(line: string): boolean {
    const carrier = readCarrier(line)
    if (carrier.cursor === '') return false
    this.#last = null
    this.#entryCarrier = carrier
    this.#entry = new Map([['__CURSOR', carrier.cursor]])
    this.#entryLines.hold(line)
    return true
  }

  #entryField(at: number, lineEnd: number): Outcome {
    const line = utf8(at, Math.min(lineEnd, at + LINE_MAX))
    const equals = line.indexOf('=')
    const name = line.slice(FIELD_INDENT.length, equals)
    // further lines of a value are indented more
    if (equals > 0 && /^[A-Z_][A-Z0-9_]*$/.test(name) && !this.#entry!.has(name)) this.#entry!.set(name, line.slice(equals + 1))
    this.#entryLines.hold(line)
    return HELD
  }

  /** The header says when the journal got it, and its cursor the journal's clock at that moment; the local time may lack its zone. */
  #settleEntry(context: LineContext): void {
    if (this.#entry === null) return
    const fields = this.#entry
    const hex = (key: string): number => parseInt(new RegExp(`;${key}=([0-9a-f]{1,13})(?:;|$)`).exec(this.#entryCarrier!.cursor)?.[1] ?? '', 16)
    const realtime = hex('t')
    const monotonic = hex('m')
    if (!Number.isNaN(realtime)) fields.set('__REALTIME_TIMESTAMP', String(realtime))
    if (!Number.isNaN(monotonic)) fields.set('__MONOTONIC_TIMESTAMP', String(monotonic))
    this.#entryLines.settle(context, journalEntry(fields, context))
    this.#entry = null
    this.#entryCarrier = null
  }
}

function isKernels({ program }: Carrier): boolean {
  return program === KERNEL_PROGRAM || program === ''
}

/** By the kernel's clock where both have it; else the same time, and it is said whose that is. */
function neighbourTime(near: { readonly time: RecordTime; readonly monotonic: number }, monotonic: number): RecordTime {
  if (monotonic < 0 || near.monotonic < 0) return { ...near.time, timeSource: TIME_NEIGHBOUR }
  return timeOf(near.time.sec * 1e6 + near.time.usec + monotonic - near.monotonic, near.time.timeSource)
}

function originOf({ host, priority, facility, seq, monotonic, trusted }: Carrier, time: RecordTime, context: LineContext): Origin {
  return { time, host: hostOf(host, context), priority, facility, seq, monotonic, trusted, position: seq < 0 ? '' : String(seq) }
}
