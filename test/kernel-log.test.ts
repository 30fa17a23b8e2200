/** The kernel's log in every carrier: the same events from every form, times, folded lines, losses, packets, and sums that close whatever comes. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { FlowEvent, type Gap, type KernelEvent, page, type TableSample, TIME_BOOT, TIME_LOCAL, TIME_NEIGHBOUR, TIME_OWN, TIME_RECEIVED, LINE_BYTES_MAX } from '../src/event.js'
import { NOT_OURS, parseText } from '../src/formats/conntrack-text.js'
import { journalExport } from '../src/formats/journal-export.js'
import { jsonLines } from '../src/formats/json-lines.js'
import { lastMonotonic } from '../src/formats/kernel-log/last-monotonic.js'
import { kernelLog } from '../src/formats/kernel-log.js'
import { localClock } from '../src/formats/local-time.js'
import { Frame } from '../src/frame.js'
import { type BootTime, FLOW, HELD, IGNORED, KERNEL, newLineContext, NOTE, type Outcome, REJECTED_LINE } from '../src/stage.js'
import { byteByByte, random, randomCuts } from './harness.js'

const fixtures = new URL('../fixtures/', import.meta.url)
const names = readdirSync(fixtures).filter((name) => name.startsWith('kernel-log.') && name.endsWith('.in'))
const fixture = (name: string): Buffer => readFileSync(new URL(name, fixtures))
const utc = (text: string): number => Date.parse(text) / 1000

interface Options {
  readonly received?: string
  readonly zone?: string
  readonly boot?: BootTime | null
  /** bytes behind which the input is quiet for a second */
  readonly quietAt?: readonly number[]
}

interface Read {
  readonly kernel: KernelEvent[]
  readonly gaps: Gap[]
  readonly samples: TableSample[]
  readonly rejects: string[]
  readonly diagnostics: string[]
  /** of each line, in the order in which they were settled */
  readonly outcomes: Outcome[]
  readonly lines: number
}

const LF = 10

function readPieces(pieces: readonly Uint8Array[], options: Options = {}): Read {
  const formats = [jsonLines(), journalExport(), kernelLog()]
  const frame = new Frame(0, LINE_BYTES_MAX)
  const event = new FlowEvent()
  const received = utc(options.received ?? '2026-11-22T12:00:00Z')
  const read: Read & { lines: number } = { kernel: [], gaps: [], samples: [], rejects: [], diagnostics: [], outcomes: [], lines: 0 }
  const context = newLineContext(localClock(options.zone ?? 'UTC'), () => options.boot ?? null)
  context.receivedSec = received
  const take = (outcome: Outcome, kernel: KernelEvent | null, gap: Gap | null, sample: TableSample | null, reason: string): void => {
    read.outcomes.push(outcome)
    if (outcome === KERNEL) read.kernel.push(kernel!)
    if (outcome === NOTE && gap !== null) read.gaps.push(gap)
    if (outcome === NOTE && sample !== null) read.samples.push(sample)
    if (outcome === REJECTED_LINE) read.rejects.push(reason)
  }
  const settled = (): void => {
    for (const each of context.settled.splice(0)) take(each.outcome, each.kernel, each.gap, each.sample, each.reason)
  }
  const batch = (): void => {
    let at = frame.at
    while (at < frame.end) {
      const lineEnd = page.indexOf(LF, at)
      read.lines++
      context.gap = context.kernel = context.sample = null
      context.diagnostic = context.reason = ''
      const said = parseText(at, frame.end, event, context)
      let outcome: Outcome = said > 0 ? FLOW : said === NOT_OURS ? IGNORED : REJECTED_LINE
      const format = said === NOT_OURS ? formats.find((each) => each.begins(at)) : undefined
      if (format !== undefined) outcome = format.read(at, lineEnd, event, context)
      settled()
      if (outcome !== HELD) take(outcome, context.kernel, context.gap, context.sample, context.reason)
      if (context.diagnostic !== '') read.diagnostics.push(context.diagnostic)
      at = lineEnd + 1
    }
    frame.keep(at)
  }
  const quiet = (): void => {
    for (const each of formats) each.settle?.(context)
    settled()
  }
  let seen = 0
  for (const piece of pieces) {
    for (let from = 0; from < piece.length; from += 65_536) {
      frame.lay(piece.subarray(from, from + 65_536))
      batch()
    }
    seen += piece.length
    if (options.quietAt?.includes(seen) === true) quiet()
  }
  frame.finish()
  batch()
  quiet()
  expect(read.outcomes.length).toBe(read.lines)
  expect(read.outcomes).not.toContain(HELD)
  return read
}

const readText = (text: string, options: Options = {}): Read => readPieces([Buffer.from(text)], options)

/** What every form can say. */
const said = ({ kind, netns, message, repeat, count, buckets, max, packet }: KernelEvent): unknown => ({ kind, netns, message, repeat, count, buckets, max, packet })
const isoOf = ({ sec, usec }: { sec: number; usec: number }): string => `${new Date(sec * 1000).toISOString().slice(0, 19)}.${String(usec).padStart(6, '0')}`

const KMSG = 'kernel-log.rich.kmsg.linux-6.18.in'
const FULL = 'nf_conntrack: nf_conntrack: table full, dropping packet'
const BOOT: BootTime = { microseconds: utc('2026-11-22T09:50:20Z') * 1e6, source: TIME_BOOT }

/** Which facts of /dev/kmsg a form keeps. */
const hasPriority = (name: string): boolean => /kmsg|raw|decode|dmesg-json|export|journalctl-json|verbose/.test(name)
const hasMonotonic = (name: string): boolean => /kmsg|dmesg-(raw|decode\.|default|delta|json)|export|journalctl-json|verbose|monotonic|short-delta/.test(name)

