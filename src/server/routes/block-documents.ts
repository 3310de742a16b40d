// `/block_documents`: the blocks themselves.

import { randomUUID } from 'node:crypto'
import { Hono } from 'hono'
import * as v from 'valibot'
import { blockDocumentBody, checkReferences, keepMasked, readDocument } from '../blocks.ts'
import type { Database, Row } from '../database.ts'
import * as grammars from '../filter-grammars.ts'
import { filterSchema, toCondition, where } from '../filters.ts'
import { refuse } from '../refusal.ts'
import { anyObject, page, readBody, readFlag, readId, sortBy, uuid } from '../requests.ts'
import { now } from '../time.ts'

const name = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9-]+$/, 'name must only contain lowercase letters, numbers, and dashes.'),
)
const BlockDocumentCreate = v.pipe(
  v.strictObject({
    name: v.nullish(name, null),
    data: v.nullish(anyObject, {}),
    block_schema_id: uuid,
    block_type_id: uuid,
    is_anonymous: v.nullish(v.boolean(), false),
  }),
  v.check(body => body.is_anonymous || body.name !== null, 'Names must be provided for block documents.'),
)
const BlockDocumentUpdate = v.strictObject({
  block_schema_id: v.optional(v.nullable(uuid)),
  data: v.nullish(anyObject, {}),
  merge_existing_data: v.nullish(v.boolean(), true),
})
const SORTS = {
  NAME_ASC: 'block_document.name ASC',
  NAME_DESC: 'block_document.name DESC',
  BLOCK_TYPE_AND_NAME_ASC: 'block_document.block_type_id ASC, block_document.name ASC',
}
const BlockDocumentList = v.object({
  ...page,
  block_documents: filterSchema(grammars.blockDocuments),
  include_secrets: v.nullish(v.boolean(), false),
  sort: sortBy(SORTS, 'NAME_ASC'),
})

export function blockDocumentRoutes(database: Database): Hono {
  const routes = new Hono()

  /** The answer hides secrets, also those that were just sent. */
  routes.post('/', async context => {
    const body = await readBody(context, BlockDocumentCreate)
    const document = database.write(() => {
      refuseUnknown(database, body)
      const created = now()
      const id = randomUUID()
      const given = body.name ?? `anonymous-${randomUUID()}`
      database.insert('block_document', { id, created, updated: created, ...body, name: given })
      return find(database, id)
    })
    return context.json(blockDocumentBody(database, document, false), 201)
  })

  routes.post('/filter', async context => {
    const { limit, offset, sort, block_documents, include_secrets } = await readBody(context, BlockDocumentList)
    // Anonymous blocks are listed only when a filter asks for them.
    const filter = { ...block_documents, is_anonymous: block_documents?.is_anonymous ?? { eq_: false } }
    const { sql, params } = where(toCondition(grammars.blockDocuments, filter))
    const query = `SELECT * FROM block_document${sql} ORDER BY ${sort} LIMIT ? OFFSET ?`
    const rows = database.all({ sql: query, params: [...params, limit, offset] })
    return context.json(rows.map(row => blockDocumentBody(database, row, include_secrets)))
  })

  routes.get('/:id', context => {
    const document = find(database, readId(context))
    return context.json(blockDocumentBody(database, document, readFlag(context, 'include_secrets')))
  })

  routes.patch('/:id', async context => {
    const id = readId(context)
    const { data, merge_existing_data, block_schema_id } = await readBody(context, BlockDocumentUpdate)
    database.write(() => {
      const document = find(database, id)
      checkReferences(database, data)
      const old = v.parse(anyObject, document.data)
      const sent = keepMasked(data, old)
      const schema = block_schema_id ? { block_schema_id } : {}
      if (block_schema_id) refuseOtherType(database, block_schema_id, String(document.block_type_id))
      const merged = merge_existing_data ? { ...old, ...sent } : sent
      database.update('block_document', id, { data: merged, ...schema, updated: now() })
    })
    return context.body(null, 204)
  })

  routes.delete('/:id', context => {
    const id = readId(context)
    if (!database.write(() => database.delete('block_document', id))) throw refuse(404, 'Block document not found')
    return context.body(null, 204)
  })

  return routes
}

function find(database: Database, id: string): Row {
  const document = readDocument(database, id)
  if (!document) throw refuse(404, 'Block document not found')
  return document
}

function refuseUnknown(database: Database, body: v.InferOutput<typeof BlockDocumentCreate>): void {
  refuseOtherType(database, body.block_schema_id, body.block_type_id)
  const sql = 'SELECT id FROM block_document WHERE block_type_id = ? AND name = ?'
  if (database.get({ sql, params: [body.block_type_id, body.name] })) throw refuse(409, 'Block already exists')
  checkReferences(database, body.data)
}

function refuseOtherType(database: Database, schemaId: string, typeId: string): void {
  const schema = database.get({ sql: 'SELECT block_type_id FROM block_schema WHERE id = ?', params: [schemaId] })
  if (!schema) throw refuse(404, 'Block schema not found')
  if (schema.block_type_id !== typeId) throw refuse(400, 'The block schema belongs to another block type.')
}
