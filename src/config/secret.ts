/** A token or key. However it is printed, logged or turned into JSON it says `[secret]`; only who asks by name has the text. */
const HIDDEN = '[secret]'

export class Secret {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  reveal(): string {
    return this.#text
  }

  toString(): string {
    return HIDDEN
  }

  toJSON(): string {
    return HIDDEN
  }

  /** what console.log and util.inspect show */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return HIDDEN
  }
}
