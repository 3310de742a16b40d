// One flow run in hand: its record, which moves only through the journal, and the wish that it should end.

import type { Attempt } from '../infrastructure/infrastructure.ts'
import type { Logger } from '../logger.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { SharedReads } from './assignment.ts'
import { attemptOf } from './identity.ts'
import { replay } from './outbox.ts'
import type { DueRun } from './poll.ts'
import type { Ending, RunRecord, StopReason } from './record.ts'

/** The run is not ours, or not ours any more: nothing is launched, nothing reported. */
export class NotOurs extends Error {}

/** Ends the run without it ever having been started. */
export class NotLaunched extends Error {
  readonly ending: Ending

  constructor(ending: Ending) {
    super(ending.kind)
    this.ending = ending
  }
}

export class Run {
  readonly context: AgentContext
  /** What the runs of one poll answer read together. */
  readonly shared: SharedReads
  /** Of a run that the poll has shown. */
  readonly deploymentId: string | null
  /** Aborted to let go at once; the record stays as it is, and the next life of the agent goes on from it. */
  readonly detach: AbortSignal
  readonly log: Logger
  /** True for a run that goes on from its record: one of an earlier life of the agent, or met by trouble in this one. */
  readonly isResumed: boolean
  readonly #stopping = new AbortController()
  #record: RunRecord
  #polled: FlowRun | undefined
  /** When the server last showed the run as running, on the monotonic clock. */
  seenRunningAt = Number.NEGATIVE_INFINITY

  constructor(context: AgentContext, record: RunRecord, due: DueRun | undefined, detach: AbortSignal) {
    this.context = context
    this.shared = due?.shared ?? new SharedReads()
    this.#polled = due?.run
    this.isResumed = due === undefined
    this.deploymentId = due?.run.deployment_id ?? null
    this.detach = detach
    this.log = context.logger.child({ flow_run: record.flowRunName, flow_run_id: record.flowRunId })
    this.#record = record
    if (record.stop) this.#stopping.abort()
  }

  get record(): RunRecord {
    return this.#record
  }

  /** The run as the poll showed it; undefined for one of an earlier life. Given once, for its parameters may be large. */
  takePolled(): FlowRun | undefined {
    const polled = this.#polled
    this.#polled = undefined
    return polled
  }

  get id(): string {
    return this.#record.flowRunId
  }

  get attempt(): Attempt {
    const { flowRunId, transitionId } = this.#record
    return { flowRunId, transitionId, attempt: attemptOf(transitionId) }
  }

  /** The folder goes; a disk in trouble delays that, for a record that stays would be carried on by the next life. */
  async forget(): Promise<void> {
    await replay('record', this.context, this.detach, async () => {
      await this.context.journal.forget(this.id)
      return { done: undefined }
    })
  }

  /** Aborted once when the run is to be ended: by its owner, by a rule, or because the agent must go. */
  get stopping(): AbortSignal {
    return this.#stopping.signal
  }

  /**
   * Asks for the run to be ended, in whatever step it is; safe to repeat. It is noted with the next record: a life of the
   * agent that ends before that finds the reason on the server again.
   */
  requestStop(reason: StopReason): void {
    if (this.#record.step === 'ended' || this.stopping.aborted) return
    this.log.info({ reason }, 'ending the flow run')
    this.#record = { ...this.#record, stop: reason }
    this.#stopping.abort()
  }

  /** Throws NotLaunched when the run is to be ended. */
  throwIfStopping(): void {
    if (this.stopping.aborted) throw stopped()
  }

  /** Replaces the record. Throws JournalError. */
  async write(record: RunRecord, care: 'durable' | 'quick' = 'quick'): Promise<void> {
    this.pass(`${record.step}:before`)
    // A stop that was asked for while this record was put together must not be lost.
    const next = this.#record.stop && !record.stop ? { ...record, stop: this.#record.stop } : record
    await this.context.journal.write(next, care)
    this.#record = next
    this.context.changed()
    this.pass(`${record.step}:after`)
  }

  /** Writes what must be written; a disk in trouble delays that, for once something runs there is nothing better to do. */
  async keep(record: RunRecord, care: 'durable' | 'quick'): Promise<void> {
    await replay('record', this.context, this.detach, async () => {
      await this.write(record, care)
      return { done: true }
    })
  }

  /** The ending is on disk before anybody hears of it. */
  async end(ending: Ending): Promise<void> {
    if (ending.kind === 'given-back') this.context.journal.returns.note(this.id)
    await this.keep({ ...this.#record, step: 'ended', ending }, 'durable')
  }

  /** Says that the run has come to a point between two steps: where tests kill the agent, and the bench takes the time. */
  pass(point: string): void {
    this.context.checkpoint(point, this.id)
  }
}

export function stopped(): NotLaunched {
  return new NotLaunched({ kind: 'not-launched', message: 'The flow run was ended before it was started.' })
}
