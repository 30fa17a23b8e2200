/** The live inputs, asked as the loop asks them: kmsg on a device made of records, journal and command on programs written for the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hostClock } from '../src/clock.js'
import { CHUNK_BYTES_MAX, type Gap } from '../src/event.js'
import { backOffMs, Child, type ChildEnd, type ChildOptions } from '../src/inputs/child.js'
import { commandFeed, type CommandOptions } from '../src/inputs/command.js'
import { journalFeed, type JournalOptions } from '../src/inputs/journal.js'
import { type KmsgDevice, kmsgFeed, type KmsgOptions } from '../src/inputs/kmsg.js'
import { type Feed, type Input, type Notice, NOTICES_ONLY } from '../src/stage.js'
import { runInputs } from './harness.js'

const builtChild = fileURLToPath(new URL('../dist/inputs/child.js', import.meta.url))

let directory = ''
const opened: Input[] = []
const children: Child[] = []
const processes: ChildProcess[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'conntrail-live-'))
})

afterEach(() => {
  for (const input of opened.splice(0)) {
    input.abort()
    input.close()
  }
  for (const child of children.splice(0)) child.kill()
  for (const process of processes.splice(0)) process.kill('SIGKILL')
  rmSync(directory, { recursive: true })
})

async function open(feed: Feed): Promise<Input> {
  const inputs: Input[] = []
  await feed.open((input) => inputs.push(input))
  expect(inputs).toHaveLength(1)
  opened.push(inputs[0]!)
  return inputs[0]!
}

interface Seen {
  text: string
  /** texts of chunks and notices in their order */
  readonly order: (string | Notice)[]
  readonly gaps: Gap[]
  readonly diagnostics: string[]
}

function nothingSeen(): Seen {
  return { text: '', order: [], gaps: [], diagnostics: [] }
}

/** One answer of `next`. False at the end. */
async function step(input: Input, seen: Seen): Promise<boolean> {
  const n = await input.next()
  if (n === 0) return false
  expect(input.chunk.length).toBeLessThanOrEqual(CHUNK_BYTES_MAX)
  for (const notice of input.notices) {
    seen.order.push(notice)
    if (notice.gap !== undefined) seen.gaps.push(notice.gap)
    if (notice.diagnostic !== undefined) seen.diagnostics.push(notice.diagnostic)
  }
  if (n === NOTICES_ONLY) {
    expect(input.notices).not.toEqual([])
    return true
  }
  const text = Buffer.from(input.chunk.subarray(0, n)).toString('latin1')
  seen.text += text
  seen.order.push(text)
  return true
}

/** Asks until it holds. */
async function read(input: Input, until: (seen: Seen) => boolean): Promise<Seen> {
  const seen = nothingSeen()
  while (!until(seen)) expect(await step(input, seen), `the end came before that, behind ${seen.text}`).toBe(true)
  return seen
}

async function readAll(input: Input): Promise<Seen> {
  const seen = nothingSeen()
  while (await step(input, seen));
  return seen
}

function script(name: string, text: string): string {
  const path = join(directory, name)
  writeFileSync(path, `#!/bin/sh\n${text}\n`)
  chmodSync(path, 0o755)
  return path
}

function lines(file: string): string[] {
  const path = join(directory, file)
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : []
}

/** Processes of a group that still run. */
function groupMembers(group: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const [state, , pgrp] = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ')
        return Number(pgrp) === group && state !== 'Z'
      } catch {
        return false
      }
    })
    .map(Number)
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10)
}

const env = (): NodeJS.ProcessEnv => ({ ...process.env, PATH: `${directory}:${process.env['PATH']}`, DIR: directory })

