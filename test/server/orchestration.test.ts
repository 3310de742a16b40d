import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keepBooks } from '../../src/server/bookkeeping.ts'
import { decideFlowRunState, type FlowRunFacts } from '../../src/server/orchestration.ts'
import { buildProposal, STATE_TYPES, type State, type StateType } from '../../src/server/states.ts'

const NOW = '2026-11-24T12:00:00.000000+00:00'
const LATER = '2026-11-24T12:00:30.000000+00:00'
const EARLIER = '2026-11-24T11:00:00.000000+00:00'

const POLICY = {
  max_retries: 0,
  retry_delay_seconds: 0,
  retries: null,
  retry_delay: null,
  pause_keys: [],
  resuming: false,
  retry_type: null,
} as const

type Given = Parameters<typeof buildProposal>[0]

function makeState(given: Given): State {
  return { ...buildProposal(given, NOW), id: 'state', timestamp: EARLIER }
}

function makeRun(state: State | null, facts: Partial<FlowRunFacts> = {}): FlowRunFacts {
  return {
    state,
    deployment_id: 'deployment',
    parent_task_run_id: null,
    infrastructure_pid: null,
    run_count: 1,
    empirical_policy: POLICY,
    ...facts,
  }
}

function decide(run: FlowRunFacts, given: Given, force = false) {
  return decideFlowRunState({ run, proposal: buildProposal(given, NOW), force, now: NOW, newKey: 'new' })
}

/** A accept, R reject with the current state, X abort, R>Y reject and write Y: as seen on Prefect 2.20.25. */
const MATRIX = `
  from        SCHEDULED PENDING RUNNING PAUSED CANCELLING  CANCELLED COMPLETED FAILED CRASHED
  SCHEDULED   A         A       A       R      R>CANCELLED A         A         A      A
  PENDING     A         X       A       R      A           A         A         A      A
  RUNNING     A         X       A       A      A           A         A         A      A
  PAUSED      A         R       A       R      R           A         A         A      A
  SUSPENDED   A         R       A       R      R>CANCELLED A         A         A      A
  CANCELLING  R         R       R       R      R           A         R         R      R
  CANCELLED   R         R       R       X      X           A         R         R      X
  COMPLETED   A         A       A       X      X           A         A         A      X
  KEPT        R         R       R       X      X           A         A         A      X
  FAILED      A         A       A       X      X           A         A         A      X
  CRASHED     A         A       A       X      X           A         A         A      X
`

const STATES: Readonly<Record<string, Given>> = {
  ...Object.fromEntries(STATE_TYPES.map(type => [type, { type }])),
  SUSPENDED: { type: 'PAUSED', name: 'Suspended', state_details: { pause_reschedule: true } },
  COMPLETED: { type: 'COMPLETED', data: { type: 'unpersisted' } },
  KEPT: { type: 'COMPLETED', data: { type: 'reference' } },
}

function outcomeOf(run: FlowRunFacts, given: Given): string {
  const decision = decide(run, given)
  if (decision.status === 'REJECT') return decision.write ? `R>${decision.write.type}` : 'R'
  return { ACCEPT: 'A', ABORT: 'X', WAIT: 'W' }[decision.status]
}

function readMatrix(): { readonly from: string; readonly to: StateType; readonly expected: string }[] {
  const [head = [], ...rows] = MATRIX.trim()
    .split('\n')
    .map(line => line.trim().split(/\s+/))
  return rows.flatMap(([from = '', ...cells]) =>
    cells.map((expected, at) => {
      const to = STATE_TYPES.find(type => type === head[at + 1])
      assert.ok(to, `column ${at}`)
      return { from, to, expected }
    }),
  )
}

for (const { from, to, expected } of readMatrix()) {
  test(`${from} to ${to} is answered ${expected}`, () => {
    const state = STATES[from]
    assert.ok(state)
    assert.equal(outcomeOf(makeRun(makeState(state)), { type: to }), expected)
  })
}

test('the matrix has all pairs of states', () => {
  const pairs = new Set(readMatrix().map(({ from, to }) => `${from} ${to}`))
  for (const from of STATE_TYPES) for (const to of STATE_TYPES) assert.ok(pairs.has(`${from} ${to}`), `${from} ${to}`)
})

test('a transition that was made already is rejected', () => {
  const details = { state_details: { transition_id: 'same' } }
  const run = makeRun(makeState({ type: 'SCHEDULED', ...details }))
  assert.equal(outcomeOf(run, { type: 'PENDING', ...details }), 'R')
  assert.equal(outcomeOf(run, { type: 'PENDING', state_details: { transition_id: 'other' } }), 'A')
})

test('a run that is scheduled for later has to wait, in whole seconds', () => {
  for (const type of ['SCHEDULED', 'PENDING'] as const) {
    const run = makeRun(makeState({ type, state_details: { scheduled_time: LATER } }))
    const decision = decide(run, { type: 'RUNNING' })
    assert.equal(decision.status === 'WAIT' && decision.delaySeconds, 30)
  }
  const due = makeRun(makeState({ type: 'PENDING', state_details: { scheduled_time: EARLIER } }))
  assert.equal(outcomeOf(due, { type: 'RUNNING' }), 'A')
})

test('a claimed run keeps the time that it was scheduled for', () => {
  const run = makeRun(makeState({ type: 'SCHEDULED', state_details: { scheduled_time: LATER } }))
  const decision = decide(run, { type: 'PENDING' })
  assert.equal('write' in decision && decision.write?.state_details.scheduled_time, LATER)
})

