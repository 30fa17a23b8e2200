/** The catalogue: every format, input and output by name. Help and checks derive from it. */
import { evenMilliseconds, wallAt } from './clock.js'
import type { InputConfig, OutputConfig } from './config.js'
import { TIME_BOOT, type Time } from './event.js'
import { conntrackNotice } from './formats/conntrack-notice.js'
import { conntrackSave } from './formats/conntrack-save.js'
import { conntrackXml } from './formats/conntrack-xml.js'
import { expectation, expectationXml } from './formats/expectation.js'
import { journalExport } from './formats/journal-export.js'
import { jsonLines } from './formats/json-lines.js'
import { kernelLog } from './formats/kernel-log.js'
import { tableStats } from './formats/table-stats.js'
import { stdinFeed } from './inputs/stdin.js'
import { meantOrExpected, nearest } from './nearest.js'
import { openFile } from './outputs/file.js'
import { openStdout } from './outputs/stdout.js'
import { type BootTime, type Feed, InputError, type KernelBoots, type LineFormat, type Loss, type Output } from './stage.js'

/** `conntrack-text` is read by the loop itself: almost every line is of it. The others are asked in this order how they begin. */
export const TEXT_FORMAT = 'conntrack-text'
const formats: readonly (() => LineFormat)[] = [
  () => expectationXml,
  () => conntrackXml,
  () => conntrackSave,
  () => expectation,
  () => conntrackNotice,
  tableStats,
  jsonLines,
  journalExport,
  // its lines begin with anything
  kernelLog,
]
export const formatNames: readonly string[] = [TEXT_FORMAT, ...formats.map((make) => make().name)]

/** The formats for one input, new: they keep what they need of the lines before. `name`: that one alone. */
export function lineFormats(name: string | null): LineFormat[] {
  return formats.map((make) => make()).filter((format) => name === null || name === format.name)
}

/** What inputs need to know of the process and the host. */
export interface World {
  readonly stdinIsTerminal: boolean
  readonly stdoutIsTerminal: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  /** 8 hex digits, new in each run */
  readonly random: string
  readonly seed: number
  readonly hash: (text: string) => string
  /** CLOCK_MONOTONIC in microseconds */
  readonly monotonic: () => number
  readonly now: () => Time
  /** microseconds by which that was set forward or back since the last call that told of it; 0 no more than a second */
  readonly takeStep: () => number
  readonly bootId: string
  readonly kernelRelease: string
  /** bytes of memory that this process may have, of its control group or the machine */
  readonly memoryLimit: number
  /** inode of the kernel's initial network namespace, 0 where that cannot be known */
  readonly initialNetns: number
}

export interface FeedOptions extends World {
  /** stop at what is there */
  readonly once: boolean
  /** positions of an earlier run, by the input's name */
  readonly saved: Readonly<Record<string, readonly unknown[]>>
  /** when kernels were started whose logs the run reads from files */
  readonly boots: KernelBoots
  /** there was a checkpoint, and it cannot be used: where to begin; null: it can, or there was none */
  readonly damaged: 'begin' | 'end' | null
  /** a number of its own for each input of a run */
  readonly number: number
  /** what of this run's own output a file is, '' none */
  readonly isOwn?: (path: string, stat: { readonly dev: bigint; readonly ino: bigint }) => string
  /** for an input that is not open yet */
  readonly report: (message: string) => void
}

/** What ids of an input's records begin with, where the input has no positions. */
const randomOf = (options: FeedOptions): string => `${options.random}.${options.number}`

const bootOf = (options: FeedOptions): BootTime => ({ microseconds: microsecondsOf(options.now()) - options.monotonic(), source: TIME_BOOT })

