// What is lost, delayed or cut between the agent and the engine starts nothing twice, loses nothing and ends in the truth.

import assert from 'node:assert/strict'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { InfrastructureError } from '../../src/infrastructure/infrastructure.ts'
import { findFreePort } from '../support/prefect-server.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import type { Fault } from './docker-proxy.ts'
import { calls, makeStage, type Stage } from './docker-stage.ts'
import { makeDockerSubject, unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 120_000 }
/** How soon a run's end must be known, whatever was lost. */
const soonMs = 15_000

/** Runs it to its end through the proxy and gives the exit. */
async function runThrough({ subject }: Stage, spec: RunSpec) {
  const handle = await subject.infrastructure.submit(spec, unstopped)
  return await subject.infrastructure.wait(handle, () => {}, unstopped)
}

/** What a late call has started, if it has, is then over and has left its mark. */
async function untilNothingRuns({ subject }: Stage): Promise<void> {
  const own = [`io.rigel.agent=${subject.agentPrefix}`]
  await until(async () => (await subject.engine.list(own, false, unstopped)).length === 0)
}

/** What Docker said on a busy machine. */
const late =
  'failed to create shim task: failed to start io pipe copy: unable to copy pipes: containerd-shim: opening w/o fifo "/run/init-stdout" failed: context deadline exceeded'

const launchFaults: readonly (readonly [string, RegExp, Fault, number])[] = [
  ['the answer to the create call is lost', calls.create, { kind: 'lose' }, 1],
  ['the answer to the create call is lost three times', calls.create, { kind: 'lose' }, 3],
  ['the create call never arrives, twice', calls.create, { kind: 'drop' }, 2],
  ['the create call arrives after its connection broke', calls.create, { kind: 'late', ms: 1_500 }, 1],
  ['the create call is never answered', calls.create, { kind: 'hang' }, 1],
  ['the create call is answered with 503, twice', calls.create, { kind: 'refuse', status: 503 }, 2],
  ['the answer to the start call is lost', calls.start, { kind: 'lose' }, 1],
  ['the start call never arrives, twice', calls.start, { kind: 'drop' }, 2],
  ['the start call is never answered', calls.start, { kind: 'hang' }, 1],
  ['the start call is answered with 503, twice', calls.start, { kind: 'refuse', status: 503 }, 2],
  ['looks at the container are lost', calls.inspect, { kind: 'lose' }, 4],
]

