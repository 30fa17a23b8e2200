/**
 * The input that runs `conntrack` itself, with a script in the tool's place that prints recorded lines, loses events, hangs and dies as the tool does. What the
 * kernel says of the tool's socket stands in files that look like /proc.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Gap } from '../src/event.js'
import { type ConntrackOptions, conntrackFeed } from '../src/inputs/conntrack.js'
import { Balance, entriesOf } from '../src/inputs/conntrack/balance.js'
import { WholeLines } from '../src/inputs/conntrack/lines.js'
import { LineQueue } from '../src/inputs/conntrack/queue.js'
import { dumpArguments, type EventName, eventNames, isChatter, listenArguments, NEWEST, refusal, rowsShown } from '../src/inputs/conntrack/tool.js'
import { type Input, InputError, type Notice, NOTICES_ONLY } from '../src/stage.js'
import { releaseOf } from '../src/tool-release.js'

const event = (n: number, tag = 'NEW'): string => `[1795368807.239084]\t${`[${tag}]`.padStart(9)} udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=${n} dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=${n} id=${n}`
const row = (n: number): string => `udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=${n} dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=${n} mark=0 use=1 id=${n}`
const shown = (n: number): string => `conntrack v1.4.7 (conntrack-tools): ${n} flow entries have been shown.`
const ENOBUFS = ['WARNING: We have hit ENOBUFS! We are losing events.', 'This message means that the current netlink socket buffer size is too small.', 'Please, check --buffer-size in conntrack(8) manpage.']
const NETLINK = 'sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n'

/** `-E` makes its files of /proc, says so in `pid`, runs `listen`, and waits; `-L` runs `dump`. */
const TOOL = `#!/bin/sh
echo "$*" >>"$FAKE/calls"
socket() { printf '%s0000000022499068 12  0          00000000 0        0        0     2        7        10\\n000000009a8b46f9 12  3289083173 00000007 %s        0        0     2        %s        77\\n' '${NETLINK}' "$2" "$1" >"$FAKE/proc/$$/net/new" && mv "$FAKE/proc/$$/net/new" "$FAKE/proc/$$/net/netlink"; }
case "$1" in
-V) echo "conntrack v$(cat "$FAKE/version") (conntrack-tools)" ;;
-E) mkdir -p "$FAKE/proc/$$/fd" "$FAKE/proc/$$/net"; ln -s 'socket:[10]' "$FAKE/proc/$$/fd/3"; ln -s 'socket:[77]' "$FAKE/proc/$$/fd/4"; echo $$ >"$FAKE/pid"; . "$FAKE/listen" ;;
-L) . "$FAKE/dump" ;;
esac
`
/** As `conntrack -E` waits: until a signal. */
const WAIT = 'while :; do sleep 0.05; done'

let dir = ''
let input: Input | null = null

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'conntrail-conntrack-'))
  mkdirSync(join(dir, 'proc/self/ns'), { recursive: true })
  write('proc/self/ns/net', '')
  write('version', '1.4.7')
  write('conntrack', TOOL)
  chmodSync(join(dir, 'conntrack'), 0o755)
  scripts({})
})

afterEach(() => {
  input?.close()
  input = null
  rmSync(dir, { recursive: true, force: true })
})

function write(name: string, text: string): void {
  writeFileSync(join(dir, name), text)
}

function scripts({ listen = `socket 0 0; ${WAIT}`, dump = `echo '${shown(0)}' >&2` }: { listen?: string; dump?: string }): void {
  write('listen', listen)
  write('dump', dump)
}

const lines = (...texts: readonly string[]): string => texts.map((text) => `printf '%s\\n' "${text}"`).join('; ')
const says = (...texts: readonly string[]): string => texts.map((text) => `echo '${text}' >&2`).join('; ')
const calls = (): string[] => (existsSync(join(dir, 'calls')) ? readFileSync(join(dir, 'calls'), 'utf8').split('\n').slice(0, -1) : [])
const pid = (): number => Number(readFileSync(join(dir, 'pid'), 'utf8'))

function options(more: Partial<ConntrackOptions> = {}): ConntrackOptions {
  return {
    name: 'conntrack',
    env: { PATH: `${dir}:/usr/bin:/bin`, FAKE: dir },
    random: 'r',
    proc: join(dir, 'proc'),
    redumpMs: 0,
    ...more,
    timing: { listenMs: 1500, pollMs: 100, holdMs: 20, ...more.timing },
  }
}

