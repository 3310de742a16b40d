// Waiting for an API server that is away or asks for patience.

import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { ClusterError, isRefusal, mayPass } from './kubernetes-client.ts'

const longestPauseMs = 5_000
const longestWishMs = 60_000

export interface Patience {
  readonly logger: Logger
  /** Undefined: as long as it takes. */
  readonly limitMs?: number
}

/**
 * Repeats a call that may be repeated until the API server answers it. 429 is obeyed for as long as it asks, and said.
 * Rejects with the signal's reason, with a refusal that will not pass, or with the last error when `limitMs` is over.
 */
export async function patiently<Answer>(
  call: () => Promise<Answer>,
  { logger, limitMs = Number.POSITIVE_INFINITY }: Patience,
  signal: AbortSignal,
): Promise<Answer> {
  const startMs = performance.now()
  for (let pauseMs = 200; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      return await call()
    } catch (error) {
      signal.throwIfAborted()
      const isLate = performance.now() - startMs > limitMs
      if (!(error instanceof ClusterError) || !mayPass(error) || isLate) throw error
      const wishMs = Math.min(error.retryAfterMs ?? 0, longestWishMs)
      const fields = { err: describeError(error), again_in_ms: Math.round(Math.max(pauseMs, wishMs)) }
      if (isRefusal(error, 429)) logger.warn(fields, 'kubernetes api server limits our calls')
      else logger.warn(fields, 'kubernetes api server does not answer, trying again')
      await sleep(jitter(Math.max(pauseMs, wishMs), 0.2), signal)
      signal.throwIfAborted()
    }
  }
}
