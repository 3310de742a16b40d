// What a written state changes on its run: times, counts and the due time. Pure.
//
// Follows Prefect's server/orchestration/global_policy.py; it applies to every written state, forced or not.

import { isTerminal, type State, type StateType } from './states.ts'
import { secondsBetween } from './time.ts'

export interface Books {
  readonly state: State | null
  readonly run_count: number
  readonly start_time: string | null
  readonly end_time: string | null
  readonly expected_start_time: string | null
  readonly next_scheduled_start_time: string | null
  readonly total_run_time: number
}

/** Columns of the run after `next` was written. `resuming` runs do not count a new attempt. */
export interface BookEntry extends Omit<Books, 'state'> {
  readonly state_id: string
  readonly state_type: StateType
  readonly state_name: string
  readonly state_timestamp: string
}

export function keepBooks(run: Books, next: State, resuming: boolean): BookEntry {
  const from = run.state
  const isRunning = next.type === 'RUNNING'
  const start_time = run.start_time ?? (isRunning ? next.timestamp : null)
  return {
    state_id: next.id,
    state_type: next.type,
    state_name: next.name,
    state_timestamp: next.timestamp,
    start_time,
    end_time: endTime(run, next, start_time),
    total_run_time:
      run.total_run_time + (from?.type === 'RUNNING' ? secondsBetween(from.timestamp, next.timestamp) : 0),
    run_count: run.run_count + (isRunning && !resuming ? 1 : 0),
    expected_start_time: run.expected_start_time ?? firstStart(next),
    next_scheduled_start_time: dueTime(run, next),
  }
}

function endTime(run: Books, next: State, start: string | null): string | null {
  if (!isTerminal(next.type)) return isTerminal(run.state?.type) ? null : run.end_time
  return run.end_time ?? (start === null ? null : next.timestamp)
}

function dueTime(run: Books, next: State): string | null {
  if (next.type === 'SCHEDULED') return next.state_details.scheduled_time
  return run.state?.type === 'SCHEDULED' ? null : run.next_scheduled_start_time
}

function firstStart(next: State): string {
  return (next.type === 'SCHEDULED' ? next.state_details.scheduled_time : null) ?? next.timestamp
}
