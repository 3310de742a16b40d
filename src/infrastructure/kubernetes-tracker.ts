// Knows how each run of one agent in one namespace stands: two watches (Jobs, pods) for all of them together.
//
// In: names of Jobs to look after. Out: a verdict for each, and what it waits for meanwhile. What the watches say is kept
// in small views, of tracked Jobs and of those that are not over yet; the rest costs nothing.

import { Scope } from '../async/scope.ts'
import { sleep } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'
import { type ClusterClient, isRefusal } from './kubernetes-client.ts'
import { readJobFailures } from './kubernetes-events.ts'
import { selectorOf } from './kubernetes-labels.ts'
import {
  isJobOver,
  type JobView,
  jobNameOf,
  mainContainer,
  type PodView,
  readJob,
  readPod,
} from './kubernetes-objects.ts'
import { patiently } from './kubernetes-patience.ts'
import type { Rights } from './kubernetes-rights.ts'
import { type Cause, judge, type Verdict } from './kubernetes-verdict.ts'
import { keepWatch, type WatchTimes } from './kubernetes-watch.ts'

/** While a run waits for something that time decides. */
const recheckMs = 1_000
/** How long the watches go on when nobody is tracked any more: the next run is often near. */
const idleMs = 30_000

export interface TrackerOptions {
  readonly client: ClusterClient
  readonly namespace: string
  /** First 8 hex digits of the agent's transition ids. */
  readonly agent: string
  readonly rights: Rights
  readonly logger: Logger
  readonly times: WatchTimes
}

/** What is told of one Job. */
export interface Listener {
  readonly startGraceMs: (job: JobView | undefined) => number
  /** The object or one of its pods has changed. */
  onState(job: JobView | undefined, pods: readonly PodView[]): void
  /** It waits for something, told once for each cause. */
  onCause(text: string): void
  onVerdict(verdict: Exclude<Verdict, { kind: 'going' }>): void
}

interface Tracked {
  readonly listener: Listener
  cause: Cause | undefined
  causeSinceMs: number
  readonly told: Set<string>
  timer: NodeJS.Timeout | undefined
  isLooking: boolean
  /** Once more, for what a look under way may have missed. */
  looksAgain: boolean
  /** Job and pods were asked for themselves, after this run's end was seen. */
  hasLooked: boolean
}

interface Known {
  job: JobView | undefined
  /** The API server has said that there is no such Job. */
  isGone: boolean
  readonly pods: Map<string, PodView>
}

export class Tracker {
  readonly #options: TrackerOptions
  readonly #known = new Map<string, Known>()
  readonly #tracked = new Map<string, Tracked>()
  #scope: Scope | undefined
  #idle: NodeJS.Timeout | undefined
  readonly #onFailure: (error: unknown) => void

  /** `onFailure`: a bug in the watch, which must not go unheard. */
  constructor(options: TrackerOptions, onFailure: (error: unknown) => void) {
    this.#options = options
    this.#onFailure = onFailure
  }

  get size(): number {
    return this.#tracked.size
  }

  /** A Job as an answer to a call of ours showed it, so that it need not be asked for again. */
  note(job: JobView): void {
    this.#entry(job.metadata.name).job = job
  }

