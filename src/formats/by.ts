/** The suffix that says which process caused an event; conntrack 1.4.7 and 1.4.8 hang it on every form. Source: conntrack-tools src/conntrack.c. */
import { type FlowEvent, HAS_BY, HAS_PROGNAME } from '../event.js'
import { got, isAt, isLineEnd, readNumber, skipBlanks } from './scan.js'

/** `[USERSPACE] portid=N progname=S`, in 1.4.6 alone, in 1.4.7 with the name only where it could be found; the name may hold blanks. */
export function readUserspace(at: number, event: FlowEvent): number {
  if (!isAt(at, '[USERSPACE]')) return -1
  event.has |= HAS_BY
  event.portidLen = 0
  let p = skipBlanks(at + 11)
  if (isLineEnd(p)) return p
  if (!isAt(p, 'portid=')) return -1
  const from = p + 7
  p = readNumber(from)
  if (p < 0 || got.value > 0xffffffff) return -1
  event.portidAt = from
  event.portidLen = p - from
  p = skipBlanks(p)
  if (isLineEnd(p)) return p
  if (!isAt(p, 'progname=')) return -1
  event.prognameAt = p + 9
  p += 9
  while (!isLineEnd(p)) p++
  event.prognameLen = p - event.prognameAt
  event.has |= HAS_PROGNAME
  return p
}