/** Reads an input on and on, as the loop does, and keeps what came in short. */
class Reader {
  readonly events: string[] = []
  readonly rows: string[] = []
  readonly gaps: Gap[] = []
  readonly diagnostics: string[] = []
  /** notices of dumps, `event PORT` and `row PORT`, in order */
  readonly course: string[] = []
  torn = 0
  failure = ''
  readonly end: Promise<void>
  readonly #input: Input

  constructor(from: Input) {
    this.#input = from
    this.end = this.#read()
  }

  async #read(): Promise<void> {
    try {
      for (let n = await this.#input.next(); n !== 0; n = await this.#input.next()) {
        for (const notice of this.#input.notices) this.#notice(notice)
        if (n !== NOTICES_ONLY) this.#chunk(Buffer.from(this.#input.chunk).toString('latin1'), n)
      }
    } catch (error) {
      this.failure = String(error)
    }
  }

  #notice(notice: Notice): void {
    if (notice.gap !== undefined) this.gaps.push(notice.gap)
    if (notice.diagnostic !== undefined) this.diagnostics.push(notice.diagnostic)
    if (notice.dump !== undefined) this.course.push(notice.dump)
  }

  #chunk(text: string, n: number): void {
    if (text.length !== n || !text.endsWith('\n')) this.torn++
    for (const line of text.split('\n').slice(0, -1)) {
      const port = /sport=(\d+)/.exec(line)?.[1] ?? '-'
      if (line.startsWith('[') !== !this.#input.isDump || (line !== row(Number(port)) && line.length < 140)) this.torn++
      ;(this.#input.isDump ? this.rows : this.events).push(line)
      this.course.push(`${this.#input.isDump ? 'row' : 'event'} ${port}`)
    }
  }

  get dumps(): number {
    return this.course.filter((word) => word === 'ends').length
  }

  causes(): string[] {
    return this.gaps.map(({ cause, count, atLeast }) => `${cause} ${count >= 0 ? count : `>=${atLeast}`}`)
  }
}

async function opened(more: Partial<ConntrackOptions> = {}): Promise<Reader> {
  await conntrackFeed(options(more)).open((found) => (input = found))
  return new Reader(input!)
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const end = Date.now() + 15_000; !isSo(); await sleep(10)) if (Date.now() > end) throw new Error(`not within 15 s: ${what}`)
}

function isAlive(id: number): boolean {
  return existsSync(`/proc/${id}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${id}/status`, 'utf8'))
}

describe('the command line', () => {
  const tool = (release: string, more: { events?: readonly EventName[]; hasLabelNames?: boolean; bufferBytes?: number } = {}) => ({
    release: releaseOf(`conntrack v${release} (conntrack-tools)`)!,
    hasLabelNames: false,
    events: eventNames,
    bufferBytes: 0,
    ...more,
  })

  test.each([
    ['1.4.7', {}, '-E -o timestamp,id,ktimestamp,userspace'],
    ['1.4.9', { hasLabelNames: true }, '-E -o timestamp,id,ktimestamp,labels,userspace'],
    ['1.4.5', { hasLabelNames: true }, '-E -o timestamp,id,ktimestamp,labels'],
    ['1.4.1', { hasLabelNames: true }, '-E -o timestamp,id,ktimestamp'],
    ['0.9.14', {}, '-E -o timestamp,id'],
    ['1.4.7', { events: ['destroy', 'new'] as const }, '-E -o timestamp,id,ktimestamp,userspace -e NEW,DESTROY'],
    ['1.4.7', { events: ['update'] as const }, '-E -o timestamp,id,ktimestamp,userspace -e UPDATES'],
    ['1.4.6', { bufferBytes: 8388608 }, '-E -o timestamp,id,ktimestamp,userspace -b 8388608'],
    ['1.4.7', { bufferBytes: 8388608 }, '-E -o timestamp,id,ktimestamp,userspace'],
  ])('of %s %j', (release, more, expected) => {
    expect(listenArguments(tool(release, more)).join(' ')).toBe(expected)
  })

  test('a dump has the same and the family', () => {
    expect(dumpArguments(tool('1.4.7'), 'ipv6').join(' ')).toBe('-L -f ipv6 -o id,ktimestamp,userspace')
  })

  test('of a release that cannot be read is that of a new one', () => {
    expect(releaseOf('conntrack from tomorrow')).toBe(null)
    expect(listenArguments({ ...tool('1.4.9'), release: NEWEST })).toEqual(listenArguments(tool('1.4.9')))
  })
})

