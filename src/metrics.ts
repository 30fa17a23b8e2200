/**
 * What the program says about itself, from one snapshot: Prometheus text (exposition format 0.0.4), whether it lives and is ready, and the status page. Names are
 * node_exporter's where the meaning is the same (collector conntrack: gauges without labels, of the namespace that the program runs in), else begin with
 * `conntrail_`, or `process_` for what all exporters call so.
 */

/**
 * All numbers at one moment, as plain data without secrets. Counters count from the start of the program. Seconds, bytes and records; -1: not known. Names of
 * inputs and outputs are those of the configuration.
 */
export interface MetricsSnapshot {
  readonly version: string
  /** of Node, without the v */
  readonly node: string
  /** seconds since the epoch */
  readonly now: number
  readonly startedAt: number
  /** since the loop last turned: its tick of a second, or a batch */
  readonly sinceTurnSeconds: number
  /** how late timers were at most, lately */
  readonly eventLoopLagSeconds: number
  readonly process: ProcessNumbers
  readonly config: ConfigNumbers
  /** lines = flows + expects + kernel + notes + ignored + rejected + held */
  readonly lines: LineNumbers
  readonly flows: FlowNumbers
  readonly inputs: readonly InputNumbers[]
  readonly outputs: readonly OutputNumbers[]
  readonly tables: readonly TableNumbers[]
  /** each rule that is on, in each namespace that is watched or has had an episode */
  readonly episodes: readonly EpisodeNumbers[]
  readonly checkpoint: CheckpointNumbers | null
}

export interface ProcessNumbers {
  readonly cpuSeconds: number
  readonly residentBytes: number
  readonly openFiles: number
}

export interface ConfigNumbers {
  /** '' where there is no file */
  readonly path: string
  /** seconds since the epoch at which what runs now was read */
  readonly loadedAt: number
  /** all of them, and of these the refused */
  readonly reloads: number
  readonly failedReloads: number
  /** why the last reload failed, while the configuration before it goes on; '' it did not */
  readonly fault: string
}

export interface LineNumbers {
  readonly lines: number
  readonly bytes: number
  readonly flows: number
  readonly expects: number
  readonly kernel: number
  readonly notes: number
  readonly ignored: number
  readonly rejected: number
  /** not decided yet: a format waits for further lines */
  readonly held: number
  readonly alerts: number
  readonly gaps: number
}

export interface FlowNumbers {
  readonly live: number
  readonly limit: number
  /** known from rows alone, whose timeout ran out or that a later dump did not show */
  readonly forgotten: number
  /** given up: too many flows, or too many lives of one tuple */
  readonly displaced: number
}

export interface InputNumbers {
  readonly name: string
  /** as in the configuration: kmsg, conntrack, file ... */
  readonly type: string
  readonly isOpen: boolean
  /** it is missing and the rest runs without it, because nobody named it or it has ended as it should; it does not count against readiness */
  readonly isOptional: boolean
  /** why it is not open, else '' */
  readonly reason: string
  readonly lines: number
  readonly bytes: number
  /** how far what was last worked through is behind now; -1 also while it is idle */
  readonly lagSeconds: number
  /** files: bytes that are there and not read; -1 of what cannot tell */
  readonly unreadBytes: number
  /** children and listeners that were started again */
  readonly restarts: number
  /** by cause of gap; `isExact` false: at least */
  readonly lost: readonly { readonly cause: string; readonly isExact: boolean; readonly count: number }[]
}

/**
 * Records by their fate: read = written + filtered + rejected + held + lost. `read` are all records that were made since the output is there, what an earlier run had
 * left in the spool, and dead letters that are sent again; a record that is delivered again counts once.
 */
export interface RecordSums {
  readonly read: number
  /** taken by the file or the pipe; acknowledged by the receiver */
  readonly written: number
  /** left out by emit, where or when */
  readonly filtered: number
  /** refused by the receiver for good, and kept among the dead letters */
  readonly rejected: number
  /** on the way: in memory, in the spool, or sent and not acknowledged */
  readonly held: number
  /** dropped, or refused and not to be kept; each is in a gap record */
  readonly lost: number
}

