/**
 * `webhook:URL`: records by HTTP POST, at least once and in order, one request at a time. What is written goes into the queue and waits there until the receiver
 * has acknowledged it; whatever the receiver does, writing is never held up (unless the queue's policy is to block), and nothing is thrown away here but what the
 * receiver refuses for good, which goes to the dead letters.
 *
 * A request has the same `webhook-id` whenever the same records are sent again, over retries and restarts.
 */
import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { evenMilliseconds, nowMicroseconds } from '../clock.js'
import { type BodyRecord, linesOf, recordOf, valueOf } from '../printers/bodies/record.js'
import type { Time } from '../event.js'
import { type Output, REPLAY_EVERY_MS } from '../stage.js'
import { AddressBook } from './webhook/addresses.js'
import { Episodes } from './webhook/episodes.js'
import { type Message, Messages, type Outgoing } from './webhook/message.js'
import type { WebhookOptions, WebhookStatus } from './webhook/options.js'
import { Patience } from './webhook/patience.js'
import { Progress } from './webhook/progress.js'
import { Redaction } from './webhook/redaction.js'
import { type Answered, Sender } from './webhook/sender.js'
import { signatureHeaders } from './webhook/signing.js'
import { pauseReason, retryAfter, verdictOf } from './webhook/verdict.js'

export type { WebhookConfig, WebhookOptions, WebhookStatus } from './webhook/options.js'

export interface Webhook extends Output {
  status(): WebhookStatus
  /** Sends what waits as long as the receiver takes it, at most so long; the rest stays in the queue, which is closed by who opened it. */
  close(graceMs?: number): Promise<void>
}

/** An Alertmanager forgets an alert after five minutes (`resolve_timeout`). */
const REPEAT_MS = 60_000
/** Compressing less costs more than it saves. */
const GZIP_BYTES_MIN = 1024
const GZIP_LEVEL = 1
const OLD_MS = 3_600_000
/** What is shown of an answer. */
const ANSWER_BYTES = 1024
const ERROR_CHARS = 300

/** Makes the connection and begins with what waits from the last run. Throws when its folder cannot be made or the URL is none. */
export function openWebhook(options: WebhookOptions): Webhook {
  return new WebhookOutput(options)
}

const compress = promisify(gzip)

/** Of one piece of a batch. */
type Outcome =
  | 'delivered'
  /** halves may fare better */
  | 'refused'
  /** they will not */
  | 'undeliverable'
  /** not now: everything stays in the queue */
  | 'later'

class WebhookOutput implements Webhook {
  readonly name: string
  readonly #options: WebhookOptions
  /** milliseconds: for ages and waits, which goes on evenly; and the wall clock, for what others are told */
  readonly #now: () => number
  readonly #wall: () => number
  readonly #url: URL
  readonly #redaction: Redaction
  readonly #episodes: Episodes
  readonly #messages: Messages
  readonly #progress: Progress
  readonly #patience: Patience
  readonly #sender: Sender
  readonly #running: Promise<void>
  readonly #stopNow = new AbortController()
  readonly #counts = { sent: 0, requests: 0, failed: 0, refused: 0, filtered: 0, replayed: 0 }
  /** records that never came into the queue; and refused ones that could not be kept */
  #notAdmitted = 0
  #unkept = 0
  #wake: () => void = () => {}
  /** what waits holds an alert or a gap, or was there at the start: no waiting for more */
  #isUrgent: boolean
  /** written since the last batch began */
  #freshBytes = 0
  /** numbers of the records behind which a refused batch was cut: a failure in between does not make the search begin anew */
  readonly #cuts = new Set<number>()
  #isStopping = false
  #isGone = false
  /** of compressed bodies: 'maybe' until the first is acknowledged */
  #takesGzip: 'maybe' | 'yes' | 'no'
  #paused = ''
  #lastError = ''
  /** records refused for good, by status */
  readonly #refusals = new Map<number, number>()
  #lastRefusal = { status: 0, body: new Uint8Array(0) as Uint8Array }
  #lastSuccess: number | null = null
  #isReported = false
  #replay: NodeJS.Timeout | undefined
  #replaying: Promise<void>

