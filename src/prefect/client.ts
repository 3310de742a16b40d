// The orchestration API as we use it: one method per call, under Prefect's own names.
//
// In: ids, filters, states. Out: values by the schemas of types.ts; undefined where Prefect says that a thing does not
// exist; an ApiError for all else. How often a call may be repeated is decided here, per method.

import { randomUUID } from 'node:crypto'
import * as v from 'valibot'
import { Api, type Call } from './api.ts'
import { undefinedIfNotFound } from './errors.ts'
import type { Health } from './health.ts'
import type { ClientOptions } from './options.ts'
import { proposeState } from './propose-state.ts'
import type * as to from './requests.ts'
import type { ProposedState } from './states.ts'
import {
  BlockDocument,
  BlockSchema,
  BlockType,
  Deployment,
  Flow,
  FlowRun,
  Log,
  type OrchestrationResult,
  State,
  Variable,
  WorkQueue,
} from './types.ts'

/** Where `POST /work_queues/` puts queues of agents (server/models/work_queues.py). */
const AGENT_POOL = 'default-agent-pool'
const PAGE_SIZE = 100

export class PrefectClient implements AsyncDisposable {
  readonly #api: Api

  /** Opens no connection yet. Throws UserError for options that cannot be used. */
  constructor(options: ClientOptions) {
    this.#api = new Api(options)
  }

  get health(): Health {
    return this.#api.health
  }

  /** Requests sent so far by route template (`POST /flow_runs/{id}/set_state`), repeats counted. */
  get calls(): ReadonlyMap<string, number> {
    return this.#api.calls
  }

  /** Now by the server's clock; by ours until it has answered, or while the two may well agree. */
  serverNow(): Date {
    return this.#api.serverNow()
  }

  /** Cuts what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#api[Symbol.asyncDispose]()
  }

  /** The server's version, such as `2.20.25`. */
  async readVersion(signal: AbortSignal): Promise<string> {
    return await this.#api.call({ route: 'GET /admin/version', schema: v.string(), retry: 'safe' }, signal)
  }

  // Flow runs

  async readFlowRun(id: string, signal: AbortSignal): Promise<FlowRun | undefined> {
    return await this.#find({ route: 'GET /flow_runs/{id}', params: { id }, schema: FlowRun }, signal)
  }

  async readFlowRuns(filter: to.FlowRunsFilter, signal: AbortSignal): Promise<FlowRun[]> {
    return await this.#list({ route: 'POST /flow_runs/filter', body: filter, schema: FlowRun }, signal)
  }

  /** Oldest first. */
  async readFlowRunStates(flowRunId: string, signal: AbortSignal): Promise<State[]> {
    const query = { flow_run_id: flowRunId }
    return await this.#list({ route: 'GET /flow_run_states/', query, schema: State }, signal)
  }

  async updateFlowRun(id: string, update: to.FlowRunUpdate, signal: AbortSignal): Promise<void> {
    await this.#write({ route: 'PATCH /flow_runs/{id}', params: { id }, body: update, schema: v.unknown() }, signal)
  }

