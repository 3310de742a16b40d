// What is kept of the API server's Jobs and pods: the few fields that a verdict needs, so that a thousand cost little.
//
// In: JSON as it came. Out: JobView, PodView; undefined for what is no such object.

import * as v from 'valibot'

/** Labels and annotations that are read here: our own, and the Job controller's name of the Job. */
const isRead = (key: string) => key.startsWith('rigel.io/') || key.endsWith('job-name')
const texts = v.pipe(
  v.nullish(v.record(v.string(), v.string()), {}),
  v.transform(all => Object.fromEntries(Object.entries(all).filter(([key]) => isRead(key)))),
)

const condition = v.object({
  type: v.string(),
  status: v.string(),
  reason: v.nullish(v.string(), ''),
  message: v.nullish(v.string(), ''),
  lastTransitionTime: v.nullish(v.string(), ''),
})
export type Condition = v.InferOutput<typeof condition>

const conditions = v.nullish(v.array(condition), [])

const metadata = {
  name: v.string(),
  namespace: v.nullish(v.string(), ''),
  uid: v.string(),
  resourceVersion: v.nullish(v.string(), ''),
  deletionTimestamp: v.nullish(v.string()),
  deletionGracePeriodSeconds: v.nullish(v.number()),
  creationTimestamp: v.nullish(v.string(), ''),
  labels: texts,
}

const jobSchema = v.object({
  metadata: v.object({ ...metadata, annotations: texts }),
  spec: v.object({ suspend: v.nullish(v.boolean(), false) }),
  status: v.nullish(
    v.object({
      conditions,
      active: v.nullish(v.number(), 0),
      failed: v.nullish(v.number(), 0),
      succeeded: v.nullish(v.number(), 0),
    }),
    {},
  ),
})
export type JobView = v.InferOutput<typeof jobSchema>

const terminated = v.object({
  exitCode: v.number(),
  signal: v.nullish(v.number()),
  reason: v.nullish(v.string(), ''),
  message: v.nullish(v.string(), ''),
  finishedAt: v.nullish(v.string(), ''),
})
const waiting = v.object({ reason: v.nullish(v.string(), ''), message: v.nullish(v.string(), '') })
const containerStatus = v.object({
  name: v.string(),
  state: v.nullish(
    v.object({ waiting: v.nullish(waiting), running: v.nullish(v.object({})), terminated: v.nullish(terminated) }),
    {},
  ),
  lastState: v.nullish(v.object({ terminated: v.nullish(terminated) }), {}),
  restartCount: v.nullish(v.number(), 0),
})
export type ContainerStatus = v.InferOutput<typeof containerStatus>

const container = v.object({
  name: v.string(),
  image: v.nullish(v.string(), ''),
  resources: v.nullish(
    v.object({ limits: v.nullish(v.record(v.string(), v.union([v.string(), v.number()])), {}) }),
    {},
  ),
})

const podSchema = v.object({
  metadata: v.object({ ...metadata }),
  spec: v.object({
    nodeName: v.nullish(v.string()),
    containers: v.pipe(v.array(container), v.minLength(1)),
    initContainers: v.nullish(v.array(container), []),
  }),
  status: v.nullish(
    v.object({
      phase: v.nullish(v.string(), 'Pending'),
      reason: v.nullish(v.string(), ''),
      message: v.nullish(v.string(), ''),
      conditions,
      containerStatuses: v.nullish(v.array(containerStatus), []),
      initContainerStatuses: v.nullish(v.array(containerStatus), []),
    }),
    {},
  ),
})
export type PodView = v.InferOutput<typeof podSchema>

export function readJob(object: unknown): JobView | undefined {
  const read = v.safeParse(jobSchema, object)
  return read.success ? read.output : undefined
}

/** Complete or Failed: no pod will follow. */
export function isJobOver({ status }: JobView): boolean {
  return findEnd({ status }) !== undefined
}

/** The condition that says so. */
export function findEnd({ status }: Pick<JobView, 'status'>): Condition | undefined {
  return status?.conditions?.find(({ type, status: is }) => /^(Complete|Failed)$/.test(type) && is === 'True')
}

export function readPod(object: unknown): PodView | undefined {
  const read = v.safeParse(podSchema, object)
  return read.success ? read.output : undefined
}

/** The name of the Job that a pod belongs to: the Job controller's own label, old and new. */
export function jobNameOf({ metadata: { labels } }: PodView): string | undefined {
  return labels['batch.kubernetes.io/job-name'] ?? labels['job-name']
}

/** The status of the container that runs the flow: the first one of the manifest. */
export function mainContainer(pod: PodView): { readonly name: string; readonly status: ContainerStatus | undefined } {
  const name = pod.spec.containers[0]?.name ?? ''
  return { name, status: pod.status?.containerStatuses?.find(status => status.name === name) }
}
