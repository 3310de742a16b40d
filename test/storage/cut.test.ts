// Connections that are cut again and again where the contract suite's proxy does not reach: the data connections of FTP, the data
// node of WebHDFS, archives, and SFTP connections that are good for a file or two.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import { openStorage, openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { startFtpProxy } from '../support/ftp-proxy.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy, type TcpProxyOptions } from '../support/tcp-proxy.ts'
import { makeTar, makeZip } from './archives.ts'
import { type DataFolder, makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const most = 250_000
/** What no archive makes smaller by much. */
const large = randomBytes(600_000).toString('base64')
const tree = { 'flow.py': 'print("hello")\n', 'large.txt': large }

/** Lets this much of each connection through: a file of 800 kB that is begun anew each time never arrives. */
function cut(
  { bytesBefore, length }: { readonly bytesBefore: number; readonly length: number },
  after = most,
): number | undefined {
  return bytesBefore + length > after ? Math.max(0, after - bytesBefore) : undefined
}

function remote(basepath: string, settings: Readonly<Record<string, unknown>>): StorageBlock {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

async function fetchTree(block: StorageBlock) {
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  const context = makeContext({ cacheDir: join(directory.path, 'cache') })
  await (await openStorage(block, context)).getDirectory(undefined, to, signal)
  return await readTree(to)
}

for (const name of ['ftp', 'ftps'] as const) {
  test(`${name}: a tree arrives whole over data connections that are cut`, needs(name), async () => {
    const { data = '', username, password } = storageServer(name)
    await using folder = await makeDataFolder(data)
    for (const [path, text] of Object.entries(tree)) await folder.put(path, text)
    await using proxy = await startFtpProxy(name, { cut })
    // The certificate is not of the proxy's address.
    const settings = { port: proxy.port, username, password, verify: false }
    assert.deepEqual(await fetchTree(remote(`${name}://${proxy.host}/${folder.name}/flows`, settings)), tree)
    assert.ok(proxy.transfers >= 6, `${proxy.transfers} data connections`)
  })
}

test('sftp: no file is given up that comes late to each of the connections that all share', needs('sftp'), async () => {
  const { host = '', port = '', password = '', data = '' } = storageServer('sftp')
  await using folder = await makeDataFolder(data, 20001)
  const files = Object.fromEntries(Array.from({ length: 60 }, (_, at) => [`${at}.bin`, String(at % 10).repeat(20_000)]))
  for (const [path, text] of Object.entries(files)) await folder.put(path, text)
  // Each connection brings one file or two. Who comes late is a matter of chance, so there are several fetches.
  const fetches = Array.from({ length: 4 }, async () => {
    await using proxy = await startTcpProxy({ host, port: Number(port), cut: piece => cut(piece, 40_000) })
    const settings = { port: proxy.port, username: 'rigel', password }
    assert.deepEqual(await fetchTree(remote(`sftp://127.0.0.1${folder.path}/flows`, settings)), files)
  })
  await Promise.all(fetches)
})

test('webhdfs: a tree arrives whole when the connections to the data node are cut', needs('webhdfs'), async () => {
  const { host = '', port = '', user } = storageServer('webhdfs')
  const address = `webhdfs://${host}:${port}/test-${randomBytes(6).toString('hex')}`
  const storage = await openWritableStorage(remote(address, { user }), makeContext())
  for (const [path, text] of Object.entries(tree)) await storage.writePath(path, Buffer.from(text), signal)
  const node = await findDataNode(
    `http://${host}:${port}/webhdfs/v1${new URL(address).pathname}/flow.py?op=OPEN&user.name=${user}`,
  )
  await using proxy = await startTcpProxy({ host: node.hostname, port: Number(node.port), cut })
  const settings = { user, data_proxy: { [node.origin]: `http://127.0.0.1:${proxy.port}` } }
  assert.deepEqual(await fetchTree(remote(address, settings)), tree)
  assert.ok(proxy.connections >= 4, `${proxy.connections} connections`)
})

/** Where the name node sends those who ask for a file. */
async function findDataNode(url: string): Promise<URL> {
  const [answer] = await once(request(url).end(), 'response')
  answer.resume()
  return new URL(answer.headers.location)
}

interface ArchivePlace extends AsyncDisposable {
  /** Below which on this machine, and on the server, the archive lies. */
  readonly folder: DataFolder
  /** The server's connections so far. */
  connections(): number
  block(kind: 'zip' | 'tar'): StorageBlock
}

/** Places for an archive, on servers each of whose connections is cut. */
const archivePlaces: Readonly<Record<'http' | 'sftp' | 'ftp', (options: Cuts) => Promise<ArchivePlace>>> = {
  async http(options) {
    const { data = '', url = '', username = '', password = '' } = storageServer('http')
    const folder = await makeDataFolder(join(data, 'private'))
    const proxy = await startTcpProxy({ host: new URL(url).hostname, port: Number(new URL(url).port), ...options })
    return place(
      folder,
      proxy,
      () => proxy.connections,
      kind =>
        remote(`${kind}://::http://127.0.0.1:${proxy.port}/private/${folder.name}/code.${kind}`, {
          http: { auth: [username, password] },
        }),
    )
  },
  async sftp(options) {
    const { data = '', host = '', port = '', username, password } = storageServer('sftp')
    const folder = await makeDataFolder(data)
    const proxy = await startTcpProxy({ host, port: Number(port), ...options })
    const settings = { sftp: { port: proxy.port, username, password } }
    return place(
      folder,
      proxy,
      () => proxy.connections,
      kind => remote(`${kind}://::sftp://127.0.0.1${folder.path}/code.${kind}`, settings),
    )
  },
  async ftp(options) {
    const { data = '', username, password } = storageServer('ftp')
    const folder = await makeDataFolder(data)
    const proxy = await startFtpProxy('ftp', options)
    const settings = { ftp: { port: proxy.port, username, password } }
    return place(
      folder,
      proxy,
      () => proxy.transfers,
      kind => remote(`${kind}://::ftp://${proxy.host}/${folder.name}/code.${kind}`, settings),
    )
  },
}

type Cuts = Required<Pick<TcpProxyOptions, 'cut'>>

function place(
  folder: DataFolder,
  proxy: AsyncDisposable,
  connections: () => number,
  block: ArchivePlace['block'],
): ArchivePlace {
  return {
    folder,
    connections,
    block,
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]()
      await folder[Symbol.asyncDispose]()
    },
  }
}

