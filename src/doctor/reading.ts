/** Can everything be read that is to be read: the kernel's log, the journal, events by the conntrack tool, the kernel's counters, files, other namespaces? */
import { BUFFER_MISSES, isBefore, releaseOf, STAYS_AT_OVERRUN } from '../tool-release.js'
import { type Check, type Facts, type Fault, mendedBy, type Plan, type ProgramPlace, type Severity } from './model.js'

const PACKAGE = '`apt install conntrack` (Debian, Ubuntu), or `dnf install conntrack-tools` (Fedora, RHEL), `apk add conntrack-tools` (Alpine)'
const unit = (capability: string): string =>
  `AmbientCapabilities=${capability} and CapabilityBoundingSet=${capability} in the service's unit (\`conntrail service\` writes one)`

const wantsKmsg = ({ kernelLog }: Plan): boolean => kernelLog === 'kmsg' || kernelLog === 'both' || kernelLog === 'either'
const wantsJournal = ({ kernelLog }: Plan): boolean => kernelLog === 'journal' || kernelLog === 'both'

/** One of two ways is enough where the configuration does not name one. */
function unlessOther(plan: Plan, otherWorks: boolean): Severity {
  return plan.kernelLog === 'either' && otherWorks ? 'info' : 'critical'
}

const isDenied = (code: string): boolean => code === 'EACCES' || code === 'EPERM'

/** Why the journal gives nothing of the kernel; null where it does. */
function journalFault({ journal }: Facts): 'missing' | 'denied' | 'none' | 'empty' | null {
  if (journal === null) return null
  if (journal.place === 'missing') return 'missing'
  if (journal.place === 'denied' || /insufficient permissions|not seeing messages|Permission denied/.test(journal.stderr)) return 'denied'
  if (journal.stdout.trim() !== '') return null
  return /No journal files were found/.test(journal.stderr) || journal.status !== 0 ? 'none' : 'empty'
}

const LOG_LOST = "every line of the kernel's log: table full, suppressed lines, invalid packets; only the counters still show that packets were dropped"

/** The tool ran and the kernel answered. */
const toolWorks = ({ toolCount }: Facts): boolean => toolCount.status === 0
const placeIsThere = (place: ProgramPlace): boolean => typeof place !== 'string'
const isDeniedByKernel = ({ toolCount }: Facts): boolean => /must be root|CAP_NET_ADMIN|Operation not permitted/.test(toolCount.stderr)

/** Does the tool's own buffer size count? */
export function bufferIsSet(facts: Facts, plan: Plan): boolean {
  const release = releaseOf(facts.toolVersion.stdout)
  return (plan.conntrack?.bufferBytes ?? 0) > 0 && release !== null && isBefore(release, BUFFER_MISSES)
}

/** The module is there when its settings are. */
export const isModuleLoaded = ({ sysctls }: Facts): boolean => sysctls['net.netfilter.nf_conntrack_max'] !== undefined

