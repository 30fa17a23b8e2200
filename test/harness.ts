/** Runs the program's own loop on bytes in memory, cut into any pieces, and gives what it wrote. */
import { FlowTracker } from '../src/detectors/flows/tracker.js'
import { Holders } from '../src/detectors/flows/holders.js'
import { Levels } from '../src/detectors/levels.js'
import { type HostsOptions, TableFullOfHosts } from '../src/detectors/table-full-hosts.js'
import type { HostClock } from '../src/clock.js'
import { LINE_BYTES_MAX, type RecordOrigin, type RecordType, type TableSample, timeOf } from '../src/event.js'
import { localClock } from '../src/formats/local-time.js'
import { lineFormats } from '../src/parts.js'
import { NdjsonPrinter } from '../src/printers/ndjson.js'
import { defaultTypes, Route, type RouteOptions } from '../src/route.js'
import { Channels } from '../src/run/channel.js'
import { Records } from '../src/run/records.js'
import { Run } from '../src/run/run.js'
import { Source } from '../src/run/source.js'
import { type BootTime, type Feed, type Input, newLineContext, type Notice, NOTICES_ONLY, type Output } from '../src/stage.js'
import { Tally } from '../src/tally.js'

export interface Options {
  readonly emit?: readonly RecordType[]
  readonly route?: Partial<RouteOptions>
  readonly timezone?: string
  readonly flowsMax?: number
  readonly rid?: boolean
  readonly seed?: number
  /** the kernel's clock at 0 */
  readonly boot?: BootTime
  /** merged by time, as several inputs that end are */
  readonly once?: boolean
  readonly name?: string
  /** live inputs on a host with this clock, in place of bytes */
  readonly host?: { readonly clock: HostClock; readonly inputs: readonly Input[] }
  /** whose lines are this host's; the first that one names */
  readonly hosts?: HostsOptions
  /** where the records are from */
  readonly context?: RecordOrigin
  /** the inputs are stopped behind their pieces, to go on later where this is told */
  readonly stoppedAt?: (offset: number) => void
  /** of the kernel's counters, which each input takes behind its pieces */
  readonly samples?: readonly TableSample[]
  /** the inputs can read the kernel's table anew, and are asked to */
  readonly resync?: () => void
}

export interface Result {
  readonly bytes: Buffer
  readonly text: string
  readonly lines: string[]
  readonly tally: Tally
  readonly tracker: FlowTracker
  readonly diagnostics: string[]
  /** of each input: how old its last record was when it was read, in seconds */
  readonly lags: readonly number[]
}

/** Time for lines without one: 2026-11-22T12:00:00.000000Z. */
export const RECEIVED = '2026-11-22T12:00:00.000000Z'
const RECEIVED_MICROSECONDS = Date.parse(RECEIVED) * 1000

export function runPieces(pieces: readonly Uint8Array[], options: Options = {}): Promise<Result> {
  return runInputs([pieces], options)
}

