/**
 * `conntrail doctor` on a host made of files and little programs below one folder: healthy it has nothing to say, and each fault that is planted there, alone, is
 * found, named and said how to mend. What a folder cannot have (a device, a full disk, a receiver) is answered by overrides of single questions.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { afterEach, describe, expect, test } from 'vitest'
import { checkIds, doctor, type DoctorOptions, thisHost } from '../src/commands/doctor.js'
import type { Host, Space } from '../src/doctor/host.js'

const CONFIG = '/etc/conntrail.yaml'
const healthyConfig = `
state: /var/lib/conntrail
inputs:
  kernel: { type: kmsg }
  journal: { type: journal }
  flows: { type: conntrack, netns: [self, blue] }
  level: { type: table }
  logs: { type: file, path: ROOT/var/log/kern.log*, timezone: UTC }
  tool: { type: command, program: [dmesg, -w], timezone: UTC }
outputs:
  all: { type: file, path: /var/log/conntrail/records.ndjson, rotate: { size: 1MB, keep: 2 } }
  pager: { type: webhook, url: "https://192.0.2.7/in", token: { file: /etc/conntrail/token } }
http: { listen: "127.0.0.1:9469" }
`
const notrack = `table inet conntrail {
	chain output { type filter hook output priority raw; policy accept;
		ip daddr 192.0.2.7 tcp dport 443 notrack
		oif "lo" notrack
	}
	chain prerouting { type filter hook prerouting priority raw; policy accept;
		ip saddr 192.0.2.7 tcp sport 443 notrack
	}
}
`
const NETLINK_HEAD = 'sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n'
const listener = (inode: number, drops: number) => `00000000c8239053 12  ${inode}       00000007 0        0        0     2        ${drops}        ${inode}\n`
const STAT = 'entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n'
const statRow = (chain: string) => `0000012c  00000000 00000000 00000000 00000000 00000000 00000000 ${chain} 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n`
const status = (uid: number, capabilities: string) => `Name:\tnode\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\nCapEff:\t${capabilities}\n`
const ALL = '000001ffffffffff'
const says = (text: string, code = 0, toStderr = false) => `#!/bin/sh\nprintf '%s\\n' '${text.replaceAll("'", "'\\''")}'${toStderr ? ' >&2' : ''}\nexit ${code}\n`

type Overrides = { -readonly [Key in keyof Host]?: Host[Key] }

/** A host in a folder. */
class Planted {
  readonly root = mkdtempSync(join(tmpdir(), 'conntrail-doctor-'))
  over: Overrides = {}
  space: Space = { type: 0xef53, freeBytes: 50e9, totalBytes: 100e9, freeInodes: 1e6, totalInodes: 2e6 }
  spaces: Record<string, Partial<Space>> = {}

  constructor() {
    const files: Record<string, string> = {
      '/proc/self/status': status(999, ALL),
      '/proc/self/limits': 'Limit                     Soft Limit           Hard Limit           Units\nMax open files            20000                20000                files\n',
      '/proc/self/mounts': 'proc /proc proc rw,nosuid,relatime 0 0\n',
      '/proc/net/netlink': NETLINK_HEAD + listener(900, 0),
      '/proc/net/stat/nf_conntrack': STAT + statRow('00000000'),
      '/proc/sys/kernel/osrelease': '6.18.3-cloud-amd64\n',
      '/proc/sys/kernel/random/boot_id': '0dc0a6c1-8a53-4c3e-9f2c-0d5b1f8b6a11\n',
      '/proc/sys/net/netfilter/nf_log/2': 'nf_log_ipv4\n',
      '/proc/sys/net/netfilter/nf_log/10': 'nf_log_ipv6\n',
      '/etc/resolv.conf': 'nameserver 192.0.2.53\n',
      '/etc/conntrail/token': 'sesame\n',
      [CONFIG]: healthyConfig.replace('ROOT', ''),
      '/var/log/kern.log': 'Nov 22 09:59:05 gw1 kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n',
      '/var/log/conntrail/records.ndjson': '',
      '/var/lib/conntrail/checkpoint': '',
    }
    for (const [path, content] of Object.entries(files)) this.write(path, content)
    const sysctls: Record<string, number> = {
      'fs.inotify.max_user_instances': 512, 'fs.inotify.max_user_watches': 65_536, 'kernel.dmesg_restrict': 1, 'net.core.message_burst': 10, 'net.core.message_cost': 5,
      'net.core.rmem_default': 8_388_608, 'net.netfilter.nf_conntrack_acct': 1, 'net.netfilter.nf_conntrack_buckets': 262_144, 'net.netfilter.nf_conntrack_count': 300,
      'net.netfilter.nf_conntrack_events': 1, 'net.netfilter.nf_conntrack_log_invalid': 0, 'net.netfilter.nf_conntrack_max': 262_144, 'net.netfilter.nf_conntrack_timestamp': 1,
    }
    for (const [name, value] of Object.entries(sysctls)) this.sysctl(name, value)
    chmodSync(this.root + CONFIG, 0o640)
    chmodSync(`${this.root}/etc/conntrail/token`, 0o600)
    this.program('conntrack', '#!/bin/sh\ncase $1 in -V) echo "conntrack v1.4.8 (conntrack-tools)";; -C) echo 300;; esac\n')
    this.program('journalctl', says('{"__CURSOR":"s=1","MESSAGE":"Linux version","_TRANSPORT":"kernel"}'))
    this.program('timedatectl', says('yes'))
    this.program('nft', says(notrack))
    for (const name of ['nsenter', 'dmesg']) this.program(name, says(''))
    this.write('/bin/sh', '#!/bin/true\n', 0o755)
  }

