// One call of the API, with everything that is the same for all calls: headers, CSRF, redirects, and THE ONLY RETRY in the
// program. In: a route and how it may be repeated. Out: the value by its schema, or an ApiError.
//
// What may be repeated when: see `Retry`. Delays grow from 0.4 s, doubled and jittered, or are the server's Retry-After.

import type * as v from 'valibot'
import { sleep } from '../async/sleep.ts'
import { describeError } from '../errors.ts'
import { type Asked, buildStatusError, readBody, readList } from './answer.ts'
import { ServerClock } from './clock.ts'
import { CsrfToken, CsrfTokens } from './csrf.ts'
import { ApiError } from './errors.ts'
import { buildHeaders } from './headers.ts'
import { type HttpAnswer, HttpConnections, type HttpRequest, TransportError } from './http.ts'
import { type ClientOptions, isCloud, readBaseUrl } from './options.ts'

/**
 * safe    may be repeated after any passing trouble: reads, and writes that give the same result twice
 * never   is sent once; the caller decides (a claim)
 * lookup  before a repeat of what may have happened, asks whether it has; an answer there is the call's answer
 */
export type Retry<T> = 'safe' | 'never' | { readonly lookup: (signal: AbortSignal) => Promise<T | undefined> }

export interface Call<T> {
  /** Method and route template: `GET /flow_runs/{id}`. */
  readonly route: `${'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'} /${string}`
  readonly params?: Readonly<Record<string, string>>
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
  readonly schema: v.GenericSchema<unknown, T>
  readonly retry: Retry<T>
}

export interface Health {
  /** Local clock, milliseconds; undefined before the first success. */
  readonly lastSuccessAt: number | undefined
  /** Requests in a row that failed: no answer, 401, 403, 408, 429, 5xx, or not Prefect's. */
  readonly consecutiveFailures: number
  /** The sentence of the last failure, while there is one. */
  readonly lastError: string | undefined
}

const FIRST_DELAY_MS = 400
const MAX_DELAY_MS = 30_000
const MAX_REDIRECTS = 5
const CLOCK_WARNING_MS = 2000
const PASSING_STATUSES = [408, 429, 502, 503]

export class Api implements AsyncDisposable {
  readonly #options: ClientOptions
  readonly #base: URL
  readonly #headers: Readonly<Record<string, string>>
  readonly #http: HttpConnections
  readonly #csrf: CsrfTokens | undefined
  readonly #passing: ReadonlySet<number>
  readonly #calls = new Map<string, number>()
  readonly #clock = new ServerClock()
  #health: Health = { lastSuccessAt: undefined, consecutiveFailures: 0, lastError: undefined }
  #hasWarnedOfClock = false

  constructor(options: ClientOptions) {
    this.#options = options
    this.#base = readBaseUrl(options.url)
    this.#headers = buildHeaders(options)
    this.#http = new HttpConnections({ origin: this.#base, tls: options.tls ?? {}, proxies: options.proxies ?? {} })
    this.#passing = new Set([...PASSING_STATUSES, ...(options.extraCodes ?? [])])
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
    return await this.#repeat(call, answer => readBody(answer, call.schema, askedOf(call)), signal)
  }

  /** A list by the schema of its entries; `received` counts those too that did not fit and were left out with a warning. */
  async list<T>(call: Omit<Call<T>, 'retry'>, signal: AbortSignal): Promise<{ items: T[]; received: number }> {
    const read = (answer: HttpAnswer) =>
      readList(answer, call.schema, askedOf(call), (id, reason) =>
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
        this.#health = { lastSuccessAt: Date.now(), consecutiveFailures: 0, lastError: undefined }
        return value
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        this.#noteError(error)
        if (call.retry === 'never' || attempt >= attempts || !this.#isPassing(error)) throw error
        const waitMs = this.#chooseDelay(attempt, error.retryAfterMs)
        const fields = { call: call.route, attempt, wait_s: Math.round(waitMs) / 1000, reason: error.message }
        this.#options.logger[attempt < 3 ? 'debug' : 'warn'](fields, 'api call failed, will try again')
        await pause(waitMs, signal)
        if (call.retry !== 'safe' && error.mayHaveHappened) {
          const found = await lookUp(call.retry.lookup, error, signal)
          if (found !== undefined) return found
        }
      }
    }
  }

