/**
 * The shapes that a part can have. Parts never import each other: the loop holds them together through these.
 */
import type { ExpectEvent, FlowEvent, Gap } from './event.js'

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
  /** something to tell the operator, in one sentence that says what mends it */
  diagnostic: string
  /** a dump of the table ended here (true), or has so many rows (a number) */
  dumpEnd: boolean | number
}

/** What a format made of a line. */
export const FLOW = 1
export const EXPECT = 2
export const NOTE = 3
export const IGNORED = 4
export const REJECTED_LINE = 5
export type Outcome = typeof FLOW | typeof EXPECT | typeof NOTE | typeof IGNORED | typeof REJECTED_LINE

/** A format whose lines are told by how they begin. `lineEnd` is the offset of the LF. */
export interface LineFormat {
  readonly name: string
  begins(at: number): boolean
  read(at: number, lineEnd: number, event: FlowEvent, context: LineContext): Outcome
}

/** Where bytes come from. */
export interface Input {
  readonly name: string
  /** the last chunk read; good until the next call of `next` */
  readonly chunk: Uint8Array
  /** reads come back full: records may wait until a page is full */
  readonly isBusy: boolean
  /** what record ids of this input begin with; `ridByOffset` says whether the byte offset follows, or a counter */
  readonly ridPrefix: string
  readonly ridByOffset: boolean
  /** byte offset of the first byte that is read */
  readonly offset: number
  /** called when a busy input finds nothing to read for now */
  onIdle: () => void
  /** Bytes in `chunk`, 0 at the end. Throws what opening or reading met. */
  next(): Promise<number>
  /** microseconds since the epoch for lines without a time */
  receivedMicroseconds(): number
  /** Read on for a moment at most, then be at the end. */
  stop(): void
  /** Be at the end now. */
  abort(): void
  close(): void
}

/** Where bytes go. One write at a time. */
export interface Output {
  readonly name: string
  /** Resolves when all of it is written, true; or false when the reader has gone away. Throws when it failed for good. */
  write(bytes: Uint8Array): Promise<boolean>
  close(): Promise<void>
}
