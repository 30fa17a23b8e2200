/**
 * What a run writes itself, by device and inode, so that it is never read by it, under whatever name: links, a redirected standard output, a file that was rotated
 * into an input's glob, the state directory.
 */
import { type BigIntStats, existsSync, fstatSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { discover, matcherOf, patternOf } from '../inputs/files/glob.js'
import type { Plan } from './plan.js'

/** What the file output adds to its path when it puts a file aside, and what it compresses it to. */
const ASIDE = /^\.[\w.:-]*\d[\w.:-]*$/

type Identity = Pick<BigIntStats, 'dev' | 'ino'>

export class OwnFiles {
  readonly #plan: () => Plan

  constructor(plan: () => Plan) {
    this.#plan = plan
  }

  /** Which of the outputs it is; '' none. */
  outputThat({ dev, ino }: Identity): string {
    const isIt = (stat: BigIntStats | null): boolean => stat?.isFile() === true && stat.dev === dev && stat.ino === ino
    for (const output of this.#plan().outputs) {
      if (output.type === 'file' && isIt(statSync(output.path, { bigint: true, throwIfNoEntry: false }) ?? null)) return `output ${output.name}`
      if (output.type === 'stdout' && isIt(statOf(1))) return 'standard output'
    }
    return ''
  }

  /** The same, with what outputs have put aside and what lies in the state directory. */
  whatIs(path: string, identity: Identity): string {
    const output = this.outputThat(identity)
    if (output !== '') return output
    const { outputs, state } = this.#plan()
    const real = realPath(path)
    if (state !== '' && real.startsWith(`${realPath(state)}/`)) return 'the state directory'
    const aside = outputs.find((each) => each.type === 'file' && real.startsWith(realPath(each.path)) && ASIDE.test(real.slice(realPath(each.path).length)))
    return aside === undefined ? '' : `what output ${aside.name} has put aside`
  }

  /** Why the run must not begin; '' it may. */
  async fault(): Promise<string> {
    for (const input of this.#plan().inputs) {
      if (input.type === 'stdin') {
        const stat = statOf(0)
        const output = stat?.isFile() === true ? this.outputThat(stat) : ''
        if (output !== '') return `standard input is the file of ${output}: a run would read what it writes; write to another file`
      }
      if (input.type !== 'file') continue
      const { files } = await discover(input.path.map((path) => patternOf(path, existsSync(path))), matcherOf(input.exclude))
      for (const { path, stat } of files) {
        const output = this.outputThat(stat)
        if (output !== '') return `input ${input.name} reads ${path}, which is the file of ${output}: a run would read what it writes; write elsewhere, or exclude it from the input`
      }
    }
    return ''
  }
}

function statOf(fd: number): BigIntStats | null {
  try {
    return fstatSync(fd, { bigint: true })
  } catch {
    // closed
    return null
  }
}

/** Of a file that is not there yet, that of its folder. */
function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    const whole = resolve(path)
    return dirname(whole) === whole ? whole : join(realPath(dirname(whole)), basename(whole))
  }
}
