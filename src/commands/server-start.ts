// `rigel server start`: the embedded Prefect-compatible server, alone.

import type { Context } from './context.ts'
import { createDaemonLogger } from './context.ts'

/** Serves until the first signal. */
export async function runServer(context: Context): Promise<void> {
  const { startServer } = await import('../server/server.ts')
  const { databasePath, host, port } = context.config.server
  const logger = createDaemonLogger(context)
  const { stopping } = context.signals
  await using _server = await startServer({ databasePath, host, port, logger }, stopping)
  await waitForAbort(stopping)
  logger.info('server is stopping')
}

function waitForAbort(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
}
