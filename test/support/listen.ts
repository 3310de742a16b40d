// A server of a test's own, on loopback.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { AddressInfo, ListenOptions, Server } from 'node:net'

/** Listens on a free port of 127.0.0.1, or where it is told. */
export async function listen(server: Server, at: ListenOptions = { host: '127.0.0.1', port: 0 }): Promise<AddressInfo> {
  server.listen(at)
  await once(server, 'listening')
  return addressOf(server)
}

/** Of a server that listens. */
export function addressOf(server: Server): AddressInfo {
  const address = server.address()
  assert(address !== null && typeof address === 'object')
  return address
}
