/**
 * The journal's export format (`journalctl -o export`): fields a line, an empty line behind each entry. A value that is not printable stands behind its name as
 * its length in eight bytes, the lowest first, and the bytes themselves, line feeds and all.
 */
import { page } from '../event.js'
import { HELD, IGNORED, type LineContext, type LineFormat, type Outcome } from '../stage.js'
import { HeldLines } from './kernel-log/held.js'
import { journalEntry, journalFieldNames } from './kernel-log/journal-entry.js'
import { CR, isAt, LF, utf8 } from './scan.js'

const STARTS = ['__CURSOR=', '__REALTIME_TIMESTAMP=', '__MONOTONIC_TIMESTAMP=', '__SEQNUM=', '__SEQNUM_ID=']
const WANTED: ReadonlySet<string> = new Set(journalFieldNames)
const LENGTH_BYTES = 8
/** Of a value so much is kept: what is longer says nothing of ours. */
const VALUE_BYTES_MAX = 65_536
/** The journal's own limit (DATA_SIZE_MAX): what claims to be longer is no length. */
const LENGTH_MAX = 768n * 1024n * 1024n
const UNDERSCORE = 95

/** One for each input. */
export function journalExport(): LineFormat {
  return new JournalExport()
}

class JournalExport implements LineFormat {
  readonly name = 'journal-export'
  readonly #lines = new HeldLines()
  #fields = new Map<string, string>()
  /** name of the binary field whose bytes come, '' between fields; how many came, and how many there are with length and LF */
  #binary = ''
  #seen = 0
  #bytes = new Uint8Array(1024)

  begins(at: number): boolean {
    if (this.#lines.count === 0) return startsEntry(at)
    return this.#binary !== '' || page[at] === LF || nameEnd(at) > at
  }

  read(at: number, lineEnd: number, _event: unknown, context: LineContext): Outcome {
    // also within bytes: a line that was too long to come here has taken some of them away
    if (this.#lines.count > 0 && isAt(at, '__CURSOR=')) this.#cutOff(context)
    if (this.#binary !== '') return this.#more(at, lineEnd, context)
    if (at === lineEnd) {
      this.#lines.settle(context, journalEntry(this.#fields, context))
      this.#clear()
      return IGNORED
    }
    const end = nameEnd(at)
    const name = utf8(at, end)
    if (end === lineEnd) {
      this.#binary = name
      this.#seen = 0
    } else {
      this.#set(name, at, end + 1, page[lineEnd - 1] === CR ? lineEnd - 1 : lineEnd)
    }
    this.#lines.hold(utf8(at, Math.min(lineEnd, at + 1024)))
    return HELD
  }

  /** The empty line behind the last entry may have been lost in copying. */
  settle(context: LineContext): void {
    if (this.#binary === '' && this.#fields.has('MESSAGE') && this.#fields.has('_TRANSPORT')) this.#lines.settle(context, journalEntry(this.#fields, context))
    else this.#lines.reject(context, CUT_OFF)
    this.#clear()
  }

  #set(name: string, at: number, from: number, to: number): void {
    if (to - from <= VALUE_BYTES_MAX && from > at && WANTED.has(name) && !this.#fields.has(name)) this.#fields.set(name, utf8(from, to))
  }

  /** A piece of a binary value, up to a line feed that may be its own. */
  #more(at: number, lineEnd: number, context: LineContext): Outcome {
    this.#keep(page.subarray(at, lineEnd + 1))
    if (this.#seen <= LENGTH_BYTES) return this.#hold()
    const length = new DataView(this.#bytes.buffer).getBigUint64(0, true)
    const left = length + BigInt(LENGTH_BYTES + 1 - this.#seen)
    if (left > 0n && length <= LENGTH_MAX) return this.#hold()
    if (left !== 0n) {
      this.#cutOff(context)
      return IGNORED
    }
    if (length <= BigInt(VALUE_BYTES_MAX) && WANTED.has(this.#binary) && !this.#fields.has(this.#binary)) {
      this.#fields.set(this.#binary, new TextDecoder('utf-8').decode(this.#bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + Number(length))))
    }
    this.#binary = ''
    return this.#hold()
  }

  #hold(): Outcome {
    this.#lines.hold('')
    return HELD
  }

  #keep(piece: Uint8Array): void {
    const room = Math.min(this.#seen + piece.length, LENGTH_BYTES + VALUE_BYTES_MAX)
    if (room > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(room, this.#bytes.length * 2))
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    if (room > this.#seen) this.#bytes.set(piece.subarray(0, room - this.#seen), this.#seen)
    this.#seen += piece.length
  }

  #cutOff(context: LineContext): void {
    this.#lines.reject(context, CUT_OFF)
    this.#clear()
  }

  #clear(): void {
    this.#fields = new Map()
    this.#binary = ''
  }
}

const CUT_OFF = 'an entry of the journal that is cut off'

function startsEntry(at: number): boolean {
  return page[at] === UNDERSCORE && STARTS.some((start) => isAt(at, start))
}

/** Offset of the `=` or the LF behind a field's name; `at` where there is none. */
function nameEnd(at: number): number {
  let p = at
  let c: number
  while (((c = page[p]!) >= 65 && c <= 90) || c === UNDERSCORE || (p > at && c >= 48 && c <= 57)) p++
  return c === 61 || c === LF ? p : at
}
