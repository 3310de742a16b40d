// Runs flow runs as Jobs of a Kubernetes cluster.
//
// In: RunSpecs of Prefect's `kubernetes-job` block. Out: Handles `<cluster's uid>:<namespace>:<job's name>` and Exits.
// All that must survive the agent lies in the cluster: names and labels say whose a Job is, an annotation whether it was
// let go. docs/kubernetes.md tells the whole story.

import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import type { Logger } from '../logger.ts'
import {
  type Attempt,
  type Collectable,
  type CollectRequest,
  type Exit,
  type Handle,
  type Infrastructure,
  InfrastructureError,
  type OutputSink,
  type RunSpec,
} from './infrastructure.ts'
import { loadCargo } from './kubernetes-cargo.ts'
import { ClusterError, isRefusal } from './kubernetes-client.ts'
import { type Cluster, Clusters } from './kubernetes-cluster.ts'
import { collectJobs } from './kubernetes-collect.ts'
import { ClusterFinder, type JobAddress, readAddress } from './kubernetes-find.ts'
import { deleteJob, killJob } from './kubernetes-kill.ts'
import { agentOf, annotation, isOurs, selectorOf } from './kubernetes-labels.ts'
import { buildJobPlan } from './kubernetes-manifest.ts'
import { UsedNamespaces } from './kubernetes-namespaces.ts'
import type { JobView } from './kubernetes-objects.ts'
import { patiently } from './kubernetes-patience.ts'
import { forgetPlace, readPlace, writePlace } from './kubernetes-place.ts'
import { type Json, readKubernetesSettings } from './kubernetes-settings.ts'
import { discardOnce, jobPath, launchJob, readJobAt } from './kubernetes-submit.ts'
import { readCode } from './kubernetes-tree.ts'
import { waitForVerdict } from './kubernetes-wait.ts'
import { type WatchTimes, watchTimes } from './kubernetes-watch.ts'

export interface KubernetesOptions {
  /** Holds one folder per run, 0700, on the disk of the journal, which makes and removes them. */
  readonly runsDirectory: string
  readonly logger: Logger
  /** The agent's own environment: KUBECONFIG, HOME, KUBERNETES_SERVICE_HOST, PREFECT_KUBERNETES_CLUSTER_UID. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Of Rigel, for pods that fetch their code; by default `rigel-agent` of this version. */
  readonly fetchImage?: string | undefined
  /**
   * Reads a run's block again: an earlier life of the agent may have started it in a cluster that only its block names.
   * Undefined when there is none any more.
   */
  readonly readSettings?: (flowRunId: string, signal: AbortSignal) => Promise<Json | undefined>
  readonly times?: Partial<WatchTimes>
}

export interface KubernetesInfrastructure extends Infrastructure {
  collect(request: CollectRequest, signal: AbortSignal): Promise<readonly Collectable[]>
  [Symbol.asyncDispose](): Promise<void>
}

export function createKubernetesInfrastructure(options: KubernetesOptions): KubernetesInfrastructure {
  return new KubernetesDriver(options)
}

interface Located extends JobAddress {
  readonly cluster: Cluster
}

class KubernetesDriver implements KubernetesInfrastructure {
  readonly #options: KubernetesOptions
  readonly #clusters: Clusters
  readonly #failed = new AbortController()
  /** Jobs that were waited for, so that `release` need not ask again. */
  readonly #seen = new Map<string, { readonly job: JobView; readonly isOver: boolean }>()
  /** Runs whose cluster is looked for, by handle; aborted when they are to be ended. */
  readonly #unreached = new Map<string, AbortController>()
  readonly #namespaces: UsedNamespaces
  readonly #finder: ClusterFinder

