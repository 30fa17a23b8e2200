/**
 * A text of the user's with values of the record in it: `{{summary}}`, `{{drops.counted}}`, `{{top.0.value}}`; `${summary}` means the same (a configuration file
 * has to write `$${summary}`, for there `${…}` is a variable of the environment). `{{record}}` is the whole record.
 *
 * A template that is JSON stays JSON whatever the values are: inside quotes a value is escaped, and an absent one is empty; outside of quotes it stands as in the
 * record, and an absent one is null. In any other text values stand as they are.
 */
import { type BodyRecord, decode, encode } from './record.js'
import { rawValue } from './raw-json.js'

export interface Template {
  readonly contentType: string
  readonly body: (record: BodyRecord) => Uint8Array
}

interface Placeholder {
  readonly path: readonly string[]
  readonly isQuoted: boolean
}

const PLACEHOLDER = /\{\{\s*([\w.]+)\s*\}\}|\$\{([\w.]+)\}/g
const WHOLE = 'record'

export function compileTemplate(text: string): Template {
  const parts: (string | Placeholder)[] = []
  let at = 0
  let isQuoted = false
  for (const match of text.matchAll(PLACEHOLDER)) {
    const before = text.slice(at, match.index)
    isQuoted = endsQuoted(before, isQuoted)
    const name = (match[1] ?? match[2])!
    parts.push(before, { path: name === WHOLE ? [] : name.split('.'), isQuoted })
    at = match.index + match[0].length
  }
  parts.push(text.slice(at))
  const isJson = isJsonText(parts.map((part) => (typeof part === 'string' ? part : part.isQuoted ? '' : 'null')).join(''))
  return {
    contentType: isJson ? 'application/json' : 'text/plain; charset=utf-8',
    body: (record) => {
      const json = decode(record.bytes)
      return encode(parts.map((part) => (typeof part === 'string' ? part : filled(rawValue(json, part.path), part.isQuoted, isJson))).join(''))
    },
  }
}

function filled(raw: string | null, isQuoted: boolean, isJson: boolean): string {
  if (isJson && !isQuoted) return raw ?? 'null'
  if (raw === null) return ''
  const isText = raw.startsWith('"')
  if (!isJson) return isText ? (JSON.parse(raw) as string) : raw
  return isText ? raw.slice(1, -1) : JSON.stringify(raw).slice(1, -1)
}

/** Does `text`, begun inside a quoted text or outside of one, end inside? */
function endsQuoted(text: string, begunQuoted: boolean): boolean {
  let isQuoted = begunQuoted
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\' && isQuoted) at++
    else if (text[at] === '"') isQuoted = !isQuoted
  }
  return isQuoted
}

function isJsonText(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
