/**
 * Followed files, by what may happen to a file while it is read and while it is not. Each line must come once; what cannot come must be told.
 */
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { append, Following, sleep } from './files-harness.js'

let dir = ''
const started: Following[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'conntrail-files-'))
})

afterEach(async () => {
  for (const one of started.splice(0)) await one.stop().catch(() => {})
  rmSync(dir, { recursive: true, force: true })
})

const at = (name: string): string => join(dir, name)

/** `dir/*.log`, unless said otherwise. */
function follow(options: Partial<ConstructorParameters<typeof Following>[0]> = {}): Following {
  const one = new Following({ patterns: [at('*.log')], ...options })
  started.push(one)
  return one
}

const numbered = (count: number, name = 'line'): string[] => Array.from({ length: count }, (_, i) => `${name} ${i} ${'.'.repeat(i % 50)}`)

function descriptorsOn(part: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes(part)
    } catch {
      return false
    }
  }).length
}

describe('where files begin', () => {
  test('at the end when they are there at the start, at the beginning when they appear later', async () => {
    append(at('a.log'), 'old')
    const p = follow({ from: 'end' })
    await p.until(() => p.inputs === 1)
    append(at('a.log'), 'new')
    append(at('b.log'), 'b 1', 'b 2')
    await p.lineCount(3)
    expect(p.texts.sort()).toEqual(['b 1', 'b 2', 'new'])
    expect(p.lines.find(({ text }) => text === 'new')!.rid).toMatch(/^[0-9a-f]{12}\.0:4$/)
  })

  test('an unfinished line at the end belongs to what comes', async () => {
    appendFileSync(at('a.log'), 'old\nunfin')
    const p = follow({ from: 'end' })
    await p.until(() => p.inputs === 1)
    append(at('a.log'), 'ished')
    await p.lineCount(1)
    expect(p.texts).toEqual(['unfinished'])
  })

  test('with once each is read from its beginning to its end, and the feed ends', async () => {
    append(at('a.log'), ...numbered(20_000, 'a'))
    append(at('b.log'), 'b')
    appendFileSync(at('b.log'), 'no end')
    const p = follow({ from: 'end', once: true })
    await p.done()
    expect(p.texts.filter((text) => text.startsWith('a'))).toEqual(numbered(20_000, 'a'))
    expect(p.texts.filter((text) => !text.startsWith('a'))).toEqual(['b', 'no end'])
    expect(p.positions()).toEqual([])
  })

  test('with once, where nothing is there is nothing to wait for', async () => {
    await expect(follow({ once: true }).opened).rejects.toMatchObject({ kind: 'missing' })
    await expect(follow({ once: true, patterns: [at('none.log')] }).opened).rejects.toMatchObject({ kind: 'missing', message: expect.stringContaining('none.log') })
  })

  test('without once it is waited for, folders included', async () => {
    const p = follow({ patterns: [at('later/*/x.log')] })
    await sleep(50)
    mkdirSync(at('later/deep'), { recursive: true })
    append(at('later/deep/x.log'), 'here')
    await p.lineCount(1)
    expect(p.texts).toEqual(['here'])
  })

  test('what is excluded is not read; a pattern that is none is refused', async () => {
    append(at('a.log'), 'a')
    append(at('b.log'), 'b')
    const p = follow({ exclude: ['b.*'] })
    await p.lineCount(1)
    expect(p.texts).toEqual(['a'])
    await expect(follow({ patterns: [''] }).opened).rejects.toMatchObject({ kind: 'broken' })
  })
})

