// A real HTTP proxy in front of a server, which a test tells what to spoil: delay, cut, drop the answer, answer itself.
//
// `await using proxy = await startChaosProxy(server.apiUrl)`, then give `proxy.apiUrl` to whoever is to suffer, and
// `proxy.spoil({ route: 'POST /flow_runs/{id}/set_state', nth: 1 }, { kind: 'drop-answer' })`. It counts all requests.

import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * delay        waits, then goes on as usual
 * hold         waits for a promise, then goes on as usual
 * cut          closes the connection without asking the server
 * drop-answer  lets the server do it, then closes the connection without a word
 * half-answer  lets the server do it, and closes in the middle of its answer
 * hang         asks nobody and never answers
 * answer       answers itself, without asking the server
 * replace      lets the server do it, then gives this answer instead
 * raw          sends these bytes instead of an HTTP answer, and closes
 */
export type Fault =
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'hold'; readonly until: Promise<unknown> }
  | { readonly kind: 'cut' | 'drop-answer' | 'half-answer' | 'hang' }
  | ({ readonly kind: 'answer' | 'replace' } & Answer)
  | { readonly kind: 'raw'; readonly bytes: string }

export interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON, unless it is a text. */
  readonly body?: unknown
}

export interface Match {
  /** Method and route below the API's base, ids as `{id}`: `POST /flow_runs/{id}/set_state`. Default: all. */
  readonly route?: string
  /** Only the n-th request that matches from now on, beginning with 1. Default: each. */
  readonly nth?: number
  /** At most so many. */
  readonly times?: number
  /** Looks into the request. */
  readonly if?: (request: SeenRequest) => boolean
}

export interface SeenRequest {
  readonly route: string
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** The same for all requests of one connection. */
  readonly connection: string
  /** When it had arrived, on the clock of `performance.now()`. */
  readonly at: number
}

export interface ChaosProxy extends AsyncDisposable {
  /** The server's API URL with the proxy's port. */
  readonly apiUrl: string
  readonly port: number
  /** All requests that arrived, in order. */
  readonly requests: readonly SeenRequest[]
  count(route: string): number
  /** The first rule that matches is taken. Returns a function that takes the rule back. */
  spoil(match: Match, fault: Fault): () => void
  /** Behaves from now on. */
  heal(): void
}

