/** Live flows beside the kernel's own count: apart for a minute, the table is read anew. */
import { expect, test } from 'vitest'
import { runInputs } from './harness.js'

const FLOWS = 1000
const START = 1_795_341_600

/** A thousand flows that begin, then one sample a second with what the kernel counts. */
async function asked(counts: readonly number[], inputs = 1): Promise<number> {
  let times = 0
  const begun = Array.from({ length: FLOWS }, (_, i) => {
    const [sport, dport] = [1024 + i, 80]
    return `[${START}.000000]\t    [NEW] tcp      6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=${sport} dport=${dport} [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=${dport} dport=${sport} id=${i + 1}`
  })
  const samples = counts.map((count, i) => ({ sec: START + 1 + i, usec: 0, timeSource: 0, netns: 0, netnsName: '', count, max: 262_144, buckets: 65_536, total: {}, cpus: null }))
  const pieces = [Buffer.from([...begun, ''].join('\n'))]
  const { tally, tracker } = await runInputs([pieces, ...Array.from({ length: inputs - 1 }, () => [Buffer.from('\n'), Buffer.from('\n')])], { once: false, samples, resync: () => times++ })
  expect(tally.rejected).toBe(0)
  expect(tracker.table.size).toBe(FLOWS)
  return times
}

const apart = (seconds: number): number[] => Array.from({ length: seconds }, () => 1100)
const alike = (seconds: number): number[] => Array.from({ length: seconds }, () => 1010)

test.each([
  ['alike', alike(200), 0],
  ['apart for less than a minute', apart(59), 0],
  ['apart for a minute', apart(61), 1],
  ['apart, once alike, apart again, for less than a minute each', [...apart(45), ...alike(1), ...apart(45)], 0],
  ['apart for long: once in each minute', apart(200), 3],
  ['of which nothing is known', Array.from({ length: 100 }, () => -1), 0],
])('flows and count %s', async (_, counts, times) => {
  expect(await asked(counts)).toBe(times)
})

test('with several inputs of flows each looks after itself', async () => {
  expect(await asked(apart(200), 2)).toBe(0)
})
