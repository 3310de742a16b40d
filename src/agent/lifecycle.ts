// THE file: one flow run, from the intent to claim it until the server has acknowledged how it ended.
//
//   claim ──> launch ──> watch ──> report ──> forget
//
// Each step is in the journal before it is taken, so resuming is not a second program: a new life of the agent reads the
// record and enters below at the step that it names. The detach signal lets go at any point and leaves the record as it is.

import { setTimeout as timer } from 'node:timers/promises'
import { describeError } from '../errors.ts'
import {
  type Attempt,
  type Exit,
  type Handle,
  type Infrastructure,
  InfrastructureError,
  type RunSpec,
} from '../infrastructure/infrastructure.ts'
import { LaunchError } from '../launch/errors.ts'
import type { Launch } from '../launch/run-spec.ts'
import type { Logger } from '../logger.ts'
import { ApiError } from '../prefect/errors.ts'
import { buildPending, buildRunning } from '../prefect/states.ts'
import type { FlowRun, OrchestrationResult } from '../prefect/types.ts'
import { StorageError } from '../storage/storage.ts'
import type { AgentContext } from './agent-context.ts'
import { AssignmentError, readAssignment, type SharedReads } from './assignment.ts'
import { attemptOf, followUpId } from './identity.ts'
import { JournalFullError } from './journal.ts'
import { deliver, replay } from './outbox.ts'
import { prepareLaunch } from './prepare.ts'
import type { Ending, RunRecord, StopReason } from './record.ts'
import { judgeStanding } from './standing.ts'
import { giveBackDelaysSeconds } from './trouble.ts'

/** A run that ends sooner needs no `infrastructure_pid` on the server; it would be one more call for each short command. */
const reportPidAfterMs = 2_000

/** The run is not ours: nothing is launched, nothing reported. */
class NotOurs extends Error {}

/** Ends the run without it ever having been started. */
class NotLaunched extends Error {
  readonly ending: Ending

  constructor(ending: Ending) {
    super(ending.kind)
    this.ending = ending
  }
}

export class Lifecycle {
  readonly #context: AgentContext
  readonly #shared: SharedReads
  readonly #detach: AbortSignal
  readonly #log: Logger
  /** Aborted once when the run is to be ended: by its owner, by a rule, or because the agent must go. */
  readonly #stopping = new AbortController()
  #record: RunRecord
  #infrastructure: Infrastructure | undefined
  #killing: Promise<void> | undefined
  /** When the server last showed the run as ours and running, on the monotonic clock. */
  #seenRunningAt = Number.NEGATIVE_INFINITY

  constructor(context: AgentContext, record: RunRecord, shared: SharedReads, detach: AbortSignal) {
    this.#context = context
    this.#record = record
    this.#shared = shared
    this.#detach = detach
    this.#log = context.logger.child({ flow_run: record.flowRunName, flow_run_id: record.flowRunId })
    if (record.stop) this.#stopping.abort()
  }

  get record(): RunRecord {
    return this.#record
  }

