/** How a run stands, as plain data: for /metrics, /status and readiness. */
import type { CheckpointStore } from '../checkpoint.js'
import type { FlowTracker } from '../detectors/flows/tracker.js'
import type { TableFull } from '../detectors/table-full.js'
import { ownNamespace } from '../inputs/namespaces.js'
import type { ConfigNumbers, EpisodeNumbers, InputNumbers, MetricsSnapshot, OutputNumbers, ProcessNumbers, TableNumbers } from '../metrics.js'
import type { Channels } from '../run/channel.js'
import type { Records } from '../run/records.js'
import type { Run } from '../run/run.js'
import type { Feed } from '../stage.js'
import type { Tally } from '../tally.js'
import type { WebhookStatus } from '../outputs/webhook.js'
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
  readonly tableFull: TableFull
  readonly store: CheckpointStore | null
}

export function standingOf(parts: StandingParts): MetricsSnapshot {
  const { tally, tracker, run } = parts
  const { lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps } = tally
  return {
    version: parts.version,
    node: parts.node.replace(/^v/, ''),
    now: parts.now(),
    startedAt: parts.startedAt,
    sinceTurnSeconds: run.sinceTickMs / 1000,
    eventLoopLagSeconds: run.latenessMs / 1000,
    process: parts.processNumbers(),
    config: parts.config,
    lines: { lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps, held: lines - flows - expects - kernel - notes - ignored - rejected },
    flows: { live: tracker.table.size, limit: tracker.table.limit, forgotten: tracker.forgotten, displaced: tracker.displaced },
    inputs: parts.plan.inputs.map((input) => inputNumbers(parts, input.name, input.type, parts.feeds.get(input.name))),
    outputs: outputNumbers(parts),
    tables: tableNumbers(parts.records),
    episodes: episodeNumbers(parts),
    checkpoint: parts.store === null ? null : { ageSeconds: parts.store.ageSeconds(parts.now()), hasFailed: parts.store.hasFailed },
  }
}

function inputNumbers({ run, records, plan }: StandingParts, name: string, type: string, feed: Feed | undefined): InputNumbers {
  const sources = run.sources.filter(({ input }) => input.name === name)
  const fault = feed === undefined ? '' : (run.opened.get(feed) ?? 'it is being opened')
  const lost = [...records.lost.values()].filter(({ input }) => input === name)
  return {
    name,
    type,
    isOpen: fault === '',
    isOptional: plan.watchesHost,
    reason: fault,
    lines: sources.reduce((sum, { linesSoFar }) => sum + linesSoFar, 0),
    bytes: sources.reduce((sum, source) => sum + source.bytes, 0),
    lagSeconds: Math.max(-1, ...sources.map(({ lagSeconds }) => lagSeconds)),
    unreadBytes: 0,
    restarts: lost.find(({ cause }) => cause === 'input_restart')?.count ?? 0,
    lost,
  }
}

function outputNumbers({ channels, plan }: StandingParts): OutputNumbers[] {
  return channels.numbers.map(({ output, wanted, written, bytes, failure }) => {
    const type = plan.outputs.find(({ name }) => name === output.name)?.type ?? ''
    const filtered = channels.offered - wanted
    const usual = { name: output.name, type, bytes, lostBy: {}, oldestUnackedSeconds: 0, spool: null, circuit: null }
    if (!('status' in output)) {
      return { ...usual, sums: { read: channels.offered, written, filtered, rejected: 0, held: wanted - written, lost: 0 }, failures: failure === '' ? 0 : 1, lastFailure: failure }
    }
    const status = (output as unknown as { status: () => WebhookStatus & { lost?: number } }).status()
    const lost = status.lost ?? 0
    const config = plan.outputs.find(({ name }) => name === output.name)
    return {
      ...usual,
      // what an earlier run left in the spool counts as read
      sums: {
        read: filtered + status.filtered + status.sent + status.refused + lost + status.queueRecords + (wanted - written),
        ...{ written: status.sent, filtered: filtered + status.filtered, rejected: status.refused, held: status.queueRecords + (wanted - written), lost },
      },
      failures: status.failed,
      lastFailure: status.lastError,
      spool: { bytes: status.queueBytes, limitBytes: config !== undefined && 'spool' in config ? config.spool : 0, isWritable: true },
      circuit: status.circuit === 'half-open' ? 'half_open' : status.circuit,
      oldestUnackedSeconds: status.oldestUnacked ?? 0,
    }
  })
}

function tableNumbers(records: Records): TableNumbers[] {
  const own = ownNamespace().inode
  return [...records.tables.values()].map(({ netns, netnsName, count, max, total }) => ({ netns, netnsName, isOwn: netns === own, count, max, stats: total ?? {}, fullInSeconds: -1 }))
}

/** Each rule, in each namespace that is watched or has had an episode. */
function episodeNumbers({ records, tableFull }: StandingParts): EpisodeNumbers[] {
  const open = new Set(tableFull.openEpisodes.map(({ rule, netns }) => `${rule} ${netns}`))
  const watched = [...records.tables.values()].map(({ netns, netnsName }) => ({ rule: 'table_full', netns, netnsName, count: 0 }))
  const all = new Map<string, { readonly rule: string; readonly netns: number; readonly netnsName: string; readonly count: number }>(
    watched.map((each) => [`${each.rule} ${each.netns}`, each]),
  )
  for (const [key, begun] of records.begun) all.set(key, { ...begun })
  return [...all].map(([key, { rule, netns, netnsName, count }]) => ({ rule, netns, netnsName, isActive: open.has(key), begun: count }))
}
