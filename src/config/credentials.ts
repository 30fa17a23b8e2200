/**
 * Secrets that systemd hands to a service (systemd.exec(5), LoadCredential=). The unit that `conntrail service` prints does so with every file of secrets, so that only
 * root has to be able to read the file itself: what the configuration names by its path is then found by a name in a directory of the service's own.
 */
import { credentialName, credentialSource } from '../unit.js'
import { reasonOf } from './errors.js'
import type { ReadFile } from './result.js'

/** The variable that names the directory, in a service that is handed something. */
export const CREDENTIALS_DIRECTORY = 'CREDENTIALS_DIRECTORY'

export interface Credentials {
  /** What a file of secrets holds: the credential, where systemd has handed it over, else what is at the path itself. Throws what reading met. */
  readonly read: ReadFile
  /** Where that is, for what reads it later by a path. */
  readonly placeOf: (path: string) => string
  /** That and why it cannot be read, and what mends it: one sentence. */
  readonly fault: (path: string, error: unknown) => string
}

interface Found {
  readonly place: string
  readonly content: ReturnType<ReadFile>
}

const nothingThere: ReadonlySet<unknown> = new Set(['ENOENT', 'ENOTDIR'])
const denied: ReadonlySet<unknown> = new Set(['EACCES', 'EPERM'])

/** `directory` is the service's, '' outside of one, where it is looked for also in the place from which the unit has systemd take it. */
export function credentialsIn(directory: string, read: ReadFile, isOutside: boolean): Credentials {
  /** null where nothing is. What may not be read is no reason to look elsewhere. */
  const at = (place: string): Found | null => {
    try {
      return { place, content: read(place) }
    } catch (error) {
      if (nothingThere.has(codeOf(error))) return null
      throw error
    }
  }
  const handed = (path: string): Found | null => (directory === '' ? null : at(`${directory}/${credentialName(path)}`))
  const stored = (path: string): Found | null => (isOutside && credentialSource(path) !== path ? at(credentialSource(path)) : null)
  const mend = (path: string, error: unknown): string => {
    const name = credentialName(path)
    const source = credentialSource(path)
    if (directory !== '') return `; systemd has handed over no credential ${name}: print the unit anew with conntrail service, and restart it`
    if (source !== path) return `; a service is handed it as the credential ${name}: LoadCredential=${name}:${source} in its unit`
    return denied.has(codeOf(error)) ? `; let this user read it, or hand it to a service as the credential ${name}, as the unit that conntrail service prints does` : ''
  }
  return {
    read: (path) => (handed(path) ?? stored(path))?.content ?? read(path),
    placeOf: (path) => {
      try {
        return handed(path)?.place ?? path
      } catch {
        return path
      }
    },
    fault: (path, error) => `${path} cannot be read: ${reasonOf(error)}${mend(path, error)}`,
  }
}

const codeOf = (error: unknown): unknown => (error as NodeJS.ErrnoException | null)?.code
