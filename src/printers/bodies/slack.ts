/**
 * A Slack incoming webhook's message: `text` for notifications and old clients, `blocks` (Block Kit) for the eye. Slack refuses a message that breaks one of its
 * limits, so everything is cut to them; `&`, `<` and `>` are escaped, because they begin links and mentions.
 */
import { adviceText, topText } from './advice.js'
import { encode, lossOf, type RecordValue, textOr } from './record.js'

/** Limits of Block Kit in characters, and of blocks in a message. */
const HEADER_MAX = 150
const SECTION_MAX = 3000
const FIELD_MAX = 2000
const TEXT_MAX = 4000
/** Each notice takes at most four blocks of the fifty that a message may have. */
export const SLACK_NOTICES_MAX = 12

type Block = Readonly<Record<string, unknown>>

/** Alert and gap records, at most SLACK_NOTICES_MAX, as one message. `host` is for a record without one; `runbook` a URL, '' none. */
export function slackBody(records: readonly RecordValue[], host: string, runbook: string): Uint8Array {
  const text = cut(escaped(records.map((record) => titleOf(record, host)).join('\n')), TEXT_MAX)
  return encode(JSON.stringify({ text, blocks: records.flatMap((record) => blocksOf(record, host, runbook)) }))
}

function titleOf(record: RecordValue, host: string): string {
  if (record['type'] === 'gap') return `Input lost on ${textOr(record['host'], host)}: ${gapText(record)}`
  const state = record['status'] === 'resolved' ? 'Resolved' : 'Firing'
  return `${state} (${textOr(record['severity'], 'warning')}) on ${textOr(record['host'], host)}: ${textOr(record['summary'], '')}`
}

function gapText(record: RecordValue): string {
  return `${textOr(record['cause'], 'gap')}, ${lossOf(record)}`
}

function blocksOf(record: RecordValue, host: string, runbook: string): Block[] {
  const isGap = record['type'] === 'gap'
  const firing = record['severity'] === 'critical' ? ':rotating_light:' : ':warning:'
  const mark = isGap ? ':grey_question:' : record['status'] === 'resolved' ? ':white_check_mark:' : firing
  const header = `${mark} ${isGap ? 'input lost' : `${textOr(record['rule'], 'alert').replaceAll('_', ' ')}: ${textOr(record['status'], '')}`}`
  const further = [isGap ? '' : adviceText(record), topText(record), runbook === '' ? '' : `Runbook: ${runbook}`].filter((text) => text !== '').join('\n')
  return [
    { type: 'header', text: { type: 'plain_text', text: cut(escaped(header), HEADER_MAX), emoji: true } },
    section(isGap ? gapText(record) : textOr(record['summary'], '(no summary)')),
    { type: 'section', fields: fieldsOf(record, host) },
    ...(further === '' ? [] : [section(further)]),
  ]
}

function section(text: string): Block {
  return { type: 'section', text: { type: 'mrkdwn', text: cut(escaped(text), SECTION_MAX) } }
}

/** At most ten are allowed. */
function fieldsOf(record: RecordValue, host: string): Block[] {
  const { netns, netns_name: name, severity, input, started, ended, from, to, episode } = record
  const where = { Host: textOr(record['host'], host), Namespace: name ?? netns, Severity: severity, Input: input }
  const given = { ...where, From: started ?? from, Until: ended ?? to, Episode: episode }
  return Object.entries(given)
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => ({ type: 'mrkdwn', text: cut(`*${name}*\n${escaped(String(value))}`, FIELD_MAX) }))
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

/** Never through the middle of a character or of an escape. */
function cut(text: string, max: number): string {
  if (text.length <= max) return text
  return `${text.slice(0, max - 1).replace(/[\ud800-\udbff]$/, '').replace(/&[a-z]{0,3}$/, '')}…`
}
