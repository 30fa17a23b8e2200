/** How a run stands, as plain data: for /metrics, /status and readiness. */
import type { CheckpointStore } from '../checkpoint.js'
import type { FlowTracker } from '../detectors/flows/tracker.js'
import type { TableFullOfHosts } from '../detectors/table-full-hosts.js'
import { ownNamespace } from '../inputs/namespaces.js'
import type { ConfigNumbers, EpisodeNumbers, InputNumbers, MetricsSnapshot, OutputNumbers, ProcessNumbers, TableNumbers } from '../metrics.js'
import type { Channels } from '../run/channel.js'
import { episodeKey, type Records } from '../run/records.js'
import type { Run } from '../run/run.js'
import type { Feed } from '../stage.js'
import type { Tally } from '../tally.js'
import type { Plan } from './plan.js'

export interface StandingParts {
  readonly version: string
  readonly node: string
  readonly processNumbers: () => ProcessNumbers
  /** seconds since the epoch */
  readonly now: () => number
  readonly startedAt: number
  readonly plan: Plan
  readonly config: ConfigNumbers
  readonly feeds: ReadonlyMap<string, Feed>
  readonly run: Run
  readonly records: Records
  readonly channels: Channels
  readonly tally: Tally
  readonly tracker: FlowTracker
  readonly tableFull: TableFullOfHosts
  readonly store: CheckpointStore | null
}

export function standingOf(parts: StandingParts): MetricsSnapshot {
  const { tally, tracker, run } = parts
  const { lines, bytes, flows, expects, kernel, notes, ignored, rejected, held, alerts, gaps } = tally
  return {
    version: parts.version,
    node: parts.node.replace(/^v/, ''),
    now: parts.now(),
    startedAt: parts.startedAt,
    sinceTurnSeconds: run.sinceTickMs / 1000,
    eventLoopLagSeconds: run.latenessMs / 1000,
    process: parts.processNumbers(),
    config: parts.config,
    lines: { lines, bytes, flows, expects, kernel, notes, ignored, rejected, held, alerts, gaps },
    flows: { live: tracker.table.size, limit: tracker.table.limit, forgotten: tracker.forgotten, displaced: tracker.displaced },
    inputs: parts.plan.inputs.map((input) => inputNumbers(parts, input.name, input.type, parts.feeds.get(input.name))),
    outputs: outputNumbers(parts),
    tables: tableNumbers(parts.records),
    episodes: episodeNumbers(parts),
    checkpoint: parts.store === null ? null : { ageSeconds: parts.store.ageSeconds, hasFailed: parts.store.hasFailed },
  }
}

/** Said of an input until it is open, or known not to be. */
export const BEING_OPENED = 'it is being opened'

/** Why an input is not open; '' where it is. One that looks for what is there is open when it has looked, be it that nothing was there. */
export function faultOf(feed: Feed, run: Run): string {
  const said = run.opened.get(feed) ?? null
  if (said !== null && said !== '') return said
  return (feed.hasLooked ?? said !== null) ? '' : BEING_OPENED
}

function inputNumbers({ run, records, plan }: StandingParts, name: string, type: string, feed: Feed | undefined): InputNumbers {
  const sources = run.sources.filter(({ input }) => input.name === name)
  const finished = run.finished.get(name)
  const fault = feed === undefined ? '' : faultOf(feed, run)
  const lost = [...records.lost.values()].filter(({ input }) => input === name)
  return {
    name,
    type,
    isOpen: fault === '',
    isOptional: plan.watchesHost,
    reason: fault,
    lines: sources.reduce((sum, { linesSoFar }) => sum + linesSoFar, finished?.lines ?? 0),
    bytes: sources.reduce((sum, source) => sum + source.bytes, finished?.bytes ?? 0),
    lagSeconds: Math.max(-1, ...sources.map(({ lagSeconds }) => lagSeconds)),
    unreadBytes: sources.reduce((sum, { input: { unreadBytes = -1 } }) => (unreadBytes < 0 ? sum : Math.max(0, sum) + unreadBytes), -1),
    restarts: sources.reduce((sum, { input: { restarts = 0 } }) => sum + restarts, finished?.restarts ?? 0),
    lost,
  }
}

function outputNumbers({ channels, plan }: StandingParts): OutputNumbers[] {
  return channels.numbers.map(({ output, offered, wanted, filtered, written, bytes, failure }) => {
    const config = plan.outputs.find(({ name }) => name === output.name)
    const usual = { name: output.name, type: config?.type ?? '', bytes }
    const status = output.status?.()
    if (status === undefined) {
      return {
        ...{ ...usual, sums: { read: offered, written, filtered, rejected: 0, held: wanted - written, lost: 0 }, lostBy: {} },
        ...{ failures: failure === '' ? 0 : 1, lastFailure: failure, spool: null, circuit: null, oldestUnackedSeconds: 0, certificateExpiresAt: -1 },
      }
    }
    const expires = status.certificateExpires ?? null
    return {
      ...usual,
      sums: {
        // what an earlier run left and what was refused once and is tried again is read anew
        read: offered + status.found + status.replayed,
        written: status.sent,
        filtered: filtered + status.filtered,
        rejected: status.refused,
        held: wanted + status.replayed - status.taken + status.queueRecords,
        lost: Object.values(status.lostBy).reduce((sum, count) => sum + count, 0),
      },
      lostBy: status.lostBy,
      failures: status.failed,
      lastFailure: status.lastError,
      spool: { bytes: status.queueBytes, limitBytes: config !== undefined && 'spool' in config ? config.spool : 0, isWritable: status.isWritable },
      circuit: status.circuit === 'half-open' ? 'half_open' : (status.circuit ?? null),
      oldestUnackedSeconds: status.oldestUnacked ?? 0,
      certificateExpiresAt: expires === null ? -1 : expires / 1000,
    }
  })
}

function tableNumbers(records: Records): TableNumbers[] {
  const own = ownNamespace().inode
  return [...records.tables.values()].map(({ record, now }): TableNumbers => {
    const { netns, netnsName, count, max, total, fullIn } = record
    const isOwn = netns === own
    const fresh = isOwn ? records.tableNow(netns) : null
    return { netns, netnsName, isOwn, count, max, stats: now, ...(fresh === null ? {} : { count: fresh.count, max: fresh.max, stats: fresh.now }), total: total ?? {}, fullInSeconds: fullIn }
  })
}

/** Each rule, in each namespace that is watched or has had an episode, and each other host that a log names. */
function episodeNumbers({ records, tableFull }: StandingParts): EpisodeNumbers[] {
  const open = new Set(tableFull.openEpisodes.map(episodeKey))
  const watched = [...records.tables.values()].map(({ record: { netns, netnsName } }) => ({ rule: 'table_full', netns, netnsName, host: '', count: 0 }))
  const all = new Map<string, Omit<EpisodeNumbers, 'isActive' | 'begun'> & { readonly count: number }>(watched.map((each) => [episodeKey(each), each]))
  for (const [key, begun] of records.begun) all.set(key, { ...begun })
  return [...all].map(([key, { rule, netns, netnsName, host, count }]) => ({ rule, netns, netnsName, host, isActive: open.has(key), begun: count }))
}
