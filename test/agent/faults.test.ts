// What lies between the agent and the server fails: answers are lost, delayed, refused, garbage. The ledger is the judge.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { buildScheduled, buildState, type ProposedState } from '../../src/prefect/states.ts'
import type { FlowRun } from '../../src/prefect/types.ts'
import { type ChaosProxy, type Fault, startChaosProxy } from '../support/chaos-proxy.ts'
import { type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'
import { type AgentProcess, never, openStage, type Stage } from './stage.ts'

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const
const setState = 'POST /flow_runs/{id}/set_state'

describe('an agent whose API misbehaves', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  /** The n-th state that the agent proposes: its claim, RUNNING, the report. */
  const proposals = ['claim', 'RUNNING', 'report'] as const
  for (const [index, what] of proposals.entries()) {
    for (const kind of ['cut', 'drop-answer', 'half-answer'] as const) {
      test(`runs a command exactly once when the ${what} suffers a ${kind}`, async () => {
        await using proxy = await startChaosProxy(server.apiUrl)
        await using stage = await openStage(server.apiUrl)
        const run = await stage.run(await stage.deployCommand({ script: 'true' }))
        proxy.spoil({ route: setState, nth: index + 1 }, { kind })
        await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
        const done = await stage.waitFor(run.id, over)
        assert.equal(done.state_type, 'COMPLETED', agent.output)
        assert.equal(stage.starts(run.id), 1)
      })
    }
  }

  test('asks what a run is while its claim is under way', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    const asked = until(() => proxy.count('GET /deployments/{id}') > 0)
    proxy.spoil({ route: setState, nth: 1 }, { kind: 'hold', until: asked })
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
    await asked
    await stage.waitFor(run.id, ['COMPLETED'])
    assert.equal(proxy.count('GET /deployments/{id}'), 1, agent.output)
  })

  test('runs a command exactly once whose claim was carried out and answered with 503', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    const busy = { kind: 'replace', status: 503, body: { exception_message: 'Service Unavailable' } } as const
    proxy.spoil({ route: setState, nth: 1 }, busy)
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'COMPLETED', agent.output)
    assert.equal(stage.starts(run.id), 1)
  })

  const message = 'by another agent'
  const scheduledTime = new Date(Date.now() + 3_600_000).toISOString()
  const pasts: readonly [string, ...ProposedState[]][] = [
    ['was run', buildState('PENDING'), buildState('RUNNING'), buildState('COMPLETED', { message })],
    // As with a command that reports nothing: neither its count nor its times tell that it has been run.
    ['was run without ever being Running', buildState('PENDING'), buildState('COMPLETED', { message })],
    ['could not be started', buildState('PENDING'), buildState('CRASHED', { message })],
    [
      'was run, and made to wait for a retry,',
      buildState('PENDING'),
      buildState('RUNNING'),
      buildScheduled({ message, name: 'AwaitingRetry', scheduledTime }),
    ],
  ]
  for (const [what, ...states] of pasts) {
    test(`puts the former state back when a run ${what} by somebody else between poll and claim`, async () => {
      await using proxy = await startChaosProxy(server.apiUrl)
      await using stage = await openStage(server.apiUrl)
      const { run, agent } = await claimLate(stage, proxy, states)
      await using _agent = agent
      await until(() => agent.output.includes('putting its former state back'))
      const last = states.at(-1)
      await until(async () => (await stage.readRun(run.id)).state?.name === last?.name)
      await delay(1_500)
      const { state } = await stage.readRun(run.id)
      assert.deepEqual([state?.type, state?.name, state?.message], [last?.type, last?.name, message], agent.output)
      assert.equal(stage.starts(run.id), 0, agent.output)
    })
  }

  test('schedules no run again that is over when it cannot look at what its claim has replaced', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const past = [buildState('PENDING'), buildState('RUNNING'), buildState('COMPLETED', { message })]
    proxy.spoil({ route: 'GET /flow_runs/{id}' }, { kind: 'answer', status: 422, body: { exception_message: 'no' } })
    const { run, agent } = await claimLate(stage, proxy, past)
    await using _agent = agent
    await until(() => agent.output.includes('could not look at the flow run'))
    proxy.heal()
    const { state } = await stage.waitFor(run.id, over)
    assert.deepEqual([state?.type, state?.message], ['COMPLETED', message], agent.output)
    assert.equal(stage.starts(run.id), 0, agent.output)
  })

  test('reads no run anew whose claim was answered in time', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    // So slow that it looks at its runs once, before it has any.
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl, queryIntervalSeconds: 60 })
    await until(() => stage.starts(run.id) === 1)
    const looks = proxy.count('GET /flow_runs/{id}') + proxy.count('POST /flow_runs/filter')
    assert.equal(looks, 0, agent.output)
  })

  test('keeps a report through an outage and a restart, and delivers it when the API is back', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: `${stage.awaits('go')}; exit 3` }))
    await using first = stage.startAgent({ apiUrl: proxy.apiUrl })
    await until(() => stage.starts(run.id) === 1)
    proxy.spoil({}, { kind: 'answer', status: 503, body: { exception_message: 'Service Unavailable' } })
    stage.give('go')
    await until(() => first.output.includes('infrastructure ended'))
    first.signal('SIGKILL')
    await first.ended()
    await using _second = stage.startAgent({ apiUrl: proxy.apiUrl })
    await delay(2_000)
    assert.equal((await stage.readRun(run.id)).state_type, 'RUNNING')
    proxy.heal()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'FAILED')
    assert.match(done.state?.message ?? '', /exit code 3/)
  })

  const nonsense: readonly [string, Fault][] = [
    ['401', { kind: 'answer', status: 401, body: { exception_message: 'Unauthorized' } }],
    ['403', { kind: 'answer', status: 403, body: { detail: 'no' } }],
    ['404 of a proxy', { kind: 'answer', status: 404, body: '<html>no such page</html>' }],
    ['422', { kind: 'answer', status: 422, body: { exception_message: 'Invalid request received.' } }],
    ['500', { kind: 'answer', status: 500, body: { exception_message: 'Internal Server Error' } }],
    ['200 with a login page', { kind: 'answer', status: 200, body: '<html>log in</html>' }],
    ['200 with the wrong JSON', { kind: 'answer', status: 200, body: [{ id: 7 }] }],
    ['cut connection', { kind: 'cut' }],
    ['answer that is no HTTP', { kind: 'raw', bytes: 'EHLO\r\n\r\n' }],
  ]
  for (const [name, fault] of nonsense) {
    test(`lives through a ${name} at its start and later, and works when the API is well`, async () => {
      await using proxy = await startChaosProxy(server.apiUrl)
      await using stage = await openStage(server.apiUrl)
      const deployment = await stage.deployCommand({ script: 'true' })
      proxy.spoil({}, fault)
      await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
      await until(() => proxy.requests.length >= 1)
      await delay(1_500)
      proxy.heal()
      const first = await stage.run(deployment)
      assert.equal((await stage.waitFor(first.id, over)).state_type, 'COMPLETED', agent.output)
      proxy.spoil({}, fault)
      await delay(2_500)
      proxy.heal()
      const second = await stage.run(deployment)
      assert.equal((await stage.waitFor(second.id, over)).state_type, 'COMPLETED', agent.output)
      assert.equal(agent.hasEnded, false)
      assert.deepEqual([stage.starts(first.id), stage.starts(second.id)], [1, 1])
    })
  }

  test('says that its claims are refused, and asks seldom, when only polls pass', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'true' })
    for (let run = 0; run < 8; run++) await stage.run(deployment)
    proxy.spoil({ route: setState }, { kind: 'answer', status: 403, body: { detail: 'Forbidden' } })
    const start = performance.now()
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl, limit: 2 })
    await until(() => agent.output.includes('the server refuses claims'))
    const polls = () => agent.output.split('polled').length
    const before = polls()
    await until(() => polls() > before + 3)
    assert.match(agent.output, /the server refuses claims; claiming nothing for now .*status=403/)
    // At first, and after each pause, no more than there are slots.
    const pauses = [5, 15, 35, 75, 155].filter(seconds => performance.now() - start >= seconds * 1000).length
    assert.ok(proxy.count(setState) <= 2 * (1 + pauses), `${proxy.count(setState)} claims`)
    proxy.heal()
    const late = await stage.run(deployment)
    assert.equal((await stage.waitFor(late.id, over)).state_type, 'COMPLETED', agent.output)
  })

  test('waits for as long as the server asks before it claims again', async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    const tooMany = { kind: 'answer', status: 429, headers: { 'retry-after': '9' } } as const
    proxy.spoil({ route: setState, times: 1 }, tooMany)
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED', agent.output)
    const [refused, next] = proxy.requests.filter(({ route }) => route === setState)
    assert.ok(refused && next && next.at - refused.at >= 9_000, agent.output)
  })

  test('leaves a run alone that waits for a retry inside a living engine', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    await stage.send('PATCH', `/flow_runs/${run.id}`, { empirical_policy: { retry_type: 'in_process' } })
    await using agent = stage.startAgent()
    await until(() => agent.output.split('polled').length > 4)
    assert.equal(stage.starts(run.id), 0)
    assert.equal((await stage.readRun(run.id)).state_type, 'SCHEDULED')
  })

  test('makes its queue again when that is deleted', async () => {
    await using stage = await openStage(server.apiUrl)
    await using agent = stage.startAgent()
    await agent.isPolling()
    const queue = await stage.client.readWorkQueueByName(stage.queue, never)
    await stage.send('DELETE', `/work_queues/${queue?.id}`)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED', agent.output)
  })

  test('starts nothing for a paused queue, and goes on when it is resumed', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    const queue = await stage.client.readWorkQueueByName(stage.queue, never)
    assert.ok(queue)
    await stage.client.updateWorkQueue(queue.id, { is_paused: true }, never)
    await using agent = stage.startAgent()
    await until(() => agent.output.split('polled').length > 3)
    assert.equal(stage.starts(run.id), 0)
    await stage.client.updateWorkQueue(queue.id, { is_paused: false }, never)
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED')
  })

  test(
    'claims nothing while the disk is full, loses no run that is under way, and goes on when there is room',
    needs('root'),
    async () => {
      await using stage = await openStage(server.apiUrl)
      await using disk = await mountSmallDisk(8 * 1024)
      const long = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
      await using agent = stage.startAgent({ stateDirectory: join(disk.path, 'state') })
      await until(() => stage.starts(long.id) === 1)
      fill(disk.path)
      const late = await stage.run(await stage.deployCommand({ script: 'true' }))
      await until(() => agent.output.includes('this host is in trouble'))
      assert.equal(stage.starts(late.id), 0)
      // Not before: what a run has used makes room when it ends.
      stage.give('go')
      await stage.waitFor(long.id, over)
      rmSync(join(disk.path, 'filler'))
      assert.equal((await stage.waitFor(late.id, over)).state_type, 'COMPLETED', agent.output)
      assert.equal((await stage.readRun(long.id)).state_type, 'COMPLETED', agent.output)
      assert.equal(stage.starts(late.id), 1)
    },
  )

  test('starts all runs whose claims were under way when the disk became full', needs('root'), async () => {
    await using proxy = await startChaosProxy(server.apiUrl)
    await using stage = await openStage(server.apiUrl)
    await using disk = await mountSmallDisk(4 * 1024)
    const deployment = await stage.deployCommand({ script: 'true' })
    const runs = [await stage.run(deployment), await stage.run(deployment), await stage.run(deployment)]
    const full = Promise.withResolvers<void>()
    proxy.spoil({ route: setState }, { kind: 'hold', until: full.promise })
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl, stateDirectory: join(disk.path, 'state') })
    await until(() => proxy.count(setState) === 3)
    fill(disk.path)
    // The room that the agent itself keeps for such a moment.
    truncateSync(join(disk.path, 'state', 'reserve'))
    fill(disk.path, 'more')
    full.resolve()
    proxy.heal()
    await until(() => agent.output.includes('this host is in trouble'))
    rmSync(join(disk.path, 'filler'))
    rmSync(join(disk.path, 'more'))
    for (const run of runs) {
      assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED', agent.output)
      assert.equal(stage.starts(run.id), 1)
    }
  })

  test('goes on with a living run whose folder could not be written for a while', needs('root'), async () => {
    await using stage = await openStage(server.apiUrl)
    // More than its cap, so that the file must be emptied.
    const script = `${stage.awaits('talk')}; seq 1 1800000; ${stage.awaits('go')}; exit 3`
    const run = await stage.run(await stage.deployCommand({ script }))
    await using agent = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    {
      await using _locked = await lockFolder(stage.stateDirectory)
      stage.give('talk')
      await until(() => agent.output.includes('this run is taken up again from its record'))
    }
    stage.give('go')
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'FAILED', agent.output)
    assert.equal(stage.starts(run.id), 1)
  })
})

