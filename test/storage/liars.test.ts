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
import { startTcpProxy, type TcpProxyOptions } from '../support/tcp-proxy.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal
const honest = 'honest.py'

interface Place extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** The block's fields, with the server at another port of this machine. */
  fields(port: number): { readonly basepath: string; readonly settings: Readonly<Record<string, unknown>> }
}

interface Liar {
  readonly requirement: Requirement
  /** Of the length of the honest name, as this protocol writes it. */
  readonly name: string
  readonly startProxy: (options: TcpProxyOptions) => Promise<AsyncDisposable & { readonly port: number }>
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
      return openFolder('http', below => port => ({
        basepath: `http://127.0.0.1:${port}/${below}/`,
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
      return openFolder('webdav', below => port => ({
        basepath: `webdav://${below}`,
        settings: { base_url: `http://127.0.0.1:${port}/`, auth: [username, password] },
      }))
    },
  },
  {
    requirement: 'ftp',
    name: '../../e.p',
    startProxy: startFtpProxy,
    open: () => {
      const { username, password } = storageServer('ftp')
      return openFolder('ftp', below => port => ({
        basepath: `ftp://127.0.0.1/${below}`,
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
      const fields = (at: number) => ({ basepath: `webhdfs://127.0.0.1:${at}/${folder}`, settings: { user } })
      const block = { slug: 'remote-file-system', data: fields(Number(port)) }
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
      const block = { slug: 'remote-file-system', data: place.fields(proxy.port) }
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
