/**
 * The vocabulary: what a format reads out of bytes, a detector adds to, and a printer writes. Every later stage sees these shapes and nothing of the text.
 *
 * Values that are only copied (addresses, counters) stay bytes: an event holds offsets into `page`, which are good until the next batch is laid there.
 * Values that are compared are numbers. There is one FlowEvent, used again for each line (1.3x against a fresh object a line).
 */

/** Longest accepted line. Longer ones are counted, reported and skipped. */
export const LINE_BYTES_MAX = 1 << 20
/** Largest piece that one read may give. */
export const CHUNK_BYTES_MAX = 1 << 18
/** Room for values that a format had to rewrite (canonical IPv6 text, say), emptied at every line. */
const SCRATCH_BYTES = 1 << 16

/** Bytes that a copy may run past the end of what it copies, before and behind everything in `page`. */
export const SLACK = 16
export const BATCH_AT = SLACK
/** A batch may hold a carried line, a line held back for its second half, and one read. */
export const SCRATCH_AT = BATCH_AT + 2 * (LINE_BYTES_MAX + SLACK) + CHUNK_BYTES_MAX + SLACK

/** The batch that is being worked on, and behind it the scratch. One constant buffer, so that the compiled code holds its address. */
export const page = new Uint8Array(SCRATCH_AT + SCRATCH_BYTES + SLACK)
export const pageView = new DataView(page.buffer)
export const SCRATCH_END = SCRATCH_AT + SCRATCH_BYTES

export const recordTypes = ['flow', 'expect', 'kernel', 'alert', 'gap', 'table', 'reject'] as const
export type RecordType = (typeof recordTypes)[number]
/** With its LF. No record is longer: the longest line (16 KiB) with every byte of it escaped to six, and the keys. */
export const RECORD_BYTES_MAX = 1 << 17

/** Where records are from: name of the host, of the input; '' is absent. Inode number of the network namespace, 0 is absent, and its name. */
export interface RecordOrigin {
  readonly host: string
  readonly input: string
  readonly netns: number
  readonly netnsName: string
}

export const NEW = 0
export const UPDATE = 1
export const DESTROY = 2
export const ENTRY = 3
export const eventNames = ['new', 'update', 'destroy', 'entry'] as const

/** Where a record's time comes from; 0 is the line's own absolute time. */
export const TIME_OWN = 0
export const TIME_LOCAL = 1
export const TIME_RECEIVED = 2
/** the kernel's monotonic clock on the host that runs now; or of a file, whose last line is taken to be as old as the file */
export const TIME_BOOT = 3
export const TIME_ESTIMATED = 4
/** of the line before or behind: its own stamp cannot be read */
export const TIME_NEIGHBOUR = 5
export const timeSourceNames = ['', 'local', 'received', 'boot', 'estimated', 'neighbour'] as const

export const CT_NEW = 0
export const CT_ESTABLISHED = 1
export const CT_RELATED = 2
export const ctstateNames = ['NEW', 'ESTABLISHED', 'RELATED'] as const

/** Why a flow ended, in the order in which the contract tries them. */
export const endReasons = ['deleted', 'refused', 'reset', 'closed', 'unknown', 'expired', 'evicted', 'removed'] as const
export const [END_DELETED, END_REFUSED, END_RESET, END_CLOSED, END_UNKNOWN, END_EXPIRED, END_EVICTED, END_REMOVED] = [0, 1, 2, 3, 4, 5, 6, 7] as const

/** What the three keys of a tuple are. */
export const KEYS_NONE = 0
export const KEYS_PORTS = 1
export const KEYS_ICMP = 2
export const KEYS_GRE = 3

