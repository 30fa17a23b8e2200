/** What a JSON object is to us: an entry of the journal, a record of `dmesg --json`, one of our own records, or nothing. */
import {
  type Counters,
  type Gap,
  counterNames,
  gapCauses,
  type KernelEvent,
  kernelKinds,
  type Packet,
  type RecordTime,
  type TableSample,
  type Time,
  timeSourceNames,
} from '../../event.js'
import { KERNEL, type LineContext, NOTE } from '../../stage.js'
import { bootTime, fraction, receivedTime } from './clock.js'
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
  if (keys['v'] === 1 && typeof keys['type'] === 'string') return ownRecord(keys)
  if (Array.isArray(keys['dmesg'])) return compactDmesg(keys['dmesg'], context)
  return dmesgRecord(keys, context)
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
  const { pri, fac, time, msg } = keys
  if (typeof msg !== 'string' || typeof time !== 'number' || time < 0) return NOTHING
  const facility = typeof fac === 'string' ? (fac === 'kern' ? 0 : 1) : typeof pri === 'number' ? pri >> 3 : -1
  if (facility > 0) return NOTHING
  const monotonic = Math.round(time * 1e6)
  const at = bootTime(monotonic, context) ?? receivedTime(context)
  const gap = lossNotice('kernel', msg, at)
  if (gap !== null) return { ...NOTHING, outcome: NOTE, gap }
  const priority = typeof pri === 'number' ? pri & 7 : LEVELS.indexOf(String(pri))
  const kernel = kernelMessage(msg.trimEnd(), { time: at, priority, facility, seq: -1, monotonic, position: '', trusted: true })
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

/** Our own: samples, gaps and kernel records are events again; what the program concluded from them it concludes anew. */
function ownRecord(keys: Keys): Finding {
  const moment = time(keys['time'])
  if (moment === null) return NOTHING
  const source = timeSourceNames.indexOf((keys['time_source'] ?? '') as (typeof timeSourceNames)[number])
  const at: RecordTime = { ...moment, timeSource: Math.max(source, 0) }
  switch (keys['type']) {
    case 'table':
      return { ...NOTHING, outcome: NOTE, sample: tableSample(keys, at) }
    case 'gap': {
      const gap = ownGap(keys, at)
      return gap === null ? NOTHING : { ...NOTHING, outcome: NOTE, gap }
    }
    case 'kernel': {
      const kernel = ownKernel(keys, at)
      return kernel === null ? NOTHING : { ...NOTHING, outcome: KERNEL, kernel }
    }
    default:
      return NOTHING
  }
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
    total: typeof total === 'object' && total !== null ? counters(total as Keys) : null,
    cpus: null,
  }
}

function counters(keys: Keys): Counters {
  return Object.fromEntries(counterNames.filter((name) => number(keys[name], -1) >= 0).map((name) => [name, keys[name]]))
}

/** null for a cause that a later version has added. */
function ownGap(keys: Keys, at: RecordTime): Gap | null {
  const cause = gapCauses.find((name) => name === keys['cause'])
  if (cause === undefined) return null
  const { from, to } = keys
  return {
    ...at,
    cause,
    count: number(keys['count'], -1),
    atLeast: number(keys['at_least'], -1),
    from: time(from),
    to: time(to),
    ...(typeof keys['output'] === 'string' ? { output: keys['output'] } : {}),
    ...(typeof keys['reason'] === 'string' ? { reason: keys['reason'] } : {}),
  }
}

/** null for a kind that a later version has added. */
function ownKernel(keys: Keys, at: RecordTime): KernelEvent | null {
  const kind = kernelKinds.find((name) => name === keys['kind'])
  const monotonic = keys['monotonic']
  const packet = keys['packet']
  if (kind === undefined || typeof keys['message'] !== 'string') return null
  return {
    ...at,
    kind,
    netns: number(keys['netns'], 0),
    priority: number(keys['priority'], -1),
    facility: number(keys['facility'], -1),
    seq: number(keys['seq'], -1),
    monotonic: typeof monotonic === 'number' && monotonic >= 0 ? Math.round(monotonic * 1e6) : -1,
    message: keys['message'],
    repeat: number(keys['repeat'], 0),
    count: number(keys['count'], -1),
    buckets: number(keys['buckets'], -1),
    max: number(keys['max'], -1),
    packet: typeof packet === 'object' && packet !== null ? (packet as Packet) : null,
    position: '',
    trusted: true,
  }
}

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/

function time(value: unknown): Time | null {
  const found = typeof value === 'string' ? RFC3339.exec(value) : null
  const sec = found === null ? NaN : Date.parse(`${found[1]}Z`) / 1000
  return found === null || Number.isNaN(sec) ? null : { sec, usec: fraction(found[2]) }
}

/** A whole number from 0; `absent` for everything else. */
function number(value: unknown, absent: number): number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : absent
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
