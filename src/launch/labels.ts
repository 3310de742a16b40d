// The labels by which a run's infrastructure can be found, under Prefect's own keys.

import type { Deployment, FlowRun } from '../prefect/types.ts'
import type { InfrastructureBlock } from './infrastructure-block.ts'

/** Prefect's labels of the run, its deployment and flow, with the block's own on top. Values are not yet made to fit. */
export function buildLabels(input: {
  readonly flowRun: Pick<FlowRun, 'id' | 'name'>
  readonly deployment: Pick<Deployment, 'name' | 'updated'>
  /** Undefined when it was not read: the label is then left out. */
  readonly flowName: string | undefined
  /** Of the Prefect that this agent stands in for; see `prefect.io/version`. */
  readonly prefectVersion: string
  readonly block: Pick<InfrastructureBlock, 'type' | 'labels'>
}): Record<string, string> {
  const { flowRun, deployment, flowName, prefectVersion, block } = input
  const isDocker = block.type === 'docker-container'
  return {
    ...(isDocker ? { 'io.prefect.version': prefectVersion } : {}),
    'prefect.io/flow-run-id': flowRun.id,
    'prefect.io/flow-run-name': flowRun.name,
    'prefect.io/version': prefectVersion,
    'prefect.io/deployment-name': deployment.name,
    ...(deployment.updated ? { 'prefect.io/deployment-updated': formatUtc(deployment.updated) } : {}),
    ...(flowName === undefined ? {} : { 'prefect.io/flow-name': flowName }),
    ...(isDocker ? toDockerKeys(block.labels) : block.labels),
  }
}

/**
 * `foo.io/bar` becomes `io.foo.bar`. Prefect does so with the block's labels only, so the run's own keep their slash
 * (infrastructure/container.py converts when the block is loaded, and the run's are added later).
 */
function toDockerKeys(labels: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(labels).map(([key, value]): [string, string] => {
    const slash = key.indexOf('/')
    if (slash < 0) return [key, value]
    return [`${key.slice(0, slash).split('.').toReversed().join('.')}.${key.slice(slash + 1)}`, value]
  })
  return Object.fromEntries(entries)
}

/** `2026-11-22T22:54:41.154234+02:00` becomes `2026-11-22T20:54:41.154234Z`; Date alone would lose the microseconds. */
export function formatUtc(timestamp: string): string {
  const at = new Date(timestamp)
  if (Number.isNaN(at.getTime())) return timestamp
  const fraction = /\.(\d+)/.exec(timestamp)?.[1]?.slice(0, 6).padEnd(6, '0') ?? '000000'
  return `${at.toISOString().slice(0, 19)}${fraction === '000000' ? '' : `.${fraction}`}Z`
}
