/**
 * What follows from a sample of the kernel's counters and those before: totals that do not wrap, what was dropped in between, rates, and when the table will be full.
 *
 * The kernel counts in 32 bits for each CPU (struct ip_conntrack_stat, unsigned int), so each is unwrapped for itself before they are added. A namespace that was
 * deleted and made again may have the same number and begins at 0: what went down farther than a wrap explains begins anew, without differences.
 */
import { type CounterName, counterNames, type Counters, type TableRecord, type TableSample } from '../event.js'
import { fullIn, isApart, type Level, lookBack } from './filling.js'

const WRAP = 2 ** 32
/** More than this a second no CPU can count (it would take 20 ns a packet); so a counter that fell can have wrapped only if it rose by no more than that. */
const RISE_PER_SECOND_MAX = 50_000_000
/** Without a time between the samples: half of the range. */
const RISE_MAX = 2 ** 31
/** Namespaces come and go: the ones not sampled for longest are forgotten. */
const TABLES_MAX = 4096

/** Flow events of a namespace since its sample before; `whole`: nothing of them was lost. */
export interface FlowCounts {
  readonly new: number
  readonly destroy: number
  readonly whole: boolean
}

/** A counter as it stood last: for each CPU as read (null where only sums are known), and the unwrapped sum. */
interface Counted {
  readonly cpus: readonly number[] | null
  readonly total: number
  /** microseconds since the epoch */
  readonly at: number
}

interface Table {
  name: string
  /** of the last sample, microseconds since the epoch; NaN before the first */
  at: number
  readonly counters: Map<CounterName, Counted>
  levels: readonly Level[]
}

interface Saved {
  readonly key: string
  readonly name: string
  readonly at: number | null
  readonly counters: readonly (readonly [CounterName, Counted])[]
  readonly levels?: readonly Level[]
}

const unknownTable = (name: string): Table => ({ name, at: NaN, counters: new Map(), levels: [] })

export class Levels {
  readonly #tables = new Map<string, Table>()
  /** how often a counter has moved, or a table's name; what else a checkpoint has is only for samples that are read again */
  changes = 0

  /** Plain data for a checkpoint: what later samples are compared with. */
  save(): unknown {
    return Array.from(this.#tables, ([key, { name, at, counters, levels }]): Saved => ({ key, name, at: Number.isNaN(at) ? null : at, counters: [...counters], levels }))
  }

  restore(saved: unknown): void {
    for (const { key, name, at, counters, levels = [] } of saved as Saved[]) this.#tables.set(key, { name, at: at ?? NaN, counters: new Map(counters), levels })
  }

  /** The clock by which samples are taken was set, `by` microseconds forward. */
  clockStepped(by: number): void {
    for (const table of this.#tables.values()) {
      table.at += by
      table.levels = table.levels.map(({ at, count }) => ({ at: at + by, count }))
      for (const [name, counted] of table.counters) table.counters.set(name, { ...counted, at: counted.at + by })
    }
  }

  /**
   * The sample with its differences; rates a second, to a thousandth. `flows` where a flow input watches the same namespace. Samples of two inputs have nothing to
   * do with each other, even where neither knows its namespace: `input` keeps them apart.
   */
  sample(sample: TableSample, flows?: FlowCounts, input = ''): TableRecord {
    const at = sample.sec * 1e6 + sample.usec
    const key = `${sample.netns} ${input}`
    let table = this.#table(key, sample.netnsName)
    let counted = readCounters(sample, table.counters, at)
    if (counted === null) {
      table = unknownTable(table.name)
      counted = readCounters(sample, table.counters, at)!
    }
    const flowTime = flows?.whole ? at - table.at : NaN
    const differs = (name: CounterName): number => {
      const now = counted.get(name)
      const before = table.counters.get(name)
      return now === undefined || before === undefined ? -1 : now.total - before.total
    }
    const drop = differs('drop')
    const level = { at, count: sample.count }
    const levels = sample.count < 0 ? [] : lookBack(table.levels, level)
    const record: TableRecord = {
      ...sample,
      total: sample.total === null && counted.size === 0 ? null : totals(counted),
      cpus: null,
      usage: sample.count >= 0 && sample.max > 0 ? sample.count / sample.max : -1,
      drop,
      earlyDrop: differs('early_drop'),
      insertFailed: differs('insert_failed'),
      rateNew: rate(flows?.new ?? -1, flowTime),
      rateDestroy: rate(flows?.destroy ?? -1, flowTime),
      rateDrop: rate(drop, at - (table.counters.get('drop')?.at ?? at)),
      fullIn: fullIn([...levels, level], sample.max),
    }
    if (sample.count >= 0) table.levels = isApart(levels, level) ? [...levels, level] : levels
    for (const [name, value] of counted) {
      const before = table.counters.get(name)
      if (before?.total !== value.total || before.cpus?.length !== value.cpus?.length) this.changes++
      table.counters.set(name, value)
    }
    table.at = at
    this.#keep(key, table)
    return record
  }

  /** What is known of the sample's namespace. Another name under the same number is another namespace. */
  #table(key: string, name: string): Table {
    const known = this.#tables.get(key)
    if (known === undefined || (known.name !== '' && name !== '' && known.name !== name)) return unknownTable(name)
    if (name !== '' && known.name !== name) {
      known.name = name
      this.changes++
    }
    return known
  }

