/**
 * A client, a router and a server, each in a network namespace of its own, for tests on the real kernel.
 * The router forwards, translates and tracks; traffic goes only between the three. Nothing outside of
 * them changes: sysctls, rules, links and addresses all belong to the namespaces, whose names are
 * unique, and one lock keeps all users on this machine apart (the kernel's event buffers and CPUs
 * are shared). `withLab` always takes everything down again.
 */
import { spawn, spawnSync, type ChildProcess, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { once } from 'node:events'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const PREFIX = 'conntrail-kernel-test-'
const LOCK = `${existsSync('/run/lock') ? '/run/lock' : '/tmp'}/conntrail-kernel-tests.lock`
const env = { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` }

export type Role = 'client' | 'router' | 'server'

/** The plan of addresses. Fixed: the namespaces see no other network. */
export const A = {
  client: '10.66.1.2', client6: 'fd66:1::2',
  vipDnat: '10.66.1.3', vipBoth: '10.66.1.4', // on the router: DNAT to `direct`, DNAT to `server` and SNAT
  router: '10.66.2.1', uplink: '10.66.4.1', // what masquerading gives on the first and on the second way out
  server: '10.66.2.2', direct: '10.66.2.3', server6: 'fd66:2::2', // `direct` is never masqueraded
  far: '10.66.4.2', // behind the second way out
  any: (n: number) => `10.66.3.${n}`, any6: (n: number) => `fd66:3::${n.toString(16)}`, // all answered by the server
}

/** 'run', or why tests on the real kernel cannot run here. */
export const kernelTests: 'run' | (string & {}) = missing() ?? 'run'
/** With this in the environment, what is missing is a failure. */
export const required = process.env.CONNTRAIL_REQUIRE_KERNEL_TESTS === '1'

function missing(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux'
  if (process.getuid?.() !== 0) return 'needs root (network namespaces, conntrack events)'
  const absent = ['ip', 'nft', 'conntrack', 'ping', 'flock'].filter((c) => spawnSync('sh', ['-c', `command -v ${c}`], { env }).status !== 0)
  if (absent.length > 0) return `needs the commands ${absent.join(', ')} (Debian: iproute2 nftables conntrack iputils-ping util-linux)`
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (major < 5 || (major === 5 && minor < 15)) return `needs Linux 5.15 or newer, this is ${release()}`
  if (/v(0|1\.[0-3]|1\.4\.[0-6])\b/.test(spawnSync('conntrack', ['-V'], { env, encoding: 'utf8' }).stdout)) return 'needs conntrack 1.4.7 or newer: older ones do not say who deleted a flow'
  // Root in a container is often not allowed any of this: only trying tells.
  const probe = `${PREFIX}probe-${process.pid}`
  try {
    for (const args of [['netns', 'add', probe], ['netns', 'exec', probe, 'conntrack', '-C'], ['netns', 'exec', probe, 'nft', 'add', 'table', 'inet', 't']]) {
      const r = spawnSync('ip', args, { env, encoding: 'utf8' })
      if (r.status !== 0) return `not permitted here: ip ${args.join(' ')}: ${r.stderr.trim()}`
    }
  } finally {
    spawnSync('ip', ['netns', 'del', probe], { env })
  }
  return undefined
}

/** Runs a command to its end; its stdout, or an error with its stderr. */
export async function run(command: string, args: string[], stdin = ''): Promise<string> {
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'pipe'] })
  let out = '', err = ''
  child.stdout.setEncoding('utf8').on('data', (d: string) => (out += d))
  child.stderr.setEncoding('utf8').on('data', (d: string) => (err += d))
  child.stdin.on('error', () => {}).end(stdin)
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: status ${code}: ${err.trim()}`)
  return out
}

/** Asks until `done` says true. */
export async function until(what: string, seconds: number, done: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !(await done()); await sleep(100)) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
  }
}

const ENDINGS = ['exit', 'disconnect', 'SIGINT', 'SIGTERM', 'SIGHUP']

export class Lab {
  readonly #id = `${PREFIX}${process.pid}-${randomBytes(3).toString('hex')}`
  dir = '' // for files; goes with the lab
  env: NodeJS.ProcessEnv = {} // for what goes on, beside this process's
  readonly #children = new Set<ChildProcess>()
  // The test runner's worker may be told to end, or lose its parent; then it ends as if nobody had listened.
  readonly #atEnd = (why: unknown) => {
    this.#delete()
    for (const e of ENDINGS) process.off(e, this.#atEnd)
    if (typeof why !== 'number') process.kill(process.pid, why === undefined ? 'SIGTERM' : (why as NodeJS.Signals))
  }

  name(role: Role): string { return `${this.#id}-${role}` }

  /** A command inside a namespace, to its end. */
  exec(role: Role, ...command: string[]): Promise<string> { return run('ip', ['netns', 'exec', this.name(role), ...command]) }

  nft(role: Role, rules: string): Promise<string> { return run('ip', ['netns', 'exec', this.name(role), 'nft', '-f', '-'], rules) }

  /** A command that goes on (and its children) until the lab is taken down; its stdin is open until then. */
  start(command: string, args: string[]): ChildProcessWithoutNullStreams {
    const child = spawn(command, args, { env: { ...env, ...this.env }, detached: true }) // a process group of its own, to be killed as one
    child.stdin.on('error', () => {})
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }

  startIn(role: Role, ...command: string[]): ChildProcessWithoutNullStreams {
    const child = this.start('ip', ['netns', 'exec', this.name(role), ...command])
    child.stderr.pipe(process.stderr, { end: false })
    return child
  }

  /** The processes that run in a namespace. */
  async pids(role: Role): Promise<number[]> { return (await run('ip', ['netns', 'pids', this.name(role)])).split('\n').filter(Boolean).map(Number) }

