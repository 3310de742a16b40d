// `/block_types` and `/block_schemas`: which kinds of blocks there are and what their documents look like.

import { Hono } from 'hono'
import * as v from 'valibot'
import { blockDocumentBody, createBlockSchema, createBlockType, readBlockSchemas, readBlockType } from '../blocks.ts'
import type { Database, Row } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, toCondition, where, within } from '../filters.ts'
import { refuse } from '../refusal.ts'
import { anyObject, optionalText, page, readBody, readFlag, readId, texts, uuid } from '../requests.ts'
import { now } from '../time.ts'

const slug = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9-]+$/, 'slug must only contain lowercase letters, numbers, and dashes'),
)
const details = {
  logo_url: optionalText,
  documentation_url: optionalText,
  description: optionalText,
  code_example: optionalText,
}
const BlockTypeCreate = v.strictObject({ name: v.string(), slug, ...details })
const BlockTypeUpdate = v.strictObject({
  logo_url: v.optional(v.nullable(v.string())),
  documentation_url: v.optional(v.nullable(v.string())),
  description: v.optional(v.nullable(v.string())),
  code_example: v.optional(v.nullable(v.string())),
})
const BlockSchemaCreate = v.strictObject({
  fields: v.nullish(anyObject, {}),
  block_type_id: uuid,
  capabilities: v.nullish(texts, []),
  version: v.nullish(v.string(), 'non-versioned'),
})
const block_types = filterSchema(grammars.blockTypes)
const block_schemas = filterSchema(grammars.blockSchemas)

export function blockTypeRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, BlockTypeCreate)
    if (body.name.toLowerCase().startsWith('prefect')) {
      throw refuse(403, 'Block type names beginning with "Prefect" are reserved.')
    }
    const type = database.write(() => {
      if (readBlockType(database, 'slug', body.slug) ?? readBlockType(database, 'name', body.name)) {
        throw refuse(409, `Block type with name "${body.name}" already exists`)
      }
      return createBlockType(database, body)
    })
    return context.json(type, 201)
  })

  routes.post('/filter', async context => {
    const { limit, offset, ...filters } = await readBody(context, v.object({ ...page, block_types, block_schemas }))
    const own = toCondition(grammars.blockTypes, filters.block_types)
    const ofSchemas = within(
      'EXISTS (SELECT 1 FROM block_schema WHERE block_schema.block_type_id = block_type.id AND {})',
      toCondition(grammars.blockSchemas, filters.block_schemas),
    )
    const conditions = [own, ofSchemas].filter(condition => condition !== undefined)
    const sql = conditions.map(condition => condition.sql).join(' AND ')
    const params = conditions.flatMap(condition => condition.params)
    const query = `SELECT * FROM block_type${sql && ` WHERE ${sql}`} ORDER BY name LIMIT ? OFFSET ?`
    return context.json(database.all({ sql: query, params: [...params, limit, offset] }))
  })

  routes.get('/slug/:slug', context => context.json(findType(database, 'slug', context.req.param('slug'))))

  routes.get('/slug/:slug/block_documents', context => {
    const type = findType(database, 'slug', context.req.param('slug'))
    const sql = 'SELECT * FROM block_document WHERE block_type_id = ? AND is_anonymous = 0 ORDER BY name'
    const rows = database.all({ sql, params: [String(type.id)] })
    const includeSecrets = readFlag(context, 'include_secrets')
    return context.json(rows.map(row => blockDocumentBody(database, row, includeSecrets)))
  })

  routes.get('/slug/:slug/block_documents/name/:name', context => {
    const { slug, name } = context.req.param()
    const sql = `SELECT block_document.* FROM block_document JOIN block_type ON block_type.id = block_document.block_type_id
      WHERE block_type.slug = ? AND block_document.name = ?`
    const row = database.get({ sql, params: [slug, name] })
    if (!row) throw refuse(404, 'Block document not found')
    return context.json(blockDocumentBody(database, row, readFlag(context, 'include_secrets')))
  })

  routes.get('/:id', context => context.json(findType(database, 'id', readId(context))))

  routes.patch('/:id', async context => {
    const id = readId(context)
    const body = await readBody(context, BlockTypeUpdate)
    database.write(() => {
      findType(database, 'id', id)
      database.update('block_type', id, { ...body, updated: now() })
    })
    return context.body(null, 204)
  })

  routes.delete('/:id', context => {
    const id = readId(context)
    database.write(() => {
      if (findType(database, 'id', id).is_protected) throw refuse(403, 'protected block types cannot be deleted.')
      database.delete('block_type', id)
    })
    return context.body(null, 204)
  })

  return routes
}

export function blockSchemaRoutes(database: Database): Hono {
  const routes = new Hono()

  routes.post('/', async context => {
    const body = await readBody(context, BlockSchemaCreate)
    const { schema, isNew } = database.write(() => {
      if (!readBlockType(database, 'id', body.block_type_id)) {
        throw refuse(404, `Block type ${body.block_type_id} not found.`)
      }
      return createBlockSchema(database, body)
    })
    return context.json(schema, isNew ? 201 : 200)
  })

  routes.post('/filter', async context => {
    const { limit, offset, block_schemas: filter } = await readBody(context, v.object({ ...page, block_schemas }))
    const { sql, params } = where(toCondition(grammars.blockSchemas, filter))
    const rest = { sql: `${sql} ORDER BY created DESC LIMIT ? OFFSET ?`, params: [...params, limit, offset] }
    return context.json(readBlockSchemas(database, rest))
  })

  routes.get('/checksum/:checksum', context => {
    const version = context.req.query('version') ?? null
    const [schema] = readBlockSchemas(database, {
      sql: ' WHERE checksum = ? AND (? IS NULL OR version = ?) ORDER BY created DESC LIMIT 1',
      params: [context.req.param('checksum'), version, version],
    })
    if (!schema) throw refuse(404, 'Block schema not found')
    return context.json(schema)
  })

  routes.get('/:id', context => {
    const [schema] = readBlockSchemas(database, { sql: ' WHERE id = ?', params: [readId(context)] })
    if (!schema) throw refuse(404, 'Block schema not found')
    return context.json(schema)
  })

  return routes
}

function findType(database: Database, column: 'id' | 'slug', value: string): Row {
  const type = readBlockType(database, column, value)
  if (!type) throw refuse(404, 'Block type not found')
  return type
}
