/**
 * `conntrack -o xml`: one `<flow>` element a line, nothing escaped. Expectations are `<flow>` too, see expectation.ts.
 * Grammar: libnetfilter_conntrack src/conntrack/snprintf_xml.c. SCTP and DCCP states are printed with the words of TCP there: the number behind the word is right.
 */
import {
  type FlowEvent,
  DESTROY,
  ENTRY,
  HAS_DELTA_TIME,
  HAS_HELPER,
  HAS_ID,
  HAS_LABELS,
  HAS_MARK,
  HAS_NANOSECONDS,
  HAS_SECCTX,
  HAS_SECMARK,
  HAS_START,
  HAS_STOP,
  HAS_USE,
  HAS_ZONE,
  KEYS_GRE,
  KEYS_PORTS,
  NEW,
  page,
  TIME_LOCAL,
  TIME_RECEIVED,
  UPDATE,
} from '../event.js'
import { PROTO_TCP, PROTO_UDP, RECORD_LINE_BYTES_MAX, statesOf, tcpStates } from '../kernel.js'
import { FLOW, IGNORED, type LineContext, type LineFormat, type Outcome, REJECTED_LINE } from '../stage.js'
import { readUserspace } from './by.js'
import { clearEvent, hasWholeKeys, setAddress, setTupleKey } from './fill.js'
import { got, isAt, isLineEnd, latin1, readAddress, readCounter, readHex, readNumber, skipBlanks, toScratch, utf8 } from './scan.js'
import { addExtra } from './vendor-words.js'
import { attributeOf } from './xml-layout.js'

const eventOf: Readonly<Record<string, number>> = { new: NEW, update: UPDATE, destroy: DESTROY }

export const conntrackXml: LineFormat = {
  name: 'conntrack-xml',
  mayBeIndented: true,

  begins(at) {
    return page[at] === 60 && (isAt(at, '<flow') || isAt(at, '<?xml') || isAt(at, '<conntrack>') || isAt(at, '</conntrack>') || isAt(at, '<expect>') || isAt(at, '</expect>'))
  },

  read(at, lineEnd, event, context) {
    if (!isAt(at, '<flow')) {
      if (isAt(at, '</conntrack>')) context.dumpEnd = true
      return IGNORED
    }
    if (lineEnd - at > RECORD_LINE_BYTES_MAX) return reject(context, 'longer than any record of conntrack')
    const text = latin1(at, lineEnd)
    const close = text.indexOf('</flow>')
    if (close < 0) return reject(context, 'the element is cut off')
    const open = /^<flow((?:\s[^<>]*)?)>/.exec(text)
    const type = attributeOf(open?.[1] ?? '', 'type')
    const kind = type === undefined ? ENTRY : eventOf[type]
    if (open === null || kind === undefined || (type === undefined && open[1]!.trim() !== '')) return reject(context, 'unknown kind of <flow>')
    const outcome = new FlowElement(at, text.slice(0, close), event, context).read(open[0].length, kind)
    if (outcome !== FLOW) return outcome
    const suffix = skipBlanks(at + close + 7)
    if (!isLineEnd(suffix) && readUserspace(suffix, event) < 0) return reject(context, 'something else than [USERSPACE] behind </flow>')
    return FLOW
  },
}

function reject(context: LineContext, reason: string): Outcome {
  context.reason = reason
  return REJECTED_LINE
}

/** Values whose text may hold anything but their own end tag, because nothing is escaped. */
const rawValues = new Set(['label', 'secctx', 'helper'])

const containers = new Set(['meta', 'layer3', 'layer4', 'counters', 'labels', 'timestamp', 'when'])
const flags = new Set(['assured', 'unreplied'])
const whenParts = new Set(['hour', 'min', 'sec', 'wday', 'day', 'month', 'year'])

/** One element being read. Offsets are of `text`; `base` is where it stands in the page. */
class FlowElement {
  readonly #base: number
  readonly #text: string
  readonly #event: FlowEvent
  readonly #context: LineContext
  #direction: 'original' | 'reply' | 'independent' | '' = ''
  #family = 0
  #state = ''
  #labels: string[] | null = null
  readonly #when: Record<string, number> = {}

  constructor(base: number, text: string, event: FlowEvent, context: LineContext) {
    this.#base = base
    this.#text = text
    this.#event = event
    this.#context = context
  }

