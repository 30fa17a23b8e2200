/** A configuration that was read anew takes the place of the old one in a run that goes on: unchanged inputs and outputs keep their place. */
import type { InputConfig } from '../config.js'
import type { TableFull } from '../detectors/table-full.js'
import type { ConfigNumbers } from '../metrics.js'
import type { Channels } from '../run/channel.js'
import type { Run } from '../run/run.js'
import { type Feed, messageOf } from '../stage.js'
import { changesOf } from './changes.js'
import type { Outlets } from './outlets.js'
import { type Plan, ruleOptions } from './plan.js'
import type { Service } from './watched.js'

export interface ReloadParts {
  readonly plan: Plan
  /** The plan as its configuration is now; throws ConfigErrors. */
  readonly readAgain: () => Promise<Plan>
  readonly outlets: Outlets
  /** by the names of their inputs */
  readonly feeds: Map<string, Feed>
  /** A feed that begins at `saved`, or where a checkpoint says when that is null. */
  readonly feedOf: (input: InputConfig, saved: readonly unknown[] | null) => Promise<Feed>
  readonly run: Run
  readonly channels: Channels
  readonly tableFull: TableFull
  readonly service: Service
  /** seconds since the epoch */
  readonly now: () => number
  readonly report: (message: string) => void
}

export class Reload {
  readonly #parts: ReloadParts
  #plan: Plan
  readonly numbers: { -readonly [key in keyof ConfigNumbers]: ConfigNumbers[key] }
  #turn: Promise<void> = Promise.resolve()

  constructor(parts: ReloadParts) {
    this.#parts = parts
    this.#plan = parts.plan
    this.numbers = { path: parts.plan.path, loadedAt: parts.now(), reloads: 0, failedReloads: 0, fault: '' }
  }

  /** What runs now. */
  get plan(): Plan {
    return this.#plan
  }

  /** Reads the configuration anew, once the reload before is through. What is wrong with it is reported, and nothing has changed. */
  again(): Promise<void> {
    if (this.#plan.path !== '') this.#turn = this.#turn.then(() => this.#reload())
    return this.#turn
  }

  async #reload(): Promise<void> {
    const { run, service, report, now } = this.#parts
    service.reloading()
    const release = run.hold()
    try {
      const later = await this.#exchange(await this.#parts.readAgain())
      this.numbers.reloads++
      this.numbers.fault = ''
      this.numbers.loadedAt = now()
      if (later.length > 0) report(`reload: ${later.join(', ')} take${later.length === 1 ? 's' : ''} effect with the next start`)
    } catch (error) {
      this.numbers.failedReloads++
      this.numbers.fault = messageOf(error)
      report(`reload: ${messageOf(error)}; what ran before goes on`)
    }
    release()
    service.reloaded()
  }

  /** The new outputs are opened before anything old is touched; then they take the place of the old ones between two batches, and after them the inputs. */
  async #exchange(next: Plan): Promise<readonly string[]> {
    const { outlets, feeds, feedOf, run, channels, tableFull } = this.#parts
    // an empty file watches the host; most likely it is just being written
    if (next.watchesHost !== this.#plan.watchesHost) throw new Error(`${next.path}: it names ${next.watchesHost ? 'no inputs any more' : 'inputs now'}, and that takes a restart`)
    const changes = changesOf(this.#plan, next)
    const made = await outlets.prepare(next, changes)
    await new Promise<void>((resolve, fail) => run.inject(() => outlets.exchange(next, changes, made, channels).then(resolve, fail)))
    tableFull.setRules(ruleOptions(next))
    this.#plan = next
    for (const name of changes.oldInputs) {
      const feed = feeds.get(name)!
      feeds.delete(name)
      await run.take(feed)
    }
    for (const input of next.inputs) {
      if (!changes.newInputs.includes(input.name)) continue
      const feed = await feedOf(input, run.moved.get(input.name) ?? null)
      feeds.set(input.name, feed)
      run.add(feed)
    }
    return changes.later
  }
}
