// The end of a life: nothing new is claimed, runs are given time to end, then let go of or ended. Each log line says what
// the next signal will do.

import { hostname } from 'node:os'
import { Wake } from '../async/wake.ts'
import type { Logger } from '../logger.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { StateLock } from './lock.ts'
import type { Slots } from './slots.ts'

/**
 * `kill-own` ends what would end with the agent unseen, where it cannot detach: its processes. Containers and Jobs live
 * outside of its own and are let go of.
 */
export type OnStop = 'detach' | 'kill' | 'kill-own'

export interface DrainOptions {
  readonly slots: Slots
  readonly lock: StateLock
  readonly logger: Logger
  /** How long to wait for runs to end, in seconds. */
  readonly drainSeconds: number
  /** What becomes of those that are left. */
  readonly onStop: OnStop
  readonly cancelGraceSeconds: number
  /** The API answers: it makes sense to wait for reports. */
  readonly canReport: () => boolean
}

const lookEveryMs = 200
/** Reports of runs that were ended at last: this long, then the next start delivers them. */
const lastReportsMs = 10_000

/** Resolves when nothing is left, or what is left may be let go of. `kill`: end at once what still runs. */
export async function drain(options: DrainOptions, kill: AbortSignal): Promise<void> {
  const { slots, logger, onStop } = options
  const why = await waitForRuns(options, kill)
  if (slots.held === 0) return
  if (why === 'successor')
    logger.info({ runs: slots.held }, 'another agent waits for this state folder; letting go of the runs')
  else if (onStop === 'detach' && !kill.aborted) {
    logger.info({ runs: slots.held }, 'letting go of the runs; the next agent takes them over')
  } else if (onStop === 'kill-own' && !kill.aborted) await endOwn(options)
  else await endAll(options, slots.lives)
}

async function endOwn(options: DrainOptions): Promise<void> {
  const { slots, logger } = options
  const own = slots.lives.filter(isOwn)
  const others = slots.lives.length - own.length
  if (others > 0) logger.info({ runs: others }, 'letting go of containers and Jobs; the next agent takes them over')
  if (own.length > 0) await endAll(options, own)
}

async function waitForRuns(options: DrainOptions, kill: AbortSignal): Promise<'successor' | 'over'> {
  const { slots, lock, logger, drainSeconds, onStop } = options
  const deadline = performance.now() + drainSeconds * 1000
  const pause = new Wake()
  let said = -1
  while (slots.lives.length > 0 && performance.now() < deadline && !kill.aborted) {
    const runs = slots.held
    if (runs !== said) {
      lock.describe({ pid: process.pid, host: hostname(), runs, draining: true })
      logger.info({ runs, unreported: slots.unreported }, drainPhrase(onStop))
      said = runs
    }
    if (onStop !== 'kill' && lock.hasSuccessor() && mayLetGo(options)) return 'successor'
    if (runs === 0 && !options.canReport()) return 'over'
    await pause.wait(lookEveryMs, kill)
  }
  return 'over'
}

/** Nothing here ends with the agent. */
function mayLetGo({ slots, onStop }: DrainOptions): boolean {
  return onStop === 'detach' || !slots.lives.some(isOwn)
}

/** A process, or what may become one while the others are ended: it is not known yet what it will be. */
function isOwn({ record }: Lifecycle): boolean {
  return record.infrastructureType === 'process' || record.infrastructureType === undefined
}

function drainPhrase(onStop: OnStop): string {
  return onStop === 'detach'
    ? 'stopping: waiting for runs to end, then letting go of them; the next signal ends them'
    : 'stopping: waiting for runs to end; the next signal ends them'
}

async function endAll({ slots, logger, cancelGraceSeconds }: DrainOptions, lives: readonly Lifecycle[]): Promise<void> {
  logger.warn({ runs: lives.length }, 'ending the runs that are left; the next signal ends this process at once')
  for (const life of lives) life.requestStop('agent-stopped')
  const deadline = performance.now() + cancelGraceSeconds * 1000 + lastReportsMs
  const never = new AbortController().signal
  const pause = new Wake()
  const isLeft = () => slots.lives.some(life => lives.includes(life))
  while (isLeft() && performance.now() < deadline) await pause.wait(lookEveryMs, never)
}
