/**
 * The shapes that a part can have. Parts never import each other: the loop holds them together through these.
 */
import type { ExpectEvent, FlowEvent, Gap, KernelEvent, RecordTime, RecordType, TableSample, Time } from './event.js'

/** Local date and time -> seconds since the epoch, NaN for what is no date and time from 1970 to 2105. Month from 1. */
export type LocalClock = (year: number, month: number, day: number, hour: number, minute: number, second: number) => number

/** What a line cannot say itself, and what a format says about the line beside the event. */
export interface LineContext {
  /** time of the read, or a file's modification time */
  receivedSec: number
  receivedUsec: number
  readonly localClock: LocalClock
  /** why the line was rejected */
  reason: string
  /** further lines that the record took */
  extraLines: number
  /** where the text behind a stamp and an event tag begins, for a line that goes on as an expectation */
  bodyAt: number
  expect: ExpectEvent | null
  gap: Gap | null
  kernel: KernelEvent | null
  sample: TableSample | null
  record: OwnRecord | null
  carried: Carried | null
  /** the time of the line that carries the one at hand; null where that stands alone, or has none */
  within: RecordTime | null
  /** that it names; '' none */
  host: string
  /** somebody waits for time to go on: what is none of ours is asked when it was written */
  asksTime: boolean
  /** the answer, of the line at hand or of one that was held back; null it does not say */
  passed: RecordTime | null
  /** what became of lines that a format had held back, oldest first; they are counted now and come before this line */
  readonly settled: Settled[]
  /** when the kernel's monotonic clock was 0, asked for when a line needs it; null where nothing is known */
  readonly boot: () => BootTime | null
  /** what no stamp of the input is after, in seconds, where that is earlier than the receipt; null where nothing is known */
  readonly stampsEnd: () => number | null
  /** something to tell the operator, in one sentence that says what mends it */
  diagnostic: string
  /** a dump of the table ended here (true), or has so many rows (a number) */
  dumpEnd: boolean | number
}

/** For lines of one input; the time of the read is set with each. */
export function newLineContext(localClock: LocalClock, boot: () => BootTime | null, stampsEnd: () => number | null = () => null): LineContext {
  return {
    receivedSec: 0,
    receivedUsec: 0,
    localClock,
    reason: '',
    extraLines: 0,
    bodyAt: 0,
    expect: null,
    gap: null,
    kernel: null,
    sample: null,
    record: null,
    carried: null,
    within: null,
    host: '',
    asksTime: false,
    passed: null,
    settled: [],
    boot,
    stampsEnd,
    diagnostic: '',
    dumpEnd: false,
  }
}

/** A line within a line; the time that the outer one has, for a line without its own, and the host that it names, '' none. */
export interface Carried {
  readonly text: string
  readonly host: string
  readonly time: RecordTime | null
}

/** What a format made of a line. */
export const FLOW = 1
export const EXPECT = 2
export const NOTE = 3
export const IGNORED = 4
export const REJECTED_LINE = 5
/** `context.kernel` is filled */
export const KERNEL = 6
/** the format waits for further lines; it gives the line back in `settled` */
export const HELD = 7
/** one of our own records, which is passed on as it is: `context.record`; with `kernel` or `sample` where detectors should know of it */
export const RECORD = 8
/** another line is in `context.carried`, to be read as if it stood alone */
export const CARRIED = 9
export type Outcome = typeof FLOW | typeof EXPECT | typeof NOTE | typeof IGNORED | typeof REJECTED_LINE | typeof KERNEL | typeof HELD | typeof RECORD | typeof CARRIED

/** A record of ours that was read back: where its bytes are, and what it shows. */
export interface OwnRecord extends RecordTime {
  readonly type: RecordType
  readonly bytes: Uint8Array
  readonly from: number
  readonly to: number
  /** where an id of its own belongs, behind the version (or `from`, the brace, where that is hard to find); -1 it has one */
  readonly idAt: number
  /** large numbers lose digits here */
  readonly keys: Readonly<Record<string, unknown>>
  /** The same bytes again, after they were laid there anew. */
  read(bytes: Uint8Array, from: number, to: number): boolean
}

