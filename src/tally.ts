/** The sums of a run: every line is in exactly one of them, so that lines = flows + expects + kernel + notes + ignored + rejected. */
export class Tally {
  lines = 0
  bytes = 0
  flows = 0
  expects = 0
  kernel = 0
  /** lines that became a gap or a sample */
  notes = 0
  ignored = 0
  rejected = 0
  alerts = 0
  gaps = 0
  /** records printed */
  printed = 0
  /** flow records by event: new, update, destroy, entry; ends by reason; for the summary */
  readonly events = [0, 0, 0, 0]
  readonly ends = [0, 0, 0, 0, 0, 0, 0, 0]
}
