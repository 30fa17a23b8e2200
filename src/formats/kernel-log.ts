/**
 * Lines of a kernel's log in any carrier, told apart line by line: /dev/kmsg, /proc/kmsg, dmesg, journalctl's text forms, syslog files. JSON and the journal's
 * export format have files of their own. It takes every line that is offered, so it is asked last.
 */
import { type KernelEvent, page, type RecordTime, TIME_LOCAL } from '../event.js'
import { HELD, IGNORED, KERNEL, type LineContext, type LineFormat, NOTE, type Outcome, REJECTED_LINE } from '../stage.js'
import { type Carrier, KERNEL_PROGRAM, type KmsgRecord, LINE_MAX, readCarrier, readKmsg } from './kernel-log/carrier.js'
import { bootTime, receivedTime, timeOf, wallTime } from './kernel-log/clock.js'
import { type Finding, give, HeldLines, NOTHING } from './kernel-log/held.js'
import { journalEntry } from './kernel-log/journal-entry.js'
import { isInteresting, kernelMessage, lossNotice, type Origin } from './kernel-log/message.js'
import { CR, isAt, LF, SPACE, utf8 } from './scan.js'

const TAB = 9
const LAST_REPEATED = /^last message repeated (\d{1,9}) times?/
/** dmesg's relative times, behind colours and a decoded priority: each line counts, whatever it says. */
const RELATIVE = /^(?:\x1b\[[0-9;]*m)*(?:[a-z0-9]+ *:[a-z]+ *: )?(?:\x1b\[[0-9;]*m)*\[(?: *\+\d|[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d\])/
/** The header of a record of /dev/kmsg that is whole in itself: almost all are, and most are none of ours. */
const WHOLE_KMSG = /^\d{1,4},\d{1,20},\d{1,16}(?:,-[^;]*)?;/
const FIELD_INDENT = '    '

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

  begins(): boolean {
    return true
  }

  read(at: number, lineEnd: number, _event: unknown, context: LineContext): Outcome {
    const first = page[at]
    if (this.#entry !== null) {
      if (first === SPACE && isAt(at, FIELD_INDENT)) return this.#entryField(at, lineEnd)
      this.#settleEntry(context)
    }
    // the further lines of a record, kmsg's keys, blank lines
    if (first === SPACE || first === LF || first === TAB || first === CR) return IGNORED
    // the second: of the journal's export format, whose entry began before the stream did
    if (lineEnd - at > LINE_MAX || isAt(at, 'MESSAGE=')) return this.#otherLine()
    const line = utf8(at, page[lineEnd - 1] === CR ? lineEnd - 1 : lineEnd)
    if (first! >= 48 && first! <= 57) {
      if (this.#fragments === null && WHOLE_KMSG.test(line) && !isInteresting(line)) return this.#otherLine()
      const record = readKmsg(line)
      if (record === 'broken') {
        context.reason = 'breaks the grammar of a /dev/kmsg record'
        this.#last = null
        return REJECTED_LINE
      }
      if (record !== null) return this.#kmsg(record, line, context)
    }
    if (RELATIVE.test(line)) this.#follow(readCarrier(line), context)
    if (page[lineEnd - 1] === 93 && line.includes(' [s=') && this.#beginEntry(line)) return HELD
    if (!isInteresting(line) && (this.#last === null || !line.includes('last message '))) return this.#otherLine()
    return this.#give(readCarrier(line), context)
  }

  settle(context: LineContext): void {
    this.#settleFragments(context)
    this.#settleEntry(context)
  }

  #otherLine(): Outcome {
    this.#last = null
    return IGNORED
  }

  #give(carrier: Carrier, context: LineContext): Outcome {
    const found = this.#find(carrier, context)
    this.#last = found.kernel === null ? null : { event: found.kernel, host: carrier.host }
    return give(found, context)
  }

  #find(carrier: Carrier, context: LineContext): Finding {
    const { program, host, facility } = carrier
    const repeated = LAST_REPEATED.exec(carrier.text)
    if (repeated !== null) return this.#last === null || this.#last.host !== host ? NOTHING : this.#again(this.#last.event, Number(repeated[1]), carrier, context)
    const isKernels = program === KERNEL_PROGRAM || program === ''
    // a process wrote it into /dev/kmsg, or to the logger by the kernel's name
    if (isKernels && facility > 0) return NOTHING
    const time = this.#timeOf(carrier, context)
    // where nothing stands before the text, any logger may have said it
    const speaker = program !== '' || (carrier.stamp === null && carrier.monotonic < 0) ? program : KERNEL_PROGRAM
    const kernel = isKernels ? kernelMessage(carrier.text, originOf(carrier, time)) : null
    if (kernel !== null) return { outcome: KERNEL, kernel, gap: null, sample: null }
    const gap = lossNotice(speaker, carrier.text, time)
    return gap === null ? NOTHING : { ...NOTHING, outcome: NOTE, gap }
  }

  /** The line before, so many times more. */
  #again(event: KernelEvent, repeat: number, carrier: Carrier, context: LineContext): Finding {
    const kernel = { ...event, ...this.#timeOf(carrier, context), repeat, seq: -1, monotonic: -1, position: '' }
    return { ...NOTHING, outcome: KERNEL, kernel }
  }

  /** The line's own absolute time before the kernel's clock, and that before the time of receipt. */
  #timeOf(carrier: Carrier, context: LineContext): RecordTime {
    const { stamp, monotonic } = carrier
    let time: RecordTime | null = null
    if (stamp?.kind === 'wall') time = wallTime(stamp.clock, context)
    else if (stamp?.kind === 'unix') time = timeOf(stamp.microseconds, stamp.source)
    else if (stamp !== null && !Number.isNaN(this.#relative)) time = timeOf(this.#relative, TIME_LOCAL)
    if (time === null && monotonic >= 0) time = bootTime(monotonic, context)
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
      if (record.flag === '+' || kernelMessage(before.text.trimEnd(), originOf(before, receivedTime(context))) === null) {
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
    if (!isInteresting(record.text)) return this.#otherLine()
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

function originOf({ priority, facility, seq, monotonic, trusted }: Carrier, time: RecordTime): Origin {
  return { time, priority, facility, seq, monotonic, trusted, position: seq < 0 ? '' : String(seq) }
}
