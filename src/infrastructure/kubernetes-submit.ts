// Starts one Job for one attempt, exactly once, whatever is lost on the way.
//
//   create, suspended ── name taken or answer lost ──> look ── ours ──> adopt it
//     │                                                 └── a stranger's ──> refuse
//   Secret and ConfigMap, owned by the Job ──> let go (unsuspend, and mark it as let go) ── answer lost ──> again
//
// A suspended Job makes no pod, so a create call of a life that was killed, and that comes late, starts nothing. Letting go
// may be repeated: it is a patch to one Job, by its uid, and says the same each time.

import { jitter, sleep } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'
import { type Attempt, InfrastructureError } from './infrastructure.ts'
import { type Cargo, type OwnedObject, ownedBy } from './kubernetes-cargo.ts'
import { type ClusterClient, ClusterError, isRefusal } from './kubernetes-client.ts'
import { clusterAwayMs, toHostTrouble } from './kubernetes-cluster.ts'
import { annotation, isOurs } from './kubernetes-labels.ts'
import type { JobPlan } from './kubernetes-manifest.ts'
import { type JobView, readJob } from './kubernetes-objects.ts'
import { patiently } from './kubernetes-patience.ts'

const cleanUpMs = 15_000
/** How long a Job of ours that is being deleted is waited for. */
const leavingMs = 30_000

export interface Launch {
  readonly client: ClusterClient
  readonly plan: JobPlan
  readonly cargo: Cargo
  readonly attempt: Attempt
  readonly logger: Logger
}

/** Gives the Job once it has been let go; throws an InfrastructureError, or the signal's reason. */
export async function launchJob(launch: Launch, signal: AbortSignal): Promise<JobView> {
  const job = await obtain(launch, signal)
  if (isReleased(job)) return job
  try {
    const { secret, code } = launch.cargo
    const objects = [secret, code].filter(object => object !== undefined)
    await Promise.all(objects.map(object => createOwned(launch, object, job, signal)))
    return await letGo(launch, job, signal)
  } catch (error) {
    const left = await discard(launch, signal.aborted)
    // Only a release that came through in the last moment contradicts a failure; a stop is the caller's own wish.
    if (left && !signal.aborted) return left
    throw error
  }
}

/** Whether it may have run. */
export function isReleased({ metadata }: JobView): boolean {
  return metadata.annotations[annotation.released] === 'true'
}

export function jobPath(namespace: string, name?: string): string {
  return `/apis/batch/v1/namespaces/${namespace}/jobs${name === undefined ? '' : `/${name}`}`
}

/** Undefined when there is none. */
export async function readJobAt(
  client: ClusterClient,
  namespace: string,
  name: string,
  signal: AbortSignal,
): Promise<JobView | undefined> {
  try {
    return readJob(await client.call('GET', jobPath(namespace, name), {}, signal))
  } catch (error) {
    if (isRefusal(error, 404)) return undefined
    throw error
  }
}

async function obtain(launch: Launch, signal: AbortSignal): Promise<JobView> {
  const { client, plan, attempt } = launch
  const { name, namespace, manifest } = plan
  const startMs = performance.now()
  for (;;) {
    try {
      const answer = await ask(
        launch,
        () => client.call('POST', jobPath(namespace), { body: manifest }, signal),
        signal,
      )
      const job = readJob(answer)
      if (job) return job
      throw new InfrastructureError(`The API server answered with no Job when Job "${name}" was asked for`, {
        blame: 'run',
      })
    } catch (error) {
      signal.throwIfAborted()
      if (!isRefusal(error, 409)) throw explain(error, `Could not create Job "${name}" in namespace "${namespace}"`)
    }
    const found = await ask(launch, () => readJobAt(client, namespace, name, signal), signal).catch(error => {
      throw explain(error, `Could not look at Job "${name}" in namespace "${namespace}"`)
    })
    if (found && !isOurs(found.metadata.labels, attempt)) {
      throw new InfrastructureError(`Could not create Job "${name}": that name is taken by another Job`, {
        blame: 'run',
      })
    }
    if (found && !found.metadata.deletionTimestamp) {
      launch.logger.debug({ job: name, released: isReleased(found) }, 'adopting job')
      return found
    }
    if (performance.now() - startMs > leavingMs) {
      throw new InfrastructureError(`Job "${name}" is being deleted and does not go`, { blame: 'host' })
    }
    await sleep(jitter(300, 0.3), signal)
    signal.throwIfAborted()
  }
}