describe('what the tool says', () => {
  test('rows shown', () => {
    expect([shown(12), 'conntrack v0.9.6 (conntrack-tools): 3 flow entries has been shown.', 'conntrack v1.4.7 (conntrack-tools): 3 flow events have been shown.', row(1)].map(rowsShown)).toEqual([12, 3, -1, -1])
  })

  test.each([
    ['mnl_socket_bind: Operation not permitted; conntrack v1.4.7 (conntrack-tools): Can\'t open netlink socket', 'denied'],
    ['conntrack v1.4.7 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this', 'denied'],
    ['nsenter: reassociate to namespace \'ns/net\' failed: Operation not permitted', 'denied'],
    ['nsenter: cannot open /run/netns/blue: No such file or directory', 'missing'],
    ['mnl_socket_open: Protocol not supported; conntrack v1.4.7 (conntrack-tools): Can\'t open netlink socket', 'missing'],
    ['conntrack v1.4.7 (conntrack-tools): Operation failed: Device or resource busy', undefined],
  ])('%s: %s', (words, kind) => {
    expect(refusal(words)?.kind).toBe(kind)
  })

  test('chatter', () => {
    expect([shown(1), '', ENOBUFS[1]!, 'NOTICE: Netlink socket buffer size has been set to 425984 bytes.'].map(isChatter)).toEqual([true, true, true, true])
    expect(['conntrack v1.4.7 (conntrack-tools): failed to received netlink event: Bad file descriptor', 'nsenter: cannot open x'].map(isChatter)).toEqual([false, false])
  })
})

describe('the start', () => {
  test('listens first, then dumps both families; rows stand between their notices and apart from events', async () => {
    scripts({
      listen: `sleep 0.3; socket 0 0; ${lines(event(1), event(2))}; sleep 0.5; ${lines(event(3))}; ${WAIT}`,
      dump: `case "$3" in ipv4) ${lines(row(11), row(12))}; sleep 0.3; ${lines(row(13))}; ${says(shown(3))} ;; ipv6) ${lines(row(14))}; ${says(shown(1))} ;; esac`,
    })
    const reader = await opened()
    expect(calls().slice(0, 2)).toEqual(['-V', '-E -o timestamp,id,ktimestamp,userspace'])
    await until('all is read', () => reader.dumps === 1 && reader.events.length === 3)
    expect(calls().slice(2)).toEqual(['-L -f ipv4 -o id,ktimestamp,userspace', '-L -f ipv6 -o id,ktimestamp,userspace'])
    expect(reader.course.filter((word) => !word.startsWith('event'))).toEqual(['begins', 'row 11', 'row 12', 'row 13', 'row 14', 'ends'])
    expect(reader.events).toEqual([event(1), event(2), event(3)])
    expect([reader.torn, reader.gaps, reader.diagnostics]).toEqual([0, [], []])
    expect([input!.netns, input!.netnsName, input!.isLive, input!.position(0)]).toEqual([statSync(join(dir, 'proc/self/ns/net')).ino, '', true, null])
  })

  test('lines that come in pieces are never torn by rows', async () => {
    scripts({
      listen: `socket 0 0; for n in 1 2 3 4 5; do printf '%s' "${event(1).slice(0, 40)}"; sleep 0.05; printf '%s\\n' "${event(1).slice(40)}"; done; ${WAIT}`,
      dump: `for n in 1 2 3 4; do printf '%s' "${row(11).slice(0, 20)}"; sleep 0.03; printf '%s\\n' "${row(11).slice(20)}"; done; ${says(shown(4))}`,
    })
    const reader = await opened()
    await until('all is read', () => reader.dumps === 1 && reader.events.length === 5)
    expect([reader.torn, reader.rows.length]).toEqual([0, 8])
  })

  test('the event that a row follows from comes before the row, though its pipe is slower', async () => {
    scripts({
      listen: `socket 0 0; until [ -e "$FAKE/rows" ]; do sleep 0.01; done; sleep 0.05; ${lines(event(1))}; ${WAIT}`,
      dump: `[ "$3" = ipv6 ] || ${lines(row(11))}; touch "$FAKE/rows"; sleep 0.2; case "$3" in ipv4) ${says(shown(1))} ;; ipv6) ${says(shown(0))} ;; esac`,
    })
    const reader = await opened({ timing: { holdMs: 1000 } })
    await until('the dump', () => reader.dumps === 1)
    expect(reader.course).toEqual(['begins', 'event 1', 'row 11', 'ends'])
  })

  test('a tool that cannot be seen listening is used all the same, and that is said', async () => {
    scripts({ listen: `rm -r "$FAKE/proc/$$"; ${WAIT}` })
    const reader = await opened({ timing: { listenMs: 100 } })
    await until('the dump', () => reader.dumps === 1)
    expect(reader.diagnostics.join()).toContain('cannot be seen')
  })

  test.each([
    ['it is not permitted', () => scripts({ listen: `${says('mnl_socket_bind: Operation not permitted', "conntrack v1.4.7 (conntrack-tools): no socket")}; exit 1` }), 'denied', 'CAP_NET_ADMIN'],
    ['the kernel has none of it', () => scripts({ listen: `${says('mnl_socket_open: Protocol not supported')}; exit 1` }), 'missing', 'modprobe nf_conntrack_netlink'],
    ['it fails', () => scripts({ listen: `${says('conntrack v1.4.7 (conntrack-tools): unknown')}; exit 2` }), 'broken', 'status 2'],
    ['the namespace is not there', () => rmSync(join(dir, 'proc/self/ns/net')), 'missing', 'namespace'],
  ])('refuses when %s', async (_, prepare, kind, says) => {
    prepare()
    const error = await opened().then(
      () => null,
      (refused: unknown) => refused,
    )
    expect(error).toBeInstanceOf(InputError)
    expect([(error as InputError).kind, (error as InputError).message]).toEqual([kind, expect.stringContaining(says)])
  })

  test('a buffer size that has no effect is told, with what has one', async () => {
    const reader = await opened({ bufferBytes: 8388608 })
    await until('the dump', () => reader.dumps === 1)
    expect(reader.diagnostics.join()).toMatch(/1\.4\.7.*net\.core\.rmem_default=8388608/)
  })
})

