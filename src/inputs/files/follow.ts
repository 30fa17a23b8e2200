/**
 * One followed file: read by offset from its descriptor, whatever name it has by now, to the last line. Every read begins with the bytes just before the place that
 * was reached, so that a file which was cut, or replaced in place, is never read on as if nothing had happened: it begins anew as a new generation, an input of
 * its own. A read of nothing is also how growth is looked for: cheaper than asking for the size first.
 */
import type { BigIntStats } from 'node:fs'
import { CHUNK_BYTES_MAX, type Gap, type GapCause, TIME_RECEIVED, timeOf } from '../../event.js'
import { type BootTime, type Input, type LocalClock, type Notice, NOTICES_ONLY } from '../../stage.js'
import { nowMicroseconds } from '../../clock.js'
import { type Descriptors, type Gate, type Holder, closing, opened, readAt, readInto, statOf } from './descriptors.js'
import { folderOf } from './glob.js'
import { type Anchor, ANCHOR_BYTES, anchorAt, type Head, HEAD_BYTES, hasAnchor, hasHead, hashOf, type Identity, identityOf, keyOf, NO_ANCHOR, NO_HEAD, type Position, savedPath, shown } from './identity.js'

const LF = 10
/** A hole of this many NUL bytes is passed over wherever it is; at the very beginning any. */
const HOLE_BYTES = 4096
/** Smaller pieces are copied out, so that the buffer is free for others at once. */
const SMALL_BYTES = 1 << 14
const SPARE_BUFFERS = 4
/** Positions of which the bytes before are remembered: the loop asks for one that is a batch or two behind. */
const MARKS = 8
/** After trouble with a file it is tried again, first so soon, then seldom. */
const RETRY_MS = 250
const RETRY_MOST_MS = 5000
/** a file server's word for a file that it has replaced */
const ESTALE = 116
/** What was not written to for so long is looked at seldom. */
const OLD_MICROSECONDS = 10_000_000
const NOTHING = new Uint8Array(0)
const NO_NOTICES: readonly Notice[] = []

/** What every file of a feed shares. */
export interface Shared {
  readonly name: string
  readonly once: boolean
  readonly pollMs: number
  readonly idleMs: number
  readonly rotateWaitMs: number
  readonly partialLineMs: number | null
  readonly descriptors: Descriptors
  readonly gate: Gate
  readonly buffers: Buffers
  readonly boot: (file: FileTail) => BootTime | null
  /** of a rotated set, by path: what no stamp in a file is after; what its last line lacks */
  stampsEnd(path: string, clock: LocalClock): number | null
  restOf(path: string): Uint8Array | undefined
  diagnose(message: string): void
  /** once for each `about` */
  tellOnce(about: string, message: string): void
  add(input: Input): void
  /** all of it was given */
  ended(input: Input): void
  /** more files are looked at often than may be open: each look would open one of them and close another, and the rescan sees as much */
  readonly isCrowded: boolean
  /** looked at again soon */
  heat(file: FollowedFile): void
  /** all that is there was read */
  onEnd(file: FollowedFile): void
  /** its path leads elsewhere */
  onLost(): void
  /** What was there is gone from the file. Resolves with whether a copy was found that holds what was not read yet. */
  onReplaced(file: FollowedFile, before: Content): Promise<boolean>
  onDone(file: FollowedFile): void
}

/** What the clock of lines that count from boot is guessed by. */
export interface FileTail {
  /** microseconds since the epoch */
  readonly modified: number
  readonly path: string
}

/** One generation of a file: how it began, and how far it was read. */
export interface Content {
  readonly id: string
  readonly generation: number
  head: Head
  /** the oldest first */
  marks: Anchor[]
  offset: number
  size: number
  /** the generation before */
  before: Content | null
}

export class Buffers {
  readonly bytes: number
  readonly #spare: Uint8Array[] = []

  /** `bytes`: largest piece */
  constructor(bytes: number) {
    this.bytes = Math.min(bytes, CHUNK_BYTES_MAX)
  }