describe('rotation', () => {
  test('T1 renamed and made anew, with a late line in the old one', async () => {
    append(at('a.log'), 'first')
    const p = follow()
    await p.lineCount(1, 0)
    renameSync(at('a.log'), at('a.log.1'))
    append(at('a.log'), 'new')
    append(at('a.log.1'), 'late')
    await p.lineCount(3)
    expect(p.texts.toSorted()).toEqual(['first', 'late', 'new'])
    expect(p.gaps).toEqual([])
  })

  test('T2 five times within one scan, the names outside the pattern', async () => {
    append(at('a.log'), 'start')
    const p = follow({ rescanMs: 300 })
    await p.lineCount(1, 0)
    const wanted = ['start']
    for (let rotation = 0; rotation < 5; rotation++) {
      const lines = numbered(500, `of ${rotation}`)
      wanted.push(...lines)
      append(at('a.log'), ...lines)
      for (let n = rotation; n >= 1; n--) renameSync(at(`a.log.${n}`), at(`a.log.${n + 1}`))
      renameSync(at('a.log'), at('a.log.1'))
      writeFileSync(at('a.log'), '')
      await sleep(5)
    }
    append(at('a.log'), 'last')
    wanted.push('last')
    await p.lineCount(wanted.length)
    expect(p.texts).toEqual(wanted)
  })

  test('T3 some time passes before the new one is made', async () => {
    append(at('a.log'), 'one')
    const p = follow()
    await p.lineCount(1, 0)
    renameSync(at('a.log'), at('a.log.1'))
    await sleep(250)
    append(at('a.log'), 'two')
    await p.lineCount(2)
    expect(p.texts).toEqual(['one', 'two'])
  })

  describe('at a path that has long been empty two come and go between two looks', () => {
    const twice = (): void => {
      for (const text of ['two', 'three']) {
        for (let n = 3; n >= 1; n--) if (existsSync(at(`a.log.${n}`))) renameSync(at(`a.log.${n}`), at(`a.log.${n + 1}`))
        append(at('a.log'), text)
        renameSync(at('a.log'), at('a.log.1'))
      }
    }

    test.each(['a.log', '*.log'])('after one that was moved away, for %s', async (pattern) => {
      append(at('a.log'), 'one')
      const p = follow({ patterns: [at(pattern)] })
      await p.lineCount(1, 0)
      renameSync(at('a.log'), at('a.log.1'))
      await p.until(() => p.inputs === 2)
      await sleep(100)
      twice()
      await p.lineCount(3)
      append(at('a.log'), 'four')
      await p.lineCount(4)
      expect(p.texts).toEqual(['one', 'two', 'three', 'four'])
      expect(p.gaps).toEqual([])
    })

    test('where there never was one, nothing of what was there before', async () => {
      append(at('a.log.2'), 'old')
      const p = follow({ patterns: [at('a.log')] })
      await sleep(150)
      twice()
      append(at('a.log'), 'four')
      await p.lineCount(3)
      expect(p.texts).toEqual(['two', 'three', 'four'])
    })

    test('while nobody looks', async () => {
      append(at('a.log'), 'one')
      const p = follow()
      await p.lineCount(1, 0)
      renameSync(at('a.log'), at('a.log.1'))
      await p.until(() => p.inputs === 2)
      const saved = await p.kill()
      twice()
      const q = follow({ saved })
      await q.lineCount(2)
      expect(q.texts).toEqual(['two', 'three'])
    })

    test('the one before was removed', async () => {
      append(at('a.log'), 'one')
      const p = follow()
      await p.lineCount(1, 0)
      unlinkSync(at('a.log'))
      await p.until(() => p.positions().length === 0)
      await sleep(60)
      twice()
      await p.lineCount(3)
      expect(p.texts).toEqual(['one', 'two', 'three'])
    })
  })

  test('T4 T5 copied and cut when all was read: nothing of the copy, no gap', async () => {
    append(at('a.log'), ...numbered(100))
    const p = follow()
    await p.lineCount(100, 0)
    copyFileSync(at('a.log'), at('a.1'))
    truncateSync(at('a.log'))
    append(at('a.log'), ...numbered(60))
    await p.lineCount(160)
    expect(p.texts).toEqual([...numbered(100), ...numbered(60)])
    expect(p.lines.at(-1)!.rid).toContain('.1:')
    expect(p.gaps).toEqual([])
  })

  test('T6 cut and filled beyond the old place between two looks', async () => {
    append(at('a.log'), ...numbered(300, 'old'))
    const p = follow()
    await p.lineCount(300, 0)
    writeFileSync(at('a.log'), numbered(600, 'new').map((line) => `${line}\n`).join(''))
    await p.lineCount(900)
    expect(p.texts.slice(300)).toEqual(numbered(600, 'new'))
    expect(p.gaps).toMatchObject([{ cause: 'file_rewritten', atLeast: 1 }])
  })

  test('T7 written anew in place, as long as before', async () => {
    append(at('a.log'), 'a'.repeat(49), 'b'.repeat(49))
    const p = follow()
    await p.lineCount(2, 60)
    const fd = openSync(at('a.log'), 'r+')
    writeSync(fd, `${'c'.repeat(49)}\n${'d'.repeat(49)}\n`, 0)
    closeSync(fd)
    await p.lineCount(4)
    expect(p.texts.slice(2)).toEqual(['c'.repeat(49), 'd'.repeat(49)])
    expect(p.gaps).toMatchObject([{ cause: 'file_rewritten' }])
  })

  test.each([
    ['all was read before', 0, 0],
    ['some of it was not', 500, 0],
    ['more came between copy and cut', 0, 3],
  ])('T8 the copy fits the pattern too: %s', async (_, unread, between) => {
    append(at('a.log'), ...numbered(400))
    const p = follow({ patterns: [at('*.log*')] })
    await p.lineCount(400, 0)
    if (unread > 0) p.pause()
    append(at('a.log'), ...numbered(unread, 'unread'))
    if (unread > 0) await sleep(60)
    copyFileSync(at('a.log'), at('a.log.1'))
    append(at('a.log'), ...numbered(between, 'between'))
    if (between > 0) await p.lineCount(400 + between, 0)
    truncateSync(at('a.log'))
    append(at('a.log'), 'x')
    await sleep(40)
    p.resume()
    await p.lineCount(401 + unread + between)
    append(at('a.log.1'), 'written to the copy')
    await p.lineCount(402 + unread + between)
    expect(p.texts.toSorted()).toEqual([...numbered(400), ...numbered(unread, 'unread'), ...numbered(between, 'between'), 'x', 'written to the copy'].sort())
    expect(p.gaps).toEqual([])
  })

  test('T9 the inode is used again at once', async () => {
    append(at('a.log'), 'a')
    const p = follow({ maxOpen: 2 })
    await p.lineCount(1, 0)
    unlinkSync(at('a.log'))
    append(at('b.log'), 'n')
    await p.lineCount(2)
    expect(p.texts).toEqual(['a', 'n'])
  })

  test('T11 compressed while it is read: what is left comes from the open file, nothing from the compressed one', async () => {
    append(at('a.log.1'), ...numbered(100))
    const p = follow({ patterns: [at('a.log*')] })
    await p.lineCount(100, 0)
    p.pause()
    append(at('a.log.1'), ...numbered(5000, 'tail'))
    await sleep(40)
    execFileSync('gzip', [at('a.log.1')])
    await sleep(60)
    p.resume()
    await p.lineCount(5100)
    expect(p.texts).toEqual([...numbered(100), ...numbered(5000, 'tail')])
    expect(p.gaps).toEqual([])
  })

  test('T14 an unfinished line in a file that is rotated away is its last', async () => {
    append(at('a.log'), 'whole')
    const p = follow()
    await p.lineCount(1, 0)
    appendFileSync(at('a.log'), 'tail-no-nl')
    renameSync(at('a.log'), at('a.log.1'))
    append(at('a.log'), 'new')
    await p.lineCount(3)
    expect(p.texts.toSorted()).toEqual(['new', 'tail-no-nl', 'whole'])
  })

  test('T7 written anew in place, as long as before and with the same end, and rotated away before anyone has looked', async () => {
    const text = (n: number): string[] => [`line ${n} begins otherwise`, 'x'.repeat(3000)]
    append(at('a.log'), ...text(1))
    const p = follow()
    await p.lineCount(2)
    writeFileSync(at('a.log'), '')
    append(at('a.log'), ...text(2))
    renameSync(at('a.log'), at('a.old'))
    append(at('a.log'), 'new')
    await p.lineCount(5)
    expect(p.texts.toSorted()).toEqual([...text(1), ...text(2), 'new'].toSorted())
    expect(p.gaps.map(({ cause }) => cause)).toEqual(['file_rewritten'])
  })

  test('T20 a link that is turned: the rest of the old one, then the new one', async () => {
    append(at('t1'), 'one')
    append(at('t2'), 'two')
    symlinkSync('t1', at('a.log'))
    const p = follow()
    await p.lineCount(1, 0)
    append(at('t1'), 'rest')
    symlinkSync('t2', at('next'))
    renameSync(at('next'), at('a.log'))
    await p.lineCount(3)
    expect(p.texts).toEqual(['one', 'rest', 'two'])
  })

  test('T21 removed with much unread: all of it comes, then the descriptor is closed', async () => {
    append(at('a.log'), 'first')
    const p = follow()
    await p.lineCount(1, 0)
    p.pause()
    const lines = numbered(100_000)
    append(at('a.log'), ...lines)
    await sleep(40)
    unlinkSync(at('a.log'))
    await sleep(200)
    p.resume()
    await p.lineCount(100_001)
    expect(p.texts.slice(1)).toEqual(lines)
    await p.until(() => descriptorsOn(dir) === 0)
    expect(p.positions()).toEqual([])
  })

  test('T22 removed files may hold so much of the disk and no more: what is given up is counted', async () => {
    append(at('a.log'), 'first')
    const p = follow({ maxDeletedBytes: 50_000 })
    await p.lineCount(1, 0)
    p.pause()
    append(at('a.log'), ...numbered(10_000))
    await sleep(60)
    unlinkSync(at('a.log'))
    await p.until(() => descriptorsOn(dir) === 0)
    p.resume()
    await p.until(() => p.gaps.length > 0)
    const got = p.lines.length - 1
    expect(p.gaps).toMatchObject([{ cause: 'file_vanished', atLeast: -1, reason: expect.stringContaining('a.log was removed and given up') }])
    expect(p.gaps[0]!.count + got).toBe(10_000)
  })
})

