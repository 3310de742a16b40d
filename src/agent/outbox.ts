// What the server has not acknowledged yet. There is no second queue: the outbox is the records in step `ended`, each of
// which is delivered here, over restarts and hours of outage, in order for each run because its lifecycle waits for it.

import { setTimeout as timer } from 'node:timers/promises'
import { jitter } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'
import { ApiError } from '../prefect/errors.ts'
import { buildScheduled, buildState, type ProposedState } from '../prefect/states.ts'
import type { FlowRun, OrchestrationResult, State } from '../prefect/types.ts'
import type { AgentContext } from './agent-context.ts'
import { isDeleted, OtherDatabaseError } from './database.ts'
import { followUpId } from './identity.ts'
import { JournalError } from './journal.ts'
import { decideOutcome, type Proposal } from './outcome.ts'
import type { RunRecord } from './record.ts'
import { findFormerState, findLastClaim, isClaimedSince } from './standing.ts'

const firstPauseMs = 1_000
const longestPauseMs = 30_000
/** What the server said this recently is still taken for its present word; a request of its own would not be much fresher. */
const freshMs = 2_000
/** Other engines that end meanwhile are looked at by the same request. */
const companyMs = 1_500
/** So often a run must be unknown to a server that is otherwise well before it is taken for deleted. */
const unknownLooks = 2

/** What goes by without our doing, however long it takes. */
const passing = [ApiError, JournalError, OtherDatabaseError]

/**
 * Repeats `attempt` until it gives a value, at growing distance, for as long as it takes; only the signal ends it.
 * Not a retry of requests (the client does that) but of what must come to pass: a decision, a record, a report.
 */
export async function replay<T>(
  what: string,
  context: Pick<AgentContext, 'complaints'>,
  signal: AbortSignal,
  attempt: () => Promise<{ readonly done: T } | undefined>,
): Promise<T> {
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
    try {
      const result = await attempt()
      if (result) return result.done
    } catch (error) {
      signal.throwIfAborted()
      if (!passing.some(type => error instanceof type)) throw error
      context.complaints.say(`replay ${what}`, 'cannot go on yet; will try again', { what, err: error })
    }
    await timer(jitter(pauseMs, 0.3), undefined, { signal })
  }
}

/**
 * Tells the server how the run ended for us, if there is anything to tell. Returns once the server has acknowledged it, or
 * it has become pointless. `seenRunningAt`: when the server last showed the run as ours and running (performance.now()).
 */
export async function deliver(
  context: AgentContext,
  record: RunRecord,
  seenRunningAt: number,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  let isFirst = true
  let looksInVain = 0
  await replay('report', context, signal, async () => {
    // Only of what has run: where a launch has failed, whose RUNNING it is must be seen.
    const hasRun = record.ending?.kind === 'exit' && record.reports === 'agent'
    const isFresh = isFirst && hasRun && performance.now() - seenRunningAt < freshMs
    isFirst = false
    const run = isFresh ? justRunning : await context.reader.read(record.flowRunId, 'review', patienceFor(record))
    if (!run) {
      if (!(await isDeleted(context.client, record, signal)) || ++looksInVain < unknownLooks) return undefined
      log.warn('the server does not know this flow run any more; nothing to report')
      return { done: undefined }
    }
    const lastClaim = run.state_type === 'CANCELLING' ? await readLastClaim(context, record, signal) : undefined
    const outcome = decideOutcome({ record, run, lastClaim, stoppedRuns: context.settings.stoppedRuns })
    if (outcome.kind === 'none') {
      log.debug({ why: outcome.why }, 'nothing to report')
      return { done: undefined }
    }
    if (outcome.kind === 'restore') return restoreFormerState(context, record, run, signal)
    if (outcome.kind === 'retry') return letRetry(context, run, record, log, signal)
    return propose(context, record, outcome.proposal, log, signal)
  })
}

async function readLastClaim({ client }: AgentContext, { flowRunId }: RunRecord, signal: AbortSignal) {
  return findLastClaim(await client.readFlowRunStates(flowRunId, signal))
}

/** An engine that ends with 0 has nearly always reported by itself, so that nobody waits for what we find. */
function patienceFor({ reports, ending }: RunRecord): number {
  const isWell = ending?.kind === 'exit' && ending.exit.kind === 'exited' && ending.exit.statusCode === 0
  return reports === 'engine' && isWell ? companyMs : 0
}

