/** A run never reads what it writes: by flags and by configuration, links, a redirected standard output, and files that appear later. */
import { appendFileSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { cleanUp, scratch, shell } from './process-harness.js'
import { comes, configured, Life } from './run-harness.js'

const LINE = '[1795342488.859837]\t    [NEW] udp      17 30 src=10.0.0.1 dst=10.1.2.2 sport=5 dport=53 [UNREPLIED] src=10.1.2.2 dst=10.0.0.1 sport=53 dport=5 mark=1\n'

beforeEach(() => {
  mkdirSync(scratch('in'))
  writeFileSync(scratch('in/a.ndjson'), LINE)
})
afterEach(cleanUp)

describe('refused at the start, with both names', () => {
  test.each([
    ['a path', 'run --once -i "$3/in/a.ndjson" -o "file:$3/in/a.ndjson"'],
    ['a glob', 'run --once -i "$3/in/*.ndjson" -o "file:$3/in/out.ndjson"'],
    ['what a glob takes of rotated files', 'run --once -i "$3/in/out.ndjson*" -o "file:$3/in/out.ndjson"'],
    ['a symbolic link', 'run --once -i "$3/in/link" -o "file:$3/in/a.ndjson"'],
    ['a hard link', 'run --once -i "$3/in/hard" -o "file:$3/in/a.ndjson"'],
    ['a linked folder', 'run --once -i "$3/linked/*.ndjson" -o "file:$3/in/a.ndjson"'],
    ['standard output within the glob', 'run --once -i "$3/in/*.ndjson" > "$3/in/out.ndjson"'],
    ['standard input that is standard output', '< "$3/in/a.ndjson" >> "$3/in/a.ndjson"'],
    ['standard input that is an output', 'run --once -i - -o "file:$3/in/a.ndjson" < "$3/in/a.ndjson"'],
  ])('%s', async (_, args) => {
    symlinkSync(scratch('in/a.ndjson'), scratch('in/link'))
    linkSync(scratch('in/a.ndjson'), scratch('in/hard'))
    symlinkSync(scratch('in'), scratch('linked'))
    const { status, stderr } = await shell(`"$1" "$2" ${args}`, scratch(''))
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(/in\/(?:a|out)\.ndjson|standard output/) as string })
    expect(stderr).toMatch(/would read what it writes|would eat its own records/)
    // nothing was written
    expect(readFileSync(scratch('in/a.ndjson'), 'utf8')).toBe(LINE)
  })
})

test('what appears later is not read, and said once: links to the output, what it has put aside, the state directory', async () => {
  const config = configured('own.json', {
    state: scratch('in/state'),
    inputs: { in: { type: 'file', path: [scratch('in/*.ndjson'), scratch('in/state/**/*')], from: 'start', poll: '10ms', rescan: '100ms' } },
    outputs: { all: { type: 'file', path: scratch('real/out.log') } },
  })
  mkdirSync(scratch('real'))
  writeFileSync(scratch('real/out.log'), '')
  const life = new Life(['run', '-c', config])
  const written = (): number => readFileSync(scratch('real/out.log'), 'utf8').split('\n').length - 1
  await comes('the first record', () => written() === 1, life)
  linkSync(scratch('real/out.log'), scratch('in/hard.ndjson'))
  symlinkSync(scratch('real/out.log'), scratch('in/soft.ndjson'))
  writeFileSync(scratch('real/out.log.20261122T095832'), LINE)
  symlinkSync(scratch('real/out.log.20261122T095832'), scratch('in/aside.ndjson'))
  const unread = { hard: 'output all', soft: 'output all', aside: 'what output all has put aside' }
  await comes('that they are not read', () => Object.entries(unread).every(([name, what]) => life.stderr.includes(`in/${name}.ndjson is not read: it is ${what}`)), life)
  await comes('that the state is not read', () => /in\/state\/\S+ is not read: it is the state directory/.test(life.stderr), life)
  writeFileSync(scratch('in/b.ndjson'), LINE.replace('mark=1', 'mark=2'))
  await comes('the second record', () => written() === 2, life)
  appendFileSync(scratch('in/a.ndjson'), LINE.replace('mark=1', 'mark=3'))
  await comes('the third record', () => written() === 3, life)
  await life.stop()
  expect(life.done).toMatchObject({ lines: 3, flows: 3, ignored: 0, rejected: 0 })
  expect(life.stderr.split('hard.ndjson is not read').length).toBe(2)
})
