// A real forward proxy (CONNECT tunnels and absolute-form requests), which notes what went through it.

import { createServer, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'

export interface ForwardProxy extends AsyncDisposable {
  readonly url: string
  /** `CONNECT host:port` and `GET http://host:port/path`, in order; refused ones too. */
  readonly requests: readonly string[]
}

interface Address {
  readonly host: string
  readonly port: number
}

export interface ForwardProxyOptions {
  /** `user:password`: those who do not show them are refused. */
  readonly credentials?: string
  /** Where a host is reached, for names that no name service knows. */
  readonly route?: (asked: Address) => Address
  /** So many tunnels are refused first, as by a proxy that is overloaded or whose own way is down. */
  readonly busyTunnels?: number
}

export async function startForwardProxy({
  credentials,
  route = asked => asked,
  busyTunnels = 0,
}: ForwardProxyOptions = {}): Promise<ForwardProxy> {
  const requests: string[] = []
  const sockets = new Set<Duplex>()
  let busy = busyTunnels
  const wanted = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`
  const isRefused = ({ headers }: IncomingMessage): boolean =>
    wanted !== undefined && headers['proxy-authorization'] !== wanted

  const server = createServer((incoming, outgoing) => {
    requests.push(`${incoming.method} ${incoming.url}`)
    if (isRefused(incoming)) return outgoing.writeHead(407).end()
    const { method, headers } = incoming
    const url = incoming.url ?? ''
    // As it was sent: the parsed URL may have another one.
    const path = url.replace(/^http:\/\/[^/]*/, '')
    const to = route(addressOf(new URL(url)))
    const forwarded = request({ ...to, path, method, headers, agent: false }, answer => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    forwarded.on('error', () => outgoing.destroy())
    return incoming.pipe(forwarded)
  })
  server.on('connect', (incoming, socket: Duplex, head) => {
    requests.push(`CONNECT ${incoming.url}`)
    if (isRefused(incoming))
      return socket.end('HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n')
    if (busy-- > 0) return socket.end('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n')
    const upstream = connect(route(addressOf(new URL(`http://${incoming.url}`))), () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      upstream.write(head)
      upstream.pipe(socket).pipe(upstream)
    })
    sockets.add(upstream)
    upstream.on('error', () => socket.destroy())
    socket.on('error', () => upstream.destroy())
    return socket
  })
  server.on('connection', (socket: Socket) => sockets.add(socket))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port was given')
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    async [Symbol.asyncDispose]() {
      const closed = new Promise(resolve => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

function addressOf({ hostname, port }: URL): Address {
  return { host: hostname, port: port === '' ? 80 : Number(port) }
}
