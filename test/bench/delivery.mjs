/*
 * A webhook whose receiver is down, beside a file and standard output at full speed: their lines a second against a run without it. It wants every record, its
 * spool is full within the first moment, and what it sheds is counted.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { linesFile, spread } from './machine.mjs';

export async function delivery(bench) {
  const lines = bench.quick ? 300_000 : 2_000_000;
  const file = linesFile(bench, ['--lines', lines, '--live', 10_000]);
  const cases = ['without', 'with'].map((name) => ({ name, rates: [], shed: [] }));
  for (let run = 0; run < bench.runs; run++) {
    for (const c of cases) {
      bench.note(`delivery ${run + 1}/${bench.runs}: ${c.name} a webhook`);
      const { rate, shed } = await write(bench, file, lines, c.name === 'with');
      c.rates.push(rate);
      c.shed.push(shed);
    }
  }
  const figures = cases.map((c) => ({ name: c.name, rate: spread(c.rates), shed: spread(c.shed) }));
  bench.table(`Lines a second into a file and /dev/null, beside a webhook whose receiver is down, ${bench.runs} alternating runs`,
    ['webhook', 'thousand/s', 'records shed and counted'],
    figures.map((f) => [f.name, `${bench.thousands(f.rate.median)} (${bench.thousands(f.rate.min)} - ${bench.thousands(f.rate.max)})`, f.shed.median.toLocaleString('en')]));
  const ratio = figures[1].rate.median / figures[0].rate.median;
  bench.verdict('with against without', ratio, { atLeast: 0.95, digits: 2 });
  return { lines, cases: figures, ratio };
}

/** Lines a second between the first record in the file and the last. */
async function write(bench, file, lines, hasWebhook) {
  const dir = mkdtempSync(join(bench.dir, 'delivery-'));
  const out = join(dir, 'out.ndjson');
  // nobody listens on the port of the discard service
  const hook = { type: 'webhook', url: 'http://127.0.0.1:9/', spool: '1MB', when: [{ type: ['flow', 'alert', 'gap'] }] };
  const outputs = { file: { type: 'file', path: out }, out: { type: 'stdout' }, ...(hasWebhook ? { hook } : {}) };
  writeFileSync(join(dir, 'run.json'), JSON.stringify({ version: 1, state: join(dir, 'state'), inputs: { lines: { type: 'file', path: file, from: 'start' } }, outputs }));
  const stdout = openSync('/dev/null', 'w');
  const child = spawn(process.execPath, [bench.program, 'run', '--once', '-c', join(dir, 'run.json')], { stdio: ['ignore', stdout, 'pipe'] });
  closeSync(stdout);
  let stderr = '', first = 0, last = 0, size = 0;
  child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const ended = new Promise((resolve) => child.on('close', resolve));
  // gap records and the tail of a run are no lines: growth by less than a page at a time is not counted
  const timer = setInterval(() => {
    const now = statSync(out, { throwIfNoEntry: false })?.size ?? 0;
    if (now > size && first === 0) first = performance.now();
    if (now > size + 4096) last = performance.now();
    size = now;
  }, 2);
  const status = await ended;
  clearInterval(timer);
  const sums = stderr.split('\n').filter((line) => line.includes('"msg":"done"')).map((line) => JSON.parse(line))[0];
  if (status !== 0 || sums?.flows !== lines) throw new Error(`the program ended with ${status}: ${stderr.slice(-2000)}`);
  const shed = hasWebhook ? shedIn(out) : 0;
  rmSync(dir, { recursive: true });
  return { rate: (lines / (last - first)) * 1000, shed };
}

/** Gap records are few among many: looked for in the bytes. */
function shedIn(path) {
  const bytes = readFileSync(path);
  let sum = 0;
  for (let at = bytes.indexOf('"type":"gap"'); at >= 0; at = bytes.indexOf('"type":"gap"', at + 1)) {
    sum += Number(/"count":(\d+)/.exec(bytes.toString('latin1', at, at + 300))?.[1] ?? 0);
  }
  return sum;
}
