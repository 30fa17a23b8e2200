/**
 * What stands before a kernel's text in a line of a log: priority, stamps, host and program. Taken off one after the other, as the loggers put them on:
 * /dev/kmsg, /proc/kmsg and syslog(2), dmesg of util-linux and busybox, journalctl's short forms, syslog files (RFC 3164, RFC 5424, ISO, OpenWrt).
 * Sources: kernel/printk/printk.c, util-linux sys-utils/dmesg.c, systemd src/shared/logs-show.c, rsyslog, syslog-ng, busybox sysklogd.
 */
import { TIME_OWN } from '../../event.js'
import type { LineContext } from '../../stage.js'
import { monthNumber } from '../local-time.js'
import { utf8, toScratch } from '../scan.js'
import { fraction, type WallClock } from './clock.js'
import { foreignClock, monthOf } from './foreign-stamp.js'

const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug']
const LEVEL_NAMES: Readonly<Record<string, number>> = { ...Object.fromEntries(LEVELS.map((name, i) => [name, i])), panic: 0, error: 3, warning: 4 }
const FACILITIES = 'kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|security|local[0-7]'
/** Tags that stand for the kernel; vmunix is the old syslogd's, klogd is who reads the log for it. */
const KERNEL_PROGRAMS = new Set(['kernel', 'kern', 'vmunix', 'klogd'])

/** Where the time of a line comes from; `unix` in microseconds since the epoch, `minute` and `plus` are dmesg's relative times. */
export type Stamp =
  | { readonly kind: 'wall'; readonly clock: WallClock }
  | { readonly kind: 'unix'; readonly microseconds: number; readonly source: typeof TIME_OWN }
  | { readonly kind: 'minute'; readonly clock: WallClock }
  | { readonly kind: 'plus'; readonly microseconds: number }

export interface Carrier {
  /** KERNEL_PROGRAM, another program's name, '' where the form names none */
  program: string
  /** '' where the form names none */
  host: string
  /** only the kernel can have written it */
  trusted: boolean
  priority: number
  facility: number
  seq: number
  /** microseconds since boot, -1 absent */
  monotonic: number
  stamp: Stamp | null
  /** something stands there that is a stamp and cannot be read */
  unread: boolean
  /** in the journal's verbose form: the entry's cursor, whose fields follow on further lines */
  cursor: string
  text: string
}

export const KERNEL_PROGRAM = 'kernel'

/** Names and addresses, also several joined by a relay (`relay/gw1`, `s_net@gw1`); what loggers put where they know none (`-`, `?`, `(none)`, `unknown`) is none. */
const HOST_NAME = /^(?!unknown$)[\p{L}\p{N}_][\p{L}\p{N}_.:@/%-]{0,254}$/u

/** Of the line itself, else of the one that carries it. */
export function hostOf(named: string, context: LineContext): string {
  return HOST_NAME.test(named) ? named : context.host
}

/** A record of the kernel has at most 1,024 bytes of text, four times as many with every one escaped, and what loggers put before it. */
export const LINE_MAX = 16_384

/** A record of /dev/kmsg: its header and its text, escapes undone. `flag` is one of `-`, `c`, `+`. */
export interface KmsgRecord extends Carrier {
  readonly flag: string
  readonly caller: string
}

const KMSG = /^(\d{1,4}),(\d{1,20}),(\d{1,16})(?:,([^,;]*)((?:,[^,;]*)*))?;(.*)$/s
/** Digits and commas up to a semicolon, or nothing but what a header is made of: it begins like a record, whatever follows. */
const KMSG_LIKE = /^\d+,(?:[^\s;]*;|\d+,\d+(?:,[-c+]?(?:,[\w=]*)*)?$)/

/** null: no record of /dev/kmsg; 'broken': begins like one. */
export function readKmsg(line: string): KmsgRecord | 'broken' | null {
  const found = KMSG.exec(line)
  if (found === null) return KMSG_LIKE.test(line) ? 'broken' : null
  const [, pri, seq, monotonic, flag, extra, text] = found
  return {
    ...unknownCarrier(unescaped(text!)),
    program: KERNEL_PROGRAM,
    trusted: true,
    priority: Number(pri) & 7,
    facility: Number(pri) >> 3,
    seq: Number(seq),
    monotonic: Number(monotonic),
    flag: flag ?? '-',
    caller: /,caller=([^,]*)/.exec(extra ?? '')?.[1] ?? '',
  }
}

