/** Random tests that can be played again: the seed of each is printed, and CONNTRAIL_SEED sets it. */
import { randomInt } from 'node:crypto'
import { random } from './harness.js'

/** Numbers in [0, 1) from a new seed, or the one that was set. `what` names the test in what is printed. */
export function seeded(what: string): () => number {
  return random(newSeed(what))
}

/** For a generator of one's own, in another process, say. From 0 to 2^31 - 1. `usual`: in place of a new one where none is set. */
export function newSeed(what: string, usual = randomInt(2 ** 31)): number {
  const set = process.env['CONNTRAIL_SEED']
  const seed = set === undefined ? usual : Number(set)
  console.info(`${what}: CONNTRAIL_SEED=${seed}`)
  return seed
}
