/**
 * The program on the real kernel: connections whose kind the test knows, opened through a router
 * whose `conntrack -E` feeds it. Each must show exactly the states, translation and end of its row
 * in KINDS, and nothing else may appear.
 */
import { expect, test } from 'vitest'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { A, kernelTests, required, until, withLab, type Lab } from './namespaces.js'
import { Pipeline, type Flow, type Nat, type Result, type Sums } from './pipeline.js'

const TRAFFIC = fileURLToPath(new URL('traffic.mjs', import.meta.url))
const RAISED = 10_000 // a DNAT address takes this port for the server's
const MAPPED = 21_000 // source ports from here on, up to 50, are translated to ones MAPPED_BY higher
const MAPPED_BY = 10_000

/** The ways through the router, and what each must show as `nat`. */
const ROUTES = {
  snat: { src: A.client, dst: A.server, nat: (c) => ({ kind: 'snat', src: A.router, sport: c.sport }) },
  'snat port': { src: A.client, dst: A.server, nat: (c) => ({ kind: 'snat', src: A.router, sport: c.sport + MAPPED_BY }) },
  dnat: { src: A.client, dst: A.vipDnat, nat: (c) => ({ kind: 'dnat', dst: A.direct, dport: c.dport - RAISED }) },
  both: { src: A.client, dst: A.vipBoth, nat: (c) => ({ kind: 'both', src: A.router, sport: c.sport, dst: A.server, dport: c.dport - RAISED }) },
  none: { src: A.client, dst: A.direct, nat: () => undefined },
  ipv6: { src: A.client6, dst: A.server6, nat: () => undefined },
  uplink: { src: A.client, dst: A.far, nat: (c) => ({ kind: 'snat', src: A.uplink, sport: c.sport }) },
} satisfies Record<string, { src: string; dst: string; nat: (c: Connection) => Nat | undefined }>
type Route = keyof typeof ROUTES
const ALL: Route[] = ['snat', 'dnat', 'both', 'ipv6']

const RULES = `
table ip nat {
  chain pre {
    type nat hook prerouting priority -100;
    ${[[A.vipDnat, A.direct], [A.vipBoth, A.server]].flatMap(([vip, to]) => [1, 2, 3].flatMap((n) => [['tcp', 2000 + n], ['udp', 3000 + n]]
      .map(([l4, port]) => `ip daddr ${vip} ${l4} dport ${Number(port) + RAISED} dnat to ${to}:${port}`))).join('\n    ')}
  }
  chain post {
    type nat hook postrouting priority 100;
    ${Array.from({ length: 50 }, (_, n) => `oifname "r1" tcp sport ${MAPPED + n} snat to ${A.router}:${MAPPED + MAPPED_BY + n}`).join('\n    ')}
    oifname "r1" ip daddr != ${A.direct} masquerade
    oifname "r2" masquerade
  }
}
table inet filter {
  chain forward { type filter hook forward priority 0; ct state invalid drop; }
}`
const SILENT = `
table inet filter {
  chain input { type filter hook input priority 0; tcp dport 2003 drop; }
}`

/** One row a kind: the port that behaves so, the ways it is tried on, how often on each, and what must come out. */
const HANDSHAKE = ['SYN_SENT', 'SYN_RECV', 'ESTABLISHED']
const CLOSING = ['FIN_WAIT', 'CLOSE_WAIT', 'LAST_ACK', 'TIME_WAIT']
const KINDS: [protocol: 'tcp' | 'udp' | 'icmp', kind: string, port: number, routes: Route[], each: number, states: string[], reason: string][] = [
  ['udp', 'stream', 3001, ALL, 4, ['UNREPLIED', 'REPLIED', 'ASSURED'], 'expired'], // first: takes the longest
  ['tcp', 'closed-by-client', 2001, [...ALL, 'snat port', 'none'], 6, [...HANDSHAKE, ...CLOSING], 'closed'],
  ['tcp', 'closed-by-server', 2001, [...ALL, 'snat port'], 6, [...HANDSHAKE, ...CLOSING], 'closed'],
  ['tcp', 'reset-by-server', 2001, ALL, 6, [...HANDSHAKE, 'CLOSE'], 'reset'],
  ['tcp', 'reset-by-client', 2001, ALL, 6, [...HANDSHAKE, 'CLOSE'], 'reset'],
  ['tcp', 'refused', 2002, ALL, 6, ['SYN_SENT', 'CLOSE'], 'refused'],
  ['tcp', 'unanswered', 2003, ALL, 4, ['SYN_SENT'], 'expired'],
  ['tcp', 'left idle', 2001, ALL, 3, HANDSHAKE, 'expired'],
  ['udp', 'unanswered', 3002, ALL, 4, ['UNREPLIED'], 'expired'],
  ['udp', 'unanswered', 3003, ALL, 3, ['UNREPLIED'], 'expired'], // closed port: the ICMP error is part of the flow
  ['udp', 'answered', 3001, ALL, 5, ['UNREPLIED', 'REPLIED'], 'expired'],
  ['icmp', 'echo', 0, ['snat', 'ipv6'], 5, ['UNREPLIED', 'REPLIED'], 'expired'],
  ['tcp', 'deleted', 2001, ALL, 3, HANDSHAKE, 'deleted'],
  ['udp', 'deleted', 3001, ALL, 3, ['UNREPLIED', 'REPLIED'], 'deleted'],
  ['udp', 'unanswered', 3002, ['uplink'], 5, ['UNREPLIED'], 'removed'], // the masquerading interface goes down
]

