/**
 * Delivery on the built program: killed at any moment beside a receiver that does what receivers do, through an Alertmanager, with a receiver that is down, on disks
 * that fail, and with secrets that must not show. What each answer of a receiver means is in webhook.test.ts, what damage does to a spool in spool.test.ts.
 */
import { execFileSync } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { type Letter, readLetters, replayLetters } from '../src/deadletters.js'
import { cleanUp, freePort, output, Pipe, Program, program, type Record_, scratch, sleep, start, until } from './process-harness.js'
import { clockIsSettable, comes, configured, firstArrivals, isLong, Life, line, SettableClock, Written } from './run-harness.js'
import { type Got, makePki, Receiver, receive, type Reply, ridsOf, status, stopReceivers } from './webhook-harness.js'
import { seeded } from './seed.js'

const chance = seeded('delivery')

afterEach(async () => {
  cleanUp()
  await stopReceivers()
})

/** A line of a syslog file, of this moment or so many milliseconds ago. */
function dropped(netns = 0, agoMs = 0): string {
  const stamp = new Date(Date.now() - agoMs).toISOString().replace('Z', '000+00:00')
  return `${stamp} gw1 kernel: nf_conntrack: nf_conntrack: table full${netns === 0 ? '' : ` in netns ${netns}`}, dropping packet\n`
}

const recordsOf = (text: string): Record_[] => text.split('\n').filter((one) => one !== '').map((one) => JSON.parse(one) as Record_)

/** What a command of the program prints, to its end. */
const command = (...args: string[]): Promise<string> => output(start(process.execPath, [program, ...args], ['ignore', 'pipe', 'ignore']))

const EVERYTHING = [{ type: ['flow', 'kernel', 'alert', 'gap'] }]
/** Nothing that takes long. */
const HASTY = {
  when: EVERYTHING,
  batch: { records: 200, bytes: '1MB', every: '20ms' },
  timeouts: { connect: '1s', headers: '150ms', total: '300ms' },
  retry: { first: '5ms', max: '50ms', circuit_after: 5 },
}

/** ... but what is slow is waited for: nothing is sent twice because the machine is busy. */
const PATIENT = { ...HASTY, timeouts: { connect: '10s', headers: '30s', total: '40s' } }

test.runIf(clockIsSettable).each(['+400d', '-20000d'])('the clock is set by %s while the receiver is down: everything that waits arrives', { timeout: 60_000 }, async (offset) => {
  const receiver = await receive()
  receiver.usual = status(503)
  const log = scratch(`set${offset}.log`)
  writeFileSync(log, '')
  const clock = new SettableClock(scratch(`clock${offset}`))
  const config = configured(`set${offset}`, {
    inputs: { log: { type: 'file', path: log, from: 'start' } },
    outputs: { hook: { type: 'webhook', url: receiver.url(), ...PATIENT } },
  })
  const life = new Life(['run', '-c', config, '--state', scratch(`state${offset}`)], { env: clock.env })
  appendFileSync(log, Array.from({ length: 20 }, (_, i) => line(i + 1)).join(''))
  await comes('a try', () => receiver.got.length > 0, life)
  clock.set(offset)
  const tries = receiver.got.length
  await comes('tries by the new clock', () => receiver.got.length > tries + 3, life)
  receiver.usual = status(200)
  receiver.got.length = 0
  appendFileSync(log, line(21))
  await comes('all of them', () => new Set(receiver.rids).size >= 21, life)
  await life.stop()
  expect(life.said.filter(({ msg }) => /too old|lost/.test(msg as string))).toEqual([])
  expect(life.done!.gaps).toBe(0)
})

