/**
 * The clock of this host, asked here by all who need it: the wall clock as it is set at this moment, and beside it one for ages and waits, which goes on evenly
 * whatever the wall clock is set to. Node has the first in milliseconds (Date.now) and the second in nanoseconds (performance.now, CLOCK_MONOTONIC), so the first
 * is had finer as the second and how far they are apart, which changes only when the clock is set, or after a suspend, through which the second stands still.
 */

/** Date.now cuts to milliseconds, and the two are not read at the same instant; what is more is a step. */
const STEP_MS = 5
/** A step of more than this is told, and what is held in times of the wall clock is moved by it. */
const TOLD_MICROSECONDS = 1_000_000
const STEPS_KEPT = 64
/** What an earlier run noted is not taken to be older: then it is the clock that was wrong, or is. */
const NOTED_MS_MAX = 10 * 366 * 86_400_000

export class HostClock {
  readonly #wallMs: () => number
  readonly #evenMs: () => number
  /** milliseconds: the wall clock less the even one, now and when a step was told last */
  #apart: number
  #toldApart: number
  /** what the wall clock said just before it was set, and how far it was set forward, milliseconds; oldest first */
  readonly #steps: { readonly before: number; readonly by: number }[] = []

  /** `apart`: of the two at this moment, where it is known more exactly than Date.now tells. */
  constructor(wallMs: () => number, evenMs: () => number, apart = wallMs() - evenMs()) {
    this.#wallMs = wallMs
    this.#evenMs = evenMs
    this.#apart = apart
    this.#toldApart = apart
  }

  /** Microseconds since the epoch. */
  now(): number {
    const even = this.#evenMs()
    const wall = this.#wallMs()
    const by = wall - even - this.#apart
    if (Math.abs(by) > STEP_MS) {
      this.#steps.push({ before: even + this.#apart, by })
      if (this.#steps.length > STEPS_KEPT) this.#steps.shift()
      this.#apart = wall - even
    }
    return Math.round((even + this.#apart) * 1000)
  }

  /** Microseconds by which the clock was set forward (or back) since the last step that was told; 0 where that is no more than a second. */
  takeStep(): number {
    this.now()
    const step = Math.round((this.#apart - this.#toldApart) * 1000)
    if (Math.abs(step) <= TOLD_MICROSECONDS) return 0
    this.#toldApart = this.#apart
    return step
  }

  /** How old in milliseconds something is that a time of the wall clock (a file's, say) was written to, wherever the clock was set since. */
  ageMs(written: number): number {
    const now = this.now() / 1000
    let at = written
    // set back, it passes the same times again: what is not of a time to come may be of this time
    for (const { before, by } of this.#steps) if (at <= before && (by > 0 || at > now)) at += by
    return now - at
  }
}

export const hostClock = new HostClock(
  () => Date.now(),
  () => performance.now(),
  performance.timeOrigin,
)

/** Microseconds since the epoch by the clock as it is set now. */
export function nowMicroseconds(): number {
  return hostClock.now()
}

/** Milliseconds for ages and waits within this run: since the epoch as the clock stood when the process began, and never moved by setting it. */
export function evenMilliseconds(): number {
  return performance.timeOrigin + performance.now()
}

/** What the wall clock as it is set now would have said at that moment of the even one, in microseconds. */
export function wallAt(evenMs: number): number {
  return nowMicroseconds() - Math.round((evenMilliseconds() - evenMs) * 1000)
}

/** A moment that an earlier run noted, for ages of now: one to come or of decades ago tells how the clock was set and not how old it is, and counts from now on. */
export function notedAt(noted: number, nowMs: number): number {
  return noted > nowMs || nowMs - noted > NOTED_MS_MAX ? nowMs : noted
}