const kernelLog: readonly Check[] = [
  {
    id: 'kmsg',
    looksAt: '/dev/kmsg',
    lost: LOG_LOST,
    judge(facts, plan) {
      const { opened, isKernelLog } = facts.kmsg
      if (!wantsKmsg(plan)) return []
      const severity = unlessOther(plan, journalFault(facts) === null && facts.journal !== null)
      const instead = severity === 'info' ? '; the journal is read instead' : ''
      if (isDenied(opened)) {
        const hasSyslog = facts.capabilities?.includes('CAP_SYSLOG') === true
        const isRestricted = facts.sysctls['kernel.dmesg_restrict'] === 1 && !hasSyslog
        const why = isRestricted ? ', kernel.dmesg_restrict is 1 and this user has no CAP_SYSLOG' : ' by this user'
        const mend = hasSyslog
          ? 'CAP_SYSLOG is there, so the device itself is closed: DeviceAllow=/dev/kmsg r, PrivateDevices=no, ProtectKernelLogs=no; or its mode (`ls -l /dev/kmsg`)'
          : 'run as root, or give CAP_SYSLOG: `setpriv --reuid USER --clear-groups --inh-caps +syslog --ambient-caps +syslog conntrail run`'
        return [
          {
            severity,
            wrong: `/dev/kmsg may not be read (${opened})${why}${instead}.`,
            mend,
            persist: hasSyslog ? "the same keys in the service's unit" : unit('CAP_SYSLOG'),
          },
        ]
      }
      if (opened === 'ENOENT' || opened === 'ENXIO') {
        return [
          {
            severity,
            wrong: `/dev/kmsg is not there (${opened})${instead}.`,
            ...mendedBy('mknod -m 640 /dev/kmsg c 1 11', '; in a container: --device=/dev/kmsg:/dev/kmsg:r'),
            persist: 'the way in which the container is started; PrivateDevices=no in a unit',
          },
        ]
      }
      if (opened !== '') return [{ severity, wrong: `/dev/kmsg cannot be opened (${opened})${instead}.`, mend: '`dd if=/dev/kmsg bs=8192 count=1`, as this user, must work' }]
      if (!isKernelLog)
        return [
          {
            severity: 'critical',
            wrong: "/dev/kmsg is there but is not the kernel's log (character device 1:11), so it gives nothing.",
            ...mendedBy('rm /dev/kmsg && mknod -m 640 /dev/kmsg c 1 11', '; in a container, do not mount /dev/null over it'),
          },
        ]
      return []
    },
  },
  {
    id: 'journal',
    looksAt: 'journalctl _TRANSPORT=kernel',
    lost: LOG_LOST,
    judge(facts, plan) {
      if (!wantsJournal(plan) && plan.kernelLog !== 'either') return []
      const fault = journalFault(facts)
      // where kmsg does, nobody asks the journal; where neither does, kmsg has been told as well
      if (fault === null) return []
      const severity: Severity = plan.kernelLog === 'either' ? 'warning' : 'critical'
      const says = facts.journal!.stderr.trim().split('\n')[0] ?? ''
      if (fault === 'missing')
        return [{ severity, wrong: 'The program journalctl is not there.', mend: 'install systemd, or read kmsg instead of the journal' }]
      if (fault === 'denied')
        return [
          {
            severity,
            wrong: `The journal may not be read by this user${says === '' ? '' : ` (${says})`}.`,
            mend: '`usermod -aG systemd-journal USER`',
            persist: "SupplementaryGroups=systemd-journal in the service's unit",
          },
        ]
      if (fault === 'none')
        return [
          { severity, wrong: `There is no journal${says === '' ? '' : ` (${says})`}.`, mend: 'start systemd-journald, or read kmsg instead of the journal' },
        ]
      return [
        {
          severity,
          wrong: "The journal has no line of the kernel's.",
          mend: 'ReadKMsg=yes in /etc/systemd/journald.conf and `systemctl restart systemd-journald`; in a container read kmsg instead',
        },
      ]
    },
  },
  {
    id: 'boot-id',
    looksAt: '/proc/sys/kernel/random/boot_id',
    lost: 'after a restart lines of the kernel may be missed or come twice: without the id nobody knows whether the kernel counts anew',
    judge: ({ bootId, procOptions }) =>
      bootId === '' || procOptions === null || procOptions.includes('subset=pid')
        ? []
        : [
            {
              severity: 'warning',
              wrong: `/proc/sys/kernel/random/boot_id cannot be read (${bootId}).`,
              mend: 'let this user read it (a sandbox or a mount hides it)',
              persist: "ProcSubset=all and no InaccessiblePaths= over /proc/sys in the service's unit",
            },
          ],
  },
]

const FLOWS_LOST = 'every flow and expectation record, every transition and end, and who fills the table'

