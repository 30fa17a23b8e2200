/*
 * The program on a live stream: the time to its first record, its share of a core at ten thousand
 * lines a second with one line a write(2), and its memory while nobody reads what it writes.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, read, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { checkSums, cpuSeconds, finish, firstLine, linesFile, median, memory, openPipe, PATIENCE, spread, startProgram } from './machine.mjs';

const writer = fileURLToPath(new URL('write-slowly.mjs', import.meta.url));

/** First record on stdout against the end of `node -e 0`; one line of input, stdin left open. */
export async function start(bench) {
  const runs = Math.max(7, bench.runs);
  const line = Buffer.from(firstLine(linesFile(bench, ['--lines', 100_000, '--live', 1000])) + '\n');
  const bare = [], first = [];
  for (let run = 0; run < runs; run++) {
    bench.note(`start ${run + 1}/${runs}`);
    bare.push(await bareNode());
    first.push(await firstRecord(bench, line));
  }
  const figures = { node: spread(bare), first_record: spread(first), later_ms: median(first) - median(bare) };
  const row = (name, s) => [name, s.median.toFixed(1), `${s.min.toFixed(1)} - ${s.max.toFixed(1)}`];
  bench.table(`Start: ${runs} alternating starts`, ['', 'ms', 'least - most'], [row('node -e 0 ends', figures.node), row('first record on stdout', figures.first_record)]);
  bench.verdict('first record later than `node -e 0` ends, ms', figures.later_ms, { atMost: 110, digits: 1 });
  return figures;
}

function bareNode() {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    spawn(process.execPath, ['-e', '0'], { stdio: 'ignore' }).on('error', reject).on('exit', () => resolve(performance.now() - began));
  });
}

async function firstRecord(bench, line) {
  const input = openPipe(bench), output = openPipe(bench);
  writeSync(input.write, line);
  const program = startProgram(bench, input.read, output.write);
  closeSync(input.read);
  closeSync(output.write);
  const buffer = Buffer.alloc(65536);
  const next = () => new Promise((resolve, reject) => read(output.read, buffer, 0, buffer.length, null, (e, n) => (e ? reject(e) : resolve(n))));
  let n;
  do n = await next();
  while (n > 0 && buffer.indexOf(10) === -1);
  const at = performance.now();
  if (n === 0) throw new Error(`the program ended without a record: ${program.stderr().slice(-2000)}`);
  closeSync(input.write);
  await finish(program);
  closeSync(output.read);
  return at - program.began;
}

/** CPU share at 10,000 lines a second, one line a write. */
export async function slow(bench) {
  const rate = 10_000, seconds = bench.quick ? 3 : 10;
  const file = linesFile(bench, ['--lines', rate * seconds, '--live', 5_000]);
  const cases = [
    { name: 'evenly, /dev/null out', group: 1, pipe: false },
    { name: 'evenly, pipe out', group: 1, pipe: true },
    { name: 'ten in a row each ms, pipe out', group: 10, pipe: true },
  ];
  for (const c of cases) {
    bench.note(`slow: ${c.name}`);
    Object.assign(c, await trickle(bench, file, rate, seconds, c));
  }
  bench.table(`Live stream: ${rate.toLocaleString('en')} lines a second, one line a write, ${seconds} s`,
    ['', '% of a core', 'start-up included', 'lines/s sent'],
    cases.map((c) => [c.name, (c.share * 100).toFixed(1), (c.share_with_start * 100).toFixed(1), c.sent_per_second.toFixed(0)]));
  bench.verdict('share of a core, the largest of these, %', Math.max(...cases.map((c) => c.share)) * 100, { atMost: 35, goal: 15, digits: 1 });
  return cases;
}

