// What the examples of docs/storage.md are on the test servers: the texts to put in place of theirs, and a folder with one file.

import { chown, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openWritableStorage } from '../../src/storage/registry.ts'
import { makeZip } from '../storage/archives.ts'
import { connectionString, openAzurePlace } from '../storage/azure-server.ts'
import { makeDataFolder } from '../storage/data-folder.ts'
import { openGcsPlace } from '../storage/gcs-server.ts'
import { gitEnvironment, makeRepository } from '../storage/git-server.ts'
import { makeBucket } from '../storage/s3-server.ts'
import { makeContext } from '../storage/support.ts'
import type { Requirement } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { remote, unique } from './storage-places.ts'

const code = { 'flow.py': 'print("hello")\n' }

type Json = Readonly<Record<string, unknown>>

export interface Real {
  /** Texts of the example, and what they are here. */
  readonly values: Readonly<Record<string, string>>
  /** Fields of the block, or of its settings, that only a test server needs. */
  readonly added?: Json
  /** Settings that the row names and its example of an address cannot show. */
  readonly settings?: Json
  readonly environment?: Readonly<Record<string, string>>
}

export interface Row {
  readonly requirement?: Requirement
  readonly open: (directory: string, stack: AsyncDisposableStack) => Promise<Real>
}

async function s3(stack: AsyncDisposableStack) {
  const made = stack.use(await makeBucket('s3'))
  await made.put('flows/flow.py', code['flow.py'])
  return made
}

async function azure(stack: AsyncDisposableStack) {
  const place = stack.use(
    await openAzurePlace(made => ({
      slug: '',
      data: { container: made.container, connection_string: connectionString(made) },
    })),
  )
  await place.put('flow.py', code['flow.py'])
  const { container, connection_string } = place.block().data
  return { container: String(container), connection: String(connection_string) }
}

async function gcs(stack: AsyncDisposableStack) {
  const place = stack.use(
    await openGcsPlace('guarded', ({ bucket, endpoint }) => ({ slug: '', data: { bucket, endpoint } })),
  )
  await place.put('flow.py', code['flow.py'])
  const { bucket, endpoint } = place.block().data
  const keyFile = storageServer('gcs').service_account_file ?? ''
  return { bucket: String(bucket), keyFile, environment: { STORAGE_EMULATOR_HOST: String(endpoint) } }
}

async function dataFolder(stack: AsyncDisposableStack, root: string, owner?: number) {
  const folder = stack.use(await makeDataFolder(root, owner))
  await folder.put('flow.py', code['flow.py'])
  return folder
}

async function publicRepository(): Promise<string> {
  const repository = await makeRepository('public')
  await repository.commit(code)
  return `${storageServer('git').url_tls}${repository.name}`
}

function host(name: string, address: string): Row {
  return {
    requirement: 'git',
    async open() {
      const values: Record<string, string> = { [address]: await publicRepository() }
      if (name === 'gitlab-repository') values['"t"'] = JSON.stringify(storageServer('git').token)
      return { values, environment: gitEnvironment() }
    },
  }
}

const login = (server: string) => {
  const { username = '', password = '' } = storageServer(server)
  return { '"u"': JSON.stringify(username), '"p"': JSON.stringify(password) }
}

export const blocks: Readonly<Record<string, Row>> = {
  'local-file-system': {
    async open(directory) {
      await writeFile(join(directory, 'flow.py'), code['flow.py'])
      return { values: { '/srv/flows': directory } }
    },
  },
  s3: {
    requirement: 's3',
    async open(_, stack) {
      const { bucket, endpoint, accessKeyId, secretAccessKey } = await s3(stack)
      return {
        values: { 'bucket/flows': `${bucket}/flows` },
        environment: {
          AWS_ENDPOINT_URL: endpoint,
          AWS_ACCESS_KEY_ID: accessKeyId,
          AWS_SECRET_ACCESS_KEY: secretAccessKey,
        },
      }
    },
  },
  's3-bucket': {
    requirement: 's3',
    async open(_, stack) {
      const { bucket, endpoint, accessKeyId, secretAccessKey } = await s3(stack)
      const keys = { '"u"': JSON.stringify(accessKeyId), '"p"': JSON.stringify(secretAccessKey) }
      return { values: { '"bucket"': `"${bucket}"`, 'http://minio:9000': endpoint, ...keys } }
    },
  },
  azure: {
    requirement: 'azure',
    async open(_, stack) {
      const { container, connection } = await azure(stack)
      return { values: { 'container/flows': `${container}/flows`, '…': connection } }
    },
  },
  'azure-blob-storage-container': {
    requirement: 'azure',
    async open(_, stack) {
      const { container, connection } = await azure(stack)
      return { values: { '"container"': `"${container}"`, '…': connection } }
    },
  },
  gcs: {
    requirement: 'gcs',
    async open(_, stack) {
      const { bucket, keyFile, environment } = await gcs(stack)
      const values = { 'bucket/flows': `${bucket}/flows` }
      return { values, environment: { ...environment, GOOGLE_APPLICATION_CREDENTIALS: keyFile } }
    },
  },
  'gcs-bucket': {
    requirement: 'gcs',
    async open(_, stack) {
      const { bucket, keyFile, environment } = await gcs(stack)
      return { values: { '"bucket": "bucket"': `"bucket": "${bucket}"`, '/etc/key.json': keyFile }, environment }
    },
  },
  smb: {
    requirement: 'smb',
    async open(_, stack) {
      const { data = '', host = '', port } = storageServer('smb')
      const folder = await dataFolder(stack, data)
      const values = { '/SHARE/flows': `/flows/${folder.name}/flows`, '"files"': JSON.stringify(host), ...login('smb') }
      return { values, added: { smb_port: Number(port) } }
    },
  },
  github: host('github', 'https://github.com/org/repo.git'),
  'github-repository': host('github-repository', 'https://github.com/org/repo.git'),
  'gitlab-repository': host('gitlab-repository', 'https://gitlab.com/org/repo.git'),
  'bitbucket-repository': host('bitbucket-repository', 'https://bitbucket.org/org/repo.git'),
  'remote-file-system': {
    requirement: 'sftp',
    async open(_, stack) {
      const { address, port } = await sftp(stack)
      return { values: { 'sftp://host/srv/flows': address, ...login('sftp') }, settings: { port } }
    },
  },
}