test('a failed run with retries left waits for its retry in the same process', () => {
  const retrying = { ...POLICY, retries: 1, retry_delay: 30, pause_keys: ['k'] }
  const decision = decide(makeRun(makeState({ type: 'RUNNING' }), { empirical_policy: retrying }), { type: 'FAILED' })
  assert.equal(decision.status, 'REJECT')
  assert.ok('write' in decision && decision.write)
  assert.deepEqual([decision.write.type, decision.write.name], ['SCHEDULED', 'AwaitingRetry'])
  assert.equal(decision.write.state_details.scheduled_time, LATER)
  assert.deepEqual(decision.policyBefore, { resuming: false, pause_keys: [], retry_type: 'in_process' })
  const spent = makeRun(makeState({ type: 'RUNNING' }), { empirical_policy: retrying, run_count: 2 })
  assert.equal(outcomeOf(spent, { type: 'FAILED' }), 'A')
})

test('a scheduled run that has a pid can be Cancelling, one that resumes cannot', () => {
  const withPid = { infrastructure_pid: 'host:1' }
  assert.equal(outcomeOf(makeRun(makeState({ type: 'SCHEDULED' }), withPid), { type: 'CANCELLING' }), 'A')
  const resuming = makeState({ type: 'SCHEDULED', name: 'Resuming' })
  assert.equal(outcomeOf(makeRun(resuming, withPid), { type: 'CANCELLING' }), 'R>CANCELLED')
})

test('only a scheduled run can be late', () => {
  const late = { type: 'SCHEDULED', name: 'Late' } as const
  assert.equal(outcomeOf(makeRun(makeState({ type: 'SCHEDULED' })), late), 'A')
  assert.equal(outcomeOf(makeRun(makeState({ type: 'RUNNING' })), late), 'R')
})

test('a pause needs a new key, and a suspension a deployment and no parent', () => {
  const running = makeState({ type: 'RUNNING' })
  const pause = { type: 'PAUSED', state_details: { pause_key: 'k' } } as const
  assert.equal(outcomeOf(makeRun(running, { empirical_policy: { ...POLICY, pause_keys: ['k'] } }), pause), 'R')
  const decision = decide(makeRun(running), pause)
  assert.deepEqual('policyAfter' in decision && decision.policyAfter, { pause_keys: ['k'] })
  const suspend = { type: 'PAUSED', name: 'Suspended', state_details: { pause_reschedule: true } } as const
  assert.equal(outcomeOf(makeRun(running, { deployment_id: null }), suspend), 'X')
  assert.equal(outcomeOf(makeRun(running, { parent_task_run_id: 'task' }), suspend), 'X')
})

test('a pause that is over fails its run when somebody resumes it', () => {
  const paused = makeState({ type: 'PAUSED', state_details: { pause_timeout: EARLIER } })
  assert.equal(outcomeOf(makeRun(paused), { type: 'RUNNING' }), 'R>FAILED')
})

test('a terminal run without deployment cannot be scheduled again', () => {
  assert.equal(outcomeOf(makeRun(makeState({ type: 'FAILED' }), { deployment_id: null }), { type: 'SCHEDULED' }), 'X')
})

test('leaving a terminal state forgets pauses and says how the retry came about', () => {
  const run = makeRun(makeState({ type: 'FAILED' }), { empirical_policy: { ...POLICY, pause_keys: ['k'] } })
  const scheduled = decide(run, { type: 'SCHEDULED' })
  assert.deepEqual('policyBefore' in scheduled && scheduled.policyBefore, {
    resuming: false,
    pause_keys: [],
    retry_type: 'reschedule',
  })
  const running = decide(run, { type: 'RUNNING' })
  assert.equal('policyBefore' in running && running.policyBefore.retry_type, null)
})

test('a forced state is accepted, but a cancellation with nothing to end is Cancelled at once', () => {
  const cancelled = makeRun(makeState({ type: 'CANCELLED' }))
  assert.equal(decide(cancelled, { type: 'PENDING' }, true).status, 'ACCEPT')
  const decision = decide(makeRun(makeState({ type: 'SCHEDULED' })), { type: 'CANCELLING' }, true)
  assert.equal('write' in decision && decision.write?.type, 'CANCELLED')
})

test('the books count attempts, times and the due time', () => {
  const fresh = {
    state: null,
    run_count: 0,
    start_time: null,
    end_time: null,
    expected_start_time: null,
    next_scheduled_start_time: null,
    total_run_time: 0,
  }
  const state = (given: Given, timestamp: string): State => ({ ...buildProposal(given, NOW), id: 's', timestamp })
  const planned = state({ type: 'SCHEDULED', state_details: { scheduled_time: LATER } }, NOW)
  const scheduled = keepBooks(fresh, planned, false)
  assert.equal(scheduled.expected_start_time, LATER)
  assert.equal(scheduled.next_scheduled_start_time, LATER)

  const start = state({ type: 'RUNNING' }, LATER)
  const running = keepBooks({ ...scheduled, state: planned }, start, false)
  assert.deepEqual(
    [running.run_count, running.start_time, running.next_scheduled_start_time, running.end_time],
    [1, LATER, null, null],
  )
  assert.equal(keepBooks({ ...scheduled, state: planned }, start, true).run_count, 0, 'one that resumes is not counted')

  const end = state({ type: 'FAILED' }, '2026-11-24T12:01:00.500000+00:00')
  const failed = keepBooks({ ...running, state: start }, end, false)
  assert.deepEqual([failed.end_time, failed.total_run_time], [end.timestamp, 30.5])
  const again = keepBooks({ ...failed, state: end }, state({ type: 'SCHEDULED' }, NOW), false)
  assert.equal(again.end_time, null)
  const never = keepBooks({ ...scheduled, state: planned }, state({ type: 'CANCELLED' }, LATER), false)
  assert.equal(never.end_time, null, 'what never started has no end')
})
