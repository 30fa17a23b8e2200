/**
 * `journal`: what the kernel has said, as journald keeps it: `journalctl -o json`, followed, and started again from the last entry's cursor when it dies (it does
 * so when files are vacuumed, systemd#36247), so that nothing is lost and nothing comes twice.
 *
 * It is asked for the entry at the cursor itself, not for those behind it (`--after-cursor` skips one with some filters, systemd#30288 and #38912): the first line
 * must be that entry, which is dropped, else it is gone and so may others be.
 */
import { LINE_BYTES_MAX, CHUNK_BYTES_MAX, TIME_RECEIVED, type GapCause } from '../event.js'
import { type Feed, type Input, InputError } from '../stage.js'
import { Child, type ChildEnd, ChildInput, type ChildOptions, type Environment, howItEnded, saidOnce } from './child.js'

const LF = 10
const PROGRAM = 'journalctl'
/** The kernel's own lines, and journald's word that it missed some. */
const WANTED = ['_TRANSPORT=kernel', '+', '_TRANSPORT=driver', 'SYSLOG_IDENTIFIER=systemd-journald']
/** --all: a long message is not `null`. -o json is as quiet as -q. */
const READ = ['--no-pager', '--all', '-o', 'json']
const CURSOR_KEY = '"__CURSOR":"'
/** The loop may be so far behind what it has taken: a line held back, a batch, and the one asked for. */
const KEPT_BYTES = LINE_BYTES_MAX + 2 * CHUNK_BYTES_MAX

export interface JournalOptions {
  readonly name: string
  /** entries from now on; the whole journal; or those behind `saved`, which without it is now (with `once`: all) */
  readonly from: 'now' | 'start' | 'last'
  /** be at the end when all that is there was read */
  readonly once: boolean
  /** what `position` gave in an earlier run, or null */
  readonly saved: unknown
  readonly env: Environment
}

/** Where a run has got to: the last entry worked through, '' where there was none. */
interface Position {
  readonly cursor: string
}

/** `open` throws InputError where there is no journal, or it may not be read. */
export function journalFeed(options: JournalOptions): Feed {
  let input: Input | null = null
  let state: 'runs' | 'stops' = 'runs'
  let cancel = (): void => {}
  const stop = (): void => {
    state = 'stops'
    cancel()
  }
  return {
    name: options.name,
    open: async (add) => {
      const { newest, cancel: cancelAsking } = askNewest(options.env)
      cancel = cancelAsking
      const last = await newest
      if (state === 'stops' || last === null) return
      const saved = options.from === 'last' ? savedCursor(options.saved) : null
      const begin = saved ?? (options.from === 'now' || (options.from === 'last' && !options.once) ? last : '')
      input = new JournalReader(options, begin, saved !== null).input
      add(input)
    },
    stop: () => {
      stop()
      input?.stop()
    },
    abort: () => {
      stop()
      input?.abort()
    },
  }
}

class JournalReader {
  readonly input: ChildInput
  readonly #once: boolean
  readonly #say: (text: string) => void
  /** of the last line passed on; '' before there was one: then the journal held none */
  #cursor: string
  /** what the run at hand must begin with, '' when that is settled */
  #expected = ''
  /** what the cursor is from: an earlier run of this program, or of journalctl */
  #cause: GapCause
  /** the cursor is of no use: go on with what comes now */
  #fromNow = false
  /** a line without its LF */
  #tail = new Uint8Array(0)
  #lastByte = LF
  #given = 0
  readonly #marks: { readonly end: number; readonly cursor: string }[]

