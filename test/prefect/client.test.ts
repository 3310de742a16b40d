// Every call of the client against real servers of both majors: what we send is accepted, what they answer is understood.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import test from 'node:test'
import type { PrefectClient } from '../../src/prefect/client.ts'
import { buildPending, buildScheduled, buildState, isTerminal } from '../../src/prefect/states.ts'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { failure, makeClient, makeRun, never, typesOf } from './support.ts'

const versions = { prefect2: '2.20.25', prefect3: '3.9.1' } as const

for (const which of ['prefect2', 'prefect3'] as const) {
  test(`the client and a real ${versions[which]} server understand each other`, needs(which), async t => {
    await using server = await startPrefectServer(which)
    await using logged = makeClient(server.apiUrl)
    const { client } = logged

    await t.test('the version is read', async () => {
      assert.match(await client.readVersion(never), which === 'prefect2' ? /^2\./ : /^3\./)
    })

    await t.test('no queue matches a prefix on a fresh server, which has no agent pool yet', async () => {
      assert.deepEqual(await client.matchWorkQueues(['anything'], never), [])
    })

    await t.test('a queue is created, found by name, by id and by prefix, paused, and refused a second time', () =>
      useQueues(client),
    )
    await t.test('more queues than one page holds are all matched', () => matchManyQueues(client))
    await t.test('a run goes from the queue through claim, release and crash', () => useRun(client))
    await t.test('a deployment keeps path, entrypoint, parameters and job variables', () => useDeployment(client))
    await t.test('a block document comes back with its secrets', () => useBlocks(client))
    await t.test('a message with half a character in it is taken', async () => {
      const { run } = await makeRun(client, 'emoji')
      const crashed = buildState('CRASHED', { message: 'no \ud83d disk' })
      const answer = await client.setFlowRunState(run.id, crashed, {}, never)
      assert.deepEqual([answer.status, answer.state?.message], ['ACCEPT', 'no \ufffd disk'])
    })
    await t.test('logs come back in order', () => useLogs(client))
    await t.test('what does not exist is undefined, a write to it is a final error', () => missEverything(client))

    await t.test('a refused body is reported by place, and never echoed', async () => {
      const { run } = await makeRun(client, 'echo')
      const state = { ...buildState('CRASHED', { message: 'hunter2' }), secret_key: 'hunter2' }
      const error = await failure(client.setFlowRunState(run.id, state, {}, never))
      assert.equal(error.status, 422)
      assert.match(error.message, /secret_key/)
      assert.doesNotMatch(error.message, /hunter2/)
      assert.equal(error.isFinal, true)
    })

    // A server that is busy with something else for seconds may be said to be so.
    const warnings = logged.lines.filter(line => line.includes('"level":"warn"'))
    assert.deepEqual(
      warnings.filter(line => !line.includes('does not answer as it should')),
      [],
    )
  })
}

async function useQueues(client: PrefectClient): Promise<void> {
  const name = 'daily reports?'
  const queue = await client.createWorkQueue({ name, concurrency_limit: 3 }, never)
  assert.equal((await client.readWorkQueueByName(name, never))?.id, queue.id)
  assert.equal((await client.readWorkQueue(queue.id, never))?.concurrency_limit, 3)
  await client.updateWorkQueue(queue.id, { is_paused: true }, never)
  const [matched, ...others] = await client.matchWorkQueues(['daily'], never)
  assert.deepEqual([matched?.id, matched?.is_paused, others], [queue.id, true, []])
  const listed = await client.readWorkQueues({ work_queues: { name: { any_: [name] } } }, never)
  assert.deepEqual(
    listed.map(({ id }) => id),
    [queue.id],
  )
  const error = await failure(client.createWorkQueue({ name }, never))
  assert.deepEqual([error.status, error.isFinal], [409, true])
}

async function matchManyQueues(client: PrefectClient): Promise<void> {
  const names = Array.from({ length: 103 }, (_, at) => `many-${at}`)
  for (const name of names) await client.createWorkQueue({ name }, never)
  const matched = await client.matchWorkQueues(['many-', 'nobody-'], never)
  assert.deepEqual(matched.map(({ name }) => name).toSorted(), names.toSorted())
}

async function useRun(client: PrefectClient): Promise<void> {
  const { run, queue } = await makeRun(client, 'trip')
  const before = new Date(client.serverNow().getTime() + 5000).toISOString()
  const due = await client.getRunsInWorkQueue(queue.id, { limit: 10, scheduledBefore: before }, never)
  assert.deepEqual(
    due?.map(({ id }) => id),
    [run.id],
  )
  assert.deepEqual([due?.[0]?.state_type, due?.[0]?.work_queue_name], ['SCHEDULED', 'trip'])

  const transitionId = randomUUID()
  const claim = () => client.setFlowRunState(run.id, buildPending({ transitionId }), { claim: true }, never)
  const won = await claim()
  assert.deepEqual([won.status, won.state?.type], ['ACCEPT', 'PENDING'])
  const again = await claim()
  assert.deepEqual([again.status, again.state?.state_details.transition_id], ['REJECT', transitionId])
  const rival = await client.setFlowRunState(
    run.id,
    buildPending({ transitionId: randomUUID() }),
    { claim: true },
    never,
  )
  assert.deepEqual([rival.status, rival.state?.state_details.transition_id], ['ABORT', transitionId])

  await client.updateFlowRun(run.id, { infrastructure_pid: 'host:4711' }, never)
  const later = buildScheduled({ scheduledTime: new Date(Date.now() + 60_000).toISOString(), message: 'given back' })
  assert.equal((await client.setFlowRunState(run.id, later, {}, never)).status, 'ACCEPT')
  const ended = await client.setFlowRunState(run.id, buildState('CRASHED', { message: 'no disk' }), {}, never)
  assert.deepEqual([ended.status, ended.state?.name, ended.state?.message], ['ACCEPT', 'Crashed', 'no disk'])

  const states = await client.readFlowRunStates(run.id, never)
  assert.deepEqual(typesOf(states), ['SCHEDULED', 'PENDING', 'SCHEDULED', 'CRASHED'])
  const found = await client.readFlowRun(run.id, never)
  assert.deepEqual([found?.infrastructure_pid, isTerminal(found?.state_type)], ['host:4711', true])
  const filter = { flow_runs: { id: { any_: [run.id] }, state: { type: { any_: ['CRASHED'] as const } } }, limit: 5 }
  assert.deepEqual(
    (await client.readFlowRuns(filter, never)).map(({ id }) => id),
    [run.id],
  )
}

