/** The webhook output against real receivers: every line of what it promises of statuses, waits, connections, certificates, batches, ids and shutdown. */
import { createHmac, generateKeyPairSync, type KeyObject, verify } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { AddressBook } from '../src/outputs/webhook/addresses.js'
import { Patience } from '../src/outputs/webhook/patience.js'
import { Redaction } from '../src/outputs/webhook/redaction.js'
import { retryAfter, verdictOf } from '../src/outputs/webhook/verdict.js'
import { completeConfig } from '../src/config.js'
import { DeadLetterStore, readLetters, replayLetters } from '../src/deadletters.js'
import { Spool } from '../src/spool/spool.js'
import type { Loss } from '../src/stage.js'
import { alert, closeAll, flow, flows, folder, gap, makePki, open, type Opened, page, type Pki, Receiver, receive, type Reply, ridsOf, secret, status, stopReceivers, TestDeadLetters, TestQueue, until } from './webhook-harness.js'

afterEach(async () => {
  await closeAll()
  await stopReceivers()
})

const hang: Reply = () => {}
const drop: Reply = (_got, _response, request) => void request.socket.destroy()

describe('what is sent', () => {
  test('records whole, in order, as POST with an id without a dot', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(...flows(1, 3)))
    await until(() => queue.length === 0, 'all acknowledged')
    expect(receiver.got).toHaveLength(1)
    const [got] = receiver.got
    expect(got!.method).toBe('POST')
    expect(got!.path).toBe('/in')
    expect(got!.text).toBe(flows(1, 3).map((line) => `${line}\n`).join(''))
    expect(got!.headers['content-type']).toBe('application/x-ndjson')
    expect(got!.headers['webhook-id']).toMatch(/^[\w-]{8,40}$/)
    expect(webhook.status()).toMatchObject({ sent: 3, requests: 1, failed: 0, queueRecords: 0, circuit: 'closed', paused: '', lastError: '' })
  })

  test('by count, by bytes, and what is larger than a request goes alone', async () => {
    const receiver = await receive()
    const size = page(flow(1)).length
    const { webhook, queue } = open(receiver.url(), { batch: { records: 4, bytes: 3 * size, every: 5 } })
    await webhook.write(page(...flows(1, 5), flow(6, { note: 'x'.repeat(5 * size) }), ...flows(7, 8)))
    await until(() => queue.length === 0, 'all acknowledged')
    expect(receiver.got.map(({ text }) => ridsOf(text).length)).toEqual([3, 2, 1, 2])
    expect(receiver.rids).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => `run:${n}`))
  })

  test('flow records wait for others, an alert or a gap takes them along at once', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { batch: { records: 500, bytes: 1e6, every: 3_600_000 } })
    await webhook.write(page(flow(0)))
    await webhook.write(page(flow(1)))
    await webhook.write(page(flow(2)))
    await webhook.write(page(gap(3)))
    await until(() => receiver.rids.includes('run:3'), 'the gap')
    await webhook.write(page(flow(4)))
    await webhook.write(page(alert('e1', 1)))
    await until(() => queue.length === 0, 'all acknowledged')
    expect(receiver.got.map(({ text }) => ridsOf(text))).toEqual([['run:0', 'run:1', 'run:2', 'run:3'], ['run:4', 'e1.1']])
  })

  // a receiver whose kernel holds the body back until the head is acknowledged, which takes 40 ms, is as slow as that for each request
  test.each([
    { held: 'the answer', records: 500, sizes: [1, 99] },
    { held: "the answer's body", records: 500, sizes: [1, 99] },
    { held: "the answer's body", records: 40, sizes: [1, 40, 40, 19] },
    { held: "the answer's body", records: 1, sizes: Array<number>(100).fill(1) },
  ])('while a receiver holds back $held, the next request grows, up to $records records, though none is waited for', async ({ held, records, sizes }) => {
    const receiver = await receive()
    let release = (): void => {}
    receiver.usual = (_got, response) => {
      if (held !== 'the answer') response.writeHead(200, { 'content-length': 2 }).flushHeaders()
      const end = (): void => void response.end('ok')
      if (receiver.got.length === 1) release = end
      else setImmediate(end)
    }
    const { webhook, queue } = open(receiver.url(), { batch: { records, bytes: 1e6, every: 0 }, gzip: false })
    await webhook.write(page(flow(1)))
    await until(() => receiver.got.length === 1, 'the first')
    for (let n = 2; n <= 100; n++) await webhook.write(page(flow(n)))
    expect(receiver.got).toHaveLength(1)
    release()
    await until(() => queue.length === 0, 'all acknowledged')
    expect(receiver.got.map(({ text }) => ridsOf(text).length)).toEqual(sizes)
    expect(receiver.rids).toEqual(Array.from({ length: 100 }, (_, i) => `run:${i + 1}`))
  })

  test('one request at a time', async () => {
    const receiver = await receive()
    let underWay = 0
    let most = 0
    receiver.usual = (_got, response) => {
      most = Math.max(most, ++underWay)
      setTimeout(() => {
        underWay--
        response.writeHead(200).end()
      }, 3)
    }
    const { webhook, queue } = open(receiver.url(), { batch: { records: 2, bytes: 1e6, every: 0 } })
    for (let i = 0; i < 10; i++) await webhook.write(page(...flows(i * 3, i * 3 + 2)))
    await until(() => queue.length === 0, 'all acknowledged')
    expect(most).toBe(1)
    expect(receiver.rids).toEqual(Array.from({ length: 30 }, (_, i) => `run:${i}`))
  })

  test('compressed above 1 KiB; 415 is remembered', async () => {
    const receiver = await receive()
    const { webhook, queue, reports } = open(receiver.url())
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'small')
    await webhook.write(page(...flows(2, 40)))
    await until(() => queue.length === 0, 'large')
    expect(receiver.got.map(({ headers }) => headers['content-encoding'])).toEqual([undefined, 'gzip'])
    expect(receiver.got[1]!.sent.length).toBeLessThan(receiver.got[1]!.text.length / 4)
    receiver.replies = [status(415)]
    await webhook.write(page(...flows(41, 80)))
    await until(() => queue.length === 0, 'plain')
    await webhook.write(page(...flows(81, 120)))
    await until(() => queue.length === 0, 'plain again')
    expect(receiver.got.slice(2).map(({ headers }) => headers['content-encoding'])).toEqual(['gzip', undefined, undefined])
    expect(receiver.got[2]!.headers['webhook-id']).toBe(receiver.got[3]!.headers['webhook-id'])
    expect(reports).toHaveLength(1)
    expect(reports[0]).toContain('415')
  })

  test('a receiver that calls compressed bodies a bad request gets them plain', async () => {
    const receiver = await receive()
    receiver.usual = (got, response) => void response.writeHead(got.headers['content-encoding'] === 'gzip' ? 400 : 200).end()
    const { webhook, queue, letters, reports } = open(receiver.url())
    await webhook.write(page(...flows(1, 40)))
    await until(() => queue.length === 0, 'plain')
    await webhook.write(page(...flows(41, 80)))
    await until(() => queue.length === 0, 'plain again')
    expect(receiver.got.map(({ headers }) => headers['content-encoding'])).toEqual(['gzip', undefined, undefined])
    expect(letters.refusals).toEqual([])
    expect(reports).toHaveLength(1)
  })

  test('what a configuration says, as it says it', async () => {
    const receiver = await receive()
    const written = { outputs: { pager: { type: 'webhook', url: receiver.url(), token: 't0ken-abc', batch: { every: '5ms' } } } }
    const { outputs } = await completeConfig(written, 'test', readFileSync, {})
    const config = outputs.find((output) => output.type === 'webhook')!
    const { webhook, queue } = open(receiver.url(), config)
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(webhook.name).toBe('pager')
    expect(receiver.got[0]!.headers['authorization']).toBe('Bearer t0ken-abc')
  })

  test('as one JSON array', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'json' })
    await webhook.write(page(...flows(1, 3)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got[0]!.headers['content-type']).toBe('application/json')
    expect(receiver.got[0]!.text).toBe(`[${flows(1, 3).join(',')}]`)
  })

  test('token and further headers', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { token: secret('t0ken-abc'), headers: { 'X-Scope-OrgID': secret('team-7') } })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'all acknowledged')
    expect(receiver.got[0]!.headers).toMatchObject({ authorization: 'Bearer t0ken-abc', 'x-scope-orgid': 'team-7' })
  })
})

