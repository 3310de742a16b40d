// Waiting for what must come true, instead of sleeping and hoping.

import { setTimeout as delay } from 'node:timers/promises'

export interface UntilOptions {
  /** How long to wait before failing; default three minutes, for a busy machine is slow and may stand still. */
  readonly timeoutMs?: number | undefined
  /** Pause between two looks, default 20 ms; longer where a look takes long, see below. */
  readonly everyMs?: number
  /** Ends the sentence "waited in vain for ..."; default the condition's own source. */
  readonly what?: string
}

/** A look at a real server costs it some 10 ms of processor time, which is taken from what is waited for. */
const PAUSE_PER_LOOK = 5
const MOST_PAUSE_MS = 500

/**
 * Looks again and again until `condition` gives something other than undefined, null or false, and resolves to that.
 * Rejects when `timeoutMs` is over, with the last error of the condition as cause: an error counts as "not yet".
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const { timeoutMs = 180_000, everyMs = 20, what = condition.toString() } = options
  const deadline = performance.now() + timeoutMs
  for (let last: unknown; ; ) {
    const start = performance.now()
    try {
      const value = await condition()
      if (isThere(value)) return value
      last = undefined
    } catch (error) {
      last = error
    }
    const now = performance.now()
    if (now > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause: last })
    await delay(Math.max(everyMs, Math.min(MOST_PAUSE_MS, PAUSE_PER_LOOK * (now - start))))
  }
}

function isThere<T>(value: T): value is NonNullable<Exclude<T, false>> {
  return value !== undefined && value !== null && value !== false
}
