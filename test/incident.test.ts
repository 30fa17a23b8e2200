/** The recorded incident through the built program: the kernel's log alone, beside its counters, and with what came later. Its true counters: 4,937 dropped, 37 early. */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, type Result, scratch, shell } from './process-harness.js'

const path = (name: string): string => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
const log = path('kernel-log.incident.kmsg.linux-6.18.in')
const counters = path('incident.table.linux-6.18.in')
/** When that kernel was started: the flows of `incident.E-timestamp-id` have both clocks. */
const BOOT = '2026-11-22T09:50:20.173550Z'
const FULL = 'nf_conntrack: nf_conntrack: table full in netns 4026532246, dropping packet'

const once = (...args: string[]): Promise<Result> => shell('"$@"', 'run', '--once', '--host', 'gw1', '--boot-time', BOOT, ...args)
const alerts = (result: Result): Result['records'] => result.records.filter(({ type }) => type === 'alert')

afterEach(cleanUp)

describe('the incident', () => {
  test('by the kernel log alone: one episode, and the suppression line before it is not of it', async () => {
    const result = await once('-i', log)
    const found = alerts(result)
    expect(new Set(found.map(({ episode }) => episode)).size).toBe(1)
    expect(found.at(-1)).toMatchObject({ status: 'firing', final: true, netns: 4026532246, drops: { logged: 40, suppressed: 4220, at_least: 40, estimate: 4260 } })
    expect(found.at(-1)!['summary']).toBe('conntrack table full in netns 4026532246: at least 40 packets dropped since 10:14:50 (UTC); the kernel held back 4,220 more messages of whatever kind')
    expect(result.done).toMatchObject({ lines: 44, kernel: 44, rejected: 0, ignored: 0 })
  })

  test('beside the counters: the same one, counted as the kernel did', async () => {
    const found = alerts(await once('-i', log, '-i', counters))
    expect(new Set(found.map(({ episode }) => episode)).size).toBe(1)
    expect(found.map(({ seq }) => seq)).toEqual(found.map((_, i) => i + 1))
    expect(found.at(-1)).toMatchObject({ final: true, drops: { logged: 40, suppressed: 4220, at_least: 40, counted: 4937, early: 37, races: 0 } })
    expect(found.at(-1)!['summary']).toContain(': 4,937 packets dropped since ')
  })

  test('with lines of two minutes later: resolved before what they cause', async () => {
    const longer = scratch('longer.txt')
    writeFileSync(longer, `${readFileSync(log, 'utf8')}4,600,1620000000,-;${FULL}\n4,601,1620000100,-;${FULL}\n`)
    const { records } = await once('-i', longer)
    const later = records.findIndex(({ seq, type }) => type === 'kernel' && seq === 600)
    const resolved = records.findIndex(({ type, status }) => type === 'alert' && status === 'resolved')
    const next = records.findIndex(({ type, episode }, i) => type === 'alert' && i > resolved && episode !== records[resolved]!['episode'])
    expect(resolved).toBeGreaterThan(0)
    expect(resolved).toBeLessThan(later)
    expect(next).toBeGreaterThan(later)
    expect(records[resolved]).toMatchObject({ time: records[later]!['time'], drops: { logged: 40, suppressed: 4220, at_least: 40, estimate: 4260 } })
    expect(records.filter(({ type, seq }) => type === 'alert' && seq === 1)).toHaveLength(2)
  })

  test('read twice: the same bytes', async () => {
    const [first, second] = [await once('-i', log, '-i', counters), await once('-i', log, '-i', counters)]
    const withoutRun = (result: Result): string[] => result.lines
    expect(withoutRun(second)).toEqual(withoutRun(first))
    expect(first.lines.length).toBeGreaterThan(100)
  })

  test('in either order of the inputs: the same records', async () => {
    const [first, second] = [await once('-i', log, '-i', counters), await once('-i', counters, '-i', log)]
    expect([...second.lines].sort()).toEqual([...first.lines].sort())
  })
})
