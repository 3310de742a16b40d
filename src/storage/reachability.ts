// Why a helper program did not reach a host. Its words are for people and leave out what matters (curl's are the same for a
// name that does not exist and for a network that is down), so the system is asked once more; its answer has a code.

import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { connect } from 'node:net'

const patienceMs = 5000

export interface Endpoint {
  readonly host: string
  /** Undefined: only the name is looked up. */
  readonly port: number | undefined
}

/** The system's error for a connection that is opened now; undefined when it can be. */
export async function findNetworkError({ host, port }: Endpoint, signal: AbortSignal): Promise<Error | undefined> {
  try {
    if (port === undefined) await lookup(host)
    else await tryConnection(host, port, signal)
    return undefined
  } catch (error) {
    signal.throwIfAborted()
    return error instanceof Error ? error : undefined
  }
}

async function tryConnection(host: string, port: number, signal: AbortSignal): Promise<void> {
  const socket = connect({ host, port })
  const silent = Object.assign(new Error(`connect ETIMEDOUT ${host}:${port}`), { code: 'ETIMEDOUT' })
  socket.setTimeout(patienceMs, () => socket.destroy(silent))
  try {
    await once(socket, 'connect', { signal })
  } finally {
    socket.destroy()
  }
}
