/**
 * What other programs' lines carry: `conntrack -E` in a pod or as a service writes into CRI files, Docker's JSON lines, kubectl's output, a unit's journal or a
 * syslog, and from there into a central store. What is behind their heads is read as if it stood alone.
 * Sources: kubernetes/cri-api (the log format), moby daemon/logger/jsonfilelog, conmon's k8s-file, kubectl and docker logs --timestamps.
 */
import { type RecordTime, TIME_OWN } from '../../event.js'
import type { Carried, LineContext } from '../../stage.js'
import { hostOf, LINE_MAX, readCarrier } from './carrier.js'
import { timeOf, wallTime } from './clock.js'
import { HeldLines } from './held.js'

const PROTOCOLS = 'tcp|udp|udplite|sctp|dccp|gre|icmp|icmpv6|unknown'
/** How lines begin that are ours in themselves, the kernel's aside. */
const OURS = `[ \\t]*(?:\\[\\d{1,10} *\\.\\d{1,6} *\\][ \\t]+\\[(?:NEW|UPDATE|DESTROY)\\]|\\[(?:NEW|UPDATE|DESTROY)\\][ \\t]|(?:ipv[46][ \\t]+\\d+[ \\t]+)?(?:${PROTOCOLS})[ \\t]+\\d+[ \\t]|<flow|<\\?xml |</?conntrack>|-[AUD] -|cpu=\\d|entries +|[0-9a-f]{8}[ \\t]+[0-9a-f]{8}[ \\t]|conntrack v\\d|WARNING: We have hit ENOBUFS|(?:\\d+ )?proto=\\d|\\{")`
const BEGINS = new RegExp(`^${OURS}`)
/** Behind the tag of a program, or a structured syslog's header. */
const BEHIND_TAG = new RegExp(`(?:[^\\s:]: ?| - |\\] )(?=${OURS})`)
const BRACKET = 91
const MAY_CARRY = / src=|<flow|cpu=|entries  searched| 00000000 |\{"|ENOBUFS| -s /
const CRI = /^(\d{4}-\d\d-\d\dT\S{8,40}) (stdout|stderr) ([FP])(?::\S*)? (.*)$/s
/** So many parts may wait for their last. */
const PARTS_MAX = 1024
const STAMPED = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (.*)$/s
const KERNELS_CLOCK = /^\s*(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\]/
/** Keys of JSON lines in the order in which they are asked. */
const TEXT_KEYS = ['log', 'message', 'MESSAGE', 'msg', 'line', 'textPayload', 'short_message']
const HOST_KEYS = ['_HOSTNAME', 'hostname', 'host', 'HOST', 'syslog_hostname']
const TIME_KEYS = ['time', '@timestamp', 'timestamp', '__REALTIME_TIMESTAMP', '_SOURCE_REALTIME_TIMESTAMP', 'date', 'ts']

export class Carriers {
  /** parts of a line that a container's runtime broke, by stream; null where they are longer than any record */
  readonly #parts = new Map<string, Carried | null>()
  readonly #lines = new HeldLines()

  /** null: it carries nothing; 'part': the rest of its line is to come; 'rest': of a line that is none of ours. A cheap question for lines of other matters. */
  find(line: string, context: LineContext): Carried | 'part' | 'rest' | null {
    const first = line.charCodeAt(0)
    if (first >= 48 && first <= 57) {
      const cri = CRI.exec(line)
      if (cri !== null) return this.#cri(cri, context)
      const stamped = STAMPED.exec(line)
      if (stamped !== null && (BEGINS.test(stamped[2]!) || KERNELS_CLOCK.test(stamped[2]!))) return { text: stamped[2]!, host: '', time: timeIn(stamped[1]!, context) }
    }
    // the kernel's own lines, which are most of a log, carry nothing
    if (first === BRACKET || line.includes(' kernel: ')) return null
    return MAY_CARRY.test(line) ? behindTag(line, context) : null
  }

  /** By its beginning, of a line that is too long to be one of ours: what follows in further parts is none either. */
  findLong(beginning: string, context: LineContext): 'part' | 'rest' | null {
    const cri = CRI.exec(beginning)
    if (cri === null) return null
    this.#parts.set(cri[2]!, null)
    return this.#cri(cri, context) === 'part' ? 'part' : 'rest'
  }

  /** Parts whose rest has not come. */
  settle(context: LineContext): void {
    const isOurs = [...this.#parts.values()].some((part) => part !== null && BEGINS.test(part.text))
    this.#parts.clear()
    if (isOurs) this.#lines.reject(context, 'a line in parts whose last is missing')
    else this.#lines.settle(context)
  }

  #cri([line, stamp, stream, tag, text]: RegExpExecArray, context: LineContext): Carried | 'part' | 'rest' {
    const before = this.#parts.get(stream!)
    const whole = before === null ? null : { text: (before?.text ?? '') + text!, host: '', time: before?.time ?? timeIn(stamp!, context) }
    if (tag === 'F') {
      this.#parts.delete(stream!)
      // those of the other stream may be older: a checkpoint goes back to the first
      if (this.#parts.size === 0) this.#lines.settle(context)
      return whole ?? 'rest'
    }
    if (this.#lines.count >= PARTS_MAX) {
      // the other stream's last was lost
      this.#parts.delete(stream!)
      this.settle(context)
    }
    this.#parts.set(stream!, whole !== null && whole.text.length <= LINE_MAX ? whole : null)
    this.#lines.hold(line)
    return 'part'
  }
}

/** A program's text in a syslog's line, or a journal's as text; the kernel's own lines are no carriers. */
function behindTag(line: string, context: LineContext): Carried | null {
  const found = BEHIND_TAG.exec(line)
  if (found === null) return null
  const at = found.index + found[0].length
  const { stamp, program, host } = readCarrier(line.slice(0, at))
  if (stamp === null || program === 'kernel' || program === '' || program === '-') return null
  const time = stamp.kind === 'wall' ? wallTime(stamp.clock, context) : stamp.kind === 'unix' ? timeOf(stamp.microseconds, stamp.source) : null
  return { text: line.slice(at), host: hostOf(host, context), time }
}

/** An object that a container's runtime, a shipper or a journal made of a line. */
export function carriedInJson(keys: Readonly<Record<string, unknown>>, context: LineContext, isInteresting: (text: string) => boolean): Carried | null {
  const text = TEXT_KEYS.map((key) => keys[key]).find((value) => typeof value === 'string')
  // a record of ours that is damaged
  if (keys['v'] === 1 || keys['type'] === 'kernel' || keys['type'] === 'gap') return null
  // dmesg's JSON says whose a record is
  if (typeof text !== 'string' || text.length > LINE_MAX || 'pri' in keys || 'fac' in keys) return null
  const line = text.replace(/[\r\n]+$/, '')
  const isJournals = '_TRANSPORT' in keys || '__CURSOR' in keys
  // the journal says itself what is the kernel's
  if (line.includes('\n') || !(BEGINS.test(line) || BEHIND_TAG.test(line) || CRI.test(line) || (!isJournals && isInteresting(line)))) return null
  const host = HOST_KEYS.map((key) => keys[key]).find((value) => typeof value === 'string')
  return { text: line, host: hostOf(typeof host === 'string' ? host : nestedHost(keys), context), time: timeOfObject(keys, context) }
}

/** As ECS has it: `host` is an object, or its name a key with a point. */
function nestedHost({ host, ...keys }: Readonly<Record<string, unknown>>): string {
  const name = typeof host === 'object' && host !== null ? ((host as Record<string, unknown>)['name'] ?? (host as Record<string, unknown>)['hostname']) : keys['host.name']
  return typeof name === 'string' ? name : ''
}

/** null: it has no time, or none that can be read. */
export function timeOfObject(keys: Readonly<Record<string, unknown>>, context: LineContext): RecordTime | null {
  return TIME_KEYS.map((key) => jsonTime(keys[key], context)).find((value) => value !== null) ?? null
}

/** RFC 3339, or a number since the epoch in seconds to nanoseconds. */
function jsonTime(value: unknown, context: LineContext): RecordTime | null {
  if (typeof value === 'string' && /^\d{4}-/.test(value)) return timeIn(value, context)
  const number = typeof value === 'number' ? value : typeof value === 'string' && /^\d{9,19}(?:\.\d+)?$/.test(value) ? Number(value) : NaN
  if (!(number > 1e8)) return null
  const unit = number < 1e11 ? 1e6 : number < 1e14 ? 1e3 : number < 1e17 ? 1 : 1e-3
  return timeOf(number * unit, TIME_OWN)
}

function timeIn(text: string, context: LineContext): RecordTime | null {
  const { stamp } = readCarrier(`${text} x: `)
  return stamp?.kind === 'wall' ? wallTime(stamp.clock, context) : null
}