interface Connection { protocol: string; kind: string; src: string; dst: string; sport: number; dport: number; lives?: number; between?: number }
interface Expected extends Connection { route: Route; states: string[]; reason: string }

function plan(): Expected[] {
  let sport = 30_000, mapped = MAPPED, any = 1
  return KINDS.flatMap(([protocol, kind, port, routes, each, states, reason]) => routes.flatMap((route) => Array.from({ length: each }, (): Expected => {
    const { src, dst } = ROUTES[route]
    const common = { kind, src, route, states, reason }
    // A ping has no port: its address is its own.
    if (protocol === 'icmp') return { ...common, protocol: route === 'ipv6' ? 'icmpv6' : 'icmp', dst: route === 'ipv6' ? A.any6(++any) : A.any(++any), sport: 0, dport: 0 }
    return { ...common, protocol, dst, sport: route === 'snat port' ? mapped++ : sport++, dport: port + (route === 'dnat' || route === 'both' ? RAISED : 0) }
  })))
}

const key = (protocol: string, t: { src: string; dst: string; sport?: number; dport?: number }) => `${protocol} ${t.src} ${t.sport || '-'} ${t.dst} ${t.dport || '-'}`
const group = <T>(list: T[], by: (x: T) => string) => list.reduce((m, x) => m.set(by(x), [...(m.get(by(x)) ?? []), x]), new Map<string, T[]>())

const seconds = (time: string) => Date.parse(`${time.slice(0, 19)}Z`) / 1000 + Number(`0${time.slice(19, -1)}`)

/** What the records of one life say; each record but the last must be a step from the one before, and the times add up. */
function story(life: Flow[]): { events: string; states: string[]; ctstates: string[]; nat: (Nat | undefined)[]; reason: string | undefined; broken: string[] } {
  const broken: string[] = []
  const near = (what: string, got: number | undefined, want: number | undefined) => {
    if (got === undefined || want === undefined ? got !== want : Math.abs(got - want) > 2e-6) broken.push(`${what} ${got} instead of ${want}`)
  }
  let state: string | null = null, since: number | undefined
  for (const r of life) {
    if (r.transition ? r.transition.from !== state || r.transition.to === state : r.event !== 'destroy') broken.push(`${r.event}: ${JSON.stringify(r.transition)} after ${state}`)
    if (r.transition) {
      near('after', r.transition.after, since === undefined ? since : seconds(r.time) - since)
      state = r.transition.to
      since = seconds(r.time)
    }
    near('idle', r.end?.idle, r.end && seconds(r.time) - since!)
    near('duration', r.end?.duration, r.end && seconds(r.time) - seconds(life[0]!.time))
    if (r.state !== state) broken.push(`${r.event}: state ${r.state} instead of ${state}`)
  }
  const nats = group(life, (r) => JSON.stringify(r.nat)) // the same on all
  return {
    events: life.map((r) => r.event).join(' ').replace(/(update ?)+/, 'update* '),
    states: life.flatMap((r) => r.transition?.to ?? []),
    ctstates: life.map((r) => (r.ctstate === (r.unreplied ? 'NEW' : 'ESTABLISHED') ? 'right' : r.ctstate)).filter((c) => c !== 'right'),
    nat: [...nats.values()].map(([r]) => r!.nat),
    reason: life.at(-1)?.end?.reason,
    broken,
  }
}

/** The program's own sums, against the lines that went in and the records that came out. */
function checkSums({ sums: s, raw, records }: Result): void {
  expect(s.rejected).toBe(0)
  expect(s.lines).toBe(s.flows + s.expects + s.kernel + s.notes + s.ignored + s.rejected)
  expect<Partial<Sums>>(s).toMatchObject({ lines: raw.length, kernel: 0, notes: 0, ignored: 0, written: records.length, flows: records.filter((r) => r.type === 'flow').length })
}

