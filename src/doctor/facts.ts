/** Gathers what the checks judge. It looks, and changes nothing: no file is written, no module loaded by name, no setting touched. */
import { readStatFile } from '../formats/stat-columns.js'
import type { DirectoryFacts, Facts, Plan, Ran, Sysctls } from './model.js'
import type { FileFacts, Host } from './host.js'

/** Bits of CapEff that matter here: include/uapi/linux/capability.h. */
const capabilities = { CAP_DAC_READ_SEARCH: 2, CAP_NET_ADMIN: 12, CAP_SYS_PTRACE: 19, CAP_SYS_ADMIN: 21, CAP_SYSLOG: 34 } as const

const sysctlNames = [
  'fs.inotify.max_user_instances',
  'fs.inotify.max_user_watches',
  'kernel.dmesg_restrict',
  'net.core.message_burst',
  'net.core.message_cost',
  'net.core.rmem_default',
  'net.netfilter.nf_conntrack_acct',
  'net.netfilter.nf_conntrack_buckets',
  'net.netfilter.nf_conntrack_count',
  'net.netfilter.nf_conntrack_events',
  'net.netfilter.nf_conntrack_log_invalid',
  'net.netfilter.nf_conntrack_max',
  'net.netfilter.nf_conntrack_timestamp',
] as const

/** By their numbers in include/uapi/linux/magic.h: what is not on a disk of this host. */
const fileSystems: Readonly<Record<number, string>> = {
  0x01021994: 'tmpfs',
  0x858458f6: 'ramfs',
  0x6969: 'nfs',
  0xff534d42: 'cifs',
  0xfe534d42: 'smb2',
  0x517b: 'smb',
  0x01021997: '9p',
  0x00c36400: 'ceph',
  0x794c7630: 'overlay',
}

/** /dev/kmsg: character device 1:11. */
const KMSG_DEVICE = (1 << 8) | 11
const NETLINK_NETFILTER = '12'
/** NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY as a mask. */
const CONNTRACK_GROUPS = 0x7
/** Where log shippers write about themselves. */
const SHIPPER_LOGS = /^\/var\/log\/(vector|filebeat|fluent-bit|fluentd|td-agent|td-agent-bit|logstash|promtail|alloy|otelcol[^/]*|telegraf)\//

/** `connect`: also try the receivers. */
export async function gatherFacts(host: Host, plan: Plan, options: { readonly connect: boolean }): Promise<Facts> {
  const status = await text(host, '/proc/self/status')
  const [sysctls, clock, listeners, kmsg, toolVersion, toolCount] = await Promise.all([
    sysctlsOf(host),
    clockOf(host),
    listenersOf(host),
    kmsgOf(host),
    host.run('conntrack', ['-V']),
    host.run('conntrack', ['-C']),
  ])
  const mayNeedJournal = plan.kernelLog === 'journal' || plan.kernelLog === 'both' || (plan.kernelLog === 'either' && kmsg.opened !== '')
  const config = plan.configFile === '' ? null : await host.stat(plan.configFile)
  return {
    node: host.node,
    kernel: (await text(host, '/proc/sys/kernel/osrelease')).trim(),
    nowMs: host.nowMs(),
    uid: numberIn(/^Uid:\s+\d+\s+(\d+)/m, status),
    capabilities: capabilitiesOf(status),
    openFiles: openFilesOf(await text(host, '/proc/self/limits')),
    procOptions: procOptionsOf(await text(host, '/proc/self/mounts')),
    bootId: await codeOfRead(host, '/proc/sys/kernel/random/boot_id'),
    kmsg,
    journal: mayNeedJournal ? await host.run('journalctl', ['--no-pager', '-n', '1', '-o', 'json', '_TRANSPORT=kernel']) : null,
    toolVersion,
    toolCount,
    nsenter: await host.program('nsenter'),
    shell: await host.program('/bin/sh'),
    programs: Object.fromEntries(await Promise.all(plan.programs.map(async (name) => [name, await host.program(name)] as const))),
    sysctls,
    logBackends: { 2: await word(host, '/proc/sys/net/netfilter/nf_log/2'), 10: await word(host, '/proc/sys/net/netfilter/nf_log/10') },
    counters: countersOf(await text(host, '/proc/net/stat/nf_conntrack')),
    listeners,
    clock,
    zone: await zoneOf(host),
    inotify: await host.mayWatch('/'),
    state: plan.state === null ? null : await stateOf(host, plan.state),
    outputs: await Promise.all(plan.outputs.map((output) => outputOf(host, output))),
    inputs: await inputsOf(host, plan),
    receivers: await Promise.all(plan.receivers.map((receiver) => receiverOf(host, receiver, options.connect))),
    nameServers: [...(await text(host, '/etc/resolv.conf')).matchAll(/^\s*nameserver\s+([\w.:]+)/gm)].map(([, address]) => address!),
    ownAddresses: host.ownAddresses(),
    http: plan.listen === null ? null : await httpOf(host, plan.listen),
    rules: plan.receivers.length === 0 && plan.listen === null ? null : await rulesOf(host),
    secretFiles: await Promise.all(plan.secretFiles.map((path) => secretFileOf(host, path))),
    configMode: config !== null && 'mode' in config ? config.mode : 0,
  }
}