async function trickle(bench, file, rate, seconds, { group, pipe }) {
  const input = openPipe(bench), output = pipe ? openPipe(bench) : { write: openSync('/dev/null', 'w') };
  const program = startProgram(bench, input.read, output.write);
  const reader = pipe ? spawn('cat', [], { stdio: [output.read, 'ignore', 'inherit'] }) : undefined;
  closeSync(input.read);
  closeSync(output.write);
  if (pipe) closeSync(output.read);
  await sleep(500); // started and waiting for input
  const before = cpuSeconds(program.pid);
  const child = spawn(process.execPath, [writer, file, String(rate), String(group)], { stdio: ['ignore', input.write, 'pipe'] });
  closeSync(input.write); // the writer has it now: when it ends, the input ends
  let said = '', total;
  child.stderr.on('data', (data) => (said += data));
  const closed = new Promise((resolve) => child.on('close', resolve));
  // the process is gone soon after the last line, so its time is read just before
  while (child.exitCode === null && child.signalCode === null) {
    try {
      total = cpuSeconds(program.pid);
    } catch { /* it has just ended */ }
    await sleep(20);
  }
  await closed;
  await finish(program);
  if (reader) await new Promise((resolve) => (reader.exitCode === null ? reader.on('exit', resolve) : resolve()));
  const { lines, seconds: took } = JSON.parse(said);
  checkSums(program.stderr(), lines);
  return { share: (total - before) / took, share_with_start: total / took, sent_per_second: lines / took };
}

/** `yes LINE | head -n COUNT | program | (sleep 20; wc -l)`, with the resident memory from the third second of the sleep to its end. */
export async function stall(bench) {
  const count = bench.quick ? 2_000_000 : 20_000_000, pause = 20;
  const line = firstLine(linesFile(bench, ['--lines', 100_000, '--live', 1000]), (text) => text.includes('ESTABLISHED'));
  bench.note(`stall: ${count} lines, the reader sleeps ${pause} s`);
  const pidFile = join(bench.dir, `pid-${process.pid}`);
  const began = performance.now();
  const shell = spawn('bash', ['-c', `set -o pipefail; ulimit -t ${PATIENCE}
    yes "$LINE" | head -n ${count} | { echo "$BASHPID" > "$PID_FILE"; exec "$NODE" "$MAIN" 2> "$ERRORS"; } | (sleep ${pause}; wc -l)`], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, LINE: line, PID_FILE: pidFile, ERRORS: `${pidFile}.stderr`, NODE: process.execPath, MAIN: bench.program },
  });
  let said = '';
  shell.stdout.on('data', (data) => (said += data));
  const ended = new Promise((resolve) => shell.on('close', () => resolve(performance.now())));
  const samples = [];
  await sleep(3000 - (performance.now() - began));
  const pid = Number(readFileSync(pidFile, 'latin1'));
  while (performance.now() - began < pause * 1000) {
    samples.push(memory(pid, 'VmRSS'));
    await sleep(100);
  }
  const seconds = ((await ended) - began) / 1000, arrived = Number(said);
  checkSums(readFileSync(`${pidFile}.stderr`, 'utf8'), count);
  for (const path of [pidFile, `${pidFile}.stderr`]) rmSync(path);
  const MiB = (n) => n / 2 ** 20, { min, max } = spread(samples);
  const figures = { count, arrived, min_mib: MiB(min), max_mib: MiB(max), difference_mib: MiB(max - min), samples: samples.length, seconds };
  bench.table(`Stalled reader: ${count.toLocaleString('en')} lines, nobody reads for ${pause} s`, ['', ''], [
    ['resident memory, third second to the end, MiB', `${figures.min_mib.toFixed(1)} - ${figures.max_mib.toFixed(1)} (${samples.length} samples)`],
    ['lines that arrived', arrived.toLocaleString('en')],
    ['seconds in all', seconds.toFixed(1)],
  ]);
  bench.verdict('memory while nobody reads stays within, MiB', figures.difference_mib, { atMost: 30, digits: 1 });
  bench.verdict('lines that did not arrive', count - arrived, { atMost: 0, digits: 0 });
  return figures;
}
