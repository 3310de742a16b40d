// Makes a due run ours, or leaves it: the intent on disk, then PENDING with a transition id that is in the record already.
// Two agents may try; the server lets one of them, and the transition id tells which.

import { ApiError } from '../prefect/errors.ts'
import { buildPending } from '../prefect/states.ts'
import type { FlowRun, OrchestrationResult } from '../prefect/types.ts'
import { readAssignment } from './assignment.ts'
import { JournalError } from './journal.ts'
import { replay } from './outbox.ts'
import { NotOurs, type Run } from './run.ts'
import { judgeStanding, readUntouched } from './standing.ts'

/**
 * Returns once the claim is a fact on disk: the run, if the claim's answer proves what it is, else undefined.
 * Throws NotOurs when the run is somebody else's, or there is no room for it.
 */
export async function claim(run: Run): Promise<FlowRun | undefined> {
  // One that was met by an error may have none yet.
  if (!run.isResumed || !run.context.journal.holds(run.id)) await begin(run)
  // An earlier life may have sent its claim just before it ended.
  const answer = run.isResumed ? undefined : await propose(run)
  run.pass('answered')
  const isOurs = answer ? judgeAnswer(run, answer) : await settle(run)
  if (!isOurs) throw new NotOurs()
  const isWritten = await noteClaimed(run)
  run.log.info('flow run claimed')
  const polled = run.takePolled()
  return isWritten && polled && answer?.state ? readUntouched(polled, answer.state) : undefined
}

/**
 * False when it could only be written after a while, by which the claim's answer has grown old. To give the run back
 * instead would take a record as well.
 */
async function noteClaimed(run: Run): Promise<boolean> {
  const record = { ...run.record, step: 'claimed' } as const
  try {
    await run.write(record)
    return true
  } catch (error) {
    if (!(error instanceof JournalError)) throw error
    run.context.trouble.note(error.message)
    await run.keep(record, 'quick')
    return false
  }
}

async function begin(run: Run): Promise<void> {
  run.pass('claiming:before')
  try {
    await run.context.journal.begin(run.record)
  } catch (error) {
    if (!(error instanceof JournalError)) throw error
    run.context.trouble.note(error.message)
    throw new NotOurs()
  }
  run.pass('claiming:after')
}

/** Undefined when nobody can tell whether the server has carried it out. */
async function propose(run: Run): Promise<OrchestrationResult | undefined> {
  const { client, turns } = run.context
  const state = buildPending({ transitionId: run.record.transitionId })
  try {
    const call = () => {
      readAhead(run)
      return client.setFlowRunState(run.id, state, { claim: true }, run.detach)
    }
    const answer = await turns.take('claim', call, run.detach)
    run.context.refusals.settle()
    return answer
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    run.log.debug({ err: error }, 'claim not answered')
    // Not even Prefect's own 503 is proof: a server also answers it for what goes wrong behind the transaction.
    if (error.mayHaveHappened || error.status === 503) return undefined
    noteRefusal(run, error)
    throw new NotOurs()
  }
}

/** The polls go on meanwhile, and would show the run as due each time. */
function noteRefusal({ context, id }: Run, error: ApiError): void {
  if (error.kind !== 'status') return
  context.refusals.note(error)
  // With too many requests it is not the run that is refused.
  if (error.status !== 429) context.avoid(id)
}

/**
 * What the run is can be asked while the server answers the claim: a launch is two answers sooner. What fails is not kept, and
 * comes up again when it is needed; for a claim that is refused the reads were in vain, once for each poll answer.
 */
function readAhead({ context, deploymentId, shared, detach }: Run): void {
  if (deploymentId === null) return
  context.background(async () => {
    await readAssignment(context.client, { deployment_id: deploymentId }, shared, detach).catch(() => undefined)
  })
}

function judgeAnswer(run: Run, { status, state, details }: OrchestrationResult): boolean {
  // The server answers REJECT to a claim that it knows by its transition id: it is ours all the same.
  const isOurs = state?.state_details?.transition_id === run.record.transitionId
  if (state?.type === 'PENDING' && (status === 'ACCEPT' || isOurs)) return true
  run.context.avoid(run.id)
  run.log.debug({ status, reason: details?.reason }, 'claim refused')
  return false
}

/**
 * The answer was lost: look, then decide. A claim is sent again only when the run is seen unchanged since the poll, and
 * with the same transition id, by which the server recognises the first should that still arrive.
 */
async function settle(run: Run): Promise<boolean> {
  return replay('claim', run.context, run.detach, async () => {
    const now = await run.context.reader.read(run.id, 'look')
    if (judgeStanding(run.record, now) !== 'lost') return { done: true }
    if (now?.state_type !== 'SCHEDULED' || (now.state?.id ?? null) !== run.record.polled.stateId) return { done: false }
    const answer = await propose(run)
    return answer ? { done: judgeAnswer(run, answer) } : undefined
  })
}
