// Work pools and their queues in the database: making, finding, and what a poll hands out and leaves behind.

import { randomUUID } from 'node:crypto'
import { type Database, type Row, type Sql, typed } from './database.ts'
import { type FlowRun, readFlowRuns, SELECT_FLOW_RUN } from './flow-runs.ts'
import { refuse } from './refusal.ts'
import { addSeconds, now } from './time.ts'

/** The pool of all queues that name none: what Prefect 2 agents poll. */
export const DEFAULT_POOL = 'default-agent-pool'

export interface Pool {
  readonly id: string
  readonly name: string
  readonly type: string
  readonly is_paused: boolean
  readonly concurrency_limit: number | null
  readonly status: string | null
  readonly default_queue_id: string
}

export interface Queue {
  readonly id: string
  readonly name: string
  readonly is_paused: boolean
  readonly concurrency_limit: number | null
  readonly priority: number
  readonly filter: { readonly tags: readonly string[] | null; readonly deployment_ids: readonly string[] | null } | null
  readonly work_pool_id: string
  readonly work_pool_name: string
  readonly last_polled: string | null
  readonly status: string
}

export interface NewQueue {
  readonly name: string
  readonly description?: string | null
  readonly is_paused?: boolean | null
  readonly concurrency_limit?: number | null
  readonly priority?: number | null
  readonly filter?: unknown
}

export interface NewPool {
  readonly name: string
  readonly type: string
  readonly description?: string | null
  readonly base_job_template?: Record<string, unknown>
  readonly is_paused?: boolean
  readonly concurrency_limit?: number | null
}

export const SELECT_QUEUE = `SELECT work_queue.*, work_pool.name AS work_pool_name FROM work_queue
  JOIN work_pool ON work_pool.id = work_queue.work_pool_id`

export function readQueues(database: Database, query: Sql): Queue[] {
  return database.all(query).map(row => typed<Queue>(row))
}

export function readQueue(database: Database, id: string): Queue | undefined {
  return readQueues(database, { sql: `${SELECT_QUEUE} WHERE work_queue.id = ?`, params: [id] })[0]
}

export function readQueueByName(database: Database, pool: string, name: string): Queue | undefined {
  const sql = `${SELECT_QUEUE} WHERE work_pool.name = ? AND work_queue.name = ?`
  return readQueues(database, { sql, params: [pool, name] })[0]
}

export function readPool(database: Database, name: string): Pool | undefined {
  const row = database.get({ sql: 'SELECT * FROM work_pool WHERE name = ?', params: [name] })
  return row && typed<Pool>(row)
}

export function findPool(database: Database, name: string): Pool {
  const pool = readPool(database, name)
  if (!pool) throw refuse(404, `Work pool "${name}" not found.`)
  return pool
}

export function findQueueOfPool(database: Database, pool: string, name: string): Queue {
  findPool(database, pool)
  const queue = readQueueByName(database, pool, name)
  if (!queue) throw refuse(404, `Work pool queue '${pool}/${name}' not found.`)
  return queue
}

/** Makes a pool with its queue `default`. */
export function createPool(database: Database, pool: NewPool): Pool {
  const at = now()
  const id = randomUUID()
  const status = pool.type === 'prefect-agent' ? null : pool.is_paused ? 'PAUSED' : 'NOT_READY'
  database.insert('work_pool', { ...pool, id, created: at, updated: at, status })
  const queue = createQueue(database, id, { name: 'default', description: "The work pool's default queue." })
  database.update('work_pool', id, { default_queue_id: queue.id })
  return findPool(database, pool.name)
}

export function ensureDefaultPool(database: Database): Pool {
  return readPool(database, DEFAULT_POOL) ?? createPool(database, { name: DEFAULT_POOL, type: 'prefect-agent' })
}

/** A queue of the default pool, made when missing. */
export function ensureQueue(database: Database, pool: string, name: string): Queue {
  const { id } = pool === DEFAULT_POOL ? ensureDefaultPool(database) : findPool(database, pool)
  return readQueueByName(database, pool, name) ?? createQueue(database, id, { name })
}

/** Without a priority it takes the lowest free rank of its pool; with one, those from that rank on move down. */
export function createQueue(database: Database, poolId: string, queue: NewQueue): Queue {
  const taken = database
    .all({ sql: 'SELECT id, priority FROM work_queue WHERE work_pool_id = ? ORDER BY priority', params: [poolId] })
    .map(row => ({ id: String(row.id), priority: Number(row.priority) }))
  const priority = queue.priority ?? lowestFree(taken.map(other => other.priority))
  const at = now()
  const id = randomUUID()
  database.insert('work_queue', {
    id,
    created: at,
    updated: at,
    name: queue.name,
    description: queue.description ?? '',
    is_paused: queue.is_paused ?? false,
    concurrency_limit: queue.concurrency_limit ?? null,
    priority,
    filter: queue.filter ?? null,
    work_pool_id: poolId,
    status: queue.is_paused ? 'PAUSED' : 'NOT_READY',
  })
  moveDown(database, taken, priority)
  const created = readQueue(database, id)
  if (!created) throw new Error(`Work queue ${id} is gone right after it was made`)
  return created
}

function lowestFree(taken: readonly number[]): number {
  const gap = taken.findIndex((priority, index) => priority !== index + 1)
  return gap === -1 ? (taken.at(-1) ?? 0) + 1 : gap + 1
}