export type Circuit = 'closed' | 'half_open' | 'open'
const circuits: readonly Circuit[] = ['closed', 'half_open', 'open']

export interface OutputNumbers {
  readonly name: string
  /** as in the configuration: stdout, file, webhook */
  readonly type: string
  readonly sums: RecordSums
  /** bytes written */
  readonly bytes: number
  /** of `lost`, by reason */
  readonly lostBy: Readonly<Record<string, number>>
  /** attempts that failed, tried again or not */
  readonly failures: number
  /** the last of them, without secrets; '' none */
  readonly lastFailure: string
  /** null: it has none */
  readonly spool: { readonly bytes: number; readonly limitBytes: number; readonly isWritable: boolean } | null
  /** null: it has none */
  readonly circuit: Circuit | null
  /** age of the oldest record that is held; 0: none is */
  readonly oldestUnackedSeconds: number
  /** when the receiver's certificate expires, seconds since the epoch; -1: it has shown none */
  readonly certificateExpiresAt: number
}

/** Counters that node_exporter has too. On kernels of today `ignore` is 0, and `insert` counts what processes insert. */
export const statNames = ['drop', 'early_drop', 'found', 'ignore', 'insert', 'insert_failed', 'invalid', 'search_restart'] as const
export type StatName = (typeof statNames)[number]

export interface TableNumbers {
  readonly netns: number
  readonly netnsName: string
  /** the namespace that this program runs in */
  readonly isOwn: boolean
  readonly count: number
  readonly max: number
  /** as the kernel has them at this moment, summed over CPUs; absent where the kernel has none */
  readonly stats: Readonly<Partial<Record<StatName, number>>>
  /** the same, unwrapped, of the last sample */
  readonly total: Readonly<Partial<Record<StatName, number>>>
  /** when it will be full; -1: it is not heading there */
  readonly fullInSeconds: number
}

export interface EpisodeNumbers {
  readonly rule: string
  /** 0: not known */
  readonly netns: number
  readonly netnsName: string
  /** '' this host */
  readonly host: string
  readonly isActive: boolean
  /** episodes that have begun */
  readonly begun: number
}

export interface CheckpointNumbers {
  readonly ageSeconds: number
  /** the last one could not be written */
  readonly hasFailed: boolean
}

/** What does not close: 0, unless a record is unaccounted for. */
export function unaccounted({ read, written, filtered, rejected, held, lost }: RecordSums): number {
  return read - written - filtered - rejected - held - lost
}

/** The same for lines. */
export function unaccountedLines({ lines, flows, expects, kernel, notes, ignored, rejected, held }: LineNumbers): number {
  return lines - flows - expects - kernel - notes - ignored - rejected - held
}

/** The loop turns once a second; so long it may be held up. */
const TURN_SECONDS_MAX = 10

export interface Health {
  readonly ok: boolean
  /** a sentence for each thing that is not as it should be */
  readonly reasons: readonly string[]
}

/** Does the loop turn? What does not, a restart mends. */
export function liveness({ sinceTurnSeconds }: MetricsSnapshot): Health {
  return healthOf(sinceTurnSeconds > TURN_SECONDS_MAX ? [`the loop has not turned for ${Math.floor(sinceTurnSeconds)} s`] : [])
}

/** Does it do what it is configured for? A receiver that is down is no fault of this program: the spool holds what it misses. */
export function readiness(snapshot: MetricsSnapshot): Health {
  const { config, inputs, outputs, checkpoint } = snapshot
  return healthOf([
    ...liveness(snapshot).reasons,
    ...(config.fault === '' ? [] : [`the configuration was not reloaded: ${config.fault}`]),
    ...inputs.filter(({ isOpen, isOptional }) => !isOpen && !isOptional).map(({ name, reason }) => `input ${name} is not open${reason === '' ? '' : `: ${reason}`}`),
    ...outputs.filter(({ spool }) => spool !== null && !spool.isWritable).map(({ name }) => `the spool of output ${name} cannot be written`),
    ...(checkpoint?.hasFailed === true ? ['the checkpoint cannot be written'] : []),
  ])
}

function healthOf(reasons: readonly string[]): Health {
  return { ok: reasons.length === 0, reasons }
}

