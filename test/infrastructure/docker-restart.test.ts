// The engine itself is killed and started again under living runs. It is an engine of this file's own, so that no other
// test loses its containers.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import type { AgentProcess, Stage } from '../agent/stage.ts'
import { startPrefectServer } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { deployCommand, openDockerStage, startAgent } from './docker-agent.ts'
import { OwnEngine } from './docker-engine.ts'
import { dockerLedger } from './docker-ledger.ts'
import { unstopped } from './docker-subject.ts'

const own = { name: 'fragile', subnet: '172.30.90' }
const options = { ...needs('docker', 'root'), timeout: 240_000 }

test(
  'an engine that was killed and restarted: its runs are reported with that reason within 15 s',
  options,
  async t => {
    await using engine = await OwnEngine.start(own)
    await using subject = await engine.subject()
    const spec = await subject.spec('echo said; sleep 300')
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const lines: string[] = []
    const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
    await until(() => lines.length > 0, { timeoutMs: 60_000 })
    await engine.do('kill')
    await engine.do('start')
    const began = performance.now()
    const exit = await waiting
    t.diagnostic(`known ${Math.round(performance.now() - began)} ms after the engine answered: ${JSON.stringify(exit)}`)
    assert.ok(performance.now() - began < 15_000)
    assert.equal(exit.kind, 'exited')
    assert.match(exit.reason ?? '', /engine was restarted while it ran/)
    assert.deepEqual(exit.outputTail, ['said'])
    // The next agent has not seen the engine go; it says no more than it knows.
    const told = await subject.startAnew().wait(handle, () => {}, unstopped)
    assert.equal(told.kind, 'exited')
  },
)

test('with live-restore, runs go on under a restarted engine and end as they end', options, async () => {
  await using engine = await OwnEngine.start({ ...own, flags: '--live-restore' })
  await using subject = await engine.subject()
  await using ledger = await dockerLedger()
  const lines: string[] = []
  // However long the engine takes to start, the run ends after that.
  const script = 'i=0; while [ ! -e /ledger/go ]; do echo line $i; i=$((i+1)); sleep 0.5; done; echo $i lines; exit 8'
  const spec = await subject.spec(script, { settings: ledger.settings })
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const waiting = subject.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
  await until(() => lines.length > 0, { timeoutMs: 60_000 })
  await engine.do('kill')
  await engine.do('start')
  const before = lines.length
  await until(() => lines.length > before, { timeoutMs: 60_000, what: 'a line after the restart' })
  await ledger.allow('go')
  const exit = await waiting
  assert.equal(exit.kind === 'exited' && exit.statusCode, 8)
  // What is written while no engine reads it stays in the pipe, and is logged afterwards. No line comes twice.
  const count = lines.length - 1
  assert.deepEqual(lines, [...Array.from({ length: count }, (_, index) => `line ${index}`), `${count} lines`])
})

const whole = { ...needs('docker', 'root', 'prefect2'), timeout: 300_000 }
/** And the engine has said so: one that is killed before has lost sight of what it has started. */
async function untilStarted(stage: Stage, flowRunId: string, agent: AgentProcess): Promise<void> {
  const isStarted = () => stage.starts(flowRunId) === 1 && agent.output.includes('flow run started')
  await until(isStarted, { timeoutMs: 60_000, what: 'the start' })
}

const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

test(
  'under a whole agent, a restart of the engine ends a run as Crashed with that reason within 15 s',
  whole,
  async t => {
    await using server = await startPrefectServer('prefect2')
    await using engine = await OwnEngine.start(own)
    await using stage = await openDockerStage(server.apiUrl, engine.host)
    await using agent = startAgent(stage, {}, { DOCKER_HOST: engine.host })
    const run = await stage.run(await deployCommand(stage, 'echo said; sleep 300', { network_mode: 'none' }))
    await untilStarted(stage, run.id, agent)
    await engine.do('kill')
    await engine.do('start')
    const began = performance.now()
    const done = await stage.waitFor(run.id, over, 60_000)
    const tookMs = performance.now() - began
    t.diagnostic(`known ${Math.round(tookMs)} ms after the engine answered: ${done.state?.message}`)
    assert.ok(tookMs < 15_000)
    assert.equal(done.state_type, 'CRASHED', agent.output)
    assert.match(done.state?.message ?? '', /engine was restarted while it ran/)
    assert.deepEqual(
      stage.ledger(run.id).map(line => line.what),
      ['START'],
    )
    // The agent goes on as if nothing had been.
    const next = await stage.run(await deployCommand(stage, 'true', { network_mode: 'none' }))
    assert.equal((await stage.waitFor(next.id, over, 60_000)).state_type, 'COMPLETED', agent.output)
  },
)

test(
  'under a whole agent and live-restore, a run goes on under a restarted engine and is Completed',
  whole,
  async t => {
    await using server = await startPrefectServer('prefect2')
    await using engine = await OwnEngine.start({ ...own, flags: '--live-restore' })
    await using stage = await openDockerStage(server.apiUrl, engine.host)
    await using agent = startAgent(stage, {}, { DOCKER_HOST: engine.host })
    const script = 'while [ ! -e /ledger/go ]; do sleep 0.1; done'
    const deployment = await deployCommand(stage, script, { network_mode: 'none' })
    const run = await stage.run(deployment)
    await untilStarted(stage, run.id, agent)
    await engine.do('kill')
    await engine.do('start')
    assert.equal((await stage.readRun(run.id)).state_type, 'RUNNING', agent.output)
    await writeFile(join(stage.directory, 'go'), '')
    await until(() => stage.ledger(run.id).length === 2, { timeoutMs: 60_000, what: 'the end of the command' })
    const began = performance.now()
    const done = await stage.waitFor(run.id, over, 60_000)
    const tookMs = performance.now() - began
    t.diagnostic(`known ${Math.round(tookMs)} ms after the command had ended`)
    assert.ok(tookMs < 15_000)
    assert.equal(done.state_type, 'COMPLETED', `${done.state?.message}\n${agent.output}`)
    assert.deepEqual(
      stage.ledger(run.id).map(line => line.what),
      ['START', 'END'],
    )
  },
)
