/**
 * The text of a configuration as plain data, with the place of everything in it. JSON is read as the YAML that it is. Variables are put in here, into values
 * that are already parsed, so that no value can bring keys or lines of its own.
 */
import { type Alias, CST, type Document, isAlias, isMap, isScalar, isSeq, Lexer, LineCounter, type Node, parseDocument, type YAMLError } from 'yaml'
import { type ConfigError, isSecretPath, type Path, pathText } from './errors.js'

export type Env = Readonly<Record<string, string | undefined>>

export interface Place {
  readonly line: number
  readonly column: number
}

export interface ConfigDocument {
  /** null for an empty document */
  readonly data: unknown
  readonly errors: readonly ConfigError[]
  /** where the key (or, of a list, the item) stands; of a path that is not there, the nearest one above it */
  keyPlace(path: Path): Place
  valuePlace(path: Path): Place
  /** the text before variables were put in; undefined where there were none */
  rawText(path: Path): string | undefined
}

/** Nodes with all aliases written out, and levels: far above any configuration, far below what a few lines of nested aliases make. */
const NODES_MAX = 20_000
const DEPTH_MAX = 32
const ALIASES_MAX = 1000

/** What the parser complains about, in words that quote nothing of the file: it may hold secrets. */
const syntaxTexts: Readonly<Record<string, string>> = {
  ALIAS_PROPS: 'an alias cannot have an anchor or a tag',
  BAD_ALIAS: 'there is no anchor of this name before the alias',
  BAD_DIRECTIVE: 'this directive (%) is not understood',
  BAD_DQ_ESCAPE: 'unknown escape in a "..." text; write \\\\ for a backslash',
  BAD_INDENT: 'this line is not indented as the lines that it belongs to',
  BAD_PROP_ORDER: 'an anchor or tag stands in the wrong place',
  BAD_SCALAR_START: 'a text that begins with this character must be quoted',
  BLOCK_AS_IMPLICIT_KEY: 'a nested map or list must begin on a line of its own',
  BLOCK_IN_FLOW: 'inside { } and [ ] everything is written with { } and [ ]',
  KEY_OVER_1024_CHARS: 'this key is longer than 1,024 characters',
  MISSING_CHAR: 'something is missing here: a closing quote, bracket or brace, a comma, or a blank behind a colon',
  MULTILINE_IMPLICIT_KEY: 'a key must be on one line; is a colon, a quote or a brace missing?',
  MULTIPLE_ANCHORS: 'a value can have one anchor',
  MULTIPLE_DOCS: 'a second document begins here; expected one',
  MULTIPLE_TAGS: 'a value can have one tag',
  TAB_AS_INDENT: 'a tab; expected blanks',
  TAG_RESOLVE_FAILED: 'tags (!...) other than those of YAML itself are not understood',
  UNEXPECTED_TOKEN: 'this does not belong here',
}

export function readDocument(text: string, file: string, env: Env): ConfigDocument {
  const lines = new LineCounter()
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(Math.min(offset, text.length))
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const tooDeep = findTooDeep(text)
  if (tooDeep >= 0) {
    const before = text.slice(0, tooDeep).split('\n')
    return empty([
      { file, line: before.length, column: before.at(-1)!.length + 1, path: '', message: `nested deeper than ${DEPTH_MAX} levels; expected a configuration` },
    ])
  }
  const document: Document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false, keepSourceTokens: false, logLevel: 'error' })
  const faults = [...document.errors, ...document.warnings]
  if (faults.length > 0) return empty(syntaxErrors(faults, text, file, placeAt))
  try {
    return new Walk(document, file, env, placeAt)
  } catch (error) {
    if (error instanceof TooLarge) return empty([{ file, ...placeAt(error.offset), path: '', message: error.message }])
    throw error
  }
}

/** Columns before a block's line: each level takes one at least, or two for a list in a map. */
const INDENT_MAX = 256

/**
 * Where the text nests absurdly, as an offset; -1: nowhere. The parser calls itself for each level; it survives the end of the stack, but V8 may end the whole
 * process when it has to compile a regular expression there.
 */
