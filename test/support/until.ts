// Waiting for what must come true, instead of sleeping and hoping.

import { setTimeout as delay } from 'node:timers/promises'

export interface UntilOptions {
  /** How long to wait before failing; default 30 000 ms, generous because test machines are busy. */
  readonly timeoutMs?: number
  /** Pause between two looks; default 20 ms. */
  readonly everyMs?: number
  /** Ends the sentence "waited in vain for ..."; default the condition's own source. */
  readonly what?: string
}

/**
 * Looks again and again until `condition` gives something other than undefined, null or false, and resolves to that.
 * Rejects when `timeoutMs` is over, with the last error of the condition as cause: an error counts as "not yet".
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const { timeoutMs = 30_000, everyMs = 20, what = condition.toString() } = options
  const deadline = performance.now() + timeoutMs
  for (let last: unknown; ; await delay(everyMs)) {
    try {
      const value = await condition()
      if (isThere(value)) return value
      last = undefined
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause: last })
  }
}

function isThere<T>(value: T): value is NonNullable<Exclude<T, false>> {
  return value !== undefined && value !== null && value !== false
}
