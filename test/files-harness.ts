/** Drives followed files as the loop does: asks each input for its pieces, makes lines of them, names each by prefix and offset, and takes positions between. */
import { appendFileSync } from 'node:fs'
import { type FilesOptions, filesFeed } from '../src/inputs/files.js'
import { type Gap } from '../src/event.js'
import { type Feed, type Input, NOTICES_ONLY } from '../src/stage.js'

export interface Line {
  readonly text: string
  readonly rid: string
}

interface Reader {
  readonly input: Input
  carry: Buffer
  offset: number
}

export const QUICK = { pollMs: 5, idleMs: 20, rescanMs: 20, rotateWaitMs: 100, exclude: [], hints: false } as const

export class Following {
  readonly lines: Line[] = []
  readonly gaps: Gap[] = []
  readonly diagnostics: string[] = []
  readonly #feed: Feed
  readonly #readers = new Set<Reader>()
  readonly #runs: Promise<void>[] = []
  /** rejects when opening does */
  readonly opened: Promise<void>
  /** resolves when the first files are handed over */
  isPaused = false
  #resume: (() => void)[] = []
  /** how many inputs were handed over */
  inputs = 0

  constructor(options: Partial<FilesOptions> & { readonly patterns: readonly string[] }) {
    this.#feed = filesFeed({ name: 'logs', from: 'start', once: false, saved: null, ...QUICK, ...options })
    this.opened = this.#feed.open((input) => {
      this.inputs++
      this.#runs.push(this.#follow(input))
    })
    this.opened.catch(() => {})
  }

  /** What it had read in its last life is in its positions only then. */
  get hasLooked(): boolean {
    return this.#feed.hasLooked === true
  }

  get texts(): string[] {
    return this.lines.map(({ text }) => text)
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    for (const resume of this.#resume.splice(0)) resume()
  }

  /** What a checkpoint would hold now. */
  positions(): unknown[] {
    const positions = [...this.#readers].map(({ input, offset }) => input.position(offset)).filter((position) => position !== null)
    return JSON.parse(JSON.stringify(positions)) as unknown[]
  }

  /** As SIGTERM: everything read is worked through. Gives the checkpoint. */
  async stop(): Promise<unknown[]> {
    this.resume()
    this.#feed.stop()
    await this.opened
    await Promise.all(this.#runs)
    return this.positions()
  }

  /** As SIGKILL: what a checkpoint held just now. */
  async kill(): Promise<unknown[]> {
    const saved = this.positions()
    const { length } = this.lines
    this.resume()
    this.#feed.abort()
    await this.opened
    await Promise.all(this.#runs)
    this.lines.length = length
    return saved
  }

  async done(): Promise<void> {
    await this.opened
    await Promise.all(this.#runs)
  }

  async until(what: () => boolean, ms = 10_000): Promise<void> {
    const end = performance.now() + ms
    while (!what()) {
      if (performance.now() > end) throw new Error(`waited in vain; there are ${this.lines.length} lines: ${JSON.stringify(this.texts.slice(-20).map((text) => text.slice(0, 40)))}; ${JSON.stringify(this.gaps)} ${this.diagnostics.join('; ')}`)
      await new Promise((resolve) => setTimeout(resolve, 3))
    }
  }

  /** Until so many lines are there, and then a while longer, for what should not come. */
  async lineCount(count: number, quietMs = 80): Promise<void> {
    await this.until(() => this.lines.length >= count)
    await sleep(quietMs)
  }

  async #follow(input: Input): Promise<void> {
    const reader: Reader = { input, carry: Buffer.alloc(0), offset: input.offset }
    this.#readers.add(reader)
    for (;;) {
      if (this.isPaused) await new Promise<void>((resolve) => this.#resume.push(resolve))
      const n = await input.next()
      for (const notice of input.notices) {
        if (notice.gap !== undefined) this.gaps.push(notice.gap)
        if (notice.diagnostic !== undefined) this.diagnostics.push(notice.diagnostic)
      }
      if (n === NOTICES_ONLY) continue
      if (n === 0) break
      reader.carry = Buffer.concat([reader.carry, input.chunk])
      for (let lf = reader.carry.indexOf(10); lf >= 0; lf = reader.carry.indexOf(10)) {
        this.#line(reader, lf)
        reader.carry = reader.carry.subarray(lf + 1)
        reader.offset += lf + 1
      }
    }
    if (reader.carry.length > 0 && input.isCutOff !== true) {
      this.#line(reader, reader.carry.length)
      reader.offset += reader.carry.length
    }
    if (input.position(reader.offset) === null) this.#readers.delete(reader)
    input.close()
  }

  #line(reader: Reader, to: number): void {
    this.lines.push({ text: reader.carry.subarray(0, to).toString('latin1'), rid: `${reader.input.ridPrefix}:${reader.offset}` })
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

export function append(path: string | Buffer, ...lines: readonly string[]): void {
  appendFileSync(path, lines.map((line) => `${line}\n`).join(''))
}
