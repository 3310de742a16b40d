// Carries the calls that dockerode composes to one engine: kept-alive connections, a deadline for each call.
//
// dockerode's own modem reads the process' environment, opens a connection for each call, prints each call's options
// into a string that is then thrown away (0.5 ms of processor time), and writes the create body, secrets included,
// into the URL. Out: answers, or an EngineError that says whether the engine may have done what was asked.

import { Agent, type ClientRequest, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps, Agent as TlsAgent } from 'node:https'
import { Readable } from 'node:stream'
import type { DialOptions, Modem } from 'dockerode'
import { errorCode } from '../errors.ts'
import type { Endpoint } from './docker-endpoint.ts'

/**
 * `refused`: the engine answered, with a status that is no success. `unreachable`: it was not asked, for no connection
 * came about. `lost`: it was asked, and whether it did it is not known.
 */
export class EngineError extends Error {
  readonly kind: 'refused' | 'unreachable' | 'lost'
  /** HTTP status, for `refused` only. */
  readonly status: number | undefined

  constructor(
    kind: 'refused' | 'unreachable' | 'lost',
    message: string,
    options: { status?: number; cause?: unknown },
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'EngineError'
    this.kind = kind
    this.status = options.status
  }
}

/** True for an answer with one of these HTTP statuses. */
export function isRefusal(error: unknown, ...statuses: readonly number[]): boolean {
  return error instanceof EngineError && error.status !== undefined && statuses.includes(error.status)
}

/** True when no answer came: the call may be repeated, by those who know what a repetition does. */
export function isSilence(error: unknown): boolean {
  return error instanceof EngineError && error.kind !== 'refused'
}

export interface CallLimits {
  /** Until the whole answer is there; for streams, until they begin. */
  readonly deadlineMs: number
  readonly signal: AbortSignal
  /** For the message of an error: `create container "x"`. */
  readonly what: string
}

/** Connections to one engine. `local` says where the socket is by now, for an engine that is reached through a tunnel. */
export class Transport {
  readonly #endpoint: Endpoint
  readonly #local: (signal: AbortSignal) => Promise<string>
  readonly #agent: Agent
  /** Set once the version is agreed on, `/v1.41`. */
  pathPrefix = ''

  constructor(endpoint: Endpoint, local: (signal: AbortSignal) => Promise<string>) {
    this.#endpoint = endpoint
    this.#local = local
    // Idle connections end after 5 s, so that none keeps an idle agent or its memory busy.
    const options = { keepAlive: true, maxFreeSockets: 32, timeout: 5_000 }
    this.#agent = endpoint.kind === 'tcp' && endpoint.tls ? new TlsAgent(options) : new Agent(options)
  }

  /** The modem for one call (or a few) of dockerode. */
  modem(limits: CallLimits): Modem {
    return {
      dial: (options, callback) => {
        void this.#answer(options, limits, callback)
      },
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  async #answer(options: DialOptions, limits: CallLimits, callback: Parameters<Modem['dial']>[1]): Promise<void> {
    let answer: unknown
    try {
      answer = await this.#send(options, limits)
    } catch (error) {
      return callback(error instanceof Error ? error : new Error(String(error)))
    }
    callback(null, answer)
  }

  async #send(dial: DialOptions, limits: CallLimits): Promise<unknown> {
    limits.signal.throwIfAborted()
    const call = readDial(dial)
    const path = this.pathPrefix + call.path
    const where = await this.#where(limits)
    const options = { ...where, path, method: dial.method, headers: call.headers, agent: this.#agent }
    const request = 'tls' in where ? requestHttps({ ...options, ...where.tls }) : requestHttp(options)
    return await exchange(request, { body: call.body, isStream: dial.isStream === true, limits })
  }

  async #where(limits: CallLimits) {
    const endpoint = this.#endpoint
    if (endpoint.kind !== 'tcp') return { socketPath: await this.#local(limits.signal) }
    const { host, port, tls } = endpoint
    if (!tls) return { host, port }
    return { host, port, tls: { ca: tls.ca, cert: tls.cert, key: tls.key, rejectUnauthorized: tls.verify } }
  }
}

interface WireCall {
  readonly path: string
  readonly headers: Record<string, string | number>
  readonly body: string | Readable | undefined
}

/** dockerode ends a path with "?" when its options are a query; ours are given apart as `_query` and `_body`. */
function readDial(dial: DialOptions): WireCall {
  const headers: Record<string, string | number> = {}
  const { _query, _body, ...rest } = dial.options ?? {}
  const isQuery = dial.path.endsWith('?')
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(_query ?? (isQuery ? rest : {}))) {
    if (value === undefined) continue
    query.append(name, typeof value === 'object' ? JSON.stringify(value) : String(value))
  }
  const path = isQuery ? `${dial.path.slice(0, -1)}${query.size > 0 ? `?${query.toString()}` : ''}` : dial.path
  if (dial.authconfig) {
    // The engine wants the padding that "base64url" leaves out, and takes a login without it for none.
    const base64 = Buffer.from(JSON.stringify(dial.authconfig)).toString('base64')
    headers['X-Registry-Auth'] = base64.replaceAll('+', '-').replaceAll('/', '_')
  }
  if (dial.file instanceof Readable) {
    headers['Content-Type'] = 'application/x-tar'
    return { path, headers, body: dial.file }
  }
  if (dial.method !== 'POST' || (isQuery && _body === undefined)) return { path, headers, body: undefined }
  const body = JSON.stringify(_body ?? rest)
  headers['Content-Type'] = 'application/json'
  headers['Content-Length'] = Buffer.byteLength(body)
  return { path, headers, body }
}