describe('what the kernel dropped', () => {
  test('is one gap with the exact count, in the time in which it was lost, and a dump follows', async () => {
    scripts({ listen: `socket 0 0; sleep 0.5; socket 1000 4096; ${says(...ENOBUFS)}; sleep 0.3; socket 2834 4096; sleep 0.3; ${lines(event(1))}; socket 2834 0; ${WAIT}` })
    const reader = await opened()
    const before = Date.now() / 1000
    await until('the gap and the second dump', () => reader.gaps.length === 1 && reader.dumps === 2)
    expect(reader.causes()).toEqual(['netlink_overrun 2834'])
    const { from, to } = reader.gaps[0]!
    expect([from!.sec >= before - 1, to!.sec - from!.sec <= 2]).toEqual([true, true])
    // what waited in the socket comes before the dump
    expect(reader.course.slice(-3)).toEqual(['event 1', 'begins', 'ends'])
    expect(reader.diagnostics).toEqual([])
  })

  test('without a further warning is a further gap', async () => {
    scripts({ listen: `socket 0 0; sleep 0.2; socket 5 0; ${says(...ENOBUFS)}; sleep 2; socket 12 0; ${WAIT}` })
    const reader = await opened()
    await until('the gaps', () => reader.gaps.length === 2)
    expect(reader.causes()).toEqual(['netlink_overrun 5', 'netlink_overrun 7'])
  })

  test('is at least one event where the count cannot be read', async () => {
    scripts({ listen: `socket 0 0; sleep 0.3; rm "$FAKE/proc/$$/net/netlink"; ${says(...ENOBUFS)}; ${WAIT}` })
    const reader = await opened()
    await until('the gap and the second dump', () => reader.gaps.length === 1 && reader.dumps === 2)
    expect(reader.causes()).toEqual(['netlink_overrun >=1'])
  })

  test('ends old releases, which are started again, and is one gap', async () => {
    scripts({
      listen: `rm -f "$FAKE/proc/$$/net/netlink"; socket 0 0; [ -e "$FAKE/again" ] && { ${WAIT}; }; touch "$FAKE/again"; sleep 0.3; rm -r "$FAKE/proc/$$"; ${says(...ENOBUFS, 'conntrack v1.4.3 (conntrack-tools): Operation failed: No buffer space available')}; exit 1`,
    })
    write('version', '1.4.3')
    const reader = await opened()
    await until('the gap and the second dump', () => reader.gaps.length === 1 && reader.dumps === 2)
    expect(reader.causes()).toEqual(['netlink_overrun >=1'])
    expect(reader.gaps[0]!.to).not.toBeNull()
  })
})

