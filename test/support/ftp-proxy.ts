// An FTP server behind a proxy that can do to its data connections what tcp-proxy.ts can, also where TLS hides what is said.
//
// The server names a port for each of them, and a client takes that port on the host that it speaks with. The proxy is such a
// host: another address of this machine, with the same ports.

import { randomInt } from 'node:crypto'
import { storageServer } from './storage-servers.ts'
import { startTcpProxy, type TcpProxyOptions } from './tcp-proxy.ts'

export interface FtpProxy extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** Data connections so far. */
  readonly transfers: number
}

export async function startFtpProxy(
  name: 'ftp' | 'ftps',
  data: Omit<TcpProxyOptions, 'host' | 'port' | 'at'>,
): Promise<FtpProxy> {
  const { host = '', port = '', passive_ports: passive = '' } = storageServer(name)
  // Tests in other processes have proxies of their own.
  const own = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`
  const control = await startTcpProxy({ host, port: Number(port), at: { host: own, port: 0 } })
  const transfers = await Promise.all(
    passive
      .split(' ')
      .map(port => startTcpProxy({ ...data, host, port: Number(port), at: { host: own, port: Number(port) } })),
  )
  return {
    host: own,
    port: control.port,
    get transfers() {
      return transfers.reduce((sum, { connections }) => sum + connections, 0)
    },
    async [Symbol.asyncDispose]() {
      for (const proxy of [control, ...transfers]) await proxy[Symbol.asyncDispose]()
    },
  }
}