describe('one log in every form', () => {
  const want = readPieces([fixture(KMSG)])
  const forms = names.filter((name) => name.startsWith('kernel-log.rich.'))

  test('is all there', () => {
    expect(forms.length).toBe(28)
    expect(want.kernel.length).toBe(45)
    expect(want.kernel.map(({ kind }) => kind).filter((kind) => kind === 'table_full').length).toBe(30)
  })

  test.each(forms)('%s', (name) => {
    const got = readPieces([fixture(name)])
    expect(got.rejects).toEqual([])
    expect(got.kernel.map(said)).toEqual(want.kernel.map(said))
    if (hasPriority(name)) expect(got.kernel.map(({ priority, facility }) => [priority, facility])).toEqual(want.kernel.map(({ priority, facility }) => [priority, facility]))
    if (hasMonotonic(name)) expect(got.kernel.map(({ monotonic }) => monotonic)).toEqual(want.kernel.map(({ monotonic }) => monotonic))
    expect(got.outcomes.filter((each) => each === KERNEL).length).toBe(45)
  })

  test.each(forms)('%s in any pieces', (name) => {
    const bytes = fixture(name)
    const whole = readPieces([bytes])
    if (bytes.length < 10_000) expect(readPieces(byteByByte(bytes))).toEqual(whole)
    for (const seed of [1, 2]) expect(readPieces(randomCuts(bytes, random(seed), 90))).toEqual(whole)
  })

  test.each([
    [KMSG, '2026-11-22T11:23:17.763837', TIME_BOOT],
    ['kernel-log.rich.dmesg-default.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:17.763837', TIME_BOOT],
    ['kernel-log.rich.dmesg-json.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:17.763837', TIME_BOOT],
    ['kernel-log.rich.dmesg-delta.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:17.763837', TIME_BOOT],
    ['kernel-log.rich.dmesg-ctime.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:17.000000', TIME_LOCAL],
    ['kernel-log.rich.dmesg-iso.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:17.763837', TIME_OWN],
    ['kernel-log.rich.dmesg-reltime.linux-6.18.util-linux-2.38.in', '2026-11-22T11:23:00.000000', TIME_LOCAL],
    ['kernel-log.rich.dmesg-notime.linux-6.18.util-linux-2.38.in', '2026-11-22T12:00:00.000000', TIME_RECEIVED],
    ['kernel-log.rich.journalctl-short.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.000000', TIME_LOCAL],
    ['kernel-log.rich.journalctl-short-precise.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763987', TIME_LOCAL],
    ['kernel-log.rich.journalctl-short-iso-precise.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763987', TIME_OWN],
    ['kernel-log.rich.journalctl-short-full.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.000000', TIME_OWN],
    ['kernel-log.rich.journalctl-short-unix.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763987', TIME_OWN],
    ['kernel-log.rich.journalctl-short-monotonic.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763837', TIME_BOOT],
    ['kernel-log.rich.journalctl-json.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763837', TIME_OWN],
    ['kernel-log.rich.journalctl-export.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763837', TIME_OWN],
    ['kernel-log.rich.journalctl-verbose.linux-6.18.systemd-252.in', '2026-11-22T11:23:17.763837', TIME_OWN],
    ['kernel-log.rich.journalctl-cat.linux-6.18.systemd-252.in', '2026-11-22T12:00:00.000000', TIME_RECEIVED],
  ])('%s says when: %s', (name, time, source) => {
    const [first] = readPieces([fixture(name)], { boot: BOOT }).kernel
    expect([isoOf(first!), first!.timeSource]).toEqual([time, source])
  })

  test('relative times go on from line to line', () => {
    const { kernel } = readPieces([fixture('kernel-log.rich.dmesg-human.linux-6.18.util-linux-2.38.in')])
    expect(kernel.slice(0, 3).map(isoOf)).toEqual(['2026-11-22T11:23:00.000000', '2026-11-22T11:23:00.000018', '2026-11-22T11:23:00.000268'])
    expect(isoOf(readText(`[Nov22 11:23] acpi: hello\n[ +12.798243] acpi: again\n[  +0.000002] ${FULL}\n`).kernel[0]!)).toBe('2026-11-22T11:23:12.798245')
    expect(readText(`[  +0.000002] ${FULL}\n`).kernel[0]!.timeSource).toBe(TIME_RECEIVED)
  })

  test.each(forms)('%s ends at 5655.036833, or has no such clock', (name) => {
    expect(lastMonotonic(fixture(name).subarray(-4096))).toBe(hasMonotonic(name) ? 5_655_036_833 : -1)
  })
})

