/** What a run knows of the process and the host that it runs on. */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { release, totalmem } from 'node:os'
import { timeOf } from '../event.js'
import { hostClock, nowMicroseconds } from '../clock.js'
import { initialNamespaceInode } from '../inputs/namespaces.js'
import type { World } from '../parts.js'

export interface ProcessFacts {
  readonly stdinIsTerminal: boolean
  readonly stdoutIsTerminal: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  /** CLOCK_MONOTONIC in microseconds */
  readonly monotonic: () => number
  /** bytes, as process.constrainedMemory() has it: 0 where nothing is known, a number beyond all memory where no group has a limit */
  readonly memoryLimit: number
}

export function openWorld(facts: ProcessFacts): World {
  return {
    ...facts,
    random: randomBytes(4).toString('hex'),
    seed: randomBytes(4).readInt32LE(),
    hash: (text) => createHash('sha256').update(text).digest('hex').slice(0, 12),
    now: () => timeOf(nowMicroseconds()),
    takeStep: () => hostClock.takeStep(),
    bootId: bootId(),
    kernelRelease: release(),
    memoryLimit: facts.memoryLimit > 0 ? Math.min(facts.memoryLimit, totalmem()) : totalmem(),
    initialNetns: initialNamespaceInode(),
  }
}

/** '' where /proc is missing. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch {
    return ''
  }
}
