import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import test from 'node:test'
import { openStorage, openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { readListing } from '../../src/storage/smb-listing.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { run } from '../support/run.ts'
import { mountSmallDisk } from '../support/small-disk.ts'
import { storageServer } from '../support/storage-servers.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { makeTar } from './archives.ts'
import { type Contract, type ContractPlace, testContract } from './contract.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal

interface SmbPlace {
  readonly host: string
  readonly port: number
  readonly share: string
  readonly folder: string
  readonly password: string
}

const environment = { PATH: process.env.PATH ?? '' }

async function openPlace(
  share: 'flows' | 'sealed',
  blockOf: (place: SmbPlace) => StorageBlock,
): Promise<ContractPlace> {
  const { host = '', port = '', password = '', data = '', data_encrypted: sealed = '' } = storageServer('smb')
  const folder = await makeDataFolder(share === 'flows' ? data : sealed)
  return {
    address: { host, port: Number(port) },
    environment,
    block(at, flaw) {
      const place = { host, port: Number(port), ...at, share, folder: `${folder.name}/flows`, password }
      if (flaw === 'no server') return blockOf({ ...place, port: 9 })
      if (flaw === 'missing bucket') return blockOf({ ...place, share: 'no-such-share' })
      return blockOf(flaw === 'wrong secret' ? { ...place, password: `${password}x` } : place)
    },
    put: (path, bytes) => folder.put(path, bytes),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const contract: Omit<Contract, 'name' | 'open'> = {
  requirement: 'smb',
  secret: () => storageServer('smb').password ?? '',
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: false,
  // One answer of a server holds up to 8 MiB of a file: what is smaller cannot arrive by halves.
  resumes: false,
  reuses: false,
  writes: true,
}

const block = ({ host, port, share, folder, password }: SmbPlace): StorageBlock => ({
  slug: 'smb',
  data: {
    share_path: `/${share}/${folder}`,
    smb_host: host,
    smb_port: port,
    smb_username: 'rigel',
    smb_password: password,
  },
})

testContract({ ...contract, name: 'smb, signed', open: () => openPlace('flows', block) })

testContract({
  ...contract,
  name: 'smb:// on a share that demands encryption',
  open: () =>
    openPlace('sealed', ({ host, port, share, folder, password }) => ({
      slug: 'remote-file-system',
      data: {
        basepath: `smb://${host}/${share}/${folder}`,
        settings: { port, username: 'WORKGROUP\\rigel', password, encrypt: true },
      },
    })),
})

test('the password is in no command line, and an unchanged share costs one listing', needs('smb'), async () => {
  await using directory = await makeDirectory()
  const log = join(directory.path, 'log')
  const real = (await run('which', ['smbclient'])).stdout.trim()
  await writeFile(join(directory.path, 'smbclient'), `#!/bin/sh\necho "$*" >>'${log}'\nexec '${real}' "$@"\n`)
  await chmod(join(directory.path, 'smbclient'), 0o755)
  await using place = await openPlace('flows', block)
  for (let at = 0; at < 100; at++) await place.put(`f${at % 7}/${at}.py`, `${at}`)
  const context = makeContext({
    environment: { PATH: `${directory.path}:${process.env.PATH}` },
    cacheDir: join(directory.path, 'cache'),
  })
  const storage = await openStorage(place.block(), context)
  const calls: number[] = []
  for (const name of ['one', 'two']) {
    await mkdir(join(directory.path, name))
    await storage.getDirectory(undefined, join(directory.path, name), signal)
    calls.push((await readFile(log, 'utf8')).split('--configfile').length - 1)
  }
  assert.deepEqual(calls, [1 + 4, 1 + 4 + 1])
  const told = await readFile(log, 'utf8')
  for (const secret of ['rigel-Pass', 'rigel']) assert.ok(!told.replaceAll(directory.path, '').includes(secret), secret)
  assert.equal(Object.keys(await readTree(join(directory.path, 'two'))).length, 100)
})

test('smb: connections that are cut again and again still bring the whole tree', needs('smb'), async () => {
  await using place = await openPlace('flows', block)
  const large = Buffer.alloc(32 * 1024 * 1024, 'abcdefghi')
  await place.put('large.bin', large)
  for (let at = 0; at < 50; at++) await place.put(`${at}.py`, `${at}`.repeat(1000))
  const limit = 18 * 1024 * 1024
  await using proxy = await startTcpProxy({
    ...place.address,
    cut: ({ bytesBefore, length }) => (bytesBefore + length > limit ? Math.max(0, limit - bytesBefore) : undefined),
  })
  await using directory = await makeDirectory()
  const storage = await openStorage(place.block({ host: '127.0.0.1', port: proxy.port }), makeContext({ environment }))
  await storage.getDirectory(undefined, directory.path, signal)
  assert.ok(large.equals(await readFile(join(directory.path, 'large.bin'))))
  assert.equal((await readdir(directory.path)).length, 51)
  // A listing, two that begin, and at least one that goes on.
  assert.ok(proxy.connections >= 4, `${proxy.connections} connections`)
})

test('smb: an archive that fits into none of the connections arrives whole', needs('smb'), async () => {
  await using place = await openPlace('flows', block)
  const large = randomBytes(24 * 1024 * 1024)
  await place.put('code.tar', makeTar([{ path: 'large.bin', bytes: large }]))
  const limit = 18 * 1024 * 1024
  await using proxy = await startTcpProxy({
    ...place.address,
    cut: ({ bytesBefore, length }) => (bytesBefore + length > limit ? Math.max(0, limit - bytesBefore) : undefined),
  })
  const { share_path: path, ...login } = place.block().data
  const at = { host: '127.0.0.1', port: proxy.port, username: login.smb_username, password: login.smb_password }
  const data = { basepath: `tar://::smb://127.0.0.1${String(path)}/code.tar`, settings: { smb: at } }
  await using directory = await makeDirectory()
  const storage = await openStorage({ slug: 'remote-file-system', data }, makeContext({ environment }))
  await storage.getDirectory(undefined, directory.path, signal)
  assert.ok(large.equals(await readFile(join(directory.path, 'large.bin'))))
})

for (const [what, end, message] of [
  ['is ended by somebody else', 'kill -9 $$', /was ended by somebody else/],
  ['breaks off without a word', 'exit 0', /broke off in the middle of a listing/],
] as const) {
  test(`a listing is not taken for the whole when smbclient ${what}`, needs('smb'), async () => {
    await using directory = await makeDirectory()
    const real = (await run('which', ['smbclient'])).stdout.trim()
    const program = join(directory.path, 'smbclient')
    await writeFile(program, `#!/bin/sh\n'${real}' "$@" | head -n 5\n${end}\n`)
    await chmod(program, 0o755)
    await using place = await openPlace('flows', block)
    for (const name of ['a.py', 'b.py', 'c.py', 'd.py']) await place.put(name, name)
    const context = makeContext({ environment: { PATH: `${directory.path}:${process.env.PATH}` } })
    const storage = await openStorage(place.block(), context)
    await mkdir(join(directory.path, 'to'))
    await assert.rejects(storage.getDirectory(undefined, join(directory.path, 'to'), signal), { message })
  })
}

function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

test('a listing is read whatever blanks and bytes its names have, and a line that is none is refused', () => {
  const text = latin1(`Try "help" to get a list of possible commands.
  .                                   D        0  Tue Nov 24 20:18:15 2026
  a  D  b                            AH       12  Tue Nov  4 20:18:15 2026
  sub                                 D        0  Tue Nov 24 20:18:15 2026
  voilà                              N        1  Tue Nov 24 20:18:15 2026

\\base\\sub
  ${'ü'.repeat(20)} x      N 123456789  Tue Nov 24 20:18:15 2026

\t\t264212084 blocks of size 1024. 66145628 blocks available
`)
  assert.deepEqual(
    readListing(text, 'base').map(entry => [entry.kind, entry.path, entry.kind === 'file' ? entry.size : undefined]),
    [
      ['file', 'a  D  b', 12],
      ['folder', 'sub', undefined],
      ['file', 'voilà', 1],
      ['file', `sub/${'ü'.repeat(20)} x`, 123456789],
    ],
  )
  assert.throws(() => readListing('  evil\n', 'base'), /cannot be understood/)
  assert.throws(() => readListing('\\other\\sub\n', 'base'), /not below what was asked for/)
})

test('a disk of this machine that is full is this host’s trouble, not the run’s', needs('smb', 'root'), async () => {
  await using place = await openPlace('flows', block)
  await place.put('large.bin', randomBytes(3_000_000))
  await using disk = await mountSmallDisk(1024)
  const to = join(disk.path, 'to')
  await mkdir(to)
  const full = { name: 'StorageError', blame: 'host', message: /no space left on the disk/ }
  const storage = await openWritableStorage(place.block(), makeContext({ environment }))
  await assert.rejects(storage.getDirectory(undefined, to, signal), full)
  // What is read alone lies in the temporary folder on its way.
  const usual = tmpdir()
  process.env.TMPDIR = disk.path
  try {
    await assert.rejects(storage.readPath('large.bin', signal), full)
  } finally {
    process.env.TMPDIR = usual
  }
})
