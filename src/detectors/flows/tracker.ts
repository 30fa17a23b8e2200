/**
 * Follows each flow from its first record to its end and writes what follows from that into the event: state, ctstate, transition, the flow's own number, and
 * why and after how long it ended.
 *
 * A flow is found by namespace, zone of its original direction, protocol and original tuple; the kernel's id only confirms: it is a 32-bit hash that live flows
 * share and that the next life of a tuple often gets again.
 */
import {
  type ExpectEvent,
  type FlowEvent,
  type Gap,
  CT_ESTABLISHED,
  CT_NEW,
  CT_RELATED,
  DESTROY,
  END_CLOSED,
  END_DELETED,
  END_EVICTED,
  END_EXPIRED,
  END_REFUSED,
  END_REMOVED,
  END_RESET,
  END_UNKNOWN,
  ENTRY,
  FROM_NONE,
  FROM_NULL,
  HAS_BY,
  HAS_DELTA_TIME,
  HAS_ID,
  HAS_NANOSECONDS,
  HAS_START,
  HAS_STOP,
  KEYS_NONE,
  NEW,
  TIME_RECEIVED,
  type Time,
  timeOf,
  UPDATE,
} from '../../event.js'
import {
  dccpState,
  PROTO_DCCP,
  PROTO_ICMP,
  PROTO_ICMPV6,
  PROTO_SCTP,
  PROTO_TCP,
  sctpState,
  STATE_ASSURED,
  STATE_REPLIED,
  STATE_UNREPLIED,
  STATUS_STATE,
  tcpState,
} from '../../kernel.js'
import { Dumps } from './dumps.js'
import type { FullTable } from '../../stage.js'
import { Expectations } from './expectations.js'
import {
  FLAG_ANSWERED,
  FLAG_BEGIN_NANOSECONDS,
  FLAG_BEGIN_NEW,
  FLAG_BEGIN_START,
  FLAG_BY_ID,
  FLAG_DUMP,
  FLAG_HAS_ID,
  FLAG_LAST_KNOWN,
  FLAG_NAMED_BY_START,
  FLAG_RELATED,
  FLAG_ROWS_ONLY,
  FLAGS_BEGIN,
  FlowTable,
  hashTuple,
  hashWords,
} from './table.js'

const CLOSE = tcpState('CLOSE')
const CLOSED_STATES = new Set([tcpState('TIME_WAIT'), tcpState('LAST_ACK'), sctpState('SHUTDOWN_ACK_SENT'), dccpState('TIMEWAIT')])

/** In these the kernel may throw a flow out of a full table though it is assured: tcp_can_early_drop and its like in nf_conntrack_proto_{tcp,sctp,dccp}.c. */
const EVICTABLE_STATES = new Set([
  ...(['FIN_WAIT', 'LAST_ACK', 'TIME_WAIT', 'CLOSE', 'CLOSE_WAIT'] as const).map(tcpState),
  ...(['SHUTDOWN_RECD', 'SHUTDOWN_SENT', 'SHUTDOWN_ACK_SENT'] as const).map(sctpState),
  ...(['CLOSEREQ', 'CLOSING', 'TIMEWAIT'] as const).map(dccpState),
])

/**
 * So many lives of a tuple are told apart by looking at each: every DESTROY that got lost leaves one behind. Further ones, as of pings, which are all one tuple
 * between two hosts in XML, are found by their ids, so that a look-up costs the same however many there are.
 */
const LIVES_LOOKED_AT = 8
/** A row printed within two seconds of a change of state may be older than the change: the two come through different pipes. */
const ROW_LAG_SEC = 2
/** Places of the table looked at for one flow to give up at the limit, and with each event for rows whose timeout ran out. */
const DISPLACE_LOOKS = 16
const SWEEP_PLACES = 4
/** `conntrack -L` prints its sum at most one buffer (4,096 bytes) before its last rows. */
const DUMP_ROWS_BEHIND = 128
/** The end of a dump looks at the whole table, if the dump was not tiny beside it: a stream of ends of dumps must not hold up the loop. */
const DUMP_PLACES_FREE = 1024
const DUMP_PLACES_FOR_A_ROW = 64
/** Places of the table looked at for flows that a dump did not show: when it ends and with each tick, and with each event. */
const DUMP_SWEEP_TICK = 1 << 18
const DUMP_SWEEP_EVENT = 64
/** Names of ended lives that are kept, so that the next life within the same second of the same tuple does not get one of them. */
const ENDED_NAMES = 1 << 16
/** At the limit one gap record at most in so many seconds. */
const LIMIT_GAP_SEC = 10
/** Deadline of a row without a timeout (an offloaded flow). */
const NEVER_SEC = 0xffffffff

