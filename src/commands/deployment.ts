// `rigel deployment`: look at the deployments of the server.

import * as v from 'valibot'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { Deployment } from '../prefect/types.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { type Call, firstArgument, readOptions, text } from './options.ts'
import { printJson, printTable, printThing } from './output.ts'

const PAGE_SIZE = 200

export async function listDeployments(context: Context, call: Call): Promise<void> {
  const { flow } = readOptions(v.object({ flow: text }), call.options)
  const deployments = await withClient(context, async (client, signal) => {
    const found = await readAllDeployments(client, flow, signal)
    const names = await readFlowNames(client, found, signal)
    return found.map(deployment => ({ ...deployment, flow_name: names.get(deployment.flow_id) ?? deployment.flow_id }))
  })
  if (context.format === 'json') return printJson(context, deployments)
  const rows = deployments
    .map(deployment => ({ ...deployment, full: `${deployment.flow_name}/${deployment.name}` }))
    .sort((one, other) => one.full.localeCompare(other.full))
    .map(({ full, work_queue_name, work_pool_name, entrypoint, paused, schedules, id }) => [
      full,
      work_queue_name,
      work_pool_name,
      entrypoint,
      paused ? 'paused' : schedules?.length ? 'scheduled' : undefined,
      id,
    ])
  await printTable(context, ['name', 'queue', 'pool', 'entrypoint', 'schedule', 'id'], rows)
}

async function readAllDeployments(
  client: PrefectClient,
  flow: string | undefined,
  signal: AbortSignal,
): Promise<Deployment[]> {
  const filter = flow === undefined ? {} : { flows: { name: { any_: [flow] } } }
  const deployments: Deployment[] = []
  for (;;) {
    const page = await client.readDeployments({ ...filter, limit: PAGE_SIZE, offset: deployments.length }, signal)
    deployments.push(...page)
    if (page.length < PAGE_SIZE) return deployments
  }
}

/** Names of flows by id, for things that only know the id. */
export async function readFlowNames(
  client: PrefectClient,
  things: readonly { readonly flow_id: string }[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const ids = [...new Set(things.map(thing => thing.flow_id))]
  const names = new Map<string, string>()
  for (let at = 0; at < ids.length; at += PAGE_SIZE) {
    const any_ = ids.slice(at, at + PAGE_SIZE)
    const flows = await client.readFlows({ flows: { id: { any_ } }, limit: PAGE_SIZE }, signal)
    for (const flow of flows) names.set(flow.id, flow.name)
  }
  return names
}

export async function inspectDeployment(context: Context, call: Call): Promise<void> {
  const name = firstArgument(call)
  await printThing(context, await withClient(context, (client, signal) => findDeployment(client, name, signal)))
}

/** By `flow/deployment`, or by id. */
export async function findDeployment(client: PrefectClient, name: string, signal: AbortSignal): Promise<Deployment> {
  const [flow, ...rest] = name.split('/')
  const deployment = rest.join('/')
  const found =
    flow && deployment
      ? await client.readDeploymentByName(flow, deployment, signal)
      : await client.readDeployment(readId(name), signal)
  if (found) return found
  throw new UserError(`There is no deployment "${name}".`, { hint: '`rigel deployment ls` lists those that exist.' })
}

function readId(text: string): string {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text
  throw new UserError(`"${text}" is neither FLOW/DEPLOYMENT nor an id.`, {
    hint: '`rigel deployment ls` lists the names.',
  })
}
