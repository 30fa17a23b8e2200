/** Releases of the conntrack tool, and from which on it behaves otherwise. */

/** Major, minor and patch: [1, 4, 7]. */
export type Release = readonly [number, number, number]

/** Up to 1.4.5 the tool ends at an overrun; from here on it stays (conntrack-tools 1.4.6). */
export const STAYS_AT_OVERRUN: Release = [1, 4, 6]
/** From here on `-b` is set on a socket that no events come from; no release up to 1.4.9 has mended it (conntrack-tools commit 5ec684b). */
export const BUFFER_MISSES: Release = [1, 4, 7]

/** Of `conntrack v1.4.7 (conntrack-tools)`; null where the text names none. */
export function releaseOf(text: string): Release | null {
  const found = /\bv(\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  return found === null ? null : [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)]
}

export function isBefore(release: Release, [major, minor, patch]: Release): boolean {
  return (release[0] - major || release[1] - minor || release[2] - patch) < 0
}
