/** A receiver that answers as told and keeps what it got, certificates made on the spot, a queue in memory, and records to send. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createSecureServer, type ServerOptions } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { openWebhook, type Webhook, type WebhookConfig, type WebhookOptions } from '../src/outputs/webhook.js'
import type { DeadLetters, Entry, Queue, Refusal } from '../src/stage.js'

export interface Got {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string | undefined>>
  /** as they came over the wire, and as they were before compression */
  readonly sent: Buffer
  readonly text: string
  readonly at: number
}

export type Reply = (got: Got, response: ServerResponse, request: IncomingMessage) => void

export function status(code: number, headers: Record<string, string> = {}, body = ''): Reply {
  return (_got, response) => void response.writeHead(code, headers).end(body)
}

export class Receiver {
  readonly got: Got[] = []
  readonly sockets = new Set<Socket>()
  /** of these, what to speak on: with TLS another */
  readonly spoken = new Set<Socket>()
  connections = 0
  /** answers to come; after them `usual` */
  replies: Reply[] = []
  usual: Reply = status(204)
  readonly #server: Server
  readonly #scheme: string

  private constructor(tls: ServerOptions | null) {
    this.#scheme = tls === null ? 'http' : 'https'
    const answer = (request: IncomingMessage, response: ServerResponse): void => this.#answer(request, response)
    this.#server = tls === null ? createServer(answer) : createSecureServer(tls, answer)
    this.#server.on('connection', (socket: Socket) => {
      this.connections++
      this.sockets.add(socket)
      socket.on('close', () => this.sockets.delete(socket))
      socket.on('error', () => {})
    })
    this.#server.on(tls === null ? 'connection' : 'secureConnection', (socket: Socket) => {
      this.spoken.add(socket)
      socket.on('close', () => this.spoken.delete(socket))
    })
    this.#server.on('tlsClientError', () => {})
  }

  static async start(tls: ServerOptions | null = null, port = 0): Promise<Receiver> {
    const receiver = new Receiver(tls)
    await new Promise<void>((resolve) => receiver.#server.listen(port, '127.0.0.1', resolve))
    return receiver
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  url(host = '127.0.0.1'): string {
    return `${this.#scheme}://${host}:${this.port}/in`
  }

  /** Bodies of NDJSON, by their rids, in the order in which they came. */
  get rids(): string[] {
    return this.got.flatMap(({ text }) => ridsOf(text))
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const parts: Buffer[] = []
    request.on('error', () => {})
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const sent = Buffer.concat(parts)
      const plain = request.headers['content-encoding'] === 'gzip' ? gunzipSync(sent) : sent
      const headers = request.headers as Record<string, string | undefined>
      const got = { method: request.method!, path: request.url!, headers, sent, text: plain.toString(), at: Date.now() }
      this.got.push(got)
      const reply = this.replies.shift() ?? this.usual
      reply(got, response, request)
    })
  }
}

const receivers: Receiver[] = []

/** A receiver that `stopReceivers` stops. */
export async function receive(...args: Parameters<typeof Receiver.start>): Promise<Receiver> {
  const receiver = await Receiver.start(...args)
  receivers.push(receiver)
  return receiver
}

export async function stopReceivers(): Promise<void> {
  await Promise.all(receivers.splice(0).map((receiver) => receiver.stop()))
}

export function ridsOf(ndjson: string): string[] {
  return ndjson
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { rid: string }).rid)
}

/** What waits, in memory: kept when an output is closed and another opened on it. */
export class TestQueue implements Queue {
  readonly #entries: (Entry & { readonly at: number })[] = []
  #seq: number
  #taken = 0
  ackedSeq: number
  onAvailable = (): void => {}

  /** Its first record has the number behind `mark`. */
  constructor(mark = 0) {
    this.#seq = mark
    this.ackedSeq = mark
  }

  append(lines: Uint8Array): Promise<void> {
    for (const line of Buffer.from(lines).toString().split('\n')) {
      if (line === '') continue
      this.#taken++
      this.#entries.push({ seq: ++this.#seq, bytes: Buffer.from(line), type: /"type":"(\w+)"/.exec(line)?.[1] ?? '', at: Date.now() })
    }
    this.onAvailable()
    return Promise.resolve()
  }

