/**
 * Lines that are JSON objects, and documents of them that are laid out over many lines: the journal's (`-o json`, json-pretty, json-sse, json-seq), `dmesg --json`,
 * and our own records read back. Every other object is understood to be none of our business, if it is JSON at all.
 */
import { page } from '../event.js'
import { CARRIED, HELD, IGNORED, type LineContext, type LineFormat, type Outcome, REJECTED_LINE } from '../stage.js'
import { carriedInJson } from './kernel-log/carried.js'
import { type Finding, give, HeldLines } from './kernel-log/held.js'
import { dmesgRecord, findInJson, isOurs, ownRecord } from './kernel-log/json-record.js'
import { isInteresting } from './kernel-log/message.js'
import { onOneLine, ReadBack } from './read-back.js'
import { isAt, isLineEnd, skipBlanks, utf8 } from './scan.js'

const BRACE = 123
const BRACKET = 91
const CLOSING_BRACKET = 93
const RECORD_SEPARATOR = 0x1e
const SSE = 'data: '
/** A document that is laid out may be so long; dmesg's, which holds the whole log, is taken record by record. */
const DOCUMENT_CHARACTERS_MAX = 1 << 20
const DMESG = /^\{\s*"dmesg"\s*:\s*\[$/
const NOT_JSON = 'begins with { and is not valid JSON'
const NOT_OURS = 'a record without a time, not in UTF-8, or longer or deeper than any of ours'
/** Every record of ours begins so; those whose keys somebody has put into another order are found too. */
const OUR_BEGINNING = '{"time":"'
const encoder = new TextEncoder()
/** Blank, TAB, CR. */
const BLANKS = [32, 9, 13]
/** Of commas, colons, numbers and the three words. */
const OUTSIDE_STRINGS = ' \t\r,:0123456789+-.eEtrufalsn'
const CUT_OFF = 'a JSON document that is cut off'

/** One for each input. */
export function jsonLines(): LineFormat {
  return new JsonLines()
}

class JsonLines implements LineFormat {
  readonly name = 'json-lines'
  readonly #lines = new HeldLines()
  /** what of a document, or of a record of dmesg's, has come; '' outside of one */
  #text = ''
  #depth = 0
  /** within an array of documents, each of which is read for itself (jq -s) */
  #isArray = false
  /** within the document of dmesg --json */
  #isDmesg = false
  /** made when first needed: few inputs are archives */
  #reader: ReadBack | null = null

  begins(at: number): boolean {
    const c = page[at]
    if (c === BRACE) return true
    if (c === RECORD_SEPARATOR) return page[at + 1] === BRACE
    if (c === 100) return page[at + SSE.length] === BRACE && isAt(at, SSE)
    if (c === BRACKET) return isLineEnd(at + 1)
    if (this.#isArray && this.#text === '') return c === CLOSING_BRACKET || page[skipBlanks(at)] === BRACE
    // blank, tab, quote, closing bracket or brace
    return (this.#text !== '' || this.#isDmesg) && (c === 32 || c === 9 || c === 34 || c === 93 || c === 125)
  }

  read(at: number, lineEnd: number, _event: unknown, context: LineContext): Outcome {
    const c = page[at]
    const from = c === RECORD_SEPARATOR ? at + 1 : c === 100 ? at + SSE.length : at
    if (page[from] === BRACE) {
      this.#interrupt(context)
      if (isAt(from, OUR_BEGINNING)) {
        const own = this.#own(page, from, lineEnd)
        if (own !== null) return give(own, context)
      }
      const line = utf8(from, lineEnd)
      return line.trim() === '{' ? this.#begin(line) : this.#object(line.trim(), from, lineEnd, context)
    }
    const line = utf8(from, lineEnd)
    if (this.#text === '' && !this.#isDmesg) return this.#arrayLine(line.trim())
    return this.#isDmesg ? this.#dmesgLine(line, line.trim(), context) : this.#documentLine(line, context)
  }

  /** What is held comes out as cut off. dmesg's records may go on: only the output of a slow command has stopped for a while. */
  settle(context: LineContext): void {
    this.#lines.reject(context, CUT_OFF)
    this.#text = ''
  }

  #interrupt(context: LineContext): void {
    this.settle(context)
    this.#isDmesg = false
    this.#isArray = false
  }

  #object(text: string, from: number, lineEnd: number, context: LineContext): Outcome {
    const value = parse(text)
    const own = isOurs(value) ? this.#own(page, from, lineEnd) : null
    if (own !== null) return give(own, context)
    if (value !== undefined && !isOurs(value)) {
      const found = findInJson(value, context)
      if (found.outcome === IGNORED && typeof value === 'object' && value !== null) context.carried = carriedInJson(value as Record<string, unknown>, context, isInteresting)
      return context.carried === null ? give(found, context) : CARRIED
    }
    context.reason = value === undefined ? NOT_JSON : NOT_OURS
    return REJECTED_LINE
  }

  /** null for what is no record of ours. Behind `end` stands an LF. */
  #own(bytes: Uint8Array, from: number, end: number): Finding | null {
    let to = end
    while (to > from && BLANKS.includes(bytes[to - 1]!)) to--
    const reader = (this.#reader ??= new ReadBack())
    return reader.read(bytes, from, to) ? ownRecord(reader) : null
  }

  /** A record of ours that another tool has laid out over several lines. It has its bytes for itself, and so its reader. */
  #ownDocument(): Finding | null {
    const bytes = encoder.encode(`${onOneLine(this.#text)}\n`)
    const own = this.#own(bytes, 0, bytes.length - 1)
    this.#reader = null
    return own
  }

  #begin(line: string): Outcome {
    this.#text = '{'
    this.#depth = 1
    this.#lines.hold(line)
    return HELD
  }

  #arrayLine(text: string): Outcome {
    if (text === '{') return this.#begin(text)
    this.#isArray = text === '['
    return IGNORED
  }

  #documentLine(line: string, context: LineContext): Outcome {
    const depth = this.#depth + depthOf(line)
    // not JSON at all, or longer than any record: only what came before was held
    if (Number.isNaN(depth) || depth < 0 || this.#text.length + line.length > DOCUMENT_CHARACTERS_MAX) return this.#end(context, NOT_JSON)
    this.#text += `\n${line}`
    this.#depth = depth
    if (depth === 0) {
      if (this.#isArray) this.#text = this.#text.replace(/,\s*$/, '')
      const value = parse(this.#text)
      if (value === undefined) return this.#end(context, NOT_JSON)
      const own = isOurs(value) ? this.#ownDocument() : null
      if (own === null && isOurs(value)) return this.#end(context, NOT_OURS)
      this.#lines.settle(context, own ?? findInJson(value, context))
      this.#text = ''
      return IGNORED
    }
    if (depth === 2 && DMESG.test(this.#text.trimEnd())) {
      this.#lines.settle(context)
      this.#isDmesg = true
      this.#text = ''
    }
    this.#lines.hold(line)
    return HELD
  }

  #end(context: LineContext, reason: string): Outcome {
    this.#lines.reject(context, reason)
    this.#text = ''
    return IGNORED
  }

  /**
   * dmesg writes `{`, a key on each line, and `}`, `},` or `},{`; then `]` and `}`. The line between two records is held until the next
   * comes, so that there is one to reject where the document breaks off.
   */
  #dmesgLine(line: string, text: string, context: LineContext): Outcome {
    if (this.#text === '') {
      this.#lines.settle(context)
      if (line.startsWith('}')) {
        this.#isDmesg = false
        return IGNORED
      }
      // else what follows a pause within a record
      if (text !== '{' && text !== ']' && text !== '},{') return IGNORED
      if (text !== ']') this.#text = '{'
    } else if (text === '}' || text === '},' || text === '},{') {
      const value = parse(`${this.#text}}`)
      if (value === undefined) this.#lines.reject(context, NOT_JSON)
      else this.#lines.settle(context, dmesgRecord(value, context))
      this.#text = text === '},{' ? '{' : ''
    } else if (this.#text.length + line.length > DOCUMENT_CHARACTERS_MAX) {
      return this.#end(context, NOT_JSON)
    } else {
      this.#text += line
    }
    this.#lines.hold(line)
    return HELD
  }
}

/** undefined for what is no JSON. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** How much deeper the line ends than it began; NaN where it cannot be a line of a document: strings do not go over a line's end. */
function depthOf(line: string): number {
  let depth = 0
  let quoted = false
  for (let i = 0; i < line.length; i++) {
    const c = line[i]!
    if (quoted) {
      if (c === '\\') i++
      else if (c === '"') quoted = false
    } else if (c === '"') quoted = true
    else if (c === '{' || c === '[') depth++
    else if (c === '}' || c === ']') depth--
    else if (!OUTSIDE_STRINGS.includes(c)) return NaN
  }
  return quoted ? NaN : depth
}
