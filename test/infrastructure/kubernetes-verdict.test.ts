// What a Job and its pods say of a run, as the API server showed it in each case.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type JobView, type PodView, readJob, readPod } from '../../src/infrastructure/kubernetes-objects.ts'
import { judge, lostNodeMs, noPodMs, sideCarMs, type Verdict } from '../../src/infrastructure/kubernetes-verdict.ts'

const graceMs = 60_000

function job(
  conditions: readonly object[] = [],
  rest: { spec?: object; metadata?: object; status?: object } = {},
): JobView {
  const view = readJob({
    metadata: { name: 'j', uid: 'job', labels: {}, annotations: {}, ...rest.metadata },
    spec: { ...rest.spec },
    status: { conditions, ...rest.status },
  })
  assert.ok(view)
  return view
}

const complete = job([{ type: 'Complete', status: 'True' }])
const running = job()

function failed(reason: string, message = '', failures = 1): JobView {
  return job([{ type: 'Failed', status: 'True', reason, message }], { status: { failed: failures } })
}

let serial = 0
/** Later pods are newer. */
function pod(parts: {
  phase?: string
  main?: object
  others?: object[]
  status?: object
  metadata?: object
  init?: object[]
}): PodView {
  serial += 1
  const second = String(serial % 60).padStart(2, '0')
  const minute = String(Math.floor(serial / 60)).padStart(2, '0')
  const statuses = [...(parts.main ? [{ name: 'prefect-job', state: parts.main }] : []), ...(parts.others ?? [])]
  const view = readPod({
    metadata: {
      name: `p${serial}`,
      uid: `pod-${serial}`,
      creationTimestamp: `2026-01-01T00:${minute}:${second}Z`,
      ...parts.metadata,
    },
    spec: {
      nodeName: 'node-1',
      containers: [
        { name: 'prefect-job', image: 'img:1', resources: { limits: { memory: '32Mi' } } },
        { name: 'side', image: 'side:1' },
      ],
      initContainers: [{ name: 'fetch', image: 'rigel:1' }],
    },
    status: {
      phase: parts.phase ?? 'Running',
      containerStatuses: statuses,
      initContainerStatuses: parts.init,
      ...parts.status,
    },
  })
  assert.ok(view)
  return view
}

const ended = (exitCode: number, more: object = {}) => ({ terminated: { exitCode, ...more } })
const waiting = (reason: string, message = '') => ({ waiting: { reason, message } })
const leaving = { deletionTimestamp: '2026-01-01T00:00:30Z', deletionGracePeriodSeconds: 30 }

function ask(state: { job?: JobView | undefined; pods?: readonly PodView[] }, ageMs = 0): Verdict {
  return judge({ job: state.job, pods: state.pods ?? [] }, { ageOf: () => ageMs, startGraceMs: graceMs })
}

/** A verdict in one line: `going: text`, `exit 3: reason`, `SIGKILL: reason`, `gone: reason`. */
function tell(verdict: Verdict): string {
  if (verdict.kind === 'going') return `going: ${verdict.cause?.text ?? ''}`
  if (verdict.kind === 'vanished') return `gone: ${verdict.reason}`
  const { statusCode, signal, reason } = verdict.end
  return `${signal ?? `exit ${statusCode ?? '?'}`}: ${reason ?? ''}`
}

interface Row {
  readonly what: string
  readonly state: Parameters<typeof ask>[0]
  readonly ageMs?: number
  readonly says: string | RegExp
}

const unschedulable = {
  type: 'PodScheduled',
  status: 'False',
  reason: 'Unschedulable',
  message: '0/1 nodes: Insufficient cpu.',
}

