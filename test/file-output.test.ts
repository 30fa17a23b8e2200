/**
 * `file` as an output of the built program: nothing is lost and no line is torn when the file is put aside, moved away, compressed, removed, when the disk is full or
 * fails, and when the program is killed. Records are told apart by their marks.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, type Record_, scratch, sleep, wholeLines } from './process-harness.js'
import { add, comes, configured, expectMarks, Life, lines, range, type RunOptions, Written } from './run-harness.js'

const LF = 10
const isRoot = process.getuid?.() === 0
const mounts: string[] = []

afterEach(() => {
  for (const path of mounts.splice(0)) execFileSync('umount', ['-l', path])
  cleanUp()
})

/** A log that is followed from its beginning into a file, with these words about the file. */
function place(output: object, { under = [], ...options }: RunOptions & { readonly out?: string } = {}) {
  const folder = scratch('out')
  mkdirSync(folder, { recursive: true })
  const path = options.out ?? `${folder}/records.ndjson`
  const log = scratch('a.log')
  const config = configured('file.json', {
    state: scratch('state'),
    inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms', rescan: '100ms' } },
    outputs: { all: { type: 'file', path, ...output } },
  })
  return { folder, path, log, begin: (more: RunOptions = {}) => new Life(['run', '-c', config], { under, ...options, ...more }), out: new Written(path) }
}

/** Every file of the output, those put aside first and by age; each must be whole lines. */
function files(folder: string): { readonly name: string; readonly marks: number[]; readonly bytes: number }[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith('records.ndjson'))
    .sort((a, b) => (order(a) < order(b) ? -1 : 1))
    .map((name) => {
      const bytes = readFileSync(`${folder}/${name}`)
      const text = wholeLines(name.endsWith('.gz') ? gunzipSync(bytes) : bytes)
      return { name, bytes: bytes.length, marks: text.map((one) => JSON.parse(one) as Record_).flatMap(({ type, mark }) => (type === 'flow' ? [mark as number] : [])) }
    })
}

/** Of names of one second by their number, the current one last. */
function order(name: string): string {
  const [, second, number = '0'] = /\.(\d{8}T\d{6})Z(?:\.(\d+))?(?:\.gz)?$/.exec(name) ?? []
  return second === undefined ? `z${name}` : `${second}.${number.padStart(6, '0')}`
}

const all = (folder: string): number[] => files(folder).flatMap(({ marks }) => marks)

/** Whether so many records have been written, whatever file they are in by now. */
function has(folder: string, mark: number): () => boolean {
  return () => {
    try {
      return all(folder).includes(mark)
    } catch {
      // put aside, compressed or removed between two looks, or a line being written
      return false
    }
  }
}

function smallDisk(bytes: number): string {
  const path = scratch('disk')
  mkdirSync(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'conntrail-test', path])
  mounts.push(path)
  return path
}

/** The lines of a file on a full disk. A write that was cut short stands there until the program has undone it, which is a moment. */
async function wholeLinesSoon(path: string, life: Life): Promise<string[]> {
  let bytes = Buffer.alloc(0)
  await comes('whole lines', () => (bytes = readFileSync(path)).at(-1) === LF, life)
  return wholeLines(bytes)
}

function fill(disk: string): void {
  execFileSync('sh', ['-c', 'cat /dev/zero > "$1" 2>/dev/null || true', 'sh', `${disk}/filler`])
}

