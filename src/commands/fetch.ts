// `rigel fetch`: the agent's fetching alone, into a folder of one's own; whole, or not there at all.

import { chmod, lstat, readdir, readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import * as v from 'valibot'
import { Scope } from '../async/scope.ts'
import { ConfigError } from '../config/config-error.ts'
import { errorCode, UserError } from '../errors.ts'
import type { PrefectClient } from '../prefect/client.ts'
import type { BlockDocument } from '../prefect/types.ts'
import { makeMeter, type StorageContext } from '../storage/context.ts'
import { fetchCode, hasCodeToFetch } from '../storage/fetch.ts'
import type { StepScene } from '../storage/pull-steps.ts'
import { openStorage, type StorageBlock } from '../storage/registry.ts'
import { StorageError } from '../storage/storage.ts'
import { makeWorkspace } from '../storage/workspace.ts'
import { type Ask, withSession } from './connect.ts'
import { type Context, createCommandLogger } from './context.ts'
import { findDeployment } from './deployment.ts'
import { formatBytes, showProgress } from './fetch-progress.ts'
import { type Call, firstArgument, isGiven, readOptions, table, text } from './options.ts'
import { printJson } from './output.ts'
import { buildStorageContext } from './storage-context.ts'

const Options = v.object({
  deployment: text,
  block: text,
  blockFile: text,
  stepsFile: text,
  path: text,
  share: isGiven,
})

/** Fills the empty, private folder `to`. */
type Fill = (to: string, context: StorageContext, signal: AbortSignal) => Promise<void>

export async function fetchFolder(context: Context, call: Call): Promise<void> {
  const to = resolve(firstArgument(call))
  await refuseFilled(to)
  const options = readOptions(Options, call.options)
  const fill = chooseFill(context, options)
  const meter = makeMeter()
  const storage = { ...buildStorageContext(context.config, createCommandLogger(context)), meter }
  const started = performance.now()
  await using progress = new Scope(context.signals.stopping)
  progress.spawn(signal => showProgress(context.stderr, meter, signal))
  try {
    const place = { root: dirname(to), name: basename(to) }
    await makeWorkspace(
      place,
      async (folder, signal) => {
        await fill(folder, storage, signal)
        if (options.share) await openToAll(folder)
      },
      context.signals.stopping,
    )
  } catch (cause) {
    if (!(cause instanceof StorageError)) throw cause
    throw new UserError(cause.message, { cause })
  } finally {
    progress.cancel()
    await progress.join()
  }
  const milliseconds = Math.round(performance.now() - started)
  const size = await measure(to)
  const fromCache = meter.fromCache && meter.files === 0
  if (context.format === 'json') {
    const { files: downloaded_files, bytes: downloaded_bytes, requests } = meter
    return printJson(context, {
      ...size,
      requests,
      milliseconds,
      from_cache: fromCache,
      downloaded_files,
      downloaded_bytes,
      directory: to,
    })
  }
  const way = fromCache ? 'from the cache' : `with ${meter.requests} requests`
  context.stdout.write(
    `fetched ${size.files} files (${formatBytes(size.bytes)}) into ${to} in ${milliseconds} ms, ${way}\n`,
  )
}

/** What is there is never replaced. */
async function refuseFilled(to: string): Promise<void> {
  try {
    if ((await readdir(to)).length === 0) return
  } catch (cause) {
    if (errorCode(cause) === 'ENOENT') return
    throw new UserError(`"${to}" is not a folder that can be filled.`, { cause })
  }
  throw new UserError(`The folder ${to} is not empty.`, { hint: 'Name one that does not exist, or an empty one.' })
}

function chooseFill(context: Context, options: v.InferOutput<typeof Options>): Fill {
  const { deployment, block, blockFile, stepsFile, path } = options
  const given = [deployment, block, blockFile, stepsFile].filter(value => value !== undefined)
  if (given.length !== 1) {
    throw new ConfigError('Say from where: one of --deployment, --block, --block-file and --steps-file.')
  }
  if (path !== undefined && stepsFile !== undefined) throw new ConfigError('--path has no meaning with --steps-file.')
  if (deployment !== undefined) return fromDeployment(context, deployment, path)
  if (block !== undefined) return fromBlock(context, block, path)
  if (blockFile !== undefined) return fromBlockFile(blockFile, path)
  return fromSteps(context, stepsFile ?? '')
}

function fromDeployment(context: Context, name: string, path: string | undefined): Fill {
  return (to, storage, signal) =>
    withSession(context, async ask => {
      const { deployment, block } = await ask(async (client, signal) => {
        const deployment = await findDeployment(client, name, signal)
        const id = deployment.storage_document_id
        return { deployment, block: id === null ? undefined : await readBlock(client, id, signal) }
      })
      const facts = { path: path ?? deployment.path, pull_steps: deployment.pull_steps, storage: block }
      if (!hasCodeToFetch(facts, true)) {
        throw new UserError(`Deployment "${name}" has no code that an agent would fetch: it lies where its flow runs.`)
      }
      await fetchAll(facts, to, buildScene(context, ask), storage, signal)
    })
}

async function fetchAll(
  facts: Parameters<typeof fetchCode>[0],
  to: string,
  scene: StepScene,
  storage: StorageContext,
  signal: AbortSignal,
): Promise<void> {
  const code = await fetchCode(facts, to, scene, storage, signal)
  const left = code ? (code.steps?.left ?? 0) : (facts.pull_steps?.length ?? 0)
  if (left === 0) return
  throw new UserError(`${left} of the pull steps can only be run by Prefect's engine, so the tree would not be whole.`)
}

async function readBlock(client: PrefectClient, id: string, signal: AbortSignal): Promise<StorageBlock> {
  const document = await client.readBlockDocument(id, signal)
  if (document) return storageBlockOf(document)
  throw new UserError(`The storage block of the deployment (${id}) has been deleted.`)
}

export function storageBlockOf(document: BlockDocument): StorageBlock {
  const slug = document.block_schema?.block_type?.slug ?? document.block_type?.slug ?? ''
  return { slug, data: document.data ?? {} }
}

function fromBlock(context: Context, block: string, path: string | undefined): Fill {
  const [slug, name, ...rest] = block.split('/')
  if (!slug || !name || rest.length > 0) throw new ConfigError(`--block is "${block}", but TYPE/NAME was expected.`)
  return (to, storage, signal) =>
    withSession(context, async ask => {
      const document = await ask((client, signal) => client.readBlockDocumentByName(slug, name, signal))
      if (!document) throw new UserError(`There is no block "${block}" on the server.`)
      await (await openStorage(storageBlockOf(document), storage)).getDirectory(path, to, signal)
    })
}

const BlockFile = v.object({ block_type_slug: v.string(), data: table })

function fromBlockFile(file: string, path: string | undefined): Fill {
  return async (to, storage, signal) => {
    const result = v.safeParse(BlockFile, await readJson(file))
    if (!result.success) {
      throw new UserError(`${file} is not a block.`, { hint: 'It is {"block_type_slug": "s3", "data": {…}}.' })
    }
    const { block_type_slug: slug, data } = result.output
    await (await openStorage({ slug, data }, storage)).getDirectory(path, to, signal)
  }
}

function fromSteps(context: Context, file: string): Fill {
  return async (to, storage, signal) => {
    const steps = await readJson(file)
    if (!Array.isArray(steps)) throw new UserError(`${file} is not a list of pull steps.`)
    const facts = { path: null, pull_steps: steps, storage: undefined }
    // Steps without placeholders of blocks and variables need no server.
    const ask: Ask = act => withSession(context, ask => ask(act))
    await fetchAll(facts, to, buildScene(context, ask), storage, signal)
  }
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch (cause) {
    // The text may hold secrets, and a parser's message quotes it.
    if (cause instanceof SyntaxError) throw new UserError(`${file} is not JSON.`)
    throw new UserError(`Could not read ${file}.`, { cause })
  }
}

function buildScene({ config }: Context, ask: Ask): StepScene {
  return {
    isHere: true,
    environment: config.environment,
    readers: {
      block: async (slug, name) =>
        dataOf(await ask((client, signal) => client.readBlockDocumentByName(slug, name, signal))),
      blockById: async id => dataOf(await ask((client, signal) => client.readBlockDocument(id, signal))),
      variable: async name => (await ask((client, signal) => client.readVariableByName(name, signal)))?.value,
    },
  }
}

function dataOf(document: BlockDocument | undefined) {
  return document && (document.data ?? {})
}

/** Lets every user read the tree, and run what its owner may run: a flow need not run as the user that has fetched it. */
async function openToAll(folder: string): Promise<void> {
  const { mode } = await lstat(folder)
  await chmod(folder, mode | 0o555)
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) await openToAll(path)
    else if (entry.isFile()) {
      const { mode } = await lstat(path)
      await chmod(path, mode | (mode & 0o100 ? 0o555 : 0o444))
    }
  }
}

async function measure(folder: string): Promise<{ readonly files: number; readonly bytes: number }> {
  const size = { files: 0, bytes: 0 }
  for (const path of await readdir(folder, { recursive: true })) {
    const stat = await lstat(join(folder, path))
    if (stat.isDirectory()) continue
    size.files += 1
    if (stat.isFile()) size.bytes += stat.size
  }
  return size
}
