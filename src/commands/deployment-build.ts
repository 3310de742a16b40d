// `rigel deployment build`: from a flow in the current directory to a deployment file, its code in a storage block, and, with
// --apply, the deployment on the server. As `prefect deployment build` of Prefect 2.20.

import { writeFile } from 'node:fs/promises'
import { extname, isAbsolute, relative, resolve, sep } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import { ConfigError } from '../config/config-error.ts'
import type { BlockDocument } from '../prefect/types.ts'
import { findBlock } from './block.ts'
import { withClient } from './connect.ts'
import type { Context } from './context.ts'
import { applyPlans } from './deployment-apply.ts'
import { readDeploymentFile } from './deployment-file.ts'
import { buildInfrastructure, describeBlock, readInfrastructureType } from './deployment-infrastructure.ts'
import { type Kept, readKept } from './deployment-kept.ts'
import { readPairs, readParameters } from './deployment-run.ts'
import { buildSchedules } from './deployment-schedules.ts'
import { type Uploaded, uploadCode } from './deployment-upload.ts'
import { writeDeploymentYaml } from './deployment-yaml.ts'
import { formatBytes } from './fetch-progress.ts'
import { type FlowFacts, readFlowFacts } from './flow-facts.ts'
import { type Call, firstArgument, isGiven, readOptions, text, texts, wholeNumber } from './options.ts'
import { printJson } from './output.ts'
import { limitQueue } from './work-queue.ts'

const Options = v.object({
  name: text,
  workQueue: text,
  pool: text,
  limit: v.optional(wholeNumber(0)),
  storageBlock: text,
  infra: text,
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
  anchorDate: text,
  rrule: text,
  timezone: text,
  schedule: v.optional(v.boolean(), true),
  out: text,
  skipUpload: isGiven,
  apply: isGiven,
})
type BuildOptions = v.InferOutput<typeof Options>

export async function buildDeployment(context: Context, call: Call): Promise<void> {
  const options = readOptions(Options, call.options)
  const { name, storageBlock, limit, apply } = options
  if (name === undefined) throw new ConfigError('Give the deployment a --name.')
  const cwd = process.cwd()
  const entrypoint = readEntrypoint(firstArgument(call), cwd)
  const infra = options.infra === undefined ? undefined : readInfrastructureType(options.infra)
  if (infra !== undefined && options.infraBlock !== undefined) {
    throw new ConfigError('Give one of --infra and --infra-block.')
  }
  const place = storageBlock === undefined ? undefined : splitStorage(storageBlock, options.path)
  const given = {
    schedules: buildSchedules(options, new Date()),
    infra_overrides: readOverrides(options.override),
    parameters: { ...(await readParameters(options.params)), ...readPairs(options.param) },
  }
  const facts = await readFlowFacts(context, entrypoint, cwd)
  const flow = options.flowName ?? facts.name
  const found = await askServer(context, { storage: place?.block, infrastructure: options.infraBlock, flow, name })
  const infrastructure = infra === undefined ? (found.infrastructure ?? found.kept?.infrastructure) : undefined
  const described = infrastructure
    ? describeBlock(infrastructure)
    : buildInfrastructure(infra ?? 'process', facts.image)
  const fields = {
    ...chooseFields(options, given, facts, found.kept?.deployment, found.kept?.schedules),
    name,
    infra_overrides: given.infra_overrides,
    infrastructure: described,
    flow_name: flow,
    storage: found.storage && describeBlock(found.storage),
    path: place?.path ?? choosePath('image' in described, options.path, cwd),
    entrypoint,
    parameter_openapi_schema: { ...facts.schema, ...schemaNulls(facts.schema) },
    timestamp: new Date().toISOString(),
    triggers: [],
  }
  const yaml = writeDeploymentYaml({ flow, fields, isInfrastructureEditable: infrastructure === undefined })
  const file = resolve(cwd, nameFile(options.out, entrypoint, flow))
  await writeFile(file, yaml)
  if (limit !== undefined) {
    const queue = { name: fields.work_queue_name, pool: fields.work_pool_name }
    await withClient(context, (client, signal) => limitQueue(client, queue, limit, signal))
  }
  const upload =
    found.storage && !options.skipUpload ? await uploadCode(context, found.storage, fields.path, cwd) : undefined
  const applied = apply
    ? await withClient(context, (client, signal) => applyPlans(client, readDeploymentFile(yaml, file, cwd), signal))
    : []
  report(context, { file, flow, name, upload, id: applied[0]?.deployment.id, kept: found.kept !== undefined })
}