describe('put aside', () => {
  test('by size: no file is larger, each is whole lines, all together are everything in order', async () => {
    const { folder, log, begin } = place({ rotate: { size: '100KB' } })
    writeFileSync(log, lines(1, 500))
    const life = begin()
    await comes('the first', has(folder, 500), life)
    for (let i = 5; i < 40; i++) {
      appendFileSync(log, lines(i * 100 + 1, i * 100 + 100))
      await sleep(25)
    }
    await comes('the last', has(folder, 4000), life)
    await life.stop()
    const found = files(folder)
    expect(found.length).toBeGreaterThan(10)
    expectMarks(found.flatMap(({ marks }) => marks), range(1, 4000))
    // one read is one page, and is not divided: the first was larger
    for (const { bytes } of found.slice(2)) expect(bytes).toBeLessThanOrEqual(100_000)
    for (const { name } of found) expect(name).toMatch(/^records\.ndjson(\.\d{8}T\d{6}Z(\.\d+)?)?$/)
    expect(life.messages).toEqual([])
    expect(statSync(`${folder}/${found[0]!.name}`).mode & 0o777).toBe(0o640)
  })

  test('by time: a new one in each period in which something is written, over a new start too', async () => {
    const { folder, log, begin } = place({ rotate: { every: '1s' } })
    let life = begin()
    for (let mark = 1; mark <= 4; mark++) {
      add(log, mark)
      await comes('the line', has(folder, mark), life)
      if (mark === 3) {
        await life.stop()
        life = begin()
      }
      await sleep(1000)
    }
    await life.stop()
    const found = files(folder).filter(({ marks }) => marks.length > 0)
    expect(found.map(({ marks }) => marks)).toEqual([[1], [2], [3], [4]])
  })

  test('and compressed: everything is there in one form or the other, also after a kill in the midst of it', async () => {
    const { folder, log, path, begin } = place({ rotate: { size: '50KB', compress: 'gzip' } })
    writeFileSync(log, '')
    let life = begin()
    for (let i = 0; i < 30; i++) {
      appendFileSync(log, lines(i * 100 + 1, i * 100 + 100))
      await sleep(30)
      if (i % 10 === 7) {
        await life.kill()
        // what a crash leaves of compressing
        writeFileSync(`${path}.20261122T101443Z.gz.part`, 'half')
        life = begin()
      }
    }
    await comes('the last', has(folder, 3000), life)
    await comes('the compressing', () => readdirSync(folder).every((name) => name.endsWith('.gz') || name === basename(path)), life)
    await life.stop()
    expect(new Set(all(folder))).toEqual(new Set(range(1, 3000)))
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([])
    expect(life.messages).toEqual([])
  })

  test('... also what is as large as the block that it goes through, or larger: it comes out as it went in', async () => {
    const { folder, log, path, begin } = place({ rotate: { size: '1MB', compress: 'gzip' } })
    const block = 1 << 18
    const text = range(1, 2 * block).join('\n')
    const old = [1, block, 2 * block, 2 * block + 12_345].map((size, i) => ({ name: `${basename(path)}.20261122T10144${i}Z`, bytes: Buffer.from(text.slice(i, i + size)) }))
    for (const { name, bytes } of old) writeFileSync(`${folder}/${name}`, bytes)
    writeFileSync(log, '')
    const life = begin()
    await comes('the compressing', () => old.every(({ name }) => !readdirSync(folder).includes(name)), life)
    await life.stop()
    for (const { name, bytes } of old) expect(gunzipSync(readFileSync(`${folder}/${name}.gz`)).equals(bytes), name).toBe(true)
    expect(life.messages).toEqual([])
  })

  test('and no more kept than allowed: by number', async () => {
    const { folder, log, begin } = place({ rotate: { size: '20KB', keep: 3, compress: 'gzip' } })
    writeFileSync(log, '')
    const life = begin()
    for (let i = 0; i < 12; i++) {
      appendFileSync(log, lines(i * 50 + 1, i * 50 + 50))
      await comes('these', has(folder, i * 50 + 50), life)
    }
    await comes('the removal', () => readdirSync(folder).length === 4 && readdirSync(folder).every((name) => !name.endsWith('.part')), life)
    await life.stop()
    const kept = all(folder)
    expectMarks(kept, range(kept[0]!, 600))
    expect(files(folder)).toHaveLength(4)
  })

  test('... by age, and by their sum; what only looks alike is left alone', async () => {
    const { folder, log, path, begin } = place({ rotate: { size: '1MB', max_age: '1h', max_total: '100KB' } })
    const old = `${path}.20251122T101443Z`
    writeFileSync(old, '{}\n')
    utimesSync(old, Date.now() / 1000 - 3700, Date.now() / 1000 - 3700)
    writeFileSync(`${path}.20261122T101443Z`, `${'x'.repeat(70_000)}\n`)
    writeFileSync(`${path}.20261122T101444Z`, `${'y'.repeat(70_000)}\n`)
    const strangers = [`${path}.bak`, `${path}.2026`, `${folder}/records.ndjson2.20251122T101443Z`]
    for (const stranger of strangers) {
      writeFileSync(stranger, 'mine')
      utimesSync(stranger, 1, 1)
    }
    add(log, 1)
    const life = begin()
    await comes('the removal', () => readdirSync(folder).length === 5 && new Written(path).marks.length === 1, life)
    await life.stop()
    expect(readdirSync(folder).sort()).toEqual(['records.ndjson', 'records.ndjson.20261122T101444Z', ...strangers.map((stranger) => basename(stranger))].sort())
  })

  test('by another program, which signals: the old file ends with a whole line, the new one begins with the next', async () => {
    const { folder, log, path, begin } = place({})
    writeFileSync(log, lines(1, 50))
    const life = begin()
    await comes('the first', has(folder, 50), life)
    for (let rotation = 1; rotation <= 20; rotation++) {
      // in the midst of writing
      appendFileSync(log, lines(rotation * 1000 + 1, rotation * 1000 + 400))
      renameSync(path, `${path}.${rotation}`)
      life.signal('SIGHUP')
      await comes('a new file', () => readdirSync(folder).includes(basename(path)), life)
    }
    add(log, 99_999)
    await comes('the last', has(folder, 99_999), life)
    await life.stop()
    expect(life.messages).toEqual([])
    const numbered = [...range(1, 20).map((rotation) => `records.ndjson.${rotation}`), 'records.ndjson']
    const byName = new Map(files(folder).map(({ name, marks }) => [name, marks]))
    const wanted = [...range(1, 50), ...range(1, 20).flatMap((rotation) => range(rotation * 1000 + 1, rotation * 1000 + 400)), 99_999]
    expectMarks(numbered.flatMap((name) => byName.get(name)!), wanted)
    expect(life.open.filter((open) => open.includes('records.ndjson')), 'what it still has open').toEqual([])
  })

  test('... and whose place cannot be written to: told, and it goes on in the file that it has', async () => {
    const { folder, log, path, begin } = place({})
    add(log, 1)
    const life = begin()
    await comes('the first', has(folder, 1), life)
    renameSync(path, `${path}.1`)
    mkdirSync(path)
    life.signal('SIGHUP')
    await comes('that it is told', () => life.messages.length > 0, life)
    expect(life.messages).toEqual([expect.stringContaining('cannot be opened anew')])
    add(log, 2)
    await comes('the next', () => readFileSync(`${path}.1`, 'utf8').includes('"mark":2'), life)
    rmSync(path, { recursive: true })
    life.signal('SIGHUP')
    await comes('a new file', () => readdirSync(folder).includes(basename(path)), life)
    add(log, 3)
    await comes('the third', has(folder, 3), life)
    await life.stop()
    expect(all(folder).sort()).toEqual([1, 2, 3])
  })

  test.each(['interval', 'never'])('by another program, without a signal: noticed, and it goes on in a new file (fsync: %s)', async (fsync) => {
    const { folder, log, path, begin } = place({ fsync })
    add(log, 1)
    const life = begin()
    await comes('the first', has(folder, 1), life)
    renameSync(path, `${path}.1`)
    let mark = 1
    await comes(
      'a new file',
      () => {
        add(log, ++mark)
        return readdirSync(folder).includes(basename(path))
      },
      life,
    )
    add(log, ++mark)
    await comes('the last', has(folder, mark), life)
    await life.stop()
    const byName = new Map(files(folder).map(({ name, marks }) => [name, marks]))
    expectMarks([...byName.get('records.ndjson.1')!, ...byName.get('records.ndjson')!], range(1, mark))
    expect(life.messages).toEqual([`output all: ${path} was moved away without a signal; it goes on in a new file, and nothing is lost`])
  })

  test.each(['while it runs', 'at its end'])('removed by another program %s: what is written since is in a new file', async (when) => {
    const { folder, path, log, out, begin } = place({})
    add(log, 1)
    const life = begin()
    await comes('the first', has(folder, 1), life)
    let mark = 1
    // written under load, so that something goes into the file that has no name any more
    for (let i = 0; i < 20; i++) {
      appendFileSync(log, lines(mark + 1, mark + 200))
      mark += 200
      await sleep(10)
    }
    const seen = out.marks.at(-1)!
    rmSync(path)
    if (when === 'while it runs') {
      await comes(
        'a new file',
        () => {
          add(log, ++mark)
          return readdirSync(folder).includes(basename(path))
        },
        life,
      )
      await comes('the last', has(folder, mark), life)
    }
    await life.stop()
    const marks = all(folder)
    // what the look before has seen of it is gone with it, as was wanted
    expect(marks[0]).toBeLessThanOrEqual(seen + 1)
    expectMarks(marks, range(marks[0]!, mark))
    expect(life.messages).toEqual([`output all: ${path} was removed; it goes on in a new file, and nothing is lost`])
  })

  test('removed with its folder: told, nothing counts as safe until it can be made anew, and then nothing is lost', async () => {
    const { folder, log, begin } = place({})
    add(log, 1)
    const life = begin()
    await comes('the first', has(folder, 1), life)
    rmSync(folder, { recursive: true })
    add(log, 2)
    await comes('that it is told', () => life.messages.length > 0, life)
    expect(life.messages).toEqual([expect.stringContaining('cannot be opened anew')])
    add(log, 3)
    await life.kill()
    mkdirSync(folder)
    const again = begin()
    await comes('the rest', has(folder, 3), again)
    await again.stop()
    const marks = all(folder)
    expectMarks(marks, range(marks[0]!, 3))
    expect(marks[0]).toBeLessThanOrEqual(2)
  })

  test('a link as its place is followed, and stays', async () => {
    const elsewhere = scratch('elsewhere.ndjson')
    const { log, path, begin } = place({})
    symlinkSync(elsewhere, path)
    add(log, 1)
    const life = begin()
    const out = new Written(elsewhere)
    await comes('the record', () => out.marks.length === 1, life)
    await life.stop()
    out.checkEnd()
  })
})

