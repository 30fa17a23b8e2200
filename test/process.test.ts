/** The built program as a process: pipes, files, signals, exit statuses, memory. Set CONNTRAIL_LONG_TESTS=1 for the large counts. */
import { once } from 'node:events'
import { appendFileSync, closeSync, existsSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { cleanUp, feed, fixture, output, Pipe, Program, type Record_, type Result, resultOf, run, scratch, shell, sleep, start, until, wholeLines } from './process-harness.js'

const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
vi.setConfig({ testTimeout: isLong ? 180_000 : 120_000 })
afterEach(cleanUp)

const incident = fixture('incident.E-timestamp-id')
const UPDATE =
  '[1795359928.519257]\t [UPDATE] tcp      6 432000 ESTABLISHED src=10.10.1.2 dst=10.10.2.2 sport=9001 dport=80 src=10.10.2.2 dst=10.10.1.2 sport=80 dport=9001 [ASSURED] id=3354125443'
const REFUSED =
  'conntrack v1.4.7 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this'

/** A whole life: `flow` is its second, its source port less 1024, and its id less 1. */
function life(flow: number, dport = 443, source = '10.10.1.2'): string[] {
  const tuple = `src=${source} dst=10.10.2.2 sport=${1024 + flow} dport=${dport}`
  const back = `src=10.10.2.2 dst=${source} sport=${dport} dport=${1024 + flow}`
  const at = 1795341600 + flow
  return [
    `[${at}.000001]\t    [NEW] tcp      6 120 SYN_SENT ${tuple} [UNREPLIED] ${back} id=${flow + 1}`,
    `[${at}.000101]\t [UPDATE] tcp      6 60 SYN_RECV ${tuple} ${back} id=${flow + 1}`,
    `[${at}.000201]\t [UPDATE] tcp      6 432000 ESTABLISHED ${tuple} ${back} [ASSURED] id=${flow + 1}`,
    `[${at}.500001]\t [UPDATE] tcp      6 120 TIME_WAIT ${tuple} ${back} [ASSURED] id=${flow + 1}`,
    `[${at}.900001]\t[DESTROY] tcp      6 TIME_WAIT ${tuple} ${back} [ASSURED] id=${flow + 1}`,
  ]
}

/** Updates of as many flows; their ids count from `from`. */
function updates(count: number, from = 0): string {
  const [before, between, behind] = UPDATE.slice(0, UPDATE.lastIndexOf('=') + 1).split('10.10.1.2')
  return Array.from({ length: count }, (_, i) => {
    const id = from + i
    const source = `10.${id >> 16}.${(id >> 8) & 255}.${id & 255}`
    return `${before}${source}${between}${source}${behind}${id}\n`
  }).join('')
}

function ids(bytes: Uint8Array): number[] {
  return wholeLines(bytes).map((line) => Number(/"id":(\d+)/.exec(line)![1]))
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

function text(...lines: string[]): string {
  return lines.map((line) => `${line}\n`).join('')
}

describe('the sums', () => {
  const mixed = Buffer.concat([
    fixture('enobufs-after.E-timestamp-id-stderr'),
    fixture('ftp.E-timestamp-id-and-E-expect-timestamp-one-pipe'),
    fixture('rich.E-xml'),
    fixture('ftp.E-expect-xml'),
    fixture('nat.E-save'),
    fixture('protocols.proc'),
    fixture('stderr.L-few'),
    fixture('zones.L-extended-id'),
    Buffer.from(text('', 'free text', '{"other":"program"}', '{"cut":', 'udp      17 30 src=10.0.0.1 dst=', '[DESTROY] tcp', '<flow type="new"><meta')),
  ])

  test.each(['file', 'pipe', 'socket'] as const)('close over a mixed input from a %s, and the outputs are what was written', async (through) => {
    const { status, done, lines, records } = await run([], mixed, through)
    expect(status).toBe(0)
    expect(done!.bytes).toBe(mixed.length)
    expect(done!.lines).toBe(mixed.toString('latin1').split('\n').length - 1)
    expect(done!.outputs).toEqual({ '-': lines.length })
    for (const kind of ['flows', 'expects', 'notes', 'ignored', 'rejected'] as const) expect(done![kind], kind).toBeGreaterThan(0)
    expect(records.filter((r) => r['type'] === 'flow')).toHaveLength(done!.flows)
    expect(records.filter((r) => r['type'] === 'expect')).toHaveLength(done!.expects)
    expect(records.filter((r) => r['type'] === 'gap')).toHaveLength(done!.gaps)
    expect(records.some((r) => r['type'] === 'reject')).toBe(false)
  })

  test('say which output has how much, and count each of them in written', async () => {
    const file = `file:${scratch('out')}`
    const { done } = await run(['run', '-i', '-', '-o', '-', '-o', file], incident)
    expect(done!.outputs).toEqual({ '-': 626, [file]: 626 })
    expect(done!.written).toBe(1252)
  })

  test('count what was found, whatever --emit leaves out', async () => {
    const { done, lines } = await run(['--emit', 'reject'], mixed)
    expect(lines).toHaveLength(done!.rejected)
    expect(done!.gaps).toBeGreaterThan(0)
    expect(done!.flows).toBeGreaterThan(1000)
  })

  test('are said whatever the log level', async () => {
    const { done, diagnostics } = await run(['--log-level', 'silent'], text(REFUSED))
    expect(done!.lines).toBe(1)
    expect(diagnostics).toEqual([])
  })

  test('are all zero for an empty input', async () => {
    const { status, done, stdout } = await run([], '')
    expect(status).toBe(0)
    expect(done).toMatchObject({ lines: 0, bytes: 0, flows: 0, written: 0, outputs: { '-': 0 } })
    expect(stdout).toHaveLength(0)
  })

  test('count what an output took before another one failed', async () => {
    const { status, done, lines } = await shell('printf "%s\\n" "$LINE" | "$@"'.replace('$LINE', UPDATE), 'run', '-i', '-', '-o', '-', '-o', 'file:/dev/full')
    expect(status).toBe(1)
    expect(done!.outputs).toEqual({ '-': lines.length, 'file:/dev/full': 0 })
  })
})

describe('a reader that goes away', () => {
  /** `conntrail | head -1`, which ends after one line. */
  async function headOne(into: Pipe): Promise<{ running: Program; head: Promise<string> }> {
    const out = await Pipe.open()
    const head = output(start('head', ['-n', '1'], [out.readEnd, 'pipe', 'ignore']))
    out.closeRead()
    return { running: new Program([], into, out), head }
  }

  test('ends the run while the writer writes on at full speed', async () => {
    const into = await Pipe.open()
    feed(UPDATE, into)
    const { running, head } = await headOne(into)
    expect(wholeLines(Buffer.from(await head))).toHaveLength(1)
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(value.diagnostics).toEqual([])
  })

  test('ends the run while the writer lives on quietly, with output that nobody took', async () => {
    const into = await Pipe.open()
    const { running, head } = await headOne(into)
    writeSync(into.writeEnd, updates(340))
    await head
    // more than a pipe holds
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(value.diagnostics).toEqual([])
  })

  test('ends the run with the next record when everything was taken', async () => {
    const into = await Pipe.open()
    const { running, head } = await headOne(into)
    writeSync(into.writeEnd, updates(1))
    await head
    await sleep(100)
    writeSync(into.writeEnd, updates(1))
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(value.diagnostics).toEqual([])
  })

  test('ends the run of a file', async () => {
    const path = scratch('events')
    writeFileSync(path, updates(100_000))
    const { status, lines, stderr } = await shell(`"$@" < '${path}' | head -n 3; exit \${PIPESTATUS[0]}`)
    expect(status).toBe(0)
    expect(lines).toHaveLength(3)
    expect(stderr).toContain('"msg":"done"')
  })

  test('leaves whole lines in the other output', async () => {
    const path = scratch('out')
    const { status } = await shell(`yes '${UPDATE}' | "$@" | head -n 1; exit \${PIPESTATUS[1]}`, 'run', '-i', '-', '-o', '-', '-o', `file:${path}`)
    expect(status).toBe(0)
    for (const line of wholeLines(readFileSync(path))) JSON.parse(line)
  })

  test('before the first record is no failure', async () => {
    const { status, stderr } = await shell(`(sleep 0.3; cat '${fixturePath()}') | "$@" | true; exit \${PIPESTATUS[1]}`)
    expect(status).toBe(0)
    expect(stderr).toContain('"msg":"done"')
  })

  test('of stderr does not end the run', async () => {
    const { status, lines } = await shell(`"$@" < '${fixturePath()}' 2> >(true)`, '--summary')
    expect(status).toBe(0)
    expect(lines).toHaveLength(626)
  })
})

describe('a reader that stalls', () => {
  test('stalls the reading with memory flat, and gets everything when it reads on', async () => {
    // much more than pipes and the program hold
    const count = isLong ? 20_000_000 : 400_000
    const into = await Pipe.open()
    const out = await Pipe.open()
    feed(UPDATE, into, count)
    const running = new Program([], into, out)
    await out.begins()
    await sleep(1000)
    const memory: number[] = []
    const readSoFar = running.bytesRead()
    for (let i = 0; i < (isLong ? 200 : 10); i++) {
      memory.push(running.memory())
      await sleep(100)
    }
    // what Node reads for itself counts, too: eight bytes to wake up, a file about memory
    expect(running.bytesRead() - readSoFar).toBeLessThan(1 << 16)
    expect(Math.max(...memory) / memory[0]!).toBeLessThan(1.5)
    const wc = start('wc', ['-l'], [out.readEnd, 'pipe', 'ignore'])
    out.closeRead()
    const [counted, { status, done }] = await Promise.all([output(wc), running.ended])
    expect(Number(counted)).toBe(count)
    expect(status).toBe(0)
    expect(done).toMatchObject({ lines: count, flows: count, written: count })
  })

  test('stalls the file beside it too, and both get the same', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const path = scratch('out')
    feed(UPDATE, into, 50_000)
    const running = new Program(['run', '-i', '-', '-o', '-', '-o', `file:${path}`], into, out)
    await out.begins()
    await sleep(300)
    expect(statSync(path).size).toBeLessThan(2 << 20)
    const stdout = await out.readAll()
    expect((await running.ended).status).toBe(0)
    expect(wholeLines(stdout)).toHaveLength(50_000)
    expect(readFileSync(path).equals(stdout)).toBe(true)
  })
})

describe('nothing is cut off at the exit', () => {
  test.each(['file', 'pipe'] as const)('many lines from a %s arrive whole and in order at a slow reader', async (through) => {
    const count = isLong ? 200_000 : 50_000
    const path = scratch('events')
    writeFileSync(path, updates(count))
    const out = await Pipe.open()
    let stdin: Pipe | number
    if (through === 'pipe') {
      stdin = await Pipe.open()
      start('cat', [path], ['ignore', stdin.writeEnd, 'ignore'])
      stdin.closeWrite()
    } else stdin = openSync(path, 'r')
    const running = new Program([], stdin, out)
    if (typeof stdin === 'number') closeSync(stdin)
    const stdout = await out.readAll((pieces) => (pieces % 50 === 0 ? sleep(20) : null))
    const { status, done } = await running.ended
    expect(status).toBe(0)
    expect(ids(stdout)).toEqual(upTo(count))
    expect(done!.written).toBe(count)
  })

  test('a reader that begins to read after the input has ended gets everything', async () => {
    const out = await Pipe.open()
    const path = scratch('events')
    writeFileSync(path, updates(1000))
    const stdin = openSync(path, 'r')
    const running = new Program([], stdin, out)
    closeSync(stdin)
    await out.begins()
    await sleep(500)
    const stdout = await out.readAll()
    expect(ids(stdout)).toEqual(upTo(1000))
    expect((await running.ended).status).toBe(0)
  })

  test('a named pipe whose writer had ended before the start is read to its end', async () => {
    const path = scratch('named')
    const { status, lines } = await shell(`mkfifo '${path}' && exec 3<> '${path}' && head -n 20 '${fixturePath()}' >&3 && exec 4< '${path}' 3>&- && timeout 2 "$@" <&4`)
    expect(status).toBe(0)
    expect(lines).toHaveLength(20)
  })

  test('a burst from a writer that pauses is written at once', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const running = new Program([], into, out)
    writeSync(into.writeEnd, updates(1))
    await out.begins()
    // while the writer has more to say, or nothing
    writeSync(into.writeEnd, updates(20, 1))
    const seen = start('head', ['-n', '21'], [out.readEnd, 'pipe', 'ignore'])
    expect((await output(seen)).split('\n')).toHaveLength(22)
    into.closeWrite()
    expect((await running.ended).status).toBe(0)
  })
})

