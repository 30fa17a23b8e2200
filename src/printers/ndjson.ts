/**
 * Records as NDJSON. Flow records are put together from prepared texts and bytes of the line; everything that is rare goes through JSON.stringify.
 */
import {
  type Alert,
  type Drops,
  type ExpectEvent,
  type ExpectTuple,
  type FlowEvent,
  type Gap,
  type KernelEvent,
  type RecordOrigin,
  type Reject,
  type TableRecord,
  type Time,
  type Tuple,
  ctstateNames,
  DESTROY,
  endReasons,
  eventNames,
  FROM_NONE,
  HAS_BY,
  HAS_DELTA_TIME,
  HAS_EXTRA,
  HAS_HELPER,
  HAS_ID,
  HAS_LABELS,
  HAS_MARK,
  HAS_PROGNAME,
  HAS_SECCTX,
  HAS_SECMARK,
  HAS_START,
  HAS_STOP,
  HAS_USE,
  HAS_ZONE,
  KEYS_GRE,
  KEYS_ICMP,
  KEYS_NONE,
  KEYS_PORTS,
  page,
  TIME_OWN,
  timeSourceNames,
} from '../event.js'
import { protocolNames, states } from '../kernel.js'
import type { OwnRecord } from '../stage.js'
import { out, pen } from './pages.js'
import { copy, prepare, prepareSlot, put, putCopy, putHex, putInteger, putMicroseconds, putSeconds, rewrite } from './texts.js'

/** What stands in every record of one input. */
export interface RecordContext extends RecordOrigin {
  /** what record ids begin with; null writes none */
  readonly ridPrefix: string | null
}

const TIMEOUT = prepare(',"timeout":')
const DST = prepare('","dst":"')
const SPORT = prepare('","sport":')
const DPORT = prepare(',"dport":')
const TYPE = prepare('","type":')
const CODE = prepare(',"code":')
const SRCKEY = prepare('","srckey":"')
const DSTKEY = prepare('","dstkey":"')
const QUOTE = prepare('"')
const ZONE = prepare(',"zone":')
const PACKETS = prepare(',"packets":')
const BYTES = prepare(',"bytes":')
const REPLY = prepare('},"reply":{"src":"')
const CLOSE = prepare('}')
const UNREPLIED = prepare(',"unreplied":true')
const ASSURED = prepare(',"assured":true')
const OFFLOAD = [0, prepare(',"offload":"sw"'), prepare(',"offload":"hw"')] as const
const MARK = prepare(',"mark":')
const SECMARK = prepare(',"secmark":')
const SECCTX = prepare(',"secctx":')
const HELPER = prepare(',"helper":')
const LABELS = prepare(',"labels":')
const USE = prepare(',"use":')
const ID = prepare(',"id":')
const START = prepare(',"start":"')
const STOP = prepare(',"stop":"')
const UTC_END = prepare('Z"')
const DELTA_TIME = prepare(',"delta_time":')
const FLOW = prepare(',"flow":"')
const EXTRA = prepare(',"extra":')
const BY = prepare(',"by":{')
const PORTID = prepare('"portid":')
const PROGNAME = prepare(',"progname":')
const AFTER = prepare(',"after":')
const NAT = ['', 'snat', 'dnat', 'both'].map((kind) => prepare(`,"nat":{"kind":"${kind}"`))
const NAT_SRC = prepare(',"src":"')
const NAT_DST = prepare(',"dst":"')
const NAT_SPORT = prepare(',"sport":')
const NAT_DPORT = prepare(',"dport":')
const NAT_ID = prepare(',"id":')
const NAT_SRCKEY = prepare(',"srckey":"')
const NAT_DSTKEY = prepare(',"dstkey":"')
const END = endReasons.map((reason) => prepare(`,"end":{"reason":"${reason}"`))
const DURATION = prepare(',"duration":')
const IDLE = prepare(',"idle":')
const TIME_SOURCE = timeSourceNames.map((name) => prepare(`,"time_source":"${name}"`))
const LINE_END = prepare('}\n')

