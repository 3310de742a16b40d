// Block types, schemas and documents in the database: reading them whole, with references put in and secrets hidden.

import { createHash, randomUUID } from 'node:crypto'
import { BLOCK_TYPES } from './block-types.ts'
import { INTEGRATION_BLOCK_TYPES } from './block-types-integrations.ts'
import type { Database, Row, Sql } from './database.ts'
import { refuse } from './refusal.ts'
import { now } from './time.ts'

/** What stands in the place of a secret, whatever its length. */
const MASK = '********'

type Json = Readonly<Record<string, unknown>>

/** Makes the types that every database has; does nothing where they are. */
export function seedBlockTypes(database: Database): void {
  database.write(() => {
    for (const seed of [...BLOCK_TYPES, ...INTEGRATION_BLOCK_TYPES]) {
      if (readBlockType(database, 'slug', seed.slug)) continue
      const { slug, name, description } = seed
      const type = createBlockType(database, { slug, name, description, is_protected: true })
      const properties = Object.fromEntries(
        Object.entries(seed.fields).map(([field, type]) => [field, { title: field, type }]),
      )
      const fields = {
        title: name,
        type: 'object',
        properties,
        ...(seed.required.length > 0 ? { required: seed.required } : {}),
        block_type_slug: slug,
        secret_fields: seed.secrets,
        block_schema_references: {},
      }
      const version = 'non-versioned'
      createBlockSchema(database, {
        fields,
        block_type_id: String(type.id),
        capabilities: seed.capabilities,
        version,
      })
    }
  })
}

export function readBlockType(database: Database, column: 'id' | 'slug' | 'name', value: string): Row | undefined {
  return database.get({ sql: `SELECT * FROM block_type WHERE ${column} = ?`, params: [value] })
}

export function createBlockType(database: Database, columns: Row): Row {
  const created = now()
  const id = randomUUID()
  database.insert('block_type', { id, created, updated: created, ...columns })
  return readBlockType(database, 'id', id) ?? {}
}

export interface NewBlockSchema {
  readonly fields: Json
  readonly block_type_id: string
  readonly capabilities: readonly string[]
  readonly version: string
}

/** A schema is its checksum and version: making it again answers with the one there is. */
export function createBlockSchema(
  database: Database,
  schema: NewBlockSchema,
): { readonly schema: Row; readonly isNew: boolean } {
  const checksum = checksumOf(schema.fields)
  const existing = readBlockSchemas(database, {
    sql: ' WHERE checksum = ? AND version = ?',
    params: [checksum, schema.version],
  })[0]
  if (existing) return { schema: existing, isNew: false }
  const created = now()
  const id = randomUUID()
  database.insert('block_schema', { id, created, updated: created, checksum, ...schema })
  const [made] = readBlockSchemas(database, { sql: ' WHERE id = ?', params: [id] })
  return { schema: made ?? {}, isNew: true }
}

/** `rest` is what follows `SELECT … FROM block_schema`. */
export function readBlockSchemas(database: Database, rest: Sql): Row[] {
  return database.all({ sql: `SELECT * FROM block_schema${rest.sql}`, params: rest.params }).map(schema => ({
    ...schema,
    block_type: readBlockType(database, 'id', String(schema.block_type_id)) ?? null,
  }))
}