describe('lines', () => {
  test('T12 in two writes are one', async () => {
    appendFileSync(at('a.log'), 'abc')
    const p = follow()
    await p.until(() => p.inputs === 1)
    await sleep(60)
    append(at('a.log'), 'def')
    await p.lineCount(1)
    expect(p.texts).toEqual(['abcdef'])
  })

  test('T13 and when the program was stopped and started between', async () => {
    appendFileSync(at('a.log'), 'whole\nabc')
    const p = follow()
    await p.lineCount(1)
    const saved = await p.stop()
    expect(p.texts).toEqual(['whole'])
    const q = follow({ saved })
    append(at('a.log'), 'def')
    await q.lineCount(1)
    expect(q.texts).toEqual(['abcdef'])
    expect(q.lines[0]!.rid).toBe(p.lines[0]!.rid.replace(/:0$/, ':6'))
  })

  test('an unfinished line is one after a time, when that is wanted', async () => {
    appendFileSync(at('a.log'), 'prompt> ')
    const p = follow({ partialLineMs: 30 })
    await p.lineCount(1)
    append(at('a.log'), 'answer')
    await p.lineCount(2)
    expect(p.texts).toEqual(['prompt> ', 'answer'])
    expect(p.lines[1]!.rid).toMatch(/\.0:8$/)
  })

  test('T16 a writer that goes on at its old offset in a file that was cut: the NULs are passed over', async () => {
    const fd = openSync(at('a.log'), 'w')
    const text = numbered(3000).map((line) => `${line}\n`).join('')
    writeSync(fd, text, 0)
    const p = follow()
    await p.lineCount(3000, 0)
    copyFileSync(at('a.log'), at('a.1'))
    ftruncateSync(fd)
    const offset = 124_000_000
    writeSync(fd, 'next\n', offset)
    await p.lineCount(3001)
    closeSync(fd)
    expect(p.texts.at(-1)).toBe('next')
    expect(p.lines.at(-1)!.rid).toMatch(new RegExp(`\\.1:${offset}$`))
    expect(p.diagnostics).toEqual([expect.stringContaining(`${offset} NUL bytes at offset 0`)])
    expect(p.gaps).toEqual([])
    const saved = await p.stop()
    const q = follow({ saved })
    append(at('a.log'), 'and on')
    await q.lineCount(1)
    expect(q.texts).toEqual(['and on'])
  })

  test('a hole in the middle, and a few NULs in a line', async () => {
    appendFileSync(at('a.log'), 'one\n')
    appendFileSync(at('a.log'), Buffer.alloc(300_000))
    appendFileSync(at('a.log'), 'two\nth\0\0ree\n')
    const p = follow()
    await p.lineCount(3)
    expect(p.texts).toEqual(['one', 'two', 'th\0\0ree'])
  })

  test('room made ahead is read as it is filled', async () => {
    const fd = openSync(at('a.log'), 'w')
    ftruncateSync(fd, 100_000)
    const p = follow()
    await sleep(50)
    writeSync(fd, 'one\n', 0)
    await p.lineCount(1)
    writeSync(fd, 'two\n', 4)
    await p.lineCount(2)
    closeSync(fd)
    expect(p.texts).toEqual(['one', 'two'])
  })

  test('T27 of a tiny file at once', async () => {
    const p = follow()
    await sleep(30)
    writeFileSync(at('a.log'), 'tiny\n')
    await p.lineCount(1)
    expect(p.texts).toEqual(['tiny'])
  })

  test('T26 equal first lines in many files', async () => {
    append(at('a.log'), 'header')
    append(at('b.log'), 'header')
    const p = follow()
    await p.lineCount(2)
    append(at('c.log'), 'header')
    append(at('a.log.log'), 'header')
    await p.lineCount(4)
    for (const name of ['a.log', 'b.log', 'c.log', 'a.log.log']) append(at(name), `of ${name}`)
    await p.lineCount(8)
    expect(p.texts.toSorted()).toEqual(['header', 'header', 'header', 'header', 'of a.log', 'of a.log.log', 'of b.log', 'of c.log'])
  })
})

