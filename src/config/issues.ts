/** What the shape complains about, as errors with their places. */
import type { z } from 'zod'
import { meantOrExpected, nearest } from '../nearest.js'
import type { ConfigDocument, Place } from './document.js'
import { type ConfigError, isSecretPath, type Path, pathText } from './errors.js'
import { KNOWN_KEYS } from './shape.js'
import { likelyUnit } from './units.js'

type Issue = z.core.$ZodIssue

/** Turns one complaint into errors; a complaint about several alternatives becomes that of the one that was meant. */
export function errorsOf(issue: Issue, above: Path, document: ConfigDocument, file: string): ConfigError[] {
  const path = [...above, ...(issue.path as (string | number)[])]
  const value = valueAt(document.data, path)
  if (issue.code === 'unrecognized_keys') {
    const known = issue.message.slice(KNOWN_KEYS.length).split(',')
    return issue.keys.map((key) => unknownKey(key, known, path, document, file))
  }
  if (issue.code === 'invalid_key') {
    const expected = issue.issues[0]!.message
    return [{ file, ...document.keyPlace(path), path: pathText(path), message: `expected ${expected}`, expected }]
  }
  if (issue.code === 'invalid_union') {
    if (issue.discriminator !== undefined && isMap(valueAt(document.data, path.slice(0, -1)))) {
      const types = ((issue as { options?: readonly unknown[] }).options ?? []).map(String)
      return [faultyValue(value, `one of ${types.join(', ')}`, types, path, document, file)]
    }
    const meant = issue.errors.find((option) => option.some(isMeant))
    if (meant !== undefined) return meant.flatMap((nested) => errorsOf(nested, path, document, file))
    const words = issue.errors.flat().flatMap(wordsOf)
    return [faultyValue(value, issue.message, words, path, document, file)]
  }
  if (issue.code === 'custom' && issue.params?.['says'] === true)
    return [{ file, ...placeOf(value, path, document), path: pathText(path), message: issue.message }]
  return [faultyValue(value, issue.message, wordsOf(issue), path, document, file)]
}

/** An alternative was meant when the value has its form and is faulty inside. */
function isMeant(issue: Issue): boolean {
  if (issue.path.length > 0 || issue.code === 'unrecognized_keys' || (issue.code === 'custom' && issue.params?.['says'] === true)) return true
  return issue.code === 'invalid_union' && issue.errors.some((option) => option.some(isMeant))
}

function wordsOf(issue: Issue): string[] {
  if (issue.code === 'invalid_union') return issue.errors.flat().flatMap(wordsOf)
  if (issue.code === 'custom') return (issue.params?.['words'] as string[] | undefined) ?? []
  return issue.code === 'invalid_value' ? issue.values.map(String) : []
}

/** A key that is missing only because it is misspelled is told once. */
export function withoutMisspelled(errors: readonly ConfigError[]): ConfigError[] {
  const meant = new Set(
    errors.flatMap(({ path, didYouMean, message }) =>
      didYouMean !== undefined && message.startsWith(UNKNOWN_KEY) ? [path.slice(0, path.lastIndexOf('.') + 1) + didYouMean] : [],
    ),
  )
  return errors.filter(({ path, message }) => !(message.startsWith(MISSING) && meant.has(path)))
}

const UNKNOWN_KEY = 'unknown key'
const MISSING = 'missing'

function unknownKey(key: string, known: readonly string[], above: Path, document: ConfigDocument, file: string): ConfigError {
  const path = [...above, key]
  const didYouMean = nearest(key, known)
  return {
    file,
    ...document.keyPlace(path),
    path: pathText(path),
    message: `${UNKNOWN_KEY}; ${meantOrExpected(key, known)}`,
    expected: known.join(', '),
    ...(didYouMean === undefined ? {} : { didYouMean }),
  }
}

function faultyValue(value: unknown, expected: string, words: readonly string[], path: Path, document: ConfigDocument, file: string): ConfigError {
  const common = { file, ...placeOf(value, path, document), path: pathText(path) }
  if (value === undefined) return { ...common, message: `${MISSING}; expected ${expected}`, expected }
  const shown = document.rawText(path) ?? value
  const isScalar = shown === null || typeof shown === 'string' || typeof shown === 'number' || typeof shown === 'boolean'
  const isHidden = isSecretPath(path)
  const didYouMean = isHidden ? undefined : typeof value === 'string' && words.length > 0 ? nearest(value, words) : likelyUnit(value, expected)
  return {
    ...common,
    message: `${isHidden ? '' : `${inWords(shown)}: `}expected ${expected}${didYouMean === undefined ? '' : `; did you mean "${didYouMean}"?`}`,
    ...(isScalar && !isHidden ? { value: shown } : {}),
    expected,
    ...(didYouMean === undefined ? {} : { didYouMean }),
  }
}

const SHOWN_LENGTH = 80

function inWords(value: unknown): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list'
  if (typeof value === 'object') return 'a map'
  const text = JSON.stringify(value)
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}...` : text
}

/** What is missing stands where the map begins that it is missing in. */
function placeOf(value: unknown, path: Path, document: ConfigDocument): Place {
  return value === undefined ? document.keyPlace(path.slice(0, -1)) : document.valuePlace(path)
}

export function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function valueAt(data: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      isMap(value) || Array.isArray(value) ? (Object.hasOwn(value, key) ? (value as Record<string | number, unknown>)[key] : undefined) : undefined,
    data,
  )
}
