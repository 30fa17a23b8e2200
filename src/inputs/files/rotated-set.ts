/**
 * Rotated files of one log, read to their end in one run: what one of them tells of its neighbours. When the next begins bounds the year of stamps that have none; a line
 * that was broken at the border is whole again; what lies there twice, compressed and not, is read once.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { readCarrier } from '../../formats/kernel-log/carrier.js'
import { type WallClock, wallTime } from '../../formats/kernel-log/clock.js'
import { beginsLikeOurs } from '../../formats/look-alike.js'
import type { LocalClock } from '../../stage.js'
import { decompressorOf } from './compressed.js'
import { folderOf, type Found, nameOf } from './glob.js'
import { pathBytes } from './identity.js'
import { baseName, byAge } from './rotation.js'

const LF = 10
/** Of a file's beginning so much is looked at for its first line and its first stamp, and of its end for its last line. */
const LOOK_BYTES = 1 << 16
/** Rotation leaves times of change in its own order and apart; copies that have lost them were all made at about one time. */
const APART_NS = 3_600_000_000_000n
const decoder = new TextDecoder('utf-8')

/** A file of a run; `head` as `decompressorOf` takes it, null where it is not compressed. */
export interface SavedFile extends Found {
  readonly head: Uint8Array | null
}

export class RotatedSets {
  /** by the older one's path: it and the next newer file of the set; and by path, how a file begins */
  readonly #borders = new Map<string, { readonly older: Found; readonly newer: Found }>()
  readonly #begins = new Map<string, WallClock | null>()
  readonly #ends = new Map<string, number | null>()
  /** by path: what a file's last line lacks, with the LF, and how many bytes of it belong to the one before */
  readonly rests = new Map<string, Uint8Array>()
  readonly skips = new Map<string, number>()
  /** those that hold what another of them holds, by path */
  readonly copies = new Map<string, string>()

  async look(files: readonly SavedFile[]): Promise<void> {
    for (const set of setsOf(files)) {
      const members: SavedFile[] = []
      for (const one of set) {
        // side by side in the order of age, for they differ in what is cut off
        const twin = members.find((other) => (other.head === null) !== (one.head === null) && isOneRotation(other.path, one.path))
        if (twin === undefined || (await digestOf(twin)) !== (await digestOf(one))) members.push(one)
        else {
          const [kept, left] = twin.head === null ? [twin, one] : [one, twin]
          members[members.indexOf(twin)] = kept
          this.copies.set(left.path, kept.path)
        }
      }
      for (const [i, one] of members.entries()) if (i > 0) await this.#border(members[i - 1]!, one)
    }
  }

  async #border(older: SavedFile, newer: SavedFile): Promise<void> {
    this.#borders.set(older.path, { older, newer })
    const head = await headOf(newer)
    this.#begins.set(newer.path, firstStamp(head))
    const lineEnd = head.indexOf(LF)
    if (lineEnd <= 0 || beginsLikeOurs(decoder.decode(head.subarray(0, lineEnd)))) return
    const tail = await tailOf(older)
    const unfinished = decoder.decode(tail.subarray(tail.lastIndexOf(LF) + 1))
    if (unfinished === '' || !beginsLikeOurs(unfinished)) return
    this.rests.set(older.path, head.slice(0, lineEnd + 1))
    this.skips.set(newer.path, lineEnd + 1)
  }

  /**
   * In seconds, what no stamp of a file is after: when the next newer one begins. Null where its time of change tells as much, which is of its own rotation: a log may begin
   * with a clock that is not set yet.
   */
  endOf(path: string, clock: LocalClock): number | null {
    const known = this.#ends.get(path)
    if (known !== undefined) return known
    const border = this.#borders.get(path)
    let end: number | null = null
    if (border !== undefined && border.newer.stat.mtimeNs - border.older.stat.mtimeNs < APART_NS) {
      const { older, newer } = border
      const receivedSec = this.endOf(newer.path, clock) ?? changedSec(newer)
      const begins = this.#begins.get(newer.path)
      const first = begins === undefined || begins === null ? null : wallTime(begins, { localClock: clock, receivedSec })
      end = Math.min(first?.sec ?? receivedSec, changedSec(older))
    }
    this.#ends.set(path, end)
    return end
  }
}

function changedSec({ stat }: Found): number {
  return Number(stat.mtimeNs / 1_000_000_000n)
}

/** The oldest first; a file alone is no set. */
function setsOf(files: readonly SavedFile[]): SavedFile[][] {
  const sets = new Map<string, SavedFile[]>()
  for (const one of byAge(files) as SavedFile[]) {
    const name = `${folderOf(one.path)}/${baseName(nameOf(one.path))}`
    sets.set(name, [...(sets.get(name) ?? []), one])
  }
  return [...sets.values()].filter(({ length }) => length > 1)
}

/** `a.1` and `a.1.gz`: one's name goes on from the other's. */
function isOneRotation(a: string, b: string): boolean {
  const rest = a.length < b.length ? b.slice(a.length) : a.slice(b.length)
  return (a.startsWith(b) || b.startsWith(a)) && /^\.[a-zA-Z]\w*$/.test(rest)
}

async function* bytesOf({ path, head }: SavedFile, most = Infinity): AsyncGenerator<Uint8Array> {
  const source = createReadStream(pathBytes(path), { highWaterMark: LOOK_BYTES })
  const unpacker = head === null ? null : decompressorOf(path, head)
  // what breaks off is told when it is read
  const stream = unpacker === null ? source : (pipeline(source, unpacker).catch(() => {}), unpacker)
  let given = 0
  try {
    for await (const bytes of stream as AsyncIterable<Uint8Array>) {
      yield bytes
      given += bytes.length
      if (given >= most) return
    }
  } catch {
    return
  } finally {
    source.destroy()
    unpacker?.destroy()
  }
}

async function headOf(one: SavedFile): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for await (const bytes of bytesOf(one, LOOK_BYTES)) pieces.push(bytes)
  return Buffer.concat(pieces)
}

async function tailOf(one: SavedFile): Promise<Uint8Array> {
  let tail: Uint8Array = new Uint8Array(0)
  for await (const bytes of bytesOf(one)) tail = Buffer.concat([tail, bytes]).subarray(-LOOK_BYTES)
  return tail
}

async function digestOf(one: SavedFile): Promise<string> {
  const hash = createHash('sha256')
  for await (const bytes of bytesOf(one)) hash.update(bytes)
  return hash.digest('hex')
}

/** The first stamp that is a date, whatever line has it. */
function firstStamp(head: Uint8Array): WallClock | null {
  for (const line of decoder.decode(head).split('\n')) {
    const { stamp } = readCarrier(line.slice(0, 1024))
    if (stamp?.kind === 'wall') return stamp.clock
  }
  return null
}
