// The poll loop: asks for due runs and begins as many as there are free slots. A freed slot is filled at once.

import { Scope } from '../async/scope.ts'
import { jitter } from '../async/sleep.ts'
import type { Wake } from '../async/wake.ts'
import { type Appetite, type DueRun, largestPage, type Poll } from './poll.ts'
import type { Slots } from './slots.ts'
import type { ClaimRefusals, HostTrouble } from './trouble.ts'

export interface IntakeOptions {
  readonly poll: Poll
  readonly slots: Slots
  readonly trouble: HostTrouble
  readonly refusals: ClaimRefusals
  /** Rung when a slot may have become free; a push from the server would ring it as well. */
  readonly wake: Wake
  readonly intervalMs: number
  readonly runOnce: boolean
  /** Claims the run and carries it on. */
  readonly begin: (due: DueRun) => void
}

/** A poll that takes longer than the interval ends this wait by itself. */
const shortestWaitMs = 100

/** A poll that the server takes for the sign that the queue is served. */
const sign: Appetite = { wanted: 1, needed: 0 }

/**
 * A burst costs few polls when more runs are fetched than there are slots: those of short runs are free again at once.
 * What is not begun within an interval is fetched anew.
 */
function chooseAppetite({ free, limit }: { readonly free: number; readonly limit: number }): Appetite {
  return { wanted: Math.min(largestPage, Math.max(free + 50, limit * 4)), needed: Math.max(1, free) }
}

export class Intake {
  readonly #options: IntakeOptions
  #waiting: DueRun[] = []
  #mayHaveMore = false
  #polledAt: number | undefined
  #isPolling = false
  /** Something was begun since the last poll. */
  #isMoving = false

  constructor(options: IntakeOptions) {
    this.#options = options
  }

  /** Since the last poll was begun, in milliseconds; 0 before the first. */
  get silentMs(): number {
    return this.#polledAt === undefined ? 0 : performance.now() - this.#polledAt
  }

  /** Goes on until the signal is aborted; with `runOnce` until one poll has given no more than could be taken. */
  async run(signal: AbortSignal): Promise<void> {
    const { intervalMs, runOnce, wake } = this.#options
    await using scope = new Scope(signal)
    let nextPollAt = 0
    while (!scope.signal.aborted) {
      this.#fillSlots()
      if (!this.#isPolling && (performance.now() >= nextPollAt || this.#isHungry)) {
        nextPollAt = performance.now() + jitter(intervalMs, 0.2)
        // Beside this loop: slots that become free meanwhile are filled with what the last poll has left.
        scope.spawn(() => this.#poll(signal))
      }
      await wake.wait(Math.max(nextPollAt - performance.now(), shortestWaitMs), scope.signal)
      if (runOnce && !this.#isPolling && !this.#mayHaveMore && this.#waiting.length === 0) break
    }
    await scope.join()
  }

  /** There is more, and room for it now or, as runs come and go, before the server has answered. */
  get #isHungry(): boolean {
    const { slots } = this.#options
    const waiting = this.#waiting.length
    return this.#mayHaveMore && (waiting === 0 ? slots.free > 0 : this.#isMoving && waiting < slots.limit / 2)
  }

  async #poll(signal: AbortSignal): Promise<void> {
    const { poll, slots, wake } = this.#options
    this.#isPolling = true
    this.#polledAt = performance.now()
    // What is due is asked for when there is room for it.
    const isStuck = slots.free === 0 && !this.#isMoving
    this.#isMoving = false
    const due = await poll.due(isStuck ? sign : chooseAppetite(slots), id => slots.knows(id), signal)
    this.#waiting = isStuck ? [] : due.runs
    this.#mayHaveMore = isStuck || due.mayHaveMore
    this.#isPolling = false
    wake.ring()
  }

  /** Begins as many as there are free slots, earliest first. What has waited for an interval is asked for anew. */
  #fillSlots(): void {
    const { begin, intervalMs, refusals, slots, trouble } = this.#options
    if (this.silentMs > intervalMs) this.#waiting = []
    const allowed = refusals.allowance(trouble.allowance(slots.free))
    for (let allowance = allowed; allowance > 0; ) {
      const due = this.#waiting.shift()
      if (!due) return
      if (slots.knows(due.run.id)) continue
      begin(due)
      this.#isMoving = true
      allowance--
    }
  }
}