export interface FlowTrackerOptions {
  /** Live flows at most. At the limit the flow whose state has been the same for longest, of sixteen looked at, is given up, counted and told in a gap. */
  readonly flowsMax: number
  /** any number; changes no result */
  readonly seed: number
  /** whether the table is known to be full: then the kernel ends flows to make room */
  readonly fullTable: FullTable
}

export class FlowTracker {
  readonly table: FlowTable
  readonly expectations = new Expectations()
  readonly #fullTable: FullTable
  /** flows known from rows only that ran out, flows that a later dump did not show; flows given up at the limit */
  forgotten = 0
  displaced = 0
  readonly #scopes = new Map<string, number>()
  readonly #scopeHash: number[] = []
  readonly #scopeNetns: number[] = []
  #lastNetns = -1
  #lastZone = -1
  #lastScope = 0
  /** numbers lives; begins at a hash of the first flow, so that runs over different input number differently */
  #life = 0
  #run = 0
  /** a word of DCCP's states was seen: then a line without one says nothing */
  #dccpStates = false
  /** a TCP DESTROY without a state: the kernel is older than 5.11 */
  #oldKernel = false
  /** names of ended lives by their low bits; the later of two that meet stays */
  #ended: Int32Array | null = null
  /** the latest time of any flow's line: rows run out by it, whichever line finds that they did */
  #now = 0
  #displaceAt = 0
  #sweepAt = 0
  #limitCount = 0
  #limitFrom = { sec: 0, usec: 0 }
  #limitTo = { sec: 0, usec: 0 }
  /** rows since the last end of a dump, what kinds they were, and how many the tool said there are */
  #dumpRows = 0
  #footerRows = -1
  #dumpShown = -1
  readonly #dumpKinds = new Set<number>()
  /** of the dumps that were asked for */
  readonly #dumps: Dumps

  constructor(options: FlowTrackerOptions) {
    this.table = new FlowTable(options.flowsMax, options.seed)
    this.#fullTable = options.fullTable
    this.#dumps = new Dumps(this.table, (ref) => this.#forget(ref))
  }

