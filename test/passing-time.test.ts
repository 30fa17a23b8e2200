/** Lines of which no record is made move time too: an episode in a saved log ends when the log goes on. */
import { describe, expect, test } from 'vitest'
import { TIME_BOOT, TIME_ESTIMATED } from '../src/event.js'
import { recordsOf, runInputs } from './harness.js'

const FULL = 'nf_conntrack: nf_conntrack: table full, dropping packet'
const OTHER = 'usb 1-1: new high-speed USB device number 4 using xhci_hcd'
const START = Date.parse('2026-11-22T08:00:00Z') / 1000
const BOOT = START - 525

/** A line of the kernel's, or of another program's, at that second of the log. */
type Form = (second: number, text: string) => string
const iso = (second: number): string => new Date((START + second) * 1000).toISOString()
const bsd = (second: number): string => `Nov 22 ${iso(second).slice(11, 19)}`
const sinceBoot = (second: number): string => `${525 + second}.000000`
const programOf = (text: string): string => (text === FULL ? 'kernel' : 'cron')
const journal = (second: number, text: string): Record<string, string> => ({
  __CURSOR: `s=0123456789abcdef;i=${(second + 1).toString(16)};b=1;m=1;t=1;x=1`,
  __REALTIME_TIMESTAMP: `${START + second}000000`,
  _TRANSPORT: text === FULL ? 'kernel' : 'syslog',
  SYSLOG_IDENTIFIER: programOf(text),
  MESSAGE: text,
})

const forms: Readonly<Record<string, Form>> = {
  'RFC 3164': (second, text) => `${bsd(second)} gw ${programOf(text)}: ${text}`,
  'RFC 5424': (second, text) => `<30>1 ${iso(second)} gw ${programOf(text)} - - - ${text}`,
  'high-precision syslog': (second, text) => `${iso(second)} gw ${programOf(text)}: ${text}`,
  'dmesg': (second, text) => `[${sinceBoot(second).padStart(12)}] ${text}`,
  'dmesg -T': (second, text) => `[Sun Nov 22 ${iso(second).slice(11, 19)} 2026] ${text}`,
  '/dev/kmsg': (second, text) => `4,${second + 1},${525 + second}000000,-;${text}`,
  'journalctl -o json': (second, text) => JSON.stringify(journal(second, text)),
  'journalctl -o json-pretty': (second, text) => JSON.stringify(journal(second, text), null, '\t'),
  'journalctl -o export': (second, text) => `${Object.entries(journal(second, text)).map(([name, value]) => `${name}=${value}`).join('\n')}\n`,
  'journalctl -o short-unix': (second, text) => `${START + second}.000000 gw ${programOf(text)}: ${text}`,
  'Docker': (second, text) => JSON.stringify({ log: `${text}\n`, stream: 'stdout', time: iso(second) }),
  'CRI': (second, text) => `${iso(second)} stdout F ${text}`,
  'kubectl --timestamps': (second, text) => `${iso(second)} ${text === FULL ? `[${sinceBoot(second)}] ${text}` : text}`,
  'dmesg --json': (second, text) => JSON.stringify({ pri: 4, time: 525 + second, msg: text }),
}

const options = { emit: ['alert'], boot: { microseconds: BOOT * 1e6, source: TIME_BOOT } } as const
const alertsOf = async (form: Form, lines: readonly (readonly [number, string])[]): Promise<unknown[]> =>
  (await recordsOf(lines.map(([second, text]) => `${form(second, text)}\n`).join(''), options)).map(({ status, time, ended, final, episode }) => ({ status, time, ended, final, episode }))
const at = (second: number): string => `${iso(second).slice(0, 19)}.000000Z`
const flood = (from: number): [number, string][] => [0, 1, 2].map((second) => [from + second, FULL])
const hours = (from: number, count: number): [number, string][] => Array.from({ length: count }, (_, i) => [from + i * 30, OTHER])

describe('an episode ends when the log goes on, and what comes then is another one', () => {
  test.each(Object.keys(forms))('%s', async (name) => {
    const alerts: any[] = await alertsOf(forms[name]!, [...flood(0), ...hours(30, 240), ...flood(7500)])
    expect(alerts).toMatchObject([
      { status: 'firing', time: at(0) },
      { status: 'firing', time: at(30) },
      { status: 'resolved', time: at(90), ended: at(2) },
      { status: 'firing', time: at(7500) },
      { status: 'firing', final: true },
    ])
    expect(new Set(alerts.map(({ episode }) => episode)).size).toBe(2)
  })

  test.each(Object.keys(forms))('where one line more is all that came: %s', async (name) => {
    const alerts: any[] = await alertsOf(forms[name]!, [...flood(0), [7200, OTHER]])
    expect(alerts.at(-1)).toMatchObject({ status: 'resolved', ended: at(2) })
  })

  test('by a clock that is estimated too', async () => {
    const form = forms['dmesg']!
    const text = [...flood(0), ...hours(30, 240)].map(([second, each]) => `${form(second, each)}\n`).join('')
    const alerts = await recordsOf(text, { ...options, boot: { microseconds: BOOT * 1e6, source: TIME_ESTIMATED } })
    expect(alerts.at(-1)).toMatchObject({ status: 'resolved', ended: at(2), time_source: 'estimated' })
  })
})

describe('a stamp that none of its neighbours confirms ends nothing', () => {
  test.each([['an hour ahead', 3600], ['a day', 86_000], ['a year', 31_536_000], ['before', -86_400]])('%s', async (_, second) => {
    const form = forms['high-precision syslog']!
    const alerts: any[] = await alertsOf(form, [...flood(0), [10, OTHER], [second, OTHER], [20, OTHER], ...flood(25), [26, OTHER]])
    expect(alerts.map(({ status }) => status)).not.toContain('resolved')
  })

  test('and nothing is later than the log itself', async () => {
    const alerts: any[] = await alertsOf(forms['high-precision syslog']!, [...flood(0), [31_536_000, OTHER], [31_536_001, OTHER]])
    expect(alerts.map(({ status }) => status)).not.toContain('resolved')
  })
})

test('merged by time with another log, what is none of ours waits for its turn', async () => {
  const form = forms['high-precision syslog']!
  const text = (lines: readonly (readonly [number, string])[]): Buffer => Buffer.from(lines.map(([second, each]) => `${form(second, each)}\n`).join(''))
  const { lines } = await runInputs([[text([...flood(0), ...hours(30, 240), ...flood(7500)])], [text([...flood(1), ...flood(40), ...flood(80)])]], { ...options, once: true })
  const alerts = lines.map((line) => JSON.parse(line) as any)
  expect(alerts.filter(({ status }) => status === 'resolved')).toMatchObject([{ ended: at(82) }])
  expect(new Set(alerts.map(({ episode }) => episode)).size).toBe(2)
})
