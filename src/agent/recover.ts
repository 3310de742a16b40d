// Claims of ours that the journal cannot tell us about: a record that cannot be read, or one that is gone altogether.
// Nothing is started here: what lives is adopted, what does not is reported or given back.

import type { Logger } from '../logger.ts'
import type { FlowRun } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { readAssignment, SharedReads } from './assignment.ts'
import { attemptOf, type Identity, isOurs } from './identity.ts'
import { replay } from './outbox.ts'
import { type Ending, newRecord, type RunRecord } from './record.ts'

/** An agent of our name may have claimed it a moment ago, in a state folder that we do not see. */
const orphanAgeMs = 60_000

/**
 * The run's folder is there, its record cannot be read. Asks server and infrastructure by the run's id; undefined when the
 * run is none of ours (any more).
 */
export async function recoverRecord(
  context: AgentContext,
  identity: Identity,
  flowRunId: string,
  signal: AbortSignal,
): Promise<RunRecord | undefined> {
  return replay('recovery', context, signal, async () => {
    const run = await context.reader.read(flowRunId, 'look')
    if (!run) return { done: undefined }
    const transitionId = await findOurClaim(context, identity, run, signal)
    if (!transitionId) return { done: undefined }
    const record = buildRecord(run, transitionId)
    const type = await readInfrastructureType(context, run, signal)
    const infrastructure = await context.infrastructure(type)
    const attempt = { flowRunId, transitionId, attempt: attemptOf(transitionId) }
    const handle = await infrastructure.reattach(attempt, undefined, signal)
    const known: RunRecord = { ...record, infrastructureType: type, reports: 'engine' }
    return { done: handle ? { ...known, step: 'running', handle } : { ...known, step: 'ended', ending: endingOf(run) } }
  })
}

/** Claims of this agent, by name, that stand on the server and in no journal: their state folder was lost. */
export async function findOrphans(
  context: AgentContext,
  identity: Identity,
  workQueueIds: readonly string[],
  isKnown: (flowRunId: string) => boolean,
  logger: Logger,
  signal: AbortSignal,
): Promise<RunRecord[]> {
  if (workQueueIds.length === 0) return []
  const filter = {
    flow_runs: { state: { type: { any_: ['PENDING' as const] } } },
    work_pool_queues: { id: { any_: workQueueIds } },
    limit: 200,
  }
  const runs = await context.client.readFlowRuns(filter, signal)
  const now = context.client.serverNow().getTime()
  return runs.flatMap(run => {
    const transitionId = run.state?.state_details?.transition_id
    if (!transitionId || !isOurs(identity, transitionId) || isKnown(run.id)) return []
    if (now - Date.parse(run.state?.timestamp ?? '') < orphanAgeMs) return []
    logger.warn(
      { flow_run_id: run.id },
      'found a claim of ours that no journal remembers; putting its former state back',
    )
    return [{ ...buildRecord(run, transitionId), step: 'ended', ending: endingOf(run) }]
  })
}

/** A claim that nobody remembers may also have been made from an old answer: what it has replaced is put back. */
function endingOf(run: FlowRun): Ending {
  if (run.state_type === 'PENDING') return { kind: 'restore' }
  const reason = 'the agent that had claimed it has lost its record'
  return {
    kind: 'exit',
    exit: { kind: 'vanished', reason: `${reason}, and nothing of it was found running`, outputTail: [] },
  }
}

/** The transition id of our last claim of this run, from its present state or its history. */
async function findOurClaim(
  context: AgentContext,
  identity: Identity,
  run: FlowRun,
  signal: AbortSignal,
): Promise<string | undefined> {
  const now = run.state?.state_details?.transition_id
  if (run.state_type === 'PENDING') return now && isOurs(identity, now) ? now : undefined
  const states = await context.client.readFlowRunStates(run.id, signal)
  const claim = states.findLast(state => state.type === 'PENDING')?.state_details?.transition_id
  return claim && isOurs(identity, claim) ? claim : undefined
}

async function readInfrastructureType(context: AgentContext, run: FlowRun, signal: AbortSignal): Promise<string> {
  const { infrastructure } = await readAssignment(context.client, run, new SharedReads(), signal)
  return infrastructure?.block_schema?.block_type?.slug ?? infrastructure?.block_type?.slug ?? 'process'
}

function buildRecord(run: FlowRun, transitionId: string): RunRecord {
  return { ...newRecord(run, transitionId), step: 'submitting' }
}
