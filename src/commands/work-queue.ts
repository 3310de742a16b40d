// `rigel work-queue`: the queues that agents poll.

import * as v from 'valibot'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { ApiError } from '../prefect/errors.ts'
import type { WorkQueue } from '../prefect/types.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { type Call, firstArgument, readOptions, text, wholeNumber } from './options.ts'
import { printJson, printTable, printThing } from './output.ts'

const PAGE_SIZE = 200
/** Where Prefect keeps the queues of agents (server/models/work_queues.py). */
const AGENT_POOL = 'default-agent-pool'

const NewQueue = v.object({
  limit: v.optional(wholeNumber(0)),
  priority: v.optional(wholeNumber(1)),
  description: text,
})

export async function createQueue(context: Context, call: Call): Promise<void> {
  const name = firstArgument(call)
  const { limit, priority, description } = readOptions(NewQueue, call.options)
  const body = {
    name,
    ...(limit === undefined ? {} : { concurrency_limit: limit }),
    ...(priority === undefined ? {} : { priority }),
    ...(description === undefined ? {} : { description }),
  }
  const queue = await withClient(context, async (client, signal) => {
    try {
      return await client.createWorkQueue(body, signal)
    } catch (cause) {
      if (!(cause instanceof ApiError && cause.status === 409)) throw cause
      throw new UserError(`A work queue "${name}" exists already.`, { cause })
    }
  })
  if (context.format === 'json') return printJson(context, queue)
  context.stdout.write(`created work queue "${queue.name}" (${queue.id})\n`)
}

/** Makes the queue when it is missing. Throws a UserError for a queue that is not for agents. */
export async function limitQueue(
  client: PrefectClient,
  { name, pool }: { readonly name?: string | null | undefined; readonly pool?: string | null | undefined },
  limit: number,
  signal: AbortSignal,
): Promise<void> {
  if (!name || (pool && pool !== AGENT_POOL)) {
    throw new UserError(
      `--limit sets the limit of an agent's queue, but this deployment has ${pool ? `the pool "${pool}"` : 'no queue'}.`,
      {
        hint: '`prefect work-pool` and `prefect work-queue` set limits there.',
      },
    )
  }
  const queue = await client.readWorkQueueByName(name, signal)
  if (queue) await client.updateWorkQueue(queue.id, { concurrency_limit: limit }, signal)
  else await client.createWorkQueue({ name, concurrency_limit: limit }, signal)
}

export async function listQueues(context: Context): Promise<void> {
  const queues = await withClient(context, readAllQueues)
  if (context.format === 'json') return printJson(context, queues)
  const rows = queues
    .sort((one, other) => one.name.localeCompare(other.name))
    .map(queue => [
      queue.name,
      queue.work_pool_name,
      queue.is_paused ? 'paused' : queue.status?.toLowerCase(),
      queue.concurrency_limit,
      queue.priority,
      queue.last_polled,
    ])
  await printTable(context, ['name', 'pool', 'status', 'limit', 'priority', 'last polled'], rows)
}

async function readAllQueues(client: PrefectClient, signal: AbortSignal): Promise<WorkQueue[]> {
  const queues: WorkQueue[] = []
  for (;;) {
    const page = await client.readWorkQueues({ limit: PAGE_SIZE, offset: queues.length }, signal)
    queues.push(...page)
    if (page.length < PAGE_SIZE) return queues
  }
}

export async function inspectQueue(context: Context, call: Call): Promise<void> {
  await printThing(
    context,
    await withClient(context, (client, signal) => findQueue(client, firstArgument(call), signal)),
  )
}

export async function setQueuePaused(context: Context, call: Call, isPaused: boolean): Promise<void> {
  const queue = await withClient(context, async (client, signal) => {
    const found = await findQueue(client, firstArgument(call), signal)
    await client.updateWorkQueue(found.id, { is_paused: isPaused }, signal)
    return (await client.readWorkQueue(found.id, signal)) ?? { ...found, is_paused: isPaused }
  })
  if (context.format === 'json') return printJson(context, queue)
  context.stdout.write(`work queue "${queue.name}" is ${isPaused ? 'paused' : 'active'}\n`)
}

async function findQueue(client: PrefectClient, name: string, signal: AbortSignal): Promise<WorkQueue> {
  const queue = await client.readWorkQueueByName(name, signal)
  if (queue) return queue
  throw new UserError(`There is no work queue "${name}".`, { hint: '`rigel work-queue ls` lists those that exist.' })
}
