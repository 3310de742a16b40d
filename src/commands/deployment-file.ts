// Reads deployments from a YAML file: Prefect 2's `deployment.yaml` as `prefect deployment build` writes it, or our short
// form of it. Several may stand in one file, separated by `---`.
//
// In: the file's text and folder. Out: what to create on the server, with blocks still by name or as data. Pure.

import { resolve } from 'node:path'
import * as v from 'valibot'
import { parseAllDocuments } from 'yaml'
import { findNearest } from '../config/nearest.ts'
import { UserError } from '../errors.ts'
import type { NewDeployment } from '../prefect/requests.ts'
import { readSchedules } from './deployment-schedules.ts'
import { table } from './options.ts'

/** A block that the deployment uses: one that exists, or data for one of its own. */
export type BlockPlan =
  | { readonly kind: 'id'; readonly id: string }
  | { readonly kind: 'named'; readonly slug: string; readonly name: string }
  | { readonly kind: 'anonymous'; readonly slug: string; readonly data: Readonly<Record<string, unknown>> }

export interface DeploymentPlan {
  readonly flow: string
  /** Everything but the ids. */
  readonly body: Omit<NewDeployment, 'flow_id' | 'storage_document_id' | 'infrastructure_document_id'>
  readonly storage: BlockPlan | undefined
  readonly infrastructure: BlockPlan | undefined
}

const text = v.nullish(v.pipe(v.union([v.string(), v.number()]), v.transform(String)))
const block = v.nullish(v.union([v.string(), table]))

const entries = {
  // Names as Prefect 2 writes them, and the short ones that mean the same.
  flow_name: text,
  flow: text,
  name: text,
  work_queue_name: text,
  queue: text,
  work_pool_name: text,
  pool: text,
  infra_overrides: v.nullish(table),
  job_variables: v.nullish(table),
  entrypoint: text,
  path: text,
  description: text,
  version: text,
  tags: v.nullish(v.array(v.string())),
  parameters: v.nullish(table),
  schedule: v.nullish(v.unknown()),
  schedules: v.nullish(v.array(v.unknown())),
  is_schedule_active: v.nullish(v.boolean()),
  paused: v.nullish(v.boolean()),
  infrastructure: block,
  storage: block,
  parameter_openapi_schema: v.nullish(table),
  enforce_parameter_schema: v.nullish(v.boolean()),
  pull_steps: v.nullish(v.array(v.unknown())),
  // Written by Prefect 2, of no use to the server of today.
  manifest_path: v.nullish(v.unknown()),
  timestamp: v.nullish(v.unknown()),
  triggers: v.nullish(v.array(v.unknown())),
}
const Entry = v.object(entries)
type Entry = v.InferOutput<typeof Entry>

/** Throws a UserError that names the file, the document in it and the field. */
export function readDeploymentFile(content: string, file: string, folder: string): DeploymentPlan[] {
  const documents = parseAllDocuments(content)
  // For an empty file `yaml` gives an empty list with errors of its own beside it.
  const list = Array.isArray(documents) ? documents : []
  const plans = list.flatMap((document, index) => {
    const where = list.length > 1 ? `${file}, document ${index + 1}` : file
    const [error] = document.errors
    if (error) throw new UserError(`Could not read ${where}: ${error.message.split('\n')[0]}`)
    const value: unknown = document.toJS()
    return value === null ? [] : [readPlan(value, where, folder)]
  })
  if (plans.length === 0) throw new UserError(`Could not read ${file}: there is no deployment in it.`)
  return plans
}

function readPlan(value: unknown, where: string, folder: string): DeploymentPlan {
  if (!v.is(table, value)) throw new UserError(`Could not read ${where}: it is not a table of fields.`)
  if ('deployments' in value) {
    throw new UserError(`Could not read ${where}: it is a prefect.yaml.`, {
      hint: 'Deploy it with `prefect deploy`, or write one document for each deployment.',
    })
  }
  refuseUnknownFields(value, where)
  const result = v.safeParse(Entry, value)
  if (!result.success) {
    const [issue] = result.issues
    throw new UserError(`Could not use ${where}: field "${v.getDotPath(issue) ?? ''}" ${issue.message}.`)
  }
  const entry = result.output
  const flow = entry.flow_name ?? entry.flow
  if (!flow) throw new UserError(`Could not use ${where}: field "flow" is missing.`)
  if (!entry.name) throw new UserError(`Could not use ${where}: field "name" is missing.`)
  if (!entry.entrypoint && !readOwnCommand(entry)) {
    throw new UserError(`Could not use ${where}: field "entrypoint" is missing.`, {
      hint: 'It is `flow.py:function`, or the command to run.',
    })
  }
  const storage = readBlock(entry.storage, 'storage', where)
  const infrastructure = readBlock(entry.infrastructure, 'infrastructure', where)
  return {
    flow,
    storage,
    infrastructure,
    body: buildBody(entry.name, entry, readPath(entry, storage, infrastructure, folder), where),
  }
}

