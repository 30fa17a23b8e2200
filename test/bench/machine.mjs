/*
 * What the measurements share: files of generated lines, real pipes, child processes, and what
 * /proc tells about them. Linux only; needs bash, cat, mkfifo.
 */
import { spawn, spawnSync, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, read, readFileSync, readSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** CPU seconds, and elsewhere seconds, after which a run is given up. */
export const PATIENCE = 300;

const generator = fileURLToPath(new URL('generate.mjs', import.meta.url));
const generatorHash = createHash('sha256').update(readFileSync(generator)).digest('hex').slice(0, 8);

/** The path of a file of lines made with these options of generate.mjs; made now if it is not there. In the page cache afterwards. */
export function linesFile(bench, options) {
  mkdirSync(bench.dir, { recursive: true, mode: 0o700 });
  const path = join(bench.dir, `${options.map((o) => String(o).replace(/^--/, '')).join('-')}-${generatorHash}.txt`);
  if (!existsSync(path)) {
    bench.note(`generating ${options.join(' ')}`);
    const made = spawnSync(process.execPath, [generator, ...options.map(String), '--out', `${path}.part`], { encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`generate.mjs: ${made.stderr}`);
    renameSync(`${path}.part`, path);
  }
  const cat = spawnSync('cat', [path], { stdio: ['ignore', openedNull(), 'inherit'] });
  if (cat.status !== 0) throw new Error(`cannot read ${path}`);
  return path;
}

let nullFd;
function openedNull() {
  return (nullFd ??= openSync('/dev/null', 'w'));
}

/** Byte offset behind the first `lines` lines of a file. */
export function offsetOfLine(path, lines) {
  const fd = openSync(path, 'r'), buffer = Buffer.allocUnsafe(1 << 20);
  try {
    for (let offset = 0, left = lines; ;) {
      const n = readSync(fd, buffer, 0, buffer.length, offset);
      if (n === 0) throw new Error(`${path} has fewer than ${lines} lines`);
      for (let i = buffer.indexOf(10); i !== -1 && i < n; i = buffer.indexOf(10, i + 1)) {
        if (--left === 0) return offset + i + 1;
      }
      offset += n;
    }
  } finally {
    closeSync(fd);
  }
}

/** The first line of a file that `fits`, without its LF. */
export function firstLine(path, fits = () => true) {
  const fd = openSync(path, 'r'), buffer = Buffer.allocUnsafe(1 << 20);
  const n = readSync(fd, buffer, 0, buffer.length, 0);
  closeSync(fd);
  return buffer.latin1Slice(0, n).split('\n').find(fits);
}

/** A pipe(2) of the default size. child_process gives socket pairs, which behave otherwise; a FIFO whose name is gone is a pipe. */
export function openPipe(bench) {
  mkdirSync(bench.dir, { recursive: true, mode: 0o700 });
  const path = join(bench.dir, `pipe-${process.pid}`);
  execFileSync('mkfifo', ['-m', '600', path]);
  const both = openSync(path, 'r+'); // with this one open the next two do not wait for each other
  const pipe = { read: openSync(path, 'r'), write: openSync(path, 'w') };
  closeSync(both);
  unlinkSync(path);
  return pipe;
}

/**
 * Runs a bash script in which `program` stands for the thing to measure, and gives wall seconds of
 * the script, CPU seconds of `program` alone, and what it wrote to stderr. bash's `time` takes the
 * CPU time from wait4(2), so threads and the kernel's part are in it.
 */
export function timed(bench, script, program, env) {
  const times = join(bench.dir, `times-${process.pid}`), wall = join(bench.dir, `wall-${process.pid}`), errors = join(bench.dir, `stderr-${process.pid}`);
  const whole = `set -o pipefail; ulimit -t ${PATIENCE}; TIMEFORMAT='%3R %3U %3S'; P() { { time ${program} 2> "$ERRORS"; } 2> "$TIMES"; }; { time { ${script.replaceAll('program', 'P')}; }; } 2> "$WALL"`;
  const run = spawnSync('bash', ['-c', whole], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...env, TIMES: times, WALL: wall, ERRORS: errors, NODE: process.execPath, MAIN: bench.program, AWK: bench.awk },
  });
  const stderr = readFileSync(errors, 'utf8');
  if (run.status !== 0) throw new Error(`status ${run.status} from: ${script}\n${stderr.slice(-2000)}`);
  const numbers = (path) => readFileSync(path, 'utf8').trim().split('\n').at(-1).split(' ').map(Number);
  const [, user, system] = numbers(times);
  const result = { wall: numbers(wall)[0], user, system, cpu: user + system, stderr };
  for (const path of [times, wall, errors]) rmSync(path, { force: true });
  return result;
}