/** Opens connections from the client's namespace and comes back when each has done its part. */
async function open(lab: Lab, list: object[]): Promise<void> {
  const server = lab.startIn('server', process.execPath, TRAFFIC, 'server', A.server, A.direct, A.server6)
  await once(server.stdout, 'data')
  const client = lab.startIn('client', process.execPath, TRAFFIC, 'client')
  client.stdin.write(`${JSON.stringify(list)}\n`)
  const [line] = (await Promise.race([once(client.stdout, 'data'), once(client, 'exit')])) as [Buffer]
  expect(JSON.parse(`${line}`), 'the traffic itself').toEqual({ failed: [] })
}

/** Until the router's table is empty. The kernel's own collector may take a minute; a dump collects at once. */
async function allGone(lab: Lab): Promise<void> {
  let left = ''
  await until('all flows end', 30, async () => (left = await lab.exec('router', 'conntrack', '-L')) === '' && (await lab.exec('router', 'conntrack', '-C')).trim() === '0')
    .catch((e: Error) => { throw new Error(`${e.message}\n${left}`) })
}

if (kernelTests !== 'run' && !required) console.warn(`Tests on the real kernel are skipped: ${kernelTests}`)

const TIMEOUT = { timeout: 600_000 } // the lock may have to be waited for

function kernelTest(name: string, body: (lab: Lab, skip: (why: string) => void) => Promise<void>): void {
  if (kernelTests === 'run') test(name, TIMEOUT, (t) => withLab((lab) => body(lab, (why) => t.skip(why))))
  else if (required) test(name, () => { throw new Error(`CONNTRAIL_REQUIRE_KERNEL_TESTS is set, but: ${kernelTests}`) })
  else test.skip(`${name} (${kernelTests})`, () => {})
}

kernelTest('each connection shows its states, translation and end, and nothing else appears', async (lab) => {
  await lab.nft('router', RULES)
  await lab.nft('server', SILENT)
  const pipeline = new Pipeline(lab, ['-E -o timestamp,id'])
  await pipeline.start()
  const expected = plan()
  expect(expected.length).toBeGreaterThanOrEqual(200)
  await open(lab, expected)
  await lab.exec('router', 'ip', 'link', 'set', 'r2', 'down')
  for (const c of expected.filter((c) => c.reason === 'deleted')) {
    await lab.exec('router', 'conntrack', '-D', '-f', c.route === 'ipv6' ? 'ipv6' : 'ipv4', '-p', c.protocol, '-s', c.src, '-d', c.dst, '--sport', `${c.sport}`, '--dport', `${c.dport}`)
  }
  await allGone(lab)
  const result = await pipeline.stop()

  const tuples = group(result.records, (r) => key(r.protocol, r.orig ?? {}))
  const wrong: unknown[] = []
  for (const c of expected) {
    const life = tuples.get(key(c.protocol, c)) ?? []
    tuples.delete(key(c.protocol, c))
    // A ping's id is the client's choice: it must be kept.
    const nat = c.protocol === 'icmp' ? { kind: 'snat', src: A.router, id: life[0]?.orig.id } : ROUTES[c.route].nat(c)
    const want = { events: c.states.length > 1 ? 'new update* destroy' : 'new destroy', states: c.states, ctstates: [], nat: [nat], reason: c.reason, broken: [], flows: 1 }
    if (c.kind === 'refused') want.events = 'new destroy' // its end brings the second state
    const got = { ...story(life), flows: new Set(life.map((r) => r.flow)).size }
    try { expect(got).toEqual(want) } catch {
      wrong.push({ connection: `${c.protocol} ${c.kind} ${c.route}`, want, got, raw: result.raw.filter((l) => (c.sport ? l.includes(`sport=${c.sport} `) : l.includes(`=${c.dst} `))) })
    }
  }
  expect(wrong.slice(0, 10), `${wrong.length} of ${expected.length} connections differ`).toEqual([])
  expect([...tuples.keys()], 'nobody opened these').toEqual([])
  for (const [flow, rs] of group(result.records, (r) => r.flow)) expect(group(rs, (r) => key(r.protocol, r.orig)).size, `tuples of flow ${flow}`).toBe(1)
  expect(new Set(result.records.map((r) => r.flow)).size).toBe(expected.length)
  checkSums(result)
})

