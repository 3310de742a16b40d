// The runs in hand. A slot is held by a record, from the intent to claim until its infrastructure has ended; it is counted
// from the records, so there is no counter that could leak.

import type { Scope } from '../async/scope.ts'
import { jitter, sleep } from '../async/sleep.ts'
import { describeError, isHostError } from '../errors.ts'
import type { AgentContext } from './agent-context.ts'
import { Lifecycle } from './lifecycle.ts'
import type { DueRun } from './poll.ts'
import { holdsSlot, type RunRecord } from './record.ts'

/**
 * Claims go before reports; but whoever waits for a run's end must not wait for as long as new ones come. From here on
 * nothing is claimed until reports have been taken.
 */
const mostUnreported = 500

/** A run that something went wrong with is followed again after this, then at growing distance. */
const firstPauseMs = 5_000
const longestPauseMs = 300_000

export class Slots {
  readonly #lives = new Map<string, Lifecycle>()
  /** Runs that are left alone for a while after something went wrong, by their records; they hold their slots. */
  readonly #paused = new Map<string, RunRecord>()
  /** Runs that nobody here may touch: taken over by a later release, or being recovered. */
  readonly #barred = new Set<string>()
  readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }

  get free(): number {
    return Math.max(0, Math.min(this.limit - this.held, mostUnreported - this.unreported))
  }

  get held(): number {
    let held = 0
    for (const record of this.#records()) if (holdsSlot(record)) held++
    return held
  }

  /** Reports that the server has not acknowledged. */
  get unreported(): number {
    return this.left - this.held
  }

  /** All that are in the journal and may be touched. */
  get left(): number {
    return this.#lives.size + this.#paused.size
  }

  *#records(): Generator<RunRecord> {
    for (const life of this.#lives.values()) yield life.record
    yield* this.#paused.values()
  }

  get lives(): readonly Lifecycle[] {
    return [...this.#lives.values()]
  }

  /** The run is in the journal already, in whatever condition. */
  knows(flowRunId: string): boolean {
    return this.#lives.has(flowRunId) || this.#paused.has(flowRunId) || this.#barred.has(flowRunId)
  }

  bar(flowRunId: string): void {
    this.#barred.add(flowRunId)
  }

  unbar(flowRunId: string): void {
    this.#barred.delete(flowRunId)
  }

  /** Carries the run on from its record until it is forgotten or the detach signal lets go of it. */
  follow(record: RunRecord, due: DueRun | undefined, context: AgentContext, scope: Scope, detach: AbortSignal): void {
    scope.spawn(async () => {
      let left = await this.#followOnce(record, due, context, detach)
      for (let pauseMs = firstPauseMs; left && !detach.aborted; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
        await this.#pause(left, pauseMs, detach)
        if (!detach.aborted) left = await this.#followOnce(left, undefined, context, detach)
      }
    })
  }

  /**
   * Gives the record from which the run is to be followed again when something went wrong. Neither a bug nor a disk in
   * trouble, met by one run, may end the others; and to go on from the record is what the next life of the agent would do.
   */
  async #followOnce(
    record: RunRecord,
    due: DueRun | undefined,
    context: AgentContext,
    detach: AbortSignal,
  ): Promise<RunRecord | undefined> {
    const life = new Lifecycle(context, record, due, detach)
    this.#lives.set(record.flowRunId, life)
    try {
      await life.follow()
      return undefined
    } catch (error) {
      const fields = { flow_run_id: record.flowRunId, err: error }
      if (isHostError(error)) context.trouble.note(describeError(error))
      const what = isHostError(error) ? 'trouble of this host' : 'internal error'
      context.logger.error(fields, `${what}; this run is taken up again from its record`)
      return life.record
    } finally {
      this.#lives.delete(record.flowRunId)
      context.changed()
    }
  }

  /** It is not among the lives meanwhile: nobody waits for what may never come right. */
  async #pause(record: RunRecord, ms: number, detach: AbortSignal): Promise<void> {
    this.#paused.set(record.flowRunId, record)
    await sleep(jitter(ms, 0.2), detach)
    if (!detach.aborted) this.#paused.delete(record.flowRunId)
  }
}
