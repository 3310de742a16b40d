// `/work_pools`: pools, their queues, and the poll that workers and agents in pool mode use.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database, Row } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, joinConditions, toCondition, where } from '../filters.ts'
import { flowRunBody } from '../flow-runs.ts'
import { refuse } from '../refusal.ts'
import { anyObject, count, optionalCount, optionalText, page, plainName, readBody, texts, time } from '../requests.ts'
import { now } from '../time.ts'
import {
  createPool,
  createQueue,
  dueRunsOfPool,
  findPool,
  findQueueOfPool,
  notePoll,
  readPool,
  readQueueByName,
  readQueues,
  SELECT_QUEUE,
} from '../work-queues.ts'
import { QueueList, updateQueue, WorkQueueCreate, WorkQueueUpdate } from './work-queues.ts'

const WorkPoolCreate = v.strictObject({
  name: plainName,
  description: optionalText,
  type: v.nullish(v.string(), 'prefect-agent'),
  base_job_template: v.nullish(anyObject, {}),
  is_paused: v.nullish(v.boolean(), false),
  concurrency_limit: optionalCount,
})

const WorkPoolUpdate = v.strictObject({
  description: v.optional(v.nullable(v.string())),
  is_paused: v.optional(v.boolean()),
  base_job_template: v.optional(anyObject),
  concurrency_limit: v.optional(v.nullable(count)),
})

const GetScheduled = v.object({
  work_queue_names: v.nullish(texts, []),
  scheduled_before: v.nullish(time, null),
  scheduled_after: v.nullish(time, null),
  limit: page.limit,
})

const PoolList = v.object({ ...page, work_pools: filterSchema(grammars.workPools) })

export function workPoolRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, WorkPoolCreate)
    if (/^[\s'"]*$/.test(body.name)) throw refuse(400, 'Work pool name cannot be empty.')
    refuseReserved(body.name, 'Work pools starting with "Prefect" are reserved for internal use.')
    const pool = database.write(() => {
      if (readPool(database, body.name)) throw refuse(409, 'A work pool with this name already exists.')
      return createPool(database, body)
    })
    return context.json(pool, 201)
  })

  routes.post('/filter', async context => {
    const { limit, offset, work_pools } = await readBody(context, PoolList)
    const { sql, params } = where(toCondition(grammars.workPools, work_pools))
    const query = `SELECT * FROM work_pool${sql} ORDER BY name LIMIT ? OFFSET ?`
    return context.json(database.all({ sql: query, params: [...params, limit, offset] }))
  })

  routes.get('/:name', context => context.json(findPool(database, context.req.param('name'))))

  routes.patch('/:name', async context => {
    const name = context.req.param('name')
    const body = await readBody(context, WorkPoolUpdate)
    const isLimited = Object.keys(body).some(key => key !== 'is_paused' && key !== 'concurrency_limit')
    if (isLimited) refuseReserved(name, 'Work pools starting with "Prefect" can only be paused or limited.')
    database.write(() => {
      const pool = findPool(database, name)
      const status: Row =
        body.is_paused === undefined ? {} : { status: body.is_paused ? 'PAUSED' : resumedStatus(pool.status) }
      database.update('work_pool', pool.id, { ...body, ...status, updated: now() })
    })
    return context.body(null, 204)
  })

  routes.delete('/:name', context => {
    const name = context.req.param('name')
    refuseReserved(name, 'Work pools starting with "Prefect" cannot be deleted.')
    database.write(() => database.delete('work_pool', findPool(database, name).id))
    return context.body(null, 204)
  })

  routes.post('/:name/get_scheduled_flow_runs', async context => {
    const body = await readBody(context, GetScheduled)
    const pool = findPool(database, context.req.param('name'))
    const queues =
      body.work_queue_names.length > 0
        ? body.work_queue_names.map(name => findQueueOfPool(database, pool.name, name))
        : readQueues(database, { sql: `${SELECT_QUEUE} WHERE work_pool_id = ?`, params: [pool.id] })
    const poll = { scheduledBefore: body.scheduled_before, scheduledAfter: body.scheduled_after, limit: body.limit }
    const due = dueRunsOfPool(database, pool, queues, poll)
    database.write(() => notePoll(database, queues))
    return context.json(
      due.map(run => {
        const { work_pool_id: _id, work_pool_name: _name, ...fields } = flowRunBody(run)
        // The shape of the stored run: no state, and the queue's name as it was given, not as it is.
        const flow_run = { ...fields, state: null, work_queue_name: run.work_queue_name }
        return { work_pool_id: pool.id, work_queue_id: run.work_queue_id, flow_run }
      }),
    )
  })

  routes.post('/:pool/queues', async context => {
    const body = await readBody(context, WorkQueueCreate)
    const queue = database.write(() => {
      const pool = findPool(database, context.req.param('pool'))
      if (readQueueByName(database, pool.name, body.name)) {
        throw refuse(409, `A work queue with this name already exists in work pool ${pool.name}.`)
      }
      return createQueue(database, pool.id, body)
    })
    return context.json(queue, 201)
  })

  routes.post('/:pool/queues/filter', async context => {
    const { limit, offset, work_queues } = await readBody(context, QueueList)
    const pool = findPool(database, context.req.param('pool'))
    const own = { sql: 'work_queue.work_pool_id = ?', params: [pool.id] }
    const { sql, params } = where(joinConditions([own, toCondition(grammars.workQueues, work_queues)], 'AND'))
    const query = `${SELECT_QUEUE}${sql} ORDER BY work_queue.priority LIMIT ? OFFSET ?`
    return context.json(readQueues(database, { sql: query, params: [...params, limit, offset] }))
  })

  routes.get('/:pool/queues/:name', context =>
    context.json(findQueueOfPool(database, context.req.param('pool'), context.req.param('name'))),
  )

  routes.patch('/:pool/queues/:name', async context => {
    const body = await readBody(context, WorkQueueUpdate)
    const { pool, name } = context.req.param()
    database.write(() => updateQueue(database, findQueueOfPool(database, pool, name), body))
    return context.body(null, 204)
  })

  routes.delete('/:pool/queues/:name', context => {
    const { pool, name } = context.req.param()
    database.write(() => database.delete('work_queue', findQueueOfPool(database, pool, name).id))
    return context.body(null, 204)
  })

  return routes
}

function resumedStatus(status: string | null): string | null {
  return status === 'PAUSED' ? 'NOT_READY' : status
}

function refuseReserved(name: string, sentence: string): void {
  if (name.toLowerCase().startsWith('prefect')) throw refuse(403, sentence)
}
