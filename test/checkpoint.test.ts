/**
 * What is remembered with --state, on the built program: its form, what damage and full disks do to it, that two programs never share it, and that a cut is one cut:
 * killed at any moment and started again, no logged drop is counted twice or lost.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, type Record_, scratch, sleep } from './process-harness.js'
import { add, comes, configured, firstArrivals, isLong, Life, lines, range, Written } from './run-harness.js'

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
function place(from: 'start' | 'end' = 'start', state = scratch('state')) {
  const log = scratch('a.log')
  const out = new Written(scratch('out.ndjson'))
  const config = configured('follow.json', {
    state,
    inputs: { logs: { type: 'file', path: scratch('*.log'), from, poll: '20ms', rescan: '100ms' } },
    outputs: { all: { type: 'file', path: out.path } },
  })
  return { log, out, state, config, begin: () => new Life(['run', '-c', config]) }
}

const current = (state: string): string => `${state}/checkpoint`
const previous = (state: string): string => `${state}/checkpoint.previous`

/** The body, of a checkpoint that holds together. */
function bodyOf(path: string): Record_ {
  const text = readFileSync(path, 'utf8')
  const [, crc, length] = /^conntrail-checkpoint 1 ([0-9a-f]{8}) (\d+)\n/.exec(text)!
  const body = text.slice(text.indexOf('\n') + 1, -1)
  expect(crc32(body)).toBe(Number.parseInt(crc!, 16))
  expect(Buffer.byteLength(body)).toBe(Number(length))
  return JSON.parse(body) as Record_
}

/** Two generations: the first at 3 lines, the second at 6. Nothing of them runs. */
async function twoGenerations() {
  const at = place()
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

  test('damaged like the one before it: each is named, and files begin as configured', async () => {
    const at = await twoGenerations()
    for (const path of [current(at.state), previous(at.state)]) writeFileSync(path, 'conntrail-checkpoint 1 00000000 2\n{}\n')
    const { marks, messages } = await again(at)
    expect(marks).toEqual(range(1, 8))
    expect(messages).toEqual([expect.stringContaining(current(at.state)), expect.stringContaining(previous(at.state))])
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
    for (const lock of [`${process.pid} 00000000-0000-0000-0000-000000000000.1\n`, 'nonsense', '']) {
      writeFileSync(`${at.state}/lock`, lock)
      const life = at.begin()
      add(at.log, 9)
      await comes('a line', () => at.out.marks.at(-1) === 9, life)
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
  const KILLS = isLong ? 200 : 8
  const PIECES = isLong ? 400 : 60
  const BEGIN = Date.UTC(2026, 10, 22, 10, 0, 0)

  /** Floods of two namespaces, with quiet between in which episodes end; lines of one second are one piece. */
  function pieces(): string[] {
    const all: string[] = []
    let ms = BEGIN
    for (let piece = 0; piece < PIECES; piece++) {
      ms += piece % 15 === 14 ? 90_000 : 1000
      const stamp = (i: number): string => new Date(ms + i).toISOString().replace('T', ' ').replace('Z', '').replace(' ', 'T')
      const drops = Array.from({ length: 3 + (piece % 4) }, (_, i) => `${stamp(i)}000+00:00 gw1 kernel: nf_conntrack: nf_conntrack: table full${piece % 3 === 0 ? ' in netns 4026532999' : ''}, dropping packet`)
      const rest = [`${stamp(50)}000+00:00 gw1 kernel: net_ratelimit: ${piece % 5} callbacks suppressed`, `${stamp(60)}000+00:00 gw1 sshd[1]: nothing of ours`]
      all.push([...drops, ...rest].join('\n') + '\n')
    }
    return all
  }

  function logPlace(name: string) {
    const folder = scratch(name)
    mkdirSync(folder)
    const log = `${folder}/kern.log`
    const out = new Written(`${folder}/out.ndjson`)
    const config = configured(`${name}.json`, {
      state: `${folder}/state`,
      inputs: { logs: { type: 'file', path: `${folder}/kern.log*`, from: 'start', poll: '10ms', rescan: '100ms' } },
      outputs: { all: { type: 'file', path: out.path } },
    })
    return { folder, log, out, begin: () => new Life(['run', '-c', config]) }
  }

  /** What each episode had counted at its end, and every record by its id. */
  function episodes(records: readonly Record_[]): Map<string, Record_> {
    const last = new Map<string, Record_>()
    for (const record of records) if (record['type'] === 'alert' && (last.get(record['episode'])?.['seq'] ?? 0) <= record['seq']) last.set(record['episode'], record)
    return last
  }

  const TAIL = `${new Date(BEGIN + 86_400_000).toISOString().replace('Z', '')}000+00:00 gw1 kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n`

  test('each episode has counted what it counts in a run that was never killed', { timeout: isLong ? 1_800_000 : 60_000 }, async () => {
    const texts = pieces()
    const calm = logPlace('calm')
    writeFileSync(calm.log, [...texts, TAIL].join(''))
    const whole = calm.begin()
    const kernelLines = [...texts, TAIL].join('').split('table full').length - 1
    const logged = (out: Written): number => new Set(out.look().filter(({ type, kind }) => type === 'kernel' && kind !== 'suppressed').map(({ rid }) => rid)).size
    await comes('all of the log', () => logged(calm.out) >= kernelLines, whole)
    await whole.stop()
    const wanted = [...episodes(calm.out.look())].map(([episode, { drops, status }]) => ({ episode, logged: drops.logged, status }))
    expect(wanted.length).toBeGreaterThan(3)
    expect(wanted.reduce((sum, one) => sum + one.logged, 0)).toBe(kernelLines)

    const wild = logPlace('wild')
    let life = wild.begin()
    let kills = 0
    const perKill = PIECES / KILLS
    for (const [i, text] of texts.entries()) {
      appendFileSync(wild.log, text)
      if (i % 17 === 16) renameSync(wild.log, `${wild.log}.${i}`)
      await sleep(Math.random() * 60)
      if (i + 1 < (kills + 1) * perKill) continue
      // at any moment of the second between two checkpoints, and in the midst of writing one
      await sleep(Math.random() * 1400)
      await life.kill()
      kills++
      life = wild.begin()
    }
    appendFileSync(wild.log, TAIL)
    await comes('all of the log', () => logged(wild.out) >= kernelLines, life)
    await life.stop()
    wild.out.checkEnd()
    expect(kills).toBe(KILLS)
    const found = [...episodes(wild.out.records)].map(([episode, { drops, status }]) => ({ episode, logged: drops.logged, status }))
    expect(found.reduce((sum, one) => sum + one.logged, 0), JSON.stringify({ found, wanted })).toBe(kernelLines)
    expect(found.map((one) => one.logged).sort()).toEqual(wanted.map((one) => one.logged).sort())
  })
})