const tool: readonly Check[] = [
  {
    id: 'conntrack-tool',
    looksAt: 'the program conntrack',
    lost: FLOWS_LOST,
    judge(facts, plan) {
      if (plan.conntrack === null) return []
      const { place, status, stdout, stderr } = facts.toolVersion
      if (place === 'missing') return [{ severity: 'critical', wrong: 'The program conntrack is not there.', mend: PACKAGE }]
      if (place === 'denied')
        return [
          {
            severity: 'critical',
            wrong: 'The program conntrack is there and this user may not run it.',
            mend: '`chmod +x` it, on a file system that is not mounted noexec',
          },
        ]
      if (status !== 0)
        return [
          { severity: 'critical', wrong: `The program ${place.path} does not run: ${(stderr.trim() || `status ${status}`).split('\n')[0]}.`, mend: PACKAGE },
        ]
      const release = releaseOf(stdout)
      if (release === null)
        return [{ severity: 'info', wrong: `conntrack -V says ${JSON.stringify(stdout.trim().slice(0, 80))}, which names no release.`, mend: PACKAGE }]
      return []
    },
  },
  {
    id: 'conntrack-release',
    looksAt: 'conntrack -V',
    lost: 'events between an overrun and the restart of the tool, which such releases need because they end at an overrun; the table is read anew, short flows are in no record',
    judge(facts, plan) {
      const release = plan.conntrack === null ? null : releaseOf(facts.toolVersion.stdout)
      return release === null || !isBefore(release, STAYS_AT_OVERRUN)
        ? []
        : [
            {
              severity: 'warning',
              wrong: `conntrack is ${release.join('.')}: up to 1.4.5 it ends when the kernel had to drop events, instead of going on.`,
              mend: `install 1.4.6 or newer: ${PACKAGE}`,
            },
          ]
    },
  },
  {
    id: 'conntrack-buffer-option',
    looksAt: 'conntrack -V and buffer: of the input',
    lost: 'events of every burst that does not fit the default buffer, which is taken for larger than it is',
    judge(facts, plan) {
      const release = releaseOf(facts.toolVersion.stdout)
      const bytes = plan.conntrack?.bufferBytes ?? 0
      if (bytes === 0 || release === null || isBefore(release, BUFFER_MISSES) || (facts.sysctls['net.core.rmem_default'] ?? 0) >= bytes) return []
      return [
        {
          severity: 'warning',
          wrong: `buffer: ${bytes} bytes has no effect with conntrack ${release.join('.')}: from 1.4.7 on its -b reaches a socket that no events come from.`,
          ...sysctl({ 'net.core.rmem_default': bytes }, 'before the tool starts'),
        },
      ]
    },
  },
  {
    id: 'net-admin',
    looksAt: 'conntrack -C, which asks the kernel as listening does',
    lost: FLOWS_LOST,
    judge(facts, plan) {
      if ((plan.conntrack === null && !plan.table) || !placeIsThere(facts.toolCount.place) || toolWorks(facts) || !isDeniedByKernel(facts)) return []
      // the counters come from /proc as well
      const severity: Severity = plan.conntrack === null ? 'info' : 'critical'
      return [
        {
          severity,
          wrong: 'The kernel does not answer this user about connection tracking: CAP_NET_ADMIN is missing.',
          mend: 'run as root, or `setcap cap_net_admin+ep` on the conntrack binary',
          persist: unit('CAP_NET_ADMIN'),
        },
      ]
    },
  },
  {
    id: 'ctnetlink',
    looksAt: 'conntrack -C',
    lost: FLOWS_LOST,
    judge(facts, plan) {
      const { place, status, stderr } = facts.toolCount
      if (plan.conntrack === null || !placeIsThere(place) || status === 0 || isDeniedByKernel(facts) || facts.toolVersion.status !== 0) return []
      return [
        {
          severity: 'critical',
          wrong: `The kernel does not answer the conntrack tool: ${(stderr.trim() || `status ${status}`).split('\n')[0]}.`,
          ...mendedBy('modprobe nf_conntrack_netlink'),
          persist: 'a line nf_conntrack_netlink in /etc/modules-load.d/conntrail.conf',
        },
      ]
    },
  },
  {
    id: 'shell',
    looksAt: '/bin/sh',
    lost: 'all that comes from programs (conntrack, journalctl, command inputs): they are started through it, so that none outlives this program',
    judge: ({ shell }, { conntrack, kernelLog: log, programs }) =>
      placeIsThere(shell) || (conntrack === null && programs.length === 0 && log !== 'journal' && log !== 'both')
        ? []
        : [
            {
              severity: 'critical',
              wrong: shell === 'missing' ? '/bin/sh is not there.' : '/bin/sh may not be run by this user.',
              mend: 'install a shell there (`apt install dash`), in the image or the sandbox too',
            },
          ],
  },
  {
    id: 'program',
    looksAt: 'programs of command inputs',
    lost: 'all that this input would bring',
    judge: ({ programs }) =>
      Object.entries(programs).flatMap(([name, place]): Fault[] =>
        placeIsThere(place)
          ? []
          : [
              {
                severity: 'critical',
                about: name,
                wrong:
                  place === 'missing'
                    ? `The program ${name} of a command input is not there.`
                    : `The program ${name} of a command input may not be run by this user.`,
                mend: `install ${name}, or name it with its whole path in program:`,
              },
            ],
      ),
  },
]