/** `,"state":…,"ctstate":…,"orig":{"src":"` for each of both, the state absent at 0. */
const stateTexts = Int32Array.from({ length: (states.length + 1) * 3 }, (_, i) => {
  const state = states[Math.floor(i / 3) - 1]
  return prepare(`${state === undefined ? '' : `,"state":"${state}"`},"ctstate":"${ctstateNames[(i % 3) as 0 | 1 | 2]}","orig":{"src":"`)
})

/** Texts made when first needed: there are more pairs than anyone sees. */
const transitionTexts = new Int32Array((states.length + 1) * states.length)

function transitionText(from: number, to: number): number {
  const at = (from + 1) * states.length + to
  if (transitionTexts[at] === 0) {
    transitionTexts[at] = prepare(`,"transition":{"from":${from < 0 ? 'null' : `"${states[from]}"`},"to":"${states[to]}"`)
  }
  return transitionTexts[at]
}

/** What stands behind the time, or behind the id, of a flow record up to the protocol, by event, family and protocol: alone, and behind other keys. */
const heads = new Int32Array(4 * 2 * 256)
const laterHeads = new Int32Array(4 * 2 * 256)

/**
 * Texts that an input has for itself, one slot for each length: there may be thousands of inputs, one after the other. What a slot holds is written anew when
 * another input of the same length has its turn.
 */
const slots = new Map<number, { readonly name: number; text: string }>()

function slotOf(text: string): number {
  let slot = slots.get(text.length)
  if (slot === undefined) {
    slot = { name: prepareSlot(text), text }
    slots.set(text.length, slot)
  } else if (slot.text !== text) {
    rewrite(slot.name, text)
    slot.text = text
  }
  return slot.name
}

/** Of a record's `extra`, as JSON. */
const EXTRA_BYTES_MAX = 1024

const LF = 10
const NO_CONTEXT: RecordContext = { host: '', input: '', netns: 0, netnsName: '', ridPrefix: null }

export class NdjsonPrinter {
  #context = NO_CONTEXT
  /** what stands before the number of the record id, and behind it (or behind the version); 0 where there is neither id nor other key */
  #beforeRid = 0
  #common = 0
  /** the record's beginning up to the point of its time, kept for as long as the second lasts */
  #second = -1
  readonly #secondText = prepareSlot('{"time":"0000-00-00T00:00:00.')

