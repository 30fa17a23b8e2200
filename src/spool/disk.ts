/** What the spool asks of a file system, so that its failures can be played in a test. */
import { type FileHandle, mkdir, open, readdir, rename, stat, statfs, unlink } from 'node:fs/promises'

export interface Disk {
  open(path: string, flags: string, mode: number): Promise<FileHandle>
  mkdir: typeof mkdir
  readdir(path: string): Promise<string[]>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** bytes */
  size(path: string): Promise<number>
  /** bytes that this user may still fill */
  free(folder: string): Promise<number>
}

export const realDisk: Disk = {
  open,
  mkdir,
  readdir: (path) => readdir(path),
  rename,
  unlink,
  size: async (path) => (await stat(path)).size,
  free: async (folder) => {
    const { bavail, bsize } = await statfs(folder)
    return bavail * bsize
  },
}
