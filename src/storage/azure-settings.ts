// What is needed to reach a container of Azure Blob Storage, and how it follows from what blocks say.

import { StorageError } from './storage.ts'

export interface AzureSettings {
  readonly container: string
  /** Folder in the container; '' is the top. */
  readonly base: string
  /** Address of the account's blob service, with the account in its path for emulators. */
  readonly endpoint: string
  readonly login: AzureLogin
}

export type AzureLogin =
  | { readonly kind: 'shared key'; readonly account: string; readonly key: string }
  | { readonly kind: 'shared access signature'; readonly query: string }
  | { readonly kind: 'service principal'; readonly tenant: string; readonly client: string; readonly secret: string }
  | { readonly kind: 'credentials of this machine' }
  | { readonly kind: 'anonymous' }

/** The parts that blocks and fsspec settings have in common; empty texts count as missing. */
export interface AzureFields {
  readonly connectionString?: string | null | undefined
  readonly account?: string | null | undefined
  readonly key?: string | null | undefined
  readonly sas?: string | null | undefined
  readonly tenant?: string | null | undefined
  readonly client?: string | null | undefined
  readonly secret?: string | null | undefined
  /** Host of the account, or its whole URL, which may end with a SAS. */
  readonly accountUrl?: string | null | undefined
  /** Use nothing rather than what this machine has. */
  readonly anonymous?: boolean | null | undefined
}

/** The best of what is there, in adlfs' order: connection string, key, SAS, service principal, machine, nothing. */
export function readAccount(fields: AzureFields): Pick<AzureSettings, 'endpoint' | 'login'> {
  if (fields.connectionString) return readConnectionString(fields.connectionString)
  const url = fields.accountUrl
    ? URL.parse(/:\/\//.test(fields.accountUrl) ? fields.accountUrl : `https://${fields.accountUrl}`)
    : undefined
  if (url === null || (url && !/^https?:$/.test(url.protocol)))
    throw new StorageError('The address of the storage account is not a URL')
  const account = fields.account || url?.hostname.split('.')[0]
  if (!account) throw new StorageError('No storage account is named: neither a connection string nor an account')
  const endpoint = url ? url.origin + url.pathname.replace(/\/+$/, '') : `https://${account}.blob.core.windows.net`
  return { endpoint, login: chooseLogin({ ...fields, account, sas: fields.sas || url?.search }) }
}

function chooseLogin({ account, key, sas, tenant, client, secret, anonymous }: AzureFields): AzureLogin {
  if (account && key) return { kind: 'shared key', account, key }
  if (sas) return { kind: 'shared access signature', query: sas.replace(/^\?/, '') }
  if (tenant && client && secret) return { kind: 'service principal', tenant, client, secret }
  if (tenant || client || secret)
    throw new StorageError('Of the service principal (tenant id, client id, client secret) a part is missing')
  return anonymous ? { kind: 'anonymous' } : { kind: 'credentials of this machine' }
}

/** Microsoft's "Configure Azure Storage connection strings": `Name=Value` parts divided by `;`. */
function readConnectionString(text: string): Pick<AzureSettings, 'endpoint' | 'login'> {
  const parts = new Map<string, string>()
  for (const part of text.split(';')) {
    const at = part.indexOf('=')
    if (at > 0) parts.set(part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim())
  }
  if (parts.get('usedevelopmentstorage') === 'true')
    throw new StorageError('UseDevelopmentStorage is not supported: give the endpoint and the key')
  const account = parts.get('accountname')
  const scheme = parts.get('defaultendpointsprotocol') ?? 'https'
  const endpoint =
    parts.get('blobendpoint') ??
    (account && `${scheme}://${account}.blob.${parts.get('endpointsuffix') ?? 'core.windows.net'}`)
  if (!endpoint || !URL.canParse(endpoint))
    throw new StorageError('The connection string names neither an account nor a BlobEndpoint')
  const login = chooseLogin({
    account,
    key: parts.get('accountkey'),
    sas: parts.get('sharedaccesssignature'),
    anonymous: true,
  })
  return { endpoint: endpoint.replace(/\/+$/, ''), login }
}
