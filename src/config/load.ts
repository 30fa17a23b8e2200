/** From the bytes of a configuration to checked plain data: read, parse, put in variables, check all, fill in defaults. */
import { z } from 'zod'
import type { ConditionData } from '../conditions.js'
import type { RecordType } from '../event.js'
import { defaultTypes } from '../route.js'
import { checkAcross } from './across.js'
import { type Credentials, credentialsIn, CREDENTIALS_DIRECTORY } from './credentials.js'
import { type ConfigDocument, type Env, readDocument } from './document.js'
import { ConfigErrors, reasonOf } from './errors.js'
import { errorsOf, isMap, withoutMisspelled } from './issues.js'
import type { Config, InputConfig, LoadOptions, OutputConfig, ReadFile } from './result.js'
import { Secret } from './secret.js'
import { configShape, type FormatNames, type InputShape, type OutputShape, type SecretReader, type Shape } from './shape.js'

/** Far above any configuration: what is larger is another file. */
const CONFIG_BYTES_MAX = 1 << 18
const SECRET_BYTES_MAX = 1 << 16

export function load(path: string, read: ReadFile, env: Env, options: LoadOptions): Config {
  const whole = (message: string): ConfigErrors => new ConfigErrors([{ file: path, line: 0, column: 0, path: '', message }])
  let text: string
  try {
    const bytes = read(path)
    if (bytes.length > CONFIG_BYTES_MAX) throw whole(`is larger than ${CONFIG_BYTES_MAX / 1024} KiB; expected a configuration`)
    text = typeof bytes === 'string' ? bytes.replace(/^\uFEFF/, '') : decode(bytes, path)
  } catch (error) {
    throw error instanceof ConfigErrors ? error : whole(`cannot be read: ${reasonOf(error)}`)
  }
  return check(readDocument(text, path, env), path, read, env, options)
}

/** The same with data that no file holds: what the command line said. `source` stands for the file in messages. */
export function complete(data: unknown, source: string, read: ReadFile, env: Env, options: LoadOptions): Config {
  const nowhere = { line: 0, column: 0 }
  return check({ data, errors: [], keyPlace: () => nowhere, valuePlace: () => nowhere, rawText: () => undefined }, source, read, env, options)
}

/** The JSON Schema of the form as it is written, for editors. */
export function schema(formats: FormatNames): Readonly<Record<string, unknown>> {
  const { $schema, ...rest } = z.toJSONSchema(
    configShape(() => ({ text: '' }), formats),
    { io: 'input', target: 'draft-2020-12' },
  )
  return { $schema, title: 'conntrail configuration', ...rest, type: ['object', 'null'] }
}

function check(document: ConfigDocument, file: string, read: ReadFile, env: Env, options: LoadOptions): Config {
  const warnings: string[] = []
  const secrets: Secrets = { credentials: credentialsIn(env[CREDENTIALS_DIRECTORY] ?? '', read, options.isOutside === true), env, isLenient: options.isLenient === true, files: new Set(), warnings }
  if (document.errors.length > 0 && document.data === null) throw new ConfigErrors(document.errors)
  const data = isMap(document.data) ? { ...document.data, ...options.instead } : (document.data ?? options.instead ?? {})
  const version = isMap(data) ? data['version'] : undefined
  if (version !== undefined && version !== 1) {
    const place = document.valuePlace(['version'])
    const shown = typeof version === 'string' || typeof version === 'number' ? { value: version } : {}
    throw new ConfigErrors([
      { file, ...place, path: 'version', message: `${JSON.stringify(version)}: this program reads version 1 of the configuration`, ...shown, expected: '1' },
    ])
  }
  const result = configShape(secretReader(secrets), options.formats ?? null).safeParse(withUsualParts(data))
  const errors = [
    ...document.errors,
    ...withoutMisspelled((result.error?.issues ?? []).flatMap((issue) => errorsOf(issue, [], document, file))),
    ...checkAcross(document, data, file),
  ]
  // a variable that could not be put in leaves a text behind of which the shape complains once more
  const unset = new Set(document.errors.map((error) => error.path))
  const told = errors.filter((error, i) => i < document.errors.length || !unset.has(error.path))
  if (told.length > 0 || result.data === undefined) throw new ConfigErrors(told)
  const config = finished(result.data, isNothing(isMap(data) ? data['inputs'] : null), (path) => {
    secrets.files.add(path)
    return secrets.credentials.placeOf(path)
  })
  return frozen({ ...config, secretFiles: [...secrets.files], warnings })
}

interface Secrets {
  readonly credentials: Credentials
  readonly env: Env
  readonly isLenient: boolean
  /** those that the configuration names, as it names them */
  readonly files: Set<string>
  readonly warnings: string[]
}

