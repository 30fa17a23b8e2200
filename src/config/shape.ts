/**
 * Everything that a configuration can say: each key once, with its check, its default and what it means. The types, the JSON Schema and the error messages
 * derive from here. The message of a check is what was expected there; a complaint that is no expectation is marked with `says`.
 */
import { z } from 'zod'
import { FLOWS_MAX_LIMIT } from '../detectors/flows/table.js'
import { type ConditionData, ConditionError, type ConditionKey, conditionKeys, type ConditionValue, LATER, makeCondition } from '../conditions.js'
import { LINE_BYTES_MAX, recordTypes, severities } from '../event.js'
import { localClock, zoneNames } from '../formats/local-time.js'
import { logLevels } from '../log.js'
import { canCompress } from '../outputs/file.js'
import { asciiJson } from '../printers/ndjson.js'
import { Secret } from './secret.js'
import {
  DURATION_EXPECTED,
  durationPattern,
  parseDuration,
  parsePercent,
  parseSize,
  parseTime,
  PERCENT_EXPECTED,
  percentPattern,
  SIZE_EXPECTED,
  sizePattern,
  TIME_EXPECTED,
} from './units.js'

/** Where a secret comes from; what it is, or why it cannot be had. An empty text: it is only looked for, and not there now. */
export type SecretSource = { readonly file: string } | { readonly env: string } | string
export type SecretReader = (source: SecretSource) => { readonly text: string } | { readonly fault: string }

/** Names of the line formats, for `format`; null: any text. */
export type FormatNames = readonly string[] | null

/** What a message of an object's unknown keys begins with; the known ones follow, by comma. */
export const KNOWN_KEYS = 'known keys: '

type Context = z.core.ParsePayload

/** A complaint of its own: the message is not what was expected. */
function say(context: Context, message: string, path: (string | number)[] = []): void {
  context.issues.push({ code: 'custom', message, path, input: context.value, params: { says: true } })
}

/** `words`: one of them may have been meant. */
function expected(context: Context, message: string, words: readonly string[] = []): never {
  context.issues.push({ code: 'custom', message, input: context.value, params: { words } })
  return z.NEVER
}

function object<T extends z.core.$ZodLooseShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? KNOWN_KEYS + Object.keys(shape).join() : `a map with the keys ${Object.keys(shape).join(', ')}`),
  })
}

/** An absent key is null. */
function maybe<T extends z.ZodType>(type: T) {
  return type.optional().transform((value) => value ?? null)
}

/** One, or a list of them. */
function list<T extends z.ZodType>(item: T, what: string) {
  return z.union([item.transform((value) => [value]), z.array(item).min(1, { error: `${what}, or a list of them` })], { error: `${what}, or a list of them` })
}

function text(what: string) {
  return z.string({ error: what }).regex(/^[^\x00-\x1f\x7f]+$/, { error: what })
}

function oneOf<const T extends readonly [string, ...string[]] | readonly string[]>(values: T) {
  return z.enum(values as unknown as [T[number] & string], { error: values.length === 1 ? values[0]! : `one of ${values.join(', ')}` })
}

function whole(min: number, max: number) {
  const what = `a whole number from ${min} to ${max}`
  return z.int({ error: what }).min(min, { error: what }).max(max, { error: what })
}

const flag = () => z.boolean({ error: 'true or false' })

/** Milliseconds. */
function duration(min = '1ms', why = '') {
  return z
    .string({ error: DURATION_EXPECTED })
    .regex(durationPattern, { error: DURATION_EXPECTED })
    .transform((value, context) => {
      const milliseconds = parseDuration(value)
      return milliseconds < parseDuration(min) ? expected(context, `at least ${min}${why}`) : milliseconds
    })
}

/** Bytes. */
function size(min = '1B', max = '8192TiB') {
  return z
    .string({ error: SIZE_EXPECTED })
    .regex(sizePattern, { error: SIZE_EXPECTED })
    .transform((value, context) => {
      const bytes = parseSize(value)
      if (bytes < parseSize(min)) return expected(context, `at least ${min}`)
      return bytes > parseSize(max) ? expected(context, `at most ${max}`) : bytes
    })
}

