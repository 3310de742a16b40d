// Deployments in the database: reading them as the API sends them, saving them, and their schedules.

import { randomUUID } from 'node:crypto'
import { type Database, type Row, type Sql, typed } from './database.ts'
import { refuse } from './refusal.ts'
import type { Schedule } from './schedules.ts'
import { now } from './time.ts'
import { DEFAULT_POOL, ensureQueue, findPool } from './work-queues.ts'

export interface DeploymentSchedule {
  readonly id: string
  readonly deployment_id: string
  readonly schedule: Schedule
  readonly active: boolean
}

export interface NewSchedule {
  readonly schedule: Schedule
  readonly active: boolean
  readonly max_active_runs?: number | null
  readonly max_scheduled_runs?: number | null
  readonly catchup?: boolean
}

export interface Deployment {
  readonly id: string
  readonly name: string
  readonly version: string | null
  readonly flow_id: string
  readonly paused: boolean
  readonly parameters: Record<string, unknown>
  readonly tags: readonly string[]
  readonly work_queue_name: string | null
  readonly work_queue_id: string | null
  readonly work_pool_name: string | null
  readonly infrastructure_document_id: string | null
  readonly parameter_openapi_schema: Record<string, unknown> | null
  readonly enforce_parameter_schema: boolean
  readonly schedules: readonly DeploymentSchedule[]
}

export const SELECT_DEPLOYMENT = `SELECT deployment.*, work_queue.name AS queue_name, work_pool.name AS work_pool_name
  FROM deployment LEFT JOIN work_queue ON work_queue.id = deployment.work_queue_id
  LEFT JOIN work_pool ON work_pool.id = work_queue.work_pool_id`

export function readDeployments(database: Database, query: Sql): Deployment[] {
  return database.all(query).map(row => {
    const schedules = readSchedules(database, String(row.id))
    return typed<Deployment>({ ...row, schedules })
  })
}

export function readDeployment(database: Database, id: string): Deployment | undefined {
  return readDeployments(database, { sql: `${SELECT_DEPLOYMENT} WHERE deployment.id = ?`, params: [id] })[0]
}

export function findDeployment(database: Database, id: string): Deployment {
  const deployment = readDeployment(database, id)
  if (!deployment) throw refuse(404, 'Deployment not found')
  return deployment
}

export function readSchedules(database: Database, deploymentId: string): DeploymentSchedule[] {
  const sql = 'SELECT * FROM deployment_schedule WHERE deployment_id = ? ORDER BY updated DESC'
  return database.all({ sql, params: [deploymentId] }).map(row => typed<DeploymentSchedule>(row))
}

/** What the API sends. `schedule` and `is_schedule_active` are the older way to say the first schedule and "not paused". */
export function deploymentBody(deployment: Deployment): Row {
  const row: Row = { ...deployment }
  const { queue_name: queueName, work_queue_id: _id, ...fields } = row
  return {
    ...fields,
    schedule: deployment.schedules[0]?.schedule ?? null,
    is_schedule_active: !deployment.paused,
    work_queue_name: queueName ?? deployment.work_queue_name,
    created_by: null,
    updated_by: null,
  }
}

/**
 * The queue that a deployment's names mean, made when missing: pool and queue, the pool's default queue, or a queue of the
 * default pool. Undefined when neither is given.
 */
export function resolveQueue(database: Database, pool: string | null, queue: string | null): string | undefined {
  if (pool && queue) return ensureQueue(database, pool, queue).id
  if (pool)
    return pool === DEFAULT_POOL ? ensureQueue(database, pool, 'default').id : findPool(database, pool).default_queue_id
  return queue ? ensureQueue(database, DEFAULT_POOL, queue).id : undefined
}

/** Makes the deployment or, where flow and name are known, changes the given columns of it. */
export function saveDeployment(
  database: Database,
  columns: Row & { readonly flow_id: string; readonly name: string },
): { readonly id: string; readonly isNew: boolean } {
  const at = now()
  const sql = 'SELECT id FROM deployment WHERE flow_id = ? AND name = ?'
  const existing = database.get({ sql, params: [columns.flow_id, columns.name] })
  if (existing) {
    const id = String(existing.id)
    database.update('deployment', id, { ...columns, updated: at })
    return { id, isNew: false }
  }
  const id = randomUUID()
  database.insert('deployment', { ...columns, id, created: at, updated: at })
  return { id, isNew: true }
}

/** Takes the place of all schedules; runs that were made for the old ones are taken back. */
export function replaceSchedules(database: Database, deploymentId: string, schedules: readonly NewSchedule[]): void {
  removePlannedRuns(database, deploymentId)
  database.run({ sql: 'DELETE FROM deployment_schedule WHERE deployment_id = ?', params: [deploymentId] })
  for (const schedule of schedules) addSchedule(database, deploymentId, schedule)
}

export function addSchedule(database: Database, deployment_id: string, schedule: NewSchedule): string {
  const id = randomUUID()
  const at = now()
  database.insert('deployment_schedule', { ...schedule, id, created: at, updated: at, deployment_id })
  return id
}

export function removePlannedRuns(database: Database, deploymentId: string): void {
  const sql = "DELETE FROM flow_run WHERE deployment_id = ? AND state_type = 'SCHEDULED' AND auto_scheduled = 1"
  database.run({ sql, params: [deploymentId] })
}
