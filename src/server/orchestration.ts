// The rules for state changes of flow runs. Pure: the run as it is, what is proposed, and the time -> a decision.
//
// The rules and their order are those of Prefect's server (server/orchestration/core_policy.py); the first one that
// objects decides. Nothing here touches a database; run-states.ts carries the decision out.

import { buildProposal, isTerminal, type Proposal, type State } from './states.ts'
import { addSeconds, secondsBetween } from './time.ts'

/** Prefect's `empirical_policy` of a flow run. */
export interface FlowRunPolicy {
  readonly max_retries: number
  readonly retry_delay_seconds: number
  readonly retries: number | null
  readonly retry_delay: number | null
  readonly pause_keys: readonly string[]
  readonly resuming: boolean
  readonly retry_type: 'in_process' | 'reschedule' | null
}

/** What the rules look at. */
export interface FlowRunFacts {
  readonly state: State | null
  readonly deployment_id: string | null
  readonly parent_task_run_id: string | null
  readonly infrastructure_pid: string | null
  readonly run_count: number
  readonly empirical_policy: FlowRunPolicy
}

export interface Proposed {
  readonly run: FlowRunFacts
  readonly proposal: Proposal
  /** Skips all rules but the two that keep a forced state sensible. */
  readonly force: boolean
  readonly now: string
  /** Stands in for a pause key that was left out. */
  readonly newKey: string
}

/**
 * What to do. `write` is the state to write, if any: for ACCEPT the proposed one, for REJECT one that the server prefers.
 * `policyBefore` is changed before the books are kept, `policyAfter` afterwards: the order decides whether a run that
 * resumes counts as a new attempt.
 */
export type Decision =
  | {
      readonly status: 'ACCEPT'
      readonly write: Proposal
      readonly policyBefore: PolicyChange
      readonly policyAfter: PolicyChange
    }
  | {
      readonly status: 'REJECT'
      readonly reason: string
      readonly write: Proposal | undefined
      readonly policyBefore: PolicyChange
    }
  | { readonly status: 'ABORT'; readonly reason: string }
  | { readonly status: 'WAIT'; readonly reason: string; readonly delaySeconds: number }

export type PolicyChange = Partial<Pick<FlowRunPolicy, 'pause_keys' | 'resuming' | 'retry_type'>>

type Rule = (proposed: Proposed, from: State | null) => Decision | undefined

export function decideFlowRunState(proposed: Proposed): Decision {
  const from = proposed.run.state
  const rules = proposed.force ? FORCED_RULES : RULES
  for (const rule of rules) {
    const objection = rule(proposed, from)
    if (objection) return objection
  }
  const { run } = proposed
  const proposal = proposed.force
    ? markUnknownResult(proposed.proposal, from)
    : copyScheduledTime(proposed.proposal, from)
  if (proposed.force) return { status: 'ACCEPT', write: proposal, policyBefore: {}, policyAfter: {} }
  return {
    status: 'ACCEPT',
    write: proposal,
    policyBefore: resetWhenLeavingTerminal(proposal, from),
    policyAfter: { ...addPauseKey(proposed, run), ...(from?.type === 'PAUSED' ? { resuming: true } : {}) },
  }
}

function reject(reason: string, write?: Proposal, policyBefore: PolicyChange = {}): Decision {
  return { status: 'REJECT', reason, write, policyBefore }
}

function abort(reason: string): Decision {
  return { status: 'ABORT', reason }
}

const refuseDuplicate: Rule = ({ proposal }, from) => {
  const id = from?.state_details.transition_id
  if (id && id === proposal.state_details.transition_id)
    return reject('This run has already made this state transition.')
  return undefined
}

const guardTerminal: Rule = ({ run, proposal }, from) => {
  if (!from || !isTerminal(from.type)) return undefined
  if (proposal.type === 'CANCELLING' || proposal.type === 'PAUSED' || proposal.type === 'CRASHED') {
    return abort(`Run is already in terminal state ${from.type}.`)
  }
  if (from.type === 'COMPLETED' && !isTerminal(proposal.type) && hasKeptResult(from)) {
    return reject('Run is already COMPLETED.')
  }
  if (proposal.type === 'SCHEDULED' && !run.deployment_id) {
    return abort('Cannot reschedule a run without an associated deployment.')
  }
  return undefined
}

const guardCancelling: Rule = ({ proposal }, from) => {
  if (from?.type !== 'CANCELLED' && from?.type !== 'CANCELLING') return undefined
  if (proposal.type === 'CANCELLED') return undefined
  return reject('Cannot transition flows that are cancelling to a state other than Cancelled.')
}

/** Where nothing runs, nothing can confirm the cancellation: the server says Cancelled itself. */
const cancelWithoutInfrastructure: Rule = ({ run, proposal, now }, from) => {
  if (proposal.type !== 'CANCELLING' || !from) return undefined
  const cancelled = () => buildProposal({ type: 'CANCELLED' }, now)
  if (from.type === 'SCHEDULED' && (!run.infrastructure_pid || from.name === 'Resuming')) {
    return reject('Scheduled flow run has no infrastructure to terminate.', cancelled())
  }
  if (from.type === 'PAUSED' && from.state_details.pause_reschedule) {
    return reject('Suspended flow run has no infrastructure to terminate.', cancelled())
  }
  return undefined
}

/** The one guard against two agents that submit the same run. */
const guardPending: Rule = ({ proposal }, from) => {
  if (proposal.type !== 'PENDING' || !from || !['PENDING', 'CANCELLING', 'RUNNING', 'CANCELLED'].includes(from.type)) {
    return undefined
  }
  return abort(`This run is in a ${from.type} state and cannot transition to a PENDING state.`)
}

