import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { readAccount } from '../../src/storage/azure-settings.ts'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { startForwardProxy } from '../support/forward-proxy.ts'
import { needs } from '../support/requires.ts'
import { storageServer } from '../support/storage-servers.ts'
import { type AzurePlace, connectionString, makeSas, openAzurePlace } from './azure-server.ts'
import { type AzureTenant, federatedToken, principal, startTenant } from './azure-tenant.ts'
import { assertNoSecret, type Contract, failure, testContract } from './contract.ts'
import { fetchBlock } from './support.ts'

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

const trusted = () => ({ SSL_CERT_FILE: storageServer('azure').ca_file ?? '' })

const principalBlock = ({ endpoint, container, secret }: AzurePlace): StorageBlock => ({
  slug: 'azure-blob-storage-container',
  data: {
    container_name: container,
    base_folder: 'flows',
    credentials: { account_url: endpoint, ...principal, client_secret: secret },
  },
})

testContract({
  ...contract,
  name: 'azure-blob-storage-container with a service principal on Azurite',
  secret: () => principal.client_secret,
  async open() {
    const tenant = await startTenant()
    const place = await openAzurePlace(principalBlock, 'tls')
    return {
      ...place,
      environment: { ...trusted(), ...tenant.authority },
      async [Symbol.asyncDispose]() {
        await place[Symbol.asyncDispose]()
        await tenant[Symbol.asyncDispose]()
      },
    }
  },
})

/** By the name that Microsoft gives to an account, which a proxy leads to Azurite. */
test(
  'an azure block with a service principal reaches its account, with one token for all',
  needs('azure'),
  async () => {
    await using tenant = await startTenant()
    await using place = await openAzurePlace(
      ({ account, container, secret }) => ({
        slug: 'azure',
        data: {
          bucket_path: `${container}/flows`,
          azure_storage_account_name: account,
          azure_storage_tenant_id: principal.tenant_id,
          azure_storage_client_id: principal.client_id,
          azure_storage_client_secret: secret,
        },
      }),
      'tls',
    )
    await using proxy = await startForwardProxy({ route: () => place.address })
    const context = { environment: { ...trusted(), ...tenant.authority }, proxies: { https: proxy.url } }
    for (const name of ['a.py', 'pkg/b.py', 'pkg/c d.py']) await place.put(name, name)
    assert.deepEqual(await fetchBlock(place.block(), context), {
      'a.py': 'a.py',
      'pkg/b.py': 'pkg/b.py',
      'pkg/c d.py': 'pkg/c d.py',
    })
    assert.deepEqual(tenant.given, ['secret'])
    assert.deepEqual(new Set(proxy.requests), new Set(['CONNECT rigelacct.blob.core.windows.net:443']))

    const error = await failure(fetchBlock(place.block(undefined, 'wrong secret'), context))
    assert.match(error.message, /\(service principal\).*invalid_client: AADSTS7000215: Invalid client secret/)
    assertNoSecret(error, principal.client_secret)
  },
)

test('a token that is not for storage is refused in the words of the storage', needs('azure'), async () => {
  await using tenant = await startTenant({ audience: 'https://vault.azure.net' })
  await using place = await openAzurePlace(principalBlock, 'tls')
  const error = await failure(fetchBlock(place.block(), { environment: { ...trusted(), ...tenant.authority } }))
  assert.match(error.message, /\(service principal\).*AuthenticationFailed/)
  assert.deepEqual(tenant.given, ['secret'])
})

const machineBlock = ({ endpoint, container }: AzurePlace): StorageBlock => ({
  slug: 'azure-blob-storage-container',
  data: { container_name: container, base_folder: 'flows', credentials: { account_url: endpoint } },
})

for (const [what, environmentOf] of [
  ['App Service', ({ identity }: AzureTenant) => ({ ...identity, AZURE_CLIENT_ID: principal.client_id })],
  [
    'secret',
    ({ authority }: AzureTenant) => ({
      ...authority,
      AZURE_TENANT_ID: principal.tenant_id,
      AZURE_CLIENT_ID: principal.client_id,
      AZURE_CLIENT_SECRET: principal.client_secret,
    }),
  ],
  [
    'federated token',
    ({ authority }: AzureTenant, file: string) => ({
      ...authority,
      AZURE_TENANT_ID: principal.tenant_id,
      AZURE_CLIENT_ID: principal.client_id,
      AZURE_FEDERATED_TOKEN_FILE: file,
    }),
  ],
] as const) {
  test(`a container is fetched by what this machine has: ${what}`, needs('azure'), async () => {
    await using directory = await makeDirectory()
    const file = join(directory.path, 'token')
    await writeFile(file, `${federatedToken}\n`)
    await using tenant = await startTenant()
    await using place = await openAzurePlace(machineBlock, 'tls')
    await place.put('a.py', 'a')
    const environment = { ...trusted(), ...environmentOf(tenant, file) }
    assert.deepEqual(await fetchBlock(place.block(), { environment }), { 'a.py': 'a' })
    assert.deepEqual(tenant.given, [what])
  })
}

/** At an address that only exists inside of Azure, to which a proxy leads here. */
test('a container is fetched by the managed identity of a virtual machine', needs('azure'), async () => {
  await using tenant = await startTenant()
  await using place = await openAzurePlace(machineBlock, 'tls')
  await using proxy = await startForwardProxy({ route: () => tenant.address })
  await place.put('a.py', 'a')
  const context = { environment: trusted(), proxies: { http: proxy.url } }
  assert.deepEqual(await fetchBlock(place.block(), context), { 'a.py': 'a' })
  assert.deepEqual(tenant.given, ['virtual machine'])
})

test('a managed identity that refuses is quoted', needs('azure'), async () => {
  await using tenant = await startTenant()
  await using place = await openAzurePlace(machineBlock, 'tls')
  const environment = { ...trusted(), ...tenant.identity, IDENTITY_HEADER: 'another' }
  const error = await failure(fetchBlock(place.block(), { environment }))
  assert.match(error.message, /\(credentials of this machine\).*invalid_request: Identity not found/)
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
