// Says what is wrong once, and again only when it changes or a minute has passed: an outage is one thing to read, not a
// thousand lines.

import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { ApiError } from '../prefect/errors.ts'

const repeatMs = 60_000

export class Complaints {
  readonly #logger: Logger
  readonly #said = new Map<string, { text: string; at: number }>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /**
   * `about` names the thing that is wrong (a queue, the API); `text` is the constant phrase for the log. Of an `err` among
   * the fields people are told the sentence and what they can do; its stack is for debugging.
   */
  say(about: string, text: string, fields: Record<string, unknown>): void {
    const last = this.#said.get(about)
    const now = performance.now()
    if (last && last.text === text && now - last.at < repeatMs) return
    this.#said.set(about, { text, at: now })
    const { err, ...rest } = fields
    if (err === undefined) {
      this.#logger.warn(rest, text)
      return
    }
    const hint = err instanceof ApiError ? err.hint : undefined
    this.#logger.warn({ ...rest, reason: describeError(err), ...(hint === undefined ? {} : { hint }) }, text)
    this.#logger.debug({ err }, text)
  }

  /** It works again; says so if it had been complained about. */
  settle(about: string, text: string): void {
    if (this.#said.delete(about)) this.#logger.info({ about }, text)
  }
}
