/**
 * Dates in the words of other languages, as `dmesg -T`, journalctl and some syslogs print them in the locale of whoever asked: `[Di Nov 20 22:30:22 2018]`,
 * `[lun. janv.  3 10:33:47 2022]`, `11月 22 10:14:43 gw1 kernel: …`. The names are the runtime's own, asked for when the first English one fails: that costs some
 * tenths of a second, once.
 */
import { monthNumber } from '../local-time.js'
import { fraction, type WallClock } from './clock.js'

/** Beside all codes of two letters: those of three that the C library has locales of. */
const THREE_LETTERS =
  'ast bem bho brx byn chr ckb cmn crh csb doi dsb fil fur gez hak hne hsb kab kok lij lzh mag mai mfe mhr mjw mni nan nds nhn niu nso pap quz raj sah sat sgs shn shs sid syr szl tcy the tig tpi unm wae wal yue yuw'
/** Whose names differ from those of the language alone. */
const VARIANTS = 'de-AT en-AU en-CA en-GB es-AR es-CL es-CO es-MX es-US fr-CA fr-CH it-CH nb-NO nl-BE pt-PT sr-Latn ro-MD uz-Cyrl az-Cyrl bs-Cyrl zh-Hant zh-HK'
const MONTHS = 12
const WEEKDAYS = 7
const WORDS_KEPT = 1000

/** Names of one locale, each as it may be shortened: the word itself, or what a long name begins with. */
interface Names {
  readonly months: readonly (readonly string[])[]
  readonly weekdays: readonly (readonly string[])[]
}

interface Meaning {
  readonly locale: number
  /** from 1, 0 none */
  readonly month: number
  /** from 0, Sunday; -1 none */
  readonly weekday: number
}

let known: readonly Names[] | null = null
const meanings = new Map<string, readonly Meaning[]>()

/** What stands before and behind the clock. null: no date in any language that is known, or one that may be two. */
export function foreignClock(text: string): WallClock | null {
  const clock = /(?:^|[\s,T])(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?=$|\s)/.exec(text)
  if (clock === null) return null
  let [year, day] = [-1, -1]
  const names: string[] = []
  const rest = `${text.slice(0, clock.index)} ${text.slice(clock.index + clock[0].length)}`
  for (const word of rest.replace(/([年月日년월일])(?=\S)/g, '$1 ').split(/[\s,]+/)) {
    const number = /^(\d{1,4})[.年日년일º]?$/.exec(word)?.[1]
    if (word === '') continue
    if (number === undefined) names.push(word)
    else if (number.length === 4) year = Number(number)
    else day = Number(number)
  }
  if (day < 1 || day > 31 || names.length === 0 || names.length > 3) return null
  const month = monthOf(names, day, year)
  if (month === 0) return null
  return { year, month, day, hour: Number(clock[1]), minute: Number(clock[2]), second: Number(clock[3]), usec: fraction(clock[4]), offset: null }
}

/** By one locale that knows all the words, and with a year by the day of the week too: `lis` is October in one language and November in another. 0: none, or several. */
export function monthOf(names: readonly string[], day: number, year: number): number {
  const english = names.length === 1 ? monthNumber(names[0]!) : 0
  if (english !== 0) return english
  const words = names.map(meaningsOf)
  const found = new Set<number>()
  for (const [i, word] of words.entries()) {
    const others = words.filter((_, at) => at !== i)
    for (const { locale, month } of word) {
      if (month === 0) continue
      const weekday = year < 0 ? -1 : new Date(Date.UTC(year, month - 1, day)).getUTCDay()
      if (others.every((other) => other.some((each) => each.locale === locale && each.weekday >= 0 && (weekday < 0 || each.weekday === weekday)))) found.add(month)
    }
  }
  return found.size === 1 ? [...found][0]! : 0
}

function meaningsOf(name: string): readonly Meaning[] {
  const word = plain(name)
  const before = meanings.get(word)
  if (before !== undefined) return before
  known ??= allNames()
  const found: Meaning[] = []
  for (const [locale, { months, weekdays }] of known.entries()) {
    const month = months.findIndex((each) => isOneOf(word, each)) + 1
    const weekday = weekdays.findIndex((each) => isOneOf(word, each))
    if (month !== 0 || weekday >= 0) found.push({ locale, month, weekday })
  }
  if (meanings.size >= WORDS_KEPT) meanings.clear()
  meanings.set(word, found)
  return found
}

/** The C library shortens to three letters or so, Unicode's tables where the language does. */
function isOneOf(word: string, names: readonly string[]): boolean {
  return names.some((name) => name === word || (word.length >= 3 && name.startsWith(word)))
}

function plain(name: string): string {
  return name.normalize('NFC').toLowerCase().replace(/\.$/, '')
}

function allNames(): readonly Names[] {
  const letters = 'abcdefghijklmnopqrstuvwxyz'
  const codes = [...letters].flatMap((first) => [...letters].map((second) => first + second))
  return Intl.DateTimeFormat.supportedLocalesOf([...codes, ...THREE_LETTERS.split(' '), ...VARIANTS.split(' ')]).map(namesOf)
}

/** Within a date and alone, long and short; what is only digits is no name. */
function namesOf(locale: string): Names {
  const months = Array.from({ length: MONTHS }, () => new Set<string>())
  const weekdays = Array.from({ length: WEEKDAYS }, () => new Set<string>())
  for (const length of ['short', 'long'] as const) {
    for (const rest of [{}, { day: 'numeric', weekday: length } as const]) {
      const format = new Intl.DateTimeFormat(`${locale}-u-ca-gregory-nu-latn`, { month: length, timeZone: 'UTC', ...rest })
      for (let month = 0; month < MONTHS; month++) {
        // the seventh of each month: all seven days of the week are among them
        const date = Date.UTC(2026, month, 7)
        const parts = format.formatToParts(date)
        for (const [i, { type, value }] of parts.entries()) {
          // a number, with the word for month behind it where that stands without a blank
          const name = type === 'month' && /^\d+$/.test(value) ? value + (/^\p{L}+/u.exec(parts[i + 1]?.value ?? '')?.[0] ?? '') : value
          if (type === 'month' && !/^\d+\.?$/.test(name)) months[month]!.add(plain(name))
          else if (type === 'weekday') weekdays[new Date(date).getUTCDay()]!.add(plain(value))
        }
      }
    }
  }
  // the C library has one letter where these have one
  const narrow = new Intl.DateTimeFormat(locale, { weekday: 'narrow', timeZone: 'UTC' })
  for (let day = 0; day < WEEKDAYS; day++) {
    const letter = plain(narrow.format(Date.UTC(2026, 1, 1 + day)))
    if (letter > '\u2e80') weekdays[day]!.add(letter)
  }
  return { months: months.map((names) => [...names]), weekdays: weekdays.map((names) => [...names]) }
}
