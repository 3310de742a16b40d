// Claims of ours that the journal cannot tell us about: a record that cannot be read, or one that is gone altogether.
// Nothing is started here: what lives is adopted, what does not is reported or given back.

import type { FlowRun } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { readAssignment, SharedReads } from './assignment.ts'
import { attemptOf, type Identity, isOurs } from './identity.ts'
import { replay } from './outbox.ts'
import { type Ending, newRecord, type RunRecord } from './record.ts'
import { isBelated } from './standing.ts'

/** An agent of our name may have claimed it a moment ago, in a state folder that we do not see. */
const orphanAgeMs = 60_000
/** The most that a server gives at once. */
const pageSize = 200

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

/**
 * Proposals of this agent, by name, that stand on the server and in no journal: claims of a state folder that was lost, and
 * what was carried out when its run had long been reported.
 */
export async function findOrphans(
  context: AgentContext,
  identity: Identity,
  workQueueIds: readonly string[],
  isKnown: (flowRunId: string) => boolean,
  signal: AbortSignal,
): Promise<RunRecord[]> {
  if (workQueueIds.length === 0) return []
  const now = context.client.serverNow().getTime()
  const records: RunRecord[] = []
  for (let offset = 0; ; offset += pageSize) {
    const filter = {
      flow_runs: { state: { type: { any_: ['PENDING' as const, 'RUNNING' as const] } } },
      work_pool_queues: { id: { any_: workQueueIds } },
      limit: pageSize,
      offset,
    }
    const runs = await context.client.readFlowRuns(filter, signal)
    for (const run of runs) {
      if (isKnown(run.id) || !isOurs(identity, run.state?.state_details?.transition_id)) continue
      if (now - Date.parse(run.state?.timestamp ?? '') < orphanAgeMs) continue
      const transitionId = await findForgotten(context, identity, run, signal)
      if (transitionId === undefined) continue
      const fields = { flow_run_id: run.id, state: run.state_name }
      context.logger.warn(fields, 'found a state of ours that no journal remembers; putting the former state back')
      records.push({ ...buildRecord(run, transitionId), step: 'ended', ending: { kind: 'restore' } })
    }
    if (runs.length < pageSize) return records
  }
}

/**
 * The transition id of the claim to which the run's present state belongs, when it is certain that nothing of it runs.
 * RUNNING alone proves nothing: an agent of our name may have the run, in a state folder that we do not see.
 */
async function findForgotten(
  context: AgentContext,
  identity: Identity,
  run: FlowRun,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (run.state_type === 'PENDING') return run.state?.state_details?.transition_id ?? undefined
  const states = await context.client.readFlowRunStates(run.id, signal)
  const claims = states.filter(state => state.type === 'PENDING').map(state => state.state_details.transition_id ?? '')
  return claims.find(claim => isOurs(identity, claim) && isBelated(claim, run, states))
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
