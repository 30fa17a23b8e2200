/*
 * Each stage by itself, inside one process on the built modules: CPU time a line of reading, framing,
 * parsing, tracking and printing. Cumulative runs of one process each; a stage is the difference.
 */
import { spawnSync } from 'node:child_process';
import { openSync, readSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { linesFile } from './machine.mjs';

const names = ['read', 'frame', 'parse', 'track', 'print'];
const self = fileURLToPath(import.meta.url);

export function stages(bench) {
  const lines = bench.quick ? 200_000 : 2_000_000;
  const file = linesFile(bench, ['--lines', lines, '--live', bench.quick ? 10_000 : 100_000]);
  const runs = names.map(() => []);
  for (let run = 0; run < bench.runs; run++) {
    names.forEach((name, depth) => {
      bench.note(`stages ${run + 1}/${bench.runs}: up to ${name}`);
      const child = spawnSync(process.execPath, [self, file, String(depth)], { encoding: 'utf8' });
      if (child.status !== 0) throw new Error(child.stderr);
      runs[depth].push(Number(child.stdout) / lines);
    });
  }
  const upTo = runs.map((each) => each.sort((a, b) => a - b)[each.length >> 1]);
  const figures = Object.fromEntries(names.map((name, i) => [name, { cumulative_ns: upTo[i], own_ns: upTo[i] - (upTo[i - 1] ?? 0) }]));
  bench.table(`Stages: CPU ns a line, medians of ${bench.runs} runs`, ['', 'up to and with', 'by itself'],
    names.map((name) => [name, figures[name].cumulative_ns.toFixed(0), figures[name].own_ns.toFixed(0)]));
  return figures;
}

if (process.argv[1] === self) await measure(process.argv[2], Number(process.argv[3]));

/** Prints the CPU nanoseconds of the stages 0 to `depth` over the file. */
async function measure(file, depth) {
  const built = (name) => import(new URL(`../../dist/${name}`, import.meta.url));
  const [{ FlowEvent }, { Frame }, { parseText }, { FlowTracker }, { NdjsonPrinter }, { Pages }, { localClock }] = await Promise.all(
    ['event.js', 'frame.js', 'formats/conntrack-text.js', 'detectors/flows/tracker.js', 'printers/ndjson.js', 'printers/pages.js', 'formats/local-time.js'].map(built));
  const fd = openSync(file, 'r'), buffer = new Uint8Array(1 << 18);
  const frame = new Frame(0), event = new FlowEvent(), pages = new Pages();
  const tracker = new FlowTracker({ flowsMax: 1 << 20, seed: 1 });
  const printer = new NdjsonPrinter({ host: '', input: '', netns: 0, netnsName: '', ridPrefix: null });
  const context = { receivedSec: 0, receivedUsec: 0, localClock: localClock('UTC'), reason: '', extraLines: 0, bodyAt: 0, expect: null, gap: null, diagnostic: '', dumpEnd: false };
  const work = () => {
    let p = frame.at;
    while (p < frame.end) {
      p = parseText(p, frame.end, event, context);
      if (p <= 0) throw new Error(context.reason);
      if (depth < 3) continue;
      tracker.track(event);
      if (depth < 4) continue;
      printer.flow(event, 0);
      if (pages.isFull) pages.release(pages.turn(1));
    }
  };
  const before = process.cpuUsage();
  for (let n; (n = readSync(fd, buffer, 0, buffer.length, null)) > 0;) {
    if (depth === 0) continue;
    frame.lay(buffer.subarray(0, n));
    if (depth >= 2) work();
    frame.keep(frame.end);
  }
  const { user, system } = process.cpuUsage(before);
  process.stdout.write(String((user + system) * 1000));
}