function refuseUnknownFields(value: Readonly<Record<string, unknown>>, where: string): void {
  for (const field of Object.keys(value)) {
    if (field in entries) continue
    const nearest = findNearest(field, Object.keys(entries))
    const hint = nearest ? `Did you mean "${nearest}"?` : 'docs/command-line.md lists the fields.'
    throw new UserError(`Could not use ${where}: field "${field}" is unknown.`, { hint })
  }
}

/** A command of the infrastructure's own needs no entrypoint. */
function readOwnCommand({ infrastructure }: Entry): unknown {
  return typeof infrastructure === 'string' || infrastructure?.command
}

/**
 * Where the code lies. Prefect's own files say it themselves. In the short form it is relative to the file when the agent
 * takes the code from this machine; with a storage block it is a path in there, and in a container it is the image's.
 */
function readPath(
  entry: Entry,
  storage: BlockPlan | undefined,
  infrastructure: BlockPlan | undefined,
  folder: string,
): string | null {
  const isShort = entry.flow_name === undefined || entry.flow_name === null
  const isLocal = infrastructure === undefined || (infrastructure.kind !== 'id' && infrastructure.slug === 'process')
  if (isShort && !storage && isLocal) return resolve(folder, entry.path ?? '.')
  return entry.path ?? null
}

function buildBody(name: string, entry: Entry, path: string | null, where: string): DeploymentPlan['body'] {
  const paused = entry.paused ?? (entry.is_schedule_active === false ? true : undefined)
  const schema = entry.parameter_openapi_schema
  return {
    name,
    entrypoint: entry.entrypoint ?? null,
    path,
    description: entry.description ?? null,
    version: entry.version ?? null,
    tags: entry.tags ?? [],
    parameters: entry.parameters ?? {},
    parameter_openapi_schema: schema ? withoutNulls(schema) : { type: 'object', properties: {} },
    // 3.x would hold parameters against a schema that nobody has written.
    enforce_parameter_schema: entry.enforce_parameter_schema ?? false,
    work_queue_name: entry.work_queue_name ?? entry.queue ?? (entry.work_pool_name || entry.pool ? null : 'default'),
    work_pool_name: entry.work_pool_name ?? entry.pool ?? null,
    job_variables: entry.infra_overrides ?? entry.job_variables ?? {},
    schedules: readSchedules(entry, where),
    ...(entry.pull_steps ? { pull_steps: entry.pull_steps } : {}),
    ...(paused === undefined ? {} : { paused }),
  }
}

/** Prefect 2 writes `required: null`, which is no JSON schema, and does not send it. */
function withoutNulls(schema: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== null))
}

/** `slug/name`, or the fields of a block as Prefect 2 writes them, with its marks in keys that begin with `_`. */
function readBlock(value: Entry['storage'], field: string, where: string): BlockPlan | undefined {
  if (value === null || value === undefined) return undefined
  if (typeof value === 'string') {
    const [slug, name, ...rest] = value.split('/')
    if (slug && name && rest.length === 0) return { kind: 'named', slug, name }
    throw new UserError(`Could not use ${where}: field "${field}" is "${value}", but block-type/name was expected.`)
  }
  const { _block_document_id: id, _block_document_name: name, _is_anonymous: isAnonymous, ...fields } = value
  const { block_type_slug: plainSlug, _block_type_slug: markedSlug, ...data } = fields
  const slug = plainSlug ?? markedSlug ?? data.type
  if (typeof slug !== 'string' || slug === '') {
    throw new UserError(`Could not use ${where}: field "${field}" does not say its block type.`, {
      hint: 'Give it a "type", such as process, docker-container or kubernetes-job.',
    })
  }
  if (isAnonymous !== true && typeof name === 'string') return { kind: 'named', slug, name }
  // One of the deployment's own that the server has already: its fields here are for people, and its secrets are masked.
  if (typeof id === 'string') return { kind: 'id', id }
  return { kind: 'anonymous', slug, data }
}
