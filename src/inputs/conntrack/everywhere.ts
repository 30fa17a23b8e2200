/**
 * `netns: all`: a feed for each network namespace of the host, as they come and go. Which there are is looked at every few seconds; what has happened in a new one by
 * then stands in its table, which its feed reads first.
 */
import { type Feed, type Input, InputError } from '../../stage.js'
import { inodeOf, listNamespaces, ownNamespace, type Places, places as usualPlaces } from '../namespaces.js'
import { Saying } from '../saying.js'

const SEARCH_MS = 5000
/** A search takes at most one part of the time in so many. */
const SEARCH_SHARE = 1000
/** Each costs three processes; more than these are not listened in, and that is said. */
const NAMESPACES_MAX = 256
/** One that could not be had is tried again after so long. */
const AGAIN_MS = 60_000

export interface EverywhereOptions {
  readonly name: string
  /** those that are there now, and no others */
  readonly once: boolean
  /** The feed of one: of this process's own (null), or of the one with this name at this path. `number`: how many were made before. */
  readonly make: (namespace: { readonly name: string; readonly path: string } | null, number: number) => Feed
  readonly places?: Places
  readonly searchMs?: number
}

/** `open` throws InputError where none can be listened in. */
export function everywhereFeed(options: EverywhereOptions): Feed {
  return new EverywhereFeed(options)
}

interface Watched {
  readonly feed: Feed
  /** '' of its own namespace */
  readonly path: string
  readonly isMounted: boolean
}

class EverywhereFeed implements Feed {
  readonly name: string
  readonly #options: EverywhereOptions
  readonly #places: Places
  /** by inode number */
  readonly #watched = new Map<number, Watched>()
  /** by inode number: could not be had, not before this moment (of performance.now) again */
  readonly #refused = new Map<number, number>()
  readonly #said = new Set<string>()
  #add: (input: Input) => void = () => {}
  #made = 0
  #timer: NodeJS.Timeout | undefined
  #isStopped = false
  #end: () => void = () => {}

  constructor(options: EverywhereOptions) {
    this.#options = options
    this.#places = options.places ?? usualPlaces
    this.name = options.name
  }

  async open(add: (input: Input) => void): Promise<void> {
    this.#add = add
    const refusals = await this.#search()
    if (this.#watched.size === 0 && !this.#isStopped) throw refusals[0] ?? new InputError('missing', `${this.name}: no network namespace is to be seen: that needs Linux with /proc mounted`)
    for (const { message } of refusals) this.#sayOnce(message)
    if (this.#options.once || this.#isStopped) return
    await new Promise<void>((resolve) => (this.#end = resolve))
  }

  stop(): void {
    this.#stop((feed) => feed.stop())
  }

  abort(): void {
    this.#stop((feed) => feed.abort())
  }

  #stop(how: (feed: Feed) => void): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
    for (const { feed } of this.#watched.values()) how(feed)
    this.#end()
  }

  /** Gives why namespaces could not be had. */
  async #search(): Promise<InputError[]> {
    const began = performance.now()
    this.#leaveGone()
    const own = ownNamespace(this.#places).inode
    const { found, denied } = listNamespaces(this.#places)
    const took = performance.now() - began
    const opening: Promise<InputError | null>[] = []
    if (own !== 0 && !this.#isKnown(own)) opening.push(this.#begin(own, '', '', false))
    for (const { inode, name, path, mount } of found) {
      if (inode === own || this.#isKnown(inode)) continue
      if (this.#watched.size >= NAMESPACES_MAX) {
        this.#sayOnce(`more than ${NAMESPACES_MAX} network namespaces: the further ones are not listened in; name the ones that matter in netns`)
        break
      }
      opening.push(this.#begin(inode, name === '' ? String(inode) : name, path, mount !== ''))
    }
    if (denied > 0) this.#sayOnce('the network namespaces of some processes may not be looked at, so one of theirs may be missing: run this as root or with CAP_SYS_PTRACE')
    const refusals = (await Promise.all(opening)).filter((error) => error !== null)
    if (!this.#options.once && !this.#isStopped) this.#timer = setTimeout(() => void this.#searchAgain(), Math.max(this.#options.searchMs ?? SEARCH_MS, took * SEARCH_SHARE))
    return refusals
  }

  async #searchAgain(): Promise<void> {
    for (const { message } of await this.#search()) this.#sayOnce(message)
  }

  #isKnown(inode: number): boolean {
    return this.#watched.has(inode) || (this.#refused.get(inode) ?? 0) > performance.now()
  }

  /** A feed follows the name of a mount by itself, should that be another namespace's now. */
  #leaveGone(): void {
    for (const [inode, watched] of [...this.#watched]) {
      if (watched.path === '') continue
      const now = inodeOf(watched.path)
      if (now === inode) continue
      this.#watched.delete(inode)
      if (now !== 0 && watched.isMounted && !this.#watched.has(now)) this.#watched.set(now, watched)
      else watched.feed.stop()
    }
  }

  async #begin(inode: number, name: string, path: string, isMounted: boolean): Promise<InputError | null> {
    const feed = this.#options.make(path === '' ? null : { name, path }, this.#made++)
    this.#watched.set(inode, { feed, path, isMounted })
    try {
      await feed.open(this.#add)
      return null
    } catch (error) {
      this.#watched.delete(inode)
      if (!(error instanceof InputError)) throw error
      // it was there a moment ago
      if (path !== '' && inodeOf(path) !== inode) return null
      this.#refused.set(inode, performance.now() + AGAIN_MS)
      return error
    }
  }

  #sayOnce(text: string): void {
    if (this.#said.has(text) || this.#isStopped) return
    this.#said.add(text)
    this.#add(new Saying(this.name, { diagnostic: text }))
  }
}