export async function runInputs(inputs: readonly (readonly Uint8Array[])[], options: Options = {}): Promise<Result> {
  const tally = new Tally()
  const written: Buffer[] = []
  const diagnostics: string[] = []
  const sources: Source[] = []
  const tracker: FlowTracker = new FlowTracker({ flowsMax: options.flowsMax ?? 100_000, seed: options.seed ?? 1, fullTable: { wasFull: (netns, sec) => records.wasFull(netns, sec) } })
  const tableFull = new TableFullOfHosts({ emit: (alert) => records.alert(alert), holders: new Holders(tracker.table, (scope) => tracker.netnsOf(scope)), boot: '', ...(options.once === true || inputs.length > 1 ? { patienceSec: 30 } : {}) }, options.hosts ?? { names: [], adopts: true })
  const route = new Route({
    emit: options.emit ?? defaultTypes,
    transitionsOnly: false,
    since: -Infinity,
    until: Infinity,
    where: [],
    ...options.route,
  })
  const context = { host: '', input: '', netns: 0, netnsName: '', ...options.context, ridPrefix: options.rid === true ? 'r' : null }
  const channels = new Channels([{ route, outputs: [memoryOutput(written)] }], () => run.abort())
  const records: Records = new Records({ channels, tracker, tally, tableFull, own: context, levels: new Levels(), printer: new NdjsonPrinter() })
  const run: Run = new Run({
    feeds: (options.host?.inputs ?? inputs.map((pieces) => memoryInput(pieces, options))).map((input) => ({ feed: memoryFeed(input), isNamed: true })),
    records,
    channels,
    once: options.once ?? inputs.length > 1,
    now: () => timeOf(options.host?.clock.now() ?? RECEIVED_MICROSECONDS),
    takeStep: () => options.host?.clock.takeStep() ?? 0,
    tellStep: (from, to) => records.ownGap({ ...to, timeSource: 0, cause: 'clock_jump', count: 0, atLeast: -1, from, to }, 'clock'),
    report: (message) => diagnostics.push(message),
    sourceOf: (input) => {
      const source = new Source(
        {
          input,
          random: 'run',
          lineBytesMax: LINE_BYTES_MAX,
          context,
          lines: newLineContext(localClock(options.timezone ?? 'UTC'), () => options.boot ?? input.boot()),
          text: true,
          formats: lineFormats(null),
          kernelFacts: { namesNamespaces: null, initialNetns: 0 },
          writesDumps: false,
          diagnose: (message) => diagnostics.push(message),
        },
        records,
      )
      sources.push(source)
      return source
    },
  })
  const { failure, missing } = await run.toEnd()
  if (failure !== '' || missing !== '') throw new Error(failure || missing)
  const bytes = Buffer.concat(written)
  const text = bytes.toString('utf8')
  return { bytes, text, lines: text.split('\n').slice(0, -1), tally, tracker, diagnostics, lags: sources.map(({ lagSeconds }) => lagSeconds) }
}

export function runText(text: string, options: Options = {}): Promise<Result> {
  return runPieces([Buffer.from(text)], options)
}

/** Records as objects. Counters above 2^53 lose digits: compare those as text. */
export async function recordsOf(text: string, options: Options = {}): Promise<Record<string, any>[]> {
  return (await runText(text, options)).lines.map((line) => JSON.parse(line) as Record<string, unknown>)
}

function memoryFeed(input: Input): Feed {
  return { name: input.name, open: async (add) => add(input), stop: () => {}, abort: () => {} }
}

function memoryInput(pieces: readonly Uint8Array[], { resync, stoppedAt, samples = [] }: Options): Input {
  let at = 0
  let notices: readonly Notice[] = []
  let chunk = new Uint8Array(0)
  const all = pieces.filter((piece) => piece.length > 0).flatMap((piece) => split(piece))
  return {
    name: '-',
    get notices() {
      return notices
    },
    isDump: false,
    isBusy: true,
    isLive: false,
    netns: 0,
    netnsName: '',
    ridPrefix: 'r',
    ridBy: 'offset',
    offset: 0,
    boot: () => null,
    isCutOff: stoppedAt !== undefined,
    position: (offset) => (stoppedAt === undefined ? null : (stoppedAt(offset), { offset })),
    onIdle: () => {},
    get chunk() {
      return chunk
    },
    next: async () => {
      if (at >= all.length) {
        const sample = samples[at++ - all.length]
        notices = sample === undefined ? [] : [{ sample }]
        return sample === undefined ? 0 : NOTICES_ONLY
      }
      chunk = Uint8Array.from(all[at++]!)
      return chunk.length
    },
    receivedMicroseconds: () => RECEIVED_MICROSECONDS,
    stop: () => {},
    abort: () => {},
    close: () => {},
    ...(resync === undefined ? {} : { resync }),
  }
}

/** Pieces no larger than a read may be. */
function split(piece: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(piece.length / 65_536) }, (_, i) => piece.subarray(i * 65_536, (i + 1) * 65_536))
}

function memoryOutput(written: Buffer[]): Output {
  return {
    name: '-',
    write: async (bytes) => {
      written.push(Buffer.from(bytes))
      return true
    },
    close: async () => {},
  }
}

/** Every byte a piece of its own. */
export function byteByByte(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
}

/** A small seeded generator of numbers in [0, 1). */
export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Cuts at random places. */
export function randomCuts(bytes: Uint8Array, next: () => number, meanLength: number): Uint8Array[] {
  const pieces: Uint8Array[] = []
  for (let from = 0; from < bytes.length; ) {
    const to = Math.min(bytes.length, from + 1 + Math.floor(next() * 2 * meanLength))
    pieces.push(bytes.subarray(from, to))
    from = to
  }
  return pieces
}
