// What a deployment that is built again keeps of itself, as the server has it: what was not said this time.
//
// As Prefect 2.20 (deployments/deployments.py, `load`, with what its command always sets): description, tags, parameters,
// schedules, queue and pool, infrastructure. Version, overrides, storage and path are those of this call.

import * as v from 'valibot'
import type { PrefectClient } from '../prefect/client.ts'
import type { BlockDocument, Deployment } from '../prefect/types.ts'

export interface Kept {
  readonly deployment: Deployment
  readonly infrastructure: BlockDocument | undefined
  /** In the form of a deployment file, which knows less of a schedule than the server. */
  readonly schedules: readonly unknown[]
}

const Schedule = v.object({ schedule: v.unknown(), active: v.nullish(v.boolean(), true) })

/** Undefined when the server has no such deployment. */
export async function readKept(
  client: PrefectClient,
  flow: string,
  name: string,
  signal: AbortSignal,
): Promise<Kept | undefined> {
  const deployment = await client.readDeploymentByName(flow, name, signal)
  if (!deployment) return undefined
  const id = deployment.infrastructure_document_id
  return {
    deployment,
    infrastructure: id === null ? undefined : await client.readBlockDocument(id, signal),
    schedules: (deployment.schedules ?? []).map(schedule => v.parse(Schedule, schedule)),
  }
}
