#!/usr/bin/env node
/*
 * Writes `conntrack -E -o timestamp,id,extended` lines as conntrack 1.4.7 prints them on a
 * kernel >= 5.11 with accounting: the input of the benchmark. The same options always give
 * the same bytes.
 *
 *   node generate.mjs [--lines 2000000] [--live 100000] [--flows N] [--seed 1] [--v6 0.2]
 *                     [--cut] [--out FILE]
 *   node generate.mjs --grow N [--updates M] [--v6 0.5] [--seed 1] [--out FILE]
 *
 * A quarter of the flows is UDP (3 lines), 4 % ICMP (3 lines), the rest TCP: most with their
 * whole life (7 lines, 8 with CLOSE_WAIT), some refused, reset or never answered. A flow has 6
 * lines on average, so 2 million lines are 330 thousand flows. At first flows only come, until
 * --live of them are there; then the next line belongs to one of these picked at random, and a
 * flow that ends makes room for a new one; in the end (the last sixth of the default file) the
 * flows that are left live to their end. --cut stops at --lines without that, so that --live
 * flows are there to the last line. --flows ends the coming of new flows by their number
 * (alone, --lines no longer counts).
 *
 * A tenth of the flows has the tuple of one that ended before, a third of these its id as well,
 * half of them within a moment. A sixth of the IPv4 flows is behind SNAT, some with another port.
 *
 * --grow writes N new flows and nothing else, then M updates of flows picked at random; none ends.
 *
 * stderr gets one JSON line: lines, flows, bytes, ended, reused, v6 (flows), seconds.
 */
import { openSync, writeSync, closeSync } from 'node:fs';
import { parseArgs } from 'node:util';

const { values: opt } = parseArgs({
  options: {
    lines: { type: 'string' },
    live: { type: 'string', default: '100000' },
    flows: { type: 'string' },
    seed: { type: 'string', default: '1' },
    v6: { type: 'string' },
    cut: { type: 'boolean', default: false },
    grow: { type: 'string' },
    updates: { type: 'string', default: '0' },
    out: { type: 'string' },
  },
});
const grow = opt.grow === undefined ? 0 : count('grow', opt.grow);
const updates = count('updates', opt.updates);
const maxFlows = opt.flows === undefined ? Infinity : count('flows', opt.flows);
const maxLines = grow ? grow + updates
  : opt.lines !== undefined ? count('lines', opt.lines) : opt.flows !== undefined ? Infinity : 2_000_000;
const live = grow || count('live', opt.live);
const v6Share = Number(opt.v6 ?? (grow ? 0.5 : 0.2));
if (!(v6Share >= 0 && v6Share <= 1)) fail('--v6 wants a share from 0 to 1');
if (live < 1) fail('--live wants at least 1');

// ---- lives: the lines of each kind of flow and how frequent it is

const NEW = '    [NEW]', UPDATE = ' [UPDATE]', DESTROY = '[DESTROY]';
const protocolWords = [
  ['ipv4     2 tcp      6 ', 'ipv4     2 udp      17 ', 'ipv4     2 icmp     1 '],
  ['ipv6     10 tcp      6 ', 'ipv6     10 udp      17 ', 'ipv6     10 icmpv6   58 '],
];
const step = (tag, state, unreplied, assured) => ({
  words: protocolWords.map((family) => family.map((protocol) => `]\t${tag} ${protocol}${state}${state && ' '}`)),
  unreplied: unreplied ? '[UNREPLIED] ' : '',
  assured: assured ? '[ASSURED] id=' : 'id=',
  counters: tag === DESTROY,
  killed: state === '120 CLOSE',
});
const opening = [
  step(NEW, '120 SYN_SENT', true),
  step(UPDATE, '60 SYN_RECV'),
  step(UPDATE, '432000 ESTABLISHED', false, true),
];
const closing = [
  step(UPDATE, '30 LAST_ACK', false, true),
  step(UPDATE, '120 TIME_WAIT', false, true),
  step(DESTROY, 'TIME_WAIT', false, true),
];
const datagrams = [step(NEW, '30', true), step(UPDATE, '30'), step(DESTROY, '')];
const TCP = 0, UDP = 1, ICMP = 2;
const kinds = [
  { share: 0.25, protocol: UDP, steps: datagrams },
  { share: 0.04, protocol: ICMP, steps: datagrams },
  { share: 0.02, protocol: TCP, steps: [opening[0], step(DESTROY, '120 CLOSE', true)], small: true }, // killed by RST
  { share: 0.01, protocol: TCP, steps: [opening[0], step(DESTROY, 'SYN_SENT', true)], small: true }, // never answered
  { share: 0.03, protocol: TCP, steps: [...opening, step(UPDATE, '10 CLOSE', false, true), step(DESTROY, 'CLOSE', false, true)] },
  { share: 0.23, protocol: TCP, steps: [...opening, step(UPDATE, '120 FIN_WAIT', false, true), ...closing] },
  { share: 0.42, protocol: TCP, steps: [...opening, step(UPDATE, '120 FIN_WAIT', false, true), step(UPDATE, '60 CLOSE_WAIT', false, true), ...closing] },
];
const kindOf = new Uint8Array(1000); // thousandths of a random number -> kind
for (let i = 0, k = 0, upTo = 0; i < 1000; i++) {
  while (k < kinds.length - 1 && i >= Math.round((upTo + kinds[k].share) * 1000)) upTo += kinds[k++].share;
  kindOf[i] = k;
}