/** A line that was held back: what it became, with its event for KERNEL, NOTE and RECORD. */
export interface Settled {
  readonly outcome: Outcome
  readonly kernel: KernelEvent | null
  readonly gap: Gap | null
  readonly sample: TableSample | null
  readonly record: OwnRecord | null
  /** why, for REJECTED_LINE, and what of it is shown */
  readonly reason: string
  readonly text: string
}

/** Microseconds since the epoch at which the kernel's clock was 0, and TIME_BOOT or TIME_ESTIMATED. */
export interface BootTime {
  readonly microseconds: number
  readonly source: number
}

/** When kernels were started whose logs a run reads from files, which may tell it of each other. `path`: '' for standard input, a regular file. */
export interface KernelBoots {
  /** A file of the run. */
  add(path: string): void
  /** `modified` in microseconds. Null where nothing is known. */
  of(file: { readonly path: string; readonly modified: number }): BootTime | null
}

/**
 * A format whose lines are told by how they begin. `lineEnd` is the offset of the LF. A format may keep what it needs of the lines before: each input has its
 * own.
 */
export interface LineFormat {
  readonly name: string
  begins(at: number): boolean
  read(at: number, lineEnd: number, event: FlowEvent, context: LineContext): Outcome
  /** Its lines may be indented: `begins` and `read` get the offset behind the blanks. */
  readonly mayBeIndented?: boolean
  /** What it holds is whole as soon as another format's line comes. */
  readonly endsAtOthers?: boolean
  /** The input is at its end, or has been quiet for a second: lines that are held come out in `context.settled`. */
  settle?(context: LineContext): void
}

/** What an input knows beside the bytes that it read; handled before them. */
export interface Notice {
  readonly gap?: Gap
  readonly sample?: TableSample
  /** A dump of the whole table, taken to learn what lives: begun (listeners before it), ended and whole, or broken off. */
  readonly dump?: 'begins' | 'ends' | 'fails'
  /** a line longer than LINE_BYTES_MAX that the input has skipped */
  readonly longLine?: { readonly text: Uint8Array; readonly bytes: number }
  /** one sentence for the operator */
  readonly diagnostic?: string
}

/** What `next` resolves with when there are notices and no bytes. */
export const NOTICES_ONLY = -1

/** Where bytes come from. */
export interface Input {
  /** as the configuration names it, else as given on the command line */
  readonly name: string
  /** the last chunk read, of at most CHUNK_BYTES_MAX; good until the next call of `next` */
  readonly chunk: Uint8Array
  /** what came before the last chunk; the loop takes them all before it asks again */
  readonly notices: readonly Notice[]
  /** the last chunk holds rows of a dump that the program itself asked for: they are tracked, and written only when asked */
  readonly isDump: boolean
  /** reads come back full: records may wait until a page is full */
  readonly isBusy: boolean
  /** it ends only when stopped, and its lines are of now: the clock may close episodes */
  readonly isLive: boolean
  /** network namespace of all its flows, 0 and '' where not known */
  readonly netns: number
  readonly netnsName: string
  /** what record ids of this input begin with, and what follows: the byte offset, a counter, or the event's own position (a counter where it has none) */
  readonly ridPrefix: string
  readonly ridBy: 'offset' | 'counter' | 'position'
  /** byte offset of the first byte that is read */
  readonly offset: number
  /** the loop's; called when a busy input finds nothing to read for now */
  onIdle: () => void
  /** Bytes in `chunk`, 0 at the end, NOTICES_ONLY. Throws what opening or reading met. */
  next(): Promise<number>
  /** microseconds since the epoch for lines without a time */
  receivedMicroseconds(): number
  boot(): BootTime | null
  /** What no stamp of it is after, in seconds; null where that is not known. */
  stampsEnd?(clock: LocalClock): number | null
  /** Whole at its end: what its unfinished last line lacks, with an LF, lay in another input. */
  readonly lineRest?: Uint8Array | undefined
  /** bytes that are there and not given yet, where that is known */
  readonly unreadBytes?: number
  /** how often the program behind it was started again */
  readonly restarts?: number
  /** The counters of a namespace at this very moment, for an input that samples them; null where it does not watch it, or cannot read it at once. */
  look?(netns: number): TableSample | null
  /** How far it is read, as plain data for a checkpoint; null where it cannot go on later. Called between batches; `offset` is of the first byte not worked through. */
  position(offset: number): unknown
  /** Were its position not in the checkpoint, it would begin at the same place again, under the same ids: it may be read before it is remembered. */
  readonly beginsTheSame?: boolean
  /** It was stopped before its end: what is left of an unfinished last line is read again later, and is no line yet. */
  readonly isCutOff?: boolean
  /** Reads the table of live flows anew, as soon as that makes sense: called when what is tracked and what the kernel counts differ. */
  resync?(): void
  /** Read on for a moment at most, then be at the end. */
  stop(): void
  /** Be at the end now. */
  abort(): void
  close(): void
}