/** A fraction of 1. */
const percent = () =>
  z
    .string({ error: PERCENT_EXPECTED })
    .regex(percentPattern, { error: PERCENT_EXPECTED })
    .transform((value, context) => {
      const fraction = parsePercent(value)
      return fraction > 0 && fraction <= 1 ? fraction : expected(context, 'a percentage above 0% and up to 100%')
    })

const path = () => text('a path')

const zone = () =>
  text('an IANA zone such as UTC or Europe/Berlin').transform((value, context) => {
    try {
      localClock(value)
      return value
    } catch {
      return expected(context, 'an IANA zone such as UTC or Europe/Berlin', zoneNames())
    }
  })

/** As it is written: -2h is two hours before a start, or a reload. */
const instant = () =>
  z.string({ error: TIME_EXPECTED }).transform((value, context) => (parseTime(value) === null ? expected(context, TIME_EXPECTED) : value))

/* Conditions. */

const valueForms = { number: z.int(), boolean: z.boolean() }

/** For the schema, whose enum is what an editor completes. */
function inAnyCase(words: readonly string[]): string {
  return `^(?:${words.map((word) => word.replace(/[a-z]/gi, (letter) => `[${letter.toUpperCase()}${letter.toLowerCase()}]`)).join('|')})$`
}

/** One value of a condition's key, as the table of conditions reads it. */
function conditionValue({ expected: what, words, also, read, isLater }: ConditionKey) {
  const forms = also === null ? (words === null ? [z.string()] : [z.string().meta({ enum: words }), z.string().meta({ pattern: inAnyCase(words) })]) : [z.string(), valueForms[also]]
  return z.union(forms, { error: what }).transform((value, context) => {
    const found = read(value)
    if (isLater(value)) say(context, `${JSON.stringify(value)}: ${LATER}; expected ${what}`)
    else if (found === null) context.issues.push({ code: 'custom', message: what, input: value, params: { words: words ?? [] } })
    return found as ConditionValue
  })
}

/** A condition that no record can fit is a mistake. */
const condition = () =>
  object(Object.fromEntries(conditionKeys.map((key) => [key.name, list(conditionValue(key), key.expected).optional().describe(key.says)]))).transform((data, context) => {
    const one = data as ConditionData
    try {
      if (context.issues.length === 0) makeCondition(one)
    } catch (error) {
      if (!(error instanceof ConditionError)) throw error
      say(context, error.message)
    }
    return one
  })

const conditions = () =>
  z.union([condition().transform((one) => [one]), z.array(condition()).min(1, { error: 'at least one condition' })], {
    error: 'a condition such as { type: alert }, or a list of them',
  })

/** Which records an output gets: a list is "or", the keys of one entry are "and". */
const when = () =>
  maybe(z.union([oneOf(['unmatched']), conditions()], { error: 'a condition such as { type: alert }, a list of them, or unmatched' })).describe(
    'which records go here: a list is "or", the keys of one entry are "and"; unmatched: what goes to no other output that has a condition',
  )

/* Secrets. */

const SECRET_EXPECTED = 'a text, { file: PATH } or { env: NAME }'

/** What an HTTP header may carry, and what no secret is without. */
function secret(read: SecretReader, what = 'a text') {
  const wanted = `${what}, { file: PATH } or { env: NAME }`
  const reference = object({
    file: path().optional().describe('file that holds it; a newline at its end is cut'),
    env: text('the name of a variable').optional().describe('environment variable that holds it'),
  }).meta({ minProperties: 1, maxProperties: 1 })
  return z.union([z.string({ error: wanted }).min(1, { error: wanted }), reference], { error: wanted }).transform((source, context) => {
    const given = typeof source === 'string' ? source : sourceOf(source)
    if (given === null) {
      // an unknown key has been told
      if (context.issues.length === 0) say(context, `expected ${wanted}`)
      return new Secret('')
    }
    const found = read(given)
    const origin = typeof given === 'string' ? 'the text' : 'file' in given ? given.file : `the variable ${given.env}`
    if ('fault' in found) say(context, found.fault)
    else if (/[\x00-\x1f\x7f]/.test(found.text)) say(context, `${origin} has a line break or another control character in it`)
    return new Secret('text' in found ? found.text : '')
  })
}

