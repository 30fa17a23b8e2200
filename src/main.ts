#!/usr/bin/env node
/** The process: arguments, signals, exit status. The only file that touches `process`. */
import { readdirSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { isatty } from 'node:tty'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { CliExit, parseArguments } from './cli.js'
import { BAD_USAGE, FAILED, run } from './commands/run.js'
import { openWorld } from './commands/world.js'

/** After a signal everything read is written; an output that takes nothing for so long is given up. */
const STOP_GRACE_MS = 10_000

/** By then everything is loaded. */
const LOADED_MS = 5000

const signalNumbers = { SIGINT: 2, SIGTERM: 15 } as const

async function main(): Promise<number> {
  const args = process.argv.slice(2)
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  const stdinIsTerminal = isatty(0)
  const asks = args.length === 0 && stdinIsTerminal
  const invocation = parseArguments(asks ? ['--help'] : args, version, hostname())
  const { env } = process
  process.stdout.on('error', () => {})
  const print = (text: string): void => void process.stdout.write(text)
  const printError = (text: string): void => void process.stderr.write(text)
  const read = (path: string): Uint8Array => readFileSync(path)
  // each is loaded when it is asked for
  switch (invocation.command) {
    case 'check':
      return (await import('./commands/check.js')).check(invocation.file, invocation.json, { read, env, print, printError })
    case 'schema':
      return (await import('./commands/check.js')).schema(invocation.of, print)
    case 'deadletters': {
      const { deadLettersOf } = await import('./commands/deadletters.js')
      return deadLettersOf(invocation, { read, env, print, printError })
    }
    case 'service': {
      const configPath = invocation.config === '' ? null : invocation.config
      return (await import('./commands/service.js')).service({ configPath, execPath: process.execPath, scriptPath: fileURLToPath(import.meta.url), cwd: process.cwd(), read, env, print, printError })
    }
    case 'doctor': {
      const { doctor, thisHost } = await import('./commands/doctor.js')
      const { config, json, verbose, connect, ignore } = invocation
      return doctor({ configFile: config === '' ? null : config, json, verbose, connect, ignore }, { host: thisHost({ node: process.version, env }), read, print, printError })
    }
  }
  if (invocation.command === 'run') keepSmall()
  const world = openWorld({
    stdinIsTerminal,
    stdoutIsTerminal: isatty(1),
    env,
    monotonic: () => Number(process.hrtime.bigint() / 1000n),
    memoryLimit: process.constrainedMemory(),
  })
  return run(invocation, world, {
    pid: process.pid,
    version,
    node: process.version,
    processNumbers: () => {
      const { user, system } = process.cpuUsage()
      return { cpuSeconds: (user + system) / 1e6, residentBytes: process.memoryUsage.rss(), openFiles: readdirSync('/proc/self/fd').length }
    },
    printError,
    // the one signal for us that Node leaves: the other starts its inspector
    onAsk: (tell) => process.on('SIGUSR2', tell),
    onStop: ({ stop, giveUp, reopen }) => {
      process.on('SIGHUP', reopen)
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

/** V8 makes its space for what is young larger while modules are loaded, for much of that stays, and keeps it: 13 MiB that nothing needs later on. */
function keepSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1')
  setTimeout(() => setFlagsFromString('--semi-space-growth-factor=2'), LOADED_MS).unref()
}

main().then(
  // what waits for a reader that is slow goes out first
  (status) => process.stdout.write('', () => process.exit(status)),
  (error: unknown) => {
    if (error instanceof CliExit) {
      if (error.message !== '') process.stderr.write(`${error.message}\n`)
      process.exit(isatty(0) && process.argv.length === 2 ? BAD_USAGE : error.status)
    }
    process.stderr.write(`conntrail: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(FAILED)
  },
)
