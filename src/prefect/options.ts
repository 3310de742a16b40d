// What the client must be told, and what is wrong with it at once. Names and defaults are Prefect's settings'.

import { UserError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ProxyOptions } from '../proxy.ts'
import type { TlsOptions } from './http.ts'

export interface ClientOptions {
  /** PREFECT_API_URL, taken as it is: `http://host:4200/api`. */
  readonly url: string
  /** PREFECT_API_KEY: sent as a bearer token. */
  readonly key?: string | undefined
  /** PREFECT_API_AUTH_STRING (`user:password`): basic auth; goes before the key. */
  readonly authString?: string | undefined
  /** PREFECT_CLIENT_CUSTOM_HEADERS; they go last, so that they can replace Authorization. */
  readonly customHeaders?: Readonly<Record<string, string>> | undefined
  readonly tls?: TlsOptions | undefined
  readonly proxies?: ProxyOptions | undefined
  /** PREFECT_API_REQUEST_TIMEOUT, for one attempt from the wait for a connection to the answer's last byte. 60. */
  readonly requestTimeoutSeconds?: number | undefined
  /** PREFECT_CLIENT_MAX_RETRIES: repeats after the first attempt. 5. */
  readonly maxRetries?: number | undefined
  /** PREFECT_CLIENT_RETRY_JITTER_FACTOR: share by which a delay is drawn longer or shorter. 0.2. */
  readonly jitterFactor?: number | undefined
  /** PREFECT_CLIENT_RETRY_EXTRA_CODES: statuses to repeat beside 408, 429, 502 and 503. */
  readonly extraCodes?: readonly number[] | undefined
  /** PREFECT_CLIENT_CSRF_SUPPORT_ENABLED. true. */
  readonly csrf?: boolean | undefined
  /** PREFECT_CLOUD_API_URL: what begins with it has no CSRF protection. */
  readonly cloudApiUrl?: string | undefined
  /** Our own version, for the User-Agent. */
  readonly version?: string | undefined
  readonly logger: Logger
}

/** Throws UserError when it is no http(s) URL. */
export function readBaseUrl(text: string): URL {
  const url = URL.parse(text)
  if (url && (url.protocol === 'http:' || url.protocol === 'https:')) return url
  // The text is not shown: it may hold a password.
  throw new UserError('The API URL is not an http or https URL.', {
    hint: 'Set PREFECT_API_URL, for example to http://127.0.0.1:4200/api.',
  })
}

export function isCloud({ url, cloudApiUrl }: Pick<ClientOptions, 'url' | 'cloudApiUrl'>): boolean {
  return url.startsWith(cloudApiUrl ?? 'https://api.prefect.cloud/api')
}
