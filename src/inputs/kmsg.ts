/**
 * `kmsg`: the kernel's log as /dev/kmsg gives it, one record a read. The device cannot be waited for from here (a blocking read would hold a thread that nothing
 * can end, and epoll is out of reach), so it is opened non-blocking, read until it has nothing, and looked at again twenty times a second (0.3 % of a CPU; five times take 0.2).
 *
 * Every record has a number, one more than that of the record before, so what the ring has overwritten is known exactly. Documentation/ABI/testing/dev-kmsg.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { nowMicroseconds } from '../clock.js'
import { type Gap, TIME_BOOT, TIME_RECEIVED, timeOf } from '../event.js'
import { type BootTime, type Feed, type Input, InputError, type Notice, NOTICES_ONLY } from '../stage.js'

const DEVICE = '/dev/kmsg'
/** Character device 1:11, as the kernel numbers it. */
const DEVICE_NUMBER = (1 << 8) | 11
/** A record is refused, and passed over, when it does not fit: 8 KiB at the most since 3.5. */
const RECORD_BYTES_MAX = 1 << 14
const CHUNK_BYTES = 1 << 16
/** An alert should leave within a tenth of a second. */
const POLL_MS = 50
/** Reads that bring no record, one after the other, before the event loop has its turn. */
const FAILED_READS_MAX = 1000
/** To begin now, what is there already is read and dropped, for so long at most. */
const DROP_MS_MAX = 1000
/** After a stop so much is read at most. */
const STOP_BYTES = 1 << 20
/** The loop may be so far behind what it has taken: the end of a chunk held back, the one at hand, and the one asked for. */
const KEPT_BYTES = 3 * (CHUNK_BYTES + RECORD_BYTES_MAX)
/** A smaller difference between two measurements of one clock by the other is the time between the two looks. */
const CLOCK_NOISE_US = 1000
const COMMA = 44
const ZERO = 48
const BOOT_ID_DIGITS = 12

export interface KmsgOptions {
  readonly name: string
  /** records from now on; all that the ring holds; or those behind `saved`, which without it is now (with `once`: all) */
  readonly from: 'now' | 'start' | 'last'
  /** be at the end when all that is there was read */
  readonly once: boolean
  /** what `position` gave in an earlier run, or null */
  readonly saved: unknown
  /** CLOCK_MONOTONIC */
  readonly monotonicMicroseconds: () => number
  readonly device?: KmsgDevice
}

/** What is asked of the device. */
export interface KmsgDevice {
  open(): void
  /** Bytes of the one record that it lays at `at`; throws errors with a `code`, EAGAIN for "no further record now". */
  read(into: Uint8Array, at: number, length: number): number
  close(): void
  /** the kernel's random id of this boot */
  bootId(): string
}

/** Of a record: its number, and microseconds by printk's clock. */
interface Header {
  readonly seq: number
  readonly monotonic: number
}

/** Where a run has got to: the last record worked through. */
interface Position extends Header {
  readonly boot_id: string
}

/** A record that was given, and the offset behind it. */
interface Mark extends Header {
  readonly end: number
}

export function kmsgFeed(options: KmsgOptions): Feed {
  let input: KmsgInput | null = null
  return {
    name: options.name,
    open: async (add) => {
      input = new KmsgInput(options)
      add(input)
    },
    stop: () => input?.stop(),
    abort: () => input?.abort(),
  }
}

class KmsgInput implements Input {
  readonly name: string
  readonly isDump = false
  readonly isLive: boolean
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy = 'position'
  readonly offset = 0
  onIdle = (): void => {}
  readonly #device: KmsgDevice
  readonly #clock: PrintkClock
  readonly #once: boolean
  readonly #bootId: string
  readonly #buffer = new Uint8Array(CHUNK_BYTES + RECORD_BYTES_MAX)
  #chunk = this.#buffer.subarray(0, 0)
  #notices: Notice[] = []
  /** for the next call */
  #news: Notice[] = []
  #busy = false
  /** number and time of the last record that was read; none before it is wanted */
  #last: Mark = { end: 0, seq: -1, monotonic: 0 }
  /** a record behind a hole, which begins the next chunk: it stands at the end of the chunk before */
  #held = { at: 0, length: 0 }
  #given = 0
  /** records of the last chunks, and the one before them */
  readonly #marks: Mark[] = []
  #deliver: ((n: number) => void) | null = null
  #fail: (error: unknown) => void = () => {}
  #timer: NodeJS.Timeout | undefined
  #left = Infinity
  #ended = false

