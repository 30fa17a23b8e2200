/** Bodies of the webhook output: against the schemas in fixtures/bodies, and for what each promises. A real Alertmanager is in delivery.test.ts. */
import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { afterEach, describe, expect, test } from 'vitest'
import { alertOf, gapAlertOf, lastOfEach } from '../src/printers/bodies/alertmanager.js'
import { adviceText, topText } from '../src/printers/bodies/advice.js'
import { cloudEventBody, cloudEventsBatchBody } from '../src/printers/bodies/cloudevents.js'
import { jsonArrayBody, ndjsonBody } from '../src/printers/bodies/lines.js'
import { rawValue } from '../src/printers/bodies/raw-json.js'
import { linesOf, recordOf } from '../src/printers/bodies/record.js'
import { slackBody } from '../src/printers/bodies/slack.js'
import { compileTemplate } from '../src/printers/bodies/template.js'
import { alert, closeAll, flow, folder, gap, open, page, type Receiver, receive, stopReceivers, until } from './webhook-harness.js'

const NO_LINKS = { runbook: '', generator: '' }
const ajv = new Ajv2020({ strictTypes: false })
const schema = (name: string) => ajv.compile(JSON.parse(readFileSync(new URL(`../fixtures/bodies/${name}`, import.meta.url), 'utf8')) as object)
const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:?\d\d)$/
const URI_REFERENCE = /^(?:[a-z][a-z0-9+.-]*:)?(?:[\w.~:/?[\]@!$&'()*+,;=-]|%[0-9a-f]{2})*(?:#(?:[\w.~:/?@!$&'()*+,;=-]|%[0-9a-f]{2})*)?$/i
const draft7 = new Ajv({ allowUnionTypes: true, formats: { 'date-time': TIME, 'uri-reference': URI_REFERENCE, uri: URI_REFERENCE } })
const published = (name: string) => draft7.compile(JSON.parse(readFileSync(new URL(`../fixtures/bodies/${name}`, import.meta.url), 'utf8')) as object)
const publishedEvent = published('cloudevents-10.0.0.published.schema.json')
const publishedMessage = published('slack-types-3.2.0.published.schema.json')
const cloudEvent = schema('cloudevents-1.0.schema.json')
const slackMessage = schema('slack-message.schema.json')
const postableAlerts = schema('alertmanager-v2-alerts.schema.json')

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
const record = (line: string): ReturnType<typeof recordOf> => recordOf(Buffer.from(line))
const value = (line: string): Record<string, unknown> => JSON.parse(line) as Record<string, unknown>

afterEach(async () => {
  await closeAll()
  await stopReceivers()
})

/** A counter that no double holds, escapes, an input with a slash, no host. */
const wild = '{"time":"2026-11-22T10:00:00.000001Z","type":"flow","v":1,"rid":"ab:12","input":"/var/log/kern log*","orig":{"bytes":18446744073709551615},"secctx":"a\\"b\\\\c\\u00e9}],"}'

describe('records', () => {
  test('are told from a page and keep their bytes', () => {
    const written = [flow(1), wild, gap(3)]
    const lines = linesOf(Buffer.from(written.join('\n\n')))
    expect(lines.map(text)).toEqual(written)
    expect(lines.map((line) => recordOf(line)).map(({ type, rid }) => [type, rid])).toEqual([['flow', 'run:1'], ['flow', 'ab:12'], ['gap', 'run:3']])
  })

  test('with keys in another order, without an id, or no record at all', () => {
    expect(record('{"v":1,"rid":"x","type":"gap"}')).toMatchObject({ type: 'gap', rid: 'x' })
    expect(record('{"type":"gap","v":1}')).toMatchObject({ type: 'gap', rid: '' })
    for (const line of ['nonsense', '[]', 'null', '{"type":7}']) expect(record(line)).toMatchObject({ type: '', rid: '' })
  })

  test('as NDJSON and as one array, digit for digit', () => {
    expect(text(ndjsonBody([record(flow(1)), record(wild)]))).toBe(`${flow(1)}\n${wild}\n`)
    expect(text(jsonArrayBody([record(flow(1)), record(wild)]))).toBe(`[${flow(1)},${wild}]`)
    expect([text(ndjsonBody([])), text(jsonArrayBody([]))]).toEqual(['', '[]'])
  })
})