describe('answers', () => {
  test.each([200, 201, 202, 204, 299])('%i is an acknowledgement', async (code) => {
    const receiver = await receive()
    receiver.usual = status(code)
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(1)
  })

  test.each([408, 425, 429, 500, 502, 503, 504, 520, 530, 599])('%i is tried again, with the same id and bytes', async (code) => {
    const receiver = await receive()
    receiver.replies = [status(code), status(code)]
    const { webhook, queue, letters } = open(receiver.url())
    await webhook.write(page(...flows(1, 3)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(3)
    expect(new Set(receiver.got.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
    expect(new Set(receiver.got.map(({ text }) => text)).size).toBe(1)
    expect(letters.refusals).toEqual([])
    expect(webhook.status().failed).toBe(2)
  })

  test.each([301, 302, 303, 307, 308])('%i is a failure and never followed', async (code) => {
    const elsewhere = await receive()
    const receiver = await receive()
    receiver.replies = [status(code, { location: elsewhere.url() })]
    const { webhook, queue, reports } = open(receiver.url(), { token: secret('t0ken-abc') })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged by the one that was named')
    expect(elsewhere.got).toEqual([])
    expect(receiver.got).toHaveLength(2)
    expect(reports[0]).toContain('redirects are not followed')
  })

  test.each([401, 403, 404])('%i makes dead letters where that is asked for, and what comes later is delivered', async (code) => {
    const receiver = await receive()
    receiver.replies = [status(code)]
    const { webhook, queue, letters } = open(receiver.url(), { when_denied: 'refuse' })
    await webhook.write(page(flow(1), flow(2)))
    await until(() => queue.length === 0, 'refused')
    await webhook.write(page(flow(3)))
    await until(() => webhook.status().sent === 1, 'delivered')
    expect(receiver.got).toHaveLength(2)
    expect(webhook.status()).toMatchObject({ refused: 2, paused: '' })
    expect(letters.refusals).toMatchObject([{ status: code }, { status: code }])
  })

  test.each([401, 403, 404])('%i pauses, keeps everything, says so once, and goes on when it is mended', async (code) => {
    const receiver = await receive()
    receiver.usual = status(code, {}, 'who are you?')
    const { webhook, queue, letters, reports } = open(receiver.url())
    await webhook.write(page(...flows(1, 5)))
    await until(() => receiver.got.length >= 6, 'asked now and then')
    expect(webhook.status().paused).toContain(String(code))
    expect(queue.length).toBe(5)
    receiver.usual = status(200)
    await until(() => queue.length === 0, 'acknowledged')
    expect(ridsOf(receiver.got.at(-1)!.text)).toEqual(flows(1, 5).map((line) => (JSON.parse(line) as { rid: string }).rid))
    expect(reports.filter((report) => report.includes(`it answers ${code}`))).toHaveLength(1)
    expect(reports.at(-1)).toContain('takes records again')
    expect(webhook.status().paused).toBe('')
    expect(letters.refusals).toEqual([])
  })

  test.each([400, 413, 422])('%i: one poisoned record in a batch of a hundred is found by halves', async (code) => {
    const receiver = await receive()
    receiver.usual = (got, response) => void (ridsOf(got.text).includes('run:57') ? response.writeHead(code).end('no 57s here') : response.writeHead(200).end())
    const accepted: string[] = []
    const usual = receiver.usual
    receiver.usual = (got, response, request) => {
      if (!ridsOf(got.text).includes('run:57')) accepted.push(...ridsOf(got.text))
      usual(got, response, request)
    }
    const { webhook, queue, letters } = open(receiver.url())
    await webhook.write(page(...flows(1, 100)))
    await until(() => queue.length === 0, 'all settled')
    expect(accepted).toEqual(flows(1, 100).flatMap(ridsOf).filter((rid) => rid !== 'run:57'))
    expect(letters.refusals).toHaveLength(1)
    expect(JSON.parse(Buffer.from(letters.refusals[0]!.record).toString())).toMatchObject({ rid: 'run:57' })
    expect(letters.refusals[0]).toMatchObject({ status: code, reason: code === 413 ? 'too large' : 'refused' })
    expect(Buffer.from(letters.refusals[0]!.body).toString()).toBe('no 57s here')
    // one more to find out whether compressing is what it does not like
    expect(receiver.got.length).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(100)) + 2)
    expect(webhook.status()).toMatchObject({ sent: 99, refused: 1, circuit: 'closed' })
  })

  test('a failure while the halves are tried begins with what is left', async () => {
    const receiver = await receive()
    let failing = 2
    const accepted: string[] = []
    receiver.usual = (got, response) => {
      const rids = ridsOf(got.text)
      if (rids.includes('run:6')) return void response.writeHead(400).end()
      if (accepted.length > 0 && failing-- > 0) return void response.writeHead(503).end()
      accepted.push(...rids)
      response.writeHead(200).end()
    }
    const { webhook, queue, letters } = open(receiver.url())
    await webhook.write(page(...flows(1, 8)))
    await until(() => queue.length === 0, 'all settled')
    expect(accepted).toEqual([1, 2, 3, 4, 5, 7, 8].map((n) => `run:${n}`))
    expect(letters.refusals).toHaveLength(1)
  })

  test.each([400, 413, 422])('%i is said with the first refusal, in the words of the receiver, without what is secret, and then seldom', async (code) => {
    const receiver = await receive()
    receiver.usual = status(code, {}, 'who is t0ken-abc? mark is too "large"')
    const { webhook, queue, reports } = open(receiver.url(), { token: secret('t0ken-abc'), batch: { records: 1, bytes: 1e6, every: 0 } })
    for (let n = 1; n <= 25; n++) await webhook.write(page(flow(n)))
    await until(() => queue.length === 0, 'all refused')
    const said = reports.filter((report) => report.includes('refuses'))
    expect(said).toHaveLength(2)
    expect(said[0]).toContain(`it refuses a record for good, with ${code}: who is [secret]? mark is too "large". What it refuses is kept among the dead letters`)
    expect(said[1]).toContain(`it refuses records (10 so far) for good, with ${code}`)
    expect(webhook.status()).toMatchObject({ refused: 25, sent: 0 })
  })

  test('501 is not tried again', async () => {
    const receiver = await receive()
    receiver.replies = [status(501)]
    const { webhook, queue, letters } = open(receiver.url())
    await webhook.write(page(...flows(1, 4)))
    await until(() => queue.length === 0, 'settled')
    expect(receiver.got).toHaveLength(1)
    expect(letters.refusals.map(({ status: code }) => code)).toEqual([501, 501, 501, 501])
    expect(webhook.status().refused).toBe(4)
  })

  test('410 ends it: said once, nothing more is sent, nothing thrown away', async () => {
    const receiver = await receive()
    receiver.usual = status(410)
    const { webhook, queue, reports } = open(receiver.url())
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().paused !== '', 'disabled')
    await webhook.write(page(alert('e1', 1)))
    await webhook.close()
    expect(receiver.got).toHaveLength(1)
    expect(queue.length).toBe(2)
    expect(reports.filter((report) => report.includes('410'))).toHaveLength(1)
  })

  test('dead letters that someone wants sent again go out', async () => {
    const receiver = await receive()
    const deadLetters = new TestDeadLetters()
    deadLetters.replays.push(page(flow(7)))
    const { queue } = open(receiver.url(), {}, { deadLetters })
    await until(() => receiver.got.length === 1 && queue.length === 0, 'sent again')
    expect(receiver.rids).toEqual(['run:7'])
  })

  test('what each status means', () => {
    expect([200, 204, 299].map((code) => verdictOf(code, false))).toEqual(['delivered', 'delivered', 'delivered'])
    expect([408, 425, 429, 500, 503, 520, 530].map((code) => verdictOf(code, true))).toEqual(Array(7).fill('later'))
    expect([301, 304, 308, 401, 402, 403, 404, 405].map((code) => verdictOf(code, true))).toEqual(Array(8).fill('paused'))
    expect([400, 409, 413, 422].map((code) => verdictOf(code, true))).toEqual(Array(4).fill('refused'))
    expect([verdictOf(415, true), verdictOf(415, false), verdictOf(410, true), verdictOf(501, true)]).toEqual(['plain', 'paused', 'gone', 'undeliverable'])
  })
})

describe('waits', () => {
  test('Retry-After in both forms, up to a limit, by the clock of the receiver', () => {
    const now = Date.parse('2026-11-22T10:00:00Z')
    expect(retryAfter('7', undefined, now, 3_600_000)).toBe(7000)
    expect(retryAfter(' 7 ', undefined, now, 3_600_000)).toBe(7000)
    expect(retryAfter('99999', undefined, now, 3_600_000)).toBe(3_600_000)
    expect(retryAfter('Sun, 22 Nov 2026 10:00:30 GMT', undefined, now, 3_600_000)).toBe(30_000)
    expect(retryAfter('Sunday, 22-Nov-26 10:00:30 GMT', undefined, now, 3_600_000)).toBe(30_000)
    expect(retryAfter('Sun Nov 22 10:00:30 2026', undefined, now, 3_600_000)).toBe(30_000)
    expect(retryAfter('Sun, 22 Nov 2026 09:00:30 GMT', 'Sun, 22 Nov 2026 09:00:00 GMT', now, 3_600_000)).toBe(30_000)
    expect(retryAfter('Sun, 22 Nov 2026 09:00:00 GMT', undefined, now, 3_600_000)).toBe(0)
    expect([undefined, '', 'soon', '-5', '1.5'].map((value) => retryAfter(value, undefined, now, 3_600_000))).toEqual([0, 0, 0, 0, 0])
  })

  test.each([
    ['429: seconds', 429, { 'retry-after': '1' }],
    ['a date by its own clock, with any status that is tried again', 500, { date: 'Sun, 22 Nov 2026 10:00:00 GMT', 'retry-after': 'Sun, 22 Nov 2026 10:00:01 GMT' }],
  ])('Retry-After (%s) holds for the whole endpoint, alerts too', async (_, code, headers) => {
    const receiver = await receive()
    receiver.replies = [status(code, headers)]
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(flow(1)))
    await until(() => receiver.got.length === 1, 'the first')
    await webhook.write(page(alert('e1', 1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got[1]!.at - receiver.got[0]!.at).toBeGreaterThanOrEqual(950)
    expect(receiver.got[1]!.headers['webhook-id']).toBe(receiver.got[0]!.headers['webhook-id'])
  })

  test('max_retry_after caps it', async () => {
    const receiver = await receive()
    receiver.replies = [status(503, { 'retry-after': '86400' })]
    const { webhook, queue } = open(receiver.url(), { max_retry_after: 50 })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged long before tomorrow')
    expect(receiver.got).toHaveLength(2)
  })

  test('back-off doubles up to its limit, with full jitter, and begins anew after a success', () => {
    let random = 0.999
    const patience = new Patience({ first: 500, max: 300_000, circuitAfter: 3, random: () => random })
    const waits = Array.from({ length: 14 }, () => {
      patience.failed(0, 0)
      return Math.round(patience.notBefore / 0.999)
    })
    expect(waits.slice(0, 10)).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000])
    expect(waits.slice(10)).toEqual([300_000, 300_000, 300_000, 300_000])
    random = 0.25
    patience.failed(1000, 0)
    expect(patience.notBefore).toBe(1000 + 75_000)
    patience.failed(1000, 200_000)
    expect(patience.notBefore).toBe(201_000)
    patience.succeeded()
    expect([patience.notBefore, patience.circuit]).toEqual([0, 'closed'])
    random = 0
    patience.failed(1000, 0)
    expect(patience.notBefore).toBe(1000)
  })

  test('tries have no end but the age of what waits, which is then counted', async () => {
    const receiver = await receive()
    receiver.usual = status(500)
    let now = Date.now()
    const lost: Loss[] = []
    const queue = await Spool.open({ folder: null, maxBytes: 1 << 20, whenFull: 'summarize', maxAgeMs: 72 * 3_600_000, now: () => now, report: () => {}, onLost: (loss) => lost.push(loss) })
    const { webhook } = open(receiver.url(), {}, { queue })
    await webhook.write(page(...flows(1, 3)))
    await until(() => receiver.got.length >= 20, 'tried again and again')
    now += 71 * 3_600_000
    const { length } = receiver.got
    await until(() => receiver.got.length >= length + 3, 'and again')
    expect(queue.length).toBe(3)
    now += 2 * 3_600_000
    await until(() => queue.length === 0, 'given up')
    queue.reportLosses()
    expect(lost.map(({ count, reason }) => [count, reason])).toEqual([[3, 'too_old']])
    await webhook.close(0)
    await queue.close()
  })

  test('the circuit opens after so many failures and lets one request find out', async () => {
    const patience = new Patience({ first: 500, max: 300_000, circuitAfter: 3, random: () => 0 })
    const seen: string[] = []
    for (let i = 0; i < 4; i++) {
      patience.try()
      seen.push(patience.circuit)
      patience.failed(0, 0)
      seen.push(patience.circuit)
    }
    expect(seen).toEqual(['closed', 'closed', 'closed', 'closed', 'closed', 'open', 'half-open', 'open'])
    expect(patience.notBefore).toBe(500)

    const receiver = await receive()
    receiver.usual = status(500)
    const { webhook, queue, reports } = open(receiver.url())
    await webhook.write(page(...flows(1, 3)))
    await until(() => webhook.status().circuit === 'open', 'the circuit is open')
    expect(receiver.got.length).toBeGreaterThanOrEqual(5)
    expect(reports).toHaveLength(1)
    receiver.usual = status(200)
    await until(() => queue.length === 0, 'acknowledged')
    expect(webhook.status().circuit).toBe('closed')
    expect(reports.at(-1)).toContain('takes records again')
  })
})

