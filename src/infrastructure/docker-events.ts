// Waits for containers to end: one event stream per engine, whatever the number of containers.
//
// Events are hints and inspect is the truth: an event, a gap in the stream or the list that is read every few seconds
// only make a waiter look again. So a stream that is cut, silent or lying costs at most one such interval.

import type { Readable } from 'node:stream'
import * as v from 'valibot'
import { Scope } from '../async/scope.ts'
import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ContainerInfo } from './docker-answers.ts'
import { label, labelVersion } from './docker-create.ts'
import type { DockerEngine } from './docker-engine.ts'
import { parseJson, readLines } from './docker-json-lines.ts'
import { EngineError } from './docker-transport.ts'

/** How often the list of running containers is compared with those that are waited for, in milliseconds. */
const reconcileMs = 5_000

/**
 * A stream that is only cut stands again at once. An engine that starts takes connections and answers none of them while it
 * ends what it finds running: nothing is refused then, and the gap alone tells. In milliseconds.
 */
const awayAfterMs = 2_000

/** Ends of containers that nobody waited for yet are remembered for so many, the latest of them. */
const earlyEnds = 200

/** What was noticed while a container was watched, beyond what inspect can tell when it is over. */
export interface Hints {
  /** Signals that were sent through the engine's API, by whomever, as numbers, in order. */
  readonly signals: readonly string[]
  /** The engine was away for a while, so it may have been restarted. */
  readonly engineWasAway: boolean
}

export interface Ended extends Hints {
  /** Undefined: the engine does not know it any more. */
  readonly info: ContainerInfo | undefined
}

export interface WatchOptions {
  /** Called once, with the first look at the container. */
  readonly onSight: (info: ContainerInfo) => void
  /** For so many milliseconds only an event makes us look: what ends within them costs one look instead of two. */
  readonly restMs: number
}

interface Watched {
  readonly signals: string[]
  engineWasAway: boolean
  /** Replaced by each look; resolving it asks for another. */
  look: PromiseWithResolvers<void>
}

const eventSchema = v.object({
  Action: v.string(),
  Actor: v.object({ ID: v.string(), Attributes: v.nullish(v.record(v.string(), v.string()), {}) }),
})

export class EndWatch {
  readonly #engine: DockerEngine
  readonly #logger: Logger
  readonly #watched = new Map<string, Set<Watched>>()
  /** Ids of what ended between its start's answer and the wait for it. */
  readonly #early = new Set<string>()
  #listening: Scope | undefined
  /** Since when there is no event stream, where there was one. */
  #lostAt: number | undefined

  constructor(engine: DockerEngine, logger: Logger) {
    this.#engine = engine
    this.#logger = logger
  }

