// The clusters that one agent uses, each with its client, its id and its trackers.
//
// In: a run's cluster config, or the id in a handle. Out: one Cluster for each, made at first use and kept.

import type { KubeConfig } from '@kubernetes/client-node'
import * as v from 'valibot'
import type { Logger } from '../logger.ts'
import { InfrastructureError } from './infrastructure.ts'
import { ClusterClient, ClusterError, isRefusal } from './kubernetes-client.ts'
import { findConfig, keyOf, substituteUid } from './kubernetes-config.ts'
import { patiently } from './kubernetes-patience.ts'
import { Rights } from './kubernetes-rights.ts'
import type { ClusterConfig } from './kubernetes-settings.ts'
import { Tracker } from './kubernetes-tracker.ts'
import type { WatchTimes } from './kubernetes-watch.ts'

/** How long a cluster that does not answer is waited for before a run is given back, in milliseconds. */
export const clusterAwayMs = 20_000

export interface ClustersOptions {
  readonly logger: Logger
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly times: WatchTimes
  /** A bug in a watch. */
  readonly onFailure: (error: unknown) => void
}

const namespaceSchema = v.object({ metadata: v.object({ uid: v.string() }) })

export class Cluster {
  readonly client: ClusterClient
  readonly rights: Rights
  /** The first part of an `infrastructure_pid`. */
  readonly uid: string
  /** Other ids that this cluster has had in handles: a right may come and go between two lives of the agent. */
  readonly #aliases: Set<string>
  readonly #options: ClustersOptions
  readonly #trackers = new Map<string, Tracker>()

  constructor(client: ClusterClient, rights: Rights, ids: readonly [string, ...string[]], options: ClustersOptions) {
    this.client = client
    this.rights = rights
    this.uid = ids[0]
    this.#aliases = new Set(ids)
    this.#options = options
  }

  get aliases(): readonly string[] {
    return [...this.#aliases]
  }

  /** It has proved to be the one that a handle names so. */
  learn(alias: string): void {
    this.#aliases.add(alias)
  }

  answersTo(...uids: readonly string[]): boolean {
    return uids.some(uid => this.#aliases.has(uid))
  }

  tracker(namespace: string, agent: string): Tracker {
    const key = `${namespace}/${agent}`
    const { client, rights } = this
    const { logger, times, onFailure } = this.#options
    const tracker =
      this.#trackers.get(key) ?? new Tracker({ client, rights, namespace, agent, logger, times }, onFailure)
    this.#trackers.set(key, tracker)
    return tracker
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const tracker of this.#trackers.values()) await tracker[Symbol.asyncDispose]()
    await this.client[Symbol.asyncDispose]()
  }
}

export class Clusters {
  readonly #options: ClustersOptions
  readonly #clusters = new Map<string, Promise<Cluster>>()

  constructor(options: ClustersOptions) {
    this.#options = options
  }

  /** Throws an InfrastructureError: of the host for the agent's own cluster, of the run for a block's config. */
  async get(config: ClusterConfig | undefined, signal: AbortSignal): Promise<Cluster> {
    const key = keyOf(config)
    const existing = this.#clusters.get(key)
    if (existing) return await existing
    const opening = this.#open(config, signal)
    this.#clusters.set(key, opening)
    try {
      return await opening
    } catch (error) {
      this.#clusters.delete(key)
      throw error
    }
  }

  /** One that was used in this life of the agent. */
  async find(...uids: readonly string[]): Promise<Cluster | undefined> {
    return (await this.all()).find(cluster => cluster.answersTo(...uids))
  }

  /** Those that were used in this life of the agent. */
  async all(): Promise<readonly Cluster[]> {
    const opened = await Promise.all([...this.#clusters.values()].map(opening => opening.catch(() => undefined)))
    return opened.filter(cluster => cluster !== undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opening of this.#clusters.values()) await (await opening.catch(() => undefined))?.[Symbol.asyncDispose]()
  }

  async #open(config: ClusterConfig | undefined, signal: AbortSignal): Promise<Cluster> {
    const { environment, logger } = this.#options
    let kubeConfig: KubeConfig
    let client: ClusterClient
    try {
      kubeConfig = (await findConfig(config, environment)).config
      client = new ClusterClient(kubeConfig)
    } catch (cause) {
      const blame = config ? 'run' : 'host'
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new NoClusterError(`No Kubernetes cluster to use: ${why}`, { blame, cause })
    }
    const rights = new Rights(logger)
    try {
      const substitute = substituteUid(kubeConfig)
      const own = config ? undefined : environment.PREFECT_KUBERNETES_CLUSTER_UID || undefined
      const uid = own ?? (await this.#readUid(client, rights, signal))
      const ids: [string, ...string[]] = uid === undefined ? [substitute] : [uid, substitute]
      return new Cluster(client, rights, ids, this.#options)
    } catch (error) {
      await client[Symbol.asyncDispose]()
      throw toHostTrouble(error, signal)
    }
  }

  /** Of namespace `kube-system`, which stands for the cluster in Prefect's pids; undefined without the right to read it. */
  async #readUid(client: ClusterClient, rights: Rights, signal: AbortSignal): Promise<string | undefined> {
    const { logger } = this.#options
    const call = () => client.call('GET', '/api/v1/namespaces/kube-system', {}, signal)
    try {
      return v.parse(namespaceSchema, await patiently(call, { logger, limitMs: clusterAwayMs }, signal)).metadata.uid
    } catch (error) {
      signal.throwIfAborted()
      if (!isRefusal(error, 403, 404)) throw error
      rights.noteMissing('get namespaces', '')
      return undefined
    }
  }
}

/** There is none to ask: no kubeconfig, or one without sense. */
export class NoClusterError extends InfrastructureError {}

/** A cluster that does not answer is no fault of the run. */
export function toHostTrouble(error: unknown, signal: AbortSignal): unknown {
  signal.throwIfAborted()
  if (!(error instanceof ClusterError)) return error
  return new InfrastructureError(error.message, { blame: 'host', cause: error })
}