  /**
   * Proposes a state, or forces it.
   * `claim`: the call is sent once, whatever happens; an ApiError with `mayHaveHappened: false` is as if it had not been made.
   * Otherwise a lost answer is looked up by the transition id before the call is repeated.
   */
  async setFlowRunState(
    id: string,
    state: ProposedState,
    { force = false, claim = false }: { readonly force?: boolean; readonly claim?: boolean },
    signal: AbortSignal,
  ): Promise<OrchestrationResult> {
    return await proposeState(this.#api, { id, state, force, claim }, signal)
  }

  /** Runs of a queue that are due before an ISO time, earliest first; undefined for an unknown queue. */
  async getRunsInWorkQueue(
    id: string,
    { limit, scheduledBefore }: { readonly limit?: number; readonly scheduledBefore?: string },
    signal: AbortSignal,
  ): Promise<FlowRun[] | undefined> {
    const body = { limit, scheduled_before: scheduledBefore }
    const route = 'POST /work_queues/{id}/get_runs'
    return await undefinedIfNotFound(this.#list({ route, params: { id }, body, schema: FlowRun }, signal))
  }

  // Deployments and flows

  async readDeployment(id: string, signal: AbortSignal): Promise<Deployment | undefined> {
    return await this.#find({ route: 'GET /deployments/{id}', params: { id }, schema: Deployment }, signal)
  }

  async readDeploymentByName(flow: string, deployment: string, signal: AbortSignal): Promise<Deployment | undefined> {
    const params = { flow, deployment }
    return await this.#find({ route: 'GET /deployments/name/{flow}/{deployment}', params, schema: Deployment }, signal)
  }

  async readDeployments(filter: to.DeploymentsFilter, signal: AbortSignal): Promise<Deployment[]> {
    return await this.#list({ route: 'POST /deployments/filter', body: filter, schema: Deployment }, signal)
  }

  /** Creates it, or updates the one of the same flow and name. */
  async createDeployment(deployment: to.NewDeployment, signal: AbortSignal): Promise<Deployment> {
    return await this.#write({ route: 'POST /deployments/', body: deployment, schema: Deployment }, signal)
  }

  async createFlowRunFromDeployment(deploymentId: string, run: to.NewFlowRun, signal: AbortSignal): Promise<FlowRun> {
    // With a key the server gives the same run to a repeated call.
    const body = { idempotency_key: randomUUID(), ...run }
    const route = 'POST /deployments/{id}/create_flow_run'
    return await this.#write({ route, params: { id: deploymentId }, body, schema: FlowRun }, signal)
  }

  async readFlow(id: string, signal: AbortSignal): Promise<Flow | undefined> {
    return await this.#find({ route: 'GET /flows/{id}', params: { id }, schema: Flow }, signal)
  }

  async readFlows(filter: to.FlowsFilter, signal: AbortSignal): Promise<Flow[]> {
    return await this.#list({ route: 'POST /flows/filter', body: filter, schema: Flow }, signal)
  }

  /** Creates it, or gives the one of that name. */
  async createFlow(name: string, signal: AbortSignal): Promise<Flow> {
    return await this.#write({ route: 'POST /flows/', body: { name }, schema: Flow }, signal)
  }

  // Work queues

  async readWorkQueue(id: string, signal: AbortSignal): Promise<WorkQueue | undefined> {
    return await this.#find({ route: 'GET /work_queues/{id}', params: { id }, schema: WorkQueue }, signal)
  }

  async readWorkQueueByName(name: string, signal: AbortSignal): Promise<WorkQueue | undefined> {
    return await this.#find({ route: 'GET /work_queues/name/{name}', params: { name }, schema: WorkQueue }, signal)
  }

  async readWorkQueues(filter: to.WorkQueuesFilter, signal: AbortSignal): Promise<WorkQueue[]> {
    return await this.#list({ route: 'POST /work_queues/filter', body: filter, schema: WorkQueue }, signal)
  }

  /** Throws ApiError 409 when one of that name exists; after a lost answer that may be our own. */
  async createWorkQueue(queue: to.NewWorkQueue, signal: AbortSignal): Promise<WorkQueue> {
    return await this.#write({ route: 'POST /work_queues/', body: queue, schema: WorkQueue }, signal)
  }

  async updateWorkQueue(id: string, update: Partial<to.NewWorkQueue>, signal: AbortSignal): Promise<void> {
    await this.#write({ route: 'PATCH /work_queues/{id}', params: { id }, body: update, schema: v.unknown() }, signal)
  }

  /**
   * All queues whose names begin with one of the prefixes; none while no agent queue exists at all.
   * The server compares as SQL ILIKE does: any case, and `_` and `%` stand for other characters, as for Prefect's agent.
   */
  async matchWorkQueues(prefixes: readonly string[], signal: AbortSignal): Promise<WorkQueue[]> {
    if (prefixes.length === 0) return []
    const found = new Map<string, WorkQueue>()
    for (let offset = 0; ; offset += PAGE_SIZE) {
      const body = { work_queues: { name: { startswith_: prefixes } }, limit: PAGE_SIZE, offset }
      const route = 'POST /work_pools/{pool}/queues/filter'
      const call = { route, params: { pool: AGENT_POOL }, body, schema: WorkQueue } as const
      const page = await undefinedIfNotFound(this.#api.list(call, signal))
      for (const queue of page?.items ?? []) found.set(queue.id, queue)
      if (page === undefined || page.received < PAGE_SIZE) return [...found.values()]
    }
  }

  // Blocks

  /** With its secrets in clear: never log it. */
  async readBlockDocument(id: string, signal: AbortSignal): Promise<BlockDocument | undefined> {
    const query = { include_secrets: 'true' }
    return await this.#find(
      { route: 'GET /block_documents/{id}', params: { id }, query, schema: BlockDocument },
      signal,
    )
  }

  /** With its secrets in clear: never log it. */
  async readBlockDocumentByName(slug: string, name: string, signal: AbortSignal): Promise<BlockDocument | undefined> {
    const route = 'GET /block_types/slug/{slug}/block_documents/name/{name}'
    const query = { include_secrets: 'true' }
    return await this.#find({ route, params: { slug, name }, query, schema: BlockDocument }, signal)
  }

  /** With its secrets masked by the server. */
  async readMaskedBlockDocumentByName(
    slug: string,
    name: string,
    signal: AbortSignal,
  ): Promise<BlockDocument | undefined> {
    const route = 'GET /block_types/slug/{slug}/block_documents/name/{name}'
    return await this.#find({ route, params: { slug, name }, schema: BlockDocument }, signal)
  }

  /** Those that have a name, secrets masked. */
  async readNamedBlockDocuments(page: to.Page, signal: AbortSignal): Promise<BlockDocument[]> {
    const body = { ...page, include_secrets: false, block_documents: { is_anonymous: { eq_: false } } }
    return await this.#list({ route: 'POST /block_documents/filter', body, schema: BlockDocument }, signal)
  }

  async updateBlockDocument(id: string, document: to.BlockDocumentUpdate, signal: AbortSignal): Promise<void> {
    const call = { route: 'PATCH /block_documents/{id}', params: { id }, body: document, schema: v.unknown() } as const
    await this.#write(call, signal)
  }

  async deleteBlockDocument(id: string, signal: AbortSignal): Promise<void> {
    await undefinedIfNotFound(
      this.#write({ route: 'DELETE /block_documents/{id}', params: { id }, schema: v.unknown() }, signal),
    )
  }

  async readBlockTypes(page: to.Page, signal: AbortSignal): Promise<BlockType[]> {
    return await this.#list({ route: 'POST /block_types/filter', body: page, schema: BlockType }, signal)
  }

  /** The answer has its secrets masked. Throws ApiError 409 when the name is taken. */
  async createBlockDocument(document: to.NewBlockDocument, signal: AbortSignal): Promise<BlockDocument> {
    return await this.#write({ route: 'POST /block_documents/', body: document, schema: BlockDocument }, signal)
  }

  async readBlockTypeBySlug(slug: string, signal: AbortSignal): Promise<BlockType | undefined> {
    return await this.#find({ route: 'GET /block_types/slug/{slug}', params: { slug }, schema: BlockType }, signal)
  }

  /** Throws ApiError 409 when the slug is taken. */
  async createBlockType(type: to.NewBlockType, signal: AbortSignal): Promise<BlockType> {
    return await this.#write({ route: 'POST /block_types/', body: type, schema: BlockType }, signal)
  }

  /** Schemas of a block type, newest first. */
  async readBlockSchemas(blockTypeId: string, signal: AbortSignal): Promise<BlockSchema[]> {
    const body = { block_schemas: { block_type_id: { any_: [blockTypeId] } } }
    return await this.#list({ route: 'POST /block_schemas/filter', body, schema: BlockSchema }, signal)
  }

  /** Creates it, or gives the one with the same fields. */
  async createBlockSchema(schema: to.NewBlockSchema, signal: AbortSignal): Promise<BlockSchema> {
    return await this.#write({ route: 'POST /block_schemas/', body: schema, schema: BlockSchema }, signal)
  }

  // Variables

  async readVariableByName(name: string, signal: AbortSignal): Promise<Variable | undefined> {
    return await this.#find({ route: 'GET /variables/name/{name}', params: { name }, schema: Variable }, signal)
  }

  // Logs

  /** A batch of lines; after a lost answer they may stand there twice, which is better than not at all. */
  async createLogs(logs: readonly to.NewLog[], signal: AbortSignal): Promise<void> {
    await this.#write({ route: 'POST /logs/', body: logs, schema: v.unknown() }, signal)
  }

  async readLogs(filter: to.LogsFilter, signal: AbortSignal): Promise<Log[]> {
    return await this.#list({ route: 'POST /logs/filter', body: filter, schema: Log }, signal)
  }

  async #find<T>(call: Omit<Call<T>, 'retry'>, signal: AbortSignal): Promise<T | undefined> {
    return await undefinedIfNotFound(this.#api.call({ ...call, retry: 'safe' }, signal))
  }

  async #list<T>(call: Omit<Call<T>, 'retry'>, signal: AbortSignal): Promise<T[]> {
    return (await this.#api.list(call, signal)).items
  }

  /** A write that gives the same result when it is made twice. */
  async #write<T>(call: Omit<Call<T>, 'retry'>, signal: AbortSignal): Promise<T> {
    return await this.#api.call({ ...call, retry: 'safe' }, signal)
  }
}
