// Decides what a Job and its pods say of a run: that it goes on, and what it waits for, or how it has ended.
//
// Pure. The Job's own condition decides, for it alone knows whether another pod will follow; pods say how and why. What is
// still undecided stays "going": a run is never called crashed for what may still come right.

import { type Condition, type JobView, mainContainer, type PodView } from './kubernetes-objects.ts'
import { describePodEnd, explainJobFailure, type PodEnd, readPodEnd, startFault } from './kubernetes-reasons.ts'

/** What is known of one Job now. */
export interface JobState {
  /** Undefined when the API server has said that it does not exist (any more). */
  readonly job: JobView | undefined
  readonly pods: readonly PodView[]
}

/** What a run waits for, for people. `key` tells causes apart: each is told once. */
export interface Cause {
  readonly key: string
  /** Empty for what is not worth telling. */
  readonly text: string
}

export type Verdict =
  | { readonly kind: 'going'; readonly cause: Cause | undefined }
  | { readonly kind: 'ended'; readonly end: PodEnd; readonly pod: PodView | undefined }
  | { readonly kind: 'vanished'; readonly reason: string; readonly pod: PodView | undefined }

export interface Clock {
  /** For how long this cause has been the run's, without a break, in milliseconds. */
  ageOf(causeKey: string): number
  /** How long a pod may fail to start for a fault of its own. */
  readonly startGraceMs: number
}

/** After the flow's container: how long other containers may take to end as well. */
export const sideCarMs = 10_000
/** Beyond its grace: how long a pod that was told to end may be silent before its node counts as lost. */
export const lostNodeMs = 60_000
/** How long a Job may be without a pod before that is worth a word. */
export const noPodMs = 5_000

export function judge(state: JobState, clock: Clock): Verdict {
  const pods = state.pods.toSorted(byAge)
  const { job } = state
  if (!job) return judgeGone(pods, clock)
  const complete = findTrue(job, 'Complete')
  if (complete) {
    const pod = pods.find(({ status }) => status?.phase === 'Succeeded') ?? pods[0]
    return { kind: 'ended', end: { statusCode: 0, signal: undefined, reason: undefined }, pod }
  }
  const failed = findTrue(job, 'Failed')
  if (failed) return judgeFailed(failed, pods, job)
  const pod = pods.find(({ metadata }) => !metadata.deletionTimestamp) ?? pods[0]
  if (!pod) return judgeWithoutPod(job, clock)
  return judgePod(pod, clock)
}

/** The newest first. */
function byAge(a: PodView, b: PodView): number {
  const [x, y] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp]
  return x < y ? 1 : x > y ? -1 : 0
}

function findTrue(job: JobView, type: string): Condition | undefined {
  return job.status?.conditions?.find(condition => condition.type === type && condition.status === 'True')
}

function judgeFailed(failed: Condition, pods: readonly PodView[], job: JobView): Verdict {
  const pod = pods.find(candidate => readPodEnd(candidate)) ?? pods[0]
  const end = pod && (readPodEnd(pod) ?? describePodEnd(pod))
  const why = explainJobFailure(failed, job.status?.failed ?? 0)
  const reason = [why, end?.reason].filter(text => text).join('; ') || undefined
  return { kind: 'ended', end: { statusCode: end?.statusCode, signal: end?.signal, reason }, pod }
}

function judgeGone(pods: readonly PodView[], clock: Clock): Verdict {
  const ended = pods.find(pod => readPodEnd(pod))
  const end = ended && readPodEnd(ended)
  const alive = pods.find(pod => !isOver(pod))
  // A Job that was deleted with `--cascade=orphan` leaves a pod that goes on.
  if (alive) return judgePod(alive, clock)
  if (end && ended) {
    const reason = [end.reason, 'its Job was deleted'].filter(text => text).join('; ')
    return { kind: 'ended', end: { ...end, reason: end.statusCode === 0 ? end.reason : reason }, pod: ended }
  }
  const reason =
    'its Job is gone: it was deleted by somebody, or after its time to live, so how it ended cannot be known'
  return { kind: 'vanished', reason, pod: pods[0] }
}

function isOver(pod: PodView): boolean {
  const phase = pod.status?.phase
  return phase === 'Succeeded' || phase === 'Failed' || mainContainer(pod).status?.state?.terminated !== undefined
}

function judgeWithoutPod(job: JobView, clock: Clock): Verdict {
  if (job.metadata.deletionTimestamp) return going('deleting', '')
  if (job.spec.suspend) {
    // An event of the moment before it was let go may come late.
    const isOld = clock.ageOf('suspended') >= noPodMs
    return going('suspended', isOld ? 'its Job is suspended, so that no pod is made for it' : '')
  }
  // Where pods may not be listed, the Job alone tells of them.
  if (job.status?.active) return going('unseen-pod', '')
  const key = 'no-pod'
  return going(key, clock.ageOf(key) < noPodMs ? '' : 'no pod has been made for its Job yet')
}

function judgePod(pod: PodView, clock: Clock): Verdict {
  const { phase } = pod.status ?? {}
  const end = readPodEnd(pod)
  if (phase === 'Succeeded') {
    return { kind: 'ended', end: end ?? { statusCode: 0, signal: undefined, reason: undefined }, pod }
  }
  // Whether another pod follows, the Job will say.
  if (phase === 'Failed') return going('failed', '')
  if (pod.metadata.deletionTimestamp) return judgeLeaving(pod, end, clock)
  if (end && phase === 'Running') return judgeSideCar(pod, end, clock)
  const fault = startFault(pod)
  if (fault) {
    const key = `fault:${fault.reason}`
    if (fault.canHeal && clock.ageOf(key) < clock.startGraceMs) return going(key, fault.text)
    return { kind: 'ended', end: { statusCode: undefined, signal: undefined, reason: fault.text }, pod }
  }
  const unscheduled = pod.status?.conditions?.find(({ type, status }) => type === 'PodScheduled' && status === 'False')
  if (unscheduled) {
    const why = unscheduled.message || unscheduled.reason
    return going(`unscheduled:${why}`, `no node takes its pod: ${why}`)
  }
  return { kind: 'going', cause: undefined }
}

/** A pod that was told to end: evicted, drained, deleted. Its last words may still come. */
function judgeLeaving(pod: PodView, end: PodEnd | undefined, clock: Clock): Verdict {
  const key = `leaving:${pod.metadata.uid}`
  const graceMs = (pod.metadata.deletionGracePeriodSeconds ?? 30) * 1000
  if (end || clock.ageOf(key) < graceMs + lostNodeMs) return going(key, '')
  const node = pod.spec.nodeName
  const reason = `its pod was told to end, and its node${node ? ` ${node}` : ''} does not answer`
  return { kind: 'vanished', reason, pod }
}

function judgeSideCar(pod: PodView, end: PodEnd, clock: Clock): Verdict {
  const key = `side-car:${pod.metadata.uid}`
  if (clock.ageOf(key) < sideCarMs) return going(key, '')
  const others = pod.status?.containerStatuses?.filter(({ state }) => state?.running).map(({ name }) => name) ?? []
  const reason = [end.reason, `other containers of its pod were still running: ${others.join(', ')}`]
  return { kind: 'ended', end: { ...end, reason: reason.filter(text => text).join('; ') }, pod }
}

function going(key: string, text: string): Verdict {
  return { kind: 'going', cause: { key, text } }
}