  constructor(options: WebhookOptions) {
    const { config, folder, queue } = options
    this.name = config.name
    this.#options = options
    this.#now = options.now ?? evenMilliseconds
    this.#wall = options.now ?? (() => nowMicroseconds() / 1000)
    this.#url = new URL(config.url.address.reveal())
    this.#redaction = new Redaction(config)
    this.#episodes = new Episodes(folder, this.#now(), (message) => this.#report(message))
    const { host, wantsGaps, statusUrl } = options
    const links = { runbook: config.runbook_url ?? '', generator: config.generator_url ?? statusUrl }
    this.#messages = new Messages({ config, host, wantsGaps, links, episodes: this.#episodes, idOf: (record) => this.#idOf([record]) })
    this.#takesGzip = this.#messages.mayCompress ? 'maybe' : 'no'
    this.#progress = new Progress(folder)
    const { first, max, circuit_after: circuitAfter } = config.retry
    this.#patience = new Patience({ first, max, circuitAfter, random: options.random ?? Math.random })
    this.#sender = new Sender({
      url: this.#url,
      tls: config.tls,
      timeouts: config.timeouts,
      addresses: options.addresses ?? new AddressBook(),
      report: (message) => this.#report(message),
      now: this.#now,
    })
    this.#isUrgent = queue.length > 0
    queue.onAvailable = () => this.#wake()
    this.#running = this.#run()
    this.#replaying = this.#takeReplays()
  }

  get isShedding(): boolean {
    return this.#options.queue.isShedding
  }

  shed(count: number, from: Time | null, to: Time | null): void {
    this.#options.queue.shed(count, from, to)
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    const page = asBuffer(bytes)
    const urgent = urgentIn(page)
    const admitted = this.#admit(page, urgent)
    if (admitted.length === 0) return true
    await this.#options.queue.append(admitted)
    // only now: what is urgent must be there when the next batch is taken
    this.#freshBytes += admitted.length
    if (urgent.hasAlert || urgent.hasGap) this.#isUrgent = true
    this.#wake()
    return true
  }

  async sync(): Promise<void> {
    await this.#episodes.save()
    await this.#options.queue.sync()
  }

  status(): WebhookStatus {
    const { queue, config } = this.#options
    const oldest = queue.oldestAt
    return {
      name: this.name,
      endpoint: config.url.origin,
      ...this.#counts,
      found: queue.found,
      taken: this.#notAdmitted + queue.taken,
      lostBy: this.#unkept === 0 ? queue.lostBy : { ...queue.lostBy, refused: this.#unkept },
      queueRecords: queue.length,
      queueBytes: queue.bytes,
      isWritable: queue.isWritable,
      oldestUnacked: oldest === null ? null : Math.max(0, this.#now() - oldest) / 1000,
      circuit: this.#patience.circuit,
      paused: this.#paused,
      lastError: this.#lastError,
      lastSuccess: this.#lastSuccess,
      nextAttempt: this.#patience.notBefore > this.#now() ? this.#patience.notBefore - this.#now() + this.#wall() : null,
      certificateExpires: this.#sender.certificateExpires,
    }
  }

  async close(graceMs = this.#options.graceMs): Promise<void> {
    this.#isStopping = true
    clearTimeout(this.#replay)
    await this.#replaying
    const timer = setTimeout(() => this.#stopNow.abort(), graceMs)
    this.#wake()
    await this.#running
    clearTimeout(timer)
    this.#options.queue.onAvailable = () => {}
    await this.#episodes.save()
    await this.#sender.close()
    this.#progress.close()
  }

  /** Without the records that this body never carries, and without notices of episodes that were over long before the program started. */
  #admit(page: Buffer, { hasAlert, hasGap }: Urgent): Buffer {
    if (!hasAlert && this.#messages.carries('flow')) return page
    const lines = linesOf(page)
    const isWanted = hasAlert || (this.#messages.carries('gap') && hasGap)
    const admitted = isWanted ? lines.filter((line) => this.#isAdmitted(recordOf(line))) : []
    if (admitted.length === lines.length) return page
    this.#counts.filtered += lines.length - admitted.length
    this.#notAdmitted += lines.length - admitted.length
    return Buffer.concat(admitted.flatMap((line) => [line, LINE_END]))
  }

  #isAdmitted(record: BodyRecord): boolean {
    if (!this.#messages.carries(record.type)) return false
    return record.type !== 'alert' || this.#episodes.admits(valueOf(record), this.#options.startedAt() - OLD_MS)
  }

  /** One batch after the other until it is stopped. */
  async #run(): Promise<void> {
    await this.#skipAcknowledged().catch((error: unknown) => this.#report(`what waits cannot be read: ${(error as Error).message}`))
    while (await this.#untilDue()) {
      try {
        if (this.#isRepeatDue()) await this.#repeat()
        else await this.#batch()
      } catch (error) {
        // a queue that cannot be read now may be later; nothing is acknowledged meanwhile
        this.#failed(this.#redaction.text((error as Error).message), 0, false)
      }
    }
  }

  /** The queue's own mark may be a second behind what the receiver has acknowledged. */
  async #skipAcknowledged(): Promise<void> {
    const { queue, config } = this.#options
    const acknowledged = this.#progress.resume(queue.ackedSeq)
    while (queue.ackedSeq < acknowledged) {
      const known = (await queue.peek(config.batch.records, config.batch.bytes)).filter(({ seq }) => seq <= acknowledged)
      if (known.length === 0) return
      this.#counts.sent += this.#leave(known.at(-1)!.seq)
    }
  }

  /** Waits until there is something to send and it may be sent. False: it is over. */
  async #untilDue(): Promise<boolean> {
    for (;;) {
      if (this.#stopNow.signal.aborted) return false
      // what is on the disk waits there for a receiver that takes nothing; what is in memory has only this while
      if (this.#isStopping && (this.#isGone || this.#options.queue.length === 0 || (this.#patience.failures > 0 && this.#options.folder !== null))) return false
      const wait = this.#isGone ? Infinity : Math.max(this.#dueIn(), this.#patience.notBefore - this.#now())
      if (wait <= 0) return true
      await this.#sleep(wait)
    }
  }

  /** Milliseconds until something is to be sent, whatever the receiver says. */
  #dueIn(): number {
    const { queue, config } = this.#options
    const { records, bytes, every } = config.batch
    if (queue.length > 0) {
      if (this.#isUrgent || this.#isStopping || this.#progress.last > queue.ackedSeq || queue.length >= records || this.#freshBytes >= bytes) return 0
      return Math.min((queue.oldestAt ?? 0) + every - this.#now(), this.#repeatIn())
    }
    return this.#repeatIn()
  }

  #repeatIn(): number {
    return this.#episodes.hasOpen && !this.#isStopping ? this.#episodes.repeatedAt + REPEAT_MS - this.#now() : Infinity
  }

  #isRepeatDue(): boolean {
    return this.#repeatIn() <= 0
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const stop = this.#stopNow.signal
      const done = (): void => {
        clearTimeout(timer)
        stop.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, Math.min(ms, REPEAT_MS))
      stop.addEventListener('abort', done, { once: true })
      this.#wake = done
    })
  }

  async #batch(): Promise<void> {
    const { queue, config } = this.#options
    this.#isUrgent = false
    this.#freshBytes = 0
    const found = await queue.peek(config.batch.records, config.batch.bytes)
    if (found.length === 0) return
    // a request that was under way has the same records again, although more may wait by now
    const begun = found.filter(({ seq }) => seq <= this.#progress.last)
    const entries = begun.length > 0 ? begun : found
    const last = entries.at(-1)!.seq
    if (found.length > entries.length || queue.length > found.length) this.#isUrgent = true
    this.#progress.begin(last)
    const outgoing = this.#messages.select(entries, this.#now())
    if (await this.#deliver(outgoing)) this.#acknowledge(last)
  }

  /** In order; false: not all of it now. */
  async #deliver(outgoing: readonly Outgoing[]): Promise<boolean> {
    const waiting = pieces(outgoing, this.#messages.perRequest, this.#cuts).reverse()
    for (let piece = waiting.pop(); piece !== undefined; piece = waiting.pop()) {
      const outcome = await this.#post(this.#messages.message(piece), this.#idOf(piece.map(({ record }) => record)))
      if (outcome === 'later') return false
      if (outcome === 'refused' && piece.length > 1) {
        const half = Math.ceil(piece.length / 2)
        this.#cuts.add(piece[half - 1]!.seq)
        waiting.push(piece.slice(half), piece.slice(0, half))
        continue
      }
      const last = piece.at(-1)!.seq
      if (outcome === 'delivered') {
        this.#messages.delivered(piece, this.#now())
        await this.#episodes.save()
        this.#counts.sent += piece.length
      } else if (await this.#giveUp(piece)) this.#counts.refused += piece.length
      else this.#unkept += piece.length
      this.#acknowledge(last, piece.length)
    }
    this.#cuts.clear()
    return true
  }

  /** Up to that number all is decided: `told` of them are counted, the others were left out. */
  #acknowledge(seq: number, told = 0): void {
    this.#progress.acknowledge(seq)
    this.#counts.filtered += this.#leave(seq) - told
  }

  /** How many of what waits go with that number. */
  #leave(seq: number): number {
    const { queue } = this.#options
    const before = queue.length
    queue.ack(seq)
    return before - queue.length
  }

  /** What the receiver will never take. False: it cannot be kept either. */
  async #giveUp(piece: readonly Outgoing[]): Promise<boolean> {
    const { status, body } = this.#lastRefusal
    const reason = status === 413 ? 'too large' : 'refused'
    const isKept = await this.#options.deadLetters.add(piece.map(({ record }) => ({ record: record.bytes, status, reason, body })))
    this.#sayRefusal(piece.length, status, body, isKept)
    return isKept
  }

  /** The first of a status, and then each time there are ten times as many. */
  #sayRefusal(count: number, status: number, body: Uint8Array, isKept: boolean): void {
    const before = this.#refusals.get(status) ?? 0
    const now = before + count
    this.#refusals.set(status, now)
    if (before > 0 && Math.floor(Math.log10(before)) === Math.floor(Math.log10(now))) return
    const words = this.#answerText(body)
    this.#report(`it refuses ${now === 1 ? 'a record' : `records (${now} so far)`} for good, with ${status}${words === '' ? '' : `: ${words}`}. ${isKept ? 'What it refuses is kept among the dead letters (conntrail deadletters list)' : 'Dead letters cannot be kept: it is lost'}`)
  }

  /** Open alerts, once more: an Alertmanager that does not take them now is asked again when it takes anything. */
  async #repeat(): Promise<void> {
    const now = this.#now()
    const alerts = this.#episodes.repeats(now - this.#options.config.max_age)
    const id = this.#hash(['repeat', String(now), JSON.stringify(alerts)])
    const outcome = alerts.length === 0 ? 'delivered' : await this.#post(this.#messages.repeat(alerts), id)
    if (outcome === 'later') return
    if (outcome !== 'delivered') this.#report(`it refuses alerts that it has taken before (${this.#lastRefusal.status}): ${this.#answerText(this.#lastRefusal.body)}`)
    this.#episodes.repeated(now)
    await this.#episodes.save()
  }

  async #post(message: Message, id: string): Promise<Outcome> {
    const isLarge = message.body.length > GZIP_BYTES_MIN
    let isCompressed = isLarge && this.#takesGzip !== 'no'
    for (;;) {
      const body = isCompressed ? await compress(message.body, { level: GZIP_LEVEL }) : message.body
      this.#patience.try()
      const answer = await this.#sender.post(this.#headers(message, isCompressed, id, body), body, this.#stopNow.signal)
      if ('reason' in answer) {
        if (!this.#stopNow.signal.aborted) this.#failed(this.#redaction.text(answer.reason), 0, answer.isLasting)
        return 'later'
      }
      const said = verdictOf(answer.status, isCompressed)
      const verdict = said === 'paused' && this.#options.config.when_denied === 'refuse' ? 'undeliverable' : said
      // not every receiver that cannot read compressed bodies knows that 415 is for them
      if (verdict === 'plain' || (answer.status === 400 && isCompressed && this.#takesGzip === 'maybe')) {
        isCompressed = false
        if (verdict === 'plain') this.#sendPlain(answer.status)
        continue
      }
      if (verdict === 'delivered' && isLarge && this.#takesGzip === 'maybe') {
        if (isCompressed) this.#takesGzip = 'yes'
        else this.#sendPlain(400)
      }
      return this.#settled(verdict, answer)
    }
  }

  #sendPlain(status: number): void {
    this.#takesGzip = 'no'
    this.#report(`it does not take compressed bodies (${status}); from now on they are sent plain`)
  }

  #settled(verdict: Exclude<ReturnType<typeof verdictOf>, 'plain'>, answer: Answered): Outcome {
    if (verdict === 'delivered' || verdict === 'refused' || verdict === 'undeliverable') {
      this.#answered(verdict === 'delivered')
      if (verdict === 'delivered') return 'delivered'
      this.#lastError = `it answers ${answer.status}: ${this.#answerText(answer.body)}`
      this.#lastRefusal = { status: answer.status, body: Buffer.from(this.#redaction.answer(answer.body)).subarray(0, ANSWER_BYTES) }
      return verdict
    }
    if (verdict === 'gone') {
      this.#isGone = true
      this.#paused = 'it answers 410: it wants no more; name another URL and start again'
      this.#lastError = this.#paused
      this.#counts.failed++
      this.#report(`${this.#paused}. Nothing more is sent; what waits is kept within its limits`)
      return 'later'
    }
    const wait = retryAfter(answer.headers['retry-after'], answer.headers['date'], this.#wall(), this.#options.config.max_retry_after)
    if (verdict === 'paused') {
      if (this.#paused === '') this.#report(`${pauseReason(answer.status)}. Everything is kept within its limits, and tried again now and then`)
      this.#paused = pauseReason(answer.status)
      this.#isReported = true
    }
    this.#failed(`it answers ${answer.status}${answer.body.length === 0 ? '' : `: ${this.#answerText(answer.body)}`}`, wait, false)
    return 'later'
  }

  /** The receiver works, whatever it says of this request. */
  #answered(isDelivered: boolean): void {
    this.#patience.succeeded()
    if (isDelivered) {
      this.#counts.requests++
      this.#lastSuccess = this.#wall()
    }
    this.#paused = ''
    if (this.#isReported) this.#report('it takes records again')
    this.#isReported = false
  }

  #failed(reason: string, waitMs: number, isLasting: boolean): void {
    const wasOpen = this.#patience.circuit !== 'closed'
    this.#patience.failed(this.#now(), waitMs)
    this.#counts.failed++
    this.#lastError = reason
    const isOpen = this.#patience.circuit !== 'closed'
    if (this.#isReported || !(isLasting || (isOpen && !wasOpen))) return
    this.#isReported = true
    this.#report(`${reason}. Everything is kept within its limits, and tried again`)
  }

  #headers(message: Message, isCompressed: boolean, id: string, body: Uint8Array): Record<string, string> {
    const { config } = this.#options
    return {
      'content-type': message.contentType,
      'user-agent': 'conntrail',
      'webhook-id': id,
      ...(config.token === null ? {} : { authorization: `Bearer ${config.token.reveal()}` }),
      ...Object.fromEntries(Object.entries(config.headers).map(([name, value]) => [name.toLowerCase(), value.reveal()])),
      ...(isCompressed ? { 'content-encoding': 'gzip' } : {}),
      ...(config.signing === null ? {} : signatureHeaders(config.signing, id, Math.floor(this.#wall() / 1000), body)),
    }
  }

  /** The same for the same records; of records without an id, of their bytes. It has no dot: the Standard Webhooks scheme joins with dots. */
  #idOf(records: readonly BodyRecord[]): string {
    return this.#hash(records.map(({ rid, bytes }) => (rid === '' ? createHash('sha256').update(bytes).digest('hex') : rid)))
  }

  #hash(parts: readonly string[]): string {
    return `msg_${createHash('sha256').update([this.name, ...parts].join('\n')).digest('base64url').slice(0, 27)}`
  }

  /** What a receiver answers may hold what we sent. */
  #answerText(body: Uint8Array): string {
    return this.#redaction.answer(body).replace(/[\x00-\x1f\x7f]+/g, ' ').trim().slice(0, ERROR_CHARS)
  }

  #report(message: string): void {
    // the name may be the URL, where the output was given on the command line
    this.#options.report(this.#redaction.text(`output ${this.name}: ${this.#options.config.url.origin}: ${message}`))
  }

  /** Dead letters that someone wants sent again go through the queue like any record. */
  async #takeReplays(): Promise<void> {
    const { deadLetters, queue } = this.#options
    try {
      await deadLetters.takeReplays(async (lines) => {
        this.#counts.replayed += linesOf(asBuffer(lines)).length
        await queue.append(lines)
        await queue.sync()
        this.#isUrgent = true
        this.#wake()
      })
    } catch (error) {
      this.#report(`dead letters cannot be sent again: ${(error as Error).message}`)
    }
    if (!this.#isStopping) this.#replay = setTimeout(() => (this.#replaying = this.#takeReplays()), REPLAY_EVERY_MS).unref()
  }
}

