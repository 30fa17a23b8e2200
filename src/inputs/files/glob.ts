/**
 * From patterns to the files that are there now. Names are matched one path segment at a time, so only folders that can fit are read. A star follows a symbolic
 * link to a folder, `**` does not; names that begin with a dot must be named with it. Nothing is opened: what a file is says stat.
 */
import { type BigIntStats, readdir, stat } from 'node:fs'
import picomatch from 'picomatch'
import { fromText, identityOf, keyOf, pathBytes, shown } from './identity.js'

/** Asked of the thread pool at a time: it has four threads, and one must be left when a network file system hangs. */
const WINDOW = 3

/** Clocks of file systems go in steps of up to so many milliseconds: two changes within one look like one. */
const TICK_MS = 20
const LISTED_MOST = 4

export interface Pattern {
  readonly text: string
  readonly isLiteral: boolean
  readonly segments: readonly Segment[]
}

type Segment = string | 'any depth' | ((name: string) => boolean)
const ANY_DEPTH = 'any depth'

export interface Found {
  readonly path: string
  readonly stat: BigIntStats
}

export interface Discovery {
  readonly files: readonly Found[]
  /** fits, and is no regular file: a folder, named pipe, socket or device */
  readonly others: readonly Found[]
  /** links that lead back to a folder which was gone through for the same part of a pattern already: what is behind them is known by a shorter path */
  readonly circles: readonly string[]
  /** what could not be read: folders, and files that could not be looked at; of these and what is in them nothing is known now */
  readonly failed: ReadonlyMap<string, NodeJS.ErrnoException>
}

/** Throws a SyntaxError for what cannot be a pattern. */
export function patternOf(text: string, isThere = false): Pattern {
  if (text === '') throw new SyntaxError('a path is expected, and this one is empty')
  const isLiteral = isThere || !picomatch.scan(text).isGlob
  const parts = isLiteral ? text.split('/') : splitOutsideBrackets(text)
  return { text, isLiteral, segments: isLiteral ? parts : parts.map(segmentOf) }
}

function segmentOf(part: string): Segment {
  if (part === '**') return ANY_DEPTH
  if (!picomatch.scan(part).isGlob) return part.replace(/\\(.)/g, '$1')
  if (part.includes('/')) throw new SyntaxError(`a slash within brackets or braces (${part}) is not supported: give one pattern for each`)
  return picomatch(part)
}

function splitOutsideBrackets(text: string): string[] {
  const parts = ['']
  let depth = 0
  for (const c of text) {
    if ('{[('.includes(c)) depth++
    else if ('}])'.includes(c)) depth--
    if (c === '/' && depth <= 0) parts.push('')
    else parts[parts.length - 1] += c
  }
  return parts
}

/** Does a path fit one of these? A pattern without a slash is for the name alone. */
export function matcherOf(patterns: readonly string[]): (path: string) => boolean {
  const tests = patterns.map((text) => ({ test: picomatch(text, { dot: true }), name: !text.includes('/') }))
  return (path) => {
    const text = shown(path)
    return tests.some(({ test, name }) => test(name ? text.slice(text.lastIndexOf('/') + 1) : text))
  }
}

/** The folders in which a new file could fit, as far as they are known without looking: what stands before the first star. */
export function fixedFolder(pattern: Pattern): string {
  const to = pattern.isLiteral ? pattern.segments.length - 1 : pattern.segments.findIndex((segment) => typeof segment !== 'string' || segment === ANY_DEPTH)
  const folder = pattern.segments.slice(0, Math.min(to, pattern.segments.length - 1)).join('/')
  return folder !== '' ? folder : pattern.text.startsWith('/') ? '/' : '.'
}

/** Everything that fits, each path once: in the order of the patterns, those of one pattern by name. */
export async function discover(patterns: readonly Pattern[], isExcluded: (path: string) => boolean): Promise<Discovery> {
  const failed = new Map<string, NodeJS.ErrnoException>()
  const all = new Set<string>()
  const circles: string[] = []
  for (const pattern of patterns) {
    const paths = new Set<string>()
    await walk({ pattern, paths, failed, circles, visited: new Set() }, 0, '')
    for (const path of [...paths].sort()) if (!isExcluded(path)) all.add(path)
  }
  const found = await stats([...all], failed)
  return { files: found.filter(({ stat }) => stat.isFile()), others: found.filter(({ stat }) => !stat.isFile()), circles, failed }
}

/** The files in a folder, and when a name was last made or taken away in it, before they were listed: what is not among them and is made later is no older than that. */
export interface Listing {
  readonly files: readonly Found[]
  /** nanoseconds since the epoch, by the clock of the file system; -1 where there is no such folder */
  readonly changed: bigint
}

