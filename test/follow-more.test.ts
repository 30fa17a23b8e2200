/**
 * Followed files on the built program: many of them, links, removal, lost and damaged checkpoints, file systems and limits that refuse, kills, permissions, odd names
 * and clocks. Lines are conntrack's events, told apart by their marks.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { Arrivals } from './arrivals.js'
import { cleanUp, Pipe, type Record_, scratch, sleep, start, wholeLines } from './process-harness.js'
import { add, clockIsSettable, comes, configured, expectMarks, FIRST_START, firstArrivals, isLong, Life, line, lines, range, type RunOptions, SettableClock, Written } from './run-harness.js'
import { seeded } from './seed.js'

const chance = seeded('followed files')

vi.setConfig({ testTimeout: isLong ? 1_800_000 : 60_000, maxConcurrency: 6 })
// cases run side by side
afterAll(cleanUp)

const isRoot = process.getuid?.() === 0

let places = 0

/** A folder of its own, in which `*.log` is followed unless `input` says otherwise. */
function place(input: object = {}, more: { readonly outputs?: object; readonly state?: boolean } = {}) {
  const name = `place${++places}`
  const dir = scratch(name)
  mkdirSync(dir)
  const out = new Written(scratch(`${name}.ndjson`))
  const state = scratch(`${name}.state`)
  const config = configured(`${name}.json`, {
    ...(more.state === false ? {} : { state }),
    inputs: { logs: { type: 'file', path: `${dir}/*.log`, from: 'start', poll: '20ms', rescan: '100ms', rotate_wait: '500ms', ...input } },
    outputs: more.outputs ?? { all: { type: 'file', path: out.path } },
  })
  const all = { dir, out, state, config, log: `${dir}/a.log`, begin: (options: RunOptions = {}) => new Life(['run', '-c', config], options) }
  return { ...all, gaps: () => out.gaps.map(({ cause }) => cause as string) }
}

const limited = (files: number): string[] => ['bash', '-c', `ulimit -n ${files}; exec "$@"`, 'bash']

