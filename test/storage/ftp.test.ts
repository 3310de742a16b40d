import assert from 'node:assert/strict'
import test from 'node:test'
import { readList, readMlsd } from '../../src/storage/ftp-listing.ts'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, type ContractPlace, testContract } from './contract.ts'
import { makeDataFolder } from './data-folder.ts'

interface FtpPlace {
  readonly host: string
  readonly port: number
  readonly folder: string
  readonly password: string
}

async function openPlace(server: 'ftp' | 'ftps', blockOf: (place: FtpPlace) => StorageBlock): Promise<ContractPlace> {
  const { host = '', port = '', password = '', data = '', ca_file: authority = '' } = storageServer(server)
  const folder = await makeDataFolder(data)
  return {
    address: { host, port: Number(port) },
    environment: authority ? { SSL_CERT_FILE: authority } : {},
    block(at, flaw) {
      const place = { host, port: Number(port), folder: `${folder.name}/flows`, password, ...at }
      if (flaw === 'no server') return blockOf({ ...place, port: 9 })
      if (flaw === 'missing bucket') return blockOf({ ...place, folder: 'is-not-there' })
      return blockOf(flaw === 'wrong secret' ? { ...place, password: `${password}x` } : place)
    },
    put: (path, bytes) => folder.put(path, bytes),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

const contract: Omit<Contract, 'name' | 'open' | 'requirement' | 'secret'> = {
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: false,
  // The data connections do not go through a proxy that is in front of the control connection.
  resumes: false,
  reuses: true,
  writes: true,
}

testContract({
  ...contract,
  name: 'ftp://',
  requirement: 'ftp',
  secret: () => storageServer('ftp').password ?? '',
  open: () =>
    openPlace('ftp', ({ host, port, folder, password }) => ({
      slug: 'remote-file-system',
      data: { basepath: `ftp://${host}/${folder}`, settings: { port, username: 'rigel', password } },
    })),
})

testContract({
  ...contract,
  name: 'ftps://, TLS on both connections',
  requirement: 'ftps',
  secret: () => storageServer('ftps').password ?? '',
  open: () =>
    openPlace('ftps', ({ host, port, folder, password }) => ({
      slug: 'remote-file-system',
      data: { basepath: `ftps://rigel:${encodeURIComponent(password)}@${host}:${port}/${folder}`, settings: {} },
    })),
})

test('an MLSD listing is read, and what is neither file nor folder is refused by name', () => {
  const text =
    'type=cdir;perm=el; .\r\ntype=file;size=12;modify=20261124201815.123;unique=8; a b;c.py\r\ntype=dir;modify=20261124201815; sub\r\nType=file;Size=0; ../evil\r\n'
  assert.deepEqual(readMlsd(text, 'x', '/top/x'), [
    { kind: 'file', path: 'x/a b;c.py', size: 12, validator: '20261124201815.123/12/8', ref: '/top/x/a b;c.py' },
    { kind: 'folder', path: 'x/sub' },
    { kind: 'file', path: 'x/../evil', size: 0, validator: undefined, ref: '/top/x/../evil' },
  ])
  assert.throws(() => readMlsd('type=dir; a\r\nb\r\n', '', ''), /a line that is no entry: "b"/)
  assert.throws(() => readMlsd('type=OS.unix=slink:/etc; passwd', '', ''), /"passwd" is neither a file nor a folder/)
})

test('without MLSD the listing is taken as the server writes it, and trusted for names and sizes only', async () => {
  const text = `total 8\r\ndrwxr-xr-x 2 u g 4096 Nov 24 20:18 sub\r\n-rw-r--r-- 1 u g 12 Nov 24 20:18 a b.py\r\nlrwxrwxrwx 1 u g 4 Nov 24 20:18 l -> a.py\r\n`
  assert.deepEqual(await readList(text, '', '/top'), [
    { kind: 'folder', path: 'sub' },
    { kind: 'file', path: 'a b.py', size: 12, validator: undefined, ref: '/top/a b.py' },
    { kind: 'link', path: 'l', target: 'a.py' },
  ])
})
