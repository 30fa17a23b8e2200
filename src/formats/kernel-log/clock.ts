/** The clocks of log lines: absolute, without a zone or a year, and the kernel's own that counts from boot. */
import { type RecordTime, TIME_LOCAL, TIME_OWN, TIME_RECEIVED } from '../../event.js'
import type { LineContext } from '../../stage.js'

const DAY = 86_400
const DAYS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
/** 29 February comes again within eight years. */
const YEARS_BACK = 9

/** A wall clock as it stands on a line; `year` -1 where the line has none, `offset` in seconds east of UTC or null where it has no zone. */
export interface WallClock {
  readonly year: number
  readonly month: number
  readonly day: number
  readonly hour: number
  readonly minute: number
  readonly second: number
  readonly usec: number
  readonly offset: number | null
}

/** null for what is no date. Without a year it is the latest in which the time is not more than a day ahead of the receipt, or of what is known to have come next. */
export function wallTime(clock: WallClock, context: Pick<LineContext, 'localClock' | 'receivedSec'> & Partial<Pick<LineContext, 'stampsEnd'>>): RecordTime | null {
  const { month, usec } = clock
  if (month < 1) return null
  if (clock.year >= 0) {
    const sec = secondsIn(clock.year, clock, context)
    return Number.isNaN(sec) ? null : { sec, usec, timeSource: clock.offset === null ? TIME_LOCAL : TIME_OWN }
  }
  const end = context.stampsEnd?.() ?? context.receivedSec
  const thisYear = new Date(end * 1000).getUTCFullYear()
  for (let year = thisYear + 1; year >= thisYear - YEARS_BACK; year--) {
    const sec = secondsIn(year, clock, context)
    if (sec <= end + DAY) return { sec, usec, timeSource: TIME_LOCAL }
  }
  return null
}

function secondsIn(year: number, { month, day, hour, minute, second, offset }: WallClock, context: Pick<LineContext, 'localClock'>): number {
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
  if (day < 1 || day > DAYS[month - 1]! || (month === 2 && day === 29 && !isLeap)) return NaN
  if (offset === null) return context.localClock(year, month, day, hour, minute, second)
  if (year < 1970 || year > 2105 || hour > 23 || minute > 59 || second > 60) return NaN
  return Date.UTC(year, month - 1, day, hour, minute, second) / 1000 - offset
}

/** Microseconds of the kernel's clock -> a time, by the boot that the input knows of; null where it knows of none. */
export function bootTime(monotonic: number, context: LineContext): RecordTime | null {
  const boot = context.boot()
  return boot === null ? null : timeOf(boot.microseconds + monotonic, boot.source)
}

export function receivedTime(context: LineContext): RecordTime {
  return context.within ?? { sec: context.receivedSec, usec: context.receivedUsec, timeSource: TIME_RECEIVED }
}

/** From microseconds since the epoch. */
export function timeOf(microseconds: number, timeSource: number): RecordTime {
  const whole = Math.round(microseconds)
  const sec = Math.floor(whole / 1e6)
  return { sec, usec: whole - sec * 1e6, timeSource }
}

/** `.5` -> 500000; digits behind the sixth are cut. */
export function fraction(digits: string | undefined): number {
  return digits === undefined ? 0 : Number(digits.slice(0, 6).padEnd(6, '0'))
}
