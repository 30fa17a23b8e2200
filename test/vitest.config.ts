import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

const results = process.env['CONNTRAIL_TEST_RESULTS']
/**
 * Most of the time a file waits, for other programs and for time to pass: with one file more than there are processors these have work. In the long run, which is
 * about loads and times, each has them alone.
 */
const FILES_AT_ONCE = process.env['CONNTRAIL_LONG_TESTS'] === undefined ? availableParallelism() + 1 : 1

/** Two projects: everything that may run side by side, and what needs the kernel's one conntrack limit and log for itself. */
export default defineConfig({
  test: {
    // a file of results beside the usual report, for the closing line of continuous integration
    reporters: results === undefined ? ['default'] : ['default', ['json', { outputFile: results }]],
    projects: [
      {
        test: {
          name: 'program',
          root: new URL('..', import.meta.url).pathname,
          include: ['test/*.test.ts'],
          maxWorkers: FILES_AT_ONCE,
          testTimeout: 120_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'kernel',
          root: new URL('..', import.meta.url).pathname,
          include: ['test/kernel/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
