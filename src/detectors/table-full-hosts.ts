/**
 * Table-full episodes of several hosts: the file of a central syslog holds the lines of many kernels, each with a table, a rate limiter and episodes of its own. What
 * no line names a host for (samples, flows, counters, evictions) is of the own host, which is the one that this runs on, or where inputs are logs the first named.
 */
import type { KernelEvent, KernelKind, RecordTime, TableRecord, Time } from '../event.js'
import type { FullTable } from '../stage.js'
import { type KernelSource, type OpenEpisode, TableFull, type TableFullOptions } from './table-full.js'

/** Hosts with a detector for themselves, beside the own one. A log can name any number, forged ones too: those beyond share one. */
export const HOSTS_MAX = 64
/** What their alerts have for a host, which is no host's name. */
export const OTHER_HOSTS = '(others)'

const OF_LOCALHOST = /^localhost(?:\.|$)/i
const IS_ADDRESS = /^[\d.]+$|:/
const OF_UNKNOWN_KERNEL: KernelSource = { namesNamespaces: null, initialNetns: 0 }
/** They neither are evidence nor come out of the rate limiter. */
const ofNoEpisode: ReadonlySet<KernelKind> = new Set(['packet_log', 'invalid_packet', 'loaded', 'helper'])

export interface HostsOptions {
  /** names of the host that this runs on, as records have it first; none where they have none */
  readonly names: readonly string[]
  /** nothing is read but logs, and nobody said whose: what names no host goes with the first that is named */
  readonly adopts: boolean
}

export interface OpenEpisodeOfHost extends OpenEpisode {
  /** '' the own */
  readonly host: string
}

interface OtherHost {
  /** as the first line had it */
  readonly name: string
  readonly detector: TableFull
}

type Rules = Parameters<TableFull['setRules']>[0]

/** What a checkpoint holds; before there were hosts it held the state of the own one. */
interface State {
  readonly own: unknown
  /** the name of the own one, where it was adopted */
  readonly adopted: string | null
  readonly hosts: readonly (readonly [name: string, state: unknown])[]
  readonly others: unknown
}

export class TableFullOfHosts implements FullTable {
  readonly #options: TableFullOptions
  readonly #names: readonly string[]
  readonly #adopts: boolean
  /** null: as they were at the beginning */
  #rules: Rules | null = null
  readonly #own: TableFull
  /** null: none was named yet, or it is not asked for */
  #adopted: string | null = null
  /** by name in small letters, the one that was heard of last at the end */
  readonly #hosts = new Map<string, OtherHost>()
  #others: TableFull | null = null
  /** lines of one host come one after the other */
  #lastNamed = ''
  #lastName = ''

  constructor(options: TableFullOptions, { names, adopts }: HostsOptions) {
    this.#options = options
    this.#names = names
    this.#adopts = adopts
    this.#own = new TableFull({ ...options, emit: (alert) => options.emit({ ...alert, host: this.nameOf(this.#adopted ?? '') }) })
  }

