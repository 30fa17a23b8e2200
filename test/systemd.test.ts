/**
 * What systemd is told, read by a real AF_UNIX datagram socket that python3 holds; and when the watchdog is told anything at all.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Notifier, openNotifier, Progress, readCredentials, type Standing, watchdogEveryMs } from '../src/systemd.js'
import { credentialName } from '../src/unit.js'

const python = spawnSync('python3', ['-c', 'import socket']).status === 0 ? 'python3' : ''
/** Says `bound`, waits for a line on its stdin, then prints each datagram as one line of JSON. */
const RECEIVER = `
import json, socket, sys
name = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind('\\0' + name[1:] if name.startswith('@') else name)
print('bound', flush=True)
sys.stdin.readline()
while True:
    print(json.dumps(receiver.recv(65536).decode()), flush=True)
`

let folder: string
let receivers: ChildProcess[]
let open: Notifier[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'conntrail-systemd-'))
  receivers = []
  open = []
})
afterEach(() => {
  for (const notifier of open) notifier.close()
  for (const child of receivers) child.kill('SIGKILL')
  rmSync(folder, { recursive: true })
})

class Receiver {
  readonly #lines: AsyncIterator<string>
  readonly #child: ChildProcess

  constructor(child: ChildProcess, lines: Interface) {
    this.#child = child
    this.#lines = lines[Symbol.asyncIterator]()
  }

  read(): void {
    this.#child.stdin!.write('go\n')
  }

  async line(): Promise<string> {
    return String((await this.#lines.next()).value)
  }

  async message(): Promise<string> {
    return JSON.parse(await this.line()) as string
  }
}

async function receiver(name: string): Promise<Receiver> {
  const child = spawn(python, ['-c', RECEIVER, name], { stdio: ['pipe', 'pipe', 'inherit'] })
  receivers.push(child)
  const made = new Receiver(child, createInterface(child.stdout))
  expect(await made.line()).toBe('bound')
  return made
}

async function notifier(socket: string | undefined, said: string[] = [], load?: () => Promise<unknown>): Promise<Notifier> {
  const made = await openNotifier({ socket, monotonic: () => 1234.9, report: (message) => said.push(message), ...(load === undefined ? {} : { load }) })
  open.push(made)
  return made
}

describe.skipIf(python === '')('with python3 as the listener, systemd', () => {
  test.each([
    ['a path', () => join(folder, 'notify')],
    ['a path with a blank and other letters', () => join(folder, 'nötify me')],
    ['an abstract name', () => `@conntrail-test-${folder.slice(-6)}`],
  ])('hears everything at %s', async (_, name) => {
    const said: string[] = []
    const heard = await receiver(name())
    heard.read()
    const told = await notifier(name(), said)
    expect(told.isActive).toBe(true)
    told.ready('3 inputs are open')
    told.status('two lines\nand a bell \x07')
    told.watchdog()
    told.reloading()
    told.ready()
    told.stopping()
    const messages = []
    for (let i = 0; i < 6; i++) messages.push(await heard.message())
    expect(messages).toEqual(['READY=1\nSTATUS=3 inputs are open', 'STATUS=two lines and a bell  ', 'WATCHDOG=1', 'RELOADING=1\nMONOTONIC_USEC=1234', 'READY=1', 'STOPPING=1'])
    expect(said).toEqual([])
  })

  test('holds up nothing when it does not read, and hears what matters when it does', async () => {
    const said: string[] = []
    const heard = await receiver(join(folder, 'notify'))
    const told = await notifier(join(folder, 'notify'), said)
    // far more than the kernel keeps for a listener (net.unix.max_dgram_qlen, and its buffer)
    for (let i = 0; i < 5000; i++) told.status(`${i} ${'x'.repeat(500)}`)
    told.reloading()
    told.ready('the end')
    heard.read()
    const messages: string[] = []
    while (messages.at(-1) !== 'READY=1\nSTATUS=the end') messages.push(await heard.message())
    expect(messages.length).toBeLessThan(5000)
    expect(messages.at(-2)).toBe('RELOADING=1\nMONOTONIC_USEC=1234')
    // the status that waited is older than that of the end, and left out
    expect(messages.filter((message) => message.startsWith('STATUS=4999 '))).toEqual([])
    expect(said).toEqual([])
  })

  test('is told again when it comes back, and its absence is reported once', async () => {
    const said: string[] = []
    const told = await notifier(join(folder, 'notify'), said)
    told.ready()
    told.watchdog()
    told.status('still here')
    expect(said).toEqual([`systemd does not listen at ${join(folder, 'notify')} (ENOENT): it is told nothing until it does`])
    const heard = await receiver(join(folder, 'notify'))
    heard.read()
    expect([await heard.message(), await heard.message(), await heard.message()]).toEqual(['READY=1', 'WATCHDOG=1', 'STATUS=still here'])
    expect(said).toHaveLength(1)
  })

  test('hears a long status up to a length that fits a datagram', async () => {
    const heard = await receiver(join(folder, 'notify'))
    heard.read()
    const told = await notifier(join(folder, 'notify'))
    told.status('ü'.repeat(100_000))
    expect(await heard.message()).toBe(`STATUS=${'ü'.repeat(1000)}`)
  })

  test('hears nothing after close', async () => {
    const heard = await receiver(join(folder, 'notify'))
    heard.read()
    const told = await notifier(join(folder, 'notify'))
    told.stopping()
    told.close()
    told.close()
    told.watchdog()
    const other = await notifier(join(folder, 'notify'))
    other.status('another')
    expect([await heard.message(), await heard.message()]).toEqual(['STOPPING=1', 'STATUS=another'])
  })
})

describe('without somebody to talk to', () => {
  const everything = (told: Notifier): void => {
    told.ready('x')
    told.status('x')
    told.watchdog()
    told.reloading()
    told.stopping()
    told.close()
  }

  test.each([undefined, ''])('NOTIFY_SOCKET %j loads no library and does nothing', async (socket) => {
    let loads = 0
    const said: string[] = []
    const told = await notifier(socket, said, async () => loads++)
    everything(told)
    expect([told.isActive, loads, said]).toEqual([false, 0, []])
  })

  test.each(['vsock:2:1234', 'relative/path', '/', '@', `/${'x'.repeat(107)}`, `@${'ü'.repeat(54)}`, '/a\0b'])('NOTIFY_SOCKET %j is reported once', async (socket) => {
    const said: string[] = []
    const told = await notifier(socket, said)
    everything(told)
    expect(told.isActive).toBe(false)
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('expected a path or an abstract name (@...) of at most 107 bytes')
  })

  test('a library that cannot be loaded is named, with what mends it', async () => {
    const said: string[] = []
    const told = await notifier('/run/systemd/notify', said, () => Promise.reject(new Error("Cannot find package 'koffi' imported from /x/systemd.js\nmore")))
    everything(told)
    expect(told.isActive).toBe(false)
    expect(said).toHaveLength(1)
    expect(said[0]).toContain("koffi cannot be loaded (Cannot find package 'koffi' imported from /x/systemd.js), so systemd is told nothing: install it with npm install koffi@2")
    expect(said[0]).toContain('Type=exec')
  })
})

describe('the watchdog', () => {
  test.each([
    [{ WATCHDOG_USEC: '30000000' }, 7500],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '77' }, 7500],
    [{ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '78' }, 0],
    [{ WATCHDOG_USEC: '1' }, 1],
    [{ WATCHDOG_USEC: '0' }, 0],
    [{ WATCHDOG_USEC: '-1' }, 0],
    [{ WATCHDOG_USEC: 'soon' }, 0],
    [{}, 0],
  ])('is asked for %j every %i ms', (env, every) => {
    expect(watchdogEveryMs(env, 77)).toBe(every)
  })

  const asked = (...standings: readonly Standing[]): boolean[] => {
    const progress = new Progress()
    return standings.map((standing) => progress.isAlive(standing))
  }

  test('is told while nothing is in hand, however long', () => {
    const idle = { taken: 5, settled: 5, attempts: 0 }
    expect(asked({ taken: 0, settled: 0, attempts: 0 }, idle, idle, idle)).toEqual([true, true, true, true])
  })

  test('is told while work gets done, also when there is always more', () => {
    expect(asked({ taken: 9, settled: 3, attempts: 0 }, { taken: 20, settled: 4, attempts: 0 }, { taken: 21, settled: 20, attempts: 0 })).toEqual([true, true, true])
  })

  test('is not told while work in hand stands still, and again when it goes on', () => {
    const stuck = { taken: 9, settled: 3, attempts: 0 }
    expect(asked(stuck, stuck, { ...stuck, taken: 10 }, { ...stuck, settled: 4 })).toEqual([true, false, false, true])
  })

  test('is told while an output that holds up everything is seen to try', () => {
    const stuck = { taken: 9, settled: 3, attempts: 1 }
    expect(asked(stuck, { ...stuck, attempts: 2 }, { ...stuck, attempts: 2 })).toEqual([true, true, false])
  })
})

