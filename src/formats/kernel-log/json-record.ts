/** What a JSON object is to us: an entry of the journal, a record of `dmesg --json`, or nothing; and what one of our own records tells the detectors. */
import { type Counters, counterNames, type KernelEvent, type RecordTime, recordTypes, type TableSample } from '../../event.js'
import { KERNEL, type LineContext, NOTE, type OwnRecord, RECORD } from '../../stage.js'
import { timeOfObject } from './carried.js'
import { bootTime, receivedTime } from './clock.js'
import { type Finding, NOTHING } from './held.js'
import { journalEntry, journalFieldNames } from './journal-entry.js'
import { kernelMessage, lossNotice } from './message.js'

type Keys = Readonly<Record<string, unknown>>

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug']
const decoder = new TextDecoder('utf-8')

export function findInJson(value: unknown, context: LineContext): Finding {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return NOTHING
  const keys = value as Keys
  if ('_TRANSPORT' in keys || '__CURSOR' in keys || '__REALTIME_TIMESTAMP' in keys) return journalEntry(journalFields(keys), context)
  if (Array.isArray(keys['dmesg'])) return compactDmesg(keys['dmesg'], context)
  const found = dmesgRecord(keys, context)
  if (found === NOTHING && context.asksTime) context.passed ??= timeOfObject(keys, context)
  return found
}

/** Values are strings, arrays of bytes where they are not printable, null where they are long, or arrays of these where a field occurs more than once. */
function journalFields(keys: Keys): Map<string, string> {
  const fields = new Map<string, string>()
  for (const name of journalFieldNames) {
    const text = fieldText(keys[name])
    if (text !== null) fields.set(name, text)
  }
  return fields
}

/** Of several values the first. */
function fieldText(value: unknown): string | null {
  const first: unknown = Array.isArray(value) && (typeof value[0] === 'string' || Array.isArray(value[0])) ? value[0] : value
  if (typeof first === 'string') return first
  return Array.isArray(first) && typeof first[0] === 'number' ? decoder.decode(Uint8Array.from(first as number[])) : null
}

/** `{"pri":4,"time":531.624576,"msg":"…"}`, or with -x `"fac":"kern","pri":"warn"`. */
export function dmesgRecord(value: unknown, context: LineContext): Finding {
  const keys = value as Keys
  const found = findInDmesg(keys, context)
  const { time } = keys
  if (found === NOTHING && context.asksTime && ('pri' in keys || 'fac' in keys) && typeof time === 'number') context.passed = bootTime(Math.round(time * 1e6), context)
  return found
}

function findInDmesg({ pri, fac, time, msg }: Keys, context: LineContext): Finding {
  if (typeof msg !== 'string' || typeof time !== 'number' || time < 0) return NOTHING
  const facility = typeof fac === 'string' ? (fac === 'kern' ? 0 : 1) : typeof pri === 'number' ? pri >> 3 : -1
  if (facility > 0) return NOTHING
  const monotonic = Math.round(time * 1e6)
  const at = bootTime(monotonic, context) ?? receivedTime(context)
  const gap = lossNotice('kernel', msg, { time: at, host: context.host })
  if (gap !== null) return { ...NOTHING, outcome: NOTE, gap }
  const priority = typeof pri === 'number' ? pri & 7 : LEVELS.indexOf(String(pri))
  const kernel = kernelMessage(msg.trimEnd(), { time: at, host: context.host, priority, facility, seq: -1, monotonic, position: '', trusted: true })
  return kernel === null ? NOTHING : { ...NOTHING, outcome: KERNEL, kernel }
}

/** One line gives one record: of a document that another tool has put on a single line only a lone record can be taken. */
function compactDmesg(records: readonly unknown[], context: LineContext): Finding {
  const objects = records.filter((each) => typeof each === 'object' && each !== null)
  const found = objects.map((each) => dmesgRecord(each, context)).filter((each) => each !== NOTHING)
  if (found.length <= 1) return found[0] ?? NOTHING
  context.diagnostic = `${found.length} kernel messages of a dmesg --json document on one line are not read: give it as dmesg writes it, or one record a line (jq -c '.dmesg[]')`
  return NOTHING
}

/** Begins like a record of ours; whether it is one says the reading of it. */
export function isOurs(value: unknown): boolean {
  const { v, type, time } = (value ?? {}) as Keys
  return v === 1 && typeof time === 'string' && recordTypes.some((name) => name === type)
}

/** A record of ours is passed on as it is. That a table was full, and how it stood, the detectors are told: it may explain what other inputs show. */
export function ownRecord(record: OwnRecord): Finding {
  const { keys } = record
  const found = { ...NOTHING, outcome: RECORD, record } as const
  const isFull = record.type === 'kernel' && keys['kind'] === 'table_full'
  if (record.type !== 'table' && !isFull) return found
  const at: RecordTime = { sec: record.sec, usec: record.usec, timeSource: record.timeSource }
  return isFull ? { ...found, kernel: fullLine(keys, at) } : { ...found, sample: tableSample(keys, at) }
}

function tableSample(keys: Keys, at: RecordTime): TableSample {
  const total = keys['total']
  return {
    ...at,
    netns: number(keys['netns'], 0),
    netnsName: text(keys['netns_name']),
    count: number(keys['count'], -1),
    max: number(keys['max'], -1),
    buckets: number(keys['buckets'], -1),
    host: text(keys['host']),
    total: typeof total === 'object' && total !== null ? counters(total as Keys) : null,
    cpus: null,
  }
}

function counters(keys: Keys): Counters {
  return Object.fromEntries(counterNames.filter((name) => number(keys[name], -1) >= 0).map((name) => [name, keys[name]]))
}

function fullLine(keys: Keys, at: RecordTime): KernelEvent {
  const absent = { priority: -1, facility: -1, seq: -1, monotonic: -1, repeat: 0, count: -1, buckets: -1, max: -1, packet: null, position: '' }
  return { ...at, ...absent, kind: 'table_full', host: text(keys['host']), netns: number(keys['netns'], 0), message: text(keys['message']), trusted: true }
}

/** A whole number from 0; `absent` for everything else. */
function number(value: unknown, absent: number): number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : absent
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
