// A run of an earlier life whose cluster cannot be told, or not be asked, now: nothing is said of it without evidence.

import assert from 'node:assert/strict'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { Handle, Infrastructure, RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { KubernetesProxy } from './kubernetes-proxy.ts'
import { type KubernetesSubject, makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes'), timeout: 240_000 }
const nowhere = { KUBECONFIG: '/nonexistent/kubeconfig' }
const readUid = /^GET \/api\/v1\/namespaces\/kube-system/

/** Waits for the run's end; `told` becomes true with it. */
function waitFor(driver: Infrastructure, handle: Handle) {
  const waiting = { told: false, exit: driver.wait(handle, () => {}, AbortSignal.timeout(120_000)) }
  waiting.exit.finally(() => (waiting.told = true)).catch(() => undefined)
  return waiting
}

async function codeOf({ exit }: ReturnType<typeof waitFor>): Promise<number | string | undefined> {
  const ended = await exit
  return ended.kind === 'exited' ? ended.statusCode : `gone: ${ended.reason}`
}

const hasSaid = ({ log }: KubernetesSubject, text: string) => log.some(line => line.includes(text))

const placeOf = ({ runsDirectory }: KubernetesSubject, { flowRunId, attempt }: RunSpec) =>
  join(runsDirectory, flowRunId, `kubernetes-${attempt}.place`)

suite('a run whose cluster is not known', { concurrency: 4, timeout: 900_000 }, () => {
  test('whose block was deleted while the agent was down waits until the block is back', options, async () => {
    await using subject = await makeKubernetesSubject()
    await using proxy = await KubernetesProxy.start()
    const config = await proxy.readConfig()
    const spec = await subject.spec('exit 3', { settings: { cluster_config: { config, context_name: 'proxy' } } })
    const handle = await subject.startAnew(nowhere).submit(spec, unstopped)
    let block: RunSpec['settings'] | undefined
    const next = subject.startAnew(nowhere, async () => block)
    const waiting = waitFor(next, handle)
    await until(() => hasSaid(subject, 'bring back its block, or cancel the run'), { timeoutMs: 30_000 })
    await delay(2_000)
    assert.equal(waiting.told, false, 'nothing is said of the run')
    block = spec.settings
    assert.equal(await codeOf(waiting), 3)
  })

  test('is let go when somebody ends it, with a word on what may be left', options, async () => {
    await using subject = await makeKubernetesSubject()
    const spec = await subject.spec('sleep 600')
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const next = subject.startAnew(nowhere)
    const waiting = waitFor(next, handle)
    await until(() => hasSaid(subject, 'bring back its block, or cancel the run'), { timeoutMs: 30_000 })
    await next.kill(handle, 1, unstopped)
    assert.match(String(await codeOf(waiting)), /^gone: its Job belongs to cluster .* it may still be there$/)
    await subject.infrastructure.kill(handle, 1, unstopped)
  })

  for (const remembers of [true, false]) {
    const how = remembers ? 'by its other id' : 'by the Job itself'
    test(`is known ${how} when the right to read the uid is gone`, options, async () => {
      await using proxy = await KubernetesProxy.start()
      await using subject = await makeKubernetesSubject({ environment: proxy.environment })
      const spec = await subject.spec('sleep 5; exit 3')
      const handle = await subject.infrastructure.submit(spec, unstopped)
      if (!remembers) await rm(placeOf(subject, spec))
      proxy.on(readUid, { kind: 'refuse', status: 403 }, 1_000)
      const next = subject.startAnew()
      const found = await next.reattach(spec, handle, unstopped)
      assert.equal(await codeOf(waitFor(next, found ?? handle)), 3)
      await next.release(handle, unstopped)
    })
  }

  test(
    'is known by its other id also when its Job was deleted meanwhile, which is then the truth',
    options,
    async () => {
      await using proxy = await KubernetesProxy.start()
      await using subject = await makeKubernetesSubject({ environment: proxy.environment })
      const handle = await subject.infrastructure.submit(await subject.spec('sleep 600'), unstopped)
      await subject.infrastructure.kill(handle, 1, unstopped)
      proxy.on(readUid, { kind: 'refuse', status: 403 }, 1_000)
      assert.match(String(await codeOf(waitFor(subject.startAnew(), handle))), /^gone: its Job is gone/)
    },
  )

  test('is neither ended nor started again while its API server is away', options, async () => {
    await using proxy = await KubernetesProxy.start()
    await using subject = await makeKubernetesSubject({ environment: proxy.environment })
    const spec = await subject.spec('sleep 1; exit 3')
    const handle = await subject.infrastructure.submit(spec, unstopped)
    proxy.on(/./, { kind: 'drop' }, 1_000_000)
    const next = subject.startAnew()
    let answered = false
    const found = next.reattach(spec, undefined, unstopped).finally(() => {
      answered = true
    })
    const waiting = waitFor(next, handle)
    await until(() => hasSaid(subject, 'the cluster of the run cannot be asked'), { timeoutMs: 60_000 })
    await assert.rejects(next.kill(handle, 1, unstopped), /cannot be ended: its cluster .* cannot be reached/)
    assert.equal(waiting.told || answered, false, 'nothing is said of the run')
    proxy.heal()
    assert.equal((await found)?.identifier, handle.identifier)
    assert.equal(await codeOf(waiting), 3)
    assert.equal((await subject.jobs()).length, 1)
  })
})