describe('slow and endless', () => {
  test('no answer: given up, and the same again', async () => {
    const receiver = await receive()
    receiver.replies = [hang]
    const { webhook, queue } = open(receiver.url(), { timeouts: { connect: 1000, headers: 100, total: 300 } })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(2)
    expect(webhook.status().lastError).toContain('no answer within 100 ms')
  })

  test('a receiver that takes the connection and reads nothing: given up', async () => {
    const deaf = createServer((socket) => void socket.pause().on('error', () => {}))
    await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve))
    const { port } = deaf.address() as { port: number }
    // more than what the kernel takes for it
    const large = flow(1, { note: 'x'.repeat(16e6) })
    const { webhook, queue } = open(`http://127.0.0.1:${port}/in`, { gzip: false, timeouts: { connect: 1000, headers: 100, total: 300 } })
    await webhook.write(page(large))
    await until(() => webhook.status().failed >= 2, 'given up, and tried again')
    expect(webhook.status().lastError).toContain('no answer within 100 ms')
    expect(queue.length).toBe(1)
    await webhook.close(0)
    deaf.close()
  })

  test('a head that drips in for ever is no answer', async () => {
    const receiver = await receive()
    receiver.replies = [
      (_got, _response, request) => {
        request.socket.write('HTTP/1.1 200 OK\r\n')
        const drip = setInterval(() => request.socket.write('x-drip: 1\r\n'), 20)
        request.socket.on('close', () => clearInterval(drip))
      },
    ]
    const { webhook, queue } = open(receiver.url(), { timeouts: { connect: 1000, headers: 200, total: 300 } })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(2)
  })

  test.each([
    [200, 1],
    [500, 2],
  ])('an endless body behind %i: the status counts, the rest is not read', async (code, requests) => {
    const receiver = await receive()
    let written = 0
    receiver.replies = [
      (_got, response) => {
        response.writeHead(code)
        const more = (): void => {
          while (!response.destroyed && written < 1e9) {
            written += 65_536
            if (!response.write(Buffer.alloc(65_536))) return void response.once('drain', more)
          }
        }
        more()
      },
    ]
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(requests)
    // what the kernel holds is written, not a gigabyte
    expect(written).toBeLessThan(50e6)
  })

  test('a body that drips behind 200 is an acknowledgement, and is given up', async () => {
    const receiver = await receive()
    receiver.replies = [
      (_got, response) => {
        response.writeHead(200)
        const drip = setInterval(() => response.write('.'), 20)
        response.on('close', () => clearInterval(drip))
      },
    ]
    const { webhook, queue } = open(receiver.url(), { timeouts: { connect: 1000, headers: 200, total: 300 } })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    await webhook.write(page(flow(2)))
    await until(() => queue.length === 0, 'the next, on a new connection')
    expect(receiver.rids).toEqual(['run:1', 'run:2'])
    expect(receiver.connections).toBe(2)
  })

  test('a connection that is never made', async () => {
    // accepts and says nothing, so that TLS never begins
    const silent = createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as { port: number }
    const { webhook, queue } = open(`https://localhost:${port}/in`, { timeouts: { connect: 100, headers: 1000, total: 1000 } })
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().failed >= 2, 'tried again')
    expect(webhook.status().lastError).toContain('within 100 ms')
    expect(queue.length).toBe(1)
    await webhook.close(0)
    silent.close()
  })
})

