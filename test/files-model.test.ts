/**
 * Followed files against a model: whatever sequence of writes, rotations, copies, cuts, removals and new starts, each line that was written comes exactly once. The
 * model is a list of what was written; only what a follower cannot know (made and removed between two looks, cut unread without a copy) is not asked for.
 */
import { appendFileSync, copyFileSync, existsSync, mkdtempSync, renameSync, rmSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Following, sleep } from './files-harness.js'

const RUNS = process.env['CONNTRAIL_LONG_TESTS'] === undefined ? 12 : 400
const KEPT = 4

type Operation =
  | { readonly kind: 'append' | 'late'; readonly file: number; readonly lines: number; readonly width: number }
  | { readonly kind: 'partial' | 'rotate' | 'copytruncate' | 'rewrite' | 'remove'; readonly file: number }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'settle' | 'pause' | 'resume' }
  | { readonly kind: 'stop' | 'kill' }
  | { readonly kind: 'start' }

const file = fc.integer({ min: 0, max: 1 })
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('append' as const), file, lines: fc.integer({ min: 1, max: 40 }), width: fc.constantFrom(0, 30, 3000) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('late' as const), file, lines: fc.integer({ min: 1, max: 3 }), width: fc.constantFrom(0, 30) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('partial' as const, 'rotate' as const, 'rotate' as const, 'copytruncate' as const, 'rewrite' as const, 'remove' as const), file }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 60 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('settle' as const, 'pause' as const, 'resume' as const, 'stop' as const, 'kill' as const, 'start' as const) }) },
)

class Model {
  readonly dir: string
  readonly #copiesFit: boolean
  readonly #written: string[] = []
  readonly #partial = ['', '']
  /** rotated just now: who writes still has it open */
  readonly #late = [false, false]
  /** it, or what was at its path before, was there when the follower had read all: so what comes after it is found wherever it goes */
  readonly #known = [false, false]
  /** removed with something unread, which only this run of the follower can read */
  #isOwed = false
  #rewrites = 0
  #number = 0
  #following: Following | null = null
  #saved: unknown[] | null = null
  readonly #before: Following[] = []

  constructor(base: string, copiesFit: boolean) {
    this.dir = mkdtempSync(join(base, 'conntrail-model-'))
    this.#copiesFit = copiesFit
  }

