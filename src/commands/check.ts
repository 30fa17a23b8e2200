/** `conntrail check FILE` and `conntrail schema`: what a configuration may say, what is wrong with one, and what a record is. */
import { type Config, configSchema, ConfigErrors, loadConfig, type ReadFile } from '../config.js'
import { CREDENTIALS_DIRECTORY, credentialsIn } from '../config/credentials.js'
import { formatNames } from '../parts.js'
import { recordSchema } from '../record-schema.js'

export interface CheckWorld {
  readonly read: ReadFile
  readonly env: Readonly<Record<string, string | undefined>>
  readonly print: (text: string) => void
  readonly printError: (text: string) => void
}

/** Gives the exit status: 0 a run would begin with it, 2 it would not. */
export async function check(file: string, json: boolean, { read, env, print, printError }: CheckWorld): Promise<number> {
  const reloading = env['MAINPID'] ?? ''
  const seen = reloading === '' ? env : asSeenBy(reloading, env)
  try {
    const config = await loadConfig(file, read, seen, { formats: formatNames, isOutside: reloading === '' })
    const warnings = keyFaults(config, seen, read)
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

/** Private keys are read with each connection, so one that is missing is no fault of the file; but a check tells. */
function keyFaults({ outputs }: Config, env: CheckWorld['env'], read: ReadFile): string[] {
  const credentials = credentialsIn(env[CREDENTIALS_DIRECTORY] ?? '', read, true)
  return outputs.flatMap((output) => {
    const key = output.type === 'webhook' ? output.tls.key_file : null
    try {
      if (key !== null) credentials.read(key)
      return []
    } catch (error) {
      return [credentials.fault(key!, error)]
    }
  })
}

/** systemd shows a service's credentials to the service alone, and not to what it runs for a reload; MAINPID is set for that, and names a process of the same user. */
function asSeenBy(pid: string, env: CheckWorld['env']): CheckWorld['env'] {
  const directory = env[CREDENTIALS_DIRECTORY] ?? ''
  return directory === '' ? env : { ...env, [CREDENTIALS_DIRECTORY]: `/proc/${pid}/root${directory}` }
}

/** Prints a JSON Schema: of a configuration, or of a record. */
export async function schema(of: 'config' | 'record', print: (text: string) => void): Promise<number> {
  print(`${JSON.stringify(of === 'config' ? await configSchema(formatNames) : recordSchema, null, 2)}\n`)
  return 0
}
