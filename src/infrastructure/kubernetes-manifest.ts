// Decides which Job is asked for: Prefect's own manifest for the block and the run, then what ours has beyond it.
//
// Pure: values in, values out. The first half is prefect 2.20.25's `KubernetesJob.build_job`, step by step; what the second
// half changes is listed in docs/kubernetes.md and in test/infrastructure/kubernetes-differences.ts.

import { applyPatch, type Operation } from 'rfc6902'
import { InfrastructureError, type RunSpec, resolveValue, startIn } from './infrastructure.ts'
import { buildAnnotations, buildOwnLabels, buildRunLabels } from './kubernetes-labels.ts'
import type { Json, KubernetesSettings } from './kubernetes-settings.ts'
import { slugifyName } from './kubernetes-slug.ts'

/** Where the run's code and files lie in the pod; a folder of our own, so that nothing of the image is touched. */
export const podFolders = { workspace: '/rigel/workspace', files: '/rigel/files' } as const

/** A finished Job that nobody looks after any more is gone after a day, if it is not kept at all. In seconds. */
export const safetyTtl = 86_400

/** A Job's manifest as far as this file writes to it. Everything else in it is the user's, and stays. */
export interface JobManifest {
  metadata: {
    name?: string
    generateName?: string
    namespace?: string
    labels?: Record<string, string>
    annotations?: Record<string, string>
    [field: string]: unknown
  }
  spec: {
    suspend?: boolean
    backoffLimit?: number
    parallelism?: number
    completions?: number
    ttlSecondsAfterFinished?: number
    template: { metadata?: { labels?: Record<string, string>; [field: string]: unknown }; spec: PodSpec }
    [field: string]: unknown
  }
  [field: string]: unknown
}

export interface PodSpec {
  parallelism?: unknown
  completions?: unknown
  activeDeadlineSeconds?: number
  containers: [Container, ...Container[]]
  initContainers?: Container[]
  volumes?: unknown[]
  [field: string]: unknown
}

export interface Container {
  name?: string
  image?: string
  workingDir?: string
  env?: EnvEntry[]
  volumeMounts?: unknown[]
  [field: string]: unknown
}

export interface EnvEntry {
  name: string
  value?: string
  [field: string]: unknown
}

export interface JobPlan {
  readonly name: string
  readonly namespace: string
  /** Suspended, without the run's Secret and code; see kubernetes-cargo.ts. */
  readonly manifest: JobManifest
  /** What `suspend` becomes when the Job is let go: true when the block itself asks for it (queueing systems do). */
  readonly staysSuspended: boolean
}

/** Throws an InfrastructureError that blames the run when a customization does not fit or leaves no Job. */
export function buildJobPlan(spec: RunSpec, settings: KubernetesSettings): JobPlan {
  const manifest = asJob(buildPrefectManifest(spec, settings))
  const { metadata } = manifest
  const runLabels = buildRunLabels(spec.labels)
  const own = buildOwnLabels(spec)
  const name = jobName(spec.name, spec.attempt)
  const ttl = manifest.spec.ttlSecondsAfterFinished
  delete metadata.generateName
  metadata.name = name
  metadata.namespace ??= 'default'
  metadata.labels = { ...metadata.labels, ...own }
  metadata.annotations = { ...metadata.annotations, ...buildAnnotations(settings, ttl) }
  const { template } = manifest.spec
  template.metadata ??= {}
  template.metadata.labels = { ...runLabels, ...template.metadata.labels, ...own }
  moveMisplaced(manifest)
  manifest.spec.backoffLimit ??= 0
  if (ttl !== undefined) manifest.spec.ttlSecondsAfterFinished = Math.max(ttl, safetyTtl)
  if (settings.jobWatchTimeoutSeconds !== undefined) {
    // From the start of the pod on, as Prefect counts, and kept by the cluster itself.
    template.spec.activeDeadlineSeconds ??= Math.max(1, settings.jobWatchTimeoutSeconds)
  }
  const staysSuspended = manifest.spec.suspend === true
  manifest.spec.suspend = true
  return { name, namespace: metadata.namespace, manifest, staysSuspended }
}

/** Prefect's readable slug and the attempt: a second create for one attempt is refused by the API server. */
export function jobName(name: string, attempt: string): string {
  return `${slugifyName(name) || 'prefect-job'}-${attempt}`
}

