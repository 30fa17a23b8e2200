/** `conntrail doctor`: looks at the host, and says what would be lost silently and how to mend it. Nothing to mend, nothing said. */
import { type Config, ConfigErrors, errorText, loadConfig, type ReadFile, Secret } from '../config.js'
import { checks } from '../doctor/checks.js'
import { gatherFacts } from '../doctor/facts.js'
import { type Host, openHost } from '../doctor/host.js'
import { type Finding, judge, type Plan, severities, type Sysctls } from '../doctor/model.js'
import { discover, matcherOf, patternOf } from '../inputs/files/glob.js'
import { meantOrExpected } from '../nearest.js'
import { formatNames } from '../parts.js'

const NOTHING_TO_MEND = 0
const TO_MEND = 1
const BAD_USAGE = 2

/** For `--ignore`. */
export const checkIds: readonly string[] = checks.map(({ id }) => id)

export interface DoctorOptions {
  /** null: the host is checked for everything that the program can do */
  readonly configFile: string | null
  readonly json: boolean
  /** advice too */
  readonly verbose: boolean
  /** try to connect to the receivers, and look at their certificates */
  readonly connect: boolean
  /** ids of checks whose findings are known and accepted */
  readonly ignore: readonly string[]
}

export interface DoctorWorld {
  readonly host: Host
  readonly read: ReadFile
  readonly print: (text: string) => void
  readonly printError: (text: string) => void
}

/** The host that this program runs on. `node` is Node's version, `v20.20.2`. */
export function thisHost(facts: { readonly node: string; readonly env: Host['env']; readonly root?: string }): Host {
  return openHost({ ...facts, glob: globFiles })
}

/** Looks, prints and gives the exit status: 0 nothing to mend (advice is not), 1 something is, 2 bad usage. */
export async function doctor(options: DoctorOptions, { host, read, print, printError }: DoctorWorld): Promise<number> {
  const unknown = options.ignore.find((id) => !checkIds.includes(id))
  if (unknown !== undefined) {
    printError(`conntrail doctor: --ignore: "${unknown}" is no finding; ${meantOrExpected(unknown, checkIds)}\n(conntrail doctor --help lists the options)\n`)
    return BAD_USAGE
  }
  const plan = options.configFile === null ? everything : await planOfFile(options.configFile, read, host.env)
  const facts = await gatherFacts(host, plan, { connect: options.connect })
  const findings = judge(checks, facts, plan).filter(({ id }) => !options.ignore.includes(id))
  const isToMend = findings.some(({ severity }) => severity !== 'info')
  print(options.json ? asJson(findings) : asText(findings, options.verbose))
  return isToMend ? TO_MEND : NOTHING_TO_MEND
}

const everything: Plan = {
  configFile: '',
  configErrors: [],
  configWarnings: [],
  kernelLog: 'either',
  conntrack: { events: ['new', 'update', 'destroy'], bufferBytes: 0 },
  table: true,
  otherNamespaces: [],
  programs: [],
  files: [],
  readsLocalTimes: false,
  writesFlows: true,
  state: null,
  spoolBytes: 0,
  outputs: [],
  receivers: [],
  listen: null,
  secretFiles: [],
  holdsSecrets: false,
}

/** A faulty file is a finding, and the rest of the host is looked at all the same. */
async function planOfFile(path: string, read: ReadFile, env: Host['env']): Promise<Plan> {
  const secretTexts = new Map<string, string>()
  const remember: ReadFile = (file) => {
    const bytes = read(file)
    if (file !== path) secretTexts.set(file, typeof bytes === 'string' ? bytes.trimEnd() : new TextDecoder().decode(bytes).trimEnd())
    return bytes
  }
  try {
    return planOf(path, await loadConfig(path, remember, env, { formats: ['auto', ...formatNames], isOutside: true, isLenient: true }), secretTexts, env)
  } catch (error) {
    if (!(error instanceof ConfigErrors)) throw error
    return { ...everything, configFile: path, configErrors: error.errors.map((each) => `${errorText(each)}.`) }
  }
}

