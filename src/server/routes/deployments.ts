// `/deployments`: saving and reading deployments, and starting runs of them.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database, Row } from '../database.ts'
import {
  deploymentBody,
  findDeployment,
  readDeployments,
  replaceSchedules,
  resolveQueue,
  SELECT_DEPLOYMENT,
  saveDeployment,
} from '../deployments.ts'
import * as grammars from '../filter-grammars.ts'
import { where } from '../filters.ts'
import { refuse } from '../refusal.ts'
import { anyObject, count, page, plainName, readBody, readId, sortBy, texts, uuid } from '../requests.ts'
import { Schedule } from '../schedules.ts'
import type { SchedulerBell } from '../services.ts'
import { now } from '../time.ts'
import { DEFAULT_POOL } from '../work-queues.ts'

export const ScheduleCreate = v.strictObject({
  schedule: Schedule,
  active: v.nullish(v.boolean(), true),
  max_active_runs: v.nullish(count, null),
  max_scheduled_runs: v.nullish(count, null),
  catchup: v.nullish(v.boolean(), false),
})

const nullableText = v.optional(v.nullable(v.string()))
const nullableUuid = v.optional(v.nullable(uuid))
const changeable = {
  version: nullableText,
  schedule: v.optional(v.nullable(Schedule)),
  description: nullableText,
  is_schedule_active: v.optional(v.boolean()),
  paused: v.optional(v.boolean()),
  schedules: v.optional(v.nullable(v.array(ScheduleCreate))),
  parameters: v.optional(v.nullable(anyObject)),
  tags: v.optional(texts),
  work_queue_name: nullableText,
  work_pool_name: nullableText,
  path: nullableText,
  infra_overrides: v.optional(v.nullable(anyObject)),
  job_variables: v.optional(v.nullable(anyObject)),
  entrypoint: nullableText,
  manifest_path: nullableText,
  storage_document_id: nullableUuid,
  infrastructure_document_id: nullableUuid,
  enforce_parameter_schema: v.optional(v.nullable(v.boolean())),
}
const DeploymentUpdate = v.strictObject(changeable)
const DeploymentCreate = v.strictObject({
  ...changeable,
  name: plainName,
  flow_id: uuid,
  parameter_openapi_schema: v.optional(v.nullable(anyObject)),
  pull_steps: v.optional(v.nullable(v.array(v.unknown()))),
})
type Changes = v.InferOutput<typeof DeploymentUpdate>

const SORTS = {
  CREATED_DESC: 'deployment.created DESC',
  UPDATED_DESC: 'deployment.updated DESC',
  NAME_ASC: 'deployment.name ASC',
  NAME_DESC: 'deployment.name DESC',
}
const DeploymentList = v.object({
  ...page,
  ...grammars.crossFilters,
  sort: sortBy(SORTS, 'NAME_ASC'),
})

const DEFAULTS: Row = {
  version: null,
  description: null,
  paused: false,
  infra_overrides: {},
  parameters: {},
  tags: [],
  work_queue_name: null,
  parameter_openapi_schema: null,
  path: null,
  pull_steps: null,
  entrypoint: null,
  manifest_path: null,
  storage_document_id: null,
  infrastructure_document_id: null,
  enforce_parameter_schema: false,
}

