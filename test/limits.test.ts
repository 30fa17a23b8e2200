/** What a stream of everything that the grammar allows at once does to the fixed stores: nothing. */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const main = fileURLToPath(new URL('../dist/main.js', import.meta.url))

test('every event of every protocol number in both families has room beside the longest host name', () => {
  const tuple = (a: string, b: string): string => `src=${a} dst=${b} sport=1 dport=2`
  const lines = ['    [NEW]', ' [UPDATE]', '[DESTROY]', ''].flatMap((tag) =>
    [['ipv4     2', '10.0.0.1', '10.0.0.2'], ['ipv6     10', 'fd00::1', 'fd00::2']].flatMap(([family, a, b]) =>
      Array.from({ length: 256 }, (_, protocol) => `${tag} ${family} unknown  ${protocol} ${tuple(a!, b!)} ${tuple(b!, a!)}`),
    ),
  )
  const out = execFileSync(process.execPath, [main, 'run', '--host', 'h'.repeat(510), '-i', '-'], { input: `${lines.join('\n')}\n`, encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['pipe', 'pipe', 'ignore'] })
  const records = out.trimEnd().split('\n').map((line) => JSON.parse(line) as { protocol_number: number; host: string })
  expect(records).toHaveLength(2048)
  expect(new Set(records.map((record) => record.protocol_number)).size).toBe(256)
  expect(records.every((record) => record.host === 'h'.repeat(510))).toBe(true)
})