  sync(): Promise<void> {
    return Promise.resolve()
  }

  peek(maxRecords: number, maxBytes: number, after = 0): Promise<readonly Entry[]> {
    let bytes = 0
    const found = this.#entries.filter(({ seq }) => seq > after).slice(0, maxRecords)
    return Promise.resolve(found.filter((entry, i) => (bytes += entry.bytes.length + 1) <= maxBytes || i === 0))
  }

  ack(done: number | Iterable<number>): void {
    const isDone = typeof done === 'number' ? (seq: number) => seq <= done : (seq: number) => new Set(done).has(seq)
    for (let i = this.#entries.length - 1; i >= 0; i--) if (isDone(this.#entries[i]!.seq)) this.#entries.splice(i, 1)
    this.ackedSeq = (this.#entries[0]?.seq ?? this.#seq + 1) - 1
  }

  readonly isShedding = false
  readonly isWritable = true
  readonly found = 0
  readonly lostBy = {}

  shed(): void {}

  get taken(): number {
    return this.#taken
  }

  get length(): number {
    return this.#entries.length
  }

  get bytes(): number {
    return this.#entries.reduce((sum, { bytes }) => sum + bytes.length + 1, 0)
  }

  get oldestAt(): number | null {
    return this.#entries[0]?.at ?? null
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

export class TestDeadLetters implements DeadLetters {
  readonly refusals: Refusal[] = []
  replays: Uint8Array[] = []

  add(refusals: readonly Refusal[]): Promise<boolean> {
    this.refusals.push(...refusals.map((refusal) => ({ ...refusal, record: Buffer.from(refusal.record) })))
    return Promise.resolve(true)
  }

  async takeReplays(take: (lines: Uint8Array) => Promise<void>): Promise<void> {
    for (const lines of this.replays.splice(0)) await take(lines)
  }
}

export const secret = (text: string): { reveal(): string } => ({ reveal: () => text })

export interface Opened {
  readonly webhook: Webhook
  /** where the test gave none of its own */
  readonly queue: TestQueue
  readonly letters: TestDeadLetters
  readonly reports: string[]
}

const opened: Webhook[] = []

/** Short waits, no waiting for more records, nothing signed. */
export function open(url: string, config: Partial<WebhookConfig> = {}, options: Partial<WebhookOptions> = {}): Opened {
  const queue = (options.queue as TestQueue | undefined) ?? new TestQueue()
  const letters = new TestDeadLetters()
  const reports: string[] = []
  const webhook = openWebhook({
    config: {
      name: 'hook',
      url: { address: secret(url), origin: new URL(url).origin },
      body: 'ndjson',
      template: null,
      runbook_url: null,
      generator_url: null,
      notify: 'all',
      batch: { records: 500, bytes: 1_000_000, every: 5 },
      gzip: true,
      token: null,
      headers: {},
      signing: null,
      tls: { ca_file: null, cert_file: null, key_file: null, min_version: 'TLSv1.2' },
      timeouts: { connect: 2000, headers: 2000, total: 3000 },
      retry: { first: 5, max: 20, circuit_after: 5 },
      max_retry_after: 3_600_000,
      when_denied: 'pause',
      max_age: 72 * 3_600_000,
      ...config,
    },
    queue,
    deadLetters: letters,
    folder: null,
    host: 'gw1',
    wantsGaps: false,
    statusUrl: '',
    startedAt: Date.now,
    report: (message) => reports.push(message),
    graceMs: 2000,
    ...options,
  })
  opened.push(webhook)
  return { webhook, queue, letters, reports }
}

/** For afterEach: a test that failed leaves nothing running. */
export async function closeAll(): Promise<void> {
  await Promise.all(opened.splice(0).map((webhook) => webhook.close(0).catch(() => {})))
}

export async function until(isTrue: () => boolean, what: string, ms = 50_000): Promise<void> {
  for (const end = Date.now() + ms; !isTrue(); await new Promise((resolve) => setTimeout(resolve, 2))) {
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`)
  }
}

export function folder(): string {
  return mkdtempSync(join(tmpdir(), 'conntrail-webhook-'))
}

export const gap = (n: number, more: object = {}): string =>
  JSON.stringify({ time: new Date().toISOString(), type: 'gap', v: 1, rid: `run:${n}`, host: 'gw1', input: 'kmsg', cause: 'kmsg_overrun', count: 1, ...more })

export const flow = (n: number, more: object = {}): string =>
  JSON.stringify({ time: '2026-11-22T10:00:00.000000Z', type: 'flow', v: 1, rid: `run:${n}`, host: 'gw1', input: 'flows', event: 'new', ...more })

export const flows = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, i) => flow(from + i))

export const alert = (episode: string, seq: number, more: object = {}): string =>
  JSON.stringify({
    time: new Date().toISOString(),
    type: 'alert',
    v: 1,
    rid: `${episode}.${seq}`,
    host: 'gw1',
    netns: 4026531840,
    rule: 'table_full',
    status: 'firing',
    episode,
    seq,
    severity: 'critical',
    started: new Date().toISOString(),
    summary: 'conntrack table full: 3 packets dropped',
    drops: { logged: 3, at_least: 3 },
    table: { count: 400, max: 400 },
    top_at: '2026-11-22T10:14:49.934876Z',
    top: [
      { by: 'src', value: '10.10.1.2', entries: 392, share: 0.98, new: 30, unreplied: 388 },
      { by: 'src', value: '10.10.1.3', entries: 8, share: 0.02, new: 0, unreplied: 0 },
      { by: 'dst', value: '10.10.2.2', entries: 400, share: 1, new: 30, unreplied: 388 },
      { by: 'service', value: '10.10.2.2:53/udp', entries: 3, share: 0.0075, new: 0, unreplied: 1 },
      { by: 'state', value: 'udp UNREPLIED', entries: 388, share: 0.97, new: 30, unreplied: 388 },
    ],
    ...more,
  })

export const page = (...lines: readonly string[]): Uint8Array => Buffer.from(lines.map((line) => `${line}\n`).join(''))

/* Certificates. */

export interface Pki {
  readonly ca: string
  readonly path: (name: string) => string
  /** a server's or client's certificate for `name`, good for so many days */
  issue(name: string, days: number): { readonly cert: Buffer; readonly key: Buffer; readonly certFile: string; readonly keyFile: string }
  selfSigned(): { readonly cert: Buffer; readonly key: Buffer }
}

/** An authority of its own, by the openssl program. */
export function makePki(): Pki {
  const dir = folder()
  const path = (name: string): string => join(dir, name)
  const openssl = (...args: string[]): Buffer => execFileSync('openssl', args, { cwd: dir, stdio: ['ignore', 'pipe', 'ignore'] })
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl('req', '-x509', ...curve, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '30', '-subj', '/CN=test authority')
  writeFileSync(path('ext'), 'basicConstraints=CA:FALSE\n')
  let n = 0
  return {
    ca: path('ca.pem'),
    path,
    issue: (name, days) => {
      const at = `c${n++}`
      openssl('req', ...curve, '-keyout', `${at}.key`, '-out', `${at}.csr`, '-subj', `/CN=${name}`)
      writeFileSync(path(`${at}.ext`), `subjectAltName=DNS:${name}\n`)
      openssl('x509', '-req', '-in', `${at}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', String(days), '-extfile', `${at}.ext`, '-out', `${at}.pem`)
      const [certFile, keyFile] = [path(`${at}.pem`), path(`${at}.key`)]
      return { cert: openssl('x509', '-in', certFile), key: openssl('pkey', '-in', keyFile), certFile, keyFile }
    },
    selfSigned: () => {
      openssl('req', '-x509', ...curve, '-keyout', 'self.key', '-out', 'self.pem', '-days', '30', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost')
      return { cert: openssl('x509', '-in', 'self.pem'), key: openssl('pkey', '-in', 'self.key') }
    },
  }
}