describe.each(['SIGINT', 'SIGTERM'] as const)('%s', (signal) => {
  test('on a pipe whose writer ends within the second: everything is written', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const running = new Program([], into, out)
    writeSync(into.writeEnd, updates(100))
    await out.begins()
    const stdout = out.readAll()
    running.signal(signal)
    await heard(running)
    writeSync(into.writeEnd, updates(300, 100))
    await sleep(50)
    writeSync(into.writeEnd, updates(300, 400))
    into.closeWrite()
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(ids(await stdout)).toEqual(upTo(700))
    expect(value.done).toMatchObject({ lines: 700, flows: 700, written: 700 })
  })

  test('on a pipe whose writer lives on quietly: ends after a second, with all that was in the pipe', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const running = new Program([], into, out)
    writeSync(into.writeEnd, updates(1))
    await out.begins()
    const stdout = out.readAll()
    running.signal('SIGSTOP')
    writeSync(into.writeEnd, updates(300, 1))
    running.signal(signal)
    running.signal('SIGCONT')
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(ids(await stdout)).toEqual(upTo(301))
    expect(value.done!.written).toBe(301)
  })

  test('on a pipe whose writer writes on at full speed: ends soon, with what was read written', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    feed(UPDATE, into)
    const running = new Program([], into, out)
    await out.begins()
    const counted = output(start('wc', ['-l'], [out.readEnd, 'pipe', 'ignore']))
    out.closeRead()
    await sleep(200)
    running.signal(signal)
    const value = await running.ended
    expect(value.status).toBe(0)
    const { lines, written, rejected } = value.done!
    expect(Number(await counted)).toBe(written)
    // the last line may be cut off
    expect(rejected).toBeLessThan(2)
    expect(written).toBe(lines - rejected)
  })

  test('on a file: ends soon, with what was read written', async () => {
    const path = scratch('events')
    writeFileSync(path, updates(100_000))
    const stdin = openSync(path, 'r')
    const out = await Pipe.open()
    const running = new Program([], stdin, out)
    closeSync(stdin)
    await out.begins()
    running.signal(signal)
    const stdout = out.readAll()
    const value = await running.ended
    expect(value.status).toBe(0)
    expect(wholeLines(await stdout)).toHaveLength(value.done!.written)
    expect(value.done!.lines).toBeLessThan(100_000)
  })

  test('a second time: ends at once', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const running = new Program([], into, out)
    writeSync(into.writeEnd, updates(1))
    await out.begins()
    running.signal('SIGINT')
    await heard(running)
    running.signal(signal)
    const value = await running.ended
    expect(value.status).toBe(signal === 'SIGINT' ? 130 : 143)
  })

  test('a second time while the reader stalls: ends at once', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    feed(UPDATE, into)
    const running = new Program([], into, out)
    await out.begins()
    await sleep(200)
    running.signal(signal)
    await heard(running)
    running.signal(signal)
    const value = await running.ended
    expect(value.status).toBe(signal === 'SIGINT' ? 130 : 143)
  })

  test('while the reader pauses: what was read arrives when it reads on', async () => {
    const into = await Pipe.open()
    const out = await Pipe.open()
    feed(UPDATE, into)
    const running = new Program([], into, out)
    await out.begins()
    await sleep(200)
    running.signal(signal)
    // longer than a writer is waited for
    await sleep(1200)
    const stdout = await out.readAll()
    const { status, done } = await running.ended
    expect(status).toBe(0)
    expect(wholeLines(stdout)).toHaveLength(done!.written)
    expect(done!.written).toBe(done!.lines - done!.rejected)
  })
})

