import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, symlink } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { readLinks } from '../../src/storage/http-index.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { readMultistatus } from '../../src/storage/webdav-url.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, type ContractPlace, type Flaw, testContract } from './contract.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal

interface WebPlace {
  /** Host and port. */
  readonly host: string
  /** Below the server's data. */
  readonly folder: string
  readonly password: string
}

type BlockOf = (place: WebPlace) => StorageBlock

function block(basepath: string, settings: Record<string, unknown>): StorageBlock {
  return { slug: 'remote-file-system', data: { basepath, settings } }
}

/** A server whose data are files of this machine. */
async function openPlace(server: 'http' | 'webdav', url: string, blockOf: BlockOf): Promise<ContractPlace> {
  const { data = '', password = '', ca_file: authority = '' } = storageServer(server)
  const folder = await makeDataFolder(server === 'http' ? join(data, 'private') : data)
  const below = server === 'http' ? `private/${folder.name}` : folder.name
  const { hostname, port } = new URL(url)
  return {
    address: { host: hostname, port: Number(port) },
    environment: authority ? { SSL_CERT_FILE: authority } : {},
    block: (at, flaw) =>
      blockOf(flawed({ host: at ? `${at.host}:${at.port}` : `${hostname}:${port}`, folder: below, password }, flaw)),
    put: (path, bytes) => folder.put(path, bytes),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

function flawed(place: WebPlace, flaw: Flaw | undefined): WebPlace {
  if (flaw === 'no server') return { ...place, host: '127.0.0.1:9' }
  if (flaw === 'missing bucket') return { ...place, folder: `${place.folder}-is-not-there` }
  return flaw === 'wrong secret' ? { ...place, password: `${place.password}x` } : place
}

const contract: Omit<Contract, 'name' | 'open' | 'requirement' | 'secret'> = {
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: false,
  resumes: true,
  reuses: true,
}

testContract({
  ...contract,
  name: 'http:// with index pages',
  requirement: 'http',
  secret: () => storageServer('http').password ?? '',
  open: () =>
    openPlace('http', storageServer('http').url ?? '', ({ host, folder, password }) =>
      block(`http://${host}/${folder}/flows`, { client_kwargs: { auth: { login: 'rigel', password } } }),
    ),
})

testContract({
  ...contract,
  name: 'https:// with the login in the URL',
  requirement: 'http',
  secret: () => storageServer('http').password ?? '',
  open: () =>
    openPlace('http', storageServer('http').url_tls ?? '', ({ host, folder, password }) =>
      block(`https://rigel:${encodeURIComponent(password)}@${host}/${folder}/flows/`, {}),
    ),
})

testContract({
  ...contract,
  name: 'webdav://',
  writes: true,
  requirement: 'webdav',
  secret: () => storageServer('webdav').password ?? '',
  open: () =>
    openPlace('webdav', storageServer('webdav').url ?? '', ({ host, folder, password }) =>
      block(`webdav://${folder}/flows`, { base_url: `http://${host}/`, auth: ['rigel', password] }),
    ),
})

testContract({
  ...contract,
  name: 'webhdfs://',
  writes: true,
  requirement: 'webhdfs',
  checksCredentials: false,
  // Files are sent by the data node, past a proxy in front of the name node.
  resumes: false,
  async open(): Promise<ContractPlace> {
    const { host = '', port = '', user = '' } = storageServer('webhdfs')
    const folder = `test-${randomBytes(6).toString('hex')}`
    const put = async (path: string, bytes: string | Uint8Array) => {
      const name = path.split('/').map(encodeURIComponent).join('/')
      const query = `op=CREATE&overwrite=true&user.name=${user}`
      const { location } = await send(`http://${host}:${port}/webhdfs/v1/${folder}/flows/${name}?${query}`)
      assert.equal((await send(location, bytes)).status, 201)
    }
    return {
      address: { host, port: Number(port) },
      block(at, flaw) {
        const place = flawed({ host: at ? `${at.host}:${at.port}` : `${host}:${port}`, folder, password: '' }, flaw)
        return block(`webhdfs://${place.host}/${place.folder}/flows`, { user })
      },
      put,
      async [Symbol.asyncDispose]() {
        // Hadoop's folder goes with the server.
      },
    }
  },
})

/** By Node's own client: Hadoop says "100 Continue" to those who did not ask, which undici takes for an error. */
async function send(
  url: string,
  body?: string | Uint8Array,
): Promise<{ status: number | undefined; location: string }> {
  const sent = request(url, { method: 'PUT' }).end(body)
  // The event's one argument is the answer.
  const [answer]: IncomingMessage[] = await once(sent, 'response')
  assert(answer)
  answer.resume()
  await once(answer, 'end')
  return { status: answer.statusCode, location: answer.headers.location ?? '' }
}

test('an index page gives what lies below it and nothing else', () => {
  const html = `<a href="../">up</a> <a href="?C=N;O=D">Name</a> <A class=x HREF='a%20b.py'>1</A> <a href="sub/">2</a>
    <a href="/top/x.py">3</a> <a href="/other/y.py">4</a> <a href="http://evil/top/z.py">5</a> <a href="a&amp;b">6</a>
    <a href="sub/deep.py">7</a> <a href="..%2f..%2fevil">8</a> <a href="%ff">9</a> <a href="100%">10</a> <a href="sub/">again</a>`
  assert.deepEqual(
    readLinks(html, 'http://host/top/').map(({ path, isFolder }) => (isFolder ? `${path}/` : path)),
    // The last is not UTF-8, which TreeNames refuses.
    ['a b.py', 'sub/', 'x.py', 'a&b', 'sub/deep.py', '../../evil', '\ufffd'],
  )
})

test('a multistatus is read whatever its prefixes are', () => {
  const xml = `<?xml version="1.0"?><multistatus xmlns="DAV:"><response><href>/a/</href><propstat><prop><resourcetype><collection/></resourcetype></prop></propstat></response>
    <lp1:response xmlns:lp1="DAV:"><D:href>/a/b&amp;c.py</D:href><lp1:getcontentlength>12</lp1:getcontentlength><lp1:getetag>"e"</lp1:getetag><lp1:resourcetype/></lp1:response></multistatus>`
  assert.deepEqual(readMultistatus(xml), [
    { href: '/a/', isFolder: true, size: undefined, validator: undefined },
    { href: '/a/b&c.py', isFolder: false, size: 12, validator: '"e"' },
  ])
})

test(
  'an index page without credentials, and a folder whose name is encoded in the base path',
  needs('http'),
  async () => {
    const { url = '', data = '' } = storageServer('http')
    await using folder = await makeDataFolder(data)
    await folder.put('a b/100%/flow.py', 'x')
    await mkdir(join(folder.path, 'flows/a b/empty'))
    await symlink('flow.py', join(folder.path, 'flows/a b/100%/link.py'))
    await using directory = await makeDirectory()
    const storage = await openStorage(block(`${url}${folder.name}/flows/a%20b`, {}), makeContext())
    await storage.getDirectory(undefined, directory.path, signal)
    assert.deepEqual(await readTree(directory.path), { '100%/flow.py': 'x', '100%/link.py': 'x', empty: null })
  },
)

test('pages that are made to be slow to read are not', () => {
  const before = process.threadCpuUsage()
  assert.deepEqual(readLinks('<a x '.repeat(100_000), 'http://host/'), [])
  assert.deepEqual(readMultistatus('<d:response ><d:href '.repeat(100_000)), [])
  // Of the processor, so that a machine that stands still is not taken for it.
  const { user } = process.threadCpuUsage(before)
  assert.ok(user < 5_000_000, `${user} µs`)
})
