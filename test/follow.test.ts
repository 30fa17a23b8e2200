/**
 * Followed files on the built program, each case twice as hard as it sounds: what a logger, logrotate or an administrator does to a file while it is read and while
 * it is not. Every line carries a number of its own as its mark, and must be in the output once, with a record id of its own. CONNTRAIL_LONG_TESTS=1 for the large
 * counts.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { cleanUp, type Ended, Program, type Record_, scratch, sleep, start, wholeLines } from './process-harness.js'

const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
vi.setConfig({ testTimeout: 180_000, maxConcurrency: 12 })
// the cases run side by side, and what they have started is theirs until the last has ended
afterAll(cleanUp)

const LF = 10
const SIGTERM = 15
/** Long enough for a busy machine: what is waited for either comes or something is wrong. */
const PATIENCE_MS = 60_000
/** More than a file is known by. */
const HEADER = '# every file of this logger begins so\n'.repeat(40)
const NUMBERED = /"mark":(\d+)/g

/** Every case's own numbers, so that no line of one can pass for another's. */
let marks = 0
let cases = 0

/** What a case's texts stand for: as many event lines with marks of their own. */
function lines(count: number): { readonly marks: number[]; readonly text: string } {
  const own = Array.from({ length: count }, () => ++marks)
  return { marks: own, text: own.map((mark) => lineOf(mark)).join('') }
}

function lineOf(mark: number, more = ''): string {
  return `[1795341600.${String(mark % 1_000_000).padStart(6, '0')}]\t [UPDATE] tcp      6 432000 ESTABLISHED src=10.10.1.2 dst=10.10.2.2 sport=9001 dport=80 src=10.10.2.2 dst=10.10.1.2 sport=80 dport=9001 [ASSURED] mark=${mark}${more} id=3354125443\n`
}

const whiles = ['it runs and cannot look', 'it does not run'] as const
const kilobytes = ['otherwise', 'with the same kilobyte'] as const
const bothWhiles = whiles.flatMap((when) => kilobytes.map((begins) => [begins, when] as const))

interface Settings {
  /** `*.log` */
  readonly path?: string
  readonly poll?: string
  readonly rescan?: string
  readonly rotate_wait?: string
  readonly compressed?: boolean
}

const QUICK: Settings = { poll: '20ms', rescan: '100ms', rotate_wait: '500ms' }

/** One case: a folder with followed files, a state directory and an output file, and the program, run once or again and again. */
class Case {
  readonly #folder: string
  readonly #args: readonly string[]
  #running: Program | null = null
  #read = 0
  #text = ''
  readonly #marks: number[] = []
  readonly #found = new Set<number>()

