// The few S3 requests that are needed, over plain HTTP: sign, send, and put a refusal into words.

import type { StorageContext } from './context.ts'
import { HttpClient, type HttpRequest, type HttpResponse } from './http.ts'
import { elementText, refusal } from './http-refusal.ts'
import { openAccess, type S3Access } from './s3-access.ts'
import type { S3Settings } from './s3-settings.ts'
import { signRequest } from './s3-signature.ts'
import { encodePath, encodeQuery } from './url-encoding.ts'

export interface S3Request {
  readonly method: string
  /** Not encoded; '' is the bucket itself. */
  readonly key: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  /** A function is called once for each try. */
  readonly body?: HttpRequest['body'] | (() => Promise<HttpRequest['body']>)
}

/** Above it nothing is gained, on MinIO and on Amazon's. */
export const s3Connections = 32

export class S3Client {
  readonly #settings: S3Settings
  readonly #context: StorageContext
  readonly #http: HttpClient
  #access: Promise<S3Access> | undefined
  #region: string | undefined

  constructor(settings: S3Settings, context: StorageContext) {
    this.#settings = settings
    this.#context = context
    const caFile = settings.caFile ?? context.environment.AWS_CA_BUNDLE
    this.#http = new HttpClient({ connections: s3Connections, caFile, insecure: settings.insecure }, context)
  }

  /** The answer, whatever its status; only another region than was thought is followed. */
  async send(request: S3Request, signal: AbortSignal): Promise<HttpResponse> {
    const response = await this.#sendOnce(request, signal)
    const region = response.header('x-amz-bucket-region')
    const access = await this.#access
    if (response.status < 300 || region === '' || region === (this.#region ?? access?.region)) return response
    response.body.cancel()
    this.#region = region
    return this.#sendOnce(request, signal)
  }

  /** An error for an answer that was not hoped for. */
  refuse(what: string, response: HttpResponse): Promise<Error> {
    return refusal(what, response, body =>
      [elementText(body, 'Code'), elementText(body, 'Message')].filter(Boolean).join(': '),
    )
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  async #sendOnce(
    { method, key, query = {}, headers = {}, body }: S3Request,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    this.#access ??= openAccess(this.#settings, this.#context)
    const { keys, region, endpoint, pathStyle } = await this.#access
    const host = pathStyle ? endpoint.host : `${this.#settings.bucket}.${this.#hostFor(endpoint, region)}`
    const top = endpoint.pathname.replace(/\/$/, '') + (pathStyle ? `/${encodePath(this.#settings.bucket)}` : '')
    const unsigned = {
      method,
      host,
      path: `${top}/${encodePath(key)}`,
      query: encodeQuery(query),
      headers: this.#settings.requesterPays ? { 'x-amz-request-payer': 'requester' } : {},
    }
    const found = await keys()
    const scope = { region: this.#region ?? region, service: 's3', now: new Date() }
    const signed = found ? signRequest(unsigned, found, scope) : unsigned.headers
    const path = unsigned.query === '' ? unsigned.path : `${unsigned.path}?${unsigned.query}`
    return this.#http.send(
      {
        method,
        origin: `${endpoint.protocol}//${host}`,
        path,
        headers: { ...signed, ...headers },
        body: typeof body === 'function' ? await body() : body,
      },
      signal,
    )
  }

  /** Amazon's own address names the region; after a hint that it is another one, so does the host. */
  #hostFor(endpoint: URL, region: string): string {
    return this.#region === undefined ? endpoint.host : endpoint.host.replace(`.${region}.`, `.${this.#region}.`)
  }
}
