/**
 * Metrics and health over HTTP: /metrics, /livez, /readyz, /status. Everything is read-only and made from one snapshot. It is meant for this machine: a name in
 * Host that is not this machine's is refused where it listens on loopback, so that no web page can read it by a name that is made to point here (DNS rebinding).
 */
import { chmodSync, existsSync, lstatSync, unlinkSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, isIP } from 'node:net'
import { dirname } from 'node:path'
import type { Duplex } from 'node:stream'
import { type Health, liveness, METRICS_TYPE, metricsText, type MetricsSnapshot, readiness, statusOf } from './metrics.js'
import { messageOf } from './stage.js'

const HEADER_BYTES_MAX = 8192
const CONNECTIONS_MAX = 64
/** From the first byte of a request to its last. */
const REQUEST_MS = 5000
/** sizeof(sun_path) less the 0 at its end, linux/un.h */
const SOCKET_PATH_BYTES_MAX = 107
/** Prometheus asks every 15 s to a minute, and keeps its connection. */
const KEEP_ALIVE_MS = 75_000
const TEXT = 'text/plain; charset=utf-8'
const refusals: Readonly<Record<string, string>> = { HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large', ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout' }
const PATHS = ['/metrics', '/livez', '/readyz', '/status'] as const

export interface HttpOptions {
  /** `host` may be a name; `socket` is the path of a UNIX socket, and '' where it is TCP. Port 0: any. */
  readonly listen: { readonly host: string; readonly port: number; readonly socket: string }
  /** asked with each request */
  readonly snapshot: () => MetricsSnapshot
  /** one sentence for the operator, at most once */
  readonly report: (message: string) => void
}

export interface HttpServer {
  /** where it listens: `http://127.0.0.1:9469`, or `unix:/run/conntrail/http` */
  readonly address: string
  /** Ends all connections and gives the place free. */
  close(): Promise<void>
}

/** It cannot listen there; the sentence says why, and what mends it. */
export class ListenError extends Error {}

