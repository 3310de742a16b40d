// Says that the API does not answer: once after two seconds without a good answer, then once a minute, and when it is back.
//
// A server on SQLite answers 503 while another call writes, which has passed a moment later and is nothing to read.

import type { Logger } from '../logger.ts'
import type { ApiError } from './errors.ts'

const patienceMs = 2_000
const repeatMs = 60_000

export class OutageNotice {
  readonly #logger: Logger
  #failingSince: number | undefined
  #saidAt: number | undefined

  constructor(logger: Logger) {
    this.#logger = logger
  }

  succeeded(): void {
    if (this.#saidAt !== undefined && this.#failingSince !== undefined) {
      const lasted = Math.round((performance.now() - this.#failingSince) / 1000)
      this.#logger.info({ after_s: lasted }, 'Prefect API answers again')
    }
    this.#failingSince = undefined
    this.#saidAt = undefined
  }

  failed(error: ApiError): void {
    const now = performance.now()
    this.#failingSince ??= now
    if (now - this.#failingSince < patienceMs || now - (this.#saidAt ?? Number.NEGATIVE_INFINITY) < repeatMs) return
    this.#saidAt = now
    this.#logger.warn({ reason: error.message, hint: error.hint }, 'Prefect API does not answer as it should')
  }
}
