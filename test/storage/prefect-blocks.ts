// Prefect 2.20.25's own blocks, each fetch in a process of its own: forked from one that has imported Prefect, which takes
// seconds of a processor.

import { join } from 'node:path'
import process from 'node:process'
import * as v from 'valibot'
import type { StorageBlock } from '../../src/storage/registry.ts'
import { makeDirectory } from '../support/directory.ts'
import { startPython } from '../support/python.ts'
import { prefectEnvironment } from '../support/requires.ts'

export interface PrefectOrder extends StorageBlock {
  readonly from?: string | undefined
  /** Made when missing. */
  readonly to: string
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined
  /** Default two minutes. */
  readonly timeoutSeconds?: number
}

const Times = v.object({ ms: v.number(), processorMs: v.number() })
const Answer = v.union([Times, v.object({ error: v.string() })])

export type FetchTimes = v.InferOutput<typeof Times>

export interface PrefectBlocks extends AsyncDisposable {
  /** What the fetch alone took, without imports. Throws what Prefect said when it fails. */
  fetch(order: PrefectOrder): Promise<FetchTimes>
}

export async function startPrefectBlocks(): Promise<PrefectBlocks> {
  const home = await makeDirectory()
  const program = join(import.meta.dirname, 'prefect-fetch.py')
  const python = startPython(join(prefectEnvironment('p2storage'), 'bin', 'python'), program, {
    env: {
      PATH: process.env.PATH,
      HOME: home.path,
      PREFECT_HOME: home.path,
      // Its blocks are deprecated, all of them.
      PYTHONWARNINGS: 'ignore',
      // gcsfs would ask over gRPC first, which no server here speaks, and wait a minute for it.
      GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT: 'false',
    },
  })
  return {
    async fetch(order) {
      const answer = v.parse(Answer, await python.ask(order))
      if ('error' in answer) throw new Error(`Prefect's block failed: ${answer.error}`)
      return answer
    },
    async [Symbol.asyncDispose]() {
      await python[Symbol.asyncDispose]()
      await home[Symbol.asyncDispose]()
    },
  }
}
