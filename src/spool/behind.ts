/**
 * An output behind a spool: for a file or standard output that must not hold up the others (`when_full` is not `block`). What it does not take for now waits up to
 * the limit; what the policy sheds then is counted. The loop hands over to the spool, and from there the output is written to at its own pace.
 */
import type { Time } from '../event.js'
import { evenMilliseconds } from '../clock.js'
import { type DeliveryStatus, type Entry, messageOf, type Output, type Queue } from '../stage.js'

const RECORDS = 2000
const BYTES = 1 << 18
const LINE_END = Buffer.from('\n')

/** `queue` and `inner` are closed with it; before that what waits is written, for at most so long. */
export function behindSpool(inner: Output, queue: Queue, graceMs: number): Output {
  return new Behind(inner, queue, graceMs)
}

class Behind implements Output {
  readonly name: string
  readonly #inner: Output
  readonly #queue: Queue
  readonly #graceMs: number
  readonly #running: Promise<void>
  #wake: () => void = () => {}
  /** something has come since the spool was asked */
  #hasMore = false
  #isStopping = false
  #isGone = false
  /** what the output failed with for good; what waits stays in the spool */
  #failure: Error | null = null
  /** records that the output has */
  #sent = 0

  constructor(inner: Output, queue: Queue, graceMs: number) {
    this.name = inner.name
    this.#inner = inner
    this.#queue = queue
    this.#graceMs = graceMs
    queue.onAvailable = () => {
      this.#hasMore = true
      this.#wake()
    }
    this.#running = this.#run()
  }

  get isShedding(): boolean {
    return this.#queue.isShedding
  }

  shed(count: number, from: Time | null, to: Time | null): void {
    this.#queue.shed(count, from, to)
  }

  get attempts(): number {
    return this.#inner.attempts ?? 0
  }

  status(): DeliveryStatus {
    const { found, taken, lostBy, length, bytes, isWritable, oldestAt } = this.#queue
    return {
      ...{ found, taken, lostBy, isWritable, replayed: 0, sent: this.#sent, refused: 0, filtered: 0, queueRecords: length, queueBytes: bytes },
      oldestUnacked: oldestAt === null ? null : Math.max(0, evenMilliseconds() - oldestAt) / 1000,
      ...{ failed: this.#failure === null ? 0 : 1, lastError: this.#failure === null ? '' : messageOf(this.#failure) },
    }
  }

  reopen(): void {
    this.#inner.reopen?.()
  }

  async write(bytes: Uint8Array): Promise<boolean> {
    if (this.#failure !== null) throw this.#failure
    if (this.#isGone) return false
    await this.#queue.append(bytes)
    return true
  }

  sync(): Promise<void> {
    return this.#queue.sync()
  }

  async close(): Promise<void> {
    this.#isStopping = true
    this.#wake()
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.#running, new Promise<void>((resolve) => (timer = setTimeout(resolve, this.#graceMs)))])
    clearTimeout(timer)
    this.#queue.onAvailable = () => {}
    // a write that still waits ends with this
    await this.#inner.close()
    await this.#running
    await this.#queue.close()
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        this.#hasMore = false
        const entries = await this.#queue.peek(RECORDS, BYTES)
        if (entries.length > 0) {
          if (!(await this.#inner.write(pageOf(entries)))) break
          // the spool lets go of nothing that a crash of the machine could take
          await this.#inner.sync?.()
          this.#queue.ack(entries.at(-1)!.seq)
          this.#sent += entries.length
        } else if (this.#isStopping) return
        else if (!this.#hasMore) await new Promise<void>((resolve) => (this.#wake = resolve))
      }
      this.#isGone = true
    } catch (error) {
      this.#failure = error as Error
    }
  }
}

function pageOf(entries: readonly Entry[]): Buffer {
  return Buffer.concat(entries.flatMap(({ bytes }) => [bytes, LINE_END]))
}