interface Given {
  /** Undefined: nothing was said of schedules. */
  readonly schedules: readonly unknown[] | undefined
  readonly parameters: Readonly<Record<string, unknown>>
}

/** What this call says, else what the deployment had, else what the flow says. */
function chooseFields(
  options: BuildOptions,
  { schedules, parameters }: Given,
  facts: FlowFacts,
  had: Kept['deployment'] | undefined,
  hadSchedules: Kept['schedules'] = [],
) {
  return {
    description: options.description ?? (had?.description || facts.description),
    version: options.deploymentVersion ?? facts.version,
    work_queue_name: options.workQueue ?? (had ? had.work_queue_name : 'default'),
    work_pool_name: options.pool ?? had?.work_pool_name ?? null,
    tags: options.tag.length > 0 ? options.tag : (had?.tags ?? []),
    parameters: Object.keys(parameters).length > 0 ? parameters : (had?.parameters ?? {}),
    schedules: schedules ?? hadSchedules,
  }
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

interface Asked {
  readonly storage: string | undefined
  readonly infrastructure: string | undefined
  readonly flow: string
  readonly name: string
}

interface Found {
  readonly storage?: BlockDocument | undefined
  readonly infrastructure?: BlockDocument | undefined
  readonly kept?: Kept | undefined
}

/** Without blocks a file can be written where no server is named. */
async function askServer(context: Context, { storage, infrastructure, flow, name }: Asked): Promise<Found> {
  if (storage === undefined && infrastructure === undefined && context.config.api.url === undefined) return {}
  return withClient(context, async (client, signal) => ({
    storage: storage === undefined ? undefined : await findBlock(client, storage, signal),
    infrastructure: infrastructure === undefined ? undefined : await findBlock(client, infrastructure, signal),
    kept: await readKept(client, flow, name, signal),
  }))
}

/** In a container a path is the image's own, and Prefect's images have the code in one place. */
function choosePath(isInImage: boolean, path: string | undefined, cwd: string): string {
  if (isInImage) return path ?? '/opt/prefect/flows'
  return path === undefined ? cwd : resolve(cwd, path)
}

/** As Prefect names it: by the word after the colon, or by the program; `.yaml` where a name has no ending. */
function nameFile(given: string | undefined, entrypoint: string, flow: string): string {
  if (given === undefined) return `${/:([^:]+)$/.exec(entrypoint)?.[1] ?? flow}-deployment.yaml`
  return extname(given) === '' ? `${given}.yaml` : given
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

/** Prefect writes these even where there are none. */
function schemaNulls(schema: Readonly<Record<string, unknown>>): Record<string, null> {
  return {
    ...('required' in schema ? {} : { required: null }),
    ...('definitions' in schema ? {} : { definitions: null }),
  }
}

interface Report {
  readonly file: string
  readonly flow: string
  readonly name: string
  readonly upload: Uploaded | undefined
  readonly id: string | undefined
  /** The server had it already. */
  readonly kept: boolean
}

function report(context: Context, { file, flow, name, upload, id, kept }: Report): void {
  if (context.format === 'json') {
    const uploaded = upload && { files: upload.files, bytes: upload.bytes }
    printJson(context, { file, flow_name: flow, name, uploaded: uploaded ?? null, deployment_id: id ?? null })
    return
  }
  const { stdout } = context
  if (upload?.ignoreFile) stdout.write(`wrote ${upload.ignoreFile}\n`)
  stdout.write(`wrote deployment "${flow}/${name}" to ${file}\n`)
  if (kept)
    stdout.write(
      'what was not said this time is as on the server: description, tags, parameters, schedules, queue, infrastructure\n',
    )
  if (upload) stdout.write(`uploaded ${upload.files} files (${formatBytes(upload.bytes)})\n`)
  if (id) stdout.write(`applied deployment "${flow}/${name}" (${id})\n`)
}