/** What goes out in a header: RFC 9110 section 5.5 has ASCII alone for new ones. */
function headerText(read: SecretReader) {
  return secret(read).transform((found, context) => {
    if (/[^\x20-\x7e]/.test(found.reveal())) say(context, 'has a character that a header cannot carry; expected ASCII')
    return found
  })
}

/** null unless exactly one is named. */
function sourceOf({ file, env }: { file?: string | undefined; env?: string | undefined }): SecretSource | null {
  if (file !== undefined) return env === undefined ? { file } : null
  return env === undefined ? null : { env }
}

const URL_EXPECTED = 'an absolute URL such as https://collector.example/in'

const WEB_PAGE = 'an absolute URL such as https://wiki.example/conntrack'

/** It is shown to people. */
const webPage = () =>
  z.string({ error: WEB_PAGE }).transform((text, context) => {
    const parsed = URL.canParse(text) ? new URL(text) : null
    if (parsed === null || !/^https?:$/.test(parsed.protocol)) return expected(context, WEB_PAGE)
    if (parsed.username !== '' || parsed.password !== '') say(context, 'people would see the user name or password in it')
    return text
  })

/** The whole is a secret: some receivers have their key in the path. `origin` (scheme, host and port) may be shown. '' when the URL is not there to look at. */
function url(read: SecretReader) {
  return secret(read, 'a URL').transform((address, context) => {
    if (address.reveal() === '') return { address, origin: '' }
    const parsed = URL.canParse(address.reveal()) ? new URL(address.reveal()) : null
    if (parsed === null || !/^https?:$/.test(parsed.protocol)) return expected(context, URL_EXPECTED)
    if (parsed.username !== '' || parsed.password !== '') say(context, 'a URL cannot carry a user name or password; use token or headers')
    return { address, origin: parsed.origin }
  })
}

/** Standard Webhooks: whsec_ and 24 to 64 bytes in base64, or whsk_ and an Ed25519 private key, which is 32 bytes, or 64 with its public key. */
function isStandardSecret(text: string): boolean {
  const [, kind, base64] = /^(whsec|whsk)_([A-Za-z0-9+/]+={0,2})$/.exec(text) ?? []
  const bytes = base64 === undefined || base64.length % 4 !== 0 ? 0 : Buffer.from(base64, 'base64').length
  return kind === 'whsk' ? bytes === 32 || bytes === 64 : bytes >= 24 && bytes <= 64
}

const STANDARD_SECRET = 'whsec_ and 24 to 64 bytes in base64, or whsk_ and an Ed25519 private key in base64'

function signing(read: SecretReader) {
  return object({
    scheme: oneOf(['standard', 'github', 'slack'])
      .default('standard')
      .describe('standard: Standard Webhooks (webhook-id, webhook-timestamp, webhook-signature)'),
    secret: secret(read).optional().describe(`standard: ${STANDARD_SECRET}`),
    secrets: z
      .array(secret(read), { error: `a list, each ${SECRET_EXPECTED}` })
      .min(1, { error: 'at least one secret' })
      .optional()
      .describe('several, while one replaces the other: each signs'),
  }).transform(({ scheme, secret: one, secrets }, context) => {
    const all = [...(one === undefined ? [] : [one]), ...(secrets ?? [])]
    const isOne = (one === undefined) !== (secrets === undefined)
    if (context.issues.length === 0 && !isOne) say(context, 'expected either secret or secrets')
    if (scheme === 'standard') {
      const check = (found: Secret, where: (string | number)[]): void => {
        if (found.reveal() !== '' && !isStandardSecret(found.reveal()))
          say(context, `a secret of the standard scheme is ${STANDARD_SECRET}`, where)
      }
      if (one !== undefined) check(one, ['secret'])
      secrets?.forEach((found, i) => check(found, ['secrets', i]))
    }
    return { scheme, secrets: all }
  })
}

