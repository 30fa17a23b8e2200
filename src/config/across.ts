/**
 * What one key cannot know alone: checks across parts of a configuration. They look at the plain data, so that they also find something when other parts are
 * faulty.
 */
import { resolve } from 'node:path'
import picomatch from 'picomatch'
import { recordTypes } from '../event.js'
import type { ConfigDocument } from './document.js'
import { meantOrExpected, nearest } from '../nearest.js'
import { type ConfigError, type Path, pathText } from './errors.js'
import { isMap } from './issues.js'
import { HOST_INPUTS } from './result.js'

/** `all`: with the parts that the command line has put in the place of the document's. */
export function checkAcross(document: ConfigDocument, all: unknown, file: string): ConfigError[] {
  const { data } = document
  if (!isMap(data) || !isMap(all)) return []
  const fault = (path: Path, message: string, more: Partial<ConfigError> = {}): ConfigError => ({
    file,
    ...document.valuePlace(path),
    path: pathText(path),
    message,
    ...more,
  })
  const inputs = partsOf(data['inputs'])
  const outputs = partsOf(data['outputs'])
  return [
    ...twice(partsOf(all['inputs']), 'inputs', (input) => (input['type'] === 'stdin' ? 'standard input' : null), 'type', fault),
    ...twice(partsOf(all['outputs']), 'outputs', destinationOf, 'path', fault),
    ...ownOutput(partsOf(all['inputs']), partsOf(all['outputs']), fault),
    ...neverWritten(data['emit'], outputs, fault),
    ...unknownInputs(inputs, data, outputs, fault),
  ]
}

type Part = readonly [name: string, part: Readonly<Record<string, unknown>>]
type Fault = (path: Path, message: string, more?: Partial<ConfigError>) => ConfigError

function partsOf(section: unknown): Part[] {
  return isMap(section) ? Object.entries(section).filter((entry): entry is [string, Readonly<Record<string, unknown>>] => isMap(entry[1])) : []
}

function destinationOf(output: Readonly<Record<string, unknown>>): string | null {
  if (output['type'] === 'stdout') return 'standard output'
  return output['type'] === 'file' && typeof output['path'] === 'string' ? resolve(output['path']) : null
}

function twice(parts: readonly Part[], section: string, place: (part: Part[1]) => string | null, key: string, fault: Fault): ConfigError[] {
  const first = new Map<string, string>()
  const errors: ConfigError[] = []
  for (const [name, part] of parts) {
    const where = place(part)
    if (where === null) continue
    const other = first.get(where)
    if (other === undefined) first.set(where, name)
    else errors.push(fault([section, name, Object.hasOwn(part, key) ? key : 'type'], `${where} is already that of ${pathText([section, other])}`))
  }
  return errors
}

/** A followed file that the program writes itself would grow for ever. Its rotated files have a suffix. */
function ownOutput(inputs: readonly Part[], outputs: readonly Part[], fault: Fault): ConfigError[] {
  return outputs.flatMap(([name, output]) => {
    const written = output['type'] === 'file' ? destinationOf(output) : null
    if (written === null) return []
    const reader = inputs.find(([, input]) => {
      if (input['type'] !== 'file') return false
      const isLeftOut = matcher(input['exclude'], (pattern) => (pattern.includes('/') ? resolve(pattern) : `/**/${pattern}`))
      const isRead = matcher(input['path'], (pattern) => resolve(pattern))
      return [written, `${written}.1`, `${written}.1.gz`].some((path) => isRead(path) && !isLeftOut(path))
    })
    return reader === undefined
      ? []
      : [
          fault(
            ['outputs', name, 'path'],
            `${written}, or what it is rotated to, is read by ${pathText(['inputs', reader[0]])}: the program would eat its own records; exclude it there`,
          ),
        ]
  })
}

function matcher(value: unknown, absolute: (pattern: string) => string): (path: string) => boolean {
  const patterns = listOf(value).filter((pattern): pattern is string => typeof pattern === 'string' && pattern !== '')
  return patterns.length === 0 ? () => false : picomatch(patterns.map(absolute), { dot: true })
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [value]
}

/** Conditions with their places; an entry may stand without a list around it. */
function conditionsOf(value: unknown, path: Path): (readonly [Path, Readonly<Record<string, unknown>>])[] {
  if (Array.isArray(value)) return value.flatMap((one, i) => (isMap(one) ? [[[...path, i], one] as const] : []))
  return isMap(value) ? [[path, value]] : []
}

/** Items of a condition's key, which may be one or a list, with their places. */
function itemsOf(condition: Readonly<Record<string, unknown>>, key: string, path: Path): (readonly [Path, unknown])[] {
  const value = condition[key]
  return Array.isArray(value) ? value.map((item, i) => [[...path, key, i], item] as const) : value === undefined ? [] : [[[...path, key], value]]
}

/** An output that waits for records which `emit` leaves out; a webhook that does not say what it wants waits for alerts and gaps. */
function neverWritten(emit: unknown, outputs: readonly Part[], fault: Fault): ConfigError[] {
  if (emit === undefined || emit === null) return []
  const inLowerCase = (type: unknown): unknown => (typeof type === 'string' ? type.toLowerCase() : type)
  const written = listOf(emit).map(inLowerCase)
  // a word that nobody knows has been told of, and may be one of both
  if (!written.every((type) => (recordTypes as readonly unknown[]).includes(type))) return []
  const isSilent = !written.includes('alert') && !written.includes('gap')
  const silent = outputs.filter(([, output]) => isSilent && output['type'] === 'webhook' && (output['when'] ?? null) === null)
  return [
    ...silent.map(([name]) => fault(['outputs', name, 'type'], 'nothing is sent: a webhook gets alerts and gaps unless when says otherwise, and emit leaves out both')),
    ...outputs
      .flatMap(([name, output]) => conditionsOf(output['when'], ['outputs', name, 'when']))
      .flatMap(([path, condition]) => itemsOf(condition, 'type', path))
      .filter(([, type]) => (recordTypes as readonly unknown[]).includes(inLowerCase(type)) && !written.includes(inLowerCase(type)))
      .map(([path, type]) => fault(path, `no ${String(type)} record is written: emit leaves it out`)),
  ]
}

function unknownInputs(inputs: readonly Part[], data: Readonly<Record<string, unknown>>, outputs: readonly Part[], fault: Fault): ConfigError[] {
  const names = inputs.length === 0 ? HOST_INPUTS : inputs.map(([name]) => name)
  return [...conditionsOf(data['where'], ['where']), ...outputs.flatMap(([name, output]) => conditionsOf(output['when'], ['outputs', name, 'when']))]
    .flatMap(([path, condition]) => itemsOf(condition, 'input', path))
    .filter((entry): entry is readonly [Path, string] => typeof entry[1] === 'string' && !(names as readonly string[]).includes(entry[1]))
    .map(([path, value]) => {
      const didYouMean = nearest(value, names)
      return fault(path, `${JSON.stringify(value)}: there is no such input; ${meantOrExpected(value, names)}`, {
        value,
        expected: names.join(', '),
        ...(didYouMean === undefined ? {} : { didYouMean }),
      })
    })
}
