/**
 * Open files: no more than allowed at a time, the least recently used is closed for the next and opened again when there is something to read. And how many reads go
 * on at a time: the thread pool has four threads, which others need as well.
 */
import { type BigIntStats, close, constants, fstat, open, read, readlink } from 'node:fs'
import { pathBytes } from './identity.js'

const READS_AT_A_TIME = 2
/** Of the files that were open when no more could be, so many stay. */
const KEPT_SHARE = 0.75

/** Never waits for the writer of a named pipe, never makes a terminal ours. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY

/** Who has a descriptor here. */
export interface Holder {
  /** may be opened again by path: nothing is being read, and the path still leads to it */
  readonly mayClose: boolean
  /** where it lay when its descriptor was closed */
  lastPlace: string
}

export class Descriptors {
  #most: number
  /** the least recently used first */
  readonly #open = new Map<Holder, number>()

  constructor(most: number) {
    this.#most = Math.max(most, READS_AT_A_TIME)
  }

  get(holder: Holder): number | null {
    const fd = this.#open.get(holder)
    if (fd === undefined) return null
    this.#open.delete(holder)
    this.#open.set(holder, fd)
    return fd
  }

  async add(holder: Holder, fd: number): Promise<void> {
    this.#open.set(holder, fd)
    await this.#makeRoom()
  }

  /** Closes what is used least, until no more than allowed are open or none may be closed. */
  async #makeRoom(): Promise<void> {
    for (const [holder, fd] of this.#open) {
      if (this.#open.size <= this.#most) return
      if (!holder.mayClose) continue
      this.#open.delete(holder)
      holder.lastPlace = await placeOf(fd)
      await closing(fd)
    }
  }

  async drop(holder: Holder): Promise<void> {
    const fd = this.#open.get(holder)
    if (fd === undefined) return
    this.#open.delete(holder)
    await closing(fd)
  }

  /** The process may open no more: from now on fewer are kept, so that others can open theirs. Gives how many. */
  async yield(): Promise<number> {
    this.#most = Math.max(READS_AT_A_TIME, Math.min(this.#most, Math.floor(this.#open.size * KEPT_SHARE)))
    await this.#makeRoom()
    return this.#most
  }
}

/** At most two at a time, in the order in which they ask. */
export class Gate {
  #free = READS_AT_A_TIME
  readonly #waiting: (() => void)[] = []

  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}

export function opened(path: string): Promise<number> {
  return new Promise((resolve, fail) => open(pathBytes(path), FLAGS, (error, fd) => (error === null ? resolve(fd) : fail(error))))
}

export function statOf(fd: number): Promise<BigIntStats> {
  return new Promise((resolve, fail) => fstat(fd, { bigint: true }, (error, stat) => (error === null ? resolve(stat) : fail(error))))
}

/** Bytes read into `into`, from offset `at` of the file. */
export function readInto(fd: number, into: Uint8Array, length: number, at: number): Promise<number> {
  return new Promise((resolve, fail) => read(fd, into, 0, length, at, (error, n) => (error === null ? resolve(n) : fail(error))))
}

export async function readAt(fd: number, from: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  return bytes.subarray(0, length === 0 ? 0 : await readInto(fd, bytes, length, from))
}

export function closing(fd: number): Promise<void> {
  return new Promise((resolve) => close(fd, () => resolve()))
}

/** '' where /proc is missing. */
function placeOf(fd: number): Promise<string> {
  return new Promise((resolve) => readlink(`/proc/self/fd/${fd}`, { encoding: 'latin1' }, (error, path) => resolve(error === null ? path : '')))
}