  /** The records that follow are of this input. */
  use(context: RecordContext): void {
    if (context === this.#context) return
    this.#context = context
    const common = Object.entries(commonKeys(context)).map(([key, value]) => `,"${key}":${asciiJson(value)}`)
    this.#beforeRid = context.ridPrefix === null ? 0 : slotOf(`Z","type":"flow","v":1,"rid":"${context.ridPrefix}:`)
    if (context.ridPrefix !== null) this.#common = slotOf(`"${common.join('')}`)
    else this.#common = common.length === 0 ? 0 : slotOf(`Z","type":"flow","v":1${common.join('')}`)
  }

  /** One flow record. `rid` is the number in the record's id, used where ids are on. */
  flow(event: FlowEvent, rid: number): void {
    const has = event.has
    let o = this.#time(pen.at, event.sec, event.usec)
    if (this.#common === 0) {
      o = put(o, headOf(heads, event, 'Z","type":"flow","v":1'))
    } else {
      if (this.#beforeRid !== 0) o = putInteger(put(o, this.#beforeRid), rid)
      o = put(put(o, this.#common), headOf(laterHeads, event, ''))
    }
    if (event.timeoutLen !== 0) o = putCopy(o, TIMEOUT, event.timeoutAt, event.timeoutLen)
    o = put(o, stateTexts[(event.state + 1) * 3 + event.ctstate])
    o = put(printTuple(o, event.orig), REPLY)
    o = put(printTuple(o, event.reply), CLOSE)
    if (event.unreplied) o = put(o, UNREPLIED)
    if (event.assured) o = put(o, ASSURED)
    if (event.offload !== 0) o = put(o, OFFLOAD[event.offload as 1 | 2])
    if ((has & ~HAS_ID) !== 0) o = this.#rareBeforeId(o, event)
    if ((has & HAS_ID) !== 0) o = putCopy(o, ID, event.idAt, event.idLen)
    if ((has & (HAS_START | HAS_STOP | HAS_DELTA_TIME)) !== 0) o = printTimes(o, event)
    o = putHex(put(o, FLOW), event.flowHigh, event.flowLow)
    o = put(o, QUOTE)
    if ((has & (HAS_EXTRA | HAS_BY)) !== 0) {
      if ((has & HAS_EXTRA) !== 0) o = printExtra(o, event)
      if ((has & HAS_BY) !== 0) o = printBy(o, event)
    }
    if (event.from !== FROM_NONE) {
      o = put(o, transitionText(event.from, event.state))
      if (event.after >= 0) o = putSeconds(put(o, AFTER), event.after)
      o = put(o, CLOSE)
    }
    const nat = natOf(event)
    if (nat !== 0) o = printNat(o, event, nat)
    if (event.event === DESTROY) {
      o = put(o, END[event.reason])
      if (event.duration >= 0) o = putSeconds(put(o, DURATION), event.duration)
      if (event.idle >= 0) o = putSeconds(put(o, IDLE), event.idle)
      o = put(o, CLOSE)
    }
    if (event.timeSource !== TIME_OWN) o = put(o, TIME_SOURCE[event.timeSource])
    pen.at = put(o, LINE_END)
  }

  /** `host`: that the line names, '' none, or as all records of the context. */
  expect(event: ExpectEvent, rid: string, host = ''): void {
    const tuple = (t: ExpectTuple): object => ({ src: t.src, dst: t.dst, ...keysObject(t) })
    this.#object(event, 'expect', rid, {
      event: eventNames[event.event],
      family: event.family === 4 ? 'ipv4' : 'ipv6',
      protocol: protocolNames[event.protocol] ?? 'unknown',
      protocol_number: event.protocol,
      timeout: present(event.timeout),
      tuple: tuple(event.tuple),
      mask: event.mask === null ? undefined : tuple(event.mask),
      master: event.master === null ? undefined : tuple(event.master),
      zone: event.zone === 0 ? undefined : event.zone,
      flags: event.flags.length === 0 ? undefined : event.flags,
      class: present(event.class),
      helper: event.helper || undefined,
      time_source: timeSourceNames[event.timeSource] || undefined,
    }, { host })
  }

  kernel(event: KernelEvent, rid: string, host = ''): void {
    this.#object(event, 'kernel', rid, {
      ...namespaceKeys(event.netns, ''),
      kind: event.kind,
      priority: present(event.priority),
      facility: present(event.facility),
      seq: present(event.seq),
      monotonic: event.monotonic < 0 ? undefined : event.monotonic / 1e6,
      message: event.message,
      repeat: event.repeat === 0 ? undefined : event.repeat,
      count: present(event.count),
      buckets: present(event.buckets),
      max: present(event.max),
      packet: event.packet ?? undefined,
      ctstate: event.kind === 'invalid_packet' ? 'INVALID' : undefined,
      time_source: timeSourceNames[event.timeSource] || undefined,
    }, { host })
  }