describe('the exit status', () => {
  test.each([
    [['--bogus'], '--bogus'],
    [['frob'], 'no command "frob"'],
    [['run', 'extra'], 'no flag before it'],
    [['run', '-i', '-', '-o', 'nowhere'], 'file:PATH'],
    [['run', '-i', '-', '-o', '-', '-o', '-'], 'twice'],
    [['run', '-i', ''], 'is no input'],
    [['--emit', 'flow,bogus'], 'bogus.*expected one of flow'],
    [['--where', 'bogus=1'], 'bogus.*expected.*sport'],
    [['--where', 'event=started'], 'event=started: expected one of new'],
    [['--where', 'reason=bored'], 'reason=bored: expected .*refused'],
    [['--where', 'family=ipx'], 'family=ipx: expected ipv4'],
    [['--where', 'protocol=tpc'], 'protocol=tpc: expected .*tcp'],
    [['--where', 'zone=65536'], 'zone=65536: expected .*65535'],
    [['--where', 'type=event'], 'type=event: expected one of flow'],
    [['--where', 'dport'], 'dport.*expected key=value'],
    [['--where', ''], 'expected key=value'],
    [['--since', 'yesterday'], 'expected a time such as 2026'],
    [['--timezone', 'Mars/Base'], 'IANA'],
    [['--format', 'pcap'], 'conntrack-xml'],
    [['--flows-max', '0'], 'whole number'],
    [['--log-level', 'loud'], 'warn'],
  ])('of %j is 2, and the message says what was expected', async (args, says) => {
    const { status, stderr, stdout, done } = await run(args, incident)
    expect(status).toBe(2)
    expect(stderr).toMatch(new RegExp(says))
    expect(stdout).toHaveLength(0)
    expect(done).toBeNull()
  })

  test.each([['src=10.0.0'], ['dport=http'], ['from=MOON']])('of --where %s is 2, and the message names the key as it was written', async (where) => {
    const { status, stderr } = await run(['--where', where], '')
    expect(status).toBe(2)
    expect(stderr).toContain(` ${where}: expected`)
  })

  test.each([[['--help']], [['run', '--help']], [['--version']]])('of %j is 0', async (args) => {
    const { status, stdout, stderr } = await helpOf(args)
    expect(status).toBe(0)
    expect(stdout).toMatch(args[0] === '--version' ? /^\d+\.\d+\.\d+\n$/ : /^Usage: conntrail /)
    expect(stderr).toBe('')
  })

  test('without arguments on a terminal is 2, with the help', async () => {
    const child = start('script', ['-qec', `'${process.execPath}' '${new URL('../dist/main.js', import.meta.url).pathname}'`, '/dev/null'], ['ignore', 'pipe', 'ignore'])
    const closed = once(child, 'close')
    expect(await output(child)).toContain('Usage: conntrail')
    expect((await closed)[0]).toBe(2)
  })

  test('of an output that cannot be opened is 1, and the message names it', async () => {
    const path = scratch('no/such/directory')
    const { status, diagnostics } = await run(['run', '-i', '-', '-o', `file:${path}`], incident)
    expect(status).toBe(1)
    expect(diagnostics).toHaveLength(1)
    expect(diagnostics[0]).toMatchObject({ level: 50, msg: expect.stringMatching(/cannot be opened: ENOENT/) })
    expect(diagnostics[0]!['msg']).toContain(path)
  })

  test('of a full disk is 1, and the message says so', async () => {
    const { status, diagnostics } = await shell(`"$@" < '${fixturePath()}' > /dev/full`)
    expect(status).toBe(1)
    expect(diagnostics).toEqual([expect.objectContaining({ level: 50, msg: expect.stringMatching(/standard output failed: ENOSPC/) })])
  })

  test('of a full disk under a file output is 1, and the message names the file', async () => {
    const { status, diagnostics } = await run(['run', '-i', '-', '-o', 'file:/dev/full'], incident)
    expect(status).toBe(1)
    expect(diagnostics).toEqual([expect.objectContaining({ level: 50, msg: expect.stringMatching(/file:\/dev\/full failed: ENOSPC/) })])
  })

  test('of a full disk with nothing to write is 0', async () => {
    expect((await shell('"$@" < /dev/null > /dev/full')).status).toBe(0)
  })

  // Node puts /dev/null where a standard descriptor is closed, as daemons do: a warning, for it cannot be told from what someone wanted
  test('of a closed standard input is 0, with a warning', async () => {
    const { status, diagnostics } = await shell('"$@" <&-')
    expect(diagnostics).toEqual([expect.objectContaining({ msg: expect.stringMatching(/standard input is closed/) })])
    expect(status).toBe(0)
  })

  test('of a closed standard output is 0, with a warning', async () => {
    const { status, diagnostics } = await shell(`"$@" < '${fixturePath()}' >&-`)
    expect(diagnostics).toEqual([expect.objectContaining({ msg: expect.stringMatching(/standard output is closed/) })])
    expect(status).toBe(0)
  })

  test('of a closed standard error is 0', async () => {
    const { status, lines } = await shell(`"$@" < '${fixturePath()}' 2>&-`)
    expect(status).toBe(0)
    expect(lines).toHaveLength(626)
  })

  test('of a directory as standard input is not 0, and the message says so', async () => {
    const { status, diagnostics } = await shell('"$@" < /')
    expect([1, 3]).toContain(status)
    expect(diagnostics).toEqual([expect.objectContaining({ msg: expect.stringMatching(/standard input .*EISDIR/) })])
  })
})

