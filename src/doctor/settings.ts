/** What the kernel is told to count, tell and keep: sysctls, the table and its level, the buffers of listeners. */
import { type Check, type Facts, type Fault, mendedBy } from './model.js'
import { bufferIsSet, isModuleLoaded, sysctl } from './reading.js'

/** Kernel memory that one event waiting in a socket takes: 212,992 bytes hold 166 (measured on 6.18). */
const EVENT_BYTES = 1280
/** Below this the buffer holds fewer events than one busy tenth of a second brings. */
const BUFFER_BYTES_MIN = 1 << 20
const BUFFER_BYTES_GOOD = 8 << 20
/** How long the tool may be held up (a swap, a garbage collection, a busy CPU) without a loss. */
const STALL_SECONDS = 0.5
/** An entry lives so long on the average of busy gateways, and has so many events. Only for the order of magnitude. */
const ENTRY_SECONDS = 60
const ENTRY_EVENTS = 4
/** A lookup walks 2 * max / buckets entries when the table is full; from 50 on the kernel refuses entries (chaintoolong, 5.15). */
const CHAIN_LONG = 8
const CHAIN_TOO_LONG = 16
const LEVEL_HIGH = 0.8
const LEVEL_FULL = 0.95
/** Seconds of the rate limiter's window; from the shortest quiet time of an episode on a window would end episodes that go on. */
const MESSAGE_COST_MAX = 10
/** Backends of log_invalid that write to the kernel's log. */
const KERNEL_LOG_BACKEND = /^nf_log_/
const AF_INET = 2
const INOTIFY_WATCHES_MIN = 8192
const INOTIFY_INSTANCES_MIN = 16
const OPEN_FILES_MIN = 1024
/** Beside followed files: outputs, spools, children, sockets. */
const OPEN_FILES_OWN = 64
/** Before this release a DESTROY event does not tell its state and timeout. */
const TELLS_ENDS = [5, 11] as const
const NODE_MIN = [20, 19] as const

const NEW_ENTRIES = 'counts for entries made afterwards'

function isOlder(text: string, [major, minor]: readonly [number, number]): boolean {
  const [, a, b] = /(\d+)\.(\d+)/.exec(text) ?? []
  return a !== undefined && (Number(a) < major || (Number(a) === major && Number(b) < minor))
}

const listens = (facts: Facts, plan: { readonly conntrack: unknown }): boolean => plan.conntrack !== null && isModuleLoaded(facts)
const shown = (n: number): string => n.toLocaleString('en-US')

/** Bytes that the socket of a listener should hold. */
function bufferNeed(count: number): number {
  const bytes = (count / ENTRY_SECONDS) * ENTRY_EVENTS * STALL_SECONDS * EVENT_BYTES
  return Math.max(BUFFER_BYTES_MIN, Math.ceil(bytes / 2 ** 20) * 2 ** 20)
}

