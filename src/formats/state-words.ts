/** From a state's word on a line to its number: one table look-up and one comparison. */
import { page, pageView } from '../event.js'
import { PROTO_TCP, statesOf, TCP_STATE, tcpStates } from '../kernel.js'
import { latin1, SPACE, word } from './scan.js'

const bytes = page
const view = pageView

/**
 * Reads a state's word and the blank behind it; gives the offset behind that, -1 when it is no state of that protocol. The number is in `stateWord.state`.
 * TCP's words are always followed by ` src=`, and their first nine bytes with that tell them apart.
 */
export function readState(at: number, protocol: number): number {
  const table = tcp
  if (protocol !== PROTO_TCP) return readSpacedState(at, protocol)
  const first = view.getInt32(at, true)
  const second = view.getInt32(at + 4, true)
  const slot = slotOf(first, second ^ bytes[at + 8], table.factor) * 5
  const words = table.words
  if (words[slot] !== first || words[slot + 1] !== second) return readSpacedState(at, protocol)
  const length = words[slot + 3]
  if (length > 8 && (view.getInt32(at + 7, true) !== words[slot + 2] || view.getInt32(at + length - 4, true) !== words[slot + 4])) return readSpacedState(at, protocol)
  if (bytes[at + length] !== SPACE) return -1
  stateWord.state = table.states[slot / 5]
  return at + length + 1
}

export const stateWord = { state: 0 }

/** Other protocols, rows of old kernels with more than one blank behind the word, and words that are no state. */
function readSpacedState(at: number, protocol: number): number {
  let p = at
  while (bytes[p] > SPACE) p++
  const state = bytes[p] === SPACE && p - at < 20 ? stateNumber(latin1(at, p), protocol) : -1
  if (state < 0) return -1
  stateWord.state = state
  return p + 1
}

interface Table {
  readonly factor: number
  /** for each slot: bytes 0 to 3, 4 to 7, 7 to 10, length, last four bytes */
  readonly words: Int32Array
  readonly states: Int8Array
}

function slotOf(first: number, second: number, factor: number): number {
  return Math.imul(first ^ Math.imul(second, 0x9e3779b1), factor) >>> 26
}

/** A table of 64 slots and a factor for which no two words meet; found by trying. */
function build(texts: readonly string[]): Table {
  for (let factor = 0x85ebca6b; ; factor += 2) {
    const words = new Int32Array(64 * 5)
    const states = new Int8Array(64).fill(-1)
    const clash = texts.some((text, index) => {
      const line = `${text} src=`
      const slot = slotOf(word(line), word(line.slice(4)) ^ line.charCodeAt(8), factor)
      if (states[slot] !== -1) return true
      states[slot] = TCP_STATE + index
      words.set([word(line), word(line.slice(4)), word(line.slice(7)), text.length, word(text.slice(-4))], slot * 5)
      return false
    })
    if (!clash) return { factor, words, states }
  }
}

const tcp = build(tcpStates)

/** The state of a word that is not on a line of text; -1 when it is none of that protocol. */
export function stateNumber(text: string, protocol: number): number {
  const known = statesOf(protocol)
  const index = known === null ? -1 : known.words.indexOf(text)
  return known === null || index < 0 ? -1 : known.first + index
}