/** What /status shows: the snapshot with what follows from it. */
export function statusOf(snapshot: MetricsSnapshot): object {
  return {
    live: liveness(snapshot),
    ready: readiness(snapshot),
    unaccounted: { lines: unaccountedLines(snapshot.lines), records: Object.fromEntries(snapshot.outputs.map(({ name, sums }) => [name, unaccounted(sums)])) },
    ...snapshot,
  }
}

type Labels = Readonly<Record<string, string | number>>
type Sample = readonly [value: number, labels?: Labels]

/** node_exporter's words, so that both may be scraped. There they are gauges. */
const statHelp: Readonly<Record<StatName, string>> = {
  drop: 'Number of packets dropped due to conntrack failure.',
  early_drop: 'Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.',
  found: 'Number of searched entries which were successful.',
  ignore: 'Number of packets seen which are already connected to a conntrack entry.',
  insert: 'Number of entries inserted into the list.',
  insert_failed: 'Number of entries for which list insertion was attempted but failed.',
  invalid: 'Number of packets seen which can not be tracked.',
  search_restart: 'Number of conntrack table lookups which had to be restarted due to hashtable resizes.',
}

/** The text of /metrics. */
export function metricsText(snapshot: MetricsSnapshot): string {
  return [...ofTables(snapshot), ...ofEpisodes(snapshot), ...ofLines(snapshot), ...ofInputs(snapshot), ...ofOutputs(snapshot), ...ofProgram(snapshot)].join('')
}

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

function ofTables({ tables }: MetricsSnapshot): string[] {
  const own = tables.filter(({ isOwn }) => isOwn)
  const each = (value: (table: TableNumbers) => number | undefined): Sample[] => tables.map((table) => [value(table) ?? -1, placeOf(table)])
  return [
    gauge('node_nf_conntrack_entries', 'Number of currently allocated flow entries for connection tracking.', own.map(({ count }) => [count])),
    gauge('node_nf_conntrack_entries_limit', 'Maximum size of connection tracking table.', own.map(({ max }) => [max])),
    ...statNames.map((name) => gauge(`node_nf_conntrack_stat_${name}`, statHelp[name], own.map(({ stats }) => [stats[name] ?? -1]))),
    gauge('conntrail_table_entries', 'Entries of the connection tracking table of a network namespace.', each(({ count }) => count)),
    gauge('conntrail_table_entries_limit', 'Entries that the connection tracking table of a network namespace may have.', each(({ max }) => max)),
    gauge('conntrail_table_full_in_seconds', 'Time until the table is full if it grows on as it does; only while it is heading there.', each(({ fullInSeconds }) => fullInSeconds)),
    counter('conntrail_drops_total', 'Packets that the kernel dropped because it could not track them: the table was full, or an insertion lost a race.', each(({ total }) => total.drop)),
    counter('conntrail_early_drops_total', 'Entries that the kernel removed early to make room in a full table.', each(({ total }) => total.early_drop)),
    counter('conntrail_insert_failures_total', 'Insertions into the table that failed, mostly races of two packets for one flow.', each(({ total }) => total.insert_failed)),
  ]
}

function ofEpisodes({ episodes }: MetricsSnapshot): string[] {
  const labels = (episode: EpisodeNumbers): Labels => ({ rule: episode.rule, ...placeOf(episode), ...(episode.host === '' ? {} : { host: episode.host }) })
  return [
    gauge('conntrail_episode_active', 'Whether an episode of this rule is open now.', episodes.map((episode) => [Number(episode.isActive), labels(episode)])),
    counter('conntrail_episodes_total', 'Episodes that have begun.', episodes.map((episode) => [episode.begun, labels(episode)])),
  ]
}