/** What a configuration asks of the host. `secretTexts`: what its secret files hold, by their paths. */
function planOf(configFile: string, config: Config, secretTexts: ReadonlyMap<string, string>, env: Host['env']): Plan {
  const inputs = <T extends Config['inputs'][number]['type']>(type: T) =>
    config.inputs.filter((input): input is Extract<Config['inputs'][number], { type: T }> => input.type === type)
  const webhooks = config.outputs.filter((output) => output.type === 'webhook')
  const conntrack = inputs('conntrack')
  const hasKmsg = inputs('kmsg').length > 0
  const hasJournal = inputs('journal').length > 0
  const namespaces = [...conntrack, ...inputs('table')].flatMap(({ netns }) => netns).filter((name) => name !== 'self')
  const elsewhere = new Set([...secretTexts.values(), ...Object.values(env)])
  return {
    configFile,
    configErrors: [],
    configWarnings: config.warnings,
    kernelLog: config.watchesHost ? 'either' : hasKmsg && hasJournal ? 'both' : hasKmsg ? 'kmsg' : hasJournal ? 'journal' : 'none',
    conntrack:
      conntrack.length === 0
        ? null
        : { events: [...new Set(conntrack.flatMap(({ events }) => events))], bufferBytes: Math.max(...conntrack.map(({ buffer }) => buffer ?? 0)) },
    table: inputs('table').length > 0,
    otherNamespaces: [...new Set(namespaces)],
    programs: inputs('command').map(({ program }) => program[0]!),
    files: inputs('file').map(({ name, path, exclude }) => ({ name, patterns: path, exclude })),
    readsLocalTimes: config.inputs.some((input) => 'timezone' in input && input.timezone === null),
    writesFlows: config.emit.includes('flow'),
    state: config.state,
    spoolBytes: config.state === null ? 0 : config.outputs.reduce((sum, { spool }) => sum + spool, 0),
    outputs: config.outputs.flatMap((output) =>
      output.type === 'file' ? [{ name: output.name, path: output.path, bytes: retainedBytes(output.rotate) }] : [],
    ),
    receivers: webhooks.flatMap(({ name, url, tls }) => (url.origin === '' ? [] : [{ name, ...endOf(url.origin), caFile: tls.ca_file }])),
    listen: config.http?.listen ?? null,
    secretFiles: [...secretTexts.keys(), ...webhooks.flatMap(({ tls }) => (tls.key_file === null ? [] : [tls.key_file]))],
    holdsSecrets: webhooks
      .flatMap(({ token, headers, signing }) => [token, ...Object.values(headers), ...(signing?.secrets ?? [])])
      .some((secret) => secret instanceof Secret && secret.reveal() !== '' && !elsewhere.has(secret.reveal())),
  }
}

/** What rotation lets stand; 0 where it sets no limit. */
function retainedBytes(rotate: Extract<Config['outputs'][number], { type: 'file' }>['rotate']): number {
  if (rotate === null) return 0
  return rotate.max_total ?? (rotate.size === null || rotate.keep === null ? 0 : rotate.size * (rotate.keep + 1))
}

/** Host, port and whether TLS is spoken, of `https://am.example:9093`. */
function endOf(origin: string): Pick<Plan['receivers'][number], 'host' | 'port' | 'isSecure'> {
  const { protocol, hostname, port } = new URL(origin)
  const isSecure = protocol === 'https:'
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? (isSecure ? 443 : 80) : Number(port), isSecure }
}

/** As the file input finds them. */
async function globFiles(patterns: readonly string[], exclude: readonly string[]): ReturnType<Host['glob']> {
  const { files, failed } = await discover(patterns.map((text) => patternOf(text)), matcherOf(exclude))
  return { paths: files.map(({ path }) => path), refused: [...failed].map(([path, error]) => ({ path, code: error.code ?? 'other' })) }
}

function asJson(findings: readonly Finding[]): string {
  const toMend = findings.filter(({ severity }) => severity !== 'info').length
  const shown = findings.map(({ id, severity, about, looksAt, wrong, lost, mend, command, persist, sysctls }) => ({
    id,
    severity,
    about,
    looks_at: looksAt,
    wrong,
    lost,
    mend,
    command,
    persist,
    sysctls,
  }))
  return `${JSON.stringify({ checks: checks.length, to_mend: toMend, findings: shown }, null, 2)}\n`
}

/** '' where nothing is to be told. */
function asText(findings: readonly Finding[], verbose: boolean): string {
  const shown = findings.filter(({ severity }) => verbose || severity !== 'info')
  if (shown.length === 0) return ''
  const hidden = findings.length - shown.length
  const counts = severities.flatMap((severity) => {
    const count = shown.filter((finding) => finding.severity === severity).length
    return count === 0 ? [] : [`${count} ${severity}`]
  })
  const last = `${counts.join(', ')}${hidden === 0 ? '' : `; ${hidden} further advice with --verbose`}`
  return printable(`${[...shown.map(paragraph), ...sysctlFile(shown), last].join('\n\n')}\n`)
}

function paragraph({ id, severity, wrong, lost, mend, persist }: Finding): string {
  return [`${severity.toUpperCase()} ${id}: ${wrong}`, `  lost: ${lost}`, `  mend: ${mend}`, ...(persist === undefined ? [] : [`  keep: ${persist}`])].join(
    '\n',
  )
}

/** Several settings are one file. The largest of two wishes for one setting counts. */
function sysctlFile(findings: readonly Finding[]): string[] {
  const wanted: Record<string, number> = {}
  for (const { sysctls = {} as Sysctls } of findings) for (const [name, value] of Object.entries(sysctls)) wanted[name] = Math.max(value, wanted[name] ?? value)
  const lines = Object.entries(wanted).map(([name, value]) => `${name} = ${value}`)
  return lines.length < 2
    ? []
    : [['All settings at once: put these lines into /etc/sysctl.d/90-conntrail.conf, then sysctl --system', ...lines.map((line) => `  ${line}`)].join('\n')]
}

/** Names of files may hold anything; a terminal shall not obey them. */
function printable(text: string): string {
  return text.replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, '?')
}