function findTooDeep(text: string): number {
  let offset = 0
  let brackets = 0
  let column = 0
  let markers = 0
  let isText = false
  for (const token of new Lexer().lex(text)) {
    const type: string | null = isText ? null : CST.tokenType(token)
    isText = type === 'scalar'
    if (type === 'flow-seq-start' || type === 'flow-map-start') brackets++
    else if (type === 'flow-seq-end' || type === 'flow-map-end') brackets = Math.max(0, brackets - 1)
    else if (type === 'newline') column = markers = 0
    else if (brackets === 0 && (type === 'seq-item-ind' || type === 'explicit-key-ind' || type === 'map-value-ind')) markers++
    const isIndent = type === 'space' && column === 0
    if (brackets > DEPTH_MAX || markers > DEPTH_MAX || (isIndent && brackets === 0 && token.length > INDENT_MAX)) return offset
    // marks of the lexer's own (a document or a scalar begins) are no text
    if (type === 'doc-mode' || type === 'flow-error-end' || type === 'scalar') continue
    offset += token.length
    column += token.length
  }
  return -1
}

/** After the first of a line the parser's complaints are mostly about what it has not understood before. */
function syntaxErrors(faults: readonly YAMLError[], text: string, file: string, placeAt: (offset: number) => Place): ConfigError[] {
  const seen = new Set<number>()
  const errors: ConfigError[] = []
  for (const fault of faults) {
    const offset = fault.pos[0]
    const place = placeAt(offset)
    if (seen.has(place.line)) continue
    seen.add(place.line)
    const isVariable = text[offset] === '{' && text[offset - 1] === '$'
    const message = isVariable ? 'inside { } and [ ] a text with ${...} must be quoted' : (syntaxTexts[fault.code] ?? 'this is no YAML')
    errors.push({ file, ...place, path: '', message })
  }
  return errors
}

function empty(errors: readonly ConfigError[]): ConfigDocument {
  const start = { line: 1, column: 1 }
  return { data: null, errors, keyPlace: () => start, valuePlace: () => start, rawText: () => undefined }
}

/** Nothing else is worth telling then. */
class TooLarge extends Error {
  readonly offset: number

  constructor(offset: number, message: string) {
    super(message)
    this.offset = offset
  }
}

class Walk implements ConfigDocument {
  readonly data: unknown
  readonly errors: ConfigError[] = []
  readonly #file: string
  readonly #env: Env
  readonly #placeAt: (offset: number) => Place
  readonly #keys = new Map<string, number>()
  readonly #values = new Map<string, number>()
  readonly #raw = new Map<string, string>()
  #nodes = 0
  #aliases = 0
  #openAliases = 0
  readonly #anchors = new Map<string, Node>()

  constructor(document: Document, file: string, env: Env, placeAt: (offset: number) => Place) {
    this.#file = file
    this.#env = env
    this.#placeAt = placeAt
    this.data = this.#plain(document.contents as Node | null, [], 0)
  }

  keyPlace(path: Path): Place {
    return this.#nearestPlace(this.#keys, path)
  }

  valuePlace(path: Path): Place {
    const own = this.#values.get(JSON.stringify(path))
    return own === undefined ? this.#nearestPlace(this.#keys, path) : this.#placeAt(own)
  }

  rawText(path: Path): string | undefined {
    return this.#raw.get(JSON.stringify(path))
  }

