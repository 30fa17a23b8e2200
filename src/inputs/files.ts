/**
 * Followed files: finds them by path and glob, again and again, and hands over each as an input of its own. What a file is, not what it is called, decides where it is
 * read on: files may be renamed, cut, copied and written anew while they are read, and while they are not.
 *
 * The rescan once a second is what is relied upon; hints from the kernel only make it earlier.
 */
import { access, constants, existsSync } from 'node:fs'
import { hostClock } from '../clock.js'
import { CHUNK_BYTES_MAX } from '../event.js'
import { nearest } from '../nearest.js'
import { type BootTime, type Feed, type Input, InputError, type KernelBoots, type LocalClock } from '../stage.js'
import { localClock } from '../formats/local-time.js'
import { Boots } from './boot.js'
import { MAGIC_BYTES } from './decompressed.js'
import { CompressedInput, decompressorOf, holds, isCompressed, unpackedName, unpackingOf } from './files/compressed.js'
import { closing, Descriptors, Gate, opened, readAt, statOf } from './files/descriptors.js'
import { Buffers, type Content, FollowedFile, type FileTail, gapOf, readingOf, type Shared } from './files/follow.js'
import { changedAt, type Discovery, discover, fixedFolder, folderOf, type Found, type Listing, listing, matcherOf, nameOf, type Pattern, patternOf } from './files/glob.js'
import {
  ANCHOR_BYTES,
  anchorAt,
  fromText,
  hasAnchor,
  hasHead,
  HEAD_BYTES,
  hashOf,
  idOf,
  type Identity,
  identityOf,
  keyOf,
  mayBeSame,
  NO_HEAD,
  pathBytes,
  type Position,
  positionsOf,
  type ReadAt,
  restoredPath,
  shown,
} from './files/identity.js'
import { baseName, byAge, isRotatedInOrder, originalNames } from './files/rotation.js'
import { RotatedSets } from './files/rotated-set.js'
import { Vacancy } from './files/vacancy.js'
import { Hints } from './files/watch.js'
import { Saying } from './saying.js'

const LF = 10
const NOTHING = new Uint8Array(0)
/** So many files are opened at a time to see what they are. */
const LOOKS_AT_ONCE = 64
/** The scan takes at most one in so many parts of the time, but comes after so many times its interval at the latest. */
const SCAN_SHARE = 20
const SCAN_MOST = 5
/** After a hint further ones are gathered for so long. */
const HINT_MS = 20
/** With more files hints cost more than they save. */
const HINTED_FILES = 2000
/** So much is searched for the beginning of an unfinished line at the end of a file. */
const LINE_SEARCH_BYTES = 1 << 16
/** So many scans a copy may wait for its original to be cut. */
const COPY_SCANS = 3
/** With so many of its kind a copy is compared. */
const FAMILY_MOST = 64
/** Contents that are gone are remembered for so long, to know their copies by. */
const GONE_MS = 60_000
const GONE_MOST = 256
/** Files read to their end are remembered, should they come back. */
const DONE_MOST = 4096
/** So many looks in a row must miss a file. */
const MISSED_MOST = 3
/** Paths at which nothing is any more are remembered, should something come there and go before it is seen. */
const VACANT_MOST = 64
/** When there are many files at once, each has a smaller buffer. */
const CHUNKS_BYTES = 1 << 26
const CHUNK_BYTES_LEAST = 1 << 14

export interface FilesOptions {
  readonly name: string
  /** paths and globs */
  readonly patterns: readonly string[]
  /** of these globs none is read; one without a slash is for names */
  readonly exclude?: readonly string[]
  /** what of this run's own output a file is, '' none: that is not read */
  readonly isOwn?: (path: string, stat: { readonly dev: bigint; readonly ino: bigint }) => string
  /** where files begin that are there at the start; those that appear later are read whole */
  readonly from: 'start' | 'end'
  /** to the end that they have, and no further */
  readonly once: boolean
  /** what `position` gave for each input, from a checkpoint; null where there is none */
  readonly saved: unknown
  /** with `from: start` or `once`: rotated files that were compressed are read too, if there is no checkpoint */
  readonly history?: boolean
  /** a file that was rotated away or removed is read on for so long after its end */
  readonly rotateWaitMs?: number
  /** open files at a time */
  readonly maxOpen?: number
  /** removed files that are not read yet may hold so much of the disk */
  readonly maxDeletedBytes?: number
  /** ... and for so long */
  readonly maxDeletedMs?: number
  /** of files that have not changed for so long when they are found only what is written later is read; null: of none */
  readonly ignoreOlderMs?: number | null
  /** an unfinished line counts as whole after so long; null: never */
  readonly partialLineMs?: number | null
  /** how often a file is looked at that was written to lately, at first and at last, and how often paths are looked at */
  readonly pollMs?: number
  readonly idleMs?: number
  readonly rescanMs?: number
  /** hints from the kernel */
  readonly hints?: boolean
  readonly boots?: KernelBoots
}

const defaults = {
  exclude: [],
  isOwn: () => '',
  history: false,
  rotateWaitMs: 5000,
  maxOpen: 512,
  maxDeletedBytes: 1 << 30,
  maxDeletedMs: 3_600_000,
  ignoreOlderMs: null,
  partialLineMs: null,
  pollMs: 100,
  idleMs: 1000,
  rescanMs: 1000,
  hints: true,
} as const

/** Throws InputError from `open`: for what is no pattern, a path that may not be read, and with `once` one at which nothing is. */
export function filesFeed(options: FilesOptions): Feed {
  return new FilesFeed({ ...defaults, boots: new Boots(localClock(null)), ...options })
}

/** A content that is in its file no more. */
interface Gone {
  readonly content: Content
  readonly until: number
  isFound: boolean
}

/** Looks like a copy of what is being read. */
interface Pending {
  readonly scans: number
  readonly size: number
}

/** A path at which nothing was at the last look. */
interface Vacant {
  /** when a name was last made or taken away in its folder, and what has come there since is no older than this; in nanoseconds */
  changed: bigint
  oldest: bigint
  /** two looks in a row have seen the same: the clock of a file system goes in steps, and within one there may be a change that it does not show */
  isSettled: boolean
  /** what was read to its end there; null where nothing was */
  vacancy: Vacancy | null
}

type List = (folder: string) => Promise<Listing>

/** Goes on where that ended, at an offset, under its ids: a line that was given already, and is behind the last checkpoint, is the same record again. */
interface Continuation {
  readonly of: Content
  readonly at: number
}

