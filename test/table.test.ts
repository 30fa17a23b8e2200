/**
 * The kernel's own numbers: their text in every version's words, the differences between samples, and the input that takes them from a /proc of our own making.
 */
import { chmodSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Levels, sumOverCpus } from '../src/detectors/levels.js'
import { type Counters, counterNames, FlowEvent, page, type TableSample, TIME_RECEIVED, LINE_BYTES_MAX } from '../src/event.js'
import { tableStats } from '../src/formats/table-stats.js'
import { Frame } from '../src/frame.js'
import { chooseNamespace, listNamespaces, nameOfCgroup, ownNamespace, type Places } from '../src/inputs/namespaces.js'
import { tableFeed, type TableOptions } from '../src/inputs/table.js'
import { HELD, IGNORED, type Input, InputError, newLineContext, NOTE, type Notice, REJECTED_LINE } from '../src/stage.js'

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'latin1')

/** What came of a text: the samples, and how often each outcome was counted. A line that no format begins is `other`. */
interface Read {
  readonly samples: TableSample[]
  readonly outcomes: { note: number; ignored: number; rejected: number; other: number; held: number }
}

/** Through the frame in pieces, as the loop does. */
function readText(text: string, pieces: readonly number[] = [], received = 1_700_000_000): Read {
  const frame = new Frame(0, LINE_BYTES_MAX)
  const format = tableStats()
  const event = new FlowEvent()
  const context = newLineContext(() => NaN, () => null)
  context.receivedSec = received
  context.receivedUsec = 5
  const read: Read = { samples: [], outcomes: { note: 0, ignored: 0, rejected: 0, other: 0, held: 0 } }
  const count = (outcome: number): void => {
    if (outcome === HELD) read.outcomes.held++
    else read.outcomes[outcome === NOTE ? 'note' : outcome === IGNORED ? 'ignored' : 'rejected']++
    expect([HELD, NOTE, IGNORED, REJECTED_LINE]).toContain(outcome)
  }
  const settled = (): void => {
    for (const line of context.settled.splice(0)) {
      count(line.outcome)
      if (line.sample !== null) read.samples.push(line.sample)
    }
  }
  const lines = (): void => {
    for (let at = frame.at; at < frame.end; ) {
      const lineEnd = page.indexOf(10, at)
      if (format.begins(at)) count(format.read(at, lineEnd, event, context))
      else read.outcomes.other++
      settled()
      at = lineEnd + 1
    }
    frame.keep(frame.end)
  }
  const bytes = Buffer.from(text, 'latin1')
  let from = 0
  for (const to of [...pieces, bytes.length]) {
    frame.lay(bytes.subarray(from, to))
    lines()
    from = to
  }
  frame.finish()
  lines()
  format.settle!(context)
  settled()
  return read
}

const hex = (n: number): string => n.toString(16).padStart(8, '0')
/** A row with the n-th column holding 100 times its place and the CPU, and two spaces where the kernel has them. */
const procRow = (columns: number, cpu: number): string =>
  Array.from({ length: columns }, (_, i) => (i === 0 ? hex(77) : hex((i + 1) * 100 + cpu)) + (i === 0 || i === 12 ? ' ' : '')).join(' ')
const place = (column: number): number => column * 100 * 2 + 1

const COMMON = 'insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete'
/** Header and the columns (counted from 1) of the counters, by kernel. */
const procForms: [kernel: string, header: string, columns: number, ends: string, counters: Record<string, number>][] = [
  ['2.6.18 and 2.6.32', `entries  searched found new invalid ignore delete delete_list ${COMMON}`, 16, ' ', { found: 3, invalid: 5, insert_failed: 10, drop: 11, early_drop: 12, error: 13, expect_new: 14, expect_create: 15, expect_delete: 16 }],
  ['3.6 to 5.8', `entries  searched found new invalid ignore delete delete_list ${COMMON} search_restart`, 17, '', { found: 3, invalid: 5, insert_failed: 10, drop: 11, early_drop: 12, error: 13, expect_new: 14, expect_create: 15, expect_delete: 16, search_restart: 17 }],
  ['5.9 to 5.14', `entries  clashres found new invalid ignore delete delete_list ${COMMON} search_restart`, 17, '', { clash_resolve: 2, found: 3, invalid: 5, insert_failed: 10, drop: 11, early_drop: 12, error: 13, expect_new: 14, expect_create: 15, expect_delete: 16, search_restart: 17 }],
  ['5.15 and later', `entries  clashres found new invalid ignore delete chainlength ${COMMON} search_restart`, 17, '', { clash_resolve: 2, found: 3, invalid: 5, chaintoolong: 8, insert_failed: 10, drop: 11, early_drop: 12, error: 13, expect_new: 14, expect_create: 15, expect_delete: 16, search_restart: 17 }],
]

