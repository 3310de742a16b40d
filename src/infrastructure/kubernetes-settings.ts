// Reads the fields of Prefect's `kubernetes-job` block and of its `kubernetes-cluster-config`.
//
// In: the block's fields after overrides. Out: KubernetesSettings, or an InfrastructureError that names the field.
// Source of names, defaults and rules: prefect 2.20.25 infrastructure/kubernetes.py, blocks/kubernetes.py and
// _internal/schemas/validators.py.

import type { Operation } from 'rfc6902'
import * as v from 'valibot'
import { baseJobManifest } from './base-job-manifest.ts'
import { bool } from './block-values.ts'
import { InfrastructureError } from './infrastructure.ts'

/** JSON of a manifest, as the user wrote it: fields that nobody here knows are passed on. */
export type Json = Readonly<Record<string, unknown>>

export interface ClusterConfig {
  /** A whole kubeconfig as JSON or YAML text. Secret. */
  readonly kubeconfig: string
  readonly contextName: string | undefined
}

export interface KubernetesSettings {
  readonly image: string | undefined
  readonly namespace: string | undefined
  readonly serviceAccountName: string | undefined
  readonly imagePullPolicy: 'IfNotPresent' | 'Always' | 'Never' | undefined
  readonly cluster: ClusterConfig | undefined
  readonly job: Json
  readonly customizations: readonly Operation[]
  readonly jobWatchTimeoutSeconds: number | undefined
  readonly podWatchTimeoutSeconds: number
  readonly streamOutput: boolean
  readonly finishedJobTtlSeconds: number | undefined
}

/** `deployment build --override` leaves texts, which pydantic takes for numbers. */
const seconds = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.trim(), v.regex(/^\d+$/), v.transform(Number))]),
  v.integer(),
  v.minValue(0),
)

const object = v.record(v.string(), v.unknown())
const path = v.pipe(v.string(), v.regex(/^(?:\/|$)/, 'must begin with "/"'))
const operation = v.variant('op', [
  v.object({ op: v.literal('add'), path, value: v.unknown() }),
  v.object({ op: v.literal('replace'), path, value: v.unknown() }),
  v.object({ op: v.literal('test'), path, value: v.unknown() }),
  v.object({ op: v.literal('remove'), path }),
  v.object({ op: v.literal('move'), from: path, path }),
  v.object({ op: v.literal('copy'), from: path, path }),
])
const text = v.pipe(
  v.string(),
  v.transform(value => (value === '' ? undefined : value)),
)

const schema = v.object({
  image: v.nullish(text),
  namespace: v.nullish(text),
  service_account_name: v.nullish(text),
  image_pull_policy: v.nullish(v.picklist(['IfNotPresent', 'Always', 'Never'])),
  cluster_config: v.nullish(v.object({ config: v.union([object, v.string()]), context_name: v.nullish(text) })),
  job: v.nullish(object),
  customizations: v.nullish(v.union([v.array(operation), v.pipe(v.string(), v.parseJson(), v.array(operation))]), []),
  job_watch_timeout_seconds: v.nullish(seconds),
  pod_watch_timeout_seconds: v.nullish(seconds, 60),
  stream_output: v.nullish(bool, true),
  finished_job_ttl: v.nullish(seconds),
})

/** Throws an InfrastructureError that blames the run and names each field that does not fit. */
export function readKubernetesSettings(settings: Json): KubernetesSettings {
  const read = v.safeParse(schema, settings)
  if (!read.success) {
    const faults = read.issues.map(issue => `"${v.getDotPath(issue) ?? ''}": ${sentence(issue)}`)
    throw refuse(`Field ${faults.join('; field ')}`)
  }
  const fields = read.output
  const job = fields.job ?? baseJobManifest
  checkManifest(job)
  const cluster = fields.cluster_config
  return {
    image: fields.image ?? undefined,
    namespace: fields.namespace ?? undefined,
    serviceAccountName: fields.service_account_name ?? undefined,
    imagePullPolicy: fields.image_pull_policy ?? undefined,
    cluster: cluster
      ? {
          kubeconfig: typeof cluster.config === 'string' ? cluster.config : JSON.stringify(cluster.config),
          contextName: cluster.context_name ?? undefined,
        }
      : undefined,
    job,
    customizations: fields.customizations,
    jobWatchTimeoutSeconds: fields.job_watch_timeout_seconds ?? undefined,
    podWatchTimeoutSeconds: fields.pod_watch_timeout_seconds,
    streamOutput: fields.stream_output,
    finishedJobTtlSeconds: fields.finished_job_ttl ?? undefined,
  }
}

/** What was received is left out: a customization or a kubeconfig may hold a secret. */
function sentence(issue: v.BaseIssue<unknown>): string {
  if (issue.type === 'parse_json') return 'cannot be read as JSON'
  return issue.message.replace(/ but received .*$/s, '')
}

/** Prefect compares the manifest with its base: what is missing and what differs, in its own words. */
function checkManifest(job: Json): void {
  const missing: string[] = []
  const different: string[] = []
  const compare = (base: unknown, value: unknown, at: string): void => {
    if (value === undefined) missing.push(at)
    else if (typeof base !== 'object' || base === null) {
      if (value !== base) different.push(`${at} must have value ${JSON.stringify(base)}`)
    } else if (typeof value !== 'object' || value === null || Array.isArray(base) !== Array.isArray(value)) {
      different.push(`${at} must have value ${JSON.stringify(base)}`)
    } else {
      const fields = new Map<string, unknown>(Object.entries(value))
      for (const [key, part] of Object.entries(base)) compare(part, fields.get(key), `${at}/${key}`)
    }
  }
  compare(baseJobManifest, job, '')
  if (missing.length > 0) {
    throw refuse(`Job is missing required attributes at the following paths: ${missing.toSorted().join(', ')}`)
  }
  if (different.length > 0) {
    throw refuse(`Job has incompatible values for the following attributes: ${different.toSorted().join(', ')}`)
  }
}

function refuse(what: string): InfrastructureError {
  return new InfrastructureError(`${what} (kubernetes-job block).`, { blame: 'run' })
}