describe('outputs', () => {
  test('a file is made with mode 0640 and appended to', async () => {
    const path = scratch('out')
    const mask = process.umask(0o022)
    try {
      for (const _ of [1, 2]) expect((await run(['run', '-i', '-', '-o', `file:${path}`], incident)).stdout).toHaveLength(0)
    } finally {
      process.umask(mask)
    }
    expect(statSync(path).mode & 0o777).toBe(0o640)
    const records = wholeLines(readFileSync(path)).map((line) => JSON.parse(line) as Record_)
    expect(records).toHaveLength(1252)
    expect(records[626]!['time']).toBe(records[0]!['time'])
  })

  test("a stricter umask holds, and an existing file's mode stays", async () => {
    const [strict, open] = [scratch('strict'), scratch('open')]
    writeFileSync(open, '', { mode: 0o644 })
    const mask = process.umask(0o077)
    try {
      await run(['run', '-i', '-', '-o', `file:${strict}`, '-o', `file:${open}`], incident)
    } finally {
      process.umask(mask)
    }
    expect(statSync(strict).mode & 0o777).toBe(0o600)
    expect(statSync(open).mode & 0o777).toBe(0o644)
  })

  test('stdout and a file have the same bytes', async () => {
    const path = scratch('out')
    const { stdout } = await run(['run', '-i', '-', '-o', '-', '-o', `file:${path}`], incident, 'pipe')
    expect(readFileSync(path).equals(stdout)).toBe(true)
  })

  test('a file as stdout is written whole', async () => {
    const path = scratch('out')
    writeFileSync(scratch('events'), updates(20_000))
    writeFileSync(path, '{"before":1}\n')
    expect((await shell(`"$@" < '${scratch('events')}' >> '${path}'`)).status).toBe(0)
    const lines = wholeLines(readFileSync(path))
    expect(lines).toHaveLength(20_001)
    expect(ids(Buffer.from(text(...lines.slice(1))))).toEqual(upTo(20_000))
  })

  test('after a line that a crash cut off the next record is a line of its own', async () => {
    const path = scratch('out')
    writeFileSync(path, '{"time":"2026-11-22T10:00:00.000000Z","type":"fl')
    await run(['run', '-i', '-', '-o', `file:${path}`], text(...life(1)))
    const whole = wholeLines(readFileSync(path)).filter((line) => isJson(line))
    expect(whole).toHaveLength(5)
  })

  test('kill -9 leaves no torn line before the last LF', async () => {
    const path = scratch('out')
    const into = await Pipe.open()
    feed(UPDATE, into)
    const running = new Program(['run', '-i', '-', '-o', `file:${path}`], into, 'ignore')
    await until(() => existsSync(path) && statSync(path).size > 8 << 20)
    running.signal('SIGKILL')
    expect((await running.ended).status).toBe(137)
    const written = readFileSync(path)
    const lines = wholeLines(written.subarray(0, written.lastIndexOf(10) + 1))
    expect(lines.length).toBeGreaterThan(10_000)
    for (const line of lines) JSON.parse(line)
  })
})

