// Claims of ours that the journal cannot tell us about: a record that cannot be read, or one that is gone altogether.
// Nothing is started here: what lives is adopted, what does not is reported or given back.

import type { FlowRun, StateType } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { readAssignment, SharedReads } from './assignment.ts'
import { attemptOf, bearsOurName, type Identity, isOurClaim } from './identity.ts'
import { replay } from './outbox.ts'
import { type Ending, newRecord, type RunRecord } from './record.ts'
import { findLastClaim, isBelated } from './standing.ts'

/** The most that a server gives at once. */
const pageSize = 200
/** What a claim of ours that nobody remembers can have become. */
const mayBeForgotten: readonly StateType[] = ['PENDING', 'RUNNING', 'CANCELLING']

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
 * Claims that stand on the server, of this state folder, and not in its journal: what was carried out when its run had long
 * been reported. Nothing runs for them, for the folder has one agent at a time, which remembers all that it has started.
 *
 * Those of another folder under our name are left alone, however old they are: a command, an image that is pulled or a Job
 * without a node is Pending for as long as it likes, and only that folder's agent knows of it.
 */
export async function findOrphans(
  context: AgentContext,
  identity: Identity,
  workQueueIds: readonly string[],
  isKnown: (flowRunId: string) => boolean,
  signal: AbortSignal,
): Promise<RunRecord[]> {
  if (workQueueIds.length === 0) return []
  const records: RunRecord[] = []
  const namesakes: string[] = []
  for (let offset = 0; ; offset += pageSize) {
    const filter = {
      flow_runs: { state: { type: { any_: mayBeForgotten } } },
      work_pool_queues: { id: { any_: workQueueIds } },
      limit: pageSize,
      offset,
    }
    const runs = await context.client.readFlowRuns(filter, signal)
    for (const run of runs) {
      if (isKnown(run.id) || !mayBeOurs(identity, run)) continue
      const claim = await findForgotten(context, identity, run, signal)
      if (claim === undefined || !bearsOurName(identity, claim)) continue
      if (!isOurClaim(identity, claim)) {
        namesakes.push(run.id)
        continue
      }
      const fields = { flow_run_id: run.id, state: run.state_name }
      context.logger.warn(fields, 'found a claim of ours that no journal remembers; undoing it')
      records.push({ ...buildRecord(run, claim), step: 'ended', ending: { kind: 'restore' } })
    }
    if (runs.length < pageSize) break
  }
  complain(context, identity, namesakes)
  return records
}

function complain({ complaints }: AgentContext, { name }: Identity, flowRunIds: readonly string[]): void {
  const about = 'another state folder'
  if (flowRunIds.length === 0) {
    complaints.settle(about, 'no other state folder has claims of this name any more')
    return
  }
  complaints.say(about, 'an agent of this name has claimed flow runs with another state folder; leaving them alone', {
    agent: name,
    flow_run_ids: flowRunIds,
    hint: 'Two agents must not share a name. If that state folder is lost, end what is left of these runs and set their states by hand.',
  })
}

/** What cancels a run bears the name of whoever asked for that, so its history must tell. */
function mayBeOurs(identity: Identity, { state, state_type }: FlowRun): boolean {
  return state_type === 'CANCELLING' || bearsOurName(identity, state?.state_details?.transition_id)
}

/** The transition id of the claim that the run's present state belongs to: a belated one of ours, or its last. */
async function findForgotten(
  context: AgentContext,
  identity: Identity,
  run: FlowRun,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (run.state_type === 'PENDING') return run.state?.state_details?.transition_id ?? undefined
  const states = await context.client.readFlowRunStates(run.id, signal)
  const last = findLastClaim(states)
  if (run.state_type === 'CANCELLING') return last
  const claims = states.filter(state => state.type === 'PENDING').map(state => state.state_details.transition_id ?? '')
  const belated = claims.find(claim => isOurClaim(identity, claim) && isBelated(claim, run, states))
  // RUNNING of a claim of this folder that has not been reported was said by an engine, or is about to be forgotten.
  return belated ?? (isOurClaim(identity, last) ? undefined : last)
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
  if (run.state_type === 'PENDING') return isOurClaim(identity, now) ? (now ?? undefined) : undefined
  const states = await context.client.readFlowRunStates(run.id, signal)
  const claim = findLastClaim(states)
  return isOurClaim(identity, claim) ? claim : undefined
}

async function readInfrastructureType(context: AgentContext, run: FlowRun, signal: AbortSignal): Promise<string> {
  const { infrastructure } = await readAssignment(context.client, run, new SharedReads(), signal)
  return infrastructure?.block_schema?.block_type?.slug ?? infrastructure?.block_type?.slug ?? 'process'
}

function buildRecord(run: FlowRun, transitionId: string): RunRecord {
  return { ...newRecord(run, transitionId), step: 'submitting' }
}
