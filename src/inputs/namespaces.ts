/**
 * Network namespaces of this host: which there are, what they are called, and the inode number that the kernel prints for them.
 *
 * A namespace is known by a bind mount (`ip netns add`, container engines) or by the processes in it; one that has neither cannot be found, nor can anyone but root
 * look into the processes of others. Numbers: include/uapi/linux/nsfs.h (enum init_ns_ino), include/linux/proc_ns.h.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'

/**
 * The first network namespace of a machine, on kernels that have NET_NS_INIT_INO (since 2025; 6.18 does). On others its number was given out at boot like all
 * others, from 4,026,531,840 upwards (that very one on 5.15, 4026531956 and the like before), so nothing else ever has this one.
 */
const INITIAL_INODE = 0xeffffff9
/** The first process namespace, since 3.8. */
const INITIAL_PID_INODE = 0xeffffffc
/** Of each namespace so many processes are remembered: the oldest, which stay the longest. */
const PIDS_KEPT = 4
/** Names that machines give: a container network plugin's, and docker's sandbox keys. */
const MADE_UP = /^(cni-[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12}|default)$/
const DECIMAL = /^[1-9]\d{0,9}$/

/** Where the kernel shows its processes, and where namespaces are mounted. */
export interface Places {
  readonly proc: string
  readonly mounts: readonly string[]
}

export const places: Places = { proc: '/proc', mounts: ['/run/netns', '/run/docker/netns'] }

export interface Namespace {
  readonly inode: number
  /** of its mount, else its container's, pod's or unit's (see `nameOfCgroup`), else '' */
  readonly name: string
  /** what `nsenter --net=` takes: its mount, else /proc/PID/ns/net */
  readonly path: string
}

export interface FoundNamespace extends Namespace {
  /** its bind mount, '' where it has none */
  readonly mount: string
  /** some of its processes, by ascending number */
  readonly pids: readonly number[]
}

/** Inode number of a namespace's file, 0 where there is none or it may not be looked at (`onDenied`). */
export function inodeOf(path: string, onDenied: () => void = () => {}): number {
  try {
    return statSync(path).ino
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'EPERM') onDenied()
    return 0
  }
}

/** The namespace that this program runs in. `inode` 0: no /proc here. */
export function ownNamespace(where: Places = places): { readonly inode: number; readonly name: string } {
  const inode = inodeOf(`${where.proc}/self/ns/net`)
  const mounted = mountNames(where).get(inode)
  if (mounted !== undefined && !MADE_UP.test(basename(mounted))) return { inode, name: basename(mounted) }
  return { inode, name: inode === 0 || inode === firstNamespace(where) ? '' : nameOfProcess('self', where) }
}

/**
 * The one that is meant by `self`, a name, an inode number (as in the kernel's `in netns 4026532246`) or a path (/run/netns/NAME, /proc/PID/ns/net); null where
 * there is none, or none that may be seen.
 */
export function findNamespace(which: string | number, where: Places = places): Namespace | null {
  if (which === 'self') {
    const own = ownNamespace(where)
    return own.inode === 0 ? null : { ...own, path: `${where.proc}/self/ns/net` }
  }
  return chooseNamespace(String(which), listNamespaces(where).found)
}

/** Of these the one that a name, a number or a path means. A path that none of them has is looked at itself. */
export function chooseNamespace(which: string, found: readonly FoundNamespace[]): FoundNamespace | null {
  if (which.startsWith('/')) {
    const inode = inodeOf(which)
    if (inode === 0) return null
    return found.find((namespace) => namespace.inode === inode) ?? { inode, name: '', path: which, mount: which, pids: [] }
  }
  // a name of digits is a name first
  return (
    found.find((namespace) => namespace.name === which || (namespace.mount !== '' && basename(namespace.mount) === which)) ??
    (DECIMAL.test(which) ? found.find((namespace) => namespace.inode === Number(which)) : undefined) ??
    null
  )
}

/**
 * The number of the machine's first network namespace, the one whose table-full lines name none since 6.18; 0 where it cannot be known: seen from a container on an
 * older kernel, or without the right to look at process 1.
 */
export function initialNamespaceInode(where: Places = places): number {
  if (inodeOf(`${where.proc}/self/ns/net`) === INITIAL_INODE) return INITIAL_INODE
  // from inside another process namespace, process 1 is the container's; 2 is the kernel's own
  return inodeOf(`${where.proc}/self/ns/pid`) === INITIAL_PID_INODE ? inodeOf(`${where.proc}/1/ns/net`) || inodeOf(`${where.proc}/2/ns/net`) : 0
}

