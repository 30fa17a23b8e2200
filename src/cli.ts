/** The command line as one table: parsing, checks and help come from it. */
import { existsSync } from 'node:fs'
import { Argument, Command, CommanderError, Option } from 'commander'
import { type Condition, ConditionError, conditionKeys, parseCondition } from './conditions.js'
import { parseTime, TIME_EXPECTED } from './config/units.js'
import { FLOWS_MAX_LIMIT } from './detectors/flows/table.js'
import { recordTypes, type RecordType, TIME_BOOT } from './event.js'
import { localClock, zoneNames } from './formats/local-time.js'
import { logLevels, type LogLevel } from './log.js'
import { type CommandWords, looseWord, Misuse, oneOf, unknownCommand, unknownFlag, withoutDash } from './misuse.js'
import { nearest } from './nearest.js'
import { formatNames, inputFault, inputKinds, inputWords, outputFault, outputKinds } from './parts.js'
import { asciiJson } from './printers/ndjson.js'
import type { BootTime, LocalClock } from './stage.js'

/** What was asked for, checked. */
export interface Settings {
  readonly command: 'pipe' | 'run'
  /** configuration file, '' none */
  readonly config: string
  /** state directory, '' as the configuration says */
  readonly state: string
  /** as on the command line; none: what the configuration says, or the host is watched */
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  /** stop when every input is at its end, and merge them by time */
  readonly once: boolean
  /** null: nothing is said */
  readonly emit: readonly RecordType[] | null
  readonly transitions: boolean
  readonly where: readonly Condition[]
  /** microseconds since the epoch */
  readonly since: number | null
  readonly until: number | null
  /** null: nothing is said */
  readonly clock: LocalClock | null
  /** null: each input knows, or does not */
  readonly bootTime: BootTime | null
  readonly rid: boolean
  /** '' is absent */
  readonly host: string
  /** of this machine */
  readonly hostname: string
  /** null: every format */
  readonly format: string | null
  readonly flowsMax: number | null
  readonly summary: boolean
  readonly logLevel: LogLevel | null
}

/** The other commands. */
export type Invocation =
  | Settings
  | { readonly command: 'check'; readonly file: string; readonly json: boolean }
  | { readonly command: 'schema'; readonly of: 'config' | 'record' }
  | { readonly command: 'deadletters'; readonly action: 'list' | 'show' | 'replay'; readonly ids: readonly string[]; readonly config: string; readonly state: string; readonly json: boolean }
  | { readonly command: 'service'; readonly config: string }
  | { readonly command: 'doctor'; readonly config: string; readonly json: boolean; readonly verbose: boolean; readonly connect: boolean; readonly ignore: readonly string[] }

/** The command line asked for help, which is out; or it was not understood: the message says why. */
export class CliExit extends Error {
  readonly status: number

  constructor(status: number, message = '') {
    super(message)
    this.status = status
  }
}

interface Flag {
  readonly flags: string
  readonly says: string
  readonly parse?: (value: string, previous: never) => unknown
  readonly default?: unknown
  /** how help shows the default */
  readonly shows?: string
  readonly choices?: readonly string[]
  /** what each of them is */
  readonly what?: string
}

const common: readonly Flag[] = [
  { flags: '--emit <list>', says: `record types to write, by comma: ${recordTypes.join(', ')} (default: all but reject; run without inputs: alert, gap)`, parse: parseTypes },
  { flags: '--transitions', says: 'of the flow records, only those in which the state changes' },
  { flags: '--where <expr>', says: `only records that fit, such as 'src=10.0.0.0/8 dport=443,8443 event=destroy'; repeat for "or"`, parse: collectConditions, default: [], shows: 'all' },
  { flags: '--since <time>', says: 'only records from this time on: RFC 3339, or -2h, -30m, -45s, -1d', parse: timeOf },
  { flags: '--until <time>', says: 'only records before this time', parse: timeOf },
  { flags: '--timezone <zone>', says: "zone of lines whose clock has none, such as Europe/Berlin (default: this host's)", parse: parseZone },
  { flags: '--boot-time <time>', says: 'when the kernel was started whose log has only its own clock', parse: parseBootTime },
  { flags: '--rid', says: 'write record ids' },
  { flags: '--host <name>', says: 'add host to every record', parse: parseHost },
  { flags: '--format <name>', says: 'read lines of this format only', choices: formatNames, what: 'format' },
  { flags: '--flows-max <n>', says: 'live flows to keep track of; at the limit the one unchanged for longest is given up and counted (default: 1,048,576)', parse: parseFlowsMax },
  { flags: '--summary', says: 'at the end a few lines for people on stderr' },
  { flags: '--log-level <level>', says: 'own diagnostics, NDJSON on stderr', choices: logLevels, what: 'level' },
]

