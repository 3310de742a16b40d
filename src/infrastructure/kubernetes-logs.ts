// Ships the output of a run's pods to the agent: each line once, in order, over cut connections and lives of the agent.
//
// In: pods as they come, one after the other when a Job makes more than one. Out: batches of lines to an OutputSink, a
// position on disk behind each, the last lines. A stream is a hint: it is opened again where it broke, and read to its end
// once the container has ended.

import type { IncomingMessage } from 'node:http'
import { jitter, sleep } from '../async/sleep.ts'
import { Wake } from '../async/wake.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { OutputSink } from './infrastructure.ts'
import { type ClusterClient, ClusterError, isRefusal } from './kubernetes-client.ts'
import { type LogLine, LogLineReader, toSinceTime } from './kubernetes-log-lines.ts'
import type { Rights } from './kubernetes-rights.ts'
import { LogDelivery, StreamReading, tailLines, tailOf } from './log-follow.ts'
import { PositionCounter } from './log-position.ts'

/** Once the container has ended: how often the rest is asked for, and how long a stream may be silent. */
const lastTries = 3
const stuckMs = 3_000

export interface LogSource {
  readonly client: ClusterClient
  readonly namespace: string
  readonly rights: Rights
  readonly logger: Logger
}

export interface LogPod {
  readonly name: string
  readonly uid: string
  readonly container: string
}

/** One container's output. */
export class PodLog {
  readonly #source: LogSource
  readonly #pod: LogPod
  readonly #delivery: LogDelivery
  readonly #reading = new StreamReading(
    stuckMs,
    cause => new ClusterError('lost', 'The output stream broke off', { cause }),
  )
  readonly #ended = new Wake()
  #hasEnded = false
  #hasSeenAll = false

  /** `positionPath`: file that keeps how far the output of this pod has been shipped. */
  constructor(source: LogSource, pod: LogPod, positionPath: string, output: OutputSink) {
    this.#source = source
    this.#pod = pod
    this.#delivery = new LogDelivery({ positionPath, output, logger: source.logger })
  }

  /** The last lines that were shipped in this life of the agent, at most 20. */
  get tail(): readonly string[] {
    return this.#delivery.tail
  }

  /** Nothing was shipped by an earlier life of the agent, so `tail` is all there is. */
  get hasSeenAll(): boolean {
    return this.#hasSeenAll
  }

  /** To be called when the container has ended. */
  noteEnd(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#ended.ring()
    this.#reading.noteEnd()
  }

  /** Resolves when the container has ended and all of its output is shipped, or cannot be read; or at the signal. */
  async ship(signal: AbortSignal): Promise<void> {
    const isFirst = await this.#delivery.resume()
    let lastTry = 0
    for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 2, 5_000)) {
      const wasOver = this.#hasEnded
      try {
        await this.#readOnce(!wasOver, signal)
        if (wasOver) {
          this.#hasSeenAll = isFirst
          return
        }
        // A stream ends when the container does, a moment before that is known; or when the kubelet was restarted.
        await this.#ended.wait(1_000, signal)
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof ClusterError)) throw error
        lastTry += wasOver ? 1 : 0
        if (!this.#mayTryAgain(error, lastTry)) return
        await this.#ended.wait(jitter(pauseMs, 0.2), signal)
        // Once more than was waited for: an end that is known rings only once.
        if (wasOver) await sleep(jitter(300, 0.2), signal)
      }
    }
  }

  #mayTryAgain(error: ClusterError, lastTry: number): boolean {
    const { rights, namespace, logger } = this.#source
    if (isRefusal(error, 403)) {
      rights.noteMissing('get pods/log', namespace)
      return false
    }
    if (isRefusal(error, 404)) return false
    const log = logger.child({ pod: this.#pod.name, err: describeError(error) })
    if (lastTry >= lastTries) {
      log.warn('output of pod cannot be read')
      return false
    }
    log.debug('output stream broke, opening it again')
    return true
  }

  async #readOnce(follow: boolean, signal: AbortSignal): Promise<void> {
    const { position } = this.#delivery
    const { since } = position
    const counter = new PositionCounter(position)
    const reader = new LogLineReader()
    const query = { follow, sinceTime: since === '' ? undefined : toSinceTime(since) }
    const open = (stop: AbortSignal) => openLog(this.#source, this.#pod, query, stop)
    const take = (chunk: Buffer | undefined) => this.#take(chunk ? reader.push(chunk) : reader.end(), counter, since)
    await this.#reading.read({ open, take }, signal)
  }

  async #take(messages: readonly LogLine[], counter: PositionCounter, since: string): Promise<void> {
    const now = performance.now()
    const lines: string[] = []
    for (const { time, text } of messages) {
      // `sinceTime` knows whole seconds only; a line without a time is trouble of the kubelet's, told as it is.
      if (time !== '' && time < since) continue
      if (counter.take(time, now)) lines.push(text)
    }
    await this.#delivery.deliver(lines, counter)
  }
}

function openLog(
  { client, namespace }: LogSource,
  pod: LogPod,
  query: { readonly follow: boolean; readonly sinceTime?: string | undefined; readonly tailLines?: number },
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const path = `/api/v1/namespaces/${namespace}/pods/${pod.name}/log`
  return client.stream(path, { container: pod.container, timestamps: true, ...query }, signal)
}

/** The last lines of a container's output by one call, or none when they cannot be had. */
export async function readTail(source: LogSource, pod: LogPod, signal: AbortSignal): Promise<string[]> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(5_000)])
  try {
    const stream = await openLog(source, pod, { follow: false, tailLines }, limit)
    const reader = new LogLineReader()
    const lines: string[] = []
    for await (const chunk of stream) for (const { text } of reader.push(chunk)) lines.push(text)
    for (const { text } of reader.end()) lines.push(text)
    return tailOf(lines)
  } catch (error) {
    signal.throwIfAborted()
    if (isRefusal(error, 403)) source.rights.noteMissing('get pods/log', source.namespace)
    source.logger.debug({ pod: pod.name, err: describeError(error) }, 'no last lines of output')
    return []
  }
}
