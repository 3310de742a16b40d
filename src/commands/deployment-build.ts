// `rigel deployment build`: from a flow in the current directory to a deployment file, its code in a storage block, and, with
// --apply, the deployment on the server. As `prefect deployment build` of Prefect 2.20.

import { writeFile } from 'node:fs/promises'
import { isAbsolute, relative, resolve, sep } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import { Scope } from '../async/scope.ts'
import { ConfigError } from '../config/config-error.ts'
import { UserError } from '../errors.ts'
import type { BlockDocument } from '../prefect/types.ts'
import { makeMeter } from '../storage/context.ts'
import { openWritableStorage } from '../storage/registry.ts'
import { ReadOnlyError, StorageError } from '../storage/storage.ts'
import { findBlock } from './block.ts'
import { maskSecrets } from './block-secrets.ts'
import { withClient } from './connect.ts'
import { type Context, createCommandLogger } from './context.ts'
import { applyPlans } from './deployment.ts'
import { readDeploymentFile } from './deployment-file.ts'
import { readPairs, readParameters } from './deployment-run.ts'
import { writeDeploymentYaml } from './deployment-yaml.ts'
import { storageBlockOf } from './fetch.ts'
import { formatBytes, showProgress } from './fetch-progress.ts'
import { readFlowFacts } from './flow-facts.ts'
import { type Call, firstArgument, isGiven, readOptions, text, texts, wholeNumber } from './options.ts'
import { printJson } from './output.ts'
import { ensureIgnoreFile } from './prefect-ignore.ts'
import { buildStorageContext } from './storage-context.ts'

const Options = v.object({
  name: text,
  workQueue: text,
  pool: text,
  storageBlock: text,
  infraBlock: text,
  override: texts,
  path: text,
  flowName: text,
  deploymentVersion: text,
  description: text,
  tag: texts,
  param: texts,
  params: text,
  cron: text,
  interval: v.optional(wholeNumber(1)),
  rrule: text,
  timezone: text,
  out: text,
  skipUpload: isGiven,
  apply: isGiven,
})
type BuildOptions = v.InferOutput<typeof Options>

export async function buildDeployment(context: Context, call: Call): Promise<void> {
  const options = readOptions(Options, call.options)
  const { name, storageBlock, infraBlock, apply } = options
  if (name === undefined) throw new ConfigError('Give the deployment a --name.')
  const cwd = process.cwd()
  const entrypoint = readEntrypoint(firstArgument(call), cwd)
  const facts = await readFlowFacts(context, entrypoint, cwd)
  const flow = options.flowName ?? facts.name
  const place = storageBlock === undefined ? undefined : splitStorage(storageBlock, options.path)
  const blocks = await readBlocks(context, place?.block, infraBlock)
  const fields = {
    name,
    description: options.description ?? facts.description,
    version: options.deploymentVersion ?? facts.version,
    work_queue_name: options.workQueue ?? (options.pool === undefined ? 'default' : null),
    work_pool_name: options.pool,
    tags: options.tag,
    parameters: { ...(await readParameters(options.params)), ...readPairs(options.param) },
    schedules: buildSchedules(options),
    infra_overrides: readOverrides(options.override),
    infrastructure: blocks.infrastructure ? describeBlock(blocks.infrastructure) : defaultProcess,
    flow_name: flow,
    storage: blocks.storage && describeBlock(blocks.storage),
    path: place?.path ?? choosePath(blocks.infrastructure, options.path, cwd),
    entrypoint,
    parameter_openapi_schema: { ...facts.schema, ...schemaNulls(facts.schema) },
    timestamp: new Date().toISOString(),
    triggers: [],
  }
  const yaml = writeDeploymentYaml({ flow, fields, isInfrastructureEditable: blocks.infrastructure === undefined })
  // The word after the colon, or the program's own name.
  const file = resolve(cwd, options.out ?? `${/:([^:]+)$/.exec(entrypoint)?.[1] ?? flow}-deployment.yaml`)
  await writeFile(file, yaml)
  const upload =
    blocks.storage && !options.skipUpload ? await uploadCode(context, blocks.storage, fields.path, cwd) : undefined
  const applied = apply
    ? await withClient(context, (client, signal) => applyPlans(client, readDeploymentFile(yaml, file, cwd), signal))
    : []
  report(context, { file, flow, name, upload, id: applied[0]?.deployment.id })
}

/** `file.py:flow` relative to the current directory, which is what is uploaded; a command is left as it is. */
function readEntrypoint(text: string, cwd: string): string {
  const [, file, name] = /^(.+\.(?:py|[cm]?[jt]s)):([^:]+)$/.exec(text) ?? []
  if (file === undefined) {
    if (/^\S+\.py$/.test(text)) {
      throw new ConfigError(`"${text}" does not say which function is the flow.`, { hint: `Try ${text}:FUNCTION.` })
    }
    return text
  }
  const path = relative(cwd, resolve(cwd, file))
  if (path.startsWith(`..${sep}`) || isAbsolute(path)) {
    throw new ConfigError(`"${file}" is not below the current directory, of which the code is taken.`)
  }
  return `${path}:${name}`
}

/** TYPE/NAME, or TYPE/NAME/PATH. */
function splitStorage(text: string, path: string | undefined): { readonly block: string; readonly path: string } {
  const [type, name, ...rest] = text.split('/')
  if (!type || !name) throw new ConfigError(`Storage block "${text}": TYPE/NAME was expected, or TYPE/NAME/PATH.`)
  if (rest.length > 0 && path !== undefined) {
    throw new ConfigError('Give the path with --path or with the storage block, not both.')
  }
  return { block: `${type}/${name}`, path: path ?? rest.join('/') }
}

