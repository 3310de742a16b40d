import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeDirectory } from '../support/directory.ts'
import { type EngineExit, runPython, writeFiles } from '../support/engine-run.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type Embedded, startEmbedded } from './embedded.ts'

const FLOWS = `
from time import sleep
from prefect import flow, task, get_run_logger, pause_flow_run, suspend_flow_run
from prefect.deployments import run_deployment
from prefect.tasks import task_input_hash

attempts = []

@task(retries=2, retry_delay_seconds=0)
def flaky(n):
    attempts.append(n)
    if len(attempts) < 3:
        raise ValueError("not yet")
    return n + 1

@task(cache_key_fn=task_input_hash, persist_result=True)
def cached(n):
    return n * 2

@flow(log_prints=True)
def child(n):
    print("child got", n)
    return flaky(n)

@flow
def main(x: int = 1, names: list = []):
    get_run_logger().info("x is %s", x)
    futures = [cached.submit(n) for n in (1, 2)]
    total = sum(f.result() for f in futures)
    return child(x) + total + cached(1)

@flow(retries=1, retry_delay_seconds=0)
def second_time():
    attempts.append(1)
    if len(attempts) < 2:
        raise ValueError("first time")
    run = run_deployment("main/main", parameters={"x": 5}, timeout=0)
    assert run.state.type.value == "SCHEDULED"

@flow
def fails():
    raise RuntimeError("for good")

@flow
def pauses():
    pause_flow_run(timeout=600, poll_interval=1)

@flow
def suspends():
    suspend_flow_run(timeout=600)

@flow
def sleeps():
    sleep(600)
`

interface Bench extends AsyncDisposable {
  readonly server: Embedded
  /** Makes a deployment of the flow and a claimed run of it. */
  makeRun(flow: string, parameters?: object): Promise<string>
  /** Starts Prefect's engine on the run and waits for its end. */
  runEngine(id: string, onStart?: (pid: number) => Promise<void>): Promise<EngineExit>
}

