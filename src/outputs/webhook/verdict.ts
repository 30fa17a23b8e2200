/** What an answer means for what was sent. */

export type Verdict =
  /** acknowledged */
  | 'delivered'
  /** the receiver cannot take anything now: the same again later */
  | 'later'
  /** the receiver takes nothing from us until someone mends it; the data is kept, and asked again now and then */
  | 'paused'
  /** there is something in it that the receiver does not take: halves tell what */
  | 'refused'
  /** it will never take this, however small */
  | 'undeliverable'
  /** it asks for no more */
  | 'gone'
  /** it does not take compressed bodies */
  | 'plain'

const LATER: ReadonlySet<number> = new Set([408, 425, 429])
const REFUSED: ReadonlySet<number> = new Set([400, 409, 413, 422])

/** A redirect is never followed: it may lead anywhere, with our token. Other 4xx than those named blame the request as such, so nothing is thrown away for them. */
export function verdictOf(status: number, wasCompressed: boolean): Verdict {
  if (status >= 200 && status < 300) return 'delivered'
  if (status === 410) return 'gone'
  if (status === 415 && wasCompressed) return 'plain'
  if (status === 501) return 'undeliverable'
  if (REFUSED.has(status)) return 'refused'
  if (status >= 500 || LATER.has(status)) return 'later'
  return 'paused'
}

/** What an operator can do about a pause. */
export function pauseReason(status: number): string {
  if (status === 401 || status === 403) return `it answers ${status}: the token, the signature or the permission is not what it wants`
  if (status === 404) return 'it answers 404: there is nothing at this URL'
  if (status >= 300 && status < 400) return `it answers ${status}: redirects are not followed; name the URL that it points to`
  return `it answers ${status}, which blames the request as such`
}

/**
 * `Retry-After` (RFC 9110 section 10.2.3) in milliseconds, at most `max`; 0 where there is none. A date is compared with the receiver's own `Date` where it has
 * one, so that its clock may be wrong.
 */
export function retryAfter(value: string | undefined, date: string | undefined, now: number, max: number): number {
  if (value === undefined) return 0
  const text = value.trim()
  if (/^\d+$/.test(text)) return Math.min(max, Number(text) * 1000)
  const until = dateOf(text)
  if (Number.isNaN(until)) return 0
  const theirs = dateOf(date ?? '')
  return Math.min(max, Math.max(0, until - (Number.isNaN(theirs) ? now : theirs)))
}

/** The three forms of an HTTP date all begin with a day's name. */
function dateOf(text: string): number {
  if (!/^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)/.test(text)) return NaN
  // asctime has no zone and means UTC
  return Date.parse(text.endsWith('GMT') ? text : `${text} GMT`)
}
