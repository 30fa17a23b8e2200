/**
 * SIGTERM ends the service in time, whatever hangs: the longest is the ten seconds that an output is waited for, less than the unit's TimeoutStopSec=20s. A second
 * signal ends it at once. (Pipes are in process.test.ts, what is no file in follow-more.test.ts, the idle kernel log in the kernel tests.)
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, Pipe, scratch, sleep, timed } from './process-harness.js'
import { comes, configured, Life, line, lines, Written } from './run-harness.js'
import { Receiver } from './webhook-harness.js'

/** An output that takes nothing is waited for so long, and a service manager waits for twice that. */
const GRACE_MS = 10_000
const TIMEOUT_STOP_MS = 20_000
/** Of a busy machine. */
const SOON_MS = 5000

afterEach(cleanUp)

/** Children of a process and theirs. */
function offspring(pid: number): number[] {
  const all = execFileSync('ps', ['-eo', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n').map((row) => row.trim().split(/\s+/).map(Number))
  const of = (parent: number): number[] => all.filter(([, ppid]) => ppid === parent).flatMap(([id]) => [id!, ...of(id!)])
  return of(pid)
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

async function ends(life: Life): Promise<{ ms: number; value: number }> {
  life.signal('SIGTERM')
  return timed(life.ended())
}

test('children that say nothing, one that does not listen, a folder without files and one with what is none', async () => {
  mkdirSync(scratch('logs'))
  execFileSync('mkfifo', [scratch('logs/pipe.log')])
  const inputs = {
    quiet: { type: 'command', program: ['sleep', '1000'] },
    deaf: { type: 'command', program: ['sh', '-c', "trap '' TERM; echo; while :; do sleep 1; done"] },
    none: { type: 'file', path: scratch('nowhere/*.log') },
    some: { type: 'file', path: scratch('logs/*.log') },
  }
  const life = new Life(['run', '-c', configured('idle.json', { inputs, outputs: { all: { type: 'file', path: scratch('out') } }, state: scratch('state') })])
  await comes('the children', () => offspring(life.pid).length >= 3, life)
  await comes('the named pipe', () => life.messages.some((message) => message.includes('is a named pipe')), life)
  const children = offspring(life.pid)
  const { ms, value } = await ends(life)
  expect(value, life.stderr).toBe(0)
  expect(ms).toBeLessThan(GRACE_MS)
  await comes('nothing is left', () => !children.some(isAlive))
})

test.each(['in memory', 'on disk'])('a receiver that hangs, with the spool %s: what it did not take is kept or counted', async (where) => {
  const receiver = await Receiver.start()
  receiver.usual = () => {}
  const out = new Written(scratch('out'))
  const log = scratch('a.log')
  writeFileSync(log, '')
  const life = new Life([
    ...['run', '-c'],
    configured('hangs.json', {
      inputs: { logs: { type: 'file', path: log, from: 'start' } },
      outputs: { all: { type: 'file', path: out.path }, hook: { type: 'webhook', url: receiver.url(), when: { type: 'flow' }, batch: { every: '0s' } } },
      ...(where === 'on disk' ? { state: scratch('state') } : {}),
    }),
  ])
  appendFileSync(log, line(1))
  await comes('a request', () => receiver.got.length === 1, life)
  appendFileSync(log, line(2))
  await comes('both in the file', () => out.marks.length === 2, life)
  const { ms, value } = await ends(life)
  expect(value, life.stderr).toBe(0)
  expect(ms).toBeLessThan(GRACE_MS)
  await receiver.stop()
  const lost = out.look().filter(({ cause }) => cause === 'output_dropped')
  expect(lost.reduce((sum, { count }) => sum + (count as number), 0)).toBe(where === 'on disk' ? 0 : 2)
})

test('standard output that nobody reads: given up after ten seconds, or at once when asked twice', { timeout: 90_000 }, async () => {
  const log = scratch('a.log')
  writeFileSync(log, lines(1, 20_000))
  const begin = async (): Promise<{ life: Life; pipe: Pipe }> => {
    const pipe = await Pipe.open()
    const life = new Life(['run', '-c', configured('full.json', { inputs: { logs: { type: 'file', path: log, from: 'start' } } })], { stdout: pipe.writeEnd })
    pipe.closeWrite()
    await pipe.begins()
    // it reads on until the pipe and its pages are full
    await sleep(500)
    return { life, pipe }
  }
  const [once, twice] = [await begin(), await begin()]
  const ended = ends(once.life)
  twice.life.signal('SIGTERM')
  await sleep(300)
  twice.life.signal('SIGINT')
  const { ms: soon, value: signalled } = await timed(twice.life.ended())
  expect(soon).toBeLessThan(SOON_MS)
  expect(signalled).toBe(130)
  const { ms, value } = await ended
  expect(value).toBe(1)
  expect(ms).toBeGreaterThan(GRACE_MS - 500)
  expect(ms).toBeLessThan(TIMEOUT_STOP_MS)
  expect(once.life.messages.join()).toMatch(/output|standard output/)
  for (const { pipe } of [once, twice]) pipe.closeRead()
})