/** All that can be found, in the order of their numbers, and how many processes could not be looked at. 4 µs a process. */
export function listNamespaces(where: Places = places): { readonly found: readonly FoundNamespace[]; readonly denied: number } {
  const mounts = mountNames(where)
  const pids = new Map<number, number[]>()
  let denied = 0
  for (const entry of listed(where.proc)) {
    if (!DECIMAL.test(entry)) continue
    const inode = inodeOf(`${where.proc}/${entry}/ns/net`, () => denied++)
    if (inode === 0) continue
    const known = pids.get(inode)
    if (known === undefined) pids.set(inode, [Number(entry)])
    else if (known.length < PIDS_KEPT) known.push(Number(entry))
  }
  const first = firstNamespace(where)
  const found = [...new Set([...mounts.keys(), ...pids.keys()])]
    .sort((a, b) => a - b)
    .map((inode): FoundNamespace => {
      const mount = mounts.get(inode) ?? ''
      const inside = pids.get(inode) ?? []
      return { inode, name: nameOf(mount, inode === first ? [] : inside, where), path: mount !== '' ? mount : `${where.proc}/${inside[0]}/ns/net`, mount, pids: inside }
    })
  return { found, denied }
}

/** Mounts by the inode number of what is mounted. A name that was left behind without a mount is an ordinary file, on another device. */
function mountNames(where: Places): Map<number, string> {
  const names = new Map<number, string>()
  let device: number
  try {
    device = statSync(`${where.proc}/self/ns/net`).dev
  } catch {
    return names
  }
  for (const folder of where.mounts) {
    for (const entry of listed(folder)) {
      try {
        const { dev, ino } = statSync(join(folder, entry))
        if (dev === device && !names.has(ino)) names.set(ino, join(folder, entry))
      } catch {
        // unmounted since it was listed
      }
    }
  }
  return names
}

/** The namespace of this machine's or container's first process, which is no service's own. */
const firstNamespace = (where: Places): number => inodeOf(`${where.proc}/1/ns/net`) || initialNamespaceInode(where)

function nameOf(mount: string, pids: readonly number[], where: Places): string {
  const name = basename(mount)
  if (name !== '' && !MADE_UP.test(name)) return name
  for (const pid of pids) {
    const inside = nameOfProcess(String(pid), where)
    if (inside !== '') return inside
  }
  return name
}

function nameOfProcess(pid: string, where: Places): string {
  try {
    return nameOfCgroup(readFileSync(`${where.proc}/${pid}/cgroup`, 'utf8'))
  } catch {
    return ''
  }
}

/** Engines by how they call a container's group: `docker-ID.scope` under systemd, `/docker/ID` without. */
const engines: Readonly<Record<string, string>> = { docker: 'docker', libpod: 'podman', crio: 'crio', 'cri-containerd': 'containerd', nerdctl: 'nerdctl' }
const POD = /(?:^|[-/])pod([0-9a-f]{8}[-_][0-9a-f_-]{27})(?:\.slice)?(?:\/|$)/
const CONTAINER = /(?:^|\/)(docker|libpod|crio|cri-containerd|nerdctl)[-/]([0-9a-f]{64})(?:\.scope)?(?:\/|$)/
const LXC = /(?:^|\/)lxc(?:\.payload)?[./]([^/]+)/
const MACHINE = /(?:^|\/)machine-([^/]+)\.scope(?:\/|$)/
const UNIT = /(?:^|\/)([^/]+\.(?:service|scope))$/

/**
 * Who a process belongs to, from the text of /proc/PID/cgroup: `pod:UID`, `docker:0123456789ab` (podman, crio, containerd, nerdctl), `lxc:NAME`, `machine:NAME`, or a
 * systemd unit such as `squid.service`; '' where it says nothing.
 */
export function nameOfCgroup(text: string): string {
  const lines = text.split('\n').map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
  const path = lines.find((line) => line?.[1] === '' && line[2] !== '/')?.[2] ?? lines.find((line) => line?.[1] === 'name=systemd')?.[2] ?? ''
  const pod = POD.exec(path)
  if (pod !== null) return `pod:${pod[1]!.replaceAll('_', '-')}`
  const container = CONTAINER.exec(path)
  if (container !== null) return `${engines[container[1]!]}:${container[2]!.slice(0, 12)}`
  const lxc = LXC.exec(path)
  if (lxc !== null) return `lxc:${lxc[1]}`
  const machine = MACHINE.exec(path)
  return machine !== null ? `machine:${unescape(machine[1]!)}` : unescape(UNIT.exec(path)?.[1] ?? '')
}

/** systemd writes `-` and odd characters of a name as `\x2d`. */
const unescape = (name: string): string => name.replaceAll(/\\x([0-9a-f]{2})/g, (_all, hex: string) => String.fromCharCode(parseInt(hex, 16)))

function listed(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
