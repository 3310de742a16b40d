// `/deployments/{id}/…`: runs of a deployment, pausing it, and its schedules one by one.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import { addSchedule, type Deployment, findDeployment, readSchedules, removePlannedRuns } from '../deployments.ts'
import { flowRunBody, readFlowRuns, SELECT_FLOW_RUN } from '../flow-runs.ts'
import { FlowRunPolicySchema } from '../policies.ts'
import { refuse } from '../refusal.ts'
import {
  anyObject,
  count,
  optionalBoolean,
  optionalText,
  optionalUuid,
  page,
  readBody,
  readId,
  texts,
  time,
  uuid,
} from '../requests.ts'
import { createFlowRun } from '../run-states.ts'
import { Schedule } from '../schedules.ts'
import type { SchedulerBell } from '../services.ts'
import { buildProposal, StateCreate } from '../states.ts'
import { now } from '../time.ts'
import { DEFAULT_POOL, ensureQueue } from '../work-queues.ts'
import { ScheduleCreate } from './deployments.ts'

const RunCreate = v.strictObject({
  state: v.nullish(StateCreate),
  name: optionalText,
  parameters: v.nullish(anyObject, {}),
  enforce_parameter_schema: optionalBoolean,
  context: v.nullish(anyObject, {}),
  infrastructure_document_id: optionalUuid,
  empirical_policy: FlowRunPolicySchema,
  tags: v.nullish(texts, []),
  idempotency_key: optionalText,
  parent_task_run_id: optionalUuid,
  work_queue_name: optionalText,
  job_variables: v.nullish(anyObject, {}),
})
type RunCreate = v.InferOutput<typeof RunCreate>

const ScheduleUpdate = v.strictObject({
  active: v.optional(v.boolean()),
  schedule: v.optional(Schedule),
  max_active_runs: v.optional(v.nullable(count)),
  max_scheduled_runs: v.optional(v.nullable(count)),
  catchup: v.optional(v.boolean()),
})

const GetScheduled = v.object({
  deployment_ids: v.array(uuid),
  scheduled_before: v.nullish(time, null),
  limit: page.limit,
})

export function deploymentRunRoutes(database: Database, bell: SchedulerBell): Hono {
  const routes = new Hono()

  routes.post('/:id/create_flow_run', async context => {
    const id = readId(context)
    const body = await readBody(context, RunCreate)
    const { run, isNew } = database.write(() => startRun(database, findDeployment(database, id), body))
    return context.json(flowRunBody(run), isNew ? 201 : 200)
  })

  routes.post('/get_scheduled_flow_runs', async context => {
    const { deployment_ids, scheduled_before, limit } = await readBody(context, GetScheduled)
    const runs = readFlowRuns(database, {
      sql: `${SELECT_FLOW_RUN} WHERE flow_run.deployment_id IN (SELECT value FROM json_each(?))
        AND flow_run.state_type = 'SCHEDULED' AND (? IS NULL OR flow_run.next_scheduled_start_time <= ?)
        ORDER BY flow_run.next_scheduled_start_time LIMIT ?`,
      params: [JSON.stringify(deployment_ids), scheduled_before, scheduled_before, limit],
    })
    return context.json(runs.map(flowRunBody))
  })

  for (const [path, paused] of [
    ['/:id/pause_deployment', true],
    ['/:id/set_schedule_inactive', true],
    ['/:id/resume_deployment', false],
    ['/:id/set_schedule_active', false],
  ] as const) {
    routes.post(path, context => {
      const id = readId(context)
      database.write(() => {
        findDeployment(database, id)
        database.update('deployment', id, { paused, updated: now() })
        if (paused) removePlannedRuns(database, id)
      })
      bell.ring()
      return context.json(null)
    })
  }

  routes.get('/:id/schedules', context => context.json(findDeployment(database, readId(context)).schedules))

  routes.post('/:id/schedules', async context => {
    const id = readId(context)
    const body = await readBody(context, v.array(ScheduleCreate))
    const created = database.write(() => {
      findDeployment(database, id)
      const ids = body.map(schedule => addSchedule(database, id, schedule))
      return readSchedules(database, id).filter(schedule => ids.includes(schedule.id))
    })
    bell.ring()
    return context.json(created, 201)
  })

  routes.patch('/:id/schedules/:schedule', async context => {
    const id = readId(context)
    const body = await readBody(context, ScheduleUpdate)
    database.write(() => {
      findSchedule(database, id, readId(context, 'schedule'))
      removePlannedRuns(database, id)
      database.update('deployment_schedule', readId(context, 'schedule'), { ...body, updated: now() })
    })
    bell.ring()
    return context.body(null, 204)
  })

  routes.delete('/:id/schedules/:schedule', context => {
    const id = readId(context)
    database.write(() => {
      findSchedule(database, id, readId(context, 'schedule'))
      removePlannedRuns(database, id)
      database.delete('deployment_schedule', readId(context, 'schedule'))
    })
    bell.ring()
    return context.body(null, 204)
  })

  return routes
}

/** Parameters lie over the deployment's, tags are joined; without a state the run is due now. */
function startRun(database: Database, deployment: Deployment, body: RunCreate): ReturnType<typeof createFlowRun> {
  const { state, enforce_parameter_schema, ...given } = body
  const parameters = { ...deployment.parameters, ...body.parameters }
  if (enforce_parameter_schema ?? deployment.enforce_parameter_schema) refuseMissing(deployment, parameters)
  const queue = body.work_queue_name
    ? ensureQueue(database, deployment.work_pool_name ?? DEFAULT_POOL, body.work_queue_name)
    : undefined
  return createFlowRun(database, {
    ...given,
    flow_id: deployment.flow_id,
    deployment_id: deployment.id,
    deployment_version: deployment.version,
    parameters,
    tags: [...new Set([...deployment.tags, ...body.tags])],
    infrastructure_document_id: body.infrastructure_document_id ?? deployment.infrastructure_document_id,
    work_queue_id: queue?.id ?? deployment.work_queue_id,
    work_queue_name: queue?.name ?? deployment.work_queue_name,
    state: buildProposal(state ?? { type: 'SCHEDULED' }, now()),
  })
}

/** Only required names are looked at here; the engine validates all of a run's parameters before it starts the flow. */
function refuseMissing(deployment: Deployment, parameters: Record<string, unknown>): void {
  const schema = v.safeParse(
    v.object({ required: v.nullish(v.array(v.string()), []) }),
    deployment.parameter_openapi_schema,
  )
  if (!schema.success) throw refuse(409, 'Error creating flow run: the deployment has no valid parameter schema.')
  const missing = schema.output.required.find(name => !Object.hasOwn(parameters, name))
  if (missing !== undefined) throw refuse(409, `Error creating flow run: '${missing}' is a required property`)
}

function findSchedule(database: Database, deploymentId: string, id: string): void {
  findDeployment(database, deploymentId)
  const found = readSchedules(database, deploymentId).some(schedule => schedule.id === id)
  if (!found) throw refuse(404, 'Schedule not found')
}
