/** The catalogue of kernel messages: every entry's samples, and that no other entry is in its way. */
import { describe, expect, test } from 'vitest'
import { kernelKinds } from '../src/event.js'
import { kernelMessage } from '../src/formats/kernel-log/message.js'
import { anySign, kernelMessages, lossNotices } from '../src/kernel-messages.js'

const origin = { time: { sec: 0, usec: 0, timeSource: 0 }, host: '', priority: -1, facility: -1, seq: -1, monotonic: -1, position: '', trusted: true }

describe('kernel messages', () => {
  test('have a spelling for every kind', () => {
    expect(new Set(kernelMessages.map(({ kind }) => kind))).toEqual(new Set(kernelKinds))
  })

  test.each(kernelMessages.flatMap((entry) => entry.matches.map((text) => [entry.kind, text, entry] as const)))('%s: %s', (kind, text, { pattern, sign }) => {
    expect(pattern.test(text)).toBe(true)
    expect(text).toContain(sign)
    expect(anySign.test(text)).toBe(true)
    expect(kernelMessage(text, origin)?.kind).toBe(kind)
  })

  test.each(kernelMessages.flatMap((entry) => entry.refuses.map((text) => [entry.kind, text, entry.pattern] as const)))('not %s: %s', (_, text, pattern) => {
    expect(pattern.test(text)).toBe(false)
  })

  test('say where they come from', () => {
    for (const { source, kernels, matches, refuses } of kernelMessages) {
      expect(source).not.toBe('')
      expect(kernels).not.toBe('')
      expect(matches.length * refuses.length).toBeGreaterThan(0)
    }
  })
})

describe('notices of loss', () => {
  test.each(lossNotices.flatMap((entry) => entry.matches.map((text) => [entry.program, text, entry] as const)))('%s: %s', (_, text, { pattern, sign }) => {
    expect(pattern.test(text)).toBe(true)
    expect(text).toContain(sign)
    expect(anySign.test(text)).toBe(true)
  })

  test.each(lossNotices.flatMap((entry) => entry.refuses.map((text) => [entry.program, text, entry.pattern] as const)))('not %s: %s', (_, text, pattern) => {
    expect(pattern.test(text)).toBe(false)
  })
})

test('an oops that lists the module, and what other limiters hold back, is nobody of ours', () => {
  for (const text of [
    'Modules linked in: xt_conntrack nf_conntrack nf_defrag_ipv6 nf_defrag_ipv4 xt_tcpudp nft_compat nf_tables',
    'RIP: 0010:nf_conntrack_in+0x123/0x560 [nf_conntrack]',
    'nf_conntrack: falling back to vmalloc.',
    'Unable to create nf_conntrack_hash',
    'dst cache overflow',
    'TCP: too many orphaned sockets',
    'nft_log_ratelimit: 3 callbacks suppressed',
    'kauditd_printk_skb: 28 callbacks suppressed',
    'systemd-journald: 12 output lines suppressed due to ratelimiting',
    'UDPLite: UDP-Lite is deprecated and scheduled to be removed in 2025, please contact the netdev mailing list',
  ])
    expect([text, kernelMessage(text, origin)]).toEqual([text, null])
})
