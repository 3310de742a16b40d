// Reading what a client sent: path ids, query flags and bodies, each through a schema.
//
// A body that is one model refuses unknown keys (strictObject); a body of several parameters ignores them, and a null
// there means "left out". That is how Prefect's server behaves, and its Python client sends many nulls.

import type { Context } from 'hono'
import * as v from 'valibot'
import { type InvalidField, invalidRequest, refuse } from './refusal.ts'
import { readTime } from './time.ts'

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i

function normaliseUuid(text: string): string {
  return text
    .replaceAll('-', '')
    .toLowerCase()
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

export const uuid = v.pipe(v.string(), v.regex(UUID, 'value is not a valid uuid'), v.transform(normaliseUuid))

export const time = v.pipe(
  v.string(),
  v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
    const read = readTime(dataset.value)
    if (read !== undefined) return read
    addIssue({ message: 'invalid datetime format' })
    return NEVER
  }),
)

/** Any JSON object, kept as it is: user data may have keys such as `constructor`, which valibot's record drops. */
export const anyObject = v.custom<Record<string, unknown>>(
  value => typeof value === 'object' && value !== null && !Array.isArray(value),
  'value is not a valid dict',
)

export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
export const optionalText = v.nullish(v.string(), null)
export const optionalBoolean = v.nullish(v.boolean(), null)
export const optionalUuid = v.nullish(uuid, null)
export const optionalCount = v.nullish(count, null)
export const texts = v.array(v.string())

/** A name that Prefect lets stand in its URLs. */
export const plainName = v.pipe(
  v.string(),
  v.check(name => !/[/%&><]/.test(name), 'name contains an invalid character: one of / % & > <'),
)

const LIMIT = 'Invalid limit'

/** Page of a list route: Prefect's server gives 200 rows by default and refuses to give more. */
export const page = {
  limit: v.nullish(
    v.pipe(
      v.number(),
      v.safeInteger(),
      v.minValue(0, `${LIMIT}: must be greater than or equal to 0.`),
      v.maxValue(200, `${LIMIT}: must be less than or equal to 200.`),
    ),
    200,
  ),
  offset: v.nullish(count, 0),
}

/** A choice of orders: their names to the SQL that they stand for, which is what comes out. */
export function sortBy(sorts: Readonly<Record<string, string>>, standard: string) {
  return v.pipe(
    v.nullish(v.picklist(Object.keys(sorts)), standard),
    v.transform(name => sorts[name] ?? ''),
  )
}

/** The uuid in the path; anything else there is answered 422. */
export function readId(context: Context, name = 'id'): string {
  const text = context.req.param(name) ?? ''
  if (UUID.test(text)) return normaliseUuid(text)
  throw invalidRequest([{ loc: ['path', name], msg: 'value is not a valid uuid', type: 'type_error.uuid' }], null)
}

/** A yes or no in the query, `false` when absent. */
export function readFlag(context: Context, name: string): boolean {
  const text = context.req.query(name)?.toLowerCase()
  if (text === undefined || ['false', '0', 'no', 'off', 'f', 'n'].includes(text)) return false
  if (['true', '1', 'yes', 'on', 't', 'y'].includes(text)) return true
  throw invalidRequest(
    [{ loc: ['query', name], msg: 'value could not be parsed to a boolean', type: 'type_error.bool' }],
    null,
  )
}

export async function readBody<S extends v.GenericSchema>(context: Context, schema: S): Promise<v.InferOutput<S>> {
  const body = await readJson(context)
  const result = v.safeParse(schema, body)
  if (result.success) return result.output
  // The one check that the reference makes by itself, so its answer looks different.
  const tooMany = result.issues.find(issue => issue.message.startsWith(LIMIT))
  if (tooMany) throw refuse(422, tooMany.message)
  throw invalidRequest(result.issues.map(describeIssue), body)
}

async function readJson(context: Context): Promise<unknown> {
  const text = await context.req.text()
  if (text === '') return {}
  const type = context.req.header('content-type')
  if (type !== undefined && !/^application\/(?:[\w.-]+\+)?json\b/i.test(type)) {
    throw invalidRequest([{ loc: ['body'], msg: 'value is not a valid dict', type: 'type_error.dict' }], null)
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    const msg = error instanceof Error ? error.message : 'invalid JSON'
    throw invalidRequest([{ loc: ['body'], msg, type: 'value_error.jsondecode' }], null)
  }
}

function describeIssue(issue: v.BaseIssue<unknown>): InvalidField {
  const keys = (issue.path ?? []).map(item => item.key)
  const root = keys.length === 0 && issue.kind === 'validation' ? ['__root__'] : []
  const loc = ['body', ...root, ...keys.map(key => (typeof key === 'number' ? key : String(key)))]
  if (issue.expected === 'never') return { loc, msg: 'extra fields not permitted', type: 'value_error.extra' }
  if (issue.received === 'undefined') return { loc, msg: 'field required', type: 'value_error.missing' }
  return { loc, msg: issue.message, type: `value_error.${issue.type}` }
}
