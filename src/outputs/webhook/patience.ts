/** When to try again: exponential waits with full jitter, the receiver's own wishes, and a circuit that is open while it keeps failing. */

export type Circuit = 'closed' | 'open' | 'half-open'

export interface PatienceOptions {
  /** milliseconds */
  readonly first: number
  readonly max: number
  /** so many failures in a row open the circuit */
  readonly circuitAfter: number
  readonly random: () => number
}

export class Patience {
  readonly #options: PatienceOptions
  #failures = 0
  #isTrying = false
  /** before this moment (milliseconds since the epoch) the endpoint is left alone */
  #notBefore = 0

  constructor(options: PatienceOptions) {
    this.#options = options
  }

  get circuit(): Circuit {
    if (this.#failures < this.#options.circuitAfter) return 'closed'
    return this.#isTrying ? 'half-open' : 'open'
  }

  get failures(): number {
    return this.#failures
  }

  get notBefore(): number {
    return this.#notBefore
  }

  /** A request begins: with an open circuit it is the one that finds out. */
  try(): void {
    this.#isTrying = true
  }

  succeeded(): void {
    this.#failures = 0
    this.#isTrying = false
    this.#notBefore = 0
  }

  /** `atLeast`: milliseconds that the receiver asked for. */
  failed(now: number, atLeast: number): void {
    const { first, max, random, circuitAfter } = this.#options
    this.#failures++
    this.#isTrying = false
    const jittered = random() * Math.min(max, first * 2 ** Math.min(40, this.#failures - 1))
    // jitter may say "at once", which an open circuit must not
    this.#notBefore = now + Math.max(jittered, atLeast, this.#failures >= circuitAfter ? Math.min(first, max) : 0)
  }
}
