/** One line of the kernel that several inputs bring counts once, whatever each makes of it. */
import { describe, expect, test } from 'vitest'
import { runInputs } from './harness.js'

const FULL = 'nf_conntrack: nf_conntrack: table full, dropping packet'
const STAMPS = [1_000_100_000, 1_000_100_007, 1_002_300_000]
const BOOT = 1_795_859_000
const wall = (us: number): number => BOOT * 1_000_000 + us
const bracket = (us: number): string => `[${String(Math.floor(us / 1e6)).padStart(5)}.${String(us % 1e6).padStart(6, '0')}]`
const syslogTime = (us: number): string => new Date(wall(us) / 1000).toISOString().replace('Z', '+00:00')

const forms: Readonly<Record<string, (us: number, text: string) => string>> = {
  kmsg: (us, text) => `4,${us % 1000},${us},-;${text}`,
  dmesg: (us, text) => `${bracket(us)} ${text}`,
  'kern.log': (us, text) => `${syslogTime(us)} gw kernel: ${bracket(us)} ${text}`,
  'a journal': (us, text) => JSON.stringify({ __REALTIME_TIMESTAMP: String(wall(us)), __MONOTONIC_TIMESTAMP: String(us), _SOURCE_MONOTONIC_TIMESTAMP: String(us), _TRANSPORT: 'kernel', PRIORITY: '4', MESSAGE: text }),
}
const names = Object.keys(forms)
const pairs = names.flatMap((one) => names.map((other) => [one, other] as const))
const boot = { microseconds: BOOT * 1e6, source: 3 }

function log(form: string, lines: readonly (readonly [number, string])[]): Uint8Array[] {
  return [Buffer.from(lines.map(([us, text]) => `${forms[form]!(us, text)}\n`).join(''))]
}

async function dropsOf(...inputs: Uint8Array[][]): Promise<Record<string, number>> {
  const { lines, tally } = await runInputs(inputs, { boot, once: true })
  const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(records.filter(({ type }) => type === 'kernel')).toHaveLength(tally.kernel)
  const found = records.filter(({ type }) => type === 'alert')
  expect(new Set(found.map(({ episode }) => episode)).size).toBe(1)
  return found.at(-1)!['drops'] as Record<string, number>
}

const all = STAMPS.map((us) => [us, FULL] as const)

describe('lines that two inputs bring', () => {
  test.each(pairs)('%s and %s count once', async (one, other) => {
    expect(await dropsOf(log(one, all), log(other, all))).toMatchObject({ logged: 3, at_least: 3 })
  })

  test('and so do those of three, of which each has lost some', async () => {
    expect(await dropsOf(log('kmsg', all.slice(1)), log('kern.log', all.slice(0, 2)), log('a journal', [all[0]!, all[2]!]))).toMatchObject({ logged: 3 })
  })

  test('what the limiter held back is reported once', async () => {
    const lines = [...all, [1_005_200_000, 'net_ratelimit: 40 callbacks suppressed'], [1_005_200_001, FULL]] as const
    expect(await dropsOf(log('kmsg', lines), log('kern.log', lines))).toMatchObject({ logged: 4, suppressed: 40, estimate: 44 })
  })
})

describe('lines that are none of each other', () => {
  test('two of one input at one moment', async () => {
    expect(await dropsOf(log('kmsg', [all[0]!, all[0]!, all[1]!]), log('kern.log', [all[2]!]))).toMatchObject({ logged: 4 })
  })

  test('other messages at one moment', async () => {
    expect(await dropsOf(log('kmsg', all), log('kern.log', all.map(([us, text]) => [us, text.replace('nf_conntrack: ', '')] as const)))).toMatchObject({ logged: 6 })
  })

  test('those of another host', async () => {
    const { lines } = await runInputs([log('kern.log', all), [Buffer.from(Buffer.concat(log('kern.log', all)).toString().replaceAll(' gw ', ' web '))]], { boot, once: true })
    const last = new Map(lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter(({ type }) => type === 'alert').map((alert) => [alert['episode'], alert['drops']]))
    expect([...last.values()]).toMatchObject([{ logged: 3 }, { logged: 3 }])
  })

  test('without the kernel\'s stamp nothing tells', async () => {
    const bare = [Buffer.from(STAMPS.map((us) => `${syslogTime(us)} gw kernel: ${FULL}\n`).join(''))]
    expect(await dropsOf(bare, log('kmsg', all))).toMatchObject({ logged: 6 })
  })
})
