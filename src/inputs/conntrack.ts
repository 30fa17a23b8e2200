/**
 * The kernel's connection tracking events, live: starts `conntrack -E`, reads it at once whatever the loop does (the kernel drops what it cannot deliver), tells
 * exactly what was lost on the way, and reads the table with `conntrack -L` when what lives may not be known: at the start, after a loss, and now and then.
 *
 * Listening comes before dumping, and rows wait a moment before they are given, so that the event that made a row what it is comes before the row.
 */
import { statSync } from 'node:fs'
import { evenMilliseconds, nowMicroseconds, wallAt } from '../clock.js'
import { CHUNK_BYTES_MAX, type Gap, type GapCause, type Time, timeOf } from '../event.js'
import { type BootTime, type Feed, type Input, InputError, messageOf, type Notice, NOTICES_ONLY } from '../stage.js'
import { releaseOf } from '../tool-release.js'
import { Child, type ChildEnd, type Environment, howItEnded, saidOnce } from './child.js'
import { Balance, entriesOf } from './conntrack/balance.js'
import { type DumpOver, TableDump } from './conntrack/dump.js'
import { WholeLines } from './conntrack/lines.js'
import { LineQueue, type Taken } from './conntrack/queue.js'
import { isSeenDeaf, type ListeningSocket, listeningSocketOf, listeningSockets } from './conntrack/socket.js'
import {
  bufferSizeHelps,
  COMES_FROM,
  dumpArguments,
  type EventName,
  eventNames,
  isChatter,
  listenArguments,
  NEWEST,
  OVERRUN,
  refusal,
  type ToolOptions,
} from './conntrack/tool.js'

const QUEUE_BYTES = 64 << 20
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']
/** Without it `-o labels` shows nothing but a warning. */
const LABEL_NAMES = '/etc/xtables/connlabel.conf'
/** Lines that come faster than this are taken together: it halves the CPU time at 10,000 events a second. */
const GATHER_MS = 2
const GATHER_BYTES = 1 << 15
/** How often it is looked at whether the tool listens yet, has read all that waits for it, or still loses events. */
const LOOK_MS = 20
const DRAIN_LOOK_MS = 50
const LOSS_LOOK_MS = 200
/** Losses that go on are told so often, and when there was none for a second. */
const LOSS_TOLD_MS = 10_000
const LOSS_OVER_MS = 1000
/** A dump follows the one before after a second, and after three times as long as that took. */
const DUMP_PAUSE_MS = 1000
const DUMP_PAUSE_TIMES = 3
const DUMP_RETRY_MAX_MS = 60_000
/** Dumps because entries are missing come no closer than this, and take a twentieth of the time at most. */
const MISSING_PAUSE_MS = 5000
const MISSING_PAUSE_TIMES = 20
/** What waits for the tool should be read before the dump begins; when it is not by then (the tool hangs), one dump is taken nevertheless. */
const DRAIN_MS = 30_000
/** A tool that does not come back is told after so long, and again after twice that, and so on. */
const RESTART_TOLD_MS = 10_000
const RESTART_TOLD_MAX_MS = 600_000
/** A stop waits so long for the tool to end. */
const STOP_MS = 700

export interface ConntrackOptions {
  /** the input's name */
  readonly name: string
  /** environment of the tool; where it is looked for */
  readonly env: Environment
  /** default all. Without `update` there are no transitions, without `destroy` no ends. */
  readonly events?: readonly EventName[]
  /** another network namespace than this process's: its name for the records, and where it is, `/run/netns/NAME`, `/proc/PID/ns/net` */
  readonly netns?: { readonly name: string; readonly path: string } | null
  /** one dump, whose rows are records, and no listening */
  readonly once?: boolean
  /** what record ids begin with: no other run's */
  readonly random: string
  /** bytes of lines that may wait for the loop */
  readonly queueBytes?: number
  /** between two dumps that nothing asks for; 0: none */
  readonly redumpMs?: number
  /** size of the tool's socket buffer that the user asked for; 0 or absent: as it is */
  readonly bufferBytes?: number
  readonly timing?: Partial<Timing>
  /** what there is to say before it is open */
  readonly report?: (message: string) => void
  /** where the proc file system is */
  readonly proc?: string
}