  private constructor(name: string, args: (folder: string) => readonly string[]) {
    // the names of cases have stars in them; a case that is run again must not find what its first run left
    this.#folder = scratch(`${name.replaceAll('*', '+')} ${++cases}`)
    mkdirSync(join(this.#folder, 'logs'), { recursive: true })
    this.#args = args(this.#folder)
  }

  static configured(name: string, settings: Settings = {}, limits: Record<string, string> = {}): Case {
    return new Case(name, (folder) => {
      const { path = '*.log', ...rest } = settings
      const config = {
        state: join(folder, 'state'),
        inputs: { logs: { type: 'file', path: join(folder, 'logs', path), from: 'start', ...rest } },
        outputs: { all: { type: 'file', path: join(folder, 'out') } },
        emit: ['flow', 'gap', 'reject'],
        ...limits,
      }
      writeFileSync(join(folder, 'conntrail.json'), JSON.stringify(config))
      return ['run', '-c', join(folder, 'conntrail.json')]
    })
  }

  /** All in the command line, at the defaults. */
  static plain(name: string): Case {
    return new Case(name, (folder) => ['run', '-i', join(folder, 'logs', '*.log'), '-o', `file:${join(folder, 'out')}`, '--state', join(folder, 'state')])
  }

  at(name: string): string {
    return join(this.#folder, 'logs', name)
  }

  get program(): Program {
    return this.#running!
  }

  start(): void {
    this.#running = new Program(this.#args, 'ignore', 'ignore')
  }

  opens(name: string): boolean {
    const folder = `/proc/${this.program.pid}/fd`
    return readdirSync(folder).some((fd) => {
      try {
        return readlinkSync(join(folder, fd)) === this.at(name)
      } catch {
        // closed meanwhile
        return false
      }
    })
  }

  /** It neither reads nor writes while `work` goes on: to it all of that happens between two looks. */
  async unseen(work: () => void): Promise<void> {
    this.program.signal('SIGSTOP')
    // the signal is on its way
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${this.program.pid}/status`, 'utf8'))) await sleep(1)
    try {
      work()
    } finally {
      this.program.signal('SIGCONT')
    }
  }

  async meanwhile(when: (typeof whiles)[number], work: () => void): Promise<void> {
    if (when === 'it runs and cannot look') return this.unseen(work)
    await this.stop()
    work()
    this.start()
  }

  /** As an administrator stops it: all that it has read is in its output then. */
  async stop(): Promise<Ended> {
    // it may still be starting
    await this.until(() => catches(this.program.pid, SIGTERM))
    this.program.signal('SIGTERM')
    const ended = await this.program.ended
    expect(ended.status).toBe(0)
    this.#running = null
    return ended
  }

  /** Marks of the records so far, in their order. */
  marks(): number[] {
    this.#readOn()
    return [...this.#marks]
  }

  records(): Record_[] {
    this.#readOn()
    return this.#text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as Record_)
  }

  gaps(): Record_[] {
    return this.records().filter(({ type, cause }) => type === 'gap' && cause !== 'restart')
  }

  async until(what: () => boolean, ms = PATIENCE_MS, why = () => ''): Promise<void> {
    const end = performance.now() + ms
    while (!what()) {
      if (performance.now() > end) throw new Error(`waited in vain${why()}; the output ends in ${this.#text.slice(-1000)}`)
      await sleep(10)
    }
  }

  /** Waits until these have come. */
  async has(wanted: readonly number[], ms?: number): Promise<void> {
    await this.until(
      () => {
        this.#readOn()
        return wanted.every((mark) => this.#found.has(mark))
      },
      ms,
      () => {
        const left = wanted.filter((mark) => !this.#found.has(mark))
        return ` for ${left.length} of ${wanted.length} marks, from ${left[0]} to ${left.at(-1)}; of these ${wanted[0]} was the first`
      },
    )
  }

  /** Nothing more may come for a while; then each mark is there once, each record id is of one record, and every line is whole. */
  async hasOnce(wanted: readonly number[], quietMs = 1500): Promise<Ended> {
    await this.has(wanted)
    await sleep(quietMs)
    const ended = await this.stop()
    expect(this.marks().sort((a, b) => a - b)).toEqual(wanted.toSorted((a, b) => a - b))
    const all = wholeLines(readFileSync(join(this.#folder, 'out'))).map((line) => (JSON.parse(line) as { rid: string }).rid)
    expect(new Set(all).size, 'record ids').toBe(all.length)
    return ended
  }

  /** The output only grows; half of its last line may be there yet. */
  #readOn(): void {
    const path = join(this.#folder, 'out')
    if (!existsSync(path)) return
    if (statSync(path).size <= this.#read) return
    const fresh = readFileSync(path).subarray(this.#read)
    const whole = fresh.subarray(0, fresh.lastIndexOf(LF) + 1)
    this.#read += whole.length
    const text = whole.toString()
    this.#text += text
    for (const [, mark] of text.matchAll(NUMBERED)) {
      this.#marks.push(Number(mark))
      this.#found.add(Number(mark))
    }
  }
}

describe.concurrent('rotation', () => {
  // on its own, for it is about a time, and many programs that start are a load
  test.sequential('T1 renamed and made anew: the late line in the old file and the new one within 2 s, at the defaults', async () => {
    const p = Case.plain('t1')
    const [first, late, anew] = [lines(1), lines(1), lines(1)]
    writeFileSync(p.at('a.log'), '')
    p.start()
    // where nothing is said, what is there at the start is not read
    await p.until(() => p.opens('a.log'))
    appendFileSync(p.at('a.log'), first.text)
    await p.has(first.marks, 2000 * (await slowness()))
    const most = 2000 * (await slowness())
    renameSync(p.at('a.log'), p.at('a.log.1'))
    writeFileSync(p.at('a.log'), anew.text)
    appendFileSync(p.at('a.log.1'), late.text)
    await p.has([...anew.marks, ...late.marks], most)
    await p.hasOnce([...first.marks, ...anew.marks, ...late.marks])
    expect(p.gaps()).toEqual([])
  })

  test.each(['a.log', '*.log*'])('T2 four times with each file written only once, as %s, while it cannot look', async (path) => {
    const p = Case.configured(`t2 ${path}`, { path })
    await rotateFourTimes(p, 'it runs and cannot look')
  })

  test.each(['a.log', '*.log*'])('T2 four times, as %s, while it does not run', async (path) => {
    const p = Case.configured(`t2 stopped ${path}`, { path })
    await rotateFourTimes(p, 'it does not run')
  })

  test('T3 three seconds between the renaming and the new file', async () => {
    const p = Case.configured('t3', { rotate_wait: '1s' })
    const [first, anew] = [lines(3), lines(3)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    renameSync(p.at('a.log'), p.at('a.old'))
    await sleep(3000)
    writeFileSync(p.at('a.log'), anew.text)
    await p.hasOnce([...first.marks, ...anew.marks])
    expect(p.gaps()).toEqual([])
  })

  test('T4 copied and cut after all of it was read', async () => {
    const p = Case.configured('t4')
    const [first, after] = [lines(200), lines(1)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    copyFileSync(p.at('a.log'), p.at('a.1'))
    truncateSync(p.at('a.log'))
    appendFileSync(p.at('a.log'), after.text)
    await p.hasOnce([...first.marks, ...after.marks])
    expect(p.gaps()).toEqual([])
  })

  test.each(['at once', 'after a while', 'while it does not run'])('T5 copied and cut, and begins anew with the same kilobyte, %s', async (when) => {
    const p = Case.configured(`t5 ${when}`)
    const [first, after] = [lines(200), lines(2)]
    writeFileSync(p.at('a.log'), HEADER + first.text)
    p.start()
    await p.has(first.marks)
    const cut = (): void => {
      copyFileSync(p.at('a.log'), p.at('a.1'))
      truncateSync(p.at('a.log'))
    }
    const refill = (): void => appendFileSync(p.at('a.log'), HEADER + after.text)
    if (when === 'after a while') {
      cut()
      await sleep(700)
      refill()
    } else {
      await p.meanwhile(when === 'at once' ? 'it runs and cannot look' : 'it does not run', () => {
        cut()
        refill()
      })
    }
    await p.hasOnce([...first.marks, ...after.marks])
    expect(p.gaps()).toEqual([])
  })

  test.each(bothWhiles)('T6 cut and filled beyond the old place, beginning %s, while %s: told, and read from the beginning', async (begins, when) => {
    const p = Case.configured(`t6 ${begins} ${when}`)
    const header = begins === 'otherwise' ? '' : HEADER
    const [first, after] = [lines(50), lines(100)]
    writeFileSync(p.at('a.log'), header + first.text)
    p.start()
    await p.has(first.marks)
    await p.meanwhile(when, () => writeFileSync(p.at('a.log'), header + after.text))
    await p.hasOnce([...first.marks, ...after.marks])
    expect(p.gaps().map(({ cause }) => cause)).toEqual(['file_rewritten'])
  })

  test.each(whiles)('T7 written anew in place with as many bytes, while %s', async (when) => {
    const p = Case.configured(`t7 ${when}`)
    // numbers of as many digits
    const [old, other] = [100_000_000 + ++marks, 100_000_000 + ++marks]
    writeFileSync(p.at('a.log'), lineOf(old))
    p.start()
    await p.has([old])
    await p.meanwhile(when, () => {
      const fd = openSync(p.at('a.log'), 'r+')
      writeSync(fd, lineOf(other), 0)
      closeSync(fd)
    })
    expect(statSync(p.at('a.log')).size).toBe(lineOf(old).length)
    await p.hasOnce([old, other])
    expect(p.gaps().map(({ cause }) => cause)).toEqual(['file_rewritten'])
  })

  test.each(whiles.flatMap((when) => [0, 500].map((unread) => [unread, when] as const)))('T8 copied and cut with %i lines unread, and the copy fits the glob too, while %s', async (unread, when) => {
    const p = Case.configured(`t8 ${unread} ${when}`, { path: '*.log*' })
    const [first, more, after] = [lines(200), lines(unread), lines(2)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    await p.meanwhile(when, () => {
      appendFileSync(p.at('a.log'), more.text)
      copyFileSync(p.at('a.log'), p.at('a.log.1'))
      truncateSync(p.at('a.log'))
      appendFileSync(p.at('a.log'), after.text)
    })
    await p.hasOnce([...first.marks, ...more.marks, ...after.marks], 4500)
    expect(p.gaps()).toEqual([])
  })

  test('T8 the copy takes its time, and the program looks in the middle of it', async () => {
    // a copy that has not grown for three looks is taken for done: so long this writer may be held up
    const p = Case.configured('t8 slow', { path: '*.log*', ...QUICK, rescan: '400ms' })
    const [first, after] = [lines(2000), lines(2)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    const step = Math.ceil(first.text.length / 10)
    for (let at = 0; at < first.text.length; at += step) {
      appendFileSync(p.at('a.log.1'), first.text.slice(at, at + step))
      await sleep(130)
    }
    truncateSync(p.at('a.log'))
    appendFileSync(p.at('a.log'), after.text)
    await p.hasOnce([...first.marks, ...after.marks], 2500)
    expect(p.gaps()).toEqual([])
  })

  test('T11 compressed while it is read: the rest comes from the removed file, and the compressed one is not read, by the next run neither', async () => {
    const p = Case.configured('t11', { path: 'a.log*', compressed: true })
    const [first, unread, anew, later] = [lines(100), lines(20_000), lines(5), lines(5)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    renameSync(p.at('a.log'), p.at('a.log.1'))
    writeFileSync(p.at('a.log'), anew.text)
    await p.has(anew.marks)
    await p.unseen(() => {
      appendFileSync(p.at('a.log.1'), unread.text)
      execFileSync('gzip', [p.at('a.log.1')])
    })
    expect(existsSync(p.at('a.log.1'))).toBe(false)
    const wanted = [...first.marks, ...anew.marks, ...unread.marks]
    await p.hasOnce(wanted)
    p.start()
    appendFileSync(p.at('a.log'), later.text)
    const { done } = await p.hasOnce([...wanted, ...later.marks], 2500)
    expect(done).toMatchObject({ lines: 5, rejected: 0, ignored: 0 })
    expect(p.gaps()).toEqual([])
  })
})

async function rotateFourTimes(p: Case, when: (typeof whiles)[number]): Promise<void> {
  const all = Array.from({ length: 6 }, () => lines(50))
  writeFileSync(p.at('a.log'), all[0]!.text)
  p.start()
  await p.has(all[0]!.marks)
  await p.meanwhile(when, () => {
    appendFileSync(p.at('a.log'), all[1]!.text)
    for (const { text } of all.slice(2)) {
      rotate(p)
      writeFileSync(p.at('a.log'), text)
    }
  })
  const wanted = all.flatMap(({ marks }) => marks)
  await p.hasOnce(wanted)
  // the oldest first
  expect(p.marks()).toEqual(wanted)
  expect(p.gaps()).toEqual([])
}

/** `a.log.1` becomes `a.log.2` and so on, `a.log` becomes `a.log.1`. */
function rotate(p: Case): void {
  let last = 1
  while (existsSync(p.at(`a.log.${last}`))) last++
  for (let n = last; n > 1; n--) renameSync(p.at(`a.log.${n - 1}`), p.at(`a.log.${n}`))
  renameSync(p.at('a.log'), p.at('a.log.1'))
}

describe.concurrent('inode numbers that are used again', () => {
  test('T9 by another file, while the program runs', async () => {
    const p = Case.configured('t9', QUICK)
    const [first, anew] = [lines(100), lines(1)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    const { ino } = statSync(p.at('a.log'))
    unlinkSync(p.at('a.log'))
    // as long as the program has the file open its number is not free
    await sleep(1500)
    writeWithNumber(ino, p.at('b.log'), anew.text)
    await p.hasOnce([...first.marks, ...anew.marks])
    expect(p.gaps()).toEqual([])
  })

  test('T9 at once, while the program cannot look', async () => {
    const p = Case.configured('t9 at once')
    const [first, anew] = [lines(100), lines(1)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    await p.unseen(() => {
      const { ino } = statSync(p.at('a.log'))
      unlinkSync(p.at('a.log'))
      writeWithNumber(ino, p.at('b.log'), anew.text)
    })
    await p.hasOnce([...first.marks, ...anew.marks])
    expect(p.gaps()).toEqual([])
  })

  test.each(['a.log', 'b.log'])('T10 by a larger file, %s, while the program does not run', async (name) => {
    const p = Case.configured(`t10 ${name}`)
    const [first, other] = [lines(10), lines(300)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.hasOnce(first.marks, 0)
    const { ino } = statSync(p.at('a.log'))
    unlinkSync(p.at('a.log'))
    writeWithNumber(ino, p.at(name), other.text)
    p.start()
    await p.hasOnce([...first.marks, ...other.marks])
    expect(p.gaps()).toEqual([])
  })
})

/** A new file which has this inode number where the file system gives it again: ext4 does so at once, unless someone else in its folder's group is faster. */
function writeWithNumber(ino: number, path: string, text: string): void {
  for (let tries = 0; tries < 20; tries++) {
    writeFileSync(path, text)
    if (statSync(path).ino === ino) return
    unlinkSync(path)
  }
  writeFileSync(path, text)
}

describe.concurrent('unfinished lines', () => {
  test('T12 in two writes, five seconds apart, are one, wherever they are cut', async () => {
    const p = Case.configured('t12')
    const whole = lines(5)
    p.start()
    const pieces = whole.marks.map((mark, i) => {
      const line = lineOf(mark)
      // in its time, its first words, in and before a port, in its mark, before the LF
      return [i, [7, 30, line.indexOf('9001') + 2, line.indexOf('mark=') + 5, line.length - 1][i]!, line] as const
    })
    for (const [i, cut, line] of pieces) writeFileSync(p.at(`${i}.log`), line.slice(0, cut))
    await sleep(5000)
    expect(p.records()).toEqual([])
    for (const [i, cut, line] of pieces) appendFileSync(p.at(`${i}.log`), line.slice(cut))
    const { done } = await p.hasOnce(whole.marks)
    expect(done).toMatchObject({ lines: 5, flows: 5 })
  })

  test.each([0, 3])('T13 with a stop and a new start between, behind %i whole lines', async (before) => {
    const p = Case.configured(`t13 ${before}`)
    const [whole, split] = [lines(before), lines(1)]
    writeFileSync(p.at('a.log'), whole.text + split.text.slice(0, 100))
    p.start()
    await p.until(() => p.opens('a.log'))
    await p.has(whole.marks)
    await sleep(500)
    await p.stop()
    p.start()
    await p.until(() => p.opens('a.log'))
    await sleep(1500)
    expect(p.marks()).toEqual(whole.marks)
    appendFileSync(p.at('a.log'), split.text.slice(100))
    const { done } = await p.hasOnce([...whole.marks, ...split.marks])
    expect(done).toMatchObject({ lines: 1, flows: 1, rejected: 0 })
  })

  test.each(whiles.flatMap((when) => ['a.log', '*.log*'].map((path) => [path, when] as const)))('T14 in a file, as %s, that is rotated away it is the last, while %s', async (path, when) => {
    const p = Case.configured(`t14 ${path} ${when}`, { path, rotate_wait: '1s' })
    const [first, tail, anew, later] = [lines(3), lines(1), lines(3), lines(1)]
    writeFileSync(p.at('a.log'), first.text)
    p.start()
    await p.has(first.marks)
    await p.meanwhile(when, () => {
      appendFileSync(p.at('a.log'), tail.text.slice(0, -1))
      renameSync(p.at('a.log'), p.at('a.log.1'))
      writeFileSync(p.at('a.log'), anew.text)
    })
    const wanted = [...first.marks, ...tail.marks, ...anew.marks]
    await p.hasOnce(wanted)
    p.start()
    appendFileSync(p.at('a.log'), later.text)
    await p.hasOnce([...wanted, ...later.marks])
    expect(p.gaps()).toEqual([])
  })
})

describe.concurrent('what is in the bytes', () => {
  test('T16 a writer that goes on at 124 MB in a file that was cut: the NULs are passed over and counted', async () => {
    const p = Case.configured('t16', QUICK)
    const [first, after, later] = [lines(2), lines(2), lines(1)]
    const at = 124_000_000
    const fd = openSync(p.at('a.log'), 'w')
    writeSync(fd, first.text, at)
    p.start()
    await p.has(first.marks)
    copyFileSync(p.at('a.log'), p.at('a.1'))
    truncateSync(p.at('a.log'))
    const place = at + first.text.length
    writeSync(fd, after.text, place)
    await p.has(after.marks)
    writeSync(fd, later.text, place + after.text.length)
    closeSync(fd)
    const { done, diagnostics } = await p.hasOnce([...first.marks, ...after.marks, ...later.marks])
    expect(done).toMatchObject({ lines: 5, flows: 5, rejected: 0, ignored: 0, gaps: 0 })
    for (const holes of [at, place]) expect(diagnostics.filter(({ msg }) => (msg as string).includes(`${holes} NUL bytes`))).toHaveLength(1)
  })

  test('T17 bytes that are no UTF-8: the rest of the line is kept, as valid UTF-8, and a line that is refused for it is counted', async () => {
    const p = Case.configured('t17', QUICK)
    const whole = lines(2)
    const [a, b] = whole.marks
    writeFileSync(p.at('a.log'), Buffer.from(`${lineOf(a!, ' secctx=caf\xe9')}udp      17 caf\xe9 ok\n${lineOf(b!, ' secctx=\xff\xc3\xa9\xed\xa0\x80')}`, 'latin1'))
    p.start()
    const { done } = await p.hasOnce(whole.marks)
    expect(done).toMatchObject({ lines: 3, flows: 2, rejected: 1 })
    const records = p.records()
    expect(records.filter(({ type }) => type === 'flow').map(({ secctx, id }) => [secctx, id])).toEqual([
      ['caf\uFFFD', 3354125443],
      ['\uFFFDé\uFFFD\uFFFD\uFFFD', 3354125443],
    ])
    expect(records.find(({ type }) => type === 'reject')!['text']).toBe('udp      17 caf\uFFFD ok')
  })

  test('T18 CRLF, also in two writes, ends a line; a CR alone is a byte of it', async () => {
    const p = Case.configured('t18', QUICK)
    const whole = lines(4)
    const [a, b, c, d] = whole.marks.map((mark) => lineOf(mark).slice(0, -1))
    p.start()
    writeFileSync(p.at('a.log'), `${a}\r\n${lineOf(whole.marks[1]!, ' secctx=b\rc')}udp      17 b\rc\r\nudp      17 d\r`)
    await p.has([whole.marks[0]!])
    await sleep(500)
    appendFileSync(p.at('a.log'), `\n${c}\r`)
    await sleep(500)
    appendFileSync(p.at('a.log'), `\n${d}\r\n`)
    expect(b).not.toContain('\r')
    const { done } = await p.hasOnce(whole.marks)
    const records = p.records()
    expect(records.filter(({ type }) => type === 'flow').map(({ secctx, id }) => [secctx, id])).toEqual([undefined, 'b\rc', undefined, undefined].map((secctx) => [secctx, 3354125443]))
    expect(records.filter(({ type }) => type === 'reject').map(({ text }) => text)).toEqual(['udp      17 b\rc', 'udp      17 d'])
    expect(done).toMatchObject({ lines: 6, flows: 4, rejected: 2, ignored: 0 })
  })
})

describe('much at once', () => {
  test('T2 five times in a second while a writer writes, who goes on in the old file for a moment', async () => {
    const linesAMillisecond = isLong ? 50 : 5
    const p = Case.configured('t2', { path: 'a.log' })
    const wanted: number[] = []
    p.start()
    let fd = openSync(p.at('a.log'), 'a')
    // what was rotated away before it began has no name that it knows
    await p.until(() => p.opens('a.log'))
    const write = (ms: number): void => {
      const piece = lines(ms * linesAMillisecond)
      wanted.push(...piece.marks)
      writeSync(fd, piece.text)
    }
    const from = performance.now()
    let written = 0
    /** As many lines as the time that has passed asks for. */
    const writeUntil = async (ms: number): Promise<void> => {
      for (; written < ms; written += 10) {
        write(10)
        await sleep(Math.max(0, from + written - performance.now()))
      }
    }
    await writeUntil(500)
    for (let rotation = 1; rotation <= 5; rotation++) {
      rotate(p)
      const next = openSync(p.at('a.log'), 'a')
      await writeUntil(written + 30)
      closeSync(fd)
      fd = next
      await writeUntil(500 + rotation * 200)
    }
    closeSync(fd)
    await p.hasOnce(wanted, 2000)
    expect(p.gaps()).toEqual([])
  })

  test('T15 a line of 64 MiB is one reject with its beginning and one gap, costs no memory, and the next one is read', async () => {
    /** A case of one line of so many MiB between two others. */
    async function between(mebibytes: number): Promise<{ p: Case; marks: number[]; beginning: string }> {
      const p = Case.configured(`t15 ${mebibytes}`, {}, { max_line: '1MiB' })
      const [before, after] = [lines(1), lines(1)]
      const beginning = after.text.slice(0, -1).padEnd(1024, 'é')
      const piece = Buffer.alloc(1 << 20, 'x')
      const fd = openSync(p.at('a.log'), 'w')
      writeSync(fd, before.text + beginning)
      for (let i = 0; i < mebibytes; i++) writeSync(fd, piece)
      writeSync(fd, `\n${after.text}`)
      closeSync(fd)
      p.start()
      await p.has(after.marks)
      return { p, marks: [...before.marks, ...after.marks], beginning }
    }
    const [short, { p, marks, beginning }] = [await between(2), await between(64)]
    expect(p.program.memory('VmHWM') - short.p.program.memory('VmHWM')).toBeLessThan(64 / 2)
    await short.p.hasOnce(short.marks)
    const { done } = await p.hasOnce(marks)
    const rejects = p.records().filter(({ type }) => type === 'reject')
    expect(rejects).toMatchObject([{ truncated: true, bytes: (64 << 20) + Buffer.byteLength(beginning), line: 2 }])
    // 1,024 bytes may end in the middle of a character
    expect(beginning.startsWith((rejects[0]!['text'] as string).replace(/\uFFFD$/, ''))).toBe(true)
    expect(Buffer.byteLength(rejects[0]!['text'])).toBeGreaterThan(1000)
    expect(p.gaps()).toMatchObject([{ cause: 'line_too_long', count: 1 }])
    expect(done).toMatchObject({ lines: 3, flows: 2, rejected: 1, gaps: 1 })
  })
})

/** How many times as long as alone a program takes here now: 1 unless the machine does much else. Node.js with nothing to do has started and ended within 100 ms. */
async function slowness(): Promise<number> {
  const from = performance.now()
  await once(start(process.execPath, ['-e', '0'], 'ignore'), 'close')
  return Math.max(1, (performance.now() - from) / 100)
}

function catches(pid: number, signal: number): boolean {
  const [, caught] = /^SigCgt:\t([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return (BigInt(`0x${caught}`) >> BigInt(signal - 1)) % 2n === 1n
}
