// Ends a Job: asks its pods to end, waits for the grace, forces them. Returns when nothing of it is left.

import * as v from 'valibot'
import { jitter, sleep } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'
import { InfrastructureError } from './infrastructure.ts'
import { type ClusterClient, isRefusal } from './kubernetes-client.ts'
import { type PodView, readPod } from './kubernetes-objects.ts'
import { patiently } from './kubernetes-patience.ts'
import type { Rights } from './kubernetes-rights.ts'
import { jobPath, readJobAt } from './kubernetes-submit.ts'

/** Beyond the grace: how long the cluster may take to carry out what was asked, before its node counts as lost. */
const forceAfterMs = 30_000
const giveUpAfterMs = 60_000

export interface Target {
  readonly client: ClusterClient
  readonly namespace: string
  readonly name: string
  /** Of everything that the agent has started. */
  readonly selector: string
  readonly rights: Rights
  readonly logger: Logger
}

const list = v.object({ items: v.nullish(v.array(v.unknown()), []) })

export async function killJob(target: Target, graceSeconds: number, signal: AbortSignal): Promise<void> {
  const { client, namespace, name, logger } = target
  const startMs = performance.now()
  const graceMs = Math.max(1, graceSeconds) * 1000
  const patience = { logger, limitMs: graceMs + giveUpAfterMs }
  // In the foreground: the Job stays visible until its pods are gone, and makes no new ones meanwhile.
  await patiently(() => deleteJob(target, signal), patience, signal)
  let isForced = false
  for (let pauseMs = 150; ; pauseMs = Math.min(pauseMs * 1.5, 1_000)) {
    const ageMs = performance.now() - startMs
    isForced = ageMs > graceMs + forceAfterMs
    const left = Math.max(1, Math.ceil((graceMs - ageMs) / 1000))
    const pods = await patiently(() => askPods(target, isForced ? 0 : left, signal), patience, signal)
    const job = await patiently(() => readJobAt(client, namespace, name, signal), patience, signal)
    if (!job && pods === 0) return
    if (ageMs > graceMs + giveUpAfterMs) {
      throw new InfrastructureError(`Job "${name}" does not end: ${pods} of its pods are left`, { blame: 'host' })
    }
    await sleep(jitter(pauseMs, 0.2), signal)
    signal.throwIfAborted()
  }
}

export async function deleteJob(
  { client, namespace, name }: Pick<Target, 'client' | 'namespace' | 'name'>,
  signal: AbortSignal,
  propagationPolicy: 'Foreground' | 'Background' = 'Foreground',
): Promise<void> {
  try {
    await client.call('DELETE', jobPath(namespace, name), { body: { propagationPolicy } }, signal)
  } catch (error) {
    if (isRefusal(error, 403)) {
      throw new InfrastructureError(`Job "${name}" cannot be ended: ${error.message}`, { blame: 'host', cause: error })
    }
    if (!isRefusal(error, 404, 409)) throw error
  }
}

/** Shortens the grace of the Job's pods to ours, where theirs is longer. Gives how many there are. */
async function askPods(target: Target, graceSeconds: number, signal: AbortSignal): Promise<number> {
  const { client, namespace, name, selector, rights } = target
  const path = `/api/v1/namespaces/${namespace}/pods`
  if (rights.isMissing('list pods', namespace)) return 0
  let pods: readonly PodView[]
  try {
    const query = { labelSelector: `${selector},job-name=${name}` }
    const { items } = v.parse(list, await client.call('GET', path, { query }, signal))
    pods = items.map(readPod).filter(pod => pod !== undefined)
  } catch (error) {
    if (!isRefusal(error, 403)) throw error
    rights.noteMissing('list pods', namespace)
    return 0
  }
  for (const { metadata } of pods) {
    const current = metadata.deletionGracePeriodSeconds
    const isLonger = !metadata.deletionTimestamp || (typeof current === 'number' && current > graceSeconds + 1)
    if (!isLonger || rights.isMissing('delete pods', namespace)) continue
    try {
      const body = { gracePeriodSeconds: graceSeconds, preconditions: { uid: metadata.uid } }
      await client.call('DELETE', `${path}/${metadata.name}`, { body }, signal)
    } catch (error) {
      if (isRefusal(error, 403)) rights.noteMissing('delete pods', namespace)
      else if (!isRefusal(error, 404, 409)) throw error
    }
  }
  return pods.length
}
