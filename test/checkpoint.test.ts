/**
 * What is remembered with --state, on the built program: its form, what damage and full disks do to it, that two programs never share it, and that a cut is one cut:
 * killed at any moment and started again, no logged drop is counted twice or lost.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, type Record_, scratch, sleep } from './process-harness.js'
import { add, comes, configured, firstArrivals, isLong, Life, range, Written } from './run-harness.js'
import { seeded } from './seed.js'

const chance = seeded('checkpoints')

const isRoot = process.getuid?.() === 0
const mounts: string[] = []

afterEach(() => {
  cleanUpMounts()
  cleanUp()
})

function cleanUpMounts(): void {
  for (const path of mounts.splice(0)) execFileSync('umount', ['-l', path])
}

/** A disk of that many bytes, gone after the test. */
function smallDisk(name: string, bytes: number): string {
  const path = scratch(name)
  mkdirSync(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0755`, 'conntrail-test', path])
  mounts.push(path)
  return path
}

/** A log, where the records of it go, and what is remembered of it. */
function place(from: 'start' | 'end' = 'start', state = scratch('state'), more: object = {}) {
  const log = scratch('a.log')
  const out = new Written(scratch('out.ndjson'))
  const config = configured('follow.json', {
    state,
    inputs: { logs: { type: 'file', path: scratch('*.log'), from, poll: '20ms', rescan: '100ms' } },
    outputs: { all: { type: 'file', path: out.path } },
    ...more,
  })
  return { log, out, state, config, begin: () => new Life(['run', '-c', config]) }
}

const current = (state: string): string => `${state}/checkpoint`
const previous = (state: string): string => `${state}/checkpoint.previous`

/** Between two renames there is none for a moment. */
function textOf(path: string): string {
  const end = performance.now() + 2000
  for (;;) {
    try {
      return readFileSync(path, 'utf8')
    } catch (error) {
      if (performance.now() > end) throw error
    }
  }
}

/** The body, of a checkpoint that holds together. */
function bodyOf(path: string): Record_ {
  const text = textOf(path)
  const [, crc, length] = /^conntrail-checkpoint 1 ([0-9a-f]{8}) (\d+)\n/.exec(text)!
  const body = text.slice(text.indexOf('\n') + 1, -1)
  expect(crc32(body)).toBe(Number.parseInt(crc!, 16))
  expect(Buffer.byteLength(body)).toBe(Number(length))
  return JSON.parse(body) as Record_
}

/** Two generations: the first at 3 lines, the second at 6. Nothing of them runs. */
async function twoGenerations(from: 'start' | 'end' = 'start', more: object = {}) {
  const at = place(from, undefined, more)
  // found after the first look, it is read whole
  if (from === 'end') {
    const empty = at.begin()
    await comes('a checkpoint', () => existsSync(current(at.state)), empty)
    await empty.stop()
  }
  for (const marks of [range(1, 3), range(4, 6)]) {
    add(at.log, ...marks)
    const life = at.begin()
    await comes('its lines', () => at.out.marks.length >= marks.at(-1)!, life)
    await life.stop()
    if (marks[0] === 1) copyFileSync(current(at.state), scratch('first'))
  }
  copyFileSync(scratch('first'), previous(at.state))
  return at
}

/** Started once more with two lines more, until these are there: the marks that came, and what was said. */
async function again(at: ReturnType<typeof place>): Promise<{ marks: number[]; messages: string[] }> {
  const before = at.out.marks.length
  add(at.log, 7, 8)
  const life = at.begin()
  await comes('the lines since', () => at.out.marks.slice(before).includes(8), life)
  await life.stop()
  return { marks: at.out.marks.slice(before), messages: life.messages }
}

describe('a checkpoint', () => {
  test('holds positions and episodes, with a format, a length and a sum; the one before is kept; a start says that flows were forgotten', async () => {
    const at = place()
    add(at.log, 1, 2)
    const first = at.begin()
    await comes('two lines', () => at.out.marks.length === 2, first)
    await first.stop()
    expect(at.out.gaps).toEqual([])
    const body = bodyOf(current(at.state))
    expect(body['inputs'].logs).toEqual([expect.objectContaining({ path: at.log, offset: statSync(at.log).size, generation: 0 })])
    expect(Object.keys(body['detectors']).sort()).toEqual(['levels', 'tableFull'])
    expect(body['bootId']).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim())
    expect(readdirSync(at.state).includes('lock')).toBe(false)

    const { marks, messages } = await again(at)
    expect(marks).toEqual([7, 8])
    expect(messages).toEqual([])
    expect(bodyOf(previous(at.state))['inputs'].logs[0].offset).toBeLessThanOrEqual(statSync(at.log).size)
    const [gap, ...more] = at.out.gaps
    expect(more).toEqual([])
    expect(gap).toMatchObject({ cause: 'restart', host: 'gw1', from: new Date(body['written'] / 1000).toISOString().replace('Z', `${String(body['written'] % 1000).padStart(3, '0')}Z`) })
    expect(gap!['to'] >= gap!['from']).toBe(true)
    // it comes before what follows from it
    expect(at.out.records.slice(2).map(({ type }) => type)).toEqual(['gap', 'flow', 'flow'])
  })

  test('is written while the program runs, and holds no more than what is written', async () => {
    const at = place()
    add(at.log, 1, 2, 3)
    const life = at.begin()
    await comes('a checkpoint of all', () => existsSync(current(at.state)) && bodyOf(current(at.state))['inputs'].logs?.[0]?.offset === statSync(at.log).size, life)
    await life.kill()
    expect(at.out.marks).toEqual([1, 2, 3])
    const next = await again(at)
    expect(next.marks).toEqual([7, 8])
  })

  test('of a run that met no file yet: what is made while it is stopped is read whole', async () => {
    const at = place('end')
    const first = at.begin()
    await comes('a checkpoint', () => existsSync(current(at.state)), first)
    await sleep(500)
    await first.stop()
    add(at.log, 1, 2)
    const second = at.begin()
    await comes('its lines', () => at.out.marks.length === 2, second)
    await second.stop()
    expect(at.out.marks).toEqual([1, 2])
  })

  test.each([
    ['cut short', (path: string) => truncateSync(path, statSync(path).size - 20)],
    ['cut to nothing', (path: string) => truncateSync(path, 0)],
    ['filled with NULs', (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size))],
    ['with one bit turned', (path: string) => writeFileSync(path, readFileSync(path, 'latin1').replace('"offset"', '"offseu"'), 'latin1')],
  ])('%s: the one before is used, and the file is named', async (_, damage) => {
    const at = await twoGenerations()
    damage(current(at.state))
    const { marks, messages } = await again(at)
    expect(marks).toEqual([4, 5, 6, 7, 8])
    expect(messages).toEqual([expect.stringContaining(`checkpoint ${current(at.state)} is damaged`)])
    // the ids are those of the first time
    expect(firstArrivals(at.out.records.filter(({ type }) => type === 'flow')).map(({ mark }) => mark)).toEqual(range(1, 8))
  })

  test.each<[string, (path: string) => void]>([
    ['a sum that does not hold', (path) => writeFileSync(path, 'conntrail-checkpoint 1 00000000 2\n{}\n')],
    ['cut short', (path) => truncateSync(path, statSync(path).size - 20)],
    ['empty', (path) => truncateSync(path, 0)],
    ['NULs', (path) => writeFileSync(path, Buffer.alloc(statSync(path).size))],
    ['garbage', (path) => writeFileSync(path, randomBytes(500))],
    ['a number of a version that never was', (path) => writeFileSync(path, readFileSync(path, 'latin1').replace('checkpoint 1', 'checkpoint 0'), 'latin1')],
  ])('damaged like the one before it (%s): each is named, a gap says so, and files are read from their beginning under the same ids', async (_, damage) => {
    const at = await twoGenerations('end')
    const before = new Map(at.out.records.filter(({ type }) => type === 'flow').map(({ mark, rid }) => [mark, rid]))
    for (const path of [current(at.state), previous(at.state)]) damage(path)
    const { marks, messages } = await again(at)
    expect(marks).toEqual(range(1, 8))
    expect(messages).toEqual([expect.stringContaining(current(at.state)), expect.stringContaining(previous(at.state))])
    const after = at.out.records.filter(({ type }) => type === 'flow').slice(before.size)
    expect(after.filter(({ mark, rid }) => before.has(mark) && before.get(mark) !== rid)).toEqual([])
    expect(at.out.gaps.at(-1)).toMatchObject({ cause: 'restart', at_least: 1, reason: 'the checkpoint is damaged: files are read from their beginning' })
  })

  test('damaged like the one before it, with on_damage: end: only what comes from now on is read, and a gap says so', async () => {
    const at = await twoGenerations('start', { on_damage: 'end' })
    for (const path of [current(at.state), previous(at.state)]) truncateSync(path, 0)
    add(at.log, 7)
    const life = at.begin()
    await comes('a checkpoint', () => textOf(current(at.state)).length > 0, life)
    add(at.log, 8)
    await comes('the next line', () => at.out.marks.includes(8), life)
    await life.stop()
    expect(at.out.marks).toEqual([...range(1, 6), 8])
    expect(at.out.gaps.at(-1)).toMatchObject({ cause: 'restart', reason: 'the checkpoint is damaged: files are read from their end' })
  })

  test('whose sum holds and whose content is none: reported, never a start that fails', async () => {
    const at = await twoGenerations()
    for (const body of ['null', '[]', '{}', '{"written":1,"inputs":{"logs":[7]},"detectors":{"levels":7,"tableFull":{"x":1}}}', '{"inputs":7,"detectors":null}']) {
      writeFileSync(current(at.state), `conntrail-checkpoint 1 ${crc32(body).toString(16).padStart(8, '0')} ${Buffer.byteLength(body)}\n${body}\n`)
      rmSync(previous(at.state), { force: true })
      const life = at.begin()
      const before = at.out.marks.length
      await comes('the lines', () => at.out.marks.length >= before + 6, life)
      await life.stop()
      expect(life.messages.join('\n'), body).toMatch(/checkpoint/)
    }
  })

  test('of another version is refused: status 1, with what to do, and it stays as it is', async () => {
    const at = await twoGenerations()
    const text = readFileSync(current(at.state), 'utf8').replace('conntrail-checkpoint 1', 'conntrail-checkpoint 2')
    writeFileSync(current(at.state), text)
    const life = at.begin()
    expect(await life.ended()).toBe(1)
    expect(life.messages).toEqual([`checkpoint ${current(at.state)} has format 2, this version knows 1: run the version that wrote it, or name another state directory`])
    expect(life.done).toBeDefined()
    expect(readFileSync(current(at.state), 'utf8')).toBe(text)
    expect(at.out.marks).toEqual(range(1, 6))
  })
})

describe('a state directory', () => {
  test('is for one program: a second one is refused, and the first goes on', async () => {
    const at = place()
    add(at.log, 1)
    const first = at.begin()
    await comes('its line', () => at.out.marks.length === 1, first)
    const second = new Life(['run', '-i', at.log, '-o', `file:${scratch('second.ndjson')}`, '--state', at.state])
    expect(await second.ended()).toBe(1)
    expect(second.messages).toEqual([`state directory ${at.state} is in use by process ${first.pid}: each conntrail needs one of its own`])
    add(at.log, 2)
    await comes('the next line', () => at.out.marks.length === 2, first)
    expect(readFileSync(`${at.state}/lock`, 'utf8')).toMatch(new RegExp(`^${first.pid} `))
    await first.stop()
  })

  test('is free again when its program was killed, and when its lock is of a number that someone else has now', async () => {
    const at = place()
    add(at.log, 1)
    const first = at.begin()
    await comes('a checkpoint', () => existsSync(current(at.state)), first)
    await first.kill()
    expect(existsSync(`${at.state}/lock`)).toBe(true)
    await again(at)
    for (const [i, lock] of [`${process.pid} 00000000-0000-0000-0000-000000000000.1\n`, 'nonsense', ''].entries()) {
      writeFileSync(`${at.state}/lock`, lock)
      const life = at.begin()
      add(at.log, 9 + i)
      await comes('a line', () => at.out.marks.at(-1) === 9 + i, life)
      await life.stop()
    }
  })

  test('that cannot be made: status 1, and the message names it', async () => {
    const at = place('start', '/dev/null/state')
    const life = at.begin()
    expect(await life.ended()).toBe(1)
    expect(life.messages).toEqual([expect.stringContaining('state directory /dev/null/state cannot be made')])
  })

  test.skipIf(!isRoot)('T32 on a full disk: records flow on, the old checkpoint stays whole, and it is written again when there is room', async () => {
    const disk = smallDisk('disk', 1 << 17)
    const at = place('start', `${disk}/state`)
    add(at.log, 1)
    const life = at.begin()
    await comes('a checkpoint', () => existsSync(current(at.state)), life)
    const offset = (): number => bodyOf(current(at.state))['inputs'].logs?.[0]?.offset ?? 0
    await comes('its place', () => offset() > 0, life)
    const before = offset()
    execFileSync('sh', ['-c', 'cat /dev/zero > "$1" 2>/dev/null || true', 'sh', `${disk}/filler`])
    add(at.log, 2)
    await comes('the trouble to be told', () => life.messages.some((message) => message.includes('cannot be written')), life)
    add(at.log, 3, 4)
    await comes('records', () => at.out.marks.length === 4, life)
    await sleep(1500)
    // one of the two is the old one, and whole
    const kept = [current(at.state), previous(at.state)].filter((path) => existsSync(path)).map((path) => bodyOf(path)['inputs'].logs?.[0]?.offset ?? 0)
    expect(kept).toContain(before)
    expect(life.messages.filter((message) => message.includes('cannot be written'))).toHaveLength(1)
    rmSync(`${disk}/filler`)
    await comes('a checkpoint of all', () => offset() === statSync(at.log).size, life)
    await comes('that it is said', () => life.messages.some((message) => message.includes('is written again')), life)
    await life.stop()
    expect((await again(at)).marks).toEqual([7, 8])
  })
})

describe('a kernel log with drops, killed and started again', () => {
  const KILLS = isLong ? 200 : 5

  function logPlace(name: string) {
    const folder = scratch(name)
    mkdirSync(folder)
    const out = new Written(`${folder}/out.ndjson`)
    const config = configured(`${name}.json`, {
      state: `${folder}/state`,
      inputs: { logs: { type: 'file', path: `${folder}/kern.log*`, from: 'start', poll: '10ms', rescan: '100ms' } },
      outputs: { all: { type: 'file', path: out.path } },
    })
    return { log: `${folder}/kern.log`, out, begin: () => new Life(['run', '-c', config]) }
  }

  /** Lines of this moment: a namespace that is named floods on and on, another now and then, and what else is in such a log. */
  function piece(number: number): string {
    const line = (text: string, i: number): string => `${new Date(Date.now() + i).toISOString().replace('Z', '')}000+00:00 gw1 ${text}\n`
    const drops = Array.from({ length: 3 + (number % 4) }, (_, i) => line(`kernel: nf_conntrack: nf_conntrack: table full${number % 3 === 0 ? ' in netns 4026532999' : ' in netns 4026532888'}, dropping packet`, i))
    return `${drops.join('')}${line(`kernel: net_ratelimit: ${number % 5} callbacks suppressed`, 8)}${line('sshd[1]: nothing of ours', 9)}`
  }

  /** By namespace: the last word on the only episode that there is. */
  function episodes(out: Written): Record_ {
    const last: Record_ = {}
    const ids: Record_ = {}
    for (const { type, netns, episode, seq, status, drops } of out.look()) {
      if (type !== 'alert') continue
      expect(episode, 'one flood is one episode').toBe((ids[netns] ??= episode))
      if (seq >= (last[netns]?.seq ?? 0)) last[netns] = { seq, status, logged: drops.logged, suppressed: drops.suppressed }
    }
    return Object.fromEntries(Object.entries(last).map(([netns, { status, logged, suppressed }]) => [netns, { status, logged, suppressed }]))
  }

  const drops = (out: Written): number => new Set(out.look().filter(({ type, kind }) => type === 'kernel' && kind === 'table_full').map(({ rid }) => rid)).size

  test('what was logged is counted as in a run that was never killed, in one episode', { timeout: isLong ? 1_800_000 : 60_000 }, async () => {
    const [calm, wild] = [logPlace('calm'), logPlace('wild')]
    let written = 0
    let pieces = 0
    const write = (): void => {
      const text = piece(pieces++)
      written += text.split('table full').length - 1
      for (const { log } of [calm, wild]) {
        // by its date, as logrotate's dateext: the older ones come first
        if (pieces % 23 === 0) renameSync(log, `${log}-${20261122000 + pieces}`)
        appendFileSync(log, text)
      }
    }
    const whole = calm.begin()
    let life = wild.begin()
    for (let kill = 0; kill < KILLS; kill++) {
      // at any moment of the second between two checkpoints, and in the midst of writing one
      const end = performance.now() + 150 + chance() * 2000
      while (performance.now() < end) {
        write()
        await sleep(chance() * 40)
      }
      await life.kill()
      write()
      life = wild.begin()
    }
    await comes('all that was logged', () => drops(calm.out) === written && drops(wild.out) === written, life)
    await Promise.all([whole.stop(), life.stop()])
    wild.out.checkEnd()
    expect(episodes(wild.out)).toEqual(episodes(calm.out))
    expect(Object.values(episodes(wild.out)).reduce((sum: number, { logged }) => sum + logged, 0)).toBe(written)
    firstArrivals(wild.out.records.filter(({ type }) => type === 'kernel'))
  })
})
