// One call of the API, with everything that is the same for all calls: headers, CSRF, redirects, and THE ONLY RETRY in the
// program. In: a route and how it may be repeated. Out: the value by its schema, or an ApiError.
//
// What may be repeated when, and after how long: retry.ts.

import type * as v from 'valibot'
import { sleep } from '../async/sleep.ts'
import { buildStatusError, readBody, readList } from './answer.ts'
import { ServerClock } from './clock.ts'
import { CsrfToken, CsrfTokens } from './csrf.ts'
import { ApiError, buildTransportError } from './errors.ts'
import { buildHeaders } from './headers.ts'
import { afterError, afterSuccess, beforeFirstCall, type Health } from './health.ts'
import { type HttpAnswer, HttpConnections, type HttpRequest, TransportError } from './http.ts'
import { type ClientOptions, isCloud, readBaseUrl } from './options.ts'
import { OutageNotice } from './outage.ts'
import { chooseDelayMs, isPassing, type Retry } from './retry.ts'
import { type Asked, fillRoute, type Route, readRedirect } from './route.ts'

export interface Call<T> {
  readonly route: Route
  readonly params?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
  readonly schema: v.GenericSchema<unknown, T>
  readonly retry: Retry<T>
}

const MAX_REDIRECTS = 5
const CLOCK_WARNING_MS = 2000

export class Api implements AsyncDisposable {
  readonly #options: ClientOptions
  readonly #base: URL
  readonly #headers: Readonly<Record<string, string>>
  readonly #http: HttpConnections
  readonly #csrf: CsrfTokens | undefined
  readonly #calls = new Map<string, number>()
  readonly #clock = new ServerClock()
  readonly #outage: OutageNotice
  #health: Health = beforeFirstCall
  #hasWarnedOfClock = false
  #isClosed = false

  constructor(options: ClientOptions) {
    this.#options = options
    this.#outage = new OutageNotice(options.logger)
    this.#base = readBaseUrl(options.url)
    this.#headers = buildHeaders(options)
    this.#http = new HttpConnections({ origin: this.#base, tls: options.tls ?? {}, proxies: options.proxies ?? {} })
    const usesCsrf = (options.csrf ?? true) && !isCloud(options)
    this.#csrf = usesCsrf ? new CsrfTokens((clientId, signal) => this.#askForToken(clientId, signal)) : undefined
  }

  get health(): Health {
    return this.#health
  }

  /** Requests sent so far by route template, repeats counted. */
  get calls(): ReadonlyMap<string, number> {
    return this.#calls
  }

  serverNow(): Date {
    return new Date(this.#clock.now())
  }

  /** Throws ApiError, or the signal's reason as soon as it is aborted (what was sent then, was sent). */
  async call<T>(call: Call<T>, signal: AbortSignal): Promise<T> {
    return await this.#repeat(call, answer => readBody(answer, call.schema, fillRoute(call)), signal)
  }

  /** A list by the schema of its entries; `received` counts those too that did not fit and were left out with a warning. */
  async list<T>(call: Omit<Call<T>, 'retry'>, signal: AbortSignal): Promise<{ items: T[]; received: number }> {
    const read = (answer: HttpAnswer) =>
      readList(answer, call.schema, fillRoute(call), (id, reason) =>
        this.#options.logger.warn(
          { call: call.route, id, reason },
          'left out an entry of an answer that cannot be read',
        ),
      )
    return await this.#repeat({ ...call, retry: 'safe' }, read, signal)
  }

