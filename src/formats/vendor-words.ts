/**
 * What a vendor's kernel prints behind the tuples, among the words that all kernels have: Keenetic's `nmark=0 ifw=11 slan attrs= [FASTNAT] [RTCACHE o33/r11]`, the
 * layer 7 patch's `l7proto=unknown bytes=1006750`. Kept by name, as it stands.
 */
import { type FlowEvent, HAS_EXTRA, page } from '../event.js'
import { isBlank, isLineEnd, utf8 } from './scan.js'

/** Words with a grammar of their own, which has found them broken; `packets` and `bytes` behind the tuples are of both directions together. */
const known = new Set([
  ...['src', 'dst', 'sport', 'dport', 'type', 'code', 'srckey', 'dstkey', 'zone-orig', 'zone-reply', 'zone', 'mark', 'secmark', 'secctx', 'delta-time', 'helper', 'use', 'id', 'labels'],
  ...['UNREPLIED', 'ASSURED', 'OFFLOAD', 'HW_OFFLOAD', 'USERSPACE', 'start', 'stop', 'NEW', 'UPDATE', 'DESTROY'],
])
const PAIR = /^(\w[\w.-]*)=(.*)$/s
/** A sentence that got in between has a stop, a colon or a bracket somewhere. */
const BARE = /^\w(?:[\w.:/+%@-]*\w)?$/
const FLAG = /^([A-Za-z_][^\s=]*)(?:[\s=]+(.*))?$/s

/** `key=value`, `word`, `[FLAG]` or `[FLAG text]`. Gives the offset behind it, -1 for a known word, which is broken then, and for what is none of these. */
export function readVendorWord(at: number, event: FlowEvent): number {
  let end = at
  const isFlag = page[at] === 91
  if (isFlag) {
    while (page[end] !== 93) if (isLineEnd(++end)) return -1
    if (!isBlank(page[++end]!) && !isLineEnd(end)) return -1
  } else {
    while (!isBlank(page[end]!) && !isLineEnd(end)) end++
  }
  const text = isFlag ? utf8(at + 1, end - 1).trim() : utf8(at, end)
  const found = (isFlag ? FLAG : PAIR).exec(text)
  const name = found?.[1] ?? text
  if (known.has(name) || (found === null && (isFlag || !BARE.test(text)))) return -1
  addExtra(event, name, found?.[2] ?? true)
  return end
}

export function addExtra(event: FlowEvent, name: string, value: string | true): void {
  // without a prototype any name is a key like the others
  if ((event.has & HAS_EXTRA) === 0) event.extra = Object.create(null) as Record<string, string | true>
  event.has |= HAS_EXTRA
  event.extra[name] = value
}
