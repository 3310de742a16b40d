// The other ways to name the storages of storage-places.ts: block types of Prefect's integrations, protocols of remote-file-system,
// other logins. Each is gone once, with the embedded server, for what differs is on the agent's side of the API.

import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { makeTar, makeZip } from '../storage/archives.ts'
import { makeDataFolder } from '../storage/data-folder.ts'
import { storageServer } from '../support/storage-servers.ts'
import {
  makeContainer,
  makeGcsBucket,
  placeOf,
  remote,
  type StorageKind,
  type StoragePlace,
  unique,
} from './storage-places.ts'

export const storageVariants: readonly StorageKind[] = [
  s3('s3-bucket', ({ bucket, endpoint, accessKeyId, secretAccessKey }) => ({
    slug: 's3-bucket',
    data: {
      bucket_name: bucket,
      bucket_folder: 'flows',
      credentials: {
        minio_root_user: accessKeyId,
        minio_root_password: secretAccessKey,
        aws_client_parameters: { endpoint_url: endpoint },
      },
    },
  })),
  s3('s3-url', ({ bucket, endpoint, accessKeyId, secretAccessKey }) =>
    remote(`s3://${bucket}/flows`, { key: accessKeyId, secret: secretAccessKey, endpoint_url: endpoint }),
  ),
  azure('azure-blob-storage-container', (container, connection_string) => ({
    slug: 'azure-blob-storage-container',
    data: { container_name: container, base_folder: 'flows', credentials: { connection_string } },
  })),
  azure('az-url', (container, connection_string) => remote(`az://${container}/flows`, { connection_string })),
  {
    name: 'gcs-bucket',
    requirement: 'gcs',
    async open() {
      const { endpoint = '', endpoint_auth = '', service_account_file: file = '' } = storageServer('gcs')
      const service_account_info = JSON.parse(readFileSync(file, 'utf8'))
      return {
        block: {
          slug: 'gcs-bucket',
          data: {
            bucket: await makeGcsBucket(endpoint),
            bucket_folder: 'flows',
            gcp_credentials: { service_account_info },
          },
        },
        environment: { STORAGE_EMULATOR_HOST: endpoint_auth },
        secret: service_account_info.private_key.split('\n')[3],
      }
    },
  },
  {
    name: 'gs-url',
    requirement: 'gcs',
    async open() {
      const { endpoint = '' } = storageServer('gcs')
      const bucket = await makeGcsBucket(endpoint)
      return {
        block: remote(`gs://${bucket}/flows`, { token: 'anon', endpoint_url: endpoint }),
        environment: {},
        secret: undefined,
      }
    },
  },
  {
    name: 'smb-url',
    requirement: 'smb',
    async open() {
      const { data_encrypted = '', host, port, username, password } = storageServer('smb')
      const folder = await makeDataFolder(data_encrypted)
      const settings = { port: Number(port), username: `WORKGROUP\\${username}`, password, encrypt: true }
      return { ...placeOf(folder, password), block: remote(`smb://${host}/sealed/${folder.name}`, settings) }
    },
  },
  {
    name: 'ftps-url',
    requirement: 'ftps',
    async open() {
      const { data = '', host, port, username, password, ca_file = '' } = storageServer('ftps')
      const folder = await makeDataFolder(data)
      return {
        ...placeOf(folder, password),
        environment: { SSL_CERT_FILE: ca_file },
        block: remote(`ftps://${host}/${folder.name}`, { port: Number(port), username, password }),
      }
    },
  },
  {
    name: 'webhdfs-url',
    requirement: 'webhdfs',
    async open() {
      const { host, port, user } = storageServer('webhdfs')
      // Hadoop's folder goes with the server.
      return {
        block: remote(`webhdfs://${host}:${port}/${unique()}`, { user }),
        environment: {},
        secret: undefined,
      }
    },
  },
  web('http-url', 'url', (url, username, password) => remote(url, { auth: [username, password] })),
  web('https-url', 'url_tls', (url, username, password) =>
    remote(url, { client_kwargs: { auth: { login: username, password } } }),
  ),
  archive('zip-url', makeZip),
  archive('tar-url', makeTar),
  git('github-repository', (url, token) => ({ repository_url: url, credentials: { token } })),
  git('gitlab-repository', (url, token) => ({ repository: url, credentials: { token } })),
  git('bitbucket-repository', (url, token) => ({ repository: url, bitbucket_credentials: { token } })),
  {
    name: 'git-url',
    requirement: 'git',
    async open() {
      const { gitEnvironment, makeRepository } = await import('../storage/git-server.ts')
      const repository = await makeRepository('public')
      return {
        block: remote(`git://${repository.path}:main@flows`, {}),
        environment: gitEnvironment(),
        secret: undefined,
        publish: async files => {
          const below = Object.entries(files).map(([path, text]) => [`flows/${path}`, text])
          await repository.commit(Object.fromEntries(below))
        },
      }
    },
  },
]

