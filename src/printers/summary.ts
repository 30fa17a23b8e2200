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
    ...(tally.guessed.size > 0 ? [guessedTimes(tally)] : []),
    ...(tally.gaps > 0 ? [`gaps: ${count(tally.gaps)} (input known to be lost)`] : []),
  ]
  return `${parts.join('\n')}\n`
}

/** What is wrong with the times, and what mends it. */
export function guessedTimes({ guessed }: Tally): string {
  const whose = Array.from(guessed, ([input, n]) => `${count(n)} ${n === 1 ? 'record' : 'records'} of ${input === '-' ? 'standard input' : input}`)
  return `times are a guess: ${whose.join(', ')} (the kernel's clock counts from boot; the last line is taken to be as old as its file). --boot-time TIME, by \`uptime -s\` on that host, makes them right, and so does its syslog or journal beside it`
}

function count(n: number): string {
  return n.toLocaleString('en-US')
}
