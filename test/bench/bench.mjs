#!/usr/bin/env node
/*
 * `npm run bench`: the built program (dist/main.js, default flags, every record printed) measured
 * from outside, with the bars and goals beside the figures.
 *
 *   node test/bench/bench.mjs [PART]... [OPTION]...
 *
 * parts       --throughput  lines a second beside mawk (plain.awk, typed.awk), file and pipe
 *             --stages      CPU time a line of each stage by itself
 *             --start       time to the first record
 *             --slow        share of a core at 10,000 lines a second, one line a write
 *             --memory      bytes for each live flow at 10 thousand, 100 thousand, 1 million; longest pause
 *             --live-scale  lines a second with 1 thousand and with 1 million live flows
 *             --kernel-log  lines a second of kernel logs that are about other matters, beside grep -c
 *             --followed    a gigabyte by the input that follows files, beside a pipe
 *             --delivery    lines a second beside a webhook whose receiver is down
 *             --stall       memory while nobody reads 20 million lines (a minute or two)
 *             without any: all but --stall
 * options     --runs N      runs of each variant, alternating (5; starts: at least 7; memory: at most 3)
 *             --quick       a tenth of the lines and flows: to see that it works, not to quote
 *             --json        one JSON object with every figure behind the table
 *             --check       status 1 when a bar is missed
 *             --program F   another build than dist/main.js
 *             --awk F       another yardstick than plain.awk
 *             --dir DIR     where the generated files are kept (in the system's temporary directory);
 *                           about 2.5 GB for all parts; they must fit into the page cache
 *
 * Needs Linux, bash, mawk and coreutils. Other load on the machine shows: ratios of medians of
 * alternating runs are what may be quoted.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cpus, release, tmpdir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { delivery } from './delivery.mjs';
import { followed } from './followed.mjs';
import { kernelLog } from './kernel-log.mjs';
import { liveMemory, liveScale } from './live.mjs';
import { stages } from './stages.mjs';
import { slow, stall, start } from './stream.mjs';
import { throughput } from './throughput.mjs';

const parts = { throughput, stages, start, slow, memory: liveMemory, 'live-scale': liveScale, 'kernel-log': kernelLog, followed, delivery, stall };
const flag = { type: 'boolean', default: false };
const { values } = parseArgs({
  options: {
    ...Object.fromEntries(Object.keys(parts).map((name) => [name, flag])),
    quick: flag, json: flag, check: flag,
    runs: { type: 'string', default: '5' },
    program: { type: 'string', default: fileURLToPath(new URL('../../dist/main.js', import.meta.url)) },
    awk: { type: 'string', default: fileURLToPath(new URL('plain.awk', import.meta.url)) },
    dir: { type: 'string', default: join(tmpdir(), `conntrail-bench-${userInfo().uid}`) },
  },
});
const chosen = Object.keys(parts).filter((name) => values[name]);
const names = chosen.length > 0 ? chosen : Object.keys(parts).filter((name) => name !== 'stall');

const verdicts = [];
const bench = {
  quick: values.quick,
  runs: Math.max(1, Number(values.runs) || 5),
  program: resolve(values.program),
  awk: resolve(values.awk),
  dir: resolve(values.dir),
  /** What is going on now: on a terminal's last line, nowhere else. */
  note(text) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  },
  thousands: (n) => Math.round(n / 1000).toLocaleString('en'),
  table(title, head, rows) {
    bench.note('');
    const width = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i].length)));
    const print = (cells) => console.log('  ' + cells.map((c, i) => (i === 0 ? c.padEnd(width[i]) : c.padStart(width[i]))).join('   ').trimEnd());
    console.log(`\n${title}`);
    if (head.some((h) => h !== '')) print(head);
    rows.forEach(print);
  },
  verdict(what, value, { atLeast, atMost, goal, digits }) {
    const bar = atLeast ?? atMost, within = (limit) => (atLeast === undefined ? value <= limit : value >= limit);
    const verdict = { what, value, bar, goal, met: within(bar), goal_met: goal === undefined ? undefined : within(goal) };
    verdicts.push(verdict);
    const limit = `${atLeast === undefined ? 'at most' : 'at least'} ${bar}${goal === undefined ? '' : `, goal ${goal}`}`;
    const word = values.quick ? 'quick' : !verdict.met ? 'MISSED' : goal === undefined ? 'met' : verdict.goal_met ? 'goal met' : 'met, not the goal';
    console.log(`  -> ${what}: ${value.toFixed(digits)} (${limit}): ${word}`);
  },
};

if (!existsSync(bench.program)) {
  console.error(`bench: ${bench.program} is not there; build first (npm run build)`);
  process.exit(2);
}
const mawk = spawnSync('mawk', ['-W', 'version'], { encoding: 'utf8' });
if (mawk.error && names.includes('throughput')) {
  console.error('bench: mawk is not installed');
  process.exit(2);
}
const machine = {
  cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, kernel: release(), node: process.version,
  mawk: (mawk.stdout || mawk.stderr || '').split('\n')[0], date: new Date().toISOString(),
};
console.log(`${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}, node ${machine.node}, ${machine.mawk}`);

const figures = {};
for (const name of names) {
  try {
    figures[name] = await parts[name](bench);
  } catch (error) {
    bench.note('');
    console.log(`\n${name} failed: ${error.message}`);
    verdicts.push({ what: name, failed: error.message, met: false });
    process.exitCode = 1;
  }
}
if (values.json) console.log(`\n${JSON.stringify({ machine, quick: values.quick, runs: bench.runs, figures, verdicts })}`);
if (values.check && verdicts.some((v) => !v.met)) process.exitCode = 1;