interface Blocks {
  readonly storage: BlockDocument | undefined
  readonly infrastructure: BlockDocument | undefined
}

async function readBlocks(
  context: Context,
  storage: string | undefined,
  infrastructure: string | undefined,
): Promise<Blocks> {
  // Without blocks a file can be written without a server.
  if (storage === undefined && infrastructure === undefined) return { storage, infrastructure }
  return withClient(context, async (client, signal) => ({
    storage: storage === undefined ? undefined : await findBlock(client, storage, signal),
    infrastructure: infrastructure === undefined ? undefined : await findBlock(client, infrastructure, signal),
  }))
}

/** A block in the file: by name, with its fields for people; secrets are masked, also those that no schema speaks of. */
function describeBlock(document: BlockDocument): Readonly<Record<string, unknown>> {
  const { slug, data } = storageBlockOf(document)
  const secrets = document.block_schema?.fields?.secret_fields
  const shown = Object.entries(maskSecrets(data)).filter(([field]) => field !== 'block_type_slug')
  return {
    ...Object.fromEntries(
      shown.map(([field, value]) => [field, isSecret(field, value, secrets) ? '**********' : value]),
    ),
    _block_document_id: document.id,
    _block_document_name: document.name,
    _is_anonymous: document.is_anonymous,
    block_type_slug: slug,
    _block_type_slug: slug,
  }
}

function isSecret(field: string, value: unknown, secrets: unknown): boolean {
  if (value === null || value === undefined || !Array.isArray(secrets)) return false
  return secrets.some(secret => String(secret).split('.')[0] === field)
}

const defaultProcess = {
  type: 'process',
  env: {},
  labels: {},
  name: null,
  command: null,
  stream_output: true,
  working_dir: null,
  block_type_slug: 'process',
  _block_type_slug: 'process',
}

/** Prefect's images have the code there. */
function choosePath(infrastructure: BlockDocument | undefined, path: string | undefined, cwd: string): string {
  if (path !== undefined) return resolve(cwd, path)
  return infrastructure?.data && 'image' in infrastructure.data ? '/opt/prefect/flows' : cwd
}

function readOverrides(overrides: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    overrides.map(override => {
      const at = override.indexOf('=')
      if (at < 1) throw new ConfigError(`--override is "${override}", but KEY=VALUE was expected.`)
      return [override.slice(0, at), override.slice(at + 1)]
    }),
  )
}

function buildSchedules({ cron, interval, rrule, timezone }: BuildOptions): readonly unknown[] {
  if ([cron, interval, rrule].filter(value => value !== undefined).length > 1) {
    throw new ConfigError('Give one of --cron, --interval and --rrule.')
  }
  const zone = timezone === undefined ? {} : { timezone }
  if (cron !== undefined) return [{ schedule: { cron, timezone: timezone ?? null, day_or: true }, active: true }]
  if (interval !== undefined) return [{ schedule: { interval, ...zone }, active: true }]
  if (rrule !== undefined) return [{ schedule: { rrule, ...zone }, active: true }]
  return []
}

/** Prefect writes these even where there are none. */
function schemaNulls(schema: Readonly<Record<string, unknown>>): Record<string, null> {
  return {
    ...('required' in schema ? {} : { required: null }),
    ...('definitions' in schema ? {} : { definitions: null }),
  }
}

interface Uploaded {
  readonly files: number
  readonly bytes: number
  /** A `.prefectignore` that was not there before. */
  readonly ignoreFile: string | undefined
}

/** Undefined: the block can only be read, so its owner brings the code there. */
async function uploadCode(
  context: Context,
  block: BlockDocument,
  path: string,
  cwd: string,
): Promise<Uploaded | undefined> {
  const meter = makeMeter()
  const storage = { ...buildStorageContext(context.config, createCommandLogger(context)), meter }
  const { slug, data } = storageBlockOf(block)
  await using progress = new Scope(context.signals.stopping)
  try {
    const target = await openWritableStorage({ slug, data }, storage)
    const { file, isNew } = await ensureIgnoreFile(cwd)
    progress.spawn(signal => showProgress(context.stderr, meter, signal))
    const files = await target.putDirectory(cwd, path, file, context.signals.stopping)
    return { files, bytes: meter.bytes, ignoreFile: isNew ? file : undefined }
  } catch (cause) {
    if (cause instanceof ReadOnlyError) {
      context.stderr.write(`warning: ${cause.message}, so nothing was uploaded.\n`)
      return undefined
    }
    if (!(cause instanceof StorageError)) throw cause
    throw new UserError(cause.message, { cause })
  }
}

interface Report {
  readonly file: string
  readonly flow: string
  readonly name: string
  readonly upload: Uploaded | undefined
  readonly id: string | undefined
}

function report(context: Context, { file, flow, name, upload, id }: Report): void {
  if (context.format === 'json') {
    const uploaded = upload && { files: upload.files, bytes: upload.bytes }
    printJson(context, { file, flow_name: flow, name, uploaded: uploaded ?? null, deployment_id: id ?? null })
    return
  }
  const { stdout } = context
  if (upload?.ignoreFile) stdout.write(`wrote ${upload.ignoreFile}\n`)
  stdout.write(`wrote deployment "${flow}/${name}" to ${file}\n`)
  if (upload) stdout.write(`uploaded ${upload.files} files (${formatBytes(upload.bytes)})\n`)
  if (id) stdout.write(`applied deployment "${flow}/${name}" (${id})\n`)
}