const LINE_END = Buffer.from('\n')
const LF = 10
const QUOTE = 34
const COLON = 58
/** `{"time":"2026-11-22T09:58:32.390102Z","type":"`: where the program prints a record's type. */
const TYPE_AT = 46
/** Found elsewhere they cost a look, or a request that goes early. */
const ALERT = '"type":"alert"'
const GAP = '"type":"gap"'

interface Urgent {
  readonly hasAlert: boolean
  readonly hasGap: boolean
}

/** Which of the records that do not wait a page has. By the place of the type, for a search of every byte costs as much as the tracking of the flow. */
function urgentIn(page: Buffer): Urgent {
  let hasAlert = false
  let hasGap = false
  for (let from = 0; from < page.length; ) {
    const end = page.indexOf(LF, from)
    const at = from + TYPE_AT
    if (page[at - 1] !== QUOTE || page[at - 2] !== COLON) return { hasAlert: page.includes(ALERT), hasGap: page.includes(GAP) }
    // 'a' 'l', 'g'
    if (page[at] === 97 && page[at + 1] === 108) hasAlert = true
    else if (page[at] === 103) hasGap = true
    from = end < 0 ? page.length : end + 1
  }
  return { hasAlert, hasGap }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** In order, each of `size` records at most, and none across a cut. */
function pieces(outgoing: readonly Outgoing[], size: number, cuts: ReadonlySet<number>): Outgoing[][] {
  const found: Outgoing[][] = []
  let isFull = true
  for (const one of outgoing) {
    if (isFull) found.push([])
    const piece = found.at(-1)!
    piece.push(one)
    isFull = piece.length >= size || cuts.has(one.seq)
  }
  return found
}
