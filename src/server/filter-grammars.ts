// Which filters there are for which resource. Names and operators are Prefect's (server/schemas/filters.py).

import * as v from 'valibot'
import type { Sql } from './database.ts'
import {
  after,
  anyId,
  anyOf,
  before,
  compare,
  equals,
  type FilterValue,
  filterSchema,
  group,
  holdsAll,
  isEmptyList,
  isNull,
  joinConditions,
  like,
  notAnyId,
  notAnyOf,
  operator,
  startsWith,
  toCondition,
  within,
} from './filters.ts'

const period = (column: string) => group({ before_: before(column), after_: after(column) })
const periodOrNull = (column: string) =>
  group({ before_: before(column), after_: after(column), is_null_: isNull(column) })
const tagList = (column: string) => group({ all_: holdsAll(column), is_null_: isEmptyList(column) }, true)
const stateOf = (table: string) =>
  group(
    { type: group({ any_: anyOf(`${table}.state_type`) }), name: group({ any_: anyOf(`${table}.state_name`) }) },
    true,
  )
const idOf = (table: string) => group({ any_: anyId(`${table}.id`) })
const nameOf = (table: string) => group({ any_: anyOf(`${table}.name`), like_: like(`${table}.name`) })

export const flowRuns = group(
  {
    id: group({ any_: anyId('flow_run.id'), not_any_: notAnyId('flow_run.id') }),
    name: nameOf('flow_run'),
    tags: tagList('flow_run.tags'),
    deployment_id: group({ any_: anyId('flow_run.deployment_id'), is_null_: isNull('flow_run.deployment_id') }, true),
    work_queue_name: group(
      { any_: anyOf('flow_run.work_queue_name'), is_null_: isNull('flow_run.work_queue_name') },
      true,
    ),
    state: stateOf('flow_run'),
    flow_version: group({ any_: anyOf('flow_run.flow_version') }),
    start_time: periodOrNull('flow_run.start_time'),
    expected_start_time: period('flow_run.expected_start_time'),
    next_scheduled_start_time: period('flow_run.next_scheduled_start_time'),
    parent_flow_run_id: group(
      {
        any_: anyId('(SELECT flow_run_id FROM task_run AS parent WHERE parent.id = flow_run.parent_task_run_id)'),
      },
      true,
    ),
    parent_task_run_id: group(
      { any_: anyId('flow_run.parent_task_run_id'), is_null_: isNull('flow_run.parent_task_run_id') },
      true,
    ),
    idempotency_key: group({ any_: anyOf('flow_run.idempotency_key'), not_any_: notAnyOf('flow_run.idempotency_key') }),
  },
  true,
)

export const taskRuns = group(
  {
    id: idOf('task_run'),
    name: nameOf('task_run'),
    tags: tagList('task_run.tags'),
    state: stateOf('task_run'),
    start_time: periodOrNull('task_run.start_time'),
    subflow_runs: group({
      exists_: operator(v.boolean(), yes => ({
        sql: `${yes ? '' : 'NOT '}EXISTS (SELECT 1 FROM flow_run AS child WHERE child.parent_task_run_id = task_run.id)`,
        params: [],
      })),
    }),
    flow_run_id: group({ any_: anyId('task_run.flow_run_id'), is_null_: isNull('task_run.flow_run_id') }, true),
  },
  true,
)

export const deployments = group(
  {
    id: idOf('deployment'),
    name: nameOf('deployment'),
    paused: group({ eq_: equals('deployment.paused') }),
    is_schedule_active: group({ eq_: equals('(1 - deployment.paused)') }),
    tags: tagList('deployment.tags'),
    work_queue_name: group({ any_: anyOf('deployment.work_queue_name') }),
  },
  true,
)

export const flows = group(
  {
    id: idOf('flow'),
    deployment: group(
      {
        is_null_: operator(v.boolean(), yes => ({
          sql: `${yes ? 'NOT ' : ''}EXISTS (SELECT 1 FROM deployment AS own WHERE own.flow_id = flow.id)`,
          params: [],
        })),
      },
      true,
    ),
    name: nameOf('flow'),
    tags: tagList('flow.tags'),
  },
  true,
)

export const workPools = group(
  {
    id: idOf('work_pool'),
    name: group({ any_: anyOf('work_pool.name') }),
    type: group({ any_: anyOf('work_pool.type') }),
  },
  true,
)

export const workQueues = group(
  {
    id: idOf('work_queue'),
    name: group({ any_: anyOf('work_queue.name'), startswith_: startsWith('work_queue.name') }),
  },
  true,
)

export const logs = group(
  {
    level: group({ ge_: compare('log.level', '>='), le_: compare('log.level', '<=') }),
    timestamp: period('log.timestamp'),
    flow_run_id: group({ any_: anyId('log.flow_run_id') }),
    task_run_id: group({ any_: anyId('log.task_run_id') }),
  },
  true,
)

export const blockTypes = group({
  name: group({ like_: like('block_type.name') }),
  slug: group({ any_: anyOf('block_type.slug') }),
})

