// Sources -> due flow runs. Asks each work queue for what is due, leaves out what is not ours to start, and pages on when
// a whole page is of that kind, so that one blocked deployment starves nobody.

import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { ApiError } from '../prefect/errors.ts'
import type { FlowRun, WorkQueue } from '../prefect/types.ts'
import { SharedReads } from './assignment.ts'
import type { Complaints } from './complaints.ts'

/** One run to start, with what may be read once for all runs of the same answer. */
export interface DueRun {
  readonly run: FlowRun
  readonly shared: SharedReads
}

export interface PollOptions {
  /** Queues by name, created when missing, as Prefect's agent does. */
  readonly names: readonly string[]
  /** Prefixes of queue names; queues found by them are never created. */
  readonly prefixes: readonly string[]
  /** How far ahead of its time a run may be taken. */
  readonly prefetchSeconds: number
}

/** How many due runs a poll is made for. */
export interface Appetite {
  /** At most so many are taken. */
  readonly wanted: number
  /** With so many it is content; when a full page has fewer that can be started, it looks behind that page. */
  readonly needed: number
}

export interface Due {
  /** Earliest first. */
  readonly runs: DueRun[]
  /** There are more behind these. */
  readonly mayHaveMore: boolean
}

/** The server refuses a larger page. */
export const largestPage = 200
/** Queues are looked up again after this: paused or not is only for the log, the server itself answers accordingly. */
const queuesFreshMs = 60_000
/** A run that was refused or given back is left alone for a while: it is most likely somebody else's by now. */
const avoidMs = 60_000

export class Poll {
  readonly #client: PrefectClient
  readonly #options: PollOptions
  readonly #complaints: Complaints
  readonly #logger: Logger
  #queues: readonly WorkQueue[] = []
  #queuesAt = Number.NEGATIVE_INFINITY
  readonly #avoided = new Map<string, number>()

  constructor(client: PrefectClient, options: PollOptions, complaints: Complaints, logger: Logger) {
    this.#client = client
    this.#options = options
    this.#complaints = complaints
    this.#logger = logger
  }

  get queues(): readonly WorkQueue[] {
    return this.#queues
  }

  /** Leaves this run to others for a minute. */
  avoid(flowRunId: string, forMs = avoidMs): void {
    this.#avoided.set(flowRunId, performance.now() + forMs)
  }

