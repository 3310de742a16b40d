// Holds the fields of a block against its type's JSON schema before they are sent, for Prefect's server does not.

import { Ajv, type ErrorObject } from 'ajv'
import { findNearest } from '../config/nearest.ts'
import { isTable } from '../config/settings-file.ts'
import { UserError } from '../errors.ts'

type Json = Readonly<Record<string, unknown>>

/** Throws a UserError that names the field and what was expected, never what stands in it. */
export function checkBlock(slug: string, data: Json, schema: Json): void {
  refuseUnknownFields(slug, data, schema)
  // Pydantic's schemas use words of their own, and formats such as "password" that say nothing of the text.
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true })
  const validate = ajv.compile({ ...schema, definitions: completeDefinitions(schema) })
  // Prefect's optional fields may be null, though their schema does not say so.
  if (validate(withoutNulls(data))) return
  const sentences = joinKinds(validate.errors ?? [])
    .filter(isTelling)
    .map(describe)
  throw new UserError(`Block of type "${slug}": ${[...new Set(sentences)].join('; ')}.`)
}

function refuseUnknownFields(slug: string, data: Json, { properties }: Json): void {
  // A type that was made without a schema takes anything.
  if (!isTable(properties) || Object.keys(properties).length === 0) return
  for (const field of Object.keys(data)) {
    if (Object.hasOwn(properties, field)) continue
    const nearest = findNearest(field, Object.keys(properties))
    const all = `It has: ${Object.keys(properties).join(', ')}.`
    const hint = nearest ? `Did you mean "${nearest}"? ${all}` : all
    throw new UserError(`Block of type "${slug}" has no field "${field}".`, { hint })
  }
}

function withoutNulls(data: Json): Json {
  return Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null))
}

/** Prefect 3 has definitions that its schemas speak of and do not hold (JsonValue): these take anything. */
function completeDefinitions(schema: Json): Json {
  const named = JSON.stringify(schema).matchAll(/"#\/definitions\/([^"/]+)"/g)
  const open = Object.fromEntries([...named].map(([, name = '']) => [name, {}]))
  return { ...open, ...(isTable(schema.definitions) ? schema.definitions : {}) }
}

/** A field that may be a number or null and is neither breaks three rules; the first says enough. */
function joinKinds(errors: readonly ErrorObject[]): readonly ErrorObject[] {
  const choices = new Set(errors.filter(({ keyword }) => keyword === 'anyOf').map(({ instancePath }) => instancePath))
  return errors.filter(({ instancePath, keyword }, at) => {
    if (!choices.has(instancePath)) return true
    return keyword !== 'anyOf' && errors.findIndex(other => other.instancePath === instancePath) === at
  })
}

/** What led to an error of a part says nothing beyond it. */
function isTelling({ keyword }: ErrorObject): boolean {
  return keyword !== 'if'
}

function describe({ keyword, params, instancePath, message }: ErrorObject): string {
  const field = instancePath.slice(1).replaceAll('/', '.')
  if (keyword === 'required') {
    const missing = String(params.missingProperty)
    return `field "${field === '' ? missing : `${field}.${missing}`}" is missing`
  }
  return `field "${field}" ${message ?? 'is not accepted'}`
}
