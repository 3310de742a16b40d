// Proposals of ours that stand on the server and in no journal: carried out when their run had been reported, or made with
// another state folder, by an agent of the same name or before the folder was lost.

import assert from 'node:assert/strict'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { followUpId, newTransitionId, readIdentity } from '../../src/agent/identity.ts'
import { buildPending, buildRunning, buildState } from '../../src/prefect/states.ts'
import type { Deployment } from '../../src/prefect/types.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { never, openStage, type Stage } from './stage.ts'

describe('states that no journal remembers are undone: what waited is run once, what was over stays over', () => {
  for (const version of ['prefect2', 'prefect3'] as const) test(version, needs(version), () => checkOrphans(version))
})

async function checkOrphans(version: 'prefect2' | 'prefect3'): Promise<void> {
  await using server = await startPrefectServer(version)
  await using stage = await openStage(server.apiUrl)
  const name = 'an agent whose proposals came late'
  mkdirSync(stage.stateDirectory)
  const claim = async (id: string) => {
    const transitionId = newTransitionId(readIdentity(stage.stateDirectory, name))
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
  // It may be in hand.
  const running = await stage.run(deployment)
  await sayRunning(running.id, await claim(running.id))
  await using agent = stage.startAgent({ name })
  const done = await stage.waitFor(waiting.id, ['COMPLETED'])
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

describe('runs of an agent that has the same name and another state folder', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  const name = 'twin'
  const complaint = /an agent of this name has claimed flow runs with another state folder/

  test('are left alone while a command keeps them Pending, and that is said', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await deployBlockCommand(stage))
    await using one = stage.startAgent({ name })
    await until(() => stage.starts(run.id) === 1, { what: 'the command to be started' })
    await using two = stage.startAgent({ name, stateDirectory: join(stage.directory, 'other-state') })
    await until(() => complaint.test(two.output) || stage.starts(run.id) > 1, { timeoutMs: 300_000 })
    assert.match(two.output, new RegExp(run.id))
    assert.equal((await stage.readRun(run.id)).state_type, 'PENDING', two.output)
    stage.give('go')
    await stage.waitFor(run.id, ['COMPLETED'])
    assert.equal(stage.starts(run.id), 1, one.output)
  })

  test('are left alone by the next agent when that folder is lost', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await deployBlockCommand(stage))
    const lost = stage.startAgent({ name })
    await until(() => stage.starts(run.id) === 1, { what: 'the command to be started' })
    await lost[Symbol.asyncDispose]()
    rmSync(stage.stateDirectory, { recursive: true })
    await using next = stage.startAgent({ name })
    await until(() => complaint.test(next.output) || stage.starts(run.id) > 1, { timeoutMs: 300_000 })
    assert.match(next.output, new RegExp(run.id))
    assert.equal((await stage.readRun(run.id)).state_type, 'PENDING', next.output)
    assert.equal(stage.starts(run.id), 1)
    stage.give('go')
    await until(() => stage.ledger(run.id).length === 2)
  })
})

/** A block's own command, which nobody says is Running; it ends when the stage gives `go`. */
async function deployBlockCommand(stage: Stage): Promise<Deployment> {
  const type = await stage.client.readBlockTypeBySlug('process', never)
  assert.ok(type)
  const [schema] = await stage.client.readBlockSchemas(type.id, never)
  assert.ok(schema)
  const script = `
echo "START $PREFECT__FLOW_RUN_ID $$" >> "$LEDGER"
${stage.awaits('go')}
echo "END $PREFECT__FLOW_RUN_ID $$" >> "$LEDGER"`
  const block = { block_type_id: type.id, block_schema_id: schema.id, is_anonymous: true }
  const data = { command: ['sh', '-c', script] }
  const { id } = await stage.client.createBlockDocument({ ...block, data }, never)
  return stage.deploy({ infrastructure_document_id: id, entrypoint: 'none.py:flow' })
}