/** `KubernetesJob.build_job` as it stands, with values in the clear. */
export function buildPrefectManifest(spec: RunSpec, settings: KubernetesSettings): Json {
  const manifest = structuredClone(settings.job)
  patch(manifest, buildShortcuts(spec, settings), 'the block')
  patch(manifest, settings.customizations, 'field "customizations"')
  return manifest
}

function buildShortcuts(spec: RunSpec, settings: KubernetesSettings): Operation[] {
  const pod = '/spec/template/spec'
  const container = `${pod}/containers/0`
  const namespace = settings.namespace ?? (hasPath(settings.job, ['metadata', 'namespace']) ? undefined : 'default')
  const image = settings.image ?? (firstImage(settings.job) ? undefined : defaultImage(spec))
  return [
    ...(namespace !== undefined ? [add('/metadata/namespace', namespace)] : []),
    ...(image !== undefined ? [add(`${container}/image`, image)] : []),
    ...Object.entries(buildRunLabels(spec.labels)).map(([key, value]) =>
      add(`/metadata/labels/${key.replace('/', '~1')}`, value),
    ),
    ...Object.entries(spec.env).map(([name, value]) =>
      add(`${container}/env/-`, { name, value: resolveValue(value, foldersOf(spec)) }),
    ),
    ...(settings.imagePullPolicy ? [add(`${container}/imagePullPolicy`, settings.imagePullPolicy)] : []),
    ...(settings.serviceAccountName ? [add(`${pod}/serviceAccountName`, settings.serviceAccountName)] : []),
    ...(settings.finishedJobTtlSeconds === undefined
      ? []
      : [add('/spec/ttlSecondsAfterFinished', settings.finishedJobTtlSeconds)]),
    add(
      `${container}/args`,
      spec.command.map(word => resolveValue(word, foldersOf(spec))),
    ),
    add('/metadata/generateName', `${slugifyName(spec.name)}-`),
  ]
}

function add(path: string, value: unknown): Operation {
  return { op: 'add', path, value }
}

/** What Prefect fills in: the image of its own version, with the Python that most images have. */
function defaultImage(spec: RunSpec): string {
  return `prefecthq/prefect:${spec.labels['prefect.io/version'] || '2'}-python3.11`
}

function patch(manifest: Json, operations: readonly Operation[], source: string): void {
  for (const [index, operation] of operations.entries()) {
    const [failure] = applyPatch(manifest, [operation])
    if (!failure) continue
    // The value is left out: it may be a secret.
    const what = `${operation.op} ${operation.path}`
    throw new InfrastructureError(
      `The Job manifest cannot be changed as ${source} asks: operation ${index + 1} (${what}) does not fit (${failure.name}).`,
      { blame: 'run', cause: undefined },
    )
  }
}

/** In the base manifest these stand in the pod, where the API server ignores them (prefect infrastructure/kubernetes.py). */
function moveMisplaced({ spec }: JobManifest): void {
  const pod = spec.template.spec
  if (typeof pod.parallelism === 'number') spec.parallelism ??= pod.parallelism
  if (typeof pod.completions === 'number') spec.completions ??= pod.completions
  delete pod.parallelism
  delete pod.completions
}

function asJob(manifest: Json): JobManifest {
  const containers = valueAt(manifest, ['spec', 'template', 'spec', 'containers'])
  const isJob = manifest.kind === 'Job' && isObject(manifest.metadata) && Array.isArray(containers)
  if (!isJob || !isObject(containers[0])) {
    throw new InfrastructureError('After its customizations the manifest is no Job with a container any more.', {
      blame: 'run',
    })
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- checked as far as it is read; the API server judges the rest
  return manifest as unknown as JobManifest
}

function firstImage(job: Json): boolean {
  return Boolean(valueAt(job, ['spec', 'template', 'spec', 'containers', '0', 'image']))
}

function hasPath(value: unknown, path: readonly string[]): boolean {
  return Boolean(valueAt(value, path))
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  let at = value
  for (const key of path) at = isObject(at) && Object.hasOwn(at, key) ? at[key] : undefined
  return at
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

/** What values of the run's environment and command stand for. */
function foldersOf(spec: RunSpec) {
  return { ...podFolders, workspace: startIn(podFolders.workspace, spec) }
}
