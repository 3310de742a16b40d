// A handle names its container as Prefect's `infrastructure_pid` does: `<engine's base url>:<container id>`.

import type { DockerEngine } from './docker-engine.ts'
import type { Attempt, Exit, Handle } from './infrastructure.ts'

export function toHandle(engine: DockerEngine, id: string, { flowRunId, attempt, transitionId }: Attempt): Handle {
  return { type: 'docker-container', identifier: `${engine.baseUrl}:${id}`, flowRunId, attempt, transitionId }
}

/** The first 8 hex digits of its transition ids. */
export function agentOf({ transitionId }: Attempt): string {
  return transitionId.slice(0, 8)
}

/** Undefined when the handle is another engine's. Prefect's text form: the id stands behind the last colon. */
export function idOf(engine: DockerEngine, { identifier }: Handle): string | undefined {
  const colon = identifier.lastIndexOf(':')
  return identifier.slice(0, colon) === engine.baseUrl ? identifier.slice(colon + 1) : undefined
}

/** How a run ends whose container is another engine's. */
export function strange(engine: DockerEngine, { identifier }: Handle): Exit {
  const theirs = identifier.slice(0, identifier.lastIndexOf(':'))
  const reason = `its container belongs to the engine ${theirs}, but this agent uses ${engine.baseUrl}`
  return { kind: 'vanished', reason, outputTail: [] }
}
