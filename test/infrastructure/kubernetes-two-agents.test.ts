// Two whole agents on one queue, and runs that the server takes back: one Job for each try, and none that is left over.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { buildScheduled } from '../../src/prefect/states.ts'
import { never, openStage } from '../agent/stage.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { KubernetesScene, over } from './kubernetes-scene.ts'

const options = { ...needs('prefect2', 'kubernetes'), timeout: 400_000 }

suite('agents that share a queue of Jobs', { ...options, concurrency: 2 }, () => {
  let scene: KubernetesScene
  before(async () => {
    scene = await KubernetesScene.open()
  })
  after(() => scene[Symbol.asyncDispose]())

  test('no run is started twice, though one of them is killed and started again', options, async () => {
    await using stage = await openStage(scene.server.apiUrl)
    const deployment = await scene.deployCommand(stage, 'while [ ! -e /ledger/go ]; do sleep 0.1; done')
    const runs = await Promise.all(Array.from({ length: 10 }, () => stage.run(deployment)))
    // So few at once that neither has them all, and none ends before both have begun.
    const plan = (name: string) => ({ name, stateDirectory: join(stage.directory, name), limit: 3 })
    await using one = scene.startAgent(stage, plan('one'))
    await using two = scene.startAgent(stage, plan('two'))
    const haveClaimed = () => [one, two].every(agent => agent.output.includes('flow run claimed'))
    const some = { timeoutMs: 120_000, what: 'both to have claimed, and some runs to be started' }
    await until(() => haveClaimed() && stage.ledger().length >= 4, some)
    one.signal('SIGKILL')
    await one.ended()
    await writeFile(join(stage.directory, 'go'), '')
    await using again = scene.startAgent(stage, plan('one'))
    for (const run of runs) {
      const done = await stage.waitFor(run.id, over, 240_000)
      const output = [one, two, again].map(agent => agent.output).join('\n')
      assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${output}`)
      assert.deepEqual(
        stage.ledger(run.id).map(({ what }) => what),
        ['START', 'END'],
        output,
      )
      assert.equal(await scene.jobsOf(run.id), 1, output)
    }
  })

  for (const [what, delayMs, jobs] of [
    ['for later leaves no Job behind', 3_600_000, 0],
    ['for now has the Job of its first try ended, and is run anew', 0, 1],
  ] as const) {
    test(`a run that is set back to Scheduled on the server ${what}`, options, async () => {
      await using stage = await openStage(scene.server.apiUrl)
      const deployment = await scene.deployCommand(stage, 'trap "" TERM; sleep 300')
      await using agent = scene.startAgent(stage)
      const run = await stage.run(deployment)
      await until(() => stage.starts(run.id) === 1, { timeoutMs: 120_000 })
      const first = await until(async () => (await stage.readRun(run.id)).infrastructure_pid ?? undefined, {
        timeoutMs: 60_000,
        what: 'the pid of the first try',
      })
      const state = buildScheduled({ scheduledTime: new Date(Date.now() + delayMs).toISOString() })
      await stage.client.setFlowRunState(run.id, state, { force: true }, never)
      await until(async () => !(await scene.jobNamesOf(run.id)).includes(first.split(':')[2] ?? ''), {
        timeoutMs: 90_000,
        what: `the first Job to be gone\n${agent.output}`,
      })
      if (jobs === 1) await until(() => stage.starts(run.id) === 2, { timeoutMs: 120_000, what: 'the second try' })
      assert.equal(await scene.jobsOf(run.id), jobs, agent.output)
      const now = await stage.readRun(run.id)
      assert.equal(now.state_type, jobs === 0 ? 'SCHEDULED' : 'RUNNING', agent.output)
      if (jobs === 0) return
      const answer = await fetch(`${scene.server.apiUrl}/flow_runs/${run.id}`, { method: 'DELETE' })
      assert.equal(answer.status, 204)
      await until(async () => (await scene.jobsOf(run.id)) === 0, { timeoutMs: 90_000, what: agent.output })
    })
  }
})
