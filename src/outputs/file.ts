/** `file:PATH`: appended to, whole lines only, made with mode 0640. When the disk refuses in the middle of a page, the file is cut back to its last whole line. */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, statSync, write } from 'node:fs'
import type { Output } from '../stage.js'

const LF = 10
const BLOCK_BYTES = 1 << 16

/** Throws what opening met. */
export function openFile(path: string): Output {
  mendTail(path)
  const fd = openSync(path, 'a', 0o640)
  const isFile = fstatSync(fd).isFile()
  return {
    name: `file:${path}`,
    write: (bytes) =>
      new Promise((resolve, fail) => {
        const rest = (from: number): void => {
          write(fd, bytes, from, bytes.length - from, null, (error, n) => {
            if (error !== null) {
              if (isFile) dropTail(fd, bytes, from)
              fail(error)
            } else if (from + n < bytes.length) rest(from + n)
            else resolve(true)
          })
        }
        rest(0)
      }),
    close: async () => closeSync(fd),
  }
}

/** `written` bytes of the page are in the file: takes back those behind the last LF. */
function dropTail(fd: number, bytes: Uint8Array, written: number): void {
  const whole = written === 0 ? 0 : bytes.lastIndexOf(LF, written - 1) + 1
  if (written > whole) ftruncateSync(fd, fstatSync(fd).size - (written - whole))
}

/** A run that was killed may have left half a line: it goes, so that the first record does not hang on it. */
function mendTail(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return
  const fd = openSync(path, 'r+')
  try {
    const size = fstatSync(fd).size
    const block = new Uint8Array(BLOCK_BYTES)
    for (let end = size; end > 0; end -= BLOCK_BYTES) {
      const from = Math.max(0, end - BLOCK_BYTES)
      const n = readSync(fd, block, 0, end - from, from)
      const lf = block.subarray(0, n).lastIndexOf(LF)
      if (lf < 0 && from > 0) continue
      if (from + lf + 1 < size) ftruncateSync(fd, from + lf + 1)
      return
    }
  } finally {
    closeSync(fd)
  }
}