async function text(host: Host, path: string): Promise<string> {
  const read = await host.readText(path)
  return 'text' in read ? read.text : ''
}

const word = async (host: Host, path: string): Promise<string> => (await text(host, path)).trim()

async function codeOfRead(host: Host, path: string): Promise<string> {
  const read = await host.readText(path)
  return 'code' in read ? read.code : read.text.trim() === '' ? 'other' : ''
}

function numberIn(pattern: RegExp, from: string): number {
  const found = pattern.exec(from)?.[1]
  return found === undefined ? -1 : Number(found)
}

function capabilitiesOf(status: string): readonly string[] | null {
  const hex = /^CapEff:\s+([0-9a-f]+)/m.exec(status)?.[1]
  if (hex === undefined) return null
  const bits = BigInt(`0x${hex}`)
  return Object.entries(capabilities).flatMap(([name, bit]) => (((bits >> BigInt(bit)) & 1n) === 1n ? [name] : []))
}

function openFilesOf(limits: string): number {
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1]
  return soft === undefined ? -1 : soft === 'unlimited' ? Infinity : Number(soft)
}

/** Of the mount on /proc that counts, which is the last. */
function procOptionsOf(mounts: string): readonly string[] | null {
  const found = mounts.split('\n').findLast((line) => /^\S+ \/proc proc /.test(line))
  return found === undefined ? null : found.split(' ')[3]!.split(',')
}

async function sysctlsOf(host: Host): Promise<Sysctls> {
  const read = await Promise.all(sysctlNames.map(async (name) => [name, await word(host, `/proc/sys/${name.replaceAll('.', '/')}`)] as const))
  return Object.fromEntries(read.filter(([, value]) => /^-?\d+$/.test(value)).map(([name, value]) => [name, Number(value)]))
}

async function kmsgOf(host: Host): Promise<Facts['kmsg']> {
  const found = await host.stat('/dev/kmsg')
  return { opened: await host.opens('/dev/kmsg'), isKernelLog: 'rdev' in found && found.isCharacterDevice && found.rdev === KMSG_DEVICE }
}

function countersOf(stat: string): Facts['counters'] {
  const stats = readStatFile(stat)
  if (stats === null) return null
  const sums: Record<string, number> = {}
  for (const cpu of stats.cpus) for (const [name, value] of Object.entries(cpu)) sums[name] = (sums[name] ?? 0) + value
  return sums
}

/** Sockets of /proc/net/netlink that hear flows, and whose they are: a look through the descriptors of all processes, only when there is one. */
async function listenersOf(host: Host): Promise<Facts['listeners']> {
  const [head = '', ...rows] = (await text(host, '/proc/net/netlink')).split('\n')
  const names = head.trim().split(/\s+/)
  const at = (words: readonly string[], name: string): string => words[names.indexOf(name)] ?? ''
  const sockets = rows
    .map((row) => row.trim().split(/\s+/))
    .filter((words) => at(words, 'Eth') === NETLINK_NETFILTER && (Number.parseInt(at(words, 'Groups'), 16) & CONNTRACK_GROUPS) !== 0)
    .map((words) => ({ inode: at(words, 'Inode'), drops: Number(at(words, 'Drops')) }))
  if (sockets.length === 0) return []
  const owners = await ownersOf(host, new Set(sockets.map(({ inode }) => `socket:[${inode}]`)))
  return sockets.map(({ inode, drops }) => ({ program: owners.get(`socket:[${inode}]`) ?? '', drops }))
}

/** TCP_LISTEN of include/net/tcp_states.h. */
const LISTEN = '0A'