describe('CloudEvents', () => {
  const context = { host: 'gw 1', idOf: () => 'made-up' }

  test.each([
    ['a flow', wild, { id: 'ab:12', source: '//gw%201/%2Fvar%2Flog%2Fkern%20log*', type: 'io.conntrail.flow', time: '2026-11-22T10:00:00.000001Z' }],
    ['an alert', alert('e1', 2), { id: 'e1.2', source: '//gw1', type: 'io.conntrail.alert' }],
    ['a record without an id', '{"type":"reject","v":1,"reason":"x"}', { id: 'made-up', source: '//gw%201', type: 'io.conntrail.reject' }],
  ])('%s is an event by the schema', (_, line, wanted) => {
    const body = text(cloudEventBody(record(line), context))
    const event: unknown = JSON.parse(body)
    expect(cloudEvent(event), JSON.stringify(cloudEvent.errors)).toBe(true)
    expect(publishedEvent(event), JSON.stringify(publishedEvent.errors)).toBe(true)
    expect(event).toMatchObject({ specversion: '1.0', datacontenttype: 'application/json', ...wanted, data: JSON.parse(line) as object })
    expect(body.endsWith(`"data":${line}}`)).toBe(true)
  })

  test('a batch is an array of events', () => {
    const events = JSON.parse(text(cloudEventsBatchBody([record(wild), record(gap(2))], context))) as unknown[]
    expect(events).toHaveLength(2)
    for (const event of events) {
      expect(cloudEvent(event), JSON.stringify(cloudEvent.errors)).toBe(true)
      expect(publishedEvent(event), JSON.stringify(publishedEvent.errors)).toBe(true)
    }
    expect(text(cloudEventsBatchBody([], context))).toBe('[]')
  })

  test('the schemas refuse what breaks them', () => {
    const good = JSON.parse(text(cloudEventBody(record(wild), context))) as object
    for (const wrong of [{ specversion: '0.3' }, { id: '' }, { source: 'a b' }, { type: '' }, { time: 'yesterday' }, { Upper: 1 }]) expect(cloudEvent({ ...good, ...wrong })).toBe(false)
    for (const wrong of [{ specversion: 1 }, { id: '' }, { source: 'a b' }, { type: '' }, { time: 'yesterday' }, { id: undefined }]) expect(publishedEvent({ ...good, ...wrong })).toBe(false)
  })

  test('one goes out structured, several as a batch', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'cloudevents', batch: { records: 2, bytes: 1e6, every: 0 } })
    await webhook.write(page(flow(1), flow(2), flow(3)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got.map(({ headers }) => headers['content-type'])).toEqual(['application/cloudevents-batch+json', 'application/cloudevents+json'])
  })
})

