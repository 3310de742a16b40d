// Connections that are cut again and again where the contract suite's proxy does not reach: FTP's data connections, the data node of
// WebHDFS, and archives, which are begun anew.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import test from 'node:test'
import { openStorage, openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { startFtpProxy } from '../support/ftp-proxy.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { makeTar, makeZip } from './archives.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const most = 250_000
/** What no archive makes smaller by much. */
const large = randomBytes(600_000).toString('base64')
const tree = { 'flow.py': 'print("hello")\n', 'large.txt': large }

/** Lets this much of each connection through: a file of 800 kB that is begun anew each time never arrives. */
function cut({ bytesBefore, length }: { readonly bytesBefore: number; readonly length: number }): number | undefined {
  return bytesBefore + length > most ? Math.max(0, most - bytesBefore) : undefined
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

for (const [kind, make] of [
  ['zip', makeZip],
  ['tar', makeTar],
] as const) {
  test(`${kind}: an archive on a web server arrives whole after connections that are cut`, needs('http'), async () => {
    const { data = '', url = '', username = '', password = '' } = storageServer('http')
    await using folder = await makeDataFolder(join(data, 'private'))
    const items = Object.entries(tree).map(([path, text]) => ({ path, bytes: Buffer.from(text) }))
    await writeFile(join(folder.path, `code.${kind}`), make(items))
    const { hostname, port } = new URL(url)
    await using proxy = await startTcpProxy({
      host: hostname,
      port: Number(port),
      cut: piece => (piece.connection < 3 ? cut(piece) : undefined),
    })
    const basepath = `${kind}://::http://127.0.0.1:${proxy.port}/private/${folder.name}/code.${kind}`
    const arrived = await fetchTree(remote(basepath, { http: { auth: [username, password] } }))
    assert.deepEqual(Object.keys(arrived), Object.keys(tree))
    assert.ok(JSON.stringify(arrived).includes(large))
    assert.ok(proxy.connections >= 4, `${proxy.connections} connections`)
  })
}
