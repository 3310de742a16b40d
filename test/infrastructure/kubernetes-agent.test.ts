// The real agent, a real Prefect 2.20.25 server and real pods: flows, commands, kills at every call, cancellation.

import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { buildState } from '../../src/prefect/states.ts'
import { killPoints } from '../agent/kill-points.ts'
import { type AgentProcess, never, openStage, type Stage } from '../agent/stage.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { KubernetesProxy } from './kubernetes-proxy.ts'
import { fetchedHere, KubernetesScene, over } from './kubernetes-scene.ts'

const options = { ...needs('prefect2', 'kubernetes'), timeout: 1_500_000, concurrency: 3 }

describe('an agent with Jobs', options, () => {
  let scene: KubernetesScene
  before(async () => {
    scene = await KubernetesScene.open()
  })
  after(() => scene[Symbol.asyncDispose]())

  test('a Python flow runs in a pod of an image without its code, and reports to the server itself', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    const code = join(stage.directory, 'code')
    await mkdir(join(code, 'data'), { recursive: true })
    await writeFile(
      join(code, 'flow.py'),
      `import os
from prefect import flow, task, get_run_logger

@task
def twice(n):
    return 2 * n

@flow
def hello(n: int = 1):
    get_run_logger().info("in %s with %s", os.getcwd(), twice(n))
    print("printed", open("data/data.txt").read())
`,
    )
    await writeFile(join(code, 'data', 'data.txt'), 'from the workspace')
    const block = await scene.createBlock(stage, { image: 'rigel.test/prefect:2.20.25', env: fetchedHere })
    const deployment = await stage.deploy({
      path: code,
      entrypoint: 'flow.py:hello',
      infrastructure_document_id: block,
      parameters: { n: 21 },
    })
    await using agent = scene.startAgent(stage)
    const run = await stage.run(deployment)
    const done = await stage.waitFor(run.id, over, 300_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    assert.match(done.infrastructure_pid ?? '', /^[0-9a-f-]{36}:rigel-test-[0-9a-f]+:[a-z0-9-]+-[0-9a-f]{8}$/)
    // The engine sends its last lines beside its last state.
    await until(
      async () => {
        const logs = await stage.client.readLogs({ logs: { flow_run_id: { any_: [run.id] } } }, never)
        return logs.some(({ message }) => message === 'in /rigel/workspace with 42')
      },
      { timeoutMs: 30_000, what: 'what the flow has logged' },
    )
    await until(() => agent.output.includes('printed from the workspace'))
  })

  test('a plain command that fails in its pod is Failed with its code', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    await using agent = scene.startAgent(stage)
    const run = await stage.run(await scene.deployCommand(stage, 'echo reason; exit 3'))
    const done = await stage.waitFor(run.id, over, 120_000)
    assert.equal(done.state_type, 'FAILED', agent.output)
    assert.match(done.state?.message ?? '', /\b3\b.*reason/s)
  })

  test('an image that is nowhere ends the run as Crashed, with the reason', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    await using agent = scene.startAgent(stage)
    const settings = { image: 'rigel.test/nobody:1', pod_watch_timeout_seconds: 3 }
    const run = await stage.run(await scene.deployCommand(stage, 'true', settings))
    const done = await stage.waitFor(run.id, over, 120_000)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    assert.match(done.state?.message ?? '', /[Ii]mage "rigel.test\/nobody:1" could not be pulled/)
    await until(async () => (await scene.jobsOf(run.id)) === 0, { timeoutMs: 60_000, what: 'its Job to be gone' })
  })

  test('a run that is cancelled has its Job ended and is Cancelled', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    await using agent = scene.startAgent(stage)
    const run = await stage.run(await scene.deployCommand(stage, 'trap "" TERM; sleep 300'))
    await until(() => stage.starts(run.id) === 1, { timeoutMs: 120_000 })
    await stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
    const done = await stage.waitFor(run.id, over, 120_000)
    assert.equal(done.state_type, 'CANCELLED', agent.output)
    assert.equal(await scene.jobsOf(run.id), 0)
  })

  test('a run that is deleted on the server leaves no Job', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    await using agent = scene.startAgent(stage)
    const run = await stage.run(await scene.deployCommand(stage, 'sleep 300'))
    await until(() => stage.starts(run.id) === 1, { timeoutMs: 120_000 })
    const answer = await fetch(`${scene.server.apiUrl}/flow_runs/${run.id}`, { method: 'DELETE' })
    assert.equal(answer.status, 204)
    await until(async () => (await scene.jobsOf(run.id)) === 0, { timeoutMs: 120_000, what: agent.output })
  })

  test('an agent that cannot detach, as in a pod of its own, lets go of its Jobs all the same', async () => {
    await using stage = await openStage(scene.server.apiUrl)
    const run = await stage.run(await scene.deployCommand(stage, 'while [ ! -e /ledger/go ]; do sleep 0.1; done'))
    await using first = scene.startAgent(stage, { onStop: 'kill-own', drainSeconds: 0 })
    await until(() => stage.starts(run.id) === 1, { timeoutMs: 120_000 })
    first.signal('SIGTERM')
    assert.equal(await first.ended(), 0, first.output)
    await using second = scene.startAgent(stage)
    await second.isPolling()
    await writeFile(join(stage.directory, 'go'), '')
    const done = await stage.waitFor(run.id, over, 120_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${first.output}\n${second.output}`)
    assert.equal(stage.starts(run.id), 1)
  })

  /** The first agent is killed, the second carries on: one START, one END, the right state, one Job. */
  const carryOn = async (stage: Stage, begin: () => AgentProcess): Promise<void> => {
    const deployment = await scene.deployCommand(stage, 'echo working; sleep 1')
    const run = await stage.run(deployment)
    await using first = begin()
    assert.equal(await first.ended(), 'SIGKILL', first.output)
    await using second = scene.startAgent(stage)
    const done = await stage.waitFor(run.id, over, 120_000)
    await second.isPolling()
    second.signal('SIGTERM')
    await until(() => second.hasEnded, { timeoutMs: 15_000, what: 'the agent to end, for nothing holds it' })
    assert.equal(await second.ended(), 0, second.output)
    const output = `${done.state?.message}\n${first.output}\n${second.output}`
    assert.equal(done.state_type, 'COMPLETED', output)
    const whats = stage.ledger(run.id).map(line => line.what)
    assert.deepEqual(whats, ['START', 'END'], output)
    assert.equal(await scene.jobsOf(run.id), 1, output)
  }

  for (const point of killPoints) {
    test(`an agent that is killed at "${point}" has its Job carried on exactly once by the next one`, async () => {
      await using stage = await openStage(scene.server.apiUrl)
      await carryOn(stage, () => scene.startAgent(stage, { killAt: point }))
    })
  }

  const calls: readonly (readonly [string, RegExp])[] = [
    ['creates the Job', /^POST .*\/jobs/],
    ['brings the secrets', /^POST .*\/secrets/],
    ['brings the code', /^POST .*\/configmaps/],
    ['lets it go', /^PATCH .*\/jobs\//],
    ['watches', /^GET .*\/pods\?.*watch=true/],
    ['reads output', /^GET .*\/log\?/],
  ]
  for (const [what, call] of calls) {
    for (const when of ['before', 'after'] as const) {
      test(`an agent that is killed just ${when} the call that ${what} has its Job carried on exactly once`, async () => {
        await using stage = await openStage(scene.server.apiUrl)
        await using proxy = await KubernetesProxy.start()
        await carryOn(stage, () => {
          const agent = scene.startAgent(stage, {}, proxy.environment)
          proxy.on(call, { kind: 'tell', when, tell: () => agent.signal('SIGKILL') })
          return agent
        })
      })
    }
  }
})
