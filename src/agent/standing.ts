// PURE: what the server shows of a run that we have claimed -> may it still be launched?

import type { FlowRun } from '../prefect/types.ts'
import { followUpId } from './identity.ts'
import type { RunRecord } from './record.ts'

export type Standing =
  /** The claim holds. */
  | 'ours'
  /** The claim holds and RUNNING was accepted already, in this life or an earlier one. */
  | 'ours-running'
  /** The claim came from a poll answer that was out of date: somebody has run it meanwhile. Put the former state back. */
  | 'stale'
  /** Somebody wants it ended. */
  | 'cancelled'
  /** It is somebody else's, over, or unknown to the server. */
  | 'lost'

export function judgeStanding(record: RunRecord, run: FlowRun | undefined): Standing {
  if (!run) return 'lost'
  const transitionId = run.state?.state_details?.transition_id ?? null
  if (run.state_type === 'CANCELLING') return 'cancelled'
  if (run.state_type === 'RUNNING' && transitionId === followUpId(record.transitionId, 'running')) return 'ours-running'
  if (run.state_type !== 'PENDING' || transitionId !== record.transitionId) return 'lost'
  return wasRunSince(record, run) ? 'stale' : 'ours'
}

/**
 * The server accepts PENDING after COMPLETED, so a claim made from an old poll answer succeeds. What it cannot hide is
 * that the run has been run: its count, its start and its end have moved since.
 */
function wasRunSince({ polled }: RunRecord, run: FlowRun): boolean {
  return (
    (run.run_count ?? 0) !== polled.runCount ||
    run.start_time !== polled.startTime ||
    endedSince(polled.endTime, run.end_time)
  )
}

/** Leaving a terminal state clears the end time, so only a new one is a sign. */
function endedSince(polled: string | null, now: string | null): boolean {
  return now !== null && now !== polled
}
