// Clears away finished containers beside the runs: when one has ended, but not more often than once a minute; and now and
// then when none ends, for what is kept grows old all the same.
//
// What could not be done is done another time, and no run waits for it.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Scope } from '../async/scope.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { CleanupRules, Collectable, CollectRequest } from './infrastructure.ts'

const everyMs = 60_000
const idleSeconds = 3_600

export interface SweepOptions {
  readonly rules: CleanupRules
  /** Holds one folder for each run that the journal knows. */
  readonly runsDirectory: string
  readonly collect: (request: CollectRequest, signal: AbortSignal) => Promise<readonly Collectable[]>
  readonly logger: Logger
  /** How long no run may have ended before one looks all the same; default an hour. */
  readonly idleSeconds?: number | undefined
}

export class Sweep implements AsyncDisposable {
  readonly #options: SweepOptions
  readonly #scope = new Scope()
  #sweptAtMs = Number.NEGATIVE_INFINITY
  #idle: NodeJS.Timeout | undefined

  constructor(options: SweepOptions) {
    this.#options = options
  }

  /** To be called when there is a run of this agent, for then it may leave something. Keeps no process alive. */
  noteRun(agentPrefix: string): void {
    const look = () => this.#scope.spawn(stop => this.#sweep(agentPrefix, stop))
    this.#idle ??= setInterval(look, 1000 * (this.#options.idleSeconds ?? idleSeconds)).unref()
  }

  /** To be called when a run of this agent has ended; returns at once. */
  noteEnd(agentPrefix: string, signal: AbortSignal): void {
    const now = performance.now()
    if (now - this.#sweptAtMs < everyMs) return
    this.#sweptAtMs = now
    this.#idle?.refresh()
    this.#scope.spawn(stop => this.#sweep(agentPrefix, AbortSignal.any([signal, stop])))
  }

  async #sweep(agentPrefix: string, signal: AbortSignal): Promise<void> {
    const { rules, runsDirectory, collect, logger } = this.#options
    const isHeld = (flowRunId: string) => existsSync(join(runsDirectory, flowRunId))
    try {
      const removed = await collect({ ...rules, agentPrefix, isHeld, dryRun: false }, signal)
      if (removed.length > 0) logger.info({ removed: removed.length }, 'what has ended was cleared away')
    } catch (error) {
      if (!signal.aborted) logger.warn({ err: describeError(error) }, 'what has ended could not be cleared away')
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#idle)
    return this.#scope[Symbol.asyncDispose]()
  }
}
