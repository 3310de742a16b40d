// Waits for how one run ends: its verdict from the tracker, its output from its pods, told as an Exit.

import { Scope } from '../async/scope.ts'
import type { Logger } from '../logger.ts'
import type { Attempt, Exit, OutputSink } from './infrastructure.ts'
import type { Cluster } from './kubernetes-cluster.ts'
import { agentOf, annotation, isOurs } from './kubernetes-labels.ts'
import { type LogPod, type LogSource, PodLog, readTail } from './kubernetes-logs.ts'
import { isJobOver, type JobView, mainContainer, type PodView } from './kubernetes-objects.ts'
import { findFailedInit } from './kubernetes-reasons.ts'
import type { Verdict } from './kubernetes-verdict.ts'

/** Once the run has ended: how long its last output is waited for. */
const lastOutputMs = 30_000

export interface Waiting {
  readonly cluster: Cluster
  readonly namespace: string
  readonly name: string
  readonly attempt: Attempt
  /** File that keeps how far the output of the pod with this uid has been shipped. */
  positionPath(podUid: string): string
  readonly logger: Logger
}

export interface Found {
  readonly exit: Exit
  /** The Job as it was seen last; undefined when it is not ours. */
  readonly job: JobView | undefined
  /** It ends, or has ended, by itself. */
  readonly isJobOver: boolean
}

/** Rejects with the signal's reason. */
export async function waitForVerdict(waiting: Waiting, output: OutputSink, signal: AbortSignal): Promise<Found> {
  const { cluster, namespace, name, attempt, logger } = waiting
  const decided = Promise.withResolvers<Exclude<Verdict, { kind: 'going' }>>()
  await using scope = new Scope(signal)
  const logs = new PodLogs(waiting, output, scope)
  let lastJob: JobView | undefined
  const stop = () => decided.reject(scope.signal.reason)
  scope.signal.addEventListener('abort', stop, { once: true })
  const untrack = cluster.tracker(namespace, agentOf(attempt)).track(name, {
    startGraceMs: job => (Number(job?.metadata.annotations[annotation.startGrace]) || 60) * 1000,
    onState: (job, pods) => {
      lastJob = job ?? lastJob
      if (!job || isOurs(job.metadata.labels, attempt)) logs.follow(lastJob, pods)
    },
    onCause: text => {
      logger.warn(
        { job: name, namespace, flow_run_id: attempt.flowRunId, reason: text },
        'flow run waits in its cluster',
      )
      logs.say(`rigel: waiting: ${text}`)
    },
    onVerdict: decided.resolve,
  })
  try {
    const verdict = await decided.promise
    if (lastJob && !isOurs(lastJob.metadata.labels, attempt)) {
      const reason = 'its Job is gone, and another one has its name'
      return { exit: { kind: 'vanished', reason, outputTail: [] }, job: undefined, isJobOver: true }
    }
    const outputTail = await logs.close(verdict, signal)
    // A Job whose pod has succeeded says so a moment later.
    const isOver = (lastJob && isJobOver(lastJob)) || verdict.pod?.status?.phase === 'Succeeded'
    return { exit: toExit(verdict, outputTail), job: lastJob, isJobOver: isOver }
  } catch (error) {
    signal.throwIfAborted()
    // A failure in the scope is the cause of its abort.
    await scope.join()
    throw error
  } finally {
    untrack()
    scope.signal.removeEventListener('abort', stop)
  }
}

function toExit(verdict: Exclude<Verdict, { kind: 'going' }>, outputTail: readonly string[]): Exit {
  if (verdict.kind === 'vanished') return { kind: 'vanished', reason: verdict.reason, outputTail }
  const { statusCode, signal, reason } = verdict.end
  const image = verdict.pod?.spec.containers[0]?.image
  const isLacking = statusCode !== 0 && /No module named '?prefect\b/.test(outputTail.join('\n'))
  const reasons = [reason, isLacking ? `image "${image}" lacks Prefect; install it there` : undefined]
  const why = reasons.filter(text => text !== undefined).join('; ') || undefined
  return { kind: 'exited', statusCode, signal, reason: why, outputTail }
}

/** The output of each of the Job's pods, shipped while it comes. */
class PodLogs {
  readonly #waiting: Waiting
  readonly #output: OutputSink
  readonly #scope: Scope
  readonly #logs = new Map<string, PodLog>()
  readonly #shipped: Promise<void>[] = []
  readonly #giveUp = new AbortController()
  #isWanted = true

  constructor(waiting: Waiting, output: OutputSink, scope: Scope) {
    this.#waiting = waiting
    this.#output = output
    this.#scope = scope
  }

  follow(job: JobView | undefined, pods: readonly PodView[]): void {
    if (job?.metadata.annotations[annotation.streamOutput] === 'false') this.#isWanted = false
    if (!this.#isWanted) return
    for (const pod of pods) {
      const { status } = mainContainer(pod)
      const { running, terminated } = status?.state ?? {}
      const hasRun = running || terminated || (status?.restartCount ?? 0) > 0
      if (!hasRun) continue
      const log = this.#logs.get(pod.metadata.uid) ?? this.#open(pod)
      const isOver = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'
      if (isOver || terminated) log.noteEnd()
    }
  }

  say(line: string): void {
    this.#scope.spawn(async () => {
      await this.#output([line])
    })
  }

  /** Waits for what is still on its way; gives the last lines of the pod that decided. */
  async close(verdict: Exclude<Verdict, { kind: 'going' }>, signal: AbortSignal): Promise<readonly string[]> {
    const { logger, name } = this.#waiting
    for (const log of this.#logs.values()) log.noteEnd()
    const timer = setTimeout(() => {
      logger.warn({ job: name }, 'last output of job does not come')
      this.#giveUp.abort()
    }, lastOutputMs)
    try {
      await Promise.all(this.#shipped)
    } finally {
      clearTimeout(timer)
    }
    signal.throwIfAborted()
    const { pod } = verdict
    if (!pod) return [...this.#logs.values()].at(-1)?.tail ?? []
    const log = this.#logs.get(pod.metadata.uid)
    if (log?.hasSeenAll) return log.tail
    const isFine = verdict.kind === 'ended' && verdict.end.statusCode === 0
    if (!log && isFine) return []
    // Where the flow never ran, the init container that failed has said why.
    const failedInit = log ? undefined : findFailedInit(pod)?.name
    const source = failedInit === undefined ? toLogPod(pod) : { ...toLogPod(pod), container: failedInit }
    const tail = await readTail(this.#source(), source, signal)
    return tail.length > 0 ? tail : (log?.tail ?? [])
  }

  #open(pod: PodView): PodLog {
    const path = this.#waiting.positionPath(pod.metadata.uid)
    const log = new PodLog(this.#source(), toLogPod(pod), path, this.#output)
    this.#logs.set(pod.metadata.uid, log)
    const done = Promise.withResolvers<void>()
    this.#shipped.push(done.promise)
    // What goes wrong here ends the scope, and so the wait.
    this.#scope.spawn(signal => log.ship(AbortSignal.any([signal, this.#giveUp.signal])).finally(done.resolve))
    return log
  }

  #source(): LogSource {
    const { cluster, namespace, logger } = this.#waiting
    return { client: cluster.client, namespace, rights: cluster.rights, logger }
  }
}

function toLogPod(pod: PodView): LogPod {
  return { name: pod.metadata.name, uid: pod.metadata.uid, container: mainContainer(pod).name }
}