/** Makes it read-only for a while, for everybody who opens something in it. */
async function lockFolder(path: string): Promise<AsyncDisposable> {
  execFileSync('mount', ['--bind', path, path])
  execFileSync('mount', ['-o', 'remount,bind,ro', path])
  return {
    async [Symbol.asyncDispose]() {
      await until(() => {
        execFileSync('umount', [path], { stdio: 'ignore' })
        return true
      })
    },
  }
}

function fill(path: string, name = 'filler'): void {
  const file = join(path, name)
  const { bavail, bsize } = statfsSync(path)
  writeFileSync(file, Buffer.alloc(Math.max(0, bavail * bsize)))
  assert.ok(existsSync(file))
}

/** An agent whose claim reaches the server late, when the run has been through these states already. */
async function claimLate(
  stage: Stage,
  proxy: ChaosProxy,
  states: readonly ProposedState[],
): Promise<{ readonly run: FlowRun; readonly agent: AgentProcess }> {
  const run = await stage.run(await stage.deployCommand({ script: 'true' }))
  const { promise, resolve } = Promise.withResolvers<void>()
  proxy.spoil({ route: setState, nth: 1 }, { kind: 'hold', until: promise })
  const agent = stage.startAgent({ apiUrl: proxy.apiUrl })
  await until(() => proxy.count(setState) === 1)
  for (const state of states) await stage.client.setFlowRunState(run.id, state, {}, never)
  resolve()
  return { run, agent }
}
