/*
 * Lines a second of the whole program beside mawk on the same file: file in and /dev/null out,
 * pipe in and pipe out. Alternating runs; start-up is part of every run. The yardstick is
 * plain.awk, the fastest script found; typed.awk, the one that one writes first, stands beside it.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { checkSums, linesFile, spread, timed } from './machine.mjs';

const CONNTRAIL = '"$NODE" "$MAIN"', MAWK = 'mawk -f "$AWK"', TYPED = 'mawk -f "$TYPED"', COPY = 'cat';
const typedAwk = fileURLToPath(new URL('typed.awk', import.meta.url));
const FILE = 'program < "$IN" > /dev/null', PIPE = 'cat "$IN" | program | cat > /dev/null';

export async function throughput(bench) {
  const lines = bench.quick ? 200_000 : 2_000_000;
  const file = linesFile(bench, ['--lines', lines, '--live', bench.quick ? 10_000 : 100_000]);
  checkYardstick(bench, file);
  const variants = [
    { name: 'conntrail, file', program: CONNTRAIL, script: FILE },
    { name: 'mawk, file', program: MAWK, script: FILE },
    { name: 'conntrail, pipe', program: CONNTRAIL, script: PIPE },
    { name: 'mawk, pipe', program: MAWK, script: PIPE },
    { name: 'mawk typed, file', program: TYPED, script: FILE },
    { name: 'mawk typed, pipe', program: TYPED, script: PIPE },
    { name: 'cat alone, pipe', program: COPY, script: PIPE }, // what the pipes themselves cost on this machine
  ].map((v) => ({ ...v, runs: [] }));
  for (let run = 0; run < bench.runs; run++) {
    for (const variant of variants) {
      bench.note(`throughput ${run + 1}/${bench.runs}: ${variant.name}`);
      const result = timed(bench, variant.script, variant.program, { IN: file, TYPED: typedAwk });
      if (variant.program === CONNTRAIL) checkSums(result.stderr, lines);
      delete result.stderr;
      variant.runs.push(result);
    }
  }
  const rows = variants.map(({ name, runs }) => ({
    name,
    lines_per_second: spread(runs.map((r) => lines / r.wall)),
    cpu_ns_per_line: spread(runs.map((r) => (r.cpu / lines) * 1e9)),
  }));
  const ratio = (a, b) => rows[a].lines_per_second.median / rows[b].lines_per_second.median;
  const figures = { lines, variants: rows, ratio_file: ratio(0, 1), ratio_pipe: ratio(2, 3), ratio_file_typed: ratio(0, 4), ratio_pipe_typed: ratio(2, 5) };
  bench.table(`Throughput: ${lines.toLocaleString('en')} lines, ${bench.runs} alternating runs`,
    ['', 'thousand lines/s', 'least - most', 'CPU ns a line'],
    rows.map((r) => [r.name, bench.thousands(r.lines_per_second.median),
      `${bench.thousands(r.lines_per_second.min)} - ${bench.thousands(r.lines_per_second.max)}`, r.cpu_ns_per_line.median.toFixed(0)]));
  bench.verdict('ratio of the medians, file in, /dev/null out', figures.ratio_file, { atLeast: 7, goal: 10, digits: 2 });
  bench.verdict('ratio of the medians, pipe in, pipe out', figures.ratio_pipe, { atLeast: 4, goal: 8, digits: 2 });
  bench.note(`beside typed.awk: file ${figures.ratio_file_typed.toFixed(2)}, pipe ${figures.ratio_pipe_typed.toFixed(2)}`);
  return figures;
}

/** The yardstick must print one valid object a line, no key twice. */
function checkYardstick(bench, file) {
  const head = spawnSync('bash', ['-c', 'head -n 20000 "$IN" | mawk -f "$AWK"'], { env: { ...process.env, IN: file, AWK: bench.awk }, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (head.status !== 0) throw new Error(`mawk: ${head.stderr}`);
  const objects = head.stdout.trimEnd().split('\n');
  if (objects.length !== 20000) throw new Error(`the yardstick printed ${objects.length} lines for 20000`);
  for (const text of objects) {
    const keys = Object.keys(JSON.parse(text)).length;
    if (text.split('":').length - 1 !== keys) throw new Error(`a key occurs twice: ${text}`);
  }
}