/** One direction of a flow. Address words are in network order, IPv4 in the last word, as in ::ffff:a.b.c.d without the prefix. */
export class Tuple {
  s0 = 0
  s1 = 0
  s2 = 0
  s3 = 0
  d0 = 0
  d1 = 0
  d2 = 0
  d3 = 0
  srcAt = 0
  srcLen = 0
  dstAt = 0
  dstLen = 0
  /** KEYS_* */
  keys = 0
  /** sport, ICMP type or GRE srckey, and so on: the numbers, and where their digits stand. */
  k1 = 0
  k1At = 0
  k1Len = 0
  k2 = 0
  k2At = 0
  k2Len = 0
  k3 = 0
  k3At = 0
  k3Len = 0
  /** Zone of this direction alone, 0 is none. */
  zone = 0
  /** 64-bit counters as digits; a length of 0 is "not counted". */
  packetsAt = 0
  packetsLen = 0
  bytesAt = 0
  bytesLen = 0
}

/** One conntrack event or row of a table. A length of 0 or a number of -1 means absent, unless said. */
export class FlowEvent {
  /** NEW, UPDATE, DESTROY or ENTRY */
  event = 0
  /** 4 or 6 */
  family = 0
  /** IANA number */
  protocol = 0
  /** inode number of the network namespace, 0 where it is not known */
  netns = 0
  /** Time of the record: seconds since the epoch and microseconds; TIME_* */
  sec = 0
  usec = 0
  timeSource = 0
  timeout = -1
  timeoutAt = 0
  timeoutLen = 0
  /** Index into `states`, as on the line; -1 where it has none. The tracker fills it in. */
  state = -1
  readonly orig = new Tuple()
  readonly reply = new Tuple()
  unreplied = false
  assured = false
  /** 0 none, 1 sw, 2 hw */
  offload = 0
  /** IPS_EXPECTED where the form shows it: 1 set, 0 not set, -1 not shown */
  expected = -1
  /** Bits of HAS_*: which of the rarer fields below are filled, so that the common line tests one number. */
  has = 0
  markAt = 0
  markLen = 0
  zone = 0
  secmarkAt = 0
  secmarkLen = 0
  secctxAt = 0
  secctxLen = 0
  helperAt = 0
  helperLen = 0
  /** Names separated by commas. */
  labelsAt = 0
  labelsLen = 0
  useAt = 0
  useLen = 0
  id = 0
  idAt = 0
  idLen = 0
  startSec = 0
  startUsec = 0
  stopSec = 0
  stopUsec = 0
  deltaTime = 0
  deltaTimeAt = 0
  deltaTimeLen = 0
  portidAt = 0
  portidLen = 0
  prognameAt = 0
  prognameLen = 0
  /** What a vendor's kernel adds behind the tuples, by name. */
  extra: Record<string, string | true> = {}

  /** Where the tracker looks for the flow: hash of the original tuple, and the number of its namespace and zone. */
  hash = 0
  scope = 0
  /** From here on the tracker's findings. The flow's own number in two halves. */
  flowHigh = 0
  flowLow = 0
  /** CT_* */
  ctstate = 0
  /** Index into `states`, FROM_NULL or FROM_NONE */
  from = 0
  /** Microseconds, -1 absent */
  after = -1
  /** Index into `endReasons`, on DESTROY */
  reason = 0
  /** Microseconds, -1 absent */
  duration = -1
  idle = -1
}

/** `from` of a flow that was not seen before, and of an event that changed no state. */
export const FROM_NULL = -1
export const FROM_NONE = -2

export const HAS_MARK = 1
export const HAS_ZONE = 1 << 1
export const HAS_SECMARK = 1 << 2
export const HAS_SECCTX = 1 << 3
export const HAS_HELPER = 1 << 4
export const HAS_LABELS = 1 << 5
export const HAS_USE = 1 << 6
export const HAS_ID = 1 << 7
export const HAS_START = 1 << 8
export const HAS_STOP = 1 << 9
/** start and stop are in nanoseconds (cut to microseconds), not whole seconds */
export const HAS_NANOSECONDS = 1 << 10
export const HAS_DELTA_TIME = 1 << 11
/** a process caused the event */
export const HAS_BY = 1 << 12
export const HAS_PROGNAME = 1 << 13
/** words of a vendor's kernel */
export const HAS_EXTRA = 1 << 14

