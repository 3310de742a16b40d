// Claims that stand on the server and in no journal: the state folder of the agent that made them was lost.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { newTransitionId, readIdentity } from '../../src/agent/identity.ts'
import { buildPending, buildState } from '../../src/prefect/states.ts'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { never, openStage } from './stage.ts'

/** Claims younger than a minute may be in a journal that this agent does not see. */
const oldEnoughMs = 61_000

test('claims that no journal remembers are undone: what waited is run once, what was over stays over', {
  ...needs('prefect3'),
}, async () => {
  await using server = await startPrefectServer('prefect3')
  await using stage = await openStage(server.apiUrl)
  const name = 'an agent that lost its state folder'
  const claim = (id: string) => {
    const transitionId = newTransitionId(readIdentity(stage.directory, name))
    return stage.client.setFlowRunState(id, buildPending({ transitionId }), { claim: true }, never)
  }
  const deployment = await stage.deployCommand({ script: 'true' })
  const waiting = await stage.run(deployment)
  const ended = await stage.run(deployment)
  const theirs = await stage.run(deployment)
  await claim(waiting.id)
  await stage.client.setFlowRunState(ended.id, buildState('PENDING'), {}, never)
  await stage.client.setFlowRunState(ended.id, buildState('COMPLETED', { message: 'long ago' }), {}, never)
  await claim(ended.id)
  await stage.client.setFlowRunState(theirs.id, buildState('PENDING'), {}, never)
  await delay(oldEnoughMs)
  await using agent = stage.startAgent({ name })
  const done = await stage.waitFor(waiting.id, ['COMPLETED'], 60_000)
  assert.match(done.state?.message ?? '', /exit code 0/, agent.output)
  await until(async () => (await stage.readRun(ended.id)).state_type === 'COMPLETED')
  assert.equal((await stage.readRun(ended.id)).state?.message, 'long ago', agent.output)
  assert.equal((await stage.readRun(theirs.id)).state_type, 'PENDING')
  assert.deepEqual(
    [waiting, ended, theirs].map(run => stage.starts(run.id)),
    [1, 0, 0],
    agent.output,
  )
})
