/** What is said of a command line that is not understood: one sentence that names the word, and the word that was meant. */
import { meantOrExpected, nearest } from './nearest.js'

/** Why the value of a flag or argument is refused. */
export class Misuse extends Error {}

/** A command as it is written, with all of its flags, long and short. */
export interface CommandWords {
  readonly name: string
  readonly flags: readonly string[]
}

const CONFIGURATION = /\.(?:ya?ml|json)$/

/** The one of `known` that `value` is, in any case of its letters. */
export function oneOf(value: string, known: readonly string[], what: string): string {
  const found = known.find((word) => word.toLowerCase() === value.trim().toLowerCase())
  if (found === undefined) throw new Misuse(`"${value}" is no ${what}; ${meantOrExpected(value, known)}`)
  return found
}

/** A flag that `command` has not got. What another command has is named as such. */
export function unknownFlag(written: string, command: CommandWords, all: readonly CommandWords[]): string {
  const flag = written.replace(/=.*/s, '')
  if (all.some(({ flags }) => flags.includes(flag))) return `${flag} belongs to ${ownersOf(flag, all)}`
  const own = nearestFlag(flag, command.flags)
  if (own !== undefined) return `there is no ${flag}; did you mean ${own}?`
  const others = nearestFlag(flag, all.flatMap(({ flags }) => flags))
  return others === undefined ? `there is no ${flag}` : `there is no ${flag}; did you mean ${others}, which belongs to ${ownersOf(others, all)}?`
}

/** `-once` is read as `-o nce`; undefined where `written` is no long flag with a dash too few. */
export function withoutDash(written: string, { flags }: CommandWords): string | undefined {
  return /^-[a-z][a-z-]+$/.test(written) && flags.includes(`-${written}`) ? `there is no ${written}; did you mean -${written}?` : undefined
}

/** A word where a command is expected. */
export function unknownCommand(word: string, names: readonly string[]): string {
  return `there is no command "${word}"; ${word === 'help' ? 'did you mean --help?' : meantOrExpected(word, names)}`
}

/** A word that stands without a flag, in a command that takes none. `inputs`: the words that an input can be. */
export function looseWord(word: string, { name, flags }: CommandWords, inputs: readonly string[]): string {
  if (flags.includes('--config') && CONFIGURATION.test(word)) return `"${word}" has no flag before it; did you mean ${name} -c ${word}?`
  if (flags.includes('--input')) return `"${word}" has no flag before it; did you mean ${name} -i ${nearest(word, inputs) ?? word}?`
  return `"${word}" is one word too many`
}

function nearestFlag(flag: string, flags: readonly string[]): string | undefined {
  const name = nearest(
    flag.replace(/^-+/, ''),
    flags.filter((each) => each.startsWith('--')).map((each) => each.slice(2)),
  )
  return name === undefined ? undefined : `--${name}`
}

function ownersOf(flag: string, all: readonly CommandWords[]): string {
  const owners = all.filter(({ flags }) => flags.includes(flag)).map(({ name }) => `\`${name}\``)
  return owners.length < 2 ? owners.join('') : `${owners.slice(0, -1).join(', ')} and ${owners.at(-1)!}`
}
