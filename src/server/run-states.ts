// Carries out decisions about states: reads the run, asks the rules, writes the new state and keeps the books.
//
// Everything here happens inside one write, so a state, its run's columns and a parent's mirrored state never differ.

import { randomUUID } from 'node:crypto'
import { keepBooks } from './bookkeeping.ts'
import type { Database } from './database.ts'
import { type FlowRun, findFlowRun, insertFlowRun, type NewFlowRun, readFlowRun, readState } from './flow-runs.ts'
import { type Decision, decideFlowRunState } from './orchestration.ts'
import { notFoundInModel } from './refusal.ts'
import { isTerminal, type Proposal, type State } from './states.ts'
import { decideTaskRunState } from './task-orchestration.ts'
import { insertTaskRun, type NewTaskRun, readTaskRun, type TaskRun } from './task-runs.ts'
import { now } from './time.ts'

/** The body that answers a proposed state, and whether a state was written. */
export interface Outcome {
  readonly written: boolean
  readonly body: { readonly state: State | null; readonly status: string; readonly details: Record<string, unknown> }
}

export function setFlowRunState(database: Database, id: string, proposal: Proposal, force: boolean): Outcome {
  return database.write(() => {
    const run = readFlowRun(database, id)
    if (!run) throw notFoundInModel(`Flow run with id ${id} not found`)
    const decision = decideFlowRunState({ run, proposal, force, now: now(), newKey: randomUUID() })
    const written =
      'write' in decision && decision.write ? writeFlowRunState(database, run, decision.write, decision) : null
    return describe(decision, written, run.state)
  })
}

function writeFlowRunState(database: Database, run: FlowRun, proposal: Proposal, decision: Decision): State {
  const before = { ...run.empirical_policy, ...('policyBefore' in decision ? decision.policyBefore : {}) }
  const details = {
    ...proposal.state_details,
    flow_run_id: run.id,
    task_run_id: run.parent_task_run_id ?? proposal.state_details.task_run_id,
  }
  const state: State = { ...proposal, id: randomUUID(), timestamp: now(), state_details: details }
  const counts = before.resuming && (state.type === 'RUNNING' || isTerminal(state.type))
  const empirical_policy = {
    ...before,
    ...(counts ? { resuming: false } : {}),
    ...('policyAfter' in decision ? decision.policyAfter : {}),
  }
  database.insert('flow_run_state', { ...state, flow_run_id: run.id })
  const entry = keepBooks(run, state, before.resuming)
  database.update('flow_run', run.id, { ...entry, empirical_policy, updated: state.timestamp })
  if (run.parent_task_run_id !== null) mirrorToParent(database, run.parent_task_run_id, run.id, state)
  return state
}

/** The task run that stands for a sub-flow in its parent always has the sub-flow's state. */
function mirrorToParent(database: Database, taskRunId: string, child_flow_run_id: string, state: State): void {
  if (!readTaskRun(database, taskRunId)) return
  setTaskRunState(database, taskRunId, { ...state, state_details: { ...state.state_details, child_flow_run_id } }, true)
}

export function setTaskRunState(database: Database, id: string, proposal: Proposal, force: boolean): Outcome {
  return database.write(() => {
    const run = readTaskRun(database, id)
    if (!run) throw notFoundInModel(`Task run with id ${id} not found`)
    const flowRun = run.flow_run_id === null ? undefined : readFlowRun(database, run.flow_run_id)
    const cached = force ? undefined : readCachedState(database, proposal)
    const { decision, runCount } = decideTaskRunState({
      run,
      proposal,
      force,
      now: now(),
      flowRun,
      cached,
      random: Math.random(),
    })
    const rewrite = 'write' in decision ? decision.write : undefined
    const written = rewrite ? writeTaskRunState(database, { ...run, run_count: runCount }, rewrite) : null
    if (written && decision.status === 'ACCEPT' && !force) noteAccepted(database, run, written, flowRun)
    return describe(decision, written, run.state)
  })
}

function writeTaskRunState(database: Database, run: TaskRun, proposal: Proposal): State {
  const details = { ...proposal.state_details, flow_run_id: run.flow_run_id, task_run_id: run.id }
  const { type, name, message, data } = proposal
  const state: State = { type, name, message, data, id: randomUUID(), timestamp: now(), state_details: details }
  database.insert('task_run_state', { ...state, task_run_id: run.id })
  database.update('task_run', run.id, { ...keepBooks(run, state, false), updated: state.timestamp })
  return state
}

/** What only a proposed, not a forced, task state brings about. */
function noteAccepted(database: Database, run: TaskRun, state: State, flowRun: FlowRun | undefined): void {
  if (state.type === 'RUNNING' && flowRun) {
    database.update('task_run', run.id, { flow_run_run_count: flowRun.run_count })
  }
  const { cache_key, cache_expiration } = state.state_details
  if (state.type !== 'COMPLETED' || !cache_key) return
  database.insert('task_run_state_cache', {
    id: randomUUID(),
    created: state.timestamp,
    cache_key,
    cache_expiration,
    task_run_state_id: state.id,
  })
}

function readCachedState(database: Database, { state_details: { cache_key } }: Proposal): State | undefined {
  if (!cache_key) return undefined
  const row = database.get({
    sql: `SELECT task_run_state.* FROM task_run_state JOIN task_run_state_cache AS c ON c.task_run_state_id = task_run_state.id
      WHERE c.cache_key = ? AND (c.cache_expiration IS NULL OR c.cache_expiration > ?) ORDER BY c.created DESC LIMIT 1`,
    params: [cache_key, now()],
  })
  return readState(row) ?? undefined
}

function describe(decision: Decision, written: State | null, current: State | null): Outcome {
  const state = written ?? current
  const answer = (details: Record<string, unknown>): Outcome => ({
    written: written !== null,
    body: { state, status: decision.status, details },
  })
  switch (decision.status) {
    case 'ACCEPT':
      return answer({ type: 'accept_details' })
    case 'REJECT':
      return answer({ type: 'reject_details', reason: decision.reason })
    case 'ABORT':
      return answer({ type: 'abort_details', reason: decision.reason })
    case 'WAIT':
      return answer({ type: 'wait_details', delay_seconds: decision.delaySeconds, reason: decision.reason })
  }
}

/** Makes a flow run in its first state, or finds the one that has the same idempotency key. */
export function createFlowRun(database: Database, run: NewFlowRun): { readonly run: FlowRun; readonly isNew: boolean } {
  return database.write(() => {
    const { id, isNew } = insertFlowRun(database, run)
    if (isNew) setFlowRunState(database, id, run.state, true)
    return { run: findFlowRun(database, id), isNew }
  })
}

export function createTaskRun(
  database: Database,
  run: NewTaskRun,
  state: Proposal | undefined,
): { readonly id: string; readonly isNew: boolean } {
  return database.write(() => {
    const created = insertTaskRun(database, run)
    if (created.isNew && state) setTaskRunState(database, created.id, state, true)
    return created
  })
}
