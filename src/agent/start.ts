// From a claim to something that runs: look once more, read what it is, fetch the code, say RUNNING where no engine will,
// submit. Whatever goes wrong on the way is decided here: the run is wrong (Crashed), or this is not the moment (given back).

import { setTimeout as timer } from 'node:timers/promises'
import { unlessAborted } from '../async/unless-aborted.ts'
import { describeError, isHostError } from '../errors.ts'
import {
  type Handle,
  type Infrastructure,
  InfrastructureError,
  type RunSpec,
} from '../infrastructure/infrastructure.ts'
import { LaunchError } from '../launch/errors.ts'
import type { Launch } from '../launch/run-spec.ts'
import { ApiError } from '../prefect/errors.ts'
import { buildRunning } from '../prefect/states.ts'
import type { FlowRun, State } from '../prefect/types.ts'
import { StorageError } from '../storage/storage.ts'
import { AssignmentError, readAssignment } from './assignment.ts'
import { followUpId } from './identity.ts'
import { prepareLaunch } from './prepare.ts'
import { NotLaunched, NotOurs, type Run, stopped } from './run.ts'
import { isUntouched, judgeStanding } from './standing.ts'
import { giveBackDelaysSeconds } from './trouble.ts'

/**
 * Returns once the run's infrastructure exists and its handle is on disk. Throws NotLaunched or NotOurs.
 * `proved` is the run if its claim was seen to be good a moment ago, which saves the look.
 */
export async function start(run: Run, proved: FlowRun | undefined): Promise<void> {
  // What the last life was about to start may have been started.
  if (run.record.step === 'submitting' && (await adopt(run))) return
  try {
    const flowRun = proved ?? (await confirm(run))
    run.pass('confirmed')
    const launch = await prepare(run, flowRun)
    run.pass('prepared')
    await submit(run, launch, flowRun.state_type === 'RUNNING')
  } catch (error) {
    throw explain(run, error)
  }
}

async function adopt(run: Run): Promise<boolean> {
  const { infrastructureType } = run.record
  if (!infrastructureType) return false
  const infrastructure = await run.context.infrastructure(infrastructureType)
  const handle = await infrastructure.reattach(run.attempt, undefined, run.detach)
  if (!handle) return false
  await run.keep({ ...run.record, step: 'running', handle }, 'quick')
  run.log.info({ infrastructure_pid: handle.identifier }, 'flow run found running')
  return true
}

/**
 * Looks at the run once more before anything is started; RUNNING is what an earlier life of ours has proposed.
 * Until that is known, giving the run back could schedule one that is over: what the claim has replaced is put back instead.
 */
async function confirm(run: Run): Promise<FlowRun> {
  try {
    const flowRun = await run.context.reader.read(run.id, 'look')
    const standing = judgeStanding(run.record, flowRun)
    if (flowRun && standing === 'ours-running') return flowRun
    if (flowRun && standing === 'ours') {
      if (isUntouched(run.record, await readStates(run))) return flowRun
      run.log.warn('the flow run was run by somebody else since the poll; putting its former state back')
      throw new NotLaunched({ kind: 'restore' })
    }
    if (standing === 'cancelled') {
      run.requestStop('cancelled')
      throw stopped()
    }
    run.log.info({ state: flowRun?.state_name ?? 'unknown' }, 'flow run is not ours any more')
    throw new NotOurs()
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    run.log.warn({ err: error }, 'could not look at the flow run; putting its former state back')
    run.context.avoid(run.id)
    throw new NotLaunched({ kind: 'restore' })
  }
}

function readStates({ context, detach, id }: Run): Promise<State[]> {
  return context.turns.take('look', () => context.client.readFlowRunStates(id, detach), detach)
}

async function prepare(run: Run, flowRun: FlowRun): Promise<Launch> {
  const signal = AbortSignal.any([run.detach, run.stopping])
  try {
    // Other runs wait for the same reads: they go on when this run is to be ended, only its wait does not.
    const assignment = await unlessAborted(readAssignment(run.context.client, flowRun, run.shared, run.detach), signal)
    return await prepareLaunch(run.context, assignment, flowRun, run.attempt, signal)
  } catch (error) {
    if (!run.detach.aborted) run.throwIfStopping()
    throw error
  }
}

