// The pull steps that only fetch: what each of them brings, from where, and into which folder.
//
// In: a step's function and its inputs, filled. Out: a remote or local storage, a folder, and the step's output. What Prefect
// refuses for no reason is taken: `{username, token}` and a bare text as credentials of git_clone.

import { posix } from 'node:path'
import * as v from 'valibot'
import type { StorageContext } from './context.ts'
import { storageOf } from './fetch-source.ts'
import { type GitLogin, loginOfToken, readGitAddress } from './git-login.ts'
import { joinBelow } from './paths.ts'
import { openStorage } from './registry.ts'
import { isTable, type StepReaders } from './step-templates.ts'
import { type Storage, StorageError } from './storage.ts'

export interface FetchStep {
  /** Below the folder in which the steps run; '' is that folder. */
  readonly folder: string
  readonly storage: Storage
  /** What the step gives to later ones, beside the directory. */
  readonly output: Readonly<Record<string, string>>
  /** The code lies on the disk of the machine where the flow runs: only a process of this one can be given it. */
  readonly isLocal: boolean
}

type Inputs = Readonly<Record<string, unknown>>
type Open = (inputs: Inputs, context: StorageContext, readers: StepReaders) => Promise<FetchStep>

const kinds: Readonly<Record<string, Open>> = {
  git_clone: openGitClone,
  git_clone_project: openGitClone,
  pull_with_block: openBlock,
  pull_from_remote_storage: openRemoteStorage,
  pull_from_s3: openS3,
  pull_project_from_s3: openS3,
  pull_from_gcs: openGcs,
  pull_project_from_gcs: openGcs,
  pull_from_azure_blob_storage: openAzure,
  pull_project_from_azure_blob_storage: openAzure,
}

const homes = /^prefect(?:_aws|_gcp|_azure)?\.(?:deployments|projects)\.steps(?:\.\w+)?\.(\w+)$/

/** The short name of a step that only fetches; undefined for all others, which belong to the engine. */
export function fetchStepName(qualifiedName: string): string | undefined {
  const name = homes.exec(qualifiedName)?.[1]
  return name !== undefined && Object.hasOwn(kinds, name) ? name : undefined
}

/** Throws a StorageError that names the input. */
export async function openFetchStep(
  name: string,
  inputs: Inputs,
  context: StorageContext,
  readers: StepReaders,
): Promise<FetchStep> {
  const open = kinds[name]
  if (!open) throw new Error(`${name} is no step that fetches`)
  return open(inputs, context, readers)
}

const text = v.nullish(v.string())
const needed = v.pipe(v.string(), v.nonEmpty())
const anyTable = v.record(v.string(), v.unknown())

const GitInputs = v.strictObject({
  repository: needed,
  branch: text,
  commit_sha: text,
  include_submodules: v.nullish(v.boolean()),
  access_token: text,
  credentials: v.nullish(v.union([v.string(), anyTable])),
  directories: v.nullish(v.array(v.string())),
  clone_directory_name: text,
})

async function openGitClone(inputs: Inputs, context: StorageContext): Promise<FetchStep> {
  const { openGit } = await import('./git.ts')
  const step = readInputs(GitInputs, inputs)
  if (step.branch && step.commit_sha) throw new StorageError('Give a branch or a commit_sha, not both')
  if (step.access_token && step.credentials) throw new StorageError('Give an access_token or credentials, not both')
  // Prefect leaves the credentials away then, which would fetch what anybody sees, or nothing.
  const secureOnly = true
  const login = loginOf(step.repository, step.access_token || step.credentials)
  const address = readGitAddress(step.repository, login, secureOnly)
  const remote = openGit(
    {
      address,
      reference: step.commit_sha || step.branch || undefined,
      base: '',
      keepsFolder: false,
      keepsGit: true,
      submodules: step.include_submodules ?? undefined,
      directories: step.directories ?? undefined,
    },
    context,
  )
  const name = posix.basename(address.url.replace(/[/:]+$/, '').replaceAll(':', '/')).replace('.git', '')
  const folder = step.clone_directory_name || (step.branch ? `${name}-${step.branch.replaceAll('/', '-')}` : name)
  return { folder: folderBelow(folder), storage: storageOf(remote, context), output: {}, isLocal: false }
}

