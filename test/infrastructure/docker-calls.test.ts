// How few calls the engine is asked for: one event stream for all, one look and one reading for what ends soon.

import assert from 'node:assert/strict'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { calls, makeStage, type Stage } from './docker-stage.ts'
import { unstopped } from './docker-subject.ts'

const options = { ...needs('docker'), timeout: 120_000 }

/** Longer than any machine takes to end a container that ends soon. */
const momentMs = 600_000

/** Calls without their ids, but for the list that is read every few seconds. */
const kindsOf = (all: readonly string[]) =>
  all
    .filter(call => !calls.reconciliation.test(call))
    .map(call => call.replace(/\?.*/, '').replace(/(containers)\/(?!create)[^/]+/, '$1/ID'))

/** Holds the event stream open by a run that goes on, as other runs of an agent do. */
async function watchAnother(stage: Stage) {
  const { infrastructure } = stage.subject
  const stop = new AbortController()
  const handle = await infrastructure.submit(await stage.spec('sleep 600'), unstopped)
  const waiting = infrastructure.wait(handle, () => {}, stop.signal)
  waiting.catch(() => {})
  await until(() => stage.proxy.openEventStreams === 1)
  return {
    infrastructure,
    [Symbol.asyncDispose]: async () => {
      stop.abort(new Error('enough'))
      await Promise.allSettled([waiting])
    },
  }
}

suite('calls to the engine', { ...needs('docker'), concurrency: 3 }, () => {
  test(
    'one event stream serves any number of containers, and none is left when nothing is watched',
    options,
    async () => {
      await using stage = await makeStage()
      const { infrastructure } = stage.subject
      const stop = new AbortController()
      const specs = await Promise.all(Array.from({ length: 8 }, () => stage.spec('sleep 600')))
      const handles = await Promise.all(specs.map(spec => infrastructure.submit(spec, unstopped)))
      const waiting = handles.map(handle => infrastructure.wait(handle, () => {}, stop.signal))
      for (const one of waiting) one.catch(() => {})
      await until(() => stage.proxy.openEventStreams === 1)
      // Which begins once each has been looked at.
      await until(() => stage.proxy.count(calls.logs) === handles.length, { what: 'the output of each' })
      const looksBefore = stage.proxy.count(calls.inspect)
      await delay(2_000)
      assert.equal(stage.proxy.openEventStreams, 1)
      assert.equal(stage.proxy.count(calls.events), 1)
      assert.ok(stage.proxy.count(calls.inspect) - looksBefore <= 1, 'containers are not polled one by one')
      stop.abort(new Error('enough'))
      await Promise.allSettled(waiting)
      await until(() => stage.proxy.openEventStreams === 0)
    },
  )

  test('a run that ends within a moment costs five calls: one look and one reading', options, async () => {
    await using stage = await makeStage({ momentMs })
    await using other = await watchAnother(stage)
    const before = stage.proxy.calls.length
    const spec = await stage.spec('echo said; sleep 0.15; exit 4', { settings: { auto_remove: true } })
    const handle = await other.infrastructure.submit(spec, unstopped)
    const lines: string[] = []
    const exit = await other.infrastructure.wait(handle, batch => void lines.push(...batch), unstopped)
    assert.equal(exit.kind === 'exited' && exit.statusCode, 4)
    assert.deepEqual([lines, exit.outputTail], [['said'], ['said']])
    await other.infrastructure.release(handle, unstopped)
    assert.deepEqual(kindsOf(stage.proxy.calls.slice(before)), [
      'POST /containers/create',
      'POST /containers/ID/start',
      'GET /containers/ID/json',
      'GET /containers/ID/logs',
      'DELETE /containers/ID',
    ])
  })

  test('a run that ended before it was waited for is known to have ended at once', options, async () => {
    await using stage = await makeStage({ momentMs })
    await using other = await watchAnother(stage)
    const waits: string[][] = []
    // What is read every few seconds may come between once, and would tell of the end as well.
    for (let round = 0; round < 3; round++) {
      const handle = await other.infrastructure.submit(await stage.spec('exit 4'), unstopped)
      const id = handle.identifier.split(':').at(-1) ?? ''
      await until(async () => (await stage.subject.engine.inspect(id, unstopped))?.State.Status === 'exited')
      const before = stage.proxy.calls.length
      await other.infrastructure.wait(handle, () => {}, unstopped)
      waits.push(stage.proxy.calls.slice(before))
    }
    assert.ok(
      waits.some(all => !all.some(call => calls.reconciliation.test(call))),
      JSON.stringify(waits),
    )
  })
})