/** Whether one could listen there; who does, where one cannot. */
async function httpOf(host: Host, listen: NonNullable<Plan['listen']>): Promise<NonNullable<Facts['http']>> {
  const code = await host.mayListen(listen)
  if (code !== 'EADDRINUSE') return { code, holder: '', isOurs: false }
  const port = listen.port.toString(16).toUpperCase().padStart(4, '0')
  const rows = listen.socket === '' ? `${await text(host, '/proc/net/tcp')}\n${await text(host, '/proc/net/tcp6')}` : await text(host, '/proc/net/unix')
  const inodes = rows.split('\n').flatMap((row) => {
    const words = row.trim().split(/\s+/)
    if (listen.socket === '') return words[3] === LISTEN && words[1]?.endsWith(`:${port}`) === true ? [words[9]!] : []
    return words[7] === listen.socket ? [words[6]!] : []
  })
  const [holder = ''] = (await ownersOf(host, new Set(inodes.map((inode) => `socket:[${inode}]`)))).values()
  const pid = /process (\d+)/.exec(holder)?.[1]
  const line = pid === undefined ? '' : await text(host, `/proc/${pid}/cmdline`)
  return { code, holder, isOurs: /conntrail|main\.js/.test(line) && line.split('\0').includes('run') }
}

async function ownersOf(host: Host, wanted: ReadonlySet<string>): Promise<Map<string, string>> {
  const owners = new Map<string, string>()
  for (const pid of await host.list('/proc')) {
    if (!/^\d+$/.test(pid) || owners.size === wanted.size) continue
    for (const fd of await host.list(`/proc/${pid}/fd`)) {
      const target = await host.link(`/proc/${pid}/fd/${fd}`)
      if (wanted.has(target)) owners.set(target, `${await word(host, `/proc/${pid}/comm`)} (process ${pid})`)
    }
  }
  return owners
}

/** Who can say what adjtimex(2) says, which Node cannot ask; then who keeps the clock. */
const clockWitnesses: readonly { readonly program: string; readonly args: readonly string[]; readonly read: (ran: Ran) => boolean | null }[] = [
  { program: 'timedatectl', args: ['show', '--property=NTPSynchronized', '--value'], read: ({ stdout }) => yesOrNo(stdout.trim(), 'yes', 'no') },
  // STA_UNSYNC is 0x40
  { program: 'adjtimex', args: ['--print'], read: ({ stdout }) => bitOf(/^\s*status:\s*(\d+)/m.exec(stdout)?.[1], 0x40) },
  {
    program: 'chronyc',
    args: ['-n', 'tracking'],
    read: ({ stdout }) =>
      yesOrNo(/^Leap status\s*: (.*)$/m.exec(stdout)?.[1] === 'Not synchronised' ? 'no' : /^Leap status\s*: \w/m.test(stdout) ? 'yes' : '', 'yes', 'no'),
  },
  // leap indicator 3: alarm, never synchronised
  {
    program: 'ntpq',
    args: ['-c', 'rv 0 leap'],
    read: ({ stdout }) => yesOrNo(/\bleap=(\d\d)/.exec(stdout)?.[1] === '11' ? 'no' : /\bleap=\d\d/.test(stdout) ? 'yes' : '', 'yes', 'no'),
  },
]

function yesOrNo(value: string, yes: string, no: string): boolean | null {
  return value === yes ? true : value === no ? false : null
}

function bitOf(digits: string | undefined, bit: number): boolean | null {
  return digits === undefined ? null : (Number(digits) & bit) === 0
}

async function clockOf(host: Host): Promise<Facts['clock']> {
  for (const { program, args, read } of clockWitnesses) {
    const ran = await host.run(program, args)
    const isSynchronized = ran.status === 0 ? read(ran) : null
    if (isSynchronized !== null) return { isSynchronized, by: program }
  }
  // systemd-timesyncd touches it when it has set the clock
  const touched = await host.stat('/run/systemd/timesync/synchronized')
  return 'code' in touched ? { isSynchronized: null, by: '' } : { isSynchronized: true, by: 'systemd-timesyncd' }
}

async function zoneOf(host: Host): Promise<Facts['zone']> {
  const { name, hasSummerTime } = host.zone()
  const rules = await host.stat(`/usr/share/zoneinfo/${name}`)
  return { name, tz: host.env['TZ'] ?? '', hasRules: /^(UTC|GMT|Etc\/.*)$/.test(name) || !('code' in rules), hasSummerTime }
}