function ofLines({ lines, flows }: MetricsSnapshot): string[] {
  const fates = { flow: lines.flows, expect: lines.expects, kernel: lines.kernel, note: lines.notes, ignored: lines.ignored, rejected: lines.rejected }
  return [
    counter('conntrail_read_lines_total', 'Lines that all inputs have brought.', [[lines.lines]]),
    counter('conntrail_read_bytes_total', 'Bytes that all inputs have brought.', [[lines.bytes]]),
    counter('conntrail_lines_total', 'Lines by what they became; each line counts once.', Object.entries(fates).map(([fate, count]) => [count, { fate }])),
    gauge('conntrail_held_lines', 'Lines that wait for further lines to become a record.', [[lines.held]]),
    counter('conntrail_alerts_total', 'Alert notices that were made.', [[lines.alerts]]),
    counter('conntrail_gaps_total', 'Gap records that were made: losses that are known.', [[lines.gaps]]),
    gauge('conntrail_flows_live', 'Flows that are tracked now.', [[flows.live]]),
    gauge('conntrail_flows_limit', 'Flows that are tracked at most.', [[flows.limit]]),
    counter('conntrail_flows_forgotten_total', 'Flows known from rows of the table alone that were let go of: their timeout ran out, or a later dump did not show them.', [[flows.forgotten]]),
    counter('conntrail_flows_displaced_total', 'Flows that were given up while they lived: there were too many (conntrail_flows_limit), or too many lives of one tuple. Each is in a gap record.', [[flows.displaced]]),
  ]
}

function ofInputs({ inputs }: MetricsSnapshot): string[] {
  const each = (value: (input: InputNumbers) => number): Sample[] => inputs.map((input) => [value(input), { input: input.name, type: input.type }])
  const lost = inputs.flatMap(({ name, lost: all }) => all.map(({ cause, isExact, count }): Sample => [count, { input: name, cause, bound: isExact ? 'exact' : 'at_least' }]))
  return [
    gauge('conntrail_input_open', 'Whether the input is open.', each(({ isOpen }) => Number(isOpen))),
    counter('conntrail_input_received_lines_total', 'Lines that the input has brought.', each(({ lines }) => lines)),
    counter('conntrail_input_received_bytes_total', 'Bytes that the input has brought.', each(({ bytes }) => bytes)),
    counter('conntrail_input_restarts_total', 'Times that the program behind the input was started again, be it that nothing was lost.', each(({ restarts }) => restarts)),
    counter('conntrail_input_lost_total', 'Lines, events or records that are known to be lost, by the cause of the gap record; at_least: there may be more.', lost),
    gauge('conntrail_input_lag_seconds', 'How old the last record of the input was when it was read; absent where nothing read so far has a time of its own.', each(({ lagSeconds }) => lagSeconds)),
    gauge('conntrail_input_unread_bytes', 'Bytes that the files of the input have and that are not read yet, as of the last look at them; absent for inputs that are no files.', each(({ unreadBytes }) => unreadBytes)),
  ]
}

function ofOutputs({ outputs }: MetricsSnapshot): string[] {
  const labels = ({ name, type }: OutputNumbers): Labels => ({ output: name, type })
  const each = (value: (output: OutputNumbers) => number): Sample[] => outputs.map((output) => [value(output), labels(output)])
  const lost = outputs.flatMap((output) => Object.entries(output.lostBy).map(([reason, count]): Sample => [count, { ...labels(output), reason }]))
  const states = outputs.flatMap((output) => (output.circuit === null ? [] : circuits.map((state): Sample => [Number(output.circuit === state), { ...labels(output), state }])))
  return [
    counter('conntrail_output_read_records_total', 'Records that were made since the output is there, what an earlier run had left for it, and dead letters sent again. It is written + filtered + rejected + held + lost.', each(({ sums }) => sums.read)),
    counter('conntrail_output_written_records_total', 'Records that the file or the pipe has, or that the receiver has acknowledged.', each(({ sums }) => sums.written)),
    counter('conntrail_output_filtered_records_total', 'Records that are not for this output.', each(({ sums }) => sums.filtered)),
    counter('conntrail_output_rejected_records_total', 'Records that the receiver refused for good; they are among the dead letters.', each(({ sums }) => sums.rejected)),
    gauge('conntrail_output_held_records', 'Records on the way.', each(({ sums }) => sums.held)),
    counter('conntrail_output_lost_records_total', 'Records that were dropped.', each(({ sums }) => sums.lost)),
    counter('conntrail_output_discarded_records_total', 'Records that were dropped, by reason.', lost),
    counter('conntrail_output_written_bytes_total', 'Bytes that went into the file, the pipe or the spool.', each(({ bytes }) => bytes)),
    counter('conntrail_output_failures_total', 'Attempts that failed, also those that were repeated.', each(({ failures }) => failures)),
    gauge('conntrail_output_spool_bytes', 'Bytes in the spool.', each(({ spool }) => spool?.bytes ?? -1)),
    gauge('conntrail_output_spool_limit_bytes', 'Bytes that the spool may hold.', each(({ spool }) => spool?.limitBytes ?? -1)),
    gauge('conntrail_output_spool_writable', 'Whether the spool can be written.', outputs.flatMap((output) => (output.spool === null ? [] : [[Number(output.spool.isWritable), labels(output)]]))),
    gauge('conntrail_output_circuit_state', 'Whether the receiver is tried: closed all the time, half_open with one request, open not now.', states),
    gauge('conntrail_output_certificate_expiry_timestamp_seconds', "When the receiver's certificate expires; absent where it has shown none.", each(({ certificateExpiresAt }) => certificateExpiresAt)),
    gauge('conntrail_output_oldest_unacked_seconds', 'Age of the oldest record that is held; 0 where none is.', each(({ oldestUnackedSeconds }) => oldestUnackedSeconds)),
  ]
}

