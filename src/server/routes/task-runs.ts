// `/task_runs`: what the engine needs to run tasks, and to look them up.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { where } from '../filters.ts'
import { TaskRunPolicySchema } from '../policies.ts'
import { refuse } from '../refusal.ts'
import { anyObject, optionalText, optionalUuid, page, readBody, readId, sortBy, texts, time } from '../requests.ts'
import { createTaskRun, setTaskRunState } from '../run-states.ts'
import { buildProposal, StateCreate } from '../states.ts'
import { findTaskRun, readTaskRun, readTaskRuns, taskRunBody } from '../task-runs.ts'
import { now } from '../time.ts'
import { answer, SetState } from './flow-runs.ts'

const TaskRunCreate = v.strictObject({
  id: optionalUuid,
  state: v.nullish(StateCreate),
  name: optionalText,
  flow_run_id: optionalUuid,
  task_key: v.string(),
  dynamic_key: v.string(),
  cache_key: optionalText,
  cache_expiration: v.nullish(time, null),
  task_version: optionalText,
  empirical_policy: TaskRunPolicySchema,
  tags: v.nullish(texts, []),
  task_inputs: v.nullish(anyObject, {}),
})

const SORTS = {
  ID_DESC: 'task_run.id DESC',
  EXPECTED_START_TIME_ASC: 'task_run.expected_start_time ASC',
  EXPECTED_START_TIME_DESC: 'task_run.expected_start_time DESC',
  NAME_ASC: 'task_run.name ASC',
  NAME_DESC: 'task_run.name DESC',
  NEXT_SCHEDULED_START_TIME_ASC: 'task_run.next_scheduled_start_time ASC',
  END_TIME_DESC: 'task_run.end_time DESC',
}

const { flows, flow_runs, task_runs, deployments } = grammars.crossFilters
const filters = { flows, flow_runs, task_runs, deployments }
const TaskRunList = v.object({
  ...page,
  ...filters,
  sort: sortBy(SORTS, 'ID_DESC'),
})

export function taskRunRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const { state, ...body } = await readBody(context, TaskRunCreate)
    const { id, isNew } = database.write(() => {
      // The engine gives an id of its own when it repeats a request whose answer was lost.
      if (body.id !== null && readTaskRun(database, body.id)) return { id: body.id, isNew: false }
      const first = buildProposal(state ?? { type: 'PENDING' }, now())
      return createTaskRun(database, body, first)
    })
    return context.json(taskRunBody(findTaskRun(database, id)), isNew ? 201 : 200)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, ...given } = await readBody(context, TaskRunList)
    const { sql, params } = where(grammars.crossCondition('task_run', given))
    const query = `SELECT task_run.* FROM task_run${sql} ORDER BY ${sort}, task_run.id LIMIT ? OFFSET ?`
    return context.json(readTaskRuns(database, { sql: query, params: [...params, limit, offset] }).map(taskRunBody))
  })

  routes.post('/count', async context => {
    const given = await readBody(context, v.object(filters))
    const { sql, params } = where(grammars.crossCondition('task_run', given))
    const row = database.get({ sql: `SELECT count(*) AS runs FROM task_run${sql}`, params })
    return context.json(Number(row?.runs ?? 0))
  })

  routes.get('/:id', context => context.json(taskRunBody(findTaskRun(database, readId(context)))))

  routes.patch('/:id', async context => {
    const id = readId(context)
    const { name } = await readBody(context, v.strictObject({ name: v.optional(v.string()) }))
    const changes = { ...(name ? { name } : {}), updated: now() }
    if (!database.write(() => database.update('task_run', id, changes))) throw refuse(404, 'Task run not found')
    return context.body(null, 204)
  })

  routes.post('/:id/set_state', async context => {
    const id = readId(context)
    const { state, force } = await readBody(context, SetState)
    return answer(context, setTaskRunState(database, id, buildProposal(state, now()), force))
  })

  return routes
}
