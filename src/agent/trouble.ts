// Trouble of this host: disk, memory, an engine that is down. While it lasts nothing is claimed, for whatever is claimed
// could not be launched.

import type { Logger } from '../logger.ts'
import type { Journal } from './journal.ts'

/** A run that this host cannot start is given back this often, at growing distance, then it is Crashed. */
export const giveBackDelaysSeconds = [30, 120, 480] as const

const shortestPauseMs = 5_000
const longestPauseMs = 120_000

export class HostTrouble {
  readonly #journal: Journal
  readonly #logger: Logger
  #until = 0
  #pauseMs = 0
  #reason: string | undefined

  constructor(journal: Journal, logger: Logger) {
    this.#journal = journal
    this.#logger = logger
  }

  /** What is wrong with this host, for `/ready`; undefined when nothing is known to be. */
  get reason(): string | undefined {
    return this.#reason
  }

  note(reason: string): void {
    this.#pauseMs = Math.min(longestPauseMs, Math.max(shortestPauseMs, this.#pauseMs * 2))
    this.#until = performance.now() + this.#pauseMs
    this.#reason = reason
    this.#logger.error(
      { reason, pause_seconds: this.#pauseMs / 1000 },
      'this host is in trouble; claiming nothing for now',
    )
  }

  /** Something was launched: the host is well. */
  settle(): void {
    if (this.#reason === undefined) return
    this.#logger.info({ was: this.#reason }, 'this host can launch runs again')
    this.#reason = undefined
    this.#pauseMs = 0
  }

  /**
   * How many runs may be claimed now, of `free` slots: none while the pause lasts or the journal has no room, one to find
   * out whether the trouble is over.
   */
  allowance(free: number): number {
    if (free <= 0 || performance.now() < this.#until) return 0
    if (this.#reason === undefined) return free
    if (this.#journal.hasRoom()) return 1
    this.note(this.#reason)
    return 0
  }
}
