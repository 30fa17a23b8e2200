/** The catalogue: every format, input and output by name. Help and checks derive from it. */
import { TIME_BOOT, type Time } from './event.js'
import { conntrackNotice } from './formats/conntrack-notice.js'
import { conntrackSave } from './formats/conntrack-save.js'
import { conntrackXml } from './formats/conntrack-xml.js'
import { expectation, expectationXml } from './formats/expectation.js'
import { journalExport } from './formats/journal-export.js'
import { jsonLines } from './formats/json-lines.js'
import { kernelLog } from './formats/kernel-log.js'
import { tableStats } from './formats/table-stats.js'
import { commandFeed } from './inputs/command.js'
import { conntrackFeed } from './inputs/conntrack.js'
import { filesFeed } from './inputs/files.js'
import { journalFeed } from './inputs/journal.js'
import { kmsgFeed } from './inputs/kmsg.js'
import { stdinFeed } from './inputs/stdin.js'
import { tableFeed } from './inputs/table.js'
import { openFile } from './outputs/file.js'
import { openStdout } from './outputs/stdout.js'
import { type Feed, InputError, type LineFormat, type Output } from './stage.js'

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
  readonly bootId: string
  readonly kernelRelease: string
  /** inode of the kernel's initial network namespace, 0 where that cannot be known */
  readonly initialNetns: number
}

export interface FeedOptions extends World {
  /** stop at what is there */
  readonly once: boolean
  /** positions of an earlier run, by the input's name */
  readonly saved: Readonly<Record<string, readonly unknown[]>>
  /** a number of its own for each input of a run */
  readonly number: number
}

/** What ids of an input's records begin with, where the input has no positions. */
const randomOf = (options: FeedOptions): string => `${options.random}.${options.number}`

const kmsg = (name: string, options: FeedOptions): Feed =>
  kmsgFeed({ name, from: 'last', once: options.once, saved: options.saved[name]?.[0] ?? null, monotonicMicroseconds: options.monotonic })
const journal = (name: string, options: FeedOptions): Feed =>
  journalFeed({ name, from: 'last', once: options.once, saved: options.saved[name]?.[0] ?? null, env: options.env })
const conntrack = (name: string, options: FeedOptions): Feed => conntrackFeed({ name, env: options.env, once: options.once, random: randomOf(options) })
const table = (name: string, options: FeedOptions): Feed => tableFeed({ name, env: options.env, once: options.once, random: randomOf(options), now: options.now })

/** How an INPUT on the command line is written, and what opens it. The first that fits counts. */
export const inputKinds = [
  {
    form: '-',
    says: 'standard input',
    fits: (text: string) => text === '-',
    feed: (_text: string, options: FeedOptions): Feed => stdinFeed({ isTerminal: options.stdinIsTerminal, random: options.random, hash: options.hash, monotonic: options.monotonic }),
  },
  { form: 'kmsg', says: "the kernel's log", fits: (text: string) => text === 'kmsg', feed: kmsg },
  { form: 'journal', says: "the kernel's lines in systemd's journal", fits: (text: string) => text === 'journal', feed: journal },
  { form: 'conntrack', says: 'conntrack -E, started and kept running', fits: (text: string) => text === 'conntrack', feed: conntrack },
  { form: 'table', says: "the kernel's own counters, each second", fits: (text: string) => text === 'table', feed: table },
  {
    form: 'command:PROGRAM ARGS',
    says: 'what a program prints',
    fits: (text: string) => /^command:\s*\S/.test(text),
    feed: (name: string, options: FeedOptions): Feed =>
      commandFeed({
        name,
        command: name.slice('command:'.length),
        once: options.once,
        random: randomOf(options),
        env: options.env,
        boot: () => ({ microseconds: microsecondsOf(options.now()) - options.monotonic(), source: TIME_BOOT }),
      }),
  },
  {
    form: 'PATH or glob',
    says: 'followed files; file: may precede',
    fits: (text: string) => !/^(webhook|file):?$/.test(text) && text !== '',
    feed: (name: string, options: FeedOptions): Feed =>
      filesFeed({ name, patterns: [name.replace(/^file:/, '')], from: options.once ? 'start' : 'end', once: options.once, saved: options.saved[name] ?? null }),
  },
] as const

/** What a host offers, where nothing is named: its kernel's log by one way or the other, the counters, and the flows. */
export function hostFeeds(options: FeedOptions): readonly Feed[] {
  return [
    firstThatOpens([kmsg('kmsg', options), journal('journal', options)]),
    table('table', { ...options, number: options.number + 1 }),
    conntrack('conntrack', { ...options, number: options.number + 2 }),
  ]
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

/** How an OUTPUT on the command line is written, and how it is opened. */
export const outputKinds = [
  { form: '-', says: 'standard output', fits: (text: string) => text === '-', open: (_text: string, world: World): Output => openStdout(world.stdoutIsTerminal) },
  {
    form: 'file:PATH',
    says: 'appended to PATH',
    fits: (text: string) => /^file:./.test(text),
    open: (text: string, _world: World, report: (message: string) => void): Output => openFile({ name: text, path: text.slice(5), rotate: null, fsync: 'interval', report }),
  },
] as const
