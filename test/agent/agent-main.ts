// The real agent as a child process of a test: everything as in `rigel agent start`, with one thing more, a point in a
// run's life at which the process is killed, as if the machine had chosen just that moment.

import { appendFileSync } from 'node:fs'
import process from 'node:process'
import { runAgent } from '../../src/agent/run-agent.ts'
import { loadInfrastructure } from '../../src/infrastructure/registry.ts'
import { createLogger } from '../../src/logger.ts'
import { PrefectClient } from '../../src/prefect/client.ts'
import { defaultLimits } from '../../src/storage/context.ts'
import type { AgentPlan } from './stage.ts'

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by stage.ts, which shares the type
const plan = JSON.parse(process.argv[2] ?? '{}') as AgentPlan
const logger = createLogger({ level: 'DEBUG', pretty: true, destination: process.stdout })
const stopping = new AbortController()
const kill = new AbortController()
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.on(name, () => (stopping.signal.aborted ? kill : stopping).abort())
}

await using client = new PrefectClient({ url: plan.apiUrl, logger, maxRetries: 3 })
const context = {
  logger,
  outputCapBytes: 10_000_000,
  environment: process.env,
  inheritEnv: 'all' as const,
  fetchImage: plan.fetchImage,
}
const drivers = new Map<string, Parameters<typeof loadInfrastructure>[1]>()

await runAgent(
  {
    client,
    logger,
    stateDirectory: plan.stateDirectory,
    name: plan.name,
    poll: { names: plan.queues, prefixes: plan.prefixes ?? [], prefetchSeconds: plan.prefetchSeconds ?? 15 },
    settings: {
      limit: plan.limit ?? 10,
      queryIntervalSeconds: plan.queryIntervalSeconds ?? 1,
      cancelGraceSeconds: plan.cancelGraceSeconds ?? 5,
      lingerSeconds: plan.lingerSeconds ?? 60,
      stoppedRuns: plan.stoppedRuns ?? 'crashed',
      launch: {
        baseEnvironment: { PREFECT_API_URL: plan.engineApiUrl ?? plan.apiUrl },
        python: { setting: plan.python, virtualEnv: undefined },
        enhancedCancellation: true,
        prefectVersion: '2.20.25',
        fetch: 'agent',
      },
    },
    storage: {
      environment: process.env,
      proxies: {},
      home: process.env.HOME ?? '/',
      limits: defaultLimits,
      cacheDir: undefined,
      logger,
    },
    output: { print: line => void process.stdout.write(`${line}\n`), toApi: true },
    loadInfrastructure: (type, runsDirectory, readSettings) => {
      const known = drivers.get(type) ?? { ...context, runsDirectory, readSettings }
      drivers.set(type, known)
      return loadInfrastructure(type, known)
    },
    runOnce: plan.runOnce ?? false,
    waitForLock: plan.waitForLock ?? true,
    drainSeconds: plan.drainSeconds ?? 30,
    onStop: plan.onStop ?? 'detach',
    checkpoint: point => {
      if (plan.pointsFile) appendFileSync(plan.pointsFile, `${point}\n`)
      if (point === plan.killAt) process.kill(process.pid, 'SIGKILL')
    },
  },
  { stopping: stopping.signal, kill: kill.signal },
)
