/**
 * The whole program on the real kernel: a table that floods fill, events that the kernel drops, a log that is idle. What the program says is laid beside what the
 * kernel counted. With CONNTRAIL_LONG_TESTS as the defaults have it: a minute of quiet, the collector, flows that end by themselves.
 */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Record_ } from '../process-harness.js'
import { A, kernelTests, type Lab, required, type Role, run, until, withLab } from './namespaces.js'
import { quietKernel, ROOM, SOCKET_BYTES, Watching, withSetting } from './watching.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
/** The lock of the machine may be someone else's for long. */
const TIMEOUT = 400_000
const isPossible = kernelTests === 'run' || required
if (!isPossible) console.warn(`tests on the real kernel are left out: ${kernelTests}`)

/** The kernel's budget of messages is ten in five seconds for everybody. */
const WINDOW_MS = 5500
const IDLE_MS = isLong ? 20_000 : 3000
/** Entries that the table may have; of them so many are not thrown out. */
const LIMIT = 400
const HELD = 100
const FLOOD_FLOWS = 3000
/** Behind each flood. The long test goes on until the collector has run and flows have ended by themselves. */
const PAUSES_MS = isLong ? Array.from({ length: 10 }, () => 8000) : [3000, 2500, 1500]
const TRAFFIC = new URL('traffic.mjs', import.meta.url).pathname
const FLOODER = '10.66.1.9'

/** Sends one datagram from one port of an address to each of so many ports of another. Some are refused: a full table tells its own namespace. */
const FLOOD = `const [from, to, first, n] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
let i = 0
const next = () => i < n ? socket.send('x', +first + i++, to, () => setImmediate(next)) : socket.close()
socket.bind(0, from, next)`

const flood = (lab: Lab, role: Role, from: string, to: string, first: number, n: number): Promise<string> =>
  lab.exec(role, process.execPath, '-e', FLOOD, from, to, String(first), String(n))

/** The router tracks; UDP flows live for a minute, in both directions for five; the server says nothing to datagrams that nobody waits for. */
async function tracked(lab: Lab): Promise<void> {
  await lab.nft('router', `
    table ip nat { chain post { type nat hook postrouting priority 100; oifname "r2" masquerade; }
    }
    table inet filter { chain forward { type filter hook forward priority 0; ct state invalid drop; }
    }`)
  await lab.nft('server', 'table inet filter { chain input { type filter hook input priority 0; udp dport 10000-60000 drop; }\n}')
  await lab.exec('router', 'sh', '-ec', 'cd /proc/sys/net/netfilter; echo 60 >nf_conntrack_udp_timeout; echo 300 >nf_conntrack_udp_timeout_stream')
  await run('ip', ['-n', lab.name('client'), 'addr', 'add', `${FLOODER}/24`, 'dev', 'c0'])
}

const WATCHED = ['kmsg', 'table', 'conntrack'] as const
const watch = (lab: Lab, ...more: string[]): Promise<Watching> => new Watching(lab, 'router', ...WATCHED.flatMap((input) => ['-i', input]), ...more).isOpen(WATCHED)

/** Less patience than by default. */
function hasty(lab: Lab): string[] {
  const path = join(lab.dir, 'hasty.json')
  writeFileSync(path, '{"version": 1, "rules": {"table_full": {"quiet": "10s", "repeat": "1s"}}}')
  return ['-c', path, '--emit', 'flow,kernel,alert,gap,table']
}

/**
 * Hands over a count of the runs of the kernel's collector since now: by its trace events, else at most so many as there may have been, for it pauses for a second
 * (GC_SCAN_INTERVAL_MIN). The trace's files are mounted where nobody else sees them.
 */
async function withCollector(lab: Lab, use: (runs: () => Promise<number>) => Promise<void>): Promise<void> {
  const trace = (script: string): Promise<string> =>
    run('unshare', ['-m', 'sh', '-ec', `mount -t tracefs tracefs "$0"; cd "$0/instances"; ${script}`, lab.dir, lab.name('router')])
  const began = performance.now()
  const event = 'events/workqueue/workqueue_execute_start'
  const isTraced = await trace(`mkdir "$1"; cd "$1/${event}"; echo "function.function == gc_worker" >filter; echo 1 >enable`).then(
    () => true,
    () => false,
  )
  try {
    await use(async () => {
      if (!isTraced) return Math.ceil((performance.now() - began) / 1000) + 1
      return (await trace('cat "$1/trace"')).split('\n').filter((line) => line.includes(' workqueue_execute_start: ')).length
    })
  } finally {
    if (isTraced) await trace('rmdir "$1"')
  }
}