const toolRow = (cpu: number, counters: string): string => `cpu=${String(cpu).padEnd(4)}\t${counters} `
/** What `conntrack -S` prints for the second CPU, and the counters that follow; those of the first are all 0. */
const toolForms: [form: string, counters: string, want: Counters, count: number][] = [
  ['kernel 6.1 and later', 'found=3 invalid=7 insert=9 insert_failed=1 drop=2 early_drop=4 error=5 search_restart=6 clash_resolve=8 chaintoolong=10', { found: 3, invalid: 7, insert_failed: 1, drop: 2, early_drop: 4, error: 5, search_restart: 6, clash_resolve: 8, chaintoolong: 10 }, -1],
  ['kernel 5.10', 'found=3 invalid=7 insert=9 insert_failed=1 drop=2 early_drop=4 error=5 search_restart=6 clash_resolve=8', { found: 3, invalid: 7, insert_failed: 1, drop: 2, early_drop: 4, error: 5, search_restart: 6, clash_resolve: 8 }, -1],
  ['kernel 4.9 to 5.4', 'found=27 invalid=130 ignore=5112 insert=0 insert_failed=0 drop=0 early_drop=0 error=2 search_restart=151', { found: 27, invalid: 130, insert_failed: 0, drop: 0, early_drop: 0, error: 2, search_restart: 151 }, -1],
  ['kernel 3.6 to 4.4', 'searched=1 found=27 new=3 invalid=130 ignore=5112 delete=0 delete_list=4 insert=0 insert_failed=0 drop=4294967295 early_drop=0 error=2 search_restart=151', { found: 27, invalid: 130, insert_failed: 0, drop: 4294967295, early_drop: 0, error: 2, search_restart: 151 }, -1],
  ['a counter newer than the tool', 'found=3 invalid=7 drop=2 unknown1=9', { found: 3, invalid: 7, drop: 2 }, -1],
  ['-S expect', 'expect_new=1 expect_create=2 expect_delete=1', { expect_new: 1, expect_create: 2, expect_delete: 1 }, -1],
  ['from /proc', 'entries=12 clashres=1 found=2 new=0 invalid=3 ignore=0 delete=0 chainlength=4 insert=0 insert_failed=5 drop=299 early_drop=1 icmp_error=6 expect_new=0 expect_create=0 expect_delete=0 search_restart=7', { clash_resolve: 1, found: 2, invalid: 3, chaintoolong: 4, insert_failed: 5, drop: 299, early_drop: 1, error: 6, expect_new: 0, expect_create: 0, expect_delete: 0, search_restart: 7 }, 12],
  ['from /proc before 5.9', 'entries=12 searched=1 found=2 new=0 invalid=3 ignore=0 delete=0 delete_list=4 insert=0 insert_failed=5 drop=299 early_drop=1 icmp_error=6 expect_new=0 expect_create=0 expect_delete=0 search_restart=7', { found: 2, invalid: 3, insert_failed: 5, drop: 299, early_drop: 1, error: 6, expect_new: 0, expect_create: 0, expect_delete: 0, search_restart: 7 }, 12],
]