  take(): Uint8Array {
    return this.#spare.pop() ?? new Uint8Array(ANCHOR_BYTES + this.bytes)
  }

  give(buffer: Uint8Array): void {
    if (this.#spare.length < SPARE_BUFFERS) this.#spare.push(buffer)
  }
}

export class FollowedFile implements Holder {
  readonly identity: Identity
  readonly key: string
  path: string
  lastPlace = ''
  content: Content
  /** microseconds since the epoch */
  modified: number
  /** since when no path that is followed leads here; NaN while one does */
  awaySince = NaN
  /** the path that it was renamed from; '' while it was not */
  renamedFrom = ''
  /** since when another file is at that path, so that an unfinished last line is its last; NaN while none is */
  replacedSince = NaN
  /** may not be read before all that is in this one was: what was rotated away comes first */
  waitsFor: object | null = null
  isDone = false
  /** what came and went after it, at the path at which it was, was looked for */
  isSearched = false
  /** away, and so many looks in a row have not found it anywhere */
  missed = 0
  /** away, and it has no name left */
  isDeleted = false
  /** that path; '' while one that is followed leads here */
  origin = ''
  /** when it is looked at next, while it is looked at often */
  #due = 0
  #pause: number
  #lastGrowth = 0
  #isReading = false
  /** others that wait for its end; and of these, those that waited when the read at hand began: what it finds is no end for the others */
  #awaited = 0
  #awaitedAtRead = 0
  /** reads from the descriptor that are under way: closed now, its number would be another file's */
  #uses = 0
  #isClosed = false
  /** what is open cannot be read: opened anew when nobody reads it any more */
  #isStale = false
  #isGivenUp = false
  #isAtEnd = false
  /** written to since the last read, without having grown; or perhaps */
  #isTouched = false
  #tail: Uint8Array = NOTHING
  /** as far as this only NULs were found, beyond `content.offset` */
  #zerosTo = 0
  #troubles = 0
  #trouble = ''
  #input: FileInput
  #hasBegun = false
  readonly #shared: Shared

  /** Nothing is opened yet: `stat` is what the path leads to. */
  constructor(shared: Shared, path: string, stat: BigIntStats, content: Content) {
    this.#shared = shared
    this.path = path
    this.identity = identityOf(stat)
    this.key = keyOf(this.identity)
    this.modified = Number(stat.mtimeNs / 1000n)
    this.content = content
    // gone before it could be opened, it is known what is missing
    content.size = Math.max(content.size, Number(stat.size))
    this.#pause = shared.pollMs
    this.#input = new FileInput(this, shared.name, content, content.offset)
  }

  get mayClose(): boolean {
    return this.#uses === 0 && Number.isNaN(this.awaySince)
  }

  get isOpen(): boolean {
    return this.#shared.descriptors.get(this) !== null
  }

  get isOnce(): boolean {
    return this.#shared.once
  }

  boot(): BootTime | null {
    return this.#shared.boot(this)
  }

  stampsEnd(clock: LocalClock): number | null {
    return this.#shared.stampsEnd(this.path, clock)
  }

  get lineRest(): Uint8Array | undefined {
    return this.#shared.restOf(this.path)
  }

  giveBack(buffer: Uint8Array): void {
    this.#shared.buffers.give(buffer)
  }

  /** For a checkpoint: how far it is worked through, with what stands before that, or before the nearest place whose bytes are known. */
  positionIn(content: Content, offset: number): Position {
    // beside the path at which it was, it is found by what it is; that path tells what came after it
    const path = this.origin !== '' && folderOf(this.origin) === folderOf(this.path) ? this.origin : this.path
    const position = { ...savedPath(path), ...this.identity, id: content.id, ...readingOf(content, offset) }
    return content.before === null ? position : { ...position, before: readingOf(content.before, content.before.offset) }
  }

  get isAtEnd(): boolean {
    return this.#isAtEnd
  }

  /** Hands its input to the loop. */
  start(): void {
    this.#shared.add(this.#input)
  }

