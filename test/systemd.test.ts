/**
 * What systemd is told, read by a real AF_UNIX datagram socket that python3 holds; when the watchdog is told anything at all; and where secrets are read that systemd
 * has handed over.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { check } from '../src/commands/check.js'
import { loadConfig, type ReadFile } from '../src/config.js'
import { type Notifier, openNotifier, Progress, type Standing, watchdogEveryMs } from '../src/systemd.js'
import { credentialName } from '../src/unit.js'
import { cleanUp, Program } from './process-harness.js'

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
  const CONFIG = '/etc/conntrail.yaml'
  const hook = (token: string, more = ''): string => `outputs: { hook: { type: webhook, url: "https://hook.example/in", token: { file: ${token} }${more} } }`
  const failure = (code: string): Error => Object.assign(new Error(`${code}: no`), { code })
  /** Files by their paths: what they hold, or why they cannot be read. */
  const reader = (files: Readonly<Record<string, string | Error>>): ReadFile => (path) => {
    const held = files[path] ?? failure('ENOENT')
    if (held instanceof Error) throw held
    return held
  }
  const tokenOf = async (token: string, files: Readonly<Record<string, string | Error>>, directory?: string): Promise<string | undefined> => {
    const { outputs } = await loadConfig(CONFIG, reader({ [CONFIG]: hook(token), ...files }), directory === undefined ? {} : { CREDENTIALS_DIRECTORY: directory })
    const [output] = outputs
    return output?.type === 'webhook' ? output.token?.reveal() : undefined
  }
  const checked = async (text: string, files: Readonly<Record<string, string | Error>>, env: Readonly<Record<string, string>> = {}): Promise<{ status: number; said: string }> => {
    let said = ''
    const hear = (more: string): void => void (said += more)
    return { status: await check(CONFIG, false, { read: reader({ [CONFIG]: text, ...files }), env, print: hear, printError: hear }), said }
  }
  const HERE = '/run/credentials/conntrail.service'

  test.each([
    ['handed over', '/etc/conntrail/token', { [`${HERE}/etc-conntrail-token`]: 'handed', '/etc/conntrail/token': 'own' }, 'handed'],
    ['handed over, and the file itself for root alone', '/etc/conntrail/token', { [`${HERE}/etc-conntrail-token`]: 'handed', '/etc/conntrail/token': failure('EACCES') }, 'handed'],
    ['not handed over', '/etc/conntrail/token', { '/etc/conntrail/token': 'own' }, 'own'],
    ['named as the service sees it', '/run/credentials/conntrail/pager', { [`${HERE}/pager`]: 'handed' }, 'handed'],
    ['named with the whole name of the unit', `${HERE}/pager`, { [`${HERE}/pager`]: 'handed' }, 'handed'],
  ])('are read where systemd has put them, else from their own path: %s', async (_, path, files, expected) => {
    expect(await tokenOf(path, files, HERE)).toBe(expected)
  })

  test.each([undefined, ''])('without a directory (%j) are read as ever', async (directory) => {
    expect(await tokenOf('/etc/token', { '/etc/token': 'own', '/etc-token': 'other' }, directory)).toBe('own')
  })

  test('that may not be read are no reason to look elsewhere', async () => {
    await expect(tokenOf('/etc/token', { [`${HERE}/etc-token`]: failure('EACCES'), '/etc/token': 'own' }, HERE)).rejects.toThrow('/etc/token cannot be read: this user may not read it')
  })

  test.each([
    ['to a service', '/etc/token', {}, HERE, '/etc/token cannot be read: there is no such file; systemd has handed over no credential etc-token: print the unit anew with conntrail service, and restart it'],
    ['to a service that may not read the file itself', '/etc/token', { '/etc/token': failure('EACCES') }, HERE, '/etc/token cannot be read: this user may not read it; systemd has handed over no credential etc-token: print'],
    ['to nobody', '/etc/token', {}, undefined, /\/etc\/token cannot be read: there is no such file$/],
    ['to nobody, and only root may read it', '/etc/token', { '/etc/token': failure('EACCES') }, undefined, '/etc/token cannot be read: this user may not read it; let this user read it, or hand it to a service as the credential etc-token'],
    ['but looked for where a service has it', '/run/credentials/conntrail/pager', {}, undefined, 'a service is handed it as the credential pager: LoadCredential=pager:/etc/credstore/pager in its unit'],
  ])('that are missing are named: handed %s', async (_, path, files, directory, says) => {
    await expect(tokenOf(path, files, directory)).rejects.toThrow(says)
  })

  test('a private key is read where it was handed over', async () => {
    const text = hook('/etc/token', ', tls: { cert_file: /etc/c.pem, key_file: /etc/k.pem }')
    const files = { [CONFIG]: text, '/etc/token': 'own', '/etc/k.pem': 'own' }
    const keyOf = async (more: object, env: object): Promise<unknown> => (await loadConfig(CONFIG, reader({ ...files, ...more }), { ...env })).outputs.map((output) => output.type === 'webhook' && output.tls.key_file)
    expect(await keyOf({ [`${HERE}/etc-k.pem`]: 'handed' }, { CREDENTIALS_DIRECTORY: HERE })).toEqual([`${HERE}/etc-k.pem`])
    expect(await keyOf({}, { CREDENTIALS_DIRECTORY: HERE })).toEqual(['/etc/k.pem'])
    expect(await keyOf({}, {})).toEqual(['/etc/k.pem'])
  })

  test('a check says which of them are not there, and looks where systemd will have them from', async () => {
    const text = hook('/run/credentials/conntrail/pager', ', tls: { cert_file: /etc/c.pem, key_file: /etc/k.pem }')
    expect(await checked(text, { '/etc/k.pem': 'key' })).toEqual({
      status: 2,
      said: '/etc/conntrail.yaml:1:74: outputs.hook.token: /run/credentials/conntrail/pager cannot be read: there is no such file; a service is handed it as the credential pager: LoadCredential=pager:/etc/credstore/pager in its unit\n',
    })
    expect(await checked(text, { '/etc/credstore/pager': 'stored' })).toEqual({ status: 0, said: '/etc/k.pem cannot be read: there is no such file\n' })
    expect(await checked(text, { '/etc/credstore/pager': 'stored', '/etc/k.pem': 'key' })).toEqual({ status: 0, said: '' })
    const faulty = await checked(text, { '/etc/credstore/pager': 'of two\nlines', '/etc/k.pem': 'key' })
    expect(faulty.status).toBe(2)
    expect(faulty.said).toContain('outputs.hook.token: /run/credentials/conntrail/pager has a line break')
    expect(faulty.said).not.toContain('of two')
  })

  test('the check before a reload sees those of the running service, and fails where the reload would', async () => {
    const env = { MAINPID: '77', CREDENTIALS_DIRECTORY: HERE }
    // to what it runs for a reload systemd does not show them
    const closed = { [`${HERE}/etc-token`]: failure('EACCES'), '/etc/token': failure('EACCES') }
    expect(await checked(hook('/etc/token'), { ...closed, [`/proc/77/root${HERE}/etc-token`]: 'handed' }, env)).toEqual({ status: 0, said: '' })
    const refused = await checked(hook('/etc/token'), closed, env)
    expect(refused.status).toBe(2)
    expect(refused.said).toContain('outputs.hook.token: /etc/token cannot be read: this user may not read it; systemd has handed over no credential etc-token')
    expect(await checked(hook('/etc/token'), { '/etc/token': 'own' }, { MAINPID: '77' })).toEqual({ status: 0, said: '' })
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

describe.skipIf(python === '')('the built program', () => {
  afterEach(cleanUp)

  test('says that it is ready when its inputs are open, and until then what it opens', async () => {
    const heard = await receiver(join(folder, 'notify'))
    heard.read()
    const go = join(folder, 'go')
    writeFileSync(join(folder, 'journalctl'), `#!/bin/sh\nuntil [ -e ${go} ]; do sleep 0.02; done\ncase "$*" in *--show-cursor*) echo '-- cursor: s=0;i=1' ;; *) exec sleep 600 ;; esac\n`, { mode: 0o755 })
    writeFileSync(join(folder, 'c.yaml'), `inputs:\n  log: { type: journal }\n  flows: { type: file, path: ${folder}/*.log }\noutputs: { all: { type: file, path: ${folder}/all.ndjson } }\n`)
    const program = new Program(['run', '-c', join(folder, 'c.yaml')], 'ignore', 'ignore', { NOTIFY_SOCKET: join(folder, 'notify'), PATH: `${folder}:${process.env['PATH']}` })
    expect(await heard.message()).toMatch(/^STATUS=opening log(, flows)?$/)
    writeFileSync(go, '')
    let message = await heard.message()
    while (message.startsWith('STATUS=opening')) message = await heard.message()
    // a glob that matches nothing is open when it has been looked at
    expect(message).toBe('READY=1\nSTATUS=0 lines read, 0 alerts, 0 gaps')
    program.signal('SIGTERM')
    expect(await heard.message()).toBe('STOPPING=1')
    expect((await program.ended).status).toBe(0)
  })

  test('does not say so when one of them cannot be opened', async () => {
    const heard = await receiver(join(folder, 'notify'))
    heard.read()
    const program = new Program(['run', '-i', `command:${folder}/not-there`, '-i', `${folder}/*.log`], 'ignore', 'ignore', { NOTIFY_SOCKET: join(folder, 'notify') })
    expect((await program.ended).status).toBe(3)
    const after = await notifier(join(folder, 'notify'))
    after.status('the end')
    const messages: string[] = []
    while (messages.at(-1) !== 'STATUS=the end') messages.push(await heard.message())
    expect(messages.filter((message) => message.includes('READY'))).toEqual([])
  })
})
