/**
 * The rules of tracking, one short test each: lines by hand in, what the tracker makes of them out.
 * A record in short: which flow (#1 is the first that appeared), event, state, ctstate, then from>to@after, then reason duration/idle.
 */
import { describe, expect, test } from 'vitest'
import { FlowTracker } from '../src/detectors/flows/tracker.js'
import { FlowEvent, KEYS_PORTS, NEW, UPDATE } from '../src/event.js'
import { tcpState } from '../src/kernel.js'
import { type Options, type Result, runPieces, runText } from './harness.js'

/** The time of rows: what the harness says lines without a time were received at. */
const T = Date.parse('2026-11-22T12:00:00Z') / 1000

const O = 'src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80'
const R = 'src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000'
const port = (text: string, n: number): string => text.replaceAll('1000', String(n))
/** Original tuple, reply tuple; the flow of source port n. */
const asked = (n = 1000): string => `${port(O, n)} [UNREPLIED] ${port(R, n)}`
const answered = (n = 1000): string => `${port(O, n)} ${port(R, n)}`

/** An event so many seconds after T. */
const on = (seconds: number, tag: string, rest: string): string => `[${(T + seconds).toFixed(6)}]\t${`[${tag}]`.padStart(9)} ${rest}`
const begun = (seconds: number, end = '', n = 1000): string => on(seconds, 'NEW', `tcp      6 120 SYN_SENT ${asked(n)}${end}`)
const changed = (seconds: number, state: string, end = '', n = 1000): string => on(seconds, 'UPDATE', `tcp      6 60 ${state} ${answered(n)}${end}`)
const ended = (seconds: number, state: string, end = '', n = 1000): string => on(seconds, 'DESTROY', `tcp      6 ${state} ${answered(n)}${end}`)
const proc = (timeout: number, state: string, n = 1000): string => `ipv4     2 tcp      6 ${timeout} ${state} ${answered(n)} [ASSURED] mark=0 zone=0 use=2`
const row = (timeout: number, state: string, n = 1000): string => `tcp      6 ${timeout} ${state} ${answered(n)} [ASSURED] mark=0 use=1`
const shown = (n: number): string => `conntrack v1.4.7 (conntrack-tools): ${n} flow entries have been shown.`

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')
const run = (lines: readonly string[], options?: Options): Promise<Result> => runText(text(lines), options)
const short = async (...lines: string[]): Promise<string[]> => inShort(await run(lines))

function inShort(result: Result): string[] {
  const flows: string[] = []
  return result.lines
    .map((line) => JSON.parse(line) as Record<string, any>)
    .filter((r) => r['type'] === 'flow')
    .map((r) => {
      if (!flows.includes(r['flow'])) flows.push(r['flow'])
      const { transition: t, end: e } = r
      const change = t === undefined ? '' : ` ${t.from}>${t.to}${t.after === undefined ? '' : `@${t.after}`}`
      const ending = e === undefined ? '' : ` ${e.reason} ${e.duration ?? '-'}/${e.idle ?? '-'}`
      return `#${flows.indexOf(r['flow']) + 1} ${r['event']} ${r['state'] ?? '-'} ${r['ctstate']}${change}${ending}`
    })
}

