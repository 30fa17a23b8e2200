/**
 * A real systemd runs the unit that the built program prints: when it calls the service started, what it does when the program stands still, what a reload with a bad and
 * with a good configuration does while lines come in, how it stops, and how secrets reach the program. It is asked over its own socket.
 */
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { wholeLines } from '../process-harness.js'
import { inside, PidOne, pidOneTests, type Said } from './pid-one.js'

const { shared, node, program } = inside
const UNIT = 'conntrail'
/** Longer than anything here takes on a busy machine. */
const TIMEOUT = 240_000
const PATIENCE_MS = 30_000

const event = (n: number): string => `[1795342488.000000]\t    [NEW] udp      17 30 src=10.10.1.2 dst=10.10.2.2 sport=${1 + (n % 60000)} dport=53 [UNREPLIED] src=10.10.2.2 dst=10.10.1.2 sport=53 dport=${1 + (n % 60000)} mark=${n}\n`
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)

if (pidOneTests !== 'run') console.warn(`tests with a real systemd are left out: ${pidOneTests}`)

describe.skipIf(pidOneTests !== 'run')(`systemd as process 1${pidOneTests === 'run' ? '' : ` (${pidOneTests})`}`, { timeout: TIMEOUT }, () => {
  const one = new PidOne()
  let written = 0
  beforeAll(() => one.boot())
  afterAll(() => one.end())
  beforeEach(async () => {
    await systemctl('stop', UNIT)
    await systemctl('reset-failed', UNIT)
    await one.run('rm', '-rf', '/var/lib/private', `/var/lib/${UNIT}`, '/var/log/private', `/var/log/${UNIT}`)
    for (const name of ['logs', 'bin', 'ends', 'said', 'go']) rmSync(here(name), { recursive: true, force: true })
    for (const name of ['logs', 'bin']) mkdirSync(here(name))
    written = 0
  })

  const here = (name: string): string => one.sharedPath(name)
  const systemctl = (...args: readonly string[]): Promise<Said> => one.run('systemctl', '--no-ask-password', ...args)
  /** At once: a reload may still be about to read the one before. */
  function configure(text: string): void {
    writeFileSync(here('new.yaml'), text)
    renameSync(here('new.yaml'), here('conntrail.yaml'))
  }
  const textOf = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '')
  /** What the service said on standard error. */
  const said = (): string => textOf(here('said'))
  /** How its main processes ended, each in the words of systemd: result, how, status. */
  const ends = (): string[] => textOf(here('ends')).split('\n').slice(0, -1)

  /** The unit that the program prints, and beside it what a test needs to see and to be quick. */
  async function install(dropIn = ''): Promise<string> {
    const { status, out, error } = await one.run(node, program, 'service', '-c', `${shared}/conntrail.yaml`)
    expect(status, error).toBe(0)
    writeFileSync(one.unitPath(`${UNIT}.service`), out)
    mkdirSync(one.unitPath(`${UNIT}.service.d`), { recursive: true })
    const seen = `StandardError=append:${shared}/said\nExecStopPost=+/bin/sh -c 'echo "$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS" >>${shared}/ends'\nLimitCORE=0\nRestartSec=100ms\n`
    writeFileSync(one.unitPath(`${UNIT}.service.d/test.conf`), `[Service]\n${seen}${dropIn}`)
    expect((await systemctl('daemon-reload')).status).toBe(0)
    return out
  }

  async function show(): Promise<Readonly<Record<string, string>>> {
    const { out } = await systemctl('show', UNIT)
    return Object.fromEntries(out.split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
  }

  /** Asks until there is an answer, and says how things stand when there is none. */
  async function until<T>(what: string, ask: () => Promise<T | null> | T | null | false): Promise<T> {
    for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await sleep(50)) {
      const answer = await ask()
      if (answer !== null && answer !== false) return answer
    }
    const { ActiveState, StatusText } = await show()
    throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}. ${written} lines written, ${marksIn('all').length} records; ${ActiveState}: ${StatusText}; ended: ${ends().join(', ')}; said: ${said()}`)
  }

  const shows = (what: string, holds: (now: Readonly<Record<string, string>>) => boolean): Promise<Readonly<Record<string, string>>> =>
    until(what, async () => {
      const now = await show()
      return holds(now) ? now : null
    })

  /** CLOCK_MONOTONIC in microseconds, by which systemd says when. */
  const now = (): number => Number(process.hrtime.bigint() / 1000n)

  /** Flow records; of the last one only a part may be there yet. */
  const recordsIn = (name: string): { type: string; mark: number; rid: string }[] => {
    const path = one.path(`/var/log/private/${UNIT}/${name}.ndjson`)
    const lines = existsSync(path) ? wholeLines(upToLastLine(readFileSync(path))) : []
    return lines.map((line) => JSON.parse(line) as { type: string; mark: number; rid: string }).filter(({ type }) => type === 'flow')
  }
  const marksIn = (name: string): number[] => recordsIn(name).map(({ mark }) => mark)
  const write = (count: number): void => appendFileSync(here('logs/a.log'), Array.from({ length: count }, () => event(++written)).join(''))

  /** Writes on until what is going on has ended. */
  async function under<T>(work: Promise<T>): Promise<T> {
    let isOver = false
    const over = work.finally(() => (isOver = true))
    over.catch(() => {})
    for (; !isOver; await sleep(5)) write(10)
    return over
  }

  const followed = (poll: string, outputs: string): string =>
    `state: /var/lib/${UNIT}\ninputs:\n  logs: { type: file, path: ${shared}/logs/*.log, from: start, poll: ${poll} }\noutputs:\n${outputs}`
  const ALL = `  all: { type: file, path: /var/log/${UNIT}/all.ndjson }\n`

  test('calls it started when its inputs are open and not before, and shows what it waits for', async () => {
    const tool = ['/usr/sbin/conntrack', '/usr/bin/conntrack'].find((path) => existsSync(path))
    expect(tool, 'conntrack').toBeDefined()
    writeFileSync(here('bin/conntrack'), `#!/bin/sh\nuntil [ -e ${shared}/go ]; do sleep 0.02; done\nexec ${tool} "$@"\n`, { mode: 0o755 })
    const config = `inputs:\n  kernel: { type: kmsg }\n  level: { type: table }\n  flows: { type: conntrack }\n  logs: { type: file, path: ${shared}/logs/*.log }\noutputs:\n${ALL}`
    configure(config)
    await install(`Environment=PATH=${shared}/bin:/usr/sbin:/usr/bin:/sbin:/bin\n`)
    let isBack = false
    const starting = systemctl('start', UNIT).finally(() => (isBack = true))
    await shows('it waits for the tool', ({ StatusText }) => StatusText === 'opening flows')
    const seen = new Set<string>()
    for (const end = now() + 1e6; now() < end; await sleep(50)) seen.add((await show())['ActiveState']!)
    expect([...seen]).toEqual(['activating'])
    expect(isBack).toBe(false)
    // not even by a reload, which ends in telling that it is ready
    configure(`${config}bogus: 1\n`)
    await systemctl('kill', '--kill-who=main', '--signal=HUP', UNIT)
    await until('the refused reload', () => said().includes('bogus: unknown key'))
    expect(await show()).toMatchObject({ ActiveState: 'activating', StatusText: 'opening flows' })
    const opened = now()
    writeFileSync(here('go'), '')
    expect(await starting).toMatchObject({ status: 0 })
    const { ActiveState, StatusText, ActiveEnterTimestampMonotonic, ExecMainStartTimestampMonotonic } = await show()
    const [at, from] = [Number(ActiveEnterTimestampMonotonic), Number(ExecMainStartTimestampMonotonic)]
    console.info(`activating for ${ms(at - from)} ms, active ${ms(at - opened)} ms after the last input could be opened: ${StatusText}`)
    expect(ActiveState).toBe('active')
    expect(at).toBeGreaterThan(opened)
    // the kernel's log is everybody's
    expect(StatusText).toMatch(/^\d+ lines read, \d+ alerts, \d+ gaps\b.*; the last reload failed, what ran before goes on$/)
    const stopping = await systemctl('stop', UNIT)
    expect([stopping.status, ends()]).toEqual([0, ['success exited 0']])
  })

  test('never calls it started when an input that is named cannot be opened', async () => {
    configure(`inputs: { probe: { type: command, program: [${shared}/bin/not-there] } }\noutputs:\n${ALL}`)
    await install('Restart=no\n')
    expect((await systemctl('start', UNIT)).status).toBe(1)
    expect(await show()).toMatchObject({ ActiveState: 'failed', Result: 'exit-code', ExecMainStatus: '3' })
    expect(said()).toContain(`${shared}/bin/not-there`)
    expect(said()).toContain('"msg":"done"')
  })

  test('starts it anew when it stands still, and no line is lost', async () => {
    configure(followed('20ms', ALL))
    await install('WatchdogSec=3s\n')
    expect((await systemctl('start', UNIT)).status).toBe(0)
    write(100)
    await until('every line is a record', () => marksIn('all').length === written)
    // it says that it is alive
    const { WatchdogTimestampMonotonic: first, MainPID: pid } = await show()
    await shows('a further sign of life', ({ WatchdogTimestampMonotonic }) => Number(WatchdogTimestampMonotonic) > Number(first))
    await systemctl('kill', '--kill-who=main', '--signal=STOP', UNIT)
    const stopped = now()
    write(100)
    const after = await shows('another process is ready', ({ ActiveState, MainPID }) => ActiveState === 'active' && MainPID !== pid)
    console.info(`stopped by SIGSTOP: ended by systemd and ready again after ${ms(Number(after['ActiveEnterTimestampMonotonic']) - stopped)} ms with WatchdogSec=3s; ${ends().join(', ')}`)
    expect(ends()[0]).toMatch(/^watchdog (killed|dumped) ABRT$/)
    expect(Number(after['NRestarts'])).toBeGreaterThan(0)
    write(100)
    await until('every line is a record', () => new Set(marksIn('all')).size === written)
    // what comes twice after a crash has the same id
    const records = recordsIn('all')
    expect(new Set(records.map(({ rid }) => rid)).size).toBe(written)
    expect([...new Set(records.map(({ mark }) => mark))]).toEqual(upTo(written))
  })

  test('a bad file makes the reload fail and changes nothing, a good one, a stop and a start lose and double nothing under load', async () => {
    configure(followed('20ms', ALL))
    const unit = await install()
    expect((await under(systemctl('start', UNIT))).status).toBe(0)
    const { MainPID: pid } = await show()
    await under(until('the first record', () => marksIn('all').length > 0))

    configure(`${followed('20ms', ALL)}bogus: 1\n`)
    const refused = await under(systemctl('reload', UNIT))
    expect(refused.status).toBe(1)
    expect(refused.error).toContain('Job for conntrail.service failed')
    expect(said()).toMatch(/conntrail\.yaml:\d+:1: bogus: unknown key/)
    expect(await show()).toMatchObject({ ActiveState: 'active', Result: 'success', ReloadResult: 'exit-code', MainPID: pid, NRestarts: '0' })
    const during = written
    await under(until('records of later lines', () => marksIn('all').length > during))
    // without the check before it the program itself refuses, says so, and runs on
    await systemctl('kill', '--kill-who=main', '--signal=HUP', UNIT)
    await under(shows('the refused reload', ({ StatusText, ActiveState }) => ActiveState === 'active' && StatusText?.endsWith('; the last reload failed, what ran before goes on') === true))

    configure(followed('30ms', `${ALL}  second: { type: file, path: /var/log/${UNIT}/second.ndjson }\n`))
    const reloadedAt = written
    const accepted = await under(systemctl('reload', UNIT))
    expect(accepted).toMatchObject({ status: 0 })
    await under(until('the new output has a record', () => marksIn('second').length > 0))
    expect(await show()).toMatchObject({ ActiveState: 'active', MainPID: pid, NRestarts: '0' })
    await under(shows('the reload is done', ({ StatusText }) => /^\d+ lines read, 0 alerts, 0 gaps$/.test(StatusText ?? '')))

    const from = now()
    expect((await under(systemctl('stop', UNIT))).status).toBe(0)
    const stoppedAfter = now() - from
    expect(ends()).toEqual(['success exited 0'])
    expect(await show()).toMatchObject({ ActiveState: 'inactive', Result: 'success', ExecMainStatus: '0' })
    // systemd gives it so long, and then ends it itself, which is no success
    expect(unit).toContain('\nTimeoutStopSec=20s\n')
    const before = marksIn('all').length

    expect((await under(systemctl('start', UNIT))).status).toBe(0)
    await until('every line is a record', () => marksIn('all').length >= written)
    expect((await systemctl('stop', UNIT)).status).toBe(0)
    const [all, second] = [marksIn('all'), marksIn('second')]
    console.info(`${written} lines: ${all.length} records, ${new Set(all).size} of them different; reloaded behind line ${reloadedAt}, the new output begins with line ${second[0]}; stopped behind ${before} in ${ms(stoppedAfter)} ms, ${ends().join(', ')}`)
    expect(all).toEqual(upTo(written))
    // the new output has the records from its beginning on, without a hole
    expect(second).toEqual(upTo(written).slice(written - second.length))
    expect(second.length).toBeLessThan(written)
  })

  test('hands it secrets that only root may read, and a reload that names another fails', async () => {
    const SECRET = 'wahoo-8f3d1c'
    for (const name of ['token', 'other']) {
      writeFileSync(here(name), `${SECRET}-${name}\n`)
      chmodSync(here(name), 0o600)
    }
    const receiver = one.start(node, '-e', "require('node:http').createServer((q, r) => { console.log(q.headers.authorization); q.resume(); r.writeHead(200).end() }).listen(0, '127.0.0.1', function () { console.log(this.address().port) })")
    const lines = createInterface({ input: receiver.stdout! })
    const [port] = (await once(lines, 'line')) as [string]
    const authorizations: string[] = []
    lines.on('line', (line) => authorizations.push(line))
    const hook = (token: string): string => `${ALL}  hook: { type: webhook, url: "http://127.0.0.1:${port}/in", when: { type: flow }, batch: { every: 0s }, token: { file: ${shared}/${token} } }\n`
    configure(followed('20ms', hook('token')))
    const unit = await install('Restart=no\n')
    expect(unit).toContain(`\nLoadCredential=opt-shared-token:${shared}/token\n`)
    expect((await systemctl('start', UNIT)).status).toBe(0)
    write(1)
    await until('a request', () => authorizations.length > 0)
    expect(authorizations[0]).toBe(`Bearer ${SECRET}-token`)

    // the same again: its secrets are seen from the reload's check too
    expect((await systemctl('reload', UNIT)).status).toBe(0)
    expect(said()).not.toContain('cannot be read')
    configure(followed('20ms', hook('other')))
    expect((await systemctl('reload', UNIT)).status).toBe(1)
    expect(said()).toContain(`outputs.hook.token: ${shared}/other cannot be read: this user may not read it; systemd has handed over no credential opt-shared-other: print the unit anew with conntrail service, and restart it`)
    write(1)
    await until('the second record', () => marksIn('all').length === 2)
    const { MainPID: pid } = await show()
    const shown = [said(), unit, textOf(`/proc/${pid}/cmdline`), textOf(`/proc/${pid}/environ`), ...(await Promise.all(['show', 'status', 'cat'].map((verb) => systemctl(verb, UNIT)))).map(({ out, error }) => out + error)]
    expect(shown.filter((text) => text.includes(SECRET))).toEqual([])

    // printed anew it has the other; without the file systemd does not start it, and a check says which it is
    await install('Restart=no\n')
    expect((await systemctl('restart', UNIT)).status).toBe(0)
    write(1)
    await until('a request with the other', () => authorizations.at(-1) === `Bearer ${SECRET}-other`)
    await systemctl('stop', UNIT)
    rmSync(here('other'))
    const checked = await one.run(node, program, 'check', `${shared}/conntrail.yaml`)
    expect(checked).toMatchObject({ status: 2, error: expect.stringMatching(/token: \S+\/other cannot be read: there is no such file\n$/) })
    expect((await systemctl('start', UNIT)).status).toBe(1)
    expect(await show()).toMatchObject({ ActiveState: 'failed', ExecMainStatus: '243' })
    receiver.kill('SIGKILL')
  })
})

function upToLastLine(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(0, bytes.lastIndexOf(10) + 1)
}

const ms = (microseconds: number): number => Math.round(microseconds / 1000)