describe('the tool', () => {
  test('dies, is started again, and the table is read again', async () => {
    scripts({ listen: `socket 0 0; [ -e "$FAKE/again" ] && { ${lines(event(2))}; ${WAIT}; }; touch "$FAKE/again"; ${lines(event(1))}; printf 'cut'; sleep 0.5; kill -9 $$` })
    const reader = await opened()
    await until('the gap and the second dump', () => reader.gaps.length === 1 && reader.dumps === 2 && reader.events.length === 2)
    expect(reader.causes()).toEqual(['input_restart >=1'])
    expect([reader.events, reader.torn]).toEqual([[event(1), event(2)], 0])
    expect(reader.diagnostics.join()).toContain('SIGKILL')
    const { from, to } = reader.gaps[0]!
    expect(to!.sec + to!.usec / 1e6).toBeGreaterThanOrEqual(from!.sec + from!.usec / 1e6)
  })

  test('says something: the operator is told, once', async () => {
    scripts({ listen: `socket 0 0; sleep 0.3; ${says('strange', 'strange', 'strange')}; ${lines(event(1))}; ${WAIT}` })
    const reader = await opened()
    await until('the event', () => reader.events.length === 1)
    await until('the word', () => reader.diagnostics.length > 0)
    expect(reader.diagnostics).toEqual(['conntrack said: strange'])
  })

  test('a stop ends it and gives what it printed', async () => {
    scripts({ listen: `socket 0 0; trap '${lines(event(2)).replaceAll("'", `'"'"'`)}; exit 0' TERM; ${lines(event(1))}; ${WAIT}` })
    const reader = await opened()
    await until('the dump', () => reader.dumps === 1)
    input!.stop()
    await reader.end
    expect(reader.events).toEqual([event(1), event(2)])
    expect(isAlive(pid())).toBe(false)
  })

  test('a stop while it is asked for its release and does not answer comes to an end, and nothing is left', async () => {
    writeFileSync(join(dir, 'conntrack'), `#!/bin/sh\necho $$ > ${join(dir, 'pid')}\ntrap '' TERM\nwhile :; do sleep 1; done\n`)
    const feed = conntrackFeed(options())
    const opening = feed.open(() => expect.unreachable('nothing was opened'))
    await until('the question', () => existsSync(join(dir, 'pid')) && readFileSync(join(dir, 'pid'), 'utf8').endsWith('\n'))
    feed.stop()
    await opening
    await until('nothing is left', () => !isAlive(pid()))
  })

  test('a stop during a dump and of a tool that hangs comes to an end, and nothing is left', async () => {
    scripts({ dump: `echo $$ >"$FAKE/dump-pid"; ${lines(row(1))}; ${WAIT}` })
    const reader = await opened()
    await until('the row', () => reader.rows.length === 1)
    process.kill(pid(), 'SIGSTOP')
    input!.stop()
    await reader.end
    expect([reader.course, reader.gaps]).toEqual([['begins', 'row 1', 'fails'], []])
    await until('both are gone', () => !isAlive(pid()) && !isAlive(Number(readFileSync(join(dir, 'dump-pid'), 'utf8'))))
  })
})

describe('a tool that hangs', () => {
  const SHORT = { listenMs: 200, answerMs: 300 }

  test('when it is asked for its release is told, killed and used as a new one', async () => {
    writeFileSync(join(dir, 'conntrack'), TOOL.replace(/-V\) .*;;/, `-V) echo $$ >"$FAKE/hung"; ${WAIT} ;;`))
    const reports: string[] = []
    const reader = await opened({ timing: SHORT, report: (message) => reports.push(message) })
    await until('the dump', () => reader.dumps === 1)
    expect(reports).toEqual(['conntrack -V has given no answer in 0.3 s: it is killed, and taken for the newest release'])
    await until('it is gone', () => !isAlive(Number(readFileSync(join(dir, 'hung'), 'utf8'))))
  })

  test('and does not listen is told, killed and started again until it does; only then the input is open', async () => {
    scripts({ listen: `if [ -e "$FAKE/well" ]; then socket 0 0; else printf '%s' '${NETLINK}' >"$FAKE/proc/$$/net/netlink"; fi; ${WAIT}` })
    const reports: string[] = []
    let isOpen = false
    const feed = conntrackFeed(options({ timing: SHORT, report: (message) => reports.push(message) }))
    const opening = feed.open((found) => {
      input = found
      isOpen = true
    })
    await until('two tries', () => reports.length >= 2)
    expect([isOpen, new Set(reports)]).toEqual([false, new Set(['conntrack -E does not listen 0.2 s after its start: it is killed and started again'])])
    write('well', '')
    await opening
    expect(isOpen).toBe(true)
    expect(calls().filter((call) => call.startsWith('-E')).length).toBeGreaterThanOrEqual(3)
  })

  test('and has closed its standard output is told, killed and started again, with a gap', async () => {
    scripts({ listen: `socket 0 0; if ! [ -e "$FAKE/once" ]; then echo >"$FAKE/once"; ${lines(event(1))}; exec >&-; else ${lines(event(2))}; fi; ${WAIT}` })
    const reader = await opened()
    const first = pid()
    await until('the second, and the gap before it', () => reader.events.includes(event(2)) && reader.gaps.length > 0)
    expect(reader.diagnostics).toEqual(['conntrack -E has closed its standard output: it is killed and started again'])
    expect(reader.gaps.map(({ cause }) => cause)).toEqual(['input_restart'])
    expect(isAlive(first)).toBe(false)
  })

  test('when it is asked for the table is told and killed, and asked again', async () => {
    scripts({ dump: `if [ -e "$FAKE/once" ]; then ${says(shown(0))}; else echo $$ >"$FAKE/once"; ${WAIT}; fi` })
    const reader = await opened({ timing: SHORT })
    await until('the second dump', () => reader.dumps === 1)
    expect(reader.diagnostics).toEqual(['reading the connection tracking table failed, it is tried again: conntrack -L has given nothing for 0.3 s and is killed'])
    expect(reader.gaps.map(({ cause }) => cause)).toEqual(['dump_interrupted'])
    expect(isAlive(Number(readFileSync(join(dir, 'once'), 'utf8')))).toBe(false)
  })
})

describe('dumps', () => {
  test('are taken when asked for, and now and then', async () => {
    const reader = await opened({ redumpMs: 1500 })
    await until('the first', () => reader.dumps === 1)
    input!.resync!()
    input!.resync!()
    await until('the second', () => reader.dumps === 2)
    await until('the third', () => reader.dumps === 3)
    expect(reader.gaps).toEqual([])
  })

  test.each([
    ['fails', `${lines(row(1))}; ${says('conntrack v1.4.7 (conntrack-tools): Operation failed: not enough memory')}; exit 1`, 'not enough memory'],
    ['is cut off within a row', `printf 'udp      17 2'; ${says(shown(1))}`, 'cut off'],
    ['has fewer rows than it says', `${lines(row(1))}; ${says(shown(2))}`, 'showed 1 rows and says 2'],
    ['does not say how many', lines(row(1)), 'not how many'],
  ])('one that %s is told, is not the last word, and is tried again', async (_, dump, why) => {
    scripts({ dump: `[ -e "$FAKE/again" ] && { ${says(shown(0))}; exit 0; }; touch "$FAKE/again"; ${dump}` })
    const reader = await opened()
    await until('the second', () => reader.dumps === 1)
    expect(reader.course.filter((word) => !word.startsWith('row'))).toEqual(['begins', 'fails', 'begins', 'ends'])
    expect(reader.causes()).toEqual(['dump_interrupted >=1'])
    expect(reader.diagnostics.join()).toContain(why)
    expect(reader.torn).toBe(0)
  })

  test('of many rows wait for the loop, and none is lost', async () => {
    const rows = 60_000
    scripts({ dump: `[ "$3" = ipv6 ] && { ${says(shown(0))}; exit 0; }; awk 'BEGIN { for (n = 0; n < ${rows}; n++) print "${row(1).replace('sport=1 ', 'sport=" n " ')}" }'; ${says(shown(rows))}` })
    await conntrackFeed(options()).open((found) => (input = found))
    await sleep(1500)
    const reader = new Reader(input!)
    await until('the dump', () => reader.dumps === 1)
    expect(reader.rows.length).toBe(rows)
    expect(reader.rows.every((line, n) => line.includes(`sport=${n} `))).toBe(true)
  })

  test('once: rows are records, there is no listening, and the end comes behind them', async () => {
    scripts({ dump: `${lines(row(1), row(2))}; ${says(shown(2))}` })
    const reader = await opened({ once: true })
    await reader.end
    expect(calls()).toEqual(['-V', '-L -f ipv4 -o id,ktimestamp,userspace', '-L -f ipv6 -o id,ktimestamp,userspace'])
    expect([reader.events.length, reader.course.filter((word) => !word.startsWith('event')), reader.gaps, input!.isLive]).toEqual([4, [], [], false])
  })

  test('once: without permission it is refused, and a failure in the middle is one', async () => {
    scripts({ dump: `${says('conntrack v1.4.7 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this')}; exit 1` })
    await expect(opened({ once: true })).rejects.toMatchObject({ kind: 'denied' })
    scripts({ dump: `${lines(row(1))}; sleep 0.2; exit 1` })
    const reader = await opened({ once: true })
    await reader.end
    expect([reader.events.length, reader.failure]).toEqual([1, expect.stringContaining('conntrack -L exited with status 1')])
  })
})

describe('the queue', () => {
  test('when it is full whole flows are shed, counted exactly, and then the table is read again', async () => {
    const flows = 4000
    const script = `for tag in NEW UPDATE DESTROY; do awk -v tag="$tag" 'BEGIN { for (n = 0; n < ${flows}; n++) print "${event(1).replace('[NEW]', '[" tag "]').replace('sport=1 ', 'sport=" n " ').replaceAll('\t', '\\t')}" }'; done; touch "$FAKE/all"; ${WAIT}`
    scripts({ listen: `socket 0 0; sleep 0.4; ${script}` })
    await conntrackFeed(options({ queueBytes: 400_000 })).open((found) => (input = found))
    await until('it has printed all, though nobody reads', () => existsSync(join(dir, 'all')))
    await sleep(100)
    const reader = new Reader(input!)
    await until('the gap and the dump behind it', () => reader.gaps.length === 1 && reader.dumps === 2)
    const kept = reader.events.length
    expect(reader.causes()).toEqual([`queue_full ${3 * flows - kept}`])
    expect(kept * 150).toBeGreaterThan(400_000 / 4)
    const perFlow = new Map<string, number>()
    for (const line of reader.events) perFlow.set(/sport=(\d+)/.exec(line)![1]!, (perFlow.get(/sport=(\d+)/.exec(line)![1]!) ?? 0) + 1)
    const whole = [...perFlow.values()].filter((n) => n === 3).length
    expect(whole / perFlow.size).toBeGreaterThan(0.5)
    expect(reader.torn).toBe(0)
  })

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('keeps the order, counts every line, never holds more than it may (%i)', (seed) => {
    let now = 1
    let state = seed
    const pick = (n: number): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % n
    const queue = new LineQueue(5000, () => now)
    const into = new Uint8Array(seed % 2 === 0 ? 700 : 100_000)
    let given = ''
    let added = 0
    let notices = 0
    let shed = 0
    for (let n = 0; n < 3000; n++) {
      now++
      if (pick(10) === 0) queue.addNotice({ diagnostic: String(n) })
      else if (pick(10) === 0) queue.addRows(Buffer.from(`row ${n}\n`), now)
      else {
        const count = 1 + pick(4)
        queue.addEvents(Buffer.from(Array.from({ length: count }, (_, k) => `[NEW] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=${pick(50)} dport=${100_000 + n * 10 + k} src=x\n`).join('')))
        added += count
      }
      expect(queue.eventBytes).toBeLessThanOrEqual(5000)
      const most = n < 1500 ? pick(20) === 0 : pick(3) > 0
      for (let k = 0; most && k < 3 && !queue.isEmpty; k++) {
        const taken = queue.take(into)
        notices += taken.notices.length
        given += Buffer.from(into.subarray(0, taken.bytes)).toString('latin1')
      }
    }
    while (!queue.isEmpty) {
      const taken = queue.take(into)
      notices += taken.notices.length
      given += Buffer.from(into.subarray(0, taken.bytes)).toString('latin1')
    }
    shed += queue.takeShed()?.lines ?? 0
    const all = given.split('\n').slice(0, -1)
    const events = all.filter((line) => line.startsWith('[NEW]'))
    expect(events.length + shed).toBe(added)
    expect(shed).toBeGreaterThan(0)
    expect(events.every((line) => /^\[NEW\] udp .* src=x$/.test(line))).toBe(true)
    const order = events.map((line) => Number(/dport=(\d+)/.exec(line)![1]))
    expect(order).toEqual([...order].sort((a, b) => a - b))
    expect(notices).toBeGreaterThan(0)
    expect([queue.eventBytes, queue.rowBytes, queue.isShedding, queue.takeShed()]).toEqual([0, 0, false, null])
  })
})

describe('entries that go without an event', () => {
  const hears = (balance: Balance, ...texts: readonly string[]): void => balance.hear(Buffer.from(texts.map((text) => `${text}\n`).join('')))
  const old = (n: number, tag: string): string => event(n, tag).replace('.239084]', '.239   ]').replace('1795368807', '17953688')

  test('are missed when they are missing three times', () => {
    const balance = new Balance()
    expect([balance.isShort(0), balance.isShort(0), balance.isShort(0)]).toEqual([false, false, false])
    balance.settle(100)
    expect([100, 50, 50].map((n) => balance.isShort(n))).toEqual([false, false, false])
    expect(balance.isShort(50)).toBe(true)
    balance.settle(50)
    expect([50, 50, 50, 50].map((n) => balance.isShort(n))).toEqual([false, false, false, false])
  })

  test('are told from those that events tell of, in the stamps of all releases', () => {
    const balance = new Balance()
    balance.settle(100)
    hears(balance, event(1), event(1, 'UPDATE'), event(2), old(3, 'NEW'), event(1, 'DESTROY'), old(2, 'DESTROY'), event(9, 'DESTROY'), event(8, 'DESTROY'))
    for (let n = 0; n < 5; n++) expect(balance.isShort(99)).toBe(false)
    expect([98, 98, 98].map((n) => balance.isShort(n))).toEqual([false, false, true])
  })

  test('are not missed while events are on their way, unless many are', () => {
    const balance = new Balance()
    balance.settle(10_000)
    const busy = (entries: number): boolean => {
      hears(balance, event(1, 'UPDATE'))
      return balance.isShort(entries)
    }
    for (let n = 0; n < 10; n++) expect(busy(9950)).toBe(false)
    expect([9800, 9800, 9800].map(busy)).toEqual([false, false, true])
  })

  test('the kernel\'s number is read by the name of its column, or by sysctl for the own namespace', () => {
    const proc = join(dir, 'proc')
    expect(entriesOf(proc, 7, true)).toBe(-1)
    mkdirSync(join(proc, 'sys/net/netfilter'), { recursive: true })
    write('proc/sys/net/netfilter/nf_conntrack_count', '12\n')
    expect([entriesOf(proc, 7, true), entriesOf(proc, 7, false)]).toEqual([12, -1])
    mkdirSync(join(proc, '7/net/stat'), { recursive: true })
    write('proc/7/net/stat/nf_conntrack', 'clashres entries found\n00000001  0000001f 00000002\n00000003  0000001f 00000004\n')
    expect(entriesOf(proc, 7, true)).toBe(31)
  })

  test('bring a dump', async () => {
    mkdirSync(join(dir, 'proc/sys/net/netfilter'), { recursive: true })
    write('proc/sys/net/netfilter/nf_conntrack_count', '50\n')
    const reader = await opened()
    await until('the first dump', () => reader.dumps === 1)
    write('proc/sys/net/netfilter/nf_conntrack_count', '0\n')
    await until('the second', () => reader.dumps === 2)
    expect(reader.gaps).toEqual([])
  })
})

describe('whole lines', () => {
  test('of any pieces are the same lines', () => {
    const text = Array.from({ length: 50 }, (_, n) => `${row(n)}\n`).join('')
    for (const size of [1, 7, 100, 333, 100_000]) {
      const whole = new WholeLines(() => {})
      let out = ''
      for (let at = 0; at < text.length; at += size) {
        const piece = Buffer.from(whole.push(Buffer.from(text.slice(at, at + size)))).toString('latin1')
        expect(piece === '' || piece.endsWith('\n')).toBe(true)
        out += piece
      }
      expect(out).toBe(text)
      expect(whole.drop()).toBe(false)
    }
  })

  test('an endless line is skipped and told with its length', () => {
    const long: number[] = []
    const whole = new WholeLines(({ bytes }) => long.push(bytes))
    for (let n = 0; n < 40; n++) expect(whole.push(Buffer.alloc(1 << 16, 120)).length).toBe(0)
    expect(Buffer.from(whole.push(Buffer.from('xx\nnext\n'))).toString()).toBe('next\n')
    expect(long).toEqual([40 * (1 << 16) + 2])
  })
})