/** What the server said a moment ago, when it accepted RUNNING from us. */
const justRunning: Parameters<typeof decideOutcome>[0]['run'] = {
  state_type: 'RUNNING',
  state_name: 'Running',
  state: null,
  infrastructure_pid: null,
  empirical_policy: { retry_type: null },
} satisfies Partial<FlowRun>

async function propose(
  context: AgentContext,
  record: RunRecord,
  proposal: Proposal,
  log: Logger,
  signal: AbortSignal,
): Promise<{ done: undefined } | undefined> {
  const state = buildReport(context, record, proposal)
  let answer: OrchestrationResult
  try {
    const { force = false } = proposal
    const call = () => context.client.setFlowRunState(record.flowRunId, state, { force }, signal)
    answer = await context.turns.take('report', call, signal)
  } catch (error) {
    if (!(error instanceof ApiError) || !error.isFinal) throw error
    if (error.isNotFound) return undefined // deleted, or another database: the next look tells
    log.error({ err: error, state: state.name }, 'the server refuses the report for good; dropped')
    return { done: undefined }
  }
  const isTaken =
    answer.status === 'ACCEPT' || answer.state?.state_details?.transition_id === state.state_details.transition_id
  if (isTaken) {
    log.info({ state: state.name }, 'flow run reported')
    return { done: undefined }
  }
  log.info(
    { state: state.name, status: answer.status, reason: answer.details?.reason, now: answer.state?.name },
    'report not taken',
  )
  // Somebody else has moved the run meanwhile, or the server wants it retried: decide anew on what it is now.
  const needsUs = answer.state?.type === 'CANCELLING' || answer.state?.name === 'AwaitingRetry'
  return needsUs || answer.status === 'WAIT' ? undefined : { done: undefined }
}

/** The run stays as the server has scheduled it; every agent leaves a retry alone that is called one of a living process. */
async function letRetry(
  context: AgentContext,
  { empirical_policy }: Pick<FlowRun, 'empirical_policy'>,
  { flowRunId }: RunRecord,
  log: Logger,
  signal: AbortSignal,
): Promise<{ done: undefined }> {
  const update = { empirical_policy: { ...empirical_policy, retry_type: 'reschedule' } }
  await context.turns.take('report', () => context.client.updateFlowRun(flowRunId, update, signal), signal)
  log.info('flow run will be retried')
  return { done: undefined }
}

function buildReport(context: AgentContext, record: RunRecord, proposal: Proposal): ProposedState {
  const options = { message: proposal.message, transitionId: followUpId(record.transitionId, 'report') }
  if (proposal.type !== 'SCHEDULED') return buildState(proposal.type, options)
  const { delaySeconds = 0 } = proposal
  const later = new Date(context.client.serverNow().getTime() + delaySeconds * 1000).toISOString()
  return buildScheduled({ ...options, scheduledTime: proposal.scheduledTime ?? later })
}

/** Undoes a claim that was made from an old poll answer: the state before it comes back as it was. */
async function restoreFormerState(
  context: AgentContext,
  record: RunRecord,
  run: Pick<FlowRun, 'state_type'>,
  signal: AbortSignal,
): Promise<{ done: undefined }> {
  const states = await context.client.readFlowRunStates(record.flowRunId, signal)
  // Only RUNNING can have come over somebody else's living run; the server refuses PENDING there.
  if (run.state_type === 'RUNNING' && isClaimedSince(record.transitionId, states)) return { done: undefined }
  const state = copyState(findFormerState(record.transitionId, states), followUpId(record.transitionId, 'report'))
  const call = () => context.client.setFlowRunState(record.flowRunId, state, { force: true }, signal)
  await context.turns.take('report', call, signal)
  return { done: undefined }
}

/** Without a former state the run must still end as something: left as it is, nobody would ever touch it again. */
function copyState(former: State | undefined, transitionId: string): ProposedState {
  if (!former) {
    const message =
      'The flow run was claimed from an answer out of date, and the server does not show the state before.'
    return buildState('CRASHED', { message, transitionId })
  }
  const { type, name, message, data, state_details } = former
  const { scheduled_time } = state_details
  const built = buildState(type, { name: name ?? undefined, message: message ?? undefined, transitionId })
  return {
    ...built,
    data: data ?? null,
    // Without it the server would take "now" for the time of a run that waits for a later one.
    state_details: { ...built.state_details, ...(scheduled_time === null ? {} : { scheduled_time }) },
  }
}
