/**
 * `table`: the kernel's own numbers, read every second for each network namespace that is watched. Where they stand: /proc/net/stat/nf_conntrack (that of another
 * namespace through one of its processes), else `conntrack -S`; the limit and the number of buckets, which are one for the machine, in /proc/sys.
 *
 * Counters go on while nobody looks, so a sample that is late or missing loses nothing but detail.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { setMaxListeners } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type TableSample, type Time, TIME_OWN } from '../event.js'
import { readStatFile, readToolText, type Stats } from '../formats/stat-columns.js'
import { type BootTime, type Feed, type Input, InputError, type Notice, NOTICES_ONLY } from '../stage.js'
import { chooseNamespace, type FoundNamespace, inodeOf, listNamespaces, ownNamespace, type Places, places } from './namespaces.js'

const EVERY_MS = 1000
/** With `all`, namespaces that have come are looked for so often. */
const SEARCH_MS = 10_000
/** A search takes at most one part of the time in so many: on a machine with very many processes it is made less often. */
const SEARCH_SHARE = 1000
/** More namespaces than this are not watched, and that is said. */
const NAMESPACES_MAX = 1024
/** So many samples wait for a loop that is held up by its outputs; then none are taken, and the next one tells the sum. */
const WAITING_MAX = 4096
const HOLDER_READY_MS = 2000
const HOLDER_LOOK_MS = 5
const HOLD_AGAIN_MS = 60_000
const TOOL_MS = 5000
const TOOL_BYTES_MAX = 1 << 22
/** Where administrators' programs are, which the PATH of others lacks. */
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']
/** So many texts are remembered for not being said again. */
const SAID_MAX = 256
const NOTHING = new Uint8Array(0)

export interface TableOptions {
  readonly name: string
  /** what record ids begin with; no other input may have it */
  readonly random: string
  readonly now: () => Time
  /** of this process; PATH matters */
  readonly env: Readonly<Record<string, string | undefined>>
  /** `self`, `all`, names as in `ip netns` (or of a container, pod or unit: `nameOfCgroup`), inode numbers, paths; `self` where nothing is said */
  readonly netns?: readonly string[]
  readonly everyMs?: number
  /** one sample of each, and the end */
  readonly once?: boolean
  readonly places?: Places
}

/** A feed of one input, whose notices are the samples of all namespaces. */
export function tableFeed(options: TableOptions): Feed {
  const input = new TableInput(options)
  return {
    name: options.name,
    open: async (add) => {
      await input.begin()
      add(input)
    },
    stop: () => input.stop(),
    abort: () => input.abort(),
  }
}

/** A namespace that is watched. */
interface Watched {
  readonly inode: number
  readonly isOwn: boolean
  name: string
  /** its bind mount, '' where it has none */
  mount: string
  pids: readonly number[]
  /** a process of ours in a namespace that has none of its own */
  holder: ChildProcess | null
  /** it could not be had; not before this moment (of performance.now) again */
  holdAfter: number
  toolRuns: boolean
}

/** What reading the file of a namespace gave: its numbers, or there is no such file, no process through which it could be read, no such namespace any more. */
type Reading = Stats | 'no file' | 'no process' | 'gone'

class TableInput implements Input {
  readonly name: string
  readonly chunk = NOTHING
  readonly isDump = false
  readonly isBusy = false
  readonly isLive: boolean
  readonly netns = 0
  readonly netnsName = ''
  readonly ridPrefix: string
  readonly ridBy = 'counter'
  readonly offset = 0
  onIdle = (): void => {}
  readonly #options: TableOptions
  readonly #places: Places
  readonly #wanted: readonly string[]
  readonly #everyMs: number
  readonly #watched = new Map<number, Watched>()
  /** names that were asked for and are not there */
  #missing: readonly string[] = []
  /** something has gone, or been found under another process */
  #searchSoon = false
  readonly #said = new Set<string>()
  readonly #children = new AbortController()
  #searchedAt = -Infinity
  #searchMs = 0
  #limits = { max: -1, buckets: -1 }
  #startedAt = 0
  #ticks = 0
  #timer: NodeJS.Timeout | undefined
  #notices: Notice[] = []
  #waiting: Notice[] = []
  #deliver: ((n: number) => void) | null = null
  #ended = false