const events: readonly Check[] = [
  {
    id: 'events-off',
    looksAt: 'net.netfilter.nf_conntrack_events',
    lost: 'every flow event: the listener hears nothing and nobody says so',
    judge: (facts, plan) =>
      listens(facts, plan) && facts.sysctls['net.netfilter.nf_conntrack_events'] === 0
        ? [
            {
              severity: 'critical',
              wrong: 'net.netfilter.nf_conntrack_events is 0: the kernel sends no events.',
              ...sysctl({ 'net.netfilter.nf_conntrack_events': 1 }, NEW_ENTRIES),
            },
          ]
        : [],
  },
  {
    id: 'events-auto',
    looksAt: 'net.netfilter.nf_conntrack_events',
    lost: 'updates and ends of flows that began while nobody listened (before the start, between two runs); they are read from the table, and vanish from it without an event',
    judge: (facts, plan) =>
      listens(facts, plan) && facts.sysctls['net.netfilter.nf_conntrack_events'] === 2
        ? [
            {
              severity: 'info',
              wrong: 'net.netfilter.nf_conntrack_events is 2: entries made while nobody listens never send events.',
              ...sysctl({ 'net.netfilter.nf_conntrack_events': 1 }, NEW_ENTRIES),
            },
          ]
        : [],
  },
  {
    id: 'acct-off',
    looksAt: 'net.netfilter.nf_conntrack_acct',
    lost: 'packets and bytes of every flow',
    judge: (facts, plan) =>
      listens(facts, plan) && facts.sysctls['net.netfilter.nf_conntrack_acct'] === 0
        ? [
            {
              severity: plan.writesFlows ? 'warning' : 'info',
              wrong: 'net.netfilter.nf_conntrack_acct is 0: the kernel counts no packets and bytes of flows.',
              ...sysctl({ 'net.netfilter.nf_conntrack_acct': 1 }, NEW_ENTRIES),
            },
          ]
        : [],
  },
  {
    id: 'timestamp-off',
    looksAt: 'net.netfilter.nf_conntrack_timestamp',
    lost: "when flows began and ended by the kernel's clock: the duration of flows older than the program, the same flow id after a restart, and the true time of late events",
    judge: (facts, plan) =>
      listens(facts, plan) && facts.sysctls['net.netfilter.nf_conntrack_timestamp'] === 0
        ? [
            {
              severity: plan.writesFlows ? 'warning' : 'info',
              wrong: 'net.netfilter.nf_conntrack_timestamp is 0: the kernel keeps no times of flows.',
              ...sysctl({ 'net.netfilter.nf_conntrack_timestamp': 1 }, NEW_ENTRIES),
            },
          ]
        : [],
  },
  {
    id: 'event-buffer',
    looksAt: 'net.core.rmem_default, nf_conntrack_count',
    lost: 'events of every burst that the buffer does not hold; they are counted in gap records and gone',
    judge(facts, plan) {
      const bytes = facts.sysctls['net.core.rmem_default']
      if (plan.conntrack === null || bytes === undefined || bufferIsSet(facts, plan)) return []
      const count = facts.sysctls['net.netfilter.nf_conntrack_count'] ?? 0
      const need = bufferNeed(count)
      if (bytes >= need) return []
      const holds = `net.core.rmem_default is ${shown(bytes)}: a listener's buffer holds ${shown(Math.floor(bytes / EVENT_BYTES))} events`
      return [
        {
          severity: 'warning',
          wrong: `${holds}, and ${count > 0 ? `a table of ${shown(count)} entries` : 'a busy host'} can send ${shown(Math.ceil(need / EVENT_BYTES))} while the tool is held up for half a second.`,
          ...sysctl({ 'net.core.rmem_default': Math.max(BUFFER_BYTES_GOOD, need) }, 'for sockets opened afterwards: restart the service'),
        },
      ]
    },
  },
  {
    id: 'listener-drops',
    looksAt: 'Drops in /proc/net/netlink',
    lost: 'the events that this listener could not take',
    judge: ({ listeners }) =>
      listeners
        .filter(({ drops }) => drops > 0)
        .map(({ program, drops }): Fault => ({
          severity: 'warning',
          ...(program === '' ? {} : { about: program }),
          wrong: `A listener for connection tracking events${program === '' ? '' : `, ${program},`} has lost ${shown(drops)} events since it began.`,
          ...sysctl({ 'net.core.rmem_default': BUFFER_BYTES_GOOD }, 'and restart that program'),
        })),
  },
  {
    id: 'several-listeners',
    looksAt: '/proc/net/netlink',
    lost: 'nothing by itself: each listener costs the kernel a copy of every event, and a slow one that asks for reliable delivery (conntrackd NetlinkEventsReliable) holds ended entries in the table',
    judge({ listeners }) {
      const names = listeners.map(({ program }) => program).filter((program) => program !== '')
      return listeners.length < 2
        ? []
        : [
            {
              severity: 'info',
              wrong: `${listeners.length} sockets listen for connection tracking events${names.length === 0 ? '' : `: ${names.join(', ')}`}.`,
              mend: 'one program may listen and pass on: file: or webhook: outputs of this one',
            },
          ]
    },
  },
]

