/**
 * What the kernel's log says about connection tracking, and what loggers say when they lost some of it, as data: one entry for each spelling, with the kernels that
 * print it and samples that must and must not match. Texts are bare: without time, priority or the name of a program in front.
 */
import type { KernelKind } from './event.js'

export interface KernelMessage {
  readonly kind: KernelKind
  /** every match contains it: lines with none of these are passed over at once */
  readonly sign: string
  /** Of the whole text, without blanks at its end. Groups: netns, count, buckets, max; packet, and reason or prefix before it. */
  readonly pattern: RegExp
  /** file of the kernel's source */
  readonly source: string
  readonly kernels: string
  readonly matches: readonly string[]
  readonly refuses: readonly string[]
}

/** How the packet begins and what it must have; anything may stand before it. Interface names are short, so a long line costs no more than its length. */
const PACKET = '(?<packet>IN=\\S{0,64} OUT=\\S{0,64} (?:.* )?SRC=\\S+ DST=\\S+ .*\\bPROTO=\\S.*)$'

const TCP_PACKET =
  'IN=r0 OUT= MAC=82:65:bb:43:b4:ba:26:fa:c8:95:be:c1:08:00 SRC=10.10.1.2 DST=10.10.2.2 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=13622 DF PROTO=TCP SPT=7777 DPT=80 WINDOW=1000 RES=0x00 RST SYN URGP=0'

