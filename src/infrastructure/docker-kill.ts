// Ends a container: asks it, and forces it when its grace is over.

import type { Logger } from '../logger.ts'
import type { DockerEngine } from './docker-engine.ts'
import { patiently } from './docker-patience.ts'
import { EngineError } from './docker-transport.ts'

export interface KillRequest {
  readonly engine: DockerEngine
  readonly id: string
  /** Between SIGTERM and SIGKILL. */
  readonly graceSeconds: number
  readonly logger: Logger
}

/** Resolves when it has ended or is gone; throws an EngineError when the engine stays away for a minute beyond the grace. */
export async function killContainer(
  { engine, id, graceSeconds, logger }: KillRequest,
  signal: AbortSignal,
): Promise<void> {
  const startMs = performance.now()
  const stop = async () => {
    const left = Math.max(0, graceSeconds - (performance.now() - startMs) / 1000)
    try {
      await engine.stop(id, left, signal)
    } catch (error) {
      if (!(error instanceof EngineError) || error.kind === 'unreachable') throw error
      signal.throwIfAborted()
      // An engine that cannot stop it in good manners may still end it; whether it did is seen by the next round.
      if (left === 0) await engine.kill(id, signal)
      throw error
    }
  }
  await patiently(stop, { logger, limitMs: (graceSeconds + 60) * 1000 }, signal)
}