describe('Slack', () => {
  test('every kind of notice is a message by the schema', () => {
    const notices = [
      alert('e1', 1),
      alert('e1', 2, { status: 'resolved', ended: '2026-11-22T10:15:00.000000Z', netns_name: 'ns & <co>' }),
      alert('e2', 1, { severity: 'warning', rule: 'expect_table_full', top: [], drops: undefined, netns: undefined }),
      gap(1),
      gap(2, { count: undefined, at_least: 7, cause: 'output_dropped', output: 'all' }),
    ]
    for (const line of notices) {
      const message: unknown = JSON.parse(text(slackBody([value(line)], 'gw1', '')))
      expect(slackMessage(message), JSON.stringify(slackMessage.errors)).toBe(true)
      expect(publishedMessage(message), JSON.stringify(publishedMessage.errors)).toBe(true)
    }
    const [header] = (JSON.parse(text(slackBody([value(notices[0]!)], 'gw1', ''))) as { blocks: object[] }).blocks
    for (const wrong of [{ type: 'heading' }, { text: 'plain' }, { text: { type: 'mrkdwn', text: 'x' } }, { colour: 'red' }]) expect(publishedMessage({ text: 'x', blocks: [{ ...header, ...wrong }] })).toBe(false)
    expect(text(slackBody(notices.map(value), 'gw1', ''))).toContain('ns &amp; &lt;co&gt;')
  })

  test('nothing is longer than Slack allows, nothing cut in an escape, nothing a mention', () => {
    const long = `<!channel> ${'&<>'.repeat(2000)}${'\u{1f525}'.repeat(3000)}`
    const notices = Array.from({ length: 12 }, (_, i) => value(alert(`e${i}`, 1, { summary: long, host: long, netns_name: long, episode: long, rule: long })))
    const body = text(slackBody(notices, 'gw1', ''))
    const message = JSON.parse(body) as { text: string; blocks: { text?: { text: string } }[] }
    expect(slackMessage(message), JSON.stringify(slackMessage.errors)).toBe(true)
    expect(body.includes('<!channel>')).toBe(false)
    for (const cut of [message.text, ...message.blocks.flatMap((block) => block.text?.text ?? [])]) {
      expect(/&(?!amp;|lt;|gt;)/.test(cut)).toBe(false)
      expect(/[\ud800-\udbff](?![\udc00-\udfff])/.test(cut)).toBe(false)
    }
  })

  test('alerts only; first, tenfold, resolved; never compressed', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'slack', notify: 'changes' })
    for (const [seq, n] of [3, 4, 5, 30, 31, 299, 300, 301].entries()) {
      await webhook.write(page(flow(seq), gap(seq), alert('e1', seq + 1, { drops: { counted: n }, summary: `${n} dropped` })))
      await until(() => queue.length === 0, 'acknowledged')
    }
    await webhook.write(page(alert('e1', 9, { status: 'resolved', ended: new Date().toISOString(), summary: 'over'.repeat(500) })))
    await until(() => queue.length === 0, 'acknowledged')
    const texts = receiver.got.map((got) => (JSON.parse(got.text) as { text: string }).text)
    expect(texts.map((said) => /: (\w+)/.exec(said)![1]!.slice(0, 4))).toEqual(['3', '30', '300', 'over'])
    expect(receiver.got.every(({ headers }) => headers['content-encoding'] === undefined)).toBe(true)
  })

  test('gaps when asked for: the first of a kind, then a tenfold one', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'slack', notify: 'changes' }, { wantsGaps: true })
    for (const [n, count] of [1, 2, 9, 10, 99].entries()) await webhook.write(page(gap(n, { count })))
    await webhook.write(page(gap(7, { cause: 'restart' })))
    await until(() => queue.length === 0, 'acknowledged')
    const told = receiver.got.flatMap((got) => (JSON.parse(got.text) as { text: string }).text.split('\n'))
    expect(told).toEqual(['kmsg_overrun, 1 lost', 'kmsg_overrun, 10 lost', 'restart, 1 lost'].map((said) => `Input lost on gw1: ${said}`))
  })
})