  read(from: number, kind: number): Outcome {
    const event = this.#event
    clearEvent(event)
    event.event = kind
    const failed = this.#elements(from)
    if (failed !== '') return reject(this.#context, failed)
    if (event.orig.srcLen === 0 || event.orig.dstLen === 0) return reject(this.#context, 'no original tuple')
    if (event.reply.srcLen === 0 || event.reply.dstLen === 0) return reject(this.#context, 'no reply tuple')
    const needsKeys = event.protocol === PROTO_TCP || event.protocol === PROTO_UDP
    if (!hasWholeKeys(event.orig) || !hasWholeKeys(event.reply) || event.orig.keys !== event.reply.keys || (needsKeys && event.orig.keys !== KEYS_PORTS)) {
      return reject(this.#context, 'ports or keys missing')
    }
    const halves = [event.orig, event.reply].some((tuple) => (tuple.packetsLen === 0) !== (tuple.bytesLen === 0))
    if (halves) return reject(this.#context, 'packets without bytes, or bytes without packets')
    event.family = this.#family
    return this.#finish()
  }

  /** Goes through the tags; '' or what is wrong. */
  #elements(from: number): string {
    const text = this.#text
    const tag = /\s*<(\/?)([a-z0-9_-]+)([^<>]*)>\s*/y
    const open: string[] = []
    let p = from
    while (p < text.length) {
      tag.lastIndex = p
      const found = tag.exec(text)
      if (found === null) return 'the element is broken'
      const [whole, slash, name, rest] = found as unknown as [string, string, string, string]
      p += whole.length
      if (slash === '/') {
        if (open.pop() !== name) return `</${name}> closes nothing`
        if (name === 'meta') this.#direction = ''
      } else {
        const failed = this.#opened(name, rest)
        if (failed !== '') return failed
        if (rest.endsWith('/')) {
          if (!containers.has(name)) this.#flag(name)
          continue
        }
        const end = rawValues.has(name) ? text.indexOf(`</${name}>`, p) : text.indexOf('<', p)
        if (end < 0) return `<${name}> has no end`
        if (end > p || rawValues.has(name)) {
          let to = end
          while (to > p && (text[to - 1] === ' ' || text[to - 1] === '\t')) to--
          if (!this.#value(name, p, to)) return `<${name}> holds no such value`
          p = end
        } else if (flags.has(name)) {
          this.#flag(name)
        }
        open.push(name)
      }
    }
    return open.length === 0 ? '' : `<${open.at(-1)}> has no end`
  }

  #opened(name: string, attributes: string): string {
    if (name === 'meta') {
      const direction = attributeOf(attributes, 'direction')
      if (direction !== 'original' && direction !== 'reply' && direction !== 'independent') return 'unknown direction'
      this.#direction = direction
    } else if (name === 'layer3' || name === 'layer4') {
      const digits = attributeOf(attributes, 'protonum') ?? ''
      const number = /^[0-9]{1,3}$/.test(digits) ? Number(digits) : NaN
      if (!(number <= 255)) return `no protocol number in <${name}>`
      if (name === 'layer4') this.#event.protocol = number
    } else if (name === 'labels') {
      this.#labels = []
    }
    return ''
  }

  #flag(name: string): void {
    if (name === 'assured') this.#event.assured = true
    else if (name === 'unreplied') this.#event.unreplied = true
    else if (this.#isBehindTuples) addExtra(this.#event, name, true)
  }

  get #isBehindTuples(): boolean {
    return this.#direction === 'independent' || this.#direction === ''
  }

  /** A leaf's text from `from` to `to`. */
  #value(name: string, from: number, to: number): boolean {
    const event = this.#event
    const tuple = this.#direction === 'reply' ? event.reply : event.orig
    const at = this.#base + from
    const end = this.#base + to
    const length = to - from
    const isNumber = (max: number): boolean => readNumber(at) === end && got.value <= max
    switch (name) {
      case 'src':
      case 'dst':
        if (readAddress(at) !== end || (this.#family !== 0 && this.#family !== got.family)) return false
        this.#family = got.family
        setAddress(tuple, name)
        return true
      case 'sport':
      case 'dport':
        if (!isNumber(0xffff)) return false
        tuple.keys = KEYS_PORTS
        setTupleKey(tuple, name === 'sport' ? 1 : 2, got.value, at, length)
        return true
      case 'srckey':
      case 'dstkey':
        if (readHex(at) !== end || got.value > 0xffff) return false
        tuple.keys = KEYS_GRE
        setTupleKey(tuple, name === 'srckey' ? 1 : 2, got.value, at, length)
        return true
      case 'packets':
      case 'bytes':
        if (readCounter(at) !== end) return false
        if (name === 'packets') {
          tuple.packetsAt = at
          tuple.packetsLen = length
        } else {
          tuple.bytesAt = at
          tuple.bytesLen = length
        }
        return true
      case 'zone':
        if (!isNumber(0xffff)) return false
        if (this.#direction !== 'independent') tuple.zone = got.value
        else if (got.value !== 0) {
          event.zone = got.value
          event.has |= HAS_ZONE
        }
        return true
      case 'state':
        this.#state = this.#text.slice(from, to)
        return true
      case 'timeout':
        if (!isNumber(0xffffffff)) return false
        event.timeout = got.value
        event.timeoutAt = at
        event.timeoutLen = length
        return true
      case 'mark':
        if (!isNumber(0xffffffff)) return false
        event.markAt = at
        event.markLen = length
        if (got.value !== 0) event.has |= HAS_MARK
        return true
      case 'secmark':
        if (!isNumber(0xffffffff)) return false
        event.secmarkAt = at
        event.secmarkLen = length
        if (got.value !== 0) event.has |= HAS_SECMARK
        return true
      case 'use':
        event.useAt = at
        event.useLen = length
        event.has |= HAS_USE
        return isNumber(Infinity)
      case 'id':
        if (!isNumber(0xffffffff)) return false
        event.id = got.value | 0
        event.idAt = at
        event.idLen = length
        event.has |= HAS_ID
        return true
      case 'deltatime':
        if (!isNumber(Infinity)) return false
        event.deltaTime = got.value
        event.deltaTimeAt = at
        event.deltaTimeLen = length
        event.has |= HAS_DELTA_TIME
        return true
      case 'label':
        this.#labels?.push(this.#text.slice(from, to))
        return true
      case 'secctx':
        event.secctxAt = at
        event.secctxLen = length
        event.has |= HAS_SECCTX
        return true
      case 'helper':
        event.helperAt = at
        event.helperLen = length
        event.has |= HAS_HELPER
        return true
      case 'start':
      case 'stop':
        return this.#nanoseconds(name, this.#text.slice(from, to))
      default:
        // minutes and seconds have a leading zero
        if (whenParts.has(name)) this.#when[name] = /^[0-9]{1,4}$/.test(this.#text.slice(from, to)) ? Number(this.#text.slice(from, to)) : NaN
        else if (this.#isBehindTuples) addExtra(event, name, utf8(at, end))
        return true
    }
  }

  /** Nanoseconds since the epoch, cut to microseconds. */
  #nanoseconds(name: 'start' | 'stop', digits: string): boolean {
    if (!/^[0-9]{10,20}$/.test(digits)) return false
    const event = this.#event
    const sec = Number(digits.slice(0, -9))
    const usec = Number(digits.slice(-9, -3))
    if (sec > 0xffffffff) return false
    if (name === 'start') {
      event.startSec = sec
      event.startUsec = usec
      event.has |= HAS_START | HAS_NANOSECONDS
    } else {
      event.stopSec = sec
      event.stopUsec = usec
      event.has |= HAS_STOP | HAS_NANOSECONDS
    }
    return true
  }

  #finish(): Outcome {
    const event = this.#event
    if (this.#labels !== null) {
      const text = this.#labels.join(',')
      event.labelsAt = toScratch(text)
      event.labelsLen = text.length
      event.has |= HAS_LABELS
    }
    if (this.#state !== '') {
      const words: readonly string[] = tcpStates
      const index = this.#state === 'LISTEN' && event.protocol !== 6 ? words.indexOf('SYN_SENT2') : words.indexOf(this.#state)
      const known = statesOf(event.protocol)
      if (index < 0 || known === null || index >= known.words.length) return reject(this.#context, 'unknown state of this protocol')
      event.state = known.first + index
    }
    const { year, month, day, hour, min, sec } = this.#when
    if (year === undefined) {
      event.timeSource = TIME_RECEIVED
      event.sec = this.#context.receivedSec
      event.usec = this.#context.receivedUsec
      return FLOW
    }
    event.timeSource = TIME_LOCAL
    event.sec = this.#context.localClock(year, month!, day!, hour!, min!, sec!)
    event.usec = 0
    return Number.isFinite(event.sec) ? FLOW : reject(this.#context, '<when> is not a time')
  }
}
