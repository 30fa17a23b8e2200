/** `conntrail` and `conntrail run`: inputs through the loop to the outputs. */
import { CheckpointStore, StateError } from '../checkpoint.js'
import type { Settings } from '../cli.js'
import { evenMilliseconds, wallAt } from '../clock.js'
import { ConfigErrors } from '../config.js'
import { FlowTracker } from '../detectors/flows/tracker.js'
import { Holders } from '../detectors/flows/holders.js'
import { Levels } from '../detectors/levels.js'
import { TableFullOfHosts } from '../detectors/table-full-hosts.js'
import { localClock } from '../formats/local-time.js'
import type { TableFullOptions } from '../detectors/table-full.js'
import { Boots } from '../inputs/boot.js'
import { isNowhere } from '../inputs/descriptor.js'
import { Log } from '../log.js'
import { type FeedOptions, feedOf, hostFeeds, lineFormats, TEXT_FORMAT, type World } from '../parts.js'
import { NdjsonPrinter, type RecordContext } from '../printers/ndjson.js'
import { guessedTimes, summary } from '../printers/summary.js'
import { Channels } from '../run/channel.js'
import { Records } from '../run/records.js'
import { Run } from '../run/run.js'
import { Source } from '../run/source.js'
import type { MetricsSnapshot, ProcessNumbers } from '../metrics.js'
import { type Feed, type FullTable, type Input, type KernelFacts, type LineContext, type Loss, messageOf, newLineContext } from '../stage.js'
import { Tally } from '../tally.js'
import { Memory } from './memory.js'
import { Outlets } from './outlets.js'
import { OwnFiles } from './own-files.js'
import { type Plan, planOf, ruleOptions } from './plan.js'
import { Reload } from './reload.js'
import { Service } from './watched.js'
import { standingOf } from './standing.js'

/** Exit statuses of the command line. */
export const DONE = 0
export const FAILED = 1
export const BAD_USAGE = 2
export const NOT_THERE = 3

export interface Terminal {
  readonly printError: (text: string) => void
  /** Hands over what to do when asked to stop, and when that takes too long: it gives the exit status; and what to do when asked to read things anew. */
  readonly onStop: (stopping: { readonly stop: () => void; readonly giveUp: (message: string) => Promise<number>; readonly reopen: () => void }) => void
  /** Hands over what to do when asked for the live flows. */
  readonly onAsk: (tell: () => void) => void
  readonly pid: number
  readonly version: string
  readonly node: string
  readonly processNumbers: () => ProcessNumbers
}

const IDS_A_LINE = 1000

/** Kernels from here on print the namespace's number with "table full". */
const NAMES_NAMESPACES = [6, 18] as const

/** Runs to the end and gives the exit status. */
export async function run(settings: Settings, world: World, terminal: Terminal): Promise<number> {
  try {
    return await runPlan(await planOf(settings, world), () => planOf(settings, world), world, terminal)
  } catch (error) {
    if (!(error instanceof ConfigErrors)) throw error
    terminal.printError(`${error.message}\n`)
    return BAD_USAGE
  }
}

