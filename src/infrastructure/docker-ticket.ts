// The container's name is the ticket for its start: renaming it voids every start that was asked for before.
//
// So it can be said of a container that nothing of it has run nor will: before it is started anew, and before it is removed.
// docker-submit.ts tells how this makes a start happen exactly once.

import type { Logger } from '../logger.ts'
import type { ContainerInfo } from './docker-answers.ts'
import type { DockerEngine } from './docker-engine.ts'
import { patiently } from './docker-patience.ts'
import { isRefusal } from './docker-transport.ts'
import { InfrastructureError } from './infrastructure.ts'

/** How long an engine that does not answer is waited for before the run is given back, in milliseconds. */
export const engineAwayMs = 20_000
const cleanUpMs = 15_000

export interface TicketRequest {
  readonly engine: DockerEngine
  readonly logger: Logger
  /** That the container was to have; tickets begin with it. */
  readonly name: string
}

/** Renames the container, which voids every start that was sent before. Undefined: it has been started already. */
export async function takeTicket(
  { engine, logger, name }: TicketRequest,
  id: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const ticket = `${name}.${Math.random().toString(36).slice(2, 8)}`
  const rename = async () => {
    const info = await engine.inspect(id, signal)
    if (!info) throw removedTooEarly(name)
    // Its answer may have been lost before.
    if (nameOf(info) !== ticket) await engine.rename(id, ticket, signal)
    const after = await engine.inspect(id, signal)
    if (!after) throw removedTooEarly(name)
    return after
  }
  const info = await patiently(rename, { logger, limitMs: engineAwayMs }, signal)
  return hasStarted(info) ? undefined : ticket
}

/**
 * Removes a container that has not been started, so that it never will be. True: it has been started, and is left alone.
 * Has a deadline of its own, for it also runs when the caller has been told to stop; what it leaves behind is never
 * started, and is removed by `reattach` or the collection of finished containers.
 */
export async function discard(engine: DockerEngine, id: string, logger: Logger): Promise<boolean> {
  const signal = AbortSignal.timeout(cleanUpMs)
  try {
    return await patiently(() => discardOnce(engine, id, signal), { logger, limitMs: cleanUpMs }, signal)
  } catch (error) {
    logger.warn({ container: id.slice(0, 12), err: error }, 'container that was not started is left behind')
    return false
  }
}

/** See `discard`; throws when the engine does not answer. */
export async function discardOnce(engine: DockerEngine, id: string, signal: AbortSignal): Promise<boolean> {
  const before = await engine.inspect(id, signal)
  if (!before) return false
  if (hasStarted(before)) return true
  await engine.rename(id, `${nameOf(before).slice(0, 240)}.void-${id.slice(0, 6)}`, signal).catch(error => {
    // Another try has renamed it before, or it is being removed.
    if (!isRefusal(error, 400, 404, 409)) throw error
  })
  const info = await engine.inspect(id, signal)
  if (!info) return false
  if (hasStarted(info)) return true
  await engine.remove(id, signal)
  return false
}

export function hasStarted(info: ContainerInfo): boolean {
  return info.State.Status !== 'created' && info.State.Status !== 'configured'
}

export function nameOf(info: ContainerInfo): string {
  return info.Name.replace(/^\//, '')
}

export function removedTooEarly(name: string): InfrastructureError {
  return new InfrastructureError(`Container "${name}" was removed by somebody else before it could be started`, {
    blame: 'run',
  })
}
