// Speaks to one cluster's API server: requests with the cluster's credentials, streams for watches and logs.
//
// @kubernetes/client-node reads kubeconfigs and knows every way to log in (certificates, tokens and their renewal, exec
// plugins, OIDC, proxies). Its generated calls are not used: their models drop fields that they do not know, so a user's
// manifest would not arrive as it was written; and its watch makes a new pool of connections for each call (2.0).

import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https'
import type { KubeConfig } from '@kubernetes/client-node'
import * as v from 'valibot'

/** A write that is not answered is asked for again, which is safe: it is soon seen whether it has come about. */
const writeTimeoutMs = 8_000
const readTimeoutMs = 30_000
/** Answers are kept in memory whole; a list is asked for in pages. */
const longestAnswerBytes = 64 * 1024 * 1024

/**
 * `refused`: the API server has answered so. `unreachable`: it was not sent. `lost`: it may have been carried out.
 */
export class ClusterError extends Error {
  readonly kind: 'refused' | 'unreachable' | 'lost'
  /** HTTP status of a refusal. */
  readonly status: number | undefined
  /** Kubernetes' own word, such as `AlreadyExists`. */
  readonly reason: string
  readonly retryAfterMs: number | undefined

  constructor(
    kind: ClusterError['kind'],
    message: string,
    options: { status?: number; reason?: string; retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'ClusterError'
    this.kind = kind
    this.status = options.status
    this.reason = options.reason ?? ''
    this.retryAfterMs = options.retryAfterMs
  }
}

export function isRefusal(error: unknown, ...statuses: readonly number[]): error is ClusterError {
  return error instanceof ClusterError && error.status !== undefined && statuses.includes(error.status)
}

/** No answer, or one that says "not now": the same call may be answered otherwise a moment later. */
export function mayPass(error: unknown): error is ClusterError {
  if (!(error instanceof ClusterError)) return false
  return error.status === undefined || error.status === 429 || error.status >= 500 || error.status === 401
}

type Method = 'GET' | 'POST' | 'PATCH' | 'DELETE'
type Query = Readonly<Record<string, string | number | boolean | undefined>>

const statusSchema = v.object({
  reason: v.nullish(v.string(), ''),
  message: v.nullish(v.string(), ''),
  details: v.nullish(v.object({ retryAfterSeconds: v.nullish(v.number()) })),
})

export class ClusterClient implements AsyncDisposable {
  readonly #config: KubeConfig
  readonly #server: URL
  readonly #agent: HttpAgent | HttpsAgent

  /** Throws when the kubeconfig names no cluster, or one without an address. */
  constructor(config: KubeConfig) {
    const cluster = config.getCurrentCluster()
    if (!cluster) throw new Error('the kubeconfig has no current context with a cluster')
    this.#config = config
    this.#server = new URL(cluster.server)
    // The API server's own limits (priority and fairness) hold; a second one on this side would only hide them.
    const options = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY, scheduling: 'lifo' as const }
    this.#agent = this.#server.protocol === 'http:' ? new HttpAgent(options) : new HttpsAgent(options)
  }

  get server(): string {
    return this.#server.href
  }

  /** The answer's JSON. Throws a ClusterError, or the signal's reason. */
  async call(
    method: Method,
    path: string,
    input: { query?: Query; body?: unknown },
    signal: AbortSignal,
  ): Promise<unknown> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(method === 'GET' ? readTimeoutMs : writeTimeoutMs)])
    const answer = await this.#send(method, path, input, limit, signal)
    try {
      return JSON.parse(await readText(answer))
    } catch (cause) {
      signal.throwIfAborted()
      throw new ClusterError('lost', `The answer of the API server to ${method} ${path} broke off`, { cause })
    }
  }

  /** The body of a lasting answer. It ends, or breaks with an error, when the connection does; aborted by the signal. */
  async stream(path: string, query: Query, signal: AbortSignal): Promise<IncomingMessage> {
    const answered = new AbortController()
    const timer = setTimeout(() => answered.abort(new Error('no answer in time')), readTimeoutMs)
    try {
      return await this.#send('GET', path, { query }, AbortSignal.any([signal, answered.signal]), signal)
    } finally {
      clearTimeout(timer)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
  }

  async #send(
    method: Method,
    path: string,
    { query = {}, body }: { query?: Query; body?: unknown },
    limit: AbortSignal,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const what = `${method} ${path}`
    const options = await this.#authenticate(what, signal)
    let answer: IncomingMessage
    try {
      answer = await this.#exchange(method, this.#url(path, query), body, options, limit)
    } catch (cause) {
      signal.throwIfAborted()
      const kind = isConnectFailure(cause) ? 'unreachable' : 'lost'
      const why = cause instanceof Error ? cause.message || cause.name : String(cause)
      throw new ClusterError(kind, `The API server at ${this.#server.host} did not answer (${why})`, { cause })
    }
    const { statusCode: status = 0 } = answer
    if (status >= 200 && status < 300) return answer
    throw await readRefusal(what, status, answer)
  }

  async #authenticate(what: string, signal: AbortSignal): Promise<RequestOptions> {
    const options: RequestOptions = { headers: {} }
    try {
      await this.#config.applyToHTTPSOptions(options)
    } catch (cause) {
      signal.throwIfAborted()
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new ClusterError('unreachable', `Cannot log in to the cluster for ${what}: ${why}`, { cause })
    }
    const isProxied = this.#config.getCurrentCluster()?.proxyUrl !== undefined
    if (!isProxied) options.agent = this.#agent
    return options
  }

  #url(path: string, query: Query): URL {
    const url = new URL(this.#server.href.replace(/\/$/, '') + path)
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    return url
  }

  #exchange(
    method: Method,
    url: URL,
    body: unknown,
    options: RequestOptions,
    limit: AbortSignal,
  ): Promise<IncomingMessage> {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'
    const headers = {
      ...asRecord(options.headers),
      Accept: 'application/json',
      'User-Agent': 'rigel',
      ...(text === undefined ? {} : { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) }),
    }
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const send = url.protocol === 'http:' ? httpRequest : httpsRequest
    const sent = send(url, { ...options, method, headers, signal: limit }, resolve)
    sent.on('error', reject)
    sent.end(text)
    return promise
  }
}

/** Node knows two forms; the library fills in this one. */
function asRecord(headers: RequestOptions['headers']): OutgoingHttpHeaders {
  if (headers === undefined || isList(headers)) return {}
  return headers
}

function isList(value: NonNullable<RequestOptions['headers']>): value is readonly string[] {
  return Array.isArray(value)
}

async function readText(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    bytes += chunk.length
    if (bytes > longestAnswerBytes) throw new Error('the answer is too long')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function readRefusal(what: string, status: number, answer: IncomingMessage): Promise<ClusterError> {
  const text = await readText(answer).catch(() => '')
  let told: v.InferOutput<typeof statusSchema> | undefined
  try {
    told = v.parse(statusSchema, JSON.parse(text))
  } catch {
    // A proxy's page, or nothing: the status alone must do.
  }
  const header = Number(answer.headers['retry-after'])
  const seconds = told?.details?.retryAfterSeconds || (Number.isFinite(header) ? header : undefined)
  return new ClusterError('refused', told?.message || `The API server answered ${what} with status ${status}`, {
    status,
    reason: told?.reason ?? '',
    retryAfterMs: seconds === undefined ? undefined : seconds * 1000,
  })
}

function isConnectFailure(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ERR_TLS|CERT_|UNABLE_TO|SELF_SIGNED|DEPTH_ZERO)/.test(
    code,
  )
}
