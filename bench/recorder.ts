// A proxy between one agent and the server that notes each call: which, when it arrived, when its answer had left.
// What the agent's runs say to the server does not go through it: their block names the server itself.

import { Agent, createServer, type IncomingMessage, type RequestOptions, request, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { buffer, text } from 'node:stream/consumers'

export interface SeenCall {
  /** Method and path below the API's base, ids as `{id}`. */
  readonly route: string
  /** The id in the path, if there is one. */
  readonly id: string | undefined
  readonly body: string
  readonly status: number
  /** `performance.now()` here: when the request was there, and when the last byte of the answer was given away. */
  readonly arrivedAt: number
  readonly answeredAt: number
}

export interface Recorder extends AsyncDisposable {
  readonly apiUrl: string
  /** Calls that have been answered, in the order of their answers. */
  readonly calls: readonly SeenCall[]
  /** When the first call of this route arrived, answered or not. */
  firstArrival(route: string): number | undefined
  forget(): void
}

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/i
/** Milliseconds; uvicorn closes idle connections after 5 s. */
const UPSTREAM_IDLE_MS = 3000

export async function startRecorder(apiUrl: string): Promise<Recorder> {
  const target = new URL(apiUrl)
  const agent = new Agent({ keepAlive: true, timeout: UPSTREAM_IDLE_MS })
  const sockets = new Set<Socket>()
  const arrivals = new Map<string, number>()
  let calls: SeenCall[] = []

  const server = createServer((incoming, outgoing) => {
    const arrivedAt = performance.now()
    const { method = 'GET', url: path = '/' } = incoming
    const [pathname = ''] = path.slice(target.pathname.length).split('?')
    const route = `${method} ${pathname.replace(UUID, '{id}')}`
    if (!arrivals.has(route)) arrivals.set(route, arrivedAt)
    const note = (body: string, status: number): void => {
      const id = UUID.exec(pathname)?.[0]
      calls.push({ route, id, body, status, arrivedAt, answeredAt: performance.now() })
    }
    // The server behind is gone: its client sees a cut connection, as without a proxy.
    passOn({ target, agent, incoming, outgoing, note }).catch(() => outgoing.destroy())
  })
  server.keepAliveTimeout = 5000 // uvicorn's
  server.on('connection', (socket: Socket) => {
    socket.setNoDelay(true)
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port was given')

  return {
    apiUrl: `http://127.0.0.1:${address.port}${target.pathname}`,
    get calls() {
      return calls
    },
    firstArrival: route => arrivals.get(route),
    forget() {
      calls = []
      arrivals.clear()
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      agent.destroy()
      await closed
    },
  }
}

interface Passing {
  readonly target: URL
  readonly agent: Agent
  readonly incoming: IncomingMessage
  readonly outgoing: ServerResponse
  readonly note: (body: string, status: number) => void
}

async function passOn({ target, agent, incoming, outgoing, note }: Passing): Promise<void> {
  const { method = 'GET', url: path = '/', headers } = incoming
  const body = await text(incoming)
  const answer = await ask({ host: target.hostname, port: target.port, method, path, headers, agent }, body)
  // As it is, for it may be compressed.
  const answerBody = await buffer(answer)
  const answerHeaders = { ...answer.headers }
  for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'content-length']) delete answerHeaders[name]
  const { statusCode = 502 } = answer
  outgoing.writeHead(statusCode, { ...answerHeaders, 'content-length': answerBody.length })
  note(body, statusCode)
  outgoing.end(answerBody)
}

function ask(options: RequestOptions, body: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request(options, resolve).on('error', reject).end(body)
  })
}

export function isClaim(call: SeenCall): boolean {
  return call.route === 'POST /flow_runs/{id}/set_state' && /"type":\s*"PENDING"/.test(call.body)
}

/**
 * Asks what is due, which queues there are, what is to be cancelled, or which claims no journal remembers: made at
 * intervals, whether there are runs or not.
 */
export function isPoll(call: SeenCall): boolean {
  if (call.route.includes(' /work_queues') || call.route.includes('/get_scheduled_flow_runs')) return true
  if (call.route.startsWith('GET /admin/') || call.route.startsWith('GET /csrf-token')) return true
  return call.route === 'POST /flow_runs/filter' && /CANCELLING|"Cancelling"|"PENDING"/i.test(call.body)
}