/** `readAgain` gives the plan as its configuration is now; it throws ConfigErrors. */
async function runPlan(plan: Plan, readAgain: () => Promise<Plan>, world: World, terminal: Terminal): Promise<number> {
  const log = new Log(plan.logLevel)
  const report = (message: string): void => void log.warn(message)
  const tally = new Tally()
  const full: FullTable = { wasFull: (netns, sec) => records.wasFull(netns, sec) }
  const tracker: FlowTracker = new FlowTracker({ flowsMax: plan.flowsMax, seed: world.seed, fullTable: full })
  const options: TableFullOptions = {
    ...ruleOptions(plan),
    emit: (alert) => {
      const { rules } = reload.plan
      if (rules === null || (alert.rule === 'expect_table_full' ? rules.expect_table_full : rules.table_full).enabled) records.alert(alert)
    },
    holders: new Holders(tracker.table, (scope) => tracker.netnsOf(scope)),
    followsFlows: (netns) => records.followsFlows(netns),
    boot: world.bootId,
  }
  const tableFull = new TableFullOfHosts(options, plan.hosts)
  const levels = new Levels()

  /** What an output could not keep is told in a gap record; at the end there is no loop to do it in turn. */
  const early: (() => void)[] = []
  let inTurn = (tell: () => void): void => void early.push(tell)
  let losses = 0
  let steps = 0
  const onLost = (output: string, { count, reason, from, to }: Loss): void =>
    inTurn(() => records.ownGap({ ...world.now(), timeSource: 0, cause: 'output_dropped', count, atLeast: -1, from, to, output, reason }, `${world.random}:l${++losses}`))
  let channels: Channels | null = null
  let store: CheckpointStore | null = null
  /** The line of sums is written however the run ends. */
  const done = async (status: number): Promise<number> => {
    const { lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps } = tally
    const counted = { live: tracker.table.size, forgotten: tracker.forgotten, displaced: tracker.displaced }
    const fates = [...(channels?.fates ?? [])]
    const written = Object.fromEntries(fates.map(([name, fate]) => [name, fate.written]))
    const spooled = (count: 'refused' | 'lost' | 'waiting'): Record<string, number> => Object.fromEntries(fates.flatMap(([name, fate]) => (fate.spooled === null ? [] : [[name, fate.spooled[count]]])))
    const hasSpools = fates.some(([, fate]) => fate.spooled !== null)
    if (tally.guessed.size > 0) await log.warn(guessedTimes(tally))
    await log.done({
      ...{ lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps },
      written: Object.values(written).reduce((sum, n) => sum + n, 0),
      outputs: written,
      ...(hasSpools ? { refused: spooled('refused'), lost: spooled('lost'), spool: spooled('waiting') } : {}),
      tracker: counted,
    })
    if (plan.summary) terminal.printError(summary(tally, counted))
    store?.release()
    return status
  }

  let memory: Memory | null = null
  // before the outputs: a spool that another process writes to must not even be looked at
  if (plan.state !== '') {
    try {
      store = new CheckpointStore(plan.state, terminal.pid, report)
      memory = new Memory(store, { tableFull, levels, tally }, world, report)
    } catch (error) {
      if (!(error instanceof StateError)) throw error
      await log.error(error.message)
      return done(FAILED)
    }
  }
  const outlets = new Outlets(plan, { ...world, report, state: plan.state, host: plan.host, statusUrl: plan.statusUrl, onLost })
  try {
    await outlets.open()
  } catch (error) {
    await log.error(messageOf(error))
    return done(FAILED)
  }
  for (const { route, outputs } of outlets.channels())
    if (route.isEmpty) report(`output ${outputs.map(({ name }) => name).join(', ')}: nothing is written: no record fits emit, where, when, since and until together`)
  const boots = new Boots(plan.clock)
  let planNow = (): Plan => plan
  const ownFiles = new OwnFiles(() => planNow())
  const ownFault = await ownFiles.fault()
  if (ownFault !== '') {
    await outlets.closeUnused()
    await log.error(ownFault)
    return done(BAD_USAGE)
  }
  const feedOptions = (number: number): FeedOptions => ({ ...world, boots, isOwn: (path, stat) => ownFiles.whatIs(path, stat), once: plan.once, saved: memory?.saved ?? {}, damaged: memory?.isDamaged === true ? plan.onDamage : null, number, report })
  const opened = plan.watchesHost ? await hostFeeds(plan.inputs, feedOptions(0)) : await Promise.all(plan.inputs.map((input, i) => feedOf(input, feedOptions(i))))
  const feeds = new Map<string, Feed>(plan.inputs.map(({ name }, i) => [name, opened[i]!]))
  let inputs = opened.length + 1
  if (plan.inputs.some(({ type }) => type === 'stdin') && isNowhere(0)) report('standard input is closed or /dev/null: there is nothing to read')
  if (plan.outputs.some(({ type }) => type === 'stdout') && isNowhere(1)) report('standard output is closed or /dev/null: the records go nowhere')

  channels = new Channels(outlets.channels(), () => running.abort())
  const own: RecordContext = { host: plan.host, input: '', netns: 0, netnsName: '', ridPrefix: plan.rid ? world.random : null }
  const records: Records = new Records({ channels, tracker, tally, tableFull, own, levels, printer: new NdjsonPrinter() })
  const ofThisHost: KernelFacts = { namesNamespaces: isAtLeast(world.kernelRelease, NAMES_NAMESPACES), initialNetns: world.initialNetns }
  const running: Run = new Run({
    feeds: opened.map((feed) => ({ feed, isNamed: !plan.watchesHost })),
    records,
    channels,
    once: plan.once,
    now: world.now,
    takeStep: world.takeStep,
    tellStep: (from, to) => records.ownGap({ ...to, timeSource: 0, cause: 'clock_jump', count: 0, atLeast: -1, from, to }, `${world.random}:c${++steps}`),
    report,
    sourceOf: (input) =>
      new Source(
        {
          input,
          random: world.random,
          lineBytesMax: plan.lineBytesMax,
          context: contextOf(input, plan),
          // what takes effect with the next start stays as it is
          ...formatsOf(input, { ...reload.plan, format: plan.format, bootTime: plan.bootTime }),
          writesDumps: reload.plan.inputs.some((each) => each.name === input.name && each.type === 'conntrack' && each.dump === 'write'),
          kernelFacts: input.isLive && !plan.once ? ofThisHost : { namesNamespaces: null, initialNetns: 0 },
          diagnose: (message) => void log.warn(message, plan.isRun ? { input: input.name } : {}),
        },
        records,
      ),
    onTick: () => memory?.keep(running, channels!),
    ...(memory === null ? {} : { remember: () => memory!.remember(running, channels!) }),
  })
  memory?.tellRestart(records, plan.onDamage)
  const seconds = (): number => world.now().sec + world.now().usec / 1e6
  const beganMs = evenMilliseconds()
  const snapshot = (): MetricsSnapshot =>
    standingOf({
      ...{ version: terminal.version, node: terminal.node, processNumbers: terminal.processNumbers, now: seconds, startedAt: wallAt(beganMs) / 1e6, plan: reload.plan, config: reload.numbers },
      ...{ feeds, run: running, records, channels: channels!, tally, tracker, tableFull, store },
    })
  const service = new Service({ plan, world, pid: terminal.pid, run: running, channels, feeds, snapshot, report })
  const reload: Reload = new Reload({
    ...{ plan, readAgain, outlets, feeds, run: running, channels, tableFull, service, now: seconds, report },
    feedOf: (input, saved) => {
      const options: FeedOptions = { ...feedOptions(inputs++), damaged: null }
      return feedOf(input, saved === null ? options : { ...options, saved: saved.length === 0 ? {} : { [input.name]: saved } })
    },
  })
  planNow = () => reload.planOfFiles
  try {
    await service.begin()
  } catch (error) {
    await log.error(messageOf(error))
    return done(FAILED)
  }
  terminal.onStop({
    stop: () => {
      service.stopping()
      running.stop()
    },
    giveUp: async (message) => {
      await log.error(message)
      return done(FAILED)
    },
    reopen: () => {
      void reload.again()
      outlets.reopen()
    },
  })
  terminal.onAsk(() => void tellLive(tracker, log))
  inTurn = (tell) => running.inject(tell)
  for (const tell of early) running.inject(tell)
  const { failure, missing } = await running.toEnd()
  inTurn = (tell) => tell()
  for (const message of [missing, failure]) if (message !== '') await log.error(message)
  outlets.tellLosses()
  if (failure === '') await memory?.keepLast(running, channels)
  await service.end()
  await outlets.close(channels)
  return done(missing !== '' ? NOT_THERE : failure !== '' ? FAILED : DONE)
}

