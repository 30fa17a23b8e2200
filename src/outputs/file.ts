/** `file:PATH`: appended to, whole lines only, made with mode 0640. When the disk refuses in the middle of a page, the file is cut back to its last whole line. */
import { closeSync, fstatSync, ftruncateSync, openSync, write } from 'node:fs'
import type { Output } from '../stage.js'

const LF = 10

/** Throws what opening met. */
export function openFile(path: string): Output {
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
