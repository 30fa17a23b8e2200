/**
 * What differs between the releases of the conntrack tool, and what its refusals mean. Options and texts: conntrack-tools src/conntrack.c from 0.9.6 to 1.4.9.
 */
import { BUFFER_MISSES, isBefore, type Release } from '../../tool-release.js'

export type EventName = 'new' | 'update' | 'destroy'
export const eventNames: readonly EventName[] = ['new', 'update', 'destroy']

const EVENT_WORDS: Readonly<Record<EventName, string>> = { new: 'NEW', update: 'UPDATES', destroy: 'DESTROY' }
export const COMES_FROM = 'the package conntrack (Debian, Ubuntu) or conntrack-tools (Fedora, RHEL, Alpine, Arch)'

/** The three lines of the warning about an overrun; the later two say nothing more. */
export const OVERRUN = 'WARNING: We have hit ENOBUFS! We are losing events.'
const SAID_ANYWAY = [
  'This message means that the current netlink socket buffer size is too small.',
  'Please, check --buffer-size in conntrack(8) manpage.',
  // behind `Bad parameter`, which says what there is to say
  "Try `conntrack -h' or 'conntrack --help' for more information.",
]
const BANNER = /^conntrack v\S+ \(conntrack-tools\): (.*)$/
const SHOWN = /^(\d+) flow (entries|events) ha(?:ve|s) been shown\.$/

/** What cannot be read is taken for a new one. */
export const NEWEST: Release = [99, 0, 0]

/** Does `-b` reach the socket that events are read from? */
export function bufferSizeHelps(release: Release): boolean {
  return isBefore(release, BUFFER_MISSES)
}

/**
 * `-o` for events and rows: `id`, without which two lives of a tuple cannot be told apart. `ktimestamp` (1.0.0): where the kernel keeps times, DESTROY and rows
 * say when the flow began, which names it over restarts and gives its duration; where it does not, nothing is printed, so it costs nothing. `labels` (1.4.2)
 * where there are names for them, else it only warns. `userspace`: who deleted a flow, printed by 1.4.6 when asked and later always. Not `extended`: the
 * addresses tell the family. Not XML: three times the bytes, cut off at 1,024 of them, and since 1.4.9 without who deleted a flow.
 */
function outputs(release: Release, hasLabelNames: boolean): string[] {
  return [
    'id',
    ...(isBefore(release, [1, 0, 0]) ? [] : ['ktimestamp']),
    ...(hasLabelNames && !isBefore(release, [1, 4, 2]) ? ['labels'] : []),
    ...(isBefore(release, [1, 4, 6]) ? [] : ['userspace']),
  ]
}

export interface ToolOptions {
  readonly release: Release
  readonly hasLabelNames: boolean
  readonly events: readonly EventName[]
  /** bytes, 0 as it is */
  readonly bufferBytes: number
}

/** Arguments of `conntrack` for listening. */
export function listenArguments({ release, hasLabelNames, events, bufferBytes }: ToolOptions): string[] {
  const all = eventNames.every((name) => events.includes(name))
  return [
    '-E',
    '-o',
    ['timestamp', ...outputs(release, hasLabelNames)].join(','),
    ...(all ? [] : ['-e', eventNames.filter((name) => events.includes(name)).map((name) => EVENT_WORDS[name]).join(',')]),
    ...(bufferBytes > 0 && bufferSizeHelps(release) ? ['-b', String(bufferBytes)] : []),
  ]
}

/** Arguments for a dump of one family: without `-f` some old releases show IPv4 alone. */
export function dumpArguments({ release, hasLabelNames }: ToolOptions, family: 'ipv4' | 'ipv6'): string[] {
  return ['-L', '-f', family, '-o', outputs(release, hasLabelNames).join(',')]
}

/** Rows that a dump says it has printed; -1 for another line. */
export function rowsShown(line: string): number {
  const shown = SHOWN.exec(BANNER.exec(line)?.[1] ?? '')
  return shown === null || shown[2] !== 'entries' ? -1 : Number(shown[1])
}

/** Lines that say nothing to the operator. */
export function isChatter(line: string): boolean {
  return line === '' || SAID_ANYWAY.includes(line) || SHOWN.test(BANNER.exec(line)?.[1] ?? '') || line.startsWith('NOTICE: ') || line.startsWith('nfct_labelmap_new: ')
}

/** What a refusal means and what mends it; null where the words say no more than that it failed. */
export function refusal(words: string): { readonly kind: 'missing' | 'denied'; readonly mends: string } | null {
  if (/reassociate to namespace|setns|nsenter: cannot open .*Permission denied/.test(words)) {
    return { kind: 'denied', mends: 'to enter another network namespace it needs CAP_SYS_ADMIN (and CAP_NET_ADMIN inside): run as root, or AmbientCapabilities=CAP_SYS_ADMIN CAP_NET_ADMIN in its systemd unit' }
  }
  if (/nsenter: cannot open/.test(words)) return { kind: 'missing', mends: 'the network namespace is not there: ip netns list shows the names' }
  if (/must be root|CAP_NET_ADMIN|Operation not permitted|Can't open (netlink socket|handler)/.test(words) && !/Protocol not supported/.test(words)) {
    return { kind: 'denied', mends: 'it needs CAP_NET_ADMIN in the network namespace: run as root, AmbientCapabilities=CAP_NET_ADMIN in its systemd unit, or setcap cap_net_admin+ep on the conntrack binary' }
  }
  if (/Protocol not supported|protocol not supported|invalid parameters/.test(words)) return { kind: 'missing', mends: 'the kernel has no connection tracking netlink: modprobe nf_conntrack_netlink' }
  return null
}
