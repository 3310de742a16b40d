// `rigel deployment apply`: deployments of files to the server, with their flows, the blocks of their own, and their code.

import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { BlockDocument, BlockSchema, Deployment } from '../prefect/types.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { type BlockPlan, type DeploymentPlan, readDeploymentFile } from './deployment-file.ts'
import { uploadCode } from './deployment-upload.ts'
import { formatBytes } from './fetch-progress.ts'
import { type Call, isGiven, readOptions, wholeNumber } from './options.ts'
import { printJson } from './output.ts'
import { limitQueue } from './work-queue.ts'

const ApplyOptions = v.object({ upload: isGiven, limit: v.optional(wholeNumber(0)) })

/** All files are read before anything is sent, so that a mistake in the last one changes nothing. */
export async function applyDeployments(context: Context, { args, options }: Call): Promise<void> {
  const { upload, limit } = readOptions(ApplyOptions, options)
  const plans: DeploymentPlan[] = []
  for (const file of args) plans.push(...(await readPlans(file)))
  if (upload) await uploadPlans(context, plans)
  const applied = await withClient(context, async (client, signal) => {
    if (limit !== undefined) {
      for (const { body } of plans) {
        await limitQueue(client, { name: body.work_queue_name, pool: body.work_pool_name }, limit, signal)
      }
    }
    return await applyPlans(client, plans, signal)
  })
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

/** The current directory to the storage block of each, as when they were built. */
async function uploadPlans(context: Context, plans: readonly DeploymentPlan[]): Promise<void> {
  for (const { flow, body, storage } of plans) {
    if (!storage || storage.kind === 'anonymous') {
      throw new UserError(`Deployment "${flow}/${body.name}" has no storage block of the server to upload to.`)
    }
    const block = await withClient(context, (client, signal) => findDocument(client, storage, 'storage', signal))
    const uploaded = await uploadCode(context, block, body.path ?? '', process.cwd())
    if (uploaded) context.stderr.write(`uploaded ${uploaded.files} files (${formatBytes(uploaded.bytes)})\n`)
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
    if (storage && storage.kind !== 'anonymous')
      named.set(storage, (await findDocument(client, storage, 'storage', signal)).id)
    if (infrastructure && infrastructure.kind !== 'anonymous') {
      named.set(infrastructure, (await findDocument(client, infrastructure, 'infrastructure', signal)).id)
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

type PlacedBlock = Exclude<BlockPlan, { kind: 'anonymous' }>

async function findDocument(
  client: PrefectClient,
  plan: PlacedBlock,
  role: BlockRole,
  signal: AbortSignal,
): Promise<BlockDocument> {
  const document =
    plan.kind === 'id'
      ? await client.readBlockDocument(plan.id, signal)
      : await client.readBlockDocumentByName(plan.slug, plan.name, signal)
  if (document) return document
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