/** As servers do that have waited too long for a request. */
async function saysGoodbye(receiver: Receiver, { webhook, queue }: Opened): Promise<void> {
  await until(() => receiver.spoken.size === 1, 'the first connection')
  // longer than what counts as short-lived
  await new Promise((resolve) => setTimeout(resolve, 1100))
  for (const socket of receiver.spoken) socket.end('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n')
  await until(() => receiver.connections === 2 && receiver.sockets.size === 1, 'the second')
  expect(receiver.got).toEqual([])
  await webhook.write(page(flow(1)))
  await until(() => queue.length === 0, 'acknowledged')
  expect(receiver.connections).toBe(2)
  expect(webhook.status()).toMatchObject({ failed: 0, sent: 1 })
}

describe('the connection', () => {
  test('is made before anything is sent, and made again when it is closed', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url())
    await until(() => receiver.connections === 1 && receiver.sockets.size === 1, 'the first connection')
    // longer than what counts as short-lived
    await new Promise((resolve) => setTimeout(resolve, 1100))
    for (const socket of receiver.sockets) socket.end()
    await until(() => receiver.connections === 2 && receiver.sockets.size === 1, 'the second')
    expect(receiver.got).toEqual([])
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.connections).toBe(2)
    await webhook.write(page(flow(2)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.connections).toBe(2)
  })

  test('whose receiver says goodbye to it unasked is made again before it is needed', async () => {
    const receiver = await receive()
    await saysGoodbye(receiver, open(receiver.url()))
  })

  test('closed while it stood idle: the same goes out at once on a fresh one, and is no failure', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { retry: { first: 3_600_000, max: 3_600_000, circuit_after: 5 } }, { random: () => 1 })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'the first')
    receiver.replies = [drop]
    await webhook.write(page(flow(2)))
    await until(() => queue.length === 0, 'the second')
    expect(receiver.rids).toEqual(['run:1', 'run:2', 'run:2'])
    expect(receiver.got[1]!.headers['webhook-id']).toBe(receiver.got[2]!.headers['webhook-id'])
    expect(webhook.status()).toMatchObject({ failed: 0, sent: 2 })
  })

  test('a receiver that closes after every answer', async () => {
    const receiver = await receive()
    receiver.usual = status(200, { connection: 'close' })
    const { webhook, queue } = open(receiver.url())
    for (let i = 0; i < 3; i++) {
      await webhook.write(page(flow(i)))
      await until(() => queue.length === 0, 'acknowledged')
    }
    expect(receiver.rids).toEqual(['run:0', 'run:1', 'run:2'])
    expect(webhook.status().failed).toBe(0)
  })

  test('what a receiver says unasked on the waiting connection is no answer', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url())
    await until(() => receiver.sockets.size === 1, 'the first connection')
    for (const socket of receiver.sockets) socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    await new Promise((resolve) => setTimeout(resolve, 50))
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['run:1'])
  })

  test('dropped at every request: waits between the tries, and all comes through in the end', async () => {
    const receiver = await receive()
    receiver.replies = [drop, drop, drop, drop, drop]
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(...flows(1, 2)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(6)
    expect(webhook.status().failed).toBeGreaterThan(0)
  })

  test('a receiver that is not there yet', async () => {
    const first = await Receiver.start()
    const { port } = first
    await first.stop()
    const { webhook, queue, reports } = open(`http://127.0.0.1:${port}/in`)
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().failed >= 2, 'refused')
    expect(webhook.status().lastError).toContain('ECONNREFUSED')
    expect(reports[0]).toContain('ECONNREFUSED')
    const receiver = await receive(null, port)
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['run:1'])
  })
})

