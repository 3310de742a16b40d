import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createLogger } from '../../src/logger.ts'
import { buildApp } from '../../src/server/app.ts'
import { Database } from '../../src/server/database.ts'
import {
  cleanUpCancelled,
  failExpiredPauses,
  markLateRuns,
  markNotReady,
  planScheduledRuns,
  SchedulerBell,
} from '../../src/server/services.ts'
import { makeDirectory } from '../support/directory.ts'
import { until } from '../support/until.ts'
import { type Body, startEmbedded } from './embedded.ts'

/** The routes without the clock: a test decides when a service works. */
async function makeBench() {
  const directory = await makeDirectory()
  const database = new Database(join(directory.path, 'test.db'))
  const logger = createLogger({ level: 'CRITICAL', pretty: false, destination: { write: () => undefined } })
  const app = buildApp({ database, bell: new SchedulerBell(), logger, allowedHosts: undefined })
  const call = async (method: string, path: string, body?: unknown): Promise<Body> => {
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const headers = { 'content-type': 'application/json' }
    const response = await app.request(`/api${path}`, { method, headers, ...init })
    const text = await response.text()
    assert.ok(response.ok, `${path} answered ${response.status}: ${text}`)
    return JSON.parse(text || 'null')
  }
  return {
    database,
    call,
    async makeDeployment(columns: object = {}): Promise<Body> {
      const flow = await call('POST', '/flows/', { name: 'main' })
      return await call('POST', '/deployments/', { name: 'd', flow_id: flow.id, work_queue_name: 'q', ...columns })
    },
    async [Symbol.asyncDispose]() {
      database[Symbol.dispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

const pause = (timeout: string) => ({ state: { type: 'PAUSED', state_details: { pause_timeout: timeout } } })
/** From now on no time goes by: none is spent between what a test says of a moment and what a service makes of it. */
const stopClock = (t: TestContext): void => t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
const ago = (seconds: number): string => new Date(Date.now() - seconds * 1000).toISOString()

test('a run that nobody takes is called late after fifteen seconds, and stays due', async t => {
  stopClock(t)
  await using bench = await makeBench()
  const { id } = await bench.makeDeployment()
  const start = (seconds: number) =>
    bench.call('POST', `/deployments/${id}/create_flow_run`, {
      state: { type: 'SCHEDULED', state_details: { scheduled_time: ago(seconds) } },
    })
  const late = await start(16)
  const punctual = await start(10)
  markLateRuns(bench.database)
  const read = async (run: Body) => await bench.call('GET', `/flow_runs/${run.id}`)
  assert.deepEqual([(await read(late)).state_type, (await read(late)).state_name], ['SCHEDULED', 'Late'])
  assert.equal((await read(late)).next_scheduled_start_time, late.next_scheduled_start_time)
  assert.equal((await read(punctual)).state_name, 'Scheduled')
})

test('a pause that nobody ends in time fails its run', async () => {
  await using bench = await makeBench()
  const { id } = await bench.makeDeployment()
  const expired = await bench.call('POST', `/deployments/${id}/create_flow_run`, pause(ago(1)))
  const open = await bench.call('POST', `/deployments/${id}/create_flow_run`, pause(ago(-60)))
  failExpiredPauses(bench.database)
  assert.equal((await bench.call('GET', `/flow_runs/${expired.id}`)).state_type, 'FAILED')
  assert.equal((await bench.call('GET', `/flow_runs/${open.id}`)).state_type, 'PAUSED')
})

test('tasks and sub-flows of a cancelled run are cancelled, those of others are not', async () => {
  await using bench = await makeBench()
  const { id } = await bench.makeDeployment()
  const family = async () => {
    const parent = await bench.call('POST', `/deployments/${id}/create_flow_run`, { state: { type: 'RUNNING' } })
    const keys = { flow_run_id: parent.id, task_key: 't', state: { type: 'RUNNING' } }
    const task = await bench.call('POST', '/task_runs/', { ...keys, dynamic_key: '0' })
    const stand = await bench.call('POST', '/task_runs/', { ...keys, dynamic_key: '1' })
    const child = { parent_task_run_id: stand.id, state: { type: 'RUNNING' } }
    const deployed = await bench.call('POST', `/deployments/${id}/create_flow_run`, child)
    return { parent, task, deployed }
  }
  const cancelled = await family()
  const other = await family()
  await bench.call('POST', `/flow_runs/${cancelled.parent.id}/set_state`, { state: { type: 'CANCELLED' } })
  cleanUpCancelled(bench.database)
  const states = async ({ task, deployed }: Awaited<ReturnType<typeof family>>) => [
    (await bench.call('GET', `/task_runs/${task.id}`)).state_type,
    (await bench.call('GET', `/flow_runs/${deployed.id}`)).state_type,
  ]
  assert.deepEqual(await states(cancelled), ['CANCELLED', 'CANCELLING'])
  assert.deepEqual(await states(other), ['RUNNING', 'RUNNING'])
})

test('a queue that nobody polls any more is not ready', async () => {
  await using bench = await makeBench()
  await bench.makeDeployment()
  const queue = await bench.call('GET', '/work_queues/name/q')
  await bench.call('POST', `/work_queues/${queue.id}/get_runs`, {})
  markNotReady(bench.database)
  assert.equal((await bench.call('GET', '/work_queues/name/q')).status, 'READY')
  await bench.call('PATCH', `/work_queues/${queue.id}`, { last_polled: ago(61) })
  markNotReady(bench.database)
  assert.equal((await bench.call('GET', '/work_queues/name/q')).status, 'NOT_READY')
})

test('scheduled runs are planned ahead, each once, and taken back when the schedule goes', async t => {
  stopClock(t)
  await using bench = await makeBench()
  const schedules = [{ schedule: { interval: 1800, anchor_date: '2026-01-01T00:00:00Z' }, active: true }]
  const { id } = await bench.makeDeployment({ schedules, tags: ['mine'], parameters: { x: 1 } })
  const list = () => bench.call('POST', '/flow_runs/filter', { sort: 'EXPECTED_START_TIME_ASC' })
  planScheduledRuns(bench.database)
  planScheduledRuns(bench.database)
  const runs = await list()
  assert.equal(runs.length, 3)
  assert.ok(runs.every(run => run.auto_scheduled && run.state_type === 'SCHEDULED'))
  assert.deepEqual(runs[0]?.tags.toSorted(), ['auto-scheduled', 'mine'])
  assert.deepEqual(runs[0]?.parameters, { x: 1 })
  assert.match(runs[0]?.next_scheduled_start_time ?? '', /:[03]0:00\.000000\+00:00$/)
  await bench.call('POST', `/deployments/${id}/pause_deployment`, {})
  planScheduledRuns(bench.database)
  assert.equal((await list()).length, 0)
})

test('the first runs of a new schedule are planned within seconds', async () => {
  await using server = await startEmbedded()
  const flow = (await server.call('POST', '/flows/', { name: 'main' })).body
  const schedule = { cron: '* * * * *', timezone: 'UTC' }
  await server.call('POST', '/deployments/', { name: 'd', flow_id: flow.id, work_queue_name: 'q', schedule })
  const planned = async () => (await server.call('POST', '/flow_runs/filter', {})).body.length >= 60
  // The next round by itself would be after a minute.
  await until(planned, { timeoutMs: 45_000, everyMs: 200 })
  assert.deepEqual(server.errors, [])
})
