/*
 * A gigabyte of conntrack events read by the input that follows files, beside the same through a pipe. Both with the outputs of `run`, which carry ids.
 */
import { statSync } from 'node:fs';
import { linesFile, spread, timed } from './machine.mjs';

const RUN = '"$NODE" "$MAIN" run --once -i';
const FILE = { program: `${RUN} "$IN"`, script: 'program > /dev/null' }, PIPE = { program: `${RUN} -`, script: 'cat "$IN" | program > /dev/null' };

export async function followed(bench) {
  const lines = bench.quick ? 200_000 : 5_500_000;
  const file = linesFile(bench, ['--lines', lines, '--live', bench.quick ? 10_000 : 100_000]);
  const variants = [FILE, PIPE].map((each) => ({ ...each, walls: [] }));
  for (let run = 0; run < Math.min(bench.runs, 3); run++) {
    for (const variant of variants) {
      bench.note(`followed ${run + 1}: ${variant.script}`);
      const { wall, stderr } = timed(bench, variant.script, variant.program, { IN: file });
      const done = stderr.split('\n').filter((line) => line.includes('"msg":"done"')).map((line) => JSON.parse(line))[0];
      if (done.written !== lines) throw new Error(`${done.written} records of ${lines} lines`);
      variant.walls.push(wall);
    }
  }
  const [fromFile, fromPipe] = variants.map(({ walls }) => spread(walls).median);
  bench.table(`Followed file: ${(statSync(file).size / 1e9).toFixed(2)} GB, ${lines.toLocaleString('en')} lines`, ['', 'seconds', 'thousand lines/s'],
    [['followed file', fromFile.toFixed(2), bench.thousands(lines / fromFile)], ['pipe', fromPipe.toFixed(2), bench.thousands(lines / fromPipe)]]);
  bench.verdict('time of the followed file beside the pipe', fromFile / fromPipe, { atMost: 1.1, digits: 2 });
  return { seconds_file: fromFile, seconds_pipe: fromPipe, ratio: fromFile / fromPipe };
}
