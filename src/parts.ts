/** The catalogue: every format, input and output by name. Help and checks derive from it. */
import { conntrackNotice } from './formats/conntrack-notice.js'
import { conntrackSave } from './formats/conntrack-save.js'
import { conntrackXml } from './formats/conntrack-xml.js'
import { expectation, expectationXml } from './formats/expectation.js'
import { jsonLines } from './formats/json-lines.js'
import { openFile } from './outputs/file.js'
import { openStdout } from './outputs/stdout.js'
import type { LineFormat, Output } from './stage.js'

/** `conntrack-text` is read by the loop itself: almost every line is of it. The others are asked in this order how they begin. */
export const TEXT_FORMAT = 'conntrack-text'
export const lineFormats: readonly LineFormat[] = [expectationXml, conntrackXml, conntrackSave, expectation, conntrackNotice, jsonLines]
export const formatNames: readonly string[] = [TEXT_FORMAT, ...lineFormats.map((format) => format.name)]

/** How an OUTPUT on the command line is written, and how it is opened. */
export const outputKinds = [
  { form: '-', says: 'standard output', fits: (text: string) => text === '-', open: (_text: string, terminal: boolean): Output => openStdout(terminal) },
  { form: 'file:PATH', says: 'appended to PATH', fits: (text: string) => /^file:./.test(text), open: (text: string): Output => openFile(text.slice(5)) },
] as const
