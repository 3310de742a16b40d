// How the API has been lately, as seen by its callers; for /ready and the status page. Pure.

import type { ApiError } from './errors.ts'

export interface Health {
  /** Local clock, milliseconds; undefined before the first success. */
  readonly lastSuccessAt: number | undefined
  /** Requests in a row that failed: no answer, 401, 403, 408, 429, 5xx, or not Prefect's. */
  readonly consecutiveFailures: number
  /** The sentence of the last failure, while there is one. */
  readonly lastError: string | undefined
}

export const beforeFirstCall: Health = { lastSuccessAt: undefined, consecutiveFailures: 0, lastError: undefined }

export function afterSuccess(): Health {
  return { lastSuccessAt: Date.now(), consecutiveFailures: 0, lastError: undefined }
}

/** A refusal in Prefect's own words (not found, exists already, not accepted) shows that the server is well. */
export function afterError(health: Health, error: ApiError): Health {
  if (error.isFinal) return afterSuccess()
  return { ...health, consecutiveFailures: health.consecutiveFailures + 1, lastError: error.message }
}