/** Milliseconds. */
export interface Timing {
  /** the tool listens by then, or goes unseen, or hangs */
  readonly listenMs: number
  /** a tool that is asked something, and says nothing for so long, hangs */
  readonly answerMs: number
  /** the kernel's count of dropped events is read so often */
  readonly pollMs: number
  /** rows wait so long for the events before them, which come through a pipe of their own */
  readonly holdMs: number
}

const TIMING: Timing = { listenMs: 5000, answerMs: 8000, pollMs: 1000, holdMs: 100 }
const REDUMP_MS = 600_000

/** A feed of one input. `open` throws InputError where the tool or the namespace is not there, or what it needs is not permitted. */
export function conntrackFeed(options: ConntrackOptions): Feed {
  let input: ConntrackInput | null = null
  const stopped = new AbortController()
  return {
    name: options.name,
    async open(add) {
      const release = releaseOf(await version(options, stopped.signal)) ?? NEWEST
      if (stopped.signal.aborted) return
      input = new ConntrackInput(options, { release, hasLabelNames: isFile(LABEL_NAMES), events: options.events ?? eventNames, bufferBytes: options.bufferBytes ?? 0 })
      await input.start()
      add(input)
    },
    stop() {
      stopped.abort()
      input?.stop()
    },
    abort() {
      stopped.abort()
      input?.abort()
    },
  }
}

class ConntrackInput implements Input {
  readonly name: string
  readonly isLive: boolean
  readonly ridPrefix: string
  readonly ridBy = 'counter'
  readonly offset = 0
  readonly netnsName: string
  netns: number
  notices: readonly Notice[] = []
  isDump = false
  onIdle = (): void => {}
  readonly #options: ConntrackOptions
  readonly #tool: ToolOptions
  readonly #timing: Timing
  readonly #proc: string
  readonly #queue: LineQueue
  readonly #buffer = new Uint8Array(CHUNK_BYTES_MAX)
  #chunk = this.#buffer.subarray(0, 0)
  #received = 0
  #deliver: ((n: number) => void) | null = null
  #fail: ((error: Error) => void) | null = null
  #failure: Error | null = null
  #gather: NodeJS.Timeout | undefined
  #lastGiven = 0
  #isAtEnd = false
  #isAborted = false
  #isStopping = false
  readonly #env: Environment
  readonly #say = saidOnce((text) => this.#notice({ diagnostic: text }))

  // the listener
  #listener: Child | null = null
  #starts = 0
  #listenerLines = this.#wholeLines()
  /** inodes of sockets that were there before it */
  #before: ReadonlySet<string> = new Set()
  #isListening = false
  #socket = ''
  #onListening: ((error: Error | null) => void) | null = null
  #look: NodeJS.Timeout | undefined
  #poll: NodeJS.Timeout | undefined
  #redump: NodeJS.Timeout | undefined
  /** since when nobody listens: 0, or microseconds */
  #deafSince = 0
  #deafCause: GapCause = 'input_restart'
  #deafPatienceMs = RESTART_TOLD_MS
  #words: string[] = []
  /** the run at hand was given up, and that is said */
  #isGivenUp = false

  // what the kernel dropped; moments are of the even clock, 0 none
  #drops = 0
  #lost = 0
  /** the tool said that it lost something, and how much cannot be read */
  #lostUncounted = false
  #lostFrom = 0
  #lostTo = 0
  /** last look that showed no further loss */
  #soundAt = 0
  #lossLook: NodeJS.Timeout | undefined

