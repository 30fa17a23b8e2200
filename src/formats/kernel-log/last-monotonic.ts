/** The kernel's clock at the end of a saved log: what its lines, which count from boot, are measured by. */
import { LF } from '../scan.js'
import { LINE_MAX, readCarrier, readKmsg } from './carrier.js'

/**
 * The kernel's clock on the last line that has it, in microseconds, -1 where none has: a saved log's last line is about as old as its file. `tail` is the end of
 * the file; its first line may be cut.
 */
export function lastMonotonic(tail: Uint8Array): number {
  const decoder = new TextDecoder('utf-8')
  let end = tail.length
  while (end > 0) {
    const from = tail.lastIndexOf(LF, end - 1) + 1
    const line = end - from > LINE_MAX ? '' : decoder.decode(tail.subarray(from, end)).trimEnd()
    const monotonic = line === '' ? -1 : monotonicOf(line)
    if (monotonic >= 0) return monotonic
    end = from - 1
  }
  return -1
}

function monotonicOf(line: string): number {
  const record = readKmsg(line)
  if (record !== null && record !== 'broken') return record.monotonic
  const journal = /_SOURCE_MONOTONIC_TIMESTAMP"?\s*[:=]\s*"?(\d{1,16})/.exec(line)
  if (journal !== null) return Number(journal[1])
  const dmesg = /"time":\s*(\d{1,10}\.\d{6})\b/.exec(line)
  return dmesg !== null ? Math.round(Number(dmesg[1]) * 1e6) : readCarrier(line).monotonic
}