/** Headers that are the program's own to set (RFC 9112, RFC 9110 section 7.6.1). */
const ownHeaders: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'content-length',
  'content-encoding',
  'transfer-encoding',
  'keep-alive',
  'upgrade',
  'te',
  'trailer',
  'expect',
])
const HEADER = 'the name of a header that the program does not set itself'

function headers(read: SecretReader) {
  const name = z
    .string()
    .regex(/^[!#$%&'*+.^_`|~\w-]+$/, { error: HEADER })
    .refine((given) => !ownHeaders.has(given.toLowerCase()), { error: HEADER })
  return z.record(name, headerText(read), { error: 'a map of headers' })
}

/* Inputs. */

const FROM = 'where to begin: now, start (the oldest there is), or last (where the last run with --state ended); default: last with state, else now'

const INPUT = 'a map with a type, such as { type: kmsg }'

function inputs(formats: FormatNames) {
  const format = () => (formats === null ? text("a format's name") : oneOf(['auto', ...formats])).default('auto').describe('read lines of this format only')
  const timezone = () => maybe(zone()).describe("zone of lines whose clock has none; default: timezone at the top, else the host's")
  const netns = () =>
    list(text('self, all or the name of a network namespace'), 'self, all or the name of a network namespace')
      .prefault(['self'])
      .describe('network namespaces to watch: self, all, or names')
  const from = () => maybe(oneOf(['now', 'start', 'last'])).describe(FROM)
  return z.discriminatedUnion(
    'type',
    [
      object({ type: z.literal('kmsg').describe("the kernel's log, /dev/kmsg"), from: from() }),
      object({ type: z.literal('journal').describe("the kernel's lines of systemd's journal"), from: from() }),
      object({
        type: z.literal('conntrack').describe('live connection tracking events by conntrack -E'),
        events: list(oneOf(['new', 'update', 'destroy']), 'one of new, update, destroy')
          .prefault(['new', 'update', 'destroy'])
          .describe('without update there are no transitions'),
        netns: netns(),
        dump: oneOf(['write', 'hide']).default('hide').describe('write also the rows of the table that are read to know what lives'),
        queue: size('64KiB').prefault('64MiB').describe('events that wait in memory; what does not fit is shed by whole flows and counted'),
        buffer: maybe(size('4KiB')).describe("size of the kernel's socket buffer; default: the kernel's"),
        resync: duration('1s').prefault('10m').describe('how often the whole table is read anew'),
      }),
      object({
        type: z.literal('table').describe("samples of the kernel's own counters"),
        every: duration('100ms').prefault('1s').describe('time between two samples'),
        netns: netns(),
      }),
      object({
        type: z.literal('file').describe('followed files'),
        path: list(path(), 'a path or glob').describe('a path or glob, or several'),
        exclude: list(path(), 'a path or glob')
          .optional()
          .transform((value) => value ?? [])
          .describe('paths and globs that are left out; one without / is compared with the name alone'),
        from: maybe(oneOf(['start', 'end', 'last'])).describe(
          'where to begin in files that are there at the start; default: last with state, else end; files that appear later are read whole',
        ),
        timezone: timezone(),
        format: format(),
        compressed: flag().default(false).describe('read also .gz files of history when a glob is read for the first time'),
        poll: duration('10ms').prefault('250ms').describe('how often open files are looked at'),
        rescan: duration('100ms').prefault('1s').describe('how often globs are looked at'),
        rotate_wait: duration('0s').prefault('5s').describe('how long a file that was rotated away or deleted is still read'),
        partial_line: maybe(duration('100ms')).describe('take an unfinished last line for whole after this time; default: never'),
        ignore_older: maybe(duration('1s')).describe('leave out files that have not changed for this time; default: none'),
        deleted_max: size('1MB').prefault('1GB').describe('deleted files with unread lines keep at most this much of the disk'),
        deleted_max_age: duration('1s').prefault('1h').describe('and at most for this time'),
      }),
      object({
        type: z.literal('command').describe('lines of a program'),
        program: z
          .array(text('a text'), { error: 'a list: the program and its arguments, such as [dmesg, -w]' })
          .min(1, { error: 'a list: the program and its arguments, such as [dmesg, -w]' })
          .describe('the program and its arguments; no shell'),
        timezone: timezone(),
        format: format(),
      }),
      object({ type: z.literal('stdin').describe('standard input'), timezone: timezone(), format: format() }),
    ],
    { error: INPUT },
  )
}

/* Outputs. */

const policies = ['block', 'drop_oldest', 'drop_newest', 'summarize'] as const
const POLICY =
  'when the spool is full: block (hold up reading), drop_oldest, drop_newest, or summarize (keep alerts, gaps and samples, shed flow records); every drop is a gap record'

const OUTPUT = 'a map with a type, such as { type: stdout }'

function outputs(read: SecretReader) {
  const whenFull = (usual: (typeof policies)[number]) => oneOf(policies).default(usual).describe(POLICY)
  const spool = () => size('64KiB').prefault('256MB').describe('how much may wait for this output; on disk with state, else in memory')
  return z.discriminatedUnion(
    'type',
    [
      object({ type: z.literal('stdout').describe('standard output'), when: when(), when_full: whenFull('block'), spool: spool() }),
      object({
        type: z.literal('file').describe('a file that is appended to'),
        path: path().describe('where it is'),
        rotate: maybe(
          object({
            size: maybe(size('1KB')).describe('a new file when this one would grow above it'),
            every: maybe(duration('1s')).describe('a new file after this time'),
            keep: maybe(whole(0, 1_000_000)).describe('how many closed files stay; default: all'),
            max_age: maybe(duration('1s')).describe('how long closed files stay'),
            max_total: maybe(size('1KB')).describe('how much all closed files may hold'),
            compress: oneOf(['gzip', 'zstd', 'none'])
              .default('none')
              .transform((kind, context) => (canCompress(kind) ? kind : expected(context, 'gzip or none: zstd needs Node.js 22.15 or later')))
              .describe('how closed files are compressed; zstd from Node.js 22.15 on'),
          }).transform((rotate, context) => {
            if (context.issues.length === 0 && rotate.size === null && rotate.every === null)
              say(context, 'expected size or every: it says when a new file begins')
            return rotate
          }),
        ).describe('default: it grows, and is opened anew on SIGHUP'),
        fsync: oneOf(['always', 'interval', 'never']).default('interval').describe('when what is written is made safe from a crash of the machine'),
        when: when(),
        when_full: whenFull('block'),
        spool: spool(),
      }),
      object({
        type: z.literal('webhook').describe('HTTP POST to a receiver'),
        url: url(read).describe('http or https; { file: PATH } or { env: NAME } where it holds a key'),
        body: oneOf(['ndjson', 'json', 'alertmanager', 'slack', 'cloudevents', 'template']).default('ndjson').describe('what is sent'),
        template: maybe(z.string({ error: 'a text' }).min(1, { error: 'a text' })).describe('for body: template'),
        runbook_url: maybe(webPage()).describe('for body: alertmanager or slack: where people find what to do'),
        generator_url: maybe(webPage()).describe("for body: alertmanager: where the alert comes from; default: /status of http: listen"),
        notify: maybe(oneOf(['all', 'changes'])).describe(
          'alerts: all notices, or the first, each tenfold rise and the end; default: changes for slack, else all',
        ),
        when: when(),
        when_full: whenFull('summarize'),
        spool: spool(),
        when_denied: oneOf(['pause', 'refuse'])
          .default('pause')
          .describe('an answer that blames the request as such (401, 403, 404 …): keep everything and try now and then, or count what was sent as refused'),
        max_age: duration('1s').prefault('72h').describe('what could not be delivered for so long is given up and counted'),
        batch: object({
          records: whole(1, 100_000).default(500).describe('records in one request at most; requests go one after the other, and what comes meanwhile goes with the next: with 1 a slow receiver sets the pace'),
          bytes: size('1KB', '1GB').prefault('1MB').describe('bytes of one request before compression at most'),
          every: duration('0s').prefault('1s').describe('how long flow records wait for others; alerts and gaps go at once'),
        }).prefault({}),
        gzip: flag().default(true).describe('compress bodies above 1 KiB; a receiver that answers 415 gets them plain'),
        token: maybe(headerText(read)).describe('sent as Authorization: Bearer'),
        headers: headers(read).prefault({}).describe('further headers; their values are secrets'),
        allow_insecure: flag().default(false).describe('send token and authorization over plain http to other hosts'),
        signing: maybe(signing(read)).describe('sign each request'),
        tls: object({
          ca_file: maybe(path()).describe("authorities to trust instead of the system's, PEM"),
          cert_file: maybe(path()).describe('client certificate, PEM'),
          key_file: maybe(path()).describe('its key, PEM'),
          min_version: oneOf(['TLSv1.2', 'TLSv1.3']).default('TLSv1.2').describe('oldest version of TLS'),
        }).prefault({}),
        timeouts: object({
          connect: duration('10ms').prefault('5s').describe('until the connection is there'),
          headers: duration('10ms').prefault('10s').describe('until the answer begins'),
          total: duration('10ms').prefault('30s').describe('until the answer is read'),
        }).prefault({}),
        retry: object({
          first: duration('1ms').prefault('500ms').describe('the wait after the first failure; it doubles, with jitter'),
          max: duration('1ms').prefault('5m').describe('the longest wait'),
          circuit_after: whole(1, 1000).default(5).describe('after so many failures in a row one request at a time tries the receiver'),
        }).prefault({}),
        max_retry_after: duration('1s').prefault('1h').describe("the receiver's Retry-After counts up to this"),
      }).transform((webhook, context) => {
        const { url: to, body, template, token, headers: further } = webhook
        const isOpen = to.origin.startsWith('http:') && !/^http:\/\/(?:localhost|127(?:\.\d+){3}|\[::1\])(?::|$)/.test(to.origin)
        const hasKey = token !== null || Object.keys(further).some((name) => name.toLowerCase() === 'authorization')
        if (isOpen && hasKey && !webhook.allow_insecure)
          say(context, 'would go over plain http to another host; use https, or say allow_insecure: true', [token === null ? 'headers' : 'token'])
        if (body === 'template' && template === null) say(context, 'missing; expected the text that body: template sends', ['template'])
        if (body !== 'template' && template !== null) say(context, `is used with body: template only; body is ${body}`, ['template'])
        if (webhook.runbook_url !== null && body !== 'alertmanager' && body !== 'slack') say(context, `is used with body: alertmanager or slack only; body is ${body}`, ['runbook_url'])
        if (webhook.generator_url !== null && body !== 'alertmanager') say(context, `is used with body: alertmanager only; body is ${body}`, ['generator_url'])
        if ((webhook.tls.cert_file === null) !== (webhook.tls.key_file === null)) say(context, 'expected both cert_file and key_file, or neither', ['tls'])
        return { ...webhook, notify: webhook.notify ?? (body === 'slack' ? ('changes' as const) : ('all' as const)) }
      }),
    ],
    { error: OUTPUT },
  )
}

/* The whole. */

const NAME = 'a name of 1 to 128 characters'
const named = <T extends z.ZodType>(part: T, what: string) =>
  z.record(z.string().regex(/^[^\x00-\x1f\x7f]{1,128}$/, { error: NAME }), part, { error: `a map: a name for each ${what}` }).nullish()

const QUIET_WHY = ": the kernel's limiter speaks in windows of 5 s and reports a window only in the next, so a shorter quiet time would end episodes that go on"

const rule = (severity: 'warning' | 'critical') =>
  object({
    enabled: flag().default(true).describe('false: no alerts of this rule'),
    quiet: duration('10s', QUIET_WHY).prefault('60s').describe('an episode closes after so long without evidence'),
    clear_below: percent().prefault('90%').describe('and, where the level is known, below this'),
    repeat: duration('1s').prefault('30s').describe('an episode that grows is written again at most so often'),
    severity: oneOf(severities).default(severity).describe('severity of its alerts'),
  }).prefault({})

const rules = () =>
  object({
    table_full: rule('critical').describe('the connection tracking table is full and drops packets'),
    expect_table_full: rule('warning').describe('the expectation table is full'),
  })

const LISTEN = 'HOST:PORT such as 127.0.0.1:9469, or unix:PATH'

const listen = () =>
  z.string({ error: LISTEN }).transform((value, context) => {
    if (/^unix:\/./.test(value)) return { host: '', port: 0, socket: value.slice(5) }
    const [, six, plain, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(value) ?? []
    return Number(port) <= 0xffff ? { host: six ?? plain!, port: Number(port), socket: '' } : expected(context, LISTEN)
  })

/** With its quotes and escapes: twice the longest name in the DNS (253, RFC 1035), so that every head of a record can be prepared with it. */
const HOST_JSON_LENGTH_MAX = 512
const HOST = `a name of at most ${HOST_JSON_LENGTH_MAX - 2} characters, none of them a control character`

const host = () => text(HOST).transform((value, context) => (asciiJson(value).length > HOST_JSON_LENGTH_MAX ? expected(context, HOST) : value))

/** What the program has room for. */
const LINE_MAX = `${LINE_BYTES_MAX / 2 ** 20}MiB`

export function configShape(read: SecretReader, formats: FormatNames) {
  return object({
    $schema: z.string({ error: 'a text' }).optional().describe('for editors'),
    version: z.literal(1, { error: '1' }).default(1).describe('version of this form'),
    host: maybe(host()).describe("added to every record; default: this host's name"),
    state: maybe(path()).describe('directory for checkpoints and spools; without it nothing is remembered'),
    on_damage: oneOf(['begin', 'end'])
      .default('begin')
      .describe('where files and kmsg begin when the checkpoint is damaged: begin, what is there is read again under the same record ids; or end, and what came meanwhile is lost'),
    log_level: oneOf(logLevels).default('info').describe('own diagnostics, NDJSON on stderr'),
    flows_max: whole(1, FLOWS_MAX_LIMIT).default(1_048_576).describe('live flows to keep track of'),
    max_line: size('1KiB', '1MiB').prefault(LINE_MAX).describe('longer lines are skipped, counted and reported'),
    timezone: maybe(zone()).describe("zone of lines whose clock has none; default: the host's"),
    boot_time: maybe(instant()).describe('for lines whose clock counts from boot; default: this boot'),
    emit: maybe(list(oneOf(recordTypes), `one of ${recordTypes.join(', ')}`)).describe(
      'record types to write; default: flow, expect, kernel, alert, gap, table; with no input named alert, gap and what a condition (when) asks for',
    ),
    transitions: flag().default(false).describe('of the flow records, only those in which the state changes'),
    where: maybe(conditions()).describe('only records that fit, in the words of when'),
    since: maybe(instant()).describe('only records from this time on'),
    until: maybe(instant()).describe('only records before this time'),
    once: flag().default(false).describe('stop when every input is at its end'),
    summary: flag().default(false).describe('at the end a few lines for people on stderr'),
    inputs: named(inputs(formats), 'input').describe('default: the host is watched by kmsg (else journal), table and conntrack'),
    rules: rules()
      .nullish()
      .transform((value) => value ?? rules().parse({}))
      .describe('what opens an alert'),
    outputs: named(outputs(read), 'output').describe('default: standard output'),
    http: maybe(object({ listen: listen().describe(LISTEN) })).describe('metrics and health'),
  })
}

export type Shape = z.output<ReturnType<typeof configShape>>
export type InputShape = NonNullable<Shape['inputs']>[string]
export type OutputShape = NonNullable<Shape['outputs']>[string]
export type RuleShape = Shape['rules']['table_full']
export type Listen = NonNullable<Shape['http']>['listen']