interface Exchange {
  readonly body: string | Readable | undefined
  readonly isStream: boolean
  readonly limits: CallLimits
}

/** One request and its answer. Rejects with an EngineError, the signal's reason, or the failure of the body's source. */
function exchange(request: ClientRequest, { body, isStream, limits }: Exchange): Promise<unknown> {
  const { signal, what, deadlineMs } = limits
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  let isConnected = request.reusedSocket
  let response: IncomingMessage | undefined
  let bodyFailure: Error | undefined
  const fail = (error: unknown) => {
    if (signal.aborted) return reject(signal.reason)
    if (bodyFailure !== undefined) return reject(bodyFailure)
    if (error instanceof EngineError) return reject(error)
    reject(
      new EngineError(isConnected ? 'lost' : 'unreachable', `Could not ${what}: ${explainConnection(error)}`, {
        cause: error,
      }),
    )
  }
  const end = (error: Error) => {
    response?.destroy(error)
    request.destroy(error)
  }
  const deadline = setTimeout(() => end(new Error(`no answer within ${deadlineMs} ms`)), deadlineMs)
  const onAbort = () => end(signal.reason instanceof Error ? signal.reason : new Error('aborted'))
  signal.addEventListener('abort', onAbort, { once: true })
  const settle = () => {
    clearTimeout(deadline)
    signal.removeEventListener('abort', onAbort)
  }
  request.on('socket', socket => {
    if (socket.connecting) socket.once('connect', () => (isConnected = true))
    else isConnected = true
  })
  request.on('error', error => {
    // Once the answer flows, its own stream reports the error.
    if (response === undefined) settle()
    fail(error)
  })
  request.on('response', message => {
    response = message
    if (isStream && isSuccess(message)) {
      clearTimeout(deadline)
      message.once('close', settle)
      resolve(message)
      return
    }
    void answerWhole(message).catch(fail).finally(settle)
  })
  const answerWhole = async (message: IncomingMessage) => {
    const buffer = await readWhole(message)
    if (isSuccess(message)) return resolve(readBody(message, buffer))
    const words = `Could not ${what}: ${readRefusal(message, buffer)}`
    reject(new EngineError('refused', words, { status: message.statusCode ?? 0 }))
  }
  if (body instanceof Readable) {
    // A body that fails must not look like one that is complete.
    body.once('error', error => {
      bodyFailure = error
      end(error)
    })
    body.pipe(request)
  } else request.end(body)
  return promise
}

/** 304 is Docker's "is so already" of start and stop. */
function isSuccess(message: IncomingMessage): boolean {
  const status = message.statusCode ?? 0
  return (status >= 200 && status < 300) || status === 304
}

async function readWhole(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function readBody(message: IncomingMessage, buffer: Buffer): unknown {
  const isJson = message.headers['content-type']?.startsWith('application/json')
  return isJson && buffer.length > 0 ? JSON.parse(buffer.toString('utf8')) : buffer
}

function readRefusal(message: IncomingMessage, buffer: Buffer): string {
  const text = buffer.toString('utf8', 0, 4_096).trim()
  try {
    const json: unknown = JSON.parse(text)
    if (typeof json === 'object' && json !== null) {
      if ('message' in json && typeof json.message === 'string') return json.message
      if ('cause' in json && typeof json.cause === 'string') return json.cause
    }
  } catch {
    // A proxy answers in its own words, which are then shown as they are.
  }
  return text || `HTTP ${message.statusCode}`
}

function explainConnection(error: unknown): string {
  switch (errorCode(error)) {
    case 'ENOENT':
      return "the engine's socket does not exist; is the engine running?"
    case 'ECONNREFUSED':
      return 'the engine does not answer (connection refused)'
    case 'EACCES':
      return "this user may not use the engine's socket; is it in the group that owns it?"
    default:
      return error instanceof Error ? error.message : String(error)
  }
}