describe('text of the statistics', () => {
  test.each(procForms)('/proc/net/stat/nf_conntrack of %s', (_kernel, header, columns, ends, counters) => {
    const text = [header, procRow(columns, 0) + ends, procRow(columns, 1) + ends, ''].join('\n')
    const { samples, outcomes } = readText(text)
    expect(outcomes).toEqual({ note: 1, ignored: 2, rejected: 0, other: 0, held: 1 })
    expect(samples).toHaveLength(1)
    expect(samples[0]).toMatchObject({ sec: 1_700_000_000, usec: 5, timeSource: TIME_RECEIVED, netns: 0, count: 77, max: -1, buckets: -1, total: null })
    expect(new Levels().sample(samples[0]!).total).toEqual(Object.fromEntries(Object.entries(counters).map(([name, column]) => [name, place(column)])))
    // the same columns in all kernels; in no record, but in the metrics
    expect(sumOverCpus(samples[0]!)).toMatchObject({ ignore: place(6), insert: place(9) })
  })

  test.each(toolForms)('conntrack -S, %s', (_form, counters, want, count) => {
    const text = [toolRow(0, counters.replaceAll(/(?<!entries)=\d+/g, '=0')), toolRow(1, counters), ''].join('\n')
    const { samples, outcomes } = readText(text)
    expect(outcomes).toEqual({ note: 1, ignored: 1, rejected: 0, other: 0, held: 1 })
    expect(samples).toMatchObject([{ count, cpus: [{}, want] }])
    // in no record: for the metrics
    const others = Object.fromEntries(Array.from(counters.matchAll(/\b(ignore|insert)=(\d+)/g), ([, name, value]) => [name, Number(value)]))
    expect(samples[0]!.cpus![1]).toEqual({ ...want, ...others })
    expect(sumOverCpus(samples[0]!)).toEqual({ ...want, ...others })
    expect(new Levels().sample(samples[0]!).total).toEqual(want)
    // pasted from where blanks at the ends of lines are lost
    expect(readText(text.replaceAll(' \n', '\n')).samples).toEqual(samples)
    expect(readText(text.replaceAll('\n', '\r\n')).samples).toEqual(samples)
  })

  test('conntrack up to 1.4.4 shows the first CPU alone: only the number of entries is the whole truth', () => {
    const words = ['entries', 'searched', 'found', 'new', 'invalid', 'ignore', 'delete', 'delete_list', 'insert', 'insert_failed', 'drop', 'early_drop', 'icmp_error', 'expect_new', 'expect_create', 'expect_delete', 'search_restart']
    const text = words.map((word, i) => `${word.padEnd(10)}\t\t${String(i === 0 ? 123 : i).padEnd(8)}\n`).join('')
    expect(readText(text)).toMatchObject({ samples: [{ count: 123, total: null, cpus: null }], outcomes: { note: 1, ignored: words.length - 1, other: 0 } })
    // other words are not swallowed meanwhile
    expect(readText(`entries   \t\t5       \nnf_conntrack: table full\n`).outcomes).toMatchObject({ note: 1, other: 1 })
  })

  test('one sample after the other, with other lines between and within', () => {
    const one = fixture('quiet.S.linux-6.18.conntrack-1.4.7.in')
    const other = fixture('quiet.proc-stat.linux-6.18.in')
    const { samples, outcomes } = readText(`${one}hello\n${one}${other}\n${other}${one.split('\n')[0]}\nhello\n${one.split('\n')[1]}\n`)
    expect(samples.map(({ count, cpus }) => [count, cpus!.length])).toEqual([
      [-1, 2],
      [-1, 2],
      [0x174, 2],
      [0x174, 2],
      [-1, 2],
    ])
    expect(outcomes).toEqual({ note: 5, ignored: 7, rejected: 0, other: 3, held: 5 })
  })

  test('however it is cut, the same', () => {
    const text = procForms.map(([, header, columns, ends]) => `${header}\n${procRow(columns, 0)}${ends}\n${procRow(columns, 1)}${ends}\n`).join('') + toolForms.map(([, counters]) => `${toolRow(0, counters)}\n${toolRow(1, counters)}\n`).join('')
    const whole = readText(text)
    expect(whole.samples).toHaveLength(procForms.length + toolForms.length)
    expect(readText(text, Array.from({ length: text.length }, (_, i) => i + 1))).toEqual(whole)
    const anyCuts = fc.array(fc.nat(text.length)).map((cuts) => cuts.sort((a, b) => a - b))
    fc.assert(
      fc.property(anyCuts, (cuts) => {
        expect(readText(text, cuts)).toEqual(whole)
      }),
      { numRuns: 50 },
    )
  })

  test('a sum of some CPUs is never taken for the whole', () => {
    const rows = toolForms[0]!
    const [first, second] = [toolRow(0, rows[1]), toolRow(1, rows[1])]
    const proc = fixture('quiet.proc-stat.linux-6.18.in').split('\n')
    // begins in the middle
    expect(readText(`${second}\n${proc[1]}\n`)).toMatchObject({ samples: [], outcomes: { note: 0, ignored: 1, other: 1 } })
    // the last row is cut off: after a blank, in a word, in a number
    for (const cut of [second.length - 2, second.indexOf('drop=') + 2, second.indexOf('early_drop'), 20, 10, 9, 6]) {
      expect(readText(`${first}\n${second.slice(0, cut)}`)).toMatchObject({ samples: [], outcomes: { note: 0, rejected: 1, ignored: 1 } })
    }
    expect(readText(`${proc[0]}\n${proc[1]}\n${proc[2]!.slice(0, 90)}`)).toMatchObject({ samples: [], outcomes: { note: 0, rejected: 1, ignored: 2 } })
    // a header alone
    expect(readText(`${proc[0]}\n`)).toMatchObject({ samples: [], outcomes: { note: 0, ignored: 1 } })
  })

  test.each(['cpu=0 idle=97', 'cpu=0   \tidle=97 user=3 ', 'cpu=zero', 'cpu= load', 'entries are fine', 'entries  of the table', 'entries', '0badcafe  00000001'])('is not this: %s', (line) => {
    expect(readText(`${line}\n`)).toMatchObject({ samples: [], outcomes: { note: 0, rejected: 0, held: 0 } })
  })
})