describe('killed at any moment', () => {
  const KILLS = isLong ? 200 : 6
  const LINES_A_STEP = 10
  /** between two steps, at most */
  const PACE_MS = isLong ? 60 : 150
  const KEY = Buffer.from('0123456789abcdef0123456789abcdef')
  /** The receiver refuses these for good, until it is mended. */
  const isRefused = ({ mark }: Record_): boolean => typeof mark === 'number' && mark % (isLong ? 500 : 200) === 77

  function signatureOf({ headers, sent }: Got): string {
    const text = `${headers['webhook-id']}.${headers['webhook-timestamp']}.`
    return `v1,${createHmac('sha256', KEY).update(text).update(sent).digest('base64')}`
  }

  test('every record at every output, ids stable, signatures valid; what was refused is in the dead letters, and arrives when it is replayed', { timeout: isLong ? 1_800_000 : 60_000 }, async () => {
    const receiver = await receive()
    const taken: Record_[] = []
    const arrived = new Set<string>()
    const answers: Record<string, number> = {}
    let isMended = false
    receiver.usual = (got, response, request) => {
      const records = recordsOf(got.text)
      const count = (what: string): void => void (answers[what] = (answers[what] ?? 0) + 1)
      const turn = chance()
      if (turn < 0.1) return count('500'), void response.writeHead(500).end()
      if (turn < 0.2) return count('429'), void response.writeHead(429, { 'retry-after': turn < 0.11 ? '1' : '0' }).end()
      if (turn < 0.25) return count('hangs')
      if (turn < 0.3) return count('dropped unread'), void request.socket.destroy()
      if (!isMended && records.some(isRefused)) return count('422'), void response.writeHead(422).end('not these')
      taken.push(...records)
      for (const { rid } of records) arrived.add(rid as string)
      if (turn < 0.35) return count('dropped when taken'), void request.socket.destroy()
      count('200')
      response.writeHead(200).end()
    }
    mkdirSync(scratch('logs'))
    const [flows, kernel] = [scratch('logs/flows.log'), scratch('logs/kern.log')]
    const file = new Written(scratch('out.ndjson'))
    const state = scratch('state')
    const inputs = { logs: { type: 'file', path: scratch('logs/*.log'), from: 'start', poll: '20ms', rescan: '100ms' } }
    const hook = { type: 'webhook', url: receiver.url(), ...HASTY, signing: { scheme: 'standard', secret: `whsec_${KEY.toString('base64')}` } }
    const config = configured('run.json', { state, inputs, outputs: { file: { type: 'file', path: file.path, when: EVERYTHING }, out: { type: 'stdout', when: EVERYTHING }, hook } })

    const printed: Promise<Buffer>[] = []
    const begin = async (): Promise<Life> => {
      const pipe = await Pipe.open()
      const life = new Life(['run', '-c', config], { stdout: pipe.writeEnd })
      pipe.closeWrite()
      printed.push(pipe.readAll())
      return life
    }
    let mark = 0
    const write = (): void => {
      appendFileSync(flows, Array.from({ length: LINES_A_STEP }, () => line(++mark)).join(''))
      appendFileSync(kernel, dropped(mark % 3 === 0 ? 4_026_532_999 : 0))
    }
    for (let kills = 0; kills < KILLS; kills++) {
      const life = await begin()
      // in the midst of the start, of a request, of a checkpoint, which comes each second
      const end = performance.now() + chance() * 2000
      while (performance.now() < end) {
        write()
        await sleep(chance() * PACE_MS)
      }
      await life.kill()
    }
    // at least one of each kind, however short the lives were
    while (mark < 100) write()
    const life = await begin()
    // what the file holds when it is read in one go, by a run that remembers nothing
    const whole = recordsOf(await command('run', '--once', '-c', configured('once.json', { inputs, outputs: { out: { type: 'stdout' } } })))
    const wanted = new Set(whole.filter(({ type }) => type === 'flow' || type === 'kernel').map(({ rid }) => rid as string))
    expect(wanted.size).toBe(mark + mark / LINES_A_STEP)
    const refused = new Set(whole.filter(isRefused).map(({ rid }) => rid as string))
    const letters = async (): Promise<Record_[]> => recordsOf(await command('deadletters', 'list', '--json', '-c', config))
    const missing = (there: ReadonlySet<string>, rids: ReadonlySet<string>): number => [...rids].filter((rid) => !there.has(rid)).length
    /** However many wait: as long as some come, more may. */
    const arrives = async (what: string, rids: ReadonlySet<string>, life: Life): Promise<void> => {
      for (let left = missing(arrived, rids); left > 0; left = missing(arrived, rids)) {
        await comes(`${what} at the receiver (${left} of ${rids.size} are missing)`, () => missing(arrived, rids) < left, life)
      }
    }
    await arrives('all that is not refused', new Set([...wanted].filter((rid) => !refused.has(rid))), life)
    let listed = await letters()
    const ridsIn = (list: readonly Record_[]): Set<string> => new Set(list.map(({ record }) => (record as Record_).rid as string))
    while (missing(ridsIn(listed), refused) > 0) listed = await letters()
    expect(ridsIn(listed)).toEqual(refused)
    for (const letter of listed) expect(letter).toMatchObject({ output: 'hook', url: new URL(receiver.url()).origin, status: 422, body: 'not these' })
    expect(taken.filter(isRefused)).toEqual([])
    isMended = true
    expect(await command('deadletters', 'replay', '-c', config)).toContain(`${listed.length} records go to hook again`)
    expect(await letters()).toEqual([])
    await arrives('the replayed', wanted, life)
    await life.stop()

    // the pipe of a killed run may end within a record
    const lives = (await Promise.all(printed)).map((text) => text.toString('utf8'))
    const out = lives.flatMap((text) => recordsOf(text.slice(0, text.lastIndexOf('\n') + 1)))
    file.checkEnd()
    const outputs = { file: file.look(), out, hook: taken }
    // each start tells its own, and one that was killed at once may have told it to one output only
    const isOfRun = ({ type, cause }: Record_): boolean => type === 'gap' && cause === 'restart'
    const all = new Set(Object.values(outputs).flatMap((records) => records.filter((record) => !isOfRun(record)).map(({ rid }) => rid as string)))
    // an alert of the last moment stays in the spool when the receiver does not take it at once
    const last = await begin()
    await arrives('what waited at the end', all, last)
    await last.kill()
    for (const [name, records] of Object.entries(outputs)) {
      const there = new Set(records.map(({ rid }) => rid as string))
      expect([...all].filter((rid) => !there.has(rid)), `missing at ${name}`).toEqual([])
      // of a run that was killed before its first checkpoint the next knows nothing
      expect(records.filter(({ type, cause }) => type === 'gap' && cause !== 'restart'), `gaps at ${name}`).toEqual([])
    }
    const everything = Object.values(outputs).flat().filter(({ type }) => type !== 'alert')
    expect(firstArrivals(everything).length).toBeGreaterThanOrEqual(wanted.size)
    expect(all.size).toBeGreaterThan(wanted.size)

    const byId = new Map<string, string>()
    for (const got of receiver.got) {
      const id = got.headers['webhook-id']!
      expect(got.headers['webhook-signature'], `the signature of ${id}`).toBe(signatureOf(got))
      expect(Math.abs(Number(got.headers['webhook-timestamp']) * 1000 - got.at)).toBeLessThan(5000)
      const rids = ridsOf(got.text).join()
      expect(byId.get(id) ?? rids, `the records of ${id}`).toBe(rids)
      byId.set(id, rids)
    }
    if (isLong) console.info(JSON.stringify({ kills: KILLS, lines: mark, requests: receiver.got.length, ids: byId.size, answers, taken: taken.length, rids: all.size, letters: listed.length }))
  })
})

