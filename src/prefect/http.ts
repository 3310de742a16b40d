// One HTTP exchange with the API's server: a request goes in, the whole answer comes out, or a TransportError.
//
// The only file that knows undici. It repeats nothing; what it adds is certainty about one thing: whether the request can
// have reached the server (`sent`), for a claim may never be made twice. Retries live in api.ts.

import { readFile } from 'node:fs/promises'
import type { Dispatcher } from 'undici'
import Pool from 'undici/lib/dispatcher/pool.js'
import { chooseProxy, type ProxyOptions } from '../proxy.ts'

/** Prefect's client keeps 16; an SQLite server answers one writer at a time, so more than 8 only queue up there. */
const CONNECTIONS = 8
/** Milliseconds. Prefect's server (uvicorn) closes an idle connection after 5 s: we must be the first, or a claim sent into the closing is lost. */
const KEEP_ALIVE_MS = 4000
/** Bytes. 200 flow runs with large parameters are a few MiB; what is larger is not Prefect's answer. */
export const MAX_ANSWER_BYTES = 64 * 1024 * 1024

export interface HttpOptions {
  readonly origin: URL
  readonly tls: TlsOptions
  readonly proxies: ProxyOptions
}

export interface TlsOptions {
  /** PEM file with the authorities to trust instead of the usual ones (PREFECT_API_SSL_CERT_FILE). */
  readonly caFile?: string | undefined
  /** Accept any certificate (PREFECT_API_TLS_INSECURE_SKIP_VERIFY). */
  readonly insecureSkipVerify?: boolean | undefined
}

export interface HttpRequest {
  readonly method: string
  /** Path and query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
  readonly timeoutMs: number
}

export interface HttpAnswer {
  readonly status: number
  /** Names in lower case; of a repeated header the first value. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
  /** Local clock, milliseconds. */
  readonly sentAt: number
  readonly receivedAt: number
}

export class TransportError extends Error {
  /** False is certain: not a byte of the request has left. True means that it may have been carried out. */
  readonly sent: boolean

  constructor(message: string, options: { sent: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.name = 'TransportError'
    this.sent = options.sent
  }
}

export class HttpConnections implements AsyncDisposable {
  readonly #options: HttpOptions
  #dispatcher: Promise<Dispatcher> | undefined

  constructor(options: HttpOptions) {
    this.#options = options
  }

  /** Throws TransportError, or the signal's reason as soon as it is aborted. */
  async exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    signal.throwIfAborted()
    const dispatcher = await this.#open()
    signal.throwIfAborted()
    return await exchange(dispatcher, this.#options.origin.origin, request, signal)
  }

  async #open(): Promise<Dispatcher> {
    this.#dispatcher ??= openDispatcher(this.#options)
    try {
      return await this.#dispatcher
    } catch (cause) {
      // The certificate file may be there at the next call: the daemon does not end because of it.
      this.#dispatcher = undefined
      throw new TransportError('the connection could not be prepared', { sent: false, cause })
    }
  }

  /** Cuts what is under way: whoever waits for an answer gets a TransportError. */
  async [Symbol.asyncDispose](): Promise<void> {
    const dispatcher = await this.#dispatcher?.catch(() => undefined)
    await dispatcher?.destroy()
  }
}

async function openDispatcher({ origin, tls, proxies }: HttpOptions): Promise<Dispatcher> {
  const requestTls = {
    ...(tls.caFile === undefined || tls.caFile === '' ? {} : { ca: await readFile(tls.caFile, 'utf8') }),
    ...(tls.insecureSkipVerify === true ? { rejectUnauthorized: false } : {}),
  }
  // The time limits are ours, per exchange: undici's would each start anew.
  const limits = {
    connections: CONNECTIONS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
    allowH2: false,
  }
  const proxy = chooseProxy(origin, proxies)
  if (proxy === undefined) return new Pool(origin.origin, { ...limits, connectTimeout: 0, connect: requestTls })

  // Tunnels need more of undici than its side doors give; who has a proxy pays for the front door.
  const { ProxyAgent } = await import('undici')
  return new ProxyAgent({
    ...limits,
    uri: proxy,
    requestTls: { ...requestTls, timeout: 0 },
    proxyTls: { ...requestTls, timeout: 0 },
    factory: (to, options) => new Pool(to, Object.assign({}, options, limits)),
  })
}

function exchange(
  dispatcher: Dispatcher,
  origin: string,
  request: HttpRequest,
  signal: AbortSignal,
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    let head: Pick<HttpAnswer, 'status' | 'headers'> | undefined
    let abort: ((reason: Error) => void) | undefined
    let sentAt: number | undefined
    let stopped: Error | undefined

    /** Ends the exchange from our side. A request that still waits for a connection is then never sent. */
    const stop = (reason: Error): void => {
      if (stopped) return
      stopped = reason
      finish()
      reject(reason)
      abort?.(reason)
    }
    const fail = (message: string, cause?: unknown): void =>
      stop(new TransportError(message, { sent: sentAt !== undefined, cause }))
    const finish = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
    const onAbort = (): void => stop(toError(signal.reason))
    const timer = setTimeout(() => fail(`no answer within ${request.timeoutMs / 1000} s`), request.timeoutMs)
    signal.addEventListener('abort', onAbort)

    dispatcher.dispatch(
      {
        origin,
        method: request.method,
        path: request.path,
        headers: { ...request.headers },
        body: request.body ?? null,
      },
      {
        onRequestStart(controller) {
          if (stopped) return controller.abort(stopped)
          abort = reason => controller.abort(reason)
          sentAt = Date.now()
        },
        onResponseStart(_controller, status, headers) {
          // 1xx answers come before the real one.
          if (status >= 200) head = { status, headers: readHeaders(headers) }
        },
        onResponseData(_controller, chunk) {
          if (stopped) return
          size += chunk.length
          if (size > MAX_ANSWER_BYTES) return fail(`the answer is larger than ${MAX_ANSWER_BYTES / 1024 / 1024} MiB`)
          chunks.push(chunk)
        },
        onResponseEnd() {
          if (stopped || head === undefined || sentAt === undefined) return
          finish()
          resolve({ ...head, body: Buffer.concat(chunks).toString('utf8'), sentAt, receivedAt: Date.now() })
        },
        onResponseError(_controller, error) {
          fail(error.message || error.name, error)
        },
      },
    )
  })
}

function readHeaders(headers: Readonly<Record<string, string | string[] | undefined>>): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const [name, value] of Object.entries(headers)) {
    const first = Array.isArray(value) ? value[0] : value
    if (first !== undefined) found.set(name.toLowerCase(), first)
  }
  return found
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('aborted', { cause: reason })
}
