/**
 * `command`: what a program writes to stdout; no shell reads its arguments. It is started again whenever it ends, and what it would have said
 * meanwhile is a gap; with `once` its end is the input's, and a status other than 0 is the input's failure. What it says on stderr goes to the operator.
 */
import { type Time, TIME_RECEIVED, timeOf } from '../event.js'
import { type BootTime, type Feed, InputError } from '../stage.js'
import { type ChildEnd, ChildInput, type Environment, howItEnded, saidOnce } from './child.js'

const LF = 10

export interface CommandOptions {
  readonly name: string
  /** the program and its arguments, which may hold anything */
  readonly argv: readonly string[]
  /** the program's end is the end */
  readonly once: boolean
  /** id of this run: what record ids begin with */
  readonly random: string
  readonly env: Environment
  /** when this host's kernel clock was 0, for programs such as `dmesg -w` */
  readonly boot: () => BootTime | null
}

/** `open` throws InputError where the program is not there or may not be run. */
export function commandFeed(options: CommandOptions): Feed {
  let input: ChildInput | null = null
  return {
    name: options.name,
    open: async (add) => {
      input = commandInput(options)
      add(input)
    },
    stop: () => input?.stop(),
    abort: () => input?.abort(),
  }
}

function commandInput({ name, argv, once, random, env, boot }: CommandOptions): ChildInput {
  const [program = ''] = argv
  if (program === '') throw new InputError('missing', `the input ${name} names no program: command:PROGRAM ARGS was expected`)
  let lastByte = LF
  /** when the program ended and has not been started again since */
  let downSince: Time | null = null
  const tellGap = (): void => {
    if (downSince === null) return
    const now = timeOf(input.receivedMicroseconds())
    input.notice({ gap: { ...now, timeSource: TIME_RECEIVED, cause: 'input_restart', count: -1, atLeast: 1, from: downSince, to: now } })
    downSince = null
  }
  const say = saidOnce((diagnostic) => input.notice({ diagnostic }))
  const onEnd = (end: ChildEnd): boolean => {
    // its last line is a line, and the first of the next run another
    if (lastByte !== LF) input.bytes(Uint8Array.of(LF))
    lastByte = LF
    if (end.isStopped) return false
    const how = `${program} ${howItEnded(end)}`
    if (once) input.end(end.status === 0 ? null : new InputError('broken', end.lastWords === '' ? how : `${how}: ${end.lastWords}`))
    else {
      downSince ??= timeOf(input.receivedMicroseconds())
      say(`${how}; it is started again within 30 s`)
    }
    return !once
  }
  const input = new ChildInput(
    // what a program has said it does not say again: there is no position
    { name, isLive: !once, ridPrefix: random, ridBy: 'counter', boot, position: () => null, onStop: tellGap },
    (to) => ({
      argv: () => argv,
      env,
      comesFrom: 'whoever named it; give its full path where it is in no directory of PATH',
      onBytes: (bytes) => {
        lastByte = bytes.at(-1) ?? lastByte
        to.bytes(bytes)
      },
      onStderr: (line) => say(`${program} says: ${line}`),
      onStart: tellGap,
      onEnd,
    }),
  )
  return input
}