/** The first that fits decides. */
export const kernelMessages: readonly KernelMessage[] = [
  {
    kind: 'table_full',
    sign: 'table full',
    pattern: /^(?:(?:CT|VPS|VE):? ?[\w-]{1,40}:? )?(?:(?:ip|nf)_conntrack: ){1,2}(?:(?:CT|VPS|VE):? ?[\w-]{1,40}:? )?table full(?: in netns (?<netns>\d+))?, dropping packets?\.?$/,
    source: 'net/netfilter/nf_conntrack_core.c, net/ipv4/netfilter/ip_conntrack_core.c',
    kernels: '2.4 on; full stop to about 3.5, doubled prefix from between 4.5 and 4.9, the namespace from 6.18 (not of the initial one); `CT <id>:`, `VPS <id>` of OpenVZ, before or behind the prefix',
    matches: [
      'ip_conntrack: table full, dropping packet.',
      'nf_conntrack: table full, dropping packet.',
      'nf_conntrack: table full, dropping packet',
      'nf_conntrack: nf_conntrack: table full, dropping packet',
      'nf_conntrack: nf_conntrack: table full in netns 4026532246, dropping packet',
      'CT 101: nf_conntrack: table full, dropping packet',
      'CT: 101: nf_conntrack: table full, dropping packet',
      'ip_conntrack: VPS 101 table full, dropping packet.',
      'nf_conntrack: CT 5b8f1c9e-2d4a-4e2b-9d0e-0c1b2a3d4e5f: table full, dropping packet',
      'nf_conntrack: VE 101: table full, dropping packet.',
    ],
    refuses: [
      'nf_conntrack: table full',
      'table full, dropping packet',
      'nf_conntrack: expectation table full',
      'sshd[1]: nf_conntrack: table full, dropping packet',
      'Modules linked in: nf_conntrack nf_defrag_ipv4',
      'alert: nf_conntrack: table full, dropping packet, said the log',
    ],
  },
  {
    kind: 'table_full',
    sign: 'maximum limit of',
    pattern: /^(?:ip|nf)_conntrack: maximum limit of \d+ entries exceeded\.?$/,
    source: 'net/ipv4/netfilter/ip_conntrack_core.c',
    kernels: '2.3 to early 2.4',
    matches: ['ip_conntrack: maximum limit of 8184 entries exceeded'],
    refuses: ['maximum limit of 8184 entries exceeded', 'ip_conntrack: maximum limit of entries exceeded'],
  },
  {
    kind: 'expect_table_full',
    sign: 'expectation table full',
    pattern: /^(?:nf_conntrack: ){1,2}expectation table full\.?$/,
    source: 'net/netfilter/nf_conntrack_expect.c',
    kernels: '2.6.24 on',
    matches: ['nf_conntrack: expectation table full'],
    refuses: ['expectation table full', 'nf_conntrack: expectation table full of them'],
  },
  {
    kind: 'expect_table_full',
    sign: 'max number of expected connections',
    pattern: /^ip_conntrack: max number of expected connections \d+ of \S+ reached for \S+->\S+$/,
    source: 'net/ipv4/netfilter/ip_conntrack_core.c',
    kernels: '2.4',
    matches: ['ip_conntrack: max number of expected connections 1 of ftp reached for 10.0.0.1->10.0.0.2'],
    refuses: ['ip_conntrack: max number of expected connections reached'],
  },
  {
    kind: 'suppressed',
    sign: 'callbacks suppressed',
    pattern: /^(?:net_ratelimit|__ratelimit): (?<count>\d+) callbacks suppressed$/,
    source: 'lib/ratelimit.c, with the name of the function that owns the limiter of the network: net/core/utils.c',
    kernels: '__ratelimit 2.6.27 to 2.6.32, net_ratelimit 2.6.33 on',
    matches: ['net_ratelimit: 5531 callbacks suppressed', '__ratelimit: 12 callbacks suppressed'],
    refuses: ['nft_log_ratelimit: 3 callbacks suppressed', 'audit_printk_skb: 30 callbacks suppressed', 'net_ratelimit: callbacks suppressed', 'br_handle_frame: 7 callbacks suppressed'],
  },
  {
    kind: 'suppressed',
    sign: 'messages suppressed',
    pattern: /^(?:NET|printk): (?<count>\d+) messages suppressed\.?$/,
    source: 'net/core/utils.c, kernel/printk.c',
    kernels: 'NET 2.4 to early 2.6; printk 2.6 to 2.6.26, shared with other subsystems',
    matches: ['NET: 31 messages suppressed.', 'printk: 7 messages suppressed.'],
    refuses: ['systemd: 7 output lines suppressed due to ratelimiting', 'audit: 5 messages suppressed', 'journald: NET: 31 messages suppressed.'],
  },
  {
    kind: 'helper',
    sign: 'dropping packet: ',
    pattern: new RegExp(`^nf_ct_\\w+: dropping packet: (?<reason>.*?) *${PACKET}`),
    source: 'net/netfilter/nf_conntrack_helper.c: nf_ct_helper_log()',
    kernels: '3.9 on',
    matches: [`nf_ct_ftp: dropping packet: cannot add expectation ${TCP_PACKET}`, `nf_ct_sip: dropping packet: all ports in use for SDP media ${TCP_PACKET}`],
    refuses: ['nf_ct_ftp: dropping packet: cannot add expectation', `x nf_ct_ftp: dropping packet: y ${TCP_PACKET}`],
  },
  {
    kind: 'helper',
    sign: 'packet dropped',
    pattern: /^nf_ct_(?:h245|q931|ras): packet dropped$/,
    source: 'net/netfilter/nf_conntrack_h323_main.c',
    kernels: '2.6',
    matches: ['nf_ct_h245: packet dropped', 'nf_ct_ras: packet dropped'],
    refuses: ['nf_ct_tcp: packet dropped', 'packet dropped'],
  },
  {
    kind: 'helper',
    sign: 'automatic helper assignment',
    pattern: /^(?:nf_conntrack: ){1,2}(?:default )?automatic helper assignment (?:is deprecated|has been turned off)\b/,
    source: 'net/netfilter/nf_conntrack_helper.c',
    kernels: 'deprecated 3.5 to 4.6, turned off 4.7 to 5.19',
    matches: [
      'nf_conntrack: automatic helper assignment is deprecated and it will be removed soon. Use the iptables CT target to attach helpers instead.',
      'nf_conntrack: default automatic helper assignment has been turned off for security reasons and CT-based  firewall rule not found. Use the iptables CT target to attach helpers instead.',
    ],
    refuses: ['automatic helper assignment is deprecated', 'nf_conntrack: automatic helper assignment'],
  },
  {
    kind: 'helper',
    sign: 'Forged DCC command',
    pattern: /^(?:\w+: )?Forged DCC command from \S+: \S+:\d+$/,
    source: 'net/netfilter/nf_conntrack_irc.c',
    kernels: 'all',
    matches: ['Forged DCC command from 10.0.0.1: 192.0.2.1:6667'],
    refuses: ['Forged DCC command', 'somebody said: Forged DCC command from 10.0.0.1: 192.0.2.1:6667 again'],
  },
  {
    kind: 'helper',
    sign: 'amanda_help: skblen',
    pattern: /^(?:\w+: )?amanda_help: skblen = \d+$/,
    source: 'net/netfilter/nf_conntrack_amanda.c',
    kernels: 'all',
    matches: ['amanda_help: skblen = 1400'],
    refuses: ['amanda_help: skblen', 'amanda_help: skblen = many'],
  },
  {
    kind: 'invalid_packet',
    sign: '_ct_',
    pattern: new RegExp(`^(?:nf|ip)_ct_(?:proto_\\d+|tcp|udp|udplite|icmp|icmpv6|sctp|dccp|gre): (?:nf_ct_(?:sctp|dccp): )?(?<reason>.*?) *${PACKET}`),
    source: 'net/netfilter/nf_conntrack_proto.c: nf_ct_l4proto_log_invalid(), nf_conntrack_proto_*.c',
    kernels: 'ip_ct_ 2.6, nf_ct_<name> 2.6.15 to 4.18, nf_ct_proto_<number> 4.19 on; no interfaces to 5.10',
    matches: [
      `nf_ct_proto_6: bad checksum ${TCP_PACKET}`,
      'nf_ct_proto_136: checksum missing IN=r0 OUT= MAC=82:65:bb:43:b4:ba:26:fa:c8:95:be:c1:08:00 SRC=10.10.1.2 DST=10.10.2.2 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=13754 DF PROTO=UDPLITE SPT=5555 DPT=6666 LEN=8',
      'nf_ct_tcp: invalid state IN= OUT= SRC=10.0.0.5 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=1025 DPT=80 SEQ=1 ACK=1 WINDOW=0 RES=0x00 RST URGP=0',
      'ip_ct_tcp: invalid SYN IN= OUT= SRC=10.0.0.5 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP SPT=1025 DPT=80 SEQ=1 ACK=1 WINDOW=0 RES=0x00 SYN URGP=0',
      'nf_ct_proto_132: nf_ct_sctp: bad CRC IN=r0 OUT= SRC=10.0.0.5 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=132',
    ],
    refuses: ['nf_ct_proto_6: bad checksum', `kernel_ct_proto_6: bad checksum ${TCP_PACKET}`, `sshd: nf_ct_proto_6: bad checksum ${TCP_PACKET}`],
  },
  {
    kind: 'loaded',
    sign: '_conntrack version',
    pattern: /^(?:nf|ip)_conntrack version \S+ \((?<buckets>\d+) buckets, (?<max>\d+) max\)(?: - \d+ bytes per conntrack)?$/,
    source: 'net/netfilter/nf_conntrack_core.c, net/ipv4/netfilter/ip_conntrack_core.c',
    kernels: '2.4 to 4.14',
    matches: ['nf_conntrack version 0.5.0 (16384 buckets, 65536 max)', 'ip_conntrack version 2.4 (8192 buckets, 65536 max) - 232 bytes per conntrack'],
    refuses: ['nf_conntrack version 0.5.0', 'nf_conntrack version 0.5.0 (many buckets, 65536 max)'],
  },
  {
    kind: 'loaded',
    sign: 'registering with nfnetlink',
    pattern: /^ctnetlink v[\d.]+: registering with nfnetlink\.?$/,
    source: 'net/netfilter/nf_conntrack_netlink.c',
    kernels: '2.6.14 to 4.x',
    matches: ['ctnetlink v0.93: registering with nfnetlink.'],
    refuses: ['ctnetlink_init: cannot register with nfnetlink.', 'ctnetlink: registering with nfnetlink.'],
  },
  {
    kind: 'loaded',
    sign: 'Netfilter messages via NETLINK',
    pattern: /^Netfilter messages via NETLINK v[\d.]+\.?$/,
    source: 'net/netfilter/nfnetlink.c',
    kernels: '2.6.14 to 4.x',
    matches: ['Netfilter messages via NETLINK v0.30.'],
    refuses: ['Netfilter messages via NETLINK'],
  },
  {
    kind: 'syn_flood',
    sign: 'SYN flooding on port',
    pattern: /^(?:(?:TCP|TCPv6|request_sock_\w+): ){0,3}[Pp]ossible SYN flooding on port \S+\. (?:Sending cookies|Dropping request)\./,
    source: 'net/ipv4/tcp_input.c, net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c',
    kernels: 'all; the address from 6.2',
    matches: [
      'possible SYN flooding on port 80. Sending cookies.',
      'TCPv6: Possible SYN flooding on port 443. Dropping request.',
      'TCP: TCP: Possible SYN flooding on port 80. Sending cookies.  Check SNMP counters.',
      'TCP: TCPv6: Possible SYN flooding on port 80. Dropping request.  Check SNMP counters.',
      'TCP: request_sock_TCP: Possible SYN flooding on port 8080. Sending cookies.  Check SNMP counters.',
      'TCP: request_sock_TCP: Possible SYN flooding on port 192.0.2.1:80. Sending cookies.',
      'TCP: request_sock_TCPv6: Possible SYN flooding on port [2001:db8::1]:80. Sending cookies.',
      'TCP: request_sock_subflow_v4: Possible SYN flooding on port 80. Sending cookies.  Check SNMP counters.',
    ],
    refuses: ['SYN flooding on port 80', 'nginx: possible SYN flooding on port 80. Sending cookies.'],
  },
  {
    kind: 'neighbour_overflow',
    sign: 'eighbo',
    pattern: /^(?:neighbour: )?(?:\w+: )?neighbor table overflow!?$|^(?:IPv6: )?Neighbour table overflow\.?$/,
    source: 'net/core/neighbour.c, net/ipv4/route.c, net/ipv6/route.c',
    kernels: 'neighbor 3.7 on, Neighbour before',
    matches: ['neighbour: arp_cache: neighbor table overflow!', 'neighbour: ndisc_cache: neighbor table overflow!', 'Neighbour table overflow.', 'IPv6: Neighbour table overflow'],
    refuses: ['neighbor table', 'dst cache overflow', 'the neighbor table overflow! of ours'],
  },
  {
    kind: 'queue_full',
    sign: '_queue: full at',
    pattern: /^(?:nfnetlink_queue: )?(?:nf|ip)_queue: full at \d+ entries, dropping packets?\(s\)\.?(?: Dropped: \d+)?$/,
    source: 'net/netfilter/nfnetlink_queue.c, net/ipv4/netfilter/ip_queue.c',
    kernels: 'ip_queue 2.4 to 3.4, nf_queue 2.6.31 on, named by its module from 4.19',
    matches: [
      'ip_queue: full at 1024 entries, dropping packet(s).',
      'ip_queue: full at 1024 entries, dropping packets(s). Dropped: 12',
      'nf_queue: full at 1024 entries, dropping packets(s). Dropped: 12',
      'nf_queue: full at 1024 entries, dropping packets(s)',
      'nfnetlink_queue: nf_queue: full at 1024 entries, dropping packets(s)',
    ],
    refuses: ['nf_queue: full at 1024 entries', 'blk_queue: full at 1024 entries, dropping packets(s)'],
  },
  {
    kind: 'packet_log',
    sign: 'OUT=',
    pattern: new RegExp(`^(?<prefix>.*?)${PACKET}`),
    source: 'net/netfilter/nf_log_syslog.c, before it nf_log_ipv4.c, nf_log_ipv6.c, xt_LOG.c, ipt_LOG.c',
    kernels: 'all',
    matches: [
      `ct-invalid: ${TCP_PACKET}`,
      TCP_PACKET,
      `[UFW BLOCK] ${TCP_PACKET}`,
      'drop6 IN=eth0 OUT= MAC=33:33:00:00:00:01:00:11:22:33:44:55:86:dd SRC=fe80:0000:0000:0000:0211:22ff:fe33:4455 DST=ff02:0000:0000:0000:0000:0000:0000:0001 LEN=76 TC=0 HOPLIMIT=1 FLOWLBL=0 PROTO=ICMPv6 TYPE=130 CODE=0',
    ],
    refuses: ['IN=eth0 OUT= ARP HTYPE=1 PTYPE=0x0800 OPCODE=1', 'LOGIN=me OUT=of here', 'IN=eth0 OUT= MAC= SRC=10.0.0.1 DST=10.0.0.2'],
  },
]

