// PURE: what the server shows of a run that we have claimed -> may it still be launched, and what was it before?
//
// The server accepts PENDING after COMPLETED, so a claim made from a poll answer that has grown old succeeds as any other.

import type { FlowRun, State, StateType } from '../prefect/types.ts'
import { followUpId } from './identity.ts'
import type { RunRecord } from './record.ts'

export type Standing =
  /** The claim holds. */
  | 'ours'
  /** The claim holds and RUNNING was accepted already, in this life or an earlier one. */
  | 'ours-running'
  /** Somebody wants it ended; whether it is ours to end, the outbox finds out. */
  | 'cancelled'
  /** It is somebody else's, over, or unknown to the server. */
  | 'lost'

export function judgeStanding(record: RunRecord, run: FlowRun | undefined): Standing {
  if (!run) return 'lost'
  const transitionId = run.state?.state_details?.transition_id ?? null
  if (run.state_type === 'CANCELLING') return 'cancelled'
  if (run.state_type === 'RUNNING' && transitionId === followUpId(record.transitionId, 'running')) return 'ours-running'
  if (run.state_type !== 'PENDING' || transitionId !== record.transitionId) return 'lost'
  return 'ours'
}

/**
 * The polled run as the claim has left it, when the claim's answer proves that nothing had happened to it since the poll;
 * undefined when it does not, and the run must be looked at.
 *
 * The server itself copies the scheduled time of the state that a claim replaces into the accepted one, in the same
 * transaction, and only if that state was SCHEDULED (CopyScheduledTime in server/orchestration/core_policy.py, 2.x and
 * 3.x). A run that was run meanwhile has no such time, or, when it waits for a retry, a later one. So the same time says
 * what a look would say, and of the very moment of the claim instead of one after it.
 */
export function readUntouched(polled: FlowRun, claimed: State): FlowRun | undefined {
  const due = polled.state?.type === 'SCHEDULED' ? polled.state.state_details.scheduled_time : null
  if (due === null || claimed.type !== 'PENDING' || claimed.state_details.scheduled_time !== due) return undefined
  return { ...polled, state: claimed, state_type: claimed.type, state_name: claimed.name }
}

/**
 * The same from the history: true when nobody has had the run between the poll and our claim. `states`: all of the run's,
 * oldest first. A server that marks a waiting run as late gives it another scheduled state, which changes nothing.
 *
 * The run itself does not tell: one that ends without having been Running (a command that reports nothing, a launch that
 * failed) keeps its count, and has neither start nor end. Our own RUNNING may be in it: an earlier life proposed it, and the
 * server has carried it out since the look.
 */
export function isUntouched({ polled, transitionId }: RunRecord, states: readonly State[]): boolean {
  const own = [transitionId, followUpId(transitionId, 'running')]
  const at = states.findIndex(state => state.id !== null && state.id === polled.stateId)
  const since = states.slice(at + 1).filter(state => !own.includes(state.state_details.transition_id ?? ''))
  return at !== -1 && since.every(state => state.type === 'SCHEDULED')
}

/**
 * The transition id of the last claim. `states`: all of the run's, oldest first. Engines say PENDING too, of a flow that
 * waits for what it depends on (`NotReady` in flow_engine.py of 3.x, engine.py of 2.x).
 */
export function findLastClaim(states: readonly State[]): string | undefined {
  return states.findLast(isClaim)?.state_details.transition_id ?? undefined
}

function isClaim({ type, name }: State): boolean {
  return type === 'PENDING' && name !== 'NotReady'
}

/** PENDING never takes the place of these (PreventPendingTransitions in core_policy.py, 2.x and 3.x). */
const refusingClaims: readonly StateType[] = ['PENDING', 'RUNNING', 'CANCELLING', 'CANCELLED']

/**
 * The state that a claim has replaced, out of all states of its run, oldest first; undefined if they do not show it.
 *
 * Not simply the one before the claim: a state is dated when the server reads its proposal, and a claim that then waits for
 * the lock of an SQLite database is dated before a whole run of somebody else that is carried out ahead of it. So it is
 * the last of those that a claim can replace; or what we have reported of the claim, whatever that was, for then it is a
 * proposal of ours that was carried out too late (see `isBelated`).
 */
export function findFormerState(transitionId: string, states: readonly State[]): State | undefined {
  return states[indexOfFormerState(transitionId, states)]
}

function indexOfFormerState(transitionId: string, states: readonly State[]): number {
  const report = followUpId(transitionId, 'report')
  return states.findLastIndex(
    state => state.state_details.transition_id === report || !refusingClaims.includes(state.type),
  )
}

/**
 * True when somebody else has claimed the run after that, and it has not ended since: a RUNNING of ours that comes late
 * stands over theirs, and what would be put back would take the run from under them.
 */
export function isClaimedSince(transitionId: string, states: readonly State[]): boolean {
  return states
    .slice(indexOfFormerState(transitionId, states) + 1)
    .some(state => isClaim(state) && state.state_details.transition_id !== transitionId)
}

/**
 * True when the run shows our RUNNING and its history our report of how it ended. A proposal whose answer was lost is
 * repeated; a proxy, or a server that waits for its database, can carry out the first of the two when the run is long over,
 * and the server takes RUNNING after COMPLETED. Not so when somebody else has the run by then.
 */
export function isBelated(transitionId: string, run: FlowRun, states: readonly State[]): boolean {
  const report = followUpId(transitionId, 'report')
  return (
    run.state_type === 'RUNNING' &&
    run.state?.state_details?.transition_id === followUpId(transitionId, 'running') &&
    states.some(state => state.state_details.transition_id === report) &&
    !isClaimedSince(transitionId, states)
  )
}
