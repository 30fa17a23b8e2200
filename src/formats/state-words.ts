/** From a state's word on a line to its number: one table look-up and one comparison. */
import { page, pageView } from '../event.js'
import { statesOf } from '../kernel.js'
import { SPACE } from './scan.js'

const bytes = page
const view = pageView

/** Reads an upper-case word of letters, digits and `_`; gives the offset behind it, -1 when it is no state of that protocol. The number is in `stateWord.state`. */
export function readState(at: number, protocol: number): number {
  let p = at
  let c: number
  while (((c = bytes[p]) >= 65 && c <= 90) || c === 95 || (c >= 48 && c <= 57)) p++
  if (c !== SPACE) return -1
  const length = p - at
  const table = tables[protocol]
  if (table === undefined || length < 4) return -1
  const state = table.slots[slotOf(view.getInt32(at, true), length, bytes[p - 1], table.factor)]
  if (state < 0) return -1
  const text = table.words[state - table.first]
  if (text.length !== length) return -1
  for (let i = 0; i < length; i++) if (text.charCodeAt(i) !== bytes[at + i]) return -1
  stateWord.state = state
  return p
}

export const stateWord = { state: 0 }

interface Table {
  readonly first: number
  readonly words: readonly string[]
  readonly slots: Int8Array
  readonly factor: number
}

function slotOf(first: number, length: number, last: number, factor: number): number {
  return Math.imul(first ^ (length << 8) ^ (last << 17), factor) >>> 26
}

/** A table of 64 slots and a factor for which no two words of the protocol meet; found by trying. */
function build(protocol: number): Table | undefined {
  const known = statesOf(protocol)
  if (known === null) return undefined
  for (let factor = 0x9e3779b1; ; factor += 2) {
    const slots = new Int8Array(64).fill(-1)
    const clash = known.words.some((text, index) => {
      const at = slotOf(
        text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24),
        text.length,
        text.charCodeAt(text.length - 1),
        factor,
      )
      if (slots[at] !== -1) return true
      slots[at] = known.first + index
      return false
    })
    if (!clash) return { first: known.first, words: known.words, slots, factor }
  }
}

const tables = Array.from({ length: 256 }, (_, protocol) => build(protocol))

/** The state of a word that is not on a line of text; -1 when it is none of that protocol. */
export function stateNumber(text: string, protocol: number): number {
  const known = statesOf(protocol)
  const index = known === null ? -1 : known.words.indexOf(text)
  return known === null || index < 0 ? -1 : known.first + index
}
