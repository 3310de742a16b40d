// PURE: how a run ended for us, and what the server says of it now -> the state to propose, or none.
//
// The engine reports what the flow did, the agent what the infrastructure did. Whoever comes later never overwrites a
// terminal state, and nothing stays a ghost: after this, the run is terminal, scheduled, paused or suspended.

import { constants } from 'node:os'
import type { Exit } from '../infrastructure/infrastructure.ts'
import { explainEngineExit } from '../launch/engine-exit.ts'
import type { FlowRun, StateType } from '../prefect/types.ts'
import { followUpId } from './identity.ts'
import type { RunRecord } from './record.ts'

/** What the outbox should tell the server. */
export type Outcome =
  | { readonly kind: 'none'; readonly why: string }
  | { readonly kind: 'propose'; readonly proposal: Proposal }
  | { readonly kind: 'restore' }
  /** The server waits for a retry within the process; it has to be one that any agent starts. */
  | { readonly kind: 'retry' }

export interface Proposal {
  readonly type: StateType
  readonly message: string
  /** Only for SCHEDULED: how far from now. */
  readonly delaySeconds?: number
  /** Only for SCHEDULED: the time itself. */
  readonly scheduledTime?: string
  /** Takes the place of a terminal state; see `isEchoOfOurKill`. */
  readonly force?: true
}

/** A state message longer than this is cut in the middle; servers store it with each state. */
const messageLimit = 4_000

const stoppedMessage = 'The agent was stopped and ended this run.'
const stoppedBeforeMessage = 'The agent was stopped before it started this run.'

const terminal: readonly StateType[] = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED']

export interface OutcomeFacts {
  readonly record: RunRecord
  /** The run as the server has it now. */
  readonly run: Pick<FlowRun, 'state_type' | 'state_name' | 'state' | 'infrastructure_pid' | 'empirical_policy'>
  /** The transition id of the run's last claim, from its history; looked up only for a run that is being cancelled. */
  readonly lastClaim?: string | undefined
  /** What becomes of runs that are ended because the agent itself must stop. */
  readonly stoppedRuns: 'crashed' | 'scheduled'
}

export function decideOutcome({ record, run, lastClaim, stoppedRuns }: OutcomeFacts): Outcome {
  const { ending } = record
  if (!ending) return none('it has not ended')
  if (run.state_type === 'CANCELLING') {
    // This state does not say whose run it ends: where somebody else has claimed it, it is theirs to end.
    const isOurs = lastClaim === record.transitionId
    return isOurs ? propose('CANCELLED', cancelledMessage(record)) : none('the cancelled claim is not ours')
  }
  if (ending.kind === 'restore') {
    const isOurs = claimIsOurs(record, run) || saysOurRunning(record, run)
    return isOurs ? { kind: 'restore' } : none('the claim is not ours any more')
  }

  const state = run.state_type
  if (state === null) return none('the server shows no state')
  if (isEchoOfOurKill(record, run)) return decideAfterEcho(record, stoppedRuns)
  if (terminal.includes(state)) return none(`the run is ${run.state_name ?? state} already`)
  if (isOfAnotherClaim(record, run)) return none('a later claim of the run is under way')
  if (waitsForCommand(record, run)) return { kind: 'retry' }
  if (state === 'SCHEDULED' && !waitsForDeadEngine(run)) return none('the run has been scheduled again')
  if (state === 'PAUSED') return none('the run is paused')

  // Nothing of ours has run: what runs now is somebody else's.
  const isAsWeLeftIt = state === 'PENDING' || saysOurRunning(record, run)
  if (ending.kind !== 'exit' && !isAsWeLeftIt) return none('the run has moved on')

  switch (ending.kind) {
    case 'given-back':
      return propose('SCHEDULED', ending.message, ending.delaySeconds)
    case 'not-launched':
      return record.stop === 'agent-stopped' ? scheduleAsBefore(run) : propose('CRASHED', ending.message)
    case 'exit':
      return decideExit(record, ending.exit, state, stoppedRuns)
  }
}

/** Nothing of it was started, so whatever becomes of runs that are ended, this one is as it was, with its own time. */
function scheduleAsBefore({ state }: OutcomeFacts['run']): Outcome {
  const scheduledTime = state?.state_details?.scheduled_time
  const proposal = {
    type: 'SCHEDULED',
    message: stoppedBeforeMessage,
    ...(scheduledTime ? { scheduledTime } : {}),
  } as const
  return { kind: 'propose', proposal }
}

function decideExit(record: RunRecord, exit: Exit, state: StateType, stoppedRuns: 'crashed' | 'scheduled'): Outcome {
  if (record.stop === 'cancelled') return propose('CANCELLED', cancelledMessage(record))
  if (record.stop === 'agent-stopped') {
    return stoppedRuns === 'scheduled'
      ? propose('SCHEDULED', stoppedMessage, 0)
      : propose('CRASHED', withTail(stoppedMessage, exit))
  }
  if (exit.kind === 'vanished')
    return propose('CRASHED', withTail(`The flow run's infrastructure is gone: ${exit.reason}`, exit))
  if (exit.signal !== undefined || exit.statusCode === undefined)
    return propose('CRASHED', withTail(describeExit(exit), exit))
  if (record.reports === 'agent') {
    return exit.statusCode === 0
      ? propose('COMPLETED', 'The command ended with exit code 0.')
      : propose('FAILED', withTail(describeExit(exit), exit))
  }
  if (exit.statusCode !== 0) {
    const explained = record.reports === 'engine' ? explainEngineExit(exit) : undefined
    return propose('CRASHED', explained ?? withTail(describeExit(exit), exit))
  }
  if (record.reports === 'command' && state === 'PENDING') {
    return propose('COMPLETED', 'The command ended with exit code 0 and has not reported a state of its own.')
  }
  const left =
    state === 'RUNNING' ? 'while the run was still Running' : `while the run was still ${state.toLowerCase()}`
  return propose(
    'CRASHED',
    withTail(`The process ended with exit code 0 ${left}: nobody reported how the flow ended.`, exit),
  )
}

