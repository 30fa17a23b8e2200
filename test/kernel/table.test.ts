/** The `table` input on the real kernel: what it says was dropped is what the kernel counted, and it leaves nothing behind in the namespaces that it looks into. */
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Levels } from '../../src/detectors/levels.js'
import { counterNames, type TableRecord } from '../../src/event.js'
import { readToolText } from '../../src/formats/stat-columns.js'
import { findNamespace, initialNamespaceInode, inodeOf, ownNamespace } from '../../src/inputs/namespaces.js'
import { tableFeed } from '../../src/inputs/table.js'
import type { Input } from '../../src/stage.js'
import { A, kernelTests, type Lab, required, run, until, withLab } from './namespaces.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
const LIMIT = 300
const TRACKED = 'table inet filter { chain forward { type filter hook forward priority 0; ct state invalid drop; }\n}'
const can = kernelTests === 'run'
if (!can && !required) console.warn(`tests on the real kernel are left out: ${kernelTests}`)

const now = () => {
  const microseconds = Date.now() * 1000
  return { sec: Math.floor(microseconds / 1e6), usec: microseconds % 1e6 }
}

/** A feed that is read until it ends. */
class Watch {
  readonly records: TableRecord[] = []
  readonly words: string[] = []
  readonly #feed
  #ended: Promise<void> = Promise.resolve()

  constructor(netns: string[], everyMs: number) {
    this.#feed = tableFeed({ name: 'table', random: 'r', now, env: process.env, netns, everyMs })
  }

  async start(): Promise<void> {
    const inputs: Input[] = []
    await this.#feed.open((input) => inputs.push(input))
    this.#ended = this.#read(inputs[0]!)
  }

  async #read(input: Input): Promise<void> {
    const levels = new Levels()
    while ((await input.next()) !== 0) {
      for (const { sample, diagnostic } of input.notices) {
        if (sample !== undefined) this.records.push(levels.sample(sample))
        if (diagnostic !== undefined) this.words.push(diagnostic)
      }
    }
    input.close()
  }

  stop(): Promise<void> {
    this.#feed.stop()
    return this.#ended
  }
}

/** `flows` datagrams from one socket, each to another port: each wants an entry of its own. */
const flood = (lab: Lab, flows: number, from: number): Promise<string> =>
  lab.exec('client', process.execPath, '-e', `const u=require('dgram').createSocket('udp4');let n=0;const next=()=>n<${flows}?u.send('x',${from}+n++,'${A.server}',()=>setImmediate(next)):u.close();next()`)

/** The sums of `conntrack -S` by name. */
async function counters(lab: Lab): Promise<Record<string, number>> {
  const { cpus } = readToolText(await lab.exec('router', 'conntrack', '-S'))!
  return Object.fromEntries(counterNames.flatMap((name) => (cpus[0]![name] === undefined ? [] : [[name, cpus.reduce((sum, cpu) => sum + cpu[name]!, 0)]])))
}

test.runIf(can || required)('drops are exactly what the kernel counted, in a namespace that nobody lives in', async () => {
  expect(kernelTests).toBe('run')
  await withLab(async (lab) => {
    const before = readFileSync(MAX, 'latin1').trim()
    const router = lab.name('router')
    const watch = new Watch([router, 'self'], 100)
    try {
      await lab.nft('router', TRACKED)
      writeFileSync(MAX, String(LIMIT))
      await watch.start()
      const seen = () => watch.records.filter(({ netnsName }) => netnsName === router)
      await until('a first sample of the router', 10, async () => seen().length > 0)
      const first = await counters(lab)
      await flood(lab, 1500, 20_000)
      await sleep(300)
      await flood(lab, 500, 30_000)
      const last = await counters(lab)
      await watch.stop()

      const records = seen()
      expect(watch.words).toEqual([])
      expect(last.drop! - first.drop!).toBeGreaterThan(500)
      const sum = (key: 'drop' | 'earlyDrop' | 'insertFailed') => records.slice(1).reduce((all, record) => all + record[key], 0)
      expect({ drop: sum('drop'), early: sum('earlyDrop'), races: sum('insertFailed') }).toEqual({
        drop: last.drop! - first.drop!,
        early: last.early_drop! - first.early_drop!,
        races: last.insert_failed! - first.insert_failed!,
      })
      expect(records.at(-1)!.total).toMatchObject(last)
      expect(Math.max(...records.map(({ count }) => count))).toBeGreaterThan(LIMIT * 0.9)
      expect(records.at(-1)).toMatchObject({ netns: inodeOf(`/run/netns/${router}`), max: LIMIT, timeSource: 0 })
      expect(watch.records.some(({ netns }) => netns === ownNamespace().inode)).toBe(true)
      await until('nothing of ours is left in the router', 5, async () => (await lab.pids('router')).length === 0)
    } finally {
      await watch.stop()
      writeFileSync(MAX, before)
    }
  })
})

test.runIf(can || required)('a namespace that is deleted is let go, and found again under its name', async () => {
  await withLab(async (lab) => {
    const name = `${lab.name('router')}-x`
    const watch = new Watch([name, 'self'], 50)
    const inodes = () => [...new Set(watch.records.filter(({ netnsName }) => netnsName === name).map(({ netns }) => netns))]
    try {
      await run('ip', ['netns', 'add', name])
      const inode = findNamespace(name)!.inode
      await watch.start()
      await until('a sample of it', 10, async () => inodes().length === 1)
      expect(inodes()).toEqual([inode])
      await run('ip', ['netns', 'del', name])
      await until('it is missed', 10, async () => watch.words.length > 0)
      expect(watch.words.join()).toContain(JSON.stringify(name))
      // no process of ours keeps it alive
      expect((await run('lsns', ['-t', 'net', '-n', '-o', 'NS'])).split('\n').map(Number)).not.toContain(inode)
      await run('ip', ['netns', 'add', name])
      const samples = watch.records.length
      await until('samples again', 10, async () => watch.records.slice(samples).some(({ netnsName }) => netnsName === name))
    } finally {
      await watch.stop()
      await run('ip', ['netns', 'del', name]).catch(() => '')
    }
  })
})

test.runIf(can || required)('the numbers of namespaces are those that the kernel prints', () => {
  const own = ownNamespace()
  expect(readlinkSync('/proc/self/ns/net')).toBe(`net:[${own.inode}]`)
  expect(findNamespace('self')).toMatchObject({ inode: own.inode })
  expect(findNamespace(own.inode)).toMatchObject({ inode: own.inode })
  // the tests run as root on a machine of their own, or in a container that has another network
  if (readlinkSync('/proc/self/ns/pid') === 'pid:[4026531836]' && inodeOf('/proc/2/ns/net') !== 0) expect(initialNamespaceInode()).toBe(inodeOf('/proc/2/ns/net'))
})