const logging: readonly Check[] = [
  {
    id: 'no-rate-limit',
    looksAt: 'net.core.message_cost',
    lost: "the kernel's older lines: each dropped packet logs one, and the ring is overwritten faster than it can be read",
    judge: ({ sysctls }, { kernelLog }) =>
      sysctls['net.core.message_cost'] === 0 && kernelLog !== 'none'
        ? [
            {
              severity: 'warning',
              wrong: 'net.core.message_cost is 0: the kernel logs a line for every dropped packet.',
              ...sysctl({ 'net.core.message_cost': 5 }),
            },
          ]
        : [],
  },
  {
    id: 'long-rate-limit',
    looksAt: 'net.core.message_cost',
    lost: 'lines: within a window of that length the kernel logs a few and is silent, so that an episode looks as if it were over',
    judge({ sysctls }, { kernelLog }) {
      const cost = sysctls['net.core.message_cost']
      return cost === undefined || cost <= MESSAGE_COST_MAX || kernelLog === 'none'
        ? []
        : [
            {
              severity: 'warning',
              wrong: `net.core.message_cost is ${cost}: after ${sysctls['net.core.message_burst'] ?? 'a few'} lines the kernel is silent for the rest of ${cost} s.`,
              ...sysctl({ 'net.core.message_cost': 5 }),
            },
          ]
    },
  },
  {
    id: 'no-burst',
    looksAt: 'net.core.message_burst',
    lost: 'every "table full" line: the rate limiter lets none through',
    judge: ({ sysctls }, { kernelLog }) =>
      sysctls['net.core.message_burst'] === 0 && sysctls['net.core.message_cost'] !== 0 && kernelLog !== 'none'
        ? [
            {
              severity: 'critical',
              wrong: 'net.core.message_burst is 0: the kernel suppresses all its network messages.',
              ...sysctl({ 'net.core.message_burst': 10 }),
            },
          ]
        : [],
  },
  {
    id: 'log-invalid-nowhere',
    looksAt: 'net.netfilter.nf_conntrack_log_invalid, nf_log/2',
    lost: 'the lines about invalid packets that were asked for',
    judge(facts, { kernelLog }) {
      const asked = facts.sysctls['net.netfilter.nf_conntrack_log_invalid'] ?? 0
      const backend = facts.logBackends[AF_INET] ?? ''
      if (asked === 0 || kernelLog === 'none' || backend === '' || KERNEL_LOG_BACKEND.test(backend)) return []
      const where = backend === 'NONE' ? 'there is no backend that takes them' : `they go to ${backend}, not to the kernel's log`
      return [
        {
          severity: 'warning',
          wrong: `net.netfilter.nf_conntrack_log_invalid is ${asked}, and ${where}.`,
          ...mendedBy('sysctl -w net.netfilter.nf_log.2=nf_log_ipv4 net.netfilter.nf_log.10=nf_log_ipv6', ', after `modprobe nf_log_syslog` (before 5.13: `modprobe -a nf_log_ipv4 nf_log_ipv6`) where the module is not loaded'),
          persist: 'nf_log_syslog in /etc/modules-load.d/conntrail.conf, the two sysctls in /etc/sysctl.d/90-conntrail.conf',
        },
      ]
    },
  },
]

const table: readonly Check[] = [
  {
    id: 'table-level',
    looksAt: 'nf_conntrack_count and nf_conntrack_max',
    lost: 'packets of new connections, of this host too: its alerts, name lookups and logins among them',
    judge({ sysctls }) {
      const [count, max] = [sysctls['net.netfilter.nf_conntrack_count'], sysctls['net.netfilter.nf_conntrack_max']]
      if (count === undefined || max === undefined || max === 0 || count / max < LEVEL_HIGH) return []
      const isFull = count / max >= LEVEL_FULL
      return [
        {
          severity: isFull ? 'critical' : 'warning',
          wrong: `The table has ${shown(count)} of ${shown(max)} entries (${Math.floor((100 * count) / max)} %)${isFull ? ': it is full, or about to be' : ''}.`,
          ...sysctl({ 'net.netfilter.nf_conntrack_max': max * 2 }, 'an entry takes about 320 bytes; `conntrack -L` shows who fills it'),
        },
      ]
    },
  },
  {
    id: 'no-limit',
    looksAt: 'net.netfilter.nf_conntrack_max',
    lost: 'memory: nothing is dropped until the kernel has none left, and then without a "table full" line',
    judge: ({ sysctls }) =>
      sysctls['net.netfilter.nf_conntrack_max'] === 0
        ? [
            {
              severity: 'warning',
              wrong: 'net.netfilter.nf_conntrack_max is 0: the table has no limit.',
              ...sysctl({ 'net.netfilter.nf_conntrack_max': 262_144 }),
            },
          ]
        : [],
  },
  {
    id: 'long-chains',
    looksAt: 'nf_conntrack_max and nf_conntrack_buckets',
    lost: 'packets of new connections: on kernels from 5.15 a chain of 50 to 79 entries refuses more, without a line in the log',
    judge({ sysctls, counters }) {
      const [max, buckets] = [sysctls['net.netfilter.nf_conntrack_max'], sysctls['net.netfilter.nf_conntrack_buckets']]
      const refused = counters?.['chaintoolong'] ?? 0
      if (max === undefined || buckets === undefined || buckets === 0) return []
      const chain = (2 * max) / buckets
      if (chain <= CHAIN_LONG && refused === 0) return []
      const size = `nf_conntrack_max ${shown(max)} with ${shown(buckets)} buckets makes chains of ${Math.round(chain * 10) / 10} entries when the table is full`
      return [
        {
          severity: chain > CHAIN_TOO_LONG || refused > 0 ? 'warning' : 'info',
          wrong: refused > 0 ? `${shown(refused)} entries were refused since boot because their chain was too long; ${size}.` : `${size}.`,
          ...sysctl({ 'net.netfilter.nf_conntrack_buckets': Math.max(max, buckets * 2) }, 'in the first network namespace'),
        },
      ]
    },
  },
  {
    id: 'old-kernel',
    looksAt: 'kernel release',
    lost: 'why flows end: end.reason is unknown for most',
    judge: ({ kernel }, plan) =>
      plan.conntrack !== null && plan.writesFlows && isOlder(kernel, TELLS_ENDS)
        ? [
            {
              severity: 'warning',
              wrong: `The kernel is ${kernel}: before 5.11 its destroy events do not tell state and timeout.`,
              mend: 'a kernel from 5.11 on',
            },
          ]
        : [],
  },
]