/** Where to begin, or that it must wait, or is passed over. */
type Beginning = Content | 'later' | 'never'

class FilesFeed implements Feed, Shared {
  readonly name: string
  readonly once: boolean
  readonly pollMs: number
  readonly idleMs: number
  readonly rotateWaitMs: number
  readonly partialLineMs: number | null
  readonly boot: (file: FileTail) => BootTime | null
  readonly descriptors: Descriptors
  readonly gate = new Gate()
  buffers = new Buffers(CHUNK_BYTES_MAX)
  readonly #options: Required<FilesOptions>
  readonly #isExcluded: (path: string) => boolean
  /** by file and path: what of this run's own output it is, '' none */
  #own = new Map<string, string>()
  #patterns: readonly Pattern[] = []
  #add: (input: Input) => void = () => {}
  readonly #inputs = new Set<Input>()
  /** by key: all that are being followed */
  readonly #files = new Map<string, FollowedFile>()
  /** by name without folder, and by what that was before rotation */
  #names = new Map<string, FollowedFile[]>()
  #families = new Map<string, FollowedFile[]>()
  /** by folder and name before rotation: the newest, which the next one waits for */
  readonly #newest = new Map<string, FollowedFile | CompressedInput>()
  readonly #followers = new Map<object, (FollowedFile | CompressedInput)[]>()
  readonly #hot = new Set<FollowedFile>()
  readonly #done = new Map<string, Content>()
  #gone: Gone[] = []
  readonly #pending = new Map<string, Pending>()
  /** by path */
  readonly #vacant = new Map<string, Vacant>()
  /** contents that were cut, and their files: copies are looked for */
  readonly #uncovered = new Map<Gone, FollowedFile>()
  /** compressed files that are read, or are known to hold what was read, or were told */
  readonly #packed = new Set<string>()
  /** contents of which a copy goes on */
  readonly #continued = new WeakSet<Content>()
  /** of a checkpoint, and not there any more */
  readonly #missing: { readonly gone: Gone; readonly position: Position }[] = []
  readonly #told = new Set<string>()
  /** how those begin that are packed and whose names do not say so */
  readonly #heads = new Map<string, Uint8Array>()
  readonly #sets = new RotatedSets()
  #isFirst = true
  /** found by the first look, which is handed over as a whole: half of it in a checkpoint would make the other half files that came later */
  #firstInputs: Input[] = []
  onLooked: () => void = nothing
  #isStopped = false
  #running: Promise<void> = Promise.resolve()
  #queued: Promise<void> | null = null
  #rescanTimer: NodeJS.Timeout | null = null
  #rescanAt = 0
  #scanMs = 0
  #pollTimer: NodeJS.Timeout | null = null
  #hints: Hints | null = null
  #end: () => void = () => {}

  constructor(options: Required<FilesOptions>) {
    this.#options = options
    this.name = options.name
    this.once = options.once
    this.pollMs = options.pollMs
    this.idleMs = options.idleMs
    this.rotateWaitMs = options.rotateWaitMs
    this.partialLineMs = options.partialLineMs
    this.boot = (file) => options.boots.of(file)
    this.descriptors = new Descriptors(options.maxOpen)
    this.#isExcluded = matcherOf(options.exclude)
  }