describe('words for people', () => {
  const holder = (by: string, valueOf: string, more: object = {}): object => ({ by, value: valueOf, entries: 392, share: 0.98, new: 30, unreplied: 388, ...more })
  const LIMIT = 'If this load is wanted, raise net.netfilter.nf_conntrack_max; else limit it or block it.'

  test('who held the table, a line for each kind', () => {
    expect(topText(value(alert('e1', 1)))).toBe(
      [
        'from 10.10.1.2 392 entries (98 %, 388 unreplied, 30 new), 10.10.1.3 8 entries (2 %)',
        'to 10.10.2.2 400 entries (100 %, 388 unreplied, 30 new)',
        'to 10.10.2.2:53/udp 3 entries (1 %, 1 unreplied)',
        'in state udp UNREPLIED 388 entries (97 %, 388 unreplied, 30 new)',
      ].join('\n'),
    )
    expect(topText(value(alert('e1', 1, { top: [holder('src', 'fd00::1', { entries: 1, share: 1, known: 1, unreplied: 1, new: undefined })] })))).toBe('from fd00::1 1 entry (of 1 known, 1 unreplied)')
    expect(topText(value(alert('e1', 1, { top: [holder('dst', '10.10.2.2', { entries: 1, share: 0.0025, unreplied: 0, new: 0 })] })))).toBe('to 10.10.2.2 1 entry (under 1 %)')
    for (const top of [undefined, [], 'all', [null, 7, { by: 'src' }]]) expect(topText(value(alert('e1', 1, { top })))).toBe('')
  })

  test.each<[string, object, string]>([
    [
      'a sender',
      { netns_name: 'blue' },
      'When the table was fullest (10:14:49 UTC) 10.10.1.2 held 98 %: 388 of 392 entries unreplied, 30 opened since the episode began. Where most went: 10.10.2.2, with 100 %. Look at its entries: ip netns exec blue conntrack -L -s 10.10.1.2.',
    ],
    ['a sender by IPv6', { top: [holder('src', 'fd00::1', { new: undefined, unreplied: 0, share: 0.996 })] }, 'When the table was fullest (10:14:49 UTC) fd00::1 held 99 %. Look at its entries: conntrack -L -f ipv6 -s fd00::1.'],
    [
      'of many senders the service',
      { top: [holder('src', '10.10.1.2', { share: 0.01 }), holder('service', '10.10.2.2:443/tcp')] },
      'When the table was fullest (10:14:49 UTC) what goes to 10.10.2.2:443/tcp held 98 %: 388 of 392 entries unreplied, 30 opened since the episode began. Look at its entries: conntrack -L -p tcp --dport 443 -d 10.10.2.2.',
    ],
    [
      'a service by IPv6, without ports, or the host alone',
      { top: [holder('service', '[fd00::2]:53/udp', { unreplied: 0, new: 0 })] },
      'When the table was fullest (10:14:49 UTC) what goes to [fd00::2]:53/udp held 98 %. Look at its entries: conntrack -L -f ipv6 -p udp --dport 53 -d fd00::2.',
    ],
    ['pings', { top: [holder('service', '10.10.2.2/icmp', { unreplied: 0, new: 0 })] }, 'When the table was fullest (10:14:49 UTC) what goes to 10.10.2.2/icmp held 98 %. Look at its entries: conntrack -L -p icmp -d 10.10.2.2.'],
    ['a host', { top: [holder('dst', 'fd00::2', { unreplied: 0, new: 0 })] }, 'When the table was fullest (10:14:49 UTC) what goes to fd00::2 held 98 %. Look at its entries: conntrack -L -f ipv6 -d fd00::2.'],
    ['nobody in particular', { netns_name: 'a b; rm', top: [holder('src', '10.10.1.2', { share: 0.05 })] }, 'When the table was fullest (10:14:49 UTC) nobody stood out among those who held entries. Look at the table: conntrack -L.'],
    ['nobody known', { top: undefined, top_at: undefined }, 'Who holds the entries is not known: no flow input saw them. Look at the table: conntrack -L.'],
  ])('what to look at and to do next: %s', (_, more, wanted) => {
    expect(adviceText(value(alert('e1', 1, more)))).toBe(`${wanted} ${LIMIT}`)
  })

  test('are in the bodies of Slack and of an Alertmanager, firing and resolved', () => {
    for (const status of ['firing', 'resolved']) {
      const line = value(alert('e1', 2, { status, summary: 'full; 10.10.1.2 held 98 %' }))
      expect(alertOf(line, 'gw1', NO_LINKS).annotations).toMatchObject({ top: topText(line), description: adviceText(line), summary: 'full; 10.10.1.2 held 98 %' })
      const message = JSON.parse(text(slackBody([line], 'gw1', ''))) as { text: string; blocks: { text?: { text: string } }[] }
      expect(message.text).toContain('10.10.1.2 held 98 %')
      expect(message.blocks.at(-1)!.text!.text).toBe(`${adviceText(line)}\n${topText(line)}`)
    }
  })
})