const json: Flag = { flags: '--json', says: 'JSON instead of text' }
const config: Flag = { flags: '-c, --config <file>', says: 'configuration, YAML or JSON' }
const state: Flag = { flags: '--state <dir>', says: 'where checkpoints and spools are kept: started again, it goes on where it was' }

const ofRun: readonly Flag[] = [
  {
    flags: '-i, --input <input>',
    says: `where to read, may be repeated: ${inputKinds.map((kind) => `${kind.form} (${kind.says})`).join(', ')}; none: what this host offers of kmsg or journal, table and conntrack, and only alerts and gaps are written`,
    parse: collectInputs,
    default: [],
  },
  { flags: '-o, --output <output>', says: `where to write: ${outputKinds.map((kind) => `${kind.form} (${kind.says})`).join(', ')}`, parse: collectOutputs, default: [], shows: '-' },
  { flags: '-c, --config <file>', says: 'configuration, YAML or JSON; what is said on the command line goes before it' },
  state,
  { flags: '--once', says: 'stop when every input is at its end; several are merged by time' },
]

const ofDoctor: readonly Flag[] = [
  { flags: '--verbose', says: 'advice too' },
  { flags: '--connect', says: 'try to connect to the receivers, and look at their certificates' },
  { flags: '--ignore <id>', says: 'leave out a finding that is known and accepted; may be repeated', parse: (id: string, before: never) => [...(before as readonly string[]), id], default: [] },
]

/** Keys of --where, by the types of record that they are on. */
function conditionHelp(): string {
  const named = new Map<string, string[]>()
  for (const { name, types } of conditionKeys) {
    const on = types.length === recordTypes.length ? 'any record' : types.join(', ')
    named.set(on, [...(named.get(on) ?? []), name])
  }
  return `\nKeys of --where (KEY=VALUE, several values by comma, words in any case):\n${[...named].map(([on, names]) => `  of ${on}: ${names.join(', ')}`).join('\n')}`
}

const examples = `
Examples:
  conntrack -E -o timestamp,id | conntrail
  conntrack -E -o timestamp,id | conntrail --where 'event=destroy reason=refused,reset'
  conntrail --transitions < events.txt > transitions.ndjson
  conntrail /var/log/kern.log /var/log/kern.log.1 /var/log/kern.log.2.gz
  conntrack -E -o timestamp,id | conntrail run -i - -o file:/var/log/conntrail/flows.ndjson
  dmesg | conntrail
  conntrail run
  conntrail run -i kmsg -i table -i conntrack --emit alert,gap,table
  conntrail run --once -i dmesg.txt -i events.txt
  conntrail check /etc/conntrail.yaml && conntrail run -c /etc/conntrail.yaml --state /var/lib/conntrail
  conntrail service -c /etc/conntrail.yaml
  conntrail doctor

Exit status: 0 done, 1 an input or output failed for good, 2 bad usage, 3 an input is not there or not permitted.`

