/** From records to requests: which of them a body carries, how many go into one request, and what it looks like. */
import { alertmanagerBody, type AlertLinks, alertOf, gapAlertOf, labelKey, lastOfEach, type PostableAlert } from '../../printers/bodies/alertmanager.js'
import { change, subjectOf, type Told } from '../../printers/bodies/changes.js'
import { CLOUDEVENT_TYPE, cloudEventBody, CLOUDEVENTS_BATCH_TYPE, cloudEventsBatchBody } from '../../printers/bodies/cloudevents.js'
import { JSON_TYPE, jsonArrayBody, NDJSON_TYPE, ndjsonBody } from '../../printers/bodies/lines.js'
import { type BodyRecord, type RecordValue, recordOf, textOr, valueOf } from '../../printers/bodies/record.js'
import { SLACK_NOTICES_MAX, slackBody } from '../../printers/bodies/slack.js'
import { compileTemplate } from '../../printers/bodies/template.js'
import type { Entry } from '../../stage.js'
import type { Episodes } from './episodes.js'
import type { WebhookConfig } from './options.js'

/** A record of the queue that is to be sent, and what is told by it where that is remembered. */
export interface Outgoing {
  readonly seq: number
  readonly record: BodyRecord
  /** of alerts and gaps only */
  readonly value: RecordValue | null
  readonly told: Told | null
}

export interface Message {
  readonly contentType: string
  readonly body: Uint8Array
}

export interface MessageContext {
  readonly config: WebhookConfig
  readonly host: string
  readonly wantsGaps: boolean
  readonly links: AlertLinks
  readonly episodes: Episodes
  /** of a record without a rid */
  readonly idOf: (record: BodyRecord) => string
}

export class Messages {
  readonly #context: MessageContext
  /** records of one request at most */
  readonly perRequest: number
  /** An Alertmanager and Slack take no compressed bodies, and say 400 of them. */
  readonly mayCompress: boolean
  readonly #render: (records: readonly Outgoing[]) => Message
  /** of these types only; null: all */
  readonly #types: ReadonlySet<string> | null

  constructor(context: MessageContext) {
    const { config, host, wantsGaps } = context
    this.#context = context
    const isForPeople = config.body === 'slack' || config.body === 'alertmanager'
    this.mayCompress = config.gzip && !isForPeople
    this.#types = isForPeople ? new Set(wantsGaps ? ['alert', 'gap'] : ['alert']) : null
    this.perRequest = config.body === 'template' ? 1 : config.body === 'slack' ? SLACK_NOTICES_MAX : Infinity
    this.#render = renderers(context, host)[config.body]()
  }

  /** Can a record of this type ever be sent? */
  carries(type: string): boolean {
    return this.#types === null || this.#types.has(type)
  }

  /** What of the queue is to be sent. Notices that tell nobody anything new are left out where `notify` is `changes`. */
  select(entries: readonly Entry[], now: number): Outgoing[] {
    const { config, episodes } = this.#context
    // what is told by earlier records of the same batch
    const told = new Map<string, Told>()
    const selected: Outgoing[] = []
    for (const { seq, bytes, type } of entries) {
      if (!this.carries(type)) continue
      const record = recordOf(bytes)
      const value = type === 'alert' || type === 'gap' ? valueOf(record) : null
      // a gap is no episode; only for people, who would get one a second, are gaps thinned out
      const isThinned = value !== null && (type === 'alert' ? config.notify === 'changes' : config.body === 'slack')
      let news: Told | null = null
      if (isThinned) {
        const subject = subjectOf(value)
        news = change(value, told.get(subject) ?? episodes.told(subject), now)
        if (news === null) continue
        told.set(subject, news)
      }
      selected.push({ seq, record, value, told: news })
    }
    return selected
  }

  message(records: readonly Outgoing[]): Message {
    return this.#render(records)
  }

  /** The receiver has them. */
  delivered(records: readonly Outgoing[], now: number): void {
    const { config, episodes } = this.#context
    for (const { value, told } of records) {
      if (value === null) continue
      if (told !== null) episodes.tell(subjectOf(value), told, value['status'] === 'resolved')
      if (config.body === 'alertmanager' && value['type'] === 'alert') episodes.posted(textOr(value['episode'], ''), alertInPlace(value, this.#context), now)
    }
  }

  /** The alerts that are open, once more. */
  repeat(alerts: readonly PostableAlert[]): Message {
    return { contentType: JSON_TYPE, body: alertmanagerBody(lastOfEach(alerts)) }
  }
}

function renderers(context: MessageContext, host: string): Record<WebhookConfig['body'], () => (records: readonly Outgoing[]) => Message> {
  const { config, idOf, links } = context
  const lines = (outgoing: readonly Outgoing[]): BodyRecord[] => outgoing.map(({ record }) => record)
  return {
    ndjson: () => (records) => ({ contentType: NDJSON_TYPE, body: ndjsonBody(lines(records)) }),
    json: () => (records) => ({ contentType: JSON_TYPE, body: jsonArrayBody(lines(records)) }),
    cloudevents: () => (records) =>
      records.length === 1
        ? { contentType: CLOUDEVENT_TYPE, body: cloudEventBody(records[0]!.record, { host, idOf }) }
        : { contentType: CLOUDEVENTS_BATCH_TYPE, body: cloudEventsBatchBody(lines(records), { host, idOf }) },
    slack: () => (records) => ({ contentType: JSON_TYPE, body: slackBody(records.map(({ value }) => value!), host, links.runbook) }),
    template: () => {
      const { contentType, body } = compileTemplate(config.template ?? '{{record}}')
      return (records) => ({ contentType, body: body(records[0]!.record) })
    },
    alertmanager: () => (records) => {
      const alerts = alertsOf(records.map(({ value }) => value!), context)
      return { contentType: JSON_TYPE, body: alertmanagerBody(lastOfEach(alerts)) }
    },
  }
}

/** With the labels under which the Alertmanager has the episode, if it does. */
function alertInPlace(value: RecordValue, { host, links, episodes }: MessageContext, open = new Map(episodes.openAlerts())): PostableAlert {
  return alertOf(value, host, links, open.get(textOr(value['episode'], ''))?.labels ?? null)
}

/** Notices as alerts. One that ends is not told while another open episode has the same labels: it would be ended with it. */
function alertsOf(values: readonly RecordValue[], context: MessageContext): PostableAlert[] {
  const open = new Map(context.episodes.openAlerts())
  return values.flatMap((value) => {
    if (value['type'] === 'gap') return [gapAlertOf(value, context.host, context.links)]
    const alert = alertInPlace(value, context, open)
    const episode = textOr(value['episode'], '')
    if (alert.endsAt === undefined) {
      open.set(episode, alert)
      return [alert]
    }
    open.delete(episode)
    return [...open.values()].some((other) => labelKey(other) === labelKey(alert)) ? [] : [alert]
  })
}
