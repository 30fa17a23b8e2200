/** Every capture of conntrack's through the program and through the slow reference: the same records, byte for byte but for the flow numbers. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { differences, formCases } from './compare.js'

const fixtures = new URL('../fixtures/', import.meta.url)
const captures = readdirSync(fixtures).filter((name) => name.endsWith('.in') && (!/^(kernel-log|incident\.(S|table)|quiet|case)/.test(name) || formCases.includes(name.slice(0, -3))))

describe('the program agrees with the reference on', () => {
  test.each(captures)('%s', async (name) => {
    expect(await differences(readFileSync(new URL(name, fixtures)))).toBe('')
  })
})
