/**
 * The small file beside the segments: how far they are acknowledged, and what of the spool's state cannot be seen in them. It is replaced as a whole. Without
 * it everything is delivered again, under the same numbers.
 */
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Loss } from '../stage.js'
import type { Disk } from './disk.js'

const NAME = 'cursor'
const NEXT = 'cursor.next'
export const FILE_MODE = 0o640
/** both files at the moment when there are two */
export const CURSOR_BYTES = 4096

export interface Cursor {
  readonly acked: number
  /** numbers below this may have been given */
  readonly reserved: number
  /** everything below this was surely in the segments */
  readonly sure: number
  /** a segment that `NAME.next` takes the place of: done when this cursor is there */
  readonly replaced: string | null
  /** not told, or told too late to be sure that it was written down */
  readonly lost: readonly Loss[]
}

/** null: there is none that can be used. */
export async function loadCursor(disk: Disk, folder: string): Promise<Cursor | null> {
  try {
    const file = await disk.open(join(folder, NAME), 'r', FILE_MODE)
    const text = await file.readFile('utf8').finally(() => file.close())
    const [, sum, body] = /^conntrail-spool 1 ([0-9a-f]+)\n(.+)\n$/.exec(text) ?? []
    return body !== undefined && crc32(body).toString(16) === sum ? (JSON.parse(body) as Cursor) : null
  } catch {
    return null
  }
}

/** Throws what the disk says; then the old one holds. */
export async function saveCursor(disk: Disk, folder: string, cursor: Cursor): Promise<void> {
  const body = JSON.stringify(cursor)
  const file = await disk.open(join(folder, NEXT), 'w', FILE_MODE)
  try {
    await file.writeFile(`conntrail-spool 1 ${crc32(body).toString(16)}\n${body}\n`)
    await file.datasync()
  } finally {
    await file.close()
  }
  await disk.rename(join(folder, NEXT), join(folder, NAME))
  await syncFolder(disk, folder)
}

/** Names that were made, changed or removed are safe. */
export async function syncFolder(disk: Disk, folder: string): Promise<void> {
  const handle = await disk.open(folder, 'r', 0)
  await handle.sync().finally(() => handle.close())
}
