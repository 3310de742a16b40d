// `rigel block`: block types, and block documents, whose secrets are never shown.

import { readFile } from 'node:fs/promises'
import * as v from 'valibot'
import { ConfigError } from '../config/config-error.ts'
import { UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { BlockDocument, BlockSchema } from '../prefect/types.ts'
import { readFieldFlags } from './block-fields.ts'
import { checkBlock } from './block-schema.ts'
import { maskSecrets } from './block-secrets.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { type Call, firstArgument, isGiven, readOptions, table, text, texts } from './options.ts'
import { printJson, printTable, printThing } from './output.ts'

const PAGE_SIZE = 200

export async function listBlockTypes(context: Context): Promise<void> {
  const types = await withClient(context, (client, signal) =>
    readPages(offset => client.readBlockTypes({ limit: PAGE_SIZE, offset }, signal)),
  )
  const rows = types.toSorted((one, other) => one.slug.localeCompare(other.slug))
  if (context.format === 'json') return printJson(context, rows)
  await printTable(
    context,
    ['slug', 'name'],
    rows.map(({ slug, name }) => [slug, name]),
  )
}

const CreateOptions = v.object({ name: text, file: text, field: texts, overwrite: isGiven })

export async function createBlock(context: Context, call: Call): Promise<void> {
  const slug = firstArgument(call)
  const { name, file, field, overwrite } = readOptions(CreateOptions, call.options)
  if (name === undefined) throw new ConfigError('Give the block a --name.')
  if (!/^[a-z0-9-]+$/.test(name)) {
    throw new ConfigError(`Block name "${name}" may hold only lower-case letters, digits and dashes.`)
  }
  const own = file === undefined ? {} : await readFields(file)
  const made = await withClient(context, async (client, signal) => {
    const { typeId, schema } = await findSchema(client, slug, signal)
    const data = { ...own, ...(await readFieldFlags(field, schema.fields ?? {})) }
    const { stored, whole } = await resolveReferences(client, data, signal)
    checkBlock(slug, whole, schema.fields ?? {})
    const existing = await client.readBlockDocumentByName(slug, name, signal)
    if (existing && !overwrite) {
      throw new UserError(`Block "${slug}/${name}" exists already.`, { hint: 'With --overwrite it is replaced.' })
    }
    if (existing) {
      const body = { block_schema_id: schema.id, data: stored, merge_existing_data: false }
      await client.updateBlockDocument(existing.id, body, signal)
      return existing
    }
    const body = { name, is_anonymous: false, data: stored, block_type_id: typeId, block_schema_id: schema.id }
    return client.createBlockDocument(body, signal)
  })
  if (context.format === 'json') return printJson(context, { id: made.id, block_type: slug, name })
  context.stdout.write(`${overwrite ? 'wrote' : 'created'} block "${slug}/${name}" (${made.id})\n`)
}

async function readFields(file: string): Promise<Record<string, unknown>> {
  const content = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new UserError(`Could not read ${file}.`, { cause })
  })
  try {
    const value: unknown = JSON.parse(content)
    if (v.is(table, value)) return value
  } catch {
    // The parser's message would quote the text, which holds secrets.
  }
  throw new UserError(`${file} is not a JSON object of fields.`)
}

async function findSchema(
  client: PrefectClient,
  slug: string,
  signal: AbortSignal,
): Promise<{ readonly typeId: string; readonly schema: BlockSchema }> {
  const type = await client.readBlockTypeBySlug(slug, signal)
  const [schema] = type ? await client.readBlockSchemas(type.id, signal) : []
  if (type && schema) return { typeId: type.id, schema }
  throw new UserError(`The server knows no block type "${slug}".`, {
    hint: '`rigel block type ls` lists those it knows.',
  })
}

/** `{"$ref": "type/name"}` names another block: it is stored by id, and judged by what it holds. */
async function resolveReferences(client: PrefectClient, data: Readonly<Record<string, unknown>>, signal: AbortSignal) {
  const stored: Record<string, unknown> = {}
  const whole: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(data)) {
    const name = v.is(table, value) ? value.$ref : undefined
    if (typeof name === 'string') {
      const document = await findBlock(client, name, signal)
      stored[field] = { $ref: { block_document_id: document.id } }
      whole[field] = document.data ?? {}
    } else {
      stored[field] = value
      whole[field] = value
    }
  }
  return { stored, whole }
}

export async function listBlocks(context: Context): Promise<void> {
  const blocks = await withClient(context, (client, signal) =>
    readPages(offset => client.readNamedBlockDocuments({ limit: PAGE_SIZE, offset }, signal)),
  )
  const rows = blocks
    .map(block => ({ block_type: slugOf(block), name: block.name ?? '', id: block.id }))
    .toSorted((a, b) => `${a.block_type}/${a.name}`.localeCompare(`${b.block_type}/${b.name}`))
  if (context.format === 'json') return printJson(context, rows)
  await printTable(
    context,
    ['block', 'id'],
    rows.map(({ block_type, name, id }) => [`${block_type}/${name}`, id]),
  )
}

export async function inspectBlock(context: Context, call: Call): Promise<void> {
  const block = await withClient(context, (client, signal) => findMaskedBlock(client, firstArgument(call), signal))
  await printThing(context, {
    id: block.id,
    block_type: slugOf(block),
    name: block.name,
    ...(context.format === 'json' ? { data: maskSecrets(block.data ?? {}) } : maskSecrets(block.data ?? {})),
  })
}

export async function deleteBlock(context: Context, call: Call): Promise<void> {
  const name = firstArgument(call)
  await withClient(context, async (client, signal) => {
    await client.deleteBlockDocument((await findMaskedBlock(client, name, signal)).id, signal)
  })
  if (context.format === 'json') return printJson(context, { deleted: name })
  context.stdout.write(`deleted block "${name}"\n`)
}

/** With its secrets in clear: never show it. */
export async function findBlock(client: PrefectClient, name: string, signal: AbortSignal): Promise<BlockDocument> {
  const { slug, own } = splitName(name)
  return (await client.readBlockDocumentByName(slug, own, signal)) ?? missing(name)
}

async function findMaskedBlock(client: PrefectClient, name: string, signal: AbortSignal): Promise<BlockDocument> {
  const { slug, own } = splitName(name)
  return (await client.readMaskedBlockDocumentByName(slug, own, signal)) ?? missing(name)
}

function splitName(name: string): { readonly slug: string; readonly own: string } {
  const [slug, own, ...rest] = name.split('/')
  if (slug && own && rest.length === 0) return { slug, own }
  throw new ConfigError(`"${name}" is no block: TYPE/NAME was expected.`)
}

function missing(name: string): never {
  throw new UserError(`There is no block "${name}" on the server.`, {
    hint: '`rigel block ls` lists those that exist.',
  })
}

function slugOf(block: BlockDocument): string {
  return block.block_type?.slug ?? block.block_schema?.block_type?.slug ?? ''
}

async function readPages<T>(read: (offset: number) => Promise<readonly T[]>): Promise<T[]> {
  const all: T[] = []
  for (;;) {
    const page = await read(all.length)
    all.push(...page)
    if (page.length < PAGE_SIZE) return all
  }
}
