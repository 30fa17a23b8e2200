/**
 * SIGTERM ends the service by itself, whatever hangs: the longest is the ten seconds that an output is waited for, less than the unit's TimeoutStopSec=20s. A second
 * signal ends it at once. (Pipes are in process.test.ts, what is no file in follow-more.test.ts, the idle kernel log in the kernel tests.)
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, Pipe, scratch, sleep } from './process-harness.js'
import { comes, configured, Life, line, lines, Written } from './run-harness.js'
import { Receiver } from './webhook-harness.js'

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

function ends(life: Life): Promise<number> {
  life.signal('SIGTERM')
  return life.ended()
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
  // 1 where something had to be given up
  expect(await ends(life), life.stderr).toBe(0)
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
  // 1 where something had to be given up
  expect(await ends(life), life.stderr).toBe(0)
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
  expect(await twice.life.ended()).toBe(130)
  expect(once.life.isOver).toBe(false)
  expect(await ended).toBe(1)
  expect(once.life.messages.join()).toMatch(/output|standard output/)
  for (const { pipe } of [once, twice]) pipe.closeRead()
})
