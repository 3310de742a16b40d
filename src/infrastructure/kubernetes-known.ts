// What two watches (Jobs, pods) have shown of one agent's Jobs in one namespace, kept by the Job's name.
//
// In: lists and events as they came. Out: small views of the Jobs that are tracked and of those that are not over yet; the
// rest costs nothing. Who is told of a change asks for the view again.

import {
  isJobOver,
  type JobView,
  jobNameOf,
  mainContainer,
  type PodView,
  readJob,
  readPod,
} from './kubernetes-objects.ts'

export interface Known {
  job: JobView | undefined
  /** The API server has said that there is no such Job. */
  isGone: boolean
  readonly pods: Map<string, PodView>
}

export interface KnownHooks {
  /** Somebody waits for this Job. */
  isTracked(name: string): boolean
  /** Names of all of them. */
  tracked(): Iterable<string>
  onChange(name: string): void
  /** A tracked Job was not in a list, or is said to be deleted: to be looked for before that is believed. */
  onMissing(name: string): void
}

export class KnownJobs {
  readonly #hooks: KnownHooks
  readonly #known = new Map<string, Known>()

  constructor(hooks: KnownHooks) {
    this.#hooks = hooks
  }

  get(name: string): Known | undefined {
    return this.#known.get(name)
  }

  forget(name: string): void {
    this.#known.delete(name)
  }

  clear(): void {
    this.#known.clear()
  }

  /** A Job as an answer to a call of ours showed it. */
  note(job: JobView): void {
    this.#entry(job.metadata.name).job = job
  }

  /** What was answered to a look at one Job: undefined when there is none; and those of its pods that there are. */
  noteLook(name: string, answer: unknown, pods: readonly unknown[]): void {
    const known = this.#entry(name)
    known.job = readJob(answer) ?? known.job
    // Only this answer says that it is gone.
    known.isGone = answer === undefined
    for (const item of pods) {
      const pod = readPod(item)
      if (pod) known.pods.set(pod.metadata.uid, pod)
    }
  }

  takeJob(type: string, object: unknown): void {
    const job = readJob(object)
    if (!job) return
    const { name } = job.metadata
    if (type === 'DELETED') {
      if (this.#hooks.isTracked(name)) this.#hooks.onMissing(name)
      else this.#known.delete(name)
      return
    }
    if (!this.#hooks.isTracked(name) && isJobOver(job)) {
      this.#known.delete(name)
      return
    }
    this.#entry(name).job = job
    this.#hooks.onChange(name)
  }

  replaceJobs(objects: readonly unknown[]): void {
    const seen = new Set<string>()
    for (const object of objects) {
      const job = readJob(object)
      if (job) seen.add(job.metadata.name)
      this.takeJob('MODIFIED', object)
    }
    // A list that was asked for before the Job was made does not have it either.
    for (const name of this.#hooks.tracked()) if (!seen.has(name)) this.#hooks.onMissing(name)
    for (const name of this.#known.keys()) {
      if (!seen.has(name) && !this.#hooks.isTracked(name)) this.#known.delete(name)
    }
  }

  takePod(type: string, object: unknown): void {
    const pod = readPod(object)
    const name = pod && jobNameOf(pod)
    if (!pod || name === undefined) return
    const known = this.#known.get(name)
    // Its Job is over, or was never ours to follow.
    if (!known && !this.#hooks.isTracked(name) && isFinal(pod)) return
    const { pods } = known ?? this.#entry(name)
    // How a removed pod has ended stays known, as long as its Job is looked after.
    if (type === 'DELETED' && !hasEnded(pod)) pods.delete(pod.metadata.uid)
    else pods.set(pod.metadata.uid, pod)
    this.#hooks.onChange(name)
  }

  replacePods(objects: readonly unknown[]): void {
    const seen = new Set<string>()
    for (const object of objects) {
      const pod = readPod(object)
      if (pod) seen.add(pod.metadata.uid)
      this.takePod('MODIFIED', object)
    }
    for (const [name, { pods }] of this.#known) {
      const gone = [...pods.values()].filter(pod => !seen.has(pod.metadata.uid) && !hasEnded(pod))
      for (const pod of gone) pods.delete(pod.metadata.uid)
      if (gone.length > 0) this.#hooks.onChange(name)
    }
  }

  #entry(name: string): Known {
    const known = this.#known.get(name) ?? { job: undefined, isGone: false, pods: new Map() }
    this.#known.set(name, known)
    return known
  }
}

/** The pod's flow has come to its end. */
export function hasEnded(pod: PodView): boolean {
  return isFinal(pod) || Boolean(mainContainer(pod).status?.state?.terminated)
}

function isFinal({ status }: PodView): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed'
}