  write(path: string, content: string, mode = 0o644): void {
    mkdirSync(dirname(this.root + path), { recursive: true })
    writeFileSync(this.root + path, content)
    chmodSync(this.root + path, mode)
  }

  program(name: string, script: string): void {
    this.write(`/usr/bin/${name}`, script, 0o755)
  }

  sysctl(name: string, value: number): void {
    this.write(`/proc/sys/${name.replaceAll('.', '/')}`, `${value}\n`)
  }

  remove(path: string): void {
    rmSync(this.root + path, { recursive: true })
  }

  /** Another `key: { ... }` line of the configuration in place of the one there, or without it. */
  configure(from: string, to: string): void {
    const before = readFileSync(this.root + CONFIG, 'utf8')
    expect(before).toContain(from)
    this.write(CONFIG, before.replace(from, to), 0o640)
  }

  get host(): Host {
    const real = thisHost({ root: this.root, node: 'v22.12.0', env: { PATH: '/usr/bin' } })
    return {
      ...real,
      nowMs: () => Date.UTC(2026, 10, 22),
      zone: () => ({ name: 'UTC', hasSummerTime: false }),
      // the kernel's log, which no folder can have
      stat: (path) =>
        path === '/dev/kmsg'
          ? Promise.resolve({ isFile: false, isDirectory: false, isCharacterDevice: true, mode: 0o640, owner: 0, dev: 5, ino: 11, rdev: 0x10b })
          : real.stat(path).then((found) => ('code' in found ? found : { ...found, owner: 999 })),
      opens: (path) => (path === '/dev/kmsg' ? Promise.resolve('') : real.opens(path)),
      space: (path) => Promise.resolve({ ...this.space, ...this.spaces[path] }),
      mayWatch: () => Promise.resolve(''),
      mayListen: () => Promise.resolve(''),
      ownAddresses: () => ['127.0.0.1', '192.0.2.1'],
      ...this.over,
    }
  }

  async ask(options: Partial<DoctorOptions> = {}): Promise<{ status: number; text: string }> {
    let text = ''
    const read = (path: string) => readFileSync(this.root + path)
    const asked = { configFile: CONFIG, json: false, verbose: true, connect: false, ignore: [], ...options }
    return { status: await doctor(asked, { host: this.host, read, print: (more) => (text += more), printError: (more) => (text += more) }), text }
  }

  async findings(options: Partial<DoctorOptions> = {}): Promise<Record<string, string>[]> {
    const { findings } = JSON.parse((await this.ask({ ...options, json: true })).text) as { findings: Record<string, string>[] }
    return findings
  }
}

const made: Planted[] = []
const planted = (): Planted => {
  made.push(new Planted())
  return made.at(-1)!
}
afterEach(() => {
  for (const { root } of made.splice(0)) rmSync(root, { recursive: true, force: true })
})

const denied = (real: Host['opens'], ...paths: string[]): Host['opens'] => (path) => (paths.includes(path) ? Promise.resolve('EACCES') : real(path))
const connection = (code: string, message: string, days: number): Overrides => ({ connect: () => Promise.resolve({ code, message, validToMs: Date.UTC(2026, 10, 22) + days * 86_400_000 }) })

interface Case {
  readonly fault: string
  readonly plant: (on: Planted) => void
  readonly id: string
  readonly severity: 'critical' | 'warning' | 'info'
  readonly wrong: RegExp
  readonly mend: RegExp
  /** further findings that follow from the same fault */
  readonly also?: readonly string[]
  readonly options?: Partial<DoctorOptions>
}