const counters: readonly Check[] = [
  {
    id: 'module',
    looksAt: '/proc/sys/net/netfilter/nf_conntrack_max',
    lost: 'everything: as long as it is not loaded no flow is tracked, and settings made before it is loaded do not take',
    judge: (facts, plan) =>
      isModuleLoaded(facts) || facts.procOptions === null || facts.procOptions.includes('subset=pid') || (plan.conntrack === null && !plan.table)
        ? []
        : [
            {
              severity: 'critical',
              wrong: 'Connection tracking is not loaded: /proc/sys/net/netfilter/nf_conntrack_max is not there.',
              ...mendedBy('modprobe nf_conntrack'),
              persist: 'a line nf_conntrack in /etc/modules-load.d/conntrail.conf; flows are tracked once a rule needs it (ct state, NAT)',
            },
          ],
  },
  {
    id: 'proc',
    looksAt: '/proc',
    lost: "the kernel's counters and settings, namespaces and boot id",
    judge({ procOptions }) {
      if (procOptions === null) return [{ severity: 'critical', wrong: '/proc is not mounted.', ...mendedBy('mount -t proc proc /proc') }]
      if (procOptions.includes('subset=pid'))
        return [
          {
            severity: 'critical',
            wrong: '/proc is mounted with subset=pid: /proc/sys and /proc/net are not there.',
            mend: 'no remount takes it back: start again without it',
            persist: "ProcSubset=all in the service's unit",
          },
        ]
      return []
    },
  },
  {
    id: 'hidepid',
    looksAt: 'mount options of /proc',
    lost: 'table samples and names of the network namespaces that are known only by their processes (containers, pods)',
    judge({ procOptions, capabilities }, plan) {
      const hides = procOptions?.find((option) => /^hidepid=(1|2|4|noaccess|invisible|ptraceable)$/.test(option))
      if (hides === undefined || capabilities?.includes('CAP_SYS_PTRACE') === true) return []
      const severity: Severity = plan.otherNamespaces.length > 0 ? 'critical' : 'info'
      return [
        {
          severity,
          wrong: `/proc is mounted with ${hides}: processes of others are not to be seen.`,
          ...mendedBy('mount -o remount,hidepid=0 /proc', ', or run as root, or give CAP_SYS_PTRACE'),
          persist: "ProtectProc=default in the service's unit, hidepid in /etc/fstab",
        },
      ]
    },
  },
  {
    id: 'other-namespaces',
    looksAt: 'nsenter, CAP_SYS_ADMIN and CAP_SYS_PTRACE',
    lost: 'flows and samples of the other network namespaces',
    judge({ nsenter, capabilities }, plan) {
      if (plan.otherNamespaces.length === 0) return []
      const faults: Fault[] = []
      const named = plan.otherNamespaces.join(', ')
      if (!placeIsThere(nsenter))
        faults.push({ severity: 'critical', wrong: `The program nsenter is not there, and netns: ${named} needs it.`, mend: '`apt install util-linux`' })
      const absent = ['CAP_SYS_ADMIN', 'CAP_SYS_PTRACE'].filter((name) => capabilities?.includes(name) === false)
      if (absent.length > 0)
        faults.push({
          severity: 'critical',
          wrong: `netns: ${named} needs ${absent.join(' and ')}, which this user does not have.`,
          mend: 'run as root',
          persist: unit(absent.join(' ')),
        })
      return faults
    },
  },
  {
    id: 'stat-file',
    looksAt: '/proc/net/stat/nf_conntrack',
    lost: 'how many packets were dropped: the kernel logs ten lines in five seconds at most, the counter has them all',
    judge(facts, plan) {
      if (!plan.table || facts.counters !== null || facts.procOptions === null || facts.procOptions.includes('subset=pid') || !isModuleLoaded(facts)) return []
      const wrong = '/proc/net/stat/nf_conntrack is not there: this kernel is built without CONFIG_NF_CONNTRACK_PROCFS'
      if (toolWorks(facts))
        return [{ severity: 'info', wrong: `${wrong}; conntrack -S is asked instead, which takes a process a sample.`, mend: 'table: every: 5s takes less' }]
      return [
        {
          severity: 'critical',
          wrong: `${wrong}, and conntrack -S, which could stand in, does not work either.`,
          mend: `${PACKAGE}, and CAP_NET_ADMIN`,
          persist: unit('CAP_NET_ADMIN'),
        },
      ]
    },
  },
]

