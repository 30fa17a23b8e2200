/**
 * What watching costs while nothing happens: the kernel's log, the table and the flows of a namespace, with a receiver connected and metrics on. Five minutes in the long
 * run; a few seconds in the short one. What it costs is printed; whether it grows is looked at.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { kernelTests, required, until, withLab } from './namespaces.js'
import { Watching } from './watching.js'

const isLong = process.env['CONNTRAIL_LONG_TESTS'] === '1'
const SECONDS = isLong ? 300 : 5
const PORT = 8080
/** Modules are loaded, and the room that this took is given back. */
const SETTLED_MS = isLong ? 10_000 : 2000
const TICKS_A_SECOND = 100
const isPossible = kernelTests === 'run' || required

/** Keeps connections as long as they are wanted. */
const RECEIVER = `require('node:http').createServer({ keepAliveTimeout: 0 }, (request, response) => request.resume().on('end', () => response.writeHead(204).end())).listen(${PORT}, '127.0.0.1')`

interface Used {
  readonly parent: number
  /** of processor time, with that of children that have ended */
  readonly ticks: number
}

/** null: it has ended. */
function usedBy(pid: number): Used | null {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ').map(Number)
    return { parent: fields[1]!, ticks: fields.slice(11, 15).reduce((sum, n) => sum + n, 0) }
  } catch {
    return null
  }
}

/** Seconds of processor time of a process and all that it has started, by process. */
function usedByAll(pid: number): Map<number, number> {
  const all = new Map(readdirSync('/proc').filter((name) => /^\d+$/.test(name)).flatMap((name) => [[Number(name), usedBy(Number(name))] as const]))
  const isMine = (one: number): boolean => one === pid || (all.get(one)?.parent ?? 0) > 1 && isMine(all.get(one)!.parent)
  return new Map([...all].flatMap(([one, used]) => (used !== null && isMine(one) ? [[one, used.ticks / TICKS_A_SECOND] as const] : [])))
}

const total = (used: ReadonlyMap<number, number>): number => [...used.values()].reduce((sum, seconds) => sum + seconds, 0)

const memory = (pid: number): number => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024

test.runIf(isPossible)(`idle for ${SECONDS} seconds, the program needs no more memory at the end than at the beginning`, { timeout: (SECONDS + 400) * 1000 }, async () => {
  expect(kernelTests).toBe('run')
  await withLab(async (lab) => {
    lab.startIn('router', process.execPath, '-e', RECEIVER)
    const config = join(lab.dir, 'idle.json')
    const when = [{ type: ['alert', 'gap'] }]
    const inputs = { kernel: { type: 'kmsg', from: 'now' }, level: { type: 'table' }, flows: { type: 'conntrack' } }
    const outputs = { out: { type: 'stdout', when }, hook: { type: 'webhook', url: `http://127.0.0.1:${PORT}/in`, when } }
    writeFileSync(config, JSON.stringify({ version: 1, state: join(lab.dir, 'state'), inputs, outputs, http: { listen: '127.0.0.1:9469' } }))
    await until('the receiver listens', 60, async () => (await lab.exec('router', 'ss', '-Hltn', `sport = :${PORT}`)).trim() !== '')
    const watching = await new Watching(lab, 'router', '-c', config).isOpen(['kmsg', 'conntrack'])
    const isConnected = async (): Promise<boolean> => (await lab.exec('router', 'ss', '-Htn', 'state', 'established', `dport = :${PORT}`)).trim() !== ''
    await until('its connection to the receiver', 60, isConnected)
    await sleep(SETTLED_MS)
    const before = usedByAll(watching.pid)
    const atFirst = memory(watching.pid)
    const from = performance.now()
    await sleep(SECONDS * 1000)
    const seconds = (performance.now() - from) / 1000
    const after = usedByAll(watching.pid)
    const share = (total(after) - total(before)) / seconds
    const resident = memory(watching.pid)
    console.info(`idle for ${seconds.toFixed(0)} s: ${(share * 100).toFixed(2)} % of one core for ${after.size} processes, ${resident.toFixed(1)} MiB`)
    expect(await isConnected()).toBe(true)
    // itself, and conntrack with what watches over it
    expect(after.size).toBeGreaterThanOrEqual(3)
    expect(resident / atFirst).toBeLessThan(1.2)
    expect((await watching.stop()).status).toBe(0)
  })
})