interface Rule extends Match {
  readonly fault: Fault
  seen: number
  used: number
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi

export async function startChaosProxy(apiUrl: string, options: { readonly port?: number } = {}): Promise<ChaosProxy> {
  const target = new URL(apiUrl)
  const base = target.pathname.replace(/\/$/, '')
  const agent = new Agent({ keepAlive: false })
  const requests: SeenRequest[] = []
  const sockets = new Set<Duplex>()
  let rules: Rule[] = []

  const choose = (seen: SeenRequest): Fault | undefined => {
    for (const rule of rules) {
      if (rule.route !== undefined && rule.route !== seen.route) continue
      if (rule.if && !rule.if(seen)) continue
      rule.seen++
      if (rule.nth !== undefined && rule.nth !== rule.seen) continue
      if (rule.times !== undefined && rule.used >= rule.times) continue
      rule.used++
      return rule.fault
    }
    return undefined
  }

  const server = createServer((incoming, outgoing) => {
    void (async () => {
      const seen = await readRequest(incoming, base)
      requests.push(seen)
      await serve(seen, choose(seen), outgoing, forwarded => forward(target, agent, forwarded))
    })().catch(() => outgoing.destroy()) // The server behind is gone: its client sees a cut connection, as without a proxy.
  })
  // uvicorn's: a proxy that kept connections longer would hide what happens when the server closes them.
  server.keepAliveTimeout = 5000
  server.on('connection', (socket: Socket) => track(sockets, socket))
  server.on('upgrade', (incoming, socket: Duplex, head) => tunnel(target, incoming, socket, head, sockets))
  await new Promise<void>(resolve => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port was given')

  return {
    apiUrl: `http://127.0.0.1:${address.port}${target.pathname}`,
    port: address.port,
    requests,
    count: route => requests.filter(seen => seen.route === route).length,
    spoil(match, fault) {
      const rule: Rule = { ...match, fault, seen: 0, used: 0 }
      rules.push(rule)
      return () => {
        rules = rules.filter(other => other !== rule)
      }
    },
    heal() {
      rules = []
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      agent.destroy()
      await closed
    },
  }
}

async function serve(
  seen: SeenRequest,
  fault: Fault | undefined,
  outgoing: ServerResponse,
  forward: (seen: SeenRequest) => Promise<Required<Answer>>,
): Promise<void> {
  switch (fault?.kind) {
    case undefined:
      return send(outgoing, await forward(seen))
    case 'delay':
      await delay(fault.ms, undefined, { ref: false })
      return send(outgoing, await forward(seen))
    case 'hold':
      await fault.until
      return send(outgoing, await forward(seen))
    case 'cut':
      outgoing.destroy()
      return
    case 'drop-answer':
      await forward(seen)
      outgoing.destroy()
      return
    case 'half-answer': {
      const answer = await forward(seen)
      const body = toText(answer.body)
      outgoing.writeHead(answer.status, { ...answer.headers, 'content-length': Buffer.byteLength(body) })
      outgoing.write(body.slice(0, body.length / 2), () => outgoing.destroy())
      return
    }
    case 'hang':
      return
    case 'answer':
      return send(outgoing, fault)
    case 'replace':
      await forward(seen)
      return send(outgoing, fault)
    case 'raw':
      outgoing.socket?.end(fault.bytes)
      return
  }
}

function send(outgoing: ServerResponse, { status, headers = {}, body = null }: Answer): void {
  outgoing.writeHead(status, { 'content-type': 'application/json', ...headers })
  outgoing.end(status === 204 || status === 304 ? undefined : toText(body))
}

function toText(body: unknown): string {
  return typeof body === 'string' ? body : JSON.stringify(body)
}

async function readRequest(incoming: IncomingMessage, base: string): Promise<SeenRequest> {
  const { method = 'GET', url: path = '/', headers } = incoming
  const connection = String(incoming.socket.remotePort)
  const [pathname = ''] = path.split('?')
  const below = pathname.startsWith(`${base}/`) ? pathname.slice(base.length) : pathname
  return {
    route: `${method} ${below.replace(UUID, '{id}')}`,
    method,
    path,
    headers,
    body: await text(incoming),
    connection,
    at: performance.now(),
  }
}

function forward(target: URL, agent: Agent, { method, path, headers, body }: SeenRequest): Promise<Required<Answer>> {
  const { promise, resolve, reject } = Promise.withResolvers<Required<Answer>>()
  const options = {
    host: target.hostname,
    port: target.port,
    method,
    path,
    agent,
    headers: { ...headers, connection: 'close' },
  }
  const outgoing = request(options, answer => {
    const passed = Object.entries(answer.headers).filter(([name]) => !HOP_BY_HOP.has(name))
    const answerHeaders = Object.fromEntries(passed.map(([name, value]) => [name, String(value)]))
    text(answer).then(text => resolve({ status: answer.statusCode ?? 502, headers: answerHeaders, body: text }), reject)
  })
  outgoing.on('error', reject).end(body)
  return promise
}

const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length'])

/** Websockets go through untouched. */
function tunnel(target: URL, incoming: IncomingMessage, socket: Duplex, head: Buffer, sockets: Set<Duplex>): void {
  const upstream = connect(Number(target.port), target.hostname, () => {
    const lines = [`${incoming.method} ${incoming.url} HTTP/1.1`]
    for (let at = 0; at < incoming.rawHeaders.length; at += 2)
      lines.push(`${incoming.rawHeaders[at]}: ${incoming.rawHeaders[at + 1]}`)
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`)
    upstream.write(head)
    upstream.pipe(socket).pipe(upstream)
  })
  track(sockets, upstream)
  upstream.on('error', () => socket.destroy())
  socket.on('error', () => upstream.destroy())
}

function track(sockets: Set<Duplex>, socket: Duplex): void {
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
}
