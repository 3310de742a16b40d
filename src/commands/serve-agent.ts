// An agent in service: says at start what it found, answers /live and /ready, keeps the service manager informed.

import { type Agent, runAgent } from '../agent/agent.ts'
import { decideDetach, readHostFacts } from '../agent/host.ts'
import { ServiceManager } from '../agent/notify.ts'
import { readPythonFacts } from '../agent/python.ts'
import { type Part, startStatusServer } from '../agent/status.ts'
import { Scope } from '../async/scope.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { type AgentStart, buildAgentOptions, defaultPython } from './agent-options.ts'
import type { Context, Signals } from './context.ts'

/** Runs one agent until the signals end it; resolves to the number of runs that it has let go. */
export async function serveAgent(
  context: Context,
  start: AgentStart,
  client: PrefectClient,
  logger: Logger,
  signals: Signals,
): Promise<{ left: number }> {
  await using service = new Scope()
  const options = buildAgentOptions(context, start, client, logger)
  const onStop = await decideOnStop(context, logger, signals.stopping)
  logger.info({ state: options.stateDirectory, limit: options.settings.limit, on_stop: onStop }, 'agent starting')
  service.spawn(signal => describeServer(client, logger, signal))
  service.spawn(signal => describePython(context, logger, signal))
  const manager = new ServiceManager({ environment: context.config.environment, pid: process.pid, logger })
  const onReady = (agent: Agent) => {
    service.spawn(signal => serveStatus(context, agent, logger, signal))
    service.spawn(signal => manager.tellReady('polling', signal))
    service.spawn(signal => manager.keepWatchdog(() => agent.isAlive, signal))
    signals.stopping.addEventListener('abort', () =>
      service.spawn(signal => manager.tellStopping(`draining ${agent.counts.held} runs`, signal)),
    )
  }
  return await runAgent({ ...options, onStop, onReady }, signals)
}

/** What becomes of runs when the agent stops: as configured, but never letting go where that would end them unseen. */
async function decideOnStop(context: Context, logger: Logger, signal: AbortSignal): Promise<'detach' | 'kill'> {
  const { onStop } = context.config.agent
  const isTerminal = context.stdout.isTTY === true
  if (onStop === 'kill' || (onStop === 'auto' && isTerminal)) return 'kill'
  const { environment } = context.config
  const decision = decideDetach(await readHostFacts({ environment, pid: process.pid }, signal))
  if (decision.canDetach) return 'detach'
  const fields = { reason: decision.reason }
  logger.warn(
    fields,
    'this agent cannot let go of its runs; when it stops it drains, then ends what is left and reports it',
  )
  return 'kill'
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

async function serveStatus(context: Context, agent: Agent, logger: Logger, signal: AbortSignal): Promise<void> {
  const { host, port } = context.config.status
  if (port === undefined) return
  const parts = () =>
    Object.fromEntries(
      Object.entries(agent.ailments).map(([name, detail]): [string, Part] => [
        name,
        detail === undefined ? { status: 'ok' } : { status: 'sick', detail },
      ]),
    )
  await using server = await startStatusServer({ host, port, parts }, signal)
  logger.info({ url: server.url }, 'serving /live and /ready')
  await new Promise<void>(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