describe('states', () => {
  test('a whole TCP life: from null at first, then from and after', async () => {
    expect(await short(begun(0), changed(0.25, 'SYN_RECV'), changed(0.5, 'ESTABLISHED'), changed(10, 'FIN_WAIT'), changed(10.000001, 'TIME_WAIT'), ended(130.000001, 'TIME_WAIT'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update SYN_RECV ESTABLISHED SYN_SENT>SYN_RECV@0.25',
      '#1 update ESTABLISHED ESTABLISHED SYN_RECV>ESTABLISHED@0.25',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT@9.5',
      '#1 update TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@0.000001',
      '#1 destroy TIME_WAIT ESTABLISHED closed 130.000001/120',
    ])
  })

  test('an update that changes no state is no transition, and after counts from the last change', async () => {
    expect(await short(begun(0), changed(1, 'ESTABLISHED'), changed(2, 'ESTABLISHED', ' mark=7'), changed(4, 'FIN_WAIT'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@1',
      '#1 update ESTABLISHED ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT@3',
    ])
  })

  test('a destroy that brings another state is a transition, for an unknown flow it is none', async () => {
    expect(await short(begun(0), ended(1, '9 CLOSE'), ended(2, '9 CLOSE', '', 1001))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 destroy CLOSE ESTABLISHED SYN_SENT>CLOSE@1 reset 1/0',
      '#2 destroy CLOSE ESTABLISHED reset -/-',
    ])
  })

  test('an unknown flow begins at any event', async () => {
    expect(await short(changed(0, 'FIN_WAIT'), changed(1, 'TIME_WAIT'), ended(2, 'TIME_WAIT'))).toEqual([
      '#1 update FIN_WAIT ESTABLISHED null>FIN_WAIT',
      '#1 update TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@1',
      '#1 destroy TIME_WAIT ESTABLISHED closed -/1',
    ])
  })

  test('a connection picked up in the middle is ESTABLISHED and NEW until it is answered', async () => {
    expect(await short(on(0, 'NEW', `tcp      6 300 ESTABLISHED ${asked()}`), on(1, 'UPDATE', `tcp      6 300 ESTABLISHED ${answered()}`))).toEqual([
      '#1 new ESTABLISHED NEW null>ESTABLISHED',
      '#1 update ESTABLISHED ESTABLISHED',
    ])
  })

  test('an update without a state keeps the last, and says nothing where none was seen', async () => {
    const silent = (seconds: number, n: number): string => on(seconds, 'UPDATE', `tcp      6 ${answered(n)}`)
    expect(await short(begun(0), silent(1, 1000), changed(2, 'ESTABLISHED'), silent(3, 1001), changed(4, 'FIN_WAIT', '', 1001))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update SYN_SENT ESTABLISHED',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@2',
      '#2 update - ESTABLISHED',
      '#2 update FIN_WAIT ESTABLISHED null>FIN_WAIT',
    ])
  })

  test('a flow that turns offloaded does not change state', async () => {
    const udp = (seconds: number, tag: string, rest: string): string => on(seconds, tag, `udp      17 ${rest}`)
    expect(await short(begun(0), changed(1, 'ESTABLISHED'), on(2, 'UPDATE', `tcp      6 ${answered()} [OFFLOAD]`), on(3, 'UPDATE', `tcp      6 ${answered()} [HW_OFFLOAD]`), changed(9, 'FIN_WAIT'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@1',
      '#1 update ESTABLISHED ESTABLISHED',
      '#1 update ESTABLISHED ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT@8',
    ])
    expect(await short(udp(0, 'NEW', `30 ${asked()}`), udp(1, 'UPDATE', `120 ${answered()} [ASSURED]`), udp(2, 'UPDATE', `${answered()} [OFFLOAD]`))).toEqual([
      '#1 new UNREPLIED NEW null>UNREPLIED',
      '#1 update ASSURED ESTABLISHED UNREPLIED>ASSURED@1',
      '#1 update ASSURED ESTABLISHED',
    ])
  })

  test('protocols without a tracker go through UNREPLIED, REPLIED and ASSURED, DCCP too where no word of it is printed', async () => {
    for (const name of ['udp      17', 'dccp     33', 'udplite  136']) {
      expect(await short(on(0, 'NEW', `${name} 30 ${asked()}`), on(1, 'UPDATE', `${name} 30 ${answered()}`), on(3, 'UPDATE', `${name} 120 ${answered()} [ASSURED]`), on(4, 'DESTROY', `${name} ${answered()} [ASSURED]`))).toEqual([
        '#1 new UNREPLIED NEW null>UNREPLIED',
        '#1 update REPLIED ESTABLISHED UNREPLIED>REPLIED@1',
        '#1 update ASSURED ESTABLISHED REPLIED>ASSURED@2',
        '#1 destroy ASSURED ESTABLISHED expired 4/1',
      ])
    }
  })

  test('where DCCP and SCTP have words, a line without one keeps the last', async () => {
    for (const [name, word] of [['dccp     33', 'REQUEST'], ['sctp     132', 'COOKIE_WAIT']]) {
      expect(await short(on(0, 'NEW', `${name} 30 ${word} ${asked()}`), on(1, 'UPDATE', `${name} 30 ${answered()}`), on(2, 'UPDATE', `${name} 30 ${answered(1001)}`))).toEqual([
        `#1 new ${word} NEW null>${word}`,
        `#1 update ${word} ESTABLISHED`,
        '#2 update - ESTABLISHED',
      ])
    }
  })

  test('SCTP has states: before the first is known there is none, whatever the flags say', async () => {
    const sctp = (seconds: number, tag: string, rest: string): string => on(seconds, tag, `sctp     132 ${rest}`)
    expect(
      await short(sctp(0, 'NEW', `3 ${asked()}`), sctp(1, 'UPDATE', `3 ${answered()}`), sctp(2, 'UPDATE', `3 COOKIE_ECHOED ${answered()}`), sctp(4, 'UPDATE', `210 ESTABLISHED ${answered()} [ASSURED]`), sctp(5, 'DESTROY', answered())),
    ).toEqual([
      '#1 new - NEW',
      '#1 update - ESTABLISHED',
      '#1 update COOKIE_ECHOED ESTABLISHED null>COOKIE_ECHOED',
      '#1 update ESTABLISHED ESTABLISHED COOKIE_ECHOED>ESTABLISHED@2',
      '#1 destroy ESTABLISHED ESTABLISHED expired 5/1',
    ])
    expect(await short(sctp(0, 'UPDATE', `3 ${answered()} [ASSURED]`), `sctp     132 3 ${answered(1001)} [ASSURED] mark=0 use=1`, sctp(1, 'DESTROY', `${answered()} [ASSURED]`), sctp(2, 'DESTROY', `9 ${asked(1002)}`))).toEqual([
      '#1 update - ESTABLISHED',
      '#2 entry - ESTABLISHED',
      '#1 destroy - ESTABLISHED expired -/-',
      '#3 destroy - NEW removed -/-',
    ])
  })

  test('after and idle are absent when a time is only received, and never below zero', async () => {
    const plain = (line: string): string => line.slice(line.indexOf('\t') + 1)
    expect(await short(plain(begun(0)), plain(changed(1, 'ESTABLISHED')), changed(2, 'FIN_WAIT'), changed(3, 'TIME_WAIT'), plain(ended(4, 'TIME_WAIT')))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT',
      '#1 update TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@1',
      '#1 destroy TIME_WAIT ESTABLISHED closed -/-',
    ])
    expect(await short(begun(5), changed(4, 'ESTABLISHED'), ended(3, '9 ESTABLISHED'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@0',
      '#1 destroy ESTABLISHED ESTABLISHED removed 0/0',
    ])
  })
})

describe('ends', () => {
  const udp = (rest: string): string => on(1, 'DESTROY', `udp      17 ${rest}`)

  test.each([
    ['deleted: a process did it, whatever the state', ended(1, '9 CLOSE', ' [USERSPACE] portid=7 progname=conntrack'), 'deleted'],
    ['deleted: a process did it, not known which', udp(`${answered()} [USERSPACE]`), 'deleted'],
    ['refused: TCP CLOSE, never answered', on(1, 'DESTROY', `tcp      6 9 CLOSE ${asked()}`), 'refused'],
    ['reset: TCP CLOSE after an answer', ended(1, '9 CLOSE'), 'reset'],
    ['reset: also when it ran out', ended(1, 'CLOSE'), 'reset'],
    ['closed: TCP TIME_WAIT', ended(1, 'TIME_WAIT'), 'closed'],
    ['closed: TCP LAST_ACK', ended(1, '9 LAST_ACK'), 'closed'],
    ['closed: SCTP SHUTDOWN_ACK_SENT', on(1, 'DESTROY', `sctp     132 SHUTDOWN_ACK_SENT ${answered()}`), 'closed'],
    ['closed: DCCP TIMEWAIT', on(1, 'DESTROY', `dccp     33 TIMEWAIT ${answered()}`), 'closed'],
    ['unknown: TCP without a state', on(1, 'DESTROY', `tcp      6 ${answered()}`), 'unknown'],
    ['expired: no timeout left', udp(answered()), 'expired'],
    ['expired: TCP too', ended(1, 'ESTABLISHED', ' [ASSURED]'), 'expired'],
    ['removed: a timeout left, and no process', udp(`29 ${answered()}`), 'removed'],
    ['removed: TCP too', ended(1, '119 SYN_RECV'), 'removed'],
    ['expired: SCTP CLOSED is no handshake of goodbye', on(1, 'DESTROY', `sctp     132 CLOSED ${answered()}`), 'expired'],
  ])('%s', async (_, line, reason) => {
    expect((await short(line))[0]).toMatch(` ${reason} `)
  })

  test('unknown holds for every flow once TCP was seen to end without a state, but for what was seen before', async () => {
    const old = (seconds: number, n: number): string => on(seconds, 'DESTROY', `tcp      6 ${answered(n)} [ASSURED]`)
    expect(await short(changed(0, 'TIME_WAIT'), changed(0, 'CLOSE', '', 1001), begun(0, '', 1002), old(1, 1000), old(1, 1001), old(1, 1002), udp(`${answered()}`), udp(`${answered()} [USERSPACE]`)).then((all) => all.slice(3))).toEqual([
      '#1 destroy TIME_WAIT ESTABLISHED closed -/1',
      '#2 destroy CLOSE ESTABLISHED reset -/1',
      '#3 destroy SYN_SENT ESTABLISHED unknown 1/1',
      '#4 destroy REPLIED ESTABLISHED unknown -/-',
      '#5 destroy REPLIED ESTABLISHED deleted -/-',
    ])
  })

  const ctime = (seconds: number): string => new Date((T + seconds) * 1000).toUTCString().replace(/^(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT$/, (_, a, b, c, d, e) => `${a} ${c} ${String(b).replace(/^0/, ' ')} ${e} ${d}`)
  const nanoseconds = (stamps: string): string =>
    '<flow type="destroy"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>1000</sport><dport>80</dport></layer4></meta>' +
    '<meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>80</sport><dport>1000</dport></layer4></meta>' +
    `<meta direction="independent"><state>TIME_WAIT</state><id>5</id>${stamps}</meta><when><hour>12</hour><min>00</min><sec>09</sec><wday>1</wday><day>22</day><month>11</month><year>2026</year></when></flow>`

  test.each([
    ['start in nanoseconds goes before the time of NEW, stop before the time of the record', [begun(0.5), nanoseconds(`<timestamp><start>${T}250000999</start><stop>${T + 8}000000000</stop></timestamp>`)], '7.75/0'],
    ['without a stop the record ends it', [nanoseconds(`<timestamp><start>${T}250000999</start></timestamp>`)], '8.75/-'],
    ['the time of NEW goes before a start in whole seconds', [begun(0.5), ended(3, 'TIME_WAIT', ` delta-time=3 [start=${ctime(0)}]`)], '2.5/0'],
    ['a start in whole seconds goes before delta-time', [ended(3.5, 'TIME_WAIT', ` delta-time=9 [start=${ctime(1)}]`)], '2.5/-'],
    ['stop in whole seconds', [ended(9.5, 'TIME_WAIT', ` delta-time=6 [start=${ctime(1)}] [stop=${ctime(7)}]`)], '6/-'],
    ['a row taught the start', [`${row(60, 'ESTABLISHED').replace('use', `[start=${ctime(-5)}] use`)}`, ended(3.5, 'ESTABLISHED')], '8.5/-'],
    ['delta-time alone', [ended(3.5, 'TIME_WAIT', ' delta-time=4')], '4/-'],
    ['nothing known', [ended(3.5, 'TIME_WAIT')], '-/-'],
    ['the state changed with the end', [begun(0), ended(2, '9 CLOSE')], '2/0'],
    ['no time on either line', ['    [NEW] udp      17 30 ' + asked(), '[DESTROY] udp      17 ' + answered()], '-/-'],
  ])('duration and idle: %s', async (_, lines, want) => {
    expect((await short(...lines)).at(-1)!.split(' ').at(-1)).toBe(want)
  })
})

describe('which flow it is', () => {
  test('the same tuple and the same id again within a second is another flow', async () => {
    expect(await short(begun(0, ' id=7'), changed(0.1, 'ESTABLISHED', ' id=7'), ended(0.2, '119 TIME_WAIT', ' id=7'), begun(0.2, ' id=7'), changed(0.3, 'ESTABLISHED', ' id=7'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@0.1',
      '#1 destroy TIME_WAIT ESTABLISHED ESTABLISHED>TIME_WAIT@0.1 closed 0.2/0',
      '#2 new SYN_SENT NEW null>SYN_SENT',
      '#2 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@0.1',
    ])
  })

  test.each([' id=7', ''])('a NEW begins another flow even where the end of the one before was lost (%j)', async (id) => {
    expect(await short(begun(0, id), begun(1, id), ended(2, 'SYN_SENT', id), ended(3, 'SYN_SENT', id))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#2 new SYN_SENT NEW null>SYN_SENT',
      '#2 destroy SYN_SENT ESTABLISHED expired 1/1',
      '#3 destroy SYN_SENT ESTABLISHED expired -/-',
    ])
  })

  test('two live flows may share one id', async () => {
    expect(await short(begun(0, ' id=7'), begun(1, ' id=7', 1001), changed(2, 'ESTABLISHED', ' id=7'), ended(3, '9 CLOSE', ' id=7', 1001), ended(4, '9 CLOSE', ' id=7'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#2 new SYN_SENT NEW null>SYN_SENT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@2',
      '#2 destroy CLOSE ESTABLISHED SYN_SENT>CLOSE@2 reset 2/0',
      '#1 destroy CLOSE ESTABLISHED ESTABLISHED>CLOSE@2 reset 4/0',
    ])
  })

  test('another id under the same tuple is another flow, and the late end of the first still finds it', async () => {
    expect(await short(begun(0, ' id=7'), begun(1, ' id=8'), ended(2, 'SYN_SENT', ' id=7'), ended(3, 'SYN_SENT', ' id=8'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#2 new SYN_SENT NEW null>SYN_SENT',
      '#1 destroy SYN_SENT ESTABLISHED expired 2/2',
      '#2 destroy SYN_SENT ESTABLISHED expired 2/2',
    ])
  })

  test('a destroy or an update with a foreign id leaves the live flow alone', async () => {
    expect(await short(begun(0, ' id=7'), ended(1, '9 CLOSE', ' id=8'), changed(2, 'FIN_WAIT', ' id=9'), changed(3, 'ESTABLISHED', ' id=7'), ended(4, '9 TIME_WAIT', ' id=9'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#2 destroy CLOSE ESTABLISHED reset -/-',
      '#3 update FIN_WAIT ESTABLISHED null>FIN_WAIT',
      '#1 update ESTABLISHED ESTABLISHED SYN_SENT>ESTABLISHED@3',
      '#3 destroy TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@2 closed -/0',
    ])
  })

  test('rows of /proc without an id and events with one meet', async () => {
    expect(await short(proc(60, 'ESTABLISHED'), changed(1, 'FIN_WAIT', ' id=7'), proc(119, 'FIN_WAIT'), changed(2, 'TIME_WAIT', ' id=7'), ended(3, 'TIME_WAIT', ' id=8'), ended(4, 'TIME_WAIT', ' id=7'))).toEqual([
      '#1 entry ESTABLISHED ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT',
      '#1 entry FIN_WAIT ESTABLISHED',
      '#1 update TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@1',
      '#2 destroy TIME_WAIT ESTABLISHED closed -/-',
      '#1 destroy TIME_WAIT ESTABLISHED closed -/2',
    ])
  })

  test('events with an id and events without one meet', async () => {
    expect(await short(begun(0, ' id=7'), changed(1, 'ESTABLISHED'), ended(2, 'ESTABLISHED', ' id=7')).then((all) => all.map((line) => line.slice(0, 2)))).toEqual(['#1', '#1', '#1'])
    expect(await short(begun(0), changed(1, 'ESTABLISHED', ' id=7'), ended(2, 'ESTABLISHED', ' id=8')).then((all) => all.map((line) => line.slice(0, 2)))).toEqual(['#1', '#1', '#2'])
  })

  test('a row with another id is the life that is there now', async () => {
    expect(await short(begun(0, ' id=7'), `${row(60, 'ESTABLISHED')} id=8`, changed(3, 'FIN_WAIT', ' id=8')).then((all) => all.map((line) => line.slice(0, 2)))).toEqual(['#1', '#2', '#2'])
  })

  test.each(['tcp      6 SYN_SENT', 'udp      17', 'sctp     132 CLOSED', 'dccp     33'])('the protocol belongs to it (%s)', async (protocol) => {
    const other = protocol.startsWith('udp') ? 'udplite  136' : 'udp      17'
    expect(await short(on(0, 'NEW', `${protocol.replace(/(\d+)/, '$1 30')} ${asked()}`), on(1, 'NEW', `${other} 30 ${asked()}`), on(2, 'DESTROY', `${other} ${answered()}`), on(3, 'DESTROY', `${protocol} ${answered()}`)).then((all) => all.map((line) => line.slice(0, 2)))).toEqual(['#1', '#2', '#2', '#1'])
  })

  test('so do ICMP type, code and id, GRE keys, and the family', async () => {
    const icmp = (tag: string, type: number, code: number, id: number): string => on(0, tag, `icmp     1 30 src=10.0.0.1 dst=10.0.0.2 type=${type} code=${code} id=${id} [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=${id}`)
    const gre = (tag: string, src: string, dst: string): string => on(0, tag, `gre      47 30 src=10.0.0.1 dst=10.0.0.2 srckey=${src} dstkey=${dst} [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=${dst} dstkey=${src}`)
    const six = (tag: string, src: string): string => on(0, tag, `udp      17 30 src=${src} dst=::2 sport=1 dport=2 [UNREPLIED] src=::2 dst=${src} sport=2 dport=1`)
    const four = (tag: string): string => on(0, tag, 'udp      17 30 src=0.0.0.1 dst=0.0.0.2 sport=1 dport=2 [UNREPLIED] src=0.0.0.2 dst=0.0.0.1 sport=2 dport=1')
    for (const make of [
      [(tag: string) => icmp(tag, 8, 0, 1), (tag: string) => icmp(tag, 13, 0, 1), (tag: string) => icmp(tag, 8, 1, 1), (tag: string) => icmp(tag, 8, 0, 2)],
      [(tag: string) => gre(tag, '0x0', '0x1'), (tag: string) => gre(tag, '0x1', '0x0'), (tag: string) => gre(tag, '0x0', '0x8001')],
      [(tag: string) => six(tag, '::1'), (tag: string) => six(tag, '1::1'), (tag: string) => six(tag, '0:1::1'), (tag: string) => six(tag, '0:0:1::1'), four],
    ]) {
      const n = make.map((_, i) => `#${i + 1}`)
      expect(await short(...make.map((line) => line('NEW')), ...make.map((line) => line('UPDATE')), ...make.map((line) => line('DESTROY'))).then((all) => all.map((line) => line.slice(0, 2)))).toEqual([...n, ...n, ...n])
    }
  })

  test('the same tuple in two zones is two flows, by zone and by zone-orig, but not by zone-reply', async () => {
    const numbers = (all: string[]): string[] => all.map((line) => line.slice(0, 2))
    const orig = (line: string, zone: number): string => line.replace('dport=80 ', `dport=80 zone-orig=${zone} `)
    expect(numbers(await short(begun(0, ' zone=1'), begun(0, ' zone=2'), begun(0), changed(1, 'ESTABLISHED', ' zone=2'), ended(2, 'CLOSE', ' zone=1'), ended(3, 'CLOSE', ' zone=2'), ended(3, 'CLOSE')))).toEqual(['#1', '#2', '#3', '#2', '#1', '#2', '#3'])
    expect(numbers(await short(orig(begun(0), 11), orig(begun(0), 12), orig(changed(1, 'ESTABLISHED'), 11), orig(ended(2, 'CLOSE'), 12), orig(ended(2, 'CLOSE'), 11)))).toEqual(['#1', '#2', '#1', '#2', '#1'])
    expect(numbers(await short(begun(0), changed(1, 'ESTABLISHED', ' zone-reply=21')))).toEqual(['#1', '#1'])
  })

  test('the same tuple in two namespaces is two flows', () => {
    const tracker = new FlowTracker({ flowsMax: 100, seed: 1, fullTable: { wasFull: () => false } })
    const track = (netns: number, event: number, state: Parameters<typeof tcpState>[0]): [string, number] => {
      const e = new FlowEvent()
      Object.assign(e, { event, netns, family: 4, protocol: 6, sec: T, state: tcpState(state), unreplied: event === NEW })
      Object.assign(e.orig, { s3: 1, d3: 2, keys: KEYS_PORTS, k1: 1000, k2: 80 })
      Object.assign(e.reply, { s3: 2, d3: 1, keys: KEYS_PORTS, k1: 80, k2: 1000 })
      tracker.track(e)
      return [`${e.flowHigh} ${e.flowLow}`, e.from]
    }
    const [one] = track(4026531833, NEW, 'SYN_SENT')
    const [two] = track(4026532246, NEW, 'SYN_SENT')
    const [unknown] = track(0, NEW, 'SYN_SENT')
    expect(new Set([one, two, unknown]).size).toBe(3)
    expect(track(4026532246, UPDATE, 'ESTABLISHED')).toEqual([two, tcpState('SYN_SENT')])
    expect(track(4026531833, UPDATE, 'SYN_RECV')).toEqual([one, tcpState('SYN_SENT')])
    expect(track(0, UPDATE, 'SYN_RECV')).toEqual([unknown, tcpState('SYN_SENT')])
    expect(tracker.table.size).toBe(3)
  })
})

describe('flow numbers', () => {
  const start = ' [start=Sun Nov 22 11:00:17 2026]'
  const stamped = (n: number, at = start): string => `${row(60, 'ESTABLISHED', n).replace(' use=1', `${at} use=1`)} id=${n}`
  const flows = async (lines: readonly string[], options?: Options): Promise<string[]> => (await run(lines, options)).lines.map((line) => /"flow":"([0-9a-f]{16})"/.exec(line)![1]!)

  test('with a start from the kernel they are the same again in a second run, whatever else it sees', async () => {
    const first = await flows([stamped(1000), stamped(1001), `${ended(9, 'ESTABLISHED', `${start} id=1000`)}`])
    const second = await flows([begun(0, '', 5), stamped(1001), begun(0, '', 6), stamped(1000)], { seed: 99 })
    expect(first[2]).toBe(first[0])
    expect(second[3]).toBe(first[0])
    expect(second[1]).toBe(first[1])
    expect(first[1]).not.toBe(first[0])
  })

  test('another start is another number', async () => {
    const [one, two] = await flows([stamped(1000), stamped(1000, ' [start=Sun Nov 22 11:00:18 2026]').replace('id=1000', 'id=1')])
    expect(one).not.toBe(two)
  })

  test.each([' id=7', ''])('two lives of a tuple that began in the same second have two, though only their ends were heard (%j)', async (id) => {
    const [one, two] = await flows([ended(0.1, '9 CLOSE', start + id), ended(0.2, '9 CLOSE', start + id)])
    expect(one).not.toBe(two)
  })

  test('without one no two lives share a number, and the run decides them alone', async () => {
    const lines = Array.from({ length: 20_000 }, (_, i) => begun(i / 1000, '', 1000 + (i % 5)))
    const got = await flows(lines)
    expect(new Set(got).size).toBe(lines.length)
    expect(await flows(lines, { seed: 99 })).toEqual(got)
  })
})

describe('rows', () => {
  test('are never a transition, and what follows them has no after', async () => {
    expect(await short(row(60, 'SYN_RECV'), row(60, 'ESTABLISHED'), changed(1, 'FIN_WAIT'), changed(2, 'TIME_WAIT'))).toEqual([
      '#1 entry SYN_RECV ESTABLISHED',
      '#1 entry ESTABLISHED ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT',
      '#1 update TIME_WAIT ESTABLISHED FIN_WAIT>TIME_WAIT@1',
    ])
  })

  test('teach the state of a flow that events told of, unless they may be older than the last event', async () => {
    expect(await short(begun(-10), row(60, 'ESTABLISHED'), changed(1, 'FIN_WAIT'), ended(2, 'FIN_WAIT'))).toEqual([
      '#1 new SYN_SENT NEW null>SYN_SENT',
      '#1 entry ESTABLISHED ESTABLISHED',
      '#1 update FIN_WAIT ESTABLISHED ESTABLISHED>FIN_WAIT',
      '#1 destroy FIN_WAIT ESTABLISHED expired 12/1',
    ])
    expect(await short(changed(-1, 'ESTABLISHED'), row(60, 'SYN_RECV'), changed(1, 'ESTABLISHED'))).toEqual([
      '#1 update ESTABLISHED ESTABLISHED null>ESTABLISHED',
      '#1 entry SYN_RECV ESTABLISHED',
      '#1 update ESTABLISHED ESTABLISHED',
    ])
  })

  test('are forgotten when their timeout has run out, without a record, and counted', async () => {
    const result = await run([row(5, 'ESTABLISHED'), changed(4, 'FIN_WAIT', '', 1001), row(5, 'ESTABLISHED', 1002), changed(7, 'TIME_WAIT'), changed(8, 'TIME_WAIT', '', 1002)])
    expect(inShort(result)).toEqual([
      '#1 entry ESTABLISHED ESTABLISHED',
      '#2 update FIN_WAIT ESTABLISHED null>FIN_WAIT',
      '#3 entry ESTABLISHED ESTABLISHED',
      '#4 update TIME_WAIT ESTABLISHED null>TIME_WAIT',
      '#5 update TIME_WAIT ESTABLISHED null>TIME_WAIT',
    ])
    expect(result.tracker.forgotten).toBe(2)
  })

  test('are forgotten as time goes on, also where nobody asks for them', async () => {
    const pieces = [[row(5, 'ESTABLISHED'), row(50, 'ESTABLISHED', 1001)], [begun(6, '', 1002)]]
    const { tracker } = await runPieces(pieces.map((lines) => Buffer.from(text(lines))))
    expect([tracker.forgotten, tracker.table.size, tracker.table.rowsOnly]).toEqual([1, 2, 1])
  })

  test.each([
    ['the closing summary after the rows', [row(60, 'ESTABLISHED'), row(60, 'ESTABLISHED', 1001), shown(2)], [row(60, 'ESTABLISHED', 1001), shown(1)]],
    ['the closing summary before its rows', [shown(2), row(60, 'ESTABLISHED'), row(60, 'ESTABLISHED', 1001)], [shown(1), row(60, 'ESTABLISHED', 1001)]],
  ])('are forgotten by a later dump without them: %s', async (_, first, second) => {
    const { tracker } = await run([...first, ...second])
    expect([tracker.forgotten, tracker.table.size]).toEqual([1, 1])
  })

  test('are forgotten by a later dump in XML without them', async () => {
    const xml = (n: number): string =>
      `<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>${n}</sport><dport>80</dport></layer4></meta>` +
      `<meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>80</sport><dport>${n}</dport></layer4></meta>` +
      `<meta direction="independent"><state>ESTABLISHED</state><timeout>60</timeout><id>${n}</id><assured/></meta></flow>`
    const dump = (...ports: number[]): string[] => ['<?xml version="1.0" encoding="utf-8"?>', '<conntrack>', ...ports.map(xml), '</conntrack>']
    const { tracker } = await run([...dump(1000, 1001, 1002), ...dump(1002)])
    expect([tracker.forgotten, tracker.table.size]).toEqual([2, 1])
  })

  test('are not forgotten by a dump that shows none of their kind: it may have been filtered', async () => {
    const { tracker } = await run([row(60, 'ESTABLISHED'), shown(1), `udp      17 29 ${answered()} mark=0 use=1`, shown(1)])
    expect([tracker.forgotten, tracker.table.size]).toEqual([0, 2])
  })

  test('with a first event become ordinary: no dump and no timeout ends them', async () => {
    const result = await run([row(5, 'ESTABLISHED'), row(60, 'ESTABLISHED', 1001), shown(2), changed(1, 'ESTABLISHED'), row(60, 'ESTABLISHED', 1001), shown(1), begun(30, '', 1002), ended(40, '9 CLOSE')])
    expect(result.tracker.forgotten).toBe(0)
    expect(inShort(result).filter((line) => line.startsWith('#1 '))).toEqual(['#1 entry ESTABLISHED ESTABLISHED', '#1 update ESTABLISHED ESTABLISHED', '#1 destroy CLOSE ESTABLISHED ESTABLISHED>CLOSE reset -/0'])
  })

  test('end at a destroy, and at a NEW', async () => {
    const result = await run([row(60, 'ESTABLISHED'), ended(1, '59 ESTABLISHED', ' [USERSPACE]'), row(60, 'ESTABLISHED', 1001), begun(1, '', 1001)])
    expect(inShort(result)).toEqual(['#1 entry ESTABLISHED ESTABLISHED', '#1 destroy ESTABLISHED ESTABLISHED deleted -/-', '#2 entry ESTABLISHED ESTABLISHED', '#3 new SYN_SENT NEW null>SYN_SENT'])
    expect([result.tracker.forgotten, result.tracker.table.size]).toEqual([0, 1])
  })
})

describe('an id that is there tells lives with the same tuple apart, however many:', () => {
  const xml = (event: string, src: string, id: number, rest = ''): string => {
    const side = (direction: string, from: string, to: string): string =>
      `<meta direction="${direction}"><layer3 protonum="2" protoname="ipv4"><src>${from}</src><dst>${to}</dst></layer3><layer4 protonum="1" protoname="icmp"></layer4></meta>`
    return `<flow type="${event}">${side('original', src, '10.0.0.2')}${side('reply', '10.0.0.2', src)}<meta direction="independent"><timeout>30</timeout><id>${id}</id>${rest}</meta></flow>`
  }
  const udp = (tag: string, id: number, tuples: string): string => on(0, tag, `udp      17 ${tag === 'DESTROY' ? '' : '30 '}${tuples} id=${id}`)

  test.each<[string, (event: 'new' | 'update' | 'destroy', id: number) => string]>([
    ['pings in XML', (event, id) => xml(event, '10.0.0.1', id, event === 'new' ? '<unreplied/>' : '')],
    ['text with ids', (event, id) => udp(event.toUpperCase(), id, event === 'new' ? asked() : answered())],
    ['over IPv6', (event, id) => udp(event.toUpperCase(), id, event === 'new' ? 'src=fd00::1 dst=fd00::2 sport=1 dport=2 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=2 dport=1' : 'src=fd00::1 dst=fd00::2 sport=1 dport=2 src=fd00::2 dst=fd00::1 sport=2 dport=1')],
  ])('%s', async (_, line) => {
    const ids = Array.from({ length: 3000 }, (_, i) => (i * 2654435761) >>> 0)
    // the ends come in another order than the beginnings
    const ended = [...ids].sort((a, b) => ((a * 40503) & 0xffff) - ((b * 40503) & 0xffff))
    const result = await run([...ids.map((id) => line('new', id)), ...ids.map((id) => line('update', id)), ...ended.map((id) => line('destroy', id))])
    const flows = new Map<number, Set<string>>()
    const events = new Map<string, number>()
    for (const text of result.lines) {
      const { id, flow, event } = JSON.parse(text) as { id: number; flow: string; event: string }
      flows.set(id, (flows.get(id) ?? new Set()).add(flow))
      events.set(event, (events.get(event) ?? 0) + 1)
    }
    expect(flows.size).toBe(ids.length)
    expect(new Set([...flows.values()].map((names) => [...names].join())).size).toBe(ids.length)
    expect([...flows.values()].every((names) => names.size === 1)).toBe(true)
    expect(Object.fromEntries(events)).toEqual({ new: 3000, update: 3000, destroy: 3000 })
    expect([result.tally.gaps, result.tracker.displaced, result.tracker.table.size]).toEqual([0, 0, 0])
  })

  test('the limit on flows holds for them too', async () => {
    const { tracker, tally } = await run(Array.from({ length: 500 }, (_, i) => xml('new', '10.0.0.1', i + 1, '<unreplied/>')), { flowsMax: 100 })
    expect([tracker.table.size, tracker.displaced, tally.gaps]).toEqual([100, 400, 1])
  })
})

describe('at the limit', () => {
  test('the flow that is unchanged longest goes, is counted and told in a gap', async () => {
    const result = await run([begun(0, '', 1), begun(1, '', 2), begun(2, '', 3), changed(2.5, 'ESTABLISHED', '', 1), begun(3, '', 4), ended(4, 'SYN_SENT', '', 2), ended(4, 'ESTABLISHED', '', 1)], { flowsMax: 3 })
    expect(inShort(result).slice(5)).toEqual(['#5 destroy SYN_SENT ESTABLISHED expired -/-', '#1 destroy ESTABLISHED ESTABLISHED expired 4/1.5'])
    expect([result.tracker.displaced, result.tracker.table.size, result.tally.gaps]).toEqual([1, 2, 1])
    expect(JSON.parse(result.lines.at(-1)!)).toEqual({
      ...{ time: '2026-11-22T12:00:03.000000Z', type: 'gap', v: 1, cause: 'tracker_limit', count: 1 },
      ...{ from: '2026-11-22T12:00:03.000000Z', to: '2026-11-22T12:00:03.000000Z' },
    })
  })

  test('a flow known from rows only goes first', async () => {
    const { tracker, lines } = await run([begun(0, '', 1), row(600, 'ESTABLISHED', 2), begun(2, '', 3), ended(4, 'SYN_SENT', '', 1)], { flowsMax: 2 })
    expect([tracker.displaced, tracker.table.size, tracker.table.rowsOnly]).toEqual([1, 1, 0])
    expect(lines).toHaveLength(5)
  })

  test('one gap at most in ten seconds, and they add up', async () => {
    const pieces = Array.from({ length: 30 }, (_, i) => Buffer.from(text([begun(i, '', i + 1)])))
    const { lines, tracker } = await runPieces(pieces, { flowsMax: 4, emit: ['gap'] })
    const gaps = lines.map((line) => JSON.parse(line) as { count: number })
    expect(gaps.reduce((sum, gap) => sum + gap.count, 0)).toBe(26)
    expect([tracker.displaced, gaps.length]).toEqual([26, 3])
  })
})

describe('RELATED', () => {
  const M = 'mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.0.0.9 master-dst=10.0.0.2 sport=4000 dport=21'
  const expectation = (seconds: number, tag: string, timeout: string, flags = ''): string => on(seconds, tag, `${timeout} proto=6 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=80 ${M}${flags} class=0 helper=ftp`.trim())
  const ctstates = async (...lines: string[]): Promise<string> => (await run(lines)).lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter((r) => r['type'] === 'flow').map((r) => r['ctstate']).join(' ')
  const waiting = (seconds: number, n = 1000): string => on(seconds, 'UPDATE', `tcp      6 120 SYN_SENT ${asked(n)} mark=1`)

  test.each([
    ['never without an expectation', [begun(0), changed(1, 'SYN_RECV')], 'NEW ESTABLISHED'],
    ['while the expectation lives, until the answer', [expectation(0, 'NEW', '300'), begun(9), waiting(9), changed(9, 'SYN_RECV'), ended(10, '9 CLOSE')], 'RELATED RELATED ESTABLISHED ESTABLISHED'],
    ['by a row of -L expect too', [`300 proto=6 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=80 ${M} class=0 helper=ftp`, begun(9)], 'RELATED'],
    ['not after its timeout', [expectation(0, 'NEW', '5'), begun(9)], 'NEW'],
    ['less than a second after it was destroyed', [expectation(0, 'NEW', '300'), expectation(8.1, 'DESTROY', '291'), begun(9)], 'RELATED'],
    ['not a second after', [expectation(0, 'NEW', '300'), expectation(8, 'DESTROY', '292'), begun(9)], 'NEW'],
    ['of an expectation known from its end alone', [expectation(8.5, 'DESTROY', '292'), begun(9)], 'RELATED'],
    ['not of one that ran out', [expectation(0, 'NEW', '5'), expectation(5.5, 'DESTROY', ''), begun(6)], 'NEW'],
    ['once where it is for one flow', [expectation(0, 'NEW', '300'), begun(1), begun(2, '', 1001)], 'RELATED NEW'],
    ['every time where it is PERMANENT', [expectation(0, 'NEW', '300', ' PERMANENT'), begun(1), begun(2, '', 1001)], 'RELATED RELATED'],
    ['once also where its end comes after NEW', [expectation(0, 'NEW', '300'), begun(1), expectation(1.2, 'DESTROY', '298'), begun(1.5, '', 1001)], 'RELATED NEW'],
    ['in later records when the expectation comes after NEW', [begun(1), expectation(1.2, 'DESTROY', '299'), waiting(1.5), changed(2, 'SYN_RECV')], 'NEW RELATED ESTABLISHED'],
    ['in later records when both its lines come after NEW', [begun(1), expectation(0.5, 'NEW', '300'), expectation(0.9, 'DESTROY', '299'), waiting(1.5)], 'NEW RELATED'],
    ['not when it ends a second after NEW', [begun(1), expectation(2, 'DESTROY', '299'), waiting(2.5)], 'NEW NEW'],
    ['not for a flow that is answered', [begun(1), changed(1.1, 'SYN_RECV'), expectation(1.2, 'DESTROY', '299'), changed(1.3, 'ESTABLISHED')], 'NEW ESTABLISHED ESTABLISHED'],
    ['through the mask: another port is another matter', [expectation(0, 'NEW', '300').replace('sport=0 dport=80 mask', 'sport=0 dport=81 mask'), begun(1)], 'NEW'],
    ['through the mask: a masked source port counts', [expectation(0, 'NEW', '300').replace('sport=0 dport=80 mask', 'sport=999 dport=80 mask').replace('sport=0 dport=65535', 'sport=65535 dport=65535'), begun(1)], 'NEW'],
    ['through the mask: any source', [expectation(0, 'NEW', '300').replace('src=10.0.0.1', 'src=0.0.0.0').replace('mask-src=255.255.255.255', 'mask-src=0.0.0.0'), begun(1)], 'RELATED'],
    ['not of another protocol', [expectation(0, 'NEW', '300').replace('proto=6', 'proto=17'), begun(1)], 'NEW'],
  ])('%s', async (_, lines, want) => {
    expect(await ctstates(...lines)).toBe(want)
  })

  test('in -o save the EXPECTED bit decides alone', async () => {
    const save = (command: string, bits: string, n = 1000): string => `-${command} -t 120 -u ${bits} -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport ${n} --dport 80 --reply-port-src 80 --reply-port-dst ${n} --state SYN_SENT`
    expect(await ctstates(save('A', 'EXPECTED'), save('U', 'EXPECTED'), save('U', 'EXPECTED,SEEN_REPLY'), save('D', 'EXPECTED', 1001))).toBe('RELATED RELATED ESTABLISHED RELATED')
    expect(await ctstates(expectation(0, 'NEW', '300'), save('A', 'UNSET'))).toBe('NEW')
    // the bit holds for the flow in forms that do not show it
    expect(await ctstates(save('A', 'EXPECTED'), waiting(1))).toBe('RELATED RELATED')
  })
})
