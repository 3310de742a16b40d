// `rigel dev`: embedded server and agent in one process, with a home of their own, for trying things out.
//
// In: deployment files. Out: a served API and, with --run or --once, one run of each deployment with its log here.

import { readPythonFacts } from '../agent/python.ts'
import { Scope } from '../async/scope.ts'
import { sleep } from '../async/sleep.ts'
import { readConfig } from '../config/config.ts'
import { errorCode } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { PrefectClient } from '../prefect/client.ts'
import { isTerminal } from '../prefect/states.ts'
import type { FlowRun } from '../prefect/types.ts'
import { type RunningServer, startServer } from '../server/server.ts'
import { defaultPython } from './agent-options.ts'
import { connect } from './connect.ts'
import { type Context, createDaemonLogger } from './context.ts'
import { type Applied, applyPlans, readPlans } from './deployment-apply.ts'
import type { DeploymentPlan } from './deployment-file.ts'
import { type Call, readSwitch, readTexts } from './options.ts'
import { serveAgent } from './serve-agent.ts'

const lookEveryMs = 300

/** Resolves to the exit code: with --once 0 when every run has Completed, else 1. */
export async function runDev(context: Context, { args, options }: Call): Promise<number> {
  const people = withSettings(context, preferences(context))
  const logger = createDaemonLogger(people)
  const { stopping, kill } = context.signals
  const plans = await choosePlans(people, await readAll(args), stopping)
  const serverEnd = new AbortController()
  await using server = await openServer(people, logger, serverEnd.signal)
  const local = withSettings(people, { 'api.url': server.apiUrl })
  await using client = await connect(local.config, logger)
  const applied = await applyPlans(client, plans, stopping)
  const queues = [...new Set([...readTexts(options.workQueue), ...applied.map(queueOf)])]
  const isOnce = readSwitch(options.once)
  const done = new AbortController()
  const until = AbortSignal.any([stopping, done.signal])
  const start = { queues: queues.length > 0 ? queues : ['default'], prefixes: [], runOnce: false, waitForLock: false }
  let exitCode = 0
  await using agent = new Scope()
  agent.spawn(async () => {
    await serveAgent(local, start, client, logger, { stopping: until, kill })
  })
  if (isOnce || readSwitch(options.run)) {
    const ended = await runEach(client, applied, until)
    printStates(context, applied, ended)
    if (!ended.every(run => run?.state_type === 'COMPLETED')) exitCode = 1
  }
  context.stdout.write(`\nPrefect API: ${server.apiUrl}\n`)
  if (isOnce) done.abort()
  else if (!stopping.aborted) context.stdout.write('Serving until Ctrl-C.\n\n')
  await agent.join()
  return isOnce ? exitCode : 0
}

/** What suits a trial better than a service, unless somebody has said otherwise. */
function preferences({ config }: Context): Record<string, string> {
  return {
    ...(config.logging.format === 'auto' ? { 'logging.format': 'pretty' } : {}),
    ...(config.agent.onStop === 'auto' ? { 'agent.on_stop': 'kill' } : {}),
  }
}

function withSettings(context: Context, flags: Readonly<Record<string, string>>): Context {
  const configInput = { ...context.configInput, flags: { ...context.configInput.flags, ...flags } }
  return { ...context, configInput, config: readConfig(configInput) }
}

async function readAll(files: readonly string[]): Promise<DeploymentPlan[]> {
  const plans: DeploymentPlan[] = []
  for (const file of files) plans.push(...(await readPlans(file)))
  return plans
}

/** Leaves out Python flows where no Python has Prefect, with a line that says how to get it. */
async function choosePlans(
  { config, stdout }: Context,
  plans: readonly DeploymentPlan[],
  signal: AbortSignal,
): Promise<readonly DeploymentPlan[]> {
  if (!plans.some(isPython)) return plans
  const python = defaultPython(config)
  const facts = await readPythonFacts(python, config.inheritedEnvironment, signal)
  if (facts?.prefect) return plans
  const what = facts ? `${facts.executable} (Python ${facts.python}) has no Prefect` : `there is no ${python}`
  stdout.write(
    `Leaving out the Python flows, for ${what}. To run them: python3 -m venv prefect && prefect/bin/pip install 'prefect==2.20.25' 'anyio<4.14', then set RIGEL_PYTHON=$PWD/prefect/bin/python.\n`,
  )
  return plans.filter(plan => !isPython(plan))
}

function isPython(plan: DeploymentPlan): boolean {
  return /\.py:/.test(plan.body.entrypoint ?? '')
}

/** On the configured port, or on a free one when somebody has that and nobody asked for it by name. */
async function openServer(context: Context, logger: Logger, signal: AbortSignal): Promise<RunningServer> {
  const { databasePath, host, port } = context.config.server
  try {
    return await startServer({ databasePath, host, port, logger }, signal)
  } catch (error) {
    const isTaken = error instanceof Error && errorCode(error.cause) === 'EADDRINUSE'
    if (!isTaken || !context.config.sources['server.port']?.startsWith('default')) throw error
    return await startServer({ databasePath, host, port: 0, logger }, signal)
  }
}

function queueOf({ deployment }: Applied): string {
  return deployment.work_queue_name ?? 'default'
}

/** Starts each deployment once and waits until all have ended, or the signal comes. */
async function runEach(
  client: PrefectClient,
  applied: readonly Applied[],
  signal: AbortSignal,
): Promise<readonly (FlowRun | undefined)[]> {
  const runs: FlowRun[] = []
  for (const { deployment } of applied) runs.push(await client.createFlowRunFromDeployment(deployment.id, {}, signal))
  const ended = new Map<string, FlowRun>()
  while (ended.size < runs.length && !signal.aborted) {
    await sleep(lookEveryMs, signal)
    if (signal.aborted) break
    const ids = runs.map(run => run.id)
    for (const run of await client.readFlowRuns({ flow_runs: { id: { any_: ids } } }, signal)) {
      if (isTerminal(run.state_type)) ended.set(run.id, run)
    }
  }
  return runs.map(run => ended.get(run.id))
}

function printStates({ stdout }: Context, applied: readonly Applied[], runs: readonly (FlowRun | undefined)[]): void {
  stdout.write('\n')
  for (const [index, { flow, deployment }] of applied.entries()) {
    const run = runs[index]
    const state = run ? (run.state_name ?? run.state_type) : 'not ended'
    const message = run && run.state_type !== 'COMPLETED' && run.state?.message ? `: ${run.state.message}` : ''
    stdout.write(`${state}  ${flow}/${deployment.name}${run ? `  (${run.name})` : ''}${message}\n`)
  }
}