/** Resolves when it listens. Throws ListenError. The server keeps no process alive. */
export async function openHttp({ listen, snapshot, report }: HttpOptions): Promise<HttpServer> {
  let isLocal = false
  let hasReported = false
  /** answered for the last time: what else comes on them gets no answer */
  const closing = new WeakSet<Duplex>()
  const limits = { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: REQUEST_MS, requestTimeout: REQUEST_MS, keepAliveTimeout: KEEP_ALIVE_MS, connectionsCheckingInterval: REQUEST_MS }
  const server = createServer(limits, (request, response) => {
    // whatever a request brings is not for us
    request.resume()
    if (!isRead(request)) closing.add(request.socket)
    try {
      answer(request, response, isLocal && listen.socket === '' ? listen.host : null, snapshot)
    } catch (error) {
      if (!hasReported) report(`http: a request was answered with 500: ${messageOf(error)}`)
      hasReported = true
      if (!response.headersSent) send(request, response, 500, TEXT, 'the program could not say; its log tells why\n')
      else response.destroy()
    }
  })
  server.maxConnections = CONNECTIONS_MAX
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const status = refusals[error.code ?? ''] ?? '400 Bad Request'
    if (closing.has(socket)) socket.end()
    else if (socket.writable && error.code !== 'ECONNRESET') socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
    else socket.destroy()
  })
  if (listen.socket === '') {
    await listenAt(server, { host: listen.host, port: listen.port }).catch((error: NodeJS.ErrnoException) => {
      throw new ListenError(tcpFault(error, listen))
    })
  } else await listenAtSocket(server, listen.socket)
  server.unref()
  const bound = server.address()
  isLocal = bound !== null && typeof bound !== 'string' && isLoopback(bound.address)
  return {
    address: listen.socket === '' ? `http://${hostAndPort(bound as AddressInfo)}` : `unix:${listen.socket}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** `ownName`: how the listening host is called, where only names of this machine are let in; null: any. */
function answer(request: IncomingMessage, response: ServerResponse, ownName: string | null, snapshot: () => MetricsSnapshot): void {
  if (!isRead(request)) {
    response.setHeader('Allow', 'GET, HEAD')
    // a body that is still on its way is not waited for
    response.setHeader('Connection', 'close')
    return send(request, response, 405, TEXT, 'only GET and HEAD\n')
  }
  if (ownName !== null && !isOwnHost(request.headers.host, ownName)) {
    return send(request, response, 403, TEXT, 'Host must be an IP address, localhost, or the host of http: listen\n')
  }
  switch (pathOf(request.url ?? '')) {
    case '/metrics':
      return send(request, response, 200, METRICS_TYPE, metricsText(snapshot()))
    case '/livez':
      return sendHealth(request, response, liveness(snapshot()))
    case '/readyz':
      return sendHealth(request, response, readiness(snapshot()))
    case '/status':
      return send(request, response, 200, 'application/json', `${JSON.stringify(statusOf(snapshot()))}\n`)
    case '/':
      return send(request, response, 200, TEXT, `conntrail\n${PATHS.join('\n')}\n`)
    default:
      return send(request, response, 404, TEXT, `not here; there is ${PATHS.join(', ')}\n`)
  }
}

function isRead({ method }: IncomingMessage): boolean {
  return method === 'GET' || method === 'HEAD'
}

function sendHealth(request: IncomingMessage, response: ServerResponse, { ok, reasons }: Health): void {
  send(request, response, ok ? 200 : 503, TEXT, ok ? 'ok\n' : `${reasons.join('\n')}\n`)
}

function send(request: IncomingMessage, response: ServerResponse, status: number, type: string, text: string): void {
  const bytes = Buffer.from(text)
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': bytes.length, 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}

/** A proxy may send the whole URL. */
function pathOf(target: string): string {
  const path = target.replace(/^https?:\/\/[^/?#]*/i, '').replace(/[?#].*$/s, '')
  return path === '' ? '/' : path
}

/** What a browser has been led here by cannot be an address. Without Host it is no browser (HTTP/1.0; for 1.1 Node has refused it). */
function isOwnHost(header: string | undefined, ownName: string): boolean {
  if (header === undefined) return true
  const host = header.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '')
  const name = /^\[(.*)\]$/.exec(host)?.[1] ?? host
  return isIP(name) !== 0 || name === 'localhost' || name.endsWith('.localhost') || name === ownName.toLowerCase()
}

function listenAt(server: Server, where: { readonly host: string; readonly port: number } | { readonly path: string }): Promise<void> {
  return new Promise((resolve, fail) => {
    server.once('error', fail)
    server.listen(where, () => {
      server.off('error', fail)
      // such as too many open files: one connection is not taken, and the next may be
      server.on('error', () => {})
      resolve()
    })
  })
}

/** A socket that is left by a program that has ended is taken over; one at which somebody listens is not. */
async function listenAtSocket(server: Server, path: string): Promise<void> {
  const fault = (error: NodeJS.ErrnoException): ListenError => new ListenError(socketFault(error, path))
  // it would be cut off without a word
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) throw new ListenError(`http: listen unix:${path}: expected a path of at most ${SOCKET_PATH_BYTES_MAX} bytes`)
  // bind says ENOENT, and libuv makes EACCES of it
  if (!existsSync(dirname(path))) throw fault(Object.assign(new Error(), { code: 'ENOENT' }))
  try {
    await listenAt(server, { path })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || !(await isLeftBehind(path))) throw fault(error as NodeJS.ErrnoException)
    try {
      unlinkSync(path)
      await listenAt(server, { path })
    } catch (again) {
      throw fault(again as NodeJS.ErrnoException)
    }
  }
  // who may enter the directory and is of the group, whatever the umask is
  chmodSync(path, 0o660)
}

function isLeftBehind(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return resolve(false)
    const probe = connect(path, () => {
      probe.destroy()
      resolve(false)
    })
    probe.on('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'))
  })
}

function tcpFault({ code, message }: NodeJS.ErrnoException, { host, port }: { readonly host: string; readonly port: number }): string {
  const place = `http: listen ${hostAndPort({ address: host, port })}`
  switch (code) {
    case 'EADDRINUSE':
      return `${place}: another program listens there (ss -ltnp 'sport = :${port}' shows which); stop it, or name another port`
    case 'EACCES':
      return `${place}: ports below 1024 need CAP_NET_BIND_SERVICE; name a higher one, or run conntrail service again for a unit that grants it`
    case 'EADDRNOTAVAIL':
      return `${place}: this machine does not have that address; 127.0.0.1 is itself, 0.0.0.0 all that it has`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${place}: the name is not known; expected an address of this machine such as 127.0.0.1`
    case 'EAFNOSUPPORT':
      return `${place}: no socket of that family may be had; IPv6 may be off, or the unit's RestrictAddressFamilies= lacks it: run conntrail service again`
    default:
      return `${place}: ${message}`
  }
}

function socketFault({ code, message }: NodeJS.ErrnoException, path: string): string {
  const place = `http: listen unix:${path}`
  switch (code) {
    case 'EADDRINUSE':
      return `${place}: something is there already, and it is no socket that was left behind; stop the program that listens there, or name another path`
    case 'ENOENT':
      return `${place}: its directory is not there; make it, or name a path in one that is (in a service: below /run, which conntrail service makes)`
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return `${place}: this user may not make a file there; name a path in a directory that is this user's`
    default:
      return `${place}: ${message}`
  }
}

function isLoopback(address: string): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address)
}

function hostAndPort({ address, port }: { readonly address: string; readonly port: number }): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`
}
