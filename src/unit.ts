/**
 * The text of a systemd unit that may do what the configured inputs and outputs need, and nothing else. Options: systemd.exec(5), systemd.service(5) and
 * systemd.resource-control(5), from systemd 247 on; escapes: systemd.syntax(7), and src/core/load-fragment.c for which option takes words and which a whole line.
 */

/** What a configuration needs of its unit. Paths are absolute. */
export interface UnitNeeds {
  /** the program and its arguments, as one word each */
  readonly start: readonly string[]
  /** checks the configuration before a reload; empty where there is no file to read again */
  readonly check: readonly string[]
  /** '' where nothing depends on it */
  readonly workingDirectory: string
  /** reads /dev/kmsg */
  readonly kernelLog: boolean
  readonly journal: boolean
  /** log files that others write */
  readonly files: boolean
  /** listens to connection tracking by netlink */
  readonly conntrack: boolean
  /** looks into network namespaces other than its own */
  readonly otherNamespaces: boolean
  /** talks to other machines */
  readonly remote: boolean
  /** talks to this machine by IP */
  readonly loopback: boolean
  /** listens at a port below 1024 */
  readonly lowPort: boolean
  /** records go to standard output, which is the journal's */
  readonly stdout: boolean
  /** below /var/lib, /var/log and /run, made by systemd */
  readonly stateDirectories: readonly string[]
  readonly logsDirectories: readonly string[]
  readonly runtimeDirectories: readonly string[]
  /** directories elsewhere that it writes in */
  readonly writable: readonly string[]
  /** something that it reads lies in a home directory */
  readonly homes: boolean
  /** files of secrets, by the names that `credentialName` gives them */
  readonly credentials: readonly { readonly name: string; readonly path: string }[]
  /** sentences about what the unit cannot do by itself */
  readonly notes: readonly string[]
}

/** The user that owns what systemd cannot make for a user without a name. */
const USER = 'conntrail'
const COMMENT_COLUMNS = 120

type Line = string | false | readonly string[]

/** The unit's text. Pure: the same needs give the same bytes. */
export function unitText(needs: UnitNeeds): string {
  const capabilities = capabilitiesOf(needs)
  const groups = [...(needs.files ? ['adm'] : []), ...(needs.journal ? ['systemd-journal'] : [])]
  const sections: readonly (readonly Line[])[] = [
    [comment('Printed by `conntrail service`, for systemd 247 and later. Print it again when the configuration names other inputs, outputs or paths.'), ...needs.notes.map((note) => comment(`Note: ${note}`))],
    ['[Unit]', 'Description=conntrail: connection tracking events and kernel logs', 'After=network.target'],
    [
      '[Service]',
      'Type=notify',
      `ExecStart=${command(needs.start)}`,
      needs.check.length > 0 && [
        comment('A configuration with a fault fails here, and the program goes on with the one that it has.'),
        `ExecReload=${command(needs.check)}`,
        'ExecReload=/bin/kill -HUP $MAINPID',
      ].join('\n'),
      needs.workingDirectory !== '' && `WorkingDirectory=${specifiers(needs.workingDirectory)}`,
      comment('It says that it is alive only while events move, or while all inputs are idle.'),
      'WatchdogSec=30s',
      'TimeoutStartSec=60s',
      comment('After SIGTERM it writes what it has read, for 10 s at most, and ends the programs that it has started itself.'),
      'KillMode=mixed',
      'TimeoutStopSec=20s',
      'Restart=on-failure',
      'RestartSec=5s',
      comment('2: the configuration has a fault. What is not there or not permitted (3) may come, so that is tried again.'),
      'RestartPreventExitStatus=2',
      'LimitNOFILE=65536',
      needs.stdout && [comment('Records go to the journal, which would drop what comes faster than its limit.'), 'LogRateLimitIntervalSec=0'].join('\n'),
    ],
    [
      ...ownerLines(needs),
      groups.length > 0 && [comment(`Log files are readable for ${groups.join(' and ')}.`), `SupplementaryGroups=${groups.join(' ')}`].join('\n'),
      'UMask=0077',
      needs.stateDirectories.length > 0 && [`StateDirectory=${words(needs.stateDirectories)}`, 'StateDirectoryMode=0700'].join('\n'),
      needs.logsDirectories.length > 0 && [`LogsDirectory=${words(needs.logsDirectories)}`, 'LogsDirectoryMode=0750'].join('\n'),
      needs.runtimeDirectories.length > 0 && [`RuntimeDirectory=${words(needs.runtimeDirectories)}`, 'RuntimeDirectoryMode=0755', 'RuntimeDirectoryPreserve=restart'].join('\n'),
      needs.writable.length > 0 && `ReadWritePaths=${words(needs.writable)}`,
      needs.credentials.length > 0 && comment('Secrets: only root has to be able to read these files.'),
      ...needs.credentials.map(({ name, path }) => `LoadCredential=${name}:${specifiers(path)}`),
    ],
    [
      ...capabilities.map(({ name, why }) => comment(`${name}: ${why}`)),
      `CapabilityBoundingSet=${capabilities.map(({ name }) => name).join(' ')}`,
      capabilities.length > 0 && `AmbientCapabilities=${capabilities.map(({ name }) => name).join(' ')}`,
      'NoNewPrivileges=yes',
      ...deviceLines(needs),
      needs.homes ? 'ProtectHome=read-only' : 'ProtectHome=yes',
      'ProtectSystem=strict',
      'ProtectClock=yes',
      'ProtectControlGroups=yes',
      'ProtectHostname=yes',
      'ProtectKernelModules=yes',
      'ProtectKernelTunables=yes',
      'ProtectProc=invisible',
      comment('ProcSubset=pid would hide /proc/sys/net/netfilter and /proc/net.'),
      'ProcSubset=all',
      'PrivateTmp=yes',
      'PrivateMounts=yes',
      'RemoveIPC=yes',
      'KeyringMode=private',
      'LockPersonality=yes',
      comment("No MemoryDenyWriteExecute=yes: Node compiles JavaScript to machine code as it runs, and V8 ends the process where it may not."),
      `RestrictNamespaces=${needs.otherNamespaces ? 'net' : 'yes'}`,
      'RestrictRealtime=yes',
      'RestrictSUIDSGID=yes',
      ...networkLines(needs),
      'SystemCallArchitectures=native',
      'SystemCallFilter=@system-service',
      'SystemCallFilter=~@privileged @resources',
      'SystemCallErrorNumber=EPERM',
    ],
    ['[Install]', 'WantedBy=multi-user.target'],
  ]
  return sections.map((lines) => `${lines.filter((line) => line !== false).join('\n')}\n`).join('\n')
}