/** One expectation event or row. Rare, so an ordinary object. */
export interface ExpectEvent extends RecordTime {
  readonly event: typeof NEW | typeof DESTROY | typeof ENTRY
  readonly family: 4 | 6
  readonly protocol: number
  /** seconds; -1 absent */
  readonly timeout: number
  readonly tuple: ExpectTuple
  readonly mask: ExpectTuple | null
  readonly master: ExpectTuple | null
  readonly zone: number
  readonly flags: readonly string[]
  /** -1 absent */
  readonly class: number
  readonly helper: string
}

/** Addresses as text and as four words; keys as in `Tuple`. */
export interface ExpectTuple {
  readonly src: string
  readonly dst: string
  readonly words: readonly number[]
  readonly keys: number
  readonly k1: number
  readonly k2: number
  readonly k3: number
}

/** A moment: seconds since the epoch and microseconds. */
export interface Time {
  readonly sec: number
  readonly usec: number
}

/** Of microseconds since the epoch; what is less than one is cut off. */
export function timeOf(microseconds: number): Time {
  const whole = Math.floor(microseconds)
  const sec = Math.floor(whole / 1e6)
  return { sec, usec: whole - sec * 1e6 }
}

/** When a record is, and how that is known (TIME_*). */
export interface RecordTime extends Time {
  readonly timeSource: number
}

export const gapCauses = [
  'kmsg_overrun',
  'logger_missed',
  'netlink_overrun',
  'input_restart',
  'restart',
  'dump_interrupted',
  'file_rewritten',
  'file_vanished',
  'line_too_long',
  'tracker_limit',
  'queue_full',
  'output_dropped',
  'clock_jump',
] as const
export type GapCause = (typeof gapCauses)[number]

/** Input known to be lost. */
export interface Gap extends RecordTime {
  readonly cause: GapCause
  /** exact, or -1 */
  readonly count: number
  /** lower bound where no count is exact, or -1 */
  readonly atLeast: number
  readonly from: Time | null
  readonly to: Time | null
  /** which output lost it and why, for `output_dropped` */
  readonly output?: string
  readonly reason?: string
  /** that the line names; '' or absent: none */
  readonly host?: string
}

export const kernelKinds = [
  'table_full',
  'expect_table_full',
  'suppressed',
  'invalid_packet',
  'packet_log',
  'helper',
  'loaded',
  'syn_flood',
  'neighbour_overflow',
  'queue_full',
] as const
export type KernelKind = (typeof kernelKinds)[number]

/** The packet of a line of the kernel's log target. Keys as printed in the record, in that order; absent where the line has none. */
export interface Packet {
  readonly reason?: string
  readonly prefix?: string
  readonly in?: string
  readonly out?: string
  readonly src?: string
  readonly dst?: string
  /** lower case: tcp, udp, icmp; the number where it has no name */
  readonly protocol?: string
  readonly sport?: number
  readonly dport?: number
  readonly flags?: readonly string[]
  readonly [key: string]: unknown
}

/** One line of the kernel's log about connection tracking. Rare beside flows, so an ordinary object. -1, 0 (`netns`, `repeat`), '' and null mean absent. */
export interface KernelEvent extends RecordTime {
  readonly kind: KernelKind
  /** that the line names */
  readonly host: string
  /** inode of the network namespace that the line names */
  readonly netns: number
  readonly priority: number
  readonly facility: number
  /** sequence number of /dev/kmsg */
  readonly seq: number
  /** microseconds of the kernel's clock since boot */
  readonly monotonic: number
  readonly message: string
  /** copies, where a logger folded them: 9 for "message repeated 9 times" */
  readonly repeat: number
  /** callbacks suppressed */
  readonly count: number
  readonly buckets: number
  readonly max: number
  readonly packet: Packet | null
  /** place in its carrier, that record ids are made of: kmsg's sequence number, the journal's `<sequence id>.<number>` */
  readonly position: string
  /** only the kernel can have written it (kmsg, dmesg, the journal's _TRANSPORT=kernel); false for syslog files, where any program may call itself kernel */
  readonly trusted: boolean
}

