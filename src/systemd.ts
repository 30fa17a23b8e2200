/**
 * What a service tells systemd: that it is ready, what it does, that it is alive. Protocol: sd_notify(3), datagrams to the AF_UNIX socket that NOTIFY_SOCKET names.
 *
 * Node has no datagram sockets of that family, so libc is called, through koffi. It is loaded only where there is a socket to talk to; what it costs (20 ms, some
 * megabytes) nobody else pays. Calls never block: MSG_DONTWAIT, and what systemd has no room for is sent again later.
 */
import { closeSync } from 'node:fs'
import { constants, endianness } from 'node:os'

/** linux/socket.h, linux/net.h; the same on all architectures that koffi is built for */
const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
/** sizeof(sun_path), linux/un.h */
const SUN_PATH_BYTES = 108
/** systemd takes datagrams of a page at most, so far less of a text */
const STATUS_CHARACTERS_MAX = 1000
const AGAIN_MS = 100
const DEAF_AGAIN_MS = 1000

/** What keeps a message waiting, against what makes it vain. */
const BUSY: ReadonlySet<number> = new Set([constants.errno.EAGAIN, constants.errno.EINTR, constants.errno.ENOBUFS, constants.errno.ENOMEM])
const errnoNames: ReadonlyMap<number, string> = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

/** None of them blocks or throws. Without a socket to talk to, all do nothing. */
export interface Notifier {
  /** somebody listens */
  readonly isActive: boolean
  /** The inputs are open; or the reload that `reloading` announced is done. `status` as below. */
  ready(status?: string): void
  /** One line for `systemctl status`. */
  status(text: string): void
  /** Alive, and getting on: see Progress. */
  watchdog(): void
  /** A reload begins; `ready` ends it. */
  reloading(): void
  stopping(): void
  /** Sends what waits, if there is room, and closes the socket. */
  close(): void
}

export interface NotifierOptions {
  /** NOTIFY_SOCKET; undefined or '': nobody listens */
  readonly socket: string | undefined
  /** CLOCK_MONOTONIC in microseconds */
  readonly monotonic: () => number
  /** one sentence for the operator; not again before what failed has worked */
  readonly report: (message: string) => void
  /** stands in for `import('koffi')` */
  readonly load?: () => Promise<unknown>
}

const silent: Notifier = { isActive: false, ready() {}, status() {}, watchdog() {}, reloading() {}, stopping() {}, close() {} }

/** How systemd tells a service that cannot say when it is ready. */
const MENDS = 'set Type=exec in the unit and take WatchdogSec= out, or systemd waits for a readiness that never comes and ends the program'

/** Never throws; what stands in the way is reported, and then nobody is told anything. */
export async function openNotifier({ socket, monotonic, report, load = () => import('koffi') }: NotifierOptions): Promise<Notifier> {
  if (socket === undefined || socket === '') return silent
  const address = addressOf(socket)
  if (address === null) {
    report(`NOTIFY_SOCKET is ${JSON.stringify(socket)}: expected a path or an abstract name (@...) of at most ${SUN_PATH_BYTES - 1} bytes; systemd is told nothing: ${MENDS}`)
    return silent
  }
  let libc: Libc
  try {
    libc = libcOf(await load())
  } catch (error) {
    report(
      `koffi cannot be loaded (${firstLine(error)}), so systemd is told nothing: install it with npm install koffi@2 where conntrail is (it is left out by --omit=optional, and has no build for some machines); else ${MENDS}`,
    )
    return silent
  }
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (fd < 0) {
    report(`no socket could be had to talk to systemd (${nameOfErrno(libc.errno())}): AF_UNIX must be in RestrictAddressFamilies= of the unit; ${MENDS}`)
    return silent
  }
  return new SocketNotifier(fd, address, libc, monotonic, (errno) => report(`systemd does not listen at ${socket} (${nameOfErrno(errno)}): it is told nothing until it does`))
}

interface Libc {
  readonly socket: (domain: number, type: number, protocol: number) => number
  readonly sendto: (fd: number, bytes: Uint8Array, length: number, flags: number, address: Uint8Array, addressLength: number) => number
  readonly errno: () => number
}

/** The C library that this process runs with, glibc or musl. */
function libcOf(loaded: unknown): Libc {
  const { default: koffi } = loaded as { readonly default: typeof import('koffi') }
  const library = koffi.load(null)
  return {
    socket: library.func('int socket(int, int, int)') as unknown as Libc['socket'],
    sendto: library.func('intptr_t sendto(int, const void *, size_t, int, const void *, int)') as unknown as Libc['sendto'],
    errno: () => koffi.errno(),
  }
}

/** struct sockaddr_un; null for what is no such name. An abstract name has a 0 for its @, and its length is its end. */
function addressOf(socket: string): Uint8Array | null {
  const isAbstract = socket.startsWith('@')
  const name = Buffer.from(socket)
  if ((!isAbstract && !socket.startsWith('/')) || name.length < 2 || name.length >= SUN_PATH_BYTES || name.includes(0)) return null
  if (isAbstract) name[0] = 0
  const family = endianness() === 'LE' ? [AF_UNIX, 0] : [0, AF_UNIX]
  return Buffer.concat([Buffer.from(family), name, Buffer.from(isAbstract ? [] : [0])])
}

