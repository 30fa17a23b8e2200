/** What a webhook is opened with: the configuration's words in the units of the program, and what the program hands in. */
import type { DeadLetters, DeliveryStatus, Queue } from '../../stage.js'
import type { AddressBook } from './addresses.js'

/** A text that shows itself only to who asks by name. */
export interface Hidden {
  reveal(): string
}

export type BodyKind = 'ndjson' | 'json' | 'alertmanager' | 'slack' | 'cloudevents' | 'template'

export interface TlsOptions {
  /** files in PEM, read at every connection, so that they may be renewed; null: the system's authorities, no client certificate */
  readonly ca_file: string | null
  readonly cert_file: string | null
  readonly key_file: string | null
  readonly min_version: 'TLSv1.2' | 'TLSv1.3'
}

export interface Signing {
  readonly scheme: 'standard' | 'github' | 'slack'
  readonly secrets: readonly Hidden[]
}

/** What the configuration of an output of type `webhook` says. Durations are milliseconds, sizes bytes. */
export interface WebhookConfig {
  readonly name: string
  readonly url: { readonly address: Hidden; readonly origin: string }
  readonly body: BodyKind
  readonly template: string | null
  /** for people: where it says what to do; and where an Alertmanager's alerts come from, null as `statusUrl` says */
  readonly runbook_url: string | null
  readonly generator_url: string | null
  readonly notify: 'all' | 'changes'
  readonly batch: { readonly records: number; readonly bytes: number; readonly every: number }
  readonly gzip: boolean
  readonly token: Hidden | null
  readonly headers: Readonly<Record<string, Hidden>>
  readonly signing: Signing | null
  readonly tls: TlsOptions
  readonly timeouts: { readonly connect: number; readonly headers: number; readonly total: number }
  readonly retry: { readonly first: number; readonly max: number; readonly circuit_after: number }
  readonly max_retry_after: number
  readonly max_age: number
  /** what becomes of records whose request is blamed as such: kept, or dead letters */
  readonly when_denied: 'pause' | 'refuse'
}

export interface WebhookOptions {
  readonly config: WebhookConfig
  /** what waits for the receiver; `max_age`, the limit and the policy are its business. Closed by who opened it, after the output. */
  readonly queue: Queue
  /** what is refused for good */
  readonly deadLetters: DeadLetters
  /** the output's own folder, made where it is missing, for what must outlive a restart beside the queue; null: nothing does */
  readonly folder: string | null
  /** name of this host, for records without one */
  readonly host: string
  /** gap records go to an Alertmanager or to Slack only when someone asked for them */
  readonly wantsGaps: boolean
  /** where this program shows what it does, '' nowhere */
  readonly statusUrl: string
  /** when the program started by the wall clock as it is set now, milliseconds since the epoch: older episodes are not told */
  readonly startedAt: () => number
  /** one sentence for the operator; nothing secret is in it */
  readonly report: (message: string) => void
  /** how long `close` goes on when nobody says otherwise */
  readonly graceMs: number
  /** milliseconds since the epoch; a number from 0 up to 1; names to addresses: for tests */
  readonly now?: () => number
  readonly random?: () => number
  readonly addresses?: AddressBook
}

/** For metrics and for people. Counts are since the start. */
export interface WebhookStatus extends DeliveryStatus {
  readonly name: string
  /** scheme, host and port: the rest of the URL may be a key */
  readonly endpoint: string
  /** requests that the receiver has acknowledged */
  readonly requests: number
  readonly circuit: 'closed' | 'open' | 'half-open'
  /** why nothing is sent until someone mends it; '' when it is */
  readonly paused: string
  /** milliseconds since the epoch; null: none yet */
  readonly lastSuccess: number | null
  readonly nextAttempt: number | null
  /** when the receiver's certificate ends, milliseconds since the epoch; null: not known */
  readonly certificateExpires: number | null
}