  /** A path leads here, and the file is so large and so old. */
  seen(path: string, stat: BigIntStats): void {
    if (path !== this.path) this.renamedFrom = this.path
    this.path = path
    this.origin = ''
    this.awaySince = NaN
    const modified = Number(stat.mtimeNs / 1000n)
    const size = Number(stat.size)
    if (!this.#isAtEnd) this.content.size = Math.max(this.content.size, size)
    if (size === this.content.offset && modified === this.modified) return
    if (size !== this.content.offset) this.#pause = this.#shared.pollMs
    this.#isTouched ||= modified !== this.modified
    this.modified = modified
    this.look()
  }

  /** No path leads here any more. */
  away(now: number): void {
    this.awaySince = now
    this.origin = this.path
    this.isSearched = false
    // it may have been written anew since it was looked at, and nobody will see its age again
    this.#isTouched = true
    this.look()
  }

  /** Another file is where it was. */
  replaced(now: number): void {
    this.replacedSince = now
    this.look()
  }

  /** It came to `origin` and was gone from there before it was found. */
  strays(now: number, origin: string): void {
    this.awaySince = now
    this.origin = origin
  }

  /** Opens it though it is not its turn yet: by then it may have no name left to be opened by. */
  hold(): void {
    this.#using(async () => {}).catch(() => {})
  }

  /** Another file begins when this one is read to its end. */
  await(): void {
    this.#awaited++
    this.look()
  }

  /** Looks now, and often for a while. */
  look(): void {
    if (this.isDone) return
    this.#due = 0
    this.#shared.heat(this)
    this.wake()
  }

  /** Called often while it is looked at often. False when that is no longer needed: the rescan sees what changes. */
  poll(now: number): boolean {
    if (this.isDone) return false
    if (now >= this.#due) this.wake()
    return this.#isHot
  }

  /** To be looked at often: the rescan alone would be late, or does not see it. */
  get #isHot(): boolean {
    return this.#pause < this.#shared.idleMs || !Number.isNaN(this.awaySince) || this.#hasPartialLine || this.#troubles > 0 || !this.#isAtEnd
  }

  wake(): void {
    if (this.#isReading || this.#isClosed || this.#isGivenUp || this.waitsFor !== null || !this.#input.isWaiting) return
    this.#isReading = true
    this.#shared.gate
      .pass(() => this.#using((fd) => this.#read(fd)))
      .then(
        () => {
          this.#troubles = 0
          this.#trouble = ''
        },
        (error: unknown) => this.#fails(error as NodeJS.ErrnoException),
      )
      .finally(() => {
        this.#isReading = false
        // the loop may have asked for more meanwhile
        if (!this.#isAtEnd && this.#troubles === 0) this.wake()
      })
  }

  /** No more will come, or none is wanted. */
  finish(gap: Gap | null): void {
    if (this.isDone) return
    this.isDone = true
    if (gap !== null) {
      this.#input.tell({ gap })
      // the rest of its last line is lost too, and counted
      this.#input.isCutOff = true
    }
    this.#ends(this.#input)
    this.close()
    this.#shared.onDone(this)
  }

  /** No more reads; the descriptor goes when the last one is back. */
  close(): void {
    this.#isClosed = true
    void this.#dropUnused()
  }

  #ends(input: FileInput): void {
    input.end()
    this.#shared.ended(input)
  }

  /** Bytes known to be there and not read, and whether no name is left to the file. Null where it is not open. */
  async unread(): Promise<{ readonly bytes: number; readonly isDeleted: boolean } | null> {
    const stat = await this.#usingOpen(statOf)
    if (stat === null) return null
    this.content.size = Math.max(this.content.size, Number(stat.size))
    return { bytes: Math.max(0, Number(stat.size) - this.content.offset), isDeleted: stat.nlink === 0n }
  }

  /** Lines that the loop has not been given, and will not be; -1 where that cannot be known. */
  async linesLeft(): Promise<number> {
    this.#isGivenUp = true
    return (await this.#usingOpen((fd) => this.#linesFrom(fd, this.#input.given)).catch(() => null)) ?? -1
  }

  async #linesFrom(fd: number, from: number): Promise<number> {
    const buffer = this.#shared.buffers.take()
    let lines = 0
    let last = LF
    try {
      for (let at = from; ; ) {
        const n = await readInto(fd, buffer, buffer.length, at)
        if (n === 0) return lines + (last === LF ? 0 : 1)
        for (let lf = buffer.indexOf(LF); lf >= 0 && lf < n; lf = buffer.indexOf(LF, lf + 1)) lines++
        last = buffer[n - 1]!
        at += n
      }
    } finally {
      this.#shared.buffers.give(buffer)
    }
  }

  /** Bytes of the file as it is now; none where it cannot be opened. */
  async bytesAt(from: number, length: number): Promise<Uint8Array> {
    return (await this.#using((fd) => readAt(fd, from, length))) ?? NOTHING
  }

  async #read(fd: number): Promise<void> {
    const { buffers } = this.#shared
    this.#awaitedAtRead = this.#awaited
    if (!this.#hasBegun && this.content.offset > 0 && !(await this.#begin(fd))) return this.#replaced(fd, this.#tail, Math.min(ANCHOR_BYTES, this.content.offset))
    const { content } = this
    const before = this.#tail.length
    const buffer = buffers.take()
    const most = before + buffers.bytes
    let held = false
    try {
      const n = await readInto(fd, buffer, most, content.offset - before)
      if (n < before || !startsWith(buffer, this.#tail)) return await this.#replaced(fd, buffer.subarray(0, Math.min(n, before)), before)
      if ((n > before ? this.#isAtEnd : this.#isTouched) && !(await this.#isSameHead(fd))) return await this.#replaced(fd, this.#tail, before)
      this.#isTouched = false
      if (n === before) return this.#atEnd()
      if (this.#isAtEnd) await this.#growing(fd)
      const end = await this.#endOfText(fd, buffer, before, n)
      if (end === before || this.isDone) return
      await this.#taken(fd, buffer, before, end)
      // what is counted as lost meanwhile must not come
      if (this.#isGivenUp) return
      const data = buffer.subarray(before, end)
      held = data.length > SMALL_BYTES
      const isTaken = this.#input.give({ data: held ? data : data.slice(), isFull: n === most, buffer: held ? buffer : null })
      held &&= isTaken
    } finally {
      if (!held) buffers.give(buffer)
    }
  }

  /** Bytes of the buffer from `before` to `end` are on their way. */
  async #taken(fd: number, buffer: Uint8Array, before: number, end: number): Promise<void> {
    const { content } = this
    const lf = buffer.lastIndexOf(LF, end - 1)
    if (lf >= before && !this.#shared.once) {
      if (content.marks.length === MARKS) content.marks.shift()
      content.marks.push(anchorAt(content.offset + lf + 1 - before, buffer.subarray(Math.max(0, lf + 1 - ANCHOR_BYTES), lf + 1)))
    }
    this.#tail = buffer.slice(Math.max(0, end - ANCHOR_BYTES), end)
    const from = content.offset
    content.offset += end - before
    content.size = Math.max(content.size, content.offset)
    this.#zerosTo = 0
    this.#lastGrowth = performance.now()
    this.#pause = this.#shared.pollMs
    if (content.head.length < HEAD_BYTES && !this.#shared.once) await this.#growHead(fd, buffer.subarray(before, end), from)
  }

  /** `data` was read at `from`. By now the file may have been cut or written anew, or cannot be read for a moment: then what is known of its beginning stays, and the data counts. */
  async #growHead(fd: number, data: Uint8Array, from: number): Promise<void> {
    const { content } = this
    const length = Math.min(HEAD_BYTES, content.offset)
    const bytes = from === 0 ? data.subarray(0, length) : await readAt(fd, 0, length).catch(() => NOTHING)
    const isOurs = bytes.length === length && hashOf(bytes.subarray(0, content.head.length)) === content.head.hash && bytes.subarray(from).every((byte, i) => byte === data[i])
    if (isOurs) content.head = { length, hash: hashOf(bytes) }
  }

  /** Compares what is known of the file with what is there, and takes what stands before the place to begin at. False when it is another content by now. */
  async #begin(fd: number): Promise<boolean> {
    const { content } = this
    const read = (from: number, length: number): Promise<Uint8Array> => readAt(fd, from, length)
    const before = Math.min(ANCHOR_BYTES, content.offset)
    const anchor = content.marks.at(-1) ?? NO_ANCHOR
    this.#tail = await read(content.offset - before, before)
    if (this.#tail.length < before || !(await hasHead(read, content.head)) || !(await hasAnchor(read, anchor))) return false
    if (!this.#shared.once && before > 0 && anchor.at !== content.offset) content.marks.push(anchorAt(content.offset, this.#tail))
    this.#hasBegun = true
    return true
  }

  /** Texts of one shape may end alike where another was written over: they begin otherwise. */
  async #isSameHead(fd: number): Promise<boolean> {
    return hasHead((from, length) => readAt(fd, from, length), this.content.head)
  }

  /** The file has grown after all of it was read: its size and age for what is read now. */
  async #growing(fd: number): Promise<void> {
    const stat = await statOf(fd)
    this.modified = Number(stat.mtimeNs / 1000n)
    this.content.size = Math.max(this.content.size, Number(stat.size))
    this.#isAtEnd = false
    this.#shared.heat(this)
  }

  #atEnd(): void {
    const { once, idleMs, rotateWaitMs } = this.#shared
    const now = performance.now()
    // what comes after it may have been found while this was read: by then there may have been more
    this.#isAtEnd = this.#awaitedAtRead === this.#awaited
    if (!this.#isAtEnd) return
    this.content.size = this.content.offset
    this.#input.rest()
    this.#shared.onEnd(this)
    if (once || (now - this.awaySince >= rotateWaitMs && this.isSearched)) return this.finish(null)
    if (this.#hasPartialLine && now >= this.#partialLineUntil) this.#splitAt(this.content.offset)
    this.#due = now + this.#pause
    const isOld = nowMicroseconds() - this.modified > OLD_MICROSECONDS || this.#shared.isCrowded
    this.#pause = isOld ? idleMs : Math.min(this.#pause * 1.5, idleMs)
    if (this.#isHot) this.#shared.heat(this)
  }

  /** Its last line is unfinished, and will not be waited for for ever. */
  get #hasPartialLine(): boolean {
    return this.#partialLineUntil < Infinity && this.content.offset > this.#input.offset && this.#tail.at(-1) !== LF
  }

  /** How long the rest of a line is waited for: with a file that has its place taken, as with one that is gone. */
  get #partialLineUntil(): number {
    const { partialLineMs, rotateWaitMs } = this.#shared
    const wanted = partialLineMs === null ? Infinity : this.#lastGrowth + partialLineMs
    return Number.isNaN(this.replacedSince) ? wanted : Math.min(wanted, Math.max(this.#lastGrowth, this.replacedSince) + rotateWaitMs)
  }

  /**
   * Where in the buffer the text ends: before a hole, which a writer leaves that goes on at its own offset in a file that was cut. Behind it a new input begins, so
   * that no line is made of it.
   */
  async #endOfText(fd: number, buffer: Uint8Array, before: number, n: number): Promise<number> {
    let from = buffer.subarray(0, n).indexOf(0, before)
    while (from >= 0) {
      const to = from + firstText(buffer.subarray(from, n), n - from)
      const isFirst = this.content.offset === 0 && from === before
      if (to === n || to - from >= HOLE_BYTES || isFirst) {
        if (from > before) return from
        return (await this.#passHole(fd, this.content.offset + to - from, isFirst)) ? before : n
      }
      from = buffer.subarray(0, n).indexOf(0, to)
    }
    return n
  }

  /** True when what is at the offset is a hole: passed over when its end is known, else waited for. */
  async #passHole(fd: number, from: number, isFirst: boolean): Promise<boolean> {
    const start = this.content.offset
    const buffer = this.#shared.buffers.take()
    try {
      let at = Math.max(from, this.#zerosTo)
      for (;;) {
        const n = await readInto(fd, buffer, this.#shared.buffers.bytes, at)
        const to = n === 0 ? 0 : firstText(buffer, n)
        at += to
        this.#zerosTo = at
        if (n === 0) {
          if (at - start < HOLE_BYTES && !isFirst) return false
          // room made ahead by the writer, perhaps: it may yet write into it
          this.#atEnd()
          return true
        }
        if (to < n) break
      }
      if (at - start < HOLE_BYTES && !isFirst) return false
      this.#input.tell({ diagnostic: `${shown(this.path)}: ${at - start} NUL bytes at offset ${start} passed over: the file was cut while its writer went on at its old offset; let it be opened for appending` })
      this.#tail = await readAt(fd, at - Math.min(at, ANCHOR_BYTES), Math.min(at, ANCHOR_BYTES))
      this.#splitAt(at)
      return true
    } finally {
      this.#shared.buffers.give(buffer)
    }
  }

  /** This input ends, the next of the same generation begins. */
  #splitAt(offset: number): void {
    const old = this.#input
    this.content.offset = offset
    this.content.size = Math.max(this.content.size, offset)
    this.#input = new FileInput(this, this.#shared.name, this.content, offset)
    this.#shared.add(this.#input)
    this.#ends(old)
  }

  /**
   * Other bytes stand before the place that was reached (`found`, in place of `length`), or too few: the file was cut, and perhaps its writer went on behind a
   * hole, or it was written anew. What was too short when it was read may be as long as before by now, and what was still there then may have been cut since.
   */
  async #replaced(fd: number, found: Uint8Array, length: number): Promise<void> {
    const both = [found, await readAt(fd, this.content.offset - length, length)]
    const isHole = both.some((bytes) => bytes.length === length && isZero(bytes, 0, length))
    const stat = await statOf(fd)
    const old = this.#input
    const before = this.content
    const isCut = both.some((bytes) => bytes.length < length) || Number(stat.size) < before.offset || isHole
    const unread = isHole ? 0 : before.size - before.offset
    const isCovered = await this.#shared.onReplaced(this, before)
    if (this.isDone) return
    if (!isCovered && (!isCut || unread > 0)) {
      const what = isCut ? `was cut with ${unread} bytes unread` : 'was written anew in place'
      old.tell({ gap: gapOf('file_rewritten', `${shown(this.path)} ${what}`) })
    }
    before.before = null
    this.content = { id: before.id, generation: before.generation + 1, head: NO_HEAD, marks: [], offset: 0, size: 0, before }
    this.modified = Number(stat.mtimeNs / 1000n)
    this.#tail = NOTHING
    this.#zerosTo = 0
    this.#isAtEnd = false
    this.#hasBegun = true
    this.#input = new FileInput(this, this.#shared.name, this.content, 0)
    this.#shared.add(this.#input)
    // the copy begins with the line that is unfinished here
    old.isCutOff = isCovered
    this.#ends(old)
  }

  /** Null when the path leads elsewhere. While `work` goes on the descriptor stays. */
  async #using<T>(work: (fd: number) => Promise<T>): Promise<T | null> {
    this.#uses++
    try {
      const fd = await this.#descriptor()
      return fd === null || this.isDone || this.#isClosed ? null : await work(fd)
    } finally {
      await this.#used()
    }
  }

  /** Null where it is not open. */
  async #usingOpen<T>(work: (fd: number) => Promise<T>): Promise<T | null> {
    const fd = this.#shared.descriptors.get(this)
    if (fd === null) return null
    this.#uses++
    try {
      return await work(fd)
    } finally {
      await this.#used()
    }
  }

  async #used(): Promise<void> {
    this.#uses--
    await this.#dropUnused()
  }

  async #dropUnused(): Promise<void> {
    if ((!this.#isClosed && !this.#isStale) || this.#uses > 0) return
    this.#isStale = false
    await this.#shared.descriptors.drop(this)
  }

  async #descriptor(): Promise<number | null> {
    const { descriptors } = this.#shared
    const known = descriptors.get(this)
    if (known !== null) return known
    const fd = await opened(this.path)
    const stat = await statOf(fd)
    // someone else in this file may have been faster
    const other = descriptors.get(this)
    if (this.isDone || other !== null || !stat.isFile() || keyOf(identityOf(stat)) !== this.key) {
      await closing(fd)
      if (other === null && !this.isDone) this.#loses()
      return other
    }
    this.modified = Number(stat.mtimeNs / 1000n)
    this.content.size = Math.max(this.content.size, Number(stat.size))
    await descriptors.add(this, fd)
    return fd
  }

  #loses(): void {
    this.#isAtEnd = true
    this.#due = performance.now() + this.#shared.pollMs
    this.#shared.onLost()
  }

  #fails(error: NodeJS.ErrnoException): void {
    if (this.#isClosed) return
    const { code = '' } = error
    const { descriptors, once } = this.#shared
    this.#troubles++
    this.#due = performance.now() + Math.min(RETRY_MS * 2 ** (this.#troubles - 1), RETRY_MOST_MS)
    this.#shared.heat(this)
    // those that come after it need not wait
    this.#shared.onEnd(this)
    if (code === 'ENOENT' || code === 'ENOTDIR') return this.#loses()
    if (code === 'EMFILE' || code === 'ENFILE') {
      void descriptors.yield()
      this.#shared.tellOnce(code, `${this.#shared.name}: ${error.message}; fewer files are kept open and all are read in turn; raise the limit of open files (LimitNOFILE=, ulimit -n)`)
      return
    }
    this.#isStale = true
    void this.#dropUnused()
    if (this.#trouble === code) return
    this.#trouble = code
    const ends = code === 'EACCES' || code === 'EPERM' ? 'give this user the right to read it (often the group adm)' : 'see what its file system says'
    // libuv has no name for it
    const says = error.errno === -ESTALE ? 'ESTALE: stale file handle' : error.message
    this.#shared.diagnose(`${shown(this.path)} cannot be read: ${says}; ${once ? ends : `it is tried again, ${ends}`}`)
    if (once) this.finish(gapOf('file_vanished', `${shown(this.path)} cannot be read: ${says}`))
  }
}

/** What the loop reads of one generation of a file, or of a piece of it. */
export class FileInput implements Input {
  readonly name: string
  readonly isDump = false
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy = 'offset'
  readonly offset: number
  onIdle: () => void = nothing
  notices: readonly Notice[] = NO_NOTICES
  chunk: Uint8Array = NOTHING
  isBusy = false
  isCutOff = false
  readonly #file: FollowedFile
  readonly #content: Content
  /** behind the last byte that was given */
  #end: number
  #told: Notice[] = []
  #waiting: ((n: number) => void) | null = null
  /** read while a notice went out in its place */
  #ready: Piece | null = null
  /** lent until the next call */
  #buffer: Uint8Array | null = null
  #isEnded = false
  #isStopped = false

  constructor(file: FollowedFile, name: string, content: Content, offset: number) {
    this.#file = file
    this.name = name
    this.#content = content
    this.offset = offset
    this.#end = offset
    this.ridPrefix = `${content.id}.${content.generation}`
  }

  get isLive(): boolean {
    return !this.#file.isOnce
  }

  get isWaiting(): boolean {
    return this.#waiting !== null
  }

  /** How often a file was cut cannot be told later, nor what was at its end. */
  get beginsTheSame(): boolean {
    return this.offset === 0 && this.#content.generation === 0
  }

  /** Offset behind the last byte that was given. */
  get given(): number {
    return this.#end
  }

  /** As of the last look at the file. */
  get unreadBytes(): number {
    return Math.max(0, this.#content.size - this.#end)
  }

  next(): Promise<number> {
    this.close()
    this.notices = NO_NOTICES
    if (this.#isStopped) return Promise.resolve(0)
    if (this.#ready !== null) return Promise.resolve(this.#lay(this.#ready))
    if (this.#told.length > 0) return Promise.resolve(this.#lay(null))
    if (this.#isEnded) return Promise.resolve(0)
    return new Promise((resolve) => {
      this.#waiting = resolve
      this.#file.wake()
    })
  }

  /** A piece for the loop. False: nobody will take it. */
  give(piece: Piece): boolean {
    if (this.#isEnded) return false
    this.#end += piece.data.length
    this.isBusy = piece.isFull
    if (this.#waiting === null) this.#ready = piece
    else this.#resolve(this.#lay(piece))
    return true
  }

  tell(notice: Notice): void {
    this.#told.push(notice)
    if (this.#waiting !== null) this.#resolve(this.#lay(null))
  }

  /** Nothing to read for now. */
  rest(): void {
    if (!this.isBusy) return
    this.isBusy = false
    this.onIdle()
  }

  end(): void {
    this.#isEnded = true
    if (this.#waiting !== null) this.#resolve(0)
  }

  receivedMicroseconds(): number {
    return this.#file.modified
  }

  boot(): BootTime | null {
    return this.#file.boot()
  }

  stampsEnd(clock: LocalClock): number | null {
    return this.#file.stampsEnd(clock)
  }

  get lineRest(): Uint8Array | undefined {
    return this.#file.lineRest
  }

  position(offset: number): Position | null {
    const end = this.isCutOff ? (this.#content.marks.at(-1)?.at ?? this.#end) : this.#end
    return this.#isEnded && !this.#isStopped && offset >= end ? null : this.#file.positionIn(this.#content, offset)
  }

  stop(): void {
    if (this.#isEnded) return
    this.#isStopped = true
    this.isCutOff = true
    this.end()
  }

  abort(): void {
    this.stop()
  }

  /** What was lent is free again. */
  close(): void {
    if (this.#buffer !== null) this.#file.giveBack(this.#buffer)
    this.#buffer = null
    this.chunk = NOTHING
  }

  #lay(piece: Piece | null): number {
    this.notices = this.#told.length === 0 ? NO_NOTICES : this.#told
    this.#told = []
    this.#ready = null
    this.chunk = piece?.data ?? NOTHING
    this.#buffer = piece?.buffer ?? null
    return piece?.data.length ?? NOTICES_ONLY
  }

  #resolve(n: number): void {
    const waiting = this.#waiting!
    this.#waiting = null
    waiting(n)
  }
}

interface Piece {
  readonly data: Uint8Array
  /** the read came back full: there is more */
  readonly isFull: boolean
  /** where the data lies, when it is lent */
  readonly buffer: Uint8Array | null
}

export function readingOf({ generation, head, marks, size }: Content, offset: number): Pick<Position, 'generation' | 'offset' | 'size' | 'head' | 'anchor'> {
  return { generation, offset, size: Math.max(size, offset), head, anchor: marks.findLast((mark) => mark.at <= offset) ?? NO_ANCHOR }
}

/** `count`: lines, where it is known how many. */
export function gapOf(cause: GapCause, reason: string, count = -1): Gap {
  return { ...timeOf(nowMicroseconds()), timeSource: TIME_RECEIVED, cause, count, atLeast: count < 0 ? 1 : -1, from: null, to: null, reason }
}

function startsWith(buffer: Uint8Array, tail: Uint8Array): boolean {
  for (let i = 0; i < tail.length; i++) if (buffer[i] !== tail[i]) return false
  return true
}

function isZero(buffer: Uint8Array, from: number, to: number): boolean {
  return from < to && firstText(buffer.subarray(from, to), to - from) === to - from
}

/** Index of the first byte that is no NUL; eight at a time, for a hole may have gigabytes. */
function firstText(buffer: Uint8Array, n: number): number {
  let at = 0
  while (at < n && (buffer.byteOffset + at) % 8 !== 0) if (buffer[at++] !== 0) return at - 1
  const words = at < n ? new BigUint64Array(buffer.buffer, buffer.byteOffset + at, (n - at) >> 3) : []
  const word = words.findIndex((word) => word !== 0n)
  at += (word < 0 ? words.length : word) * 8
  while (at < n && buffer[at] === 0) at++
  return at
}

function nothing(): void {}