/** Variables by name, as they are sent in one datagram. */
type Message = Readonly<Record<string, string>>

class SocketNotifier implements Notifier {
  readonly isActive = true
  readonly #fd: number
  readonly #address: Uint8Array
  readonly #libc: Libc
  readonly #monotonic: () => number
  readonly #onDeaf: (errno: number) => void
  /** in order; those that a later one says anew are taken out, so it stays short */
  #waiting: Message[] = []
  #timer: NodeJS.Timeout | undefined
  #isDeaf = false
  #isClosed = false

  constructor(fd: number, address: Uint8Array, libc: Libc, monotonic: () => number, onDeaf: (errno: number) => void) {
    this.#fd = fd
    this.#address = address
    this.#libc = libc
    this.#monotonic = monotonic
    this.#onDeaf = onDeaf
  }

  ready(status?: string): void {
    this.#say({ READY: '1', ...(status === undefined ? {} : { STATUS: lineOf(status) }) })
  }

  status(text: string): void {
    this.#say({ STATUS: lineOf(text) })
  }

  watchdog(): void {
    this.#say({ WATCHDOG: '1' })
  }

  reloading(): void {
    // by this time systemd tells which signal the reload answers
    this.#say({ RELOADING: '1', MONOTONIC_USEC: String(Math.floor(this.#monotonic())) })
  }

  stopping(): void {
    this.#say({ STOPPING: '1' })
  }

  close(): void {
    if (this.#isClosed) return
    this.#send()
    this.#isClosed = true
    clearTimeout(this.#timer)
    closeSync(this.#fd)
  }

  #say(message: Message): void {
    if (this.#isClosed) return
    this.#waiting = this.#waiting.filter((before) => !Object.keys(before).every((name) => name in message))
    this.#waiting.push(message)
    this.#send()
  }

  #send(): void {
    clearTimeout(this.#timer)
    while (this.#waiting.length > 0) {
      const text = Buffer.from(
        Object.entries(this.#waiting[0]!)
          .map(([name, value]) => `${name}=${value}`)
          .join('\n'),
      )
      const sent = this.#libc.sendto(this.#fd, text, text.length, MSG_DONTWAIT | MSG_NOSIGNAL, this.#address, this.#address.length)
      const errno = sent < 0 ? this.#libc.errno() : 0
      // no listener: systemd is being restarted, perhaps, and then wants to hear what has not been said
      if (errno !== 0) {
        if (!BUSY.has(errno) && !this.#isDeaf) this.#onDeaf(errno)
        this.#isDeaf ||= !BUSY.has(errno)
        this.#timer = setTimeout(() => this.#send(), this.#isDeaf ? DEAF_AGAIN_MS : AGAIN_MS).unref()
        return
      }
      this.#isDeaf = false
      this.#waiting.shift()
    }
  }
}

/** One line, of characters that a terminal takes. */
function lineOf(text: string): string {
  return [...text.replaceAll(/[\x00-\x1f\x7f]+/g, ' ')].slice(0, STATUS_CHARACTERS_MAX).join('')
}

const nameOfErrno = (errno: number): string => errnoNames.get(errno) ?? `error ${errno}`

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n', 1)[0]!
}

/**
 * How often to ask Progress and tell the watchdog, in milliseconds; 0 where there is none. systemd waits for WATCHDOG_USEC (microseconds) and wants to hear twice
 * in that time; asking twice as often leaves the whole of it to a loop that is slow once. WATCHDOG_PID: the process that is meant, where it is set.
 */
export function watchdogEveryMs(env: Readonly<Record<string, string | undefined>>, pid: number): number {
  const microseconds = env['WATCHDOG_USEC'] ?? ''
  const meant = env['WATCHDOG_PID'] ?? ''
  if (!/^[1-9]\d{0,15}$/.test(microseconds) || (meant !== '' && meant !== String(pid))) return 0
  return Math.max(1, Math.floor(Number(microseconds) / 4000))
}

/** Counts of the loop, each since the start. Ticks do not count: they come also when nothing moves. */
export interface Standing {
  /** batches and notices that inputs have handed over */
  readonly taken: number
  /** of those, the ones that are worked through, and of which every output has taken what is its */
  readonly settled: number
  /** times that an output which holds up the loop has tried again or got a part away: a full disk that is looked at anew, a slow reader that reads. */
  readonly attempts: number
}

/**
 * Does the program get on? Yes while what was taken is settled, when nothing is in hand (every input waits for something to read), and while an output that holds
 * up the loop is seen to try. A loop that is stuck with work in hand is not alive, however well the event loop turns.
 */
export class Progress {
  #before: Standing = { taken: 0, settled: 0, attempts: 0 }

  /** Asked at each turn of `watchdogEveryMs`: may WATCHDOG=1 be sent? */
  isAlive(now: Standing): boolean {
    const { settled, attempts } = this.#before
    this.#before = now
    return now.settled !== settled || now.attempts !== attempts || now.taken === now.settled
  }
}
