// HTTP for storage drivers: many requests at once over kept connections, bodies read at once or as a stream.
//
// It repeats nothing (retry.ts does) and judges nothing but the connection.

import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { buildConnector, Client, Dispatcher, Pool } from 'undici'
import { chooseProxy, type ProxyOptions } from '../proxy.ts'
import type { StorageContext } from './context.ts'
import { HttpBody } from './http-body.ts'
import { HttpLanes } from './http-lanes.ts'
import { TransientError } from './source.ts'

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
  readonly #context: Pick<StorageContext, 'proxies' | 'meter'>
  readonly #aborts = new Aborts()
  /** By origin. */
  readonly #transports = new Map<string, Promise<Transport>>()

  constructor(options: HttpOptions, context: Pick<StorageContext, 'proxies' | 'meter'>) {
    this.#options = options
    this.#context = context
  }

  /** Resolves with the head of the answer; its body must be read or cancelled. Rejects with the connection's error. */
  async send(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse> {
    const { dispatcher, release } = await this.#takeConnection(request, signal)
    if (this.#context.meter) this.#context.meter.requests += 1
    return new Promise((resolve, reject) => {
      const exchange = new Exchange(resolve, reject, () => {
        this.#aborts.delete(signal, exchange)
        release()
      })
      this.#aborts.add(signal, exchange)
      const { method, origin, path, headers, body = null } = request
      // undici closes the connection after each HEAD unless it is told not to: four fifths of the time of 2,000 of them.
      const stays = method === 'HEAD' ? { reset: false } : {}
      dispatcher.dispatch({ method, origin, path, headers: { ...headers }, body, ...stays }, exchange)
    })
  }

  /** Cuts what is under way. */
  async close(): Promise<void> {
    await Promise.all([...this.#transports.values()].map(async transport => (await transport).close()))
  }

  async #takeConnection({ origin, body }: HttpRequest, signal: AbortSignal): Promise<Taken> {
    try {
      signal.throwIfAborted()
      const transport = this.#transports.get(origin) ?? openTransport(origin, this.#options, this.#context.proxies)
      this.#transports.set(origin, transport)
      const taken = await (await transport).take(signal)
      if (signal.aborted) taken.release()
      signal.throwIfAborted()
      return taken
    } catch (error) {
      // Nobody will read it: a file would stay open.
      if (body instanceof Readable) body.destroy()
      throw error
    }
  }
}

/** Where requests to one origin go. */
interface Transport {
  readonly take: (signal: AbortSignal) => Promise<Taken> | Taken
  readonly close: () => Promise<void>
}

interface Taken {
  readonly dispatcher: Dispatcher
  /** When the request is over. */
  readonly release: () => void
}

async function openTransport(origin: string, options: HttpOptions, proxies: ProxyOptions): Promise<Transport> {
  const { connections, caFile, insecure } = options
  const connect = {
    ...(caFile ? { ca: await readFile(caFile, 'utf8') } : {}),
    ...(insecure ? { rejectUnauthorized: false } : {}),
    timeout: connectMs,
  }
  const limits = { headersTimeout: silenceMs, bodyTimeout: silenceMs, allowH2: false }
  const proxy = chooseProxy(new URL(origin), proxies)
  if (proxy !== undefined) return openProxied(proxy, { ...limits, connections }, connect)
  const { default: HttpConnection } = await import('undici/lib/dispatcher/client.js')
  const lanes = new HttpLanes(() => new HttpConnection(origin, { ...limits, connect }), connections)
  const taken = (dispatcher: Client) => ({ dispatcher, release: () => lanes.release(dispatcher) })
  return {
    take(signal) {
      const free = lanes.take()
      return free ? taken(free) : lanes.next(signal).then(taken)
    },
    close: () => lanes.close(),
  }
}

async function openProxied(
  proxy: string,
  limits: Pool.Options,
  connect: buildConnector.BuildOptions,
): Promise<Transport> {
  // Tunnels need more of undici than its side doors give; who has a proxy pays for the front door.
  const { Pool, ProxyAgent } = await import('undici')
  const dispatcher = new ProxyAgent({
    ...limits,
    uri: proxy,
    requestTls: connect,
    proxyTls: connect,
    factory: (to, options) => new Pool(to, Object.assign({}, options, limits)),
  })
  const taken = { dispatcher, release: () => undefined }
  return { take: () => taken, close: () => dispatcher.destroy() }
}

/** One request and its answer, as undici tells of them. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #resolve: (response: HttpResponse) => void
  readonly #reject: (error: Error) => void
  readonly #over: () => void
  #body: HttpBody | undefined
  #controller: Dispatcher.DispatchController | undefined
  #aborted: Error | undefined

  constructor(resolve: (response: HttpResponse) => void, reject: (error: Error) => void, over: () => void) {
    this.#resolve = resolve
    this.#reject = reject
    this.#over = over
  }

  abort(reason: Error): void {
    this.#aborted = reason
    this.#controller?.abort(reason)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#aborted) controller.abort(this.#aborted)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    // 1xx answers come before the real one.
    if (status < 200) return
    const body = new HttpBody(controller)
    this.#body = body
    this.#resolve({ status, header: name => firstOf(headers[name]), body })
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#body?.push(chunk)
  }

  onResponseEnd(): void {
    this.#over()
    this.#body?.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#over()
    if (this.#body) this.#body.fail(error)
    else this.#reject(connectionError(error))
  }
}

/** Listens to each signal once for all the requests that are under way with it: a listener for each is dear. */
class Aborts {
  readonly #underWay = new Map<AbortSignal, { readonly exchanges: Set<Exchange>; readonly onAbort: () => void }>()

  add(signal: AbortSignal, exchange: Exchange): void {
    const known = this.#underWay.get(signal)
    if (known) {
      known.exchanges.add(exchange)
      return
    }
    const exchanges = new Set([exchange])
    const onAbort = () => {
      for (const exchange of exchanges) exchange.abort(toError(signal.reason))
    }
    signal.addEventListener('abort', onAbort, { once: true })
    this.#underWay.set(signal, { exchanges, onAbort })
  }

  delete(signal: AbortSignal, exchange: Exchange): void {
    const known = this.#underWay.get(signal)
    known?.exchanges.delete(exchange)
    if (!known || known.exchanges.size > 0) return
    signal.removeEventListener('abort', known.onAbort)
    this.#underWay.delete(signal)
  }
}

/** What a proxy answers to the wish for a tunnel comes as an error: its 503 is as passing as a server's. */
function connectionError(error: Error): Error {
  const passes = /^Proxy response \((408|429|5\d\d)\)/.test(error.message)
  return passes ? new TransientError(error.message, { cause: error }) : error
}

function firstOf(value: string | string[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? ''
}

function toError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
