/**
 * The kernel's own numbers when someone else has read them: the text of /proc/net/stat/nf_conntrack (or ip_conntrack) and of `conntrack -S`. A sample spans several
 * lines and nothing says which is the last: it is whole when the next one begins, or when the input is at its end or quiet. Its first line is held until then
 * and becomes the note, the others are ignored.
 */
import { page, TIME_RECEIVED } from '../event.js'
import { HELD, IGNORED, type LineContext, type LineFormat, NOTE, type Outcome, REJECTED_LINE, type Settled } from '../stage.js'
import { isAt, isBlank, latin1, LF } from './scan.js'
import { isLike, readOldLine, readStatHeader, readStatRow, readToolRow, type StatColumns, type StatRow } from './stat-columns.js'

/** The longest row has 17 words of at most 30 bytes. */
const ROW_BYTES_MAX = 1024

/** A sample whose last line has not come yet. */
interface Begun {
  readonly form: 'proc' | 'tool' | 'old'
  readonly columns: StatColumns
  readonly sec: number
  readonly usec: number
  readonly rows: StatRow[]
  count: number
}

/** The format with its memory of the lines before: each input needs its own. */
export function tableStats(): LineFormat {
  let begun: Begun | null = null

  const begin = (form: Begun['form'], columns: StatColumns, context: LineContext): Outcome => {
    settle(context)
    begun = { form, columns, sec: context.receivedSec, usec: context.receivedUsec, rows: [], count: -1 }
    return HELD
  }

  const add = (row: StatRow): void => {
    begun!.rows.push(row)
    if (row.entries >= 0) begun!.count = row.entries
  }

  /** Without one of its rows the sums would be too small: the sample is none, and the rows behind are passed over. */
  const breaks = (reason: string, context: LineContext): Outcome => {
    if (begun !== null) context.settled.push(settledLine(null))
    begun = null
    context.reason = reason
    return REJECTED_LINE
  }

  const settle = (context: LineContext): void => {
    if (begun !== null) context.settled.push(settledLine(begun))
    begun = null
  }

  const readEntries = (line: string, context: LineContext): Outcome => {
    const columns = readStatHeader(line)
    if (columns !== null) return begin('proc', columns, context)
    const old = readOldLine(line)
    if (old?.word !== 'entries') return IGNORED
    const outcome = begin('old', [], context)
    begun!.count = old.value
    return outcome
  }

  const readTool = (line: string, context: LineContext): Outcome => {
    const row = readToolRow(line)
    if (row === 'other' && begun?.form !== 'tool') return IGNORED
    // among rows, what is none of them is the beginning of one
    if (typeof row !== 'object') return breaks('broken row of conntrack -S', context)
    // the first CPU opens a sample, and the others count only behind it: what begins in the middle would be a sum of some
    if (row.cpu === 0) begin('tool', [], context)
    else if (begun?.form !== 'tool') return IGNORED
    else if (!isLike(row, begun.rows[0]!)) return breaks('row of conntrack -S that is cut off', context)
    add(row)
    return row.cpu === 0 ? HELD : IGNORED
  }

  const readRow = (line: string, context: LineContext): Outcome => {
    const row = readStatRow(line, begun!.columns, begun!.rows.length)
    if (row === null) return breaks('row of /proc/net/stat/nf_conntrack that does not fit its header', context)
    add(row)
    return IGNORED
  }

  return {
    name: 'table-stats',
    mayBeIndented: true,
    endsAtOthers: true,

    begins(at) {
      const c = page[at]
      // e, c: a look at one byte for almost every other line of the stream
      if (c === 101 && beginsEntries(at)) return true
      if (c === 99 && isAt(at, 'cpu=')) return true
      if (begun === null) return false
      return begun.form === 'proc' ? isRow(at) : begun.form === 'old' && readOldLine(latin1(at, page.indexOf(LF, at))) !== null
    },

    read(at, lineEnd, _event, context) {
      if (lineEnd - at > ROW_BYTES_MAX) return IGNORED
      const line = latin1(at, lineEnd)
      if (page[at] === 101 && beginsEntries(at)) return readEntries(line, context)
      if (page[at] === 99 && isAt(at, 'cpu=')) return readTool(line, context)
      return begun?.form === 'proc' ? readRow(line, context) : IGNORED
    },

    settle,
  }
}

/** The held line: a note with its sample, or nothing of interest when there is no whole sample. */
function settledLine(begun: Begun | null): Settled {
  const rest = { kernel: null, gap: null, record: null, reason: '', text: '' }
  if (begun === null || (begun.rows.length === 0 && begun.form !== 'old')) return { ...rest, outcome: IGNORED, sample: null }
  const { sec, usec, count, rows } = begun
  const nothing = { netns: 0, netnsName: '', max: -1, buckets: -1, total: null }
  return { ...rest, outcome: NOTE, sample: { ...nothing, sec, usec, timeSource: TIME_RECEIVED, count, cpus: rows.length === 0 ? null : rows.map((row) => row.counters) } }
}

function beginsEntries(at: number): boolean {
  return isAt(at, 'entries') && isBlank(page[at + 7]!)
}

/** Eight hex digits and blanks, as every row below a header begins. */
function isRow(at: number): boolean {
  for (let i = 0; i < 8; i++) {
    const c = page[at + i]!
    if (!((c >= 48 && c <= 57) || (c >= 97 && c <= 102))) return false
  }
  return isBlank(page[at + 8]!)
}