describe('a new start', () => {
  const restarted = async (change: () => void, options: Partial<ConstructorParameters<typeof Following>[0]> = {}): Promise<{ p: Following; q: Following }> => {
    append(at('a.log'), ...numbered(100, 'old'))
    const p = follow(options)
    await p.lineCount(100)
    const saved = await p.stop()
    change()
    return { p, q: follow({ ...options, saved }) }
  }

  test('goes on where it was, with the same ids after a kill', async () => {
    append(at('a.log'), ...numbered(100))
    const p = follow()
    await p.lineCount(100)
    const early = p.positions().map((position) => ({ ...(position as object), offset: 0, anchor: { at: 0, length: 0, hash: '' } }))
    await p.stop()
    const q = follow({ saved: early })
    await q.lineCount(100)
    expect(q.lines).toEqual(p.lines)
  })

  test('T10 the inode was used again for a larger file', async () => {
    const { q } = await restarted(() => {
      unlinkSync(at('a.log'))
      append(at('a.log'), ...numbered(300, 'other'))
    })
    await q.lineCount(300)
    expect(q.texts).toEqual(numbered(300, 'other'))
  })

  test('T25 the file is shorter than it was', async () => {
    const { p, q } = await restarted(() => writeFileSync(at('a.log'), 'short\n'))
    await q.lineCount(1)
    expect(q.texts).toEqual(['short'])
    expect(q.lines[0]!.rid).toBe(p.lines[0]!.rid.replace('.0:', '.1:'))
  })

  test('the file was written anew meanwhile', async () => {
    const { q } = await restarted(() => writeFileSync(at('a.log'), numbered(200, 'new').map((line) => `${line}\n`).join('')))
    await q.lineCount(200)
    expect(q.texts).toEqual(numbered(200, 'new'))
    expect(q.gaps).toMatchObject([{ cause: 'file_rewritten' }])
  })

  test.each(['*.log', '*.log*'])('the file was rotated twice meanwhile, for %s', async (pattern) => {
    const { q } = await restarted(
      () => {
        append(at('a.log'), 'rest')
        renameSync(at('a.log'), at('a.log.2'))
        append(at('a.log'), 'second')
        renameSync(at('a.log'), at('a.log.1'))
        append(at('a.log'), 'third')
      },
      { patterns: [at(pattern)] },
    )
    await q.lineCount(3)
    expect(q.texts).toEqual(['rest', 'second', 'third'])
  })

  test('the file was copied and cut meanwhile, and the copy fits the pattern', async () => {
    const { q } = await restarted(
      () => {
        append(at('a.log'), 'rest')
        copyFileSync(at('a.log'), at('a.log.1'))
        truncateSync(at('a.log'))
        append(at('a.log'), 'x')
      },
      { patterns: [at('*.log*')] },
    )
    await q.lineCount(2)
    expect(q.texts.toSorted()).toEqual(['rest', 'x'])
    expect(q.gaps).toEqual([])
  })

  test('the file is gone, with something unread', async () => {
    append(at('a.log'), ...numbered(100))
    const p = follow()
    await p.lineCount(100)
    const saved = (await p.stop()).map((position) => ({ ...(position as object), size: 10_000 }))
    unlinkSync(at('a.log'))
    const q = follow({ saved })
    await q.until(() => q.gaps.length > 0)
    expect(q.gaps).toMatchObject([{ cause: 'file_vanished', atLeast: 1, reason: expect.stringContaining('bytes unread') }])
  })

  test('T23 T24 without a checkpoint files begin as told, with a broken one at the beginning', async () => {
    append(at('a.log'), 'a')
    const p = follow({ saved: [{ path: 7 }, 'what'] })
    await p.lineCount(1)
    expect(p.texts).toEqual(['a'])
    expect(p.diagnostics).toEqual([expect.stringContaining('2 positions of the checkpoint are not understood')])
  })

  test('the copy that was passed over stays so', async () => {
    append(at('a.log'), ...numbered(100))
    const p = follow({ patterns: [at('*.log*')] })
    await p.lineCount(100)
    copyFileSync(at('a.log'), at('a.log.1'))
    truncateSync(at('a.log'))
    append(at('a.log'), 'x')
    await p.lineCount(101)
    const q = follow({ patterns: [at('*.log*')], saved: await p.stop() })
    append(at('a.log'), 'y')
    await q.lineCount(1)
    expect(q.texts).toEqual(['y'])
  })
})

