/**
 * When will a table be full? Said only while it is heading there: it has risen at each of the last few samples, or the line through the last ten seconds rises by
 * far more than its samples stray from it. Entries come and go all the time, and a single rise says nothing.
 */

/** The table held `count` entries at `at` (microseconds since the epoch). */
export interface Level {
  readonly at: number
  readonly count: number
}

const WINDOW_MICROSECONDS = 10_000_000
/** Samples nearer than this to the one before say little more: there are at most some twenty. */
const APART_MICROSECONDS = 450_000
const RISES = 3
const LINE_SAMPLES = 6
const LINE_MICROSECONDS = 4_000_000
/** The slope must be so many times its standard error. */
const CERTAINTY = 3
/** A table's count strays by as much anyway. */
const RISE_SHARE = 0.01
/** Farther ahead than this is nobody's forecast. */
const HORIZON_SEC = 3600

/** Those of the levels that count beside a further one, oldest first; what a clock that was set back left is none. */
export function lookBack(levels: readonly Level[], now: Level): Level[] {
  return levels.filter(({ at }) => at > now.at - WINDOW_MICROSECONDS && at < now.at)
}

/** Is the level to be looked back at later on? */
export function isApart(levels: readonly Level[], now: Level): boolean {
  return levels.length === 0 || now.at - levels.at(-1)!.at >= APART_MICROSECONDS
}

/** Seconds until `max` is reached, to a tenth; -1 when it is not heading there, or is there. `levels`: oldest first, the last is now. */
export function fullIn(levels: readonly Level[], max: number): number {
  const now = levels.at(-1)
  if (now === undefined || max <= 0 || now.count >= max) return -1
  const growth = Math.max(ofRises(levels, max), ofLine(levels, max))
  const seconds = growth > 0 ? (max - now.count) / growth : Infinity
  return seconds <= HORIZON_SEC ? Math.round(seconds * 10) / 10 : -1
}

/** Entries a second over the last rises, when there was nothing else. */
function ofRises(levels: readonly Level[], max: number): number {
  const last = levels.slice(-RISES - 1)
  const [from, to] = [last[0]!, last.at(-1)!]
  const isRising = last.length > RISES && last.every(({ count }, i) => i === 0 || count > last[i - 1]!.count)
  return isRising && to.count - from.count >= max * RISE_SHARE ? perSecond(to.count - from.count, to.at - from.at) : 0
}

/** Entries a second by the line of least squares. */
function ofLine(levels: readonly Level[], max: number): number {
  const n = levels.length
  const span = levels.at(-1)!.at - levels[0]!.at
  if (n < LINE_SAMPLES || span < LINE_MICROSECONDS) return 0
  const meanAt = levels.reduce((sum, { at }) => sum + (at - levels[0]!.at), 0) / n
  const meanCount = levels.reduce((sum, { count }) => sum + count, 0) / n
  const off = levels.map(({ at, count }) => ({ x: (at - levels[0]!.at - meanAt) / 1e6, y: count - meanCount }))
  const spread = off.reduce((sum, { x }) => sum + x * x, 0)
  const slope = off.reduce((sum, { x, y }) => sum + x * y, 0) / spread
  const error = Math.sqrt(off.reduce((sum, { x, y }) => sum + (y - slope * x) ** 2, 0) / (n - 2) / spread)
  return slope > CERTAINTY * error && slope * (span / 1e6) >= max * RISE_SHARE ? slope : 0
}

const perSecond = (count: number, microseconds: number): number => (count * 1e6) / microseconds
