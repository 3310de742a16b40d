// Tries again what may pass. The only place in storage that does.

import { jitter, sleep } from '../async/sleep.ts'
import { errorCode } from '../errors.ts'
import { TransientError } from './source.ts'

export const maxAttempts = 5
const firstPauseMs = 200
const longestPauseMs = 30_000

/** Codes of cut, refused and timed-out connections, Node's and undici's. A name that does not exist is not among them. */
const transientCodes =
  /^(ECONNRESET|ECONNREFUSED|ECONNABORTED|EPIPE|ETIMEDOUT|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ENETDOWN|UND_ERR_(SOCKET|CONNECT_TIMEOUT|HEADERS_TIMEOUT|BODY_TIMEOUT|RES_CONTENT_LENGTH_MISMATCH|INFO|CLOSED|DESTROYED)|HPE_[A-Z_]+)$/

export function isTransient(error: unknown): boolean {
  return error instanceof TransientError || transientCodes.test(errorCode(error) ?? '')
}

/** Does `work`, and again up to five times in all while its failures are transient. `attempt` counts from 0. */
export async function withRetries<T>(work: (attempt: number) => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work(attempt)
    } catch (error) {
      await pauseBeforeRetry(error, attempt, signal)
    }
  }
}

/**
 * The same for what keeps what has arrived when it fails: as long as each try brings something, it still gets there.
 * `progress` says how much there is.
 */
export async function withResumes<T>(work: () => Promise<T>, progress: () => number, signal: AbortSignal): Promise<T> {
  let before = progress()
  for (let attempt = 0; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (progress() > before) attempt = 0
      before = progress()
      await pauseBeforeRetry(error, attempt, signal)
    }
  }
}

/** Waits before the next attempt, or throws the error when there is no point in one. */
export async function pauseBeforeRetry(error: unknown, attempt: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (!isTransient(error) || attempt + 1 >= maxAttempts) throw error
  const asked = error instanceof TransientError ? error.retryAfterMs : undefined
  await sleep(Math.min(asked ?? jitter(firstPauseMs * 2 ** attempt, 0.3), longestPauseMs), signal)
  signal.throwIfAborted()
}
