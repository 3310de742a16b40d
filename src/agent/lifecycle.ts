// THE file: one flow run, from the intent to claim it until the server has acknowledged how it ended.
//
//   claim ──> start ──> watch ──> report ──> forget
//
// Each step is in the journal before it is taken, so resuming is not a second program: a new life of the agent reads the
// record and enters below at the step that it names. The detach signal lets go at any point and leaves the record as it is.

import type { Exit, Handle, Infrastructure } from '../infrastructure/infrastructure.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { claim } from './claim.ts'
import { deliver } from './outbox.ts'
import type { DueRun } from './poll.ts'
import type { RunRecord, StopReason } from './record.ts'
import { NotLaunched, NotOurs, Run } from './run.ts'
import { start } from './start.ts'

/** A run that ends sooner needs no `infrastructure_pid` on the server; it would be one more call for each short command. */
const reportPidAfterMs = 2_000

export class Lifecycle {
  readonly #run: Run
  #infrastructure: Infrastructure | undefined
  #killing: Promise<void> | undefined
  #isReportingPid = false

  /** `due` is what the poll has found, for a run that is begun here and now. */
  constructor(context: AgentContext, record: RunRecord, due: DueRun | undefined, detach: AbortSignal) {
    this.#run = new Run(context, record, due, detach)
  }

  get record(): RunRecord {
    return this.#run.record
  }

  /** Carries the run on from the step in its record. Returns when it is forgotten or let go. */
  async follow(): Promise<void> {
    const run = this.#run
    try {
      await this.#carryOn()
      await run.forget()
      run.pass('forgotten')
    } catch (error) {
      if (!run.detach.aborted) throw error
    }
  }

  async #carryOn(): Promise<void> {
    const run = this.#run
    try {
      await this.#launch()
      if (run.record.step === 'running') await this.#watch()
      run.pass('reporting')
      await deliver(run.context, run.record, run.seenRunningAt, run.log, run.detach)
      run.pass('reported')
    } catch (error) {
      if (!(error instanceof NotOurs)) throw error
      run.log.debug('flow run left to others')
    }
  }

  async #launch(): Promise<void> {
    const run = this.#run
    try {
      const proved = run.record.step === 'claiming' ? await claim(run) : undefined
      if (run.record.step === 'claimed' || run.record.step === 'submitting') await start(run, proved)
    } catch (error) {
      if (!(error instanceof NotLaunched)) throw error
      const { ending } = error
      if (ending.kind === 'not-launched') run.log.warn({ reason: ending.message }, 'flow run not started')
      await run.end(ending)
    }
  }

  async #watch(): Promise<void> {
    const run = this.#run
    const { handle, infrastructureType } = run.record
    if (!handle || !infrastructureType) throw new Error(`the record of ${run.id} is running without a handle`)
    const infrastructure = await run.context.infrastructure(infrastructureType)
    this.#infrastructure = infrastructure
    if (run.stopping.aborted) this.#kill()
    const pidTimer = setTimeout(() => this.#reportPid(), reportPidAfterMs)
    try {
      const exit = await this.#waitForExit(infrastructure, handle)
      await this.#killing
      run.log.info(describeForLog(exit), 'infrastructure ended')
      await run.end({ kind: 'exit', exit })
    } finally {
      clearTimeout(pidTimer)
    }
    await infrastructure.release(handle, run.detach)
  }

  async #waitForExit(infrastructure: Infrastructure, handle: Handle): Promise<Exit> {
    const run = this.#run
    const found = run.isResumed ? await infrastructure.reattach(run.attempt, handle, run.detach) : handle
    if (!found) return { kind: 'vanished', reason: 'it was not found after a restart of the agent', outputTail: [] }
    const output = run.context.output.open(run.record)
    try {
      return await infrastructure.wait(found, output.write, run.detach)
    } finally {
      output.close()
    }
  }

  /** Asks for the run to be ended; its end is found and reported as any other. Safe to repeat, which kills again. */
  requestStop(reason: StopReason): void {
    this.#run.requestStop(reason)
    if (this.record.step === 'running') this.#kill()
  }

  #kill(): void {
    const { context, record, detach, log } = this.#run
    if (!record.handle || !this.#infrastructure || this.#killing) return
    this.#killing = this.#infrastructure
      .kill(record.handle, context.settings.cancelGraceSeconds, detach)
      .catch(error => {
        // The next look at the server finds the run still alive and asks again.
        if (!detach.aborted) log.warn({ err: error }, 'could not end the infrastructure; will try again')
      })
      .finally(() => {
        this.#killing = undefined
      })
  }

  /** The watch saw the run on the server: what it shows is as good as a look of our own. */
  noteSeen(flowRun: FlowRun): void {
    // Anything else takes back what was seen before: a report that goes by it would overwrite what somebody has set since.
    this.#run.seenRunningAt = flowRun.state_type === 'RUNNING' ? performance.now() : Number.NEGATIVE_INFINITY
    if (this.record.handle && flowRun.infrastructure_pid !== this.record.handle.identifier) this.#reportPid()
  }

  #reportPid(): void {
    const { context, record, detach, id, log } = this.#run
    const { handle } = record
    if (!handle || this.#isReportingPid) return
    this.#isReportingPid = true
    context.background(async () => {
      try {
        const call = () => context.client.updateFlowRun(id, { infrastructure_pid: handle.identifier }, detach)
        await context.turns.take('note', call, detach)
      } catch (error) {
        // The watch sees that the pid is missing and asks for it again.
        if (!detach.aborted) log.debug({ err: error }, 'could not report the infrastructure pid')
      } finally {
        this.#isReportingPid = false
      }
    })
  }
}

function describeForLog(exit: Exit): Record<string, unknown> {
  if (exit.kind === 'vanished') return { vanished: exit.reason }
  return {
    ...(exit.statusCode === undefined ? {} : { exit_code: exit.statusCode }),
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
  }
}
