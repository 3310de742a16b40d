// What is lost, delayed or cut between the agent and the API server starts nothing twice, loses nothing and ends in the truth.

import assert from 'node:assert/strict'
import test, { suite } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { InfrastructureError, type RunSpec } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type Fault, KubernetesProxy } from './kubernetes-proxy.ts'
import { type KubernetesSubject, makeKubernetesSubject, type SubjectOptions, unstopped } from './kubernetes-subject.ts'

const options = { ...needs('kubernetes'), timeout: 240_000 }

interface Stage extends AsyncDisposable {
  readonly proxy: KubernetesProxy
  readonly subject: KubernetesSubject
}

async function makeStage(more: SubjectOptions = {}): Promise<Stage> {
  const stack = new AsyncDisposableStack()
  const proxy = stack.use(await KubernetesProxy.start())
  const subject = stack.use(await makeKubernetesSubject({ environment: proxy.environment, ...more }))
  return { proxy, subject, [Symbol.asyncDispose]: () => stack.disposeAsync() }
}

/** Runs it to its end through the proxy: exactly one Job, one pod and one START, whatever was lost. */
async function runOnce({ subject }: Stage, spec: RunSpec): Promise<void> {
  const handle = await subject.infrastructure.submit(spec, unstopped)
  const lines: string[] = []
  const exit = await subject.infrastructure.wait(handle, more => void lines.push(...more), AbortSignal.timeout(90_000))
  assert.deepEqual(exit.kind === 'exited' && exit.statusCode, 4, JSON.stringify(exit))
  assert.deepEqual(lines, ['START'])
  assert.equal((await subject.list('jobs')).length, 1, 'no second Job')
  assert.equal((await subject.list('pods')).length, 1, 'no second pod')
}

const create = /^POST \/apis\/batch/
const secret = /^POST .*\/secrets/
const letGo = /^PATCH \/apis\/batch/
const watch = /watch=true/
const logs = /^GET .*\/log\?/

const launchFaults: readonly (readonly [string, RegExp, Fault, number])[] = [
  ['the answer to the create call is lost', create, { kind: 'lose' }, 1],
  ['the answer to the create call is lost three times', create, { kind: 'lose' }, 3],
  ['the create call never arrives, twice', create, { kind: 'drop' }, 2],
  ['the create call arrives after its connection broke', create, { kind: 'late', ms: 1_500 }, 1],
  ['the create call is never answered', create, { kind: 'hang' }, 1],
  ['the create call is answered with 503, twice', create, { kind: 'refuse', status: 503 }, 2],
  ['the API server asks for patience', create, { kind: 'refuse', status: 429, headers: { 'retry-after': '2' } }, 1],
  ['the answer to the Secret is lost', secret, { kind: 'lose' }, 1],
  ['the answer to the release is lost', letGo, { kind: 'lose' }, 2],
  ['the release arrives after its connection broke', letGo, { kind: 'late', ms: 1_500 }, 1],
  ['the release never arrives, twice', letGo, { kind: 'drop' }, 2],
  ['no watch can be opened for a while', watch, { kind: 'refuse', status: 500 }, 6],
  ['watches break again and again', watch, { kind: 'drop' }, 6],
  ['watches say nothing', watch, { kind: 'mute' }, 2],
  ['watches are answered with 410', watch, { kind: 'refuse', status: 410 }, 4],
  ['the stream of output breaks', logs, { kind: 'drop' }, 2],
]

