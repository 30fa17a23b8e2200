/** What a run knows of the process and the host that it runs on. */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { initialNamespaceInode } from '../inputs/namespaces.js'
import type { World } from '../parts.js'

export interface ProcessFacts {
  readonly stdinIsTerminal: boolean
  readonly stdoutIsTerminal: boolean
  readonly env: Readonly<Record<string, string | undefined>>
  /** CLOCK_MONOTONIC in microseconds */
  readonly monotonic: () => number
}

export function openWorld(facts: ProcessFacts): World {
  return {
    ...facts,
    random: randomBytes(4).toString('hex'),
    seed: randomBytes(4).readInt32LE(),
    hash: (text) => createHash('sha256').update(text).digest('hex').slice(0, 12),
    now: () => {
      const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000)
      const sec = Math.floor(microseconds / 1e6)
      return { sec, usec: microseconds - sec * 1e6 }
    },
    bootId: bootId(),
    kernelRelease: release(),
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
