/**
 * CloudEvents 1.0 in the JSON format, by its HTTP binding: one record is a structured event, several are a batch. `id` and `source` together are unique, because
 * `rid` is; `data` is the record, byte for byte.
 */
import { type BodyRecord, encode, joined, textOr, valueOf } from './record.js'

export const CLOUDEVENT_TYPE = 'application/cloudevents+json'
export const CLOUDEVENTS_BATCH_TYPE = 'application/cloudevents-batch+json'

/** What a record does not say itself. */
export interface CloudEventsContext {
  readonly host: string
  /** for a record without a rid: CloudEvents requires an id */
  readonly idOf: (record: BodyRecord) => string
}

export function cloudEventBody(record: BodyRecord, context: CloudEventsContext): Uint8Array {
  const value = valueOf(record)
  const host = encodeURIComponent(textOr(value['host'], context.host))
  const input = value['input']
  const attributes = {
    specversion: '1.0',
    id: record.rid === '' ? context.idOf(record) : record.rid,
    source: `//${host}${typeof input === 'string' ? `/${encodeURIComponent(input)}` : ''}`,
    type: `io.conntrail.${record.type === '' ? 'record' : record.type}`,
    time: value['time'],
    datacontenttype: 'application/json',
  }
  return joined([record.bytes], `${JSON.stringify(attributes).slice(0, -1)},"data":`, '', '}')
}

export function cloudEventsBatchBody(records: readonly BodyRecord[], context: CloudEventsContext): Uint8Array {
  return records.length === 0 ? encode('[]') : joined(records.map((record) => cloudEventBody(record, context)), '[', ',', ']')
}
