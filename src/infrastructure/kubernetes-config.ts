// Finds the cluster that a run goes to, and gives a client for it.
//
// In: a block's `cluster_config`, or none: then the cluster that the agent itself runs in, else the kubeconfig that
// KUBECONFIG names, else ~/.kube/config (prefect 2.20.25 infrastructure/kubernetes.py). Each block's cluster has a client
// of its own, so that one agent may use several at once; Prefect sets the cluster for the whole process.

import { createHash } from 'node:crypto'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import type { KubeConfig } from '@kubernetes/client-node'
import type { ClusterConfig } from './kubernetes-settings.ts'

type Environment = Readonly<Record<string, string | undefined>>

export interface FoundConfig {
  readonly config: KubeConfig
  /** The namespace that the context names, if any. */
  readonly source: string
}

/** Throws when there is no kubeconfig, it cannot be read, or lacks the context. The message holds nothing of its text. */
export async function findConfig(cluster: ClusterConfig | undefined, environment: Environment): Promise<FoundConfig> {
  const { KubeConfig } = await import('@kubernetes/client-node')
  const config = new KubeConfig()
  if (cluster) {
    readText(config, cluster.kubeconfig, 'the block')
    const { contextName } = cluster
    if (contextName !== undefined) {
      if (!config.getContextObject(contextName)) throw new Error(`the kubeconfig has no context "${contextName}"`)
      config.setCurrentContext(contextName)
    }
    return { config, source: 'the block' }
  }
  if (environment.KUBERNETES_SERVICE_HOST && environment.KUBERNETES_SERVICE_PORT) {
    config.loadFromCluster()
    return { config, source: 'the cluster that the agent runs in' }
  }
  const paths = environment.KUBECONFIG
    ? environment.KUBECONFIG.split(delimiter).filter(path => path !== '')
    : [join(environment.HOME || homedir(), '.kube', 'config')]
  for (const [index, path] of paths.entries()) {
    const next = index === 0 ? config : new KubeConfig()
    try {
      next.loadFromFile(path)
    } catch (cause) {
      // oxlint-disable-next-line preserve-caught-error -- it quotes the file, which holds credentials
      throw new Error(`the kubeconfig ${path} cannot be read`, { cause: withoutText(cause) })
    }
    if (index > 0) config.mergeConfig(next, true)
  }
  return { config, source: paths.join(delimiter) }
}

function readText(config: KubeConfig, text: string, source: string): void {
  try {
    config.loadFromString(text)
  } catch (cause) {
    // oxlint-disable-next-line preserve-caught-error -- it quotes the text, which holds credentials
    throw new Error(`the kubeconfig of ${source} cannot be read`, { cause: withoutText(cause) })
  }
}

/** YAML parsers quote the line that they cannot read, which may hold a token. */
function withoutText(cause: unknown): Error {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : undefined
  const name = cause instanceof Error ? cause.name : 'Error'
  return new Error(code ?? name)
}

/** Tells block clusters apart without keeping their text. */
export function keyOf(cluster: ClusterConfig | undefined): string {
  if (!cluster) return ''
  return createHash('sha256')
    .update(`${cluster.contextName ?? ''}\0${cluster.kubeconfig}`)
    .digest('hex')
}

/**
 * Stands for a cluster whose `kube-system` may not be read: made of what tells its API server from others, so that it is
 * the same in each life of the agent. In the form of a UUID, for Prefect takes it as the first part of its pid.
 */
export function substituteUid(config: KubeConfig): string {
  const cluster = config.getCurrentCluster()
  const hash = createHash('sha256')
    .update(`${cluster?.server ?? ''}\0${cluster?.caData ?? cluster?.caFile ?? ''}`)
    .digest('hex')
  return [hash.slice(0, 8), hash.slice(8, 12), hash.slice(12, 16), hash.slice(16, 20), hash.slice(20, 32)].join('-')
}
