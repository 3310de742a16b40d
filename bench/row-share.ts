// From the answer of the claim to the first instruction of the run's process, without the time in which the server
// answers other calls of the agent: what the agent itself takes, single runs.

import { until } from '../test/support/until.ts'
import { type Kind, kinds } from './agents.ts'
import { percentile, type Row, round } from './figures.ts'
import { Corner, type Ground } from './ground.ts'
import { isClaim, isPoll, type SeenCall } from './recorder.ts'

const runs = 50
/** The first runs load what is loaded at first use. */
const warmUps = 3

interface Shares {
  readonly whole: readonly number[]
  readonly own: readonly number[]
}

export async function measureShare(ground: Ground): Promise<readonly Row[]> {
  const cells = { prefect: ['', ''], rigel: ['', ''] }
  for (const kind of kinds) {
    const { whole, own } = await measureLaunches(ground, kind)
    cells[kind] = [whole, own].map(ms => `${round(percentile(ms, 0.5))} / ${round(percentile(ms, 0.95))} ms`)
  }
  const what = `claim answered to process started, ${runs} single runs, p50 / p95`
  const [prefectWhole = '', prefectOwn = ''] = cells.prefect
  const [rigelWhole = '', rigelOwn = ''] = cells.rigel
  return [
    { what, prefect: prefectWhole, rigel: rigelWhole, target: '-' },
    {
      what: "the same without the server's answering time",
      prefect: prefectOwn,
      rigel: rigelOwn,
      target: '≤ 5 / ≤ 20 ms',
    },
  ]
}

async function measureLaunches(ground: Ground, kind: Kind): Promise<Shares> {
  await using corner = await Corner.open(ground)
  const deployment = await corner.deploy('command')
  await using _agent = await corner.start({ kind, environment: { PREFECT_AGENT_QUERY_INTERVAL: '1' } })
  const whole: number[] = []
  const own: number[] = []
  for (let run = 0; run < warmUps + runs; run++) {
    const [id = ''] = await corner.createRuns(deployment, 1)
    const options = { timeoutMs: 60_000, everyMs: 10, what: `${kind} to run ${id}` }
    const [startedAt = Number.NaN] = await until(() => corner.readLedger('START').get(id), options)
    const { calls } = corner.recorder
    const claim = calls.find(call => isClaim(call) && call.id === id)
    if (!claim) throw new Error(`no claim of ${id} was seen`)
    const to = startedAt - wallClockAhead()
    const taken = to - claim.answeredAt
    if (run < warmUps) continue
    whole.push(taken)
    own.push(
      taken -
        answeringMs(
          calls.filter(call => !isPoll(call)),
          claim.answeredAt,
          to,
        ),
    )
  }
  return { whole, own }
}

/** Wall clock less `performance.now()`, taken at a tick of the wall clock: the two drift apart. */
function wallClockAhead(): number {
  const from = Date.now()
  for (;;) {
    const now = Date.now()
    if (now !== from) return now - performance.now()
  }
}

/** How much of the time between the two the server had a call of the agent before it; overlapping calls count once. */
function answeringMs(calls: readonly SeenCall[], from: number, to: number): number {
  let sum = 0
  let until = from
  for (const { arrivedAt, answeredAt } of calls.toSorted((a, b) => a.arrivedAt - b.arrivedAt)) {
    const begin = Math.max(arrivedAt, until)
    const end = Math.min(answeredAt, to)
    if (end <= begin) continue
    sum += end - begin
    until = end
  }
  return sum
}