  /**
   * Due runs of all queues. `isKnown` tells which runs are in the journal already.
   * Never throws for what the API answers: a queue that fails is complained about, the others go on.
   */
  async due(appetite: Appetite, isKnown: (flowRunId: string) => boolean, signal: AbortSignal): Promise<Due> {
    this.#forgetAvoided()
    await this.#refreshQueues(signal)
    const shared = new SharedReads()
    const due = new Map<string, FlowRun>()
    let mayHaveMore = false
    for (const queue of this.#queues) {
      if (signal.aborted) break
      try {
        const found = await this.#dueInQueue(queue, appetite, isKnown, signal)
        for (const run of found.runs) due.set(run.id, run)
        mayHaveMore ||= found.isFull && found.runs.length > 0
        this.#complaints.settle(`queue ${queue.name}`, 'work queue answers again')
      } catch (error) {
        if (signal.aborted) break
        this.#complaints.say(`queue ${queue.name}`, 'could not poll the work queue', {
          work_queue: queue.name,
          err: error,
        })
      }
    }
    const earliest = [...due.values()].sort((a, b) => scheduledAt(a) - scheduledAt(b)).slice(0, appetite.wanted)
    return {
      runs: earliest.map(run => ({ run, shared })),
      mayHaveMore: mayHaveMore || due.size > earliest.length,
    }
  }

  async #dueInQueue(
    queue: WorkQueue,
    { wanted, needed }: Appetite,
    isKnown: (flowRunId: string) => boolean,
    signal: AbortSignal,
  ): Promise<{ runs: readonly FlowRun[]; isFull: boolean }> {
    const prefetchMs = this.#options.prefetchSeconds * 1000
    const scheduledBefore = new Date(this.#client.serverNow().getTime() + prefetchMs).toISOString()
    const isOurs = (run: FlowRun) => !isKnown(run.id) && !this.#avoided.has(run.id) && isStartable(run, queue)
    let limit = Math.min(largestPage, wanted + this.#avoided.size)
    for (;;) {
      const page = await this.#client.getRunsInWorkQueue(queue.id, { limit, scheduledBefore }, signal)
      if (page === undefined) {
        this.#queuesAt = Number.NEGATIVE_INFINITY // it was deleted; look it up (and create it) next time
        return { runs: [], isFull: false }
      }
      const ours = page.filter(isOurs)
      const isFull = page.length >= limit
      this.#logger.debug({ work_queue: queue.name, due: page.length, startable: ours.length }, 'polled')
      if (!isFull || ours.length >= needed) return { runs: ours, isFull }
      if (limit === largestPage) {
        const blocked = page.filter(run => !isOurs(run)).map(run => run.id)
        const behind = await this.#dueBehind(queue, blocked, scheduledBefore, signal)
        return { runs: [...ours, ...behind.filter(isOurs)], isFull }
      }
      limit = largestPage
    }
  }

  /** The queue's own route knows no offset; behind a full page of runs that cannot be started, the run filter does. */
  #dueBehind(queue: WorkQueue, blocked: readonly string[], before: string, signal: AbortSignal): Promise<FlowRun[]> {
    if (blocked.length === 0) return Promise.resolve([])
    return this.#client.readFlowRuns(
      {
        flow_runs: {
          id: { not_any_: blocked },
          state: { type: { any_: ['SCHEDULED'] } },
          next_scheduled_start_time: { before_: before },
        },
        work_pool_queues: { id: { any_: [queue.id] } },
        sort: 'NEXT_SCHEDULED_START_TIME_ASC',
        limit: largestPage,
      },
      signal,
    )
  }

  async #refreshQueues(signal: AbortSignal): Promise<void> {
    if (performance.now() - this.#queuesAt < queuesFreshMs) return
    try {
      const { named, areAll } = await this.#readNamed(signal)
      const matched = this.#options.prefixes.length > 0 ? await this.#readMatching(signal) : []
      this.#announce([...named, ...matched])
      if (areAll) this.#queuesAt = performance.now()
      this.#complaints.settle('queues', 'work queues are known again')
    } catch (error) {
      if (!signal.aborted) this.#complaints.say('queues', 'could not look up the work queues', { err: error })
    }
  }

  /** One that is refused by its name does not keep the others from being polled. */
  async #readNamed(signal: AbortSignal): Promise<{ named: WorkQueue[]; areAll: boolean }> {
    const named: WorkQueue[] = []
    let areAll = true
    for (const name of this.#options.names) {
      try {
        const queue = (await this.#client.readWorkQueueByName(name, signal)) ?? (await this.#createQueue(name, signal))
        if (queue) named.push(queue)
        this.#complaints.settle(`queue name ${name}`, 'work queue is known now')
      } catch (error) {
        if (!isAboutName(error)) throw error
        areAll = false
        named.push(...this.#queues.filter(queue => queue.name === name))
        const fields = { work_queue: name, err: error }
        this.#complaints.say(`queue name ${name}`, 'could not look up or make the work queue', fields)
      }
    }
    return { named, areAll }
  }

  async #createQueue(name: string, signal: AbortSignal): Promise<WorkQueue | undefined> {
    const created = await this.#client.createWorkQueue({ name }, signal)
    this.#logger.info({ work_queue: name }, 'work queue created')
    return created
  }

  async #readMatching(signal: AbortSignal): Promise<WorkQueue[]> {
    const named = new Set(this.#options.names)
    const matched = await this.#client.matchWorkQueues(this.#options.prefixes, signal)
    return matched.filter(queue => !named.has(queue.name))
  }

  #announce(queues: readonly WorkQueue[]): void {
    const before = new Map(this.#queues.map(queue => [queue.id, queue]))
    for (const queue of queues) {
      const known = before.get(queue.id)
      if (!known) this.#logger.info({ work_queue: queue.name, paused: queue.is_paused ?? false }, 'polling work queue')
      else if (known.is_paused !== queue.is_paused) {
        this.#logger.info(
          { work_queue: queue.name },
          queue.is_paused ? 'work queue is paused' : 'work queue is resumed',
        )
      }
      before.delete(queue.id)
    }
    for (const gone of before.values()) this.#logger.info({ work_queue: gone.name }, 'work queue is gone')
    this.#queues = queues
  }

  #forgetAvoided(): void {
    const now = performance.now()
    for (const [flowRunId, until] of this.#avoided) if (until < now) this.#avoided.delete(flowRunId)
  }
}

/** Not what an outage, a wrong key or a server that is pressed for time answers to each name. */
function isAboutName(error: unknown): boolean {
  return error instanceof ApiError && (error.isFinal || error.status === 403 || error.status === 404)
}

/**
 * Runs that wait for a retry inside a living engine are shown as due as well; starting one would double it. And the
 * server matches queues by name across pools: a run of another pool's queue belongs to that pool's workers.
 */
function isStartable(run: FlowRun, queue: WorkQueue): boolean {
  if (run.state_type !== 'SCHEDULED') return false
  if (run.empirical_policy?.retry_type === 'in_process') return false
  return run.work_pool_name === null || queue.work_pool_name === null || run.work_pool_name === queue.work_pool_name
}

function scheduledAt(run: FlowRun): number {
  const at = Date.parse(run.next_scheduled_start_time ?? run.expected_start_time ?? '')
  return Number.isNaN(at) ? Number.POSITIVE_INFINITY : at
}
