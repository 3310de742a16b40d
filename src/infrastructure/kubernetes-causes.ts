// What one run waits for in its cluster: since when, and whether that was told already.
//
// In: the cause that each look at the run's objects gives. Out: its age, for verdicts that time decides, and one sentence for
// each cause.

import { sleep } from '../async/sleep.ts'
import type { Cause } from './kubernetes-verdict.ts'

/** The Job controller says why it makes no pod in events only, a moment later: how long each look at them waits. */
const explainPausesMs = [0, 5_000, 20_000, 60_000, 60_000, 60_000, 60_000, 60_000]
/** After so many looks it is told without a reason, which a busy controller may give later. */
const patientLooks = 3
const noPod = 'no-pod'

export interface CauseHooks {
  onCause(text: string): void
  /** Why its Job has no pod, as far as the cluster has said so. */
  explain(signal: AbortSignal): Promise<string | undefined>
  /** Runs work that ends with the watch. */
  spawn(work: (signal: AbortSignal) => Promise<void>): void
}

export class CauseTeller {
  readonly #hooks: CauseHooks
  readonly #told = new Set<string>()
  #cause: Cause | undefined
  #sinceMs = 0
  #isClosed = false

  constructor(hooks: CauseHooks) {
    this.#hooks = hooks
  }

  /** It waits for something, so time may decide. */
  get isWaiting(): boolean {
    return this.#cause !== undefined
  }

  /** For how long this has been the cause, without a break, in milliseconds. */
  ageOf(key: string, nowMs: number): number {
    return this.#cause?.key === key ? nowMs - this.#sinceMs : 0
  }

  note(cause: Cause | undefined, nowMs: number): void {
    if (cause?.key !== this.#cause?.key) this.#sinceMs = nowMs
    this.#cause = cause
    if (!cause || cause.text === '' || this.#told.has(cause.key)) return
    this.#told.add(cause.key)
    if (cause.key === noPod) this.#explain(cause.text)
    else this.#hooks.onCause(cause.text)
  }

  /** Nothing is told any more. */
  close(): void {
    this.#isClosed = true
  }

  #explain(text: string): void {
    this.#hooks.spawn(async signal => {
      for (const [index, pauseMs] of explainPausesMs.entries()) {
        await sleep(pauseMs, signal)
        if (this.#isOver(signal)) return
        const reason = await this.#hooks.explain(signal)
        if (this.#isOver(signal)) return
        if (reason) return this.#hooks.onCause(`${text}: ${reason}`)
        if (index === patientLooks - 1) this.#hooks.onCause(text)
      }
    })
  }

  #isOver(signal: AbortSignal): boolean {
    return signal.aborted || this.#isClosed || this.#cause?.key !== noPod
  }
}
