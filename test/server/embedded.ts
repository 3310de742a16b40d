// The embedded server for a test: in this process, on a free port, with a database that is gone afterwards.

import { join } from 'node:path'
import { createLogger } from '../../src/logger.ts'
import { type RunningServer, type ServerOptions, startServer } from '../../src/server/server.ts'
import { makeDirectory } from '../support/directory.ts'

export interface Embedded extends RunningServer {
  readonly databasePath: string
  /** What it has logged at level error. */
  readonly errors: readonly string[]
  /** Sends a request and gives status and parsed body. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
}

export interface Answer {
  readonly status: number
  readonly body: Body
}

/** Whatever a route answers, a list or an object, with the fields that tests look at. A wrong guess fails the test. */
export interface Body extends ReadonlyArray<Body> {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly details: { readonly type: string; readonly delay_seconds: number }
  readonly detail: string
  readonly message: string
  readonly state: { readonly type: string; readonly name: string; readonly message: string; readonly data: unknown }
  readonly state_type: string
  readonly state_name: string
  readonly run_count: number
  readonly parameters: unknown
  readonly expected_start_time: string
  readonly next_scheduled_start_time: string
  readonly last_polled: string | null
  readonly tags: readonly string[]
  readonly auto_scheduled: boolean
}

export async function startEmbedded(options: Partial<ServerOptions> = {}): Promise<Embedded> {
  const directory = await makeDirectory()
  const errors: string[] = []
  const logger = createLogger({ level: 'ERROR', pretty: false, destination: { write: line => errors.push(line) } })
  const databasePath = join(directory.path, 'server', 'test.db')
  const running = await startServer({ databasePath, port: 0, logger, ...options }, new AbortController().signal)
  return {
    ...running,
    databasePath: options.databasePath ?? databasePath,
    errors,
    call: (method, path, body, headers) => call(running.apiUrl, method, path, body, headers),
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]()
      await directory[Symbol.asyncDispose]()
    },
  }
}

export async function call(
  apiUrl: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${apiUrl}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) }
}