  table(record: TableRecord, rid: string, host = ''): void {
    const rate = { new: present(record.rateNew), destroy: present(record.rateDestroy), drop: present(record.rateDrop) }
    this.#object(record, 'table', rid, {
      ...namespaceKeys(record.netns, record.netnsName),
      count: present(record.count),
      max: present(record.max),
      usage: record.usage < 0 ? undefined : Number(record.usage.toFixed(4)),
      buckets: present(record.buckets),
      drop: present(record.drop),
      early_drop: present(record.earlyDrop),
      insert_failed: present(record.insertFailed),
      rate: Object.values(rate).some((value) => value !== undefined) ? rate : undefined,
      full_in: present(record.fullIn),
      total: record.total ?? undefined,
      time_source: timeSourceNames[record.timeSource] || undefined,
    }, { host })
  }

  alert(alert: Alert): void {
    this.#object(
      alert,
      'alert',
      '',
      {
        ...namespaceKeys(alert.netns, alert.netnsName),
        rule: alert.rule,
        status: alert.status,
        final: alert.final || undefined,
        unconfirmed: alert.unconfirmed || undefined,
        episode: alert.episode,
        seq: alert.seq,
        severity: alert.severity,
        started: textOf(alert.started),
        ended: textOf(alert.ended),
        summary: alert.summary,
        drops: alert.drops === null ? undefined : dropsObject(alert.drops),
        table: alert.table ?? undefined,
        top_at: textOf(alert.topAt),
        top: alert.top.length === 0 ? undefined : alert.top,
        time_source: timeSourceNames[alert.timeSource] || undefined,
      },
      { host: alert.host, wholeRid: `${alert.episode}.${alert.seq}` },
    )
  }

  /** `isWhole`: the id stands by itself. */
  gap(gap: Gap, rid: string, { isWhole = false, host = '' } = {}): void {
    const keys = {
      cause: gap.cause,
      count: present(gap.count),
      at_least: present(gap.atLeast),
      from: textOf(gap.from),
      to: textOf(gap.to),
      output: gap.output,
      reason: gap.reason,
      time_source: timeSourceNames[gap.timeSource] || undefined,
    }
    this.#object(gap, 'gap', rid, keys, { host, ...(isWhole ? { wholeRid: rid } : {}) })
  }

  reject(reject: Reject, rid: string): void {
    this.#object(reject, 'reject', rid, {
      line: reject.line,
      reason: reject.reason,
      text: decoder.decode(reject.text),
      truncated: reject.bytes >= 0 ? true : undefined,
      bytes: present(reject.bytes),
      time_source: 'received',
    })
  }

  /** A record that is there already, without its LF. Where records have ids it gets one, if it has none. */
  copy({ bytes, from, to, idAt }: OwnRecord, rid: () => string): void {
    let at = from
    if (this.#context.ridPrefix !== null && idAt >= 0) {
      const id = `"rid":"${this.#context.ridPrefix}:${rid()}"`
      at = idAt === from ? from + 1 : idAt
      out.set(bytes.subarray(from, at), pen.at)
      pen.at += at - from
      pen.at += encoder.encodeInto(idAt === from ? `${id},` : `,${id}`, out.subarray(pen.at)).written
    }
    out.set(bytes.subarray(at, to), pen.at)
    pen.at += to - at
    out[pen.at++] = LF
  }

  /** `wholeRid`: the id, where it stands by itself. */
  #object(time: Time, type: string, rid: string, rest: object, { host = '', wholeRid }: { readonly host?: string; readonly wholeRid?: string } = {}): void {
    const { ridPrefix } = this.#context
    const id = ridPrefix === null ? undefined : (wholeRid ?? `${ridPrefix}:${rid}`)
    const text = JSON.stringify({ time: isoTime(time.sec, time.usec), type, v: 1, rid: id, ...commonKeys(this.#context, host), ...rest })
    pen.at += encoder.encodeInto(`${text}\n`, out.subarray(pen.at)).written
  }

  /** `{"time":"2026-11-22T09:58:32.390102`, the part up to the point kept for the whole second. */
  #time(at: number, sec: number, usec: number): number {
    if (sec !== this.#second) {
      this.#second = sec
      rewrite(this.#secondText, `{"time":"${isoTime(sec, 0).slice(0, 20)}`)
    }
    return putMicroseconds(put(at, this.#secondText), usec)
  }

  #rareBeforeId(at: number, event: FlowEvent): number {
    const has = event.has
    let o = at
    if ((has & HAS_MARK) !== 0) o = putCopy(o, MARK, event.markAt, event.markLen)
    if ((has & HAS_ZONE) !== 0) o = putInteger(put(o, ZONE), event.zone)
    if ((has & HAS_SECMARK) !== 0) o = putCopy(o, SECMARK, event.secmarkAt, event.secmarkLen)
    if ((has & HAS_SECCTX) !== 0) o = printString(put(o, SECCTX), event.secctxAt, event.secctxLen)
    if ((has & HAS_HELPER) !== 0) o = printString(put(o, HELPER), event.helperAt, event.helperLen)
    if ((has & HAS_LABELS) !== 0) {
      const names = event.labelsLen === 0 ? [] : decodeRange(event.labelsAt, event.labelsLen).split(',')
      o = printJson(put(o, LABELS), names)
    }
    if ((has & HAS_USE) !== 0) o = putCopy(o, USE, event.useAt, event.useLen)
    return o
  }
}

function headOf(kept: Int32Array, event: FlowEvent, before: string): number {
  const at = (event.event * 2 + (event.family === 6 ? 1 : 0)) * 256 + event.protocol
  if (kept[at] === 0) {
    const protocol = protocolNames[event.protocol] ?? 'unknown'
    kept[at] = prepare(`${before},"event":"${eventNames[event.event as 0 | 1 | 2 | 3]}","family":"ipv${event.family}","protocol":"${protocol}","protocol_number":${event.protocol}`)
  }
  return kept[at]
}

/** -1 is absent. */
function present(n: number): number | undefined {
  return n < 0 ? undefined : n
}

function textOf(time: Time | null): string | undefined {
  return time === null ? undefined : isoTime(time.sec, time.usec)
}

function dropsObject(drops: Drops): object {
  return {
    logged: present(drops.logged),
    suppressed: present(drops.suppressed),
    at_least: present(drops.atLeast),
    estimate: present(drops.estimate),
    counted: present(drops.counted),
    early: present(drops.early),
    races: present(drops.races),
    since: textOf(drops.since),
  }
}

function namespaceKeys(netns: number, netnsName: string): Record<string, unknown> {
  return { ...(netns === 0 ? {} : { netns }), ...(netnsName === '' ? {} : { netns_name: netnsName }) }
}

function commonKeys(context: RecordContext, host = ''): Record<string, unknown> {
  const name = host || context.host
  return {
    ...(name === '' ? {} : { host: name }),
    ...(context.input === '' ? {} : { input: context.input }),
    ...namespaceKeys(context.netns, context.netnsName),
  }
}

function printTuple(at: number, tuple: Tuple): number {
  let o = copy(at, tuple.srcAt, tuple.srcLen)
  o = putCopy(o, DST, tuple.dstAt, tuple.dstLen)
  if (tuple.keys === KEYS_PORTS) {
    o = putCopy(o, SPORT, tuple.k1At, tuple.k1Len)
    o = putCopy(o, DPORT, tuple.k2At, tuple.k2Len)
  } else if (tuple.keys === KEYS_ICMP) {
    o = putCopy(o, TYPE, tuple.k1At, tuple.k1Len)
    o = putCopy(o, CODE, tuple.k2At, tuple.k2Len)
    o = putCopy(o, ID, tuple.k3At, tuple.k3Len)
  } else if (tuple.keys === KEYS_GRE) {
    o = putCopy(o, SRCKEY, tuple.k1At, tuple.k1Len)
    o = put(putCopy(o, DSTKEY, tuple.k2At, tuple.k2Len), QUOTE)
  } else {
    o = put(o, QUOTE)
  }
  if (tuple.zone !== 0) o = putInteger(put(o, ZONE), tuple.zone)
  if (tuple.packetsLen !== 0) {
    o = putCopy(o, PACKETS, tuple.packetsAt, tuple.packetsLen)
    o = putCopy(o, BYTES, tuple.bytesAt, tuple.bytesLen)
  }
  return o
}

function printTimes(at: number, event: FlowEvent): number {
  let o = at
  if ((event.has & HAS_START) !== 0) o = printTime(put(o, START), event.startSec, event.startUsec)
  if ((event.has & HAS_STOP) !== 0) o = printTime(put(o, STOP), event.stopSec, event.stopUsec)
  if ((event.has & HAS_DELTA_TIME) !== 0) o = putCopy(o, DELTA_TIME, event.deltaTimeAt, event.deltaTimeLen)
  return o
}

/** For the times beside the record's own; their seconds are all over the place, so nothing is kept. */
function printTime(at: number, sec: number, usec: number): number {
  const text = isoTime(sec, usec)
  for (let i = 0; i < 26; i++) out[at + i] = text.charCodeAt(i)
  return put(at + 26, UTC_END)
}

/** Nothing where it is larger than a record's `extra` may be. */
function printExtra(at: number, event: FlowEvent): number {
  const from = put(at, EXTRA)
  const to = printJson(from, event.extra)
  return to - from > EXTRA_BYTES_MAX ? at : to
}

function printBy(at: number, event: FlowEvent): number {
  let o = put(at, BY)
  if (event.portidLen !== 0) {
    o = putCopy(o, PORTID, event.portidAt, event.portidLen)
    if ((event.has & HAS_PROGNAME) !== 0) o = printString(put(o, PROGNAME), event.prognameAt, event.prognameLen)
  }
  return put(o, CLOSE)
}

const SNAT = 1
const DNAT = 2

/** Which ends were translated: the reply must go to the original source, and come from the original destination. A changed port or key counts alone. */
function natOf(event: FlowEvent): number {
  const o = event.orig
  const r = event.reply
  let nat = 0
  if (r.d3 !== o.s3 || r.d0 !== o.s0 || r.d1 !== o.s1 || r.d2 !== o.s2) nat = SNAT
  if (r.s3 !== o.d3 || r.s0 !== o.d0 || r.s1 !== o.d1 || r.s2 !== o.d2) nat |= DNAT
  // a form may show the keys of one direction alone
  if (o.keys !== r.keys) return nat
  if (o.keys === KEYS_ICMP) return r.k3 === o.k3 ? nat : nat | SNAT
  if (r.k2 !== o.k1) nat |= SNAT
  if (r.k1 !== o.k2) nat |= DNAT
  return nat
}

function printNat(at: number, event: FlowEvent, nat: number): number {
  const r = event.reply
  let o = put(at, NAT[nat])
  if ((nat & SNAT) !== 0) {
    o = put(putCopy(o, NAT_SRC, r.dstAt, r.dstLen), QUOTE)
    if (r.keys === KEYS_PORTS) o = putCopy(o, NAT_SPORT, r.k2At, r.k2Len)
    else if (r.keys === KEYS_GRE) o = put(putCopy(o, NAT_SRCKEY, r.k2At, r.k2Len), QUOTE)
  }
  if ((nat & DNAT) !== 0) {
    o = put(putCopy(o, NAT_DST, r.srcAt, r.srcLen), QUOTE)
    if (r.keys === KEYS_PORTS) o = putCopy(o, NAT_DPORT, r.k1At, r.k1Len)
    else if (r.keys === KEYS_GRE) o = put(putCopy(o, NAT_DSTKEY, r.k1At, r.k1Len), QUOTE)
  }
  if (r.keys === KEYS_ICMP) o = putCopy(o, NAT_ID, r.k3At, r.k3Len)
  return put(o, CLOSE)
}

function keysObject(t: ExpectTuple): object {
  if (t.keys === KEYS_NONE) return {}
  if (t.keys === KEYS_ICMP) return { type: t.k1, code: t.k2, id: t.k3 }
  if (t.keys === KEYS_GRE) return { srckey: `0x${t.k1.toString(16)}`, dstkey: `0x${t.k2.toString(16)}` }
  return { sport: t.k1, dport: t.k2 }
}

const decoder = new TextDecoder('utf-8')
const encoder = new TextEncoder()

function decodeRange(at: number, length: number): string {
  return decoder.decode(page.subarray(at, at + length))
}

/** Bytes of the input as a JSON string; what is no UTF-8 becomes U+FFFD. */
function printString(at: number, from: number, length: number): number {
  return printJson(at, decodeRange(from, length))
}

function printJson(at: number, value: unknown): number {
  return at + encoder.encodeInto(JSON.stringify(value), out.subarray(at)).written
}

/** For prepared texts, which are ASCII. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** RFC 3339 in UTC with microseconds. */
export function isoTime(sec: number, usec: number): string {
  return `${new Date(sec * 1000).toISOString().slice(0, 19)}.${String(usec).padStart(6, '0')}Z`
}