describe('a child', () => {
  interface Told {
    out: string
    readonly said: string[]
    readonly ends: ChildEnd[]
    readonly pids: number[]
  }

  function start(argv: readonly string[], more: Partial<ChildOptions> = {}): { child: Child; told: Told } {
    const told: Told = { out: '', said: [], ends: [], pids: [] }
    const child = new Child({
      argv: () => argv,
      env: env(),
      comesFrom: 'the package x',
      onBytes: (bytes) => (told.out += Buffer.from(bytes).toString('latin1')),
      onStderr: (line) => told.said.push(line),
      onStart: (pid) => told.pids.push(pid),
      onEnd: (end) => told.ends.push(end) > 0 && false,
      random: () => 0,
      ...more,
    })
    children.push(child)
    child.start()
    return { child, told }
  }

  test('gets its arguments as they are, and gives all that it wrote before its end', async () => {
    const path = script('show', 'printf "%s|" "$@"; echo "first $0" >&2; printf "no LF" >&2; exit 7')
    const { told } = start(['show', 'a b', '$HOME', '"', '-x', ''])
    await until(() => told.ends.length > 0)
    expect(told.out).toBe('a b|$HOME|"|-x||')
    expect(told.said).toEqual([`first ${path}`, 'no LF'])
    expect(told.ends).toEqual([{ status: 7, signal: '', failure: '', lastWords: 'no LF', isStopped: false }])
  })

  test('is started again as long as that is wanted, with what is then the right command line', async () => {
    script('count', 'echo "$1"; kill -9 $$')
    let run = 0
    const ends: ChildEnd[] = []
    const { told, child } = start([], { argv: () => ['count', String(++run)], onEnd: (end) => ends.push(end) < 4 })
    await until(() => ends.length === 4)
    expect(told.out).toBe('1\n2\n3\n4\n')
    expect(new Set(told.pids).size).toBe(4)
    expect(ends.map(({ signal }) => signal)).toEqual(['SIGKILL', 'SIGKILL', 'SIGKILL', 'SIGKILL'])
    expect(child.pid).toBe(0)
  })

  test('that has gone from the disk is an end like others', async () => {
    const path = script('once', 'rm "$0"')
    const ends: ChildEnd[] = []
    start([path], { onEnd: (end) => ends.push(end) < 2 })
    await until(() => ends.length === 2)
    expect(ends[1]).toMatchObject({ status: -1, failure: expect.stringContaining(`the program ${path} is not there`) })
  })

  test('that is not there, or may not be run, says what mends it', () => {
    expect(() => start(['no-such-program'])).toThrow(expect.objectContaining({ kind: 'missing', message: expect.stringContaining('no-such-program is not there: it comes from the package x') }))
    const path = script('plain', '')
    chmodSync(path, 0o644)
    expect(() => start(['plain'])).toThrow(expect.objectContaining({ kind: 'denied', message: expect.stringContaining(`${path} may not be run`) }))
    expect(() => start([directory])).toThrow(expect.objectContaining({ kind: 'missing' }))
  })

  test('leaves nobody of its group behind when it ends', async () => {
    script('parent', 'sleep 1000 & exit 0')
    const { told } = start(['parent'])
    await until(() => told.ends.length > 0 && groupMembers(told.pids[0]!).length === 0)
    expect(told.ends[0]).toMatchObject({ status: 0 })
  })

  test('leaves nobody behind when this program is killed, be it stopped, deaf to SIGTERM or a parent itself', async () => {
    script('deaf', 'trap "" TERM INT HUP; sleep 1000 & echo $$; sleep 1000')
    const parent = join(directory, 'parent.mjs')
    writeFileSync(
      parent,
      `import { Child } from ${JSON.stringify(builtChild)}
       new Child({ argv: () => ['deaf'], env: process.env, comesFrom: '', onBytes: (bytes) => process.stdout.write(bytes), onStderr: () => {}, onEnd: () => false }).start()`,
    )
    const killed = spawn(process.execPath, [parent], { env: env(), stdio: ['ignore', 'pipe', 'inherit'] })
    processes.push(killed)
    const pid = await new Promise<number>((resolve) => killed.stdout.once('data', (bytes: Buffer) => resolve(Number(bytes))))
    // the program, its two children and the guard
    await until(() => groupMembers(pid).length === 4)
    process.kill(pid, 'SIGSTOP')
    killed.kill('SIGKILL')
    await until(() => groupMembers(pid).length === 0)
  })

  test('is told to end, then made to', async () => {
    script('deaf', 'trap "" TERM; echo ready; while :; do sleep 0.1; done')
    const { child, told } = start(['deaf'], { onEnd: (end) => told.ends.push(end) > 0 })
    await until(() => told.out === 'ready\n')
    const pid = child.pid
    await child.stop()
    expect(told.ends).toMatchObject([{ signal: 'SIGKILL', isStopped: true }])
    await until(() => groupMembers(pid).length === 0)
    expect(told.pids).toEqual([pid])
    await child.stop()
  })

  test('waits while it is paused, and loses nothing', async () => {
    script('much', 'yes 0123456 | head -n 200000; echo done > "$DIR/done"')
    let bytes = 0
    const { child, told } = start(['much'], { onBytes: (piece) => ((bytes += piece.length), expect(piece.length).toBeLessThanOrEqual(CHUNK_BYTES_MAX), child.pause()) })
    await until(() => bytes > 0)
    const first = bytes
    await sleep(300)
    expect(bytes).toBe(first)
    expect(lines('done')).toEqual([])
    while (told.ends.length === 0) {
      child.resume()
      await sleep(0)
    }
    expect(bytes).toBe(1_600_000)
  })

  test('has its stderr cut into lines that are never too long', async () => {
    script('talk', `printf 'short\\n' >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; printf '\\nlast' >&2`)
    const { told } = start(['talk'])
    await until(() => told.ends.length > 0)
    expect(told.said[0]).toBe('short')
    expect(told.said.at(-1)).toBe('last')
    expect(Math.max(...told.said.map((line) => line.length))).toBeLessThanOrEqual(8192)
    expect(told.said.slice(1, -1).join('')).toBe('x'.repeat(100_000))
  })

  test('is started later and later, and never after more than 30 s', () => {
    expect([0, 1, 2, 5, 6, 7, 1e6].map((restarts) => backOffMs(restarts, 1))).toEqual([500, 1000, 2000, 16_000, 30_000, 30_000, 30_000])
    expect(backOffMs(3, 0.25)).toBe(1000)
    expect(backOffMs(9, 0)).toBe(0)
  })
})

