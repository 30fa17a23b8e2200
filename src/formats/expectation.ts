/**
 * Expectations: `conntrack -E expect`, `-L expect`, their XML, `conntrackd -i exp`, /proc/net/nf_conntrack_expect and ip_conntrack_expect, and the `EXPECTING:` lines
 * of kernel 2.4.
 * Rare lines, so plain patterns on text. Grammar: libnetfilter_conntrack src/expect/snprintf_*.c, net/netfilter/nf_conntrack_expect.c.
 */
import { addressText } from '../address.js'
import { type ExpectEvent, type ExpectTuple, DESTROY, ENTRY, KEYS_GRE, KEYS_ICMP, KEYS_NONE, KEYS_PORTS, NEW, page, TIME_LOCAL, TIME_RECEIVED } from '../event.js'
import { EXPECTATION_LINE_BYTES_MAX, RECORD_LINE_BYTES_MAX } from '../kernel.js'
import { EXPECT, type LineContext, type LineFormat, REJECTED_LINE } from '../stage.js'
import { got, isAt, isBlank, LF, readAddress, skipBlanks, toScratch, utf8 } from './scan.js'
import { attributeOf } from './xml-layout.js'

export const expectation: LineFormat = {
  name: 'expectation',
  mayBeIndented: true,

  /** `300 proto=6 `, `- l3proto = 2 `, `EXPECTING: ` */
  begins(at) {
    if (page[at] === 69) return isAt(at, 'EXPECTING:')
    if (isAt(at, 'proto=')) return true
    let p = at
    if (page[p] === 45) p++
    else while ((page[p] - 48) >>> 0 <= 9) p++
    if (p === at || !isBlank(page[p])) return false
    p = skipBlanks(p)
    return isAt(p, 'proto=') || (isAt(p, 'l3proto') && page[skipBlanks(p + 7)] === 61)
  },

  read(at, lineEnd, event, context) {
    event.event = ENTRY
    event.timeSource = TIME_RECEIVED
    event.sec = context.receivedSec
    event.usec = context.receivedUsec
    return readExpectation(at, lineEnd, event, context)
  },
}

interface Head {
  readonly event: number
  readonly sec: number
  readonly usec: number
  readonly timeSource: number
}

/** What conntrackd says of an entry of its caches: conntrack-tools src/cache-exp.c, cache_timer.c. */
const CACHED = '\\[(?:active since|expires in) -?\\d+s\\]'
const keys = '(?: (?:sport=\\d+ dport=\\d+|type=\\d+ code=\\d+ id=\\d+|srckey=0x[0-9a-f]+ dstkey=0x[0-9a-f]+))?'
/** A blank stands for any run of blanks and TABs. */
const line = new RegExp(
  (
    `^(?:EXPECTING: )?(?:(\\d+|-) )?(?:use=\\d+ )?(?:l3proto = (\\d+) )?proto=(\\d+) ` +
    `(src=\\S+ dst=\\S+${keys})(?: (mask-src=\\S+ mask-dst=\\S+${keys}))?(?: (master-src=\\S+ master-dst=\\S+${keys}))?` +
    `(?: zone=(\\d+))?(?: ((?:PERMANENT|INACTIVE|USERSPACE)(?:,(?:INACTIVE|USERSPACE))*))?(?: class=(\\d+))?` +
    `(?: (?:helper=(\\S+)|([^\\s=/[\\]]+)(?:/\\S+)?))?(?: ${CACHED}){0,2}(?: )?\\r?$`
  ).replaceAll(' ', '[ \\t]+'),
)

/** From behind stamp and tag. The event's head says when and what. */
export function readExpectation(at: number, lineEnd: number, head: Head, context: LineContext): typeof EXPECT | typeof REJECTED_LINE {
  if (lineEnd - at > EXPECTATION_LINE_BYTES_MAX) return reject(context, 'longer than any expectation of conntrack')
  const found = line.exec(utf8(at, lineEnd))
  if (found === null) return reject(context, 'an expectation that breaks its grammar')
  const [, timeout, , protocol, tupleText, maskText, masterText, zone, flags, klass, helper, procHelper] = found
  const tuple = textTuple(tupleText!)
  const mask = maskText === undefined ? null : textTuple(maskText.replaceAll('mask-', ''))
  const master = masterText === undefined ? null : textTuple(masterText.replaceAll('master-', ''))
  if (tuple === 'broken' || mask === 'broken' || master === 'broken' || Number(protocol) > 255) return reject(context, 'an expectation with a tuple that is none')
  // only /proc prints none
  if (mask === null && head.event !== ENTRY) return reject(context, 'an expectation event without a mask')
  const received = head.timeSource === TIME_RECEIVED
  context.expect = {
    event: kindOf(head.event),
    family: tuple.src.includes(':') ? 6 : 4,
    protocol: Number(protocol),
    sec: received ? context.receivedSec : head.sec,
    usec: received ? context.receivedUsec : head.usec,
    timeSource: head.timeSource,
    timeout: timeout === undefined || timeout === '-' ? -1 : Number(timeout),
    tuple,
    mask,
    master,
    zone: Number(zone ?? 0),
    flags: flags === undefined ? [] : flags.toLowerCase().split(','),
    class: Number(klass ?? -1),
    // /proc prints the helper's name bare, with its policy behind a slash
    helper: helper ?? procHelper ?? '',
  }
  return EXPECT
}

function kindOf(event: number): ExpectEvent['event'] {
  return event === DESTROY ? DESTROY : event === ENTRY ? ENTRY : NEW
}

