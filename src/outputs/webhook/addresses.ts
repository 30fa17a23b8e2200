/**
 * Names to addresses without the thread pool, where a lookup could wait behind hung reads: the hosts file, then the DNS (c-ares). What was found is kept for its
 * time to live, at most a minute; what was used last stays for when nothing answers any more, which is what happens while the host drops new connections.
 */
import { lookup, Resolver } from 'node:dns/promises'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { evenMilliseconds } from '../../clock.js'

export interface Address {
  readonly address: string
  readonly family: 4 | 6
}

export interface AddressBookOptions {
  /** addresses of name servers, with ports where they are not 53; null: as /etc/resolv.conf says */
  readonly servers: readonly string[] | null
  readonly hostsFile: string
  readonly resolvFile: string
  /** milliseconds since the epoch */
  readonly now: () => number
  /** asked when the DNS knows nothing: names of other sources that only the C library knows */
  readonly last: ((name: string) => Promise<readonly Address[]>) | null
}

const TTL_MS_MAX = 60_000
const TTL_MS_MIN = 1000
const QUERY_MS = 2000
const TRIES = 2

const LOOPBACK: readonly Address[] = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
]

interface Found {
  readonly addresses: readonly Address[]
  readonly ttlMs: number
}

export class AddressBook {
  readonly #options: AddressBookOptions
  readonly #resolver = new Resolver({ timeout: QUERY_MS, tries: TRIES })
  readonly #known = new Map<string, { readonly addresses: readonly Address[]; readonly until: number }>()
  readonly #good = new Map<string, Address>()

  constructor(options: Partial<AddressBookOptions> = {}) {
    this.#options = { servers: null, hostsFile: '/etc/hosts', resolvFile: '/etc/resolv.conf', now: evenMilliseconds, last: byLibrary, ...options }
    if (this.#options.servers !== null) this.#resolver.setServers(this.#options.servers)
  }

  /** At least one. `fault` says why they are not fresh, '' when they are. Throws when the name has never been resolved and cannot be now. */
  async resolve(name: string): Promise<{ readonly addresses: readonly Address[]; readonly fault: string }> {
    const literal = isIP(name.replace(/^\[|\]$/g, ''))
    if (literal !== 0) return { addresses: [{ address: name.replace(/^\[|\]$/g, ''), family: literal as 4 | 6 }], fault: '' }
    const known = this.#known.get(name)
    if (known !== undefined && known.until > this.#options.now()) return { addresses: this.#bestFirst(name, known.addresses), fault: '' }
    try {
      const found = await this.#find(name)
      this.#known.set(name, { addresses: found.addresses, until: this.#options.now() + Math.min(TTL_MS_MAX, Math.max(TTL_MS_MIN, found.ttlMs)) })
      return { addresses: this.#bestFirst(name, found.addresses), fault: '' }
    } catch (error) {
      const good = this.#good.get(name)
      const fault = `${name} cannot be resolved (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`
      if (good === undefined && known === undefined) throw new Error(`${fault}: is the name right, and does a name server answer?`, { cause: error })
      return { addresses: good === undefined ? known!.addresses : [good], fault }
    }
  }

  /** A connection to it was made. */
  worked(name: string, address: string): void {
    const family = isIP(address)
    if (family !== 0) this.#good.set(name, { address, family: family as 4 | 6 })
  }

  /** None was: the next time is asked anew. */
  failed(name: string): void {
    this.#known.delete(name)
  }

  #bestFirst(name: string, addresses: readonly Address[]): readonly Address[] {
    const good = this.#good.get(name)
    const isThere = addresses.some(({ address }) => address === good?.address)
    return good === undefined || !isThere ? addresses : [good, ...addresses.filter(({ address }) => address !== good.address)]
  }

  async #find(name: string): Promise<Found> {
    const written = hostsLines(readText(this.#options.hostsFile), name)
    if (written.length > 0) return { addresses: written, ttlMs: TTL_MS_MAX }
    // RFC 6761 section 6.3
    if (name === 'localhost' || name.endsWith('.localhost')) return { addresses: LOOPBACK, ttlMs: TTL_MS_MAX }
    let fault: unknown
    for (const candidate of candidates(name, readText(this.#options.resolvFile))) {
      try {
        return await this.#query(candidate)
      } catch (error) {
        fault ??= error
      }
    }
    try {
      const addresses = (await this.#options.last?.(name)) ?? []
      if (addresses.length > 0) return { addresses, ttlMs: TTL_MS_MAX }
    } catch {
      // what the DNS said is told
    }
    throw fault
  }

  /** Both families; throws when neither has an address. */
  async #query(name: string): Promise<Found> {
    const [four, six] = await Promise.allSettled([this.#resolver.resolve4(name, { ttl: true }), this.#resolver.resolve6(name, { ttl: true })])
    const found = [
      ...(four.status === 'fulfilled' ? four.value.map(({ address, ttl }) => ({ address, ttl, family: 4 as const })) : []),
      ...(six.status === 'fulfilled' ? six.value.map(({ address, ttl }) => ({ address, ttl, family: 6 as const })) : []),
    ]
    if (found.length === 0) throw four.status === 'rejected' ? four.reason : new Error('no address')
    return { addresses: found.map(({ address, family }) => ({ address, family })), ttlMs: Math.min(...found.map(({ ttl }) => ttl)) * 1000 }
  }
}

async function byLibrary(name: string): Promise<readonly Address[]> {
  return (await lookup(name, { all: true })) as Address[]
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function hostsLines(text: string, name: string): Address[] {
  return text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim().split(/\s+/))
    .filter(([, ...names]) => names.some((given) => given.toLowerCase() === name.toLowerCase()))
    .flatMap(([address]) => (isIP(address!) === 0 ? [] : [{ address: address!, family: isIP(address!) as 4 | 6 }]))
}

/** resolv.conf(5): a name with fewer dots than `ndots` is tried with the search domains first, another one last. */
function candidates(name: string, resolv: string): string[] {
  if (name.endsWith('.')) return [name.slice(0, -1)]
  const domains = [...resolv.matchAll(/^\s*(?:search|domain)\s+(.+)$/gm)].at(-1)?.[1]?.trim().split(/\s+/) ?? []
  const ndots = Number(/^\s*options\s+.*\bndots:(\d+)/m.exec(resolv)?.[1] ?? 1)
  const extended = domains.filter((domain) => domain !== '.').map((domain) => `${name}.${domain.replace(/\.$/, '')}`)
  return name.split('.').length - 1 >= ndots ? [name, ...extended] : [...extended, name]
}
