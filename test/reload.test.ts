/** SIGHUP on the built program: a bad configuration leaves the old one running, a good one takes its place, and no line is lost or doubled meanwhile. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, Program, scratch, sleep, until, wholeLines } from './process-harness.js'

const event = (n: number): string => `[1795342488.000000]\t    [NEW] udp      17 30 src=10.10.1.2 dst=10.10.2.2 sport=${1 + (n % 60000)} dport=53 [UNREPLIED] src=10.10.2.2 dst=10.10.1.2 sport=53 dport=${1 + (n % 60000)} mark=${n}\n`
const marksIn = (path: string): number[] => (existsSync(path) ? wholeLines(readFileSync(path)).flatMap((line) => ((JSON.parse(line) as { mark?: number }).mark ?? []) as number) : [])

afterEach(cleanUp)

describe('SIGHUP', () => {
  test('a bad file changes nothing, a good one loses and doubles nothing under load', { timeout: 30_000 }, async () => {
    const folder = scratch('reload')
    mkdirSync(folder)
    const at = (name: string): string => `${folder}/${name}`
    const config = (poll: string, outputs: string): void =>
      writeFileSync(at('c.yaml'), `inputs:\n  logs: { type: file, path: ${at('*.log')}, from: start, poll: ${poll} }\noutputs:\n${outputs}`)
    config('20ms', `  all: { type: file, path: ${at('all.ndjson')} }\n`)
    const program = new Program(['run', '-c', at('c.yaml'), '--state', at('state')], 'ignore', 'ignore')
    let written = 0
    const writeOn = async (ms: number): Promise<void> => {
      for (const end = Date.now() + ms; Date.now() < end; await sleep(2)) appendFileSync(at('a.log'), Array.from({ length: 20 }, () => event(++written)).join(''))
    }
    await writeOn(500)
    await until(() => marksIn(at('all.ndjson')).length > 0)
    writeFileSync(at('c.yaml'), `${readFileSync(at('c.yaml'), 'utf8')}bogus: 1\n`)
    program.signal('SIGHUP')
    await writeOn(500)
    const before = written
    await until(() => marksIn(at('all.ndjson')).length >= before)
    config('30ms', `  all: { type: file, path: ${at('all.ndjson')}, fsync: always }\n  second: { type: file, path: ${at('second.ndjson')} }\n`)
    // the second comes while the first is at work
    program.signal('SIGHUP')
    await sleep(3)
    program.signal('SIGHUP')
    await writeOn(1000)
    await until(() => existsSync(at('second.ndjson')) && marksIn(at('all.ndjson')).length >= written)
    program.signal('SIGTERM')
    const { status, diagnostics, done } = await program.ended
    expect(status).toBe(0)
    const whole = Array.from({ length: written }, (_, i) => i + 1)
    expect(marksIn(at('all.ndjson'))).toEqual(whole)
    // the new output has the records from its beginning on, without a hole
    const second = marksIn(at('second.ndjson'))
    expect(second).toEqual(whole.slice(written - second.length))
    expect(second.length).toBeGreaterThan(0)
    expect(diagnostics.map(({ msg }) => String(msg)).filter((msg) => msg.startsWith('reload:'))).toEqual([expect.stringContaining('bogus: unknown key')])
    expect(done!.outputs).toEqual({ all: written, second: second.length })
  })

  test('an output that cannot be opened leaves the old ones', async () => {
    const folder = scratch('refused')
    mkdirSync(folder)
    writeFileSync(`${folder}/c.yaml`, `inputs:\n  logs: { type: file, path: ${folder}/*.log, from: start, poll: 20ms }\noutputs:\n  all: { type: file, path: ${folder}/all.ndjson }\n`)
    const program = new Program(['run', '-c', `${folder}/c.yaml`], 'ignore', 'ignore')
    writeFileSync(`${folder}/a.log`, event(1))
    await until(() => marksIn(`${folder}/all.ndjson`).length === 1)
    writeFileSync(`${folder}/c.yaml`, readFileSync(`${folder}/c.yaml`, 'utf8').replace('all.ndjson', 'missing/all.ndjson'))
    program.signal('SIGHUP')
    await sleep(300)
    appendFileSync(`${folder}/a.log`, event(2))
    await until(() => marksIn(`${folder}/all.ndjson`).length === 2)
    // as it is while an editor writes it
    writeFileSync(`${folder}/c.yaml`, '')
    program.signal('SIGHUP')
    await sleep(300)
    appendFileSync(`${folder}/a.log`, event(3))
    await until(() => marksIn(`${folder}/all.ndjson`).length === 3)
    program.signal('SIGTERM')
    const { status, diagnostics } = await program.ended
    expect(status).toBe(0)
    expect(diagnostics.map(({ msg }) => String(msg))).toEqual([
      expect.stringMatching(/^reload: .*missing\/all\.ndjson.*; what ran before goes on$/),
      expect.stringMatching(/^reload: .*c\.yaml: it names no inputs any more, and that takes a restart; what ran before goes on$/),
    ])
  })

  test('whether rows of the table are written is as the new configuration says', async () => {
    const folder = scratch('dumps')
    mkdirSync(folder)
    const tuple = 'src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1'
    // in the place of the tool: listens, as its first event says, and has a table of one row
    const tool = `case "$1$3" in
-V) echo 'conntrack v1.4.7 (conntrack-tools)' ;;
-E*) echo '${event(1).trimEnd()}'; exec sleep 60 ;;
-Lipv4) echo 'udp 17 29 ${tuple} mark=0 use=1 id=1'; echo 'conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.' >&2 ;;
-L*) echo 'conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.' >&2 ;;
esac`
    writeFileSync(`${folder}/conntrack`, `#!/bin/sh\n${tool}\n`, { mode: 0o755 })
    const config = (dump: string): void => writeFileSync(`${folder}/c.yaml`, `inputs:\n  flows: { type: conntrack, dump: ${dump} }\noutputs:\n  all: { type: file, path: ${folder}/all.ndjson }\n`)
    const has = (event: string, times: number): boolean => existsSync(`${folder}/all.ndjson`) && readFileSync(`${folder}/all.ndjson`, 'utf8').split(`"event":"${event}"`).length > times
    config('hide')
    const program = new Program(['run', '-c', `${folder}/c.yaml`], 'ignore', 'ignore', { PATH: `${folder}:/usr/bin:/bin` })
    await until(() => has('new', 1))
    config('write')
    program.signal('SIGHUP')
    await until(() => has('entry', 1))
    program.signal('SIGTERM')
    expect((await program.ended).status).toBe(0)
  })
})
