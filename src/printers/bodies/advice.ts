/** An alert for people, beyond its summary: who held the full table, and what to look at and to do next. */
import type { Holder } from '../../event.js'
import { leaderOf, number, partText } from '../../leader.js'
import { isMap, type RecordValue, textOr } from './record.js'

const KINDS = { src: 'from', dst: 'to', service: 'to', state: 'in state' } as const
/** What `ip netns exec` takes, and a shell leaves alone. */
const PLAIN = /^[\w.:-]+$/

/** One line for each kind, `''` where nobody is known: `from 10.0.0.1 392 entries (98 %, 388 unreplied, 30 new), 10.0.0.2 …`. */
export function topText(record: RecordValue): string {
  const top = holdersOf(record)
  const line = (by: keyof typeof KINDS): string =>
    top
      .filter((holder) => holder.by === by)
      .map((holder) => `${holder.value} ${entriesText(holder)}`)
      .join(', ')
  return (Object.keys(KINDS) as (keyof typeof KINDS)[])
    .map((by) => [KINDS[by], line(by)])
    .filter(([, text]) => text !== '')
    .map((words) => words.join(' '))
    .join('\n')
}

/** In one to three sentences. */
export function adviceText(record: RecordValue): string {
  switch (record['rule']) {
    case 'table_full':
      return `${whoText(record)} If this load is wanted, raise net.netfilter.nf_conntrack_max; else limit it or block it.`
    case 'expect_table_full':
      return `A helper (FTP, SIP …) expects more connections than it may. Look at them: ${inNamespace(record)}conntrack -L expect. If they are wanted, raise net.netfilter.nf_conntrack_expect_max.`
    default:
      return textOr(record['summary'], '')
  }
}

function whoText(record: RecordValue): string {
  const top = holdersOf(record)
  const leader = leaderOf(top)
  const tool = `${inNamespace(record)}conntrack -L`
  if (top.length === 0) return `Who holds the entries is not known: no flow input saw them. Look at the table: ${tool}.`
  const when = `When the table was fullest (${clock(record['top_at'])} UTC)`
  if (leader === null) return `${when} nobody stood out among those who held entries. Look at the table: ${tool}.`
  const { by, value, entries, unreplied, new: opened } = leader
  const details = [unreplied > 0 ? `${number(unreplied)} of ${number(entries)} entries unreplied` : '', (opened ?? 0) > 0 ? `${number(opened!)} opened since the episode began` : '']
  const counted = details.filter((text) => text !== '').join(', ')
  const aim = by === 'src' ? leaderOf(top, ['service', 'dst']) : null
  const most = aim === null ? '' : ` Where most went: ${aim.value}, with ${partText(aim)}.`
  const who = by === 'src' ? value : `what goes to ${value}`
  return `${when} ${who} held ${partText(leader)}${counted === '' ? '' : `: ${counted}`}.${most} Look at its entries: ${tool} ${filter(leader)}.`
}

/** Of `conntrack -L`. */
function filter({ by, value }: Holder): string {
  if (by === 'src') return `${family(value)}-s ${value}`
  if (by === 'dst') return `${family(value)}-d ${value}`
  const [, six, four, port, protocol] = /^(?:\[(.+)\]|([^/]+?))(?::(\d+))?\/(\w+)$/.exec(value) ?? []
  const address = six ?? four ?? value
  return `${family(address)}-p ${protocol ?? ''}${port === undefined ? '' : ` --dport ${port}`} -d ${address}`
}

const family = (address: string): string => (address.includes(':') ? '-f ipv6 ' : '')

/** The command that goes before one, where the namespace has a name that `ip netns` knows. */
function inNamespace({ netns_name: name }: RecordValue): string {
  return typeof name === 'string' && PLAIN.test(name) ? `ip netns exec ${name} ` : ''
}

function entriesText(holder: Holder): string {
  const { entries, unreplied, known, new: opened } = holder
  const share = known === undefined ? partText(holder) : `of ${number(known)} known`
  const details = [share, ...(unreplied > 0 ? [`${number(unreplied)} unreplied`] : []), ...(opened !== undefined && opened > 0 ? [`${number(opened)} new`] : [])]
  return `${number(entries)} ${entries === 1 ? 'entry' : 'entries'} (${details.join(', ')})`
}

/** Those of a record that another program may have written or an older version. */
function holdersOf({ top }: RecordValue): Holder[] {
  if (!Array.isArray(top)) return []
  return top
    .filter((holder): holder is Holder & RecordValue => isMap(holder) && typeof holder['by'] === 'string' && typeof holder['value'] === 'string')
    .filter(({ entries, share }) => typeof entries === 'number' && typeof share === 'number')
    .map((holder) => ({ ...holder, unreplied: typeof holder.unreplied === 'number' ? holder.unreplied : 0 }))
}

/** 10:14:49 of an RFC 3339 time. */
function clock(time: unknown): string {
  return /T(\d\d:\d\d:\d\d)/.exec(textOr(time, ''))?.[1] ?? '?'
}
