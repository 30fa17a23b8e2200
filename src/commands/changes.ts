/** What a configuration that was read anew changes in a run that goes on. */
import type { Plan } from './plan.js'

export interface Changes {
  /** names of inputs and outputs that are no longer there or are another now, and of those that are there now or are another */
  readonly oldInputs: readonly string[]
  readonly newInputs: readonly string[]
  readonly oldOutputs: readonly string[]
  readonly newOutputs: readonly string[]
  /** keys that take effect only with the next start */
  readonly later: readonly string[]
}

/** Read once at the start and held by everything since. */
const atStart = ['host', 'state', 'flowsMax', 'lineBytesMax', 'http', 'once', 'logLevel', 'format', 'bootTime'] as const
const named: Readonly<Record<(typeof atStart)[number], string>> = {
  ...{ host: 'host', state: 'state', flowsMax: 'flows_max', lineBytesMax: 'max_line', http: 'http', once: 'once', logLevel: 'log_level', format: 'format' },
  bootTime: 'boot_time',
}

export function changesOf(now: Plan, next: Plan): Changes {
  const [inputs, outputs] = [compared(now.inputs, next.inputs), compared(now.outputs, next.outputs)]
  return {
    ...{ oldInputs: inputs.old, newInputs: inputs.new, oldOutputs: outputs.old, newOutputs: outputs.new },
    later: atStart.filter((key) => text(now[key]) !== text(next[key])).map((key) => named[key]),
  }
}

function compared(now: readonly { readonly name: string }[], next: readonly { readonly name: string }[]): { readonly old: string[]; readonly new: string[] } {
  const same = (a: { readonly name: string }, all: readonly { readonly name: string }[]): boolean => all.some((b) => b.name === a.name && text(b) === text(a))
  return { old: now.filter((each) => !same(each, next)).map(({ name }) => name), new: next.filter((each) => !same(each, now)).map(({ name }) => name) }
}

/** With secrets, which show themselves to nobody else: a changed one is a change. */
function text(value: unknown): string {
  return JSON.stringify(value, function (this: Record<string, unknown>, key: string, shown: unknown) {
    const whole = this[key]
    return typeof whole === 'object' && whole !== null && 'reveal' in whole ? (whole as { reveal: () => string }).reveal() : shown
  })
}
