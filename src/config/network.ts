/** An address or network of a condition, as numbers that can be compared. */
import { isIP, isIPv4 } from 'node:net'

export const NETWORK_EXPECTED = 'an address or network such as 10.0.0.0/8 or fd00::/8'

/** Four words in network order, as 32-bit integers; IPv4 in the last. `prefix` counts from the first of 128 bits: 10.0.0.0/8 has 104. */
export interface Network {
  readonly text: string
  readonly family: 4 | 6
  readonly words: readonly [number, number, number, number]
  readonly prefix: number
}

/** null where the text is none. */
export function parseNetwork(text: string): Network | null {
  const [, address, length] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  if (address === undefined || isIP(address) === 0) return null
  const family = isIPv4(address) ? 4 : 6
  const bits = length === undefined ? Infinity : Number(length)
  const width = family === 4 ? 32 : 128
  if (length !== undefined && bits > width) return null
  return { text, family, words: family === 4 ? [0, 0, 0, wordOf(address)] : wordsOf(address), prefix: Math.min(bits, width) + 128 - width }
}

function wordOf(dotted: string): number {
  return dotted.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0)
}

/** `address` is valid; the last 32 bits may be dotted. */
function wordsOf(address: string): [number, number, number, number] {
  const hex = address.replace(/[\d.]+\.[\d.]+$/, (dotted) => {
    const word = wordOf(dotted) >>> 0
    return `${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`
  })
  const [head = '', tail] = hex.split('::')
  const groups = (part: string): number[] => (part === '' ? [] : part.split(':').map((group) => parseInt(group, 16)))
  const first = groups(head)
  const last = groups(tail ?? '')
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
  const word = (i: number): number => (all[i * 2]! << 16) | all[i * 2 + 1]!
  return [word(0), word(1), word(2), word(3)]
}
