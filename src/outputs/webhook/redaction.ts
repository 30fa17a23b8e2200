/**
 * What of an output must not show, in every form in which a receiver may say it again: whole, a part of it (a key of the URL's path, a header's value without its
 * scheme), decoded, or escaped.
 */
import type { WebhookConfig } from './options.js'

const HIDDEN = '[secret]'
/** A secret shorter than this would blacken half of any text. */
const SECRET_CHARS_MIN = 4
/** Of a path or a header's value only what is too long for a word. */
const PART_CHARS_MIN = 8
const KEY_LIKE = /[\w+/=-]{16,}/g

export class Redaction {
  /** longest first, so that no part of one stays */
  readonly #texts: readonly string[]

  constructor({ url, token, headers, signing, template }: Pick<WebhookConfig, 'url' | 'token' | 'headers' | 'signing' | 'template'>) {
    // keys of the signing scheme never leave, but a receiver could know them
    const keys = (signing?.secrets ?? []).flatMap((secret) => [secret.reveal(), secret.reveal().replace(/^(?:whsec|whsk)_/, '')])
    const sent = Object.values(headers).flatMap((secret) => partsOfHeader(secret.reveal()))
    // receivers that want their key in the body get it so
    const written = (template ?? '').match(KEY_LIKE) ?? []
    const all = [...(token === null ? [] : [token.reveal()]), ...sent, ...keys, ...written, ...partsOfUrl(url.address.reveal())]
    this.#texts = [...new Set(all.flatMap(formsOf))].filter((text) => text.length >= SECRET_CHARS_MIN).sort((a, b) => b.length - a.length)
  }

  text(text: string): string {
    return this.#texts.reduce((left, secret) => left.replaceAll(secret, HIDDEN), text)
  }

  /** Of an answer only the beginning is kept: what it was cut in is no whole secret, and yet too much of one. */
  answer(bytes: Uint8Array): string {
    const whole = this.text(Buffer.from(bytes).toString('utf8').replace(/\ufffd$/, ''))
    for (const secret of this.#texts) {
      for (let length = Math.min(secret.length - 1, whole.length); length >= SECRET_CHARS_MIN; length--) {
        if (whole.endsWith(secret.slice(0, length))) return `${whole.slice(0, -length)}${HIDDEN}`
      }
    }
    return whole
  }
}

function partsOfUrl(address: string): string[] {
  const { pathname, search, searchParams, username, password } = new URL(address)
  const values = search.slice(1).split(/[&=]/).filter((_, i) => i % 2 === 1)
  return [address, pathname + search, search.slice(1), pathname.length > 1 ? pathname : '', username, password, ...longOnes(pathname.split('/')), ...values, ...searchParams.values()]
}

/** `Bearer KEY`, `Basic BASE64`, `Token token="KEY"`. */
function partsOfHeader(value: string): string[] {
  const basic = /^Basic +(\S+)$/i.exec(value)?.[1]
  const pair = basic === undefined ? '' : Buffer.from(basic, 'base64').toString('utf8')
  return [value, pair, pair.slice(pair.indexOf(':') + 1), ...longOnes(value.split(/[\s,;="]+/))]
}

function longOnes(parts: readonly string[]): string[] {
  return parts.filter((part) => part.length >= PART_CHARS_MIN)
}

/** As it is; from a URL; within JSON, a URL and HTML. */
function formsOf(text: string): string[] {
  const html = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
  return [text, JSON.stringify(text).slice(1, -1), html, ...[decodeURIComponent, encodeURIComponent].map((form) => formOf(text, form))]
}

/** Not every text has the form. */
function formOf(text: string, form: (text: string) => string): string {
  try {
    return form(text)
  } catch {
    return text
  }
}
