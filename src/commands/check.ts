/** `conntrail check FILE` and `conntrail schema config`: what a configuration may say, and what is wrong with one. */
import { configSchema, ConfigErrors, loadConfig, type ReadFile } from '../config.js'
import { formatNames } from '../parts.js'

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

export async function schema(print: (text: string) => void): Promise<number> {
  print(`${JSON.stringify(await configSchema(formatNames), null, 2)}\n`)
  return 0
}