/** A file that is renamed while its folder is listed may be left out: it is listed until nothing changes meanwhile, or often enough. */
export async function listing(folder: string): Promise<Listing> {
  const failed = new Map<string, NodeJS.ErrnoException>()
  const changed = await changedAt(folder)
  const files = new Map<string, Found>()
  let before = changed
  for (let times = 0; times < LISTED_MOST; times++) {
    const names = (await list(folder, failed)).sort()
    for (const one of await stats(names.map((name) => joined(folder, name)), failed)) if (one.stat.isFile()) files.set(keyOf(identityOf(one.stat)), one)
    const after = await changedAt(folder)
    if (after === before && Date.now() - Number(after / 1_000_000n) > TICK_MS) break
    before = after
  }
  return { files: [...files.values()], changed }
}

/** `changed` of its listing. */
export async function changedAt(folder: string): Promise<bigint> {
  return (await look(folder, new Map()))?.mtimeNs ?? -1n
}

export function folderOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '.' : slash === 0 ? '/' : path.slice(0, slash)
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function joined(folder: string, name: string): string {
  return folder === '' || folder === '/' ? `${folder}${name}` : `${folder}/${name}`
}

/** What one pattern is looked for with. */
interface Walk {
  readonly pattern: Pattern
  readonly paths: Set<string>
  readonly failed: Map<string, NodeJS.ErrnoException>
  readonly circles: string[]
  /** folders by device and inode, each once for each part of the pattern: a link to a folder above would double the work with every part */
  readonly visited: Set<string>
}

async function walk(of: Walk, at: number, base: string): Promise<void> {
  const { pattern, paths, failed } = of
  const segment = pattern.segments[at]!
  const isLast = at === pattern.segments.length - 1
  if (typeof segment === 'string' && segment !== ANY_DEPTH) {
    const path = at === 0 ? (segment === '' ? '/' : fromText(segment)) : segment === '' ? base : joined(base, fromText(segment))
    if (isLast) paths.add(path)
    else await walk(of, at + 1, path)
    return
  }
  const folder = base === '' ? '.' : base
  if (!(await isNew(of, at, folder))) return
  const names = await list(folder, failed)
  if (segment === ANY_DEPTH) {
    // no folder at all, or each that is in here and the pattern again
    if (isLast) for (const name of names) if (!name.startsWith('.')) paths.add(joined(base, name))
    if (!isLast) await walk(of, at + 1, base)
    for (const name of await foldersOf(folder, failed)) if (!name.startsWith('.')) await walk(of, at, joined(base, name))
    return
  }
  const fitting = names.filter((name) => (segment as (name: string) => boolean)(shown(name)))
  if (isLast) for (const name of fitting) paths.add(joined(base, name))
  if (isLast || fitting.length === 0) return
  // a folder is known by its own name rather than by that of a link
  const real = new Set(await foldersOf(folder, failed))
  for (const name of [...fitting.filter((name) => real.has(name)), ...fitting.filter((name) => !real.has(name))]) {
    const path = joined(base, name)
    if ((await look(path, failed))?.isDirectory() === true) await walk(of, at + 1, path)
  }
}

async function isNew({ visited, circles, failed }: Walk, at: number, folder: string): Promise<boolean> {
  const stat = await look(folder, failed)
  if (stat === null) return true
  const key = `${at}:${stat.dev}:${stat.ino}`
  if (visited.has(key)) circles.push(folder)
  return visited.size !== visited.add(key).size
}

function list(folder: string, failed: Map<string, NodeJS.ErrnoException>): Promise<string[]> {
  return new Promise((resolve) => {
    readdir(pathBytes(folder), { encoding: 'latin1' }, (error, names) => {
      note(folder, error, failed)
      resolve(error === null ? names : [])
    })
  })
}

/** Real folders, no links to some: `**` would go round in circles. */
function foldersOf(folder: string, failed: Map<string, NodeJS.ErrnoException>): Promise<string[]> {
  return new Promise((resolve) => {
    readdir(pathBytes(folder), { encoding: 'latin1', withFileTypes: true }, (error, entries) => {
      note(folder, error, failed)
      resolve(error === null ? entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name) : [])
    })
  })
}

function look(path: string, failed: Map<string, NodeJS.ErrnoException>): Promise<BigIntStats | null> {
  return new Promise((resolve) => {
    stat(pathBytes(path), { bigint: true }, (error, found) => {
      note(path, error, failed)
      resolve(error === null ? found : null)
    })
  })
}

/** A path that is not there is no trouble: it is waited for. */
function note(path: string, error: NodeJS.ErrnoException | null, failed: Map<string, NodeJS.ErrnoException>): void {
  if (error !== null && error.code !== 'ENOENT' && error.code !== 'ENOTDIR') failed.set(path, error)
}

/** What is there of these, in their order. */
async function stats(paths: readonly string[], failed: Map<string, NodeJS.ErrnoException>): Promise<Found[]> {
  const found = new Array<BigIntStats | null>(paths.length).fill(null)
  let at = 0
  const worker = async (): Promise<void> => {
    while (at < paths.length) {
      const i = at++
      found[i] = await look(paths[i]!, failed)
    }
  }
  await Promise.all(Array.from({ length: WINDOW }, worker))
  return paths.flatMap((path, i) => (found[i] === null ? [] : [{ path, stat: found[i]! }]))
}
