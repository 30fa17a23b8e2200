/**
 * Rate limit of our own diagnostics: of one kind a few are told in each window, of all kinds together some more, and the rest are counted. A kind is what a text says
 * before its first colon, whatever its numbers, for what follows is often somebody else's words.
 */

/** Milliseconds. */
export const WINDOW_MS = 10_000
const OF_A_KIND = 10
const OF_ALL = 100
/** So many kinds are remembered in a window; what comes then is of the last. */
const KINDS_MAX = 256
const OTHER = 'diagnostics of further kinds'

interface Kind {
  told: number
  held: number
}

export class Flood {
  readonly #kinds = new Map<string, Kind>()
  #told = 0
  #began = -Infinity

  /** May it be told now? What may not is counted for `takeHeld`. */
  admits(text: string, now: number): boolean {
    // what was held back stays counted until it is taken
    if (now - this.#began >= WINDOW_MS && this.heldBack === 0) this.#begin(now)
    const name = kindOf(text)
    const kind = this.#kinds.get(this.#kinds.size < KINDS_MAX || this.#kinds.has(name) ? name : OTHER) ?? this.#add(this.#kinds.size < KINDS_MAX ? name : OTHER)
    if (kind.told >= OF_A_KIND || this.#told >= OF_ALL) {
      kind.held++
      return false
    }
    kind.told++
    this.#told++
    return true
  }

  get heldBack(): number {
    let sum = 0
    for (const { held } of this.#kinds.values()) sum += held
    return sum
  }

  /** The window is over: how many of each kind were held back in it. */
  takeHeld(now: number): { readonly kind: string; readonly count: number }[] {
    const held = [...this.#kinds].filter(([, kind]) => kind.held > 0).map(([kind, { held: count }]) => ({ kind, count }))
    this.#begin(now)
    return held
  }

  #begin(now: number): void {
    this.#kinds.clear()
    this.#told = 0
    this.#began = now
  }

  #add(name: string): Kind {
    const kind = { told: 0, held: 0 }
    this.#kinds.set(name, kind)
    return kind
  }
}

const KIND_LENGTH = 80

function kindOf(text: string): string {
  const colon = text.indexOf(': ')
  return text.slice(0, colon < 0 ? KIND_LENGTH : Math.min(colon, KIND_LENGTH)).replaceAll(/\d+/g, 'N')
}