export const blockSchemas = group(
  {
    block_type_id: group({ any_: anyId('block_schema.block_type_id') }),
    block_capabilities: group({ all_: holdsAll('block_schema.capabilities') }),
    id: idOf('block_schema'),
    version: group({ any_: anyOf('block_schema.version') }),
  },
  true,
)

export const blockDocuments = group(
  {
    id: idOf('block_document'),
    is_anonymous: group({ eq_: equals('block_document.is_anonymous') }),
    block_type_id: group({ any_: anyId('block_document.block_type_id') }),
    name: nameOf('block_document'),
  },
  true,
)

export const variables = group(
  {
    id: idOf('variable'),
    name: nameOf('variable'),
    value: group({ any_: anyOf('variable.value'), like_: like('variable.value') }),
    tags: tagList('variable.tags'),
  },
  true,
)

/** The filters that list routes of runs and deployments take beside each other. */
export const crossFilters = {
  flows: filterSchema(flows),
  flow_runs: filterSchema(flowRuns),
  task_runs: filterSchema(taskRuns),
  deployments: filterSchema(deployments),
  work_pools: filterSchema(workPools),
  work_pool_queues: filterSchema(workQueues),
}
export type CrossFilters = { readonly [name in keyof typeof crossFilters]?: FilterValue | null | undefined }

/** How to come from one table to the others: a condition on the other, seen from a row of this one. */
const PATHS = {
  flow_run: {
    flows: 'EXISTS (SELECT 1 FROM flow WHERE flow.id = flow_run.flow_id AND {})',
    flow_runs: '{}',
    task_runs: 'EXISTS (SELECT 1 FROM task_run WHERE task_run.flow_run_id = flow_run.id AND {})',
    deployments: 'EXISTS (SELECT 1 FROM deployment WHERE deployment.id = flow_run.deployment_id AND {})',
    work_pools:
      'EXISTS (SELECT 1 FROM work_queue AS q JOIN work_pool ON work_pool.id = q.work_pool_id WHERE q.id = flow_run.work_queue_id AND {})',
    work_pool_queues: 'EXISTS (SELECT 1 FROM work_queue WHERE work_queue.id = flow_run.work_queue_id AND {})',
  },
  task_run: {
    flows:
      'EXISTS (SELECT 1 FROM flow_run JOIN flow ON flow.id = flow_run.flow_id WHERE flow_run.id = task_run.flow_run_id AND {})',
    flow_runs: 'EXISTS (SELECT 1 FROM flow_run WHERE flow_run.id = task_run.flow_run_id AND {})',
    task_runs: '{}',
    deployments:
      'EXISTS (SELECT 1 FROM flow_run JOIN deployment ON deployment.id = flow_run.deployment_id WHERE flow_run.id = task_run.flow_run_id AND {})',
    work_pools: '{}',
    work_pool_queues: '{}',
  },
  deployment: {
    flows: 'EXISTS (SELECT 1 FROM flow WHERE flow.id = deployment.flow_id AND {})',
    flow_runs: 'EXISTS (SELECT 1 FROM flow_run WHERE flow_run.deployment_id = deployment.id AND {})',
    task_runs:
      'EXISTS (SELECT 1 FROM flow_run JOIN task_run ON task_run.flow_run_id = flow_run.id WHERE flow_run.deployment_id = deployment.id AND {})',
    deployments: '{}',
    work_pools:
      'EXISTS (SELECT 1 FROM work_queue AS q JOIN work_pool ON work_pool.id = q.work_pool_id WHERE q.id = deployment.work_queue_id AND {})',
    work_pool_queues: 'EXISTS (SELECT 1 FROM work_queue WHERE work_queue.id = deployment.work_queue_id AND {})',
  },
  flow: {
    flows: '{}',
    flow_runs: 'EXISTS (SELECT 1 FROM flow_run WHERE flow_run.flow_id = flow.id AND {})',
    task_runs:
      'EXISTS (SELECT 1 FROM flow_run JOIN task_run ON task_run.flow_run_id = flow_run.id WHERE flow_run.flow_id = flow.id AND {})',
    deployments: 'EXISTS (SELECT 1 FROM deployment WHERE deployment.flow_id = flow.id AND {})',
    work_pools:
      'EXISTS (SELECT 1 FROM deployment AS d JOIN work_queue AS q ON q.id = d.work_queue_id JOIN work_pool ON work_pool.id = q.work_pool_id WHERE d.flow_id = flow.id AND {})',
    work_pool_queues: '{}',
  },
} as const

const GRAMMARS = {
  flows,
  flow_runs: flowRuns,
  task_runs: taskRuns,
  deployments,
  work_pools: workPools,
  work_pool_queues: workQueues,
} as const

/** The condition of all filters together for rows of `table`. */
export function crossCondition(table: keyof typeof PATHS, filters: CrossFilters): Sql | undefined {
  const names = ['flows', 'flow_runs', 'task_runs', 'deployments', 'work_pools', 'work_pool_queues'] as const
  return joinConditions(
    names.map(name => within(PATHS[table][name], toCondition(GRAMMARS[name], filters[name]))),
    'AND',
  )
}
