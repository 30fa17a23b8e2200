/** Our own diagnostics: NDJSON by pino on stderr, synchronous. Pino is loaded with the first line, so that a run that has nothing to say starts without it. */
import type { Logger } from 'pino'
import { Flood, WINDOW_MS } from './flood.js'

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

export class Log {
  readonly #level: LogLevel
  #logger: Promise<Logger> | null = null
  readonly #flood = new Flood()
  #window: NodeJS.Timeout | null = null

  constructor(level: LogLevel) {
    this.#level = level
  }

  async info(message: string, fields: object = {}): Promise<void> {
    await this.#write('info', message, fields)
  }

  /** Limited: what goes on is told a few times, and then counted every ten seconds. */
  async warn(message: string, fields: object = {}): Promise<void> {
    if (this.#flood.admits(message, performance.now())) return this.#write('warn', message, fields)
    this.#window ??= setTimeout(() => void this.#tellHeld(), WINDOW_MS).unref()
  }

  async #tellHeld(): Promise<void> {
    if (this.#window === null) return
    clearTimeout(this.#window)
    this.#window = null
    for (const { kind, count } of this.#flood.takeHeld(performance.now())) await this.#write('warn', `${kind}: ${count.toLocaleString('en-US')} more of this kind, not shown`, { count })
  }

  async error(message: string, fields: object = {}): Promise<void> {
    await this.#write('error', message, fields)
  }

  /** The sums at the end: written whatever the level says. */
  async done(fields: object): Promise<void> {
    await this.#tellHeld()
    const logger = await this.#open()
    logger.child({}, { level: 'info' }).info(fields, 'done')
  }

  async #write(level: 'info' | 'warn' | 'error', message: string, fields: object): Promise<void> {
    const logger = await this.#open()
    logger[level](fields, message)
  }

  #open(): Promise<Logger> {
    this.#logger ??= import('pino').then(({ pino }) => {
      const stderr = pino.destination({ fd: 2, sync: true })
      // a stderr that is gone must not end the run
      stderr.on('error', () => {})
      return pino({ level: this.#level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stderr)
    })
    return this.#logger
  }
}
