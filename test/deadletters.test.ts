/** Dead letters: what was refused is kept as it was, listed, and sent again under its own bytes; the oldest go when there is too much, and are counted. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, appendFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { deadLetters, type DeadLettersRequest } from '../src/commands/deadletters.js'
import { DeadLetterStore, readLetters, replayLetters } from '../src/deadletters.js'
import { Spool } from '../src/spool/spool.js'
import type { Loss, Refusal } from '../src/stage.js'

let root = ''
let folders = 0

beforeAll(() => {
  // in memory where that can be had: hundreds of syncs, whose order is what counts here
  root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'conntrail-letters-'))
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

const fresh = (): string => join(root, `${++folders}`)

async function open(folder: string | null, maxBytes = 1 << 20): Promise<{ store: DeadLetterStore; lost: Loss[]; said: string[] }> {
  const lost: Loss[] = []
  const said: string[] = []
  const store = await DeadLetterStore.open({
    folder,
    output: 'pager',
    origin: 'https://am.example',
    maxBytes,
    report: (message) => said.push(message),
    onLost: (loss) => lost.push(loss),
    now: () => Date.parse('2026-11-22T10:00:00Z'),
  })
  return { store, lost, said }
}

const record = (n: number): string => `{"time":"2026-11-22T09:58:32.390102Z","type":"alert","v":1,"rid":"b7c1.${n}","counter":18446744073709551615,"odd":"é,\\"record\\":{}"}`
const refusal = (n: number, body = 'no such field'): Refusal => ({ record: Buffer.from(record(n)), status: 422, reason: 'refused', body: Buffer.from(body) })

function command(folder: string, request: Partial<DeadLettersRequest> & Pick<DeadLettersRequest, 'action'>): { status: number; out: string; errors: string } {
  const out: string[] = []
  const errors: string[] = []
  const status = deadLetters([{ output: 'pager', folder }], { ids: [], json: false, ...request }, { print: (text) => out.push(text), printError: (text) => errors.push(text) })
  return { status, out: out.join('\n'), errors: errors.join('\n') }
}

async function taken(store: DeadLetterStore): Promise<string> {
  let text = ''
  await store.takeReplays(async (lines) => void (text += Buffer.from(lines).toString()))
  return text
}

test('keeps the record as it was and the beginning of the answer', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([refusal(1, `,"record": ${'x'.repeat(5000)}`), { ...refusal(2), status: 0, reason: 'too large' }])
  const [first, second] = readLetters(folder)
  expect(first!.record.toString()).toBe(record(1))
  expect(first!.body).toHaveLength(1024)
  expect([first!.id, first!.time, first!.output, first!.url, first!.status]).toEqual([1, '2026-11-22T10:00:00.000Z', 'pager', 'https://am.example', 422])
  expect([second!.status, second!.reason, second!.record.toString()]).toEqual([0, 'too large', record(2)])
  await store.close()
})

test('numbers go on after a restart, and a tail that a crash cut off spoils nothing', async () => {
  const folder = fresh()
  const first = await open(folder)
  await first.store.add([refusal(1), refusal(2)])
  await first.store.close()
  const name = readdirSync(folder).find((each) => each.startsWith('letters'))!
  appendFileSync(join(folder, name), '{"id":3,"time":"2026-')
  const second = await open(folder)
  await second.store.add([refusal(3)])
  expect(readLetters(folder).map(({ id, record }) => [id, record.toString()])).toEqual([1, 2, 3].map((n) => [n, record(n)]))
  await second.store.close()
})

test('replay: the output takes them up whether it runs or not, byte for byte, and they are no letters any more', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([1, 2, 3, 4].map((n) => refusal(n)))
  expect(await taken(store)).toBe('')
  expect(command(folder, { action: 'replay', ids: ['pager:2', '4'] }).status).toBe(0)
  expect(readLetters(folder).map(({ id }) => id)).toEqual([1, 3])
  expect(await taken(store)).toBe(`${record(2)}\n${record(4)}\n`)
  expect(await taken(store)).toBe('')
  await store.close()
  expect(command(folder, { action: 'replay' }).out).toContain('2 records go to pager again')
  const later = await open(folder)
  expect(await taken(later.store)).toBe(`${record(1)}\n${record(3)}\n`)
  // refused again: a new letter, and its number was nobody's
  await later.store.add([refusal(1)])
  expect(readLetters(folder).map(({ id }) => id)).toEqual([5])
  expect(command(folder, { action: 'replay' }).status).toBe(0)
  expect(command(folder, { action: 'replay' }).out).toBe('there are no dead letters')
  await later.store.close()
})

test('a crash in the middle of a replay: again, under the same bytes, never gone', async () => {
  const folder = fresh()
  const { store, said } = await open(folder)
  await store.add([refusal(1)])
  replayLetters(folder, readLetters(folder))
  // before the note that the letter is done with
  rmSync(join(folder, 'replayed'), { recursive: true })
  expect(readLetters(folder)).toHaveLength(1)
  // before the spool had it
  await store.takeReplays(() => Promise.reject(new Error('no room')))
  expect(said.join()).toContain('no room')
  expect(await taken(store)).toBe(`${record(1)}\n`)
  await store.close()
})

test('into a spool: synced before the file goes', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([refusal(1), refusal(2)])
  replayLetters(folder, readLetters(folder))
  const spool = await Spool.open({ folder: join(folder, 'spool'), maxBytes: 1 << 20, whenFull: 'summarize', report: () => {}, onLost: () => {} })
  await store.takeReplays(async (lines) => {
    await spool.append(lines)
    await spool.sync()
    expect(readdirSync(join(folder, 'replay'))).toHaveLength(1)
  })
  expect(readdirSync(join(folder, 'replay'))).toHaveLength(0)
  expect((await spool.peek(10, 1 << 20)).map(({ bytes }) => Buffer.from(bytes).toString())).toEqual([record(1), record(2)])
  await spool.close()
  await store.close()
})

test('a look for replays that fails is not the last one', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([refusal(1)])
  replayLetters(folder, readLetters(folder))
  renameSync(join(folder, 'replay'), join(folder, 'away'))
  await expect(taken(store)).rejects.toThrow('ENOENT')
  renameSync(join(folder, 'away'), join(folder, 'replay'))
  expect(await taken(store)).toBe(`${record(1)}\n`)
  await store.close()
})

test('the limit holds: the oldest go and are counted, but not those that were sent again', async () => {
  const folder = fresh()
  const { store, lost, said } = await open(folder, 20_000)
  for (let n = 1; n <= 30; n++) await store.add([refusal(n)])
  replayLetters(folder, readLetters(folder).slice(0, 2))
  for (let n = 31; n <= 200; n++) await store.add([refusal(n)])
  const kept = readLetters(folder)
  expect(kept.at(-1)!.id).toBe(200)
  expect(lost.every(({ reason }) => reason === 'dead_letters_full')).toBe(true)
  expect(kept.length + 2 + lost.reduce((sum, { count }) => sum + count, 0)).toBe(200)
  const files = readdirSync(folder).filter((name) => name.startsWith('letters'))
  expect(files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)).toBeLessThanOrEqual(20_000)
  expect(said.join()).toContain('had to go')
  await store.close()
})

test('without a place, or when it refuses, each refusal is counted as lost', async () => {
  const nowhere = await open(null)
  await nowhere.store.add([refusal(1), refusal(2)])
  expect(nowhere.lost).toEqual([{ count: 2, reason: 'refused', from: null, to: null }])
  expect(await taken(nowhere.store)).toBe('')
  const folder = fresh()
  const gone = await open(folder)
  rmSync(folder, { recursive: true })
  await gone.store.add([refusal(1)])
  await gone.store.add([refusal(2)])
  expect(gone.lost.map(({ count }) => count)).toEqual([1, 1])
  expect(gone.said).toHaveLength(1)
  mkdirSync(folder)
  await gone.store.add([refusal(3)])
  expect(readLetters(folder).map(({ record }) => record.toString())).toEqual([record(3)])
  await gone.store.close()
})

test('that a gap record about losses of this very output is refused is no further loss: its gap record would be refused in turn', async () => {
  const { store, lost } = await open(null)
  const gap = (output: string): Refusal => ({ ...refusal(1), record: Buffer.from(`{"type":"gap","v":1,"cause":"output_dropped","count":1,"output":"${output}","reason":"refused"}`) })
  await store.add([gap('pager'), gap('chat'), { ...refusal(1), record: Buffer.from('no JSON') }])
  await store.add([gap('pager')])
  expect(lost.map(({ count }) => count)).toEqual([2])
})

test('list, show, and their JSON', async () => {
  const folder = fresh()
  expect(command(folder, { action: 'list' })).toEqual({ status: 0, out: 'ID  TIME  STATUS  REASON  RECEIVER  RECORD', errors: '' })
  const { store } = await open(folder)
  await store.add([refusal(1, 'line one\n\u001b[2J'), { ...refusal(2), status: 0, reason: 'too large' }])
  await store.close()
  expect(command(folder, { action: 'list' }).out.split('\n')).toEqual([
    'ID       TIME                      STATUS  REASON     RECEIVER            RECORD',
    'pager:1  2026-11-22T10:00:00.000Z  422     refused    https://am.example  alert b7c1.1',
    'pager:2  2026-11-22T10:00:00.000Z  -       too large  https://am.example  alert b7c1.2',
  ])
  const json = command(folder, { action: 'list', json: true }).out.split('\n')
  expect(json).toHaveLength(2)
  expect(JSON.parse(json[0]!)).toMatchObject({ id: 'pager:1', status: 422, body: 'line one\n\u001b[2J', record: { rid: 'b7c1.1' } })
  expect(json[0]).toContain(record(1))
  const shown = command(folder, { action: 'show', ids: ['2'] }).out
  expect(shown).toContain(`record    ${record(2)}`)
  expect(command(folder, { action: 'show', ids: ['1'] }).out).not.toContain('\u001b')
})

test('names what it cannot find, and what may be several', async () => {
  const [a, b] = [fresh(), fresh()]
  for (const folder of [a, b]) {
    const { store } = await open(folder)
    await store.add([refusal(1)])
    await store.close()
  }
  const errors: string[] = []
  const printed = { print: () => {}, printError: (text: string) => errors.push(text) }
  const both = [{ output: 'pager', folder: a }, { output: 'chat', folder: b }]
  expect(deadLetters(both, { action: 'replay', ids: ['9'], json: false }, printed)).toBe(2)
  expect(deadLetters(both, { action: 'replay', ids: ['1'], json: false }, printed)).toBe(2)
  expect(errors[0]).toContain('there is no dead letter 9')
  expect(errors[1]).toContain('pager:1 or chat:1')
  expect(deadLetters(both, { action: 'replay', ids: ['chat:1'], json: false }, printed)).toBe(0)
  expect([readLetters(a).length, readLetters(b).length]).toEqual([1, 0])
})

test.skipIf(process.getuid?.() === 0)('a store that may not be read is an error, with its path', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.close()
  chmodSync(folder, 0)
  const { status, errors } = command(folder, { action: 'list' })
  chmodSync(folder, 0o750)
  expect(status).toBe(1)
  expect(errors).toContain(folder)
})

test('two writers of replays at once do not overwrite each other', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([refusal(1)])
  const letters = readLetters(folder)
  replayLetters(folder, letters)
  replayLetters(folder, letters)
  expect(readdirSync(join(folder, 'replay'))).toHaveLength(2)
  expect(readFileSync(join(folder, 'replay', readdirSync(join(folder, 'replay'))[0]!), 'utf8')).toBe(`${record(1)}\n`)
  await store.close()
})

test('notes of what was sent again do not pile up, and numbers still go on', async () => {
  const folder = fresh()
  for (let n = 1; n <= 5; n++) {
    const { store } = await open(folder)
    await store.add([refusal(n)])
    await store.close()
    expect(readLetters(folder).map(({ id }) => id)).toEqual([n])
    replayLetters(folder, readLetters(folder))
  }
  const { store } = await open(folder)
  expect(readdirSync(join(folder, 'replayed'))).toHaveLength(1)
  expect(readdirSync(folder).filter((name) => name.startsWith('letters'))).toHaveLength(0)
  await store.close()
})

test('a letter is added while a replay waits for room', async () => {
  const folder = fresh()
  const { store } = await open(folder)
  await store.add([refusal(1)])
  replayLetters(folder, readLetters(folder))
  let makeRoom = (): void => {}
  const hasRoom = new Promise<void>((resolve) => (makeRoom = resolve))
  const replay = store.takeReplays(() => hasRoom)
  await store.add([refusal(2)])
  makeRoom()
  await replay
  expect(readLetters(folder).map(({ id }) => id)).toEqual([2])
  await store.close()
})