/** The directory, or the one in which it would be made. */
async function directoryOf(host: Host, path: string): Promise<DirectoryFacts> {
  const wanted = await host.stat(path)
  let at = path
  let found = wanted
  while ('code' in found && (found.code === 'ENOENT' || found.code === 'ENOTDIR') && at !== '/' && at !== '.') {
    at = parentOf(at)
    found = await host.stat(at)
  }
  const space = await host.space(at)
  const isThere = !('code' in wanted)
  return {
    path: at,
    isThere,
    isDirectory: !isThere || (wanted as FileFacts).isDirectory,
    writable: 'code' in found ? found.code : await host.mayWrite(at),
    owner: 'code' in found ? -1 : found.owner,
    ...('code' in space
      ? { freeBytes: -1, totalBytes: -1, freeInodes: -1, totalInodes: -1, fileSystem: '' }
      : {
          freeBytes: space.freeBytes,
          totalBytes: space.totalBytes,
          freeInodes: space.freeInodes,
          totalInodes: space.totalInodes,
          fileSystem: fileSystems[space.type >>> 0] ?? '',
        }),
  }
}

function parentOf(path: string): string {
  const slash = path.replace(/\/+$/, '').lastIndexOf('/')
  return slash < 0 ? '.' : slash === 0 ? '/' : path.slice(0, slash)
}

/** `foreign`: files in it that belong to another user than the directory does. */
async function stateOf(host: Host, path: string): Promise<NonNullable<Facts['state']>> {
  const folder = await directoryOf(host, path)
  const foreign: string[] = []
  if (folder.isThere && folder.isDirectory) {
    for (const name of await host.list(path)) {
      const found = await host.stat(`${path}/${name}`)
      if (!('code' in found) && found.owner !== folder.owner) foreign.push(`${path}/${name}`)
    }
  }
  return { ...folder, foreign }
}

async function outputOf(host: Host, { name, path }: Plan['outputs'][number]): Promise<Facts['outputs'][number]> {
  const found = await host.stat(path)
  const isThere = !('code' in found)
  const file = isThere ? await host.mayWrite(path) : found.code === 'ENOENT' ? '' : found.code
  return { name, path, folder: await directoryOf(host, parentOf(path)), file, isFolder: isThere && found.isDirectory }
}

/** Files are compared by device and inode: links and bind mounts give one file many names. */
async function inputsOf(host: Host, plan: Plan): Promise<Facts['inputs']> {
  const identity = async (path: string): Promise<string> => {
    const found = await host.stat(path)
    return 'code' in found ? '' : `${found.dev}:${found.ino}`
  }
  const own = plan.files.length === 0 ? [] : await Promise.all(plan.outputs.map(async ({ name, path }) => ({ name, identity: await identity(path) })))
  return Promise.all(
    plan.files.map(async ({ name, patterns, exclude }) => {
      const { paths, refused } = await host.glob(patterns, exclude)
      const codes = await Promise.all(paths.map(async (path) => ({ path, code: await host.opens(path) })))
      const identities = new Set(own.length === 0 ? [] : await Promise.all(paths.map(identity)))
      return {
        name,
        matched: paths.length,
        refused: [...refused, ...codes.filter(({ code }) => code !== '' && code !== 'ENOENT')],
        ownOutputs: own.filter((output) => output.identity !== '' && identities.has(output.identity)).map((output) => output.name),
        shipperLogs: paths.filter((path) => SHIPPER_LOGS.test(path)),
      }
    }),
  )
}

async function receiverOf(
  host: Host,
  { name, host: to, port, isSecure, caFile }: Plan['receivers'][number],
  connect: boolean,
): Promise<Facts['receivers'][number]> {
  const found = await host.resolve(to)
  const addresses = 'addresses' in found ? found.addresses : []
  const isAddress = addresses.length === 1 && addresses[0] === to
  const isTried = connect && addresses.length > 0
  const connection = isTried ? await host.connect({ host: to, port, isSecure, ca: caFile === null ? null : await text(host, caFile) }) : null
  return { name, host: to, port, isAddress, addresses, resolved: 'code' in found ? found.code : '', connection }
}

/** nftables, and what iptables made on either of its two grounds. null where nobody could be asked. */
async function rulesOf(host: Host): Promise<string | null> {
  const shown = await Promise.all([
    host.run('nft', ['list', 'ruleset']),
    ...['iptables-save', 'ip6tables-save', 'iptables-legacy-save', 'ip6tables-legacy-save'].map((name) => host.run(name, [])),
  ])
  const answered = shown.filter(({ status }) => status === 0)
  return answered.length === 0 ? null : answered.map(({ stdout }) => stdout).join('\n')
}

async function secretFileOf(host: Host, path: string): Promise<Facts['secretFiles'][number]> {
  const found = await host.stat(path)
  return { path, mode: 'code' in found ? 0 : found.mode, code: await host.opens(path) }
}
