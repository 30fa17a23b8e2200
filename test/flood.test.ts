/** Own diagnostics are limited, whatever goes on and on: a few of a kind are told, then how many more there were. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { Flood, WINDOW_MS } from '../src/flood.js'
import { cleanUp, program, scratch, start, until } from './process-harness.js'

afterEach(cleanUp)

test('a few of a kind, then their number; numbers and what follows a colon make no kind', () => {
  const flood = new Flood()
  const told = Array.from({ length: 1000 }, (_, i) => flood.admits(`conntrack ${i} said: words ${i}`, i)).filter(Boolean).length
  expect(told).toBe(10)
  expect(flood.admits('another: word', 1000)).toBe(true)
  expect(flood.takeHeld(WINDOW_MS)).toEqual([{ kind: 'conntrack N said', count: 990 }])
  expect(flood.admits('conntrack 1 said: words', WINDOW_MS + 1)).toBe(true)
  // a window in which nothing was held back begins anew by itself
  for (let i = 0; i < 9; i++) flood.admits('conntrack 1 said: words', WINDOW_MS + 2)
  expect(flood.admits('conntrack 1 said: words', 3 * WINDOW_MS)).toBe(true)
})

test('of all kinds together a hundred, and what is remembered of them is bounded', () => {
  const flood = new Flood()
  const told = Array.from({ length: 100_000 }, (_, i) => flood.admits(`${'x'.repeat(i % 500)}${String.fromCharCode(97 + (i % 26))}: word`, 0)).filter(Boolean).length
  expect(told).toBe(100)
  const held = flood.takeHeld(0)
  expect(held.reduce((sum, { count }) => sum + count, 0)).toBe(100_000 - 100)
  expect(held.length).toBeLessThanOrEqual(257)
})

test('a tool that floods its standard error is told of in a few lines, and none goes uncounted', async () => {
  const folder = scratch('bin')
  mkdirSync(folder)
  const tool = `#!/bin/sh
case "$1" in
-V) echo 'conntrack v1.4.7 (conntrack-tools)' ;;
-E) printf '[1795368807.239084]\\t    [NEW] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1 id=1\\n'
    until [ -e '${folder}/go' ]; do sleep 0.05; done
    seq 1 20000 | sed 's/^/strange words /' >&2; echo >'${folder}/over'; exec sleep 600 ;;
-L) echo 'conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.' >&2 ;;
esac
`
  writeFileSync(join(folder, 'conntrack'), tool)
  chmodSync(join(folder, 'conntrack'), 0o755)
  const child = start(process.execPath, [program, 'run', '-i', 'conntrack'], ['ignore', 'pipe', 'pipe'], { PATH: `${folder}${delimiter}${process.env['PATH']}` })
  let stdout = ''
  let stderr = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  await until(() => stdout.includes('"type":"flow"'))
  writeFileSync(join(folder, 'go'), '')
  // the number comes when the window is over
  await until(() => stderr.includes('not shown'))
  const closed = new Promise((resolve) => child.on('close', resolve))
  child.kill('SIGTERM')
  await closed
  const said = stderr.split('\n').filter((line) => line.includes('conntrack said'))
  const counted = said.reduce((sum, line) => sum + ((JSON.parse(line) as { count?: number }).count ?? 1), 0)
  expect(counted).toBe(20_000)
  expect(said.length).toBeLessThan(100)
})