const limits: readonly Check[] = [
  {
    id: 'inotify',
    looksAt: 'fs.inotify.max_user_instances, fs.inotify.max_user_watches',
    lost: 'quick notice of new lines and files: they are found by looking, each second, and what comes and goes in between is not',
    judge({ inotify, sysctls }, plan) {
      const [instances, watches] = [sysctls['fs.inotify.max_user_instances'], sysctls['fs.inotify.max_user_watches']]
      const wanted = { 'fs.inotify.max_user_instances': Math.max(512, instances ?? 0), 'fs.inotify.max_user_watches': Math.max(65_536, watches ?? 0) }
      const severity = plan.files.length > 0 || plan.configFile === '' ? 'warning' : 'info'
      if (inotify === 'EMFILE' || inotify === 'ENOSPC')
        return [
          {
            severity,
            wrong: `This user has no inotify ${inotify === 'EMFILE' ? `instance left of ${instances ?? 'its'}` : `watch left of ${watches ?? 'its'}`}.`,
            ...sysctl({ 'fs.inotify.max_user_instances': (instances ?? 128) * 4, 'fs.inotify.max_user_watches': (watches ?? 16_384) * 4 }),
          },
        ]
      if ((watches ?? Infinity) >= INOTIFY_WATCHES_MIN && (instances ?? Infinity) >= INOTIFY_INSTANCES_MIN) return []
      return [
        {
          severity,
          wrong: `A user may have ${shown(instances ?? 0)} inotify instances and ${shown(watches ?? 0)} watches, shared by all of its programs.`,
          ...sysctl(wanted),
        },
      ]
    },
  },
  {
    id: 'open-files',
    looksAt: 'limit of open files (ulimit -n)',
    lost: 'files, connections and children that cannot be opened any more',
    judge({ openFiles, inputs }) {
      const matched = inputs.reduce((sum, input) => sum + input.matched, 0)
      // a rotated file is kept open beside its successor for a while
      const need = Math.max(OPEN_FILES_MIN, 2 * matched + OPEN_FILES_OWN)
      return openFiles < 0 || openFiles >= need
        ? []
        : [
            {
              severity: 'warning',
              wrong: `At most ${shown(openFiles)} files may be open at a time${matched > 0 ? `, and ${shown(matched)} fit the inputs` : ''}.`,
              ...mendedBy(`ulimit -n ${Math.max(need, 4096)}`),
              persist: `LimitNOFILE=${Math.max(need, 4096)} in the service's unit`,
            },
          ]
    },
  },
  {
    id: 'node',
    looksAt: 'version of Node',
    lost: 'nothing is promised there',
    judge: ({ node }) =>
      isOlder(node, NODE_MIN)
        ? [{ severity: 'critical', wrong: `Node is ${node}, and this program needs ${NODE_MIN.join('.')} or newer.`, mend: 'install Node 20.19 or newer' }]
        : [],
  },
]

export const settingsChecks: readonly Check[] = [...events, ...logging, ...table, ...limits]
