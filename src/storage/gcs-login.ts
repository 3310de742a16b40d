// Whose token goes with requests to Google Cloud Storage: a service account's, the machine's, or none.

import { createSign } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { askToken, BearerToken, parseJson, type Token } from './bearer-token.ts'
import type { StorageContext } from './context.ts'
import type { HttpClient } from './http.ts'
import { StorageError } from './storage.ts'

export type GcsLogin =
  /** The content of a key file: text or object. */
  | { readonly kind: 'service account of the block'; readonly key: unknown }
  | { readonly kind: 'key file of the block'; readonly path: string }
  | { readonly kind: 'application default credentials of this machine' }
  | { readonly kind: 'anonymous' }

const scope = 'https://www.googleapis.com/auth/devstorage.read_write'

const KeyFile = v.variant('type', [
  v.looseObject({
    type: v.literal('service_account'),
    client_email: v.string(),
    private_key: v.string(),
    private_key_id: v.optional(v.string()),
    token_uri: v.optional(v.string(), 'https://oauth2.googleapis.com/token'),
  }),
  v.looseObject({
    type: v.literal('authorized_user'),
    client_id: v.string(),
    client_secret: v.string(),
    refresh_token: v.string(),
    token_uri: v.optional(v.string(), 'https://oauth2.googleapis.com/token'),
  }),
])
type KeyFile = v.InferOutput<typeof KeyFile>

/** Gives the token for a request; undefined: send none. */
export type GetToken = (signal: AbortSignal) => Promise<string | undefined>

export function openGcsLogin(login: GcsLogin, http: HttpClient, { environment, home }: StorageContext): GetToken {
  switch (login.kind) {
    case 'anonymous':
      return () => Promise.resolve(undefined)
    case 'service account of the block':
      return bearer(signal => askWithKey(http, readKey(login.key, 'The service account of the block'), signal))
    case 'key file of the block':
      return bearer(async signal => askWithKey(http, await readKeyFile(expandHome(login.path, home)), signal))
    case 'application default credentials of this machine':
      // An emulator asks for nothing, and Google's own clients send it nothing.
      if (environment.STORAGE_EMULATOR_HOST && !environment.GOOGLE_APPLICATION_CREDENTIALS)
        return () => Promise.resolve(undefined)
      return bearer(signal => askDefault(http, { environment, home }, signal))
  }
}

function bearer(ask: (signal: AbortSignal) => Promise<Token>): GetToken {
  const token = new BearerToken(ask)
  return signal => token.get(signal)
}

/** Google's order: the file that the environment names, gcloud's own file, the machine's metadata server. */
async function askDefault(
  http: HttpClient,
  { environment, home }: Pick<StorageContext, 'environment' | 'home'>,
  signal: AbortSignal,
): Promise<Token> {
  const named = environment.GOOGLE_APPLICATION_CREDENTIALS
  if (named) return askWithKey(http, await readKeyFile(named), signal)
  const folder = environment.CLOUDSDK_CONFIG ?? join(home, '.config', 'gcloud')
  const stored = await readFile(join(folder, 'application_default_credentials.json'), 'utf8').catch(() => undefined)
  if (stored !== undefined) return askWithKey(http, readKey(stored, "gcloud's stored credentials"), signal)
  const host = environment.GCE_METADATA_HOST ?? 'metadata.google.internal'
  const url = `http://${host}/computeMetadata/v1/instance/service-accounts/default/token`
  try {
    // Outside of Google's cloud nobody answers at that address.
    return await askToken(
      http,
      { url, headers: { 'metadata-flavor': 'Google' } },
      AbortSignal.any([signal, AbortSignal.timeout(3000)]),
    )
  } catch (error) {
    signal.throwIfAborted()
    throw new StorageError(
      'The block has no service account, and this machine has none either: neither GOOGLE_APPLICATION_CREDENTIALS nor gcloud nor a metadata server',
      { cause: error },
    )
  }
}

async function readKeyFile(path: string): Promise<KeyFile> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new StorageError(`Key file "${path}" cannot be read`, { cause: error })
  })
  return readKey(text, `Key file "${path}"`)
}

function readKey(key: unknown, what: string): KeyFile {
  const result = v.safeParse(KeyFile, typeof key === 'string' ? parseJson(key) : key)
  // No detail: what stands there is a secret.
  if (!result.success) throw new StorageError(`${what} is not the JSON of a service account or an authorized user`)
  return result.output
}

function askWithKey(http: HttpClient, key: KeyFile, signal: AbortSignal): Promise<Token> {
  if (key.type === 'service_account') {
    const form = { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: signAssertion(key) }
    return askToken(http, { url: key.token_uri, form }, signal)
  }
  const { client_id, client_secret, refresh_token } = key
  return askToken(
    http,
    { url: key.token_uri, form: { grant_type: 'refresh_token', client_id, client_secret, refresh_token } },
    signal,
  )
}

/** RFC 7523, as Google's "Using OAuth 2.0 for Server to Server Applications" asks for it. */
function signAssertion(key: Extract<KeyFile, { type: 'service_account' }>): string {
  const now = Math.floor(Date.now() / 1000)
  const header = { alg: 'RS256', typ: 'JWT', ...(key.private_key_id ? { kid: key.private_key_id } : {}) }
  const claims = { iss: key.client_email, scope, aud: key.token_uri, iat: now, exp: now + 3600 }
  const text = [header, claims].map(part => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  try {
    return `${text}.${createSign('RSA-SHA256').update(text).sign(key.private_key, 'base64url')}`
  } catch {
    // The cause would quote the key.
    throw new StorageError('The private key of the service account is damaged')
  }
}

function expandHome(path: string, home: string): string {
  return path.startsWith('~/') ? join(home, path.slice(2)) : path
}
