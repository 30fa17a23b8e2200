#!/usr/bin/env node
/*
 * Writes the lines of FILE to stdout at RATE lines a second, each by a write(2) of its own, as
 * `conntrack -E` does (it flushes after every event).
 *
 *   node write-slowly.mjs FILE RATE [GROUP]
 *
 * Every line has its moment, evenly spaced; the waiting is done by looking at the clock, because a
 * sleep of 0.1 ms is not to be had. With GROUP above 1 that many lines come in a row (still one a
 * write) and the writer sleeps between the rows. stderr gets one JSON line: lines, seconds, and by
 * how many ms the worst line was late.
 */
import { readFileSync, writeSync } from 'node:fs';

const [file, rate, group = '1'] = process.argv.slice(2);
const text = readFileSync(file), every = (1000 / Number(rate)) * Number(group);
const clock = new Int32Array(new SharedArrayBuffer(4));
const began = performance.now();
let lines = 0, late = 0;
for (let from = 0, due = began; from < text.length; due += every) {
  if (every >= 1) {
    const left = due - performance.now();
    if (left > 0) Atomics.wait(clock, 0, 0, left);
  } else {
    while (performance.now() < due);
  }
  late = Math.max(late, performance.now() - due);
  for (let i = 0; i < Number(group) && from < text.length; i++, lines++) {
    const to = text.indexOf(10, from) + 1;
    writeSync(1, text, from, to - from);
    from = to;
  }
}
process.stderr.write(JSON.stringify({ lines, seconds: (performance.now() - began) / 1000, late }) + '\n');