/** Counters of /proc/net/stat/nf_conntrack by the names of conntrack -S. */
export const counterNames = ['drop', 'early_drop', 'insert_failed', 'chaintoolong', 'invalid', 'error', 'found', 'clash_resolve', 'search_restart', 'expect_new', 'expect_create', 'expect_delete'] as const
export type CounterName = (typeof counterNames)[number]
/** In no record, and in the metrics only because node_exporter has them: `insert` counts what processes insert (conntrack -I), `ignore` is 0 from Linux 5.9 on. */
export const metricsCounterNames = ['ignore', 'insert'] as const
export type Counters = Readonly<Partial<Record<CounterName | (typeof metricsCounterNames)[number], number>>>

/** The kernel's own numbers at one moment. -1, 0 (`netns`), '' and null mean absent. */
export interface TableSample extends RecordTime {
  readonly netns: number
  readonly netnsName: string
  readonly count: number
  readonly max: number
  readonly buckets: number
  /** summed over CPUs and unwrapped since the watching began; null where only `cpus` is known */
  readonly total: Counters | null
  /** as read, a 32-bit number for each counter of each CPU; null where `total` is known */
  readonly cpus: readonly Counters[] | null
  /** that the line names; '' or absent: none */
  readonly host?: string
}

/** A sample with what follows from it and the one before. */
export interface TableRecord extends TableSample {
  readonly total: Counters | null
  /** count / max; -1 absent */
  readonly usage: number
  /** since the sample before; -1 in the first */
  readonly drop: number
  readonly earlyDrop: number
  readonly insertFailed: number
  /** a second, since the sample before; -1 absent */
  readonly rateNew: number
  readonly rateDestroy: number
  readonly rateDrop: number
  /** seconds until the table is full, only while it is heading there; -1 absent */
  readonly fullIn: number
}

export const alertRules = ['table_full', 'expect_table_full'] as const
/** Words that records may have in a later release; nothing makes them now, so to wait for one is a mistake. */
export const laterAlertRules = ['table_pressure', 'table_filling', 'insert_failed', 'unreplied_fanout'] as const
export type AlertRule = (typeof alertRules)[number]
export const severities = ['info', 'warning', 'critical'] as const
export type Severity = (typeof severities)[number]
export const alertStatuses = ['firing', 'resolved'] as const

/** Who held how many entries of a table at one moment. Keys as printed in the record, in that order. */
export interface Holder {
  /** 'src', 'dst' (addresses), 'service' (destination address, port and protocol), 'state' (protocol and state) */
  readonly by: string
  readonly value: string
  readonly entries: number
  /** 0 to 1: of the kernel's count at that moment; where that is not known, of the entries that were known */
  readonly share: number
  /** entries that were known, where `share` is of these */
  readonly known?: number
  /** of `entries`: opened since the episode began, where a flow input runs; without an answer */
  readonly new?: number
  readonly unreplied: number
}

/** What an episode cost; -1 absent. The fields are the contract's `drops`. */
export interface Drops {
  readonly logged: number
  readonly suppressed: number
  readonly atLeast: number
  readonly estimate: number
  readonly counted: number
  readonly early: number
  readonly races: number
  /** when the watching of the counters began, where that was inside the episode */
  readonly since: Time | null
}

/** One notice of an episode. */
export interface Alert extends RecordTime {
  /** whose table it is; '' this host's, or of a log that names none */
  readonly host: string
  readonly netns: number
  readonly netnsName: string
  readonly rule: AlertRule
  readonly status: (typeof alertStatuses)[number]
  /** the input ended while the episode was open */
  readonly final: boolean
  readonly unconfirmed: boolean
  /** 16 hex digits */
  readonly episode: string
  readonly seq: number
  readonly severity: Severity
  readonly started: Time
  readonly ended: Time | null
  readonly summary: string
  readonly drops: Drops | null
  readonly table: { readonly count: number; readonly max: number } | null
  /** of the fullest moment of the episode, and when that was; null and empty where no entries were known then */
  readonly topAt: Time | null
  readonly top: readonly Holder[]
}

/** A line that begins like one of ours and breaks its grammar. */
export interface Reject extends Time {
  /** counted from 1 in its input */
  readonly line: number
  readonly reason: string
  /** at most the first 1,024 bytes */
  readonly text: Uint8Array
  /** length of the line where `text` is cut, else -1 */
  readonly bytes: number
}
