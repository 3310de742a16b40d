import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { gunzipSync, zstdCompressSync } from 'node:zlib'
import { defaultLimits, makeMeter } from '../../src/storage/context.ts'
import { openStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { run } from '../support/run.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type ArchiveItem, makeTar, makeZip } from './archives.ts'
import { type Contract, type ContractPlace, testContract } from './contract.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const kinds = { zip: { make: makeZip, file: 'code.zip' }, tar: { make: makeTar, file: 'code.tar.gz' } }

interface ArchivePlace {
  readonly host: string
  readonly folder: string
  readonly password: string
  readonly file: string
}

async function openPlace(
  kind: 'zip' | 'tar',
  server: 'http' | 'webdav',
  blockOf: (place: ArchivePlace) => StorageBlock,
): Promise<ContractPlace> {
  const { data = '', password = '', url = '' } = storageServer(server)
  const folder = await makeDataFolder(server === 'http' ? join(data, 'private') : data)
  const { make, file } = kinds[kind]
  const { hostname, port, host } = new URL(url)
  const items: ArchiveItem[] = []
  return {
    address: { host: hostname, port: Number(port) },
    block(at, flaw) {
      const own = {
        host: at ? `${at.host}:${at.port}` : host,
        folder: server === 'http' ? `private/${folder.name}` : folder.name,
      }
      const place = { ...own, password, file }
      if (flaw === 'no server') return blockOf({ ...place, host: '127.0.0.1:9' })
      if (flaw === 'missing bucket') return blockOf({ ...place, folder: 'is-not-there' })
      return blockOf(flaw === 'wrong secret' ? { ...place, password: `${password}x` } : place)
    },
    async put(path, bytes) {
      const item = { path, bytes: Buffer.from(bytes) }
      const known = items.findIndex(({ path }) => path === item.path)
      items.splice(known < 0 ? items.length : known, 1, item)
      await writeFile(join(folder.path, file), make(items))
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const contract: Omit<Contract, 'name' | 'open' | 'requirement' | 'secret'> = {
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: true,
  resumes: false,
  reuses: false,
}

testContract({
  ...contract,
  name: 'zip:// in a chain over http://',
  requirement: 'http',
  secret: () => storageServer('http').password ?? '',
  open: () =>
    openPlace('zip', 'http', ({ host, folder, password, file }) => ({
      slug: 'remote-file-system',
      data: {
        basepath: `zip://::http://${host}/${folder}/${file}`,
        settings: { http: { client_kwargs: { auth: ['rigel', password] } } },
      },
    })),
})

testContract({
  ...contract,
  name: 'tar:// with fo over webdav://',
  requirement: 'webdav',
  secret: () => storageServer('webdav').password ?? '',
  open: () =>
    openPlace('tar', 'webdav', ({ host, folder, password, file }) => ({
      slug: 'remote-file-system',
      data: {
        basepath: 'tar:///',
        settings: {
          fo: `webdav://${folder}/${file}`,
          target_options: { base_url: `http://${host}/`, auth: ['rigel', password] },
        },
      },
    })),
})

test(
  'an archive on a share is looked at, and fetched only when it is new and within the limit',
  needs('smb'),
  async () => {
    const { data = '', host = '', port = '', username, password } = storageServer('smb')
    await using folder = await makeDataFolder(data)
    await using directory = await makeDirectory()
    const log = join(directory.path, 'log')
    const real = (await run('which', ['smbclient'])).stdout.trim()
    await writeFile(join(directory.path, 'smbclient'), `#!/bin/sh\ntee -a '${log}' | '${real}' "$@"\n`, { mode: 0o755 })
    const basepath = `zip://::smb://${host}/flows/${folder.name}/flows/code.zip`
    const block = { slug: 'remote-file-system', data: { basepath, settings: { smb: { port, username, password } } } }
    let serial = 0
    const fetch = async (limits = defaultLimits) => {
      const to = join(directory.path, String(serial++))
      await mkdir(to)
      const environment = { PATH: `${directory.path}:${process.env.PATH}` }
      const context = makeContext({ environment, cacheDir: join(directory.path, 'cache'), limits })
      await writeFile(log, '')
      await (await openStorage(block, context)).getDirectory(undefined, to, signal)
      return readTree(to)
    }
    const gets = async () => (await readFile(log, 'utf8')).match(/^(re)?get /gm)?.length ?? 0
    await folder.put('code.zip', makeZip([{ path: 'a.py', bytes: bytes('a') }]))
    assert.deepEqual([await fetch(), await gets()], [{ 'a.py': 'a' }, 1])
    assert.deepEqual([await fetch(), await gets()], [{ 'a.py': 'a' }, 0])
    await folder.put('code.zip', makeZip([{ path: 'a.py', bytes: bytes('changed') }]))
    assert.deepEqual([await fetch(), await gets()], [{ 'a.py': 'changed' }, 1])
    await folder.put('code.zip', makeZip([{ path: 'a.py', bytes: randomBytes(2 * 1024 * 1024) }]))
    await assert.rejects(fetch({ ...defaultLimits, maxBytes: 1000 }), {
      name: 'StorageError',
      message: /code\.zip.*more than the limit of 1000 bytes/,
    })
    assert.equal(await gets(), 0)
  },
)

function bytes(text: string): Buffer {
  return Buffer.from(text)
}

/** What arrives from an archive on this machine. */
async function unpack(
  kind: 'zip' | 'tar',
  content: Buffer,
  from?: string,
  environment: Readonly<Record<string, string | undefined>> = { PATH: process.env.PATH },
) {
  await using directory = await makeDirectory()
  const { file } = kinds[kind]
  await writeFile(join(directory.path, file), content)
  await mkdir(join(directory.path, 'to'))
  const data = { basepath: `${kind}://::file://${join(directory.path, file)}`, settings: {} }
  const storage = await openStorage({ slug: 'remote-file-system', data }, makeContext({ environment }))
  try {
    await storage.getDirectory(from, join(directory.path, 'to'), signal)
  } catch (error) {
    assert.deepEqual(await readdir(join(directory.path, 'to')), [])
    throw error
  }
  return await readTree(join(directory.path, 'to'))
}

for (const kind of ['zip', 'tar'] as const) {
  const { make } = kinds[kind]

  test(`${kind}: links stay links, folders may be empty, modes are those of fsspec`, async () => {
    const items = [
      { path: 'pkg/', bytes: bytes('') },
      { path: 'pkg/mod.py', bytes: bytes('m') },
      { path: 'empty/', bytes: bytes('') },
      { path: 'pkg/link.py', bytes: bytes('mod.py'), isLink: true },
    ]
    const tree = { 'pkg/mod.py': 'm', 'pkg/link.py': { link: 'mod.py' }, empty: null }
    assert.deepEqual(await unpack(kind, make(items)), tree)
    assert.deepEqual(await unpack(kind, make(items), 'pkg'), { 'mod.py': 'm', 'link.py': { link: 'mod.py' } })
  })

  test(`${kind}: a link that leaves the tree is refused, and nothing is written through one`, async () => {
    for (const target of ['/etc', '../../etc', 'a/../../x']) {
      const items = [
        { path: 'a/x', bytes: bytes('x') },
        { path: 'evil', bytes: bytes(target), isLink: true },
      ]
      await assert.rejects(unpack(kind, make(items)), { name: 'StorageError', message: /Link "evil" points to/ })
    }
    const through = [
      { path: 'd', bytes: bytes('.'), isLink: true },
      { path: 'd/x.py', bytes: bytes('x') },
    ]
    await assert.rejects(unpack(kind, make(through)), { name: 'StorageError', message: /"d" is there twice/ })
  })

  test(`${kind}: a bomb is refused before it is unpacked`, async () => {
    const many = Array.from({ length: 300 }, (_, at) => ({ path: `${at}`, bytes: zeros }))
    await assert.rejects(unpack(kind, make(many)), { name: 'StorageError', message: /archive bomb/ })
  })

  test(`${kind}: what is no archive, or only half of one, is refused`, async () => {
    await assert.rejects(unpack(kind, bytes('hello world, this is no archive'.repeat(40))), { name: 'StorageError' })
    const whole = make([{ path: 'a', bytes: bytes('a'.repeat(5000)) }])
    await assert.rejects(unpack(kind, whole.subarray(0, whole.length - 30)), { name: 'StorageError' })
  })
}

const compressions = {
  plain: (tar: Buffer) => tar,
  zstd: (tar: Buffer) => zstdCompressSync(tar),
  bzip2: (tar: Buffer) => execFileSync('bzip2', ['-1c'], { input: tar }),
  xz: (tar: Buffer) => execFileSync('xz', ['-0c'], { input: tar }),
}

for (const [name, compress] of Object.entries(compressions)) {
  test(`tar: one that is ${name} is read, judged for bombs, and refused when it is cut`, async () => {
    const one = gunzipSync(makeTar([{ path: 'a/b.py', bytes: bytes('b') }]))
    assert.deepEqual(await unpack('tar', compress(one)), { 'a/b.py': 'b' })
    const large = gunzipSync(makeTar([{ path: 'a', bytes: randomBytes(100_000) }]))
    const whole = compress(large)
    await assert.rejects(unpack('tar', whole.subarray(0, whole.length / 2)), { name: 'StorageError' })
    if (name === 'plain') return
    const many = Array.from({ length: 300 }, (_, at) => ({ path: `${at}`, bytes: zeros }))
    const bomb = compress(gunzipSync(makeTar(many)))
    await assert.rejects(unpack('tar', bomb), { name: 'StorageError', message: /archive bomb/ })
  })
}

test('tar: without the program that unpacks it, it is said which one is missing', async () => {
  const file = compressions.xz(gunzipSync(makeTar([{ path: 'a', bytes: bytes('a') }])))
  await assert.rejects(unpack('tar', file, undefined, { PATH: '/nowhere' }), {
    name: 'StorageError',
    message: /program "xz" is needed for it and not on PATH/,
  })
})

const zeros = Buffer.alloc(1024 * 1024)

test('zip: a file that is longer than it claims, and an encrypted one, are refused', async () => {
  const liar = makeZip([{ path: 'a', bytes: bytes('x'.repeat(1000)), claimedSize: 10 }])
  await assert.rejects(unpack('zip', liar), { name: 'StorageError', message: /damaged/ })
  const locked = makeZip([{ path: 'a', bytes: bytes('x'), flags: 1 }])
  await assert.rejects(unpack('zip', locked), { name: 'StorageError', message: /"a" is encrypted/ })
})

test('tar: a second name of a file is a copy of it; of anything else, and a FIFO, it is refused', async () => {
  const file = { path: './a.py', bytes: bytes('a') }
  assert.deepEqual(await unpack('tar', makeTar([file, { path: './b.py', bytes: bytes('./a.py'), type: '1' }])), {
    'a.py': 'a',
    'b.py': 'a',
  })
  const outside = makeTar([file, { path: 'b', bytes: bytes('/etc/passwd'), type: '1' }])
  await assert.rejects(unpack('tar', outside), { message: /"b" is a second name of "\/etc\/passwd"/ })
  await assert.rejects(unpack('tar', makeTar([file, { path: 'f', bytes: bytes(''), type: '6' }])), {
    message: /"f" is neither a file, a folder nor a link/,
  })
})

for (const [basepath, settings, message] of [
  ['zip://flows', {}, /names no archive/],
  ['zip://x::memory://a/b.zip', {}, /"memory": it lives in the process/],
  ['zip://x::zip://y::s3://b/c.zip', {}, /archive in an archive/],
  ['tar://x', { fo: '/srv/x.tar.lzma' }, /only those by gzip, bzip2, xz and zstd/],
  ['zip://x', { fo: 'code.zip' }, /is relative/],
  ['zip://x::github://org:repo@main/x.zip', {}, /cannot be read by the protocol "github"/],
] as const) {
  test(`${basepath} with ${JSON.stringify(settings)} is refused with the reason`, async () => {
    const block = { slug: 'remote-file-system', data: { basepath, settings } }
    await assert.rejects(openStorage(block, makeContext()), { name: 'StorageError', message })
  })
}

test('an archive that has not changed is not unpacked again', async () => {
  await using directory = await makeDirectory()
  const path = join(directory.path, 'code.zip')
  await writeFile(path, makeZip([{ path: 'a', bytes: bytes('a') }]))
  const meters = [makeMeter(), makeMeter()]
  for (const [at, meter] of meters.entries()) {
    const context = makeContext({ cacheDir: join(directory.path, 'cache'), meter })
    const to = join(directory.path, String(at))
    await mkdir(to)
    const data = { basepath: `zip://::file://${path}`, settings: {} }
    await (await openStorage({ slug: 'remote-file-system', data }, context)).getDirectory('', to, signal)
  }
  assert.deepEqual(
    meters.map(({ fromCache }) => fromCache),
    [false, true],
  )
})
