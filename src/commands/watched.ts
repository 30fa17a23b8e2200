/** What the world sees of a run while it goes on: systemd by its notify socket, others by HTTP. */
import type { HttpServer } from '../http.js'
import type { MetricsSnapshot } from '../metrics.js'
import type { World } from '../parts.js'
import type { Channels } from '../run/channel.js'
import type { Run } from '../run/run.js'
import type { Feed } from '../stage.js'
import type { Notifier, Progress } from '../systemd.js'
import type { Plan } from './plan.js'
import { BEING_OPENED, faultOf } from './standing.js'

const STATUS_MS = 1000
const OPENING_MS = 50

export interface ServiceParts {
  readonly plan: Plan
  readonly world: World
  readonly pid: number
  readonly run: Run
  readonly channels: Channels
  /** by the names of their inputs */
  readonly feeds: ReadonlyMap<string, Feed>
  readonly snapshot: () => MetricsSnapshot
  readonly report: (message: string) => void
}

export class Service {
  readonly #parts: ServiceParts
  #http: HttpServer | null = null
  #notifier: Notifier | null = null
  readonly #timers: NodeJS.Timeout[] = []
  #opening: NodeJS.Timeout | undefined
  #isReady = false
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
    this.#opening = setInterval(() => {
      if (!this.#isOpen()) return
      clearInterval(this.#opening)
      this.#timers.push(setInterval(() => this.#tell(this.#statusText()), STATUS_MS).unref())
    }, OPENING_MS).unref()
    const every = watchdogEveryMs(world.env, pid)
    if (every > 0) {
      const progress = new Progress()
      this.#timers.push(setInterval(() => this.#sayAlive(progress), every).unref())
    }
  }

  /** A reload begins; `reloaded` ends it. Before all is open both say nothing: the one would take back, the other would promise too early. */
  reloading(): void {
    if (this.#isReady) this.#notifier?.reloading()
  }

  reloaded(): void {
    if (this.#isReady) this.#notifier?.ready(this.#statusText())
  }

  stopping(): void {
    clearInterval(this.#opening)
    this.#notifier?.stopping()
  }

  async end(): Promise<void> {
    for (const timer of [this.#opening, ...this.#timers]) clearInterval(timer)
    this.#notifier?.close()
    await this.#http?.close()
  }

  /** Says that all is open as soon as it is, and until then what is not. An input that was named and cannot be opened ends the run, which then never was ready. */
  #isOpen(): boolean {
    const { run, feeds, plan } = this.#parts
    const faults = [...feeds].map(([name, feed]) => ({ name, fault: faultOf(feed, run) }))
    const opening = faults.filter(({ fault }) => fault === BEING_OPENED).map(({ name }) => name)
    if (opening.length > 0) this.#tell(`opening ${opening.join(', ')}`)
    if (opening.length > 0 || (!plan.watchesHost && faults.some(({ fault }) => fault !== ''))) return false
    this.#isReady = true
    this.#status = this.#statusText()
    this.#notifier?.ready(this.#status)
    return true
  }

  #tell(status: string): void {
    if (status !== this.#status) this.#notifier?.status(status)
    this.#status = status
  }

  /** Only while things get on: a loop that turns with a write that hangs is not alive. */
  #sayAlive(progress: Progress): void {
    const { run, channels } = this.#parts
    const attempts = channels.numbers.reduce((sum, { output, written }) => sum + (output.attempts ?? 0) + written, 0)
    if (progress.isAlive({ taken: run.taken, settled: run.settled, attempts })) this.#notifier?.watchdog()
  }

  #statusText(): string {
    const { lines, inputs, episodes, config } = this.#parts.snapshot()
    const closed = inputs.filter(({ isOpen }) => !isOpen).map(({ name }) => name)
    const active = episodes.filter(({ isActive }) => isActive).length
    return [
      `${lines.lines} lines read, ${lines.alerts} alerts, ${lines.gaps} gaps`,
      ...(active > 0 ? [`table full: ${active}`] : []),
      ...(closed.length > 0 ? [`without ${closed.join(', ')}`] : []),
      ...(config.fault === '' ? [] : ['the last reload failed, what ran before goes on']),
    ].join('; ')
  }
}
