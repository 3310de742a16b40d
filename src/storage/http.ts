// HTTP for storage drivers: many requests at once over kept connections, bodies read at once or as a stream.
//
// It repeats nothing (retry.ts does) and judges nothing but the connection. Proxies come from the environment that config/
// has read: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.

import { readFile } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import EnvHttpProxyAgent from 'undici/lib/dispatcher/env-http-proxy-agent.js'
import type { StorageContext } from './context.ts'
import { HttpBody } from './http-body.ts'

/** A server that says nothing for so long will not. Milliseconds. */
const silenceMs = 30_000
const connectMs = 10_000

export interface HttpOptions {
  /** How many connections to one host at once. */
  readonly connections: number
  /** PEM file with the authorities to trust instead of the usual ones. */
  readonly caFile?: string | undefined
  /** Accept any certificate. */
  readonly insecure?: boolean | undefined
}

export interface HttpRequest {
  readonly method: string
  /** Scheme, host and port. */
  readonly origin: string
  /** Path and query, sent exactly as they are: nothing normalises `..` or encodes again. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array | Readable | undefined
}

export interface HttpResponse {
  readonly status: number
  /** Of a repeated header the first value; '' when it is not there. */
  header(name: string): string
  readonly body: HttpBody
}

export class HttpClient {
  readonly #options: HttpOptions
  readonly #context: Pick<StorageContext, 'environment' | 'meter'>
  #dispatcher: Promise<Dispatcher> | undefined

  constructor(options: HttpOptions, context: Pick<StorageContext, 'environment' | 'meter'>) {
    this.#options = options
    this.#context = context
  }

  /** Resolves with the head of the answer; its body must be read or cancelled. Rejects with the connection's error. */
  async send(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    signal.throwIfAborted()
    this.#dispatcher ??= openDispatcher(this.#options, this.#context.environment)
    const dispatcher = await this.#dispatcher
    if (this.#context.meter) this.#context.meter.requests += 1
    return dispatch(dispatcher, request, signal)
  }

  /** Cuts what is under way. */
  async close(): Promise<void> {
    await (await this.#dispatcher)?.destroy()
  }
}

async function openDispatcher(options: HttpOptions, environment: StorageContext['environment']): Promise<Dispatcher> {
  const tls = {
    ...(options.caFile ? { ca: await readFile(options.caFile, 'utf8') } : {}),
    ...(options.insecure ? { rejectUnauthorized: false } : {}),
  }
  const limits = { connections: options.connections, headersTimeout: silenceMs, bodyTimeout: silenceMs, allowH2: false }
  return new EnvHttpProxyAgent({
    ...limits,
    connect: { ...tls, timeout: connectMs },
    requestTls: tls,
    // Given even when empty: undici would look into process.env otherwise.
    httpProxy: environment.http_proxy || environment.HTTP_PROXY || '',
    httpsProxy: environment.https_proxy || environment.HTTPS_PROXY || '',
    noProxy: environment.no_proxy || environment.NO_PROXY || '',
  })
}

function dispatch(dispatcher: Dispatcher, request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    let body: HttpBody | undefined
    let abort: ((reason: Error) => void) | undefined
    const onAbort = () => abort?.(toError(signal.reason))
    signal.addEventListener('abort', onAbort)
    const finish = () => signal.removeEventListener('abort', onAbort)
    const { method, origin, path, headers } = request
    dispatcher.dispatch(
      { method, origin, path, headers: { ...headers }, body: request.body ?? null },
      {
        onRequestStart(controller) {
          if (signal.aborted) controller.abort(toError(signal.reason))
          abort = reason => controller.abort(reason)
        },
        onResponseStart(controller, status, headers) {
          // 1xx answers come before the real one.
          if (status < 200) return
          body = new HttpBody(controller)
          resolve({ status, header: name => firstOf(headers[name]), body })
        },
        onResponseData: (_controller, chunk) => body?.push(chunk),
        onResponseEnd() {
          finish()
          body?.end()
        },
        onResponseError(_controller, error) {
          finish()
          if (body) body.fail(error)
          else reject(error)
        },
      },
    )
  })
}

function firstOf(value: string | string[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? ''
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