  #keep(key: string, table: Table): void {
    this.#tables.delete(key)
    this.#tables.set(key, table)
    if (this.#tables.size > TABLES_MAX) this.#tables.delete(this.#tables.keys().next().value!)
  }
}

/** Every counter of the sample, unwrapped; null where one shows that the counting has begun anew. */
function readCounters(sample: TableSample, before: ReadonlyMap<CounterName, Counted>, at: number): Map<CounterName, Counted> | null {
  const counted = new Map<CounterName, Counted>()
  for (const name of counterNames) {
    const cpus = sample.total !== null ? null : ofCpus(sample.cpus ?? [], name)
    const sum = cpus === null ? sample.total?.[name] : cpus.reduce((all, value) => all + value, 0)
    if (sum === undefined || cpus?.length === 0) continue
    const known = before.get(name)
    const rise = known === undefined ? sum : cpus === null || known.cpus === null ? riseOfSum(sum, cpus, known) : riseOfCpus(cpus, known.cpus, at - known.at)
    if (rise < 0) return null
    counted.set(name, { cpus, total: (known?.total ?? 0) + rise, at })
  }
  return counted
}

/** Each counter as the kernel has it now, added up over the CPUs, wrapped where it has wrapped. */
export function sumOverCpus({ cpus, total }: TableSample): Counters {
  if (cpus === null) return total ?? {}
  const sums: Partial<Record<keyof Counters, number>> = {}
  for (const counters of cpus) for (const [name, value] of Object.entries(counters) as [keyof Counters, number][]) sums[name] = (sums[name] ?? 0) + value
  return sums
}

/** A counter of every CPU; none where a row lacks it, for the sum of some CPUs says nothing. */
function ofCpus(cpus: readonly Counters[], name: CounterName): number[] {
  const values = cpus.map((counters) => counters[name]).filter((value) => value !== undefined)
  return values.length === cpus.length ? values : []
}

/** -1 where it fell, or where sums and CPUs cannot be compared. */
function riseOfSum(sum: number, cpus: readonly number[] | null, known: Counted): number {
  return cpus === null && known.cpus === null && sum >= known.total ? sum - known.total : -1
}

/** How far the counters of all CPUs rose, wrapped or not; -1 where the CPUs are others or one fell farther than it can have wrapped. */
function riseOfCpus(now: readonly number[], before: readonly number[], microseconds: number): number {
  if (now.length !== before.length) return -1
  const most = microseconds > 0 ? Math.min(RISE_MAX, Math.max(1, microseconds / 1e6) * RISE_PER_SECOND_MAX) : RISE_MAX
  let all = 0
  for (let i = 0; i < now.length; i++) {
    const rise = now[i]! - before[i]!
    if (rise < 0 && rise + WRAP > most) return -1
    all += rise < 0 ? rise + WRAP : rise
  }
  return all
}

function totals(counted: ReadonlyMap<CounterName, Counted>): Counters {
  const total: Partial<Record<CounterName, number>> = {}
  for (const [name, value] of counted) total[name] = value.total
  return total
}

/** A second; -1 where the number is not known or no time has passed. */
const rate = (count: number, microseconds: number): number => (count >= 0 && microseconds > 0 ? Math.round((count * 1e9) / microseconds) / 1000 : -1)