  track(event: FlowEvent): void {
    if (event.sec > this.#now) this.#now = event.sec
    const hasId = (event.has & HAS_ID) !== 0
    const scope = this.#scope(event)
    event.scope = scope
    if (this.table.rowsOnly !== 0) this.#sweep()
    const asked = this.#dumps.isBusy && this.#inAskedDump(scope)
    event.from = FROM_NONE
    event.after = -1
    if (event.state >= 0 && event.protocol === PROTO_DCCP) this.#dccpStates = true
    let ref = this.table.find(event, hasId)
    if (ref !== 0 && this.table.rowsOnly !== 0 && this.#ranOut(ref)) {
      this.#forget(ref)
      ref = 0
    }
    if (asked) {
      if (event.event === ENTRY) return this.#onAskedEntry(event, scope, ref, hasId)
      this.#dumps.sawEvent(event, ref, event.event === DESTROY)
    }
    switch (event.event) {
      case NEW:
        this.#onNew(event, scope, ref)
        break
      case UPDATE:
        this.#onUpdate(event, scope, ref, hasId)
        break
      case DESTROY:
        this.#onDestroy(event, scope, ref)
        break
      default:
        this.#onEntry(event, scope, ref, hasId)
    }
  }

  /**
   * The clock by which lines are stamped was set, `by` microseconds forward. Begins that are the kernel's own words stay: lines repeat them, and lives are named by
   * them.
   */
  clockStepped(by: number): void {
    const { table } = this
    const moved = (sec: number, usec: number): Time => timeOf(Math.max(0, sec * 1e6 + usec + by))
    this.#now = Math.max(0, this.#now + Math.round(by / 1e6))
    this.expectations.clockStepped(by)
    this.#limitFrom = moved(this.#limitFrom.sec, this.#limitFrom.usec)
    this.#limitTo = moved(this.#limitTo.sec, this.#limitTo.usec)
    for (let place = 0; place < table.places; place++) {
      const ref = table.at(place)
      if (ref === 0) continue
      const flags = table.flags(ref)
      const last = table.lastSec(ref)
      if (last !== 0 && last !== NEVER_SEC) {
        const { sec, usec } = moved(last, table.lastUsec(ref))
        table.setLast(ref, sec, usec, table.state(ref))
      }
      if ((flags & FLAG_BEGIN_NEW) !== 0) {
        const { sec, usec } = moved(table.beginSec(ref), table.beginUsec(ref))
        table.setBegin(ref, sec, usec, FLAG_BEGIN_NEW)
      }
    }
  }

  /** Learns of an expectation; flows that wait for their answer and fit it become RELATED from here on. */
  expect(event: ExpectEvent): void {
    this.expectations.learn(event, this.table)
  }

  /** `<n> flow entries have been shown.`: the tool's stderr may come before its last rows, so the count decides where the dump ends. */
  dumpShown(rows: number): void {
    // in XML the rows' end comes first
    if (this.#dumpRows === 0 && rows === this.#footerRows) return
    const behind = rows - this.#dumpRows
    if (behind > 0 && behind <= DUMP_ROWS_BEHIND) this.#dumpShown = rows
    else this.#dumpOver(behind === 0)
  }

  /** The end of a dump in XML. */
  dumpEnds(): void {
    this.#footerRows = this.#dumpRows
    this.#dumpOver(true)
  }

  /**
   * A dump of this namespace that the program asked for begins; its rows come until `dumpEnded`. They make flows known and are never a transition; what an event
   * has said since the dump began stands against them. The kernel is listened to, so the flows of these rows do not run out by their timeouts.
   */
  dumpBegins(netns: number): void {
    this.#dumps.begin(netns)
  }

  /** It is over. Whole: flows of the namespace that it did not show, and that had no event since it began, are forgotten and counted. */
  dumpEnded(netns: number, whole: boolean): void {
    this.#dumps.end(netns, whole)
    this.sweepGone()
  }

  /** Forgets such flows, of a part of a large table; events do it too. To be called with each tick. True when there are more places to look at. */
  sweepGone(): boolean {
    return this.#dumps.isBusy && this.#dumps.sweep(DUMP_SWEEP_TICK)
  }

  #inAskedDump(scope: number): boolean {
    this.#dumps.sweep(DUMP_SWEEP_EVENT)
    return this.#dumps.isOpen(scope)
  }

  /**
   * A dump has been read: flows known from rows only that it did not show are gone, if it was whole, that is, has as many rows as the tool says. What it shows
   * nothing of at all (it may have been filtered by family or protocol) is left, and everything when it is tiny beside the table.
   */
  #dumpOver(whole: boolean): void {
    this.#dumpShown = -1
    if (this.#dumpRows === 0) return
    const { places } = this.table
    if (this.table.rowsOnly > 0 && places <= DUMP_PLACES_FREE + this.#dumpRows * DUMP_PLACES_FOR_A_ROW) {
      for (let place = 0; place < places; place++) {
        const ref = this.table.at(place)
        if (ref === 0) continue
        const flags = this.table.flags(ref)
        if ((flags & FLAG_DUMP) !== 0) this.table.setFlags(ref, 0, FLAG_DUMP)
        else if (whole && (flags & FLAG_ROWS_ONLY) !== 0 && this.#dumpKinds.has(dumpKind(this.table.kind(ref), ref))) this.#forget(ref)
      }
    }
    this.#dumpRows = 0
    this.#dumpKinds.clear()
  }

  #dumpRow(): void {
    this.#footerRows = -1
    this.#dumpRows++
    if (this.#dumpRows === this.#dumpShown) this.#dumpOver(true)
  }

  /** Is it time to tell what the limit cost? */
  get limitGapIsDue(): boolean {
    return this.#limitCount !== 0 && this.#limitTo.sec - this.#limitFrom.sec >= LIMIT_GAP_SEC
  }

  /** What the limit cost since the last call, as a gap; null when nothing. */
  takeLimitGap(): Gap | null {
    if (this.#limitCount === 0) return null
    const gap: Gap = { ...this.#limitTo, timeSource: 0, cause: 'tracker_limit', count: this.#limitCount, atLeast: -1, from: this.#limitFrom, to: this.#limitTo }
    this.#limitCount = 0
    return gap
  }

  /** Forgets rows whose timeout ran out, a few places of the table with each event, so that no event pays for a whole pass. */
  #sweep(): void {
    for (let n = 0; n < SWEEP_PLACES; n++) {
      if (this.#sweepAt >= this.table.places) this.#sweepAt = 0
      const ref = this.table.at(this.#sweepAt++)
      if (ref !== 0 && this.#ranOut(ref)) this.#forget(ref)
    }
  }

  #onNew(event: FlowEvent, scope: number, before: number): void {
    const table = this.table
    // the same id again, or no id to tell them apart: the DESTROY of the life before got lost or comes late
    for (let ref = before; ref !== 0; ref = table.find(event, (event.has & HAS_ID) !== 0)) table.remove(ref)
    let flags = event.unreplied ? 0 : FLAG_ANSWERED
    if (event.unreplied && (event.expected === 1 || (event.expected < 0 && this.expectations.known !== 0 && this.expectations.claim(event)))) flags |= FLAG_RELATED
    const state = this.#stateOf(event, -1)
    const ref = this.#insert(event, scope, flags)
    const timeKnown = event.timeSource !== TIME_RECEIVED
    if (timeKnown) table.setBegin(ref, event.sec, event.usec, FLAG_BEGIN_NEW)
    this.#setState(ref, event, state, timeKnown)
    if (event.unreplied && event.expected < 0) this.expectations.remember(ref, table.life(ref))
    event.state = state
    if (state >= 0) event.from = FROM_NULL
    event.ctstate = ctstateOf(event.unreplied, flags)
    this.#nameOf(ref, event, scope, flags)
    // a row without an answer is `new` in -o save, the form that shows the bit
    if (event.expected >= 0) this.#dumpRow()
  }

  #onUpdate(event: FlowEvent, scope: number, found: number, hasId: boolean): void {
    const table = this.table
    const timeKnown = event.timeSource !== TIME_RECEIVED
    let ref = found
    if (ref === 0) {
      const state = this.#stateOf(event, -1)
      ref = this.#insert(event, scope, this.#startFlags(event, scope))
      this.#begin(ref, event)
      this.#setState(ref, event, state, timeKnown)
      event.state = state
      if (state >= 0) event.from = FROM_NULL
    } else {
      const before = table.flags(ref)
      if (hasId && (before & FLAG_HAS_ID) === 0) table.setId(ref, event.id)
      if ((before & FLAG_ROWS_ONLY) !== 0) {
        // until here it held when the timeout runs out
        table.setLast(ref, 0, 0, table.state(ref))
        table.setFlags(ref, 0, FLAG_ROWS_ONLY | FLAG_LAST_KNOWN)
      }
      this.#change(ref, event, timeKnown)
    }
    let flags = table.flags(ref)
    if (!event.unreplied) {
      if ((flags & FLAG_ANSWERED) === 0) table.setFlags(ref, FLAG_ANSWERED, 0)
    } else if (event.expected >= 0) {
      table.setFlags(ref, event.expected === 1 ? FLAG_RELATED : 0, FLAG_RELATED)
      flags = table.flags(ref)
    }
    event.ctstate = ctstateOf(event.unreplied, flags)
    this.#nameOf(ref, event, scope, flags)
  }

  #onDestroy(event: FlowEvent, scope: number, ref: number): void {
    const table = this.table
    const timeKnown = event.timeSource !== TIME_RECEIVED
    if (event.protocol === PROTO_TCP && event.state < 0 && event.offload === 0) this.#oldKernel = true
    event.idle = -1
    if (ref === 0) {
      event.state = this.#stateOf(event, -1)
      const flags = this.#startFlags(event, scope)
      event.ctstate = ctstateOf(event.unreplied, event.expected === 1 ? FLAG_RELATED : 0)
      this.#end(event, flags & ~FLAGS_BEGIN, 0, 0)
      this.#name(event, scope, this.#lifeOf(event, scope, flags), flags, event.startSec, event.startUsec)
      if ((flags & FLAG_NAMED_BY_START) !== 0) this.#keepEnded(event)
      return
    }
    const rowsOnly = (table.flags(ref) & FLAG_ROWS_ONLY) !== 0
    if (rowsOnly) table.setFlags(ref, 0, FLAG_ROWS_ONLY | FLAG_LAST_KNOWN)
    this.#change(ref, event, timeKnown)
    const flags = table.flags(ref)
    if (timeKnown && (flags & FLAG_LAST_KNOWN) !== 0) event.idle = elapsed(event, table.lastSec(ref), table.lastUsec(ref))
    const related = event.expected >= 0 ? (event.expected === 1 ? FLAG_RELATED : 0) : flags
    event.ctstate = ctstateOf(event.unreplied, related)
    this.#end(event, flags, table.beginSec(ref), table.beginUsec(ref))
    this.#nameOf(ref, event, scope, flags)
    if ((flags & FLAG_NAMED_BY_START) !== 0) this.#keepEnded(event)
    table.remove(ref)
  }

  #onEntry(event: FlowEvent, scope: number, found: number, hasId: boolean): void {
    const table = this.table
    let ref = found
    if (ref === 0) {
      // the dump shows which life is there now; only pings in XML are many to a tuple
      const keyless = event.orig.keys === KEYS_NONE && (event.protocol === PROTO_ICMP || event.protocol === PROTO_ICMPV6)
      if (table.others > 0 && !keyless) this.#forget(table.oldestLife(event))
      const state = this.#stateOf(event, -1)
      ref = this.#insert(event, scope, this.#startFlags(event, scope) | FLAG_ROWS_ONLY | (event.expected === 1 ? FLAG_RELATED : 0))
      this.#begin(ref, event)
      table.setLast(ref, deadlineOf(event), 0, state)
      event.state = state
    } else {
      if (hasId) table.setId(ref, event.id)
      const flags = table.flags(ref)
      if ((flags & FLAGS_BEGIN) === 0) this.#begin(ref, event)
      const state = this.#stateOf(event, table.state(ref))
      event.state = state
      if ((flags & FLAG_ROWS_ONLY) !== 0) {
        table.setLast(ref, deadlineOf(event), 0, state)
      } else if (state !== table.state(ref) && (table.state(ref) < 0 || event.sec - table.lastSec(ref) >= ROW_LAG_SEC)) {
        // when it changed is not known, and the next row may change it again
        table.setLast(ref, 0, 0, state)
        table.setFlags(ref, 0, FLAG_LAST_KNOWN)
      }
    }
    table.setFlags(ref, FLAG_DUMP | (event.unreplied ? 0 : FLAG_ANSWERED), 0)
    const flags = table.flags(ref)
    const related = event.expected >= 0 ? (event.expected === 1 ? FLAG_RELATED : 0) : flags
    event.ctstate = ctstateOf(event.unreplied, related)
    this.#nameOf(ref, event, scope, flags)
    this.#dumpKinds.add(dumpKind(table.kind(ref), ref))
    this.#dumpRow()
  }

  /** A row of a dump that was asked for. */
  #onAskedEntry(event: FlowEvent, scope: number, found: number, hasId: boolean): void {
    const table = this.table
    const dumps = this.#dumps
    let ref = found
    const state = this.#stateOf(event, ref === 0 ? -1 : table.state(ref))
    event.state = state
    if (ref === 0) {
      // the dump shows which life is there now
      while (table.others > 0 && !dumps.wasSeen(table.oldestLife(event))) {
        this.#forget(table.oldestLife(event))
        table.find(event, hasId)
      }
      const flags = this.#startFlags(event, scope) | (event.expected === 1 ? FLAG_RELATED : 0)
      if (dumps.hasEnded(event) || table.others > 0) {
        // older than an event that is known: it shows a life that has ended
        event.ctstate = ctstateOf(event.unreplied, flags)
        this.#name(event, scope, this.#lifeOf(event, scope, flags), flags, event.startSec, event.startUsec)
        return
      }
      ref = this.#insert(event, scope, flags)
      this.#begin(ref, event)
      table.setLast(ref, 0, 0, state)
    } else {
      if (hasId) table.setId(ref, event.id)
      if ((table.flags(ref) & FLAGS_BEGIN) === 0) this.#begin(ref, event)
      const isRowsOnly = (table.flags(ref) & FLAG_ROWS_ONLY) !== 0
      if (isRowsOnly || (state !== table.state(ref) && !dumps.wasSeen(ref))) {
        // when it changed is not known
        table.setLast(ref, 0, 0, state)
        table.setFlags(ref, 0, FLAG_LAST_KNOWN | FLAG_ROWS_ONLY)
      }
      dumps.saw(ref, scope)
    }
    if (!event.unreplied) table.setFlags(ref, FLAG_ANSWERED, 0)
    const flags = table.flags(ref)
    event.ctstate = ctstateOf(event.unreplied, event.expected >= 0 ? (event.expected === 1 ? FLAG_RELATED : 0) : flags)
    this.#nameOf(ref, event, scope, flags)
  }

  /** The line's state against the flow's: sets `from` and `after`, and the flow's state. */
  #change(ref: number, event: FlowEvent, timeKnown: boolean): void {
    const table = this.table
    const before = table.state(ref)
    const state = this.#stateOf(event, before)
    event.state = state
    if (state === before || state < 0) return
    event.from = before < 0 ? FROM_NULL : before
    if (before >= 0 && timeKnown && (table.flags(ref) & FLAG_LAST_KNOWN) !== 0) event.after = elapsed(event, table.lastSec(ref), table.lastUsec(ref))
    this.#setState(ref, event, state, timeKnown)
  }