const sampleOf = (sec: number, more: Partial<TableSample>): TableSample => ({ sec, usec: 0, timeSource: 0, netns: 1, netnsName: '', count: -1, max: -1, buckets: -1, total: null, cpus: null, ...more })
const WRAP = 2 ** 32

describe('levels', () => {
  test('32-bit counters of any number of CPUs are unwrapped, whatever they rise by', () => {
    const rises = fc.integer({ min: 1, max: 4 }).chain((cpus) =>
      fc.record({
        starts: fc.array(fc.nat(WRAP - 1), { minLength: cpus, maxLength: cpus }),
        steps: fc.array(fc.array(fc.nat(50_000_000), { minLength: cpus, maxLength: cpus }), { minLength: 1, maxLength: 200 }),
      }),
    )
    fc.assert(
      fc.property(rises, ({ starts, steps }) => {
        const levels = new Levels()
        const truth = [...starts]
        let before = truth.reduce((a, b) => a + b)
        expect(levels.sample(sampleOf(0, { cpus: truth.map((drop) => ({ drop })) }))).toMatchObject({ drop: -1, rateDrop: -1, total: { drop: before } })
        steps.forEach((step, i) => {
          step.forEach((rise, cpu) => (truth[cpu]! += rise))
          const sum = truth.reduce((a, b) => a + b)
          const record = levels.sample(sampleOf(i + 1, { cpus: truth.map((drop) => ({ drop: drop % WRAP })) }))
          expect(record).toMatchObject({ drop: sum - before, rateDrop: sum - before, total: { drop: sum }, cpus: null })
          before = sum
        })
      }),
      { numRuns: 100 },
    )
  })

  test('without a time between the samples a counter may wrap as well', () => {
    const levels = new Levels()
    levels.sample(sampleOf(5, { cpus: [{ drop: WRAP - 10 }] }))
    expect(levels.sample(sampleOf(5, { cpus: [{ drop: 5 }] }))).toMatchObject({ drop: 15, rateDrop: -1, total: { drop: WRAP + 5 } })
  })

  test('a namespace that was made anew begins anew', () => {
    const levels = new Levels()
    levels.sample(sampleOf(0, { cpus: [{ drop: 7, found: 4000 }] }))
    expect(levels.sample(sampleOf(1, { cpus: [{ drop: 9, found: 3 }] }))).toMatchObject({ drop: -1, earlyDrop: -1, total: { drop: 9, found: 3 } })
    expect(levels.sample(sampleOf(2, { cpus: [{ drop: 11, found: 3 }] }))).toMatchObject({ drop: 2, total: { drop: 11, found: 3 } })
    // the same number, another name; a name that becomes known is no other
    expect(levels.sample(sampleOf(3, { netnsName: 'a', cpus: [{ drop: 12 }] }))).toMatchObject({ drop: 1 })
    expect(levels.sample(sampleOf(4, { netnsName: 'b', cpus: [{ drop: 20 }] }))).toMatchObject({ drop: -1, total: { drop: 20 } })
    // other CPUs: another machine, or rows that are missing
    expect(levels.sample(sampleOf(5, { cpus: [{ drop: 20 }, { drop: 1 }] }))).toMatchObject({ drop: -1, total: { drop: 21 } })
  })

  test('namespaces and inputs are apart', () => {
    const levels = new Levels()
    levels.sample(sampleOf(0, { netns: 1, cpus: [{ drop: 100 }] }))
    levels.sample(sampleOf(0, { netns: 2, cpus: [{ drop: 5 }] }))
    levels.sample(sampleOf(0, { netns: 1, cpus: [{ drop: 1000 }] }), undefined, 'other')
    expect(levels.sample(sampleOf(1, { netns: 1, cpus: [{ drop: 101 }] })).drop).toBe(1)
    expect(levels.sample(sampleOf(1, { netns: 2, cpus: [{ drop: 7 }] })).drop).toBe(2)
    expect(levels.sample(sampleOf(1, { netns: 1, cpus: [{ drop: 1003 }] }), undefined, 'other').drop).toBe(3)
  })

  test('a sample that lacks a counter does not break its row', () => {
    const levels = new Levels()
    levels.sample(sampleOf(0, { cpus: [{ drop: 10 }] }))
    expect(levels.sample(sampleOf(1, { cpus: [{ expect_new: 3 }] }))).toMatchObject({ drop: -1, rateDrop: -1, total: { expect_new: 3 } })
    expect(levels.sample(sampleOf(2, { count: 5, max: 10 }))).toMatchObject({ drop: -1, total: null, usage: 0.5 })
    expect(levels.sample(sampleOf(4, { cpus: [{ drop: 14 }] }))).toMatchObject({ drop: 4, rateDrop: 1, total: { drop: 14 } })
    // one row without it: a sum of some CPUs
    expect(levels.sample(sampleOf(5, { cpus: [{ drop: 14, found: 1 }, { found: 1 }] }))).toMatchObject({ drop: -1, total: { found: 2 } })
  })

  test('our own records: sums instead of CPUs', () => {
    const levels = new Levels()
    expect(levels.sample(sampleOf(0, { total: { drop: WRAP + 1, early_drop: 1, insert_failed: 2 } }))).toMatchObject({ drop: -1, total: { drop: WRAP + 1 } })
    expect(levels.sample(sampleOf(2, { total: { drop: WRAP + 5, early_drop: 2, insert_failed: 2 } }))).toMatchObject({ drop: 4, earlyDrop: 1, insertFailed: 0, rateDrop: 2 })
    // the program that wrote them was started anew
    expect(levels.sample(sampleOf(3, { total: { drop: 6, early_drop: 2, insert_failed: 2 } }))).toMatchObject({ drop: -1, earlyDrop: -1, insertFailed: -1, total: { drop: 6 } })
    // the first of a record without counters
    expect(new Levels().sample(sampleOf(0, { total: {} }))).toMatchObject({ drop: -1, total: {} })
  })

  test('rates are of whole intervals', () => {
    const levels = new Levels()
    const cpus = [{ drop: 0 }]
    expect(levels.sample(sampleOf(10, { cpus }), { new: 50, destroy: 5, whole: true })).toMatchObject({ rateNew: -1, rateDestroy: -1 })
    expect(levels.sample(sampleOf(12, { cpus }), { new: 5, destroy: 0, whole: true })).toMatchObject({ rateNew: 2.5, rateDestroy: 0, rateDrop: 0 })
    expect(levels.sample(sampleOf(13, { cpus }), { new: 5, destroy: 1, whole: false })).toMatchObject({ rateNew: -1, rateDestroy: -1, rateDrop: 0 })
    expect(levels.sample(sampleOf(16, { cpus }), { new: 1, destroy: 2, whole: true })).toMatchObject({ rateNew: 0.333, rateDestroy: 0.667 })
    expect(levels.sample(sampleOf(17, { cpus }))).toMatchObject({ rateNew: -1, rateDestroy: -1 })
    // a clock that was set back
    expect(levels.sample(sampleOf(1, { cpus }), { new: 1, destroy: 1, whole: true })).toMatchObject({ rateNew: -1, rateDestroy: -1, rateDrop: -1, drop: 0 })
  })

  test('the recorded incident: 4,937 dropped, 37 thrown out before', () => {
    const cpus = (name: string) => readText(fixture(name)).samples[0]!.cpus
    const levels = new Levels()
    levels.sample(sampleOf(0, { cpus: cpus('incident.S-before.linux-6.18.conntrack-1.4.7.in') }))
    expect(levels.sample(sampleOf(25, { cpus: cpus('incident.S-after.linux-6.18.conntrack-1.4.7.in') }))).toMatchObject({ drop: 4937, earlyDrop: 37, insertFailed: 0 })

    const records = fixture('incident.table.linux-6.18.in').trim().split('\n').map((line) => JSON.parse(line))
    const samples = records.map((record, i) => sampleOf(i, { netns: record.netns, count: record.count, max: record.max, total: record.total ?? null }))
    const found = samples.map((sample) => levels.sample(sample))
    const sum = (key: 'drop' | 'earlyDrop' | 'insertFailed') => found.reduce((all, record) => all + Math.max(0, record[key]), 0)
    expect([sum('drop'), sum('earlyDrop'), sum('insertFailed')]).toEqual([4937, 37, 0])
    expect(found.map(({ drop, usage }) => [drop, usage])).toEqual(records.map((record) => [record.drop ?? -1, record.usage]))
  })
})