// Most of their time they wait.
suite('faults between the agent and the engine', { ...needs('docker'), concurrency: 4 }, () => {
  for (const [what, call, fault, times] of launchFaults) {
    test(`when ${what}, the run is started exactly once and its end is known`, options, async () => {
      await using stage = await makeStage()
      stage.proxy.on(call, fault, times)
      const exit = await runThrough(stage, await stage.spec('exit 4'))
      assert.equal(exit.kind === 'exited' && exit.statusCode, 4)
      assert.deepEqual(await stage.ledger.lines(), ['START'])
      const own = await stage.subject.engine.list([`io.rigel.agent=${stage.subject.agentPrefix}`], true, unstopped)
      assert.equal(own.length, 1, 'no second container is left behind')
    })
  }

  for (const [what, answers, refusal] of [
    ['is too late once: the run is started all the same', [late], undefined],
    ['is too late each time: that is no fault of the run', [late, late, late], /deadline/],
    ['was too late and bars the next try: that is no fault of the run either', [late, 'id already in use'], /in use/],
  ] as const) {
    test(`the runtime of a busy engine ${what}`, options, async () => {
      await using stage = await makeStage()
      // The engine itself refuses and notes it, for want of a port; in other words.
      await using other = await makeDockerSubject()
      const settings = { container_create_kwargs: { ports: { '80/tcp': await findFreePort() } } }
      const handle = await other.infrastructure.submit(await other.spec('sleep 600', { settings }), unstopped)
      const release = () => other.infrastructure.kill(handle, 0, unstopped)
      const around = async (call: () => Promise<void>) => {
        await call()
        if (!refusal) await release()
      }
      for (const message of answers) stage.proxy.on(calls.start, { kind: 'reword', message, around })
      const running = runThrough(stage, await stage.spec('exit 4', { settings }))
      if (refusal) await assert.rejects(running, { name: 'InfrastructureError', blame: 'host', message: refusal })
      else assert.equal(Object(await running).statusCode, 4)
      assert.deepEqual(await stage.ledger.lines(), refusal ? [] : ['START'])
      await release()
    })
  }

  test('a start call that arrives after it was given up does not start the run a second time', options, async () => {
    await using stage = await makeStage()
    // Long enough for the second start to have come and gone.
    stage.proxy.on(calls.start, { kind: 'late', ms: 4_000 })
    const exit = await runThrough(stage, await stage.spec('exit 0'))
    assert.equal(exit.kind === 'exited' && exit.statusCode, 0)
    await stage.proxy.lateCalls()
    await untilNothingRuns(stage)
    assert.deepEqual(await stage.ledger.lines(), ['START'])
  })

  test('a start call that arrives after a stop of the submission starts nothing', options, async () => {
    await using stage = await makeStage()
    stage.proxy.on(calls.start, { kind: 'late', ms: 2_000 })
    const stop = new AbortController()
    const spec = await stage.spec('exit 0')
    const submitting = stage.subject.infrastructure.submit(spec, stop.signal)
    submitting.catch(() => {})
    await until(() => stage.proxy.count(calls.start) > 0)
    stop.abort(new Error('cancelled'))
    await assert.rejects(submitting, /cancelled/)
    assert.equal(await stage.subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
    await stage.proxy.lateCalls()
    await untilNothingRuns(stage)
    assert.deepEqual(await stage.ledger.lines(), [])
  })

  test('an agent that died before its start call arrived: the next one starts it once', options, async () => {
    await using stage = await makeStage()
    const spec = await stage.spec('exit 0')
    stage.proxy.on(calls.start, { kind: 'late', ms: 1_500 })
    const stop = new AbortController()
    const first = stage.subject.infrastructure.submit(spec, stop.signal)
    first.catch(() => {})
    await until(() => stage.proxy.count(calls.start) > 0)
    // The first agent hangs from here on, as one that was killed does; the second goes to the engine directly.
    stage.proxy.on(/./, { kind: 'swallow' }, 1_000)
    const next = stage.subject.startAnew({ DOCKER_HOST: process.env.RIGEL_TEST_DOCKER_HOST ?? '' })
    const found = await next.reattach(spec, undefined, unstopped)
    const handle = found ?? (await next.submit(spec, unstopped))
    await next.wait(handle, () => {}, unstopped)
    await stage.proxy.lateCalls()
    await untilNothingRuns(stage)
    assert.deepEqual(await stage.ledger.lines(), ['START'])
    stop.abort()
    stage.proxy.heal()
    await Promise.allSettled([first])
  })

  const watchFaults: readonly (readonly [string, RegExp, Fault])[] = [
    ['the event stream is silent', calls.events, { kind: 'swallow' }],
    ['the event stream begins and then says nothing', calls.events, { kind: 'mute' }],
    ['the event stream is refused', calls.events, { kind: 'refuse', status: 500 }],
    ['the output stream is never answered', calls.logs, { kind: 'swallow' }],
    ['the output stream begins and then says nothing', calls.logs, { kind: 'mute' }],
    ['the first look is never answered', calls.inspect, { kind: 'swallow' }],
  ]

  for (const [what, call, fault] of watchFaults) {
    test(`when ${what}, the end of a run is known within 15 s`, options, async () => {
      await using stage = await makeStage()
      const { infrastructure } = stage.subject
      const handle = await infrastructure.submit(await stage.spec('echo said; sleep 2; exit 3'), unstopped)
      stage.proxy.on(call, fault, call === calls.events ? 1_000 : 1)
      const lines: string[] = []
      const began = performance.now()
      const exit = await infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
      assert.equal(exit.kind === 'exited' && exit.statusCode, 3)
      assert.ok(performance.now() - began < 2_000 + soonMs, `took ${performance.now() - began} ms`)
      assert.deepEqual(lines, ['said'])
      assert.deepEqual(exit.outputTail, ['said'])
      stage.proxy.cutAll()
    })
  }

  test('connections that are cut again and again neither lose nor double a line', options, async () => {
    await using stage = await makeStage()
    const { infrastructure } = stage.subject
    const script = 'i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 5'
    const handle = await infrastructure.submit(await stage.spec(script), unstopped)
    const lines: string[] = []
    const waiting = infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
    for (let cut = 0; cut < 10; cut++) {
      await delay(350)
      stage.proxy.cutAll()
    }
    const exit = await waiting
    assert.equal(exit.kind === 'exited' && exit.statusCode, 5)
    assert.deepEqual(
      lines,
      Array.from({ length: 300 }, (_, index) => `line ${index}`),
    )
  })

  test(
    'an engine that cannot be reached for a while: the run is neither lost nor reported meanwhile',
    options,
    async () => {
      await using stage = await makeStage()
      const { infrastructure } = stage.subject
      const script = 'echo said; while [ ! -e /ledger/go ]; do sleep 0.1; done; exit 6'
      const handle = await infrastructure.submit(await stage.spec(script), unstopped)
      const lines: string[] = []
      let isOver = false
      const waiting = infrastructure
        .wait(handle, batch => void lines.push(...batch), unstopped)
        .finally(() => {
          isOver = true
        })
      await until(() => lines.length > 0)
      await stage.proxy.down()
      await stage.ledger.allow('go')
      await untilNothingRuns(stage)
      await delay(4_000)
      assert.equal(isOver, false)
      await stage.proxy.listen()
      const exit = await waiting
      assert.equal(exit.kind === 'exited' && exit.statusCode, 6)
      assert.deepEqual(exit.outputTail, ['said'])
    },
  )

  test('an engine that is not there blames the host, so that the run is given back', options, async () => {
    await using subject = await makeDockerSubject({ environment: { DOCKER_HOST: 'unix:///nonexistent/docker.sock' } })
    const spec = await subject.spec('exit 0')
    await assert.rejects(
      subject.infrastructure.submit(spec, unstopped),
      (error: unknown) =>
        error instanceof InfrastructureError && error.blame === 'host' && /socket does not exist/.test(error.message),
    )
  })

  test('whether something was started is not answered before the engine has said so', options, async () => {
    await using stage = await makeStage()
    const { infrastructure } = stage.subject
    const spec = await stage.spec('sleep 30')
    const handle = await infrastructure.submit(spec, unstopped)
    await stage.proxy.down()
    const finding = stage.subject.startAnew(stage.proxy.environment).reattach(spec, undefined, unstopped)
    await delay(1_500)
    await stage.proxy.listen()
    assert.deepEqual(await finding, handle)
  })

  test('a kill whose answers are lost ends the run all the same', options, async () => {
    await using stage = await makeStage()
    const { infrastructure } = stage.subject
    const handle = await infrastructure.submit(await stage.spec("trap '' TERM; while :; do sleep 0.1; done"), unstopped)
    stage.proxy.on(/^POST \/containers\/[^/]+\/stop/, { kind: 'drop' }, 2)
    await infrastructure.kill(handle, 1, unstopped)
    const exit = await infrastructure.wait(handle, () => {}, unstopped)
    assert.equal(exit.kind === 'exited' && exit.signal, 'SIGKILL')
  })
})
