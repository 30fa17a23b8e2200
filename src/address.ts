/** Addresses in words, network order, as text: dotted quad, and RFC 5952 as inet_ntop(3) of glibc writes it, so that every form of a flow shows the same. */

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
