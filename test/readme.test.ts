/**
 * The README is true: every command in it runs as it stands there, its configurations are good, its examples are records. Paths of the system lead into a directory
 * of the test; `conntrack`, `dmesg` and `journalctl` in a pipe are stand-ins that print what was recorded of the real ones. What cannot run here is listed with who
 * runs it.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { parse } from 'yaml'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { conditionKeys } from '../src/conditions.js'
import { recordSchema } from '../src/record-schema.js'
import { recordTypes } from '../src/event.js'
import { cleanUp, program, type Record_, scratch } from './process-harness.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const blocks = (kind: string): string[] => [...readme.matchAll(new RegExp(`^\`\`\`${kind}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(([, block]) => block!)
const commands = blocks('sh').flatMap((block) => block.trimEnd().split('\n'))
const configs = blocks('yaml')

const isThere = (command: string): boolean => spawnSync(command, ['--version']).error === undefined
const mayWatch = process.getuid!() === 0 && isThere('conntrack') && existsSync('/dev/kmsg')

interface Expected {
  /** types of the records on standard output, and how many there are at least */
  readonly types?: readonly string[]
  readonly records?: number
  /** exit statuses */
  readonly status?: readonly number[]
  /** goes on until it is stopped: the signal comes this many seconds after its inputs are open, and it has made what it makes */
  readonly stopAfter?: number
  /** needs the real kernel and tools */
  readonly watches?: boolean
  readonly needs?: string
  /** a file that is there afterwards, and is JSON where its name says so */
  readonly makes?: string
}

const run: Readonly<Record<string, Expected>> = {
  'conntrack -E -o timestamp,id | conntrail': { types: ['flow'], records: 98 },
  "conntrack -E -o timestamp,id | conntrail --where 'event=destroy reason=refused,reset dport=80,443'": { types: ['flow'], records: 4 },
  'conntrail --transitions < events.txt > transitions.ndjson': { makes: 'transitions.ndjson' },
  'conntrail /var/log/kern.log*': { types: ['alert', 'kernel'], records: 46 },
  "conntrail --where 'event=destroy reason=expired' < records.ndjson": { types: ['flow'], records: 79 },
  'conntrack -L -o id,ktimestamp 2>&1 | conntrail': { types: ['flow'], records: 17 },
  'conntrail < /proc/net/nf_conntrack': { types: ['flow'], records: 10 },
  '(conntrack -E -o timestamp,id & conntrack -E expect -o timestamp) | conntrail': { types: ['expect', 'flow'], records: 100 },
  'dmesg | conntrail': { types: ['alert', 'kernel'], records: 40 },
  'journalctl -k -o short-precise | conntrail --emit alert': { types: ['alert'], records: 2 },
  'conntrail --boot-time 2026-11-22T09:50:20Z < dmesg.txt': { types: ['alert', 'kernel'], records: 40 },
  'conntrail run --once -i dmesg.txt -i events.txt --boot-time 2026-11-22T09:50:20Z --emit alert,gap': { types: ['alert'], records: 2 },
  'conntrail run': { watches: true, stopAfter: 1 },
  'mkdir -p /var/log/conntrail': {},
  'conntrail run -i kmsg -i table -i conntrack -o file:/var/log/conntrail/records.ndjson --state /var/lib/conntrail': {
    watches: true,
    stopAfter: 1,
    makes: 'var/log/conntrail/records.ndjson',
  },
  "conntrail run -i '/var/log/kern.log*' --state /var/lib/conntrail": { stopAfter: 1 },
  'conntrail check /etc/conntrail/conntrail.yaml': { types: [] },
  'conntrail run -c /etc/conntrail/conntrail.yaml': { watches: true, stopAfter: 1 },
  'conntrail schema config > conntrail.schema.json': { makes: 'conntrail.schema.json' },
  'conntrail service -c /etc/conntrail/conntrail.yaml > /etc/systemd/system/conntrail.service': { makes: 'etc/systemd/system/conntrail.service' },
  'conntrail run -i kmsg -i table -o webhook:http://127.0.0.1:8080/in': { watches: true, stopAfter: 1 },
  'conntrail deadletters list -c /etc/conntrail/conntrail.yaml': {},
  'conntrail deadletters replay -c /etc/conntrail/conntrail.yaml': {},
  'conntrail doctor': { status: [0, 1] },
  'conntrail doctor -c /etc/conntrail/conntrail.yaml': { status: [0, 1] },
  'promtool check rules fixtures/shippers/prometheus-rules.yaml': { needs: 'promtool' },
  'conntrail schema record > record.schema.json': { makes: 'record.schema.json' },
}

const notHere: Readonly<Record<string, string>> = {
  'npm ci && npm run demo': 'npm ci would take the packages away under this test; continuous integration runs it, and the demo runs below',
  'npm ci && npm test': 'this test is a part of it; continuous integration runs it',
  'npm install -g .': 'changes the machine; by hand, with a prefix',
  'systemctl daemon-reload && systemctl enable --now conntrail': 'needs systemd as the first process; test/unit.test.ts has systemd look at the unit',
}