const rows: readonly Row[] = [
  { what: 'success', state: { job: complete, pods: [pod({ phase: 'Succeeded', main: ended(0) })] }, says: 'exit 0: ' },
  { what: 'success, its pod removed meanwhile', state: { job: complete }, says: 'exit 0: ' },
  {
    what: 'a pod that succeeded, before the Job says so',
    state: { job: running, pods: [pod({ phase: 'Succeeded', main: ended(0) })] },
    says: 'exit 0: ',
  },
  {
    what: 'a failure beyond the backoffLimit of 0',
    state: { job: failed('BackoffLimitExceeded'), pods: [pod({ phase: 'Failed', main: ended(3) })] },
    says: 'exit 3: ',
  },
  {
    what: 'a failed pod while the Job has not decided: another may follow',
    state: { job: running, pods: [pod({ phase: 'Failed', main: ended(3) })] },
    ageMs: 3_600_000,
    says: 'going: ',
  },
  {
    what: 'a failure within the backoffLimit, then success',
    state: {
      job: complete,
      pods: [pod({ phase: 'Failed', main: ended(1) }), pod({ phase: 'Succeeded', main: ended(0) })],
    },
    says: 'exit 0: ',
  },
  {
    what: 'failures beyond a backoffLimit of 1: the last one counts',
    state: {
      job: failed('BackoffLimitExceeded', '', 2),
      pods: [pod({ phase: 'Failed', main: ended(1) }), pod({ phase: 'Failed', main: ended(2) })],
    },
    says: 'exit 2: its Job has failed 2 times, more than its backoffLimit allows',
  },
  {
    what: 'activeDeadlineSeconds, the pod removed by the controller',
    state: { job: failed('DeadlineExceeded', 'Job was active longer than specified deadline') },
    says: 'exit ?: its Job ran longer than its activeDeadlineSeconds (DeadlineExceeded)',
  },
  {
    what: "the pod's own deadline",
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [pod({ phase: 'Failed', main: ended(137), status: { reason: 'DeadlineExceeded' } })],
    },
    says: /^SIGKILL: its pod ran longer than its deadline/,
  },
  {
    what: 'a pod failure policy',
    state: {
      job: failed('PodFailurePolicy', 'Container prefect-job for pod x failed with exit code 42'),
      pods: [pod({ phase: 'Failed', main: ended(42) })],
    },
    says: "exit 42: the Job's podFailurePolicy ended it: Container prefect-job for pod x failed with exit code 42",
  },
  {
    what: 'out of memory',
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [pod({ phase: 'Failed', main: ended(137, { reason: 'OOMKilled' }) })],
    },
    says: /^SIGKILL: out of memory: the container went over its limit of 32Mi \(OOMKilled\)/,
  },
  {
    what: 'a command that is not in the image',
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [pod({ phase: 'Failed', main: ended(128, { reason: 'StartError', message: 'exec: "nope": not found' }) })],
    },
    says: 'exit 128: its container could not be started: exec: "nope": not found',
  },
  {
    what: 'evicted, with nothing to follow',
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [pod({ phase: 'Failed', status: { reason: 'Evicted', message: 'The node was low on resource: memory.' } })],
    },
    says: 'exit ?: its pod was ended by the cluster (Evicted: The node was low on resource: memory.)',
  },
  {
    what: 'evicted and replaced: the new pod counts',
    state: {
      job: running,
      pods: [pod({ phase: 'Failed', status: { reason: 'Evicted' } }), pod({ main: { running: {} } })],
    },
    says: 'going: ',
  },
  {
    what: 'drained, and its last words are known',
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [
        pod({
          phase: 'Failed',
          main: ended(143),
          metadata: leaving,
          status: {
            conditions: [
              {
                type: 'DisruptionTarget',
                status: 'True',
                reason: 'EvictionByEvictionAPI',
                message: 'Eviction API: evicting',
              },
            ],
          },
        }),
      ],
    },
    says: /^SIGTERM: its pod had to leave its node \(EvictionByEvictionAPI: Eviction API: evicting\)/,
  },
  {
    what: 'a pod that is told to end and takes its time',
    state: { job: running, pods: [pod({ main: { running: {} }, metadata: leaving })] },
    ageMs: 30_000 + lostNodeMs - 1,
    says: 'going: ',
  },
  {
    what: 'a node that is lost: its pod was told to end and never says anything',
    state: { job: running, pods: [pod({ main: { running: {} }, metadata: leaving })] },
    ageMs: 30_000 + lostNodeMs + 1,
    says: 'gone: its pod was told to end, and its node node-1 does not answer',
  },
  {
    what: 'a node that is lost, its pod replaced: the new one counts',
    state: { job: running, pods: [pod({ main: { running: {} }, metadata: leaving }), pod({ main: { running: {} } })] },
    ageMs: 3_600_000,
    says: 'going: ',
  },
  {
    what: 'a pull that fails, within the grace',
    state: { job: running, pods: [pod({ phase: 'Pending', main: waiting('ErrImagePull', 'no such host') })] },
    ageMs: graceMs - 1,
    says: 'going: image "img:1" could not be pulled: no such host (ErrImagePull)',
  },
  {
    what: 'a pull that fails, beyond the grace',
    state: {
      job: running,
      pods: [pod({ phase: 'Pending', main: waiting('ImagePullBackOff', 'Back-off pulling image') })],
    },
    ageMs: graceMs,
    says: 'exit ?: image "img:1" could not be pulled: Back-off pulling image (ErrImagePull)',
  },
  {
    what: 'a pull that healed',
    state: { job: running, pods: [pod({ main: { running: {} } })] },
    ageMs: 3_600_000,
    says: 'going: ',
  },
  {
    what: 'a pull for an init container',
    state: {
      job: running,
      pods: [pod({ phase: 'Pending', init: [{ name: 'fetch', state: waiting('ErrImagePull', 'denied') }] })],
    },
    ageMs: graceMs,
    says: 'exit ?: image "rigel:1" could not be pulled: denied (ErrImagePull)',
  },
  {
    what: 'an image name that is none, at once',
    state: { job: running, pods: [pod({ phase: 'Pending', main: waiting('InvalidImageName', 'bad') })] },
    says: 'exit ?: image "img:1" has a name that is none: bad (InvalidImageName)',
  },
  {
    what: 'a ConfigMap that is missing, within the grace',
    state: {
      job: running,
      pods: [pod({ phase: 'Pending', main: waiting('CreateContainerConfigError', 'configmap "x" not found') })],
    },
    says: 'going: container "prefect-job" could not be made: configmap "x" not found (CreateContainerConfigError)',
  },
  {
    what: 'a ConfigMap that is missing, beyond the grace',
    state: {
      job: running,
      pods: [pod({ phase: 'Pending', main: waiting('CreateContainerConfigError', 'configmap "x" not found') })],
    },
    ageMs: graceMs,
    says: 'exit ?: container "prefect-job" could not be made: configmap "x" not found (CreateContainerConfigError)',
  },
  {
    what: 'no node that takes it, for however long',
    state: { job: running, pods: [pod({ phase: 'Pending', status: { conditions: [unschedulable] } })] },
    ageMs: 24 * 3_600_000,
    says: 'going: no node takes its pod: 0/1 nodes: Insufficient cpu.',
  },
  { what: 'no pod yet', state: { job: running }, ageMs: noPodMs - 1, says: 'going: ' },
  {
    what: 'no pod for long (a quota)',
    state: { job: running },
    ageMs: 3_600_000,
    says: 'going: no pod has been made for its Job yet',
  },
  {
    what: 'a pod that only its Job tells of, for want of the right to list pods',
    state: { job: job([], { status: { active: 1 } }) },
    ageMs: 3_600_000,
    says: 'going: ',
  },
  {
    what: 'a Job that a queueing system has suspended',
    state: { job: job([], { spec: { suspend: true } }) },
    ageMs: 3_600_000,
    says: 'going: its Job is suspended, so that no pod is made for it',
  },
  {
    what: 'a side-car that still runs, at first',
    state: { job: running, pods: [pod({ main: ended(0), others: [{ name: 'side', state: { running: {} } }] })] },
    ageMs: sideCarMs - 1,
    says: 'going: ',
  },
  {
    what: 'a side-car that still runs',
    state: { job: running, pods: [pod({ main: ended(0), others: [{ name: 'side', state: { running: {} } }] })] },
    ageMs: sideCarMs,
    says: 'exit 0: other containers of its pod were still running: side',
  },
  {
    what: 'a side-car that still runs after a failure',
    state: { job: running, pods: [pod({ main: ended(5), others: [{ name: 'side', state: { running: {} } }] })] },
    ageMs: sideCarMs,
    says: 'exit 5: other containers of its pod were still running: side',
  },
  {
    what: 'an init container that failed',
    state: {
      job: failed('BackoffLimitExceeded'),
      pods: [
        pod({
          phase: 'Failed',
          main: waiting('PodInitializing'),
          init: [{ name: 'fetch', state: ended(2, { message: 'no such branch' }) }],
        }),
      ],
    },
    says: 'exit ?: init container "fetch" failed with code 2: no such branch',
  },
  {
    what: 'a Job that is gone, with its pod (deleted by hand, or after its time to live)',
    state: { job: undefined },
    says: /^gone: its Job is gone: it was deleted by somebody, or after its time to live/,
  },
  {
    what: 'a Job that was deleted, its pod seen to end',
    state: { job: undefined, pods: [pod({ main: ended(9), metadata: leaving })] },
    says: 'exit 9: its Job was deleted',
  },
  {
    what: 'a Job that is gone after its time to live, its success seen',
    state: { job: undefined, pods: [pod({ phase: 'Succeeded', main: ended(0) })] },
    says: 'exit 0: ',
  },
  {
    what: 'a Job that was deleted without its pod, which goes on',
    state: { job: undefined, pods: [pod({ main: { running: {} } })] },
    ageMs: 3_600_000,
    says: 'going: ',
  },
  {
    what: 'a Job that is being deleted, its pod ending',
    state: { job: job([], { metadata: leaving }), pods: [pod({ main: { running: {} }, metadata: leaving })] },
    says: 'going: ',
  },
  {
    what: 'a failure for a reason that nobody knows',
    state: { job: failed('SomethingNew', 'of a later version') },
    says: 'exit ?: its Job failed (SomethingNew: of a later version)',
  },
]

