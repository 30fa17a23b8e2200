/**
 * The flow records at one output, looked at as they come: those of marks 1, 2, 3 … in this order, and now and then some of them again after a kill. Of each only a
 * hash is kept, so that millions of them fit into little memory.
 */
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs'
import type { Record_ } from './process-harness.js'

const LF = 10
const BLOCK_BYTES = 1 << 20
/** So many of the things that are wrong are told in full. */
const FAULTS_TOLD = 5
/** What a tracker decides that has lost its memory. */
const REMEMBERED = [/,"flow":"[0-9a-f]{16}"/, /,"transition":\{[^{}]*\}/, /,"end":\{[^{}]*\}/]

export class Arrivals {
  readonly path: string
  /** marks from 1 to this have come */
  last = 0
  /** records that came again */
  again = 0
  readonly gaps: Record_[] = []
  /** what is wrong; further faults are only counted */
  readonly faults: string[] = []
  faultsInAll = 0
  /** of the record with mark i, at i - 1 */
  #hashes = new Float64Array(1 << 12)
  /** by the beginning of the ids of one file: the offset of the last one */
  readonly #offsets = new Map<string, number>()
  readonly #block = Buffer.alloc(BLOCK_BYTES)
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })
  /** as far as whole lines were read */
  #at = 0

  constructor(path: string) {
    this.path = path
  }

  /** Reads on to the last whole line. */
  look(): this {
    if (!existsSync(this.path)) return this
    const fd = openSync(this.path, 'r')
    try {
      for (;;) {
        const n = readSync(fd, this.#block, 0, BLOCK_BYTES, this.#at)
        const whole = this.#block.subarray(0, n).lastIndexOf(LF) + 1
        if (whole === 0) return this
        this.#at += whole
        for (const text of this.#decoder.decode(this.#block.subarray(0, whole - 1)).split('\n')) this.#take(text)
      }
    } finally {
      closeSync(fd)
    }
  }

  /** Bytes at the end that are no whole line. */
  get torn(): number {
    return existsSync(this.path) ? statSync(this.path).size - this.#at : 0
  }

  /** The first mark whose record is another there; 0 when all are the same. */
  differsFrom(other: Arrivals): number {
    const marks = Math.max(this.last, other.last)
    for (let i = 0; i < marks; i++) if (this.#hashes[i] !== other.#hashes[i]) return i + 1
    return 0
  }

  #take(text: string): void {
    let record: Record_
    try {
      record = JSON.parse(text) as Record_
    } catch {
      return this.#fault(`no JSON: ${text}`)
    }
    const { type, mark, rid } = record as { type: string; mark: number; rid: string }
    if (type === 'gap') return void this.gaps.push(record)
    if (type !== 'flow') return this.#fault(`neither flow nor gap: ${text}`)
    const hash = hashOf(REMEMBERED.reduce((rest, part) => rest.replace(part, ''), text))
    if (mark <= this.last) {
      this.again++
      if (this.#hashes[mark - 1] !== hash) this.#fault(`another record than before: ${text}`)
      return
    }
    if (mark !== this.last + 1) this.#fault(`mark ${mark} comes first behind ${this.last}: ${text}`)
    this.#checkOwn(rid, text)
    this.last = mark
    if (mark > this.#hashes.length) {
      const hashes = new Float64Array(mark * 2)
      hashes.set(this.#hashes)
      this.#hashes = hashes
    }
    this.#hashes[mark - 1] = hash
  }

  /** No two records have one id: those of one file rise with its lines. */
  #checkOwn(rid: string, text: string): void {
    const [, file = '', offset = ''] = /^(.+):(\d+)$/.exec(rid) ?? []
    if (offset === '' || Number(offset) <= (this.#offsets.get(file) ?? -1)) this.#fault(`an id that is no file's next: ${text}`)
    this.#offsets.set(file, Number(offset))
  }

  #fault(text: string): void {
    if (++this.faultsInAll <= FAULTS_TOLD) this.faults.push(text)
  }
}

/** 53 bits (cyrb53): of three million texts two share one in one run of two thousand, and that would hide a difference, not make one. */
function hashOf(text: string): number {
  let a = 0xdeadbeef
  let b = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    a = Math.imul(a ^ c, 2654435761)
    b = Math.imul(b ^ c, 1597334677)
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909)
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909)
  return 4294967296 * (2097151 & b) + (a >>> 0)
}