export interface LossNotice {
  /** who says it; `kernel` may be unnamed, and the others are where a form names nobody */
  readonly program: string
  readonly sign: string
  /** group: count, where it is exact */
  readonly pattern: RegExp
  readonly source: string
  readonly matches: readonly string[]
  readonly refuses: readonly string[]
}

/** What loggers say when lines were lost. */
export const lossNotices: readonly LossNotice[] = [
  {
    program: 'systemd-journald',
    sign: 'kernel messages',
    pattern: /^Missed (?<count>\d+) kernel messages\.?$/,
    source: 'systemd src/journal/journald-kmsg.c',
    matches: ['Missed 42 kernel messages'],
    refuses: ['Missed some kernel messages', 'We Missed 42 kernel messages'],
  },
  {
    program: 'systemd-journald',
    sign: 'buffer overrun',
    pattern: /^\/dev\/kmsg buffer overrun, some messages lost\.?$/,
    source: 'systemd src/journal/journald-kmsg.c',
    matches: ['/dev/kmsg buffer overrun, some messages lost.'],
    refuses: ['buffer overrun'],
  },
  {
    program: 'systemd-journald',
    sign: 'Forwarding to syslog missed',
    pattern: /^Forwarding to syslog missed (?<count>\d+) messages\.?$/,
    source: 'systemd src/journal/journald-syslog.c',
    matches: ['Forwarding to syslog missed 4 messages.'],
    refuses: ['Forwarding to syslog missed messages.'],
  },
  {
    program: 'rsyslogd',
    sign: 'circular buffer got overwritten',
    pattern: /^imkmsg: some messages in circular buffer got overwritten/,
    source: 'rsyslog contrib/imkmsg/kmsg.c',
    matches: ['imkmsg: some messages in circular buffer got overwritten', 'imkmsg: some messages in circular buffer got overwritten [v8.2302.0]'],
    refuses: ['some messages in circular buffer got overwritten'],
  },
  {
    program: 'rsyslogd',
    sign: 'lost due to rate-limiting',
    pattern: /^\S+(?: from \S+)?: (?<count>\d+) messages lost due to rate-limiting/,
    source: 'rsyslog runtime/ratelimit.c',
    matches: ['imjournal: 1234 messages lost due to rate-limiting (20000 allowed within 600 seconds)', 'imkmsg from <kernel:>: 9 messages lost due to rate-limiting'],
    refuses: ['messages lost due to rate-limiting'],
  },
  {
    program: 'rsyslogd',
    sign: 'imuxsock lost',
    pattern: /^imuxsock lost (?<count>\d+) messages from pid \d+ due to rate-limiting/,
    source: 'rsyslog plugins/imuxsock/imuxsock.c',
    matches: ['imuxsock lost 53 messages from pid 1234 due to rate-limiting'],
    refuses: ['imuxsock lost messages'],
  },
  {
    program: 'rsyslogd',
    sign: 'begin to drop messages',
    pattern: /: begin to drop messages due to rate-limiting/,
    source: 'rsyslog runtime/ratelimit.c',
    matches: ['imjournal: begin to drop messages due to rate-limiting', 'imuxsock from <kernel:>: begin to drop messages due to rate-limiting'],
    refuses: ['begin to drop messages'],
  },
  {
    program: 'syslog-ng',
    sign: 'Destination queue full, dropp',
    pattern: /^Destination queue full, dropp(?:ing|ed) messages?;(?:.* count='(?<count>\d+)')?/,
    source: 'syslog-ng lib/logqueue-fifo.c',
    matches: ["Destination queue full, dropping messages; queue_len='10000', log_fifo_size='10000', count='4', persist_name='afsocket_dd_qfile(stream,serverdown:514)'", "Destination queue full, dropping message; queue_len='1'"],
    refuses: ['Destination queue full'],
  },
  {
    program: 'kernel',
    sign: 'printk messages dropped',
    pattern: /^\*\* (?<count>\d+) printk messages dropped \*\*/,
    source: 'kernel/printk/printk.c, on consoles',
    matches: ['** 105 printk messages dropped **'],
    refuses: ['105 printk messages dropped'],
  },
]

/** Matches every line that may be one of these, and few others. */
export const anySign: RegExp = new RegExp(
  [...new Set([...kernelMessages, ...lossNotices].map(({ sign }) => sign.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')))].join('|'),
)
