// The runs in hand. A slot is held by a record, from the intent to claim until its infrastructure has ended; it is counted
// from the records, so there is no counter that could leak.

import type { Scope } from '../async/scope.ts'
import type { AgentContext } from './agent-context.ts'
import { Lifecycle } from './lifecycle.ts'
import type { DueRun } from './poll.ts'
import { holdsSlot, type RunRecord } from './record.ts'

/**
 * Claims go before reports; but whoever waits for a run's end must not wait for as long as new ones come. From here on
 * nothing is claimed until reports have been taken.
 */
const mostUnreported = 500

export class Slots {
  readonly #lives = new Map<string, Lifecycle>()
  /** Runs that nobody here may touch: taken over by a later release, being recovered, or left after an internal error. */
  readonly #barred = new Set<string>()
  readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }

  get free(): number {
    const { held } = this
    const unreported = this.#lives.size - held
    return Math.max(0, Math.min(this.limit - held, mostUnreported - unreported))
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

  /** The run is in the journal already, in whatever condition. */
  knows(flowRunId: string): boolean {
    return this.#lives.has(flowRunId) || this.#barred.has(flowRunId)
  }

  bar(flowRunId: string): void {
    this.#barred.add(flowRunId)
  }

  unbar(flowRunId: string): void {
    this.#barred.delete(flowRunId)
  }

  /** Carries the run on from its record until it is forgotten or the detach signal lets go of it. */
  follow(record: RunRecord, due: DueRun | undefined, context: AgentContext, scope: Scope, detach: AbortSignal): void {
    const life = new Lifecycle(context, record, due, detach)
    this.#lives.set(record.flowRunId, life)
    scope.spawn(async () => {
      try {
        await life.follow()
      } catch (error) {
        // A bug, met by one run, must not end the others: its record stays, and the next start takes it up again.
        const fields = { flow_run_id: record.flowRunId, err: error }
        context.logger.error(fields, 'internal error; this run is left until the next start')
        this.bar(record.flowRunId)
      } finally {
        this.#lives.delete(record.flowRunId)
        context.changed()
      }
    })
  }
}
