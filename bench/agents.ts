// The two that are compared, started alike: with their defaults, against the URL of a recorder, in a home of their own.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { cleanEnvironment, findPrefect } from '../test/support/prefect-server.ts'
import type { Packed } from './packed.ts'

export const kinds = ['prefect', 'rigel'] as const
export type Kind = (typeof kinds)[number]

export interface AgentOptions {
  readonly kind: Kind
  readonly packed: Packed
  readonly apiUrl: string
  readonly queue: string
  readonly limit?: number
  /** Beyond the defaults: variables that both honour, and the ledger's place for runs. */
  readonly environment?: Readonly<Record<string, string>>
}

export interface BenchAgent extends AsyncDisposable {
  readonly pid: number
  /** `performance.now()` when it was started. */
  readonly startedAt: number
  readonly hasEnded: boolean
  /** What it has said so far. */
  log(): string
}

/** Milliseconds. Prefect's agent waits for its runs; nothing here is worth waiting for. */
const STOP_MS = 5000

export async function startAgent(options: AgentOptions): Promise<BenchAgent> {
  const { kind, packed, apiUrl, queue, limit, environment } = options
  const home = await mkdtemp(join(tmpdir(), 'rigel-bench-home-'))
  const log = join(home, 'log')
  const output = openSync(log, 'a')
  const words = ['agent', 'start', '-q', queue, ...(limit === undefined ? [] : ['--limit', String(limit)])]
  const [program, args] =
    kind === 'rigel'
      ? [packed.node, [packed.rigel, ...words]]
      : [join(findPrefect('prefect2'), 'bin', 'prefect'), words]
  const startedAt = performance.now()
  const child = spawn(program, args, {
    env: {
      ...cleanEnvironment(),
      HOME: home,
      PREFECT_HOME: home,
      PREFECT_API_URL: apiUrl,
      RIGEL_PYTHON: join(findPrefect('prefect2'), 'bin', 'python'),
      ...environment,
    },
    stdio: ['ignore', output, output],
  })
  closeSync(output)
  if (child.pid === undefined) throw new Error(`could not start ${program}`)
  return {
    pid: child.pid,
    startedAt,
    get hasEnded() {
      return child.exitCode !== null || child.signalCode !== null
    },
    log: () => readFileSync(log, 'utf8'),
    async [Symbol.asyncDispose]() {
      await stop(child)
      await rm(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
    },
  }
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined
  child.kill('SIGTERM')
  await Promise.race([ended, delay(STOP_MS, undefined, { ref: false })])
  child.kill('SIGKILL')
  await ended
}