  constructor(options: TableOptions) {
    this.#options = options
    this.name = options.name
    this.ridPrefix = options.random
    this.isLive = options.once !== true
    this.#places = options.places ?? places
    this.#wanted = options.netns === undefined || options.netns.length === 0 ? ['self'] : options.netns
    this.#everyMs = options.everyMs ?? EVERY_MS
    // one tool for each namespace may run at a time
    setMaxListeners(0, this.#children.signal)
  }

  get notices(): readonly Notice[] {
    return this.#notices
  }

  /** The first samples. Throws InputError where there is nothing to hope for; with `once`, also where there is nothing now. */
  async begin(): Promise<void> {
    const { proc } = this.#places
    if (inodeOf(`${proc}/self/ns/net`) === 0) throw new InputError('missing', `${proc}/self/ns/net is not there: the kernel's counters need Linux with ${proc} mounted`)
    this.#search()
    if (this.#watched.size === 0) throw new InputError('missing', notFound(this.#missing))
    if (!this.isLive && !this.#isLoaded) throw new InputError('missing', NOT_LOADED)
    this.#startedAt = performance.now()
    this.#readLimits()
    const samples = Promise.all([...this.#watched.values()].map((watched) => this.#sample(watched)))
    if (this.isLive) {
      this.#timer = setTimeout(this.#tick, this.#everyMs)
      return
    }
    await samples
    this.#end()
  }

  next(): Promise<number> {
    this.#notices = this.#waiting
    this.#waiting = []
    if (this.#notices.length > 0) return Promise.resolve(NOTICES_ONLY)
    if (this.#ended) return Promise.resolve(0)
    return new Promise((resolve) => (this.#deliver = resolve))
  }

  receivedMicroseconds(): number {
    const { sec, usec } = this.#options.now()
    return sec * 1e6 + usec
  }

  boot(): BootTime | null {
    return null
  }

  position(): null {
    return null
  }

  /** With one more sample, so that what was dropped until now is in the sums. */
  stop(): void {
    if (this.#ended) return
    this.#readLimits()
    for (const watched of this.#watched.values()) {
      const reading = this.#read(watched)
      if (typeof reading === 'object') this.#give(watched, reading.count, reading)
    }
    this.#end()
  }

  abort(): void {
    this.#waiting = []
    this.#end()
  }

  close(): void {
    this.#end()
  }

  #end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
    this.#children.abort()
    for (const watched of this.#watched.values()) this.#release(watched)
    this.#wake()
  }

  /** At a steady pace: what one tick was late is taken off the next. */
  readonly #tick = (): void => {
    const now = performance.now()
    this.#ticks = Math.max(this.#ticks + 1, Math.floor((now - this.#startedAt) / this.#everyMs))
    this.#timer = setTimeout(this.#tick, this.#startedAt + (this.#ticks + 1) * this.#everyMs - now)
    if (this.#waiting.length >= WAITING_MAX) return
    this.#search()
    this.#readLimits()
    for (const watched of this.#watched.values()) void this.#sample(watched)
  }

  #notify(notice: Notice): void {
    if (this.#ended) return
    this.#waiting.push(notice)
    // those of one tick go together
    setImmediate(() => this.#wake())
  }

  #wake(): void {
    const deliver = this.#deliver
    if (deliver === null || (this.#waiting.length === 0 && !this.#ended)) return
    this.#deliver = null
    this.#notices = this.#waiting
    this.#waiting = []
    deliver(this.#notices.length > 0 ? NOTICES_ONLY : 0)
  }

  #sayOnce(text: string): void {
    if (this.#said.has(text)) return
    if (this.#said.size >= SAID_MAX) this.#said.delete(this.#said.values().next().value!)
    this.#said.add(text)
    this.#notify({ diagnostic: text })
  }

  /** Looks for what is wanted and not watched yet, when that is due. */
  #search(): void {
    const now = performance.now()
    const all = this.#wanted.includes('all')
    const pause = this.#missing.length > 0 || this.#searchSoon ? this.#everyMs : all ? SEARCH_MS : Infinity
    if (now < this.#searchedAt + Math.max(pause * 0.9, this.#searchMs * SEARCH_SHARE)) return
    const own = ownNamespace(this.#places)
    const others = this.#wanted.some((which) => which !== 'self')
    const { found, denied } = others ? listNamespaces(this.#places) : { found: [], denied: 0 }
    const missing: string[] = []
    if (all || this.#wanted.includes('self')) this.#watch({ ...own, path: '', mount: '', pids: [] }, own.inode)
    for (const which of this.#wanted) {
      if (which === 'self' || which === 'all') continue
      const namespace = chooseNamespace(which, found)
      if (namespace === null) missing.push(which)
      else this.#watch(namespace, own.inode)
    }
    if (all) for (const namespace of found) this.#watch(namespace, own.inode)
    this.#missing = missing
    this.#searchSoon = false
    this.#searchedAt = performance.now()
    this.#searchMs = this.#searchedAt - now
    for (const which of missing) this.#sayOnce(`${notFound([which])}${this.isLive ? '; it is waited for' : ''}`)
    if (all && denied > 0) this.#sayOnce('the network namespaces of some processes may not be looked at, so one of theirs may be missing: run this as root or with CAP_SYS_PTRACE')
  }

  #watch(namespace: FoundNamespace, own: number): void {
    const { inode, name, mount, pids } = namespace
    const watched = this.#watched.get(inode)
    if (watched !== undefined) {
      if (name !== '') watched.name = name
      if (mount !== '') watched.mount = mount
      if (pids.length > 0) watched.pids = pids
    } else if (this.#watched.size >= NAMESPACES_MAX) {
      this.#sayOnce(`more than ${NAMESPACES_MAX} network namespaces: the further ones are not watched; name the ones that matter in netns`)
    } else {
      this.#watched.set(inode, { inode, isOwn: inode === own, name, mount, pids, holder: null, holdAfter: 0, toolRuns: false })
    }
  }

  /** It is looked for again: it may live on under a process that is not known. */
  #forget(watched: Watched): void {
    this.#release(watched)
    this.#watched.delete(watched.inode)
    this.#searchSoon = true
  }

  async #sample(watched: Watched): Promise<void> {
    let reading = this.#read(watched)
    if (reading === 'no process') {
      if (!(await this.#hold(watched))) return
      reading = this.#read(watched)
    }
    if (typeof reading === 'object') this.#give(watched, reading.count, reading)
    else if (reading === 'gone') this.#forget(watched)
    else if (!this.#isLoaded) this.#sayOnce(`${NOT_LOADED}; it is waited for`)
    else await this.#sampleByTool(watched)
  }

  /** The numbers of a watched namespace at this moment; null where they cannot be had at once. */
  look(netns: number): TableSample | null {
    const watched = this.#watched.get(netns)
    if (watched === undefined || this.#ended) return null
    const reading = this.#read(watched)
    return typeof reading === 'object' ? this.#sampleOf(watched, reading.count, reading) : null
  }

  #give(watched: Watched, count: number, stats: Stats | null): void {
    this.#notify({ sample: this.#sampleOf(watched, count, stats) })
  }

  #sampleOf(watched: Watched, count: number, stats: Stats | null): TableSample {
    return {
      ...this.#options.now(),
      timeSource: TIME_OWN,
      netns: watched.inode,
      netnsName: watched.name,
      count,
      ...this.#limits,
      total: null,
      cpus: stats?.cpus ?? null,
    }
  }

  #read(watched: Watched): Reading {
    const { proc } = this.#places
    if (watched.isOwn) return readStats(`${proc}/self/net/stat/nf_conntrack`)
    // a process of ours in it would keep alive what someone has deleted
    if (watched.mount !== '' && inodeOf(watched.mount) !== watched.inode) {
      this.#release(watched)
      watched.mount = ''
    }
    const held = watched.holder?.pid
    for (const pid of held === undefined ? watched.pids : [held, ...watched.pids]) {
      // the number may be another process's by now, and the process may end meanwhile
      if (!isIn(pid, watched, proc)) continue
      const reading = readStats(`${proc}/${pid}/net/stat/nf_conntrack`)
      if (typeof reading === 'object' || isIn(pid, watched, proc)) return reading
    }
    watched.pids = []
    return watched.mount === '' ? 'gone' : 'no process'
  }

  /** A namespace without a process of its own gets one of ours, which waits for its stdin and so ends with this program, however that ends. True when it is in. */
  async #hold(watched: Watched): Promise<boolean> {
    if (watched.holder !== null || performance.now() < watched.holdAfter) return false
    let failure = ''
    let words = ''
    let child: ChildProcess | null = null
    try {
      child = spawn(this.#tool('nsenter'), [`--net=${watched.mount}`, '--', this.#tool('cat')], { stdio: ['pipe', 'ignore', 'pipe'], env: this.#options.env as NodeJS.ProcessEnv })
      child.on('error', (error) => (failure ||= error.message))
      child.on('close', () => (failure ||= words.trim() || 'nsenter has ended'))
      // without a process (too many open files) there are no pipes either
      child.stdin?.on('error', () => {})
      child.stderr?.on('data', (text: Buffer) => (words = (words + text.toString()).slice(-1000)))
    } catch (error) {
      failure = (error as Error).message
    }
    watched.holder = child
    for (let waited = 0; waited < HOLDER_READY_MS && failure === ''; waited += HOLDER_LOOK_MS) {
      if (watched.holder !== child) return false
      if (child?.pid !== undefined && isIn(child.pid, watched, this.#places.proc)) return true
      await sleep(HOLDER_LOOK_MS)
    }
    if (watched.holder !== child) return false
    this.#release(watched)
    watched.holdAfter = performance.now() + HOLD_AGAIN_MS
    this.#sayOnce(`cannot look into the network namespace ${watched.name || watched.mount}: ${failure || 'nsenter does not come in'}. ${enterMends(failure)}`)
    return false
  }

  #release(watched: Watched): void {
    watched.holder?.kill('SIGKILL')
    watched.holder = null
  }

  /** Kernels without CONFIG_NF_CONNTRACK_PROCFS tell by netlink alone. */
  async #sampleByTool(watched: Watched): Promise<void> {
    if (watched.toolRuns) return
    const path = watched.isOwn ? '' : watched.mount !== '' ? watched.mount : `${this.#places.proc}/${watched.pids[0]}/ns/net`
    const conntrack = this.#tool('conntrack')
    watched.toolRuns = true
    const { stats, failure } = await (path === '' ? this.#runTool(conntrack, ['-S']) : this.#runTool(this.#tool('nsenter'), [`--net=${path}`, '--', conntrack, '-S']))
    const count = path === '' ? this.#sysctl('nf_conntrack_count') : -1
    watched.toolRuns = false
    if (this.#ended) return
    if (failure !== '') this.#sayOnce(`the samples have no counters: /proc/net/stat/nf_conntrack cannot be read (the kernel has it with CONFIG_NF_CONNTRACK_PROCFS), and conntrack -S failed: ${failure}. ${toolMends(failure)}`)
    this.#give(watched, stats === null || stats.count < 0 ? count : stats.count, stats)
  }

  #runTool(path: string, args: readonly string[]): Promise<{ readonly stats: Stats | null; readonly failure: string }> {
    const { signal } = this.#children
    return new Promise((resolve) => {
      execFile(path, args, { timeout: TOOL_MS, maxBuffer: TOOL_BYTES_MAX, signal, env: this.#options.env as NodeJS.ProcessEnv }, (error, stdout, stderr) => {
        const stats = error === null ? readToolText(stdout) : null
        resolve({ stats, failure: stats !== null ? '' : stderr.trim().split('\n').at(-1) || error?.message || `it printed ${JSON.stringify(stdout.slice(0, 80))}` })
      })
    })
  }

  #tool(name: string): string {
    const folders = [...(this.#options.env['PATH'] ?? '').split(':').filter((folder) => folder !== ''), ...SYSTEM_PATH]
    return folders.map((folder) => `${folder}/${name}`).find((path) => existsSync(path)) ?? name
  }

  get #isLoaded(): boolean {
    return this.#sysctl('nf_conntrack_max') >= 0 || existsSync(`${this.#places.proc}/self/net/stat/nf_conntrack`)
  }

  /** One for the machine, read once for all namespaces. */
  #readLimits(): void {
    this.#limits = { max: this.#sysctl('nf_conntrack_max'), buckets: this.#sysctl('nf_conntrack_buckets') }
  }

  /** A number of /proc/sys/net/netfilter, of this process's namespace; -1 where it is not there. */
  #sysctl(name: string): number {
    try {
      return Number(readFileSync(`${this.#places.proc}/sys/net/netfilter/${name}`, 'latin1'))
    } catch {
      return -1
    }
  }
}

const NOT_LOADED = "the kernel's connection tracking is not loaded: `modprobe nf_conntrack`, or the first firewall rule that needs it, loads it"

function notFound(which: readonly string[]): string {
  const names = which.map((name) => JSON.stringify(name)).join(', ')
  return `there is no network namespace ${names}, or it may not be seen: \`ip netns list\` shows the names, \`lsns -t net\` the numbers (as root)`
}

const enterMends = (failure: string): string =>
  /not permitted|denied/i.test(failure) ? 'It needs CAP_SYS_ADMIN: run it as root, or with AmbientCapabilities=CAP_SYS_ADMIN in its systemd unit' : 'nsenter comes with util-linux'

const toolMends = (failure: string): string =>
  /not permitted|denied|root/i.test(failure) ? 'It needs CAP_NET_ADMIN (for another namespace CAP_SYS_ADMIN too)' : 'The tool is in the package conntrack (Debian) or conntrack-tools (RHEL)'

const isIn = (pid: number, watched: Watched, proc: string): boolean => inodeOf(`${proc}/${pid}/ns/net`) === watched.inode

function readStats(path: string): Stats | 'no file' {
  try {
    return readStatFile(readFileSync(path, 'latin1')) ?? 'no file'
  } catch {
    return 'no file'
  }
}
