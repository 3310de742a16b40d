// An agent in service: says at start what it found, answers /live and /ready, keeps the service manager informed.

import type { OnStop } from '../agent/drain.ts'
import { decideDetach, readHostFacts } from '../agent/host.ts'
import { readPythonFacts } from '../agent/python.ts'
import { runAgent } from '../agent/run-agent.ts'
import { Service } from '../agent/service.ts'
import { Scope } from '../async/scope.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { type AgentStart, buildAgentOptions, defaultPython } from './agent-options.ts'
import type { Context, Signals } from './context.ts'
import { collectWhenIdle } from './idle-heap.ts'

/** Often enough for a heap that only a burst fills. */
const heapLookMs = 20_000

/** Runs one agent until the signals end it; resolves to the number of runs that it has let go. */
export async function serveAgent(
  context: Context,
  start: AgentStart,
  client: PrefectClient,
  logger: Logger,
  signals: Signals,
): Promise<{ left: number }> {
  const { environment, status } = context.config
  await using service = await Service.start({ environment, pid: process.pid, status, logger }, signals.stopping)
  await using asides = new Scope()
  const options = buildAgentOptions(context, start, client, logger)
  const onStop = await decideOnStop(context, logger, signals.stopping)
  logger.info({ state: options.stateDirectory, limit: options.settings.limit, on_stop: onStop }, 'agent starting')
  asides.spawn(signal => describeServer(client, logger, signal))
  asides.spawn(signal => describePython(context, logger, signal))
  asides.spawn(signal => collectWhenIdle(heapLookMs, signal))
  return await runAgent({ ...options, onStop, onReady: agent => service.attach(agent) }, signals)
}

/** What becomes of runs when the agent stops: as configured, but never letting go where that would end them unseen. */
async function decideOnStop(context: Context, logger: Logger, signal: AbortSignal): Promise<OnStop> {
  const { onStop } = context.config.agent
  const isTerminal = context.stdout.isTTY === true
  if (onStop === 'kill' || (onStop === 'auto' && isTerminal)) return 'kill'
  const { environment } = context.config
  const decision = decideDetach(await readHostFacts({ environment, pid: process.pid }, signal))
  if (decision.canDetach) return 'detach'
  const fields = { reason: decision.reason }
  logger.warn(
    fields,
    'this agent cannot let go of its processes; when it stops it drains, then ends what is left of them and reports it',
  )
  return 'kill-own'
}

async function describeServer(client: PrefectClient, logger: Logger, signal: AbortSignal): Promise<void> {
  try {
    logger.info({ server_version: await client.readVersion(signal) }, 'Prefect API answers')
  } catch (error) {
    // The polls say once a minute what is wrong; a version that cannot be read harms nobody.
    if (!signal.aborted) logger.debug({ reason: describeError(error) }, 'could not read the server version')
  }
}

async function describePython({ config }: Context, logger: Logger, signal: AbortSignal): Promise<void> {
  const python = defaultPython(config)
  const facts = await readPythonFacts(python, config.inheritedEnvironment, signal).catch(() => undefined)
  if (signal.aborted) return
  if (!facts) logger.warn({ python }, 'no such Python; Python flows will crash, commands will run')
  else if (!facts.prefect) {
    logger.warn(
      { python: facts.executable, version: facts.python },
      'no Prefect in this Python; Python flows will crash, commands will run',
    )
  } else logger.info({ python: facts.executable, version: facts.python, prefect: facts.prefect }, 'Python for flows')
}