  /** Until the returned function is called, or a verdict was given. */
  track(name: string, listener: Listener): () => void {
    const tracked: Tracked = {
      listener,
      cause: undefined,
      causeSinceMs: 0,
      told: new Set(),
      timer: undefined,
      isLooking: false,
      looksAgain: false,
      hasLooked: false,
    }
    this.#tracked.set(name, tracked)
    clearTimeout(this.#idle)
    this.#open()
    if (this.#known.get(name)?.job) this.#judge(name)
    else this.#look(name)
    return () => this.#drop(name, tracked)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#idle)
    for (const [name, tracked] of this.#tracked) this.#drop(name, tracked)
    clearTimeout(this.#idle)
    const scope = this.#scope
    this.#scope = undefined
    await scope?.[Symbol.asyncDispose]()
  }

  #open(): void {
    if (this.#scope) return
    const { client, namespace, agent, rights, logger, times } = this.#options
    const scope = new Scope()
    this.#scope = scope
    const base = { client, namespace, rights, logger, times, selector: selectorOf(agent) }
    scope.spawn(stop =>
      keepWatch(
        {
          ...base,
          kind: 'jobs',
          onList: objects => this.#replaceJobs(objects),
          onEvent: (type, object) => this.#takeJob(type, object),
        },
        stop,
      ),
    )
    scope.spawn(stop =>
      keepWatch(
        {
          ...base,
          kind: 'pods',
          onList: objects => this.#replacePods(objects),
          onEvent: (type, object) => this.#takePod(type, object),
        },
        stop,
      ),
    )
    scope.join().catch(error => {
      if (!scope.signal.aborted || this.#scope === scope) this.#onFailure(error)
    })
  }

  #drop(name: string, tracked: Tracked): void {
    clearTimeout(tracked.timer)
    if (this.#tracked.get(name) !== tracked) return
    this.#tracked.delete(name)
    this.#known.delete(name)
    if (this.#tracked.size > 0) return
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      const scope = this.#scope
      this.#scope = undefined
      this.#known.clear()
      scope?.cancel()
    }, idleMs)
    this.#idle.unref()
  }

  #entry(name: string): Known {
    const known = this.#known.get(name) ?? { job: undefined, isGone: false, pods: new Map() }
    this.#known.set(name, known)
    return known
  }

  #takeJob(type: string, object: unknown): void {
    const job = readJob(object)
    if (!job) return
    const { name } = job.metadata
    if (type === 'DELETED') {
      if (this.#tracked.has(name)) this.#look(name)
      else this.#known.delete(name)
      return
    }
    if (!this.#tracked.has(name) && isJobOver(job)) {
      this.#known.delete(name)
      return
    }
    this.#entry(name).job = job
    this.#judge(name)
  }

  #replaceJobs(objects: readonly unknown[]): void {
    const seen = new Set<string>()
    for (const object of objects) {
      const job = readJob(object)
      if (job) seen.add(job.metadata.name)
      this.#takeJob('MODIFIED', object)
    }
    // A list that was asked for before the Job was made does not have it either: look before believing.
    for (const name of this.#tracked.keys()) if (!seen.has(name)) this.#look(name)
    for (const name of this.#known.keys()) if (!seen.has(name) && !this.#tracked.has(name)) this.#known.delete(name)
  }

  #takePod(type: string, object: unknown): void {
    const pod = readPod(object)
    const name = pod && jobNameOf(pod)
    if (!pod || name === undefined) return
    const known = this.#known.get(name)
    // Its Job is over, or was never ours to follow.
    if (!known && !this.#tracked.has(name) && isFinal(pod)) return
    const { pods } = known ?? this.#entry(name)
    // How a removed pod has ended stays known, as long as its Job is looked after.
    if (type === 'DELETED' && !hasEnded(pod)) pods.delete(pod.metadata.uid)
    else pods.set(pod.metadata.uid, pod)
    this.#judge(name)
  }

  #replacePods(objects: readonly unknown[]): void {
    const seen = new Set<string>()
    for (const object of objects) {
      const pod = readPod(object)
      if (pod) seen.add(pod.metadata.uid)
      this.#takePod('MODIFIED', object)
    }
    for (const [name, { pods }] of this.#known) {
      const gone = [...pods.values()].filter(pod => !seen.has(pod.metadata.uid) && !hasEnded(pod))
      for (const pod of gone) pods.delete(pod.metadata.uid)
      if (gone.length > 0) this.#judge(name)
    }
  }

  #judge(name: string): void {
    const tracked = this.#tracked.get(name)
    const known = this.#known.get(name)
    if (!tracked || !known || (!known.job && !known.isGone)) return
    const pods = [...known.pods.values()]
    const job = known.isGone ? undefined : known.job
    tracked.listener.onState(job, pods)
    const nowMs = performance.now()
    const ageOf = (key: string) => (tracked.cause?.key === key ? nowMs - tracked.causeSinceMs : 0)
    const verdict = judge({ job, pods }, { ageOf, startGraceMs: tracked.listener.startGraceMs(known.job) })
    if (verdict.kind !== 'going') {
      // The two watches race: the Job may have ended here before its pod has. Who knows less than all looks first.
      if (!tracked.hasLooked && !knowsAll(verdict)) {
        this.#look(name, true)
        return
      }
      this.#drop(name, tracked)
      tracked.listener.onVerdict(verdict)
      return
    }
    this.#noteCause(name, tracked, verdict.cause, nowMs)
  }

  #noteCause(name: string, tracked: Tracked, cause: Cause | undefined, nowMs: number): void {
    if (cause?.key !== tracked.cause?.key) tracked.causeSinceMs = nowMs
    tracked.cause = cause
    clearTimeout(tracked.timer)
    if (!cause) return
    tracked.timer = setTimeout(() => this.#judge(name), recheckMs)
    if (cause.text === '' || tracked.told.has(cause.key)) return
    tracked.told.add(cause.key)
    if (cause.key === 'no-pod') this.#explainMissingPod(name, tracked, cause.text)
    else tracked.listener.onCause(cause.text)
  }

  /** The Job controller says why only in events, a moment later; they are asked for while it has no pod. */
  #explainMissingPod(name: string, tracked: Tracked, text: string): void {
    const { client, namespace, rights, logger } = this.#options
    this.#scope?.spawn(async signal => {
      let reason: string | undefined
      for (const pauseMs of [0, 5_000, 20_000]) {
        await sleep(pauseMs, signal)
        if (signal.aborted || this.#tracked.get(name) !== tracked || tracked.cause?.key !== 'no-pod') return
        reason = await readJobFailures({ client, namespace, rights, logger }, name, signal)
        if (reason) break
      }
      if (this.#tracked.get(name) === tracked) tracked.listener.onCause(reason ? `${text}: ${reason}` : text)
    })
  }

  /** Asks for the Job and its pods themselves. */
  #look(name: string, isAtEnd = false): void {
    const tracked = this.#tracked.get(name)
    if (!tracked) return
    if (tracked.isLooking) {
      tracked.looksAgain ||= isAtEnd
      return
    }
    tracked.isLooking = true
    this.#scope?.spawn(async signal => {
      try {
        await this.#lookOnce(name, tracked, isAtEnd, signal)
        while (tracked.looksAgain) {
          tracked.looksAgain = false
          await this.#lookOnce(name, tracked, true, signal)
        }
      } catch (error) {
        if (!signal.aborted) throw error
      } finally {
        tracked.isLooking = false
      }
    })
  }

  async #lookOnce(name: string, tracked: Tracked, isAtEnd: boolean, signal: AbortSignal): Promise<void> {
    const { client, namespace, logger, agent, rights } = this.#options
    const read = async (path: string, query = {}) => {
      try {
        return await patiently(() => client.call('GET', path, { query }, signal), { logger }, signal)
      } catch (error) {
        signal.throwIfAborted()
        if (isRefusal(error, 404)) return undefined
        if (!isRefusal(error, 403)) throw error
        rights.noteMissing(path.includes('/pods') ? 'list pods' : 'list jobs', namespace)
        return null
      }
    }
    const answer = await read(`/apis/batch/v1/namespaces/${namespace}/jobs/${name}`)
    tracked.hasLooked ||= isAtEnd
    if (answer === null) return this.#judge(name)
    const labelSelector = `${selectorOf(agent)},job-name=${name}`
    const list = await read(`/api/v1/namespaces/${namespace}/pods`, { labelSelector })
    if (this.#tracked.get(name) !== tracked) return
    const known = this.#entry(name)
    const job = readJob(answer)
    if (job) known.job = job
    // Only this answer says that it is gone.
    known.isGone = answer === undefined
    for (const item of itemsOf(list)) {
      const pod = readPod(item)
      if (pod) known.pods.set(pod.metadata.uid, pod)
    }
    this.#judge(name)
  }
}

function knowsAll(verdict: Exclude<Verdict, { kind: 'going' }>): boolean {
  if (verdict.kind === 'vanished' || !verdict.pod || !hasEnded(verdict.pod)) return false
  return verdict.end.statusCode !== undefined || verdict.end.signal !== undefined
}

function itemsOf(list: unknown): readonly unknown[] {
  if (typeof list !== 'object' || list === null || !('items' in list) || !Array.isArray(list.items)) return []
  return list.items
}

function isFinal({ status }: PodView): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed'
}

function hasEnded(pod: PodView): boolean {
  return isFinal(pod) || Boolean(mainContainer(pod).status?.state?.terminated)
}