describe('templates', () => {
  const line = alert('e1', 1, { summary: 'a "quoted" \\ line\nand é', netns: undefined })

  test('a template that is JSON stays JSON', () => {
    const { contentType, body } = compileTemplate('{"text":"{{summary}} on ${host}: {{ netns }}{{top}}","n":{{drops.logged}},"gone":{{nothing.here}},"first":{{top.0}},"whole":{{record}},"raw":{{summary}}}')
    expect(contentType).toBe('application/json')
    const json = value(line)
    expect(JSON.parse(text(body(record(line))))).toEqual({
      text: `${String(json['summary'])} on gw1: ${JSON.stringify(json['top'])}`,
      n: 3,
      gone: null,
      first: (json['top'] as unknown[])[0],
      whole: json,
      raw: json['summary'],
    })
  })

  test('another text has the values as they are', () => {
    const { contentType, body } = compileTemplate('{{host}} says: {{summary}} ({{drops}}){{nothing}}')
    expect(contentType).toBe('text/plain; charset=utf-8')
    expect(text(body(record(line)))).toBe('gw1 says: a "quoted" \\ line\nand é ({"logged":3,"at_least":3})')
  })

  test('digits stay', () => {
    expect(text(compileTemplate('{"b":{{orig.bytes}},"s":"{{secctx}}"}').body(record(wild)))).toBe('{"b":18446744073709551615,"s":"a\\"b\\\\c\\u00e9}],"}')
  })

  test('one request for each record', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'template', template: 'rid={{rid}}' })
    await webhook.write(page(flow(1), flow(2)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(receiver.got.map((got) => got.text)).toEqual(['rid=run:1', 'rid=run:2'])
  })

  test('values are found wherever they stand', () => {
    const json = '{"a":{"b":[1,[2,{"c":"}"}],"x,]"],"":{"d":0}},"e\\"f":true,"last":-1.5e3,"none":[],"void":{}}'
    const found = (path: string): string | null => rawValue(json, path.split('/'))
    expect(found('a/b/1/1/c')).toBe('"}"')
    expect(found('a/b/2')).toBe('"x,]"')
    expect(found('a/b')).toBe('[1,[2,{"c":"}"}],"x,]"]')
    expect(found('a//d')).toBe('0')
    expect(found('e"f')).toBe('true')
    expect(found('last')).toBe('-1.5e3')
    expect(found('none')).toBe('[]')
    for (const path of ['a/b/3', 'a/b/x', 'none/0', 'void/a', 'last/a', 'z', 'a/c']) expect(found(path)).toBeNull()
    expect(rawValue(json, [])).toBe(json)
  })
})