test('letters that are replayed one after the other while it runs all arrive, once each replay, whatever comes meanwhile', { timeout: 60_000 }, async () => {
  const REFUSED = isLong ? 200 : 20
  const isRefusedAtFirst = (mark: number): boolean => mark % 10 === 7
  const receiver = await receive()
  const arrivals = new Map<number, number>()
  const isReplayed = new Set<number>()
  receiver.usual = ({ text }, response) => {
    const marks = recordsOf(text).map(({ mark }) => mark as number)
    if (marks.some((mark) => isRefusedAtFirst(mark) && !isReplayed.has(mark))) return void response.writeHead(422).end('not yet')
    // refused as a whole, so that nothing is taken and not known to be
    if (chance() < 0.2) return void response.writeHead(503).end()
    for (const mark of marks) arrivals.set(mark, (arrivals.get(mark) ?? 0) + 1)
    response.writeHead(200).end()
  }
  const log = scratch('replays.log')
  writeFileSync(log, '')
  const config = configured('replays.json', {
    state: scratch('state'),
    inputs: { log: { type: 'file', path: log, from: 'start', poll: '10ms' } },
    outputs: { hook: { type: 'webhook', url: receiver.url(), ...PATIENT, when: { type: 'flow' } } },
  })
  const life = new Life(['run', '-c', config])
  let mark = 0
  const write = (count: number): void => appendFileSync(log, Array.from({ length: count }, () => line(++mark)).join(''))
  write(REFUSED * 10)
  const folder = `${scratch('state')}/outputs/hook/dead-letters`
  const letters = (): Letter[] => (existsSync(folder) ? readLetters(folder) : [])
  await comes('all the letters', () => letters().length === REFUSED, life)
  const markOf = ({ record }: Letter): number => (JSON.parse(record.toString()) as Record_)['mark'] as number
  const byCommand = new Set([0, REFUSED - 1])
  for (let n = 0; n < REFUSED; n++) {
    const left = letters()
    expect(left).toHaveLength(REFUSED - n)
    const letter = left[Math.floor(chance() * left.length)]!
    isReplayed.add(markOf(letter))
    if (byCommand.has(n)) expect(await command('deadletters', 'replay', String(letter.id), '-c', config)).toContain('1 record goes to hook again: a run looks every 2 s')
    else replayLetters(folder, [letter])
    for (let waits = chance() * 10; waits > 1; waits--) {
      // none that is refused
      if (isRefusedAtFirst(mark + 1)) mark++
      write(1)
      await sleep(chance() * 20)
    }
    // each may be looked for before the next is asked for, or not
    if (chance() < 0.1) await comes('that letter', () => arrivals.has(markOf(letter)), life)
  }
  await comes('all letters', () => [...isReplayed].every((one) => arrivals.has(one)), life)
  await life.stop()
  expect(letters()).toEqual([])
  expect([...isReplayed].map((one) => arrivals.get(one))).toEqual(Array(REFUSED).fill(1))
})

function has(name: string): boolean {
  const isThere = execFileSync('sh', ['-c', `command -v ${name} || true`], { encoding: 'utf8' }) !== ''
  if (!isThere && process.env['CONNTRAIL_REQUIRE_KERNEL_TESTS'] === '1') throw new Error(`${name} is missing`)
  return isThere
}

describe.runIf(has('prometheus-alertmanager'))('an Alertmanager', () => {
  interface Told {
    readonly status: string
    readonly fingerprint: string
    readonly startsAt: string
    readonly labels: Record<string, string>
    readonly annotations: Record<string, string>
  }

  test('shows an episode as firing, then as resolved, under one fingerprint, whatever becomes of the program meanwhile', async () => {
    const told: Told[] = []
    const receiver = await receive()
    receiver.usual = (got, response) => {
      told.push(...(JSON.parse(got.text) as { alerts: Told[] }).alerts)
      response.writeHead(200).end()
    }
    const port = await freePort()
    const api = `http://127.0.0.1:${port}/api/v2`
    const route = { receiver: 'test', group_by: ['...'], group_wait: '50ms', group_interval: '200ms', repeat_interval: '1h' }
    writeFileSync(scratch('am.yml'), JSON.stringify({ route, receivers: [{ name: 'test', webhook_configs: [{ url: receiver.url(), send_resolved: true }] }] }))
    const flags = [`--config.file=${scratch('am.yml')}`, `--storage.path=${scratch('am')}`, `--web.listen-address=127.0.0.1:${port}`, '--cluster.listen-address=']
    start('prometheus-alertmanager', flags, 'ignore')

    const log = scratch('kern.log')
    writeFileSync(log, '')
    const config = configured('am.json', {
      state: scratch('state'),
      inputs: { kernel: { type: 'file', path: log, from: 'start', poll: '20ms' } },
      rules: { table_full: { quiet: '10s', repeat: '1s' } },
      outputs: { pager: { type: 'webhook', url: `${api}/alerts`, body: 'alertmanager', retry: { first: '50ms', max: '200ms' } } },
    })
    const known = async (): Promise<Told[]> => (await (await fetch(`${api}/alerts`)).json()) as Told[]
    let now: Told[] = []
    const shows = async (what: string, holds: () => boolean, life: Life): Promise<void> => {
      for (const end = Date.now() + 50_000; !holds(); await sleep(50)) {
        if (Date.now() > end) throw new Error(`${what}: ${JSON.stringify(now)} ${life.stderr}`)
        now = await known().catch(() => [])
      }
    }
    const summary = (): string => now[0]?.annotations['summary'] ?? ''
    const first = new Life(['run', '-c', config])
    appendFileSync(log, dropped(4_026_532_246, 9000))
    await shows('firing', () => now.length === 1, first)
    const { fingerprint, labels, startsAt } = now[0]!
    expect(labels).toEqual({ alertname: 'ConntrackTableFull', severity: 'critical', instance: 'gw1' })
    expect(now[0]!.annotations['netns']).toBe('4026532246')
    // of what it has not told as firing it does not tell the end
    await comes('that it is told', () => told.length > 0, first)
    await first.kill()
    // late enough to be seen before the episode has been quiet for ten seconds
    appendFileSync(log, dropped(4_026_532_246, 4000))
    const second = new Life(['run', '-c', config])
    await shows('firing still, with the drops since', () => summary().includes('at least 2'), second)
    await second.stop()
    const third = new Life(['run', '-c', config])
    await shows('resolved: no longer among the alerts', () => now.length === 0, third)
    await comes('that it is told', () => told.at(-1)?.status === 'resolved', third)
    await third.stop()
    // its API writes three digits of a second, its notices leave out zeros at the end
    const began = (fingerprint: string, at: string): string => `${fingerprint} ${Date.parse(at)}`
    expect(new Set(told.map((alert) => began(alert.fingerprint, alert.startsAt)))).toEqual(new Set([began(fingerprint, startsAt)]))
    expect(told.map((alert) => alert.status).filter((each, i, all) => each !== all[i - 1])).toEqual(['firing', 'resolved'])
    expect(told.at(-1)!.annotations['episode']).toBe(told[0]!.annotations['episode'])
  })
})

