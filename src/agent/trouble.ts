// When nothing may be claimed for a while: this host is in trouble (disk, memory, an engine that is down), so that whatever
// is claimed could not be launched; or the server refuses claims, though it lets itself be polled.

import type { Logger } from '../logger.ts'
import type { ApiError } from '../prefect/errors.ts'
import type { Complaints } from './complaints.ts'
import type { Journal } from './journal.ts'

/** A run that this host cannot start is given back this often, at growing distance, then it is Crashed. */
export const giveBackDelaysSeconds = [30, 120, 480] as const

const shortestPauseMs = 5_000
const longestPauseMs = 120_000

/** Grows each time that what was tried after it went wrong again. */
class Pause {
  #until = 0
  #ms = 0

  get isOver(): boolean {
    return performance.now() >= this.#until
  }

  /** Gives how long it is, in milliseconds. */
  begin(atLeastMs = 0): number {
    this.#ms = Math.min(longestPauseMs, Math.max(shortestPauseMs, this.#ms * 2))
    const ms = Math.max(this.#ms, atLeastMs)
    this.#until = performance.now() + ms
    return ms
  }

  reset(): void {
    this.#ms = 0
  }
}

export class HostTrouble {
  readonly #journal: Journal
  readonly #logger: Logger
  readonly #pause = new Pause()
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
    this.#reason = reason
    this.#logger.error(
      { reason, pause_seconds: this.#pause.begin() / 1000 },
      'this host is in trouble; claiming nothing for now',
    )
  }

  /** Something was launched: the host is well. */
  settle(): void {
    if (this.#reason === undefined) return
    this.#logger.info({ was: this.#reason }, 'this host can launch runs again')
    this.#reason = undefined
    this.#pause.reset()
  }

  /**
   * How many runs may be claimed now, of `free` slots: none while the pause lasts or the journal has no room, one to find
   * out whether the trouble is over.
   */
  allowance(free: number): number {
    if (free <= 0 || !this.#pause.isOver) return 0
    if (this.#reason === undefined) return free
    if (this.#journal.hasRoom()) return 1
    this.note(this.#reason)
    return 0
  }
}

/** A key that may only read, a rule of a proxy, a limit of requests: what is claimed next would be refused as well. */
export class ClaimRefusals {
  readonly #complaints: Complaints
  readonly #pause = new Pause()
  #areRefused = false

  constructor(complaints: Complaints) {
    this.#complaints = complaints
  }

  note(error: ApiError): void {
    // Claims that were under way together are one refusal.
    if (this.#areRefused && !this.#pause.isOver) return
    this.#areRefused = true
    const fields = { status: error.status, pause_seconds: this.#pause.begin(error.retryAfterMs) / 1000, err: error }
    this.#complaints.say('claims', 'the server refuses claims; claiming nothing for now', fields)
  }

  /** A claim was answered. */
  settle(): void {
    if (!this.#areRefused) return
    this.#areRefused = false
    this.#pause.reset()
    this.#complaints.settle('claims', 'the server takes claims again')
  }

  /** How many of `free` may be claimed now: none while the pause lasts, then one to find out. */
  allowance(free: number): number {
    if (!this.#areRefused) return free
    return this.#pause.isOver ? Math.min(1, free) : 0
  }
}
