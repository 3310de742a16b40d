// Puts how a pod ended, or why it does not start, into words for the person who reads the run's final state. Pure.

import { constants } from 'node:os'
import { shortenText } from '../cut-text.ts'
import { type Condition, type ContainerStatus, mainContainer, type PodView } from './kubernetes-objects.ts'

export interface PodEnd {
  readonly statusCode: number | undefined
  readonly signal: string | undefined
  readonly reason: string | undefined
}

const SIGNAL_BY_NUMBER = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))
const longestMessage = 600

/** How the flow's container ended; undefined while it has not, or when nobody knows. */
export function readPodEnd(pod: PodView): PodEnd | undefined {
  const { status } = mainContainer(pod)
  const terminated = status?.state?.terminated
  if (!terminated) return undefined
  const { exitCode: code, reason, message } = terminated
  const signal = code > 128 ? SIGNAL_BY_NUMBER.get(code - 128) : undefined
  const reasons = [...explainContainer(pod, reason, message, code), ...explainPod(pod)]
  if (signal !== undefined) reasons.push(`${signal} ended it, or it exited with code ${code} by itself`)
  return {
    statusCode: signal === undefined ? code : undefined,
    signal,
    reason: reasons.length > 0 ? reasons.join('; ') : undefined,
  }
}

/** Of a pod whose flow's container has told nothing: it may never have started. */
export function describePodEnd(pod: PodView): PodEnd {
  const failedInit = findFailedInit(pod)
  const reasons = [...(failedInit ? [describeInit(failedInit)] : []), ...explainPod(pod)]
  return { statusCode: undefined, signal: undefined, reason: reasons.join('; ') || undefined }
}

/** The init container that has kept the others from being started. */
export function findFailedInit(pod: PodView): ContainerStatus | undefined {
  return pod.status?.initContainerStatuses?.find(({ state }) => (state?.terminated?.exitCode ?? 0) !== 0)
}

function describeInit({ name, state }: ContainerStatus): string {
  const { exitCode, message } = state?.terminated ?? { exitCode: 0, message: '' }
  return `init container "${name}" failed with code ${exitCode}${message ? `: ${cut(message)}` : ''}`
}

function explainContainer(pod: PodView, reason: string, message: string, code: number): string[] {
  switch (reason) {
    case 'OOMKilled': {
      const limit = pod.spec.containers[0]?.resources?.limits?.memory
      const what = limit === undefined ? 'what its node has' : `its limit of ${limit}`
      return [`out of memory: the container went over ${what} (OOMKilled)`]
    }
    case 'StartError':
    case 'ContainerCannotRun':
      return [`its container could not be started: ${cut(message)}`]
    case 'ContainerStatusUnknown':
      return ['its node lost sight of the container (ContainerStatusUnknown)']
    case 'Error':
    case 'Completed':
    case '':
      return code !== 0 && message ? [`its termination message: ${cut(message)}`] : []
    default:
      return [`${reason}${message ? `: ${cut(message)}` : ''}`]
  }
}

/** Evicted, preempted, drained, past its deadline, on a node that was shut down. */
function explainPod({ status }: PodView): string[] {
  const reasons: string[] = []
  const reason = status?.reason ?? ''
  const message = status?.message ?? ''
  if (reason === 'DeadlineExceeded') reasons.push('its pod ran longer than its deadline (activeDeadlineSeconds)')
  else if (reason) reasons.push(`its pod was ended by the cluster (${reason}${message ? `: ${cut(message)}` : ''})`)
  const disruption = status?.conditions?.find(({ type, status: is }) => type === 'DisruptionTarget' && is === 'True')
  if (disruption && !reason) {
    const told = disruption.message ? `: ${cut(disruption.message)}` : ''
    reasons.push(`its pod had to leave its node (${disruption.reason}${told})`)
  }
  return reasons
}

/** What the Job says of its failure; undefined when the pod says it all. */
export function explainJobFailure({ reason, message }: Condition, failures: number): string | undefined {
  switch (reason) {
    case 'BackoffLimitExceeded':
      return failures > 1 ? `its Job has failed ${failures} times, more than its backoffLimit allows` : undefined
    case 'DeadlineExceeded':
      return 'its Job ran longer than its activeDeadlineSeconds (DeadlineExceeded)'
    case 'PodFailurePolicy':
      return `the Job's podFailurePolicy ended it: ${cut(message)}`
    default:
      return `its Job failed (${reason || 'no reason given'}${message ? `: ${cut(message)}` : ''})`
  }
}

export interface StartFault {
  readonly reason: string
  readonly text: string
  /** False when nothing can come right by waiting. */
  readonly canHeal: boolean
}

const faults: Readonly<Record<string, string>> = {
  ErrImagePull: 'could not be pulled',
  ImagePullBackOff: 'could not be pulled',
  RegistryUnavailable: 'could not be pulled, for its registry is not available',
  ImageInspectError: 'could not be inspected',
  ErrImageNeverPull: 'is not on the node, and the pull policy Never forbids pulling it',
  InvalidImageName: 'has a name that is none',
  SignatureValidationFailed: 'has a signature that is not valid',
}

/** Why a pod does not start for a fault of its own: image or configuration. */
export function startFault(pod: PodView): StartFault | undefined {
  const all = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
  for (const { name, state } of all) {
    const { reason, message } = state?.waiting ?? { reason: '', message: '' }
    const image = faults[reason]
    if (image !== undefined) {
      const containers = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])]
      const reference = containers.find(container => container.name === name)?.image ?? ''
      // A pull that fails is told in two words by turns; both are one cause.
      const key = reason === 'ImagePullBackOff' ? 'ErrImagePull' : reason
      const text = `image "${reference}" ${image}: ${cut(message)} (${key})`
      return { reason: key, text, canHeal: reason !== 'InvalidImageName' }
    }
    if (/^(?:CreateContainer|RunContainer|PreCreateHook|PreStartHook|PostStartHook).*Error$/.test(reason)) {
      return { reason, text: `container "${name}" could not be made: ${cut(message)} (${reason})`, canHeal: true }
    }
  }
  return undefined
}

function cut(message: string): string {
  return shortenText(message.trim().replace(/\s+/g, ' '), longestMessage)
}
