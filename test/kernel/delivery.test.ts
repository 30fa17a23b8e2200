/**
 * An alert that must leave while the kernel drops every new connection of the namespace that it is about, and how long the way from the kernel's line to a receiver
 * is. The receiver is in another namespace; what the program says is laid beside what the kernel counted.
 */
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import type { Record_ } from '../process-harness.js'
import { A, kernelTests, type Lab, required, until, withLab } from './namespaces.js'
import { quietKernel, Watching, withSetting } from './watching.js'

const MAX = '/proc/sys/net/netfilter/nf_conntrack_max'
/** The lock of the machine may be someone else's for long. */
const TIMEOUT = 400_000
const isPossible = kernelTests === 'run' || required
/** Behind each the kernel must have been quiet. */
const FIRST_LINES = process.env['CONNTRAIL_LONG_TESTS'] === '1' ? 5 : 2
const LIMIT = 300
const PORT = 8080

/** Prints, for each request, when it was whole, in milliseconds since the epoch, and its body. */
const RECEIVER = `const [address] = process.argv.slice(1)
require('node:http').createServer((request, response) => {
  let body = ''
  request.setEncoding('utf8').on('data', (text) => (body += text)).on('end', () => {
    console.log(JSON.stringify({ at: Date.now(), body }))
    response.writeHead(200).end()
  })
}).listen(${PORT}, address, () => console.log('ready'))`

/** Datagrams from one port to each of so many: each is a new connection. */
const FLOOD = `const [to, first, n] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
let i = 0
const next = () => i < n ? socket.send('x', +first + i++, to, () => setImmediate(next)) : socket.close()
socket.bind(0, next)`

const flood = (lab: Lab, first: number, n: number): Promise<string> => lab.exec('client', process.execPath, '-e', FLOOD, A.server, String(first), String(n))

/** Says whether a connection to the receiver can be made within a second. */
const KNOCK = `const socket = require('node:net').connect(${PORT}, '${A.server}', () => { console.log('made'); process.exit() })
socket.on('error', (error) => { console.log(error.code); process.exit() })
setTimeout(() => { console.log('dropped'); process.exit() }, 1000)`

interface Arrived {
  readonly at: number
  readonly records: readonly Record_[]
}

/**
 * The receiver runs on the server, at that address; the router's table has room for few and drops what more comes. The program runs beside the one or the other: the
 * kernel's log is everybody's.
 */
async function delivering(lab: Lab, role: 'router' | 'server', address: string, when: readonly object[], use: (arrived: readonly Arrived[]) => Promise<void>): Promise<void> {
  await lab.nft('router', 'table inet filter { chain forward { type filter hook forward priority 0; ct state invalid drop; }\nchain output { type filter hook output priority 0; ct state invalid drop; }\n}')
  await lab.nft('server', 'table inet filter { chain input { type filter hook input priority 0; udp dport 10000-60000 drop; }\n}')
  // as they are where nobody changed them: the program's connection stands idle for longer than the lab's few seconds
  await lab.exec('router', 'sh', '-ec', 'cd /proc/sys/net/netfilter; echo 432000 >nf_conntrack_tcp_timeout_established; echo 60 >nf_conntrack_udp_timeout')
  const receiver = lab.startIn('server', process.execPath, '-e', RECEIVER, address)
  const arrived: Arrived[] = []
  const lines = createInterface({ input: receiver.stdout })
  await once(lines, 'line')
  lines.on('line', (line) => {
    const { at, body } = JSON.parse(line) as { at: number; body: string }
    arrived.push({ at, records: body.split('\n').filter((text) => text !== '').map((text) => JSON.parse(text) as Record_) })
  })
  await withSetting(MAX, LIMIT, async () => {
    const path = join(lab.dir, 'delivery.json')
    const hook = { type: 'webhook', url: `http://${address}:${PORT}/in`, when, batch: { every: '0s' }, gzip: false }
    writeFileSync(path, JSON.stringify({ version: 1, inputs: { kmsg: { type: 'kmsg', from: 'now' } }, outputs: { out: { type: 'stdout' }, hook } }))
    const watching = await new Watching(lab, role, '-c', path).isOpen(['kmsg'])
    await until('its connection to the receiver', 10, async () => (await lab.exec(role, 'ss', '-Htn', 'state', 'established', `dport = :${PORT}`)).trim() !== '')
    await use(arrived)
    expect((await watching.stop()).status).toBe(0)
  })
}

/** How long after the first of the router's drops that `use` brings about something arrived, in milliseconds; `use` says when that was, by the clock of all processes. */
async function sinceFirstDrop(lab: Lab, use: () => Promise<number>): Promise<number> {
  const inside = lab.startIn('router', 'sleep', '60')
  await until('a process in the router', 5, async () => (await lab.pids('router')).includes(inside.pid!))
  const drops = (): number => {
    const [header = [], ...cpus] = readFileSync(`/proc/${inside.pid}/net/stat/nf_conntrack`, 'latin1').trim().split('\n').map((row) => row.trim().split(/\s+/))
    return cpus.reduce((sum, cpu) => sum + Number.parseInt(cpu[header.indexOf('drop')]!, 16), 0)
  }
  const before = drops()
  let droppedAt = Infinity
  const timer = setInterval(() => {
    const now = Date.now()
    if (drops() > before) droppedAt = Math.min(droppedAt, now)
  }, 2)
  try {
    return (await use()) - droppedAt
  } finally {
    clearInterval(timer)
    process.kill(inside.pid!, 'SIGKILL')
  }
}

test.runIf(isPossible)('with every new connection dropped the alert reaches the receiver all the same', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await delivering(lab, 'router', A.server, [{ type: 'alert' }], async (arrived) => {
      let knocked = ''
      await quietKernel()
      const took = await sinceFirstDrop(lab, async () => {
        await flood(lab, 10_000, 2000)
        knocked = await lab.exec('router', process.execPath, '-e', KNOCK)
        await until('the alert', 10, () => Promise.resolve(arrived.length > 0))
        return arrived[0]!.at
      })
      console.info(`from the first drop to the receiver: ${took} ms`)
      // what this is about: the one connection that was there before is the only way out
      expect(knocked.trim()).not.toBe('made')
      expect(arrived[0]!.records).toMatchObject([{ type: 'alert', rule: 'table_full', status: 'firing', seq: 1 }])
    })
  })
})

test.runIf(isPossible)('from the kernel\'s line to the receiver: each first line arrives, and how soon is printed', { timeout: TIMEOUT }, async () => {
  await withLab(async (lab) => {
    await delivering(lab, 'server', '127.0.0.1', [{ type: 'kernel' }, { type: 'alert' }], async (arrived) => {
      await flood(lab, 10_000, LIMIT + 20)
      const took: number[] = []
      for (let i = 0; i < FIRST_LINES; i++) {
        await quietKernel()
        const from = arrived.length
        const ms = await sinceFirstDrop(lab, async () => {
          await flood(lab, 20_000 + i * 1000, 400)
          await until('its line', 10, () => Promise.resolve(arrived.length > from))
          return arrived[from]!.at
        })
        took.push(ms)
      }
      console.info(`from the first drop to the receiver: ${took.join(', ')} ms`)
      expect(took.every(Number.isFinite)).toBe(true)
    })
  })
})