  /** Carries the run on from the step in its record. Returns when it is forgotten or let go. */
  async follow(): Promise<void> {
    try {
      await this.#toTheEnd()
      await this.#context.journal.forget(this.#record.flowRunId)
      this.#pass('forgotten')
    } catch (error) {
      if (error instanceof NotOurs) await this.#context.journal.forget(this.#record.flowRunId)
      else if (!this.#detach.aborted) throw error
    }
  }

  async #toTheEnd(): Promise<void> {
    try {
      if (this.#record.step === 'claiming') await this.#claim()
      if (this.#record.step === 'claimed' || this.#record.step === 'submitting') await this.#launch()
    } catch (error) {
      if (!(error instanceof NotLaunched)) throw error
      await this.#end(error.ending)
    }
    if (this.#record.step === 'running') await this.#watch()
    this.#pass('reporting')
    await deliver(this.#context, this.#record, this.#seenRunningAt, this.#log, this.#detach)
    this.#pass('reported')
  }

  /** Asks for the run to be ended, in whatever step it is; safe to repeat. Reports go the ordinary way. */
  requestStop(reason: StopReason): void {
    if (this.#record.step === 'ended') return
    if (!this.#stopping.signal.aborted) {
      this.#log.info({ reason }, 'ending the flow run')
      this.#record = { ...this.#record, stop: reason }
      this.#stopping.abort()
    }
    if (this.#record.step === 'running') this.#kill()
  }

  /** The watch saw the run on the server: what it shows is as good as a look of our own. */
  noteSeen(run: FlowRun): void {
    if (run.state_type === 'RUNNING') this.#seenRunningAt = performance.now()
    if (this.#record.handle && run.infrastructure_pid !== this.#record.handle.identifier) this.#reportPid()
  }

  // ---- claim -------------------------------------------------------------------------------------------------------

  async #claim(): Promise<void> {
    if (!this.#context.isResumed(this.#record.flowRunId)) await this.#begin()
    const answer = this.#context.isResumed(this.#record.flowRunId) ? undefined : await this.#proposePending()
    this.#pass('answered')
    if (!(answer ? this.#isClaimed(answer) : await this.#settleClaim())) throw new NotOurs()
    await this.#write({ ...this.#record, step: 'claimed' })
    this.#log.info('flow run claimed')
  }

  /** The intent to claim is on disk before the claim; without room for it nothing is claimed. */
  async #begin(): Promise<void> {
    this.#pass('claiming:before')
    try {
      await this.#context.journal.begin(this.#record)
    } catch (error) {
      if (!(error instanceof JournalFullError)) throw error
      this.#context.trouble.note(error.message)
      throw new NotOurs()
    }
    this.#pass('claiming:after')
  }

  /** Undefined when nobody can tell whether the server has carried it out. */
  async #proposePending(): Promise<OrchestrationResult | undefined> {
    const { client, turns } = this.#context
    const { flowRunId, transitionId } = this.#record
    try {
      return await turns.take(
        'claim',
        () => client.setFlowRunState(flowRunId, buildPending({ transitionId }), { claim: true }, this.#detach),
        this.#detach,
      )
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.#log.debug({ err: error }, 'claim not answered')
      if (!error.mayHaveHappened) throw new NotOurs()
      return undefined
    }
  }

  #isClaimed(answer: OrchestrationResult): boolean {
    // The server answers REJECT to a claim that it knows by its transition id: it is ours all the same.
    const isOurs = answer.state?.state_details?.transition_id === this.#record.transitionId
    if (answer.state?.type === 'PENDING' && (answer.status === 'ACCEPT' || isOurs)) return true
    this.#context.avoid(this.#record.flowRunId)
    this.#log.debug({ status: answer.status, reason: answer.details?.reason }, 'claim refused')
    return false
  }

  /**
   * The answer was lost: look, then decide. A claim is sent again only when the run is seen unchanged since the poll, and
   * with the same transition id, by which the server recognises the first should that still arrive.
   */
  async #settleClaim(): Promise<boolean> {
    const { reader } = this.#context
    return replay('claim', this.#context, this.#detach, async () => {
      const run = await reader.read(this.#record.flowRunId)
      if (judgeStanding(this.#record, run) !== 'lost') return { done: true }
      if (run?.state_type !== 'SCHEDULED' || (run.state?.id ?? null) !== this.#record.polled.stateId)
        return { done: false }
      const answer = await this.#proposePending()
      return answer ? { done: this.#isClaimed(answer) } : undefined
    })
  }

  // ---- launch ------------------------------------------------------------------------------------------------------

  async #launch(): Promise<void> {
    const adopted = this.#record.step === 'submitting' ? await this.#adopt() : undefined
    if (adopted) return
    const isRunning = await this.#confirm()
    const launch = await this.#prepare()
    const handle = await this.#submit(launch, isRunning)
    this.#log.info({ infrastructure: handle.type, infrastructure_pid: handle.identifier }, 'flow run started')
  }

  /** What the last life was about to start may have been started. */
  async #adopt(): Promise<boolean> {
    const { infrastructureType } = this.#record
    if (!infrastructureType) return false
    this.#infrastructure = await this.#context.infrastructure(infrastructureType)
    const handle = await this.#infrastructure.reattach(this.#attempt, undefined, this.#detach)
    if (!handle) return false
    await this.#write({ ...this.#record, step: 'running', handle })
    this.#log.info({ infrastructure_pid: handle.identifier }, 'flow run found running')
    return true
  }

  /** Looks at the run once more before anything is started. True when RUNNING has been accepted for it already. */
  async #confirm(): Promise<boolean> {
    const run = await this.#ask(() => this.#context.reader.read(this.#record.flowRunId))
    this.#pass('confirmed')
    const standing = judgeStanding(this.#record, run)
    switch (standing) {
      case 'ours':
      case 'ours-running':
        this.#flowRun = run
        return standing === 'ours-running'
      case 'stale':
        this.#log.warn('the flow run was run by somebody else since the poll; putting its former state back')
        throw new NotLaunched({ kind: 'restore' })
      case 'cancelled':
        this.requestStop('cancelled')
        throw this.#stopped()
      case 'lost':
        this.#log.info({ state: run?.state_name ?? 'unknown' }, 'flow run is not ours any more')
        throw new NotOurs()
    }
  }

  #flowRun: FlowRun | undefined

  async #prepare(): Promise<Launch> {
    const run = this.#flowRun
    if (!run) throw new Error('a flow run is prepared only after it was confirmed')
    const signal = AbortSignal.any([this.#detach, this.#stopping.signal])
    try {
      const assignment = await this.#ask(() => readAssignment(this.#context.client, run, this.#shared, signal))
      const launch = await prepareLaunch(this.#context, assignment, run, this.#attempt, signal)
      this.#pass('prepared')
      return launch
    } catch (error) {
      if (this.#stopping.signal.aborted && !this.#detach.aborted) throw this.#stopped()
      throw this.#explain(error)
    }
  }

  async #submit(launch: Launch, isRunning: boolean): Promise<Handle> {
    const { type, spec, reports } = launch
    try {
      this.#infrastructure = await this.#context.infrastructure(type)
      if (reports === 'agent' && !isRunning) await this.#proposeRunning()
      if (this.#stopping.signal.aborted) throw this.#stopped()
      await this.#write({ ...this.#record, step: 'submitting', reports, infrastructureType: type })
      const handle = await this.#start(this.#infrastructure, spec)
      this.#pass('submitted')
      await this.#keep({ ...this.#record, step: 'running', handle }, 'quick')
      this.#context.trouble.settle()
      this.#context.journal.forgetReturns(this.#record.flowRunId)
      return handle
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Starting may take long (an image is pulled); a stop that comes meanwhile ends it, or what has come of it. */
  async #start(infrastructure: Infrastructure, spec: RunSpec): Promise<Handle> {
    try {
      return await infrastructure.submit(spec, AbortSignal.any([this.#detach, this.#stopping.signal]))
    } catch (error) {
      if (this.#detach.aborted || !this.#stopping.signal.aborted) throw error
      const handle = await infrastructure.reattach(this.#attempt, undefined, this.#detach)
      if (!handle) throw this.#stopped()
      return handle
    }
  }

  /** A plain command has nobody to say RUNNING, nor to wait until its time has come: the agent does both before it starts. */
  async #proposeRunning(): Promise<void> {
    const { client, turns } = this.#context
    const { flowRunId } = this.#record
    const state = buildRunning({ transitionId: followUpId(this.#record.transitionId, 'running') })
    for (;;) {
      const answer = await this.#ask(() =>
        turns.take('launch', () => client.setFlowRunState(flowRunId, state, {}, this.#detach), this.#detach),
      )
      this.#pass('running-answered')
      if (answer.status === 'WAIT') {
        const until = AbortSignal.any([this.#detach, this.#stopping.signal])
        await timer((answer.details?.delay_seconds ?? 1) * 1000, undefined, { signal: until }).catch(() => undefined)
        this.#detach.throwIfAborted()
        if (this.#stopping.signal.aborted) throw this.#stopped()
        continue
      }
      const isKnown = answer.state?.state_details?.transition_id === state.state_details.transition_id
      if (answer.state?.type === 'RUNNING' && (answer.status === 'ACCEPT' || isKnown)) break
      if (answer.state?.type === 'CANCELLING') {
        this.requestStop('cancelled')
        throw this.#stopped()
      }
      this.#log.info({ state: answer.state?.name, reason: answer.details?.reason }, 'flow run may not start')
      throw new NotOurs()
    }
    this.#seenRunningAt = performance.now()
  }

  #stopped(): NotLaunched {
    return new NotLaunched({ kind: 'not-launched', message: 'The flow run was ended before it was started.' })
  }

  /** Before the launch there is nothing to wait for: when the API does not answer, the claim is given back. */
  async #ask<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Turns what went wrong on the way to the launch into the run's ending: wrong for good, or given back for later. */
  #explain(error: unknown): unknown {
    this.#detach.throwIfAborted()
    if (error instanceof NotLaunched || error instanceof NotOurs) return error
    if (error instanceof AssignmentError || error instanceof LaunchError) return crashed(error.message)
    if (error instanceof StorageError || error instanceof InfrastructureError) {
      if (error.blame === 'run') return crashed(describeError(error))
      this.#context.trouble.note(describeError(error))
      return this.#givenBack(describeError(error))
    }
    if (error instanceof JournalFullError) {
      this.#context.trouble.note(error.message)
      return this.#givenBack(error.message)
    }
    if (error instanceof ApiError) {
      return error.isFinal ? crashed(describeError(error)) : this.#givenBack(describeError(error))
    }
    return error
  }

  #givenBack(reason: string): NotLaunched {
    const { journal } = this.#context
    const times = journal.timesReturned(this.#record.flowRunId)
    const delaySeconds = giveBackDelaysSeconds[times]
    if (delaySeconds === undefined) return crashed(`Given back ${times} times, and still: ${reason}`)
    const message = `Given back by the agent, for it could not start the run now (${times + 1} of ${giveBackDelaysSeconds.length}): ${reason}`
    this.#log.warn({ reason, again_in_seconds: delaySeconds }, 'giving the flow run back')
    return new NotLaunched({ kind: 'given-back', message, delaySeconds })
  }

  // ---- watch -------------------------------------------------------------------------------------------------------

  async #watch(): Promise<void> {
    const { handle, infrastructureType } = this.#record
    if (!handle || !infrastructureType)
      throw new Error(`record of ${this.#record.flowRunId} is running without a handle`)
    this.#infrastructure ??= await this.#context.infrastructure(infrastructureType)
    const infrastructure = this.#infrastructure
    const pidTimer = setTimeout(() => this.#reportPid(), reportPidAfterMs)
    try {
      if (this.#stopping.signal.aborted) this.#kill()
      const exit = await this.#waitForExit(infrastructure, handle)
      await this.#killing
      this.#log.info(exitFields(exit), 'infrastructure ended')
      await this.#end({ kind: 'exit', exit })
    } finally {
      clearTimeout(pidTimer)
    }
    await infrastructure.release(handle, this.#detach)
  }

  async #waitForExit(infrastructure: Infrastructure, handle: Handle): Promise<Exit> {
    const found = this.#context.isResumed(handle.flowRunId)
      ? await infrastructure.reattach(this.#attempt, handle, this.#detach)
      : handle
    if (!found) return { kind: 'vanished', reason: 'it was not found after a restart of the agent', outputTail: [] }
    const sink = this.#context.output.open(this.#record)
    try {
      return await infrastructure.wait(found, sink.write, this.#detach)
    } finally {
      sink.close()
    }
  }

  #kill(): void {
    const { handle } = this.#record
    const infrastructure = this.#infrastructure
    if (!handle || !infrastructure || this.#killing) return
    this.#killing = infrastructure
      .kill(handle, this.#context.settings.cancelGraceSeconds, this.#detach)
      .catch(error => {
        // The next look at the server finds the run still alive and asks again.
        if (!this.#detach.aborted) this.#log.warn({ err: error }, 'could not end the infrastructure; will try again')
      })
      .finally(() => {
        this.#killing = undefined
      })
  }

  #isReportingPid = false

  #reportPid(): void {
    const { handle, flowRunId } = this.#record
    if (!handle || this.#isReportingPid) return
    this.#isReportingPid = true
    const { client, turns } = this.#context
    this.#context.background(async () => {
      try {
        const call = () => client.updateFlowRun(flowRunId, { infrastructure_pid: handle.identifier }, this.#detach)
        await turns.take('note', call, this.#detach)
      } catch (error) {
        // The watch sees that the pid is missing and asks for it again.
        if (!this.#detach.aborted) this.#log.debug({ err: error }, 'could not report the infrastructure pid')
      } finally {
        this.#isReportingPid = false
      }
    })
  }

  // ---- the record --------------------------------------------------------------------------------------------------

  get #attempt(): Attempt {
    const { flowRunId, transitionId } = this.#record
    return { flowRunId, transitionId, attempt: attemptOf(transitionId) }
  }

  /** The ending is on disk before anybody hears of it. */
  async #end(ending: Ending): Promise<void> {
    if (ending.kind === 'given-back') this.#context.journal.noteReturn(this.#record.flowRunId)
    await this.#keep({ ...this.#record, step: 'ended', ending }, 'durable')
  }

  /** Writes what must be written; a full disk delays that, for once something runs there is nothing better to do. */
  async #keep(record: RunRecord, care: 'durable' | 'quick'): Promise<void> {
    await replay('record', this.#context, this.#detach, async () => {
      await this.#write(record, care)
      return { done: true }
    })
  }

  async #write(record: RunRecord, care: 'durable' | 'quick' = 'quick'): Promise<void> {
    this.#pass(`${record.step}:before`)
    // A stop that was asked for while this record was put together must not be lost.
    const next = this.#record.stop && !record.stop ? { ...record, stop: this.#record.stop } : record
    await this.#context.journal.write(next, care)
    this.#record = next
    this.#context.changed()
    this.#pass(`${record.step}:after`)
  }

  #pass(point: string): void {
    this.#context.checkpoint(point, this.#record.flowRunId)
  }
}

function crashed(message: string): NotLaunched {
  return new NotLaunched({ kind: 'not-launched', message: `The flow run could not be started: ${message}` })
}

function exitFields(exit: Exit): Record<string, unknown> {
  if (exit.kind === 'vanished') return { vanished: exit.reason }
  return {
    ...(exit.statusCode === undefined ? {} : { exit_code: exit.statusCode }),
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
  }
}
