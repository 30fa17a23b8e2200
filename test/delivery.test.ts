/**
 * Delivery on the built program: killed at any moment beside a receiver that does what receivers do, through an Alertmanager, with a receiver that is down, on disks
 * that fail, and with secrets that must not show. What each answer of a receiver means is in webhook.test.ts, what damage does to a spool in spool.test.ts.
 */
import { createHmac } from 'node:crypto'
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, output, Pipe, program, type Record_, scratch, sleep, start } from './process-harness.js'
import { comes, configured, firstArrivals, isLong, Life, line, Written } from './run-harness.js'
import { type Got, Receiver, ridsOf, status } from './webhook-harness.js'

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
    console.info(JSON.stringify({ kills: KILLS, lines: mark, requests: receiver.got.length, ids: byId.size, answers, taken: taken.length, rids: all.size, letters: listed.length }))
  })
})
