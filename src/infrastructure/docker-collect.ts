// Removes containers that have ended and are kept no longer, by number and by age.
//
// In: whose they are, how many to keep and for how long, which runs the journal still holds. Out: what was (or would be)
// removed. Only containers with our labels and the agent's own identity are ever looked at; what runs is never touched.

import type { ContainerSummary } from './docker-answers.ts'
import { label, labelVersion } from './docker-create.ts'
import type { DockerEngine } from './docker-engine.ts'
import { isRefusal } from './docker-transport.ts'
import type { Collectable, CollectRequest, KeepRule } from './infrastructure.ts'
import { chooseExcess } from './keep-rule.ts'

/** Oldest first. Throws an EngineError when the engine does not answer. */
export async function collectContainers(
  engine: DockerEngine,
  request: CollectRequest,
  signal: AbortSignal,
): Promise<readonly Collectable[]> {
  const found = await engine.list([`${label.agent}=${request.agentPrefix}`, label.version], true, signal)
  const finished = found.filter(container => isCollectable(container, request))
  if (!mayExceed(finished, request.finished, Date.now())) return []
  const dated: Finished[] = []
  for (const container of finished) {
    const ended = await readEnd(engine, container, signal)
    if (ended !== undefined) dated.push({ container, endedAtMs: ended })
  }
  const removed: Collectable[] = []
  for (const one of chooseExcess(dated, request.finished, Date.now())) {
    if (request.dryRun || (await removeQuietly(engine, one.container.Id, signal))) removed.push(toCollectable(one))
  }
  return removed
}

interface Finished {
  readonly container: ContainerSummary
  /** Milliseconds since 1970. */
  readonly endedAtMs: number
}

/** One that was never started belongs to nobody once the journal has forgotten its run. */
export function isCollectable(
  { State, Labels }: ContainerSummary,
  { agentPrefix, isHeld }: Pick<CollectRequest, 'agentPrefix' | 'isHeld'>,
): boolean {
  return (
    (State === 'exited' || State === 'dead' || State === 'created') &&
    Number(Labels[label.version]) <= labelVersion &&
    Labels[label.agent] === agentPrefix &&
    !isHeld(Labels[label.flowRunId] ?? '')
  )
}

/** The list tells when containers were created, not when they ended; most of the time that is enough to see there is nothing to do. */
function mayExceed(finished: readonly ContainerSummary[], { keep, maxAgeSeconds }: KeepRule, nowMs: number): boolean {
  return finished.length > keep || finished.some(({ Created }) => nowMs / 1000 - Created > maxAgeSeconds)
}

/** Undefined: it is gone, or runs again. */
async function readEnd(
  engine: DockerEngine,
  { Id, Created }: ContainerSummary,
  signal: AbortSignal,
): Promise<number | undefined> {
  const info = await engine.inspect(Id, signal)
  if (!info || info.State.Running) return undefined
  // A container that was never started ended in the year 1.
  return Math.max(Date.parse(info.State.FinishedAt) || 0, Created * 1000)
}

/** Never forced: what has been started again by hand meanwhile is refused. */
async function removeQuietly(engine: DockerEngine, id: string, signal: AbortSignal): Promise<boolean> {
  try {
    await engine.remove(id, signal)
    return true
  } catch (error) {
    if (isRefusal(error, 409)) return false
    throw error
  }
}

function toCollectable({ container: { Id, Names, Labels }, endedAtMs }: Finished): Collectable {
  return {
    kind: 'container',
    name: (Names[0] ?? Id).replace(/^\//, ''),
    flowRunId: Labels[label.flowRunId],
    since: new Date(endedAtMs),
  }
}
