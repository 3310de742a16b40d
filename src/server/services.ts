// What the server does by itself: late runs, schedules, clean-up after a cancellation, expired pauses, signs of life.
//
// One loop, a tick every five seconds; each task has its own period. Periods are Prefect's (chapter "services" of its
// settings). Rules of states are asked here as everywhere, so nothing is written that a client could not see coming.

import * as v from 'valibot'
import { sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Database } from './database.ts'
import { readDeployment } from './deployments.ts'
import { readFlowRuns, SELECT_FLOW_RUN } from './flow-runs.ts'
import { FlowRunPolicySchema } from './policies.ts'
import { createFlowRun, setFlowRunState, setTaskRunState } from './run-states.ts'
import { datesOf } from './schedules.ts'
import { buildProposal } from './states.ts'
import { addSeconds, now } from './time.ts'

const TICK_MS = 5_000
const LATE_AFTER_SECONDS = 15
const NOT_READY_AFTER_SECONDS = 60

/** Rung when schedules have changed, so that their first runs need not wait for the next round. */
export class SchedulerBell {
  #rung = true

  ring(): void {
    this.#rung = true
  }

  take(): boolean {
    const rung = this.#rung
    this.#rung = false
    return rung
  }
}

interface Task {
  readonly name: string
  readonly everyMs: number
  readonly work: (database: Database) => void
}

const TASKS: readonly Task[] = [
  { name: 'late runs', everyMs: 5_000, work: markLateRuns },
  { name: 'expired pauses', everyMs: 5_000, work: failExpiredPauses },
  { name: 'cancellation clean-up', everyMs: 20_000, work: cleanUpCancelled },
  { name: 'signs of life', everyMs: 15_000, work: markNotReady },
  { name: 'schedules', everyMs: 60_000, work: planScheduledRuns },
]

/** Runs until the signal. A task that fails is logged and tried again in its next round. */
export async function runServices(
  database: Database,
  bell: SchedulerBell,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const due = new Map(TASKS.map(task => [task.name, 0]))
  for (let atMs = 0; !signal.aborted; atMs += TICK_MS) {
    const schedulesChanged = bell.take()
    for (const task of TASKS) {
      const isRung = schedulesChanged && task.work === planScheduledRuns
      if (atMs < (due.get(task.name) ?? 0) && !isRung) continue
      due.set(task.name, atMs + task.everyMs)
      try {
        task.work(database)
      } catch (error) {
        logger.error({ service: task.name, error: describeError(error) }, 'server task failed')
      }
    }
    await sleep(TICK_MS, signal)
  }
}

/** Late runs stay due; the name only says that nobody has taken them for 15 s. */
export function markLateRuns(database: Database): void {
  const limit = addSeconds(now(), -LATE_AFTER_SECONDS)
  const late = database.all({
    sql: `SELECT id, next_scheduled_start_time FROM flow_run WHERE state_type = 'SCHEDULED' AND state_name = 'Scheduled'
      AND next_scheduled_start_time <= ? LIMIT 400`,
    params: [limit],
  })
  for (const run of late) {
    const scheduled_time = String(run.next_scheduled_start_time)
    const state = buildProposal({ type: 'SCHEDULED', name: 'Late', state_details: { scheduled_time } }, now())
    setFlowRunState(database, String(run.id), state, false)
  }
}

export function failExpiredPauses(database: Database): void {
  const runs = readFlowRuns(database, { sql: `${SELECT_FLOW_RUN} WHERE flow_run.state_type = 'PAUSED'`, params: [] })
  for (const { id, state } of runs) {
    const timeout = state?.state_details.pause_timeout ?? null
    if (timeout === null || timeout >= now()) continue
    const failed = buildProposal({ type: 'FAILED', message: 'The flow was paused and never resumed.' }, now())
    setFlowRunState(database, id, failed, true)
  }
}

/** Tasks of a run that was cancelled within a day are Cancelled; its sub-flows are asked to stop, or are Cancelled too. */
export function cleanUpCancelled(database: Database): void {
  const message = 'The parent flow run was cancelled.'
  const tasks = database.all({
    sql: `SELECT task_run.id FROM task_run JOIN flow_run ON flow_run.id = task_run.flow_run_id
      WHERE flow_run.state_type = 'CANCELLED' AND flow_run.end_time >= ?
      AND task_run.state_type NOT IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') LIMIT 400`,
    params: [addSeconds(now(), -86_400)],
  })
  for (const task of tasks) {
    setTaskRunState(database, String(task.id), buildProposal({ type: 'CANCELLED', message }, now()), true)
  }
  const children = database.all({
    sql: `SELECT child.id, child.deployment_id, child.state_type FROM flow_run AS child
      JOIN task_run ON task_run.id = child.parent_task_run_id
      JOIN flow_run AS parent ON parent.id = task_run.flow_run_id
      WHERE parent.state_type = 'CANCELLED'
      AND child.state_type IN ('PENDING', 'SCHEDULED', 'RUNNING', 'PAUSED', 'CANCELLING') LIMIT 400`,
    params: [],
  })
  for (const child of children) {
    const type = child.deployment_id === null ? 'CANCELLED' : 'CANCELLING'
    if (child.state_type === type) continue
    setFlowRunState(database, String(child.id), buildProposal({ type, message }, now()), false)
  }
}

/** A queue or deployment that nobody polls any more is not ready. */
export function markNotReady(database: Database): void {
  const limit = addSeconds(now(), -NOT_READY_AFTER_SECONDS)
  database.write(() => {
    for (const table of ['work_queue', 'deployment']) {
      const sql = `UPDATE ${table} SET status = 'NOT_READY' WHERE status = 'READY' AND (last_polled IS NULL OR last_polled < ?)`
      database.run({ sql, params: [limit] })
    }
  })
}

/** Plans ahead: at least 3 runs and an hour, at most 100 runs and 100 days, each date once. */
export function planScheduledRuns(database: Database): void {
  const start = now()
  const span = {
    start,
    end: addSeconds(start, 100 * 86_400),
    enough: addSeconds(start, 3_600),
    atLeast: 3,
    atMost: 100,
  }
  const sql = `SELECT DISTINCT deployment.id FROM deployment JOIN deployment_schedule AS s ON s.deployment_id = deployment.id
    WHERE s.active = 1 AND deployment.paused = 0`
  for (const row of database.all({ sql, params: [] })) {
    const deployment = readDeployment(database, String(row.id))
    if (!deployment) continue
    database.write(() => {
      for (const { schedule, active } of deployment.schedules) {
        if (!active) continue
        for (const date of datesOf(schedule, span)) planRun(database, deployment, date)
      }
    })
  }
}

const NO_POLICY = v.parse(FlowRunPolicySchema, null)

function planRun(database: Database, deployment: NonNullable<ReturnType<typeof readDeployment>>, date: string): void {
  createFlowRun(database, {
    flow_id: deployment.flow_id,
    deployment_id: deployment.id,
    deployment_version: deployment.version,
    work_queue_id: deployment.work_queue_id,
    work_queue_name: deployment.work_queue_name,
    parameters: deployment.parameters,
    infrastructure_document_id: deployment.infrastructure_document_id,
    idempotency_key: `scheduled ${deployment.id} ${date}`,
    tags: [...new Set(['auto-scheduled', ...deployment.tags])],
    auto_scheduled: true,
    empirical_policy: NO_POLICY,
    state: buildProposal(
      { type: 'SCHEDULED', message: 'Flow run scheduled', state_details: { scheduled_time: date } },
      date,
    ),
  })
}