async function makeBench(): Promise<Bench> {
  const server = await startEmbedded()
  const directory = await makeDirectory()
  await writeFiles(directory.path, { 'code/flows.py': FLOWS, 'home/.keep': '', 'work/.keep': '' })
  const post = async (path: string, body: object) => (await server.call('POST', path, body)).body
  return {
    server,
    async makeRun(flow, parameters = {}) {
      const name = flow.replaceAll('_', '-')
      const { id: flow_id } = await post('/flows/', { name })
      const code = { path: join(directory.path, 'code'), entrypoint: `flows.py:${flow}`, work_queue_name: 'q' }
      const deployment = await post('/deployments/', { name, flow_id, ...code })
      const { id } = await post(`/deployments/${deployment.id}/create_flow_run`, { parameters })
      await post(`/flow_runs/${id}/set_state`, { state: { type: 'PENDING' } })
      return id
    },
    runEngine: (id, onStart) =>
      runPython('prefect2', ['-m', 'prefect.engine'], {
        cwd: join(directory.path, 'work'),
        env: { PREFECT_API_URL: server.apiUrl, PREFECT_HOME: join(directory.path, 'home'), PREFECT__FLOW_RUN_ID: id },
        ...(onStart ? { onStart } : {}),
      }),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

async function readRun(server: Embedded, id: string) {
  return (await server.call('GET', `/flow_runs/${id}`)).body
}

async function readLogs(server: Embedded, id: string): Promise<string> {
  const { body } = await server.call('POST', '/logs/filter', { logs: { flow_run_id: { any_: [id] } } })
  return body.map(line => line.message).join('\n')
}

test('a real engine runs a flow with tasks, retries, a cache and a sub-flow', needs('prefect2'), async () => {
  await using bench = await makeBench()
  const id = await bench.makeRun('main', { x: 3 })
  const exit = await bench.runEngine(id)
  const run = await readRun(bench.server, id)
  assert.equal(run.state.type, 'COMPLETED', exit.output)
  assert.equal(run.run_count, 1)
  assert.match(await readLogs(bench.server, id), /x is 3/)

  const tasks = (await bench.server.call('POST', '/task_runs/filter', { flow_runs: { id: { any_: [id] } } })).body
  assert.deepEqual(
    tasks.map(task => task.state_name).toSorted(),
    ['Cached', 'Completed', 'Completed', 'Completed'],
    'one of three calls of the cached task is answered from the cache; the fourth is the sub-flow',
  )
  const filter = { flow_runs: { parent_flow_run_id: { any_: [id] } } }
  const [child] = (await bench.server.call('POST', '/flow_runs/filter', filter)).body
  assert.equal(child?.state.type, 'COMPLETED')
  assert.match(await readLogs(bench.server, child?.id ?? ''), /child got 3/)
  const [flaky] = (await bench.server.call('POST', '/task_runs/filter', { flow_runs: { id: { any_: [child?.id] } } }))
    .body
  assert.equal(flaky?.run_count, 3)
  assert.deepEqual(bench.server.errors, [])
})

const retried = 'a real engine runs a flow again that fails the first time, and that starts a run of another deployment'
test(retried, needs('prefect2'), async () => {
  await using bench = await makeBench()
  await bench.makeRun('main')
  const id = await bench.makeRun('second_time')
  const exit = await bench.runEngine(id)
  const run = await readRun(bench.server, id)
  assert.deepEqual([run.state.type, run.run_count], ['COMPLETED', 2], exit.output)
  const filter = { flow_runs: { state: { type: { any_: ['SCHEDULED'] } } } }
  const [other] = (await bench.server.call('POST', '/flow_runs/filter', filter)).body
  assert.deepEqual(other?.parameters, { x: 5 })
})

test('a real engine reports a flow that fails, with its logs', needs('prefect2'), async () => {
  await using bench = await makeBench()
  const id = await bench.makeRun('fails')
  const exit = await bench.runEngine(id)
  const run = await readRun(bench.server, id)
  assert.equal(exit.code, 0)
  assert.equal(run.state.type, 'FAILED')
  assert.match(run.state.message, /for good/)
  assert.match(await readLogs(bench.server, id), /RuntimeError/)
})

test('a real engine that pauses goes on when its run is resumed', needs('prefect2'), async () => {
  await using bench = await makeBench()
  const id = await bench.makeRun('pauses')
  await bench.runEngine(id, async () => {
    await until(async () => (await readRun(bench.server, id)).state_type === 'PAUSED')
    const { status, body } = await bench.server.call('POST', `/flow_runs/${id}/resume`, {})
    assert.deepEqual([status, body.status], [201, 'ACCEPT'])
  })
  assert.equal((await readRun(bench.server, id)).state.type, 'COMPLETED')
})

test('a real engine that suspends ends, and its run completes in a second one', needs('prefect2'), async () => {
  await using bench = await makeBench()
  const id = await bench.makeRun('suspends')
  const exit = await bench.runEngine(id)
  const suspended = await readRun(bench.server, id)
  assert.deepEqual([suspended.state_type, suspended.state_name], ['PAUSED', 'Suspended'], exit.output)
  await bench.server.call('POST', `/flow_runs/${id}/resume`, {})
  const resuming = await readRun(bench.server, id)
  assert.deepEqual([resuming.state_type, resuming.state_name], ['SCHEDULED', 'Resuming'])
  await bench.server.call('POST', `/flow_runs/${id}/set_state`, { state: { type: 'PENDING' } })
  await bench.runEngine(id)
  assert.equal((await readRun(bench.server, id)).state.type, 'COMPLETED')
})

test('an engine that is ended while its run is Cancelling leaves it so', needs('prefect2'), async () => {
  await using bench = await makeBench()
  const id = await bench.makeRun('sleeps')
  const exit = await bench.runEngine(id, async pid => {
    await until(async () => (await readRun(bench.server, id)).state_type === 'RUNNING')
    await bench.server.call('POST', `/flow_runs/${id}/set_state`, { state: { type: 'CANCELLING' } })
    process.kill(pid, 'SIGTERM')
  })
  assert.equal(exit.signal, 'SIGTERM')
  assert.equal((await readRun(bench.server, id)).state.type, 'CANCELLING')
  const forced = { state: { type: 'CANCELLED' }, force: true }
  const { body } = await bench.server.call('POST', `/flow_runs/${id}/set_state`, forced)
  assert.equal(body.state.type, 'CANCELLED')
})
