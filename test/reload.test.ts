/** SIGHUP on the built program: a bad configuration leaves the old one running, a good one takes its place, and no line is lost or doubled meanwhile. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, Program, scratch, sleep, until, wholeLines } from './process-harness.js'
import { FIRST_START } from './run-harness.js'

const event = (n: number): string => `[1795342488.000000]\t    [NEW] udp      17 30 src=10.10.1.2 dst=10.10.2.2 sport=${1 + (n % 60000)} dport=53 [UNREPLIED] src=10.10.2.2 dst=10.10.1.2 sport=53 dport=${1 + (n % 60000)} mark=${n}\n`
/** What stands in a file that is being written to, up to its last line's end. */
const whole = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.lastIndexOf(10) + 1)
const marksIn = (path: string): number[] => (existsSync(path) ? wholeLines(whole(readFileSync(path))).flatMap((line) => ((JSON.parse(line) as { mark?: number }).mark ?? []) as number) : [])

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

  describe('one that is refused changes nothing:', () => {
    const setUp = (name: string): { folder: string; config: (inputs: string, outputs: string) => void } => {
      const folder = scratch(name)
      mkdirSync(folder)
      return { folder, config: (inputs, outputs) => writeFileSync(`${folder}/c.yaml`, `inputs:\n${inputs}outputs:\n${outputs}`) }
    }

    /** What runs goes on under load; gives what it said. */
    const refused = async (folder: string, change: () => void, outputs: readonly string[] = ['all']): Promise<string[]> => {
      const program = new Program(['run', '-c', `${folder}/c.yaml`, '--state', `${folder}/state`], 'ignore', 'ignore')
      writeFileSync(`${folder}/a.log`, event(1))
      await until(() => outputs.every((name) => marksIn(`${folder}/${name}.ndjson`).length === 1))
      change()
      program.signal('SIGHUP')
      for (let n = 2; n <= 200; n++) {
        appendFileSync(`${folder}/a.log`, event(n))
        await sleep(2)
      }
      await until(() => outputs.every((name) => marksIn(`${folder}/${name}.ndjson`).length === 200))
      program.signal('SIGTERM')
      const { status, diagnostics, done } = await program.ended
      expect(status).toBe(0)
      for (const name of outputs) expect(marksIn(`${folder}/${name}.ndjson`)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1))
      expect(done!.flows).toBe(200)
      return diagnostics.map(({ msg }) => String(msg)).filter((message) => !message.includes(FIRST_START))
    }
    const logs = (folder: string, more = ''): string => `  logs: { type: file, path: ${folder}/*.log, from: start, poll: 20ms${more} }\n`
    const file = (folder: string, name: string, more = ''): string => `  ${name}: { type: file, path: ${folder}/${name}.ndjson${more} }\n`

    test('an output of the same name that cannot be opened, where the old one must end first', async () => {
      const { folder, config } = setUp('no-output')
      const all = file(folder, 'all', ', when_full: drop_oldest')
      config(logs(folder), all)
      const said = await refused(folder, () => config(logs(folder, ', rescan: 2s'), `${all.replace('all.ndjson', 'missing/all.ndjson')}${file(folder, 'second')}`))
      expect(said).toEqual([expect.stringMatching(/^reload: output all cannot be opened: .*missing.*; what ran before goes on$/)])
    })

    test('the second of two new outputs, and an old one that changes', async () => {
      const { folder, config } = setUp('no-second')
      config(logs(folder), file(folder, 'all'))
      const said = await refused(folder, () => config(logs(folder), `${file(folder, 'all', ', fsync: always')}${file(folder, 'good')}${file(`${folder}/missing`, 'bad')}`))
      expect(said).toEqual([expect.stringMatching(/^reload: output bad cannot be opened: .*; what ran before goes on$/)])
    })

    test.each([
      { what: 'a new one', inputs: (folder: string) => `${logs(folder, ', rescan: 2s')}  counters: { type: table, netns: /nowhere/ns }\n` },
      { what: 'one that is another now', inputs: () => `  logs: { type: table, netns: /nowhere/ns }\n` },
    ])('an input that cannot be opened: $what', async ({ what, inputs }) => {
      const { folder, config } = setUp(what.replaceAll(' ', '-'))
      config(logs(folder), file(folder, 'all'))
      const said = await refused(folder, () => config(inputs(folder), `${file(folder, 'all', ', fsync: always')}${file(folder, 'second')}`))
      expect(said).toEqual([expect.stringMatching(/^reload: input (counters|logs) cannot be opened: .*nowhere.*; what ran before goes on$/)])
    })

    test.each([
      { what: 'as the paths say', own: 'all.nd*', says: 'is read by inputs.own: the program would eat its own records' },
      { what: 'through a link', own: 'link', says: 'which is the file of output all: a run would read what it writes' },
      { what: 'a new one, through a link of its folder', own: 'there/second.ndjson', says: 'which is the file of output second: a run would read what it writes' },
    ])('an input that would read an output: $what', async ({ what, own, says }) => {
      const { folder, config } = setUp(`own-${what.replaceAll(/\W+/g, '-')}`)
      symlinkSync(`${folder}/all.ndjson`, `${folder}/link`)
      symlinkSync(folder, `${folder}/there`)
      config(logs(folder), file(folder, 'all'))
      const said = await refused(folder, () => config(`${logs(folder)}  own: { type: file, path: ${folder}/${own} }\n`, `${file(folder, 'all')}${file(folder, 'second')}`))
      expect(said).toEqual([expect.stringMatching(/^reload: .*; what ran before goes on$/)])
      expect(said[0]).toContain(says)
    })
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