/** What gives inputs as it finds them: the files of a glob, the listeners of several namespaces. One input alone is a feed of one. */
export interface Feed {
  readonly name: string
  /** All that was there at the start is handed over: from now on, that a checkpoint has no position means that there was nothing. */
  readonly hasLooked?: boolean
  /** the loop's; called when `hasLooked` becomes true */
  onLooked?: () => void
  /** Opens what is there and hands over each input, now and later. Throws InputError when there is nothing to hope for. Resolves when no further inputs will come. */
  open(add: (input: Input) => void): Promise<void>
  stop(): void
  abort(): void
}

/** Why an input cannot be opened, in a sentence with what mends it. */
export class InputError extends Error {
  readonly kind: 'missing' | 'denied' | 'broken'

  constructor(kind: 'missing' | 'denied' | 'broken', message: string) {
    super(message)
    this.kind = kind
  }
}

/** What anything that was thrown has to say. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** What is known of the kernel whose log an input may bring. */
export interface KernelFacts {
  /** it prints the number of every namespace but the initial one with "table full" (6.18 and later); null: its lines will tell */
  readonly namesNamespaces: boolean | null
  /** inode of its initial network namespace, 0 where not known */
  readonly initialNetns: number
}

/** The level of the connection tracking table as the tracker asks for it: is it known to be, or to have been within 90 s, full? `netns` 0: any. */
export interface FullTable {
  wasFull(netns: number, sec: number): boolean
}

/** Who holds how many entries: a row of an alert's `top`, before they are compared with the kernel's count. */
export interface Held {
  readonly by: string
  readonly value: string
  readonly entries: number
  /** of these, without an answer so far */
  readonly unreplied: number
  /** of these, opened since; absent where no input tells when flows begin */
  readonly new?: number
}

export interface HoldersLook {
  /** entries of that table that are known */
  readonly known: number
  readonly rows: readonly Held[]
}

/** Who holds the entries of a namespace's table (0: of all). Times are microseconds since the epoch. */
export interface TopHolders {
  /** How many entries of it are known. Cheap. */
  known(netns: number): number
  /** Looks at every entry; null: not again so soon. `since`: from when on an entry is new. */
  look(netns: number, now: number, since: number): HoldersLook | null
}

/** Where bytes go. One write at a time. */
export interface Output {
  readonly name: string
  /** Resolves when all of it is written, true; or false when the reader has gone away. Throws when it failed for good. */
  write(bytes: Uint8Array): Promise<boolean>
  /** Resolves when everything written is safe from a crash of the machine. */
  sync?(): Promise<void>
  /** The run ends: what it could not keep and has not told yet it tells now, while records can still be written. */
  tellLosses?(): void
  /** Another program has moved its file away. */
  reopen?(): void
  /** What the spool sheds first would be shed now: flow records and the like are counted with `shed`, and not written at all. */
  readonly isShedding?: boolean
  /** So many were not written; times of the first and the last of them, where known. */
  shed?(count: number, from: Time | null, to: Time | null): void
  /** Grows whenever a write that takes long has got on a little or was tried again: a watchdog's sign of life. */
  readonly attempts?: number
  /** Of an output with a spool, which takes records long before it has written them. */
  status?(): DeliveryStatus
  close(): Promise<void>
}

