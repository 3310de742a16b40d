import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import test from 'node:test'
import { openLogin } from '../../src/storage/azure-login.ts'
import { readAccount } from '../../src/storage/azure-settings.ts'
import { HttpClient } from '../../src/storage/http.ts'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { encodePath } from '../../src/storage/url-encoding.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type Contract, type ContractPlace, type Flaw, testContract } from './contract.ts'
import { makeContext } from './support.ts'

const signal = new AbortController().signal

interface AzurePlace {
  readonly endpoint: string
  readonly account: string
  readonly key: string
  readonly container: string
}

async function openPlace(blockOf: (place: AzurePlace) => StorageBlock): Promise<ContractPlace> {
  const { endpoint = '', account = '', key = '' } = storageServer('azure')
  const made = { endpoint, account, key, container: `test-${randomBytes(6).toString('hex')}` }
  const { origin, pathname, hostname, port } = new URL(endpoint)
  const http = new HttpClient({ connections: 4 }, makeContext())
  const authorize = openLogin({ kind: 'shared key', account, key }, http, {})
  const put = async (
    path: string,
    query: Record<string, string>,
    body: string | Uint8Array,
    own: Record<string, string>,
  ) => {
    const headers = {
      'x-ms-date': new Date().toUTCString(),
      'x-ms-version': '2021-08-06',
      ...own,
      'content-length': String(Buffer.byteLength(body)),
    }
    const request = { method: 'PUT', path: `${pathname}/${made.container}${path}`, query, headers }
    const proof = await authorize(request, signal)
    const search = new URLSearchParams(query).toString()
    const target = search === '' ? request.path : `${request.path}?${search}`
    const response = await http.send(
      { method: 'PUT', origin, path: target, headers: { ...headers, ...proof.headers }, body },
      signal,
    )
    assert.equal(response.status, 201, await response.body.text())
  }
  await put('', { restype: 'container' }, '', {})
  return {
    address: { host: hostname, port: Number(port) },
    block: (at, flaw) =>
      blockOf(flawed(at ? { ...made, endpoint: `http://${at.host}:${at.port}${pathname}` } : made, flaw)),
    put: (path, bytes) => put(`/${encodePath(`flows/${path}`)}`, {}, bytes, { 'x-ms-blob-type': 'BlockBlob' }),
    [Symbol.asyncDispose]: () => http.close(),
  }
}

function flawed(place: AzurePlace, flaw: Flaw | undefined): AzurePlace {
  switch (flaw) {
    case 'no server':
      return { ...place, endpoint: `http://127.0.0.1:9/${place.account}` }
    case 'missing bucket':
      return { ...place, container: 'test-is-not-there' }
    case 'wrong secret':
      return { ...place, key: Buffer.from(`x${place.key}`).toString('base64') }
    case undefined:
      return place
  }
}

function connectionString({ endpoint, account, key }: AzurePlace): string {
  return `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${key};BlobEndpoint=${endpoint};`
}

const contract: Omit<Contract, 'name' | 'open'> = {
  requirement: 'azure',
  secret: () => storageServer('azure').key ?? '',
  checksCredentials: true,
  hasBucket: true,
  takesHostileNames: true,
  resumes: true,
  reuses: true,
  writes: true,
}

testContract({
  ...contract,
  name: 'azure with a connection string on Azurite',
  open: () =>
    openPlace(place => ({
      slug: 'azure',
      data: { bucket_path: `${place.container}/flows`, azure_storage_connection_string: connectionString(place) },
    })),
})

testContract({
  ...contract,
  name: 'azure-blob-storage-container with a SAS on Azurite',
  // It may only read.
  writes: false,
  open: () =>
    openPlace(place => ({
      slug: 'azure-blob-storage-container',
      data: {
        container_name: place.container,
        base_folder: 'flows',
        credentials: { account_url: `${place.endpoint}?${makeSas(place)}` },
      },
    })),
})

testContract({
  ...contract,
  name: 'remote-file-system az:// on Azurite',
  open: () =>
    openPlace(place => ({
      slug: 'remote-file-system',
      data: { basepath: `az://${place.container}/flows`, settings: { connection_string: connectionString(place) } },
    })),
})

/** An account SAS for reading, as Microsoft's "Create an account SAS" says. */
function makeSas({ account, key }: AzurePlace): string {
  const expiry = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, '')
  const fields = [account, 'rl', 'b', 'sco', '', expiry, '', '', '2020-08-04', '']
  const signature = createHmac('sha256', Buffer.from(key, 'base64')).update(fields.join('\n')).digest('base64')
  return new URLSearchParams({ sv: '2020-08-04', ss: 'b', srt: 'sco', sp: 'rl', se: expiry, sig: signature }).toString()
}

for (const [what, fields, endpoint, kind] of [
  [
    'a connection string',
    { connectionString: 'AccountName=acc;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn' },
    'https://acc.blob.core.chinacloudapi.cn',
    'shared key',
  ],
  [
    'a connection string with a SAS',
    { connectionString: 'BlobEndpoint=https://acc.example/;SharedAccessSignature=sv=1&sig=2' },
    'https://acc.example',
    'shared access signature',
  ],
  [
    'account and key',
    { account: 'acc', key: 'a2V5', anonymous: true },
    'https://acc.blob.core.windows.net',
    'shared key',
  ],
  [
    'an address with a SAS',
    { accountUrl: 'https://acc.blob.core.windows.net/?sv=1&sig=2' },
    'https://acc.blob.core.windows.net',
    'shared access signature',
  ],
  [
    'a service principal',
    { account: 'acc', tenant: 't', client: 'c', secret: 's', anonymous: true },
    'https://acc.blob.core.windows.net',
    'service principal',
  ],
  ['nothing', { account: 'acc' }, 'https://acc.blob.core.windows.net', 'credentials of this machine'],
  ['nothing, anonymously', { account: 'acc', anonymous: true }, 'https://acc.blob.core.windows.net', 'anonymous'],
] as const) {
  test(`an Azure account given by ${what} is reached at its address with ${kind}`, () => {
    const found = readAccount(fields)
    assert.deepEqual({ endpoint: found.endpoint, kind: found.login.kind }, { endpoint, kind })
  })
}

test('a service principal of which a part is missing is refused', () => {
  assert.throws(() => readAccount({ account: 'acc', tenant: 't', client: 'c' }), {
    name: 'StorageError',
    message: /a part is missing/,
  })
})
