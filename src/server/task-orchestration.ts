// The rules for state changes of task runs. Pure, like orchestration.ts, whose decisions it shares.

import {
  copyScheduledTime,
  type Decision,
  hasKeptResult,
  markUnknownResult,
  waitForScheduledTime,
} from './orchestration.ts'
import { buildProposal, isTerminal, type Proposal, type State, type StateType } from './states.ts'
import { addSeconds } from './time.ts'

/** Prefect's `empirical_policy` of a task run. */
export interface TaskRunPolicy {
  readonly max_retries: number
  readonly retry_delay_seconds: number
  readonly retries: number | null
  readonly retry_delay: number | readonly number[] | null
  readonly retry_jitter_factor: number | null
}

export interface TaskRunFacts {
  readonly state: State | null
  readonly flow_run_id: string | null
  readonly run_count: number
  readonly flow_run_run_count: number
  readonly empirical_policy: TaskRunPolicy
}

export interface ProposedTask {
  readonly run: TaskRunFacts
  readonly proposal: Proposal
  readonly force: boolean
  readonly now: string
  /** The flow run that it belongs to. */
  readonly flowRun: { readonly state: State | null; readonly run_count: number } | undefined
  /** The state that its cache key stands for, if one is known. */
  readonly cached: State | undefined
  /** From 0 to 1, for the jitter of retries. */
  readonly random: number
}

/** The decision, and the run count that it starts from: leaving a terminal state begins a new count of retries. */
export interface TaskDecision {
  readonly decision: Decision
  readonly runCount: number
}

export function decideTaskRunState(proposed: ProposedTask): TaskDecision {
  const { run, proposal, now } = proposed
  const from = run.state
  if (proposed.force && run.flow_run_id !== null) {
    return { decision: accept(markUnknownResult(proposal, from)), runCount: run.run_count }
  }
  const objection =
    guardPending(proposed) ??
    useCache(proposed) ??
    guardTerminal(proposed) ??
    needRunningFlow(proposed) ??
    waitForScheduledTime(proposal, from, now) ??
    retry(proposed)
  if (objection) return { decision: objection, runCount: run.run_count }
  const runCount = isTerminal(from?.type) && !isTerminal(proposal.type) ? 0 : run.run_count
  return { decision: accept(rename(copyScheduledTime(proposal, from), proposed, runCount)), runCount }
}

function accept(write: Proposal): Decision {
  return { status: 'ACCEPT', write, policyBefore: {}, policyAfter: {} }
}

function reject(reason: string, write?: Proposal): Decision {
  return { status: 'REJECT', reason, write, policyBefore: {} }
}

const PENDING_FORBIDDEN: readonly StateType[] = ['PENDING', 'CANCELLING', 'RUNNING', 'CANCELLED']

/** Only for tasks outside of flows, which are submitted like flow runs. */
function guardPending({ run, proposal }: ProposedTask): Decision | undefined {
  const from = run.state?.type
  if (run.flow_run_id !== null || proposal.type !== 'PENDING' || !from || !PENDING_FORBIDDEN.includes(from))
    return undefined
  return { status: 'ABORT', reason: `This run is in a ${from} state and cannot transition to a PENDING state.` }
}

function useCache({ proposal, cached, now }: ProposedTask): Decision | undefined {
  const { cache_key, refresh_cache } = proposal.state_details
  if (proposal.type !== 'RUNNING' || !cache_key || refresh_cache || !cached) return undefined
  return reject('Retrieved state from cache', buildProposal({ ...cached, name: 'Cached' }, now))
}

function guardTerminal({ run, proposal }: ProposedTask): Decision | undefined {
  const from = run.state
  if (!from || !isTerminal(from.type)) return undefined
  if (proposal.type === 'CANCELLING' || proposal.type === 'PAUSED' || proposal.type === 'CRASHED') {
    return { status: 'ABORT', reason: `Run is already ${from.type}.` }
  }
  if (from.type === 'COMPLETED' && hasKeptResult(from)) return reject('This run is already completed.')
  return undefined
}

function needRunningFlow({ proposal, flowRun, now }: ProposedTask): Decision | undefined {
  if (proposal.type !== 'RUNNING' || !flowRun || flowRun.state?.type === 'RUNNING') return undefined
  if (flowRun.state?.type !== 'PAUSED') {
    return { status: 'ABORT', reason: 'The enclosing flow must be running to begin task execution.' }
  }
  const { pause_timeout, pause_reschedule } = flowRun.state.state_details
  const paused = buildProposal(
    { type: 'PAUSED', name: 'NotReady', state_details: { pause_timeout, pause_reschedule } },
    now,
  )
  return reject('The flow is paused, new tasks can execute after resuming the flow run.', paused)
}

function retry({ run, proposal, now, random }: ProposedTask): Decision | undefined {
  if (run.state?.type !== 'RUNNING' || proposal.type !== 'FAILED' || proposal.state_details.retriable === false) {
    return undefined
  }
  const { retries, retry_jitter_factor } = run.empirical_policy
  if (retries === null || run.run_count > retries) return undefined
  const delay = addJitter(readDelay(run), retry_jitter_factor ?? 0, random)
  const awaiting = buildProposal(
    {
      type: 'SCHEDULED',
      name: 'AwaitingRetry',
      message: proposal.message,
      data: proposal.data,
      state_details: { scheduled_time: addSeconds(now, delay) },
    },
    now,
  )
  return reject('Retrying', awaiting)
}

/** A list gives the delay of each attempt; its last one stands for all that follow. */
function readDelay({ run_count, empirical_policy: { retry_delay } }: TaskRunFacts): number {
  if (retry_delay === null || typeof retry_delay === 'number') return retry_delay ?? 0
  return retry_delay[Math.min(Math.max(run_count, 1), retry_delay.length) - 1] ?? 0
}

/** Spreads over [d·c, d·(1+j)], the span of Prefect's clamped Poisson interval (utilities/math.py). */
function addJitter(seconds: number, factor: number, random: number): number {
  if (factor <= 0 || seconds <= 0) return seconds
  const k = 2 ** (1 + factor)
  const lowest = Math.log2(k / (k - 1))
  return seconds * (lowest + random * (1 + factor - lowest))
}

function rename(proposal: Proposal, { run, flowRun }: ProposedTask, runCount: number): Proposal {
  if (proposal.type !== 'RUNNING') return proposal
  if (runCount > 0) return { ...proposal, name: run.state?.name === 'AwaitingRetry' ? 'Retrying' : 'Rerunning' }
  const flowRetries = flowRun && run.flow_run_run_count < flowRun.run_count
  return isTerminal(run.state?.type) && flowRetries ? { ...proposal, name: 'Retrying' } : proposal
}
