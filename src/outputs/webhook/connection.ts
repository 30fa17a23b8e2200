/**
 * The one connection to a receiver: made before it is needed and made again in the background whenever it is closed, so that an alert can leave while the host
 * drops new connections. The HTTP client asks for it when it has something to send.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { AddressBook } from './addresses.js'
import { type Trust, unreachable } from './trust.js'

/** Probes that keep the connection in the tables of everything between, and find a receiver that is gone. */
const KEEPALIVE_MS = 30_000
/** A connection that was closed sooner than this is not made again at once. */
const SHORT_LIVED_MS = 1000
const REWARM_MS = 1000
const REWARM_MS_MAX = 60_000

export interface ConnectionOptions {
  readonly url: URL
  readonly addresses: AddressBook
  readonly trust: Trust
  readonly timeoutMs: number
  /** one sentence or two for the operator */
  readonly report: (message: string) => void
  readonly now: () => number
}

export class Connection {
  readonly #options: ConnectionOptions
  readonly #host: string
  #spare: Socket | null = null
  /** Whoever speaks before being asked says goodbye, as servers do that waited too long for a request; what it says would be waited for, unread, for ever. */
  readonly #onGoodbye = (): void => void this.#spare?.destroy()
  #opening: Promise<Socket> | null = null
  #rewarmMs = REWARM_MS
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  #hasReportedNames = false
  /** it has been there, or that it has not has been told */
  #isToldOf = false
  /** the socket that carries requests, and whether it has stood idle or carried one before */
  #current: Socket | null = null
  #isUsed = false
  certificateExpires: number | null = null

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#host = options.url.hostname.replace(/^\[|\]$/g, '')
  }

  /** Could the receiver have closed it unseen? Asked when a request begins. */
  get isUsed(): boolean {
    return this.#isUsed
  }

  /** An answer came over it. */
  markUsed(): void {
    this.#isUsed = true
  }

  /** For the HTTP client: the connection that stands ready, else a new one. Throws Unreachable. */
  take(): Promise<Socket> {
    const spare = this.#spare
    this.#spare = null
    spare?.removeListener('readable', this.#onGoodbye)
    if (spare !== null && !spare.destroyed && spare.writable && spare.readableLength === 0) return Promise.resolve(this.#use(spare, true))
    spare?.destroy()
    return this.#begin().then((socket) => {
      this.#spare = null
      return this.#use(socket, false)
    })
  }

  /** Makes the connection when there is none. Failures are left to who sends. */
  warm(): void {
    if (this.#isClosed || this.#spare !== null || this.#opening !== null || this.#current !== null) return
    this.#begin().then(
      (socket) => {
        if (this.#current === socket) return
        this.#spare = socket
        socket.on('readable', this.#onGoodbye)
      },
      () => {},
    )
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#spare?.destroy()
    this.#opening?.then((socket) => socket.destroy(), () => {})
  }

  #use(socket: Socket, isUsed: boolean): Socket {
    this.#current = socket
    this.#isUsed = isUsed
    return socket
  }

  /** One connection is made at a time, whoever asks. */
  #begin(): Promise<Socket> {
    this.#opening ??= this.#open()
      .catch((error: unknown) => {
        const fault = unreachable(error, this.#host)
        if (!this.#isToldOf && !this.#isClosed) this.#options.report(`${fault.message}. It is tried again, and everything waits meanwhile`)
        this.#isToldOf = true
        this.#rewarm(this.#rewarmMs)
        this.#rewarmMs = Math.min(REWARM_MS_MAX, this.#rewarmMs * 2)
        throw fault
      })
      .finally(() => (this.#opening = null))
    return this.#opening
  }

  #rewarm(afterMs: number): void {
    if (this.#isClosed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.warm(), afterMs).unref()
  }

  async #open(): Promise<Socket> {
    const { timeoutMs, addresses, url } = this.#options
    const host = this.#host
    const late = AbortSignal.timeout(timeoutMs)
    const found = await within(addresses.resolve(host), late, `${host} was not resolved within ${timeoutMs} ms`)
    if (found.fault !== '' && !this.#hasReportedNames) this.#options.report(`${found.fault}; the address known before is used`)
    this.#hasReportedNames = found.fault !== ''
    const socket = this.#connect(found.addresses)
    try {
      await ready(socket, url.protocol === 'https:' ? 'secureConnect' : 'connect', late, `no connection to ${url.host} within ${timeoutMs} ms`)
    } catch (error) {
      addresses.failed(host)
      throw error
    }
    if (this.#isClosed) socket.destroy()
    if (socket.remoteAddress !== undefined) addresses.worked(host, socket.remoteAddress)
    this.#watch(socket)
    return socket
  }

  #connect(addresses: readonly { address: string; family: 4 | 6 }[]): Socket {
    const { url, trust } = this.#options
    const isTls = url.protocol === 'https:'
    const tcp = {
      host: this.#host,
      port: Number(url.port) || (isTls ? 443 : 80),
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_MS,
      autoSelectFamily: true,
      // the addresses are known: no name is looked up by the socket
      lookup: ((_name: string, { all }: { all?: boolean }, found: (error: null, address: unknown, family?: number) => void) =>
        all === true ? found(null, addresses) : found(null, addresses[0]!.address, addresses[0]!.family)) as never,
    }
    if (!isTls) return connectTcp(tcp)
    const name = isIP(this.#host) === 0 ? { servername: this.#host } : {}
    return connectTls({ ...tcp, ...name, secureContext: trust.context(), rejectUnauthorized: true, ALPNProtocols: ['http/1.1'] })
  }

  #watch(socket: Socket): void {
    const since = this.#options.now()
    this.#rewarmMs = REWARM_MS
    this.#isToldOf = true
    const certificate = (socket as Partial<TLSSocket>).getPeerCertificate?.()
    if (certificate?.valid_to !== undefined) this.certificateExpires = Date.parse(certificate.valid_to)
    // an error is told by the request that it hits; of an idle connection it only means that it is gone
    socket.on('error', () => {})
    socket.once('close', () => {
      if (this.#spare === socket) this.#spare = null
      if (this.#current === socket) this.#current = null
      this.#rewarm(this.#options.now() - since < SHORT_LIVED_MS ? REWARM_MS : 0)
    })
  }
}

async function within<T>(promise: Promise<T>, late: AbortSignal, message: string): Promise<T> {
  return Promise.race([promise, new Promise<never>((_, fail) => late.addEventListener('abort', () => fail(new Error(message)), { once: true }))])
}

function ready(socket: Socket, event: string, late: AbortSignal, message: string): Promise<void> {
  return new Promise((resolve, fail) => {
    const giveUp = (): void => void socket.destroy(new Error(message))
    if (late.aborted) giveUp()
    late.addEventListener('abort', giveUp, { once: true })
    const onClose = (): void => fail(new Error('the receiver closed the connection before it was made'))
    socket.once('error', fail)
    socket.once('close', onClose)
    socket.once(event, () => {
      late.removeEventListener('abort', giveUp)
      socket.removeListener('error', fail)
      socket.removeListener('close', onClose)
      resolve()
    })
  })
}
