/**
 * Lines of the kernel that come through several inputs: /dev/kmsg beside kern.log, kern.log beside syslog, a dmesg beside a journal. The kernel's own stamp, in
 * microseconds, and the message tell that two are one, and it counts once.
 */
import { type KernelEvent, type KernelKind, TIME_ESTIMATED } from '../../event.js'

/** A log may be read so much later than /dev/kmsg; the oldest is forgotten first. */
const KEPT_MAX = 4096
/** Loggers stamp anew: so far apart it is the line of another boot. */
const APART_SEC_MAX = 60
/** What counts. */
const counted: ReadonlySet<KernelKind> = new Set(['table_full', 'expect_table_full', 'suppressed'])

interface Line {
  readonly from: object
  readonly host: string
  readonly sec: number
}

export class Copies {
  readonly #lines = new Map<string, Line>()

  /** Has another input brought that line? Lines without the kernel's stamp are never told from each other, nor those whose time is a guess. */
  isCopy({ kind, host, monotonic, message, sec, timeSource }: KernelEvent, from: object): boolean {
    if (!counted.has(kind) || monotonic <= 0 || timeSource === TIME_ESTIMATED) return false
    const key = `${monotonic} ${message}`
    const line = this.#lines.get(key)
    const isOfHost = line !== undefined && (line.host === host || line.host === '' || host === '')
    if (isOfHost && Math.abs(line.sec - sec) <= APART_SEC_MAX) return line.from !== from
    this.#lines.delete(key)
    this.#lines.set(key, { from, host, sec })
    if (this.#lines.size > KEPT_MAX) this.#lines.delete(this.#lines.keys().next().value!)
    return false
  }
}
