// Prefect 2.20.25's own block, fetching into a folder in a process of its own.

import { join } from 'node:path'
import process from 'node:process'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { prefectEnvironment } from '../support/requires.ts'
import { run } from '../support/run.ts'

export interface PrefectOrder extends StorageBlock {
  readonly from?: string
  /** Made when missing. */
  readonly to: string
}

/** What the fetch alone took, without Prefect's imports. Throws what Prefect said when it fails. */
export async function fetchByPrefect(
  order: PrefectOrder,
  options: {
    readonly environment: Readonly<Record<string, string | undefined>>
    readonly home: string
    readonly timeoutMs?: number
  },
): Promise<{ readonly ms: number; readonly processorMs: number }> {
  const python = join(prefectEnvironment('p2storage'), 'bin', 'python')
  const program = join(import.meta.dirname, 'prefect-fetch.py')
  const env = {
    PATH: process.env.PATH,
    ...options.environment,
    HOME: options.home,
    PREFECT_HOME: options.home,
    // gcsfs would ask over gRPC first, which no server here speaks, and wait a minute for it.
    GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT: 'false',
  }
  const timeoutMs = options.timeoutMs ?? 120_000
  const { code, stdout, stderr } = await run(python, [program, JSON.stringify(order)], { env, timeoutMs })
  if (code !== 0) throw new Error(`Prefect's block failed: ${stderr.trim().split('\n').at(-1)}`)
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '')
}