interface Capability {
  readonly name: string
  readonly why: string
}

function capabilitiesOf({ conntrack, kernelLog, otherNamespaces, lowPort }: UnitNeeds): readonly Capability[] {
  return [
    ...(conntrack ? [{ name: 'CAP_NET_ADMIN', why: 'to listen to connection tracking.' }] : []),
    ...(kernelLog ? [{ name: 'CAP_SYSLOG', why: 'to read /dev/kmsg where kernel.dmesg_restrict is 1.' }] : []),
    ...(otherNamespaces
      ? [
          { name: 'CAP_SYS_ADMIN', why: 'to enter other network namespaces. It is nearly root: leave those namespaces out of the configuration where they need not be watched.' },
          { name: 'CAP_SYS_PTRACE', why: 'to find the network namespaces of other processes under /proc.' },
        ]
      : []),
    ...(lowPort ? [{ name: 'CAP_NET_BIND_SERVICE', why: 'to listen at a port below 1024.' }] : []),
  ]
}

/** A user without a name owns nothing but what systemd makes for it. */
function ownerLines({ writable, logsDirectories }: UnitNeeds): readonly Line[] {
  if (writable.length > 0) {
    return [
      comment(
        `It writes outside of /var/lib, /var/log and /run, so it needs a user of its own: useradd --system --home-dir / --shell /usr/sbin/nologin ${USER}, and chown ${USER} for ${writable.join(', ')}.`,
      ),
      `User=${USER}`,
    ]
  }
  return [
    logsDirectories.length > 0 &&
      comment('What it writes below /var/log only root can read there. Where a log shipper with a user of its own shall, create a user and say User= in place of DynamicUser=yes.'),
    'DynamicUser=yes',
  ]
}

/** PrivateDevices= and ProtectKernelLogs= would take /dev/kmsg away. */
function deviceLines({ kernelLog }: UnitNeeds): readonly string[] {
  if (!kernelLog) return ['PrivateDevices=yes', 'DevicePolicy=closed', 'ProtectKernelLogs=yes']
  return [comment('No PrivateDevices=yes and no ProtectKernelLogs=yes: they would hide /dev/kmsg.'), 'DevicePolicy=closed', 'DeviceAllow=/dev/kmsg r']
}

function networkLines({ remote, loopback, conntrack }: UnitNeeds): readonly string[] {
  const families = ['AF_UNIX', ...(remote || loopback ? ['AF_INET', 'AF_INET6'] : []), ...(conntrack ? ['AF_NETLINK'] : [])]
  return [`RestrictAddressFamilies=${families.join(' ')}`, ...(remote ? [] : ['IPAddressDeny=any', ...(loopback ? ['IPAddressAllow=localhost'] : [])])]
}

/** The name under which LoadCredential= hands over a file. It may be any text without `:` that a file's name may be; no two paths have the same. */
export function credentialName(path: string): string {
  const [, named] = CREDENTIAL_PATH.exec(path) ?? []
  if (named !== undefined) return named
  const plain = path.replaceAll(/[^A-Za-z0-9./]/g, (odd) => `_${odd.codePointAt(0)!.toString(16)}_`)
  return (plain.startsWith('/') ? plain.slice(1) : `./${plain}`).replaceAll('/', '-').slice(-NAME_MAX)
}

/** FDNAME_MAX of systemd */
const NAME_MAX = 255

/** Where root keeps what is at a path: a file that the configuration expects among a service's credentials comes from systemd's own store. */
export function credentialSource(path: string): string {
  const [, named] = CREDENTIAL_PATH.exec(path) ?? []
  return named === undefined ? path : `/etc/credstore/${named}`
}

/** As the service itself sees it; what stands for the unit's name counts for nothing. */
const CREDENTIAL_PATH = /^\/run\/credentials\/[^/]+\/([^/:]+)$/

function comment(text: string): string {
  const lines = ['#']
  for (const word of text.split(/\s+/)) {
    if (lines.at(-1)!.length + 1 + word.length > COMMENT_COLUMNS && lines.at(-1) !== '#') lines.push('#')
    lines.push(`${lines.pop()!} ${word}`)
  }
  return lines.join('\n')
}

const specifiers = (text: string): string => text.replaceAll('%', '%%')

/** One word of a list. */
function word(text: string): string {
  const escaped = specifiers(text)
  return /^[^\s"'\\;]+$/.test(escaped) ? escaped : `"${escaped.replaceAll(/["\\]/g, '\\$&')}"`
}

const words = (texts: readonly string[]): string => texts.map(word).join(' ')

/** A program and its arguments; in those a `$` begins a variable. */
function command([program = '', ...args]: readonly string[]): string {
  return [word(program), ...args.map((arg) => word(arg.replaceAll('$', '$$$$')))].join(' ')
}