const cases: readonly Case[] = [
  { fault: 'kmsg may not be read', plant: (on) => (on.write('/proc/self/status', status(999, '0000000000281000')), (on.over.opens = denied(on.host.opens, '/dev/kmsg'))), id: 'kmsg', severity: 'critical', wrong: /EACCES.*dmesg_restrict is 1.*CAP_SYSLOG/, mend: /CAP_SYSLOG/ },
  { fault: 'kmsg may not be read, in a unit with CAP_SYSLOG', plant: (on) => (on.over.opens = denied(on.host.opens, '/dev/kmsg')), id: 'kmsg', severity: 'critical', wrong: /EACCES/, mend: /DeviceAllow=\/dev\/kmsg r, PrivateDevices=no/ },
  { fault: 'no kmsg', plant: (on) => (on.over.opens = (path) => Promise.resolve(path === '/dev/kmsg' ? 'ENOENT' : '')), id: 'kmsg', severity: 'critical', wrong: /is not there/, mend: /mknod .* c 1 11/ },
  { fault: '/dev/null in place of kmsg', plant: (on) => { const { stat } = on.host; on.over.stat = async (path) => ({ ...((await stat(path)) as object), ...(path === '/dev/kmsg' ? { rdev: 0x103 } : {}) }) as never }, id: 'kmsg', severity: 'critical', wrong: /not the kernel's log/, mend: /mknod/ },
  { fault: 'no journalctl', plant: (on) => on.remove('/usr/bin/journalctl'), id: 'journal', severity: 'critical', wrong: /journalctl is not there/, mend: /kmsg instead/ },
  { fault: 'journal of others only', plant: (on) => on.program('journalctl', says('Hint: You are currently not seeing messages from other users and the system.', 1, true)), id: 'journal', severity: 'critical', wrong: /may not be read.*Hint/, mend: /systemd-journal/ },
  { fault: 'journal without the kernel', plant: (on) => on.program('journalctl', '#!/bin/sh\n'), id: 'journal', severity: 'critical', wrong: /no line of the kernel/, mend: /ReadKMsg=yes/ },
  { fault: 'no journal', plant: (on) => on.program('journalctl', says('No journal files were found.', 1, true)), id: 'journal', severity: 'critical', wrong: /no journal.*No journal files/, mend: /systemd-journald/ },
  { fault: 'boot id hidden', plant: (on) => on.remove('/proc/sys/kernel/random/boot_id'), id: 'boot-id', severity: 'warning', wrong: /ENOENT/, mend: /let this user read it/ },
  { fault: 'no conntrack tool', plant: (on) => on.remove('/usr/bin/conntrack'), id: 'conntrack-tool', severity: 'critical', wrong: /conntrack is not there/, mend: /apt install conntrack/ },
  { fault: 'conntrack tool that does not run', plant: (on) => on.program('conntrack', says('error while loading shared libraries: libnfct.so', 127, true)), id: 'conntrack-tool', severity: 'critical', wrong: /error while loading/, mend: /apt install conntrack/ },
  { fault: 'old conntrack tool', plant: (on) => on.program('conntrack', says('conntrack v1.4.5 (conntrack-tools)')), id: 'conntrack-release', severity: 'warning', wrong: /1\.4\.5/, mend: /1\.4\.6 or newer/ },
  { fault: 'buffer size that has no effect', plant: (on) => on.configure('type: conntrack,', 'type: conntrack, buffer: 64MiB,'), id: 'conntrack-buffer-option', severity: 'warning', wrong: /no effect with conntrack 1\.4\.8/, mend: /rmem_default=67108864/ },
  { fault: 'no CAP_NET_ADMIN', plant: (on) => on.program('conntrack', '#!/bin/sh\n[ $1 = -V ] && echo "conntrack v1.4.8 (conntrack-tools)" && exit\necho "conntrack v1.4.8 (conntrack-tools): Operation failed: sorry, you must be root or get CAP_NET_ADMIN capability to do this" >&2\nexit 1\n'), id: 'net-admin', severity: 'critical', wrong: /CAP_NET_ADMIN is missing/, mend: /setcap cap_net_admin/ },
  { fault: 'no ctnetlink', plant: (on) => on.program('conntrack', '#!/bin/sh\n[ $1 = -V ] && echo "conntrack v1.4.8 (conntrack-tools)" && exit\necho "mnl_socket_open: Protocol not supported" >&2\nexit 1\n'), id: 'ctnetlink', severity: 'critical', wrong: /Protocol not supported/, mend: /modprobe nf_conntrack_netlink/ },
  { fault: 'no shell', plant: (on) => on.remove('/bin/sh'), id: 'shell', severity: 'critical', wrong: /\/bin\/sh is not there/, mend: /install/ },
  { fault: 'program of a command input missing', plant: (on) => on.remove('/usr/bin/dmesg'), id: 'program', severity: 'critical', wrong: /dmesg .* is not there/, mend: /install dmesg/ },
  { fault: 'module not loaded', plant: (on) => (on.remove('/proc/sys/net/netfilter'), on.remove('/proc/net/stat')), id: 'module', severity: 'critical', wrong: /not loaded/, mend: /modprobe nf_conntrack/ },
  { fault: 'no /proc', plant: (on) => on.write('/proc/self/mounts', ''), id: 'proc', severity: 'critical', wrong: /not mounted/, mend: /mount -t proc/ },
  { fault: 'ProcSubset=pid', plant: (on) => (on.write('/proc/self/mounts', 'proc /proc proc rw,subset=pid 0 0\n'), on.remove('/proc/sys'), on.remove('/proc/net')), id: 'proc', severity: 'critical', wrong: /subset=pid/, mend: /start again without/ },
  { fault: 'hidepid', plant: (on) => (on.write('/proc/self/mounts', 'proc /proc proc rw,hidepid=2 0 0\n'), on.write('/proc/self/status', status(999, '0000000400201000'))), id: 'hidepid', severity: 'critical', wrong: /hidepid=2/, mend: /CAP_SYS_PTRACE/, also: ['other-namespaces'] },
  { fault: 'other namespaces without the right', plant: (on) => on.write('/proc/self/status', status(999, '0000000400001000')), id: 'other-namespaces', severity: 'critical', wrong: /blue needs CAP_SYS_ADMIN and CAP_SYS_PTRACE/, mend: /root/ },
  { fault: 'no nsenter', plant: (on) => on.remove('/usr/bin/nsenter'), id: 'other-namespaces', severity: 'critical', wrong: /nsenter is not there/, mend: /util-linux/ },
  { fault: 'no file of counters, tool works', plant: (on) => on.remove('/proc/net/stat'), id: 'stat-file', severity: 'info', wrong: /CONFIG_NF_CONNTRACK_PROCFS/, mend: /every/ },
  { fault: 'no file of counters and no tool', plant: (on) => (on.remove('/proc/net/stat'), on.remove('/usr/bin/conntrack')), id: 'stat-file', severity: 'critical', wrong: /conntrack -S.*does not work/, mend: /conntrack/, also: ['conntrack-tool'] },
  { fault: 'input that may not be read', plant: (on) => (on.over.opens = denied(on.host.opens, '/var/log/kern.log')), id: 'input-refused', severity: 'critical', wrong: /kern\.log cannot be read \(EACCES\)/, mend: /adm/ },
  { fault: 'input that is not there', plant: (on) => on.remove('/var/log/kern.log'), id: 'input-empty', severity: 'info', wrong: /nothing fits \/var\/log\/kern\.log/, mend: /compare/ },
  { fault: 'own output read by another name', plant: (on) => linkSync(`${on.root}/var/log/conntrail/records.ndjson`, `${on.root}/var/log/kern.log.mine`), id: 'own-output-read', severity: 'critical', wrong: /reads the file that output all writes/, mend: /exclude/ },
  { fault: "log shipper's own log read", plant: (on) => (on.write('/var/log/filebeat/filebeat.ndjson', ''), on.configure('/var/log/kern.log*', '/var/log/**/*.ndjson'), on.configure('timezone: UTC }', 'timezone: UTC, exclude: "/var/log/conntrail/**" }')), id: 'shipper-log-read', severity: 'warning', wrong: /filebeat\.ndjson/, mend: /exclude: \["\/var\/log\/filebeat/ },
  { fault: 'events off', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_events', 0), id: 'events-off', severity: 'critical', wrong: /is 0/, mend: /sysctl -w net\.netfilter\.nf_conntrack_events=1/ },
  { fault: 'events only while somebody listens', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_events', 2), id: 'events-auto', severity: 'info', wrong: /is 2/, mend: /nf_conntrack_events=1/ },
  { fault: 'accounting off', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_acct', 0), id: 'acct-off', severity: 'warning', wrong: /is 0/, mend: /nf_conntrack_acct=1/ },
  { fault: 'times off', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_timestamp', 0), id: 'timestamp-off', severity: 'warning', wrong: /is 0/, mend: /nf_conntrack_timestamp=1/ },
  { fault: 'small buffer', plant: (on) => on.sysctl('net.core.rmem_default', 212_992), id: 'event-buffer', severity: 'warning', wrong: /holds 166 events/, mend: /rmem_default=8388608/ },
  { fault: 'buffer too small for a large table', plant: (on) => (on.sysctl('net.netfilter.nf_conntrack_count', 1_000_000), on.sysctl('net.netfilter.nf_conntrack_max', 2_000_000), on.sysctl('net.netfilter.nf_conntrack_buckets', 2_000_000)), id: 'event-buffer', severity: 'warning', wrong: /table of 1,000,000 entries/, mend: /rmem_default=42991616`/ },
  { fault: 'listener that lost events', plant: (on) => (on.write('/proc/net/netlink', NETLINK_HEAD + listener(900, 5531)), mkdirSync(`${on.root}/proc/77/fd`, { recursive: true }), symlinkSync('socket:[900]', `${on.root}/proc/77/fd/4`), on.write('/proc/77/comm', 'ulogd\n')), id: 'listener-drops', severity: 'warning', wrong: /ulogd \(process 77\), has lost 5,531 events/, mend: /rmem_default/ },
  { fault: 'several listeners', plant: (on) => on.write('/proc/net/netlink', NETLINK_HEAD + listener(900, 0) + listener(901, 0)), id: 'several-listeners', severity: 'info', wrong: /2 sockets/, mend: /one program/ },
  { fault: 'no rate limit', plant: (on) => on.sysctl('net.core.message_cost', 0), id: 'no-rate-limit', severity: 'warning', wrong: /message_cost is 0/, mend: /message_cost=5/ },
  { fault: 'long rate limit', plant: (on) => on.sysctl('net.core.message_cost', 60), id: 'long-rate-limit', severity: 'warning', wrong: /rest of 60 s/, mend: /message_cost=5/ },
  { fault: 'no burst', plant: (on) => on.sysctl('net.core.message_burst', 0), id: 'no-burst', severity: 'critical', wrong: /message_burst is 0/, mend: /message_burst=10/ },
  { fault: 'log_invalid without a backend', plant: (on) => (on.sysctl('net.netfilter.nf_conntrack_log_invalid', 255), on.write('/proc/sys/net/netfilter/nf_log/2', 'NONE\n')), id: 'log-invalid-nowhere', severity: 'warning', wrong: /is 255, and there is no backend/, mend: /modprobe nf_log_syslog/ },
  { fault: 'table nearly full', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_max', 360), id: 'table-level', severity: 'warning', wrong: /300 of 360 entries \(83 %\)/, mend: /nf_conntrack_max=720/ },
  { fault: 'table full', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_max', 300), id: 'table-level', severity: 'critical', wrong: /100 %.*full/, mend: /nf_conntrack_max=600/ },
  { fault: 'no limit', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_max', 0), id: 'no-limit', severity: 'warning', wrong: /no limit/, mend: /nf_conntrack_max=262144/ },
  { fault: 'few buckets', plant: (on) => on.sysctl('net.netfilter.nf_conntrack_buckets', 16_384), id: 'long-chains', severity: 'warning', wrong: /chains of 32 entries/, mend: /nf_conntrack_buckets=262144/ },
  { fault: 'chains too long', plant: (on) => on.write('/proc/net/stat/nf_conntrack', STAT + statRow('000000ff')), id: 'long-chains', severity: 'warning', wrong: /255 entries were refused/, mend: /nf_conntrack_buckets=524288/ },
  { fault: 'old kernel', plant: (on) => on.write('/proc/sys/kernel/osrelease', '4.18.0-553.el8.x86_64\n'), id: 'old-kernel', severity: 'warning', wrong: /4\.18\.0-553/, mend: /5\.11/ },
  { fault: 'no inotify watch left', plant: (on) => (on.over.mayWatch = () => Promise.resolve('ENOSPC')), id: 'inotify', severity: 'warning', wrong: /no inotify watch left of 65536/, mend: /max_user_watches=262144/ },
  { fault: 'few inotify watches', plant: (on) => on.sysctl('fs.inotify.max_user_watches', 128), id: 'inotify', severity: 'warning', wrong: /128 watches/, mend: /max_user_watches=65536/ },
  { fault: 'few open files', plant: (on) => on.write('/proc/self/limits', 'Max open files            256                  256                files\n'), id: 'open-files', severity: 'warning', wrong: /At most 256 files/, mend: /ulimit -n/ },
  { fault: 'old Node', plant: (on) => on.over = { ...on.over, node: 'v18.20.4' }, id: 'node', severity: 'critical', wrong: /v18\.20\.4/, mend: /20\.19/ },
  { fault: 'no state directory named', plant: (on) => on.configure('state: /var/lib/conntrail\n', ''), id: 'state-none', severity: 'info', wrong: /No state directory/, mend: /state: / },
  { fault: 'state directory not writable', plant: (on) => (on.over.mayWrite = (path) => Promise.resolve(path === '/var/lib/conntrail' ? 'EACCES' : '')), id: 'state-directory', severity: 'critical', wrong: /may not be written \(EACCES\)/, mend: /install -d/ },
  { fault: 'state directory on a read-only file system', plant: (on) => (on.over.mayWrite = (path) => Promise.resolve(path === '/var/lib/conntrail' ? 'EROFS' : '')), id: 'state-directory', severity: 'critical', wrong: /read-only/, mend: /remount,rw/ },
  { fault: 'state directory that cannot be made', plant: (on) => (on.remove('/var/lib/conntrail'), (on.over.mayWrite = (path) => Promise.resolve(path === '/var/lib' ? 'EACCES' : ''))), id: 'state-directory', severity: 'critical', wrong: /is not there and cannot be made in \/var\/lib /, mend: /install -d .*\/var\/lib\/conntrail/ },
  { fault: 'state directory that is a file', plant: (on) => (on.remove('/var/lib/conntrail'), on.write('/var/lib/conntrail', '')), id: 'state-directory', severity: 'critical', wrong: /is no directory/, mend: /install -d/ },
  { fault: 'state directory not there yet', plant: (on) => on.remove('/var/lib/conntrail'), id: 'state-directory', severity: 'info', wrong: /not there yet/, mend: /install -d/ },
  { fault: 'state directory of another user', plant: (on) => on.write('/proc/self/status', status(1000, ALL)), id: 'state-owner', severity: 'warning', wrong: /belongs to user 999, and this is user 1000/, mend: /chown -R 1000/ },
  { fault: 'checkpoint left by root', plant: (on) => { const { stat } = on.host; on.over.stat = async (path) => ({ ...((await stat(path)) as object), ...(path.endsWith('/checkpoint') ? { owner: 0 } : {}) }) as never }, id: 'state-owner', severity: 'critical', wrong: /checkpoint.*belong to another user/, mend: /chown -R 999 \/var\/lib\/conntrail/ },
  { fault: 'disk nearly full', plant: (on) => (on.spaces['/var/lib/conntrail'] = { freeBytes: 600e6, totalBytes: 20e9 }), id: 'state-space', severity: 'warning', wrong: /572 MiB of/, mend: /free space/ },
  { fault: 'disk full', plant: (on) => (on.spaces['/var/lib/conntrail'] = { freeBytes: 0 }), id: 'state-space', severity: 'critical', wrong: /only 0 KiB/, mend: /free space/ },
  { fault: 'no inodes', plant: (on) => (on.spaces['/var/lib/conntrail'] = { freeInodes: 3 }), id: 'state-space', severity: 'critical', wrong: /only 3 inodes/, mend: /remove files/ },
  { fault: 'spools larger than the disk', plant: (on) => on.configure('token:', 'spool: 60GB, token:'), id: 'state-space', severity: 'warning', wrong: /may come to/, mend: /smaller limits/ },
  { fault: 'state in memory', plant: (on) => (on.spaces['/var/lib/conntrail'] = { type: 0x01021994 }), id: 'state-file-system', severity: 'warning', wrong: /in memory \(tmpfs\)/, mend: /on a disk/ },
  { fault: 'state on a network', plant: (on) => (on.spaces['/var/lib/conntrail'] = { type: 0x6969 }), id: 'state-file-system', severity: 'warning', wrong: /network file system \(nfs\)/, mend: /on a disk/ },
  { fault: "state in a container's layer", plant: (on) => (on.spaces['/var/lib/conntrail'] = { type: 0x794c7630 }), id: 'state-file-system', severity: 'warning', wrong: /overlay/, mend: /volume/ },
  { fault: 'output directory missing', plant: (on) => on.remove('/var/log/conntrail'), id: 'output-directory', severity: 'critical', wrong: /\/var\/log\/conntrail is not there/, mend: /install -d/ },
  { fault: 'output not writable', plant: (on) => (on.over.mayWrite = (path) => Promise.resolve(path.endsWith('.ndjson') ? 'EACCES' : '')), id: 'output-directory', severity: 'critical', wrong: /records\.ndjson may not be written/, mend: /chown/ },
  { fault: 'disk of an output full', plant: (on) => (on.spaces['/var/log/conntrail'] = { freeBytes: 1e6 }), id: 'output-space', severity: 'critical', wrong: /Output all: only 977 KiB/, mend: /free space/ },
  { fault: 'output on a network', plant: (on) => (on.spaces['/var/log/conntrail'] = { type: 0xff534d42 }), id: 'output-file-system', severity: 'warning', wrong: /cifs/, mend: /on a disk/ },
  { fault: 'faulty configuration', plant: (on) => on.configure('type: table', 'type: tabel'), id: 'config-error', severity: 'critical', wrong: /conntrail\.yaml:\d+:\d+: inputs\.level\.type: "tabel".*did you mean "table"/, mend: /conntrail check/ },
  { fault: 'secret not there', plant: (on) => on.remove('/etc/conntrail/token'), id: 'config-warning', severity: 'critical', wrong: /\/etc\/conntrail\/token cannot be read/, mend: /LoadCredential=/ },
  { fault: 'key that may not be read', plant: (on) => (on.configure('token:', 'tls: { cert_file: /etc/c.pem, key_file: /etc/c.key }, token:'), on.write('/etc/c.key', '', 0o600), (on.over.opens = denied(on.host.opens, '/etc/c.key'))), id: 'secret-refused', severity: 'critical', wrong: /\/etc\/c\.key cannot be read/, mend: /chown/ },
  { fault: 'secret for every user to read', plant: (on) => chmodSync(`${on.root}/etc/conntrail/token`, 0o644), id: 'secret-open', severity: 'warning', wrong: /token .*every user \(mode 644\)/, mend: /chmod o-rwx/ },
  { fault: 'configuration for every user to write', plant: (on) => chmodSync(on.root + CONFIG, 0o666), id: 'secret-open', severity: 'critical', wrong: /written by every user \(mode 666\)/, mend: /chmod o-rwx/ },
  { fault: 'token in a configuration for all to read', plant: (on) => (on.configure('{ file: /etc/conntrail/token }', 'open-sesame'), chmodSync(on.root + CONFIG, 0o644)), id: 'secret-open', severity: 'warning', wrong: /conntrail\.yaml holds a secret/, mend: /chmod/ },
  { fault: 'name of a receiver that nobody knows', plant: (on) => (on.configure('192.0.2.7', 'am.example'), (on.over.resolve = () => Promise.resolve({ code: 'ENOTFOUND' }))), id: 'receiver-name', severity: 'critical', wrong: /am\.example cannot be resolved \(ENOTFOUND\)/, mend: /resolv\.conf/ },
  { fault: 'alert path tracked', plant: (on) => on.program('nft', says('table inet f { chain i { ct state established accept } }')), id: 'receiver-tracked', also: ['http-tracked'], severity: 'warning', wrong: /traffic to 192\.0\.2\.7/, mend: /ip daddr 192\.0\.2\.7 tcp dport 443 notrack; .*ip saddr 192\.0\.2\.7 tcp sport 443 notrack/ },
  { fault: 'alert path exempt in one direction only', plant: (on) => (on.program('nft', says('')), on.program('iptables-save', says('*raw\n-A OUTPUT -d 192.0.2.7/32 -p tcp -m tcp --dport 443 -j CT --notrack\nCOMMIT'))), id: 'receiver-tracked', also: ['http-tracked'], severity: 'warning', wrong: /is tracked/, mend: /ip saddr 192\.0\.2\.7/ },
  { fault: 'name lookups tracked', plant: (on) => (on.configure('192.0.2.7', 'am.example'), on.program('nft', says('')), (on.over.resolve = () => Promise.resolve({ addresses: ['2001:db8::7'] }))), id: 'receiver-tracked', also: ['http-tracked'], severity: 'warning', wrong: /am\.example \(2001:db8::7\)/, mend: /ip6 daddr 2001:db8::7 tcp dport 443 notrack; ip daddr 192\.0\.2\.53 udp dport 53 notrack/ },
  { fault: 'rules that may not be seen', plant: (on) => on.remove('/usr/bin/nft'), id: 'receiver-tracked', also: ['http-tracked'], severity: 'info', wrong: /cannot be seen/, mend: /notrack/ },
  { fault: 'rule of another port', plant: (on) => on.program('nft', says(notrack.replaceAll('port 443', 'port 80'))), id: 'receiver-tracked', severity: 'warning', wrong: /192\.0\.2\.7/, mend: /dport 443/ },
  { fault: 'receiver of this host', plant: (on) => (on.configure('192.0.2.7', '192.0.2.1'), on.program('nft', says(notrack.replaceAll('192.0.2.7', '192.0.2.1').replace('oif "lo" notrack', '')))), id: 'receiver-tracked', also: ['http-tracked'], severity: 'warning', wrong: /192\.0\.2\.1/, mend: /output \{ [^{}]*; oif lo notrack; \}; \}'/ },
  { fault: 'scrapes tracked', plant: (on) => on.program('nft', says(notrack.replace('oif "lo" notrack', ''))), id: 'http-tracked', severity: 'warning', wrong: /scrapes of 127\.0\.0\.1:9469 are tracked/, mend: /oif lo notrack/ },
  { fault: 'scrapes by others tracked', plant: (on) => on.configure('127.0.0.1:9469', '0.0.0.0:9469'), id: 'http-tracked', severity: 'warning', wrong: /0\.0\.0\.0:9469/, mend: /output \{.*oif lo notrack; tcp sport 9469 notrack; .*prerouting \{.*tcp dport 9469 notrack; / },
  { fault: 'address of http taken', plant: (on) => (on.write('/proc/net/tcp', '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:24FD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 901 1\n'), mkdirSync(`${on.root}/proc/78/fd`, { recursive: true }), symlinkSync('socket:[901]', `${on.root}/proc/78/fd/4`), on.write('/proc/78/comm', 'nginx\n'), on.write('/proc/78/cmdline', 'nginx\0-g\0'), (on.over.mayListen = () => Promise.resolve('EADDRINUSE'))), id: 'http-address', severity: 'critical', wrong: /127\.0\.0\.1:9469 is taken by nginx \(process 78\)/, mend: /another port/ },
  { fault: 'address of http of another host', plant: (on) => (on.over.mayListen = () => Promise.resolve('EADDRNOTAVAIL')), id: 'http-address', severity: 'critical', wrong: /is no address of this host/, mend: /ip -brief address/ },
  { fault: 'port of http for root alone', plant: (on) => (on.over.mayListen = () => Promise.resolve('EACCES')), id: 'http-address', severity: 'critical', wrong: /may not listen/, mend: /CAP_NET_BIND_SERVICE/ },
  { fault: 'receiver that is not there', plant: (on) => (on.over = connection('ECONNREFUSED', 'connect ECONNREFUSED', NaN)), options: { connect: true }, id: 'receiver-connection', severity: 'critical', wrong: /192\.0\.2\.7:443 does not take a connection/, mend: /curl/ },
  { fault: 'certificate that ends', plant: (on) => (on.over = connection('', '', 5)), options: { connect: true }, id: 'receiver-certificate', severity: 'warning', wrong: /ends in 5 days/, mend: /renew/ },
  { fault: 'clock of the last century', plant: (on) => (on.over.nowMs = () => 0), id: 'clock-off', severity: 'critical', wrong: /1970-01-01/, mend: /set-ntp/ },
  { fault: 'clock not synchronized', plant: (on) => on.program('timedatectl', says('no')), id: 'clock-unsynchronized', severity: 'warning', wrong: /not synchronized \(says timedatectl\)/, mend: /chrony/ },
  { fault: 'clock not synchronized, by chrony', plant: (on) => (on.remove('/usr/bin/timedatectl'), on.program('chronyc', says('Stratum         : 0\nLeap status     : Not synchronised'))), id: 'clock-unsynchronized', severity: 'warning', wrong: /chronyc/, mend: /chrony/ },
  { fault: 'clock that nobody knows about', plant: (on) => on.program('timedatectl', says('System has not been booted with systemd', 1, true)), id: 'clock-unsynchronized', severity: 'info', wrong: /Nobody here can tell/, mend: /chrony/ },
  { fault: 'zone without rules', plant: (on) => (on.over.zone = () => ({ name: 'Europe/Berlin', hasSummerTime: true })), id: 'zone-rules', severity: 'warning', wrong: /Europe\/Berlin/, mend: /tzdata/ },
  { fault: 'zone of an input not named', plant: (on) => (on.write('/usr/share/zoneinfo/Europe/Berlin', ''), on.configure('kern.log*, timezone: UTC', 'kern.log*'), (on.over.zone = () => ({ name: 'Europe/Berlin', hasSummerTime: true }))), id: 'zone-unnamed', severity: 'info', wrong: /summer time/, mend: /timezone: UTC/ },
]

describe('a healthy host', () => {
  test('has nothing to say, with a configuration and without, and gives 0', async () => {
    const on = planted()
    expect(await on.ask()).toEqual({ status: 0, text: '' })
    expect(await on.ask({ configFile: null })).toEqual({ status: 0, text: '' })
    expect(JSON.parse((await on.ask({ json: true })).text)).toEqual({ checks: checkIds.length, to_mend: 0, findings: [] })
  })

  test('keeps advice to itself until it is asked', async () => {
    const on = planted()
    on.sysctl('net.netfilter.nf_conntrack_events', 2)
    expect(await on.ask({ verbose: false })).toEqual({ status: 0, text: '' })
    const asked = await on.ask()
    expect(asked.status).toBe(0)
    expect(asked.text).toContain('INFO events-auto')
  })
})

describe('planted faults', () => {
  test.each(cases)('$fault', async ({ plant, id, severity, wrong, mend, also = [], options }) => {
    const on = planted()
    plant(on)
    const findings = await on.findings(options)
    expect(findings.map((finding) => finding['id']).sort()).toEqual([id, ...also].sort())
    const found = findings.find((finding) => finding['id'] === id)!
    expect(found['severity']).toBe(severity)
    expect(found['wrong']).toMatch(wrong)
    expect(found['mend']).toMatch(mend)
    expect(found['lost']).not.toBe('')
    const { status, text } = await on.ask({ ...options, verbose: false })
    expect(status).toBe(findings.some((finding) => finding['severity'] !== 'info') ? 1 : 0)
    expect(text.includes(found['wrong']!)).toBe(severity !== 'info')
  })

  /** Names that a mend may have and this machine need not: each is a program of the distribution that the sentence names, or of its package. */
  const elsewhere = ['dnf', 'apk', 'apt', 'chronyd', 'modprobe', 'setfacl', 'ss', 'timedatectl', 'systemctl', 'usermod', 'setcap', 'nft', 'conntrack', 'curl', 'getent', 'setpriv', 'ip']

  test('no mend names a command, a setting of the kernel or a command of ours that is not there', async () => {
    const help = spawnSync(process.execPath, ['dist/main.js', '--help'], { encoding: 'utf8', cwd: new URL('..', import.meta.url).pathname }).stdout
    const ours = [...help.slice(help.indexOf('Commands:')).matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!)
    expect(ours).toContain('doctor')
    const wrong: string[] = []
    let commands = 0
    for (const { plant, options } of cases) {
      const on = planted()
      plant(on)
      for (const { id, mend, persist = '', command } of await on.findings(options)) {
        const text = `${mend} ${persist}`
        if (command !== undefined && !mend!.includes(`\`${command}\``)) wrong.push(`${id}: ${command} is not shown`)
        for (const [, line] of text.matchAll(/`([^`]+)`/g)) {
          for (const part of line!.split(/ && | \| /)) {
            commands++
            const [first = '', second = ''] = part.split(' ')
            const isThere = elsewhere.includes(first) || spawnSync('sh', ['-c', 'command -v "$1"', 'sh', first], { env: { PATH: `${process.env['PATH']}:/usr/sbin:/sbin` } }).status === 0
            if (first === 'conntrail' ? !ours.includes(second) : !isThere) wrong.push(`${id}: ${part}`)
          }
        }
        // outside of backticks none may hide
        for (const [, name] of text.replaceAll(/`[^`]*`/g, '').matchAll(/(?<![/\w=])conntrail ([a-z]+)\b/g)) wrong.push(`${id}: conntrail ${name}`)
        for (const [name] of text.matchAll(/\b(?:net|kernel|fs)\.[a-z_]+\.[a-z_]+\b(?=[ =])/g)) if (existsSync('/proc/sys/net/netfilter') && !existsSync(`/proc/sys/${name.replaceAll('.', '/')}`)) wrong.push(`${id}: ${name}`)
      }
    }
    expect(wrong).toEqual([])
    expect(commands).toBeGreaterThan(50)
  })

  test('every check is shown to find something', () => {
    expect(checkIds.filter((id) => !cases.some((each) => each.id === id))).toEqual([])
    expect(new Set(checkIds).size).toBe(checkIds.length)
  })

  test('several at once: the worst first, and one file for all settings', async () => {
    const on = planted()
    on.sysctl('net.netfilter.nf_conntrack_acct', 0)
    on.sysctl('net.core.rmem_default', 65_536)
    on.remove('/usr/bin/conntrack')
    const { status, text } = await on.ask({ verbose: false })
    expect(status).toBe(1)
    expect(text.indexOf('CRITICAL conntrack-tool')).toBe(0)
    expect(text).toContain('sysctl --system\n  net.netfilter.nf_conntrack_acct = 1\n  net.core.rmem_default = 8388608\n')
    expect(text).toMatch(/\n1 critical, 2 warning\n$/)
  })

  test('what is accepted is not told', async () => {
    const on = planted()
    on.sysctl('net.netfilter.nf_conntrack_acct', 0)
    expect(await on.ask({ ignore: ['acct-off'] })).toEqual({ status: 0, text: '' })
  })

  test('flows that nobody writes need no counters', async () => {
    const on = planted()
    on.sysctl('net.netfilter.nf_conntrack_acct', 0)
    on.configure('inputs:', 'emit: [alert, gap]\ninputs:')
    expect((await on.findings()).map(({ id, severity }) => ({ id, severity }))).toEqual([{ id: 'acct-off', severity: 'info' }])
  })

  test('rules of iptables exempt the alert path as well', async () => {
    const on = planted()
    on.program('nft', says(''))
    on.program('iptables-save', says('*raw\n-A PREROUTING -s 192.0.2.7/32 -p tcp -j CT --notrack\n-A OUTPUT -d 192.0.2.7/32 -p tcp -j CT --notrack\n-A OUTPUT -o lo -j CT --notrack\nCOMMIT'))
    expect(await on.findings()).toEqual([])
  })

  test('of kmsg and journal one is enough where none is named', async () => {
    const on = planted()
    on.over.opens = denied(on.host.opens, '/dev/kmsg')
    expect((await on.findings({ configFile: null })).map(({ id, severity }) => ({ id, severity }))).toEqual([{ id: 'kmsg', severity: 'info' }])
    on.remove('/usr/bin/journalctl')
    expect((await on.findings({ configFile: null })).map(({ id, severity }) => ({ id, severity }))).toEqual([
      { id: 'kmsg', severity: 'critical' },
      { id: 'journal', severity: 'warning' },
    ])
  })

  test('no secret is printed, and no control character of a name', async () => {
    const on = planted()
    on.configure('{ file: /etc/conntrail/token }', 'open-sesame')
    chmodSync(on.root + CONFIG, 0o644)
    on.write('/var/log/kern.log\x1b[31m', '')
    on.over.opens = (path) => Promise.resolve(path.includes('\x1b') ? 'EACCES' : '')
    const { text } = await on.ask()
    expect(text).toContain('kern.log?[31m cannot be read')
    expect(text).not.toMatch(/open-sesame|\x1b/)
    expect((await on.ask({ json: true })).text).not.toMatch(/open-sesame|\x1b/)
  })
})

