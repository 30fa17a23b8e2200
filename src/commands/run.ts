/** `conntrail` and `conntrail run`: inputs through the loop to the outputs. */
import type { Settings } from '../cli.js'
import { FlowTracker } from '../detectors/flows/tracker.js'
import { Holders } from '../detectors/flows/holders.js'
import { Levels } from '../detectors/levels.js'
import { TableFull } from '../detectors/table-full.js'
import { isNowhere } from '../inputs/descriptor.js'
import type { Log } from '../log.js'
import { type FeedOptions, hostFeeds, inputKinds, lineFormats, outputKinds, TEXT_FORMAT, type World } from '../parts.js'
import { NdjsonPrinter, type RecordContext } from '../printers/ndjson.js'
import { summary } from '../printers/summary.js'
import { Route } from '../route.js'
import { Channels } from '../run/channel.js'
import { Records } from '../run/records.js'
import { type FeedParts, Run } from '../run/run.js'
import { Source } from '../run/source.js'
import type { FullTable, Input, KernelFacts, LineContext, Output } from '../stage.js'
import { Tally } from '../tally.js'

/** Exit statuses of the command line. */
export const DONE = 0
export const FAILED = 1
export const BAD_USAGE = 2
export const NOT_THERE = 3

export interface Terminal {
  readonly printError: (text: string) => void
  /** Hands over what to do when asked to stop, and when that takes too long: it gives the exit status. */
  readonly onStop: (stopping: { readonly stop: () => void; readonly giveUp: (message: string) => Promise<number> }) => void
  /** Hands over what to do when asked for the live flows. */
  readonly onAsk: (tell: () => void) => void
}

/** Nobody waits for the first notice of an episode in a file: rather it names the namespace. */
const ONCE_PATIENCE_SEC = 30

const IDS_A_LINE = 1000

/** Kernels from here on print the namespace's number with "table full". */
const NAMES_NAMESPACES = [6, 18] as const