  #isPassing(error: ApiError): boolean {
    if (error.kind === 'unreachable' || error.kind === 'answer-lost') return true
    return error.kind === 'status' && error.status !== undefined && this.#passing.has(error.status)
  }

  /** Milliseconds. Never less than the server asked for. */
  #chooseDelay(attempt: number, retryAfterMs: number | undefined): number {
    const factor = this.#options.jitterFactor ?? 0.2
    if (retryAfterMs !== undefined) return retryAfterMs * (1 + factor * Math.random())
    const ms = Math.min(FIRST_DELAY_MS * 2 ** (attempt - 1), MAX_DELAY_MS)
    return ms * (1 + factor * (2 * Math.random() - 1))
  }

  async #attempt(
    call: Pick<Call<unknown>, 'route' | 'params' | 'query' | 'body'>,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const asked = askedOf(call)
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
    const asked = askedOf(call)
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
      throw buildTransportError(error, asked, this.#base)
    }
  }

  #noteAnswer(answer: HttpAnswer): void {
    this.#clock.observe(answer.headers.get('date'), answer.sentAt, answer.receivedAt)
    const offset = this.#clock.offsetMs
    if (Math.abs(offset) > CLOCK_WARNING_MS && !this.#hasWarnedOfClock) {
      this.#hasWarnedOfClock = true
      this.#options.logger.warn(
        { server_ahead_s: Math.round(offset / 1000) },
        'the clock of the server differs from ours',
      )
    }
  }

  /** A refusal in Prefect's own words (not found, exists already, not accepted) shows that the server is well. */
  #noteError(error: ApiError): void {
    const { lastSuccessAt, consecutiveFailures } = this.#health
    this.#health = error.isFinal
      ? { lastSuccessAt: Date.now(), consecutiveFailures: 0, lastError: undefined }
      : { lastSuccessAt, consecutiveFailures: consecutiveFailures + 1, lastError: error.message }
  }

  async #askForToken(clientId: string, signal: AbortSignal): Promise<CsrfToken | undefined> {
    try {
      return await this.call(
        { route: 'GET /csrf-token', query: { client: clientId }, schema: CsrfToken, retry: 'safe' },
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

/** Fills the route's template; names may hold anything, so each is quoted. */
function askedOf({ route, params = {} }: Pick<Call<unknown>, 'route' | 'params'>): Asked {
  const [method = '', template = ''] = route.split(' ')
  return { method, path: template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? '')) }
}

/** Path and query of a redirect that may be followed: same origin, and the method is kept. */
function readRedirect({ status, headers }: HttpAnswer, method: string, from: URL): string | undefined {
  const isFollowed = status === 307 || status === 308 || (method === 'GET' && [301, 302, 303].includes(status))
  const to = isFollowed ? URL.parse(headers.get('location') ?? '', from.href) : null
  return to && headers.has('location') && to.origin === from.origin ? to.pathname + to.search : undefined
}

function buildTransportError(error: TransportError, asked: Asked, base: URL): ApiError {
  const { method } = asked
  const call = `${method} ${asked.path}`
  const reason = describeError(error)
  const message = error.sent
    ? `No answer from ${base.origin} to ${call}: ${reason}`
    : `Could not reach the Prefect API at ${base.origin} for ${call}: ${reason}`
  return new ApiError(message, {
    kind: error.sent ? 'answer-lost' : 'unreachable',
    ...asked,
    mayHaveHappened: error.sent && method !== 'GET',
    cause: error.cause,
  })
}