/** What became of the records of an output with a spool, each counted once. */
export interface DeliveryStatus {
  /** left by an earlier run; dead letters to be sent again; and of these and of what was written those that have come in, be it into the spool, be it lost at once or not for this output */
  readonly found: number
  readonly replayed: number
  readonly taken: number
  /** in the file or the pipe; acknowledged by the receiver */
  readonly sent: number
  /** turned down by the receiver for good, and kept among the dead letters */
  readonly refused: number
  /** not for this output after all */
  readonly filtered: number
  /** lost, by reason */
  readonly lostBy: Readonly<Record<string, number>>
  readonly queueRecords: number
  readonly queueBytes: number
  readonly isWritable: boolean
  /** seconds; null when nothing waits */
  readonly oldestUnacked: number | null
  /** attempts that failed; the last of them, '' none */
  readonly failed: number
  readonly lastError: string
  /** of a receiver alone: whether it is tried; when its certificate ends, milliseconds since the epoch, null where that is not known */
  readonly circuit?: 'closed' | 'open' | 'half-open'
  readonly certificateExpires?: number | null
}

/** One record that waits for its receiver. */
export interface Entry {
  /** its number in the spool: rises by 1 or more, the same again after a restart, never given to another record */
  readonly seq: number
  /** one line without its LF; not to be written into */
  readonly bytes: Uint8Array
  /** the record's type, '' where the line has none */
  readonly type: string
}

/** What fills up between the loop and a receiver, as an output sees it. Everything keeps the order of `append`. */
export interface Queue {
  /** Whole NDJSON lines, which may be used again when it resolves: they are taken, or shed and counted. Waits for room only where the policy is `block`. */
  append(lines: Uint8Array): Promise<void>
  /** Everything appended is on the disk. Throws when that cannot be had: then nothing of it may be acknowledged. */
  sync(): Promise<void>
  /**
   * The oldest records behind `after` (else: behind what is acknowledged), at most so many and so many bytes (LF included), but one at least where there is one. Without
   * `after` all that was handed out before counts as put back. What is handed out is not shed until it is acknowledged or put back; ask again before each new try
   * that comes late, so that what has grown too old can go.
   */
  peek(maxRecords: number, maxBytes: number, after?: number): Promise<readonly Entry[]>
  /** Delivered, or put where it is safe: all handed out up to a number, or just these. */
  ack(done: number | Iterable<number>): void
  /** It is full, and its policy is to keep what matters most: of flow records and the like none would be kept now. */
  readonly isShedding: boolean
  /** So many that were not even appended. */
  shed(count: number, from: Time | null, to: Time | null): void
  /** records not acknowledged */
  readonly length: number
  /** what counts against the limit */
  readonly bytes: number
  /** records, each counted once: left by an earlier run; that came since, kept or not; that are lost, by reason. found + taken = acknowledged + lost + length. */
  readonly found: number
  readonly taken: number
  readonly lostBy: Readonly<Record<string, number>>
  /** false: the disk takes nothing now */
  readonly isWritable: boolean
  /** when the oldest that waits was appended, milliseconds since the epoch; null when nothing waits */
  readonly oldestAt: number | null
  /** everything up to here is acknowledged or lost */
  readonly ackedSeq: number
  /** the output's; called when there is something to peek that was not there before */
  onAvailable: () => void
  /** The last: what waits is there again at the next start, where there is a folder. */
  close(): Promise<void>
}

/** Records that are lost, for a gap record. */
export interface Loss {
  readonly count: number
  readonly reason: string
  /** times of the first and the last of them, where known */
  readonly from: Time | null
  readonly to: Time | null
}

/** A record that a receiver refused for good. */
export interface Refusal {
  /** without its LF */
  readonly record: Uint8Array
  /** HTTP status; 0 where there was no answer */
  readonly status: number
  /** in a few words: `refused`, `too large` */
  readonly reason: string
  /** the answer's body; the first 1,024 bytes are kept. Nothing secret may be in it. */
  readonly body: Uint8Array
}

/** A running output looks so often for what is to be sent again. */
export const REPLAY_EVERY_MS = 2000

/** Where they are kept, to be looked at and sent again. */
export interface DeadLetters {
  /** Resolves when they are safe, true; or false when they cannot be kept and are counted as lost. Never throws. */
  add(refusals: readonly Refusal[]): Promise<boolean>
  /** Hands over what is to be sent again, whole lines, at the start and every REPLAY_EVERY_MS. `take` resolves when the lines are safe (appended and synced); a crash before means again. */
  takeReplays(take: (lines: Uint8Array) => Promise<void>): Promise<void>
}
