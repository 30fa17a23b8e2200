/**
 * Standard output, whatever it is. A pipe is opened anew and non-blocking, so that a reader that stalls holds up no thread. Writes go straight from the loop;
 * what does not fit is written when the reader has made room. (Handing each page to the thread pool took as long and a third more CPU time.)
 */
import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { WriteStream } from 'node:tty'
import type { Output } from '../stage.js'

export function openStdout(name: string, isTerminal: boolean): Output {
  const stat = fstatSync(1)
  if (isTerminal) return new SocketOutput(name, new WriteStream(1))
  if (stat.isFIFO() || stat.isSocket()) return new SocketOutput(name, new Socket({ fd: stat.isFIFO() ? reopened() : 1, readable: false, writable: true }))
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
  #error: NodeJS.ErrnoException | null = null

  constructor(name: string, socket: Socket) {
    this.name = name
    this.#socket = socket
    socket.on('error', (error) => (this.#error = error))
  }

  get attempts(): number {
    return this.#socket.bytesWritten
  }

  write(bytes: Uint8Array): Promise<boolean> {
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

/** Standard output with flags of its own; itself where /proc or permission is missing. */
function reopened(): number {
  try {
    return openSync('/proc/self/fd/1', constants.O_WRONLY | constants.O_NONBLOCK)
  } catch {
    return 1
  }
}
