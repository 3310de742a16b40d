// `/flow_run_states` and `/task_run_states`: every state that a run has been in.

import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import { readState } from '../flow-runs.ts'
import { invalidRequest, refuse } from '../refusal.ts'
import { readId, uuid } from '../requests.ts'

export function runStateRoutes(database: Database, kind: 'flow_run' | 'task_run'): Hono {
  const routes = new Hono()

  /** Oldest first. */
  routes.get('/', context => {
    const parameter = `${kind}_id`
    const id = v.safeParse(uuid, context.req.query(parameter))
    if (!id.success) {
      throw invalidRequest([{ loc: ['query', parameter], msg: 'field required', type: 'value_error.missing' }], null)
    }
    const sql = `SELECT * FROM ${kind}_state WHERE ${kind}_id = ? ORDER BY timestamp`
    return context.json(database.all({ sql, params: [id.output] }).map(readState))
  })

  routes.get('/:id', context => {
    const state = readState(
      database.get({ sql: `SELECT * FROM ${kind}_state WHERE id = ?`, params: [readId(context)] }),
    )
    if (!state) throw refuse(404, 'Flow run state not found')
    return context.json(state)
  })

  return routes
}
