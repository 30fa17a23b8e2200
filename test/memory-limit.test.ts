/** A spool without a folder in a control group with a limit of its own: it leaves room for the program. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, scratch, shell, until } from './process-harness.js'

/** cgroups(7): the memory controller of version 1, where the limit of a new group can be set. */
const GROUPS = '/sys/fs/cgroup/memory'
const isPossible = process.getuid?.() === 0 && existsSync(`${GROUPS}/memory.limit_in_bytes`)
const LIMIT = 144 << 20

afterEach(cleanUp)

test.runIf(isPossible)('the default spool in memory, its receiver down, in a group with less memory than the spool has: said at the start, and the program lives', async () => {
  const group = `${GROUPS}/conntrail-test-${process.pid}`
  mkdirSync(group)
  try {
    writeFileSync(`${group}/memory.limit_in_bytes`, String(LIMIT))
    // every flow in one connection: it is the spool that fills
    writeFileSync(scratch('events'), '[1795342488.859837]\t [UPDATE] udp      17 30 src=10.1.1.2 dst=10.1.2.2 sport=1024 dport=53 src=10.1.2.2 dst=10.1.1.2 sport=53 dport=1024 mark=1\n'.repeat(400_000))
    const hook = { type: 'webhook', url: 'http://127.0.0.1:9/in', when: { type: 'flow' }, when_full: 'drop_oldest' }
    writeFileSync(scratch('config.json'), JSON.stringify({ version: 1, inputs: { in: { type: 'stdin' } }, outputs: { hook } }))
    const { status, diagnostics, done } = await shell(`echo $$ >'${group}/cgroup.procs'; exec "$@" <'${scratch('events')}'`, 'run', '-c', scratch('config.json'))
    expect(status).toBe(0)
    expect(diagnostics.map(({ msg }) => msg as string).filter((message) => message.startsWith('the spool of hook may have 36 MiB instead of 244 MiB'))).toHaveLength(1)
    expect(done).toMatchObject({ lines: 400_000, flows: 400_000 })
  } finally {
    await until(() => {
      try {
        rmdirSync(group)
        return true
      } catch {
        return false
      }
    })
  }
})