// ---- random numbers (xorshift32 with a multiplication behind it: quick, the same on every machine)

let seed = Math.imul(Number(opt.seed) | 0, 0x9e3779b1) ^ 0x5bd1e995 || 1;
function random() {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return Math.imul(seed, 0x2c1b3c6d) >>> 0;
}
const below = (n) => Math.floor((random() / 4294967296) * n);

// ---- the live flows, one slot each; a slot is 24 bytes, so a million of them is no matter

const kind = new Uint8Array(live);
const at = new Uint8Array(live); // the next step
const six = new Uint8Array(live);
const nat = new Uint8Array(live); // 0 none, else the gateway's address + 1
const client = new Uint32Array(live);
const server = new Uint32Array(live);
const sport = new Uint16Array(live); // of ICMP: the echo id
const dport = new Uint16Array(live);
const nport = new Uint16Array(live); // the port behind NAT
const id = new Uint32Array(live);

// ---- flows that ended and whose tuple may come again

const ENDED = 65536;
const ended = { n: 0, kind: new Uint8Array(ENDED), six: new Uint8Array(ENDED), nat: new Uint8Array(ENDED), client: new Uint32Array(ENDED),
  server: new Uint32Array(ENDED), sport: new Uint16Array(ENDED), dport: new Uint16Array(ENDED), nport: new Uint16Array(ENDED), id: new Uint32Array(ENDED) };

function remember(slot) {
  const i = ended.n < ENDED ? ended.n++ : below(ENDED);
  ended.kind[i] = kind[slot]; ended.six[i] = six[slot]; ended.nat[i] = nat[slot]; ended.client[i] = client[slot];
  ended.server[i] = server[slot]; ended.sport[i] = sport[slot]; ended.dport[i] = dport[slot]; ended.nport[i] = nport[slot]; ended.id[i] = id[slot];
}

function reuse(slot) {
  const i = random() & 1 ? ended.n - 1 : below(ended.n);
  kind[slot] = ended.kind[i]; six[slot] = ended.six[i]; nat[slot] = ended.nat[i]; client[slot] = ended.client[i];
  server[slot] = ended.server[i]; sport[slot] = ended.sport[i]; dport[slot] = ended.dport[i]; nport[slot] = ended.nport[i];
  id[slot] = below(3) === 0 ? ended.id[i] : random();
  const last = --ended.n; // taken out, so no tuple is live twice
  ended.kind[i] = ended.kind[last]; ended.six[i] = ended.six[last]; ended.nat[i] = ended.nat[last]; ended.client[i] = ended.client[last];
  ended.server[i] = ended.server[last]; ended.sport[i] = ended.sport[last]; ended.dport[i] = ended.dport[last];
  ended.nport[i] = ended.nport[last]; ended.id[i] = ended.id[last];
}