describe('history', () => {
  test('compressed and rotated files are read first, the oldest first', async () => {
    writeFileSync(at('a.log.3.gz'), gzipSync('1\n2\n'))
    writeFileSync(at('a.log.2.gz'), Buffer.concat([gzipSync('3\n'), gzipSync('4\n')]))
    append(at('a.log.1'), '5')
    append(at('a.log'), '6')
    const p = follow({ patterns: [at('a.log*')], history: true })
    await p.lineCount(6)
    expect(p.texts).toEqual(['1', '2', '3', '4', '5', '6'])
    expect(p.lines[3]!.rid).toMatch(/:2$/)
    writeFileSync(at('a.log.4.gz'), gzipSync('no\n'))
    const saved = await p.stop()
    const q = follow({ patterns: [at('a.log*')], history: true, saved })
    append(at('a.log'), '7')
    await q.lineCount(1)
    expect(q.texts).toEqual(['7'])
  })

  test('one that is read halfway is read on, one that is broken is told', async () => {
    const lines = numbered(50_000)
    writeFileSync(at('a.log.1.gz'), gzipSync(lines.map((line) => `${line}\n`).join('')))
    const p = follow({ patterns: [at('a.log*')], history: true })
    await p.until(() => p.lines.length > 1000)
    const saved = await p.kill()
    expect(p.lines.length).toBeLessThan(50_000)
    const q = follow({ patterns: [at('a.log*')], history: true, saved })
    await q.lineCount(50_000 - p.lines.length)
    expect([...p.texts, ...q.texts]).toEqual(lines)
    writeFileSync(at('b.log.1.gz'), gzipSync(numbered(5000).join('\n')).subarray(0, 4000))
    const broken = follow({ patterns: [at('b.log*')], history: true, once: true })
    await broken.done()
    expect(broken.gaps).toMatchObject([{ cause: 'file_vanished', reason: expect.stringContaining('b.log.1.gz') }])
  })
})

