// From a block document to the driver that can fetch from it. Drivers are loaded at first use: an agent whose code lies on
// disk never loads an SDK.

import { openingError } from './blame.ts'
import type { StorageContext } from './context.ts'
import { storageOf } from './fetch-source.ts'
import type { Remote } from './source.ts'
import { ReadOnlyError, type Storage, StorageError, type WritableStorage } from './storage.ts'
import { writableStorageOf } from './write-storage.ts'

/** What is read of a block document: its type's slug and its fields, secrets included. */
export interface StorageBlock {
  readonly slug: string
  readonly data: Readonly<Record<string, unknown>>
}

type OpenRemote = (data: StorageBlock['data'], context: StorageContext) => Remote | Promise<Remote>

/** By slug. `local-file-system` is no remote: asking whether a local folder has changed costs as much as copying it. */
const drivers: Readonly<Record<string, () => Promise<OpenRemote>>> = {
  'remote-file-system': async () => (await import('./remote-file-system.ts')).openRemoteFileSystem,
  azure: async () => (await import('./azure.ts')).openAzure,
  'azure-blob-storage-container': async () => (await import('./azure-blob-storage-container.ts')).openAzureContainer,
  'bitbucket-repository': async () => (await import('./bitbucket-repository.ts')).openBitbucketRepository,
  gcs: async () => (await import('./gcs.ts')).openGcs,
  'gcs-bucket': async () => (await import('./gcs-bucket.ts')).openGcsBucketBlock,
  github: async () => (await import('./github.ts')).openGithub,
  'github-repository': async () => (await import('./github-repository.ts')).openGithubRepository,
  'gitlab-repository': async () => (await import('./gitlab-repository.ts')).openGitlabRepository,
  s3: async () => (await import('./s3.ts')).openS3,
  's3-bucket': async () => (await import('./s3-bucket.ts')).openS3Bucket,
  smb: async () => (await import('./smb.ts')).openSmb,
}

/** The block types that code can be fetched from. */
export const storageTypes: readonly string[] = ['local-file-system', ...Object.keys(drivers)]

/** Throws a StorageError that names the type when there is no driver for it, or the field when the block is unsound. */
export async function openStorage(block: StorageBlock, context: StorageContext): Promise<Storage> {
  if (block.slug === 'local-file-system') {
    const { openLocalFileSystem } = await import('./local-file-system.ts')
    return openLocalFileSystem(block.data, context)
  }
  return storageOf(await openRemote(block, context), context)
}

/** For blocks that Prefect can write to. Throws a ReadOnlyError for the others, and as `openStorage` does. */
export async function openWritableStorage(block: StorageBlock, context: StorageContext): Promise<WritableStorage> {
  if (block.slug === 'local-file-system') {
    const { openLocalFileSystem } = await import('./local-file-system.ts')
    return openLocalFileSystem(block.data, context)
  }
  const remote = await openRemote(block, context)
  if (!remote.target) throw new ReadOnlyError(block.slug, remote.folder(undefined).place)
  return writableStorageOf(remote, remote.target.bind(remote), context)
}

export async function openRemote({ slug, data }: StorageBlock, context: StorageContext): Promise<Remote> {
  const load = Object.hasOwn(drivers, slug) ? drivers[slug] : undefined
  if (!load) {
    throw new StorageError(
      `Flow code cannot be fetched from a storage block of type "${slug}": there is no driver for it (there are: ${storageTypes.join(', ')})`,
    )
  }
  const open = await load()
  try {
    return await open(data, context)
  } catch (error) {
    throw openingError(error)
  }
}
