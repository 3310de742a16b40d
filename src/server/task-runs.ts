// Task runs in the database: reading them as the API sends them, and making new ones.

import { randomUUID } from 'node:crypto'
import { type Database, type Sql, typed } from './database.ts'
import { estimates, readState } from './flow-runs.ts'
import { refuse } from './refusal.ts'
import { makeRunName } from './run-names.ts'
import type { State, StateType } from './states.ts'
import type { TaskRunPolicy } from './task-orchestration.ts'
import { now } from './time.ts'

export interface TaskRun {
  readonly id: string
  readonly created: string
  readonly updated: string
  readonly name: string
  readonly flow_run_id: string | null
  readonly task_key: string
  readonly dynamic_key: string
  readonly cache_key: string | null
  readonly cache_expiration: string | null
  readonly empirical_policy: TaskRunPolicy
  readonly tags: readonly string[]
  readonly state_id: string | null
  readonly state_type: StateType | null
  readonly state_name: string | null
  readonly state_timestamp: string | null
  readonly run_count: number
  readonly flow_run_run_count: number
  readonly expected_start_time: string | null
  readonly next_scheduled_start_time: string | null
  readonly start_time: string | null
  readonly end_time: string | null
  readonly total_run_time: number
  readonly state: State | null
}

export function readTaskRuns(database: Database, query: Sql): TaskRun[] {
  return database.all(query).map(row => {
    const state = readState(
      database.get({ sql: 'SELECT * FROM task_run_state WHERE id = ?', params: [String(row.state_id)] }),
    )
    return typed<TaskRun>({ ...row, state })
  })
}

export function readTaskRun(database: Database, id: string): TaskRun | undefined {
  return readTaskRuns(database, { sql: 'SELECT * FROM task_run WHERE id = ?', params: [id] })[0]
}

export function findTaskRun(database: Database, id: string): TaskRun {
  const run = readTaskRun(database, id)
  if (!run) throw refuse(404, 'Task not found')
  return run
}

export function taskRunBody(run: TaskRun): Record<string, unknown> {
  const { state_timestamp: _timestamp, ...fields } = run
  return { ...fields, ...estimates(run) }
}

export interface NewTaskRun {
  readonly id?: string | null
  readonly name?: string | null
  readonly flow_run_id: string | null
  readonly task_key: string
  readonly dynamic_key: string
  readonly cache_key: string | null
  readonly cache_expiration: string | null
  readonly task_version: string | null
  readonly empirical_policy: TaskRunPolicy
  readonly tags: readonly string[]
  readonly task_inputs: Record<string, unknown>
}

/** A task run is known by flow run, task key and dynamic key: a second one with the same keys is the first one. */
export function insertTaskRun(database: Database, run: NewTaskRun): { readonly id: string; readonly isNew: boolean } {
  const existing = database.get({
    sql: 'SELECT id FROM task_run WHERE flow_run_id IS ? AND task_key = ? AND dynamic_key = ?',
    params: [run.flow_run_id, run.task_key, run.dynamic_key],
  })
  if (existing) return { id: String(existing.id), isNew: false }
  const id = run.id ?? randomUUID()
  const created = now()
  database.insert('task_run', { ...run, id, created, updated: created, name: run.name || makeRunName() })
  return { id, isNew: true }
}
