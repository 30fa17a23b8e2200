/**
 * The kernel's net_ratelimit as far as its log shows it: one budget of messages for the whole machine, in windows of five seconds. What a window held back is
 * told with the first message after it, however long after, and says nothing about whose messages they were.
 * Source: lib/ratelimit.c; net/core/utils.c (DEFINE_RATELIMIT_STATE(net_ratelimit_state, 5 * HZ, 10)).
 */

/** Microseconds; the kernel compares jiffies, so a window can look up to one of them (10 ms) shorter. */
const WINDOW = 4_990_000
/** Ten messages pass in a window: this is far beyond, for a kernel whose limit was taken away. */
const OWNERS_MAX = 256

/** Plain data: a checkpoint holds it. */
export interface Window {
  /** microseconds since the epoch; -1 before the first message */
  begin: number
  /** numbers of the episodes, or of the waiting lines, that had messages in it */
  owners: number[]
  /** messages that are not about a full table were among them, or more owners than are kept */
  others: boolean
}

export const noWindow = (): Window => ({ begin: -1, owners: [], others: false })

/** A rate-limited message at that time: the window that it is in. */
export function windowOf(window: Window, at: number): Window {
  return window.begin < 0 || at - window.begin >= WINDOW ? { begin: at, owners: [], others: false } : window
}

export function addOwner(window: Window, owner: number): void {
  if (window.owners.includes(owner)) return
  if (window.owners.length < OWNERS_MAX) window.owners.push(owner)
  else window.others = true
}

/** Waiting lines have found their episode, or one episode was the other all along. */
export function renameOwner(window: Window, from: number, to: number): void {
  const at = window.owners.indexOf(from)
  if (at < 0) return
  window.owners.splice(at, 1)
  addOwner(window, to)
}
