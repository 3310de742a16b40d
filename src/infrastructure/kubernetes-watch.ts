// Keeps up with one kind of objects of one agent in one namespace: a list, then a watch from there on.
//
//   list ──> watch ── ended by the server's time limit, or cut ──> watch again from the last version
//    ^         │   └─ seen too long without a list ──> list (reconcile)
//    └─────────┴───── 410 Gone, any other error, silence ──> list
//
// An event is a hint, the object is the truth: whatever is lost here is found by the next list.

import type { IncomingMessage } from 'node:http'
import * as v from 'valibot'
import { jitter, sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { type ClusterClient, ClusterError, isRefusal } from './kubernetes-client.ts'
import { patiently } from './kubernetes-patience.ts'
import type { Right, Rights } from './kubernetes-rights.ts'

/** How many objects one answer holds. */
const pageSize = 500
/** An API server sends a bookmark about once a minute; after so long without a word the connection is given up. */
const silenceMs = 150_000
/** After so long a list is taken even when all seems well. */
const reconcileMs = 300_000
/** Without the right to watch. */
const pollMs = 5_000
const deniedMs = 30_000
const longestLineBytes = 8 * 1024 * 1024

export interface WatchTimes {
  readonly silenceMs: number
  readonly reconcileMs: number
}

export const watchTimes: WatchTimes = { silenceMs, reconcileMs }

export interface WatchTarget {
  readonly client: ClusterClient
  readonly namespace: string
  readonly kind: 'jobs' | 'pods'
  readonly selector: string
  readonly rights: Rights
  readonly logger: Logger
  readonly times: WatchTimes
  /** All there is now. Called after each list. */
  onList(objects: readonly unknown[]): void
  onEvent(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: unknown): void
}

const listSchema = v.object({
  metadata: v.object({ resourceVersion: v.nullish(v.string(), ''), continue: v.nullish(v.string(), '') }),
  items: v.nullish(v.array(v.unknown()), []),
})

const eventSchema = v.object({
  type: v.picklist(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR']),
  object: v.looseObject({
    metadata: v.nullish(v.looseObject({ resourceVersion: v.nullish(v.string(), '') })),
    code: v.nullish(v.number()),
    message: v.nullish(v.string()),
  }),
})

/** Goes on until the signal is aborted. Rejects for bugs only. */
export async function keepWatch(target: WatchTarget, signal: AbortSignal): Promise<void> {
  const watch = new Watch(target)
  while (!signal.aborted) {
    try {
      await watch.followOnce(signal)
    } catch (error) {
      if (signal.aborted) return
      throw error
    }
  }
}

class Watch {
  readonly #target: WatchTarget
  readonly #path: string
  readonly #log: Logger
  #version = ''
  #listedMs = 0
  #pauseMs = 200

  constructor(target: WatchTarget) {
    this.#target = target
    const group = target.kind === 'jobs' ? '/apis/batch/v1' : '/api/v1'
    this.#path = `${group}/namespaces/${target.namespace}/${target.kind}`
    this.#log = target.logger.child({ namespace: target.namespace, watch: target.kind })
  }

  async followOnce(signal: AbortSignal): Promise<void> {
    const { kind, namespace, rights, times } = this.#target
    if (this.#version === '' && !(await this.#list(signal))) return await sleep(jitter(deniedMs, 0.2), signal)
    if (rights.isMissing(`watch ${kind}`, namespace)) {
      await sleep(jitter(pollMs, 0.2), signal)
      this.#version = ''
      return
    }
    try {
      await this.#follow(signal)
      // Ended in good order, by the time limit that we gave; or cut, which looks the same now and then.
      this.#pauseMs = 200
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ClusterError)) throw error
      if (isRefusal(error, 403)) return rights.noteMissing(`watch ${kind}` satisfies Right, namespace)
      this.#log.debug({ err: describeError(error) }, 'watch broke, listing again')
      this.#version = ''
      await sleep(jitter(this.#pauseMs, 0.3), signal)
      this.#pauseMs = Math.min(this.#pauseMs * 2, 5_000)
    }
    if (performance.now() - this.#listedMs > times.reconcileMs) this.#version = ''
  }

  /** False when it is not allowed. */
  async #list(signal: AbortSignal): Promise<boolean> {
    const { client, kind, namespace, rights, selector } = this.#target
    const objects: unknown[] = []
    let next = ''
    let version = ''
    for (;;) {
      const query = { labelSelector: selector, limit: pageSize, continue: next || undefined }
      try {
        const call = () => client.call('GET', this.#path, { query }, signal)
        const page = v.parse(listSchema, await patiently(call, { logger: this.#log }, signal))
        for (const item of page.items) objects.push(item)
        version = page.metadata.resourceVersion
        next = page.metadata.continue
      } catch (error) {
        signal.throwIfAborted()
        if (isRefusal(error, 403)) {
          rights.noteMissing(`list ${kind}`, namespace)
          return false
        }
        // The rest of the list has become too old: from the beginning.
        if (isRefusal(error, 410) && next !== '') {
          next = ''
          objects.length = 0
          continue
        }
        // A namespace that was deleted with all that it held.
        if (isRefusal(error, 404)) break
        throw error
      }
      if (next === '') break
    }
    this.#version = version
    this.#listedMs = performance.now()
    this.#target.onList(objects)
    return version !== ''
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { client, selector, times } = this.#target
    const leave = new AbortController()
    const stop = AbortSignal.any([signal, leave.signal])
    const query = {
      labelSelector: selector,
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: this.#version,
      timeoutSeconds: Math.max(1, Math.round(jitter(times.reconcileMs / 1000, 0.2))),
    }
    const stream = await client.stream(this.#path, query, stop)
    let silence = setTimeout(() => {}, 0)
    const listen = () => {
      clearTimeout(silence)
      silence = setTimeout(() => leave.abort(new Error('silent for too long')), times.silenceMs)
    }
    try {
      listen()
      await this.#read(stream, listen)
    } catch (cause) {
      signal.throwIfAborted()
      if (cause instanceof ClusterError || cause instanceof v.ValiError || cause instanceof SyntaxError) throw cause
      throw new ClusterError('lost', 'The watch broke off', { cause })
    } finally {
      clearTimeout(silence)
      stream.destroy()
    }
  }

  async #read(stream: IncomingMessage, heard: () => void): Promise<void> {
    let pieces: Buffer[] = []
    let bytes = 0
    for await (const chunk of stream) {
      heard()
      let rest: Buffer = chunk
      for (;;) {
        const end = rest.indexOf(0x0a)
        if (end < 0) break
        pieces.push(rest.subarray(0, end))
        rest = rest.subarray(end + 1)
        const line = Buffer.concat(pieces).toString('utf8')
        pieces = []
        bytes = 0
        if (line.trim() !== '') this.#take(line)
      }
      if (rest.length > 0) pieces.push(rest)
      bytes += rest.length
      if (bytes > longestLineBytes) throw new ClusterError('lost', 'The watch sent an event that is too long')
    }
  }

  #take(line: string): void {
    const event = v.safeParse(eventSchema, parseJson(line))
    if (!event.success) throw new ClusterError('lost', 'The watch sent what is no event')
    const { type, object } = event.output
    if (type === 'ERROR') {
      const { code } = object
      throw new ClusterError('refused', object.message ?? 'The watch ended with an error', code ? { status: code } : {})
    }
    this.#version = object.metadata?.resourceVersion || this.#version
    this.#pauseMs = 200
    if (type !== 'BOOKMARK') this.#target.onEvent(type, object)
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