function reject(context: LineContext, reason: string): typeof REJECTED_LINE {
  context.reason = reason
  return REJECTED_LINE
}

function textTuple(text: string): ExpectTuple | 'broken' {
  const part = new Map(text.split(/[ \t]+/).map((pair) => pair.split('=') as [string, string]))
  return makeTuple(part.get('src')!, part.get('dst')!, (name) => part.get(name))
}

function makeTuple(srcText: string, dstText: string, key: (name: string) => string | undefined): ExpectTuple | 'broken' {
  const src = addressOf(srcText)
  const dst = addressOf(dstText)
  if (src === null || dst === null || src.text.includes(':') !== dst.text.includes(':')) return 'broken'
  const number = (name: string, max: number): number => {
    const value = Number(key(name) ?? 0)
    return value <= max ? value : NaN
  }
  const [kind, k1, k2, k3] =
    key('sport') !== undefined
      ? [KEYS_PORTS, number('sport', 0xffff), number('dport', 0xffff), 0]
      : key('type') !== undefined
        ? [KEYS_ICMP, number('type', 255), number('code', 255), number('id', 0xffff)]
        : key('srckey') !== undefined
          ? [KEYS_GRE, number('srckey', 0xffffffff), number('dstkey', 0xffffffff), 0]
          : [KEYS_NONE, 0, 0, 0]
  if (Number.isNaN(k1! + k2! + k3!)) return 'broken'
  return { src: src.text, dst: dst.text, words: [...src.words, ...dst.words], keys: kind!, k1: k1!, k2: k2!, k3: k3! }
}

/** Canonical text and four words; null for what is no address. */
function addressOf(text: string): { text: string; words: number[] } | null {
  const at = toScratch(`${text}\n`)
  const end = readAddress(at)
  if (end < 0 || page[end] !== LF) return null
  const words = [got.w0, got.w1, got.w2, got.w3]
  return { text: addressText(got.w0, got.w1, got.w2, got.w3, got.family === 4 ? 4 : 6), words }
}

/** `<flow type="new"><layer3 …><expected>…`: tuples are spread over the two layers. */
export const expectationXml: LineFormat = {
  name: 'expectation-xml',
  mayBeIndented: true,

  begins(at) {
    if (page[at] !== 60 || !isAt(at, '<flow')) return false
    let p = at + 5
    while (page[p] !== 62 && page[p] !== LF) p++
    return page[p] === 62 && isAt(skipBlanks(p + 1), '<layer3')
  },

  read(at, lineEnd, _event, context) {
    if (lineEnd - at > RECORD_LINE_BYTES_MAX) return reject(context, 'longer than any expectation of conntrack')
    const text = utf8(at, lineEnd)
    const open = /^<flow((?:\s[^<>]*)?)>/.exec(text)
    const type = attributeOf(open?.[1] ?? '', 'type')
    if (open === null || !text.includes('</flow>') || !/^(new|update|destroy)?$/.test(type ?? open[1]!.trim())) return reject(context, 'the element is cut off')
    const layer3 = inner(text, 'layer3') ?? ''
    const layer4 = /<layer4([^>]*?)(?:\/>|>(.*?)<\/layer4>)/.exec(text)
    const protocol = attributeOf(layer4?.[1] ?? '', 'protonum') ?? ''
    const meta = inner(text, 'meta') ?? ''
    const tuple = (name: string): ExpectTuple | null | 'broken' => {
      const address = inner(layer3, name)
      if (address === undefined) return null
      const ports = inner(layer4?.[2] ?? '', name) ?? ''
      return makeTuple(inner(address, 'src') ?? '', inner(address, 'dst') ?? '', (key) => inner(ports, key))
    }
    const expected = tuple('expected')
    const mask = tuple('mask')
    const master = tuple('master')
    if (!/^\d{1,3}$/.test(protocol) || Number(protocol) > 255 || expected === null || expected === 'broken' || mask === 'broken' || master === 'broken') {
      return reject(context, 'an expectation with a tuple that is none')
    }
    const when = inner(text, 'when')
    const part = (name: string): number => Number(inner(when ?? '', name) ?? NaN)
    const sec = when === undefined ? context.receivedSec : context.localClock(part('year'), part('month'), part('day'), part('hour'), part('min'), part('sec'))
    if (!Number.isFinite(sec)) return reject(context, '<when> is not a time')
    context.expect = {
      event: type === undefined ? ENTRY : type === 'destroy' ? DESTROY : NEW,
      family: expected.src.includes(':') ? 6 : 4,
      protocol: Number(protocol),
      sec,
      usec: when === undefined ? context.receivedUsec : 0,
      timeSource: when === undefined ? TIME_RECEIVED : TIME_LOCAL,
      timeout: Number(inner(meta, 'timeout') ?? -1),
      tuple: expected,
      mask,
      master,
      zone: Number(inner(meta, 'zone') ?? 0),
      flags: ['permanent', 'inactive', 'userspace'].filter((flag) => new RegExp(`<${flag}\\s*(?:/>|>\\s*</${flag}>)`).test(meta)),
      class: Number(inner(meta, 'class') ?? -1),
      helper: inner(meta, 'helper-name') ?? '',
    }
    return EXPECT
  },
}

/** Text of the first element of that name, up to its first end tag. */
function inner(from: string, name: string): string | undefined {
  return new RegExp(`<${name}(?:\\s[^>]*)?>(.*?)</${name}>`).exec(from)?.[1]?.trim()
}
