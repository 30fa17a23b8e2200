/**
 * Configuration files. Each faulty one in fixtures/config has its exact messages beside it (NAME.want.txt); every good-* one loads. The published JSON Schema
 * is held against the loader by a validator that knows nothing of it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { SocketAddress } from 'node:net'
import { inspect } from 'node:util'
import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { completeConfig, type Config, ConfigErrors, configSchema, errorText, loadConfig, Secret } from '../src/config.js'
import { parseNetwork } from '../src/address.js'

const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
const folder = new URL('../fixtures/config/', import.meta.url)
const names = readdirSync(folder).filter((name) => /\.(yaml|json)$/.test(name))
const good = names.filter((name) => name.startsWith('good-'))
const faulty = names.filter((name) => !name.startsWith('good-'))
const formats = ['conntrack-text', 'kernel-log']
const env = { HOOK_URL: 'http://10.0.0.1/hunter2', HOOK_KEY: 'hunter2-key', INJECTED: 'gw1\nlog_level: silent', LEVEL: 'verbose' }

const read = (path: string): Uint8Array => readFileSync(path.startsWith('/') ? path : new URL(path, folder))
const load = (name: string, isLenient = false): Promise<Config> => loadConfig(name, read, env, { formats, isOutside: isLenient, isLenient })
const loadText = (text: string, variables: Readonly<Record<string, string>> = {}): Promise<Config> => loadConfig('x.yaml', () => text, variables, { formats })
const complete = (data: unknown): Promise<Config> => completeConfig(data, 'flags', read, env, { formats, isLenient: true })

async function errorsOf(loading: Promise<unknown>): Promise<ConfigErrors> {
  const error = await loading.then(
    () => new Error('it loads'),
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ConfigErrors)
  return error as ConfigErrors
}

describe('faulty configurations', () => {
  test.each(faulty)('%s is refused with its messages', async (name) => {
    const error = await errorsOf(load(name))
    expect(`${error.message}\n`).toBe(readFileSync(new URL(name.replace(/\.\w+$/, '.want.txt'), folder), 'utf8'))
    const json = JSON.parse(JSON.stringify(error)) as { errors: ConfigErrors['errors'] }
    expect(json.errors.map(errorText).join('\n')).toBe(error.message)
    expect(error.message + JSON.stringify(error)).not.toMatch(/hunter[23]/)
  })

  test('there are enough of them, and no golden text is left over', () => {
    expect(faulty.length).toBeGreaterThanOrEqual(30)
    const texts = readdirSync(folder).filter((name) => name.endsWith('.want.txt'))
    expect(texts.sort()).toEqual(faulty.map((name) => name.replace(/\.\w+$/, '.want.txt')).sort())
  })

  test('an error as data has place, path, value and what was expected', async () => {
    const { errors } = await errorsOf(load('faulty.json'))
    expect(errors[1]).toEqual({
      file: 'faulty.json',
      line: 14,
      column: 17,
      path: 'outputs.all.rotate.size',
      message: expect.any(String) as string,
      value: 1000,
      expected: 'a size with its unit, such as 512KB, 100MB or 1GiB',
      didYouMean: '1000B',
    })
  })

  test.each([
    ['ENOENT', 'there is no such file'],
    ['EACCES', 'this user may not read it'],
    ['EISDIR', 'it is a directory'],
  ])('a file that cannot be read (%s)', async (code, says) => {
    const loading = loadConfig(
      '/etc/conntrail.yaml',
      () => {
        throw Object.assign(new Error(`${code}: something`), { code })
      },
      {},
    )
    expect((await errorsOf(loading)).message).toBe(`/etc/conntrail.yaml: cannot be read: ${says}`)
  })

  test('a file that is much too large', async () => {
    expect((await errorsOf(loadText('#'.repeat(2 ** 18 + 1)))).message).toBe('x.yaml: is larger than 256 KiB; expected a configuration')
  })

  test.each([
    ['brackets', '['.repeat(2e5), 'nested deeper than 32 levels; expected a configuration'],
    ['dashes', '- '.repeat(1e5), 'nested deeper than 32 levels; expected a configuration'],
    ['indentation', Array.from({ length: 600 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), 'nested deeper than 32 levels; expected a configuration'],
    ['aliases', `a: &a 1\nb: [${'*a,'.repeat(8e4)}]`, 'more than 1000 aliases, with those inside of others; expected a configuration'],
    ['values', `a: [${'1,'.repeat(1e5)}]`, 'more than 20000 values, with aliases written out; expected a configuration'],
  ])('absurdly many %s', async (_, text, says) => {
    const { errors } = await errorsOf(loadText(text))
    expect(errors.map(({ message }) => message)).toEqual([says])
  })

  test('a hundred errors are enough', async () => {
    const error = await errorsOf(loadText('host: a\n'.repeat(1001)))
    expect([error.errors.length, error.message.split('\n').at(-1)]).toEqual([100, 'x.yaml: and 900 more'])
  })

  test('whatever the text, it loads or ends in errors with places', async () => {
    const whole = good.map((name) => readFileSync(new URL(name, folder), 'latin1'))
    const piece = fc.oneof(
      fc.constantFrom('{', '}', '[', ']', ':', ' ', '\n', '"', "'", '&a', '*a', '${', '$', '!', '|', '>', '- ', '\t', '\0', '#', '<<: ', '?', '%'),
      fc.string({ maxLength: 4 }),
    )
    const changed = fc
      .tuple(fc.constantFrom(...whole), fc.array(fc.tuple(fc.nat(), fc.nat({ max: 9 }), piece), { minLength: 1, maxLength: 4 }))
      .map(([text, cuts]) =>
        cuts.reduce((done, [at, length, put]) => {
          const from = at % (done.length + 1)
          return done.slice(0, from) + put + done.slice(from + length)
        }, text),
      )
    await fc.assert(
      fc.asyncProperty(changed, async (text) => {
        try {
          await loadConfig('x.yaml', () => Buffer.from(text, 'latin1'), env, { isLenient: true })
        } catch (error) {
          if (!(error instanceof ConfigErrors)) throw error
          expect(error.errors.length).toBeGreaterThan(0)
          for (const { line, message } of error.errors)
            expect([line <= text.split('\n').length, /\n|Invalid|undefined|received/.test(message)]).toEqual([true, false])
        }
      }),
      { numRuns: isLong ? 500 : 60 },
    )
  })
})

describe('good configurations', () => {
  test.each(good)('%s loads', async (name) => {
    expect((await load(name, true)).version).toBe(1)
  })

  test('an empty one watches the host and writes alerts and gaps to standard output', async () => {
    for (const name of ['good-empty.yaml', 'good-comment-only.yaml', 'good-empty-sections.yaml']) {
      const config = await load(name)
      expect(config.watchesHost).toBe(true)
      expect(config.inputs.map(({ type }) => type)).toEqual(['kmsg', 'table', 'conntrack'])
      expect(config.outputs).toEqual([{ name: '-', type: 'stdout', when: null, when_full: 'block', spool: 256e6 }])
      expect(config.emit).toEqual(['alert', 'gap'])
      expect(config.rules.table_full).toEqual({ enabled: true, quiet: 60_000, clear_below: 0.9, repeat: 30_000, severity: 'critical' })
      expect([config.host, config.state, config.http]).toEqual([null, null, null])
    }
  })

  test('the usual one, in bytes, milliseconds and fractions', async () => {
    const { inputs, outputs, rules, http, emit } = await load('good-example.yaml', true)
    expect(inputs.map(({ name, type }) => `${name} ${type}`)).toEqual(['kernel kmsg', 'flows conntrack', 'level table', 'logs file'])
    expect(inputs[2]).toEqual({ name: 'level', type: 'table', every: 1000, netns: ['self'] })
    expect(inputs[3]).toMatchObject({ path: ['/var/log/kern.log*'], from: 'end', timezone: 'UTC', format: 'auto' })
    expect(rules.table_full).toMatchObject({ quiet: 60_000, clear_below: 0.9, repeat: 30_000 })
    expect(outputs[0]).toMatchObject({ name: 'all', when: null, when_full: 'block', rotate: { size: 100e6, keep: 10, compress: 'gzip' } })
    expect(outputs[1]).toMatchObject({
      name: 'pager',
      when: [{ type: ['alert'], severity: ['critical'] }, { type: ['gap'] }],
      when_full: 'summarize',
      spool: 256e6,
    })
    expect(http).toEqual({ listen: { host: '127.0.0.1', port: 9469, socket: '' } })
    expect(emit).toEqual(['flow', 'expect', 'kernel', 'alert', 'gap', 'table'])
  })

  test('a secret that is not there is an error, but for a check only a warning', async () => {
    expect((await errorsOf(load('good-example.yaml'))).message).toContain(
      'outputs.pager.token: /run/credentials/conntrail/token cannot be read: there is no such file',
    )
    expect((await load('good-example.yaml', true)).warnings).toEqual([
      '/run/credentials/conntrail/token cannot be read: there is no such file; a service is handed it as the credential token: LoadCredential=token:/etc/credstore/token in its unit',
    ])
  })

  test('conditions become lists of numbers and names', async () => {
    const { where, outputs } = await load('good-everything.yaml')
    expect(where?.[0]).toEqual({
      src: [{ text: '10.0.0.0/8', words: [0, 0, 0xffff, 10 << 24], prefix: 104 }],
      dport: [
        { from: 443, to: 443 },
        { from: 8443, to: 8443 },
        { from: 9000, to: 9010 },
      ],
      event: ['destroy'],
      reason: ['refused'],
    })
    expect(outputs.map(({ when }) => (typeof when === 'string' ? when : when?.length))).toEqual(['unmatched', 1, 4, 1])
    expect(outputs[1]?.when).toEqual([
      expect.objectContaining({
        protocol: [
          { from: 6, to: 6 },
          { from: 132, to: 132 },
        ],
        to: ['FIN_WAIT', 'CLOSE_WAIT'],
        netns: ['4026531833', 'blue'],
        transition: [true],
      }),
    ])
  })

  test('what an output waits for is written also when no input is named', async () => {
    expect((await loadText('outputs: { a: { type: stdout, when: { type: [table, gap] } } }')).emit).toEqual(['alert', 'gap', 'table'])
    expect((await loadText('outputs: { a: { type: webhook, url: "https://a.example" } }')).outputs[0]?.when).toEqual([{ type: ['alert', 'gap'] }])
  })

  test('UTF-8 with its mark, CRLF, JSON with tabs', async () => {
    expect((await load('good-bom-crlf.yaml')).host).toBe('café')
    const json = await load('good-example.json')
    expect([json.inputs.length, json.http]).toEqual([2, { listen: { host: '', port: 0, socket: '/run/conntrail/http.sock' } }])
  })

  test('all on one line', async () => {
    const data: unknown = parse(readFileSync(new URL('good-everything.yaml', folder), 'utf8'))
    const one = await loadConfig('x.json', (path) => (path === 'x.json' ? JSON.stringify(data) : read(path)), env)
    expect(one).toEqual(await load('good-everything.yaml'))
  })

  test('it cannot be changed', async () => {
    const seen = new Set<unknown>()
    const visit = (value: unknown): void => {
      if (typeof value !== 'object' || value === null || seen.has(value)) return
      seen.add(value)
      expect(Object.isFrozen(value)).toBe(true)
      Object.values(value).forEach(visit)
    }
    visit(await load('good-everything.yaml'))
    expect(seen.size).toBeGreaterThan(50)
  })
})

test('an alias stands for what its anchor named last before it', async () => {
  const config = await loadText('host: &a one\nstate: *a\ninputs: { x: { type: file, path: &a /p }, y: { type: file, path: *a } }')
  expect([config.state, config.inputs.map((input) => (input.type === 'file' ? input.path : ''))]).toEqual(['one', [['/p'], ['/p']]])
})

describe('variables', () => {
  test('are put into values only, after parsing', async () => {
    const config = await loadText('host: ${A}\nstate: "/${B:-b}/$${A}/$C/${D:-}"\nlog_level: ${E:-warn}', { A: 'gw1: {x: 1}', E: '' })
    expect([config.host, config.state, config.log_level]).toEqual(['gw1: {x: 1}', '/b/${A}/$C/', 'warn'])
  })

  test('set and empty is set', async () => {
    expect((await errorsOf(loadText('host: ${A}', { A: '' }))).message).toMatch(/^x\.yaml:1:7: host: "\$\{A\}": expected/)
  })
})

describe('secrets', () => {
  test('come from the text, a file or the environment, and show themselves to nobody', async () => {
    const config = await load('good-everything.yaml')
    const hook = config.outputs[2]!
    if (hook.type !== 'webhook') throw new Error('the third output is the webhook')
    expect(hook.token?.reveal()).toBe('hunter2-token')
    expect(hook.url.address.reveal()).toBe('http://10.0.0.1/hunter2')
    expect(hook.url.origin).toBe('http://10.0.0.1')
    expect(Object.entries(hook.headers).map(([name, value]) => [name, value.reveal()])).toEqual([
      ['X-Scope-OrgID', 'team'],
      ['X-Key', 'hunter2-key'],
    ])
    expect(hook.signing?.secrets.map((secret) => secret.reveal())).toEqual(Array(2).fill('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'))
    const shown = [JSON.stringify(config), inspect(config, { depth: Infinity, showHidden: true }), `${String(hook.token)} ${hook.url.address}`].join()
    expect(shown).not.toMatch(/hunter2|whsec_/)
    expect(JSON.stringify(new Secret('x'))).toBe('"[secret]"')
  })

  test('of the standard scheme have 24 to 64 bytes, private keys 32 or 64', async () => {
    const faults = async (bytes: number, kind = 'whsec'): Promise<number> => {
      const text = `${kind}_${Buffer.alloc(bytes, 7).toString('base64')}`
      const loading = complete({ outputs: { a: { type: 'webhook', url: 'https://a.example', signing: { secret: text } } } })
      return loading.then(
        () => 0,
        (error: ConfigErrors) => error.errors.length,
      )
    }
    expect(await Promise.all([23, 24, 64, 65].map((bytes) => faults(bytes)))).toEqual([1, 0, 0, 1])
    expect(await Promise.all([31, 32, 33, 64].map((bytes) => faults(bytes, 'whsk')))).toEqual([1, 0, 1, 0])
  })

  test('that go out in headers are ASCII', async () => {
    const loading = complete({ outputs: { a: { type: 'webhook', url: 'https://a.example', token: 'schlüssel', headers: { 'X-Key': 'k€y' } } } })
    const errors = await loading.then(
      () => [],
      (error: ConfigErrors) => error.errors,
    )
    expect(errors.map(({ path, message }) => [path, message])).toEqual([
      ['outputs.a.token', expect.stringContaining('a character that a header cannot carry; expected ASCII')],
      ['outputs.a.headers.X-Key', expect.stringContaining('a character that a header cannot carry; expected ASCII')],
    ])
    expect(errors.map(({ message }) => message).join()).not.toMatch(/schl|k€/)
  })

  test('do not go over plain http to other hosts unless that is allowed', async () => {
    const faults = (url: string, more: object = {}): Promise<number> =>
      complete({ outputs: { a: { type: 'webhook', url, token: 't', ...more } } }).then(
        () => 0,
        (error: ConfigErrors) => error.errors.length,
      )
    const urls = [
      'http://127.0.0.1:9093/',
      'http://[::1]/',
      'http://localhost/',
      'https://a.example/',
      'http://a.example/',
      'http://localhost.example/',
      'http://127.example/',
    ]
    expect(await Promise.all(urls.map((url) => faults(url)))).toEqual([0, 0, 0, 0, 1, 1, 1])
    expect(await faults('http://a.example/', { allow_insecure: true })).toBe(0)
  })
})

describe('the JSON Schema', () => {
  let accepts: (data: unknown) => boolean
  let schema: Node

  interface Node {
    readonly properties?: Readonly<Record<string, Node>>
    readonly anyOf?: readonly Node[]
    readonly oneOf?: readonly Node[]
    readonly additionalProperties?: Node | boolean
    readonly items?: Node
    readonly default?: unknown
    readonly description?: string
    readonly const?: unknown
  }

  beforeAll(async () => {
    schema = await configSchema(formats)
    // strict: unknown keywords and contradictions of the schema itself throw
    accepts = new Ajv2020({ strict: true, allowUnionTypes: true }).compile(schema as object)
  })

  const dataOf = (name: string): unknown => parse(readFileSync(new URL(name, folder), 'utf8')) as unknown

  test.each(good.filter((name) => name !== 'good-everything.yaml'))('takes %s', (name) => {
    expect(accepts(dataOf(name))).toBe(true)
  })

  /** What a schema of the form cannot know: other parts, the host, meanings. Everything else that parses it refuses too. */
  const meanings = ['eats-its-own-records', 'latin1', 'listen', 'quiet-too-short', 'same-output-twice', 'syntax-tag', 'times', 'webhook', 'when-nothing-fits']

  test.each(faulty)('refuses %s where it can know', (name) => {
    let data: unknown
    try {
      data = parse(readFileSync(new URL(name, folder), 'utf8'), { logLevel: 'error' })
    } catch {
      return
    }
    expect(accepts(data)).toBe(meanings.includes(name.replace(/\.\w+$/, '')))
  })

  test('says what every key means', () => {
    const silent: string[] = []
    const visit = (node: Node, path: string): void => {
      for (const [key, part] of Object.entries(node.properties ?? {})) {
        const isSection = part.properties !== undefined || [...(part.oneOf ?? []), ...(part.anyOf ?? [])].some((one) => one.properties !== undefined)
        if (part.description === undefined && !isSection) silent.push(`${path}.${key}`)
        visit(part, `${path}.${key}`)
      }
      for (const one of [...(node.anyOf ?? []), ...(node.oneOf ?? [])]) visit(one, path)
      if (typeof node.additionalProperties === 'object') visit(node.additionalProperties, `${path}.*`)
      if (node.items !== undefined) visit(node.items, `${path}[]`)
    }
    visit(schema, '')
    expect(silent).toEqual([])
  })

  /** A random part of what the schema names as defaults, written out. */
  const explicit = (node: Node, pick: () => boolean): unknown => {
    const named = Object.entries(node.properties ?? {}).flatMap(([key, part]): [string, unknown][] => {
      if (part.const !== undefined && part.default === undefined) return [[key, part.const]]
      if (part.default === undefined || !pick()) return []
      return [[key, part.properties === undefined ? part.default : explicit(part, pick)]]
    })
    return Object.fromEntries(named)
  }

  test('names defaults that, written out, change nothing', async () => {
    const partsOf = (section: string): readonly Node[] => {
      const [map] = schema.properties![section]!.anyOf!
      return (map!.additionalProperties as Node).oneOf!
    }
    const needed: Readonly<Record<string, object>> = { file: { path: '/srv/x' }, webhook: { url: 'https://a.example' }, command: { program: ['dmesg'] } }
    const parts = (section: string, pick: () => boolean): object =>
      Object.fromEntries(
        partsOf(section).map((part) => [
          String(part.properties!['type']!.const),
          { ...(explicit(part, pick) as object), ...needed[String(part.properties!['type']!.const)] },
        ]),
      )
    const whole = (pick: () => boolean): object => ({
      ...(explicit(schema, pick) as object),
      rules: explicit(schema.properties!['rules']!.anyOf![0]!, pick),
      inputs: parts('inputs', pick),
      outputs: { ...parts('outputs', pick), file: { type: 'file', path: '/srv/y' } },
    })
    const bare = await complete(whole(() => false))
    expect(bare.inputs.length + bare.outputs.length).toBe(10)
    await fc.assert(
      fc.asyncProperty(fc.infiniteStream(fc.boolean()), async (stream) => {
        const data = whole(() => stream.next().value as boolean)
        expect(accepts(data)).toBe(true)
        expect(await complete(data)).toEqual(bare)
      }),
      { numRuns: isLong ? 60 : 10 },
    )
    const all = JSON.stringify(whole(() => true))
    for (const written of ['"quiet":"60s"', '"resync":"10m"', '"max_retry_after":"1h"', '"connect":"5s"', '"circuit_after":5']) expect(all).toContain(written)
  })

  test('refuses nothing that the loader takes, whatever is broken at random', async () => {
    const base = { ...(dataOf('good-everything.yaml') as Record<string, unknown>), host: 'gw1' }
    const pathsOf = (value: unknown): (string | number)[][] =>
      typeof value === 'object' && value !== null ? Object.entries(value).flatMap(([key, part]) => [[key], ...pathsOf(part).map((rest) => [key, ...rest])]) : []
    const paths = pathsOf(base)
    const junk = fc.constantFrom<unknown>(0, -1, 1.5, '', 'x', '5s', '10MB', '90%', true, null, [], {}, ['x'], { x: 1 }, 'alert', 1e9, '1')
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), junk, fc.constantFrom('replace', 'remove', 'add'), async (path, value, how) => {
        const data = structuredClone(base) as Record<string | number, unknown>
        const parent = path.slice(0, -1).reduce((at, key) => at[key] as Record<string | number, unknown>, data)
        const key = path.at(-1)!
        if (how === 'replace') parent[key] = value
        else if (how === 'remove' && !Array.isArray(parent)) delete parent[key]
        else if (typeof parent[key] === 'object') (parent[key] as Record<string, unknown>)['x'] = value
        const faults = await complete(data).then(
          () => [],
          (error: ConfigErrors) => error.errors,
        )
        for (const { message } of faults) expect(message).not.toMatch(/Invalid|undefined|received/)
        if (faults.length === 0) expect(accepts(JSON.parse(JSON.stringify(data)))).toBe(true)
      }),
      { numRuns: isLong ? 400 : 40 },
    )
  })
})

