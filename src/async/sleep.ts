// Waiting that hears when to stop: every pause in the program goes through here.

import { setTimeout as delay } from 'node:timers/promises'

/**
 * Waits `ms` milliseconds on the monotonic clock.
 * Ends early without an error when `signal` is aborted: callers look at `signal.aborted`, which they must do anyway.
 */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || ms <= 0) return
  try {
    await delay(ms, undefined, { signal })
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** Waits for `work`, for at most `ms` milliseconds, or until the signal is aborted. Rejects only with what `work` rejects with by then. */
export async function atMost(ms: number, work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const done = new AbortController()
  try {
    await Promise.race([work, sleep(ms, AbortSignal.any([signal, done.signal]))])
  } finally {
    done.abort() // a timer that is left over would keep the process
  }
}

/** Draws a duration within ±`factor` of `ms`, so that many agents do not ask in step. */
export function jitter(ms: number, factor: number): number {
  return ms * (1 + factor * (2 * Math.random() - 1))
}
