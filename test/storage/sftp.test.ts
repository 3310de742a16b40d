import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { chmod, chown, copyFile, lchown, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { openStorage, openWritableStorage, type StorageBlock } from '../../src/storage/registry.ts'
import { findKnownKeys } from '../../src/storage/sftp-known-hosts.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, type ContractPlace, testContract } from './contract.ts'
import { makeDataFolder } from './data-folder.ts'
import { makeContext, readTree } from './support.ts'

const signal = new AbortController().signal
const owner = 20001

interface SftpPlace {
  readonly host: string
  readonly port: number
  readonly path: string
  readonly password: string
}

async function openPlace(blockOf: (place: SftpPlace) => StorageBlock): Promise<ContractPlace> {
  const { host = '', port = '', password = '', data = '' } = storageServer('sftp')
  const folder = await makeDataFolder(data, owner)
  await chown(join(folder.path, 'flows'), owner, owner)
  return {
    address: { host, port: Number(port) },
    block(at, flaw) {
      const place = { host, port: Number(port), path: `${folder.path}/flows`, password, ...at }
      if (flaw === 'no server') return blockOf({ ...place, port: 9 })
      if (flaw === 'missing bucket') return blockOf({ ...place, path: `${place.path}-is-not-there` })
      return blockOf(flaw === 'wrong secret' ? { ...place, password: `${password}x` } : place)
    },
    put: (path, bytes) => folder.put(path, bytes),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const contract: Omit<Contract, 'name' | 'open'> = {
  requirement: 'sftp',
  secret: () => storageServer('sftp').password ?? '',
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: false,
  resumes: true,
  reuses: true,
  writes: true,
}

testContract({
  ...contract,
  name: 'sftp:// with a password',
  open: () =>
    openPlace(({ host, port, path, password }) => ({
      slug: 'remote-file-system',
      data: { basepath: `sftp://${host}${path}`, settings: { port, username: 'rigel', password } },
    })),
})

testContract({
  ...contract,
  name: 'ssh:// with a key file',
  checksCredentials: false,
  open: () =>
    openPlace(({ host, port, path }) => ({
      slug: 'remote-file-system',
      data: {
        basepath: `ssh://rigel@${host}:${port}${path}/`,
        settings: { key_filename: storageServer('sftp').private_key_file },
      },
    })),
})

async function fetchAs(home: string, settings: Record<string, unknown>, path: string) {
  const { host, port } = storageServer('sftp')
  await using directory = await makeDirectory()
  const to = join(directory.path, 'to')
  await mkdir(to)
  const block = { slug: 'remote-file-system', data: { basepath: `sftp://${host}:${port}${path}`, settings } }
  const storage = await openStorage(block, makeContext({ home }))
  await storage.getDirectory(undefined, to, signal)
  return await readTree(to)
}

test(
  'links stay links, absolute ones inside are made relative, one that leaves the tree is refused',
  needs('sftp'),
  async () => {
    const { data = '', password } = storageServer('sftp')
    await using folder = await makeDataFolder(data, owner)
    const flows = join(folder.path, 'flows')
    await folder.put('pkg/mod.py', 'm')
    const links = { 'broken.py': 'nowhere.py', 'pkg/up.py': '../flow.py', 'inside.py': join(flows, 'pkg/mod.py') }
    for (const [name, target] of Object.entries(links)) await symlink(target, join(flows, name))
    const settings = { username: 'rigel', password }
    assert.deepEqual(await fetchAs('/nonexistent', settings, flows), {
      'pkg/mod.py': 'm',
      'broken.py': { link: 'nowhere.py' },
      'pkg/up.py': { link: '../flow.py' },
      'inside.py': { link: 'pkg/mod.py' },
    })
    await symlink('/etc', join(flows, 'etc'))
    await lchown(join(flows, 'etc'), owner, owner)
    await assert.rejects(fetchAs('/nonexistent', settings, flows), {
      message: /Link "etc" points to "\/etc", outside of the tree/,
    })
  },
)

test(
  'keys of the home are tried; a host whose key has changed is refused, an unknown one on demand',
  needs('sftp'),
  async () => {
    const server = storageServer('sftp')
    await using folder = await makeDataFolder(server.data ?? '', owner)
    await folder.put('flow.py', 'x')
    await using home = await makeDirectory()
    const ssh = join(home.path, '.ssh')
    await mkdir(ssh)
    await copyFile(server.private_key_file ?? '', join(ssh, 'id_ed25519'))
    await chmod(join(ssh, 'id_ed25519'), 0o600)
    const flows = join(folder.path, 'flows')
    const settings = { username: 'rigel', host_key_policy: 'reject' }
    await assert.rejects(fetchAs(home.path, settings, flows), {
      name: 'StorageError',
      message: /is not in known_hosts/,
    })
    await copyFile(server.known_hosts_file ?? '', join(ssh, 'known_hosts'))
    assert.deepEqual(await fetchAs(home.path, settings, flows), { 'flow.py': 'x' })
    const line = (await readFile(join(ssh, 'known_hosts'), 'utf8')).split(' ').slice(0, 2).join(' ')
    const other = Buffer.concat([
      Buffer.from([0, 0, 0, 11]),
      Buffer.from('ssh-ed25519'),
      Buffer.from([0, 0, 0, 32]),
      Buffer.alloc(32, 7),
    ])
    await writeFile(join(ssh, 'known_hosts'), `${line} ${other.toString('base64')}\n`)
    await assert.rejects(fetchAs(home.path, { username: 'rigel' }, flows), {
      name: 'StorageError',
      message: /is not the one in known_hosts: somebody may be in between/,
    })
  },
)

test(
  'a revoked key is refused wherever it stands, and says nothing of hosts with other keys',
  needs('sftp'),
  async () => {
    const { data = '', known_hosts_file = '', password } = storageServer('sftp')
    await using folder = await makeDataFolder(data, owner)
    await folder.put('flow.py', 'x')
    await using home = await makeDirectory()
    await mkdir(join(home.path, '.ssh'))
    const known = (await readFile(known_hosts_file, 'utf8')).trim()
    const [, ...key] = known.split(' ')
    const fetchKnowing = async (...lines: string[]) => {
      await writeFile(join(home.path, '.ssh/known_hosts'), lines.join('\n'))
      return fetchAs(home.path, { username: 'rigel', password }, join(folder.path, 'flows'))
    }
    const revoked = `@revoked * ${key.join(' ')}`
    for (const lines of [[known, revoked], [revoked, known], [revoked]]) {
      await assert.rejects(fetchKnowing(...lines), { name: 'StorageError', message: /is marked as revoked/ })
    }
    const other = `@revoked * ssh-ed25519 ${Buffer.alloc(51, 7).toString('base64')}`
    assert.deepEqual(await fetchKnowing(other), { 'flow.py': 'x' })
    assert.deepEqual(await fetchKnowing(other, known), { 'flow.py': 'x' })
  },
)

test('known_hosts: names, ports, patterns, hashes, revoked keys', () => {
  const salt = Buffer.alloc(20, 1)
  const hash = createHmac('sha1', salt).update('[hashed]:2222').digest('base64')
  const text = `# comment
one,two ssh-ed25519 A comment
[one]:2222 ssh-rsa B
*.example.com,!bad.example.com ecdsa-sha2-nistp256 C
|1|${salt.toString('base64')}|${hash} ssh-ed25519 D
@revoked one ssh-ed25519 E
@cert-authority * ssh-ed25519 F`
  const keysOf = (host: string, port: number) =>
    findKnownKeys(text, host, port).map(key => key.base64 + (key.isRevoked ? '!' : ''))
  assert.deepEqual(keysOf('one', 22), ['A', 'E!'])
  assert.deepEqual(keysOf('one', 2222), ['B'])
  assert.deepEqual(keysOf('x.example.com', 22), ['C'])
  assert.deepEqual(keysOf('bad.example.com', 22), [])
  assert.deepEqual(keysOf('hashed', 2222), ['D'])
})

test('an upload into a folder of somebody else says which folder could not be made', needs('sftp'), async () => {
  await using place = await openPlace(({ host, port, path, password }) => ({
    slug: 'remote-file-system',
    data: { basepath: `sftp://${host}${path}`, settings: { port, username: 'rigel', password } },
  }))
  const { basepath } = place.block().data
  const path = new URL(String(basepath)).pathname
  await mkdir(join(path, 'locked'), { mode: 0o755 })
  await using directory = await makeDirectory()
  await writeFile(join(directory.path, 'flow.py'), 'f')
  const storage = await openWritableStorage(place.block(), makeContext())
  await assert.rejects(storage.putDirectory(directory.path, 'locked/deep/er', undefined, signal), {
    name: 'StorageError',
    message: /Making the folder ".*\/locked\/deep" failed \(Permission denied/,
  })
})
