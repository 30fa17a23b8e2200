/**
 * Wall-clock times without a zone: ctime's `Sun Nov 22 10:00:17 2026` and the parts of an XML `<when>`. They are read as the time of one zone, by default the
 * host's. The zone's offset is asked for once an hour of local time and kept: asking costs microseconds.
 */
import type { LocalClock } from '../stage.js'

/** `zone`: an IANA name, or null for the host's own. Throws RangeError for a name that does not exist. */
export function localClock(zone: string | null): LocalClock {
  const startOfHour = zone === null ? hostHour : zonedHour(zone)
  let key = -1
  let base = 0
  return (year, month, day, hour, minute, second) => {
    const inRange = year >= 1970 && year <= 2105 && month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour >= 0 && hour <= 23
    if (!inRange || !(minute >= 0 && minute <= 59) || !(second >= 0 && second <= 60)) return NaN
    const wanted = ((year * 12 + month) * 32 + day) * 24 + hour
    if (wanted !== key) {
      base = startOfHour(year, month, day, hour)
      key = wanted
    }
    return base + minute * 60 + second
  }
}

function hostHour(year: number, month: number, day: number, hour: number): number {
  return new Date(year, month - 1, day, hour).getTime() / 1000
}

function zonedHour(zone: string): (year: number, month: number, day: number, hour: number) => number {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  })
  const offsetAt = (time: number): number => {
    const part: Record<string, number> = {}
    for (const { type, value } of format.formatToParts(time)) part[type] = Number(value)
    return Date.UTC(part['year']!, part['month']! - 1, part['day'], part['hour'], part['minute'], part['second']) - time
  }
  return (year, month, day, hour) => {
    const wall = Date.UTC(year, month - 1, day, hour)
    const guess = wall - offsetAt(wall)
    return (wall - offsetAt(guess)) / 1000
  }
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** 1 to 12, or 0 for what is no English month. */
export function monthNumber(name: string): number {
  return months.indexOf(name) + 1
}

/** Zones by their names, for "did you mean". */
export function zoneNames(): string[] {
  return ['UTC', ...Intl.supportedValuesOf('timeZone')]
}
