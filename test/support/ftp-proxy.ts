// An FTP server behind a proxy that can do to its data connections what tcp-proxy.ts can: the server names a port for each of them, and the proxy names one
// of its own instead.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { startTcpProxy, type TcpProxy, type TcpProxyOptions } from './tcp-proxy.ts'

export interface FtpProxy extends AsyncDisposable {
  readonly port: number
  /** Data connections so far. */
  readonly transfers: number
}

/** Only for a server that answers EPSV, without TLS: with it nobody between could read the port. */
export async function startFtpProxy({ host, port, ...data }: TcpProxyOptions): Promise<FtpProxy> {
  const sockets = new Set<Socket>()
  const proxies: TcpProxy[] = []
  const keep = (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
  }
  const server = createServer(client => {
    const upstream = connect(port, host)
    keep(client)
    keep(upstream)
    client.pipe(upstream)
    upstream.on('close', () => client.destroy())
    client.on('close', () => upstream.destroy())
    void relay(upstream, client)
  })
  /** Line by line, for the order of the answers is their meaning. */
  async function relay(upstream: Socket, client: Socket): Promise<void> {
    for await (const line of createInterface({ input: upstream })) {
      const named = /^229 .*\|(\d+)\|/.exec(line)?.[1]
      client.write(`${named === undefined ? line : await open(line, Number(named))}\r\n`)
    }
  }
  async function open(line: string, named: number): Promise<string> {
    const proxy = await startTcpProxy({ host, port: named, ...data })
    proxies.push(proxy)
    return line.replace(`|${named}|`, `|${proxy.port}|`)
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert(address !== null && typeof address === 'object')
  return {
    port: address.port,
    get transfers() {
      return proxies.length
    },
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
      for (const proxy of proxies) await proxy[Symbol.asyncDispose]()
    },
  }
}
