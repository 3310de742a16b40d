// The table of endings: what our infrastructure did, what the server shows, and what it is told.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { followUpId } from '../../src/agent/identity.ts'
import { decideOutcome, type OutcomeFacts } from '../../src/agent/outcome.ts'
import type { Ending, RunRecord } from '../../src/agent/record.ts'
import type { Exit } from '../../src/infrastructure/infrastructure.ts'
import type { StateType } from '../../src/prefect/types.ts'

const transitionId = '11111111-2222-4333-8444-555566667777'
const handle = { type: 'process', identifier: 'host:1', flowRunId: 'run', attempt: '66667777', transitionId }

function exited(statusCode: number | undefined, signal?: string): Ending {
  return { kind: 'exit', exit: { kind: 'exited', statusCode, signal, outputTail: ['last words'] } }
}
const gone: Exit = { kind: 'vanished', reason: 'the machine was started again', outputTail: [] }

interface Case {
  readonly ending: Ending
  readonly reports?: 'engine' | 'agent' | 'command'
  readonly state: StateType
  readonly stop?: NonNullable<RunRecord['stop']>
  readonly stateMessage?: string
  readonly claimedBy?: string
  readonly stateName?: string
  readonly retryType?: string
  readonly stoppedRuns?: 'crashed' | 'scheduled'
  /** Default: ours. */
  readonly lastClaim?: string
}

function facts(given: Case): OutcomeFacts {
  const record: RunRecord = {
    version: 1,
    step: 'ended',
    flowRunId: 'run',
    flowRunName: 'name',
    transitionId,
    polled: { stateId: null, infrastructurePid: null, deploymentId: null, workQueueId: null },
    reports: given.reports ?? 'engine',
    handle,
    ending: given.ending,
    stop: given.stop,
  }
  const state = {
    id: 's',
    type: given.state,
    name: given.state,
    timestamp: null,
    message: given.stateMessage ?? null,
    state_details: { transition_id: given.claimedBy ?? transitionId, scheduled_time: null },
  }
  const run = {
    state_type: given.state,
    state_name: given.stateName ?? given.state,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- only what the decision reads is filled in
    state: state as unknown as OutcomeFacts['run']['state'],
    infrastructure_pid: handle.identifier,
    empirical_policy: { retry_type: given.retryType ?? null },
  }
  return { record, run, stoppedRuns: given.stoppedRuns ?? 'crashed', lastClaim: given.lastClaim ?? transitionId }
}

const echo = 'Execution was aborted by a termination signal.'