  async up(): Promise<void> {
    for (const e of ENDINGS) process.on(e, this.#atEnd)
    this.dir = mkdtempSync(join(tmpdir(), PREFIX))
    const ip = (line: string) => run('ip', line.split(' '))
    const [c, r, s] = [this.name('client'), this.name('router'), this.name('server')]
    for (const n of [c, r, s]) {
      await ip(`netns add ${n}`)
      await ip(`-n ${n} link set lo up`)
    }
    const veth = async (a: string, x: string, b: string, y: string) => {
      await ip(`link add ${x} netns ${a} type veth peer name ${y} netns ${b}`)
      // No automatic link-local addresses: no solicitations, nothing tentative for a second.
      for (const [n, l] of [[a, x], [b, y]] as const) await ip(`-n ${n} link set ${l} addrgenmode none up`)
    }
    await veth(c, 'c0', r, 'r0')
    await veth(s, 's0', r, 'r1')
    await veth(s, 's1', r, 'r2')
    const addresses: [string, string, string[]][] = [
      [c, 'c0', [`${A.client}/24`, `${A.client6}/64`]], [r, 'r0', ['10.66.1.1/24', `${A.vipDnat}/24`, `${A.vipBoth}/24`, 'fd66:1::1/64', 'fe80::1/64']],
      [r, 'r1', [`${A.router}/24`, 'fd66:2::1/64', 'fe80::1/64']], [s, 's0', [`${A.server}/24`, `${A.direct}/24`, `${A.server6}/64`]],
      [r, 'r2', [`${A.uplink}/24`]], [s, 's1', [`${A.far}/24`]],
    ]
    for (const [n, link, list] of addresses) for (const a of list) await ip(`-n ${n} addr add ${a} dev ${link}${a.includes(':') ? ' nodad' : ''}`)
    // quickack: the acknowledgement of a FIN never waits for (and never travels with) the other side's own FIN.
    for (const [n, gw4, gw6] of [[c, '10.66.1.1', 'fd66:1::1'], [s, A.router, 'fd66:2::1']] as const) {
      await ip(`-n ${n} route add default via ${gw4} quickack 1`)
      await ip(`-n ${n} -6 route add default via ${gw6} quickack 1`)
    }
    await ip(`-n ${r} route add 10.66.3.0/24 via ${A.server}`)
    await ip(`-n ${r} -6 route add fd66:3::/64 via ${A.server6}`)
    await ip(`-n ${s} route add local 10.66.3.0/24 dev lo`)
    await ip(`-n ${s} -6 route add local fd66:3::/64 dev lo`)
    await this.#sysctl('router', {
      'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1,
      'netfilter/nf_conntrack_tcp_loose': 0, // packets after a flow's end begin no new one
      'netfilter/nf_conntrack_tcp_timeout_syn_sent': 3, 'netfilter/nf_conntrack_tcp_timeout_established': 5,
      'netfilter/nf_conntrack_tcp_timeout_time_wait': 1, 'netfilter/nf_conntrack_tcp_timeout_close': 1,
      'netfilter/nf_conntrack_udp_timeout': 5, 'netfilter/nf_conntrack_udp_timeout_stream': 2,
      'netfilter/nf_conntrack_icmp_timeout': 2, 'netfilter/nf_conntrack_icmpv6_timeout': 2,
    })
  }

  async #sysctl(role: Role, values: Record<string, number>): Promise<void> {
    await this.exec(role, 'sh', '-ec', Object.entries(values).map(([k, v]) => `echo ${v} >/proc/sys/net/${k}`).join('\n'))
  }

  async down(): Promise<void> {
    const gone = [...this.#children].map((c) => once(c, 'exit'))
    this.#delete()
    await Promise.all(gone)
    for (const e of ENDINGS) process.off(e, this.#atEnd)
  }

  #delete(): void { // synchronous: also runs when the process is ending
    for (const c of this.#children) kill(-c.pid!)
    for (const role of ['client', 'router', 'server'] as const) removeNamespace(this.name(role))
    if (this.dir) rmSync(this.dir, { recursive: true, force: true })
  }
}

function kill(pid: number): void {
  try { process.kill(pid, 'SIGKILL') } catch { /* just ended */ }
}

/** One of ours, and what still runs inside. */
function removeNamespace(name: string): void {
  const inside = spawnSync('ip', ['netns', 'pids', name], { env, encoding: 'utf8' })
  for (const pid of (inside.stdout ?? '').split('\n').filter(Boolean)) kill(Number(pid))
  spawnSync('ip', ['netns', 'del', name], { env })
}

/** Runs `use` with the three namespaces, alone on this machine. */
export async function withLab<T>(use: (lab: Lab) => Promise<T>): Promise<T> {
  // Held as long as its stdin is open, so also given back when this process is killed.
  const lock = spawn('flock', ['-x', LOCK, 'sh', '-c', 'echo; exec cat'], { env, stdio: ['pipe', 'pipe', 'inherit'] })
  const lab = new Lab()
  try {
    await once(lock.stdout, 'data')
    // With the lock held nobody else is here: what has our prefix is left from a run that was killed.
    for (const n of (await run('ip', ['netns', 'list'])).matchAll(new RegExp(`^${PREFIX}\\S+`, 'gm'))) removeNamespace(n[0])
    for (const d of readdirSync(tmpdir())) if (d.startsWith(PREFIX)) rmSync(join(tmpdir(), d), { recursive: true })
    await lab.up()
    return await use(lab)
  } finally {
    await lab.down()
    lock.stdin.end()
    if (lock.exitCode === null) await once(lock, 'exit')
  }
}
