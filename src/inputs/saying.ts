/** An input that has one thing to say, about what is no more or cannot be had, and nothing to read. */
import { type Input, type Notice, NOTICES_ONLY } from '../stage.js'
import { nowMicroseconds } from '../clock.js'

const NOTHING = new Uint8Array(0)
const NO_NOTICES: readonly Notice[] = []

/** The place in a file that it is about: its record is named by it, the same each time that it is told. */
export interface About {
  readonly id: string
  readonly generation: number
  readonly offset: number
}

export class Saying implements Input {
  readonly name: string
  readonly chunk = NOTHING
  readonly isDump = false
  readonly isBusy = false
  readonly isLive = true
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy: 'offset' | 'counter'
  readonly offset: number
  onIdle = (): void => {}
  notices: readonly Notice[] = NO_NOTICES
  #told: readonly Notice[]

  constructor(name: string, notice: Notice, about: About | null = null) {
    this.name = name
    this.ridPrefix = about === null ? '' : `${about.id}.${about.generation}`
    this.ridBy = about === null ? 'counter' : 'offset'
    this.offset = about?.offset ?? 0
    this.#told = [notice]
  }

  async next(): Promise<number> {
    this.notices = this.#told
    this.#told = NO_NOTICES
    return this.notices.length > 0 ? NOTICES_ONLY : 0
  }

  receivedMicroseconds(): number {
    return nowMicroseconds()
  }

  boot(): null {
    return null
  }

  position(): null {
    return null
  }

  stop(): void {}
  abort(): void {}
  close(): void {}
}
