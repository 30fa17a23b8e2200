/** The catalogue of what `conntrail doctor` looks for. Each check is data and a pure judgement; their order is that in which findings of one severity are told. */
import { deliveryChecks } from './delivery.js'
import type { Check } from './model.js'
import { readingChecks } from './reading.js'
import { settingsChecks } from './settings.js'
import { storageChecks } from './storage.js'

export const checks: readonly Check[] = [...readingChecks, ...settingsChecks, ...storageChecks, ...deliveryChecks]
