// `azure-blob-storage-container` of prefect-azure, with `azure-blob-storage-credentials`.

import * as v from 'valibot'
import { openContainer } from './azure.ts'
import { readAccount } from './azure-settings.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import type { StorageBlock } from './registry.ts'
import type { Remote } from './source.ts'

const text = v.nullish(v.string())

export const AzureCredentials = v.looseObject({
  connection_string: text,
  account_url: text,
  tenant_id: text,
  client_id: text,
  client_secret: text,
})

const Fields = v.object({
  container_name: v.pipe(v.string(), v.nonEmpty()),
  credentials: AzureCredentials,
  base_folder: v.nullish(v.string(), ''),
})

export function openAzureContainer(data: StorageBlock['data'], context: StorageContext): Remote {
  const {
    container_name: container,
    credentials,
    base_folder: base,
  } = readFields('azure-blob-storage-container', Fields, data)
  return openContainer({ ...accountOf(credentials), container, base: base ?? '' }, context)
}

export function accountOf(credentials: v.InferOutput<typeof AzureCredentials>) {
  return readAccount({
    connectionString: credentials.connection_string,
    accountUrl: credentials.account_url,
    tenant: credentials.tenant_id,
    client: credentials.client_id,
    secret: credentials.client_secret,
  })
}