/** The hash by which Python clients ask for a schema: of its fields as Python writes JSON, without what is secret. */
export function checksumOf(fields: Json): string {
  const plain = { ...withoutKey(fields, 'secret_fields') }
  const definitions = plain.definitions
  if (isObject(definitions)) {
    const { definitions: _definitions, ...rest } = plain
    const own = plainDefinitions(rest, definitions)
    if (Object.keys(own).length > 0) plain.definitions = own
    else delete plain.definitions
  }
  return `sha256:${createHash('sha256')
    .update(pythonJson([[plain], {}]))
    .digest('hex')}`
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function withoutKey(fields: Json, key: string): Record<string, unknown> {
  const kept = Object.entries(fields).filter(([name]) => name !== key)
  return Object.fromEntries(kept.map(([name, value]) => [name, isObject(value) ? withoutKey(value, key) : value]))
}

/** The definitions that are referred to and are not blocks themselves. */
function plainDefinitions(value: unknown, definitions: Json, found: Record<string, unknown> = {}): Json {
  if (Array.isArray(value)) for (const item of value) plainDefinitions(item, definitions, found)
  if (!isObject(value)) return found
  const name = typeof value.$ref === 'string' ? value.$ref.replace('#/definitions/', '') : ''
  const definition = definitions[name]
  if (isObject(definition) && !definition.block_type_slug && !Object.hasOwn(found, name)) {
    found[name] = definition
    plainDefinitions(definition, definitions, found)
  }
  for (const item of Object.values(value)) plainDefinitions(item, definitions, found)
  return found
}

/** JSON as Python's `json.dumps(…, sort_keys=True)` writes it: spaces after separators, ASCII only. */
function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`
  if (isObject(value)) {
    const names = Object.keys(value).sort()
    return `{${names.map(name => `${pythonJson(name)}: ${pythonJson(value[name])}`).join(', ')}}`
  }
  const text = JSON.stringify(value ?? null)
  return text.replace(/[\u007f-\uffff]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Splits `{"$ref": {"block_document_id": …}}` off; it is kept in the data as it is and put in again when read. */
function referenceOf(value: unknown): string | undefined {
  const reference = isObject(value) ? value.$ref : undefined
  if (!isObject(reference)) return undefined
  const id = reference.block_document_id
  if (typeof id !== 'string') throw refuse(400, 'Received block reference without a block_document_id')
  return id
}

/** Throws when a reference leads nowhere. */
export function checkReferences(database: Database, data: Json): void {
  for (const value of Object.values(data)) {
    const id = referenceOf(value)
    if (id === undefined || database.get({ sql: 'SELECT id FROM block_document WHERE id = ?', params: [id] })) continue
    throw refuse(409, `Could not find the referenced block document ${id}.`)
  }
}

/** A document as the API sends it: references are replaced by the data of what they point to, secrets are hidden unless asked for. */
export function blockDocumentBody(
  database: Database,
  row: Row,
  includeSecrets: boolean,
  above: readonly string[] = [],
): Row {
  const id = String(row.id)
  const [schema] = readBlockSchemas(database, { sql: ' WHERE id = ?', params: [String(row.block_schema_id)] })
  const fields = schema?.fields
  const data: Record<string, unknown> = {}
  const references: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(isObject(row.data) ? row.data : {})) {
    const childId = referenceOf(value)
    const child = childId && ![...above, id].includes(childId) ? readDocument(database, childId) : undefined
    if (childId !== undefined && !child) continue // the referenced block was deleted, or refers back to this one
    if (!child) {
      data[key] = value
      continue
    }
    const body = blockDocumentBody(database, child, includeSecrets, [...above, id])
    data[key] = body.data
    const { name, block_type, is_anonymous, block_document_references } = body
    references[key] = { block_document: { id: body.id, name, block_type, is_anonymous, block_document_references } }
  }
  const secrets = isObject(fields) && Array.isArray(fields.secret_fields) ? fields.secret_fields : []
  return {
    ...row,
    data: includeSecrets ? data : maskSecrets(data, secrets.map(String)),
    block_schema: schema ?? null,
    block_type: schema?.block_type ?? null,
    block_type_name: isObject(schema?.block_type) ? schema.block_type.name : null,
    block_document_references: references,
  }
}

export function readDocument(database: Database, id: string): Row | undefined {
  return database.get({ sql: 'SELECT * FROM block_document WHERE id = ?', params: [id] })
}

/** Paths are dotted; `x.*` hides everything below `x`. */
export function maskSecrets(data: Json, paths: readonly string[]): Json {
  return paths.reduce((masked, path) => maskPath(masked, path.split('.')), data)
}

function maskPath(data: Json, [name = '', ...rest]: readonly string[]): Json {
  if (name === '*') return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, maskAll(value)]))
  const value = data[name]
  if (!Object.hasOwn(data, name) || value === null || value === undefined) return data
  if (rest.length > 0) return isObject(value) ? { ...data, [name]: maskPath(value, rest) } : data
  return { ...data, [name]: MASK }
}

function maskAll(value: unknown): unknown {
  if (!isObject(value)) return MASK
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, maskAll(item)]))
}

/** New data in which a mask, read before and sent back, stands for the secret that is kept. */
export function keepMasked(sent: Json, kept: Json): Json {
  return Object.fromEntries(
    Object.entries(sent).map(([key, value]) => {
      const old = kept[key]
      if (value === MASK && old !== undefined) return [key, old]
      return [key, isObject(value) && isObject(old) ? keepMasked(value, old) : value]
    }),
  )
}
