// The storages that the bench fetches from: a real server each, filled with 2,000 objects of 4 KiB in 20 folders.

import { randomBytes } from 'node:crypto'
import { mkdir, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { Readable } from 'node:stream'
import { openWritableStorage } from '../src/storage/registry.ts'
import { S3Client } from '../src/storage/s3-client.ts'
import { type AzurePlace, connectionString, openAzurePlace } from '../test/storage/azure-server.ts'
import type { ContractPlace } from '../test/storage/contract.ts'
import { makeDataFolder } from '../test/storage/data-folder.ts'
import { type GcsPlace, openGcsPlace } from '../test/storage/gcs-server.ts'
import { makeRepository } from '../test/storage/git-server.ts'
import { makeBucket, openS3Place, type S3Place, s3BucketBlock } from '../test/storage/s3-server.ts'
import { makeContext } from '../test/storage/support.ts'
import { makeDirectory } from '../test/support/directory.ts'
import { run } from '../test/support/run.ts'
import { missingStorage, storageServer } from '../test/support/storage-servers.ts'

const fileCount = 2000
const fileBytes = 4096
const folders = 20
/** Unix time, in seconds. */
const lastMonth = Math.floor(Date.now() / 1000) - 30 * 24 * 3600

export interface BenchPlace extends Pick<ContractPlace, 'address' | 'block' | 'environment'>, AsyncDisposable {
  readonly put: ContractPlace['put'] | undefined
}

export interface BenchKind {
  /** As on the command line. */
  readonly name: string
  readonly server: Parameters<typeof missingStorage>[0]
  /** How many times faster than Prefect's own block ours is to be, without and with 20 ms for each request. */
  readonly targets?: readonly [number, number]
  /** Empty, or filled already where files do not come one by one. */
  readonly open: () => Promise<BenchPlace>
}

const s3 = (place: S3Place) =>
  remote(`s3://${place.bucket}/flows`, {
    key: place.accessKeyId,
    secret: place.secretAccessKey,
    client_kwargs: { endpoint_url: place.endpoint },
  })

const azure = (place: AzurePlace) => ({
  slug: 'azure',
  data: { bucket_path: `${place.container}/flows`, azure_storage_connection_string: connectionString(place) },
})

const gcs = ({ bucket, endpoint }: GcsPlace) =>
  remote(`gs://${bucket}/flows`, { token: 'anon', endpoint_url: endpoint })

export function missingServer(kind: BenchKind): string | undefined {
  return missingStorage(kind.server)
}

interface FilesPlace {
  readonly host: string
  readonly port: number
  /** Below the server's data, and on this machine. */
  readonly folder: string
  readonly path: string
  readonly password: string
}

/** A server whose data are files of this machine. */
async function openFiles(
  server: 'smb' | 'http' | 'sftp' | 'ftp',
  blockOf: (place: FilesPlace) => ReturnType<BenchPlace['block']>,
): Promise<BenchPlace> {
  const { url = '', host = '', port = '', password = '', data = '' } = storageServer(server)
  // The ssh server's user may read only what is theirs.
  const folder = await makeDataFolder(data, server === 'sftp' ? 20001 : undefined)
  const at =
    url === '' ? { host, port: Number(port) } : { host: new URL(url).hostname, port: Number(new URL(url).port) }
  return {
    async put(path, bytes) {
      await folder.put(path, bytes)
      // As old as code mostly is; what was changed today is asked for file by file over HTTP.
      await utimes(join(folder.path, 'flows', path), lastMonth, lastMonth)
    },
    address: at,
    environment: { PATH: process.env.PATH ?? '' },
    block: (where = at) =>
      blockOf({ ...where, folder: `${folder.name}/flows`, path: join(folder.path, 'flows'), password }),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const openSmb = () =>
  openFiles('smb', ({ host, port, folder, password }) => ({
    slug: 'smb',
    data: {
      share_path: `/flows/${folder}`,
      smb_host: host,
      smb_port: port,
      smb_username: 'rigel',
      smb_password: password,
    },
  }))

/** Through the server, which reads its folders once in five minutes, as rclone comes. */
async function openWebdav(): Promise<BenchPlace> {
  const { url_own: url = '', password = '', data = '' } = storageServer('webdav')
  const name = `bench-${randomBytes(6).toString('hex')}`
  const { hostname: host, port } = new URL(url)
  const block = (at = { host, port: Number(port) }) =>
    remote(`webdav://${name}/flows`, { base_url: `http://${at.host}:${at.port}/`, auth: ['rigel', password] })
  await using directory = await makeDirectory()
  await writeFiles(directory.path)
  const storage = await openWritableStorage(block(), makeContext())
  await storage.putDirectory(directory.path, undefined, undefined, new AbortController().signal)
  return {
    put: undefined,
    address: { host, port: Number(port) },
    environment: {},
    block,
    [Symbol.asyncDispose]: () => rm(join(data, name), { recursive: true }),
  }
}

const openHttp = () => openFiles('http', ({ host, port, folder }) => remote(`http://${host}:${port}/${folder}`, {}))

const openSftp = () =>
  openFiles('sftp', ({ host, port, path, password }) =>
    remote(`sftp://${host}${path}`, { port, username: 'rigel', password }),
  )

const openFtp = () =>
  openFiles('ftp', ({ host, port, folder, password }) =>
    remote(`ftp://${host}/${folder}`, { port, username: 'rigel', password }),
  )

function remote(basepath: string, settings: Readonly<Record<string, unknown>>) {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

export const kinds: readonly BenchKind[] = [
  { name: 's3', server: 's3', targets: [2, 2], open: () => openS3Place('s3', s3) },
  { name: 's3-bucket', server: 's3', targets: [6, 6], open: () => openS3Place('s3', s3BucketBlock) },
  { name: 'azure', server: 'azure', targets: [3, 3], open: () => openAzurePlace(azure) },
  { name: 'gcs', server: 'gcs', targets: [3, 3], open: () => openGcsPlace('files', gcs) },
  { name: 'smb', server: 'smb', targets: [10, 6], open: openSmb },
  { name: 'sftp', server: 'sftp', open: openSftp },
  { name: 'webdav', server: 'webdav', open: openWebdav },
  { name: 'ftp', server: 'ftp', open: openFtp },
  { name: 'http', server: 'http', open: openHttp },
  { name: 'git', server: 'git', open: openGit },
]

async function openGit(): Promise<BenchPlace> {
  const repository = await makeRepository('public')
  await using directory = await makeDirectory()
  await writeFiles(directory.path)
  const git = async (...words: readonly string[]) => {
    const author = ['-c', 'user.name=bench', '-c', 'user.email=bench@localhost']
    const { code, stderr } = await run('git', ['-C', directory.path, ...author, ...words])
    if (code !== 0) throw new Error(stderr)
  }
  await git('init', '--quiet', '--initial-branch=main')
  await git('add', '.')
  await git('commit', '--quiet', '--message=bench')
  await git('push', '--quiet', repository.path, 'main')
  const { hostname: host, port } = new URL(storageServer('git').url ?? '')
  return {
    put: undefined,
    address: { host, port: Number(port) },
    environment: { PATH: process.env.PATH ?? '' },
    block: (at = { host, port: Number(port) }) => ({
      slug: 'github',
      data: { repository: `http://${at.host}:${at.port}/${repository.name}`, include_git_objects: false },
    }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
}

async function writeFiles(folder: string): Promise<void> {
  for (const name of listNames()) {
    const path = join(folder, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, makeContent(name))
  }
}

export async function fill({ put }: BenchPlace): Promise<void> {
  if (!put) return
  const names = listNames().values()
  const lane = async (): Promise<void> => {
    for (const name of names) await put(name, makeContent(name))
  }
  await Promise.all(Array.from({ length: 16 }, lane))
}

export async function openLarge(bytes: number): Promise<Readonly<Record<string, BenchPlace>>> {
  const places: Record<string, BenchPlace> = {}
  if (missingStorage('http') === undefined) {
    const place = await openHttp()
    await place.put?.('large.bin', '')
    await truncate(join(storageServer('http').data ?? '', new URL(basepathOf(place)).pathname, 'large.bin'), bytes)
    places.http = place
  }
  if (missingStorage('s3') === undefined) {
    const bucket = await makeBucket('s3')
    const client = new S3Client({ ...bucket, base: '', folderMarkers: true }, makeContext())
    const body = Readable.from(repeat(Buffer.alloc(2 ** 20, 'large'), bytes / 2 ** 20))
    const headers = { 'content-length': String(bytes) }
    const response = await client.send(
      { method: 'PUT', key: 'flows/large.bin', headers, body },
      new AbortController().signal,
    )
    if (response.status !== 200) throw new Error(await response.body.text())
    await client.close()
    const { hostname: host, port } = new URL(bucket.endpoint)
    const block = (at = { host, port: Number(port) }) => s3({ ...bucket, endpoint: `http://${at.host}:${at.port}` })
    places.s3 = { ...bucket, address: { host, port: Number(port) }, block }
  }
  return places
}

function basepathOf(place: BenchPlace): string {
  return String(place.block().data.basepath)
}

function* repeat(chunk: Buffer, times: number): Generator<Buffer> {
  for (let time = 0; time < times; time++) yield chunk
}

function listNames(): readonly string[] {
  return Array.from({ length: fileCount }, (_, at) => `pkg${at % folders}/module${at}.py`)
}

function makeContent(name: string): string {
  return `# ${name}\n`.repeat(Math.ceil(fileBytes / (name.length + 3))).slice(0, fileBytes)
}