/** Opens an input of a configuration. What it needs is loaded with it: a bare pipe starts without the others. */
export async function feedOf(input: InputConfig, options: FeedOptions): Promise<Feed> {
  const { name } = input
  const { once, env, now } = options
  const random = randomOf(options)
  const { damaged } = options
  // with positions of nothing all that is there counts as found since
  const saved = options.saved[name] ?? (damaged === 'begin' && !once ? [] : null)
  switch (input.type) {
    case 'kmsg':
      return (await import('./inputs/kmsg.js')).kmsgFeed({ name, from: damaged === 'begin' && input.from !== 'now' ? 'start' : (input.from ?? 'last'), once, saved: saved?.[0] ?? null, monotonicMicroseconds: options.monotonic })
    case 'journal':
      return (await import('./inputs/journal.js')).journalFeed({ name, from: input.from ?? 'last', once, saved: saved?.[0] ?? null, env })
    case 'conntrack': {
      const { conntrackFeed } = await import('./inputs/conntrack.js')
      const { events, queue, resync, buffer } = input
      const feedIn = (netns: { readonly name: string; readonly path: string } | null, number: number): Feed =>
        conntrackFeed({
          ...{ name, env, once, events, random: number === 0 ? random : `${random}.${number}`, queueBytes: queue, redumpMs: resync, bufferBytes: buffer ?? 0 },
          netns,
          report: options.report,
        })
      if (input.netns.includes('all')) return (await import('./inputs/conntrack/everywhere.js')).everywhereFeed({ name, once, make: feedIn })
      const feeds = input.netns.map((netns, i) => feedIn(netns === 'self' ? null : { name: netns, path: netns.startsWith('/') ? netns : `/run/netns/${netns}` }, i))
      return feeds.length === 1 ? feeds[0]! : together(name, feeds)
    }
    case 'table':
      return (await import('./inputs/table.js')).tableFeed({ name, env, once, random, now, netns: input.netns, everyMs: input.every })
    case 'file':
      return (await import('./inputs/files.js')).filesFeed({
        ...{ name, patterns: input.path, exclude: input.exclude, once, saved, isOwn: options.isOwn ?? (() => '') },
        from: (input.from === 'start' && damaged !== 'end') || once ? 'start' : 'end',
        history: input.compressed,
        rotateWaitMs: input.rotate_wait,
        maxDeletedBytes: input.deleted_max,
        maxDeletedMs: input.deleted_max_age,
        ignoreOlderMs: input.ignore_older,
        partialLineMs: input.partial_line,
        pollMs: input.poll,
        rescanMs: input.rescan,
        boots: options.boots,
      })
    case 'command':
      return (await import('./inputs/command.js')).commandFeed({ name, argv: input.program, once, random, env, boot: () => bootOf(options) })
    case 'stdin':
      return stdinFeed({ isTerminal: options.stdinIsTerminal, random: options.random, hash: options.hash, monotonic: options.monotonic, boots: options.boots })
  }
}

/** Several feeds under one name. */
function together(name: string, feeds: readonly Feed[]): Feed {
  return {
    name,
    open: async (add) => {
      await Promise.all(feeds.map((feed) => feed.open(add)))
    },
    stop: () => feeds.forEach((feed) => feed.stop()),
    abort: () => feeds.forEach((feed) => feed.abort()),
  }
}

/** How an INPUT on the command line is written, and what it says in the words of a configuration. The first that fits counts. */
export const inputKinds = [
  { form: '-', says: 'standard input', fits: (text: string) => text === '-', means: () => ({ type: 'stdin' }) },
  { form: 'kmsg', says: "the kernel's log", fits: (text: string) => text === 'kmsg', means: () => ({ type: 'kmsg' }) },
  { form: 'journal', says: "the kernel's lines in systemd's journal", fits: (text: string) => text === 'journal', means: () => ({ type: 'journal' }) },
  { form: 'conntrack', says: 'conntrack -E, started and kept running', fits: (text: string) => text === 'conntrack', means: () => ({ type: 'conntrack' }) },
  { form: 'table', says: "the kernel's own counters, each second", fits: (text: string) => text === 'table', means: () => ({ type: 'table' }) },
  {
    form: 'command:PROGRAM ARGS',
    says: 'what a program prints',
    fits: (text: string) => /^command:\s*\S/.test(text),
    means: (text: string) => ({ type: 'command', program: text.slice('command:'.length).trim().split(/ +/) }),
  },
  { form: 'PATH or glob', says: 'followed files; file: may precede', fits: (text: string) => /^file:.|[/.*]/s.test(text), means: (text: string) => ({ type: 'file', path: text.replace(/^file:/, '') }) },
] as const

/** The words that an INPUT can be or begin with. */
export const inputWords: readonly string[] = inputKinds.flatMap(({ form }) => (form.startsWith('PATH') ? ['file:'] : [form.replace(/:.*/, ':')]))

