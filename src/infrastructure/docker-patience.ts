// Waiting for an engine that is away, and not waiting for an answer that does not come.

import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { EngineError } from './docker-transport.ts'

const longestPauseMs = 5_000
/** How long an answer is waited for before one looks whether what was asked has come about, in milliseconds. */
const lookEveryMs = 3_000

export interface Patience {
  readonly logger: Logger
  readonly limitMs?: number
  /** How many answers with an error of the engine's own (5xx) are enough. */
  readonly refusals?: number
}

/**
 * Repeats a call that may be repeated until the engine answers it, however long that takes: what stands on it (a run that
 * may be alive) cannot be decided otherwise. Answers with an error of the engine's own are repeated as well. Rejects with
 * the signal's reason when the signal is aborted, with the last EngineError when `limitMs` or `refusals` is reached.
 */
export async function patiently<Answer>(
  call: () => Promise<Answer>,
  { logger, limitMs = Number.POSITIVE_INFINITY, refusals = Number.POSITIVE_INFINITY }: Patience,
  signal: AbortSignal,
): Promise<Answer> {
  const startMs = performance.now()
  let refused = 0
  for (let pauseMs = 250; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      return await call()
    } catch (error) {
      signal.throwIfAborted()
      const mayPass = error instanceof EngineError && (error.status === undefined || error.status >= 500)
      if (error instanceof EngineError && error.kind === 'refused') refused += 1
      if (!mayPass || refused >= refusals || performance.now() - startMs > limitMs) throw error
      logger.warn({ err: describeError(error) }, 'docker engine does not answer, trying again')
      await sleep(jitter(pauseMs, 0.2), signal)
      signal.throwIfAborted()
    }
  }
}

/** Makes a call and, when its answer is late, looks now and then whether it has been carried out all the same. */
export async function callOrLook<Answer>(
  call: (signal: AbortSignal) => Promise<Answer>,
  look: (signal: AbortSignal) => Promise<Answer | undefined>,
  signal: AbortSignal,
): Promise<Answer> {
  const enough = new AbortController()
  const stop = AbortSignal.any([signal, enough.signal])
  const late = Symbol('late')
  const answer = call(stop)
  try {
    for (;;) {
      const first = await orLate(answer, late)
      if (first !== late) return await answer
      signal.throwIfAborted()
      const seen = await look(stop).catch(error => {
        if (error instanceof EngineError) return undefined
        throw error
      })
      if (seen !== undefined) return seen
    }
  } finally {
    // A call that nobody waits for any more ends, and its end is no news.
    answer.catch(() => undefined)
    enough.abort()
  }
}

/** A bare timer: most answers are in time, and to abort a pause for each of them costs more than all else here. */
async function orLate<Answer, Late>(answer: Promise<Answer>, late: Late): Promise<Answer | Late> {
  const { promise, resolve } = Promise.withResolvers<Late>()
  const timer = setTimeout(() => resolve(late), lookEveryMs)
  try {
    return await Promise.race([answer, promise])
  } finally {
    clearTimeout(timer)
  }
}