describe('a reader at any time', () => {
  test('finds whole lines: what it has read so far never changes, and every file that was put aside is complete', async () => {
    const { folder, log, path, begin } = place({ rotate: { size: '300KB' } })
    writeFileSync(log, '')
    const life = begin()
    // as `tail -F`: reads on where it was, and on in the next file when the old one is at its end
    const reader = execFileSync('bash', ['-c', 'command -v tail'], { encoding: 'utf8' }).trim()
    const followed = new Written(scratch('followed'))
    const tail = new Life([], { under: ['bash', '-c', `touch "$1"; exec ${reader} -n +1 -s 0.05 -F "$1" > "$2" 2>/dev/null`, 'bash', path, followed.path] })
    for (let i = 0; i < 40; i++) {
      appendFileSync(log, lines(i * 100 + 1, i * 100 + 100))
      await sleep(30)
      // throws for what is no JSON; a reader that is two files behind would miss the one between
      await comes('the reader', () => followed.marks.length >= (i - 2) * 100, life)
    }
    await comes('the last', has(folder, 4000), life)
    await comes('the reader', () => followed.marks.at(-1) === 4000, life)
    await life.stop()
    await tail.kill()
    followed.checkEnd()
    expectMarks(all(folder), range(1, 4000))
    expectMarks(followed.marks, range(1, 4000))
  })

  test('a tail that a crash has torn is mended at the start, with or without state', async () => {
    const { folder, log, path, begin } = place({})
    for (const torn of ['{"time":"2026', `{"a":1}\n${'x'.repeat(200_000)}`, '\0'.repeat(5000), '{"b":2}\n']) {
      rmSync(scratch('state'), { recursive: true, force: true })
      writeFileSync(path, torn)
      writeFileSync(log, lines(1, 3))
      const life = begin()
      await comes('the records', has(folder, 3), life)
      await life.stop()
      const kept = torn.slice(0, torn.lastIndexOf('\n') + 1)
      expect(readFileSync(path, 'utf8').startsWith(`${kept}{"time":`), kept).toBe(true)
      expect(all(folder)).toEqual([1, 2, 3])
    }
  })
})

