/** How rotation names files: `a.log.1`, `a.log-20261122`, `a-20261122.log`, each perhaps compressed. Names only say what may belong together, and in which order. */
import type { Found } from './glob.js'
import { folderOf, nameOf } from './glob.js'

const COMPRESSION = /\.(gz|zst|bz2|xz|lz4|lzma|zip|Z)$/
const SUFFIX = /[.\-_]\d+$/
/** a date within a name, before its last part */
const INNER_DATE = /[.\-_]\d{6,}(?=\.[^.\d]+$)/
/** a number as large is a date */
const DATE = 100_000

/** The name before rotation. */
export function baseName(name: string): string {
  let base = name.replace(COMPRESSION, '').replace(INNER_DATE, '')
  while (SUFFIX.test(base)) base = base.replace(SUFFIX, '')
  return base === '' ? name : base
}

/** What a file may be a copy of, by name: any name that its own begins with, or goes on from. */
export function originalNames(name: string): string[] {
  const names = Array.from({ length: name.length - 1 }, (_, i) => name.slice(0, i + 1))
  const undated = name.replace(INNER_DATE, '')
  return undated === name ? names : [...names, undated]
}

/** The oldest of a family first: `a.3`, `a.2`, `a.1`, `a`; `a-20261121`, `a-20261122`, `a`. Families stay where their first member is. */
export function byAge(files: readonly Found[]): Found[] {
  const families = new Map<string, Found[]>()
  for (const one of files) {
    const family = `${folderOf(one.path)}/${baseName(nameOf(one.path))}`
    const members = families.get(family)
    if (members === undefined) families.set(family, [one])
    else members.push(one)
  }
  return [...families.values()].flatMap((members) => members.sort((a, b) => byRank(rank(nameOf(a.path)), rank(nameOf(b.path)))))
}

/** A file that rotation has just put beside the others is the youngest by its name too; one that somebody has decompressed or restored there is not. */
export function isRotatedInOrder(one: Found, beside: readonly Found[]): boolean {
  const family = baseName(nameOf(one.path))
  return !beside.some((other) => {
    const isYoungerByName = baseName(nameOf(other.path)) === family && byRank(rank(nameOf(one.path)), rank(nameOf(other.path))) < 0
    return isYoungerByName && other.stat.birthtimeNs < one.stat.birthtimeNs
  })
}

function rank(name: string): number {
  const bare = name.replace(COMPRESSION, '')
  const digits = (SUFFIX.exec(bare) ?? INNER_DATE.exec(bare))?.[0].slice(1)
  if (digits === undefined) return Infinity
  const number = Number(digits)
  return number < DATE ? -number : number
}

function byRank(a: number, b: number): number {
  return a < b ? -1 : a > b ? 1 : 0
}
