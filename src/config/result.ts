/** What a configuration becomes, and what it is read with. */
import type { RecordType } from '../event.js'
import type { InputShape, OutputShape, Shape } from './shape.js'

/** What the inputs of a configuration that names none may be called. */
export const HOST_INPUTS = ['kmsg', 'journal', 'table', 'conntrack'] as const

type Frozen<T> = T extends readonly (infer Item)[]
  ? readonly Frozen<Item>[]
  : T extends { reveal(): string }
    ? T
    : T extends object
      ? { readonly [Key in keyof T]: Frozen<T[Key]> }
      : T
type Named<T> = T extends unknown ? Frozen<{ name: string } & T> : never

/** One input or output with the name that it has in records and metrics; told apart by `type`. */
export type InputConfig = Named<InputShape>
export type OutputConfig = Named<OutputShape>

/**
 * All that a configuration says, in its own words and order, with defaults filled in: sizes in bytes, durations in milliseconds, percentages as fractions,
 * conditions as lists. null is "not said", where the default depends on how the program is run.
 */
export interface Config extends Frozen<Omit<Shape, '$schema' | 'inputs' | 'outputs' | 'emit'>> {
  readonly inputs: readonly InputConfig[]
  /** no input is named: kmsg may be replaced by the journal, and what is missing is reported and left out */
  readonly watchesHost: boolean
  readonly outputs: readonly OutputConfig[]
  readonly emit: readonly RecordType[]
  /** files that hold secrets, private keys too, by the paths that it names them by; where systemd hands them over they are read elsewhere */
  readonly secretFiles: readonly string[]
  /** what a check could not look at: secrets that are not there now */
  readonly warnings: readonly string[]
}

/** The whole file. Bytes are checked to be UTF-8. Throws what reading met. */
export type ReadFile = (path: string) => Uint8Array | string

export interface LoadOptions {
  /** names of the line formats, for `format`; without them any text is taken */
  readonly formats?: readonly string[]
  /** read by another than the service: its credentials are looked for where systemd takes them from, too */
  readonly isOutside?: boolean
  /** only look at it: secrets that cannot be had now are warnings, for they may be there only when the service runs */
  readonly isLenient?: boolean
  /** parts that stand in the place of the file's, such as the inputs and outputs of a command line */
  readonly instead?: { readonly inputs?: unknown; readonly outputs?: unknown }
}
