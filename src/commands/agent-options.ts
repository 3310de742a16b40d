// From the configuration to what an agent is given.

import { availableParallelism } from 'node:os'
import type { AgentOptions } from '../agent/agent.ts'
import type { Config } from '../config/config.ts'
import type { CleanupRules } from '../infrastructure/infrastructure.ts'
import { loadInfrastructure } from '../infrastructure/registry.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { type Context, isPretty } from './context.ts'
import { buildStorageContext } from './storage-context.ts'

export interface AgentStart {
  readonly queues: readonly string[]
  readonly prefixes: readonly string[]
  readonly runOnce: boolean
  /** False: refuse to start while another agent holds the state folder. */
  readonly waitForLock: boolean
}

/** Runs at once for each core when no limit is given: flows wait more than they compute. */
const runsPerCore = 4
/** The Prefect whose agent we stand in for; goes into labels only. */
const prefectVersion = '2.20.25'

export function buildAgentOptions(
  context: Context,
  start: AgentStart,
  client: PrefectClient,
  logger: Logger,
): Omit<AgentOptions, 'onStop'> {
  const { config } = context
  const { agent, paths, process, storage } = config
  return {
    client,
    logger,
    stateDirectory: paths.stateDir,
    name: agent.name,
    poll: { names: start.queues, prefixes: start.prefixes, prefetchSeconds: agent.prefetchSeconds },
    settings: {
      limit: agent.limit ?? runsPerCore * availableParallelism(),
      queryIntervalSeconds: agent.queryIntervalSeconds,
      cancelGraceSeconds: agent.cancelGraceSeconds,
      lingerSeconds: agent.lingerSeconds,
      stoppedRuns: agent.stoppedRuns,
      launch: {
        baseEnvironment: config.prefectEnvironment,
        python: { setting: process.python, virtualEnv: config.environment.VIRTUAL_ENV },
        enhancedCancellation: agent.enhancedCancellation,
        prefectVersion,
        fetch: storage.fetch,
      },
    },
    storage: buildStorageContext(config, logger),
    output: {
      print: choosePrint(context),
      toApi: config.logging.toApiEnabled,
    },
    loadInfrastructure: openInfrastructure(config, logger),
    runOnce: start.runOnce,
    waitForLock: start.waitForLock,
    drainSeconds: agent.drainSeconds,
  }
}

/** Lines for people at a terminal, entries of the log elsewhere, nothing when it is switched off. */
function choosePrint({ config, stdout }: Context): AgentOptions['output']['print'] {
  if (!config.process.streamOutput) return () => undefined
  return isPretty(config, stdout) ? line => void stdout.write(`${line}\n`) : undefined
}

/** The interpreter that runs flows when neither block nor deployment names one. */
export function defaultPython({ process, environment }: Config): string {
  if (process.python) return process.python
  return environment.VIRTUAL_ENV ? `${environment.VIRTUAL_ENV}/bin/python` : 'python3'
}

/** What of the past is kept. */
export function readCleanupRules({ cleanup }: Config): CleanupRules {
  const daySeconds = 86_400
  return {
    finished: { keep: cleanup.keepFinished, maxAgeSeconds: cleanup.keepFinishedDays * daySeconds },
    images: cleanup.removeImages
      ? { keep: cleanup.keepImages, maxAgeSeconds: cleanup.keepImagesDays * daySeconds }
      : undefined,
  }
}

function openInfrastructure(config: Config, logger: Logger): AgentOptions['loadInfrastructure'] {
  let context: Parameters<typeof loadInfrastructure>[1] | undefined
  return (type, runsDirectory, readSettings) => {
    context ??= {
      runsDirectory,
      logger,
      outputCapBytes: config.process.outputCapBytes,
      environment: config.inheritedEnvironment,
      inheritEnv: 'all',
      fetchImage: config.storage.fetchImage,
      cleanup: readCleanupRules(config),
      readSettings,
    }
    return loadInfrastructure(type, context)
  }
}
