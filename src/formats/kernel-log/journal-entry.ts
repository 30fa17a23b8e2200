/**
 * An entry of the systemd journal as its fields, whatever form it came in: only what the journal itself marks as the kernel's is the kernel's.
 * Sources: systemd src/journal/journald-kmsg.c, src/shared/logs-show.c.
 */
import { type RecordTime, TIME_OWN } from '../../event.js'
import { KERNEL, type LineContext, NOTE } from '../../stage.js'
import { receivedTime, timeOf } from './clock.js'
import { hostOf } from './carrier.js'
import { type Finding, NOTHING } from './held.js'
import { isInteresting, kernelMessage, lossNotice } from './message.js'

export type JournalFields = ReadonlyMap<string, string>

/** All that is read of an entry. */
export const journalFieldNames = [
  'MESSAGE',
  '_TRANSPORT',
  'PRIORITY',
  'SYSLOG_FACILITY',
  'SYSLOG_IDENTIFIER',
  '_HOSTNAME',
  '_SOURCE_MONOTONIC_TIMESTAMP',
  '__CURSOR',
  '__REALTIME_TIMESTAMP',
  '__MONOTONIC_TIMESTAMP',
  '__SEQNUM',
  '__SEQNUM_ID',
] as const

export function journalEntry(fields: JournalFields, context: LineContext): Finding {
  const found = findInEntry(fields, context)
  if (found === NOTHING && context.asksTime && fields.has('__REALTIME_TIMESTAMP')) context.passed = timeOfEntry(fields, context)
  return found
}

function findInEntry(fields: JournalFields, context: LineContext): Finding {
  const message = fields.get('MESSAGE')
  if (message === undefined || !isInteresting(message)) return NOTHING
  const time = timeOfEntry(fields, context)
  const host = hostOf(fields.get('_HOSTNAME') ?? '', context)
  if (fields.get('_TRANSPORT') !== 'kernel') {
    const gap = lossNotice(fields.get('SYSLOG_IDENTIFIER') ?? '-', message, { time, host })
    return gap === null ? NOTHING : { ...NOTHING, outcome: NOTE, gap }
  }
  const facility = numberOf(fields, 'SYSLOG_FACILITY')
  // a process wrote it into /dev/kmsg
  if (facility > 0) return NOTHING
  const kernel = kernelMessage(message, {
    time,
    host,
    priority: numberOf(fields, 'PRIORITY'),
    facility,
    seq: -1,
    monotonic: numberOf(fields, '_SOURCE_MONOTONIC_TIMESTAMP'),
    position: positionOf(fields),
    trusted: true,
  })
  return kernel === null ? NOTHING : { ...NOTHING, outcome: KERNEL, kernel }
}

/** The journal's time is that of receipt: the message is as much older as its own clock was behind the journal's. */
function timeOfEntry(fields: JournalFields, context: LineContext): RecordTime {
  const realtime = numberOf(fields, '__REALTIME_TIMESTAMP')
  if (realtime < 0) return receivedTime(context)
  const received = numberOf(fields, '__MONOTONIC_TIMESTAMP')
  const source = numberOf(fields, '_SOURCE_MONOTONIC_TIMESTAMP')
  return timeOf(received < 0 || source < 0 || source > received ? realtime : realtime - (received - source), TIME_OWN)
}

/** Of the sequence's id so many of its 32 digits: record ids have 40 letters at most. */
const SEQUENCE_ID_DIGITS = 12

/** `<sequence id>.<number>`: fields of their own from systemd 254 on, and in every cursor. */
function positionOf(fields: JournalFields): string {
  const id = fields.get('__SEQNUM_ID')
  const number = fields.get('__SEQNUM')
  if (id !== undefined && number !== undefined) return `${id.slice(0, SEQUENCE_ID_DIGITS)}.${number}`
  const cursor = /^s=([0-9a-f]{1,32});i=([0-9a-f]{1,13});/.exec(fields.get('__CURSOR') ?? '')
  return cursor === null ? '' : `${cursor[1]!.slice(0, SEQUENCE_ID_DIGITS)}.${parseInt(cursor[2]!, 16)}`
}

/** Decimal digits; -1 for everything else. */
function numberOf(fields: JournalFields, name: string): number {
  const text = fields.get(name)
  return text !== undefined && /^\d{1,16}$/.test(text) ? Number(text) : -1
}