  async #repeat<T>(
    call: Omit<Call<unknown>, 'schema' | 'retry'> & { readonly retry: Retry<T> },
    read: (answer: HttpAnswer) => T,
    signal: AbortSignal,
  ): Promise<T> {
    const attempts = (this.#options.maxRetries ?? 5) + 1
    for (let attempt = 1; ; attempt++) {
      try {
        const value = read(await this.#attempt(call, signal))
        this.#health = afterSuccess()
        this.#outage.succeeded()
        return value
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        this.#health = afterError(this.#health, error)
        if (error.isFinal) this.#outage.succeeded()
        else this.#outage.failed(error)
        if (call.retry === 'never' || attempt >= attempts || this.#isClosed) throw error
        if (!isPassing(error, this.#options.extraCodes)) throw error
        const waitMs = chooseDelayMs(attempt, error.retryAfterMs, this.#options.jitterFactor)
        const fields = { call: call.route, attempt, wait_s: Math.round(waitMs) / 1000, reason: error.message }
        this.#options.logger.debug(fields, 'api call failed, will try again')
        await pause(waitMs, signal)
        if (call.retry !== 'safe' && error.mayHaveHappened) {
          const found = await lookUp(call.retry.lookup, error, signal)
          if (found !== undefined) return found
        }
      }
    }
  }

  async #attempt(
    call: Pick<Call<unknown>, 'route' | 'params' | 'query' | 'body'>,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const asked = fillRoute(call)
    const isChange = asked.method !== 'GET'
    for (let refused = false; ; refused = true) {
      const csrf = isChange && this.#csrf ? await this.#csrf.headers(this.#clock.now(), signal) : {}
      const answer = await this.#exchange(call, csrf, signal)
      if (answer.status >= 200 && answer.status < 300) return answer
      const error = buildStatusError(answer, asked, Date.now())
      // The server's doorkeeper refused: nothing has happened, so that even a claim may be sent again, once.
      const lacksToken = this.#csrf && answer.status === 403 && /(Invalid|Missing) CSRF token/.test(error.detail ?? '')
      if (!lacksToken || refused) throw error
      this.#csrf.forget()
    }
  }

  /** Sends one request and follows redirects on the same origin. Prefect answers 307 where a slash is missing. */
  async #exchange(
    call: Pick<Call<unknown>, 'route' | 'params' | 'query' | 'body'>,
    extraHeaders: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const asked = fillRoute(call)
    const query = new URLSearchParams(call.query).toString()
    let path = this.#base.pathname.replace(/\/$/, '') + asked.path + (query === '' ? '' : `?${query}`)
    for (let redirects = 0; ; redirects++) {
      this.#calls.set(call.route, (this.#calls.get(call.route) ?? 0) + 1)
      const answer = await this.#send(
        asked,
        {
          method: asked.method,
          path,
          headers: {
            ...this.#headers,
            ...extraHeaders,
            ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          body: call.body === undefined ? undefined : JSON.stringify(call.body),
          timeoutMs: (this.#options.requestTimeoutSeconds ?? 60) * 1000,
        },
        signal,
      )
      const target = readRedirect(answer, asked.method, new URL(path, this.#base.origin))
      if (target === undefined || redirects >= MAX_REDIRECTS) return answer
      path = target
    }
  }

  async #send(asked: Asked, request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    try {
      const answer = await this.#http.exchange(request, signal)
      this.#noteAnswer(answer)
      return answer
    } catch (error) {
      if (!(error instanceof TransportError)) throw error
      throw buildTransportError(error, asked, this.#base.origin)
    }
  }

  #noteAnswer(answer: HttpAnswer): void {
    this.#clock.observe(answer.headers.get('date'), answer.sentAt, answer.receivedAt)
    const offset = this.#clock.offsetMs
    if (Math.abs(offset) > CLOCK_WARNING_MS && this.#clock.isCertain && !this.#hasWarnedOfClock) {
      this.#hasWarnedOfClock = true
      this.#options.logger.warn(
        { server_ahead_s: Math.round(offset / 1000) },
        'the clock of the server differs from ours',
      )
    }
  }

  /** Not repeated for itself: it is part of a call, which is repeated as a whole, or (a claim) handed back as not made. */
  async #askForToken(clientId: string, signal: AbortSignal): Promise<CsrfToken | undefined> {
    try {
      return await this.call(
        { route: 'GET /csrf-token', query: { client: clientId }, schema: CsrfToken, retry: 'never' },
        signal,
      )
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      // 404: a server older than the protection. Otherwise the server says in words that it is off.
      if (error.status === 404 || /CSRF protection is disabled/.test(error.detail ?? '')) return undefined
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    await this.#http[Symbol.asyncDispose]()
  }
}

/** The lookup's own trouble says nothing of the call: then the call's trouble stands. */
async function lookUp<T>(
  lookup: (signal: AbortSignal) => Promise<T | undefined>,
  trouble: ApiError,
  signal: AbortSignal,
): Promise<T | undefined> {
  try {
    return await lookup(signal)
  } catch (error) {
    throw error instanceof ApiError ? trouble : error
  }
}

/** Waits `ms` milliseconds; throws the signal's reason when it is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, signal)
  signal.throwIfAborted()
}