/** How many flows ended for which reason. */
function ends(watching: Watching): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { end } of watching.of('flow')) if (end !== undefined) counts[end.reason] = (counts[end.reason] ?? 0) + 1
  return counts
}

const sources = (alert: Record_): Record_[] => (alert['top'] as Record_[]).filter(({ by }) => by === 'src')

test.runIf(isPossible)('floods that fill the table: what was dropped, by whom, and who was thrown out', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    await withSetting(SOCKET_BYTES, ROOM, () => withSetting(MAX, LIMIT, () => withCollector(lab, async (collectorRuns) => {
      const watching = await watch(lab, ...(isLong ? [] : hasty(lab)))
      const before = watching.counters()
      await holdAssured(lab)
      await quietKernel()

      let droppedAt = Infinity
      const look = setInterval(() => {
        const at = performance.now()
        if (watching.counters()['drop']! > before['drop']!) droppedAt = Math.min(droppedAt, at)
      }, 2)
      for (const [i, pause] of PAUSES_MS.entries()) {
        await flood(lab, 'client', FLOODER, A.server, 10_000 + i * FLOOD_FLOWS, FLOOD_FLOWS)
        clearInterval(look)
        await sleep(pause)
      }
      const after = watching.counters()
      const rose = (name: string): number => after[name]! - before[name]!
      if (!isLong) await lab.exec('router', 'conntrack', '-D', '-s', FLOODER)
      await until('the episode is over', isLong ? 120 : 20, () => Promise.resolve(watching.of('alert').at(-1)?.['status'] === 'resolved'))
      const { status } = await watching.stop()
      const runs = await collectorRuns()

      expect(status).toBe(0)
      expect(watching.of('gap')).toEqual([])
      const alerts = watching.of('alert')
      const [first, last] = [alerts[0]!, alerts.at(-1)!]
      expect(new Set(alerts.map(({ episode }) => episode as string)).size).toBe(1)
      expect(rose('drop')).toBeGreaterThan(FLOOD_FLOWS)
      expect(last).toMatchObject({
        rule: 'table_full',
        status: 'resolved',
        drops: { counted: rose('drop'), early: rose('early_drop'), races: rose('insert_failed') },
      })

      expect(droppedAt).toBeLessThan(Infinity)
      console.info(`from the first drop to the first notice: ${Math.round(watching.readAt[watching.records.indexOf(first)]! - droppedAt)} ms`)

      // full but for what the collector took, and for events that are on their way while the kernel's line is there already; each CPU may have let in one more
      expect(sources(first)[0]).toMatchObject({ by: 'src', value: FLOODER })
      expect(sources(first)[0]!['share']).toBeGreaterThan(1 - HELD / (LIMIT * 0.85) - 0.001)
      expect(sources(first)[0]!['share']).toBeLessThan(1 - HELD / (LIMIT + cpus().length) + 0.001)
      // the collector may have passed between a notice and any later look at the table, so each notice is held against itself
      for (const alert of alerts.filter((each) => sources(each)[0]?.['value'] === FLOODER)) {
        const [flooder, holder] = sources(alert) as [Record_, Record_]
        // in the long test flows end by themselves between two floods
        expect(flooder['entries']).toBeGreaterThanOrEqual(isLong ? HELD : LIMIT * 0.85 - HELD)
        expect(flooder['entries']).toBeLessThanOrEqual(LIMIT + cpus().length - HELD)
        expect(holder).toMatchObject({ value: A.client, entries: HELD })
        // of the kernel's count, which the first notice may be a few events behind of
        const count = flooder['entries'] / flooder['share']
        expect(count).toBeGreaterThan(flooder['entries'] + HELD - 1)
        expect(count).toBeLessThan(LIMIT + cpus().length + 1)
      }

      const { evicted = 0, ...others } = ends(watching)
      expect(evicted).toBeGreaterThanOrEqual(rose('early_drop') * 0.95)
      expect(evicted).toBeLessThanOrEqual(rose('early_drop') + LIMIT * 0.06 * runs)
      expect(Object.keys(others)).toEqual([isLong ? 'expired' : 'deleted'])
      if (isLong) expect(runs).toBeGreaterThan(0)
    })))
  })
})

