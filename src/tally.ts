/** What a run has counted, and what it has to say of the last episodes. */
import { DESTROY, endReasons, eventNames, type RecordType } from './event.js'

/** A summary is short. */
const EPISODES_SHOWN = 5

/** The sums of a run: every line is in exactly one of them, so that lines = flows + expects + kernel + notes + ignored + rejected + held. */
export class Tally {
  /** what was last said of each of the latest episodes, by their ids */
  readonly episodes = new Map<string, string>()
  lines = 0
  bytes = 0
  flows = 0
  expects = 0
  kernel = 0
  /** lines that became a gap or a sample; of our own records also alerts and rejects */
  notes = 0
  ignored = 0
  rejected = 0
  /** lines that are not decided yet, or wait for their turn among several inputs; none at the end */
  held = 0
  /** notices of episodes */
  alerts = 0
  gaps = 0
  /** records whose time is a guess, by input */
  readonly guessed = new Map<string, number>()
  /** records printed */
  printed = 0
  /** flow records by event: new, update, destroy, entry; ends by reason; for the summary */
  readonly events = [0, 0, 0, 0]
  readonly ends = [0, 0, 0, 0, 0, 0, 0, 0]

  /** A record of ours that was read back. */
  own(type: RecordType, keys: Readonly<Record<string, unknown>>): void {
    switch (type) {
      case 'flow': {
        this.flows++
        const event = eventNames.indexOf(keys['event'] as 'new')
        if (event >= 0) this.events[event]!++
        const reason = event === DESTROY ? endReasons.indexOf((keys['end'] as { reason?: 'expired' } | undefined)?.reason ?? 'unknown') : -1
        if (reason >= 0) this.ends[reason]!++
        return
      }
      case 'expect':
        this.expects++
        return
      case 'kernel':
        this.kernel++
        return
      default:
        this.notes++
        if (type === 'gap') this.gaps++
        if (type === 'alert') this.alert(String(keys['episode']), String(keys['summary']))
    }
  }

  guess(input: string): void {
    this.guessed.set(input, (this.guessed.get(input) ?? 0) + 1)
  }

  alert(episode: string, summary: string): void {
    this.alerts++
    this.episodes.delete(episode)
    this.episodes.set(episode, summary)
    if (this.episodes.size > EPISODES_SHOWN) this.episodes.delete(this.episodes.keys().next().value!)
  }
}
