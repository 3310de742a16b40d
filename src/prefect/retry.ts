// Whether a failed call may be repeated, and when. Pure; the repeating itself is done by api.ts alone.

import { jitter } from '../async/sleep.ts'
import type { ApiError } from './errors.ts'

/**
 * safe    may be repeated after any passing trouble: reads, and writes that give the same result twice
 * never   is sent once; the caller decides (a claim)
 * lookup  before a repeat of what may have happened, asks whether it has; an answer there is the call's answer
 */
export type Retry<T> = 'safe' | 'never' | { readonly lookup: (signal: AbortSignal) => Promise<T | undefined> }

/** Those of Prefect's client (client/base.py). 500 and 504 are not among them. */
const PASSING_STATUSES = [408, 429, 502, 503]

/**
 * Milliseconds. Prefect's client begins with 2 s; a server on SQLite answers 503 while another writes, which has passed
 * after some hundred milliseconds. With the default of 5 repeats a server may be away for some 12 s.
 */
const FIRST_DELAY_MS = 400
const MAX_DELAY_MS = 30_000

export function isPassing(error: ApiError, extraCodes: readonly number[] = []): boolean {
  if (error.kind === 'unreachable' || error.kind === 'answer-lost') return true
  return error.kind === 'status' && [...PASSING_STATUSES, ...extraCodes].includes(error.status ?? 0)
}

/** Milliseconds to wait after the `attempt`-th try, counted from 1; never less than the server has asked for. */
export function chooseDelayMs(attempt: number, retryAfterMs: number | undefined, jitterFactor = 0.2): number {
  if (retryAfterMs !== undefined) return retryAfterMs * (1 + jitterFactor * Math.random())
  return jitter(Math.min(FIRST_DELAY_MS * 2 ** (attempt - 1), MAX_DELAY_MS), jitterFactor)
}