  constructor({ name, once, env }: JournalOptions, begin: string, isSaved: boolean) {
    this.#once = once
    this.#cursor = begin
    this.#cause = isSaved ? 'restart' : 'input_restart'
    this.#marks = [{ end: 0, cursor: begin }]
    this.#say = saidOnce((diagnostic) => this.input.notice({ diagnostic }))
    const facts = {
      name,
      isLive: !once,
      // an entry's position names the journal that it is from
      ridPrefix: 'journal',
      ridBy: 'position' as const,
      // every entry has a time of its own
      boot: () => null,
      position: (offset: number): Position => ({ cursor: (this.#marks.findLast(({ end }) => end <= offset) ?? this.#marks[0]!).cursor }),
    }
    this.input = new ChildInput(facts, () => ({
      ...journalctl(env),
      argv: () => this.#argv(),
      onBytes: (bytes) => this.#onBytes(bytes),
      onStderr: (line) => this.#say(`${PROGRAM} says: ${line}`),
      onEnd: (end) => this.#onEnd(end),
    }))
  }

  #argv(): string[] {
    this.#expected = this.#cursor
    this.#tail = new Uint8Array(0)
    const follow = this.#once ? [] : this.#fromNow ? ['-f', '-n', '0'] : ['-f', '--no-tail']
    return [PROGRAM, ...READ, ...follow, ...(this.#cursor === '' ? [] : [`--cursor=${this.#cursor}`]), ...WANTED]
  }

  /** Passes whole lines on; the beginning of one waits, and is forgotten when journalctl dies there. */
  #onBytes(bytes: Uint8Array<ArrayBuffer>): void {
    const lf = bytes.lastIndexOf(LF)
    const isTooLong = this.#tail.length + bytes.length > LINE_BYTES_MAX
    const end = lf >= 0 || !isTooLong ? lf + 1 : bytes.length
    const whole = end === 0 ? new Uint8Array(0) : joined(this.#tail, bytes.subarray(0, end))
    this.#tail = end === 0 ? joined(this.#tail, bytes) : bytes.subarray(end)
    if (whole.length > 0) this.#pass(whole)
  }

  #pass(lines: Uint8Array): void {
    if (this.#expected !== '') lines = this.#behindCursor(lines)
    if (lines.length === 0) return
    this.#cursor = lastCursor(lines) ?? this.#cursor
    this.#cause = 'input_restart'
    this.#fromNow = false
    this.#give(lines)
  }

  #give(lines: Uint8Array): void {
    this.#lastByte = lines.at(-1)!
    this.#given += lines.length
    this.#marks.push({ end: this.#given, cursor: this.#cursor })
    while (this.#marks[1]!.end <= this.#given - KEPT_BYTES) this.#marks.shift()
    this.input.bytes(lines)
  }

  /** The first lines of a run without the entry that is known, or all of them and a gap. */
  #behindCursor(lines: Uint8Array): Uint8Array {
    const lineEnd = lines.indexOf(LF) + 1
    const isThere = lastCursor(lines.subarray(0, lineEnd)) === this.#expected
    this.#expected = ''
    if (isThere) return lines.subarray(lineEnd)
    this.#lost()
    return lines
  }

  #lost(): void {
    const now = this.input.receivedMicroseconds()
    const time = { sec: Math.floor(now / 1e6), usec: now % 1e6 }
    this.input.notice({ gap: { ...time, timeSource: TIME_RECEIVED, cause: this.#cause, count: -1, atLeast: 1, from: null, to: time } })
  }

  #onEnd(end: ChildEnd): boolean {
    if (this.#lastByte !== LF) this.#give(Uint8Array.of(LF))
    if (end.isStopped) return false
    const how = `${PROGRAM} ${howItEnded(end)}${end.lastWords === '' ? '' : `: ${end.lastWords}`}`
    if (this.#once) {
      this.input.end(end.status === 0 ? null : new InputError('broken', how))
      return false
    }
    this.#fromNow ||= this.#cursor !== '' && /seek to cursor/i.test(end.lastWords)
    if (this.#fromNow) {
      this.#lost()
      this.#cursor = ''
    }
    this.#say(`${how}; it is started again within 30 s${this.#fromNow ? '' : ' and goes on where it was'}`)
    return true
  }
}

/**
 * Asks for the newest entry's cursor ('' where the journal has none), not in JSON, in which journalctl does not tell why it shows nothing. Rejects with InputError
 * for no journal and for one that may not be read. Null when cancelled.
 */
function askNewest(env: Environment): { newest: Promise<string | null>; cancel: () => void } {
  let cancel = (): void => {}
  const newest = new Promise<string | null>((resolve, refuse) => {
    const said: string[] = []
    let shown = ''
    const child = new Child({
      ...journalctl(env),
      argv: () => [PROGRAM, '--no-pager', '-n', '1', '--show-cursor', ...WANTED],
      onBytes: (bytes) => {
        shown += new TextDecoder('latin1').decode(bytes)
      },
      onStderr: (line) => said.push(line),
      onEnd: (end) => {
        const problem = problemOf(said.join('\n'), end)
        if (problem === null) resolve(/^-- cursor: (\S+)$/m.exec(shown)?.[1] ?? '')
        else refuse(problem)
        return false
      },
    })
    cancel = () => {
      child.kill()
      resolve(null)
    }
    child.start()
  })
  return { newest, cancel }
}

/** Texts: systemd src/shared/journal-util.c. */
function problemOf(said: string, end: ChildEnd): InputError | null {
  if (/insufficient permissions|not seeing messages from other users and the system|Permission denied/.test(said)) {
    return new InputError('denied', "the journal's kernel messages may not be read: add this user to the group systemd-journal (in a systemd unit SupplementaryGroups=systemd-journal), or run as root")
  }
  if (/No journal files were (found|opened)/.test(said)) {
    return new InputError('missing', 'there is no journal here: systemd-journald keeps it in /run/log/journal or /var/log/journal, which a container must be given; the input kmsg needs none')
  }
  return end.status === 0 ? null : new InputError('broken', `${PROGRAM} ${howItEnded(end)}${end.lastWords === '' ? '' : `: ${end.lastWords}`}`)
}

function journalctl(env: Environment): Pick<ChildOptions, 'env' | 'comesFrom'> {
  return { env: { ...env, LC_ALL: 'C' }, comesFrom: 'the package systemd; a host without it has no journal, the input kmsg needs none' }
}

function savedCursor(saved: unknown): string | null {
  const { cursor } = (saved ?? {}) as Partial<Position>
  return typeof cursor === 'string' ? cursor : null
}

/** `__CURSOR` of the last line that has one, null where none has. The quotes of its key would be escaped within a value. */
function lastCursor(lines: Uint8Array): string | null {
  const bytes = Buffer.from(lines.buffer, lines.byteOffset, lines.length)
  const key = bytes.lastIndexOf(CURSOR_KEY, undefined, 'latin1')
  if (key < 0) return null
  const from = key + CURSOR_KEY.length
  const end = bytes.indexOf('"', from, 'latin1')
  return end < 0 ? null : bytes.toString('latin1', from, end)
}

function joined(first: Uint8Array<ArrayBuffer>, second: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (first.length === 0) return second
  const bytes = new Uint8Array(first.length + second.length)
  bytes.set(first, 0)
  bytes.set(second, first.length)
  return bytes
}