/** A hundred flows of the client's that the kernel does not throw out of a full table. */
async function holdAssured(lab: Lab): Promise<void> {
  const server = lab.startIn('server', process.execPath, TRAFFIC, 'server', A.server)
  await once(server.stdout, 'data')
  const client = lab.startIn('client', process.execPath, TRAFFIC, 'client')
  const streams = Array.from({ length: HELD }, (_, i) => ({ protocol: 'udp', kind: 'stream', sport: 30_000 + i, dst: A.server, dport: 3001 }))
  client.stdin.write(`${JSON.stringify(streams)}\n`)
  await until('assured flows', 20, async () => (await lab.exec('router', 'conntrack', '-L', '-u', 'ASSURED')).split('\n').length === HELD + 1)
}

test.runIf(isPossible)('a masquerading interface that goes down: its flows were removed, nobody threw them out', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    await withSetting(SOCKET_BYTES, ROOM, async () => {
      const watching = await watch(lab)
      await flood(lab, 'client', FLOODER, A.far, 10_000, 50)
      await until('their beginnings', 10, () => Promise.resolve(watching.of('flow').length === 50))
      await lab.exec('router', 'ip', 'link', 'set', 'r2', 'down')
      await until('their ends', 10, () => Promise.resolve(watching.of('flow').length >= 100))
      expect((await watching.stop()).status).toBe(0)
      expect(ends(watching)).toEqual({ removed: 50 })
      expect([...watching.of('gap'), ...watching.of('alert')]).toEqual([])
    })
  })
})

/** Ids of all flows in the router, by the tool. */
async function kernelIds(lab: Lab): Promise<number[]> {
  const rows = await Promise.all(['ipv4', 'ipv6'].map((family) => lab.exec('router', 'conntrack', '-L', '-o', 'id', '-f', family)))
  return [...rows.join('').matchAll(/ id=(\d+)$/gm)].map(([, id]) => Number(id)).sort((a, b) => a - b)
}

/** The flows that the program has for live are the kernel's, by then. */
function sameFlows(lab: Lab, watching: Watching, seconds: number): Promise<void> {
  return until('the same live flows', seconds, async () => String(await watching.liveIds()) === String(await kernelIds(lab)))
}

test.runIf(isPossible)('events that the kernel dropped: the gap has its count, and the live flows are the kernel\'s again', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await tracked(lab)
    await lab.exec('router', 'sh', '-ec', 'cd /proc/sys/net/netfilter; echo 300 >nf_conntrack_udp_timeout')
    // begun before anybody listens: the kernel tells nothing of them, not even their end
    await lab.exec('router', 'sh', '-c', 'echo 0 >/proc/sys/net/netfilter/nf_conntrack_events')
    await flood(lab, 'client', A.client, A.server, 10_000, 50)
    await lab.exec('router', 'sh', '-c', 'echo 2 >/proc/sys/net/netfilter/nf_conntrack_events')
    const watching = await watch(lab)
    await sameFlows(lab, watching, 10)
    expect((await watching.liveIds()).length).toBe(50)

    await flood(lab, 'client', FLOODER, A.server, 10_000, 5)
    await lab.exec('router', 'conntrack', '-D', '-s', A.client)
    await sameFlows(lab, watching, 10)
    expect((await watching.liveIds()).length).toBe(5)
    expect(watching.of('gap')).toEqual([])

    const tool = watching.tool()
    process.kill(tool, 'SIGSTOP')
    await flood(lab, 'client', FLOODER, A.server, 20_000, 3000)
    const { drops } = watching.socket()!
    expect(drops).toBeGreaterThan(1000)
    process.kill(tool, 'SIGCONT')
    await sameFlows(lab, watching, 10)
    expect((await watching.liveIds()).length).toBe(3005)
    await until('the gap', 5, () => Promise.resolve(watching.of('gap').length > 0))

    const { status, done } = await watching.stop()
    expect(status).toBe(0)
    expect(watching.of('gap')).toMatchObject([{ cause: 'netlink_overrun', count: drops }])
    expect(done['tracker']).toMatchObject({ live: 3005, forgotten: 50 })
  })
})

