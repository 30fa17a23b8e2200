/** What the world sees of a run while it goes on: systemd by its notify socket, others by HTTP. */
import type { HttpServer } from '../http.js'
import type { MetricsSnapshot } from '../metrics.js'
import type { World } from '../parts.js'
import type { Channels } from '../run/channel.js'
import type { Run } from '../run/run.js'
import type { Notifier, Progress } from '../systemd.js'
import type { Plan } from './plan.js'

const STATUS_MS = 1000
/** Inputs that have not said anything by then count as open: a glob may match nothing for days. */
const READY_MS = 2000

export interface ServiceParts {
  readonly plan: Plan
  readonly world: World
  readonly pid: number
  readonly run: Run
  readonly channels: Channels
  /** how many there are */
  readonly feeds: number
  readonly snapshot: () => MetricsSnapshot
  readonly report: (message: string) => void
}

export class Service {
  readonly #parts: ServiceParts
  #http: HttpServer | null = null
  #notifier: Notifier | null = null
  readonly #timers: NodeJS.Timeout[] = []
  #isReady = false
  #startedAt = performance.now()
  #status = ''

  constructor(parts: ServiceParts) {
    this.#parts = parts
  }

  /** Throws ListenError. Nothing is loaded for a run that nobody watches. */
  async begin(): Promise<void> {
    const { plan, world, pid, snapshot, report } = this.#parts
    if (plan.http !== null) this.#http = await (await import('../http.js')).openHttp({ listen: plan.http.listen, snapshot, report })
    const socket = world.env['NOTIFY_SOCKET']
    if (socket === undefined || socket === '') return
    const { openNotifier, Progress, watchdogEveryMs } = await import('../systemd.js')
    this.#notifier = await openNotifier({ socket, monotonic: world.monotonic, report })
    this.#startedAt = performance.now()
    this.#timers.push(setInterval(() => this.#tell(), STATUS_MS).unref())
    const every = watchdogEveryMs(world.env, pid)
    if (every > 0) {
      const progress = new Progress()
      this.#timers.push(setInterval(() => this.#sayAlive(progress), every).unref())
    }
  }

  /** A reload begins; `reloaded` ends it. */
  reloading(): void {
    this.#notifier?.reloading()
  }

  reloaded(): void {
    this.#notifier?.ready(this.#statusText())
  }

  stopping(): void {
    this.#notifier?.stopping()
  }

  async end(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    this.#notifier?.close()
    await this.#http?.close()
  }

  #tell(): void {
    const { run, feeds } = this.#parts
    const status = this.#statusText()
    if (!this.#isReady) {
      if (run.opened.size < feeds && performance.now() - this.#startedAt < READY_MS) return
      this.#isReady = true
      this.#notifier?.ready(status)
    } else if (status !== this.#status) {
      this.#notifier?.status(status)
    }
    this.#status = status
  }

  /** Only while things get on: a loop that turns with a write that hangs is not alive. */
  #sayAlive(progress: Progress): void {
    const { run, channels } = this.#parts
    const attempts = channels.numbers.reduce((sum, { output, written }) => sum + (output.attempts ?? 0) + written, 0)
    if (progress.isAlive({ taken: run.taken, settled: run.settled, attempts })) this.#notifier?.watchdog()
  }

  #statusText(): string {
    const { lines, inputs, episodes } = this.#parts.snapshot()
    const closed = inputs.filter(({ isOpen }) => !isOpen).map(({ name }) => name)
    const active = episodes.filter(({ isActive }) => isActive).length
    return `${lines.lines} lines read, ${lines.alerts} alerts, ${lines.gaps} gaps${active > 0 ? `; table full: ${active}` : ''}${closed.length > 0 ? `; without ${closed.join(', ')}` : ''}`
  }
}
