// `/variables`: named texts for flows and job templates.

import { randomUUID } from 'node:crypto'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Database, Row } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, toCondition, where } from '../filters.ts'
import { refuse } from '../refusal.ts'
import { page, readBody, readId, sortBy, texts } from '../requests.ts'
import { now } from '../time.ts'

const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9_]+$/, 'Variable name must only contain lowercase letters, numbers, and underscores.'),
  v.maxLength(255),
)
const value = v.pipe(v.string(), v.maxLength(5000))
const VariableCreate = v.strictObject({ name, value, tags: v.nullish(texts, []) })
const VariableUpdate = v.strictObject({ name: v.optional(name), value: v.optional(value), tags: v.optional(texts) })
const SORTS = {
  CREATED_DESC: 'created DESC',
  UPDATED_DESC: 'updated DESC',
  NAME_ASC: 'name ASC',
  NAME_DESC: 'name DESC',
}
const VariableList = v.object({
  ...page,
  variables: filterSchema(grammars.variables),
  sort: sortBy(SORTS, 'NAME_ASC'),
})

export function variableRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, VariableCreate)
    const created = now()
    const variable = { id: randomUUID(), created, updated: created, ...body }
    database.write(() => {
      refuseTaken(database, body.name)
      database.insert('variable', variable)
    })
    return context.json(variable, 201)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, variables } = await readBody(context, VariableList)
    const { sql, params } = where(toCondition(grammars.variables, variables))
    const query = `SELECT * FROM variable${sql} ORDER BY ${sort} LIMIT ? OFFSET ?`
    return context.json(database.all({ sql: query, params: [...params, limit, offset] }))
  })

  // By id and by name: the same three routes twice.
  const ways = [
    { path: '/name/:key', column: 'name' },
    { path: '/:id', column: 'id' },
  ] as const
  for (const { path, column } of ways) {
    const find = (key: string): Row => {
      const variable = database.get({ sql: `SELECT * FROM variable WHERE ${column} = ?`, params: [key] })
      if (!variable) throw refuse(404, 'Variable not found')
      return variable
    }
    const readKey = (context: Parameters<typeof readId>[0]) =>
      column === 'id' ? readId(context) : (context.req.param('key') ?? '')

    routes.get(path, context => context.json(find(readKey(context))))

    routes.patch(path, async context => {
      const changes = await readBody(context, VariableUpdate)
      database.write(() => {
        const variable = find(readKey(context))
        if (changes.name !== undefined && changes.name !== variable.name) refuseTaken(database, changes.name)
        database.update('variable', String(variable.id), { ...changes, updated: now() })
      })
      return context.body(null, 204)
    })

    routes.delete(path, context => {
      database.write(() => database.delete('variable', String(find(readKey(context)).id)))
      return context.body(null, 204)
    })
  }

  return routes
}

function refuseTaken(database: Database, name: string): void {
  if (!database.get({ sql: 'SELECT id FROM variable WHERE name = ?', params: [name] })) return
  throw refuse(409, `A variable with the name '${name}' already exists.`)
}
