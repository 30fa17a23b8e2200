/**
 * The house rules, read from the imports: code looks down, never up or sideways, and never in a circle. Floors: 0 words, 1 pure, 2 world, 3 assembly, 4 run,
 * 5 process. Each rule is also shown to fail on a source that breaks it.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../src/', import.meta.url))

/** A folder's files look within their own folder; single files of floors 1 and 2 only below. */
const floors: readonly (readonly [RegExp, number])[] = [
  [/^(event|stage|clock|kernel|kernel-messages|tally|address|nearest|flood|leader|conditions|tool-release)\.ts$/, 0],
  [/^(frame|route|unit|metrics|record-schema)\.ts$/, 1],
  [/^(formats|detectors|printers)\//, 1],
  [/^doctor\/(host|facts)\.ts$/, 2],
  [/^doctor\//, 1],
  [/^(inputs|outputs)\//, 2],
  [/^((log|checkpoint|deadletters|systemd|http)\.ts$|spool\/)/, 2],
  [/^((parts|cli|misuse|config)\.ts$|config\/)/, 3],
  [/^run\//, 4],
  [/^commands\//, 4],
  [/^main\.ts$/, 5],
]

function floorOf(file: string): number {
  return floors.find(([pattern]) => pattern.test(file))?.[1] ?? NaN
}

type Sources = ReadonlyMap<string, string>

const sources: Sources = new Map(
  (readdirSync(root, { recursive: true }) as string[])
    .filter((name) => name.endsWith('.ts') && statSync(root + name).isFile())
    .map((name) => [name.replaceAll('\\', '/'), readFileSync(root + name, 'utf8')]),
)

/** Files and packages that a source imports; `type` imports count too. */
function importsOf(file: string, text: string): string[] {
  return [...text.matchAll(/(?<!')\b(?:from|import)\s*\(?\s*'([^']+)'/g)].map(([, target]) =>
    target!.startsWith('.') ? posix.normalize(posix.join(posix.dirname(file), target!)).replace(/\.js$/, '.ts') : target!,
  )
}

const topFolder = (file: string): string => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '')

function brokenRules(all: Sources): string[] {
  const broken: string[] = []
  const parts = new Set(importsOf('parts.ts', all.get('parts.ts') ?? '').filter((target) => topFolder(target) !== ''))
  for (const [file, text] of all) {
    const floor = floorOf(file)
    if (Number.isNaN(floor)) broken.push(`${file} is on no floor`)
    if (!/^(#!.*\n)?\/\*\*/.test(text)) broken.push(`${file} has no header that says what it is`)
    if (/(^|\/)(utils?|helpers?|common|index)\.ts$/.test(file)) broken.push(`${file} says nothing by its name`)
    if (file !== 'main.ts' && /\bprocess\.(?!nextTick)/.test(text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, ''))) broken.push(`${file} touches process, which is main.ts's`)
    for (const target of importsOf(file, text)) {
      if (!target.endsWith('.ts')) {
        if (floor <= 1) broken.push(`${file} imports ${target}: floors 0 and 1 import no package and no node:`)
        continue
      }
      const targetFloor = floorOf(target)
      if (targetFloor > floor) broken.push(`${file} (floor ${floor}) imports ${target} (floor ${targetFloor}) upward`)
      const sideways = targetFloor === floor && floor >= 1 && floor <= 2 && (topFolder(file) === '' || topFolder(file) !== topFolder(target))
      if (sideways) broken.push(`${file} imports ${target} sideways`)
      if (parts.has(file) && parts.has(target)) broken.push(`${file} imports ${target}: parts meet in parts.ts`)
    }
  }
  return [...broken, ...circles(all)]
}

function circles(all: Sources): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) {
      found.push(`circle: ${[...path.slice(path.indexOf(file)), file].join(' -> ')}`)
      return
    }
    if (done.has(file)) return
    for (const target of importsOf(file, all.get(file) ?? '')) if (all.has(target)) visit(target, [...path, file])
    done.add(file)
  }
  for (const file of all.keys()) visit(file, [])
  return found
}

describe('the house', () => {
  test('keeps its rules', () => {
    expect(brokenRules(sources)).toEqual([])
  })

  test.each([
    ['an import turned upward', 'frame.ts', "import './run/run.js'", 'frame.ts (floor 1) imports run/run.ts (floor 4) upward'],
    ['an import sideways', 'printers/ndjson.ts', "import '../formats/scan.js'", 'printers/ndjson.ts imports formats/scan.ts sideways'],
    ['a part that imports a part', 'formats/conntrack-save.ts', "import './conntrack-xml.js'", 'formats/conntrack-save.ts imports formats/conntrack-xml.ts: parts meet in parts.ts'],
    ['a package on a pure floor', 'route.ts', "import 'node:fs'", 'route.ts imports node:fs: floors 0 and 1 import no package and no node:'],
    ['process outside main.ts', 'run/run.ts', 'process.exit(1)', "run/run.ts touches process, which is main.ts's"],
    ['a circle', 'kernel.ts', "import './event.js'\nimport './stage.js'", 'circle: '],
  ])('refuses %s', (_, file, line, says) => {
    const turned = new Map(sources)
    turned.set(file, `${turned.get(file)!}\n${line}\n`)
    if (says === 'circle: ') turned.set('event.ts', `${turned.get('event.ts')!}\nimport './kernel.js'\n`)
    expect(brokenRules(turned).join('\n')).toContain(says)
  })
})
