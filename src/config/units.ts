/** Sizes, durations and percentages as they are written: always with a unit, so that nobody has to guess whether 60 is seconds. And times. */

const sizeUnits: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 }
const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

export const sizePattern = /^\d+(?:\.\d+)? ?(?:B|[KMGT]B|[KMGT]iB)$/
export const durationPattern = /^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$/
export const percentPattern = /^\d+(?:\.\d+)? ?%$/

export const SIZE_EXPECTED = 'a size with its unit, such as 512KB, 100MB or 1GiB'
export const DURATION_EXPECTED = 'a duration with its unit, such as 500ms, 30s, 5m, 12h or 7d'
export const PERCENT_EXPECTED = 'a percentage such as 90%'

/** Bytes; of a text that fits `sizePattern`. */
export function parseSize(text: string): number {
  const [, number, unit] = /^([\d.]+) ?(\w+)$/.exec(text)!
  return Math.round(Number(number) * sizeUnits[unit!]!)
}

/** Milliseconds; of a text that fits `durationPattern`. Parts add up: 1h30m. */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/([\d.]+)(ms|[smhd])/g)]
  return Math.round(parts.reduce((sum, [, number, unit]) => sum + Number(number) * durationUnits[unit!]!, 0))
}

/** A fraction; of a text that fits `percentPattern`. */
export function parsePercent(text: string): number {
  return Number(/^[\d.]+/.exec(text)![0]) / 100
}

export const TIME_EXPECTED = 'a time such as 2026-11-22T10:00:00Z, or -2h'
const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

/** Microseconds since the epoch; null where the text is no time, or one that no calendar and no clock has. */
export function parseTime(text: string): number | null {
  const [relative, number, unit] = /^-(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? []
  if (relative !== undefined) return (Date.now() / 1000 - Number(number) * unitSeconds[unit!]!) * 1e6
  const [, day, clock = '', fraction = '', zone = ''] = /^(\d{4}-\d\d-\d\d)([T ]\d\d:\d\d(?::\d\d)?)?(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?$/i.exec(text) ?? []
  // a day that its month has not got is one of the next month to Date
  if (day === undefined || (clock === '' && fraction + zone !== '') || !isDay(day)) return null
  // which knows milliseconds only
  const whole = Date.parse(`${day}${clock}${zone}`.toUpperCase())
  return Number.isNaN(whole) ? null : whole * 1000 + Number(fraction.padEnd(6, '0').slice(0, 6))
}

function isDay(day: string): boolean {
  const at = Date.parse(day)
  return !Number.isNaN(at) && new Date(at).toISOString().startsWith(day)
}

/** How other tools write units. */
const spokenUnits: Readonly<Record<string, string>> = {
  '': 's',
  msec: 'ms',
  millis: 'ms',
  milliseconds: 'ms',
  sec: 's',
  secs: 's',
  second: 's',
  seconds: 's',
  min: 'm',
  mins: 'm',
  minute: 'm',
  minutes: 'm',
  hr: 'h',
  hrs: 'h',
  hour: 'h',
  hours: 'h',
  day: 'd',
  days: 'd',
}

/** What someone who wrote `value` is likely to mean; undefined where nothing comes near. */
export function likelyUnit(value: unknown, expected: string): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined
  const [, number, unit] = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*$/.exec(String(value)) ?? []
  if (number === undefined || unit === undefined) return undefined
  if (expected.startsWith(DURATION_EXPECTED)) {
    const meant = spokenUnits[unit.toLowerCase()] ?? Object.keys(durationUnits).find((known) => known === unit.toLowerCase())
    return meant === undefined ? undefined : number + meant
  }
  if (expected.startsWith(SIZE_EXPECTED)) {
    const meant = Object.keys(sizeUnits).find((known) =>
      [known, known.replace(/i?B$/, ''), known.replace('B', '')].some((form) => form.toLowerCase() === unit.toLowerCase()),
    )
    return meant === undefined ? undefined : number + meant
  }
  if (expected.startsWith(PERCENT_EXPECTED) && unit === '') return `${Number(number) <= 1 ? Math.round(Number(number) * 1e4) / 100 : number}%`
  return undefined
}
