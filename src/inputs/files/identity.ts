/**
 * What a followed file is known by, beside its path: the numbers of its inode, how it begins, and what stands just before the place up to which it is read. Inode
 * numbers are used again at once (ext4: 199 times out of 199), the time of birth tells them apart; where a file system has none (0), content decides.
 */
import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'

/** Bytes of the beginning, and of what stands before a position, that are compared. */
export const HEAD_BYTES = 1024
export const ANCHOR_BYTES = 256
const ID_DIGITS = 12

/** Numbers as text: they have 64 bits. `birthtime` in nanoseconds, '0' where the file system keeps none. */
export interface Identity {
  readonly dev: string
  readonly ino: string
  readonly birthtime: string
}

/** The first `length` bytes of a file, hashed. */
export interface Head {
  readonly length: number
  readonly hash: string
}

/** The `length` bytes that end at offset `at`, hashed. */
export interface Anchor {
  readonly at: number
  readonly length: number
  readonly hash: string
}

/** How far a file is read, as it stands in a checkpoint. `offset` is the first byte not worked through; of a compressed file it counts the bytes within. */
export interface Position extends Identity {
  readonly path: string
  /** path as base64, where it is not UTF-8 */
  readonly pathBytes?: string
  /** what record ids begin with, before the generation: kept, because device numbers change from boot to boot */
  readonly id: string
  readonly generation: number
  readonly offset: number
  /** last known size, bytes */
  readonly size: number
  readonly head: Head
  readonly anchor: Anchor
  readonly compressed?: true
  /** what the file held before it was cut or written anew: copies of that may turn up */
  readonly before?: Pick<Position, 'generation' | 'offset' | 'size' | 'head' | 'anchor'>
}

export const NO_HEAD: Head = { length: 0, hash: '' }
export const NO_ANCHOR: Anchor = { at: 0, length: 0, hash: '' }

export function identityOf(stat: BigIntStats): Identity {
  return { dev: String(stat.dev), ino: String(stat.ino), birthtime: String(stat.birthtimeNs) }
}

export function keyOf(identity: Identity): string {
  return `${identity.dev}:${identity.ino}:${identity.birthtime}`
}

/** May both be the same file? Device numbers are given out anew at boot, so a time of birth to the nanosecond and an inode number are enough. */
export function mayBeSame(a: Identity, b: Identity): boolean {
  if (a.ino !== b.ino) return false
  return a.birthtime !== '0' && b.birthtime !== '0' ? a.birthtime === b.birthtime : a.dev === b.dev
}

/** The part of record ids that names the file. `begins` joins in where there is no time of birth: else the next file of the inode would have the same ids. */
export function idOf(identity: Identity, begins: Uint8Array): string {
  const hash = createHash('sha256').update(keyOf(identity))
  if (identity.birthtime === '0') hash.update(begins)
  return hash.digest('hex').slice(0, ID_DIGITS)
}

export function hashOf(bytes: Uint8Array): string {
  return bytes.length === 0 ? '' : createHash('md5').update(bytes).digest('hex')
}

export function anchorAt(at: number, before: Uint8Array): Anchor {
  const bytes = before.subarray(Math.max(0, before.length - ANCHOR_BYTES))
  return { at, length: bytes.length, hash: hashOf(bytes) }
}

/** Reads up to `length` bytes at `from`; fewer at the end of the file. */
export type ReadAt = (from: number, length: number) => Promise<Uint8Array>

export async function hasHead(read: ReadAt, head: Head): Promise<boolean> {
  return head.length === 0 || hashOf(await read(0, head.length)) === head.hash
}

export async function hasAnchor(read: ReadAt, anchor: Anchor): Promise<boolean> {
  return anchor.length === 0 || hashOf(await read(anchor.at - anchor.length, anchor.length)) === anchor.hash
}

/** Paths are kept as bytes, one in each character, because a file's name need not be UTF-8. */
export function pathBytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}

/** For people. */
export function shown(path: string): string {
  return pathBytes(path).toString()
}

export function fromText(text: string): string {
  return Buffer.from(text).toString('latin1')
}

/** The path's two fields of a position. */
export function savedPath(path: string): { readonly path: string; readonly pathBytes?: string } {
  const text = shown(path)
  return fromText(text) === path ? { path: text } : { path: text, pathBytes: pathBytes(path).toString('base64') }
}

export function restoredPath(position: Position): string {
  return position.pathBytes === undefined ? fromText(position.path) : Buffer.from(position.pathBytes, 'base64').toString('latin1')
}

/** The positions of a checkpoint, and how many entries are none. */
export function positionsOf(saved: unknown): { readonly positions: readonly Position[]; readonly broken: number } {
  const all: readonly unknown[] = Array.isArray(saved) ? saved : [saved]
  const positions = all.filter(isPosition)
  return { positions, broken: all.length - positions.length }
}

function isPosition(value: unknown): value is Position {
  if (!isObject(value)) return false
  const { before } = value
  return ['dev', 'ino', 'birthtime', 'path', 'id'].every((key) => typeof value[key] === 'string') && isReading(value) && (before === undefined || (isObject(before) && isReading(before)))
}

function isReading(value: Record<string, unknown>): boolean {
  const { head, anchor } = value
  return ['generation', 'offset', 'size'].every((key) => isCount(value[key])) && isPiece(head) && isPiece(anchor) && isCount(anchor['at'])
}

function isPiece(value: unknown): value is Record<string, unknown> {
  return isObject(value) && isCount(value['length']) && typeof value['hash'] === 'string'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
