// What the tests of the API client share: a client that repeats quickly and whose log can be read, and a run to work on.

import assert from 'node:assert/strict'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import { ApiError } from '../../src/prefect/errors.ts'
import type { ClientOptions } from '../../src/prefect/options.ts'
import type { FlowRun, State, WorkQueue } from '../../src/prefect/types.ts'

/** For calls that nothing is to interrupt. */
export const never = new AbortController().signal

export interface LoggedClient extends AsyncDisposable {
  readonly client: PrefectClient
  /** Log lines, JSON. */
  readonly lines: readonly string[]
}

export function makeClient(url: string, options: Partial<ClientOptions> = {}): LoggedClient {
  const lines: string[] = []
  const logger = createLogger({ level: 'DEBUG', pretty: false, destination: { write: line => void lines.push(line) } })
  const client = new PrefectClient({ url, version: '0.0.0', requestTimeoutSeconds: 20, ...options, logger })
  return { client, lines, [Symbol.asyncDispose]: () => client[Symbol.asyncDispose]() }
}

/** A flow, a deployment on a queue of its own, and one run of it that is due. */
export async function makeRun(client: PrefectClient, name: string): Promise<{ run: FlowRun; queue: WorkQueue }> {
  const queue = (await client.readWorkQueueByName(name, never)) ?? (await client.createWorkQueue({ name }, never))
  const flow = await client.createFlow(name, never)
  const deployment = await client.createDeployment(
    { name, flow_id: flow.id, work_queue_name: name, entrypoint: 'flow.py:flow' },
    never,
  )
  return { run: await client.createFlowRunFromDeployment(deployment.id, {}, never), queue }
}

/** Types of the states that a run has been through; that it was called late, where all this takes time, is none of them. */
export function typesOf(states: readonly State[]): readonly State['type'][] {
  return states.filter(({ name }) => name !== 'Late').map(({ type }) => type)
}

/** What a call that must fail failed with. */
export async function failure(call: Promise<unknown>): Promise<ApiError> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  assert.ok(error instanceof ApiError, `expected an ApiError, got ${String(error)}`)
  return error
}