/** A name server with one name, which answers only while `isUp`. */
async function nameServer(name: string, ttl = 1): Promise<{ readonly server: string; isUp: boolean; asked: number; close: () => void }> {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  const control = { server: `127.0.0.1:${socket.address().port}`, isUp: true, asked: 0, close: () => socket.close() }
  socket.on('message', (query, from) => {
    control.asked++
    const question = query.subarray(12, query.indexOf(0, 12) + 5)
    const isAddress = question.readUInt16BE(question.length - 4) === 1
    const asked = [...question.subarray(0, -4)].map((byte) => (byte < 32 ? '.' : String.fromCharCode(byte))).join('').replace(/^\.|\.$/g, '')
    const isKnown = control.isUp && asked === name && isAddress
    const head = Buffer.from([query[0]!, query[1]!, 0x81, control.isUp && asked === name ? 0x80 : 0x83, 0, 1, 0, isKnown ? 1 : 0, 0, 0, 0, 0])
    const answer = isKnown ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, ttl >> 8, ttl & 0xff, 0, 4, 127, 0, 0, 1]) : Buffer.alloc(0)
    socket.send(Buffer.concat([head, question, answer]), from.port, from.address)
  })
  return control
}

describe('names', () => {
  const files = (): { hostsFile: string; resolvFile: string } => {
    const dir = folder()
    writeFileSync(join(dir, 'hosts'), '127.0.0.1 localhost\n10.1.2.3  receiver.lan receiver # a comment\nfe80::1 six.lan\n')
    writeFileSync(join(dir, 'resolv.conf'), 'nameserver 127.0.0.1\nsearch corp.example\noptions ndots:2\n')
    return { hostsFile: join(dir, 'hosts'), resolvFile: join(dir, 'resolv.conf') }
  }

  test('literals, the hosts file, localhost, search domains', async () => {
    const dns = await nameServer('hook.team.corp.example')
    const book = new AddressBook({ ...files(), servers: [dns.server], last: null })
    const addresses = async (name: string): Promise<string[]> => (await book.resolve(name)).addresses.map(({ address }) => address)
    expect(await addresses('192.0.2.7')).toEqual(['192.0.2.7'])
    expect(await addresses('[2001:db8::1]')).toEqual(['2001:db8::1'])
    expect(await addresses('RECEIVER')).toEqual(['10.1.2.3'])
    expect(await addresses('six.lan')).toEqual(['fe80::1'])
    expect(await addresses('api.localhost')).toEqual(['127.0.0.1', '::1'])
    expect(dns.asked).toBe(0)
    expect(await addresses('hook.team')).toEqual(['127.0.0.1'])
    dns.close()
  })

  test('what was found is kept for its time to live, what worked for when nothing answers', async () => {
    const dns = await nameServer('hook.example')
    let now = 1_000_000
    const book = new AddressBook({ ...files(), servers: [dns.server], last: null, now: () => now })
    await book.resolve('hook.example')
    const { asked } = dns
    await book.resolve('hook.example')
    expect(dns.asked).toBe(asked)
    book.worked('hook.example', '127.0.0.1')
    dns.isUp = false
    now += 2000
    const late = await book.resolve('hook.example')
    expect(dns.asked).toBeGreaterThan(asked)
    expect(late.addresses).toEqual([{ address: '127.0.0.1', family: 4 }])
    expect(late.fault).toContain('ENOTFOUND')
    await expect(book.resolve('other.example')).rejects.toThrow(/other\.example cannot be resolved \(ENOTFOUND\)/)
    dns.close()
  })

  test('a long time to live counts as a minute; after a failure the name is asked anew at once', async () => {
    const dns = await nameServer('hook.example', 3600)
    let now = 1_000_000
    const book = new AddressBook({ ...files(), servers: [dns.server], last: null, now: () => now })
    const isAsked = async (): Promise<boolean> => {
      const { asked } = dns
      await book.resolve('hook.example')
      return dns.asked > asked
    }
    expect(await isAsked()).toBe(true)
    now += 59_000
    expect(await isAsked()).toBe(false)
    now += 2000
    expect(await isAsked()).toBe(true)
    book.failed('hook.example')
    expect(await isAsked()).toBe(true)
    dns.close()
  })

  test('a name that cannot be resolved is tried again', async () => {
    const dns = await nameServer('hook.example')
    dns.isUp = false
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url('hook.example'), {}, { addresses: new AddressBook({ ...files(), servers: [dns.server], last: null }) })
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().failed >= 2, 'failures')
    expect(webhook.status().lastError).toContain('hook.example cannot be resolved (ENOTFOUND)')
    dns.isUp = true
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got[0]!.headers['host']).toBe(`hook.example:${receiver.port}`)
    dns.close()
  })
})