/** Why a text is no INPUT; '' where it is one. A file whose name looks like something else is written with its folder, as in ./kmesg. */
export function inputFault(text: string): string {
  const [, scheme] = /^([a-z]+:)/i.exec(text) ?? []
  const isPart = inputKinds.some(({ fits }) => fits(text))
  if (text !== '-' && scheme !== 'file:' && outputKinds.some(({ fits }) => fits(text))) return `"${scheme}" is an output; did you mean -o?`
  if (isPart && (scheme === undefined || inputWords.includes(scheme))) return ''
  if (scheme === undefined) {
    const meant = nearest(text, inputWords)
    const forms = inputKinds.map(({ form }) => form).join(', ')
    return text === '' ? `the empty text is no input; expected ${forms}` : `"${text}" is no input; ${meant === undefined ? `expected ${forms};` : `did you mean "${meant}"?`} a file of that name is ./${text}`
  }
  if (inputWords.includes(scheme)) return `"${scheme}" is followed by nothing; expected ${inputKinds.map(({ form }) => form).join(', ')}`
  // a path may have a colon in it
  return isPart && nearest(scheme, inputWords) === undefined && !text.startsWith(`${scheme}//`) ? '' : `"${scheme}" begins no input; ${meantOrExpected(scheme, inputWords)}`
}

/** What a host offers, where nothing is named: its kernel's log by one way or the other, and the inputs of a configuration that says nothing. */
export function hostFeeds(inputs: readonly InputConfig[], options: FeedOptions): Promise<readonly Feed[]> {
  return Promise.all(
    inputs.map(async (input, number) => {
      const feed = await feedOf(input, { ...options, number })
      return input.type === 'kmsg' ? firstThatOpens([feed, await feedOf({ name: 'journal', type: 'journal', from: null }, { ...options, number: inputs.length })]) : feed
    }),
  )
}

/** The first feed that can be opened stands for all; when none can, the first one's reason is told. */
function firstThatOpens(feeds: readonly Feed[]): Feed {
  let chosen: Feed | null = null
  return {
    name: feeds[0]!.name,
    open: async (add) => {
      let reason: InputError | null = null
      for (const feed of feeds) {
        chosen = feed
        try {
          return await feed.open(add)
        } catch (error) {
          if (!(error instanceof InputError)) throw error
          reason ??= error
        }
      }
      throw reason!
    },
    stop: () => chosen?.stop(),
    abort: () => chosen?.abort(),
  }
}

function microsecondsOf(time: Time): number {
  return time.sec * 1e6 + time.usec
}

/** How an OUTPUT on the command line is written, and what it says in the words of a configuration. */
export const outputKinds = [
  { form: '-', says: 'standard output', fits: (text: string) => text === '-', means: () => ({ type: 'stdout' }) },
  { form: 'webhook:URL', says: 'alerts and gaps, POST of NDJSON', fits: (text: string) => /^webhook:https?:\/\/./.test(text), means: (text: string) => ({ type: 'webhook', url: text.slice('webhook:'.length) }) },
  { form: 'file:PATH', says: 'appended to PATH', fits: (text: string) => /^file:./.test(text), means: (text: string) => ({ type: 'file', path: text.slice(5) }) },
] as const

/** Why a text is no OUTPUT; '' where it is one. What follows a scheme may hold a key and is not shown. */
export function outputFault(text: string): string {
  if (outputKinds.some(({ fits }) => fits(text))) return ''
  const forms = outputKinds.map(({ form }) => form).join(', ')
  const [, scheme] = /^([a-z]+:)/i.exec(text) ?? []
  if (scheme === undefined) {
    if (text === '') return `the empty text is no output; expected ${forms}`
    return `"${text}" is no output; ${/[/.]/.test(text) ? `did you mean "file:${text}"?` : text.toLowerCase() === 'stdout' ? 'did you mean "-"?' : `expected ${forms}`}`
  }
  if (/^https?:$/i.test(scheme)) return `"${scheme}" begins no output; did you mean "webhook:${scheme}"?`
  const words = outputKinds.map(({ form }) => form.replace(/:.*/, ':'))
  if (scheme === 'webhook:') return `"webhook:" is followed by no URL; expected one such as webhook:https://collector.example/in`
  return words.includes(scheme) ? `"${scheme}" is followed by nothing; expected ${forms}` : `"${scheme}" begins no output; ${meantOrExpected(scheme, words)}`
}

export interface OutputOptions extends World {
  readonly report: (message: string) => void
  /** where spools live, '' in memory */
  readonly state: string
  /** name of this host, for records without one */
  readonly host: string
  /** where this program shows what it does, '' nowhere */
  readonly statusUrl: string
  /** outputs that may hold records back, this one among them */
  readonly spools: number
  /** records that an output could not keep; called at any time */
  readonly onLost: (output: string, loss: Loss) => void
}

/** Dead letters keep at most this much of the disk, for each output. */
const DEAD_LETTERS_BYTES_MAX = 64 << 20
/** What waits is sent or written for so long when the run ends; the rest stays in its spool. */
const OUTPUT_GRACE_MS = 3000

