// Finds runs to end. At every look it asks the server once for all runs that we hold, and ends what is cancelled, what is
// over but lives on, what was set back to be run anew, and what the server does not know any more. It only marks and kills;
// reports go through the lifecycle.

import { isCancelling, isTerminal } from '../prefect/states.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { isDeleted, OtherDatabaseError } from './database.ts'
import type { Lifecycle } from './lifecycle.ts'
import { mayHaveInfrastructure, type RunRecord } from './record.ts'

/** Between the two looks that must both show a run as unknown before it is ended. */
const unknownLooks = 2

export class Watch {
  readonly #context: AgentContext
  readonly #overSince = new Map<string, number>()
  readonly #unknown = new Map<string, number>()
  /** Transition ids of claims that are not ours, of runs that we hold. */
  readonly #otherClaims = new Map<string, string>()

  constructor(context: AgentContext) {
    this.#context = context
  }

  /** One look at all that we hold. */
  async look(lives: readonly Lifecycle[], signal: AbortSignal): Promise<void> {
    const held = lives.filter(life => life.record.step !== 'ended' && life.record.step !== 'claiming')
    if (held.length === 0) {
      this.#forgetOthers(new Set())
      return
    }
    const ids = held.map(life => life.record.flowRunId)
    const { reader, turns } = this.#context
    const found = await turns.take('look', () => reader.readAll(ids), signal)
    let isOtherDatabase = false
    for (const life of held) {
      const run = found.get(life.record.flowRunId)
      if (run) this.#judge(life, run)
      else if (!(await this.#judgeUnknown(life, signal))) isOtherDatabase = true
    }
    if (!isOtherDatabase) this.#context.complaints.settle('other database', 'the server knows the flow runs again')
    this.#forgetOthers(new Set(ids))
  }

  #judge(life: Lifecycle, run: FlowRun): void {
    this.#unknown.delete(run.id)
    life.noteSeen(run)
    if (isCancelling(run.state) || run.state_type === 'CANCELLED') {
      life.requestStop('cancelled')
      return
    }
    if (mayHaveInfrastructure(life.record) && this.#isTakenFrom(life.record, run)) {
      life.requestStop('over')
      return
    }
    if (!isTerminal(run.state_type) || !mayHaveInfrastructure(life.record)) {
      this.#overSince.delete(run.id)
      return
    }
    // An engine lives on for a second or more after it has reported; what lives much longer has been left behind.
    const since = this.#overSince.get(run.id) ?? performance.now()
    this.#overSince.set(run.id, since)
    if (performance.now() - since >= this.#context.settings.lingerSeconds * 1000) life.requestStop('over')
  }

  /**
   * A run is taken for deleted only when Prefect itself says so at two looks, of a database that knows where it came from;
   * false when it does not.
   */
  async #judgeUnknown(life: Lifecycle, signal: AbortSignal): Promise<boolean> {
    const { client, complaints } = this.#context
    const { flowRunId } = life.record
    try {
      if (!(await isDeleted(client, life.record, signal))) return true
    } catch (error) {
      if (!(error instanceof OtherDatabaseError)) throw error
      this.#unknown.delete(flowRunId)
      complaints.say('other database', 'a flow run is unknown to the server; ending nothing', {
        flow_run_id: flowRunId,
        err: error,
      })
      return false
    }
    const looks = (this.#unknown.get(flowRunId) ?? 0) + 1
    this.#unknown.set(flowRunId, looks)
    if (looks >= unknownLooks) life.requestStop('unknown')
    return true
  }

  #forgetOthers(held: ReadonlySet<string>): void {
    for (const known of [this.#overSince, this.#unknown, this.#otherClaims]) {
      for (const flowRunId of known.keys()) if (!held.has(flowRunId)) known.delete(flowRunId)
    }
  }

  /**
   * Somebody has set the run back to be run anew, or has claimed it since: what we started for it must not go on beside that.
   * An engine that waits for its own retry, or to be resumed, shows its run as scheduled under another name.
   */
  #isTakenFrom({ transitionId }: RunRecord, { id, state_type, state_name, state }: FlowRun): boolean {
    if (state_type === 'SCHEDULED') return state_name === 'Scheduled' || state_name === 'Late'
    const claim = state_type === 'PENDING' ? (state?.state_details.transition_id ?? undefined) : undefined
    const before = this.#otherClaims.get(id)
    if (claim === undefined || claim === transitionId) this.#otherClaims.delete(id)
    else this.#otherClaims.set(id, claim)
    // Seen at two looks: what an engine proposes by itself passes sooner.
    return before !== undefined && before === claim
  }
}
