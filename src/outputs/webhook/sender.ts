/**
 * One POST over one kept connection, by undici; its own retries are not used, for they leave out POST. Nothing of a redirect is followed. The status alone decides:
 * of the answer's body at most 64 KiB are read, for a few seconds, and then the connection is given up.
 */
import { Client } from 'undici'
import type { AddressBook } from './addresses.js'
import { Connection } from './connection.js'
import type { TlsOptions } from './options.js'
import { Trust, Unreachable } from './trust.js'

/** What is kept of a body, to find out why something was refused. */
const KEPT_BYTES = 4096
const BODY_BYTES_MAX = 1 << 16
/** A status is known: nothing waits longer for the rest. */
const BODY_MS = 5000
/** The receiver's idle time decides, not ours. */
const IDLE_MS = 3_600_000
/** What a connection says that the receiver closed while we thought it open. */
const STALE: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])

export interface Answered {
  readonly status: number
  /** names in lower case; of several of one name the first */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** its beginning */
  readonly body: Uint8Array
}

export interface Unanswered {
  readonly reason: string
  /** it will not pass by itself */
  readonly isLasting: boolean
}

export type Answer = Answered | Unanswered

export interface SenderOptions {
  readonly url: URL
  readonly tls: TlsOptions
  readonly timeouts: { readonly connect: number; readonly headers: number; readonly total: number }
  readonly addresses: AddressBook
  readonly report: (message: string) => void
  readonly now: () => number
}

type Attempt = { readonly answer: Answer; readonly isStale: boolean }

export class Sender {
  readonly #options: SenderOptions
  readonly #connection: Connection
  readonly #client: Client

  /** Makes the connection at once. */
  constructor(options: SenderOptions) {
    const { url, tls, timeouts, addresses, report, now } = options
    this.#options = options
    this.#connection = new Connection({ url, addresses, trust: new Trust(tls), timeoutMs: timeouts.connect, report, now })
    this.#client = new Client(url.origin, {
      connect: (_options, done) => this.#connection.take().then((socket) => done(null, socket), (error: Error) => done(error, null)),
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MS,
      // the timers below know when the request has really begun
      headersTimeout: 0,
      bodyTimeout: 0,
    })
    this.#connection.warm()
  }

  get certificateExpires(): number | null {
    return this.#connection.certificateExpires
  }

  /**
   * Never throws. A connection that the receiver closed while it stood idle is no failure: the same goes out again on a fresh one, which is safe because of its
   * id. `stop` ends it as if there had been no answer.
   */
  async post(headers: Readonly<Record<string, string>>, body: Uint8Array, stop: AbortSignal): Promise<Answer> {
    const first = await this.#attempt(headers, body, stop)
    return first.isStale && !stop.aborted ? (await this.#attempt(headers, body, stop)).answer : first.answer
  }

  async close(): Promise<void> {
    await this.#client.destroy()
    this.#connection.close()
  }

  #attempt(headers: Readonly<Record<string, string>>, body: Uint8Array, stop: AbortSignal): Promise<Attempt> {
    const { url, timeouts } = this.#options
    return new Promise((resolve) => {
      let head: Omit<Answered, 'body'> | null = null
      let wasUsed = false
      let timer: NodeJS.Timeout | undefined
      let abort: (reason: Error) => void = () => {}
      const kept: Uint8Array[] = []
      let read = 0
      const settle = (attempt: Attempt): void => {
        clearTimeout(timer)
        stop.removeEventListener('abort', onStop)
        resolve(attempt)
      }
      const answered = (from: Omit<Answered, 'body'>): void => settle({ answer: { ...from, body: Buffer.concat(kept) }, isStale: false })
      const onStop = (): void => {
        abort(new Error('stopped'))
        settle({ answer: { reason: 'stopped before it answered', isLasting: false }, isStale: false })
      }
      const timeout = (ms: number, what: string): void => {
        clearTimeout(timer)
        timer = setTimeout(() => abort(new Error(what)), ms)
      }
      stop.addEventListener('abort', onStop, { once: true })
      if (stop.aborted) return onStop()
      let began = 0
      this.#client.dispatch(
        { origin: url.origin, path: url.pathname + url.search, method: 'POST', headers, body },
        {
          onRequestStart: (controller) => {
            wasUsed = this.#connection.isUsed
            began = performance.now()
            abort = (reason) => controller.abort(reason)
            if (stop.aborted) return abort(new Error('stopped'))
            timeout(Math.min(timeouts.headers, timeouts.total), `no answer within ${Math.min(timeouts.headers, timeouts.total)} ms`)
          },
          onResponseStart: (_controller, status, given) => {
            // informational
            if (status < 200) return
            head = { status, headers: single(given) }
            this.#connection.markUsed()
            timeout(Math.max(1, Math.min(BODY_MS, timeouts.total - (performance.now() - began))), 'the rest of the answer takes too long')
          },
          onResponseData: (_controller, chunk) => {
            if (read < KEPT_BYTES) kept.push(Uint8Array.prototype.slice.call(chunk, 0, KEPT_BYTES - read))
            read += chunk.length
            if (read > BODY_BYTES_MAX) abort(new Error('the answer is too long'))
          },
          onResponseEnd: () => answered(head!),
          onResponseError: (_controller, error) => {
            if (head !== null) return answered(head)
            const isStale = wasUsed && STALE.has((error as NodeJS.ErrnoException).code ?? '')
            settle({ answer: { reason: error.message, isLasting: error instanceof Unreachable && error.isLasting }, isStale })
          },
        },
      )
    })
  }
}

function single(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), Array.isArray(value) ? value[0] : value]))
}
