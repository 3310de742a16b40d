// A place of one's own in each storage that flows can be deployed to: the block that names it, and what the environment must say
// where the block's type has no field for it. One row for each kind.

import { randomBytes } from 'node:crypto'
import { chown } from 'node:fs/promises'
import { join } from 'node:path'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { type DataFolder, makeDataFolder } from '../storage/data-folder.ts'
import type { Requirement } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'

export interface StoragePlace {
  /** Brings the code there where the block itself cannot: by git. */
  readonly publish?: (files: Readonly<Record<string, string>>) => Promise<void>
  /** Removes what a test has left there; missing where the server goes with its data. */
  readonly clear?: () => Promise<void>
  readonly block: StorageBlock
  readonly environment: Readonly<Record<string, string>>
  /** Must be in no output. */
  readonly secret: string | undefined
}

export interface StorageKind {
  /** Fit for a block's name. */
  readonly name: string
  readonly requirement: Requirement | undefined
  /** `directory` is a folder of the test's own on this machine. */
  readonly open: (directory: string) => Promise<StoragePlace>
}

export const unique = () => `deploy-${randomBytes(6).toString('hex')}`

export const storageKinds: readonly StorageKind[] = [
  {
    name: 'local-file-system',
    requirement: undefined,
    open: async directory => ({
      block: { slug: 'local-file-system', data: { basepath: join(directory, 'shared') } },
      environment: {},
      secret: undefined,
    }),
  },
  {
    name: 's3',
    requirement: 's3',
    async open() {
      const { makeBucket } = await import('../storage/s3-server.ts')
      await using made = await makeBucket('s3')
      return {
        block: {
          slug: 's3',
          data: {
            bucket_path: `${made.bucket}/flows`,
            aws_access_key_id: made.accessKeyId,
            aws_secret_access_key: made.secretAccessKey,
          },
        },
        environment: { AWS_ENDPOINT_URL: made.endpoint },
        secret: made.secretAccessKey,
      }
    },
  },
  {
    name: 'azure',
    requirement: 'azure',
    async open() {
      const { connection_string = '', key = '' } = storageServer('azure')
      const container = unique()
      await makeContainer(container)
      return {
        block: {
          slug: 'azure',
          data: { bucket_path: `${container}/flows`, azure_storage_connection_string: connection_string },
        },
        environment: {},
        secret: key,
      }
    },
  },
  {
    name: 'gcs',
    requirement: 'gcs',
    async open() {
      const { endpoint = '' } = storageServer('gcs')
      const bucket = await makeGcsBucket(endpoint)
      return {
        block: { slug: 'gcs', data: { bucket_path: `${bucket}/flows` } },
        environment: { STORAGE_EMULATOR_HOST: endpoint },
        secret: undefined,
      }
    },
  },
  {
    name: 'smb',
    requirement: 'smb',
    async open() {
      const { data = '', host, port, username, password } = storageServer('smb')
      const folder = await makeDataFolder(data)
      const fields = { share_path: `/flows/${folder.name}`, smb_host: host, smb_port: Number(port) }
      return {
        ...placeOf(folder, password),
        block: { slug: 'smb', data: { ...fields, smb_username: username, smb_password: password } },
      }
    },
  },
  {
    name: 'sftp',
    requirement: 'sftp',
    async open() {
      const { data = '', host, port, username, password } = storageServer('sftp')
      const folder = await makeDataFolder(data)
      // The server's user has no rights of ours.
      await chown(folder.path, 20001, 20001)
      await chown(join(folder.path, 'flows'), 20001, 20001)
      return {
        ...placeOf(folder, password),
        block: remote(`sftp://${host}${folder.path}`, { port: Number(port), username, password }),
      }
    },
  },
  {
    name: 'ftp',
    requirement: 'ftp',
    async open() {
      const { data = '', host, port, username, password } = storageServer('ftp')
      const folder = await makeDataFolder(data)
      return {
        ...placeOf(folder, password),
        block: remote(`ftp://${host}/${folder.name}`, { port: Number(port), username, password }),
      }
    },
  },
  {
    name: 'webdav',
    requirement: 'webdav',
    async open() {
      const { data = '', url, username, password } = storageServer('webdav')
      const folder = await makeDataFolder(data)
      return {
        ...placeOf(folder, password),
        block: remote(`webdav://${folder.name}`, { base_url: url, auth: [username, password] }),
      }
    },
  },
  {
    name: 'git',
    requirement: 'git',
    async open() {
      const { url_tls = '', token } = storageServer('git')
      const { gitEnvironment, makeRepository } = await import('../storage/git-server.ts')
      const repository = await makeRepository('private')
      return {
        block: {
          slug: 'github',
          data: { repository: `${url_tls}${repository.name}`, access_token: token, include_git_objects: false },
        },
        environment: gitEnvironment(),
        secret: token,
        publish: async files => {
          await repository.commit(files)
        },
      }
    },
  },
]

export function placeOf(folder: DataFolder, secret: string | undefined): Omit<StoragePlace, 'block'> {
  return { environment: {}, secret, clear: async () => await folder[Symbol.asyncDispose]() }
}

export function remote(basepath: string, settings: Readonly<Record<string, unknown>>): StorageBlock {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

/** `endpoint` is the one that wants no token. */
export async function makeGcsBucket(endpoint: string): Promise<string> {
  const name = unique()
  const answer = await fetch(`${endpoint}/storage/v1/b?project=rigel`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name }),
  })
  if (!answer.ok) throw new Error(await answer.text())
  return name
}

export async function makeContainer(name: string): Promise<void> {
  const { endpoint = '', account = '', key = '' } = storageServer('azure')
  const { HttpClient } = await import('../../src/storage/http.ts')
  const { openLogin } = await import('../../src/storage/azure-login.ts')
  const http = new HttpClient({ connections: 1 }, { proxies: {} })
  try {
    const { origin, pathname } = new URL(endpoint)
    const signal = AbortSignal.timeout(10_000)
    const request = {
      method: 'PUT',
      path: `${pathname}/${name}`,
      query: { restype: 'container' },
      headers: { 'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2021-08-06', 'content-length': '0' },
    }
    const { headers } = await openLogin({ kind: 'shared key', account, key }, http, {})(request, signal)
    const path = `${request.path}?restype=container`
    const answer = await http.send({ method: 'PUT', origin, path, headers: { ...request.headers, ...headers } }, signal)
    const words = await answer.body.text()
    if (answer.status !== 201) throw new Error(words)
  } finally {
    await http.close()
  }
}
