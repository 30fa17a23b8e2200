/**
 * Prometheus Alertmanager, `POST /api/v2/alerts`: an array of alerts. Alertmanager knows an alert by its labels and nothing else, so they hold only what stays the
 * same from one episode to the next, and silences and routes outlive it: the name of a namespace, never its number, which is another after a restart. All the rest
 * is annotations. An alert is resolved by sending its labels again with
 * `endsAt`, and forgotten by Alertmanager (`resolve_timeout`, 5 minutes by default) when it is not sent again while it lasts.
 */
import { adviceText, topText } from './advice.js'
import { encode, isMap, lossOf, type RecordValue, textOr } from './record.js'

export interface PostableAlert {
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly startsAt: string
  readonly endsAt?: string
  readonly generatorURL?: string
}

/** What a configuration says of each alert; '' nothing. */
export interface AlertLinks {
  readonly runbook: string
  readonly generator: string
}

/** How long a gap, which is a moment, stands as an alert. */
const GAP_MS = 300_000
/** Labels, and what stands in the alert itself. */
const ELSEWHERE: ReadonlySet<string> = new Set(['type', 'v', 'host', 'severity', 'top'])

/** An alert record. `host` is for a record without one. `known`: the labels that its episode has at the Alertmanager; it keeps them, whatever is known of it by now. */
export function alertOf(record: RecordValue, host: string, links: AlertLinks, known: PostableAlert['labels'] | null = null): PostableAlert {
  const startsAt = textOr(record['started'], textOr(record['time'], ''))
  const ended = record['status'] === 'resolved' ? textOr(record['ended'], textOr(record['time'], '')) : ''
  return {
    labels: known ?? labels(`Conntrack${pascal(textOr(record['rule'], 'Alert'))}`, textOr(record['severity'], 'warning'), record, host),
    annotations: { ...annotations(record), description: adviceText(record), ...given('top', topText(record)), ...given('runbook_url', links.runbook) },
    startsAt,
    ...given('generatorURL', links.generator),
    ...(ended === '' ? {} : { endsAt: notBefore(startsAt, ended) }),
  }
}

/** A gap record: firing for five minutes. */
export function gapAlertOf(record: RecordValue, host: string, links: AlertLinks): PostableAlert {
  const time = textOr(record['time'], '')
  const where = textOr(record['output'], textOr(record['input'], ''))
  return {
    labels: labels('ConntrackGap', 'warning', record, host),
    annotations: { summary: `${lossOf(record)}${where === '' ? '' : ` at ${where}`}: ${textOr(record['cause'], 'gap')}`, ...annotations(record), ...given('runbook_url', links.runbook) },
    startsAt: time,
    endsAt: new Date(Date.parse(time) + GAP_MS).toISOString(),
    ...given('generatorURL', links.generator),
  }
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
  return { alertname, severity, instance: textOr(record['host'], host), ...given('netns_name', textOr(record['netns_name'], '')) }
}

const given = (key: string, text: string): Record<string, string> => (text === '' ? {} : { [key]: text })

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
