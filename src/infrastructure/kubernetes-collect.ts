// Removes Jobs that have ended and are kept no longer, by number and by age; with them go their pods, Secrets and code.
//
// In: whose they are, how many to keep and for how long, which runs the journal still holds. Out: what was (or would be)
// removed. Only Jobs with our labels and the agent's own identity are ever looked at; what runs is never touched.

import * as v from 'valibot'
import type { Collectable, CollectRequest } from './infrastructure.ts'
import { chooseExcess } from './keep-rule.ts'
import { isRefusal } from './kubernetes-client.ts'
import type { Cluster } from './kubernetes-cluster.ts'
import { deleteJob } from './kubernetes-kill.ts'
import { label, labelVersion, selectorOf } from './kubernetes-labels.ts'
import { findEnd, type JobView, readJob } from './kubernetes-objects.ts'
import { isReleased, jobPath } from './kubernetes-submit.ts'

const list = v.object({
  metadata: v.nullish(v.object({ continue: v.nullish(v.string(), '') })),
  items: v.nullish(v.array(v.unknown()), []),
})

/** Oldest first. `namespaces`: where this agent has started Jobs. Throws a ClusterError. */
export async function collectJobs(
  cluster: Cluster,
  namespaces: readonly string[],
  request: CollectRequest,
  signal: AbortSignal,
): Promise<readonly Collectable[]> {
  const found: JobView[] = []
  for (const namespace of namespaces) {
    for (const job of await listJobs(cluster, namespace, request.agentPrefix, signal)) {
      if (isCollectable(job, request.isHeld)) found.push(job)
    }
  }
  const dated = found.map(job => ({ job, endedAtMs: endOf(job) }))
  const excess = chooseExcess(dated, request.finished, Date.now())
  const removed: Collectable[] = []
  for (const { job, endedAtMs } of excess) {
    const { name, namespace, labels } = job.metadata
    if (!request.dryRun) await deleteJob({ client: cluster.client, namespace, name }, signal, 'Background')
    removed.push({ kind: 'job', name, flowRunId: labels[label.flowRunId], since: new Date(endedAtMs) })
  }
  return removed
}

async function listJobs({ client, rights }: Cluster, namespace: string, agent: string, signal: AbortSignal) {
  const jobs: JobView[] = []
  let next = ''
  do {
    const query = { labelSelector: selectorOf(agent), limit: 500, continue: next || undefined }
    try {
      const page = v.parse(list, await client.call('GET', jobPath(namespace), { query }, signal))
      jobs.push(...page.items.map(readJob).filter(job => job !== undefined))
      next = page.metadata?.continue ?? ''
    } catch (error) {
      if (!isRefusal(error, 403)) throw error
      rights.noteMissing('list jobs', namespace)
      return []
    }
  } while (next !== '')
  return jobs
}

/** One that was never let go belongs to nobody once the journal has forgotten its run. */
function isCollectable(job: JobView, isHeld: (flowRunId: string) => boolean): boolean {
  const { labels, deletionTimestamp } = job.metadata
  const isOver = findEnd(job) !== undefined || !isReleased(job)
  return (
    isOver &&
    !deletionTimestamp &&
    Number(labels[label.version]) <= Number(labelVersion) &&
    !isHeld(labels[label.flowRunId] ?? '')
  )
}

/** In milliseconds since 1970. */
function endOf(job: JobView): number {
  return Date.parse(findEnd(job)?.lastTransitionTime ?? '') || Date.parse(job.metadata.creationTimestamp) || 0
}
