/*
 * What live flows cost: resident memory for each of them, after the table has grown and at the
 * peak while it grows, the longest pause of the output meanwhile; and lines a second with a
 * thousand and with a million of them.
 */
import { closeSync, openSync } from 'node:fs';
import {
  bytesRead, checkSums, cpuSeconds, feed, finish, linesFile, memory, offsetOfLine, openPipe, readLines, resetPeak, restingMemory, spread, startProgram, untilLines,
} from './machine.mjs';

const WARM = 300_000;

export async function liveMemory(bench) {
  const sizes = bench.quick ? [1_000, 10_000, 100_000] : [10_000, 100_000, 1_000_000];
  const runs = Math.min(bench.runs, 3);
  // a few flows live and die until code and buffers have their size: what comes on top is the table
  const warm = linesFile(bench, ['--lines', WARM, '--live', 100, '--v6', 0.5]);
  const figures = sizes.map((flows) => ({ flows, runs: [] }));
  for (let run = 0; run < runs; run++) {
    for (const figure of figures) {
      bench.note(`memory ${run + 1}/${runs}: ${figure.flows} live flows`);
      figure.runs.push(await grow(bench, warm, figure.flows));
    }
  }
  for (const figure of figures) {
    for (const key of ['bytes_per_flow', 'peak_bytes_per_flow', 'longest_pause_ms']) figure[key] = spread(figure.runs.map((r) => r[key]));
  }
  const range = (s) => `${s.median.toFixed(0)} (${s.min.toFixed(0)} - ${s.max.toFixed(0)})`;
  bench.table(`Memory for each live flow: IPv4 and IPv6 half and half, ${runs} runs`,
    ['live flows', 'bytes a flow, grown', 'bytes a flow, peak', 'longest pause, ms', 'MiB before'],
    figures.map((f) => [f.flows.toLocaleString('en'), range(f.bytes_per_flow), range(f.peak_bytes_per_flow), range(f.longest_pause_ms),
      (f.runs[0].before / 2 ** 20).toFixed(0)]));
  const most = figures.at(-1), many = most.flows.toLocaleString('en');
  bench.verdict(`bytes a flow at ${many}, grown`, most.bytes_per_flow.median, { atMost: 120, goal: 64, digits: 0 });
  bench.verdict(`bytes a flow at ${many}, peak`, most.peak_bytes_per_flow.median, { atMost: 120, goal: 64, digits: 0 });
  bench.verdict(`longest pause of the output on the way to ${many}, ms`, most.longest_pause_ms.max, { atMost: 200, digits: 0 });
  return figures;
}

async function grow(bench, warm, flows) {
  const updates = flows >> 1;
  const file = linesFile(bench, ['--grow', flows, '--updates', updates]);
  const input = openPipe(bench), output = openPipe(bench);
  const program = startProgram(bench, input.read, output.write);
  closeSync(input.read);
  closeSync(output.write);
  const reader = readLines(output.read);
  try {
    await feed(warm, input.write);
    await untilLines(reader, WARM);
    const before = await restingMemory(program.pid);
    resetPeak(program.pid);

    const fed = feed(file, input.write);
    fed.catch(() => {}); // it fails when the program dies, which shows below as well
    await untilLines(reader, WARM + 1); // the pause before the first line is not the program's
    reader.watching = true;
    await fed;
    await untilLines(reader, WARM + flows + updates);
    reader.watching = false;

    const after = await restingMemory(program.pid), peak = memory(program.pid, 'VmHWM');
    closeSync(input.write);
    await finish(program);
    await reader.done;
    checkSums(program.stderr(), WARM + flows + updates);
    return {
      before, after, peak, bytes_per_flow: (after - before) / flows, peak_bytes_per_flow: (peak - before) / flows,
      longest_pause_ms: reader.gaps[0] ?? 0, longest_pauses_ms: reader.gaps,
    };
  } catch (error) {
    program.child.kill('SIGKILL');
    throw error;
  }
}

export async function liveScale(bench) {
  const [few, many] = bench.quick ? [1_000, 100_000] : [1_000, 1_000_000];
  const lines = many * 4, half = lines / 2;
  // the same number of lines, live flows to the last one; when half of them are read the table
  // is full and each flow of the larger one has had a line besides its first
  const cases = [few, many].map((live) => {
    const file = linesFile(bench, ['--lines', lines, '--live', live, '--cut']);
    return { live, file, middle: offsetOfLine(file, half), first: [], steady: [], cpu: [] };
  });
  for (let run = 0; run < bench.runs; run++) {
    for (const c of cases) {
      bench.note(`live-scale ${run + 1}/${bench.runs}: ${c.live} live flows`);
      const result = await pace(bench, c.file, c.middle);
      checkSums(result.stderr, lines);
      c.first.push(half / result.first);
      c.steady.push(half / result.steady);
      c.cpu.push((result.cpu / half) * 1e9);
    }
  }
  const figures = cases.map((c) => ({ live: c.live, first_half: spread(c.first), steady_half: spread(c.steady), steady_cpu_ns_per_line: spread(c.cpu) }));
  const range = (s) => `${bench.thousands(s.median)} (${bench.thousands(s.min)} - ${bench.thousands(s.max)})`;
  bench.table(`Lines a second by live flows: file in, /dev/null out, ${bench.runs} alternating runs`,
    ['live flows', `first ${half.toLocaleString('en')} lines, table growing, thousand/s`, 'the next as many, thousand/s', 'their CPU ns a line'],
    figures.map((f) => [f.live.toLocaleString('en'), range(f.first_half), range(f.steady_half), f.steady_cpu_ns_per_line.median.toFixed(0)]));
  const first = figures[1].first_half.median / figures[0].first_half.median, steady = figures[1].steady_half.median / figures[0].steady_half.median;
  const label = `${many.toLocaleString('en')} against ${few.toLocaleString('en')} live flows`;
  bench.verdict(`${label}, with start-up and growth`, first, { atLeast: 0.6, goal: 0.8, digits: 2 });
  bench.verdict(`${label}, steady`, steady, { atLeast: 0.6, goal: 0.8, digits: 2 });
  return { lines, cases: figures, ratio_first_half: first, ratio_steady_half: steady };
}

/** Runs the program on a file and gives the seconds for the part before `middle` (a byte offset) and behind it, by the bytes it has read. */
async function pace(bench, file, middle) {
  const stdin = openSync(file, 'r'), stdout = openSync('/dev/null', 'w');
  const program = startProgram(bench, stdin, stdout);
  closeSync(stdin);
  closeSync(stdout);
  let last = { at: program.began, bytes: 0, cpu: 0 }, crossed;
  const sampler = setInterval(() => {
    try {
      const now = { at: performance.now(), bytes: bytesRead(program.pid), cpu: cpuSeconds(program.pid) };
      if (crossed === undefined && now.bytes >= middle) {
        const part = (middle - last.bytes) / (now.bytes - last.bytes || 1);
        crossed = { at: last.at + part * (now.at - last.at), cpu: last.cpu + part * (now.cpu - last.cpu) };
      }
      last = now;
    } catch { /* it has just ended */ }
  }, 5);
  const { status, at } = await program.ended;
  clearInterval(sampler);
  if (status !== 0 || !crossed) throw new Error(`the program ended with ${status}: ${program.stderr().slice(-2000)}`);
  return { first: (crossed.at - program.began) / 1000, steady: (at - crossed.at) / 1000, cpu: last.cpu - crossed.cpu, stderr: program.stderr() };
}