/** Prefect's rule (runner/storage.py): who a token is for follows from the host's name. */
function loginOf(repository: string, given: string | Inputs | null | undefined): GitLogin | undefined {
  if (!given) return undefined
  const fields = typeof given === 'string' ? { token: given } : given
  const textField = (name: string) => {
    const value = Object.hasOwn(fields, name) ? Reflect.get(fields, name) : undefined
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  const token = textField('access_token') ?? textField('token') ?? textField('password') ?? textField('value')
  if (!token) throw new StorageError('The credentials have neither a token nor a password')
  const kind = typeof given === 'string' ? 'access token of the step' : 'credentials of the step'
  const username = textField('username')
  if (username) return { kind, username, password: token }
  const host = URL.parse(repository)?.host ?? ''
  const user = host.includes('gitlab') ? 'oauth2' : host.includes('bitbucket') ? 'x-token-auth' : undefined
  return loginOfToken(kind, token, user)
}

async function openBlock(inputs: Inputs, context: StorageContext, readers: StepReaders): Promise<FetchStep> {
  const step = readInputs(v.strictObject({ block_document_name: needed, block_type_slug: needed }), inputs)
  const { block_document_name: name, block_type_slug: slug } = step
  const data = await readers.block(slug, name)
  if (!data) throw new StorageError(`There is no block "${slug}/${name}" on the server`)
  return {
    folder: folderBelow(`${slug}-${name}`),
    storage: await openStorage({ slug, data }, context),
    output: {},
    isLocal: slug === 'local-file-system',
  }
}

async function openRemoteStorage({ url, ...settings }: Inputs, context: StorageContext): Promise<FetchStep> {
  const { url: basepath } = readInputs(v.object({ url: needed }), { url })
  return {
    folder: folderBelow(basepath.replace(/^[a-z0-9+.-]+:\/\//i, '')),
    storage: await openStorage({ slug: 'remote-file-system', data: { basepath, settings } }, context),
    output: {},
    isLocal: false,
  }
}

const S3Inputs = v.strictObject({
  bucket: needed,
  folder: v.nullish(v.string(), ''),
  credentials: v.nullish(anyTable, {}),
  client_parameters: v.nullish(anyTable, {}),
})

async function openS3(inputs: Inputs, context: StorageContext): Promise<FetchStep> {
  const { bucket, folder, credentials, client_parameters } = readInputs(S3Inputs, inputs)
  const known = isTable(credentials.aws_client_parameters) ? credentials.aws_client_parameters : {}
  const data = {
    bucket_name: bucket,
    bucket_folder: folder,
    credentials: { ...credentials, aws_client_parameters: { ...known, ...client_parameters } },
  }
  const storage = await openStorage({ slug: 's3-bucket', data }, context)
  return { folder: '', storage, output: { bucket, folder: folder ?? '' }, isLocal: false }
}

const GcsInputs = v.strictObject({
  bucket: needed,
  folder: v.nullish(v.string(), ''),
  project: text,
  credentials: v.nullish(anyTable),
})

async function openGcs(inputs: Inputs, context: StorageContext): Promise<FetchStep> {
  const { bucket, folder, credentials } = readInputs(GcsInputs, inputs)
  const data = { bucket, bucket_folder: folder, gcp_credentials: credentials }
  const storage = await openStorage({ slug: 'gcs-bucket', data }, context)
  return { folder: '', storage, output: { bucket, folder: folder ?? '' }, isLocal: false }
}

const AzureInputs = v.strictObject({ container: needed, folder: v.nullish(v.string(), ''), credentials: anyTable })

async function openAzure(inputs: Inputs, context: StorageContext): Promise<FetchStep> {
  const { container, folder, credentials } = readInputs(AzureInputs, inputs)
  const data = { container_name: container, base_folder: folder, credentials }
  const storage = await openStorage({ slug: 'azure-blob-storage-container', data }, context)
  return { folder: '', storage, output: { container, folder: folder ?? '' }, isLocal: false }
}

function folderBelow(name: string): string {
  const folder = joinBelow('', name)
  if (folder === '') throw new StorageError(`"${name}" names no folder to fetch into`)
  return folder
}

/** Says which input is wrong without what stands in it, which may be a secret. */
function readInputs<Schema extends v.GenericSchema>(schema: Schema, inputs: Inputs): v.InferOutput<Schema> {
  const result = v.safeParse(schema, inputs)
  if (result.success) return result.output
  const [issue] = result.issues
  const name = v.getDotPath(issue) ?? ''
  const trouble =
    issue.expected === 'never'
      ? 'is unknown'
      : issue.input === undefined
        ? 'is missing'
        : `is not what was expected (${issue.expected ?? issue.type})`
  throw new StorageError(`Input "${name}" ${trouble}`)
}