kernelTest('the same tuple and id again within a second are lives of their own', async (lab) => {
  await lab.nft('router', RULES)
  const pipeline = new Pipeline(lab, ['-E -o timestamp,id'])
  await pipeline.start()
  const list = [
    { protocol: 'tcp', kind: 'refused', lives: 40, src: A.client, dst: A.vipBoth, sport: 40_000, dport: 2002 + RAISED, states: ['SYN_SENT', 'CLOSE'], reason: 'refused' },
    // The kernel ends the old life, still in TIME_WAIT, when the port is used again.
    { protocol: 'tcp', kind: 'closed-by-server', lives: 5, between: 60, src: A.client6, dst: A.server6, sport: 40_001, dport: 2001, states: [...HANDSHAKE, ...CLOSING], reason: 'closed' },
  ]
  await open(lab, list)
  await allGone(lab)
  const result = await pipeline.stop()

  const tuples = group(result.records, (r) => key(r.protocol, r.orig))
  expect([...tuples.keys()].sort()).toEqual(list.map((c) => key(c.protocol, c)).sort())
  for (const c of list) {
    const lives = [...group(tuples.get(key(c.protocol, c))!, (r) => r.flow).values()]
    expect(lives.length, c.kind).toBe(c.lives)
    for (const life of lives) {
      expect(story(life)).toMatchObject({ states: c.states, ctstates: [], reason: c.reason, broken: [] })
      expect(group(life, (r) => `${r.id}`).size, 'ids of one life').toBe(1)
    }
    // The point of the test: the kernel gives the same id again at once.
    const again = lives.filter((life, i) => i > 0 && life[0]!.id === lives[i - 1]![0]!.id && Date.parse(life[0]!.time) - Date.parse(lives[i - 1]!.at(-1)!.time) < 1000)
    if (c.kind === 'refused') expect(again.length, 'ids used again within a second').toBeGreaterThan(0)
  }
  checkSums(result)
})

kernelTest('a data connection that the FTP helper expected is RELATED until answered', async (lab, skip) => {
  await lab.nft('router', RULES)
  try {
    await lab.nft('router', `table inet ftp {
      ct helper std { type "ftp" protocol tcp; l3proto ip; }
      chain pre { type filter hook prerouting priority 0; tcp dport 21 ct helper set "std"; }
    }`)
  } catch (e) {
    if (required) throw e
    return skip(`no FTP helper in this kernel: ${(e as Error).message}`)
  }
  const pipeline = new Pipeline(lab, ['-E -o timestamp,id', '-E expect -o timestamp'])
  await pipeline.start()
  // In active mode the server connects, from a port of its own choice.
  const data = [
    { mode: 'port', dport: 41_001 }, { mode: 'pasv', sport: 41_102, dport: 42_002 }, { mode: 'port', dport: 41_003, refused: true },
    { mode: 'pasv', sport: 41_104, dport: 42_004, refused: true }, { mode: 'port', dport: 41_005 }, { mode: 'pasv', sport: 41_106, dport: 42_006 },
  ]
  const control = { protocol: 'ftp', kind: 'ftp', src: A.client, dst: A.direct, sport: 41_000, dport: 21 }
  await open(lab, [{ ...control, data }])
  await allGone(lab)
  const result = await pipeline.stop()

  const flows = result.records.filter((r) => r.type === 'flow')
  const lives = group(flows, (r) => r.flow)
  expect(lives.size).toBe(data.length + 1)
  for (const life of lives.values()) {
    const { sport, dport } = life[0]!.orig
    const d = data.find((d) => d.dport === dport && (d.sport === undefined || d.sport === sport))
    if (d === undefined) expect(key('tcp', life[0]!.orig)).toBe(key('tcp', control))
    else expect(life[0]!.orig).toMatchObject(d.mode === 'port' ? { src: A.direct, dst: A.client } : { src: A.client, dst: A.direct })
    expect(story(life)).toMatchObject({ states: d?.refused ? ['SYN_SENT', 'CLOSE'] : [...HANDSHAKE, ...CLOSING], reason: d?.refused ? 'refused' : 'closed', broken: [] })
    const ctstates = life.map((r) => r.ctstate)
    // Written before the expectation's line came: then, and only then, it could not be known.
    if (d !== undefined && ctstates[0] === 'NEW') ctstates[0] = 'RELATED'
    expect(ctstates, key('tcp', life[0]!.orig)).toEqual(life.map((r) => (r.unreplied ? (d === undefined ? 'NEW' : 'RELATED') : 'ESTABLISHED')))
  }
  const expects = result.records.filter((r) => r.type === 'expect') as unknown as { event: string; helper?: string; tuple: { dport: number }; master: { sport: number } }[]
  expect(expects.map((e) => `${e.event} ${e.tuple.dport} ${e.helper} ${e.master.sport}`).sort())
    .toEqual(data.flatMap((d) => ['destroy', 'new'].map((e) => `${e} ${d.dport} ftp ${control.sport}`)).sort())
  expect(result.sums.expects).toBe(expects.length)
  checkSums(result)
})