describe('a receiver that is down', () => {
  const LINES = isLong ? 3_000_000 : 150_000
  const SPOOL_BYTES = 1_000_000
  const flowsOf = (records: readonly Record_[]): number => records.filter(({ type }) => type === 'flow').length

  test('the other outputs have everything, the spool keeps its limit, and what was shed is counted to the record', { timeout: isLong ? 300_000 : 60_000 }, async () => {
    const port = await freePort()
    const log = scratch('flows.log')
    for (let from = 1; from <= LINES; from += 10_000) appendFileSync(log, Array.from({ length: 10_000 }, (_, i) => line(from + i)).join(''))
    const file = new Written(scratch('out.ndjson'))
    const state = scratch('state')
    const outputs = {
      file: { type: 'file', path: file.path },
      out: { type: 'stdout' },
      hook: { type: 'webhook', url: `http://127.0.0.1:${port}/in`, ...PATIENT, spool: `${SPOOL_BYTES}B`, batch: { records: 500, every: '20ms' } },
    }
    const inputs = { logs: { type: 'file', path: log, from: 'start' } }
    const printed = openSync(scratch('printed.ndjson'), 'a')
    const life = new Life(['run', '-c', configured('down.json', { state, inputs, outputs })], { stdout: printed })
    const spool = `${state}/outputs/hook/spool`
    let most = 0
    const size = (): number => {
      try {
        return readdirSync(spool).reduce((sum, name) => sum + statSync(join(spool, name), { throwIfNoEntry: false })!.size, 0)
      } catch {
        return 0 // not there yet, or a segment went meanwhile
      }
    }
    await comes('all of it in the file', () => {
      most = Math.max(most, size())
      return flowsOf(file.look()) === LINES
    }, life, 240_000)
    await life.stop()
    closeSync(printed)
    most = Math.max(most, size())
    expect(most).toBeGreaterThan(SPOOL_BYTES / 2)
    expect(most).toBeLessThanOrEqual(SPOOL_BYTES)
    const out = new Written(scratch('printed.ndjson'))
    expect(flowsOf(out.look())).toBe(LINES)
    const gaps = [...file.gaps]
    expect(gaps.length).toBeGreaterThan(0)
    for (const gap of gaps) expect(gap).toMatchObject({ cause: 'output_dropped', output: 'hook', reason: 'spool_full' })
    const shed = gaps.reduce((sum, { count }) => sum + (count as number), 0)

    const receiver = await receive(null, port)
    const again = new Life(['run', '-c', configured('up.json', { state, inputs, outputs })])
    const arrived = (): Record_[] => receiver.got.flatMap(({ text }) => recordsOf(text))
    await comes('what waited', () => flowsOf(arrived()) + shed >= LINES, again)
    await again.stop()
    expect(flowsOf(arrived()) + shed).toBe(LINES)
    const toldIn = (records: readonly Record_[]): Set<string> => new Set(records.filter(({ cause }) => cause === 'output_dropped').map(({ rid }) => rid as string))
    expect(toldIn(arrived()), 'the receiver is told what it missed').toEqual(toldIn(gaps))
    expect(toldIn(file.gaps), 'and nobody twice').toEqual(toldIn(gaps))
    expect(new Set(arrived().map(({ rid }) => rid as string)).size).toBe(arrived().length)
  })

  /** Flows in the order in which they come to a receiver, and what gap records say of the others. */
  test.each(['with state', 'in memory'])('what each policy keeps, %s: it arrives, the rest is counted', async (where) => {
    const LINES = 3000
    const policies = ['drop_oldest', 'drop_newest', 'summarize']
    const ports = await Promise.all(policies.map(() => freePort()))
    const log = scratch('flows.log')
    writeFileSync(log, '')
    const file = new Written(scratch('out.ndjson'))
    const more = { ...PATIENT, spool: '128KiB', batch: { records: 100, every: '20ms' } }
    const hooks = Object.fromEntries(policies.map((when_full, i) => [when_full, { type: 'webhook', url: `http://127.0.0.1:${ports[i]}/in`, when_full, ...more }]))
    const state = where === 'with state' ? { state: scratch('state') } : {}
    const inputs = { logs: { type: 'file', path: scratch('*.log'), from: 'start', poll: '20ms', rescan: '100ms' } }
    const life = new Life(['run', '-c', configured('policies.json', { ...state, inputs, outputs: { file: { type: 'file', path: file.path }, ...hooks } })])
    for (let from = 1; from <= LINES; from += 100) appendFileSync(log, Array.from({ length: 100 }, (_, i) => line(from + i)).join(''))
    await comes('all of it in the file', () => flowsOf(file.look()) === LINES, life)
    // comes late, and stays whatever is shed for it, but where only what was there first stays
    writeFileSync(scratch('kern.log'), dropped())
    await comes('an alert', () => file.look().some(({ type }) => type === 'alert'), life)
    const lost = (name: string): number => file.gaps.filter((gap) => gap['output'] === name).reduce((sum, { count }) => sum + (count as number), 0)
    const up = await Promise.all(ports.map((port) => receive(null, port)))
    const marksAt = (i: number): number[] => recordsOf(up[i]!.got.map(({ text }) => text).join('')).flatMap(({ type, mark }) => (type === 'flow' ? [mark as number] : []))
    const typesAt = (i: number): Set<string> => new Set(recordsOf(up[i]!.got.map(({ text }) => text).join('')).map(({ type }) => type as string))
    // the alert's own line, a kernel record, may be among what is shed
    await comes('what was kept, and the counts of the rest', () => policies.every((name, i) => marksAt(i).length + lost(name) >= LINES), life)
    await life.stop()
    for (const [i, name] of policies.entries()) {
      const marks = marksAt(i)
      expect(marks, name).toEqual([...marks].sort((a, b) => a - b))
      expect(marks.length, name).toBeGreaterThan(100)
      expect(new Set(marks).size).toBe(marks.length)
      for (const gap of file.gaps.filter((each) => each['output'] === name)) expect(gap).toMatchObject({ cause: 'output_dropped', reason: 'spool_full' })
      const all = recordsOf(up[i]!.got.map(({ text }) => text).join(''))
      const written = file.look().filter(({ type }) => type !== 'gap').length
      expect(all.filter(({ type }) => type !== 'gap').length + lost(name), name).toBe(written)
    }
    expect(marksAt(0).at(-1)).toBe(LINES)
    // later ones only where a small page found the last room
    expect(marksAt(1).slice(0, 100)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
    expect(typesAt(2)).toContain('alert')
  })

  test('one that refuses everything, without a place for dead letters: each alert costs one gap record, and that none', async () => {
    const receiver = await receive()
    receiver.usual = status(422)
    const log = scratch('kern.log')
    writeFileSync(log, '')
    const hook = { type: 'webhook', url: receiver.url(), retry: HASTY.retry }
    const life = new Life(['run', '-c', configured('refusing.json', { inputs: { kernel: { type: 'file', path: log, from: 'start', poll: '20ms' } }, outputs: { hook } })])
    const got = (type: string): Record_[] => recordsOf(receiver.got.map(({ text }) => text).join('')).filter((record) => record['type'] === type)
    for (const netns of [1, 2, 3]) {
      appendFileSync(log, dropped(4_026_532_000 + netns))
      await comes('the alert, and that it is lost', () => got('alert').length >= netns && got('gap').length >= netns, life)
    }
    await life.stop()
    expect(new Set(got('gap').map(({ rid }) => rid as string)).size).toBeLessThanOrEqual(new Set(got('alert').map(({ rid }) => rid as string)).size)
    expect(life.messages.filter((message) => message.includes('dead letters cannot be kept'))).toHaveLength(1)
  })

  test('standard output that nobody reads, with another policy than to block: the file has everything, and the rest is counted', async () => {
    const LINES = 3000
    const log = scratch('flows.log')
    writeFileSync(log, Array.from({ length: LINES }, (_, i) => line(i + 1)).join(''))
    const file = new Written(scratch('out.ndjson'))
    const outputs = { file: { type: 'file', path: file.path }, out: { type: 'stdout', when_full: 'drop_oldest', spool: '128KiB' } }
    const pipe = await Pipe.open()
    const life = new Life(['run', '-c', configured('stuck.json', { inputs: { logs: { type: 'file', path: log, from: 'start' } }, outputs })], { stdout: pipe.writeEnd })
    pipe.closeWrite()
    await comes('all of it in the file', () => flowsOf(file.look()) === LINES, life)
    await comes('a gap record', () => file.gaps.length > 0, life)
    const printed = pipe.readAll()
    life.signal('SIGTERM')
    const marks = recordsOf((await printed).toString()).flatMap(({ type, mark }) => (type === 'flow' ? [mark as number] : []))
    expect(await life.ended()).toBe(0)
    expect(file.gaps.every(({ cause, output: name, reason }) => cause === 'output_dropped' && name === 'out' && reason === 'spool_full')).toBe(true)
    expect(marks.at(-1)).toBe(LINES)
    expect(new Set(marks).size + file.gaps.reduce((sum, { count }) => sum + (count as number), 0)).toBe(LINES)
  })

  test('one that pauses is left alone and then has everything; stdout and the file went on', async () => {
    const receiver = await receive()
    receiver.usual = status(401)
    const log = scratch('flows.log')
    writeFileSync(log, '')
    const file = new Written(scratch('out.ndjson'))
    const hook = { type: 'webhook', url: receiver.url(), ...PATIENT }
    const config = configured('paused.json', { inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms' } }, outputs: { file: { type: 'file', path: file.path }, hook } })
    const life = new Life(['run', '-c', config])
    appendFileSync(log, Array.from({ length: 50 }, (_, i) => line(i + 1)).join(''))
    await comes('the file', () => file.marks.length === 50, life)
    await comes('attempts', () => receiver.got.length > 3, life)
    expect(life.messages.filter((message) => message.includes('401'))).toHaveLength(1)
    receiver.usual = status(200)
    const from = receiver.got.length
    await comes('everything', () => receiver.got.slice(from).flatMap(({ text }) => recordsOf(text)).length >= 50, life)
    expect(receiver.got.slice(from).flatMap(({ text }) => recordsOf(text)).map(({ mark }) => mark as number)).toEqual(file.marks)
    await life.stop()
  })
})

describe('the way of a line', () => {
  const LINES = isLong ? 100 : 15
  const EVERY_MS = isLong ? 200 : 100
  /** A machine that does much else is forgiven most of them; alone it is one in a hundred. */
  const SHARE = isLong ? 0.99 : 0.3

  test('from a pipe and from a followed file to the receiver', { timeout: 120_000 }, async () => {
    const ways = { pipe: { input: { type: 'stdin' }, mostMs: 50 }, file: { input: { type: 'file', path: scratch('kern.log'), from: 'start' }, mostMs: 250 } }
    const stdin = await Pipe.open()
    writeFileSync(scratch('kern.log'), '')
    const at: Record<string, Map<number, number>> = {}
    const programs: Program[] = []
    for (const [name, { input }] of Object.entries(ways)) {
      const arrived = (at[name] = new Map<number, number>())
      const receiver = await receive()
      receiver.usual = (got, response) => {
        for (const { netns } of recordsOf(got.text)) if (!arrived.has(netns as number)) arrived.set(netns as number, performance.now())
        response.writeHead(200).end()
      }
      const config = configured(`${name}.json`, { inputs: { kernel: input }, outputs: { pager: { type: 'webhook', url: receiver.url() } } })
      programs.push(new Program(['run', '-c', config], name === 'pipe' ? stdin : 'ignore', 'ignore'))
      // from here on it runs as it does for weeks
      await until(() => receiver.connections > 0)
    }
    await sleep(1000)
    const sent = new Map<number, number>()
    for (let i = 0; i < LINES; i++) {
      const netns = 4_026_532_000 + i
      const text = dropped(netns)
      sent.set(netns, performance.now())
      writeSync(stdin.writeEnd, text)
      appendFileSync(scratch('kern.log'), text)
      await sleep(EVERY_MS)
    }
    await until(() => Object.values(at).every((arrived) => arrived.size === LINES))
    for (const [name, { mostMs }] of Object.entries(ways)) {
      const took = [...at[name]!].map(([netns, arrived]) => arrived - sent.get(netns)!).sort((a, b) => a - b)
      if (isLong) console.info(`${name}: half within ${took[LINES >> 1]!.toFixed(1)} ms, 99 % within ${took[Math.ceil(LINES * 0.99) - 1]!.toFixed(1)} ms, all within ${took.at(-1)!.toFixed(1)} ms`)
      expect(took.filter((ms) => ms <= mostMs).length, `${name}: ${took.map(Math.round).join()}`).toBeGreaterThanOrEqual(LINES * SHARE)
    }
    for (const each of programs) each.signal('SIGTERM')
    for (const each of programs) expect((await each.ended).status).toBe(0)
  })
})

describe('a disk that fails', () => {
  /** Receivers that are down, a log with lines, and where the rest goes. */
  async function place(names: readonly string[], more: object = {}) {
    const log = scratch('flows.log')
    writeFileSync(log, '')
    const state = scratch('state')
    const file = new Written(scratch('out.ndjson'))
    const ports = new Map<string, number>()
    for (const name of names) ports.set(name, await freePort())
    const hooks = Object.fromEntries([...ports].map(([name, port]) => [name, { type: 'webhook', url: `http://127.0.0.1:${port}/in`, ...HASTY, ...more }]))
    const config = configured('faults.json', { state, inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms', rescan: '100ms' } }, outputs: { file: { type: 'file', path: file.path }, ...hooks } })
    const up = async (name: string): Promise<Receiver> => {
      const receiver = await receive(null, ports.get(name)!)
      return receiver
    }
    return { log, file, config, up, spool: (name: string) => `${state}/outputs/${name}/spool` }
  }
  const marksOf = (receiver: Receiver): Set<number> => new Set(receiver.got.flatMap(({ text }) => recordsOf(text)).flatMap(({ mark }) => (typeof mark === 'number' ? [mark] : [])))

  test.runIf(has('strace')).each([
    // strace counts in each thread
    ['EIO at the first fdatasync and every third after it', 'fdatasync:error=EIO:when=1+3'],
    ['EIO at every fdatasync but the first', 'fdatasync:error=EIO:when=2+'],
    ['no space, now and then', 'pwrite64,pwritev:error=ENOSPC:when=3+9'],
  ])('%s, then killed: nothing that was acknowledged is missing', async (_name, fault) => {
    // another policy would shed, and count, what does not fit
    const at = await place(['hook'], { when_full: 'block' })
    const life = new Life(['run', '-c', at.config], { under: ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${fault.split(':')[0]}`, '-e', `inject=${fault}`] })
    let mark = 0
    // each is synced before the next comes: the disk is asked often
    for (let i = 0; i < 10; i++) {
      appendFileSync(at.log, Array.from({ length: 20 }, () => line(++mark)).join(''))
      await sleep(60)
    }
    await comes('the file', () => at.file.marks.length >= mark, life)
    // strace's child is the program
    process.kill(Number(execFileSync('pgrep', ['-P', String(life.pid)], { encoding: 'utf8' })), 'SIGKILL')
    await life.ended()
    const receiver = await at.up('hook')
    const again = new Life(['run', '-c', at.config])
    // a line that comes later: what was there before it has been read
    appendFileSync(at.log, line(++mark))
    await comes('everything', () => marksOf(receiver).size === mark && at.file.marks.includes(mark), again)
    await again.stop()
    at.file.checkEnd()
    expect(new Set(at.file.marks).size).toBe(mark)
    expect([...at.file.gaps, ...receiver.got.flatMap(({ text }) => recordsOf(text))].filter(({ cause }) => cause === 'output_dropped')).toEqual([])
  })

  test('segments torn, flipped, emptied, filled with zeros at rest: the start does not fail, what is whole arrives, the rest is counted', async () => {
    const damages: Record<string, (bytes: Buffer) => Buffer> = {
      torn: (bytes) => bytes.subarray(0, Math.floor(bytes.length * 0.6)),
      flipped: (bytes) => bytes.fill(bytes[bytes.length >> 1]! ^ 0x10, bytes.length >> 1, (bytes.length >> 1) + 1),
      emptied: () => Buffer.alloc(0),
      zeroed: (bytes) => bytes.fill(0, bytes.length >> 1, (bytes.length >> 1) + 4096),
    }
    const names = Object.keys(damages)
    const at = await place(names)
    const life = new Life(['run', '-c', at.config])
    const marks = 400
    for (let from = 0; from < marks; from += 80) {
      appendFileSync(at.log, Array.from({ length: 80 }, (_, i) => line(from + i + 1)).join(''))
      await comes('the file', () => at.file.marks.length === from + 80, life)
    }
    await life.stop()
    for (const [name, damage] of Object.entries(damages)) {
      const segments = readdirSync(at.spool(name)).filter((each) => each.endsWith('.segment')).map((each) => join(at.spool(name), each))
      expect(segments).toHaveLength(1)
      writeFileSync(segments[0]!, damage(readFileSync(segments[0]!)))
    }
    const up = await Promise.all(names.map((name) => at.up(name)))
    const again = new Life(['run', '-c', at.config])
    const gapsOf = (name: string): Record_[] => at.file.gaps.filter(({ cause, output: of }) => cause === 'output_dropped' && of === name)
    const lost = (name: string): number => gapsOf(name).reduce((sum, { count }) => sum + (count as number), 0)
    await comes('all that is left, and the count of the rest', () => names.every((name, i) => marksOf(up[i]!).size + lost(name) >= marks), again)
    await again.stop()
    for (const [i, name] of names.entries()) {
      expect(marksOf(up[i]!).size + lost(name), name).toBe(marks)
      expect(lost(name), name).toBeGreaterThan(0)
      if (name === 'emptied') expect(lost(name)).toBe(marks)
      else expect(lost(name), name).toBeLessThan(marks)
      for (const gap of gapsOf(name)) expect(gap).toMatchObject({ reason: 'damaged', output: name })
    }
  })

  test('a second start on the same state directory changes nothing there and ends', async () => {
    const at = await place(['hook'])
    const receiver = await at.up('hook')
    const life = new Life(['run', '-c', at.config])
    appendFileSync(at.log, line(1))
    await comes('all delivered', () => marksOf(receiver).size === 1 && at.file.marks.length === 1, life)
    await receiver.stop()
    expect(await new Life(['run', '-c', at.config]).ended()).toBe(1)
    appendFileSync(at.log, line(2))
    await comes('the second line', () => at.file.marks.length === 2, life)
    // past the next checkpoint: the log is not read again from before it
    const checkpoint = join(scratch('state'), 'checkpoint')
    const before = statSync(checkpoint, { throwIfNoEntry: false })?.mtimeMs
    await comes('a checkpoint', () => statSync(checkpoint, { throwIfNoEntry: false })?.mtimeMs !== before, life)
    await life.kill()
    const later = await at.up('hook')
    const again = new Life(['run', '-c', at.config])
    await comes('what the first had taken', () => marksOf(later).has(2), again)
    await comes('that it runs', () => at.file.gaps.some(({ cause }) => cause === 'restart'), again)
    await again.stop()
    expect(at.file.gaps.filter(({ cause }) => cause === 'output_dropped')).toEqual([])
  })
})

describe('secrets', () => {
  const secrets = {
    path: 'k3y-of-the-path',
    query: 'qu3ry-k3y',
    token: 't0ken-4bc-very-secret',
    header: 'h3ader-s3cret',
    signing: 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=',
  }

  test('show nowhere, on no path of failure', async () => {
    const receiver = await receive()
    const pki = makePki()
    const self = await receive(pki.selfSigned())
    const closed = await freePort()
    const said = Object.values(secrets).join(' ')
    const echo = (code: number, headers: Record<string, string> = {}): Reply => (got, response) =>
      void response.writeHead(code, headers).end(`you sent ${JSON.stringify(got.headers)} to ${got.path} and I know ${said}`)
    receiver.replies = [401, 404, 500, 503, 302, 501].map((code) => echo(code, { location: `http://127.0.0.1:1/${secrets.path}` }))
    receiver.usual = echo(422)
    const fileOf = (name: string, text: string): { file: string } => {
      writeFileSync(scratch(name), `${text}\n`, { mode: 0o600 })
      return { file: scratch(name) }
    }
    const tail = `/${secrets.path}?key=${secrets.query}`
    const common = { ...HASTY, token: fileOf('token', secrets.token), headers: { 'x-key': fileOf('header', secrets.header) }, signing: { scheme: 'standard', secret: fileOf('signing', secrets.signing) } }
    const urls = {
      refuses: `http://127.0.0.1:${receiver.port}${tail}`,
      nobody: `http://127.0.0.1:${closed}${tail}`,
      nowhere: `https://no-such-host.invalid${tail}`,
      'self-signed': `https://localhost:${self.port}${tail}`,
      'no tls': `https://localhost:${receiver.port}${tail}`,
      gone: `http://127.0.0.1:${(await (async () => {
        const gone = await receive()
        gone.usual = echo(410)
        return gone
      })()).port}${tail}`,
    }
    const log = scratch('kern.log')
    writeFileSync(log, '')
    const hooks = Object.fromEntries(Object.entries(urls).map(([name, url]) => [name, { type: 'webhook', url: fileOf(`url of ${name}`, url), ...common }]))
    const state = scratch('state')
    const metrics = await freePort()
    const config = configured('secret.json', {
      state,
      http: { listen: `127.0.0.1:${metrics}` },
      inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms' } },
      outputs: { file: { type: 'file', path: scratch('out.ndjson') }, ...hooks },
    })
    const life = new Life(['run', '-c', config, '--log-level', 'trace'])
    appendFileSync(log, dropped() + line(1))
    const seen: Record<string, string> = {}
    const letters = `${state}/outputs/refuses/dead-letters`
    await comes('a dead letter', () => existsSync(letters) && readdirSync(letters).some((name) => name.startsWith('letters')), life)
    await comes('every failure', () => ['no-such-host', 'self', 'ECONNREFUSED', '410'].every((word) => life.stderr.includes(word)), life)
    for (const path of ['metrics', 'status', 'livez', 'readyz']) seen[path] = await (await fetch(`http://127.0.0.1:${metrics}/${path}`)).text()
    seen['ps'] = execFileSync('ps', ['axww', '-o', 'args'], { encoding: 'utf8' })
    seen['environment'] = readFileSync(`/proc/${life.pid}/environ`, 'latin1')
    const good = readFileSync(config)
    writeFileSync(config, good.toString().replace('"url":', `"url":"http://me:${secrets.token}@127.0.0.1/${secrets.path}","tokn":"${secrets.token}","uri":`))
    life.signal('SIGHUP')
    await comes('that it is refused', () => life.stderr.includes('reload:'), life)
    for (const path of ['metrics', 'status']) seen[`${path} after a reload`] = await (await fetch(`http://127.0.0.1:${metrics}/${path}`)).text()
    writeFileSync(config, good)
    life.signal('SIGUSR2')
    await life.stop()
    seen['stderr'] = life.stderr
    const all = (...args: string[]): Promise<string> => output(start('sh', ['-c', 'exec "$@" 2>&1', 'sh', process.execPath, program, ...args], ['ignore', 'pipe', 'ignore']))
    const asked = [...['list', 'show', 'list --json', 'show --json'].map((words) => `deadletters ${words} -c ${config}`), `check ${config}`, `check ${config} --json`]
    asked.push(...['', ' --json', ' --connect'].map((words) => `doctor -c ${config}${words}`), `service -c ${config}`)
    await Promise.all(asked.map(async (words) => (seen[words.replace(` -c ${config}`, '')] = await all(...words.split(' ')))))
    seen['deadletters replay'] = await all('deadletters', 'replay', '-c', config)
    writeFileSync(scratch('signing'), `${secrets.signing.slice(0, 20)} ${secrets.token}\n`)
    seen['check of a secret that is none'] = await all('check', config)
    writeFileSync(scratch('url of nobody'), `htp:/${tail}\n`)
    seen['check of an address that is none'] = await all('check', config)
    seen['run with it'] = await all('run', '-c', config)
    seen['names of files'] = readdirSync(state, { recursive: true, encoding: 'utf8' }).join()
    for (const name of readdirSync(state, { recursive: true, encoding: 'utf8' })) if (statSync(join(state, name)).isFile()) seen[`state/${name}`] = readFileSync(join(state, name), 'latin1')
    seen['records'] = readFileSync(scratch('out.ndjson'), 'latin1')
    expect(seen['deadletters list']).toContain('refuses:1')
    expect(seen['deadletters list --json']).toContain('[secret]')
    const shown = Object.entries(seen).flatMap(([where, text]) => Object.entries(secrets).filter(([, secret]) => text.includes(secret)).map(([name]) => `${name} in ${where}`))
    expect(shown).toEqual([])
  })

  test('nor of a URL on the command line, but where it was typed', async () => {
    const receiver = await receive()
    receiver.usual = (got, response) => void response.writeHead(422).end(`no ${got.path} here`)
    writeFileSync(scratch('kern.log'), dropped())
    const key = 'typ3d-k3y'
    const state = scratch('state')
    const all = (...args: string[]): Promise<string> => output(start('sh', ['-c', 'exec "$@" 2>&1', 'sh', process.execPath, program, ...args], ['ignore', 'pipe', 'ignore']))
    const seen: Record<string, string> = {}
    seen['run'] = await all('run', '--once', '-i', scratch('kern.log'), '-o', `webhook:${receiver.url()}/${key}?key=${key}`, '--state', state)
    seen['names of files'] = readdirSync(state, { recursive: true, encoding: 'utf8' }).join()
    for (const words of ['list', 'list --json', 'show', 'replay']) seen[words] = await all('deadletters', ...words.split(' '), '--state', state)
    seen['a URL with a password'] = await all('run', '--once', '-i', scratch('kern.log'), '-o', `webhook:http://me:${key}@127.0.0.1:1/in`)
    expect(seen['list']).toContain(`webhook:${new URL(receiver.url()).origin}`)
    expect(seen['a URL with a password']).toContain('cannot carry a user name or password')
    expect(Object.keys(seen).filter((where) => seen[where]!.includes(key))).toEqual([])
  })
})