describe('TLS', () => {
  let pki: Pki
  beforeAll(() => {
    pki = makePki()
  })
  const trusting = (): { ca_file: string; cert_file: null; key_file: null; min_version: 'TLSv1.2' } => ({ ca_file: pki.ca, cert_file: null, key_file: null, min_version: 'TLSv1.2' })

  test('a connection that the receiver says goodbye to unasked is made again before it is needed', async () => {
    const receiver = await receive(pki.issue('localhost', 30))
    await saysGoodbye(receiver, open(receiver.url('localhost'), { tls: trusting() }))
  })

  test('a certificate of the authority that is named; when it ends is known', async () => {
    const receiver = await receive(pki.issue('localhost', 30))
    const { webhook, queue } = open(receiver.url('localhost'), { tls: trusting() })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(webhook.status().certificateExpires).toBeGreaterThan(Date.now() + 29 * 86_400_000)
  })

  test.each([
    ['expired', () => pki.issue('localhost', -1), {}, 'has expired'],
    ['for another host', () => pki.issue('other.example', 30), {}, 'is for another name than localhost'],
    ['self-signed', () => pki.selfSigned(), {}, 'is self-signed'],
    ['of an unknown authority', () => pki.issue('localhost', 30), { ca_file: null }, 'authority'],
    ['of TLS 1.1 alone', () => ({ ...pki.issue('localhost', 30), minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }) as const, {}, 'TLS'],
    ['of TLS 1.2 where 1.3 is wanted', () => ({ ...pki.issue('localhost', 30), maxVersion: 'TLSv1.2' }) as const, { min_version: 'TLSv1.3' }, 'TLS'],
  ] as const)('a receiver %s is not trusted, and says why', async (_, server, tls, why) => {
    const receiver = await receive(server())
    const { webhook, queue, reports } = open(receiver.url('localhost'), { tls: { ...trusting(), ...tls }, token: secret('t0ken-abc') })
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().failed >= 2, 'failures')
    expect(webhook.status().lastError).toContain(why)
    expect(reports[0]).toContain(why)
    expect(receiver.got).toEqual([])
    expect(queue.length).toBe(1)
  })

  test('a client certificate, and none where one is wanted', async () => {
    const receiver = await receive({ ...pki.issue('localhost', 30), requestCert: true, ca: readFileSync(pki.ca) })
    const { certFile, keyFile } = pki.issue('gw1', 30)
    const without = open(receiver.url('localhost'), { tls: trusting() })
    await without.webhook.write(page(flow(1)))
    await until(() => without.webhook.status().failed >= 1, 'refused')
    expect(receiver.got).toEqual([])
    await without.webhook.close(0)
    const { webhook, queue } = open(receiver.url('localhost'), { tls: { ...trusting(), cert_file: certFile, key_file: keyFile } })
    await webhook.write(page(flow(2)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['run:2'])
  })

  test('a file that is not there, or is none of that', async () => {
    const receiver = await receive(pki.issue('localhost', 30))
    const missing = open(receiver.url('localhost'), { tls: { ...trusting(), ca_file: '/nonexistent/ca.pem' } })
    await missing.webhook.write(page(flow(1)))
    await until(() => missing.webhook.status().failed >= 1, 'a failure')
    expect(missing.webhook.status().lastError).toContain('tls.ca_file /nonexistent/ca.pem cannot be read')
  })
})