suite('between the agent and the API server', { concurrency: 4, timeout: 1_200_000 }, () => {
  for (const [what, call, fault, times] of launchFaults) {
    test(`when ${what}, the run is started exactly once and its end is known`, options, async () => {
      await using stage = await makeStage({ times: { silenceMs: 8_000 } })
      stage.proxy.on(call, fault, times)
      await runOnce(stage, await stage.subject.spec('echo START; exit 4', { env: { KEY: 'value' } }))
    })
  }

  test('an end is known though every watch is cut all the time', options, async () => {
    await using stage = await makeStage()
    const cutting = new AbortController()
    const cutter = (async () => {
      while (!cutting.signal.aborted) {
        await delay(400)
        // Not all calls: on a busy machine some take longer than that, each time.
        stage.proxy.cutWatches()
      }
    })()
    try {
      await runOnce(stage, await stage.subject.spec('echo START; sleep 3; exit 4'))
    } finally {
      cutting.abort()
      await cutter
    }
  })

  test('an end that no event has told is found by the next list', options, async () => {
    await using stage = await makeStage({ times: { silenceMs: 600_000, reconcileMs: 4_000 } })
    const { proxy, subject } = stage
    // From the third watch on they work; the first ones are open and dead.
    proxy.on(watch, { kind: 'mute' }, 2)
    const handle = await subject.infrastructure.submit(await subject.spec('exit 4'), unstopped)
    const waiting = subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(60_000))
    await delay(6_000)
    proxy.cutAll()
    const exit = await waiting
    assert.equal(exit.kind === 'exited' && exit.statusCode, 4)
  })

  test(
    'one list and one watch of each kind serve all runs of a namespace, each by our label alone',
    options,
    async () => {
      await using stage = await makeStage()
      const { proxy, subject } = stage
      // Where a Job's end is heard before that of its pod, both are asked for: here pods alone tell of ends.
      proxy.on(/\/jobs\?.*watch=true/, { kind: 'mute' }, 1_000)
      const specs = await Promise.all(
        Array.from({ length: 8 }, () => subject.spec('exit 0', { env: { KEY: 'value' } })),
      )
      const handles = await Promise.all(specs.map(spec => subject.infrastructure.submit(spec, unstopped)))
      await Promise.all(
        handles.map(handle => subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(120_000))),
      )
      assert.ok(proxy.count(watch) <= 4, `${proxy.count(watch)} watches`)
      const reads = proxy.calls.filter(call => /^GET .*\/(pods|jobs)\?/.test(call))
      for (const call of reads) assert.match(decodeURIComponent(call), /labelSelector=rigel\.io\/agent=/)
      const writes = proxy.calls.filter(call => /^(POST|PATCH|PUT|DELETE)/.test(call))
      assert.equal(writes.length, 8 * 3, 'Job, Secret, release')
      const looks = proxy.calls.filter(call => /^GET .*\/jobs\/[^/?]+$/.test(call))
      assert.deepEqual(looks, [], 'no Job is asked for by itself')
    },
  )

  test('a cluster that does not answer gives the run back, and nothing is left', options, async () => {
    await using stage = await makeStage()
    const { proxy, subject } = stage
    await subject.infrastructure.submit(await subject.spec('true'), unstopped)
    const before = (await subject.list('jobs')).length
    proxy.on(create, { kind: 'drop' }, 1_000)
    const spec = await subject.spec('true')
    await assert.rejects(subject.infrastructure.submit(spec, unstopped), (error: unknown) => {
      assert.ok(error instanceof InfrastructureError)
      assert.equal(error.blame, 'host')
      return true
    })
    assert.equal((await subject.list('jobs')).length, before)
  })

  test('a submission that is stopped at any call leaves no Job that could start', options, async () => {
    for (const call of [create, secret, letGo]) {
      for (const when of ['before', 'after'] as const) {
        await using stage = await makeStage()
        const { proxy, subject } = stage
        const stop = new AbortController()
        proxy.on(call, { kind: 'tell', when, tell: () => stop.abort(new Error('stopped')) })
        const spec = await subject.spec('echo START', { env: { KEY: 'value' } })
        await assert.rejects(subject.infrastructure.submit(spec, stop.signal), /stopped/)
        const found = await subject.startAnew().reattach(spec, undefined, unstopped)
        const wasLetGo = call === letGo && when === 'after'
        assert.equal(found !== undefined, wasLetGo, `${when} ${call}`)
        if (!wasLetGo) {
          await until(async () => (await subject.list('jobs')).length === 0, { timeoutMs: 20_000 })
          assert.deepEqual(await subject.list('pods'), [])
        }
      }
    }
  })

  test('a stranger that has the name of a Job is left alone, and the run is refused', options, async () => {
    await using subject = await makeKubernetesSubject()
    const spec = await subject.spec('true')
    const name = `test-run-${spec.attempt}`
    const container = { name: 'c', image: 'rigel.test/busybox:1', command: ['sleep', '1'] }
    const body = {
      metadata: { name },
      spec: { suspend: true, template: { spec: { restartPolicy: 'Never', containers: [container] } } },
    }
    await subject.client.call('POST', `/apis/batch/v1/namespaces/${subject.namespace}/jobs`, { body }, unstopped)
    await assert.rejects(subject.infrastructure.submit(spec, unstopped), /that name is taken by another Job/)
    assert.equal((await subject.list('jobs')).length, 1)
    assert.equal(await subject.infrastructure.reattach(spec, undefined, unstopped), undefined)
    assert.equal((await subject.list('jobs')).length, 1)
  })

  test(
    'runs of two clusters are told apart, also by the next agent, which reads their block again',
    options,
    async () => {
      await using stage = await makeStage()
      const { proxy, subject } = stage
      // One agent, whose own cluster is the test cluster; a block names the same through the proxy, under a name of its own.
      const { kubeconfig } = await import('./kubernetes-subject.ts')
      const config = await proxy.readConfig()
      const settings = { cluster_config: { config, context_name: 'proxy' } }
      const spec = await subject.spec('exit 3', { settings })
      const own = { KUBECONFIG: kubeconfig, PREFECT_KUBERNETES_CLUSTER_UID: 'my-own' }
      const first = subject.startAnew(own)
      const [there, here] = await Promise.all([
        first.submit(spec, unstopped),
        first.submit(await subject.spec('exit 2'), unstopped),
      ])
      assert.match(here.identifier, /^my-own:/)
      assert.doesNotMatch(there.identifier, /^my-own:/)
      const next = subject.startAnew(own, async () => spec.settings)
      const codes = await Promise.all(
        [there, here].map(async handle => {
          const exit = await next.wait(handle, () => {}, AbortSignal.timeout(60_000))
          return exit.kind === 'exited' && exit.statusCode
        }),
      )
      assert.deepEqual(codes, [3, 2])
    },
  )
})
