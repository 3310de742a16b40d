// A small HTTP door for those who watch the agent: `/live` says that it runs, `/ready` that it can do its work, and if
// not, which part is sick. No secret and no run is shown here, so it needs no key; it belongs on loopback.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

import { errorCode, UserError } from '../errors.ts'

/** How one part of the agent is. `detail` is for people, and must hold no secret. */
export interface Part {
  readonly status: 'ok' | 'sick'
  readonly detail?: string
}

export interface StatusOptions {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** Looks at the parts by name, such as `api`, `journal`, `infrastructure`; called at each question, so cheap. */
  readonly parts: () => Readonly<Record<string, Part>>
}

export interface StatusServer extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  readonly port: number
}

interface Answer {
  readonly code: number
  readonly body: Readonly<Record<string, unknown>>
}

/** Listens until the signal is aborted or it is disposed of. Rejects with a UserError when the port cannot be had. */
export async function startStatusServer(options: StatusOptions, signal: AbortSignal): Promise<StatusServer> {
  signal.throwIfAborted()
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000 }, (request, response) =>
    send(request, response, answer(request, options.parts)),
  )
  const { promise: listening, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject).listen(options.port, options.host, resolve)
  await listening.catch(error => {
    throw new UserError(`Could not serve the status page on ${options.host} port ${options.port}.`, {
      ...(errorCode(error) === 'EADDRINUSE' ? { hint: 'Another program has that port; choose another one.' } : {}),
      cause: error,
    })
  })
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : options.port
  const closed = new Promise<void>(done => server.once('close', done))
  const close = async (): Promise<void> => {
    server.close()
    server.closeAllConnections()
    await closed
  }
  signal.addEventListener('abort', () => void close(), { once: true })
  const host = options.host.includes(':') ? `[${options.host}]` : options.host
  return { url: `http://${host}:${port}`, port, [Symbol.asyncDispose]: close }
}

function answer(request: IncomingMessage, parts: StatusOptions['parts']): Answer {
  if (request.method !== 'GET' && request.method !== 'HEAD') return { code: 405, body: { error: 'only GET and HEAD' } }
  const path = (request.url ?? '').split('?')[0]
  if (path === '/live') return { code: 200, body: { status: 'alive' } }
  if (path !== '/ready') return { code: 404, body: { error: 'ask for /live or /ready' } }
  const known = parts()
  const isReady = Object.values(known).every(part => part.status === 'ok')
  return { code: isReady ? 200 : 503, body: { status: isReady ? 'ready' : 'not ready', parts: known } }
}

function send(request: IncomingMessage, response: ServerResponse, { code, body }: Answer): void {
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(code, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    ...(code === 405 ? { allow: 'GET, HEAD' } : {}),
  })
  response.end(request.method === 'HEAD' ? undefined : text)
}