const standIns: Readonly<Record<string, string>> = {
  conntrack: `case "$*" in
  "-E -o timestamp,id") cat "$FIXTURES"/port-reuse.E-timestamp-id.linux*.in ;;
  "-E expect -o timestamp") cat "$FIXTURES"/ftp.E-expect-timestamp.*.in ;;
  "-L -o id,ktimestamp") cat "$FIXTURES"/nat.L-full.*.in ;;
  *) echo "no stand-in for $*" >&2; exit 99 ;;
esac`,
  dmesg: `[ $# = 0 ] && sed -E 's/^[0-9]+,[0-9]+,([0-9]+)([0-9]{6}),-;/[\\1.\\2] /' "$FIXTURES"/kernel-log.incident.kmsg.*.in`,
  journalctl: `[ "$*" = "-k -o short-precise" ] && sed -E 's/^[0-9]+,[0-9]+,1([0-9]{3})([0-9]{6}),-;/Nov 22 10:14:49.\\2 gw1 kernel: /' "$FIXTURES"/kernel-log.incident.kmsg.*.in`,
}

let home = ''

beforeAll(() => {
  home = scratch('readme')
  for (const folder of ['bin', 'live', 'etc/conntrail', 'etc/systemd/system', 'var/log', 'var/lib', 'proc/net']) mkdirSync(join(home, folder), { recursive: true })
  const make = (path: string, text: string): void => {
    writeFileSync(join(home, path), `#!/bin/sh\n${text}\n`)
    chmodSync(join(home, path), 0o755)
  }
  for (const [name, text] of Object.entries(standIns)) make(`bin/${name}`, text)
  for (const folder of ['bin', 'live']) make(`${folder}/conntrail`, `exec "${process.execPath}" "${program}" "$@"`)
  symlinkSync(join(root, 'fixtures'), join(home, 'fixtures'))
  const copy = (beginning: string, to: string): void => {
    const name = readdirSync(join(root, 'fixtures')).find((each) => each.startsWith(beginning) && each.endsWith('.in'))!
    writeFileSync(join(home, to), readFileSync(join(root, 'fixtures', name)))
  }
  copy('incident.E-timestamp-id.', 'events.txt')
  writeFileSync(join(home, 'records.ndjson'), spawnSync(process.execPath, [program], { input: readFileSync(join(home, 'events.txt')) }).stdout)
  copy('protocols.proc', 'proc/net/nf_conntrack')
  copy('kernel-log.incident.kmsg', 'var/log/kern.log')
  writeFileSync(join(home, 'dmesg.txt'), spawnSync(join(home, 'bin/dmesg'), { env: { ...process.env, FIXTURES: join(root, 'fixtures') } }).stdout)
  writeFileSync(join(home, 'etc/conntrail/slack-url'), 'https://hooks.slack.example/services/T0/B0/key\n')
  writeFileSync(join(home, 'etc/conntrail/conntrail.yaml'), here(configs[0]!))
  writeFileSync(join(home, 'etc/conntrail/alerts.yaml'), here(`${configs[0]!.slice(0, configs[0]!.indexOf('outputs:'))}${configs[1]!}`))
})
afterAll(cleanUp)

/** Paths of the system, and the port that may be taken, as the test has them. */
function here(text: string): string {
  return text.replaceAll(/\/(?=(?:etc\/(?:conntrail|systemd)|var\/log|var\/lib|proc\/net)\b)/g, `${home}/`).replaceAll('127.0.0.1:9469', '127.0.0.1:0')
}

function shell(command: string, { stopAfter, watches, makes }: Expected): { status: number | null; stdout: string; stderr: string } {
  const path = `${join(home, watches === true ? 'live' : 'bin')}${delimiter}${process.env['PATH']}`
  // with its inputs open it is one that can be stopped; before that a signal ends it as it ends any program
  const isUp = `ls -l /proc/$!/fd | grep -q ${watches === true ? '/dev/kmsg' : '/kern.log'}${makes === undefined ? '' : ` && [ -s ${join(home, makes)} ]`}`
  const script = stopAfter === undefined ? here(command) : `${here(command)} & while kill -0 $! && ! { ${isUp}; }; do sleep 0.05; done 2>/dev/null; sleep ${stopAfter}; kill $!; wait $!`
  return spawnSync('bash', ['-c', script], { cwd: home, encoding: 'utf8', env: { ...process.env, PATH: path, FIXTURES: join(root, 'fixtures'), TZ: 'UTC' } })
}

const parseLines = (text: string): Record_[] => text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record_)