describe('command', () => {
  const command = (argv: string | readonly string[], more: Partial<CommandOptions> = {}): Promise<Input> =>
    open(commandFeed({ name: 'sums', argv: typeof argv === 'string' ? [argv] : argv, once: false, random: 'r1', env: env(), boot: () => null, ...more }))

  test('with once ends when the program does', async () => {
    script('say', 'printf "%s\\n" "$@"; printf "no LF"; echo careful >&2')
    const input = await command(['say', 'a', 'b  c', '', '$HOME *'], { once: true })
    const seen = await readAll(input)
    expect(seen.text).toBe('a\nb  c\n\n$HOME *\nno LF\n')
    expect(seen.diagnostics).toEqual(['say says: careful'])
    expect(seen.gaps).toEqual([])
    expect(input).toMatchObject({ name: 'sums', isLive: false, ridBy: 'counter', ridPrefix: 'r1', netns: 0, offset: 0 })
    expect(await input.next()).toBe(0)
  })

  test('with once fails when the program does', async () => {
    script('say', 'echo a; echo "no such table" >&2; exit 3')
    const input = await command('say', { once: true })
    const seen = await read(input, ({ text, diagnostics }) => text === 'a\n' && diagnostics.length === 1)
    await expect(step(input, seen)).rejects.toMatchObject({ kind: 'broken', message: 'say exited with status 3: no such table' })
  })

  test('is started again, and says that something may be missing between', async () => {
    script('say', 'echo "run $$"; echo trouble >&2; printf torn')
    const seen = await read(await command('say'), ({ gaps, text }) => gaps.length === 2 && text.split('run').length === 4)
    expect(seen.text.replace(/\d+/g, 'N').split('\n').slice(0, 5)).toEqual(['run N', 'torn', 'run N', 'torn', 'run N'])
    for (const gap of seen.gaps) {
      expect(gap).toMatchObject({ cause: 'input_restart', count: -1, atLeast: 1 })
      expect(gap.from!.sec + gap.from!.usec / 1e6).toBeLessThanOrEqual(gap.to!.sec + gap.to!.usec / 1e6)
    }
    // the gap stands between the runs, and the same trouble was told once
    const kinds = seen.order.map((item) => (typeof item === 'string' ? item.replace(/\d+/g, 'N') : Object.keys(item)[0])).join(' ')
    expect(kinds.indexOf('gap')).toBeLessThan(kinds.indexOf('run N', 5))
    expect(seen.diagnostics.filter((text) => text.includes('trouble'))).toEqual(['say says: trouble'])
    expect(seen.diagnostics).toContain('say exited with status 0; it is started again within 30 s')
  })

  test('that is idle ends within a second when asked, and gives what the program says last', async () => {
    script('wait', 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.01; done')
    const input = await command('wait')
    await read(input, ({ text }) => text === 'ready\n')
    const rest = readAll(input)
    input.stop()
    expect((await rest).order).toEqual(['bye\n'])
  })

  test('whose program is deaf ends after a second, and the program with it', async () => {
    script('deaf', 'trap "" TERM; echo $$; while :; do sleep 0.1; done')
    const input = await command('deaf')
    const pid = Number((await read(input, ({ text }) => text.endsWith('\n'))).text)
    input.stop()
    expect((await readAll(input)).order).toEqual([])
    await until(() => groupMembers(pid).length === 0)
  })

  test('is aborted at once, also while it waits for the next start', async () => {
    script('say', 'exit 1')
    const input = await command('say')
    await read(input, ({ diagnostics }) => diagnostics.length > 0)
    input.abort()
    expect(await input.next()).toBe(0)
  })

  test('holds the program up while nobody asks', async () => {
    script('much', 'yes 0123456 | head -n 500000; echo done > "$DIR/done"')
    const input = await command('much', { once: true })
    await sleep(500)
    expect(lines('done')).toEqual([])
    let bytes = 0
    for (let n = await input.next(); n !== 0; n = await input.next()) bytes += n
    expect(bytes).toBe(4_000_000)
  })

  test('that is not there cannot be opened', async () => {
    await expect(command(['no-such-program', '-x'])).rejects.toMatchObject({ kind: 'missing' })
    await expect(command('')).rejects.toMatchObject({ kind: 'missing', message: expect.stringContaining('names no program') })
  })
})

describe('journal', () => {
  const cursor = (n: number): string => `s=292925b5a9824c7292fd90cfc91a49b7;i=${n.toString(16)};b=0f5b6a2e6f0a4f0e9a3a4c3f0d1e2f30;m=1f97f274;t=60a24186a8b40;x=${n}`
  // key order as of systemd 252
  const entry = (n: number): string =>
    `{"SYSLOG_IDENTIFIER":"kernel","__REALTIME_TIMESTAMP":"${1_700_000_000_000_000 + n}","__CURSOR":"${cursor(n)}","SYSLOG_FACILITY":"0","PRIORITY":"4","MESSAGE":"not \\"__CURSOR\\":\\"s=0\\" ${n}","_TRANSPORT":"kernel"}\n`
  const entries = (from: number, to: number): string => Array.from({ length: to - from + 1 }, (_, i) => entry(from + i)).join('')

  /** A journalctl that keeps to `entries.json` as the real one does, and then does `then` (the run's number is in $run). */
  function fakeJournalctl(then: string, newest = 0): void {
    script(
      'journalctl',
      `case "$*" in *--show-cursor*) ${newest === 0 ? 'echo "-- No entries --"' : `echo "line"; echo "-- cursor: ${cursor(newest)}"`}; exit 0;; esac
echo "$*" >> "$DIR/args"
run=$(wc -l < "$DIR/args")
from=$(echo "$*" | sed -n 's/.*--cursor=\\([^ ]*\\).*/\\1/p')
if grep -q "$from" "$DIR/entries.json"; then sed -n "\\|__CURSOR\\":\\"$from|,\\$p" "$DIR/entries.json"; else cat "$DIR/entries.json"; fi
${then}`,
    )
  }

  const journal = (more: Partial<JournalOptions> = {}): Promise<Input> => open(journalFeed({ name: 'journal', from: 'last', once: false, saved: null, env: env(), ...more }))
  const give = (text: string): void => writeFileSync(join(directory, 'entries.json'), text)

  test('is read whole and ends with once', async () => {
    fakeJournalctl('')
    give(entries(1, 2000))
    const input = await journal({ once: true })
    expect((await readAll(input)).text).toBe(entries(1, 2000))
    expect(input).toMatchObject({ isLive: false, ridBy: 'position' })
    expect(lines('args')).toEqual(['--no-pager --all -o json _TRANSPORT=kernel + _TRANSPORT=driver SYSLOG_IDENTIFIER=systemd-journald'])
  })

  test('survives the death of journalctl in the middle of a line: nothing twice, nothing lost, no gap', async () => {
    // journald goes on writing while journalctl is down
    fakeJournalctl(`[ $run = 1 ] && { printf '{"SYSLOG_IDENTIFIER":"ker'; echo 'Failed to iterate through journal: Bad message' >&2; }
[ $run = 3 ] && sleep 1000
cat "$DIR/written-after-$run" >> "$DIR/entries.json"; kill -9 $$`)
    give(entries(1, 3))
    writeFileSync(join(directory, 'written-after-1'), entries(4, 5))
    writeFileSync(join(directory, 'written-after-2'), entries(6, 8))
    const seen = await read(await journal({ from: 'start' }), ({ text }) => text.endsWith(entry(8)))
    expect(seen.text).toBe(entries(1, 8))
    expect(seen.gaps).toEqual([])
    expect(seen.diagnostics).toEqual([
      'journalctl says: Failed to iterate through journal: Bad message',
      'journalctl was ended by SIGKILL: Failed to iterate through journal: Bad message; it is started again within 30 s and goes on where it was',
      'journalctl was ended by SIGKILL; it is started again within 30 s and goes on where it was',
    ])
    expect(lines('args').map((args) => /--cursor=(\S+)/.exec(args)?.[1])).toEqual([undefined, cursor(3), cursor(5)])
    expect(lines('args').every((args) => args.includes('-f --no-tail'))).toBe(true)
  })

  test('begins now: behind the newest entry that was there', async () => {
    fakeJournalctl('sleep 1000', 2)
    give(entries(1, 4))
    const input = await journal()
    expect(input.position(0)).toEqual({ cursor: cursor(2) })
    expect((await read(input, ({ text }) => text.endsWith(entry(4)))).order).toEqual([entries(3, 4)])
  })

  test('goes on behind what was worked through, and not only read', async () => {
    fakeJournalctl('sleep 1000', 9)
    give(entries(1, 3))
    const input = await journal({ from: 'start' })
    await read(input, ({ text }) => text === entries(1, 3))
    expect(input.position(0)).toEqual({ cursor: '' })
    const position = input.position(entries(1, 3).length)
    expect(position).toEqual({ cursor: cursor(3) })
    input.abort()
    give(entries(1, 5))
    const again = await journal({ saved: JSON.parse(JSON.stringify(position)) })
    const seen = await read(again, ({ text }) => text.endsWith(entry(5)))
    expect(seen.text).toBe(entries(4, 5))
    expect(seen.gaps).toEqual([])
  })

  test('says that entries may be missing when the last one is gone', async () => {
    fakeJournalctl('sleep 1000', 9)
    give(entries(7, 9))
    const seen = await read(await journal({ saved: { cursor: cursor(3) } }), ({ text }) => text.endsWith(entry(9)))
    expect(seen.order).toMatchObject([{ gap: { cause: 'restart', count: -1, atLeast: 1 } }, entries(7, 9)])
  })

  test('goes on with what comes now when the cursor is none', async () => {
    fakeJournalctl(`[ $run = 1 ] && { echo 'Failed to seek to cursor: Invalid argument' >&2; exit 1; }
sleep 1000`)
    give('')
    const input = await journal({ saved: { cursor: 'hello' } })
    const seen = await read(input, ({ gaps, diagnostics }) => gaps.length === 1 && diagnostics.length === 2)
    expect(seen.gaps).toMatchObject([{ cause: 'restart', atLeast: 1 }])
    await until(() => lines('args').length === 2)
    expect(lines('args')[1]).toContain('-f -n 0 _TRANSPORT')
  })

  test('gives a line of several chunks whole', async () => {
    fakeJournalctl('sleep 1000')
    const long = entry(1).replace('"MESSAGE":"', `"MESSAGE":"${'x'.repeat(3 * CHUNK_BYTES_MAX)}`)
    give(long + entry(2))
    const seen = await read(await journal({ from: 'start' }), ({ text }) => text.endsWith(entry(2)))
    expect(seen.text).toBe(long + entry(2))
  })

  test.each([
    ['denied', 'systemd-journal', "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1"],
    ['denied', 'systemd-journal', "echo 'Hint: You are currently not seeing messages from other users and the system.' >&2; exit 0"],
    ['missing', 'there is no journal here', "echo 'No journal files were found.' >&2; echo '-- No entries --'"],
    ['broken', 'journalctl exited with status 1: Failed to open: Bad message', "echo 'Failed to open: Bad message' >&2; exit 1"],
  ])('that cannot be read is %s and says %s', async (kind, says, text) => {
    script('journalctl', text)
    await expect(journal()).rejects.toMatchObject({ kind, message: expect.stringContaining(says) })
  })

  test('stops while it is being opened', async () => {
    script('journalctl', 'echo $$ > "$DIR/pid"; sleep 1000')
    const feed = journalFeed({ name: 'journal', from: 'now', once: false, saved: null, env: env() })
    const opening = feed.open(() => expect.unreachable())
    await until(() => lines('pid').length > 0)
    feed.stop()
    await opening
    await until(() => groupMembers(Number(lines('pid')[0])).length === 0)
  })

  test('that is idle ends within a second when asked', async () => {
    fakeJournalctl('exec sleep 1000')
    give(entry(1))
    const input = await journal({ from: 'start' })
    await read(input, ({ text }) => text === entry(1))
    const rest = readAll(input)
    input.stop()
    expect((await rest).order).toEqual([])
  })
})

describe('kmsg', () => {
  const BOOT = 'ba81fb44-541c-4c8b-af1c-9cb59dd82879'
  const record = (seq: number, text = 'message', monotonic = seq * 1000): string => `4,${seq},${monotonic},-;${text} ${seq}\n`

  /** A ring: what is in `queue` is read one by one, strings as records and others as error codes. */
  class Ring implements KmsgDevice {
    readonly queue: string[] = []
    boot = BOOT
    closed = 0

    open(): void {}

    read(into: Uint8Array, at: number, length: number): number {
      const next = this.queue.shift() ?? 'EAGAIN'
      if (/^E[A-Z]+$/.test(next)) throw Object.assign(new Error(`${next}: said the device`), { code: next })
      expect(next.length).toBeLessThanOrEqual(length)
      return Buffer.from(into.buffer, into.byteOffset).write(next, at, 'latin1')
    }

    close(): void {
      this.closed++
    }

    bootId(): string {
      return this.boot
    }
  }

  const monotonic = (): number => Number(process.hrtime.bigint() / 1000n)
  const kmsg = (device: Ring, more: Partial<KmsgOptions> = {}): Promise<Input> =>
    open(kmsgFeed({ name: 'kmsg', from: 'start', once: false, saved: null, monotonicMicroseconds: monotonic, device, ...more }))
  const records = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, i) => record(from + i))

  test('gives records as they are, continuation lines with them, and ends with once', async () => {
    const ring = new Ring()
    const whole = ['6,188,370855,-;acpi PNP0A08:00: _OSC\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A08:00\n', '4,189,370900,-,caller=T0;4,5,6\\x0a\n', '4,190,370901;kernel 3.5\n', '12,191,370902,c;fragment\n']
    ring.queue.push(...whole)
    const input = await kmsg(ring, { once: true, from: 'last' })
    const seen = await readAll(input)
    expect(seen.order).toEqual([whole.join('')])
    expect(input.position(seen.text.length)).toEqual({ boot_id: BOOT, seq: 191, monotonic: 370902 })
    expect(input).toMatchObject({ isLive: false, ridBy: 'position', ridPrefix: 'ba81fb44541c' })
  })

  test('says how old its last record was when it was read', async () => {
    const AGO = 5
    const ring = new Ring()
    ring.queue.push(record(1, 'nf_conntrack: nf_conntrack: table full, dropping packet', monotonic() - AGO * 1e6).replace(/ 1\n$/, '\n'))
    const { tally, lags } = await runInputs([], { host: { clock: hostClock, inputs: [await kmsg(ring, { once: true })] } })
    expect(tally.kernel).toBe(1)
    expect(lags).toHaveLength(1)
    expect(lags[0]).toBeGreaterThanOrEqual(AGO - 1)
  })

  test('puts an exact gap before the record behind a hole', async () => {
    const ring = new Ring()
    ring.queue.push(...records(10, 12), 'EPIPE', ...records(94, 95), record(100), record(101))
    const input = await kmsg(ring, { once: true })
    const seen = await readAll(input)
    expect(seen.order).toMatchObject([records(10, 12).join(''), { gap: {} }, records(94, 95).join(''), { gap: {} }, record(100) + record(101)])
    expect(seen.gaps).toMatchObject([
      { cause: 'kmsg_overrun', count: 81, atLeast: -1, timeSource: 3 },
      { cause: 'kmsg_overrun', count: 4, atLeast: -1, timeSource: 3 },
    ])
    const micros = (time: { sec: number; usec: number } | null): number => time!.sec * 1e6 + time!.usec
    const [first] = seen.gaps
    expect(micros(first!.to) - micros(first!.from)).toBe(82_000)
    expect(micros(first!)).toBe(micros(first!.to))
  })

  test('goes on when a record did not fit, which its number shows', async () => {
    const ring = new Ring()
    ring.queue.push(record(1), 'EINVAL', record(3))
    const seen = await readAll(await kmsg(ring, { once: true }))
    expect(seen.gaps).toMatchObject([{ count: 1 }])
    expect(seen.text).toBe(record(1) + record(3))
  })

  test('is not held up by a device that only fails', async () => {
    const ring = new Ring()
    ring.queue.push(record(1), ...Array.from({ length: 2500 }, () => 'EPIPE'), record(2))
    expect((await read(await kmsg(ring), ({ text }) => text === record(1) + record(2))).gaps).toEqual([])
  })

  test('fails with the device', async () => {
    const ring = new Ring()
    ring.queue.push('EIO')
    await expect((await kmsg(ring)).next()).rejects.toMatchObject({ kind: 'broken', message: expect.stringContaining('/dev/kmsg') })
  })

  test('cuts many records into chunks at their ends, and knows at each offset where to go on', async () => {
    const ring = new Ring()
    const all = Array.from({ length: 5000 }, (_, i) => record(i + 1, 'x'.repeat((i * 7919) % 900)))
    ring.queue.push(...all)
    const input = await kmsg(ring)
    let offset = 0
    let done = 0
    while (done < all.length) {
      const before = offset
      const n = await input.next()
      expect(n).toBeGreaterThan(0)
      const text = Buffer.from(input.chunk).toString('latin1')
      expect(text.endsWith('\n')).toBe(true)
      while (offset < before + n) {
        expect(text.slice(offset - before, offset - before + all[done]!.length)).toBe(all[done])
        expect(input.position(offset)).toMatchObject({ seq: done === 0 ? -1 : done })
        offset += all[done++]!.length
      }
      // in the middle of a record it is still the one before
      expect(input.position(offset - 1)).toMatchObject({ seq: done - 1 })
      expect(input.isBusy).toBe(done < all.length)
    }
  })

  test('begins now, behind what was there, and finds a hole that opens right then', async () => {
    const ring = new Ring()
    ring.queue.push(...records(1, 50))
    const input = await kmsg(ring, { from: 'now' })
    expect(input.position(0)).toEqual({ boot_id: BOOT, seq: 50, monotonic: 50_000 })
    ring.queue.push('EPIPE', record(53), 'EAGAIN', record(54))
    const seen = await read(input, ({ text }) => text.includes('54'))
    expect(seen.order).toMatchObject([{ gap: { count: 2 } }, record(53), record(54)])
  })

  test('goes on behind a saved position of this boot', async () => {
    const ring = new Ring()
    ring.queue.push(...records(40, 60))
    const seen = await readAll(await kmsg(ring, { from: 'last', once: true, saved: { boot_id: BOOT, seq: 50, monotonic: 50_000 } }))
    expect(seen.order).toEqual([records(51, 60).join('')])
  })

  test('counts what was overwritten since', async () => {
    const ring = new Ring()
    ring.queue.push(...records(60, 61))
    const seen = await readAll(await kmsg(ring, { from: 'last', once: true, saved: { boot_id: BOOT, seq: 50, monotonic: 50_000 } }))
    expect(seen.order).toMatchObject([{ gap: { cause: 'kmsg_overrun', count: 9 } }, records(60, 61).join('')])
  })

  test('reads all of a boot that is not the saved one, whose last words are lost', async () => {
    const ring = new Ring()
    ring.queue.push(...records(0, 3))
    const seen = await readAll(await kmsg(ring, { from: 'last', once: true, saved: { boot_id: 'another', seq: 2, monotonic: 50_000 } }))
    expect(seen.order).toMatchObject([{ gap: { cause: 'restart', count: -1, atLeast: 1 } }, records(0, 3).join('')])
  })

  test.each([[null], [{}], ['x'], [{ boot_id: BOOT, seq: '7' }]])('takes %j for no position', async (saved) => {
    const ring = new Ring()
    ring.queue.push(...records(1, 3))
    expect((await readAll(await kmsg(ring, { from: 'last', once: true, saved }))).text).toBe(records(1, 3).join(''))
  })

  test('that is idle ends at once when asked, and is read once more', async () => {
    const ring = new Ring()
    const input = await kmsg(ring)
    const all = readAll(input)
    await sleep(50)
    ring.queue.push(record(7))
    input.stop()
    expect((await all).text).toBe(record(7))
    input.close()
    expect(ring.closed).toBe(1)
  })

  test('tells the loop when a flood is over', async () => {
    const ring = new Ring()
    const all = Array.from({ length: 1024 }, (_, i) => `${record(i + 1).slice(0, -1).padEnd(63)}\n`)
    ring.queue.push(...all)
    const input = await kmsg(ring)
    let idle = 0
    input.onIdle = () => idle++
    // just what one chunk holds, so that only the next look tells
    expect(await input.next()).toBe(64 * all.length)
    expect(input.isBusy).toBe(true)
    const last = input.next()
    await until(() => idle > 0)
    expect(input.isBusy).toBe(false)
    input.abort()
    expect(await last).toBe(0)
    expect(idle).toBe(1)
  })

  test("follows printk's clock where it has gone another way than the system's", async () => {
    const ring = new Ring()
    const input = await kmsg(ring, { from: 'now' })
    // the same to the microsecond: what is measured is not touched
    const wall = (): number => (performance.timeOrigin + performance.now()) * 1000
    const boot = (): number => input.boot()!.microseconds
    expect(Math.abs(boot() - (wall() - monotonic()))).toBeLessThan(2000)
    for (const drift of [0, 40_000_000, -40_000_000]) {
      const seen = nothingSeen()
      const before = wall()
      ring.queue.push(record(1 + Math.abs(drift) + Number(drift < 0), 'x', monotonic() + drift))
      const after = wall()
      await step(input, seen)
      const at = Number(seen.text.split(',')[2]) + boot()
      // between the look that found nothing and the one that found it; the wall clock may be set meanwhile
      expect(at).toBeGreaterThan(before - 300_000)
      expect(at).toBeLessThan(after + 300_000)
    }
  })
})
