/** The sums of a run in a few lines for people. */
import { endReasons } from '../event.js'
import type { Tally } from '../tally.js'

export function summary(tally: Tally, tracker: { readonly live: number; readonly forgotten: number; readonly displaced: number }): string {
  const [started, updated, ended, rows] = tally.events as [number, number, number, number]
  const reasons = endReasons.flatMap((reason, i) => (tally.ends[i]! > 0 ? [`${count(tally.ends[i]!)} ${reason}`] : []))
  const lost = [tracker.forgotten > 0 ? `${count(tracker.forgotten)} forgotten` : '', tracker.displaced > 0 ? `${count(tracker.displaced)} given up` : ''].filter((text) => text !== '')
  const parts = [
    `${count(tally.lines)} lines: ${count(tally.flows)} flow records, ${count(tally.expects)} expectations, ${tally.kernel > 0 ? `${count(tally.kernel)} kernel messages, ` : ''}${count(tally.ignored)} ignored, ${count(tally.rejected)} rejected`,
    `flows: ${count(started)} new, ${count(updated)} updates, ${count(ended)} ended, ${count(rows)} table rows; ${count(tracker.live)} still live${lost.length > 0 ? ` (${lost.join(', ')})` : ''}`,
    ...(reasons.length > 0 ? [`ends: ${reasons.join(', ')}`] : []),
    ...(tally.alerts > 0 ? [`alerts: ${count(tally.alerts)} ${tally.alerts === 1 ? 'notice' : 'notices'}`, ...Array.from(tally.episodes.values(), (said) => `  ${said}`)] : []),
    ...(tally.gaps > 0 ? [`gaps: ${count(tally.gaps)} (input known to be lost)`] : []),
  ]
  return `${parts.join('\n')}\n`
}

function count(n: number): string {
  return n.toLocaleString('en-US')
}
