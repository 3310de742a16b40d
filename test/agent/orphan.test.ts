// Proposals of ours that stand on the server and in no journal: the agent's state folder was lost, or a proposal was
// carried out when its run had been reported.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { followUpId, newTransitionId, readIdentity } from '../../src/agent/identity.ts'
import { buildPending, buildRunning, buildState } from '../../src/prefect/states.ts'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { never, openStage } from './stage.ts'

/** Claims younger than a minute may be in a journal that this agent does not see. */
const oldEnoughMs = 61_000

// Side by side, for they wait for a minute.
describe('states that no journal remembers are undone: what waited is run once, what was over stays over', {
  concurrency: true,
}, () => {
  for (const version of ['prefect2', 'prefect3'] as const) test(version, needs(version), () => checkOrphans(version))
})

async function checkOrphans(version: 'prefect2' | 'prefect3'): Promise<void> {
  await using server = await startPrefectServer(version)
  await using stage = await openStage(server.apiUrl)
  const name = 'an agent that lost its state folder'
  const claim = async (id: string) => {
    const transitionId = newTransitionId(readIdentity(stage.directory, name))
    await stage.client.setFlowRunState(id, buildPending({ transitionId }), { claim: true }, never)
    return transitionId
  }
  const sayRunning = async (id: string, claimedBy: string) => {
    const transitionId = followUpId(claimedBy, 'running')
    const { status } = await stage.client.setFlowRunState(id, buildRunning({ transitionId }), {}, never)
    assert.equal(status, 'ACCEPT')
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
  // RUNNING was sent twice, and the first of the two is carried out when the run has been reported.
  const belated = await stage.run(deployment)
  const belatedClaim = await claim(belated.id)
  await sayRunning(belated.id, belatedClaim)
  const report = { message: 'reported', transitionId: followUpId(belatedClaim, 'report') }
  await stage.client.setFlowRunState(belated.id, buildState('FAILED', report), {}, never)
  await sayRunning(belated.id, belatedClaim)
  // An agent of this name has it, whose state folder this one does not see.
  const running = await stage.run(deployment)
  await sayRunning(running.id, await claim(running.id))
  await delay(oldEnoughMs)
  await using agent = stage.startAgent({ name })
  const done = await stage.waitFor(waiting.id, ['COMPLETED'], 60_000)
  assert.match(done.state?.message ?? '', /exit code 0/, agent.output)
  await until(async () => (await stage.readRun(ended.id)).state_type === 'COMPLETED')
  assert.equal((await stage.readRun(ended.id)).state?.message, 'long ago', agent.output)
  await until(async () => (await stage.readRun(belated.id)).state_type === 'FAILED')
  assert.equal((await stage.readRun(belated.id)).state?.message, 'reported', agent.output)
  assert.equal((await stage.readRun(theirs.id)).state_type, 'PENDING')
  assert.equal((await stage.readRun(running.id)).state_type, 'RUNNING')
  assert.deepEqual(
    [waiting, ended, theirs, belated, running].map(run => stage.starts(run.id)),
    [1, 0, 0, 0, 0],
    agent.output,
  )
}
