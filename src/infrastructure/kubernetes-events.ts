// Reads from a namespace's events why Jobs have no pods: a quota, an admission webhook, a missing service account.
//
// One list answers for all Jobs that wait; it is taken when somebody asks, and again only when it has grown old.

import * as v from 'valibot'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { type ClusterClient, isRefusal } from './kubernetes-client.ts'
import type { Rights } from './kubernetes-rights.ts'

/** How long one list answers for everybody who asks. */
const freshMs = 4_000
const pageSize = 500
/** A namespace that has more warnings about Jobs than this says no more by them. */
const mostPages = 4

const schema = v.object({
  metadata: v.nullish(v.object({ continue: v.nullish(v.string(), '') })),
  items: v.nullish(
    v.array(
      v.object({
        message: v.nullish(v.string(), ''),
        involvedObject: v.object({ name: v.nullish(v.string(), '') }),
      }),
    ),
    [],
  ),
})

export interface EventSource {
  readonly client: ClusterClient
  readonly namespace: string
  readonly rights: Rights
  readonly logger: Logger
}

export class JobFailures {
  readonly #source: EventSource
  readonly #isWanted: (job: string) => boolean
  #list: { readonly atMs: number; readonly messages: Promise<ReadonlyMap<string, string>> } | undefined

  /** `isWanted`: of whom anything is kept. */
  constructor(source: EventSource, isWanted: (job: string) => boolean) {
    this.#source = source
    this.#isWanted = isWanted
  }

  /** The last warning about this Job, or undefined when there is none or it may not be read. `signal`: of all who ask. */
  async read(job: string, signal: AbortSignal): Promise<string | undefined> {
    const { namespace, rights } = this.#source
    if (rights.isMissing('list events', namespace)) return undefined
    const nowMs = performance.now()
    if (!this.#list || nowMs - this.#list.atMs > freshMs) {
      this.#list = { atMs: nowMs, messages: this.#readAll(signal) }
    }
    return (await this.#list.messages).get(job)
  }

  async #readAll(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const { client, namespace, rights, logger } = this.#source
    const messages = new Map<string, string>()
    const fieldSelector = 'involvedObject.kind=Job,type=Warning'
    let next = ''
    try {
      for (let page = 0; page < mostPages; page++) {
        const query = { fieldSelector, limit: pageSize, continue: next || undefined }
        const answer = await client.call('GET', `/api/v1/namespaces/${namespace}/events`, { query }, signal)
        const { items, metadata } = v.parse(schema, answer)
        for (const { involvedObject, message } of items) {
          if (message !== '' && this.#isWanted(involvedObject.name)) messages.set(involvedObject.name, message)
        }
        next = metadata?.continue ?? ''
        if (next === '') break
      }
    } catch (error) {
      if (signal.aborted) return messages
      if (isRefusal(error, 403)) rights.noteMissing('list events', namespace)
      // Only words for people: the run waits on without them.
      else logger.debug({ err: describeError(error) }, 'events of jobs cannot be read')
    }
    return messages
  }
}