  #setState(ref: number, event: FlowEvent, state: number, timeKnown: boolean): void {
    const table = this.table
    table.setLast(ref, event.sec, event.usec, state)
    const known = timeKnown && state >= 0
    if (((table.flags(ref) & FLAG_LAST_KNOWN) !== 0) !== known) table.setFlags(ref, known ? FLAG_LAST_KNOWN : 0, known ? 0 : FLAG_LAST_KNOWN)
  }

  /** The state of this record: the line's; else for protocols without states what its flags say; else what the tracker knew. -1: not known. */
  #stateOf(event: FlowEvent, known: number): number {
    if (event.state >= 0) return event.state
    const protocol = event.protocol
    if (protocol === PROTO_TCP || protocol === PROTO_SCTP) return known
    // kernels since 6.16 track DCCP no more, and then its lines never have a state
    if (protocol === PROTO_DCCP && (this.#dccpStates || (known >= 0 && known < STATUS_STATE))) return known
    // the mark of offloading stands where [ASSURED] would
    if (event.offload !== 0) return known >= 0 ? known : event.unreplied ? STATE_UNREPLIED : STATE_REPLIED
    return event.assured ? STATE_ASSURED : event.unreplied ? STATE_UNREPLIED : STATE_REPLIED
  }

  #end(event: FlowEvent, flags: number, beginSec: number, beginUsec: number): void {
    event.reason = this.#reason(event)
    event.duration = -1
    const hasStart = (event.has & HAS_START) !== 0
    let sec = beginSec
    let usec = beginUsec
    let known = true
    if (hasStart && (event.has & HAS_NANOSECONDS) !== 0) {
      sec = event.startSec
      usec = event.startUsec
    } else if ((flags & (FLAG_BEGIN_NANOSECONDS | FLAG_BEGIN_NEW)) !== 0) {
      // as stored
    } else if (hasStart) {
      sec = event.startSec
      usec = event.startUsec
    } else if ((flags & FLAG_BEGIN_START) === 0) {
      known = false
    }
    if (known && (event.has & HAS_STOP) !== 0) event.duration = Math.max(0, (event.stopSec - sec) * 1e6 + event.stopUsec - usec)
    else if (known && event.timeSource !== TIME_RECEIVED) event.duration = elapsed(event, sec, usec)
    else if ((event.has & HAS_DELTA_TIME) !== 0) event.duration = event.deltaTime * 1e6
  }

  #reason(event: FlowEvent): number {
    if ((event.has & HAS_BY) !== 0) return END_DELETED
    if (event.protocol === PROTO_TCP && event.state === CLOSE) return event.unreplied ? END_REFUSED : END_RESET
    if (CLOSED_STATES.has(event.state)) return END_CLOSED
    if (this.#oldKernel) return END_UNKNOWN
    if (event.timeout < 0) return END_EXPIRED
    const mayBeEvicted = !event.assured || EVICTABLE_STATES.has(event.state)
    return mayBeEvicted && this.#fullTable.wasFull(event.netns, event.sec) ? END_EVICTED : END_REMOVED
  }

  /** Flags of a life that is not seen from its NEW. It is named by the kernel's start time, unless a life of that name has ended already. */
  #startFlags(event: FlowEvent, scope: number): number {
    const answered = event.unreplied ? 0 : FLAG_ANSWERED
    if ((event.has & HAS_START) === 0) return answered
    const begin = answered | ((event.has & HAS_NANOSECONDS) !== 0 ? FLAG_BEGIN_NANOSECONDS : FLAG_BEGIN_START)
    this.#name(event, scope, this.#lifeOf(event, scope, FLAG_NAMED_BY_START), FLAG_NAMED_BY_START, event.startSec, event.startUsec)
    const at = (event.flowLow & (ENDED_NAMES - 1)) * 2
    return this.#ended !== null && this.#ended[at] === event.flowHigh && this.#ended[at + 1] === event.flowLow ? begin : begin | FLAG_NAMED_BY_START
  }

  #keepEnded(event: FlowEvent): void {
    this.#ended ??= new Int32Array(ENDED_NAMES * 2)
    const at = (event.flowLow & (ENDED_NAMES - 1)) * 2
    this.#ended[at] = event.flowHigh
    this.#ended[at + 1] = event.flowLow
  }

  #begin(ref: number, event: FlowEvent): void {
    if ((event.has & HAS_START) === 0) return
    this.table.setBegin(ref, event.startSec, event.startUsec, (event.has & HAS_NANOSECONDS) !== 0 ? FLAG_BEGIN_NANOSECONDS : FLAG_BEGIN_START)
  }

  #lifeOf(event: FlowEvent, scope: number, flags: number): number {
    if ((flags & FLAG_NAMED_BY_START) !== 0) return (event.has & HAS_ID) !== 0 ? event.id : 0
    if (this.#run === 0) {
      this.#run = hashTuple(event.orig, event.protocol, 0, event.family === 6, event.sec ^ Math.imul(event.usec, 0x9e3779b1)) | 1
      this.#life = Math.imul(this.#run ^ this.#scopeHash[scope], 0x85ebca6b)
    }
    this.#life = (this.#life + 1) | 0
    return this.#life
  }

  #insert(event: FlowEvent, scope: number, flags: number): number {
    const table = this.table
    if (table.size >= table.limit) this.#makeRoom(event)
    const hasId = (event.has & HAS_ID) !== 0
    if (!hasId) event.id = 0
    const byId = table.others >= LIVES_LOOKED_AT ? FLAG_BY_ID : 0
    return table.insert(event, this.#lifeOf(event, scope, flags), flags | byId | (hasId ? FLAG_HAS_ID : 0) | this.#dumps.markOf(scope))
  }

  /** At the limit: of sixteen flows the one that changed state longest ago goes; one known from rows only goes first. */
  #makeRoom(event: FlowEvent): void {
    const table = this.table
    let victim = 0
    let oldest = Infinity
    for (let n = 0; n < DISPLACE_LOOKS || victim === 0; n++) {
      if (this.#displaceAt >= table.places) this.#displaceAt = 0
      const ref = table.at(this.#displaceAt++)
      if (ref === 0) continue
      const age = (table.flags(ref) & FLAG_ROWS_ONLY) !== 0 ? -1 : table.lastSec(ref)
      if (age < oldest) {
        oldest = age
        victim = ref
      }
    }
    this.#displace(victim, event)
  }

  #displace(ref: number, event: FlowEvent): void {
    this.table.remove(ref)
    this.displaced++
    if (this.#limitCount++ === 0) this.#limitFrom = { sec: event.sec, usec: event.usec }
    this.#limitTo = { sec: event.sec, usec: event.usec }
  }

  #forget(ref: number): void {
    this.table.remove(ref)
    this.forgotten++
  }

  #ranOut(ref: number): boolean {
    return (this.table.flags(ref) & FLAG_ROWS_ONLY) !== 0 && this.table.lastSec(ref) < this.#now
  }

  #scope(event: FlowEvent): number {
    const zone = event.orig.zone !== 0 ? event.orig.zone : event.zone
    if (event.netns === this.#lastNetns && zone === this.#lastZone) return this.#lastScope
    const key = `${event.netns} ${zone}`
    let scope = this.#scopes.get(key)
    if (scope === undefined) {
      scope = this.#scopes.size
      this.#scopes.set(key, scope)
      this.#scopeNetns.push(event.netns)
      this.#scopeHash.push(hashWords(event.netns, zone, 0, 0, 1))
      this.#dumps.addScope(event.netns)
    }
    this.#lastNetns = event.netns
    this.#lastZone = zone
    this.#lastScope = scope
    return scope
  }

  /** The network namespace of a scope (a namespace and a zone), as `kind` of the table holds it. */
  netnsOf(scope: number): number {
    return this.#scopeNetns[scope] ?? 0
  }

  /** The kernel's ids of the live flows by namespace, where they are known. */
  liveIds(): Map<number, number[]> {
    const { table } = this
    const ids = new Map<number, number[]>()
    for (let place = 0; place < table.places; place++) {
      const ref = table.at(place)
      if (ref === 0 || (table.flags(ref) & FLAG_HAS_ID) === 0) continue
      const netns = this.netnsOf(table.kind(ref) >>> 8)
      const list = ids.get(netns)
      if (list === undefined) ids.set(netns, [table.id(ref) >>> 0])
      else list.push(table.id(ref) >>> 0)
    }
    return ids
  }

  #nameOf(ref: number, event: FlowEvent, scope: number, flags: number): void {
    if ((flags & FLAG_NAMED_BY_START) === 0) this.#name(event, scope, this.table.life(ref), flags, 0, 0)
    else this.#name(event, scope, this.table.life(ref), flags, this.table.beginSec(ref), this.table.beginUsec(ref))
  }

  /**
   * The flow's own 64-bit number. A permutation of (life, run), so that no two lives of a run share one; lives named by the kernel's start time get a hash of
   * that and the tuple, the same in every run.
   */
  #name(event: FlowEvent, scope: number, life: number, flags: number, beginSec: number, beginUsec: number): void {
    let high = life
    let low = this.#run
    if ((flags & FLAG_NAMED_BY_START) !== 0) {
      const tuple = hashTuple(event.orig, event.protocol, 0, event.family === 6, 0) ^ this.#scopeHash[scope]
      high = hashWords(life, beginSec | 0, beginUsec, tuple, 2)
      low = hashWords(tuple, beginSec | 0, life, beginUsec, 3)
    }
    low ^= Math.imul(high ^ (high >>> 15), 0x2c1b3c6d)
    high ^= Math.imul(low ^ (low >>> 13), 0x297a2d39)
    low ^= Math.imul(high ^ (high >>> 16), 0x85ebca6b)
    high ^= Math.imul(low ^ (low >>> 14), 0xc2b2ae35)
    event.flowHigh = high
    event.flowLow = low
  }
}

function ctstateOf(unreplied: boolean, flags: number): number {
  if (!unreplied) return CT_ESTABLISHED
  return (flags & FLAG_RELATED) !== 0 ? CT_RELATED : CT_NEW
}

function deadlineOf(event: FlowEvent): number {
  return event.timeout < 0 ? NEVER_SEC : Math.min(NEVER_SEC, event.sec + event.timeout)
}

/** Microseconds since then, never below 0: clocks step, and two tools may print out of order. */
function elapsed(event: FlowEvent, sec: number, usec: number): number {
  return Math.max(0, (event.sec - sec) * 1e6 + event.usec - usec)
}

/** Family and protocol, of which a dump that shows none may have been filtered. */
function dumpKind(kind: number, ref: number): number {
  return (kind & 255) | ((ref & 1) << 8)
}

