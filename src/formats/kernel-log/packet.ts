/**
 * The packet of a line that the kernel's log target wrote: `IN=… OUT=… SRC=… DST=… PROTO=…`. Grammar: net/netfilter/nf_log_syslog.c. Words that are no key and
 * no known flag are passed over: newer kernels may print more.
 */
import type { Packet } from '../../event.js'
import { protocolNames } from '../../kernel.js'
import { got, latin1, readAddress, toScratch } from '../scan.js'

const tcpFlags = new Set(['CWR', 'ECE', 'URG', 'ACK', 'PSH', 'RST', 'SYN', 'FIN'])
const fragmentFlags = new Set(['CE', 'DF', 'MF'])
/** Keys before PROTO=, and what they are called in the record; those behind it that mean the same name another field. */
const outerKeys: Readonly<Record<string, string>> = {
  PHYSIN: 'physin', PHYSOUT: 'physout', MAC: 'mac', MACSRC: 'macsrc', MACDST: 'macdst', MACPROTO: 'macproto', VPROTO: 'vproto', VID: 'vid',
  LEN: 'len', TOS: 'tos', PREC: 'prec', TTL: 'ttl', ID: 'id', TC: 'tc', HOPLIMIT: 'hoplimit', FLOWLBL: 'flowlbl', FRAG: 'frag',
}
const innerKeys: Readonly<Record<string, string>> = {
  LEN: 'payload_len', SEQ: 'seq', ACK: 'ack', WINDOW: 'window', RES: 'res', URGP: 'urgp', ID: 'icmp_id', PARAMETER: 'parameter', GATEWAY: 'gateway', MTU: 'mtu',
  SPI: 'spi', UID: 'uid', GID: 'gid', MARK: 'mark',
}
/** The tuple and what it is of: first in the record, in this order. */
const tupleKeys: Readonly<Record<string, string>> = {
  IN: 'in', OUT: 'out', SRC: 'src', DST: 'dst', PROTO: 'protocol', SPT: 'sport', DPT: 'dport', TYPE: 'type', CODE: 'code',
}
const tupleNames = Object.values(tupleKeys)
const addresses = new Set(['src', 'dst', 'gateway'])
const texts = new Set(['in', 'out', 'physin', 'physout', 'mac', 'macsrc', 'macdst', 'macproto', 'vproto', 'spi', 'frag'])

/** `text` begins with `IN=`; `lead` is what stood before it. */
export function parsePacket(text: string, lead: { readonly reason?: string; readonly prefix?: string }): Packet {
  const embedded = text.includes('[SRC=') ? /\[(SRC=[^\]]*)\]/.exec(text) : null
  const words = (embedded === null ? text : text.replace(embedded[0], '')).split(' ')
  // only the first of a name counts: what follows may belong to something within
  const found = new Map<string, string | number | true>()
  const flags: string[] = []
  let behind = false
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    const sign = word.startsWith('FRAG:') ? 4 : word.indexOf('=')
    if (sign > 0) {
      const key = word.slice(0, sign)
      const name = tupleKeys[key] ?? (behind ? innerKeys : outerKeys)[key]
      if (name !== undefined && !found.has(name)) {
        const value = valueOf(name, word.slice(sign + 1))
        if (value !== '') found.set(name, value)
      }
      if (key === 'PROTO') behind = true
    } else if (behind && tcpFlags.has(word)) flags.push(word)
    else if (!behind && fragmentFlags.has(word)) found.set(word.toLowerCase(), true)
    else if (word === 'OPT' && words[i + 1]?.startsWith('(') === true) {
      const close = words.findIndex((each, at) => at > i && each.endsWith(')'))
      // an IPv6 extension header has words of its own between the brackets
      if (close === i + 1) found.set(behind ? 'tcp_options' : 'options', words[close]!.slice(1, -1))
      if (close > 0) i = close
    }
  }
  const packet: Record<string, unknown> = { ...lead }
  for (const name of tupleNames) {
    const value = found.get(name)
    if (value !== undefined) packet[name] = value
  }
  if (packet['protocol'] === 'tcp') packet['flags'] = flags
  for (const [name, value] of found) if (!(name in packet)) packet[name] = value
  if (embedded !== null) packet['inner'] = parsePacket(embedded[1]!, {})
  return packet
}

/** '' for what is none. */
function valueOf(name: string, text: string): string | number {
  if (name === 'protocol') return protocolName(text)
  if (addresses.has(name)) return address(text)
  if (texts.has(name)) return text
  return /^(?:\d+|0x[0-9a-fA-F]+)$/.test(text) ? Number(text) : ''
}

/** The kernel names four; the others are numbers, of which conntrack knows some. */
function protocolName(value: string): string {
  return (/^\d+$/.test(value) ? protocolNames[Number(value)] : undefined) ?? value.toLowerCase()
}

/** IPv6 as the flows show it. */
function address(value: string): string {
  const at = toScratch(`${value.slice(0, 64)} `)
  const end = readAddress(at)
  return end < 0 ? value : latin1(got.at, got.at + got.len)
}
