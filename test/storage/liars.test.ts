// Servers whose disk holds no name with `..` can still say one: a real server, and behind it a proxy that puts another name in its
// listing. (SFTP and SMB encrypt and sign what they say; their listings are read by the same rule for names.)

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { openStorage, openWritableStorage } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { startFtpProxy } from '../support/ftp-proxy.ts'
import { needs, type Requirement } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy, type TcpProxy, type TcpProxyOptions } from '../support/tcp-proxy.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeBucket, s3BucketBlock } from './s3-server.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal
const honest = 'honest.py'

type ProxyAddress = Pick<TcpProxy, 'host' | 'port'>

interface Place extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** The block's fields, with the server at another address of this machine. */
  fields(at: ProxyAddress): { readonly basepath: string; readonly settings: Readonly<Record<string, unknown>> }
}

interface Liar {
  readonly requirement: Requirement
  /** Of the length of the honest name, as this protocol writes it. */
  readonly name: string
  readonly startProxy: (options: TcpProxyOptions) => Promise<AsyncDisposable & ProxyAddress>
  readonly open: () => Promise<Place>
}

async function openFolder(
  server: 'http' | 'webdav' | 'ftp',
  fieldsOf: (below: string) => Place['fields'],
): Promise<Place> {
  const { data = '', url, host = '', port = '' } = storageServer(server)
  const folder = await makeDataFolder(server === 'http' ? join(data, 'private') : data)
  await folder.put(honest, 'print("hello")\n')
  // What the lie names is there for who asks.
  await folder.put('../e.py', 'evil')
  const address =
    url === undefined ? { host, port: Number(port) } : { host: new URL(url).hostname, port: Number(new URL(url).port) }
  return {
    ...address,
    fields: fieldsOf(`${server === 'http' ? 'private/' : ''}${folder.name}/flows`),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const liars: readonly Liar[] = [
  {
    requirement: 'http',
    name: '..%2fe.py',
    startProxy: startTcpProxy,
    open: () => {
      const { username, password } = storageServer('http')
      return openFolder('http', below => ({ host, port }) => ({
        basepath: `http://${host}:${port}/${below}/`,
        settings: { auth: [username, password] },
      }))
    },
  },
  {
    requirement: 'webdav',
    name: '..%2fe.py',
    startProxy: startTcpProxy,
    open: () => {
      const { username, password } = storageServer('webdav')
      return openFolder('webdav', below => ({ host, port }) => ({
        basepath: `webdav://${below}`,
        settings: { base_url: `http://${host}:${port}/`, auth: [username, password] },
      }))
    },
  },
  {
    requirement: 'ftp',
    name: '../../e.p',
    startProxy: options => startFtpProxy('ftp', options),
    open: () => {
      const { username, password } = storageServer('ftp')
      return openFolder('ftp', below => ({ host, port }) => ({
        basepath: `ftp://${host}/${below}`,
        settings: { port, username, password },
      }))
    },
  },
  {
    requirement: 'webhdfs',
    name: '../../e.p',
    startProxy: startTcpProxy,
    async open() {
      const { host = '', port = '', user } = storageServer('webhdfs')
      const folder = `test-${randomBytes(6).toString('hex')}`
      const fields = (at: ProxyAddress) => ({
        basepath: `webhdfs://${at.host}:${at.port}/${folder}`,
        settings: { user },
      })
      const block = { slug: 'remote-file-system', data: fields({ host, port: Number(port) }) }
      const storage = await openWritableStorage(block, makeContext())
      await storage.writePath(honest, Buffer.from('print("hello")\n'), signal)
      return {
        host,
        port: Number(port),
        fields,
        async [Symbol.asyncDispose]() {
          // Hadoop's folder goes with the server.
        },
      }
    },
  },
]

test('s3: a large object that is listed as a small one is not gathered', needs('s3'), async () => {
  await using place = await makeBucket('s3')
  const size = 60 * 1024 * 1024
  await place.put('flows/large.bin', Buffer.alloc(size))
  const change = (piece: Buffer) =>
    Buffer.from(
      piece.toString('latin1').replace(`<Size>${size}<`, `<Size>${'10'.padStart(String(size).length, '0')}<`),
      'latin1',
    )
  const { hostname, port } = new URL(place.endpoint)
  await using proxy = await startTcpProxy({ host: hostname, port: Number(port), change })
  await using directory = await makeDirectory()
  const block = s3BucketBlock({ ...place, endpoint: `http://127.0.0.1:${proxy.port}` })
  const storage = await openStorage(block, makeContext())
  await assert.rejects(storage.getDirectory(undefined, directory.path, signal), {
    name: 'StorageError',
    message: /"large\.bin" is larger than it was listed/,
  })
  // Three times, for it might have grown; what is in the buffers on the way comes with it.
  assert.ok(proxy.bytes < size, `${proxy.bytes} bytes`)
})

test('ftp: a listing without an end is not gathered', needs('ftp'), async () => {
  const { data = '', username, password } = storageServer('ftp')
  await using folder = await makeDataFolder(data)
  await folder.put(honest, 'print("hello")\n')
  await using proxy = await startFtpProxy('ftp', { change: piece => Buffer.alloc(4 * 1024 * 1024, piece) })
  await using directory = await makeDirectory()
  const basepath = `ftp://${proxy.host}/${folder.name}/flows`
  const block = { slug: 'remote-file-system', data: { basepath, settings: { port: proxy.port, username, password } } }
  const storage = await openStorage(block, makeContext({ limits: { maxBytes: 1e9, maxFiles: 1000, maxSeconds: 60 } }))
  await assert.rejects(storage.getDirectory(undefined, directory.path, signal), {
    name: 'StorageError',
    message: /Its listing is longer than one of 1000 files can be/,
  })
})

for (const { requirement, name, startProxy, open } of liars) {
  test(
    `${requirement}: a name that would leave the tree, in a server's own listing, brings nothing there`,
    needs(requirement),
    async () => {
      assert.equal(name.length, honest.length)
      await using directory = await makeDirectory()
      await using place = await open()
      let lies = 0
      const change = (piece: Buffer) => {
        const text = piece.toString('latin1')
        lies += text.split(honest).length - 1
        return Buffer.from(text.replaceAll(honest, name), 'latin1')
      }
      await using proxy = await startProxy({ host: place.host, port: place.port, change })
      const to = join(directory.path, 'runs', 'workspace', 'code')
      await mkdir(to, { recursive: true })
      const block = { slug: 'remote-file-system', data: place.fields(proxy) }
      const context = makeContext({ cacheDir: join(directory.path, 'cache') })
      const storage = await openStorage(block, context)
      await assert.rejects(storage.getDirectory(undefined, to, signal), {
        name: 'StorageError',
        message: /could lead out of the folder: nothing was written/,
      })
      assert.ok(lies > 0, 'it was never told a lie')
      assert.deepEqual(await readdir(join(directory.path, 'runs'), { recursive: true }), [
        'workspace',
        'workspace/code',
      ])
    },
  )
}
