/**
 * Facts about the kernel's connection tracking as data, in kernel order. Everything that names a protocol or a state derives from here.
 * Sources: include/uapi/linux/in.h, include/uapi/linux/netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h, net/netfilter/nf_conntrack_proto_{tcp,sctp,dccp}.c,
 * libnetfilter_conntrack src/conntrack/proto.c.
 */

/** IANA protocol numbers that conntrack names; every other number is `unknown`. */
export const protocolNames: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp', // tracker removed in 6.16, the tool still prints the name
  47: 'gre',
  58: 'icmpv6',
  132: 'sctp',
  136: 'udplite',
}

export const PROTO_ICMP = 1
export const PROTO_TCP = 6
export const PROTO_UDP = 17
export const PROTO_DCCP = 33
export const PROTO_GRE = 47
export const PROTO_ICMPV6 = 58
export const PROTO_SCTP = 132

/** enum tcp_conntrack. Index 9 was LISTEN in kernels before 2.6.31; as that word is printed it keeps its own place here. */
export const tcpStates = ['NONE', 'SYN_SENT', 'SYN_RECV', 'ESTABLISHED', 'FIN_WAIT', 'CLOSE_WAIT', 'LAST_ACK', 'TIME_WAIT', 'CLOSE', 'SYN_SENT2', 'LISTEN'] as const

/** enum sctp_conntrack. */
export const sctpStates = ['NONE', 'CLOSED', 'COOKIE_WAIT', 'COOKIE_ECHOED', 'ESTABLISHED', 'SHUTDOWN_SENT', 'SHUTDOWN_RECD', 'SHUTDOWN_ACK_SENT', 'HEARTBEAT_SENT', 'HEARTBEAT_ACKED'] as const

/** enum ct_dccp_states. */
export const dccpStates = ['NONE', 'REQUEST', 'RESPOND', 'PARTOPEN', 'OPEN', 'CLOSEREQ', 'CLOSING', 'TIMEWAIT', 'IGNORE', 'INVALID'] as const

/** What a protocol without a tracker of its own can be in: IPS_SEEN_REPLY and IPS_ASSURED. */
export const statusStates = ['UNREPLIED', 'REPLIED', 'ASSURED'] as const

/** All states in one numbering; a flow's state is an index into this list, so that it fits six bits. */
export const states: readonly string[] = [...tcpStates, ...sctpStates, ...dccpStates, ...statusStates]

export const TCP_STATE = 0
export const SCTP_STATE = tcpStates.length
export const DCCP_STATE = SCTP_STATE + sctpStates.length
export const STATUS_STATE = DCCP_STATE + dccpStates.length

export const STATE_UNREPLIED = STATUS_STATE
export const STATE_REPLIED = STATUS_STATE + 1
export const STATE_ASSURED = STATUS_STATE + 2

/** The words a protocol's tracker prints, and the number of the first; null for protocols without states. */
export function statesOf(protocol: number): { readonly first: number; readonly words: readonly string[] } | null {
  if (protocol === PROTO_TCP) return { first: TCP_STATE, words: tcpStates }
  if (protocol === PROTO_SCTP) return { first: SCTP_STATE, words: sctpStates }
  if (protocol === PROTO_DCCP) return { first: DCCP_STATE, words: dccpStates }
  return null
}

export const tcpState = (word: (typeof tcpStates)[number]): number => TCP_STATE + tcpStates.indexOf(word)
export const sctpState = (word: (typeof sctpStates)[number]): number => SCTP_STATE + sctpStates.indexOf(word)
export const dccpState = (word: (typeof dccpStates)[number]): number => DCCP_STATE + dccpStates.indexOf(word)

/**
 * The longest line that conntrack prints: it formats an event into 1,024 bytes and a row into 4,096 (conntrack-tools src/conntrack.c); the suffix for a
 * process's doing comes on top. Twice and more of that is no record of its.
 */
export const RECORD_LINE_BYTES_MAX = 16_384

/** An expectation is formatted into 1,024 bytes, its XML into 4,096. */
export const EXPECTATION_LINE_BYTES_MAX = 4096
