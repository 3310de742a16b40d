// What travels beside a Job: its Secret (variables, parameters, the engine shim) and its ConfigMap (flow code). Pure.
//
// In: the planned Job and what is to be brought along. Out: the Job with the volumes that show it, and the two objects,
// which the Job owns: they go when it goes.

import { InfrastructureError, type RunSpec, startIn } from './infrastructure.ts'
import { addFetching, recipeKey } from './kubernetes-fetch.ts'
import { annotation, buildOwnLabels } from './kubernetes-labels.ts'
import { type JobPlan, podFolders } from './kubernetes-manifest.ts'
import { moveSecrets } from './kubernetes-secrets.ts'
import type { Json } from './kubernetes-settings.ts'
import type { Code, CodeFile } from './kubernetes-tree.ts'

/** An object without its owner, whose uid is known once the Job is there. */
export interface OwnedObject {
  readonly apiVersion: 'v1'
  readonly kind: 'Secret' | 'ConfigMap'
  readonly metadata: { readonly name: string; readonly namespace: string; readonly labels: Record<string, string> }
  readonly [field: string]: unknown
}

export interface Cargo {
  readonly secret: OwnedObject | undefined
  readonly code: OwnedObject | undefined
}

/** The API server's limit is 1 MiB. */
const longestSecretBytes = 1_000_000

/**
 * Changes the plan's manifest. `ending`: of the objects' names, new for
 * each Job, so that what has such a name already was made for this very Job, and nobody needs the right to read it.
 */
export function loadCargo(plan: JobPlan, spec: RunSpec, code: Code, ending: string): Cargo {
  const { manifest, name, namespace } = plan
  const [container] = manifest.spec.template.spec.containers
  const labels = buildOwnLabels(spec)
  const secretMeta = { name: objectName(name, 'Secret', ending), namespace, labels }
  const codeMeta = { name: objectName(name, 'ConfigMap', ending), namespace, labels }
  manifest.metadata.annotations = { ...manifest.metadata.annotations, [annotation.cargo]: ending }
  const secrets = moveSecrets(manifest, spec.env, secretMeta.name)
  const files = Object.entries(spec.files)
  if (files.length > 0) {
    const items = files.map(([path], index) => ({ key: `file-${index}`, path }))
    for (const [index, [, text]] of files.entries()) secrets[`file-${index}`] = text
    // Readable for whichever user the image has; nobody but this container sees the mount.
    const secret = { secretName: secretMeta.name, items, defaultMode: 0o444 }
    mount(plan, { name: 'rigel-files', secret }, podFolders.files)
  }
  const carried = isCarried(code) ? code : undefined
  if (carried) {
    const items = carried.map(({ path, isExecutable }, index) => ({
      key: `f${index}`,
      path,
      mode: isExecutable ? 0o555 : 0o444,
    }))
    mount(plan, { name: 'rigel-code', configMap: { name: codeMeta.name, items } }, podFolders.workspace)
    container.workingDir ??= startIn(podFolders.workspace, spec)
  } else if (code && !isCarried(code)) {
    secrets[recipeKey] = addFetching(
      plan,
      { ...code, workingDir: startIn(podFolders.workspace, spec) },
      secretMeta.name,
    )
  }
  const size = Object.values(secrets).reduce((sum, text) => sum + Buffer.byteLength(text), 0)
  if (size > longestSecretBytes) {
    throw new InfrastructureError(
      `The variables and parameters of the run, and what its pod fetches code with, have ${size} bytes, more than the ${longestSecretBytes} that a Secret holds.`,
      { blame: 'run' },
    )
  }
  return {
    secret:
      Object.keys(secrets).length === 0
        ? undefined
        : { apiVersion: 'v1', kind: 'Secret', metadata: secretMeta, immutable: true, data: encode(secrets) },
    code: carried && {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: codeMeta,
      immutable: true,
      binaryData: Object.fromEntries(carried.map(({ content }, index) => [`f${index}`, content.toString('base64')])),
    },
  }
}

function isCarried(code: Code): code is readonly CodeFile[] {
  return Array.isArray(code)
}

function mount({ manifest }: JobPlan, volume: Json & { readonly name: string }, mountPath: string): void {
  const pod = manifest.spec.template.spec
  const [container] = pod.containers
  pod.volumes = [...(pod.volumes ?? []), volume]
  container.volumeMounts = [...(container.volumeMounts ?? []), { name: volume.name, mountPath, readOnly: true }]
}

function encode(texts: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text).toString('base64')]))
}

/**
 * With the Job as owner, so that it is collected with it; named as that Job expects, for it may have been made by another
 * call than ours.
 */
export function ownedBy(object: OwnedObject, job: { readonly name: string; readonly uid: string }, ending: string) {
  const owner = { apiVersion: 'batch/v1', kind: 'Job', ...job, controller: true, blockOwnerDeletion: false }
  const name = objectName(job.name, object.kind, ending)
  return { ...object, metadata: { ...object.metadata, name, ownerReferences: [owner] } }
}

function objectName(job: string, kind: OwnedObject['kind'], ending: string): string {
  return `${job}-${kind === 'Secret' ? 'env' : 'code'}-${ending}`
}
