/**
 * The program as npm installs it: `npm install -g .` makes a link to the checkout, a packed one lies in the prefix. From both `conntrail service` prints a unit that names
 * the program itself, which systemd takes. Nothing is fetched: the packages that the program needs are those of the checkout.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import { cleanUp, scratch } from './process-harness.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const hasAnalyze = spawnSync('systemd-analyze', ['--version']).status === 0

afterEach(cleanUp)

/** Prints the unit by the installed program; its version works, and systemd has nothing to say against it. */
function unitOf(installed: string): { readonly start: string; readonly notes: string; readonly text: string } {
  expect(execFileSync(installed, ['--version'], { encoding: 'utf8' })).toMatch(/^\d+\.\d+\.\d+\n$/)
  const { status, stdout, stderr } = spawnSync(installed, ['service'], { encoding: 'utf8' })
  expect(status).toBe(0)
  if (hasAnalyze) {
    const unit = scratch('conntrail.service')
    writeFileSync(unit, stdout)
    const verified = spawnSync('systemd-analyze', ['verify', '--man=no', '--recursive-errors=no', unit], { encoding: 'utf8' })
    expect({ status: verified.status, said: verified.stderr.split('\n').filter((line) => line.includes('conntrail.service')) }).toEqual({ status: 0, said: [] })
  }
  return { start: /^ExecStart=(.*)$/m.exec(stdout)![1]!, notes: stderr, text: stdout }
}

test('npm install -g . links to the checkout, and the unit names what is behind the link', () => {
  const prefix = scratch('linked')
  mkdirSync(prefix)
  execFileSync('npm', ['install', '--global', '--prefix', prefix, '--ignore-scripts', '--offline', '--no-audit', '--no-fund', root], { cwd: tmpdir(), stdio: 'pipe' })
  const { start, notes } = unitOf(join(prefix, 'bin/conntrail'))
  expect(start).toBe(`${realpathSync(process.execPath)} ${realpathSync(root)}/dist/main.js run`)
  expect(notes.includes(prefix)).toBe(false)
})

test('a packed one holds all that it needs, and is said to lie where a service cannot see it', () => {
  const prefix = scratch('packed')
  const home = join(prefix, 'lib/node_modules')
  for (const folder of [home, join(prefix, 'bin')]) mkdirSync(folder, { recursive: true })
  execFileSync('npm', ['pack', '--ignore-scripts', '--offline', '--pack-destination', prefix, root], { cwd: tmpdir(), stdio: 'pipe' })
  const archive = readdirSync(prefix).find((name) => /^conntrail-.*\.tgz$/.test(name))!
  execFileSync('tar', ['-xzf', join(prefix, archive), '-C', home])
  // as npm lays it out: the package, what it needs, and a link in bin
  const installed = join(home, 'conntrail')
  execFileSync('mv', [join(home, 'package'), installed])
  symlinkSync(join(root, 'node_modules'), join(installed, 'node_modules'))
  execFileSync('chmod', ['755', join(installed, 'dist/main.js')])
  symlinkSync('../lib/node_modules/conntrail/dist/main.js', join(prefix, 'bin/conntrail'))
  for (const file of ['README.md', 'CHANGELOG.md', 'LICENSE', 'dist/commands/service.js']) expect([file, existsSync(join(installed, file))]).toEqual([file, true])
  expect(readdirSync(installed).filter((name) => ['src', 'test', 'fixtures'].includes(name))).toEqual([])
  const { start, notes } = unitOf(join(prefix, 'bin/conntrail'))
  expect(start).toBe(`${realpathSync(process.execPath)} ${installed}/dist/main.js run`)
  expect(notes).toContain(`${installed}/dist/main.js lies in a temporary directory`)
})