const guardLate: Rule = ({ proposal }, from) => {
  if (proposal.type !== 'SCHEDULED' || proposal.name !== 'Late' || from?.type === 'SCHEDULED') return undefined
  return reject('Only scheduled flows can be marked late.')
}

const guardPausing: Rule = ({ run, proposal }, from) => {
  if (proposal.type !== 'PAUSED') return undefined
  const verb = proposal.name === 'Suspended' ? 'suspend' : 'pause'
  if (!from) return abort(`Cannot ${verb} flows with no state.`)
  if (from.type !== 'RUNNING') return reject(`Cannot ${verb} flows that are not currently running.`)
  const key = proposal.state_details.pause_key
  if (key !== null && run.empirical_policy.pause_keys.includes(key)) return reject(`This ${verb} has already fired.`)
  if (!proposal.state_details.pause_reschedule) return undefined
  if (run.parent_task_run_id) return abort(`Cannot ${verb} subflows.`)
  if (!run.deployment_id) return abort(`Cannot ${verb} flows without a deployment.`)
  return undefined
}

const guardResuming: Rule = ({ run, proposal, now }, from) => {
  if (from?.type !== 'PAUSED') return undefined
  if (proposal.type !== 'RUNNING' && proposal.type !== 'SCHEDULED' && !isTerminal(proposal.type)) {
    return reject(`This run cannot transition to the ${proposal.type} state from the PAUSED state.`)
  }
  if (from.state_details.pause_reschedule && !run.deployment_id) {
    return reject(`Cannot reschedule a ${proposal.name.toLowerCase()} flow run without a deployment.`)
  }
  const timeout = from.state_details.pause_timeout
  if (timeout !== null && timeout < now) {
    const message = `The flow was ${proposal.name.toLowerCase()} and never resumed.`
    return reject(
      'The flow run pause has timed out and can no longer resume.',
      buildProposal({ type: 'FAILED', message }, now),
    )
  }
  return undefined
}

/** The server's clock decides when a run may start; the answer is in whole seconds. */
export function waitForScheduledTime(proposal: Proposal, from: State | null, now: string): Decision | undefined {
  if (proposal.type !== 'RUNNING' || (from?.type !== 'SCHEDULED' && from?.type !== 'PENDING')) return undefined
  const scheduled = from.state_details.scheduled_time
  if (scheduled === null) return undefined
  const delaySeconds = Math.round(secondsBetween(now, scheduled))
  if (delaySeconds <= 0) return undefined
  return { status: 'WAIT', reason: 'Scheduled time is in the future', delaySeconds }
}

const retry: Rule = ({ run, proposal, now }, from) => {
  if (from?.type !== 'RUNNING' || proposal.type !== 'FAILED') return undefined
  const { retries, retry_delay } = run.empirical_policy
  if (retries === null || run.run_count > retries) return undefined
  const awaiting = buildProposal(
    {
      type: 'SCHEDULED',
      name: 'AwaitingRetry',
      message: proposal.message,
      data: proposal.data,
      state_details: { scheduled_time: addSeconds(now, retry_delay ?? 0) },
    },
    now,
  )
  return reject('Retrying', awaiting, { resuming: false, pause_keys: [], retry_type: 'in_process' })
}

const RULES: readonly Rule[] = [
  refuseDuplicate,
  guardTerminal,
  guardCancelling,
  cancelWithoutInfrastructure,
  guardPending,
  guardLate,
  guardPausing,
  guardResuming,
  ({ proposal, now }, from) => waitForScheduledTime(proposal, from, now),
  retry,
]

const FORCED_RULES: readonly Rule[] = [cancelWithoutInfrastructure]

export function hasKeptResult({ data }: State): boolean {
  return typeof data === 'object' && data !== null && (!('type' in data) || data.type !== 'unpersisted')
}

/** So that the scheduled time is still enforced when a claimed run wants to be Running. */
export function copyScheduledTime(proposal: Proposal, from: State | null): Proposal {
  if (proposal.type !== 'PENDING' || from?.type !== 'SCHEDULED' || proposal.state_details.scheduled_time)
    return proposal
  const scheduled_time = from.state_details.scheduled_time
  return { ...proposal, state_details: { ...proposal.state_details, scheduled_time } }
}

/** A run forced to Completed whose former result was kept has an unknown result, not that one. */
export function markUnknownResult(proposal: Proposal, from: State | null): Proposal {
  if (proposal.type !== 'COMPLETED' || (from?.type !== 'FAILED' && from?.type !== 'CRASHED')) return proposal
  const { data } = from
  if (typeof data !== 'object' || data === null || !('type' in data) || data.type !== 'reference') return proposal
  const unknown = { type: 'unknown', artifact_type: 'result', artifact_description: 'Unknown result', value: null }
  return { ...proposal, data: unknown }
}

function resetWhenLeavingTerminal(proposal: Proposal, from: State | null): PolicyChange {
  if (!isTerminal(from?.type) || isTerminal(proposal.type)) return {}
  return { resuming: false, pause_keys: [], retry_type: proposal.type === 'SCHEDULED' ? 'reschedule' : null }
}

function addPauseKey({ proposal, newKey }: Proposed, run: FlowRunFacts): PolicyChange {
  if (proposal.type !== 'PAUSED') return {}
  return { pause_keys: [...run.empirical_policy.pause_keys, proposal.state_details.pause_key ?? newKey] }
}