describe('what a record carries', () => {
  test('in run: host, input and a rid of its own', async () => {
    const { records } = await run(['run', '-i', '-'], incident)
    expect(new Set(records.map((r) => r['host']))).toEqual(new Set([hostname()]))
    expect(new Set(records.map((r) => r['input']))).toEqual(new Set(['-']))
    expect(new Set(records.map((r) => r['rid'])).size).toBe(626)
    expect(Object.keys(records[0]!).slice(0, 6)).toEqual(['time', 'type', 'v', 'rid', 'host', 'input'])
    expect(Math.max(...records.map((r) => r['rid'].length as number))).toBeLessThanOrEqual(40)
  })

  test('on the bare pipe: none of them', async () => {
    const { records } = await run([], incident)
    for (const key of ['rid', 'host', 'input']) expect(records.some((r) => key in r)).toBe(false)
  })

  test('with --host: that name, with every byte of it', async () => {
    const { records } = await run(['--host', 'gw "1"\\ä'], incident)
    expect(new Set(records.map((r) => r['host']))).toEqual(new Set(['gw "1"\\ä']))
  })

  const rejects = Buffer.concat([incident, Buffer.from(text('[NEW] tcp      6', 'x'.repeat(2 << 20))), fixture('rich.E-xml'), fixture('ftp.E-expect'), fixture('enobufs-after.E-timestamp-id-stderr')])
  const everything = ['--emit', 'flow,expect,gap,reject']

  test('with --rid from a file: the same ids again, none of them twice', async () => {
    const path = scratch('events')
    writeFileSync(path, rejects)
    const [once, again] = await Promise.all([shell(`"$@" < '${path}'`, '--rid', ...everything), shell(`"$@" < '${path}'`, '--rid', ...everything)])
    expect(again.stdout.equals(once.stdout)).toBe(true)
    expect(new Set(once.records.map((r) => r['rid'])).size).toBe(once.lines.length)
    expect(new Set(once.records.map((r) => r['type']))).toEqual(new Set(['flow', 'expect', 'gap', 'reject']))
  })

  test('with --rid from a pipe: no id twice, in one run or two', async () => {
    const [once, again] = await Promise.all([run(['--rid', ...everything], rejects, 'pipe'), run(['--rid', ...everything], rejects, 'pipe')])
    const all = [...once.records, ...again.records].map((r) => r['rid'])
    expect(new Set(all).size).toBe(all.length)
  })

  test('with --rid from a file that was read in part: the id of the place in the file', async () => {
    const path = scratch('events')
    writeFileSync(path, incident)
    const whole = await shell(`"$@" < '${path}'`, '--rid')
    const rest = await shell(`{ IFS= read -r first; "$@"; } < '${path}'`, '--rid')
    expect(rest.records.map((r) => r['rid'])).toEqual(whole.records.slice(1).map((r) => r['rid']))
  })

  test.each(['incident.E-timestamp-id', 'rich.E-plain', 'nat.L', 'protocols.proc', 'rich.E-xml'])('read twice from a file %s gives the same bytes', async (name) => {
    const path = scratch('events')
    writeFileSync(path, fixture(name))
    const [once, again] = await Promise.all([shell(`"$@" < '${path}'`), shell(`"$@" < '${path}'`)])
    expect(once.lines.length).toBeGreaterThan(0)
    expect(again.stdout.equals(once.stdout)).toBe(true)
  })
})

