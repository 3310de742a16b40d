// A flow run that the server does not know: was it deleted, or does another database answer?
//
// A server that is started without its volume, or restored from an old backup, says 404 like one that never had the run, and
// the agent creates its work queue there anew. So what is asked for is what the run came with, by id: no other database has it.

import type { PrefectClient } from '../prefect/client.ts'
import type { RunRecord } from './record.ts'

/** What it does not know is not lost: the server may get its own database back. */
export class OtherDatabaseError extends Error {
  constructor() {
    super(
      'The server knows neither this flow run nor the deployment and work queue that it came from: is it another database?',
    )
    this.name = 'OtherDatabaseError'
  }
}

/**
 * For a run that the server was just seen not to know: true when it was deleted, false when it is there after all.
 * Throws OtherDatabaseError when the server knows nothing of what the run came with; also of a record that does not name it.
 */
export async function isDeleted(client: PrefectClient, record: RunRecord, signal: AbortSignal): Promise<boolean> {
  if (!(await knowsOrigin(client, record, signal))) throw new OtherDatabaseError()
  // Asked after that: the database may have come back in between.
  return (await client.readFlowRun(record.flowRunId, signal)) === undefined
}

async function knowsOrigin(client: PrefectClient, { polled }: RunRecord, signal: AbortSignal): Promise<boolean> {
  const { deploymentId, workQueueId } = polled
  if (deploymentId && (await client.readDeployment(deploymentId, signal))) return true
  return Boolean(workQueueId && (await client.readWorkQueue(workQueueId, signal)))
}
