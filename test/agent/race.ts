// Agents that race for the runs of one queue while one after the other is killed. The ledger in which each run writes START and
// END is the judge: one of each, in one process, and the right final state.

import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type AgentProcess, never, type Stage } from './stage.ts'

/** Runs that are under way or due at any time: enough for all racers to want the same ones. */
const underWay = 12
const racers = [0, 1, 2] as const
const over = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'] as const

/**
 * Three agents with state folders of their own. `kills` times one of them gets SIGKILL and a successor; what it has started
 * goes on, and nobody but that successor may touch it, however often the others poll. Throws at the first violation.
 */
export async function raceAgents(stage: Stage, kills: number): Promise<{ readonly runs: number }> {
  const deployment = await stage.deployCommand({ script: 'sleep 0.$(($$ % 10))' })
  const runs: string[] = []
  const startAgent = (index: number) =>
    stage.startAgent({ stateDirectory: join(stage.directory, `racer-${index}`), limit: 4 })
  const lives: AgentProcess[] = racers.map(startAgent)
  try {
    for (let killed = 0; killed < kills; killed++) {
      for (let more = openRuns(stage, runs); more < underWay; more++) runs.push((await stage.run(deployment)).id)
      await delay(300 + Math.random() * 1_200)
      const life = lives.at(-racers.length)
      life?.signal('SIGKILL')
      await life?.ended()
      lives.push(startAgent(killed % racers.length))
    }
    for (const id of runs) {
      await stage.waitFor(id, over).catch(async (error: unknown) => {
        throw new Error(await tell(stage, lives, id), { cause: error })
      })
    }
    await settled(stage, runs)
    for (const id of runs) judge(stage, id, (await stage.readRun(id)).state_type, await tell(stage, lives, id))
    return { runs: runs.length }
  } finally {
    for (const life of lives) await life[Symbol.asyncDispose]()
  }
}

/** All that was said of a run, by agents and by the server. */
async function tell(stage: Stage, lives: readonly AgentProcess[], id: string): Promise<string> {
  const lines = lives.flatMap(life => life.output.split('\n').filter(line => line.includes(id)))
  const states = await stage.client.readFlowRunStates(id, never)
  const past = states.map(state => `${state.timestamp} ${state.name} ${state.state_details.transition_id}`)
  return ['a race of agents', ...lines.toSorted(), ...past].join('\n')
}

/** How many of these runs have not written their END yet. */
export function openRuns(stage: Stage, runs: readonly string[]): number {
  const ended = stage.ledger().filter(line => line.what === 'END')
  return runs.length - new Set(ended.map(line => line.flowRunId)).size
}

/** The last line of a run may be written a moment after its report. */
export async function settled(stage: Stage, ids: readonly string[]): Promise<void> {
  const deadline = performance.now() + 10_000
  while (performance.now() < deadline && ids.some(id => stage.ledger(id).length < 2)) await delay(50)
}

/** Throws unless the run has been run once, whole, and is Completed. `where` goes into the message. */
export function judge(stage: Stage, id: string, state: string | null, where: string): void {
  const [start, end, ...more] = stage.ledger(id)
  const isOnce = start?.what === 'START' && end?.what === 'END' && more.length === 0 && start.pid === end.pid
  if (isOnce && state === 'COMPLETED') return
  throw new Error(`run ${id} is ${state}, ledger ${JSON.stringify(stage.ledger(id))}, killed at ${where}`)
}