test.runIf(isPossible)('a log that is idle: the end comes at once when asked for', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    const watching = await new Watching(lab, 'router', '-i', 'kmsg').isOpen(['kmsg'])
    await sleep(IDLE_MS)
    expect((await watching.stop()).status).toBe(0)
  })
})

test.runIf(isPossible)('two namespaces in one budget of messages: nothing of the one\'s drops is said of the other', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await withSetting(MAX, HELD, async () => {
      for (const role of ['client', 'server'] as const) {
        await lab.nft(role, 'table inet filter { chain output { type filter hook output priority 0; ct state invalid drop; }\n}')
        // a table full of flows that cannot be thrown out: each further one is one drop
        const addresses = '-s 10.9.0.1 -d 10.9.0.2 -r 10.9.0.2 -q 10.9.0.1'
        const ports = (port: number): string => `--sport ${port} --dport 9 --reply-port-src 9 --reply-port-dst ${port}`
        const flows = Array.from({ length: HELD }, (_, i) => `-A -t 600 -u SEEN_REPLY,ASSURED ${addresses} -p udp ${ports(1000 + i)}\n`)
        const path = join(lab.dir, role)
        writeFileSync(path, flows.join(''))
        await lab.exec(role, 'conntrack', '-R', path)
      }
      const drop = async (role: Role): Promise<number> => {
        const cpus = await lab.exec(role, 'conntrack', '-S')
        return [...cpus.matchAll(/ drop=(\d+)/g)].reduce((sum, [, n]) => sum + Number(n), 0)
      }
      const refused = (role: Role, n: number, first: number): Promise<string> => flood(lab, role, '127.0.0.1', '127.0.0.1', first, n)
      const a = Number(/\d+$/.exec((await lab.exec('client', 'readlink', '/proc/self/ns/net')).trim().slice(0, -1))![0])
      const watching = await new Watching(lab, 'router', '-i', 'kmsg').isOpen(['kmsg'])
      await quietKernel()

      const linesOf = (kind: string): Record_[] => watching.of('kernel').filter((line) => line['kind'] === kind)
      const began = performance.now()
      await refused('client', 20, 10_000)
      await refused('server', 2500, 10_000)
      await refused('client', 1, 20_000)
      const took = performance.now() - began
      // the kernel tells what it held back with the first message behind the window
      await sleep(WINDOW_MS - took)
      await refused('client', 1, 20_001)
      await until('the line behind the window', 5, () => Promise.resolve(linesOf('table_full').length === 11))
      await watching.stop()

      // what this is about: the log shows A's lines alone, and counts B's among what was held back
      expect([await drop('client'), await drop('server')]).toEqual([22, 2500])
      expect(took).toBeLessThan(4900)
      expect(linesOf('table_full').map(({ netns }) => netns as number)).toEqual(Array.from({ length: 11 }, () => a))
      // one more before them tells of what was held back before this test
      expect(linesOf('suppressed').at(-1)!['count']).toBe(10 + 2500 + 1)

      const alerts = watching.of('alert')
      expect(new Set(alerts.map(({ netns, episode }) => `${netns} ${episode}`)).size).toBe(1)
      expect(alerts.at(-1)).toMatchObject({ netns: a, drops: { logged: 11, at_least: 11, suppressed: 10 + 2500 + 1 } })
      for (const { drops, summary } of alerts) {
        expect(drops.at_least).toBeLessThanOrEqual(22)
        expect(drops.counted).toBe(undefined)
        // what the kernel held back, and does not say of whom, is no packet of A's
        expect(summary).toMatch(new RegExp(`: at least ${drops.at_least} packets? dropped since [\\d:]+ \\(UTC\\)(; the kernel held back [\\d,]+ more messages of whatever kind)?$`))
      }
    })
  })
})
