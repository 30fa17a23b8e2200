/**
 * The systemd unit of a configuration: it grants what the inputs and outputs need and nothing more, systemd reads it without a complaint, and by systemd's own
 * count it is exposed little.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { service, unitFor, type UnitPlaces } from '../src/commands/service.js'
import { completeConfig } from '../src/config.js'

const hasAnalyze = spawnSync('systemd-analyze', ['security', '--help'], { encoding: 'utf8' }).stdout?.includes('--offline') ?? false

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'conntrail-unit-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

/** A program that is there on every machine stands for node: systemd looks whether it is. */
const places: UnitPlaces = { configPath: '/etc/conntrail/conntrail.yaml', execPath: '/bin/sh', scriptPath: '/usr/local/lib/conntrail/dist/main.js', cwd: '/etc/conntrail' }

async function unit(data: object, more: Partial<UnitPlaces> = {}): Promise<string> {
  return unitFor(await completeConfig(data, 'test', readFileSync, {}, { isLenient: true }), { ...places, ...more })
}

/** What an option is set to, each time that it is. */
function values(text: string, option: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${option}=`))
    .map((line) => line.slice(option.length + 1))
}

const value = (text: string, option: string): string | undefined => values(text, option)[0]

const watching = {}
const files = { state: '/var/lib/conntrail', inputs: { logs: { type: 'file', path: '/var/log/kern.log*' } }, outputs: { all: { type: 'file', path: '/var/log/conntrail/records.ndjson' } } }
const others = { state: '/var/lib/conntrail', inputs: { kernel: { type: 'kmsg' }, flows: { type: 'conntrack', netns: 'all' }, level: { type: 'table', netns: ['self', 'blue'] } } }
const everything = {
  ...others,
  inputs: { ...others.inputs, journal: { type: 'journal' }, logs: { type: 'file', path: '/var/log/kern.log*' } },
  outputs: { all: { type: 'file', path: '/var/log/conntrail/records.ndjson' }, pager: { type: 'webhook', url: 'https://am.example/', token: { file: '/etc/conntrail/token' } } },
  http: { listen: '127.0.0.1:9469' },
}

describe('what is granted', () => {
  test('to watch the host: its log and its connection tracking, no network', async () => {
    const text = await unit(watching, { configPath: null })
    expect(value(text, 'ExecStart')).toBe('/bin/sh /usr/local/lib/conntrail/dist/main.js run')
    expect(values(text, 'ExecReload')).toEqual([])
    expect(value(text, 'CapabilityBoundingSet')).toBe('CAP_NET_ADMIN CAP_SYSLOG')
    expect(value(text, 'AmbientCapabilities')).toBe('CAP_NET_ADMIN CAP_SYSLOG')
    expect(values(text, 'DeviceAllow')).toEqual(['/dev/kmsg r'])
    expect(value(text, 'DevicePolicy')).toBe('closed')
    // both would hide /dev/kmsg
    expect([value(text, 'PrivateDevices'), value(text, 'ProtectKernelLogs')]).toEqual([undefined, undefined])
    expect(value(text, 'RestrictAddressFamilies')).toBe('AF_UNIX AF_NETLINK')
    expect([value(text, 'IPAddressDeny'), value(text, 'IPAddressAllow')]).toEqual(['any', undefined])
    expect(value(text, 'SupplementaryGroups')).toBeUndefined()
    expect(value(text, 'LogRateLimitIntervalSec')).toBe('0')
  })

  test('for files: nothing but the group that may read them', async () => {
    const text = await unit(files)
    expect(value(text, 'CapabilityBoundingSet')).toBe('')
    expect(value(text, 'AmbientCapabilities')).toBeUndefined()
    expect(value(text, 'SupplementaryGroups')).toBe('adm')
    expect([value(text, 'PrivateDevices'), value(text, 'ProtectKernelLogs')]).toEqual(['yes', 'yes'])
    expect(values(text, 'DeviceAllow')).toEqual([])
    expect(value(text, 'RestrictAddressFamilies')).toBe('AF_UNIX')
    expect([value(text, 'StateDirectory'), value(text, 'LogsDirectory')]).toEqual(['conntrail', 'conntrail'])
    expect(value(text, 'DynamicUser')).toBe('yes')
    expect(value(text, 'LogRateLimitIntervalSec')).toBeUndefined()
  })

  test.each([
    ['kmsg', { type: 'kmsg' }, 'CAP_SYSLOG', undefined],
    ['journal', { type: 'journal' }, '', 'systemd-journal'],
    ['table', { type: 'table' }, '', undefined],
    ['conntrack', { type: 'conntrack' }, 'CAP_NET_ADMIN', undefined],
    ['dmesg as a command', { type: 'command', program: ['/usr/bin/dmesg', '-w'] }, 'CAP_SYSLOG', undefined],
    ['journalctl as a command', { type: 'command', program: ['journalctl', '-kf'] }, '', 'systemd-journal'],
    ['conntrack as a command', { type: 'command', program: ['conntrack', '-E'] }, 'CAP_NET_ADMIN', undefined],
    ['table of another namespace', { type: 'table', netns: 'blue' }, 'CAP_SYS_ADMIN CAP_SYS_PTRACE', undefined],
    ['conntrack of all namespaces', { type: 'conntrack', netns: ['all'] }, 'CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE', undefined],
  ])('for %s alone', async (_, input, capabilities, groups) => {
    const text = await unit({ inputs: { one: input } })
    expect(value(text, 'CapabilityBoundingSet')).toBe(capabilities)
    expect(value(text, 'SupplementaryGroups')).toBe(groups)
    expect(value(text, 'DeviceAllow')).toBe(capabilities.includes('CAP_SYSLOG') ? '/dev/kmsg r' : undefined)
    expect(value(text, 'RestrictAddressFamilies')).toBe(capabilities.includes('CAP_NET_ADMIN') ? 'AF_UNIX AF_NETLINK' : 'AF_UNIX')
    expect(value(text, 'RestrictNamespaces')).toBe(capabilities.includes('CAP_SYS_ADMIN') ? 'net' : 'yes')
  })

  test('CAP_SYS_ADMIN and CAP_SYS_PTRACE are explained', async () => {
    const text = (await unit(others)).replaceAll('\n# ', ' ')
    expect(text).toContain('CAP_SYS_ADMIN: to enter other network namespaces. It is nearly root')
    expect(text).toContain('CAP_SYS_PTRACE: to find the network namespaces of other processes')
    expect(text).toContain('No MemoryDenyWriteExecute=yes: Node compiles JavaScript to machine code')
    expect(value(text, 'MemoryDenyWriteExecute')).toBeUndefined()
  })

  test.each([
    ['a webhook: the network', { outputs: { pager: { type: 'webhook', url: 'https://am.example/' } } }, 'AF_UNIX AF_INET AF_INET6', undefined, undefined],
    ['metrics on loopback: that', { http: { listen: '127.0.0.1:9469' } }, 'AF_UNIX AF_INET AF_INET6', 'any', 'localhost'],
    ['metrics on IPv6 loopback: that', { http: { listen: '[::1]:9469' } }, 'AF_UNIX AF_INET AF_INET6', 'any', 'localhost'],
    ['metrics for others: the network', { http: { listen: '0.0.0.0:9469' } }, 'AF_UNIX AF_INET AF_INET6', undefined, undefined],
    ['metrics on a UNIX socket: none', { http: { listen: 'unix:/run/conntrail/http' } }, 'AF_UNIX', 'any', undefined],
  ])('for %s', async (_, more, families, deny, allow) => {
    const text = await unit({ inputs: { logs: { type: 'file', path: '/var/log/kern.log' } }, ...more })
    expect([value(text, 'RestrictAddressFamilies'), value(text, 'IPAddressDeny'), value(text, 'IPAddressAllow')]).toEqual([families, deny, allow])
    expect(value(text, 'RuntimeDirectory')).toBe('http' in more && more.http.listen.startsWith('unix:') ? 'conntrail' : undefined)
  })

  test('a low port needs its capability', async () => {
    expect(value(await unit({ ...files, http: { listen: '127.0.0.1:80' } }), 'AmbientCapabilities')).toBe('CAP_NET_BIND_SERVICE')
    expect(value(await unit({ ...files, http: { listen: '127.0.0.1:0' } }), 'AmbientCapabilities')).toBeUndefined()
  })

  test('a reload checks first', async () => {
    expect(values(await unit(files), 'ExecReload')).toEqual(['/bin/sh /usr/local/lib/conntrail/dist/main.js check /etc/conntrail/conntrail.yaml', '/bin/kill -HUP $MAINPID'])
  })

  test('what lies elsewhere needs a user with a name', async () => {
    const text = await unit({ ...files, state: '/srv/conn trail', outputs: { all: { type: 'file', path: '/var/log/records.ndjson' }, more: { type: 'file', path: '/var/lib/a:b/x' } } })
    expect([value(text, 'User'), value(text, 'DynamicUser')]).toEqual(['conntrail', undefined])
    expect(value(text, 'ReadWritePaths')).toBe('"/srv/conn trail" /var/log /var/lib/a:b')
    expect([value(text, 'StateDirectory'), value(text, 'LogsDirectory')]).toEqual([undefined, undefined])
    expect(text.replaceAll('\n# ', ' ')).toContain('chown conntrail for /srv/conn trail, /var/log, /var/lib/a:b.')
  })

  test('blanks, percent signs, quotes, backslashes and dollars stay what they are', async () => {
    const text = await unit(
      { ...files, state: '/var/lib/a b%n/c', outputs: { all: { type: 'file', path: '/var/log/100%/x y.ndjson' } } },
      { configPath: '/etc/my "own"/50% $HOME.yaml', execPath: '/opt/node 20%/bin/node', scriptPath: '/opt/back\\slash/main.js' },
    )
    expect(value(text, 'ExecStart')).toBe(String.raw`"/opt/node 20%%/bin/node" "/opt/back\\slash/main.js" run -c "/etc/my \"own\"/50%% $$HOME.yaml"`)
    expect(value(text, 'StateDirectory')).toBe('"a b%%n/c"')
    expect(value(text, 'LogsDirectory')).toBe('100%%')
  })

  test('homes, temporary directories, standard input and unknown programs are told', async () => {
    const text = (
      await unit(
        { inputs: { pipe: { type: 'stdin' }, tool: { type: 'command', program: ['/opt/probe', '-x'] }, logs: { type: 'file', path: '/tmp/x.log' } } },
        { execPath: '/root/.nvm/node', variables: ['HOST_NAME'] },
      )
    ).replaceAll('\n# ', ' ')
    expect(value(text, 'ProtectHome')).toBe('read-only')
    for (const note of [
      '/root/.nvm/node lies in a home directory',
      '/tmp/x.log lies in a temporary directory',
      'a service has nothing on its standard input',
      'what /opt/probe needs is not known',
      'the configuration asks for HOST_NAME of the environment',
    ]) {
      expect(text).toContain(`Note: ${note}`)
    }
    expect(value(await unit(files), 'ProtectHome')).toBe('yes')
  })
})

describe('the command', () => {
  async function run(text: string, env: Readonly<Record<string, string>> = {}): Promise<{ status: number; out: string; error: string }> {
    let out = ''
    let error = ''
    const path = join(folder, 'conntrail.yaml')
    writeFileSync(path, text)
    const status = await service({ configPath: path, execPath: '/bin/sh', scriptPath: 'dist/main.js', cwd: '/opt/conntrail', read: readFileSync, env, print: (more) => (out += more), printError: (more) => (error += more) })
    return { status, out, error }
  }

  test('hands over secrets, whether they can be read now or not', async () => {
    const { status, out, error } = await run(`
outputs:
  a: { type: webhook, url: { file: /etc/conntrail/no-such-url }, token: { file: /run/credentials/conntrail/token } }
  b: { type: webhook, url: "https://b.example/", token: { file: relative/50% x }, tls: { cert_file: /etc/tls/c.pem, key_file: /etc/tls/k-1.pem } }
`)
    expect(status).toBe(0)
    expect(values(out, 'LoadCredential').sort()).toEqual([
      '.-relative-50_25__20_x:/opt/conntrail/relative/50%% x',
      'etc-conntrail-no_2d_such_2d_url:/etc/conntrail/no-such-url',
      'etc-tls-k_2d_1.pem:/etc/tls/k-1.pem',
      'token:/etc/credstore/token',
    ])
    expect(value(out, 'WorkingDirectory')).toBe('/opt/conntrail')
    expect(value(out, 'ExecStart')).toContain('/bin/sh /opt/conntrail/dist/main.js run -c ')
    expect(error).toContain('/etc/conntrail/no-such-url cannot be read')
  })

  test('never prints a secret', async () => {
    writeFileSync(join(folder, 'token'), 'hunter2')
    const { status, out, error } = await run(`outputs: { a: { type: webhook, url: "https://a.example/hunter3", token: { file: ${join(folder, 'token')} }, headers: { X-Key: { env: KEY } } } }`, { KEY: 'hunter4' })
    expect(status).toBe(0)
    expect(out + error).not.toMatch(/hunter\d/)
    expect(error).toContain('the configuration asks for KEY of the environment')
  })

  test('what the printing service was handed itself is not asked for', async () => {
    const { out, error } = await run('outputs: { a: { type: webhook, url: "https://a.example/", token: { file: /etc/conntrail/token } } }', { CREDENTIALS_DIRECTORY: folder })
    expect(values(out, 'LoadCredential')).toEqual(['etc-conntrail-token:/etc/conntrail/token'])
    expect(out + error).not.toContain('CREDENTIALS_DIRECTORY')
  })

  test('says what is wrong with a configuration and exits 2', async () => {
    const { status, out, error } = await run('outputs: { a: { type: fiel } }')
    expect([status, out]).toEqual([2, ''])
    expect(error).toMatch(/conntrail\.yaml:1:\d+: outputs\.a\.type/)
  })
})

describe.skipIf(!hasAnalyze)('systemd-analyze', () => {
  const analyze = (text: string, ...args: string[]): { status: number | null; said: string } => {
    const path = join(folder, 'conntrail.service')
    writeFileSync(path, text)
    const { status, stdout, stderr } = spawnSync('systemd-analyze', [...args, path], { encoding: 'utf8', env: { ...process.env, SYSTEMD_COLORS: '0', LC_ALL: 'C.UTF-8' } })
    return { status, said: stdout + stderr }
  }

  /** Its exposure, which 0 is none of. */
  const exposure = (text: string): number => Number(/Overall exposure level for \S+: ([\d.]+)/.exec(analyze(text, 'security', '--offline=true').said)?.[1])

  test.each([
    ['the default configuration', watching, 2.2],
    ['files only', files, 2],
    ['other namespaces watched', others, 3],
    ['everything, other namespaces and the network too', everything, 3],
  ])('finds %s exposed little', async (_, data, most) => {
    const text = await unit(data)
    expect(exposure(text)).toBeGreaterThan(0)
    expect(exposure(text)).toBeLessThanOrEqual(most)
    expect(exposure(text.replaceAll(/^SystemCallFilter=.*\n/gm, ''))).toBeGreaterThan(exposure(text))
  })

  test.each([
    ['the default configuration', watching, {}],
    ['files only', files, {}],
    ['everything', everything, {}],
    ['odd names of secrets', { ...everything, outputs: { pager: { type: 'webhook', url: 'https://am.example/', token: { file: '/etc/my %own/"x" y' } } } }, {}],
    ['a UNIX socket', { ...files, http: { listen: 'unix:/run/conntrail/http' } }, {}],
    ['elsewhere', { ...files, state: '/srv/conn trail/"x"\\y' }, {}],
    ['odd names', { ...files, state: '/var/lib/a b%n/c', outputs: { all: { type: 'file', path: '/var/log/100%/x y.ndjson' } } }, { configPath: '/etc/my "own"/50% $HOME.yaml', scriptPath: '/opt/a;b \\c/main.js' }],
    ['what needs notes', { inputs: { pipe: { type: 'stdin' } } }, { configPath: '/home/me/x%n\\.yaml', cwd: '/home/me/50% of' }],
    ['relative paths', { inputs: { logs: { type: 'file', path: 'x.log' } } }, { cwd: '/etc' }],
  ])('has no complaint about %s', async (_, data, more) => {
    expect(analyze(await unit(data, more), 'verify', '--man=no')).toEqual({ status: 0, said: '' })
  })

  test('would complain', async () => {
    const text = await unit(files)
    expect(analyze(text.replace('UMask=0077', 'UMask=rw'), 'verify', '--man=no').said).toContain('Failed to parse mode value')
    expect(analyze(text.replace('/bin/sh', '/bin/no-such-shell'), 'verify', '--man=no').said).toContain('/bin/no-such-shell')
  })
})
