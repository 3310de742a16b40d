// An agent with nothing to do: memory of its tree, processor time, requests; and its memory again after a burst.
//
// BENCH_IDLE_MINUTES says how long it idles before it is looked at: 1 by default, 10 for the figures of the table.

import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { until } from '../test/support/until.ts'
import { type Kind, kinds } from './agents.ts'
import { type Row, round } from './figures.ts'
import { Corner, type Ground } from './ground.ts'
import { readProcessorMs, readUsage } from './process-tree.ts'

const minutes = Number(process.env.BENCH_IDLE_MINUTES ?? 1)
/** The start and its aftermath are not idling. */
const settleMs = 10_000
/** Prefect's agent starts ten of them per quarter of a minute. */
const burst = { prefect: 30, rigel: 100 }
const burstMs = 240_000
/** Then it may tidy up. */
const afterBurstMs = 60_000

interface Idle {
  readonly before: number
  readonly after: number
  readonly share: number
  readonly perMinute: number
}

export async function measureIdle(ground: Ground): Promise<readonly Row[]> {
  const [prefect, rigel] = await Promise.all(kinds.map(kind => idle(ground, kind)))
  if (!prefect || !rigel) throw new Error('both are measured')
  const row = (what: string, target: string, show: (of: Idle) => string): Row => ({
    what,
    target,
    prefect: show(prefect),
    rigel: show(rigel),
  })
  return [
    row(`memory after ${minutes} idle min, PSS of the tree`, '≤ 70 MiB, aim 60', of => `${round(of.before)} MiB`),
    row(
      `the same 1 min after a burst of ${burst.rigel} runs (Prefect's: ${burst.prefect})`,
      '≤ 70 MiB, aim 60',
      of => `${round(of.after)} MiB`,
    ),
    row('processor when idle, share of a core', 'no more', of => `${round(of.share * 100, 2)} %`),
    row('requests per minute when idle, one queue', '≤ 6', of => round(of.perMinute)),
  ]
}

async function idle(ground: Ground, kind: Kind): Promise<Idle> {
  await using corner = await Corner.open(ground)
  const deployment = await corner.deploy('command')
  await using agent = await corner.start({ kind })
  await until(() => corner.recorder.calls.length > 0, { timeoutMs: 60_000, what: `${kind} to call` })
  await delay(settleMs)

  corner.recorder.forget()
  const processor = readProcessorMs(agent.pid, true)
  const from = performance.now()
  await delay(minutes * 60_000)
  const ms = performance.now() - from
  const share = (readProcessorMs(agent.pid, true) - processor) / ms
  const perMinute = corner.recorder.calls.length / (ms / 60_000)
  const before = readUsage(agent.pid).pssMiB
  console.log(
    `${kind}, idle: ${round(before)} MiB, ${round(share * 100, 2)} % of a core, ${round(perMinute)} requests/min`,
  )

  await corner.createRuns(deployment, burst[kind])
  const options = { timeoutMs: burstMs, everyMs: 500, what: `${kind} to run ${burst[kind]} runs` }
  await until(() => corner.readLedger('END').size === burst[kind] || agent.hasEnded, options)
  if (agent.hasEnded) throw new Error(`${kind} has ended:\n${agent.log()}`)
  await delay(afterBurstMs)
  return { before, after: readUsage(agent.pid).pssMiB, share, perMinute }
}