async function sftp(stack: AsyncDisposableStack) {
  const { data = '', host, port } = storageServer('sftp')
  // The server's user has no rights of ours.
  const folder = await dataFolder(stack, data, 20001)
  await chown(folder.path, 20001, 20001)
  return { address: `sftp://${host}${folder.path}/flows`, port: Number(port) }
}

/** By the address of the example. */
export const protocols: Readonly<Record<string, Row>> = {
  's3://bucket/flows': {
    requirement: 's3',
    async open(_, stack) {
      const { bucket, endpoint, accessKeyId: key, secretAccessKey: secret } = await s3(stack)
      return { values: { '/bucket/': `/${bucket}/` }, settings: { key, secret, endpoint_url: endpoint } }
    },
  },
  'gs://bucket/flows': {
    requirement: 'gcs',
    async open(_, stack) {
      const { bucket, keyFile, environment } = await gcs(stack)
      const endpoint_url = environment.STORAGE_EMULATOR_HOST
      return { values: { '/bucket/': `/${bucket}/` }, settings: { token: keyFile, endpoint_url } }
    },
  },
  'az://container/flows': {
    requirement: 'azure',
    async open(_, stack) {
      const { container, connection } = await azure(stack)
      return { values: { '/container/': `/${container}/` }, settings: { connection_string: connection } }
    },
  },
  'smb://host/share/flows': {
    requirement: 'smb',
    async open(_, stack) {
      const { data = '', host, port, username, password } = storageServer('smb')
      const folder = await dataFolder(stack, data)
      const values = { 'host/share/flows': `${host}/flows/${folder.name}/flows` }
      return { values, settings: { username, password, port: Number(port) } }
    },
  },
  'sftp://host/srv/flows': {
    requirement: 'sftp',
    async open(_, stack) {
      const { username, private_key_file: key_filename } = storageServer('sftp')
      const { address, port } = await sftp(stack)
      return { values: { 'sftp://host/srv/flows': address }, settings: { username, port, key_filename } }
    },
  },
  'ftps://host/flows': {
    requirement: 'ftps',
    async open(_, stack) {
      const { data = '', host, port, username, password, ca_file } = storageServer('ftps')
      const folder = await dataFolder(stack, data)
      const values = { 'host/flows': `${host}/${folder.name}/flows` }
      return { values, settings: { username, password, port: Number(port), verify: ca_file } }
    },
  },
  'https://host/flows/': {
    requirement: 'http',
    async open(_, stack) {
      const { data = '', url_tls, username = '', password = '' } = storageServer('http')
      const folder = await dataFolder(stack, join(data, 'private'))
      const values = { 'https://host/': `${url_tls}private/${folder.name}/` }
      return { values, settings: { auth: [username, password], ssl: false } }
    },
  },
  'webdav://flows': {
    requirement: 'webdav',
    async open(_, stack) {
      const { data = '', url: base_url, username, password } = storageServer('webdav')
      const folder = await dataFolder(stack, data)
      return { values: { '//flows': `//${folder.name}/flows` }, settings: { base_url, auth: [username, password] } }
    },
  },
  'webhdfs://host:9870/flows': {
    requirement: 'webhdfs',
    async open() {
      const { host, port, user } = storageServer('webhdfs')
      const address = `webhdfs://${host}:${port}/${unique()}`
      const storage = await openWritableStorage(remote(address, { user }), makeContext())
      await storage.writePath('flow.py', Buffer.from(code['flow.py']), new AbortController().signal)
      return { values: { 'webhdfs://host:9870/flows': address }, settings: { user } }
    },
  },
  'git:///srv/repo.git:main@flows': {
    requirement: 'git',
    async open() {
      const repository = await makeRepository('public')
      await repository.commit({ 'flows/flow.py': code['flow.py'] })
      return { values: { '/srv/repo.git': repository.path }, environment: gitEnvironment() }
    },
  },
  'zip://flows::s3://bucket/code.zip': {
    requirement: 's3',
    async open(_, stack) {
      const made = await s3(stack)
      const { bucket, endpoint, accessKeyId: key, secretAccessKey: secret } = made
      await made.put('code.zip', makeZip([{ path: 'flows/flow.py', bytes: Buffer.from(code['flow.py']) }]))
      return { values: { '/bucket/': `/${bucket}/` }, settings: { s3: { key, secret, endpoint_url: endpoint } } }
    },
  },
}
