// The main job against a real server: poll, claim, launch, watch, report; cancel, drain, detach, take over.

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { buildScheduled, buildState } from '../../src/prefect/states.ts'
import { startChaosProxy } from '../support/chaos-proxy.ts'
import { findPrefect, type PrefectServer, startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { never, openStage } from './stage.ts'

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

describe('an agent on a real Prefect 2 server', needs('prefect2'), () => {
  let server: PrefectServer
  before(async () => {
    server = await startPrefectServer('prefect2')
  })
  after(() => server[Symbol.asyncDispose]())

  test('reports a command by its exit code, with the last lines of its output', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'echo first; echo last words >&2; exit 3' })
    const run = await stage.run(deployment)
    await using agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'FAILED', agent.output)
    assert.match(done.state?.message ?? '', /exit code 3/)
    assert.match(done.state?.message ?? '', /last words/)
    assert.match(agent.output, new RegExp(`${run.name} \\| first`))
  })

  test('reports a command that a signal has ended as crashed, and names the signal', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'true', deployment: { entrypoint: "sh -c 'kill -9 $$'" } })
    const run = await stage.run(deployment)
    await using _agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CRASHED')
    assert.match(done.state?.message ?? '', /SIGKILL/)
  })

  test('sends the output of a command to the API as logs of its run', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'echo one; echo two' }))
    await using _agent = stage.startAgent()
    await stage.waitFor(run.id, over)
    await until(async () => {
      const logs = await stage.client.readLogs({ logs: { flow_run_id: { any_: [run.id] } } }, never)
      return logs.map(log => log.message).join(' ') === 'one two'
    })
  })

  test("runs a Python flow in Prefect's own engine, from the fetched code", async () => {
    await using stage = await openStage(server.apiUrl)
    const code = join(stage.directory, 'flows')
    mkdirSync(code)
    writeFileSync(
      join(code, 'greet.py'),
      'from prefect import flow, task\n@task\ndef add(a, b):\n    return a + b\n@flow\ndef greet(a: int = 1):\n    print("sum", add(a, 2))\n    assert add(a, 2) == 7\n',
    )
    const deployment = await stage.deploy({ path: code, entrypoint: 'greet.py:greet', parameters: { a: 5 } })
    const run = await stage.run(deployment)
    await using agent = stage.startAgent({ python: join(findPrefect('prefect2'), 'bin', 'python') })
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    await until(() => agent.output.includes('sum 7'))
    assert.doesNotMatch(agent.output, /Warning/)
  })

  test('ends a run that is cancelled, with everything that it has started, and reports it as cancelled', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({
      script: 'setsid sh -c "echo $$ > $LEDGER.child; exec sleep 600" & sleep 600',
    })
    const run = await stage.run(deployment)
    await using agent = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    await stage.waitFor(run.id, ['RUNNING'])
    await stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CANCELLED', agent.output)
    assert.equal(processesOf(run.id).length, 0)
  })

  test('ends a run that was cancelled while no agent was there', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using first = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    first.signal('SIGKILL')
    await first.ended()
    await stage.client.setFlowRunState(run.id, buildState('CANCELLING'), {}, never)
    await using _second = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CANCELLED')
    assert.equal(processesOf(run.id).length, 0)
  })

  test('never overwrites a terminal state that somebody else has set', async () => {
    await using stage = await openStage(server.apiUrl)
    await using proxy = await startChaosProxy(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: `${stage.awaits('go')}; exit 1` }))
    await using agent = stage.startAgent({ apiUrl: proxy.apiUrl })
    await until(() => stage.starts(run.id) === 1)
    await stage.client.setFlowRunState(run.id, buildState('COMPLETED', { message: 'by hand' }), { force: true }, never)
    // What the server has just said of a run is still believed when that ends; so not before the agent has looked again.
    const looks = () => proxy.count('GET /flow_runs/{id}') + proxy.count('POST /flow_runs/filter')
    const before = looks()
    await until(() => looks() > before + 2)
    stage.give('go')
    await until(() => stage.ledger(run.id).length === 2)
    await until(() => readdirSync(join(stage.stateDirectory, 'runs')).length === 0)
    assert.equal((await stage.readRun(run.id)).state?.message, 'by hand', agent.output)
  })

  test('ends what lives on after its run is over, when the linger has passed', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using _agent = stage.startAgent({ lingerSeconds: 2 })
    await until(() => stage.starts(run.id) === 1)
    await stage.client.setFlowRunState(run.id, buildState('FAILED'), { force: true }, never)
    await until(() => processesOf(run.id).length === 0)
    assert.equal((await stage.readRun(run.id)).state_type, 'FAILED')
  })

  test('ends what runs for a flow run that was deleted', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using _agent = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    await stage.send('DELETE', `/flow_runs/${run.id}`)
    await until(() => processesOf(run.id).length === 0)
  })

  test('ends what runs for a flow run that is set back to Scheduled, before it is run anew', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using agent = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    await stage.waitFor(run.id, ['RUNNING'])
    const later = buildScheduled({ scheduledTime: new Date(Date.now() + 3_600_000).toISOString() })
    await stage.client.setFlowRunState(run.id, later, { force: true }, never)
    await until(() => processesOf(run.id).length === 0)
    await until(() => readdirSync(join(stage.stateDirectory, 'runs')).length === 0)
    assert.equal((await stage.readRun(run.id)).state_type, 'SCHEDULED', agent.output)
  })

  test('lets go of its runs when it stops as a service, and the next agent has them in the same process', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
    await using first = stage.startAgent({ drainSeconds: 1, onStop: 'detach' })
    await until(() => stage.starts(run.id) === 1)
    first.signal('SIGTERM')
    assert.equal(await first.ended(), 0, first.output)
    await using second = stage.startAgent()
    await second.isPolling()
    stage.give('go')
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'COMPLETED', second.output)
    const [start, end, ...more] = stage.ledger(run.id)
    assert.equal(start?.pid, end?.pid)
    assert.deepEqual(more, [])
  })

  test('ends its runs when it is told to stop for good, and says why', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using agent = stage.startAgent({ drainSeconds: 60, onStop: 'kill' })
    await until(() => stage.starts(run.id) === 1)
    agent.signal('SIGTERM')
    await until(() => agent.output.includes('the next signal ends them'))
    agent.signal('SIGTERM')
    assert.equal(await agent.ended(), 0, agent.output)
    const done = await stage.readRun(run.id)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    assert.match(done.state?.message ?? '', /agent was stopped/)
    assert.equal(processesOf(run.id).length, 0)
  })

  for (const onStop of ['kill', 'kill-own'] as const) {
    test(`sets back a run that it has not started yet when it stops (${onStop}), with its own time`, async () => {
      await using stage = await openStage(server.apiUrl)
      const due = new Date(Date.now() + 3_600_000).toISOString()
      const state = { type: 'SCHEDULED', state_details: { scheduled_time: due } } as const
      const run = await stage.run(await stage.deployCommand({ script: 'true' }), { state })
      await using agent = stage.startAgent({ prefetchSeconds: 7_200, drainSeconds: 0, onStop })
      await until(() => agent.output.includes('flow run claimed'))
      agent.signal('SIGTERM')
      assert.equal(await agent.ended(), 0, agent.output)
      const now = await stage.readRun(run.id)
      assert.equal(now.state_type, 'SCHEDULED', now.state?.message ?? agent.output)
      assert.equal(Date.parse(now.state?.state_details.scheduled_time ?? ''), Date.parse(due))
      assert.equal(stage.starts(run.id), 0)
    })
  }

  test('does not run a command again of which a power cut has left nothing but the claim', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 600' }))
    await using first = stage.startAgent()
    await until(() => stage.starts(run.id) === 1)
    first.signal('SIGKILL')
    await first.ended()
    await until(() => endAll(processesOf(run.id)))
    const folder = join(stage.stateDirectory, 'runs', run.id)
    const whole: Record<string, unknown> = JSON.parse(readFileSync(join(folder, 'record.json'), 'utf8'))
    const { version, flowRunId, flowRunName, transitionId, polled } = whole
    const claim = { version, step: 'claiming', flowRunId, flowRunName, transitionId, polled, bootId: 'an earlier one' }
    rmSync(folder, { recursive: true })
    mkdirSync(folder)
    writeFileSync(join(folder, 'record.json'), JSON.stringify(claim))
    await using second = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CRASHED', second.output)
    assert.match(done.state?.message ?? '', /the machine was started anew/)
    assert.equal(stage.starts(run.id), 1)
  })

  test('runs a command that fails as often as its run asks for', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'exit 3' }))
    await stage.client.updateFlowRun(run.id, { empirical_policy: { retries: 2, retry_delay: 1 } }, never)
    await using agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'FAILED', agent.output)
    assert.equal(stage.starts(run.id), 3)
  })

  test('polls its other queues when one has a name that the server refuses', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    await using agent = stage.startAgent({ queues: ['a/b', stage.queue] })
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED', agent.output)
    assert.match(agent.output, /could not look up or make the work queue .*a\/b/)
  })

  test('waits for the drain of the agent that holds its state folder, then takes over', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
    await using first = stage.startAgent({ drainSeconds: 600, onStop: 'detach' })
    await until(() => stage.starts(run.id) === 1)
    await using second = stage.startAgent()
    await until(() => second.output.includes('another agent holds this state folder'), { what: second.output })
    first.signal('SIGTERM')
    assert.equal(await first.ended(), 0)
    await second.isPolling()
    stage.give('go')
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED')
    assert.equal(stage.starts(run.id), 1)
  })

  test('shares a queue with another agent without ever starting a run twice', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'true' })
    const runs = await Promise.all(Array.from({ length: 12 }, () => stage.run(deployment)))
    await using _one = stage.startAgent({ stateDirectory: join(stage.directory, 'one') })
    await using _two = stage.startAgent({ stateDirectory: join(stage.directory, 'two') })
    for (const run of runs) assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED')
    for (const run of runs) assert.equal(stage.starts(run.id), 1)
  })

  test('never holds more runs than its limit, survivors of an earlier life counted', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'sleep 3' })
    const runs = await Promise.all(Array.from({ length: 6 }, () => stage.run(deployment)))
    await using first = stage.startAgent({ limit: 2 })
    await until(() => stage.ledger().length >= 2)
    first.signal('SIGKILL')
    await first.ended()
    await using _second = stage.startAgent({ limit: 2 })
    for (const run of runs) assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED')
    let alive = 0
    for (const line of stage.ledger()) {
      alive += line.what === 'START' ? 1 : -1
      assert.ok(alive <= 2, 'more runs at once than the limit')
    }
  })

  test('obeys the scheduled time of a command that it has fetched ahead', async () => {
    await using stage = await openStage(server.apiUrl)
    const deployment = await stage.deployCommand({ script: 'date +%s%3N > "$LEDGER.at"' })
    await using agent = stage.startAgent({ prefetchSeconds: 600 })
    await agent.isPolling()
    // A machine that stands still meanwhile lets it fetch the run when that is due; then one that is due later tells.
    for (let aheadMs = 4_000, isAhead = false; !isAhead; aheadMs *= 4) {
      const due = Date.now() + aheadMs
      const state = { type: 'SCHEDULED' as const, state_details: { scheduled_time: new Date(due).toISOString() } }
      const run = await stage.run(deployment, { state })
      await stage.waitFor(run.id, over)
      assert.ok(Number(readFileSync(`${stage.ledgerFile}.at`, 'utf8')) >= due - 1_000)
      const states = await stage.client.readFlowRunStates(run.id, never)
      const claimedAt = states.find(({ type }) => type === 'PENDING')?.timestamp
      isAhead = Date.parse(claimedAt ?? '') < due - 1_000
    }
  })

  test('crashes a run whose program is missing, with the reason', async () => {
    await using stage = await openStage(server.apiUrl)
    const { path } = await stage.deployCommand({ script: 'true' })
    const run = await stage.run(await stage.deploy({ path, entrypoint: './nowhere --daily' }))
    await using agent = stage.startAgent()
    const done = await stage.waitFor(run.id, over)
    assert.equal(done.state_type, 'CRASHED')
    assert.match(done.state?.message ?? '', /nowhere/)
    assert.match(agent.output, /flow run not started.*nowhere/)
  })

  test('starves nobody behind a full page of runs that cannot be started', async () => {
    await using stage = await openStage(server.apiUrl)
    const blocked = await stage.deploy({ path: join(stage.directory, 'missing'), entrypoint: './job.sh' })
    for (let count = 0; count < 5; count++) await stage.run(blocked)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    await using _agent = stage.startAgent({ limit: 1 })
    assert.equal((await stage.waitFor(run.id, over)).state_type, 'COMPLETED')
  })

  test('polls once and goes when it is told to run once', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'sleep 1' }))
    await using agent = stage.startAgent({ runOnce: true })
    assert.equal(await agent.ended(), 0, agent.output)
    assert.equal((await stage.readRun(run.id)).state_type, 'COMPLETED')
  })

  test('recovers a run whose record cannot be read', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
    const other = await stage.run(await stage.deployCommand({ script: stage.awaits('go') }))
    await using first = stage.startAgent()
    await until(() => stage.ledger().length === 2)
    await until(() => first.output.split('flow run started').length === 3)
    first.signal('SIGKILL')
    await first.ended()
    writeFileSync(join(stage.stateDirectory, 'runs', run.id, 'record.json'), '{"version":1,"st')
    await using second = stage.startAgent()
    await second.isPolling()
    stage.give('go')
    for (const { id } of [run, other]) {
      const done = await stage.waitFor(id, over)
      assert.ok(done.state_type === 'COMPLETED' || id === run.id, second.output)
      assert.equal(stage.starts(id), 1)
    }
  })

  test('leaves a record of a later release untouched', async () => {
    await using stage = await openStage(server.apiUrl)
    const run = await stage.run(await stage.deployCommand({ script: 'true' }))
    const folder = join(stage.stateDirectory, 'runs', run.id)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'record.json'), '{"version":99}')
    await using agent = stage.startAgent()
    await agent.isPolling()
    await until(() => agent.output.includes('later release'))
    await until(() => agent.output.split('polled').length > 3)
    assert.equal(readFileSync(join(folder, 'record.json'), 'utf8'), '{"version":99}')
    assert.equal(stage.starts(run.id), 0)
  })
})

/** False when some were ended only now. */
function endAll(pids: readonly number[]): boolean {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // Gone with one that was ended before it.
    }
  }
  return pids.length === 0
}

/** Living processes that carry the run's id in their environment. */
function processesOf(flowRunId: string): number[] {
  return readdirSync('/proc').flatMap(name => {
    const pid = Number(name)
    if (!Number.isInteger(pid)) return []
    try {
      const isOfRun = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(flowRunId)
      return isOfRun ? [pid] : []
    } catch {
      return []
    }
  })
}
