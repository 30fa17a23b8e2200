/** What /proc says of a standard descriptor. */
import { constants, fstatSync, readFileSync, statSync } from 'node:fs'

/**
 * Was it closed? Node then puts /dev/null in its place, open for reading and writing. A parent may do just that too (daemons do), so this is worth a warning and
 * no more. False where /proc is missing.
 */
export function isNowhere(fd: 0 | 1): boolean {
  const stat = fstatSync(fd)
  const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(descriptorInfo(fd))?.[1] ?? '0', 8)
  return stat.isCharacterDevice() && stat.rdev === statSync('/dev/null').rdev && (flags & 3) === constants.O_RDWR
}

/** Where the file description stands: the part before was read by someone else. 0 where /proc is missing. */
export function positionOf(fd: 0 | 1): number {
  return Number(/^pos:\s*(\d+)/m.exec(descriptorInfo(fd))?.[1] ?? 0)
}

function descriptorInfo(fd: 0 | 1): string {
  try {
    return readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')
  } catch {
    return ''
  }
}
