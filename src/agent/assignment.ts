// Everything that the server knows of what a claimed run is: its deployment, flow, and the two blocks.
//
// In a burst of one deployment these are read once for all runs of one poll answer, from the moment when the first of them
// is claimed; never longer, for a block may hold yesterday's secret.

import type { PrefectClient } from '../prefect/client.ts'
import type { BlockDocument, Deployment, Flow, FlowRun } from '../prefect/types.ts'

export interface Assignment {
  readonly deployment: Deployment
  /** Read only for infrastructure that outsiders look at by label; undefined for a process. */
  readonly flow: Flow | undefined
  readonly infrastructure: BlockDocument | undefined
  readonly storage: BlockDocument | undefined
}

/** The server does not know, or does not say, what this run is: nothing that another try would mend. */
export class AssignmentError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'AssignmentError'
  }
}

/** Reads that are made once, by id, for all who ask; one that fails is not kept. Their signal must be nobody's alone. */
class Once<T> {
  readonly #reads = new Map<string, Promise<T>>()

  read(id: string, read: () => Promise<T>): Promise<T> {
    const known = this.#reads.get(id)
    if (known) return known
    const fresh = read()
    this.#reads.set(id, fresh)
    fresh.catch(() => this.#reads.delete(id))
    return fresh
  }
}

/** What the runs of one poll answer share. */
export class SharedReads {
  readonly deployments = new Once<Deployment | undefined>()
  readonly flows = new Once<Flow | undefined>()
  readonly blocks = new Once<BlockDocument | undefined>()
}

/** Throws AssignmentError when the run cannot be started by anybody, ApiError when the server could not be asked. */
export async function readAssignment(
  client: PrefectClient,
  run: Pick<FlowRun, 'deployment_id'>,
  shared: SharedReads,
  signal: AbortSignal,
): Promise<Assignment> {
  const { deployment_id } = run
  if (deployment_id === null) throw new AssignmentError('The flow run has no deployment, so nobody knows what to run.')
  const deployment = await shared.deployments.read(deployment_id, () => client.readDeployment(deployment_id, signal))
  if (!deployment) throw new AssignmentError('The deployment of this flow run has been deleted.')
  const [infrastructure, storage] = await Promise.all([
    readBlock(client, 'infrastructure', deployment.infrastructure_document_id, shared, signal),
    readBlock(client, 'storage', deployment.storage_document_id, shared, signal),
  ])
  const isProcess = !infrastructure || infrastructure.block_type?.slug === 'process'
  const flow = isProcess
    ? undefined
    : await shared.flows.read(deployment.flow_id, () => client.readFlow(deployment.flow_id, signal))
  return { deployment, flow, infrastructure, storage }
}

async function readBlock(
  client: PrefectClient,
  purpose: string,
  id: string | null,
  shared: SharedReads,
  signal: AbortSignal,
): Promise<BlockDocument | undefined> {
  if (id === null) return undefined
  const block = await shared.blocks.read(id, () => client.readBlockDocument(id, signal))
  if (!block) throw new AssignmentError(`The ${purpose} block of the deployment (${id}) has been deleted.`)
  return block
}
