// SIGKILL of the agent before and after every step of a run, then a new start. The ledger is the judge: one START, one END,
// in one process, and the right final state on the server.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { killPoints } from './kill-points.ts'
import { openStage, type Stage } from './stage.ts'

describe('an agent that is killed', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  for (const point of killPoints) {
    test(`at "${point}" has its run carried on exactly once by the next one`, async () => {
      await using stage = await openStage(server.apiUrl)
      await carryOn(stage, point)
    })
  }
})

async function carryOn(stage: Stage, killAt: string): Promise<void> {
  const deployment = await stage.deployCommand({ script: 'echo working; sleep 1' })
  const run = await stage.run(deployment)
  await using first = stage.startAgent({ killAt })
  assert.equal(await first.ended(), 'SIGKILL', first.output)
  await using second = stage.startAgent()
  const done = await stage.waitFor(run.id, ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'])
  await second.isPolling()
  second.signal('SIGTERM')
  assert.equal(await second.ended(), 0, second.output)
  assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${first.output}\n${second.output}`)
  const [start, end, ...more] = stage.ledger(run.id)
  assert.deepEqual([start?.what, end?.what, more], ['START', 'END', []], `${first.output}\n${second.output}`)
  assert.equal(start?.pid, end?.pid)
}