  /** How records name the host that a line names: '' as all others of this host. */
  nameOf(named: string): string {
    if (named === this.#lastNamed) return this.#lastName
    this.#lastNamed = named
    this.#lastName = OF_LOCALHOST.test(named) || this.#names.some((name) => isSame(name, named)) ? '' : named
    return this.#lastName
  }

  /** The kernel's line; `source` is what is known of the own host's kernel. */
  kernel(event: KernelEvent, source: KernelSource): void {
    const of = this.#of(event.host, !ofNoEpisode.has(event.kind))
    of?.kernel(event, of === this.#own ? source : OF_UNKNOWN_KERNEL)
  }

  sample(record: TableRecord, isArchived = false): void {
    this.#of(record.host ?? '', true)!.sample(record, isArchived)
  }

  knowFull({ host, netns, sec }: KernelEvent): void {
    this.#of(host, true)!.knowFull(netns, sec)
  }

  wasFull(netns: number, sec: number): boolean {
    return this.#own.wasFull(netns, sec)
  }

  advance(at: Time | RecordTime): void {
    this.#own.advance(at)
    for (const { detector } of this.#hosts.values()) detector.advance(at)
    this.#others?.advance(at)
  }

  /** Of any of them: the time of every line moves them all. */
  get isOpen(): boolean {
    if (this.#own.isOpen || this.#others?.isOpen === true) return true
    for (const { detector } of this.#hosts.values()) if (detector.isOpen) return true
    return false
  }

  /** Only flows of the own host are followed. */
  get waitsForFlows(): boolean {
    return this.#own.waitsForFlows
  }

  flowsCame(isEnough: boolean): void {
    this.#own.flowsCame(isEnough)
  }

  setRules(rules: Rules): void {
    for (const each of this.#all()) each.setRules(rules)
    this.#rules = rules
  }

  get openEpisodes(): readonly OpenEpisodeOfHost[] {
    const of = (detector: TableFull | null, host: string): OpenEpisodeOfHost[] => (detector?.openEpisodes ?? []).map((episode) => ({ ...episode, host }))
    return [...of(this.#own, this.nameOf(this.#adopted ?? '')), ...[...this.#hosts.values()].flatMap(({ name, detector }) => of(detector, name)), ...of(this.#others, OTHER_HOSTS)]
  }

  clockStepped(by: number): void {
    for (const each of this.#all()) each.clockStepped(by)
  }

  finish(): void {
    for (const each of this.#all()) each.finish()
  }

  save(): unknown {
    const hosts = [...this.#hosts.values()].map(({ name, detector }) => [name, detector.save()] as const)
    return { own: this.#own.save(), adopted: this.#adopted, hosts, others: this.#others?.save() ?? null } satisfies State
  }

  restore(saved: unknown, now = Infinity): void {
    const isOfOne = !('own' in (saved as object))
    const { own, adopted, hosts, others } = isOfOne ? { own: saved, adopted: null, hosts: [], others: null } : (saved as State)
    this.#own.restore(own, now)
    if (this.#adopts) this.#adopted = adopted
    for (const [name, state] of hosts) this.#begin(name).restore(state, now)
    if (others !== null) this.#ofOthers().restore(others, now)
  }

  *#all(): Generator<TableFull> {
    yield this.#own
    for (const { detector } of this.#hosts.values()) yield detector
    if (this.#others !== null) yield this.#others
  }

  /** null: that host has none, and needs none. */
  #of(named: string, isNeeded: boolean): TableFull | null {
    if (named === '' || OF_LOCALHOST.test(named)) return this.#own
    if (this.#adopts) this.#adopted ??= named
    if (this.#adopts ? isSame(this.#adopted!, named) : this.nameOf(named) === '') return this.#own
    const key = this.#keyOf(named.toLowerCase())
    const known = this.#hosts.get(key)
    if (known === undefined) return isNeeded ? this.#beginOf(named) : null
    this.#hosts.delete(key)
    this.#hosts.set(key, known)
    return known.detector
  }

  /** The key under which it is known, be it with its domain or without. Asked for each line of a log that somebody may have made up. */
  #keyOf(named: string): string {
    if (this.#hosts.has(named) || IS_ADDRESS.test(named)) return named
    const point = named.indexOf('.')
    if (point >= 0) return this.#hosts.has(named.slice(0, point)) ? named.slice(0, point) : named
    const beginning = `${named}.`
    for (const known of this.#hosts.keys()) if (known.startsWith(beginning)) return known
    return named
  }

  /** Of many the one that has nothing open and was not heard of for longest makes room. */
  #beginOf(name: string): TableFull {
    if (this.#hosts.size >= HOSTS_MAX) {
      const idle = this.#idle()
      if (idle === null) return this.#ofOthers()
      this.#hosts.delete(idle)
    }
    const detector = this.#begin(name)
    detector.advance(this.#own.clock)
    return detector
  }

  #idle(): string | null {
    for (const [key, { detector }] of this.#hosts) if (!detector.isOpen) return key
    return null
  }

  #begin(name: string): TableFull {
    const detector = this.#make(name, '')
    this.#hosts.set(name.toLowerCase(), { name, detector })
    return detector
  }

  #ofOthers(): TableFull {
    if (this.#others === null) {
      this.#others = this.#make(OTHER_HOSTS, ` on further hosts (only ${HOSTS_MAX} are told apart at once)`)
      this.#others.advance(this.#own.clock)
    }
    return this.#others
  }

  /** Its boot is not known: the host's name is in its place, so that the same line of two hosts is two episodes. */
  #make(host: string, where: string): TableFull {
    const { emit } = this.#options
    const detector = new TableFull({ ...this.#options, boot: `host ${host}`, holders: null, where, emit: (alert) => emit({ ...alert, host }) })
    if (this.#rules !== null) detector.setRules(this.#rules)
    return detector
  }
}

/** In any case of the letters, and by the first label where one of them has no domain. */
function isSame(a: string, b: string): boolean {
  const [x, y] = [a.toLowerCase(), b.toLowerCase()]
  if (x === y) return true
  if (IS_ADDRESS.test(x) || IS_ADDRESS.test(y)) return false
  return x.startsWith(`${y}.`) ? !y.includes('.') : y.startsWith(`${x}.`) && !x.includes('.')
}
