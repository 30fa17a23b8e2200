/**
 * Delivery on the built program: killed at any moment beside a receiver that does what receivers do, through an Alertmanager, with a receiver that is down, on disks
 * that fail, and with secrets that must not show. What each answer of a receiver means is in webhook.test.ts, what damage does to a spool in spool.test.ts.
 */
import { execFileSync } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, output, Pipe, Program, program, type Record_, scratch, sleep, start, until } from './process-harness.js'
import { comes, configured, firstArrivals, isLong, Life, line, Written } from './run-harness.js'
import { type Got, makePki, Receiver, type Reply, ridsOf, status } from './webhook-harness.js'

const receivers: Receiver[] = []

afterEach(async () => {
  cleanUp()
  await Promise.all(receivers.splice(0).map((receiver) => receiver.stop()))
})

async function receive(): Promise<Receiver> {
  const receiver = await Receiver.start()
  receivers.push(receiver)
  return receiver
}

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

describe('killed at any moment', () => {
  const KILLS = isLong ? 200 : 10
  const LINES_A_STEP = 10
  const KEY = Buffer.from('0123456789abcdef0123456789abcdef')
  /** The receiver refuses these for good, until it is mended. */
  const isRefused = ({ mark }: Record_): boolean => typeof mark === 'number' && mark % 500 === 77

  function signatureOf({ headers, sent }: Got): string {
    const text = `${headers['webhook-id']}.${headers['webhook-timestamp']}.`
    return `v1,${createHmac('sha256', KEY).update(text).update(sent).digest('base64')}`
  }

  test('every record at every output, ids stable, signatures valid; what was refused is in the dead letters, and arrives when it is replayed', { timeout: isLong ? 1_800_000 : 60_000 }, async () => {
    const receiver = await receive()
    const taken: Record_[] = []
    const answers: Record<string, number> = {}
    let isMended = false
    receiver.usual = (got, response, request) => {
      const records = recordsOf(got.text)
      const count = (what: string): void => void (answers[what] = (answers[what] ?? 0) + 1)
      const turn = Math.random()
      if (turn < 0.1) return count('500'), void response.writeHead(500).end()
      if (turn < 0.2) return count('429'), void response.writeHead(429, { 'retry-after': turn < 0.11 ? '1' : '0' }).end()
      if (turn < 0.25) return count('hangs')
      if (turn < 0.3) return count('dropped unread'), void request.socket.destroy()
      if (!isMended && records.some(isRefused)) return count('422'), void response.writeHead(422).end('not these')
      taken.push(...records)
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
      const end = performance.now() + Math.random() * 2000
      while (performance.now() < end) {
        write()
        await sleep(Math.random() * 60)
      }
      await life.kill()
    }
    const life = await begin()
    // what the file holds when it is read in one go, by a run that remembers nothing
    const whole = recordsOf(await command('run', '--once', '-c', configured('once.json', { inputs, outputs: { out: { type: 'stdout' } } })))
    const wanted = new Set(whole.filter(({ type }) => type === 'flow' || type === 'kernel').map(({ rid }) => rid as string))
    expect(wanted.size).toBe(mark + mark / LINES_A_STEP)
    const refused = new Set(whole.filter(isRefused).map(({ rid }) => rid as string))
    const letters = async (): Promise<Record_[]> => recordsOf(await command('deadletters', 'list', '--json', '-c', config))
    const has = (records: readonly Record_[], rids: ReadonlySet<string>): boolean => {
      const there = new Set(records.map(({ rid }) => rid as string))
      return [...rids].every((rid) => there.has(rid))
    }
    await comes('all that is not refused, at the receiver', () => has(taken, new Set([...wanted].filter((rid) => !refused.has(rid)))), life, 120_000)
    let listed = await letters()
    while (!has(listed.map(({ record }) => record as Record_), refused)) listed = await letters()
    expect(new Set(listed.map(({ record }) => record.rid as string))).toEqual(refused)
    for (const letter of listed) expect(letter).toMatchObject({ output: 'hook', url: new URL(receiver.url()).origin, status: 422, body: 'not these' })
    expect(taken.filter(isRefused)).toEqual([])
    isMended = true
    expect(await command('deadletters', 'replay', '-c', config)).toContain(`${listed.length} records go to hook again`)
    expect(await letters()).toEqual([])
    await comes('the replayed', () => has(taken, wanted), life)
    await life.stop()

    // the pipe of a killed run may end within a record
    const lives = (await Promise.all(printed)).map((text) => text.toString('utf8'))
    const out = lives.flatMap((text) => recordsOf(text.slice(0, text.lastIndexOf('\n') + 1)))
    file.checkEnd()
    const outputs = { file: file.look(), out, hook: taken }
    // each start tells its own, and one that was killed at once may have told it to one output only
    const isOfRun = ({ type, cause }: Record_): boolean => type === 'gap' && cause === 'restart'
    const all = new Set(Object.values(outputs).flatMap((records) => records.filter((record) => !isOfRun(record)).map(({ rid }) => rid as string)))
    for (const [name, records] of Object.entries(outputs)) {
      const there = new Set(records.map(({ rid }) => rid as string))
      expect([...all].filter((rid) => !there.has(rid)), `missing at ${name}`).toEqual([])
      const causes = new Set(records.filter(({ type }) => type === 'gap').map(({ cause }) => cause as string))
      expect([...causes], `gaps at ${name}`).toEqual(['restart'])
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

/** Of the machine's; for a program that cannot choose its own and say so. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

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
      for (const end = Date.now() + 20_000; !holds(); await sleep(50)) {
        if (Date.now() > end) throw new Error(`${what}: ${JSON.stringify(now)} ${life.stderr}`)
        now = await known().catch(() => [])
      }
    }
    const summary = (): string => now[0]?.annotations['summary'] ?? ''
    const first = new Life(['run', '-c', config])
    appendFileSync(log, dropped(4_026_532_246, 9000))
    await shows('firing', () => now.length === 1, first)
    const { fingerprint, labels, startsAt } = now[0]!
    expect(labels).toEqual({ alertname: 'ConntrackTableFull', severity: 'critical', instance: 'gw1', netns: '4026532246' })
    await first.kill()
    appendFileSync(log, dropped(4_026_532_246, 7000))
    const second = new Life(['run', '-c', config])
    await shows('firing still, with the drops since', () => summary().includes('at least 2'), second)
    await second.stop()
    const third = new Life(['run', '-c', config])
    await shows('resolved: no longer among the alerts', () => now.length === 0, third)
    await comes('that it is told', () => told.at(-1)?.status === 'resolved', third)
    await third.stop()
    expect(new Set(told.map((alert) => `${alert.fingerprint} ${alert.startsAt}`))).toEqual(new Set([`${fingerprint} ${startsAt}`]))
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
      hook: { type: 'webhook', url: `http://127.0.0.1:${port}/in`, ...HASTY, spool: `${SPOOL_BYTES}B`, batch: { records: 500, every: '20ms' } },
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
    const gaps = file.gaps
    expect(gaps.length).toBeGreaterThan(0)
    for (const gap of gaps) expect(gap).toMatchObject({ cause: 'output_dropped', output: 'hook', reason: 'spool_full' })
    const shed = gaps.reduce((sum, { count }) => sum + (count as number), 0)

    const receiver = await Receiver.start(null, port)
    receivers.push(receiver)
    const again = new Life(['run', '-c', configured('up.json', { state, inputs, outputs })])
    const arrived = (): Record_[] => receiver.got.flatMap(({ text }) => recordsOf(text))
    await comes('what waited', () => flowsOf(arrived()) + shed >= LINES, again)
    await again.stop()
    expect(flowsOf(arrived()) + shed).toBe(LINES)
    const told = new Set(arrived().filter(({ cause }) => cause === 'output_dropped').map(({ rid }) => rid as string))
    expect(told, 'the receiver is told what it missed').toEqual(new Set(gaps.map(({ rid }) => rid as string)))
    expect(new Set(arrived().map(({ rid }) => rid as string)).size).toBe(arrived().length)
  })

  test('one that pauses is left alone and then has everything; stdout and the file went on', async () => {
    const receiver = await receive()
    receiver.usual = status(401)
    const log = scratch('flows.log')
    writeFileSync(log, '')
    const file = new Written(scratch('out.ndjson'))
    const hook = { type: 'webhook', url: receiver.url(), ...HASTY }
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
  const EVERY_MS = 200
  /** A machine that does much else is forgiven one in five; alone it is one in a hundred. */
  const SHARE = isLong ? 0.99 : 0.8

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
  /** A receiver that is down, a log with lines, and where the rest goes. */
  async function place(more: object = {}) {
    const port = await freePort()
    const log = scratch('flows.log')
    writeFileSync(log, '')
    const state = scratch('state')
    const file = new Written(scratch('out.ndjson'))
    const hook = { type: 'webhook', url: `http://127.0.0.1:${port}/in`, ...HASTY, ...more }
    const config = configured('faults.json', { state, inputs: { logs: { type: 'file', path: log, from: 'start', poll: '20ms', rescan: '100ms' } }, outputs: { file: { type: 'file', path: file.path }, hook } })
    const up = async (): Promise<Receiver> => {
      const receiver = await Receiver.start(null, port)
      receivers.push(receiver)
      return receiver
    }
    return { log, file, config, up, spool: `${state}/outputs/hook/spool` }
  }
  const marksOf = (receiver: Receiver): Set<number> => new Set(receiver.got.flatMap(({ text }) => recordsOf(text)).flatMap(({ mark }) => (typeof mark === 'number' ? [mark] : [])))

  test.runIf(has('strace')).each([
    ['EIO at every third fdatasync', 'fdatasync:error=EIO:when=2+3'],
    ['EIO at every fdatasync but the first', 'fdatasync:error=EIO:when=8+'],
    ['no space, now and then', 'pwrite64,pwritev:error=ENOSPC:when=3+9'],
  ])('%s, then killed: nothing that was acknowledged is missing', async (_name, fault) => {
    // another policy would shed, and count, what does not fit
    const at = await place({ when_full: 'block' })
    const life = new Life(['run', '-c', at.config], { under: ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${fault.split(':')[0]}`, '-e', `inject=${fault}`] })
    let mark = 0
    for (let i = 0; i < 15; i++) {
      appendFileSync(at.log, Array.from({ length: 20 }, () => line(++mark)).join(''))
      await sleep(100)
    }
    await comes('the file', () => at.file.marks.length >= mark, life)
    // strace's child is the program
    process.kill(Number(execFileSync('pgrep', ['-P', String(life.pid)], { encoding: 'utf8' })), 'SIGKILL')
    await life.ended()
    const receiver = await at.up()
    const again = new Life(['run', '-c', at.config])
    await comes('everything', () => marksOf(receiver).size === mark, again)
    await again.stop()
    at.file.checkEnd()
    expect(new Set(at.file.marks).size).toBe(mark)
    expect([...at.file.gaps, ...receiver.got.flatMap(({ text }) => recordsOf(text))].filter(({ cause }) => cause === 'output_dropped')).toEqual([])
  })

  test.each(['torn', 'flipped', 'emptied', 'filled with zeros'])('segments %s at rest: the start does not fail, what is whole arrives, the rest is counted', async (how) => {
    const at = await place()
    const life = new Life(['run', '-c', at.config])
    const marks = 400
    for (let from = 0; from < marks; from += 40) {
      appendFileSync(at.log, Array.from({ length: 40 }, (_, i) => line(from + i + 1)).join(''))
      await comes('the file', () => at.file.marks.length === from + 40, life)
    }
    await life.stop()
    const [segment] = readdirSync(at.spool).filter((name) => name.endsWith('.segment')).map((name) => join(at.spool, name))
    const bytes = readFileSync(segment!)
    if (how === 'torn') writeFileSync(segment!, bytes.subarray(0, Math.floor(bytes.length * 0.6)))
    else if (how === 'emptied') writeFileSync(segment!, '')
    else {
      const fd = openSync(segment!, 'r+')
      const to = Math.floor(bytes.length / 2)
      if (how === 'flipped') writeSync(fd, Buffer.of(bytes[to]! ^ 0x10), 0, 1, to)
      else writeSync(fd, Buffer.alloc(4096), 0, 4096, to)
      closeSync(fd)
    }
    const receiver = await at.up()
    const again = new Life(['run', '-c', at.config])
    const lost = (): number => at.file.gaps.filter(({ cause, output: name }) => cause === 'output_dropped' && name === 'hook').reduce((sum, { count }) => sum + (count as number), 0)
    await comes('all that is left, and the count of the rest', () => marksOf(receiver).size + lost() >= marks, again)
    await again.stop()
    expect(marksOf(receiver).size + lost()).toBe(marks)
    expect(lost()).toBeGreaterThan(0)
    if (how === 'flipped') expect(lost()).toBeLessThan(marks)
    for (const gap of at.file.gaps.filter(({ cause }) => cause === 'output_dropped')) expect(gap).toMatchObject({ reason: 'damaged', output: 'hook' })
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
    const self = await Receiver.start(pki.selfSigned())
    receivers.push(self)
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
    life.signal('SIGUSR2')
    await life.stop()
    seen['stderr'] = life.stderr
    const all = (...args: string[]): Promise<string> => output(start('sh', ['-c', 'exec "$@" 2>&1', 'sh', process.execPath, program, ...args], ['ignore', 'pipe', 'ignore']))
    for (const action of ['list', 'show']) for (const more of [[], ['--json']]) seen[`deadletters ${action} ${more.join()}`] = await all('deadletters', action, ...more, '-c', config)
    for (const what of ['check', 'doctor']) for (const more of [[], ['--json']]) seen[`${what} ${more.join()}`] = await all(what, ...(what === 'check' ? [config] : ['-c', config]), ...more)
    seen['doctor --connect'] = await all('doctor', '-c', config, '--connect')
    seen['service'] = await all('service', '-c', config)
    writeFileSync(scratch('signing'), `${secrets.signing.slice(0, 20)} ${secrets.token}\n`)
    seen['check of a secret that is none'] = await all('check', config)
    writeFileSync(scratch('url of nobody'), `htp:/${tail}\n`)
    seen['check of an address that is none'] = await all('check', config)
    seen['run with it'] = await all('run', '-c', config)
    for (const name of readdirSync(state, { recursive: true, encoding: 'utf8' })) if (statSync(join(state, name)).isFile()) seen[`state/${name}`] = readFileSync(join(state, name), 'latin1')
    seen['records'] = readFileSync(scratch('out.ndjson'), 'latin1')
    expect(seen['deadletters list ']).toContain('refuses:1')
    expect(seen['deadletters list --json']).toContain('[secret]')
    const shown = Object.entries(seen).flatMap(([where, text]) => Object.entries(secrets).filter(([, secret]) => text.includes(secret)).map(([name]) => `${name} in ${where}`))
    expect(shown).toEqual([])
  })
})