/** The live flows by the kernel's ids, some of them a line, so that they can be laid beside `conntrack -L -o id`. `left`: how many are to come. */
async function tellLive(tracker: FlowTracker, log: Log): Promise<void> {
  const known = tracker.liveIds()
  let left = [...known.values()].reduce((sum, ids) => sum + ids.length, 0)
  if (left === 0) await log.info('live flows', { ids: [], left })
  for (const [netns, ids] of known) {
    for (let at = 0; at < ids.length; at += IDS_A_LINE) {
      const some = ids.slice(at, at + IDS_A_LINE)
      left -= some.length
      await log.info('live flows', { ...(netns === 0 ? {} : { netns }), ids: some, left })
    }
  }
}

function contextOf(input: Input, plan: Plan): RecordContext {
  return {
    host: plan.host,
    input: plan.isRun ? input.name : '',
    netns: input.netns,
    netnsName: input.netnsName,
    ridPrefix: plan.rid ? input.ridPrefix : null,
  }
}

function formatsOf(input: Input, plan: Plan): { readonly lines: LineContext; readonly text: boolean; readonly formats: ReturnType<typeof lineFormats> } {
  const config = plan.inputs.find(({ name }) => name === input.name)
  const said = config !== undefined && 'format' in config && config.format !== 'auto' ? config.format : null
  const format = plan.format ?? said
  const timezone = config !== undefined && 'timezone' in config ? config.timezone : null
  const clock = timezone === null ? plan.clock : localClock(timezone)
  return {
    lines: newLineContext(clock, plan.bootTime === null ? () => input.boot() : () => plan.bootTime, () => input.stampsEnd?.(clock) ?? null),
    text: format === null || format === TEXT_FORMAT,
    formats: lineFormats(format),
  }
}

/** `6.18.3-cloud` against [6, 18]. */
function isAtLeast(release: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = release.split('.').map((part) => Number.parseInt(part, 10))
  return a > major || (a === major && b >= minor)
}