function makeArchive(kind: 'zip' | 'tar', files: Readonly<Record<string, string>>): Buffer {
  const items = Object.entries(files).map(([path, text]) => ({ path, bytes: Buffer.from(text) }))
  return (kind === 'zip' ? makeZip : makeTar)(items)
}

for (const [server, kind] of [
  ['http', 'zip'],
  ['http', 'tar'],
  ['sftp', 'tar'],
  ['ftp', 'zip'],
] as const) {
  test(`${server}: a ${kind} file that fits into none of the connections arrives whole`, needs(server), async () => {
    await using place = await archivePlaces[server]({ cut })
    await writeFile(join(place.folder.path, `code.${kind}`), makeArchive(kind, tree))
    assert.deepEqual(await fetchTree(place.block(kind)), tree)
    assert.ok(place.connections() >= 4, `${place.connections()} connections`)
  })

  test(`${server}: a ${kind} file that is replaced between two connections is begun anew`, needs(server), async () => {
    const after = { ...tree, 'large.txt': randomBytes(600_000).toString('base64') }
    let cuts = 0
    await using place = await archivePlaces[server]({
      cut(piece) {
        const allowed = cut(piece)
        // The first may be the question for its state, the second has brought a part.
        if (allowed !== undefined && ++cuts === 2) writeFileSync(file(), makeArchive(kind, after))
        return allowed
      },
    })
    const file = () => join(place.folder.path, `code.${kind}`)
    await writeFile(file(), makeArchive(kind, tree))
    await utimes(file(), 1, 1)
    assert.deepEqual(await fetchTree(place.block(kind)), after)
  })
}