  async apply(one: Operation): Promise<void> {
    const isLate = one.kind === 'late'
    if (!isLate) this.#late.fill(false)
    switch (one.kind) {
      case 'append':
        return this.#append(this.#path(one.file), one.file, one.lines, one.width)
      case 'late':
        if (this.#late[one.file] && (this.#copiesFit || this.#following !== null)) this.#append(`${this.#path(one.file)}.1`, -1, one.lines, one.width)
        return
      case 'partial':
        this.#partial[one.file] += `part ${this.#number++} `
        return appendFileSync(this.#path(one.file), this.#partial[one.file]!.slice(-`part ${this.#number - 1} `.length))
      case 'rotate':
        return this.#rotate(one.file)
      case 'copytruncate':
        return this.#copytruncate(one.file)
      case 'rewrite':
        return this.#rewrite(one.file)
      case 'remove':
        return this.#remove(one.file)
      case 'wait':
        return sleep(one.ms)
      case 'settle':
        return this.#settle()
      case 'pause':
        return this.#following?.pause()
      case 'resume':
        return this.#following?.resume()
      case 'stop':
        return this.#halt(async (following) => following.stop())
      case 'kill':
        return this.#halt(async (following) => following.kill())
      case 'start':
        return this.#start()
    }
  }

  async check(): Promise<void> {
    await this.#settle()
    await sleep(60)
    const lines = this.#lines()
    const times = new Map<string, number>()
    for (const { text } of lines) times.set(text, (times.get(text) ?? 0) + 1)
    expect([...times].filter(([text, count]) => count > 1 || !this.#written.includes(text)).map(([text]) => text.slice(0, 40))).toEqual([])
    expect(this.#written.filter((text) => !times.has(text)).map((text) => text.slice(0, 40))).toEqual([])
    expect(new Set(lines.map(({ rid }) => rid)).size).toBe(lines.length)
    expect(this.#all().flatMap(({ gaps }) => gaps).filter(({ cause }) => cause !== 'file_rewritten')).toEqual([])
    expect(this.#all().flatMap(({ gaps }) => gaps).length).toBeLessThanOrEqual(this.#rewrites)
    expect(this.#all().flatMap(({ diagnostics }) => diagnostics).filter((text) => !text.endsWith(': nothing is there yet; it is waited for'))).toEqual([])
  }

  async end(): Promise<void> {
    await this.#following?.stop()
    rmSync(this.dir, { recursive: true, force: true })
  }

  #path(n: number): string {
    return join(this.dir, `${'ab'[n]}.log`)
  }

  #append(path: string, n: number, lines: number, width: number): void {
    let text = ''
    for (let i = 0; i < lines; i++) {
      const begun = n < 0 ? '' : this.#partial[n]!
      const line = `line ${this.#number++} ${'.'.repeat(width)}`
      this.#written.push(`${begun}${line}`)
      text += `${line}\n`
      if (n >= 0) this.#partial[n] = ''
    }
    appendFileSync(path, text)
  }

  /** What is unfinished in a file that goes away is its last line. */
  #closePartial(n: number): void {
    if (this.#partial[n] !== '') this.#written.push(this.#partial[n]!)
    this.#partial[n] = ''
  }

  async #rotate(n: number): Promise<void> {
    const path = this.#path(n)
    if (!existsSync(path)) return
    if (this.#partial[n] !== '' && this.#copiesFit) this.#append(path, n, 1, 0)
    if (!this.#copiesFit && !this.#known[n]) await this.#settle()
    if (existsSync(`${path}.${KEPT}`)) {
      await this.#settle()
      unlinkSync(`${path}.${KEPT}`)
    }
    for (let i = KEPT - 1; i >= 1; i--) if (existsSync(`${path}.${i}`)) renameSync(`${path}.${i}`, `${path}.${i + 1}`)
    renameSync(path, `${path}.1`)
    writeFileSync(path, '')
    this.#late[n] = this.#partial[n] === ''
    this.#closePartial(n)
  }

  async #copytruncate(n: number): Promise<void> {
    const path = this.#path(n)
    if (!existsSync(path)) return
    if (this.#partial[n] !== '') this.#append(path, n, 1, 0)
    await this.#settle()
    if (this.#copiesFit) this.#append(path, n, 3, 0)
    if (existsSync(`${path}.${KEPT}`)) unlinkSync(`${path}.${KEPT}`)
    for (let i = KEPT - 1; i >= 1; i--) if (existsSync(`${path}.${i}`)) renameSync(`${path}.${i}`, `${path}.${i + 1}`)
    copyFileSync(path, `${path}.1`)
    truncateSync(path)
    // one, when it is filled beyond the old place before anyone looks
    this.#rewrites++
  }

  async #rewrite(n: number): Promise<void> {
    const path = this.#path(n)
    if (!existsSync(path)) return
    if (this.#partial[n] !== '') this.#append(path, n, 1, 0)
    await this.#settle()
    this.#rewrites++
    writeFileSync(path, '')
    this.#append(path, n, 20, 3000)
  }

  async #remove(n: number): Promise<void> {
    const path = this.#path(n)
    if (!existsSync(path)) return
    if (this.#partial[n] !== '') this.#append(path, n, 1, 0)
    await this.#settle()
    await sleep(60)
    // it is open, so what comes before its end is read
    this.#append(path, n, 5, 30)
    unlinkSync(path)
    this.#known[n] = false
    this.#isOwed = true
  }

  async #halt(how: (following: Following) => Promise<unknown[]>): Promise<void> {
    if (this.#following === null) return
    if (this.#isOwed) await this.#settle()
    // before it has looked, the checkpoint of the run before holds
    const { hasLooked } = this.#following
    const saved = await how(this.#following)
    if (hasLooked) this.#saved = saved
    this.#before.push(this.#following)
    this.#following = null
  }

  #start(): void {
    this.#following ??= new Following({ patterns: [join(this.dir, this.#copiesFit ? '*.log*' : '*.log')], saved: this.#saved, rotateWaitMs: 200 })
  }

  async #settle(): Promise<void> {
    this.#start()
    this.#following!.resume()
    await this.#following!.until(() => this.#lines().length >= this.#written.length)
    // what has nothing but the beginning of a line in it may not have been found yet
    await this.#following!.until(() => [0, 1].every((n) => this.#isFound(this.#path(n))))
    await sleep(30)
    for (const n of [0, 1]) this.#known[n] = existsSync(this.#path(n))
    this.#isOwed = false
  }

  #isFound(path: string): boolean {
    const stat = statSync(path, { throwIfNoEntry: false })
    return stat === undefined || stat.size === 0 || this.#following!.positions().some((position) => (position as { ino: string }).ino === String(stat.ino))
  }

  #all(): Following[] {
    return this.#following === null ? this.#before : [...this.#before, this.#following]
  }

  #lines(): Following['lines'] {
    return this.#all().flatMap(({ lines }) => lines)
  }
}

describe.each([
  ['a disk', tmpdir()],
  ['memory', '/dev/shm'],
])('each line exactly once, on %s', (_, base) => {
  test.each([
    ['copies and rotated files fit the pattern', true],
    ['they do not', false],
  ])(
    '%s',
    async (_, copiesFit) => {
      await fc.assert(
        fc.asyncProperty(fc.array(operation, { minLength: 3, maxLength: 25 }), async (operations) => {
          const model = new Model(base, copiesFit)
          try {
            await model.apply({ kind: 'start' })
            for (const one of operations) await model.apply(one)
            await model.check()
          } finally {
            await model.end()
          }
        }),
        { numRuns: RUNS, interruptAfterTimeLimit: 3_000_000, endOnFailure: true },
      )
    },
    3_600_000,
  )
})