describe('a verdict', () => {
  for (const { what, state, ageMs, says } of rows) {
    test(what, () => {
      const told = tell(ask(state, ageMs))
      if (typeof says === 'string') assert.equal(told, says)
      else assert.match(told, says)
    })
  }

  test('does not depend on the order in which pods are known', () => {
    const pods = [pod({ phase: 'Failed', main: ended(1) }), pod({ phase: 'Failed', main: ended(2) })]
    const state = { job: failed('BackoffLimitExceeded', '', 2), pods }
    assert.deepEqual(tell(ask(state)), tell(ask({ ...state, pods: pods.toReversed() })))
  })
})

test('of labels and annotations only those are kept that are read, for a thousand Jobs have ten thousand', () => {
  const strange = { 'prefect.io/flow-name': 'f', 'kubectl.kubernetes.io/last-applied-configuration': '{…}' }
  const mine = { 'rigel.io/version': '1' }
  const name = { 'batch.kubernetes.io/job-name': 'j' }
  const metadata = { name: 'j', uid: 'u', labels: { ...strange, ...mine }, annotations: { ...strange, ...mine } }
  const job = readJob({ metadata, spec: {} })
  assert.deepEqual(job?.metadata.labels, mine)
  assert.deepEqual(job?.metadata.annotations, mine)
  const labels = { ...strange, ...mine, ...name }
  const pod = readPod({ metadata: { ...metadata, labels }, spec: { containers: [{ name: 'c' }] } })
  assert.deepEqual(pod?.metadata.labels, { ...mine, ...name })
})
