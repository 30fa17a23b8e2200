/**
 * Addresses in words, network order, as text: dotted quad, and RFC 5952 as inet_ntop(3) of glibc writes it, so that every form of a flow shows the same; and
 * addresses and networks out of a text that somebody wrote.
 */

export function addressText(w0: number, w1: number, w2: number, w3: number, family: 4 | 6): string {
  return family === 4 ? formatAddress4(w3) : formatAddress6(w0, w1, w2, w3)
}

export function formatAddress6(w0: number, w1: number, w2: number, w3: number): string {
  const g = [w0 >>> 16, w0 & 0xffff, w1 >>> 16, w1 & 0xffff, w2 >>> 16, w2 & 0xffff, w3 >>> 16, w3 & 0xffff]
  let best = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let n = 0
    while (i + n < 8 && g[i + n] === 0) n++
    if (n > bestLength) {
      best = i
      bestLength = n
    }
    i += n
  }
  if (best === 0 && (bestLength === 6 || (bestLength === 5 && g[5] === 0xffff))) {
    return `::${bestLength === 5 ? 'ffff:' : ''}${formatAddress4(w3)}`
  }
  const hex = (from: number, to: number): string => g.slice(from, to).map((x) => x.toString(16)).join(':')
  return best < 0 ? hex(0, 8) : `${hex(0, best)}::${hex(best + bestLength, 8)}`
}

export function formatAddress4(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`
}

/** An address, or all that begin with the same bits. IPv4 is ::ffff:a.b.c.d here, and its prefix counts from the first of 128 bits: 10.0.0.0/8 has 104. */
export interface Network {
  /** as it was written */
  readonly text: string
  /** four, in network order, as 32-bit integers */
  readonly words: readonly number[]
  readonly prefix: number
}

/** What stands before the word of an IPv4 address that is written as an IPv6 one (RFC 4291 section 2.5.5.2). */
const MAPPED = 0xffff
const MAPPED_BITS = 96

/** null where the text is none. A zone behind % names an interface, which no record of connection tracking shows. */
export function parseNetwork(text: string): Network | null {
  const [, address = '', length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const words = parseAddress(address)
  if (words === null) return null
  const width = address.includes(':') ? 128 : 32
  const bits = length === undefined ? width : Number(length)
  return bits > width ? null : { text, words, prefix: bits + 128 - width }
}

/** IPv4 as ::ffff:a.b.c.d. A leading zero is refused: to some it means octal. */
export function parseAddress(text: string): readonly number[] | null {
  if (!text.includes(':')) {
    const word = parseAddress4(text)
    return word === null ? null : [0, 0, MAPPED, word]
  }
  // the last 32 bits may be dotted
  const [head, dotted] = /^(.*:)(\d+\.[\d.]+)$/.exec(text)?.slice(1) ?? [text]
  const word = dotted === undefined ? 0 : parseAddress4(dotted)
  if (word === null) return null
  const hex = dotted === undefined ? head! : `${head}${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`
  const halves = hex.split('::').map((half) => (half === '' ? [] : half.split(':')))
  const given = halves.flat()
  if (halves.length > 2 || given.some((group) => !/^[0-9a-f]{1,4}$/i.test(group)) || (halves.length === 1 ? given.length !== 8 : given.length > 7)) return null
  const all = [...halves[0]!, ...Array<string>(8 - given.length).fill('0'), ...(halves[1] ?? [])].map((group) => parseInt(group, 16))
  const pair = (i: number): number => (all[i]! << 16) | all[i + 1]!
  return [pair(0), pair(2), pair(4), pair(6)]
}

function parseAddress4(text: string): number | null {
  const parts = text.split('.')
  if (parts.length !== 4 || parts.some((part) => !/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255)) return null
  return parts.reduce((word, part) => (word << 8) | Number(part), 0)
}

/** Is an address of that family in the network? `::/0` is all of IPv6, and nothing of IPv4. */
export function isIn({ words, prefix }: Network, family: number, w0: number, w1: number, w2: number, w3: number): boolean {
  if (family === 4) return prefix >= MAPPED_BITS && words[0] === 0 && words[1] === 0 && words[2] === MAPPED && differ(w3, words[3]!, prefix - MAPPED_BITS) === 0
  return (differ(w0, words[0]!, prefix) | differ(w1, words[1]!, prefix - 32) | differ(w2, words[2]!, prefix - 64) | differ(w3, words[3]!, prefix - 96)) === 0
}

/** In their first `bits` bits. */
function differ(a: number, b: number, bits: number): number {
  return bits <= 0 ? 0 : (a ^ b) & (bits >= 32 ? -1 : -1 << (32 - bits))
}
