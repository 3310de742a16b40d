// `npm run soak`: the promise "no run lost, none started twice" against a real Prefect 2 server, many times over.
//
//   1. SIGKILL of the agent before and after every step of a run, ROUNDS times each (default 50);
//   2. SIGKILL at random moments, KILLS times (default 500), with a stream of runs under way;
//   3. three agents that race for the runs of one queue, one of them killed at a time, RACE times in all (default 100).
//
// The ledger in which each run writes START and END is the judge: one of each, in one process, and the right final state.
// Bounded: it stops by itself when all are done, and at the first violation. SOAK_ROUNDS, SOAK_KILLS and SOAK_RACE make it
// shorter, SOAK_PARALLEL (default 3) says how many agents of their own are killed beside one another, SOAK_SERVER=prefect3
// puts a Prefect 3 server in the place of 2.20's.

import { setTimeout as delay } from 'node:timers/promises'
import { killPoints } from '../test/agent/kill-points.ts'
import { judge, openRuns, raceAgents, settled } from '../test/agent/race.ts'
import { type AgentProcess, openStage } from '../test/agent/stage.ts'
import { startPrefectServer } from '../test/support/prefect-server.ts'

const rounds = Number(process.env.SOAK_ROUNDS ?? 50)
const kills = Number(process.env.SOAK_KILLS ?? 500)
const raceKills = Number(process.env.SOAK_RACE ?? 100)
const parallel = Number(process.env.SOAK_PARALLEL ?? 3)
/** Runs that are under way or due while the agent is killed at random. */
const underWay = 6
const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

const server = await startPrefectServer(process.env.SOAK_SERVER === 'prefect3' ? 'prefect3' : 'prefect2')
try {
  await killAtEachStep(server.apiUrl)
  await killAtRandom(server.apiUrl)
  await race(server.apiUrl)
} finally {
  await server[Symbol.asyncDispose]()
}

async function killAtEachStep(apiUrl: string): Promise<void> {
  for (const point of killPoints) {
    const startedAt = performance.now()
    let round = 0
    const work = async () => {
      while (++round <= rounds) await killOnce(apiUrl, point)
    }
    await Promise.all(Array.from({ length: parallel }, work))
    console.log(`${point.padEnd(20)} ${rounds} kills, ${rounds} runs ended well, ${seconds(startedAt)} s`)
  }
}

async function killOnce(apiUrl: string, point: string): Promise<void> {
  await using stage = await openStage(apiUrl)
  const run = await stage.run(await stage.deployCommand({ script: 'sleep 0.2' }))
  await using first = stage.startAgent({ killAt: point })
  const end = await first.ended()
  if (end !== 'SIGKILL') throw new Error(`the agent ended with ${end} instead of at ${point}\n${first.output}`)
  await using second = stage.startAgent()
  const done = await stage.waitFor(run.id, over, 120_000)
  await settled(stage, [run.id])
  judge(stage, run.id, done.state_type, `${point}\n${first.output}\n${second.output}`)
}

async function killAtRandom(apiUrl: string): Promise<void> {
  const share = Math.ceil(kills / parallel)
  const shares = Array.from({ length: parallel }, (_, index) => Math.min(share, kills - index * share))
  await Promise.all(shares.map((count, index) => killManyTimes(apiUrl, count, `random ${index + 1}`)))
}

async function killManyTimes(apiUrl: string, kills: number, name: string): Promise<void> {
  await using stage = await openStage(apiUrl)
  const startedAt = performance.now()
  const deployment = await stage.deployCommand({ script: 'sleep 0.$(($$ % 10))' })
  const runs: string[] = []
  let agent: AgentProcess | undefined
  let killed = 0
  try {
    for (; killed < kills; killed++) {
      for (let more = openRuns(stage, runs); more < underWay; more++) runs.push((await stage.run(deployment)).id)
      agent = stage.startAgent({ limit: 4 })
      // A start takes about 300 ms; the rest of the range is where runs are claimed, started, watched and reported.
      await delay(150 + Math.random() * 1_500)
      agent.signal('SIGKILL')
      await agent.ended()
      if (killed % 50 === 49)
        console.log(`${name}: ${killed + 1} kills, ${runs.length} runs so far, ${seconds(startedAt)} s`)
    }
    agent = stage.startAgent({ limit: 4 })
    for (const id of runs) await stage.waitFor(id, over, 120_000)
    await settled(stage, runs)
    for (const id of runs) judge(stage, id, (await stage.readRun(id)).state_type, `after ${killed} kills at random`)
    console.log(
      `random: ${killed} kills, ${runs.length} runs, each with one START and one END, all Completed, ${seconds(startedAt)} s`,
    )
  } finally {
    await agent?.[Symbol.asyncDispose]()
  }
}

async function race(apiUrl: string): Promise<void> {
  await using stage = await openStage(apiUrl)
  const startedAt = performance.now()
  const { runs } = await raceAgents(stage, raceKills)
  console.log(
    `race: ${raceKills} kills among three agents, ${runs} runs, each with one START and one END, all Completed, ` +
      `${seconds(startedAt)} s`,
  )
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(0)
}
