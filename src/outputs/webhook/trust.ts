/** Whom a TLS connection trusts and as whom it speaks, and what is wrong when it fails, in words that say what mends it. */
import { readFileSync, statSync } from 'node:fs'
import { createSecureContext, type SecureContext } from 'node:tls'
import type { TlsOptions } from './options.js'

/** Where distributions keep the authorities that an administrator may add to; Node itself brings a list of its own and does not look there. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
] as const

export class Trust {
  readonly #options: TlsOptions
  #context: SecureContext | null = null
  #madeOf = ''

  constructor(options: TlsOptions) {
    this.#options = options
  }

  /** Made anew when one of the files has changed. Throws with the file's name. */
  context(): SecureContext {
    const { ca_file, cert_file, key_file, min_version } = this.#options
    const ca = ca_file ?? SYSTEM_BUNDLES.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true) ?? null
    const madeOf = [ca, cert_file, key_file].map(version).join()
    if (this.#context === null || madeOf !== this.#madeOf) {
      const files = { ...read('ca', ca, 'tls.ca_file'), ...read('cert', cert_file, 'tls.cert_file'), ...read('key', key_file, 'tls.key_file') }
      try {
        this.#context = createSecureContext({ ...files, minVersion: min_version })
      } catch (error) {
        const named = [ca_file, cert_file, key_file].filter((file) => file !== null).join(', ')
        throw new Error(`the files of tls (${named}) cannot be used: ${(error as Error).message}; expected PEM`)
      }
      this.#madeOf = madeOf
    }
    return this.#context
  }
}

function version(path: string | null): string {
  if (path === null) return ''
  const found = statSync(path, { throwIfNoEntry: false, bigint: true })
  return `${path} ${found?.ino} ${found?.mtimeNs} ${found?.size}`
}

function read<K extends string>(key: K, path: string | null, name: string): Partial<Record<K, Buffer>> {
  if (path === null) return {}
  try {
    return { [key]: readFileSync(path) } as Record<K, Buffer>
  } catch (error) {
    throw new Error(`${name} ${path} cannot be read: ${(error as Error).message}`)
  }
}

/** OpenSSL's and Node's codes of a certificate that is not trusted. */
const certificateFaults: Readonly<Record<string, (host: string) => string>> = {
  CERT_HAS_EXPIRED: () => "the receiver's certificate has expired",
  CERT_NOT_YET_VALID: () => "the receiver's certificate is not valid yet; is this host's clock right?",
  DEPTH_ZERO_SELF_SIGNED_CERT: () => "the receiver's certificate is self-signed; to trust it name it in tls.ca_file",
  SELF_SIGNED_CERT_IN_CHAIN: () => "the receiver's certificate is of an authority that is not trusted here (self-signed in its chain); name it in tls.ca_file",
  UNABLE_TO_GET_ISSUER_CERT: () => "the authority of the receiver's certificate is not known here; name it in tls.ca_file",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: () => "the authority of the receiver's certificate is not known here; name it in tls.ca_file",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: () =>
    "the receiver does not send the certificates between its own and its authority's, or the authority is not known here; see tls.ca_file",
  CERT_REVOKED: () => "the receiver's certificate has been revoked",
  ERR_TLS_CERT_ALTNAME_INVALID: (host) => `the receiver's certificate is for another name than ${host}`,
  ERR_SSL_UNSUPPORTED_PROTOCOL: () => 'the receiver speaks only a version of TLS older than tls.min_version',
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: () => 'the receiver and tls.min_version have no version of TLS in common',
  ERR_SSL_WRONG_VERSION_NUMBER: () => 'the receiver does not speak TLS on this port; is the URL http instead of https?',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: () => 'the receiver does not speak TLS on this port; is the URL http instead of https?',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: () => 'the receiver wants a client certificate; name tls.cert_file and tls.key_file',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: () => 'the receiver does not take the client certificate in tls.cert_file',
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: () => 'the receiver does not know the authority of the client certificate in tls.cert_file',
}

/** No connection can be had: why, in one line. `isLasting`: nothing will change until someone mends it. */
export class Unreachable extends Error {
  readonly isLasting: boolean

  constructor(message: string, isLasting: boolean) {
    super(message)
    this.isLasting = isLasting
  }
}

/** What connecting to `host` met. */
export function unreachable(error: unknown, host: string): Unreachable {
  const { code = '', message = String(error), errors } = error as NodeJS.ErrnoException & { errors?: readonly Error[] }
  const certificate = certificateFaults[code]
  if (certificate !== undefined) return new Unreachable(certificate(host), true)
  // several addresses were tried
  if (errors !== undefined && errors.length > 0) return new Unreachable([...new Set(errors.map((one) => one.message))].join(', '), false)
  return new Unreachable(message === '' ? code : message, false)
}