  // dumps
  #isDue = false
  /** events wait in the tool's socket that are older than a loss: a dump that begins now is not the last */
  #mustDrain = false
  #dumpTimer: NodeJS.Timeout | undefined
  #dump: TableDump | null = null
  /** microseconds, of the last one */
  #dumpBegun = 0
  #noDumpBefore = 0
  #drainFrom = 0
  /** null where not all beginnings and ends are heard of */
  readonly #balance: Balance | null
  #noMissingBefore = 0
  #dumpFailures = 0

  constructor(options: ConntrackOptions, tool: ToolOptions) {
    this.#options = options
    this.#env = withSystemPath(options.env)
    this.#tool = tool
    this.#timing = { ...TIMING, ...options.timing }
    this.#proc = options.proc ?? '/proc'
    this.name = options.name
    this.isLive = options.once !== true
    this.ridPrefix = options.random
    this.netnsName = options.netns?.name ?? ''
    this.netns = this.#inode()
    this.#balance = tool.events.includes('new') && tool.events.includes('destroy') ? new Balance() : null
    this.#queue = new LineQueue(options.queueBytes ?? QUEUE_BYTES, evenMilliseconds)
    if (this.netns === 0) throw namespaceRefused(this.#namespacePath)
  }

  get chunk(): Uint8Array {
    return this.#chunk
  }

  get isBusy(): boolean {
    return !this.#queue.isEmpty
  }

  /** Resolves when the tool listens (or, `once`, shows its first rows). Throws InputError when it ends before. */
  start(): Promise<void> {
    const { bufferBytes, release } = this.#tool
    if (bufferBytes > 0 && !bufferSizeHelps(release)) {
      this.#say(
        `conntrack ${release.join('.')} does not set the buffer of the socket that it reads events from (its -b has no effect from 1.4.7 on): ` +
          `instead sysctl net.core.rmem_default=${bufferBytes} before it starts, or let the kernel send less with events: [new, destroy]`,
      )
    }
    return new Promise((resolve, fail) => {
      this.#onListening = (error) => {
        this.#onListening = null
        if (error === null) return resolve()
        this.close()
        fail(error)
      }
      if (this.#options.once === true) return this.#startDump()
      this.#startListener()
    })
  }

