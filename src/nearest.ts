/** "Did you mean": the word that a mistyped one was to be. */

/** A beginning of fewer letters is that of too much. */
const BEGINNING_LEAST = 3

/** The nearest of `known`, whatever the case of its letters: of those that begin with the word, else of those that differ from it in at most a third; undefined where there is none. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const typed = word.toLowerCase()
  const begun = typed.length < BEGINNING_LEAST ? [] : known.filter((name) => name.toLowerCase().startsWith(typed))
  const scored = (begun.length > 0 ? begun : known).map((name) => ({ name, distance: editDistance(typed, name.toLowerCase()) }))
  const best = scored.reduce((least, next) => (next.distance < least.distance ? next : least), { name: '', distance: Infinity })
  if (begun.length > 0) return best.name === '' ? begun[0] : best.name
  return best.distance <= Math.max(1, Math.floor(Math.max(word.length, best.name.length) / 3)) ? best.name : undefined
}

/** Letters put in, left out, changed, or two neighbours exchanged (optimal string alignment). Long words are not typing errors. */
function editDistance(a: string, b: string): number {
  if (a.length > 40 || b.length > 40) return Infinity
  const rows = Array.from({ length: a.length + 1 }, (_, i) => Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)))
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const change = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? rows[i - 2]![j - 2]! + 1 : Infinity
      rows[i]![j] = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, change, swap)
    }
  }
  return rows[a.length]![b.length]!
}

/** What a complaint about `word` ends with: the word that was meant, else those that there are. */
export function meantOrExpected(word: string, known: readonly string[]): string {
  const meant = nearest(word, known)
  return meant === undefined ? `expected ${known.length === 1 ? '' : 'one of '}${known.join(', ')}` : `did you mean "${meant}"?`
}
