/** A configuration that was read anew takes the place of the old one in a run that goes on: unchanged inputs and outputs keep their place. */
import type { InputConfig } from '../config.js'
import type { TableFullOfHosts } from '../detectors/table-full-hosts.js'
import type { ConfigNumbers } from '../metrics.js'
import type { Channels } from '../run/channel.js'
import type { Prepared, Run } from '../run/run.js'
import { type Feed, messageOf } from '../stage.js'
import { type Changes, changesOf } from './changes.js'
import type { Outlets } from './outlets.js'
import { OwnFiles } from './own-files.js'
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
  readonly tableFull: TableFullOfHosts
  readonly service: Service
  /** seconds since the epoch */
  readonly now: () => number
  readonly report: (message: string) => void
}

export class Reload {
  readonly #parts: ReloadParts
  #plan: Plan
  /** those of a configuration that is being taken up */
  #coming: Plan['outputs'] = []
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

  /** The same for who asks what the run writes itself: with outputs that are just being opened. */
  get planOfFiles(): Plan {
    return this.#coming.length === 0 ? this.#plan : { ...this.#plan, outputs: [...this.#plan.outputs, ...this.#coming] }
  }

  /** Reads the configuration anew, once the reload before is through. What is wrong with it is reported, and nothing has changed. */
  again(): Promise<void> {
    if (this.#plan.path !== '') this.#turn = this.#turn.then(() => this.#reload())
    return this.#turn
  }

  async #reload(): Promise<void> {
    const { run, service, report, now } = this.#parts
    service.reloading()
    this.numbers.reloads++
    const release = run.hold()
    try {
      const later = await this.#exchange(await this.#parts.readAgain())
      this.numbers.fault = ''
      this.numbers.loadedAt = now()
      if (later.length > 0) report(`reload: ${later.join(', ')} take${later.length === 1 ? 's' : ''} effect with the next start`)
    } catch (error) {
      this.numbers.failedReloads++
      this.numbers.fault = messageOf(error)
      report(`reload: ${messageOf(error)}; what ran before goes on`)
    }
    this.#coming = []
    release()
    service.reloaded()
  }

  /** All that can fail is done before anything old is touched. Then the new outputs take the place of the old ones between two batches, and after them the inputs. */
  async #exchange(next: Plan): Promise<readonly string[]> {
    const { outlets, feeds, feedOf, run, channels, tableFull } = this.#parts
    // an empty file watches the host; most likely it is just being written
    if (next.watchesHost !== this.#plan.watchesHost) throw new Error(`${next.path}: it names ${next.watchesHost ? 'no inputs any more' : 'inputs now'}, and that takes a restart`)
    const changes = changesOf(this.#plan, next)
    this.#coming = next.outputs
    const made = await outlets.prepare(next, changes)
    const added = new Map<string, Opened>()
    try {
      // behind the outputs: their files are there now
      const fault = await new OwnFiles(() => next).fault()
      if (fault !== '') throw new Error(fault)
      for (const input of next.inputs) if (changes.newInputs.includes(input.name)) await this.#tryInput(input, changes, added)
    } catch (error) {
      dropAll(added)
      await outlets.drop(made)
      throw error
    }
    try {
      await new Promise<void>((resolve, fail) => run.inject(() => outlets.exchange(next, changes, made, channels).then(resolve, fail)))
    } catch (error) {
      dropAll(added)
      throw error
    }
    tableFull.setRules(ruleOptions(next))
    this.#plan = next
    for (const name of changes.oldInputs) {
      const feed = feeds.get(name)!
      feeds.delete(name)
      await run.take(feed)
    }
    for (const input of next.inputs) {
      if (!changes.newInputs.includes(input.name)) continue
      const opened = added.get(input.name)
      const feed = opened?.feed ?? (await feedOf(input, run.moved.get(input.name) ?? null))
      feeds.set(input.name, feed)
      if (opened === undefined) run.add(feed)
      else opened.begin()
    }
    return changes.later
  }

  /** Opens a further input, to be read later; and of one that is another now it looks whether it can be opened, for where it goes on is known when the old one has ended. */
  async #tryInput(input: InputConfig, { oldInputs }: Changes, added: Map<string, Opened>): Promise<void> {
    const { feedOf, run } = this.#parts
    const isOther = oldInputs.includes(input.name)
    // there is one standard input; and what a program does when it is started nobody knows
    if (input.type === 'stdin' || (isOther && input.type === 'command')) return
    const feed = await feedOf(input, isOther ? [] : (run.moved.get(input.name) ?? null))
    const prepared = await run.prepare(feed).catch((error: unknown) => {
      throw new Error(`input ${input.name} cannot be opened: ${messageOf(error)}`)
    })
    if (isOther) prepared.drop()
    else added.set(input.name, { feed, ...prepared })
  }
}

interface Opened extends Prepared {
  readonly feed: Feed
}

function dropAll(added: ReadonlyMap<string, Opened>): void {
  for (const opened of added.values()) opened.drop()
}