  #nearestPlace(offsets: ReadonlyMap<string, number>, path: Path): Place {
    for (let length = path.length; length > 0; length--) {
      const offset = offsets.get(JSON.stringify(path.slice(0, length)))
      if (offset !== undefined) return this.#placeAt(offset)
    }
    return { line: 1, column: 1 }
  }

  #fail(offset: number, path: Path, message: string, more: Partial<ConfigError> = {}): void {
    this.errors.push({ file: this.#file, ...this.#placeAt(offset), path: pathText(path), message, ...more })
  }

  #plain(node: Node | null, path: Path, offset: number): unknown {
    const at = node?.range?.[0] ?? offset
    this.#values.set(JSON.stringify(path), at)
    if (++this.#nodes > NODES_MAX) throw new TooLarge(at, `more than ${NODES_MAX} values, with aliases written out; expected a configuration`)
    if (path.length > DEPTH_MAX) throw new TooLarge(at, `nested deeper than ${DEPTH_MAX} levels; expected a configuration`)
    this.#remember(node)
    if (isAlias(node)) return this.#alias(node, path, at)
    if (isMap(node)) return this.#map(node.items as readonly Entry[], path, at)
    if (isSeq(node)) {
      return node.items.map((item, i) => {
        const itemPath = [...path, i]
        this.#keys.set(JSON.stringify(itemPath), (item as Node | null)?.range?.[0] ?? at)
        return this.#plain(item as Node | null, itemPath, at)
      })
    }
    if (!isScalar(node)) return null
    return typeof node.value === 'string' ? this.#withVariables(node.value, path, at) : node.value
  }

  #alias(node: Alias, path: Path, at: number): unknown {
    if (++this.#aliases > ALIASES_MAX) throw new TooLarge(at, `more than ${ALIASES_MAX} aliases, with those inside of others; expected a configuration`)
    const target = this.#anchors.get(node.source)
    if (target === undefined) this.#fail(at, path, syntaxTexts['BAD_ALIAS']!)
    this.#openAliases++
    const value = this.#plain(target ?? null, path, at)
    this.#openAliases--
    return value
  }

  /** The walk goes in the order of the text, so that the last one seen is the one that an alias means; what an alias repeats has been seen. */
  #remember(node: Node | null): void {
    if (this.#openAliases === 0 && (isScalar(node) || isMap(node) || isSeq(node)) && node.anchor !== undefined) this.#anchors.set(node.anchor, node)
  }

  #map(items: readonly Entry[], path: Path, at: number): unknown {
    const data: Record<string, unknown> = {}
    for (const { key, value } of items) {
      const keyAt = key?.range?.[0] ?? at
      this.#remember(key)
      if (!isScalar(key) || key.value === null) {
        this.#fail(keyAt, path, 'a key must be a text')
        continue
      }
      const name = String(key.value)
      const keyPath = [...path, name]
      const first = this.#keys.get(JSON.stringify(keyPath))
      if (Object.hasOwn(data, name)) {
        this.#fail(keyAt, keyPath, `set twice; the first time in line ${this.#placeAt(first ?? at).line}`)
        continue
      }
      this.#keys.set(JSON.stringify(keyPath), keyAt)
      if (name === '<<') this.#fail(keyAt, keyPath, 'merge keys are not read; an alias (*name) can stand for a whole value')
      else if (name === '__proto__') this.#fail(keyAt, keyPath, 'this name cannot be used')
      else data[name] = this.#plain(value, keyPath, keyAt)
    }
    return data
  }

  /** `${NAME}`, `${NAME:-used where NAME is not set or empty}`, `$$` for a dollar sign. A dollar sign before anything else is itself. */
  #withVariables(text: string, path: Path, at: number): string {
    if (!text.includes('$')) return text
    const result = text.replace(/\$(?:\$|\{([^}]*)(\}?))/g, (whole, inside: string | undefined, close: string | undefined) => {
      if (whole === '$$') return '$'
      const [, name, fallback] = /^([A-Za-z_]\w*)(?::-([\s\S]*))?$/.exec(inside ?? '') ?? []
      if (name === undefined || close !== '}') {
        this.#fail(at, path, `expected a variable such as \${NAME} or \${NAME:-default}; a dollar sign of its own is $$`, {
          expected: '${NAME} or ${NAME:-default}',
        })
        return ''
      }
      const value = this.#env[name]
      if (fallback !== undefined) return value === undefined || value === '' ? fallback : value
      if (value === undefined)
        this.#fail(at, path, `the environment has no ${name}; set it, or give a default: \${${name}:-text}`, { expected: `the variable ${name}` })
      return value ?? ''
    })
    if (result !== text && !isSecretPath(path)) this.#raw.set(JSON.stringify(path), text)
    return result
  }
}

interface Entry {
  readonly key: Node | null
  readonly value: Node | null
}