/** `\xNN` of the kernel's records are bytes, of which several may be one character. */
function unescaped(text: string): string {
  if (!text.includes('\\x')) return text
  return text.replace(/(?:\\x[0-9a-f]{2})+/g, (run) => {
    const bytes = run.slice(2).split('\\x').map((hex) => String.fromCharCode(parseInt(hex, 16)))
    const at = toScratch(bytes.join(''))
    return utf8(at, at + bytes.length)
  })
}

function unknownCarrier(text: string): Carrier {
  return { program: '', host: '', trusted: false, priority: -1, facility: -1, seq: -1, monotonic: -1, stamp: null, unread: false, cursor: '', text }
}

const ANSI = /\x1b\[[0-9;]*m/g
const PRI = /^(?:\d{1,7} (?=<))?<(\d{1,4})>/
const DECODED = new RegExp(`^(${FACILITIES}) *:(${LEVELS.join('|')}) *: `)
const DAY_NAME = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)'
const CLOCK = '(\\d\\d):(\\d\\d):(\\d\\d)'
/** `[  525.051587]`, with dmesg's or the journal's difference to the line before, or the room for it; vendors' kernels put the CPU behind it, and print other digits. */
const MONOTONIC = /^\[ *(\d{1,10})\.(\d{3,9})(?: ?@ ?\d{1,4}(?:,\d{1,4})?)?(?: *<[ \d.]*\*?>)? *\] ?/
const CTIME = new RegExp(`^\\[(${DAY_NAME}) ([A-Z][a-z]{2}) +(\\d{1,2}) ${CLOCK} (\\d{4})(?: *<[ \\d.]*>)?\\] ?`)
/** The same in another language. */
const FOREIGN_CTIME = /^\[([^\][\n]{0,40}\d{1,2}:\d\d:\d\d[^\][<\n]{0,20}?)(?: *<[ \d.]*>)?\] ?/
const DELTA_ALONE = /^\[<[ \d.]+>\] ?/
const MINUTE = /^\[([A-Z][a-z]{2}) ?(\d{1,2}) (\d\d):(\d\d)\] ?/
const PLUS = /^\[ *\+(\d{1,10})\.(\d{6})\] ?/
/** printk's caller; the CPU, `(0)[process:pid]` and `[0: process: pid]` of vendors' kernels. */
const CALLER = /^(?:\[ *[TC]? ?\d+\] ?|-?\(\d{1,3}\)\[\d+:[^\]\n]{0,40}\] ?|\[\d{1,3}: *[^\]:\n]{1,32}: *\d+\] ?)/
const ISO_COMMA = new RegExp(`^(\\d{4})-(\\d\\d)-(\\d\\d)T${CLOCK},(\\d{1,9})(Z|[+-]\\d\\d:?\\d\\d) ?`)
const ISO = new RegExp(`^(\\d{4})-(\\d\\d)-(\\d\\d)[T ]${CLOCK}(?:[.,](\\d{1,9}))?(Z|[+-]\\d\\d:?\\d\\d)? `)
const RFC3164 = new RegExp(`^([A-Z][a-z]{2}) +(\\d{1,2})(?: (\\d{4}))? ${CLOCK}(?:[.,](\\d{1,9}))?:? `)
/** The same in another language, with up to four words before the clock and the year or the zone's name behind it. */
const FOREIGN_SYSLOG = /^((?:[^\s:[\]<>{}"=]{1,20},?\s+){1,4}\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?(?:\s+\d{4}(?=\s))?)\s/
const FULL = new RegExp(`^${DAY_NAME} (\\d{4})-(\\d\\d)-(\\d\\d) ${CLOCK}(?:\\.(\\d{1,6}))? ([A-Z]{1,6}|[+-]\\d\\d:?(?:\\d\\d)?) `)
const UNIX = /^(\d{9,11})\.(\d{6}) (?=\S+ )/
const OPENWRT = new RegExp(`^(${DAY_NAME}) ([A-Z][a-z]{2}) +(\\d{1,2}) ${CLOCK} (\\d{4}) (?:\\[\\d+\\.\\d+\\] )?`)
const RFC5424 = /^1 (\S{1,64}) (\S{1,255}) (\S{1,64}) (\S{1,128}) (\S{1,64}) (?:-|(?:\[(?:[^\]"\\]|"(?:[^"\\]|\\.)*")*\])+)(?: \ufeff?(.*))?$/s
const VERBOSE = /^\[(s=[0-9a-f]+;i=[0-9a-f]+;b=[^\]]*)\]$/
/** Host (which may be missing, and may hold colons but not end in one), facility and level of busybox, program. */
const TAGGED = new RegExp(`^(?:(\\S{0,254}[^\\s:]) )?(?:(${FACILITIES})\\.([a-z]+) )?([^\\s:[]{1,64})(?:\\[[^\\]]{0,64}\\])?: ?`)
const UNTAGGED = /^(?:(\S{0,254}[^\s:\]]) +)?(?=(?:\[ *\d{1,10}\.\d{3,9}(?:@\d+)?\] *)?(?:(?:nf|ip)_conntrack|net_ratelimit|__ratelimit): )/
const FACILITY_LEVEL = new RegExp(`^(${FACILITIES})\\.([a-z]+)$`)
const FOLDED = /^(?:(\S{0,254}[^\s:]) )?(?:-+ )?(?:\S{1,64}: )?(?=last message repeated \d+ times?)/
/** Behind the kernel's clock, as journalctl's short-monotonic has it: the kernel's tag, or a program with its process. */
const HOST_KERNEL = /^(\S{1,255}) (kernel)(?:\[\d+\])?: ?/
const HOST_PROGRAM = /^(\S{1,255}) ([\w./-]{1,64})\[\d+\]: /
const PROGRAM = /^()([\w./-]{1,64})\[\d+\]: /
const LOGGER = /^(?:(\S{1,255}) )?(systemd-journald|rsyslogd|syslog-ng)(?:\[\d+\])?: /

/** Any other line. The text of a line without a known beginning is the whole of it. */
export function readCarrier(line: string): Carrier {
  const carrier = unknownCarrier(line.includes('\x1b') ? line.replace(ANSI, '') : line)
  let found = take(carrier, PRI)
  if (found !== null) {
    setPri(carrier, Number(found[1]))
    carrier.trusted = true
  }
  if ((found = RFC5424.exec(carrier.text)) !== null) return rfc5424(carrier, found)
  if ((found = take(carrier, DECODED)) !== null) {
    setLevel(carrier, found[1]!, found[2]!)
    carrier.trusted = true
  }
  if (syslogStamp(carrier)) return tagged(carrier)
  dmesgStamps(carrier)
  return program(carrier)
}

/** Takes the pattern off the text. */
function take(carrier: Carrier, pattern: RegExp): RegExpExecArray | null {
  const found = pattern.exec(carrier.text)
  if (found !== null) carrier.text = carrier.text.slice(found[0].length)
  return found
}

function setPri(carrier: Carrier, pri: number): void {
  carrier.priority = pri & 7
  carrier.facility = pri >> 3
}

/** By name: only the kernel's facility is told from the others. */
function setLevel(carrier: Carrier, facility: string, level: string): void {
  carrier.facility = facility === 'kern' ? 0 : 1
  carrier.priority = LEVEL_NAMES[level] ?? -1
}

function setMonotonic(carrier: Carrier, found: RegExpExecArray): void {
  carrier.monotonic = Number(found[1]) * 1e6 + fraction(found[2])
}

/** dmesg from 2.40 on may be asked for several at once, and then prints one behind the other. */
function dmesgStamps(carrier: Carrier): void {
  let found: RegExpExecArray | null
  for (;;) {
    if ((found = take(carrier, MONOTONIC)) !== null) setMonotonic(carrier, found)
    else if ((found = take(carrier, CTIME)) !== null) setWall(carrier, namedDay(found))
    else if ((found = take(carrier, ISO_COMMA)) !== null) setWall(carrier, isoClock(found))
    else if ((found = take(carrier, MINUTE)) !== null) {
      carrier.stamp ??= { kind: 'minute', clock: clockOf(undefined, monthNumber(found[1]!), found[2], found[3], found[4], '0') }
    } else if ((found = take(carrier, PLUS)) !== null) carrier.stamp ??= { kind: 'plus', microseconds: Number(found[1]) * 1e6 + Number(found[2]) }
    else if (take(carrier, DELTA_ALONE) === null && !foreignCtime(carrier)) break
    carrier.trusted = true
  }
  if (carrier.trusted) take(carrier, CALLER)
}

/** The best that the line has: with a zone before without. */
function setWall(carrier: Carrier, clock: WallClock): void {
  if (carrier.stamp?.kind !== 'wall' || clock.offset !== null) carrier.stamp = { kind: 'wall', clock }
}

/** A stamp that a host and a program follow. */
function syslogStamp(carrier: Carrier): boolean {
  let found: RegExpExecArray | null
  if (ISO_COMMA.test(carrier.text)) return false
  if ((found = take(carrier, ISO)) !== null) setWall(carrier, isoClock(found))
  else if ((found = take(carrier, RFC3164)) !== null) setWall(carrier, clockOf(found[3], monthOf([found[1]!], Number(found[2]), -1), found[2], found[4], found[5], found[6], found[7]))
  else if ((found = take(carrier, FULL)) !== null) {
    setWall(carrier, { ...clockOf(found[1], Number(found[2]), found[3], found[4], found[5], found[6], found[7]), offset: offsetOf(found[8]!) })
    carrier.cursor = VERBOSE.exec(carrier.text)?.[1] ?? ''
  } else if ((found = take(carrier, OPENWRT)) !== null) setWall(carrier, namedDay(found))
  else if ((found = take(carrier, UNIX)) !== null) carrier.stamp = { kind: 'unix', microseconds: Number(found[1]) * 1e6 + Number(found[2]), source: TIME_OWN }
  else if ((found = take(carrier, FOREIGN_SYSLOG)) !== null) setForeign(carrier, found[1]!)
  carrier.trusted &&= found === null
  return found !== null
}

/** `Sun Nov 22 09:59:11 2026`. */
function namedDay([, weekday, month, day, hour, minute, second, year]: RegExpExecArray): WallClock {
  return clockOf(year, monthNumber(month!) || monthOf([weekday!, month!], Number(day), Number(year)), day, hour, minute, second)
}

function foreignCtime(carrier: Carrier): boolean {
  const found = take(carrier, FOREIGN_CTIME)
  if (found !== null) setForeign(carrier, found[1]!)
  return found !== null
}

function setForeign(carrier: Carrier, text: string): void {
  const clock = foreignClock(text)
  if (clock === null) carrier.unread = true
  else setWall(carrier, clock)
}

function isoClock(found: RegExpExecArray): WallClock {
  return { ...clockOf(found[1], Number(found[2]), found[3], found[4], found[5], found[6], found[7]), offset: found[8] === undefined ? null : offsetOf(found[8]) }
}

/** Seconds east of UTC; null for a zone's abbreviation, which more than one zone may have. */
function offsetOf(zone: string): number | null {
  if (/^(Z|UTC|GMT)$/.test(zone)) return 0
  const found = /^([+-])(\d\d):?(\d\d)?$/.exec(zone)
  return found === null ? null : (found[1] === '-' ? -1 : 1) * (Number(found[2]) * 3600 + Number(found[3] ?? 0) * 60)
}

type Digits = string | undefined

function clockOf(year: Digits, month: number, day: Digits, hour: Digits, minute: Digits, second: Digits, digits?: Digits): WallClock {
  return {
    year: year === undefined ? -1 : Number(year),
    month,
    day: Number(day),
    hour: Number(hour),
    minute: Number(minute),
    second: Number(second),
    usec: fraction(digits),
    offset: null,
  }
}

function rfc5424(carrier: Carrier, [, time, host, program, , , text]: RegExpExecArray): Carrier {
  const stamp = ISO.exec(`${time!} `)
  if (stamp !== null) setWall(carrier, isoClock(stamp))
  carrier.trusted = false
  carrier.host = host!
  carrier.program = programName(program!)
  carrier.text = text ?? ''
  return innerClock(carrier)
}

function programName(name: string): string {
  return KERNEL_PROGRAMS.has(name) ? KERNEL_PROGRAM : name
}

/**
 * Behind a stamp: host and program; without a program it is nobody's. Where a template leaves out the tag, the kernel's text itself begins with one
 * (`nf_conntrack: `), or its clock follows the host.
 */
function tagged(carrier: Carrier): Carrier {
  carrier.text = carrier.text.trimStart()
  let found = take(carrier, FOLDED)
  if (found !== null) {
    carrier.host = found[1] ?? ''
    carrier.program = '-'
    return carrier
  }
  if ((found = take(carrier, UNTAGGED)) !== null) {
    carrier.host = found[1] ?? ''
    carrier.program = KERNEL_PROGRAM
    return innerClock(carrier)
  }
  found = take(carrier, TAGGED)
  if (found === null) {
    carrier.program = '-'
    return carrier
  }
  const [, host, facility, level, name] = found
  const alone = host === undefined || facility !== undefined ? null : FACILITY_LEVEL.exec(host)
  if (alone !== null) setLevel(carrier, alone[1]!, alone[2]!)
  else carrier.host = host ?? ''
  if (facility !== undefined) setLevel(carrier, facility, level!)
  carrier.program = programName(name!)
  return innerClock(carrier)
}

/** The kernel's own stamp behind the logger's, with an old klogd's priority before it. */
function innerClock(carrier: Carrier): Carrier {
  const pri = take(carrier, /^<(\d)>/)
  if (pri !== null && carrier.priority < 0) carrier.priority = Number(pri[1])
  const found = take(carrier, MONOTONIC)
  if (found !== null) {
    setMonotonic(carrier, found)
    take(carrier, CALLER)
  }
  return carrier
}

/** Without a syslog's stamp: the kernel's text as it stands, unless a program is named. */
function program(carrier: Carrier): Carrier {
  let found: RegExpExecArray | null
  if ((carrier.monotonic >= 0 || carrier.stamp === null) && (found = take(carrier, HOST_KERNEL)) !== null) {
    // at the very beginning of a line it may be the rest of what a copy has cut off
    if (carrier.monotonic >= 0) carrier.host = found[1]!
    carrier.program = KERNEL_PROGRAM
    carrier.trusted = false
    innerClock(carrier)
  } else if (carrier.stamp === null && carrier.text.startsWith('kernel: ')) {
    carrier.text = carrier.text.slice('kernel: '.length)
    carrier.program = KERNEL_PROGRAM
    carrier.trusted = false
    innerClock(carrier)
  } else if ((found = take(carrier, LOGGER) ?? take(carrier, carrier.monotonic >= 0 ? HOST_PROGRAM : PROGRAM)) !== null) {
    carrier.host = found[1] ?? ''
    carrier.program = programName(found[2]!)
    carrier.trusted = false
  }
  return carrier
}

/** A tag of a program, which is not the kernel's: whoever stands behind it speaks. */
const OTHERS_TAG = /(?:^|\s)[A-Za-z_][\w./-]*(?:\[\d+\])?: /
const ANY_KERNEL_TAG = /^(.{1,160}?(?:^|[\s\])}>|;,]))(?:kernel|vmunix|klogd)(?:\[\d*\])?: */
const ANY_BRACKET = /^[^\w[]{0,3}\[[^\][\n]{1,64}\] */
const WORDS_BEFORE = 8

/**
 * The kernel's texts that a line may hold whose beginning is none of those known, likeliest first: behind the kernel's tag, behind a bracket, behind any few words
 * of which one has a digit. Each as the carrier that it would be.
 */
export function* behindUnread(carrier: Carrier): Generator<Carrier> {
  const { text } = carrier
  const tag = ANY_KERNEL_TAG.exec(text)
  if (tag !== null && !OTHERS_TAG.test(tag[1]!)) {
    const words = tag[1]!.trim().split(/\s+/)
    const host = words.length > 1 && /^[A-Za-z][\w.-]*$/.test(words.at(-1)!) ? words.at(-1)! : ''
    yield innerClock({ ...carrier, program: KERNEL_PROGRAM, host, trusted: false, unread: true, text: text.slice(tag[0].length) })
  }
  const bracket = ANY_BRACKET.exec(text)
  if (bracket !== null && /\d/.test(bracket[0])) yield innerClock({ ...carrier, unread: true, text: text.slice(bracket[0].length) })
  let at = 0
  for (let i = 0; i < WORDS_BEFORE; i++) {
    const next = /\s+/g
    next.lastIndex = at
    const blank = next.exec(text)
    if (blank === null) return
    at = next.lastIndex
    const before = text.slice(0, at)
    if (/\d/.test(before) && !OTHERS_TAG.test(before)) yield innerClock({ ...carrier, trusted: false, unread: true, text: text.slice(at) })
  }
}
