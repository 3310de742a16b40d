// What we send: the bodies of filters and of new things, in Prefect's own words. Servers answer 422 to keys they do not know.

import type { StateType } from './types.ts'

export interface Page {
  /** At most 200, which is also the server's default. */
  readonly limit?: number
  readonly offset?: number
}

/** Body of `POST /flow_runs/filter` and its kin. An empty `any_` matches nothing, an empty `not_any_` excludes nothing. */
export interface FlowRunsFilter extends Page {
  readonly flows?: { readonly id?: AnyOf; readonly name?: AnyOf }
  readonly flow_runs?: {
    readonly id?: AnyOf & { readonly not_any_?: readonly string[] }
    readonly name?: AnyOf & { readonly like_?: string }
    readonly state?: { readonly type?: { readonly any_: readonly StateType[] }; readonly name?: AnyOf }
    readonly deployment_id?: AnyOf
    readonly work_queue_name?: AnyOf
    /** ISO times. */
    readonly expected_start_time?: { readonly before_?: string; readonly after_?: string }
    readonly next_scheduled_start_time?: { readonly before_?: string; readonly after_?: string }
    readonly tags?: { readonly all_: readonly string[] }
  }
  readonly deployments?: { readonly id?: AnyOf; readonly name?: AnyOf }
  readonly work_pools?: { readonly id?: AnyOf; readonly name?: AnyOf }
  readonly work_pool_queues?: {
    readonly id?: AnyOf
    readonly name?: AnyOf & { readonly startswith_?: readonly string[] }
  }
  readonly sort?:
    | 'ID_DESC'
    | 'START_TIME_ASC'
    | 'START_TIME_DESC'
    | 'EXPECTED_START_TIME_ASC'
    | 'EXPECTED_START_TIME_DESC'
    | 'NEXT_SCHEDULED_START_TIME_ASC'
    | 'END_TIME_DESC'
}

export interface AnyOf {
  readonly any_?: readonly string[]
}

export interface DeploymentsFilter extends Page {
  readonly flows?: { readonly id?: AnyOf; readonly name?: AnyOf }
  readonly deployments?: { readonly id?: AnyOf; readonly name?: AnyOf; readonly work_queue_name?: AnyOf }
}

export interface FlowsFilter extends Page {
  readonly flows?: { readonly id?: AnyOf; readonly name?: AnyOf }
}

export interface WorkQueuesFilter extends Page {
  readonly work_queues?: { readonly id?: AnyOf; readonly name?: AnyOf & { readonly startswith_?: readonly string[] } }
}

/** Body of `POST /deployments/`, which updates one of the same flow and name. */
export interface NewDeployment {
  readonly name: string
  readonly flow_id: string
  readonly entrypoint?: string | null
  readonly path?: string | null
  readonly description?: string | null
  readonly version?: string | null
  readonly tags?: readonly string[]
  readonly parameters?: Readonly<Record<string, unknown>>
  readonly parameter_openapi_schema?: Readonly<Record<string, unknown>>
  readonly enforce_parameter_schema?: boolean
  readonly pull_steps?: readonly unknown[] | null
  readonly work_queue_name?: string | null
  readonly work_pool_name?: string | null
  readonly storage_document_id?: string | null
  readonly infrastructure_document_id?: string | null
  /** 2.20 takes this name too, though it answers with `infra_overrides`. */
  readonly job_variables?: Readonly<Record<string, unknown>>
  readonly schedules?: readonly unknown[]
  readonly paused?: boolean
}

/** Body of `POST /deployments/{id}/create_flow_run`; without a state the run is due at once. */
export interface NewFlowRun {
  readonly name?: string
  readonly parameters?: Readonly<Record<string, unknown>>
  readonly tags?: readonly string[]
  readonly context?: Readonly<Record<string, unknown>>
  readonly state?: { readonly type: StateType; readonly state_details?: { readonly scheduled_time: string } }
  readonly idempotency_key?: string
  readonly work_queue_name?: string
  readonly job_variables?: Readonly<Record<string, unknown>>
}

export interface NewWorkQueue {
  readonly name: string
  readonly description?: string | null
  readonly is_paused?: boolean
  readonly concurrency_limit?: number | null
  readonly priority?: number | null
}

/** Only what is given is changed. */
export interface FlowRunUpdate {
  readonly infrastructure_pid?: string
  readonly empirical_policy?: Readonly<Record<string, unknown>>
  readonly name?: string
  readonly tags?: readonly string[]
}

/** `level` is Python's number: 10 debug, 20 info, 30 warning, 40 error, 50 critical. */
export interface NewLog {
  readonly name: string
  readonly level: number
  readonly message: string
  /** ISO time. */
  readonly timestamp: string
  readonly flow_run_id?: string
  readonly task_run_id?: string
}

export interface LogsFilter extends Page {
  readonly logs: {
    readonly flow_run_id?: AnyOf
    readonly level?: { readonly ge_?: number; readonly le_?: number }
    /** ISO times. */
    readonly timestamp?: { readonly before_?: string; readonly after_?: string }
  }
  readonly sort?: 'TIMESTAMP_ASC' | 'TIMESTAMP_DESC'
}

export interface BlockDocumentUpdate {
  readonly block_schema_id?: string
  readonly data?: Readonly<Record<string, unknown>>
  /** False: what is not in `data` is removed. */
  readonly merge_existing_data?: boolean
}

export interface NewBlockType {
  readonly name: string
  readonly slug: string
  readonly description?: string
}

export interface NewBlockSchema {
  readonly block_type_id: string
  readonly fields: Readonly<Record<string, unknown>>
  readonly capabilities?: readonly string[]
  readonly version?: string
}

export interface NewBlockDocument {
  /** Left out for an anonymous one. */
  readonly name?: string
  readonly is_anonymous?: boolean
  readonly block_type_id: string
  readonly block_schema_id: string
  readonly data: Readonly<Record<string, unknown>>
}
