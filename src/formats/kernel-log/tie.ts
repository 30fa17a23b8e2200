/**
 * Two logs of one kernel tied by a line that both carry: one shows when it was written, the other the kernel's clock, and so when that clock was 0 is known.
 * A line that shows both clocks names its twin by the kernel's clock to the microsecond; without it the text alone does, and then the lines must agree.
 */
import type { LocalClock } from '../../stage.js'
import { KERNEL_PROGRAM, LINE_MAX, readCarrier, readKmsg } from './carrier.js'
import { wallTime } from './clock.js'

/** A line of the kernel. Microseconds; NaN where it does not say. */
export interface KernelLine {
  readonly text: string
  readonly monotonic: number
  readonly wall: number
}

export interface LineClock {
  readonly localClock: LocalClock
  /** of the file, for stamps without a year */
  readonly receivedSec: number
}

/** Of one text so many lines are compared: what is said more often ties nothing. */
const ALIKE_MAX = 64
/** So many twins say enough. */
const VOTES_MAX = 2048
/** Stamps of whole seconds, and loggers that are a moment late: so far apart two lines may be and still agree. */
const AGREE_MICROSECONDS = 1_000_000
const FIELD = /^(MESSAGE|_TRANSPORT|_SOURCE_MONOTONIC_TIMESTAMP|__REALTIME_TIMESTAMP|__MONOTONIC_TIMESTAMP)=(.*)$/

/** The kernel's lines among any others: text of one carrier or the other, JSON of the journal, of dmesg and our own, the journal's export format. */
export function* kernelLines(lines: Iterable<string>, clock: LineClock): Generator<KernelLine> {
  let entry: Record<string, unknown> = {}
  for (const line of lines) {
    if (line.length > LINE_MAX) continue
    const field = FIELD.exec(line)
    if (field !== null) {
      entry[field[1]!] = field[2]
      continue
    }
    if (line === '' && 'MESSAGE' in entry) yield* ofObject(entry)
    if (line === '' || line.startsWith('__CURSOR=')) entry = {}
    else if (line.startsWith('{')) yield* ofObject(parsed(line))
    else yield* ofText(line, clock)
  }
  yield* ofObject(entry)
}

function parsed(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line.replace(/,\s*$/, ''))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function* ofObject(keys: Record<string, unknown>): Generator<KernelLine> {
  const number = (name: string): number => (/^\d{1,16}$/.test(String(keys[name])) ? Number(keys[name]) : NaN)
  if (typeof keys['MESSAGE'] === 'string') {
    if (keys['_TRANSPORT'] !== KERNEL_PROGRAM) return
    const monotonic = number('_SOURCE_MONOTONIC_TIMESTAMP')
    // the journal's times are of receipt, which its own clock shows on both
    const late = number('__MONOTONIC_TIMESTAMP') - monotonic
    yield line(keys['MESSAGE'], monotonic, number('__REALTIME_TIMESTAMP') - (late >= 0 ? late : 0))
  } else if (typeof keys['msg'] === 'string' && typeof keys['time'] === 'number') {
    yield line(keys['msg'], Math.round(keys['time'] * 1e6), NaN)
  } else if (keys['type'] === 'kernel' && typeof keys['message'] === 'string' && keys['time_source'] !== 'estimated') {
    const monotonic = typeof keys['monotonic'] === 'number' ? Math.round(keys['monotonic'] * 1e6) : NaN
    yield line(keys['message'], monotonic, keys['time_source'] === 'received' ? NaN : microsecondsOf(String(keys['time'])))
  }
}

function* ofText(said: string, clock: LineClock): Generator<KernelLine> {
  const kmsg = readKmsg(said)
  if (kmsg === 'broken') return
  const { program, monotonic, stamp, text } = kmsg ?? readCarrier(said)
  if (program !== KERNEL_PROGRAM && (program !== '' || (monotonic < 0 && stamp === null))) return
  let wall = NaN
  if (stamp?.kind === 'unix') wall = stamp.microseconds
  else if (stamp?.kind === 'wall') {
    const time = wallTime(stamp.clock, clock)
    if (time !== null) wall = time.sec * 1e6 + time.usec
  }
  yield line(text, monotonic < 0 ? NaN : monotonic, wall)
}

const line = (text: string, monotonic: number, wall: number): KernelLine => ({ text: text.trimEnd(), monotonic, wall })

function microsecondsOf(time: string): number {
  const found = /^(.*T\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z$/.exec(time)
  return found === null ? NaN : Date.parse(`${found[1]}Z`) * 1000 + Number((found[2] ?? '').padEnd(6, '0'))
}

/** By a line of another log, and one that may be its twin. */
interface Vote {
  readonly boot: number
  readonly line: number
}

/** Looks for the boot of a log's kernel in other logs. */
export class BootTie {
  /** what the log at hand says, and when by the kernel's clock */
  readonly #said = new Map<string, number[]>()
  /** when the kernel's clock was 0 by each pair of twins: named by both clocks, and by their text alone */
  readonly #named: Vote[] = []
  readonly #alike: Vote[] = []
  #line = 0

  constructor(lines: Iterable<KernelLine>) {
    for (const { text, monotonic } of lines) {
      if (Number.isNaN(monotonic) || text === '') continue
      const at = this.#said.get(text)
      if (at === undefined) this.#said.set(text, [monotonic])
      else at.push(monotonic)
    }
  }

  /** Another log, or the same: what in it shows a wall clock may be the twin of a line that shows none. */
  compare(lines: Iterable<KernelLine>): void {
    const seen = new Map<string, number>()
    for (const { text, monotonic, wall } of lines) {
      const at = Number.isNaN(wall) ? undefined : this.#said.get(text)
      if (at === undefined) continue
      this.#line++
      if (!Number.isNaN(monotonic)) {
        if (this.#named.length < VOTES_MAX && at.includes(monotonic)) this.#named.push({ boot: wall - monotonic, line: this.#line })
        continue
      }
      const times = (seen.get(text) ?? 0) + 1
      seen.set(text, times)
      if (this.#alike.length < VOTES_MAX && times <= ALIKE_MAX && at.length <= ALIKE_MAX) for (const other of at) this.#alike.push({ boot: wall - other, line: this.#line })
    }
  }

  /** Microseconds since the epoch; null where nothing ties them, or not to one boot alone. */
  get boot(): number | null {
    return agreed(this.#named) ?? agreed(this.#alike)
  }
}

/** What most lines say, within a second; null where as many say another thing. */
function agreed(votes: readonly Vote[]): number | null {
  const sorted = votes.toSorted((a, b) => a.boot - b.boot)
  let best: readonly Vote[] = []
  let most = 0
  let rival = 0
  for (let from = 0; from < sorted.length; from++) {
    const { boot } = sorted[from]!
    const alike = sorted.slice(from).filter((vote) => vote.boot - boot <= AGREE_MICROSECONDS)
    const lines = new Set(alike.map(({ line }) => line)).size
    const isApart = best.length > 0 && boot - best.at(-1)!.boot > AGREE_MICROSECONDS
    if (lines > most) {
      rival = isApart ? most : rival
      most = lines
      best = alike
    } else if (isApart) {
      rival = Math.max(rival, lines)
    }
  }
  return best.length === 0 || rival >= most ? null : best[Math.floor(best.length / 2)]!.boot
}
