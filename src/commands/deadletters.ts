/** `conntrail deadletters list|show|replay`: what a receiver refused for good, and sending it again. */
import { readdirSync } from 'node:fs'
import { ConfigErrors, loadConfig, type ReadFile } from '../config.js'
import { type Letter, readLetters, replayLetters } from '../deadletters.js'
import { DEAD_LETTERS } from '../parts.js'
import { REPLAY_EVERY_MS } from '../stage.js'

/** Where an output of the configuration keeps its dead letters. */
export interface DeadLetterFolder {
  readonly output: string
  readonly folder: string
}

export interface DeadLettersRequest {
  readonly action: 'list' | 'show' | 'replay'
  /** as listed: `pager:12`, or the number alone where only one output has it. None for `replay`: all */
  readonly ids: readonly string[]
  readonly json: boolean
}

export interface Printed {
  readonly print: (text: string) => void
  readonly printError: (text: string) => void
}

export interface DeadLettersCommand extends DeadLettersRequest {
  /** where the state directory is named, or itself; '' not given */
  readonly config: string
  readonly state: string
}

/** Finds the stores of all outputs in the state directory. Exit status as below, 2 also where no directory is named. */
export async function deadLettersOf(
  command: DeadLettersCommand,
  world: Printed & { readonly read: ReadFile; readonly env: Readonly<Record<string, string | undefined>> },
): Promise<number> {
  let { state } = command
  if (state === '' && command.config !== '') {
    try {
      state = (await loadConfig(command.config, world.read, world.env, { isOutside: true, isLenient: true })).state ?? ''
    } catch (error) {
      if (!(error instanceof ConfigErrors)) throw error
      world.printError(`${error.message}\n`)
      return 2
    }
  }
  if (state === '') {
    world.printError('conntrail: dead letters are kept in the state directory: name it with --state, or a configuration that has state: with -c\n')
    return 2
  }
  let names: string[]
  try {
    names = readdirSync(`${state}/outputs`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      world.printError(`conntrail: ${(error as Error).message}\n`)
      return 1
    }
    names = []
  }
  return deadLetters(names.map((name) => ({ output: decodeURIComponent(name), folder: `${state}/outputs/${name}/${DEAD_LETTERS}` })), command, {
    print: (text) => world.print(`${text}\n`),
    printError: (text) => world.printError(`${text}\n`),
  })
}

interface Found {
  readonly output: string
  readonly folder: string
  readonly letter: Letter
}

/** Exit status: 0 done, 1 a store cannot be read or written, 2 no such letter. */
export function deadLetters(folders: readonly DeadLetterFolder[], request: DeadLettersRequest, { print, printError }: Printed): number {
  try {
    const all = folders.flatMap(({ output, folder }) => lettersOf(folder).map((letter) => ({ output, folder, letter })))
    const unknown = request.ids.find((id) => named(all, id).length !== 1)
    if (unknown !== undefined) {
      const several = named(all, unknown)
      const none = `there is no dead letter ${unknown}: "conntrail deadletters list" names them`
      printError(several.length === 0 ? none : `${unknown} may be ${several.map(nameOf).join(' or ')}: name one`)
      return 2
    }
    const asked = request.ids.length === 0 ? all : request.ids.map((id) => named(all, id)[0]!)
    if (request.action === 'replay') replay(asked, print)
    else if (request.json) for (const found of asked) print(jsonOf(found))
    else if (request.action === 'list') print(tableOf(asked))
    else for (const found of asked) print(pageOf(found))
    return 0
  } catch (error) {
    printError(`dead letters: ${(error as Error).message}`)
    return 1
  }
}

/** An output that never ran has none. */
function lettersOf(folder: string): Letter[] {
  try {
    return readLetters(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

const nameOf = ({ output, letter }: Found): string => `${output}:${letter.id}`

function named(all: readonly Found[], id: string): Found[] {
  return all.filter((found) => nameOf(found) === id || String(found.letter.id) === id)
}

function replay(asked: readonly Found[], print: (text: string) => void): void {
  for (const folder of new Set(asked.map((found) => found.folder))) {
    const found = asked.filter((each) => each.folder === folder)
    const letters = [...new Map(found.map(({ letter }) => [letter.id, letter])).values()]
    replayLetters(folder, letters)
    const what = letters.length === 1 ? '1 record goes' : `${letters.length} records go`
    print(`${what} to ${found[0]!.output} again: a run looks every ${REPLAY_EVERY_MS / 1000} s, and sends them behind what waits already; without one they go at the next start`)
  }
  if (asked.length === 0) print('there are no dead letters')
}

/** The record is put in as it stands, with all its digits. */
function jsonOf(found: Found): string {
  const { record, id: _, ...rest } = found.letter
  return `${JSON.stringify({ id: nameOf(found), ...rest }).slice(0, -1)},"record":${record.toString('utf8')}}`
}

const heads = ['ID', 'TIME', 'STATUS', 'REASON', 'RECEIVER', 'RECORD']

function tableOf(asked: readonly Found[]): string {
  const rows = asked.map((found) => {
    const { time, status, reason, url, record } = found.letter
    return [nameOf(found), time, status === 0 ? '-' : String(status), reason, url, shortOf(record)].map(visible)
  })
  const all = [heads, ...rows]
  const widths = heads.map((_, i) => Math.max(...all.map((row) => row[i]!.length)))
  return all.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join('  ').trimEnd()).join('\n')
}

function pageOf(found: Found): string {
  const { time, url, status, reason, body, record } = found.letter
  const rows = {
    letter: nameOf(found),
    time,
    receiver: url,
    status: status === 0 ? 'no answer' : String(status),
    reason,
    answer: JSON.stringify(body),
    record: record.toString('utf8'),
  }
  return Object.entries(rows)
    .map(([name, value]) => visible(`${name.padEnd(10)}${value}`))
    .join('\n')
}

/** Type and id of the record, as far as it has them. */
function shortOf(record: Buffer): string {
  const text = record.toString('utf8')
  const word = (key: string): string => new RegExp(`"${key}":"([^"\\\\]*)"`).exec(text)?.[1] ?? ''
  return `${word('type')} ${word('rid')}`.trim()
}

/** What a receiver wrote must not move the cursor of a terminal. */
function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
