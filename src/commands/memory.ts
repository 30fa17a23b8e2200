/**
 * What a run remembers with --state: once a second a consistent cut of the inputs' positions and the open episodes, written when every output has the records up to
 * it safely. Where nothing has moved it is written seldomer, only for its time, which a gap record after a crash begins with.
 */
import type { Checkpoint, CheckpointStore } from '../checkpoint.js'
import { nowMicroseconds } from '../clock.js'
import type { Levels } from '../detectors/levels.js'
import type { TableFullOfHosts } from '../detectors/table-full-hosts.js'
import { type Time, timeOf } from '../event.js'
import type { World } from '../parts.js'
import type { Channels } from '../run/channel.js'
import type { Records } from '../run/records.js'
import type { Run } from '../run/run.js'
import type { Tally } from '../tally.js'

const UNMOVED_SEC = 10

export interface Remembered {
  readonly tableFull: TableFullOfHosts
  readonly levels: Levels
  /** lines of the kernel, and what was told of them, are remembered at once */
  readonly tally: Tally
}

export class Memory {
  /** positions of the run before, by the input's name */
  readonly saved: Readonly<Record<string, readonly unknown[]>>
  readonly #store: CheckpointStore
  readonly #remembered: Remembered
  readonly #world: World
  /** There was a checkpoint, and nothing of it can be used: where this run begins is not where the last one ended. */
  readonly isDamaged: boolean
  /** when the checkpoint was written that this run began with; null: with none */
  readonly #lastWritten: Time | null
  #writing: Promise<void> | null = null
  /** a cut that is still to be taken, for those who wait for it */
  #asked: Promise<void> | null = null
  /** what was in the last one, without what time alone changes */
  #last = { inputs: '', counted: '' }

  /** Throws StateError for the checkpoint of a newer version. */
  constructor(store: CheckpointStore, remembered: Remembered, world: World, report: (message: string) => void) {
    this.#store = store
    this.#remembered = remembered
    this.#world = world
    const found = store.load()
    this.isDamaged = found === 'damaged'
    const checkpoint = typeof found === 'string' ? null : found
    this.saved = checkpoint?.inputs ?? {}
    this.#lastWritten = checkpoint === null ? null : timeOf(checkpoint.written)
    if (checkpoint === null) return
    try {
      remembered.tableFull.restore(checkpoint.detectors['tableFull'], nowMicroseconds())
      // counters begin anew with the kernel
      if (checkpoint.bootId === world.bootId) remembered.levels.restore(checkpoint.detectors['levels'])
    } catch {
      report('checkpoint: its episodes and counters are not understood; they begin anew')
    }
  }

  /** Flows are not remembered: what the next records do not know of them has this reason. */
  tellRestart(records: Records, onDamage: 'begin' | 'end'): void {
    const now = this.#world.now()
    const gap = { ...now, timeSource: 0, cause: 'restart', count: -1, atLeast: 1, from: null, to: now } as const
    if (this.isDamaged) {
      const where = onDamage === 'begin' ? 'files are read from their beginning' : 'files are read from their end'
      records.ownGap({ ...gap, reason: `the checkpoint is damaged: ${where}` }, `${this.#world.random}:restart`)
    }
    if (this.#lastWritten === null) return
    const { sec, usec } = this.#lastWritten
    // by a clock that was set back since, it is not known
    const from = sec < now.sec || (sec === now.sec && usec <= now.usec) ? this.#lastWritten : null
    records.ownGap({ ...gap, from }, `${this.#world.random}:restart`)
  }

  /** The cut is taken now, between batches; the rest goes on beside the loop. */
  keep(run: Run, channels: Channels): void {
    if (this.#writing !== null || this.#asked !== null) return
    const age = this.#store.ageSeconds
    void this.#begin(run, channels, age < 0 || age >= UNMOVED_SEC)
  }

  /** Resolves when a cut that is taken after this call is written, or cannot be, which is told. Those who ask together share one. */
  remember(run: Run, channels: Channels): Promise<void> {
    this.#asked ??= this.#next(run, channels)
    return this.#asked
  }

  async #next(run: Run, channels: Channels): Promise<void> {
    await this.#writing
    await new Promise<void>((resolve) =>
      run.inject(() => {
        this.#asked = null
        void this.#begin(run, channels, false).then(resolve)
      }),
    )
  }

  #begin(run: Run, channels: Channels, isDue: boolean): Promise<void> {
    this.#writing = this.#write(run, channels, isDue).finally(() => (this.#writing = null))
    return this.#writing
  }

  async keepLast(run: Run, channels: Channels): Promise<void> {
    await this.#writing
    await this.#write(run, channels, true)
  }

  #positions({ sources, ended, looked, moved }: Run): Checkpoint['inputs'] {
    const inputs: Record<string, unknown[]> = Object.fromEntries(looked.map((name) => [name, []]))
    for (const source of [...sources, ...ended]) {
      const position = source.input.position(source.offset)
      if (position !== null) (inputs[source.input.name] ??= []).push(position)
    }
    // what an input said that is not open yet, or no longer, still holds
    for (const [name, positions] of [...moved, ...Object.entries(this.saved)]) inputs[name] ??= [...positions]
    return inputs
  }

  async #write(run: Run, channels: Channels, isDue: boolean): Promise<void> {
    const { tableFull, levels, tally } = this.#remembered
    const inputs = JSON.stringify(this.#positions(run))
    const counted = JSON.stringify([levels.changes, tally.kernel, tally.alerts, tally.gaps])
    if (inputs === this.#last.inputs && counted === this.#last.counted && !isDue) return
    // the detectors go on while it is written
    const detectors: Checkpoint['detectors'] = structuredClone({ tableFull: tableFull.save(), levels: levels.save() })
    try {
      await channels.safe()
    } catch {
      // an output that cannot be made safe is told of where it fails; the old checkpoint holds
      return
    }
    if (channels.failure !== '') return
    const { sec, usec } = this.#world.now()
    if (await this.#store.save({ written: sec * 1e6 + usec, bootId: this.#world.bootId, detectors, inputs })) this.#last = { inputs, counted }
  }
}
