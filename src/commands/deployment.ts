// `rigel deployment`: bring deployments to the server, and look at them.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import * as v from 'valibot'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { BlockSchema, Deployment } from '../prefect/types.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { type BlockPlan, type DeploymentPlan, readDeploymentFile } from './deployment-file.ts'
import { type Call, firstArgument, readOptions, text } from './options.ts'
import { printJson, printTable, printThing } from './output.ts'

const PAGE_SIZE = 200

/** All files are read before anything is sent, so that a mistake in the last one changes nothing. */
export async function applyDeployments(context: Context, { args }: Call): Promise<void> {
  const plans: DeploymentPlan[] = []
  for (const file of args) plans.push(...(await readPlans(file)))
  const applied = await withClient(context, (client, signal) => applyPlans(client, plans, signal))
  if (context.format === 'json') {
    printJson(
      context,
      applied.map(({ deployment, flow }) => ({ ...deployment, flow_name: flow })),
    )
    return
  }
  for (const { deployment, flow } of applied) {
    context.stdout.write(`applied deployment "${flow}/${deployment.name}" (${deployment.id})\n`)
  }
}

export async function readPlans(file: string): Promise<DeploymentPlan[]> {
  let content: string
  try {
    content = await readFile(file, 'utf8')
  } catch (cause) {
    throw new UserError(`Could not read the deployment file ${file}.`, { cause })
  }
  return readDeploymentFile(content, file, dirname(resolve(file)))
}

export interface Applied {
  readonly flow: string
  readonly deployment: Deployment
}

/** Creates or updates each deployment, with its flow and the blocks of its own; nothing when a named block is missing. */
export async function applyPlans(
  client: PrefectClient,
  plans: readonly DeploymentPlan[],
  signal: AbortSignal,
): Promise<Applied[]> {
  const named = new Map<BlockPlan, string>()
  for (const { storage, infrastructure } of plans) {
    if (storage && storage.kind !== 'anonymous') named.set(storage, await findBlock(client, storage, 'storage', signal))
    if (infrastructure && infrastructure.kind !== 'anonymous') {
      named.set(infrastructure, await findBlock(client, infrastructure, 'infrastructure', signal))
    }
  }
  const place = async (block: BlockPlan | undefined, role: BlockRole) => {
    if (block === undefined) return null
    return block.kind === 'anonymous' ? await createBlock(client, block, role, signal) : (named.get(block) ?? null)
  }
  const applied: Applied[] = []
  for (const { flow, body, storage, infrastructure } of plans) {
    const storage_document_id = await place(storage, 'storage')
    const infrastructure_document_id = await place(infrastructure, 'infrastructure')
    const { id } = await client.createFlow(flow, signal)
    const deployment = await client.createDeployment(
      { ...body, flow_id: id, storage_document_id, infrastructure_document_id },
      signal,
    )
    applied.push({ flow, deployment })
  }
  return applied
}

type BlockRole = 'storage' | 'infrastructure'

async function findBlock(
  client: PrefectClient,
  plan: Exclude<BlockPlan, { kind: 'anonymous' }>,
  role: BlockRole,
  signal: AbortSignal,
): Promise<string> {
  const document =
    plan.kind === 'id'
      ? await client.readBlockDocument(plan.id, signal)
      : await client.readBlockDocumentByName(plan.slug, plan.name, signal)
  if (document) return document.id
  const name = plan.kind === 'id' ? plan.id : `${plan.slug}/${plan.name}`
  throw new UserError(`There is no ${role} block "${name}" on the server.`)
}

/** The id of the new document of a block that the deployment brings along. */
async function createBlock(
  client: PrefectClient,
  plan: Extract<BlockPlan, { kind: 'anonymous' }>,
  role: BlockRole,
  signal: AbortSignal,
): Promise<string> {
  const schema = await findBlockSchema(client, plan.slug, role, signal)
  const document = await client.createBlockDocument(
    { is_anonymous: true, data: plan.data, block_type_id: schema.typeId, block_schema_id: schema.id },
    signal,
  )
  return document.id
}

/** The newest schema of a block type. A server that lacks the type (Prefect 3 has no infrastructure blocks) gets an open one. */
async function findBlockSchema(
  client: PrefectClient,
  slug: string,
  role: BlockRole,
  signal: AbortSignal,
): Promise<{ readonly id: string; readonly typeId: string }> {
  const name = slug.replace(
    /(^|-)([a-z])/g,
    (_, dash: string, letter: string) => (dash ? ' ' : '') + letter.toUpperCase(),
  )
  const type =
    (await client.readBlockTypeBySlug(slug, signal)) ?? (await client.createBlockType({ name, slug }, signal))
  const [newest]: readonly BlockSchema[] = await client.readBlockSchemas(type.id, signal)
  if (newest) return { id: newest.id, typeId: type.id }
  const fields = { title: name, type: 'object', properties: {}, block_type_slug: slug, block_schema_references: {} }
  const capabilities = role === 'storage' ? ['get-directory'] : ['run-infrastructure']
  const schema = await client.createBlockSchema({ block_type_id: type.id, fields, capabilities }, signal)
  return { id: schema.id, typeId: type.id }
}

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