/** Runs to the end and gives the exit status. */
export async function run(settings: Settings, log: Log, world: World, terminal: Terminal): Promise<number> {
  const tally = new Tally()
  const full: FullTable = { wasFull: (netns, sec) => records.wasFull(netns, sec) }
  const tracker: FlowTracker = new FlowTracker({ flowsMax: settings.flowsMax, seed: world.seed, fullTable: full })
  const tableFull: TableFull = new TableFull({ emit: (alert) => records.alert(alert), holders: new Holders(tracker.table, (scope) => tracker.netnsOf(scope)), boot: world.bootId, ...(settings.once ? { patienceSec: ONCE_PATIENCE_SEC } : {}) })

  const outputs: Output[] = []
  let channels: Channels | null = null
  /** The line of sums is written however the run ends. */
  const done = async (status: number): Promise<number> => {
    const { lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps } = tally
    const counted = { live: tracker.table.size, forgotten: tracker.forgotten, displaced: tracker.displaced }
    const written = channels?.written ?? {}
    await log.done({
      ...{ lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps },
      written: Object.values(written).reduce((sum, n) => sum + n, 0),
      outputs: written,
      tracker: counted,
    })
    if (settings.summary) terminal.printError(summary(tally, counted))
    return status
  }

  for (const text of settings.outputs) {
    const kind = outputKinds.find((each) => each.fits(text))!
    try {
      outputs.push(kind.open(text, world, (message) => void log.warn(message)))
    } catch (error) {
      await log.error(`output ${text} cannot be opened: ${messageOf(error)}`)
      return done(FAILED)
    }
  }
  const report = (message: string): void => void log.warn(message)
  const feedOptions = (number: number): FeedOptions => ({ ...world, once: settings.once, saved: {}, number })
  const feeds: FeedParts[] =
    settings.inputs.length === 0
      ? hostFeeds(feedOptions(0)).map((feed) => ({ feed, isNamed: false }))
      : settings.inputs.map((text, i) => ({ feed: inputKinds.find((kind) => kind.fits(text))!.feed(text, feedOptions(i)), isNamed: true }))
  if (settings.inputs.includes('-') && isNowhere(0)) await log.warn('standard input is closed or /dev/null: there is nothing to read')
  if (settings.outputs.includes('-') && isNowhere(1)) await log.warn('standard output is closed or /dev/null: the records go nowhere')

  const route = new Route({ emit: settings.emit, transitionsOnly: settings.transitions, since: settings.since, until: settings.until, where: settings.where })
  channels = new Channels([{ route, outputs }], () => running.abort())
  const own: RecordContext = { host: settings.host, input: '', netns: 0, netnsName: '', ridPrefix: settings.rid ? world.random : null }
  const records: Records = new Records({ channels, tracker, tally, tableFull, own, levels: new Levels(), printer: new NdjsonPrinter(), writeDumps: false })
  const ofThisHost: KernelFacts = { namesNamespaces: isAtLeast(world.kernelRelease, NAMES_NAMESPACES), initialNetns: world.initialNetns }
  const running: Run = new Run({
    feeds,
    records,
    channels,
    once: settings.once,
    now: world.now,
    report,
    sourceOf: (input, isMerged) =>
      new Source(
        {
          input,
          random: world.random,
          context: contextOf(input, settings),
          lines: lineContext(input, settings),
          text: settings.format === null || settings.format === TEXT_FORMAT,
          formats: lineFormats(settings.format),
          kernelFacts: input.isLive && !settings.once ? ofThisHost : { namesNamespaces: null, initialNetns: 0 },
          diagnose: (message) => void log.warn(message, settings.command === 'run' ? { input: input.name } : {}),
        },
        records,
        isMerged,
      ),
  })
  terminal.onStop({
    stop: () => running.stop(),
    giveUp: async (message) => {
      await log.error(message)
      return done(FAILED)
    },
  })
  terminal.onAsk(() => void tellLive(tracker, log))
  const { failure, missing } = await running.toEnd()
  for (const message of [missing, failure]) if (message !== '') await log.error(message)
  await Promise.all(outputs.map((output) => output.close()))
  return done(missing !== '' ? NOT_THERE : failure !== '' ? FAILED : DONE)
}

/** The live flows by the kernel's ids, some of them a line, so that they can be laid beside `conntrack -L -o id`. `left`: how many are to come. */
async function tellLive(tracker: FlowTracker, log: Log): Promise<void> {
  const parts = [...tracker.liveIds()].flatMap(([netns, ids]) => Array.from({ length: Math.ceil(ids.length / IDS_A_LINE) }, (_, i) => ({ netns, ids: ids.slice(i * IDS_A_LINE, (i + 1) * IDS_A_LINE) })))
  let left = parts.reduce((sum, { ids }) => sum + ids.length, 0)
  if (left === 0) await log.info('live flows', { ids: [], left })
  for (const { netns, ids } of parts) await log.info('live flows', { ...(netns === 0 ? {} : { netns }), ids, left: (left -= ids.length) })
}

function contextOf(input: Input, settings: Settings): RecordContext {
  return {
    host: settings.host,
    input: settings.command === 'run' ? input.name : '',
    netns: input.netns,
    netnsName: input.netnsName,
    ridPrefix: settings.rid ? input.ridPrefix : null,
  }
}

function lineContext(input: Input, settings: Settings): LineContext {
  const { bootTime } = settings
  return {
    receivedSec: 0,
    receivedUsec: 0,
    localClock: settings.clock,
    reason: '',
    extraLines: 0,
    bodyAt: 0,
    expect: null,
    gap: null,
    kernel: null,
    sample: null,
    settled: [],
    boot: bootTime === null ? () => input.boot() : () => bootTime,
    diagnostic: '',
    dumpEnd: false,
  }
}

/** `6.18.3-cloud` against [6, 18]. */
function isAtLeast(release: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = release.split('.').map((part) => Number.parseInt(part, 10))
  return a > major || (a === major && b >= minor)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