  async open(add: (input: Input) => void): Promise<void> {
    const { once, patterns, hints } = this.#options
    this.#add = add
    try {
      // a path at which something is is that path, whatever stars and brackets are in it
      this.#patterns = patterns.map((text) => patternOf(text, existsSync(text)))
    } catch (error) {
      throw new InputError('broken', `${this.name}: ${(error as Error).message}`)
    }
    await this.#checkLiterals()
    if (hints && !once) this.#hints = new Hints((name, isMoved) => this.#onHint(name, isMoved), (message) => this.diagnose(message))
    await this.#rescan()
    if (once || this.#isStopped) return
    await new Promise<void>((resolve) => (this.#end = resolve))
  }

  get hasLooked(): boolean {
    return !this.#isFirst
  }

  stop(): void {
    this.#stop((input) => input.stop())
  }

  abort(): void {
    this.#stop((input) => input.abort())
  }

  #stop(how: (input: Input) => void): void {
    this.#isStopped = true
    this.#hints?.close()
    if (this.#rescanTimer !== null) clearTimeout(this.#rescanTimer)
    if (this.#pollTimer !== null) clearTimeout(this.#pollTimer)
    for (const input of this.#inputs) how(input)
    for (const file of this.#files.values()) file.close()
    this.#end()
  }

  // what files ask for

  add(input: Input): void {
    this.#inputs.add(input)
    if (this.#isFirst && !this.once) this.#firstInputs.push(input)
    else this.#add(input)
    if (this.#isStopped) input.stop()
  }

  stampsEnd(path: string, clock: LocalClock): number | null {
    return this.#sets.endOf(path, clock)
  }

  restOf(path: string): Uint8Array | undefined {
    return this.#sets.rests.get(path)
  }

  ended(input: Input): void {
    this.#inputs.delete(input)
  }

  diagnose(message: string): void {
    this.#add(new Saying(this.name, { diagnostic: message }))
  }

  tellOnce(about: string, message: string): void {
    if (this.#told.has(about)) return
    this.#told.add(about)
    this.diagnose(message)
  }

  get isCrowded(): boolean {
    return this.#hot.size > this.#options.maxOpen
  }

  heat(file: FollowedFile): void {
    if (this.#isStopped) return
    this.#hot.add(file)
    this.#pollTimer ??= setTimeout(() => this.#poll(), this.pollMs)
  }

  onEnd(file: FollowedFile | CompressedInput): void {
    const followers = this.#followers.get(file)
    if (followers === undefined) return
    this.#followers.delete(file)
    for (const follower of followers) {
      follower.waitsFor = null
      follower.wake()
    }
  }

  onLost(): void {
    this.#rescanSoon()
  }

  async onReplaced(file: FollowedFile, content: Content): Promise<boolean> {
    if (this.once || this.#isStopped) return false
    const gone = this.#remember(content)
    this.#uncovered.set(gone, file)
    await this.#rescan()
    return gone.isFound || this.#continued.has(content)
  }

  /** A copy of what was cut may have a name that fits no pattern: it lies beside the file, then, and is younger. */
  async #findCopies(list: List): Promise<void> {
    const uncovered = [...this.#uncovered]
    this.#uncovered.clear()
    for (const [gone, { path, identity }] of uncovered) {
      if (identity.birthtime === '0' || gone.content.head.length === 0) continue
      const oldest = BigInt(identity.birthtime)
      const beside = (await list(folderOf(path))).files.filter((one) => !gone.isFound && !this.#continued.has(gone.content) && this.#cameAfter(one, path, oldest, undefined))
      for (const one of beside) {
        const { head, marks } = gone.content
        const isCopy = await reading(one.path, async (read) => (await copyOf({ ...gone.content, marks: [...marks] }, Number(one.stat.size), await read(0, head.length), read)) >= 0).catch(() => false)
        if (isCopy) await this.#meet(one, path)
      }
    }
  }

  onDone(file: FollowedFile): void {
    this.#hot.delete(file)
    this.#files.delete(file.key)
    this.#done.set(file.key, file.content)
    if (this.#done.size > DONE_MOST) this.#done.delete(this.#done.keys().next().value!)
    this.onEnd(file)
    const { origin, content } = file
    if (this.#vacant.has(origin) && !file.isDeleted && content.offset >= content.size) this.#leaves(origin, file.positionIn(content, content.offset))
  }

  // when to look

  #poll(): void {
    this.#pollTimer = null
    const now = performance.now()
    for (const file of this.#hot) if (!file.poll(now)) this.#hot.delete(file)
    if (this.#hot.size > 0 && !this.#isStopped) this.#pollTimer = setTimeout(() => this.#poll(), this.pollMs)
  }

  #onHint(name: string, isMoved: boolean): void {
    const known = this.#names.get(fromText(name))
    known?.forEach((file) => file.look())
    if (isMoved || known === undefined) this.#rescanSoon()
  }

  #rescanSoon(): void {
    this.#rescanIn(Math.min(Math.max(HINT_MS, this.#scanMs * SCAN_SHARE), this.#options.rescanMs))
  }

  #rescanIn(ms: number): void {
    if (this.#isStopped || this.once) return
    const at = performance.now() + ms
    if (this.#rescanTimer !== null) {
      if (this.#rescanAt <= at) return
      clearTimeout(this.#rescanTimer)
    }
    this.#rescanAt = at
    this.#rescanTimer = setTimeout(() => {
      this.#rescanTimer = null
      this.#rescan().catch((error: unknown) => this.tellOnce('scan', `${this.name}: looking for files failed, it is tried again: ${String(error)}`))
    }, ms)
  }

  /** A scan that begins after this call. One at a time. */
  #rescan(): Promise<void> {
    if (this.#queued === null) {
      this.#queued = this.#running.then(async () => {
        this.#queued = null
        if (this.#isStopped) return
        const began = performance.now()
        try {
          await this.#scan()
        } finally {
          this.#scanMs = performance.now() - began
          this.#rescanIn(Math.min(Math.max(this.#options.rescanMs, this.#scanMs * SCAN_SHARE), this.#options.rescanMs * SCAN_MOST))
        }
      })
      // a scan that failed must not hold up the next
      this.#running = this.#queued.catch(() => {})
    }
    return this.#queued
  }

  // what is there

  async #scan(): Promise<void> {
    const all = this.#withoutOwn(await discover(this.#patterns, this.#isExcluded))
    const found = this.once ? await this.#lookInto(all) : all
    if (this.#isStopped) return
    const isFirst = this.#isFirst
    const listed = new Map<string, Promise<Listing>>()
    const list: List = (folder) => {
      if (!listed.has(folder)) listed.set(folder, listing(folder))
      return listed.get(folder)!
    }
    this.#tellTrouble(found)
    const fresh = this.#match(found)
    const strays = isFirst ? await this.#resume(fresh, found, list) : new Map([...(await this.#passed(fresh, found, list)), ...(await this.#lost(found, list))])
    this.#nameAll()
    if (isFirst) {
      await this.#checkThere(found, list)
      if (this.once) this.buffers = new Buffers(Math.max(CHUNK_BYTES_LEAST, CHUNKS_BYTES / Math.max(1, found.files.length)))
      await this.#addHistory(found)
    }
    for (const one of byAge([...fresh.values(), ...strays.keys()])) await this.#meet(one, strays.get(one) ?? '')
    await this.#findCopies(list)
    if (this.#isFirst) this.#handOverFirst()
    for (const { gone, position } of this.#missing.splice(0)) if (!gone.isFound) this.#vanished(position)
    if (!this.once) await this.#noteVacant(found)
    await this.#limitDeleted()
    this.#gone = this.#gone.filter(({ until }) => performance.now() < until)
    this.#nameAll()
    await this.#watch(found)
  }

  /** What the program writes itself is left out, and said once of each. */
  #withoutOwn(found: Discovery): Discovery {
    const before = this.#own
    this.#own = new Map()
    for (const { path, stat } of found.files) {
      const key = `${keyOf(identityOf(stat))} ${path}`
      const known = before.get(key)
      const own = known ?? this.#options.isOwn(path, stat)
      this.#own.set(key, own)
      if (own !== '') this.tellOnce(`own ${key}`, `${shown(path)} is not read: it is ${own}, and a run would read what it writes`)
    }
    return { ...found, files: found.files.filter(({ path, stat }) => this.#own.get(`${keyOf(identityOf(stat))} ${path}`) === '') }
  }

  /** Saved files are sent and kept under any name; rotated ones tell of each other. */
  async #lookInto(found: Discovery): Promise<Discovery> {
    const { files } = found
    const look = async ({ path }: Found): Promise<void> => {
      if (isCompressed(path)) return
      const head = await reading(path, (read) => read(0, MAGIC_BYTES)).catch(() => NOTHING)
      if (head.length > 0 && decompressorOf(path, head) !== null) this.#heads.set(path, head)
    }
    for (let at = 0; at < files.length; at += LOOKS_AT_ONCE) await Promise.all(files.slice(at, at + LOOKS_AT_ONCE).map(look))
    await this.#sets.look(files.map((one) => ({ ...one, head: this.#isPacked(one) ? (this.#heads.get(one.path) ?? NOTHING) : null })))
    for (const [copy, original] of this.#sets.copies) this.diagnose(`${shown(copy)} is not read: it holds the same as ${shown(original)}`)
    return { ...found, files: files.filter(({ path }) => !this.#sets.copies.has(path)) }
  }

  #isPacked({ path }: Found): boolean {
    return isCompressed(path) || this.#heads.has(path)
  }

  #handOverFirst(): void {
    this.#isFirst = false
    for (const input of this.#firstInputs.splice(0)) this.#add(input)
    this.onLooked()
  }

  /** Tells the files that are known where they are, and gives those that are not. */
  #match({ files, failed }: Discovery): Map<string, Found> {
    const byKey = new Map<string, Found>()
    for (const one of files) {
      if (this.#isPacked(one)) continue
      const key = keyOf(identityOf(one.stat))
      // of several names of one file, the one by which it is known
      if (!byKey.has(key) || this.#files.get(key)?.path === one.path) byKey.set(key, one)
    }
    const now = performance.now()
    const paths = new Set(files.map(({ path }) => path))
    for (const [key, file] of this.#files) {
      const one = byKey.get(key)
      if (one !== undefined) {
        file.seen(one.path, one.stat)
        if (file.renamedFrom !== '' && Number.isNaN(file.replacedSince) && paths.has(file.renamedFrom)) file.replaced(now)
      } else if (Number.isNaN(file.awaySince) && !failed.has(file.path) && !failed.has(folderOf(file.path))) file.away(now)
      byKey.delete(key)
    }
    return byKey
  }

  /** Looks for files that have left their paths. Gives files that came and went at the same path meanwhile, with that path. */
  async #lost({ files }: Discovery, list: List): Promise<Map<Found, string>> {
    const strays = new Map<Found, string>()
    const now = new Map(files.map((one) => [one.path, one]))
    for (const file of [...this.#files.values()]) {
      if (Number.isNaN(file.awaySince)) continue
      if (!file.isOpen) await this.#locate(file, list)
      if (file.isSearched) continue
      file.isSearched = true
      const { origin } = file
      for (const one of await this.#between(origin, file.identity, now.get(origin), list)) strays.set(one, origin)
      await this.#tellPacked(origin, BigInt(file.identity.birthtime), list)
      if (!now.has(origin)) this.#vacate(origin, (await list(folderOf(origin))).changed)
    }
    return strays
  }

  /** What came to a path at which nothing was, and was moved on before this look. Gives it with that path. */
  async #passed(fresh: ReadonlyMap<string, Found>, { files }: Discovery, list: List): Promise<Map<Found, string>> {
    const strays = new Map<Found, string>()
    const now = new Map(files.map((one) => [one.path, one]))
    const changes = new Map<string, Promise<bigint>>()
    for (const [path, vacant] of this.#vacant) {
      const folder = folderOf(path)
      if (!changes.has(folder)) changes.set(folder, changedAt(folder))
      const isUnchanged = (await changes.get(folder)!) === vacant.changed
      if (isUnchanged && vacant.isSettled) continue
      vacant.isSettled = isUnchanged
      const { files: beside, changed } = await list(folder)
      for (const one of beside) {
        if (!this.#cameAfter(one, path, vacant.oldest, now.get(path)) || fresh.has(keyOf(identityOf(one.stat))) || !isRotatedInOrder(one, beside)) continue
        // it may be a copy of what was there
        if (vacant.vacancy !== null) this.#remember(contentOf(vacant.vacancy.last))
        strays.set(one, path)
      }
      await this.#tellPacked(path, vacant.oldest, list)
      // what is there may have been there before this look, and not be followed yet
      if (now.has(path) || changed === vacant.changed) continue
      vacant.changed = changed
      vacant.oldest = changed
    }
    return strays
  }

  /** Nothing is at this path, or nothing that is followed yet. */
  #vacate(path: string, changed: bigint, oldest = changed): void {
    if (this.#vacant.has(path)) return
    this.#vacant.set(path, { changed, oldest, isSettled: false, vacancy: null })
    if (this.#vacant.size > VACANT_MOST) this.#fill(this.#vacant.keys().next().value!)
  }

  /** The last file that was there was read to its end. Of several, the youngest tells most. */
  #leaves(path: string, last: Position): void {
    const vacant = this.#vacant.get(path)!
    if (this.#isStopped || last.birthtime === '0' || (vacant.vacancy !== null && BigInt(vacant.vacancy.last.birthtime) > BigInt(last.birthtime))) return
    this.#leave(vacant.vacancy)
    vacant.vacancy = new Vacancy(this.name, last)
    this.add(vacant.vacancy)
  }

  #leave(vacancy: Vacancy | null): void {
    if (vacancy === null) return
    vacancy.fill()
    this.ended(vacancy)
  }

  #fill(path: string): void {
    this.#leave(this.#vacant.get(path)!.vacancy)
    this.#vacant.delete(path)
  }

  /** Paths that are followed by now, or whose folders are gone, are vacant no more; those that were named and at which nothing is yet are. */
  async #noteVacant({ files }: Discovery): Promise<void> {
    const now = new Map(files.map((one) => [one.path, one]))
    for (const path of [...this.#vacant.keys()]) {
      const one = now.get(path)
      if (one === undefined ? (await changedAt(folderOf(path))) < 0n : this.#isKnown(one)) this.#fill(path)
    }
    for (const { text, isLiteral } of this.#patterns) {
      const path = fromText(text)
      if (!isLiteral || now.has(path) || this.#vacant.has(path)) continue
      const changed = await changedAt(folderOf(path))
      // in a quiet folder the file that was made last is as old as the change
      if (changed >= 0n) this.#vacate(path, changed, changed + 1n)
    }
  }

  /**
   * Rotated more than once between two scans: what was made at this path after `old` and moved on before now is known by its name and by being younger, and is
   * read, whether its new name fits a pattern or not.
   */
  async #between(path: string, old: Identity, now: Found | undefined, list: List): Promise<Found[]> {
    if (old.birthtime === '0') return []
    const oldest = BigInt(old.birthtime)
    const { files } = await list(folderOf(path))
    return files.filter((one) => !mayBeSame(old, identityOf(one.stat)) && this.#cameAfter(one, path, oldest, now))
  }

  /** Named after this path, born since then and before what is there now, and not known. */
  #cameAfter(one: Found, path: string, oldest: bigint, now: Found | undefined): boolean {
    const born = one.stat.birthtimeNs
    if (one.path === path || !nameOf(one.path).startsWith(nameOf(path)) || isCompressed(one.path) || born === 0n) return false
    // equal times are usual: the kernel's clock for files goes in steps of 4 ms
    return born >= oldest && (now === undefined || born <= now.stat.birthtimeNs) && !this.#isKnown(one)
  }

  /** Compressed files named after this path, with what was written after `oldest`: their ages are kept by those who compress. */
  async #packedAfter(path: string, oldest: bigint, list: List): Promise<Found[]> {
    const { files } = await list(folderOf(path))
    const isNamed = ({ path: one }: Found): boolean => nameOf(one).startsWith(nameOf(path)) && isCompressed(one)
    const isAfter = ({ stat }: Found): boolean => stat.birthtimeNs >= oldest && stat.mtimeNs >= oldest && !this.#packed.has(keyOf(identityOf(stat)))
    const some = files.filter((one) => isNamed(one) && isAfter(one))
    // what is not compressed to its end yet is there beside
    return some.filter((one) => !files.some((other) => other.path === unpackedName(one.path)))
  }

  /** Where the content of a file that is gone goes on, compressed. */
  async #packedOf(path: string, position: Position, list: List): Promise<Found | undefined> {
    if (position.birthtime === '0') return undefined
    for (const one of await this.#packedAfter(path, BigInt(position.birthtime), list)) if (await holds(one.path, position)) return one
    return undefined
  }

  /** What came to this path after `oldest`, and was moved on and compressed before it was seen, is not read: it may hold what was read before the program was killed. */
  async #tellPacked(path: string, oldest: bigint, list: List): Promise<void> {
    const packed = oldest === 0n ? [] : await this.#packedAfter(path, oldest, list)
    if (packed.length === 0) return
    const contents = [...[...this.#files.values()].map(({ content }) => content), ...this.#done.values(), ...this.#gone.map(({ content }) => content)]
    const known = contents.flatMap((content) => (content.before === null ? [content] : [content, content.before])).filter(({ head }) => head.length > 0)
    const written = new Set([...this.#files.values()].map(({ modified }) => modified))
    for (const one of packed) {
      const key = keyOf(identityOf(one.stat))
      this.#packed.add(key)
      if (written.has(Number(one.stat.mtimeNs / 1000n)) || (await holdsOneOf(one.path, known))) continue
      const reason = `${shown(one.path)} was moved on from ${shown(path)} and compressed before it was read`
      this.#add(new Saying(this.name, { gap: gapOf('file_vanished', reason) }, { id: idOf(identityOf(one.stat), NOTHING), generation: 0, offset: 0 }))
    }
  }

  #isKnown({ stat }: Found): boolean {
    const key = keyOf(identityOf(stat))
    return this.#files.has(key) || this.#done.has(key)
  }

  /** A file that is neither open nor at any path that is followed: where it lay last, or beside that. */
  async #locate(file: FollowedFile, list: List): Promise<void> {
    for (const folder of new Set([folderOf(file.lastPlace || file.path), folderOf(file.path)])) {
      const one = (await list(folder)).files.find(({ stat }) => keyOf(identityOf(stat)) === file.key)
      if (one !== undefined) {
        file.path = one.path
        file.missed = 0
        file.look()
        return
      }
    }
    // a folder in which much is renamed may be listed without it
    if (++file.missed < MISSED_MOST) return
    const { content } = file
    const compressed = await this.#packedOf(file.path, file.positionIn(content, content.offset), list)
    if (compressed !== undefined) {
      this.#decompress(compressed, content)
      return file.finish(null)
    }
    const unread = content.size - content.offset
    file.finish(unread > 0 ? gapOf('file_vanished', `${shown(file.path)} is gone with at least ${unread} bytes unread`) : null)
  }

  // what is new

  /** `origin`: the path at which it was, where it is gone from there. */
  async #meet(one: Found, origin: string): Promise<void> {
    const isOutside = origin !== ''
    const identity = identityOf(one.stat)
    const key = keyOf(identity)
    if (this.#isStopped || this.#files.has(key)) return
    const size = Number(one.stat.size)
    // an empty file may be the beginning of a copy; it is met when there is something in it
    if (size === 0 && !this.#isFirst && !isOutside && !this.#done.has(key) && this.#copiedUnder(one).length > 0) return
    let content: Beginning
    try {
      content = await this.#beginning(one, key, isOutside)
    } catch (error) {
      this.tellOnce(one.path, `${shown(one.path)} cannot be read yet: ${(error as Error).message}; it is tried again`)
      this.#searchAgain(one.path)
      return
    }
    if (content === 'later') this.#searchAgain(one.path)
    if (content === 'later' || content === 'never') return
    this.#pending.delete(key)
    this.#follow(one, content, origin)
  }

  /** What is at this path is not followed yet, and may be moved on before it is: then it is found as what came after those that were there. */
  #searchAgain(path: string): void {
    for (const file of this.#files.values()) if (!Number.isNaN(file.awaySince) && file.origin === path) file.isSearched = false
  }

  /** Where a file begins that is not being followed. Throws what opening or reading met. */
  async #beginning(one: Found, key: string, isOutside: boolean): Promise<Beginning> {
    const { from, once, saved } = this.#options
    const identity = identityOf(one.stat)
    const done = this.#done.get(key)
    if (done !== undefined) return { ...done, marks: [...done.marks] }
    const size = Number(one.stat.size)
    const fromEnd = this.#isFirst && !once && from === 'end' && saved === null
    if (fromEnd || this.#isOld(one)) return this.#atEnd(one, identity)
    const hasNoBirth = identity.birthtime === '0'
    const skip = this.#sets.skips.get(one.path)
    if (skip !== undefined) return reading(one.path, async (read) => seeded({ id: idOf(identity, await read(0, ANCHOR_BYTES)), generation: 0 }, skip, size, read))
    if (once || (this.#isFirst && saved === null)) return empty(hasNoBirth ? await this.#idByContent(one, identity) : idOf(identity, NOTHING))
    if (!hasNoBirth && size > 0 && !this.#mayBeCopy(one)) return empty(idOf(identity, NOTHING))
    return reading(one.path, async (read) => {
      const head = await read(0, HEAD_BYTES)
      const id = idOf(identity, head.subarray(0, ANCHOR_BYTES))
      const at = await this.#copied(one, key, size, head, read, isOutside)
      if (typeof at === 'string') return at
      if (typeof at === 'object') return seeded(at.of, at.at, size, read)
      return at === 0 ? empty(id) : seeded({ id, generation: 0 }, at, size, read)
    })
  }

  /** By the clock of the world; a time to come, when that was set back, is not old. */
  #isOld({ stat }: Found): boolean {
    const { ignoreOlderMs } = this.#options
    return ignoreOlderMs !== null && hostClock.ageMs(Number(stat.mtimeMs)) > ignoreOlderMs
  }

  /** Behind its last whole line. */
  async #atEnd(one: Found, identity: Identity): Promise<Content> {
    const size = Number(one.stat.size)
    if (size === 0) return empty(identity.birthtime === '0' ? await this.#idByContent(one, identity) : idOf(identity, NOTHING))
    try {
      return await reading(one.path, async (read) => {
        const id = idOf(identity, (await read(0, ANCHOR_BYTES)))
        const last = await read(Math.max(0, size - LINE_SEARCH_BYTES), Math.min(size, LINE_SEARCH_BYTES))
        const lf = last.lastIndexOf(LF)
        return seeded({ id, generation: 0 }, lf >= 0 || size <= LINE_SEARCH_BYTES ? size - last.length + lf + 1 : size, size, read)
      })
    } catch (error) {
      if (!isRefusal(error)) throw error
      // what is written from now on is read when that is permitted
      return { ...empty(idOf(identity, NOTHING)), offset: size, size }
    }
  }

  async #idByContent(one: Found, identity: Identity): Promise<string> {
    return reading(one.path, async (read) => idOf(identity, await read(0, ANCHOR_BYTES)))
  }

  #mayBeCopy(one: Found): boolean {
    return this.#gone.length > 0 || this.#originals(one).length > 0
  }

  /** Files that by their names may be what this one is a copy of, though both may have been renamed since. */
  #originals(one: Found): FollowedFile[] {
    return [...new Set([...this.#copiedUnder(one), ...(this.#families.get(baseName(nameOf(one.path))) ?? []).slice(0, FAMILY_MOST)])]
  }

  /** Those whose names its own begins with: `a.log` for `a.log.1`. */
  #copiedUnder(one: Found): FollowedFile[] {
    return originalNames(nameOf(one.path)).flatMap((name) => this.#names.get(name) ?? [])
  }

  /** Is it a copy of what was or is being read (`cp a a.1; : > a`)? Then it begins where that ended. */
  async #copied(one: Found, key: string, size: number, head: Uint8Array, read: ReadAt, isOutside: boolean): Promise<number | Continuation | 'later' | 'never'> {
    for (const gone of this.#gone) {
      const at = await copyOf(gone.content, size, head, read)
      if (at < 0) continue
      gone.isFound = true
      return { of: gone.content, at }
    }
    for (const original of this.#originals(one)) {
      if (original.key === key) continue
      const like = await this.#likeness(original, size, head, read)
      if (like === 'none') continue
      if (like !== 'snapshot') return like
      if (isOutside) return 'never'
      const before = this.#pending.get(key)
      const scans = before !== undefined && before.size === size ? before.scans + 1 : 0
      this.#pending.set(key, { scans, size })
      if (scans < COPY_SCANS || (size >= HEAD_BYTES && original.content.offset < size)) return 'later'
      // so short a beginning may be a header that many files have
      return size >= HEAD_BYTES ? size : 0
    }
    return 0
  }

  /** A copy of what the original holds, or where to go on in a copy of what it held; an original that cannot be looked at holds up nobody. */
  async #likeness(original: FollowedFile, size: number, head: Uint8Array, read: ReadAt): Promise<Continuation | 'snapshot' | 'none'> {
    const { content } = original
    if (content.before !== null) {
      const at = await copyOf(content.before, size, head, read)
      if (at >= 0) return { of: content.before, at }
    }
    if (content.head.length > 0 && size >= content.head.length && hashOf(head.subarray(0, content.head.length)) !== content.head.hash) return 'none'
    try {
      if (await isIntact(original)) return (await isSnapshot(original, size, head, read)) ? 'snapshot' : 'none'
    } catch {
      return 'none'
    }
    const at = await copyOf(content, size, head, read)
    if (at < 0) return 'none'
    this.#continued.add(content)
    return { of: content, at }
  }

  #follow(one: Found, content: Content, origin: string): FollowedFile {
    this.#options.boots.add(one.path)
    const file = new FollowedFile(this, one.path, one.stat, content)
    this.#files.set(file.key, file)
    this.#done.delete(file.key)
    if (origin !== '') file.strays(performance.now(), origin)
    this.#queue(file)
    file.start()
    return file
  }

  /** Of files that took each other's place, the older one is read first. */
  #queue(file: FollowedFile | CompressedInput): void {
    if (this.once) return
    const group = familyOf(file.path)
    const before = this.#newest.get(group)
    this.#newest.set(group, file)
    if (before === undefined || before.isDone) return
    file.waitsFor = before
    if (file instanceof FollowedFile) file.hold()
    this.#followers.set(before, [...(this.#followers.get(before) ?? []), file])
    if (before instanceof FollowedFile) before.await()
  }

  // a new start

  /** Goes on with what a checkpoint knows. Takes it from `fresh`; gives files that came and went since. */
  async #resume(fresh: Map<string, Found>, { files }: Discovery, list: List): Promise<Map<Found, string>> {
    const { saved } = this.#options
    if (saved === null || this.once) return new Map()
    const { positions, broken } = positionsOf(saved)
    if (broken > 0) this.diagnose(`${this.name}: ${broken} positions of the checkpoint are not understood; their files are read from the beginning`)
    const now = new Map(files.map((one) => [one.path, one]))
    const strays = new Map<Found, string>()
    const byInode = new Map([...fresh.values()].map((one) => [String(one.stat.ino), one]))
    const newest = newestOf(positions)
    // what came before the youngest was known, and is read to its end where it is not among these
    const youngest = new Map<string, Position>()
    for (const position of newest) {
      const path = restoredPath(position)
      const other = youngest.get(path)
      if (other === undefined || BigInt(other.birthtime) < BigInt(position.birthtime)) youngest.set(path, position)
    }
    for (const position of positions) if (!newest.includes(position) && position.compressed !== true) this.#remember(contentOf(position))
    const resumed: { readonly one: Found; readonly position: Position; readonly origin: string }[] = []
    const packed: { readonly path: string; readonly oldest: bigint }[] = []
    for (const position of newest) {
      const path = restoredPath(position)
      if (position.compressed === true) {
        const one = [...files, ...(await list(folderOf(path))).files].find(({ stat }) => mayBeSame(position, identityOf(stat)))
        if (one !== undefined) this.#decompress(one, position)
        else this.#vanished(position)
        continue
      }
      const inside = byInode.get(position.ino)
      const isInside = inside !== undefined && mayBeSame(position, identityOf(inside.stat))
      const one = isInside ? inside : (await list(folderOf(path))).files.find(({ stat }) => mayBeSame(position, identityOf(stat)))
      if (one?.path !== path && youngest.get(path) === position) {
        for (const stray of await this.#between(path, position, now.get(path), list)) strays.set(stray, path)
        packed.push({ path, oldest: BigInt(position.birthtime) })
        if (!now.has(path)) this.#vacate(path, (await list(folderOf(path))).changed)
      }
      if (one === undefined) {
        const compressed = await this.#packedOf(path, position, list)
        if (compressed !== undefined) {
          this.#decompress(compressed, position)
          continue
        }
        this.#missing.push({ gone: this.#remember(contentOf(position)), position })
        if (position.offset >= position.size && this.#vacant.has(path)) this.#leaves(path, position)
      } else {
        fresh.delete(keyOf(identityOf(one.stat)))
        resumed.push({ one, position, origin: isInside ? '' : path })
      }
    }
    const positionsByFile = new Map(resumed.map((each) => [each.one, each]))
    for (const one of byAge([...positionsByFile.keys()])) {
      const { position, origin } = positionsByFile.get(one)!
      const file = this.#follow(one, contentOf(position), origin)
      if (one.path !== restoredPath(position)) file.renamedFrom = restoredPath(position)
    }
    for (const { path, oldest } of packed) await this.#tellPacked(path, oldest, list)
    for (const one of strays.keys()) if (this.#isKnown(one) || fresh.has(keyOf(identityOf(one.stat)))) strays.delete(one)
    return strays
  }

  #vanished(position: Position): void {
    const unread = position.size - position.offset
    if (unread <= 0 && position.compressed !== true) return
    const what = position.compressed === true ? 'before it was read to its end' : `with at least ${unread} bytes unread`
    this.#add(new Saying(this.name, { gap: gapOf('file_vanished', `${position.path} went away ${what}`) }, position))
  }

  #remember(content: Content): Gone {
    const gone: Gone = { content, until: performance.now() + GONE_MS, isFound: false }
    this.#gone.push(gone)
    if (this.#gone.length > GONE_MOST) this.#gone.shift()
    return gone
  }

  /** What was rotated and compressed before the first start. */
  async #addHistory({ files }: Discovery): Promise<void> {
    const { history, from, once, saved } = this.#options
    if (!once && (!history || saved !== null || from === 'end')) {
      const literal = new Set(this.#patterns.filter((pattern) => pattern.isLiteral).map((pattern) => fromText(pattern.text)))
      for (const { path } of files) if (isCompressed(path) && literal.has(path)) this.diagnose(`${shown(path)} is compressed and is not read: history is not asked for`)
      return
    }
    for (const one of byAge(files.filter((one) => this.#isPacked(one)))) {
      this.#decompress(one, { id: idOf(identityOf(one.stat), pathBytes(one.path)), generation: 0, offset: this.#sets.skips.get(one.path) ?? 0 })
    }
  }

  /** Goes on with what it holds, under the ids of that. */
  #decompress(one: Found, { id, generation, offset }: Pick<Content, 'id' | 'generation' | 'offset'>): void {
    this.#packed.add(keyOf(identityOf(one.stat)))
    const head = this.#heads.get(one.path) ?? NOTHING
    if (decompressorOf(one.path, head) === null) {
      this.diagnose(`${shown(one.path)} is not read: ${unpackingOf(one.path)}`)
      return
    }
    const { name, once, boot } = this
    this.#options.boots.add(one.path)
    const input = new CompressedInput({ name, path: one.path, stat: one.stat, head, id, generation, offset, once, boot, stampsEnd: (clock) => this.stampsEnd(one.path, clock), rest: this.restOf(one.path), onEnd: (input) => this.#read(input) })
    this.#queue(input)
    this.add(input)
  }

  #read(input: CompressedInput): void {
    this.ended(input)
    this.onEnd(input)
  }

  // limits and troubles

  /** Removed files keep their blocks as long as they are open: more than allowed, or for longer, and the one removed first is given up. */
  async #limitDeleted(): Promise<void> {
    const deleted: { readonly file: FollowedFile; readonly bytes: number }[] = []
    for (const file of this.#files.values()) {
      if (Number.isNaN(file.awaySince)) continue
      const unread = await file.unread().catch(() => null)
      file.isDeleted = unread?.isDeleted === true
      if (unread !== null && file.isDeleted) deleted.push({ file, bytes: unread.bytes })
    }
    deleted.sort((a, b) => a.file.awaySince - b.file.awaySince)
    let held = deleted.reduce((sum, { bytes }) => sum + bytes, 0)
    const { maxDeletedBytes, maxDeletedMs } = this.#options
    const oldest = performance.now() - maxDeletedMs
    for (const { file, bytes } of deleted) {
      const isTooMuch = held > maxDeletedBytes
      if (bytes === 0 || (!isTooMuch && file.awaySince > oldest)) continue
      held -= bytes
      const lines = await file.linesLeft()
      const limit = isTooMuch ? `hold ${maxDeletedBytes} bytes` : `be held for ${maxDeletedMs / 1000} s`
      file.finish(gapOf('file_vanished', `${shown(file.path)} was removed and given up with ${bytes} bytes unread: removed files may ${limit}`, lines))
    }
  }

  #nameAll(): void {
    this.#names = new Map()
    this.#families = new Map()
    for (const file of this.#files.values()) {
      const name = nameOf(file.path)
      addTo(this.#names, name, file)
      addTo(this.#families, baseName(name), file)
    }
  }

  #tellTrouble({ others, circles, failed }: Discovery): void {
    if (circles.length > 0) this.tellOnce('circles', `${this.name}: ${shown(circles[0]!)}${circles.length > 1 ? ` and ${circles.length - 1} more` : ''} passed over: a link leads there to a folder that was looked at already, and each is looked at once for each part of the path`)
    for (const { path, stat } of others) {
      const what = stat.isDirectory() ? 'a folder' : stat.isFIFO() ? 'a named pipe' : stat.isSocket() ? 'a socket' : 'a device'
      const inside = stat.isDirectory() ? `; the files in it are ${shown(path).replace(/\/$/, '')}/*` : ''
      this.tellOnce(path, `${shown(path)} is ${what} and is passed over: only regular files are followed${inside}`)
    }
    for (const [path, error] of failed) this.tellOnce(path, `${shown(path)} cannot be looked at: ${error.message}; it is tried again every second`)
  }

  /** A path that was named, is there, and may not be read. */
  async #checkLiterals(): Promise<void> {
    for (const { text, isLiteral } of this.#patterns) {
      if (!isLiteral) continue
      const error = await refusal(fromText(text))
      if (error === 'EACCES' || error === 'EPERM') throw new InputError('denied', `${text} may not be read: give this user the right to it, and to the folders above it (log files are often open to the group adm)`)
    }
  }

  /** With `once` nothing can be waited for. */
  /** A path at which nothing is may be misspelled: that is said at once, and with `once` it is the end. */
  async #checkThere(all: Discovery, list: List): Promise<void> {
    for (const pattern of this.#patterns) {
      const { files, others, failed } = this.#patterns.length === 1 ? all : await discover([pattern], this.#isExcluded)
      if (files.length > 0) continue
      if (this.once) throw new InputError('missing', `${pattern.text}: ${others.length > 0 ? 'no regular file is' : 'nothing is'} there, and with --once none is waited for${await this.#beside(pattern, list)}`)
      // what is there and is no file, or cannot be looked at, has been told
      if (others.length === 0 && failed.size === 0) this.diagnose(`${pattern.text}: nothing is there yet; it is waited for${await this.#beside(pattern, list)}`)
    }
  }

  /** The file that may have been meant, as the end of a sentence. */
  async #beside({ text, isLiteral }: Pattern, list: List): Promise<string> {
    if (!isLiteral) return ''
    const names = (await list(folderOf(fromText(text)))).files.map(({ path }) => shown(nameOf(path)))
    const meant = nearest(nameOf(text), names)
    return meant === undefined ? '' : `; its folder has ${meant}`
  }

  async #watch({ files }: Discovery): Promise<void> {
    if (this.#hints === null || files.length > HINTED_FILES) {
      this.#hints?.close()
      return
    }
    const folders = new Set(files.map(({ path }) => folderOf(path)))
    for (const pattern of this.#patterns) {
      const folder = fromText(fixedFolder(pattern))
      if ((await refusal(folder)) === '') folders.add(folder)
    }
    this.#hints.watch(folders)
  }
}

function familyOf(path: string): string {
  return `${folderOf(path)}/${baseName(nameOf(path))}`
}

async function holdsOneOf(path: string, contents: readonly Content[]): Promise<boolean> {
  for (const content of contents) if (await holds(path, readingOf(content, content.offset))) return true
  return false
}

function addTo<K, V>(all: Map<K, V[]>, key: K, value: V): void {
  const some = all.get(key)
  if (some === undefined) all.set(key, [value])
  else some.push(value)
}

function empty(id: string): Content {
  return { id, generation: 0, head: NO_HEAD, marks: [], offset: 0, size: 0, before: null }
}

/** Begins at `at`, with what stands there. */
async function seeded({ id, generation }: Pick<Content, 'id' | 'generation'>, at: number, size: number, read: ReadAt): Promise<Content> {
  const head = await read(0, Math.min(HEAD_BYTES, at))
  const before = Math.min(ANCHOR_BYTES, at)
  const marks = at === 0 ? [] : [anchorAt(at, await read(at - before, before))]
  return { id, generation, head: { length: head.length, hash: hashOf(head) }, marks, offset: at, size, before: null }
}

function contentOf({ id, generation, head, anchor, offset, size, before }: Pick<Position, 'id' | 'generation' | 'head' | 'anchor' | 'offset' | 'size' | 'before'>): Content {
  return { id, generation, head, marks: anchor.length === 0 ? [] : [anchor], offset, size, before: before === undefined ? null : contentOf({ id, ...before }) }
}

/** Of each file the last generation, and of its pieces the first that is not done. */
function newestOf(positions: readonly Position[]): Position[] {
  const newest = new Map<string, Position>()
  for (const position of positions) {
    // a copy has the id of what it is a copy of
    const key = keyOf(position)
    const other = newest.get(key)
    const isNewer = other === undefined || position.generation > other.generation || (position.generation === other.generation && position.offset < other.offset)
    if (isNewer) newest.set(key, position)
  }
  return [...newest.values()]
}

/** Where to go on in a file that may be a copy of a content that is gone: at its last line that was read, at the end when it was copied before that; -1 when it is none. */
async function copyOf(content: Content, size: number, head: Uint8Array, read: ReadAt): Promise<number> {
  const { length, hash } = content.head
  if (length === 0 || size < length || hashOf(head.subarray(0, length)) !== hash) return -1
  const mark = content.marks.findLast(({ at }) => at <= size)
  if (mark === undefined || !(await hasAnchor(read, mark))) return -1
  return mark === content.marks.at(-1) ? mark.at : size
}

/** Is what was read of it still there? */
async function isIntact(file: FollowedFile): Promise<boolean> {
  const read: ReadAt = (from, length) => file.bytesAt(from, length)
  const { head, marks } = file.content
  const mark = marks.at(-1)
  return (mark === undefined || (await hasAnchor(read, mark))) && (await hasHead(read, head))
}

/** Does the original begin with all that is in a file of this size? */
async function isSnapshot(original: FollowedFile, size: number, head: Uint8Array, read: ReadAt): Promise<boolean> {
  if (size === 0 || head.length === 0 || !isSame(await original.bytesAt(0, head.length), head)) return false
  const length = Math.min(size, ANCHOR_BYTES)
  return isSame(await original.bytesAt(size - length, length), await read(size - length, length))
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}

/** Opened for a moment. */
async function reading<T>(path: string, work: (read: ReadAt) => Promise<T>): Promise<T> {
  const fd = await opened(path)
  try {
    if (!(await statOf(fd)).isFile()) throw new Error('it is no regular file any more')
    return await work((from, length) => readAt(fd, from, length))
  } finally {
    await closing(fd)
  }
}

function isRefusal(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'EACCES' || code === 'EPERM'
}

function nothing(): void {}

/** Why a path may not be read; '' when it may. */
function refusal(path: string): Promise<string> {
  return new Promise((resolve) => access(pathBytes(path), constants.R_OK, (error) => resolve(error === null ? '' : (error.code ?? 'unknown'))))
}