interface Bucket {
  readonly bucket: string
  readonly endpoint: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

function s3(name: string, blockOf: (bucket: Bucket) => StorageBlock): StorageKind {
  return {
    name,
    requirement: 's3',
    async open() {
      const { makeBucket } = await import('../storage/s3-server.ts')
      await using made = await makeBucket('s3')
      return { block: blockOf(made), environment: {}, secret: made.secretAccessKey }
    },
  }
}

function azure(name: string, blockOf: (container: string, connectionString: string) => StorageBlock): StorageKind {
  return {
    name,
    requirement: 'azure',
    async open() {
      const { connection_string = '', key } = storageServer('azure')
      const container = unique()
      await makeContainer(container)
      return { block: blockOf(container, connection_string), environment: {}, secret: key }
    },
  }
}

/** A folder of this machine that the web server shows to those who log in. */
async function openWebFolder(which: 'url' | 'url_tls') {
  const server = storageServer('http')
  const { data = '', username = '', password = '', ca_file = '' } = server
  const folder = await makeDataFolder(join(data, 'private'))
  const place: Omit<StoragePlace, 'block'> = { ...placeOf(folder, password), environment: { SSL_CERT_FILE: ca_file } }
  return { folder, place, username, password, url: `${server[which]}private/${folder.name}/flows` }
}

function web(
  name: string,
  which: 'url' | 'url_tls',
  blockOf: (url: string, username: string, password: string) => StorageBlock,
): StorageKind {
  return {
    name,
    requirement: 'http',
    async open() {
      const { folder, place, url, username, password } = await openWebFolder(which)
      return {
        ...place,
        block: blockOf(`${url}/`, username, password),
        publish: async files => {
          for (const [path, text] of Object.entries(files)) await folder.put(path, text)
        },
      }
    },
  }
}

function archive(name: 'zip-url' | 'tar-url', make: typeof makeZip): StorageKind {
  return {
    name,
    requirement: 'http',
    async open() {
      const { folder, place, url, username, password } = await openWebFolder('url')
      const kind = name.slice(0, 3)
      return {
        ...place,
        block: remote(`${kind}://flows::${url}/code.${kind}`, { http: { auth: [username, password] } }),
        publish: async files => {
          const items = Object.entries(files).map(([path, text]) => ({
            path: `flows/${path}`,
            bytes: Buffer.from(text),
          }))
          await writeFile(join(folder.path, 'flows', `code.${kind}`), make(items))
        },
      }
    },
  }
}

function git(slug: string, dataOf: (url: string, token: string) => Readonly<Record<string, unknown>>): StorageKind {
  return {
    name: slug,
    requirement: 'git',
    async open() {
      const { url_tls = '', token = '' } = storageServer('git')
      const { gitEnvironment, makeRepository } = await import('../storage/git-server.ts')
      const repository = await makeRepository('private')
      return {
        block: { slug, data: dataOf(`${url_tls}${repository.name}`, token) },
        environment: gitEnvironment(),
        secret: token,
        publish: async files => {
          await repository.commit(files)
        },
      }
    },
  }
}
