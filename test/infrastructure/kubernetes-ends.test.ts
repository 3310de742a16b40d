// How runs end on a real cluster: each ending that can be provoked here, with its reason, its code and its last lines.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { suite } from 'node:test'
import * as v from 'valibot'
import type { Exit, Handle } from '../../src/infrastructure/infrastructure.ts'
import { needs } from '../support/requires.ts'
import { until } from '../support/until.ts'
import { type KubernetesSubject, makeKubernetesSubject, unstopped } from './kubernetes-subject.ts'

const Pod = v.object({ spec: v.object({ containers: v.array(v.looseObject({})) }) })
const Quota = v.object({ status: v.nullish(v.object({ hard: v.nullish(v.looseObject({})) })) })

const options = { ...needs('kubernetes'), timeout: 300_000 }

function base(overrides: { spec?: object; pod?: object; container?: object; containers?: object[] } = {}): object {
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { labels: {} },
    spec: {
      ...overrides.spec,
      template: {
        spec: {
          parallelism: 1,
          completions: 1,
          restartPolicy: 'Never',
          terminationGracePeriodSeconds: 1,
          ...overrides.pod,
          containers: [{ name: 'prefect-job', env: [], ...overrides.container }, ...(overrides.containers ?? [])],
        },
      },
    },
  }
}

interface Row {
  readonly what: string
  readonly script: string
  readonly settings?: object
  readonly says: RegExp
  readonly tail?: readonly string[]
  /** Done to the run once it is submitted; `lines` is what it has said so far. */
  readonly act?: (subject: KubernetesSubject, handle: Handle, lines: readonly string[]) => Promise<void>
}

/** An exit in one line: `exit 3: reason`, `SIGKILL: reason`, `gone: reason`. */
function tell(exit: Exit): string {
  if (exit.kind === 'vanished') return `gone: ${exit.reason}`
  return `${exit.signal ?? `exit ${exit.statusCode ?? '?'}`}: ${exit.reason ?? ''}`
}

const jobOf = ({ identifier }: Handle) => identifier.split(':')[2] ?? ''

async function deleteJob({ client, namespace }: KubernetesSubject, handle: Handle, propagationPolicy: string) {
  const path = `/apis/batch/v1/namespaces/${namespace}/jobs/${jobOf(handle)}`
  await client.call('DELETE', path, { body: { propagationPolicy } }, unstopped)
}

/** Waits until the run's pod is in this phase, and gives its name. */
async function podIn(subject: KubernetesSubject, phase: string): Promise<string> {
  return await until(
    async () => {
      const pods = await subject.pods()
      return pods.find(({ status }) => status?.phase === phase)?.metadata.name
    },
    { timeoutMs: 60_000, everyMs: 200, what: `a pod that is ${phase}` },
  )
}

