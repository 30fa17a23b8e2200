/** From a bare text to a record of it, by the catalogue. */
import type { Gap, KernelEvent, KernelKind, RecordTime } from '../../event.js'
import { anySign, kernelMessages, lossNotices } from '../../kernel-messages.js'
import { parsePacket } from './packet.js'

/** What the carrier of a text knows; the keys are those of KernelEvent. */
export interface Origin {
  readonly time: RecordTime
  readonly host: string
  readonly priority: number
  readonly facility: number
  readonly seq: number
  readonly monotonic: number
  readonly position: string
  readonly trusted: boolean
}

/** rsyslog's `message repeated 9 times: [ text]`, whose end may be cut off, with or without the kernel's clock inside. */
const REPEATED = /^message repeated (\d{1,9}) times?: \[ ?(?:\[ *\d+\.\d{6}\] ?)?(.*?) *\]?$/

/** The kernel's records hold 1,024 bytes, and 2,048 where they have several lines. */
const MESSAGE_MAX = 2048

/** Could the line be one of ours, or say that some were lost? A quick test of the whole line. */
export function isInteresting(line: string): boolean {
  return anySign.test(line)
}

/** longer than any beginning of them */
const BEGINNING_MAX = 80

/** What tells of drops must not be lost for a line break: the texts of the catalogue, numbers as one digit. */
const breakable: readonly string[] = kernelMessages
  .filter(({ kind }) => kind === 'table_full' || kind === 'expect_table_full' || kind === 'suppressed')
  .flatMap(({ matches }) => matches.map(inShape))

/** A line that ends in the beginning of one of them has no sign yet: a look at its end, for it is asked of every line. */
export function mayBeCut(line: string): boolean {
  const from = line.length - BEGINNING_MAX
  return line.indexOf('_conntrack:', from) >= 0 || line.indexOf('_ratelimit: ', from) >= 0
}

/** Is it how one of them begins, with more to come? */
export function isBeginning(text: string): boolean {
  if (text.length > BEGINNING_MAX || !/^\w+: ?\S/.test(text)) return false
  // quoted-printable marks a soft break so
  const shape = inShape(text.trimEnd().replace(/=$/, ''))
  return breakable.some((message) => message.length > shape.length && message.startsWith(shape))
}

function inShape(text: string): string {
  return text.replace(/\d+/g, '0')
}

/** null: the kernel says something else. */
export function kernelMessage(text: string, origin: Origin): KernelEvent | null {
  const folded = text.startsWith('message repeated') ? REPEATED.exec(text) : null
  const message = (folded === null ? text : folded[2]!).trimEnd()
  if (message.length > MESSAGE_MAX) return null
  for (const entry of kernelMessages) {
    if (!message.includes(entry.sign)) continue
    const found = entry.pattern.exec(message)
    if (found !== null) return eventOf(entry.kind, message, folded === null ? 0 : Number(folded[1]), found.groups, origin)
  }
  return null
}

function eventOf(kind: KernelKind, message: string, repeat: number, groups: Record<string, string | undefined> | undefined, origin: Origin): KernelEvent {
  const packet = groups?.['packet']
  const { time } = origin
  // one literal, not spreads: lines of a log rule come by the thousand
  return {
    sec: time.sec,
    usec: time.usec,
    timeSource: time.timeSource,
    kind,
    host: origin.host,
    netns: Number(groups?.['netns'] ?? 0),
    priority: origin.priority,
    facility: origin.facility,
    seq: origin.seq,
    monotonic: origin.monotonic,
    message,
    repeat,
    count: Number(groups?.['count'] ?? -1),
    buckets: Number(groups?.['buckets'] ?? -1),
    max: Number(groups?.['max'] ?? -1),
    packet: packet === undefined ? null : parsePacket(packet, leadOf(groups!['reason'], groups!['prefix'])),
    position: origin.position,
    trusted: origin.trusted,
  }
}

function leadOf(reason: string | undefined, prefix: string | undefined): { reason?: string; prefix?: string } {
  if (reason !== undefined) return reason === '' ? {} : { reason }
  const text = prefix!.trimEnd()
  return text === '' ? {} : { prefix: text }
}

/** What a logger says about lines that it lost; `program` is '' where the form names nobody. */
export function lossNotice(program: string, text: string, { time, host }: Pick<Origin, 'time' | 'host'>): Gap | null {
  for (const notice of lossNotices) {
    if ((program !== '' && program !== notice.program) || !text.includes(notice.sign)) continue
    const found = notice.pattern.exec(text.trimEnd())
    if (found === null) continue
    const count = found.groups?.['count']
    return { ...time, cause: 'logger_missed', count: count === undefined ? -1 : Number(count), atLeast: count === undefined ? 1 : -1, from: null, to: null, host }
  }
  return null
}