const tcpPorts = [443, 443, 443, 80, 8080, 22, 993, 5432], udpPorts = [53, 53, 443, 123, 5353, 51820, 3478, 161];
// a tenth of all flows: flows of the first filling cannot be reused ones, the others make up for it
const flowsExpected = Number.isFinite(maxLines) ? maxLines / 6.05 + (opt.cut ? live / 2 : 0) : maxFlows;
const reuseShare = grow || flowsExpected <= live ? 0.1 : Math.min(0.3, 0.1 * flowsExpected / (flowsExpected - live));
let flows = 0, reused = 0, sixes = 0, finished = 0;

function open(slot) {
  flows++;
  at[slot] = 0;
  if (ended.n > 0 && below(1000) < reuseShare * 1000) {
    reused++;
    reuse(slot);
  } else {
    do kind[slot] = kindOf[below(1000)];
    while (grow && kinds[kind[slot]].small); // these have no update
    const { protocol } = kinds[kind[slot]];
    six[slot] = below(1000) < v6Share * 1000 ? 1 : 0;
    client[slot] = below(32768);
    server[slot] = below(4096);
    sport[slot] = protocol === ICMP ? 1 + below(65535) : 32768 + below(28232);
    dport[slot] = (protocol === UDP ? udpPorts : tcpPorts)[random() & 7];
    nat[slot] = six[slot] === 0 && below(6) === 0 ? 1 + below(4) : 0;
    nport[slot] = nat[slot] !== 0 && below(4) === 0 ? 1024 + below(64512) : sport[slot];
    id[slot] = random();
  }
  sixes += six[slot];
}

// ---- text: every piece of a line that can be made once

const range = (n, piece) => Array.from({ length: n }, (_, i) => piece(i));
const hex = (n) => n.toString(16);
const clients4 = range(32768, (i) => `10.${(i >> 11) * 7 + 3}.${(i >> 5) & 63}.${(i & 31) * 8 + 2}`);
const servers4 = range(4096, (i) => `198.${18 + (i & 1)}.${(i >> 1) & 255}.${(i >> 9) * 31 + 5}`);
const clients6 = range(32768, (i) => i & 1 // hosts that made their address up, and short ones given by hand
  ? `2001:db8:${hex(0x1a00 + (i >> 10))}:${hex(1 + (i & 15))}:${hex(1 + (Math.imul(i, 40503) & 0x7fff))}:${hex(0x8000 + i)}:${hex(1 + (Math.imul(i, 25173) & 0xfffe))}:${hex(1 + i)}`
  : `2001:db8:${hex(0x1a00 + (i >> 10))}::${hex(1 + i)}`);
const servers6 = range(4096, (i) => `2001:db8:f00d:${hex(1 + (i & 63))}::${hex(16 + (i >> 6))}`);
const gateways = ['203.0.113.1', '203.0.113.2', '203.0.113.33', '203.0.113.254'];
const source = (address) => `src=${address} dst=`;
const clients = [clients4, clients6], clientSources = [clients4.map(source), clients6.map(source)];
const servers = [servers4, servers6], serverSources = [servers4.map(source), servers6.map(source)];
const numbers = range(65536, (i) => `${i} `);
const sports = range(65536, (i) => ` sport=${i} dport=`);
const echoes = [[' type=8 code=0 id=', ' type=0 code=0 id='], [' type=128 code=0 id=', ' type=129 code=0 id=']];
const digits3 = range(1000, (i) => String(i).padStart(3, '0'));

// ---- output: whole chunks, each written to its end before the next is made

const fd = opt.out === undefined ? 1 : openSync(opt.out, 'w');
const CHUNK = 1 << 20, GROUP = 64, LONGEST = 512; // lines go into the chunk in groups, short enough for the cache
const chunk = Buffer.allocUnsafe(CHUNK + GROUP * LONGEST);
let text = '', textLines = 0, fill = 0, bytes = 0;

function gather() {
  fill += chunk.latin1Write(text, fill);
  text = '';
  textLines = 0;
  if (fill >= CHUNK) flush();
}

function flush() {
  for (let done = 0; done < fill;) {
    try {
      done += writeSync(fd, chunk, done, fill - done);
    } catch (error) {
      if (error.code === 'EPIPE') process.exit(0);
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); // somebody made the pipe non-blocking
    }
  }
  bytes += fill;
  fill = 0;
}

