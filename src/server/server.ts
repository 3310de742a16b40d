// The embedded server: a Prefect-compatible API on one SQLite file, for local work and as a test double that cannot rot.

import { createServer, type Server } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { Scope } from '../async/scope.ts'
import { errorCode, UserError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { buildApp } from './app.ts'
import { seedBlockTypes } from './blocks.ts'
import { Database } from './database.ts'
import { runServices, SchedulerBell } from './services.ts'

export interface ServerOptions {
  /** The SQLite file; made when missing, together with its folder. */
  readonly databasePath: string
  /** Address to listen on; loopback by default. */
  readonly host?: string | undefined
  /** 0 = any free one. */
  readonly port: number
  readonly logger: Logger
  /** Under which URL others reach it, when that is not its own address (a proxy); its host name is then served, too. */
  readonly publicUrl?: string | undefined
  /** False: it only answers, and does nothing by itself (Prefect's `--no-services`). */
  readonly services?: boolean | undefined
}

export interface RunningServer extends AsyncDisposable {
  /** What clients set as PREFECT_API_URL. */
  readonly apiUrl: string
  readonly port: number
}

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]']

/** Starts the server and its services; they end when `signal` is aborted or the server is disposed of. */
export async function startServer(options: ServerOptions, signal: AbortSignal): Promise<RunningServer> {
  signal.throwIfAborted()
  const { databasePath, host = '127.0.0.1', logger, publicUrl, services = true } = options
  const database = new Database(databasePath)
  try {
    seedBlockTypes(database)
    const bell = new SchedulerBell()
    const app = buildApp({ database, bell, logger, allowedHosts: allowedHosts(host, publicUrl) })
    const answer = getRequestListener(app.fetch)
    // It answers every failure itself, so there is nothing left to await.
    const server = createServer((request, response) => void answer(request, response))
    server.keepAliveTimeout = 30_000 // clients keep connections for 25 s; closing first would cost them a request
    await listen(server, host, options.port)
    const port = portOf(server)
    const scope = new Scope(signal)
    if (services) scope.spawn(stopping => runServices(database, bell, logger, stopping))
    scope.spawn(stopping => closeWhenStopped(server, stopping))
    const closed = scope.join().finally(() => database[Symbol.dispose]())
    closed.catch(() => undefined) // whoever disposes of the server sees the failure
    const apiUrl = publicUrl ?? `http://${host.includes(':') ? `[${host}]` : host}:${port}/api`
    logger.info({ api_url: apiUrl, database: databasePath }, 'server listening')
    return {
      apiUrl,
      port,
      async [Symbol.asyncDispose]() {
        scope.cancel()
        await closed
      },
    }
  } catch (error) {
    database[Symbol.dispose]()
    throw error
  }
}

function allowedHosts(host: string, publicUrl: string | undefined): ReadonlySet<string> | undefined {
  const isLoopback = host === 'localhost' || host === '::1' || host.startsWith('127.')
  if (!isLoopback) return undefined
  return new Set([...LOOPBACK, host, ...(publicUrl ? [new URL(publicUrl).hostname.toLowerCase()] : [])])
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen({ host, port }, resolve)
  try {
    await promise
  } catch (error) {
    if (errorCode(error) !== 'EADDRINUSE') throw error
    throw new UserError(`Port ${port} on ${host} is taken.`, { hint: 'Choose another with --port.', cause: error })
  } finally {
    server.off('error', reject)
  }
}

async function closeWhenStopped(server: Server, stopping: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  if (stopping.aborted) resolve()
  else stopping.addEventListener('abort', () => resolve(), { once: true })
  await promise
  const closed = Promise.withResolvers<void>()
  server.close(() => closed.resolve())
  server.closeAllConnections()
  await closed.promise
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server does not listen on a TCP port.')
  return address.port
}
