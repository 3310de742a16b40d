// A burst: 300 runs due at once, at most 50 at a time, on a real server; beside it a bare loop of claim calls, which is
// what the server can do at best, and Prefect's agent, which gets a minute.
//
// It counts only when the ledger shows each run once, begun and ended, and the server shows all as completed.

import { setTimeout as delay } from 'node:timers/promises'
import type { Deployment } from '../src/prefect/types.ts'
import { until } from '../test/support/until.ts'
import type { BenchAgent, Kind } from './agents.ts'
import { type Row, round } from './figures.ts'
import { Corner, type Ground } from './ground.ts'
import { readProcessorMs } from './process-tree.ts'
import { isClaim } from './recorder.ts'

const runs = 300
const limit = 50
const bareClaims = 100
const prefectMs = 60_000
/** Prefect's agent claims ten of them per poll; so many it cannot finish in its minute. */
const prefectRuns = 80

interface Burst {
  readonly launchesPerSecond: number
  /** Seconds from the first claim until the server shows the last run as completed; undefined when it was cut short. */
  readonly wholeSeconds: number | undefined
  readonly processorMsPerRun: number
  readonly callsPerRun: number
}

export async function measureBurst(ground: Ground): Promise<readonly Row[]> {
  const before = await claimsPerSecond(ground)
  const rigel = await runBurst(ground)
  const after = await claimsPerSecond(ground)
  const prefect = await runPrefect(ground)
  const bare = (before + after) / 2
  const share = `${round((100 * rigel.launchesPerSecond) / bare, 0)} %`
  const launches = `${round(rigel.launchesPerSecond)} /s`
  return [
    buildRow(
      `burst of ${runs} runs, --limit ${limit}: launches`,
      `${round(prefect.launchesPerSecond, 2)} /s`,
      launches,
    ),
    buildRow(
      'a bare loop of claim calls on the same server, before and after',
      '-',
      `${round(before)}, ${round(after)} /s`,
    ),
    buildRow('launches as a share of that', '-', share, '≥ 95 %'),
    buildRow('first claim until all are reported', '-', `${round(rigel.wholeSeconds ?? Number.NaN)} s`),
    buildRow(
      "agent's own processor time per run",
      `${round(prefect.processorMsPerRun)} ms`,
      `${round(rigel.processorMsPerRun)} ms`,
    ),
    buildRow(
      'API calls per run in this burst, polls left out',
      round(prefect.callsPerRun),
      round(rigel.callsPerRun),
      '≤ 4',
    ),
  ]
}

function buildRow(what: string, prefect: string, rigel: string, target = '-'): Row {
  return { what, prefect, rigel, target }
}

async function runBurst(ground: Ground): Promise<Burst> {
  await using corner = await Corner.open(ground)
  const deployment = await corner.deploy('command')
  const ids = await corner.createRuns(deployment, runs)
  await using agent = await corner.start({ kind: 'rigel', limit })
  const watched = { timeoutMs: 180_000, everyMs: 100, what: `${runs} runs to end` }
  await until(() => corner.readLedger('END').size === runs, watched)
  const processorMs = readProcessorMs(agent.pid, false)
  const reported = { timeoutMs: 120_000, everyMs: 500, what: `${runs} runs to be completed` }
  await until(async () => (await countCompleted(corner, deployment)) === runs, reported)
  checkLedger(corner, ids)
  return summarize(corner, agent, 'rigel', processorMs / runs)
}

async function runPrefect(ground: Ground): Promise<Burst> {
  await using corner = await Corner.open(ground)
  await corner.createRuns(await corner.deploy('command'), prefectRuns)
  await using agent = await corner.start({ kind: 'prefect', limit })
  const options = { timeoutMs: 60_000, everyMs: 50, what: "Prefect's agent to poll" }
  await until(() => corner.recorder.calls.some(isClaim), options)
  const processor = readProcessorMs(agent.pid, false)
  await delay(prefectMs)
  const spent = readProcessorMs(agent.pid, false) - processor
  return summarize(corner, agent, 'prefect', spent / corner.readLedger('START').size)
}

function summarize(corner: Corner, agent: BenchAgent, kind: Kind, processorMsPerRun: number): Burst {
  if (agent.hasEnded) throw new Error(`${kind} has ended:\n${agent.log()}`)
  const { calls } = corner.recorder
  const firstClaim = Math.min(...calls.filter(isClaim).map(call => call.arrivedAt))
  const starts = [...corner.readLedger('START').values()].flat()
  const isWhole = kind === 'rigel'
  const seconds = isWhole ? (Math.max(...starts) - performance.timeOrigin - firstClaim) / 1000 : prefectMs / 1000
  const ofRuns = calls.filter(call => call.route.includes('/flow_runs/') || call.route.startsWith('GET /deployments'))
  const last = Math.max(...calls.filter(call => call.route.endsWith('/set_state')).map(call => call.answeredAt))
  return {
    launchesPerSecond: starts.length / seconds,
    wholeSeconds: isWhole ? (last - firstClaim) / 1000 : undefined,
    processorMsPerRun,
    callsPerRun: ofRuns.length / starts.length,
  }
}

function checkLedger(corner: Corner, ids: readonly string[]): void {
  for (const what of ['START', 'END'] as const) {
    const lines = corner.readLedger(what)
    const wrong = ids.filter(id => lines.get(id)?.length !== 1)
    if (wrong.length > 0) throw new Error(`${wrong.length} runs have not exactly one ${what} in the ledger`)
  }
}

async function countCompleted(corner: Corner, deployment: Deployment): Promise<number> {
  // By the run's own field: the route's filter by deployment is accepted, and without effect.
  const body = JSON.stringify({
    flow_runs: { deployment_id: { any_: [deployment.id] }, state: { type: { any_: ['COMPLETED'] } } },
  })
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${corner.stage.apiUrl}/flow_runs/count`, { method: 'POST', headers, body })
  return Number(await answer.text())
}

/** The better of one caller and four, through the recorder as the agent's claims. */
async function claimsPerSecond(ground: Ground): Promise<number> {
  await using corner = await Corner.open(ground)
  const deployment = await corner.deploy('command')
  const rates: number[] = []
  for (const lanes of [1, 4]) {
    const ids = [...(await corner.createRuns(deployment, bareClaims))]
    const from = performance.now()
    const lane = async (): Promise<void> => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) await claim(corner, id)
    }
    await Promise.all(Array.from({ length: lanes }, lane))
    rates.push(bareClaims / ((performance.now() - from) / 1000))
  }
  return Math.max(...rates)
}

async function claim(corner: Corner, id: string): Promise<void> {
  const body = JSON.stringify({ state: { type: 'PENDING', name: 'Pending' } })
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${corner.recorder.apiUrl}/flow_runs/${id}/set_state`, { method: 'POST', headers, body })
  await answer.text()
}