for (const [name, given, want] of [
  ['a command that ended with 0', { ending: exited(0), reports: 'agent', state: 'RUNNING' }, 'COMPLETED'],
  ['a command that ended with 3', { ending: exited(3), reports: 'agent', state: 'RUNNING' }, 'FAILED'],
  [
    'a command ended by a signal',
    { ending: exited(undefined, 'SIGKILL'), reports: 'agent', state: 'RUNNING' },
    'CRASHED',
  ],
  ['an engine that ended with 0 while Running', { ending: exited(0), state: 'RUNNING' }, 'CRASHED'],
  ['an engine that ended with 0 while Pending', { ending: exited(0), state: 'PENDING' }, 'CRASHED'],
  ['a silent command of a block', { ending: exited(0), reports: 'command', state: 'PENDING' }, 'COMPLETED'],
  ['the same ended with 1', { ending: exited(1), reports: 'command', state: 'PENDING' }, 'CRASHED'],
  ['an engine that failed its flow', { ending: exited(1), state: 'FAILED' }, 'none'],
  ['an engine that completed its flow', { ending: exited(0), state: 'COMPLETED' }, 'none'],
  ['a run that somebody cancelled meanwhile', { ending: exited(0), state: 'CANCELLED' }, 'none'],
  ['a run that waits to be resumed', { ending: exited(0), state: 'PAUSED' }, 'none'],
  ['a run that was scheduled again', { ending: exited(0), state: 'SCHEDULED' }, 'none'],
  [
    'a retry that only a dead engine would make',
    { ending: exited(1), state: 'SCHEDULED', stateName: 'AwaitingRetry', retryType: 'in_process' },
    'CRASHED',
  ],
  ['a claim of somebody else', { ending: exited(1), state: 'PENDING', claimedBy: 'other' }, 'none'],
  ['infrastructure that is gone', { ending: { kind: 'exit', exit: gone }, state: 'RUNNING' }, 'CRASHED'],
  ['what was cancelled', { ending: exited(undefined, 'SIGTERM'), state: 'CANCELLING' }, 'CANCELLED'],
  [
    'what was cancelled since somebody else has claimed it',
    { ending: exited(1), state: 'CANCELLING', lastClaim: 'other' },
    'none',
  ],
  ['a claim that was out of date and is cancelled', { ending: { kind: 'restore' }, state: 'CANCELLING' }, 'CANCELLED'],
  [
    'the same, when somebody else has claimed it',
    { ending: { kind: 'restore' }, state: 'CANCELLING', lastClaim: 'other' },
    'none',
  ],
  [
    'a cancelled engine that calls that a crash',
    { ending: exited(1), stop: 'cancelled', state: 'CRASHED', stateMessage: echo },
    'CANCELLED by force',
  ],
  [
    'the same, of the flow itself',
    { ending: exited(1), stop: 'cancelled', state: 'CRASHED', stateMessage: 'out of memory' },
    'none',
  ],
  ['such words without a kill of ours', { ending: exited(1), state: 'CRASHED', stateMessage: echo }, 'none'],
  ['a run that the agent ended', { ending: exited(1), stop: 'agent-stopped', state: 'RUNNING' }, 'CRASHED'],
  [
    'the same, to be run again',
    { ending: exited(1), stop: 'agent-stopped', state: 'RUNNING', stoppedRuns: 'scheduled' },
    'SCHEDULED',
  ],
  [
    'the same, when its engine was quicker',
    { ending: exited(1), stop: 'agent-stopped', state: 'CRASHED', stateMessage: echo, stoppedRuns: 'scheduled' },
    'SCHEDULED by force',
  ],
  [
    'a claim that is given back',
    { ending: { kind: 'given-back', message: 'full', delaySeconds: 30 }, state: 'PENDING' },
    'SCHEDULED',
  ],
  [
    'a claim given back that has moved on',
    { ending: { kind: 'given-back', message: 'full', delaySeconds: 30 }, state: 'RUNNING' },
    'none',
  ],
  ['a claim that was out of date', { ending: { kind: 'restore' }, state: 'PENDING' }, 'restore'],
  [
    'the same, when our RUNNING came late',
    { ending: { kind: 'restore' }, state: 'RUNNING', claimedBy: followUpId(transitionId, 'running') },
    'restore',
  ],
  ['the same, when somebody runs it', { ending: { kind: 'restore' }, state: 'RUNNING', claimedBy: 'x' }, 'none'],
  [
    'a launch that failed for good',
    { ending: { kind: 'not-launched', message: 'no image' }, state: 'PENDING' },
    'CRASHED',
  ],
  [
    'the same, after RUNNING was said for it',
    {
      ending: { kind: 'not-launched', message: 'no image' },
      state: 'RUNNING',
      claimedBy: followUpId(transitionId, 'running'),
    },
    'CRASHED',
  ],
  [
    'the same, when somebody else runs it since',
    { ending: { kind: 'not-launched', message: 'no image' }, state: 'RUNNING', claimedBy: 'other' },
    'none',
  ],
  [
    'the same, when the engine of somebody else waits for its retry',
    {
      ending: { kind: 'not-launched', message: 'no image' },
      state: 'SCHEDULED',
      stateName: 'AwaitingRetry',
      retryType: 'in_process',
    },
    'none',
  ],
  [
    'a run that the agent was stopped before it could start',
    { ending: { kind: 'not-launched', message: 'ended before' }, stop: 'agent-stopped', state: 'PENDING' },
    'SCHEDULED',
  ],
] satisfies readonly (readonly [string, Case, string])[]) {
  test(`${name}: ${want}`, () => {
    const outcome = decideOutcome(facts(given))
    const told = outcome.kind === 'propose' ? outcome.proposal.type : outcome.kind
    assert.equal(outcome.kind === 'propose' && outcome.proposal.force ? `${told} by force` : told, want)
  })
}

test('a crash is told with exit code, meaning and last lines', () => {
  const outcome = decideOutcome(facts({ ending: exited(undefined, 'SIGKILL'), state: 'RUNNING' }))
  assert.ok(outcome.kind === 'propose')
  assert.match(outcome.proposal.message, /SIGKILL \(signal 9\).*last words/s)
})