describe('troubles', () => {
  test('T19 more files than may be open', async () => {
    const names = Array.from({ length: 300 }, (_, i) => `f${i}.log`)
    for (const name of names) append(at(name), `1 ${name}`)
    const p = follow({ maxOpen: 20 })
    await p.lineCount(300)
    for (let round = 2; round < 5; round++) {
      for (const name of names) append(at(name), `${round} ${name}`)
      await p.lineCount(300 * round, 0)
      expect(descriptorsOn(dir)).toBeLessThanOrEqual(24)
    }
    for (const name of names) {
      append(at(name), `5 ${name}`)
      renameSync(at(name), at(`${name}.1`))
      append(at(name), `6 ${name}`)
    }
    await p.lineCount(1800)
    expect(p.texts.toSorted()).toEqual(names.flatMap((name) => [1, 2, 3, 4, 5, 6].map((round) => `${round} ${name}`)).sort())
    expect(p.gaps).toEqual([])
  })

  test('T29 T30 many files at once, with hints and without', async () => {
    for (const hints of [true, false]) {
      const p = follow({ hints, patterns: [at(`${hints}-*.log`)] })
      await p.until(() => p.diagnostics.length > 0)
      for (let i = 0; i < 3000; i++) writeFileSync(at(`${hints}-${i}.log`), `${i}\n`)
      await p.lineCount(3000)
      expect(new Set(p.texts).size).toBe(3000)
      expect(p.diagnostics).toEqual([expect.stringMatching(/(true|false)-\*\.log: nothing is there yet; it is waited for$/)])
      await p.stop()
    }
  })

  test('hints shorten the wait', async () => {
    append(at('a.log'), 'a')
    const p = follow({ hints: true, rescanMs: 3_600_000, idleMs: 3_600_000, pollMs: 2_000_000 })
    await p.lineCount(1, 300)
    append(at('a.log'), 'b')
    await p.lineCount(2, 0)
    append(at('c.log'), 'c')
    await p.lineCount(3, 0)
    expect(p.texts).toEqual(['a', 'b', 'c'])
  })

  test('T34 what is no file is passed over', async () => {
    execFileSync('mkfifo', [at('x.log')])
    mkdirSync(at('y.log'))
    append(at('a.log'), 'a')
    const p = follow()
    await p.lineCount(1)
    expect(p.texts).toEqual(['a'])
    expect(p.diagnostics.toSorted()).toEqual([expect.stringContaining('x.log is a named pipe'), expect.stringContaining('y.log is a folder')])
  })

  test('T35 a name that is not UTF-8, over a new start too', async () => {
    const path = Buffer.concat([Buffer.from(`${dir}/a`), Buffer.from([0xff]), Buffer.from('.log')])
    append(path, 'one')
    const p = follow()
    await p.lineCount(1)
    const q = follow({ saved: await p.stop() })
    append(path, 'two')
    await q.lineCount(1)
    expect([...p.texts, ...q.texts]).toEqual(['one', 'two'])
  })

  test('a file that left the pattern and came back is not read again', async () => {
    append(at('a.log'), 'one')
    const p = follow()
    await p.lineCount(1, 0)
    renameSync(at('a.log'), at('elsewhere'))
    // its position goes on as that of an empty path
    await p.until(() => p.inputs === 2)
    renameSync(at('elsewhere'), at('a.log'))
    append(at('a.log'), 'two')
    await p.lineCount(2)
    expect(p.texts).toEqual(['one', 'two'])
  })

  test('braces, stars for folders, and several patterns for one file', async () => {
    mkdirSync(at('x/deep'), { recursive: true })
    append(at('x/deep/a.log'), 'a')
    append(at('x/b.txt'), 'b')
    const p = follow({ patterns: [at('**/*.{log,txt}'), at('x/*/a.log'), at('x/deep/a.log')] })
    await p.lineCount(2)
    expect(p.texts.toSorted()).toEqual(['a', 'b'])
  })

  test('links that lead back to a folder above: each folder is looked at once for each part of the pattern, and that is said', async () => {
    mkdirSync(at('real'))
    for (const name of ['loop', 'also', 'real/up']) symlinkSync(dir, at(name))
    append(at('real/a.log'), 'once')
    // three links at each of forty parts: 3^40 ways
    const p = follow({ patterns: [at(`${'*/'.repeat(40)}*.log`)], once: true })
    await p.done()
    expect(p.texts).toEqual(['once'])
    expect(p.diagnostics).toEqual([expect.stringMatching(/ passed over: a link leads there to a folder that was looked at already/)])
  })
})
