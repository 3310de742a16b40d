// Knows how each run of one agent in one namespace stands: two watches (Jobs, pods) for all of them together.
//
// In: names of Jobs to look after. Out: a verdict for each, and what it waits for meanwhile.

import { Scope } from '../async/scope.ts'
import type { Logger } from '../logger.ts'
import { CauseTeller } from './kubernetes-causes.ts'
import { type ClusterClient, isRefusal } from './kubernetes-client.ts'
import { JobFailures } from './kubernetes-events.ts'
import { hasEnded, KnownJobs } from './kubernetes-known.ts'
import { selectorOf } from './kubernetes-labels.ts'
import type { JobView, PodView } from './kubernetes-objects.ts'
import { patiently } from './kubernetes-patience.ts'
import type { Rights } from './kubernetes-rights.ts'
import { judge, type Verdict } from './kubernetes-verdict.ts'
import { keepWatch, type WatchTimes } from './kubernetes-watch.ts'

/** While runs wait for something that time decides. */
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
  readonly causes: CauseTeller
  isLooking: boolean
  /** Once more, for what a look under way may have missed. */
  looksAgain: boolean
  /** Job and pods were asked for themselves, after this run's end was seen; an end that is taken back was none. */
  hasLooked: boolean
}

export class Tracker {
  readonly #options: TrackerOptions
  readonly #tracked = new Map<string, Tracked>()
  readonly #known = new KnownJobs({
    isTracked: name => this.#tracked.has(name),
    tracked: () => this.#tracked.keys(),
    onChange: name => this.#judge(name),
    onMissing: name => this.#look(name),
  })
  readonly #failures: JobFailures
  readonly #onFailure: (error: unknown) => void
  #scope: Scope | undefined
  #idle: NodeJS.Timeout | undefined
  #recheck: NodeJS.Timeout | undefined

  /** `onFailure`: a bug in the watch, which must not go unheard. */
  constructor(options: TrackerOptions, onFailure: (error: unknown) => void) {
    this.#options = options
    this.#failures = new JobFailures(options, name => this.#tracked.has(name))
    this.#onFailure = onFailure
  }

  /** A Job as an answer to a call of ours showed it, so that it need not be asked for again. */
  note(job: JobView): void {
    this.#known.note(job)
  }

  /** Until the returned function is called, or a verdict was given. */
  track(name: string, listener: Listener): () => void {
    const causes = new CauseTeller({
      onCause: text => listener.onCause(text),
      explain: signal => this.#failures.read(name, signal),
      spawn: work => this.#scope?.spawn(work),
    })
    const tracked: Tracked = { listener, causes, isLooking: false, looksAgain: false, hasLooked: false }
    this.#tracked.set(name, tracked)
    clearTimeout(this.#idle)
    this.#open()
    if (this.#known.get(name)?.job) this.#judge(name)
    else this.#look(name)
    return () => this.#drop(name, tracked)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const [name, tracked] of this.#tracked) this.#drop(name, tracked)
    clearTimeout(this.#idle)
    clearInterval(this.#recheck)
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
    const known = this.#known
    const jobs = {
      ...base,
      kind: 'jobs' as const,
      onList: (objects: readonly unknown[]) => known.replaceJobs(objects),
      onEvent: (type: string, object: unknown) => known.takeJob(type, object),
    }
    const pods = {
      ...base,
      kind: 'pods' as const,
      onList: (objects: readonly unknown[]) => known.replacePods(objects),
      onEvent: (type: string, object: unknown) => known.takePod(type, object),
    }
    for (const target of [jobs, pods]) scope.spawn(stop => keepWatch(target, stop))
    this.#recheck = setInterval(() => this.#judgeWaiting(), recheckMs)
    scope.join().catch(error => {
      if (!scope.signal.aborted || this.#scope === scope) this.#onFailure(error)
    })
  }

  #drop(name: string, tracked: Tracked): void {
    tracked.causes.close()
    if (this.#tracked.get(name) !== tracked) return
    this.#tracked.delete(name)
    this.#known.forget(name)
    if (this.#tracked.size > 0) return
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      const scope = this.#scope
      this.#scope = undefined
      clearInterval(this.#recheck)
      this.#known.clear()
      scope?.cancel()
    }, idleMs)
    this.#idle.unref()
  }

  #judgeWaiting(): void {
    for (const [name, { causes }] of this.#tracked) if (causes.isWaiting) this.#judge(name)
  }

  #judge(name: string): void {
    const tracked = this.#tracked.get(name)
    const known = this.#known.get(name)
    if (!tracked || !known || (!known.job && !known.isGone)) return
    const { listener, causes } = tracked
    const pods = [...known.pods.values()]
    const job = known.isGone ? undefined : known.job
    listener.onState(job, pods)
    const nowMs = performance.now()
    const ageOf = (key: string) => causes.ageOf(key, nowMs)
    const verdict = judge({ job, pods }, { ageOf, startGraceMs: listener.startGraceMs(known.job) })
    if (verdict.kind === 'going') {
      tracked.hasLooked = false
      causes.note(verdict.cause, nowMs)
      return
    }
    // The two watches race: the Job may have ended here before its pod has. Who knows less than all looks first.
    if (!tracked.hasLooked && !knowsAll(verdict)) {
      this.#look(name, true)
      return
    }
    this.#drop(name, tracked)
    listener.onVerdict(verdict)
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
    this.#known.noteLook(name, answer, itemsOf(list))
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
