// The runs in hand. A slot is held by a record, from the intent to claim until its infrastructure has ended; it is counted
// from the records, so there is no counter that could leak.

import type { Lifecycle } from './lifecycle.ts'
import { holdsSlot } from './record.ts'

export class Slots {
  readonly #lives = new Map<string, Lifecycle>()
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  get free(): number {
    return Math.max(0, this.#limit - this.held)
  }

  get held(): number {
    let held = 0
    for (const life of this.#lives.values()) if (holdsSlot(life.record)) held++
    return held
  }

  /** Reports that the server has not acknowledged. */
  get unreported(): number {
    return this.#lives.size - this.held
  }

  get lives(): readonly Lifecycle[] {
    return [...this.#lives.values()]
  }

  has(flowRunId: string): boolean {
    return this.#lives.has(flowRunId)
  }

  add(life: Lifecycle): void {
    this.#lives.set(life.record.flowRunId, life)
  }

  remove(life: Lifecycle): void {
    this.#lives.delete(life.record.flowRunId)
  }
}
