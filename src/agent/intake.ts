// The poll loop: asks for due runs and begins as many as there are free slots. A freed slot is filled at once.

import { jitter } from '../async/sleep.ts'
import type { Wake } from '../async/wake.ts'
import type { DueRun, Poll } from './poll.ts'
import type { Slots } from './slots.ts'
import type { HostTrouble } from './trouble.ts'

export interface IntakeOptions {
  readonly poll: Poll
  readonly slots: Slots
  readonly trouble: HostTrouble
  /** Rung when a slot may have become free; a push from the server would ring it as well. */
  readonly wake: Wake
  readonly intervalMs: number
  readonly runOnce: boolean
  /** Claims the run and carries it on. */
  readonly begin: (due: DueRun) => void
}

/** Runs that are fetched beyond the free slots, so that a burst costs few polls. */
const spare = 50

export class Intake {
  readonly #options: IntakeOptions
  #waiting: DueRun[] = []
  #mayHaveMore = false
  #polledAt: number | undefined

  constructor(options: IntakeOptions) {
    this.#options = options
  }

  /** Since the last poll was begun, in milliseconds; 0 before the first. */
  get silentMs(): number {
    return this.#polledAt === undefined ? 0 : performance.now() - this.#polledAt
  }

  /** Goes on until the signal is aborted; with `runOnce` until one poll has given no more than could be taken. */
  async run(signal: AbortSignal): Promise<void> {
    const { intervalMs, runOnce, slots, wake } = this.#options
    let nextPollAt = 0
    while (!signal.aborted) {
      this.#fillSlots()
      const isHungry = this.#mayHaveMore && this.#waiting.length === 0 && slots.free > 0
      if (performance.now() < nextPollAt && !isHungry) {
        await wake.wait(nextPollAt - performance.now(), signal)
        continue
      }
      nextPollAt = performance.now() + jitter(intervalMs, 0.2)
      await this.#poll(signal)
      this.#fillSlots()
      if (runOnce && !this.#mayHaveMore && this.#waiting.length === 0) return
    }
  }

  async #poll(signal: AbortSignal): Promise<void> {
    const { poll, slots } = this.#options
    const wanted = slots.free + spare
    this.#polledAt = performance.now()
    this.#waiting = await poll.due(wanted, flowRunId => slots.knows(flowRunId), signal)
    this.#mayHaveMore = this.#waiting.length >= wanted
  }

  /** Begins as many as there are free slots, earliest first. What has waited for an interval is asked for anew. */
  #fillSlots(): void {
    const { begin, intervalMs, slots, trouble } = this.#options
    if (this.silentMs > intervalMs) this.#waiting = []
    for (let allowance = trouble.allowance(slots.free); allowance > 0; ) {
      const due = this.#waiting.shift()
      if (!due) return
      if (slots.knows(due.run.id)) continue
      begin(due)
      allowance--
    }
  }
}