test('units', async () => {
  const sizes = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }
  const durations = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
  const unit = fc.tuple(
    fc.integer({ min: 100, max: 9999 }),
    fc.constantFrom(...(Object.keys(sizes) as (keyof typeof sizes)[])),
    fc.constantFrom(...(Object.keys(durations) as (keyof typeof durations)[])),
  )
  await fc.assert(
    fc.asyncProperty(unit, async ([n, size, duration]) => {
      const bytes = n * sizes[size]
      const milliseconds = n * durations[duration]
      const rotate = { size: `${n}${size}`, every: `${n}${duration}` }
      const loading = complete({ inputs: { a: { type: 'stdin' } }, outputs: { a: { type: 'file', path: '/srv/x', rotate } } })
      if (bytes < 1000 || milliseconds < 1000) return void (await errorsOf(loading))
      expect((await loading).outputs[0]).toMatchObject({ rotate: { size: bytes, every: milliseconds } })
    }),
    { numRuns: isLong ? 200 : 30 },
  )
})

describe('networks', () => {
  test('have the words of their address, however it is written', () => {
    fc.assert(
      fc.property(fc.ipV6(), fc.integer({ min: 0, max: 128 }), (address, length) => {
        const network = parseNetwork(`${address}/${length}`)
        const groups = network!.words.flatMap((word) => [word >>> 16, word & 0xffff])
        const same = (text: string): string => new SocketAddress({ address: text, family: 'ipv6' }).address
        expect([network!.prefix, same(groups.map((group) => group.toString(16)).join(':'))]).toEqual([length, same(address)])
      }),
    )
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        const word = parseNetwork(address)!.words[3]!
        expect(parseNetwork(`::ffff:${address}`)!.words[3]).toBe(word)
        expect([24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join('.')).toBe(address)
      }),
    )
  })

  test.each(['', '10.0.0', '10.0.0.256', '10.0.0.0/33', '10.0.0.0/', 'fd00::/129', 'fe80::1%eth0', 'a.example', '10.0.0.0/8/8', '010.0.0.1', '::ffff:10.0.0.256', '1::2::3', '::ffff:10.0.0.1/129', '1.2.3.4::'])('%s is none', (text) => {
    expect(parseNetwork(text)).toBe(null)
  })
})

test('nothing outside of src/config loads the parser and the checker', () => {
  const src = new URL('../src/', import.meta.url)
  const users = (readdirSync(src, { recursive: true }) as string[]).filter(
    (name) =>
      name.endsWith('.ts') &&
      !name.startsWith('config/') &&
      /from '(zod|yaml)'|from '[./]+config\/(load|shape|document)\.js'/.test(readFileSync(new URL(name, src), 'utf8').replace(/(import|export) type .*/g, '')),
  )
  expect(users).toEqual([])
})
