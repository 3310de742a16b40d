// The drivers by Prefect's block slug, loaded when the first run needs one: an agent that only runs processes never loads
// the clients of container engines.
//
// In: a type and what the drivers need of the agent. Out: one instance per type and context.

import type { Logger } from '../logger.ts'
import { type CleanupRules, type Infrastructure, InfrastructureError } from './infrastructure.ts'

/** What the agent has for drivers; each takes what it needs. */
export interface InfrastructureContext {
  readonly runsDirectory: string
  readonly logger: Logger
  readonly outputCapBytes: number
  /** The agent's own environment. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly inheritEnv: 'all' | readonly string[]
  /** Image of Rigel for pods that fetch their code; undefined: the driver's own choice. */
  readonly fetchImage?: string | undefined
  /** What drivers clear away by themselves as runs end; undefined: nothing. */
  readonly cleanup?: CleanupRules | undefined
  /** Reads a run's block again, for runs of an earlier life; undefined when there is none any more. */
  readonly readSettings?: (
    flowRunId: string,
    signal: AbortSignal,
  ) => Promise<Readonly<Record<string, unknown>> | undefined>
}

type Loader = (context: InfrastructureContext) => Promise<Infrastructure>

const loaders: Readonly<Record<string, Loader>> = {
  process: async context => {
    const { createProcessInfrastructure } = await import('./process.ts')
    return createProcessInfrastructure({ ...context, logger: context.logger.child({ infrastructure: 'process' }) })
  },
  'docker-container': async ({ runsDirectory, logger, environment, cleanup }) => {
    const { createDockerInfrastructure } = await import('./docker.ts')
    const child = logger.child({ infrastructure: 'docker-container' })
    return createDockerInfrastructure({ runsDirectory, logger: child, environment, cleanup })
  },
  'kubernetes-job': async ({ runsDirectory, logger, environment, fetchImage, readSettings }) => {
    const { createKubernetesInfrastructure } = await import('./kubernetes.ts')
    const child = logger.child({ infrastructure: 'kubernetes-job' })
    return createKubernetesInfrastructure({
      runsDirectory,
      logger: child,
      environment,
      fetchImage,
      ...(readSettings ? { readSettings } : {}),
    })
  },
}

/** The types that can be run. */
export const infrastructureTypes: readonly string[] = Object.keys(loaders)

/** Kept per context, so that two agents in one program (tests, `rigel dev`) do not share. */
const loaded = new WeakMap<InfrastructureContext, Map<string, Promise<Infrastructure>>>()

/**
 * Gives the driver for an infrastructure block's type (`process`, `docker-container`, …).
 * Throws an InfrastructureError that blames the run when there is none; a failed import or construction is tried again.
 */
export async function loadInfrastructure(type: string, context: InfrastructureContext): Promise<Infrastructure> {
  const loader = Object.hasOwn(loaders, type) ? loaders[type] : undefined
  if (!loader) {
    const known = infrastructureTypes.join(', ')
    throw new InfrastructureError(`Infrastructure of type "${type}" cannot be run by this agent; it knows ${known}`, {
      blame: 'run',
    })
  }
  const instances = loaded.get(context) ?? new Map<string, Promise<Infrastructure>>()
  loaded.set(context, instances)
  const existing = instances.get(type)
  if (existing) return await existing
  const loading = loader(context)
  instances.set(type, loading)
  try {
    return await loading
  } catch (error) {
    instances.delete(type)
    throw error
  }
}