  /**
   * Resolves when the container does not run any more, or is gone. An engine that is away is waited for. Rejects with the
   * signal's reason when the signal is aborted.
   */
  async ended(id: string, { onSight, restMs }: WatchOptions, signal: AbortSignal): Promise<Ended> {
    const watched: Watched = { signals: [], engineWasAway: false, look: Promise.withResolvers() }
    const listening = this.#join(id, watched)
    try {
      if (!this.#early.delete(id)) await rest(watched.look.promise, restMs, AbortSignal.any([signal, listening.signal]))
      signal.throwIfAborted()
      for (let seen = false; ; ) {
        watched.look = Promise.withResolvers()
        const info = await this.#inspect(id, watched, signal)
        if (info && !seen) onSight(info)
        seen ||= info !== undefined
        if (!info || !isAlive(info)) {
          this.#noteGap()
          return { ...watched, info }
        }
        await untilAsked(watched.look.promise, AbortSignal.any([signal, listening.signal]))
        signal.throwIfAborted()
        // The listener never ends by itself while it has somebody to serve, unless it has a bug, which is then thrown.
        if (listening.signal.aborted) await listening.join()
      }
    } finally {
      await this.#leave(id, watched)
    }
  }

  async #inspect(id: string, watched: Watched, signal: AbortSignal): Promise<ContainerInfo | undefined> {
    for (let pauseMs = 250; ; pauseMs = Math.min(pauseMs * 2, reconcileMs)) {
      try {
        return await this.#engine.inspect(id, signal)
      } catch (error) {
        if (!(error instanceof EngineError)) throw error
        if (error.kind === 'unreachable') watched.engineWasAway = true
        this.#logger.warn(
          { container: id.slice(0, 12), err: describeError(error) },
          'cannot look at container, trying again',
        )
        await sleep(jitter(pauseMs, 0.2), signal)
        signal.throwIfAborted()
      }
    }
  }

  #join(id: string, watched: Watched): Scope {
    const all = this.#watched.get(id) ?? new Set()
    this.#watched.set(id, all.add(watched))
    if (!this.#listening) {
      this.#listening = new Scope()
      this.#listening.spawn(signal => this.#listen(signal))
      this.#listening.spawn(signal => this.#reconcileOften(signal))
    }
    return this.#listening
  }

  async #leave(id: string, watched: Watched): Promise<void> {
    const all = this.#watched.get(id)
    all?.delete(watched)
    if (all?.size === 0) this.#watched.delete(id)
    if (this.#watched.size > 0) return
    const listening = this.#listening
    this.#listening = undefined
    this.#lostAt = undefined
    this.#early.clear()
    await listening?.[Symbol.asyncDispose]()
  }

  async #listen(signal: AbortSignal): Promise<void> {
    for (let pauseMs = 100; !signal.aborted; ) {
      try {
        const stream = await this.#engine.events(`${label.version}=${labelVersion}`, signal)
        this.#noteGap()
        this.#lostAt = undefined
        // Something may have ended before the stream stood.
        await this.#reconcile(signal)
        pauseMs = 100
        await this.#readEvents(stream)
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof EngineError && error.kind === 'unreachable') this.#noteAbsence()
        this.#logger.debug({ err: describeError(error) }, 'docker event stream ended, listening again')
      }
      this.#lostAt ??= performance.now()
      await sleep(jitter(pauseMs, 0.2), signal)
      pauseMs = Math.min(pauseMs * 2, reconcileMs)
    }
  }

  async #readEvents(stream: Readable): Promise<void> {
    for await (const line of readLines(stream)) {
      const event = v.safeParse(eventSchema, parseJson(line))
      if (!event.success) continue
      const { Action, Actor } = event.output
      if (Action === 'die' && !this.#watched.has(Actor.ID)) this.#noteEarly(Actor.ID)
      for (const watched of this.#watched.get(Actor.ID) ?? []) {
        if (Action === 'kill' && Actor.Attributes.signal) watched.signals.push(Actor.Attributes.signal)
        if (Action === 'die' || Action === 'destroy' || Action === 'remove') watched.look.resolve()
      }
    }
  }

  #noteEarly(id: string): void {
    this.#early.add(id)
    if (this.#early.size > earlyEnds) for (const oldest of this.#early) return void this.#early.delete(oldest)
  }

  async #reconcileOften(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(jitter(reconcileMs, 0.1), signal)
      if (signal.aborted) return
      await this.#reconcile(signal).catch(error => {
        if (signal.aborted) return
        if (!(error instanceof EngineError)) throw error
        if (error.kind === 'unreachable') this.#noteAbsence()
      })
    }
  }

  /** One call for all: what is waited for and not in the list of what runs is looked at. */
  async #reconcile(signal: AbortSignal): Promise<void> {
    const before = [...this.#watched]
    const running = new Set((await this.#engine.list([label.version], false, signal)).map(container => container.Id))
    for (const [id, all] of before) {
      if (!running.has(id)) for (const watched of all) watched.look.resolve()
    }
  }

  #noteGap(): void {
    if (this.#lostAt !== undefined && performance.now() - this.#lostAt > awayAfterMs) this.#noteAbsence()
  }

  #noteAbsence(): void {
    for (const all of this.#watched.values()) for (const watched of all) watched.engineWasAway = true
  }
}

/** Paused and restarting containers have not ended; a created one has, in that nothing of it runs. */
export function isAlive(info: ContainerInfo): boolean {
  return (
    info.State.Running || info.State.Paused || info.State.Status === 'restarting' || info.State.Status === 'removing'
  )
}

/** Resolves when asked to look, when the time is over, or when the signal is aborted. */
async function rest(asked: Promise<void>, ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await untilAsked(Promise.race([asked, promise]), signal)
  clearTimeout(timer)
}

/** Resolves when asked to look again, or when the signal is aborted. */
async function untilAsked(asked: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const onAbort = () => resolve()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([asked, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