describe('options', () => {
  const lives = text(...life(1), ...life(2, 80), ...life(3, 8443, '10.20.0.9'), ...life(4, 53, '192.168.0.1'))
  const select = async (...args: string[]): Promise<Record_[]> => (await run(args, lives)).records
  const flowsOf = (records: Record_[]): number[] => [...new Set(records.map((r) => r['id'] - 1))]

  test('--emit writes those types only', async () => {
    const mixed = Buffer.concat([fixture('ftp.E-timestamp-id-and-E-expect-timestamp-one-pipe'), fixture('enobufs-after.E-timestamp-id-stderr'), Buffer.from('{"cut\n')])
    const types = async (list: string): Promise<string[]> => [...new Set((await run(['--emit', list], mixed)).records.map((r) => r['type'] as string))].sort()
    const found = await Promise.all(['flow', 'expect,gap', 'reject', 'flow,expect,kernel,alert,gap,table,reject'].map(types))
    expect(found).toEqual([['flow'], ['expect', 'gap'], ['reject'], ['expect', 'flow', 'gap', 'reject']])
  })

  test('--transitions leaves the flow records in which the state changes, and all others', async () => {
    const input = text(...life(1).slice(0, 3), life(1)[2]!, ...life(1).slice(3), 'WARNING: We have hit ENOBUFS! We are losing events.')
    const { records } = await run(['--transitions'], input)
    expect(records.map((r) => r['transition']?.['to'] ?? r['type'])).toEqual(['SYN_SENT', 'SYN_RECV', 'ESTABLISHED', 'TIME_WAIT', 'gap'])
  })

  test('--where src= takes networks', async () => {
    const found = ['src=10.0.0.0/8', 'src=10.10.1.2,192.168.0.0/16', 'src=10.10.1.3', 'src=0.0.0.0/0', 'src=fd00::/8'].map((where) => select('--where', where))
    expect((await Promise.all(found)).map(flowsOf)).toEqual([[1, 2, 3], [1, 2, 4], [], [1, 2, 3, 4], []])
  })

  test('--where dport= takes a list, and keys side by side are "and"', async () => {
    const found = ['dport=443,8443', 'dport=443,8443 src=10.20.0.0/16', 'src=10.0.0.0/8 dport=443,8443 event=destroy'].map((where) => select('--where', where))
    const [ports, both, ends] = await Promise.all(found)
    expect(flowsOf(ports!)).toEqual([1, 3])
    expect(flowsOf(both!)).toEqual([3])
    expect(ends!.map((r) => r['event'])).toEqual(['destroy', 'destroy'])
  })

  test('--where twice is "or"', async () => {
    expect(flowsOf(await select('--where', 'dport=443', '--where', 'dport=53'))).toEqual([1, 4])
  })

  test('--where event= and reason=', async () => {
    const [started, closed, failed] = await Promise.all(['event=new', 'reason=closed', 'reason=refused,reset'].map((where) => select('--where', where)))
    expect(started!.map((r) => r['event'])).toEqual(Array(4).fill('new'))
    expect(closed!.map((r) => r['end']['reason'])).toEqual(Array(4).fill('closed'))
    expect(failed).toEqual([])
  })

  test('--where from= and to=', async () => {
    const [from, to, both] = await Promise.all(['from=SYN_RECV', 'to=TIME_WAIT', 'from=SYN_SENT to=TIME_WAIT'].map((where) => select('--where', where)))
    expect(from!.map((r) => r['transition'])).toEqual(Array(4).fill({ from: 'SYN_RECV', to: 'ESTABLISHED', after: 0.0001 }))
    expect(to!.map((r) => r['event'])).toEqual(Array(4).fill('update'))
    expect(both).toEqual([])
  })

  test('--where type=', async () => {
    const input = `${lives}${text('WARNING: We have hit ENOBUFS! We are losing events.')}`
    const found = [['type=gap'], ['type=gap', 'dport=53'], ['dport=53']].map((wheres) => run(wheres.flatMap((where) => ['--where', where]), input))
    const [gaps, either, flows] = (await Promise.all(found)).map(({ records }) => records.map((r) => r['type'] as string))
    expect(gaps).toEqual(['gap'])
    expect(either).toEqual([...Array<string>(5).fill('flow'), 'gap'])
    expect(flows).toEqual(Array(5).fill('flow'))
  })

  test('--where and tracking: what is left out is tracked all the same', async () => {
    const [end] = await select('--where', 'event=destroy dport=443')
    expect(end!['end']).toEqual({ reason: 'closed', duration: 0.9, idle: 0.4 })
  })

  test('--since and --until make a window', async () => {
    const at = (flow: number): string => new Date((1795341600 + flow) * 1000).toISOString()
    const windows = [['--since', at(2)], ['--until', at(3)], ['--since', at(2), '--until', at(4)], ['--since', at(2).replace('.000Z', '.3+00:00'), '--until', at(3)]]
    const found = await Promise.all(windows.map((window) => select(...window)))
    expect(found.map(flowsOf)).toEqual([[2, 3, 4], [1, 2], [2, 3], [2]])
    expect(found[3]).toHaveLength(2)
  })

  test('--since and --until take the microseconds of a record', async () => {
    const [second] = life(1).slice(1).map((line) => `2026-11-22T10:00:01.${line.slice(12, 18)}Z`)
    const [since, until] = await Promise.all([select('--since', second!), select('--until', second!)])
    expect(since).toHaveLength(19)
    expect(until).toHaveLength(1)
  })

  test('--since -2h counts from now', async () => {
    const ago = (seconds: number): string => UPDATE.replace(/^\[\d+/, `[${Math.floor(Date.now() / 1000) - seconds}`)
    const input = text(ago(3 * 3600), ago(3600), ago(60))
    expect((await run(['--since', '-2h'], input)).records).toHaveLength(2)
    expect((await run(['--since=-2h', '--until', '-30m'], input)).records).toHaveLength(1)
  })

  test('--timezone reads the wall clock of XML, by default as the zone of this host', async () => {
    const xml = fixture('ftp.E-xml-timestamp-ktimestamp')
    const first = async (args: string[], zone = 'UTC'): Promise<Record_> => (await run(args, xml, 'file', { TZ: zone })).records[0]!
    const found = await Promise.all([first([]), first(['--timezone', 'Asia/Kolkata']), first([], 'America/New_York'), first(['--timezone', 'UTC'], 'America/New_York')])
    expect(found.map((r) => r['time'])).toEqual(['15:03:05', '09:33:05', '20:03:05', '15:03:05'].map((time) => `2026-11-22T${time}.000000Z`))
    expect(found.map((r) => r['time_source'])).toEqual(Array(4).fill('local'))
  })

  test('--format reads lines of that format only', async () => {
    const mixed = Buffer.concat([incident, fixture('nat.E-xml-timestamp-ktimestamp')])
    const [all, plain, xml] = await Promise.all([run([], mixed), run(['--format', 'conntrack-text'], mixed), run(['--format', 'conntrack-xml'], mixed)])
    expect(plain.done!.flows).toBe(626)
    expect(xml.done!.flows).toBe(all.done!.flows - 626)
    expect(xml.done!.flows).toBeGreaterThan(0)
  })

  test.each([
    [['--host', 'gw1'], { host: 'gw1' }],
    [['--emit', 'gap'], undefined],
    [['--transitions', '--where', 'to=TIME_WAIT'], { state: 'TIME_WAIT' }],
    [['--where', 'dport=53'], { orig: { src: '192.168.0.1', dst: '10.10.2.2', sport: 1028, dport: 53 } }],
    [['--since', '2026-11-22T10:00:04Z'], { time: '2026-11-22T10:00:04.000001Z' }],
    [['--format', 'conntrack-xml'], undefined],
  ])('%j behind run says the same as without run', async (args, first) => {
    const [without, { records }] = await Promise.all([run(args, lives), run(['run', '-i', '-', ...args], lives)])
    if (first === undefined) expect(records).toEqual([])
    else expect(records[0]).toMatchObject(first)
    expect(records).toHaveLength(without.records.length)
  })

  test('--summary says it to people, on stderr', async () => {
    const { stderr, done } = await run(['--summary'], incident)
    expect(stderr).toContain(`${done!.lines} lines: ${done!.flows} flow records`)
    expect(stderr.split('\n').filter((line) => line !== '' && !line.startsWith('{')).length).toBeGreaterThan(1)
  })

  test('--flows-max bounds what is tracked, and what is given up is said', async () => {
    const { done, records, status } = await run(['--flows-max', '100'], incident)
    expect(status).toBe(0)
    expect(done!.gaps).toBeGreaterThan(0)
    expect(records.filter((r) => r['cause'] === 'tracker_limit')).toHaveLength(done!.gaps)
  })
})

describe('hostile input', () => {
  const near = life(1)
  const before = text(near[0]!, near[1]!)
  const after = text(near[2]!, near[3]!, near[4]!)
  const eventsOf = (records: Record_[]): string[] => records.filter((r) => r['type'] === 'flow').map((r) => r['event'] as string)
  const WHOLE = ['new', 'update', 'update', 'update', 'destroy']

  /** A line of so many MiB between others; with how it ended, and how many MiB of memory it had at most. */
  async function withLongLine(mebibytes: number, endless: boolean): Promise<{ readonly result: Result; readonly memory: number }> {
    const into = await Pipe.open()
    const out = await Pipe.open()
    const running = new Program(['--emit', 'flow,gap,reject'], into, out)
    const stdout = out.readAll()
    const file = scratch('events')
    writeFileSync(file, endless ? before + after : before)
    appendFileSync(file, Buffer.alloc(mebibytes << 20, 'a'))
    if (!endless) appendFileSync(file, `\n${after}`)
    await once(start('cat', [file], ['ignore', into.writeEnd, 'ignore']), 'close')
    await sleep(100)
    const memory = running.memory('VmHWM')
    into.closeWrite()
    return { result: resultOf(await running.ended, await stdout), memory }
  }

  test.each(['with an end', 'without an end'])('a line of 64 MiB %s: one reject, one gap, and memory does not grow with it', async (how) => {
    const endless = how === 'without an end'
    const small = await withLongLine(2, endless)
    const { result: { status, done, records }, memory } = await withLongLine(64, endless)
    expect(memory - small.memory).toBeLessThan(64 / 2)
    expect(status).toBe(0)
    expect(eventsOf(records)).toEqual(WHOLE)
    expect(done).toMatchObject({ lines: 6, flows: 5, rejected: 1, gaps: 1 })
    expect(records.filter((r) => r['type'] === 'gap')).toEqual([expect.objectContaining({ cause: 'line_too_long' })])
    const [reject] = records.filter((r) => r['type'] === 'reject')
    expect(reject).toMatchObject({ line: endless ? 6 : 3, text: expect.stringMatching(/^a{1,1024}$/) })
  })

  test.each(['file', 'pipe'] as const)('lines around the greatest length, from a %s', async (through) => {
    const MAX = 1 << 20
    const filler = (length: number): string => '{"a":"'.padEnd(length - 2, 'a') + '"}'
    const input = text(near[0]!, filler(MAX - 1), filler(MAX), near[1]!, filler(MAX + 1), near[2]!, filler(3 * MAX), filler(3 * MAX), near[3]!, near[4]!)
    const { done, records } = await run([], input, through)
    expect(eventsOf(records)).toEqual(WHOLE)
    expect(done).toMatchObject({ lines: 10, flows: 5, ignored: 2, rejected: 3, gaps: 3, bytes: input.length })
  })

  test.each([
    ['NUL bytes', Buffer.from('\0\0\0[NEW] \0tcp\0\n')],
    ['64 KiB of NUL bytes', Buffer.concat([Buffer.alloc(1 << 16), Buffer.from('\n')])],
    ['invalid UTF-8', Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0xed, 0xa0, 0x80, 10])],
    ['invalid UTF-8 in a line of ours', Buffer.from(`${near[1]!} helper=\xff\xfe\x80\n`, 'latin1')],
    ['a tag and nothing else', Buffer.from('[DESTROY]\n')],
    ['half an element', Buffer.from('<flow type="new"><meta direction="original"><layer3 protonum="2"\n')],
    ['escape sequences', Buffer.from('\x1b[31m[NEW] tcp\x1b[0m\n')],
    ['a lone CR', Buffer.from('\r\n')],
    ['all 256 bytes but LF', Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => (i === 10 ? 32 : i))), Buffer.from('\n')])],
  ])('%s between good lines harms neither', async (_, bytes) => {
    const { status, done, records } = await run(['--emit', 'flow,reject'], Buffer.concat([Buffer.from(before), bytes, Buffer.from(after)]), 'pipe')
    expect(status).toBe(0)
    expect(done!.lines).toBe(6)
    expect(done!.rejected).toBeLessThanOrEqual(1)
    expect(done!.rejected + done!.ignored + done!.flows).toBe(6)
    const ours = records.filter((r) => r['type'] === 'flow')
    expect(ours.map((r) => r['time'])).toEqual(expect.arrayContaining(near.map((line) => new Date(Number(line.slice(1, 11)) * 1000).toISOString().slice(0, 20) + `${line.slice(12, 18)}Z`)))
  })

  test('CRLF gives the same records', async () => {
    const [unix, dos] = await Promise.all([run([], before + after), run([], (before + after).replaceAll('\n', '\r\n'))])
    expect(dos.stdout.toString()).toBe(unix.stdout.toString())
  })

  test.each(['file', 'pipe', 'socket'] as const)('a last line without LF counts, from a %s', async (through) => {
    const { done, records, stdout } = await run([], (before + after).slice(0, -1), through)
    expect(eventsOf(records)).toEqual(WHOLE)
    expect(done).toMatchObject({ lines: 5, rejected: 0, bytes: before.length + after.length - 1 })
    expect(stdout.at(-1)).toBe(10)
  })

  test('counters of 64 bits are exact', async () => {
    const line = near[4]!.replace(' src=10.10.2.2', ' packets=18446744073709551615 bytes=18446744073709551615 src=10.10.2.2')
    const { stdout } = await run([], text(line))
    expect(stdout.toString()).toContain('"packets":18446744073709551615,"bytes":18446744073709551615')
  })

  test('random bytes end with status 0 and sums that close', async () => {
    let state = 1
    const noise = Buffer.from(Array.from({ length: 1 << 20 }, () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) >> 16))
    const { status, done, records } = await run(['--emit', 'flow,gap,reject'], Buffer.concat([noise, Buffer.from(`\n${before}${after}`)]), 'pipe')
    expect(status).toBe(0)
    expect(eventsOf(records)).toEqual(WHOLE)
    expect(done!.bytes).toBe((1 << 20) + 1 + before.length + after.length)
  })
})

