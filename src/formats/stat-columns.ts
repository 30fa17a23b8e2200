/**
 * The kernel's per-CPU counters as text: /proc/net/stat/nf_conntrack by its header's words, and the rows of `conntrack -S`. Words and columns have moved over the
 * years and are told by name, never by place. Source: ct_cpu_seq_show in net/netfilter/nf_conntrack_standalone.c of Linux 2.6.18 to 6.18; mnl_attr_show_cpu_stats
 * and display_proc_conntrack_stats in conntrack-tools src/conntrack.c, 0.9 to 1.4.9.
 */
import { counterNames, type Counters, metricsCounterNames } from '../event.js'

type CounterName = keyof Counters

/** What else a counter has been called. `delete_list` was where `chainlength` is now: only the word tells which of them a column is. */
const otherWords: Readonly<Record<string, CounterName>> = { chainlength: 'chaintoolong', clashres: 'clash_resolve', icmp_error: 'error' }

const counterByWord = new Map<string, CounterName>([...[...counterNames, ...metricsCounterNames].map((name) => [name, name] as const), ...Object.entries(otherWords)])

/** Every word that a row of `conntrack -S` may begin with. Those that are no counter of ours were filled until 4.8 or so, and are 0 since. */
const firstWords = new Set([...counterByWord.keys(), 'entries', 'searched', 'new', 'delete', 'delete_list'])

/** Counters are 32 bits wide. */
const COUNTER_MAX = 0xffff_ffff

/** What stands in each column: a counter, the number of entries, or null for what is passed over. */
export type StatColumns = readonly (CounterName | 'entries' | null)[]

/** One row: the counters of one CPU as read. `entries` is -1 where the row has none. `isTrimmed`: the blank at its end is missing. */
export interface StatRow {
  readonly cpu: number
  readonly entries: number
  readonly counters: Counters
  readonly isTrimmed: boolean
}

/** Counters of all CPUs, and how many entries the table has; -1 where the text does not say. */
export interface Stats {
  readonly count: number
  readonly cpus: readonly Counters[]
}

/** The columns of a header line; null for every other line. */
export function readStatHeader(line: string): StatColumns | null {
  const words = line.trim().split(/[ \t]+/)
  if (words[0] !== 'entries' || !words.every((word) => /^[a-z_]+$/.test(word))) return null
  const columns = words.map((word) => (word === 'entries' ? word : (counterByWord.get(word) ?? null)))
  return columns.includes('drop') ? columns : null
}

/** A row below that header, the `cpu`-th; null where it is broken. Columns that the header does not name (16 words, 17 columns) are passed over. */
export function readStatRow(line: string, columns: StatColumns, cpu: number): StatRow | null {
  const values = line.trim().split(/[ \t]+/)
  if (values.length < columns.length) return null
  const counters: Partial<Record<CounterName, number>> = {}
  let entries = -1
  for (let i = 0; i < values.length; i++) {
    if (!/^[0-9a-f]{8}$/.test(values[i]!)) return null
    const column = columns[i]
    if (column === 'entries') entries = parseInt(values[i]!, 16)
    else if (column) counters[column] = parseInt(values[i]!, 16)
  }
  return { cpu, entries, counters, isTrimmed: false }
}

/** The whole file; null where it is none. `entries` is the namespace's number in every row: the last one is the newest. */
export function readStatFile(text: string): Stats | null {
  const lines = text.split('\n')
  const columns = readStatHeader(lines[0] ?? '')
  if (columns === null) return null
  const rows = lines.slice(1, -1).map((line, i) => readStatRow(line, columns, i))
  if (rows.length === 0 || rows.includes(null)) return null
  return { count: rows.at(-1)!.entries, cpus: rows.map((row) => row!.counters) }
}

const TOOL_ROW = /^[ \t]*cpu=(\d{1,5})[ \t]+(([a-z_]+\d?)=.*)$/

/**
 * A row of `conntrack -S` (and `-S expect`, and what 1.4.5 and later print from /proc): `cpu=0   TAB found=3 invalid=7 … `. 'other' for a line that only looks like
 * one, 'broken' for one that begins like one and is cut off or has no numbers.
 */
export function readToolRow(line: string): StatRow | 'other' | 'broken' {
  const match = TOOL_ROW.exec(line.trimEnd())
  if (match === null || !firstWords.has(match[3]!)) return 'other'
  const counters: Partial<Record<CounterName, number>> = {}
  let entries = -1
  for (const part of match[2]!.split(/[ \t]+/)) {
    const [, word, digits] = /^(\w+)=(\d{1,10})$/.exec(part) ?? []
    const value = Number(digits)
    if (word === undefined || value > COUNTER_MAX) return 'broken'
    const name = counterByWord.get(word)
    if (word === 'entries') entries = value
    else if (name !== undefined) counters[name] = value
  }
  return { cpu: Number(match[1]), entries, counters, isTrimmed: !/[ \t]\r?$/.test(line) }
}

/** All that `conntrack -S` printed; null where there is no whole row. */
export function readToolText(text: string): Stats | null {
  const whole = text
    .split('\n')
    .map(readToolRow)
    .filter((row) => typeof row === 'object')
  if (whole.length === 0 || !whole.every((row) => isLike(row, whole[0]!))) return null
  return { count: whole.at(-1)!.entries, cpus: whole.map((row) => row.counters) }
}

/** Rows of one call show the same counters and all end alike: the tool leaves a blank behind every value, an editor takes it away, a torn row lacks it alone. */
export function isLike(row: StatRow, first: StatRow): boolean {
  return row.isTrimmed === first.isTrimmed && Object.keys(row.counters).length === Object.keys(first.counters).length
}

const OLD_ROW = /^[ \t]*([a-z_]+)[ \t]+(\d{1,10})[ \t]*\r?$/

/**
 * A line of what conntrack up to 1.4.4 prints from /proc, one counter a line (`drop      TAB TAB 0       `): the word and the number, null for every other line.
 * It shows the first CPU alone, so only `entries`, which is the namespace's, says anything about the whole.
 */
export function readOldLine(line: string): { readonly word: string; readonly value: number } | null {
  const [, word, digits] = OLD_ROW.exec(line) ?? []
  return word === undefined || Number(digits) > COUNTER_MAX || !firstWords.has(word) ? null : { word, value: Number(digits) }
}
