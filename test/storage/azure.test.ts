import assert from 'node:assert/strict'
import test from 'node:test'
import { readAccount } from '../../src/storage/azure-settings.ts'
import { storageServer } from '../support/storage-servers.ts'
import { connectionString, makeSas, openAzurePlace } from './azure-server.ts'
import { type Contract, testContract } from './contract.ts'

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
    openAzurePlace(place => ({
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
    openAzurePlace(place => ({
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
    openAzurePlace(place => ({
      slug: 'remote-file-system',
      data: { basepath: `az://${place.container}/flows`, settings: { connection_string: connectionString(place) } },
    })),
})

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
