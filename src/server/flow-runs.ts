// Flow runs in the database: reading them as the API sends them, and making new ones.

import { randomUUID } from 'node:crypto'
import { type Database, type Row, type Sql, typed } from './database.ts'
import type { FlowRunPolicy } from './orchestration.ts'
import { refuse } from './refusal.ts'
import { makeRunName } from './run-names.ts'
import { isTerminal, type Proposal, type State, type StateType } from './states.ts'
import { now, secondsBetween } from './time.ts'

/** A flow run with its state and the names of its queue and pool. */
export interface FlowRun {
  readonly id: string
  readonly created: string
  readonly updated: string
  readonly name: string
  readonly flow_id: string
  readonly deployment_id: string | null
  readonly work_queue_id: string | null
  readonly work_queue_name: string | null
  readonly infrastructure_pid: string | null
  readonly parent_task_run_id: string | null
  readonly parameters: Record<string, unknown>
  readonly empirical_policy: FlowRunPolicy
  readonly tags: readonly string[]
  readonly state_id: string | null
  readonly state_type: StateType | null
  readonly state_name: string | null
  readonly state_timestamp: string | null
  readonly run_count: number
  readonly start_time: string | null
  readonly end_time: string | null
  readonly expected_start_time: string | null
  readonly next_scheduled_start_time: string | null
  readonly total_run_time: number
  readonly auto_scheduled: boolean
  readonly job_variables: Record<string, unknown> | null
  readonly work_pool_id: string | null
  readonly work_pool_name: string | null
  readonly queue_name: string | null
  readonly state: State | null
}

export const SELECT_FLOW_RUN = `SELECT flow_run.*, work_queue.name AS queue_name, work_queue.work_pool_id AS work_pool_id,
  work_pool.name AS work_pool_name FROM flow_run
  LEFT JOIN work_queue ON work_queue.id = flow_run.work_queue_id
  LEFT JOIN work_pool ON work_pool.id = work_queue.work_pool_id`

/** Runs a query that begins with SELECT_FLOW_RUN and adds each run's state. */
export function readFlowRuns(database: Database, query: Sql): FlowRun[] {
  const rows = database.all(query)
  const stateIds = JSON.stringify(rows.map(row => row.state_id).filter(id => id !== null))
  const states = new Map(
    rows.length === 0
      ? []
      : database
          .all({ sql: 'SELECT * FROM flow_run_state WHERE id IN (SELECT value FROM json_each(?))', params: [stateIds] })
          .map(row => [String(row.id), row]),
  )
  return rows.map(row => {
    return typed<FlowRun>({ ...row, state: readState(states.get(String(row.state_id))) })
  })
}

export function readFlowRun(database: Database, id: string): FlowRun | undefined {
  return readFlowRuns(database, { sql: `${SELECT_FLOW_RUN} WHERE flow_run.id = ?`, params: [id] })[0]
}

export function findFlowRun(database: Database, id: string): FlowRun {
  const run = readFlowRun(database, id)
  if (!run) throw refuse(404, 'Flow run not found')
  return run
}

/** Takes away what only the table knows. */
export function readState(row: Row | undefined): State | null {
  if (!row) return null
  const { flow_run_id: _flowRun, task_run_id: _taskRun, ...state } = row
  return typed<State>(state)
}

/** What the API sends: estimates are made now, names come from the queue when there is one. */
export function flowRunBody(run: FlowRun): Record<string, unknown> {
  const { queue_name, state_timestamp: _timestamp, ...fields } = run
  return {
    ...fields,
    ...estimates(run),
    work_queue_name: queue_name ?? run.work_queue_name,
    created_by: null,
  }
}

export function estimates(
  run: Pick<
    FlowRun,
    'state' | 'state_type' | 'state_timestamp' | 'total_run_time' | 'start_time' | 'expected_start_time'
  >,
): { readonly estimated_run_time: number; readonly estimated_start_time_delta: number } {
  const at = now()
  const running = run.state_type === 'RUNNING' && run.state_timestamp !== null
  return {
    estimated_run_time: run.total_run_time + (running ? secondsBetween(run.state_timestamp, at) : 0),
    estimated_start_time_delta: lateness(run, at),
  }
}

function lateness(run: Pick<FlowRun, 'state_type' | 'start_time' | 'expected_start_time'>, at: string): number {
  const { start_time, expected_start_time, state_type } = run
  if (expected_start_time === null) return 0
  if (start_time !== null) return Math.max(0, secondsBetween(expected_start_time, start_time))
  return isTerminal(state_type) ? 0 : Math.max(0, secondsBetween(expected_start_time, at))
}

export interface NewFlowRun {
  readonly flow_id: string
  readonly name?: string | null
  readonly deployment_id?: string | null
  readonly deployment_version?: string | null
  readonly work_queue_id?: string | null
  readonly work_queue_name?: string | null
  readonly flow_version?: string | null
  readonly parameters: Record<string, unknown>
  readonly idempotency_key?: string | null
  readonly context?: Record<string, unknown> | null
  readonly parent_task_run_id?: string | null
  readonly auto_scheduled?: boolean
  readonly infrastructure_document_id?: string | null
  readonly job_variables?: Record<string, unknown> | null
  readonly empirical_policy: FlowRunPolicy
  readonly tags: readonly string[]
  readonly state: Proposal
}

/** Inserts the row, without its state. Undefined when a run with this idempotency key exists; its id is in `existing`. */
export function insertFlowRun(database: Database, run: NewFlowRun): { readonly id: string; readonly isNew: boolean } {
  if (run.idempotency_key) {
    const sql = 'SELECT id FROM flow_run WHERE flow_id = ? AND idempotency_key = ?'
    const existing = database.get({ sql, params: [run.flow_id, run.idempotency_key] })
    if (existing) return { id: String(existing.id), isNew: false }
  }
  const { state: _state, ...columns } = run
  const id = randomUUID()
  const created = now()
  database.insert('flow_run', {
    ...columns,
    id,
    created,
    updated: created,
    name: run.name || makeRunName(),
    context: run.context ?? {},
    job_variables: run.job_variables ?? {},
    idempotency_key: run.idempotency_key || null,
  })
  return { id, isNew: true }
}