/** Where an output keeps what must outlive a restart. Its name may hold anything, a file's name must not. */
export function outputFolder(state: string, name: string): string {
  return `${state}/outputs/${encodeURIComponent(name)}`
}

/** Opens an output of a configuration. Throws what opening met. */
export async function outputOf(output: OutputConfig, options: OutputOptions): Promise<Output> {
  switch (output.type) {
    case 'stdout':
      return spooled(output, openStdout(output.name, options.stdoutIsTerminal, options.state !== ''), options)
    case 'file': {
      const { rotate } = output
      const file = openFile({
        ...{ name: output.name, path: output.path, fsync: output.fsync, report: options.report },
        rotate: rotate === null ? null : { size: rotate.size, every: rotate.every, keep: rotate.keep, maxAge: rotate.max_age, maxTotal: rotate.max_total, compress: rotate.compress },
      })
      return spooled(output, file, options)
    }
    case 'webhook':
      return webhookOf(output, options)
  }
}

/** Of the memory that the process may have, spools without a folder take at most so much together: a process that is killed for its memory loses all of them. */
const MEMORY_SHARE = 0.25
/** Less is no spool. */
const SPOOL_BYTES_MIN = 1 << 20

/** How much may wait for an output. */
function spoolBytes({ name, spool }: { readonly name: string; readonly spool: number }, { state, memoryLimit, spools, report }: OutputOptions): number {
  const share = Math.max(SPOOL_BYTES_MIN, Math.floor((memoryLimit * MEMORY_SHARE) / Math.max(1, spools)))
  if (state !== '' || spool <= share) return spool
  const mebibytes = (bytes: number): string => `${Math.floor(bytes / (1 << 20))} MiB`
  report(`the spool of ${name} may have ${mebibytes(share)} instead of ${mebibytes(spool)}, its share of a quarter of the ${mebibytes(memoryLimit)} that this process may have: without a state directory it lives in memory`)
  return share
}

/** With a spool before it, unless it may hold up reading. */
async function spooled(output: Extract<OutputConfig, { type: 'stdout' | 'file' }>, inner: Output, options: OutputOptions): Promise<Output> {
  if (output.when_full === 'block') return inner
  const [{ behindSpool }, { Spool }] = await Promise.all([import('./spool/behind.js'), import('./spool/spool.js')])
  const { name } = output
  const folder = options.state === '' ? null : `${outputFolder(options.state, name)}/spool`
  const queue = await Spool.open({ folder, maxBytes: spoolBytes(output, options), whenFull: output.when_full, report: options.report, onLost: (loss) => options.onLost(name, loss) })
  return Object.assign(behindSpool(inner, queue, OUTPUT_GRACE_MS), { tellLosses: () => queue.reportLosses() })
}

async function webhookOf(output: Extract<OutputConfig, { type: 'webhook' }>, options: OutputOptions): Promise<Output> {
  const [{ openWebhook }, { Spool }, { DeadLetterStore }] = await Promise.all([import('./outputs/webhook.js'), import('./spool/spool.js'), import('./deadletters.js')])
  const { name } = output
  const { report } = options
  const folder = options.state === '' ? null : outputFolder(options.state, name)
  const began = evenMilliseconds()
  const onLost = (loss: Loss): void => options.onLost(name, loss)
  const queue = await Spool.open({ folder: folder === null ? null : `${folder}/spool`, maxBytes: spoolBytes(output, options), whenFull: output.when_full, maxAgeMs: output.max_age, report, onLost })
  const deadLetters = await DeadLetterStore.open({ folder: folder === null ? null : `${folder}/${DEAD_LETTERS}`, output: name, origin: output.url.origin, maxBytes: DEAD_LETTERS_BYTES_MAX, report, onLost })
  const webhook = openWebhook({ config: output, queue, deadLetters, folder, host: options.host, statusUrl: options.statusUrl, wantsGaps: asksForGaps(output), report, graceMs: OUTPUT_GRACE_MS, startedAt: () => wallAt(began) / 1000 })
  const { close } = webhook
  return Object.assign(webhook, {
    tellLosses: () => queue.reportLosses(),
    close: async () => {
      await close.call(webhook)
      await queue.close()
      await deadLetters.close()
    },
  })
}

export const DEAD_LETTERS = 'dead-letters'

/** Not where the condition is the one that a webhook has when nothing is said. */
function asksForGaps({ when }: OutputConfig): boolean {
  if (when === null || when === 'unmatched') return true
  return JSON.stringify(when) !== JSON.stringify([{ type: ['alert', 'gap'] }]) && when.some(({ type }) => type === undefined || type.includes('gap'))
}