  next(): Promise<number> {
    if (this.#isAborted) return Promise.resolve(0)
    return new Promise((resolve, fail) => {
      this.#deliver = resolve
      this.#fail = fail
      this.#wake()
    })
  }

  receivedMicroseconds(): number {
    return this.#received === 0 ? nowMicroseconds() : wallAt(this.#received)
  }

  boot(): BootTime | null {
    return null
  }

  position(): null {
    return null
  }

  /** Reads the table anew as soon as that makes sense. */
  resync(): void {
    if (this.#options.once === true || this.#isStopping) return
    this.#isDue = true
    this.#planDump()
  }

  stop(): void {
    if (this.#isStopping || this.#isAborted) return
    this.#isStopping = true
    this.#countDrops()
    this.#tellLoss()
    this.#tellDeaf(evenMilliseconds())
    this.#stopTimers()
    this.#breakOff()
    if (this.#listener === null) return this.#end()
    const timer = setTimeout(() => this.#end(), STOP_MS)
    void this.#listener.stop().then(() => {
      clearTimeout(timer)
      this.#end()
    })
  }

  abort(): void {
    this.#isAborted = true
    this.#end()
  }

  close(): void {
    this.abort()
  }

  /** Nothing further is read; what was read is still given, unless aborted. */
  #end(): void {
    this.#isStopping = true
    this.#isAtEnd = true
    this.#stopTimers()
    this.#tellShed()
    this.#listener?.kill()
    this.#listener = null
    this.#dump?.kill()
    this.#dump = null
    // stopped before it listened
    this.#onListening?.(null)
    this.#wake()
  }

  #stopTimers(): void {
    for (const timer of [this.#look, this.#poll, this.#redump, this.#lossLook, this.#dumpTimer]) clearTimeout(timer)
  }

  // ------------------------------------------------------------------------------------------------------------------------------------------------ to the loop

  #wake(): void {
    if (this.#deliver === null) return
    if (this.#isAborted) return this.#give(0)
    if (this.#gather !== undefined && !this.#isAtEnd) return
    while (!this.#queue.isEmpty) {
      if (!this.#isAtEnd && performance.now() - this.#lastGiven < GATHER_MS && this.#queue.eventBytes + this.#queue.rowBytes < GATHER_BYTES) {
        this.#gather = setTimeout(() => {
          this.#gather = undefined
          this.#wake()
        }, GATHER_MS)
        return
      }
      const taken = this.#take()
      if (taken.bytes === 0 && taken.notices.length === 0) continue
      this.notices = taken.notices
      this.isDump = taken.isRows && this.isLive
      this.#received = taken.isRows ? taken.at : 0
      this.#chunk = this.#buffer.subarray(0, taken.bytes)
      return this.#give(taken.bytes === 0 ? NOTICES_ONLY : taken.bytes)
    }
    if (this.#failure !== null) {
      const fail = this.#fail
      this.#deliver = null
      fail?.(this.#failure)
    } else if (this.#isAtEnd) {
      this.#give(0)
    }
  }

  #take(): Taken {
    // what is noticed meanwhile comes next, not instead
    const deliver = this.#deliver
    this.#deliver = null
    const wasShedding = this.#queue.isShedding
    const taken = this.#queue.take(this.#buffer)
    if (wasShedding && !this.#queue.isShedding) {
      this.#tellShed()
      this.resync()
    }
    this.#dump?.readOn()
    this.#deliver = deliver
    return taken
  }

  #give(n: number): void {
    const deliver = this.#deliver
    clearTimeout(this.#gather)
    this.#gather = undefined
    this.#deliver = null
    this.#lastGiven = performance.now()
    if (n === 0) {
      this.#chunk = this.#buffer.subarray(0, 0)
      this.notices = []
    }
    deliver?.(n)
  }

  #notice(notice: Notice): void {
    this.#queue.addNotice(notice)
    this.#wake()
  }

  #gap(cause: GapCause, lost: { count?: number; atLeast?: number }, from: number, to: number): void {
    const gap: Gap = { ...timeOf(nowMicroseconds()), timeSource: 0, cause, count: lost.count ?? -1, atLeast: lost.atLeast ?? -1, from: wallTime(from), to: wallTime(to) }
    this.#notice({ gap })
  }

  #tellShed(): void {
    const shed = this.#queue.takeShed()
    if (shed !== null) this.#gap('queue_full', { count: shed.lines }, shed.fromMs, shed.toMs)
  }

  #wholeLines(): WholeLines {
    return new WholeLines((longLine) => this.#notice({ longLine }))
  }

  // ----------------------------------------------------------------------------------------------------------------------------------------------- the listener

