/**
 * What stays of a segment when something is taken out of it, or when the disk has damaged it: the same frames without the lines that go, and holes in their
 * place.
 */
import { type Broken, FRAME_BYTES, frameHead, scan } from './frame.js'
import { asBuffer, eachLine, type Span, spanOfBoth, timeOf, typeOf } from './lines.js'
import type { Segment } from './segment.js'

const NO_LINES = Buffer.alloc(0)
const LINE_END = Buffer.from('\n')

export interface Sifting {
  readonly segment: Segment
  /** `done`: delivered; it goes, and is no loss */
  readonly fate: (seq: number, type: string) => 'keep' | 'lose' | 'done'
  /** a record that the file has not got any more, where it is known from elsewhere */
  readonly replacement: (seq: number) => Uint8Array | null
  readonly setAside: (broken: Broken) => Promise<void>
}

export interface Sifted {
  readonly parts: readonly Uint8Array[]
  /** records kept */
  readonly live: number
  readonly lost: number
  readonly lostSpan: Span
  /** records that were waiting and that nobody has any more */
  readonly missing: number
}

export async function sift({ segment, fate, replacement, setAside }: Sifting): Promise<Sifted> {
  const kept = new Kept(segment.firstSeq, segment.firstTime)
  let lost = 0
  let lostSpan: Span = { from: null, to: null }
  let missing = 0
  /** bytes that are no frame, since the last one */
  let broken = 0
  const lacking = (from: number, to: number): void => {
    // so short is only a hole, and who was in it is counted already
    if (broken === FRAME_BYTES) return
    for (let seq = from; seq < to; seq++) {
      if (fate(seq, '') === 'done') continue
      const bytes = replacement(seq)
      if (bytes === null) missing++
      else kept.add(seq, 1, Buffer.concat([bytes, LINE_END]))
    }
  }
  let expected = segment.firstSeq
  for await (const item of scan((at, bytes) => segment.bytes.read(at, bytes), 0, segment.size)) {
    if (item.lines === null) {
      broken += item.end - item.at
      await setAside(item)
      continue
    }
    // a copy of what came before
    if (item.seq < expected) continue
    lacking(expected, item.seq)
    broken = 0
    expected = item.seq + item.count
    kept.time = item.time
    const lines = asBuffer(item.lines)
    let seq = item.seq
    let run = { seq, count: 0, from: 0, to: 0 }
    const endRun = (): void => {
      if (run.count > 0) kept.add(run.seq, run.count, lines.subarray(run.from, run.to))
    }
    eachLine(lines, (from, to) => {
      const what = fate(seq, typeOf(lines, from, to))
      if (what === 'keep') {
        if (run.count === 0 || run.to !== from) {
          endRun()
          run = { seq, count: 0, from, to: from }
        }
        run.count++
        run.to = to + 1
      } else if (what === 'lose') {
        lost++
        const time = timeOf(lines, from)
        lostSpan = spanOfBoth(lostSpan, { from: time, to: time })
      }
      seq++
    })
    endRun()
  }
  lacking(expected, segment.nextSeq)
  kept.add(segment.nextSeq, 0, NO_LINES)
  return { parts: kept.parts, live: kept.count, lost, lostSpan, missing }
}

/** Frames, with holes between them so that no number is missing. */
class Kept {
  readonly parts: Uint8Array[] = []
  count = 0
  /** of the frame that is read */
  time: number
  #nextSeq: number

  constructor(firstSeq: number, time: number) {
    this.#nextSeq = firstSeq
    this.time = time
  }

  add(seq: number, count: number, lines: Buffer): void {
    if (seq > this.#nextSeq) this.parts.push(frameHead(this.#nextSeq, seq - this.#nextSeq, this.time, NO_LINES))
    if (count > 0) this.parts.push(frameHead(seq, count, this.time, lines), lines)
    this.#nextSeq = seq + count
    this.count += count
  }
}