let second = 1795341512, milli = 324, micro = 184, stamp = `[${second}.`;

/** Prints the next line of the flow in `slot`; true when that was its last. */
function line(slot) {
  const gap = random(); // mostly some microseconds, now and then a millisecond: about 10 thousand lines a second
  micro += (gap & 15) === 0 ? 1 + ((gap >>> 8) % 2400) : 1 + ((gap >>> 8) % 50);
  while (micro >= 1000) {
    micro -= 1000;
    if (++milli === 1000) {
      milli = 0;
      stamp = `[${++second}.`;
    }
  }
  const { protocol, steps, small } = kinds[kind[slot]];
  const s = steps[at[slot]++];
  const v6 = six[slot], c = client[slot], d = server[slot];
  let counted = '', replies = '';
  if (s.counters) {
    if (small) {
      counted = v6 ? 'packets=1 bytes=80 ' : 'packets=1 bytes=60 ';
      replies = s.killed ? (v6 ? 'packets=1 bytes=60 ' : 'packets=1 bytes=40 ') : 'packets=0 bytes=0 ';
    } else {
      const r = random(), size = 1 + (r & 3) * ((r >>> 2) & 63), reply = 1 + ((r >>> 8) & 3) * ((r >>> 10) & 255);
      counted = 'packets=' + numbers[size + 3] + 'bytes=' + (size * (40 + (r >>> 24)) + 84) + ' ';
      replies = 'packets=' + numbers[reply + 2] + 'bytes=' + (reply * (60 + (r >>> 22)) + 84) + ' ';
    }
  }
  const icmp = protocol === ICMP;
  text += stamp + digits3[milli] + digits3[micro] + s.words[v6][protocol] + clientSources[v6][c] + servers[v6][d]
    + (icmp ? echoes[v6][0] : sports[sport[slot]]) + numbers[icmp ? sport[slot] : dport[slot]] + counted + s.unreplied
    + serverSources[v6][d] + (nat[slot] === 0 ? clients[v6][c] : gateways[nat[slot] - 1])
    + (icmp ? echoes[v6][1] : sports[dport[slot]]) + numbers[nport[slot]] + replies + s.assured + id[slot] + '\n';
  if (++textLines === GROUP) gather();
  return at[slot] === steps.length;
}

// ---- the stream

const begun = process.hrtime.bigint();
let lines = 0, used = 0;
if (grow) {
  for (; used < grow; lines++) {
    open(used);
    line(used);
    used++;
  }
  for (let i = 0; i < updates; i++, lines++) {
    const slot = below(grow), steps = kinds[kind[slot]].steps;
    if (at[slot] === steps.length - 1) at[slot]--; // no end: the last state once more
    line(slot);
  }
} else {
  let owed = 0; // lines that the live flows still have to come
  while (lines < maxLines) {
    const room = used < live && flows < maxFlows && (opt.cut || lines + owed < maxLines);
    let slot;
    if (room) {
      slot = used++;
      open(slot);
      owed += kinds[kind[slot]].steps.length;
    } else {
      if (used === 0) break;
      slot = below(used);
    }
    owed--;
    lines++;
    if (line(slot)) {
      finished++;
      remember(slot);
      if (slot !== --used) move(used, slot);
    }
  }
}
gather();
flush();
if (fd !== 1) closeSync(fd);
const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
process.stderr.write(JSON.stringify({ lines, flows, bytes, ended: finished, reused, v6: sixes, seconds }) + '\n');

function move(a, b) {
  kind[b] = kind[a]; at[b] = at[a]; six[b] = six[a]; nat[b] = nat[a]; client[b] = client[a]; server[b] = server[a];
  sport[b] = sport[a]; dport[b] = dport[a]; nport[b] = nport[a]; id[b] = id[a];
}

function count(name, text) {
  const n = Number(text);
  if (!Number.isSafeInteger(n) || n < 0) fail(`--${name} wants a whole number`);
  return n;
}

function fail(why) {
  process.stderr.write(`generate: ${why}\n`);
  process.exit(2);
}