/** Reads the arguments behind the program's name. Throws CliExit. */
export function parseArguments(args: readonly string[], version: string, hostname: string): Invocation {
  let settings: Invocation | null = null
  const program = new Command('conntrail')
    .description('Reads conntrack events, table rows and kernel logs from standard input and writes NDJSON to standard output.')
    .version(version)
    .enablePositionalOptions()
    .configureOutput({ outputError: () => {} })
    .addHelpText('after', () => `${conditionHelp()}\n${examples}`)
    .allowExcessArguments(false)
  const all = (): readonly CommandWords[] => [program, ...program.commands].map(wordsOf)
  const settle = (command: Command, flags: readonly Flag[]): Command => {
    addFlags(command, flags, args)
    return command.allowExcessArguments(false).exitOverride((error) => {
      throw new CliExit(error.exitCode === 0 ? 0 : BAD_USAGE, error.exitCode === 0 ? '' : complaint(command, sentenceOf(error, command, all())))
    })
  }
  settle(program, common)
    .argument('[files...]', 'saved files, compressed ones too, merged by time; -: standard input, as is none')
    .action((files: string[], options: Record<string, unknown>) => {
      // a word that is no path and at which nothing is was to be a command
      const word = files.find((file) => file !== '-' && !/[/.*]/.test(file) && !existsSync(file))
      if (word !== undefined) throw new CliExit(BAD_USAGE, complaint(program, unknownCommand(word, program.commands.map((each) => each.name()))))
      settings = check('pipe', files.every((file) => file === '-') ? options : { ...options, files, once: true }, hostname)
    })
  const command = (name: string, says: string, flags: readonly Flag[]): Command => settle(program.command(name).description(says), flags)
  command('run', 'The same with any inputs and outputs, until stopped; records carry host, input and rid.', [...ofRun, ...common])
    .addHelpText('after', conditionHelp)
    .action((options: Record<string, unknown>) => {
    const early = Object.keys(program.opts()).find((name) => program.getOptionValueSource(name) === 'cli')
    if (early !== undefined) program.error(`options of run go behind it: conntrail run --${early.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} ...`)
    settings = check('run', options, hostname)
  })
  command('check', 'Checks a configuration file: every error with its place, the value and what was expected.', [json])
    .argument('<file>')
    .action((file: string, options: Record<string, unknown>) => {
      settings = { command: 'check', file, json: options['json'] === true }
    })
  const schema = command('schema', 'Prints a JSON Schema, for editors and tests.', [])
  schema.addArgument(choice(schema, '<of>', 'what is described', ['config', 'record'], 'schema')).action((of: 'config' | 'record') => {
    settings = { command: 'schema', of }
  })
  command('service', 'Prints a hardened systemd unit for a configuration, with only what its inputs and outputs need.', [config]).action((options: Record<string, unknown>) => {
    settings = { command: 'service', config: (options['config'] as string | undefined) ?? '' }
  })
  const deadletters = command('deadletters', 'What receivers refused for good: lists it, shows it, or sends it again through the output that it was for.', [config, state, json])
  deadletters
    .addArgument(choice(deadletters, '<action>', 'what to do', ['list', 'show', 'replay'], 'action'))
    .argument('[id...]', 'as listed; none: all')
    .action((action: 'list' | 'show' | 'replay', ids: string[], options: Record<string, unknown>) => {
      settings = { command: 'deadletters', action, ids, config: (options['config'] as string | undefined) ?? '', state: (options['state'] as string | undefined) ?? '', json: options['json'] === true }
    })
  command('doctor', 'Checks this host: permissions, sysctls, tools, buffers; says what would be lost silently, and what mends it.', [config, json, ...ofDoctor]).action(
    (options: Record<string, unknown>) => {
      settings = {
        command: 'doctor',
        config: (options['config'] as string | undefined) ?? '',
        json: options['json'] === true,
        verbose: options['verbose'] === true,
        connect: options['connect'] === true,
        ignore: options['ignore'] as string[],
      }
    },
  )
  program.parse(args as string[], { from: 'user' })
  return settings!
}

const BAD_USAGE = 2

const nameOf = (command: Command): string => (command.parent === null ? command.name() : `${nameOf(command.parent)} ${command.name()}`)
const wordsOf = (command: Command): CommandWords => ({ name: nameOf(command), flags: command.options.flatMap(({ long, short }) => [long, short].filter((flag) => flag != null)) })

const complaint = (command: Command, sentence: string): string => `${nameOf(command)}: ${sentence}\n(${nameOf(command)} --help lists the options)`

/** What commander complains about, in our words. */
function sentenceOf({ code, message }: CommanderError, command: Command, all: readonly CommandWords[]): string {
  const [, quoted = ''] = /'(.*)'/s.exec(message) ?? []
  switch (code) {
    case 'commander.unknownOption':
      return unknownFlag(quoted, wordsOf(command), all)
    case 'commander.excessArguments': {
      const word = command.args[command.registeredArguments.length]!
      return command.parent === null ? unknownCommand(word, command.commands.map((each) => each.name())) : looseWord(word, wordsOf(command), inputWords)
    }
    case 'commander.unknownCommand':
      return unknownCommand(quoted, (command.parent ?? command).commands.map((each) => each.name()))
    case 'commander.missingArgument':
      return `<${quoted}> is missing`
    case 'commander.optionMissingArgument':
      return `${quoted}: the value is missing`
    default:
      return message.replace(/^error: /, '')
  }
}

function addFlags(command: Command, flags: readonly Flag[], args: readonly string[]): void {
  for (const flag of flags) {
    const option = new Option(flag.flags, flag.says)
    const { choices, what } = flag
    if (choices !== undefined) option.choices(choices)
    if (option.required) {
      const parse = (flag.parse ?? (choices === undefined ? (value: string) => value : (value: string) => oneOf(value, choices, what!))) as (value: string, previous: unknown) => unknown
      const isLong = args.some((arg) => arg === option.long || arg.startsWith(`${option.long}=`))
      option.argParser((value: string, previous: unknown) => {
        const fault = option.short === undefined ? undefined : withoutDash(`${option.short}${value}`, wordsOf(command))
        if (fault !== undefined && args.includes(`${option.short}${value}`)) throw new CliExit(BAD_USAGE, complaint(command, fault))
        return parsed(command, isLong ? option.long! : (option.short ?? option.long!), () => {
          // commander takes whatever comes next
          if (value !== '-' && wordsOf(command).flags.includes(value)) throw new Misuse(`the value is missing: ${value} is an option of its own`)
          return parse(value, previous)
        })
      })
    }
    if (flag.default !== undefined) option.default(flag.default, flag.shows ?? (Array.isArray(flag.default) ? flag.default.join() || 'none' : undefined))
    command.addOption(option)
  }
}

