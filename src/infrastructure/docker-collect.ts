// Removes containers that have ended and are kept no longer, by number and by age.
//
// In: whose they are, how many to keep and for how long, which runs the journal still holds. Out: what was (or would be)
// removed. Only containers with our labels and the agent's own identity are ever looked at; what runs is never touched.

import { label, labelVersion } from './docker-create.ts'
import type { ContainerSummary, DockerEngine } from './docker-engine.ts'
import { isRefusal } from './docker-transport.ts'

export interface CollectOptions {
  /** First 8 hex digits of this agent's transition ids. */
  readonly agentPrefix: string
  /** Finished containers to keep, the newest. */
  readonly keep: number
  /** Finished containers that were created longer ago are not kept, in seconds. */
  readonly maxAgeSeconds: number
  /** Runs that the journal still holds: their exit may not have been read yet. */
  readonly isHeld: (flowRunId: string, transitionId: string) => boolean
  readonly dryRun: boolean
}

export interface Collectable {
  readonly id: string
  readonly name: string
  readonly flowRunId: string
  readonly createdAt: Date
}

export interface Collected {
  /** Oldest first; with `dryRun` those that would have been removed. */
  readonly removed: readonly Collectable[]
  readonly kept: number
}

export async function collectContainers(
  engine: DockerEngine,
  options: CollectOptions,
  signal: AbortSignal,
): Promise<Collected> {
  const found = await engine.list([`${label.agent}=${options.agentPrefix}`, label.version], true, signal)
  const { removed, kept } = chooseCollectable(found, options, Date.now())
  if (options.dryRun) return { removed, kept }
  const gone: Collectable[] = []
  for (const container of removed) {
    try {
      // Never forced: what has been started again by hand meanwhile is refused.
      await engine.remove(container.id, signal)
      gone.push(container)
    } catch (error) {
      if (!isRefusal(error, 409)) throw error
    }
  }
  return { removed: gone, kept: kept + removed.length - gone.length }
}

/** Pure part. `nowMs`: milliseconds since 1970. */
export function chooseCollectable(
  containers: readonly ContainerSummary[],
  options: Omit<CollectOptions, 'dryRun'>,
  nowMs: number,
): Collected {
  const finished = containers
    .filter(({ State }) => State === 'exited' || State === 'dead' || State === 'created')
    .filter(
      ({ Labels }) => Number(Labels[label.version]) <= labelVersion && Labels[label.agent] === options.agentPrefix,
    )
    .filter(({ Labels }) => !options.isHeld(Labels[label.flowRunId] ?? '', Labels[label.transitionId] ?? ''))
    .toSorted((one, other) => other.Created - one.Created)
  const isKept = ({ Created }: ContainerSummary, index: number) =>
    index < options.keep && nowMs / 1000 - Created <= options.maxAgeSeconds
  const removed = finished.filter((container, index) => !isKept(container, index)).toReversed()
  return { removed: removed.map(toCollectable), kept: finished.length - removed.length }
}

function toCollectable({ Id, Names, Created, Labels }: ContainerSummary): Collectable {
  return {
    id: Id,
    name: (Names[0] ?? Id).replace(/^\//, ''),
    flowRunId: Labels[label.flowRunId] ?? '',
    createdAt: new Date(Created * 1000),
  }
}