  constructor(options: KubernetesOptions) {
    this.#options = options
    this.#namespaces = new UsedNamespaces(join(dirname(options.runsDirectory), 'kubernetes-namespaces.json'))
    this.#clusters = new Clusters({
      logger: options.logger,
      environment: options.environment,
      times: { ...watchTimes, ...options.times },
      onFailure: error => this.#failed.abort(error),
    })
    const { runsDirectory, logger, readSettings } = options
    this.#finder = new ClusterFinder({ clusters: this.#clusters, runsDirectory, logger, readSettings })
  }

  async submit(spec: RunSpec, signal: AbortSignal): Promise<Handle> {
    const { logger, runsDirectory } = this.#options
    const settings = readKubernetesSettings(spec.settings)
    const plan = buildJobPlan(spec, settings)
    const { name, namespace } = plan
    const code = await readCode(spec, this.#options.fetchImage)
    const cargo = loadCargo(plan, spec, code, randomBytes(4).toString('hex'))
    const cluster = await this.#clusters.get(settings.cluster, signal)
    await writePlace(runsDirectory, spec, { clusterUid: cluster.uid, aliases: cluster.aliases, namespace, name })
    await this.#namespaces.note(cluster.uid, namespace)
    const job = await launchJob({ client: cluster.client, plan, cargo, attempt: spec, logger }, signal)
    cluster.tracker(namespace, agentOf(spec)).note(job)
    return toHandle(`${cluster.uid}:${namespace}:${name}`, spec)
  }

  async wait(handle: Handle, output: OutputSink, signal: AbortSignal): Promise<Exit> {
    const address = readAddress(handle)
    const { namespace, name } = address
    const stop = AbortSignal.any([signal, this.#failed.signal])
    const cluster = await this.#findUnlessEnded(handle, stop)
    if (!cluster) return outOfReach(address)
    const { logger, runsDirectory } = this.#options
    const positionPath = (uid: string) => join(runsDirectory, handle.flowRunId, `kubernetes-${uid}.json`)
    const found = await waitForVerdict(
      { cluster, namespace, name, attempt: handle, positionPath, logger },
      output,
      stop,
    )
    if (found.job) this.#seen.set(handle.identifier, { job: found.job, isOver: found.isJobOver })
    return found.exit
  }

  async kill(handle: Handle, graceSeconds: number, signal: AbortSignal): Promise<void> {
    const address = readAddress(handle)
    const { namespace, name } = address
    const search = await this.#finder.look(address, handle, signal)
    if (!search.cluster) {
      const reason = `Job "${name}" cannot be ended: its cluster ${address.uid} cannot be reached`
      if (search.why === 'unreachable') throw new InfrastructureError(reason, { blame: 'host' })
      // Nobody here will see its end, and whoever asks for this knows how the run is to be told.
      this.#unreached.get(handle.identifier)?.abort(new Error(reason))
      return
    }
    const { logger } = this.#options
    const { client, rights } = search.cluster
    const job = await patiently(() => readJobAt(client, namespace, name, signal), { logger }, signal)
    if (job && !isOurs(job.metadata.labels, handle)) return
    const target = { client, namespace, name, rights, logger, selector: selectorOf(agentOf(handle)) }
    await killJob(target, graceSeconds, signal)
  }

  async reattach(attempt: Attempt, handle: Handle | undefined, signal: AbortSignal): Promise<Handle | undefined> {
    // A handle says that it was started. If the Job is gone meanwhile, `wait` says so.
    if (handle) return handle
    const { logger, runsDirectory } = this.#options
    const place = await readPlace(runsDirectory, attempt)
    // It is written before the first call.
    if (!place) return undefined
    const { clusterUid, namespace, name } = place
    const cluster = await this.#finder.waitFor({ uid: clusterUid, namespace, name }, attempt, true, signal)
    // That nothing was started can be said by its cluster alone, so it may have been: `wait` goes on looking.
    if (!cluster) return toHandle(`${clusterUid}:${namespace}:${name}`, attempt)
    const find = () => discardOnce(cluster.client, { namespace, name }, attempt, signal)
    const job = await patiently(find, { logger }, signal)
    return job && toHandle(`${clusterUid}:${namespace}:${name}`, attempt)
  }

  async release(handle: Handle, signal: AbortSignal): Promise<void> {
    const located = await this.#locate(handle, signal)
    const { logger, runsDirectory } = this.#options
    if (located) {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(30_000)])
      try {
        await patiently(() => this.#letGo(handle, located, limit), { logger, limitMs: 20_000 }, limit)
      } catch (error) {
        signal.throwIfAborted()
        // The day that was set at its creation, or the collection of finished Jobs, will see to it.
        logger.warn({ job: located.name, namespace: located.namespace, err: error }, 'job could not be released')
      }
    }
    this.#seen.delete(handle.identifier)
    await forgetPlace(runsDirectory, handle)
  }

  /** In the clusters that can be reached without a block: the agent's own, and those used in this life of it. */
  async collect(request: CollectRequest, signal: AbortSignal): Promise<readonly Collectable[]> {
    const places = await this.#namespaces.all()
    if (places.size === 0) return []
    const removed: Collectable[] = []
    try {
      await this.#clusters.get(undefined, signal)
      for (const [uid, namespaces] of places) {
        const cluster = await this.#clusters.find(uid)
        if (cluster) removed.push(...(await collectJobs(cluster, namespaces, request, signal)))
      }
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ClusterError)) throw error
      throw new InfrastructureError(error.message, { blame: 'host', cause: error })
    }
    return removed.toSorted((one, other) => one.since.getTime() - other.since.getTime())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#clusters[Symbol.asyncDispose]()
  }

  /** What is over is kept for as long as its block says; what is not, though its run is, is ended. */
  async #letGo(handle: Handle, { cluster, namespace, name }: Located, signal: AbortSignal): Promise<void> {
    const { client, rights } = cluster
    const seen = this.#seen.get(handle.identifier)
    // Without a look at it in this life, nothing is known that would speak against its going on.
    const job = seen?.job ?? (await readJobAt(client, namespace, name, signal))
    if (!job || !isOurs(job.metadata.labels, handle) || job.metadata.deletionTimestamp) return
    const ttl = job.metadata.annotations[annotation.finishedTtl]
    const isOver = seen?.isOver ?? true
    if (!isOver || ttl === '0') return await deleteJob({ client, namespace, name }, signal, 'Background')
    if (ttl === undefined || rights.isMissing('patch jobs', namespace)) return
    try {
      const body = { spec: { ttlSecondsAfterFinished: Number(ttl) } }
      await client.call('PATCH', jobPath(namespace, name), { body }, signal)
    } catch (error) {
      if (isRefusal(error, 403)) rights.noteMissing('patch jobs', namespace)
      else if (!isRefusal(error, 404)) throw error
    }
  }

  /** Undefined when the run is to be ended before its cluster is found. */
  async #findUnlessEnded(handle: Handle, signal: AbortSignal): Promise<Cluster | undefined> {
    const ended = new AbortController()
    this.#unreached.set(handle.identifier, ended)
    try {
      return await this.#finder.waitFor(readAddress(handle), handle, false, AbortSignal.any([signal, ended.signal]))
    } catch (error) {
      signal.throwIfAborted()
      if (!ended.signal.aborted) throw error
      return undefined
    } finally {
      this.#unreached.delete(handle.identifier)
    }
  }

  async #locate(handle: Handle, signal: AbortSignal): Promise<Located | undefined> {
    const address = readAddress(handle)
    const { cluster } = await this.#finder.look(address, handle, signal)
    return cluster && { ...address, cluster }
  }
}

function outOfReach({ uid }: JobAddress): Exit {
  const reason = `its Job belongs to cluster ${uid}, which this agent cannot reach any more: it may still be there`
  return { kind: 'vanished', reason, outputTail: [] }
}

function toHandle(identifier: string, { flowRunId, attempt, transitionId }: Attempt): Handle {
  return { type: 'kubernetes-job', identifier, flowRunId, attempt, transitionId }
}
