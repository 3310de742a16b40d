// Python flows under the agent, in Prefect's own engine, on real servers: what a flow can do under Prefect's agent it can do
// under ours, and what its engine reports stays as it was reported.

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { buildState } from '../../src/prefect/states.ts'
import type { FlowRun } from '../../src/prefect/types.ts'
import { findPrefect, type PrefectServer, type PrefectVersion, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type AgentProcess, never, openStage, type Stage } from './stage.ts'

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const
/** An import of Prefect takes up to 4 s of processor time, and runs share the cores. */
const engineMs = 300_000

const FLOWS = `
import os, subprocess, time
from prefect import flow, task
from prefect.deployments import run_deployment
try:
    from prefect.flow_runs import pause_flow_run, suspend_flow_run
except ImportError:
    from prefect import pause_flow_run, suspend_flow_run

def note(word):
    with open(os.environ["LEDGER"] + ".notes", "a") as file:
        file.write("%s %d\\n" % (word, os.getpid()))

attempts = []

@task(retries=2, retry_delay_seconds=0)
def flaky(n):
    attempts.append(n)
    if len(attempts) < 3:
        raise ValueError("not yet")
    return n + 1

@flow(log_prints=True)
def child(n: int = 0):
    note("child")
    return flaky(n)

@flow(retries=1, retry_delay_seconds=0, log_prints=True)
def main(x: int = 1, names: list = []):
    note("main")
    assert child(x) == x + 1 and names == ["a", "b"], (x, names)
    if len(attempts) < 4:
        attempts.append("once more")
        raise ValueError("the first try fails")

@flow
def calls(name: str):
    run = run_deployment(name, parameters={"n": 5}, poll_interval=1)
    assert run.state.is_completed(), run.state

@flow
def fails():
    raise RuntimeError("for good")

@flow
def pauses():
    pause_flow_run(timeout=600, poll_interval=1)
    note("resumed")

@flow
def suspends():
    note("begun")
    suspend_flow_run(timeout=600)
    note("resumed")

@flow
def sleeps():
    subprocess.Popen(["setsid", "sleep", "600"])
    note("sleeping")
    time.sleep(600)

@flow
def vanishes():
    print("last words", flush=True)
    os._exit(0)
`

for (const which of ['prefect2', 'prefect3'] as const) {
  describe(`a Python flow under the agent, on ${which}`, needs(which), () => {
    let server: PrefectServer
    before(async () => {
      server = await startPrefectServer(which)
    })
    after(() => server[Symbol.asyncDispose]())

    test('has parameters, retries, tasks and sub-flows', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('main', { x: 3, names: ['a', 'b'] })
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${scene.agent.output}`)
      assert.equal(done.run_count, 2)
      assert.match(done.infrastructure_pid ?? '', /:\d+$/)
    })

    test('starts a run of another deployment and waits for it', async () => {
      await using scene = await openScene(server, which)
      const other = await scene.deploy('child')
      const run = await scene.run('calls', { name: `${other.flow}/${other.name}` })
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${scene.agent.output}`)
      assert.equal(scene.notes('child').length, 1)
    })

    test('that fails stays Failed, in its own words', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('fails')
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'FAILED', scene.agent.output)
      await scene.isForgotten()
      const after = await scene.stage.readRun(run.id)
      assert.equal(after.state?.id, done.state?.id)
      assert.match(after.state?.message ?? '', /for good/)
    })

    test('that pauses goes on in the same process when it is resumed', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('pauses')
      await scene.stage.waitFor(run.id, ['PAUSED'], engineMs)
      await scene.stage.send('POST', `/flow_runs/${run.id}/resume`)
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'COMPLETED', scene.agent.output)
      await until(() => scene.count('flow run started') > 0)
      assert.equal(scene.count('flow run started'), 1)
    })

    test('that suspends is let go, and its run completes in a second process when it is resumed', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('suspends')
      await scene.stage.waitFor(run.id, ['PAUSED'], engineMs)
      await scene.isForgotten()
      assert.equal((await scene.stage.readRun(run.id)).state_type, 'PAUSED')
      await scene.stage.send('POST', `/flow_runs/${run.id}/resume`)
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'COMPLETED', scene.agent.output)
      await until(() => scene.count('flow run started') > 1)
      assert.equal(scene.count('flow run started'), 2)
      assert.equal(scene.notes('resumed').length, 1)
    })

    test('that is cancelled ends with all that it has started', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('sleeps')
      await until(() => scene.notes('sleeping').length === 1, { timeoutMs: engineMs })
      await scene.stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
      // For a moment the engine of Prefect 3 calls that a crash.
      await until(async () => (await scene.stage.readRun(run.id)).state_type === 'CANCELLED', { timeoutMs: engineMs })
      assert.deepEqual(findByEnvironment(run.id), [])
    })

    test('whose process ends without a word is Crashed, with the reason', async () => {
      await using scene = await openScene(server, which)
      const run = await scene.run('vanishes')
      const done = await scene.stage.waitFor(run.id, over, engineMs)
      assert.equal(done.state_type, 'CRASHED', scene.agent.output)
      assert.match(done.state?.message ?? '', /last words/)
    })
  })
}

interface Scene extends AsyncDisposable {
  readonly stage: Stage
  readonly agent: AgentProcess
  deploy(flow: string): Promise<{ readonly flow: string; readonly name: string }>
  run(flow: string, parameters?: Record<string, unknown>): Promise<FlowRun>
  /** Process ids that noted this word. */
  notes(word: string): readonly number[]
  /** How often the agent has logged this phrase. */
  count(phrase: string): number
  /** Waits until the journal is empty. */
  isForgotten(): Promise<void>
}

async function openScene(server: PrefectServer, which: PrefectVersion): Promise<Scene> {
  const stage = await openStage(server.apiUrl)
  const code = join(stage.directory, 'flows')
  mkdirSync(code)
  writeFileSync(join(code, 'flows.py'), FLOWS)
  const agent = stage.startAgent({ python: join(findPrefect(which), 'bin', 'python') })
  const deploy = (flow: string) => stage.deploy({ path: code, entrypoint: `flows.py:${flow}` })
  return {
    stage,
    agent,
    async deploy(flow) {
      const { name } = await deploy(flow)
      return { flow: `flow-${name}`, name }
    },
    run: async (flow, parameters = {}) => stage.run(await deploy(flow), { parameters }),
    notes(word) {
      const lines = readLines(`${stage.ledgerFile}.notes`).map(line => line.split(' '))
      return lines.filter(([first]) => first === word).map(([, pid]) => Number(pid))
    },
    count: phrase => agent.output.split(phrase).length - 1,
    async isForgotten() {
      await until(() => readdirSync(join(stage.stateDirectory, 'runs')).length === 0)
    },
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]()
      await stage[Symbol.asyncDispose]()
    },
  }
}

function readLines(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').trim().split('\n')
  } catch {
    return [] // nobody has written yet
  }
}

/** Living processes that carry the run's id in their environment. */
function findByEnvironment(flowRunId: string): string[] {
  return readdirSync('/proc').filter(pid => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(flowRunId)
    } catch {
      return false // it has ended meanwhile
    }
  })
}