describe('a command of the README', () => {
  test('is run here, or by whom it is said', () => {
    expect(commands.filter((command) => run[command] === undefined && notHere[command] === undefined)).toEqual([])
    expect([...Object.keys(run), ...Object.keys(notHere)].filter((command) => !commands.includes(command))).toEqual([])
  })

  // one after the other, as a reader would: some leave files for the next
  for (const [command, expected] of Object.entries(run)) {
    const isHere = (expected.watches !== true || mayWatch) && (expected.needs === undefined || isThere(expected.needs))
    test.runIf(isHere)(command, () => {
      const { status, stdout, stderr } = shell(command, expected)
      expect({ status, stderr: (expected.status ?? [0]).includes(status!) ? '' : stderr }).toEqual({ status: expect.toBeOneOf([...(expected.status ?? [0])]), stderr: '' })
      if (expected.types !== undefined) {
        const records = parseLines(stdout)
        expect([...new Set(records.map(({ type }) => type as string))].sort()).toEqual(expected.types)
        expect(records.length).toBeGreaterThanOrEqual(expected.records ?? 0)
      }
      if (expected.makes !== undefined) {
        const text = readFileSync(join(home, expected.makes), 'utf8')
        expect(text).not.toBe('')
        if (expected.makes.endsWith('.json')) expect(JSON.parse(text)).toHaveProperty('$schema')
        if (expected.makes.endsWith('.ndjson')) expect(parseLines(text).length).toBeGreaterThan(0)
      }
    })
  }

  test('the demo', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
    const { status, stdout, stderr } = spawnSync('bash', ['-c', scripts['demo']!], { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26 })
    expect(status).toBe(0)
    const records = parseLines(stdout)
    const of = (wanted: string): number => records.filter(({ type }) => type === wanted).length
    expect({ flow: of('flow'), kernel: of('kernel'), table: of('table'), alert: of('alert') }).toEqual({ flow: 626, kernel: 44, table: 115, alert: 2 })
    expect(stderr).toContain('ends: 79 expired, 34 evicted')
    expect(stderr).toContain('4,937 packets dropped since 10:14:50 (UTC); 10.10.1.2 held 100 %')
  })
})

describe('what the README shows', () => {
  test('are good configurations', () => {
    expect(configs).toHaveLength(2)
    for (const name of ['conntrail.yaml', 'alerts.yaml']) {
      const { status, stdout } = spawnSync(process.execPath, [program, 'check', '--json', join(home, 'etc/conntrail', name)], { encoding: 'utf8' })
      expect({ status, errors: (JSON.parse(stdout) as Record_)['errors'] }).toEqual({ status: 0, errors: [] })
    }
  })

  test('is the configuration that the shippers are for', () => {
    const { outputs, state, http } = parse(configs[0]!) as Record_
    const shipped = parse(readFileSync(join(root, 'fixtures/shippers/conntrail.yaml'), 'utf8')) as Record_
    expect(shipped).toMatchObject({ outputs, state, http })
  })

  test('is one record of each type', () => {
    const isRecord = new Ajv2020({ allowUnionTypes: true, formats: { 'date-time': true } }).compile(recordSchema)
    const records = parseLines(blocks('json').join(''))
    expect(records.map(({ type }) => type as string)).toEqual(recordTypes)
    for (const record of records) expect([isRecord(record), isRecord.errors]).toEqual([true, null])
  })

  test('are tables of all types, and of all numbers of drops', () => {
    const { flow, alert } = recordSchema['$defs'] as Record<string, Record_>
    for (const type of recordTypes) expect(readme).toContain(`\n| \`${type}\` |`)
    const numbers = Object.keys(alert!['properties'].drops.properties as object)
    for (const name of numbers) expect(readme).toContain(name === 'since' ? '`since`' : `\n| \`${name}\` |`)
    const explained = readme.slice(readme.indexOf('| key of any record'), readme.indexOf('`reason` is the first'))
    for (const key of Object.keys(flow!['properties'] as object)) expect(explained).toMatch(new RegExp(`[\`\\s]${key}[\`\\s]`))
  })

  test('are all keys of conditions, as in the help', () => {
    const sentence = readme.split('\n').find((line) => line.startsWith('`--where` (and `when:`'))!
    const help = spawnSync(process.execPath, [program, 'run', '--help'], { encoding: 'utf8' }).stdout
    const shown = help.slice(help.indexOf('Keys of --where'))
    for (const { name } of conditionKeys) {
      expect(sentence).toMatch(new RegExp(`[\`\\s]${name}[\`\\s]`))
      expect(shown).toMatch(new RegExp(`[ ,]${name}(?:,|\\n)`))
    }
  })

  test('are files that are there, and options that the program has', () => {
    for (const [, path] of readme.matchAll(/`((?:src|test|fixtures)\/[\w./-]*)`/g)) expect([path, existsSync(join(root, path!))]).toEqual([path, true])
    for (const name of readdirSync(join(root, 'fixtures/shippers'))) if (!/^conntrail\.yaml$|\.test\./.test(name)) expect(readme).toContain(`\`${name}\``)
    const help = ['', 'run', 'deadletters', 'doctor'].map((command) => spawnSync(process.execPath, [program, ...(command === '' ? [] : [command]), '--help'], { encoding: 'utf8' }).stdout).join('')
    const options = new Set([...readme.matchAll(/conntrail[^`\n|]* (--[a-z-]+)|`(--[a-z-]+)/g)].map(([, inCommand, alone]) => inCommand ?? alone!))
    const ofOthers = ['--json', '--buffer-size']
    expect([...options].filter((option) => !ofOthers.includes(option) && !help.includes(option))).toEqual([])
  })
})
