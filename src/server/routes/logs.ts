// `/logs`: lines in batches from engines and agents, and reading them back.

import { randomUUID } from 'node:crypto'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, toCondition, where } from '../filters.ts'
import { optionalUuid, page, readBody, sortBy, time } from '../requests.ts'
import { now } from '../time.ts'

const LogCreate = v.strictObject({
  name: v.string(),
  level: v.pipe(v.number(), v.safeInteger()),
  message: v.string(),
  timestamp: time,
  flow_run_id: optionalUuid,
  task_run_id: optionalUuid,
})
const SORTS = { TIMESTAMP_ASC: 'log.timestamp ASC', TIMESTAMP_DESC: 'log.timestamp DESC' }
const LogList = v.object({
  ...page,
  logs: filterSchema(grammars.logs),
  sort: sortBy(SORTS, 'TIMESTAMP_ASC'),
})

export function logRoutes(database: Database): Hono {
  const routes = new Hono()

  /** The run need not exist: an engine may outlive it. */
  routes.post('/', async context => {
    const lines = await readBody(context, v.array(LogCreate))
    database.write(() => {
      for (const line of lines) {
        const created = now()
        database.insert('log', { id: randomUUID(), created, updated: created, ...line })
      }
    })
    return context.json(null, 201)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, logs } = await readBody(context, LogList)
    const { sql, params } = where(toCondition(grammars.logs, logs))
    // Lines of one instant keep the order in which they came.
    const query = `SELECT * FROM log${sql} ORDER BY ${sort}, log.rowid LIMIT ? OFFSET ?`
    return context.json(database.all({ sql: query, params: [...params, limit, offset] }))
  })

  return routes
}