/** Files are read now, so that what is missing is known at the start and not with the first alert. */
function secretReader({ credentials, env, isLenient, files, warnings }: Secrets): SecretReader {
  const missing = (fault: string): ReturnType<SecretReader> => {
    if (!isLenient) return { fault }
    warnings.push(fault)
    return { text: '' }
  }
  return (source) => {
    if (typeof source === 'string') return { text: source }
    if ('env' in source) {
      const text = env[source.env] ?? ''
      return text === '' ? missing(`the environment has no ${source.env}, or it is empty`) : { text }
    }
    files.add(source.file)
    try {
      const bytes = credentials.read(source.file)
      if (bytes.length > SECRET_BYTES_MAX) return { fault: `${source.file} is larger than ${SECRET_BYTES_MAX / 1024} KiB; expected a secret` }
      const text = (typeof bytes === 'string' ? bytes : new TextDecoder('utf-8', { fatal: true }).decode(bytes)).replace(/\r?\n$/, '')
      return text === '' ? { fault: `${source.file} is empty; expected a secret` } : { text }
    } catch (error) {
      return error instanceof TypeError
        ? { fault: `${source.file} is not UTF-8; expected a secret` }
        : missing(credentials.fault(source.file, error))
    }
  }
}

/** A configuration that names no inputs watches the host; one that names no outputs writes to standard output. Names are as on the command line. */
function withUsualParts(data: unknown): unknown {
  if (!isMap(data)) return data
  return {
    ...data,
    ...(isNothing(data['inputs']) ? { inputs: { kmsg: { type: 'kmsg' }, table: { type: 'table' }, conntrack: { type: 'conntrack' } } } : {}),
    ...(isNothing(data['outputs']) ? { outputs: { '-': { type: 'stdout' } } } : {}),
  }
}

function isNothing(section: unknown): boolean {
  return section === undefined || section === null || (isMap(section) && Object.keys(section).length === 0)
}

function finished(shape: Shape, watchesHost: boolean, keyPlace: (path: string) => string): Omit<Config, 'secretFiles' | 'warnings'> {
  const { $schema: _forEditors, inputs, outputs: named, emit, ...rest } = shape
  const outputs = Object.entries(named ?? {}).map(([name, output]) => outputOf(name, output, keyPlace))
  return {
    ...rest,
    inputs: Object.entries(inputs ?? {}).map(([name, input]) => inputOf(name, input, shape)),
    watchesHost,
    outputs,
    emit: emit ?? emitOf(watchesHost, outputs),
  }
}

function inputOf(name: string, input: InputShape, { timezone }: Shape): InputConfig {
  return 'timezone' in input ? { name, ...input, timezone: input.timezone ?? timezone } : { name, ...input }
}

/** A webhook that does not say what it wants gets what is worth waking somebody for. */
function outputOf(name: string, output: OutputShape, keyPlace: (path: string) => string): OutputConfig {
  if (output.type !== 'webhook') return { name, ...output }
  const usual: readonly ConditionData[] = [{ type: ['alert', 'gap'] }]
  const { key_file: key, ...tls } = output.tls
  return { name, ...output, tls: { ...tls, key_file: key === null ? null : keyPlace(key) }, when: output.when ?? [...usual] }
}

/** A busy gateway's flows would drown the journal of a service that was only told to watch. */
function emitOf(watchesHost: boolean, outputs: readonly OutputConfig[]): readonly RecordType[] {
  if (!watchesHost) return defaultTypes
  const asked = outputs.flatMap(({ when }) => (Array.isArray(when) ? when.flatMap((one: ConditionData) => (one['type'] ?? []) as readonly RecordType[]) : []))
  return [...new Set<RecordType>(['alert', 'gap', ...asked])]
}

/** UTF-8, with or without its mark. */
function decode(bytes: Uint8Array, path: string): string {
  const [first, second] = bytes
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))
    throw new ConfigErrors([{ file: path, line: 0, column: 0, path: '', message: 'is UTF-16; expected UTF-8' }])
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new ConfigErrors([{ file: path, line: firstBadLine(bytes), column: 1, path: '', message: 'this line is not UTF-8' }])
  }
}

function firstBadLine(bytes: Uint8Array): number {
  const LF = 10
  let line = 1
  for (let from = 0; from < bytes.length; line++) {
    const end = bytes.indexOf(LF, from)
    const to = end < 0 ? bytes.length : end + 1
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(from, to))
    } catch {
      return line
    }
    from = to
  }
  return line
}

function frozen<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !(value instanceof Secret)) for (const part of Object.values(value)) frozen(part)
  return Object.freeze(value)
}
