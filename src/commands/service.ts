/** `conntrail service`: the systemd unit for a configuration, with only what its inputs and outputs need. */
import { basename, dirname, isAbsolute, resolve } from 'node:path'
import { completeConfig, type Config, ConfigErrors, type InputConfig, type ReadFile, loadConfig } from '../config.js'
import { CREDENTIALS_DIRECTORY } from '../config/credentials.js'
import { credentialName, credentialSource, type UnitNeeds, unitText } from '../unit.js'

export interface ServiceOptions {
  /** the configuration file as it was named; null: the host is watched */
  readonly configPath: string | null
  /** of the program that prints this, which is the one that the unit starts: node, and main.js, behind all links, for one may lead into a home directory */
  readonly execPath: string
  readonly scriptPath: string
  /** what relative paths are relative to */
  readonly cwd: string
  readonly read: ReadFile
  readonly env: Readonly<Record<string, string | undefined>>
  readonly print: (text: string) => void
  readonly printError: (text: string) => void
}

/** Prints the unit on standard output, and what it cannot do by itself also for people. Gives the exit status: 0, or 2 for a configuration with a fault. */
export async function service(options: ServiceOptions): Promise<number> {
  const { configPath, read, env, print, printError } = options
  const variables = new Set<string>()
  const seenEnv = new Proxy(env, {
    get: (all, name) => {
      // what a service was handed that prints this is not the service's that is to be
      if (name === CREDENTIALS_DIRECTORY) return undefined
      if (typeof name === 'string') variables.add(name)
      return Reflect.get(all, name) as string | undefined
    },
  })
  try {
    const config =
      configPath === null
        ? await completeConfig({}, 'no configuration', read, seenEnv, { isOutside: true, isLenient: true })
        : await loadConfig(configPath, read, seenEnv, { isOutside: true, isLenient: true })
    const needs = needsOf(config, { ...options, variables: [...variables] })
    print(unitText(needs))
    for (const note of needs.notes) printError(`conntrail: note: ${note}\n`)
    return 0
  } catch (error) {
    if (!(error instanceof ConfigErrors)) throw error
    printError(`${error.message}\n`)
    return 2
  }
}

export interface UnitPlaces {
  readonly configPath: string | null
  readonly execPath: string
  readonly scriptPath: string
  readonly cwd: string
  /** variables that the configuration was read with, as they are written there */
  readonly variables?: readonly string[]
}

/** The unit's text. */
export function unitFor(config: Config, places: UnitPlaces): string {
  return unitText(needsOf(config, places))
}

function needsOf(config: Config, { configPath, execPath, scriptPath, cwd, variables = [] }: UnitPlaces): UnitNeeds {
  const script = resolve(cwd, scriptPath)
  const file = configPath === null ? null : resolve(cwd, configPath)
  const kinds = new Set(config.inputs.map(kindOf))
  const written = writtenPaths(config)
  const secrets = config.secretFiles
  const readPaths = [...readFiles(config), ...config.outputs.flatMap((output) => (output.type === 'webhook' ? [output.tls.ca_file, output.tls.cert_file] : []))].filter((path) => path !== null)
  const relative = [...readPaths, ...written.map(({ path }) => path), ...secrets].filter((path) => !isAbsolute(path))
  const visible = [execPath, script, ...(file === null ? [] : [file]), ...readPaths.map((path) => resolve(cwd, path)), ...written.map(({ path }) => resolve(cwd, path))]
  const homes = visible.filter((path) => /^\/(?:home|root|run\/user)\//.test(path))
  const listen = config.http?.listen ?? null
  const directories = written.map(({ path, isDirectory }) => (isDirectory ? resolve(cwd, path) : dirname(resolve(cwd, path))))
  const placed = directories.map((directory) => ({ directory, ...placeOf(directory) }))
  const below = (root: string): readonly string[] => [...new Set(placed.filter((place) => place.root === root).map(({ name }) => name))]
  const strangers = config.inputs.flatMap((input) => (input.type === 'command' && kindOf(input) === 'command' ? [input.program[0]!] : []))
  return {
    start: [execPath, script, 'run', ...(file === null ? [] : ['-c', file])],
    check: file === null ? [] : [execPath, script, 'check', file],
    workingDirectory: relative.length > 0 ? cwd : '',
    kernelLog: kinds.has('kmsg'),
    journal: kinds.has('journal'),
    files: kinds.has('file'),
    conntrack: kinds.has('conntrack'),
    otherNamespaces: config.inputs.some((input) => 'netns' in input && input.netns.some((name) => name !== 'self')),
    remote: config.outputs.some((output) => output.type === 'webhook') || (listen !== null && listen.socket === '' && !isLoopback(listen.host)),
    loopback: listen !== null && listen.socket === '',
    lowPort: listen !== null && listen.port > 0 && listen.port < 1024,
    stdout: config.outputs.some((output) => output.type === 'stdout'),
    stateDirectories: below('/var/lib/'),
    logsDirectories: below('/var/log/'),
    runtimeDirectories: below('/run/'),
    writable: below(''),
    homes: homes.length > 0,
    credentials: secrets.map((path) => ({ name: credentialName(path), path: resolve(cwd, credentialSource(path)) })),
    notes: [
      ...config.warnings,
      ...homes.map((path) => `${path} lies in a home directory, into which the service's user can look only where others may; install it elsewhere, such as below /usr/local or /etc`),
      ...visible.filter((path) => /^\/(?:var\/)?tmp\//.test(path)).map((path) => `${path} lies in a temporary directory, of which the service has one of its own; name another place`),
      ...(kinds.has('stdin') ? ['a service has nothing on its standard input; leave out the input of type stdin'] : []),
      ...strangers.map((program) => `what ${program} needs is not known; add it to the unit`),
      ...(variables.length > 0 ? [`the configuration asks for ${variables.join(', ')} of the environment; add Environment=, or EnvironmentFile= for a secret`] : []),
    ],
  }
}

/** Programs that do what an input of their own kind does. */
const programKinds: Readonly<Record<string, 'kmsg' | 'journal' | 'conntrack'>> = { dmesg: 'kmsg', journalctl: 'journal', conntrack: 'conntrack' }

function kindOf(input: InputConfig): InputConfig['type'] {
  return input.type === 'command' ? (programKinds[basename(input.program[0]!)] ?? 'command') : input.type
}

function readFiles(config: Config): string[] {
  return config.inputs.flatMap((input) => (input.type === 'file' ? [...input.path] : []))
}

function writtenPaths({ state, outputs, http }: Config): { readonly path: string; readonly isDirectory: boolean }[] {
  const socket = http?.listen.socket ?? ''
  return [
    ...(state === null ? [] : [{ path: state, isDirectory: true }]),
    ...outputs.flatMap((output) => (output.type === 'file' ? [{ path: output.path, isDirectory: false }] : [])),
    ...(socket === '' ? [] : [{ path: socket, isDirectory: false }]),
  ]
}

/** A directory by the root below which systemd makes it, else '' and the whole. A colon or backslash has a meaning in StateDirectory= and its like. */
function placeOf(directory: string): { readonly root: string; readonly name: string } {
  const root = ['/var/lib/', '/var/log/', '/run/'].find((each) => directory.startsWith(each) && !/[:\\"']/.test(directory))
  return root === undefined ? { root: '', name: directory } : { root, name: directory.slice(root.length) }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)
}
