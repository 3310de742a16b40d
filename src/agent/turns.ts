// Who may talk to the API next. Launches go before reports, reports before notes; and never more at once than the
// server bears: one on SQLite answers 503 as soon as several write at once, and then each answer costs more than it saves.

import PQueue from 'p-queue'
import { ApiError } from '../prefect/errors.ts'

/** What a call is for; the larger number goes first. A review goes behind reports, so that none of these grows old. */
export const urgency = { note: 0, review: 1, report: 2, claim: 3, look: 4, launch: 5 } as const
export type Urgency = keyof typeof urgency

/**
 * A server on SQLite is as quick with four at once as it gets, and a third slower with eight, for they wait for one
 * another; see docs/performance.md. One that answers in 10 ms takes 400 a second from four.
 */
const most = 4
/** As many good answers in a row as it takes to try one more at once. */
const patience = 25

export class Turns {
  readonly #queue = new PQueue({ concurrency: most })
  #good = 0

  /** Others wait for their turn: whoever can be served together with more had better gather them. */
  get isCrowded(): boolean {
    return this.#queue.size > 0
  }

  /** Runs `work` when it is its turn. Rejects with the signal's reason if that is aborted while it waits. */
  take<T>(what: Urgency, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#queue.add(() => this.#watch(work), { priority: urgency[what], signal })
  }

  async #watch<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work()
      if (++this.#good >= patience && this.#queue.concurrency < most) this.#set(this.#queue.concurrency + 1)
      return result
    } catch (error) {
      if (error instanceof ApiError && isOverload(error))
        this.#set(Math.max(1, Math.floor(this.#queue.concurrency / 2)))
      throw error
    }
  }

  #set(concurrency: number): void {
    this.#queue.concurrency = concurrency
    this.#good = 0
  }
}

function isOverload(error: ApiError): boolean {
  return error.kind !== 'status' || error.status === 429 || error.status === 503
}
