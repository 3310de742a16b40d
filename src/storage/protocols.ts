// The protocols of fsspec that a `remote-file-system` block may name, each with the driver that speaks it.

import type { StorageContext } from './context.ts'
import type { Remote } from './source.ts'
import { StorageError } from './storage.ts'

/** A block's base path, taken apart but not decoded: fsspec takes it literally, so `%20` and `#` are characters of a name. */
export interface RemoteUrl {
  /** In lower case, without `://`. */
  readonly protocol: string
  /** What follows `://`: `bucket/folder`, `user@host:22/folder`, and for chains of fsspec `inner.zip::s3://…`. */
  readonly rest: string
}

/** `settings` are the keyword arguments of fsspec's class for the protocol; each driver reads those it knows. */
export type OpenUrl = (
  url: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
) => Remote | Promise<Remote>

const s3: () => Promise<OpenUrl> = async () => (await import('./s3-url.ts')).openS3Url

const azure: () => Promise<OpenUrl> = async () => (await import('./azure-url.ts')).openAzureUrl
const http: () => Promise<OpenUrl> = async () => (await import('./http-index.ts')).openHttpUrl
const ftp: () => Promise<OpenUrl> = async () => (await import('./ftp-url.ts')).openFtpUrl
const sftp: () => Promise<OpenUrl> = async () => (await import('./sftp-url.ts')).openSftpUrl
const archive: () => Promise<OpenUrl> = async () => (await import('./archive-url.ts')).openArchiveUrl
const gcs: () => Promise<OpenUrl> = async () => (await import('./gcs-url.ts')).openGcsUrl

const protocols: Readonly<Record<string, () => Promise<OpenUrl>>> = {
  s3,
  s3a: s3,
  az: azure,
  abfs: azure,
  abfss: azure,
  gs: gcs,
  gcs,
  git: async () => (await import('./git-url.ts')).openGitUrl,
  ftp,
  ftps: ftp,
  http,
  https: http,
  zip: archive,
  tar: archive,
  sftp,
  ssh: sftp,
  smb: async () => (await import('./smb-url.ts')).openSmbUrl,
  webdav: async () => (await import('./webdav-url.ts')).openWebdavUrl,
  webhdfs: async () => (await import('./webhdfs-url.ts')).openWebhdfsUrl,
  github: async () => (await import('./github-url.ts')).openGithubUrl,
}

/** Protocols that will never work, with the reason. */
const refused: Readonly<Record<string, string>> = {
  memory: 'it lives in the process that wrote it, so an agent cannot see it',
  file: 'Prefect refuses it here; use a block of type "local-file-system"',
  local: 'Prefect refuses it here; use a block of type "local-file-system"',
}

/** Throws a StorageError that names the protocol when there is no driver for it. */
export async function openUrl(
  url: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Promise<Remote> {
  const reason = Object.hasOwn(refused, url.protocol) ? refused[url.protocol] : undefined
  if (reason) throw new StorageError(`Flow code cannot be fetched by the protocol "${url.protocol}": ${reason}`)
  const load = Object.hasOwn(protocols, url.protocol) ? protocols[url.protocol] : undefined
  if (!load) {
    const known = Object.keys(protocols).join(', ')
    throw new StorageError(
      `Flow code cannot be fetched by the protocol "${url.protocol}": there is no driver for it (there are: ${known})`,
    )
  }
  const open = await load()
  return open(url, settings, context)
}
