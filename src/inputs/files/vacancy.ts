/**
 * A path that was followed and at which nothing is, for its file was moved away. Nothing is read of it: that file's position stays in the checkpoint, so that after a
 * new start what came to the path and was moved on meanwhile can be told from what was there before.
 */
import type { Input, Notice } from '../../stage.js'
import { nowMicroseconds } from '../../clock.js'
import type { Position } from './identity.js'

const NOTHING = new Uint8Array(0)
const NO_NOTICES: readonly Notice[] = []

export class Vacancy implements Input {
  readonly name: string
  readonly chunk = NOTHING
  readonly notices = NO_NOTICES
  readonly isDump = false
  readonly isBusy = false
  readonly isLive = true
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy = 'offset'
  readonly offset: number
  onIdle: () => void = nothing
  readonly last: Position
  #isFilled = false
  #isStopped = false
  #resolve: ((n: number) => void) | null = null

  /** `last`: of the file that was moved away, at its end. */
  constructor(name: string, last: Position) {
    this.name = name
    this.ridPrefix = `${last.id}.${last.generation}`
    this.offset = last.offset
    this.last = last
  }

  /** Another file is there now, or none is expected any more. */
  fill(): void {
    this.#isFilled = true
    this.#resolve?.(0)
  }

  next(): Promise<number> {
    return this.#isFilled || this.#isStopped ? Promise.resolve(0) : new Promise((resolve) => (this.#resolve = resolve))
  }

  receivedMicroseconds(): number {
    return nowMicroseconds()
  }

  boot(): null {
    return null
  }

  position(): Position | null {
    return this.#isFilled ? null : this.last
  }

  stop(): void {
    this.#isStopped = true
    this.#resolve?.(0)
  }

  abort(): void {
    this.stop()
  }

  close(): void {}
}

function nothing(): void {}