function ofProgram({ version, node, now, startedAt, sinceTurnSeconds, eventLoopLagSeconds, process: used, config, checkpoint }: MetricsSnapshot): string[] {
  return [
    gauge('conntrail_build_info', 'The program: 1, with its version and that of Node.', [[1, { version, node }]]),
    gauge('conntrail_config_reload_success', 'Whether the last reload of the configuration was taken; 1 also where there was none.', [[Number(config.fault === '')]]),
    counter('conntrail_config_reloads_total', 'Reloads of the configuration by result.', [
      [config.reloads - config.failedReloads, { result: 'success' }],
      [config.failedReloads, { result: 'failure' }],
    ]),
    gauge('conntrail_config_loaded_timestamp_seconds', 'When the configuration that runs was read.', [[config.loadedAt]]),
    gauge('conntrail_checkpoint_age_seconds', 'Age of the last checkpoint; absent without a state directory.', [[checkpoint?.ageSeconds ?? -1]]),
    gauge('conntrail_checkpoint_success', 'Whether the last checkpoint could be written; absent without a state directory.', checkpoint === null ? [] : [[Number(!checkpoint.hasFailed)]]),
    gauge('conntrail_loop_turn_age_seconds', 'Time since the loop last turned, which it does each second.', [[sinceTurnSeconds]]),
    gauge('conntrail_eventloop_lag_seconds', 'How late timers were at most, lately.', [[eventLoopLagSeconds]]),
    gauge('conntrail_uptime_seconds', 'Time since the start.', [[Math.max(0, now - startedAt)]]),
    counter('process_cpu_seconds_total', 'Total user and system CPU time spent in seconds.', [[used.cpuSeconds]]),
    gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', [[used.residentBytes]]),
    gauge('process_open_fds', 'Number of open file descriptors.', [[used.openFiles]]),
    gauge('process_start_time_seconds', 'Start time of the process since unix epoch in seconds.', [[startedAt]]),
  ]
}

/** The number identifies a namespace only together with the name and the time. */
function placeOf({ netns, netnsName }: { readonly netns: number; readonly netnsName: string }): Labels {
  return { netns: netns === 0 ? '' : netns, netns_name: netnsName }
}

const gauge = (name: string, help: string, samples: readonly Sample[]): string => family(name, 'gauge', help, samples)
const counter = (name: string, help: string, samples: readonly Sample[]): string => family(name, 'counter', help, samples)

/** '' where nothing of it is known. A sample that comes twice would make Prometheus refuse the whole page: the later one is left out. */
function family(name: string, type: 'gauge' | 'counter', help: string, samples: readonly Sample[]): string {
  const rows = new Map<string, number>()
  for (const [value, labels = {}] of samples) {
    const row = name + labelText(labels)
    if (value !== -1 && !rows.has(row)) rows.set(row, value)
  }
  if (rows.size === 0) return ''
  return `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n${[...rows].map(([row, value]) => `${row} ${value}\n`).join('')}`
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${String(value).replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`)
  return pairs.length === 0 ? '' : `{${pairs.join()}}`
}