async function submit(run: Run, { type, spec, reports }: Launch, isRunning: boolean): Promise<void> {
  const { context } = run
  if (type === 'process' && reports !== 'engine' && mayHaveRunBefore(run, isRunning)) {
    throw crashed('the machine was started anew when it may have been running already, and a command is not run twice')
  }
  const infrastructure = await context.infrastructure(type)
  if (reports === 'agent') {
    if (!isRunning) await proposeRunning(run)
    run.seenRunningAt = performance.now()
  }
  run.throwIfStopping()
  // Where nobody proposes RUNNING before the start, the disk alone tells after a power cut.
  const care = reports === 'command' ? 'durable' : 'quick'
  await run.write({ ...run.record, step: 'submitting', reports, infrastructureType: type }, care)
  const handle = await startUnlessStopped(run, infrastructure, spec)
  run.pass('submitted')
  await run.keep({ ...run.record, step: 'running', handle }, 'quick')
  context.trouble.settle()
  context.journal.returns.forget(run.id)
  run.log.info({ infrastructure: type, infrastructure_pid: handle.identifier }, 'flow run started')
}

/**
 * Within the kernel's write-back time a power cut takes along what was only written and not synced: all that follows the
 * claim. Then RUNNING on the server, or the intent on disk, is all that is left of a command that was started. An engine
 * needs no such care: it says RUNNING itself, before any code of the flow.
 */
function mayHaveRunBefore({ context, record }: Run, isRunning: boolean): boolean {
  const isOfAnotherBoot = record.bootId !== undefined && record.bootId !== context.bootId
  return isOfAnotherBoot && (isRunning || record.step === 'submitting')
}

/** Starting may take long (an image is pulled); a stop that comes meanwhile ends it, or what has come of it. */
async function startUnlessStopped(run: Run, infrastructure: Infrastructure, spec: RunSpec): Promise<Handle> {
  try {
    return await infrastructure.submit(spec, AbortSignal.any([run.detach, run.stopping]))
  } catch (error) {
    if (run.detach.aborted || !run.stopping.aborted) throw error
    const handle = await infrastructure.reattach(run.attempt, undefined, run.detach)
    if (!handle) throw stopped()
    return handle
  }
}

/** A plain command has nobody to say RUNNING, nor to wait until its time has come: the agent does both before it starts. */
async function proposeRunning(run: Run): Promise<void> {
  const { client, turns } = run.context
  const state = buildRunning({ transitionId: followUpId(run.record.transitionId, 'running') })
  for (;;) {
    const call = () => client.setFlowRunState(run.id, state, {}, run.detach)
    const answer = await turns.take('launch', call, run.detach)
    run.pass('running-answered')
    if (answer.status === 'WAIT') {
      await waitUnlessStopped(run, (answer.details?.delay_seconds ?? 1) * 1000)
      continue
    }
    const isKnown = answer.state?.state_details?.transition_id === state.state_details.transition_id
    if (answer.state?.type === 'RUNNING' && (answer.status === 'ACCEPT' || isKnown)) return
    if (answer.state?.type === 'CANCELLING') {
      run.requestStop('cancelled')
      throw stopped()
    }
    run.log.info({ state: answer.state?.name, reason: answer.details?.reason }, 'flow run may not start')
    throw new NotOurs()
  }
}

async function waitUnlessStopped(run: Run, ms: number): Promise<void> {
  await timer(ms, undefined, { signal: AbortSignal.any([run.detach, run.stopping]) }).catch(() => undefined)
  run.detach.throwIfAborted()
  run.throwIfStopping()
}

/** Turns what went wrong before the launch into the run's ending; anything else is a bug, and goes on as it is. */
function explain(run: Run, error: unknown): unknown {
  run.detach.throwIfAborted()
  if (error instanceof AssignmentError || error instanceof LaunchError) return crashed(error.message)
  if (error instanceof StorageError || error instanceof InfrastructureError) {
    if (error.blame === 'run') return crashed(describeError(error))
    run.context.trouble.note(describeError(error))
    return giveBack(run, describeError(error))
  }
  // Later something may have been started: the run then goes on from its record.
  if (run.record.step === 'claimed' && isHostError(error)) {
    run.context.trouble.note(describeError(error))
    return giveBack(run, describeError(error))
  }
  // There is nothing to wait for before the launch: a claim for which the API gives no answers goes back.
  if (error instanceof ApiError) {
    return error.isFinal ? crashed(describeError(error)) : giveBack(run, describeError(error))
  }
  return error
}

function giveBack(run: Run, reason: string): NotLaunched {
  const times = run.context.journal.returns.count(run.id)
  const delaySeconds = giveBackDelaysSeconds[times]
  if (delaySeconds === undefined) return crashed(`given back ${times} times, and still: ${reason}`)
  run.log.warn({ reason, again_in_seconds: delaySeconds }, 'giving the flow run back')
  const count = `${times + 1} of ${giveBackDelaysSeconds.length}`
  const message = `Given back by the agent, for it could not start the run now (${count}): ${reason}`
  return new NotLaunched({ kind: 'given-back', message, delaySeconds })
}

function crashed(message: string): NotLaunched {
  return new NotLaunched({ kind: 'not-launched', message: `The flow run could not be started: ${message}` })
}