/** Starts the program on the given file descriptors. `ended` gives the exit status and the time of it. */
export function startProgram(bench, stdin, stdout) {
  const errors = join(bench.dir, `stderr-${process.pid}`);
  const stderr = openSync(errors, 'w');
  const began = performance.now();
  const child = spawn(process.execPath, [bench.program], { stdio: [stdin, stdout, stderr] });
  closeSync(stderr);
  let said;
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE * 1000);
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => {
      const at = performance.now();
      clearTimeout(timer);
      said = readFileSync(errors, 'utf8');
      rmSync(errors);
      resolve({ status: status ?? signal, at });
    });
  });
  return { pid: child.pid, began, ended, child, stderr: () => said ?? readFileSync(errors, 'utf8') };
}

/** After its input was closed: waits for the program to end, and ends it when it does not. */
export async function finish(program, seconds = 20) {
  const timer = setTimeout(() => program.child.kill('SIGKILL'), seconds * 1000);
  const { status } = await program.ended;
  clearTimeout(timer);
  if (status !== 0) throw new Error(`the program ended with ${status}: ${program.stderr().slice(-2000)}`);
}

/** Reads a pipe to its end, counts lines and keeps the longest times without output while `watching`. */
export function readLines(fd) {
  const buffer = Buffer.allocUnsafe(1 << 18);
  const state = { lines: 0, bytes: 0, last: performance.now(), watching: false, gaps: [], done: undefined };
  const next = () => new Promise((resolve, reject) => read(fd, buffer, 0, buffer.length, null, (error, n) => (error ? reject(error) : resolve(n))));
  state.done = (async () => {
    for (let n; (n = await next()) > 0;) {
      const now = performance.now();
      if (state.watching) {
        const gap = now - state.last;
        if (state.gaps.length < 5 || gap > state.gaps[4]) {
          state.gaps.push(gap);
          state.gaps.sort((a, b) => b - a).length = Math.min(state.gaps.length, 5);
        }
      }
      state.last = now;
      state.bytes += n;
      const chunk = buffer.subarray(0, n);
      for (let i = chunk.indexOf(10); i !== -1; i = chunk.indexOf(10, i + 1)) state.lines++;
    }
    closeSync(fd);
  })();
  state.done.catch(() => {}); // whoever awaits it gets the error
  return state;
}

/** Waits until `reader` has seen `lines` lines; fails when nothing came for ten seconds. */
export async function untilLines(reader, lines) {
  while (reader.lines < lines) {
    if (performance.now() - reader.last > 10_000) throw new Error(`${reader.lines} lines came out, ${lines} were expected, nothing more for 10 seconds`);
    await sleep(5);
  }
}

/** A process that copies a file into the pipe, so that input is always there; ends when all is written. */
export function feed(path, fd) {
  return new Promise((resolve, reject) => {
    spawn('cat', [path], { stdio: ['ignore', fd, 'inherit'] })
      .on('error', reject)
      .on('exit', (status) => (status === 0 ? resolve() : reject(new Error(`cat ended with ${status}`))));
  });
}

/** A size from /proc/PID/status (VmRSS, VmHWM) in bytes. */
export function memory(pid, name) {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
  if (!found) throw new Error(`no ${name} of process ${pid}`);
  return Number(found[1]) * 1024;
}

/** The resident size when it has come to rest: the median of samples over half a second. */
export async function restingMemory(pid) {
  await sleep(300);
  const samples = [];
  for (let i = 0; i < 6; i++) {
    samples.push(memory(pid, 'VmRSS'));
    await sleep(80);
  }
  return median(samples);
}

/** Lets VmHWM start again from the present size. */
export function resetPeak(pid) {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

/** CPU seconds of a running process, all its threads. */
export function cpuSeconds(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks();
}
let ticksASecond;
const ticks = () => (ticksASecond ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' })));

/** Bytes a process has read so far, by any of its threads. */
export function bytesRead(pid) {
  return Number(/^rchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'latin1'))[1]);
}

/** The sums that the program wrote on stderr at its end, if it did. */
export function sums(stderr) {
  for (const line of stderr.trim().split('\n').reverse()) {
    try {
      const record = JSON.parse(line);
      if (typeof record.lines === 'number') return record;
    } catch { /* not one of its lines */ }
  }
  return undefined;
}

/** Fails unless the sums say that every line became a record and every record was written. */
export function checkSums(stderr, lines) {
  const found = sums(stderr);
  if (!found) throw new Error(`no sums on stderr: ${stderr.slice(-500)}`);
  const { rejected = 0, written = found.lines } = found;
  if (found.lines !== lines || rejected !== 0 || written !== lines) {
    throw new Error(`${lines} lines went in; the sums say ${JSON.stringify({ lines: found.lines, rejected, written })}`);
  }
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Median, least and most of a list. */
export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values), values };
}
