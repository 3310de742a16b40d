// Finds the cluster of a Job that an earlier life of the agent has started, by evidence only.
//
// A cluster is the one when it has an id that the run's handle or its place names, or when it holds the very Job, with the
// claim's transition id. Nothing else says anything about the run: a block that is gone, was pointed elsewhere, or a cluster
// that does not answer leave its fate open.

import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { type Attempt, type Handle, InfrastructureError } from './infrastructure.ts'
import { ClusterError } from './kubernetes-client.ts'
import { type Cluster, type Clusters, NoClusterError } from './kubernetes-cluster.ts'
import { isOurs } from './kubernetes-labels.ts'
import { readPlace } from './kubernetes-place.ts'
import { type ClusterConfig, type Json, readKubernetesSettings } from './kubernetes-settings.ts'
import { readJobAt } from './kubernetes-submit.ts'

const longestPauseMs = 60_000

export interface FinderOptions {
  readonly clusters: Clusters
  readonly runsDirectory: string
  readonly logger: Logger
  /** Reads the run's block again; see KubernetesOptions. */
  readonly readSettings: ((flowRunId: string, signal: AbortSignal) => Promise<Json | undefined>) | undefined
}

/** Where a handle says that its Job is. */
export interface JobAddress {
  readonly uid: string
  readonly namespace: string
  readonly name: string
}

export function readAddress({ identifier }: Handle): JobAddress {
  const [uid = '', namespace = '', ...rest] = identifier.split(':')
  return { uid, namespace, name: rest.join(':') }
}

/** `unreachable`: one that may be it does not answer now. `unknown`: all that can be asked are others. */
export type Search =
  | { readonly cluster: Cluster }
  | { readonly cluster: undefined; readonly why: 'unreachable' | 'unknown' }

export class ClusterFinder {
  readonly #options: FinderOptions

  constructor(options: FinderOptions) {
    this.#options = options
  }

  /** Looks once. Rejects with the signal's reason. */
  async look(address: JobAddress, attempt: Attempt, signal: AbortSignal): Promise<Search> {
    const { clusters } = this.#options
    const known = await clusters.find(address.uid)
    if (known) return { cluster: known }
    const isComplete = await this.#openCandidates(attempt, signal)
    const cluster = (await clusters.find(address.uid)) ?? (await this.#findByEvidence(address, attempt, signal))
    cluster?.learn(address.uid)
    return cluster ? { cluster } : { cluster, why: isComplete ? 'unknown' : 'unreachable' }
  }

  /**
   * Looks until it is found, for as long as it takes, and says what it waits for. Undefined only where `mayBeUnknown`: all
   * that could be it have answered, and it is none of them. Rejects with the signal's reason.
   */
  async waitFor(
    address: JobAddress,
    attempt: Attempt,
    mayBeUnknown: boolean,
    signal: AbortSignal,
  ): Promise<Cluster | undefined> {
    let told: string | undefined
    for (let pauseMs = 1_000; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      const search = await this.look(address, attempt, signal)
      if (search.cluster) return search.cluster
      if (mayBeUnknown && search.why === 'unknown') return undefined
      if (told !== search.why) this.#tell(address, attempt, search.why)
      told = search.why
      await sleep(jitter(pauseMs, 0.2), signal)
      signal.throwIfAborted()
    }
  }

  #tell({ uid, namespace, name }: JobAddress, { flowRunId }: Attempt, why: 'unreachable' | 'unknown'): void {
    const fields = { flow_run_id: flowRunId, cluster: uid, namespace, job: name }
    const what =
      why === 'unknown'
        ? 'no cluster that this agent can reach is that of the run: bring back its block, or cancel the run'
        : 'the cluster of the run cannot be asked, trying again'
    this.#options.logger.warn(fields, what)
  }

  /** By another of its ids, or because it holds the Job. */
  async #findByEvidence(address: JobAddress, attempt: Attempt, signal: AbortSignal): Promise<Cluster | undefined> {
    const { clusters, runsDirectory } = this.#options
    const place = await readPlace(runsDirectory, attempt)
    const named = place && (await clusters.find(...place.aliases))
    if (named) return named
    for (const cluster of await clusters.all()) {
      if (await this.#holds(cluster, address, attempt, signal)) return cluster
    }
    return undefined
  }

  /** The cluster that the run's block names, and the agent's own. False when one of them could not be asked. */
  async #openCandidates(attempt: Attempt, signal: AbortSignal): Promise<boolean> {
    const { clusters, logger, readSettings } = this.#options
    const candidates: (ClusterConfig | undefined)[] = [undefined]
    let isComplete = true
    const attemptTo = async (act: () => Promise<void>) => {
      try {
        await act()
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof InfrastructureError)) throw error
        // A block without sense, or an agent without a cluster of its own: there is nobody to ask.
        if (error.blame === 'host' && !(error instanceof NoClusterError)) isComplete = false
        logger.debug(
          { flow_run_id: attempt.flowRunId, err: error.message },
          'cluster of an earlier run cannot be asked',
        )
      }
    }
    await attemptTo(async () => {
      const settings = await readSettings?.(attempt.flowRunId, signal)
      const config = settings && readKubernetesSettings(settings).cluster
      if (config) candidates.unshift(config)
    })
    for (const candidate of candidates) {
      await attemptTo(async () => {
        await clusters.get(candidate, signal)
      })
    }
    return isComplete
  }

  /** The Job itself, with the claim's own id. */
  async #holds(
    { client }: Cluster,
    { namespace, name }: JobAddress,
    attempt: Attempt,
    signal: AbortSignal,
  ): Promise<boolean> {
    try {
      const job = await readJobAt(client, namespace, name, signal)
      return job !== undefined && isOurs(job.metadata.labels, attempt)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ClusterError)) throw error
      this.#options.logger.debug({ job: name, err: describeError(error) }, 'cluster cannot be asked for a job')
      return false
    }
  }
}
