/**
 * What the conntrack tool says about itself, when its stderr is in the same pipe (`2>&1`): banners and sums are passed over, an overrun becomes a gap, and a
 * refusal becomes a word to the operator. Texts: conntrack-tools src/conntrack.c, libmnl.
 */
import { page } from '../event.js'
import { RECORD_LINE_BYTES_MAX } from '../kernel.js'
import { IGNORED, type LineFormat, NOTE } from '../stage.js'
import { CR, isAt, latin1, utf8 } from './scan.js'

const OVERRUN = 'WARNING: We have hit ENOBUFS! We are losing events.'
/** The two further lines of that warning. */
const OVERRUN_REST = ['This message means that the current netlink socket buffer size is too small.', 'Please, check --buffer-size in conntrack(8) manpage.']
const BANNER = /^conntrack v\S+ \(conntrack-tools\): (.*)$/
const SHOWN = /^(\d+) flow entries ha(?:ve|s) been shown\.$/
const STARTS = ['conntrack v', 'NOTICE: ', 'WARNING: We have hit ENOBUFS', 'mnl_socket_', 'Operation failed: ', 'nfct_labelmap_new: ', ...OVERRUN_REST]

/** What mends a refusal, by what the tool says. */
const mends: readonly (readonly [RegExp, string])[] = [
  [
    /must be root|CAP_NET_ADMIN|Operation not permitted|Can't open (netlink socket|handler)/,
    'conntrack was not permitted: it needs CAP_NET_ADMIN in the network namespace; run it as root, or grant it with setcap cap_net_admin+ep on the conntrack binary, or AmbientCapabilities=CAP_NET_ADMIN in its systemd unit',
  ],
  [/Protocol not supported|invalid parameters/, 'the kernel has no connection tracking netlink: load it with modprobe nf_conntrack_netlink'],
  [/No buffer space available|failed to received netlink event/, 'conntrack has ended because it lost events: start it again, and raise net.core.rmem_default so that its socket holds more'],
  [/^nfct_labelmap_new: /, 'conntrack shows no labels without /etc/xtables/connlabel.conf'],
  [/^(Operation failed|mnl_socket_)/, 'conntrack failed'],
]

const TORN = /^(.+?)conntrack v\S+ \(conntrack-tools\): (\d+) [a-z ]+ ha(?:ve|s) been shown\.\r?$/s

/** How a row of `-L` begins; a torn one may be cut off within that. */
const ROW_STARTS = ['', 'ipv4     2 ', 'ipv6     10 '].flatMap((layer3) =>
  ['tcp      6 ', 'udp      17 ', 'udplite  136 ', 'sctp     132 ', 'dccp     33 ', 'gre      47 ', 'icmp     1 ', 'icmpv6   58 ', 'unknown  '].map((layer4) => layer3 + layer4),
)
ROW_STARTS.push('-A -', '<flow><meta ')

/**
 * The tool's rows go through a buffer of 4,096 bytes and its closing sum does not, so with `2>&1` the sum lands in the middle of a row:
 * `… dport=400conntrack v1.4.7 (conntrack-tools): 29 flow entries have been shown.` LF `57 [UNREPLIED] src=…`. Gives how many bytes of the row stand before it, and
 * the number; null for every other line.
 */
export function tornRow(at: number, lineEnd: number): { readonly headBytes: number; readonly shown: number } | null {
  if (lineEnd - at > RECORD_LINE_BYTES_MAX || page[lineEnd - (page[lineEnd - 1] === CR ? 2 : 1)] !== 46) return null
  const found = TORN.exec(latin1(at, lineEnd))
  if (found === null || !ROW_STARTS.some((start) => found[1]!.startsWith(start) || start.startsWith(found[1]!))) return null
  return { headBytes: found[1]!.length, shown: Number(found[2]) }
}

export const conntrackNotice: LineFormat = {
  name: 'conntrack-notice',
  mayBeIndented: true,

  begins(at) {
    const c = page[at]
    // c, N, W, m, n, O, T, P: a look at one byte for every other line of the stream
    return (c === 99 || c === 78 || c === 87 || c === 109 || c === 110 || c === 79 || c === 84 || c === 80) && STARTS.some((text) => isAt(at, text))
  },

  read(at, lineEnd, _event, context) {
    const text = utf8(at, Math.min(lineEnd, at + 1024)).trimEnd()
    if (text === OVERRUN) {
      context.gap = {
        sec: context.receivedSec,
        usec: context.receivedUsec,
        timeSource: 2,
        cause: 'netlink_overrun',
        count: -1,
        atLeast: 1,
        from: null,
        to: null,
      }
      return NOTE
    }
    const said = BANNER.exec(text)?.[1] ?? text
    const shown = SHOWN.exec(said)
    if (shown !== null) context.dumpEnd = Number(shown[1])
    const mend = mends.find(([pattern]) => pattern.test(said))
    if (mend !== undefined) context.diagnostic = `${mend[1]} (it said: ${said})`
    return IGNORED
  },
}
