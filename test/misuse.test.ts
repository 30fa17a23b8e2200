/**
 * Whatever is written wrongly is answered, and the whole answer is here: for each command line of fixtures/misuse/*.txt all of standard error and the exit status.
 * `$` runs to its end; `&` is stopped when it has said as much as is written there.
 * Written anew by: UPDATE_GOLDEN=1 npx vitest run --config test/vitest.config.ts test/misuse.test.ts
 */
import { once } from 'node:events'
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cleanUp, program, run, scratch, start, until } from './process-harness.js'
import { receive, stopReceivers } from './webhook-harness.js'

const folder = fileURLToPath(new URL('../fixtures/misuse/', import.meta.url))
const isUpdate = process.env['UPDATE_GOLDEN'] === '1'

interface Case {
  readonly isStopped: boolean
  readonly command: string
  readonly stderr: string
  readonly status: number
}

/** `$ COMMAND` or `& COMMAND`, standard error, `[STATUS]`. */
function casesOf(text: string): Case[] {
  return [...text.matchAll(/^([$&]) (.+)\n([\s\S]*?)^\[(\d*)\]$/gm)].map(([, how, command, stderr, status]) => ({ isStopped: how === '&', command: command!, stderr: stderr!, status: Number(status) }))
}

let home = ''

beforeAll(() => {
  home = scratch('misuse')
  mkdirSync(join(home, 'bin'), { recursive: true })
  cpSync(folder, home, { recursive: true })
  writeFileSync(join(home, 'bin/conntrail'), `#!/bin/sh\nexec "${process.execPath}" "${program}" "$@"\n`)
  chmodSync(join(home, 'bin/conntrail'), 0o755)
})
afterAll(async () => {
  cleanUp()
  await stopReceivers()
})

/** What differs from run to run stands as a word. */
function settled(stderr: string): string {
  return stderr.replaceAll(/"time":"[^"]*"/g, '"time":"TIME"').replaceAll(/^(\{"level":30,"time":"TIME",)"lines":.*("msg":"done"\})$/gm, '$1SUMS,$2')
}

const linesOf = (text: string): number => text.split('\n').length - 1

/** `&`: everything but the line of sums is said, then it is stopped. */
async function answerTo({ isStopped, command, stderr: expected }: Case): Promise<Case & { readonly stdout: string }> {
  const env = { PATH: `${join(home, 'bin')}${delimiter}${process.env['PATH']}` }
  const child = start('bash', ['-c', `cd "$0" && ${isStopped ? 'exec ' : ''}${command}`, home], ['ignore', 'pipe', 'pipe'], env)
  let stdout = ''
  let stderr = ''
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const closed = once(child, 'close')
  if (isStopped) {
    await until(() => linesOf(stderr) >= (isUpdate ? 1 : linesOf(expected) - 1))
    child.kill('SIGTERM')
  }
  const [code] = (await closed) as [number]
  return { isStopped, command, stderr: settled(stderr), status: code, stdout }
}

const textOf = ({ isStopped, command, stderr, status }: Case): string => `${isStopped ? '&' : '$'} ${command}\n${stderr}[${status}]\n`

test('record types that are named on the command line are sent by its webhooks; else alerts and gaps', async () => {
  const events = fileURLToPath(new URL('../fixtures/nat.E-timestamp-id.linux-6.18.conntrack-1.4.7.in', import.meta.url))
  const sentBy = async (...more: string[]): Promise<string[]> => {
    const receiver = await receive()
    const { status } = await run(['run', '--once', '-i', events, '-o', `webhook:${receiver.url()}`, ...more], '')
    expect(status).toBe(0)
    return receiver.got.flatMap(({ text }) => text.trimEnd().split('\n').map((line) => (JSON.parse(line) as { type: string }).type))
  }
  const flows = await sentBy('--emit', 'flow')
  expect(flows).toHaveLength(90)
  expect(new Set(flows)).toEqual(new Set(['flow']))
  expect(await sentBy()).toEqual([])
  expect(await sentBy('--emit', 'alert,gap')).toEqual([])
})

for (const name of readdirSync(folder).filter((each) => each.endsWith('.txt'))) {
  const text = readFileSync(join(folder, name), 'utf8')
  const cases = casesOf(text)
  describe(name, () => {
    test('is read whole', () => {
      if (!isUpdate) expect(cases.map(textOf).join('\n')).toBe(text)
    })

    if (isUpdate)
      test('is written anew', async () => {
        const answers: Case[] = []
        for (const each of cases) answers.push(await answerTo(each))
        writeFileSync(join(folder, name), answers.map(textOf).join('\n'))
      })
    else
      test.concurrent.each(cases)('$command', async (each) => {
        const { stdout, ...answer } = await answerTo(each)
        expect(answer).toEqual(each)
        expect(stdout).toBe('')
      })
  })
}
