// How often an agent calls the API for one run: singly, and in a burst of one deployment. Polls are left out; a burst's
// looks at several runs at once count once.

import { setTimeout as delay } from 'node:timers/promises'
import { until } from '../test/support/until.ts'
import { type Kind, kinds } from './agents.ts'
import { median, type Row, round } from './figures.ts'
import { Corner, type Ground, type Work } from './ground.ts'
import { isPoll, type SeenCall } from './recorder.ts'

const singles = 3
const bursts: Readonly<Record<Work, number>> = { command: 60, executable: 60, engine: 16 }
/** Whatever the agent still has to say about a run that has ended. */
const afterwardsMs = 3000
const words: Readonly<Record<Work, string>> = {
  command: 'command named by the block',
  executable: 'plain executable',
  engine: "Prefect's engine",
}

export async function measureCalls(ground: Ground): Promise<readonly Row[]> {
  const rows: Row[] = []
  for (const work of ['command', 'executable', 'engine'] as const) {
    const cells = { prefect: { single: '-', burst: '-' }, rigel: { single: '-', burst: '-' } }
    // Prefect has no plain executables.
    for (const kind of kinds.filter(kind => kind === 'rigel' || work !== 'executable')) {
      cells[kind] = await countCalls(ground, kind, work)
    }
    const target = work === 'engine' ? '≤ 3' : '≤ 4'
    const what = `API calls of the agent for one run, ${words[work]}`
    rows.push(
      { what, prefect: cells.prefect.single, rigel: cells.rigel.single, target: '≤ 5' },
      {
        what: `the same in a burst of ${bursts[work]}`,
        prefect: cells.prefect.burst,
        rigel: cells.rigel.burst,
        target,
      },
    )
  }
  return rows
}

async function countCalls(ground: Ground, kind: Kind, work: Work): Promise<{ single: string; burst: string }> {
  await using corner = await Corner.open(ground)
  const deployment = await corner.deploy(work)
  await using agent = await corner.start({ kind, limit: 16 })
  const counted: number[] = []
  for (let single = 0; single < singles; single++) {
    counted.push((await callsFor(corner, () => corner.createRuns(deployment, 1), 1)).length)
  }
  const inBurst = await callsFor(corner, () => corner.createRuns(deployment, bursts[work]), bursts[work])
  if (agent.hasEnded) throw new Error(`${kind} has ended:\n${agent.log()}`)
  return { single: round(median(counted), 0), burst: round(inBurst.length / bursts[work]) }
}

/** Prefect's agent is asked for few at a time; the runs are made while it is at it, as a burst is in life. */
async function callsFor(corner: Corner, make: () => Promise<unknown>, runs: number): Promise<readonly SeenCall[]> {
  corner.forget()
  await make()
  const options = { timeoutMs: 600_000, everyMs: 100, what: `${runs} runs to end` }
  await until(() => corner.readLedger('END').size >= runs, options)
  await delay(afterwardsMs)
  return corner.recorder.calls.filter(call => !isPoll(call))
}