describe('Alertmanager', () => {
  test('labels are what outlives an episode, all else is annotations', () => {
    const firing = alertOf(value(alert('e1', 3, { started: '2026-11-22T10:14:43.324469Z', netns_name: 'red' })), 'gw9', NO_LINKS)
    expect(firing.labels).toEqual({ alertname: 'ConntrackTableFull', severity: 'critical', instance: 'gw1', netns_name: 'red' })
    expect(firing.startsAt).toBe('2026-11-22T10:14:43.324469Z')
    expect(firing.endsAt).toBeUndefined()
    expect(firing.annotations).toMatchObject({ episode: 'e1', seq: '3', drops_logged: '3', table_max: '400', netns: '4026531840', netns_name: 'red', status: 'firing', rule: 'table_full' })
    expect(firing.annotations).not.toHaveProperty('runbook_url')
    expect(firing).not.toHaveProperty('generatorURL')
    const links = { runbook: 'https://wiki.example/full', generator: 'http://gw1:9469/status' }
    const linked = alertOf(value(alert('e1', 3)), 'gw9', links)
    expect([linked.annotations['runbook_url'], linked.generatorURL]).toEqual([links.runbook, links.generator])
    expect(postableAlerts([linked, gapAlertOf(value(gap(1)), 'gw9', links)]), JSON.stringify(postableAlerts.errors)).toBe(true)
    const other = alertOf(value(alert('e2', 1, { rule: 'expect_table_full', host: undefined, netns: undefined, severity: 'warning', status: 'resolved', started: '2026-11-22T10:19:00.000000Z', ended: '2026-11-22T10:20:00.000000Z' })), 'gw9', NO_LINKS)
    expect(other.labels).toEqual({ alertname: 'ConntrackExpectTableFull', severity: 'warning', instance: 'gw9' })
    expect(other.endsAt).toBe('2026-11-22T10:20:00.000000Z')
    // an Alertmanager refuses what ends before it starts
    const odd = alertOf(value(alert('e3', 1, { started: '2026-11-22T10:20:00.000001Z', status: 'resolved', ended: '2026-11-22T10:19:59.000000Z' })), 'gw9', NO_LINKS)
    expect(odd.endsAt).toBe('2026-11-22T10:20:00.000001Z')
    const lost = gapAlertOf(value(gap(1)), 'gw9', NO_LINKS)
    expect(lost.labels).toEqual({ alertname: 'ConntrackGap', severity: 'warning', instance: 'gw1' })
    expect(postableAlerts([firing, other, lost]), JSON.stringify(postableAlerts.errors)).toBe(true)
    expect(lastOfEach([firing, other, { ...firing, endsAt: 'x' }]).map(({ endsAt }) => endsAt)).toEqual([other.endsAt, 'x'])
  })

  type Posted = { labels: Record<string, string>; annotations: Record<string, string>; startsAt: string; endsAt?: string }[]
  const posted = (receiver: Receiver): Posted[] => receiver.got.map((got) => JSON.parse(got.text) as Posted)

  test('open alerts are sent again each minute, after a restart too, until they are resolved', async () => {
    const receiver = await receive()
    const state = folder()
    const first = open(receiver.url(), { body: 'alertmanager' }, { folder: state })
    // more than what other bodies are compressed for: an Alertmanager takes none
    await first.webhook.write(page(alert('e1', 1, { summary: 'full '.repeat(400) }), alert('e2', 1, { netns_name: 'blue' }), flow(1)))
    await until(() => first.queue.length === 0, 'acknowledged')
    await first.webhook.close()
    const later = { now: () => Date.now() + 61_000 }
    const second = open(receiver.url(), { body: 'alertmanager' }, { folder: state, ...later })
    await until(() => receiver.got.length === 2, 'sent again')
    expect(posted(receiver)[1]).toEqual(posted(receiver)[0])
    await second.webhook.write(page(alert('e1', 2, { status: 'resolved', ended: new Date().toISOString() })))
    await until(() => second.queue.length === 0, 'acknowledged')
    await second.webhook.close()
    open(receiver.url(), { body: 'alertmanager' }, { folder: state, now: () => Date.now() + 125_000 })
    await until(() => receiver.got.length === 4, 'the other one sent again')
    expect(posted(receiver)[3]!.map(({ labels }) => labels['netns_name'])).toEqual(['blue'])
    expect(receiver.got.filter(({ headers }) => headers['content-encoding'] !== undefined)).toEqual([])
    for (const body of posted(receiver)) expect(postableAlerts(body), JSON.stringify(postableAlerts.errors)).toBe(true)
  })

  test('an episode keeps the labels of its first notice, whatever becomes known of its namespace', async () => {
    const receiver = await receive()
    const state = folder()
    const first = open(receiver.url(), { body: 'alertmanager' }, { folder: state })
    await first.webhook.write(page(alert('e1', 1, { netns: undefined })))
    await until(() => first.queue.length === 0, 'acknowledged')
    // and within one request
    await first.webhook.write(page(alert('e1', 2, { netns_name: 'blue' }), alert('e2', 1, { rule: 'expect_table_full', netns_name: 'blue' }), alert('e2', 2, { rule: 'expect_table_full', netns_name: 'blue 2' })))
    await until(() => first.queue.length === 0, 'acknowledged')
    await first.webhook.close()
    const second = open(receiver.url(), { body: 'alertmanager' }, { folder: state })
    const ended = { status: 'resolved', ended: new Date().toISOString() }
    await second.webhook.write(page(alert('e1', 3, { ...ended, netns_name: 'blue' }), alert('e2', 3, { ...ended, rule: 'expect_table_full', netns_name: undefined })))
    await until(() => second.queue.length === 0, 'acknowledged')
    const all = posted(receiver).flat()
    const labelsOf = (episode: string): unknown[] => [...new Set(all.filter(({ annotations }) => annotations['episode'] === episode).map(({ labels }) => JSON.stringify(labels)))]
    expect(labelsOf('e1')).toEqual([JSON.stringify({ alertname: 'ConntrackTableFull', severity: 'critical', instance: 'gw1' })])
    expect(labelsOf('e2')).toEqual([JSON.stringify({ alertname: 'ConntrackExpectTableFull', severity: 'critical', instance: 'gw1', netns_name: 'blue' })])
    expect(all.filter(({ endsAt }) => endsAt !== undefined).map(({ annotations }) => annotations['episode'])).toEqual(['e1', 'e2'])
    expect(all.find(({ annotations }) => annotations['episode'] === 'e1' && annotations['seq'] === '2')!.annotations['netns_name']).toBe('blue')
  })

  test('links of the configuration, and of the program itself, go out', async () => {
    const receiver = await receive()
    const own = open(receiver.url(), { body: 'alertmanager', runbook_url: 'https://wiki.example/full' }, { statusUrl: 'http://gw1:9469/status' })
    await own.webhook.write(page(alert('e1', 1)))
    await until(() => own.queue.length === 0, 'acknowledged')
    const set = open(receiver.url(), { body: 'alertmanager', generator_url: 'https://gw.example/' }, { statusUrl: 'http://gw1:9469/status' })
    await set.webhook.write(page(alert('e1', 1)))
    await until(() => set.queue.length === 0, 'acknowledged')
    expect((posted(receiver).flat() as { annotations: Record<string, string>; generatorURL?: string }[]).map(({ annotations, generatorURL }) => [annotations['runbook_url'], generatorURL])).toEqual([
      ['https://wiki.example/full', 'http://gw1:9469/status'],
      [undefined, 'https://gw.example/'],
    ])
    const slack = open(receiver.url(), { body: 'slack', runbook_url: 'https://wiki.example/full?a=1&b=2' })
    await slack.webhook.write(page(alert('e1', 1)))
    await until(() => slack.queue.length === 0, 'acknowledged')
    expect(receiver.got.at(-1)!.text).toContain('\\nRunbook: https://wiki.example/full?a=1&amp;b=2')
  })

  test('two episodes with the same labels: the end of one is not the end of both', async () => {
    const receiver = await receive()
    const { webhook, queue } = open(receiver.url(), { body: 'alertmanager' })
    const ended = { status: 'resolved', ended: new Date().toISOString() }
    await webhook.write(page(alert('e1', 1), alert('e2', 1)))
    await webhook.write(page(alert('e1', 2, ended)))
    await until(() => queue.length === 0, 'acknowledged')
    await webhook.write(page(alert('e2', 2, ended)))
    await until(() => queue.length === 0, 'acknowledged')
    expect(posted(receiver).map((alerts) => alerts.filter(({ endsAt }) => endsAt !== undefined).length).filter((n) => n > 0)).toEqual([1])
    expect(posted(receiver).at(-1)![0]!.annotations['episode']).toBe('e2')
  })

  test('gaps are sent only when asked for', async () => {
    const receiver = await receive()
    const without = open(receiver.url(), { body: 'alertmanager' })
    await without.webhook.write(page(gap(1)))
    expect([without.queue.length, without.webhook.status().filtered]).toEqual([0, 1])
    const wanting = open(receiver.url(), { body: 'alertmanager' }, { wantsGaps: true })
    await wanting.webhook.write(page(gap(1)))
    await until(() => wanting.queue.length === 0, 'acknowledged')
    expect(posted(receiver).map(([first]) => first!.labels['alertname'])).toEqual(['ConntrackGap'])
  })
})