  /** The tool, in the namespace. The wrapper becomes it, so the process id is the tool's. */
  #command(args: readonly string[]): string[] {
    const { netns } = this.#options
    return netns === undefined || netns === null ? ['conntrack', ...args] : ['nsenter', `--net=${netns.path}`, '--', 'conntrack', ...args]
  }

  get #comesFrom(): string {
    return this.#options.netns == null ? COMES_FROM : `${COMES_FROM}, and nsenter from util-linux`
  }

  get #namespacePath(): string {
    return this.#options.netns?.path ?? `${this.#proc}/self/ns/net`
  }

  /** Of the namespace; 0 where it is not there. */
  #inode(): number {
    try {
      return statSync(this.#namespacePath).ino
    } catch {
      return 0
    }
  }

  get restarts(): number {
    return Math.max(0, this.#starts - 1)
  }

  #startListener(): void {
    const listener = new Child({
      argv: () => this.#command(listenArguments(this.#tool)),
      env: this.#env,
      comesFrom: this.#comesFrom,
      onStart: (pid) => {
        this.#starts++
        this.#listenerStarted(pid)
      },
      onBytes: (bytes) => {
        const lines = this.#listenerLines.push(bytes)
        if (lines.length === 0) return
        this.#balance?.hear(lines)
        this.#queue.addEvents(lines)
        // what prints events listens, even if that cannot be seen
        if (!this.#isListening) this.#listens(listeningSocketOf(this.#proc, listener.pid, this.#before))
        this.#wake()
      },
      onStderr: (line) => this.#listenerSaid(line),
      onMute: () => this.#giveUp('has closed its standard output'),
      onEnd: (end) => this.#listenerEnded(end),
    })
    this.#listener = listener
    this.#before = new Set(listeningSockets(this.#proc, 'self').map(({ inode }) => inode))
    try {
      listener.start()
    } catch (error) {
      this.#listener = null
      if (this.#onListening !== null) this.#onListening(error as Error)
      else this.#say(messageOf(error))
    }
  }

  #listenerStarted(pid: number): void {
    this.#words = []
    this.#isGivenUp = false
    this.#listenerLines = this.#wholeLines()
    this.#socket = ''
    this.#drops = 0
    const until = performance.now() + this.#timing.listenMs
    const look = (): void => {
      if (this.#isListening) return
      const socket = listeningSocketOf(this.#proc, pid, this.#before)
      if (socket !== null) return this.#listens(socket)
      if (performance.now() < until) {
        this.#look = setTimeout(look, LOOK_MS)
        return
      }
      if (isSeenDeaf(this.#proc, pid, this.#before)) {
        this.#giveUp(`does not listen ${this.#timing.listenMs / 1000} s after its start`)
        this.#listener?.giveUp()
        return
      }
      this.#say(`it cannot be seen in ${this.#proc}/${pid}/net/netlink whether conntrack listens: events that it loses are not counted`)
      this.#listens(null)
    }
    clearTimeout(this.#look)
    look()
  }

  #listens(socket: ListeningSocket | null): void {
    clearTimeout(this.#look)
    this.#isListening = true
    this.#socket = socket?.inode ?? ''
    this.#soundAt = evenMilliseconds()
    this.#tellDeaf(this.#soundAt)
    this.#deafSince = 0
    clearTimeout(this.#poll)
    this.#poll = setInterval(() => this.#onPoll(), this.#timing.pollMs)
    const redumpMs = this.#options.redumpMs ?? REDUMP_MS
    clearTimeout(this.#redump)
    if (redumpMs > 0) this.#redump = setInterval(() => this.resync(), redumpMs)
    this.resync()
    this.#onListening?.(null)
  }

  #listenerSaid(line: string): void {
    if (line === OVERRUN) {
      if (this.#countDrops() === null) this.#lostUncounted = true
      // a release that ends here takes its count with it
      if (this.#lost > 0 || this.#lostUncounted) this.#awaitEndOfLoss()
    } else if (!isChatter(line)) {
      this.#words.push(line)
      if (this.#words.length > 8) this.#words.shift()
      // before it listens they are the reason why it ends
      if (this.#onListening === null && !this.#isStopping) this.#say(`conntrack said: ${line}`)
    }
  }

  /** A tool that is no use any more is killed and started again, as one that died. Until the input is open there is no loop to say it. */
  #giveUp(what: string): void {
    this.#isGivenUp = true
    const text = `conntrack -E ${what}: it is killed and started again`
    if (this.#onListening === null) this.#say(text)
    else this.#options.report?.(text)
  }

  #listenerEnded(end: ChildEnd): boolean {
    if (this.#isStopping) return false
    clearTimeout(this.#look)
    const words = this.#words.join('; ')
    if (this.#isGivenUp && !this.#isListening) return true
    if (this.#onListening !== null) {
      this.#onListening(endedBefore(end, words))
      return false
    }
    this.#listenerLines.drop()
    const mends = refusal(words)?.mends
    if (!this.#isGivenUp) this.#say(`conntrack ${howItEnded(end)}; it is started again${mends === undefined ? '' : `: ${mends}`}`)
    if (!this.#isListening) return true
    this.#deaf()
    return true
  }

  /** From here on nobody listens. Old releases end at a loss: then that is why. */
  #deaf(): void {
    clearTimeout(this.#look)
    clearTimeout(this.#poll)
    clearTimeout(this.#lossLook)
    clearTimeout(this.#dumpTimer)
    this.#lossLook = undefined
    this.#dumpTimer = undefined
    this.#isListening = false
    this.#deafSince = evenMilliseconds()
    this.#deafCause = 'input_restart'
    this.#deafPatienceMs = RESTART_TOLD_MS
    if (this.#lostUncounted && this.#lost === 0) {
      this.#deafCause = 'netlink_overrun'
      this.#deafSince = this.#lostFrom
      this.#lossTold()
    }
    this.#tellLoss()
    this.#poll = setInterval(() => {
      if (evenMilliseconds() - this.#deafSince > this.#deafPatienceMs) {
        this.#tellDeaf(evenMilliseconds())
        this.#deafSince = evenMilliseconds()
        this.#deafCause = 'input_restart'
        this.#deafPatienceMs = Math.min(RESTART_TOLD_MAX_MS, this.#deafPatienceMs * 2)
      }
      this.#followNamespace()
    }, this.#timing.pollMs)
  }

  #tellDeaf(to: number): void {
    if (this.#deafSince !== 0) this.#gap(this.#deafCause, { atLeast: 1 }, this.#deafSince, to)
  }

  #onPoll(): void {
    if (this.#followNamespace()) return
    this.#countDrops()
    if (this.#lost > 0) this.#awaitEndOfLoss()
    if (this.#balance?.isShort(this.#entries()) === true && this.#dump === null && performance.now() >= this.#noMissingBefore) this.resync()
    const { shedSince } = this.#queue
    if (shedSince !== 0 && evenMilliseconds() - shedSince > LOSS_TOLD_MS) this.#tellShed()
  }

  #entries(): number {
    return entriesOf(this.#proc, this.#listener?.pid ?? 0, this.#options.netns == null)
  }

  /** A namespace that is gone, or is another by that name, lives on in the child that listens in it: lets it go, and follows the name. True when it changed. */
  #followNamespace(): boolean {
    if (this.#options.netns === undefined || this.#options.netns === null) return false
    const inode = this.#inode()
    // without a listener that keeps the old one, the next may have its number
    if (this.#listener !== null && inode === this.netns) return false
    if (this.#listener !== null) {
      this.#say(`the network namespace ${this.#options.netns.name || this.#options.netns.path} is gone${inode === 0 ? '' : ', another one has its name'}`)
      if (this.#isListening) this.#deaf()
      this.#listener.kill()
      this.#listener = null
      this.#breakOff()
    }
    if (inode === 0) return true
    this.netns = inode
    this.#startListener()
    return true
  }

  // ----------------------------------------------------------------------------------------------------------------------------------- what the kernel dropped

  /** The kernel's count of events that it dropped for this socket; null where it cannot be read. */
  #countDrops(): number | null {
    const pid = this.#listener?.pid ?? 0
    if (this.#socket === '' || pid === 0) return null
    const socket = listeningSockets(this.#proc, pid).find(({ inode }) => inode === this.#socket)
    if (socket === undefined) return null
    const now = evenMilliseconds()
    const grown = socket.drops - this.#drops
    this.#drops = socket.drops
    if (grown > 0) {
      if (this.#lost === 0) this.#lostFrom = this.#soundAt
      this.#lost += grown
      this.#lostTo = now
    }
    this.#soundAt = now
    return socket.drops
  }

  /** A loss is told when it is over, so that one loss is one gap. */
  #awaitEndOfLoss(): void {
    this.#mustDrain = true
    if (this.#lossLook !== undefined) return
    if (this.#lostFrom === 0) this.#lostFrom = this.#soundAt
    if (this.#lostTo === 0) this.#lostTo = evenMilliseconds()
    const begun = evenMilliseconds()
    this.#lossLook = setInterval(() => {
      this.#countDrops()
      const now = evenMilliseconds()
      if (now - this.#lostTo < LOSS_OVER_MS && now - begun < LOSS_TOLD_MS) return
      this.#tellLoss()
    }, LOSS_LOOK_MS)
    this.resync()
  }

  #tellLoss(): void {
    clearTimeout(this.#lossLook)
    this.#lossLook = undefined
    if (this.#lost > 0) this.#gap('netlink_overrun', { count: this.#lost }, this.#lostFrom, this.#lostTo)
    else if (this.#lostUncounted) this.#gap('netlink_overrun', { atLeast: 1 }, this.#lostFrom, this.#lostTo)
    else return
    // a dump that began since then has seen all of it already
    if (this.#lostTo >= this.#dumpBegun) this.resync()
    this.#lossTold()
  }

  #lossTold(): void {
    this.#lost = 0
    this.#lostUncounted = false
    this.#lostFrom = 0
    this.#lostTo = 0
  }

  // ----------------------------------------------------------------------------------------------------------------------------------------------------- dumps

  #planDump(): void {
    if (!this.#isDue || this.#isStopping || !this.#isListening || this.#dump !== null || this.#dumpTimer !== undefined) return
    const wait = Math.max(this.#noDumpBefore - performance.now(), this.#mustDrain ? DRAIN_LOOK_MS : 0)
    this.#dumpTimer = setTimeout(() => {
      this.#dumpTimer = undefined
      if (this.#isDrained()) this.#startDump()
      else this.#planDump()
    }, wait)
  }

  /** Has the tool read what waited for it when the loss was met? Those events are older than the dump, but would come behind its beginning. */
  #isDrained(): boolean {
    if (!this.#mustDrain) return true
    const pid = this.#listener?.pid ?? 0
    const queued = listeningSockets(this.#proc, pid).find(({ inode }) => inode === this.#socket)?.queued ?? 0
    if (queued === 0) {
      this.#mustDrain = false
      this.#drainFrom = 0
      // it has them, and is about to print them
      this.#noDumpBefore = performance.now() + this.#timing.holdMs
      return false
    }
    if (this.#drainFrom === 0) this.#drainFrom = performance.now()
    if (performance.now() - this.#drainFrom < DRAIN_MS) return false
    this.#drainFrom = Infinity
    return true
  }

  #startDump(): void {
    this.#isDue = this.#mustDrain
    this.#dumpBegun = evenMilliseconds()
    // before it, so that nothing goes between the two unseen
    if (this.#balance !== null && this.isLive) this.#balance.settle(this.#entries())
    if (this.isLive) this.#notice({ dump: 'begins' })
    this.#dump = new TableDump({
      argv: (family) => this.#command(dumpArguments(this.#tool, family)),
      env: this.#env,
      comesFrom: this.#comesFrom,
      holdMs: this.isLive ? this.#timing.holdMs : 0,
      answerMs: this.#timing.answerMs,
      onRows: (rows, at) => {
        this.#onListening?.(null)
        this.#queue.addRows(rows, at)
        this.#wake()
      },
      rowsWaiting: () => this.#queue.rowBytes,
      onLongLine: (longLine) => this.#notice({ longLine }),
      onOver: (over) => this.#dumpOver(over),
    })
    this.#dump.start()
  }

  #dumpOver(over: DumpOver): void {
    this.#dump = null
    if (!this.isLive) return this.#onceOver(over)
    const now = evenMilliseconds()
    const tookMs = now - this.#dumpBegun
    if (over.failure === '') {
      this.#dumpFailures = 0
      this.#noDumpBefore = performance.now() + Math.max(DUMP_PAUSE_MS, tookMs * DUMP_PAUSE_TIMES)
      this.#noMissingBefore = performance.now() + Math.max(MISSING_PAUSE_MS, tookMs * MISSING_PAUSE_TIMES)
      this.#notice({ dump: 'ends' })
    } else {
      this.#noDumpBefore = performance.now() + Math.min(DUMP_RETRY_MAX_MS, DUMP_PAUSE_MS * 2 ** this.#dumpFailures++)
      this.#isDue = true
      this.#notice({ dump: 'fails' })
      this.#gap('dump_interrupted', { atLeast: 1 }, this.#dumpBegun, now)
      this.#say(`reading the connection tracking table failed, it is tried again: conntrack -L ${over.failure}`)
    }
    this.#planDump()
  }

  /** There is nobody left to read it for. */
  #breakOff(): void {
    if (this.#dump === null) return
    this.#dump.kill()
    this.#dump = null
    if (this.isLive) this.#notice({ dump: 'fails' })
  }

  #onceOver({ failure, end, words }: DumpOver): void {
    if (failure !== '' && this.#onListening !== null) this.#onListening(end !== null ? endedBefore(end, words) : new InputError('broken', `conntrack -L ${failure}`))
    else if (failure !== '') this.#failure = new Error(`conntrack -L ${failure}`)
    this.#end()
  }
}

function endedBefore(end: ChildEnd, words: string): InputError {
  const said = words === '' ? '' : ` (it said: ${words})`
  const why = refusal(words)
  if (why !== null) return new InputError(why.kind, `conntrack ${why.kind === 'denied' ? 'was not permitted' : 'cannot listen'}: ${why.mends}${said}`)
  return new InputError('broken', `conntrack ${howItEnded(end)} before it listened${said}`)
}

function namespaceRefused(path: string): InputError {
  try {
    statSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') {
      return new InputError('denied', `the network namespace ${path} may not be looked at: run as root, or AmbientCapabilities=CAP_SYS_PTRACE CAP_SYS_ADMIN CAP_NET_ADMIN in its systemd unit`)
    }
  }
  return new InputError('missing', `the network namespace ${path} is not there: ip netns list shows the names`)
}

/** What the tool says of its release; a tool that does not answer is not waited for when the run is to end. */
function version(options: ConntrackOptions, stopped: AbortSignal): Promise<string> {
  return new Promise((resolve, fail) => {
    let text = ''
    const child = new Child({
      argv: () => ['conntrack', '-V'],
      env: options.env,
      comesFrom: COMES_FROM,
      onBytes: (bytes) => {
        text += Buffer.from(bytes).toString('latin1')
      },
      onStderr: () => {},
      onEnd: () => {
        resolve(text)
        return false
      },
    })
    try {
      child.start()
      const giveUp = (): void => {
        child.kill()
        resolve('')
      }
      const { answerMs } = { ...TIMING, ...options.timing }
      setTimeout(() => {
        if (child.pid === 0) return
        options.report?.(`conntrack -V has given no answer in ${answerMs / 1000} s: it is killed, and taken for the newest release`)
        giveUp()
      }, answerMs).unref()
      if (stopped.aborted) giveUp()
      else stopped.addEventListener('abort', giveUp, { once: true })
    } catch (error) {
      fail(error)
    }
  })
}

/** The tool is where administrators' programs are; nsenter looks for it in PATH alone. */
function withSystemPath(env: Environment): Environment {
  return { ...env, PATH: [...(env['PATH'] ?? '').split(':'), ...SYSTEM_PATH].filter((directory) => directory !== '').join(':') }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Of a moment of the even clock; 0 is none. */
function wallTime(evenMs: number): Time | null {
  return evenMs === 0 ? null : timeOf(wallAt(evenMs))
}