/** The pod that runs. */
async function evict(subject: KubernetesSubject): Promise<void> {
  const { client, namespace } = subject
  const name = await podIn(subject, 'Running')
  const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } }
  await client.call('POST', `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, { body }, unstopped)
}

const rows: readonly Row[] = [
  { what: 'success', script: 'echo fine', says: /^exit 0: $/, tail: ['fine'] },
  { what: 'failure', script: 'echo oops >&2; exit 3', says: /^exit 3: $/, tail: ['oops'] },
  {
    what: 'failures beyond a backoffLimit of 1',
    script: 'echo again; exit 4',
    settings: { job: base({ spec: { backoffLimit: 1 } }) },
    says: /^exit 4: its Job has failed 2 times, more than its backoffLimit allows$/,
  },
  {
    what: 'activeDeadlineSeconds of the Job',
    script: 'echo begun; sleep 60',
    settings: { job: base({ spec: { activeDeadlineSeconds: 3 } }) },
    says: /its Job ran longer than its activeDeadlineSeconds \(DeadlineExceeded\)/,
  },
  {
    what: 'job_watch_timeout_seconds',
    script: 'echo begun; sleep 60',
    settings: { job: base(), job_watch_timeout_seconds: 3 },
    says: /its pod ran longer than its deadline \(activeDeadlineSeconds\)/,
  },
  {
    what: 'a pod failure policy',
    script: 'exit 42',
    settings: {
      job: base({
        spec: {
          backoffLimit: 3,
          podFailurePolicy: { rules: [{ action: 'FailJob', onExitCodes: { operator: 'In', values: [42] } }] },
        },
      }),
    },
    says: /^exit 42: the Job's podFailurePolicy ended it: /,
  },
  {
    what: 'out of memory',
    script: 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done',
    settings: { job: base({ container: { resources: { limits: { memory: '32Mi' } } } }) },
    says: /^SIGKILL: out of memory: the container went over its limit of 32Mi \(OOMKilled\)/,
  },
  {
    what: 'a command that is not in the image',
    script: '',
    settings: {
      customizations: [{ op: 'add', path: '/spec/template/spec/containers/0/command', value: ['/no/such'] }],
    },
    says: /its container could not be started: .*\/no\/such/,
  },
  {
    what: 'an image that cannot be pulled',
    script: 'true',
    settings: { image: 'rigel.test/nobody:1', pod_watch_timeout_seconds: 5 },
    says: /^exit \?: image "rigel.test\/nobody:1" could not be pulled: .*\(ErrImagePull\)$/,
  },
  {
    what: 'an image that may not be pulled',
    script: 'true',
    settings: { image: 'rigel.test/nobody:1', image_pull_policy: 'Never', pod_watch_timeout_seconds: 3 },
    says: /^exit \?: image "rigel.test\/nobody:1" is not on the node, and the pull policy Never forbids pulling it/,
  },
  {
    what: 'an image name that is none',
    script: 'true',
    settings: { image: 'rigel.test/UPPER:1' },
    says: /^exit \?: image "rigel.test\/UPPER:1" has a name that is none/,
  },
  {
    what: 'a ConfigMap that is missing',
    script: 'true',
    settings: {
      pod_watch_timeout_seconds: 3,
      customizations: [
        { op: 'add', path: '/spec/template/spec/containers/0/envFrom', value: [{ configMapRef: { name: 'missing' } }] },
      ],
    },
    says: /^exit \?: container "prefect-job" could not be made: configmap "missing" not found \(CreateContainerConfigError\)/,
  },
  {
    what: 'a side-car that does not end',
    script: 'echo done; exit 6',
    settings: { job: base({ containers: [{ name: 'side', image: 'rigel.test/busybox:1', args: ['sleep', '600'] }] }) },
    says: /^exit 6: other containers of its pod were still running: side$/,
    tail: ['done'],
  },
  {
    what: 'an init container that fails',
    script: 'true',
    settings: {
      customizations: [
        {
          op: 'add',
          path: '/spec/template/spec/initContainers',
          value: [{ name: 'first', image: 'rigel.test/busybox:1', command: ['sh', '-c', 'exit 9'] }],
        },
      ],
    },
    says: /^exit \?: init container "first" failed with code 9/,
  },
  {
    what: 'a Job that is deleted by hand while its pod runs',
    script: 'trap "exit 8" TERM; echo ready; while :; do sleep 0.1; done',
    says: /^exit 8: its Job was deleted$/,
    act: async (subject, handle, lines) => {
      await until(() => lines.length > 0, { timeoutMs: 120_000 })
      await deleteJob(subject, handle, 'Background')
    },
  },
  {
    what: 'a Job that is deleted by hand without its pod, which goes on to its end',
    script: 'while [ ! -e "$SHARED/go" ]; do sleep 0.1; done; echo alive; exit 0',
    says: /^exit 0: $/,
    tail: ['alive'],
    act: async (subject, handle) => {
      await podIn(subject, 'Running')
      await deleteJob(subject, handle, 'Orphan')
      await until(async () => (await subject.list('jobs')).length === 0, { timeoutMs: 60_000 })
      await writeFile(join(subject.shared.folder, 'go'), '')
    },
  },
  {
    what: 'a pod that is evicted, with nothing to follow',
    script: 'sleep 60',
    settings: { job: base() },
    says: /EvictionByEvictionAPI/,
    act: evict,
  },
]

suite('a run in a pod', { concurrency: 4, timeout: 1_200_000 }, () => {
  for (const { what, script, settings = {}, says, tail, act } of rows) {
    test(`${what}: told with its reason`, options, async () => {
      await using subject = await makeKubernetesSubject()
      const { shared } = subject
      const isSharing = script.includes('$SHARED')
      const spec = await subject.spec(script, {
        settings: { ...(isSharing ? shared.settings : {}), ...settings },
        env: isSharing ? { SHARED: shared.folder } : {},
      })
      const handle = await subject.infrastructure.submit(spec, unstopped)
      const lines: string[] = []
      const take = (more: readonly string[]) => void lines.push(...more)
      const waiting = subject.infrastructure.wait(handle, take, AbortSignal.timeout(150_000))
      await act?.(subject, handle, lines)
      const exit = await waiting
      assert.match(tell(exit), says)
      if (tail) assert.deepEqual(exit.outputTail, tail)
      await subject.infrastructure.release(handle, unstopped)
    })
  }

  test('a pod that is evicted and replaced goes on: the run ends as its last pod does', options, async () => {
    await using subject = await makeKubernetesSubject()
    const { shared } = subject
    const script = `echo begun; while [ ! -e ${shared.folder}/go ]; do sleep 0.1; done; echo ended`
    const settings = { job: base({ spec: { backoffLimit: 2 } }), ...shared.settings }
    const handle = await subject.infrastructure.submit(await subject.spec(script, { settings }), unstopped)
    const lines: string[] = []
    const waiting = subject.infrastructure.wait(handle, more => void lines.push(...more), AbortSignal.timeout(150_000))
    const haveBegun = (count: number) =>
      until(() => lines.length === count, { timeoutMs: 120_000, what: `${count} pods to have begun` })
    await haveBegun(1)
    await evict(subject)
    await haveBegun(2)
    await writeFile(join(subject.shared.folder, 'go'), '')
    assert.match(tell(await waiting), /^exit 0: $/)
    assert.deepEqual(lines, ['begun', 'begun', 'ended'])
  })

  test('an image that comes in time is no failure', options, async () => {
    await using subject = await makeKubernetesSubject()
    const settings = { image: 'rigel.test/nobody:1', pod_watch_timeout_seconds: 140 }
    const handle = await subject.infrastructure.submit(await subject.spec('echo healed', { settings }), unstopped)
    const waiting = subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(150_000))
    await until(() => subject.log.some(line => /flow run waits in its cluster/.test(line)), { timeoutMs: 60_000 })
    // The image of a pod that waits may be changed, which is how it is healed here.
    const name = await podIn(subject, 'Pending')
    const path = `/api/v1/namespaces/${subject.namespace}/pods/${name}`
    const pod = v.parse(Pod, await subject.client.call('GET', path, {}, unstopped))
    const body = { spec: { containers: [{ ...pod.spec.containers[0], image: 'rigel.test/busybox:1' }] } }
    await subject.client.call('PATCH', path, { body }, unstopped)
    assert.match(tell(await waiting), /^exit 0: $/)
  })

  for (const [what, customization, says] of [
    [
      'no node takes its pod',
      { op: 'add', path: '/spec/template/spec/containers/0/resources', value: { requests: { cpu: '500' } } },
      /no node takes its pod: .*Insufficient cpu/,
    ],
    ['a quota forbids its pod', undefined, /no pod has been made for its Job yet: .*exceeded quota/],
  ] as const) {
    test(`when ${what}, the run waits, and the cause is told once`, options, async () => {
      await using subject = await makeKubernetesSubject()
      if (!customization) {
        const body = { metadata: { name: 'none' }, spec: { hard: { pods: '0' } } }
        await subject.client.call('POST', `/api/v1/namespaces/${subject.namespace}/resourcequotas`, { body }, unstopped)
        await until(async () => {
          const path = `/api/v1/namespaces/${subject.namespace}/resourcequotas/none`
          return v.parse(Quota, await subject.client.call('GET', path, {}, unstopped)).status?.hard
        })
      }
      const settings = customization ? { customizations: [customization] } : {}
      const handle = await subject.infrastructure.submit(await subject.spec('true', { settings }), unstopped)
      const lines: string[] = []
      const stop = new AbortController()
      const waiting = subject.infrastructure.wait(handle, more => void lines.push(...more), stop.signal)
      waiting.catch(() => {})
      await until(() => lines.some(line => says.test(line)), { timeoutMs: 60_000, what: `a line with ${says}` })
      await new Promise(resolve => setTimeout(resolve, 3_000))
      assert.equal(lines.filter(line => says.test(line)).length, 1, lines.join('\n'))
      // A controller that is slow to say why is not waited for with the first word.
      const others = lines.filter(line => !says.test(line) && !line.endsWith('no pod has been made for its Job yet'))
      assert.deepEqual(others, [])
      await subject.infrastructure.kill(handle, 1, unstopped)
      assert.match(tell(await waiting), /^gone: /)
      assert.deepEqual(await subject.list('jobs'), [])
      stop.abort()
    })
  }

  test('what has ended while the agent was down is told to the next one', options, async () => {
    await using subject = await makeKubernetesSubject()
    const make = async (script: string, settings: Record<string, unknown>) =>
      await subject.infrastructure.submit(await subject.spec(script, { settings }), unstopped)
    const failed = await make('echo words; exit 5', {})
    const late = await make('sleep 60', { job: base({ spec: { activeDeadlineSeconds: 2 } }) })
    const deleted = await make('sleep 60', { job: base() })
    const outlived = await make('exit 0', {})
    const path = `/apis/batch/v1/namespaces/${subject.namespace}/jobs`
    await deleteJob(subject, deleted, 'Background')
    await subject.client.call(
      'PATCH',
      `${path}/${jobOf(outlived)}`,
      { body: { spec: { ttlSecondsAfterFinished: 0 } } },
      unstopped,
    )
    await until(
      async () => {
        const jobs = await subject.jobs()
        const over = jobs.filter(job => job.status?.conditions?.some(({ type }) => type === 'Failed'))
        return jobs.length === 2 && over.length === 2 && (await subject.pods()).length <= 1
      },
      { timeoutMs: 90_000, everyMs: 200, what: 'all to have ended' },
    )
    const next = subject.startAnew()
    const ask = async (handle: Handle) => tell(await next.wait(handle, () => {}, AbortSignal.timeout(60_000)))
    assert.match(await ask(failed), /^exit 5: $/)
    assert.match(await ask(late), /DeadlineExceeded/)
    assert.match(await ask(deleted), /^gone: its Job is gone/)
    assert.match(await ask(outlived), /^gone: its Job is gone/)
  })

  test('a run that is ended while its image is pulled leaves nothing behind', options, async () => {
    await using subject = await makeKubernetesSubject()
    const settings = { image: 'rigel.test/nobody:1' }
    const spec = await subject.spec('true', { settings, env: { KEY: 'value' } })
    const handle = await subject.infrastructure.submit(spec, unstopped)
    const waiting = subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(200_000))
    await podIn(subject, 'Pending')
    const startMs = performance.now()
    await subject.infrastructure.kill(handle, 120, unstopped)
    assert.ok(performance.now() - startMs < 100_000, 'a pod that does not run needs no grace')
    await waiting
    for (const kind of ['jobs', 'pods'] as const) assert.deepEqual(await subject.list(kind), [], kind)
    await until(async () => (await subject.list('secrets')).length === 0, { timeoutMs: 30_000 })
  })

  test('a finished Job is kept as long as its block says, once its end is on record', options, async () => {
    await using subject = await makeKubernetesSubject()
    const ends = async (settings: Record<string, unknown>) => {
      const handle = await subject.infrastructure.submit(await subject.spec('true', { settings }), unstopped)
      await subject.infrastructure.wait(handle, () => {}, AbortSignal.timeout(60_000))
      await subject.infrastructure.release(handle, unstopped)
      return jobOf(handle)
    }
    const [kept] = await Promise.all([ends({}), ends({ finished_job_ttl: 0 }), ends({ finished_job_ttl: 1 })])
    const names = async () => (await subject.jobs()).map(({ metadata }) => metadata.name)
    await until(async () => (await names()).length === 1, { timeoutMs: 60_000, everyMs: 200 })
    assert.deepEqual(await names(), [kept])
  })
})