async function useDeployment(client: PrefectClient): Promise<void> {
  const flow = await client.createFlow('reports', never)
  assert.equal((await client.createFlow('reports', never)).id, flow.id)
  assert.equal((await client.readFlow(flow.id, never))?.name, 'reports')
  const wanted = {
    name: 'ngày 1',
    flow_id: flow.id,
    path: '/srv/flows',
    entrypoint: './report.sh --daily',
    parameters: { day: 'monday' },
    job_variables: { env: { QUX: '1' } },
    tags: ['a'],
    work_queue_name: 'reports',
  }
  const deployment = await client.createDeployment(wanted, never)
  const found = await client.readDeployment(deployment.id, never)
  assert.deepEqual(
    [found?.path, found?.entrypoint, found?.parameters, found?.tags],
    [wanted.path, wanted.entrypoint, wanted.parameters, wanted.tags],
  )
  assert.deepEqual(found?.job_variables ?? found?.infra_overrides, wanted.job_variables)
  const named = await client.createDeployment({ ...wanted, name: 'tuesday #1?' }, never)
  assert.equal((await client.readDeploymentByName('reports', 'tuesday #1?', never))?.id, named.id)
  const listed = await client.readDeployments({ flows: { name: { any_: ['reports'] } } }, never)
  assert.equal(listed.length, 2)
  assert.deepEqual(
    (await client.readFlows({ flows: { id: { any_: [flow.id] } } }, never)).map(({ name }) => name),
    ['reports'],
  )

  const key = randomUUID()
  const first = await client.createFlowRunFromDeployment(
    deployment.id,
    { idempotency_key: key, parameters: { day: 'friday' } },
    never,
  )
  assert.deepEqual(first.parameters, { day: 'friday' })
  assert.equal((await client.createFlowRunFromDeployment(deployment.id, { idempotency_key: key }, never)).id, first.id)
}

async function useBlocks(client: PrefectClient): Promise<void> {
  assert.equal(await client.readBlockTypeBySlug('no-such-type', never), undefined)
  const type = await client.createBlockType({ name: 'Safe', slug: 'safe' }, never)
  assert.equal((await client.readBlockTypeBySlug('safe', never))?.id, type.id)
  const fields = {
    title: 'Safe',
    type: 'object',
    properties: { password: { type: 'string' } },
    secret_fields: ['password'],
  }
  const schema = await client.createBlockSchema({ block_type_id: type.id, fields, capabilities: [] }, never)
  assert.deepEqual(
    (await client.readBlockSchemas(type.id, never)).map(({ id }) => id),
    [schema.id],
  )
  const document = { name: 'mine', data: { password: 'hunter2' }, block_type_id: type.id, block_schema_id: schema.id }
  const { id } = await client.createBlockDocument(document, never)
  const found = await client.readBlockDocument(id, never)
  assert.deepEqual([found?.data, found?.block_type?.slug], [{ password: 'hunter2' }, 'safe'])
  assert.deepEqual((await client.readBlockDocumentByName('safe', 'mine', never))?.data, { password: 'hunter2' })
  assert.equal(await client.readBlockDocumentByName('safe', 'yours', never), undefined)
}

async function useLogs(client: PrefectClient): Promise<void> {
  const flow_run_id = randomUUID()
  const lines = ['one', 'two', 'three'].map((message, at) => ({
    name: 'prefect.flow_runs',
    level: 20,
    message,
    timestamp: new Date(Date.now() + at).toISOString(),
    flow_run_id,
  }))
  await client.createLogs(lines, never)
  const logs = await client.readLogs({ logs: { flow_run_id: { any_: [flow_run_id] } }, sort: 'TIMESTAMP_ASC' }, never)
  assert.deepEqual(
    logs.map(({ message, level }) => [message, level]),
    [
      ['one', 20],
      ['two', 20],
      ['three', 20],
    ],
  )
}

async function missEverything(client: PrefectClient): Promise<void> {
  const id = randomUUID()
  assert.equal(await client.readFlowRun(id, never), undefined)
  assert.equal(await client.readDeployment(id, never), undefined)
  assert.equal(await client.readDeploymentByName('no', 'such', never), undefined)
  assert.equal(await client.readFlow(id, never), undefined)
  assert.equal(await client.readWorkQueue(id, never), undefined)
  assert.equal(await client.readWorkQueueByName('none', never), undefined)
  assert.equal(await client.readBlockDocument(id, never), undefined)
  assert.equal(await client.getRunsInWorkQueue(id, { limit: 1 }, never), undefined)
  const writes = [
    () => client.setFlowRunState(id, buildState('CRASHED'), {}, never),
    () => client.updateFlowRun(id, { infrastructure_pid: 'host:1' }, never),
    () => client.createFlowRunFromDeployment(id, {}, never),
  ]
  for (const write of writes) {
    const error = await failure(write())
    assert.deepEqual([error.status, error.isNotFound, error.isFinal, error.mayHaveHappened], [404, true, true, false])
  }
}