async function createOwned(launch: Launch, object: OwnedObject, job: JobView, signal: AbortSignal): Promise<void> {
  const { client } = launch
  const { name, uid, annotations } = job.metadata
  const body = ownedBy(object, { name, uid }, annotations[annotation.cargo] ?? '')
  const { namespace } = object.metadata
  const path = `/api/v1/namespaces/${namespace}/${object.kind === 'Secret' ? 'secrets' : 'configmaps'}`
  try {
    await ask(launch, () => client.call('POST', path, { body }, signal), signal)
  } catch (error) {
    signal.throwIfAborted()
    // A call before, whose answer was lost, or another agent of this attempt has made it for this very Job.
    if (isRefusal(error, 409)) return
    throw explain(error, `Could not create ${object.kind} "${body.metadata.name}" in namespace "${namespace}"`)
  }
}

async function letGo(launch: Launch, job: JobView, signal: AbortSignal): Promise<JobView> {
  const { client, plan } = launch
  const { name, namespace, staysSuspended } = plan
  // With its uid, so that it never meets another Job of the same name.
  const body = {
    metadata: { uid: job.metadata.uid, annotations: { [annotation.released]: 'true' } },
    spec: { suspend: staysSuspended },
  }
  try {
    const answer = await ask(launch, () => client.call('PATCH', jobPath(namespace, name), { body }, signal), signal)
    return readJob(answer) ?? job
  } catch (error) {
    signal.throwIfAborted()
    if (isRefusal(error, 404)) {
      throw new InfrastructureError(`Job "${name}" was removed by somebody else before it could be started`, {
        blame: 'run',
      })
    }
    throw explain(error, `Could not start Job "${name}"`)
  }
}

/**
 * Removes a Job that has not been let go, so that it never will be. Gives the Job when it has been let go: it is left alone.
 * Has a deadline of its own, for it also runs when the caller has been told to stop; what it leaves behind stays suspended.
 */
async function discard({ client, plan, attempt, logger }: Launch, isStopped: boolean): Promise<JobView | undefined> {
  const signal = AbortSignal.timeout(cleanUpMs)
  const { namespace, name } = plan
  try {
    const remove = () => discardOnce(client, { namespace, name }, attempt, signal)
    return await patiently(remove, { logger, limitMs: cleanUpMs }, signal)
  } catch (error) {
    const fields = { job: name, namespace, err: error }
    if (!isStopped) logger.warn(fields, 'job that was not started is left behind, suspended')
    return undefined
  }
}

/** See `discard`; throws when the API server does not answer. */
export async function discardOnce(
  client: ClusterClient,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  attempt: Attempt,
  signal: AbortSignal,
): Promise<JobView | undefined> {
  for (;;) {
    const job = await readJobAt(client, namespace, name, signal)
    if (!job || !isOurs(job.metadata.labels, attempt)) return undefined
    if (isReleased(job)) return job
    if (job.metadata.deletionTimestamp) return undefined
    const { uid, resourceVersion } = job.metadata
    try {
      // Not the one that a release still under way has changed meanwhile.
      const body = { propagationPolicy: 'Background', preconditions: { uid, resourceVersion } }
      await client.call('DELETE', jobPath(namespace, name), { body }, signal)
      return undefined
    } catch (error) {
      if (isRefusal(error, 404)) return undefined
      if (!isRefusal(error, 409)) throw error
    }
  }
}

async function ask<Answer>({ logger }: Launch, call: () => Promise<Answer>, signal: AbortSignal): Promise<Answer> {
  try {
    return await patiently(call, { logger, limitMs: clusterAwayMs }, signal)
  } catch (error) {
    if (error instanceof ClusterError && error.status === undefined) throw toHostTrouble(error, signal)
    throw error
  }
}

/** What the API server refuses. Its own words may quote a manifest, but never a Secret's data. */
function explain(error: unknown, what: string): unknown {
  if (!(error instanceof ClusterError)) return error
  const isQuota = error.status === 403 && /exceeded quota/.test(error.message)
  const isTheirs = isQuota || error.status === undefined || error.status === 429 || error.status >= 500
  return new InfrastructureError(`${what}: ${error.message}`, { blame: isTheirs ? 'host' : 'run', cause: error })
}
