/**
 * The socket on which a child listens for connection tracking events, as /proc/net/netlink shows it: `Eth` 12, its multicast groups, bytes that wait in it
 * (`Rmem`), and how many events the kernel has dropped because it was full (`Drops`, exact).
 *
 * The tool has two such sockets, and the listening one has a random port id (`Pid`), so the socket is known by its inode among the child's descriptors.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

const NETLINK_NETFILTER = '12'

export interface ListeningSocket {
  readonly inode: string
  /** bytes of kernel memory that events waiting to be read take */
  readonly queued: number
  readonly drops: number
}

/** All listening sockets that the process's namespace shows; none where it cannot be read. */
export function listeningSockets(proc: string, pid: number | 'self'): ListeningSocket[] {
  const found: ListeningSocket[] = []
  let header: string[] = []
  for (const line of textOf(`${proc}/${pid}/net/netlink`).split('\n')) {
    const words = line.trim().split(/\s+/)
    if (header.length === 0) {
      header = words
      continue
    }
    const value = (name: string): string => words[header.indexOf(name)] ?? ''
    if (value('Eth') !== NETLINK_NETFILTER || Number.parseInt(value('Groups'), 16) === 0) continue
    found.push({ inode: value('Inode'), queued: Number(value('Rmem')), drops: Number(value('Drops')) })
  }
  return found
}

/**
 * The listening socket of this process; null when it has none (yet). Where its descriptors may not be seen (a program with file capabilities, and this program is
 * not root) it is the one that was not there before.
 */
export function listeningSocketOf(proc: string, pid: number, before: ReadonlySet<string>): ListeningSocket | null {
  const inodes = socketInodes(proc, pid)
  const fits = listeningSockets(proc, pid).filter(({ inode }) => (inodes === null ? !before.has(inode) : inodes.has(inode)))
  return fits.length === 1 || (inodes !== null && fits.length > 1) ? fits[0]! : null
}

/** It can be seen that the process does not listen: its namespace shows its sockets, and none is new. */
export function isSeenDeaf(proc: string, pid: number, before: ReadonlySet<string>): boolean {
  return textOf(`${proc}/${pid}/net/netlink`) !== '' && listeningSockets(proc, pid).every(({ inode }) => before.has(inode))
}

/** Inodes of the process's sockets; null where they may not be seen. */
function socketInodes(proc: string, pid: number): Set<string> | null {
  const inodes = new Set<string>()
  try {
    for (const fd of readdirSync(`${proc}/${pid}/fd`)) {
      try {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`${proc}/${pid}/fd/${fd}`))?.[1]
        if (inode !== undefined) inodes.add(inode)
      } catch {
        // closed meanwhile
      }
    }
  } catch {
    return null
  }
  return inodes
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
