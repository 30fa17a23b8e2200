/**
 * Hints that something has changed in a folder, by chokidar over inotify. They only shorten the wait: events are merged, dropped and lost without a word (a full
 * queue is not even reported), so the rescan is what is relied upon. One watch a folder: a folder's raw events name the file that was written to.
 */
import type { FSWatcher } from 'chokidar'
import { shown } from './identity.js'

export class Hints {
  readonly #onHint: (name: string, isMoved: boolean) => void
  readonly #onTrouble: (message: string) => void
  #watcher: FSWatcher | null = null
  #folders = new Set<string>()
  #closed = false
  #opening: Promise<void> | null = null

  /** `onHint` gets the name within its folder, which may be '' or mangled where it is not UTF-8; `isMoved` when it was made, renamed or removed. */
  constructor(onHint: (name: string, isMoved: boolean) => void, onTrouble: (message: string) => void) {
    this.#onHint = onHint
    this.#onTrouble = onTrouble
  }

  /** These folders, and no others, from now on. */
  watch(folders: ReadonlySet<string>): void {
    if (this.#closed) return
    const wanted = new Set([...folders].map(shown))
    const added = [...wanted].filter((folder) => !this.#folders.has(folder))
    const gone = [...this.#folders].filter((folder) => !wanted.has(folder))
    if (added.length === 0 && gone.length === 0) return
    this.#folders = wanted
    this.#opening = (this.#opening ?? this.#open()).then(() => {
      if (this.#closed) return
      if (gone.length > 0) this.#watcher?.unwatch(gone)
      if (added.length > 0) this.#watcher?.add(added)
    })
  }

  close(): void {
    this.#closed = true
    const watcher = this.#watcher
    this.#watcher = null
    watcher?.close().catch(() => {})
  }

  async #open(): Promise<void> {
    const { watch } = await import('chokidar')
    if (this.#closed) return
    const watcher = watch([], {
      depth: 0,
      ignoreInitial: true,
      atomic: false,
      followSymlinks: true,
      // the folders alone: not a watch for every file in them
      ignored: (path) => !this.#folders.has(path),
    })
    watcher.on('raw', (event, name) => this.#onHint(typeof name === 'string' ? name : '', event === 'rename'))
    watcher.on('error', (error) => this.#fails(error))
    this.#watcher = watcher
  }

  #fails(error: unknown): void {
    if (this.#closed) return
    const { code } = error as NodeJS.ErrnoException
    const why =
      code === 'ENOSPC'
        ? 'fs.inotify.max_user_watches is used up'
        : code === 'EMFILE'
          ? 'fs.inotify.max_user_instances, or the limit of open files, is used up'
          : error instanceof Error
            ? error.message
            : String(error)
    this.#onTrouble(`changes of followed files are found by looking every second, not at once: ${why}`)
    this.close()
  }
}
