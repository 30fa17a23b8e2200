/**
 * Values of a JSON text as they stand in it. JSON.parse would round 64-bit counters; this finds where a value begins and ends. For texts that JSON.stringify or
 * the program's own printer made: no blanks between the parts.
 */

/** The text of the value at `path` (`drops.counted`, `top.0.value`), null where there is none. */
export function rawValue(json: string, path: readonly string[]): string | null {
  let [from, to] = [0, json.length]
  for (const key of path) {
    const found = json[from] === '{' ? member(json, from, key) : json[from] === '[' ? item(json, from, key) : null
    if (found === null) return null
    ;[from, to] = found
  }
  return json.slice(from, to)
}

type Span = readonly [from: number, to: number]

function member(json: string, from: number, key: string): Span | null {
  for (let at = from + 1; json[at] === '"'; ) {
    const nameEnd = endOfText(json, at)
    const valueEnd = endOfValue(json, nameEnd + 1)
    if (JSON.parse(json.slice(at, nameEnd)) === key) return [nameEnd + 1, valueEnd]
    if (json[valueEnd] !== ',') return null
    at = valueEnd + 1
  }
  return null
}

function item(json: string, from: number, key: string): Span | null {
  if (!/^\d+$/.test(key) || json[from + 1] === ']') return null
  let at = from + 1
  for (let left = Number(key); ; left--) {
    const end = endOfValue(json, at)
    if (left === 0) return [at, end]
    if (json[end] !== ',') return null
    at = end + 1
  }
}

function endOfText(json: string, from: number): number {
  let at = from + 1
  while (at < json.length && json[at] !== '"') at += json[at] === '\\' ? 2 : 1
  return at + 1
}

function endOfValue(json: string, from: number): number {
  if (json[from] === '"') return endOfText(json, from)
  let depth = 0
  for (let at = from; at < json.length; at++) {
    const c = json[at]
    if (c === '"') at = endOfText(json, at) - 1
    else if (c === '{' || c === '[') depth++
    else if ((c === '}' || c === ']' || c === ',') && depth === 0) return at
    else if ((c === '}' || c === ']') && --depth === 0) return at + 1
  }
  return json.length
}