/** "exit code 137 (SIGKILL …)" in words; the driver's own explanation, if it has one, follows. */
export function describeExit(exit: Extract<Exit, { kind: 'exited' }>): string {
  const what =
    exit.signal !== undefined
      ? `was ended by ${exit.signal} (signal ${signalNumber(exit.signal)})`
      : exit.statusCode !== undefined
        ? `ended with exit code ${exit.statusCode}`
        : 'ended, with an exit code that is not known'
  return `The flow run's infrastructure ${what}.${exit.reason ? ` ${sentence(exit.reason)}` : ''}`
}

function signalNumber(name: string): number | string {
  return (constants.signals as Record<string, number>)[name] ?? 'unknown'
}

function sentence(text: string): string {
  const upper = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.!?]$/.test(upper) ? upper : `${upper}.`
}

/**
 * The engine of Prefect 3 answers the SIGTERM with which we end it by reporting Crashed, over Cancelling as well. That
 * report is about us and not about the flow. Prefect's own runner puts Cancelled over it by force.
 */
function isEchoOfOurKill(record: RunRecord, run: OutcomeFacts['run']): boolean {
  return (
    record.stop !== undefined &&
    record.reports !== 'agent' &&
    run.state_type === 'CRASHED' &&
    /aborted by a termination signal/i.test(run.state?.message ?? '')
  )
}

function decideAfterEcho(record: RunRecord, stoppedRuns: 'crashed' | 'scheduled'): Outcome {
  if (record.stop === 'cancelled') return force(propose('CANCELLED', cancelledMessage(record)))
  if (record.stop === 'agent-stopped' && stoppedRuns === 'scheduled') {
    return force(propose('SCHEDULED', stoppedMessage, 0))
  }
  return none('the engine has reported that it was ended')
}

/**
 * An engine that waits for its own retry (`in_process`) shows its run as scheduled. When that engine is gone, no agent
 * would ever start the run again, for all of them skip it: without a report it would be a ghost.
 */
function waitsForDeadEngine(run: OutcomeFacts['run']): boolean {
  return run.state_name === 'AwaitingRetry' && run.empirical_policy?.retry_type === 'in_process'
}

/**
 * A server that is to retry a run answers Failed with AwaitingRetry, `in_process`, for it expects an engine
 * (RetryFailedFlows in core_policy.py, 2.x and 3.x). A command has none that waits and starts it once more.
 */
function waitsForCommand({ reports, ending, stop }: RunRecord, run: OutcomeFacts['run']): boolean {
  return reports === 'agent' && ending?.kind === 'exit' && stop === undefined && waitsForDeadEngine(run)
}

/**
 * PENDING with a transition id that is not ours, or infrastructure that came after ours: our claim is history.
 * The server keeps the `infrastructure_pid` of an earlier try until a new one is reported, so that one is no sign.
 */
function isOfAnotherClaim(record: RunRecord, run: OutcomeFacts['run']): boolean {
  if (run.state_type === 'PENDING') return !claimIsOurs(record, run)
  const known = [null, record.polled.infrastructurePid, record.handle?.identifier]
  return record.handle !== undefined && !known.includes(run.infrastructure_pid)
}

function claimIsOurs(record: RunRecord, run: OutcomeFacts['run']): boolean {
  return run.state_type === 'PENDING' && run.state?.state_details?.transition_id === record.transitionId
}

/** RUNNING as the agent proposed it for a command that it then could not start. */
function saysOurRunning(record: RunRecord, run: OutcomeFacts['run']): boolean {
  return (
    run.state_type === 'RUNNING' &&
    run.state?.state_details?.transition_id === followUpId(record.transitionId, 'running')
  )
}

function cancelledMessage(record: RunRecord): string {
  return record.handle || record.step === 'running'
    ? 'The flow run was cancelled and its infrastructure has ended.'
    : 'The flow run was cancelled before it was started.'
}

function withTail(message: string, exit: Exit): string {
  if (exit.outputTail.length === 0) return message
  const room = Math.max(200, messageLimit - message.length - 40)
  const tail = exit.outputTail.join('\n')
  return `${message}\nLast lines of output:\n${tail.length > room ? `…${tail.slice(-room)}` : tail}`
}

function force(outcome: Outcome): Outcome {
  return outcome.kind === 'propose' ? { kind: 'propose', proposal: { ...outcome.proposal, force: true } } : outcome
}

function none(why: string): Outcome {
  return { kind: 'none', why }
}

function propose(type: StateType, message: string, delaySeconds?: number): Outcome {
  return { kind: 'propose', proposal: { type, message, ...(delaySeconds === undefined ? {} : { delaySeconds }) } }
}
