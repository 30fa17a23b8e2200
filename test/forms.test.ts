/**
 * The same events heard in several forms give equal records but for what a form cannot say. `forms` says what each can; from that follows, key by key, what may be
 * missing or differ: everything else is equal, field by field, and the flow numbers match one to one. Each listener prints its own time, so `time` itself is not
 * compared.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { recordsOf } from './harness.js'

type Record_ = Record<string, any>
/** What may become of a key: not there; or there and good enough beside the fuller form's. */
type Rule = 'absent' | 'ignored' | ((got: any, want: any, record: Record_) => boolean)
type Rules = Readonly<Record<string, Rule>>

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/${name}.linux-6.18.conntrack-1.4.7.in`, import.meta.url), 'utf8')
const flowsOf = async (name: string): Promise<Record_[]> => (await recordsOf(fixture(name))).filter((record) => record['type'] === 'flow')

function flat(part: object, prefix = '', into = new Map<string, unknown>()): Map<string, unknown> {
  for (const [key, value] of Object.entries(part) as [string, unknown][]) {
    if (typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length > 0) flat(value, `${prefix}${key}.`, into)
    else into.set(prefix + key, Array.isArray(value) ? JSON.stringify(value) : value)
  }
  return into
}

/** The first differences as text; none is []. */
function unequal(fuller: readonly Record_[], other: readonly Record_[], rules: Rules): string[] {
  if (fuller.length !== other.length) return [`${other.length} records beside ${fuller.length}`]
  const found: string[] = []
  const names = new Map<string, string>()
  const back = new Map<string, string>()
  fuller.forEach((record, i) => {
    const want = flat(record)
    const got = flat(other[i]!)
    const [a, b] = [String(want.get('flow')), String(got.get('flow'))]
    if ((names.get(a) ?? b) !== b || (back.get(b) ?? a) !== a) found.push(`${i + 1}: flow ${b} beside ${a}`)
    names.set(a, b)
    back.set(b, a)
    for (const key of new Set([...want.keys(), ...got.keys()])) {
      const rule = key === 'flow' || key === 'time' ? 'ignored' : rules[key]
      const [w, g] = [want.get(key), got.get(key)]
      const good = rule === 'ignored' || (rule === 'absent' ? g === undefined : rule === undefined ? w === g : w === g || rule(g, w, other[i]!))
      if (!good) found.push(`${i + 1} ${key}: ${String(g)} beside ${String(w)}`)
    }
  })
  return found.slice(0, 10)
}

/** What a form says. */
interface Form {
  /** own: the line's, to the microsecond; whole: whole seconds of a wall clock; none */
  readonly time: 'own' | 'whole' | 'none'
  readonly id?: true
  readonly labels?: true
  /** start and stop in whole seconds or in nanoseconds */
  readonly kernelTimes?: 's' | 'ns'
  readonly xml?: true
  readonly save?: true
}

const forms = {
  plain: { time: 'none' },
  extended: { time: 'none' },
  id: { time: 'none', id: true },
  ktime: { time: 'none', id: true, kernelTimes: 's' },
  ktimeAlone: { time: 'none', kernelTimes: 's' },
  ts: { time: 'own' },
  tsx: { time: 'own', id: true },
  labelled: { time: 'own', id: true, labels: true },
  stamped: { time: 'own', id: true, kernelTimes: 's' },
  full: { time: 'own', id: true, kernelTimes: 's', labels: true },
  save: { time: 'none', save: true },
  xml: { time: 'none', id: true, xml: true },
  xmlLabels: { time: 'none', id: true, xml: true, labels: true },
  xmlKtime: { time: 'none', id: true, xml: true, kernelTimes: 'ns' },
  xmlFull: { time: 'whole', id: true, xml: true, kernelTimes: 'ns' },
} as const satisfies Record<string, Form>

const within =
  (most: number): Rule =>
  (got, want) =>
    got !== undefined && want !== undefined && Math.abs(got - want) <= most
/** the process was gone when one of the listeners looked it up */
const mayBeGone: Rule = (got, want) => got === undefined || want === undefined
const sameSecond: Rule = (got, want) => got !== undefined && want !== undefined && got.slice(0, 19) === want.slice(0, 19)
const always = (rule: Rule, ...keys: string[]): Record<string, Rule> => Object.fromEntries(keys.map((key) => [key, rule]))
const isIcmp = (record: Record_): boolean => record['protocol_number'] === 1 || record['protocol_number'] === 58

/** What may be missing or differ in `other` beside `fuller`. */
function rulesFor(fuller: Form, other: Form): Rules {
  const rules: Record<string, Rule> = { 'by.progname': mayBeGone, by: mayBeGone, delta_time: within(1) }
  const said = (key: keyof Form, ...keys: string[]): void => {
    if (!other[key]) Object.assign(rules, always('absent', ...keys))
    else if (!fuller[key]) Object.assign(rules, always('ignored', ...keys))
  }
  said('id', 'id')
  said('labels', 'labels')
  said('kernelTimes', 'start', 'stop')
  if (fuller.kernelTimes && other.kernelTimes && fuller.kernelTimes !== other.kernelTimes) Object.assign(rules, always(sameSecond, 'start', 'stop'))
  rules['time_source'] = (got) => got === { own: undefined, whole: 'local', none: 'received' }[other.time]
  // listeners stamp for themselves: fractions of a millisecond apart, a scheduler's slice at worst
  const apart = other.time === 'whole' || fuller.time === 'whole' ? 1.1 : 0.1
  Object.assign(rules, always(other.time === 'none' ? 'absent' : fuller.time === 'none' ? 'ignored' : within(apart), 'transition.after', 'end.idle'))
  // with a stop a flow ended then; else when its destroy was printed, up to a collector's round later; without either it lasted its delta-time, if that is there
  const late = (form: Form): number => (form.kernelTimes || form.time === 'none' ? 0 : 60)
  rules['end.duration'] = (got, want, record) =>
    got === undefined ? other.time === 'none' && record['delta_time'] === undefined : want !== undefined && got - want > -1.1 - late(fuller) && got - want < 1.1 + late(other)
  if (other.save) {
    Object.assign(rules, always('absent', 'mark', 'helper', 'secctx', 'use', 'offload', 'delta_time', 'end.duration', 'orig.packets', 'orig.bytes', 'reply.packets', 'reply.bytes'))
    // of ICMP it says the original tuple alone, of DCCP no ports
    for (const key of ['reply.type', 'reply.code', 'reply.id', 'nat.id']) rules[key] = (got, _, record) => got === undefined && isIcmp(record)
    for (const key of ['orig.sport', 'orig.dport', 'reply.sport', 'reply.dport', 'nat.sport', 'nat.dport']) rules[key] = (got, _, record) => got === undefined && record['protocol'] === 'dccp'
    // the tool has no words for the two heartbeat states of SCTP and prints (null)
    const wordless: Rule = (got, want, record) => record['protocol'] === 'sctp' && (got === undefined || want === undefined || want.startsWith('HEARTBEAT_'))
    Object.assign(rules, always(wordless, 'state', 'transition.from', 'transition.to'))
    // the only form that shows whether a flow was expected
    rules['ctstate'] = (got, want) => got === 'RELATED' && want === 'NEW'
  }
  if (other.xml) Object.assign(rules, always('absent', ...['type', 'code', 'id'].flatMap((key) => [`orig.${key}`, `reply.${key}`]), 'nat.id', 'offload'))
  return rules
}

const sets: readonly [set: string, events: number, fullest: [string, Form], others: readonly (readonly [string, Form])[]][] = [
  ['rich', 679, ['E-full', forms.full], [['E-plain', forms.plain], ['E-ktime', forms.ktime], ['E-ts', forms.ts], ['E-tsx', forms.tsx], ['E-save', forms.save], ['E-xml', forms.xmlFull]]],
  [
    'overrun',
    700,
    ['E-full', forms.full],
    [['E-plain', forms.plain], ['E-extended', forms.extended], ['E-ktime', forms.ktimeAlone], ['E-ts', forms.ts], ['E-userspace', forms.ts], ['E-tsx', forms.tsx], ['E-save', forms.save], ['E-xml', forms.xmlFull]],
  ],
  ['ftp', 60, ['E-timestamp-id-extended', forms.tsx], [['E', forms.plain], ['E-save', forms.save], ['E-xml-timestamp-ktimestamp', forms.xmlFull]]],
  ['ftp6', 30, ['E-timestamp-id-extended', forms.tsx], [['E', forms.plain], ['E-save', forms.save], ['E-xml-timestamp-ktimestamp', forms.xmlFull]]],
  ['nat', 90, ['E-timestamp-id', forms.tsx], [['E', forms.plain], ['E-save', forms.save], ['E-xml-timestamp-ktimestamp', forms.xmlFull]]],
  ['zones', 89, ['E-timestamp-id', forms.tsx], [['E', forms.plain], ['E-save', forms.save], ['E-xml', forms.xml]]],
  ['protocols', 90, ['E-timestamp-id-extended', forms.tsx], [['E-timestamp-id', forms.tsx], ['E', forms.plain], ['E-save', forms.save], ['E-xml', forms.xml]]],
  ['reset', 67, ['E-timestamp-id-ktimestamp-extended', forms.stamped], [['E', forms.plain], ['E-save', forms.save], ['E-xml-ktimestamp', forms.xmlKtime]]],
  ['labels', 55, ['E-timestamp-id-labels', forms.labelled], [['E-timestamp-id', forms.tsx], ['E-save', forms.save], ['E-xml-labels', forms.xmlLabels]]],
  ['port-reuse', 98, ['E-timestamp-id-ktimestamp', forms.stamped], [['E-timestamp-id', forms.tsx], ['E-timestamp', forms.ts], ['E-save', forms.save], ['E-xml', forms.xmlKtime]]],
]

describe('the same events give equal records, but for what the form cannot say:', () => {
  for (const [set, events, [fullest, form], others] of sets) {
    test.each(others)(`${set}, ${fullest} and %s`, async (name, other) => {
      const full = await flowsOf(`${set}.${fullest}`)
      const heard = await flowsOf(`${set}.${name}`)
      expect(full).toHaveLength(events)
      // a capture of so many lines holds fewer events where two of the lines are a header
      if (set === 'overrun' && other.xml) full.length -= 2
      expect(unequal(full, heard, rulesFor(form, other))).toEqual([])
    })
  }
})

describe('the rows of one table give equal records, but for what the form cannot say:', () => {
  /** Tables were read one after the other: timeouts ran on, and so did the ages. */
  const ranOn: Rules = { timeout: within(5), delta_time: within(5), time_source: 'ignored' }
  /** /proc counts its reader. */
  const ofProc: Rules = { ...ranOn, ...always('absent', 'id', 'helper', 'labels', 'start'), use: (got, want) => got === want + 1 }
  const tables: readonly [string, string, Form, readonly (readonly [string, Form | 'proc'])[]][] = [
    ['rich', 'L-full', { time: 'none', id: true, kernelTimes: 's', labels: true }, [['L-save', forms.save], ['L-xml', forms.xml], ['proc', 'proc']]],
    ['nat', 'L-full', { time: 'none', id: true, kernelTimes: 's' }, [['L', forms.plain], ['L-save', forms.save], ['L-xml', forms.xmlKtime], ['proc', 'proc']]],
    ['zones', 'L-extended-id', forms.id, [['L', forms.plain], ['L-save', forms.save], ['L-xml', forms.xml], ['proc', 'proc']]],
    ['protocols', 'L-extended-id', forms.id, [['L', forms.plain], ['L-save', forms.save], ['L-xml', forms.xml], ['proc', 'proc']]],
  ]
  for (const [set, fullest, form, others] of tables) {
    test.each(others)(`${set}, ${fullest} and %s`, async (name, other) => {
      // the kernel prints no ports of UDP-Lite and DCCP, which leaves two flows of two hosts alike
      const alike = (record: Record_): boolean => other === 'proc' && ['udplite', 'dccp'].includes(record['protocol'])
      const full = (await flowsOf(`${set}.${fullest}`)).filter((record) => !alike(record))
      const rows = (await flowsOf(`${set}.${name}`)).filter((record) => !alike(record))
      const rules = other === 'proc' ? ofProc : { ...rulesFor(form, other), ...ranOn, ...(other.save ? always('absent', 'delta_time') : {}) }
      // in -o save a row that is not answered looks like a NEW
      if (other !== 'proc' && other.save) Object.assign(rules, { event: (got: unknown) => got === 'new', ...always('ignored', 'transition.from', 'transition.to') })
      const keep = other !== 'proc' && other.xml ? ['src', 'dst', 'sport', 'dport', 'srckey', 'dstkey', 'zone'] : ['src', 'dst', 'sport', 'dport', 'srckey', 'dstkey', 'zone', 'type', 'code', 'id']
      const keyOf = (r: Record_): string => JSON.stringify([r['protocol_number'], r['zone'], ...keep.map((key) => r['orig'][key] ?? 0), r['reply']['zone']])
      const byKey = new Map(rows.map((r) => [keyOf(r), r]))
      const both = full.filter((r) => byKey.has(keyOf(r)))
      expect(both.length).toBe(Math.min(full.length, rows.length))
      expect(unequal(both, both.map((r) => byKey.get(keyOf(r))!), rules)).toEqual([])
    })
  }
})
