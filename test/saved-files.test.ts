/** Saved files through the built program: compressed on standard input and by name, cut off in the middle, and a rotated set as one story. */
import { mkdirSync, readFileSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import zlib, { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { cleanUp, fixture, Pipe, Program, type Result, resultOf, run, scratch, shell } from './process-harness.js'

afterEach(cleanUp)

const events = fixture('incident.E-timestamp-id')
/** without the number that each run gives a flow anew */
const same = ({ lines }: Result): string[] => lines.map((line) => line.replace(/"flow":"[0-9a-f]{16}",?/, ''))
const read = (...args: string[]): Promise<Result> => shell('"$@"', ...args)

describe('compressed standard input', () => {
  test('gzip, of one member and of several, from a file, a pipe and a socket', async () => {
    const plain = same(await run([], events))
    const several = Buffer.concat([gzipSync(events.subarray(0, 20_000)), gzipSync(events.subarray(20_000))])
    for (const through of ['file', 'pipe', 'socket'] as const) {
      for (const packed of [gzipSync(events), several]) {
        const result = await run([], packed, through)
        expect(same(result)).toEqual(plain)
        expect(result.done).toMatchObject({ lines: 626, flows: 626, rejected: 0, bytes: events.length })
      }
    }
  })

  test('byte by byte, and a beginning that only looks like it', async () => {
    for (const bytes of [gzipSync('tcp 6 5 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n'), Buffer.from('(\x1f\n')]) {
      const [stdin, out] = [await Pipe.open(), await Pipe.open()]
      const running = new Program([], stdin, out)
      for (const byte of bytes) writeSync(stdin.writeEnd, Buffer.of(byte))
      stdin.closeWrite()
      const result = resultOf(await running.ended, await out.readAll())
      expect(result.done).toMatchObject({ lines: 1, flows: bytes.length > 3 ? 1 : 0 })
    }
  })

  test('cut off: what is there, and a gap', async () => {
    const packed = gzipSync(events)
    const { lines, records, done, diagnostics, status } = await run([], packed.subarray(0, packed.length >> 1))
    expect(lines.length).toBeGreaterThan(100)
    expect(records.filter(({ type }) => type === 'gap')).toHaveLength(1)
    expect(done!.gaps).toBe(1)
    expect(diagnostics.map(({ msg }) => msg as string).join()).toContain('unexpected end of file')
    expect(status).toBe(0)
  })

  test('what unfolds to a thousand times its size is read piece by piece', async () => {
    const line = '6,1,1,-;usb 1-1: new high-speed USB device\n'
    const { done } = await run([], gzipSync(line.repeat(1_000_000)), 'pipe')
    expect(done).toMatchObject({ lines: 1_000_000, ignored: 1_000_000 })
  })

  test.skipIf(!('createZstdDecompress' in zlib))('zstd', async () => {
    const packed = (zlib as unknown as { zstdCompressSync: (bytes: Uint8Array) => Buffer }).zstdCompressSync(events)
    expect((await run([], packed, 'pipe')).done).toMatchObject({ lines: 626, flows: 626 })
  })
})

describe('saved files by name', () => {
  const cut = [0, 1, 2].map((part) => events.toString().split(/(?<=\n)/).slice(part * 200, part === 2 ? undefined : (part + 1) * 200).join(''))

  test('a rotated set is one story, in whatever order it is given', async () => {
    const plain = same(await run([], events))
    const [oldest, middle, newest] = [scratch('x.log.2.gz'), scratch('x.log.1'), scratch('x.log')]
    writeFileSync(oldest, gzipSync(cut[0]!))
    writeFileSync(middle, cut[1]!)
    writeFileSync(newest, cut[2]!)
    for (const args of [[newest, middle, oldest], [oldest, middle, newest]]) {
      const result = await read(...args)
      expect(same(result)).toEqual(plain)
      expect(result.records[0]).not.toHaveProperty('rid')
    }
    const { records } = await read('run', '--once', '--host', 'gw', '-i', `${scratch('x.log')}*`)
    expect(records.map(({ time }) => time as string)).toEqual(plain.map((line) => (JSON.parse(line) as { time: string }).time))
    expect(records[0]).toMatchObject({ host: 'gw', rid: expect.any(String) })
  })

  test('- is standard input, alone and among files', async () => {
    const plain = same(await run([], events))
    expect(same(await run(['-'], events))).toEqual(plain)
    const [older, newer] = [scratch('y.log.1'), scratch('y.log')]
    writeFileSync(older, cut[0]!)
    writeFileSync(newer, cut[2]!)
    for (const through of ['file', 'pipe'] as const) {
      const result = await run([newer, '-', older], Buffer.from(cut[1]!), through)
      expect(same(result)).toEqual(plain)
      expect(result.records[0]).not.toHaveProperty('rid')
    }
  })

  test('one episode across the files of a kernel log', async () => {
    const line = (time: string): string => `Nov 22 10:00:${time} gw kernel: nf_conntrack: nf_conntrack: table full, dropping packet\n`
    writeFileSync(scratch('kern.log.1.gz'), gzipSync(`${line('01')}${line('02')}`))
    writeFileSync(scratch('kern.log'), `${line('03')}${line('04')}`)
    const { records } = await read('--emit', 'alert', scratch('kern.log'), scratch('kern.log.1.gz'))
    expect(new Set(records.map(({ episode }) => episode as string)).size).toBe(1)
    expect(records.at(-1)).toMatchObject({ final: true, drops: { logged: 4 } })
  })

  const full = (stamp: string, flags = ''): string => `${stamp} gw kernel: nf_conntrack: nf_conntrack: table full, dropping packet${flags}\n`

  test.each([
    ['all at one time', [0, 0, 0]],
    ['in the order in which they were named', [0, 5, 10]],
    ['as rotation left them', [70 * 86_400, 40 * 86_400, 0]],
  ])('years of stamps without one, over New Year: copied %s', async (_, ages) => {
    const names = ['kern.log.2.gz', 'kern.log.1', 'kern.log']
    const texts = [full('Nov 28 10:00:00') + full('Dec 10 10:00:00'), full('Dec 12 10:00:00') + full('Jan  9 10:00:00'), full('Jan 10 10:00:00') + full('Feb 20 10:00:00')]
    const copied = Date.parse(ages[0]! > 86_400 ? '2026-02-20T10:00:00Z' : '2026-11-29T10:00:00Z') / 1000
    for (const [i, name] of names.entries()) {
      writeFileSync(scratch(name), name.endsWith('.gz') ? gzipSync(texts[i]!) : texts[i]!)
      utimesSync(scratch(name), copied - ages[i]!, copied - ages[i]!)
    }
    const { records } = await read('--timezone', 'UTC', '--emit', 'kernel', ...names.map((name) => scratch(name)))
    expect(records.map(({ time }) => (time as string).slice(0, 10))).toEqual(['2025-11-28', '2025-12-10', '2025-12-12', '2026-01-09', '2026-01-10', '2026-02-20'])
  })

  test.each([true, false])('a line that was broken at the border is whole, the older one compressed: %s', async (isPacked) => {
    const text = full('Nov 22 10:00:01') + full('Nov 22 10:00:02')
    const row = 'udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n'
    const story = text + row + text
    for (const at of [story.indexOf('table full'), story.indexOf('dst='), story.length - 4]) {
      const older = scratch(isPacked ? 'kern.log.1.gz' : 'kern.log.1')
      writeFileSync(older, isPacked ? gzipSync(story.slice(0, at)) : story.slice(0, at))
      writeFileSync(scratch('kern.log'), story.slice(at) + text)
      const { done, records } = await read('--emit', 'kernel,flow', scratch('kern.log'), older)
      expect(done).toMatchObject({ lines: 7, kernel: 6, flows: 1, ignored: 0, rejected: 0, bytes: story.length + text.length })
      expect(records).toHaveLength(7)
    }
  })

  test('a line without an end and a file that begins with a line of its own are two', async () => {
    for (const begins of [full('Nov 22 10:00:05'), `\t${full('Nov 22 10:00:05')}`, '[NEW] udp 17 30 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n']) {
      writeFileSync(scratch('kern.log.1'), full('Nov 22 10:00:01').trimEnd())
      writeFileSync(scratch('kern.log'), begins)
      expect((await read(scratch('kern.log'), scratch('kern.log.1'))).done).toMatchObject({ lines: 2, ignored: 0, rejected: 0 })
    }
  })

  test('a file and its compressed copy are read once, and that is said; another of such a name is read too', async () => {
    for (const name of ['kern.log', 'kern.log.1', 'kern.log.2']) writeFileSync(scratch(name), full('Nov 22 10:00:01') + full(`Nov 22 10:00:0${name.length}`))
    for (const name of ['kern.log', 'kern.log.1']) writeFileSync(scratch(`${name}.gz`), gzipSync(readFileSync(scratch(name))))
    writeFileSync(scratch('kern.log.2.gz'), gzipSync(full('Nov 22 09:00:00')))
    const { done, diagnostics } = await read('run', '--once', '-i', `${scratch('kern.log')}*`)
    expect(done).toMatchObject({ lines: 7, kernel: 7 })
    expect(diagnostics.map(({ msg }) => msg as string).sort()).toEqual(['', '.1'].map((number) => `${scratch(`kern.log${number}`)}.gz is not read: it holds the same as ${scratch(`kern.log${number}`)}`).sort())
  })

  test('a log that is held back until its clock is known, alone and beside another', async () => {
    const log = fixture('kernel-log.incident.kmsg')
    for (const name of ['one.txt', 'two.txt']) writeFileSync(scratch(name), log)
    expect((await read('--emit', 'kernel', scratch('one.txt'))).lines).toHaveLength(44)
    expect((await read('--emit', 'kernel', scratch('one.txt'), scratch('two.txt'))).lines).toHaveLength(88)
  })

  test('a path with brackets in it is that path', async () => {
    writeFileSync(scratch('a[1].txt'), events)
    expect((await read(scratch('a[1].txt'))).done).toMatchObject({ flows: 626 })
  })

  test('compressed under another name, beside one that is not', async () => {
    writeFileSync(scratch('saved'), gzipSync(cut[0]!))
    writeFileSync(scratch('saved.txt'), cut[1]! + cut[2]!)
    expect(same(await read(scratch('saved'), scratch('saved.txt')))).toEqual(same(await run([], events)))
    expect((await read('run', '--once', '-i', `${scratch('sav')}*`)).done).toMatchObject({ flows: 626, rejected: 0, ignored: 0 })
  })

  test('a dmesg that is compressed has its clock estimated as another', async () => {
    const ring = fixture('kernel-log.rich.dmesg-default')
    const at = new Date('2026-11-22T12:00:00Z')
    for (const [name, bytes] of [['dmesg', ring], ['dmesg.gz', gzipSync(ring)], ['dmesg.0', gzipSync(ring)]] as const) {
      writeFileSync(scratch(name), bytes)
      utimesSync(scratch(name), at, at)
    }
    const plain = await read('--emit', 'kernel', scratch('dmesg'))
    expect(plain.records.filter(({ time_source }) => time_source === 'estimated').length).toBeGreaterThan(3)
    for (const name of ['dmesg.gz', 'dmesg.0']) expect((await read('--emit', 'kernel', scratch(name))).lines).toEqual(plain.lines)
  })

  test('what cannot be unpacked is named, with what can', async () => {
    mkdirSync(scratch('z'))
    for (const [ending, name, tool] of [['xz', 'xz', 'xzcat'], ['bz2', 'bzip2', 'bzcat']] as const) {
      const path = scratch(`z/a.log.${ending}`)
      writeFileSync(path, 'x')
      expect((await read(path)).diagnostics.map(({ msg }) => msg as string)).toEqual([`${path} is not read: it is ${name}-compressed: ${tool} ${path} | conntrail`])
    }
  })

  test('what is not there is status 3, a word that is no command 2', async () => {
    const missing = await read(scratch('nothing.log'))
    expect([missing.status, missing.stderr]).toEqual([3, expect.stringContaining('nothing is there')])
    expect((await read('rnu')).status).toBe(2)
  })
})
