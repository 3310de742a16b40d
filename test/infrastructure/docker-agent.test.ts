// The real agent, a real Prefect 2.20.25 server and real containers: flows, commands, kills at every call, cancellation.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { buildState } from '../../src/prefect/states.ts'
import type { Deployment, FlowRun } from '../../src/prefect/types.ts'
import { killPoints } from '../agent/kill-points.ts'
import { type AgentProcess, never, type Stage } from '../agent/stage.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { createBlock, deployCommand, openDockerStage, startAgent } from './docker-agent.ts'
import { DockerProxy } from './docker-proxy.ts'
import { busybox } from './docker-subject.ts'

const prefectImage = 'rigel.test/prefect:2.20.25'
const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

describe('an agent with containers', { ...needs('prefect2', 'docker'), concurrency: 3, timeout: 1_200_000 }, () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  test('a Python flow runs in a container of an image without its code, and reports to the server itself', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    const code = await writePythonFlow(stage)
    const block = await createBlock(stage, {
      image: prefectImage,
      env: { RIGEL_FETCH: 'agent' },
    })
    const deployment = await stage.deploy({
      path: code,
      entrypoint: 'flow.py:hello',
      infrastructure_document_id: block,
      parameters: { n: 21 },
    })
    await using agent = startAgent(stage)
    const run = await stage.run(deployment)
    const done = await stage.waitFor(run.id, over, 300_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    assert.match(done.infrastructure_pid ?? '', /^http\+docker:\/\/localhost:[0-9a-f]{64}$/)
    await stage.hasLogged(run.id, 'in /rigel/workspace with 42')
    await until(() => agent.output.includes('printed from the workspace'))
  })

  test('a Python flow that the image has is loaded from there, by the engine in the container', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    // What the image has at this path; the agent's machine has nothing there.
    const volumes = [`${await writePythonFlow(stage)}:/opt/flows:ro`]
    const deployment = await stage.deploy({
      path: '/opt/flows',
      entrypoint: 'flow.py:hello',
      infrastructure_document_id: await createBlock(stage, { image: prefectImage, volumes }),
      parameters: { n: 4 },
    })
    await using agent = startAgent(stage)
    const run = await stage.run(deployment)
    const done = await stage.waitFor(run.id, over, 300_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    await stage.hasLogged(run.id, 'in /opt/prefect with 8')
  })

  test('folders of several pull steps are all in the container, where the run begins in that of the last', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    const lib = await makeRepository(stage, 'lib', { 'words.txt': 'from the other clone' })
    const code = await makeRepository(stage, 'code', { 'job.sh': '#!/bin/sh\npwd\ncat ../lib/words.txt\n' })
    const block = await createBlock(stage, { image: busybox, env: {} })
    const deployment = await stage.deploy({
      entrypoint: './job.sh',
      pull_steps: [lib, code].map(repository => ({ 'prefect.deployments.steps.git_clone': { repository } })),
      infrastructure_document_id: block,
    })
    await using agent = startAgent(stage)
    const run = await stage.run(deployment)
    const done = await stage.waitFor(run.id, over, 120_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    assert.match(agent.output, /\/rigel\/workspace\/code\b/)
    assert.match(agent.output, /from the other clone/)
  })

  test('a plain command that fails in its container is Failed with its code', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    await using agent = startAgent(stage)
    const run = await stage.run(await deployCommand(stage, 'echo reason; exit 3'))
    const done = await stage.waitFor(run.id, over, 60_000)
    assert.equal(done.state_type, 'FAILED', agent.output)
    assert.match(done.state?.message ?? '', /\b3\b/)
  })

  test('an image that is nowhere ends the run as Crashed, with the reason', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    await using agent = startAgent(stage)
    const run = await stage.run(await deployCommand(stage, 'true', { image: 'rigel.test/nobody:1' }))
    const done = await stage.waitFor(run.id, over, 60_000)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    assert.match(done.state?.message ?? '', /Could not pull image "rigel.test\/nobody:1": .*no such host/)
  })

  test('a run that is cancelled has its container ended and is Cancelled', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    await using agent = startAgent(stage)
    const run = await stage.run(await deployCommand(stage, 'trap "" TERM; sleep 300'))
    await until(() => stage.starts(run.id) === 1, { timeoutMs: 60_000 })
    await stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
    const done = await stage.waitFor(run.id, over, 60_000)
    assert.equal(done.state_type, 'CANCELLED', agent.output)
  })

  test('a run that is cancelled while its image is being pulled is Cancelled, and no container is made', async () => {
    await using stage = await openDockerStage(server.apiUrl)
    await using registry = await startSilentRegistry()
    await using agent = startAgent(stage)
    const run = await stage.run(await deployCommand(stage, 'true', { image: `127.0.0.1:${registry.port}/team/flow:1` }))
    await until(() => registry.isAsked(), { timeoutMs: 60_000 })
    await stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
    const done = await stage.waitFor(run.id, over, 30_000)
    assert.equal(done.state_type, 'CANCELLED', agent.output)
    assert.equal(stage.starts(run.id), 0)
  })

  for (const point of killPoints) {
    test(`an agent that is killed at "${point}" has its container carried on exactly once by the next one`, async () => {
      await using stage = await openDockerStage(server.apiUrl)
      await carryOn(stage, deployment => ({ deployment, agent: startAgent(stage, { killAt: point }) }))
    })
  }

  const calls: readonly (readonly [string, RegExp])[] = [
    ['create', /^POST \/containers\/create/],
    ['sends code', /^PUT \/containers\/[^/]+\/archive/],
    ['start', /^POST \/containers\/[^/]+\/start/],
    ['looks', /^GET \/containers\/[^/]+\/json/],
    ['reads output', /^GET \/containers\/[^/]+\/logs/],
    ['removes', /^DELETE \/containers\//],
  ]
  for (const [what, call] of calls) {
    for (const when of ['before', 'after'] as const) {
      test(`an agent that is killed just ${when} the call that ${what} has its container carried on exactly once`, async () => {
        await using stage = await openDockerStage(server.apiUrl)
        await using proxy = await DockerProxy.start()
        await carryOn(stage, deployment => {
          const agent = startAgent(stage, {}, proxy.environment)
          proxy.on(call, { kind: 'tell', when, tell: () => agent.signal('SIGKILL') })
          return { deployment, agent }
        })
      })
    }
  }
})

