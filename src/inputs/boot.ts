/** When the kernel was started whose log a saved file holds: its last line that shows the kernel's clock is taken to be as old as the file. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { TIME_ESTIMATED } from '../event.js'
import { lastMonotonic } from '../formats/kernel-log/last-monotonic.js'
import type { BootTime } from '../stage.js'

/** Of a file's end so much is looked at. */
const TAIL_BYTES = 1 << 16

/** `modified` in microseconds since the epoch. Null where the end of the file shows no kernel's clock, or cannot be read. */
export function bootOfFile(fd: number, size: number, modified: number): BootTime | null {
  const tail = new Uint8Array(Math.min(TAIL_BYTES, size))
  const last = lastMonotonic(tail.subarray(0, readSync(fd, tail, 0, tail.length, size - tail.length)))
  return last < 0 ? null : { microseconds: modified - last, source: TIME_ESTIMATED }
}

export function bootOfPath({ path, modified }: { readonly path: string; readonly modified: number }): BootTime | null {
  try {
    const fd = openSync(path, 'r')
    try {
      return bootOfFile(fd, fstatSync(fd).size, modified)
    } finally {
      closeSync(fd)
    }
  } catch {
    return null
  }
}