export function deploymentRoutes(database: Database, bell: SchedulerBell): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, DeploymentCreate)
    const { id, isNew } = database.write(() => {
      refuseUnknown(database, body)
      const { name, flow_id, parameter_openapi_schema, pull_steps, ...changes } = body
      const queueId = resolveQueue(database, body.work_pool_name ?? null, body.work_queue_name ?? null)
      // Saving anew is not changing: what is left out falls back to its default.
      const saved = saveDeployment(database, {
        ...DEFAULTS,
        ...columnsOf(changes),
        ...defined({ parameter_openapi_schema, pull_steps, work_queue_id: queueId }),
        name,
        flow_id,
      })
      const active = body.is_schedule_active ?? true
      const legacy = body.schedule ? [{ schedule: body.schedule, active }] : []
      replaceSchedules(database, saved.id, body.schedules ?? legacy)
      return saved
    })
    bell.ring()
    return context.json(deploymentBody(findDeployment(database, id)), isNew ? 201 : 200)
  })

  routes.get('/name/:flow/:name', context => {
    const { flow, name } = context.req.param()
    const sql = `${SELECT_DEPLOYMENT} JOIN flow ON flow.id = deployment.flow_id WHERE flow.name = ? AND deployment.name = ?`
    const [deployment] = readDeployments(database, { sql, params: [flow, name] })
    if (!deployment) throw refuse(404, 'Deployment not found')
    return context.json(deploymentBody(deployment))
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, ...filters } = await readBody(context, DeploymentList)
    const { sql, params } = where(grammars.crossCondition('deployment', filters))
    const query = `${SELECT_DEPLOYMENT}${sql} ORDER BY ${sort}, deployment.id LIMIT ? OFFSET ?`
    const found = readDeployments(database, { sql: query, params: [...params, limit, offset] })
    return context.json(found.map(deploymentBody))
  })

  routes.post('/count', async context => {
    const filters = await readBody(context, v.object(grammars.crossFilters))
    const { sql, params } = where(grammars.crossCondition('deployment', filters))
    const row = database.get({ sql: `SELECT count(*) AS found FROM deployment${sql}`, params })
    return context.json(Number(row?.found ?? 0))
  })

  routes.get('/:id', context => context.json(deploymentBody(findDeployment(database, readId(context)))))

  routes.patch('/:id', async context => {
    const id = readId(context)
    const body = await readBody(context, DeploymentUpdate)
    database.write(() => updateDeployment(database, id, body))
    bell.ring()
    return context.body(null, 204)
  })

  routes.delete('/:id', context => {
    const id = readId(context)
    const deleted = database.write(() => {
      const sql = "DELETE FROM flow_run WHERE deployment_id = ? AND state_type = 'SCHEDULED'"
      database.run({ sql, params: [id] })
      database.run({ sql: 'UPDATE flow_run SET deployment_id = NULL WHERE deployment_id = ?', params: [id] })
      return database.delete('deployment', id)
    })
    if (!deleted) throw refuse(404, 'Deployment not found')
    return context.body(null, 204)
  })

  return routes
}

function updateDeployment(database: Database, id: string, body: Changes): void {
  const deployment = findDeployment(database, id)
  refuseUnknown(database, body)
  const pool = body.work_pool_name ?? deployment.work_pool_name
  const moves = body.work_queue_name !== undefined || body.work_pool_name !== undefined
  const queueId = moves ? resolveQueue(database, pool, body.work_queue_name ?? null) : undefined
  database.update('deployment', id, { ...columnsOf(body), ...defined({ work_queue_id: queueId }), updated: now() })
  if (body.schedules) replaceSchedules(database, id, body.schedules)
  else if (body.schedule !== undefined || body.is_schedule_active !== undefined) {
    const schedule = body.schedule === undefined ? deployment.schedules[0]?.schedule : body.schedule
    const active = body.is_schedule_active ?? !deployment.paused
    replaceSchedules(database, id, schedule ? [{ schedule, active }] : [])
  } else if (body.paused !== undefined || body.parameters !== undefined || body.tags !== undefined || moves) {
    // Runs that were planned with the old values are planned anew.
    replaceSchedules(
      database,
      id,
      deployment.schedules.map(({ schedule, active }) => ({ schedule, active })),
    )
  }
}

/** The columns that a body changes; what it leaves out stays as it is. */
function columnsOf(body: Changes): Row {
  const { schedule: _schedule, schedules: _schedules, is_schedule_active, work_pool_name: _pool, ...columns } = body
  const { job_variables, infra_overrides, paused, parameters, enforce_parameter_schema, ...rest } = columns
  return defined({
    ...rest,
    parameters: parameters === null ? {} : parameters,
    enforce_parameter_schema: enforce_parameter_schema === null ? false : enforce_parameter_schema,
    infra_overrides: (job_variables ?? infra_overrides) || undefined,
    paused: paused ?? (is_schedule_active === undefined ? undefined : !is_schedule_active),
  })
}

function defined(row: Row): Row {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined))
}

function refuseUnknown(database: Database, body: Changes & { readonly flow_id?: string }): void {
  const missing = (table: string, id: string | null | undefined) =>
    id && !database.get({ sql: `SELECT id FROM ${table} WHERE id = ?`, params: [id] })
  if (missing('flow', body.flow_id)) throw refuse(409, `Could not find flow with id: ${body.flow_id}.`)
  if (missing('block_document', body.infrastructure_document_id)) {
    throw refuse(409, `Could not find infrastructure block with id: ${body.infrastructure_document_id}.`)
  }
  if (missing('block_document', body.storage_document_id)) {
    throw refuse(409, `Could not find storage block with id: ${body.storage_document_id}.`)
  }
  const pool = body.work_pool_name
  if (
    pool &&
    pool !== DEFAULT_POOL &&
    !database.get({ sql: 'SELECT id FROM work_pool WHERE name = ?', params: [pool] })
  ) {
    throw refuse(404, `Work pool "${pool}" not found.`)
  }
}
