/** Compares what the program wrote with the slow reference, line by line, flow numbers by a one-to-one mapping. */
import { reference } from './reference.js'
import { type Options, RECEIVED, type Result, runPieces } from './harness.js'

/** Inputs that people posted, of flows and expectations: `fixtures/case.NAME.in`. The other cases are of what the reference does not know. */
export const formCases = ['events-blanks', 'rows-indented', 'conntrackd-expect', 'rows-vendor-fields', 'rows-l7proto', 'sctp-no-state', 'xml-parallel-pings', 'xml-pretty'].map((name) => `case.${name}`)

const SUMS = ['lines', 'bytes', 'flows', 'expects', 'kernel', 'notes', 'ignored', 'rejected', 'gaps'] as const

/** The first differences, as text; none is ''. */
export async function differences(input: Uint8Array, options: Options = {}, pieces: readonly Uint8Array[] = [input]): Promise<string> {
  const got = await runPieces(pieces, options)
  const want = reference(input, { received: RECEIVED, timezone: options.timezone ?? 'UTC' })
  return describeDifferences(got, want)
}

export function describeDifferences(got: Result, want: ReturnType<typeof reference>): string {
  const found: string[] = []
  for (const sum of SUMS) if (got.tally[sum] !== want.sums[sum]) found.push(`sum ${sum}: got ${got.tally[sum]}, want ${want.sums[sum]}`)
  const names = new Map<string, string>()
  const labels = new Map<string, string>()
  const rows = Math.max(got.lines.length, want.records.length)
  for (let i = 0; i < rows && found.length < 5; i++) {
    const line = got.lines[i] ?? '(nothing)'
    const record = want.records[i]
    const wanted = record === undefined ? '(nothing)' : toJson(record)
    const flow = /"flow":"([0-9a-f]{16})"/.exec(line)?.[1]
    const label = record?.['flow'] as string | undefined
    const mapped = flow === undefined || label === undefined ? line : line.replace(`"flow":"${flow}"`, `"flow":"${label}"`)
    if (flow !== undefined && label !== undefined) {
      if ((names.get(flow) ?? label) !== label || (labels.get(label) ?? flow) !== flow) {
        found.push(`record ${i + 1}: flow ${flow} is ${names.get(flow) ?? 'new'}, want ${label} (${labels.get(label) ?? 'new'})\n  ${line}`)
      }
      names.set(flow, label)
      labels.set(label, flow)
    }
    if (mapped !== wanted) found.push(`record ${i + 1}:\n  got  ${mapped}\n  want ${wanted}`)
  }
  return found.join('\n')
}

/** JSON with 64-bit counters as they are. */
function toJson(value: unknown): string {
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return `[${value.map(toJson).join(',')}]`
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value)
      .filter(([, part]) => part !== undefined)
      .map(([key, part]) => `${JSON.stringify(key)}:${toJson(part)}`)
      .join(',')}}`
  }
  return JSON.stringify(value)
}
