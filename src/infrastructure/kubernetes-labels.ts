// The labels and annotations by which our Jobs are found and read again by later lives of the agent. Pure.

import type { Attempt, RunSpec } from './infrastructure.ts'
import type { KubernetesSettings } from './kubernetes-settings.ts'
import { isLabel, slugifyLabelKey, slugifyLabelValue } from './kubernetes-slug.ts'

/** Raised when labels change their meaning; an agent leaves Jobs of a higher one alone. */
export const labelVersion = '1'

/** On the Job, its pods, its Secret and its ConfigMap. */
export const label = {
  version: 'rigel.io/version',
  flowRunId: 'rigel.io/flow-run-id',
  transitionId: 'rigel.io/transition-id',
  /** The agent that started it: the first 8 hex digits of its transition ids. */
  agent: 'rigel.io/agent',
} as const

/** On the Job alone. */
export const annotation = {
  /** `true` once the Job was let go: it may have run. What is without it has not run, and never will by itself. */
  released: 'rigel.io/released',
  /** What the names of the Job's Secret and code end with. */
  cargo: 'rigel.io/cargo',
  /** `false`: nobody wants to see the output. */
  streamOutput: 'rigel.io/stream-output',
  /** The seconds that a finished Job is kept, once its end is on record. */
  finishedTtl: 'rigel.io/finished-ttl',
  /** How long a pod may fail to start for a fault of its own, in seconds. */
  startGrace: 'rigel.io/start-grace',
} as const

export function agentOf({ transitionId }: Pick<Attempt, 'transitionId'>): string {
  return transitionId.slice(0, 8)
}

/** The label selector of everything that one agent has started; no call of ours goes without it. */
export function selectorOf(agent: string): string {
  return `${label.agent}=${agent},${label.version}`
}

export function buildOwnLabels(attempt: Attempt): Record<string, string> {
  return {
    [label.version]: labelVersion,
    [label.flowRunId]: attempt.flowRunId,
    [label.transitionId]: attempt.transitionId,
    [label.agent]: agentOf(attempt),
  }
}

/** Prefect's labels of the run as Kubernetes takes them; those that it would refuse are left out. */
export function buildRunLabels(labels: RunSpec['labels']): Record<string, string> {
  const slugs = Object.entries(labels).map(([key, value]) => [slugifyLabelKey(key), slugifyLabelValue(value)] as const)
  return Object.fromEntries(slugs.filter(([key, value]) => isLabel(key, value)))
}

export function buildAnnotations(settings: KubernetesSettings, finishedTtl: number | undefined) {
  return {
    [annotation.startGrace]: String(settings.podWatchTimeoutSeconds),
    ...(settings.streamOutput ? {} : { [annotation.streamOutput]: 'false' }),
    ...(finishedTtl === undefined ? {} : { [annotation.finishedTtl]: String(finishedTtl) }),
  }
}

/** True when this object was made for this very claim. */
export function isOurs(labels: Readonly<Record<string, string>>, attempt: Attempt): boolean {
  return labels[label.transitionId] === attempt.transitionId && labels[label.flowRunId] === attempt.flowRunId
}
