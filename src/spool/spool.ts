/**
 * What waits between the loop and a receiver that may be slow, down or gone: records in append-only segments on the disk (or in memory), in their order,
 * until they are acknowledged. It has a limit, and a policy for the moment when it is reached; whatever is not delivered because of that is counted. Nothing
 * that was synced is missing after a crash, whatever the disk does; what the disk damaged is counted and set aside.
 */
import { join } from 'node:path'
import type { Time } from '../event.js'
import { evenMilliseconds, notedAt } from '../clock.js'
import type { Entry, Loss, Queue } from '../stage.js'
import { CURSOR_BYTES, type Cursor, FILE_MODE, loadCursor, saveCursor, syncFolder } from './cursor.js'
import { type Disk, realDisk } from './disk.js'
import { type Broken, type Frame, FRAME_BYTES, frameHead, isTorn, scan } from './frame.js'
import { asBuffer, countLines, eachLine, isShedFirst, pieces, type Span, spanOf, spanOfBoth, timeOf, typeOf, wholeLines } from './lines.js'
import { Losses } from './losses.js'
import { type Bytes, FileBytes, type Held, MemoryBytes, Segment } from './segment.js'
import { sift } from './sift.js'

export const fullPolicies = ['block', 'drop_oldest', 'drop_newest', 'summarize'] as const
export type FullPolicy = (typeof fullPolicies)[number]

export interface SpoolOptions {
  /** its own; made where it is missing. null: in memory, with the same limits */
  readonly folder: string | null
  /** of everything in the folder: segments, cursor, what is set aside as damaged */
  readonly maxBytes: number
  /** a file's size; an eighth of the limit where that is less (8 MiB) */
  readonly segmentBytes?: number
  readonly whenFull: FullPolicy
  /** milliseconds, to a sixteenth (72 h) */
  readonly maxAgeMs?: number
  /** of the volume, left for others (0) */
  readonly minFreeBytes?: number
  /** what `sync` waits for: safe from a crash of the machine ('fsync'), or with the kernel ('os') */
  readonly durability?: 'fsync' | 'os'
  /** one sentence for the operator */
  readonly report: (message: string) => void
  /** for a gap record: sums of bursts, exact */
  readonly onLost: (loss: Loss) => void
  /** the file system, and the clock: milliseconds since the epoch that go on evenly, wherever the host's is set */
  readonly disk?: Disk
  readonly now?: () => number
}

/** Lines that one frame takes: what is read back, and checked, at once. */
const FRAME_LINES_BYTES = 1 << 16
/** not synced and so kept in memory beside the file; more waits for the disk */
const HELD_BYTES_MAX = 8 << 20
/** what nobody syncs is synced by itself so late */
const SYNC_AFTER_MS = 100
const CURSOR_AFTER_MS = 1000
/** numbers that are reserved at once: a crash skips at most so many, and gives none twice */
const RESERVED = 1 << 24
/** the volume is asked so often how much is free */
const FREE_EVERY_MS = 1000
/** a full or failing disk is tried again so soon */
const RETRY_MS = 1000
/** parts of the age at which a segment is closed, so that it goes as a whole */
const AGE_PARTS = 16
const DISK_TRIES = 3
/** what is set aside may have an eighth of the limit */
const ASIDE_PART = 8

/** An entry that is loaded and not acknowledged. */
interface Waiting extends Entry {
  readonly time: number
  isDone: boolean
}

/** A segment that is being read, up to what it had when that began. */
interface Loader {
  readonly segment: Segment
  readonly items: AsyncGenerator<Frame | Broken>
  readonly at: number
  readonly to: number
}

export class Spool implements Queue {
  onAvailable: () => void = () => {}
  readonly #options: Required<SpoolOptions>
  readonly #segmentMax: number
  readonly #losses: Losses
  #segments: Segment[] = []
  #nextId = 1
  #nextSeq: number
  #acked: number
  #found = 0
  #taken = 0
  #reserved = 0
  /** everything below was written, and synced where that is asked for */
  #sure: number
  /** bytes of segments and of what is set aside */
  #segmentsBytes = 0
  #asideBytes = 0
  #free = Infinity
  #freeAskedAt = -Infinity

  /** from the oldest that waits on */
  #window: Waiting[] = []
  /** handed out: up to this number */
  #pinned = 0
  /** where the window goes on */
  #loader: Loader | null = null

  #last: Promise<unknown> = Promise.resolve()
  #commit: Promise<void> | null = null
  #nextCommit: Promise<void> | null = null
  #syncTimer: NodeJS.Timeout | null = null
  #cursorTimer: NodeJS.Timeout | null = null
  #hasCursorFailed = false
  #isFolderUnsynced = false
  /** why the disk takes nothing, '' when it does */
  #refusal: '' | 'no_space' | 'disk_failed' = ''
  /** nothing more is written to these */
  readonly #sealed = new WeakSet<Segment>()
  readonly #waitingForRoom: (() => void)[] = []
  /** when it last found no room for what is shed first, milliseconds; room that was made since undoes it */
  #shedAt = -Infinity
  #isClosed = false
  /** when this run began, and from which number on records are of it */
  readonly #openedAt: number
  #ownFrom = 0

