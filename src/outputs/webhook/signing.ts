/**
 * Signatures over the bytes that are sent, so after compression. Standard Webhooks (the specification of that name, version 1), and the ways of GitHub
 * (X-Hub-Signature-256) and Slack (X-Slack-Signature).
 */
import { createHmac, createPrivateKey, sign } from 'node:crypto'
import type { Signing } from './options.js'

/** An Ed25519 key of 32 bytes in PKCS #8 is these bytes and itself (RFC 8410 section 7). */
const ED25519_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex')
const ED25519_BYTES = 32

/**
 * Headers that prove where `body` comes from. `seconds`: time of the attempt. The keys of the standard scheme are `whsec_` and base64 of a shared secret, or `whsk_`
 * and base64 of an Ed25519 private key, its public key behind it or not; of the others any text.
 */
export function signatureHeaders({ scheme, secrets }: Signing, id: string, seconds: number, body: Uint8Array): Record<string, string> {
  const keys = secrets.map((secret) => secret.reveal())
  if (scheme === 'standard') {
    const signatures = keys.map((key) => standardSignature(key, `${id}.${seconds}.`, body))
    return { 'webhook-id': id, 'webhook-timestamp': String(seconds), 'webhook-signature': signatures.join(' ') }
  }
  if (scheme === 'github') return numbered('x-hub-signature-256', keys.map((key) => `sha256=${hmac(key, '', body).toString('hex')}`))
  return {
    'x-slack-request-timestamp': String(seconds),
    ...numbered('x-slack-signature', keys.map((key) => `v0=${hmac(key, `v0:${seconds}:`, body).toString('hex')}`)),
  }
}

function standardSignature(key: string, prefix: string, body: Uint8Array): string {
  const [kind, base64] = key.startsWith('whsk_') ? ['v1a', key.slice('whsk_'.length)] : ['v1', key.replace(/^whsec_/, '')]
  const bytes = Buffer.from(base64, 'base64')
  if (kind === 'v1') return `v1,${hmac(bytes, prefix, body).toString('base64')}`
  const privateKey = createPrivateKey({ key: Buffer.concat([ED25519_HEAD, bytes.subarray(0, ED25519_BYTES)]), format: 'der', type: 'pkcs8' })
  return `v1a,${sign(null, Buffer.concat([Buffer.from(prefix), body]), privateKey).toString('base64')}`
}

function hmac(key: string | Buffer, prefix: string, body: Uint8Array): Buffer {
  return createHmac('sha256', key).update(prefix).update(body).digest()
}

/** These two schemes know one signature: the first key's has the name that receivers look at, a further one `-2`. */
function numbered(name: string, values: readonly string[]): Record<string, string> {
  return Object.fromEntries(values.map((value, i) => [i === 0 ? name : `${name}-${i + 1}`, value]))
}
