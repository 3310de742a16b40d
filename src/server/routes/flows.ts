// `/flows`: flows by id and name, made when they are first heard of.

import { randomUUID } from 'node:crypto'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { where } from '../filters.ts'
import { refuse } from '../refusal.ts'
import { page, plainName, readBody, readId, sortBy, texts } from '../requests.ts'
import { now } from '../time.ts'

const FlowCreate = v.strictObject({ name: plainName, tags: v.nullish(texts, []) })
const SORTS = {
  CREATED_DESC: 'flow.created DESC',
  UPDATED_DESC: 'flow.updated DESC',
  NAME_ASC: 'flow.name ASC',
  NAME_DESC: 'flow.name DESC',
}
const { flows, flow_runs, task_runs, deployments, work_pools } = grammars.crossFilters
const FlowList = v.object({
  ...page,
  flows,
  flow_runs,
  task_runs,
  deployments,
  work_pools,
  sort: sortBy(SORTS, 'NAME_ASC'),
})

export function flowRoutes(database: Database): Hono {
  const routes = new Hono()

  /** A flow is its name: making it again answers with the one there is. */
  routes.post('/', async context => {
    const body = await readBody(context, FlowCreate)
    const { flow, isNew } = database.write(() => {
      const existing = readFlowByName(database, body.name)
      if (existing) return { flow: existing, isNew: false }
      const created = now()
      const flow = { id: randomUUID(), created, updated: created, ...body }
      database.insert('flow', flow)
      return { flow, isNew: true }
    })
    return context.json(flow, isNew ? 201 : 200)
  })

  routes.get('/name/:name', context => {
    const flow = readFlowByName(database, context.req.param('name'))
    if (!flow) throw refuse(404, 'Flow not found')
    return context.json(flow)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, ...filters } = await readBody(context, FlowList)
    const { sql, params } = where(grammars.crossCondition('flow', filters))
    const query = `SELECT flow.* FROM flow${sql} ORDER BY ${sort} LIMIT ? OFFSET ?`
    return context.json(database.all({ sql: query, params: [...params, limit, offset] }))
  })

  routes.get('/:id', context => {
    const flow = database.get({ sql: 'SELECT * FROM flow WHERE id = ?', params: [readId(context)] })
    if (!flow) throw refuse(404, 'Flow not found')
    return context.json(flow)
  })

  return routes
}

function readFlowByName(database: Database, name: string) {
  return database.get({ sql: 'SELECT * FROM flow WHERE name = ?', params: [name] })
}
