// Reads again what a run's block says, for drivers that meet a run of an earlier life: records hold no block data.

import { InfrastructureError } from '../infrastructure/infrastructure.ts'
import { LaunchError } from '../launch/errors.ts'
import { deploymentOverrides, readInfrastructureBlock } from '../launch/infrastructure-block.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { ApiError } from '../prefect/errors.ts'
import { AssignmentError, readAssignment, SharedReads } from './assignment.ts'
import type { RunReader } from './reader.ts'

export type ReadSettings = (
  flowRunId: string,
  signal: AbortSignal,
) => Promise<Readonly<Record<string, unknown>> | undefined>

/**
 * Undefined when run, deployment or block are gone or no longer fit. Rejects with an InfrastructureError when the server
 * could not be asked.
 */
export function createReadSettings(client: PrefectClient, reader: RunReader): ReadSettings {
  return async (flowRunId, signal) => {
    try {
      const run = await reader.read(flowRunId, 'look')
      if (!run) return undefined
      const { deployment, infrastructure } = await readAssignment(client, run, new SharedReads(), signal)
      return readInfrastructureBlock(infrastructure, deploymentOverrides(deployment)).settings
    } catch (error) {
      if (error instanceof AssignmentError || error instanceof LaunchError) return undefined
      if (!(error instanceof ApiError)) throw error
      throw new InfrastructureError('Could not read the block of an earlier run', { blame: 'host', cause: error })
    }
  }
}
