// A process that has imported Prefect, from which servers are forked: prefect-nursery.py.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Nursery extends AsyncDisposable {
  /** Path of the socket at which it takes orders. */
  readonly socket: string
}

export async function startNursery(python: string, settings: NodeJS.ProcessEnv): Promise<Nursery> {
  const socket = join(tmpdir(), randomUUID())
  const child = spawn(python, [join(import.meta.dirname, 'prefect-nursery.py'), socket], {
    cwd: tmpdir(),
    env: { ...settings, PREFECT_HOME: '.' },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  await Promise.race([once(child.stdout, 'data'), ended])
  return {
    socket,
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await ended
    },
  }
}

export interface ForkedServer extends AsyncDisposable {
  readonly hasEnded: boolean
}

/** It ends at the latest when this process does. */
export function forkServer(socket: string, order: { readonly home: string; readonly port: number }): ForkedServer {
  const connection = connect(socket).resume()
  const closed = new Promise(resolve => connection.once('close', resolve))
  // 'close' follows.
  connection.on('error', () => undefined)
  connection.write(`${JSON.stringify(order)}\n`)
  return {
    get hasEnded() {
      return connection.destroyed
    },
    async [Symbol.asyncDispose]() {
      connection.end()
      await closed
    },
  }
}
