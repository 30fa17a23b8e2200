/** Bodies that carry the records as they stand: NDJSON, and one JSON array. The bytes are copied, never parsed, so every digit of a counter stays. */
import { type BodyRecord, joined } from './record.js'

export const NDJSON_TYPE = 'application/x-ndjson'
export const JSON_TYPE = 'application/json'

export function ndjsonBody(records: readonly BodyRecord[]): Uint8Array {
  return joined(records.map(({ bytes }) => bytes), '', '\n', records.length === 0 ? '' : '\n')
}

export function jsonArrayBody(records: readonly BodyRecord[]): Uint8Array {
  return joined(records.map(({ bytes }) => bytes), '[', ',', ']')
}
