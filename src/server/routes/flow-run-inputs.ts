// `/flow_runs/{id}/resume` and `/flow_runs/{id}/input`: waking a paused run, and the values that people hand it.

import { randomUUID } from 'node:crypto'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database } from '../database.ts'
import { findFlowRun, readFlowRun } from '../flow-runs.ts'
import { refuse } from '../refusal.ts'
import { anyObject, count, optionalText, readBody, readId, texts } from '../requests.ts'
import { setFlowRunState } from '../run-states.ts'
import { buildProposal } from '../states.ts'
import { now } from '../time.ts'
import { answer } from './flow-runs.ts'

const Resume = v.object({ run_input: v.nullish(anyObject, {}) })
const InputCreate = v.object({ key: v.string(), value: v.string(), sender: optionalText })
const InputFilter = v.object({ prefix: v.string(), limit: v.nullish(count, 1), exclude_keys: v.nullish(texts, []) })

export function flowRunInputRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/:id/resume', async context => {
    const id = readId(context)
    const { run_input } = await readBody(context, Resume)
    const outcome = database.write(() => {
      const { state } = findFlowRun(database, id)
      if (state?.type !== 'PAUSED') {
        const details = { type: 'abort_details', reason: 'Cannot resume a flow run that is not paused.' }
        return { written: false, body: { state: null, status: 'ABORT', details } }
      }
      const keys = state.state_details.run_input_keyset
      const missing = keys && findMissingInput(database, id, keys.schema ?? '', run_input)
      if (missing) {
        return {
          written: false,
          body: { state, status: 'REJECT', details: { type: 'abort_details', reason: missing } },
        }
      }
      const next = state.state_details.pause_reschedule
        ? buildProposal({ type: 'SCHEDULED', name: 'Resuming' }, now())
        : buildProposal({ type: 'RUNNING' }, now())
      const result = setFlowRunState(database, id, next, false)
      const responseKey = keys?.response
      if (responseKey && Object.keys(run_input).length > 0 && result.body.status === 'ACCEPT') {
        saveInput(database, id, { key: responseKey, value: JSON.stringify(run_input), sender: null })
      }
      return result
    })
    return answer(context, outcome)
  })

  routes.post('/:id/input', async context => {
    const id = readId(context)
    const input = await readBody(context, InputCreate)
    database.write(() => {
      if (!readFlowRun(database, id)) throw refuse(404, 'Flow run not found')
      saveInput(database, id, input)
    })
    return context.json(null, 201)
  })

  routes.post('/:id/input/filter', async context => {
    const id = readId(context)
    const { prefix, limit, exclude_keys } = await readBody(context, InputFilter)
    const rows = database.all({
      sql: `SELECT * FROM flow_run_input WHERE flow_run_id = ? AND substr(key, 1, length(?)) = ?
        AND key NOT IN (SELECT value FROM json_each(?)) ORDER BY created LIMIT ?`,
      params: [id, prefix, prefix, JSON.stringify(exclude_keys), limit],
    })
    return context.json(rows)
  })

  routes.get('/:id/input/:key', context => {
    const sql = 'SELECT value FROM flow_run_input WHERE flow_run_id = ? AND key = ?'
    const row = database.get({ sql, params: [readId(context), context.req.param('key')] })
    if (!row) throw refuse(404, 'Flow run input not found')
    return context.text(String(row.value))
  })

  routes.delete('/:id/input/:key', context => {
    const sql = 'DELETE FROM flow_run_input WHERE flow_run_id = ? AND key = ?'
    const params = [readId(context), context.req.param('key')]
    if (database.write(() => database.run({ sql, params })) === 0) throw refuse(404, 'Flow run input not found')
    return context.body(null, 204)
  })

  return routes
}

function saveInput(
  database: Database,
  flow_run_id: string,
  input: { readonly key: string; readonly value: string; readonly sender: string | null },
): void {
  const sql = 'SELECT id FROM flow_run_input WHERE flow_run_id = ? AND key = ?'
  if (database.get({ sql, params: [flow_run_id, input.key] })) {
    throw refuse(409, 'A flow run input with this key already exists.')
  }
  const created = now()
  database.insert('flow_run_input', { ...input, id: randomUUID(), created, updated: created, flow_run_id })
}

/** Checks the required fields only; the flow itself validates its input against the whole schema. */
function findMissingInput(
  database: Database,
  id: string,
  schemaKey: string,
  input: Record<string, unknown>,
): string | undefined {
  const sql = 'SELECT value FROM flow_run_input WHERE flow_run_id = ? AND key = ?'
  const row = database.get({ sql, params: [id, schemaKey] })
  if (!row) return 'Run input schema not found.'
  const schema = v.safeParse(v.object({ required: v.nullish(texts, []) }), readJson(String(row.value)))
  if (!schema.success) return 'Run input schema is not valid JSON.'
  const missing = schema.output.required.filter(name => !Object.hasOwn(input, name))
  return missing.length > 0
    ? `Reason: ${missing.map(name => `'${name}'`).join(', ')} is a required property`
    : undefined
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // no object, so the schema above refuses it
  }
}
