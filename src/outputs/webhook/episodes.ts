/**
 * What an output has told of the episodes that are open: which of them it lets through, what people were told last, and the alerts that an Alertmanager wants to
 * hear again and again. Kept in one file that is replaced as a whole, so that a restart goes on where it was.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { notedAt } from '../../clock.js'
import type { PostableAlert } from '../../printers/bodies/alertmanager.js'
import type { Told } from '../../printers/bodies/changes.js'
import { isMap, type RecordValue, textOr } from '../../printers/bodies/record.js'

const FILE = 'episodes.json'
const VERSION = 1
/** A source that opens episodes and never ends them must not fill the memory. */
const EPISODES_MAX = 10_000

interface Open {
  readonly alert: PostableAlert
  /** milliseconds since the epoch: of the last notice */
  readonly at: number
}

export class Episodes {
  readonly #path: string | null
  readonly #report: (message: string) => void
  readonly #admitted = new Set<string>()
  readonly #told = new Map<string, Told>()
  readonly #open = new Map<string, Open>()
  /** when the open alerts were sent last */
  #repeatedAt = 0
  #hasFailed = false
  #isChanged = false
  #saving: Promise<void> = Promise.resolve()

  /** A damaged file is reported and costs what it says above, never the start. Throws when the folder cannot be made. `now` in milliseconds. */
  constructor(folder: string | null, now: number, report: (message: string) => void) {
    this.#report = report
    this.#path = folder === null ? null : join(folder, FILE)
    if (folder === null) return
    mkdirSync(folder, { recursive: true, mode: 0o750 })
    this.#load(this.#path!, now)
  }

  /** Is the notice to be sent at all? Not when its episode's last evidence is older than `since` (milliseconds), unless its beginning has been let through. */
  admits(notice: RecordValue, since: number): boolean {
    const episode = textOr(notice['episode'], '')
    const isKnown = this.#admitted.has(episode)
    const evidence = Date.parse(textOr(notice['ended'], textOr(notice['time'], '')))
    if (!isKnown && evidence < since) return false
    const isOver = notice['status'] === 'resolved'
    if (isOver === isKnown) {
      if (isOver) this.#admitted.delete(episode)
      else remember(this.#admitted, episode)
      this.#isChanged = true
      void this.save()
    }
    return true
  }

  told(subject: string): Told | null {
    return this.#told.get(subject) ?? null
  }

  /** The receiver has it. */
  tell(subject: string, told: Told, isOver: boolean): void {
    this.#isChanged = true
    this.#told.delete(subject)
    if (!isOver) {
      this.#told.set(subject, told)
      if (this.#told.size > EPISODES_MAX) this.#told.delete(this.#told.keys().next().value!)
    }
  }

  /** The alerts that an Alertmanager has, by episode. */
  openAlerts(): [string, PostableAlert][] {
    return [...this.#open].map(([episode, { alert }]) => [episode, alert])
  }

  /** The Alertmanager has it. `at`: milliseconds since the epoch. */
  posted(episode: string, alert: PostableAlert, at: number): void {
    this.#isChanged = true
    if (this.#open.size === 0) this.#repeatedAt = at
    this.#open.delete(episode)
    if (alert.endsAt === undefined) {
      this.#open.set(episode, { alert, at })
      if (this.#open.size > EPISODES_MAX) this.#open.delete(this.#open.keys().next().value!)
    }
  }

  get hasOpen(): boolean {
    return this.#open.size > 0
  }

  get repeatedAt(): number {
    return this.#repeatedAt
  }

  /** Alerts to be sent again, oldest first. Those without a notice since `oldest` (milliseconds) are given up: nobody follows their episode any more. */
  repeats(oldest: number): PostableAlert[] {
    for (const [episode, { at }] of this.#open) if (at < oldest) this.#open.delete(episode)
    return [...this.#open.values()].map(({ alert }) => alert)
  }

  repeated(at: number): void {
    this.#repeatedAt = at
    this.#isChanged = true
  }

  /** Resolves when what has changed is safe; before the records behind it are acknowledged, so that nothing is told twice. Never throws. */
  async save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write())
    return this.#saving
  }

  async #write(): Promise<void> {
    if (this.#path === null || !this.#isChanged) return
    this.#isChanged = false
    const known = { admitted: [...this.#admitted], told: [...this.#told], open: [...this.#open], repeatedAt: this.#repeatedAt }
    const text = JSON.stringify({ version: VERSION, ...known })
    try {
      const file = await open(`${this.#path}.next`, 'w', 0o640)
      try {
        await file.writeFile(text)
        await file.datasync()
      } finally {
        await file.close()
      }
      await rename(`${this.#path}.next`, this.#path)
      this.#hasFailed = false
    } catch (error) {
      this.#isChanged = true
      if (!this.#hasFailed) this.#report(`${this.#path} cannot be written: ${(error as Error).message}; after a restart episodes may be told again`)
      this.#hasFailed = true
    }
  }

  #load(path: string, now: number): void {
    let text: string
    try {
      text = readFileSync(path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#report(`${path} cannot be read: ${(error as Error).message}; episodes that are open may be told again`)
      return
    }
    try {
      const found: unknown = JSON.parse(text)
      if (!isMap(found) || found['version'] !== VERSION) throw new Error('it is of another version')
      for (const episode of found['admitted'] as string[]) this.#admitted.add(episode)
      for (const [subject, told] of found['told'] as [string, Told][]) this.#told.set(subject, { ...told, at: notedAt(told.at, now) })
      for (const [episode, open] of found['open'] as [string, Open][]) this.#open.set(episode, { ...open, at: notedAt(open.at, now) })
      this.#repeatedAt = notedAt(Number(found['repeatedAt']), now)
    } catch (error) {
      this.#report(`${path} is damaged (${(error as Error).message}) and left aside; episodes that are open may be told again`)
    }
  }
}

function remember(set: Set<string>, item: string): void {
  set.add(item)
  if (set.size > EPISODES_MAX) set.delete(set.values().next().value!)
}
