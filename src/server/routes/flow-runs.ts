// `/flow_runs`: making, reading, listing and changing flow runs, and proposing their states.

import { type Context, Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { where } from '../filters.ts'
import { findFlowRun, flowRunBody, readFlowRuns, SELECT_FLOW_RUN } from '../flow-runs.ts'
import { FlowRunPolicySchema } from '../policies.ts'
import { refuse } from '../refusal.ts'
import { anyObject, optionalText, optionalUuid, page, readBody, readId, sortBy, texts, uuid } from '../requests.ts'
import { createFlowRun, type Outcome, setFlowRunState } from '../run-states.ts'
import { buildProposal, StateCreate } from '../states.ts'
import { now } from '../time.ts'

const FlowRunCreate = v.strictObject({
  state: v.nullish(StateCreate),
  name: optionalText,
  flow_id: uuid,
  flow_version: optionalText,
  parameters: v.nullish(anyObject, {}),
  context: v.nullish(anyObject, {}),
  parent_task_run_id: optionalUuid,
  infrastructure_document_id: optionalUuid,
  empirical_policy: FlowRunPolicySchema,
  tags: v.nullish(texts, []),
  idempotency_key: optionalText,
  deployment_id: optionalUuid,
})

const FlowRunUpdate = v.strictObject({
  name: v.optional(v.nullable(v.string())),
  flow_version: v.optional(v.nullable(v.string())),
  parameters: v.optional(anyObject),
  empirical_policy: v.optional(FlowRunPolicySchema),
  tags: v.optional(texts),
  infrastructure_pid: v.optional(v.nullable(v.string())),
  job_variables: v.optional(v.nullable(anyObject)),
})

export const SetState = v.object({ state: StateCreate, force: v.nullish(v.boolean(), false) })

const SORTS = {
  ID_DESC: 'flow_run.id DESC',
  START_TIME_ASC: 'coalesce(flow_run.start_time, flow_run.expected_start_time) ASC',
  START_TIME_DESC: 'coalesce(flow_run.start_time, flow_run.expected_start_time) DESC',
  EXPECTED_START_TIME_ASC: 'flow_run.expected_start_time ASC',
  EXPECTED_START_TIME_DESC: 'flow_run.expected_start_time DESC',
  NAME_ASC: 'flow_run.name ASC',
  NAME_DESC: 'flow_run.name DESC',
  NEXT_SCHEDULED_START_TIME_ASC: 'flow_run.next_scheduled_start_time ASC',
  END_TIME_DESC: 'flow_run.end_time DESC',
}

const FlowRunList = v.object({
  ...page,
  ...grammars.crossFilters,
  sort: sortBy(SORTS, 'ID_DESC'),
})
const FlowRunCount = v.object(grammars.crossFilters)

export function flowRunRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const { state, ...body } = await readBody(context, FlowRunCreate)
    const proposal = buildProposal(state ?? { type: 'PENDING' }, now())
    const { run, isNew } = createFlowRun(database, { ...body, state: proposal })
    return context.json(flowRunBody(run), isNew ? 201 : 200)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, ...filters } = await readBody(context, FlowRunList)
    const { sql, params } = where(grammars.crossCondition('flow_run', filters))
    const query = `${SELECT_FLOW_RUN}${sql} ORDER BY ${sort}, flow_run.id LIMIT ? OFFSET ?`
    const runs = readFlowRuns(database, { sql: query, params: [...params, limit, offset] })
    return context.json(runs.map(flowRunBody))
  })

  routes.post('/count', async context => {
    const { sql, params } = where(grammars.crossCondition('flow_run', await readBody(context, FlowRunCount)))
    const row = database.get({ sql: `SELECT count(*) AS runs FROM flow_run${sql}`, params })
    return context.json(Number(row?.runs ?? 0))
  })

  routes.get('/:id', context => context.json(flowRunBody(findFlowRun(database, readId(context)))))

  routes.patch('/:id', async context => {
    const id = readId(context)
    const { name, ...changes } = await readBody(context, FlowRunUpdate)
    database.write(() => {
      const run = findFlowRun(database, id)
      if (changes.job_variables && run.state_type !== 'SCHEDULED') {
        throw refuse(400, `Job variables for a flow run in state ${run.state_type} cannot be updated`)
      }
      if (changes.job_variables && run.deployment_id === null) {
        throw refuse(400, 'A deployment for the flow run could not be found')
      }
      database.update('flow_run', id, { ...changes, ...(name ? { name } : {}), updated: now() })
    })
    return context.body(null, 204)
  })

  routes.delete('/:id', context => {
    const id = readId(context)
    if (!database.write(() => database.delete('flow_run', id))) throw refuse(404, 'Flow run not found')
    return context.body(null, 204)
  })

  routes.post('/:id/set_state', async context => {
    const id = readId(context)
    const { state, force } = await readBody(context, SetState)
    return answer(context, setFlowRunState(database, id, buildProposal(state, now()), force))
  })

  return routes
}

/** 201 when a state was written, 200 when the run stays as it was. */
export function answer(context: Context, { written, body }: Outcome): Response {
  return context.json(body, written ? 201 : 200)
}