/** Without inotify, and some reads of a file fail as those of a file server do that has another file by then. Calls are counted by thread: of which one reads. */
function stale(path: string, trace: string, when: string): RunOptions {
  const noInotify = ['unshare', '--user', '--map-root-user', 'sh', '-c', 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', 'sh']
  const under = ['strace', '-D', '-f', '-qq', '-o', trace, '-P', path, '-e', 'trace=pread64,openat', '-e', `inject=pread64:error=ESTALE:when=${when}`, ...noInotify]
  return { under, env: { UV_THREADPOOL_SIZE: '1' } }
}

describe('many files', () => {
  const FILES = 5000

  test('T19 more than may be open: all are read, and read on', async () => {
    const { dir, out, begin } = place()
    for (let i = 1; i <= FILES; i++) add(`${dir}/${i}.log`, i)
    const life = begin({ under: limited(256) })
    await comes('the first lines', () => out.marks.length >= FILES, life)
    for (let i = 1; i <= FILES; i++) add(`${dir}/${i}.log`, FILES + i)
    await comes('the second lines', () => out.marks.length >= 2 * FILES, life)
    expect(life.open.length).toBeLessThan(256)
    await life.stop()
    expectMarks(out.marks.toSorted((a, b) => a - b), range(1, 2 * FILES))
    expect(out.gaps).toEqual([])
  })

  test('T30 more made at once than the kernel queues changes of', async () => {
    const { dir, out, begin } = place()
    const count = isLong ? 20_000 : 10_000
    const life = begin()
    add(`${dir}/first.log`, count + 1)
    await comes('the first', () => out.marks.length === 1, life)
    for (let i = 1; i <= count; i++) add(`${dir}/${i}.log`, i)
    await comes('all', () => out.marks.length > count, life)
    await life.stop()
    expectMarks(out.marks.toSorted((a, b) => a - b), range(1, count + 1))
    expect(out.gaps).toEqual([])
  })

  test.concurrent('T26 with equal first lines, longer than what a file is known by', async () => {
    const { dir, out, begin } = place()
    for (const [i, name] of ['a', 'b', 'c'].entries()) {
      writeFileSync(`${dir}/${name}.log`, line(7, 2000))
      add(`${dir}/${name}.log`, 11 + i)
    }
    const life = begin()
    await comes('all', () => out.marks.length === 6, life)
    for (const [i, name] of ['a', 'b', 'c'].entries()) add(`${dir}/${name}.log`, 21 + i)
    await comes('more', () => out.marks.length === 9, life)
    await life.stop()
    expectMarks(out.marks.filter((mark) => mark !== 7).toSorted((a, b) => a - b), [11, 12, 13, 21, 22, 23])
    expect(new Set(out.records.map(({ rid }) => rid)).size).toBe(9)
  })

  test.concurrent('T27 with one short line each, at once', async () => {
    const { dir, out, begin } = place()
    writeFileSync(`${dir}/a.log`, '[NEW] udp 17 3 src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] src=::2 dst=::1 sport=2 dport=1 mark=1\n')
    const life = begin()
    await comes('the first', () => out.marks.length === 1, life)
    writeFileSync(`${dir}/b.log`, '[NEW] udp 17 3 src=::1 dst=::2 sport=1 dport=2 [UNREPLIED] src=::2 dst=::1 sport=2 dport=1 mark=2\n')
    await comes('the second', () => out.marks.length === 2, life)
    writeFileSync(`${dir}/c.log`, 'tiny\n')
    await comes('the third', () => life.isOver || existsSync(`${dir}/c.log`), life)
    await sleep(500)
    await life.stop()
    expect(life.done!.lines).toBe(3)
    expect(life.done!.ignored).toBe(1)
  })
})

describe.concurrent('links and removal', () => {
  test.each(['folder', 'file'])('T20 a link to a %s that is turned: the rest of the old one, then the new one', async (kind) => {
    const base = scratch(`turned-${kind}`)
    for (const folder of [base, `${base}/t1`, `${base}/t2`]) mkdirSync(folder)
    const target = (n: number): string => (kind === 'folder' ? `t${n}` : `t${n}/a.log`)
    const link = kind === 'folder' ? `${base}/..data` : `${base}/a.log`
    const { out, begin, gaps } = place({ path: kind === 'folder' ? `${link}/*.log` : link })
    symlinkSync(target(1), link)
    add(`${base}/t1/a.log`, 1)
    const life = begin()
    await comes('the first', () => out.marks.length === 1, life)
    writeFileSync(`${base}/t2/a.log`, lines(301, 310))
    appendFileSync(`${base}/t1/a.log`, lines(2, 200))
    symlinkSync(target(2), `${link}.new`)
    renameSync(`${link}.new`, link)
    appendFileSync(`${base}/t1/a.log`, lines(201, 300))
    await comes('both', () => out.marks.length >= 310, life)
    await life.stop()
    expectMarks(out.marks, range(1, 310))
    expect(gaps()).toEqual([])
  })

  test('T21 removed with 10 MB unread: all of it comes, and the room on the disk is free soon after', async () => {
    const { log, out, begin, gaps } = place()
    add(log, 1)
    const life = begin()
    await comes('the first', () => out.marks.length === 1, life)
    life.signal('SIGSTOP')
    const text = lines(2, 60_001, 30)
    expect(text.length).toBeGreaterThan(10_000_000)
    appendFileSync(log, text)
    unlinkSync(log)
    life.signal('SIGCONT')
    await comes('all', () => out.marks.length >= 60_001, life)
    await comes('the descriptor to be closed', () => !life.open.some((path) => path.includes(log)), life)
    await life.stop()
    expectMarks(out.marks, range(1, 60_001))
    expect(gaps()).toEqual([])
  })

  test('T22 removed while nothing is taken for 6 s: no more of the disk is held than allowed, and what is given up is counted', async () => {
    const { dir, log, begin } = place({ deleted_max: '10MB' }, { outputs: { all: { type: 'stdout' } } })
    const pipe = await Pipe.open()
    add(log, 1)
    const life = begin({ stdout: pipe.writeEnd })
    pipe.closeWrite()
    await comes('the log to be open', () => life.open.includes(log), life)
    const written: number[] = [1]
    const held = (): number =>
      Number(execFileSync('sh', ['-c', `for fd in /proc/${life.pid}/fd/*; do case "$(readlink $fd)" in *"(deleted)") stat -Lc %s $fd;; esac; done | awk '{ s += $1 } END { print s + 0 }'`], { encoding: 'utf8' }))
    let most = 0
    for (let rotation = 0; rotation < 4; rotation++) {
      const marks = range(100_000 * (rotation + 1), 100_000 * (rotation + 1) + 24_999)
      appendFileSync(log, lines(marks[0]!, marks.at(-1)!, 30))
      written.push(...marks)
      // not only for a glance at what it is
      let looks = 0
      await comes('it to be open', () => (life.open.includes(log) ? ++looks : (looks = 0)) >= 10, life)
      renameSync(log, `${dir}/old`)
      unlinkSync(`${dir}/old`)
      await sleep(1500)
      most = Math.max(most, held())
    }
    add(log, 2)
    written.push(2)
    // each of 5 MB: of the last one all, with what is read of the first
    expect(most).toBeLessThan(16_000_000)
    const taken = pipe.readAll()
    await comes('the loss to be over', () => !life.open.some((path) => path.endsWith('(deleted)')), life)
    await sleep(1000)
    await life.stop()
    const records = wholeLines(await taken).map((text) => JSON.parse(text) as Record_)
    const gaps = records.filter(({ type }) => type === 'gap')
    const found = records.flatMap(({ type, mark }) => (type === 'flow' ? [mark as number] : []))
    expect(gaps.length).toBeGreaterThan(0)
    for (const gap of gaps) expect(gap).toMatchObject({ cause: 'file_vanished', count: expect.any(Number), reason: expect.stringContaining('removed files may hold 10000000 bytes') })
    expect(found.length + gaps.reduce((sum, { count }) => sum + count, 0)).toBe(written.length)
    const known = new Set(written)
    expect(new Set(found).size).toBe(found.length)
    expect(found.filter((mark) => !known.has(mark))).toEqual([])
    expect(found.at(-1)).toBe(2)
  })

  test('removed before its turn to be opened has come: at least it is told', async () => {
    const { dir, log, begin } = place({}, { outputs: { all: { type: 'stdout' } } })
    const pipe = await Pipe.open()
    add(log, 1)
    const life = begin({ stdout: pipe.writeEnd })
    pipe.closeWrite()
    await comes('the log to be open', () => life.open.includes(log), life)
    execFileSync('prlimit', [`--nofile=${life.open.length + 20}`, '--pid', String(life.pid)])
    appendFileSync(log, lines(2, 30_001, 30))
    for (let i = 1; i <= 60; i++) add(`${dir}/b.log.${i}.log`, 100_000 + i)
    await sleep(3000)
    for (let i = 1; i <= 60; i++) unlinkSync(`${dir}/b.log.${i}.log`)
    await sleep(2000)
    const taken = pipe.readAll()
    await sleep(4000)
    await life.stop()
    const records = wholeLines(await taken).map((text) => JSON.parse(text) as Record_)
    const found = records.filter(({ type, mark }) => type === 'flow' && mark > 100_000)
    const gaps = records.filter(({ type }) => type === 'gap')
    expect(found.length + gaps.length).toBe(60)
    for (const gap of gaps) expect(gap).toMatchObject({ cause: 'file_vanished', at_least: 1 })
  })

  test('removed and not read for too long: given up, and counted', async () => {
    const { log, begin } = place({ deleted_max_age: '1s' }, { outputs: { all: { type: 'stdout' } } })
    const pipe = await Pipe.open()
    add(log, 1)
    const life = begin({ stdout: pipe.writeEnd })
    pipe.closeWrite()
    await comes('the log to be open', () => life.open.includes(log), life)
    appendFileSync(log, lines(2, 30_001, 30))
    await comes('some of it to be read', () => life.cpu > 0.3, life)
    unlinkSync(log)
    await comes('it to be given up', () => !life.open.some((path) => path.endsWith('(deleted)')), life)
    const taken = pipe.readAll()
    await sleep(500)
    await life.stop()
    const records = wholeLines(await taken).map((text) => JSON.parse(text) as Record_)
    const [gap] = records.filter(({ type }) => type === 'gap')
    expect(gap).toMatchObject({ cause: 'file_vanished', reason: expect.stringContaining('removed files may be held for 1 s') })
    expect(records.filter(({ type }) => type === 'flow').length + gap!['count']).toBe(30_001)
  })
})

describe.concurrent('checkpoints', () => {
  async function stopped(from: 'start' | 'end') {
    const at = place({ from })
    const life = at.begin()
    await comes('a checkpoint', () => existsSync(`${at.state}/checkpoint`), life)
    add(at.log, 1, 2, 3)
    await comes('its lines', () => at.out.marks.length === 3, life)
    await life.stop()
    return at
  }

  test.each(['start', 'end'] as const)('T23 lost: files begin as configured (%s), and it is told once', async (from) => {
    const { log, out, state, begin } = await stopped(from)
    rmSync(state, { recursive: true })
    const life = begin()
    await comes('the file to be met', () => existsSync(`${state}/checkpoint`) && readFileSync(`${state}/checkpoint`, 'utf8').includes('a.log'), life)
    add(log, 4)
    await comes('the line since', () => out.marks.at(-1) === 4, life)
    await life.stop()
    expectMarks(out.marks.slice(3), from === 'start' ? [1, 2, 3, 4] : [4])
    expect(life.said.map(({ msg }) => msg)).toEqual([`state directory ${state} ${FIRST_START}: each input begins as configured`])
  })

  test.each([
    ['cut short', (path: string) => truncateSync(path, 30)],
    ['filled with NULs', (path: string) => writeFileSync(path, Buffer.alloc(500))],
  ])('T24 %s: it starts, uses the one before, and the warning names the file', async (_, damage) => {
    const { log, out, state, begin } = await stopped('start')
    expect(existsSync(`${state}/checkpoint.previous`)).toBe(true)
    damage(`${state}/checkpoint`)
    add(log, 4)
    const life = begin()
    await comes('the line since', () => out.marks.at(-1) === 4, life)
    await life.stop()
    expect(firstArrivals(out.look()).flatMap(({ type, mark }) => (type === 'flow' ? [mark] : []))).toEqual([1, 2, 3, 4])
    expect(life.messages).toEqual([expect.stringContaining(`checkpoint ${state}/checkpoint is damaged`)])
  })

  test('T25 ahead of a file that is shorter now: read from its beginning', async () => {
    const { log, out, begin } = await stopped('start')
    truncateSync(log, 0)
    add(log, 4)
    const life = begin()
    await comes('the line', () => out.marks.at(-1) === 4, life)
    await life.stop()
    expect(out.marks).toEqual([1, 2, 3, 4])
    expect(new Set(out.records.map(({ rid }) => rid)).size).toBe(out.records.length)
  })
})

describe.concurrent('what the system refuses', () => {
  test.skipIf(!isRoot)('T28 a network file system without inotify, and stale handles on reading: looked for, and opened anew, not in a hot loop', async () => {
    const { dir, log, out, begin, gaps } = place()
    add(log, 1)
    const trace = scratch('stale')
    const life = begin(stale(log, trace, '6..8'))
    await comes('the first', () => out.marks.length === 1, life)
    for (let mark = 2; mark <= 6; mark++) {
      add(log, mark)
      await sleep(200)
    }
    renameSync(log, `${dir}/a.log.1`)
    add(log, 7)
    add(`${dir}/a.log.1`, 8)
    await comes('all', () => out.marks.length >= 8, life)
    await life.stop()
    expectMarks(out.marks.toSorted(), range(1, 8))
    expect(gaps()).toEqual([])
    const calls = readFileSync(trace, 'utf8').split('\n')
    expect(calls.filter((call) => call.includes('ESTALE'))).toHaveLength(3)
    expect(life.messages.filter((message) => message.includes('ESTALE')).length).toBe(1)
  })

  test.skipIf(!isRoot).each([2, 3, 4, 5, 6, 7, 8, 9, 10])('T28 a handle that is stale from the %ith read on, for three of them: whatever that was for, every line comes', async (first) => {
    const { dir, log, out, begin, gaps } = place()
    add(log, 1)
    const life = begin(stale(log, scratch(`stale-from-${first}`), `${first}..${first + 2}`))
    await comes('the first', () => out.marks.length === 1, life)
    for (let mark = 2; mark <= 5; mark++) {
      add(log, mark)
      await sleep(120)
    }
    renameSync(log, `${dir}/a.log.1`)
    add(log, 6)
    add(`${dir}/a.log.1`, 7)
    await comes('all', () => out.marks.length >= 7, life)
    await life.stop()
    expectMarks(out.marks.toSorted(), range(1, 7))
    expect(gaps()).toEqual([])
  })

  test.skipIf(!isRoot)('T28 a handle that stays stale is asked for seldom', async () => {
    const { log, out, begin } = place()
    add(log, 1)
    const trace = scratch('stays-stale')
    const life = begin(stale(log, trace, '1..6'))
    await sleep(4000)
    expect(readFileSync(trace, 'utf8').split('ESTALE').length - 1).toBeLessThanOrEqual(6)
    await comes('it after all', () => out.marks.length === 1, life)
    await life.stop()
  })

  test.skipIf(!isRoot)('T29 no inotify watch left: told once, and nothing is lost', async () => {
    const { dir, log, out, begin, gaps } = place()
    add(log, 1)
    const life = begin({ under: ['unshare', '--user', '--map-root-user', 'sh', '-c', 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"', 'sh'] })
    await comes('the first', () => out.marks.length === 1, life)
    mkdirSync(`${dir}/more`)
    for (let i = 0; i < 20; i++) add(`${dir}/${i}.log`, 100 + i)
    renameSync(log, `${dir}/a.log.1`)
    add(log, 2)
    await comes('all', () => out.marks.length >= 22, life)
    await life.stop()
    expectMarks(out.marks.toSorted((a, b) => a - b), [1, 2, ...range(100, 119)])
    expect(gaps()).toEqual([])
    expect(life.messages.filter((message) => message.includes('max_user_watches is used up'))).toHaveLength(1)
  })

  test.skipIf(!isRoot)('T33 a file that may not be read is picked up when it may', async () => {
    const { dir, log, out, state, begin, gaps } = place()
    for (const folder of [dir, state]) {
      mkdirSync(folder, { recursive: true })
      chownSync(folder, 65534, 65534)
    }
    writeFileSync(out.path, '')
    chownSync(out.path, 65534, 65534)
    for (let folder = dirname(dir); folder !== tmpdir(); folder = dirname(folder)) chmodSync(folder, 0o755)
    add(log, 1)
    add(`${dir}/b.log`, 11)
    chmodSync(log, 0)
    const life = begin({ under: ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] })
    await comes('the other file', () => out.marks.length === 1, life)
    await comes('that it is told', () => life.messages.length > 0, life)
    add(log, 2)
    chmodSync(log, 0o644)
    await comes('its lines', () => out.marks.length === 3, life)
    chmodSync(log, 0)
    add(log, 3)
    await comes('what an open file still gives', () => out.marks.length === 4, life)
    await life.stop()
    expect(out.marks).toEqual([11, 1, 2, 3])
    expect(gaps()).toEqual([])
    expect(life.messages.filter((message) => message.includes('a.log cannot be read') && message.includes('EACCES'))).toHaveLength(1)
  })

  test('T34 what is no file is passed over, with a warning for each, and holds up no end', async () => {
    const { dir, log, out, begin } = place()
    execFileSync('mkfifo', [`${dir}/fifo.log`])
    mkdirSync(`${dir}/folder.log`)
    symlinkSync('/dev/null', `${dir}/device.log`)
    const socket = createServer().listen(`${dir}/socket.log`)
    await new Promise((resolve) => socket.on('listening', resolve))
    add(log, 1)
    const life = begin()
    await comes('the line', () => out.marks.length === 1, life)
    const kinds = [['fifo', 'a named pipe'], ['folder', 'a folder'], ['device', 'a device'], ['socket', 'a socket']]
    const warnings = kinds.map(([name, what]) => `${dir}/${name}.log is ${what} and is passed over: only regular files are followed${name === 'folder' ? `; the files in it are ${dir}/folder.log/*` : ''}`)
    await comes('four warnings', () => warnings.every((warning) => life.messages.includes(warning)), life)
    await life.stop()
    socket.close()
    expect(life.messages.filter((message) => warnings.includes(message))).toHaveLength(4)
  })

  test('T35 a name that is not UTF-8, over a new start and a rotation too', async () => {
    const { dir, out, begin, gaps } = place()
    const name = (end = ''): Buffer => Buffer.concat([Buffer.from(`${dir}/a`), Buffer.from([0xff]), Buffer.from(`.log${end}`)])
    writeFileSync(name(), line(1))
    let life = begin()
    await comes('the first', () => out.marks.length === 1, life)
    await life.stop()
    appendFileSync(name(), line(2))
    life = begin()
    await comes('the second', () => out.marks.length === 2, life)
    renameSync(name(), name('.1'))
    appendFileSync(name('.1'), line(3))
    writeFileSync(name(), line(4))
    await comes('the rest', () => out.marks.length >= 4, life)
    await life.stop()
    expect(out.marks).toEqual([1, 2, 3, 4])
    expect(gaps()).toEqual(['restart'])
  })
})

describe.concurrent('old files and clocks', () => {
  const DAY = 86_400

  test('left out while they do not change, over a new start too; then what is written is read', async () => {
    const { dir, log, out, begin } = place({ ignore_older: '1d' })
    const aged = (path: string, days: number): void => utimesSync(path, Date.now() / 1000 - days * DAY, Date.now() / 1000 - days * DAY)
    add(log, 1, 2)
    aged(log, 2)
    add(`${dir}/young.log`, 11)
    aged(`${dir}/young.log`, 0.9)
    let life = begin()
    await comes('the younger one', () => out.marks.length === 1, life)
    add(`${dir}/late.log`, 21)
    aged(`${dir}/late.log`, 3)
    await sleep(1500)
    await life.stop()
    expect(out.marks).toEqual([11])
    life = begin()
    await sleep(1000)
    add(log, 3)
    add(`${dir}/late.log`, 22)
    await comes('what was written since', () => out.marks.length === 3, life)
    await life.stop()
    expectMarks(out.marks.toSorted((a, b) => a - b), [3, 11, 22])
  })

  test.runIf(clockIsSettable)('T36 the clock goes back a day: nothing is read again, nothing stops', async () => {
    const { dir, log, out, begin, gaps } = place({ ignore_older: '1h' })
    const clock = new SettableClock(scratch('clock'))
    const options = { env: clock.env }
    add(log, 1)
    let life = begin(options)
    await comes('the first', () => out.marks.length === 1, life)
    clock.set('-1d')
    add(log, 2)
    add(`${dir}/b.log`, 11)
    await comes('lines since', () => out.marks.length === 3, life)
    renameSync(log, `${dir}/a.log.1`)
    add(log, 3)
    await comes('a rotation', () => out.marks.length === 4, life)
    await sleep(1500)
    await life.stop()
    // started anew in what is the day before its checkpoint
    clock.set('-2d')
    life = begin(options)
    add(log, 4)
    await comes('the next', () => out.marks.length === 5, life)
    expect(life.said.every(({ time }) => time < new Date().toISOString())).toBe(true)
    await life.stop()
    expectMarks(out.marks.toSorted((a, b) => a - b), [1, 2, 3, 4, 11])
    expect(gaps()).toEqual(['restart'])
    // when the first run ended is a time to come
    expect(out.gaps[0]).not.toHaveProperty('from')
  })
})

/** A file that was rotated away: `last` is the last mark in it. */
interface Rotated {
  readonly birthtime: bigint
  readonly last: number
}

/** What a checkpoint says of each file; nothing while it is being exchanged. */
function positionsIn(path: string): { readonly birthtime: bigint; readonly offset: number; readonly size: number }[] {
  try {
    const { inputs } = JSON.parse(readFileSync(path, 'utf8').split('\n')[1]!) as { inputs: { logs: { birthtime: string; offset: number; size: number }[] } }
    return inputs.logs.map(({ birthtime, offset, size }) => ({ birthtime: BigInt(birthtime), offset, size }))
  } catch {
    return []
  }
}

describe('killed', () => {
  const KILLS = isLong ? 200 : 4
  const LIFE_MS = isLong ? 1700 : 700
  const ROTATED_LINES = isLong ? 4000 : 2000

  test('T31 again and again under load with rotation: at each output every record, none torn, the same under the same id, first ones in order', async () => {
    const began = performance.now()
    const dir = scratch('killed')
    mkdirSync(dir)
    const log = `${dir}/a.log`
    const [file, piped] = [scratch('killed.file'), scratch('killed.pipe')]
    const input = { path: `${dir}/*.log`, from: 'start' }
    const at = place(input, { outputs: { file: { type: 'file', path: file }, pipe: { type: 'stdout' } } })
    const calm = place(input)
    const pipe = await Pipe.open()
    const reader = start('sh', ['-c', 'exec cat > "$1"', 'sh', piped], [pipe.readEnd, 'ignore', 'ignore'])
    const never = calm.begin()
    let life = at.begin({ stdout: pipe.writeEnd })
    const [wanted, byFile, byPipe] = [new Arrivals(calm.out.path), new Arrivals(file), new Arrivals(piped)]
    let [mark, kills] = [0, 0]
    const write = (lineCount: number): void => {
      appendFileSync(log, lines(mark + 1, mark + lineCount))
      mark += lineCount
    }
    const isRead = (): boolean =>
      [wanted, byFile, byPipe].every((arrivals) => {
        expect(arrivals.look().faults, `in ${arrivals.path}`).toEqual([])
        return arrivals.last === mark
      })
    // the oldest goes when it was read, and both checkpoints are beyond it: the one before is what a kill may leave while they are exchanged
    const checkpoint = `${at.state}/checkpoint`
    const isBehind = ({ birthtime, last }: Rotated): boolean =>
      wanted.last >= last &&
      [checkpoint, `${checkpoint}.previous`].every((path) => {
        const positions = positionsIn(path)
        return positions.some((other) => other.birthtime > birthtime) && !positions.some((same) => same.birthtime === birthtime && same.offset < same.size)
      })
    const kept: Rotated[] = []
    let rotated = 0
    let rotations = 0
    const rotate = (): void => {
      while (kept.length > 2 && isBehind(kept[0]!)) {
        unlinkSync(`${dir}/a.log.${kept.length}`)
        kept.shift()
      }
      for (let n = kept.length; n > 0; n--) renameSync(`${dir}/a.log.${n}`, `${dir}/a.log.${n + 1}`)
      kept.push({ birthtime: statSync(log, { bigint: true }).birthtimeNs, last: mark })
      renameSync(log, `${dir}/a.log.1`)
      rotations++
      rotated = mark
    }
    const untilRead = async (): Promise<void> => {
      await comes(`mark ${mark}`, isRead, life).catch((error: Error) => {
        throw new Error(`${error.message}; as far as ${wanted.last}, ${byFile.last}, ${byPipe.last}; after ${kills} kills and ${rotations} rotations, of ${byFile.gaps.length} starts`)
      })
    }
    // what is made and gone before the program has looked at all, or before its first checkpoint, it cannot know
    write(200)
    await comes('a checkpoint', () => existsSync(checkpoint) && readFileSync(checkpoint, 'utf8').includes('a.log'), life)
    await untilRead()
    for (; kills < KILLS; kills++) {
      const end = performance.now() + 300 + chance() * LIFE_MS
      while (performance.now() < end) {
        write(200)
        if (mark - rotated >= ROTATED_LINES) {
          rotate()
          if (rotations % 2 === 0) await untilRead()
        }
        await sleep(15)
      }
      await life.kill()
      write(50)
      // and while nobody looks
      if (kills % 3 === 0) rotate()
      write(50)
      life = at.begin({ stdout: pipe.writeEnd })
    }
    await untilRead()
    await Promise.all([never.stop(), life.stop()])
    pipe.closeWrite()
    await new Promise((resolve) => reader.on('close', resolve))
    pipe.closeRead()
    for (const arrivals of [wanted, byFile, byPipe]) {
      arrivals.look()
      expect(arrivals.faults, `of ${arrivals.faultsInAll} faults in ${arrivals.path}`).toEqual([])
      expect(arrivals.torn, `bytes behind the last whole line of ${arrivals.path}`).toBe(0)
      expect(arrivals.last, `marks in ${arrivals.path}`).toBe(mark)
      expect(arrivals.differsFrom(wanted), 'the first mark with another record than without kills').toBe(0)
      expect(arrivals.gaps.filter(({ cause }) => cause !== 'restart')).toEqual([])
    }
    expect(wanted.again + wanted.gaps.length).toBe(0)
    if (!isLong) return
    expect(byFile.again).toBeGreaterThan(0)
    console.log({ kills: KILLS, rotations, left: kept.length, lines: mark, again: { file: byFile.again, pipe: byPipe.again }, gaps: byFile.gaps.length, seconds: Math.round((performance.now() - began) / 1000) })
  })
})