function choice(command: Command, name: string, says: string, choices: readonly string[], what: string): Argument {
  return new Argument(name, says).choices(choices).argParser((value: string) => parsed(command, name, () => oneOf(value, choices, what)))
}

/** `parse` throws Misuse for a value that `of` cannot have. */
function parsed<T>(command: Command, of: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof Misuse) throw new CliExit(BAD_USAGE, complaint(command, `${of}: ${error.message}`))
    throw error
  }
}

function check(command: 'pipe' | 'run', options: Record<string, unknown>, hostname: string): Settings {
  const outputs = (options['output'] as string[] | undefined) ?? []
  const inputs = command === 'pipe' ? ((options['files'] as string[] | undefined) ?? ['-']) : (options['input'] as string[])
  return {
    command,
    config: (options['config'] as string | undefined) ?? '',
    state: (options['state'] as string | undefined) ?? '',
    inputs,
    outputs,
    once: options['once'] === true,
    emit: (options['emit'] as RecordType[] | undefined) ?? null,
    transitions: options['transitions'] === true,
    where: options['where'] as Condition[],
    since: (options['since'] as number | undefined) ?? null,
    until: (options['until'] as number | undefined) ?? null,
    clock: (options['timezone'] as LocalClock | undefined) ?? null,
    bootTime: (options['bootTime'] as BootTime | undefined) ?? null,
    rid: command === 'run' || options['rid'] === true,
    host: (options['host'] as string | undefined) ?? '',
    hostname,
    format: (options['format'] as string | undefined) ?? null,
    flowsMax: (options['flowsMax'] as number | undefined) ?? null,
    summary: options['summary'] === true,
    logLevel: (options['logLevel'] as LogLevel | undefined) ?? null,
  }
}

function parseTypes(value: string): readonly RecordType[] {
  return value.split(',').map((type) => oneOf(type, recordTypes, 'record type') as RecordType)
}

function collectConditions(value: string, previous: readonly Condition[]): readonly Condition[] {
  try {
    return [...previous, parseCondition(value)]
  } catch (error) {
    if (error instanceof ConditionError) throw new Misuse(error.message)
    throw error
  }
}

/** As the name of an input it stands in every record. */
const INPUT_JSON_LENGTH_MAX = 1024

function collectInputs(value: string, previous: readonly string[]): readonly string[] {
  const fault = inputFault(value)
  if (fault !== '') throw new Misuse(fault)
  if (asciiJson(value).length > INPUT_JSON_LENGTH_MAX) throw new Misuse(`an input may be up to ${INPUT_JSON_LENGTH_MAX - 2} letters long, as JSON`)
  if (previous.includes(value)) throw new Misuse(value === '-' ? 'standard input can be read once' : `"${value}" is named twice`)
  return [...previous, value]
}

function collectOutputs(value: string, previous: readonly string[]): readonly string[] {
  const fault = outputFault(value)
  if (fault !== '') throw new Misuse(fault)
  if (previous.includes(value)) throw new Misuse(`"${value}" is named twice`)
  return [...previous, value]
}

/** With its quotes and escapes: twice the longest name in the DNS (253, RFC 1035), so that every head of a record can be prepared with it. */
const HOST_JSON_LENGTH_MAX = 512

/** Microseconds since the epoch. */
function timeOf(value: string): number {
  const time = parseTime(value)
  if (time === null) throw new Misuse(`expected ${TIME_EXPECTED}`)
  return time
}

function parseBootTime(value: string): BootTime {
  return { microseconds: timeOf(value), source: TIME_BOOT }
}

function parseZone(value: string): LocalClock {
  try {
    return localClock(value)
  } catch {
    const meant = nearest(value, zoneNames())
    throw new Misuse(`"${value}" is no IANA zone; ${meant === undefined ? 'expected one such as UTC or Europe/Berlin' : `did you mean "${meant}"?`}`)
  }
}

function parseHost(value: string): string {
  if (value === '' || asciiJson(value).length > HOST_JSON_LENGTH_MAX) throw new Misuse(`expected a name of 1 to ${HOST_JSON_LENGTH_MAX - 2} letters, as JSON`)
  return value
}

function parseFlowsMax(value: string): number {
  const n = Number(value)
  if (!Number.isInteger(n) || n < 1 || n > FLOWS_MAX_LIMIT) throw new Misuse(`expected a whole number from 1 to ${FLOWS_MAX_LIMIT}`)
  return n
}
