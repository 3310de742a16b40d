// How requests to Azure Blob Storage prove who sends them.

import { createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { AzureLogin } from './azure-settings.ts'
import { askToken, BearerToken, type Token, type TokenRequest } from './bearer-token.ts'
import type { StorageContext } from './context.ts'
import type { HttpClient } from './http.ts'
import { StorageError } from './storage.ts'

export interface AzureRequest {
  readonly method: string
  /** Encoded, with a leading slash. */
  readonly path: string
  /** Not encoded. */
  readonly query: Readonly<Record<string, string>>
  /** All begin with `x-ms-`, but `content-length`. */
  readonly headers: Readonly<Record<string, string>>
}

/** Headers to add, and text to add to the query. */
export type Authorize = (
  request: AzureRequest,
  signal: AbortSignal,
) => Promise<{ readonly headers: Record<string, string>; readonly query: string }>

const storageScope = 'https://storage.azure.com/'

export function openLogin(login: AzureLogin, http: HttpClient, environment: StorageContext['environment']): Authorize {
  switch (login.kind) {
    case 'anonymous':
      return () => Promise.resolve({ headers: {}, query: '' })
    case 'shared access signature':
      return () => Promise.resolve({ headers: {}, query: login.query })
    case 'shared key': {
      const key = createSecretKey(Buffer.from(login.key, 'base64'))
      return request =>
        Promise.resolve({
          headers: { authorization: `SharedKey ${login.account}:${sign(request, login.account, key)}` },
          query: '',
        })
    }
    case 'service principal':
      return bearer(signal => askToken(http, principalRequest(login, environment), signal))
    case 'credentials of this machine':
      return bearer(signal => askMachine(http, environment, signal))
  }
}

function bearer(ask: (signal: AbortSignal) => Promise<Token>): Authorize {
  const token = new BearerToken(ask)
  return async (_request, signal) => ({ headers: { authorization: `Bearer ${await token.get(signal)}` }, query: '' })
}

/** Microsoft's "Authorize with Shared Key", version 2015-02-21 and later: eleven standard headers, of which we send one. */
function sign({ method, path, query, headers }: AzureRequest, account: string, key: KeyObject): string {
  const { 'content-length': length = '', ...own } = headers
  const canonicalHeaders = Object.entries(own)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}:${value}\n`)
    .join('')
  const resource = Object.entries(query)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `\n${name}:${value}`)
    .join('')
  const text = `${method}\n\n\n${length === '0' ? '' : length}\n\n\n\n\n\n\n\n\n${canonicalHeaders}/${account}${path}${resource}`
  return createHmac('sha256', key).update(text).digest('base64')
}

function principalRequest(
  { tenant, client, secret }: { readonly tenant: string; readonly client: string; readonly secret: string },
  environment: StorageContext['environment'],
): TokenRequest {
  const form = {
    grant_type: 'client_credentials',
    client_id: client,
    client_secret: secret,
    scope: `${storageScope}.default`,
  }
  return { url: tokenUrl(tenant, environment), form }
}

function tokenUrl(tenant: string, environment: StorageContext['environment']): string {
  const authority = environment.AZURE_AUTHORITY_HOST ?? 'https://login.microsoftonline.com'
  return `${authority.replace(/\/+$/, '')}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`
}

/** In the order of Microsoft's DefaultAzureCredential: environment, workload identity, managed identity. */
async function askMachine(
  http: HttpClient,
  environment: StorageContext['environment'],
  signal: AbortSignal,
): Promise<Token> {
  const {
    AZURE_TENANT_ID: tenant,
    AZURE_CLIENT_ID: client,
    AZURE_CLIENT_SECRET: secret,
    AZURE_FEDERATED_TOKEN_FILE: file,
  } = environment
  if (tenant && client && secret)
    return askToken(http, principalRequest({ tenant, client, secret }, environment), signal)
  if (tenant && client && file) {
    const form = {
      grant_type: 'client_credentials',
      client_id: client,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: (await readFile(file, 'utf8')).trim(),
      scope: `${storageScope}.default`,
    }
    return askToken(http, { url: tokenUrl(tenant, environment), form }, signal)
  }
  return askManagedIdentity(http, environment, signal)
}

async function askManagedIdentity(
  http: HttpClient,
  environment: StorageContext['environment'],
  signal: AbortSignal,
): Promise<Token> {
  const { IDENTITY_ENDPOINT: endpoint, IDENTITY_HEADER: header, AZURE_CLIENT_ID: client } = environment
  const query = new URLSearchParams({ resource: storageScope, ...(client ? { client_id: client } : {}) }).toString()
  const request =
    endpoint && header
      ? { url: `${endpoint}?${query}&api-version=2019-08-01`, headers: { 'x-identity-header': header } }
      : {
          url: `http://169.254.169.254/metadata/identity/oauth2/token?${query}&api-version=2018-02-01`,
          headers: { metadata: 'true' },
        }
  try {
    // Outside of Azure nobody answers at that address, not even to refuse.
    return await askToken(http, request, AbortSignal.any([signal, AbortSignal.timeout(3000)]))
  } catch (error) {
    signal.throwIfAborted()
    throw new StorageError(
      'The block has no key, SAS or service principal, and this machine has none either: neither AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET nor a managed identity',
      { cause: error },
    )
  }
}