/** Keeps priorities unique: each queue at or after `from` gets the next rank when its own is taken. */
export function moveDown(
  database: Database,
  queues: readonly { readonly id: string; readonly priority: number }[],
  from: number,
): void {
  let last = from
  for (const { id, priority } of queues) {
    if (priority < from || priority > last) continue
    last += 1
    database.update('work_queue', id, { priority: last })
  }
}

/**
 * Due runs of a queue, earliest first, never more than its free slots.
 * Runs are matched by the queue's *name*, whatever their pool: the reference does so, and agents rely on it.
 */
export function dueRunsOfQueue(
  database: Database,
  queue: Queue,
  scheduledBefore: string | null,
  limit: number,
): FlowRun[] {
  if (queue.is_paused) return []
  const match = queue.filter ? legacyMatch(queue.filter) : { sql: 'flow_run.work_queue_name = ?', params: [queue.name] }
  const busyTypes = queue.filter ? ['RUNNING', 'PENDING'] : ['RUNNING', 'PENDING', 'CANCELLING']
  const slots = freeSlots(database, queue.concurrency_limit, match, busyTypes)
  return readFlowRuns(database, {
    sql: `${SELECT_FLOW_RUN} WHERE ${match.sql} AND flow_run.state_type = 'SCHEDULED'
      AND (? IS NULL OR flow_run.next_scheduled_start_time <= ?)
      ORDER BY flow_run.next_scheduled_start_time, flow_run.id LIMIT ?`,
    params: [...match.params, scheduledBefore, scheduledBefore, Math.min(limit, slots)],
  })
}

/** A queue of the first generation, which picks by tags and deployments instead of by name. */
function legacyMatch(filter: NonNullable<Queue['filter']>): Sql {
  const tags = JSON.stringify(filter.tags ?? [])
  const ids = filter.deployment_ids
  const holdsTags = `NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE wanted.value NOT IN
    (SELECT value FROM json_each(flow_run.tags))) AND flow_run.deployment_id IS NOT NULL`
  if (ids === null) return { sql: holdsTags, params: [tags] }
  const sql = `${holdsTags} AND flow_run.deployment_id IN (SELECT value FROM json_each(?))`
  return { sql, params: [tags, JSON.stringify(ids)] }
}

function freeSlots(database: Database, limit: number | null, match: Sql, types: readonly string[]): number {
  if (limit === null) return Number.MAX_SAFE_INTEGER
  const busy = database.get({
    sql: `SELECT count(*) AS busy FROM flow_run WHERE ${match.sql} AND state_type IN (SELECT value FROM json_each(?))`,
    params: [...match.params, JSON.stringify(types)],
  })
  return Math.max(0, limit - Number(busy?.busy ?? 0))
}

export interface PoolPoll {
  readonly scheduledBefore: string | null
  readonly scheduledAfter: string | null
  readonly limit: number
}

/** Due runs of some queues of a pool, by priority, then time; matched by queue id; never more than the free slots. */
export function dueRunsOfPool(database: Database, pool: Pool, queues: readonly Queue[], poll: PoolPoll): FlowRun[] {
  if (pool.is_paused) return []
  const ofPool: Sql = {
    sql: 'work_queue_id IN (SELECT id FROM work_queue WHERE work_pool_id = ?)',
    params: [pool.id],
  }
  let left = Math.min(poll.limit, freeSlots(database, pool.concurrency_limit, ofPool, ['RUNNING', 'PENDING']))
  const due: FlowRun[] = []
  for (const queue of queues.toSorted((a, b) => a.priority - b.priority)) {
    if (queue.is_paused || left <= 0) continue
    const ofQueue: Sql = { sql: 'work_queue_id = ?', params: [queue.id] }
    const slots = freeSlots(database, queue.concurrency_limit, ofQueue, ['RUNNING', 'PENDING'])
    const runs = readFlowRuns(database, {
      sql: `${SELECT_FLOW_RUN} WHERE flow_run.work_queue_id = ? AND flow_run.state_type = 'SCHEDULED'
        AND flow_run.empirical_policy ->> 'retry_type' IS NOT 'in_process'
        AND (? IS NULL OR flow_run.next_scheduled_start_time <= ?)
        AND (? IS NULL OR flow_run.next_scheduled_start_time >= ?)
        ORDER BY flow_run.next_scheduled_start_time, flow_run.id LIMIT ?`,
      params: [
        queue.id,
        poll.scheduledBefore,
        poll.scheduledBefore,
        poll.scheduledAfter,
        poll.scheduledAfter,
        Math.min(left, slots),
      ],
    })
    due.push(...runs)
    left -= runs.length
  }
  return due
}

/** A poll is the sign of life of an agent: queue and deployments become READY. */
export function notePoll(database: Database, queues: readonly Queue[]): void {
  const at = now()
  for (const queue of queues) {
    const status = queue.status === 'NOT_READY' ? 'READY' : queue.status
    database.update('work_queue', queue.id, { last_polled: at, status, updated: at })
    database.run({
      sql: "UPDATE deployment SET last_polled = ?, updated = ?, status = 'READY' WHERE work_queue_id = ?",
      params: [at, at, queue.id],
    })
  }
}

/** What becomes of a queue's status when it is paused or resumed; 60 s is Prefect's time-out of a poll. */
export function statusAfter(queue: Pick<Queue, 'status' | 'last_polled'>, isPaused: boolean): Row {
  if (isPaused) return { status: 'PAUSED' }
  if (queue.status !== 'PAUSED') return {}
  const isRecent = queue.last_polled !== null && queue.last_polled >= addSeconds(now(), -60)
  return { status: isRecent ? 'READY' : 'NOT_READY' }
}