  private constructor(options: SpoolOptions) {
    this.#options = { segmentBytes: 8 << 20, maxAgeMs: 72 * 3600_000, minFreeBytes: 0, durability: 'fsync', disk: realDisk, now: evenMilliseconds, ...options }
    this.#segmentMax = Math.min(this.#options.segmentBytes, Math.floor(this.#options.maxBytes / 8))
    this.#losses = new Losses(options.onLost)
    this.#openedAt = this.#options.now()
    // a new spool does not begin with the numbers of one before it, that a receiver may remember
    this.#nextSeq = Math.max(1, Math.trunc(this.#openedAt * 1000))
    this.#acked = this.#nextSeq - 1
    this.#sure = this.#nextSeq
  }

  /** Finds what the last run left. Damage never stops it; throws when the folder cannot be used at all. */
  static async open(options: SpoolOptions): Promise<Spool> {
    const spool = new Spool(options)
    if (options.folder !== null) await spool.#restore(options.folder)
    spool.#ownFrom = spool.#nextSeq
    spool.#found = spool.length + sumOf(spool.lostBy)
    return spool
  }

  async append(lines: Uint8Array): Promise<void> {
    for (const piece of pieces(wholeLines(lines), Math.min(FRAME_LINES_BYTES, this.#segmentMax - FRAME_BYTES))) {
      while (!(await this.#alone(() => this.#admit(piece)))) await this.#room()
      if (this.#heldBytes > HELD_BYTES_MAX) await this.sync().catch(() => {})
    }
    if (this.#heldBytes > 0) this.#syncTimer ??= setTimeout(() => void this.sync().catch(() => {}), SYNC_AFTER_MS).unref()
    this.onAvailable()
  }

  sync(): Promise<void> {
    this.#nextCommit ??= (this.#commit ?? Promise.resolve()).catch(() => {}).then(() => {
      this.#commit = this.#nextCommit
      this.#nextCommit = null
      return this.#commitNow()
    })
    return this.#nextCommit
  }

  peek(maxRecords: number, maxBytes: number, after?: number): Promise<readonly Entry[]> {
    return this.#alone(async () => {
      if (this.#isClosed) return []
      if (after === undefined) this.#pinned = 0
      await this.#expire()
      // acknowledgements come while it loads, so it looks anew each time
      for (;;) {
        const { found, isAll } = this.#pick(maxRecords, maxBytes, after ?? 0)
        if (!isAll && (await this.#load())) continue
        if (found.some((entry) => (entry as Waiting).isDone)) continue
        this.#pinned = Math.max(this.#pinned, found.at(-1)?.seq ?? 0)
        return found
      }
    })
  }

  ack(done: number | Iterable<number>): void {
    const seqs = typeof done === 'number' ? null : new Set(done)
    for (const entry of this.#window) if (seqs === null ? entry.seq <= (done as number) : seqs.has(entry.seq)) this.#done(entry)
    const waiting = this.#window.findIndex((entry) => !entry.isDone)
    const gone = this.#window.splice(0, waiting < 0 ? this.#window.length : waiting)
    if (gone.length === 0) return
    this.#acked = Math.max(this.#acked, gone.at(-1)!.seq)
    this.#cursorLater()
    void this.#alone(() => this.#removeDone())
  }

  /** Asked again now and then: what others free on the volume is told by nobody. */
  get isShedding(): boolean {
    return this.#options.now() - this.#shedAt < RETRY_MS
  }

  shed(count: number, from: Time | null, to: Time | null): void {
    this.#refuse(count, this.#whyFull, { from, to })
  }

  get length(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.live, 0)
  }

  get bytes(): number {
    return this.#segmentsBytes + this.#asideBytes + (this.#options.folder === null ? 0 : CURSOR_BYTES)
  }

  get found(): number {
    return this.#found
  }

  get taken(): number {
    return this.#taken
  }

  get lostBy(): Readonly<Record<string, number>> {
    return this.#losses.sums
  }

  get isWritable(): boolean {
    return this.#refusal === ''
  }

  get oldestAt(): number | null {
    return this.#window.find((entry) => !entry.isDone)?.time ?? this.#segments.find((segment) => segment.live > 0)?.firstTime ?? null
  }

  get ackedSeq(): number {
    return this.#acked
  }

  /** Hands on now what was lost and is not told yet: for the end, while records can still be written. Of what is lost later the next start tells. */
  reportLosses(): void {
    this.#losses.tellLast()
  }

  async close(): Promise<void> {
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer)
    if (this.#cursorTimer !== null) clearTimeout(this.#cursorTimer)
    await this.sync().catch((error: unknown) => this.#options.report(`spool ${this.#name} could not be made safe at the end: ${(error as Error).message}`))
    await this.#alone(async () => {
      this.#isClosed = true
      const { folder } = this.#options
      const stranded = this.#segments.filter((segment) => !segment.isOnDisk && segment.live > 0)
      for (const segment of stranded) this.#losses.add(segment.live, folder === null ? 'not_delivered' : 'disk_failed', segment.span)
      // a gap record tells it only where another output still takes one
      const undelivered = stranded.reduce((sum, { live }) => sum + live, 0)
      if (undelivered > 0) this.#options.report(`spool ${this.#name}: ${undelivered} records were not delivered and are lost${folder === null ? '; with a state directory they would wait for the next start' : ''}`)
      for (const segment of stranded) segment.live = 0
      this.#reserved = this.#nextSeq
      if (folder === null) this.#losses.tell()
      this.#losses.close()
      await this.#saveCursor()
      for (const segment of this.#segments) await segment.bytes.close().catch(() => {})
    })
    this.#madeRoom()
  }

  get #name(): string {
    return this.#options.folder ?? 'in memory'
  }

  /** One at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work)
    this.#last = result.catch(() => {})
    return result
  }

  #room(): Promise<void> {
    return new Promise((resolve) => {
      // what others free on the volume is told by nobody
      const timer = setTimeout(resolve, RETRY_MS)
      this.#waitingForRoom.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  #madeRoom(): void {
    this.#shedAt = -Infinity
    for (const resolve of this.#waitingForRoom.splice(0)) resolve()
  }

  // ---- what comes in

  /** Takes the piece, or what the policy leaves of it. false: it must wait. */
  async #admit(piece: Buffer): Promise<boolean> {
    const { whenFull } = this.#options
    if (this.#isClosed) throw new Error(`spool ${this.#name} is closed`)
    await this.#expire()
    if (piece.length + FRAME_BYTES > this.#segmentMax) {
      this.#refuse(1, 'too_large', spanOf(piece))
      return true
    }
    if (await this.#write(piece, whenFull === 'summarize' ? this.#segmentMax : 0)) return true
    if (whenFull === 'block') return false
    const kept = whenFull === 'summarize' ? this.#withoutShed(piece) : piece
    if (kept.length === 0 || (whenFull === 'summarize' && (await this.#write(kept, 0)))) return true
    // what is there gives way where that makes room; it does not to a disk that fails
    while (whenFull !== 'drop_newest' && this.#refusal !== 'disk_failed') {
      if (!(whenFull === 'summarize' && (await this.#shedOldest())) && !(await this.#dropOldest())) break
      if (await this.#write(kept, 0)) return true
    }
    this.#refuse(countLines(kept), this.#whyFull, spanOf(kept))
    return true
  }

  get #whyFull(): string {
    return this.#refusal || 'spool_full'
  }

  /** The lines that are kept to the last; the others are lost. */
  #withoutShed(piece: Buffer): Buffer {
    const kept: Buffer[] = []
    let count = 0
    let first = -1
    let last = -1
    eachLine(piece, (from, to) => {
      if (!isShedFirst(typeOf(piece, from, to))) kept.push(piece.subarray(from, to + 1))
      else {
        count++
        if (first < 0) first = from
        last = from
      }
    })
    if (count > 0) {
      this.#refuse(count, this.#whyFull, { from: timeOf(piece, first), to: timeOf(piece, last) })
      this.#shedAt = this.#options.now()
    }
    return Buffer.concat(kept)
  }

  /** false: there is no room for it, or the disk refuses it. `spare` bytes stay free. */
  async #write(lines: Buffer, spare: number): Promise<boolean> {
    const { now, durability } = this.#options
    const most = lines.length + 2 * FRAME_BYTES
    if (!(await this.#fits(most + spare))) return false
    const count = countLines(lines)
    const time = now()
    if (this.#nextSeq + count > this.#reserved) await this.#saveCursor()
    for (let tries = 0; tries < 2; tries++) {
      const segment = await this.#segmentFor(most, time)
      if (segment === null) return false
      const parts: Uint8Array[] = []
      if (segment.nextSeq < this.#nextSeq) parts.push(frameHead(segment.nextSeq, this.#nextSeq - segment.nextSeq, time, NO_LINES))
      parts.push(frameHead(this.#nextSeq, count, time, lines), lines)
      const bytes = lengthOf(parts)
      try {
        await segment.bytes.write(parts, segment.size)
      } catch (error) {
        this.#refused(error as Error)
        await segment.bytes.truncate(segment.size).catch(() => this.#sealed.add(segment))
        if (isFull(error)) return false
        // it may be the file: the next try has another one
        this.#sealed.add(segment)
        continue
      }
      if (segment.isOnDisk) this.#accepts()
      if (segment.isOnDisk && durability === 'fsync') {
        const copies = parts.map((part) => new Uint8Array(part))
        segment.held.push({ end: segment.size + bytes, parts: copies, firstSeq: segment.nextSeq, seq: this.#nextSeq, count })
      }
      this.#grow(segment, bytes)
      segment.firstTime ||= time
      segment.lastTime = time
      segment.span = spanOfBoth(segment.span, spanOf(lines))
      segment.isShed = false
      segment.live += count
      this.#taken += count
      this.#nextSeq += count
      segment.nextSeq = this.#nextSeq
      if (durability === 'os') this.#sure = this.#nextSeq
      return true
    }
    return false
  }

  #grow(segment: Segment, bytes: number): void {
    segment.size += bytes
    this.#segmentsBytes += bytes
    this.#free -= bytes
  }

  async #fits(bytes: number): Promise<boolean> {
    const { maxBytes, minFreeBytes, folder, disk, now } = this.#options
    if (folder !== null && minFreeBytes > 0 && now() - this.#freeAskedAt >= FREE_EVERY_MS) {
      this.#freeAskedAt = now()
      this.#free = await disk.free(folder).catch(() => Infinity)
    }
    // a segment's worth stays free for the copy of a segment that something is taken out of
    return this.#segmentsBytes + this.#asideBytes + bytes <= maxBytes - CURSOR_BYTES - this.#segmentMax && this.#free - bytes >= minFreeBytes
  }

  /** The one that is written to, a new one where that is full or old; null when the disk has none. */
  async #segmentFor(bytes: number, time: number): Promise<Segment | null> {
    const last = this.#segments.at(-1)
    const isOld = last !== undefined && last.firstTime > 0 && time - last.firstTime > this.#options.maxAgeMs / AGE_PARTS
    if (last !== undefined && !this.#sealed.has(last) && !isOld && last.size + bytes <= this.#segmentMax + 2 * FRAME_BYTES) return last
    try {
      const segment = await this.#newSegment(last?.nextSeq ?? this.#nextSeq)
      this.#segments.push(segment)
      await this.#removeDone()
      return segment
    } catch (error) {
      this.#refused(error as Error)
      return null
    }
  }

  async #newSegment(firstSeq: number): Promise<Segment> {
    const { folder, disk } = this.#options
    const id = this.#nextId++
    if (folder === null) return new Segment(id, new MemoryBytes(), firstSeq, false)
    const file = await disk.open(this.#path(nameOf(id)), 'wx+', FILE_MODE)
    this.#isFolderUnsynced = true
    return new Segment(id, new FileBytes(file), firstSeq, true)
  }

  #path(name: string): string {
    return join(this.#options.folder!, name)
  }

  /** Says once that the disk refuses. */
  #refused(error: Error): void {
    const { whenFull, report } = this.#options
    const meanwhile = whenFull === 'block' ? 'it waits until that is mended' : `until that is mended, "${whenFull}" decides what is lost`
    if (this.#refusal === '') report(`spool ${this.#name}: ${error.message}; ${meanwhile}`)
    this.#refusal = isFull(error) ? 'no_space' : 'disk_failed'
  }

  #accepts(): void {
    if (this.#refusal !== '') this.#options.report(`spool ${this.#name}: the disk takes records again`)
    this.#refusal = ''
  }

  /** They are lost before they were in it. */
  #refuse(count: number, reason: string, span: Span): void {
    this.#taken += count
    this.#lose(count, reason, span)
  }

  #lose(count: number, reason: string, span: Span): void {
    this.#losses.add(count, reason, span)
  }

  // ---- what goes out

  /** What of the window is to be handed out; `isAll`: more of it would not be. */
  #pick(maxRecords: number, maxBytes: number, after: number): { readonly found: readonly Entry[]; readonly isAll: boolean } {
    const found: Entry[] = []
    let bytes = 0
    for (const entry of this.#window) {
      if (entry.isDone || entry.seq <= after) continue
      bytes += entry.bytes.length + 1
      if (found.length === maxRecords || (bytes > maxBytes && found.length > 0)) return { found, isAll: true }
      found.push(entry)
    }
    return { found, isAll: found.length === maxRecords }
  }

  #done(entry: Waiting): void {
    if (entry.isDone) return
    entry.isDone = true
    this.#segmentOf(entry.seq)!.live--
  }

  #segmentOf(seq: number): Segment | undefined {
    return this.#segments.find((segment) => seq < segment.nextSeq && seq >= segment.firstSeq)
  }

  /** Puts the next frame's records into the window; false when there is none. */
  async #load(): Promise<boolean> {
    for (;;) {
      if (this.#loader === null) {
        const from = Math.max(this.#acked, this.#window.at(-1)?.seq ?? 0)
        const segment = this.#segments.find((each) => each.nextSeq > from + 1 && each.live > 0)
        if (segment === undefined) return false
        this.#loader = this.#loaderOf(segment, 0)
      }
      const loader = this.#loader
      const { value } = (await loader.items.next()) as { value: Frame | Broken | undefined }
      if (value === undefined) {
        const { segment } = loader
        const next = segment.size > loader.to ? segment : this.#segments[this.#segments.indexOf(segment) + 1]
        if (next === undefined) return false
        this.#loader = next === segment ? this.#loaderOf(segment, loader.to) : this.#loaderOf(next, 0)
        if (this.#loader.to === this.#loader.at) return false
        continue
      }
      if (value.lines === null) {
        await this.#mend(loader.segment)
        continue
      }
      if (this.#toWindow(value)) return true
    }
  }

  #loaderOf(segment: Segment, at: number): Loader {
    return { segment, items: scan((from, bytes) => segment.bytes.read(from, bytes), at, segment.size), at, to: segment.size }
  }

  /** false: there is nothing in it that is not known. */
  #toWindow(frame: Frame): boolean {
    const behind = Math.max(this.#acked, this.#window.at(-1)?.seq ?? 0)
    if (frame.lines.length === 0 || frame.seq + frame.count <= behind + 1) return false
    const lines = asBuffer(frame.lines)
    let seq = frame.seq
    eachLine(lines, (from, to) => {
      if (seq > behind) this.#window.push({ seq, bytes: lines.subarray(from, to), type: typeOf(lines, from, to), time: this.#takenAt(frame), isDone: false })
      seq++
    })
    return true
  }

  /** Of an earlier run, as old as may be believed. */
  #takenAt({ seq, time }: Frame): number {
    return seq < this.#ownFrom ? notedAt(time, this.#openedAt) : time
  }

  // ---- what goes away

  /** Segments that are delivered as a whole, but the one that is written to. */
  async #removeDone(): Promise<void> {
    const waiting = this.#segments.findIndex(({ live }) => live > 0)
    const done = this.#segments.slice(0, waiting < 0 ? -1 : waiting)
    if (done.length === 0) return
    this.#acked = Math.max(this.#acked, done.at(-1)!.nextSeq - 1)
    // what the cursor does not know to be delivered would be missed at the next start
    await this.#saveCursor()
    for (const segment of done) await this.#remove(segment)
    this.#madeRoom()
  }

  /** What is too old, by whole segments. */
  async #expire(): Promise<void> {
    const before = this.#options.now() - this.#options.maxAgeMs
    for (const segment of [...this.#segments]) {
      if (segment.lastTime >= before) return
      if (segment.live > this.#pinnedIn(segment)) await this.#drop(segment, 'too_old')
    }
  }

  /** The oldest that something can be taken out of goes, but what is handed out; false when there is none. */
  async #dropOldest(): Promise<boolean> {
    const segment = this.#segments.find((each) => each.live > this.#pinnedIn(each))
    if (segment === undefined) return false
    await this.#drop(segment, this.#whyFull)
    return true
  }

  async #drop(segment: Segment, reason: string): Promise<void> {
    if (segment !== this.#segments[0] || this.#pinnedIn(segment) > 0) return this.#rewrite(segment, () => false, reason)
    this.#lose(segment.live, reason, segment.span)
    segment.live = 0
    this.#acked = Math.max(this.#acked, segment.nextSeq - 1)
    this.#window = this.#window.filter((entry) => entry.seq > this.#acked)
    // the cursor holds that they are gone and that they are to be told, in one
    await this.#saveCursor()
    await this.#remove(segment)
  }

  /** Takes what is shed first out of the oldest segment that has such; false when none has. */
  async #shedOldest(): Promise<boolean> {
    for (const segment of [...this.#segments]) {
      if (segment.isShed || segment.live <= this.#pinnedIn(segment)) continue
      const before = segment.size
      await this.#rewrite(segment, (type) => !isShedFirst(type), this.#whyFull)
      segment.isShed = true
      if (segment.size < before) return true
    }
    return false
  }

  #pinnedIn(segment: Segment): number {
    let count = 0
    for (const { seq, isDone } of this.#window) {
      if (seq > this.#pinned || seq >= segment.nextSeq) break
      if (!isDone && seq >= segment.firstSeq) count++
    }
    return count
  }

  /** Lost on the disk: nothing is taken out but what is broken. */
  async #mend(segment: Segment): Promise<void> {
    await this.#rewrite(segment, () => true, 'damaged')
  }

  /**
   * Makes a segment anew, with what waits and is to be kept, or is handed out; the rest is lost for `reason`. Broken places are set aside, and what was there
   * is counted by its numbers.
   */
  async #rewrite(segment: Segment, keep: (type: string) => boolean, reason: string): Promise<void> {
    const loaded = new Map(this.#window.filter(({ seq }) => seq >= segment.firstSeq && seq < segment.nextSeq).map((entry) => [entry.seq, entry]))
    const lost = new Set<number>()
    const kept: Waiting[] = []
    const sifted = await sift({
      segment,
      fate: (seq, type) => {
        const entry = loaded.get(seq)
        if (seq <= this.#acked || entry?.isDone === true) return 'done'
        if (!(entry !== undefined && seq <= this.#pinned) && !keep(type)) {
          lost.add(seq)
          return 'lose'
        }
        if (entry !== undefined) kept.push(entry)
        return 'keep'
      },
      replacement: (seq) => loaded.get(seq)?.bytes ?? null,
      setAside: (broken) => this.#setAside(segment, broken),
    })
    this.#lose(sifted.lost, reason, sifted.lostSpan)
    this.#lose(sifted.missing, 'damaged', segment.span)
    if (sifted.missing > 0) this.#options.report(`spool ${this.#name}: ${sifted.missing} records of ${nameOf(segment.id)} are damaged and lost`)
    // acknowledgements came meanwhile, and come until the disk has it
    segment.live = sifted.live - kept.filter(({ isDone }) => isDone).length
    this.#window = this.#window.filter(({ seq }) => !lost.has(seq))
    await this.#replace(segment, sifted.parts)
    this.#loader = null
  }

  /** Other bytes for a segment. Where the disk does not take them they stay in memory until it does. */
  async #replace(segment: Segment, parts: readonly Uint8Array[]): Promise<void> {
    const old = segment.bytes
    const name = nameOf(segment.id)
    const wasOnDisk = segment.isOnDisk
    segment.bytes = new MemoryBytes()
    await segment.bytes.write(parts, 0)
    segment.isOnDisk = false
    this.#grow(segment, lengthOf(parts) - segment.size)
    segment.held = []
    if (wasOnDisk) {
      try {
        await this.#toDisk(segment, () => this.#saveCursor(name))
      } catch (error) {
        this.#refused(error as Error)
        // room for the copy is where the old one lies
        if (isFull(error)) {
          await this.#options.disk.unlink(this.#path(name)).catch(() => {})
          await this.#toDisk(segment).catch(() => {})
        }
      }
    }
    segment.synced = segment.size
    await old.close().catch(() => {})
  }

  /**
   * A segment in memory becomes a file, in the place of an older one where there is one: whole, and safe. `commit` comes before that. Throws what the disk
   * says.
   */
  async #toDisk(segment: Segment, commit = (): Promise<void> => Promise.resolve()): Promise<void> {
    const { disk, durability } = this.#options
    const path = this.#path(nameOf(segment.id))
    const file = new FileBytes(await disk.open(`${path}${NEXT}`, 'w+', FILE_MODE))
    try {
      await file.write([await segment.bytes.read(0, segment.size)], 0)
      if (durability === 'fsync') await file.sync()
      await commit()
      await disk.rename(`${path}${NEXT}`, path)
    } catch (error) {
      await file.close().catch(() => {})
      await disk.unlink(`${path}${NEXT}`).catch(() => {})
      throw error
    }
    this.#isFolderUnsynced = true
    segment.bytes = file
    segment.isOnDisk = true
    segment.synced = segment.size
    this.#accepts()
  }

  /** Damaged bytes are kept for whoever wants to look at them, as far as there is room. */
  async #setAside(segment: Segment, { at, end }: Broken): Promise<void> {
    const { folder, maxBytes, report, disk } = this.#options
    if (folder === null) return
    const name = `${nameOf(segment.id).replace(SEGMENT, '')}.${at}.corrupt`
    const room = Math.min(maxBytes / ASIDE_PART, maxBytes - CURSOR_BYTES - this.#segmentMax - this.#segmentsBytes + (end - at)) - this.#asideBytes
    const bytes = Math.max(0, Math.min(end - at, Math.floor(room)))
    const where = bytes === 0 ? 'and there is no room to set them aside' : `${bytes} are set aside as ${name}`
    report(`spool ${this.#name}: ${end - at} bytes of ${nameOf(segment.id)} at ${at} are damaged, ${where}`)
    if (bytes === 0) return
    try {
      const file = await disk.open(this.#path(name), 'w', FILE_MODE)
      await file.write(await segment.bytes.read(at, bytes)).finally(() => file.close())
      this.#asideBytes += bytes
    } catch (error) {
      report(`spool ${this.#name}: ${name} cannot be written: ${(error as Error).message}`)
    }
  }

  async #remove(segment: Segment): Promise<void> {
    this.#segments = this.#segments.filter((each) => each !== segment)
    this.#segmentsBytes -= segment.size
    this.#free += segment.size
    if (this.#loader?.segment === segment) this.#loader = null
    await segment.bytes.close().catch(() => {})
    const { folder, disk, report } = this.#options
    if (folder === null) return
    await disk.unlink(this.#path(nameOf(segment.id))).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') report(`spool ${this.#name}: ${error.message}`)
    })
  }

  // ---- what is safe

  /** Numbers below this are in the segments, or done. */
  get #writtenTo(): number {
    return this.#segments.at(-1)?.nextSeq ?? this.#acked + 1
  }

  get #heldBytes(): number {
    return this.#segments.reduce((sum, { held, size, synced }) => sum + (held.length > 0 ? size - synced : 0), 0)
  }

  /** Everything that was appended before the call is safe. */
  async #commitNow(): Promise<void> {
    const { folder, durability, disk } = this.#options
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer)
    this.#syncTimer = null
    this.#losses.synced()
    // a write that is under way is waited for
    const until = await this.#alone(() => Promise.resolve(this.#writtenTo))
    if (folder === null) return
    if (durability === 'fsync') await this.#syncSegments()
    await this.#alone(async () => {
      for (const segment of this.#segments) if (!segment.isOnDisk) await this.#toDisk(segment)
      if (this.#isFolderUnsynced && durability === 'fsync') {
        await syncFolder(disk, folder)
        this.#isFolderUnsynced = false
      }
      this.#sure = Math.max(this.#sure, until)
      if (this.#losses.isUnsaved) await this.#saveCursor()
      else if (!this.#isClosed) this.#cursorLater()
    })
  }

  async #syncSegments(): Promise<void> {
    for (const segment of [...this.#segments]) {
      const { bytes, size } = segment
      if (!segment.isOnDisk || size === segment.synced) continue
      try {
        await bytes.sync()
      } catch (error) {
        // one that was delivered meanwhile is nobody's loss
        if (segment.bytes !== bytes || !this.#segments.includes(segment)) continue
        await this.#alone(() => this.#poisoned(segment, bytes, error as Error))
        return
      }
      if (segment.bytes !== bytes) continue
      segment.synced = size
      segment.held = segment.held.filter(({ end }) => end > size)
    }
  }

  /**
   * After a failed sync the kernel may have forgotten what it had not written, and the next sync of the same file would say nothing of it: what is not known
   * to be safe is written again, from memory, into another file.
   */
  async #poisoned(segment: Segment, bytes: Bytes, error: Error): Promise<void> {
    const at = this.#segments.indexOf(segment)
    if (at < 0 || segment.bytes !== bytes) return
    const { report, disk } = this.#options
    report(`spool ${this.#name}: ${nameOf(segment.id)} cannot be made safe: ${error.message}; what is not safe is written again, into another file`)
    // what came later is not safe either: syncing goes in order
    const later = this.#segments.slice(at)
    const held = later.flatMap((each) => each.held)
    const fresh = new Segment(this.#nextId++, new MemoryBytes(), held[0]!.firstSeq, false)
    const parts = held.flatMap((each) => each.parts)
    await fresh.bytes.write(parts, 0)
    // from here to the next wait, so that no acknowledgement comes between
    fresh.nextSeq = later.at(-1)!.nextSeq
    // the last one may have been made this moment, and have none yet: a time of 0 would be too old
    fresh.firstTime = later.find(({ firstTime }) => firstTime > 0)?.firstTime ?? 0
    fresh.lastTime = Math.max(...later.map(({ lastTime }) => lastTime))
    fresh.span = later.reduce((span, each) => spanOfBoth(span, each.span), fresh.span)
    fresh.live = this.#waitingIn(held)
    segment.live -= this.#waitingIn(segment.held)
    segment.nextSeq = held[0]!.firstSeq
    segment.held = []
    this.#sealed.add(segment)
    this.#segments = [...this.#segments.slice(0, segment.synced > 0 ? at + 1 : at), fresh]
    this.#loader = null
    this.#grow(fresh, lengthOf(parts))
    for (const each of later.slice(segment.synced > 0 ? 1 : 0)) await this.#remove(each)
    if (segment.synced > 0) {
      this.#grow(segment, segment.synced - segment.size)
      try {
        segment.bytes = new FileBytes(await disk.open(this.#path(nameOf(segment.id)), 'r+', FILE_MODE))
        await bytes.close().catch(() => {})
        await segment.bytes.truncate(segment.size)
      } catch (failure) {
        // the copies that stay behind in it are told by their numbers
        report(`spool ${this.#name}: ${(failure as Error).message}`)
      }
    }
    for (let tries = 1; !fresh.isOnDisk; tries++) {
      try {
        await this.#toDisk(fresh)
      } catch (failure) {
        this.#refused(failure as Error)
        if (tries === DISK_TRIES) return
      }
    }
  }

  #waitingIn(held: readonly Held[]): number {
    return held.reduce((sum, { seq, count }) => sum + this.#waitingOf(seq, count), 0)
  }

  /** How many of these numbers wait. */
  #waitingOf(seq: number, count: number): number {
    const done = this.#window.filter((entry) => entry.isDone && entry.seq >= seq && entry.seq < seq + count).length
    return count - done - Math.min(count, Math.max(0, this.#acked + 1 - seq))
  }

  #cursorLater(): void {
    if (this.#options.folder === null || this.#isClosed) return
    this.#cursorTimer ??= setTimeout(() => void this.#alone(() => this.#saveCursor()), CURSOR_AFTER_MS).unref()
  }

  /** Failing costs deliveries that are made again, so nothing stops for it. */
  async #saveCursor(replaced: string | null = null): Promise<void> {
    const { folder, disk, report } = this.#options
    if (this.#cursorTimer !== null) clearTimeout(this.#cursorTimer)
    this.#cursorTimer = null
    this.#reserved = this.#isClosed ? this.#nextSeq : Math.max(this.#reserved, this.#nextSeq + RESERVED / 2)
    if (folder === null) return
    try {
      await saveCursor(disk, folder, { acked: this.#acked, reserved: this.#reserved, sure: this.#sure, replaced, lost: this.#losses.unsafe })
      this.#losses.isUnsaved = false
      if (this.#hasCursorFailed) report(`spool ${this.#name}: its cursor is written again`)
      this.#hasCursorFailed = false
    } catch (error) {
      const { message } = error as Error
      if (!this.#hasCursorFailed) report(`spool ${this.#name}: its cursor cannot be written: ${message}; after a crash some records would be delivered twice`)
      this.#hasCursorFailed = true
    }
  }

  // ---- what was left

  async #restore(folder: string): Promise<void> {
    const { disk } = this.#options
    await disk.mkdir(folder, { recursive: true, mode: 0o750 })
    const cursor = await loadCursor(disk, folder)
    for (const loss of cursor?.lost ?? []) this.#losses.add(loss.count, loss.reason, loss)
    const ids: number[] = []
    for (const name of await disk.readdir(folder)) {
      if (name === `${cursor?.replaced}${NEXT}`) await disk.rename(this.#path(name), this.#path(cursor!.replaced!))
      else if (name.endsWith(`${SEGMENT}${NEXT}`)) await disk.unlink(this.#path(name))
      if (name.endsWith('.corrupt')) this.#asideBytes += await disk.size(this.#path(name))
      const id = /^(\d+)\.segment(\.next)?$/.exec(name)
      if (id !== null && (id[2] === undefined || name === `${cursor?.replaced}${NEXT}`) && !ids.includes(Number(id[1]))) ids.push(Number(id[1]))
    }
    this.#acked = cursor?.acked ?? -1
    for (const id of ids.sort((a, b) => a - b)) await this.#restoreSegment(id, id === ids.at(-1))
    this.#nextId = (ids.at(-1) ?? 0) + 1
    this.#number(cursor)
    if (this.length === 0) this.#acked = this.#nextSeq - 1
    // numbers that a crash before the next cursor could give again are skipped then
    await this.#saveCursor()
    await this.#removeDone()
    if (this.length === 0) for (const segment of this.#segments) await this.#remove(segment)
  }

  /** Where the numbers go on. */
  #number(cursor: Cursor | null): void {
    const found = this.#segments.at(-1)?.nextSeq ?? 0
    if (this.#acked < 0) this.#acked = (this.#segments[0]?.firstSeq ?? 1) - 1
    const good = Math.max(found, this.#acked + 1)
    if (cursor !== null && cursor.sure > good) {
      this.#lose(cursor.sure - good, 'damaged', { from: null, to: null })
      this.#options.report(`spool ${this.#name}: ${cursor.sure - good} records at its end are missing`)
    }
    this.#nextSeq = Math.max(good, cursor?.reserved ?? (found > 0 ? found + RESERVED : this.#nextSeq))
    this.#sure = good
  }

  async #restoreSegment(id: number, isLast: boolean): Promise<void> {
    const { disk, report } = this.#options
    const path = this.#path(nameOf(id))
    let file: Bytes
    let size: number
    try {
      size = await disk.size(path)
      file = new FileBytes(await disk.open(path, 'r+', FILE_MODE))
    } catch (error) {
      // its records are missed by their numbers
      report(`spool ${path} cannot be read: ${(error as Error).message}`)
      return
    }
    const before = this.#segments.at(-1)?.nextSeq ?? (this.#acked < 0 ? null : this.#acked + 1)
    let segment: Segment | null = null
    let isDamaged = false
    let end = size
    for await (const item of scan((at, bytes) => file.read(at, bytes), 0, size)) {
      if (item.lines === null) {
        if (isLast && item.end === size && isTorn(await file.read(item.at, size - item.at))) end = item.at
        else isDamaged = true
        continue
      }
      segment ??= new Segment(id, file, Math.min(before ?? item.seq, this.#segments.length > 0 ? Infinity : item.seq), true)
      if (item.seq + item.count <= segment.nextSeq) continue
      if (item.seq > segment.nextSeq) isDamaged = true
      const from = Math.max(item.seq, segment.nextSeq)
      if (item.lines.length > 0) segment.live += this.#waitingOf(from, item.seq + item.count - from)
      segment.nextSeq = item.seq + item.count
      segment.lastTime = notedAt(item.time, this.#openedAt)
      segment.firstTime ||= segment.lastTime
      segment.span = spanOfBoth(segment.span, spanOf(asBuffer(item.lines)))
    }
    if (segment === null && !isDamaged) {
      await file.close()
      await disk.unlink(path)
      if (size > 0) report(`spool ${path} held no whole record, only what a crash had cut off`)
      return
    }
    segment ??= new Segment(id, file, before ?? 1, true)
    if (end < size) {
      report(`spool ${path}: ${size - end} bytes at its end were cut off by a crash and go`)
      await file.truncate(end).catch((error: Error) => report(`spool ${path}: ${error.message}`))
    }
    this.#grow(segment, end)
    segment.synced = end
    this.#sealed.add(segment)
    this.#segments.push(segment)
    if (isDamaged) await this.#mend(segment)
  }
}

const SEGMENT = '.segment'
const NEXT = '.next'
const NO_LINES = Buffer.alloc(0)

function nameOf(id: number): string {
  return `${String(id).padStart(10, '0')}${SEGMENT}`
}

function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0)
}

function lengthOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOSPC' || code === 'EDQUOT'
}