describe('namespaces', () => {
  const pod = '1f2e3d4c-aaaa-bbbb-cccc-0123456789ab'
  const id = '0123456789abcdef'.repeat(4)
  test.each([
    ['0::/\n', ''],
    ['', ''],
    [`0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${pod.replaceAll('-', '_')}.slice/cri-containerd-${id}.scope\n`, `pod:${pod}`],
    [`0::/kubepods.slice/kubepods-pod${pod.replaceAll('-', '_')}.slice/crio-${id}.scope\n`, `pod:${pod}`],
    [`11:memory:/kubepods/besteffort/pod${pod}/${id}\n1:name=systemd:/kubepods/besteffort/pod${pod}/${id}\n0::/\n`, `pod:${pod}`],
    [`0::/system.slice/docker-${id}.scope\n`, 'docker:0123456789ab'],
    [`12:cpu:/docker/${id}\n1:name=systemd:/docker/${id}\n`, 'docker:0123456789ab'],
    [`0::/docker/${id}/system.slice/nginx.service\n`, 'docker:0123456789ab'],
    [`0::/machine.slice/libpod-${id}.scope/container\n`, 'podman:0123456789ab'],
    ['0::/lxc.payload.web-1/system.slice/cron.service\n', 'lxc:web-1'],
    ['1:name=systemd:/lxc/web/init.scope\n', 'lxc:web'],
    ['0::/machine.slice/machine-deb\\x2dsid.scope/payload\n', 'machine:deb-sid'],
    ['0::/system.slice/squid.service\n', 'squid.service'],
    ['0::/system.slice/system-openvpn.slice/openvpn@a\\x2db.service\n', 'openvpn@a-b.service'],
    ['0::/user.slice\n', ''],
  ])('%j belongs to %s', (text, name) => expect(nameOfCgroup(text)).toBe(name))
})

