import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as v from 'valibot'
import { followUpId } from '../../src/agent/identity.ts'
import { newRecord } from '../../src/agent/record.ts'
import { findFormerState, findLastClaim, isBelated, isUntouched, readUntouched } from '../../src/agent/standing.ts'
import { FlowRun, State, type StateType } from '../../src/prefect/types.ts'

const id = '11111111-1111-4111-8111-111111111111'
const due = '2026-11-24T10:00:00.123456+00:00'

function state(type: StateType, scheduled_time: string | null): State {
  const details = { transition_id: id, scheduled_time }
  return v.parse(State, { type, name: type, timestamp: due, state_details: details })
}

function named(name: string, type: StateType, transition_id: string | null = null): State {
  return { ...state(type, due), id: name, state_details: { transition_id, scheduled_time: null } }
}

function polled(now: State | null): FlowRun {
  return v.parse(FlowRun, { id, name: 'r', flow_id: id, state: now, state_type: now?.type, state_name: now?.name })
}

describe('the answer to a claim', () => {
  test('proves a run untouched when the server has copied the time that the poll has shown', () => {
    const run = readUntouched(polled(state('SCHEDULED', due)), state('PENDING', due))
    assert.deepEqual([run?.id, run?.state_type, run?.state], [id, 'PENDING', state('PENDING', due)])
  })

  const doubtful: readonly [string, State | null, State][] = [
    ['replaced a state that was not scheduled', state('SCHEDULED', due), state('PENDING', null)],
    ['replaced a later retry', state('SCHEDULED', due), state('PENDING', '2026-11-24T10:00:00.123457+00:00')],
    ['has no time, as the poll had none', state('SCHEDULED', null), state('PENDING', null)],
    ['shows another state', state('SCHEDULED', due), state('RUNNING', due)],
    ['follows a poll that showed another state', state('PENDING', due), state('PENDING', due)],
    ['follows a poll that showed no state', null, state('PENDING', due)],
  ]
  for (const [what, before, claimed] of doubtful) {
    test(`proves nothing when it ${what}`, () => assert.equal(readUntouched(polled(before), claimed), undefined))
  }
})

describe('the state before a claim', () => {
  const before: readonly [string, readonly StateType[], StateType | undefined][] = [
    ['is the one that was waiting', ['SCHEDULED', 'PENDING'], 'SCHEDULED'],
    ['is the end of the run that came between', ['SCHEDULED', 'PENDING', 'RUNNING', 'FAILED', 'PENDING'], 'FAILED'],
    // Dated when it was read, carried out when the database was free: after all that came between.
    [
      'is that end also when the claim is dated before it',
      ['SCHEDULED', 'PENDING', 'PENDING', 'RUNNING', 'COMPLETED'],
      'COMPLETED',
    ],
    ['is unknown when the server does not show it', ['PENDING'], undefined],
  ]
  for (const [what, types, expected] of before) {
    test(what, () =>
      assert.equal(
        findFormerState(
          id,
          types.map(type => state(type, null)),
        )?.type,
        expected,
      ),
    )
  }
})

describe('the history behind a claim', () => {
  const ours = '22222222-2222-4222-8222-222222222222'
  const before = [named('created', 'SCHEDULED'), named('polled', 'SCHEDULED')]
  const claim = named('claim', 'PENDING', ours)
  const ownRunning = followUpId(ours, 'running')
  const another = named('another', 'PENDING', id)
  const histories: readonly [string, readonly State[], boolean][] = [
    ['untouched when only the claim follows', [...before, claim], true],
    ['untouched when it was marked as late', [...before, named('late', 'SCHEDULED'), claim], true],
    ['untouched when our own RUNNING came late', [...before, claim, named('running', 'RUNNING', ownRunning)], true],
    ['run when it has ended meanwhile', [...before, another, named('end', 'COMPLETED'), claim], false],
    ['run when that is dated behind the claim', [...before, claim, another, named('end', 'COMPLETED')], false],
    ['touched when it was given back', [...before, another, named('back', 'SCHEDULED'), claim], false],
    ['doubtful when the polled state is not in it', [claim], false],
  ]
  for (const [what, states, expected] of histories) {
    test(`shows the run ${what}`, () => {
      assert.equal(isUntouched(newRecord(polled(named('polled', 'SCHEDULED')), ours), states), expected)
    })
  }
})

describe('our RUNNING after our report', () => {
  const ours = '22222222-2222-4222-8222-222222222222'
  const late = named('late', 'RUNNING', followUpId(ours, 'running'))
  const start = [named('due', 'SCHEDULED'), named('claim', 'PENDING', ours)]
  const back = named('back', 'SCHEDULED', followUpId(ours, 'report'))
  const theirs = [named('another', 'PENDING', id), named('runs', 'RUNNING', id)]
  const histories: readonly [string, readonly State[], boolean][] = [
    ['is belated', [...start, back, late], true],
    [
      'is belated when another run has come and ended since',
      [...start, back, ...theirs, named('end', 'FAILED'), late],
      true,
    ],
    ['is let stand while somebody runs it since', [...start, back, ...theirs, late], false],
    ['is no news without a report', [...start, late], false],
  ]
  for (const [what, states, expected] of histories) {
    test(what, () => assert.equal(isBelated(ours, polled(late), states), expected))
  }
})

test('the last claim of a run is no word of its engine', () => {
  const waits = { ...named('waits', 'PENDING', 'engine'), name: 'NotReady' }
  const states = [named('a', 'PENDING', 'first'), named('b', 'PENDING', 'second'), named('c', 'RUNNING'), waits]
  assert.equal(findLastClaim(states), 'second')
})
