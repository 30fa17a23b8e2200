/**
 * Prometheus Alertmanager, `POST /api/v2/alerts`: an array of alerts. Alertmanager knows an alert by its labels and nothing else, so they hold only what stays the
 * same from one episode to the next, and silences and routes outlive it: all the rest is annotations. An alert is resolved by sending its labels again with
 * `endsAt`, and forgotten by Alertmanager (`resolve_timeout`, 5 minutes by default) when it is not sent again while it lasts.
 */
import { encode, isMap, lossOf, type RecordValue, textOr } from './record.js'

export interface PostableAlert {
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly startsAt: string
  readonly endsAt?: string
}

/** How long a gap, which is a moment, stands as an alert. */
const GAP_MS = 300_000
/** Labels, and what stands in the alert itself. */
const ELSEWHERE: ReadonlySet<string> = new Set(['type', 'v', 'host', 'netns', 'severity'])

/** An alert record. `host` is for a record without one. */
export function alertOf(record: RecordValue, host: string): PostableAlert {
  const startsAt = textOr(record['started'], textOr(record['time'], ''))
  const ended = record['status'] === 'resolved' ? textOr(record['ended'], textOr(record['time'], '')) : ''
  return {
    labels: labels(`Conntrack${pascal(textOr(record['rule'], 'Alert'))}`, textOr(record['severity'], 'warning'), record, host),
    annotations: annotations(record),
    startsAt,
    ...(ended === '' ? {} : { endsAt: notBefore(startsAt, ended) }),
  }
}

/** A gap record: firing for five minutes. */
export function gapAlertOf(record: RecordValue, host: string): PostableAlert {
  const time = textOr(record['time'], '')
  const where = textOr(record['output'], textOr(record['input'], ''))
  return {
    labels: labels('ConntrackGap', 'warning', record, host),
    annotations: { summary: `${lossOf(record)}${where === '' ? '' : ` at ${where}`}: ${textOr(record['cause'], 'gap')}`, ...annotations(record) },
    startsAt: time,
    endsAt: new Date(Date.parse(time) + GAP_MS).toISOString(),
  }
}

/** The alert, over at `time`. */
export function closedAt(alert: PostableAlert, time: string): PostableAlert {
  return { ...alert, endsAt: notBefore(alert.startsAt, time) }
}

export function alertmanagerBody(alerts: readonly PostableAlert[]): Uint8Array {
  return encode(JSON.stringify(alerts))
}

/** One text for each set of labels, whatever their order. */
export function labelKey(alert: PostableAlert): string {
  return JSON.stringify(Object.entries(alert.labels).sort())
}

/** Of several with the same labels only the last: Alertmanager would merge them in any order that it likes. */
export function lastOfEach(alerts: readonly PostableAlert[]): PostableAlert[] {
  const last = new Map<string, PostableAlert>()
  for (const alert of alerts) {
    // a firing alert that follows a resolved one, and the other way round, takes its place at the end
    last.delete(labelKey(alert))
    last.set(labelKey(alert), alert)
  }
  return [...last.values()]
}

function labels(alertname: string, severity: string, record: RecordValue, host: string): Record<string, string> {
  const netns = record['netns']
  return { alertname, severity, instance: textOr(record['host'], host), ...(typeof netns === 'number' ? { netns: String(netns) } : {}) }
}

/** Names of nested keys are joined by `_`; lists stand as JSON. */
function annotations(record: RecordValue): Record<string, string> {
  const found: Record<string, string> = {}
  const walk = (value: unknown, name: string): void => {
    if (isMap(value)) for (const [key, inner] of Object.entries(value)) walk(inner, name === '' ? key : `${name}_${key}`)
    else if (value !== undefined && value !== null) found[name.replace(/\W/g, '_')] = typeof value === 'object' ? JSON.stringify(value) : String(value)
  }
  walk(Object.fromEntries(Object.entries(record).filter(([key]) => !ELSEWHERE.has(key))), '')
  return found
}

/** An alert that ends before it starts is refused. */
function notBefore(start: string, end: string): string {
  return Date.parse(end) < Date.parse(start) ? start : end
}

/** table_full -> TableFull */
function pascal(words: string): string {
  return words.split('_').map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')
}