describe('what the tool says about itself', () => {
  test('a refusal becomes a warning that names the capability', async () => {
    const { status, done, diagnostics, stdout } = await run([], text(REFUSED), 'pipe')
    expect(status).toBe(0)
    expect(diagnostics).toEqual([expect.objectContaining({ level: 40, msg: expect.stringContaining('CAP_NET_ADMIN') })])
    expect(diagnostics[0]!['msg']).toMatch(/setcap|root/)
    expect(done).toMatchObject({ lines: 1, ignored: 1 })
    expect(stdout).toHaveLength(0)
  })

  test.each(['stderr.E-unprivileged', 'stderr.L-unprivileged', 'stderr.E-expect-unprivileged'])('so does the one in %s', async (name) => {
    const { diagnostics, done } = await run([], fixture(name))
    expect(diagnostics.map((line) => line['msg']).join()).toContain('CAP_NET_ADMIN')
    expect(done!.rejected).toBe(0)
  })

  test('it is said while the pipe is still open', async () => {
    const into = await Pipe.open()
    const errors = await Pipe.open()
    const child = start(process.execPath, [new URL('../dist/main.js', import.meta.url).pathname], [into.readEnd, 'ignore', errors.writeEnd])
    into.closeRead()
    errors.closeWrite()
    writeSync(into.writeEnd, `${REFUSED}\n`)
    await errors.begins()
    expect(child.exitCode).toBeNull()
    into.closeWrite()
    expect((await errors.readAll()).toString()).toContain('CAP_NET_ADMIN')
  })
})

/** The incident as a file of its own, for the shell. */
function fixturePath(): string {
  const path = scratch('incident')
  if (!existsSync(path)) writeFileSync(path, incident)
  return path
}

/** Help is text, not records. */
async function helpOf(args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const [out, errors] = [scratch('help'), scratch('errors')]
  const { status } = await shell(`"$@" < /dev/null > '${out}' 2> '${errors}'`, ...args)
  return { status, stdout: readFileSync(out, 'utf8'), stderr: readFileSync(errors, 'utf8') }
}

/** The signal that it was sent has been delivered: two of a kind that wait are one. */
function heard({ pid }: Program): Promise<void> {
  return until(() => /^ShdPnd:\t0+$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')))
}

function isJson(line: string): boolean {
  try {
    JSON.parse(line)
    return true
  } catch {
    return false
  }
}