describe('a disk', () => {
  test.skipIf(!isRoot)('that is full: waits, says so once, tears nothing, and goes on by itself with everything', async () => {
    const disk = smallDisk(1 << 20)
    const { log, begin, out } = place({}, { out: `${disk}/records.ndjson` })
    writeFileSync(log, lines(1, 100))
    const life = begin()
    await comes('the first', () => out.marks.length === 100, life)
    fill(disk)
    appendFileSync(log, lines(101, 3000))
    await comes('that it is told', () => life.messages.some((message) => message.includes('nothing is lost')), life)
    await sleep(700)
    await wholeLinesSoon(out.path, life)
    rmSync(`${disk}/filler`)
    await comes('what fits', () => life.messages.some((message) => message.includes('writes again')) || out.marks.length > 200, life)
    // the disk is smaller than all: the rest comes when the administrator has moved away what is there
    await comes('the disk to be full of records', () => statSync(out.path).size > 900_000, life)
    await sleep(300)
    const before = (await wholeLinesSoon(out.path, life)).length
    execFileSync('mv', [out.path, scratch('moved')])
    life.signal('SIGHUP')
    await comes('the rest', () => new Written(out.path).marks.at(-1) === 3000, life)
    await life.stop()
    const moved = new Written(scratch('moved'))
    expect(moved.look().length).toBeGreaterThanOrEqual(before)
    expectMarks([...moved.marks, ...new Written(out.path).marks], range(1, 3000))
    expect(life.messages.filter((message) => message.includes('nothing is lost')).length).toBeLessThanOrEqual(3)
  })

  test.skipIf(!isRoot)('that is full, and its file is removed to make room: it goes on in a new one', async () => {
    const disk = smallDisk(1 << 20)
    const { log, begin, path } = place({}, { out: `${disk}/records.ndjson` })
    writeFileSync(log, lines(1, 4000))
    const life = begin()
    await comes('that it is told', () => life.messages.some((message) => message.includes('nothing is lost')), life)
    // what was there when it was last looked at goes with it
    const [last] = wholeLines(readFileSync(path)).slice(-1)
    rmSync(path)
    await comes('the rest', () => new Written(path).marks.at(-1) === 4000, life)
    await life.stop()
    const marks = new Written(path).marks
    expect(marks[0]).toBeLessThanOrEqual((JSON.parse(last!) as Record_)['mark'] + 1)
    expectMarks(marks, range(marks[0]!, 4000))
  })

  test.skipIf(!isRoot)('that is full while files are put aside and compressed: the same', async () => {
    const disk = smallDisk(1 << 20)
    const { log, begin } = place({ rotate: { size: '100KB', compress: 'gzip', keep: 50 } }, { out: `${disk}/records.ndjson` })
    writeFileSync(log, lines(1, 100))
    const life = begin()
    await comes('the first', has(disk, 100), life)
    fill(disk)
    appendFileSync(log, lines(101, 2000))
    await comes('that it is told', () => life.messages.some((message) => message.includes('nothing is lost')), life)
    await sleep(500)
    rmSync(`${disk}/filler`)
    await comes('the rest', has(disk, 2000), life)
    await life.stop()
    expectMarks(all(disk), range(1, 2000))
  })

  test('that fails when it is told to keep what is written: told, written again, and no checkpoint meanwhile', async () => {
    for (const fsync of ['always', 'interval']) {
      const { log, path, begin, out } = place({ fsync })
      for (const gone of [path, log, scratch('state')]) rmSync(gone, { recursive: true, force: true })
      add(log, 1)
      // counted by thread; the checkpoint's own calls share the fate
      const under = ['strace', '-D', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO:when=5..8']
      const life = begin({ under, env: { UV_THREADPOOL_SIZE: '1' } })
      for (let mark = 2; mark <= 12; mark++) {
        await sleep(300)
        add(log, mark)
      }
      await comes('trouble', () => life.messages.some((message) => message.includes('EIO')), life)
      await comes('its end', () => life.messages.some((message) => /is safe again|is written again/.test(message)), life)
      await comes('all', () => out.marks.length === 12, life)
      await life.stop()
      out.checkEnd()
      expectMarks(out.marks, range(1, 12))
    }
  })

  test.each([
    ['always', (calls: number, _seconds: number) => calls >= 5],
    ['interval', (calls: number, seconds: number) => calls >= 1 && calls <= 3 + seconds],
    ['never', (calls: number, _seconds: number) => calls === 0],
  ])('is told to keep what is written: %s', async (fsync, isRight) => {
    const trace = scratch('trace')
    const log = scratch('a.log')
    const path = scratch('records.ndjson')
    const config = configured('fsync.json', {
      inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms' } },
      outputs: { all: { type: 'file', path, fsync } },
    })
    const life = new Life(['run', '-c', config], { under: ['strace', '-D', '-f', '-qq', '-y', '-o', trace, '-e', 'trace=fdatasync,fsync'] })
    const out = new Written(path)
    const from = performance.now()
    for (let mark = 1; mark <= 5; mark++) {
      add(log, mark)
      await comes('the record', () => out.marks.length === mark, life)
    }
    await life.stop()
    const seconds = (performance.now() - from) / 1000
    const calls = (): number => readFileSync(trace, 'utf8').split('\n').filter((call) => call.includes('sync(') && call.includes('records.ndjson')).length
    // the tracer ends a moment later
    await sleep(200)
    await comes('its calls', () => isRight(calls(), seconds))
  })
})
