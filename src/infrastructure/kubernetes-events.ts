// Reads from the namespace's events why a Job has no pod: a quota, an admission webhook, a missing service account.

import * as v from 'valibot'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { type ClusterClient, isRefusal } from './kubernetes-client.ts'
import type { Rights } from './kubernetes-rights.ts'

const schema = v.object({
  items: v.nullish(
    v.array(
      v.object({
        reason: v.nullish(v.string(), ''),
        message: v.nullish(v.string(), ''),
        type: v.nullish(v.string(), ''),
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

/** The last warning about this Job, or undefined when there is none or it may not be read. */
export async function readJobFailures(
  { client, namespace, rights, logger }: EventSource,
  job: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (rights.isMissing('list events', namespace)) return undefined
  const fieldSelector = `involvedObject.kind=Job,involvedObject.name=${job},type=Warning`
  try {
    const path = `/api/v1/namespaces/${namespace}/events`
    const answer = await client.call('GET', path, { query: { fieldSelector, limit: 20 } }, signal)
    return v.parse(schema, answer).items.at(-1)?.message || undefined
  } catch (error) {
    if (signal.aborted) return undefined
    if (isRefusal(error, 403)) rights.noteMissing('list events', namespace)
    // Only words for people: the run waits on without them.
    else logger.debug({ err: describeError(error) }, 'events of a job cannot be read')
    return undefined
  }
}
