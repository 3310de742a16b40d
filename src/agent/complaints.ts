// Says what is wrong once, and again only when it changes or a minute has passed: an outage is one thing to read, not a
// thousand lines.

import type { Logger } from '../logger.ts'

const repeatMs = 60_000

export class Complaints {
  readonly #logger: Logger
  readonly #said = new Map<string, { text: string; at: number }>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** `about` names the thing that is wrong (a queue, the API); `text` is the constant phrase for the log. */
  say(about: string, text: string, fields: Record<string, unknown>): void {
    const last = this.#said.get(about)
    const now = performance.now()
    if (last && last.text === text && now - last.at < repeatMs) return
    this.#said.set(about, { text, at: now })
    this.#logger.warn(fields, text)
  }

  /** It works again; says so if it had been complained about. */
  settle(about: string, text: string): void {
    if (this.#said.delete(about)) this.#logger.info({ about }, text)
  }
}