/** A /proc of our own: namespaces are files, and a process is in the one that its file is another name of. */
class FakeHost {
  readonly dir = mkdtempSync(join(tmpdir(), 'conntrail-table-'))
  readonly places: Places = { proc: join(this.dir, 'proc'), mounts: [join(this.dir, 'netns')] }
  readonly bin = join(this.dir, 'bin')

  constructor() {
    this.file('netns/.keep')
    rmSync(join(this.dir, 'netns/.keep'))
    this.file('proc/self/ns/net')
    this.process(1, 'proc/self/ns/net')
  }

  file(name: string, text = ''): string {
    const path = join(this.dir, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
    return path
  }

  process(pid: number, namespace: string, cgroup = '0::/\n'): void {
    this.file(`proc/${pid}/cgroup`, cgroup)
    mkdirSync(join(this.dir, `proc/${pid}/ns`))
    linkSync(join(this.dir, namespace), join(this.dir, `proc/${pid}/ns/net`))
  }

  loaded(max = 1000): void {
    for (const [name, value] of Object.entries({ max, buckets: 512, count: 3 })) this.file(`proc/sys/net/netfilter/nf_conntrack_${name}`, `${value}\n`)
  }

  stats(process: string | number, entries: number, drop: number): void {
    this.file(`proc/${process}/net/stat/nf_conntrack`, `entries  clashres found drop\n${[entries, 0, 0, drop].map(hex).join('  ')}\n${[entries, 0, 0, 1].map(hex).join('  ')}\n`)
  }

  tool(name: string, script: string): void {
    chmodSync(this.file(`bin/${name}`, `#!/bin/sh\n${script}\n`), 0o755)
  }

  inode(name: string): number {
    return statSync(join(this.dir, name)).ino
  }

  options(more: Partial<TableOptions> = {}): TableOptions {
    return { name: 'level', random: 'r', now: () => ({ sec: 7, usec: 0 }), env: { PATH: this.bin }, places: this.places, once: true, ...more }
  }
}

/** All that an input tells until `enough`, or until its end. */
async function collect(options: TableOptions, enough: (notices: readonly Notice[], stop: () => void) => void = () => {}): Promise<readonly Notice[]> {
  const feed = tableFeed(options)
  const inputs: Input[] = []
  await feed.open((input) => inputs.push(input))
  expect(inputs).toHaveLength(1)
  const all: Notice[] = []
  while ((await inputs[0]!.next()) !== 0) {
    all.push(...inputs[0]!.notices)
    enough(all, () => feed.stop())
  }
  inputs[0]!.close()
  return all
}

const samplesOf = (notices: readonly Notice[]): TableSample[] => notices.flatMap(({ sample }) => sample ?? [])
const wordsOf = (notices: readonly Notice[]): string => notices.flatMap(({ diagnostic }) => diagnostic ?? []).join('\n')

describe('the input', () => {
  let host: FakeHost
  beforeEach(() => {
    host = new FakeHost()
  })
  afterEach(() => rmSync(host.dir, { recursive: true, force: true }))

  test('its own namespace, once', async () => {
    host.loaded()
    host.stats('self', 250, 9)
    const want = { sec: 7, usec: 0, timeSource: 0, netns: host.inode('proc/self/ns/net'), netnsName: '', count: 250, max: 1000, buckets: 512, total: null }
    expect(await collect(host.options())).toEqual([{ sample: { ...want, cpus: [{ clash_resolve: 0, found: 0, drop: 9 }, { clash_resolve: 0, found: 0, drop: 1 }] } }])
  })

  test('goes on until it is stopped, and takes one more sample then', async () => {
    host.loaded()
    host.stats('self', 1, 0)
    const notices = await collect(host.options({ once: false, everyMs: 5 }), (all, stop) => {
      if (all.length < 3) return
      host.stats('self', 2, 44)
      stop()
    })
    expect(samplesOf(notices).length).toBeGreaterThanOrEqual(4)
    expect(samplesOf(notices).at(-1)).toMatchObject({ count: 2, cpus: [{ drop: 44 }, { drop: 1 }] })
  })

  test('the module is not loaded: missing with `once`, else said once and waited for', async () => {
    await expect(collect(host.options())).rejects.toMatchObject({ kind: 'missing', message: expect.stringContaining('modprobe nf_conntrack') })
    let asked = 0
    const load = setInterval(() => {
      if (++asked !== 8) return
      host.loaded()
      host.stats('self', 6, 0)
    }, 5)
    const notices = await collect(host.options({ once: false, everyMs: 5 }), (all, stop) => samplesOf(all).length > 1 && stop())
    clearInterval(load)
    expect(wordsOf(notices)).toMatch(/^the kernel's connection tracking is not loaded.*modprobe nf_conntrack.*waited for$/)
    expect(samplesOf(notices)[0]).toMatchObject({ count: 6 })
  })

  test('not Linux, or no /proc', async () => {
    const error = await collect(host.options({ places: { proc: join(host.dir, 'none'), mounts: [] } })).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(InputError)
    expect(error).toMatchObject({ kind: 'missing' })
  })

  test('a kernel without the file: conntrack -S', async () => {
    host.loaded()
    host.tool('conntrack', `[ "$*" = -S ] && printf 'cpu=0   \\tfound=3 drop=5 \\ncpu=1   \\tfound=4 drop=6 \\n'`)
    expect(samplesOf(await collect(host.options()))).toMatchObject([{ count: 3, max: 1000, cpus: [{ found: 3, drop: 5 }, { found: 4, drop: 6 }] }])
    host.tool('conntrack', `echo 'conntrack v1.4.7 (conntrack-tools): Operation failed: Operation not permitted' >&2; exit 1`)
    const notices = await collect(host.options({ once: false, everyMs: 5 }), (all, stop) => samplesOf(all).length > 2 && stop())
    expect(wordsOf(notices)).toMatch(/^the samples have no counters: .*Operation not permitted.*CAP_NET_ADMIN[^\n]*$/)
    expect(samplesOf(notices)[0]).toMatchObject({ count: 3, max: 1000, buckets: 512, total: null, cpus: null })
  })

  test('other namespaces: through their processes, by name, number and path', async () => {
    host.loaded()
    host.stats('self', 1, 0)
    const mount = host.file('netns/gw')
    host.process(40, 'netns/gw')
    host.stats(40, 40, 4)
    host.process(41, 'netns/gw')
    host.file('other')
    host.process(50, 'other', '0::/system.slice/squid.service\n')
    host.stats(50, 50, 5)
    const [gw, other] = [host.inode('netns/gw'), host.inode('other')]
    for (const which of ['gw', String(gw), mount]) {
      expect(samplesOf(await collect(host.options({ netns: [which] })))).toMatchObject([{ netns: gw, netnsName: 'gw', count: 40, cpus: [{ drop: 4 }, { drop: 1 }] }])
    }
    expect(samplesOf(await collect(host.options({ netns: ['squid.service'] })))).toMatchObject([{ netns: other, netnsName: 'squid.service', count: 50 }])
    const all = samplesOf(await collect(host.options({ netns: ['all'] })))
    expect(all.map(({ netns, netnsName, count }) => [netns, netnsName, count]).sort()).toEqual([[host.inode('proc/self/ns/net'), '', 1], [gw, 'gw', 40], [other, 'squid.service', 50]].sort())
    // the first process is gone, the second is read
    rmSync(join(host.dir, 'proc/40'), { recursive: true })
    host.stats(41, 41, 4)
    expect(samplesOf(await collect(host.options({ netns: ['gw'] })))).toMatchObject([{ netns: gw, count: 41 }])
  })

  test('a namespace that is not there is an error alone and a word among others, and comes when it is made', async () => {
    host.loaded()
    host.stats('self', 1, 0)
    await expect(collect(host.options({ netns: ['gw'] }))).rejects.toMatchObject({ kind: 'missing', message: expect.stringContaining('"gw"') })
    const notices = await collect(host.options({ netns: ['self', 'gw'], once: false, everyMs: 5 }), (all, stop) => {
      const samples = samplesOf(all)
      if (samples.length === 3) {
        host.file('netns/gw')
        host.process(40, 'netns/gw')
        host.stats(40, 40, 4)
      }
      if (samples.some(({ netnsName }) => netnsName === 'gw')) stop()
    })
    expect(wordsOf(notices)).toMatch(/^there is no network namespace "gw"[^\n]*waited for$/)
  })

  test('no process in it and no right to enter it: said once', async () => {
    host.loaded()
    host.stats('self', 1, 0)
    host.file('netns/gw')
    host.tool('nsenter', `echo "nsenter: reassociate to namespace 'ns/net' failed: Operation not permitted" >&2; exit 1`)
    const notices = await collect(host.options({ netns: ['self', 'gw'], once: false, everyMs: 20 }), (all, stop) => samplesOf(all).length > 10 && stop())
    expect(wordsOf(notices)).toMatch(/^cannot look into the network namespace gw: .*not permitted.*CAP_SYS_ADMIN[^\n]*$/)
    expect(new Set(samplesOf(notices).map(({ netnsName }) => netnsName))).toEqual(new Set(['']))
  })

  test('names that machines give yield to better ones', () => {
    host.file('netns/cni-01234567-89ab-cdef-0123-456789abcdef')
    host.file('netns/cni-11234567-89ab-cdef-0123-456789abcdef')
    host.process(40, 'netns/cni-01234567-89ab-cdef-0123-456789abcdef', `0::/system.slice/docker-${'ab'.repeat(32)}.scope\n`)
    expect(listNamespaces(host.places).found.map(({ name }) => name).sort()).toEqual(['', 'cni-11234567-89ab-cdef-0123-456789abcdef', 'docker:abababababab'])
    expect(chooseNamespace('cni-01234567-89ab-cdef-0123-456789abcdef', listNamespaces(host.places).found)?.name).toBe('docker:abababababab')
    expect(ownNamespace(host.places)).toEqual({ inode: host.inode('proc/self/ns/net'), name: '' })
  })
})

test('every counter of the records has a word in the newest header or in conntrack -S', () => {
  const words = new Set([...Object.keys(procForms.at(-1)![4]), ...Object.keys(toolForms[0]![2])])
  expect([...counterNames].filter((name) => !words.has(name))).toEqual([])
})
