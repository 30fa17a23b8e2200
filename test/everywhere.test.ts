/** `netns: all` of the conntrack input, on files that look like /proc and like mounts of namespaces: each is listened in as long as it is there. */
import { linkSync, mkdirSync, mkdtempSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { everywhereFeed } from '../src/inputs/conntrack/everywhere.js'
import { type Feed, type Input, InputError } from '../src/stage.js'
import { until } from './process-harness.js'

let dir = ''
let feed: Feed | null = null
const began: string[] = []
const stopped: string[] = []
const refused = new Set<string>()

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'conntrail-everywhere-'))
  for (const folder of ['proc/self/ns', 'proc/1/ns', 'mounts']) mkdirSync(join(dir, folder), { recursive: true })
  writeFileSync(join(dir, 'proc/self/ns/net'), '')
  linkSync(join(dir, 'proc/self/ns/net'), join(dir, 'proc/1/ns/net'))
  began.length = 0
  stopped.length = 0
  refused.clear()
})

afterEach(() => {
  feed?.abort()
  rmSync(dir, { recursive: true })
})

const mount = (name: string): void => writeFileSync(join(dir, 'mounts', name), '')

function everywhere(once = false): { readonly opened: Promise<void>; readonly inputs: Input[] } {
  const inputs: Input[] = []
  feed = everywhereFeed({
    ...{ name: 'flows', once, searchMs: 20, places: { proc: join(dir, 'proc'), mounts: [join(dir, 'mounts')] } },
    make: (netns, number) => {
      const called = netns?.name ?? 'self'
      return {
        name: `${called} ${number}`,
        open: async () => {
          if (refused.has(called)) throw new InputError('denied', `${called} may not be entered`)
          began.push(called)
        },
        stop: () => stopped.push(called),
        abort: () => stopped.push(called),
      }
    },
  })
  return { opened: feed.open((input) => inputs.push(input)), inputs }
}

test('those that are there, those that come, and none that are gone', async () => {
  mount('a')
  const { opened } = everywhere()
  await until(() => began.length === 2)
  expect(began).toEqual(['self', 'a'])
  mount('b')
  await until(() => began.includes('b'))
  unlinkSync(join(dir, 'mounts/a'))
  await until(() => stopped.length === 1)
  expect(stopped).toEqual(['a'])
  // another one at the same mount is what its feed sees for itself
  mount('new')
  await until(() => began.includes('new'))
  writeFileSync(join(dir, 'next'), '')
  renameSync(join(dir, 'next'), join(dir, 'mounts/b'))
  mount('last')
  await until(() => began.includes('last'))
  feed!.stop()
  await opened
  expect(began.filter((name) => name === 'b').length).toBe(1)
  expect(stopped.filter((name) => name === 'b').length).toBe(1)
  expect(stopped).toContain('self')
})

test('one that may not be entered is told once, and the others are listened in; when it is all of them there is no input', async () => {
  mount('a')
  refused.add('a')
  const { inputs } = everywhere()
  await until(() => inputs.length === 1)
  await inputs[0]!.next()
  expect(inputs[0]!.notices).toEqual([{ diagnostic: 'a may not be entered' }])
  expect(began).toEqual(['self'])
  feed!.abort()
  refused.add('self')
  await expect(everywhere().opened).rejects.toMatchObject({ kind: 'denied' })
})

test('with once those that are there now', async () => {
  mount('a')
  await everywhere(true).opened
  expect(began).toEqual(['self', 'a'])
})
