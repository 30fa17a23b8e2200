#!/usr/bin/env node
/** The process: arguments, signals, exit status. The only file that touches `process`. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { isatty } from 'node:tty'
import { CliExit, parseArguments } from './cli.js'
import { BAD_USAGE, FAILED, run } from './commands/run.js'
import { openWorld } from './commands/world.js'
import { Log } from './log.js'

/** After a signal everything read is written; an output that takes nothing for so long is given up. */
const STOP_GRACE_MS = 10_000

const signalNumbers = { SIGINT: 2, SIGTERM: 15 } as const

async function main(): Promise<number> {
  const args = process.argv.slice(2)
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  const stdinIsTerminal = isatty(0)
  const asks = args.length === 0 && stdinIsTerminal
  const settings = parseArguments(asks ? ['--help'] : args, version, hostname())
  const log = new Log(settings.logLevel)
  const world = openWorld({
    stdinIsTerminal,
    stdoutIsTerminal: isatty(1),
    env: process.env,
    monotonic: () => Number(process.hrtime.bigint() / 1000n),
  })
  return run(settings, log, world, {
    printError: (text) => process.stderr.write(text),
    // the one signal for us that Node leaves: the other starts its inspector
    onAsk: (tell) => process.on('SIGUSR2', tell),
    onStop: ({ stop, giveUp }) => {
      let asked = false
      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        process.on(signal, () => {
          if (asked) process.exit(128 + signalNumbers[signal])
          asked = true
          stop()
          setTimeout(() => {
            void giveUp(`stopped with output unwritten: nothing was taken for ${STOP_GRACE_MS / 1000} s`).then((status) => process.exit(status))
          }, STOP_GRACE_MS).unref()
        })
      }
    },
  })
}

main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    if (error instanceof CliExit) process.exit(isatty(0) && process.argv.length === 2 ? BAD_USAGE : error.status)
    process.stderr.write(`conntrail: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(FAILED)
  },
)
