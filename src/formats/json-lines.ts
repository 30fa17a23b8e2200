/** Lines that are JSON objects: other programs' logs. They are understood to be none of our business, if they are JSON at all. */
import { page } from '../event.js'
import { IGNORED, type LineFormat, REJECTED_LINE } from '../stage.js'
import { utf8 } from './scan.js'

export const jsonLines: LineFormat = {
  name: 'json-lines',

  begins(at) {
    return page[at] === 123
  },

  read(at, lineEnd, _event, context) {
    const text = utf8(at, lineEnd).trimEnd()
    // the first line of a document that is laid out over many
    if (text === '{') return IGNORED
    try {
      JSON.parse(text)
      return IGNORED
    } catch {
      context.reason = 'begins with { and is not valid JSON'
      return REJECTED_LINE
    }
  },
}
