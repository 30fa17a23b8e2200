/**
 * Configuration files: YAML or JSON in, checked and frozen plain data out. This file is only the door: the parser and the checker are loaded when a
 * configuration is, so that a bare pipe starts without them.
 */
import type { Config, LoadOptions, ReadFile } from './config/result.js'

export { type ConfigError, ConfigErrors, errorText } from './config/errors.js'
export { HOST_INPUTS } from './config/result.js'
export type { Config, InputConfig, LoadOptions, OutputConfig, ReadFile } from './config/result.js'
export { Secret } from './config/secret.js'
export type { Listen, RuleShape as RuleConfig } from './config/shape.js'

/** Reads, checks and completes a configuration. Throws ConfigErrors with all that is wrong, and nothing else. */
export async function loadConfig(path: string, read: ReadFile, env: Readonly<Record<string, string | undefined>>, options: LoadOptions = {}): Promise<Config> {
  const { load } = await import('./config/load.js')
  return load(path, read, env, options)
}

/** The same for data that no file holds, such as the inputs and outputs of a command line; `source` stands for the file in messages. Variables are not put in. */
export async function completeConfig(
  data: unknown,
  source: string,
  read: ReadFile,
  env: Readonly<Record<string, string | undefined>>,
  options: LoadOptions = {},
): Promise<Config> {
  const { complete } = await import('./config/load.js')
  return complete(data, source, read, env, options)
}

/** The JSON Schema (draft 2020-12) of the form as it is written. `formats` as in LoadOptions. */
export async function configSchema(formats: readonly string[] | null = null): Promise<Readonly<Record<string, unknown>>> {
  const { schema } = await import('./config/load.js')
  return schema(formats)
}
