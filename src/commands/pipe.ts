/** `conntrail` and `conntrail run`: standard input through the loop to the outputs. */
import { createHash, randomBytes } from 'node:crypto'
import type { Settings } from '../cli.js'
import { FlowTracker } from '../detectors/flows/tracker.js'
import { isNowhere } from '../inputs/descriptor.js'
import { openStdin } from '../inputs/stdin.js'
import type { Log } from '../log.js'
import { lineFormats, outputKinds, TEXT_FORMAT } from '../parts.js'
import { NdjsonPrinter } from '../printers/ndjson.js'
import { summary } from '../printers/summary.js'
import { Route } from '../route.js'
import { Run } from '../run.js'
import type { Input, Output } from '../stage.js'
import { Tally } from '../tally.js'

/** Exit statuses of the command line. */
export const DONE = 0
export const FAILED = 1
export const BAD_USAGE = 2
export const NOT_THERE = 3

export interface Terminal {
  readonly stdinIsTerminal: boolean
  readonly stdoutIsTerminal: boolean
  readonly printError: (text: string) => void
  /** Hands over what to do when asked to stop, and when that takes too long: it gives the exit status. */
  readonly onStop: (stopping: { readonly stop: () => void; readonly giveUp: (message: string) => Promise<number> }) => void
}

/** Runs to the end and gives the exit status. */
export async function pipe(settings: Settings, log: Log, terminal: Terminal): Promise<number> {
  const tally = new Tally()
  const tracker = new FlowTracker({ flowsMax: settings.flowsMax, seed: randomBytes(4).readInt32LE() })
  /** The line of sums is written however the run ends. */
  const done = async (status: number, written: Readonly<Record<string, number>>): Promise<number> => {
    const { lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps } = tally
    const counted = { live: tracker.table.size, forgotten: tracker.forgotten, displaced: tracker.displaced }
    await log.done({
      ...{ lines, bytes, flows, expects, kernel, notes, ignored, rejected, alerts, gaps },
      written: Object.values(written).reduce((sum, n) => sum + n, 0),
      outputs: written,
      tracker: counted,
    })
    if (settings.summary) terminal.printError(summary(tally, counted))
    return status
  }

  const outputs: Output[] = []
  for (const text of settings.outputs) {
    const kind = outputKinds.find((each) => each.fits(text))!
    try {
      outputs.push(kind.open(text, terminal.stdoutIsTerminal))
    } catch (error) {
      await log.error(`output ${text} cannot be opened: ${messageOf(error)}`)
      return done(FAILED, {})
    }
  }
  if (isNowhere(0)) await log.warn('standard input is closed or /dev/null: there is nothing to read')
  if (settings.outputs.includes('-') && isNowhere(1)) await log.warn('standard output is closed or /dev/null: the records go nowhere')
  let input: Input
  try {
    input = openStdin(terminal.stdinIsTerminal, { random: randomBytes(4).toString('hex'), hash: shortHash })
  } catch (error) {
    await log.error(`standard input cannot be read: ${messageOf(error)}`)
    return done(NOT_THERE, {})
  }

  const run = new Run({
    input,
    outputs,
    tracker,
    tally,
    printer: new NdjsonPrinter({
      host: settings.host,
      input: settings.command === 'run' ? input.name : '',
      netns: 0,
      netnsName: '',
      ridPrefix: settings.rid ? input.ridPrefix : null,
    }),
    route: new Route({ emit: settings.emit, transitionsOnly: settings.transitions, since: settings.since, until: settings.until, where: settings.where }),
    context: { receivedSec: 0, receivedUsec: 0, localClock: settings.clock, reason: '', extraLines: 0, bodyAt: 0, expect: null, gap: null, diagnostic: '', dumpEnd: false },
    text: settings.format === null || settings.format === TEXT_FORMAT,
    formats: lineFormats.filter((format) => settings.format === null || settings.format === format.name),
    diagnose: (message) => void log.warn(message),
  })
  terminal.onStop({
    stop: () => input.stop(),
    giveUp: async (message) => {
      await log.error(message)
      return done(FAILED, run.written)
    },
  })
  const { written, failure } = await run.toEnd()
  if (failure !== '') await log.error(failure)
  input.close()
  await Promise.all(outputs.map((output) => output.close()))
  return done(failure === '' ? DONE : FAILED, written)
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