describe('the real questions', () => {
  test('a connection that is refused, and one that is taken', async () => {
    const host = thisHost({ node: 'v22.0.0', env: {} })
    const server = createServer((socket) => socket.end()).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as { port: number }
    expect(await host.connect({ host: '127.0.0.1', port, isSecure: false, ca: null })).toMatchObject({ code: '' })
    await new Promise((resolve) => server.close(resolve))
    expect(await host.connect({ host: '127.0.0.1', port, isSecure: false, ca: null })).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test.runIf(spawnSync('openssl', ['version']).status === 0)('when a certificate ends, and whether its authority is trusted', async () => {
    const on = planted()
    const [key, cert] = [`${on.root}/key.pem`, `${on.root}/cert.pem`]
    spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-days', '5', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'])
    const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }).listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const to = { host: '127.0.0.1', port: (server.address() as { port: number }).port, isSecure: true }
    const trusted = await on.host.connect({ ...to, ca: readFileSync(cert, 'utf8') })
    expect(trusted.code).toBe('')
    expect((trusted.validToMs - Date.now()) / 86_400_000).toBeGreaterThan(4)
    expect((trusted.validToMs - Date.now()) / 86_400_000).toBeLessThan(6)
    expect((await on.host.connect({ ...to, ca: null })).code).toBe('DEPTH_ZERO_SELF_SIGNED_CERT')
    await new Promise((resolve) => server.close(resolve))
  })

  test('a program that may not be run, or does not end well', async () => {
    const on = planted()
    on.write('/usr/bin/locked', '', 0o644)
    on.program('failing', says('no luck', 3, true))
    expect(await on.host.run('failing', [])).toMatchObject({ place: { path: '/usr/bin/failing' }, status: 3, stderr: 'no luck\n' })
    expect(await on.host.program('locked')).toBe('denied')
    expect(await on.host.program('absent')).toBe('missing')
  })
})
