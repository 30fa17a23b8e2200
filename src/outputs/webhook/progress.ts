/**
 * Which records the request under way has, written before it leaves: after a crash the same records make the same request with the same id, however many more
 * wait by then. It also holds what was acknowledged last, for the queue's own mark may be a second behind; with a checksum of that record, so that the numbers
 * of another queue are not taken for those of this one.
 *
 * One line of fixed length that is written over in place, without a sync: it is for a process that dies. When the machine dies, records may come again under
 * another id of the request; their own ids stay.
 */
import { closeSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'

const FILE = 'request'
const DIGITS = 16
const SUM_DIGITS = 8
const LINE_BYTES = 3 * DIGITS + SUM_DIGITS + 4

export class Progress {
  #fd: number | null
  /** the queue's own mark when the run began: of a queue that is further back the numbers mean something else */
  #from = 0
  #acknowledged = 0
  #last = 0

  /** Throws what opening the file met. */
  constructor(folder: string | null) {
    this.#fd = folder === null ? null : openLine(folder)
    if (this.#fd === null) return
    const line = Buffer.alloc(LINE_BYTES)
    const n = readSync(this.#fd, line, 0, LINE_BYTES, 0)
    const [from = '', acknowledged = '', last = '', sum = ''] = line.toString('latin1', 0, n).trimEnd().split(' ')
    if (sum !== sumOf(`${from} ${acknowledged} ${last}`)) return
    this.#from = Number(from)
    this.#acknowledged = Number(acknowledged)
    this.#last = Number(last)
  }

  /** A run begins, and the queue says that it is acknowledged up to `mark`. Gives the number of the last record that the receiver really has. */
  resume(mark: number): number {
    if (mark < this.#from || mark > this.#acknowledged) this.#acknowledged = mark
    if (mark < this.#from) this.#last = 0
    this.#from = mark
    this.#write()
    return this.#acknowledged
  }

  /** number of the last record of the request that is or was under way, 0: none */
  get last(): number {
    return this.#last
  }

  begin(last: number): void {
    if (last === this.#last) return
    this.#last = last
    this.#write()
  }

  acknowledge(seq: number): void {
    this.#acknowledged = seq
    if (this.#last <= seq) this.#last = 0
    this.#write()
  }

  close(): void {
    const fd = this.#fd
    this.#fd = null
    if (fd !== null) closeSync(fd)
  }

  /** A disk that takes nothing costs no more than the sameness of ids. */
  #write(): void {
    if (this.#fd === null) return
    const text = [this.#from, this.#acknowledged, this.#last].map((seq) => String(seq).padStart(DIGITS, '0')).join(' ')
    try {
      writeSync(this.#fd, `${text} ${sumOf(text)}\n`, 0, 'latin1')
    } catch {
      // as said above
    }
  }
}

function openLine(folder: string): number {
  mkdirSync(folder, { recursive: true, mode: 0o750 })
  const path = join(folder, FILE)
  // made where it is missing; a file opened to append could not be written over
  closeSync(openSync(path, 'a', 0o640))
  return openSync(path, 'r+')
}

function sumOf(text: string): string {
  return crc32(text).toString(16).padStart(SUM_DIGITS, '0')
}
