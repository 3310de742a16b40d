// `rigel agent start`: one agent against the server that the user already runs.

import { availableParallelism } from 'node:os'
import { type Agent, type AgentOptions, runAgent } from '../agent/agent.ts'
import type { Config } from '../config/config.ts'
import { UserError } from '../errors.ts'
import { loadInfrastructure } from '../infrastructure/registry.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { connect } from './connect.ts'
import { type Context, createDaemonLogger } from './context.ts'

export interface AgentStart {
  readonly queues: readonly string[]
  readonly prefixes: readonly string[]
  readonly runOnce: boolean
  /** False: refuse to start while another agent holds the state folder. */
  readonly waitForLock: boolean
}

/** Exit code for a start that cannot work as it was asked for; see docs/service.md. */
const usageError = 2
/** Runs at once for each core when no limit is given: flows wait more than they compute. */
const runsPerCore = 4
/** The Prefect whose agent we stand in for; goes into labels only. */
const prefectVersion = '2.20.25'

export async function startAgent(context: Context, start: AgentStart): Promise<void> {
  if (start.queues.length === 0 && start.prefixes.length === 0) {
    throw new UserError('No work queue is named.', {
      hint: 'Say which ones to poll: `-q NAME`, or `-m PREFIX` for all whose names start so.',
      exitCode: usageError,
    })
  }
  const logger = createDaemonLogger(context)
  for (const warning of context.config.warnings) logger.warn(warning)
  await using client = await connect(context.config, logger)
  const { left } = await runAgent(buildOptions(context, start, client, logger), context.signals)
  logger.info({ runs_left: left }, 'agent stopped')
}

/** Everything that an agent is given, from the configuration. */
export function buildOptions(
  context: Context,
  start: AgentStart,
  client: PrefectClient,
  logger: Logger,
  onReady?: (agent: Agent) => void,
): AgentOptions {
  const { config, stdout } = context
  const isPretty = config.logging.format === 'pretty' || (config.logging.format === 'auto' && stdout.isTTY === true)
  return {
    client,
    logger,
    stateDirectory: config.paths.stateDir,
    name: config.agent.name,
    poll: { names: start.queues, prefixes: start.prefixes, prefetchSeconds: config.agent.prefetchSeconds },
    settings: {
      limit: config.agent.limit ?? runsPerCore * availableParallelism(),
      queryIntervalSeconds: config.agent.queryIntervalSeconds,
      cancelGraceSeconds: config.agent.cancelGraceSeconds,
      lingerSeconds: config.agent.lingerSeconds,
      stoppedRuns: config.agent.stoppedRuns,
      launch: {
        baseEnvironment: config.prefectEnvironment,
        python: { setting: config.process.python, virtualEnv: config.environment.VIRTUAL_ENV },
        enhancedCancellation: config.environment.PREFECT_EXPERIMENTAL_ENABLE_ENHANCED_CANCELLATION !== 'false',
        prefectVersion,
      },
    },
    storage: {
      environment: config.environment,
      home: config.environment.HOME ?? '/',
      limits: {
        maxBytes: config.storage.maxBytes,
        maxFiles: config.storage.maxFiles,
        maxSeconds: config.storage.timeoutSeconds,
      },
      cacheDir: config.paths.cacheDir,
      logger,
    },
    output: {
      print: isPretty ? line => void stdout.write(`${line}\n`) : undefined,
      toApi: config.logging.toApiEnabled,
    },
    loadInfrastructure: infrastructureLoader(config, logger),
    runOnce: start.runOnce,
    waitForLock: start.waitForLock,
    drainSeconds: config.agent.drainSeconds,
    onStop: decideOnStop(config, stdout.isTTY === true),
    ...(onReady ? { onReady } : {}),
  }
}

function infrastructureLoader(config: Config, logger: Logger): AgentOptions['loadInfrastructure'] {
  let loaderContext: Parameters<typeof loadInfrastructure>[1] | undefined
  return (type, runsDirectory) => {
    loaderContext ??= {
      runsDirectory,
      logger,
      outputCapBytes: config.process.outputCapBytes,
      environment: config.inheritedEnvironment,
      inheritEnv: 'all',
    }
    return loadInfrastructure(type, loaderContext)
  }
}

function decideOnStop(config: Config, isTerminal: boolean): 'detach' | 'kill' {
  if (config.agent.onStop !== 'auto') return config.agent.onStop
  return isTerminal ? 'kill' : 'detach'
}
