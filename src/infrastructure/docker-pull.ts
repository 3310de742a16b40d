// Pulls images: once for all runs that wait for the same one, with progress in the log, and with patience for trouble
// that passes.
//
// In: reference and login. Out: nothing, once the image is there; else an InfrastructureError with the registry's words.

import type { Readable } from 'node:stream'
import * as v from 'valibot'
import { jitter, sleep } from '../async/sleep.ts'
import type { Logger } from '../logger.ts'
import type { DockerEngine, RegistryAuth } from './docker-engine.ts'
import { isHostTrouble } from './docker-exit.ts'
import { readLines } from './docker-json-lines.ts'
import { parseReference } from './docker-reference.ts'
import { EngineError } from './docker-transport.ts'
import { InfrastructureError } from './infrastructure.ts'

/** Pauses before the second and third try, in milliseconds. */
const pausesMs = [1_000, 3_000] as const
const progressEveryMs = 10_000

const lineSchema = v.object({
  status: v.optional(v.string()),
  id: v.optional(v.string()),
  error: v.optional(v.string()),
  progressDetail: v.optional(v.object({ current: v.optional(v.number()), total: v.optional(v.number()) })),
})

interface Shared {
  readonly done: Promise<void>
  readonly stop: AbortController
  waiting: number
}

export class Pulls {
  readonly #engine: DockerEngine
  readonly #logger: Logger
  readonly #stallMs: number
  readonly #running = new Map<string, Shared>()

  /** `stallMs`: a pull without any progress for so long is given up. */
  constructor(options: { readonly engine: DockerEngine; readonly logger: Logger; readonly stallMs: number }) {
    this.#engine = options.engine
    this.#logger = options.logger
    this.#stallMs = options.stallMs
  }

  /** The pull goes on as long as anybody waits for it. */
  async pull(reference: string, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    // Another login may see another image, or none.
    const key = JSON.stringify([reference, auth])
    const shared = this.#running.get(key) ?? this.#begin(key, reference, auth)
    shared.waiting += 1
    const aborted = Promise.withResolvers<never>()
    const onAbort = () => aborted.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await Promise.race([shared.done, aborted.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
      shared.waiting -= 1
      if (shared.waiting === 0) {
        if (this.#running.get(key) === shared) this.#running.delete(key)
        shared.stop.abort()
      }
    }
  }

  #begin(key: string, reference: string, auth: RegistryAuth | undefined): Shared {
    const stop = new AbortController()
    const done = this.#pullPatiently(reference, auth, stop.signal).finally(() => {
      if (this.#running.get(key) === shared) this.#running.delete(key)
    })
    const shared: Shared = { done, stop, waiting: 0 }
    // Every waiter sees the failure; when all have left, nobody needs to.
    done.catch(() => undefined)
    this.#running.set(key, shared)
    return shared
  }

  async #pullPatiently(reference: string, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const trouble = await this.#pullOnce(reference, auth, signal)
      if (!trouble) return
      signal.throwIfAborted()
      const pauseMs = pausesMs[attempt]
      if (trouble.isFinal || pauseMs === undefined) throw toError(reference, trouble, attempt + 1)
      this.#logger.warn({ image: reference, err: trouble.message }, 'pull failed, trying again')
      await sleep(jitter(pauseMs, 0.2), signal)
      signal.throwIfAborted()
    }
  }

  async #pullOnce(
    reference: string,
    auth: RegistryAuth | undefined,
    signal: AbortSignal,
  ): Promise<PullTrouble | undefined> {
    const { repository, tag, digest } = parseReference(reference)
    const stalled = new AbortController()
    const stall = setTimeout(() => stalled.abort(new Error('stalled')), this.#stallMs)
    const progress = new Progress(reference, this.#logger)
    try {
      const stop = AbortSignal.any([signal, stalled.signal])
      const limits = { deadlineMs: this.#stallMs, signal: stop }
      const stream: Readable = await this.#engine.pull({ repository, tag: digest ?? tag ?? 'latest' }, auth, limits)
      for await (const line of readLines(stream)) {
        const read = v.safeParse(lineSchema, JSON.parse(line))
        if (!read.success) continue
        stall.refresh()
        if (read.output.error) return judgePullError(read.output.error)
        progress.note(read.output)
      }
      return undefined
    } catch (error) {
      signal.throwIfAborted()
      if (stalled.signal.aborted) {
        return { message: `no progress for ${this.#stallMs / 1000} s`, isFinal: true, blame: 'run' }
      }
      if (!(error instanceof EngineError)) {
        // The stream broke in its midst, or within a line.
        return { message: 'the connection to the engine broke off', isFinal: false, blame: 'host' }
      }
      if (error.kind === 'refused') return judgePullError(error.message, error.status)
      return { message: error.message, isFinal: false, blame: 'host' }
    } finally {
      clearTimeout(stall)
    }
  }
}

export interface PullTrouble {
  readonly message: string
  /** Another try would end the same way. */
  readonly isFinal: boolean
  readonly blame: 'run' | 'host'
}

/** The engine passes a registry's refusal on as text, and many of them with status 500. */
export function judgePullError(message: string, status?: number): PullTrouble {
  if (isHostTrouble(message)) return { message, isFinal: true, blame: 'host' }
  const refused =
    /unauthorized|authentication required|no basic auth|denied|forbidden|manifest unknown|not found|does not exist|invalid reference|no matching manifest|x509|server gave HTTP response/i
  if (refused.test(message) || (status !== undefined && status >= 400 && status < 500 && status !== 429)) {
    return { message, isFinal: true, blame: 'run' }
  }
  // A registry that does not answer may be this run's alone, so it must not stop the others.
  return { message, isFinal: false, blame: 'run' }
}

function toError(reference: string, trouble: PullTrouble, tries: number): InfrastructureError {
  const after = tries > 1 ? ` (tried ${tries} times)` : ''
  return new InfrastructureError(
    `Could not pull image "${reference}": ${describePullTrouble(trouble.message)}${after}`,
    { blame: trouble.blame },
  )
}

function describePullTrouble(message: string): string {
  if (/unauthorized|no basic auth|authentication required|denied/i.test(message)) {
    return `the registry refuses it (${message}); does the block's image_registry hold the right login?`
  }
  if (/manifest unknown|not found/i.test(message)) return `there is no such image or tag (${message})`
  return message
}

/** A line in the log every ten seconds. */
class Progress {
  readonly #reference: string
  readonly #logger: Logger
  readonly #layers = new Map<string, { current: number; total: number }>()
  #lastMs = performance.now()

  constructor(reference: string, logger: Logger) {
    this.#reference = reference
    this.#logger = logger
    logger.info({ image: reference }, 'pulling image')
  }

  note({ status, id, progressDetail }: v.InferOutput<typeof lineSchema>): void {
    if (id && status === 'Downloading' && progressDetail?.total) {
      this.#layers.set(id, { current: progressDetail.current ?? 0, total: progressDetail.total })
    }
    const layer = id && status === 'Download complete' ? this.#layers.get(id) : undefined
    if (layer) layer.current = layer.total
    const now = performance.now()
    if (now - this.#lastMs < progressEveryMs) return
    this.#lastMs = now
    const layers = [...this.#layers.values()]
    const sum = (of: 'current' | 'total') => Math.round(layers.reduce((all, one) => all + one[of], 0) / 1_048_576)
    this.#logger.info(
      { image: this.#reference, status, downloaded_mib: sum('current'), known_mib: sum('total') },
      'pulling image',
    )
  }
}
