// Deployments with pull steps under the agent, on a real Prefect 2 server: the agent fetches, the engine does the rest.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findPrefect, type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { openStage } from './stage.ts'

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const
const step = (name: string, inputs: Readonly<Record<string, unknown>>) => ({
  [`prefect.deployments.steps.${name}`]: inputs,
})

/** A repository with a command and a flow that wants the mark of a shell step. */
function makeRepository(directory: string): string {
  const path = join(directory, 'flows')
  mkdirSync(path)
  writeFileSync(join(path, 'job.sh'), '#!/bin/sh\ntest -e ./job.sh && echo "cloned and run"\n', { mode: 0o755 })
  writeFileSync(
    join(path, 'flow.py'),
    'import os\nfrom prefect import flow\n@flow\ndef main():\n    assert os.path.exists(os.environ["LEDGER"] + ".mark")\n',
  )
  const git = (...words: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.org', ...words], {
      cwd: path,
      stdio: 'ignore',
    })
  git('init', '-b', 'main')
  git('add', '.')
  git('commit', '-m', 'one')
  return path
}

describe('a deployment with pull steps', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  test('runs a command from the clone that the agent has made', async () => {
    await using stage = await openStage(server.apiUrl)
    const repository = makeRepository(stage.directory)
    const deployment = await stage.deploy({ entrypoint: './job.sh', pull_steps: [step('git_clone', { repository })] })
    const run = await stage.run(deployment)
    await using agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    assert.match(agent.output, /cloned and run/)
  })

  test('leaves what does more than fetch to the engine, in the right order', async () => {
    await using stage = await openStage(server.apiUrl)
    const repository = makeRepository(stage.directory)
    const script = `touch ${stage.ledgerFile}.mark`
    const pull_steps = [step('git_clone', { repository }), step('run_shell_script', { script })]
    const run = await stage.run(await stage.deploy({ entrypoint: 'flow.py:main', pull_steps }))
    await using agent = stage.startAgent({ python: join(findPrefect('prefect2'), 'bin', 'python') })
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
  })

  test('is not fetched by the agent where the job variables say that the infrastructure does', async () => {
    await using stage = await openStage(server.apiUrl)
    const pull_steps = [step('git_clone', { repository: makeRepository(stage.directory) })]
    const program = join(stage.directory, 'tell.sh')
    writeFileSync(program, 'echo "workspace: $RIGEL_WORKSPACE."')
    const run = async (fetch: string) => {
      const deployment = { entrypoint: `sh ${program}`, pull_steps, infra_overrides: { fetch } }
      return stage.run(await stage.deploy(deployment))
    }
    const runs = [await run('infrastructure'), await run('agent')]
    await using agent = stage.startAgent()
    for (const { id } of runs) {
      const done = await stage.waitFor(id, over)
      assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    }
    const [left = '', brought = ''] = runs.map(({ name }) =>
      agent.output.split('\n').find(line => line.includes(`${name} | workspace: `)),
    )
    assert.match(left, /workspace: \./, agent.output)
    assert.match(brought, /workspace: \/.*\/workspace\/flows\./, agent.output)
  })

  test('that cannot be fetched ends Crashed, with what was tried', async () => {
    await using stage = await openStage(server.apiUrl)
    const repository = join(stage.directory, 'nowhere')
    const run = await stage.run(
      await stage.deploy({ entrypoint: './job.sh', pull_steps: [step('git_clone', { repository })] }),
    )
    await using agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    assert.match(done.state?.message ?? '', /nowhere/)
  })
})
