/** What a run consists of: what the command line says, before what the configuration says, before the defaults; checked, with each part ready to be opened. */
import { readFileSync } from 'node:fs'
import type { Settings } from '../cli.js'
import { completeConfig, type Config, ConfigErrors, HOST_INPUTS, type InputConfig, loadConfig, type OutputConfig } from '../config.js'
import { makeCondition } from '../conditions.js'
import { parseTime } from '../config/units.js'
import type { TableFullOptions } from '../detectors/table-full.js'
import type { HostsOptions } from '../detectors/table-full-hosts.js'
import { LINE_BYTES_MAX, type RecordType, TIME_BOOT } from '../event.js'
import { localClock } from '../formats/local-time.js'
import type { LogLevel } from '../log.js'
import { meantOrExpected } from '../nearest.js'
import { formatNames, inputKinds, outputKinds, type World } from '../parts.js'
import { defaultTypes, type RouteOptions } from '../route.js'
import type { BootTime, LocalClock } from '../stage.js'

export interface Plan {
  /** where it comes from: a configuration's path, or '' */
  readonly path: string
  /** records carry ids, and the name of their input */
  readonly isRun: boolean
  readonly host: string
  /** whose lines are this host's, where logs name hosts */
  readonly hosts: HostsOptions
  readonly rid: boolean
  /** '' nothing is remembered */
  readonly state: string
  /** where files begin when the checkpoint is there and cannot be used */
  readonly onDamage: 'begin' | 'end'
  readonly inputs: readonly InputConfig[]
  /** nobody has named them: what is not there is left out */
  readonly watchesHost: boolean
  readonly outputs: readonly OutputConfig[]
  readonly route: RouteOptions
  readonly clock: LocalClock
  readonly bootTime: BootTime | null
  /** null: every format */
  readonly format: string | null
  readonly flowsMax: number
  readonly lineBytesMax: number
  readonly once: boolean
  readonly summary: boolean
  readonly logLevel: LogLevel
  readonly rules: Config['rules'] | null
  readonly http: Config['http']
  /** where others see its status, '' nowhere */
  readonly statusUrl: string
}

const FLOWS_MAX = 1_048_576
/** of what stands for the end of a URL */
const HASH_DIGITS = 8

/** Throws ConfigErrors. */
export async function planOf(settings: Settings, world: World): Promise<Plan> {
  // a bare pipe needs no configuration, and does without what reads one
  if (settings.command === 'pipe' && !settings.once) return complete(settings, null, [STDIN], [STDOUT])
  const read = (path: string): Uint8Array => readFileSync(path)
  if (settings.command === 'pipe') {
    const paths = settings.inputs.filter((path) => path !== STDIN.name)
    const { inputs } = await completeConfig({ inputs: { files: { type: 'file', path: paths } } }, 'command line', read, world.env)
    return complete(settings, null, paths.length === settings.inputs.length ? inputs : [STDIN, ...inputs], [STDOUT])
  }
  const options = { formats: formatNames, instead: { ...inputsOf(settings), ...outputsOf(settings, world) } }
  const config =
    settings.config === '' ? await completeConfig({}, 'command line', read, world.env, options) : await loadConfig(settings.config, read, world.env, options)
  checkInputNames(settings, config)
  return complete(settings, config, config.inputs, config.outputs)
}

/** As in a configuration. */
function checkInputNames({ where }: Settings, { watchesHost, inputs }: Config): void {
  const names: readonly string[] = watchesHost ? HOST_INPUTS : inputs.map(({ name }) => name)
  const unknown = where.flatMap((condition) => condition.inputs).filter((name) => !names.includes(name))
  if (unknown.length === 0) return
  throw new ConfigErrors(unknown.map((name) => ({ file: 'command line', line: 0, column: 0, path: '', message: `--where input=${name}: there is no such input; ${meantOrExpected(name, names)}` })))
}

const STDIN: InputConfig = { name: '-', type: 'stdin', timezone: null, format: 'auto' }
const STDOUT: OutputConfig = { name: '-', type: 'stdout', when: null, when_full: 'block', spool: 0 }

/** Those of the command line in the words of a configuration; nothing where it names none. */
function inputsOf({ inputs }: Settings): { inputs?: Record<string, unknown> } {
  return inputs.length === 0 ? {} : { inputs: Object.fromEntries(inputs.map((text) => [text, inputKinds.find((kind) => kind.fits(text))!.means(text)])) }
}

