/** The time of this host. */

/** Microseconds since the epoch, by a clock that does not go back when it is set. */
export function nowMicroseconds(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1000)
}