describe('signatures', () => {
  const keys = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD']

  test('Standard Webhooks: two secrets, the attempt\'s own time, the sent bytes', async () => {
    const receiver = await receive()
    receiver.replies = [status(500), status(500)]
    let now = Date.now()
    const { webhook, queue } = open(receiver.url(), { signing: { scheme: 'standard', secrets: keys.map(secret) } }, { now: () => (now += 700) })
    await webhook.write(page(...flows(1, 40)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got).toHaveLength(3)
    for (const { headers, sent } of receiver.got) {
      const signed = Buffer.concat([Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`), sent])
      const wanted = keys.map((key) => `v1,${createHmac('sha256', Buffer.from(key.slice(6), 'base64')).update(signed).digest('base64')}`)
      expect(headers['content-encoding']).toBe('gzip')
      expect(headers['webhook-signature']).toBe(wanted.join(' '))
    }
    expect(new Set(receiver.got.map(({ headers }) => headers['webhook-id'])).size).toBe(1)
    expect(new Set(receiver.got.map(({ headers }) => headers['webhook-timestamp'])).size).toBe(3)
  })

  test('Standard Webhooks with a private key: anyone who has the public one can tell', async () => {
    const receiver = await receive()
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    const raw = (key: KeyObject, type: 'pkcs8' | 'spki'): Buffer => key.export({ format: 'der', type }).subarray(-32)
    const alone = `whsk_${raw(privateKey, 'pkcs8').toString('base64')}`
    const both = `whsk_${Buffer.concat([raw(privateKey, 'pkcs8'), raw(publicKey, 'spki')]).toString('base64')}`
    const { webhook, queue } = open(receiver.url(), { signing: { scheme: 'standard', secrets: [alone, both, keys[0]!].map(secret) } })
    await webhook.write(page(flow(1)))
    await until(() => queue.length === 0, 'acknowledged')
    const [{ headers, sent }] = receiver.got as [(typeof receiver.got)[number]]
    const signed = Buffer.concat([Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`), sent])
    const signatures = (headers['webhook-signature'] as string).split(' ').map((text) => text.split(','))
    expect(signatures.map(([kind]) => kind)).toEqual(['v1a', 'v1a', 'v1'])
    for (const [, text] of signatures.slice(0, 2)) expect(verify(null, signed, publicKey, Buffer.from(text!, 'base64'))).toBe(true)
  })

  test('GitHub and Slack', async () => {
    const receiver = await receive()
    for (const scheme of ['github', 'slack'] as const) {
      const { webhook, queue } = open(receiver.url(), { signing: { scheme, secrets: [secret('first key'), secret('second key')] } })
      await webhook.write(page(flow(1)))
      await until(() => queue.length === 0, 'acknowledged')
      await webhook.close()
    }
    const hex = (key: string, text: Uint8Array): string => createHmac('sha256', key).update(text).digest('hex')
    const [github, slack] = receiver.got
    expect(github!.headers['x-hub-signature-256']).toBe(`sha256=${hex('first key', github!.sent)}`)
    expect(github!.headers['x-hub-signature-256-2']).toBe(`sha256=${hex('second key', github!.sent)}`)
    const base = Buffer.concat([Buffer.from(`v0:${slack!.headers['x-slack-request-timestamp']}:`), slack!.sent])
    expect(slack!.headers['x-slack-signature']).toBe(`v0=${hex('first key', base)}`)
    expect(slack!.headers['x-slack-signature-2']).toBe(`v0=${hex('second key', base)}`)
  })
})

describe('restarts', () => {
  test('the request that was under way has the same records and id, however many wait by then', async () => {
    const receiver = await receive()
    receiver.usual = status(500)
    const state = folder()
    const first = open(receiver.url(), {}, { folder: state })
    await first.webhook.write(page(...flows(1, 30)))
    await until(() => receiver.got.length >= 2, 'tried')
    await first.webhook.close(0)
    await first.queue.append(page(...flows(31, 60)))
    receiver.usual = status(200)
    const before = receiver.got.length
    open(receiver.url(), {}, { folder: state, queue: first.queue })
    await until(() => first.queue.length === 0, 'acknowledged')
    expect(receiver.got[before]!.headers['webhook-id']).toBe(receiver.got[0]!.headers['webhook-id'])
    expect(receiver.got[before]!.text).toBe(receiver.got[0]!.text)
    expect(ridsOf(receiver.got[before + 1]!.text)).toEqual(flows(31, 60).flatMap(ridsOf))
  })

  test('what was acknowledged is not sent again when the queue forgot', async () => {
    const receiver = await receive()
    const state = folder()
    const forgetful = new TestQueue()
    const first = open(receiver.url(), { batch: { records: 10, bytes: 1e6, every: 0 } }, { folder: state, queue: forgetful })
    const copy = new TestQueue()
    for (const queue of [forgetful, copy]) await queue.append(page(...flows(1, 25)))
    await until(() => forgetful.length === 0, 'acknowledged')
    await first.webhook.close()
    await copy.append(page(...flows(26, 30)))
    open(receiver.url(), { batch: { records: 10, bytes: 1e6, every: 0 } }, { folder: state, queue: copy })
    await until(() => copy.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(flows(1, 30).flatMap(ridsOf))
  })

  test('numbers of another queue are not taken for those of this one', async () => {
    const receiver = await receive()
    const state = folder()
    // numbered from a later time than the next one
    const first = open(receiver.url(), {}, { folder: state, queue: new TestQueue(1000) })
    await first.webhook.write(page(...flows(1, 9)))
    await until(() => first.queue.length === 0, 'acknowledged')
    await first.webhook.close()
    const other = open(receiver.url(), {}, { folder: state, queue: new TestQueue(500) })
    await other.webhook.write(page(...flows(11, 13)))
    await other.webhook.write(page(...flows(14, 22)))
    await until(() => other.queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual([...flows(1, 9), ...flows(11, 22)].flatMap(ridsOf))
  })

  test('a damaged folder costs sameness, not the start', async () => {
    const receiver = await receive()
    const state = folder()
    writeFileSync(join(state, 'request'), '\0\0garbage')
    writeFileSync(join(state, 'episodes.json'), '{"version":1,"admitted":7')
    const { webhook, queue, reports } = open(receiver.url(), {}, { folder: state })
    await webhook.write(page(alert('e1', 1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(reports).toHaveLength(1)
    expect(reports[0]).toContain('episodes.json is damaged')
  })
})

describe('with the real spool and dead letters', () => {
  test('whatever the receiver does, over restarts each record arrives or is a dead letter, and arrives when it is replayed', async () => {
    const receiver = await receive()
    const taken = new Set<string>()
    let poison = true
    let n = 0
    receiver.usual = (got, response, request) => {
      const turn = n++ % 7
      const rids = ridsOf(got.text)
      if (turn === 1) return void response.writeHead(500).end()
      if (turn === 3) return void request.socket.destroy()
      if (turn === 5) return void response.writeHead(429, { 'retry-after': '0' }).end()
      if (poison && rids.some((rid) => rid.endsWith('77'))) return void response.writeHead(422).end('no 77s')
      for (const rid of rids) taken.add(rid)
      response.writeHead(200).end()
    }
    const state = folder()
    const losses: unknown[] = []
    const shared = { report: () => {}, onLost: (loss: unknown) => losses.push(loss) }
    const all = Array.from({ length: 900 }, (_, i) => i)
    const run = async (write: (webhook: ReturnType<typeof open>['webhook']) => Promise<void>, graceMs: number): Promise<void> => {
      const queue = await Spool.open({ folder: join(state, 'spool'), maxBytes: 64 << 20, whenFull: 'summarize', ...shared })
      const deadLetters = await DeadLetterStore.open({ folder: join(state, 'letters'), output: 'hook', origin: receiver.url(), maxBytes: 1 << 20, ...shared })
      const { webhook } = open(receiver.url(), { batch: { records: 40, bytes: 1e6, every: 2 } }, { folder: join(state, 'hook'), queue, deadLetters })
      await write(webhook)
      await webhook.sync!()
      if (graceMs > 0) await until(() => queue.length === 0, 'all settled')
      await webhook.close(graceMs)
      await deadLetters.close()
      await queue.close()
    }
    for (let i = 0; i < 9; i++) await run(async (webhook) => void (await webhook.write(page(...all.slice(i * 100, i * 100 + 100).map((k) => flow(k))))), i % 3)
    await run(() => Promise.resolve(), 1000)
    const letters = readLetters(join(state, 'letters'))
    const refused = letters.map(({ record }) => ridsOf(record.toString())[0]!)
    expect(new Set(refused)).toEqual(new Set([77, 177, 277, 377, 477, 577, 677, 777, 877].map((k) => `run:${k}`)))
    expect(new Set([...taken, ...refused]).size).toBe(900)
    poison = false
    replayLetters(join(state, 'letters'), letters)
    await run(() => until(() => taken.size === 900, 'replayed'), 1000)
    expect(readLetters(join(state, 'letters'))).toEqual([])
    expect(losses).toEqual([])
  })
})

describe('shutdown', () => {
  test('what waits is sent while the receiver takes it', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { batch: { records: 10, bytes: 1e6, every: 3_600_000 } })
    await webhook.write(page(...flows(1, 35)))
    await webhook.close()
    expect(queue.length).toBe(0)
    expect(receiver.rids).toEqual(flows(1, 35).flatMap(ridsOf))
  })

  test('a receiver that hangs has the grace and no more; everything stays in the queue', async () => {
    const receiver = await receive()
    receiver.usual = hang
    const { webhook, queue } = open(receiver.url(), { timeouts: { connect: 60_000, headers: 60_000, total: 60_000 } })
    await webhook.write(page(...flows(1, 3)))
    await until(() => receiver.got.length === 1, 'under way')
    await webhook.close(50)
    expect(queue.length).toBe(3)
    expect(webhook.status().lastError).toBe('')
  })

  test('one that fails is not waited for where what waits is on the disk', async () => {
    const receiver = await receive()
    receiver.usual = status(503, { 'retry-after': '3600' })
    const { webhook, queue } = open(receiver.url(), {}, { folder: folder() })
    await webhook.write(page(flow(1)))
    await until(() => webhook.status().failed === 1, 'a failure')
    await webhook.close(3_600_000)
    expect(queue.length).toBe(1)
  })
})

describe('episodes', () => {
  const hours = (n: number): string => new Date(Date.now() - n * 3_600_000).toISOString()

  test('one that ended more than an hour before the start is not told; flow records of that time are', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url())
    await webhook.write(page(alert('old', 1, { time: hours(5) }), flow(1, { time: hours(5) }), alert('old', 2, { time: hours(4), status: 'resolved', ended: hours(4.1) })))
    await webhook.write(page(alert('long', 1, { time: hours(3) }), alert('long', 2, { time: hours(0.5) }), alert('new', 1)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['run:1', 'long.2', 'new.1'])
    expect(webhook.status().filtered).toBe(3)
  })

  test('the end of one that was told is told, however late', async () => {
    const receiver = await receive()
    const state = folder()
    const first = open(receiver.url(), {}, { folder: state })
    await first.webhook.write(page(alert('e1', 1)))
    await until(() => first.queue.length === 0, 'acknowledged')
    await first.webhook.close()
    const second = open(receiver.url(), {}, { folder: state, startedAt: () => Date.now() + 5 * 3_600_000 })
    await second.webhook.write(page(alert('e1', 2, { status: 'resolved', ended: new Date().toISOString() })))
    await until(() => second.queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['e1.1', 'e1.2'])
  })

  test('notify: changes tells the first, each tenfold rise, and the end, over a restart too', async () => {
    const receiver = await receive()
    const state = folder()
    const counted = (seq: number, n: number, more: object = {}): string => alert('e1', seq, { drops: { counted: n }, ...more })
    const first = open(receiver.url(), { notify: 'changes' }, { folder: state })
    await first.webhook.write(page(counted(1, 3), counted(2, 9), counted(3, 29)))
    await first.webhook.write(page(counted(4, 31), flow(1)))
    await until(() => first.queue.length === 0, 'acknowledged')
    await first.webhook.close()
    const second = open(receiver.url(), { notify: 'changes' }, { folder: state })
    await second.webhook.write(page(counted(5, 300), counted(6, 310)))
    await second.webhook.write(page(counted(7, 311, { status: 'resolved', ended: new Date().toISOString() })))
    await until(() => second.queue.length === 0, 'acknowledged')
    expect(receiver.rids).toEqual(['e1.1', 'e1.4', 'run:1', 'e1.6', 'e1.7'])
  })
})

describe('secrets', () => {
  const redaction = (config: object): Redaction => new Redaction({ url: { address: secret('https://hooks.example/in'), origin: 'https://hooks.example' }, token: null, headers: {}, signing: null, template: null, ...config })

  test.each([
    ['a header without its scheme', { headers: { authorization: secret('Bearer k3y-of-the-header') } }, 'k3y-of-the-header is not known here'],
    ['the parameters of a header', { headers: { authorization: secret('Token token="k3y-of-the-header", version=2') } }, 'no such token: k3y-of-the-header'],
    ['a password in base64', { headers: { authorization: secret(`Basic ${Buffer.from('me:pa55-w0rd').toString('base64')}`) } }, 'me:pa55-w0rd is wrong, pa55-w0rd!'],
    ['a signing key without its prefix', { signing: { scheme: 'standard', secrets: [secret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')] } }, 'expected MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
    ['within JSON', { token: secret('t0ken "with" \\') }, JSON.stringify({ you: 't0ken "with" \\' })],
    ['within a URL', { token: secret('t0ken/+abc==') }, 'GET /?token=t0ken%2F%2Babc%3D%3D'],
    ['within HTML', { token: secret('t0ken&<abc>') }, '<p>t0ken&amp;&lt;abc&gt;</p>'],
    ['a key in the body', { template: '{"routing_key":"0123456789abcdef0123456789ABCDEF","text":"{{summary}}"}' }, 'routing key 0123456789abcdef0123456789ABCDEF is unknown'],
  ])('hides %s', (_, config, text) => {
    const shown = redaction(config).text(text)
    expect(shown).toContain('[secret]')
    for (const word of ['k3y-of', 'pa55', 'MfKQ9', 't0ken', '89abcdef']) expect(shown).not.toContain(word)
  })

  test('hides what the end of an answer has of one', () => {
    const token = `t0ken.${'x'.repeat(6000)}`
    const cut = Buffer.from(`invalid token: ${token}`).subarray(0, 4096)
    expect(redaction({ token: secret(token) }).answer(cut)).toBe('invalid token: [secret]')
    expect(redaction({ token: secret('grün-k3y') }).answer(Buffer.from('invalid: grün').subarray(0, -2))).toBe('invalid: gr')
    expect(redaction({ token: secret(token) }).answer(Buffer.from('no such thing as a tok'))).toBe('no such thing as a tok')
  })

  test('are in no report, status or dead letter, though the receiver says them all', async () => {
    const receiver = await receive()
    const secrets = ['t0ken-abc', 'team-7-key', 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', '/in/k3y-of-the-path']
    const echo = (code: number): Reply => (got, response) => void response.writeHead(code).end(`you sent ${JSON.stringify(got.headers)} to ${got.path} ${secrets.join()}`)
    receiver.replies = [echo(401), echo(500), echo(500), echo(500), echo(500), echo(500), echo(400)]
    const url = `http://127.0.0.1:${receiver.port}/in/k3y-of-the-path`
    const config = { name: `webhook:${url}`, token: secret(secrets[0]!), headers: { 'x-key': secret(secrets[1]!) }, signing: { scheme: 'standard' as const, secrets: [secret(secrets[2]!)] } }
    const { webhook, queue, letters, reports } = open(url, config)
    await webhook.write(page(flow(1)))
    const seen: string[] = []
    await until(() => {
      seen.push(webhook.status().lastError)
      return queue.length === 0
    }, 'settled')
    expect(receiver.got).toHaveLength(7)
    const all = JSON.stringify([seen, reports, { ...webhook.status(), name: '' }, letters.refusals.map(({ body }) => Buffer.from(body).toString())])
    expect(letters.refusals).toHaveLength(1)
    expect(all).toContain('[secret]')
    for (const text of secrets) expect(all).not.toContain(text)
  })
})
