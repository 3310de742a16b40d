// What can go wrong between us and the API, as one error type whose `kind` tells what the caller may do next.
//
// Its message names method, path and Prefect's own words. It never holds a request body, a header or a query: Prefect's 422
// echoes the request, secrets included.

import { describeError } from '../errors.ts'
import type { Asked } from './route.ts'

/**
 * unreachable  the request never left: as if the call had not been made
 * answer-lost  it left, and no answer came: it may have been carried out
 * status       the server refused, or failed
 * malformed    an answer came that Prefect's API does not give
 */
export type ApiErrorKind = 'unreachable' | 'answer-lost' | 'status' | 'malformed'

export interface ApiErrorOptions {
  readonly kind: ApiErrorKind
  readonly method: string
  readonly path: string
  /** HTTP status, when there was an answer. */
  readonly status?: number | undefined
  /** Prefect's own text, cut; undefined when the answer was not Prefect's. */
  readonly detail?: string | undefined
  /** Prefect itself says that the object does not exist (not a proxy, and not a wrong base URL). */
  readonly isNotFound?: boolean | undefined
  /** False is certain: the call has had no effect on the server. */
  readonly mayHaveHappened: boolean
  /** Milliseconds that the server asks us to stay away. */
  readonly retryAfterMs?: number | undefined
  readonly cause?: unknown
}

export class ApiError extends Error {
  readonly kind: ApiErrorKind
  readonly method: string
  readonly path: string
  readonly status: number | undefined
  readonly detail: string | undefined
  readonly isNotFound: boolean
  readonly mayHaveHappened: boolean
  readonly retryAfterMs: number | undefined

  constructor(message: string, options: ApiErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'ApiError'
    this.kind = options.kind
    this.method = options.method
    this.path = options.path
    this.status = options.status
    this.detail = options.detail
    this.isNotFound = options.isNotFound ?? false
    this.mayHaveHappened = options.mayHaveHappened
    this.retryAfterMs = options.retryAfterMs
  }

  /** What a person can do about it, one sentence; undefined when there is nothing to do but wait. */
  get hint(): string | undefined {
    return buildHint(this.kind, this.status, this.isNotFound)
  }

  /** The same call would be refused again, today and tomorrow: 4xx other than 401, 403, 408 and 429. */
  get isFinal(): boolean {
    const { status } = this
    if (this.kind !== 'status' || status === undefined || status < 400 || status >= 500) return false
    // A 404 that is not Prefect's own comes from a proxy or a wrong base URL, and heals when that is put right.
    if (status === 404) return this.isNotFound
    return ![401, 403, 408, 429].includes(status)
  }
}

/** What a person can do about it, where that can be told from the answer. */
function buildHint(kind: ApiErrorKind, status: number | undefined, isNotFound: boolean): string | undefined {
  if (status === 401 || status === 403) {
    return 'Check PREFECT_API_KEY (Prefect Cloud) or PREFECT_API_AUTH_STRING (a server of your own).'
  }
  if (kind === 'unreachable') return 'Is the server running, and is the API URL right, with its /api?'
  const isForeign = kind === 'malformed' || (status === 404 && !isNotFound)
  return isForeign ? 'Is the API URL right, with its /api?' : undefined
}

/** `sent: false` is certain: not a byte of the request has left. */
export function buildTransportError(error: Error & { readonly sent: boolean }, asked: Asked, origin: string): ApiError {
  const call = `${asked.method} ${asked.path}`
  const lead = error.sent
    ? `No answer from ${origin} to ${call}`
    : `Could not reach the Prefect API at ${origin} for ${call}`
  return new ApiError(`${lead}: ${describeError(error)}`, {
    kind: error.sent ? 'answer-lost' : 'unreachable',
    ...asked,
    mayHaveHappened: error.sent && asked.method !== 'GET',
    cause: error.cause,
  })
}

/** Undefined where Prefect itself says that there is no such thing; all other errors pass. */
export async function undefinedIfNotFound<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof ApiError && error.isNotFound) return undefined
    throw error
  }
}
