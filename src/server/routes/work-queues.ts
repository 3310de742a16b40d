// `/work_queues`: queues by name or id, as agents in queue mode use them.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, toCondition, where } from '../filters.ts'
import { flowRunBody } from '../flow-runs.ts'
import { notFoundInModel, refuse } from '../refusal.ts'
import {
  count,
  optionalCount,
  optionalText,
  page,
  plainName,
  readBody,
  readId,
  texts,
  time,
  uuid,
} from '../requests.ts'
import { addSeconds, now } from '../time.ts'
import {
  createQueue,
  DEFAULT_POOL,
  dueRunsOfQueue,
  ensureDefaultPool,
  moveDown,
  notePoll,
  type Queue,
  readQueue,
  readQueueByName,
  readQueues,
  SELECT_QUEUE,
  statusAfter,
} from '../work-queues.ts'

const QueueFilter = v.nullish(
  v.strictObject({ tags: v.nullish(texts, null), deployment_ids: v.nullish(v.array(uuid), null) }),
  null,
)
const priority = v.nullish(v.pipe(count, v.minValue(1)), null)

export const WorkQueueCreate = v.strictObject({
  name: plainName,
  description: optionalText,
  is_paused: v.nullish(v.boolean(), false),
  concurrency_limit: optionalCount,
  priority,
  filter: QueueFilter,
})

export const WorkQueueUpdate = v.strictObject({
  name: v.optional(plainName),
  description: v.optional(v.nullable(v.string())),
  is_paused: v.optional(v.boolean()),
  concurrency_limit: v.optional(v.nullable(count)),
  priority: v.optional(v.nullable(v.pipe(count, v.minValue(1)))),
  last_polled: v.optional(v.nullable(time)),
  filter: v.optional(QueueFilter),
})

const GetRuns = v.object({
  limit: page.limit,
  scheduled_before: v.nullish(time, null),
  agent_id: v.nullish(uuid, null),
})
export const QueueList = v.object({ ...page, work_queues: filterSchema(grammars.workQueues) })

export function workQueueRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, WorkQueueCreate)
    const queue = database.write(() => {
      const isFirst = readQueueByName(database, DEFAULT_POOL, 'default') === undefined
      const pool = ensureDefaultPool(database)
      const existing = readQueueByName(database, DEFAULT_POOL, body.name)
      // The pool brings its queue `default` along: asking for that one first is no conflict.
      if (existing && isFirst) return existing
      if (existing) throw refuse(409, 'A work queue with this name already exists.')
      return createQueue(database, pool.id, body)
    })
    return context.json(queue, 201)
  })

  routes.get('/name/:name', context => {
    const queue = readQueueByName(database, DEFAULT_POOL, context.req.param('name'))
    if (!queue) throw refuse(404, 'work queue not found')
    return context.json(queue)
  })

  routes.post('/filter', async context => {
    const { limit, offset, work_queues } = await readBody(context, QueueList)
    const { sql, params } = where(toCondition(grammars.workQueues, work_queues))
    const query = `${SELECT_QUEUE}${sql} ORDER BY work_queue.name LIMIT ? OFFSET ?`
    return context.json(readQueues(database, { sql: query, params: [...params, limit, offset] }))
  })

  routes.get('/:id', context => context.json(findQueue(database, readId(context))))

  routes.patch('/:id', async context => {
    const id = readId(context)
    const body = await readBody(context, WorkQueueUpdate)
    database.write(() => updateQueue(database, findQueue(database, id), body))
    return context.body(null, 204)
  })

  routes.delete('/:id', context => {
    const id = readId(context)
    if (!database.write(() => database.delete('work_queue', id))) throw refuse(404, 'work queue not found')
    return context.body(null, 204)
  })

  routes.post('/:id/get_runs', async context => {
    const id = readId(context)
    const { limit, scheduled_before } = await readBody(context, GetRuns)
    const queue = readQueue(database, id)
    if (!queue) throw notFoundInModel(`Work queue with id ${id} not found.`)
    const runs = dueRunsOfQueue(database, queue, scheduled_before, limit)
    // A person looking at the queue is not an agent that polls it.
    if (context.req.header('x-prefect-ui') !== 'true') database.write(() => notePoll(database, [queue]))
    return context.json(runs.map(flowRunBody))
  })

  routes.get('/:id/status', context => {
    const id = readId(context)
    const queue = readQueue(database, id)
    if (!queue) throw notFoundInModel(`Work queue with id ${id} not found`)
    return context.json(describeHealth(database, queue))
  })

  return routes
}

function findQueue(database: Database, id: string): Queue {
  const queue = readQueue(database, id)
  if (!queue) throw refuse(404, 'work queue not found')
  return queue
}

export function updateQueue(database: Database, queue: Queue, body: v.InferOutput<typeof WorkQueueUpdate>): void {
  const { priority: rank, description, ...changes } = body
  const status = body.is_paused === undefined ? {} : statusAfter(queue, body.is_paused)
  if (body.name !== undefined && body.name !== queue.name) {
    if (readQueueByName(database, queue.work_pool_name, body.name)) {
      throw refuse(409, 'A work queue with this name already exists.')
    }
  }
  database.update('work_queue', queue.id, {
    ...changes,
    ...status,
    ...(description === undefined ? {} : { description: description ?? '' }),
    updated: now(),
  })
  if (rank === undefined || rank === null) return
  const sql = 'SELECT id, priority FROM work_queue WHERE work_pool_id = ? AND id <> ? ORDER BY priority'
  const others = database
    .all({ sql, params: [queue.work_pool_id, queue.id] })
    .map(row => ({ id: String(row.id), priority: Number(row.priority) }))
  database.update('work_queue', queue.id, { priority: rank })
  moveDown(database, others, rank)
}

/** Healthy = no late runs, and polled within the last minute. */
function describeHealth(database: Database, queue: Queue): Record<string, unknown> {
  const late = database.get({
    sql: "SELECT count(*) AS late FROM flow_run WHERE work_queue_id = ? AND state_name = 'Late'",
    params: [queue.id],
  })
  const late_runs_count = Number(late?.late ?? 0)
  const isPolled = queue.last_polled !== null && queue.last_polled >= addSeconds(now(), -60)
  return {
    healthy: late_runs_count === 0 && isPolled,
    late_runs_count,
    last_polled: queue.last_polled,
    health_check_policy: { maximum_late_runs: 0, maximum_seconds_since_last_polled: 60 },
  }
}
