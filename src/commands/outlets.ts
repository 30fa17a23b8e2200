/** The outputs of a run: opened as a plan says, exchanged between two batches, closed at the end; and which records go to which. */
import { accessSync, closeSync, constants, existsSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { makeCondition } from '../conditions.js'
import { type OutputOptions, outputOf } from '../parts.js'
import { Route } from '../route.js'
import type { ChannelParts, Channels } from '../run/channel.js'
import { messageOf, type Output } from '../stage.js'
import type { Changes } from './changes.js'
import type { Plan } from './plan.js'

export class Outlets {
  readonly #options: Omit<OutputOptions, 'spools'>
  readonly #outputs = new Map<string, Output>()
  #plan: Plan

  constructor(plan: Plan, options: Omit<OutputOptions, 'spools'>) {
    this.#plan = plan
    this.#options = options
  }

  /** Throws an Error that names the output. */
  async open(): Promise<void> {
    for (const config of this.#plan.outputs) {
      try {
        this.#outputs.set(config.name, await this.#opened(config, this.#plan))
      } catch (error) {
        throw cannotOpen(config.name, error)
      }
    }
  }

  /** Outputs that want the same are one channel. */
  channels(): ChannelParts[] {
    const { route, outputs } = this.#plan
    const byWhen = new Map<string, { when: Plan['outputs'][number]['when']; outputs: Output[] }>()
    for (const { name, when } of outputs) {
      const key = JSON.stringify(when)
      const channel = byWhen.get(key) ?? { when, outputs: [] }
      channel.outputs.push(this.#outputs.get(name)!)
      byWhen.set(key, channel)
    }
    return [...byWhen.values()].map(({ when, outputs: same }) => ({
      route: new Route({ ...route, when: when === null || when === 'unmatched' ? [] : when.map(makeCondition) }),
      outputs: same,
      isUnmatched: when === 'unmatched',
      hasConditions: when !== null && when !== 'unmatched',
    }))
  }

  /** Opens what the next plan has and the old one has not, beside the old ones; of what must wait for an old one it looks whether it can be opened. Throws with nothing changed. */
  async prepare(next: Plan, { newOutputs }: Changes): Promise<Map<string, Output>> {
    const made = new Map<string, Output>()
    for (const output of next.outputs) {
      if (!newOutputs.includes(output.name)) continue
      try {
        if (this.#holdersOf(output).length === 0) made.set(output.name, await this.#opened(output, next))
        else if (output.type === 'file') checkOpens(output.path)
      } catch (error) {
        await closeAll(made.values())
        throw cannotOpen(output.name, error)
      }
    }
    return made
  }

  /** Between two batches: the records so far go to the outputs that they were for. Throws with the old ones in their places. */
  async exchange(next: Plan, { oldOutputs, newOutputs }: Changes, made: Map<string, Output>, channels: Channels): Promise<void> {
    await channels.drained()
    const held = next.outputs.filter((output) => newOutputs.includes(output.name) && this.#holdersOf(output).length > 0)
    const holders = new Set(held.flatMap((output) => this.#holdersOf(output)))
    try {
      for (const name of holders) await this.#end(name)
      for (const output of held) {
        try {
          made.set(output.name, await this.#opened(output, next))
        } catch (error) {
          throw cannotOpen(output.name, error)
        }
      }
    } catch (error) {
      await closeAll(made.values())
      for (const name of holders) this.#outputs.set(name, await this.#openedAgain(name))
      channels.replace(this.channels())
      throw error
    }
    for (const name of oldOutputs) if (!holders.has(name)) await this.#end(name)
    for (const [name, output] of made) this.#outputs.set(name, output)
    this.#plan = next
    channels.replace(this.channels())
  }

  /** One that cannot be had back ends the run, as at the start: what it has not written is read again with the next. */
  async #openedAgain(name: string): Promise<Output> {
    try {
      return await this.#opened(this.#plan.outputs.find((before) => before.name === name)!, this.#plan)
    } catch (error) {
      return { name, write: () => Promise.reject(cannotOpen(name, error)), close: () => Promise.resolve() }
    }
  }

  /** Nobody else may close it, or open it anew, any more. */
  async #end(name: string): Promise<void> {
    const output = this.#outputs.get(name)!
    this.#outputs.delete(name)
    await output.close()
  }

  #opened(config: Plan['outputs'][number], { outputs }: Plan): Promise<Output> {
    return outputOf(config, { ...this.#options, spools: outputs.filter(({ when_full }) => when_full !== 'block').length })
  }

  /** Names of the old outputs that must be closed before: a spool is opened by one at a time, and so is a file, whatever its output is called, whose tail may be half written. */
  #holdersOf(anew: Plan['outputs'][number]): string[] {
    const isHolder = (old: Plan['outputs'][number]): boolean =>
      (old.name === anew.name && (old.when_full !== 'block' || old.type === 'webhook')) || (old.type === 'file' && anew.type === 'file' && old.path === anew.path)
    return this.#plan.outputs.filter(isHolder).map(({ name }) => name)
  }

  /** What was prepared and is not wanted after all. */
  async drop(made: ReadonlyMap<string, Output>): Promise<void> {
    await closeAll(made.values())
  }

  /** Files that were renamed are left for new ones. */
  reopen(): void {
    for (const output of this.#outputs.values()) {
      try {
        output.reopen?.()
      } catch (error) {
        this.#options.report(`output ${output.name} cannot be opened anew: ${messageOf(error)}`)
      }
    }
  }

  tellLosses(): void {
    for (const output of this.#outputs.values()) output.tellLosses?.()
  }

  /** Before anything was written to them. */
  closeUnused(): Promise<void> {
    return closeAll(this.#outputs.values())
  }

  /** Webhooks first: what one of them could not deliver is told by the others. */
  async close(channels: Channels): Promise<void> {
    const isWebhook = (output: Output): boolean => this.#plan.outputs.some(({ name, type }) => name === output.name && type === 'webhook')
    const all = [...this.#outputs.values()]
    // what was told last reaches them too
    await channels.drained()
    await closeAll(all.filter(isWebhook))
    await channels.drained()
    await closeAll(all.filter((output) => !isWebhook(output)))
  }
}

function cannotOpen(name: string, error: unknown): Error {
  return new Error(`output ${name} cannot be opened: ${messageOf(error)}`)
}

/** Another output writes to it meanwhile, or to one of its name: nothing is made, and nothing of it is changed. */
function checkOpens(path: string): void {
  if (existsSync(path)) closeSync(openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK))
  else accessSync(dirname(path), constants.W_OK | constants.X_OK)
}

async function closeAll(outputs: Iterable<Output>): Promise<void> {
  await Promise.all(Array.from(outputs, (output) => output.close()))
}
