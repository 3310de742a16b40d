// Ships one container's output to the agent: each line once, in order, over cut connections and lives of the agent.
//
// In: the engine's log stream. Out: batches of lines to an OutputSink, a position on disk behind each, the last lines.
// The stream is a hint: it is opened again where it broke, and read to its end once the container has ended.

import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { DockerEngine } from './docker-engine.ts'
import { LineJoiner } from './docker-lines.ts'
import { createLogReader, type LogMessage, type LogReader } from './docker-log-frames.ts'
import { EngineError } from './docker-transport.ts'
import type { OutputSink } from './infrastructure.ts'
import { LogDelivery, StreamReading, tailLines, tailOf } from './log-follow.ts'
import { PositionCounter } from './log-position.ts'

/** Once the container has ended: how long a stream may be silent before it is taken for stuck, in milliseconds. */
const stuckMs = 2_000
/** Once the container has ended: how often the rest is asked for. */
const lastTries = 3
/** Lines of one stream wait for the end of a long one in the other, but neither longer nor larger than this. */
const heldMs = 1_000
const heldCharacters = 262_144

export interface LogSource {
  readonly engine: DockerEngine
  readonly id: string
  readonly hasTerminal: boolean
  readonly logger: Logger
}

export class LogShipper {
  readonly #source: LogSource
  readonly #delivery: LogDelivery
  readonly #reading = new StreamReading(
    stuckMs,
    cause => new EngineError('lost', 'The output stream broke off', { cause }),
  )
  readonly #lines = new LineJoiner()
  readonly #ended = Promise.withResolvers<void>()
  #hasEnded = false
  #held: string[] = []
  #heldSinceMs = 0
  #heldCharacters = 0
  #hasSeenAll = false

  /** `positionPath`: file that keeps how far the output has been shipped. */
  constructor(source: LogSource, positionPath: string, output: OutputSink) {
    this.#source = source
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
    this.#hasEnded = true
    this.#ended.resolve()
    this.#reading.noteEnd()
  }

  /** Resolves when the container has ended and all of its output is shipped, or cannot be read; or at the signal. */
  async ship(signal: AbortSignal): Promise<void> {
    const isFirst = await this.#delivery.resume()
    let lastTry = 0
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 5_000)) {
      const wasOver = this.#hasEnded
      try {
        await this.#readOnce(!wasOver, signal)
        if (wasOver) return this.#noteWhole(isFirst)
        // The stream usually ends a moment before the container is known to have ended. Then it is read once more: an
        // engine that follows may leave out a last line without line end (seen with 20.10, one time in three).
        await Promise.race([this.#ended.promise, sleep(1_000, signal)])
      } catch (error) {
        if (signal.aborted) break
        if (!(error instanceof EngineError)) throw error
        lastTry += wasOver ? 1 : 0
        const log = this.#source.logger.child({ container: this.#source.id.slice(0, 12), err: describeError(error) })
        if (error.status === 404) return
        if (error.kind === 'refused' || lastTry >= lastTries) {
          // A log driver such as "none" keeps nothing to be read.
          log.warn('output of container cannot be read')
          await untilAborted(this.#ended.promise, signal)
          break
        }
        log.debug('output stream broke, opening it again')
        await sleep(jitter(pauseMs, 0.2), signal)
      }
      if (signal.aborted) break
    }
  }

  #noteWhole(isFirst: boolean): void {
    this.#hasSeenAll = isFirst
  }

  async #readOnce(follow: boolean, signal: AbortSignal): Promise<void> {
    const { engine, id, hasTerminal } = this.#source
    const { position } = this.#delivery
    const counter = new PositionCounter(position)
    this.#lines.reset(position.carry)
    this.#held = []
    let reader: LogReader | undefined
    const open = async (stop: AbortSignal) => {
      const stream = await engine.logs(id, { follow, timestamps: true, since: position.since || undefined }, stop)
      reader = createLogReader({ hasTerminal, isPodman: engine.isPodman })
      return stream
    }
    const take = async (chunk: Buffer | undefined) => {
      const messages = chunk ? reader?.push(chunk) : reader?.end()
      await this.#take(messages ?? [], counter, chunk === undefined)
    }
    await this.#reading.read({ open, take }, signal)
  }

  async #take(messages: readonly LogMessage[], counter: PositionCounter, isLast: boolean): Promise<void> {
    const now = performance.now()
    const lines: string[] = []
    for (const message of messages) {
      if (counter.take(message.time, now)) lines.push(...this.#lines.add(message))
    }
    if (isLast) lines.push(...this.#lines.flush(false))
    // In the midst of a long line, a position behind what comes from the other stream would skip the line's beginning.
    if (this.#lines.isOpen && !this.#isTooMuch(lines, now)) return
    if (this.#lines.isOpen) this.#held.push(...this.#lines.flush(true))
    else this.#held.push(...lines)
    const batch = this.#held
    this.#held = []
    this.#heldCharacters = 0
    await this.#delivery.deliver(batch, counter, this.#lines.carry)
  }

  /** Puts lines aside, and says whether they must not wait any longer. */
  #isTooMuch(lines: readonly string[], now: number): boolean {
    if (this.#held.length === 0) this.#heldSinceMs = now
    this.#held.push(...lines)
    for (const line of lines) this.#heldCharacters += line.length
    return this.#held.length > 0 && (now - this.#heldSinceMs > heldMs || this.#heldCharacters > heldCharacters)
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<void>()
  signal.addEventListener('abort', () => aborted.resolve(), { once: true })
  if (!signal.aborted) await Promise.race([promise, aborted.promise])
}

/** The last lines of a container's output by one call, or none when they cannot be had. */
export async function readTail(source: LogSource, signal: AbortSignal): Promise<string[]> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(5_000)])
  try {
    const query = { follow: false, timestamps: true, tail: tailLines }
    const stream = await source.engine.logs(source.id, query, limit)
    const reader = createLogReader({ hasTerminal: source.hasTerminal, isPodman: source.engine.isPodman })
    const joiner = new LineJoiner()
    const lines: string[] = []
    for await (const chunk of stream) for (const message of reader.push(chunk)) lines.push(...joiner.add(message))
    for (const message of reader.end()) lines.push(...joiner.add(message))
    return tailOf([...lines, ...joiner.flush(false)])
  } catch (error) {
    signal.throwIfAborted()
    source.logger.debug({ container: source.id.slice(0, 12), err: describeError(error) }, 'no last lines of output')
    return []
  }
}