  constructor(options: KmsgOptions) {
    const device = options.device ?? kernelDevice()
    device.open()
    this.name = options.name
    this.isLive = !options.once
    this.#once = options.once
    this.#device = device
    this.#clock = new PrintkClock(options.monotonicMicroseconds)
    this.#bootId = device.bootId()
    this.ridPrefix = this.#bootId.replaceAll('-', '').slice(0, BOOT_ID_DIGITS)
    const saved = options.from === 'last' ? savedPosition(options.saved) : null
    if (saved === null) {
      if (options.from === 'now' || (options.from === 'last' && !options.once)) this.#dropAll()
    } else if (saved.boot_id === this.#bootId) {
      this.#last = { end: 0, seq: saved.seq, monotonic: saved.monotonic }
    } else {
      // what the kernel still said before it went down is in no ring any more
      this.#news.push({ gap: { ...timeOf(nowMicroseconds()), timeSource: TIME_RECEIVED, cause: 'restart', count: -1, atLeast: 1, from: null, to: null } })
    }
    this.#marks.push(this.#last)
  }

  get chunk(): Uint8Array {
    return this.#chunk
  }

  get notices(): readonly Notice[] {
    return this.#notices
  }

  get isBusy(): boolean {
    return this.#busy
  }

  next(): Promise<number> {
    if (this.#ended) return Promise.resolve(0)
    return new Promise((resolve, fail) => {
      this.#deliver = resolve
      this.#fail = fail
      setImmediate(() => this.#look())
    })
  }

  receivedMicroseconds(): number {
    return nowMicroseconds()
  }

  boot(): BootTime {
    return this.#clock.boot()
  }

  position(offset: number): Position {
    const mark = this.#marks.findLast(({ end }) => end <= offset) ?? this.#marks[0]!
    return { boot_id: this.#bootId, seq: mark.seq, monotonic: mark.monotonic }
  }

  /** Reads what is there and no more. */
  stop(): void {
    this.#left = Math.min(this.#left, STOP_BYTES)
    clearTimeout(this.#timer)
    if (this.#deliver !== null) setImmediate(() => this.#look())
  }

  abort(): void {
    this.#ended = true
    clearTimeout(this.#timer)
    this.#settle(0)
  }

  close(): void {
    this.#ended = true
    clearTimeout(this.#timer)
    this.#device.close()
  }

  /** Gives what there is, else looks again later. */
  #look(): void {
    if (this.#deliver === null || this.#ended) return
    clearTimeout(this.#timer)
    try {
      this.#notices = this.#news
      this.#news = []
      const n = this.#left > 0 ? this.#fill() : 0
      this.#left -= n
      if (n > 0) this.#give(n)
      else if (this.#notices.length > 0) this.#settle(NOTICES_ONLY)
      else if (this.#once || this.#left < Infinity) this.abort()
      else this.#timer = setTimeout(() => this.#look(), POLL_MS)
    } catch (error) {
      this.#deliver = null
      this.#fail(error)
    }
  }

  #give(n: number): void {
    this.#chunk = this.#buffer.subarray(0, n)
    this.#given += n
    this.#marks.splice(0, this.#marks.findLastIndex(({ end }) => end <= this.#given - KEPT_BYTES))
    this.#settle(n)
  }

  #settle(n: number): void {
    const deliver = this.#deliver
    this.#deliver = null
    deliver?.(n)
  }

  /** Records into the buffer until there is none, it is full, or some are missing between two: those behind the hole begin the next chunk, behind its gap. */
  #fill(): number {
    const wasBusy = this.#busy
    const { at: heldAt, length: heldLength } = this.#held
    this.#held = { at: 0, length: 0 }
    this.#busy = false
    this.#buffer.copyWithin(0, heldAt, heldAt + heldLength)
    let at = heldLength > 0 ? this.#take(0, heldLength) : 0
    while (at < CHUNK_BYTES && !this.#busy) {
      const n = this.#read(at)
      if (n === 0) {
        this.#clock.seenNothing()
        if (wasBusy && at === 0) this.onIdle()
        return at
      }
      const header = headerAt(this.#buffer, at)
      // of an earlier run
      if (header !== null && header.seq <= this.#last.seq) continue
      if (at > 0 && this.#missing(header) > 0) {
        this.#held = { at, length: n }
        this.#busy = true
      } else at = this.#take(at, n)
    }
    this.#busy = true
    return at
  }

  /** The record at `at` is given in this chunk. Gives where the next one goes. */
  #take(at: number, length: number): number {
    const header = headerAt(this.#buffer, at)
    // anything else is not a record as we know them, and for the format to refuse
    if (header !== null) {
      this.#clock.seen(header.monotonic)
      const missing = this.#missing(header)
      if (missing > 0) this.#notices.push({ gap: this.#gap(missing, this.#last.monotonic, header.monotonic) })
      this.#last = { end: this.#given + at + length, ...header }
      this.#marks.push(this.#last)
    }
    return at + length
  }

  /** How many records are lost before this one. */
  #missing(header: Header | null): number {
    return header === null || this.#last.seq < 0 ? 0 : header.seq - this.#last.seq - 1
  }

  #gap(count: number, from: number, to: number): Gap {
    const boot = this.#clock.boot().microseconds
    return { ...timeOf(boot + to), timeSource: TIME_BOOT, cause: 'kmsg_overrun', count, atLeast: -1, from: timeOf(boot + from), to: timeOf(boot + to) }
  }

  /** Length of the next record, 0 when there is none for now. */
  #read(at: number): number {
    for (let failed = 0; failed < FAILED_READS_MAX; failed++) {
      try {
        return this.#device.read(this.#buffer, at, RECORD_BYTES_MAX)
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException
        if (code === 'EAGAIN') return 0
        // EPIPE: overwritten meanwhile, the next read gives the oldest that is left; EINVAL: did not fit and is passed over. The numbers tell how many are missing.
        if (code !== 'EPIPE' && code !== 'EINVAL' && code !== 'EINTR') throw new InputError('broken', `${DEVICE} can no longer be read: ${message}`)
      }
    }
    return 0
  }

  /** "Now" is when this is done: Node has no lseek to go to the end with. */
  #dropAll(): void {
    const until = performance.now() + DROP_MS_MAX
    for (let n = this.#read(0); n > 0; n = this.#read(0)) {
      const header = headerAt(this.#buffer, 0)
      if (header !== null) this.#last = { end: 0, ...header }
      if (performance.now() > until) return
    }
    this.#clock.seenNothing()
  }
}

/**
 * When printk's clock was 0. It begins with CLOCK_MONOTONIC and then goes its own way, seconds in a month, for no time server corrects it; but a record that comes
 * between two looks was written between them, so each one says how far apart the two clocks may be.
 */
class PrintkClock {
  readonly #monotonic: () => number
  /** added to printk's clock it gives CLOCK_MONOTONIC */
  #drift = 0
  /** the last look that found nothing */
  #nothingAt = -Infinity
  /** CLOCK_REALTIME less CLOCK_MONOTONIC, which changes when somebody sets the clock */
  #base: number

  constructor(monotonic: () => number) {
    this.#monotonic = monotonic
    this.#base = nowMicroseconds() - monotonic()
  }

  seenNothing(): void {
    this.#nothingAt = this.#monotonic()
  }

  /** A record of that time by printk's clock was read just now. */
  seen(printed: number): void {
    this.#drift = Math.min(this.#monotonic() - printed, Math.max(this.#nothingAt - printed, this.#drift))
  }

  boot(): BootTime {
    const measured = nowMicroseconds() - this.#monotonic()
    if (Math.abs(measured - this.#base) > CLOCK_NOISE_US) this.#base = measured
    return { microseconds: this.#base + this.#drift, source: TIME_BOOT }
  }
}

function kernelDevice(): KmsgDevice {
  let fd = -1
  return {
    open: () => {
      fd = openDevice()
    },
    read: (into, at, length) => readSync(fd, into, at, length, null),
    close: () => {
      if (fd >= 0) closeSync(fd)
      fd = -1
    },
    bootId: () => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim(),
  }
}

function openDevice(): number {
  let fd: number
  try {
    fd = openSync(DEVICE, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EPERM' || code === 'EACCES') {
      throw new InputError(
        'denied',
        `${DEVICE} may not be read: it needs CAP_SYSLOG (in a systemd unit AmbientCapabilities=CAP_SYSLOG, and DeviceAllow=${DEVICE} r where DevicePolicy or PrivateDevices forbids it), or root, or kernel.dmesg_restrict=0 (${code})`,
      )
    }
    if (code === 'ENOENT' || code === 'ENXIO' || code === 'ENODEV') {
      throw new InputError('missing', `${DEVICE} is not there: the kernel has it since 3.5, a container must be given it (--device ${DEVICE}); the input journal needs no device`)
    }
    throw new InputError('broken', `${DEVICE} cannot be opened: ${message}`)
  }
  const stat = fstatSync(fd)
  if (stat.isCharacterDevice() && stat.rdev === DEVICE_NUMBER) return fd
  closeSync(fd)
  throw new InputError('missing', `${DEVICE} is not the kernel's log here, as in some containers, which put something else in its place: use the host's own (character device 1:11)`)
}

function savedPosition(saved: unknown): Position | null {
  const { boot_id: bootId, seq, monotonic } = (saved ?? {}) as Partial<Position>
  return typeof bootId === 'string' && Number.isSafeInteger(seq) && Number.isSafeInteger(monotonic) ? { boot_id: bootId, seq: seq!, monotonic: monotonic! } : null
}

/** `4,337,525051587,-;text`: the second and the third number, null where it does not begin so. */
function headerAt(bytes: Uint8Array, at: number): Header | null {
  const numbers = [0, 0, 0]
  for (let field = 0; field < 3; field++) {
    const from = at
    for (let digit = bytes[at]! - ZERO; digit >= 0 && digit <= 9; digit = bytes[++at]! - ZERO) numbers[field] = numbers[field]! * 10 + digit
    if (at === from || (field < 2 && bytes[at++] !== COMMA)) return null
  }
  return { seq: numbers[1]!, monotonic: numbers[2]! }
}
