/** What is wrong with a configuration: where, what was found, what was expected. */

/** A key or an index for each level: ['outputs', 'pager', 'when', 0, 'type']. */
export type Path = readonly (string | number)[]

/** One fault. Its JSON has the same keys. */
export interface ConfigError {
  readonly file: string
  /** counted from 1; 0: it concerns the whole file */
  readonly line: number
  readonly column: number
  /** `outputs.pager.when[0].type`; '' for the whole */
  readonly path: string
  /** one phrase, complete but for file and path */
  readonly message: string
  /** as it stands in the file, before variables; absent for unknown and missing keys, lists, maps, and wherever a secret may stand */
  readonly value?: string | number | boolean | null
  readonly expected?: string
  readonly didYouMean?: string
}

/** More than these help nobody. */
const ERRORS_MAX = 100

/** The faults of one configuration, in the order of the file. `message` is their text. */
export class ConfigErrors extends Error {
  readonly errors: readonly ConfigError[]

  constructor(errors: readonly ConfigError[]) {
    const sorted = [...errors].sort((a, b) => a.line - b.line || a.column - b.column)
    const shown = sorted.slice(0, ERRORS_MAX)
    const more = sorted.length > ERRORS_MAX ? [`${sorted[0]!.file}: and ${sorted.length - ERRORS_MAX} more`] : []
    super([...shown.map(errorText), ...more].join('\n'))
    this.name = 'ConfigErrors'
    this.errors = shown
  }

  toJSON(): { readonly errors: readonly ConfigError[] } {
    return { errors: this.errors }
  }
}

/** `FILE:LINE:COLUMN: outputs.pager.urll: unknown key; did you mean "url"?` */
export function errorText({ file, line, column, path, message }: ConfigError): string {
  return `${line === 0 ? file : `${file}:${line}:${column}`}: ${path === '' ? '' : `${path}: `}${message}`
}

export function pathText(path: Path): string {
  return path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : !/^[\w-]+$/.test(part) ? `[${JSON.stringify(part)}]` : i === 0 ? part : `.${part}`))
    .join('')
}

/** Where secrets stand. A value below one of these keys is never shown, also when it stands in the wrong form. */
const secretKeys: ReadonlySet<string | number> = new Set(['token', 'secret', 'secrets', 'headers', 'url'])

export function isSecretPath(path: Path): boolean {
  return path.some((part) => secretKeys.has(part))
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EACCES: 'this user may not read it',
  EPERM: 'this user may not read it',
  EISDIR: 'it is a directory',
  ELOOP: 'its symbolic links go in a circle',
}

/** Why a file cannot be read, in a phrase. */
export function reasonOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return (typeof code === 'string' ? reasons[code] : undefined) ?? (error instanceof Error ? error.message : String(error))
}
