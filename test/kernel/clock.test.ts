/**
 * The clock of the host is set in the midst of a flood, on the real kernel: what the program says is laid beside what the kernel counted. The clock is the program's
 * and its children's alone (`conntrack -E -o timestamp` has it too), the one that goes on evenly is the machine's.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Record_ } from '../process-harness.js'
import { clockIsSettable, SettableClock } from '../run-harness.js'
import { A, kernelTests, type Lab, required, run, until, withLab } from './namespaces.js'
import { quietKernel, ROOM, SOCKET_BYTES, Watching, withSetting } from './watching.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
const TIMEOUT = 400_000
const isPossible = (kernelTests === 'run' || required) && clockIsSettable
if (!isPossible) console.warn(`tests of a clock that is set on the real kernel are left out: ${kernelTests === 'run' ? 'faketime is missing' : kernelTests}`)

const LIMIT = 400
const FLOODER = '10.66.1.9'
/** One datagram from one port to each of so many ports, in so many pieces a second. */
const FLOOD = `const [from, to, first, n, ms] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
let i = 0
const next = () => i < n ? socket.send('x', +first + i++, to, () => i % 20 ? setImmediate(next) : setTimeout(next, +ms)) : socket.close()
socket.bind(0, from, next)`

const WATCHED = ['kmsg', 'table', 'conntrack'] as const

async function tracked(lab: Lab): Promise<void> {
  await lab.nft('router', `
    table inet filter { chain forward { type filter hook forward priority 0; ct state invalid drop; }
    }`)
  await lab.nft('server', 'table inet filter { chain input { type filter hook input priority 0; udp dport 10000-60000 drop; }\n}')
  await lab.exec('router', 'sh', '-ec', 'cd /proc/sys/net/netfilter; echo 60 >nf_conntrack_udp_timeout; echo 300 >nf_conntrack_udp_timeout_stream')
  await run('ip', ['-n', lab.name('client'), 'addr', 'add', `${FLOODER}/24`, 'dev', 'c0'])
}

const ms = (time: unknown): number => Date.parse(time as string)

test.runIf(isPossible).each([-3600, -20, 20, 3600])('the clock is set by %d s while a flood goes on: one episode, counted right, and who was thrown out is told so', { timeout: TIMEOUT }, async (by) => {
  await withLab(async (lab) => {
    await tracked(lab)
    await withSetting(SOCKET_BYTES, ROOM, () => withSetting(MAX, LIMIT, async () => {
      const clock = new SettableClock(join(lab.dir, 'clock'))
      const config = join(lab.dir, 'hasty.json')
      writeFileSync(config, '{"version": 1, "rules": {"table_full": {"quiet": "10s", "repeat": "1s"}}}')
      lab.env = clock.env
      const args = [...WATCHED.flatMap((input) => ['-i', input]), '-c', config, '--emit', 'flow,kernel,alert,gap,table']
      const watching = await new Watching(lab, 'router', ...args).isOpen(WATCHED)
      await quietKernel()
      const before = watching.counters()
      const flood = lab.exec('client', process.execPath, '-e', FLOOD, FLOODER, A.server, '10000', '6000', '20')
      await until('the flood is told', 20, () => Promise.resolve(watching.of('alert').length > 0))
      const flowsBefore = watching.of('flow').length
      clock.set(`${by < 0 ? '' : '+'}${by}`)
      const setAt = Date.now()
      await flood
      await sleep(1500)
      const after = watching.counters()
      const rose = (name: string): number => after[name]! - before[name]!
      await lab.exec('router', 'conntrack', '-D', '-s', FLOODER)
      await until('the episode is over', 30, () => Promise.resolve(watching.of('alert').at(-1)?.['status'] === 'resolved'))
      const resolvedAt = Date.now()
      const { status } = await watching.stop()

      expect(status).toBe(0)
      const gaps = watching.of('gap')
      expect(gaps.map(({ cause }) => cause as string)).toEqual(['clock_jump'])
      expect(Math.round((ms(gaps[0]!['to']) - ms(gaps[0]!['from'])) / 1000)).toBe(by)
      const alerts = watching.of('alert')
      expect(new Set(alerts.map(({ episode }) => episode as string)).size).toBe(1)
      const last = alerts.at(-1)!
      expect(last).toMatchObject({ rule: 'table_full', status: 'resolved', drops: { counted: rose('drop'), early: rose('early_drop'), races: rose('insert_failed') } })
      expect(rose('drop')).toBeGreaterThan(1000)
      // in the new time, and as long behind the last evidence as the rule says
      expect(Math.abs(ms(last['time']) - by * 1000 - resolvedAt)).toBeLessThan(2500)
      const quietSec = (ms(last['time']) - ms(last['ended'])) / 1000
      expect(quietSec).toBeGreaterThanOrEqual(10)
      expect(quietSec).toBeLessThan(14)
      expect(ms(last['started'])).toBeLessThan(setAt + by * 1000)
      // the kernel's own early drops, before the clock was set and after
      const thrownOut = (records: readonly Record_[]): number => records.filter(({ end }) => end?.reason === 'evicted').length
      const flows = watching.of('flow')
      console.log(`set by ${by} s: ${rose('drop')} dropped, ${rose('early_drop')} early, ${thrownOut(flows.slice(0, flowsBefore))} evicted before and ${thrownOut(flows.slice(flowsBefore))} after`)
      // as without a step: some of the kernel's count have an event that does not say so
      expect(thrownOut(flows)).toBeGreaterThanOrEqual(rose('early_drop') * 0.95)
      expect(flows.filter(({ end }) => end?.reason === 'removed').length).toBeLessThanOrEqual(rose('early_drop') * 0.05)
      for (const { end } of flows) expect(end?.duration ?? 0).toBeLessThan(60)
      const tables = watching.of('table')
      expect(Math.abs(ms(tables.at(-1)!['time']) - by * 1000 - Date.now())).toBeLessThan(5000)
    }))
  })
})
