// What we read of Prefect's answers, exactly as sent: snake_case, null where the wire says null.
//
// Only fields that the program uses are listed; unknown ones are ignored, for servers add fields in every release.
// Shapes: chapter 12 of the protocol as served by 2.20.25 and 3.x.

import * as v from 'valibot'

const uuid = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, 'must be a UUID'),
)
const text = v.nullish(v.string(), null)
const anyObject = v.record(v.string(), v.unknown())
const object = v.nullish(anyObject, {})

export const stateTypes = [
  'SCHEDULED',
  'PENDING',
  'RUNNING',
  'COMPLETED',
  'FAILED',
  'CANCELLED',
  'CRASHED',
  'PAUSED',
  'CANCELLING',
] as const
export type StateType = (typeof stateTypes)[number]

export const StateDetails = v.looseObject({
  transition_id: v.nullish(v.string(), null),
  scheduled_time: v.nullish(v.string(), null),
})

export const State = v.object({
  id: v.nullish(v.string(), null),
  type: v.picklist(stateTypes),
  name: text,
  timestamp: text,
  message: text,
  data: v.optional(v.unknown()),
  state_details: v.nullish(StateDetails, {}),
})
export type State = v.InferOutput<typeof State>

export const FlowRun = v.object({
  id: uuid,
  name: v.string(),
  flow_id: uuid,
  deployment_id: v.nullish(uuid, null),
  work_queue_id: v.nullish(uuid, null),
  work_queue_name: text,
  work_pool_name: text,
  parameters: object,
  job_variables: object,
  tags: v.nullish(v.array(v.string()), []),
  state_type: v.nullish(v.picklist(stateTypes), null),
  state_name: text,
  state: v.nullish(State, null),
  run_count: v.nullish(v.number(), 0),
  expected_start_time: text,
  next_scheduled_start_time: text,
  start_time: text,
  end_time: text,
  auto_scheduled: v.nullish(v.boolean(), false),
  infrastructure_pid: text,
  /** With its other fields, for it can only be replaced whole. */
  empirical_policy: v.nullish(v.looseObject({ retry_type: text }), { retry_type: null }),
})
export type FlowRun = v.InferOutput<typeof FlowRun>

export const Flow = v.object({ id: uuid, name: v.string() })
export type Flow = v.InferOutput<typeof Flow>

export const Deployment = v.object({
  id: uuid,
  name: v.string(),
  flow_id: uuid,
  updated: text,
  description: text,
  version: text,
  path: text,
  entrypoint: text,
  manifest_path: text,
  pull_steps: v.nullish(v.array(v.unknown()), null),
  parameters: object,
  tags: v.nullish(v.array(v.string()), []),
  work_queue_name: text,
  work_pool_name: text,
  storage_document_id: v.nullish(uuid, null),
  infrastructure_document_id: v.nullish(uuid, null),
  infra_overrides: v.nullish(anyObject, null),
  job_variables: v.nullish(anyObject, null),
  schedules: v.nullish(v.array(v.unknown()), []),
  paused: v.nullish(v.boolean(), false),
  status: text,
})
export type Deployment = v.InferOutput<typeof Deployment>

export const WorkQueue = v.object({
  id: uuid,
  name: v.string(),
  description: text,
  is_paused: v.nullish(v.boolean(), false),
  concurrency_limit: v.nullish(v.number(), null),
  priority: v.nullish(v.number(), null),
  work_pool_name: text,
  last_polled: text,
  status: text,
})
export type WorkQueue = v.InferOutput<typeof WorkQueue>

export const BlockDocument = v.object({
  id: uuid,
  name: text,
  is_anonymous: v.nullish(v.boolean(), false),
  data: object,
  block_type_id: v.nullish(uuid, null),
  block_schema_id: v.nullish(uuid, null),
  block_type: v.nullish(v.object({ name: text, slug: v.string() }), null),
  block_schema: v.nullish(
    v.object({
      block_type: v.nullish(v.object({ slug: v.string() }), null),
      fields: v.optional(v.nullable(anyObject)),
    }),
    null,
  ),
})
export type BlockDocument = v.InferOutput<typeof BlockDocument>

export const BlockType = v.object({ id: uuid, name: v.string(), slug: v.string() })
export type BlockType = v.InferOutput<typeof BlockType>

export const BlockSchema = v.object({
  id: uuid,
  checksum: text,
  block_type_id: v.nullish(uuid, null),
  version: text,
  /** A JSON schema, with words of Prefect's own. */
  fields: v.nullish(anyObject, null),
})
export type BlockSchema = v.InferOutput<typeof BlockSchema>

/** A text in Prefect 2, any JSON value in 3. */
export const Variable = v.object({ name: v.string(), value: v.unknown() })
export type Variable = v.InferOutput<typeof Variable>

export const OrchestrationResult = v.object({
  state: v.nullish(State, null),
  status: v.picklist(['ACCEPT', 'REJECT', 'ABORT', 'WAIT']),
  details: v.nullish(v.looseObject({ reason: text, delay_seconds: v.nullish(v.number(), null) }), {
    reason: null,
    delay_seconds: null,
  }),
})
export type OrchestrationResult = v.InferOutput<typeof OrchestrationResult>

export const Log = v.object({
  name: v.string(),
  level: v.number(),
  message: v.string(),
  timestamp: v.string(),
  flow_run_id: v.nullish(uuid, null),
  task_run_id: v.nullish(uuid, null),
})
export type Log = v.InferOutput<typeof Log>