describe('one line', () => {
  const facts = (line: string, options: Options = {}): unknown => {
    const { kernel } = readText(`${line}\n`, { boot: BOOT, ...options })
    return kernel.map((event) => [isoOf(event), event.timeSource, event.priority, event.facility, event.monotonic, event.seq, event.trusted, event.message])
  }
  const at = (time: string, source: number, priority: number, facility: number, monotonic: number, seq: number, trusted: boolean, message = FULL): unknown => [
    [time, source, priority, facility, monotonic, seq, trusted, message],
  ]
  const M = 525_051_587
  const BOOTED = '2026-11-22T09:59:05.051587'

  test.each([
    [`4,356,525051587,-;${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, 356, true)],
    [`4,356,525051587;nf_conntrack: table full, dropping packet.`, at(BOOTED, TIME_BOOT, 4, 0, M, 356, true, 'nf_conntrack: table full, dropping packet.')],
    [`4,356,525051587,-,caller=T0;${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, 356, true)],
    [`4,356,525051587,some extra field,3,4,5;${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, 356, true)],
    [`<4>[  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, -1, true)],
    [`<4>[  525.051587][    C1] ${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, -1, true)],
    ['<4>ip_conntrack: table full, dropping packet.', at('2026-11-22T12:00:00.000000', TIME_RECEIVED, 4, 0, -1, -1, true, 'ip_conntrack: table full, dropping packet.')],
    [`[  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587] [ T123] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587 <    0.000022>] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587                ] gw1 kernel: ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, false)],
    [`[  525.051587 <    6.572718*>] gw1 kernel: ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, false)],
    [`kern  :warn  : [  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, 4, 0, M, -1, true)],
    [`kern  :warn  : ${FULL}`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, 4, 0, -1, -1, true)],
    [`[Sun Nov 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[Sun Nov  2 09:59:11 2025 <    0.000022>] ${FULL}`, at('2025-11-02T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[<    0.000022>] ${FULL}`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, -1, -1, -1, -1, true)],
    [`[  525.051587] [Sun Nov 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, M, -1, true)],
    [`2026-11-22T09:59:11,624576+01:00 ${FULL}`, at('2026-11-22T08:59:11.624576', TIME_OWN, -1, -1, -1, -1, true)],
    [`\x1b[32m[  525.051587] \x1b[0m\x1b[33mnf_conntrack: \x1b[0m\x1b[1mnf_conntrack: table full, dropping packet\x1b[0m`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`Nov 22 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Nov  2 09:59:11 gw1 kernel: [  525.051587] ${FULL}`, at('2026-11-02T09:59:11.000000', TIME_LOCAL, -1, -1, M, -1, false)],
    [`<4>Nov 22 09:59:11 fe80::1 kernel: [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 4, 0, M, -1, false)],
    [`2026-11-22T09:59:11.123456+00:00 gw1 kernel: [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_OWN, -1, -1, M, -1, false)],
    [`2026-11-22T09:59:11.123Z gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.123000', TIME_OWN, -1, -1, -1, -1, false)],
    [`2026-11-22T09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`<4>1 2026-11-22T09:59:11.123456+00:00 gw1 kernel - - - ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_OWN, 4, 0, -1, -1, false)],
    [`87 <4>1 2026-11-22T09:59:11.123456+00:00 gw1 kernel - - [a@1 b="c\\"]"][d] \ufeff[  525.051587] ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_OWN, 4, 0, M, -1, false)],
    [`1 2026-11-22T09:59:11Z gw1 kernel - 337 - ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_OWN, -1, -1, -1, -1, false)],
    [`Nov 22 09:59:11 gw1 kern.warn kernel: [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 4, 0, M, -1, false)],
    [`Nov 22 09:59:11 kernel: [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, M, -1, false)],
    [`Sun Nov 22 09:59:11 2026 kern.warn kernel: [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 4, 0, M, -1, false)],
    [`Sun 2026-11-22 09:59:11 CET gw1 kernel: ${FULL}`, at('2026-11-22T08:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Sun 2026-11-22 09:59:11 -03 gw1 kernel: ${FULL}`, at('2026-11-22T12:59:11.000000', TIME_OWN, -1, -1, -1, -1, false)],
    [`kernel: ${FULL}`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, -1, -1, -1, -1, false)],
    [`${FULL}  \r`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, -1, -1, -1, -1, false)],
    [`[  525.051587@2] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587@0]${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587 @12] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587][ C0] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587] [   T45] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587][ 0] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587] (2)[1234:swapper/2]${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587] -(0)[0:swapper/0]${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587] [2:  swapper/2:    0] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587][ T1234] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051587999] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [` \t[  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`> > [  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, true)],
    [`[  525.051] ${FULL}`, at('2026-11-22T09:59:05.051000', TIME_BOOT, -1, -1, 525_051_000, -1, true)],
    [`Nov 22 09:59:11 gw1 user.warn kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 4, 1, -1, -1, false)],
    [`Nov 22 09:59:11 gw1 local0.err kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 3, 1, -1, -1, false)],
    [`<12>Nov 22 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, 4, 1, -1, -1, false)],
    [`<132>1 2026-11-22T09:59:11Z gw1 kernel - - - ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_OWN, 4, 16, -1, -1, false)],
    [`<12>kernel: ${FULL}`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, 4, 1, -1, -1, false)],
    [`Nov 22 09:59:11  kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Nov 22 09:59:11 gw1 ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Nov 22 09:59:11 ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`2026-11-22T09:59:11.123456+00:00 gw1 [  525.051587] ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_OWN, -1, -1, M, -1, false)],
    [`gw1 kernel: ${FULL}`, at('2026-11-22T12:00:00.000000', TIME_RECEIVED, -1, -1, -1, -1, false)],
    [`gw1 kernel: [  525.051587] ${FULL}`, at(BOOTED, TIME_BOOT, -1, -1, M, -1, false)],
    [`Nov 22 09:59:11.123456 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Nov 22 09:59:11.123456789: gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.123456', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Nov 22 2026 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`[So Nov 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[dim. nov. 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[日 11月 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[日 11月 22 09:59:11 2026 <    0.000022>] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[Вс ноя 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[dom nov 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[Ne lis 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[nie lis 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[일 11월 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`[Κυρ Νοε 22 09:59:11 2026] ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, true)],
    [`11月 22 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`nov. 22 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`22. November 2026 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`2026年11月22日 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`2026年 11月 22日 星期日 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`ноя 22 09:59:11 gw1 kernel: ${FULL}`, at('2026-11-22T09:59:11.000000', TIME_LOCAL, -1, -1, -1, -1, false)],
    [`Okt 22 09:59:11 gw1 kernel: [  525.051587] ${FULL}`, at('2026-10-22T09:59:11.000000', TIME_LOCAL, -1, -1, M, -1, false)],
    [`{"pri":4,"time":   525.051587,"msg":"${FULL} "}`, at(BOOTED, TIME_BOOT, 4, 0, M, -1, true)],
    [`{"fac":"kern","pri":"warn","time":525.051587,"caller":"T1","msg":"${FULL}"}`, at(BOOTED, TIME_BOOT, 4, 0, M, -1, true)],
  ])('%j', (line, want) => {
    expect(facts(line, line.includes('CET') ? { zone: 'Europe/Berlin' } : {})).toEqual(want)
  })

  test.each([
    'sshd[1]: nf_conntrack: table full, dropping packet',
    'Nov 22 09:59:11 gw1 sshd[1]: nf_conntrack: table full, dropping packet',
    'Nov 22 09:59:11 gw1 sshd: nf_conntrack: table full, dropping packet',
    'Nov 22 09:59:11 gw1 sshd[1]: x IN=eth0 OUT= SRC=10.0.0.1 DST=10.0.0.2 LEN=1 PROTO=TCP',
    '2026-11-22T09:59:11.123456+00:00 gw1 app: kernel: nf_conntrack: table full, dropping packet',
    '[  525.051587] gw1 sshd[1]: nf_conntrack: table full, dropping packet',
    '[  525.051587] gw1 sshd[1]: x IN=eth0 OUT= SRC=10.0.0.1 DST=10.0.0.2 LEN=1 PROTO=TCP',
    '12,1300,99100000,-;nf_conntrack: table full, dropping packet',
    '<12>[  525.051587] nf_conntrack: table full, dropping packet',
    'user  :warn  : [  525.051587] nf_conntrack: table full, dropping packet',
    '<4>1 2026-11-22T09:59:11Z gw1 sshd 1 - - nf_conntrack: table full, dropping packet',
    '4,356,525051587,-;Modules linked in: nf_conntrack nf_defrag_ipv4',
    '                            nf_conntrack: table full, dropping packet',
    'Xyz 22 09:59:11 gw1 app: kernel: nf_conntrack: table full, dropping packet',
    'Xyz 22 09:59:11 gw1 sshd[1]: nf_conntrack: table full, dropping packet',
    'Xyz 22 09:59:11 gw1 sshd[1]: x IN=eth0 OUT= SRC=10.0.0.1 DST=10.0.0.2 LEN=1 PROTO=TCP',
    'they say nf_conntrack: table full, dropping packet',
    'Nov 22 09:59:11 gw1 kernel: nf_conntrack: table full,',
    '-- Boot 0f5b6a2e6f0a4f0e9a3a4c3f0d1e2f30 --',
    '{"_TRANSPORT":"syslog","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"nf_conntrack: table full, dropping packet"}',
    '{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"1","MESSAGE":"nf_conntrack: table full, dropping packet"}',
    '{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","MESSAGE":null}',
    '{"fac":"user","pri":"warn","time":525.051587,"msg":"nf_conntrack: table full, dropping packet"}',
    '{"type":"flow","v":1}',
    'MESSAGE=x: IN=eth0 OUT= SRC=10.0.0.1 DST=10.0.0.2 LEN=1 PROTO=TCP',
    '{"a":1}',
  ])('of no business of ours: %j', (line) => {
    expect(readText(`${line}\n`).outcomes).toEqual([IGNORED])
  })

  test.each([
    ['4,x,525051587,-;text', 'a /dev/kmsg record'],
    ['4,356,,-;text', 'a /dev/kmsg record'],
    ['4,356,525051587,-', 'a /dev/kmsg record'],
    ['{"a":', 'not valid JSON'],
    ['{', 'cut off'],
    ['data: {"a":', 'not valid JSON'],
    ['\x1e{"a":', 'not valid JSON'],
  ])('rejected: %j', (line, reason) => {
    const { outcomes, rejects } = readText(`${line}\n`)
    expect(outcomes).toEqual([REJECTED_LINE])
    expect(rejects[0]).toContain(reason)
  })

  test.each(['1,234,567 items', '12, 13', '4', '2026-11-22', '10,5 %;'])('no record of /dev/kmsg: %j', (line) => {
    expect(readText(`${line}\n`).outcomes).toEqual([IGNORED])
  })
})

describe('a time without a year', () => {
  const timeOf = (line: string, received: string): string => isoOf(readText(`${line} gw1 kernel: ${FULL}\n`, { received }).kernel[0]!).slice(0, 19)

  test.each([
    ['Dec 31 23:59:59', '2027-01-01T00:00:10Z', '2026-12-31T23:59:59'],
    ['Jan  1 00:00:01', '2027-01-01T00:00:10Z', '2027-01-01T00:00:01'],
    // the sender's clock, or zone, is ahead
    ['Jan  1 00:00:01', '2026-12-31T23:59:50Z', '2027-01-01T00:00:01'],
    ['Nov 23 11:59:59', '2026-11-22T12:00:00Z', '2026-11-23T11:59:59'],
    ['Nov 23 12:00:01', '2026-11-22T12:00:00Z', '2025-11-23T12:00:01'],
    ['Feb 29 12:00:00', '2026-11-22T12:00:00Z', '2024-02-29T12:00:00'],
  ])('%s, received %s, is %s', (line, received, want) => {
    expect(timeOf(line, received)).toBe(want)
  })

  test('is the zone\'s', () => {
    const { kernel } = readText(`Jul  1 12:00:00 gw1 kernel: ${FULL}\n[Wed Jul  1 12:00:00 2026] ${FULL}\n`, { zone: 'Europe/Berlin' })
    expect(kernel.map(isoOf)).toEqual(['2026-07-01T10:00:00.000000', '2026-07-01T10:00:00.000000'])
  })

  test('that is none is the time of receipt', () => {
    expect(readText(`Xyz 22 09:59:11 gw1 kernel: ${FULL}\nNov 31 09:59:11 gw1 kernel: ${FULL}\n`).kernel.map(({ timeSource }) => timeSource)).toEqual([TIME_RECEIVED, TIME_RECEIVED])
  })
})

describe('folded lines', () => {
  test('count their copies', () => {
    const { kernel, outcomes } = readText(
      [
        'Oct 29 10:10:01 gw1 kernel: nf_conntrack: table full, dropping packet.',
        'Oct 29 10:10:05 gw1 last message repeated 3 times',
        'Oct 29 10:10:05 gw2 last message repeated 9 times',
        'Oct 29 10:10:06 gw1 kernel: [12350.678901] message repeated 9 times: [ nf_conntrack: table full, dropping packet]',
        'Oct 29 10:10:07 gw1 kernel: message repeated 2 times: [ [12350.678901] net_ratelimit: 12 callbacks suppressed]',
        'Oct 29 10:10:08 gw1 sshd[1]: hello',
        'Oct 29 10:10:09 gw1 last message repeated 5 times',
        '',
      ].join('\n'),
    )
    expect(kernel.map(({ kind, repeat, message, sec, count }) => [kind, repeat, message, sec, count])).toEqual([
      ['table_full', 0, 'nf_conntrack: table full, dropping packet.', utc('2026-10-29T10:10:01Z'), -1],
      ['table_full', 3, 'nf_conntrack: table full, dropping packet.', utc('2026-10-29T10:10:05Z'), -1],
      ['table_full', 9, 'nf_conntrack: table full, dropping packet', utc('2026-10-29T10:10:06Z'), -1],
      ['suppressed', 2, 'net_ratelimit: 12 callbacks suppressed', utc('2026-10-29T10:10:07Z'), 12],
    ])
    expect(outcomes).toEqual([KERNEL, KERNEL, IGNORED, KERNEL, KERNEL, IGNORED, IGNORED])
  })
})

describe('a message that a mail program or an editor broke', () => {
  const HEAD = 'Nov 22 09:59:11 gw1 kernel: [  525.051587] '

  test.each([
    `${HEAD}nf_conntrack: table full,\ndropping packet\n`,
    `${HEAD}nf_conntrack: table full, \n dropping packet\n`,
    `${HEAD}nf_conntrack: nf_conntrack: table\nfull, dropping packet\n`,
    `${HEAD}nf_conntrack:\nnf_conntrack: table full,\ndropping packet\n`,
    `${HEAD}nf_conntrack: nf_conntrack: table full in netns\n4026532246, dropping packet\n`,
    `${HEAD}nf_conntrack: table full, dropp\ning packet\n`,
    `${HEAD}nf_conntrack: table full,=\r\n dropping packet\r\n`,
    `> ${HEAD}nf_conntrack: table full,\n> dropping packet\n`,
    `[  525.051587] nf_conntrack: nf_conntrack: table full,\n               dropping packet\n`,
  ])('%j is one', (text) => {
    const { kernel, outcomes } = readText(text.repeat(3))
    expect(kernel.map(({ kind }) => kind)).toEqual(['table_full', 'table_full', 'table_full'])
    const lines = text.split('\n').length - 1
    expect(outcomes.filter((each) => each === IGNORED).length).toBe(3 * (lines - 1))
    expect(readPieces(byteByByte(Buffer.from(text.repeat(3))))).toEqual(readText(text.repeat(3)))
  })

  test('a count too', () => {
    expect(readText(`${HEAD}net_ratelimit: 5531\ncallbacks suppressed\n`).kernel.map(({ kind, count }) => [kind, count])).toEqual([['suppressed', 5531]])
  })

  test('two records are never glued', () => {
    const { kernel } = readText(`${HEAD}nf_conntrack: table full,\n${HEAD}${FULL}\n${HEAD}nf_conntrack: table full,\n\nsaid he\ndropping packet\n`)
    expect(kernel.map(({ message }) => message)).toEqual([FULL])
  })
})

describe('a stamp that cannot be read', () => {
  const dated = (event: KernelEvent): unknown => [isoOf(event), event.timeSource]

  test.each([
    '[qux Zyx 22 09:59:11 2026] ',
    '[2026/11/22-09:59:11] ',
    '[K22T09] ',
    '??? 22 09:59:11 gw1 kernel: ',
    '22-11-2026 9h59 gw1 kernel: ',
    '1795341545.1 gw1 kernel: ',
    '22/11/26 09:59:11.1 ',
    '@400000005f5a3b1c2d6f0a1c ',
    'Nov 31 09:59:11 gw1 kernel: ',
  ])('%j: the line counts all the same', (head) => {
    expect(readText(`${head}${FULL}\n`).kernel.map(({ message, timeSource }) => [message, timeSource])).toEqual([[FULL, TIME_RECEIVED]])
    const near = `Nov 22 09:59:10 gw1 kernel: ${FULL}\n`
    const { kernel } = readText(`${head}${FULL}\n${near}${head}${FULL}\n`)
    expect(kernel.map(dated)).toEqual([['2026-11-22T09:59:10.000000', TIME_NEIGHBOUR], ['2026-11-22T09:59:10.000000', TIME_LOCAL], ['2026-11-22T09:59:10.000000', TIME_NEIGHBOUR]])
  })

  test('the kernel\'s clock tells how far its neighbour is', () => {
    const { kernel } = readText(`[  524.000000] ${FULL}\nNov 22 09:59:11 gw1 kernel: [  525.000000] ${FULL}\n[  526.250000] ${FULL}\n`)
    expect(kernel.map(dated)).toEqual([['2026-11-22T09:59:10.000000', TIME_LOCAL], ['2026-11-22T09:59:11.000000', TIME_LOCAL], ['2026-11-22T09:59:12.250000', TIME_LOCAL]])
  })

  test('a month that may be two is none, but for the day of the week', () => {
    expect(readText(`lis 22 09:59:11 gw1 kernel: ${FULL}\n`).kernel.map(({ timeSource }) => timeSource)).toEqual([TIME_RECEIVED])
    expect(readText(`[Ne lis 22 09:59:11 2026] ${FULL}\n[czw lis 22 09:59:11 2029] ${FULL}\n`).kernel.map(isoOf)).toEqual(['2026-11-22T09:59:11.000000', '2029-11-22T09:59:11.000000'])
  })
})

describe('losses', () => {
  test.each([
    ['Nov 22 09:59:10 gw1 systemd-journald[233]: Missed 42 kernel messages', 42, -1],
    ['[  530.051737] gw1 systemd-journald: Missed 42 kernel messages', 42, -1],
    ['Missed 42 kernel messages', 42, -1],
    ['{"_TRANSPORT":"driver","SYSLOG_IDENTIFIER":"systemd-journald","MESSAGE":"Missed 7 kernel messages","__REALTIME_TIMESTAMP":"1795341545051737"}', 7, -1],
    ['[   81.436020] systemd-journald[248]: /dev/kmsg buffer overrun, some messages lost.', -1, 1],
    ['Nov 22 09:59:10 gw1 rsyslogd: imkmsg: some messages in circular buffer got overwritten', -1, 1],
    ['Nov 22 09:59:10 gw1 rsyslogd[7]: imjournal: 1234 messages lost due to rate-limiting (20000 allowed within 600 seconds)', 1234, -1],
    ["Nov 22 09:59:10 gw1 syslog-ng[9]: Destination queue full, dropping messages; queue_len='10000', log_fifo_size='10000', count='4', persist_name='x'", 4, -1],
    ['[  530.051737] ** 105 printk messages dropped **', 105, -1],
    ['** 105 printk messages dropped **', 105, -1],
  ])('%s', (line, count, atLeast) => {
    const { gaps, outcomes } = readText(`${line}\n`)
    expect(outcomes).toEqual([NOTE])
    expect(gaps.map((gap) => [gap.cause, gap.count, gap.atLeast])).toEqual([['logger_missed', count, atLeast]])
  })

  test('that another program only talks of are none', () => {
    expect(readText('Nov 22 09:59:10 gw1 sshd[1]: Missed 42 kernel messages\n').outcomes).toEqual([IGNORED])
  })
})

describe('pieces of /dev/kmsg', () => {
  const TAIL = 'SRC=10.0.0.1 DST=10.0.0.2 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=UDP SPT=1 DPT=2 LEN=20 '

  test.each([
    ['c', '+'],
    ['c', 'c'],
  ])('%s and %s are one line', (first, second) => {
    const { kernel, outcomes } = readText(
      `4,1,1000000,${first};drop: IN=eth0 OUT= \n SUBSYSTEM=net\n4,2,1000001,${second};${TAIL}\n6,3,1000002,-;acpi: hello\n4,4,1000003,c;acpi: \n`,
    )
    expect(outcomes).toEqual([IGNORED, KERNEL, IGNORED, IGNORED, IGNORED])
    expect(kernel.map(({ seq, monotonic, packet }) => [seq, monotonic, packet?.prefix, packet?.['sport']])).toEqual([[1, 1_000_000, 'drop:', 1]])
  })

  test('of other callers, and whole ones, stay apart', () => {
    expect(readText(`4,1,1000000,c,caller=T1;${FULL}\n4,2,1000001,c,caller=T1;${FULL}\n4,3,1000001,+,caller=C2;${FULL}\n`).kernel.map(({ seq }) => seq)).toEqual([1, 2, 3])
  })

  test('have bytes for what is not printable', () => {
    const { kernel } = readText(`4,1,1000000,-;caf\\xc3\\xa9 \\x5c \\xff: IN=eth0 OUT= ${TAIL}\n`)
    expect(kernel[0]!.packet!.prefix).toBe('café \\ \ufffd:')
  })
})

describe('packets', () => {
  const packetOf = (text: string): unknown => {
    const { kernel } = readText(`4,1,1000000,-;${text}\n`)
    return [kernel[0]!.kind, kernel[0]!.packet]
  }

  test('of a refused segment', () => {
    expect(
      packetOf(
        'nf_ct_proto_6: bad checksum IN=r0 OUT= MAC=82:65:bb:43:b4:ba:26:fa:c8:95:be:c1:08:00 SRC=10.10.1.2 DST=10.10.2.2 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=13622 DF PROTO=TCP SPT=7777 DPT=80 SEQ=1 ACK=1 WINDOW=1000 RES=0x00 RST SYN URGP=0 OPT (0204) UID=1000 GID=100 MARK=0x1f ',
      ),
    ).toEqual([
      'invalid_packet',
      {
        reason: 'bad checksum', in: 'r0', src: '10.10.1.2', dst: '10.10.2.2', protocol: 'tcp', sport: 7777, dport: 80, flags: ['RST', 'SYN'],
        mac: '82:65:bb:43:b4:ba:26:fa:c8:95:be:c1:08:00', len: 40, tos: 0, prec: 0, ttl: 64, id: 13622, df: true, seq: 1, ack: 1, window: 1000, res: 0, urgp: 0,
        tcp_options: '0204', uid: 1000, gid: 100, mark: 31,
      },
    ])
  })

  test('of IPv6, with what is within', () => {
    expect(
      packetOf(
        'LOGIN=no [UFW BLOCK] IN= OUT=eth0 PHYSOUT=veth1 SRC=fe80:0000:0000:0000:0211:22ff:fe33:4455 DST=2001:0db8:0000:0000:0000:0000:0000:0001 LEN=96 TC=0 HOPLIMIT=64 FLOWLBL=7 OPT ( FRAG:0 ID:0000002a ) PROTO=ICMPv6 TYPE=1 CODE=4 [SRC=2001:0db8:0000:0000:0000:0000:0000:0001 DST=fe80:0000:0000:0000:0211:22ff:fe33:4455 LEN=48 TC=0 HOPLIMIT=63 FLOWLBL=0 PROTO=UDP SPT=53 DPT=4000 LEN=8 ] MTU=1280 ',
      ),
    ).toEqual([
      'packet_log',
      {
        prefix: 'LOGIN=no [UFW BLOCK]', out: 'eth0', src: 'fe80::211:22ff:fe33:4455', dst: '2001:db8::1', protocol: 'icmpv6', type: 1, code: 4,
        physout: 'veth1', len: 96, tc: 0, hoplimit: 64, flowlbl: 7, mtu: 1280,
        inner: { src: '2001:db8::1', dst: 'fe80::211:22ff:fe33:4455', protocol: 'udp', sport: 53, dport: 4000, len: 48, tc: 0, hoplimit: 63, flowlbl: 0, payload_len: 8 },
      },
    ])
  })

  test('of protocols by number, of an echo and of no flags', () => {
    const head = 'IN=a OUT=b SRC=10.0.0.1 DST=10.0.0.2 LEN=84 TOS=0x00 PREC=0xC0 TTL=64 ID=7 MF FRAG:64 '
    expect(packetOf(`${head}PROTO=132`)).toEqual(['packet_log', { in: 'a', out: 'b', src: '10.0.0.1', dst: '10.0.0.2', protocol: 'sctp', len: 84, tos: 0, prec: 192, ttl: 64, id: 7, mf: true, frag: '64' }])
    expect(packetOf(`${head}PROTO=ICMP TYPE=8 CODE=0 ID=99 SEQ=2 `)).toMatchObject(['packet_log', { type: 8, code: 0, icmp_id: 99, seq: 2, id: 7 }])
    expect(packetOf(`${head}PROTO=TCP SPT=1 DPT=2 WINDOW=0 RES=0x00 URGP=0 `)).toMatchObject(['packet_log', { flags: [] }])
    expect(packetOf(`nf_ct_ftp: dropping packet: all ports in use ${head}PROTO=253`)).toMatchObject(['helper', { reason: 'all ports in use', protocol: '253' }])
  })
})

describe('the journal', () => {
  const kinds = [
    ['table_full', 'packet_log', 'suppressed'],
    ['export', 'json', 'json-pretty'],
  ] as const

  test.each(kinds[1])('as %s: only what it marks as the kernel\'s, with bytes and what is missing', (form) => {
    const { kernel, gaps, rejects } = readPieces([fixture(`kernel-log.journal.journalctl-${form}.systemd-252.in`)])
    expect(kernel.map(({ kind }) => kind)).toEqual(kinds[0])
    expect(kernel[1]!.packet!.prefix).toBe('caf\ufffd:')
    expect(kernel.map(({ trusted, position }) => [trusted, /^[0-9a-f]{12}\.\d+$/.test(position)])).toEqual([[true, true], [true, true], [true, true]])
    expect(gaps.map(({ cause, count }) => [cause, count])).toEqual([['logger_missed', 42]])
    expect(rejects).toEqual([])
  })

  test('verbose says the same but for what is not printable', () => {
    const { kernel, gaps } = readPieces([fixture('kernel-log.journal.journalctl-verbose.systemd-252.in')])
    expect(kernel.map(({ kind }) => kind)).toEqual(['table_full', 'suppressed'])
    expect(gaps.length).toBe(1)
  })

  test.each(['short', 'short-monotonic'])('%s cannot tell who called himself the kernel, and says so', (form) => {
    const { kernel, gaps } = readPieces([fixture(`kernel-log.journal.journalctl-${form}.systemd-252.in`)])
    expect(kernel.map(({ kind, trusted }) => [kind, trusted])).toEqual([['table_full', false], ['table_full', false], ['table_full', false], ['suppressed', false]])
    expect(gaps.length).toBe(1)
  })

  test('a field that occurs more than once, and bytes in an array of arrays', () => {
    const bytes = [...Buffer.from(FULL)]
    const line = (message: unknown): string => `${JSON.stringify({ _TRANSPORT: 'kernel', SYSLOG_FACILITY: '0', MESSAGE: message })}\n`
    expect(readText(line(bytes) + line([FULL, 'x']) + line([bytes, bytes]) + line([]) + line([[]]) + line([null])).kernel.map(({ message }) => message)).toEqual([FULL, FULL, FULL])
  })

  test('an export that is cut off', () => {
    const bytes = fixture('kernel-log.journal.journalctl-export.systemd-252.in')
    const one = bytes.subarray(0, bytes.indexOf('\n\n') + 1)
    expect(readPieces([one]).kernel.length).toBe(1)
    const early = readPieces([one.subarray(0, one.indexOf('_TRANSPORT'))])
    expect([early.rejects, early.outcomes.slice(1).every((each) => each === IGNORED)]).toEqual([['an entry of the journal that is cut off'], true])
    const within = readPieces([bytes.subarray(0, bytes.indexOf('caf') + 10)])
    expect([within.kernel.length, within.rejects.length]).toEqual([1, 1])
    expect(readPieces([Buffer.concat([bytes.subarray(0, bytes.indexOf('caf')), bytes])]).kernel.length).toBe(4)
  })
})

describe('documents over many lines', () => {
  const dmesg = `{\n   "dmesg": [\n      {\n         "pri": 4,\n         "time":   525.051587,\n         "msg": "${FULL}"\n      },{\n         "pri": 6,\n         "time": 526.000000,\n         "msg": "acpi: {[ \\" hello"\n      }\n   ]\n}\n`

  test('dmesg --json: each record at its first line', () => {
    const { kernel, outcomes } = readText(`${dmesg}${FULL}\n`)
    expect(kernel.map(({ monotonic }) => monotonic)).toEqual([525_051_587, -1])
    expect(outcomes).toEqual([IGNORED, IGNORED, KERNEL, ...Array.from({ length: 10 }, () => IGNORED), KERNEL])
  })

  test('dmesg --json, cut off behind any line, is one reject', () => {
    const lines = dmesg.split('\n').slice(0, -1)
    for (let n = 1; n < lines.length; n++) expect([n, readText(`${lines.slice(0, n).join('\n')}\n`).rejects.length]).toEqual([n, 1])
  })

  test('dmesg --json that stops for a while within a record loses that record alone', () => {
    const at = dmesg.indexOf('         "time": 526')
    const bytes = Buffer.from(dmesg.replace('{\n   "dmesg": [\n', `{\n   "dmesg": [\n      {\n         "pri": 6,\n         "time": 1.0,\n         "msg": "a"\n      },\n`) + dmesg)
    for (const quietAt of [at, 60, 100, 200]) {
      const { kernel, rejects } = readPieces([bytes.subarray(0, quietAt), bytes.subarray(quietAt)], { quietAt: [quietAt] })
      expect([quietAt, kernel.length >= 1, rejects.length]).toEqual([quietAt, true, 1])
    }
  })

  test('others are none of ours when they are JSON, and one reject when they are not', () => {
    expect(readText('{\n  "a": [\n    1,\n    {"b": "}"}\n  ]\n}\nfree text\n').outcomes).toEqual(Array.from({ length: 7 }, () => IGNORED))
    const broken = readText('{\n  "a": 1,\n  what is this\n}\n')
    expect([broken.rejects.length, broken.outcomes.length]).toEqual([1, 4])
    expect(readText('{\n  "a" 1\n}\n').rejects.length).toBe(1)
    expect(readText('{\n{\n  "a": 1\n}\n').rejects).toEqual(['a JSON document that is cut off'])
  })

  test('a document that another tool put on one line is named', () => {
    const record = `{"pri":4,"time":525.051587,"msg":"${FULL}"}`
    expect(readText(`{"dmesg":[${record}]}\n`).kernel.length).toBe(1)
    expect(readText(`{"dmesg":[${record},${record}]}\n`).diagnostics[0]).toContain('jq -c')
  })
})

describe('whatever comes', () => {
  const all = names.map((name) => fixture(name))

  test('every line is counted once', () => {
    const next = random(11)
    for (let round = 0; round < 150; round++) {
      const from = all[Math.floor(next() * all.length)]!
      const start = Math.floor(next() * from.length)
      const bytes = Buffer.from(from.subarray(start, start + 6000))
      const changes = Math.floor(next() * 40)
      for (let i = 0; i < changes; i++) bytes[Math.floor(next() * bytes.length)] = next() < 0.3 ? LF : Math.floor(next() * 256)
      const whole = readPieces([bytes])
      expect(readPieces(randomCuts(bytes, next, 100))).toEqual(whole)
    }
  })

  test('lines of all forms in any order', () => {
    const lines = all.flatMap((bytes) => bytes.toString('latin1').split('\n'))
    for (const seed of [1, 2, 3]) {
      const next = random(seed)
      const mixed = Array.from({ length: 3000 }, () => lines[Math.floor(next() * lines.length)]!).join('\n')
      const bytes = Buffer.from(mixed, 'latin1')
      expect(readPieces(randomCuts(bytes, next, 500))).toEqual(readPieces([bytes]))
    }
  })

  test('thousands of unrelated lines are none', () => {
    const kernelLines = [
      'usb 1-1: new high-speed USB device number 2 using xhci_hcd',
      'IPv4: martian source 10.0.0.1 from 10.0.0.2, on dev eth0',
      'audit: type=1400 audit(1700000000.123:45): apparmor="DENIED" operation="open"',
      'Modules linked in: nf_conntrack nft_ct nf_tables',
      'EXT4-fs (vda1): mounted filesystem with ordered data mode.',
    ]
    const text = Array.from({ length: 5000 }, (_, i) => {
      const line = kernelLines[i % kernelLines.length]!
      return [`[${String(i).padStart(5)}.123456] ${line}`, `Nov 22 10:00:00 gw1 kernel: ${line}`, `6,${i},${i}000,-;${line}`, line][i % 4]!
    }).join('\n')
    expect(new Set(readText(text).outcomes)).toEqual(new Set([IGNORED]))
  })
})
