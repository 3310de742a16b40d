// What following a container's output is everywhere: chunks of a stream that may get stuck, and lines that are handed on once,
// with a position on disk behind each batch.
//
// In: streams, lines. Out: lines to an OutputSink, the last of them for the exit. How a driver opens its streams, takes them
// apart and judges their trouble is its own.

import type { Readable } from 'node:stream'
import { shortenText } from '../cut-text.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { OutputSink } from './infrastructure.ts'
import { type LogPosition, logStart, type PositionCounter, readPosition, writePosition } from './log-position.ts'

/** Of the lines that are kept for the exit, see `Exited.outputTail`. */
export const tailLines = 20
const longestTailLine = 1_000

/** The last of these lines, as they are kept for the exit. */
export function tailOf(lines: readonly string[]): string[] {
  return lines.slice(-tailLines).map(line => shortenText(line, longestTailLine))
}

/** Tells trouble of the receiver from trouble of the stream. */
class OutputError extends Error {}

export interface DeliveryOptions {
  /** File that keeps how far the output has been shipped. */
  readonly positionPath: string
  readonly output: OutputSink
  readonly logger: Logger
}

/** Hands lines on, and remembers how far. */
export class LogDelivery {
  readonly #options: DeliveryOptions
  #position: LogPosition = logStart
  #tail: string[] = []

  constructor(options: DeliveryOptions) {
    this.#options = options
  }

  /** Behind what has been shipped; of an earlier life of the agent once `resume` has been called. */
  get position(): LogPosition {
    return this.#position
  }

  /** The last lines that were shipped in this life of the agent, at most 20. */
  get tail(): readonly string[] {
    return this.#tail
  }

  /** True when an earlier life has shipped nothing, so that `tail` will be all there is. */
  async resume(): Promise<boolean> {
    this.#position = await readPosition(this.#options.positionPath)
    return this.#position.count === 0
  }

  /** `counter` has taken these lines; `carry` is what a line has left over for its rest. */
  async deliver(lines: readonly string[], counter: PositionCounter, carry = logStart.carry): Promise<void> {
    if (lines.length === 0) return
    const { output, positionPath, logger } = this.#options
    this.#tail = [...this.#tail, ...tailOf(lines)].slice(-tailLines)
    try {
      await output(lines)
    } catch (cause) {
      throw new OutputError('The output could not be handed on', { cause })
    }
    this.#position = { ...counter.position(performance.now()), carry }
    await writePosition(positionPath, this.#position).catch(error => {
      // A full disk must not end the watch over a run; the price is lines shown twice after a restart of the agent.
      logger.warn({ err: describeError(error) }, 'how far output was shipped could not be noted')
    })
  }
}

export interface ReadRequest {
  readonly open: (signal: AbortSignal) => Promise<Readable>
  /** Undefined: that was all. */
  readonly take: (chunk: Buffer | undefined) => Promise<void>
}

/** Reads one stream after the other; once the container has ended, one that is silent for too long is left. */
export class StreamReading {
  readonly #stuckMs: number
  readonly #toLost: (cause: unknown) => Error
  #hasEnded = false
  #reading: { readonly leave: AbortController; isWaiting: boolean; stuck: NodeJS.Timeout | undefined } | undefined

  /** `stuckMs`: how long silence is borne; `toLost` makes the driver's error of a stream that broke off. */
  constructor(stuckMs: number, toLost: (cause: unknown) => Error) {
    this.#stuckMs = stuckMs
    this.#toLost = toLost
  }

  /** To be called when the container has ended. */
  noteEnd(): void {
    this.#hasEnded = true
    this.#watchForStuck()
  }

  /** Rejects with what `open` rejects with, `toLost`, the receiver's own error, or the signal's reason. */
  async read({ open, take }: ReadRequest, signal: AbortSignal): Promise<void> {
    const leave = new AbortController()
    const stream = await open(AbortSignal.any([signal, leave.signal]))
    this.#reading = { leave, isWaiting: false, stuck: undefined }
    try {
      const chunks = stream[Symbol.asyncIterator]()
      for (;;) {
        this.#setWaiting(true)
        const next = await chunks.next()
        this.#setWaiting(false)
        if (next.done) break
        await take(next.value)
      }
      await take(undefined)
    } catch (cause) {
      signal.throwIfAborted()
      if (cause instanceof OutputError) throw cause.cause
      throw this.#toLost(cause)
    } finally {
      clearTimeout(this.#reading.stuck)
      this.#reading = undefined
      stream.destroy()
    }
  }

  #setWaiting(isWaiting: boolean): void {
    if (!this.#reading) return
    this.#reading.isWaiting = isWaiting
    clearTimeout(this.#reading.stuck)
    this.#watchForStuck()
  }

  #watchForStuck(): void {
    const reading = this.#reading
    if (!reading?.isWaiting || !this.#hasEnded) return
    reading.stuck = setTimeout(() => reading.leave.abort(new Error('the output stream is stuck')), this.#stuckMs)
  }
}
