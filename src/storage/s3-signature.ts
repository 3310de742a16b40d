// Signs S3 requests with AWS Signature Version 4, as its documentation says ("Authenticating Requests: Using the
// Authorization Header"). Of our own because the SDK's request pipeline costs more than the request.

import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto'

export interface S3Keys {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

export interface UnsignedRequest {
  readonly method: string
  readonly host: string
  /** Encoded path, and sorted, encoded query without `?`. */
  readonly path: string
  readonly query: string
  /** Headers with lower-case names that are to be signed beside host and date. */
  readonly headers: Readonly<Record<string, string>>
}

/** All headers to send but `host`. The body is not signed: TLS protects it, and a stream has no hash beforehand. */
export function signRequest(
  request: UnsignedRequest,
  keys: S3Keys,
  { region, service, now }: { readonly region: string; readonly service: string; readonly now: Date },
): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '')
  const day = time.slice(0, 8)
  const headers: Record<string, string> = {
    ...request.headers,
    'x-amz-content-sha256': 'UNSIGNED-PAYLOAD',
    'x-amz-date': time,
    ...(keys.sessionToken ? { 'x-amz-security-token': keys.sessionToken } : {}),
  }
  const signed = Object.entries({ ...headers, host: request.host }).toSorted(([a], [b]) => (a < b ? -1 : 1))
  const names = signed.map(([name]) => name).join(';')
  const canonical = [
    request.method,
    request.path,
    request.query,
    ...signed.map(([name, value]) => `${name}:${value.trim()}`),
    '',
    names,
    'UNSIGNED-PAYLOAD',
  ].join('\n')
  const scope = `${day}/${region}/${service}/aws4_request`
  const text = ['AWS4-HMAC-SHA256', time, scope, hash('sha256', canonical)].join('\n')
  const signature = createHmac('sha256', signingKey(keys.secretAccessKey, { day, region, service }))
    .update(text)
    .digest('hex')
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${keys.accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}`
  return headers
}

interface KeyScope {
  readonly day: string
  readonly region: string
  readonly service: string
}

let lastKey: { readonly secret: string; readonly scope: string; readonly key: KeyObject } | undefined

/** Four hashes that change once a day. As an object: given as bytes, each signature would cost three times as much. */
function signingKey(secret: string, { day, region, service }: KeyScope): KeyObject {
  const scope = `${day}/${region}/${service}`
  if (lastKey?.secret === secret && lastKey.scope === scope) return lastKey.key
  let bytes = Buffer.from(`AWS4${secret}`)
  for (const part of [day, region, service, 'aws4_request']) bytes = createHmac('sha256', bytes).update(part).digest()
  const key = createSecretKey(bytes)
  lastKey = { secret, scope, key }
  return key
}
