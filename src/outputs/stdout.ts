/**
 * Standard output, whatever it is. A pipe is opened anew and non-blocking, so that a reader that stalls holds up no thread. Writes go straight from the loop;
 * what does not fit is written when the reader has made room. (Handing each page to the thread pool took as long and a third more CPU time.)
 */
import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { WriteStream } from 'node:tty'
import type { Output } from '../stage.js'

/**
 * What a pipe takes whole or not at all (PIPE_BUF, pipe(7)). Where a run that was killed goes on later into the same pipe, lines go in such pieces, so that a kill
 * tears none but a longer one; that costs a write for every 4 KiB.
 */
const ATOMIC_BYTES = 4096
const LF = 10

/** `isResumed`: after a kill another run may write into the same pipe. */
export function openStdout(name: string, isTerminal: boolean, isResumed: boolean): Output {
  const stat = fstatSync(1)
  if (isTerminal) return new SocketOutput(name, new WriteStream(1), false)
  if (stat.isFIFO() || stat.isSocket()) return new SocketOutput(name, new Socket({ fd: stat.isFIFO() ? reopened() : 1, readable: false, writable: true }), isResumed)
  return stat.isFile() ? new FdOutput(name) : new DeviceOutput(name)
}

/** A regular file: the thread pool may wait for the disk. */
class FdOutput implements Output {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  write(bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve, fail) => {
      const rest = (from: number): void => {
        write(1, bytes, from, bytes.length - from, null, (error, n) => {
          if (error !== null) fail(error)
          else if (from + n < bytes.length) rest(from + n)
          else resolve(true)
        })
      }
      rest(0)
    })
  }

  async close(): Promise<void> {}
}

/** /dev/null and the like: quicker done than handed to a thread. */
class DeviceOutput implements Output {
  readonly name: string

  constructor(name: string) {
    this.name = name
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    for (let from = 0; from < bytes.length; ) from += writeSync(1, bytes, from)
    return true
  }

  async close(): Promise<void> {}
}

class SocketOutput implements Output {
  readonly name: string
  readonly #socket: Socket
  readonly #isAtomic: boolean
  #error: NodeJS.ErrnoException | null = null

  constructor(name: string, socket: Socket, isAtomic: boolean) {
    this.name = name
    this.#isAtomic = isAtomic
    this.#socket = socket
    socket.on('error', (error) => (this.#error = error))
  }

  get attempts(): number {
    return this.#socket.bytesWritten
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    if (!this.#isAtomic) return this.#write(bytes)
    for (let from = 0; from < bytes.length; ) {
      const to = pieceEnd(bytes, from)
      if (!(await this.#write(bytes.subarray(from, to)))) return false
      from = to
    }
    return true
  }

  #write(bytes: Uint8Array): Promise<boolean> {
    if (this.#error !== null) return this.#failed(this.#error)
    return new Promise((resolve, fail) => {
      this.#socket.write(bytes, (error) => (error == null ? resolve(true) : this.#failed(error).then(resolve, fail)))
    })
  }

  close(): Promise<void> {
    this.#socket.destroy()
    return Promise.resolve()
  }

  #failed(error: NodeJS.ErrnoException): Promise<boolean> {
    return error.code === 'EPIPE' || error.code === 'ECONNRESET' ? Promise.resolve(false) : Promise.reject(error)
  }
}

/** As many whole lines as are taken at once, one at least. */
function pieceEnd(bytes: Uint8Array, from: number): number {
  if (bytes.length - from <= ATOMIC_BYTES) return bytes.length
  const last = bytes.lastIndexOf(LF, from + ATOMIC_BYTES - 1)
  return (last < from ? bytes.indexOf(LF, from) : last) + 1
}

/** Standard output with flags of its own; itself where /proc or permission is missing. */
function reopened(): number {
  try {
    return openSync('/proc/self/fd/1', constants.O_WRONLY | constants.O_NONBLOCK)
  } catch {
    return 1
  }
}