/** Accepts connections and never says a word. */
async function startSilentRegistry() {
  const sockets = new Set<Socket>()
  const server = createServer(socket => void sockets.add(socket.on('error', () => undefined)))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    isAsked: () => sockets.size > 0,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** A folder with a flow `hello(n)` and a file that it reads. */
async function writePythonFlow(stage: Stage): Promise<string> {
  const code = join(stage.directory, 'code')
  await mkdir(code)
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
    print("printed", open("data.txt").read())
`,
  )
  await writeFile(join(code, 'data.txt'), 'from the workspace')
  return code
}

/** A git repository in the stage's folder; all of its files are executable. */
async function makeRepository(stage: Stage, name: string, files: Readonly<Record<string, string>>): Promise<string> {
  const path = join(stage.directory, 'repositories', name)
  await mkdir(path, { recursive: true })
  for (const [file, text] of Object.entries(files)) await writeFile(join(path, file), text, { mode: 0o755 })
  for (const words of [
    ['init', '-b', 'main'],
    ['add', '.'],
    ['commit', '-m', 'one'],
  ]) {
    const identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org']
    execFileSync('git', [...identity, ...words], { cwd: path, stdio: 'ignore' })
  }
  return path
}

/** The first agent is killed, the second carries on: one START, one END, the right state, and no container left. */
async function carryOn(
  stage: Stage,
  begin: (deployment: Deployment) => { readonly agent: AgentProcess },
): Promise<FlowRun> {
  const deployment = await deployCommand(stage, 'echo working; sleep 1')
  const run = await stage.run(deployment)
  await using first = begin(deployment).agent
  assert.equal(await first.ended(), 'SIGKILL', first.output)
  await using second = startAgent(stage)
  const done = await stage.waitFor(run.id, over, 60_000)
  await second.isPolling()
  second.signal('SIGTERM')
  assert.equal(await second.ended(), 0, second.output)
  const output = `${done.state?.message}\n${first.output}\n${second.output}`
  assert.equal(done.state_type, 'COMPLETED', output)
  assert.deepEqual(
    stage.ledger(run.id).map(line => line.what),
    ['START', 'END'],
    output,
  )
  return done
}
