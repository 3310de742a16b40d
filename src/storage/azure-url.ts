// `az://`, `abfs://` and `abfss://` in a `remote-file-system` block, with the settings of adlfs.

import * as v from 'valibot'
import { openContainer, splitContainerPath } from './azure.ts'
import { readAccount } from './azure-settings.ts'
import { readFields } from './block-fields.ts'
import type { StorageContext } from './context.ts'
import type { RemoteUrl } from './protocols.ts'
import type { Remote } from './source.ts'

const text = v.nullish(v.string())

const Settings = v.looseObject({
  account_name: text,
  account_key: text,
  connection_string: text,
  credential: v.nullish(v.unknown()),
  sas_token: text,
  tenant_id: text,
  client_id: text,
  client_secret: text,
  account_host: text,
  anon: v.nullish(v.boolean()),
})

export function openAzureUrl(
  url: RemoteUrl,
  settings: Readonly<Record<string, unknown>>,
  context: StorageContext,
): Remote {
  const found = readFields(`remote-file-system (${url.protocol})`, Settings, settings)
  // `container@account.dfs.core.windows.net/folder`: the account by the host of its Data Lake service.
  const [, container, host, folder] = /^([^/@]*)@([^/]*)(.*)$/s.exec(url.rest) ?? []
  const account = readAccount({
    connectionString: found.connection_string,
    account: found.account_name || host?.split('.')[0],
    ...readCredential(found.credential),
    ...(found.account_key ? { key: found.account_key } : {}),
    ...(found.sas_token ? { sas: found.sas_token } : {}),
    tenant: found.tenant_id,
    client: found.client_id,
    secret: found.client_secret,
    accountUrl: found.account_host,
    anonymous: found.anon,
  })
  const place = container === undefined ? splitContainerPath(url.rest) : { container, base: folder ?? '' }
  return openContainer({ ...account, ...place }, context)
}

/** adlfs takes a SAS or an account key there. A SAS is a query, so it has `&`; a key has no such character. */
function readCredential(credential: unknown): { readonly sas?: string; readonly key?: string } {
  if (typeof credential !== 'string' || credential === '') return {}
  return credential.includes('&') ? { sas: credential } : { key: credential }
}
