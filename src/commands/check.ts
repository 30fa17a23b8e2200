/** `conntrail check FILE` and `conntrail schema`: what a configuration may say, what is wrong with one, and what a record is. */
import { configSchema, ConfigErrors, loadConfig, type ReadFile } from '../config.js'
import { formatNames } from '../parts.js'
import { recordSchema } from '../record-schema.js'

export interface CheckWorld {
  readonly read: ReadFile
  readonly env: Readonly<Record<string, string | undefined>>
  readonly print: (text: string) => void
  readonly printError: (text: string) => void
}

/** Gives the exit status: 0 nothing is wrong, 2 something is. */
export async function check(file: string, json: boolean, { read, env, print, printError }: CheckWorld): Promise<number> {
  try {
    const { warnings } = await loadConfig(file, read, env, { formats: formatNames, isCheck: true })
    if (json) print(`${JSON.stringify({ file, ok: true, errors: [], warnings })}\n`)
    else for (const warning of warnings) printError(`${warning}\n`)
    return 0
  } catch (error) {
    if (!(error instanceof ConfigErrors)) throw error
    if (json) print(`${JSON.stringify({ file, ok: false, errors: error.errors, warnings: [] })}\n`)
    else printError(`${error.message}\n`)
    return 2
  }
}

/** Prints a JSON Schema: of a configuration, or of a record. */
export async function schema(of: 'config' | 'record', print: (text: string) => void): Promise<number> {
  print(`${JSON.stringify(of === 'config' ? await configSchema(formatNames) : recordSchema, null, 2)}\n`)
  return 0
}
