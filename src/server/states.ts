// States of flow runs and task runs, as they are sent and kept.

import * as v from 'valibot'
import { optionalBoolean, optionalText, time, uuid } from './requests.ts'

export const STATE_TYPES = [
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
export type StateType = (typeof STATE_TYPES)[number]

const TERMINAL: ReadonlySet<StateType> = new Set(['COMPLETED', 'CANCELLED', 'FAILED', 'CRASHED'])

export function isTerminal(type: StateType | null | undefined): boolean {
  return type !== null && type !== undefined && TERMINAL.has(type)
}

/** Unknown details are dropped, as Prefect's server does; unknown keys of the state itself are refused. */
export const StateDetails = v.object({
  flow_run_id: v.nullish(uuid, null),
  task_run_id: v.nullish(uuid, null),
  child_flow_run_id: v.nullish(uuid, null),
  scheduled_time: v.nullish(time, null),
  cache_key: optionalText,
  cache_expiration: v.nullish(time, null),
  untrackable_result: v.nullish(v.boolean(), false),
  pause_timeout: v.nullish(time, null),
  pause_reschedule: v.nullish(v.boolean(), false),
  pause_key: optionalText,
  run_input_keyset: v.nullish(v.record(v.string(), v.string()), null),
  refresh_cache: optionalBoolean,
  retriable: optionalBoolean,
  transition_id: v.nullish(uuid, null),
  task_parameters_id: v.nullish(uuid, null),
})
export type StateDetails = v.InferOutput<typeof StateDetails>

/** What a client proposes. Its `id` and `timestamp` are allowed and ignored. */
export const StateCreate = v.strictObject({
  type: v.picklist(STATE_TYPES),
  name: optionalText,
  message: optionalText,
  data: v.optional(v.unknown()),
  state_details: v.nullish(StateDetails),
  id: v.optional(v.unknown()),
  timestamp: v.optional(v.unknown()),
})

/** A state that is not written yet. */
export interface Proposal {
  readonly type: StateType
  readonly name: string
  readonly message: string | null
  readonly data: unknown
  readonly state_details: StateDetails
}

export interface State extends Proposal {
  readonly id: string
  readonly timestamp: string
}

const NO_DETAILS: StateDetails = v.parse(StateDetails, {})

/** Fills in what a proposal leaves open: the name of its type, and for SCHEDULED the time, which is then `now`. */
export function buildProposal(
  given: {
    readonly type: StateType
    readonly name?: string | null
    readonly message?: string | null
    readonly data?: unknown
    readonly state_details?: Partial<StateDetails> | null | undefined
  },
  now: string,
): Proposal {
  const details = { ...NO_DETAILS, ...given.state_details }
  return {
    type: given.type,
    name: given.name || given.type[0] + given.type.slice(1).toLowerCase(),
    message: given.message ?? null,
    data: given.data ?? null,
    state_details: {
      ...details,
      scheduled_time: details.scheduled_time ?? (given.type === 'SCHEDULED' ? now : null),
    },
  }
}
