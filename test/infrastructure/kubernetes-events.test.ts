// Why runs have no pods is read for all of them by one list of the namespace's events, and not at all without the right.

import assert from 'node:assert/strict'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import * as v from 'valibot'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { KubernetesProxy } from './kubernetes-proxy.ts'
import { makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes'), timeout: 240_000 }
const readEvents = /^GET .*\/events\?/
const runs = 25
const Quota = v.object({ status: v.nullish(v.object({ hard: v.nullish(v.looseObject({})) })) })

/** So many runs that no pod is made for, because of a quota; what each of them is told. */
async function makeWaiting(proxy: KubernetesProxy) {
  const stack = new AsyncDisposableStack()
  const subject = stack.use(await makeKubernetesSubject({ environment: proxy.environment }))
  const path = `/api/v1/namespaces/${subject.namespace}/resourcequotas`
  const body = { metadata: { name: 'none' }, spec: { hard: { pods: '0' } } }
  await subject.client.call('POST', path, { body }, unstopped)
  await until(async () => v.parse(Quota, await subject.client.call('GET', `${path}/none`, {}, unstopped)).status?.hard)
  const stop = new AbortController()
  const told = await Promise.all(
    Array.from({ length: runs }, async () => {
      const lines: string[] = []
      const handle = await subject.infrastructure.submit(await subject.spec('true'), unstopped)
      const waiting = subject.infrastructure.wait(handle, more => void lines.push(...more), stop.signal)
      stack.defer(async () => {
        await waiting.catch(() => undefined)
      })
      return lines
    }),
  )
  stack.defer(() => stop.abort())
  return { told, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

suite('events of a namespace', { concurrency: 2, timeout: 600_000 }, () => {
  test(`${runs} runs that wait for a pod have the reason from a few lists for all of them`, options, async () => {
    await using proxy = await KubernetesProxy.start()
    const began = performance.now()
    await using waiting = await makeWaiting(proxy)
    const { told } = waiting
    await until(() => told.every(lines => lines.some(line => /no pod .*exceeded quota/.test(line))), {
      timeoutMs: 90_000,
      what: 'each run to be told of the quota',
    })
    // A controller that is slow to say why is not waited for with the first word.
    for (const lines of told) assert.ok(lines.length <= 2, lines.join('\n'))
    // Each answers for 4 s.
    const most = 1 + (performance.now() - began) / 4_000
    assert.ok(proxy.count(readEvents) <= most, `${proxy.count(readEvents)} reads of events, more than ${most}`)
  })

  test(
    'without the right to list events they are asked for once, and runs are told what is known',
    options,
    async () => {
      await using proxy = await KubernetesProxy.start()
      proxy.on(readEvents, { kind: 'refuse', status: 403 }, 1_000)
      await using waiting = await makeWaiting(proxy)
      const { told } = waiting
      await until(
        () => told.every(lines => lines.some(line => line.endsWith('no pod has been made for its Job yet'))),
        {
          timeoutMs: 90_000,
          what: 'each run to be told that it has no pod',
        },
      )
      await delay(6_000)
      assert.equal(proxy.count(readEvents), 1)
    },
  )
})
