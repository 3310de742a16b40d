// A TCP proxy in front of a real server: delays what the server says, says something else, or cuts connections in the middle of it.

import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { listen } from './listen.ts'

export interface TcpProxyOptions {
  readonly host: string
  readonly port: number
  /** Where to listen itself; default a free port of 127.0.0.1. */
  readonly at?: { readonly host: string; readonly port: number }
  /** Milliseconds that each piece of an answer waits: a longer way to the server. */
  readonly delayMs?: number
  /** Makes of each piece of an answer what the client gets. */
  readonly change?: (piece: Buffer) => Buffer
  /** Called for each piece of an answer: how many bytes of it to let through before the connection is cut, or undefined. */
  readonly cut?: (piece: {
    readonly connection: number
    readonly bytesBefore: number
    readonly length: number
  }) => number | undefined
  /** Called for each piece that a client sends: true cuts the connection instead of passing it on. */
  readonly cutRequest?: (piece: { readonly bytesBefore: number; readonly length: number }) => boolean
  /** For what each piece that a client sends waits on its way, if anything. */
  readonly holdRequest?: () => Promise<unknown> | undefined
}

export interface TcpProxy extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** Connections made so far. */
  readonly connections: number
  /** Bytes of answers let through so far. */
  readonly bytes: number
}

export async function startTcpProxy(options: TcpProxyOptions): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  const seen = { connections: 0, bytes: 0 }
  const keep = (socket: Socket) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('close', () => sockets.delete(socket))
    // A cut connection ends in an error on one side; that is what is wanted.
    socket.on('error', () => socket.destroy())
  }
  const server = createServer(client => {
    const connection = seen.connections++
    const upstream = connect(options.port, options.host)
    let bytesBefore = 0
    keep(client)
    keep(upstream)
    let sent = 0
    const forward = (piece: Buffer) => {
      if (upstream.write(piece)) client.resume()
      else client.pause()
    }
    client.on('data', piece => {
      if (options.cutRequest?.({ bytesBefore: sent, length: piece.length })) client.resetAndDestroy()
      else {
        const held = options.holdRequest?.()
        if (held) {
          client.pause()
          void held.then(() => forward(piece))
        } else forward(piece)
      }
      sent += piece.length
    })
    upstream.on('drain', () => client.resume())
    client.on('end', () => upstream.end())
    upstream.on('data', said => {
      const piece = options.change?.(said) ?? said
      const allowed = options.cut?.({ connection, bytesBefore, length: piece.length })
      bytesBefore += piece.length
      seen.bytes += allowed ?? piece.length
      const pass = () => {
        if (client.destroyed) return
        if (allowed === undefined) client.write(piece)
        else client.write(piece.subarray(0, allowed), () => client.resetAndDestroy())
      }
      if (options.delayMs) setTimeout(pass, options.delayMs)
      else pass()
    })
    upstream.on('close', () => setTimeout(() => client.destroy(), options.delayMs ?? 0))
    client.on('close', () => upstream.destroy())
  })
  const { address, port } = await listen(server, options.at)
  return {
    host: address,
    port,
    get connections() {
      return seen.connections
    },
    get bytes() {
      return seen.bytes
    },
    async [Symbol.asyncDispose]() {
      server.close()
      for (const socket of sockets) socket.destroy()
      await once(server, 'close')
    },
  }
}