describe('credentials', () => {
  const missing = Object.assign(new Error('none'), { code: 'ENOENT' })

  test('are read where systemd has put them, else from their own path', () => {
    const files: Readonly<Record<string, string>> = { '/run/credentials/u/etc-conntrail-token': 'a', '/run/credentials/u/pager': 'b', '/etc/other': 'c' }
    const read = readCredentials((path) => {
      if (files[path] === undefined) throw missing
      return files[path]
    }, '/run/credentials/u')
    expect(['/etc/conntrail/token', '/run/credentials/conntrail/pager', '/etc/other'].map(read)).toEqual(['a', 'b', 'c'])
    expect(() => read('/nowhere')).toThrow(missing)
  })

  test('that may not be read are no reason to look elsewhere', () => {
    const denied = Object.assign(new Error('denied'), { code: 'EACCES' })
    const read = readCredentials((path) => {
      if (path.startsWith('/run/')) throw denied
      return 'own'
    }, '/run/credentials/u')
    expect(() => read('/etc/token')).toThrow(denied)
  })

  test('without a directory are read as ever', () => {
    const read = (path: string): string => path
    expect(readCredentials(read, undefined)).toBe(read)
    expect(readCredentials(read, '')).toBe(read)
  })

  test('have names that LoadCredential= takes, and no two paths the same', () => {
    const path = fc.array(fc.constantFrom('a', 'b', '-', '_', '.', ' ', ':', '%', '"', 'ü', '/x', '/'), { minLength: 1, maxLength: 12 }).map((parts) => `/${parts.join('')}`)
    fc.assert(
      fc.property(path, path, (one, other) => {
        expect(credentialName(one)).toMatch(/^[A-Za-z0-9._-]+$|^$/)
        if (one !== other) expect(credentialName(one)).not.toBe(credentialName(other))
      }),
    )
  })
})