/** Who names record types means a webhook of the same command line too: it has no condition of its own then. */
function outputsOf({ outputs, config, emit }: Settings, { hash }: World): { outputs?: Record<string, unknown> } {
  const given = outputs.length > 0 || config !== '' ? outputs : ['-']
  const meant = (text: string): [string, object] => {
    const output = outputKinds.find((kind) => kind.fits(text))!.means(text)
    return [nameOfOutput(text, hash), output.type === 'webhook' && emit !== null ? { ...output, when: { type: emit } } : output]
  }
  return given.length === 0 ? {} : { outputs: Object.fromEntries(given.map(meant)) }
}

/** As it is written; but names are shown, and what follows a receiver's host and port may be its key: something else stands for it, the same in each run. */
function nameOfOutput(text: string, hash: World['hash']): string {
  const url = /^webhook:(.*)$/s.exec(text)?.[1]
  if (url === undefined || !URL.canParse(url)) return text
  const { origin, href } = new URL(url)
  return href === `${origin}/` ? `webhook:${origin}` : `webhook:${origin}#${hash(url).slice(0, HASH_DIGITS)}`
}

function complete(settings: Settings, config: Config | null, inputs: readonly InputConfig[], outputs: readonly OutputConfig[]): Plan {
  const isRun = settings.command === 'run'
  const watchesHost = config?.watchesHost === true
  const emit: readonly RecordType[] = settings.emit ?? config?.emit ?? defaultTypes
  const bootTime = config?.boot_time ?? null
  const timezone = config?.timezone ?? null
  const host = settings.host !== '' ? settings.host : isRun ? (config?.host ?? settings.hostname) : ''
  return {
    path: settings.config,
    isRun,
    host,
    hosts: hostsOf(settings, host, config?.host != null, inputs),
    rid: isRun || settings.rid,
    state: settings.state !== '' ? settings.state : (config?.state ?? ''),
    onDamage: config?.on_damage ?? 'begin',
    inputs,
    watchesHost,
    outputs,
    route: {
      emit,
      transitionsOnly: settings.transitions || config?.transitions === true,
      since: settings.since ?? (config?.since == null ? -Infinity : parseTime(config.since)!),
      until: settings.until ?? (config?.until == null ? Infinity : parseTime(config.until)!),
      where: settings.where.length > 0 ? settings.where : (config?.where ?? []).map(makeCondition),
    },
    clock: settings.clock ?? localClock(timezone),
    bootTime: settings.bootTime ?? (bootTime === null ? null : { microseconds: parseTime(bootTime)!, source: TIME_BOOT }),
    format: settings.format,
    flowsMax: settings.flowsMax ?? config?.flows_max ?? FLOWS_MAX,
    lineBytesMax: config?.max_line ?? LINE_BYTES_MAX,
    once: settings.once || config?.once === true,
    logLevel: settings.logLevel ?? config?.log_level ?? 'info',
    summary: settings.summary || config?.summary === true,
    rules: config?.rules ?? null,
    http: config?.http ?? null,
    statusUrl: statusUrl(config?.http ?? null, host),
  }
}

/** Inputs that bring lines of whatever host. */
const CARRIES_LOGS: ReadonlySet<string> = new Set<InputConfig['type']>(['file', 'stdin', 'command'])

/** What the kernel or the journal of this host says is this host's. Where nobody says whose the inputs are, it is the first that a line names. */
function hostsOf({ host: asked, hostname }: Settings, host: string, isConfigured: boolean, inputs: readonly InputConfig[]): HostsOptions {
  const isSaid = asked !== '' || isConfigured
  return { names: host === '' ? [] : [host, hostname], adopts: !isSaid && inputs.every(({ type }) => CARRIES_LOGS.has(type)) }
}

/** Where it listens on every address, the host's name stands for them. */
function statusUrl(http: Config['http'], host: string): string {
  if (http === null || http.listen.socket !== '' || http.listen.port === 0) return ''
  const { host: at, port } = http.listen
  const name = ['0.0.0.0', '::'].includes(at) && host !== '' ? host : at
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}/status`
}

/** Nobody waits for the first notice of an episode in a file: rather it names the namespace. */
const ONCE_PATIENCE_SEC = 30

export function ruleOptions(plan: Plan): Pick<TableFullOptions, 'quietSec' | 'repeatSec' | 'severity' | 'clearBelow' | 'expectations' | 'patienceSec'> {
  const patience = plan.once ? { patienceSec: ONCE_PATIENCE_SEC } : {}
  if (plan.rules === null) return patience
  const { table_full: full, expect_table_full: expectations } = plan.rules
  const of = (rule: typeof full) => ({ quietSec: rule.quiet / 1000, repeatSec: rule.repeat / 1000, severity: rule.severity })
  return { ...patience, ...of(full), clearBelow: full.clear_below, expectations: of(expectations) }
}