const files: readonly Check[] = [
  {
    id: 'input-refused',
    looksAt: 'files that fit the inputs',
    lost: 'every line of these files',
    judge: ({ inputs }) =>
      inputs.flatMap(({ name, refused }) =>
        refused.map(({ path, code }): Fault => ({
          severity: 'critical',
          about: path,
          wrong: `Input ${name}: ${path} cannot be read (${code}).`,
          mend: isDenied(code)
            ? '`usermod -aG adm USER` (system logs belong to that group on Debian), or `setfacl -m u:USER:r FILE`'
            : `\`cat ${path}\`, as this user, must work`,
          ...(isDenied(code) ? { persist: "SupplementaryGroups=adm in the service's unit" } : {}),
        })),
      ),
  },
  {
    id: 'input-empty',
    looksAt: 'files that fit the inputs',
    lost: 'nothing, if the file is still to come; everything, if the path is misspelled',
    judge: ({ inputs }, plan) =>
      inputs.flatMap(({ name, matched, refused }): Fault[] =>
        matched > 0 || refused.length > 0
          ? []
          : [
              {
                severity: 'info',
                about: name,
                wrong: `Input ${name}: nothing fits ${plan.files.find((input) => input.name === name)?.patterns.join(', ') ?? 'its path'} now.`,
                mend: 'it is waited for; compare the path with `ls`',
              },
            ],
      ),
  },
  {
    id: 'own-output-read',
    looksAt: 'files of inputs and outputs, by device and inode',
    lost: 'the disk: what is written is read and written again, without end, until it is full',
    judge: ({ inputs }) =>
      inputs.flatMap(({ name, ownOutputs }) =>
        ownOutputs.map((output): Fault => ({
          severity: 'critical',
          about: name,
          wrong: `Input ${name} reads the file that output ${output} writes, by another name (a link or mount).`,
          mend: `exclude: in input ${name}, or another directory for output ${output}`,
        })),
      ),
  },
  {
    id: 'shipper-log-read',
    looksAt: 'files that fit the inputs',
    lost: "the shipper's and this program's time and disk: a shipper that reads our records and logs about each is read by us again",
    judge: ({ inputs }) =>
      inputs.flatMap(({ name, shipperLogs }): Fault[] =>
        shipperLogs.length === 0
          ? []
          : [
              {
                severity: 'warning',
                about: name,
                wrong: `Input ${name} reads what a log shipper writes about itself: ${shipperLogs.slice(0, 3).join(', ')}${shipperLogs.length > 3 ? ` and ${shipperLogs.length - 3} more` : ''}.`,
                mend: `exclude: ["${shipperLogs[0]!.replace(/\/[^/]*$/, '')}/**"] in input ${name}`,
              },
            ],
      ),
  },
]

/** Sysctls as what mends, and where they stay. */
export function sysctl(values: Readonly<Record<string, number>>, note = ''): Pick<Fault, 'mend' | 'command' | 'persist' | 'sysctls'> {
  const needsModule = Object.keys(values).some((name) => name.startsWith('net.netfilter.'))
  return {
    ...mendedBy(
      `sysctl -w ${Object.entries(values)
        .map(([name, value]) => `${name}=${value}`)
        .join(' ')}`,
      note === '' ? '' : ` (${note})`,
    ),
    persist: `/etc/sysctl.d/90-conntrail.conf${needsModule ? '; and nf_conntrack in /etc/modules-load.d/conntrail.conf, for the setting is not there before the module' : ''}`,
    sysctls: values,
  }
}

export const readingChecks: readonly Check[] = [...kernelLog, ...tool, ...counters, ...files]
