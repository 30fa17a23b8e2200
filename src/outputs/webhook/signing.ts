/**
 * Signatures over the bytes that are sent, so after compression. Standard Webhooks (the specification of that name, version 1), and the ways of GitHub
 * (X-Hub-Signature-256) and Slack (X-Slack-Signature).
 */
import { createHmac } from 'node:crypto'
import type { Signing } from './options.js'

/** Headers that prove where `body` comes from. `seconds`: time of the attempt. The keys of the standard scheme are `whsec_` and base64, of the others any text. */
export function signatureHeaders({ scheme, secrets }: Signing, id: string, seconds: number, body: Uint8Array): Record<string, string> {
  const keys = secrets.map((secret) => secret.reveal())
  if (scheme === 'standard') {
    const signatures = keys.map((key) => `v1,${hmac(Buffer.from(key.replace(/^whsec_/, ''), 'base64'), `${id}.${seconds}.`, body).toString('base64')}`)
    return { 'webhook-id': id, 'webhook-timestamp': String(seconds), 'webhook-signature': signatures.join(' ') }
  }
  if (scheme === 'github') return numbered('x-hub-signature-256', keys.map((key) => `sha256=${hmac(key, '', body).toString('hex')}`))
  return {
    'x-slack-request-timestamp': String(seconds),
    ...numbered('x-slack-signature', keys.map((key) => `v0=${hmac(key, `v0:${seconds}:`, body).toString('hex')}`)),
  }
}

function hmac(key: string | Buffer, prefix: string, body: Uint8Array): Buffer {
  return createHmac('sha256', key).update(prefix).update(body).digest()
}

/** These two schemes know one signature: the first key's has the name that receivers look at, a further one `-2`. */
function numbered(name: string, values: readonly string[]): Record<string, string> {
  return Object.fromEntries(values.map((value, i) => [i === 0 ? name : `${name}-${i + 1}`, value]))
}
